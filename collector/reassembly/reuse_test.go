package reassembly

import "testing"

// TestLongListsOfSegmentsAreNotKept by a Conn that is used again; short ones are, without their segments.
func TestLongListsOfSegmentsAreNotKept(t *testing.T) {
	for size, kept := range map[int]bool{0: true, 32: true, 33: false, 1000: false} {
		got := reusable(make([]waitingSegment, size))
		if len(got) != 0 || cap(got) != size && kept || cap(got) != 0 && !kept {
			t.Errorf("%d of %d places are kept, %d segments", cap(got), size, len(got))
		}
	}
}
