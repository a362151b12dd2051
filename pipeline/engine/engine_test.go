package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tidegate/pipeline"
	"tidegate/pipeline/kafka"
)

func TestEveryEventIsStoredOnceWithItsVerdicts(t *testing.T) {
	harness, store := newHarness(t, 3, kafka.AssignStatic), newFakeStore()
	for partition := range 3 {
		harness.send(partition, 5, 40)
	}
	engine, stop := harness.start(store, testBundle, nil)
	waitUntil(t, "first rows", func() bool { return store.count() == 600 })
	for partition := range 3 {
		harness.send(partition, 5, 40)
	}
	waitUntil(t, "all rows", func() bool { return store.count() == 1200 })
	harness.waitClosed(3, 10)
	stop()

	checkExactlyOnce(t, store.rows, 1200)
	for _, row := range store.rows {
		if bad := strings.HasPrefix(row.message, "bad"); bad != (len(row.rules) == 1) {
			t.Errorf("%q has verdicts %v", row.message, row.rules)
		}
		if row.ingested == 0 || row.group == "" {
			t.Errorf("row without block time or container: %+v", row)
		}
	}

	ledger := engine.Ledger()
	if ledger.Messages != 30 || ledger.Events != 1200 || ledger.Rows != 1200 || ledger.Verdicts != 120 {
		t.Errorf("ledger %+v", ledger)
	}
	if ledger.Duplicates+ledger.DeadLettered+ledger.Lost+ledger.AlreadyStored+ledger.Rejected != 0 {
		t.Errorf("something was left out, ledger %+v", ledger)
	}

	var published int
	for _, message := range harness.read(pipeline.TopicAlerts, 0) {
		var alert pipeline.Alert
		if err := json.Unmarshal(message.Value, &alert); err != nil || string(message.Key) != alert.Fingerprint {
			t.Errorf("alert %s: %v", message.Value, err)
		}
		published++
	}
	if uint64(published) != ledger.Revisions || published == 0 {
		t.Errorf("%d revisions on the topic, %d in the ledger", published, ledger.Revisions)
	}
}

// TestWithoutAStoreEventsAreEvaluated: alerts are published and offsets are committed, and a restart goes on there.
func TestWithoutAStoreEventsAreEvaluated(t *testing.T) {
	harness := newHarness(t, 1, kafka.AssignStatic)
	alerts := 0
	for round := range 2 {
		harness.send(0, 5, 40)
		engine, stop := harness.start(DiscardStore{}, testBundle, nil)
		harness.waitClosed(1, int64(5*(round+1)))
		stop()
		ledger := engine.Ledger()
		if ledger.Messages != 5 || ledger.Events != 200 || ledger.Rows != 200 || ledger.Verdicts != 20 ||
			ledger.AlreadyStored+ledger.DeadLettered+ledger.Lost+ledger.Rejected != 0 {
			t.Errorf("ledger %+v", ledger)
		}
		published := len(harness.read(pipeline.TopicAlerts, 0))
		if uint64(published-alerts) != ledger.Revisions || published == alerts {
			t.Errorf("%d revisions on the topic, %d in the ledger", published-alerts, ledger.Revisions)
		}
		alerts = published
	}
}

func TestDuplicateBatchIsDroppedAlsoAfterARestart(t *testing.T) {
	harness, store := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
	var sent [][]byte
	for range 10 {
		sent = append(sent, encode(t, harness.batch(0, 5)))
	}
	harness.produce(0, sent[:6]...)
	harness.produce(0, sent[2], sent[5]) // duplicates
	engine, stop := harness.start(store, testBundle, nil)
	waitUntil(t, "rows", func() bool { return engine.Ledger().Messages == 8 && store.count() == 30 })
	stop()

	// After the restart duplicates of both runs come, and new batches in another order.
	harness.produce(0, sent[5], sent[7], sent[6], sent[0], sent[7], sent[8], sent[9], sent[9])
	engine, stop = harness.start(store, testBundle, nil)
	waitUntil(t, "rows", func() bool { return engine.Ledger().Messages == 8 && store.count() == 50 })
	stop()
	checkExactlyOnce(t, store.rows, 50)
	if ledger := engine.Ledger(); ledger.Duplicates != 4 || ledger.DuplicateEvents != 20 {
		t.Errorf("ledger %+v", ledger)
	}
}

