package sessions

import (
	"encoding/binary"

	"github.com/zeebo/xxh3"
)

// dupFilter remembers the last packets by a hash, so that one that was captured twice on an interface (both sides of a bridge, a
// mirror port that copies in and out) is taken once. It is direct-mapped: what is pushed out is forgotten.
//
// A twin has the same IP identification, which a retransmission by Linux has not. Where there is none – IPv6, and IPv4 packets
// that are not to be fragmented – only a short time tells them apart; nobody sends the same again so soon.
type dupFilter [dupSlots]dupSlot

type dupSlot struct {
	hash uint64
	at   int64
}

const (
	dupSlots = 1 << 12
	// twinWindow is how far apart in time two packets with the same identification can be one: it wraps at 65,536.
	dupWindow = int64(20e6)
	// twinWindowBare is the same for packets without one.
	dupWindowNoID = int64(1e6)
)

// isDuplicate tells whether the packet at hand came before, and remembers it.
func (w *dupFilter) isDuplicate(t *Table) bool {
	p := &t.p
	var b [64]byte
	binary.LittleEndian.PutUint64(b[0:], p.src.hi)
	binary.LittleEndian.PutUint64(b[8:], p.src.lo)
	binary.LittleEndian.PutUint64(b[16:], p.dst.hi)
	binary.LittleEndian.PutUint64(b[24:], p.dst.lo)
	binary.LittleEndian.PutUint64(b[32:], uint64(p.id)<<32|uint64(p.iface)<<16|uint64(p.proto))
	binary.LittleEndian.PutUint64(b[40:], uint64(p.size)<<32|uint64(p.sport)<<16|uint64(p.dport))
	binary.LittleEndian.PutUint64(b[48:], xxh3.Hash(p.header))
	// With offloaded checksums the header does not depend on the payload.
	binary.LittleEndian.PutUint64(b[56:], xxh3.Hash(p.payload[:min(len(p.payload), 512)]))
	h := xxh3.Hash(b[:])
	s := &w[h%dupSlots]
	window := dupWindowNoID
	if p.hasID {
		window = dupWindow
	}
	d := p.at - s.at
	if s.hash == h && d < window && d > -window {
		return true
	}
	s.hash, s.at = h, p.at
	return false
}
