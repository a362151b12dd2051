package sessions

import (
	"encoding/binary"

	"github.com/google/gopacket/layers"
)

// Link types beyond those that gopacket names. Its LinkType has eight bits, so LINKTYPE_LINUX_SLL2 (276) is what is left of it,
// 20, which is assigned to nothing else.
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

// maxNesting bounds how many headers of tunnels lie in each other.
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

// A decoder reads the headers of a frame into a packet. Its only state are the fragments that wait.
//
// In all of its methods b is what was captured of a layer, wire is how long the layer was before the capture cut it, and
// depth is how many headers of tunnels are around it.
type decoder struct{ frags defragmenter }

// decode reads the headers of a frame into p.
func (d *decoder) decode(p *packet, link layers.LinkType, b []byte, wire int) result {
	wire = max(wire, len(b))
	switch link {
	case layers.LinkTypeEthernet:
		return d.ethernet(p, b, wire, 0)
	case layers.LinkTypeNull, layers.LinkTypeLoop:
		return d.null(p, b, wire)
	case layers.LinkTypeRaw, linkRaw12, linkRawBSD, linkIPv4, linkIPv6:
		return d.ip(p, b, wire, 0)
	case layers.LinkTypeLinuxSLL:
		if len(b) < 16 {
			return resTruncated
		}
		return d.etherType(p, binary.BigEndian.Uint16(b[14:]), b[16:], wire-16, 0)
	case linkSLL2:
		if len(b) < 20 {
			return resTruncated
		}
		return d.etherType(p, binary.BigEndian.Uint16(b), b[20:], wire-20, 0)
	case linkCHDLC:
		if len(b) < 4 {
			return resTruncated
		}
		return d.etherType(p, binary.BigEndian.Uint16(b[2:]), b[4:], wire-4, 0)
	case linkNFLOG:
		return d.nflog(p, b, wire)
	case linkFDDI:
		if len(b) < 13 {
			return resTruncated
		}
		return d.snap(p, b[13:], wire-13, 0)
	case linkPPPPlain, linkPPPHDLC:
		return d.ppp(p, b, wire, 0)
	case linkPPPoE:
		return d.pppoe(p, b, wire, 0)
	}
	return resUnknownLink
}

func (d *decoder) ethernet(p *packet, b []byte, wire, depth int) result {
	if len(b) < 14 {
		return resTruncated
	}
	typ := binary.BigEndian.Uint16(b[12:])
	if typ <= maxLength8023 {
		return d.snap(p, b[14:], wire-14, depth)
	}
	return d.etherType(p, typ, b[14:], wire-14, depth)
}

// maxLength8023 is the largest number behind the addresses of a frame that is its length and not a type.
const maxLength8023 = 1500

// snap is LLC with the header that names a type, RFC 1042.
func (d *decoder) snap(p *packet, b []byte, wire, depth int) result {
	if len(b) < 8 {
		return resTruncated
	}
	if string(b[:6]) != "\xaa\xaa\x03\x00\x00\x00" {
		return resNotIP
	}
	return d.etherType(p, binary.BigEndian.Uint16(b[6:]), b[8:], wire-8, depth)
}

// etherType goes through VLAN tags to what they carry.
func (d *decoder) etherType(p *packet, typ uint16, b []byte, wire, depth int) result {
	if depth > maxNesting {
		return resTooDeep
	}
	for range maxNesting {
		switch typ {
		case etherIPv4, etherIPv6:
			return d.ip(p, b, wire, depth)
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
			return d.mpls(p, b, wire, depth+1)
		case etherPPPoE:
			return d.pppoe(p, b, wire, depth)
		case etherBridged:
			return d.ethernet(p, b, wire, depth+1)
		default:
			return resNotIP
		}
	}
	return resTooDeep
}

// null is the BSD loopback: an address family in the byte order of who captured it.
func (d *decoder) null(p *packet, b []byte, wire int) result {
	if len(b) < 4 {
		return resTruncated
	}
	family := binary.LittleEndian.Uint32(b)
	if family > 0xffff {
		family = binary.BigEndian.Uint32(b)
	}
	switch family {
	case 2, 10, 24, 28, 30: // AF_INET and what the systems call AF_INET6
		return d.ip(p, b[4:], wire-4, 0)
	case etherIPv4, etherIPv6:
		return d.ip(p, b[4:], wire-4, 0)
	}
	return resNotIP
}

