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

// A ring is a TPACKET_V3 receive ring on one interface. The kernel and this process share memory that is
// divided into blocks. The kernel fills a block with packets and marks it TP_STATUS_USER; read passes the
// packets on in place and marks the block TP_STATUS_KERNEL again. Source:
// Documentation/networking/packet_mmap.rst of Linux.
//
// A ring is used by one goroutine.
type ring struct {
	fd        int
	link      layers.LinkType
	memory    []byte
	reserved  int // bytes charged to ringMemory
	blocks    int
	blockSize int // bytes
	nextBlock int // index of the block that the kernel hands over next
	unread    int // packets in the ring when statistics was called last; less than 0 if more came since
	iface     string
	index     int // of the interface
	closed    bool
}

// A ringConfig describes a ring.
type ringConfig struct {
	bytes       int // of the whole ring; rounded down to blocks, at least two
	blockBytes  int
	retireAfter time.Duration // the kernel hands over a block after this time even if it is not full
	promiscuous bool
	group       *fanoutGroup // shares the packets out among several rings; nil: this ring gets all packets
}

// openRing returns a ring on ifi that receives nothing until setFilter is called: a ring must not receive
// packets before all rings of its group have joined, because until then it gets those of the others.
func openRing(ifi *net.Interface, cfg ringConfig) (*ring, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open a packet socket on %s (needs CAP_NET_RAW): %w", ifi.Name, err)
	}
	r := &ring{
		fd: fd, iface: ifi.Name, index: ifi.Index,
		blockSize: cfg.blockBytes, blocks: max(cfg.bytes/cfg.blockBytes, 2),
	}
	if err := r.configure(ifi, cfg); err != nil {
		r.close()
		return nil, fmt.Errorf("capture on %s: %w", ifi.Name, err)
	}
	return r, nil
}

// configure maps the ring, binds its socket to ifi and joins the fanout group, in the order that the kernel
// demands.
func (r *ring) configure(ifi *net.Interface, cfg ringConfig) error {
	// The version and the headroom must be set before the ring is made.
	if err := unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V3); err != nil {
		return fmt.Errorf("select TPACKET_V3: %w", err)
	}

	// restoreVLAN moves the MAC addresses into the headroom before each packet.
	if err := unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_RESERVE, 16); err != nil {
		return fmt.Errorf("reserve headroom: %w", err)
	}

	// The ring is memory of the kernel, mapped into this process.
	req := unix.TpacketReq3{
		Block_size: uint32(r.blockSize), Block_nr: uint32(r.blocks), Frame_size: 2048,
		Frame_nr: uint32(r.blockSize / 2048 * r.blocks), Retire_blk_tov: uint32(cfg.retireAfter.Milliseconds()),
	}
	if err := unix.SetsockoptTpacketReq3(r.fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &req); err != nil {
		return fmt.Errorf("make a ring of %d blocks of %d bytes: %w", r.blocks, r.blockSize, err)
	}
	mem, err := unix.Mmap(r.fd, 0, r.blockSize*r.blocks, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map the ring: %w", err)
	}
	r.memory = mem

	// No packet comes before the bind, so none bypasses the filter.
	if err := r.setFilter(dropAll); err != nil {
		return err
	}
	address := unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: ifi.Index}
	if err := unix.Bind(r.fd, &address); err != nil {
		return fmt.Errorf("bind: %w", err)
	}

	if r.link, err = linkType(ifi.Name); err != nil {
		return err
	}
	if cfg.promiscuous { // a bridge forwards frames that are not addressed to this host
		mreq := unix.PacketMreq{Ifindex: int32(ifi.Index), Type: unix.PACKET_MR_PROMISC}
		if err := unix.SetsockoptPacketMreq(r.fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &mreq); err != nil {
			return fmt.Errorf("set promiscuous mode: %w", err)
		}
	}
	return cfg.group.addRing(r)
}

// dropAll and passAll are filters that drop and pass every packet.
var (
	dropAll = []bpf.RawInstruction{{Op: unix.BPF_RET | unix.BPF_K, K: 0}}
	passAll = []bpf.RawInstruction{{Op: unix.BPF_RET | unix.BPF_K, K: 1 << 18}}
)

// setFilter replaces the filter of the ring.
func (r *ring) setFilter(filter []bpf.RawInstruction) error {
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: (*unix.SockFilter)(unsafe.Pointer(&filter[0]))}
	if err := unix.SetsockoptSockFprog(r.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog); err != nil {
		return fmt.Errorf("attach the filter: %w", err)
	}
	return nil
}

// linkType returns the type of the outermost header of the frames of an interface. /sys/class/net/<name>/type
// holds an ARPHRD_* number of linux/if_arp.h.
func linkType(name string) (layers.LinkType, error) {
	data, err := os.ReadFile("/sys/class/net/" + name + "/type")
	if err != nil {
		// /sys shows another network namespace. Every interface that Docker creates is Ethernet.
		return layers.LinkTypeEthernet, nil
	}
	switch string(data) {
	case "1\n", "772\n": // Ethernet, loopback
		return layers.LinkTypeEthernet, nil
	case "512\n", "65534\n", "768\n", "769\n", "776\n", "778\n": // PPP, tun, tunnels: bare IP
		return layers.LinkTypeRaw, nil
	}
	return 0, fmt.Errorf("unsupported ARPHRD link type %q", data)
}

