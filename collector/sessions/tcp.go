package sessions

import (
	"tidegate/collector/reassembly"
)

// A pendingSYN is a SYN with a new sequence number that came on an established connection. It begins a new
// connection only if the other side answers it, or if its sender continues from its number. RFC 5961 has the
// receiver challenge such a SYN, and a forged SYN must not cut a session in two.
type pendingSYN struct {
	seen     bool
	firstSeq uint32 // the sequence number behind the SYN
	at       int64  // packet time
}

// handleTCP passes a TCP packet to its flow. It opens the flow if there is none.
func (t *Table) handleTCP(p *packet) {
	// Find the flow. Most packets belong to the flow of their tuple without further checks.
	key, sender := p.flowKey()
	flow := t.flows[key]
	if flow != nil && p.checksum != sumUnchecked && flow.rejectsChecksum(p, sender) {
		return
	}
	if flow != nil && (flow.dead || p.Flags&reassembly.SYN != 0 || flow.pendingSYN.seen) {
		flow = t.reuseOrReplace(flow, p, sender)
	}
	isNew := flow == nil
	if isNew {
		flow = t.openFlow(p, key, sender)
	}
	if flow.dead {
		if flow = t.continueDead(flow, p, sender); flow == nil {
			return
		}
		isNew = true
	}
	flow, isNew = t.checkCopies(flow, p, sender, isNew)

	// The flow is open and p belongs to it.
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
	flow.markPacket(p)

	// Segment may call the parser, and an event of the parser may make the flow a duplicate.
	flow.measureClientRTT(p, dir)
	flow.stream.Segment(dir, &p.Segment, t.clock.now)
	if p.Size > 0 && flow.stream.Buffered() > 0 {
		flow.publishTop(sender)
	}
	flow.closeIfDuplicate()

	// A packet makes the timers of an open flow without gaps only later, so they stay as they are.
	_, closing := flow.stream.Closing()
	_, doubtful := flow.stream.DoubtfulReset()
	if isNew || closing || doubtful || flow.stream.Incomplete() || len(flow.outbox.events) > 0 {
		flow.schedule()
	}
}

// continueDead returns a new flow for the rest of the connection of f, which is dead, or nil if p, from the end sender
// of f.key, does not show that the connection goes on.
func (t *Table) continueDead(f *flow, p *packet, sender uint8) *flow {
	dir := f.dirOf(sender)
	conflict := f.stream.Contradicts(dir, &p.Segment)
	if !conflict && !f.stream.ShowsLife(dir, &p.Segment) {
		f.handleLate()
		return nil
	}
	t.metrics.continued.Inc()
	next := t.replaceSuperseded(f, p, sender)
	if conflict {
		next.Observe(dir, reassembly.OverlapConflict, p.Time)
	}
	return next
}

// startSeq returns the sequence number for the id of the session that begins with p, and whether p is from
// the middle of a stream. If p is a SYN or the answer to one, the number is that of the client's SYN.
func (p *packet) startSeq() (seq uint32, midStream bool) {
	switch {
	case p.isSYN():
		return p.Seq, false
	case p.isSYNACK():
		return p.Ack - 1, false
	}
	return p.Seq, true
}

// handleLate counts a packet of a dead flow and extends the flow's stay. The packet may be an unacknowledged
// FIN, which its sender repeats at intervals that double. f stays until the next repetition is due, because
// without f the repetition would begin another session.
func (f *flow) handleLate() {
	table := f.table
	table.metrics.segmentsLate.Inc()
	f.due = table.clock.now + timeWait + min(3*(table.clock.now-f.lastSeen), maxLateWait)
	f.lastSeen = table.clock.now
	table.timers.updateFlow(f)
}

// maxLateWait bounds the time, ns, that a dead flow stays for repeated packets. TCP gives up within minutes.
const maxLateWait = int64(150e9)

