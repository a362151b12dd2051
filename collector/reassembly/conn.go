package reassembly

import "tidegate/pipeline/memory"

// A Conn is one TCP connection. The zero value is not ready: call Init.
type Conn struct {
	cfg     *Config
	pool    *Pool
	handler Handler

	half    [2]halfStream         // by Dir
	now     int64                 // the clock, as of the last call of Segment, Follow or Release
	rtt     int64                 // the round-trip time, ns; 0: not known
	waiting memory.Holding[*Conn] // the cost of the waiting segments of both directions

	established  bool  // a segment was acknowledged
	closing      bool  // reset, or both directions ended
	closingSince int64 // of the clock
	resetBy      uint8 // 1 + Dir of the side whose RST was accepted first; 0: none
	doubtSince   int64 // of the clock: a RST that the receiver may have ignored; 0: none, or it was
	follows      bool  // another Conn delivers the bytes
}

// Init resets c for a new connection and keeps the memory that c owns. Flush or Discard must come before,
// because Init does not return the buffers of waiting segments to the Pool.
func (c *Conn) Init(cfg *Config, pool *Pool, handler Handler) {
	if c.pool != nil {
		c.ForgetDelivered()
	}
	waiting0, waiting1 := reusable(c.half[0].waiting), reusable(c.half[1].waiting)
	*c = Conn{cfg: cfg, pool: pool, handler: handler}
	for dir := range c.half {
		c.half[dir].fin, c.half[dir].windowScale = -1, -1
		c.half[dir].repeatable = firstRepeated
	}
	c.half[0].waiting, c.half[1].waiting = waiting0, waiting1
}

// reusable returns an empty slice with the memory of waitingSegments, or nil if it is too large to be kept.
func reusable(waitingSegments []waitingSegment) []waitingSegment {
	if cap(waitingSegments) > 32 {
		return nil
	}
	return waitingSegments[:0]
}

// BeginAfterSYN records the SYN of dir when the SYN itself was not passed to Segment. first is the sequence
// number behind the SYN.
func (c *Conn) BeginAfterSYN(dir Dir, first uint32) {
	half := &c.half[dir]
	half.setBase(first)
	half.syn, half.packets = true, 1
}

// SetRTT sets the round-trip time. A segment that fills a gap after more than that counts as a
// retransmission.
func (c *Conn) SetRTT(rtt int64) { c.rtt = rtt }

// Segment handles a segment that dir has sent. now is the time of a clock that only goes forward, which
// measures the grace and the timeout of gaps.
func (c *Conn) Segment(dir Dir, segment *Segment, now int64) {
	c.now = now
	c.half[dir].packets++
	switch {
	case segment.hasFlag(SYN):
		c.handleSYN(dir, segment)
	case segment.hasFlag(RST):
		c.handleRST(dir, segment)
	default:
		c.handleSegment(dir, segment)
	}
	if c.Incomplete() {
		c.startGrace()
	}
}

// Replay handles a segment that was captured earlier, and of whose header only Seq is known.
func (c *Conn) Replay(dir Dir, segment *Segment, now int64) {
	c.now = now
	half := &c.half[dir]
	half.packets++
	if !half.based {
		half.setBase(segment.Seq)
	}
	c.handleData(dir, segment, half.offsetOf(segment.Seq), 0)
}

// Follow handles a segment of a connection whose bytes another Conn delivers. It only updates what Closing,
// Established, Ended and Packets return.
func (c *Conn) Follow(dir Dir, segment *Segment, now int64) {
	c.now, c.follows = now, true
	half := &c.half[dir]
	half.packets++
	if segment.hasFlag(ACK) && !segment.hasFlag(SYN) {
		c.established = true
	}
	if !segment.hasFlag(RST) {
		half.followTop(segment)
	}
	if segment.hasFlag(FIN) {
		c.half[dir].ended = true
	}
	if segment.hasFlag(RST) || c.half[0].ended && c.half[1].ended {
		c.startClosing()
	}
}

// Established reports whether a segment was acknowledged, so that both sides exist.
func (c *Conn) Established() bool { return c.established }

// Closing reports whether the connection was reset or both directions are complete. since is the time of the
// clock when that happened.
func (c *Conn) Closing() (since int64, closing bool) { return c.closingSince, c.closing }

