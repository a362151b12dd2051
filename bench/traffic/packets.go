package traffic

import (
	"encoding/binary"
	"net/netip"
)

// A conversation is one generated connection. Index 0 is the client, index 1 the server.
type conversation struct {
	generator *generator
	endpoints [2]netip.AddrPort
	seq       [2]uint32 // next sequence number of each side
	now       int64     // ns since 1970
}

// The flags of a TCP segment (RFC 9293 section 3.1).
const (
	fin = 1
	syn = 2
	psh = 8
	ack = 16
)

// maxSegment is the payload of a full Ethernet frame with the timestamps option in the TCP header.
const maxSegment = 1448

// newConversation returns a conversation of a random client with a random server at port. It sends nothing
// yet.
func (g *generator) newConversation(port uint16) *conversation {
	client := netip.AddrFrom4([4]byte{172, 18, byte(g.rng.IntN(4)), byte(2 + g.rng.IntN(250))})
	server := netip.AddrFrom4([4]byte{172, 17, 0, byte(2 + g.rng.IntN(20))})
	return &conversation{
		generator: g,
		now:       g.start,
		seq:       [2]uint32{g.rng.Uint32(), g.rng.Uint32()},
		endpoints: [2]netip.AddrPort{
			netip.AddrPortFrom(client, uint16(32768+g.rng.IntN(28000))),
			netip.AddrPortFrom(server, port),
		},
	}
}

// openTCP returns a new connection after its three-way handshake.
func (g *generator) openTCP(port uint16) *conversation {
	opened := g.newConversation(port)
	g.truth.Connections++
	opened.sendSegment(0, syn, "")
	opened.sendSegment(1, syn|ack, "")
	opened.sendSegment(0, ack, "")
	return opened
}

// send sends text in segments, with an acknowledgement of every second segment, and then waits for the
// reaction of the other side.
func (c *conversation) send(from int, text string) {
	for i := 0; len(text) > 0; i++ {
		size := min(len(text), maxSegment)
		flags := byte(ack)
		if size == len(text) {
			flags |= psh
		}
		c.sendSegment(from, flags, text[:size])
		if text = text[size:]; i%2 == 1 {
			c.sendSegment(1-from, ack, "")
		}
	}
	c.now += 50e3 + c.generator.rng.Int64N(2e6)
}

// pause waits between a reply and the next request.
func (c *conversation) pause() { c.now += c.generator.rng.Int64N(40e6) }

// closeTCP closes the connection from both sides.
func (c *conversation) closeTCP() {
	c.now += 3e6
	c.sendSegment(0, fin|ack, "")
	c.sendSegment(1, fin|ack, "")
	c.sendSegment(0, ack, "")
}

// sendSegment adds one segment. Segments with payload are lost, delayed or duplicated with the shares of
// Config.
func (c *conversation) sendSegment(from int, flags byte, payload string) {
	generator := c.generator
	c.now += 5e3 + generator.rng.Int64N(60e3)
	seq := c.seq[from]
	c.seq[from] += uint32(len(payload))
	if flags&(syn|fin) != 0 {
		c.seq[from]++
	}

	// The sequence number has advanced in any case: a lost segment leaves a gap.
	at := c.now
	cfg := &generator.cfg
	if payload != "" {
		switch draw := generator.rng.Float64(); {
		case draw < cfg.Lose:
			generator.truth.Lost++
			return
		case draw < cfg.Lose+cfg.Reorder:
			generator.truth.Reordered++
			at += 100e3 + generator.rng.Int64N(2e6)
		case draw < cfg.Lose+cfg.Reorder+cfg.Duplicate:
			generator.truth.Duplicated++
			generator.addPacket(at+250e3, c.tcpSegment(from, flags, seq, payload))
		}
	}
	generator.addPacket(at, c.tcpSegment(from, flags, seq, payload))
}

