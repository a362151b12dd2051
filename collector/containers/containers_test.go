package containers

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"tidegate/collector"
	"tidegate/pipeline"
)

// An fakeDocker is a Docker daemon, as far as the Registry uses it, on a socket of its own.
type fakeDocker struct {
	t      *testing.T
	path   string
	mu     sync.Mutex
	boxes  map[string]map[string]any
	nets   []map[string]any
	past   []map[string]any // events, all that ever were: a new stream tells those since it asks for
	stream map[chan map[string]any]bool
	server *http.Server
	lists  int
}

func newFakeDocker(t *testing.T) *fakeDocker {
	a := &fakeDocker{t: t, path: filepath.Join(t.TempDir(), "docker.sock"), boxes: map[string]map[string]any{}, stream: map[chan map[string]any]bool{}}
	a.nets = []map[string]any{
		{"Name": "bridge", "Id": strings.Repeat("1", 64), "Driver": "bridge", "Options": map[string]string{"com.docker.network.bridge.name": "docker0"}, "IPAM": ipam("172.17.0.0/16")},
		{"Name": "shop", "Id": strings.Repeat("ab", 32), "Driver": "bridge", "IPAM": ipam("172.18.0.0/16", "fd00:18::/64")},
		{"Name": "host", "Id": strings.Repeat("2", 64), "Driver": "host", "IPAM": ipam()},
	}
	a.serve()
	return a
}

func ipam(subnets ...string) map[string]any {
	list := []map[string]string{}
	for _, s := range subnets {
		list = append(list, map[string]string{"Subnet": s})
	}
	return map[string]any{"Driver": "default", "Config": list}
}

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

func (a *fakeDocker) json(out io.Writer, v any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	_ = json.NewEncoder(out).Encode(v)
}