// nflog is Linux's netfilter log: attributes in the byte order of the host, the packet in one of them.
func (d *decoder) nflog(p *packet, b []byte, wire int) result {
	const payload = 9
	if len(b) < 4 {
		return resTruncated
	}
	for b, wire = b[4:], wire-4; len(b) >= 4; {
		n, typ := int(binary.LittleEndian.Uint16(b)), binary.LittleEndian.Uint16(b[2:])&0x7fff
		if n < 4 {
			return resMalformed
		}
		if typ == payload {
			return d.ip(p, b[4:min(n, len(b))], min(n-4, wire-4), 0)
		}
		n = min((n+3)&^3, len(b))
		b, wire = b[n:], wire-n
	}
	return resNotIP
}

// mpls skips labels to the bottom of the stack. What lies there is not named: IP by its version, or Ethernet behind a control word.
func (d *decoder) mpls(p *packet, b []byte, wire, depth int) result {
	for range maxNesting {
		if len(b) < 5 {
			return resTruncated
		}
		bottom := b[2]&1 != 0
		b, wire = b[4:], wire-4
		if !bottom {
			continue
		}
		switch b[0] >> 4 {
		case 4, 6:
			return d.ip(p, b, wire, depth)
		case 0: // pseudowire control word, RFC 4385
			if len(b) < 4 {
				return resTruncated
			}
			return d.ethernet(p, b[4:], wire-4, depth)
		}
		return resNotIP
	}
	return resTooDeep
}

// pppoe is RFC 2516, section 5: a session's data.
func (d *decoder) pppoe(p *packet, b []byte, wire, depth int) result {
	if len(b) < 8 {
		return resTruncated
	}
	if b[0] != 0x11 || b[1] != 0 {
		return resNotIP
	}
	n := int(binary.BigEndian.Uint16(b[4:]))
	b, wire = b[6:], min(wire-6, n) // behind it is padding
	return d.ppp(p, b[:min(len(b), max(wire, 0))], wire, depth)
}

// ppp reads a protocol number of one or two bytes behind address and control, which may be left out.
func (d *decoder) ppp(p *packet, b []byte, wire, depth int) result {
	if len(b) >= 2 && b[0] == 0xff && b[1] == 3 {
		b, wire = b[2:], wire-2
	}
	if len(b) < 2 {
		return resTruncated
	}
	typ, n := uint16(b[0]), 1
	if b[0]&1 == 0 {
		typ, n = binary.BigEndian.Uint16(b), 2
	}
	switch typ {
	case 0x21, 0x57:
		return d.ip(p, b[n:], wire-n, depth)
	}
	return resNotIP
}

// vxlan tells whether b, a UDP payload, is RFC 7348 with an Ethernet frame in it. Its reserved fields are to be ignored.
func vxlan(b []byte) bool { return len(b) >= 8+14 && b[0]&0x08 != 0 }

// geneve is RFC 8926; n is the length of the header, 0 if it is not one, typ what it carries.
func geneve(b []byte) (n int, typ uint16) {
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

// gtp is 3GPP TS 29.281: a G-PDU, whose header may have options and extensions. n and typ are as geneve's.
func gtp(b []byte) (n int, typ uint16) {
	if len(b) < 9 || b[0]&0xf0 != 0x30 || b[1] != 0xff {
		return 0, 0
	}
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

// gre is RFC 2784 and 2890 and, in version 1, PPTP's form of it (RFC 2637).
func (d *decoder) gre(p *packet, b []byte, wire, depth int) result {
	if len(b) < 4 {
		return resTruncated
	}
	flags, typ := b[0], binary.BigEndian.Uint16(b[2:])
	n := 4
	for _, f := range [...]byte{0x80, 0x20, 0x10} { // checksum, key, sequence
		if flags&f != 0 {
			n += 4
		}
	}
	if b[1]&7 == 1 {
		if b[1]&0x80 != 0 { // acknowledgement
			n += 4
		}
		if len(b) < n {
			return resTruncated
		}
		return d.ppp(p, b[n:], wire-n, depth)
	}
	switch typ {
	case etherERSPAN:
		if flags&0x10 != 0 { // type II; without a sequence number it is type I, which has no header
			n += 8
		}
		typ = etherBridged
	case etherERSPAN3:
		n, typ = n+12, etherBridged
	}
	if len(b) < n {
		return resTruncated
	}
	return d.etherType(p, typ, b[n:], wire-n, depth)
}
