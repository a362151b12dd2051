package sessions

import (
	"encoding/binary"

	"github.com/google/gopacket/layers"

	"tidegate/collector/links"
)

// Link types that gopacket does not name. Its LinkType has eight bits, which leave 20 of LINKTYPE_LINUX_SLL2
// (276); no other link type has that number.
const (
	linkRawBSD   layers.LinkType = 14
	linkRaw12    layers.LinkType = 12
	linkSLL2     layers.LinkType = 276 & 0xff
	linkIPv4     layers.LinkType = 228
	linkIPv6     layers.LinkType = 229
	linkPPPoE    layers.LinkType = 51
	linkPPPHDLC  layers.LinkType = 50
	linkPPPPlain layers.LinkType = 9
	linkCHDLC    layers.LinkType = 104
	linkNFLOG    layers.LinkType = 239
	linkFDDI     layers.LinkType = 10
)

// maxNesting bounds the depth of nested tunnels, and the number of VLAN tags or MPLS labels in a row.
const maxNesting = 6

// EtherTypes.
const (
	etherIPv4     = 0x0800
	etherIPv6     = 0x86dd
	etherVLAN     = 0x8100
	etherQinQ     = 0x88a8
	etherQinQOld  = 0x9100
	etherMPLS     = 0x8847
	etherMPLSMany = 0x8848
	etherPPPoE    = 0x8864
	etherBridged  = 0x6558 // transparent Ethernet bridging
	etherERSPAN   = 0x88be
	etherERSPAN3  = 0x22eb
	etherVNTag    = 0x8926
)

// A decoder reads the headers of a frame into a packet. Its state is the IP fragments that wait and the tunnels
// that were looked up.
//
// Each method reads one kind of header and calls the method of the next layer. In all methods data is the
// captured part of a layer, wire the length of the whole layer on the wire, and depth the number of tunnels
// around it. An inner header overwrites the fields of p that an outer header has set: the innermost headers
// count.
type decoder struct {
	frags     defragmenter
	tunnels   tunnelGate
	checksums checksumSource
}

// decodeFrame reads the headers of a frame into p and returns the result under which the packet is counted.
func (d *decoder) decodeFrame(p *packet, link layers.LinkType, data []byte, wire int) result {
	// From here on len(data) ≤ wire, and every layer keeps it so: data may be cut, wire is not.
	wire = max(wire, len(data))
	switch link {
	case layers.LinkTypeEthernet:
		return d.decodeEthernet(p, data, wire, 0)
	case layers.LinkTypeNull, layers.LinkTypeLoop:
		return d.decodeLoopback(p, data, wire)
	case layers.LinkTypeRaw, linkRaw12, linkRawBSD, linkIPv4, linkIPv6:
		return d.decodeIP(p, data, wire, 0)
	case layers.LinkTypeLinuxSLL:
		if len(data) < 16 {
			return resTruncated
		}
		return d.decodeEtherType(p, binary.BigEndian.Uint16(data[14:]), data[16:], wire-16, 0)
	case linkSLL2:
		if len(data) < 20 {
			return resTruncated
		}
		return d.decodeEtherType(p, binary.BigEndian.Uint16(data), data[20:], wire-20, 0)
	case linkCHDLC:
		if len(data) < 4 {
			return resTruncated
		}
		return d.decodeEtherType(p, binary.BigEndian.Uint16(data[2:]), data[4:], wire-4, 0)
	case linkNFLOG:
		return d.decodeNFLOG(p, data, wire)
	case linkFDDI:
		if len(data) < 13 {
			return resTruncated
		}
		return d.decodeSNAP(p, data[13:], wire-13, 0)
	case linkPPPPlain, linkPPPHDLC:
		return d.decodePPP(p, data, wire, 0)
	case linkPPPoE:
		return d.decodePPPoE(p, data, wire, 0)
	}
	return resUnknownLink
}

// decodeEthernet reads an Ethernet header, or one of IEEE 802.3 with LLC.
func (d *decoder) decodeEthernet(p *packet, data []byte, wire, depth int) result {
	if len(data) < 14 {
		return resTruncated
	}
	typ := binary.BigEndian.Uint16(data[12:])
	if typ <= maxLength8023 {
		return d.decodeSNAP(p, data[14:], wire-14, depth)
	}
	return d.decodeEtherType(p, typ, data[14:], wire-14, depth)
}

// maxLength8023 is the largest length in the field behind a frame's addresses. A larger value of the field is
// an EtherType (IEEE 802.3).
const maxLength8023 = 1500

