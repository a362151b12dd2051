package traffic

import (
	"encoding/binary"
	"net/netip"
)

// A talk is one connection that is being made up: 0 is the client, 1 the server.
type talk struct {
	g    *generator
	ends [2]netip.AddrPort
	seq  [2]uint32
	at   int64
}

const (
	fin = 1
	syn = 2
	psh = 8
	ack = 16
)

const segment = 1448 // what an Ethernet frame carries, with time stamps in the TCP header

func (g *generator) talk(port uint16) *talk {
	client := netip.AddrFrom4([4]byte{172, 18, byte(g.rng.IntN(4)), byte(2 + g.rng.IntN(250))})
	server := netip.AddrFrom4([4]byte{172, 17, 0, byte(2 + g.rng.IntN(20))})
	return &talk{
		g: g, at: g.start, seq: [2]uint32{g.rng.Uint32(), g.rng.Uint32()},
		ends: [2]netip.AddrPort{netip.AddrPortFrom(client, uint16(32768+g.rng.IntN(28000))), netip.AddrPortFrom(server, port)},
	}
}

// open is the handshake.
func (g *generator) open(port uint16) *talk {
	k := g.talk(port)
	g.truth.Connections++
	k.send(0, syn, "")
	k.send(1, syn|ack, "")
	k.send(0, ack, "")
	return k
}

// say sends bytes in segments, with an acknowledgement for every second one; then the other side thinks.
func (k *talk) say(from int, s string) {
	for i := 0; len(s) > 0; i++ {
		n := min(len(s), segment)
		flags := byte(ack)
		if n == len(s) {
			flags |= psh
		}
		k.send(from, flags, s[:n])
		if s = s[n:]; i%2 == 1 {
			k.send(1-from, ack, "")
		}
	}
	k.at += 50e3 + k.g.rng.Int64N(2e6)
}

// think is the time between a reply and the next request.
func (k *talk) think() { k.at += k.g.rng.Int64N(40e6) }

func (k *talk) close() {
	k.at += 3e6
	k.send(0, fin|ack, "")
	k.send(1, fin|ack, "")
	k.send(0, ack, "")
}

// send makes one segment, to which that happens what the Config says. Handshake, acknowledgements and end are spared.
func (k *talk) send(from int, flags byte, payload string) {
	g := k.g
	k.at += 5e3 + g.rng.Int64N(60e3)
	seq := k.seq[from]
	k.seq[from] += uint32(len(payload))
	if flags&(syn|fin) != 0 {
		k.seq[from]++
	}
	at := k.at
	if payload != "" {
		switch p := g.rng.Float64(); {
		case p < g.cfg.Lose:
			g.truth.Lost++
			return
		case p < g.cfg.Lose+g.cfg.Reorder:
			g.truth.Reordered++
			at += 100e3 + g.rng.Int64N(2e6)
		case p < g.cfg.Lose+g.cfg.Reorder+g.cfg.Duplicate:
			g.truth.Duplicated++
			g.put(at+250e3, k.tcp(from, flags, seq, payload))
		}
	}
	g.put(at, k.tcp(from, flags, seq, payload))
}

func (g *generator) put(at int64, frame []byte) {
	g.packets = append(g.packets, packet{at, frame})
	g.truth.Bytes += len(frame) + 16
}

// frame gives n bytes behind an Ethernet and an IPv4 header for them.
func (k *talk) frame(from int, protocol byte, n int) (whole, rest []byte) {
	g := k.g
	size := 14 + 20 + n
	if len(g.slab) < size {
		g.slab = make([]byte, 1<<20)
	}
	whole, g.slab = g.slab[:size:size], g.slab[size:]
	whole[0], whole[6], whole[5], whole[11] = 2, 2, byte(1+from), byte(2-from)
	whole[12] = 8
	ip := whole[14:34]
	ip[0], ip[8], ip[9] = 0x45, 64, protocol
	binary.BigEndian.PutUint16(ip[2:], uint16(20+n))
	g.id++
	binary.BigEndian.PutUint16(ip[4:], g.id)
	ip[6] = 0x40
	a, b := k.ends[from].Addr().As4(), k.ends[1-from].Addr().As4()
	copy(ip[12:], a[:])
	copy(ip[16:], b[:])
	binary.BigEndian.PutUint16(ip[10:], ^sum(ip, 0))
	rest = whole[34:]
	binary.BigEndian.PutUint16(rest, k.ends[from].Port())
	binary.BigEndian.PutUint16(rest[2:], k.ends[1-from].Port())
	return whole, rest
}

// tcp is a segment with the time stamps option, as Linux sends it.
func (k *talk) tcp(from int, flags byte, seq uint32, payload string) []byte {
	whole, t := k.frame(from, 6, 32+len(payload))
	binary.BigEndian.PutUint32(t[4:], seq)
	if flags&ack != 0 {
		binary.BigEndian.PutUint32(t[8:], k.seq[1-from])
	}
	t[12], t[13] = 8<<4, flags
	binary.BigEndian.PutUint16(t[14:], 64000)
	t[20], t[21], t[22], t[23] = 1, 1, 8, 10
	binary.BigEndian.PutUint32(t[24:], uint32(k.at/1e6))
	copy(t[32:], payload)
	binary.BigEndian.PutUint16(t[16:], ^sum(t, pseudo(whole, len(t))))
	return whole
}

// datagram is one of UDP.
func (k *talk) datagram(from int, payload []byte) {
	whole, u := k.frame(from, 17, 8+len(payload))
	binary.BigEndian.PutUint16(u[4:], uint16(len(u)))
	copy(u[8:], payload)
	binary.BigEndian.PutUint16(u[6:], ^sum(u, pseudo(whole, len(u))))
	k.g.put(k.at, whole)
}

// pseudo is the sum of the pseudo header (RFC 9293 section 3.1).
func pseudo(frame []byte, n int) uint32 {
	return uint32(sum(frame[26:34], 0)) + uint32(frame[23]) + uint32(n)
}

// sum is the Internet checksum before it is inverted (RFC 1071).
func sum(b []byte, s uint32) uint16 {
	for ; len(b) > 1; b = b[2:] {
		s += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}
