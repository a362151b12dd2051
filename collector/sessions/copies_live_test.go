//go:build linux

package sessions

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The addresses of the host, whose namespace has the bridge, and of one outside of it.
const (
	hostAddress    = "10.92.0.254"
	outsideAddress = "10.92.0.1"
)

// addOutside joins a fourth namespace to that of the bridge, which routes from it, on ext0, to the bridge. It
// returns the name.
func (n *liveNet) addOutside() (outside string) {
	n.Helper()
	outside = fmt.Sprintf("tgou%d-%d", os.Getpid(), numNets.Add(1))
	n.run("ip", "netns", "add", outside)
	n.Cleanup(func() { n.run("ip", "netns", "del", outside) })
	n.run("ip", "link", "add", "ext0", "netns", n.bridge, "type", "veth", "peer", "eth0", "netns", outside)
	n.run("ip", "-n", n.bridge, "address", "add", hostAddress+"/24", "dev", "ext0")
	n.run("ip", "-n", n.bridge, "link", "set", "ext0", "up")
	n.run("ip", "-n", n.bridge, "address", "add", "10.91.0.254/24", "dev", "br-live")
	n.run("ip", "netns", "exec", n.bridge, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
	n.run("ip", "-n", n.server, "route", "add", "default", "via", "10.91.0.254")
	n.run("ip", "-n", outside, "address", "add", outsideAddress+"/24", "dev", "eth0")
	n.run("ip", "-n", outside, "link", "set", "eth0", "up")
	n.run("ip", "-n", outside, "route", "add", "default", "via", hostAddress)
	n.interfaces = []string{"ext0"}
	return outside
}

// forgeConnections sends segments of both directions of the connections from the given ports of the outside
// to the host on the bridge, from the client, until stop is closed. first is closed when each had some.
func (n *liveNet) forgeConnections(frames *frameSocket, ports []uint16, stop, first chan struct{}) {
	payloads := []string{"", "GET /forged HTTP/1.1\r\nHost: a\r\n\r\n", ""}
	for round := 0; ; round++ {
		for i, port := range ports {
			client, server := fmt.Sprintf("%s:%d", outsideAddress, port), hostAddress+":80"
			flags := [2]string{"A", "A"}
			if round == 0 {
				flags = [2]string{"S", "SA"}
			} else if i%3 == 2 && round%8 == 0 {
				flags = [2]string{"FA", "RA"}
			}
			for back := range 2 {
				from, to := addrPort(client), addrPort(server)
				if back == 1 {
					from, to = to, from
				}
				seq := uint32(1000 + round*100*(i%2))
				frame := tcpFrame(n, from, to, flags[back], seq, 5000, uint16(round), payloads[i%3])
				copy(frame, nobody)
				copy(frame[6:], frames.client)
				err := unix.Sendto(frames.fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: frames.index})
				if err != nil {
					n.Error(err)
					return
				}
			}
		}
		if round == 4 {
			close(first)
		}
		select {
		case <-stop:
			return
		case <-time.After(4 * time.Millisecond):
		}
	}
}

// request sends requests on one connection from a port of the outside to an address, and waits for the
// answers.
func (n *liveNet) request(outside string, port uint16, address string, urls []string) {
	n.Helper()
	n.in(outside, func() {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(outsideAddress), Port: int(port)}}
		conn, err := dialer.Dial("tcp4", address+":80")
		if err != nil {
			n.Error(err)
			return
		}
		defer func() { _ = conn.Close() }()
		reader := bufio.NewReader(conn)
		for _, url := range urls {
			_, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", url)
			if err == nil {
				var response *http.Response
				if response, err = http.ReadResponse(reader, nil); err == nil {
					_, err = io.Copy(io.Discard, response.Body)
				}
			}
			if err != nil {
				n.Errorf("%s: %v", url, err)
				return
			}
			time.Sleep(20 * time.Millisecond) // forged segments come in between
		}
	})
}

// TestForgedConnectionOnABridgeIsBesideTheTrueOne: a container sends segments with the addresses of
// connections from outside to a nginx of the host, which pass another interface. Each request that nginx
// executes is an event, once, and so is each of the connections to a container, which pass both interfaces.
func TestForgedConnectionOnABridgeIsBesideTheTrueOne(t *testing.T) {
	network := newLiveNet(t)
	outside := network.addOutside()
	logs := []func() []string{network.startNginx(), network.startNginxIn(network.bridge, "10.91.0.254")}
	for _, workers := range []int{1, 2, 4} {
		if workers == 4 {
			network.followLinks() // the networks of the bridge are known
		}
		live := network.capture(workers)
		frames := network.openFrames()
		base := uint16(20000 + 1000*workers)
		ports := make([]uint16, 9)
		for i := range ports {
			ports[i] = base + uint16(i)
		}
		stop, first := make(chan struct{}), make(chan struct{})
		var forging sync.WaitGroup
		forging.Go(func() { network.forgeConnections(frames, ports, stop, first) })
		<-first
		var wanted []string
		for i, port := range ports {
			var urls, others []string
			for number := range 4 {
				urls = append(urls, fmt.Sprintf("/host/%d/%d/%d", workers, i, number))
				others = append(others, fmt.Sprintf("/container/%d/%d/%d", workers, i, number))
			}
			network.request(outside, port, hostAddress, urls)
			network.request(outside, port+500, serverAddress, others)
			wanted = append(append(wanted, urls...), others...)
		}
		close(stop)
		forging.Wait()
		live.stop()
		if drops := live.value("tidegate_capture_kernel_drops_total"); drops > 0 {
			t.Logf("%v packets dropped by the kernel: this run does not count", drops)
			continue
		}
		urls := live.urls()
		for _, url := range wanted {
			if urls[url] != 1 {
				t.Errorf("%d workers: %s was told %d times", workers, url, urls[url])
			}
		}
		if differing := live.value("tidegate_sessions_differing_copies_total"); differing == 0 && workers < 4 {
			t.Errorf("%d workers: no session is counted as one of two that differ", workers)
		}
	}
	lines := append(logs[0](), logs[1]()...)
	executed := 0
	for _, line := range lines {
		if strings.HasPrefix(line, "GET /host/") || strings.HasPrefix(line, "GET /container/") {
			executed++
		}
	}
	if executed != 3*9*8 {
		t.Errorf("nginx has executed %d requests, want %d", executed, 3*9*8)
	}
}
