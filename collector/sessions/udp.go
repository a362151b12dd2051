package sessions

import "tidegate/protocols"

// handleUDP takes the datagram at hand.
func (t *Table) handleUDP() {
	p := &t.p
	k, side := p.key()
	f := t.flows[k]
	if f != nil && f.dead {
		t.replaceFlow(f, "")
		f = nil
	}
	fresh := f == nil
	if fresh {
		f = t.openFlow(k, side)
		f.openConn(0, false)
	}
	d := protocols.Dir(side ^ f.side)
	f.seen, f.last = t.clock, max(f.last, p.at)
	h := &f.half[d]
	h.packets++
	h.bytes += uint64(p.size)
	if f.dedup == duplicate {
		return
	}
	f.addHistory('D', d)
	if d == protocols.Client && f.requestAt == 0 {
		f.requestAt = p.at
	} else if d == protocols.Server && f.replyAt == 0 && f.requestAt != 0 {
		f.replyAt = p.at
	}
	if lost := p.size - len(p.payload); lost > 0 { // the capture cut it; of DNS the question is in front
		h.missing += uint64(lost)
		t.m.gaps[gapCut].Inc()
		t.m.gapBytes[gapCut].Add(float64(lost))
		f.addHistory('G', d)
	}
	if f.conn != nil && len(p.payload) > 0 {
		f.conn.Datagram(d, p.payload, p.at)
	}
	f.closeIfDuplicate()
	if fresh || len(f.outbox) > 0 {
		f.schedule()
	}
}
