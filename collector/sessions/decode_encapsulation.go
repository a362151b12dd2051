package sessions

import (
	"bytes"
	"encoding/binary"

	"tidegate/collector/links"
)

// decodeMPLS skips the stack of labels (RFC 3032), and reads what is behind it.
func (d *decoder) decodeMPLS(p *packet, data []byte, wire, depth int) result {
	// The labels of the two directions differ, so the key has none.
	if !d.enterTunnel(p, links.MPLS, 0, depth-1) {
		return p.endAt(resTunnel, LayerTunnel, uint64(links.MPLS))
	}
	for range maxLabels {
		if len(data) < 5 {
			return resTruncated
		}
		bottom := data[2]&1 != 0 // the S bit: the last label of the stack
		data, wire = data[4:], wire-4
		if bottom {
			return d.decodeMPLSPayload(p, data, wire, depth)
		}
	}
	return resTooDeep
}

// maxLabels bounds the labels of a stack. Stacks of segment routing have up to ten in use, and two for entropy.
const maxLabels = 16

// decodeMPLSPayload reads what is behind the labels, which no field of them names. IP shows itself by its header. A
// pseudowire has an Ethernet frame, behind a control word of four bytes that begins with four zero bits (RFC 4385) or
// without one; then any address may be the first.
func (d *decoder) decodeMPLSPayload(p *packet, data []byte, wire, depth int) result {
	version := data[0] >> 4
	switch {
	case version == 4 && isIPv4Header(data, wire), version == 6 && isIPv6Header(data, wire):
		return d.decodeIP(p, data, wire, depth)
	case version == 0 && len(data) >= 4 && isEthernetHeader(data[4:]):
		return d.decodeEthernet(p, data[4:], wire-4, depth)
	case isEthernetHeader(data):
		return d.decodeEthernet(p, data, wire, depth)
	case version == 4, version == 6:
		return d.decodeIP(p, data, wire, depth)
	case version == 0 && len(data) >= 4:
		return d.decodeEthernet(p, data[4:], wire-4, depth)
	}
	return p.endAt(resNotIP, LayerMPLS, uint64(version))
}

// isIPv4Header reports whether data begins with a header of IPv4 whose length fits.
func isIPv4Header(data []byte, wire int) bool {
	if len(data) < 20 {
		return false
	}
	size, total := int(data[0]&15)*4, int(binary.BigEndian.Uint16(data[2:]))
	return size >= 20 && total >= size && total <= wire
}

// isIPv6Header reports whether data begins with a header of IPv6 whose length fits, but for the padding of the shortest
// frames.
func isIPv6Header(data []byte, wire int) bool {
	const shortest = 46 // bytes of a frame behind its header
	if len(data) < 40 {
		return false
	}
	size := 40 + int(binary.BigEndian.Uint16(data[4:]))
	return size == wire || size < wire && wire <= shortest
}

// isEthernetHeader reports whether data begins with a header of Ethernet, and a type that is read or that is frequent.
func isEthernetHeader(data []byte) bool {
	if len(data) < 17 {
		return false
	}
	switch typ := binary.BigEndian.Uint16(data[12:]); {
	case typ == etherIPv4:
		return data[14]>>4 == 4
	case typ == etherIPv6:
		return data[14]>>4 == 6
	case typ <= maxLength8023: // with LLC: SNAP, spanning tree, IP
		return data[14] == data[15] && data[16] == 3 && (data[14] == 0xaa || data[14] == 0x42 || data[14] == 6)
	default:
		return typ == etherARP || typ == etherMPLS || typ == etherPPPoE || typ == etherPBB || tagHeaderOf(typ) != nil
	}
}

// decodeInnerEthernet reads a frame behind a header of the given size.
func (d *decoder) decodeInnerEthernet(
	p *packet, kind links.Encapsulation, size int, data []byte, wire, depth int,
) result {
	if len(data) < size {
		return resTruncated
	}
	if !d.enterTunnel(p, kind, 0, depth) {
		return p.endAt(resTunnel, LayerTunnel, uint64(kind))
	}
	return d.decodeEthernet(p, data[size:], wire-size, depth+1)
}

// decodePBB reads the tag of a backbone's service instance, behind which there is the frame of a customer (IEEE 802.1ah).
func (d *decoder) decodePBB(p *packet, data []byte, wire, depth int) result {
	if len(data) < 4 {
		return resTruncated
	}
	if !d.enterTunnel(p, links.PBB, binary.BigEndian.Uint32(data)&0xffffff, depth) {
		return p.endAt(resTunnel, LayerTunnel, uint64(links.PBB))
	}
	return d.decodeEthernet(p, data[4:], wire-4, depth+1)
}

// decodeTRILL reads the header of RFC 6325. The length of its options is in units of four bytes.
func (d *decoder) decodeTRILL(p *packet, data []byte, wire, depth int) result {
	if len(data) < 6 {
		return resTruncated
	}
	options := int(binary.BigEndian.Uint16(data)>>6&0x1f) * 4
	return d.decodeInnerEthernet(p, links.TRILL, 6+options, data, wire, depth)
}

// Next protocols of NSH (RFC 8300) and of VXLAN-GPE.
var nextProtocols = [...]uint16{1: etherIPv4, 2: etherIPv6, 3: etherBridged, 4: etherNSH, 5: etherMPLS}

