package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"tidegate/pipeline"
	"tidegate/pipeline/alerts"
	"tidegate/pipeline/consumer"
	"tidegate/pipeline/correlate"
	"tidegate/pipeline/kafka"
)

// newTestWorker returns a worker of partition 0 without Kafka, and its log.
func newTestWorker(store Store) (*worker, *bytes.Buffer) {
	var logged bytes.Buffer
	log := slog.New(slog.NewTextHandler(&logged, nil))
	cfg := Default()
	cfg.Shard = "s1"
	engine := &Engine{
		cfg: cfg, log: log, metrics: newEngineMetrics(nil), memory: newMemoryBudget(1<<30, nil), nextOffsets: map[int]int64{},
		deps: Deps{Store: store, Now: time.Now, Failpoint: func(string) {}},
	}
	engine.alertPartitions.Store(1)
	w := newWorker(engine, &consumer.Partition{})
	w.source.Topic = "events"
	w.memory = engine.memory.open()
	w.rows = store.NewInserter()
	return w, &logged
}

// recordOf returns a measured record of a batch.
func recordOf(t *testing.T, offset int64, batch *pipeline.Batch) consumer.Record {
	t.Helper()
	record := consumer.Record{Offset: offset, Time: testStart + offset, Value: encode(t, batch)}
	measureRecord(&record)
	return record
}

// TestBlocksAndStagesHaveTheirBuckets: four times as many rows, twice as many seconds, from one row and one millisecond on.
func TestBlocksAndStagesHaveTheirBuckets(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	counts := newEngineMetrics(reg)
	counts.blockRows.Observe(3)
	counts.observeStage("insert", time.Now().Add(-3*time.Second))
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	bounds := func(histogram *dto.Histogram) (list []float64) {
		for _, bucket := range histogram.GetBucket() {
			list = append(list, bucket.GetUpperBound())
		}
		return list
	}
	stages := map[string]uint64{}
	for _, family := range families {
		switch family.GetName() {
		case "tidegate_engine_block_rows":
			histogram := family.GetMetric()[0].GetHistogram()
			if got := fmt.Sprint(bounds(histogram)); got != "[1 4 16 64 256 1024 4096 16384 65536 262144]" || histogram.GetSampleSum() != 3 {
				t.Errorf("rows: %s, sum %v", got, histogram.GetSampleSum())
			}
		case "tidegate_engine_block_seconds":
			for _, metric := range family.GetMetric() {
				histogram := metric.GetHistogram()
				stages[metric.GetLabel()[0].GetValue()] = histogram.GetSampleCount()
				list := bounds(histogram)
				if len(list) != 16 || list[0] != 0.001 || math.Abs(list[15]-32.768) > 1e-9 {
					t.Errorf("seconds: %v", list)
				}
				if histogram.GetSampleCount() > 0 && (histogram.GetSampleSum() < 3 || histogram.GetSampleSum() > 60) {
					t.Errorf("an insert of three seconds took %v", histogram.GetSampleSum())
				}
			}
		}
	}
	if fmt.Sprint(stages) != "map[alerts:0 evaluate:0 gather:0 insert:1 signals:0]" {
		t.Errorf("stages %v", stages)
	}
}

// TestLedgerHoldsEachCount under its own name.
func TestLedgerHoldsEachCount(t *testing.T) {
	engine := &Engine{metrics: newEngineMetrics(nil)}
	engine.metrics.addBlock(blockCounts{messages: 1, events: 20, duplicates: 3, duplicateEvents: 4, rows: 5, alreadyStored: 6, rejected: 7})
	engine.metrics.addUnfinished(blockCounts{messages: 100, events: 8, rows: 100})
	for i, counter := range []interface{ Add(uint64) uint64 }{
		&engine.metrics.deadLettered, &engine.metrics.lost, &engine.metrics.verdicts, &engine.metrics.alerts, &engine.metrics.revisions,
	} {
		counter.Add(uint64(10 + i))
	}
	want := Ledger{
		Messages: 1, Events: 28, Duplicates: 3, DuplicateEvents: 4, Rows: 5, AlreadyStored: 6, Rejected: 7, Unfinished: 8,
		DeadLettered: 10, Lost: 11, Verdicts: 12, Alerts: 13, Revisions: 14,
	}
	if got := engine.Ledger(); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// TestLagIsThatOfTheOwnPartitions: messages behind the last finished block, summed over the partitions of this process.
func TestLagIsThatOfTheOwnPartitions(t *testing.T) {
	harness := newHarness(t, 2, kafka.AssignStatic)
	harness.send(0, 3, 1)
	harness.send(1, 2, 1)
	engine, err := New(Default(), Deps{Kafka: harness.client, Store: newFakeStore()}, discardLog, nil)
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, want int64) {
		t.Helper()
		if lag, err := engine.Lag(t.Context()); lag != want || err != nil {
			t.Errorf("%s: %d, %v, want %d", what, lag, err, want)
		}
	}
	check("no partition", 0)
	engine.setNextOffset(0, 1)
	check("one partition", 2)
	engine.setNextOffset(1, 0)
	check("two partitions", 4)
	engine.setNextOffset(0, 9)
	check("an offset behind the end", 2)
	newWorker(engine, &consumer.Partition{ID: 1}).releasePartition()
	check("a partition that was revoked", 0)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if lag, err := engine.Lag(ended); err == nil || lag != 0 {
		t.Errorf("without an answer: %d, %v", lag, err)
	}
}

