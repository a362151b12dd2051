// Package containers knows who is who on this host: which container has which address, name, image, labels and log file.
//
// In flows what the Docker API says: a list at the start, then its stream of events; after every break of the stream the list is
// read again. Out flow two things. Other parts of the collector ask the Registry (sessions by address, on the path of every packet;
// logs by id), and each event of a container (start, die, oom, …) is shipped as an event of dataset container.
//
// The API is used for metadata only. Where it is away the rest of the collector goes on without names: Run says so once, and tries
// again. A container that is gone is remembered for a while (Config.Tombstones), because the last event of a session comes after its
// container's end; its address belongs to it until another container takes it.
package containers

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline"
)

// A LogFile is where dockerd writes what a container says.
type LogFile struct {
	ContainerID string
	Path        string // as dockerd names it; "" where the driver keeps no file
	Driver      string // json-file, local, journald, none, …
}

// A Status is what logs must know of a container before and while its file is read.
type Status struct {
	Known    bool
	Running  bool
	Excluded bool // by configuration, or because it is the collector itself
}

// Registry is what is known of the containers of this host. All its methods may be called by any goroutine.
type Registry struct {
	cfg  Config
	log  *slog.Logger
	self string // id or name, "" not found
	now  func() time.Time

	view atomic.Pointer[view] // what readers see; replaced as a whole

	mu          sync.Mutex // of what is below
	entries     map[string]*entry
	networks    []network
	subscribers []chan struct{}

	ready     chan struct{}
	readyOnce sync.Once
	metrics   metrics
}

// An entry is what is known of one container. It is owned by the goroutine in Run; what readers see of it is immutable.
type entry struct {
	container *pipeline.Container
	ips       []netip.Addr
	log       LogFile
	running   bool
	ended     time.Time // when it stopped to run; zero while it runs or has never run
	removed   bool      // it exists no more: forgotten after Config.Tombstones
	exclude   bool
}

type network struct {
	bridge  string
	subnets []netip.Prefix
	routers []netip.Addr // the host's own addresses in them
}

// A view is a snapshot: maps and slices in it are never written again.
type view struct {
	byID    map[string]*entryView
	byIP    map[netip.Addr]holder
	logs    []LogFile
	all     []*pipeline.Container
	bridges []string
	subnets []netip.Prefix
	routers map[netip.Addr]bool // addresses in them that are the host's
}

// An holder has an address, or had it last.
type holder struct {
	c     *pipeline.Container
	ended int64 // ns; 0: it runs
}

type entryView struct {
	c      *pipeline.Container
	status Status
}

type metrics struct {
	events    *prometheus.CounterVec
	dropped   *prometheus.CounterVec
	errors    *prometheus.CounterVec
	known     prometheus.Gauge
	connected prometheus.Gauge
}

// New returns a Registry that knows nothing until Run is called.
func New(cfg Config, log *slog.Logger, reg prometheus.Registerer) *Registry {
	r := &Registry{
		cfg: cfg, log: log, now: time.Now, entries: map[string]*entry{}, ready: make(chan struct{}),
		metrics: metrics{
			events:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tidegate_containers_events_total", Help: "Events of containers read from the Docker API."}, []string{"action"}),
			dropped:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tidegate_containers_dropped_total", Help: "Events and metadata of containers that were not kept."}, []string{"reason"}),
			errors:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tidegate_containers_errors_total", Help: "Calls of the Docker API that did not succeed."}, []string{"call"}),
			known:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "tidegate_containers_known", Help: "Containers in the registry, with those that ended a short while ago."}),
			connected: prometheus.NewGauge(prometheus.GaugeOpts{Name: "tidegate_containers_api_connected", Help: "1 while the stream of events of the Docker API is open."}),
		},
	}
	if reg != nil {
		reg.MustRegister(r.metrics.events, r.metrics.dropped, r.metrics.errors, r.metrics.known, r.metrics.connected)
	}
	switch cfg.Self {
	case "auto":
		r.self = ownContainer()
	default:
		r.self = cfg.Self
	}
	r.view.Store(&view{})
	if cfg.DockerHost == "" {
		r.setReady()
	}
	return r
}

// Enabled tells whether there is an API to ask at all.
func (r *Registry) Enabled() bool { return r.cfg.DockerHost != "" }

// Ready is closed when the first list has been read, at once without an API.
func (r *Registry) Ready() <-chan struct{} { return r.ready }

func (r *Registry) setReady() { r.readyOnce.Do(func() { close(r.ready) }) }

// ByID finds a container by its full id; nil if it is not known. The result is immutable.
func (r *Registry) ByID(id string) *pipeline.Container {
	if e := r.view.Load().byID[id]; e != nil {
		return e.c
	}
	return nil
}

// ByIP finds the container that has an address, or had it last; nil if none. It takes no lock: it is asked for every session.
// The result is immutable.
func (r *Registry) ByIP(ip netip.Addr) *pipeline.Container { return r.view.Load().byIP[ip.Unmap()].c }

