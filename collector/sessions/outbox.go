package sessions

import (
	"slices"

	"tidegate/pipeline"
)

// An outbox holds the events of a pending flow until it is known whether the flow is a duplicate.
type outbox struct {
	events   []*pipeline.Event
	deadline int64 // clock: when they wait no longer
	retryAt  int64 // clock: when resolveDedup is called again
}

// outboxRetryEvery is the time, ns, between two calls of resolveDedup for a flow whose events wait.
const outboxRetryEvery = int64(50e6)

// emitEvent takes an event of f: of its parser, or of the session. The event is emitted, dropped or kept in
// the outbox.
func (f *flow) emitEvent(event *pipeline.Event) {
	table := f.t
	if f.dedup.state == primary && !f.dedup.confirmed {
		f.confirmPrimary()
	}
	if f.dedup.state == pending {
		f.resolveDedup(false, decidedByMapping)
	}

	// confirmPrimary and resolveDedup may have changed the state. The events of a flow that is still pending wait.
	switch f.dedup.state {
	case primary:
		f.forwardEvent(event)
	case duplicate:
		table.m.duplicateEvents.Inc()
		pipeline.ReleaseEvent(event)
	default:
		if len(f.outbox.events) == 0 {
			f.outbox.deadline = table.clock.now + int64(table.cfg.NATTimeout)
			f.outbox.retryAt = table.clock.now + min(outboxRetryEvery, int64(table.cfg.NATTimeout))
		}
		f.outbox.events = append(f.outbox.events, event)

		// All flows together may keep MaxPendingEvents; the flow that exceeds it has to decide now.
		if table.outboxEvents++; table.outboxEvents > table.cfg.MaxPendingEvents {
			f.resolveDedup(true, decidedByLimit)
		}
	}
}

// emitOutbox emits the events that waited.
func (f *flow) emitOutbox() {
	f.t.outboxEvents -= len(f.outbox.events)
	for i, e := range f.outbox.events {
		f.outbox.events[i] = nil
		f.forwardEvent(e)
	}
	f.outbox.events = f.outbox.events[:0]
}

// dropOutbox drops the events that waited.
func (f *flow) dropOutbox() {
	f.t.outboxEvents -= len(f.outbox.events)
	for i, e := range f.outbox.events {
		f.t.m.duplicateEvents.Inc()
		pipeline.ReleaseEvent(e)
		f.outbox.events[i] = nil
	}
	f.outbox.events = f.outbox.events[:0]
}

// forwardEvent completes e with the addresses behind NAT and the interfaces, and hands it to the enricher.
func (f *flow) forwardEvent(event *pipeline.Event) {
	if f.locateMapping() {
		f.translateNAT(event)
	}
	f.setInterfaces(event)
	f.t.enricher.enrich(event, f.t.clock.now)
}

// setInterfaces writes the interfaces where the connection was seen into e.
func (f *flow) setInterfaces(event *pipeline.Event) {
	table := f.t
	event.Interfaces = event.Interfaces[:0]
	if name := table.ifaces.list[f.key.iface].name; name != "" {
		event.Interfaces = append(event.Interfaces, name)
	}
	if table.dedup.numIfaces() < 2 {
		return
	}

	// The flows that became duplicates have added their interfaces to the claims.
	for _, key := range f.dedup.heldClaims() {
		for _, id := range table.dedup.claimIfaces(key, f.id) {
			if id != 0 {
				event.Interfaces = appendNew(event.Interfaces, table.dedup.ifaceName(id-1))
			}
		}
	}
}

func appendNew(list []string, name string) []string {
	if name == "" || slices.Contains(list, name) {
		return list
	}
	return append(list, name)
}
