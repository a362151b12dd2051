package reassembly

// This file has segments of which the caller doubts that the receiver has taken them (Segment.Doubtful). The bytes
// are held. They are delivered when the receiver acknowledges them, or their sender goes on behind them, and
// dropped when the sender sends others in their place.

// maxDoubtful bounds the bytes that are held in a direction.
const maxDoubtful = 64 << 10

// holdDoubtful holds the payload of a segment at the offset off if it is the next of its direction, or follows what
// is held. It reports whether it does; otherwise the segment is handled as any other.
func (c *Conn) holdDoubtful(dir Dir, segment *Segment, off int64) bool {
	half := &c.half[dir]
	held, captured := half.doubtful, len(segment.Payload) == segment.Size
	if c.half[dir^1].packets == 0 || !captured || half.numWaiting() > 0 {
		return false
	}
	switch {
	case held == nil && off == half.next:
		half.doubtful = &waitingSegment{off: off, b: append([]byte(nil), segment.Payload...), time: segment.Time}
	case held != nil && off == held.endOffset() && len(held.b)+segment.Size <= maxDoubtful:
		c.pool.chargeConn(c, -BufferCost(len(held.b)))
		held.b = append(held.b, segment.Payload...)
	default:
		return false
	}
	half.top = max(half.top, half.doubtful.endOffset())
	c.handler.Observe(dir, Data, segment.Time)
	c.pool.chargeConn(c, BufferCost(len(half.doubtful.b)))
	c.enforceLimits()
	return true
}

// decideDoubtful delivers what is held of dir if the offset reached is at its end or behind it, and drops it if other
// is set, because other bytes come in its place.
func (c *Conn) decideDoubtful(dir Dir, reached int64, other bool) {
	half := &c.half[dir]
	held := half.doubtful
	if held == nil || !other && reached < held.endOffset() {
		return
	}
	half.doubtful = nil
	c.pool.chargeConn(c, -BufferCost(len(held.b)))
	if reached >= held.endOffset() && half.next == held.off {
		c.deliverBytes(dir, held.b, 0, held.time)
		return
	}
	c.handler.Observe(dir, DoubtfulDropped, held.time)
}

// dropDoubtful drops what is held.
func (c *Conn) dropDoubtful(half *halfStream) {
	if half.doubtful != nil {
		c.pool.chargeConn(c, -BufferCost(len(half.doubtful.b)))
		half.doubtful = nil
	}
}
