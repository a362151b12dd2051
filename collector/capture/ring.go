//go:build linux

package capture

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/google/gopacket/layers"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// A ring is a TPACKET_V3 receive ring on one interface: the kernel fills blocks of memory that it shares with us, we read packets
// where they lie and give the block back. See the kernel's Documentation/networking/packet_mmap.rst.
type ring struct {
	fd      int
	link    layers.LinkType
	mem     []byte
	blocks  int
	size    int // of a block
	next    int // block to read next
	iface   string
	index   int
	stopped bool
}

type ringConfig struct {
	bytes       int
	blockBytes  int
	retire      time.Duration // a block that is not full is handed over after this
	promiscuous bool
	group       *fanout // shares the packets of the interface with the group's other rings; nil: this ring has all of them
	filter      []bpf.RawInstruction
}

// openRing binds last, so that no packet comes in before the filter and the ring stand.
func openRing(ifi *net.Interface, cfg ringConfig) (*ring, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open a packet socket on %s (it needs CAP_NET_RAW): %w", ifi.Name, err)
	}
	r := &ring{fd: fd, iface: ifi.Name, index: ifi.Index, size: cfg.blockBytes, blocks: max(cfg.bytes/cfg.blockBytes, 2)}
	if err := r.setUp(ifi, cfg); err != nil {
		r.close()
		return nil, fmt.Errorf("capture on %s: %w", ifi.Name, err)
	}
	return r, nil
}

func (r *ring) setUp(ifi *net.Interface, cfg ringConfig) error {
	if err := unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V3); err != nil {
		return fmt.Errorf("ask for TPACKET_V3: %w", err)
	}
	// Room in front of each packet, for a VLAN tag that the kernel took out and we put back.
	if err := unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_RESERVE, 16); err != nil {
		return fmt.Errorf("reserve headroom: %w", err)
	}
	req := unix.TpacketReq3{
		Block_size: uint32(r.size), Block_nr: uint32(r.blocks), Frame_size: 2048,
		Frame_nr: uint32(r.size / 2048 * r.blocks), Retire_blk_tov: uint32(cfg.retire.Milliseconds()),
	}
	if err := unix.SetsockoptTpacketReq3(r.fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &req); err != nil {
		return fmt.Errorf("make a ring of %d blocks of %d bytes: %w", r.blocks, r.size, err)
	}
	mem, err := unix.Mmap(r.fd, 0, r.size*r.blocks, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map the ring: %w", err)
	}
	r.mem = mem
	if len(cfg.filter) > 0 {
		prog := unix.SockFprog{Len: uint16(len(cfg.filter)), Filter: (*unix.SockFilter)(unsafe.Pointer(&cfg.filter[0]))}
		if err := unix.SetsockoptSockFprog(r.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog); err != nil {
			return fmt.Errorf("attach the filter: %w", err)
		}
	}
	if err := unix.Bind(r.fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: ifi.Index}); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	if r.link, err = linkType(ifi.Name); err != nil {
		return err
	}
	if cfg.promiscuous {
		mreq := unix.PacketMreq{Ifindex: int32(ifi.Index), Type: unix.PACKET_MR_PROMISC}
		if err := unix.SetsockoptPacketMreq(r.fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &mreq); err != nil {
			return fmt.Errorf("make it promiscuous: %w", err)
		}
	}
	return cfg.group.join(r.fd)
}

// A fanout is the group of the rings of one interface. The kernel picks its number when the first ring joins (since Linux 4.12): a
// group of the same number on another interface would be refused, and one of another process, which in a container may well have our
// process id, would take half of our packets.
type fanout struct {
	id     int
	joined bool
}

func (g *fanout) join(fd int) error {
	if g == nil {
		return nil
	}
	// DEFRAG is for IPv4: the fragments of one datagram reach one worker. Those of IPv6 are put together by the session table.
	flags := unix.PACKET_FANOUT_HASH | unix.PACKET_FANOUT_FLAG_DEFRAG
	if !g.joined {
		flags |= unix.PACKET_FANOUT_FLAG_UNIQUEID
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_FANOUT, g.id|flags<<16); err != nil {
		return fmt.Errorf("join fanout group %d: %w", g.id, err)
	}
	if g.joined {
		return nil
	}
	v, err := unix.GetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_FANOUT)
	if err != nil {
		return fmt.Errorf("ask for the number of the fanout group: %w", err)
	}
	g.id, g.joined = v&0xffff, true
	return nil
}

