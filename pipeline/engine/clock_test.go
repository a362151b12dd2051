package engine

import (
	"log/slog"
	"testing"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/alerts"
	"tidegate/pipeline/kafka"
)

// farFuture is a block time that leaves out no window.
var farFuture = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)

// aheadStore returns a store with an alert of each of two windows: one begins two seconds after testStart, one a
// year later.
func aheadStore(t *testing.T) *fakeStore {
	t.Helper()
	store := newFakeStore()
	var list []*pipeline.Alert
	for _, at := range []time.Duration{2 * time.Second, 365 * 24 * time.Hour} {
		grouper := alerts.NewGrouper(alerts.DefaultGrouper(), 0)
		event := event(3)
		event.Timestamp = testStart + int64(at)
		event.Verdicts = []*pipeline.Verdict{{Rule: "bad_line", Group: "g3", Detector: "test"}}
		grouper.AddVerdicts(event, 0, -1)
		revisions, _ := grouper.Flush()
		list = append(list, revisions...)
	}
	if err := store.InsertAlerts(t.Context(), list, "before"); err != nil {
		t.Fatal(err)
	}
	return store
}

// TestClockThatWasAheadSpoilsNoAlertAfterARestart: the store has an alert whose window begins a year ahead. An
// engine that starts continues the windows of now.
func TestClockThatWasAheadSpoilsNoAlertAfterARestart(t *testing.T) {
	harness, store := newHarness(t, 1, kafka.AssignStatic), aheadStore(t)
	batch := harness.batch(0, 5)
	harness.produce(0, encode(t, batch))
	_, stop := harness.start(store, testBundle, nil)
	waitUntil(t, "rows", func() bool { return store.count() == 5 })
	harness.waitClosed(1, 1)
	stop()
	counts := map[time.Duration]uint64{}
	for _, alert := range store.alerts {
		counts[time.Duration(alert.WindowStart.UnixNano()-testStart)] += alert.Count
	}
	if len(counts) != 2 || counts[2*time.Second] != 1+2 {
		t.Errorf("counts by start %v: the match of event 3 belongs to the window that is open", counts)
	}
}

// TestGrouperIsCorrectedWhenTheClockWasAhead: a running worker restores its windows without those ahead.
func TestGrouperIsCorrectedWhenTheClockWasAhead(t *testing.T) {
	lines := &lineLog{}
	log := slog.New(slog.NewTextHandler(lines, nil))
	engine := &Engine{cfg: Default(), metrics: newEngineMetrics(nil), log: log, deps: Deps{Store: aheadStore(t)}}
	w := foldOf(&worker{Engine: engine, log: log})
	if err := w.restoreGrouper(t.Context(), pipeline.BlockID{}, farFuture.UnixNano()); err != nil {
		t.Fatal(err)
	}
	block := &block{time: testStart + int64(time.Minute), from: 5}
	if err := w.correctGrouper(t.Context(), block); err != nil {
		t.Fatal(err)
	}
	if w.grouper.IsAheadOf(block.time) || w.grouper.OpenWindows() != 1 || engine.metrics.clockCorrections.Load() != 1 {
		t.Errorf("ahead %t, %d open, %d corrections",
			w.grouper.IsAheadOf(block.time), w.grouper.OpenWindows(), engine.metrics.clockCorrections.Load())
	}
	if err := w.correctGrouper(t.Context(), block); err != nil || engine.metrics.clockCorrections.Load() != 1 {
		t.Errorf("windows that are not ahead: %v", err)
	}
	checkLines(t, lines.take(), `WARN msg="alert windows lie ahead of the clock, which was ahead for some time; they are restored without these" allowed_lateness=1h0m0s`)
}
