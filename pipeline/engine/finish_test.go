package engine

import (
	"encoding/json"
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

// TestAlertsOfTheLastBlockAreRaisedOnce: from its rows if they are missing, and published in any case.
func TestAlertsOfTheLastBlockAreRaisedOnce(t *testing.T) {
	harness, store := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
	match := event(3)
	match.Ingested = testStart + int64(time.Minute)
	match.Verdicts = []*pipeline.Verdict{{Detector: "test", Rule: "r", Group: "g", Title: "t"}}
	inserter := store.NewInserter()
	inserter.Append(match, pipeline.Position{Offset: 7}, "events")
	if err := inserter.Insert(t.Context(), "earlier"); err != nil {
		t.Fatal(err)
	}
	inserts := 0
	store.insertAlerts = func(string) (bool, error) { inserts++; return true, nil }
	countPublished := func(w *worker) (published int) {
		t.Helper()
		for partition := range int(w.alertPartitions.Load()) {
			for _, message := range harness.read(pipeline.TopicAlerts, partition) {
				var alert pipeline.Alert
				if err := json.Unmarshal(message.Value, &alert); err != nil || alert.Rule != "r" || alert.Offset != 7 || alert.Count != 1 {
					t.Errorf("published %s, %v", message.Value, err)
				}
				published++
			}
		}
		return published
	}
	for attempt := 1; attempt <= 2; attempt++ {
		w, logged := newTestWorker(store)
		w.deps.Kafka = harness.client
		var err error
		if err = w.findAlertsTopic(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := w.completeAlerts(t.Context(), &block{from: 7, end: 8, time: match.Ingested, replayed: true}); err != nil {
			t.Fatal(err)
		}
		raised := strings.Contains(logged.String(), "raising alerts of rows whose alerts are missing")
		if inserts != 1 || len(store.alerts) != 1 || raised != (attempt == 1) {
			t.Errorf("attempt %d: %d inserts, %d alerts: %s", attempt, inserts, len(store.alerts), logged)
		}
		if published := countPublished(w); published != attempt {
			t.Errorf("attempt %d: %d messages are published", attempt, published)
		}
		if attempt == 1 {
			continue
		}

		// A worker that starts again, while its log is another one, completes the block once.
		for _, want := range []int{3, 3} {
			start := startPoint{logDiffers: true, hasRows: true, stored: pipeline.NewestRows{LastTime: match.Ingested}, offset: 2}
			if err := w.completeLastBlock(t.Context(), &start); err != nil || start.offset != 2 || w.completedTime != match.Ingested {
				t.Errorf("%v, begins at %d, completed %d", err, start.offset, w.completedTime)
			}
			if published := countPublished(w); published != want {
				t.Errorf("%d messages are published, want %d", published, want)
			}
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
	alerts, blockErr := store.AlertsOfBlock(ctx, pipeline.BlockID{})
	verdictsErr := store.StoredVerdicts(ctx, pipeline.BlockID{}, func(*pipeline.Event, pipeline.Position) { t.Error("a verdict is stored") })
	if len(rows)+running+len(batches)+len(ranges)+len(newest)+len(alerts) != 0 || found || stored != (pipeline.StoredBlock{}) {
		t.Error("something is stored")
	}
	for _, err := range []error{rowsErr, newestErr, runningErr, storedErr, batchesErr, rangesErr, alertsErr, blockErr, verdictsErr, store.InsertAlerts(ctx, nil, "")} {
		if err != nil {
			t.Error(err)
		}
	}
	if capacity := store.NewInserter().Capacity(); capacity != 0 {
		t.Errorf("an inserter keeps %d bytes", capacity)
	}
}
