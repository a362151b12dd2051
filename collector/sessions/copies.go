package sessions

import (
	"math/rand/v2"
	"sync/atomic"

	"github.com/zeebo/xxh3"

	"tidegate/collector/reassembly"
)

// Two flows with the addresses of one connection need not be copies of it: a container can send packets with the
// addresses of another connection on its bridge, and must not keep that connection from being reported. So a flow is
// the duplicate of another one only if both have seen the same payload. NAT changes addresses, but neither bytes nor
// sequence numbers, and a container that does not see the connection can guess neither of them.
//
// Every flow that is reported publishes prints of its payload. A flow that finds a claim is a candidate: it
// is parsed and its events wait until its reporter has a print of what the candidate has seen. If there is none,
// although the Table of the reporter has come further, both are reported, and what the candidate reports has
// the tag copies_differ.
//
// A duplicate is not parsed, but the bytes of its packets are kept with those that were delivered last, and compared
// with each of the last prints of its reporter, whatever the bounds of the segments: the kernel may have cut or merged
// them. Where a print differs, a new flow reports the connection from there on, with the tag, and begins with the bytes
// that are kept. A print that ends behind all that the duplicate has seen differs if no more comes.

// A payloadPrint stands for the payload of a segment, as it was delivered, or of a datagram. From the top: 32 bits
// of position, which is the sequence number of the first byte with TCP and a part of the hash with UDP; 16
// bits of length; 16 bits of the hash. 0 is none: no payload is empty.
type payloadPrint uint64

// position returns the part that is equal for segments that begin with the same byte.
func (p payloadPrint) position() uint32 { return uint32(p >> 32) }

// length returns the length of the payload.
func (p payloadPrint) length() int { return int(uint16(p >> 16)) }

// end returns the sequence number behind the payload.
func (p payloadPrint) end() uint32 { return p.position() + uint32(p.length()) }

// overlaps reports whether the prints have a byte in common.
func (p payloadPrint) overlaps(other payloadPrint) bool {
	return int32(p.position()-other.end()) < 0 && int32(other.position()-p.end()) < 0
}

// maxPrinted is the largest length of a payload that has a print. Of a longer one, the front has.
const maxPrinted = 1<<16 - 1

// printSecret keeps the prints from being computed by whoever sends the packets.
var printSecret = rand.Uint64() | 1

// newPrint returns the print of n bytes from the sequence number seq on, which have the hash hash.
func newPrint(seq uint32, n int, hash uint64) payloadPrint {
	return payloadPrint(seq)<<32 | payloadPrint(n&maxPrinted)<<16 | payloadPrint(hash*printSecret>>48)
}

// newDatagramPrint returns the print of a datagram.
func newDatagramPrint(payload []byte) payloadPrint {
	payload = payload[:min(len(payload), maxPrinted)]
	return payloadPrint(xxh3.Hash(payload)*printSecret)&^(0xffff<<16) | payloadPrint(len(payload))<<16
}

// The prints of a direction are kept in four lists of keptPrints: the first ones, the last ones, and the last
// of those that are chosen by their value, one in 16 and one in 256. The copies of a connection choose the
// same, so that they have some in common even if one Table is thousands of packets ahead of the other.
const keptPrints = 8

// A directionPrints holds what a flow has published of the payload of one end. Only the flow's Table writes
// it.
type directionPrints struct {
	list [4 * keptPrints]atomic.Uint64
	top  atomic.Uint64 // the sequence number behind the highest byte; from knownTop on; 0: none
}

const knownTop = 1 << 32

// clearPrints removes the prints.
func (d *directionPrints) clearPrints() {
	for i := range d.list {
		if d.list[i].Load() != 0 {
			d.list[i].Store(0)
		}
	}
	d.top.Store(0)
}

// publishPrint publishes the print of payload from an end of f.key.
func (f *flow) publishPrint(end uint8, added payloadPrint) {
	dedup, list := &f.dedup, &f.activity.prints[end].list
	if dedup.payloadSince == 0 {
		dedup.payloadSince = f.table.clock.packetTime
	}
	count := &dedup.numPrints[end]
	if count[0] < keptPrints {
		list[count[0]].Store(uint64(added))
		count[0]++
		return
	}
	place := func(kind int) {
		list[kind*keptPrints+int(count[kind]%keptPrints)].Store(uint64(added))
		count[kind]++
	}
	place(1)
	const spread = 0x9e3779b97f4a7c15
	if chosen := uint64(added) * spread >> 56; chosen&0xf == 0 {
		place(2)
		if chosen == 0 {
			place(3)
		}
	}
}

