package traffic

import (
	"encoding/binary"
	"net/netip"
)

// A conversation is one generated connection. Index 0 is the client, index 1 the server.
type conversation struct {
	generator *generator
	endpoints [2]netip.AddrPort
	seq       [2]uint32
	now       int64
}

const (
	fin = 1
	syn = 2
	psh = 8
	ack = 16
)

const maxSegment = 1448 // payload of an Ethernet frame with the timestamps option in the TCP header

func (g *generator) newConversation(port uint16) *conversation {
	client := netip.AddrFrom4([4]byte{172, 18, byte(g.rng.IntN(4)), byte(2 + g.rng.IntN(250))})
	server := netip.AddrFrom4([4]byte{172, 17, 0, byte(2 + g.rng.IntN(20))})
	return &conversation{
		generator: g, now: g.start, seq: [2]uint32{g.rng.Uint32(), g.rng.Uint32()},
		endpoints: [2]netip.AddrPort{netip.AddrPortFrom(client, uint16(32768+g.rng.IntN(28000))), netip.AddrPortFrom(server, port)},
	}
}

// openTCP returns a new connection after its three-way handshake.
func (g *generator) openTCP(port uint16) *conversation {
	k := g.newConversation(port)
	g.truth.Connections++
	k.sendSegment(0, syn, "")
	k.sendSegment(1, syn|ack, "")
	k.sendSegment(0, ack, "")
	return k
}

// send sends text in segments, with an acknowledgement of every second segment, and then waits for the
// reaction of the other side.
func (k *conversation) send(from int, text string) {
	for i := 0; len(text) > 0; i++ {
		n := min(len(text), maxSegment)
		flags := byte(ack)
		if n == len(text) {
			flags |= psh
		}
		k.sendSegment(from, flags, text[:n])
		if text = text[n:]; i%2 == 1 {
			k.sendSegment(1-from, ack, "")
		}
	}
	k.now += 50e3 + k.generator.rng.Int64N(2e6)
}

// pause waits between a reply and the next request.
func (k *conversation) pause() { k.now += k.generator.rng.Int64N(40e6) }

func (k *conversation) closeTCP() {
	k.now += 3e6
	k.sendSegment(0, fin|ack, "")
	k.sendSegment(1, fin|ack, "")
	k.sendSegment(0, ack, "")
}

// sendSegment adds one segment. Segments with payload are lost, delayed or duplicated as Config says.
func (k *conversation) sendSegment(from int, flags byte, payload string) {
	generator := k.generator
	k.now += 5e3 + generator.rng.Int64N(60e3)
	seq := k.seq[from]
	k.seq[from] += uint32(len(payload))
	if flags&(syn|fin) != 0 {
		k.seq[from]++
	}

	// The sequence number has advanced in any case: a lost segment leaves a gap.
	at := k.now
	if payload != "" {
		switch p := generator.rng.Float64(); {
		case p < generator.cfg.Lose:
			generator.truth.Lost++
			return
		case p < generator.cfg.Lose+generator.cfg.Reorder:
			generator.truth.Reordered++
			at += 100e3 + generator.rng.Int64N(2e6)
		case p < generator.cfg.Lose+generator.cfg.Reorder+generator.cfg.Duplicate:
			generator.truth.Duplicated++
			generator.addPacket(at+250e3, k.tcpSegment(from, flags, seq, payload))
		}
	}
	generator.addPacket(at, k.tcpSegment(from, flags, seq, payload))
}

func (g *generator) addPacket(at int64, frame []byte) {
	g.packets = append(g.packets, packet{at, frame})
	g.truth.Bytes += len(frame) + 16
}

// frame returns a frame with Ethernet and IPv4 headers and n bytes behind them. payload starts with the two
// ports and is part of whole.
func (k *conversation) frame(from int, protocol byte, n int) (whole, payload []byte) {
	generator := k.generator
	size := 14 + 20 + n
	if len(generator.slab) < size {
		generator.slab = make([]byte, 1<<20)
	}
	whole, generator.slab = generator.slab[:size:size], generator.slab[size:]

	// Ethernet: locally administered addresses, EtherType IPv4.
	whole[0], whole[6], whole[5], whole[11] = 2, 2, byte(1+from), byte(2-from)
	whole[12] = 8

	// IPv4 (RFC 791): no options, TTL 64, don't fragment.
	ip := whole[14:34]
	ip[0], ip[8], ip[9] = 0x45, 64, protocol
	binary.BigEndian.PutUint16(ip[2:], uint16(20+n))
	generator.ipID++
	binary.BigEndian.PutUint16(ip[4:], generator.ipID)
	ip[6] = 0x40
	a, b := k.endpoints[from].Addr().As4(), k.endpoints[1-from].Addr().As4()
	copy(ip[12:], a[:])
	copy(ip[16:], b[:])
	binary.BigEndian.PutUint16(ip[10:], ^checksum(ip, 0))

	// UDP and TCP both begin with the two ports.
	payload = whole[34:]
	binary.BigEndian.PutUint16(payload, k.endpoints[from].Port())
	binary.BigEndian.PutUint16(payload[2:], k.endpoints[1-from].Port())
	return whole, payload
}

// tcpSegment returns a frame with a TCP segment that has the timestamps option, as Linux sends it.
func (k *conversation) tcpSegment(from int, flags byte, seq uint32, payload string) []byte {
	whole, data := k.frame(from, 6, 32+len(payload))
	binary.BigEndian.PutUint32(data[4:], seq)
	if flags&ack != 0 {
		binary.BigEndian.PutUint32(data[8:], k.seq[1-from])
	}
	data[12], data[13] = 8<<4, flags
	binary.BigEndian.PutUint16(data[14:], 64000) // window

	// Options: two NOPs and the timestamps option, 10 bytes (RFC 7323).
	data[20], data[21], data[22], data[23] = 1, 1, 8, 10
	binary.BigEndian.PutUint32(data[24:], uint32(k.now/1e6))
	copy(data[32:], payload)
	binary.BigEndian.PutUint16(data[16:], ^checksum(data, pseudoHeaderSum(whole, len(data))))
	return whole
}

// sendDatagram adds one UDP datagram.
func (k *conversation) sendDatagram(from int, payload []byte) {
	whole, data := k.frame(from, 17, 8+len(payload))
	binary.BigEndian.PutUint16(data[4:], uint16(len(data)))
	copy(data[8:], payload)
	binary.BigEndian.PutUint16(data[6:], ^checksum(data, pseudoHeaderSum(whole, len(data))))
	k.generator.addPacket(k.now, whole)
}

// pseudoHeaderSum returns the sum of the pseudo-header (RFC 9293 section 3.1).
func pseudoHeaderSum(frame []byte, n int) uint32 {
	return uint32(checksum(frame[26:34], 0)) + uint32(frame[23]) + uint32(n)
}

// checksum returns the Internet checksum of data before its inversion (RFC 1071).
func checksum(data []byte, s uint32) uint16 {
	for ; len(data) > 1; data = data[2:] {
		s += uint32(data[0])<<8 | uint32(data[1])
	}
	if len(data) == 1 {
		s += uint32(data[0]) << 8
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}
