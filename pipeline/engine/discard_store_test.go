package engine

import (
	"testing"

	"tidegate/pipeline"
)

// TestDiscardedRowsAreCounted until the block is over.
func TestDiscardedRowsAreCounted(t *testing.T) {
	inserter := DiscardStore{}.NewInserter()
	for range 2 {
		inserter.Append(&pipeline.Event{}, pipeline.Position{}, "")
		inserter.Append(&pipeline.Event{}, pipeline.Position{}, "")
		if err := inserter.Insert(t.Context(), "token"); err != nil || inserter.Rows() != 2 {
			t.Errorf("%d rows, %v", inserter.Rows(), err)
		}
		if inserter.Reset(); inserter.Rows() != 0 {
			t.Errorf("%d rows behind the block", inserter.Rows())
		}
	}
}
