package reassembly

import (
	"math"
	"slices"
)

// insertSegment keeps the bytes b, from s.off to end, as far as they do not lie in segments that wait
// already.
func (c *Conn) insertSegment(dir Dir, s waitingSegment, data []byte, end int64) {
	half := &c.half[dir]
	if half.front > 0 && half.front*2 >= len(half.waiting) {
		half.waiting, half.front = half.waiting[:copy(half.waiting, half.waiting[half.front:])], 0
	}
	off, conflict := s.off, false
	insert := func(index int, to int64) { // keeps [off, to)
		part := s
		part.off = off
		part.b = c.pool.Get(numCaptured(data, to-off))
		copy(part.b, data)
		part.lost = int(to-off) - len(part.b)
		half.waiting = slices.Insert(half.waiting, index, part)
		c.pool.chargeConn(c, BufferCost(len(part.b)))
	}

	// Go through the segments that wait, in order. b always begins at off, and everything before off is kept,
	// by us or by a segment that waited.
	index := half.front
	for ; index < len(half.waiting) && off < end; index++ {
		waiting := &half.waiting[index]
		if waiting.endOffset() <= off {
			continue
		}
		if waiting.off >= end {
			break
		}
		if c.mergeOverlap(waiting, off, data) {
			conflict = true
		}
		wEnd := waiting.endOffset()
		if off < waiting.off { // there is a hole before w: fill it; w is then at i+1
			to := waiting.off
			insert(index, to)
			data, off = data[numCaptured(data, to-off):], to
			index++
		}
		if wEnd >= end {
			off = end
			break
		}
		data, off = data[numCaptured(data, wEnd-off):], wEnd
	}
	if off < end {
		insert(index, end)
	}

	if conflict {
		c.handler.Observe(dir, OverlapConflict, s.time)
	}
	c.enforceLimits()
}

// numCaptured returns how many of the n bytes from the front of b were captured.
func numCaptured(b []byte, n int64) int { return int(min(int64(len(b)), n)) }

// mergeOverlap compares b at off with w, which waits, and reports whether they differ. If the policy is
// KeepLast the bytes of b replace those of w.
func (c *Conn) mergeOverlap(w *waitingSegment, off int64, data []byte) (differs bool) {
	lo, hi := max(off, w.off), min(off+int64(len(data)), w.off+int64(len(w.b)))
	if lo >= hi {
		return false
	}
	newBytes, oldBytes := data[lo-off:hi-off], w.b[lo-w.off:hi-w.off]
	if string(newBytes) == string(oldBytes) {
		return false
	}
	if c.cfg.KeepLast {
		copy(oldBytes, newBytes)
	}
	return true
}

// maxSegments bounds how many segments of a direction wait, since finding a place among them takes time.
const maxSegments = 2048

// enforceLimits gives up gaps until c and its Pool are within their limits.
func (c *Conn) enforceLimits() {
	for c.buffered > c.cfg.ConnBuffer ||
		c.half[0].numWaiting() > maxSegments || c.half[1].numWaiting() > maxSegments {
		c.giveUpOldest(GapBudget)
	}
	if c.pool.used > c.pool.limit {
		c.pool.enforceLimit()
	}
}

// deliverReady delivers everything that can be, of both directions. Each delivery may be what the other
// direction waited for, so it goes on until neither has moved.
func (c *Conn) deliverReady() {
	for moved := true; moved; {
		moved = false
		for dir := range Dir(2) {
			half, peer := &c.half[dir], &c.half[dir^1]
			for half.front < len(half.waiting) && half.waiting[half.front].off <= half.next &&
				peer.permits(half.waiting[half.front].need) {
				c.popFront(dir)
				moved = true
			}
			if half.fin >= 0 && !half.ended && half.next >= half.fin && peer.permits(half.finNeed) {
				c.endDirection(dir)
				moved = true
			}
		}
	}
}

// endDirection reports that d is complete.
func (c *Conn) endDirection(d Dir) {
	c.half[d].ended = true
	c.handler.End(d)
	if c.half[d^1].ended {
		c.startClosing()
	}
}

// popFront delivers the first segment that waits, without the part of it that was delivered or given up
// meanwhile.
func (c *Conn) popFront(dir Dir) {
	half := &c.half[dir]
	segment := c.takeFront(half)
	data, cut := segment.b, int64(segment.lost)
	if passed := half.next - segment.off; passed > 0 {
		skip := min(passed, int64(len(data)))
		data, cut = data[skip:], cut-(passed-skip)
	}
	if len(data) > 0 || cut > 0 {
		c.deliverBytes(dir, data, int(max(cut, 0)), segment.time)
	}
	c.freeSegment(&segment)
	if half.front == len(half.waiting) {
		half.waiting, half.front = half.waiting[:0], 0
	}
}

// dropFront discards the first segment that waits.
func (c *Conn) dropFront(half *halfStream) {
	segment := c.takeFront(half)
	c.freeSegment(&segment)
}

func (c *Conn) takeFront(half *halfStream) waitingSegment {
	segment := half.waiting[half.front]
	half.waiting[half.front] = waitingSegment{}
	half.front++
	return segment
}

func (c *Conn) freeSegment(s *waitingSegment) {
	c.pool.Put(s.b)
	c.pool.chargeConn(c, -BufferCost(len(s.b)))
}

// startGrace begins the grace of each direction that has become incomplete, or whose receiver has now
// acknowledged bytes that are missing.
func (c *Conn) startGrace() {
	for d := range c.half {
		half := &c.half[d]
		switch {
		case !half.incomplete():
			half.graceStart = 0
		case half.graceStart == 0 || half.graceAck <= half.next && half.ack > half.next:
			half.graceAck, half.graceStart = half.ack, c.now
		}
	}
}

