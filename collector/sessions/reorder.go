package sessions

import (
	"math"

	"tidegate/protocols"
)

// insertSegment keeps what of b does not lie in segments that wait already.
func (f *flow) insertSegment(d protocols.Dir, s segment, b []byte, end int64) {
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
		f.chargeBuffer(cost(len(n.b)))
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
		if f.mergeOverlap(w, off, b) {
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
		f.countConflict()
	}
	f.enforceBudget()
}

// clip is how many of the n bytes from the front of b were captured.
func clip(b []byte, n int64) int { return int(min(int64(len(b)), n)) }

// mergeOverlap compares b at off with what waits, tells whether they differ, and has the last one win if that is the policy.
func (f *flow) mergeOverlap(w *segment, off int64, b []byte) bool {
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

// chargeBuffer accounts for n more bytes that wait, or fewer.
func (f *flow) chargeBuffer(n int) {
	t := f.t
	f.bufferedBytes += n
	t.bufferedBytes += n
	switch {
	case f.bufferedBytes > 0 && f.bufferingIndex == 0:
		t.buffering = append(t.buffering, f)
		f.bufferingIndex = len(t.buffering)
	case f.bufferedBytes == 0 && f.bufferingIndex > 0:
		last := t.buffering[len(t.buffering)-1]
		t.buffering[f.bufferingIndex-1] = last
		last.bufferingIndex = f.bufferingIndex
		t.buffering[len(t.buffering)-1] = nil
		t.buffering = t.buffering[:len(t.buffering)-1]
		f.bufferingIndex = 0
	}
}

// maxSegments bounds how many segments of a direction wait, since finding a place among them takes time.
const maxSegments = 2048

// enforceBudget keeps f and the Table within their budgets.
func (f *flow) enforceBudget() {
	for f.bufferedBytes > f.t.cfg.SessionBuffer || f.half[0].waiting() > maxSegments || f.half[1].waiting() > maxSegments {
		f.giveUpOldest(gapBudget)
	}
	if f.t.bufferedBytes > f.t.cfg.Buffer {
		f.t.freeBuffers()
	}
}

func (h *halfStream) waiting() int { return len(h.wait) - h.head }

// deliverReady delivers everything that can be, of both directions.
func (f *flow) deliverReady() {
	for moved := true; moved; {
		moved = false
		for d := range protocols.Dir(2) {
			h, o := &f.half[d], &f.half[d^1]
			for h.head < len(h.wait) && h.wait[h.head].off <= h.next && (o.reached(h.wait[h.head].need) || o.packets == 0) {
				f.popFront(d)
				moved = true
			}
			if h.fin >= 0 && !h.ended && h.next >= h.fin && (o.reached(h.finNeed) || o.packets == 0) {
				f.endDirection(d)
				moved = true
			}
		}
	}
}

// endDirection tells the parser that a side has sent its last byte.
func (f *flow) endDirection(d protocols.Dir) {
	f.half[d].ended = true
	if f.conn != nil {
		f.conn.End(d, f.t.packetTime)
	}
	if f.half[d^1].ended {
		f.startClosing()
	}
}

// popFront delivers the first segment that waits, of which a part may have been delivered or given up.
func (f *flow) popFront(d protocols.Dir) {
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
	f.chargeBuffer(-cost(len(s.b)))
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

// releaseExpired gives up what the receiver has acknowledged for longer than the grace, and what has waited too long.
func (f *flow) releaseExpired() {
	for d := range protocols.Dir(2) {
		h := &f.half[d]
		if h.held() && h.snapAt != 0 && f.t.clock-h.snapAt >= int64(f.t.cfg.Grace) {
			safe := h.snap
			h.snap, h.snapAt = h.ack, f.t.clock
			f.giveUpTo(d, safe, gapAcked)
		}
		for h.head < len(h.wait) && f.t.clock-h.wait[h.head].clock >= int64(f.t.cfg.GapTimeout) {
			f.giveUpOldest(gapTimeout)
		}
	}
}

// giveUpTo delivers everything of d before the offset to, with gaps for what is missing.
func (f *flow) giveUpTo(d protocols.Dir, to int64, why gapReason) {
	h, o := &f.half[d], &f.half[d^1]
	for h.next < to {
		switch {
		case h.head == len(h.wait) || h.wait[h.head].off >= to:
			if to-h.next == 1 && h.fin < 0 && h.head == len(h.wait) && (o.fin >= 0 || f.isClosing) {
				h.fin, h.finNeed, h.ack = h.next, 0, h.next // the one that is missing is a FIN
				f.deliverReady()
				return
			}
			f.giveUp(d, f.gapUntil(d, to), why)
		case h.wait[h.head].off > h.next:
			f.giveUp(d, f.gapUntil(d, h.wait[h.head].off), why)
		default:
			f.forceFront(d)
		}
		f.deliverReady() // what waited for these bytes comes before what follows them
	}
	f.deliverReady()
}

// gapUntil is how much of the gap of d that ends at to is given up at once: up to where the other side answered, so that its answer comes
// between what was lost before it and what was lost behind it.
func (f *flow) gapUntil(d protocols.Dir, to int64) int64 {
	h, o := &f.half[d], &f.half[d^1]
	if o.head < len(o.wait) && o.wait[o.head].off <= o.next {
		if need := o.wait[o.head].need; need > h.next {
			to = min(to, need)
		}
	}
	return to - h.next
}

// forceFront delivers the first segment that waits though what it acknowledges of the other direction is missing. That was acknowledged for
// as long as the segment has waited, so it is given up, and stays before it: a reply never comes behind the next request.
func (f *flow) forceFront(d protocols.Dir) {
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
			f.popFront(d ^ 1)
		}
	}
	f.popFront(d)
}

