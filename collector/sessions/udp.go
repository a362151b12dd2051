package sessions

import (
	"tidegate/collector/links"
	"tidegate/collector/reassembly"
	"tidegate/protocols"
)

// enterFlow returns the flow of p, a packet of a protocol without connections, and whether p is the first one of it.
// flow is the one with the key of p, or nil.
func (t *Table) enterFlow(flow *flow, p *packet, key flowKey, sender uint8) (_ *flow, isNew bool) {
	if flow != nil && flow.dead {
		t.replaceFlow(flow, "")
		flow = nil
	}
	if isNew = flow == nil; isNew {
		flow = t.openFlow(p, key, sender)
	}
	return t.checkCopies(flow, p, sender, isNew)
}

// handleUDP passes a datagram to its flow. It opens the flow if there is none.
func (t *Table) handleUDP(p *packet) {
	key, sender := p.flowKey()
	flow := t.flows[key]
	if flow != nil && p.checksum != sumUnchecked && flow.rejectsChecksum(p, sender) {
		return
	}
	flow, isNew := t.enterFlow(flow, p, key, sender)
	if isNew {
		flow.openProtocol(0, false)
	}

	// Count the datagram. A duplicate does not parse it.
	flow.unopened = flow.unopened || p.unopened != links.NoEncapsulation
	dir := reassembly.Dir(sender ^ flow.clientSide)
	flow.lastSeen, flow.last = t.clock.now, max(flow.last, p.Time)
	side := &flow.stats.sides[dir]
	side.packets++
	side.bytes += uint64(p.Size)
	if flow.dedup.state == duplicate {
		return
	}

	flow.markPacket(p)
	flow.stats.addPayload(dir, p.Time)
	if len(p.Payload) > 0 {
		flow.publishPrint(sender, newDatagramPrint(p.Payload))
	}
	if cut := p.Size - len(p.Payload); cut > 0 { // cut by the capture; the parser still gets the front
		side.missing += uint64(cut)
		t.metrics.gaps[reassembly.GapCut].Inc()
		t.metrics.gapBytes[reassembly.GapCut].Add(float64(cut))
		flow.stats.history.addKind(kindGap, dir)
	}
	if flow.conn != nil && len(p.Payload) > 0 {
		flow.conn.Datagram(protocols.Dir(dir), p.Payload, p.Time)
	}

	// An event of the parser may have made the flow a duplicate.
	flow.closeIfDuplicate()
	if isNew || len(flow.outbox.events) > 0 {
		flow.schedule()
	}
}
