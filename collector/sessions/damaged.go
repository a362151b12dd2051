package sessions

import "tidegate/collector/reassembly"

// A packet whose headers are damaged, cut or nested too deep is not read. Between containers that is no accident of a
// network: the sender has made them so, and the receiver may read further than the decoder. So such packets on a bridge
// are reported, as a session of no transport for each pair of addresses, which has the tag undecoded.

// protoDamaged is the protocol of the flows of such packets. The number is reserved (IANA).
const protoDamaged = 255

// isDamaged reports whether a packet that was decoded with the result r is told by handleDamaged.
func (r result) isDamaged() bool {
	return r == resMalformed || r == resTruncated || r == resTooDeep || r == resBadFragment
}

// handleDamaged counts p, a frame of wireLen bytes that could not be read, in the flow of its addresses if it is from a
// bridge and had a readable IP header.
func (t *Table) handleDamaged(p *packet, wireLen int) {
	if p.src == (addr{}) && p.dst == (addr{}) || !t.ifaces.list[p.iface].isBridge {
		return
	}
	p.proto, p.sport, p.dport, p.checksum, p.Flags = protoDamaged, 0, 0, sumUnchecked, 0
	p.header, p.Options, p.Payload, p.Size = nil, nil, nil, wireLen
	key, sender := p.flowKey()
	flow, isNew := t.enterFlow(t.flows[key], p, key, sender)
	if isNew {
		flow.setSession(0)
	}
	flow.lastSeen, flow.last = t.clock.now, max(flow.last, p.Time)
	side := &flow.stats.sides[reassembly.Dir(sender^flow.clientSide)]
	side.packets++
	side.bytes += uint64(wireLen)
	flow.markPacket(p)
	flow.marks |= markDamaged
	if isNew {
		flow.schedule()
	}
}
