package traffic

import (
	"bytes"
	"io"
	"testing"
)

// TestSameSeedSameConversations: what a capture holds is a matter of the seed alone.
func TestSameSeedSameConversations(t *testing.T) {
	truth := func(seed uint64) Truth {
		t.Helper()
		tr, err := Write(io.Discard, Config{Bytes: 1 << 20, Seed: seed, Reorder: 0.01, Duplicate: 0.01, Lose: 0.01})
		if err != nil {
			t.Fatal(err)
		}
		if tr.Lost == 0 || tr.Reordered == 0 || tr.Duplicated == 0 {
			t.Errorf("nothing went wrong on the way: %+v", tr)
		}
		return tr
	}
	a, b, c := truth(1), truth(1), truth(2)
	if a.Connections != b.Connections || a.Events["http"] != b.Events["http"] || a.Events["redis"] != b.Events["redis"] {
		t.Errorf("%+v, then %+v", a, b)
	}
	if a.Connections == c.Connections && a.Events["redis"] == c.Events["redis"] && a.Events["http"] == c.Events["http"] {
		t.Errorf("seeds 1 and 2 are the same: %+v", c)
	}
}

// TestPacketsAreInOrderOfTime and the file is as long as its records say.
func TestPacketsAreInOrderOfTime(t *testing.T) {
	var out bytes.Buffer
	truth, err := Write(&out, Config{Bytes: 1 << 20, Seed: 3})
	if err != nil {
		t.Fatal(err)
	}
	b, last, n := out.Bytes()[24:], uint64(0), 0
	u32 := func(i int) uint64 {
		return uint64(b[i]) | uint64(b[i+1])<<8 | uint64(b[i+2])<<16 | uint64(b[i+3])<<24
	}
	for len(b) > 0 {
		at := u32(0)*1e9 + u32(4)
		if at < last {
			t.Fatalf("packet %d is %d ns before the one before it", n, last-at)
		}
		last = at
		b = b[16+u32(8):]
		n++
	}
	if n != truth.Packets || out.Len() != truth.Bytes+24 {
		t.Errorf("%d packets, %d bytes, truth %+v", n, out.Len(), truth)
	}
}
