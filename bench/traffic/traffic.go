// Package traffic generates captures of the traffic between the containers of a web shop.
//
// The input is a size, a seed and the shares of segments that are reordered, duplicated or lost. The output
// is a pcap file with its packets in order of time, and the Truth: the number of requests, queries, commands,
// lookups and handshakes that a complete reader finds. Package bench measures the capture path on such files,
// and its tests compare the events of that path with the Truth. The same seed yields the same conversations,
// except for the TLS keys, which crypto/tls draws.
package traffic

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
)

// Config sets the amount of traffic and what the network does to it.
type Config struct {
	Bytes     int     // approximate size of the capture
	Seed      uint64  // of the random generator
	Reorder   float64 // share of segments with payload that are captured late
	Duplicate float64 // share of segments with payload that are captured twice
	Lose      float64 // share of segments with payload that reach their receiver and are not captured
}

// Truth counts what a capture contains.
type Truth struct {
	Packets     int            `json:"packets"`
	Bytes       int            `json:"bytes"`
	Connections int            `json:"connections"` // TCP connections
	Events      map[string]int `json:"events"`      // by dataset; mysql counts COM_QUERY only
	Lost        int            `json:"lost"`
	Reordered   int            `json:"reordered"`
	Duplicated  int            `json:"duplicated"`
}

// A packet is an Ethernet frame with the time of its capture in ns since 1970.
type packet struct {
	at   int64
	data []byte
}

// A generator collects the packets of all conversations of a capture.
type generator struct {
	cfg        Config
	rng        *rand.Rand
	text       []byte      // random letters; message bodies are slices of it
	handshakes [][]message // recorded TLS handshakes, used again and again
	start      int64       // time of the next conversation
	packets    []packet    // in order of creation until Write sorts them
	truth      Truth
	ipID       uint16 // identification of the last IP packet
	slab       []byte // memory of the next frames
}

// epoch is the time of the first conversation in ns since 1970.
const epoch = 1_772_366_400_000_000_000 // 2026-03-01 12:00 UTC

// Write generates a capture and writes it to out as pcap with times in ns.
func Write(out io.Writer, cfg Config) (Truth, error) {
	g := &generator{cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 7)), start: epoch, truth: Truth{Events: map[string]int{}}}
	g.text = make([]byte, 1<<20)
	for i := range g.text {
		g.text[i] = "abcdefghijklmnopqrstuvwxyz  \n0123456789<>/=.,ETAOIN"[g.rng.IntN(51)]
	}

	var err error
	if g.handshakes, err = handshakes(6); err != nil {
		return Truth{}, fmt.Errorf("record TLS handshakes: %w", err)
	}
	for g.truth.Bytes < cfg.Bytes {
		g.addConversation()
	}

	// Conversations overlap, so the packets are sorted at the end.
	slices.SortStableFunc(g.packets, func(a, b packet) int {
		return int(min(max(a.at-b.at, -1), 1))
	})
	g.truth.Packets = len(g.packets)
	return g.truth, g.writePcap(out)
}

// addConversation adds one conversation that starts shortly after the previous one. A few hundred
// conversations overlap at any time.
func (g *generator) addConversation() {
	g.start += g.rng.Int64N(4e6)
	switch draw := g.rng.IntN(20); {
	case draw < 7:
		g.addHTTP()
	case draw < 10:
		g.addMySQL()
	case draw < 14:
		g.addRedis()
	case draw < 15:
		g.addTLS()
	default:
		g.addDNS()
	}
}

// writePcap writes a pcap header and the packets.
func (g *generator) writePcap(out io.Writer) error {
	// File header: magic number of times in ns, version 2.4, time zone and accuracy 0, snapshot length, link
	// type.
	buffered := bufio.NewWriterSize(out, 1<<20)
	header := binary.LittleEndian.AppendUint32(nil, 0xa1b23c4d)
	header = append(header, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	header = binary.LittleEndian.AppendUint32(header, 262144)
	header = binary.LittleEndian.AppendUint32(header, 1) // Ethernet
	if _, err := buffered.Write(header); err != nil {
		return err
	}

	// Packet header: seconds, nanoseconds, captured and original length.
	for _, packet := range g.packets {
		header = binary.LittleEndian.AppendUint32(header[:0], uint32(packet.at/1e9))
		header = binary.LittleEndian.AppendUint32(header, uint32(packet.at%1e9))
		header = binary.LittleEndian.AppendUint32(header, uint32(len(packet.data)))
		header = binary.LittleEndian.AppendUint32(header, uint32(len(packet.data)))
		if _, err := buffered.Write(header); err != nil {
			return err
		}
		if _, err := buffered.Write(packet.data); err != nil {
			return err
		}
	}
	return buffered.Flush()
}

// filler returns random text of the given number of bytes.
func (g *generator) filler(size int) string {
	from := g.rng.IntN(len(g.text) - size)
	return string(g.text[from : from+size])
}

// word returns the given number of random letters.
func (g *generator) word(letters int) string {
	data := make([]byte, letters)
	for i := range data {
		data[i] = 'a' + byte(g.rng.IntN(26))
	}
	return string(data)
}

// bodySize returns the size of a message body: most bodies are small, a few are large.
func (g *generator) bodySize() int {
	size := 60 << g.rng.IntN(8)
	if g.rng.IntN(20) == 0 {
		size *= 10
	}
	return size + g.rng.IntN(size)
}
