package sessions

import (
	"tidegate/collector/reassembly"
	"tidegate/protocols"
)

// handleUDP hands a datagram to its flow, which it opens if there is none.
func (t *Table) handleUDP(p *packet) {
	k, sender := p.flowKey()
	f := t.flows[k]
	if f != nil && f.dead {
		t.replaceFlow(f, "")
		f = nil
	}
	isNew := f == nil
	if isNew {
		f = t.openFlow(p, k, sender)
		f.openProtocol(0, false)
	}
	d := reassembly.Dir(sender ^ f.clientSide)
	f.lastSeen, f.last = t.clock.now, max(f.last, p.Time)
	side := &f.stats.sides[d]
	side.packets++
	side.bytes += uint64(p.Size)
	if f.dedup.state == duplicate {
		return
	}

	f.stats.addPayload(d, p.Time)
	if cut := p.Size - len(p.Payload); cut > 0 { // the capture cut it; a DNS message has its question in front
		side.missing += uint64(cut)
		t.m.gaps[reassembly.GapCut].Inc()
		t.m.gapBytes[reassembly.GapCut].Add(float64(cut))
		f.stats.history.addLetter('G', d)
	}
	if f.conn != nil && len(p.Payload) > 0 {
		f.conn.Datagram(protocols.Dir(d), p.Payload, p.Time)
	}
	f.closeIfDuplicate()
	if isNew || len(f.outbox.events) > 0 {
		f.schedule()
	}
}
