//go:build linux

package sessions

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A victim is a keep-alive connection to nginx into which the tests forge packets.
type victim struct {
	*liveNet
	conn   *net.TCPConn
	reader *bufio.Reader
	label  string
	frames *frameSocket
}

// A frameSocket sends frames on eth0 of the client's namespace.
type frameSocket struct {
	fd, index      int
	client, server net.HardwareAddr
}

// openFrames returns a frameSocket. The server must have been reached before.
func (n *liveNet) openFrames() *frameSocket {
	n.Helper()
	frames := &frameSocket{fd: -1}
	hardware := func() net.HardwareAddr {
		iface, err := net.InterfaceByName("eth0")
		if err != nil {
			n.Error(err)
			return nil
		}
		frames.index = iface.Index
		return iface.HardwareAddr
	}
	n.in(n.server, func() { frames.server = hardware() })
	n.in(n.client, func() {
		frames.client = hardware()
		var err error
		if frames.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			n.Error(err)
		}
	})
	n.Cleanup(func() { _ = unix.Close(frames.fd) })
	return frames
}

// nobody is the address of no interface: the bridge floods such a frame, and no one takes it.
var nobody = net.HardwareAddr{2, 0xde, 0xad, 0, 0, 1}

// A forgery is a TCP segment between the victim's ends, whoever sends it.
type forgery struct {
	back    bool // from the server to the client
	flags   string
	seq     int // relative to the next number of the sender
	ack     int // relative to the next number of the other side
	payload string
	arrives bool // the receiver gets the frame
	badSum  bool // the checksum is wrong
}

// sequenceNumbers returns the numbers that the client sends and expects next, by TCP_REPAIR.
func (v *victim) sequenceNumbers() (sendNext, receiveNext uint32) {
	v.Helper()
	raw, err := v.conn.SyscallConn()
	if err != nil {
		v.Fatal(err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		const receiveQueue, sendQueue, offWithoutProbe = 1, 2, -1
		set := func(option, value int) {
			failed = errors.Join(failed, unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, option, value))
		}
		get := func(queue int) uint32 {
			set(unix.TCP_REPAIR_QUEUE, queue)
			value, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ)
			failed = errors.Join(failed, err)
			return uint32(value)
		}
		set(unix.TCP_REPAIR, 1)
		sendNext, receiveNext = get(sendQueue), get(receiveQueue)
		set(unix.TCP_REPAIR, offWithoutProbe)
	})
	if err := errors.Join(err, failed); err != nil {
		v.Fatal(err)
	}
	return sendNext, receiveNext
}

// forge sends a segment.
func (v *victim) forge(f forgery) {
	v.Helper()
	seq, ack := v.sequenceNumbers()
	src := v.conn.LocalAddr().(*net.TCPAddr).AddrPort()
	dst := v.conn.RemoteAddr().(*net.TCPAddr).AddrPort()
	if f.back {
		src, dst, seq, ack = dst, src, ack, seq
	}
	src = netip.AddrPortFrom(src.Addr().Unmap(), src.Port())
	dst = netip.AddrPortFrom(dst.Addr().Unmap(), dst.Port())
	frame := tcpFrame(v, src, dst, f.flags, seq+uint32(f.seq), ack+uint32(f.ack), uint16(seq), f.payload)
	to := nobody
	if f.arrives {
		to = v.frames.server
	}
	copy(frame, to)
	if f.badSum {
		frame[14+20+16] ^= 0x5a
	}
	copy(frame[6:], v.frames.client)
	if err := unix.Sendto(v.frames.fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: v.frames.index}); err != nil {
		v.Fatal(err)
	}
}

// request sends a request and reads the response.
func (v *victim) request(number int) error {
	_, err := fmt.Fprintf(v.conn, "GET /%s/r%d HTTP/1.1\r\nHost: a\r\n\r\n", v.label, number)
	if err != nil {
		return err
	}
	return v.readResponse()
}

func (v *victim) readResponse() error {
	_ = v.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	response, err := http.ReadResponse(v.reader, nil)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, response.Body)
	return err
}

