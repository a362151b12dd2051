//go:build linux

package sessions

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"tidegate/collector/links"
	"tidegate/pipeline"
)

// interfaceMAC returns the address of an interface in a namespace, and as a number.
func (n *liveNet) interfaceMAC(ns, iface string) (mac net.HardwareAddr, number uint64) {
	n.Helper()
	n.in(ns, func() {
		found, err := net.InterfaceByName(iface)
		if err != nil {
			n.Error(err)
			return
		}
		mac = found.HardwareAddr
		number = binary.BigEndian.Uint64(append([]byte{0, 0}, mac...))
	})
	return mac, number
}

// followLinks has the tables of later captures ask a Monitor of the bridge's namespace, and know the MAC addresses of
// the client and the server.
func (n *liveNet) followLinks() {
	n.Helper()
	monitor := links.NewMonitor(nil, nil, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	changed := monitor.Subscribe()
	ctx, cancel := context.WithCancel(context.Background())
	done := n.start(n.bridge, func() { _ = monitor.Run(ctx) })
	n.Cleanup(func() { cancel(); <-done })
	<-changed
	owners := map[string]uint64{}
	_, owners["10.91.0.1"] = n.interfaceMAC(n.client, "eth0")
	_, owners[serverAddress] = n.interfaceMAC(n.server, "eth0")
	n.senders = sendersFunc(func(ip netip.Addr, mac uint64, _ int64) (*pipeline.Container, bool) {
		owner, ok := owners[ip.String()]
		return nil, ok && owner != mac
	})
	n.isHostMAC, n.isMACOfBridge = monitor.IsHostMAC, monitor.IsMACOfBridge
	n.isOutside = monitor.IsOutsideBridge
}

// sendFrame sends a frame from the client's namespace.
func (f *frameSocket) sendFrame(t testing.TB, frame []byte) {
	t.Helper()
	if err := unix.Sendto(f.fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: f.index}); err != nil {
		t.Error(err)
	}
}

// segmentOf returns a frame with a segment of conn from the client to the server, which the kernel of the
// client does not know of.
func (v *victim) segmentOf(payload string) []byte {
	v.Helper()
	seq, ack := v.sequenceNumbers()
	src, dst := v.conn.LocalAddr().(*net.TCPAddr).AddrPort(), v.conn.RemoteAddr().(*net.TCPAddr).AddrPort()
	frame := tcpFrame(v, netip.AddrPortFrom(src.Addr().Unmap(), src.Port()), netip.AddrPortFrom(dst.Addr().Unmap(), dst.Port()),
		"A", seq, ack, uint16(seq), payload)
	copy(frame, v.frames.server)
	copy(frame[6:], v.frames.client)
	return frame
}

// withTags returns a frame with headers in front of its EtherType.
func withTags(frame []byte, tags ...byte) []byte { return slices.Concat(frame[:12], tags, frame[12:]) }

