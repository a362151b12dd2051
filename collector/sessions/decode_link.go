package sessions

import (
	"encoding/binary"

	"github.com/google/gopacket/layers"
)

// Link types that gopacket does not name. Its LinkType has eight bits, which leave 20 of LINKTYPE_LINUX_SLL2
// (276); no other link type has that number.
const (
	linkPPPPlain  layers.LinkType = 9
	linkFDDI      layers.LinkType = 10
	linkRaw12     layers.LinkType = 12
	linkRawBSD    layers.LinkType = 14
	linkSLL2      layers.LinkType = 276 & 0xff
	linkPPPHDLC   layers.LinkType = 50
	linkPPPoE     layers.LinkType = 51
	linkATM       layers.LinkType = 100 // with LLC, RFC 2684
	linkCHDLC     layers.LinkType = 104
	linkWLAN      layers.LinkType = 105
	linkFrames    layers.LinkType = 107 // Frame Relay, RFC 2427
	linkENC       layers.LinkType = 109 // IPsec of OpenBSD
	linkPFLog     layers.LinkType = 117
	linkPrism     layers.LinkType = 119
	linkRadiotap  layers.LinkType = 127
	linkAVS       layers.LinkType = 163
	linkPPPD      layers.LinkType = 166 // PPP behind a direction, of pppd
	linkPPI       layers.LinkType = 192
	linkPPPDir    layers.LinkType = 204
	linkCHDLCDir  layers.LinkType = 205
	linkFramesDir layers.LinkType = 206
	linkIPv4      layers.LinkType = 228
	linkIPv6      layers.LinkType = 229
	linkNFLOG     layers.LinkType = 239
)

// decodeFrame reads the headers of a frame into p and returns the result under which the packet is counted.
func (d *decoder) decodeFrame(p *packet, link layers.LinkType, data []byte, wire int) result {
	// From here on len(data) ≤ wire, and every layer keeps it so: data may be cut, wire is not.
	wire = max(wire, len(data))
	switch link {
	case layers.LinkTypeEthernet:
		return d.decodeEthernet(p, data, wire, 0)
	case layers.LinkTypeRaw, linkRaw12, linkRawBSD, linkIPv4, linkIPv6:
		return d.decodeIP(p, data, wire, 0)
	case layers.LinkTypeNull, layers.LinkTypeLoop:
		return d.decodeLoopback(p, data, wire)
	case linkNFLOG:
		return d.decodeNFLOG(p, data, wire)
	case linkPFLog:
		return d.decodePFLog(p, data, wire)
	case linkPPPPlain, linkPPPHDLC:
		return d.decodePPP(p, data, wire, 0)
	case linkPPPoE:
		return d.decodePPPoE(p, data, wire, 0)
	case linkWLAN:
		return d.decodeWLAN(p, data, wire, false, 0)
	case linkRadiotap, linkPrism, linkAVS:
		return d.decodeMonitor(p, link, data, wire)
	case linkPPI:
		return d.decodePPI(p, data, wire)
	case linkFrames:
		return d.decodeFrameRelay(p, data, wire)
	}
	return d.decodePrefixed(p, link, data, wire)
}

// decodePrefixed reads a frame whose headers have a fixed length.
func (d *decoder) decodePrefixed(p *packet, link layers.LinkType, data []byte, wire int) result {
	var size int
	switch link {
	case layers.LinkTypeLinuxSLL:
		size = 16
	case linkSLL2:
		size = 20
	case linkFDDI:
		size = 13
	case linkENC:
		size = 12
	case linkCHDLCDir:
		size = 5
	case linkCHDLC:
		size = 4
	case linkPPPD:
		size = 2
	case linkPPPDir, linkFramesDir:
		size = 1
	case linkATM:
		size = 0
	default:
		return p.endAt(resUnknownLink, LayerLink, uint64(link))
	}
	if len(data) < size {
		return resTruncated
	}
	head, data, wire := data[:size], data[size:], wire-size
	switch link {
	case layers.LinkTypeLinuxSLL:
		return d.decodeEtherType(p, binary.BigEndian.Uint16(head[14:]), data, wire, 0)
	case linkSLL2:
		return d.decodeEtherType(p, binary.BigEndian.Uint16(head), data, wire, 0)
	case linkCHDLC, linkCHDLCDir:
		return d.decodeEtherType(p, binary.BigEndian.Uint16(head[size-2:]), data, wire, 0)
	case linkFDDI, linkATM:
		return d.decodeLLC(p, true, data, wire, 0)
	case linkENC:
		return d.decodeIP(p, data, wire, 0)
	case linkFramesDir:
		return d.decodeFrameRelay(p, data, wire)
	}
	return d.decodePPP(p, data, wire, 0)
}

