package reassembly

// A halfStream is one direction of a connection. Positions are offsets, see the package comment.
type halfStream struct {
	base    uint32 // the sequence number of offset 0
	based   bool   // base is known
	syn     bool   // the SYN was seen, so offset 0 is the first byte of the stream
	packets uint64

	next int64 // the offset of the next byte to deliver; every byte before was delivered or given up
	turn int64 // the value of next when the last bytes of the other direction were delivered
	top  int64 // the highest end of a captured segment
	ack  int64 // the highest offset that the receiver has acknowledged

	// unackedSince is the time of the clock since which the receiver has acknowledged nothing of what is before next.
	// unacknowledged is set if it went on to send.
	unackedSince   int64
	unacknowledged bool

	// graceAck is the value of ack when the current grace began, at graceStart by the clock; 0: no grace
	// runs. When the grace is over, every byte before graceAck is delivered or given up.
	graceAck, graceStart int64

	waiting []waitingSegment // sorted by offset, without overlaps; the first is waiting[front]
	front   int

	fin     int64 // the offset of the FIN; -1: none
	finNeed int64 // the offset of the other direction up to which bytes must be delivered before End
	ended   bool  // complete; taken back when bytes follow

	endReported bool // Handler.End was called

	urgent   int64 // the offset of the urgent byte, if isUrgent is set
	isUrgent bool
	doubtful *waitingSegment // see doubtful.go; nil: none
	synData  *waitingSegment // the payload of the SYN, while it is not acknowledged; nil: none

	window      uint32 // that this side advertises, scaled if the scale is known
	windowScale int8   // from this side's SYN; -1: unknown
	windowZero  bool

	otherBase    uint32 // the base of a second SYN-ACK with another number
	hasOtherBase bool

	strays   *strays        // nil: there is none
	gaps     [4]offsetRange // the last ranges that were given up
	gapIndex uint8          // of the next one, modulo the length

	shift      int64 // the sum of what rewind has added to the offsets
	repeatable int64 // bytes that rewind may deliver again

	delivered uint64          // the number, plus one, of the newest run in the Pool's deliveredRing
	pinned    *waitingSegment // delivered bytes that the ring has lost before they were acknowledged; nil: none

	// uncopied covers every unacknowledged delivered byte without a copy; it may cover others. from ≥ to: none.
	uncopied offsetRange
}

// A waitingSegment is a segment, or a part of one, that cannot be delivered yet.
type waitingSegment struct {
	off   int64
	b     []byte // from the Pool
	lost  int    // bytes behind b that the capture cut off
	need  int64  // the offset of the other direction up to which bytes must be delivered first
	time  int64  // Segment.Time
	since int64  // by the clock: when it began to wait
}

func (s *waitingSegment) endOffset() int64 { return s.off + int64(len(s.b)+s.lost) }

// maxWindow is the largest window of TCP (RFC 7323). No valid segment is further ahead.
const maxWindow = 1 << 30

// unknownWindow is the window that is assumed while a scale is unknown.
const unknownWindow = 4 << 20

func (h *halfStream) setBase(base uint32) { h.base, h.based = base, true }

// offsetOf returns the offset of a sequence number: of all possible ones the offset nearest to next.
func (h *halfStream) offsetOf(seq uint32) int64 {
	return h.next + int64(int32(seq-(h.base+uint32(h.next))))
}

// reached reports whether every byte before off was delivered or given up. An acknowledgement of a FIN is one
// higher than the offset of the FIN, so an offset behind the FIN counts as reached at the FIN.
func (h *halfStream) reached(off int64) bool { return off <= h.next || h.fin >= 0 && h.next >= h.fin }

// permits reports whether the other direction may deliver a segment that acknowledges h up to need. If no
// segment of h was captured, the other direction does not wait for h.
func (h *halfStream) permits(need int64) bool { return h.reached(need) || h.packets == 0 }

// incomplete reports whether h is behind: segments wait, or the receiver has acknowledged bytes that were not
// captured.
func (h *halfStream) incomplete() bool { return h.front < len(h.waiting) || h.ack > h.next }

func (h *halfStream) numWaiting() int { return len(h.waiting) - h.front }

// readOptions reads the window scale (RFC 7323) from the options of a SYN.
func (h *halfStream) readOptions(options []byte) {
	const end, nop, windowScale = 0, 1, 3
	h.windowScale = 0 // a SYN without the option does not scale
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

// setWindow stores the window that this side advertises, and reports whether the window has just closed. The
// window of a SYN is not scaled and never counts as closed.
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
	case peer.windowScale < 0 || h.windowScale < 0: // a SYN was not seen, and the scale needs both
		return max(int64(peer.window), unknownWindow)
	}
	return int64(max(peer.window, 64<<10))
}

// acknowledge handles an acknowledgement of h up to off, sent by peer. It returns the offset up to which h
// must be delivered before the segment with the acknowledgement.
//
// An acknowledgement of more bytes than can have been sent is ignored: it would make bytes that are sent
// later count as missing. After a long loss in the capture, the next segment of h raises h.top, and then its
// acknowledgement is accepted.
func (h *halfStream) acknowledge(off int64, peer *halfStream) int64 {
	if h.fin >= 0 && off > h.fin {
		off = h.fin
	}
	if off <= h.ack { // nothing new
		return max(off, 0)
	}
	limit := max(h.top, h.ack) + h.sendLimit(peer) + 64<<10

	if off > h.next+maxWindow || h.packets > 0 && off > limit {
		return h.ack
	}
	h.ack = off
	return off
}
