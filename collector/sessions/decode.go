package sessions

import (
	"encoding/binary"

	"tidegate/collector/links"
)

// maxNesting bounds the depth of nested tunnels.
const maxNesting = 6

// EtherTypes.
const (
	etherIPv4       = 0x0800
	etherARP        = 0x0806
	etherTRILL      = 0x22f3
	etherERSPAN3    = 0x22eb
	etherBridged    = 0x6558 // transparent Ethernet bridging
	etherVLAN       = 0x8100
	etherIPv6       = 0x86dd
	etherMPLS       = 0x8847
	etherMPLSMany   = 0x8848
	etherPPPoE      = 0x8864
	etherJumboLLC   = 0x8870 // LLC in a frame whose length does not fit the field
	etherQinQ       = 0x88a8
	etherERSPAN     = 0x88be
	etherPBB        = 0x88e7
	etherFabricPath = 0x8903
	etherCMD        = 0x8909
	etherVNTag      = 0x8926
	etherHSR        = 0x892f
	etherETag       = 0x893f
	etherNSH        = 0x894f
	etherTTag       = 0x8988
	etherQinQ9100   = 0x9100 // TPIDs of vendors before 802.1ad
	etherQinQ9200   = 0x9200
	etherQinQ9300   = 0x9300
	etherRTag       = 0xf1c1
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
	aggregate []byte // frames of an A-MSDU behind the one that was read; valid while Table.Packet runs
}

// decodeEthernet reads an Ethernet header, or one of IEEE 802.3 with LLC.
func (d *decoder) decodeEthernet(p *packet, data []byte, wire, depth int) result {
	if len(data) < 14 {
		return resTruncated
	}
	typ := binary.BigEndian.Uint16(data[12:])
	if typ <= maxLength8023 {
		return d.decodeLLC(p, false, data[14:], wire-14, depth)
	}
	return d.decodeEtherType(p, typ, data[14:], wire-14, depth)
}

// maxLength8023 is the largest length in the field behind a frame's addresses. A larger value of the field is
// an EtherType (IEEE 802.3).
const maxLength8023 = 1500

// decodeLLC reads an LLC header (IEEE 802.2). IP is behind the SNAP extension, with an EtherType (RFC 1042), or has an
// access point of its own. On links without EtherTypes, where isUsual is set, that is how IP is sent; on Ethernet few
// receivers take it, so it is opened as a tunnel is.
func (d *decoder) decodeLLC(p *packet, isUsual bool, data []byte, wire, depth int) result {
	if len(data) < 3 {
		return resTruncated
	}
	const ui = 3 // the control field of unnumbered information
	switch {
	case data[0] == 0xaa && data[1] == 0xaa && data[2] == ui:
		return d.decodeSNAP(p, isUsual, data[3:], wire-3, depth)
	case data[0] == 6 && data[1] == 6 && data[2] == ui:
		if !isUsual && !d.opens(p, links.SNAP, 0, depth) {
			return p.endAt(resTunnel, LayerTunnel, uint64(links.SNAP))
		}
		return d.decodeIP(p, data[3:], wire-3, depth)
	}
	return p.endAt(resNotIP, LayerLLC, uint64(data[0]))
}

// Organisations that use EtherTypes as the protocol of SNAP.
const (
	ouiEthernet = 0x000000 // RFC 1042
	ouiBridge   = 0x0000f8 // IEEE 802.1H, for the types that bridges must tell from those of RFC 1042
	ouiApple    = 0x080007
)

// decodeSNAP reads the SNAP extension of LLC: the code of an organisation, and its number of a protocol.
func (d *decoder) decodeSNAP(p *packet, isUsual bool, data []byte, wire, depth int) result {
	if len(data) < 5 {
		return resTruncated
	}
	oui, typ := uint64(data[0])<<16|uint64(data[1])<<8|uint64(data[2]), binary.BigEndian.Uint16(data[3:])
	if oui != ouiEthernet && oui != ouiBridge && oui != ouiApple {
		return p.endAt(resNotIP, LayerSNAP, oui<<16|uint64(typ))
	}
	if !isUsual && !d.opens(p, links.SNAP, 0, depth) {
		return p.endAt(resTunnel, LayerTunnel, uint64(links.SNAP))
	}
	return d.decodeEtherType(p, typ, data[5:], wire-5, depth)
}

