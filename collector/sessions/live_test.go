//go:build linux

package sessions

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"tidegate/collector"
	"tidegate/collector/capture"
	"tidegate/pipeline"
	"tidegate/pipeline/netnstest"
	"tidegate/protocols"
)

// A liveNet is a bridge between two namespaces, those of a client and of a server. The bridge is in a third
// one, where the tests capture.
type liveNet struct {
	testing.TB
	bridge, client, server string // names of the namespaces

	interfaces []string // that a capture reads beside br-live

	// Deps of the tables of a capture.
	senders       Senders
	isHostMAC     func(mac uint64) bool
	isMACOfBridge func(bridge string, mac uint64) bool
	isOutside     func(bridge string, ip netip.Addr) bool
}

// serverAddress is the address of the server's namespace.
const serverAddress = "10.91.0.2"

// numNets numbers the liveNets of the process.
var numNets atomic.Int64

// newLiveNet makes the namespaces, and removes them when the test ends.
func newLiveNet(t testing.TB) *liveNet {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a packet socket and a namespace need root")
	}
	number := numNets.Add(1)
	name := func(role string) string { return fmt.Sprintf("tg%s%d-%d", role, os.Getpid(), number) }
	network := &liveNet{TB: t, bridge: name("br"), client: name("cl"), server: name("sv")}
	for _, ns := range []string{network.bridge, network.client, network.server} {
		network.run("ip", "netns", "add", ns)
		t.Cleanup(func() { network.run("ip", "netns", "del", ns) })
	}
	network.run("ip", "-n", network.bridge, "link", "add", "br-live", "type", "bridge")
	network.run("ip", "-n", network.bridge, "link", "set", "br-live", "up")
	for ns, address := range map[string]string{network.client: "10.91.0.1/24", network.server: serverAddress + "/24"} {
		port := "to-" + ns[2:4]
		network.run("ip", "link", "add", port, "netns", network.bridge, "type", "veth", "peer", "eth0", "netns", ns)
		network.run("ip", "-n", network.bridge, "link", "set", port, "master", "br-live", "up")
		network.run("ip", "-n", ns, "address", "add", address, "dev", "eth0")
		network.run("ip", "-n", ns, "link", "set", "eth0", "up")
		network.run("ip", "-n", ns, "link", "set", "lo", "up")
	}
	return network
}

func (n *liveNet) run(name string, args ...string) {
	n.Helper()
	netnstest.Run(n, name, args...)
}

// in runs f on a thread in the namespace ns, and waits for it.
func (n *liveNet) in(ns string, f func()) { <-n.start(ns, f) }

// start runs f on a thread in the namespace ns. The channel is closed when f has returned.
func (n *liveNet) start(ns string, f func()) <-chan struct{} { return netnstest.Start(n, ns, f) }

// startNginx starts nginx in the server's namespace, and returns a function that stops it and returns the
// request lines of its access log.
func (n *liveNet) startNginx() (requests func() []string) {
	return n.startNginxIn(n.server, serverAddress)
}

// startNginxIn is startNginx for another namespace, which has the given address.
func (n *liveNet) startNginxIn(ns, address string) (requests func() []string) {
	n.Helper()
	path, err := exec.LookPath("nginx")
	if err != nil {
		n.Fatal("nginx is not installed; deploy/setup-test.sh installs it")
	}
	dir := n.TempDir()
	config := fmt.Sprintf(`daemon off; worker_processes 1; pid %[1]s/pid; error_log %[1]s/error.log; user root;
events { worker_connections 1024; }
http {
	log_format line '$request'; access_log %[1]s/access.log line buffer=64k flush=1s;
	keepalive_requests 100000000; keepalive_timeout 600s; large_client_header_buffers 8 64k;
	client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f;
	uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
	server { listen 80; listen [::]:80 ipv6only=on; location / { return 200 "hello\n"; } }
}`, dir)
	if err := os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(config), 0o600); err != nil {
		n.Fatal(err)
	}
	server := exec.Command("ip", "netns", "exec", ns, path, "-p", dir, "-c", filepath.Join(dir, "nginx.conf"))
	if err := server.Start(); err != nil {
		n.Fatal(err)
	}
	stop := sync.OnceFunc(func() {
		_ = server.Process.Signal(unix.SIGQUIT) // nginx finishes its requests and writes its log
		ended := make(chan struct{})
		go func() { _ = server.Wait(); close(ended) }()
		select {
		case <-ended:
		case <-time.After(3 * time.Second):
			_ = server.Process.Signal(unix.SIGTERM)
			<-ended
		}
	})
	n.Cleanup(stop)
	_ = n.dialAddress(address, 80).Close()
	return func() []string {
		stop()
		text, err := os.ReadFile(filepath.Join(dir, "access.log"))
		if err != nil {
			n.Fatal(err)
		}
		return strings.Split(strings.TrimSpace(string(text)), "\n")
	}
}

