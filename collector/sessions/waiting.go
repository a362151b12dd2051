package sessions

import (
	"math"

	"tidegate/protocols"
)

// store keeps what of b does not lie in segments that wait already.
func (f *flow) store(d protocols.Dir, s segment, b []byte, end int64) {
	h := &f.half[d]
	if h.head > 0 && h.head*2 >= len(h.wait) {
		h.wait, h.head = h.wait[:copy(h.wait, h.wait[h.head:])], 0
	}
	off, conflict := s.off, false
	put := func(i int, to int64) { // keeps [off, to)
		n := s
		n.off = off
		n.b = f.t.bufs.get(clip(b, to-off))
		copy(n.b, b)
		n.lost = int(to-off) - len(n.b)
		h.wait = insertAt(h.wait, i, n)
		f.hold(cost(len(n.b)))
	}
	i := h.head
	for ; i < len(h.wait) && off < end; i++ {
		w := &h.wait[i]
		if w.end() <= off {
			continue
		}
		if w.off >= end {
			break
		}
		if f.overlap(w, off, b) {
			conflict = true
		}
		stop := w.end()
		if off < w.off {
			to := w.off
			put(i, to)
			b, off = b[clip(b, to-off):], to
			i++
		}
		if stop >= end {
			off = end
			break
		}
		b, off = b[clip(b, stop-off):], stop
	}
	if off < end {
		put(i, end)
	}
	if conflict {
		f.conflict()
	}
	f.limit()
}

// clip is how many of the n bytes from the front of b were captured.
func clip(b []byte, n int64) int { return int(min(int64(len(b)), n)) }

// overlap compares b at off with what waits, tells whether they differ, and has the last one win if that is the policy.
func (f *flow) overlap(w *segment, off int64, b []byte) bool {
	lo, hi := max(off, w.off), min(off+int64(len(b)), w.off+int64(len(w.b)))
	if lo >= hi {
		return false
	}
	n, old := b[lo-off:hi-off], w.b[lo-w.off:hi-w.off]
	if string(n) == string(old) {
		return false
	}
	if f.t.cfg.Overlap == "last" {
		copy(old, n)
	}
	return true
}

// hold accounts for n more bytes that wait, or fewer.
func (f *flow) hold(n int) {
	t := f.t
	f.held += n
	t.held += n
	switch {
	case f.held > 0 && f.inLine == 0:
		t.line = append(t.line, f)
		f.inLine = len(t.line)
	case f.held == 0 && f.inLine > 0:
		last := t.line[len(t.line)-1]
		t.line[f.inLine-1] = last
		last.inLine = f.inLine
		t.line[len(t.line)-1] = nil
		t.line = t.line[:len(t.line)-1]
		f.inLine = 0
	}
}

// maxSegments bounds how many segments of a direction wait, since finding a place among them takes time.
const maxSegments = 2048

// limit keeps f and the Table within their budgets.
func (f *flow) limit() {
	for f.held > f.t.cfg.SessionBuffer || f.half[0].waiting() > maxSegments || f.half[1].waiting() > maxSegments {
		f.force(gapBudget)
	}
	if f.t.held > f.t.cfg.Buffer {
		f.t.relieve()
	}
}

func (h *half) waiting() int { return len(h.wait) - h.head }

// pump delivers everything that can be, of both directions.
func (f *flow) pump() {
	for moved := true; moved; {
		moved = false
		for d := range protocols.Dir(2) {
			h, o := &f.half[d], &f.half[d^1]
			for h.head < len(h.wait) && h.wait[h.head].off <= h.next && (o.reached(h.wait[h.head].need) || o.packets == 0) {
				f.shift(d)
				moved = true
			}
			if h.fin >= 0 && !h.ended && h.next >= h.fin && (o.reached(h.finNeed) || o.packets == 0) {
				f.ended(d)
				moved = true
			}
		}
	}
}

// ended tells the parser that a side has sent its last byte.
func (f *flow) ended(d protocols.Dir) {
	f.half[d].ended = true
	if f.conn != nil {
		f.conn.End(d, f.t.last)
	}
	if f.half[d^1].ended {
		f.close()
	}
}

// shift delivers the first segment that waits, of which a part may have been delivered or given up.
func (f *flow) shift(d protocols.Dir) {
	h := &f.half[d]
	s := h.wait[h.head]
	h.wait[h.head] = segment{}
	h.head++
	b, lost := s.b, int64(s.lost)
	if n := h.next - s.off; n > 0 {
		k := min(n, int64(len(b)))
		b, lost = b[k:], lost-(n-k)
	}
	if len(b) > 0 || lost > 0 {
		f.deliver(d, b, int(max(lost, 0)), s.at, gapCut)
	}
	f.t.bufs.put(s.b)
	f.hold(-cost(len(s.b)))
	if h.head == len(h.wait) {
		h.wait, h.head = h.wait[:0], 0
	}
}

