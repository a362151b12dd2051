package sessions

import "encoding/binary"

// IP protocol numbers.
const (
	protoICMP     = 1
	protoIPIP     = 4
	protoTCP      = 6
	protoUDP      = 17
	protoIPv6     = 41
	protoRouting  = 43
	protoFragment = 44
	protoGRE      = 47
	protoAH       = 51
	protoICMPv6   = 58
	protoDestOpts = 60
	protoMobility = 135
	protoHIP      = 139
	protoShim6    = 140
)

// Ports of the tunnels that lie in UDP: VXLAN's own and the one that Linux used before it had one, Geneve's, GTP-U's, GRE's.
const (
	portVXLAN      = 4789
	portVXLANLinux = 8472
	portGeneve     = 6081
	portGTP        = 2152
	portGRE        = 4754 // RFC 8086
)

// ip reads the header of either version. The length that it states counts: what lies behind it is padding of the Ethernet frame.
func (t *Table) ip(b []byte, wire, depth int) result {
	if depth > maxNesting {
		return resTooDeep
	}
	if len(b) < 1 {
		return resTruncated
	}
	switch b[0] >> 4 {
	case 4:
		return t.ip4(b, wire, depth)
	case 6:
		return t.ip6(b, wire, depth)
	}
	return resMalformed
}

func (t *Table) ip4(b []byte, wire, depth int) result {
	if len(b) < 20 {
		return resTruncated
	}
	head, total := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
	if total == 0 { // the sender's network card was to fill it in (TSO)
		total = wire
	}
	if head < 20 || total < head {
		return resMalformed
	}
	if len(b) < head {
		return resTruncated
	}
	p := &t.p
	p.src, p.dst = addr4(b[12:]), addr4(b[16:])
	p.id, p.hasID = uint32(binary.BigEndian.Uint16(b[4:])), b[4]|b[5] != 0
	frag, proto := binary.BigEndian.Uint16(b[6:]), b[9]
	total = min(total, wire)
	if total < head {
		return resTruncated
	}
	b = b[head:min(len(b), total)]
	wire = total - head
	if frag&0x3fff != 0 {
		var r result
		b, r = t.frags.add(t, fragKey{p.src, p.dst, p.id, proto, false, p.iface}, b, wire, int(frag&0x1fff)*8, frag&0x2000 != 0)
		if b == nil {
			return r
		}
		wire = len(b)
	}
	return t.transport(proto, b, wire, depth)
}

func (t *Table) ip6(b []byte, wire, depth int) result {
	if len(b) < 40 {
		return resTruncated
	}
	p := &t.p
	p.src, p.dst = addr6(b[8:]), addr6(b[24:])
	p.id, p.hasID = 0, false
	size, next := int(binary.BigEndian.Uint16(b[4:])), b[6]
	if size == 0 { // TSO, or a jumbogram
		size = max(wire-40, 0)
	}
	wire = min(size, wire-40)
	b = b[40:min(len(b), 40+wire)]
	for range 8 {
		switch next {
		case 0, protoRouting, protoDestOpts, protoMobility, protoHIP, protoShim6, protoAH:
			if len(b) < 8 {
				return resTruncated
			}
			n := 8 + int(b[1])*8
			if next == protoAH {
				n = 8 + int(b[1])*4
			}
			if n > wire {
				return resMalformed
			}
			if n > len(b) {
				return resTruncated
			}
			next, b, wire = b[0], b[n:], wire-n
		case protoFragment:
			if len(b) < 8 {
				return resTruncated
			}
			field := binary.BigEndian.Uint16(b[2:])
			id, kind := binary.BigEndian.Uint32(b[4:]), b[0]
			next, b, wire = kind, b[8:], wire-8
			if field&^6 == 0 { // an atomic fragment, RFC 6946
				continue
			}
			var r result
			b, r = t.frags.add(t, fragKey{p.src, p.dst, id, kind, true, p.iface}, b, wire, int(field&^7), field&1 != 0)
			if b == nil {
				return r
			}
			wire = len(b)
		default:
			return t.transport(next, b, wire, depth)
		}
	}
	return resTooDeep
}

// transport reads what IP carries: TCP, UDP, or another packet.
func (t *Table) transport(proto uint8, b []byte, wire, depth int) result {
	t.p.proto = proto
	switch proto {
	case protoTCP:
		return t.tcpHeader(b, wire)
	case protoUDP:
		return t.udpHeader(b, wire, depth)
	case protoIPIP, protoIPv6:
		return t.ip(b, wire, depth+1)
	case protoGRE:
		return t.gre(b, wire, depth+1)
	case protoAH:
		if len(b) < 8 {
			return resTruncated
		}
		n := 8 + int(b[1])*4
		if n > len(b) || depth > maxNesting {
			return resTruncated
		}
		return t.transport(b[0], b[n:], wire-n, depth+1)
	case protoICMP, protoICMPv6:
		return resICMP
	}
	return resOtherProtocol
}

func (t *Table) tcpHeader(b []byte, wire int) result {
	if len(b) < 20 {
		return resTruncated
	}
	p := &t.p
	head := int(b[12]>>4) * 4
	if head < 20 || head > wire {
		return resMalformed
	}
	p.sport, p.dport = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	p.seq, p.ack = binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:])
	p.flags, p.win = b[13]&0x3f, binary.BigEndian.Uint16(b[14:])
	p.header = b[:min(head, len(b))]
	p.payload = b[len(p.header):]
	p.size = wire - head
	return resTCP
}

func (t *Table) udpHeader(b []byte, wire, depth int) result {
	if len(b) < 8 {
		return resTruncated
	}
	p := &t.p
	p.sport, p.dport = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	size := int(binary.BigEndian.Uint16(b[4:]))
	if size == 0 { // a datagram longer than its length field can say
		size = wire
	}
	if size < 8 {
		return resMalformed
	}
	p.header = b[:8]
	p.payload = b[8:min(len(b), size)]
	p.size = size - 8
	return t.tunnel(depth)
}

// tunnel looks into a UDP datagram that may carry a frame.
func (t *Table) tunnel(depth int) result {
	p := &t.p
	switch p.dport {
	case portVXLAN, portVXLANLinux:
		if vxlan(p.payload) {
			return t.inner(depth, etherBridged, 8)
		}
	case portGeneve:
		if n, typ := geneve(p.payload); n > 0 {
			return t.inner(depth, typ, n)
		}
	case portGRE:
		if len(p.payload) >= 8 && p.payload[0]&0x4f == 0 && p.payload[1] == 0 {
			return t.gre(p.payload, p.size, depth+1)
		}
	case portGTP:
		if n, typ := gtp(p.payload); n > 0 {
			return t.inner(depth, typ, n)
		}
	}
	return resUDP
}

func (t *Table) inner(depth int, typ uint16, n int) result {
	if depth >= maxNesting {
		return resTooDeep
	}
	return t.etherType(typ, t.p.payload[n:], t.p.size-n, depth+1)
}
