package reassembly

import (
	"math"
	"slices"
)

// insertSegment adds the bytes from common.off to end to the waiting segments of dir, except those that wait
// already. data holds their captured part; common has the fields that all parts share.
//
// Example: bytes 10 to 19 wait and a segment with bytes 5 to 24 comes. Two parts of it are inserted, 5 to 9
// and 20 to 24. The bytes 10 to 19 of both are compared.
func (c *Conn) insertSegment(dir Dir, common waitingSegment, data []byte, end int64) {
	half := &c.half[dir]

	// Reuse the front of the slice when at least half of it is unused.
	if half.front > 0 && half.front*2 >= len(half.waiting) {
		half.waiting, half.front = half.waiting[:copy(half.waiting, half.waiting[half.front:])], 0
	}

	off, conflict := common.off, false
	insert := func(index int, to int64) { // stores the bytes from off to to
		part := common
		part.off = off
		part.b = c.pool.Get(numCaptured(data, to-off))
		copy(part.b, data)
		part.lost = int(to-off) - len(part.b)
		half.waiting = slices.Insert(half.waiting, index, part)
		c.pool.chargeConn(c, BufferCost(len(part.b)))
	}

	// Walk the waiting segments in order. After each turn data begins at off, and every byte between
	// common.off and off waits.
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
		waitingEnd := waiting.endOffset()
		if off < waiting.off { // a hole before waiting: fill it; waiting is then at index+1
			to := waiting.off
			insert(index, to)
			data, off = data[numCaptured(data, to-off):], to
			index++
		}
		if waitingEnd >= end {
			off = end
			break
		}
		data, off = data[numCaptured(data, waitingEnd-off):], waitingEnd
	}
	if off < end { // the rest is behind all segments that it could overlap
		insert(index, end)
	}

	if conflict {
		c.handler.Observe(dir, OverlapConflict, common.time)
	}
	c.enforceLimits()
}

// numCaptured returns how many of the next n bytes were captured; data holds the captured ones.
func numCaptured(data []byte, n int64) int { return int(min(int64(len(data)), n)) }

// mergeOverlap compares data, which is at off, with the segment waiting, and reports whether they differ
// where they overlap. With KeepLast the bytes of data replace those of waiting.
func (c *Conn) mergeOverlap(waiting *waitingSegment, off int64, data []byte) (differs bool) {
	lo, hi := max(off, waiting.off), min(off+int64(len(data)), waiting.off+int64(len(waiting.b)))
	if lo >= hi {
		return false
	}
	newBytes, oldBytes := data[lo-off:hi-off], waiting.b[lo-waiting.off:hi-waiting.off]
	if string(newBytes) == string(oldBytes) {
		return false
	}
	if c.cfg.KeepLast {
		copy(oldBytes, newBytes)
	}
	return true
}

// maxSegments bounds the number of waiting segments of a direction, because insertSegment walks them.
const maxSegments = 2048

// enforceLimits gives up copies, then gaps, until c and its Pool are within their limits, and the memory budget is kept.
func (c *Conn) enforceLimits() {
	if c.Buffered() > c.cfg.ConnBuffer {
		c.giveUpPinned()
	}
	for c.Buffered() > c.cfg.ConnBuffer ||
		c.half[0].numWaiting() > maxSegments || c.half[1].numWaiting() > maxSegments {
		c.giveUpOldest(GapBudget)
	}
	if c.pool.IsExceeded() {
		c.pool.EnforceLimit()
	}
}

// deliverReady delivers the waiting segments and FINs of both directions that are in order and permitted. A
// delivery may permit another one of the other direction, so deliverReady repeats until neither moves.
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

// endDirection reports that a direction is complete.
func (c *Conn) endDirection(dir Dir) {
	half := &c.half[dir]
	half.ended = true
	if !half.endReported {
		half.endReported = true
		c.handler.End(dir)
	}
	if c.half[dir^1].ended {
		c.startClosing()
	}
}

// popFront delivers the first waiting segment, without the part that was delivered or given up meanwhile.
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

