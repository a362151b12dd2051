package engine

import (
	"testing"

	"tidegate/pipeline"
)

func TestDedupFilterKnowsBatchesThatCame(t *testing.T) {
	f := newDedupFilter(10)
	accept := func(sequence uint64, want bool) {
		t.Helper()
		if got := f.accept(pipeline.BatchID{Epoch: 1, Sequence: sequence}, int64(sequence)); got != want {
			t.Errorf("sequence %d: new %v, want %v", sequence, got, want)
		}
	}
	accept(5, true)
	accept(5, false)
	accept(3, true) // overtaken on the way
	accept(3, false)
	accept(4, true)
	accept(68, true)
	accept(5, false)
	accept(4, false) // 64 below the highest: counts as seen
	accept(6, true)  // 62 below the highest: not seen
	accept(1000, true)
	accept(68, false)
	for i := range 50 {
		f.accept(pipeline.BatchID{Epoch: uint64(100 + i), Sequence: 1}, int64(2000+i))
	}
	if len(f.producers) > 10 {
		t.Errorf("%d producers are kept", len(f.producers))
	}
	if f.accept(pipeline.BatchID{Epoch: 149, Sequence: 1}, 3000) {
		t.Error("the newest producer was evicted")
	}
}
