package sessions

import (
	"encoding/binary"
	"net/netip"

	"tidegate/collector/links"
	"tidegate/collector/reassembly"
)

// An addr is an IP address as two numbers, which are quick to compare and to hash. IPv4 addresses are in
// their IPv4-mapped IPv6 form.
type addr struct{ hi, lo uint64 }

const mapped4 = 0xffff << 32

func addrFrom4(b []byte) addr { return addr{0, mapped4 | uint64(binary.BigEndian.Uint32(b))} }

func addrFrom16(b []byte) addr {
	return addr{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}
}

func addrOf(ip netip.Addr) addr {
	b := ip.As16()
	return addrFrom16(b[:])
}

func (a addr) netip() netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], a.hi)
	binary.BigEndian.PutUint64(b[8:], a.lo)
	return netip.AddrFrom16(b).Unmap()
}

// A packet holds the decoded headers of a frame, and its payload. It is valid while Table.Packet runs: its
// slices point into the frame, or into a defragmented datagram.
type packet struct {
	clock int64  // Table.clock.now when the packet came
	iface uint16 // index into the Table's interfaces
	vlan  uint16 // the innermost VLAN id; 0: no tag

	src, dst     addr
	sport, dport uint16
	proto        uint8
	id           uint32 // the identification of the IP header
	hasID        bool
	header       []byte // of TCP or UDP, as far as captured
	checksum     checksumResult
	headerWrong  bool // the checksum of an IPv4 header is wrong
	conflict     bool // its fragments overlap and differ
	refused      bool // Linux drops it because of an option or an extension header

	mac      uint64              // source of a frame on a bridge; 0: not known
	movedMAC bool                // another one sends with mac, too
	origin   frameOrigin         // of a frame on a bridge
	tunnel   tunnel              // around the packet
	unopened links.Encapsulation // of the packet, which was not opened

	undecoded Undecoded // where decoding ended, if it did

	payloadHash uint64 // set by dupFilter.isDuplicate

	// Segment is the rest of a TCP packet. Payload, Size and Time are also those of a UDP datagram.
	reassembly.Segment
}

// isSYN reports whether the packet opens a connection: SYN without ACK.
func (p *packet) isSYN() bool { return p.Flags&(reassembly.SYN|reassembly.ACK) == reassembly.SYN }

// isSYNACK reports whether the packet answers a SYN.
func (p *packet) isSYNACK() bool {
	return p.Flags&(reassembly.SYN|reassembly.ACK) == reassembly.SYN|reassembly.ACK
}

// endAt notes the header at which decoding ends, and returns res.
func (p *packet) endAt(res result, layer Layer, number uint64) result {
	p.undecoded = Undecoded{layer, number}
	return res
}

// A flowKey identifies a flow in a Table: both ends, the smaller first, the interface and the tunnel. VLANs are left
// out, except on bridges: a router on a trunk shows one connection with two tags.
type flowKey struct {
	a, b         addr
	tunnel       uint64 // tunnel.key
	aport, bport uint16
	proto        uint8
	iface        uint16
}

// flowKey returns the key of the packet's flow and the end of the key that sent the packet: 0 for a, 1 for b.
func (p *packet) flowKey() (k flowKey, sender uint8) {
	if endpointLess(p.src, p.sport, p.dst, p.dport) {
		return flowKey{p.src, p.dst, p.tunnel.key, p.sport, p.dport, p.proto, p.iface}, 0
	}
	return flowKey{p.dst, p.src, p.tunnel.key, p.dport, p.sport, p.proto, p.iface}, 1
}

// endpointLess reports whether the end a:aport comes before b:bport, or both are equal.
func endpointLess(a addr, aport uint16, b addr, bport uint16) bool {
	switch {
	case a.hi != b.hi:
		return a.hi < b.hi
	case a.lo != b.lo:
		return a.lo < b.lo
	}
	return aport <= bport
}

// A result is the outcome of a packet; each packet is counted under one result.
type result uint8

const (
	resTCP result = iota
	resUDP
	resFragment // kept until its datagram is complete
	resDuplicate
	resICMP
	resOtherProtocol
	resTunnel // one that is not opened, other than in UDP
	resNotIP
	resUnknownLink
	resMalformed
	resTruncated // cut so short that its ports are missing
	resTooDeep
	resBadFragment
	numResults
)

var resultNames = [numResults]string{
	"tcp", "udp", "fragment", "duplicate", "icmp", "other_protocol", "tunnel", "not_ip", "unknown_link", "malformed",
	"truncated", "too_deep", "bad_fragment",
}