// dropFront discards the first waiting segment.
func (c *Conn) dropFront(half *halfStream) {
	segment := c.takeFront(half)
	c.freeSegment(&segment)
}

// takeFront removes and returns the first waiting segment.
func (c *Conn) takeFront(half *halfStream) waitingSegment {
	segment := half.waiting[half.front]
	half.waiting[half.front] = waitingSegment{}
	half.front++
	return segment
}

// freeSegment returns the buffer of s to the Pool.
func (c *Conn) freeSegment(s *waitingSegment) {
	c.pool.Put(s.b)
	c.pool.chargeConn(c, -BufferCost(len(s.b)))
}

// startGrace begins the grace of each direction that has become incomplete, or whose receiver has just
// acknowledged missing bytes for the first time since the grace began.
func (c *Conn) startGrace() {
	for dir := range c.half {
		half := &c.half[dir]
		switch {
		case !half.incomplete():
			half.graceStart = 0
		case half.graceStart == 0 || half.graceAck <= half.next && half.ack > half.next:
			half.graceAck, half.graceStart = half.ack, c.now
		}
	}
}

// NextRelease returns the time of the clock at which Release must be called next, or math.MaxInt64 if nothing
// is incomplete.
func (c *Conn) NextRelease() int64 {
	next := int64(math.MaxInt64)
	for dir := range c.half {
		if half := &c.half[dir]; half.incomplete() && half.graceStart != 0 {
			next = min(next, half.graceStart+int64(c.cfg.Grace))
		}
	}
	return next
}

// Release gives up the gaps whose bytes have been acknowledged for longer than the grace, and the gaps before
// segments that have waited for longer than the timeout.
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

