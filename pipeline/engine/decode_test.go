package engine

import (
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"tidegate/pipeline"
	"tidegate/pipeline/consumer"
)

// TestCountEventsFollowsTheSchema: countEvents reads the encoding without the generated code, so its field
// number is compared with event.proto here.
func TestCountEventsFollowsTheSchema(t *testing.T) {
	field := (&pipeline.Batch{}).ProtoReflect().Descriptor().Fields().ByName("events")
	if field == nil || field.Number() != batchEventsField || !field.IsList() || field.Kind() != protoreflect.MessageKind {
		t.Errorf("Batch.events is %v in event.proto, field %d here", field, batchEventsField)
	}
	// Events of no bytes, of less than 128 bytes, of 128 to 16,383 (the fast path) and of more.
	batch := &pipeline.Batch{
		Schema: 1, Collector: testCollector[:], Epoch: 1 << 60, Sequence: 3, Shipped: 1, Host: &pipeline.Host{Name: "h"},
	}
	for i, size := range []int{0, 0, 1, 100, 126, 127, 128, 129, 5000, 16_375, 16_383, 16_384, 100_000} {
		batch.Events = append(batch.Events, &pipeline.Event{Id: make([]byte, size)})
		if n, err := countEvents(encode(t, batch)); n != i+1 || err != nil {
			t.Errorf("%d events counted, %v; there are %d", n, err, i+1)
		}
	}
}

// FuzzDecode checks that decodeBatch returns either a batch or a reason, and that countEvents agrees with it.
func FuzzDecode(f *testing.F) {
	producer := &harness{TB: f, epoch: 1, sequences: map[int]uint64{}}
	f.Add(encode(f, producer.batch(0, 3)))
	f.Add([]byte("\x52\x00\x52\x00"))
	w := &worker{Engine: &Engine{metrics: newEngineMetrics(nil)}, partition: &consumer.Partition{}}
	f.Fuzz(func(t *testing.T, data []byte) {
		counted, countErr := countEvents(data)
		batch, reason, err := w.decodeBatch(data, counted, countErr)
		if (err == nil) != (batch != nil) || (err == nil) != (reason == "") {
			t.Fatalf("batch %v, reason %q, %v", batch, reason, err)
		}
		if err == nil {
			if counted != len(batch.Events) {
				t.Errorf("%d events counted, %d decoded", counted, len(batch.Events))
			}
			pipeline.ReleaseBatch(batch)
		}
	})
}