// dial connects from the client's namespace to a port of the server, and waits for the server to start.
func (n *liveNet) dial(port int) net.Conn { return n.dialAddress(serverAddress, port) }

// dialAddress is dial for another address of the server.
func (n *liveNet) dialAddress(address string, port int) (conn net.Conn) {
	n.Helper()
	n.in(n.client, func() {
		var err error
		for range 200 {
			if conn, err = net.Dial("tcp", net.JoinHostPort(address, strconv.Itoa(port))); err == nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		n.Errorf("connect: %v", err)
	})
	if conn == nil {
		n.FailNow()
	}
	return conn
}

// A liveCapture is a capture of the bridge, as the collector runs it.
type liveCapture struct {
	mu      sync.Mutex
	events  []*pipeline.Event
	tables  []*Table // of the workers
	reg     *prometheus.Registry
	started chan struct{} // closed when all rings receive packets
	stop    func()        // stops the capture; all events are there when it returns
}

// capture starts a capture with a number of workers, and waits until it receives packets.
func (n *liveNet) capture(workers int) *liveCapture {
	n.Helper()
	live := &liveCapture{reg: prometheus.NewRegistry(), started: make(chan struct{})}
	cfg := capture.Default()
	cfg.Workers, cfg.Interfaces = workers, append([]string{"br-live"}, n.interfaces...)
	dedup := NewDedupTable()
	handler := func(string, int, collector.PacketProducer) capture.Handler {
		table := New(Default(), Deps{
			Protocols: protocols.NewSet(parsers, protocols.Default(), nil), Bridge: cfg.IsBridge, Dedup: dedup,
			Tunnels: EveryTunnel, Senders: n.senders, IsHostMAC: n.isHostMAC, IsMACOfBridge: n.isMACOfBridge,
			IsOutsideBridge: n.isOutside,
			Emit:            live.addEvent,
		}, live.reg)
		live.tables = append(live.tables, table)
		return table
	}
	source := capture.NewLive(cfg, nil, handler, slog.New(newStartWatcher(live.started, len(cfg.Interfaces))), live.reg)
	ctx, cancel := context.WithCancel(context.Background())
	done := n.start(n.bridge, func() {
		if err := source.Run(ctx, discardShipper{}); err != nil {
			n.Error(err)
		}
	})
	live.stop = func() { cancel(); <-done }
	n.Cleanup(live.stop)
	select {
	case <-live.started:
	case <-time.After(10 * time.Second):
		n.Fatal("the capture does not start")
	}
	return live
}

func (l *liveCapture) addEvent(event *pipeline.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, event)
}

// urls returns how often each URL was reported.
func (l *liveCapture) urls() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	counts := map[string]int{}
	for _, event := range l.events {
		if event.Http != nil {
			counts[event.Http.UrlOriginal]++
		}
	}
	return counts
}

// sessions returns the events of sessions.
func (l *liveCapture) sessions() []*pipeline.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []*pipeline.Event
	for _, event := range l.events {
		if event.Session != nil {
			found = append(found, event)
		}
	}
	return found
}

