package sessions

import (
	"bytes"

	"tidegate/collector/reassembly"
)

// publishEvery is the distance, ns of packet time, between two writes of a flow or a Table for the other
// Tables. The values that those read are late by so much.
const publishEvery = int64(10e6)

// silentAfter is the time, ns of packet time, after which a duplicate takes the connection over: for so long
// it has seen packets that its reporter has not seen.
const silentAfter = int64(1e9)

// maxLag is the longest time, ns, for which a duplicate waits for the Table of its reporter. A Table that is
// further behind counts as stopped.
const maxLag = int64(10e9)

// isDue reports whether at is publishEvery later than published, or earlier because the times were set back.
func isDue(at, published int64) bool { return uint64(at-published) >= uint64(publishEvery) }

// checkCopies compares what f and the other flows of its connection have seen, now that the end sender has
// sent p. It returns the flow that p belongs to: f, or a new one that takes its place. isNew is returned as
// true if it was, or if there is a new flow.
func (t *Table) checkCopies(f *flow, p *packet, sender uint8, isNew bool) (*flow, bool) {
	if f.dedup.state == duplicate {
		f.copyFollowed(p, sender)
		for end := range uint8(2) {
			if from, found := f.findContradiction(p, sender, end); found {
				return t.separateCopy(f, p, sender, end, from), false
			}
		}
		if p.Flags&reassembly.RST == 0 && f.reporterMisses(p, sender) {
			return t.takeOver(f, p, sender), true
		}
		return f, isNew
	}
	if p.Flags&reassembly.RST != 0 { // which begins no flow
		return f, isNew
	}
	superseded := isDue(p.Time, f.dedup.published[sender]) && !f.publishActivity(p, sender)
	if superseded || f.dedup.apart && f.dedup.reporter.hasSeen(f, p, sender) {
		return t.replaceSuperseded(f, p, sender), true
	}
	if f.dedup.candidate {
		f.checkCandidate(p, sender)
		if f.dedup.state == duplicate {
			f.copyFollowed(p, sender)
		}
	}
	return f, isNew
}

// copyFollowed keeps a copy of the payload of p, of a duplicate, for the comparison with what its reporter has seen.
func (f *flow) copyFollowed(p *packet, sender uint8) {
	if f.key.proto == protoTCP {
		f.stream.CopyFollowed(f.dirOf(sender), &p.Segment)
	}
}

// publishActivity lets the duplicates of f know that f has seen p, which the end sender has sent. It reports
// false if f may report the connection no longer: a duplicate has taken the claims of f, which had seen
// nothing for a while, or f reports one direction only and its reporter sees that one, too.
func (f *flow) publishActivity(p *packet, sender uint8) (reports bool) {
	f.dedup.published[sender] = p.Time
	f.activity.seen[sender].Store(p.Time)
	if f.dedup.halfOnly {
		return f.dedup.reporter.lastSeen(sender) < f.first
	}
	return !f.activity.lost.Load()
}

// maxReplayed bounds the bytes before those that differ that separateCopy delivers.
const maxReplayed = 2 << 10

// separateCopy ends f, a duplicate whose reporter has seen other bytes of an end from the sequence number from on, and
// returns a new flow that reports the connection from p on, which the end sender has sent, as its reporter does. What
// the end has sent before p is delivered from the copies of f.
func (t *Table) separateCopy(f *flow, p *packet, sender, end uint8, from uint32) *flow {
	reporter, dir := f.dedup.reporter, f.dirOf(end)
	top := f.stream.TopSeq(dir)                                  // without p, which may be a repetition
	if turn := f.stream.TurnSeq(dir); from-turn <= maxReplayed { // the message begins there
		if _, known := f.stream.Delivered(dir, turn, int(int32(top-turn))); known {
			from = turn
		}
	}
	held, _ := f.stream.Delivered(dir, from, int(int32(top-from)))
	held = bytes.Clone(held)
	next := t.replaceSuperseded(f, p, sender)
	next.dedup.state, next.dedup.candidate, next.dedup.confirmed = primary, false, true
	next.separate(separation{reporter, copyDiffers})
	next.openProtocol(p.startSeq())
	if len(held) > 0 {
		segment := reassembly.Segment{Seq: from, Payload: held, Size: len(held), Time: p.Time}
		next.stream.Replay(next.dirOf(end), &segment, t.clock.now)
	}
	next.schedule()
	return next
}

// separateEnded returns f, a duplicate of TCP that ends, or a new flow in its place if a print of its reporter ends behind
// what f has seen: f sees no more.
func (t *Table) separateEnded(f *flow) *flow {
	for end := range uint8(2) {
		p := packet{clock: t.clock.now, iface: f.key.iface, vlan: f.vlan, src: f.sender.ip, mac: f.sender.mac, origin: f.sender.origin}
		if f.tunnel != nil {
			p.tunnel = *f.tunnel
		}
		p.Time, p.Seq, p.Flags = f.last, f.stream.TopSeq(f.dirOf(end)), reassembly.FIN
		if from, found := f.findContradiction(&p, end, end); found {
			return t.separateCopy(f, &p, end, end, from)
		}
	}
	return f
}

