package sessions

import (
	"tidegate/collector/reassembly"
	"tidegate/pipeline"
)

// marks is a set of the anomalies seen in the packets of a flow. All its later events have them as tags,
// since a parser may have read other bytes than the receiver.
type marks uint8

const (
	markConflict marks = 1 << iota // bytes were sent twice and differ
	markUrgent                     // urgent data
	markChecksum                   // packets with wrong checksums
	markHeaders                    // packets with headers of IP for which Linux drops them
	markMovedMAC                   // another container sends with the Ethernet address of an end
	markDamaged                    // packets that could not be read
	markCopies                     // another interface shows the connection with other payload
)

// tagEvent adds the marks of f to the event.
func (f *flow) tagEvent(event *pipeline.Event) {
	if f.marks&markConflict != 0 {
		event.AddTag(pipeline.TagOverlapConflict)
	}
	if f.marks&markUrgent != 0 {
		event.AddTag(pipeline.TagUrgentData)
	}
	if f.marks&markChecksum != 0 {
		event.AddTag(pipeline.TagBadChecksum)
	}
	if f.marks&markHeaders != 0 {
		event.AddTag(pipeline.TagRefusedHeaders)
	}
	if f.marks&markMovedMAC != 0 {
		event.AddTag(pipeline.TagMACMoved)
	}
	if f.marks&markDamaged != 0 {
		event.AddTag(pipeline.TagUndecoded)
	}
	if f.stream.Unacknowledged() {
		event.AddTag(pipeline.TagUnacknowledged)
	}
	if f.marks&markCopies != 0 {
		event.AddTag(pipeline.TagCopiesDiffer)
	}
}

// markPacket adds the marks of a packet to f.
func (f *flow) markPacket(p *packet) {
	if p.conflict {
		f.marks |= markConflict
	}
	if p.refused {
		f.marks |= markHeaders
	}
	if p.movedMAC {
		f.marks |= markMovedMAC
	}
}

// dirOf returns the direction of the packets from the end sender of f.key.
func (f *flow) dirOf(sender uint8) reassembly.Dir { return reassembly.Dir(sender ^ f.clientSide) }