// giveUpOldest moves the direction whose first segment has waited longest: its gap is given up, or, when the segment lies beyond what its
// receiver can have asked for, the segment is.
func (f *flow) giveUpOldest(why gapReason) {
	d, found := protocols.Dir(0), false
	for i := range protocols.Dir(2) {
		h := &f.half[i]
		if h.head < len(h.wait) && (!found || h.wait[h.head].clock < f.half[d].wait[f.half[d].head].clock) {
			d, found = i, true
		}
	}
	if !found {
		f.chargeBuffer(-f.bufferedBytes)
		return
	}
	h, o := &f.half[d], &f.half[d^1]
	s := &h.wait[h.head]
	switch {
	case s.off <= h.next:
		f.forceFront(d)
	case s.off > max(h.ack, h.next)+h.room(o):
		f.t.m.segments["outside_window"].Inc()
		f.dropFront(h)
	default:
		f.giveUp(d, f.gapUntil(d, s.off), why)
	}
	f.deliverReady()
}

// dropFront forgets the first segment that waits.
func (f *flow) dropFront(h *halfStream) {
	s := h.wait[h.head]
	h.wait[h.head] = segment{}
	h.head++
	f.t.bufs.put(s.b)
	f.chargeBuffer(-cost(len(s.b)))
}

// flushStreams delivers what waits when the connection is over.
func (f *flow) flushStreams() {
	if f.bufferedBytes == 0 && !f.awaitingBytes() {
		return
	}
	for f.half[0].waiting()+f.half[1].waiting() > 0 {
		f.giveUpOldest(gapClose)
	}
	for d := range protocols.Dir(2) {
		if h := &f.half[d]; h.ack > h.next && h.top >= h.next {
			f.giveUpTo(d, h.ack, gapClose)
		}
	}
}

// discardBuffered forgets what waits.
func (f *flow) discardBuffered() {
	for d := range f.half {
		h := &f.half[d]
		for h.head < len(h.wait) {
			f.dropFront(h)
		}
		h.wait, h.head = h.wait[:0], 0
	}
}
