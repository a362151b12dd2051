//go:build linux

package links_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/prometheus/client_golang/prometheus"

	"tidegate/collector"
	"tidegate/collector/capture"
	"tidegate/collector/conntrack"
	"tidegate/collector/links"
	"tidegate/collector/sessions"
	"tidegate/pipeline"
	"tidegate/pipeline/netnstest"
	"tidegate/protocols"
	"tidegate/protocols/all"
)

// A host is a network namespace with eth0 towards another host, the bridge docker0 with the container 172.17.0.9, and
// the VXLAN device vx7 (network 7) over eth0.
type host struct {
	testing.TB
	name, peer, container string // namespaces

	mu     sync.Mutex
	events []*pipeline.Event
}

// ip runs `ip -n namespace …`.
func ip(t testing.TB, namespace, args string) {
	t.Helper()
	netnstest.Run(t, "ip", append([]string{"-n", namespace}, strings.Fields(args)...)...)
}

func newHost(t testing.TB) *host {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a packet socket and a namespace need root")
	}
	h := &host{TB: t}
	for i, name := range []*string{&h.name, &h.peer, &h.container} {
		*name = fmt.Sprintf("tglnk%d-%d", i, os.Getpid())
		netnstest.Run(t, "ip", "netns", "add", *name)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", *name).Run() })
		ip(t, *name, "link set lo up")
	}
	ip(t, h.name, "link add eth0 type veth peer name eth0 netns "+h.peer)
	ip(t, h.name, "addr add 198.51.100.1/24 dev eth0")
	ip(t, h.peer, "addr add 198.51.100.2/24 dev eth0")
	ip(t, h.name, "link set eth0 up")
	ip(t, h.peer, "link set eth0 up")

	ip(t, h.name, "link add docker0 type bridge")
	ip(t, h.name, "addr add 172.17.0.1/16 dev docker0")
	ip(t, h.name, "link set docker0 up")
	ip(t, h.name, "link add veth9 type veth peer name eth0 netns "+h.container)
	ip(t, h.name, "link set veth9 master docker0 up")
	ip(t, h.container, "addr add 172.17.0.9/16 dev eth0")
	ip(t, h.container, "link set eth0 up")
	ip(t, h.container, "route add default via 172.17.0.1")
	ip(t, h.peer, "route add 172.17.0.0/16 via 198.51.100.1")
	netnstest.Run(t, "ip", "netns", "exec", h.name, "sysctl", "-qw", "net.ipv4.ip_forward=1")
	return h
}

// shipper is a collector.Shipper whose producers are not used: the tables emit to the host.
type shipper struct{}

func (shipper) TryShip(*pipeline.Event) bool            { return true }
func (shipper) Close()                                  {}
func (shipper) Packets(string) collector.PacketProducer { return shipper{} }
func (shipper) File(string) collector.FileProducer      { return nil }
func (shipper) Files(string) []string                   { return nil }
func (shipper) Prune(func(string) bool)                 {}

// containersOf names the containers of 172.17.0.0/16 and 10.7.0.0/24.
type containersOf struct{}

func (containersOf) Resolve(ip netip.Addr, _ int64) (*pipeline.Container, bool) {
	if text := ip.String(); strings.HasPrefix(text, "172.17.") && text != "172.17.0.1" || strings.HasPrefix(text, "10.7.") {
		return &pipeline.Container{Id: text, Name: text}, true
	}
	return nil, true
}

// capture captures on eth0 and docker0 while traffic runs, and returns the events.
func (h *host) capture(traffic func()) []*pipeline.Event {
	h.Helper()
	cfg := capture.Default()
	cfg.Workers, cfg.RingBytes = 1, 2<<20
	log, reg := slog.New(slog.DiscardHandler), prometheus.NewRegistry()
	monitor := links.NewMonitor(nil, nil, log, reg)
	tracker := conntrack.New(log, reg)
	dedup := sessions.NewDedupTable()
	handler := func(string, int, collector.PacketProducer) capture.Handler {
		return sessions.New(sessions.Default(), sessions.Deps{
			Protocols:  protocols.NewSet(all.Protocols, protocols.Default(), nil),
			Containers: containersOf{}, NAT: tracker, Bridge: cfg.IsBridge, Dedup: dedup, Tunnels: monitor,
			IsTranslated: tracker.IsTranslated,
			Emit: func(event *pipeline.Event) {
				h.mu.Lock()
				defer h.mu.Unlock()
				h.events = append(h.events, event)
			},
		}, reg)
	}
	live := capture.NewLive(cfg, nil, handler, log, reg)
	ctx, cancel := context.WithCancel(context.Background())
	changed := monitor.Subscribe()
	ends := []<-chan struct{}{
		netnstest.Start(h, h.name, func() { _ = monitor.Run(ctx) }),
		netnstest.Start(h, h.name, func() { _ = tracker.Run(ctx) }),
		netnstest.Start(h, h.name, func() { _ = live.Run(ctx, shipper{}) }),
	}
	<-changed
	time.Sleep(700 * time.Millisecond)
	traffic()
	time.Sleep(500 * time.Millisecond)
	cancel()
	for _, end := range ends {
		<-end
	}
	return h.events
}

