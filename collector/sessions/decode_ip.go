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
func (d *decoder) ip(p *packet, b []byte, wire, depth int) result {
	if depth > maxNesting {
		return resTooDeep
	}
	if len(b) < 1 {
		return resTruncated
	}
	switch b[0] >> 4 {
	case 4:
		return d.ip4(p, b, wire, depth)
	case 6:
		return d.ip6(p, b, wire, depth)
	}
	return resMalformed
}

func (d *decoder) ip4(p *packet, b []byte, wire, depth int) result {
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
		b, r = d.frags.add(p.clock, ipFragment{
			key: fragKey{p.src, p.dst, p.id, proto, false, p.iface},
			off: int(frag&0x1fff) * 8, more: frag&0x2000 != 0, b: b, wire: wire,
		})
		if b == nil {
			return r
		}
		wire = len(b)
	}
	return d.transport(p, proto, b, wire, depth)
}

func (d *decoder) ip6(p *packet, b []byte, wire, depth int) result {
	if len(b) < 40 {
		return resTruncated
	}
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
			b, r = d.frags.add(p.clock, ipFragment{
				key: fragKey{p.src, p.dst, id, kind, true, p.iface},
				off: int(field &^ 7), more: field&1 != 0, b: b, wire: wire,
			})
			if b == nil {
				return r
			}
			wire = len(b)
		default:
			return d.transport(p, next, b, wire, depth)
		}
	}
	return resTooDeep
}

// transport reads what IP carries: TCP, UDP, or another packet.
func (d *decoder) transport(p *packet, proto uint8, b []byte, wire, depth int) result {
	p.proto = proto
	switch proto {
	case protoTCP:
		return d.tcpHeader(p, b, wire)
	case protoUDP:
		return d.udpHeader(p, b, wire, depth)
	case protoIPIP, protoIPv6:
		return d.ip(p, b, wire, depth+1)
	case protoGRE:
		return d.gre(p, b, wire, depth+1)
	case protoAH:
		if len(b) < 8 {
			return resTruncated
		}
		n := 8 + int(b[1])*4
		if n > len(b) || depth > maxNesting {
			return resTruncated
		}
		return d.transport(p, b[0], b[n:], wire-n, depth+1)
	case protoICMP, protoICMPv6:
		return resICMP
	}
	return resOtherProtocol
}

func (d *decoder) tcpHeader(p *packet, b []byte, wire int) result {
	if len(b) < 20 {
		return resTruncated
	}
	head := int(b[12]>>4) * 4
	if head < 20 || head > wire {
		return resMalformed
	}
	p.sport, p.dport = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	p.Seq, p.Ack = binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:])
	p.Flags, p.Window = b[13]&0x3f, binary.BigEndian.Uint16(b[14:])
	p.header = b[:min(head, len(b))]
	p.Options = p.header[20:]
	p.Payload = b[len(p.header):]
	p.Size = wire - head
	return resTCP
}

func (d *decoder) udpHeader(p *packet, b []byte, wire, depth int) result {
	if len(b) < 8 {
		return resTruncated
	}
	p.sport, p.dport = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	size := int(binary.BigEndian.Uint16(b[4:]))
	if size == 0 { // a datagram longer than its length field can say
		size = wire
	}
	if size < 8 {
		return resMalformed
	}
	p.header = b[:8]
	p.Payload = b[8:min(len(b), size)]
	p.Size = size - 8
	return d.tunnel(p, depth)
}

// tunnel looks into a UDP datagram that may carry a frame.
func (d *decoder) tunnel(p *packet, depth int) result {
	switch p.dport {
	case portVXLAN, portVXLANLinux:
		if vxlan(p.Payload) {
			return d.inner(p, depth, etherBridged, 8)
		}
	case portGeneve:
		if n, typ := geneve(p.Payload); n > 0 {
			return d.inner(p, depth, typ, n)
		}
	case portGRE:
		if len(p.Payload) >= 8 && p.Payload[0]&0x4f == 0 && p.Payload[1] == 0 {
			return d.gre(p, p.Payload, p.Size, depth+1)
		}
	case portGTP:
		if n, typ := gtp(p.Payload); n > 0 {
			return d.inner(p, depth, typ, n)
		}
	}
	return resUDP
}

func (d *decoder) inner(p *packet, depth int, typ uint16, n int) result {
	if depth >= maxNesting {
		return resTooDeep
	}
	return d.etherType(p, typ, p.Payload[n:], p.Size-n, depth+1)
}