// TestRevokedPartitionHasNoMetrics but its lag.
func TestRevokedPartitionHasNoMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	w, _ := newTestWorker(newFakeStore())
	w.Engine.metrics = newEngineMetrics(reg)
	w.logEnd, w.nextOffset, w.block.newestTime = 7, 5, testStart
	w.setNextOffset(0, 5)
	w.updateLagMetrics()
	if got := gatherValues(t, reg)["tidegate_engine_lag_messages"]; got != 2 {
		t.Errorf("%v messages behind, want 2", got)
	}
	w.releasePartition()
	if len(w.nextOffsets) != 0 {
		t.Errorf("%d offsets", len(w.nextOffsets))
	}

	f := foldOf(w)
	f.fold = correlate.New(nil, correlate.DefaultLimits)
	series := func() (count int) {
		for name := range gatherValues(t, reg) {
			for _, of := range []string{"tidegate_engine_open_windows", "tidegate_correlation_groups", "tidegate_correlation_values"} {
				if strings.HasPrefix(name, of) {
					count++
				}
			}
		}
		return count
	}
	if f.exportMetrics(); series() != 3 {
		t.Errorf("%d series, want those of windows, groups and values", series())
	}
	if f.removeMetrics(); series() != 0 {
		t.Errorf("%d series of a fold without its partition", series())
	}
}

// TestReasonOfADeadLetterIsThatOfTheMessage.
func TestReasonOfADeadLetterIsThatOfTheMessage(t *testing.T) {
	w, _ := newTestWorker(newFakeStore())
	producer := &harness{TB: t, epoch: 1, sequences: map[int]uint64{}}
	check := func(reason string, change func(record *consumer.Record, batch *pipeline.Batch)) {
		t.Helper()
		batch := producer.batch(0, 2)
		record := consumer.Record{}
		change(&record, batch)
		if record.Value == nil {
			record.Value = encode(t, batch)
		}
		measureRecord(&record)
		if size, ok := record.Key, record.Key != nil; ok && string(size) == "large" {
			measurementOf(record).bytes = maxBatchBytes + 1 - measurementOf(record).shared
		} else if ok && string(size) == "exact" {
			measurementOf(record).bytes = maxBatchBytes - measurementOf(record).shared
		} else if ok && string(size) == "many" {
			measurementOf(record).events = maxEventsPerBatch + 1
		} else if ok && string(size) == "most" {
			measurementOf(record).events = maxEventsPerBatch
		}
		decoded, got, err := w.decodeBatch(record)
		if got != reason || (decoded == nil) != (reason != "") || (err != nil) != (reason != "") {
			t.Errorf("%q, %v, want %q", got, err, reason)
		}
	}
	check("", func(*consumer.Record, *pipeline.Batch) {})
	check("unreadable", func(r *consumer.Record, _ *pipeline.Batch) { r.Err = errors.New("damaged") })
	check("decode", func(r *consumer.Record, _ *pipeline.Batch) { r.Value = []byte("garbage") })
	const eventsAsNumber = 10 << 3 // a field that is measured as unknown, and that the decoder refuses
	check("decode", func(r *consumer.Record, _ *pipeline.Batch) { r.Value = []byte{eventsAsNumber, 1} })
	check("too_large", func(r *consumer.Record, _ *pipeline.Batch) { r.Key = []byte("large") })
	check("", func(r *consumer.Record, _ *pipeline.Batch) { r.Key = []byte("exact") })
	check("too_many_events", func(r *consumer.Record, _ *pipeline.Batch) { r.Key = []byte("many") })
	check("", func(r *consumer.Record, _ *pipeline.Batch) { r.Key = []byte("most") })
	check("schema", func(_ *consumer.Record, b *pipeline.Batch) { b.Schema = 0 })
	check("batch_id", func(_ *consumer.Record, b *pipeline.Batch) { b.Collector = b.Collector[:15] })
	check("batch_id", func(_ *consumer.Record, b *pipeline.Batch) { b.Sequence = 0 })
	check("partition", func(_ *consumer.Record, b *pipeline.Batch) { b.Partition = 1 })
	check("event_id", func(_ *consumer.Record, b *pipeline.Batch) { b.Events[1].Id = b.Events[1].Id[:15] })
	if newer := w.metrics.newerSchema.Load(); newer != 0 {
		t.Errorf("%d messages of a newer schema", newer)
	}
	check("", func(_ *consumer.Record, b *pipeline.Batch) { b.Schema = pipeline.Schema + 1 })
	check("", func(_ *consumer.Record, b *pipeline.Batch) { b.Schema = pipeline.Schema })
	if newer := w.metrics.newerSchema.Load(); newer != 1 {
		t.Errorf("%d messages of a newer schema, want 1", newer)
	}

	// A record that was not measured is a mistake of the program, which costs one message.
	if _, reason, err := w.decodeBatch(consumer.Record{Value: []byte("x")}); reason != "decode" || err == nil || !strings.Contains(err.Error(), "panicked") {
		t.Errorf("%s, %v", reason, err)
	}
}

// TestTimesOfAMessage: it was shipped when its batch says so, else when Kafka got it; the oldest time is that of any event.
func TestTimesOfAMessage(t *testing.T) {
	check := func(shipped, produced, wantShipped, wantOldest int64, events ...int64) {
		t.Helper()
		msg := message{record: consumer.Record{Time: produced}, batch: &pipeline.Batch{Shipped: shipped}}
		for _, at := range events {
			msg.batch.Events = append(msg.batch.Events, &pipeline.Event{Timestamp: at})
		}
		if gotShipped, gotOldest := msg.shippedTime(), msg.oldestTime(); gotShipped != wantShipped || gotOldest != wantOldest {
			t.Errorf("shipped %d, oldest %d, want %d, %d", gotShipped, gotOldest, wantShipped, wantOldest)
		}
	}
	check(0, 50, 50, 50)
	check(40, 50, 40, 40)
	check(60, 50, 60, 50)
	check(1, 50, 1, 1)
	check(40, 50, 40, 30, 70, 30, 0)
	check(40, 50, 40, 1, 1)
}

