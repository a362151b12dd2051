package reassembly

// A halfStream is one direction of a connection. Positions are offsets, see the package comment.
type halfStream struct {
	base    uint32 // the sequence number of offset 0
	based   bool   // base is known
	syn     bool   // the SYN was seen, so offset 0 is the first byte of the stream
	packets uint64

	next int64 // the offset of the next byte to deliver; everything before was delivered or given up
	top  int64 // the highest end of a segment that was seen
	ack  int64 // how far the receiver has acknowledged

	// What the receiver had acknowledged (graceAck) when the grace began (graceStart, of the clock; 0: it has
	// not begun). When the grace is over, everything before graceAck is delivered or given up.
	graceAck, graceStart int64

	waiting []waitingSegment // by offset, without overlaps; the first is waiting[front]
	front   int

	fin     int64 // the offset of the FIN, -1 none
	finNeed int64 // how much of the other direction must be delivered before End
	ended   bool  // Handler.End was called

	window      uint32 // that this side advertises, scaled as far as its scale is known
	windowScale int8   // from this side's SYN, -1 unknown
	windowZero  bool

	otherBase    uint32 // the base of a second SYN-ACK with another number
	hasOtherBase bool

	strays   uint8 // segments in a row outside of any window, each of which begins where the last one ended
	strayEnd int64

	delivered deliveredBytes
}

// A waitingSegment is a captured segment, or a part of one, that is not in order yet.
type waitingSegment struct {
	off   int64
	b     []byte // from the Pool
	lost  int    // bytes behind b that the capture cut off
	need  int64  // how much of the other direction must be delivered first
	time  int64  // Segment.Time
	since int64  // of the clock: when it began to wait
}

func (s *waitingSegment) endOffset() int64 { return s.off + int64(len(s.b)+s.lost) }

// deliveredBytes remembers the last bytes that were delivered, so that retransmissions can be compared with
// them: a hash of each of the last segments, and the last bytes themselves.
type deliveredBytes struct {
	segments     [4]deliveredSegment
	segmentIndex uint8
	tail         [64]byte
	tailLen      uint8
}

type deliveredSegment struct {
	off  int64
	n    int32
	hash uint64
}

// maxWindow is the largest window that TCP can have (RFC 7323): nothing valid lies further ahead.
const maxWindow = 1 << 30

// unknownWindow is taken for the window of a side whose scale was not seen.
const unknownWindow = 4 << 20

func (h *halfStream) setBase(base uint32) { h.base, h.based = base, true }

// offsetOf returns the offset that a sequence number stands for: the one nearest to next.
func (h *halfStream) offsetOf(seq uint32) int64 {
	return h.next + int64(int32(seq-(h.base+uint32(h.next))))
}

// reached reports whether everything before off was delivered or given up. A receiver acknowledges a FIN like
// a byte, so an offset behind the FIN is reached with the FIN.
func (h *halfStream) reached(off int64) bool { return off <= h.next || h.fin >= 0 && h.next >= h.fin }

// permits reports whether a segment of the other direction may be delivered that acknowledges this one up to
// need. If no segment of this direction was captured, nothing waits for it.
func (h *halfStream) permits(need int64) bool { return h.reached(need) || h.packets == 0 }

// incomplete reports whether something of this direction should have been delivered and was not: captured
// bytes wait, or the receiver has acknowledged bytes that were not captured.
func (h *halfStream) incomplete() bool { return h.front < len(h.waiting) || h.ack > h.next }

func (h *halfStream) numWaiting() int { return len(h.waiting) - h.front }

// readOptions reads the window scale (RFC 7323) from the options of a SYN.
func (h *halfStream) readOptions(options []byte) {
	const end, nop, windowScale = 0, 1, 3
	h.windowScale = 0
	for rest := options; len(rest) > 0 && rest[0] != end; {
		if rest[0] == nop {
			rest = rest[1:]
			continue
		}
		if len(rest) < 2 || rest[1] < 2 || int(rest[1]) > len(rest) {
			return
		}
		if rest[0] == windowScale && rest[1] == 3 {
			h.windowScale = int8(min(rest[2], 14)) // RFC 7323, section 2.3
		}
		rest = rest[rest[1]:]
	}
}

// setWindow takes the window that this side advertises. It reports whether the window has just closed; the
// window of a SYN is not scaled and does not count as one that closes.
func (h *halfStream) setWindow(window uint16, inSYN bool) (closed bool) {
	h.window = uint32(window)
	if !inSYN && h.windowScale > 0 {
		h.window <<= uint(h.windowScale)
	}
	wasZero := h.windowZero
	h.windowZero = window == 0
	return h.windowZero && !wasZero && !inSYN
}

// sendLimit returns how far past the highest byte seen h's sender may legitimately be, given the window that
// its peer advertised.
func (h *halfStream) sendLimit(peer *halfStream) int64 {
	switch {
	case peer.packets == 0:
		return maxWindow
	case peer.windowScale < 0 || h.windowScale < 0: // one SYN was not seen: without both the scale is not known
		return max(int64(peer.window), unknownWindow)
	}
	return int64(max(peer.window, 64<<10))
}

// acknowledge takes an acknowledgement of this direction up to off, which its peer sent. It returns how much
// of this direction must be delivered before what the peer sent with it.
//
// An acknowledgement of more bytes than can have been sent is not believed: bytes that are sent later would
// be skipped. When much was not captured, the next segment of this direction shows where it is, and then its
// acknowledgement counts.
func (h *halfStream) acknowledge(off int64, peer *halfStream) int64 {
	if h.fin >= 0 && off > h.fin {
		off = h.fin
	}
	if off <= h.ack {
		return max(off, 0)
	}
	limit := max(h.top, h.ack) + h.sendLimit(peer) + 64<<10
	if off > h.next+maxWindow || h.packets > 0 && off > limit {
		return h.ack
	}
	h.ack = off
	return off
}