// Resolve tells which container had an address at a time, ns since 1970. It is not settled while another answer may still come: the
// address is one of Docker's, and who is known to have had it had ended before, for the API tells of a start a moment after the
// first packets. Who takes no lock.
func (r *Registry) Resolve(ip netip.Addr, at int64) (c *pipeline.Container, settled bool) {
	v := r.view.Load()
	ip = ip.Unmap()
	if o, ok := v.byIP[ip]; ok && (o.ended == 0 || at <= o.ended) {
		return o.c, true
	}
	if v.routers[ip] {
		return nil, true
	}
	for _, s := range v.subnets {
		if s.Contains(ip) {
			return nil, false
		}
	}
	return nil, true
}

// Status tells whether a container runs and whether it is to be followed. The collector's own container is known without an API.
func (r *Registry) Status(id string) Status {
	if e := r.view.Load().byID[id]; e != nil {
		return e.status
	}
	return Status{Excluded: r.isSelf(id, "")}
}

// Containers lists all that are known, with those that ended a short while ago.
func (r *Registry) Containers() []*pipeline.Container { return r.view.Load().all }

// Logs lists the log files of the containers that exist and are not excluded.
func (r *Registry) Logs() []LogFile { return r.view.Load().logs }

// Bridges lists the interfaces of Docker's bridge networks: docker0, br-<12 hex digits>, or as configured there.
func (r *Registry) Bridges() []string { return r.view.Load().bridges }

// Subnets lists the address ranges of Docker's bridge networks.
func (r *Registry) Subnets() []netip.Prefix { return r.view.Load().subnets }

// Subscribe returns a channel that holds a token after anything changed. It is never closed.
func (r *Registry) Subscribe() <-chan struct{} {
	ch := make(chan struct{}, 1)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.subscribers = append(r.subscribers, ch)
	return ch
}

// publish makes the state visible to readers and tells them. r.mu is held.
func (r *Registry) publish() {
	v := &view{
		byID: make(map[string]*entryView, len(r.entries)),
		byIP: make(map[netip.Addr]holder, len(r.entries)), routers: map[netip.Addr]bool{},
	}
	newest := make(map[netip.Addr]*entry, len(r.entries))
	for id, e := range r.entries {
		v.byID[id] = &entryView{c: e.container, status: Status{Known: true, Running: e.running, Excluded: e.exclude}}
		v.all = append(v.all, e.container)
		if !e.removed && !e.exclude {
			v.logs = append(v.logs, e.log)
		}
		for _, ip := range e.ips {
			if o := newest[ip]; o == nil || e.outranks(o) {
				newest[ip] = e
				v.byIP[ip] = e.holder()
			}
		}
	}
	for _, n := range r.networks {
		v.bridges = append(v.bridges, n.bridge)
		v.subnets = append(v.subnets, n.subnets...)
		for _, ip := range n.routers {
			v.routers[ip] = true
		}
	}
	r.view.Store(v)
	r.metrics.known.Set(float64(len(r.entries)))
	for _, ch := range r.subscribers {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

func (e *entry) holder() holder {
	o := holder{c: e.container}
	if !e.running && !e.ended.IsZero() {
		o.ended = e.ended.UnixNano()
	}
	return o
}

// outranks tells whether e has a better claim to an address than o: it runs, or it ended later.
func (e *entry) outranks(o *entry) bool {
	if e.running != o.running {
		return e.running
	}
	return e.ended.After(o.ended)
}

// expireEntries forgets what ended longer ago than Config.Tombstones: addresses first of all, and containers that exist no more.
func (r *Registry) expireEntries(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	changed := false
	for id, e := range r.entries {
		if e.running || now.Sub(e.ended) < r.cfg.KeepAfterExit {
			continue
		}
		if e.removed {
			delete(r.entries, id)
			changed = true
		} else if len(e.ips) > 0 {
			e.ips = nil
			changed = true
		}
	}
	if changed {
		r.publish()
	}
}

func (r *Registry) isExcluded(id, name string, labels map[string]string) bool {
	if r.isSelf(id, name) {
		return true
	}
	if len(r.cfg.Include) > 0 && !matchesAny(r.cfg.Include, name) {
		return true
	}
	if matchesAny(r.cfg.Exclude, name) {
		return true
	}
	for _, l := range r.cfg.ExcludeLabels {
		key, want, valued := strings.Cut(l, "=")
		if have, ok := labels[key]; ok && (!valued || have == want) {
			return true
		}
	}
	return false
}

// isSelf tells whether a container is the collector's own, whose log is not followed: it would feed itself.
func (r *Registry) isSelf(id, name string) bool {
	if r.self == "" {
		return false
	}
	return r.self == name || len(r.self) >= 12 && strings.HasPrefix(id, r.self)
}

func matchesAny(globs []string, name string) bool {
	for _, g := range globs {
		if ok, _ := path.Match(g, name); ok {
			return true
		}
	}
	return false
}

// interrupted tells that err only says that ctx ended.
func interrupted(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, context.Canceled)
}