// forgeries are sequences of packets by which one party may try to end or to move a connection in the eyes of the
// collector. A pause of 1.5 s, longer than close_linger, is written as an empty forgery.
var forgeries = map[string][]forgery{
	"reset-in-window":         {{flags: "R", seq: 10, arrives: true}},
	"reset-in-window-ack":     {{flags: "RA", seq: 1, arrives: true}},
	"reset-of-server":         {{back: true, flags: "R", seq: 10}},
	"reset-expected":          {{flags: "R"}},
	"reset-expected-server":   {{back: true, flags: "RA"}},
	"resets-of-both":          {{flags: "R"}, {back: true, flags: "R"}, {flags: "R"}},
	"fin":                     {{flags: "FA"}},
	"fin-of-both":             {{flags: "FA"}, {back: true, flags: "FA", ack: 1}, {flags: "A", seq: 1, ack: 1}},
	"syn":                     {{flags: "S", seq: 100, arrives: true}},
	"syn-far":                 {{flags: "S", seq: 1 << 29}},
	"handshake":               {{flags: "S", seq: 1 << 29}, {back: true, flags: "SA", seq: 1 << 28, ack: 1<<29 + 1}},
	"handshake-behind":        {{flags: "S", seq: -1 << 29}, {back: true, flags: "SA", seq: -1 << 28, ack: -1<<29 + 1}},
	"handshake-near":          {{flags: "S", seq: 9000}, {back: true, flags: "SA", seq: 9000, ack: 9001}},
	"syn-and-ack":             {{flags: "S", seq: 1 << 29}, {flags: "A", seq: 1<<29 + 1, ack: 77}},
	"reset-and-syn":           {{flags: "R"}, {flags: "S", seq: 1 << 29}},
	"reset-and-syn-near":      {{flags: "R"}, {flags: "S", seq: 5000}},
	"reset-and-handshake":     {{flags: "R"}, {flags: "S", seq: 5000}, {back: true, flags: "SA", seq: 800, ack: 5001}},
	"dead-and-syn":            {{flags: "R"}, {}, {flags: "S", seq: 5000}},
	"dead-and-data":           {{flags: "R"}, {}, {flags: "A", seq: 50_000, payload: "GET /forged HTTP/1.1\r\n\r\n"}},
	"ack-ahead":               {{back: true, flags: "A", ack: 5000}},
	"ack-ahead-of-server":     {{flags: "A", ack: 5000, arrives: true}},
	"ack-and-data-ahead":      {{back: true, flags: "A", ack: 4000}, {flags: "A", seq: 4000, payload: "GET /forged HTTP/1.1\r\n\r\n"}},
	"wrong-checksum":          {{flags: "A", payload: "GET /forged HTTP/1.1\r\n\r\n", arrives: true, badSum: true}},
	"wrong-checksum-reset":    {{flags: "R", arrives: true, badSum: true}},
	"wrong-checksum-answer":   {{back: true, flags: "A", payload: "HTTP/1.1 200 OK\r\n\r\n", badSum: true}},
	"data-far-ahead":          {{flags: "A", seq: 1 << 27, payload: "GET /forged HTTP/1.1\r\n\r\n"}},
	"data-far-ahead-and-ack":  {{flags: "A", seq: 1 << 27, payload: "GET /forged"}, {back: true, flags: "A", ack: 1<<27 + 11}},
	"data-far-behind-and-ack": {{flags: "A", seq: -1 << 27, payload: "GET /forged"}, {back: true, flags: "A", ack: -1<<27 + 11}},
}