// releaseDue is when a grace is over.
func (f *flow) releaseDue() int64 {
	due := int64(math.MaxInt64)
	for d := range f.half {
		h := &f.half[d]
		if !h.held() {
			h.snapAt = 0
			continue
		}
		if h.snapAt == 0 || h.snap <= h.next && h.ack > h.next { // a new wait, or one that nothing was acknowledged of so far
			h.snap, h.snapAt = h.ack, f.t.clock
		}
		due = min(due, h.snapAt+int64(f.t.cfg.Grace))
	}
	return due
}

// release gives up what the receiver has acknowledged for longer than the grace, and what has waited too long.
func (f *flow) release() {
	for d := range protocols.Dir(2) {
		h := &f.half[d]
		if h.held() && h.snapAt != 0 && f.t.clock-h.snapAt >= int64(f.t.cfg.Grace) {
			safe := h.snap
			h.snap, h.snapAt = h.ack, f.t.clock
			f.skip(d, safe, gapAcked)
		}
		for h.head < len(h.wait) && f.t.clock-h.wait[h.head].clock >= int64(f.t.cfg.GapTimeout) {
			f.force(gapTimeout)
		}
	}
}

// skip delivers everything of d before the offset to, with gaps for what is missing.
func (f *flow) skip(d protocols.Dir, to int64, why gapReason) {
	h, o := &f.half[d], &f.half[d^1]
	for h.next < to {
		switch {
		case h.head == len(h.wait) || h.wait[h.head].off >= to:
			if to-h.next == 1 && h.fin < 0 && h.head == len(h.wait) && (o.fin >= 0 || f.isClosing) {
				h.fin, h.finNeed, h.ack = h.next, 0, h.next // the one that is missing is a FIN
				f.pump()
				return
			}
			f.giveUp(d, f.hole(d, to), why)
		case h.wait[h.head].off > h.next:
			f.giveUp(d, f.hole(d, h.wait[h.head].off), why)
		default:
			f.push(d)
		}
		f.pump() // what waited for these bytes comes before what follows them
	}
	f.pump()
}

// hole is how much of the gap of d that ends at to is given up at once: up to where the other side answered, so that its answer comes
// between what was lost before it and what was lost behind it.
func (f *flow) hole(d protocols.Dir, to int64) int64 {
	h, o := &f.half[d], &f.half[d^1]
	if o.head < len(o.wait) && o.wait[o.head].off <= o.next {
		if need := o.wait[o.head].need; need > h.next {
			to = min(to, need)
		}
	}
	return to - h.next
}

// push delivers the first segment that waits though what it acknowledges of the other direction is missing. That was acknowledged for
// as long as the segment has waited, so it is given up, and stays before it: a reply never comes behind the next request.
func (f *flow) push(d protocols.Dir) {
	h, o := &f.half[d], &f.half[d^1]
	need := h.wait[h.head].need
	for !o.reached(need) && o.packets > 0 {
		switch {
		case o.head == len(o.wait) || o.wait[o.head].off >= need:
			if need-o.next == 1 && o.fin < 0 && o.head == len(o.wait) && (h.fin >= 0 || f.isClosing) {
				o.fin, o.finNeed = o.next, 0 // the one that is missing is a FIN
			} else {
				f.giveUp(d^1, need-o.next, gapAcked)
			}
		case o.wait[o.head].off > o.next:
			f.giveUp(d^1, o.wait[o.head].off-o.next, gapAcked)
		default:
			f.shift(d ^ 1)
		}
	}
	f.shift(d)
}

// force moves the direction whose first segment has waited longest: its gap is given up, or, when the segment lies beyond what its
// receiver can have asked for, the segment is.
func (f *flow) force(why gapReason) {
	d, found := protocols.Dir(0), false
	for i := range protocols.Dir(2) {
		h := &f.half[i]
		if h.head < len(h.wait) && (!found || h.wait[h.head].clock < f.half[d].wait[f.half[d].head].clock) {
			d, found = i, true
		}
	}
	if !found {
		f.hold(-f.held)
		return
	}
	h, o := &f.half[d], &f.half[d^1]
	s := &h.wait[h.head]
	switch {
	case s.off <= h.next:
		f.push(d)
	case s.off > max(h.ack, h.next)+h.room(o):
		f.t.m.segments["outside_window"].Inc()
		f.drop(h)
	default:
		f.giveUp(d, f.hole(d, s.off), why)
	}
	f.pump()
}

// drop forgets the first segment that waits.
func (f *flow) drop(h *half) {
	s := h.wait[h.head]
	h.wait[h.head] = segment{}
	h.head++
	f.t.bufs.put(s.b)
	f.hold(-cost(len(s.b)))
}

// drain delivers what waits when the connection is over.
func (f *flow) drain() {
	if f.held == 0 && !f.busy() {
		return
	}
	for f.half[0].waiting()+f.half[1].waiting() > 0 {
		f.force(gapClose)
	}
	for d := range protocols.Dir(2) {
		if h := &f.half[d]; h.ack > h.next && h.top >= h.next {
			f.skip(d, h.ack, gapClose)
		}
	}
}

// discard forgets what waits.
func (f *flow) discard() {
	for d := range f.half {
		h := &f.half[d]
		for h.head < len(h.wait) {
			f.drop(h)
		}
		h.wait, h.head = h.wait[:0], 0
	}
}
