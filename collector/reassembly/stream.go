package reassembly

// handleData handles the payload of segment, which is at off. The payload is delivered when every byte
// before it, and every byte of the other direction before need, was delivered or given up.
func (c *Conn) handleData(dir Dir, segment *Segment, off, need int64) {
	half, peer := &c.half[dir], &c.half[dir^1]
	c.handler.Observe(dir, Data, segment.Time)

	// Segments without new bytes end here: those that are out of place, and those that were delivered before.
	data, size := segment.Payload, segment.Size
	end := off + int64(size)
	if end <= half.next || off-half.next > maxWindow {
		if gap, ok := half.lastGap(); ok && off >= gap.from {
			c.rollBack(dir, off)
			c.handleData(dir, segment, half.next, need)
			return
		}
		stray, near := half.isStray(peer, off, end)
		if !stray {
			c.handler.Observe(dir, Retransmission, segment.Time)
		}
		if !c.handleConflict(dir, segment, off, need, data) && stray {
			c.handleStray(dir, segment, near)
		}
		return
	}

	// Now end > next: the segment has new bytes. Cut off those that were delivered before.
	if off < half.top {
		c.classifyOverlap(dir, segment, off, end)
	}
	if off < half.next {
		passed := int(half.next - off)
		captured := min(passed, len(data))
		if c.handleConflict(dir, segment, off, need, data[:captured]) {
			return
		}
		data, size, off = data[captured:], size-passed, half.next
	}
	half.top = max(half.top, end)

	// Now off ≥ next. The segment is delivered at once if nothing is missing before it, nothing that waits
	// overlaps it, and the bytes that it acknowledges were delivered.
	inOrder := off == half.next && (half.front == len(half.waiting) || end <= half.waiting[half.front].off)
	if inOrder && peer.permits(need) {
		c.deliverBytes(dir, data, size-len(data), segment.Time)
		return
	}
	c.insertSegment(dir, waitingSegment{off: off, need: need, time: segment.Time, since: c.now}, data, end)
}

// handleConflict compares repeated, the bytes of segment at off that are before the next ones, with those that were
// delivered in their place. Where they differ, or can be compared no more, and the receiver has acknowledged neither, it
// is not known which it takes. The stream then continues with segment, so that both are delivered, and handleConflict
// returns true.
func (c *Conn) handleConflict(dir Dir, segment *Segment, off, need int64, repeated []byte) (handled bool) {
	found := c.compareDelivered(dir, off, repeated)
	if !found.conflicts {
		return false
	}
	c.handler.Observe(dir, OverlapConflict, segment.Time)
	if segment.Doubtful {
		return false
	}

	// Of bytes that the receiver has acknowledged it has the first ones.
	half := &c.half[dir]
	from := max(off, half.ack)
	if from > found.at {
		passed := min(from-off, int64(len(repeated)))
		if !c.compareDelivered(dir, from, repeated[passed:]).conflicts {
			return false
		}
	}
	c.rewind(dir, from, segment.Time)
	c.handleData(dir, segment, half.offsetOf(segment.Seq), need)
	return true
}

// rewind has the stream of dir continue at the offset to, behind a gap of one byte. The bytes before it that belong to
// the same message are delivered again: those that dir has sent since the other direction has, and those that the
// receiver has not acknowledged. If these are more than the sender has earned (see repeatable), or not known, the stream
// continues without them. They are compared with what comes later all the same.
//
// Example: "GET /innocent" was delivered, and the receiver has acknowledged 5 bytes. "evil" comes at the offset 5.
// rewind(5) reports a gap and delivers "GET /".
func (c *Conn) rewind(dir Dir, to, at int64) {
	half := &c.half[dir]
	var before []byte
	if start := min(half.ack, half.turn); start < to && to-start <= half.repeatable {
		if common, known := c.deliveredBytes(dir, start, to); known {
			half.repeatable -= to - start
			before, to = common, start
		}
	}
	if before == nil && min(half.ack, half.turn) < to {
		c.handler.Observe(dir, NotRepeated, at)
	}
	c.forgetFrom(dir, to)
	shift := half.next + 1 - to // from here on offsets are larger by shift
	c.giveUp(dir, 1, GapConflict)
	half.base -= uint32(shift)
	half.shift, half.ack, half.turn = half.shift+shift, half.ack+shift, half.turn+shift
	if half.pinned != nil {
		half.pinned.off += shift
	}
	if half.uncopied.size() > 0 {
		half.uncopied.from, half.uncopied.to = half.uncopied.from+shift, half.uncopied.to+shift
	}
	half.graceStart, half.gaps = 0, [4]offsetRange{}
	half.top = half.next
	for i := half.front; i < len(half.waiting); i++ {
		half.waiting[i].off += shift
		half.top = half.waiting[i].endOffset()
	}
	if half.isUrgent {
		half.urgent += shift
	}
	if half.fin >= 0 && !half.ended {
		half.fin += shift
	} else {
		half.fin, half.ended = -1, false
	}
	c.closing, c.resetBy, c.doubtSince = false, 0, 0
	if len(before) > 0 {
		half.top = max(half.top, half.next+int64(len(before)))
		c.deliverBytes(dir, before, 0, at)
	}
}

// reorderTime is the longest delay, ns, of a segment that counts as reordered and not as retransmitted.
const reorderTime = int64(3e6)

// classifyOverlap reports a segment that begins before half.top as reordered or retransmitted. It was
// reordered if it fills a gap soon after the gap was seen.
func (c *Conn) classifyOverlap(dir Dir, segment *Segment, off, end int64) {
	half := &c.half[dir]

	// The segment fills a gap unless its bytes were delivered or are within a waiting segment.
	fillsGap := off >= half.next
	gapSeen := int64(0) // the Time of the first segment behind the gap; 0: there is none
	for i := half.front; i < len(half.waiting); i++ {
		waiting := &half.waiting[i]
		if waiting.off <= off && waiting.endOffset() >= end {
			fillsGap = false
		}
		if waiting.off >= off && gapSeen == 0 {
			gapSeen = waiting.time
		}
	}

	if fillsGap && (gapSeen == 0 || segment.Time-gapSeen <= max(reorderTime, c.rtt)) {
		c.handler.Observe(dir, Reordered, segment.Time)
		return
	}
	c.handler.Observe(dir, Retransmission, segment.Time)
}

// deliverBytes passes data, the next bytes of dir, to the Handler. cut is the number of bytes behind data
// that the capture cut off.
func (c *Conn) deliverBytes(dir Dir, data []byte, cut int, at int64) {
	half := &c.half[dir]
	if len(data) > 0 {
		if half.isUrgent {
			c.deliverAroundUrgent(dir, data, at)
		} else {
			c.handler.Data(dir, data, at)
		}
		if half.ack >= half.next {
			half.unackedSince = c.now
		}
		c.recordDelivered(dir, half.next, data)
		c.half[dir^1].turn = c.half[dir^1].next
		half.next += int64(len(data))
	}
	if cut > 0 {
		c.giveUp(dir, int64(cut), GapCut)
	}
	if half.fin >= 0 && half.next > half.fin {
		half.fin = -1 // bytes follow the FIN, so it was not valid
	}
}

// giveUp reports the next n bytes of dir as a gap and moves next behind them.
func (c *Conn) giveUp(dir Dir, n int64, why GapReason) {
	half := &c.half[dir]
	c.handler.Gap(dir, int(n), why)
	if why != GapCut {
		half.recordGap(n)
	}
	half.next += n
	half.top = max(half.top, half.next)
}
