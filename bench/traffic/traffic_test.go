package traffic

import (
	"bytes"
	"encoding/binary"
	"io"
	"testing"
)

// TestSameSeedYieldsSameConversations also checks that two seeds yield different ones.
func TestSameSeedYieldsSameConversations(t *testing.T) {
	generate := func(seed uint64) Truth {
		t.Helper()
		truth, err := Write(io.Discard, Config{Bytes: 1 << 20, Seed: seed, Reorder: 0.01, Duplicate: 0.01, Lose: 0.01})
		if err != nil {
			t.Fatal(err)
		}
		if truth.Lost == 0 || truth.Reordered == 0 || truth.Duplicated == 0 {
			t.Errorf("no segment was lost, reordered or duplicated: %+v", truth)
		}
		return truth
	}
	same := func(a, b Truth) bool {
		return a.Connections == b.Connections && a.Events["http"] == b.Events["http"] && a.Events["redis"] == b.Events["redis"]
	}
	first, again, other := generate(1), generate(1), generate(2)
	if !same(first, again) {
		t.Errorf("%+v, then %+v", first, again)
	}
	if same(first, other) {
		t.Errorf("seeds 1 and 2 are the same: %+v", other)
	}
}

// TestPacketsAreInOrderOfTime also checks that the records of the file have the stated lengths.
func TestPacketsAreInOrderOfTime(t *testing.T) {
	var out bytes.Buffer
	truth, err := Write(&out, Config{Bytes: 1 << 20, Seed: 3})
	if err != nil {
		t.Fatal(err)
	}
	records, last, packets := out.Bytes()[24:], uint64(0), 0
	field := func(offset int) uint64 { return uint64(binary.LittleEndian.Uint32(records[offset:])) }
	for len(records) > 0 {
		at := field(0)*1e9 + field(4)
		if at < last {
			t.Fatalf("packet %d is %d ns before the one before it", packets, last-at)
		}
		last = at
		records = records[16+field(8):]
		packets++
	}
	if packets != truth.Packets || out.Len() != truth.Bytes+24 {
		t.Errorf("%d packets, %d bytes, truth %+v", packets, out.Len(), truth)
	}
}