// decodeNSH skips a network service header, which says by which services a packet goes.
func (d *decoder) decodeNSH(p *packet, data []byte, wire, depth int) result {
	if len(data) < 8 {
		return resTruncated
	}
	size, next := int(data[1]&0x3f)*4, int(data[3])
	switch {
	case size < 8:
		return resMalformed
	case size > len(data):
		return resTruncated
	case !d.opens(p, links.NSH, 0, depth):
		return p.endAt(resTunnel, LayerTunnel, uint64(links.NSH))
	case next == 0 || next >= len(nextProtocols):
		return p.endAt(resNotIP, LayerNSH, uint64(next))
	}
	return d.decodeEtherType(p, nextProtocols[next], data[size:], wire-size, depth+1)
}

// decodePPPoE reads the data of a PPPoE session (RFC 2516, section 5).
func (d *decoder) decodePPPoE(p *packet, data []byte, wire, depth int) result {
	if len(data) < 8 {
		return resTruncated
	}
	if data[0] != 0x11 || data[1] != 0 { // version 1, type 1, code 0: session data
		return resMalformed
	}
	if !d.enterTunnel(p, links.PPPoE, uint32(binary.BigEndian.Uint16(data[2:])), depth) {
		return p.endAt(resTunnel, LayerTunnel, uint64(links.PPPoE))
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
	data, wire = data[size:], wire-size
	switch typ {
	case 0x21, 0x57: // IPv4, IPv6
		return d.decodeIP(p, data, wire, depth)
	case 0x281, 0x283:
		return d.decodeMPLS(p, data, wire, depth+1)
	case 0x31: // bridged, RFC 3518: flags and the type of the address
		if len(data) < 2 {
			return resTruncated
		}
		if data[1] == 1 {
			return d.decodeEthernet(p, data[2:], wire-2, depth)
		}
	}
	return p.endAt(resNotIP, LayerPPP, uint64(typ))
}

// isVXLAN reports whether b, a UDP payload, is a VXLAN header (RFC 7348) and an Ethernet frame. The reserved
// fields of the header are not checked, as the RFC demands.
func isVXLAN(b []byte) bool { return len(b) >= 8+14 && b[0]&0x08 != 0 }

// gpeHeader returns the EtherType of the payload of a VXLAN-GPE header, and 0 if there is no such header. It says what
// it carries in a field that plain VXLAN does not use.
func gpeHeader(data []byte) (typ uint16) {
	const version, hasNext = 0x30, 0x04
	if len(data) < 9 || data[0]&version != 0 {
		return 0
	}
	if data[0]&hasNext == 0 {
		return etherBridged
	}
	if next := int(data[3]); next < len(nextProtocols) {
		return nextProtocols[next]
	}
	return 0
}

// teredoHeader returns the length of the headers of Teredo at the front of data, before an IPv6 packet, or -1.
func teredoHeader(data []byte) int {
	size := 0
	if len(data) >= 4 && data[0] == 0 && data[1] == 1 { // authentication: its lengths, a nonce and a byte
		size = 4 + int(data[2]) + int(data[3]) + 9
	}
	if bytes.HasPrefix(data[min(size, len(data)):], []byte{0, 0}) { // the origin, as the server sees it
		size += 8
	}
	if len(data) < size+40 || data[size]>>4 != 6 || 40+int(binary.BigEndian.Uint16(data[size+4:])) != len(data)-size {
		return -1
	}
	return size
}

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
		return p.endAt(resTunnel, LayerTunnel, uint64(links.GRE))
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

	if len(data) < headerLen {
		return resTruncated
	}
	return d.decodeGREPayload(p, typ, flags, data[headerLen:], wire-headerLen, depth)
}

// Protocol types of GRE that are no EtherTypes.
const (
	greWCCP       = 0x883e // packets that a router hands to a cache
	greAruba      = 0x8200 // frames of IEEE 802.11, from a range of types
	greArubaLast  = 0x83f0
	greFirstEther = 0x0600 // below there are no EtherTypes
)

// decodeGREPayload reads what is behind the header of GRE.
func (d *decoder) decodeGREPayload(p *packet, typ uint16, flags byte, data []byte, wire, depth int) result {
	// ERSPAN has a header of its own before the mirrored frame.
	skip := 0
	switch {
	case typ == etherERSPAN:
		if flags&0x10 != 0 { // type II; type I has no sequence number and no header of its own
			skip = 8
		}
		typ = etherBridged
	case typ == etherERSPAN3:
		skip, typ = 12, etherBridged
		if len(data) >= skip && data[11]&1 != 0 { // a part of the platform, RFC draft-foschiano-erspan
			skip += 8
		}
	case typ == greWCCP:
		if len(data) > 0 && data[0]>>4 != 4 { // version 2 has a header
			skip = 4
		}
		typ = etherIPv4
	case typ >= greAruba && typ <= greArubaLast && typ&15 == 0:
		return d.decodeWLAN(p, data, wire, false, depth)
	case typ < greFirstEther, typ == 0x2001: // NHRP
		return p.endAt(resNotIP, LayerGRE, uint64(typ))
	}
	if len(data) < skip {
		return resTruncated
	}
	return d.decodeEtherType(p, typ, data[skip:], wire-skip, depth)
}
