package sessions

import (
	"encoding/binary"

	"tidegate/collector/links"
)

// IP protocol numbers.
const (
	protoHopByHop = 0
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
	protoEtherIP  = 97
	protoMobility = 135
	protoMPLS     = 137
	protoHIP      = 139
	protoShim6    = 140
)

// decodeIP reads an IP header of either version. Bytes beyond the length in the header are padding of the
// Ethernet frame and are cut off.
func (d *decoder) decodeIP(p *packet, data []byte, wire, depth int) result {
	if depth > maxNesting {
		return resTooDeep
	}
	if len(data) < 1 {
		return resTruncated
	}
	switch data[0] >> 4 {
	case 4:
		return d.decodeIPv4(p, data, wire, depth)
	case 6:
		return d.decodeIPv6(p, data, wire, depth)
	}
	return resMalformed
}

// decodeIPv4 reads the header of IPv4 (RFC 791).
func (d *decoder) decodeIPv4(p *packet, data []byte, wire, depth int) result {
	if len(data) < 20 {
		return resTruncated
	}
	headLen, totalLen := int(data[0]&15)*4, int(binary.BigEndian.Uint16(data[2:]))
	if totalLen == 0 { // left to the sender's network card to fill in (TSO)
		totalLen = wire
	}
	if headLen < 20 || totalLen < headLen {
		return resMalformed
	}
	if len(data) < headLen {
		return resTruncated
	}
	p.src, p.dst = addrFrom4(data[12:]), addrFrom4(data[16:])
	p.id, p.hasID = uint32(binary.BigEndian.Uint16(data[4:])), data[4]|data[5] != 0
	fragment, proto := binary.BigEndian.Uint16(data[6:]), data[9]
	if headLen > 20 && areOptionsRefusedIPv4(data[20:headLen]) {
		p.refused, p.Doubtful = true, true
	}
	if d.isHeaderWrong(data[:headLen]) {
		p.headerWrong = true
	}

	// From here on data and wire are those of the payload, without padding.
	totalLen = min(totalLen, wire)
	if totalLen < headLen {
		return resTruncated
	}
	data = data[headLen:min(len(data), totalLen)]
	wire = totalLen - headLen

	// A fragment ends here unless it completes its datagram, which then takes its place.
	if fragment&0x3fff != 0 { // an offset, or more fragments follow
		var res result
		data, res = d.frags.addFragment(p.clock, ipFragment{
			key: fragKey{p.src, p.dst, p.tunnel.key, p.id, proto, false, p.refused, p.iface},
			off: int(fragment&0x1fff) * 8, more: fragment&0x2000 != 0, b: data, wire: wire,
		})
		if data == nil {
			return res
		}
		wire, p.conflict = len(data), d.frags.conflict
	}
	return d.decodeTransport(p, proto, data, wire, depth)
}

// areOptionsRefusedIPv4 reports whether Linux, as it is configured by default, drops a packet because of its options
// (RFC 791, section 3.1): a source route, or an option that goes beyond its end.
func areOptionsRefusedIPv4(options []byte) bool {
	const end, noOperation, recordRoute, timestamps, looseRoute, strictRoute = 0, 1, 7, 68, 131, 137
	for len(options) > 0 && options[0] != end {
		if options[0] == noOperation {
			options = options[1:]
			continue
		}
		if len(options) < 2 || options[1] < 2 || int(options[1]) > len(options) {
			return true
		}
		size := int(options[1])
		switch options[0] {
		case looseRoute, strictRoute:
			return true
		case recordRoute, timestamps: // the next free place, of 4 bytes, if there is one
			if size < 3 || options[2] < 4 || int(options[2]) <= size && int(options[2])+3 > size {
				return true
			}
		}
		options = options[size:]
	}
	return false
}

// decodeTransport reads the payload of IP: TCP, UDP, or a tunnel.
func (d *decoder) decodeTransport(p *packet, proto uint8, data []byte, wire, depth int) result {
	p.proto = proto
	switch proto {
	case protoTCP:
		return d.decodeTCP(p, data, wire)
	case protoUDP:
		return d.decodeUDP(p, data, wire, depth)
	case protoIPIP, protoIPv6:
		if !d.enterTunnel(p, links.IPIP, 0, depth) {
			return p.endAt(resTunnel, LayerTunnel, uint64(links.IPIP))
		}
		return d.decodeIP(p, data, wire, depth+1)
	case protoGRE:
		return d.decodeGRE(p, data, wire, depth+1)
	case protoAH: // in IPv4; decodeIPv6 skips it as an extension header
		if len(data) < 8 {
			return resTruncated
		}
		size := 8 + int(data[1])*4
		if size > len(data) || depth > maxNesting {
			return resTruncated
		}
		if !d.opens(p, links.AH, 0, depth) {
			return p.endAt(resTunnel, LayerTunnel, uint64(links.AH))
		}
		return d.decodeTransport(p, data[0], data[size:], wire-size, depth+1)
	case protoEtherIP: // version 3 in a header of two bytes
		if len(data) > 0 && data[0] != 0x30 {
			return resMalformed
		}
		return d.decodeInnerEthernet(p, links.EtherIP, 2, data, wire, depth)
	case protoMPLS:
		return d.decodeMPLS(p, data, wire, depth+1)
	case protoICMP, protoICMPv6:
		return p.endAt(resICMP, LayerIP, uint64(proto))
	}
	return p.endAt(resOtherProtocol, LayerIP, uint64(proto))
}

