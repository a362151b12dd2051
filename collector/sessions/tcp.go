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
	key, sender := p.flowKey()
	flow := t.flows[key]
	if flow != nil && (flow.dead || p.Flags&reassembly.SYN != 0 || flow.pendingSYN.seen) {
		flow = t.reuseOrReplace(flow, p, sender)
	}
	isNew := flow == nil
	if isNew {
		flow = t.openFlow(p, key, sender)
	}
	if flow.dead {
		flow.handleLate()
		return
	}

	// f is open and p belongs to it.
	dir := reassembly.Dir(sender ^ flow.clientSide)
	flow.lastSeen, flow.last = t.clock.now, max(flow.last, p.Time)
	flow.stats.sides[dir].packets++
	if flow.dedup.state == duplicate {
		flow.followDuplicate(p, dir)
		return
	}
	if isNew {
		flow.openProtocol(p.startSeq())
	}

	// Segment may call the parser, which may emit events, by which f may turn out to be a duplicate.
	flow.measureClientRTT(p, dir)
	flow.stream.Segment(dir, &p.Segment, t.clock.now)
	flow.closeIfDuplicate()

	// An open flow whose bytes are complete needs no timer but the one that it has.
	_, closing := flow.stream.Closing()
	if isNew || closing || flow.stream.Incomplete() || len(flow.outbox.events) > 0 {
		flow.schedule()
	}
}

// startSeq returns the sequence number that goes into the id of the session that begins with p, and whether p
// is from the middle of a stream. The number is that of the client's SYN if p is the SYN or its answer.
func (p *packet) startSeq() (seq uint32, midStream bool) {
	switch {
	case p.isSYN():
		return p.Seq, false
	case p.isSYNACK():
		return p.Ack - 1, false
	}
	return p.Seq, true
}

// handleLate takes a packet of a dead flow. It may be a FIN that is not acknowledged and is sent again at
// intervals that double. f stays until the next one can have come: without f it would begin another session.
func (f *flow) handleLate() {
	table := f.t
	table.m.segmentsLate.Inc()
	f.due = table.clock.now + timeWait + min(3*(table.clock.now-f.lastSeen), maxLateWait)
	f.lastSeen = table.clock.now
	table.timers.updateFlow(f)
}

// maxLateWait bounds how long a dead flow stays for packets that are sent again. TCP gives up within minutes.
const maxLateWait = int64(150e9)

// reuseOrReplace decides whether p, sent by the end sender, belongs to f, which has the same tuple, or begins
// a new connection. It returns f in the first case. In the second it ends f and returns the new flow, or nil
// if p is the first packet of it.
func (t *Table) reuseOrReplace(f *flow, p *packet, sender uint8) *flow {
	dir := reassembly.Dir(sender ^ f.clientSide)
	_, closing := f.stream.Closing()
	answersPending := f.pendingSYN.seen && p.isSYNACK() && p.Ack == f.pendingSYN.firstSeq
	continuesPending := f.pendingSYN.seen && p.Flags&(reassembly.SYN|reassembly.ACK) == reassembly.ACK &&
		p.Seq == f.pendingSYN.firstSeq && dir == fromClient
	switch {
	case p.Flags&reassembly.RST != 0:
		return f
	case f.dead && !closing: // f was only idle: its end was not seen, so this is another connection
		t.replaceFlow(f, "")
		return nil
	case p.isSYN():
		return t.reuseForSYN(f, p, dir)
	case answersPending:
		return t.openPending(f, p, sender^1)
	case continuesPending:
		return t.openPending(f, p, sender)
	case p.isSYNACK() && f.dead:
		if firstSeq, _ := f.stream.FirstSeq(dir); p.Seq+1 != firstSeq { // its SYN was not captured
			t.replaceFlow(f, "")
			return nil
		}
	}
	return f
}

// reuseForSYN is reuseOrReplace for a SYN that dir has sent.
func (t *Table) reuseForSYN(f *flow, p *packet, dir reassembly.Dir) *flow {
	_, closing := f.stream.Closing()
	firstSeq, known := f.stream.FirstSeq(dir)
	synSeen, peerSYNSeen := f.stream.SYNSeen(dir), f.stream.SYNSeen(dir^1)
	unanswered := synSeen && f.stream.Packets(dir^1) == 0
	switch {
	case known && p.Seq+1 == firstSeq && !f.dead:
		return f // the same SYN again, or a late one
	case f.dead, closing, !synSeen && !peerSYNSeen, unanswered:
		t.replaceFlow(f, f.closedState())
		return nil
	case !known && peerSYNSeen:
		return f // both sides open at once, RFC 9293, section 3.5
	}

	// f is established. The SYN is remembered until the packets behind it show whether it is believed.
	f.pendingSYN = pendingSYN{seen: true, firstSeq: p.Seq + 1, at: p.Time}
	return f
}

// openPending ends f and opens the connection of its pending SYN, which the end clientSide has sent.
func (t *Table) openPending(f *flow, p *packet, clientSide uint8) *flow {
	key, syn := f.key, f.pendingSYN
	t.replaceFlow(f, f.closedState())
	next := t.openFlow(p, key, clientSide)

	// The flow began with the SYN, which is not at hand any more.
	next.clientSide, next.stats.directionConfidence = clientSide, 100
	next.first = syn.at
	next.stats.sides[fromClient].packets = 1
	next.stats.synAt = syn.at
	next.stats.history.addKind(kindSYN, fromClient)
	next.stream.BeginAfterSYN(fromClient, syn.firstSeq)
	next.openProtocol(syn.firstSeq-1, false)
	return next
}

// followDuplicate keeps track of a connection that another flow reports, only so far that its end is seen.
func (f *flow) followDuplicate(p *packet, d reassembly.Dir) {
	f.stream.Follow(d, &p.Segment, f.t.clock.now)
	if p.Flags&reassembly.RST != 0 || f.stream.Ended(fromClient) && f.stream.Ended(fromServer) {
		f.schedule()
	}
}
