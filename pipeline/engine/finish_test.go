package engine

import (
	"strings"
	"testing"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/kafka"
)

// TestFinishedBlockGivesItsMemoryBack, and the next one begins behind it. A block of duplicates needs no store.
func TestFinishedBlockGivesItsMemoryBack(t *testing.T) {
	w, _ := newTestWorker(newFakeStore())
	if !w.memory.TryTake(100) {
		t.Fatal("no memory")
	}
	w.intentClosed, w.logEnd = true, 30
	b := &w.block
	*b = block{from: 5, end: 20, memory: 100, counts: blockCounts{messages: 3, events: 7, duplicates: 3, duplicateEvents: 7}}
	if err := w.processBlock(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if w.memory.held != 0 || w.nextOffset != 20 || w.intentClosed || w.nextOffsets[0] != 20 || b.counts != (blockCounts{}) {
		t.Errorf("%d bytes are held, next %d, closed %t, counts %+v", w.memory.held, w.nextOffset, w.intentClosed, b.counts)
	}
	if ledger := w.Ledger(); ledger != (Ledger{Messages: 3, Events: 7, Duplicates: 3, DuplicateEvents: 7}) || w.metrics.blocks.Load() != 1 {
		t.Errorf("%+v, %d blocks", ledger, w.metrics.blocks.Load())
	}
	if lag := w.metrics.lag.partitions[0].behind; lag != 10 {
		t.Errorf("%d messages behind", lag)
	}
}

// TestMatchesOfTheLastBlockAreWritten from its rows, in the parts in which a worker writes those of its events, so that a fold drops them if it has
// read them. A worker that starts again, while its log is another one, writes them once.
func TestMatchesOfTheLastBlockAreWritten(t *testing.T) {
	harness, store := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
	match := event(3)
	match.Ingested = testStart + int64(time.Minute)
	match.Verdicts = []*pipeline.Verdict{{Detector: "test", Rule: "r", Group: "g", Title: "t"}}
	inserter := store.NewInserter()
	inserter.Append(match, pipeline.Position{Offset: 7, Partition: 5}, "events")
	if err := inserter.Insert(t.Context(), "earlier"); err != nil {
		t.Fatal(err)
	}
	w, logged := newTestWorker(store)
	w.deps.Kafka, w.source.Partition = harness.client, 5
	written := &block{from: 7, end: 8, time: match.Ingested, messages: []message{{batch: &pipeline.Batch{Events: []*pipeline.Event{match}}}}}
	if err := w.writeSignals(t.Context(), written); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		start := startPoint{logDiffers: true, hasRows: true, stored: pipeline.NewestRows{LastTime: match.Ingested}, offset: 2}
		if err := w.completeLastBlock(t.Context(), &start); err != nil || start.offset != 2 || w.completedTime != match.Ingested {
			t.Errorf("%v, begins at %d, completed %d", err, start.offset, w.completedTime)
		}
	}
	blocks := readSignals(t, harness, 0)
	if len(blocks) != 2 || strings.Count(logged.String(), "writing the matches of stored rows, which may be missing") != 1 {
		t.Fatalf("%d messages: %s", len(blocks), logged)
	}
	state := &foldState{sources: map[int32]foldSource{}}
	for i, block := range blocks {
		if len(block.Matches) != 1 || block.Matches[0].Count != 1 || block.Matches[0].Verdict.Rule != "r" || block.Partition != 5 || block.Time != match.Ingested {
			t.Errorf("%+v", block)
		}
		if isNew := state.read(int64(i), match.Ingested, block); isNew != (i == 0) {
			t.Errorf("message %d is new: %t", i, isNew)
		}
	}
}

// TestDiscardStoreHoldsNothing, and misses nothing.
func TestDiscardStoreHoldsNothing(t *testing.T) {
	ctx, store := t.Context(), DiscardStore{}
	if store.AckedRowsMayBeLost() {
		t.Error("rows are missed")
	}
	rows, rowsErr := store.ExistingRows(ctx, pipeline.BlockID{})
	_, found, newestErr := store.NewestRows(ctx, pipeline.TopicPartition{}, 5)
	running, runningErr := store.RunningInserts(ctx, pipeline.TopicPartition{})
	stored, storedErr := store.StoredBlock(ctx, pipeline.TopicPartition{}, 5)
	batches, batchesErr := store.StoredBatches(ctx, pipeline.BatchFilter{})
	ranges, rangesErr := store.SequenceRanges(ctx, pipeline.BatchFilter{})
	newest, alertsErr := store.NewestAlerts(ctx, pipeline.AlertFilter{})
	verdictsErr := store.StoredVerdicts(ctx, pipeline.BlockID{}, func(*pipeline.Event, pipeline.Position) { t.Error("a verdict is stored") })
	if len(rows)+running+len(batches)+len(ranges)+len(newest) != 0 || found || stored != (pipeline.StoredBlock{}) {
		t.Error("something is stored")
	}
	for _, err := range []error{rowsErr, newestErr, runningErr, storedErr, batchesErr, rangesErr, alertsErr, verdictsErr, store.InsertAlerts(ctx, nil, "")} {
		if err != nil {
			t.Error(err)
		}
	}
	if capacity := store.NewInserter().Capacity(); capacity != 0 {
		t.Errorf("an inserter keeps %d bytes", capacity)
	}
}
