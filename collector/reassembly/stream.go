package reassembly

import "github.com/zeebo/xxh3"

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
		if stray, near := half.isStray(peer, off, end); stray {
			c.handleStray(dir, segment, near)
			return
		}
		c.handleDelivered(dir, segment, off, end)
		return
	}

	// Now end > next: the segment has new bytes. Cut off those that were delivered before.
	if off < half.top {
		c.classifyOverlap(dir, segment, off, end)
	}
	if off < half.next {
		passed := int(half.next - off)
		captured := min(passed, len(data))
		c.compareTail(dir, segment, off, data[:captured])
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

// handleDelivered handles a segment whose bytes, from off to end, were all delivered or given up before.
func (c *Conn) handleDelivered(dir Dir, segment *Segment, off, end int64) {
	half := &c.half[dir]
	c.handler.Observe(dir, Retransmission, segment.Time)

	// Compare the hash with that of a delivered segment with the same bounds, else compare the last bytes.
	data := segment.Payload
	for i := range half.delivered.segments {
		recent := &half.delivered.segments[i]
		if recent.off == off && int(recent.n) == len(data) && len(data) > 0 {
			if recent.hash != xxh3.Hash(data) {
				c.handler.Observe(dir, OverlapConflict, segment.Time)
			}
			return
		}
	}
	c.compareTail(dir, segment, off, data)
}

// compareTail compares the delivered part of data, which is at off, with the last delivered bytes, and
// reports a conflict if they differ.
func (c *Conn) compareTail(dir Dir, segment *Segment, off int64, data []byte) {
	half := &c.half[dir]
	tailOff := half.next - int64(half.delivered.tailLen)
	lo, hi := max(off, tailOff), min(off+int64(len(data)), half.next)
	if lo >= hi {
		return
	}
	if string(data[lo-off:hi-off]) != string(half.delivered.tail[lo-tailOff:hi-tailOff]) {
		c.handler.Observe(dir, OverlapConflict, segment.Time)
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
		half.delivered.record(half.next, data)
		half.next += int64(len(data))
	}
	if cut > 0 {
		c.giveUp(dir, int64(cut), GapCut)
	}
	if half.fin >= 0 && half.next > half.fin {
		half.fin = -1 // bytes follow the FIN, so it was not valid
	}
}

// record stores the hash and the last bytes of data, which was delivered at off.
func (r *deliveredBytes) record(off int64, data []byte) {
	n := len(data)
	r.segments[r.segmentIndex&3] = deliveredSegment{off, int32(n), xxh3.Hash(data)}
	r.segmentIndex++

	// The tail holds the last bytes of the old tail and of data.
	if n >= len(r.tail) {
		r.tailLen = uint8(copy(r.tail[:], data[n-len(r.tail):]))
		return
	}
	keep := min(int(r.tailLen), len(r.tail)-n)
	copy(r.tail[:], r.tail[int(r.tailLen)-keep:r.tailLen])
	copy(r.tail[keep:], data)
	r.tailLen = uint8(keep + n)
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
	half.delivered.tailLen = 0 // the tail must end at next
}