// htons converts v to network byte order on a little-endian machine.
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
	pktType     = 58 // sll_pkttype of struct sockaddr_ll, which follows
)

func (r *ring) block(i int) []byte { return r.memory[i*r.blockSize : (i+1)*r.blockSize] }

func hostUint32(b []byte, at int) uint32 { return *(*uint32)(unsafe.Pointer(&b[at])) }
func hostUint16(b []byte, at int) uint16 { return *(*uint16)(unsafe.Pointer(&b[at])) }

func blockState(b []byte) *uint32 { return (*uint32)(unsafe.Pointer(&b[blockStatus])) }

// A readFunc takes one packet. trusted is set if the kernel vouches for the checksums of the packet, sent if
// this host has sent it on the interface.
type readFunc = func(at int64, data []byte, wireLen int, trusted, sent bool)

// trustedStatus is set in the status of packets whose checksums the kernel has verified, or that are not filled
// in yet, because that is left to the network card, or to no one within the host.
const trustedStatus = unix.TP_STATUS_CSUM_VALID | unix.TP_STATUS_CSUMNOTREADY

// read calls f for every packet of the blocks that are ready, at most once around the ring, and returns the
// number of packets. data is valid until f returns.
func (r *ring) read(f readFunc) int {
	packets := 0
	for range r.blocks {
		// A block with the status USER belongs to this process until the status is KERNEL again.
		block := r.block(r.nextBlock)
		if atomic.LoadUint32(blockState(block))&unix.TP_STATUS_USER == 0 {
			return packets
		}
		count := readPackets(block, f)
		packets, r.unread = packets+count, r.unread-int(hostUint32(block, blockNumPkts))
		atomic.StoreUint32(blockState(block), unix.TP_STATUS_KERNEL)
		r.nextBlock = (r.nextBlock + 1) % r.blocks
	}
	return packets
}

// readPackets calls f for every packet of one block and returns the number of packets. It stops at a header
// that points outside the block. No kernel is known to write such a header, but a panic here would end the
// collector.
func readPackets(block []byte, f readFunc) int {
	count := int(hostUint32(block, blockNumPkts))
	at := uint64(hostUint32(block, blockFirstPkt))
	for n := range count {
		if at+pktType >= uint64(len(block)) {
			return n
		}

		// The frame is between mac and end, relative to the packet's header.
		header := block[at:]
		mac := uint64(hostUint16(header, pktMac))
		end := mac + uint64(hostUint32(header, pktSnaplen))
		if end > uint64(len(header)) {
			return n
		}
		data, wire := header[mac:end:end], int(hostUint32(header, pktLen))
		status, sent := hostUint32(header, pktStatus), header[pktType] == unix.PACKET_OUTGOING
		if status&unix.TP_STATUS_VLAN_VALID != 0 && mac >= pktHeader+4 && len(data) >= 12 {
			data, wire = restoreVLAN(header, data, status), wire+4
		}
		f(int64(hostUint32(header, pktSec))*1e9+int64(hostUint32(header, pktNsec)), data, wire,
			status&trustedStatus != 0, sent)
		at += uint64(hostUint32(header, pktNext))
	}
	return count
}

// restoreVLAN returns the frame data with the VLAN tag that the kernel moved from the frame into header, that
// of the packet. It moves both MAC addresses four bytes towards the front, into the reserved headroom, and
// writes the tag behind them.
func restoreVLAN(header, data []byte, status uint32) []byte {
	mac := int(hostUint16(header, pktMac))
	tpid := uint16(0x8100)
	if status&unix.TP_STATUS_VLAN_TPID_VALID != 0 {
		tpid = hostUint16(header, pktVlanTPID)
	}
	tci := hostUint32(header, pktVlanTCI)
	out := header[mac-4 : mac+len(data)]
	copy(out, data[:12])
	out[12], out[13], out[14], out[15] = byte(tpid>>8), byte(tpid), byte(tci>>8), byte(tci)
	return out
}

var errInterfaceGone = errors.New("interface is down or removed")

// wait blocks until a block is ready or timeout has passed. It returns errInterfaceGone when the interface is
// down or removed.
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
		return errInterfaceGone
	}
	return nil
}

// statistics returns how many packets the kernel dropped since the last call because the ring was full. It adds the
// others of that time to unread.
func (r *ring) statistics() (drops uint32, err error) {
	st, err := unix.GetsockoptTpacketStatsV3(r.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return 0, fmt.Errorf("read the statistics of %s: %w", r.iface, err)
	}
	r.unread += int(st.Packets - st.Drops) // packets has the dropped ones, too
	return st.Drops, nil
}

// close unmaps the ring and closes its socket. A second call does nothing.
func (r *ring) close() {
	if r.closed {
		return
	}
	r.closed = true
	if r.memory != nil {
		_ = unix.Munmap(r.memory)
	}
	_ = unix.Close(r.fd)
}
