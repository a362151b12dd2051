package sessions

import (
	"slices"

	"tidegate/pipeline"
	"tidegate/pipeline/memory"
	"tidegate/protocols"
)

// An outbox holds the events of a pending flow until it is known whether the flow is a duplicate.
type outbox struct {
	events   []*pipeline.Event
	held     memory.Holding[*flow] // what they take
	deadline int64                 // clock: when resolveDedup is forced
	retryAt  int64                 // clock: when resolveDedup is called again
}

// outboxRetryEvery is the time, ns, between two calls of resolveDedup for a flow whose events wait.
const outboxRetryEvery = int64(50e6)

// emitEvent takes ownership of an event of the parser or of the session. It emits the event, drops it, or
// keeps it in the outbox.
func (f *flow) emitEvent(event *pipeline.Event) {
	table := f.table
	if f.marks != 0 || f.stream.Unacknowledged() {
		f.tagEvent(event)
	}

	// An event is the occasion to look for other flows of the connection.
	if f.dedup.state == primary && !f.dedup.confirmed {
		f.confirmPrimary()
	}
	if f.dedup.state == pending {
		f.resolveDedup(false, decidedByMapping)
	}

	// confirmPrimary and resolveDedup may have changed the state.
	switch f.dedup.state {
	case primary:
		f.forwardEvent(event)
	case duplicate:
		table.metrics.duplicateEvents.Inc()
		pipeline.ReleaseEvent(event)
	default: // still pending
		if len(f.outbox.events) == 0 {
			f.outbox.deadline = table.clock.now + int64(table.cfg.NATTimeout)
			if f.dedup.foreign || f.mayBeHalfTranslated() {
				f.outbox.deadline += int64(table.cfg.NATTimeout) // what may be its copy decides first
			}
			f.outbox.retryAt = table.clock.now + min(outboxRetryEvery, int64(table.cfg.NATTimeout))
		}
		f.outbox.events = append(f.outbox.events, event)
		table.outboxes.Charge(&f.outbox.held, f, f.outbox.held.Bytes()+bytesOf(event))

		// All flows together may keep MaxPendingEvents. The flow that exceeds the bound is resolved now.
		if table.outboxEvents++; table.outboxEvents > table.cfg.MaxPendingEvents {
			f.resolveDedup(true, decidedByLimit)
		} else {
			table.enforceOutboxes()
		}
	}
}

// bytesOf returns the memory that an event takes.
func bytesOf(event *pipeline.Event) int { return protocols.EventBytes + event.SizeVT() }

// maxResolvedInARow bounds the flows that are resolved at once because of the memory budget.
const maxResolvedInARow = 64

// enforceOutboxes resolves the flows whose events take most while the memory budget is exceeded.
func (t *Table) enforceOutboxes() {
	if t.outboxes.IsExceeded() {
		t.outboxes.Enforce(maxResolvedInARow, func(f *flow) { f.resolveDedup(true, decidedByLimit) })
	}
}

// clearOutbox counts the events of the outbox as gone.
func (f *flow) clearOutbox() {
	f.table.outboxEvents -= len(f.outbox.events)
	f.table.outboxes.Charge(&f.outbox.held, f, 0)
}

// emitOutbox emits the events of the outbox. f must be primary.
func (f *flow) emitOutbox() {
	f.clearOutbox()
	for i, event := range f.outbox.events {
		f.outbox.events[i] = nil
		f.forwardEvent(event)
	}
	f.outbox.events = f.outbox.events[:0]
}

// dropOutbox drops and counts the events of the outbox. f must be a duplicate, or the outbox empty.
func (f *flow) dropOutbox() {
	f.clearOutbox()
	for i, event := range f.outbox.events {
		f.table.metrics.duplicateEvents.Inc()
		pipeline.ReleaseEvent(event)
		f.outbox.events[i] = nil
	}
	f.outbox.events = f.outbox.events[:0]
}

// forwardEvent adds the addresses behind NAT, the tunnel and the interfaces to the event and passes it to the
// enricher.
func (f *flow) forwardEvent(event *pipeline.Event) {
	if f.tunnel != nil {
		f.describeTunnel(event)
	}
	if f.locateMapping() {
		f.translateNAT(event)
	}
	f.setInterfaces(event)
	f.table.enricher.enrich(event, f.sender, f.table.clock.now)
}

// setInterfaces sets the event's interfaces to those where the connection was seen. The flow's own is first.
func (f *flow) setInterfaces(event *pipeline.Event) {
	table := f.table
	event.Interfaces = event.Interfaces[:0]
	if name := table.ifaces.list[f.key.iface].name; name != "" {
		event.Interfaces = append(event.Interfaces, name)
	}
	if table.dedup.numIfaces() < 2 {
		return
	}

	// Flows that became duplicates have added their interfaces to the claims of f.
	for _, key := range f.dedup.heldClaims() {
		for _, id := range table.dedup.claimIfaces(key, f.id) {
			if id != 0 {
				event.Interfaces = appendNew(event.Interfaces, table.dedup.ifaceName(id-1))
			}
		}
	}
}

// appendNew appends name to list unless it is empty or in the list.
func appendNew(list []string, name string) []string {
	if name == "" || slices.Contains(list, name) {
		return list
	}
	return append(list, name)
}
