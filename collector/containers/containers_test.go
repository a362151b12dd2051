package containers

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"tidegate/collector"
	"tidegate/pipeline"
)

// A fakeDocker is a Docker daemon on a socket of its own. It has the endpoints that the Registry uses.
type fakeDocker struct {
	t      *testing.T
	path   string
	mu     sync.Mutex
	boxes  map[string]map[string]any // containers by ID, as the API describes them
	nets   []map[string]any
	past   []map[string]any // all events; a new stream begins with those since the time that it asks for
	stream map[chan map[string]any]bool
	server *http.Server
	lists  int // requests for the list of containers
}

// newFakeDocker starts a daemon with three networks and no containers.
func newFakeDocker(t *testing.T) *fakeDocker {
	docker := &fakeDocker{
		t: t, path: filepath.Join(t.TempDir(), "docker.sock"),
		boxes: map[string]map[string]any{}, stream: map[chan map[string]any]bool{},
	}
	docker.nets = []map[string]any{
		{
			"Name": "bridge", "Id": strings.Repeat("1", 64), "Driver": "bridge", "IPAM": ipam("172.17.0.0/16"),
			"Options": map[string]string{"com.docker.network.bridge.name": "docker0"},
		},
		{"Name": "shop", "Id": strings.Repeat("ab", 32), "Driver": "bridge", "IPAM": ipam("172.18.0.0/16", "fd00:18::/64")},
		{"Name": "host", "Id": strings.Repeat("2", 64), "Driver": "host", "IPAM": ipam()},
		{"Name": "lan", "Id": strings.Repeat("3", 64), "Driver": "macvlan", "IPAM": ipam("192.0.2.0/24")},
		{
			"Name": "swarm", "Id": strings.Repeat("4", 64), "Driver": "overlay", "IPAM": ipam("10.0.1.0/24"),
			"Options": map[string]string{"com.docker.network.driver.overlay.vxlanid_list": "4097,4098"},
		},
	}
	docker.serve()
	return docker
}

// ipam returns the address management of a network with the given subnets.
func ipam(subnets ...string) map[string]any {
	list := []map[string]string{}
	for _, subnet := range subnets {
		list = append(list, map[string]string{"Subnet": subnet})
	}
	return map[string]any{"Driver": "default", "Config": list}
}

// serve listens on the socket. It is called again after the server was closed.
func (a *fakeDocker) serve() {
	listener, err := net.Listen("unix", a.path)
	if err != nil {
		a.t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/_ping", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Api-Version", "1.41") })
	mux.HandleFunc("/v1.41/networks", func(w http.ResponseWriter, _ *http.Request) { a.json(w, a.nets) })
	mux.HandleFunc("/v1.41/events", a.events)
	mux.HandleFunc("/v1.41/containers/json", func(w http.ResponseWriter, _ *http.Request) {
		a.mu.Lock()
		a.lists++
		list := []map[string]any{}
		for id := range a.boxes {
			list = append(list, map[string]any{"Id": id})
		}
		a.mu.Unlock()
		a.json(w, list)
	})
	mux.HandleFunc("/v1.41/containers/{id}/json", func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		box := a.boxes[r.PathValue("id")]
		a.mu.Unlock()
		if box == nil {
			w.WriteHeader(http.StatusNotFound)
			a.json(w, map[string]string{"message": "no such container"})
			return
		}
		a.json(w, box)
	})
	a.server = &http.Server{Handler: mux}
	go func() { _ = a.server.Serve(listener) }()
	a.t.Cleanup(func() { _ = a.server.Close() })
}

func (a *fakeDocker) json(out io.Writer, value any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	_ = json.NewEncoder(out).Encode(value)
}

// events streams the past events since the requested time, and then the new ones.
func (a *fakeDocker) events(w http.ResponseWriter, req *http.Request) {
	ch := make(chan map[string]any, 100)
	a.mu.Lock()
	if since := req.URL.Query().Get("since"); since != "" {
		var seconds, nanoseconds int64
		_, _ = fmt.Sscanf(since, "%d.%d", &seconds, &nanoseconds)
		for _, event := range a.past {
			if event["timeNano"].(int64) >= seconds*1e9+nanoseconds {
				ch <- event
			}
		}
	}
	a.stream[ch] = true
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		delete(a.stream, ch)
		a.mu.Unlock()
	}()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(200)
	w.(http.Flusher).Flush()
	for {
		select {
		case event := <-ch:
			a.json(w, event)
			w.(http.Flusher).Flush()
		case <-req.Context().Done():
			return
		}
	}
}

