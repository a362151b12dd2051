package sessions

import (
	"tidegate/collector/reassembly"
	"tidegate/protocols"
)

// handleUDP hands a datagram to its flow, which it opens if there is none.
func (t *Table) handleUDP(p *packet) {
	key, sender := p.flowKey()
	flow := t.flows[key]
	if flow != nil && flow.dead {
		t.replaceFlow(flow, "")
		flow = nil
	}
	isNew := flow == nil
	if isNew {
		flow = t.openFlow(p, key, sender)
		flow.openProtocol(0, false)
	}

	dir := reassembly.Dir(sender ^ flow.clientSide)
	flow.lastSeen, flow.last = t.clock.now, max(flow.last, p.Time)
	side := &flow.stats.sides[dir]
	side.packets++
	side.bytes += uint64(p.Size)
	if flow.dedup.state == duplicate {
		return
	}

	flow.stats.addPayload(dir, p.Time)
	if cut := p.Size - len(p.Payload); cut > 0 { // the capture cut it; a DNS message has its question in front
		side.missing += uint64(cut)
		t.m.gaps[reassembly.GapCut].Inc()
		t.m.gapBytes[reassembly.GapCut].Add(float64(cut))
		flow.stats.history.addKind(kindGap, dir)
	}
	if flow.conn != nil && len(p.Payload) > 0 {
		flow.conn.Datagram(protocols.Dir(dir), p.Payload, p.Time)
	}

	// The parser may have emitted events, by which f may have turned out to be a duplicate.
	flow.closeIfDuplicate()
	if isNew || len(flow.outbox.events) > 0 {
		flow.schedule()
	}
}
