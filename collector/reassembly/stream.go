package reassembly

import "github.com/zeebo/xxh3"

// handleData takes the payload of s, which lies at off. It is delivered once everything before need of the other
// direction was.
func (c *Conn) handleData(d Dir, s *Segment, off, need int64) {
	h, o := &c.half[d], &c.half[d^1]
	c.handler.Observe(d, Data, s.Time)

	// Sort out what is not new: positions outside of any window, and bytes that were delivered before.
	if off-h.next > maxWindow || off-h.next < -maxWindow {
		c.handleStray(d, s, off)
		return
	}
	b, size := s.Payload, s.Size
	end := off + int64(size)
	if end <= h.next {
		c.handleDelivered(d, s, off, end)
		return
	}

	// end > next: the segment has new bytes.
	if c.closing && c.resetBy == uint8(d)+1 && off >= c.resetOffset {
		c.closing, c.resetBy = false, 0 // the receiver did not accept the RST
	}
	if off < h.top {
		c.classifyOverlap(d, s, off, end)
	}
	if off < h.next {
		n := int(h.next - off)
		captured := min(n, len(b))
		c.compareTail(d, s, off, b[:captured])
		b, size, off = b[captured:], size-n, h.next
	}
	h.top = max(h.top, end)

	// Now off ≥ next. The segment is delivered at once if nothing is missing before it, nothing that waits overlaps
	// it, and what it acknowledges was delivered.
	inOrder := off == h.next && (h.front == len(h.waiting) || end <= h.waiting[h.front].off)
	if inOrder && (o.reached(need) || o.packets == 0) {
		c.deliverBytes(d, b, size-len(b), s.Time)
		return
	}
	c.insertSegment(d, waitingSegment{off: off, need: need, time: s.Time, since: c.now}, b, end)
}

// resyncAfter is how many segments in a row, each of which goes on where the last one ended, are taken for the
// stream itself though they lie outside of any window.
const resyncAfter = 8

// handleStray takes a segment that lies outside of any window. The stream is moved there when enough of them follow
// each other.
func (c *Conn) handleStray(d Dir, s *Segment, off int64) {
	h := &c.half[d]
	c.handler.Observe(d, OutsideWindow, s.Time)
	if h.strays > 0 && off == h.strayEnd {
		h.strays++
	} else {
		h.strays = 1
	}
	h.strayEnd = off + int64(s.Size)
	if h.strays < resyncAfter {
		return
	}

	// How much is missing is not known: one byte stands for it. The base is chosen so that the end of s is next.
	h.strays = 0
	endSeq := h.base + uint32(h.strayEnd)
	c.giveUp(d, 1, GapResync)
	h.base = endSeq - uint32(h.next)
	h.top, h.ack, h.fin = h.next, h.next, -1
}

// handleDelivered takes a segment whose bytes, from off to end, were all delivered or given up before.
func (c *Conn) handleDelivered(d Dir, s *Segment, off, end int64) {
	h := &c.half[d]
	if end <= 0 && !h.syn {
		c.handler.Observe(d, BeforeStart, s.Time)
		return
	}
	c.handler.Observe(d, Retransmission, s.Time)

	// Compare it with a segment of the same borders, else with the last bytes.
	b := s.Payload
	for i := range h.delivered.segments {
		r := &h.delivered.segments[i]
		if r.off == off && int(r.n) == len(b) && len(b) > 0 {
			if r.hash != xxh3.Hash(b) {
				c.handler.Observe(d, OverlapConflict, s.Time)
			}
			return
		}
	}
	c.compareTail(d, s, off, b)
}

// compareTail compares b at off, of which at least a part was delivered, with the last bytes that were.
func (c *Conn) compareTail(d Dir, s *Segment, off int64, b []byte) {
	h := &c.half[d]
	tailOff := h.next - int64(h.delivered.tailLen)
	lo, hi := max(off, tailOff), min(off+int64(len(b)), h.next)
	if lo >= hi {
		return
	}
	if string(b[lo-off:hi-off]) != string(h.delivered.tail[lo-tailOff:hi-tailOff]) {
		c.handler.Observe(d, OverlapConflict, s.Time)
	}
}

// reorderTime is how late, ns, a segment can be and still have been overtaken rather than sent again.
const reorderTime = int64(3e6)

// classifyOverlap counts a segment that begins before the highest byte seen: it was overtaken if it fills a gap soon
// after the gap was seen, else it was sent again.
func (c *Conn) classifyOverlap(d Dir, s *Segment, off, end int64) {
	h := &c.half[d]
	fillsGap := off >= h.next
	gapSeen := int64(0) // the Time of the first segment behind the gap; 0 there is none
	for i := h.front; i < len(h.waiting); i++ {
		w := &h.waiting[i]
		if w.off <= off && w.endOffset() >= end {
			fillsGap = false
		}
		if w.off >= off && gapSeen == 0 {
			gapSeen = w.time
		}
	}
	if fillsGap && (gapSeen == 0 || s.Time-gapSeen <= max(reorderTime, c.rtt)) {
		c.handler.Observe(d, Reordered, s.Time)
		return
	}
	c.handler.Observe(d, Retransmission, s.Time)
}

// deliverBytes hands the next bytes of d to the Handler; cut more behind them were cut off by the capture.
func (c *Conn) deliverBytes(d Dir, b []byte, cut int, at int64) {
	h := &c.half[d]
	if len(b) > 0 {
		c.handler.Data(d, b, at)
		h.delivered.record(h.next, b)
		h.next += int64(len(b))
	}
	if cut > 0 {
		c.giveUp(d, int64(cut), GapCut)
	}
	h.strays = 0
	if h.fin >= 0 && h.next > h.fin {
		h.fin = -1 // bytes behind it: it was none
	}
}

// record remembers b, which was delivered at off.
func (r *deliveredBytes) record(off int64, b []byte) {
	n := len(b)
	r.segments[r.segmentIndex&3] = deliveredSegment{off, int32(n), xxh3.Hash(b)}
	r.segmentIndex++
	if n >= len(r.tail) {
		r.tailLen = uint8(copy(r.tail[:], b[n-len(r.tail):]))
		return
	}
	keep := min(int(r.tailLen), len(r.tail)-n)
	copy(r.tail[:], r.tail[int(r.tailLen)-keep:r.tailLen])
	copy(r.tail[keep:], b)
	r.tailLen = uint8(keep + n)
}

// giveUp passes the next n bytes of d, which were never seen.
func (c *Conn) giveUp(d Dir, n int64, why GapReason) {
	h := &c.half[d]
	c.handler.Gap(d, int(n), why)
	h.next += n
	h.top = max(h.top, h.next)
	h.delivered.tailLen = 0
}
