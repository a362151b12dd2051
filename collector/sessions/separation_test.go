package sessions

import (
	"sync/atomic"
	"testing"
)

// TestCopiesAreDecidedWhenTheOtherTableHasCome far enough, or when a decision cannot wait.
func TestCopiesAreDecidedWhenTheOtherTableHasCome(t *testing.T) {
	const since = int64(1e12)
	var progress atomic.Int64
	other := &activity{progress: &progress}
	other.owner.Store(7)
	check := func(what string, at, packetTime int64, why decision, want copyState) {
		t.Helper()
		table := New(Default(), Deps{}, nil)
		table.clock.packetTime = packetTime
		f := &flow{table: table, activity: &activity{}}
		f.key.proto = protoTCP
		f.dedup.payloadSince = since
		progress.Store(at)
		if got := f.compareCopies(reporter{owner: 7, activity: other}, why); got != want {
			t.Errorf("%s: %d, want %d", what, got, want)
		}
	}
	const asked = decision("")
	check("the other Table is behind", since-1, since, asked, copyUnknown)
	check("it has come so far", since, since, asked, copyUnknown)
	check("it is not late any more", since+copyDelay-1, since, asked, copyUnknown)
	check("it cannot be late", since+copyDelay, since, asked, copyStale)
	check("nobody waits longer", since-1, since+maxLag, asked, copyStale)
	check("it is waited for", since-1, since+maxLag-1, asked, copyUnknown)
	check("a limit", since-1, since, decidedByLimit, copyStale)
	check("the end, behind", since-1, since, decidedByEnd, copySame)
	check("the end", since, since, decidedByEnd, copyStale)

	f := &flow{table: New(Default(), Deps{}, nil)}
	if f.compareCopies(reporter{}, asked) != copySame {
		t.Error("a flow without payload has missed nothing")
	}
}

// TestFlowThatSeesOneEndIsReportedForIt, and one that differs is reported and counted.
func TestFlowThatSeesOneEndIsReportedForIt(t *testing.T) {
	f := &flow{table: New(Default(), Deps{}, nil)}
	other := reporter{owner: 7}
	f.separate(separation{other, copyHalf})
	if !f.dedup.halfOnly || f.dedup.apart || f.dedup.reporter != other || f.marks != 0 {
		t.Errorf("half: %+v, marks %d", f.dedup, f.marks)
	}
	f = &flow{table: f.table}
	f.separate(separation{other, copyDiffers})
	if f.dedup.halfOnly || !f.dedup.apart || f.dedup.reporter != other || f.marks&markCopies == 0 {
		t.Errorf("differs: %+v, marks %d", f.dedup, f.marks)
	}
}
