package reassembly

// This file has the segments that are out of place: outside any window, before the first byte of the stream, or
// within a gap that was given up. Most are forged or very late, and none is delivered. But the Conn may be in the
// wrong place itself, if a segment that the receiver ignored has moved it: a forged SYN, data, or acknowledgement.
// What decides is the other party. When it acknowledges exactly what a stray segment has brought, the segment
// belongs to the stream, and the stream continues there. No bytes are lost by that, because the last stray
// segments are kept.

// strays holds the runs of a direction.
type strays struct {
	runs    [4]strayRun
	oldest  uint8  // the run that the next one replaces
	acked   uint32 // the last acknowledgement of a byte that is out of place
	isAcked bool
}

// A strayRun is a number of stray segments, each of which begins where the one before ended.
type strayRun struct {
	start    uint32 // the sequence number of the first byte
	length   int64
	segments uint8
	near     bool  // it may be a late segment of this stream
	acks     uint8 // different acknowledgements of its bytes
	lastAck  uint32
	kept     []waitingSegment // the offsets are from start
	keptSize int
}

const (
	// resyncAfter is the number of segments of a run after which the stream continues there without an
	// acknowledgement.
	resyncAfter = 8
	// maxStrayBytes bounds the bytes that are kept of a run.
	maxStrayBytes = 64 << 10
	// nearStart is the distance from the first byte of a stream in which segments may have been overtaken by it.
	nearStart = 64 << 10
)

// An offsetRange is the half-open range [from, to) of offsets.
type offsetRange struct{ from, to int64 }

// size returns the number of offsets, 0 or less if there is none.
func (r offsetRange) size() int64 { return r.to - r.from }

// overlap returns the offsets that are in both.
func (r offsetRange) overlap(other offsetRange) offsetRange {
	return offsetRange{max(r.from, other.from), min(r.to, other.to)}
}

// isStray reports whether a segment from off to end is out of place. near is set if it may be a late segment of
// this stream.
func (h *halfStream) isStray(peer *halfStream, off, end int64) (stray, near bool) {
	switch {
	case off-h.next > maxWindow || off-h.next < -maxWindow:
		return true, false
	case end > h.next:
		return false, false
	case h.syn && end <= 0: // before the SYN
		return true, false
	case end < h.next-h.repeatLimit(peer): // its sender has no reason to repeat these bytes
		return true, false
	case end <= 0:
		return true, end > -nearStart
	}
	for _, gap := range h.gaps {
		if off < gap.to && end > gap.from {
			return true, true
		}
	}
	return false, false
}

// handleStray handles a segment that is out of place. It keeps the segment and drops it if nobody acknowledges
// it.
func (c *Conn) handleStray(dir Dir, segment *Segment, near bool) {
	half := &c.half[dir]
	if half.strays == nil {
		half.strays = &strays{}
	}
	list := half.strays

	// The receiver has acknowledged everything up to this segment.
	if list.isAcked && segment.Seq == list.acked {
		c.resync(dir, &strayRun{start: segment.Seq})
		c.handleData(dir, segment, half.offsetOf(segment.Seq), 0)
		return
	}
	if half.syn || near || half.offsetOf(segment.Seq) > half.next {
		c.handler.Observe(dir, OutsideWindow, segment.Time)
	} else {
		c.handler.Observe(dir, BeforeStart, segment.Time)
	}

	// Find the run that segment continues, else replace the oldest.
	run := (*strayRun)(nil)
	for i := range list.runs {
		candidate := &list.runs[i]
		switch distance := int64(segment.Seq - candidate.start); {
		case candidate.segments == 0:
		case distance == candidate.length:
			run = candidate
		case distance < candidate.length: // repeated
			return
		}
	}
	if run == nil {
		run = &list.runs[list.oldest&3]
		list.oldest++
		c.dropRun(run)
		run.start, run.near = segment.Seq, near
	}
	c.extendRun(run, segment)
	if run.segments >= resyncAfter && !run.near {
		c.resync(dir, run)
	}
}

// extendRun adds segment to run.
func (c *Conn) extendRun(run *strayRun, segment *Segment) {
	if run.keptSize+len(segment.Payload) <= maxStrayBytes && len(run.kept) < 64 {
		kept := waitingSegment{off: run.length, b: c.pool.Get(len(segment.Payload)), time: segment.Time}
		copy(kept.b, segment.Payload)
		kept.lost = segment.Size - len(segment.Payload)
		run.kept = append(run.kept, kept)
		run.keptSize += len(segment.Payload)
		c.pool.chargeConn(c, BufferCost(len(kept.b)))
	}
	run.length += int64(segment.Size)
	run.segments = min(run.segments+1, 200)
	c.enforceLimits()
}

