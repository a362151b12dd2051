package engine

import (
	"testing"

	"tidegate/pipeline"
	"tidegate/pipeline/consumer"
	"tidegate/pipeline/lineartest"
)

// FuzzDecode checks that decodeBatch returns either a batch or a reason, and that measureBatch agrees with it.
func FuzzDecode(f *testing.F) {
	producer := &harness{TB: f, epoch: 1, sequences: map[int]uint64{}}
	f.Add(encode(f, producer.batch(0, 3)))
	f.Add([]byte("\x52\x00\x52\x00"))
	w := &worker{Engine: &Engine{metrics: newEngineMetrics(nil)}, partition: &consumer.Partition{}}
	f.Fuzz(func(t *testing.T, data []byte) {
		lineartest.CheckRepeated(t, lineartest.Default, data, func(data []byte) {
			size, _ := measureBatch(data)
			record := consumer.Record{Value: data}
			measureRecord(&record)
			batch, reason, err := w.decodeBatch(record)
			if (err == nil) != (batch != nil) || (err == nil) != (reason == "") {
				t.Fatalf("batch %v, reason %q, %v", batch, reason, err)
			}
			if err == nil {
				if size.events != len(batch.Events) {
					t.Errorf("%d events counted, %d decoded", size.events, len(batch.Events))
				}
				pipeline.ReleaseBatch(batch)
			}
		})
	})
}
