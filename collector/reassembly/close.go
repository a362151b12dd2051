package reassembly

import (
	"bytes"
	"slices"
)

// This file has the end of a connection. One segment of an observed party may show an end that the other
// party ignores: a RST or a FIN that it never got or did not accept. So every end can be taken back. Two
// kinds of segments show that the connection lives, since neither party sends them after its end: new bytes,
// and acknowledgements of new bytes.

// inFlight is the shortest time, ns, for which the receiver of a RST may go on: its segments were on their
// way.
const inFlight = int64(200e6)

// startClosing moves c to the state closing.
func (c *Conn) startClosing() {
	c.doubtSince = 0
	if !c.closing {
		c.closing, c.closingSince = true, c.now
	}
}

// handleFIN handles a FIN from dir at the offset end. It ignores a FIN before delivered bytes or outside any
// window.
func (c *Conn) handleFIN(dir Dir, segment *Segment, end, need int64) {
	half := &c.half[dir]
	c.handler.Observe(dir, CloseRequest, segment.Time)
	if c.half[dir^1].packets > 0 && end < half.next && end >= half.ack && !half.ended && !segment.Doubtful {
		c.handler.Observe(dir, OverlapConflict, segment.Time) // bytes were delivered that the sender does not count
	}
	if !half.ended && end >= half.next && end-half.top <= maxWindow {
		half.fin, half.finNeed = end, need
		half.ack = min(half.ack, end) // the FIN is not a byte that could be missing
		half.top = max(half.top, end)
	}
}

// handleRST handles a RST. Only a RST with the number that its receiver expects next closes the connection.
// The receiver answers any other one in its window with a challenge (RFC 5961, section 3), and the connection
// goes on. Since the capture may have missed segments, such a RST leaves c in doubt until checkAlive finds a
// sign of life, or the caller has waited long enough.
func (c *Conn) handleRST(dir Dir, segment *Segment) {
	half, peer := &c.half[dir], &c.half[dir^1]
	expected := true
	switch {
	case !half.based && peer.based: // the first segment of dir: it answers a segment of the peer
		if segment.hasFlag(ACK) && peer.offsetOf(segment.Ack) < -1 {
			return
		}
	case !half.based:
		c.startMidStream(dir, segment)
	default:
		off := half.offsetOf(segment.Seq)

		// A host that rejects a SYN numbers its RST 0.
		rejectedSYN := segment.Seq == 0 && segment.hasFlag(ACK) && !half.syn && half.top == 0
		low, high := min(half.ack, half.next)-1, max(half.top, half.ack)+half.sendLimit(peer)
		if !rejectedSYN && (off < low || off > high) {
			c.handler.Observe(dir, OutsideWindow, segment.Time)
			return
		}
		expected = rejectedSYN || half.expects(off)
	}

	c.handler.Observe(dir, ValidReset, segment.Time)
	if c.resetBy == 0 {
		c.resetBy = uint8(dir) + 1
	}
	switch {
	case expected:
		c.startClosing()
	case !c.closing && c.doubtSince == 0:
		c.doubtSince = c.now
	}
}

// expects reports whether off may be the number that the receiver of h expects next: the highest that it has
// acknowledged, or that behind the bytes and the FIN that it should have by now.
func (h *halfStream) expects(off int64) bool {
	return off == h.ack || off == h.next || h.fin >= 0 && (off == h.fin || off == h.fin+1)
}

// checkAlive takes the end of the connection back if segment, from dir at the offset off, shows that it
// lives.
func (c *Conn) checkAlive(dir Dir, segment *Segment, off int64) {
	half, peer := &c.half[dir], &c.half[dir^1]
	bySender := c.resetBy == uint8(dir)+1
	newBytes := half.hasNewBytes(segment, off)
	newAck := segment.hasFlag(ACK) && peer.based && peer.isNewAck(peer.offsetOf(segment.Ack))
	switch {
	case c.resetBy == 0: // closed by FINs
		if !newBytes {
			return
		}
	case bySender: // who has closed its side neither sends bytes nor acknowledges any
		if !newBytes && !newAck {
			return
		}
	case c.closing: // the receiver's segments may have been on their way when the RST came
		if !newBytes && !newAck || c.now-c.closingSince < max(inFlight, 4*c.rtt) {
			return
		}
	}
	c.closing, c.resetBy, c.doubtSince = false, 0, 0
	if newBytes && half.ended {
		half.ended, half.fin = false, -1
	}
}

// hasNewBytes reports whether segment, at the offset off, has bytes behind all that were seen of h. The byte
// of a keep-alive is not one.
func (h *halfStream) hasNewBytes(segment *Segment, off int64) bool {
	end := off + int64(segment.Size)
	return segment.Size > 0 && end > h.top && end-h.top <= maxWindow
}

// isNewAck reports whether off acknowledges bytes of h for the first time. An acknowledgement of a FIN does
// not.
func (h *halfStream) isNewAck(off int64) bool {
	known := h.ack
	if h.fin >= 0 && h.ack >= h.fin || h.ended {
		known++
	}
	return off > known && off <= known+maxWindow
}

