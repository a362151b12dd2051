package sessions

import (
	"net/netip"
	"slices"

	"tidegate/pipeline"
	"tidegate/pipeline/memory"
)

// An enricher sets the containers of events and emits the events. An event waits while the container of one
// of its addresses is not final: it may still change. A new container sends packets before the Docker API
// reports the container, and its address may just have belonged to another container.
type enricher struct {
	containers Containers // nil: none
	senders    Senders    // nil: none
	isHostMAC  func(mac uint64) bool
	// hasMovedMAC, unless nil, is Deps.HasMovedMAC. For the first packets of a sender it is true only a moment later.
	hasMovedMAC func(mac uint64, at int64) bool

	emit       func(*pipeline.Event)
	limit      int               // bound on unresolved; beyond it events are emitted as they are
	memory     *memory.Account   // charged with unresolved
	unresolved []unresolvedEvent // oldest first
}

// An unresolvedEvent waits for container metadata.
type unresolvedEvent struct {
	e      *pipeline.Event
	bytes  int
	sender frameSender
	due    int64 // clock: when the event waits no longer
}

// resolveWait is the longest time that an event waits, ns. dockerd answers within 0.1 s when it is not busy.
const resolveWait = int64(2e9)

// enrich sets the containers of the event and emits it, or keeps it while they are not final. sender is the end that
// sent the first packet of its connection.
func (r *enricher) enrich(event *pipeline.Event, sender frameSender, now int64) {
	if r.resolveContainers(event, sender) || len(r.unresolved) >= r.limit {
		r.emit(event)
		return
	}
	bytes := bytesOf(event)
	r.memory.Add(int64(bytes))
	r.unresolved = append(r.unresolved, unresolvedEvent{event, bytes, sender, now + resolveWait})
	r.enforceBudget()
}

// enforceBudget emits the oldest events as they are while the memory budget is exceeded.
func (r *enricher) enforceBudget() {
	emitted := 0
	for ; emitted < len(r.unresolved) && r.memory.Excess() > 0; emitted++ {
		oldest := &r.unresolved[emitted]
		r.memory.Add(-int64(oldest.bytes))
		r.memory.GaveUp(int64(oldest.bytes))
		r.emit(oldest.e)
	}
	if emitted > 0 {
		r.unresolved = slices.Delete(r.unresolved, 0, emitted)
	}
}

// retryUnresolved emits the waiting events whose containers are final or whose wait is over. If last is
// set, it emits all events.
func (r *enricher) retryUnresolved(now int64, last bool) {
	if len(r.unresolved) == 0 {
		return
	}
	kept := r.unresolved[:0]
	for _, waiting := range r.unresolved {
		if r.resolveContainers(waiting.e, waiting.sender) || last || now >= waiting.due {
			r.memory.Add(-int64(waiting.bytes))
			r.emit(waiting.e)
		} else {
			kept = append(kept, waiting)
		}
	}
	clear(r.unresolved[len(kept):])
	r.unresolved = kept
}

// resolveContainers sets the containers of both ends of the event, and the container that owns the event: the
// server's if the server is on this host, else the client's. It reports whether both are final. An end whose address
// is not its own is the container that really sent, and the event has a tag.
func (r *enricher) resolveContainers(event *pipeline.Event, sender frameSender) (final bool) {
	if r.containers == nil || event.Tunnel != nil { // the addresses in a tunnel are what its sender says
		return true
	}

	// The server is last, so that its container replaces the client's as the owner.
	final = true
	event.Container = nil
	for _, end := range [...]*pipeline.Endpoint{event.Source, event.Destination} {
		if end == nil {
			continue
		}
		ip, ok := netip.AddrFromSlice(end.Ip)
		if !ok {
			continue
		}
		var endFinal bool
		end.Container, endFinal = r.containers.Resolve(ip, event.Timestamp)
		if sender.mac != 0 && addrOf(ip) == sender.ip {
			if r.hasMovedMAC != nil && r.hasMovedMAC(sender.mac, event.Timestamp) {
				event.AddTag(pipeline.TagMACMoved)
			}
			if real, spoofed := r.realSender(ip, sender, event.Timestamp); spoofed {
				end.Container = real
				event.AddTag(pipeline.TagSourceSpoofed)
			}
		}
		final = final && endFinal
		if end.Container != nil {
			event.Container = end.Container
		}
	}
	return final
}
