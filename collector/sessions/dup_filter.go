package sessions

import (
	"encoding/binary"

	"github.com/zeebo/xxh3"
)

// A dupFilter finds packets that were captured twice on an interface (on both sides of a bridge, or by a
// mirror port that copies in and out). It remembers the last packets by a hash, in a direct-mapped table: a
// new packet replaces the one in its slot.
//
// A copy has the same IP identification, which a retransmission by Linux has not. Packets without one (IPv6,
// and IPv4 with DF) are distinguished by time only: no sender repeats a packet within dupWindowNoID.
type dupFilter [dupSlots]dupSlot

type dupSlot struct {
	hash uint64
	at   int64 // packet time
}

const (
	dupSlots = 1 << 12
	// dupWindow is the longest time, ns, between the copies of a packet. It is short, since the
	// identification wraps at 65,536.
	dupWindow = int64(20e6)
	// dupWindowNoID is the same for packets without one.
	dupWindowNoID = int64(1e6)
)

// isDuplicate reports whether p came before, and remembers it.
func (w *dupFilter) isDuplicate(p *packet) bool {
	var fields [64]byte
	binary.LittleEndian.PutUint64(fields[0:], p.src.hi)
	binary.LittleEndian.PutUint64(fields[8:], p.src.lo)
	binary.LittleEndian.PutUint64(fields[16:], p.dst.hi)
	binary.LittleEndian.PutUint64(fields[24:], p.dst.lo)
	binary.LittleEndian.PutUint64(fields[32:], uint64(p.id)<<32|uint64(p.iface)<<16|uint64(p.proto))
	binary.LittleEndian.PutUint64(fields[40:], uint64(p.Size)<<32|uint64(p.sport)<<16|uint64(p.dport))
	binary.LittleEndian.PutUint64(fields[48:], xxh3.Hash(p.header))
	// The payload is hashed too: with offloaded checksums the header does not depend on it.
	binary.LittleEndian.PutUint64(fields[56:], xxh3.Hash(p.Payload[:min(len(p.Payload), 512)]))
	hash := xxh3.Hash(fields[:])

	slot := &w[hash%dupSlots]
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