// A tagHeader is a header between the addresses of a frame and its EtherType that says nothing about who talks to whom.
// It ends with the next EtherType.
type tagHeader struct {
	typ  uint16 // EtherType
	size int
	kind links.Encapsulation // NoEncapsulation: a VLAN tag
}

// Receivers that are not part of such a network do not take frames with these headers, so each is opened as a
// tunnel is.
var tagHeaders = [...]tagHeader{
	{etherVLAN, 4, links.NoEncapsulation},
	{etherQinQ, 4, links.NoEncapsulation},
	{etherQinQ9100, 4, links.NoEncapsulation},
	{etherQinQ9200, 4, links.NoEncapsulation},
	{etherQinQ9300, 4, links.NoEncapsulation},
	{etherVNTag, 6, links.VNTag},
	{etherETag, 8, links.ETag},
	{etherRTag, 6, links.RTag},
	{etherHSR, 6, links.HSR},
	{etherCMD, 8, links.CMD},
	{etherTTag, 8, links.TTag},
}

// tagHeaderOf returns the header of an EtherType, or nil if the type is not that of such a header.
func tagHeaderOf(typ uint16) *tagHeader {
	for i := range tagHeaders {
		if tagHeaders[i].typ == typ {
			return &tagHeaders[i]
		}
	}
	return nil
}

// decodeEtherType reads the layer of the EtherType typ. It skips tags, of which a receiver takes as many as the frame
// has, and keeps the innermost VLAN id.
func (d *decoder) decodeEtherType(p *packet, typ uint16, data []byte, wire, depth int) result {
	if depth > maxNesting {
		return resTooDeep
	}

	// Most packets are IPv4 without a tag: they need neither the loop nor decodeIP.
	if typ == etherIPv4 && len(data) > 0 && data[0]>>4 == 4 {
		return d.decodeIPv4(p, data, wire, depth)
	}

	// Each turn but the last skips one tag of four or more bytes and continues with the EtherType behind it.
	for {
		if typ == etherIPv4 || typ == etherIPv6 {
			return d.decodeIP(p, data, wire, depth)
		}
		tag := tagHeaderOf(typ)
		if tag == nil {
			return d.decodeEncapsulation(p, typ, data, wire, depth)
		}
		if len(data) < tag.size {
			return resTruncated
		}
		if tag.kind == links.NoEncapsulation {
			d.enterVLAN(p, typ, binary.BigEndian.Uint16(data)&0xfff)
		} else if !d.opens(p, tag.kind, 0, depth) {
			return p.endAt(resTunnel, LayerTunnel, uint64(tag.kind))
		}
		typ = binary.BigEndian.Uint16(data[tag.size-2:])
		data, wire = data[tag.size:], wire-tag.size
	}
}

// decodeEncapsulation reads the layer of an EtherType that is neither IP nor a tag.
func (d *decoder) decodeEncapsulation(p *packet, typ uint16, data []byte, wire, depth int) result {
	switch typ {
	case etherMPLS, etherMPLSMany:
		return d.decodeMPLS(p, data, wire, depth+1)
	case etherPPPoE:
		return d.decodePPPoE(p, data, wire, depth)
	case etherBridged:
		return d.decodeEthernet(p, data, wire, depth+1)
	case etherPBB:
		return d.decodePBB(p, data, wire, depth)
	case etherTRILL:
		return d.decodeTRILL(p, data, wire, depth)
	case etherFabricPath: // a tag of two bytes, which has the tree and the hops
		return d.decodeInnerEthernet(p, links.FabricPath, 2, data, wire, depth)
	case etherNSH:
		return d.decodeNSH(p, data, wire, depth)
	case etherJumboLLC:
		return d.decodeLLC(p, false, data, wire, depth+1)
	}
	// Behind a tag the field may be a length too. The depth bounds tags within LLC within tags.
	if typ <= maxLength8023 {
		return d.decodeLLC(p, false, data, wire, depth+1)
	}
	return p.endAt(resNotIP, LayerEther, uint64(typ))
}
