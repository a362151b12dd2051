package sessions

import (
	"strings"
	"testing"

	"tidegate/collector/reassembly"
)

// TestPrintHasThePlaceOfItsPayload, across the wrap of the sequence numbers.
func TestPrintHasThePlaceOfItsPayload(t *testing.T) {
	print := newPrint(0xfffffff0, 0x20, 7)
	if print.position() != 0xfffffff0 || print.length() != 0x20 || print.end() != 0x10 || print == newPrint(0xfffffff0, 0x20, 1<<63) {
		t.Errorf("%#x: from %#x, %d bytes, to %#x", print, print.position(), print.length(), print.end())
	}
	overlaps := func(seq uint32, n int, want bool) {
		t.Helper()
		other := newPrint(seq, n, 0)
		if print.overlaps(other) != want || other.overlaps(print) != want {
			t.Errorf("%d bytes at %#x overlap: %t", n, seq, !want)
		}
	}
	overlaps(0xffffffe0, 0x10, false)
	overlaps(0xffffffe0, 0x11, true)
	overlaps(0xf, 1, true)
	overlaps(0x10, 1, false)
	overlaps(0xffffff00, 0x1000, true)
	open := func(top uint32, want bool) {
		t.Helper()
		if print.isOpen(top) != want {
			t.Errorf("open behind %#x: %t", top, !want)
		}
	}
	open(0xfffffff0, false)
	open(0xfffffff1, true)
	open(0xf, true)
	open(0x10, false)
}

// TestDatagramsHaveDifferentPrints, with their length, up to the longest that has one.
func TestDatagramsHaveDifferentPrints(t *testing.T) {
	seen := map[payloadPrint]bool{}
	for size := 1; size < 1000; size++ {
		for _, letter := range []string{"a", "b"} {
			print := newDatagramPrint([]byte(strings.Repeat(letter, size)))
			if seen[print] || print.length() != size || print == 0 {
				t.Fatalf("%d bytes: %#x", size, print)
			}
			seen[print] = true
		}
	}
	long := strings.Repeat("x", maxPrinted+1)
	if got := newDatagramPrint([]byte(long)); got != newDatagramPrint([]byte(long[1:])) || got.length() != maxPrinted {
		t.Errorf("%d bytes have a print of %d", len(long), got.length())
	}
	positions := map[uint32]bool{} // a part of the hash
	for size := range 100 {
		positions[newDatagramPrint([]byte(strings.Repeat("c", size+1))).position()] = true
	}
	if len(positions) != 100 {
		t.Errorf("100 datagrams have %d positions", len(positions))
	}
}

// TestFirstAndLastPrintsAreKept, and some that are chosen by their value, which every copy chooses.
func TestFirstAndLastPrintsAreKept(t *testing.T) {
	defer func(secret uint64) { printSecret = secret }(printSecret)
	printSecret = 0x1234567 // the choice depends on it
	first, other := &flow{table: &Table{}, activity: &activity{}}, &flow{table: &Table{}, activity: &activity{}}
	first.table.clock.packetTime, other.table.clock.packetTime = 77, 88
	lists := func(f *flow, list int) (prints []payloadPrint) {
		for i := range keptPrints {
			prints = append(prints, payloadPrint(f.activity.prints[1].list[list*keptPrints+i].Load()))
		}
		return prints
	}
	const count = 5000
	all := func(i int) payloadPrint { return newPrint(uint32(100*i), 100, uint64(i)*0x9e3779b97f4a7c15) }
	for i := range count {
		if first.dedup.isBulk(1) != (i > keptPrints) {
			t.Fatalf("%d prints are many: %t", i, first.dedup.isBulk(1))
		}
		first.publishPrint(1, all(i))
		first.table.clock.packetTime++
		if i > 0 { // the other one is a packet behind
			other.publishPrint(1, all(i-1))
		}
	}
	if first.dedup.payloadSince != 77 || first.dedup.isBulk(0) {
		t.Errorf("the first print is of the time %d", first.dedup.payloadSince)
	}
	published := &first.activity.prints[1]
	for i := range keptPrints {
		if !published.hasPrint(all(i)) || !published.hasPrint(all(count-1-i)) {
			t.Errorf("print %d from the front or the end is not kept", i)
		}
	}
	if published.hasPrint(all(keptPrints)) && published.hasPrint(all(keptPrints+1)) && published.hasPrint(all(keptPrints+2)) {
		t.Error("more of the first ones are kept")
	}
	for list := 2; list < 4; list++ {
		chosen, same := lists(first, list), 0
		for _, print := range lists(other, list) {
			for _, own := range chosen {
				if print == own && print != 0 {
					same++
				}
			}
		}
		if same < keptPrints-1 {
			t.Errorf("list %d: %d prints in common: %v", list, same, chosen)
		}
	}
	// One in 256 is rarer than one in 16: the oldest of its list is further back.
	oldest := func(list int) uint32 {
		low := uint32(1 << 31)
		for _, print := range lists(first, list) {
			low = min(low, print.position())
		}
		return low
	}
	if !(oldest(3) < oldest(2) && oldest(2) < oldest(1)) {
		t.Errorf("the oldest are %d, %d and %d", oldest(3), oldest(2), oldest(1))
	}
	published.top.Store(knownTop | 5)
	published.clearPrints()
	for i := range published.list {
		if published.list[i].Load() != 0 {
			t.Fatalf("print %d is not cleared", i)
		}
	}
	if published.top.Load() != 0 || published.hasPrint(all(0)) {
		t.Error("the top is not cleared")
	}
}

// TestPayloadBeginsBehindASYN.
func TestPayloadBeginsBehindASYN(t *testing.T) {
	for flags, want := range map[uint8]uint32{0: 7, reassembly.ACK: 7, reassembly.SYN: 8, reassembly.SYN | reassembly.ACK: 8, reassembly.FIN: 7} {
		p := packet{Segment: reassembly.Segment{Seq: 7, Flags: flags}}
		if got := p.dataSeq(); got != want {
			t.Errorf("flags %#x: %d, want %d", flags, got, want)
		}
	}
}

// TestFirstSegmentsNameTheConnection: the number of the client's SYN, if it was seen.
func TestFirstSegmentsNameTheConnection(t *testing.T) {
	check := func(flags uint8, seq uint32, midStream, isSYN, isSYNACK bool) {
		t.Helper()
		p := packet{Segment: reassembly.Segment{Seq: 100, Ack: 500, Flags: flags}}
		if got, inside := p.startSeq(); got != seq || inside != midStream || p.isSYN() != isSYN || p.isSYNACK() != isSYNACK {
			t.Errorf("flags %#x: %d, in mid-stream %t, SYN %t, SYN-ACK %t", flags, got, inside, p.isSYN(), p.isSYNACK())
		}
	}
	check(reassembly.SYN, 100, false, true, false)
	check(reassembly.SYN|reassembly.ACK, 499, false, false, true)
	check(reassembly.ACK, 100, true, false, false)
	check(0, 100, true, false, false)
	check(reassembly.SYN|reassembly.FIN, 100, false, true, false)
}
