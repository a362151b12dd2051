package engine

import (
	"testing"

	"tidegate/pipeline"
)

func TestDedupFilterRejectsAcceptedSequences(t *testing.T) {
	filter := newDedupFilter(10)
	accept := func(sequence uint64, want bool) {
		t.Helper()
		if got := filter.accept(pipeline.BatchID{Epoch: 1, Sequence: sequence}, int64(sequence)); got != want {
			t.Errorf("sequence %d: new %v, want %v", sequence, got, want)
		}
	}
	accept(5, true)
	accept(5, false)
	accept(3, true) // arrives after 5
	accept(3, false)
	accept(4, true)
	accept(68, true)
	accept(5, false)
	accept(4, false) // 64 below the highest: counts as seen
	accept(6, true)  // 62 below the highest: not seen
	accept(1000, true)
	accept(68, false)

	// The filter holds ten producers and evicts the oldest ones.
	for i := range 50 {
		filter.accept(pipeline.BatchID{Epoch: uint64(100 + i), Sequence: 1}, int64(2000+i))
	}
	if len(filter.producers) > 10 {
		t.Errorf("%d producers are kept", len(filter.producers))
	}
	if filter.accept(pipeline.BatchID{Epoch: 149, Sequence: 1}, 3000) {
		t.Error("the newest producer was evicted")
	}
}
