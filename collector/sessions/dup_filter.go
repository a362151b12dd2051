package sessions

import (
	"encoding/binary"

	"github.com/zeebo/xxh3"
)

// A dupFilter finds packets that were captured twice on an interface: on both sides of a bridge, or by a
// mirror port that copies both directions. It is a direct-mapped table of hashes: a packet replaces the
// earlier packet in its slot.
//
// A copy has the same IP identification as the original; a retransmission by Linux has a new one. Packets
// without an identification (IPv6, and IPv4 with DF) are distinguished by time only: no sender repeats a
// packet within dupWindowNoID.
type dupFilter [dupSlots]dupSlot

type dupSlot struct {
	hash uint64
	at   int64 // packet time
}

const (
	dupSlots = 1 << 12
	// dupWindow is the longest time, ns, between the copies of a packet. It is short, because the
	// identification wraps at 65,536.
	dupWindow = int64(20e6)
	// dupWindowNoID is dupWindow for packets without an identification.
	dupWindowNoID = int64(1e6)
)

// isDuplicate reports whether p is a copy of an earlier packet. It stores the hash of a packet that is not, and sets
// p.payloadHash.
func (f *dupFilter) isDuplicate(p *packet) bool {
	var fields [64]byte
	binary.LittleEndian.PutUint64(fields[0:], p.src.hi)
	binary.LittleEndian.PutUint64(fields[8:], p.src.lo)
	binary.LittleEndian.PutUint64(fields[16:], p.dst.hi)
	binary.LittleEndian.PutUint64(fields[24:], p.dst.lo)
	binary.LittleEndian.PutUint64(fields[32:], uint64(p.id)<<32|uint64(p.iface)<<16|uint64(p.proto))
	binary.LittleEndian.PutUint64(fields[40:], uint64(p.Size)<<32|uint64(p.sport)<<16|uint64(p.dport))
	binary.LittleEndian.PutUint64(fields[48:], xxh3.Hash(p.header))

	// The payload is hashed too, because an offloaded checksum in the header does not depend on the payload.
	p.payloadHash = xxh3.Hash(p.Payload)
	binary.LittleEndian.PutUint64(fields[56:], p.payloadHash^p.tunnel.key)
	hash := xxh3.Hash(fields[:])

	// A copy has the same hash and comes within the window.
	slot := &f[hash%dupSlots]
	window := dupWindowNoID
	if p.hasID {
		window = dupWindow
	}
	delta := p.Time - slot.at
	if slot.hash == hash && delta < window && delta > -window {
		return true
	}
	slot.hash, slot.at = hash, p.Time
	return false
}