// A filterStore records the filters of queries, and fails if its error is set.
type filterStore struct {
	*fakeStore
	err     error
	batches []pipeline.BatchFilter
	ranges  []pipeline.BatchFilter
	running []int // inserts that run, call by call
}

func (s *filterStore) StoredBatches(ctx context.Context, filter pipeline.BatchFilter) ([]pipeline.StoredBatches, error) {
	s.batches = append(s.batches, filter)
	list, _ := s.fakeStore.StoredBatches(ctx, filter)
	return list, s.err
}

func (s *filterStore) SequenceRanges(ctx context.Context, filter pipeline.BatchFilter) ([]pipeline.SequenceRange, error) {
	s.ranges = append(s.ranges, filter)
	list, _ := s.fakeStore.SequenceRanges(ctx, filter)
	return list, s.err
}

func (s *filterStore) ExistingRows(ctx context.Context, block pipeline.BlockID) (map[pipeline.RowID]struct{}, error) {
	rows, _ := s.fakeStore.ExistingRows(ctx, block)
	return rows, s.err
}

func (s *filterStore) NewestAlerts(ctx context.Context, filter pipeline.AlertFilter) ([]*pipeline.Alert, error) {
	list, _ := s.fakeStore.NewestAlerts(ctx, filter)
	return list, s.err
}

func (s *filterStore) StoredBlock(ctx context.Context, from pipeline.TopicPartition, at int64) (pipeline.StoredBlock, error) {
	stored, _ := s.fakeStore.StoredBlock(ctx, from, at)
	return stored, s.err
}

func (s *filterStore) RunningInserts(context.Context, pipeline.TopicPartition) (int, error) {
	if len(s.running) == 0 {
		return 0, s.err
	}
	running := s.running[0]
	s.running = s.running[1:]
	return running, s.err
}

// TestBatchesOfAnOldProducerAreLoaded once, before its first old message is compared with them.
func TestBatchesOfAnOldProducerAreLoaded(t *testing.T) {
	store := &filterStore{fakeStore: newFakeStore()}
	w, _ := newTestWorker(store)
	w.dedupSince = time.Unix(0, testStart)
	limit := w.dedupSince.Add(w.cfg.DedupLookback / 2).UnixNano()
	producer := &harness{TB: t, epoch: 1, sequences: map[int]uint64{}}
	stored := producer.batch(0, 1)
	id := pipeline.BatchID{Epoch: stored.Epoch, Sequence: stored.Sequence}
	copy(id.Collector[:], stored.Collector)
	store.rows = []fakeRow{{Position: pipeline.Position{Offset: 3, BatchID: id}, ingested: 1}}
	load := func(at int64) {
		t.Helper()
		msg := message{record: consumer.Record{Time: at}, batch: &pipeline.Batch{}, id: id}
		if err := w.loadProducer(t.Context(), &block{from: 10}, &msg); err != nil {
			t.Fatal(err)
		}
	}
	load(limit)
	if len(store.batches) != 0 {
		t.Error("batches were loaded for a new message")
	}
	w.openBlock.Time = 77
	load(limit - 1)
	want := pipeline.BatchFilter{TopicPartition: w.source, Before: 10, Except: 77}
	if len(store.batches) != 1 || len(store.ranges) != 0 {
		t.Fatalf("%d and %d queries", len(store.batches), len(store.ranges))
	}
	got := store.batches[0]
	if *got.Producer != id.Producer() {
		t.Errorf("producer %+v", *got.Producer)
	}
	if got.Producer = nil; got != want {
		t.Errorf("filter %+v, want %+v", got, want)
	}
	if w.dedup.accept(id, 20) {
		t.Error("a stored batch is new")
	}
	if load(limit - 1); len(store.batches) != 1 {
		t.Error("a known producer was loaded again")
	}

	// Where offsets are those of two logs, every stored batch counts by itself, whatever its offset.
	w.dedup = newDedupFilter(10)
	w.offsetsAmbiguous = true
	load(limit - 1)
	if len(store.ranges) != 1 || store.ranges[0].Before != math.MaxInt64 || store.ranges[0].Except != 77 {
		t.Errorf("filters %+v", store.ranges)
	}
	if w.dedup.hasProducer(id.Producer()) || w.dedup.accept(id, 20) {
		t.Error("a stored batch is new")
	}
	w.dedup = newDedupFilter(10)
	for range 2 {
		load(limit - 1)
	}
	if list := w.dedup.stored[id.Producer()]; len(list) != 1 {
		t.Errorf("%d ranges, want those of the last query", len(list))
	}
}

// TestStoredRangesAreDuplicates, their first and last batch included.
func TestStoredRangesAreDuplicates(t *testing.T) {
	filter := newDedupFilter(10)
	producer := pipeline.BatchID{Epoch: 4}.Producer()
	filter.restoreRanges([]pipeline.SequenceRange{{Producer: producer, First: 5, Last: 7}, {Producer: producer, First: 10, Last: 10}})
	for sequence, want := range map[uint64]bool{4: false, 5: true, 6: true, 7: true, 8: false, 9: false, 10: true, 11: false} {
		if got := filter.isStored(pipeline.BatchID{Epoch: 4, Sequence: sequence}); got != want {
			t.Errorf("sequence %d is stored: %t", sequence, got)
		}
	}
	if filter.isStored(pipeline.BatchID{Epoch: 5, Sequence: 6}) || filter.hasProducer(producer) {
		t.Error("a range is that of another producer, or a window")
	}
	filter.replaceRanges(producer, []pipeline.SequenceRange{{Producer: producer, First: 20, Last: 20}})
	if filter.isStored(pipeline.BatchID{Epoch: 4, Sequence: 6}) || !filter.isStored(pipeline.BatchID{Epoch: 4, Sequence: 20}) {
		t.Error("the ranges were not replaced")
	}
}

