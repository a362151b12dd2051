//go:build linux

package capture

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"tidegate/collector"
)

// TestInterfacesSideBySide captures on three interfaces with consecutive indexes and two workers each. Their
// fanout groups must differ, and a second capture in the same process must not take packets from the first.
func TestInterfacesSideBySide(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a packet socket and a namespace need root")
	}
	a, b := fmt.Sprintf("tgfana%d", os.Getpid()), fmt.Sprintf("tgfanb%d", os.Getpid())
	for _, ns := range []string{a, b} {
		ip(t, "netns add "+ns)
		t.Cleanup(func() { ip(t, "netns del "+ns) })
	}
	for i := range 3 {
		ip(t, fmt.Sprintf("link add eth%d index %d netns %s type veth peer name peer%d netns %s", i, 50+i, a, i, b))
		ip(t, fmt.Sprintf("-n %s link set eth%d up", a, i))
		ip(t, fmt.Sprintf("-n %s link set peer%d up", b, i))
	}
	cfg := Default()
	cfg.Interfaces, cfg.Workers, cfg.RingBytes = []string{"eth*"}, 2, 2<<20
	ctx, cancel := context.WithCancel(t.Context())
	var captures []*seen
	var ends []chan struct{}
	for range 2 {
		s := &seen{}
		handler := func(string, int, collector.PacketProducer) Handler { return s }
		l := NewLive(cfg, nil, handler, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		captures = append(captures, s)
		ends = append(ends, inNamespace(t, a, func() { _ = l.Run(ctx, discardShipper{}) }))
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
			send(t, b, fmt.Sprintf("peer%d", i), frame(nil, 0x0800, udp4(hello)))
			if len(captures[0].with(hello)) > 0 && len(captures[1].with(hello)) > 0 {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		var frames [][]byte
		for port := range 40 { // many senders, so that both workers of a group have some
			f := frame(nil, 0x0800, udp4(fmt.Sprintf("word %d", i)))
			binary.BigEndian.PutUint16(f[34:], uint16(20000+port))
			frames = append(frames, f)
		}
		send(t, b, fmt.Sprintf("peer%d", i), frames...)
		for _, s := range captures {
			s.wait(t, fmt.Sprintf("word %d", i), 40)
		}
	}
}

// ringBlock returns a block with the given packets, as the kernel writes it.
func ringBlock(n int, payload string) []byte {
	const first, mac, step = 48, 96, 256
	b := make([]byte, first+n*step)
	binary.NativeEndian.PutUint32(b[blockNumPkts:], uint32(n))
	binary.NativeEndian.PutUint32(b[blockFirstPkt:], first)
	for i := range n {
		h := b[first+i*step:]
		binary.NativeEndian.PutUint32(h[pktNext:], step)
		binary.NativeEndian.PutUint32(h[pktSec:], 7)
		binary.NativeEndian.PutUint32(h[pktSnaplen:], uint32(len(payload)))
		binary.NativeEndian.PutUint32(h[pktLen:], uint32(len(payload)))
		binary.NativeEndian.PutUint16(h[pktMac:], mac)
		copy(h[mac:], payload)
	}
	return b
}

func TestBlockOfOddHeadersStaysWithinItself(t *testing.T) {
	read := func(change func(b []byte)) int {
		b := ringBlock(3, "0123456789abcdef")
		change(b)
		return readPackets(b, func(at int64, data []byte, wireLen int) {
			if at != 7e9 || len(data) > len(b) {
				t.Errorf("got %d bytes of %d at %d", len(data), wireLen, at)
			}
		})
	}
	check := func(name string, want int, change func(b []byte)) {
		t.Helper()
		if got := read(change); got != want {
			t.Errorf("%s: %d packets, want %d", name, got, want)
		}
	}
	put := func(at int, v uint32) func(b []byte) {
		return func(b []byte) { binary.NativeEndian.PutUint32(b[at:], v) }
	}
	check("whole", 3, func([]byte) {})
	check("more packets than there are", 3, put(blockNumPkts, 1<<31))
	check("first packet behind the block", 0, put(blockFirstPkt, 1<<20))
	check("next packet behind the block", 1, put(48+pktNext, ^uint32(0)))
	check("packet longer than the block", 0, put(48+pktSnaplen, ^uint32(0)))
	check("packet begins behind the block", 2, func(b []byte) {
		binary.NativeEndian.PutUint16(b[48+512+pktMac:], 0xffff)
	})
	check("tag without room for it", 3, func(b []byte) {
		binary.NativeEndian.PutUint16(b[48+pktMac:], 2)
		binary.NativeEndian.PutUint32(b[48+pktStatus:], unix.TP_STATUS_VLAN_VALID)
	})
	check("tag on a frame without addresses", 3, func(b []byte) {
		binary.NativeEndian.PutUint32(b[48+pktSnaplen:], 5)
		binary.NativeEndian.PutUint32(b[48+pktStatus:], unix.TP_STATUS_VLAN_VALID)
	})
}
