package ship

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"tidegate/collector"
	"tidegate/pipeline"
)

// TestWaitEndsWhenThereIsMemory: a file waits before its next event is made while Kafka is away, not for a line that was
// read again, and goes on when Kafka is back.
func TestWaitEndsWhenThereIsMemory(t *testing.T) {
	harness := newHarness(t)
	harness.startBroker()
	harness.cfg.BufferBytes = 4 * harness.cfg.BatchBytes
	shipper := harness.startShipper(failpoints{})
	file := testFiles(1, 20_000)[0]
	harness.stopBroker()
	producer := shipper.File(file.name)
	full, cancel := context.WithCancel(t.Context())
	var shipped int64
	for i := 0; ; i++ {
		at := int64(i+1) * int64(file.size)
		soon, stop := context.WithTimeout(full, time.Second)
		err := producer.Wait(soon, file.container, collector.Checkpoint{End: at, ReadFrom: at})
		stop()
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := producer.Ship(full, file.event(i), collector.Checkpoint{End: at, ReadFrom: at}); err != nil {
			t.Fatal(err)
		}
		shipped = at
	}
	budget := producer.(*fileProducer).partition.files.budget
	if used := budget.used.Load(); used < budget.limit() {
		t.Errorf("it waits at %d of %d bytes", used, budget.limit())
	}
	if err := producer.Wait(full, file.container, collector.Checkpoint{End: shipped, ReadFrom: shipped}); err != nil {
		t.Errorf("a line that was read again waits: %v", err)
	}
	cancel()
	next := collector.Checkpoint{End: shipped + 1}
	if err := producer.Wait(full, file.container, next); !errors.Is(err, context.Canceled) {
		t.Errorf("the end of the context ends the wait with %v", err)
	}
	harness.startBroker()
	if err := producer.Wait(t.Context(), file.container, next); err != nil {
		t.Errorf("with Kafka the wait ends with %v", err)
	}
	producer.Close(true)
	harness.closeShipper(shipper)
}

// TestFullBatchHasNoFreeHalf: the buffer of a batch doubles up to half of a batch, and then grows to the size of a batch
// and the room for its header, which needs no further one.
func TestFullBatchHasNoFreeHalf(t *testing.T) {
	limit := int(Default().BatchBytes)
	open := &batch{containers: map[*pipeline.Container]uint32{}}
	var sizes []int
	for i := 0; open.addEvent(dnsEvent(i, nil), limit) == nil; i++ {
		if free := cap(open.buf) - len(open.buf); free > len(open.buf)+16<<10 {
			t.Fatalf("%d bytes are free beside %d", free, len(open.buf))
		}
		if len(sizes) == 0 || cap(open.buf) != sizes[len(sizes)-1] {
			sizes = append(sizes, cap(open.buf))
		}
	}
	if want := []int{4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, limit + headerRoom}; !slices.Equal(sizes, want) {
		t.Errorf("the buffers had %d bytes", sizes)
	}
	open.appendHeader(&pipeline.Batch{Host: &pipeline.Host{Id: "host", Name: "a name"}})
	if len(open.buf) < limit-1000 || cap(open.buf) > limit+headerRoom {
		t.Errorf("a full batch has %d of %d bytes, and a buffer of %d", len(open.buf), limit, cap(open.buf))
	}
}

// TestBuffersOfBatchesAreCharged: what a batch takes from the memory of the shipper is its buffer, not only the part of it
// that is filled, and a batch with few events has a small buffer, also behind one that was full.
func TestBuffersOfBatchesAreCharged(t *testing.T) {
	h := newHarness(t)
	h.cfg.BatchEvents, h.cfg.Linger, h.cfg.SpoolAfter = 1000, time.Minute, time.Minute
	shipper := h.startShipper(failpoints{})
	partition := shipper.everyPartition()[0]
	b := &partition.packets
	for round := range 3 {
		for i := 0; i < 100 || b.open == nil || b.open.eventCount > 1; i++ {
			if !b.addPacketEvent(dnsEvent(i, nil)) {
				t.Fatal("an event is dropped")
			}
		}
		if small := cap(b.open.buf); small > smallestBuffer {
			t.Errorf("round %d: a batch of one event has a buffer of %d bytes", round, small)
		}
		buffers := cap(b.open.buf)
		for _, pending := range b.sender.pending {
			if pending.batch != nil {
				buffers += cap(pending.batch.buf)
			}
		}
		if used := b.budget.used.Load(); used != int64(buffers) {
			t.Errorf("round %d: %d bytes are charged for buffers of %d", round, used, buffers)
		}
	}
}
