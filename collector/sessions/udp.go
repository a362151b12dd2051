package sessions

import (
	"tidegate/collector/reassembly"
	"tidegate/protocols"
)

// handleUDP hands a datagram to its flow, which it opens if there is none.
func (t *Table) handleUDP(p *packet) {
	key, sender := p.flowKey()
	f := t.flows[key]
	if f != nil && f.dead {
		t.replaceFlow(f, "")
		f = nil
	}
	isNew := f == nil
	if isNew {
		f = t.openFlow(p, key, sender)
		f.openProtocol(0, false)
	}

	dir := reassembly.Dir(sender ^ f.clientSide)
	f.lastSeen, f.last = t.clock.now, max(f.last, p.Time)
	side := &f.stats.sides[dir]
	side.packets++
	side.bytes += uint64(p.Size)
	if f.dedup.state == duplicate {
		return
	}

	f.stats.addPayload(dir, p.Time)
	if cut := p.Size - len(p.Payload); cut > 0 { // the capture cut it; a DNS message has its question in front
		side.missing += uint64(cut)
		t.m.gaps[reassembly.GapCut].Inc()
		t.m.gapBytes[reassembly.GapCut].Add(float64(cut))
		f.stats.history.addKind(kindGap, dir)
	}
	if f.conn != nil && len(p.Payload) > 0 {
		f.conn.Datagram(protocols.Dir(dir), p.Payload, p.Time)
	}

	// The parser may have emitted events, by which f may have turned out to be a duplicate.
	f.closeIfDuplicate()
	if isNew || len(f.outbox.events) > 0 {
		f.schedule()
	}
}
