//go:build linux

package sessions

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sendTagged sends text on the connection of v as segments of five bytes. The tags of their frames are those of counts
// in turn.
func (v *victim) sendTagged(text string, counts []int) {
	v.Helper()
	seq, ack := v.sequenceNumbers()
	src := v.conn.LocalAddr().(*net.TCPAddr).AddrPort()
	dst := v.conn.RemoteAddr().(*net.TCPAddr).AddrPort()
	src = netip.AddrPortFrom(src.Addr().Unmap(), src.Port())
	dst = netip.AddrPortFrom(dst.Addr().Unmap(), dst.Port())
	number := 0
	for part := range slices.Chunk([]byte(text), 5) {
		frame := tcpFrame(v, src, dst, "A", seq, ack, uint16(seq), string(part))
		copy(frame, v.frames.server)
		copy(frame[6:], v.frames.client)
		tags := []string{"\x81\x00\x00\x00", "\x88\xa8\x00\x00", "\x81\x00\xe0\x00"}
		frame = tagFrame(frame, slices.Repeat(tags, counts[number%len(counts)])[:counts[number%len(counts)]]...)
		if err := unix.Sendto(v.frames.fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: v.frames.index}); err != nil {
			v.Fatal(err)
		}
		number, seq = number+1, seq+uint32(len(part))
	}
}

// TestPriorityTagsHideNoRequest: nginx answers a request whose frames have any number of priority tags in turn. With
// any number of workers the request is one event.
func TestPriorityTagsHideNoRequest(t *testing.T) {
	network := newLiveNet(t)
	requests := network.startNginx()
	frames := network.openFrames()
	told := map[string]int{}
	cases := [][]int{{0, 1}, {1}, {2}, {3, 0}, {0, 12, 1}, {100}, {0, 350}}
	for _, workers := range []int{1, 2, 4} {
		live := network.capture(workers)
		for _, counts := range cases {
			conn := network.dial(80).(*net.TCPConn)
			v := &victim{liveNet: network, conn: conn, frames: frames}
			name := strings.ReplaceAll(strings.Trim(fmt.Sprint(counts), "[]"), " ", "-")
			url := fmt.Sprintf("/w%d/%s", workers, name)
			v.sendTagged("GET "+url+" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", counts)

			// The kernel of the client drops the answer, which acknowledges bytes that it has not sent.
			for deadline := time.Now().Add(5 * time.Second); live.urls()[url] == 0 && time.Now().Before(deadline); {
				time.Sleep(5 * time.Millisecond)
			}
			_ = conn.SetLinger(0)
			_ = conn.Close()
		}
		live.stop()
		for url, count := range live.urls() {
			told[url] += count
		}
	}
	lines := requests()
	for _, line := range lines {
		if url := strings.Fields(line)[1]; told[url] != 1 {
			t.Errorf("%s was told %d times", url, told[url])
		}
	}
	if len(lines) != 3*len(cases) {
		t.Errorf("the server logged %d requests", len(lines))
	}
}