// sendEvent stores an event and sends it to every stream. at is in nanoseconds.
func (a *fakeDocker) sendEvent(kind, action, id string, at int64, attrs map[string]string) {
	event := map[string]any{
		"Type": kind, "Action": action, "Actor": map[string]any{"ID": id, "Attributes": attrs},
		"time": at / 1e9, "timeNano": at,
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.past = append(a.past, event)
	for ch := range a.stream {
		ch <- event
	}
}

// addContainer adds or replaces a container. Without addresses it does not run.
func (a *fakeDocker) addContainer(number int, name string, labels map[string]string, ips ...string) string {
	id := fmt.Sprintf("%064x", number)
	nets := map[string]any{}
	for i, ip := range ips {
		endpoint := map[string]any{"NetworkID": "n"}
		if strings.Contains(ip, ":") {
			endpoint["GlobalIPv6Address"] = ip
		} else {
			endpoint["IPAddress"] = ip
		}
		nets[fmt.Sprint("net", i)] = endpoint
	}
	finished := "0001-01-01T00:00:00Z"
	a.mu.Lock()
	defer a.mu.Unlock()
	a.boxes[id] = map[string]any{
		"Id": id, "Name": "/" + name, "Image": "sha256:abc",
		"LogPath":         "/var/lib/docker/containers/" + id + "/" + id + "-json.log",
		"State":           map[string]any{"Running": len(ips) > 0, "FinishedAt": finished},
		"HostConfig":      map[string]any{"LogConfig": map[string]any{"Type": "json-file"}},
		"Config":          map[string]any{"Image": "nginx:1.25", "Labels": labels},
		"NetworkSettings": map[string]any{"Networks": nets},
	}
	return id
}

// started sets the time at which a container was started, in nanoseconds.
func (a *fakeDocker) started(id string, at int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.boxes[id]["State"].(map[string]any)["StartedAt"] = time.Unix(0, at).UTC().Format(time.RFC3339Nano)
}

// finished sets the time at which a container ended, in nanoseconds.
func (a *fakeDocker) finished(id string, at int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.boxes[id]["State"].(map[string]any)["FinishedAt"] = time.Unix(0, at).UTC().Format(time.RFC3339Nano)
}

// setMAC sets the MAC address of all endpoints of a container.
func (a *fakeDocker) setMAC(number int, mac string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, endpoint := range a.boxes[fmt.Sprintf("%064x", number)]["NetworkSettings"].(map[string]any)["Networks"].(map[string]any) {
		endpoint.(map[string]any)["MacAddress"] = mac
	}
}

func (a *fakeDocker) remove(id string) {
	a.mu.Lock()
	delete(a.boxes, id)
	a.mu.Unlock()
}

// A fakeProducer is a Shipper and its only producer. It keeps the events.
type fakeProducer struct {
	mu   sync.Mutex
	list []*pipeline.Event
	ch   chan *pipeline.Event
}

func (l *fakeProducer) Packets(string) collector.PacketProducer { return l }
func (l *fakeProducer) File(string) collector.FileProducer      { return nil }
func (l *fakeProducer) Files(string) []string                   { return nil }
func (l *fakeProducer) Prune(func(string) bool)                 {}

func (l *fakeProducer) TryShip(event *pipeline.Event) bool {
	l.mu.Lock()
	l.list = append(l.list, event)
	l.mu.Unlock()
	l.ch <- event
	return true
}
func (l *fakeProducer) Close() {}

// run starts a Registry on docker and waits until it has read the list of containers.
func run(t *testing.T, docker *fakeDocker, change func(*Config)) (*Registry, *fakeProducer) {
	t.Helper()
	cfg := Default()
	cfg.DockerHost, cfg.Self, cfg.Collector = "unix://"+docker.path, "", pipeline.ID{7}
	if change != nil {
		change(&cfg)
	}
	registry := New(cfg, slog.New(slog.DiscardHandler), nil)
	producer := &fakeProducer{ch: make(chan *pipeline.Event, 100)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- registry.Run(ctx, producer) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	select {
	case <-registry.Ready():
	case <-time.After(20 * time.Second):
		t.Fatal("the list was not read")
	}
	return registry, producer
}

// next waits for the next event.
func (l *fakeProducer) next(t *testing.T) *pipeline.Event {
	t.Helper()
	select {
	case event := <-l.ch:
		return event
	case <-time.After(20 * time.Second):
		t.Fatal("no event came")
		return nil
	}
}

func ip(text string) netip.Addr { return netip.MustParseAddr(text) }

func TestContainersAreKnownByIDAndByEveryAddress(t *testing.T) {
	docker := newFakeDocker(t)
	id := docker.addContainer(1, "web", map[string]string{"b": "2", "a": "1"}, "172.17.0.2", "172.18.0.2", "fd00:18::2")
	registry, _ := run(t, docker, nil)
	container := registry.ByID(id)
	if container.GetName() != "web" || container.Image != "nginx:1.25" ||
		container.ImageId != "sha256:abc" || len(container.Ip) != 3 {
		t.Fatalf("%v", container)
	}
	if len(container.Labels) != 2 || container.Labels[0].Key != "a" || container.Labels[1].Key != "b" {
		t.Errorf("labels %v", container.Labels)
	}
	for _, addr := range []string{"172.17.0.2", "172.18.0.2", "fd00:18::2", "::ffff:172.17.0.2"} {
		if registry.ByIP(ip(addr)) != container {
			t.Errorf("%s is not known", addr)
		}
	}
	const networks = "[br-abababababab docker0] [172.18.0.0/16 fd00:18::/64 172.17.0.0/16]"
	if got := fmt.Sprint(registry.Bridges(), registry.view.Load().subnets); got != networks {
		t.Error(got)
	}
	if uncaptured := testutil.ToFloat64(registry.metrics.uncaptured); uncaptured != 1 {
		t.Errorf("%v networks cannot be captured, want 1", uncaptured)
	}
	if overlays := fmt.Sprint(registry.Overlays()); overlays != "[{4097 4789} {4098 4789}]" {
		t.Error(overlays)
	}
	if logs := registry.Logs(); len(logs) != 1 || logs[0].ContainerID != id || logs[0].Driver != "json-file" ||
		!strings.HasSuffix(logs[0].Path, "-json.log") {
		t.Errorf("logs %v", logs)
	}
	if status := registry.Status(id); !status.Known || !status.Running || status.Excluded {
		t.Errorf("%+v", status)
	}
}

// TestAnAddressStaysWithItsLastContainerUntilAnotherTakesIt: a session may end after its container has ended,
// and must still find it.
func TestAnAddressStaysWithItsLastContainerUntilAnotherTakesIt(t *testing.T) {
	docker, now := newFakeDocker(t), time.Now().Add(time.Second).UnixNano()
	id := docker.addContainer(1, "one", nil, "172.17.0.2")
	registry, producer := run(t, docker, nil)
	one := registry.ByID(id)
	docker.addContainer(1, "one", nil) // the API reports no address of a stopped container
	docker.sendEvent("container", "die", id, now, map[string]string{"exitCode": "137"})
	event := producer.next(t)
	if event.Dataset != pipeline.Dataset_CONTAINER || event.Change.Action != "die" || event.Change.ExitCode != 137 ||
		event.Outcome != pipeline.Outcome_FAILURE || event.Container != one || event.Timestamp != now || len(event.Id) != 16 {
		t.Errorf("%v", event)
	}
	if registry.ByIP(ip("172.17.0.2")) != one || registry.Status(id).Running {
		t.Error("the address expired at once")
	}
	docker.remove(id)
	docker.sendEvent("container", "destroy", id, now+1, nil)
	producer.next(t)
	if registry.ByIP(ip("172.17.0.2")) != one || registry.ByID(id) != one || len(registry.Logs()) != 0 {
		t.Error("no tombstone is left")
	}
	two := docker.addContainer(2, "two", nil, "172.17.0.2")
	docker.sendEvent("container", "start", two, now+2, nil)
	producer.next(t)
	if registry.ByIP(ip("172.17.0.2")).GetName() != "two" || registry.ByID(id) != one {
		t.Error("the address was not taken over")
	}
	registry.expireEntries(time.Now().Add(time.Hour))
	if registry.ByID(id) != nil || registry.ByIP(ip("172.17.0.2")).GetName() != "two" {
		t.Error("the tombstone is still there, or too much went")
	}
}

// TestAddressesAreResolvedByTime: an address belongs to a container from its connection to its end, to the
// nanosecond. It is not final before the API has reported its new container.
func TestAddressesAreResolvedByTime(t *testing.T) {
	docker := newFakeDocker(t)
	id := docker.addContainer(1, "one", nil, "172.17.0.2")
	registry, producer := run(t, docker, nil)
	now := time.Now().UnixNano()
	check := func(addr string, at int64, name string, final bool) {
		t.Helper()
		if container, ok := registry.Resolve(ip(addr), at); container.GetName() != name || ok != final {
			t.Errorf("%s: %q, final %v; want %q, %v", addr, container.GetName(), ok, name, final)
		}
	}
	check("172.17.0.2", now, "one", true)
	check("172.17.0.3", now, "", false) // of no container yet
	check("172.17.0.1", now, "", true)  // the host's
	check("192.0.2.1", now, "", true)   // not Docker's
	docker.addContainer(1, "one", nil)
	docker.sendEvent("container", "die", id, now+100, map[string]string{"exitCode": "0"})
	producer.next(t)
	check("172.17.0.2", now+100, "one", true) // its own last events
	check("172.17.0.2", now+101, "", false)
	docker.remove(id)
	docker.sendEvent("container", "destroy", id, now+110, nil)
	producer.next(t)

	// The next container has the address within the same second. It sends before the start that the API reports.
	two := docker.addContainer(2, "two", nil, "172.17.0.2")
	docker.started(two, now+300)
	docker.sendEvent("network", "connect", strings.Repeat("1", 64), now+200, map[string]string{"container": two})
	docker.sendEvent("container", "start", two, now+310, nil)
	producer.next(t)
	check("172.17.0.2", now+100, "one", true)
	check("172.17.0.2", now+150, "", true) // nobody's
	check("172.17.0.2", now+199, "", true)
	check("172.17.0.2", now+200, "two", true)
	check("172.17.0.2", now+1e12, "two", true)
	docker.addContainer(2, "two", nil, "172.17.0.2", "172.18.0.2")
	docker.started(two, now+300)
	docker.sendEvent("network", "connect", strings.Repeat("ab", 32), now+500, map[string]string{"container": two})
	docker.sendEvent("container", "pause", two, now+510, nil)
	producer.next(t)
	check("172.18.0.2", now+499, "", true)
	docker.addContainer(2, "two", nil, "172.18.0.2")
	docker.started(two, now+300)
	docker.sendEvent("network", "disconnect", strings.Repeat("1", 64), now+600, map[string]string{"container": two})
	docker.sendEvent("container", "unpause", two, now+610, nil)
	producer.next(t)
	check("172.17.0.2", now+600, "two", true)
	check("172.17.0.2", now+601, "", false)
	check("172.18.0.2", now+700, "two", true)
}

// TestAddressOfContainerWithoutConnectEvent: the start of a container that ran before the collector is only that of its
// process. It may have sent somewhat earlier, but not while another container had the address.
func TestAddressOfContainerWithoutConnectEvent(t *testing.T) {
	docker := newFakeDocker(t)
	now := time.Now().UnixNano()
	one := docker.addContainer(1, "one", nil, "172.17.0.2")
	docker.started(one, now-10e9)
	registry, producer := run(t, docker, nil)
	check := func(at int64, want string) {
		t.Helper()
		if container, _ := registry.Resolve(ip("172.17.0.2"), at); container.GetName() != want {
			t.Errorf("%q, want %q", container.GetName(), want)
		}
	}
	check(now-11e9-1, "")
	check(now-11e9, "one")
	docker.addContainer(1, "one", nil)
	docker.sendEvent("container", "die", one, now, nil)
	producer.next(t)
	two := docker.addContainer(2, "two", nil, "172.17.0.2")
	docker.started(two, now+5e8)
	docker.sendEvent("container", "start", two, now+6e8, nil)
	producer.next(t)
	check(now, "one")
	check(now+1, "two")
}

// TestAddressOfAnEndThatWasMissed: a container that ended while nobody followed the events had its address until the
// end that the API reports, not until the list was read again.
func TestAddressOfAnEndThatWasMissed(t *testing.T) {
	docker := newFakeDocker(t)
	now := time.Now().UnixNano()
	one := docker.addContainer(1, "one", nil, "172.17.0.2")
	docker.started(one, now-60e9)
	registry, _ := run(t, docker, nil)
	_ = docker.server.Close()
	docker.addContainer(1, "one", nil)
	docker.started(one, now-60e9)
	docker.finished(one, now-30e9)
	changed := registry.Subscribe()
	docker.serve()
	select {
	case <-changed:
	case <-time.After(20 * time.Second):
		t.Fatal("the list was not read again")
	}
	for at, want := range map[int64]string{
		now - 61e9 - 1: "", now - 60e9: "one", now - 30e9: "one", now - 30e9 + 1: "", now: "",
	} {
		if container, _ := registry.Resolve(ip("172.17.0.2"), at); container.GetName() != want {
			t.Errorf("%d s ago: %q, want %q", (now-at)/1e9, container.GetName(), want)
		}
	}
}

// TestLabelsAndAddressesAreInOrder: the API has labels and networks in objects, whose order is random. In the event
// they are in one order, once each.
func TestLabelsAndAddressesAreInOrder(t *testing.T) {
	docker := newFakeDocker(t)
	labels, addresses := map[string]string{}, []string{"fd00:18::2"}
	for i := range 12 { // the values of later keys are shorter
		labels[fmt.Sprintf("key-%02d", i)] = strings.Repeat("v", 40-3*i)
		addresses = append(addresses, fmt.Sprintf("172.17.0.%d", 2+i), fmt.Sprintf("172.17.0.%d", 20-i))
	}
	id := docker.addContainer(1, "web", labels, addresses...)
	registry, _ := run(t, docker, nil)
	container := registry.ByID(id)
	byKey := func(a, b *pipeline.Label) int { return strings.Compare(a.Key, b.Key) }
	if len(container.GetLabels()) != 12 || !slices.IsSortedFunc(container.Labels, byKey) {
		t.Errorf("labels %v", container.GetLabels())
	}
	var want []string
	for i := range 19 {
		want = append(want, fmt.Sprintf("172.17.0.%d", 2+i))
	}
	if want = append(want, "fd00:18::2"); !slices.Equal(container.GetIp(), want) {
		t.Errorf("addresses %v, want %v", container.GetIp(), want)
	}
}

// TestAddressOfTwoContainersNamesNone: two networks may use the same addresses.
func TestAddressOfTwoContainersNamesNone(t *testing.T) {
	docker := newFakeDocker(t)
	docker.addContainer(1, "one", nil, "172.17.0.2")
	docker.addContainer(2, "two", nil, "172.17.0.2")
	registry, _ := run(t, docker, nil)
	if container, final := registry.Resolve(ip("172.17.0.2"), time.Now().UnixNano()); container != nil || !final {
		t.Errorf("%v, final %v", container, final)
	}
}

// TestOwnersOfAddressesAreBounded: containers that come and go in any number, and addresses that one container gets and
// loses, are forgotten, the oldest first, and counted.
func TestOwnersOfAddressesAreBounded(t *testing.T) {
	registry := New(Default(), slog.New(slog.DiscardHandler), nil)
	registry.mu.Lock()
	for i := range 3 * maxTombstones {
		created := &entry{container: &pipeline.Container{Id: fmt.Sprint(i)}, running: true, endpoints: []endpoint{{ip: ip("172.17.0.2")}}}
		registry.noteConnected(created.container.Id, int64(10*i+1))
		registry.putEntry(created, int64(10*i+1))
		registry.markStopped(created, int64(10*i+5), true)
		registry.trimTombstones()
	}
	for i := range 3 * maxHoldings {
		created := &entry{container: &pipeline.Container{Id: "x"}, running: true}
		if i%2 == 0 {
			created.endpoints = []endpoint{{ip: ip("172.17.0.3")}}
		}
		registry.putEntry(created, int64(10*i+1))
	}
	registry.publish()
	entries, held := len(registry.entries), len(registry.entries["x"].holdings)
	registry.mu.Unlock()
	dropped := testutil.ToFloat64(registry.metrics.dropped.WithLabelValues("too_many_removed"))
	if entries > maxTombstones+1 || dropped != float64(3*maxTombstones+1-entries) || held > maxHoldings {
		t.Errorf("%d containers and %d holdings are known, %v dropped", entries, held, dropped)
	}
	newest := int64(10 * (3*maxTombstones - 1))
	if container, _ := registry.Resolve(ip("172.17.0.2"), newest+3); container.GetId() != fmt.Sprint(3*maxTombstones-1) {
		t.Errorf("the newest is %v", container)
	}
	if len(registry.connected) > maxTombstones {
		t.Errorf("%d connections are known", len(registry.connected))
	}
}

// TestSenderIsKnownByMAC: a frame with the address of a container and the MAC address of another one, or of none, is
// not that container's. Neither is one with the address of the host.
func TestSenderIsKnownByMAC(t *testing.T) {
	docker := newFakeDocker(t)
	docker.addContainer(1, "victim", nil, "172.17.0.2")
	docker.addContainer(2, "spoofer", nil, "172.17.0.3")
	docker.addContainer(3, "macless", nil, "172.17.0.4")
	docker.setMAC(1, "02:42:ac:11:00:02")
	docker.setMAC(2, "02:42:ac:11:00:03")
	registry, _ := run(t, docker, nil)
	check := func(addr string, mac MAC, at time.Time, wantSpoofed bool, want string) {
		t.Helper()
		if real, spoofed := registry.CheckSender(ip(addr), mac, at.UnixNano()); real.GetName() != want || spoofed != wantSpoofed {
			t.Errorf("%s from %x: spoofed %v, by %q", addr, mac, spoofed, real.GetName())
		}
	}
	now := time.Now()
	check("172.17.0.2", 0x0242ac110002, now, false, "")
	check("::ffff:172.17.0.2", 0x0242ac110003, now, true, "spoofer")
	check("172.17.0.2", 0x0a0b0c0d0e0f, now, true, "")
	check("172.17.0.4", 0x0242ac110003, now, false, "") // its MAC address is not known
	check("172.17.0.1", 0x0242ac110003, now, true, "spoofer")
	check("172.17.0.9", 0x0242ac110003, now, false, "") // of no container
	check("192.0.2.1", 0x0242ac110003, now, false, "")
}

// TestAnUnchangedContainerKeepsItsPointer: the shipper interns containers by pointer.
func TestAnUnchangedContainerKeepsItsPointer(t *testing.T) {
	docker := newFakeDocker(t)
	id := docker.addContainer(1, "one", map[string]string{"k": "v"}, "172.17.0.2")
	registry, producer := run(t, docker, nil)
	container := registry.ByID(id)
	docker.sendEvent("container", "update", id, 1e18, nil)
	producer.next(t)
	if registry.ByID(id) != container {
		t.Error("another pointer for the same")
	}
	docker.addContainer(1, "renamed", nil, "172.17.0.2")
	docker.sendEvent("container", "rename", id, 1e18+1, nil)
	if event := producer.next(t); registry.ByID(id).GetName() != "renamed" || event.Container.GetName() != "renamed" {
		t.Error("the new name is not known")
	}
}

// TestBrokenStreamIsFollowedByANewList: after the stream of events has broken, the list of containers is read
// again, and the events since the last one are shipped once.
func TestBrokenStreamIsFollowedByANewList(t *testing.T) {
	docker := newFakeDocker(t)
	one := docker.addContainer(1, "one", nil, "172.17.0.2")
	registry, producer := run(t, docker, nil)
	docker.sendEvent("container", "pause", one, 1e18, nil)
	producer.next(t)
	_ = docker.server.Close()
	docker.remove(one)
	two := docker.addContainer(2, "two", nil, "172.17.0.3")
	docker.sendEvent("container", "start", two, 1e18+5, nil)
	changed := registry.Subscribe()
	docker.serve()
	if event := producer.next(t); event.Change.Action != "start" || event.Container.GetName() != "two" {
		t.Errorf("%v", event)
	}
	<-changed
	if registry.ByID(two) == nil || len(registry.Logs()) != 1 || registry.Status(one).Running {
		t.Error("the list was not read again")
	}
	docker.sendEvent("container", "unpause", two, 1e18+6, nil)
	if event := producer.next(t); event.Change.Action != "unpause" { // and no pause or start again
		t.Errorf("%v", event)
	}
}

// TestChangesHaveActionAndOutcome: an event has the action without its arguments, which may hold secrets.
func TestChangesHaveActionAndOutcome(t *testing.T) {
	docker := newFakeDocker(t)
	id := docker.addContainer(1, "one", nil, "172.17.0.2")
	_, producer := run(t, docker, nil)
	check := func(action, want string, outcome pipeline.Outcome, attrs map[string]string) {
		t.Helper()
		docker.sendEvent("container", action, id, 1e18+int64(len(producer.list)), attrs)
		if event := producer.next(t); event.Change.Action != want || event.Outcome != outcome {
			t.Errorf("%s: %v", action, event)
		}
	}
	check("exec_create: mysql -psecret", "exec_create", 0, nil)
	check("health_status: healthy", "health_status", pipeline.Outcome_SUCCESS, nil)
	check("health_status: unhealthy", "health_status", pipeline.Outcome_FAILURE, nil)
	check("oom", "oom", pipeline.Outcome_FAILURE, nil)
	check("die", "die", pipeline.Outcome_SUCCESS, map[string]string{"exitCode": "0"})
	check("die", "die", 0, map[string]string{"exitCode": "x"})
}

// TestLabelsExcludeNoLogByDefault: the labels of a container, which are those of its image, switch its log off only if
// the operator has named them.
func TestLabelsExcludeNoLogByDefault(t *testing.T) {
	labels := map[string]string{"tidegate.exclude": "true", "tidegate.logs": "false", "exclude": "yes"}
	check := func(want int, excluded ...string) {
		t.Helper()
		docker := newFakeDocker(t)
		id := docker.addContainer(3, "web", labels, "172.17.0.4")
		registry, producer := run(t, docker, func(c *Config) { c.ExcludeLabels = append(c.ExcludeLabels, excluded...) })
		docker.sendEvent("container", "oom", id, 1e18, nil)
		if event := producer.next(t); slices.Contains(event.Tags, pipeline.TagLogExcluded) != (want == 0) {
			t.Errorf("%q: the event of the container has the tags %v", excluded, event.Tags)
		}
		if registry.Status(id).Excluded != (want == 0) || len(registry.Logs()) != want {
			t.Errorf("%q: %d logs are read, want %d", excluded, len(registry.Logs()), want)
		}
		if count := testutil.ToFloat64(registry.metrics.excluded); count != float64(1-want) {
			t.Errorf("%q: %v exclusions are counted", excluded, count)
		}
	}
	check(1)
	check(1, "tidegate.exclude=yes", "other")
	check(0, "tidegate.exclude=true")
	check(0, "tidegate.exclude")
}

func TestExclusion(t *testing.T) {
	docker := newFakeDocker(t)
	self := docker.addContainer(0xabcdef012345, "tidegate", nil, "172.17.0.2")
	byName := docker.addContainer(2, "noise-1", nil, "172.17.0.3")
	byLabel := docker.addContainer(3, "x", map[string]string{"skip": "yes"}, "172.17.0.4")
	other := docker.addContainer(4, "web", map[string]string{"skip": "no"}, "172.17.0.5")
	registry, _ := run(t, docker, func(c *Config) {
		c.Self, c.Exclude, c.ExcludeLabels = self, []string{"noise-*"}, []string{"skip=yes"}
	})
	for id, want := range map[string]bool{self: true, byName: true, byLabel: true, other: false} {
		if registry.Status(id).Excluded != want {
			t.Errorf("%s: %v", registry.ByID(id).GetName(), !want)
		}
	}
	if len(registry.Logs()) != 1 || registry.ByIP(ip("172.17.0.3")).GetName() != "noise-1" {
		t.Error("what is excluded has no log to follow, but a name")
	}
	if excluded := testutil.ToFloat64(registry.metrics.excluded); excluded != 3 {
		t.Errorf("%v excluded containers are counted, want 3", excluded)
	}

	// Each exclusion is logged once, however often the container is inspected.
	var log bytes.Buffer
	registry.log = slog.New(slog.NewTextHandler(&log, nil))
	registry.mu.Lock()
	for range 3 {
		for _, id := range []string{"a", "b"} {
			created := &entry{container: &pipeline.Container{Id: id, Name: "n", Image: "i"}, running: true}
			created.excludedBy = registry.excludedBy(id, "n", map[string]string{"skip": "yes"})
			created.excluded = created.excludedBy != ""
			registry.putEntry(created, 0)
		}
	}
	registry.mu.Unlock()
	if count := strings.Count(log.String(), "exclude_labels: skip=yes"); count != 2 {
		t.Errorf("%d exclusions are logged, want 2: %s", count, log.String())
	}

	// By default no label of an image switches the logs of its containers off.
	unlabelled := New(Default(), slog.New(slog.DiscardHandler), nil)
	if unlabelled.isExcluded("x", "web", map[string]string{"tidegate.exclude": "true"}) {
		t.Error("a label excludes a container although none is configured")
	}
	only := New(Config{Include: []string{"web"}}, slog.New(slog.DiscardHandler), nil)
	if only.isExcluded("x", "web", nil) || !only.isExcluded("x", "db", nil) {
		t.Error("include")
	}
}

// TestRunWaitsWithoutAnAPI: without the API of Docker, Run waits, and lookups find nothing.
func TestRunWaitsWithoutAnAPI(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cfg := Default()
	cfg.DockerHost = "unix://" + filepath.Join(t.TempDir(), "none.sock")
	registry := New(cfg, slog.New(slog.DiscardHandler), nil)
	done := make(chan error)
	go func() { done <- registry.Run(ctx, &fakeProducer{}) }()
	if registry.ByID("x") != nil || registry.ByIP(ip("1.2.3.4")) != nil || !registry.Enabled() {
		t.Error("something is known")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	cfg.DockerHost = ""
	registry = New(cfg, slog.New(slog.DiscardHandler), nil)
	<-registry.Ready()
	if registry.Enabled() {
		t.Error("enabled")
	}
}

func TestTheOwnContainerIsFoundInMountsAndCgroups(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	other := strings.Repeat("f", 64)
	mounts := "25 1 8:1 / / rw - ext4 /dev/sda rw\n" +
		"31 25 0:44 / /var/lib/docker/containers/" + other + "/mounts/shm rw - tmpfs shm rw\n" +
		"32 25 8:1 /var/lib/docker/containers /host/containers ro - ext4 /dev/sda rw\n"
	if got := selfFromMounts(mounts); got != "" {
		t.Error(got)
	}
	own := "33 25 8:1 /var/lib/docker/containers/" + id + "/hostname /etc/hostname rw - ext4 /dev/sda rw\n"
	if got := selfFromMounts(mounts + own); got != id {
		t.Error(got)
	}
	for in, want := range map[string]string{
		"0::/\n":                                     "",
		"0::/user.slice\n1:x:/y\n":                   "",
		"4:memory:/docker/" + id + "\n":              id,
		"0::/system.slice/docker-" + id + ".scope\n": id,
	} {
		if got := selfFromCgroup(in); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}

func TestDefaultsAreGoodAndBadOnesAreAllNamed(t *testing.T) {
	if errs := Default().Check(); len(errs) != 0 {
		t.Error(errs)
	}
	bad := Config{
		DockerHost: "/var/run/docker.sock", KeepAfterExit: -1,
		Include: []string{"["}, Exclude: []string{"["}, ExcludeLabels: []string{"=x"},
	}
	if errs := bad.Check(); len(errs) != 5 {
		t.Error(errs)
	}
}

// BenchmarkByIP measures the lookup of a session's address among 1000 containers.
func BenchmarkByIP(b *testing.B) {
	registry := New(Config{}, slog.New(slog.DiscardHandler), nil)
	for i := range 1000 {
		container := &pipeline.Container{Id: fmt.Sprint(i)}
		addr := netip.AddrFrom4([4]byte{172, 17, byte(i >> 8), byte(i)})
		registry.entries[container.Id] = &entry{container: container, running: true, ips: []netip.Addr{addr}}
	}
	registry.mu.Lock()
	registry.publish()
	registry.mu.Unlock()
	at := ip("172.17.2.1")
	b.ReportAllocs()
	for b.Loop() {
		if registry.ByIP(at) == nil {
			b.Fatal("not known")
		}
	}
}
