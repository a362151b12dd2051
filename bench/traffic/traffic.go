// Package traffic generates captures of the traffic between the containers of a web shop, and states exactly
// what they contain.
//
// Input are a size, a seed and the shares of segments that are reordered, duplicated or lost. Output are a
// pcap file with its packets in order of time, and the Truth: how many requests, queries, commands, lookups
// and handshakes a complete reader finds. Package bench measures the capture path on such files, and its
// tests compare the events of that path with the Truth. The same seed yields the same conversations, except
// for the TLS keys, which crypto/tls draws.
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

type packet struct {
	at   int64
	data []byte
}

type generator struct {
	cfg        Config
	rng        *rand.Rand
	text       []byte // random letters; message bodies are slices of it
	handshakes [][]message
	start      int64
	packets    []packet
	truth      Truth
	ipID       uint16
	slab       []byte
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
	switch n := g.rng.IntN(20); {
	case n < 7:
		g.addHTTP()
	case n < 10:
		g.addMySQL()
	case n < 14:
		g.addRedis()
	case n < 15:
		g.addTLS()
	default:
		g.addDNS()
	}
}

// writePcap writes a pcap header and the packets.
func (g *generator) writePcap(out io.Writer) error {
	w := bufio.NewWriterSize(out, 1<<20)
	data := binary.LittleEndian.AppendUint32(nil, 0xa1b23c4d)
	data = append(data, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	data = binary.LittleEndian.AppendUint32(data, 262144)
	data = binary.LittleEndian.AppendUint32(data, 1) // Ethernet
	if _, err := w.Write(data); err != nil {
		return err
	}
	for _, packet := range g.packets {
		data = binary.LittleEndian.AppendUint32(data[:0], uint32(packet.at/1e9))
		data = binary.LittleEndian.AppendUint32(data, uint32(packet.at%1e9))
		data = binary.LittleEndian.AppendUint32(data, uint32(len(packet.data)))
		data = binary.LittleEndian.AppendUint32(data, uint32(len(packet.data)))
		if _, err := w.Write(data); err != nil {
			return err
		}
		if _, err := w.Write(packet.data); err != nil {
			return err
		}
	}
	return w.Flush()
}

// filler returns n bytes of random text.
func (g *generator) filler(n int) string {
	i := g.rng.IntN(len(g.text) - n)
	return string(g.text[i : i+n])
}

// word returns n random letters.
func (g *generator) word(n int) string {
	data := make([]byte, n)
	for i := range data {
		data[i] = 'a' + byte(g.rng.IntN(26))
	}
	return string(data)
}

// bodySize returns the size of a message body: most bodies are small, a few are large.
func (g *generator) bodySize() int {
	n := 60 << g.rng.IntN(8)
	if g.rng.IntN(20) == 0 {
		n *= 10
	}
	return n + g.rng.IntN(n)
}