// replaceSuperseded ends f and returns a new flow for the rest of its connection. Another flow reports the
// connection by now, or it goes on after an end was seen.
func (t *Table) replaceSuperseded(f *flow, p *packet, sender uint8) *flow {
	key, clientSide, confidence := f.key, f.clientSide, f.stats.directionConfidence
	t.replaceFlow(f, stateTimeout)
	next := t.openFlow(p, key, sender)
	next.setDirection(clientSide, confidence)
	return next
}

// reporterMisses reports whether f, a duplicate, must report the connection itself from p on, because its
// reporter has not seen the packets of sender for silentAfter. f counts the bytes that it drops meanwhile.
func (f *flow) reporterMisses(p *packet, sender uint8) bool {
	dedup := &f.dedup
	dedup.lastFrom[sender] = p.Time
	since := dedup.unseenSince[sender]

	// The reporter has seen a packet since then: begin again with p. The clock may also have been set back.
	if since == 0 || p.Time < since-maxLag || f.isSeenByReporter(sender) {
		dedup.unseenSince[sender], dedup.droppedBytes[sender] = p.Time, uint64(p.Size)
		dedup.unseenTop[sender] = 0
		if f.key.proto == protoTCP && p.Size > 0 {
			dedup.unseenTop[sender] = knownTop | uint64(p.dataSeq()+uint32(p.Size))
		}
		return false
	}

	// The Table of the reporter may be late.
	silent := p.Time - since
	if silent < silentAfter || dedup.reporter.progress() < since+silentAfter && silent < maxLag {
		dedup.droppedBytes[sender] += uint64(p.Size)
		return false
	}
	if reporter, found := f.findReporter(since); found {
		dedup.reporter = reporter
		dedup.unseenSince, dedup.droppedBytes = [2]int64{}, [2]uint64{}
		return false
	}
	return true
}

// isSeenByReporter reports whether the reporter of f, a duplicate, has seen the packet of an end that f has
// seen at unseenSince, or later ones. With TCP its bytes count, which only who sees the connection can
// number.
func (f *flow) isSeenByReporter(end uint8) bool {
	dedup := &f.dedup
	if top := dedup.unseenTop[end]; top != 0 {
		return dedup.reporter.covers(end, uint32(top))
	}
	return dedup.reporter.lastSeen(end) >= dedup.unseenSince[end]-copyDelay
}

// findReporter returns the flow that has claimed f's connection in the meantime and has seen packets of it
// since the packet time since.
func (f *flow) findReporter(since int64) (found reporter, ok bool) {
	keys := [2]claimKey{f.ownKey(), f.ownKey()}
	if f.locateMapping() {
		keys[1] = f.canonicalKey()
	}
	for _, key := range keys {
		by := f.claimant(key)
		by.first = since
		state, reporter := f.table.dedup.lookUpClaim(key, by)
		if state == claimHeld && reporter.owner != f.dedup.reporter.owner {
			return reporter, true
		}
	}
	return reporter{}, false
}

// takeOver ends f, a duplicate, and returns a new flow that reports the connection from p on. The new flow
// takes the claims of the reporter, unless it is foreign to its bridge. If the reporter still sees the packets of the
// other end, and f does not, the reporter keeps the claims and each of the two flows reports one direction.
func (t *Table) takeOver(f *flow, p *packet, sender uint8) *flow {
	reporter, other := f.dedup.reporter, sender^1
	halfOnly := reporter.lastSeen(other) >= p.Time-silentAfter && f.dedup.lastFrom[other] < p.Time-silentAfter
	foreign := f.dedup.foreign // which may be forged, and ends no other flow
	if !halfOnly && !foreign {
		t.dedup.revokeClaim(f.ownKey(), reporter.owner)
		if f.locateMapping() {
			t.dedup.revokeClaim(f.canonicalKey(), reporter.owner)
		}
	}
	t.metrics.takeovers.Inc()
	key, clientSide, confidence := f.key, f.clientSide, f.stats.directionConfidence
	t.replaceFlow(f, stateTimeout)
	next := t.openFlow(p, key, sender)
	next.setDirection(clientSide, confidence)
	if halfOnly {
		next.dedup.state, next.dedup.candidate, next.dedup.confirmed = primary, false, true
		next.dedup.halfOnly, next.dedup.reporter = true, reporter
	} else if foreign {
		next.dedup.state, next.dedup.candidate, next.dedup.confirmed = primary, false, true
		next.dedup.apart, next.dedup.reporter = true, reporter
	}
	return next
}

// countUnreported counts the bytes that f, a duplicate that ends, has dropped and its reporter has not seen.
func (f *flow) countUnreported() {
	for end := range uint8(2) {
		since := f.dedup.unseenSince[end]
		if f.dedup.droppedBytes[end] > 0 && !f.isSeenByReporter(end) &&
			f.dedup.reporter.progress() >= since+copyDelay {
			f.table.metrics.unreportedBytes.Add(float64(f.dedup.droppedBytes[end]))
		}
	}
}