// ARPHRD_* of linux/if_arp.h, as /sys/class/net/<name>/type gives them, to what a frame begins with.
func linkType(name string) (layers.LinkType, error) {
	b, err := os.ReadFile("/sys/class/net/" + name + "/type")
	if err != nil {
		return layers.LinkTypeEthernet, nil // /sys of another namespace: every interface that Docker makes is Ethernet
	}
	switch string(b) {
	case "1\n", "772\n": // Ethernet, loopback
		return layers.LinkTypeEthernet, nil
	case "512\n", "65534\n", "768\n", "769\n", "776\n", "778\n": // PPP, tun, tunnels: bare IP
		return layers.LinkTypeRaw, nil
	}
	return 0, fmt.Errorf("frames of type %q are not known", b)
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// Offsets within a block (struct tpacket_block_desc) and a packet (struct tpacket3_hdr) of linux/if_packet.h.
const (
	blockStatus   = 8
	blockNumPkts  = 12
	blockFirstPkt = 16

	pktNext     = 0
	pktSec      = 4
	pktNsec     = 8
	pktSnaplen  = 12
	pktLen      = 16
	pktStatus   = 20
	pktMac      = 24
	pktVlanTCI  = 32
	pktVlanTPID = 36
	pktHeader   = 48 // struct tpacket3_hdr, with hv1 and padding
)

func (r *ring) block(i int) []byte { return r.mem[i*r.size : (i+1)*r.size] }

func u32(b []byte, at int) uint32 { return *(*uint32)(unsafe.Pointer(&b[at])) }
func u16(b []byte, at int) uint16 { return *(*uint16)(unsafe.Pointer(&b[at])) }

func status(b []byte) *uint32 { return (*uint32)(unsafe.Pointer(&b[blockStatus])) }

// read hands every packet of the blocks that are ready to f, at most one round of the ring, and tells how many there were. data is
// valid until f returns: then its block goes back to the kernel.
func (r *ring) read(f func(at int64, data []byte, wireLen int)) int {
	n := 0
	for range r.blocks {
		b := r.block(r.next)
		if atomic.LoadUint32(status(b))&unix.TP_STATUS_USER == 0 {
			return n
		}
		n += readBlock(b, f)
		atomic.StoreUint32(status(b), unix.TP_STATUS_KERNEL)
		r.next = (r.next + 1) % r.blocks
	}
	return n
}

// readBlock hands the packets of one block to f and tells how many there were. A header that points out of the block ends it: no
// kernel is known to write one, and a panic here would end the collector.
func readBlock(b []byte, f func(at int64, data []byte, wireLen int)) int {
	count := int(u32(b, blockNumPkts))
	at := uint64(u32(b, blockFirstPkt))
	for n := range count {
		if at+pktHeader > uint64(len(b)) {
			return n
		}
		h := b[at:]
		mac := uint64(u16(h, pktMac))
		end := mac + uint64(u32(h, pktSnaplen))
		if end > uint64(len(h)) {
			return n
		}
		data, wire := h[mac:end:end], int(u32(h, pktLen))
		if st := u32(h, pktStatus); st&unix.TP_STATUS_VLAN_VALID != 0 && mac >= pktHeader+4 && len(data) >= 12 {
			data, wire = restoreVLAN(h, data, st), wire+4
		}
		f(int64(u32(h, pktSec))*1e9+int64(u32(h, pktNsec)), data, wire)
		at += uint64(u32(h, pktNext))
	}
	return count
}

// restoreVLAN puts the tag back that the kernel took out of the frame (it hands it over in the header): both addresses move four
// bytes to the front, into the room that was reserved.
func restoreVLAN(h, data []byte, st uint32) []byte {
	mac := int(u16(h, pktMac))
	tpid := uint16(0x8100)
	if st&unix.TP_STATUS_VLAN_TPID_VALID != 0 {
		tpid = u16(h, pktVlanTPID)
	}
	tci := u32(h, pktVlanTCI)
	out := h[mac-4 : mac+len(data)]
	copy(out, data[:12])
	out[12], out[13], out[14], out[15] = byte(tpid>>8), byte(tpid), byte(tci>>8), byte(tci)
	return out
}

var errGone = errors.New("the interface is gone")

// wait sleeps until a block is ready or timeout has passed. errGone: the interface was taken away or down.
func (r *ring) wait(timeout time.Duration) error {
	fds := []unix.PollFd{{Fd: int32(r.fd), Events: unix.POLLIN}}
	_, err := unix.Poll(fds, int(timeout.Milliseconds()))
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("wait on %s: %w", r.iface, err)
	}
	if fds[0].Revents&(unix.POLLERR|unix.POLLHUP|unix.POLLNVAL) != 0 {
		code, _ := unix.GetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if errno := unix.Errno(code); errno != 0 && errno != unix.ENETDOWN {
			return fmt.Errorf("wait on %s: %w", r.iface, errno)
		}
		return errGone
	}
	return nil
}

// stats are the packets that reached the socket and those it dropped for want of room since the last call.
func (r *ring) stats() (packets, drops uint32, err error) {
	st, err := unix.GetsockoptTpacketStatsV3(r.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return 0, 0, fmt.Errorf("read the statistics of %s: %w", r.iface, err)
	}
	return st.Packets, st.Drops, nil
}

func (r *ring) close() {
	if r.stopped {
		return
	}
	r.stopped = true
	if r.mem != nil {
		_ = unix.Munmap(r.mem)
	}
	_ = unix.Close(r.fd)
}
