package sessions

import (
	"net/netip"

	"tidegate/pipeline"
)

// An enricher writes containers into events and emits the events. An event waits while the answer for one of
// its addresses is not settled: the first packets of a container that has just started come before the Docker
// API reports it, and its address may have been another container's a moment ago.
type enricher struct {
	containers Containers // nil: none
	emit       func(*pipeline.Event)
	limit      int // events that wait; beyond it they are emitted as they are
	unresolved []unresolvedEvent
}

// An unresolvedEvent waits for container metadata.
type unresolvedEvent struct {
	e   *pipeline.Event
	due int64 // clock
}

// resolveWait is the longest time that an event waits, ns. dockerd answers within 0.1 s when it is not busy.
const resolveWait = int64(2e9)

// enrich emits e with its containers, or keeps it for a while.
func (r *enricher) enrich(event *pipeline.Event, now int64) {
	if r.resolveContainers(event) || len(r.unresolved) >= r.limit {
		r.emit(event)
		return
	}
	r.unresolved = append(r.unresolved, unresolvedEvent{event, now + resolveWait})
}

// retryUnresolved emits the events whose containers are settled now or whose time is over. last has it emit
// all.
func (r *enricher) retryUnresolved(now int64, last bool) {
	if len(r.unresolved) == 0 {
		return
	}
	kept := r.unresolved[:0]
	for _, waiting := range r.unresolved {
		if r.resolveContainers(waiting.e) || last || now >= waiting.due {
			r.emit(waiting.e)
		} else {
			kept = append(kept, waiting)
		}
	}
	clear(r.unresolved[len(kept):])
	r.unresolved = kept
}

// resolveContainers sets the containers of both ends, and the owner of e: the server's container if it is on
// this host, else the client's. It reports whether both are settled.
func (r *enricher) resolveContainers(event *pipeline.Event) (settled bool) {
	if r.containers == nil {
		return true
	}
	settled = true
	event.Container = nil
	for _, end := range [...]*pipeline.Endpoint{event.Source, event.Destination} {
		if end == nil {
			continue
		}
		ip, ok := netip.AddrFromSlice(end.Ip)
		if !ok {
			continue
		}
		var endSettled bool
		end.Container, endSettled = r.containers.Resolve(ip, event.Timestamp)
		settled = settled && endSettled
		if end.Container != nil {
			event.Container = end.Container
		}
	}
	return settled
}