// decodeSNAP reads an LLC header with the SNAP extension, which has an EtherType (RFC 1042).
func (d *decoder) decodeSNAP(p *packet, data []byte, wire, depth int) result {
	if len(data) < 8 {
		return resTruncated
	}
	if string(data[:6]) != "\xaa\xaa\x03\x00\x00\x00" {
		return resNotIP
	}
	if !d.opens(p, links.SNAP, 0, depth) {
		return resTunnel
	}
	return d.decodeEtherType(p, binary.BigEndian.Uint16(data[6:]), data[8:], wire-8, depth)
}

// decodeEtherType reads the layer of the EtherType typ. It skips VLAN tags and keeps the innermost VLAN id.
func (d *decoder) decodeEtherType(p *packet, typ uint16, data []byte, wire, depth int) result {
	if depth > maxNesting {
		return resTooDeep
	}

	// Most packets are IPv4 without a tag: they need neither the loop nor decodeIP.
	if typ == etherIPv4 && len(data) > 0 && data[0]>>4 == 4 {
		return d.decodeIPv4(p, data, wire, depth)
	}

	// Each turn but the last skips one tag and continues with the EtherType behind it.
	for range maxNesting {
		switch typ {
		case etherIPv4, etherIPv6:
			return d.decodeIP(p, data, wire, depth)
		case etherVLAN, etherQinQ, etherQinQOld:
			if len(data) < 4 {
				return resTruncated
			}
			p.vlan = binary.BigEndian.Uint16(data) & 0xfff
			d.addVLANToKey(p)
			typ = binary.BigEndian.Uint16(data[2:])
			data, wire = data[4:], wire-4
		case etherVNTag:
			if len(data) < 6 {
				return resTruncated
			}
			if !d.opens(p, links.VNTag, 0, depth) {
				return resTunnel
			}
			typ = binary.BigEndian.Uint16(data[4:])
			data, wire = data[6:], wire-6
		case etherMPLS, etherMPLSMany:
			return d.decodeMPLS(p, data, wire, depth+1)
		case etherPPPoE:
			return d.decodePPPoE(p, data, wire, depth)
		case etherBridged:
			return d.decodeEthernet(p, data, wire, depth+1)
		default:
			// Behind a tag the field may be a length too. The depth bounds tags within LLC within tags.
			if typ <= maxLength8023 {
				return d.decodeSNAP(p, data, wire, depth+1)
			}
			return resNotIP
		}
	}
	return resTooDeep
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
	return resNotIP
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
	return resNotIP
}

// decodeMPLS skips the stack of labels (RFC 3032). A label has no field for the type of the payload: the
// version in the first four bits shows an IP packet, and zeros there show the control word of an Ethernet
// frame.
func (d *decoder) decodeMPLS(p *packet, data []byte, wire, depth int) result {
	// The labels of the two directions differ, so the key has none.
	if !d.enterTunnel(p, links.MPLS, 0, depth-1) {
		return resTunnel
	}
	for range maxNesting {
		if len(data) < 5 {
			return resTruncated
		}
		bottom := data[2]&1 != 0 // the S bit: the last label of the stack
		data, wire = data[4:], wire-4
		if !bottom {
			continue
		}
		switch data[0] >> 4 {
		case 4, 6:
			return d.decodeIP(p, data, wire, depth)
		case 0: // the control word of a pseudowire, RFC 4385
			if len(data) < 4 {
				return resTruncated
			}
			return d.decodeEthernet(p, data[4:], wire-4, depth)
		}
		return resNotIP
	}
	return resTooDeep
}

// decodePPPoE reads the data of a PPPoE session (RFC 2516, section 5).
func (d *decoder) decodePPPoE(p *packet, data []byte, wire, depth int) result {
	if len(data) < 8 {
		return resTruncated
	}
	if data[0] != 0x11 || data[1] != 0 { // version 1, type 1, code 0: session data
		return resNotIP
	}
	if !d.enterTunnel(p, links.PPPoE, uint32(binary.BigEndian.Uint16(data[2:])), depth) {
		return resTunnel
	}
	size := int(binary.BigEndian.Uint16(data[4:]))
	data, wire = data[6:], min(wire-6, size) // padding follows
	return d.decodePPP(p, data[:min(len(data), max(wire, 0))], wire, depth)
}

// decodePPP reads a PPP header (RFC 1661, RFC 1662). The address and control fields may be missing, and the
// protocol number has one or two bytes.
func (d *decoder) decodePPP(p *packet, data []byte, wire, depth int) result {
	if len(data) >= 2 && data[0] == 0xff && data[1] == 3 {
		data, wire = data[2:], wire-2
	}
	if len(data) < 2 {
		return resTruncated
	}
	typ, size := uint16(data[0]), 1
	if data[0]&1 == 0 { // only the last byte of the number is odd
		typ, size = binary.BigEndian.Uint16(data), 2
	}
	switch typ {
	case 0x21, 0x57: // IPv4, IPv6
		return d.decodeIP(p, data[size:], wire-size, depth)
	}
	return resNotIP
}