// value returns the sum of the values of a metric.
func (l *liveCapture) value(name string) (sum float64) {
	families, err := l.reg.Gather()
	if err != nil {
		panic(err)
	}
	for _, family := range families {
		if family.GetName() == name {
			for _, metric := range family.Metric {
				sum += metric.GetCounter().GetValue() + metric.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// A startWatcher is a log handler that closes started when the capture has logged of so many interfaces that it
// has begun.
type startWatcher struct {
	started chan struct{}
	missing atomic.Int64
}

func newStartWatcher(started chan struct{}, interfaces int) *startWatcher {
	watcher := &startWatcher{started: started}
	watcher.missing.Store(int64(interfaces))
	return watcher
}

func (w *startWatcher) Enabled(context.Context, slog.Level) bool { return true }
func (w *startWatcher) WithAttrs([]slog.Attr) slog.Handler       { return w }
func (w *startWatcher) WithGroup(string) slog.Handler            { return w }
func (w *startWatcher) Handle(_ context.Context, record slog.Record) error {
	if record.Message == "capturing" && w.missing.Add(-1) == 0 {
		close(w.started)
	}
	return nil
}

// A discardShipper is a shipper whose producers take no events: the tests get them from Deps.Emit.
type discardShipper struct{}

func (discardShipper) TryShip(*pipeline.Event) bool            { return true }
func (discardShipper) Close()                                  {}
func (discardShipper) Packets(string) collector.PacketProducer { return discardShipper{} }
func (discardShipper) File(string) collector.FileProducer      { return nil }
func (discardShipper) Files(string) []string                   { return nil }
func (discardShipper) Prune(func(string) bool)                 {}

// A loadConn is a connection that is kept alive, on which one goroutine sends numbered requests.
type loadConn struct {
	number       int
	sent, answer atomic.Int64 // numbers of the last request that was sent, and of the last that was answered
}

// url returns the URL of a request.
func (c *loadConn) url(request int64) string { return fmt.Sprintf("/c%d/r%d", c.number, request) }

// run sends requests, one after the other, until stop is closed.
func (c *loadConn) run(conn net.Conn, stop chan struct{}, failed func(error)) {
	defer func() { _ = conn.Close() }()
	reader := bufio.NewReader(conn)
	for request := int64(1); ; request++ {
		select {
		case <-stop:
			return
		default:
		}
		c.sent.Store(request)
		_, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", c.url(request))
		if err == nil {
			var response *http.Response
			if response, err = http.ReadResponse(reader, nil); err == nil {
				_, err = io.Copy(io.Discard, response.Body)
			}
		}
		if err != nil {
			failed(err)
			return
		}
		c.answer.Store(request)
		time.Sleep(2 * time.Millisecond)
	}
}

// TestKeepAliveConnectionsAreToldAcrossRestarts: the capture is started and stopped under connections that are
// older than it. Every request that began after its start and ended before its stop is an event, once, with
// any number of workers.
func TestKeepAliveConnectionsAreToldAcrossRestarts(t *testing.T) {
	restarts := 50
	if testing.Short() {
		restarts = 4
	}
	network := newLiveNet(t)
	requests := network.startNginx()
	stopLoad := make(chan struct{})
	conns := make([]*loadConn, 16)
	var load sync.WaitGroup
	for i := range conns {
		conns[i] = &loadConn{number: i}
		conn := network.dial(80)
		load.Go(func() { conns[i].run(conn, stopLoad, func(err error) { t.Error(err) }) })
	}

	told, wanted, lost := 0, map[string]bool{}, 0
	for _, workers := range []int{1, 2, 4} {
		for range restarts {
			live := network.capture(workers)
			var first, last [16]int64
			for i, conn := range conns {
				first[i] = conn.sent.Load() + 1
			}
			time.Sleep(150 * time.Millisecond)
			for i, conn := range conns {
				last[i] = conn.answer.Load()
			}
			live.stop()
			if drops := live.value("tidegate_capture_kernel_drops_total"); drops > 0 {
				t.Logf("%v packets dropped by the kernel: this run does not count", drops)
				continue
			}
			urls := live.urls()
			for i, conn := range conns {
				for request := first[i]; request <= last[i]; request++ {
					url := conn.url(request)
					wanted["GET "+url+" HTTP/1.1"] = true
					if urls[url] != 1 {
						lost++
					}
					told += urls[url]
				}
			}
			for _, session := range live.sessions() {
				if !session.Partial {
					t.Errorf("the session of a connection that is older than the capture is not partial: %v", session)
				}
			}
		}
	}
	close(stopLoad)
	load.Wait()
	served := 0
	for _, line := range requests() {
		if wanted[line] {
			served++
		}
	}
	t.Logf("%d requests in the server's log, %d events", served, told)
	if served != told || lost > 0 || served < 1000 {
		t.Errorf("%d requests in the server's log while the capture ran, %d events; %d requests were not told once",
			served, told, lost)
	}
}