func TestInvalidBatchBecomesADeadLetter(t *testing.T) {
	harness, store := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
	// spoil returns a batch of one event after change has made it invalid.
	spoil := func(change func(b *pipeline.Batch)) []byte {
		batch := harness.batch(0, 0)
		batch.Events = []*pipeline.Event{event(0)}
		change(batch)
		return encode(t, batch)
	}
	good := func() []byte { return encode(t, harness.batch(0, 3)) }
	// The bytes 52 00 are an empty event.
	many := append(spoil(func(b *pipeline.Batch) { b.Events = nil }), strings.Repeat("\x52\x00", maxEventsPerBatch+1)...)
	harness.produce(0,
		good(),
		[]byte("garbage"), []byte{0x52, 0xff},
		spoil(func(b *pipeline.Batch) { b.Schema = 0 }),
		spoil(func(b *pipeline.Batch) { b.Collector = b.Collector[:5] }),
		spoil(func(b *pipeline.Batch) { b.Partition = 3 }),
		spoil(func(b *pipeline.Batch) { b.Events[0].Id = nil }),
		many,
		good())

	engine, stop := harness.start(store, testBundle, nil)
	waitUntil(t, "rows", func() bool { return store.count() == 6 && engine.Ledger().DeadLettered == 7 })
	harness.waitClosed(1, 9)
	stop()
	checkExactlyOnce(t, store.rows, 6)

	want := []string{"decode", "decode", "schema", "batch_id", "partition", "event_id", "too_many_events"}
	for i, message := range harness.readDeadLetters(len(want)) {
		headers := map[string]string{}
		for _, header := range message.Headers {
			headers[header.Key] = string(header.Value)
		}
		position := headers["topic"] + "/" + headers["partition"] + "/" + headers["offset"]
		if headers["reason"] != want[i] || position != fmt.Sprintf("tidegate.events/0/%d", i+1) || headers["error"] == "" {
			t.Errorf("letter %d: %v, want reason %s", i, headers, want[i])
		}
		if i == 0 && string(message.Value) != "garbage" {
			t.Errorf("letter %d holds %q", i, message.Value)
		}
	}
}

func TestVerdictsInABatchAreDropped(t *testing.T) {
	harness, store := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
	batch := harness.batch(0, 1)
	batch.Events[0].Verdicts = []*pipeline.Verdict{{Rule: "forged", Severity: pipeline.Severity_CRITICAL}}
	batch.Events[0].Ingested = 1
	harness.produce(0, encode(t, batch))
	_, stop := harness.start(store, testBundle, nil)
	waitUntil(t, "rows", func() bool { return store.count() == 1 })
	stop()
	if row := store.rows[0]; len(row.rules) != 0 || row.ingested < testStart || len(store.alerts) != 0 {
		t.Errorf("%+v", row)
	}
}

func TestRejectedMessageIsFoundAndTheRestIsStored(t *testing.T) {
	harness, store := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
	store.insert = func(rows []fakeRow, _ string) error {
		for _, row := range rows {
			if row.Offset == 5 || row.Offset == 11 {
				return errPermanent
			}
		}
		return nil
	}
	// The block of 16 messages is bisected until the two that the store rejects stand alone.
	harness.send(0, 16, 10)
	engine, stop := harness.start(store, testBundle, nil)
	waitUntil(t, "rows", func() bool { return store.count() == 140 && engine.Ledger().DeadLettered == 2 })
	harness.waitClosed(1, 16)
	stop()
	seen := map[string]bool{}
	for _, row := range store.rows {
		if seen[row.id] || row.Offset == 5 || row.Offset == 11 {
			t.Errorf("row %s of offset %d", row.id, row.Offset)
		}
		seen[row.id] = true
	}
	ledger := engine.Ledger()
	if ledger.Rejected != 20 || ledger.Rows != 140 || ledger.Verdicts != 14 {
		t.Errorf("ledger %+v", ledger)
	}
	harness.checkWarnings(
		`WARN msg="store rejected a block, bisecting it" partition=0 from=0 end=16 messages=16 err="for good: .*" suppressed=0`,
		`WARN msg="message written to the dead-letter topic" partition=0 offset=5 reason=rejected err="for good: .*" suppressed=0`)
	for i, message := range harness.readDeadLetters(2) {
		var batch pipeline.Batch
		if err := batch.UnmarshalVT(message.Value); err != nil || batch.Sequence != []uint64{6, 12}[i] {
			t.Errorf("letter %d: sequence %d, %v", i, batch.Sequence, err)
		}
	}
	for _, token := range store.order {
		if !strings.HasPrefix(token, "tidegate.events/0/") || !strings.Contains(token, "#") {
			t.Errorf("token %s", token)
		}
	}
}