// isVXLAN reports whether b, a UDP payload, is a VXLAN header (RFC 7348) and an Ethernet frame. The reserved
// fields of the header are not checked, as the RFC demands.
func isVXLAN(b []byte) bool { return len(b) >= 8+14 && b[0]&0x08 != 0 }

// geneveHeader returns the length of the Geneve header (RFC 8926) at the front of data, and the EtherType of
// its payload. headerLen is 0 if there is no such header.
func geneveHeader(data []byte) (headerLen int, typ uint16) {
	if len(data) < 8 || data[0]>>6 != 0 {
		return 0, 0
	}
	headerLen = 8 + int(data[0]&0x3f)*4
	if headerLen > len(data) {
		return 0, 0
	}
	switch typ = binary.BigEndian.Uint16(data[2:]); typ {
	case etherBridged, etherIPv4, etherIPv6:
		return headerLen, typ
	}
	return 0, 0
}

// gtpHeader returns the length of the GTP-U header (3GPP TS 29.281) of a G-PDU at the front of data, with its
// options and extensions, and the EtherType of its payload. headerLen is 0 if there is no such header.
func gtpHeader(data []byte) (headerLen int, typ uint16) {
	if len(data) < 9 || data[0]&0xf0 != 0x30 || data[1] != 0xff {
		return 0, 0
	}

	// Any of the three flags (extension, sequence number, N-PDU number) adds four bytes. The extension
	// headers follow. The first byte of an extension header is its length in units of four bytes. Its last
	// byte is the type of the next extension header, 0 if there is none.
	headerLen = 8
	if data[0]&7 != 0 {
		headerLen = 12
		for i, next := 0, data[0]&4 != 0 && len(data) > 11 && data[11] != 0; next && i < 8; i++ {
			if len(data) <= headerLen || data[headerLen] == 0 {
				return 0, 0
			}
			headerLen += int(data[headerLen]) * 4
			next = headerLen <= len(data) && data[headerLen-1] != 0
		}
	}
	if len(data) <= headerLen {
		return 0, 0
	}

	// The header has no field for the type of the payload; the version of IP shows it.
	switch data[headerLen] >> 4 {
	case 4:
		return headerLen, etherIPv4
	case 6:
		return headerLen, etherIPv6
	}
	return 0, 0
}

// greKey returns the key in the GRE header at the front of data, 0 if there is none. The same field of PPTP differs
// in the two directions of a call, and is no key.
func greKey(data []byte) uint32 {
	flags, at := data[0], 4
	if flags&0x20 == 0 || data[1]&7 == 1 {
		return 0
	}
	if flags&0x80 != 0 {
		at += 4
	}
	if len(data) < at+4 {
		return 0
	}
	return binary.BigEndian.Uint32(data[at:])
}

// decodeGRE reads a GRE header (RFC 2784, RFC 2890). Version 1 is the header of PPTP (RFC 2637).
func (d *decoder) decodeGRE(p *packet, data []byte, wire, depth int) result {
	if len(data) < 4 {
		return resTruncated
	}
	flags, typ := data[0], binary.BigEndian.Uint16(data[2:])
	if !d.enterTunnel(p, links.GRE, greKey(data), depth-1) {
		return resTunnel
	}

	// Each flag that is set adds an optional field of four bytes.
	headerLen := 4
	for _, flag := range [...]byte{0x80, 0x20, 0x10} { // checksum, key, sequence
		if flags&flag != 0 {
			headerLen += 4
		}
	}
	if data[1]&7 == 1 { // PPTP
		if data[1]&0x80 != 0 { // acknowledgement
			headerLen += 4
		}
		if len(data) < headerLen {
			return resTruncated
		}
		return d.decodePPP(p, data[headerLen:], wire-headerLen, depth)
	}

	// ERSPAN has a header of its own before the mirrored frame.
	switch typ {
	case etherERSPAN:
		if flags&0x10 != 0 { // type II; type I has no sequence number and no header of its own
			headerLen += 8
		}
		typ = etherBridged
	case etherERSPAN3:
		headerLen, typ = headerLen+12, etherBridged
	}
	if len(data) < headerLen {
		return resTruncated
	}
	return d.decodeEtherType(p, typ, data[headerLen:], wire-headerLen, depth)
}
