// Package containers keeps the metadata of this host's containers: addresses, name, image, labels and log
// file.
//
// The input is the responses of the Docker API: a list of all containers, then the stream of events; the list
// is read again after each break of the stream. There are two outputs. Other parts of the collector look
// containers up in the Registry: package sessions by address, for every session, and package logs by id. Each
// event of a container (start, die, oom, …) is also shipped as an event of dataset container.
//
// The API is used for metadata only. While it is unavailable the collector continues without names; Run logs
// that once and reconnects. A removed container is kept for Config.KeepAfterExit, because the last event of a
// session comes after its container's end. An address belongs to a container only for the time in which the container
// had it, from its connection to the network to its end; an address that no container, or more than one, had at a time
// has no name. Sorted by address, these times are the index of the view (addresses.go).
//
// # Goroutines and locks
//
// Run is one goroutine, the only one that changes entries and networks. It does so under Registry.mu and then
// publishes a view, a snapshot that is never changed again. Readers load the view and take no lock; mu also
// guards the list of subscribers.
//
// # States of an entry
//
//	running     it has its addresses
//	stopped     it had its addresses until it stopped; they are known until KeepAfterExit has passed (expireEntries)
//	removed     it does not exist any more; it is deleted when KeepAfterExit has passed
package containers

import (
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/collector/links"
	"tidegate/pipeline"
	"tidegate/pipeline/memory"
)

// A LogFile is the file to which dockerd writes the output of a container.
type LogFile struct {
	ContainerID string
	Path        string // as dockerd reports it; "": the driver keeps no file
	Driver      string // json-file, local, journald, none, …
}

// A Status is the part of a container's state that decides whether and how package logs reads its log.
type Status struct {
	Known    bool
	Running  bool
	Excluded bool // by configuration, or because it is the collector's own
}

// Registry holds the metadata of the containers of this host. Its methods may be called by any goroutine.
type Registry struct {
	// Memory, unless nil, is charged with the containers. It is set before Run.
	Memory *memory.Budget
	// QuietIfAbsent logs a Docker API whose socket does not exist at level info: the caller reports it. It is set
	// before Run.
	QuietIfAbsent bool

	cfg     Config
	log     *slog.Logger
	self    string // id or name of the collector's own container; "": none
	now     func() time.Time
	metrics registryMetrics

	view atomic.Pointer[view] // snapshot for readers; replaced as a whole

	mu          sync.Mutex // guards the following
	entries     map[string]*entry
	connected   map[string]int64 // by container id: when it was connected to a network, ns; until it stops
	networks    []network
	overlays    []links.Overlay
	account     *memory.Account
	uncaptured  map[string]string // drivers of networks without a bridge, by name
	subscribers []chan struct{}

	ready     chan struct{}
	readyOnce sync.Once
}

// An entry is one container. Registry.mu guards its fields. container is immutable, since views share it.
type entry struct {
	container  *pipeline.Container
	ips        []netip.Addr
	endpoints  []endpoint // that it has now
	holdings   []holding  // that it has or had
	started    int64      // when it was started last, ns; 0: never
	log        LogFile
	running    bool
	ended      time.Time // when it stopped; zero while it runs or has never run
	removed    bool      // it does not exist any more
	excluded   bool
	excludedBy string // the setting; "": it is not excluded
	charged    int64  // bytes
}

// New returns a Registry that is empty until Run is called.
func New(cfg Config, log *slog.Logger, reg prometheus.Registerer) *Registry {
	registry := &Registry{
		cfg: cfg, log: log, self: cfg.Self, now: time.Now, metrics: newMetrics(reg),
		entries: map[string]*entry{}, connected: map[string]int64{}, ready: make(chan struct{}),
	}
	if cfg.Self == "auto" {
		registry.self = ownContainer()
	}
	registry.view.Store(&view{})
	if cfg.DockerHost == "" {
		registry.setReady()
	}
	return registry
}

// Enabled reports whether there is a Docker API at all.
func (r *Registry) Enabled() bool { return r.cfg.DockerHost != "" }

// Ready returns a channel that is closed when the first list was read, or at once if no API is configured.
func (r *Registry) Ready() <-chan struct{} { return r.ready }

func (r *Registry) setReady() { r.readyOnce.Do(func() { close(r.ready) }) }

// Subscribe returns a channel that receives a value after every change. It is never closed.
func (r *Registry) Subscribe() <-chan struct{} {
	ch := make(chan struct{}, 1)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.subscribers = append(r.subscribers, ch)
	return ch
}

// putEntry replaces the entry of a container by e, as it was read at a time, ns. r.mu is held.
func (r *Registry) putEntry(e *entry, at int64) {
	old := r.entries[e.container.Id]
	var held []holding
	if old != nil {
		held = old.holdings
	}
	if !e.running && !e.ended.IsZero() {
		at = min(at, e.ended.UnixNano())
	}
	r.recordHoldings(e, held, at)
	r.entries[e.container.Id] = e
	defer r.charge(e)
	if old != nil {
		e.charged = old.charged
	}
	if e.excluded && (old == nil || !old.excluded) {
		r.log.Warn("log of a container is not read, the configuration excludes it", "container", e.container.Id,
			"name", e.container.Name, "image", e.container.Image, "by", e.excludedBy)
	}
	if old == nil {
		if !e.running && e.ended.IsZero() {
			e.ended = r.now() // never started: it has no address, but it must expire too
		}
		return
	}

	// The API does not list the addresses of a stopped container: keep those that it had.
	if !e.running && len(e.ips) == 0 {
		e.ips, e.container.Ip = old.ips, old.container.Ip
		if !old.ended.IsZero() {
			e.ended = old.ended
		} else {
			e.ended = r.now()
		}
	}

	// Package ship interns containers by pointer: keep the old pointer if the metadata has not changed.
	if sameContainer(old.container, e.container) {
		e.container = old.container
	}
}

// markStopped marks e as stopped at a time, ns, and as removed if the container does not exist any more. r.mu is held.
func (r *Registry) markStopped(e *entry, at int64, removed bool) {
	e.release(at)
	delete(r.connected, e.container.Id)
	if e.running || e.ended.IsZero() {
		e.ended = r.now()
	}
	e.running = false
	if removed && !e.removed {
		e.removed = true
		e.ended = r.now()
	}
}

// expireEntries deletes the containers that were removed more than Config.KeepAfterExit ago, and removes the
// addresses of those that stopped more than KeepAfterExit ago.
func (r *Registry) expireEntries(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()

	// A new view is published only if something has expired.
	changed := false
	for _, entry := range r.entries {
		if entry.running || now.Sub(entry.ended) < r.cfg.KeepAfterExit {
			continue
		}
		if entry.removed {
			r.deleteEntry(entry)
			changed = true
		} else if len(entry.ips) > 0 {
			entry.ips = nil
			changed = true
		}
	}

	// A container that runs may have had other addresses before.
	oldest := now.Add(-r.cfg.KeepAfterExit).UnixNano()
	for _, entry := range r.entries {
		before := len(entry.holdings)
		entry.holdings = slices.DeleteFunc(entry.holdings, func(held holding) bool {
			return held.to != 0 && held.to < oldest
		})
		if len(entry.holdings) != before {
			changed = true
			r.charge(entry)
		}
	}
	if changed {
		r.publish()
	}
}