// decodeLoopback reads the header of the BSD loopback: an address family in the byte order of the capturing
// host.
func (d *decoder) decodeLoopback(p *packet, data []byte, wire int) result {
	if len(data) < 4 {
		return resTruncated
	}
	family := binary.LittleEndian.Uint32(data)
	if family > 0xffff {
		family = binary.BigEndian.Uint32(data)
	}
	switch family {
	case 2, 10, 24, 28, 30: // AF_INET, and AF_INET6 of Linux, NetBSD, FreeBSD and macOS
		return d.decodeIP(p, data[4:], wire-4, 0)
	case etherIPv4, etherIPv6:
		return d.decodeIP(p, data[4:], wire-4, 0)
	}
	return p.endAt(resNotIP, LayerLoopback, uint64(family))
}

// decodeNFLOG reads a message of Linux's netfilter log. The message is a list of attributes in the byte order
// of the host; one attribute holds the packet.
func (d *decoder) decodeNFLOG(p *packet, data []byte, wire int) result {
	const payload = 9 // NFULA_PAYLOAD
	if len(data) < 4 {
		return resTruncated
	}

	// Skip attributes, each padded to four bytes, up to the one of the packet.
	for data, wire = data[4:], wire-4; len(data) >= 4; {
		size, typ := int(binary.LittleEndian.Uint16(data)), binary.LittleEndian.Uint16(data[2:])&0x7fff
		if size < 4 {
			return resMalformed
		}
		if typ == payload {
			return d.decodeIP(p, data[4:min(size, len(data))], min(size-4, wire-4), 0)
		}
		size = min((size+3)&^3, len(data))
		data, wire = data[size:], wire-size
	}
	return p.endAt(resNotIP, LayerLink, uint64(linkNFLOG))
}

// decodePFLog reads the header of OpenBSD's packet filter log: its length, without padding, and an address family.
func (d *decoder) decodePFLog(p *packet, data []byte, wire int) result {
	if len(data) < 4 {
		return resTruncated
	}
	size, family := (int(data[0])+3)&^3, data[1]
	if size > len(data) {
		return resTruncated
	}
	switch family {
	case 2, 24, 28, 30: // AF_INET, and AF_INET6 of NetBSD, OpenBSD, FreeBSD and macOS
		return d.decodeIP(p, data[size:], wire-size, 0)
	}
	return p.endAt(resNotIP, LayerLoopback, uint64(family))
}

// decodePPI reads the header of Per-Packet Information, which has the link type of the frame behind it.
func (d *decoder) decodePPI(p *packet, data []byte, wire int) result {
	if len(data) < 8 {
		return resTruncated
	}
	size, link := int(binary.LittleEndian.Uint16(data[2:])), binary.LittleEndian.Uint32(data[4:])
	switch {
	case size < 8:
		return resMalformed
	case size > len(data):
		return resTruncated
	case link > 0xff || layers.LinkType(link) == linkPPI:
		return p.endAt(resUnknownLink, LayerLink, uint64(link))
	}
	return d.decodeFrame(p, layers.LinkType(link), data[size:], wire-size)
}

// decodeFrameRelay reads the header of Frame Relay: an address, whose last byte is odd, a control field, and a number of
// the network layer's protocol (RFC 2427).
func (d *decoder) decodeFrameRelay(p *packet, data []byte, wire int) result {
	size := 0
	for more := true; more; size++ {
		if size >= len(data) || size == 4 {
			return resTruncated
		}
		more = data[size]&1 == 0
	}
	size++ // the control field of unnumbered information
	if size < len(data) && data[size] == 0 {
		size++ // padding
	}
	if size+1 > len(data) {
		return resTruncated
	}
	number := data[size]
	data, wire = data[size+1:], wire-size-1
	switch number {
	case 0xcc, 0x8e: // IPv4, IPv6
		return d.decodeIP(p, data, wire, 0)
	case 0x80:
		return d.decodeSNAP(p, true, data, wire, 0)
	}
	return p.endAt(resNotIP, LayerLink, uint64(linkFrames))
}