// decodeTCP reads a TCP header (RFC 9293).
func (d *decoder) decodeTCP(p *packet, data []byte, wire int) result {
	if len(data) < 20 {
		return resTruncated
	}
	headLen := int(data[12]>>4) * 4
	if headLen < 20 || headLen > wire {
		return resMalformed
	}
	p.sport, p.dport = binary.BigEndian.Uint16(data), binary.BigEndian.Uint16(data[2:])
	p.Seq, p.Ack = binary.BigEndian.Uint32(data[4:]), binary.BigEndian.Uint32(data[8:])
	p.Flags, p.Window = data[13]&0x3f, binary.BigEndian.Uint16(data[14:])
	p.Urgent = binary.BigEndian.Uint16(data[18:])
	p.header = data[:min(headLen, len(data))]
	p.Options = p.header[20:]
	p.Payload = data[len(p.header):]
	p.Size = wire - headLen
	if isSigned(p.Options) {
		p.refused, p.Doubtful = true, true
	}
	d.checkTransport(p, data, wire, 16)
	return resTCP
}

// decodeUDP reads a UDP header (RFC 768), and the tunnel in the datagram if there is one.
func (d *decoder) decodeUDP(p *packet, data []byte, wire, depth int) result {
	if len(data) < 8 {
		return resTruncated
	}
	p.sport, p.dport = binary.BigEndian.Uint16(data), binary.BigEndian.Uint16(data[2:])
	size := int(binary.BigEndian.Uint16(data[4:]))
	if size == 0 { // a datagram that is longer than the field can hold, RFC 2675
		size = wire
	}
	if size < 8 {
		return resMalformed
	}
	p.header = data[:8]
	p.Payload = data[8:min(len(data), size)]
	p.Size = min(size, wire) - 8
	d.checkTransport(p, data[:min(len(data), size)], min(size, wire), 6)
	return d.decodeTunnel(p, depth)
}

// decodeTunnel reads the frame or packet in p, a UDP datagram, if p belongs to a tunnel that is opened. A tunnel is
// recognised by its port and a valid header; any other datagram is plain UDP.
func (d *decoder) decodeTunnel(p *packet, depth int) result {
	switch p.dport {
	case links.PortVXLAN, links.PortVXLANLinux:
		if isVXLAN(p.Payload) {
			return d.decodeInner(p, depth, links.VXLAN, networkID(p.Payload), etherBridged, 8)
		}
	case links.PortVXLANGPE:
		if typ := gpeHeader(p.Payload); typ != 0 {
			return d.decodeInner(p, depth, links.VXLAN, networkID(p.Payload), typ, 8)
		}
	case links.PortMPLS:
		if depth < maxNesting && len(p.Payload) >= 5 && d.opens(p, links.MPLS, 0, depth) {
			return d.decodeMPLS(p, p.Payload, p.Size, depth+1)
		}
	case links.PortGeneve:
		if headerLen, typ := geneveHeader(p.Payload); headerLen > 0 {
			return d.decodeInner(p, depth, links.Geneve, networkID(p.Payload), typ, headerLen)
		}
	case links.PortGRE:
		// A plain GRE header of version 0: reserved bits would be set in most other datagrams.
		if len(p.Payload) >= 8 && p.Payload[0]&0x4f == 0 && p.Payload[1] == 0 &&
			d.opens(p, links.GRE, greKey(p.Payload), depth) {
			return d.decodeGRE(p, p.Payload, p.Size, depth+1)
		}
	case links.PortGTP:
		if headerLen, typ := gtpHeader(p.Payload); headerLen > 0 {
			return d.decodeInner(p, depth, links.GTP, binary.BigEndian.Uint32(p.Payload[4:]), typ, headerLen)
		}
	}
	if p.dport == links.PortTeredo || p.sport == links.PortTeredo {
		if headerLen := teredoHeader(p.Payload); headerLen >= 0 {
			return d.decodeInner(p, depth, links.Teredo, 0, etherIPv6, headerLen)
		}
	}
	return resUDP
}

// networkID returns the VNI of a VXLAN or Geneve header.
func networkID(header []byte) uint32 { return binary.BigEndian.Uint32(header[4:]) >> 8 }

// decodeInner reads the layer of type typ behind the tunnel's header, which has headerLen bytes. If the tunnel is
// not to be opened, the datagram is plain UDP.
func (d *decoder) decodeInner(
	p *packet, depth int, kind links.Encapsulation, id uint32, typ uint16, headerLen int,
) result {
	if depth >= maxNesting {
		return resTooDeep
	}
	if !d.enterTunnel(p, kind, id, depth) {
		return resUDP
	}
	return d.decodeEtherType(p, typ, p.Payload[headerLen:], p.Size-headerLen, depth+1)
}
