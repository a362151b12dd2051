package sessions

import (
	"encoding/binary"

	"tidegate/collector/links"
)

// decodeIPv6 reads the header of IPv6 (RFC 8200) and skips its extension headers, as many as there are: Linux sets no
// limit either.
//
// A packet with headers that Linux refuses is not dropped, since another receiver may take it. It is marked, and its
// segment is doubtful: the acknowledgement decides.
func (d *decoder) decodeIPv6(p *packet, data []byte, wire, depth int) result {
	if len(data) < 40 {
		return resTruncated
	}
	p.src, p.dst = addrFrom16(data[8:]), addrFrom16(data[24:])
	p.id, p.hasID = 0, false
	size, next := int(binary.BigEndian.Uint16(data[4:])), data[6]
	if size == 0 { // TSO, or a jumbogram
		size = max(wire-40, 0)
		p.Doubtful = p.Doubtful || next != protoHopByHop || size <= maxDatagram
	}

	// data and wire are those of the rest of the packet, and next is the type of the header at its front.
	// Each turn reads one extension header.
	wire = min(size, wire-40)
	data = data[40:min(len(data), 40+wire)]
	fragments := 0
	for first := true; ; first = false {
		switch next {
		case protoHopByHop, protoRouting, protoDestOpts, protoMobility, protoHIP, protoShim6, protoAH:
			if len(data) < 8 {
				return resTruncated
			}
			if next == protoAH && !d.opens(p, links.AH, 0, depth) {
				return p.endAt(resTunnel, LayerTunnel, uint64(links.AH))
			}
			size := 8 + int(data[1])*8
			if next == protoAH { // counts in units of four bytes, unlike the others
				size = 8 + int(data[1])*4
			}
			if size > wire {
				return resMalformed
			}
			if size > len(data) {
				return resTruncated
			}
			if isRefused(next, data[:size], first) {
				p.refused, p.Doubtful = true, true
			}
			next, data, wire = data[0], data[size:], wire-size

		case protoFragment:
			// Linux takes only one. The bound is that of the memory and time of the datagrams that one packet
			// completes.
			if fragments++; fragments > maxNesting {
				return resTooDeep
			}
			if fragments > 1 {
				p.refused, p.Doubtful = true, true
			}
			var res result
			if next, data, wire, res = d.readFragment(p, data, wire); data == nil {
				return res
			}

		default:
			return d.decodeTransport(p, next, data, wire, depth)
		}
	}
}

// readFragment reads a fragment header and what follows. If that completes a datagram, or is a whole one, readFragment
// returns the bytes behind the header, their length on the wire, and the type of the header at their front.
// Otherwise data is nil, and the packet is counted under the result.
func (d *decoder) readFragment(p *packet, header []byte, headerWire int) (next byte, data []byte, wire int, _ result) {
	if len(header) < 8 {
		return 0, nil, 0, resTruncated
	}
	field := binary.BigEndian.Uint16(header[2:])
	id := binary.BigEndian.Uint32(header[4:])
	next, data, wire = header[0], header[8:], headerWire-8
	if field&^6 == 0 { // an atomic fragment, RFC 6946
		return next, data, wire, resFragment
	}

	// Fragments belong together whatever they say that follows; the first one counts. Those that Linux refuses are kept
	// apart, so that they take no place of others.
	whole, res := d.frags.addFragment(p.clock, ipFragment{
		key: fragKey{p.src, p.dst, p.tunnel.key, id, 0, true, p.refused, p.iface},
		off: int(field &^ 7), more: field&1 != 0, b: data, wire: wire, next: next,
	})
	if whole == nil {
		return 0, nil, 0, res
	}
	p.conflict = d.frags.conflict
	return d.frags.next, whole, len(whole), res
}

// Options of IPv6.
const (
	optionPad1  = 0
	optionPadN  = 1
	optionJumbo = 0xc2 // RFC 2675
)

// isRefused reports whether Linux, as it is configured by default, drops a packet because of an extension header. first
// is set for the header behind that of IPv6.
func isRefused(typ byte, header []byte, first bool) bool {
	switch typ {
	case protoHopByHop:
		return !first || areOptionsRefused(header)
	case protoDestOpts:
		return areOptionsRefused(header)
	case protoRouting: // one with segments left, or of a type that needs a setting
		kind, left := header[2], header[3]
		return left > 0 || kind >= 2 && kind <= 4
	case protoAH: // of a tunnel that is opened
		return false
	}
	return true // a header that only ends a packet, or is unknown
}

// areOptionsRefused reports whether Linux drops a packet because of a header of options: one that the receiver must
// know (RFC 8200, section 4.2), too many of them, or padding of more than 7 bytes or with values.
func areOptionsRefused(header []byte) bool {
	const maxOptions, maxPadding = 8, 7
	options, padding := 0, 0
	for list := header[2:]; len(list) > 0; {
		if list[0] == optionPad1 {
			if padding++; padding > maxPadding {
				return true
			}
			list = list[1:]
			continue
		}
		if len(list) < 2 || int(list[1]) > len(list)-2 {
			return true
		}
		size := 2 + int(list[1])
		if list[0] == optionPadN {
			if padding += size; padding > maxPadding || !isZero(list[2:size]) {
				return true
			}
		} else {
			options, padding = options+1, 0
			isJumbo := list[0] == optionJumbo && size == 6 && binary.BigEndian.Uint32(list[2:]) > maxDatagram
			if options > maxOptions || list[0]&0xc0 != 0 && !isJumbo {
				return true
			}
		}
		list = list[size:]
	}
	return false
}

func isZero(data []byte) bool {
	for _, b := range data {
		if b != 0 {
			return false
		}
	}
	return true
}