// ShowsLife reports whether segment, which dir has sent after the end of the connection, cannot be a late or
// repeated one: it has bytes that were never seen, or acknowledges some.
func (c *Conn) ShowsLife(dir Dir, segment *Segment) bool {
	half, peer := &c.half[dir], &c.half[dir^1]
	if segment.hasFlag(RST) || segment.hasFlag(SYN) {
		return false
	}
	if segment.Size > 0 {
		end := half.offsetOf(segment.Seq) + int64(segment.Size)
		if !half.based || end > half.top || end < half.top-half.repeatLimit(peer) {
			return true
		}
	}
	if !segment.hasFlag(ACK) || !peer.based {
		return false
	}
	acked := peer.offsetOf(segment.Ack)
	return acked > max(peer.top, peer.ack)+1 && acked <= peer.top+maxWindow
}

// Contradicts reports whether segment, which dir has sent after the end of the connection, has other bytes than those
// that were delivered in their place and not acknowledged.
func (c *Conn) Contradicts(dir Dir, segment *Segment) bool {
	half := &c.half[dir]
	if !half.based || segment.Doubtful || segment.hasFlag(RST) || segment.hasFlag(SYN) {
		return false
	}
	off := half.offsetOf(segment.Seq)
	acknowledged := min(max(half.ack-off, 0), int64(len(segment.Payload)))
	return c.compareDelivered(dir, off+acknowledged, segment.Payload[acknowledged:]).conflicts
}

// repeatLimit returns how far behind the highest byte of h its sender may repeat bytes: it repeats only what
// peer has not acknowledged, which is within the window of peer.
func (h *halfStream) repeatLimit(peer *halfStream) int64 {
	return min(h.sendLimit(peer), unknownWindow) + 64<<10
}

// CopyFollowed keeps a copy of the payload of a segment for Delivered, before Follow handles the segment. Of bytes that
// come twice the first ones are kept.
func (c *Conn) CopyFollowed(dir Dir, segment *Segment) {
	half := &c.half[dir]
	if segment.Size == 0 || len(segment.Payload) < segment.Size || segment.Doubtful || segment.Flags&(SYN|RST) != 0 {
		return
	}
	if c.follows = true; !half.based {
		half.setBase(segment.Seq)
	}
	off := half.offsetOf(segment.Seq)
	passed := max(half.next-off, 0)
	if passed > 0 && passed <= maxWindow {
		c.fillFollowed(dir, off, segment.Payload[:min(passed, int64(segment.Size))])
	}
	if passed < int64(segment.Size) && off-half.next <= maxWindow {
		c.recordDelivered(dir, off+passed, segment.Payload[passed:])
		c.half[dir^1].turn = c.half[dir^1].next
	}
}

// Bounds of fillFollowed for a late segment, so that one byte does not cost as much as a ring.
const (
	maxRefilled     = 64 << 10 // bytes that are written
	maxRefilledRuns = 128      // runs that lie behind it
)

// fillFollowed keeps a copy of the bytes of data, late ones at the offset off, that have none. The runs are in the order
// of their offsets, so those behind off are written again.
func (c *Conn) fillFollowed(dir Dir, off int64, data []byte) {
	half, ring := &c.half[dir], &c.pool.delivered
	whole, known, behind := offsetRange{off, off + int64(len(data))}, int64(0), int64(len(data))
	var runs []*deliveredRun // the last one first
	for run := ring.runAt(half.delivered); run != nil && run.endOffset()+half.shift > off; run = ring.runAt(run.previous) {
		kept := offsetRange{max(run.off+half.shift, off), run.endOffset() + half.shift}
		known += max(kept.overlap(whole).size(), 0)
		if behind += kept.size(); behind > maxRefilled || len(runs) == maxRefilledRuns {
			return
		}
		runs = append(runs, run)
	}
	if known == whole.size() {
		return
	}

	// The bytes of the ring are overwritten meanwhile.
	type part struct {
		off int64
		b   []byte
	}
	var parts []part
	next := off // every byte of data before it is in parts
	add := func(to int64) {
		if to = min(to, whole.to); next < to {
			parts = append(parts, part{next, data[next-off : to-off]})
			next = to
		}
	}
	for _, run := range slices.Backward(runs) {
		from, b := run.off+half.shift, ring.bytesOf(run)
		if from < off {
			from, b = off, b[off-from:]
		}
		add(from)
		parts = append(parts, part{from, bytes.Clone(b)})
		next = max(next, from+int64(len(b)))
	}
	add(whole.to)
	c.forgetFrom(dir, off)
	for _, part := range parts {
		c.recordDelivered(dir, part.off, part.b)
	}
}

// followTop updates the highest byte of a direction whose bytes another Conn delivers.
func (h *halfStream) followTop(segment *Segment) {
	if !h.based {
		h.setBase(segment.Seq)
	}
	off := h.offsetOf(segment.Seq)
	if segment.hasFlag(SYN) {
		off++
	}
	if end := off + int64(segment.Size); end > h.top && end-h.top <= maxWindow {
		h.top, h.next = end, end
	}
}
