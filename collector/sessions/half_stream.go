package sessions

// A halfStream is one direction of a TCP connection. Places in it are 64-bit offsets from the byte behind the SYN, or from the first
// byte that was seen; a 32-bit sequence number is taken as the offset nearest to next, so wrapping needs no care.
type halfStream struct {
	base uint32 // the sequence number of offset 0
	seen bool   // base is known
	syn  bool

	next int64 // offset of the next byte for the parser
	top  int64 // the highest end that was sent
	ack  int64 // how far the receiver has acknowledged

	snap, snapAt int64 // what ack was at that time of the clock; once the grace has passed it may be given up

	wait []segment // out of order, by offset, without overlaps
	head int       // of wait

	fin     int64 // offset of the FIN, -1 none
	finNeed int64
	ended   bool // the parser was told

	win      uint32 // what this side is ready to receive, scaled where that is known
	scale    int8   // -1 unknown
	zero     bool
	other    uint32 // the base of a second SYN-ACK
	hasOther bool

	packets, bytes  uint64
	missing         uint64
	retransmissions uint32
	strays          uint8
	strayEnd        int64

	recent  [4]deliveredSegment // the last segments that were delivered, to compare retransmissions with
	recentN uint8
	tail    [64]byte // the last bytes that were delivered, for the same
	tailN   uint8
}

// A segment waits for its turn.
type segment struct {
	off   int64
	b     []byte // from Table.bufs
	lost  int    // bytes behind b that were cut off
	need  int64  // how much of the other direction must be delivered first
	at    int64  // packet time
	clock int64
}

func (s *segment) end() int64 { return s.off + int64(len(s.b)+s.lost) }

// A deliveredSegment is what is remembered of a segment that was delivered.
type deliveredSegment struct {
	off  int64
	n    int32
	hash uint64
}

// maxAhead is the largest window that TCP can have (RFC 7323): nothing valid lies further ahead.
const maxAhead = 1 << 30

// windowUnknown is taken for the window of a side whose scale was not seen.
const windowUnknown = 4 << 20

func (h *halfStream) begin(base uint32) { h.base, h.seen = base, true }

// offset is the place of a sequence number.
func (h *halfStream) offset(seq uint32) int64 {
	return h.next + int64(int32(seq-(h.base+uint32(h.next))))
}

// reached tells that everything before n has been delivered. A receiver acknowledges a FIN like a byte.
func (h *halfStream) reached(n int64) bool { return n <= h.next || h.fin >= 0 && h.next >= h.fin }

// held tells that something of this direction has not been delivered though it should have been.
func (h *halfStream) held() bool { return h.head < len(h.wait) || h.ack > h.next }

// awaitingBytes tells that f waits for bytes.
func (f *flow) awaitingBytes() bool { return f.half[0].held() || f.half[1].held() }

// options reads the window scale of a SYN.
func (h *halfStream) options(header []byte) {
	if len(header) <= 20 {
		h.scale = 0
		return
	}
	h.scale = 0
	for o := header[20:]; len(o) > 0 && o[0] != 0; {
		if o[0] == 1 {
			o = o[1:]
			continue
		}
		if len(o) < 2 || o[1] < 2 || int(o[1]) > len(o) {
			return
		}
		if o[0] == 3 && o[1] == 3 {
			h.scale = int8(min(o[2], 14))
		}
		o = o[o[1]:]
	}
}

// window takes what a side advertises and tells whether it has just closed.
func (h *halfStream) window(win uint16, scaled bool) bool {
	h.win = uint32(win)
	if scaled && h.scale > 0 {
		h.win <<= uint(h.scale)
	}
	was := h.zero
	h.zero = win == 0
	return h.zero && !was && scaled
}

// room is how far beyond what is known this direction's sender may be, by what the receiver o has advertised.
func (h *halfStream) room(o *halfStream) int64 {
	switch {
	case o.packets == 0:
		return maxAhead
	case o.scale < 0 || h.scale < 0: // scaling holds only if both have asked for it, and one was not seen
		return max(int64(o.win), windowUnknown)
	}
	return int64(max(o.win, 64<<10))
}

// acknowledge takes an acknowledgement by o of this direction and gives how much of it must be delivered before what o sent with it.
// One that covers more than can have been sent is not believed: we would skip what is really sent. When much was not captured, the
// next segment of this direction shows where it is, and then its acknowledgement counts.
func (h *halfStream) acknowledge(off int64, o *halfStream) int64 {
	if h.fin >= 0 && off > h.fin {
		off = h.fin
	}
	if off <= h.ack {
		return max(off, 0)
	}
	if far := max(h.top, h.ack) + h.room(o) + 64<<10; off > h.next+maxAhead || h.packets > 0 && off > far {
		return h.ack
	}
	h.ack = off
	return off
}