// publishDelivered publishes the print of bytes that the stream delivers, from an end.
func (f *flow) publishDelivered(end uint8, data []byte) {
	data = data[:min(len(data), maxPrinted)]
	f.publishPrint(end, newPrint(f.stream.NextSeq(f.dirOf(end)), len(data), f.table.hashOf(data)))
	f.publishTop(end)
}

// hashOf returns the hash of payload, which mostly is that of the packet that is handled.
func (t *Table) hashOf(payload []byte) uint64 {
	if whole := t.payload; len(payload) == len(whole) && len(whole) > 0 && &payload[0] == &whole[0] {
		return t.payloadHash
	}
	return xxh3.Hash(payload)
}

// publishTop publishes how far the stream of an end has come.
func (f *flow) publishTop(end uint8) {
	f.activity.prints[end].top.Store(knownTop | uint64(f.stream.TopSeq(f.dirOf(end))))
}

// printsOf returns the prints of the reporter for an end of the duplicate's key, nil if it no longer exists.
func (r reporter) printsOf(end uint8) *directionPrints {
	if r.activity == nil || r.activity.owner.Load() != r.owner {
		return nil
	}
	if r.reversed {
		end ^= 1
	}
	return &r.activity.prints[end]
}

// A copyState is the result of comparing the payloads of two flows.
type copyState uint8

const (
	copyUnknown  copyState = iota // they have nothing in common yet
	copySame                      // both have seen the same payload
	copyDiffers                   // both have seen packets of an end, and different payload
	copyHalf                      // the other flow has seen packets of the other end only
	copyStale                     // the other flow has seen no packets meanwhile
	copyOneSided                  // the other flow has seen the same payload, but of one end only; this one sees both
)

// hasPrint reports whether d has the print.
func (d *directionPrints) hasPrint(wanted payloadPrint) bool {
	for i := range d.list {
		switch payloadPrint(d.list[i].Load()) {
		case wanted:
			return true
		case 0:
			if i < keptPrints {
				return false // the other lists are empty, too
			}
		}
	}
	return false
}

// comparePrints compares what f has seen with all prints of the reporter.
func (f *flow) comparePrints(reporter reporter) copyState {
	result := copyUnknown
	for end := range uint8(2) {
		published := reporter.printsOf(end)
		if published == nil {
			continue
		}
		for i := range published.list {
			other := payloadPrint(published.list[i].Load())
			if other == 0 && i < keptPrints {
				break // the other lists are empty, too
			}
			switch found := f.comparePrint(end, other); {
			case other == 0:
			case found == copyDiffers:
				return copyDiffers
			case found == copySame:
				result = copySame
			}
		}
	}
	return result
}

// comparePrint compares what f has seen of an end with a print of another flow. The kernel may have cut or merged the
// segments on the way: where the lengths differ, the bytes that f has delivered in that place are compared.
func (f *flow) comparePrint(end uint8, other payloadPrint) copyState {
	own := &f.activity.prints[end]
	if own.hasPrint(other) {
		return copySame
	}
	if f.key.proto != protoTCP {
		return copyUnknown
	}
	if payload, known := f.stream.Delivered(f.dirOf(end), other.position(), other.length()); known {
		if newPrint(other.position(), len(payload), xxh3.Hash(payload)) == other {
			return copySame
		}
		return copyDiffers
	}
	for i := range own.list {
		if payloadPrint(own.list[i].Load())>>16 == other>>16 && other != 0 {
			return copyDiffers
		}
	}
	return copyUnknown
}

// isBulk reports whether f has more prints of the end than are kept of the first ones.
func (d *dedup) isBulk(end uint8) bool { return d.numPrints[end][1] > 0 }

// covers reports whether the reporter has seen bytes of an end up to the sequence number top, or behind it.
func (r reporter) covers(end uint8, top uint32) bool {
	published := r.printsOf(end)
	if published == nil {
		return false
	}
	other := published.top.Load()
	return other != 0 && int32(uint32(other)-top) >= 0
}

