//go:build linux

package capture

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"os"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"tidegate/collector"
	"tidegate/pipeline/netnstest"
)

// TestInterfacesSideBySide: three interfaces with consecutive indexes and two workers each have different
// fanout groups, and a second capture in the same process takes no packets from the first.
func TestInterfacesSideBySide(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a packet socket and a namespace need root")
	}
	captureNS, senderNS := fmt.Sprintf("tgfana%d", os.Getpid()), fmt.Sprintf("tgfanb%d", os.Getpid())
	for _, ns := range []string{captureNS, senderNS} {
		ip(t, "netns add "+ns)
		t.Cleanup(func() { ip(t, "netns del "+ns) })
	}
	for i := range 3 {
		ip(t, fmt.Sprintf("link add eth%d index %d netns %s type veth peer name peer%d netns %s",
			i, 50+i, captureNS, i, senderNS))
		ip(t, fmt.Sprintf("-n %s link set eth%d up", captureNS, i))
		ip(t, fmt.Sprintf("-n %s link set peer%d up", senderNS, i))
	}
	cfg := Default()
	cfg.Interfaces, cfg.Workers, cfg.RingBytes = []string{"eth*"}, 2, 2<<20
	ctx, cancel := context.WithCancel(t.Context())
	var captures []*frameRecorder
	var ends []<-chan struct{}
	for range 2 {
		recorder := &frameRecorder{}
		handler := func(string, int, collector.PacketProducer) Handler { return recorder }
		live := NewLive(cfg, nil, handler, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		captures = append(captures, recorder)
		ends = append(ends, netnstest.Start(t, captureNS, func() { _ = live.Run(ctx, discardShipper{}) }))
	}
	defer func() {
		cancel()
		for _, end := range ends {
			<-end
		}
	}()
	for i := range 3 {
		hello := fmt.Sprintf("hello %d", i)
		for range 100 {
			send(t, senderNS, fmt.Sprintf("peer%d", i), frame(nil, 0x0800, udp4(hello)))
			if len(captures[0].framesWith(hello)) > 0 && len(captures[1].framesWith(hello)) > 0 {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		var frames [][]byte
		for port := range 40 { // many senders, so that both workers of a group have some
			packet := frame(nil, 0x0800, udp4(fmt.Sprintf("word %d", i)))
			binary.BigEndian.PutUint16(packet[34:], uint16(20000+port))
			frames = append(frames, packet)
		}
		send(t, senderNS, fmt.Sprintf("peer%d", i), frames...)
		for _, recorder := range captures {
			recorder.wait(t, fmt.Sprintf("word %d", i), 40)
		}
	}
}

// ringBlock returns a block with the given packets, as the kernel writes it.
func ringBlock(packets int, payload string) []byte {
	const first, mac, step = 48, 96, 256
	block := make([]byte, first+packets*step)
	binary.NativeEndian.PutUint32(block[blockNumPkts:], uint32(packets))
	binary.NativeEndian.PutUint32(block[blockFirstPkt:], first)
	for i := range packets {
		header := block[first+i*step:]
		binary.NativeEndian.PutUint32(header[pktNext:], step)
		binary.NativeEndian.PutUint32(header[pktSec:], 7)
		binary.NativeEndian.PutUint32(header[pktSnaplen:], uint32(len(payload)))
		binary.NativeEndian.PutUint32(header[pktLen:], uint32(len(payload)))
		binary.NativeEndian.PutUint16(header[pktMac:], mac)
		copy(header[mac:], payload)
	}
	return block
}

// TestBlockOfOddHeadersStaysWithinItself: wrong lengths and offsets in a block never make readPackets read
// outside of the block.
func TestBlockOfOddHeadersStaysWithinItself(t *testing.T) {
	read := func(change func(block []byte)) int {
		block := ringBlock(3, "0123456789abcdef")
		change(block)
		return readPackets(block, func(at int64, data []byte, wireLen int, _, _ bool) {
			if at != 7e9 || len(data) > len(block) {
				t.Errorf("got %d bytes of %d at %d", len(data), wireLen, at)
			}
		})
	}
	check := func(name string, want int, change func(block []byte)) {
		t.Helper()
		if got := read(change); got != want {
			t.Errorf("%s: %d packets, want %d", name, got, want)
		}
	}
	put := func(at int, value uint32) func(block []byte) {
		return func(block []byte) { binary.NativeEndian.PutUint32(block[at:], value) }
	}
	check("whole", 3, func([]byte) {})
	check("more packets than there are", 3, put(blockNumPkts, 1<<31))
	check("first packet behind the block", 0, put(blockFirstPkt, 1<<20))
	check("next packet behind the block", 1, put(48+pktNext, ^uint32(0)))
	check("packet longer than the block", 0, put(48+pktSnaplen, ^uint32(0)))
	check("packet begins behind the block", 2, func(block []byte) {
		binary.NativeEndian.PutUint16(block[48+512+pktMac:], 0xffff)
	})
	check("tag without room for it", 3, func(block []byte) {
		binary.NativeEndian.PutUint16(block[48+pktMac:], 2)
		binary.NativeEndian.PutUint32(block[48+pktStatus:], unix.TP_STATUS_VLAN_VALID)
	})
	check("tag on a frame without addresses", 3, func(block []byte) {
		binary.NativeEndian.PutUint32(block[48+pktSnaplen:], 5)
		binary.NativeEndian.PutUint32(block[48+pktStatus:], unix.TP_STATUS_VLAN_VALID)
	})
}

// TestStopWaitsForALateBlock: the kernel hands over the last block of a ring long after the time that Live
// sets, as on a machine whose timers are late. Its packets are read all the same, and none counts as dropped.
func TestStopWaitsForALateBlock(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a packet socket and a namespace need root")
	}
	ns := fmt.Sprintf("tglate%d", os.Getpid())
	ip(t, "netns add "+ns)
	t.Cleanup(func() { ip(t, "netns del "+ns) })
	ip(t, "-n "+ns+" link add eth0 type veth peer name peer0")
	ip(t, "-n "+ns+" link set eth0 up")
	ip(t, "-n "+ns+" link set peer0 up")
	reg := prometheus.NewRegistry()
	live := NewLive(Default(), nil, nil, slog.New(slog.DiscardHandler), reg)
	<-netnstest.Start(t, ns, func() {
		iface, err := net.InterfaceByName("eth0")
		if err != nil {
			t.Error(err)
			return
		}
		ring, err := openRing(iface, ringConfig{bytes: 1 << 20, blockBytes: blockBytes, retireAfter: 25 * retireAfter})
		if err != nil {
			t.Error(err)
			return
		}
		defer ring.close()
		if err := ring.setFilter([]bpf.RawInstruction{{Op: unix.BPF_RET | unix.BPF_K, K: 1 << 16}}); err != nil {
			t.Error(err)
			return
		}
		var frames [][]byte
		for i := range 100 {
			frames = append(frames, frame(nil, 0x0800, udp4(fmt.Sprintf("late %02d", i))))
		}
		send(t, ns, "peer0", frames...)
		late := 0
		live.drain(ring, func(_ int64, data []byte, _ int, _, _ bool) {
			if bytes.Contains(data, []byte("late")) {
				late++
			}
		})
		if late != len(frames) {
			t.Errorf("%d of %d frames were read", late, len(frames))
		}
	})
	if dropped := testutil.ToFloat64(live.drops.WithLabelValues("eth0")); dropped != 0 {
		t.Errorf("%v frames count as dropped", dropped)
	}
}