func TestInsertIsRepeatedUntilItSucceedsAndStoredOnce(t *testing.T) {
	harness, store := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
	var inserts atomic.Int32
	store.insert = func([]fakeRow, string) error {
		switch inserts.Add(1) {
		case 1, 2:
			return errPassing
		case 3, 4:
			return errAfter
		}
		return nil
	}
	harness.send(0, 3, 10)
	engine, stop := harness.start(store, testBundle, nil)
	harness.waitClosed(1, 3)
	stop()
	checkExactlyOnce(t, store.rows, 30)
	if ledger := engine.Ledger(); ledger.Rows != 30 {
		t.Errorf("ledger %+v", ledger)
	}
	harness.checkWarnings(
		`WARN msg="inserting a block failed, retrying" partition=0 token=tidegate\.events/0/0-3@[0-9]+ attempt=1 err=temporary suppressed=0`,
		`WARN msg="rows are stored, although the insert failed" partition=0 token=tidegate\.events/0/0-3@[0-9]+ rows=30 err="the answer was lost" suppressed=0`)
}

// TestOldInsertLooksUpExistingRows: the server keeps a token for a limited time. An insert that has been
// tried for longer than Config.VerifyAfter looks up the stored rows before it is repeated. Rows that its own
// attempt has stored count as inserted.
func TestOldInsertLooksUpExistingRows(t *testing.T) {
	harness, store := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
	store.keepsNoTokens = true
	var inserts atomic.Int32
	store.insert = func([]fakeRow, string) error {
		if inserts.Add(1) == 1 {
			return errAfter
		}
		return nil
	}
	harness.send(0, 3, 10)
	engine, stop := harness.start(store, testBundle, func(c *Config, _ *Deps) { c.VerifyAfter = time.Millisecond })
	harness.waitClosed(1, 3)
	stop()
	checkExactlyOnce(t, store.rows, 30)
	if ledger := engine.Ledger(); ledger.AlreadyStored != 0 || ledger.Rows != 30 {
		t.Errorf("ledger %+v", ledger)
	}
}

func TestOpenIntentIsReplayedWithItsBoundsTimeAndBundle(t *testing.T) {
	harness, store := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
	harness.send(0, 10, 10)
	at := testStart + 12345
	harness.commit(0, 2, fmt.Sprintf("v1 7 %d 0 v1", at))

	// The store holds a part of the block [2,7), as after a bisected insert: the message at offset 3.
	batchID := pipeline.BatchID{Collector: testCollector, Epoch: 7, Sequence: 4}
	for i := range 10 {
		store.rows = append(store.rows, fakeRow{
			Position: pipeline.Position{Offset: 3, Index: uint32(i), BatchID: batchID},
			id:       fmt.Sprintf("%x", event(30+i).Id), ingested: at,
		})
	}
	engine, stop := harness.start(store, testBundle, nil)
	waitUntil(t, "rows", func() bool { return store.count() == 80 })
	stop()
	if store.order[0] != fmt.Sprintf("tidegate.events/0/2-7@%d", at) {
		t.Errorf("first token %s", store.order[0])
	}
	for _, row := range store.rows {
		if (row.Offset < 7) != (row.ingested == at) {
			t.Errorf("offset %d has block time %d", row.Offset, row.ingested)
		}
	}
	ledger, reevaluated := engine.Ledger(), engine.metrics.reevaluated.Load()
	if ledger.AlreadyStored != 10 || ledger.Rows != 70 || reevaluated != 0 {
		t.Errorf("ledger %+v, reevaluated %d", ledger, reevaluated)
	}
	want := `level=INFO msg="partition assigned" partition=0 offset=2 replay_block=true producers=0` + "\n"
	if text := harness.lines.text.String(); !strings.Contains(text, want) {
		t.Errorf("logged %s, want %s", text, want)
	}
	harness.checkWarnings()
}

