package sessions

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket/layers"

	"tidegate/pipeline/lineartest"
)

// TestPacketsCostLinearTime: eight times as many packets of any kind cost about eight times as much: segments in
// the reverse order, each with a gap before it, all over the same bytes, of as many connections, and fragments.
func TestPacketsCostLinearTime(t *testing.T) {
	units := 2000
	if testing.Short() {
		units = 500
	}
	client := func(i int) string { return fmt.Sprintf("10.1.%d.%d:%d", i>>8&255, i&255, 1024+i>>16) }
	check := func(name string, packets func(test *tableTest, n int) [][]byte) {
		t.Helper()
		frames := map[int][][]byte{}
		size := 0
		for _, n := range []int{units, 8 * units} {
			test := newTableTest(t, Default(), Deps{})
			frames[n] = packets(test, n)
			size = len(frames[n][0])
		}
		for shift := range 4 {
			if frames[units<<shift] == nil {
				frames[units<<shift] = frames[8*units][:units<<shift]
			}
		}
		lineartest.Growth{Name: name, Units: units, Size: size}.Check(t, func(n int) {
			test := newTableTest(t, Default(), Deps{Tunnels: EveryTunnel})
			test.handshake()
			at := startTime + int64(time.Millisecond)
			for _, frame := range frames[n] {
				test.Packet("eth0", layers.LinkTypeEthernet, at, frame, len(frame))
				at += 1000
			}
			test.Close()
		})
	}
	segments := func(offset func(i, n int) int, payload string) func(*tableTest, int) [][]byte {
		return func(test *tableTest, n int) (frames [][]byte) {
			for i := range n {
				frames = append(frames, tcpFrame(t, addrPort("10.0.0.1:40000"), addrPort("10.0.0.2:80"), "A",
					test.isn[0]+1+uint32(offset(i, n)), test.isn[1]+1, uint16(i), payload))
			}
			return frames
		}
	}
	check("in order", segments(func(i, _ int) int { return i }, "x"))
	check("reverse order", segments(func(i, n int) int { return n - i }, "x"))
	check("a gap before each", segments(func(i, _ int) int { return 2*i + 2 }, "x"))
	check("reverse order with gaps", segments(func(i, n int) int { return 2 * (n - i) }, "x"))
	check("from both ends", segments(func(i, n int) int { return 2 + max(i%2*i, (1-i%2)*(2*n-i)) }, "x"))
	check("the same bytes", segments(func(_, _ int) int { return 10 }, strings.Repeat("x", 100)))
	check("overlaps", segments(func(i, _ int) int { return 10 + i }, strings.Repeat("x", 100)))
	check("SYNs", func(_ *tableTest, n int) (frames [][]byte) {
		for i := range n {
			frames = append(frames, tcpFrame(t, addrPort(client(i)), addrPort("10.0.0.2:80"), "S", 1, 0, uint16(i), ""))
		}
		return frames
	})
	check("datagrams of as many ends", func(_ *tableTest, n int) (frames [][]byte) {
		for i := range n {
			frames = append(frames, udpFrame(t, addrPort(client(i)), addrPort("10.0.0.2:53"), uint16(i), "x"))
		}
		return frames
	})

	// Fragments of 8 bytes: of one datagram, in the reverse order, and of as many datagrams.
	fragment := func(i int, id uint16, offset int) []byte {
		frame := slices.Clone(udpFrame(t, addrPort(client(i)), addrPort("10.0.0.2:53"), id, strings.Repeat("x", 40)))[:14+20+8]
		binary.BigEndian.PutUint16(frame[16:], 28)
		binary.BigEndian.PutUint16(frame[20:], 0x2000|uint16(offset))
		return frame
	}
	check("fragments", func(_ *tableTest, n int) (frames [][]byte) {
		for i := range n {
			frames = append(frames, fragment(0, 1, 1+(n-i)%8000))
		}
		return frames
	})
	check("fragments with holes", func(_ *tableTest, n int) (frames [][]byte) {
		for i := range n {
			frames = append(frames, fragment(0, uint16(i/250), 8000-2*(i%250)))
		}
		return frames
	})
	check("fragments of as many datagrams", func(_ *tableTest, n int) (frames [][]byte) {
		for i := range n {
			frames = append(frames, fragment(i, uint16(i), 1))
		}
		return frames
	})
}
