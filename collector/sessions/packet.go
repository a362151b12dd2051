package sessions

import (
	"encoding/binary"
	"net/netip"
)

// An addr is an IP address as two numbers, IPv4 in its mapped form: quick to compare and to hash.
type addr struct{ hi, lo uint64 }

const mapped4 = 0xffff << 32

func addr4(b []byte) addr { return addr{0, mapped4 | uint64(binary.BigEndian.Uint32(b))} }

func addr6(b []byte) addr {
	return addr{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}
}

func (a addr) netip() netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], a.hi)
	binary.BigEndian.PutUint64(b[8:], a.lo)
	return netip.AddrFrom16(b).Unmap()
}

func addrOf(ip netip.Addr) addr {
	b := ip.As16()
	return addr6(b[:])
}

// A packet is what decode found in a frame. It lies in the Table and is written anew for each; its slices point into the frame.
type packet struct {
	at    int64
	iface uint16 // index into Table.ifaces
	vlan  uint16 // the innermost, 0 none

	src, dst     addr
	sport, dport uint16
	proto        uint8
	id           uint32 // of the IP header
	hasID        bool

	header  []byte // of TCP or UDP, as far as captured
	payload []byte // as captured
	size    int    // of the payload on the wire, ≥ len(payload)

	seq, ack uint32
	flags    uint8
	win      uint16
}

// TCP flags.
const (
	flagFIN = 1 << iota
	flagSYN
	flagRST
	flagPSH
	flagACK
)

// A key names a flow in a Table: both ends, the smaller first, and where it was seen. VLANs and tunnels are left out of it: a
// router on a trunk shows the same connection with two tags, and that is one.
type key struct {
	a, b         addr
	aport, bport uint16
	proto        uint8
	iface        uint16
}

// key gives the name of the packet's flow and which end sent it: 0 a, 1 b.
func (p *packet) key() (key, uint8) {
	if less(p.src, p.sport, p.dst, p.dport) {
		return key{p.src, p.dst, p.sport, p.dport, p.proto, p.iface}, 0
	}
	return key{p.dst, p.src, p.dport, p.sport, p.proto, p.iface}, 1
}

func less(a addr, aport uint16, b addr, bport uint16) bool {
	switch {
	case a.hi != b.hi:
		return a.hi < b.hi
	case a.lo != b.lo:
		return a.lo < b.lo
	}
	return aport <= bport
}

// A result is what became of a packet; each is counted once under one.
type result uint8

const (
	resTCP result = iota
	resUDP
	resFragment // kept until its datagram is complete
	resDuplicate
	resICMP
	resOtherProtocol
	resNotIP
	resUnknownLink
	resMalformed
	resTruncated // cut so short that its ports are missing
	resTooDeep
	resBadFragment
	results
)

var resultNames = [results]string{
	"tcp", "udp", "fragment", "duplicate", "icmp", "other_protocol", "not_ip", "unknown_link", "malformed", "truncated", "too_deep",
	"bad_fragment",
}