// serve serves HTTP on an address of a namespace until the test ends.
func (h *host) serve(namespace, address string) {
	var listener net.Listener
	var err error
	<-netnstest.Start(h, namespace, func() { listener, err = net.Listen("tcp", address) })
	if err != nil {
		h.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "hello")
	})}
	go func() { _ = server.Serve(listener) }()
	h.Cleanup(func() { _ = server.Close() })
}

// request sends an HTTP request from a namespace.
func (h *host) request(namespace, address, path string) {
	h.Helper()
	<-netnstest.Start(h, namespace, func() {
		conn, err := net.DialTimeout("tcp", address, 5*time.Second)
		if err != nil {
			h.Error(err)
			return
		}
		defer func() { _ = conn.Close() }()
		_, _ = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", path)
		_, _ = io.Copy(io.Discard, conn)
	})
}

// count returns the number of whole HTTP events with the path, and of those in a tunnel of network 7.
func count(t testing.TB, events []*pipeline.Event, path string) (whole, tunnelled int) {
	t.Helper()
	for _, event := range events {
		if event.Http == nil || event.Http.UrlPath != path || event.Partial || event.Http.StatusCode != 200 {
			continue
		}
		whole++
		if event.Tunnel.GetType() == "vxlan" && event.Tunnel.GetId() == 7 && len(event.Tunnel.SourceIp) == 4 {
			tunnelled++
		}
		if event.Tunnel != nil && event.Container != nil {
			t.Errorf("an event in a tunnel is of container %s", event.Container.Name)
		}
	}
	return whole, tunnelled
}

// forge sends a connection between 172.17.0.2 and 172.17.0.3 in VXLAN datagrams of network 7 to the given address.
func (h *host) forge(to string) {
	h.Helper()
	<-netnstest.Start(h, h.container, func() {
		conn, err := net.Dial("udp", to)
		if err != nil {
			h.Error(err)
			return
		}
		defer func() { _ = conn.Close() }()
		for _, segment := range forgedConnection(h) {
			if _, err := conn.Write(append([]byte("\x08\x00\x00\x00\x00\x00\x07\x00"), segment...)); err != nil {
				h.Log(err) // the port is closed
			}
			time.Sleep(2 * time.Millisecond)
		}
	})
}

// forgedConnection returns the frames of an HTTP request.
func forgedConnection(t testing.TB) (frames [][]byte) {
	ask := "GET /forged HTTP/1.1\r\nHost: x\r\n\r\n"
	answer := "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	for _, step := range []struct {
		back     bool
		flags    byte
		seq, ack uint32
		payload  string
	}{
		{false, 2, 100, 0, ""},
		{true, 0x12, 500, 101, ""},
		{false, 0x10, 101, 501, ""},
		{false, 0x18, 101, 501, ask},
		{true, 0x18, 501, 101 + uint32(len(ask)), answer},
	} {
		from, to, sport, dport := []byte{172, 17, 0, 2}, []byte{172, 17, 0, 3}, 40000, 80
		if step.back {
			from, to, sport, dport = to, from, dport, sport
		}
		segment := &layers.TCP{SrcPort: layers.TCPPort(sport), DstPort: layers.TCPPort(dport), Seq: step.seq, Ack: step.ack, Window: 60000}
		buffer := gopacket.NewSerializeBuffer()
		if err := gopacket.SerializeLayers(buffer, gopacket.SerializeOptions{FixLengths: true},
			&layers.Ethernet{SrcMAC: make([]byte, 6), DstMAC: make([]byte, 6), EthernetType: layers.EthernetTypeIPv4},
			&layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: from, DstIP: to},
			segment, gopacket.Payload(step.payload)); err != nil {
			t.Fatal(err)
		}
		frame := buffer.Bytes()
		binary.BigEndian.PutUint16(frame[46:], 0x5000|uint16(step.flags))
		frames = append(frames, frame)
	}
	return frames
}