// TestNoForgedPacketSilencesAConnection: whatever is forged into a connection that goes on, each later request
// that the server logs is told. The forged packets reach the capture and mostly no one else.
func TestNoForgedPacketSilencesAConnection(t *testing.T) {
	network := newLiveNet(t)
	requests := network.startNginx()
	live := network.capture(1)
	frames := network.openFrames()
	var all sync.WaitGroup
	for name, sequence := range forgeries {
		for _, pause := range []time.Duration{30 * time.Millisecond, 1500 * time.Millisecond} {
			conn := network.dial(80).(*net.TCPConn)
			v := &victim{
				liveNet: network, conn: conn, reader: bufio.NewReader(conn), frames: frames,
				label: fmt.Sprintf("%s-%d", name, pause.Milliseconds()),
			}
			all.Go(func() {
				defer func() { _ = conn.Close() }()
				if err := v.request(0); err != nil {
					t.Errorf("%s: %v", v.label, err)
				}
				time.Sleep(50 * time.Millisecond)
				for _, f := range sequence {
					if f == (forgery{}) {
						time.Sleep(1500 * time.Millisecond)
						continue
					}
					v.forge(f)
				}
				time.Sleep(pause)
				for number := 1; number <= 5; number++ {
					if err := v.request(number); err != nil {
						t.Errorf("%s: request %d: %v", v.label, number, err)
						return
					}
					time.Sleep(20 * time.Millisecond)
				}
			})
		}
	}
	all.Wait()
	time.Sleep(100 * time.Millisecond)
	live.stop()
	urls := live.urls()
	lines := requests()
	for _, line := range lines {
		if url := strings.Fields(line)[1]; urls[url] != 1 {
			t.Errorf("%s was told %d times", url, urls[url])
		}
	}
	if len(lines) != 2*6*len(forgeries) {
		t.Errorf("the server logged %d requests", len(lines))
	}
}

// waitUntilRead waits until the server has read all that was sent on conn.
func (n *liveNet) waitUntilRead(conn *net.TCPConn) {
	n.Helper()
	client := fmt.Sprintf(":%04X", conn.LocalAddr().(*net.TCPAddr).Port)
	n.in(n.server, func() {
		for start := time.Now(); time.Since(start) < 30*time.Second; time.Sleep(time.Millisecond) {
			sent, err := unix.IoctlGetInt(rawFD(n, conn), unix.SIOCOUTQ)
			table, readErr := os.ReadFile("/proc/thread-self/net/tcp")
			if err != nil || readErr != nil {
				n.Error(err, readErr)
				return
			}
			for line := range strings.Lines(string(table)) { // number, local and remote address, state, queues
				fields := strings.Fields(line)
				if sent == 0 && strings.HasSuffix(fields[2], client) && strings.HasSuffix(fields[4], ":00000000") {
					return
				}
			}
		}
		n.Error("the server does not read what was sent")
	})
}

// rawFD returns the descriptor of conn, which stays open.
func rawFD(t testing.TB, conn *net.TCPConn) (number int) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { number = int(fd) })
	}
	if err != nil {
		t.Error(err)
	}
	return number
}

// TestUrgentDataIsReadAsNginxReadsIt: bytes sent with MSG_OOB are neither in the log of the server nor in the
// events.
func TestUrgentDataIsReadAsNginxReadsIt(t *testing.T) {
	network := newLiveNet(t)
	requests := network.startNginx()
	live := network.capture(2)
	conn := network.dial(80).(*net.TCPConn)
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	reader := bufio.NewReader(conn)
	for i := range 10 {
		for _, part := range []string{fmt.Sprintf("GET /%d/index.php?x=../../e", i), "!Z", "tc/pa", "!Z", "sswd HTTP/1.1\r\nHost: a\r\n\r\n"} {
			if part[0] != '!' {
				_, err = io.WriteString(conn, part)
			} else {
				err = raw.Control(func(fd uintptr) { err = unix.Sendto(int(fd), []byte(part[1:]), unix.MSG_OOB, nil) })
			}
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(part, "GET") {
				network.waitUntilRead(conn) // an urgent byte before which others are unread becomes an ordinary one with the next
			}
		}
		_ = conn.SetReadDeadline(time.Now().Add(2 * time.Second))
		response, err := http.ReadResponse(reader, nil)
		if err != nil {
			break // nginx stops to read at an urgent byte until more comes
		}
		_, _ = io.Copy(io.Discard, response.Body)
	}
	_ = conn.Close()
	time.Sleep(100 * time.Millisecond)
	live.stop()
	urls := live.urls()
	for _, line := range requests() {
		if url := strings.Fields(line)[1]; urls[url] != 1 || !strings.HasSuffix(url, "?x=../../etc/passwd") {
			t.Errorf("%s was told %d times: %v", url, urls[url], urls)
		}
	}
	for _, event := range live.events {
		if len(event.Tags) == 0 {
			t.Errorf("an event is not marked: %v", event)
		}
	}
}
