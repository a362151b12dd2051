// Package traffic makes captures of ordinary conversations of a shop of containers, and says exactly what is in them.
//
// In goes a size, a seed and what goes wrong on the way (segments reordered, repeated, lost); out come the packets of a pcap file in
// the order of time and the truth: how many requests, queries, commands, look-ups and handshakes a complete reader finds. Bench
// measures the capture path on it, the tests of bench hold that path against the truth. The same seed gives the same conversations,
// but for the keys of TLS, which crypto/tls draws.
package traffic

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
)

// Config is how much traffic there is and what becomes of it.
type Config struct {
	Bytes     int     // of packets, about
	Seed      uint64  //
	Reorder   float64 // share of the segments with data that are seen too late
	Duplicate float64 // share that is seen twice
	Lose      float64 // share that is never seen, though it was received
}

// Truth is what a capture holds.
type Truth struct {
	Packets     int            `json:"packets"`
	Bytes       int            `json:"bytes"`
	Connections int            `json:"connections"` // over TCP
	Events      map[string]int `json:"events"`      // by dataset; of mysql those that are COM_QUERY
	Lost        int            `json:"lost"`
	Reordered   int            `json:"reordered"`
	Duplicated  int            `json:"duplicated"`
}

type packet struct {
	at   int64
	data []byte
}

type generator struct {
	cfg     Config
	rng     *rand.Rand
	text    []byte // letters, of which bodies are slices
	hands   [][]turn
	start   int64
	packets []packet
	truth   Truth
	id      uint16
	slab    []byte
}

// epoch is when the first conversation begins.
const epoch = 1_772_366_400_000_000_000 // 2026-03-01 12:00 UTC

// Write makes a capture and writes it as pcap with times in ns.
func Write(w io.Writer, cfg Config) (Truth, error) {
	g := &generator{cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 7)), start: epoch, truth: Truth{Events: map[string]int{}}}
	g.text = make([]byte, 1<<20)
	for i := range g.text {
		g.text[i] = "abcdefghijklmnopqrstuvwxyz  \n0123456789<>/=.,ETAOIN"[g.rng.IntN(51)]
	}
	var err error
	if g.hands, err = handshakes(6); err != nil {
		return Truth{}, fmt.Errorf("record handshakes: %w", err)
	}
	for g.truth.Bytes < cfg.Bytes {
		g.conversation()
	}
	slices.SortStableFunc(g.packets, func(a, b packet) int {
		return int(min(max(a.at-b.at, -1), 1))
	})
	g.truth.Packets = len(g.packets)
	return g.truth, g.write(w)
}

// conversation makes one of them, begun a little after the one before, so that a few hundred are under way at any time.
func (g *generator) conversation() {
	g.start += g.rng.Int64N(4e6)
	switch n := g.rng.IntN(20); {
	case n < 7:
		g.http()
	case n < 10:
		g.mysql()
	case n < 14:
		g.redis()
	case n < 15:
		g.tls()
	default:
		g.dns()
	}
}

// write puts a pcap header and the packets out.
func (g *generator) write(out io.Writer) error {
	w := bufio.NewWriterSize(out, 1<<20)
	h := binary.LittleEndian.AppendUint32(nil, 0xa1b23c4d)
	h = append(h, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	h = binary.LittleEndian.AppendUint32(h, 262144)
	h = binary.LittleEndian.AppendUint32(h, 1) // Ethernet
	if _, err := w.Write(h); err != nil {
		return err
	}
	for _, p := range g.packets {
		h = binary.LittleEndian.AppendUint32(h[:0], uint32(p.at/1e9))
		h = binary.LittleEndian.AppendUint32(h, uint32(p.at%1e9))
		h = binary.LittleEndian.AppendUint32(h, uint32(len(p.data)))
		h = binary.LittleEndian.AppendUint32(h, uint32(len(p.data)))
		if _, err := w.Write(h); err != nil {
			return err
		}
		if _, err := w.Write(p.data); err != nil {
			return err
		}
	}
	return w.Flush()
}

// some is n bytes of text that nobody looks at.
func (g *generator) some(n int) string {
	i := g.rng.IntN(len(g.text) - n)
	return string(g.text[i : i+n])
}

// word is n letters.
func (g *generator) word(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = 'a' + byte(g.rng.IntN(26))
	}
	return string(b)
}

// size is of the kind that bodies have: most are small, a few are not.
func (g *generator) size() int {
	n := 60 << g.rng.IntN(8)
	if g.rng.IntN(20) == 0 {
		n *= 10
	}
	return n + g.rng.IntN(n)
}