// TestOldestProducersAreEvicted: an eighth of those that are held, at least one, by the offset of their last message and then
// by their ids.
func TestOldestProducersAreEvicted(t *testing.T) {
	fill := func(limit, count int, offset func(i int) int64) *dedupFilter {
		filter := newDedupFilter(limit)
		for i := range count {
			filter.accept(pipeline.BatchID{Epoch: uint64(i), Sequence: 1}, offset(i))
		}
		return filter
	}
	held := func(filter *dedupFilter, count int) (list []int) {
		for i := range count {
			if filter.hasProducer(pipeline.BatchID{Epoch: uint64(i)}.Producer()) {
				list = append(list, i)
			}
		}
		return list
	}
	check := func(what string, got []int, want string) {
		t.Helper()
		if fmt.Sprint(got) != want {
			t.Errorf("%s: %v, want %s", what, got, want)
		}
	}
	ascending, descending := func(i int) int64 { return int64(i) }, func(i int) int64 { return int64(100 - i) }
	same := func(int) int64 { return 5 }
	check("as many as may be", held(fill(4, 4, ascending), 5), "[0 1 2 3]")
	check("one more", held(fill(4, 5, ascending), 5), "[1 2 3 4]")
	check("one more, in the other order", held(fill(4, 5, descending), 5), "[0 1 2 3]")
	check("one more, at the same offset", held(fill(4, 5, same), 5), "[1 2 3 4]")
	check("two of sixteen", held(fill(15, 16, ascending), 16), "[2 3 4 5 6 7 8 9 10 11 12 13 14 15]")

	// Restored producers, which have sent nothing since, go first, and collectors differ before epochs.
	filter := newDedupFilter(2)
	filter.accept(pipeline.BatchID{Epoch: 0, Sequence: 1}, 0)
	filter.restoreProducer(pipeline.StoredBatches{Producer: pipeline.BatchID{Epoch: 1}.Producer(), SequenceWindow: pipeline.SequenceWindow{Highest: 9, Seen: 5}})
	if filter.accept(pipeline.BatchID{Epoch: 1, Sequence: 7}, 1) || !filter.accept(pipeline.BatchID{Epoch: 1, Sequence: 8}, 1) {
		t.Error("the restored window is not that of the store")
	}
	filter = newDedupFilter(2)
	filter.accept(pipeline.BatchID{Epoch: 0, Sequence: 1}, 0)
	filter.restoreProducer(pipeline.StoredBatches{Producer: pipeline.BatchID{Epoch: 1}.Producer()})
	filter.accept(pipeline.BatchID{Epoch: 2, Sequence: 1}, 1)
	check("restored", held(filter, 3), "[0 2]")
	filter = newDedupFilter(1)
	filter.accept(pipeline.BatchID{Collector: [16]byte{1}, Epoch: 9, Sequence: 1}, 5)
	filter.accept(pipeline.BatchID{Collector: [16]byte{2}, Epoch: 1, Sequence: 1}, 5)
	if !filter.hasProducer(pipeline.BatchID{Collector: [16]byte{2}, Epoch: 1}.Producer()) {
		t.Error("the collector with the lower id stays")
	}
}

// TestInsertThatStoredItsRowsIsLogged as what it is: a view that rejects them, or an answer that was lost.
func TestInsertThatStoredItsRowsIsLogged(t *testing.T) {
	for cause, want := range map[error]string{
		errPermanent: "rows are stored, but a materialized view on the table rejects them", errAfter: "rows are stored, although the insert failed",
	} {
		w, logged := newTestWorker(newFakeStore())
		block := &block{}
		p := part{token: insertToken{block: pipeline.BlockID{TopicPartition: w.source, Start: 3, End: 5, Time: 9}}}
		w.recordStoredDespiteError(block, 7, p, cause)
		if block.counts.rows != 7 || w.metrics.storedDespiteError.Load() != 1 {
			t.Errorf("%d rows, %d inserts", block.counts.rows, w.metrics.storedDespiteError.Load())
		}
		if got := logged.String(); strings.Count(got, "level=WARN") != 1 || !strings.Contains(got, want) || !strings.Contains(got, "rows=7") ||
			!strings.Contains(got, p.token.String()) {
			t.Errorf("logged: %s", got)
		}
	}
}

