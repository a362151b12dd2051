package sessions

import (
	"tidegate/collector/reassembly"
)

// A pendingSYN is a SYN with another sequence number that came on an established connection. It is only
// believed when the other side answers it or its sender goes on from it: RFC 5961 has the receiver challenge
// such a SYN, and a forged one must not cut a session in two.
type pendingSYN struct {
	seen     bool
	firstSeq uint32 // the sequence number behind the SYN
	at       int64  // packet time
}

// handleTCP hands a TCP packet to its flow, which it opens if there is none.
func (t *Table) handleTCP(p *packet) {
	k, sender := p.flowKey()
	f := t.flows[k]
	if f != nil && (f.dead || p.Flags&reassembly.SYN != 0 || f.pendingSYN.seen) {
		f = t.reuseOrReplace(f, p, sender)
	}
	isNew := f == nil
	if isNew {
		f = t.openFlow(p, k, sender)
	}
	if f.dead {
		f.handleLate()
		return
	}

	d := reassembly.Dir(sender ^ f.clientSide)
	f.lastSeen, f.last = t.clock.now, max(f.last, p.Time)
	f.stats.sides[d].packets++
	if f.dedup.state == duplicate {
		f.followDuplicate(p, d)
		return
	}
	if isNew {
		f.openProtocol(p.startSeq())
	}
	f.measureClientRTT(p, d)
	f.stream.Segment(d, &p.Segment, t.clock.now)
	f.closeIfDuplicate()
	_, closing := f.stream.Closing()
	if isNew || closing || f.stream.Incomplete() || len(f.outbox.events) > 0 {
		f.schedule()
	}
}

// startSeq returns the number by which the session that begins with p is known, that of the client's SYN
// where it is known, and whether p is from the middle of a stream.
func (p *packet) startSeq() (seq uint32, midStream bool) {
	switch {
	case p.isSYN():
		return p.Seq, false
	case p.isSYNACK():
		return p.Ack - 1, false
	}
	return p.Seq, true
}

// handleLate takes a packet of a connection whose event was emitted: a FIN that is sent again, at intervals
// that double, because nobody acknowledges it. f stays for as long as the next one may take, or that would
// look like another connection.
func (f *flow) handleLate() {
	t := f.t
	t.m.segmentsLate.Inc()
	f.due = t.clock.now + timeWait + min(3*(t.clock.now-f.lastSeen), maxLateWait)
	f.lastSeen = t.clock.now
	t.timers.updateFlow(f)
}

const maxLateWait = int64(150e9)

// reuseOrReplace decides whether p, sent by the end sender, belongs to f, which has the same tuple, or begins
// a new connection. It returns f in the first case. In the second it ends f and returns the new flow, or nil
// if p is the first packet of it.
func (t *Table) reuseOrReplace(f *flow, p *packet, sender uint8) *flow {
	d := reassembly.Dir(sender ^ f.clientSide)
	firstSeq, known := f.stream.FirstSeq(d)
	_, closing := f.stream.Closing()
	switch {
	case p.Flags&reassembly.RST != 0:
		return f

	case f.dead && !closing: // it was only idle
		t.replaceFlow(f, "")
		return nil

	case p.isSYN():
		synSeen, peerSYNSeen := f.stream.SYNSeen(d), f.stream.SYNSeen(d^1)
		unanswered := synSeen && f.stream.Packets(d^1) == 0
		switch {
		case known && p.Seq+1 == firstSeq && !f.dead:
			return f // once more, or late
		case f.dead, closing, !synSeen && !peerSYNSeen, unanswered:
			t.replaceFlow(f, f.closedState())
			return nil
		case !known && peerSYNSeen: // both sides open at once
			return f
		}
		f.pendingSYN = pendingSYN{seen: true, firstSeq: p.Seq + 1, at: p.Time}

	case p.isSYNACK():
		if f.pendingSYN.seen && p.Ack == f.pendingSYN.firstSeq {
			return t.openPending(f, p, sender^1)
		}
		if f.dead && p.Seq+1 != firstSeq {
			t.replaceFlow(f, "")
			return nil
		}

	case f.pendingSYN.seen && p.Seq == f.pendingSYN.firstSeq && d == fromClient && p.Flags&reassembly.ACK != 0:
		return t.openPending(f, p, sender)
	}
	return f
}

// openPending ends f and opens the connection of its pending SYN, which the end clientSide has sent.
func (t *Table) openPending(f *flow, p *packet, clientSide uint8) *flow {
	k, syn := f.key, f.pendingSYN
	t.replaceFlow(f, f.closedState())
	n := t.openFlow(p, k, clientSide)
	n.clientSide, n.stats.directionConfidence = clientSide, 100
	n.first = syn.at
	n.stats.sides[fromClient].packets = 1
	n.stats.synAt = syn.at
	n.stats.history.addLetter('S', fromClient)
	n.stream.BeginAfterSYN(fromClient, syn.firstSeq)
	n.openProtocol(syn.firstSeq-1, false)
	return n
}

// followDuplicate keeps track of a connection that another flow reports, only so far that its end is seen.
func (f *flow) followDuplicate(p *packet, d reassembly.Dir) {
	f.stream.Follow(d, &p.Segment, f.t.clock.now)
	if p.Flags&reassembly.RST != 0 || f.stream.Ended(fromClient) && f.stream.Ended(fromServer) {
		f.schedule()
	}
}
