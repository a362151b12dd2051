package engine

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/consumer"
	"tidegate/pipeline/kafka"
)

// ownedWorker returns a worker of partition 0 of a broker, which this process owns until the test ends.
func ownedWorker(t *testing.T, h *harness, store Store) (*worker, func() string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	owned, ended := make(chan *consumer.Partition, 1), make(chan struct{})
	cfg := consumer.Config{Client: h.client, Topic: h.client.Topic(pipeline.TopicEvents), Group: "tidegate-engine"}
	go func() {
		defer close(ended)
		_ = consumer.Run(ctx, cfg, discardLog, func(ctx context.Context, p *consumer.Partition) error {
			owned <- p
			<-ctx.Done()
			return nil
		})
	}()
	t.Cleanup(func() { cancel(); <-ended })
	w, logged := newTestWorker(store)
	w.deps.Kafka, w.cfg.Group = h.client, "tidegate-engine"
	w.partition = <-owned
	w.source.Topic = w.partition.Topic()
	return w, logged.String
}

// TestIntentIsConfirmedAfterASecond, and closed once.
func TestIntentIsConfirmedAfterASecond(t *testing.T) {
	harness := newHarness(t, 1, kafka.AssignStatic)
	w, _ := ownedWorker(t, harness, newFakeStore())
	now := time.Now().Round(0)
	w.deps.Now = func() time.Time { return now }
	check := func(what string, b *block, offset int64, intent string, confirmed time.Time) {
		t.Helper()
		if err := w.confirmOwnership(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		if gotOffset, gotIntent := harness.committed(0); gotOffset != offset || gotIntent != intent || !b.confirmed.Equal(confirmed) {
			t.Errorf("%s: committed %d %q, confirmed %v; want %d %q", what, gotOffset, gotIntent, b.confirmed, offset, intent)
		}
	}
	young := now.Add(1 - maxUnconfirmed)
	check("young", &block{from: 3, intent: "a", confirmed: young}, -1, "", young)
	check("no intent", &block{from: 3}, -1, "", time.Time{})
	check("old", &block{from: 3, intent: "b", confirmed: now.Add(-maxUnconfirmed)}, 3, "b", now)

	w.nextOffset = 8
	passed := 0
	w.deps.Failpoint = func(name string) {
		if name == BeforeClose {
			passed++
		}
	}
	for range 2 {
		if err := w.closeIntent(t.Context()); err != nil || !harness.isClosed(0, 8) || !w.intentClosed || passed != 1 {
			t.Errorf("%v, closed %t, %d commits", err, w.intentClosed, passed)
		}
	}
}

// TestStartIsFoundByOffsetsAndRows: at the committed offset, behind the rows where it is lost, and at the beginning of another log.
func TestStartIsFoundByOffsetsAndRows(t *testing.T) {
	harness, store := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
	const end = 6
	var ids []pipeline.BatchID
	for range end {
		batch := harness.batch(0, 1)
		harness.produce(0, encode(t, batch))
		id := pipeline.BatchID{Epoch: batch.Epoch, Sequence: batch.Sequence}
		copy(id.Collector[:], batch.Collector)
		ids = append(ids, id)
	}
	w, logged := ownedWorker(t, harness, store)
	check := func(what string, committed int64, rows []fakeRow, want startPoint, ambiguous bool) {
		t.Helper()
		store.rows, w.offsetsAmbiguous = rows, false
		before := strings.Count(logged(), "log is not the one that was read before")
		got, err := w.findStart(t.Context(), committed, intent{end: 9, time: 50}, want.hasIntent)
		if want.fromBeginning {
			want.hasIntent = false
		}
		if err != nil {
			t.Fatal(err)
		}
		want.first, want.open = 0, got.open
		want.stored, want.hasRows = got.stored, len(rows) > 0
		isLogged := strings.Count(logged(), "log is not the one that was read before") > before
		if got != want || w.offsetsAmbiguous != ambiguous || isLogged != want.fromBeginning {
			t.Errorf("%s: %+v, ambiguous %t, logged %t; want %+v, %t", what, got, w.offsetsAmbiguous, isLogged, want, ambiguous)
		}
	}
	row := func(offset int64, id pipeline.BatchID) []fakeRow {
		return []fakeRow{{Position: pipeline.Position{Offset: offset, BatchID: id}, ingested: 40}}
	}
	other := pipeline.BatchID{Epoch: 99, Sequence: 1}
	check("committed", 4, row(3, ids[3]), startPoint{offset: 4}, false)
	check("committed with an intent", 4, row(3, ids[3]), startPoint{offset: 4, hasIntent: true}, false)
	check("committed at the end", end, row(5, ids[5]), startPoint{offset: end}, false)
	check("no row", 4, nil, startPoint{offset: 4}, false)
	check("neither offset nor row", -1, nil, startPoint{offset: 0, uncommitted: true}, false)
	check("no offset", -1, row(3, ids[3]), startPoint{offset: 4, uncommitted: true}, false)
	check("behind the end", end+1, row(5, ids[5]), startPoint{offset: 0, fromBeginning: true, lostStart: end + 1, lostEnd: end + 1}, true)
	check("another log", 4, row(3, other), startPoint{offset: 0, fromBeginning: true, logDiffers: true, lostStart: 4, lostEnd: 4}, true)
	check("a block of another log", 4, row(3, other), startPoint{
		offset: 0, hasIntent: true, fromBeginning: true, logDiffers: true, lostStart: 4, lostEnd: 9,
	}, true)
	check("rows behind the end", 4, append(row(3, ids[3]), row(end, other)...), startPoint{offset: 4}, true)
	check("rows behind the end only", 4, row(end, other), startPoint{offset: 0, fromBeginning: true, logDiffers: true, lostStart: 4, lostEnd: 4}, true)

	// A log that is read from its beginning is committed as such, and its lost messages are counted once.
	w.logReplaced, w.intentClosed = true, false
	if err := w.beginReset(t.Context(), startPoint{offset: 2}); err != nil || !w.logReplaced || w.intentClosed {
		t.Errorf("%v: a start within the same log", err)
	}
	if differs, err := w.isOtherLog(t.Context(), startPoint{}); !differs || err != nil {
		t.Errorf("the fetcher has found another log: %t, %v", differs, err)
	}
	for _, lost := range []int64{0, 5} {
		w.logReplaced, w.intentClosed = true, false
		if err := w.beginReset(t.Context(), startPoint{offset: 2, fromBeginning: true, lostStart: 4, lostEnd: 4 + lost}); err != nil {
			t.Fatal(err)
		}
		if w.logReplaced || !w.intentClosed || !harness.isClosed(0, 2) || w.metrics.lost.Load() != uint64(lost) ||
			strings.Contains(logged(), "messages of an unfinished block were deleted") != (lost > 0) {
			t.Errorf("%d lost: replaced %t, closed %t, %d are counted", lost, w.logReplaced, w.intentClosed, w.metrics.lost.Load())
		}
	}
	w.logReplaced = false
	if differs, err := w.isOtherLog(t.Context(), startPoint{hasRows: true, first: 3, stored: pipeline.NewestRows{
		HasInLog: true, InLog: pipeline.LogRow{Offset: 2, BatchID: other},
	}}); differs || err != nil {
		t.Errorf("retention has deleted the message: %t, %v", differs, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, call := range map[string]func() error{
		"find":  func() error { _, err := w.findStart(ended, 4, intent{}, false); return err },
		"reset": func() error { return w.beginReset(ended, startPoint{fromBeginning: true}) },
		"compare": func() error {
			_, err := w.isOtherLog(ended, startPoint{hasRows: true, stored: pipeline.NewestRows{HasInLog: true}})
			return err
		},
		"close":   func() error { w.intentClosed = false; return w.closeIntent(ended) },
		"confirm": func() error { return w.confirmOwnership(ended, &block{intent: "a"}) },
		"resume":  func() error { _, _, err := w.resume(ended); return err },
		"rows behind": func() error {
			w.offsetsAmbiguous = false
			return w.restoreState(ended, startPoint{hasRows: true, stored: pipeline.NewestRows{Highest: 3}})
		},
		"withdraw": func() error { return w.withdrawBlock(ended, &block{}, errPermanent) },
		"store":    func() error { return w.storeBlock(ended, &block{bundle: testBundle}) },
	} {
		if err := call(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestBatchesBehindTheStartCountEach: rows behind the start are compared batch by batch, whatever their age if the messages may
// be older than the lookback.
func TestBatchesBehindTheStartCountEach(t *testing.T) {
	harness := newHarness(t, 1, kafka.AssignStatic)
	now := time.Now()
	harness.produceAt = now.Add(-2 * time.Hour)
	harness.send(0, 3, 1)
	harness.produceAt = now
	harness.send(0, 3, 1)
	store := &filterStore{fakeStore: newFakeStore()}
	w, _ := ownedWorker(t, harness, store)
	w.deps.Now = func() time.Time { return now }
	w.cfg.DedupLookback = time.Hour
	check := func(offset, highest int64, want *pipeline.BatchFilter) {
		t.Helper()
		store.batches, store.ranges = nil, nil
		if err := w.restoreState(t.Context(), startPoint{offset: offset, hasRows: true, stored: pipeline.NewestRows{Highest: highest}}); err != nil {
			t.Fatal(err)
		}
		before := pipeline.BatchFilter{TopicPartition: w.source, Before: offset, Since: now.Add(-time.Hour)}
		if len(store.batches) != 1 || store.batches[0] != before {
			t.Errorf("start %d: %+v, want %+v", offset, store.batches, before)
		}
		if (len(store.ranges) == 1) != (want != nil) || want != nil && store.ranges[0] != *want {
			t.Errorf("start %d: %+v, want %+v", offset, store.ranges, want)
		}
	}
	filter := func(from int64, since time.Time) *pipeline.BatchFilter {
		return &pipeline.BatchFilter{TopicPartition: w.source, From: from, Before: 1<<63 - 1, Since: since}
	}
	check(2, 1, nil)
	check(2, 2, filter(2, time.Time{}))
	check(3, 5, filter(3, now.Add(-time.Hour)))
	check(4, 5, filter(4, now.Add(-time.Hour)))
}