// TestChunksGoBehindTheRecordsThatWait; lost messages are counted.
func TestChunksGoBehindTheRecordsThatWait(t *testing.T) {
	w, logged := newTestWorker(newFakeStore())
	w.fetcher = &consumer.Fetcher{}
	offsets := func() (list []int64) {
		for _, record := range w.records {
			list = append(list, record.Offset)
		}
		return list
	}
	w.receiveChunk(consumer.Chunk{Records: []consumer.Record{{Offset: 1}, {Offset: 2}}, End: 9, Next: 3})
	w.receiveChunk(consumer.Chunk{Records: []consumer.Record{{Offset: 5}}, End: 10, Next: 6, Lost: 2})
	if got := fmt.Sprint(offsets()); got != "[1 2 5]" || w.logEnd != 10 || w.fetched != 6 || w.metrics.lost.Load() != 2 {
		t.Errorf("records %s, end %d, fetched %d, %d lost", got, w.logEnd, w.fetched, w.metrics.lost.Load())
	}
	if strings.Count(logged.String(), "messages were deleted before they were read") != 1 || !strings.Contains(logged.String(), "messages=2") {
		t.Errorf("logged: %s", logged)
	}
	if lag := w.metrics.lag.partitions[0]; lag.behind != 10 || lag.lastAnswer.IsZero() {
		t.Errorf("lag %+v", lag)
	}
	if w.popRecord(); fmt.Sprint(offsets()) != "[2 5]" {
		t.Errorf("records %v", offsets())
	}

	// An empty block begins behind what the broker does not hand out.
	w.intentClosed, w.nextOffset = true, 6
	block := &block{from: 6, end: 6}
	if w.skipUnfetched(block); !w.intentClosed {
		t.Error("nothing was left out")
	}
	w.fetched = 8
	w.skipUnfetched(block)
	if w.intentClosed || w.nextOffset != 8 || block.from != 8 || block.end != 8 || w.nextOffsets[0] != 8 || w.metrics.lag.partitions[0].behind != 2 {
		t.Errorf("next %d, block [%d,%d)", w.nextOffset, block.from, block.end)
	}
}

// TestBlockCountsItsRecords: messages, duplicates and dead letters, with their memory.
func TestBlockCountsItsRecords(t *testing.T) {
	w, _ := newTestWorker(newFakeStore())
	w.dedupSince = time.Unix(0, 0)
	w.cfg.DedupLookback = 0
	producer := &harness{TB: t, epoch: 1, sequences: map[int]uint64{}}
	first := recordOf(t, 3, producer.batch(0, 4))
	again := first
	again.Offset, again.Time = 4, testStart-1
	garbage := consumer.Record{Offset: 6, Time: testStart + 50, Value: []byte("garbage")}
	measureRecord(&garbage)
	b := &w.block
	b.reset(2)
	for _, record := range []consumer.Record{first, again, garbage} {
		if err := w.addRecord(t.Context(), b, record); err != nil {
			t.Fatal(err)
		}
	}
	want := blockCounts{messages: 3, events: 8, duplicates: 1, duplicateEvents: 4}
	if b.counts != want || b.from != 2 || b.first != 3 || b.end != 7 || b.rows != 4 || len(b.messages) != 1 || len(b.deadLetters) != 1 {
		t.Errorf("%+v, [%d,%d) from %d, %d rows", b.counts, b.from, b.end, b.first, b.rows)
	}
	if b.bytes != int64(2*len(first.Value)+7) || b.memory != 2*measurementOf(first).memory+7 || b.newestTime != testStart+50 {
		t.Errorf("%d bytes, %d of memory, newest %d", b.bytes, b.memory, b.newestTime-testStart)
	}
	if !w.memory.TryTake(b.memory) {
		t.Fatal("no memory")
	}
	w.releaseBlock(b)
	if w.memory.held != 0 || b.memory != 0 || len(b.messages)+len(b.deadLetters) != 0 {
		t.Errorf("%d bytes are held", w.memory.held)
	}
}

// TestReplayNeedsTheShardOfItsIntent: the rows of the block are there only.
func TestReplayNeedsTheShardOfItsIntent(t *testing.T) {
	w, _ := newTestWorker(newFakeStore())
	w.nextOffset = 3
	err := w.replayBlock(t.Context(), intent{end: 5, time: 1, shard: "s2", bundle: "v1"})
	if err == nil || !strings.Contains(err.Error(), "block [3,5) was started on shard s2, this engine writes to s1") {
		t.Errorf("%v", err)
	}
}

