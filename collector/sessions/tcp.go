package sessions

import (
	"tidegate/protocols"
)

// handleTCP takes the segment at hand.
func (t *Table) handleTCP() {
	p := &t.p
	k, side := p.key()
	f := t.flows[k]
	if f != nil && (f.dead || p.flags&flagSYN != 0 || f.synPending) {
		f = t.reuseOrReplace(f, side)
	}
	fresh := f == nil
	if fresh {
		f = t.openFlow(k, side)
	}
	if f.dead {
		f.handleLate()
		return
	}
	d := protocols.Dir(side ^ f.side)
	f.seen, f.last = t.clock, max(f.last, p.at)
	h := &f.half[d]
	h.packets++
	if f.dedup == duplicate {
		f.trackDuplicate(d)
		return
	}
	if p.flags&flagSYN != 0 {
		f.handleSYN(d)
	} else {
		f.handleSegment(d)
	}
	f.closeIfDuplicate()
	if fresh || f.awaitingBytes() || f.isClosing || len(f.outbox) > 0 {
		f.schedule()
	}
}

// handleLate takes a segment of a connection that is over and has been told of: an end that is sent again because nobody acknowledges it,
// at intervals that double. It is remembered for as long as the next one may take, or that would look like another connection.
func (f *flow) handleLate() {
	t := f.t
	t.m.segments["late"].Inc()
	f.due = t.clock + timeWait + min(3*(t.clock-f.seen), maxLate)
	f.seen = t.clock
	t.fix(f)
}

const maxLate = int64(150e9)

// reuseOrReplace tells whether the packet at hand belongs to f, which had the same tuple, or begins a new connection; then f is ended and
// nil returned. A SYN on an established connection is only believed when the other side answers it, or its sender goes on from
// it: RFC 5961 has the receiver challenge it, and a forged one must not cut a session in two.
func (t *Table) reuseOrReplace(f *flow, side uint8) *flow {
	p := &t.p
	d := protocols.Dir(side ^ f.side)
	h, o := &f.half[d], &f.half[d^1]
	switch {
	case p.flags&flagRST != 0:
		return f
	case f.dead && !f.isClosing: // it only was silent
		t.replaceFlow(f, "")
		return nil
	case p.flags&(flagSYN|flagACK) == flagSYN:
		switch {
		case h.seen && p.seq+1 == h.base && !f.dead:
			return f // once more, or late
		case f.dead, f.isClosing, !h.syn && !o.syn, h.syn && o.packets == 0:
			t.replaceFlow(f, f.closedState())
			return nil
		case !h.seen && o.syn: // both open at once
			return f
		}
		f.synPending, f.pendingSeq, f.pendingAt = true, p.seq+1, p.at
	case p.flags&flagSYN != 0:
		if f.synPending && p.ack == f.pendingSeq {
			return t.startPending(f, side^1)
		}
		if f.dead && p.seq+1 != h.base {
			t.replaceFlow(f, "")
			return nil
		}
	case f.synPending && p.seq == f.pendingSeq && d == protocols.Client && p.flags&flagACK != 0:
		return t.startPending(f, side)
	}
	return f
}

// startPending begins the connection whose SYN came while f was established; side sent it.
func (t *Table) startPending(f *flow, side uint8) *flow {
	k, seq, at := f.key, f.pendingSeq, f.pendingAt
	t.replaceFlow(f, f.closedState())
	n := t.openFlow(k, side)
	n.side, n.directionConfidence = side, 100
	n.first = at
	n.half[0].begin(seq)
	n.half[0].syn = true
	n.half[0].packets = 1
	n.synAt = at
	n.addHistory('S', protocols.Client)
	n.openConn(seq-1, false)
	return n
}

// trackDuplicate follows a connection that another copy speaks for, only so far that its end is seen.
func (f *flow) trackDuplicate(d protocols.Dir) {
	p := &f.t.p
	if p.flags&flagACK != 0 && p.flags&flagSYN == 0 {
		f.established = true
	}
	if p.flags&flagFIN != 0 {
		f.half[d].ended = true
	}
	if p.flags&flagRST != 0 || f.half[0].ended && f.half[1].ended {
		f.startClosing()
		f.schedule()
	}
}

// handleSYN takes a SYN, with or without ACK.
func (f *flow) handleSYN(d protocols.Dir) {
	p := &f.t.p
	h, o := &f.half[d], &f.half[d^1]
	base := p.seq + 1
	answer := p.flags&flagACK != 0
	switch {
	case h.syn && h.base == base:
		if answer {
			f.synAckAgain++
			f.synAckAt = p.at
		} else {
			f.synAgain++
			f.synAt = p.at
		}
		f.addHistory('T', d)
	case h.syn && answer && h.top == 0 && o.ack == 0 && !f.established:
		h.other, h.hasOther = base, true // two answers: the client's ACK tells which one counts
		return
	case h.seen && h.base != base:
		return // in the middle of a stream: not one of this connection
	default:
		if !h.seen {
			h.begin(base)
		}
		h.syn, f.partialStart = true, false
		f.recordHandshake(d, answer)
	}
	h.window(p.win, false)
	h.options(p.header)
	if f.conn == nil && f.session == zeroID {
		if answer {
			if !o.seen {
				o.begin(p.ack)
			}
			f.openConn(p.ack-1, false)
		} else {
			f.openConn(p.seq, false)
		}
	}
	if answer && o.seen {
		o.acknowledge(o.offset(p.ack), h)
	}
	if p.size > 0 { // RFC 7413
		f.handleData(d, 0, p.payload, p.size, 0)
	}
	if p.flags&flagFIN != 0 {
		f.handleFIN(d, int64(p.size), 0)
		f.deliverReady()
	}
}

