package pipeline

import (
	"crypto/sha1"
	"encoding/binary"
	"net/netip"

	"github.com/zeebo/xxh3"
)

// An ID is the value of event.id: a hash of the position and time of the observation. An event that is read
// twice has the same ID, for example after the collector was killed or in a second replay of a capture.
type ID [16]byte

// LogID returns the ID of a log line. handle identifies the file, also after a rotation has renamed it;
// offset is that of the line's first record in the file.
func LogID(collector ID, container string, handle []byte, offset uint64) ID {
	data := make([]byte, 0, 160) // more than a container id and a handle need
	data = append(data, 'L')
	data = append(data, collector[:]...)
	data = append(append(data, container...), 0)
	data = append(data, handle...)
	data = binary.BigEndian.AppendUint64(data, offset)
	return xxh3.Hash128(data).Bytes()
}

// SessionID returns the ID of a session as one collector observed it. seq is the client's initial sequence
// number, or the first captured one, or 0 for UDP. at is the time of the first packet.
func SessionID(collector ID, t Transport, client, server netip.AddrPort, seq uint32, at int64) ID {
	data := make([]byte, 0, 96)
	data = append(data, 'S', byte(t))
	data = append(data, collector[:]...)
	data = appendAddrPort(appendAddrPort(data, client), server)
	data = binary.BigEndian.AppendUint32(data, seq)
	data = binary.BigEndian.AppendUint64(data, uint64(at))
	return xxh3.Hash128(data).Bytes()
}

// TransactionID returns the ID of the transaction that begins at a byte offset of one direction of a session.
// dir is 0 for the bytes of the client and 1 for those of the server.
func TransactionID(session ID, dir uint8, offset uint64) ID {
	var hashed [26]byte
	hashed[0], hashed[1] = 'T', dir
	copy(hashed[2:], session[:])
	binary.BigEndian.PutUint64(hashed[18:], offset)
	return xxh3.Hash128(hashed[:]).Bytes()
}

// CommunityID returns the 20 bytes of the Community ID, version 1, seed 0. Both directions of a connection
// have the same Community ID. Specification: github.com/corelight/community-id-spec.
func CommunityID(transport Transport, first, second netip.AddrPort) [20]byte {
	// The smaller endpoint comes first.
	firstAddr, secondAddr := first.Addr().Unmap(), second.Addr().Unmap()
	if order := firstAddr.Compare(secondAddr); order > 0 || order == 0 && first.Port() > second.Port() {
		first, second, firstAddr, secondAddr = second, first, secondAddr, firstAddr
	}

	// Hash of seed, addresses, IP protocol number, a padding byte and ports.
	buf := make([]byte, 0, 40)
	buf = append(buf, 0, 0) // the seed
	buf = append(append(buf, firstAddr.AsSlice()...), secondAddr.AsSlice()...)
	proto := byte(6)
	if transport == Transport_UDP {
		proto = 17
	}
	buf = append(buf, proto, 0)
	buf = binary.BigEndian.AppendUint16(buf, first.Port())
	buf = binary.BigEndian.AppendUint16(buf, second.Port())
	return sha1.Sum(buf)
}

func appendAddrPort(data []byte, addr netip.AddrPort) []byte {
	ip := addr.Addr().Unmap().As16()
	data = append(data, ip[:]...)
	return binary.BigEndian.AppendUint16(data, addr.Port())
}
