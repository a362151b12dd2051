// Package containers keeps the metadata of this host's containers: addresses, name, image, labels and log
// file.
//
// In flows what the Docker API reports: a list at the start, then its stream of events; after every break of
// the stream the list is read again. Out flow two things. Other parts of the collector ask the Registry:
// sessions by address, on the path of every session, and logs by id. And each event of a container (start,
// die, oom, …) is shipped as an event of dataset container.
//
// The API is used for metadata only. While it is away the rest of the collector goes on without names: Run
// logs that once, and tries again. A container that is gone is kept for a while (Config.KeepAfterExit),
// because the last event of a session comes after its container's end; its address belongs to it until
// another container takes it.
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
//	stopped     it keeps its addresses until KeepAfterExit is over (expireEntries), or another container runs
//	            with them
//	removed     it does not exist any more; it is deleted when KeepAfterExit is over
package containers

import (
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline"
)

// A LogFile is the file to which dockerd writes the output of a container.
type LogFile struct {
	ContainerID string
	Path        string // as dockerd names it; "" where the driver keeps no file
	Driver      string // json-file, local, journald, none, …
}

// A Status is the state of a container, as package logs needs it before and while it reads the log.
type Status struct {
	Known    bool
	Running  bool
	Excluded bool // by configuration, or because it is the collector's own
}

// Registry holds the metadata of the containers of this host. Its methods may be called by any goroutine.
type Registry struct {
	cfg     Config
	log     *slog.Logger
	self    string // id or name of the collector's own container; "": none
	now     func() time.Time
	metrics registryMetrics

	view atomic.Pointer[view] // what readers see; it is replaced as a whole

	mu          sync.Mutex // guards the following
	entries     map[string]*entry
	networks    []network
	subscribers []chan struct{}

	ready     chan struct{}
	readyOnce sync.Once
}

// An entry is one container. Registry.mu guards it; container is immutable, since readers see it.
type entry struct {
	container *pipeline.Container
	ips       []netip.Addr
	log       LogFile
	running   bool
	ended     time.Time // when it stopped; zero while it runs or has never run
	removed   bool      // it does not exist any more
	excluded  bool
}

// New returns a Registry that is empty until Run is called.
func New(cfg Config, log *slog.Logger, reg prometheus.Registerer) *Registry {
	registry := &Registry{
		cfg: cfg, log: log, self: cfg.Self, now: time.Now, metrics: newMetrics(reg),
		entries: map[string]*entry{}, ready: make(chan struct{}),
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

// Ready returns a channel that is closed when the first list has been read, at once without an API.
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

// putEntry replaces the entry of a container by e. r.mu is held.
func (r *Registry) putEntry(e *entry) {
	old := r.entries[e.container.Id]
	r.entries[e.container.Id] = e
	if old == nil {
		if !e.running && e.ended.IsZero() {
			e.ended = r.now() // never started: it has no address, but it must expire too
		}
		return
	}

	// The API no longer lists the addresses of a container that has stopped: those from before are kept.
	if !e.running && len(e.ips) == 0 {
		e.ips, e.container.Ip = old.ips, old.container.Ip
		if !old.ended.IsZero() {
			e.ended = old.ended
		} else {
			e.ended = r.now()
		}
	}

	// ship interns containers by pointer: one that has not changed stays the same.
	if sameContainer(old.container, e.container) {
		e.container = old.container
	}
}

// markStopped marks e as stopped, and as removed if the container does not exist any more. r.mu is held.
func (r *Registry) markStopped(e *entry, removed bool) {
	if e.running || e.ended.IsZero() {
		e.ended = r.now()
	}
	e.running = false
	if removed && !e.removed {
		e.removed = true
		e.ended = r.now()
	}
}

// expireEntries deletes the containers that were removed longer ago than Config.KeepAfterExit, and takes
// their addresses from those that stopped longer ago.
func (r *Registry) expireEntries(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()

	// A new view is published only if something has expired.
	changed := false
	for id, entry := range r.entries {
		if entry.running || now.Sub(entry.ended) < r.cfg.KeepAfterExit {
			continue
		}
		if entry.removed {
			delete(r.entries, id)
			changed = true
		} else if len(entry.ips) > 0 {
			entry.ips = nil
			changed = true
		}
	}
	if changed {
		r.publish()
	}
}