// DoubtfulReset reports whether a RST was seen that the receiver ignores if it is stricter than the window,
// and nothing has shown since that the connection lives. since is the time of the clock when that happened.
func (c *Conn) DoubtfulReset() (since int64, doubtful bool) { return c.doubtSince, c.doubtSince != 0 }

// Ended reports whether d is complete.
func (c *Conn) Ended(d Dir) bool { return c.half[d].ended }

// ResetBy returns the side whose RST closed the connection. ok is false if none did.
func (c *Conn) ResetBy() (d Dir, ok bool) { return Dir(c.resetBy - 1), c.resetBy != 0 }

// Packets returns the number of segments that d has sent.
func (c *Conn) Packets(d Dir) uint64 { return c.half[d].packets }

// SYNSeen reports whether the SYN of d was seen.
func (c *Conn) SYNSeen(d Dir) bool { return c.half[d].syn }

// HasSent reports whether bytes or the FIN of d were seen.
func (c *Conn) HasSent(d Dir) bool { return c.half[d].top > 0 }

// FirstSeq returns the sequence number of the first byte of d, if it is known.
func (c *Conn) FirstSeq(d Dir) (seq uint32, known bool) { return c.half[d].base, c.half[d].based }

// NextSeq returns the sequence number of the next byte of d to deliver, while Handler.Data runs that of its
// first byte.
func (c *Conn) NextSeq(d Dir) uint32 { return c.half[d].base + uint32(c.half[d].next) }

// TopSeq returns the sequence number behind the last byte of d that was captured.
func (c *Conn) TopSeq(d Dir) uint32 { return c.half[d].base + uint32(c.half[d].top) }

// TurnSeq returns the sequence number of the first byte that d has sent since the other direction has.
func (c *Conn) TurnSeq(d Dir) uint32 { return c.half[d].base + uint32(c.half[d].turn) }

// Buffered returns the memory charged for the segments that wait.
func (c *Conn) Buffered() int { return c.waiting.Bytes() }

// Incomplete reports whether segments wait or acknowledged bytes are missing in either direction.
func (c *Conn) Incomplete() bool { return c.half[0].incomplete() || c.half[1].incomplete() }

// handleSYN handles a SYN, with or without ACK.
func (c *Conn) handleSYN(dir Dir, segment *Segment) {
	half, peer := &c.half[dir], &c.half[dir^1]
	base := segment.Seq + 1
	answer := segment.hasFlag(ACK)

	// Decide whether the SYN is the first one of its side, a repetition, or another one.
	switch {
	case half.syn && half.base == base:
		if answer {
			c.handler.Observe(dir, RepeatedSYNACK, segment.Time)
		} else {
			c.handler.Observe(dir, RepeatedSYN, segment.Time)
		}
	case half.syn && answer && half.top == 0 && peer.ack == 0 && !c.established:
		half.otherBase, half.hasOtherBase = base, true // a second SYN-ACK: handleACK selects the one that counts
		return
	case half.based && half.base != base:
		return // a SYN in the middle of a stream does not belong to this connection
	default:
		if !half.based {
			half.setBase(base)
		}
		half.syn = true
		if answer {
			c.handler.Observe(dir, FirstSYNACK, segment.Time)
		} else {
			c.handler.Observe(dir, FirstSYN, segment.Time)
		}
	}

	// From here on base is half.base, and offset 0 is the first byte behind the SYN.
	half.setWindow(segment.Window, true)
	half.readOptions(segment.Options)
	if answer {
		if !peer.based {
			peer.setBase(segment.Ack)
		}
		acked := peer.acknowledge(peer.offsetOf(segment.Ack), half)
		if peer.synData != nil {
			c.decideSYNData(dir^1, acked)
		}
	}
	if segment.Size > 0 {
		c.holdSYNData(dir, segment)
	}
	if segment.hasFlag(FIN) {
		c.handleFIN(dir, segment, int64(segment.Size), 0)
		c.deliverReady()
	}
}

