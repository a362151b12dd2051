package pipeline

import (
	"crypto/sha1"
	"encoding/binary"
	"net/netip"

	"github.com/zeebo/xxh3"
)

// An ID is the value of event.id. It is a hash of where the event was observed, so an event that is read
// twice has the same ID: after the collector was killed, or in another replay of a capture.
type ID [16]byte

// LogID returns the ID of a log line, given the container, the file and the offset of the line's first record
// in it. handle names the file also after a rotation has renamed it.
func LogID(collector ID, container string, handle []byte, offset uint64) ID {
	b := make([]byte, 0, 160) // more than a container id and a handle need
	b = append(b, 'L')
	b = append(b, collector[:]...)
	b = append(append(b, container...), 0)
	b = append(b, handle...)
	b = binary.BigEndian.AppendUint64(b, offset)
	return xxh3.Hash128(b).Bytes()
}

// SessionID returns the ID of a connection as one collector observed it. seq is the client's initial sequence
// number, or the first one that was captured, or 0 for UDP; at is the time of the first packet.
func SessionID(collector ID, t Transport, client, server netip.AddrPort, seq uint32, at int64) ID {
	b := make([]byte, 0, 96)
	b = append(b, 'S', byte(t))
	b = append(b, collector[:]...)
	b = appendAddrPort(appendAddrPort(b, client), server)
	b = binary.BigEndian.AppendUint32(b, seq)
	b = binary.BigEndian.AppendUint64(b, uint64(at))
	return xxh3.Hash128(b).Bytes()
}

// TransactionID returns the ID of the transaction that begins at a byte offset of one direction of a session:
// 0 is the client's direction, 1 the server's.
func TransactionID(session ID, dir uint8, offset uint64) ID {
	var b [26]byte
	b[0], b[1] = 'T', dir
	copy(b[2:], session[:])
	binary.BigEndian.PutUint64(b[18:], offset)
	return xxh3.Hash128(b[:]).Bytes()
}

// CommunityID returns the 20 bytes of the Community ID version 1 with seed 0. Both directions of a connection
// have the same. Specification: github.com/corelight/community-id-spec.
func CommunityID(t Transport, a, b netip.AddrPort) [20]byte {
	// The smaller endpoint comes first.
	addrA, addrB := a.Addr().Unmap(), b.Addr().Unmap()
	if order := addrA.Compare(addrB); order > 0 || order == 0 && a.Port() > b.Port() {
		a, b, addrA, addrB = b, a, addrB, addrA
	}

	buf := make([]byte, 0, 40)
	buf = append(buf, 0, 0) // the seed
	buf = append(append(buf, addrA.AsSlice()...), addrB.AsSlice()...)
	proto := byte(6)
	if t == Transport_UDP {
		proto = 17
	}
	buf = append(buf, proto, 0)
	buf = binary.BigEndian.AppendUint16(buf, a.Port())
	buf = binary.BigEndian.AppendUint16(buf, b.Port())
	return sha1.Sum(buf)
}

func appendAddrPort(b []byte, a netip.AddrPort) []byte {
	ip := a.Addr().Unmap().As16()
	b = append(b, ip[:]...)
	return binary.BigEndian.AppendUint16(b, a.Port())
}
