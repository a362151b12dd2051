//go:build linux

package capture

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/gopacket/layers"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"tidegate/collector"
	"tidegate/pipeline"
	"tidegate/pipeline/netnstest"
)

// A frameRecorder is a Handler that stores Ethernet frames.
type frameRecorder struct {
	mu     sync.Mutex
	frames [][]byte
	closed int
}

func (s *frameRecorder) Packet(_ string, link layers.LinkType, at int64, data []byte, wireLen int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if link == layers.LinkTypeEthernet && at > 0 && wireLen == len(data) {
		s.frames = append(s.frames, bytes.Clone(data))
	}
}
func (s *frameRecorder) TrustChecksums(bool) {}
func (s *frameRecorder) SetSentByHost(bool)  {}
func (s *frameRecorder) Tick(int64)          {}
func (s *frameRecorder) Close()              { s.mu.Lock(); s.closed++; s.mu.Unlock() }

// framesWith returns the frames that contain marker.
func (s *frameRecorder) framesWith(marker string) [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found [][]byte
	for _, frame := range s.frames {
		if bytes.Contains(frame, []byte(marker)) {
			found = append(found, frame)
		}
	}
	return found
}

// wait waits for want frames that contain marker.
func (s *frameRecorder) wait(t *testing.T, marker string, want int) [][]byte {
	t.Helper()
	for range 500 {
		if len(s.framesWith(marker)) >= want {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	got := s.framesWith(marker)
	if len(got) != want {
		t.Fatalf("%q: captured %d frames, want %d", marker, len(got), want)
	}
	return got
}

// discardShipper is a shipper and its producer for handlers that ship nothing. Only Close is called.
type discardShipper struct{}

func (discardShipper) TryShip(*pipeline.Event) bool            { return true }
func (discardShipper) Close()                                  {}
func (discardShipper) Packets(string) collector.PacketProducer { return discardShipper{} }
func (discardShipper) File(string) collector.FileProducer      { return nil }
func (discardShipper) Files(string) []string                   { return nil }
func (discardShipper) Prune(func(string) bool)                 {}

func ip(t *testing.T, args string) { t.Helper(); netnstest.Run(t, "ip", strings.Fields(args)...) }

// send sends frames on an interface of a namespace.
func send(t *testing.T, ns, iface string, frames ...[]byte) {
	t.Helper()
	<-netnstest.Start(t, ns, func() {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = unix.Close(fd) }()
		info, err := net.InterfaceByName(iface)
		if err != nil {
			t.Error(err)
			return
		}
		for _, frame := range frames {
			to := unix.SockaddrLinklayer{Ifindex: info.Index, Protocol: htons(unix.ETH_P_ALL)}
			if err := unix.Sendto(fd, frame, 0, &to); err != nil {
				t.Error(err)
			}
		}
	})
}

// frame returns a broadcast Ethernet frame with VLAN tags, if any.
func frame(tags []byte, etherType uint16, rest []byte) []byte {
	data := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 9}, tags...)
	data = binary.BigEndian.AppendUint16(data, etherType)
	return append(data, rest...)
}

// udp4 returns an IPv4 packet to port 53.
func udp4(payload string) []byte {
	data := []byte{
		0x45, 0, 0, byte(28 + len(payload)), 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2, // IPv4
		0x30, 0x39, 0, 53, 0, byte(8 + len(payload)), 0, 0, // UDP
	}
	return append(data, payload...)
}

// tcp4 returns an IPv4 packet with options.
func tcp4(from, to string, sport, dport uint16, payload string) []byte {
	data := []byte{0x46, 0, 0, byte(44 + len(payload)), 0, 0, 0, 0, 64, 6, 0, 0}
	data = append(append(data, netip.MustParseAddr(from).AsSlice()...), netip.MustParseAddr(to).AsSlice()...)
	data = append(data, 1, 1, 1, 1) // options, so that the header's length matters
	data = binary.BigEndian.AppendUint16(data, sport)
	data = binary.BigEndian.AppendUint16(data, dport)
	return append(append(data, make([]byte, 16)...), payload...)
}