func TestReplayByOtherRulesIsCounted(t *testing.T) {
	harness, store := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
	harness.send(0, 3, 10)
	harness.commit(0, 0, fmt.Sprintf("v1 3 %d 0 gone", testStart))
	engine, stop := harness.start(store, testBundle, nil)
	waitUntil(t, "rows", func() bool { return store.count() == 30 })
	stop()
	if engine.metrics.reevaluated.Load() != 1 {
		t.Errorf("reevaluated %d", engine.metrics.reevaluated.Load())
	}
	harness.checkWarnings(`WARN msg="replayed block is evaluated by newer rules, the rules of the first run are not loaded" partition=0 from=0 end=3 before=gone now=v1`)
}

// TestWithoutAnOffsetTheEngineStartsAtTheLastBlock: a consumer group of another name has no committed offset,
// and the rows of the first group are in the store. The messages of the last block are read again, since it
// may have dead letters, and the blocks before it are not.
func TestWithoutAnOffsetTheEngineStartsAtTheLastBlock(t *testing.T) {
	harness, store := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
	harness.send(0, 6, 10)
	_, stop := harness.start(store, testBundle, func(c *Config, _ *Deps) { c.Group, c.BlockRows = "one", 20 })
	waitUntil(t, "rows", func() bool { return store.count() == 60 })
	stop()
	harness.send(0, 2, 10)
	harness.checkWarnings()

	engine, stop := harness.start(store, testBundle, func(c *Config, _ *Deps) { c.Group = "two" })
	waitUntil(t, "rows", func() bool { return store.count() == 80 })
	stop()
	checkExactlyOnce(t, store.rows, 80)
	if ledger := engine.Ledger(); ledger.Messages != 4 || ledger.Duplicates != 2 {
		t.Errorf("ledger %+v", ledger)
	}
	harness.checkWarnings(`WARN msg="committed offset is lost or before the stored rows; stored messages are not stored again" partition=0 ` +
		`topic=tidegate\.events offset=6 highest_stored=5`)
}

func TestExpiredMessagesAreCountedAsLost(t *testing.T) {
	harness, store := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
	harness.send(0, 10, 10)
	harness.commit(0, 2, "")
	harness.deleteRecordsBefore(pipeline.TopicEvents, 0, 6)
	engine, stop := harness.start(store, testBundle, nil)
	waitUntil(t, "rows", func() bool { return store.count() == 40 })
	stop()
	if ledger := engine.Ledger(); ledger.Lost != 4 || ledger.Messages != 4 {
		t.Errorf("ledger %+v", ledger)
	}
	harness.checkWarnings(`ERROR msg="messages were deleted before they were read" partition=0 topic=tidegate\.events messages=4`)
}

// TestTopicCreatedAnewIsReadFromItsBeginning: the committed offset and the stored rows belong to an earlier
// topic. The messages are new, except for one batch that a collector sends again.
func TestTopicCreatedAnewIsReadFromItsBeginning(t *testing.T) {
	harness, store := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
	again := encode(t, harness.batch(0, 10))
	harness.produce(0, again)
	harness.send(0, 9, 10)
	_, stop := harness.start(store, testBundle, nil)
	waitUntil(t, "rows", func() bool { return store.count() == 100 })
	stop()

	anew := newHarness(t, 1, kafka.AssignStatic)
	anew.sequences[0], anew.events = harness.sequences[0], harness.events
	anew.commit(0, 10, "")
	anew.produce(0, again)
	anew.send(0, 4, 10)
	engine, stop := anew.start(store, testBundle, nil)
	waitUntil(t, "rows", func() bool { return store.count() == 140 })
	stop()
	checkExactlyOnce(t, store.rows, 140)
	if ledger := engine.Ledger(); ledger.Duplicates != 1 || ledger.AlreadyStored != 0 {
		t.Errorf("ledger %+v", ledger)
	}
	anew.checkWarnings(`ERROR msg="log is not the one that was read before, .*; duplicate batches are dropped" partition=0 ` +
		`topic=tidegate\.events committed=10 first=0 end=5`)

	// The engine restarts while the new topic is still shorter than the earlier one.
	anew.send(0, 3, 10)
	_, stop = anew.start(store, testBundle, nil)
	waitUntil(t, "rows", func() bool { return store.count() == 170 })
	stop()
	checkExactlyOnce(t, store.rows, 170)
}

