//go:build linux

package sessions

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tidegate/pipeline"
)

// Addresses of the server behind the router.
const routedServer, routedServer6 = "10.92.0.2", "fd92::2"

// addRouter moves the server behind a router, which is on the bridge. It returns the router's Ethernet address.
func (n *liveNet) addRouter() net.HardwareAddr {
	n.Helper()
	router := strings.Replace(n.server, "sv", "ro", 1)
	n.run("ip", "netns", "add", router)
	n.Cleanup(func() { n.run("ip", "netns", "del", router) })
	n.run("ip", "link", "add", "to-ro", "netns", n.bridge, "type", "veth", "peer", "eth0", "netns", router)
	n.run("ip", "-n", n.bridge, "link", "set", "to-ro", "master", "br-live", "up")
	n.run("ip", "link", "add", "eth1", "netns", router, "type", "veth", "peer", "eth1", "netns", n.server)
	n.run("ip", "-n", n.server, "link", "set", "eth0", "down")
	for _, address := range [][3]string{
		{router, "eth0", "10.91.0.254/24"},
		{router, "eth0", "fd91::254/64"},
		{router, "eth1", "10.92.0.254/24"},
		{router, "eth1", "fd92::254/64"},
		{n.server, "eth1", routedServer + "/24"},
		{n.client, "eth0", "fd91::1/64"},
		{n.server, "eth1", routedServer6 + "/64"},
	} {
		args := []string{"-n", address[0], "address", "add", address[2], "dev", address[1]}
		if strings.Contains(address[2], ":") {
			args = append(args, "nodad")
		}
		n.run("ip", args...)
		n.run("ip", "-n", address[0], "link", "set", address[1], "up")
	}
	n.run("ip", "-n", n.client, "route", "add", "default", "via", "10.91.0.254")
	n.run("ip", "-n", n.server, "route", "add", "default", "via", "10.92.0.254")
	n.run("ip", "-n", n.client, "-6", "route", "add", "default", "via", "fd91::254")
	n.run("ip", "-n", n.server, "-6", "route", "add", "default", "via", "fd92::254")
	for _, key := range []string{"net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"} {
		n.run("ip", "netns", "exec", router, "sysctl", "-qw", key)
	}
	var address net.HardwareAddr
	n.in(router, func() {
		iface, err := net.InterfaceByName("eth0")
		if err != nil {
			n.Error(err)
			return
		}
		address = iface.HardwareAddr
	})
	return address
}

// sendExpiring sends a segment with payload, off bytes behind the next one of the client, that the router drops: it
// has one hop left.
func (v *victim) sendExpiring(router net.HardwareAddr, off int, payload string) {
	v.Helper()
	seq, ack := v.sequenceNumbers()
	src := v.conn.LocalAddr().(*net.TCPAddr).AddrPort()
	dst := v.conn.RemoteAddr().(*net.TCPAddr).AddrPort()
	src = netip.AddrPortFrom(src.Addr().Unmap(), src.Port())
	dst = netip.AddrPortFrom(dst.Addr().Unmap(), dst.Port())
	frame := tcpFrame(v, src, dst, "A", seq+uint32(off), ack, uint16(seq), payload)
	copy(frame, router)
	copy(frame[6:], v.frames.client)
	if src.Addr().Is6() {
		frame[14+7] = 1
	} else {
		header := frame[14:34]
		header[8], header[10], header[11] = 1, 0, 0
		sum := ^foldSum(sumBytes(header))
		header[10], header[11] = byte(sum>>8), byte(sum)
	}
	if err := unix.Sendto(v.frames.fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: v.frames.index}); err != nil {
		v.Fatal(err)
	}
}

// TestDecoyWithASmallTTLHidesNoRequest: segments whose TTL ends at a router before the server have other texts than
// the requests that nginx gets. With any number of workers each request of its log is told and marked.
func TestDecoyWithASmallTTLHidesNoRequest(t *testing.T) {
	network := newLiveNet(t)
	requests := network.startNginx()
	frames := network.openFrames()
	router := network.addRouter()
	var sent []string
	marked := map[string]int{}
	for _, workers := range []int{1, 2, 4} {
		live := network.capture(workers)
		for _, address := range []string{routedServer, routedServer6} {
			for _, size := range []int{15, 30, 60, 400, 1300} {
				conn := network.dialAddress(address, 80).(*net.TCPConn)
				v := &victim{liveNet: network, conn: conn, reader: bufio.NewReader(conn), frames: frames}
				for number := range 3 {
					url := fmt.Sprintf("/w%d/%t/%d/r%d?x=../../etc/passwd", workers, address == routedServer, size, number)
					v.sendExpiring(router, 0, innocent(size-4)+"\r\n\r\n")
					if _, err := io.WriteString(conn, "GET "+url+" HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
						t.Fatal(err)
					}
					if err := v.readResponse(); err != nil {
						t.Fatal(err)
					}
					sent = append(sent, url)
				}
				_ = conn.Close()
			}
		}
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			told := live.urls()
			if !slices.ContainsFunc(sent, func(url string) bool {
				return strings.HasPrefix(url, fmt.Sprintf("/w%d/", workers)) && told[url] == 0
			}) {
				break
			}
		}
		live.stop()
		for _, event := range live.events {
			if event.Http != nil && slices.Contains(event.Tags, pipeline.TagOverlapConflict) {
				marked[event.Http.UrlOriginal]++
			}
		}
	}
	lines := requests()
	for _, line := range lines {
		if url := strings.Fields(line)[1]; marked[url] != 1 {
			t.Errorf("%s was told and marked %d times", url, marked[url])
		}
	}
	if len(lines) != len(sent) {
		t.Errorf("the server logged %d requests of %d", len(lines), len(sent))
	}
}