// TestLiveCapture captures on a veth pair between two namespaces. Every frame is read once with the bytes
// that were sent, a VLAN tag is in its place, excluded addresses are missing, and an interface that goes and
// returns is captured again.
func TestLiveCapture(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a packet socket and a namespace need root")
	}
	captureNS, senderNS := fmt.Sprintf("tgcapa%d", os.Getpid()), fmt.Sprintf("tgcapb%d", os.Getpid())
	for _, ns := range []string{captureNS, senderNS} {
		ip(t, "netns add "+ns)
		t.Cleanup(func() { ip(t, "netns del "+ns) })
	}
	addInterface := func() {
		ip(t, "link add eth0 netns "+captureNS+" type veth peer name peer0 netns "+senderNS)
		ip(t, "-n "+captureNS+" link set eth0 up")
		ip(t, "-n "+senderNS+" link set peer0 up")
	}
	addInterface()

	recorder := &frameRecorder{}
	cfg := Default()
	cfg.Workers, cfg.RingBytes = 2, 2<<20
	reg := prometheus.NewRegistry()
	excluded := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.9:9092")}
	handler := func(string, int, collector.PacketProducer) Handler { return recorder }
	live := NewLive(cfg, excluded, handler, slog.New(slog.DiscardHandler), reg)
	ctx, cancel := context.WithCancel(t.Context())
	done := netnstest.Start(t, captureNS, func() {
		if err := live.Run(ctx, discardShipper{}); err != nil {
			t.Error(err)
		}
	})
	waitForCapture := func() {
		for range 500 {
			send(t, senderNS, "peer0", frame(nil, 0x0800, udp4("are you there")))
			if len(recorder.framesWith("are you there")) > 0 {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		t.Fatal("nothing was captured")
	}
	waitForCapture()

	plain := frame(nil, 0x0800, udp4("plain"))
	tagged := frame([]byte{0x81, 0, 0x20, 7}, 0x0800, udp4("tagged"))
	send(t, senderNS, "peer0", plain, tagged)
	if got := recorder.wait(t, "plain", 1)[0]; !bytes.Equal(got, plain) {
		t.Errorf("plain frame: got %x, want %x", got, plain)
	}
	if got := recorder.wait(t, "tagged", 1)[0]; !bytes.Equal(got, tagged) {
		t.Errorf("tagged frame: got %x, want %x", got, tagged)
	}

	send(t, senderNS, "peer0",
		frame(nil, 0x0800, tcp4("192.0.2.1", "192.0.2.9", 40000, 9092, "ours")),
		frame(nil, 0x0800, tcp4("192.0.2.9", "192.0.2.1", 9092, 40000, "ours")),
		frame(nil, 0x0800, tcp4("192.0.2.1", "192.0.2.9", 40000, 9093, "theirs")),
		frame(nil, 0x0800, tcp4("192.0.2.1", "192.0.2.8", 40000, 9092, "theirs")))
	recorder.wait(t, "theirs", 2)
	if ours := len(recorder.framesWith("ours")); ours != 0 {
		t.Errorf("%d frames of our own traffic were captured", ours)
	}

	var burst [][]byte
	for i := range 5000 {
		burst = append(burst, frame(nil, 0x0800, udp4(fmt.Sprintf("burst %04d", i))))
	}
	send(t, senderNS, "peer0", burst...)
	recorder.wait(t, "burst", 5000)

	ip(t, "-n "+senderNS+" link del peer0")
	addInterface()
	recorder.mu.Lock()
	recorder.frames = nil
	recorder.mu.Unlock()
	waitForCapture()
	cancel()
	<-done
	if recorder.closed != 4 {
		t.Errorf("%d handlers were closed, want 4: two workers for each time that the interface existed", recorder.closed)
	}
}

// TestExclude: the compiled filter drops TCP packets from and to the excluded addresses. It runs in the BPF
// interpreter of x/net.
func TestExclude(t *testing.T) {
	raw, err := compileFilter([]netip.AddrPort{
		netip.MustParseAddrPort("192.0.2.9:9092"), netip.MustParseAddrPort("[2001:db8::9]:9000"),
	})
	if err != nil {
		t.Fatal(err)
	}
	prog, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("the program does not disassemble")
	}
	vm, err := bpf.NewVM(prog)
	if err != nil {
		t.Fatal(err)
	}
	check := func(name string, packet []byte, pass bool) {
		t.Helper()
		kept, err := vm.Run(packet)
		if err != nil || (kept > 0) != pass {
			t.Errorf("%s: passes %v bytes, %v; want passed %v", name, kept, err, pass)
		}
	}
	v6 := func(src, dst string, sport, dport uint16) []byte {
		data := []byte{0x60, 0, 0, 0, 0, 20, 6, 64}
		data = append(append(data, netip.MustParseAddr(src).AsSlice()...), netip.MustParseAddr(dst).AsSlice()...)
		data = binary.BigEndian.AppendUint16(data, sport)
		return frame(nil, 0x86dd, append(binary.BigEndian.AppendUint16(data, dport), make([]byte, 16)...))
	}
	check("to us", frame(nil, 0x0800, tcp4("192.0.2.1", "192.0.2.9", 1, 9092, "")), false)
	check("from us", frame(nil, 0x0800, tcp4("192.0.2.9", "192.0.2.1", 9092, 1, "")), false)
	check("other port", frame(nil, 0x0800, tcp4("192.0.2.1", "192.0.2.9", 9092, 1, "")), true)
	check("other host", frame(nil, 0x0800, tcp4("192.0.2.1", "192.0.2.8", 1, 9092, "")), true)
	check("udp", frame(nil, 0x0800, udp4("x")), true)
	check("to us, v6", v6("2001:db8::1", "2001:db8::9", 1, 9000), false)
	check("from us, v6", v6("2001:db8::9", "2001:db8::1", 9000, 1), false)
	check("other, v6", v6("2001:db8::1", "2001:db8::8", 1, 9000), true)
	check("arp", frame(nil, 0x0806, make([]byte, 28)), true)
}
