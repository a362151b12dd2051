package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"tidegate/collector"
	"tidegate/collector/capture"
	"tidegate/collector/containers"
	"tidegate/collector/links"
	"tidegate/collector/sessions"
	"tidegate/pipeline"
	"tidegate/pipeline/netnstest"
	"tidegate/protocols"
	"tidegate/protocols/all"
)

// A hostCapture captures on a Docker host and keeps the events.
type hostCapture struct {
	mu     sync.Mutex
	events []*pipeline.Event
	stop   func() // ends the capture; events is complete afterwards

	metrics *prometheus.Registry
}

func (c *hostCapture) TryShip(event *pipeline.Event) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if event.Dataset != pipeline.Dataset_CONTAINER {
		c.events = append(c.events, event)
	}
	return true
}
func (c *hostCapture) Close()                                  {}
func (c *hostCapture) Packets(string) collector.PacketProducer { return c }
func (c *hostCapture) File(string) collector.FileProducer      { return nil }
func (c *hostCapture) Files(string) []string                   { return nil }
func (c *hostCapture) Prune(func(string) bool)                 {}

// startCapture starts the capture of a Docker host.
func (h *dockerHost) startCapture() *hostCapture {
	captured := &hostCapture{}
	captured.metrics = prometheus.NewRegistry()
	log, reg := slog.New(slog.DiscardHandler), captured.metrics
	ctx, cancel := context.WithCancel(context.Background())
	var ends []<-chan struct{}
	start := func(run func()) { ends = append(ends, h.inHost(run)) }

	cfg := containers.Default()
	cfg.DockerHost = h.socket()
	registry := containers.New(cfg, log, reg)
	start(func() { _ = registry.Run(ctx, captured) })
	<-registry.Ready()
	monitor := links.NewMonitor(nil, registry.Overlays, log, reg)
	changed := monitor.Subscribe()
	start(func() { _ = monitor.Run(ctx) })
	<-changed
	captureConfig := capture.Default()
	captureConfig.RingBytes = 2 << 20
	var live *capture.Live
	handler := func(string, int, collector.PacketProducer) capture.Handler {
		return sessions.New(sessions.Default(), sessions.Deps{
			Protocols:  protocols.NewSet(all.Protocols, protocols.Default(), nil),
			Containers: registry, Senders: registry, IsHostMAC: monitor.IsHostMAC, Bridge: live.IsBridge,
			Tunnels: monitor, Emit: func(event *pipeline.Event) { captured.TryShip(event) },
		}, reg)
	}
	captureConfig.Interfaces = []string{"docker0"} // and those of Docker's other networks
	live = capture.NewLive(captureConfig, nil, handler, log, reg)
	live.Follow(capture.Topology{
		Links: monitor.Subscribe(), Networks: registry.Subscribe(), DockerBridges: registry.Bridges,
	})
	start(func() { _ = live.Run(ctx, captured) })
	time.Sleep(500 * time.Millisecond)
	captured.stop = func() {
		cancel()
		for _, end := range ends {
			<-end
		}
	}
	h.t.Cleanup(captured.stop)
	return captured
}

// inHost runs f on a thread of its own in the network namespace of the host.
func (h *dockerHost) inHost(f func()) <-chan struct{} {
	return netnstest.Start(h.t, h.hostNamespace, f)
}

// runWork runs a workload in a container and returns when it has ended.
func (h *dockerHost) runWork(name string, task workload, options ...string) {
	h.t.Helper()
	program, err := os.Executable()
	h.check(err)
	h.docker(slices.Concat([]string{
		"run", "--name", name, "-v", program + ":/workload:ro", "-e", "TIDEGATE_WORK=" + task.String(),
	}, options, []string{"skel", "/workload"})...)
}

// serveOutside starts an HTTP server outside of the host, at port 8000.
func (h *dockerHost) serveOutside() {
	program, err := os.Executable()
	h.check(err)
	server := h.outsideCommand(program)
	server.Env = append(os.Environ(), "TIDEGATE_WORK="+workload{ListenAddr: outsideIP + ":8000"}.String())
	h.check(server.Start())
	h.t.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
}

// sendSpoofedQuery sends a DNS query over a raw socket, which a container may have by default.
func (w workload) sendSpoofedQuery() error {
	to, err := netip.ParseAddrPort(w.DNS)
	if err != nil {
		return err
	}
	query := dnsmessage.Message{
		Header: dnsmessage.Header{ID: 7, RecursionDesired: true},
		Questions: []dnsmessage.Question{{
			Name: dnsmessage.MustNewName(w.QueryName), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET,
		}},
	}
	payload, err := query.Pack()
	if err != nil {
		return err
	}
	source, target := netip.MustParseAddr(w.SpoofedSource).As4(), to.Addr().As4()
	packet := append([]byte{0x45, 0, 0, 0, 0, 1, 0, 0, 64, 17, 0, 0}, source[:]...)
	packet = append(packet, target[:]...)
	packet = append(packet, 5353>>8, 5353&0xff)
	packet = append(packet, byte(to.Port()>>8), byte(to.Port()))
	packet = append(packet, byte((8+len(payload))>>8), byte(8+len(payload)))
	packet = append(append(packet, 0, 0), payload...)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)
	if err != nil {
		return fmt.Errorf("open a raw socket: %w", err)
	}
	return unix.Sendto(fd, packet, 0, &unix.SockaddrInet4{Addr: target})
}