// TestStartKnowsWhetherTheLastBlockIsComplete.
func TestStartKnowsWhetherTheLastBlockIsComplete(t *testing.T) {
	base := startPoint{offset: 10, first: 0, hasRows: true, stored: pipeline.NewestRows{Highest: 9, LastTime: 100, HasInLog: true, InLog: pipeline.LogRow{Offset: 9, BlockTime: 100}}}
	check := func(what string, change func(s *startPoint), open, behind bool) {
		t.Helper()
		start := base
		change(&start)
		if start.lastBlockIsOpen() != open || start.hasRowsBehind() != behind {
			t.Errorf("%s: open %t, rows behind %t", what, start.lastBlockIsOpen(), start.hasRowsBehind())
		}
	}
	check("complete", func(*startPoint) {}, false, false)
	check("no rows", func(s *startPoint) { s.hasRows, s.offset = false, 5 }, false, false)
	check("set back", func(s *startPoint) { s.offset = 9 }, true, true)
	check("no offset", func(s *startPoint) { s.uncommitted = true }, true, false)
	check("another log", func(s *startPoint) { s.logDiffers = true }, true, false)
	check("not in the log", func(s *startPoint) { s.stored.HasInLog = false }, true, false)
	check("a later block in another log", func(s *startPoint) { s.stored.InLog.BlockTime = 99 }, true, false)
	replayed := func(s *startPoint) { s.hasIntent, s.open, s.offset = true, intent{end: 12, time: 100}, 8 }
	check("its intent", replayed, false, true)
	check("a later intent", func(s *startPoint) { replayed(s); s.open.time = 101 }, false, true)
	check("an earlier intent", func(s *startPoint) { replayed(s); s.open.time = 99 }, true, true)
	check("its messages are deleted", func(s *startPoint) { replayed(s); s.first = 9 }, true, true)
	check("up to the first message", func(s *startPoint) { replayed(s); s.first = 8 }, false, true)
	check("a later intent with deleted messages", func(s *startPoint) { replayed(s); s.open.time, s.first = 101, 9 }, false, true)

	w, _ := newTestWorker(newFakeStore())
	lost := func(what string, change func(s *startPoint), want int64) {
		t.Helper()
		start := base
		start.hasIntent, start.open = true, intent{end: 20, time: 101}
		change(&start)
		if got := w.endOfLostBlock(start, 15); got != want {
			t.Errorf("%s: %d, want %d", what, got, want)
		}
	}
	lost("a block of an earlier log", func(*startPoint) {}, 20)
	lost("no intent", func(s *startPoint) { s.hasIntent = false }, 10)
	lost("stored", func(s *startPoint) { s.open.time = 100 }, 10)
	lost("no rows", func(s *startPoint) { s.hasRows, s.open.time = false, 100 }, 20)
	lost("within the log", func(s *startPoint) { s.open.end = 15 }, 10)
	w.logReplaced = true
	lost("counted by the fetcher", func(*startPoint) {}, 10)

	// Deleted messages before the log are lost if no row of them is stored.
	skip := func(what string, change func(s *startPoint), wantOffset int64, wantLost uint64) {
		t.Helper()
		w, _ := newTestWorker(newFakeStore())
		w.intentClosed = true
		start := base
		start.first = 14
		change(&start)
		w.skipDeleted(&start)
		if start.offset != wantOffset || w.metrics.lost.Load() != wantLost || w.intentClosed != (wantOffset == base.offset) {
			t.Errorf("%s: offset %d, %d lost, closed %t", what, start.offset, w.metrics.lost.Load(), w.intentClosed)
		}
	}
	skip("deleted", func(*startPoint) {}, 14, 4)
	skip("at the first message", func(s *startPoint) { s.first = 10 }, 10, 0)
	skip("replayed", func(s *startPoint) { s.hasIntent = true }, 10, 0)
	skip("some are stored", func(s *startPoint) { s.stored.InLog.Offset = 11 }, 14, 2)
	skip("all are stored", func(s *startPoint) { s.stored.InLog.Offset = 13 }, 14, 0)
	skip("rows of another log", func(s *startPoint) { s.stored.HasInLog, s.stored.InLog.Offset = false, 12 }, 14, 4)
}

// TestStateIsRestoredFromTheRowsBeforeTheStart, and where offsets are those of two logs from all rows, batch by batch.
func TestStateIsRestoredFromTheRowsBeforeTheStart(t *testing.T) {
	now := time.Unix(0, testStart).Add(1000 * time.Hour)
	restore := func(ambiguous bool, start startPoint) (*worker, *filterStore) {
		t.Helper()
		store := &filterStore{fakeStore: newFakeStore()}
		w, _ := newTestWorker(store)
		w.deps.Now = func() time.Time { return now }
		w.offsetsAmbiguous = ambiguous
		w.openBlock.Time = 5
		if err := w.restoreState(t.Context(), start); err != nil {
			t.Fatal(err)
		}
		return w, store
	}
	w, store := restore(false, startPoint{offset: 10, hasRows: true, stored: pipeline.NewestRows{Highest: 9}})
	want := pipeline.BatchFilter{TopicPartition: w.source, Before: 10, Since: now.Add(-w.cfg.DedupLookback)}
	if len(store.ranges) != 0 || len(store.batches) != 1 || store.batches[0] != want || w.openBlock != (pipeline.BlockID{}) {
		t.Errorf("%+v, %+v, want %+v", store.batches, store.ranges, want)
	}
	w, store = restore(true, startPoint{
		offset: 10, hasRows: true, hasIntent: true, open: intent{end: 12, time: 77}, stored: pipeline.NewestRows{Highest: 3},
	})
	want.Before, want.Except = math.MaxInt64, 77
	if len(store.batches) != 0 || len(store.ranges) != 1 || store.ranges[0] != want {
		t.Errorf("%+v, %+v, want %+v", store.batches, store.ranges, want)
	}
	if want := (pipeline.BlockID{TopicPartition: w.source, Start: 10, End: 12, Time: 77}); w.openBlock != want {
		t.Errorf("open block %+v, want %+v", w.openBlock, want)
	}
	if _, store = restore(true, startPoint{offset: 10}); len(store.batches)+len(store.ranges) != 0 {
		t.Errorf("%+v, %+v: no row is stored", store.batches, store.ranges)
	}
}

