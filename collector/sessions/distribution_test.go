//go:build linux

package sessions

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"tidegate/pipeline"
)

// addOverlay connects the namespaces of client and server by VXLAN, as Docker's overlay networks do. It returns
// the address of the server in it.
func (n *liveNet) addOverlay() string {
	n.Helper()
	for i, ns := range []string{n.client, n.server} {
		n.run("ip", "-n", ns, "link", "add", "vx0", "type", "vxlan", "id", "4097", "dstport", "4789", "local",
			fmt.Sprintf("10.91.0.%d", 1+i), "remote", fmt.Sprintf("10.91.0.%d", 2-i))
		n.run("ip", "-n", ns, "address", "add", fmt.Sprintf("10.92.0.%d/24", 1+i), "dev", "vx0")
		n.run("ip", "-n", ns, "link", "set", "vx0", "up")
	}
	return "10.92.0.2"
}

// wholeTransactions returns how many events of a dataset have both their request and their response, and how
// many have not.
func (l *liveCapture) wholeTransactions(dataset pipeline.Dataset) (whole, halved int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, event := range l.events {
		if event.Dataset != dataset {
			continue
		}
		if event.Source.GetBytes() > 0 && event.Destination.GetBytes() > 0 && !event.Partial {
			whole++
		} else {
			halved++
		}
	}
	return whole, halved
}

// TestOverlayNetworksAreWholeWithAnyNumberOfWorkers: the outer ports of VXLAN differ by direction, and still both
// directions of a connection come to one worker.
func TestOverlayNetworksAreWholeWithAnyNumberOfWorkers(t *testing.T) {
	network := newLiveNet(t)
	requests := network.startNginx()
	overlay := network.addOverlay()
	_ = network.dialAddress(overlay, 80).Close()
	const each = 40
	for _, workers := range []int{1, 2, 4} {
		live := network.capture(workers)
		for i := range each {
			conn := network.dialAddress(overlay, 80)
			if _, err := fmt.Fprintf(conn, "GET /w%d/r%d HTTP/1.0\r\n\r\n", workers, i); err != nil {
				t.Error(err)
			}
			_, _ = conn.Read(make([]byte, 1000))
			_ = conn.Close()
		}
		time.Sleep(100 * time.Millisecond)
		live.stop()
		if whole, halved := live.wholeTransactions(pipeline.Dataset_HTTP); whole != each || halved != 0 {
			t.Errorf("%d workers: %d requests whole and %d halved, want %d and 0", workers, whole, halved, each)
		}
		for _, session := range live.sessions() {
			if session.Transport == pipeline.Transport_TCP && session.Partial {
				t.Errorf("%d workers: a session is partial: %v", workers, session)
			}
		}
	}
	if lines := len(requests()); lines != 3*each {
		t.Errorf("the server logged %d requests", lines)
	}
}

// TestFragmentsComeToOneWorker: the answers are fragmented, over IPv4 and IPv6. Only the first fragment of each
// has ports.
func TestFragmentsComeToOneWorker(t *testing.T) {
	network := newLiveNet(t)
	for i, ns := range []string{network.client, network.server} {
		network.run("ip", "-n", ns, "address", "add", fmt.Sprintf("fd00:91::%d/64", 1+i), "dev", "eth0", "nodad")
	}
	var server4, server6 *net.UDPConn
	network.in(network.server, func() {
		server4, server6 = listenUDP(t, serverAddress), listenUDP(t, "fd00:91::2")
	})
	for _, server := range []*net.UDPConn{server4, server6} {
		defer func() { _ = server.Close() }()
		go answerLong(server)
	}
	const each = 40
	for _, workers := range []int{1, 2, 4} {
		live := network.capture(workers)
		var all sync.WaitGroup
		for _, server := range []string{serverAddress, "fd00:91::2"} {
			for i := range each {
				var conn net.Conn
				network.in(network.client, func() {
					var err error
					if conn, err = net.Dial("udp", net.JoinHostPort(server, "53")); err != nil {
						t.Error(err)
					}
				})
				all.Go(func() {
					defer func() { _ = conn.Close() }()
					_, _ = conn.Write(dnsMessage(uint16(i), 0x0100, 0))
					_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
					if _, err := conn.Read(make([]byte, 9000)); err != nil {
						t.Error(err)
					}
				})
			}
		}
		all.Wait()
		time.Sleep(100 * time.Millisecond)
		live.stop()
		if whole, halved := live.wholeTransactions(pipeline.Dataset_DNS); whole != 2*each || halved != 0 {
			t.Errorf("%d workers: %d queries whole and %d halved, want %d and 0", workers, whole, halved, 2*each)
		}
	}
}

func listenUDP(t *testing.T, address string) *net.UDPConn {
	t.Helper()
	ip := netip.MustParseAddr(address)
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, 53)))
	if err != nil {
		t.Error(err)
	}
	return conn
}

// answerLong answers DNS queries with messages that are longer than a packet.
func answerLong(server *net.UDPConn) {
	query := make([]byte, 1500)
	for {
		n, from, err := server.ReadFromUDPAddrPort(query)
		if err != nil || n < 12 {
			return
		}
		_, _ = server.WriteToUDPAddrPort(dnsMessage(binary.BigEndian.Uint16(query), 0x8180, 3500), from)
	}
}

// dnsMessage returns a query of TXT records, or an answer with one of about size bytes.
func dnsMessage(id, flags uint16, size int) []byte {
	message := binary.BigEndian.AppendUint16(nil, id)
	message = binary.BigEndian.AppendUint16(message, flags)
	message = append(message, 0, 1, 0, byte(min(size, 1)), 0, 0, 0, 0)
	message = append(message, "\x04long\x07example\x00\x00\x10\x00\x01"...)
	if size == 0 {
		return message
	}
	texts := make([]byte, size/256*256)
	for i := 0; i < len(texts); i += 256 {
		texts[i] = 255
	}
	message = append(message, "\xc0\x0c\x00\x10\x00\x01\x00\x00\x00\x3c"...)
	message = binary.BigEndian.AppendUint16(message, uint16(len(texts)))
	return append(message, texts...)
}

// TestWorkersShareConnections: the connections of one client and one server come to all workers.
func TestWorkersShareConnections(t *testing.T) {
	network := newLiveNet(t)
	network.startNginx()
	live := network.capture(2)
	for range 60 {
		_ = network.dial(80).Close()
	}
	time.Sleep(200 * time.Millisecond)
	live.stop()
	for worker, table := range live.tables {
		if table.openedFlows < 10 {
			t.Errorf("worker %d had %d of 60 connections", worker, table.openedFlows)
		}
	}
}