// TestForgedFramesAreEvents: whatever a container forges in the headers of a frame, what nginx executes is an event. If
// the frame has the MAC address of the bridge or of one of its ports, the event is marked.
func TestForgedFramesAreEvents(t *testing.T) {
	network := newLiveNet(t)
	requests := network.startNginx()
	network.followLinks()
	live := network.capture(1)
	frames := network.openFrames()
	bridge, _ := network.interfaceMAC(network.bridge, "br-live")
	port, _ := network.interfaceMAC(network.bridge, "to-"+network.client[2:4])
	priority := []byte{0x81, 0, 0xe0, 0}
	from := func(mac net.HardwareAddr) func([]byte) []byte {
		return func(frame []byte) []byte { return slices.Concat(frame[:6], mac, frame[12:]) }
	}
	forgeries := map[string]struct {
		executed, marked bool
		change           func(frame []byte) []byte
	}{
		"plain":       {true, false, func(frame []byte) []byte { return frame }},
		"bridge-mac":  {true, true, from(bridge)},
		"port-mac":    {true, true, from(port)},
		"priority":    {true, false, func(frame []byte) []byte { return withTags(frame, priority...) }},
		"priority-9":  {true, false, func(frame []byte) []byte { return withTags(frame, slices.Repeat(priority, 9)...) }},
		"priority-ad": {true, false, func(frame []byte) []byte { return withTags(frame, 0x88, 0xa8, 0, 0, 0x81, 0, 0, 0) }},
		"vlan":        {false, false, func(frame []byte) []byte { return withTags(frame, 0x81, 0, 0, 7) }},
		"vlan-in-ad":  {false, false, func(frame []byte) []byte { return withTags(frame, 0x88, 0xa8, 0, 0, 0x81, 0, 0, 7) }},
		"snap": {false, false, func(frame []byte) []byte {
			return withTags(frame, binary.BigEndian.AppendUint16(nil, uint16(len(frame)-14+8))[0],
				byte(len(frame)-14+8), 0xaa, 0xaa, 3, 0, 0, 0)
		}},
		"mpls": {false, false, func(frame []byte) []byte {
			return slices.Concat(frame[:12], []byte{0x88, 0x47, 0, 1, 1, 64}, frame[14:])
		}},
		"pppoe": {false, false, func(frame []byte) []byte {
			size := len(frame) - 14 + 2
			return slices.Concat(frame[:12], []byte{0x88, 0x64, 0x11, 0, 0, 1, byte(size >> 8), byte(size), 0, 0x21}, frame[14:])
		}},
	}
	for name, forged := range forgeries {
		conn := network.dial(80).(*net.TCPConn)
		v := &victim{liveNet: network, conn: conn, reader: bufio.NewReader(conn), frames: frames, label: name}
		if err := v.request(0); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		payload := fmt.Sprintf("GET /%s/forged HTTP/1.1\r\nHost: a\r\n\r\n", name)
		frame := forged.change(v.segmentOf(payload))
		if forged.executed {
			v.takeForSent(payload)
		}
		frames.sendFrame(t, frame)
		err := error(nil)
		if forged.executed {
			err = v.readResponse()
		} else {
			err = v.request(1) // the server has not taken the segment
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if repeated := v.retransmissions(); repeated > 0 && forged.executed { // on a busy machine, or the server has not taken it
			t.Logf("%s: the kernel of the client has repeated the request", name)
		}
		_ = conn.Close()
	}
	live.stop()
	lines := requests()
	urls := live.urls()
	for name, forged := range forgeries {
		url := "/" + name + "/forged"
		logged := slices.ContainsFunc(lines, func(line string) bool { return strings.Contains(line, url) })
		if logged != forged.executed {
			t.Errorf("%s: nginx executed it: %v, want %v", name, logged, forged.executed)
		}
		if logged && urls[url] != 1 {
			t.Errorf("%s was told %d times", url, urls[url])
		}
	}
	for _, event := range live.events {
		if event.Http == nil || !strings.HasSuffix(event.Http.UrlOriginal, "/forged") {
			continue
		}
		name := strings.Split(event.Http.UrlOriginal, "/")[1]
		if marked := slices.Contains(event.Tags, pipeline.TagMACMoved); marked != forgeries[name].marked {
			t.Errorf("%s: tags %v", name, event.Tags)
		}
	}
}

// takeForSent has the kernel of the client take payload for sent.
func (v *victim) takeForSent(payload string) {
	v.Helper()
	fd := rawFD(v, v.conn)
	const offWithoutProbe, sendQueue = -1, 2
	err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, 1)
	err = errors.Join(err, unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, sendQueue))
	_, writeErr := unix.Write(fd, []byte(payload))
	err = errors.Join(err, writeErr, unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, offWithoutProbe))
	if err != nil {
		v.Fatal(err)
	}
}

// retransmissions returns the number of segments that the client has repeated.
func (v *victim) retransmissions() uint32 {
	v.Helper()
	info, err := unix.GetsockoptTCPInfo(rawFD(v, v.conn), unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		v.Fatal(err)
	}
	return info.Total_retrans
}
