package reassembly

// holdSYNData keeps the payload of a SYN. A receiver takes it only with TCP Fast Open (RFC 7413), and drops it
// otherwise; whoever wants others to see it sends it again. So it is delivered only when it was acknowledged.
func (c *Conn) holdSYNData(dir Dir, segment *Segment) {
	half := &c.half[dir]
	c.handler.Observe(dir, Data, segment.Time)
	if half.next > 0 { // repeated, after its bytes were delivered
		return
	}
	c.dropSYNData(half)
	held := waitingSegment{b: c.pool.Get(len(segment.Payload)), time: segment.Time}
	copy(held.b, segment.Payload)
	held.lost = segment.Size - len(segment.Payload)
	half.synData = &held
	half.top = max(half.top, int64(segment.Size))
	c.pool.chargeConn(c, BufferCost(len(held.b)))
	c.enforceLimits()
}

// decideSYNData delivers the payload of the SYN of dir if its receiver has acknowledged all bytes before the
// offset acked, the payload among them, and drops it if the receiver has not.
func (c *Conn) decideSYNData(dir Dir, acked int64) {
	half := &c.half[dir]
	held := half.synData
	half.synData = nil
	if half.next == 0 && acked >= held.endOffset() {
		c.deliverBytes(dir, held.b, held.lost, held.time)
	}
	c.freeSegment(held)
}

// overtakeSYNData is called for a segment of dir at the offset off that comes before the payload of its SYN was
// acknowledged. A sender that continues behind the payload knows that it was; one that begins at the front
// sends it again.
func (c *Conn) overtakeSYNData(dir Dir, segment *Segment, off int64) {
	held := c.half[dir].synData
	if off >= held.endOffset() {
		c.decideSYNData(dir, off)
		return
	}
	n := min(len(held.b), len(segment.Payload))
	if off == 0 && n > 0 && string(held.b[:n]) != string(segment.Payload[:n]) {
		c.handler.Observe(dir, OverlapConflict, segment.Time)
	}
	if segment.Size > 0 {
		c.dropSYNData(&c.half[dir])
	}
}

// dropSYNData drops the payload of a SYN.
func (c *Conn) dropSYNData(half *halfStream) {
	if half.synData != nil {
		c.freeSegment(half.synData)
		half.synData = nil
	}
}
