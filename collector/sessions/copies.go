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
// is parsed and its events wait until a print of its own is among those of its reporter. If there is none,
// although the Table of the reporter has come further, both are reported, and what the candidate reports has
// the tag copies_differ.

// A print stands for the payload of a segment, as it was delivered, or of a datagram. From the top: 32 bits
// of position, which is the sequence number of the first byte with TCP and a part of the hash with UDP; 16
// bits of length; 16 bits of the hash. 0 is none.
type print uint64

// position returns the part that is equal for segments that begin with the same byte.
func (p print) position() uint32 { return uint32(p >> 32) }

// length returns the length of the payload, modulo 32 KiB.
func (p print) length() uint16 { return uint16(p >> 16) }

// printSecret keeps the prints from being computed by whoever sends the packets.
var printSecret = rand.Uint64() | 1

// newPrint returns the print of n bytes from the sequence number seq on, which have the hash hash.
func newPrint(seq uint32, n int, hash uint64) print {
	return print(seq)<<32 | print(n&0x7fff|0x8000)<<16 | print(hash*printSecret>>48)
}

// newDatagramPrint returns the print of a datagram.
func newDatagramPrint(payload []byte) print {
	hash := xxh3.Hash(payload) * printSecret
	return print(hash)&^(0xffff<<16) | print(len(payload)&0x7fff|0x8000)<<16
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

// clear removes the prints.
func (d *directionPrints) clear() {
	for i := range d.list {
		if d.list[i].Load() != 0 {
			d.list[i].Store(0)
		}
	}
	d.top.Store(0)
}

// recordPrint publishes the print of payload from an end of f.key.
func (f *flow) recordPrint(end uint8, added print) {
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

// recordDelivered publishes the print of bytes that the stream delivers, from an end.
func (f *flow) recordDelivered(end uint8, data []byte) {
	f.recordPrint(end, newPrint(f.stream.NextSeq(f.dirOf(end)), len(data), xxh3.Hash(data)))
	f.publishTop(end)
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

// A comparison is the result of comparing the payloads of two flows.
type comparison uint8

const (
	copyUnknown comparison = iota // they have nothing in common yet
	copySame                      // both have seen the same payload
	copyDiffers                   // both have seen packets of an end, and different payload
	copyHalf                      // the other flow has seen packets of the other end only
	copyStale                     // the other flow has seen no packets meanwhile
)

// comparePrint compares a print of the end with those of the reporter. Segments that begin with the same byte
// and have different lengths were cut or merged by the kernel on the way.
func (r reporter) comparePrint(end, proto uint8, own print) comparison {
	published := r.printsOf(end)
	if published == nil {
		return copyUnknown
	}
	result := copyUnknown
	for i := range published.list {
		other := print(published.list[i].Load())
		switch {
		case other == 0:
			if i < keptPrints {
				return result // the other lists are empty, too
			}
		case other == own:
			return copySame
		case proto != protoTCP || other.position() != own.position():
		case other.length() == own.length():
			result = copyDiffers
		case result == copyUnknown:
			result = copySame
		}
	}
	return result
}

// nearTop is the distance of the ends of two copies, in bytes, if the kernel has cut their segments in
// different ways.
const nearTop = 1 << 20

// comparePrints compares all that f has published with what the reporter has.
func (f *flow) comparePrints(reporter reporter) comparison {
	result := copyUnknown
	for end := range uint8(2) {
		own := &f.activity.prints[end]
		for i := range own.list {
			added := print(own.list[i].Load())
			if added == 0 && i < keptPrints {
				break
			}
			switch found := reporter.comparePrint(end, f.key.proto, added); {
			case added == 0:
			case found == copyDiffers:
				return copyDiffers
			case found == copySame:
				result = copySame
			}
		}
		if result == copyUnknown && f.key.proto == protoTCP && f.dedup.isBulk(end) && f.isNear(reporter, end) {
			result = copySame
		}
	}
	return result
}

// isBulk reports whether f has more prints of the end than are kept of the first ones.
func (d *dedup) isBulk(end uint8) bool { return d.numPrints[end][1] > 0 }

// isNear reports whether f and the reporter have come nearly as far in the stream of an end.
func (f *flow) isNear(reporter reporter, end uint8) bool {
	published := reporter.printsOf(end)
	if published == nil || published.list[keptPrints].Load() == 0 {
		return false
	}
	own, other := f.activity.prints[end].top.Load(), published.top.Load()
	distance := int32(uint32(own) - uint32(other))
	return own != 0 && other != 0 && distance <= nearTop && distance >= -nearTop
}

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
func (f *flow) compareCopies(reporter reporter, why decision) comparison {
	since := f.dedup.payloadSince
	if since == 0 {
		return copySame // f has nothing that the reporter could have missed
	}
	if result := f.comparePrints(reporter); result != copyUnknown {
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

// classifyOther reports in which way f and the reporter, which have no payload in common, are no copies.
func (f *flow) classifyOther(reporter reporter) comparison {
	result := copyStale
	for end := range uint8(2) {
		switch {
		case reporter.lastSeen(end) <= f.dedup.payloadSince:
		case f.dedup.numPrints[end][0] > 0:
			return copyDiffers
		default:
			result = copyHalf
		}
	}
	return result
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
	if before == copySame || before == copyUnknown && reporter.hasSeen(f, p, sender) {
		f.markDuplicate(reporter)
		f.closeIfDuplicate()
	}
}

// hasSeen reports whether the reporter of f has seen the payload of p.
func (r reporter) hasSeen(f *flow, p *packet, sender uint8) bool {
	return len(p.Payload) > 0 && r.comparePrint(sender, f.key.proto, f.printOf(p)) == copySame
}

// printOf returns the print of p, which has a payload.
func (f *flow) printOf(p *packet) print {
	if f.key.proto != protoTCP {
		return newDatagramPrint(p.Payload)
	}
	return newPrint(p.dataSeq(), len(p.Payload), xxh3.Hash(p.Payload))
}

// dataSeq returns the sequence number of the first byte of the payload.
func (p *packet) dataSeq() uint32 {
	if p.Flags&reassembly.SYN != 0 {
		return p.Seq + 1
	}
	return p.Seq
}

// contradicts reports whether the reporter of f, a duplicate, has seen as many other bytes in the place of
// those of p. Only its last prints count: the sequence numbers of the first ones come again.
func (r reporter) contradicts(f *flow, p *packet, sender uint8) bool {
	if f.key.proto != protoTCP || len(p.Payload) == 0 || p.Size > len(p.Payload) {
		return false
	}
	published := r.printsOf(sender)
	if published == nil {
		return false
	}
	last := published.list[:keptPrints]
	if published.list[keptPrints].Load() != 0 {
		last = published.list[keptPrints : 2*keptPrints]
	}
	unhashed, own, differs := newPrint(p.dataSeq(), len(p.Payload), 0), print(0), false
	for i := range last {
		other := print(last[i].Load())
		if other>>16 != unhashed>>16 {
			continue
		}
		if own == 0 {
			own = f.printOf(p)
		}
		if other == own {
			return false
		}
		differs = true
	}
	return differs
}

// A separation holds the reason, copyDiffers or copyHalf, why a flow is reported although reporter reports a connection
// with the same addresses.
type separation struct {
	reporter reporter
	copies   comparison
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
