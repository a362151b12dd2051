package engine

import (
	"testing"

	"tidegate/pipeline"
)

func TestBatchIDIsReadFromTheEncoding(t *testing.T) {
	harness := &harness{TB: t, epoch: 1 << 60, sequences: map[int]uint64{3: 1 << 40}}
	batch := harness.batch(3, 5)
	want := pipeline.BatchID{Collector: testCollector, Epoch: batch.Epoch, Sequence: batch.Sequence}
	data := encode(t, batch)
	if got := readBatchID(data); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	for _, other := range [][]byte{nil, []byte("garbage"), data[:len(data)-1]} {
		if got := readBatchID(other); got != (pipeline.BatchID{}) {
			t.Errorf("%q has the id %+v", other, got)
		}
	}
}
