package sessions

import (
	"encoding/binary"

	"github.com/google/gopacket/layers"
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

// maxNesting bounds how many tunnels lie in each other, and how many tags and labels follow each other.
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

// A decoder reads the headers of a frame into a packet. Its only state is the IP fragments that wait.
//
// Each method reads one kind of header and calls the method of the layer above. In all of them b is the
// captured part of a layer, wire the length of the whole layer, and depth the number of tunnels around it.
// Fields of p that an inner header has too are overwritten: the innermost headers count.
type decoder struct{ frags defragmenter }

// decodeFrame reads the headers of a frame into p and returns what the frame carries.
func (d *decoder) decodeFrame(p *packet, link layers.LinkType, b []byte, wire int) result {
	wire = max(wire, len(b))
	switch link {
	case layers.LinkTypeEthernet:
		return d.decodeEthernet(p, b, wire, 0)
	case layers.LinkTypeNull, layers.LinkTypeLoop:
		return d.decodeLoopback(p, b, wire)
	case layers.LinkTypeRaw, linkRaw12, linkRawBSD, linkIPv4, linkIPv6:
		return d.decodeIP(p, b, wire, 0)
	case layers.LinkTypeLinuxSLL:
		if len(b) < 16 {
			return resTruncated
		}
		return d.decodeEtherType(p, binary.BigEndian.Uint16(b[14:]), b[16:], wire-16, 0)
	case linkSLL2:
		if len(b) < 20 {
			return resTruncated
		}
		return d.decodeEtherType(p, binary.BigEndian.Uint16(b), b[20:], wire-20, 0)
	case linkCHDLC:
		if len(b) < 4 {
			return resTruncated
		}
		return d.decodeEtherType(p, binary.BigEndian.Uint16(b[2:]), b[4:], wire-4, 0)
	case linkNFLOG:
		return d.decodeNFLOG(p, b, wire)
	case linkFDDI:
		if len(b) < 13 {
			return resTruncated
		}
		return d.decodeSNAP(p, b[13:], wire-13, 0)
	case linkPPPPlain, linkPPPHDLC:
		return d.decodePPP(p, b, wire, 0)
	case linkPPPoE:
		return d.decodePPPoE(p, b, wire, 0)
	}
	return resUnknownLink
}

// decodeEthernet reads an Ethernet header, or one of IEEE 802.3 with LLC.
func (d *decoder) decodeEthernet(p *packet, b []byte, wire, depth int) result {
	if len(b) < 14 {
		return resTruncated
	}
	typ := binary.BigEndian.Uint16(b[12:])
	if typ <= maxLength8023 {
		return d.decodeSNAP(p, b[14:], wire-14, depth)
	}
	return d.decodeEtherType(p, typ, b[14:], wire-14, depth)
}

// maxLength8023 is the largest value of the field behind a frame's addresses that is a length and not an
// EtherType (IEEE 802.3).
const maxLength8023 = 1500

// decodeSNAP reads an LLC header with the SNAP extension, which has an EtherType (RFC 1042).
func (d *decoder) decodeSNAP(p *packet, b []byte, wire, depth int) result {
	if len(b) < 8 {
		return resTruncated
	}
	if string(b[:6]) != "\xaa\xaa\x03\x00\x00\x00" {
		return resNotIP
	}
	return d.decodeEtherType(p, binary.BigEndian.Uint16(b[6:]), b[8:], wire-8, depth)
}

// decodeEtherType reads the layer that typ names. It skips VLAN tags; the innermost VLAN id is kept.
func (d *decoder) decodeEtherType(p *packet, typ uint16, b []byte, wire, depth int) result {
	if depth > maxNesting {
		return resTooDeep
	}
	for range maxNesting {
		switch typ {
		case etherIPv4, etherIPv6:
			return d.decodeIP(p, b, wire, depth)
		case etherVLAN, etherQinQ, etherQinQOld:
			if len(b) < 4 {
				return resTruncated
			}
			p.vlan = binary.BigEndian.Uint16(b) & 0xfff
			typ = binary.BigEndian.Uint16(b[2:])
			b, wire = b[4:], wire-4
		case etherVNTag:
			if len(b) < 6 {
				return resTruncated
			}
			typ = binary.BigEndian.Uint16(b[4:])
			b, wire = b[6:], wire-6
		case etherMPLS, etherMPLSMany:
			return d.decodeMPLS(p, b, wire, depth+1)
		case etherPPPoE:
			return d.decodePPPoE(p, b, wire, depth)
		case etherBridged:
			return d.decodeEthernet(p, b, wire, depth+1)
		default:
			return resNotIP
		}
	}
	return resTooDeep
}

// decodeLoopback reads the header of the BSD loopback: an address family in the byte order of the capturing
// host.
func (d *decoder) decodeLoopback(p *packet, b []byte, wire int) result {
	if len(b) < 4 {
		return resTruncated
	}
	family := binary.LittleEndian.Uint32(b)
	if family > 0xffff {
		family = binary.BigEndian.Uint32(b)
	}
	switch family {
	case 2, 10, 24, 28, 30: // AF_INET, and AF_INET6 of Linux, NetBSD, FreeBSD and macOS
		return d.decodeIP(p, b[4:], wire-4, 0)
	case etherIPv4, etherIPv6:
		return d.decodeIP(p, b[4:], wire-4, 0)
	}
	return resNotIP
}

// decodeNFLOG reads a message of Linux's netfilter log: attributes in the byte order of the host, one of
// which is the packet.
func (d *decoder) decodeNFLOG(p *packet, b []byte, wire int) result {
	const payload = 9 // NFULA_PAYLOAD
	if len(b) < 4 {
		return resTruncated
	}
	for b, wire = b[4:], wire-4; len(b) >= 4; {
		size, typ := int(binary.LittleEndian.Uint16(b)), binary.LittleEndian.Uint16(b[2:])&0x7fff
		if size < 4 {
			return resMalformed
		}
		if typ == payload {
			return d.decodeIP(p, b[4:min(size, len(b))], min(size-4, wire-4), 0)
		}
		size = min((size+3)&^3, len(b))
		b, wire = b[size:], wire-size
	}
	return resNotIP
}

// decodeMPLS skips the stack of labels (RFC 3032). No field names what lies behind it: an IP packet is known
// by its version, an Ethernet frame by its control word.
func (d *decoder) decodeMPLS(p *packet, b []byte, wire, depth int) result {
	for range maxNesting {
		if len(b) < 5 {
			return resTruncated
		}
		bottom := b[2]&1 != 0 // the S bit: the last label of the stack
		b, wire = b[4:], wire-4
		if !bottom {
			continue
		}
		switch b[0] >> 4 {
		case 4, 6:
			return d.decodeIP(p, b, wire, depth)
		case 0: // the control word of a pseudowire, RFC 4385
			if len(b) < 4 {
				return resTruncated
			}
			return d.decodeEthernet(p, b[4:], wire-4, depth)
		}
		return resNotIP
	}
	return resTooDeep
}

// decodePPPoE reads the data of a PPPoE session (RFC 2516, section 5).
func (d *decoder) decodePPPoE(p *packet, b []byte, wire, depth int) result {
	if len(b) < 8 {
		return resTruncated
	}
	if b[0] != 0x11 || b[1] != 0 {
		return resNotIP
	}
	size := int(binary.BigEndian.Uint16(b[4:]))
	b, wire = b[6:], min(wire-6, size) // padding follows
	return d.decodePPP(p, b[:min(len(b), max(wire, 0))], wire, depth)
}

// decodePPP reads the protocol number, one or two bytes long, behind the address and control fields, which
// may be missing (RFC 1661, RFC 1662).
func (d *decoder) decodePPP(p *packet, b []byte, wire, depth int) result {
	if len(b) >= 2 && b[0] == 0xff && b[1] == 3 {
		b, wire = b[2:], wire-2
	}
	if len(b) < 2 {
		return resTruncated
	}
	typ, size := uint16(b[0]), 1
	if b[0]&1 == 0 {
		typ, size = binary.BigEndian.Uint16(b), 2
	}
	switch typ {
	case 0x21, 0x57:
		return d.decodeIP(p, b[size:], wire-size, depth)
	}
	return resNotIP
}

// isVXLAN reports whether b, a UDP payload, is a VXLAN header (RFC 7348) with an Ethernet frame behind it.
// Its reserved fields must be ignored.
func isVXLAN(b []byte) bool { return len(b) >= 8+14 && b[0]&0x08 != 0 }

// geneveHeader returns the length of the Geneve header (RFC 8926) at the front of b and the EtherType of what
// it carries; n is 0 if there is no such header.
func geneveHeader(b []byte) (n int, typ uint16) {
	if len(b) < 8 || b[0]>>6 != 0 {
		return 0, 0
	}
	n = 8 + int(b[0]&0x3f)*4
	if n > len(b) {
		return 0, 0
	}
	switch typ = binary.BigEndian.Uint16(b[2:]); typ {
	case etherBridged, etherIPv4, etherIPv6:
		return n, typ
	}
	return 0, 0
}

// gtpHeader returns the length of the GTP-U header (3GPP TS 29.281) of a G-PDU at the front of b, with its
// options and extensions, and the EtherType of what it carries; n is 0 if there is no such header.
func gtpHeader(b []byte) (n int, typ uint16) {
	if len(b) < 9 || b[0]&0xf0 != 0x30 || b[1] != 0xff {
		return 0, 0
	}

	// Any of the three flags (extension, sequence number, N-PDU number) adds four bytes. The extension
	// headers follow; each has its length, in units of four bytes, in front, and the type of the next one, 0
	// none, as its last byte.
	n = 8
	if b[0]&7 != 0 {
		n = 12
		for i, next := 0, b[0]&4 != 0 && len(b) > 11 && b[11] != 0; next && i < 8; i++ {
			if len(b) <= n || b[n] == 0 {
				return 0, 0
			}
			n += int(b[n]) * 4
			next = n <= len(b) && b[n-1] != 0
		}
	}
	if len(b) <= n {
		return 0, 0
	}
	switch b[n] >> 4 {
	case 4:
		return n, etherIPv4
	case 6:
		return n, etherIPv6
	}
	return 0, 0
}

// decodeGRE reads a GRE header (RFC 2784, RFC 2890), or in version 1 the one of PPTP (RFC 2637).
func (d *decoder) decodeGRE(p *packet, b []byte, wire, depth int) result {
	if len(b) < 4 {
		return resTruncated
	}
	flags, typ := b[0], binary.BigEndian.Uint16(b[2:])

	// The optional fields that the flags name follow, four bytes each.
	headerLen := 4
	for _, flag := range [...]byte{0x80, 0x20, 0x10} { // checksum, key, sequence
		if flags&flag != 0 {
			headerLen += 4
		}
	}
	if b[1]&7 == 1 { // PPTP
		if b[1]&0x80 != 0 { // acknowledgement
			headerLen += 4
		}
		if len(b) < headerLen {
			return resTruncated
		}
		return d.decodePPP(p, b[headerLen:], wire-headerLen, depth)
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
	if len(b) < headerLen {
		return resTruncated
	}
	return d.decodeEtherType(p, typ, b[headerLen:], wire-headerLen, depth)
}