// TestContainersAreKnownByTimeAndSender, on a real Docker host: a container that takes the address of one that just
// ended has none of its events, and a container that sends with the address of another is known as itself.
func TestContainersAreKnownByTimeAndSender(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a Docker host")
	}
	host := newDockerHost(t)
	host.serveOutside()
	captured := host.startCapture()

	const rounds = 5
	for round := range rounds {
		for _, role := range []string{"attacker", "billing"} {
			name := fmt.Sprintf("%s%d", role, round)
			host.runWork(name, workload{Case: name, Transactions: 1, HTTP: outsideIP + ":8000"}, "--rm")
		}
	}
	host.runWork("victim", workload{Case: "idle", Lines: 1, Interval: time.Hour}, "-d")
	victim := host.containerAddress("victim", "bridge", "4")
	host.runWork("spoofer", workload{DNS: outsideIP + ":53", QueryName: "c2.attack.example.", SpoofedSource: victim})
	time.Sleep(3 * time.Second)
	captured.stop()

	expectOwnNames(t, captured.events, 2*rounds)
	var spoofed []*pipeline.Event
	for _, event := range captured.events {
		if event.Dns != nil && event.Dns.QuestionName == "c2.attack.example" {
			spoofed = append(spoofed, event)
		}
	}
	if len(spoofed) != 1 || !slices.Contains(spoofed[0].Tags, pipeline.TagSourceSpoofed) ||
		spoofed[0].Container.GetName() != "spoofer" || spoofed[0].Source.Container.GetName() != "spoofer" {
		t.Errorf("the spoofed query: %v", spoofed)
	}
}

// expectOwnNames requires that each HTTP request, and its session, is that of the container whose name is in the path.
func expectOwnNames(t *testing.T, events []*pipeline.Event, requests int) {
	t.Helper()
	names := map[string]string{} // by session
	addresses := map[string]int{}
	for _, event := range events {
		if event.Http == nil {
			continue
		}
		parts := strings.Split(event.Http.UrlPath, "/")
		names[string(event.CommunityId)] = parts[2]
		addresses[string(event.Source.Ip)]++
		if got := event.Source.Container.GetName(); got != parts[2] || event.Container.GetName() != parts[2] {
			t.Errorf("a request of %s is that of %q", parts[2], got)
		}
	}
	sessions := 0
	for _, event := range events {
		if want := names[string(event.CommunityId)]; event.Session != nil && want != "" {
			sessions++
			if got := event.Container.GetName(); got != want {
				t.Errorf("the session of %s is that of %q", want, got)
			}
		}
	}
	if len(names) != requests || sessions != requests || len(addresses) == requests {
		t.Errorf("%d requests and %d sessions from %d addresses, want %d from fewer", len(names), sessions, len(addresses), requests)
	}
}

// TestNewNetworkIsCapturedAtOnce, on a real Docker host: of ten clients, each in a network that was made for
// it and each asking at once, every request is whole, also if the bridge has a name of its own. The series of
// bridges that are gone do not stay.
func TestNewNetworkIsCapturedAtOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a Docker host")
	}
	host := newDockerHost(t)
	host.serveOutside()
	captured := host.startCapture()
	const networks = 10
	for i := range networks {
		name := fmt.Sprintf("net%d", i)
		create := []string{"network", "create", name}
		if i%2 == 1 {
			create = append(create, "-o", "com.docker.network.bridge.name=shop"+fmt.Sprint(i))
		}
		host.docker(create...)
		host.runWork(name, workload{Case: name, Transactions: 1, HTTP: outsideIP + ":8000"}, "--rm", "--network", name)
		host.docker("network", "rm", name)
	}
	time.Sleep(3 * time.Second)
	series := map[string]float64{}
	families, err := captured.metrics.Gather()
	host.check(err)
	for _, family := range families {
		if family.GetName() == "tidegate_capture_packets_total" {
			for _, metric := range family.GetMetric() {
				series[metric.GetLabel()[0].GetValue()] = metric.GetCounter().GetValue()
			}
		}
	}
	captured.stop()

	whole := map[string]bool{}
	for _, event := range captured.events {
		if event.Http != nil && !event.Partial && event.Http.StatusCode == 200 {
			whole[event.Source.Container.GetName()] = true
		}
	}
	if len(whole) != networks {
		t.Errorf("%d of %d requests are whole: %v", len(whole), networks, whole)
	}
	if len(series) > 2 || series["removed"] < 10*networks {
		t.Errorf("series of packets: %v, want docker0 and removed", series)
	}
}