// addVXLAN makes network 7 between the host and its peer.
func (h *host) addVXLAN() {
	for i, namespace := range []string{h.name, h.peer} {
		ip(h, namespace, fmt.Sprintf("link add vx7 type vxlan id 7 dstport 4789 dev eth0 remote 198.51.100.%d", 2-i))
		ip(h, namespace, fmt.Sprintf("addr add 10.7.0.%d/24 dev vx7", i+1))
		ip(h, namespace, "link set vx7 up")
	}
}

// TestOverlayOfThisHostIsRead: requests over a VXLAN device are told whole, with the tunnel, while the datagrams that
// a container sends to the same port are not opened: not on its bridge, and not on eth0, routed or masqueraded.
func TestOverlayOfThisHostIsRead(t *testing.T) {
	h := newHost(t)
	h.addVXLAN()
	h.serve(h.peer, "10.7.0.2:80")
	h.serve(h.peer, "198.51.100.2:80")
	const requests = 20
	events := h.capture(func() {
		for range requests {
			h.request(h.name, "10.7.0.2:80", "/overlay")
		}
		h.forge("172.17.0.1:4789")
		h.forge("198.51.100.2:4789")
		netnstest.Run(t, "ip", "netns", "exec", h.name, "iptables", "-t", "nat", "-A", "POSTROUTING", "-s", "172.17.0.0/16", "-o", "eth0", "-j", "MASQUERADE")
		for range 20 {
			h.forge("198.51.100.2:4789")
		}
		h.request(h.container, "198.51.100.2:80", "/plain")
	})
	if whole, tunnelled := count(t, events, "/overlay"); whole != requests || tunnelled != requests {
		t.Errorf("%d of %d requests over VXLAN are whole, %d with the tunnel", whole, requests, tunnelled)
	}
	if whole, _ := count(t, events, "/plain"); whole != 1 {
		t.Errorf("%d events of a request outside of the tunnel", whole)
	}
	forged, datagrams := 0, 0
	for _, event := range events {
		if event.Source.GetPort() == 40000 && event.Destination.GetPort() == 80 {
			forged++
		}
		if event.Session != nil && event.Destination.GetPort() == 4789 && event.Container.GetName() == "172.17.0.9" &&
			slices.Contains(event.Tags, pipeline.TagTunnelUnopened) {
			datagrams += int(event.Source.Packets)
		}
	}
	if forged != 0 || datagrams != 110 {
		t.Errorf("%d events of the forged connection, %d of 110 datagrams told as the container's", forged, datagrams)
	}
}

// TestOverlayInAnotherNamespaceIsRead: the device of a Docker overlay network is made in the host's namespace and
// moved to one of its own, where the kernel does not list it for the host.
func TestOverlayInAnotherNamespaceIsRead(t *testing.T) {
	h := newHost(t)
	h.addVXLAN()
	for i, namespace := range []string{h.name, h.peer} {
		overlay := namespace + "o"
		netnstest.Run(t, "ip", "netns", "add", overlay)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", overlay).Run() })
		ip(t, namespace, "link set vx7 netns "+overlay)
		ip(t, overlay, fmt.Sprintf("addr add 10.7.0.%d/24 dev vx7", i+1))
		ip(t, overlay, "link set vx7 up")
	}
	h.serve(h.peer+"o", "10.7.0.2:80")
	events := h.capture(func() { h.request(h.name+"o", "10.7.0.2:80", "/moved") })
	if whole, tunnelled := count(t, events, "/moved"); whole != 1 || tunnelled != 1 {
		t.Errorf("%d events are whole, %d with the tunnel", whole, tunnelled)
	}
}

// TestNoDeviceNoTunnel: without a device of this host no VXLAN datagram is opened, also not while a process listens
// on its port.
func TestNoDeviceNoTunnel(t *testing.T) {
	h := newHost(t)
	var socket net.PacketConn
	<-netnstest.Start(t, h.name, func() { socket, _ = net.ListenPacket("udp", ":4789") })
	defer func() { _ = socket.Close() }()
	events := h.capture(func() {
		h.forge("172.17.0.1:4789")
		h.forge("198.51.100.1:4789")
		h.forge("198.51.100.2:4789")
	})
	for _, event := range events {
		if event.Tunnel != nil || event.Http != nil || event.Source.GetPort() == 40000 {
			t.Errorf("an event of the forged connection: %v", event.Dataset)
		}
	}
	if len(events) == 0 {
		t.Error("the datagrams are no events either")
	}
}