// ackStrays handles an acknowledgement of dir's bytes that may belong to stray ones. off is its offset.
func (c *Conn) ackStrays(dir Dir, ack uint32, off int64, peer *halfStream) {
	half := &c.half[dir]
	list := half.strays
	for i := range list.runs {
		run := &list.runs[i]
		if run.segments == 0 || int32(ack-run.start) <= 0 || int64(ack-run.start) > run.length || ack == run.lastAck {
			continue
		}
		run.acks, run.lastAck = run.acks+1, ack

		// Segments may have overtaken each other at the beginning of a capture. Two acknowledgements in a row of
		// what came late are not explained by that.
		if run.acks >= 2 || !run.near {
			c.resync(dir, run)
			return
		}
	}
	limit := max(half.top, half.ack) + half.sendLimit(peer) + 64<<10
	if off > limit || off < half.ack-half.repeatLimit(peer) {
		list.acked, list.isAcked = ack, true
	}
}

// resync continues the stream of dir at run, whose bytes are the next ones. The number of missing bytes is not
// known, so the gap has one byte.
func (c *Conn) resync(dir Dir, run *strayRun) {
	half := &c.half[dir]
	segments, start := run.kept, run.start
	if half.repeatsDelivered(half.offsetOf(start)) {
		c.handler.Observe(dir, OverlapConflict, c.now)
	}
	run.kept = nil
	for half.front < len(half.waiting) { // these belong to the other numbers
		c.dropFront(half)
	}
	half.waiting, half.front = half.waiting[:0], 0
	c.dropStrays(half)
	c.giveUp(dir, 1, GapResync)
	half.base = start - uint32(half.next)
	half.top, half.ack, half.turn, half.fin, half.ended = half.next, half.next, half.next, -1, false
	c.forgetDirection(dir) // the offsets of earlier bytes are those of other numbers from now on
	half.graceStart, half.gaps, half.isUrgent = 0, [4]offsetRange{}, false
	c.closing, c.resetBy, c.doubtSince = false, 0, 0

	begin := half.next
	for i := range segments {
		segment := &segments[i]
		if begin+segment.off == half.next { // a segment that was not kept leaves a gap
			half.top = max(half.top, half.next+int64(len(segment.b)+segment.lost))
			c.deliverBytes(dir, segment.b, segment.lost, segment.time)
		}
		c.freeSegment(segment)
	}
}

// repeatsDelivered reports whether off is the offset of bytes that were delivered and not acknowledged.
func (h *halfStream) repeatsDelivered(off int64) bool {
	gap, isGap := h.lastGap()
	return off >= h.ack && off < h.next && !(isGap && off >= gap.from)
}

// rollBack continues the stream of dir at off, within the last gap, behind which nothing was delivered.
func (c *Conn) rollBack(dir Dir, off int64) {
	half := &c.half[dir]
	c.resync(dir, &strayRun{start: half.base + uint32(off)})
}

// lastGap returns the gap that ends at h.next, if the last bytes were given up and none delivered since.
func (h *halfStream) lastGap() (gap offsetRange, ok bool) {
	gap = h.gaps[(h.gapIndex-1)&3]
	return gap, gap.to == h.next && gap.to > gap.from
}

// recordGap stores that the n bytes from h.next were given up.
func (h *halfStream) recordGap(n int64) {
	if gap, ok := h.lastGap(); ok {
		h.gaps[(h.gapIndex-1)&3] = offsetRange{gap.from, gap.to + n}
		return
	}
	h.gaps[h.gapIndex&3] = offsetRange{h.next, h.next + n}
	h.gapIndex++
}

// dropStrays drops all stray segments of a direction.
func (c *Conn) dropStrays(half *halfStream) {
	if half.strays == nil {
		return
	}
	for i := range half.strays.runs {
		c.dropRun(&half.strays.runs[i])
	}
	half.strays = nil
}

// dropRun drops the segments of a run.
func (c *Conn) dropRun(run *strayRun) {
	for i := range run.kept {
		c.freeSegment(&run.kept[i])
	}
	*run = strayRun{kept: run.kept[:0]}
}