// addPacket adds a frame to the capture. Each packet has a header of 16 bytes in the file.
func (g *generator) addPacket(at int64, frame []byte) {
	g.packets = append(g.packets, packet{at, frame})
	g.truth.Bytes += len(frame) + 16
}

// frame returns a frame with Ethernet and IPv4 headers and size bytes behind them. payload holds these bytes,
// starts with the two ports and shares the memory of whole.
func (c *conversation) frame(from int, protocol byte, size int) (whole, payload []byte) {
	// Frames are cut from one slab, because a capture has many of them.
	generator := c.generator
	total := 14 + 20 + size
	if len(generator.slab) < total {
		generator.slab = make([]byte, 1<<20)
	}
	whole, generator.slab = generator.slab[:total:total], generator.slab[total:]

	// Ethernet: locally administered addresses, EtherType IPv4.
	whole[0], whole[6], whole[5], whole[11] = 2, 2, byte(1+from), byte(2-from)
	whole[12] = 8

	// IPv4 (RFC 791): no options, TTL 64, don't fragment.
	ip := whole[14:34]
	ip[0], ip[8], ip[9] = 0x45, 64, protocol
	binary.BigEndian.PutUint16(ip[2:], uint16(20+size))
	generator.ipID++
	binary.BigEndian.PutUint16(ip[4:], generator.ipID)
	ip[6] = 0x40
	source, destination := c.endpoints[from].Addr().As4(), c.endpoints[1-from].Addr().As4()
	copy(ip[12:], source[:])
	copy(ip[16:], destination[:])
	binary.BigEndian.PutUint16(ip[10:], ^checksum(ip, 0))

	// UDP and TCP both begin with the two ports.
	payload = whole[34:]
	binary.BigEndian.PutUint16(payload, c.endpoints[from].Port())
	binary.BigEndian.PutUint16(payload[2:], c.endpoints[1-from].Port())
	return whole, payload
}

// tcpSegment returns a frame with a TCP segment that has the timestamps option, as Linux sends it.
func (c *conversation) tcpSegment(from int, flags byte, seq uint32, payload string) []byte {
	whole, data := c.frame(from, 6, 32+len(payload))
	binary.BigEndian.PutUint32(data[4:], seq)
	if flags&ack != 0 {
		binary.BigEndian.PutUint32(data[8:], c.seq[1-from])
	}
	data[12], data[13] = 8<<4, flags
	binary.BigEndian.PutUint16(data[14:], 64000) // window

	// Options: two NOPs and the timestamps option, 10 bytes (RFC 7323).
	data[20], data[21], data[22], data[23] = 1, 1, 8, 10
	binary.BigEndian.PutUint32(data[24:], uint32(c.now/1e6))
	copy(data[32:], payload)
	binary.BigEndian.PutUint16(data[16:], ^checksum(data, pseudoHeaderSum(whole, len(data))))
	return whole
}

// sendDatagram adds one UDP datagram.
func (c *conversation) sendDatagram(from int, payload []byte) {
	whole, data := c.frame(from, 17, 8+len(payload))
	binary.BigEndian.PutUint16(data[4:], uint16(len(data)))
	copy(data[8:], payload)
	binary.BigEndian.PutUint16(data[6:], ^checksum(data, pseudoHeaderSum(whole, len(data))))
	c.generator.addPacket(c.now, whole)
}

// pseudoHeaderSum returns the sum of the pseudo-header (RFC 9293 section 3.1): addresses, protocol and the
// length of the TCP or UDP part.
func pseudoHeaderSum(frame []byte, length int) uint32 {
	return uint32(checksum(frame[26:34], 0)) + uint32(frame[23]) + uint32(length)
}

// checksum adds data to sum and returns the Internet checksum before its inversion (RFC 1071).
func checksum(data []byte, sum uint32) uint16 {
	for ; len(data) > 1; data = data[2:] {
		sum += uint32(data[0])<<8 | uint32(data[1])
	}
	if len(data) == 1 {
		sum += uint32(data[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}