// recordHandshake notes the times of a first SYN or its answer.
func (f *flow) recordHandshake(d protocols.Dir, answer bool) {
	p := &f.t.p
	if !answer {
		f.synAt = p.at
		f.addHistory('S', d)
		if d == protocols.Client {
			f.directionConfidence = 100
		}
		return
	}
	f.addHistory('H', d)
	f.synAckAt = p.at
	if f.synAt != 0 && d == protocols.Server {
		f.rttServer = max(p.at-f.synAt, 0)
	}
}

// handleSegment takes what is not a SYN.
func (f *flow) handleSegment(d protocols.Dir) {
	p := &f.t.p
	h, o := &f.half[d], &f.half[d^1]
	fin, rst, ack := p.flags&flagFIN != 0, p.flags&flagRST != 0, p.flags&flagACK != 0
	if rst {
		f.handleRST(d)
		return
	}
	if !h.seen {
		f.startMidStream(d)
	}
	off := h.offset(p.seq)
	need := int64(0)
	if ack {
		need = f.handleACK(d)
	}
	if h.window(p.win, true) {
		f.zeroWindows++
		f.addHistory('W', d)
	}
	if p.size > 0 {
		if p.size == 1 && off == h.next-1 && !fin {
			return // a keep-alive, whose byte means nothing
		}
		f.handleData(d, off, p.payload, p.size, need)
	} else if ack && !fin {
		f.addHistory('A', d)
	}
	if fin {
		f.handleFIN(d, off+int64(p.size), need)
	}
	if f.bufferedBytes > 0 || f.half[0].fin >= 0 || f.half[1].fin >= 0 || o.held() || h.held() {
		f.deliverReady()
	}
}

// startMidStream begins a direction whose SYN was not seen.
func (f *flow) startMidStream(d protocols.Dir) {
	p := &f.t.p
	h, o := &f.half[d], &f.half[d^1]
	h.begin(p.seq)
	if p.flags&flagACK != 0 && !o.seen {
		o.begin(p.ack)
	}
	if f.session == zeroID {
		f.openConn(p.seq, true)
	}
}

// handleACK takes the acknowledgement that d sends and gives how much of the other direction it covers.
func (f *flow) handleACK(d protocols.Dir) int64 {
	p := &f.t.p
	h, o := &f.half[d], &f.half[d^1]
	if !o.seen {
		o.begin(p.ack)
	}
	if o.hasOther {
		if o.other == p.ack {
			o.base = p.ack
		}
		o.hasOther = false
	}
	off := o.offset(p.ack)
	if d == protocols.Client && f.synAckAt != 0 && f.rttClient == 0 && !f.established {
		f.rttClient = max(p.at-f.synAckAt, 0)
	}
	if o.packets > 0 || h.packets > 8 {
		f.established = true
	}
	return o.acknowledge(off, h)
}

func (f *flow) handleFIN(d protocols.Dir, end, need int64) {
	h := &f.half[d]
	f.addHistory('F', d)
	if !h.ended && end >= h.next && end-h.top <= maxAhead {
		h.fin, h.finNeed = end, need
		h.ack = min(h.ack, end)
		h.top = max(h.top, end)
	}
}

// handleRST takes a reset. It counts when its number lies in the window (RFC 5961, section 3): a receiver that is stricter goes
// on, and then so do we, as soon as the sender of the reset sends something new.
func (f *flow) handleRST(d protocols.Dir) {
	p := &f.t.p
	h, o := &f.half[d], &f.half[d^1]
	switch {
	case !h.seen && o.seen: // an answer to a SYN, or to something in the middle
		if p.flags&flagACK != 0 && o.offset(p.ack) < -1 {
			return
		}
		f.rstOff = math31
	case !h.seen:
		f.startMidStream(d)
		f.rstOff = 0
	default:
		off := h.offset(p.seq)
		zero := p.seq == 0 && p.flags&flagACK != 0 && !h.syn && h.top == 0
		if low := min(h.ack, h.next); !zero && (off < low-1 || off > max(h.top, h.ack)+h.room(o)) {
			f.t.m.segments["outside_window"].Inc()
			return
		}
		f.rstOff = off
	}
	f.addHistory('R', d)
	if f.session == zeroID {
		f.openConn(p.seq, true)
	}
	if f.rst == 0 {
		f.rst = uint8(d) + 1
	}
	f.startClosing()
}

const math31 = 1<<31 - 1