// NextRelease returns when, by the clock, Release should be called next. It is math.MaxInt64 when nothing
// waits.
func (c *Conn) NextRelease() int64 {
	next := int64(math.MaxInt64)
	for d := range c.half {
		if half := &c.half[d]; half.incomplete() && half.graceStart != 0 {
			next = min(next, half.graceStart+int64(c.cfg.Grace))
		}
	}
	return next
}

// Release gives up what the receiver acknowledged for longer than the grace, and what waited for longer than
// the timeout.
func (c *Conn) Release(now int64) {
	c.now = now
	for dir := range Dir(2) {
		half := &c.half[dir]
		if half.incomplete() && half.graceStart != 0 && now-half.graceStart >= int64(c.cfg.Grace) {
			acked := half.graceAck
			half.graceAck, half.graceStart = half.ack, now // the next grace begins
			c.giveUpTo(dir, acked, GapAcked)
		}
		for half.front < len(half.waiting) && now-half.waiting[half.front].since >= int64(c.cfg.GapTimeout) {
			c.giveUpOldest(GapTimeout)
		}
	}
	c.startGrace()
}

// giveUpTo delivers everything of d before the offset to, with gaps for missing bytes.
func (c *Conn) giveUpTo(dir Dir, to int64, why GapReason) {
	half, peer := &c.half[dir], &c.half[dir^1]

	// Each turn moves next: over a part of a gap, or over the first segment that waits. What the other
	// direction holds back for these bytes is delivered before what follows them.
	for half.next < to {
		switch {
		case half.front == len(half.waiting) || half.waiting[half.front].off >= to:
			if to-half.next == 1 && half.fin < 0 && half.front == len(half.waiting) &&
				(peer.fin >= 0 || c.closing) {
				half.fin, half.finNeed, half.ack = half.next, 0, half.next // the byte that is missing is a FIN
				c.deliverReady()
				return
			}
			c.giveUp(dir, c.gapUntil(dir, to), why)
		case half.waiting[half.front].off > half.next:
			c.giveUp(dir, c.gapUntil(dir, half.waiting[half.front].off), why)
		default:
			c.forceFront(dir)
		}
		c.deliverReady()
	}
	c.deliverReady()
}

// gapUntil returns how much of the gap of d that ends at to is given up at once: up to where the other side
// answered, so that its answer comes between what was lost before it and what was lost behind it.
func (c *Conn) gapUntil(d Dir, to int64) int64 {
	half, peer := &c.half[d], &c.half[d^1]
	if peer.front < len(peer.waiting) && peer.waiting[peer.front].off <= peer.next {
		if need := peer.waiting[peer.front].need; need > half.next {
			to = min(to, need)
		}
	}
	return to - half.next
}

// forceFront delivers the first segment that waits although bytes of the other direction that it acknowledges
// are missing. The missing bytes have been acknowledged for as long as the segment has waited. They are given
// up first, so that a reply never comes behind the next request.
func (c *Conn) forceFront(dir Dir) {
	half, peer := &c.half[dir], &c.half[dir^1]
	need := half.waiting[half.front].need

	// Each turn moves peer.next toward need: over a gap, over a FIN that was not captured, or over a segment.
	for !peer.permits(need) {
		switch {
		case peer.front == len(peer.waiting) || peer.waiting[peer.front].off >= need:
			if need-peer.next == 1 && peer.fin < 0 && peer.front == len(peer.waiting) &&
				(half.fin >= 0 || c.closing) {
				peer.fin, peer.finNeed = peer.next, 0 // the byte that is missing is a FIN
			} else {
				c.giveUp(dir^1, need-peer.next, GapAcked)
			}
		case peer.waiting[peer.front].off > peer.next:
			c.giveUp(dir^1, peer.waiting[peer.front].off-peer.next, GapAcked)
		default:
			c.popFront(dir ^ 1)
		}
	}
	c.popFront(dir)
}

// giveUpOldest moves the direction whose first segment has waited longest. The gap before the segment is
// given up; when the segment lies beyond what its receiver can have asked for, it is dropped instead.
func (c *Conn) giveUpOldest(why GapReason) {
	d, oldest := Dir(0), int64(math.MaxInt64)
	for i := range Dir(2) {
		half := &c.half[i]
		if half.front < len(half.waiting) && half.waiting[half.front].since < oldest {
			d, oldest = i, half.waiting[half.front].since
		}
	}
	if oldest == math.MaxInt64 { // nothing waits; the loops of the callers end when the account says so
		c.pool.chargeConn(c, -c.buffered)
		return
	}
	half, peer := &c.half[d], &c.half[d^1]
	front := &half.waiting[half.front]
	switch {
	case front.off <= half.next:
		c.forceFront(d)
	case front.off > max(half.ack, half.next)+half.sendLimit(peer):
		c.handler.Observe(d, OutsideWindow, front.time)
		c.dropFront(half)
	default:
		c.giveUp(d, c.gapUntil(d, front.off), why)
	}
	c.deliverReady()
}

// Flush delivers everything that waits, with gaps for missing bytes. The caller calls it when the connection
// is over.
func (c *Conn) Flush() {
	if c.buffered == 0 && !c.Incomplete() {
		return
	}
	for c.half[0].numWaiting()+c.half[1].numWaiting() > 0 {
		c.giveUpOldest(GapClose)
	}
	for d := range Dir(2) {
		if half := &c.half[d]; half.ack > half.next && half.top >= half.next {
			c.giveUpTo(d, half.ack, GapClose)
		}
	}
}

// Discard drops everything that waits without delivering it.
func (c *Conn) Discard() {
	for d := range c.half {
		half := &c.half[d]
		for half.front < len(half.waiting) {
			c.dropFront(half)
		}
		half.waiting, half.front = half.waiting[:0], 0
	}
}
