package sessions

import (
	"net/netip"

	"tidegate/pipeline"
)

// A unresolvedEvent is an event of which one end is an address of Docker's that no container is known to have: the first packets of a
// container that has just started come before the API tells of it, and its address may have been another's a moment ago.
type unresolvedEvent struct {
	e   *pipeline.Event
	due int64
}

// resolveWait is how long a stranger waits to be introduced, ns of packet time. dockerd answers within 0.1 s when it is not busy.
const resolveWait = int64(2e9)

// enrich fills in the containers of e and gives it on, or keeps it for a while where another answer may still come.
func (t *Table) enrich(e *pipeline.Event) {
	if t.resolveContainers(e) || len(t.unresolved) >= t.cfg.Outbox {
		t.deps.Emit(e)
		return
	}
	t.unresolved = append(t.unresolved, unresolvedEvent{e, t.clock + resolveWait})
}

// retryUnresolved asks again for those that wait. all: no other answer comes.
func (t *Table) retryUnresolved(all bool) {
	kept := t.unresolved[:0]
	for _, s := range t.unresolved {
		if t.resolveContainers(s.e) || all || t.clock >= s.due {
			t.deps.Emit(s.e)
		} else {
			kept = append(kept, s)
		}
	}
	clear(t.unresolved[len(kept):])
	t.unresolved = kept
}

// resolveContainers fills in the containers of both ends and the owner: the server-side one of this host, else the client-side one.
func (t *Table) resolveContainers(e *pipeline.Event) (settled bool) {
	settled = true
	if t.deps.Container == nil && t.deps.Who == nil {
		return settled
	}
	e.Container = nil
	for _, p := range [...]*pipeline.Endpoint{e.Source, e.Destination} {
		if p == nil {
			continue
		}
		ip, ok := netip.AddrFromSlice(p.Ip)
		if !ok {
			continue
		}
		if t.deps.Who != nil {
			p.Container, ok = t.deps.Who(ip, e.Timestamp)
			settled = settled && ok
		} else {
			p.Container = t.deps.Container(ip)
		}
		if p.Container != nil {
			e.Container = p.Container
		}
	}
	return settled
}