// TestWorkerWaitsForInsertsOfEarlierOwners.
func TestWorkerWaitsForInsertsOfEarlierOwners(t *testing.T) {
	store := &filterStore{fakeStore: newFakeStore(), running: []int{2, 1, 0, 7}}
	w, _ := newTestWorker(store)
	if err := w.waitForInserts(t.Context()); err != nil || len(store.running) != 1 {
		t.Errorf("%v, %d answers are left", err, len(store.running))
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.waitForInserts(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("the worker has ended: %v", err)
	}
}

// TestEndedWorkerStopsAtEachQuery: what the store does not answer is not known, so nothing that depends on it is done.
func TestEndedWorkerStopsAtEachQuery(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	store := &filterStore{fakeStore: newFakeStore(), err: errPassing}
	store.insert = func([]fakeRow, string) error { return errPassing }
	store.insertAlerts = func(string) (bool, error) { return false, errPassing }
	rejecting := func() { store.insertAlerts = func(string) (bool, error) { return false, errPermanent } }
	producer := &harness{TB: t, epoch: 1, sequences: map[int]uint64{}}
	record := recordOf(t, 3, producer.batch(0, 4))
	revisions := []*pipeline.Alert{{ID: "a", Revision: 1}}
	for name, call := range map[string]func(w *worker, b *block) error{
		"existing rows":  func(w *worker, b *block) error { _, err := w.existingRows(ended, b); return err },
		"replayed block": func(w *worker, b *block) error { b.replayed = true; return w.insertBlock(ended, b) },
		"new block":      func(w *worker, b *block) error { return w.insertBlock(ended, b) },
		"missing rows":   func(w *worker, b *block) error { _, err := w.insertMissingRows(ended, b, part{}); return err },
		"stored rows":    func(w *worker, b *block) error { _, err := w.skipStored(ended, b, &part{}, errPassing); return err },
		"halves": func(w *worker, b *block) error {
			return w.insertHalves(ended, b, part{messages: twice(b)}, errPermanent)
		},
		"alerts": func(w *worker, b *block) error { return foldOf(w).insertAlerts(ended, b, revisions, insertToken{}) },
		"rejected alerts": func(w *worker, b *block) error {
			rejecting()
			return foldOf(w).insertAlerts(ended, b, revisions, insertToken{})
		},
		"missing alerts": func(w *worker, b *block) error { _, err := foldOf(w).missingAlerts(ended, b, revisions); return err },
		"grouper":        func(w *worker, b *block) error { return foldOf(w).restoreGrouper(ended, pipeline.BlockID{}, 1) },
		"state":          func(w *worker, b *block) error { return w.restoreState(ended, startPoint{}) },
		"state of two logs": func(w *worker, b *block) error {
			w.offsetsAmbiguous = true
			return w.restoreState(ended, startPoint{hasRows: true})
		},
		"last block": func(w *worker, b *block) error {
			return w.completeLastBlock(ended, &startPoint{hasRows: true, uncommitted: true})
		},
		"running inserts": func(w *worker, b *block) error { return w.waitForInserts(ended) },
		"batches":         func(w *worker, b *block) error { return w.loadProducer(ended, b, &b.messages[0]) },
		"batches of a log": func(w *worker, b *block) error {
			w.offsetsAmbiguous = true
			return w.loadProducer(ended, b, &b.messages[0])
		},
		"record": func(w *worker, b *block) error { return w.addRecord(ended, b, record) },
		"records of a block": func(w *worker, b *block) error {
			w.records = []consumer.Record{record}
			_, err := w.fillBlock(ended, &block{})
			return err
		},
		"records of a replay": func(w *worker, b *block) error {
			w.records = []consumer.Record{record}
			return w.gatherReplay(ended, 10)
		},
		"chunks of a replay": func(w *worker, b *block) error {
			w.fetcher = &consumer.Fetcher{C: make(chan consumer.Chunk)}
			return w.gatherReplay(ended, 10)
		},
		"windows ahead": func(w *worker, b *block) error {
			f := foldOf(w)
			if err := restoreAhead(t, f); err != nil {
				t.Fatal(err)
			}
			b.time = testStart + int64(time.Minute)
			return f.correctGrouper(ended, b)
		},
	} {
		store.insertAlerts = func(string) (bool, error) { return false, errPassing }
		w, _ := newTestWorker(store)
		w.dedupSince = time.Unix(0, testStart).Add(time.Hour)
		batch := producer.batch(0, 4)
		b := &block{messages: []message{{record: record, batch: batch}}, rows: 4, intentTime: time.Now(), time: 9}
		if err := call(w, b); !errors.Is(err, context.Canceled) && !errors.Is(err, errPassing) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// twice returns the message of a block twice.
func twice(b *block) []message { return []message{b.messages[0], b.messages[0]} }

// restoreAhead gives a worker windows that lie a year ahead.
func restoreAhead(t *testing.T, f *foldWorker) error {
	worker, _ := newTestWorker(aheadStore(t))
	other := foldOf(worker)
	err := other.restoreGrouper(t.Context(), pipeline.BlockID{}, farFuture.UnixNano())
	f.grouper = other.grouper
	return err
}

// foldOf returns a foldWorker of a worker.
func foldOf(w *worker) *foldWorker {
	return &foldWorker{worker: w, grouper: alerts.NewGrouper(w.cfg.Grouping, 0)}
}

// TestAlertsThatTheStoreRejectsArePublished: they are counted and logged. Those that are stored although the insert failed are
// counted as such.
func TestAlertsThatTheStoreRejectsArePublished(t *testing.T) {
	at := time.Unix(0, testStart)
	revisions := []*pipeline.Alert{{ID: "a", Revision: 2, WindowStart: at}, {ID: "b", Revision: 1, WindowStart: at}}
	check := func(what string, insert func(string) (bool, error), rejected, despite uint64, line string, stored int) {
		t.Helper()
		store := newFakeStore()
		store.insertAlerts = insert
		w, logged := newTestWorker(store)
		if err := foldOf(w).insertAlerts(t.Context(), &block{time: testStart}, revisions, insertToken{}); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if w.metrics.alertsRejected.Load() != rejected || w.metrics.storedDespiteError.Load() != despite || len(store.alerts) != stored {
			t.Errorf("%s: %d rejected, %d inserts, %d stored", what, w.metrics.alertsRejected.Load(), w.metrics.storedDespiteError.Load(), len(store.alerts))
		}
		if !strings.Contains(logged.String(), line) || line == "" && strings.Contains(logged.String(), "alerts") {
			t.Errorf("%s: logged %s", what, logged)
		}
	}
	check("stored", nil, 0, 0, "", 2)
	check("rejected", func(string) (bool, error) { return false, errPermanent }, 2, 0, "store rejected alerts", 0)

	// The insert of an alert that is stored by an earlier one.
	store := newFakeStore()
	w, logged := newTestWorker(store)
	if err := store.InsertAlerts(t.Context(), revisions, "earlier"); err != nil {
		t.Fatal(err)
	}
	store.insertAlerts = func(string) (bool, error) { return false, errPermanent }
	if err := foldOf(w).insertAlerts(t.Context(), &block{time: testStart}, revisions, insertToken{}); err != nil {
		t.Fatal(err)
	}
	if w.metrics.alertsRejected.Load() != 0 || w.metrics.storedDespiteError.Load() != 1 || !strings.Contains(logged.String(), "although their insert failed") {
		t.Errorf("%d rejected, %d stored despite an error: %s", w.metrics.alertsRejected.Load(), w.metrics.storedDespiteError.Load(), logged)
	}

	// Only revisions that are later than the stored ones are missing.
	newer := []*pipeline.Alert{{ID: "a", Revision: 3, WindowStart: at}, {ID: "b", Revision: 1, WindowStart: at}, {ID: "c", Revision: 1, WindowStart: at}}
	missing, err := foldOf(w).missingAlerts(t.Context(), &block{time: testStart}, newer)
	if err != nil || len(missing) != 2 || missing[0].ID != "a" || missing[1].ID != "c" {
		t.Errorf("%d missing, %v", len(missing), err)
	}
}

// TestMatchesOfABlockAreCounted by rule, group and second. Those of rejected messages are not: their events are not stored.
func TestMatchesOfABlockAreCounted(t *testing.T) {
	match := func(second int64, score uint32, rules ...string) *pipeline.Event {
		e := event(3)
		e.Timestamp, e.Ingested = testStart+second*int64(time.Second)+5, testStart+100*int64(time.Second)
		for _, rule := range rules {
			e.Verdicts = append(e.Verdicts, &pipeline.Verdict{Detector: "test", Rule: rule, Group: "g", Score: score, Evidence: fmt.Sprint("score ", score)})
		}
		return e
	}
	counter := countMatches(&block{messages: []message{
		{batch: &pipeline.Batch{Events: []*pipeline.Event{match(1, 90, "a", "b"), match(1, 50), match(1, 50, "a")}, Shipped: testStart + 200*int64(time.Second)}},
		{batch: &pipeline.Batch{Events: []*pipeline.Event{match(1, 99, "a", "c")}}, rejection: errPermanent},
		{batch: &pipeline.Batch{Events: []*pipeline.Event{match(2, 10, "a")}, Shipped: testStart + 200*int64(time.Second)}},
		{batch: &pipeline.Batch{Events: []*pipeline.Event{match(9, 10, "d"), match(500, 20, "e")}, Shipped: testStart + 4*int64(time.Second)}},
	}})
	var got []string
	for _, m := range counter.list {
		since := func(at int64) string { return fmt.Sprint((at - testStart) / int64(time.Second)) }
		got = append(got, fmt.Sprintf("%s %s: %d at %s from %s to %s, %d, %s", m.Verdict.Rule, m.Verdict.Group, m.Count, since(m.At), since(m.First), since(m.Last), m.Verdict.Score, m.Verdict.Evidence))
	}
	want := []string{
		"a g: 2 at 1 from 1 to 1, 90, score 50", "b g: 1 at 1 from 1 to 1, 90, score 90", "a g: 1 at 2 from 2 to 2, 10, score 10",
		"d g: 1 at 4 from 9 to 9, 10, score 10", "e g: 1 at 4 from 500 to 500, 20, score 20",
	}
	if !slices.Equal(got, want) || counter.verdicts() != 6 {
		t.Errorf("%d verdicts: %q, want %q", counter.verdicts(), got, want)
	}
}

// TestWordsOfAnIntentArePrintable, of at most 64 bytes.
func TestWordsOfAnIntentArePrintable(t *testing.T) {
	long := strings.Repeat("x", 64)
	for version, want := range map[string]string{
		"": "none", "v1": "v1", "a b\tc": "a_b_c", "~!": "~!", "é\x7f": "__", long: long, long + "y": long,
	} {
		if got := bundleVersion(&pipeline.Bundle{Version: version}); got != want || !isIntentWord(got) {
			t.Errorf("%q: %q, want %q", version, got, want)
		}
	}
	for word, want := range map[string]bool{"": false, "a": true, "a b": false, "!": true, "~": true, "\x7f": false, long: true, long + "y": false} {
		if isIntentWord(word) != want {
			t.Errorf("%q: %t", word, !want)
		}
	}
}

// TestBundlesOfLateAreKept for replays: four of them.
func TestBundlesOfLateAreKept(t *testing.T) {
	var current *pipeline.Bundle
	engine := &Engine{deps: Deps{Bundle: func() *pipeline.Bundle { return current }}}
	for i := range keptBundles + 1 {
		current = &pipeline.Bundle{Version: fmt.Sprint("v", i)}
		for range 2 {
			if engine.currentBundle() != current {
				t.Error("another bundle is the current one")
			}
		}
	}
	for i, want := range []bool{false, true, true, true, true} {
		bundle, ok := engine.bundleByVersion(fmt.Sprint("v", i))
		if ok != want || !ok && bundle != current || ok && bundle.Version != fmt.Sprint("v", i) {
			t.Errorf("v%d: %s, %t", i, bundle.Version, ok)
		}
	}
	for _, none := range []func() *pipeline.Bundle{nil, func() *pipeline.Bundle { return nil }} {
		if bundle := (&Engine{deps: Deps{Bundle: none}}).currentBundle(); bundle == nil || bundle.Version != "none" {
			t.Errorf("without rules: %+v", bundle)
		}
	}
}
