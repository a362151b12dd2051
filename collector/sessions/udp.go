package sessions

import "tidegate/protocols"

// udp takes the datagram at hand.
func (t *Table) udp() {
	p := &t.p
	k, side := p.key()
	f := t.flows[k]
	if f != nil && f.dead {
		t.replace(f, "")
		f = nil
	}
	fresh := f == nil
	if fresh {
		f = t.open(k, side)
		f.start(0, false)
	}
	d := protocols.Dir(side ^ f.side)
	f.seen, f.last = t.clock, max(f.last, p.at)
	h := &f.half[d]
	h.packets++
	h.bytes += uint64(p.size)
	if f.voice == mute {
		return
	}
	f.note('D', d)
	if d == protocols.Client && f.requestAt == 0 {
		f.requestAt = p.at
	} else if d == protocols.Server && f.replyAt == 0 && f.requestAt != 0 {
		f.replyAt = p.at
	}
	switch {
	case len(p.payload) < p.size: // a datagram that was cut is not one that a parser could read
		h.missing += uint64(p.size - len(p.payload))
		t.m.gaps[gapCut].Inc()
		t.m.gapBytes[gapCut].Add(float64(p.size - len(p.payload)))
		f.note('G', d)
	case f.conn != nil:
		f.conn.Datagram(d, p.payload, p.at)
	}
	f.settle()
	if fresh || len(f.out) > 0 {
		f.schedule()
	}
}
