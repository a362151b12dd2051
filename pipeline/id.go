package pipeline

import (
	"crypto/sha1"
	"encoding/binary"
	"net/netip"

	"github.com/zeebo/xxh3"
)

// An ID is event.id: deterministic, so that the same bytes read twice, by a collector that was killed or by another replay of
// the same capture, are the same events.
type ID [16]byte

// LogID is the identity of a log line: where its first record begins in which file of which container. handle outlives a
// rotation, which renames the file.
func LogID(collector ID, container string, handle []byte, offset uint64) ID {
	b := make([]byte, 0, 160)
	b = append(b, 'L')
	b = append(b, collector[:]...)
	b = append(append(b, container...), 0)
	b = append(b, handle...)
	b = binary.BigEndian.AppendUint64(b, offset)
	return xxh3.Hash128(b).Bytes()
}

// SessionID is the identity of a connection as one collector saw it begin: seq is the client's initial sequence number, or the
// first that was seen; 0 over UDP.
func SessionID(collector ID, t Transport, client, server netip.AddrPort, seq uint32, at int64) ID {
	b := make([]byte, 0, 96)
	b = append(b, 'S', byte(t))
	b = append(b, collector[:]...)
	b = appendAddrPort(appendAddrPort(b, client), server)
	b = binary.BigEndian.AppendUint32(b, seq)
	b = binary.BigEndian.AppendUint64(b, uint64(at))
	return xxh3.Hash128(b).Bytes()
}

// TransactionID is the identity of what began at the byte offset of a direction (0 client, 1 server) of a session.
func TransactionID(session ID, dir uint8, offset uint64) ID {
	var b [26]byte
	b[0], b[1] = 'T', dir
	copy(b[2:], session[:])
	binary.BigEndian.PutUint64(b[18:], offset)
	return xxh3.Hash128(b[:]).Bytes()
}

// CommunityID is version 1 with seed 0, as its 20 bytes. Source: github.com/corelight/community-id-spec.
func CommunityID(t Transport, a, b netip.AddrPort) [20]byte {
	x, y := a.Addr().Unmap(), b.Addr().Unmap()
	if c := x.Compare(y); c > 0 || c == 0 && a.Port() > b.Port() {
		a, b, x, y = b, a, y, x
	}
	buf := make([]byte, 0, 40)
	buf = append(buf, 0, 0)
	buf = append(append(buf, x.AsSlice()...), y.AsSlice()...)
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