// reuseOrReplace decides whether p belongs to f, which has the same tuple, or begins a new connection. sender
// is the end of the tuple that sent p. In the first case reuseOrReplace returns f. In the second case it ends
// f and returns nil, or the new flow if the new connection began with a pending SYN.
func (t *Table) reuseOrReplace(f *flow, p *packet, sender uint8) *flow {
	dir := reassembly.Dir(sender ^ f.clientSide)
	_, closing := f.stream.Closing()
	answersPending := f.pendingSYN.seen && p.isSYNACK() && p.Ack == f.pendingSYN.firstSeq
	continuesPending := f.pendingSYN.seen && p.Flags&(reassembly.SYN|reassembly.ACK) == reassembly.ACK &&
		p.Seq == f.pendingSYN.firstSeq && dir == fromClient

	// The cases are in the order of their certainty.
	switch {
	case p.Flags&reassembly.RST != 0: // a RST never begins a connection
		return f
	case f.dead && !closing: // f ended by a time-out, so p begins another connection
		t.replaceFlow(f, "")
		return nil
	case p.isSYN():
		return t.reuseForSYN(f, p, dir)
	case answersPending:
		return t.openPending(f, p, sender^1)
	case continuesPending:
		return t.openPending(f, p, sender)
	case p.isSYNACK() && (f.dead || closing && !f.hasSent(dir^1, p.Ack)):
		if firstSeq, _ := f.stream.FirstSeq(dir); p.Seq+1 != firstSeq { // the SYN before it was not captured
			t.replaceFlow(f, "")
			return nil
		}
	}
	return f
}

// hasSent reports whether ack acknowledges what the side dir of f has sent, or some of it.
func (f *flow) hasSent(dir reassembly.Dir, ack uint32) bool {
	firstSeq, known := f.stream.FirstSeq(dir)
	return known && ack-firstSeq <= f.stream.TopSeq(dir)-firstSeq
}

// reuseForSYN is reuseOrReplace for a SYN from dir.
func (t *Table) reuseForSYN(f *flow, p *packet, dir reassembly.Dir) *flow {
	_, closing := f.stream.Closing()
	firstSeq, known := f.stream.FirstSeq(dir)
	synSeen, peerSYNSeen := f.stream.SYNSeen(dir), f.stream.SYNSeen(dir^1)
	unanswered := synSeen && f.stream.Packets(dir^1) == 0
	switch {
	case known && p.Seq+1 == firstSeq && !f.dead:
		return f // a repetition of the SYN of f
	case f.dead, closing, !synSeen && !peerSYNSeen, unanswered: // f is over, or was never answered
		t.replaceFlow(f, f.closedState())
		return nil
	case !known && peerSYNSeen:
		return f // both sides open at once, RFC 9293, section 3.5
	}

	// f is established. The SYN is kept until later packets show whether it begins a connection.
	f.pendingSYN = pendingSYN{seen: true, firstSeq: p.Seq + 1, at: p.Time}
	return f
}

// openPending ends f and returns a new flow for the connection of its pending SYN. clientSide is the end that
// sent the SYN, and p the packet that confirms it.
func (t *Table) openPending(f *flow, p *packet, clientSide uint8) *flow {
	key, syn := f.key, f.pendingSYN
	t.replaceFlow(f, f.closedState())
	next := t.openFlow(p, key, clientSide)

	// openFlow took p for the first packet. The first packet was the SYN, so record it as handleTCP would
	// have.
	next.clientSide, next.stats.directionConfidence = clientSide, 100
	next.first = syn.at
	next.stats.sides[fromClient].packets = 1
	next.stats.synAt = syn.at
	next.stats.history.addKind(kindSYN, fromClient)
	next.stream.BeginAfterSYN(fromClient, syn.firstSeq)
	next.openProtocol(syn.firstSeq-1, false)
	return next
}

// followDuplicate tracks only the end of the connection of f, a duplicate: another flow reports it.
func (f *flow) followDuplicate(p *packet, dir reassembly.Dir) {
	f.stream.Follow(dir, &p.Segment, f.table.clock.now)
	if p.Flags&reassembly.RST != 0 || f.stream.Ended(fromClient) && f.stream.Ended(fromServer) {
		f.schedule()
	}
}