func (a *fakeDocker) events(w http.ResponseWriter, req *http.Request) {
	ch := make(chan map[string]any, 100)
	a.mu.Lock()
	if since := req.URL.Query().Get("since"); since != "" {
		var s, ns int64
		_, _ = fmt.Sscanf(since, "%d.%d", &s, &ns)
		for _, m := range a.past {
			if m["timeNano"].(int64) >= s*1e9+ns {
				ch <- m
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
		case m := <-ch:
			a.json(w, m)
			w.(http.Flusher).Flush()
		case <-req.Context().Done():
			return
		}
	}
}

func (a *fakeDocker) sendEvent(kind, action, id string, at int64, attrs map[string]string) {
	m := map[string]any{"Type": kind, "Action": action, "Actor": map[string]any{"ID": id, "Attributes": attrs}, "time": at / 1e9, "timeNano": at}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.past = append(a.past, m)
	for ch := range a.stream {
		ch <- m
	}
}

// addContainer makes a container. Without addresses it does not run.
func (a *fakeDocker) addContainer(n int, name string, labels map[string]string, ips ...string) string {
	id := fmt.Sprintf("%064x", n)
	nets := map[string]any{}
	for i, ip := range ips {
		e := map[string]any{"NetworkID": "n"}
		if strings.Contains(ip, ":") {
			e["GlobalIPv6Address"] = ip
		} else {
			e["IPAddress"] = ip
		}
		nets[fmt.Sprint("net", i)] = e
	}
	finished := "0001-01-01T00:00:00Z"
	a.mu.Lock()
	defer a.mu.Unlock()
	a.boxes[id] = map[string]any{
		"Id": id, "Name": "/" + name, "Image": "sha256:abc", "LogPath": "/var/lib/docker/containers/" + id + "/" + id + "-json.log",
		"State":           map[string]any{"Running": len(ips) > 0, "FinishedAt": finished},
		"HostConfig":      map[string]any{"LogConfig": map[string]any{"Type": "json-file"}},
		"Config":          map[string]any{"Image": "nginx:1.25", "Labels": labels},
		"NetworkSettings": map[string]any{"Networks": nets},
	}
	return id
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
func (l *fakeProducer) Prune(func(string) bool)                 {}

func (l *fakeProducer) TryShip(event *pipeline.Event) bool {
	l.mu.Lock()
	l.list = append(l.list, event)
	l.mu.Unlock()
	l.ch <- event
	return true
}
func (l *fakeProducer) Close() {}

func run(t *testing.T, a *fakeDocker, change func(*Config)) (*Registry, *fakeProducer) {
	t.Helper()
	cfg := Default()
	cfg.DockerHost, cfg.Self, cfg.Collector = "unix://"+a.path, "", pipeline.ID{7}
	if change != nil {
		change(&cfg)
	}
	registry := New(cfg, slog.New(slog.DiscardHandler), nil)
	l := &fakeProducer{ch: make(chan *pipeline.Event, 100)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- registry.Run(ctx, l) }()
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
	return registry, l
}

func (l *fakeProducer) next(t *testing.T) *pipeline.Event {
	t.Helper()
	select {
	case e := <-l.ch:
		return e
	case <-time.After(20 * time.Second):
		t.Fatal("no event came")
		return nil
	}
}

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

func TestContainersAreKnownByIDAndByEveryAddress(t *testing.T) {
	a := newFakeDocker(t)
	id := a.addContainer(1, "web", map[string]string{"b": "2", "a": "1"}, "172.17.0.2", "172.18.0.2", "fd00:18::2")
	registry, _ := run(t, a, nil)
	container := registry.ByID(id)
	if container.GetName() != "web" || container.Image != "nginx:1.25" || container.ImageId != "sha256:abc" || len(container.Ip) != 3 {
		t.Fatalf("%v", container)
	}
	if len(container.Labels) != 2 || container.Labels[0].Key != "a" || container.Labels[1].Key != "b" {
		t.Errorf("labels %v", container.Labels)
	}
	for _, s := range []string{"172.17.0.2", "172.18.0.2", "fd00:18::2", "::ffff:172.17.0.2"} {
		if registry.ByIP(ip(s)) != container {
			t.Errorf("%s is not known", s)
		}
	}
	if got := fmt.Sprint(registry.Bridges(), registry.view.Load().subnets); got != "[br-abababababab docker0] [172.18.0.0/16 fd00:18::/64 172.17.0.0/16]" {
		t.Error(got)
	}
	if l := registry.Logs(); len(l) != 1 || l[0].ContainerID != id || l[0].Driver != "json-file" || !strings.HasSuffix(l[0].Path, "-json.log") {
		t.Errorf("logs %v", l)
	}
	if st := registry.Status(id); !st.Known || !st.Running || st.Excluded {
		t.Errorf("%+v", st)
	}
}

// TestAnAddressStaysWithItsLastContainerUntilAnotherTakesIt, because the end of a session comes after that of
// its container.
func TestAnAddressStaysWithItsLastContainerUntilAnotherTakesIt(t *testing.T) {
	fakeDocker := newFakeDocker(t)
	id := fakeDocker.addContainer(1, "one", nil, "172.17.0.2")
	registry, fakeProducer := run(t, fakeDocker, nil)
	one := registry.ByID(id)
	fakeDocker.addContainer(1, "one", nil) // the API tells no address of what does not run
	fakeDocker.sendEvent("container", "die", id, 1e18, map[string]string{"exitCode": "137"})
	event := fakeProducer.next(t)
	if event.Dataset != pipeline.Dataset_CONTAINER || event.Change.Action != "die" || event.Change.ExitCode != 137 || event.Outcome != pipeline.Outcome_FAILURE ||
		event.Container != one || event.Timestamp != 1e18 || len(event.Id) != 16 {
		t.Errorf("%v", event)
	}
	if registry.ByIP(ip("172.17.0.2")) != one || registry.Status(id).Running {
		t.Error("the address expired at once")
	}
	fakeDocker.remove(id)
	fakeDocker.sendEvent("container", "destroy", id, 1e18+1, nil)
	fakeProducer.next(t)
	if registry.ByIP(ip("172.17.0.2")) != one || registry.ByID(id) != one || len(registry.Logs()) != 0 {
		t.Error("no tombstone is left")
	}
	two := fakeDocker.addContainer(2, "two", nil, "172.17.0.2")
	fakeDocker.sendEvent("container", "start", two, 1e18+2, nil)
	fakeProducer.next(t)
	if registry.ByIP(ip("172.17.0.2")).GetName() != "two" || registry.ByID(id) != one {
		t.Error("the address was not taken over")
	}
	registry.expireEntries(time.Now().Add(time.Hour))
	if registry.ByID(id) != nil || registry.ByIP(ip("172.17.0.2")).GetName() != "two" {
		t.Error("the tombstone is still there, or too much went")
	}
}

// TestAddressesAreResolvedByTime: an address that is in use again is not settled before the API has reported
// its new container.
func TestAddressesAreResolvedByTime(t *testing.T) {
	fakeDocker := newFakeDocker(t)
	id := fakeDocker.addContainer(1, "one", nil, "172.17.0.2")
	registry, fakeProducer := run(t, fakeDocker, nil)
	check := func(addr string, at time.Time, name string, settled bool) {
		t.Helper()
		if c, ok := registry.Resolve(ip(addr), at.UnixNano()); c.GetName() != name || ok != settled {
			t.Errorf("%s: %q, settled %v; want %q, %v", addr, c.GetName(), ok, name, settled)
		}
	}
	ran := time.Now()
	check("172.17.0.2", ran, "one", true)
	check("172.17.0.3", ran, "", false) // nobody's yet
	check("172.17.0.1", ran, "", true)  // the host's
	check("192.0.2.1", ran, "", true)   // not Docker's
	fakeDocker.addContainer(1, "one", nil)
	fakeDocker.sendEvent("container", "die", id, 1e18, map[string]string{"exitCode": "0"})
	fakeProducer.next(t)
	check("172.17.0.2", ran, "one", true) // its own last events
	check("172.17.0.2", time.Now().Add(time.Second), "", false)
	two := fakeDocker.addContainer(2, "two", nil, "172.17.0.2")
	fakeDocker.sendEvent("container", "start", two, 1e18+2, nil)
	fakeProducer.next(t)
	check("172.17.0.2", time.Now(), "two", true)
}

// TestAnUnchangedContainerKeepsItsPointer, since the shipper interns containers by pointer.
func TestAnUnchangedContainerKeepsItsPointer(t *testing.T) {
	fakeDocker := newFakeDocker(t)
	id := fakeDocker.addContainer(1, "one", map[string]string{"k": "v"}, "172.17.0.2")
	registry, fakeProducer := run(t, fakeDocker, nil)
	container := registry.ByID(id)
	fakeDocker.sendEvent("container", "update", id, 1e18, nil)
	fakeProducer.next(t)
	if registry.ByID(id) != container {
		t.Error("another pointer for the same")
	}
	fakeDocker.addContainer(1, "renamed", nil, "172.17.0.2")
	fakeDocker.sendEvent("container", "rename", id, 1e18+1, nil)
	if e := fakeProducer.next(t); registry.ByID(id).GetName() != "renamed" || e.Container.GetName() != "renamed" {
		t.Error("the new name is not known")
	}
}

// TestABreakOfTheStreamIsHealedByANewList, and the events of the time between are shipped once.
func TestABreakOfTheStreamIsHealedByANewList(t *testing.T) {
	fakeDocker := newFakeDocker(t)
	one := fakeDocker.addContainer(1, "one", nil, "172.17.0.2")
	registry, fakeProducer := run(t, fakeDocker, nil)
	fakeDocker.sendEvent("container", "pause", one, 1e18, nil)
	fakeProducer.next(t)
	_ = fakeDocker.server.Close()
	fakeDocker.remove(one)
	two := fakeDocker.addContainer(2, "two", nil, "172.17.0.3")
	fakeDocker.sendEvent("container", "start", two, 1e18+5, nil)
	changed := registry.Subscribe()
	fakeDocker.serve()
	if e := fakeProducer.next(t); e.Change.Action != "start" || e.Container.GetName() != "two" {
		t.Errorf("%v", e)
	}
	<-changed
	if registry.ByID(two) == nil || len(registry.Logs()) != 1 || registry.Status(one).Running {
		t.Error("the list was not read again")
	}
	fakeDocker.sendEvent("container", "unpause", two, 1e18+6, nil)
	if e := fakeProducer.next(t); e.Change.Action != "unpause" { // and no pause or start again
		t.Errorf("%v", e)
	}
}

func TestEventsSayWhatTheyMayAndNoMore(t *testing.T) {
	fakeDocker := newFakeDocker(t)
	id := fakeDocker.addContainer(1, "one", nil, "172.17.0.2")
	_, fakeProducer := run(t, fakeDocker, nil)
	check := func(action, want string, outcome pipeline.Outcome, attrs map[string]string) {
		t.Helper()
		fakeDocker.sendEvent("container", action, id, 1e18+int64(len(fakeProducer.list)), attrs)
		if e := fakeProducer.next(t); e.Change.Action != want || e.Outcome != outcome {
			t.Errorf("%s: %v", action, e)
		}
	}
	check("exec_create: mysql -psecret", "exec_create", 0, nil)
	check("health_status: healthy", "health_status", pipeline.Outcome_SUCCESS, nil)
	check("health_status: unhealthy", "health_status", pipeline.Outcome_FAILURE, nil)
	check("oom", "oom", pipeline.Outcome_FAILURE, nil)
	check("die", "die", pipeline.Outcome_SUCCESS, map[string]string{"exitCode": "0"})
	check("die", "die", 0, map[string]string{"exitCode": "x"})
}

func TestExclusion(t *testing.T) {
	fakeDocker := newFakeDocker(t)
	self := fakeDocker.addContainer(0xabcdef012345, "tidegate", nil, "172.17.0.2")
	byName, byLabel, other := fakeDocker.addContainer(2, "noise-1", nil, "172.17.0.3"), fakeDocker.addContainer(3, "x", map[string]string{"skip": "yes"}, "172.17.0.4"), fakeDocker.addContainer(4, "web", map[string]string{"skip": "no"}, "172.17.0.5")
	registry, _ := run(t, fakeDocker, func(c *Config) {
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
	if only := New(Config{Include: []string{"web"}}, slog.New(slog.DiscardHandler), nil); only.isExcluded("x", "web", nil) || !only.isExcluded("x", "db", nil) {
		t.Error("include")
	}
}

// TestWithoutAnAPITheRestGoesOn: Run waits, and nothing is known.
func TestWithoutAnAPITheRestGoesOn(t *testing.T) {
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
	if got := selfFromMounts(mounts + "33 25 8:1 /var/lib/docker/containers/" + id + "/hostname /etc/hostname rw - ext4 /dev/sda rw\n"); got != id {
		t.Error(got)
	}
	for in, want := range map[string]string{
		"0::/\n": "", "4:memory:/docker/" + id + "\n": id, "0::/system.slice/docker-" + id + ".scope\n": id, "0::/user.slice\n1:x:/y\n": "",
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
	bad := Config{DockerHost: "/var/run/docker.sock", KeepAfterExit: -1, Include: []string{"["}, Exclude: []string{"["}, ExcludeLabels: []string{"=x"}}
	if errs := bad.Check(); len(errs) != 5 {
		t.Error(errs)
	}
}

// BenchmarkByIP measures a lookup that every session makes.
func BenchmarkByIP(b *testing.B) {
	registry := New(Config{}, slog.New(slog.DiscardHandler), nil)
	for i := range 1000 {
		c := &pipeline.Container{Id: fmt.Sprint(i)}
		registry.entries[c.Id] = &entry{container: c, running: true, ips: []netip.Addr{netip.AddrFrom4([4]byte{172, 17, byte(i >> 8), byte(i)})}}
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