// compareCopies reports whether f and the reporter are copies of one connection. why is the reason for the
// question: it may have to be decided now.
func (f *flow) compareCopies(reporter reporter, why decision) copyState {
	since := f.dedup.payloadSince
	if since == 0 {
		return copySame // f has nothing that the reporter could have missed
	}
	switch result := f.comparePrints(reporter); {
	case result == copySame && f.seesMoreEnds(reporter):
		return f.compareOneSided(reporter, why)
	case result != copyUnknown:
		return result
	}

	// The Table of the reporter may be late. Of many packets it takes a while until some were chosen.
	wait := copyDelay
	if f.dedup.isBulk(0) || f.dedup.isBulk(1) {
		wait = silentAfter
	}
	progress := reporter.progress()
	switch {
	case progress >= since+wait, why == decidedByLimit, f.table.clock.packetTime >= since+maxLag:
		return f.classifyOther(reporter)
	case why == decidedByEnd && progress < since && reporter.activity.progress != &f.table.progress:
		return copySame // both Tables are being closed, and the other has not come so far
	case why == decidedByEnd:
		return f.classifyOther(reporter)
	}
	return copyUnknown
}

// compareOneSided is compareCopies for a reporter that has seen the same payload, but no packet of an end of which f has
// seen some. That end may only be late.
func (f *flow) compareOneSided(reporter reporter, why decision) copyState {
	since, progress := f.dedup.payloadSince, reporter.progress()
	isClosing := why == decidedByEnd && progress < since && reporter.activity.progress != &f.table.progress
	isOver := progress >= since+silentAfter || f.table.clock.packetTime >= since+maxLag
	switch {
	case isClosing:
		return copySame // both Tables are being closed, and the other has not come so far
	case isOver, why == decidedByLimit, why == decidedByTimeout, why == decidedByEnd:
		return copyOneSided
	}
	return copyUnknown
}

// seesMoreEnds reports whether f, of TCP, has seen packets of an end of which the reporter has seen none since f began.
func (f *flow) seesMoreEnds(reporter reporter) bool {
	for end := range uint8(2) {
		if f.key.proto == protoTCP && f.activity.seen[end].Load() != 0 && reporter.lastSeen(end) < f.first-copyDelay {
			return true
		}
	}
	return false
}

// isHalf reports whether f, of TCP, has seen packets of one end only.
func (f *flow) isHalf() bool {
	return f.key.proto == protoTCP && (f.activity.seen[0].Load() == 0 || f.activity.seen[1].Load() == 0)
}

// classifyOther reports in which way f and the reporter, which have no payload in common, are no copies.
func (f *flow) classifyOther(reporter reporter) copyState {
	result := copyStale
	for end := range uint8(2) {
		switch {
		case f.hasOpenPrint(reporter, end):
			return copyDiffers
		case reporter.lastSeen(end) <= f.dedup.payloadSince:
		case f.dedup.numPrints[end][0] > 0:
			return copyDiffers
		default:
			result = copyHalf
		}
	}
	return result
}

// hasOpenPrint reports whether a print of the reporter begins within what f has seen of an end, and ends behind it.
func (f *flow) hasOpenPrint(reporter reporter, end uint8) bool {
	published := reporter.printsOf(end)
	if f.key.proto != protoTCP || published == nil || f.dedup.numPrints[end][0] == 0 {
		return false
	}
	top := f.stream.TopSeq(f.dirOf(end))
	for i := range published.list {
		if other := payloadPrint(published.list[i].Load()); other != 0 && other.isOpen(top) {
			return true
		}
	}
	return false
}

// isOpen reports whether the print begins before top, the sequence number behind what another flow has seen, and ends
// behind it.
func (p payloadPrint) isOpen(top uint32) bool {
	return int32(p.position()-top) < 0 && int32(p.end()-top) > 0
}

// awaitCopy makes f a candidate: its events wait until it is known whether it is a duplicate of reporter.
func (f *flow) awaitCopy(reporter reporter) {
	f.dedup.state, f.dedup.candidate, f.dedup.reporter = pending, true, reporter
}

// checkCandidate makes f, a candidate, a duplicate if p or what came before it shows that it is one.
func (f *flow) checkCandidate(p *packet, sender uint8) {
	reporter, before := f.dedup.reporter, copyUnknown
	if f.dedup.payloadSince != 0 {
		before = f.comparePrints(reporter)
	}
	isSame := before == copySame || before == copyUnknown && reporter.hasSeen(f, p, sender)
	if isSame && !f.seesMoreEnds(reporter) {
		f.markDuplicate(reporter)
		f.closeIfDuplicate()
	}
}

// hasSeen reports whether the reporter of f has seen the payload of p.
func (r reporter) hasSeen(f *flow, p *packet, sender uint8) bool {
	published := r.printsOf(sender)
	return len(p.Payload) > 0 && published != nil && published.hasPrint(f.printOf(p))
}

