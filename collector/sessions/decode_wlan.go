package sessions

import (
	"encoding/binary"

	"github.com/google/gopacket/layers"
)

// decodeMonitor reads what a wireless card in monitor mode puts before a frame of IEEE 802.11: radiotap, Prism's header or
// that of AVS. Each has its own length.
func (d *decoder) decodeMonitor(p *packet, link layers.LinkType, data []byte, wire int) result {
	if len(data) < 8 {
		return resTruncated
	}
	var size int
	var flags byte
	switch link {
	case linkRadiotap:
		size, flags = int(binary.LittleEndian.Uint16(data[2:])), radiotapFlags(data)
	case linkAVS:
		size = int(binary.BigEndian.Uint32(data[4:]) & 0xffff)
	default: // in the byte order of the host
		size = int(min(binary.LittleEndian.Uint32(data[4:]), binary.BigEndian.Uint32(data[4:])))
	}
	switch {
	case size < 8:
		return resMalformed
	case size > len(data):
		return resTruncated
	}
	data, wire = data[size:], wire-size
	if flags&radiotapHasFCS != 0 && wire >= 4 {
		wire -= 4
		data = data[:min(len(data), wire)]
	}
	if flags&radiotapBadFCS != 0 {
		return p.endAt(resMalformed, LayerWLAN, wlanDamaged)
	}
	return d.decodeWLAN(p, data, wire, flags&radiotapPadded != 0, 0)
}

// The flags of radiotap that matter.
const (
	radiotapHasFCS = 0x10 // a checksum ends the frame
	radiotapPadded = 0x20 // the header of the frame is padded to four bytes
	radiotapBadFCS = 0x40
)

// radiotapFlags returns the field Flags of a radiotap header, 0 if there is none.
func radiotapFlags(data []byte) byte {
	const hasTime, hasFlags, more = 1 << 0, 1 << 1, 1 << 31
	// The first bitmap says which fields there are; fields follow the last bitmap, aligned to their size.
	present := binary.LittleEndian.Uint32(data[4:])
	at := 8
	for word := present; word&more != 0; at += 4 {
		if at+4 > len(data) {
			return 0
		}
		word = binary.LittleEndian.Uint32(data[at:])
	}
	if present&hasTime != 0 {
		at = (at+7)&^7 + 8
	}
	if present&hasFlags == 0 || at >= len(data) {
		return 0
	}
	return data[at]
}

// Bits of the frame control field of IEEE 802.11, section 9.2.4.
const (
	wlanToDS      = 0x0100
	wlanFromDS    = 0x0200
	wlanMoreParts = 0x0400
	wlanProtected = 0x4000
	wlanOrder     = 0x8000 // of a QoS frame: a control field for high throughput
)

// decodeWLAN reads a frame of IEEE 802.11. Only data frames that are neither encrypted nor fragmented have a packet.
func (d *decoder) decodeWLAN(p *packet, data []byte, wire int, padded bool, depth int) result {
	const dataType, noData, qos, aggregated = 2, 4, 8, 0x80
	if len(data) < 24 {
		if len(data) >= 2 && data[0]>>2&3 != dataType { // control frames are short
			return p.endAt(resNotIP, LayerWLAN, uint64(data[0]>>2&3)<<4|uint64(data[0]>>4))
		}
		return resTruncated
	}
	control := binary.LittleEndian.Uint16(data)
	typ, subtype := control>>2&3, control>>4&15
	switch {
	case typ != dataType || subtype&noData != 0:
		return p.endAt(resNotIP, LayerWLAN, uint64(typ)<<4|uint64(subtype))
	case control&wlanProtected != 0:
		return p.endAt(resNotIP, LayerWLAN, wlanEncrypted)
	case control&wlanMoreParts != 0 || data[22]&15 != 0: // the number of the part
		return p.endAt(resNotIP, LayerWLAN, wlanFragment)
	}

	// The optional fields of the header.
	size, aggregate := 24, false
	if control&(wlanToDS|wlanFromDS) == wlanToDS|wlanFromDS {
		size += 6 // a fourth address
	}
	if subtype&qos != 0 {
		if len(data) < size+2 {
			return resTruncated
		}
		aggregate = data[size]&aggregated != 0
		size += 2
		if control&wlanOrder != 0 {
			size += 4
		}
	}
	if padded {
		size = (size + 3) &^ 3
	}
	if len(data) < size {
		return resTruncated
	}
	if aggregate {
		return d.decodeAggregate(p, data[size:], wire-size, depth)
	}
	return d.decodeLLC(p, true, data[size:], wire-size, depth)
}

// decodeAggregate reads the first of the frames in an A-MSDU, which have two addresses and a length, and are padded to
// four bytes. The others are left in d.aggregate.
func (d *decoder) decodeAggregate(p *packet, data []byte, wire, depth int) result {
	const header = 14
	if len(data) < header {
		return resTruncated
	}
	size := header + int(binary.BigEndian.Uint16(data[12:]))
	if next := (size + 3) &^ 3; next+header < len(data) && depth == 0 {
		d.aggregate = data[next:]
	}
	return d.decodeLLC(p, true, data[header:min(size, len(data))], min(size, wire)-header, depth)
}