func TestPanickingDetectorCostsOneVerdict(t *testing.T) {
	harness, store := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
	harness.send(0, 2, 50)
	bundle := &pipeline.Bundle{Version: "v1", Detectors: []pipeline.Detector{panickingDetector{}, badLineDetector{}}}
	engine, stop := harness.start(store, bundle, nil)
	waitUntil(t, "rows", func() bool { return store.count() == 100 })
	stop()
	checkExactlyOnce(t, store.rows, 100)
	for i, row := range store.rows {
		want := 0
		if strings.HasPrefix(row.message, "bad") {
			want = 1
		}
		if i != 13 {
			want++
		}
		if len(row.rules) != want {
			t.Errorf("row %d (%s) has verdicts %v", i, row.message, row.rules)
		}
	}
	if engine.metrics.detectorPanics.Load() != 1 {
		t.Errorf("panics %d", engine.metrics.detectorPanics.Load())
	}
	harness.checkWarnings(`WARN msg="detector panicked" partition=0 event=00000000-0000-0000-0000-00000000000d dataset=log suppressed=0`)
}

// panickingDetector adds a verdict to every event, and panics at event 13.
type panickingDetector struct{}

func (panickingDetector) Evaluate(block []*pipeline.Event) {
	for _, e := range block {
		e.Verdicts = append(e.Verdicts, &pipeline.Verdict{Rule: "all", Group: "x"})
		if e.Id[15] == 13 && e.Id[14] == 0 {
			panic("on purpose")
		}
	}
}

func TestBlockNeverExceedsItsRows(t *testing.T) {
	harness, store := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
	harness.send(0, 40, 30)
	var most atomic.Int64
	store.insert = func(rows []fakeRow, _ string) error { most.Store(max(most.Load(), int64(len(rows)))); return nil }
	_, stop := harness.start(store, testBundle, func(c *Config, _ *Deps) { c.BlockRows = 100 })
	waitUntil(t, "rows", func() bool { return store.count() == 1200 })
	stop()
	checkExactlyOnce(t, store.rows, 1200)
	if most.Load() != 90 {
		t.Errorf("a block had %d rows", most.Load())
	}
}

func TestGroupSharesPartitionsAndRevokesThemWithoutDuplicates(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	harness, store := newHarness(t, 4, kafka.AssignGroup), newFakeStore()
	for partition := range 4 {
		harness.send(partition, 10, 10)
	}
	one, stopOne := harness.start(store, testBundle, nil)
	waitUntil(t, "rows", func() bool { return store.count() == 400 })
	two, stopTwo := harness.start(store, testBundle, nil)
	// The second member joins: messages are sent until it has stored some.
	for i := 0; two.Ledger().Rows == 0 && i < 200; i++ {
		for partition := range 4 {
			harness.send(partition, 1, 10)
		}
		time.Sleep(50 * time.Millisecond)
	}
	if two.Ledger().Rows == 0 {
		t.Fatal("the second member got nothing")
	}
	// The first member leaves: the second one processes all partitions.
	stopOne()
	for partition := range 4 {
		harness.send(partition, 5, 10)
	}
	waitUntil(t, "rows", func() bool { return store.count() == harness.events })
	stopTwo()
	checkExactlyOnce(t, store.rows, harness.events)
	if stored := one.Ledger().Rows + two.Ledger().Rows; stored != uint64(harness.events) {
		t.Errorf("%d rows by two engines, %d events", stored, harness.events)
	}
}

// TestFencedWorkerStops: another process has joined the consumer group. An engine with static assignment
// cannot commit any more, so it ends with an error and stores nothing.
func TestFencedWorkerStops(t *testing.T) {
	harness, store := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
	group, err := kafkago.NewConsumerGroup(kafkago.ConsumerGroupConfig{
		ID: "tidegate-engine", Brokers: harness.client.Brokers(), JoinGroupBackoff: 100 * time.Millisecond,
		Topics: []string{harness.client.Topic(pipeline.TopicEvents)},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer group.Close()
	for {
		if _, err := group.Next(context.Background()); err == nil {
			break
		}
	}

	harness.send(0, 1, 10)
	engine, err := New(Default(), Deps{Kafka: harness.client, Store: store}, discardLog, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := engine.Run(ctx); err == nil || !strings.Contains(err.Error(), "another member") {
		t.Errorf("fenced engine ended with %v", err)
	}
	if store.count() != 0 {
		t.Errorf("a fenced engine stored %d rows", store.count())
	}
}