// printOf returns the print of p, which has a payload.
func (f *flow) printOf(p *packet) payloadPrint {
	if f.key.proto != protoTCP {
		return newDatagramPrint(p.Payload)
	}
	return newPrint(p.dataSeq(), len(p.Payload), f.table.hashOf(p.Payload))
}

// dataSeq returns the sequence number of the first byte of the payload.
func (p *packet) dataSeq() uint32 {
	if p.Flags&reassembly.SYN != 0 {
		return p.Seq + 1
	}
	return p.Seq
}

// findContradiction reports whether the reporter of f, a duplicate, has seen other bytes of an end than f, now that the
// end sender has sent p, and the sequence number from which on. It compares the last prints: the sequence numbers of the
// first ones come again. A print that was compared is compared again only with a p that repeats its bytes, or fills a
// hole in what f has seen. A print that ends behind what f has seen is compared when f has seen more, and differs if
// that is not so: f has seen the end of the connection, or copyDelay has passed.
func (f *flow) findContradiction(p *packet, sender, end uint8) (from uint32, found bool) {
	published, dir := f.dedup.reporter.printsOf(end), f.dirOf(end)
	if _, based := f.stream.FirstSeq(dir); f.key.proto != protoTCP || published == nil || !based {
		return 0, false
	}
	last := published.list[:keptPrints]
	if published.list[keptPrints].Load() != 0 {
		last = published.list[keptPrints : 2*keptPrints]
	}

	// From here on top is behind what f has seen with p, and own is the print of p if p begins before what came last.
	dedup, top, own := &f.dedup, f.stream.TopSeq(dir), payloadPrint(0)
	if sender == end && len(p.Payload) > 0 && !p.Doubtful && p.Flags&(reassembly.SYN|reassembly.RST) == 0 {
		first, behind := p.dataSeq(), p.dataSeq()+uint32(len(p.Payload))
		isKeepAlive := p.Size == 1 && behind == top
		if int32(first-top) < 0 && !isKeepAlive {
			own = f.printOf(p)
		}
		if int32(behind-top) > 0 {
			top = behind
		}
	}
	if sender == end && p.Flags&reassembly.FIN != 0 {
		dedup.finAt[end] = knownTop | uint64(p.dataSeq()+uint32(p.Size))
	}
	compared := dedup.comparedTop[end]
	if !dedup.openPrint[end].isOpen(top) {
		dedup.openPrint[end] = 0
	}
	for i := range last {
		other := payloadPrint(last[i].Load())
		isCompared := compared != 0 && int32(other.end()-uint32(compared)) <= 0
		if other == 0 || other == own || isCompared && !other.overlaps(own) {
			continue
		}
		if other>>16 == own>>16 && !published.hasPrint(own) {
			return other.position(), true
		}
		payload, known := f.stream.Delivered(dir, other.position(), other.length())
		switch highest := dedup.comparedTop[end]; {
		case known && newPrint(other.position(), len(payload), xxh3.Hash(payload)) != other:
			return other.position(), true
		case known && (highest == 0 || int32(other.end()-uint32(highest)) > 0):
			dedup.comparedTop[end] = knownTop | uint64(other.end())
		case dedup.openPrint[end] == 0 && other.isOpen(top):
			dedup.openPrint[end], dedup.openSince[end] = other, p.Time
		}
	}

	// Neither a FIN elsewhere nor a RST with another number than its receiver expects ends the stream.
	open, isReset := dedup.openPrint[end], p.Flags&reassembly.RST != 0 && p.Seq == f.stream.TopSeq(f.dirOf(sender))
	isOver := dedup.finAt[end] == knownTop|uint64(top) || isReset || p.Time-dedup.openSince[end] > copyDelay
	return open.position(), open != 0 && isOver
}

// A separation holds the reason, copyDiffers or copyHalf, why a flow is reported although reporter reports a connection
// with the same addresses.
type separation struct {
	reporter reporter
	copies   copyState
}

// separate has f report its connection as well.
func (f *flow) separate(other separation) {
	f.dedup.reporter = other.reporter
	if other.copies == copyHalf {
		f.dedup.halfOnly = true
		return
	}
	f.dedup.apart = true
	f.table.metrics.differingCopies.Inc()
	f.marks |= markCopies
	for _, event := range f.outbox.events {
		f.tagEvent(event)
	}
}