// handleSegment handles a segment that is neither SYN nor RST.
func (c *Conn) handleSegment(dir Dir, segment *Segment) {
	half, peer := &c.half[dir], &c.half[dir^1]
	if !half.based {
		c.startMidStream(dir, segment)
	}
	off := half.offsetOf(segment.Seq)

	// The acknowledgement comes first: need is the offset of the other direction up to which bytes must be
	// delivered before this segment.
	need := int64(0)
	if c.closing || c.doubtSince != 0 {
		c.checkAlive(dir, segment, off)
	}
	if segment.hasFlag(ACK) {
		need = c.handleACK(dir, segment)
	}
	if half.setWindow(segment.Window, false) {
		c.handler.Observe(dir, ZeroWindow, segment.Time)
	}

	if half.synData != nil {
		c.overtakeSYNData(dir, segment, off)
	}
	if segment.hasFlag(URG) {
		c.markUrgent(dir, segment, off)
	}

	// Deliver or store the payload, then the FIN behind it.
	switch {
	case segment.Size == 1 && off == half.next-1 && !segment.hasFlag(FIN) && c.isKeepAlive(dir, segment, off):
		return
	case segment.Doubtful && segment.Size > 0 && c.holdDoubtful(dir, segment, off):
	case segment.Size > 0:
		half.repeatable = min(half.repeatable+int64(len(segment.Payload))+repeatedPerSegment, maxRepeated)
		if half.doubtful != nil {
			c.decideDoubtful(dir, off, true)
		}
		c.handleData(dir, segment, off, need)
	case segment.hasFlag(ACK) && !segment.hasFlag(FIN):
		c.handler.Observe(dir, PureACK, segment.Time)
	}
	if segment.hasFlag(FIN) {
		c.handleFIN(dir, segment, off+int64(segment.Size), need)
	}

	// Waiting segments or a FIN may have waited for the bytes or the acknowledgement of this segment.
	if c.Buffered() > 0 || half.fin >= 0 || peer.fin >= 0 || peer.incomplete() || half.incomplete() {
		c.deliverReady()
	}
}

// isKeepAlive reports whether segment, of the last byte of dir at the offset off, is a keep-alive (RFC 1122,
// section 4.2.3.6). Its byte is not data, and may have any value, since the receiver has acknowledged the
// real one. Where it has not, the byte is sent again because it was lost.
func (c *Conn) isKeepAlive(dir Dir, segment *Segment, off int64) bool {
	if c.half[dir^1].packets > 0 {
		return c.half[dir].ack > off
	}
	return len(segment.Payload) == 0 || segment.Payload[0] == 0 || !c.compareDelivered(dir, off, segment.Payload).conflicts
}

// startMidStream sets offset 0 of a direction whose SYN was not seen to its first captured segment.
func (c *Conn) startMidStream(dir Dir, segment *Segment) {
	half, peer := &c.half[dir], &c.half[dir^1]
	half.setBase(segment.Seq)
	if segment.hasFlag(ACK) && !peer.based {
		peer.setBase(segment.Ack)
	}
}

// handleACK handles the acknowledgement in a segment from dir. It returns the offset of the other direction
// up to which bytes must be delivered before the segment.
func (c *Conn) handleACK(dir Dir, segment *Segment) int64 {
	half, peer := &c.half[dir], &c.half[dir^1]
	if !peer.based {
		peer.setBase(segment.Ack)
	}
	if peer.hasOtherBase { // the peer sent two SYN-ACKs: the acknowledged one counts
		if peer.otherBase == segment.Ack {
			peer.base = segment.Ack
		}
		peer.hasOtherBase = false
	}

	// A sender of so many segments without a captured answer has a peer that is not captured.
	if peer.packets > 0 || half.packets > 8 {
		c.established = true
	}
	off := peer.offsetOf(segment.Ack)
	if peer.strays != nil {
		c.ackStrays(dir^1, segment.Ack, off, half)
		off = peer.offsetOf(segment.Ack)
	}
	before := peer.ack
	need := peer.acknowledge(off, half)
	if peer.ack > before || peer.ack < peer.next || peer.unacknowledged {
		c.checkAcknowledged(dir^1, peer.ack > before)
	}
	if peer.synData != nil {
		c.decideSYNData(dir^1, need)
	}
	if peer.doubtful != nil {
		c.decideDoubtful(dir^1, need, false)
	}
	return need
}