// giveUpTo delivers every byte of dir before the offset to, and reports missing bytes as gaps.
//
// Example: the client sent 300 bytes, of which only those from 100 to 199 were captured, and the server has
// acknowledged 300. giveUpTo(client, 300) reports a gap of 100 bytes, delivers the waiting segment, and
// reports another gap of 100 bytes: one turn for each.
func (c *Conn) giveUpTo(dir Dir, to int64, why GapReason) {
	half := &c.half[dir]

	// Each turn moves next over a part of a gap, or over the first waiting segment. deliverReady then
	// delivers the segments of the other direction that waited for these bytes, before the next turn moves
	// on.
	for half.next < to {
		switch {
		case c.isMissingFIN(dir, to):
			half.fin, half.finNeed, half.ack = half.next, 0, half.next
			c.deliverReady()
			return
		case half.front == len(half.waiting) || half.waiting[half.front].off >= to:
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

// isMissingFIN reports whether only one byte of dir is missing before the offset to, and that byte is a FIN:
// a FIN takes one offset, no other FIN of dir is known, no bytes of dir wait, and the connection is being
// closed.
func (c *Conn) isMissingFIN(dir Dir, to int64) bool {
	half, peer := &c.half[dir], &c.half[dir^1]
	return to-half.next == 1 && half.fin < 0 && half.front == len(half.waiting) && (peer.fin >= 0 || c.closing)
}

// gapUntil returns how many bytes of dir to give up at once, of the gap from half.next to the offset to. That
// is the whole gap, unless a segment of the other direction waits for a part of it: then it is that part, and
// the segment is delivered before the rest of the gap is given up.
//
// Example: the client sent two requests of 100 bytes, which were not captured. Both replies wait, with need
// 100 and 200. gapUntil(client, 200) returns 100 and, after the first reply, 100 again, so that the Handler
// gets: gap of 100, first reply, gap of 100, second reply.
func (c *Conn) gapUntil(dir Dir, to int64) int64 {
	half, peer := &c.half[dir], &c.half[dir^1]
	if peer.front < len(peer.waiting) && peer.waiting[peer.front].off <= peer.next {
		if need := peer.waiting[peer.front].need; need > half.next {
			to = min(to, need)
		}
	}
	return to - half.next
}

// forceFront delivers the first waiting segment of dir although bytes of the other direction that the segment
// acknowledges are missing. These bytes are delivered or given up first, so that a reply never comes behind
// the next request.
//
// Example: a reply acknowledges 300 bytes of the client (need 300). The client's bytes before 100 were
// delivered, those from 200 to 299 wait, and the others were not captured. forceFront(server) reports a gap
// of 100 bytes of the client, delivers the client's waiting segment, and then delivers the reply.
func (c *Conn) forceFront(dir Dir) {
	peer := &c.half[dir^1]
	need := c.half[dir].waiting[c.half[dir].front].need

	// Each turn moves peer.next towards need: over a FIN that was not captured, over a gap, or over a waiting
	// segment.
	for !peer.permits(need) {
		switch {
		case c.isMissingFIN(dir^1, need):
			peer.fin, peer.finNeed = peer.next, 0
		case peer.front == len(peer.waiting) || peer.waiting[peer.front].off >= need:
			c.giveUp(dir^1, need-peer.next, GapAcked)
		case peer.waiting[peer.front].off > peer.next:
			c.giveUp(dir^1, peer.waiting[peer.front].off-peer.next, GapAcked)
		default:
			c.popFront(dir ^ 1)
		}
	}
	c.popFront(dir)
}

// giveUpOldest takes the direction whose first segment has waited longest and gives up the gap before the
// segment. A segment beyond the window of its receiver is dropped instead.
func (c *Conn) giveUpOldest(why GapReason) {
	// Find the segment that has waited longest. Only the first of each direction needs to be compared.
	dir, oldest := Dir(0), int64(math.MaxInt64)
	for side := range Dir(2) {
		half := &c.half[side]
		if half.front < len(half.waiting) && half.waiting[half.front].since < oldest {
			dir, oldest = side, half.waiting[half.front].since
		}
	}
	if oldest == math.MaxInt64 { // nothing waits: correct the cost, so that the callers' loops end
		for dir := range c.half {
			c.dropStrays(&c.half[dir])
			c.dropSYNData(&c.half[dir])
			c.dropDoubtful(&c.half[dir])
		}
		c.giveUpPinned()
		c.pool.chargeConn(c, -c.Buffered())
		return
	}

	// Give up the missing bytes before it, in its own direction or in the other one, or drop it.
	half, peer := &c.half[dir], &c.half[dir^1]
	front := &half.waiting[half.front]
	switch {
	case front.off <= half.next: // in order, but it waits for the other direction
		c.forceFront(dir)
	case front.off > max(half.ack, half.next)+half.sendLimit(peer):
		c.handler.Observe(dir, OutsideWindow, front.time)
		c.dropFront(half)
	default:
		c.giveUp(dir, c.gapUntil(dir, front.off), why)
	}
	c.deliverReady()
}

// Flush delivers all waiting segments and reports missing bytes as gaps. The caller calls it when the
// connection is over, and ForgetDelivered when no segments of it can come any more.
func (c *Conn) Flush() {
	for dir := range c.half {
		c.dropStrays(&c.half[dir])
		c.dropSYNData(&c.half[dir])
		c.decideDoubtful(Dir(dir), math.MaxInt64, false)
	}
	if c.Buffered() == 0 && !c.Incomplete() {
		return
	}
	for c.half[0].numWaiting()+c.half[1].numWaiting() > 0 {
		c.giveUpOldest(GapClose)
	}

	// Bytes that were acknowledged and never captured are the last gap of a direction.
	for d := range Dir(2) {
		if half := &c.half[d]; half.ack > half.next && half.top >= half.next {
			c.giveUpTo(d, half.ack, GapClose)
		}
	}
}

// Discard drops all waiting segments without delivering them, and the copies beyond those that were delivered last.
func (c *Conn) Discard() {
	for dir := range c.half {
		half := &c.half[dir]
		for half.front < len(half.waiting) {
			c.dropFront(half)
		}
		half.waiting, half.front = half.waiting[:0], 0
		c.dropStrays(half)
		c.dropSYNData(half)
		c.dropDoubtful(half)
		c.dropPinned(half)
		half.uncopied = offsetRange{}
	}
}
