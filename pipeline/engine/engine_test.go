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

func TestDefaultIsValid(t *testing.T) {
	if errs := Default().Check(); errs != nil {
		t.Error(errs)
	}
	bad := Default()
	bad.Shard, bad.BlockRows, bad.Linger = "a b", 0, -1
	if errs := bad.Check(); len(errs) != 3 {
		t.Errorf("3 mistakes gave %v", errs)
	}
}

func TestEveryEventIsStoredOnceWithItsVerdicts(t *testing.T) {
	r, s := newHarness(t, 3, kafka.AssignStatic), newFakeStore()
	for p := range 3 {
		r.send(p, 5, 40)
	}
	e, stop := r.start(s, testBundle, nil)
	waitUntil(t, "first rows", func() bool { return s.count() == 600 })
	for p := range 3 {
		r.send(p, 5, 40)
	}
	waitUntil(t, "all rows", func() bool { return s.count() == 1200 })
	waitUntil(t, "closed intents", func() bool {
		for p := range 3 {
			if o, m := r.committed(p); o != 10 || m != "" {
				return false
			}
		}
		return true
	})
	stop()
	checkExactlyOnce(t, s.rows, 1200)
	for _, row := range s.rows {
		if bad := strings.HasPrefix(row.message, "bad"); bad != (len(row.rules) == 1) {
			t.Errorf("%q has verdicts %v", row.message, row.rules)
		}
		if row.ingested == 0 || row.group == "" {
			t.Errorf("row without block time or container: %+v", row)
		}
	}
	l := e.Ledger()
	if l.Messages != 30 || l.Events != 1200 || l.Rows != 1200 || l.Verdicts != 120 || l.Duplicates+l.DeadLettered+l.Lost+l.AlreadyStored+l.Rejected != 0 {
		t.Errorf("ledger %+v", l)
	}
	var published int
	for _, m := range r.read(pipeline.TopicAlerts, 0) {
		var a pipeline.Alert
		if err := json.Unmarshal(m.Value, &a); err != nil || string(m.Key) != a.Fingerprint {
			t.Errorf("alert %s: %v", m.Value, err)
		}
		published++
	}
	if uint64(published) != l.Revisions || published == 0 {
		t.Errorf("%d revisions on the topic, %d in the ledger", published, l.Revisions)
	}
}

func TestDuplicateBatchIsDroppedAlsoAfterARestart(t *testing.T) {
	r, s := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
	var sent [][]byte
	for range 10 {
		sent = append(sent, encode(t, r.batch(0, 5)))
	}
	r.produce(0, sent[:6]...)
	r.produce(0, sent[2], sent[5])
	e, stop := r.start(s, testBundle, nil)
	waitUntil(t, "rows", func() bool { return e.Ledger().Messages == 8 && s.count() == 30 })
	stop()
	r.produce(0, sent[5], sent[7], sent[6], sent[0], sent[7], sent[8], sent[9], sent[9])
	e, stop = r.start(s, testBundle, nil)
	waitUntil(t, "rows", func() bool { return e.Ledger().Messages == 8 && s.count() == 50 })
	stop()
	checkExactlyOnce(t, s.rows, 50)
	if l := e.Ledger(); l.Duplicates != 4 || l.DuplicateEvents != 20 {
		t.Errorf("ledger %+v", l)
	}
}

func TestInvalidBatchBecomesADeadLetter(t *testing.T) {
	r, s := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
	spoil := func(f func(b *pipeline.Batch)) []byte {
		b := r.batch(0, 0)
		b.Events = []*pipeline.Event{event(0)}
		f(b)
		return encode(t, b)
	}
	good := func() []byte { return encode(t, r.batch(0, 3)) }
	many := append(spoil(func(b *pipeline.Batch) { b.Events = nil }), []byte(strings.Repeat("\x52\x00", maxEventsPerBatch+1))...)
	r.produce(0,
		good(),
		[]byte("garbage"), []byte{0x52, 0xff},
		spoil(func(b *pipeline.Batch) { b.Schema = 0 }),
		spoil(func(b *pipeline.Batch) { b.Collector = b.Collector[:5] }),
		spoil(func(b *pipeline.Batch) { b.Partition = 3 }),
		spoil(func(b *pipeline.Batch) { b.Events[0].Id = nil }),
		many,
		good())
	e, stop := r.start(s, testBundle, nil)
	waitUntil(t, "rows", func() bool { return s.count() == 6 && e.Ledger().DeadLettered == 7 })
	waitUntil(t, "closed", func() bool { o, m := r.committed(0); return o == 9 && m == "" })
	stop()
	checkExactlyOnce(t, s.rows, 6)
	want := []string{"decode", "decode", "schema", "batch_id", "partition", "event_id", "too_many_events"}
	for i, m := range r.read(pipeline.TopicDeadLetter, 0) {
		h := map[string]string{}
		for _, x := range m.Headers {
			h[x.Key] = string(x.Value)
		}
		if h["reason"] != want[i] || h["offset"] != fmt.Sprint(i+1) || h["topic"] != "tidegate.events" || h["partition"] != "0" || h["error"] == "" {
			t.Errorf("letter %d: %v, want reason %s", i, h, want[i])
		}
		if i == 0 && string(m.Value) != "garbage" {
			t.Errorf("letter %d holds %q", i, m.Value)
		}
	}
}

func TestVerdictsInABatchAreDropped(t *testing.T) {
	r, s := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
	b := r.batch(0, 1)
	b.Events[0].Verdicts = []*pipeline.Verdict{{Rule: "forged", Severity: pipeline.Severity_CRITICAL}}
	b.Events[0].Ingested = 1
	r.produce(0, encode(t, b))
	_, stop := r.start(s, testBundle, nil)
	waitUntil(t, "rows", func() bool { return s.count() == 1 })
	stop()
	if row := s.rows[0]; len(row.rules) != 0 || row.ingested < testStart || len(s.alerts) != 0 {
		t.Errorf("%+v", row)
	}
}

func TestRejectedMessageIsFoundAndTheRestIsStored(t *testing.T) {
	r, s := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
	s.insert = func(rows []fakeRow, _ string) error {
		for _, row := range rows {
			if row.Offset == 5 || row.Offset == 11 {
				return errPermanent
			}
		}
		return nil
	}
	r.send(0, 16, 10)
	e, stop := r.start(s, testBundle, nil)
	waitUntil(t, "rows", func() bool { return s.count() == 140 && e.Ledger().DeadLettered == 2 })
	waitUntil(t, "closed", func() bool { o, m := r.committed(0); return o == 16 && m == "" })
	stop()
	seen := map[string]bool{}
	for _, row := range s.rows {
		if seen[row.id] || row.Offset == 5 || row.Offset == 11 {
			t.Errorf("row %s of offset %d", row.id, row.Offset)
		}
		seen[row.id] = true
	}
	l := e.Ledger()
	if l.Rejected != 20 || l.Rows != 140 || l.Verdicts != 14 {
		t.Errorf("ledger %+v", l)
	}
	for i, m := range r.read(pipeline.TopicDeadLetter, 0) {
		var b pipeline.Batch
		if err := b.UnmarshalVT(m.Value); err != nil || b.Sequence != []uint64{6, 12}[i] {
			t.Errorf("letter %d: sequence %d, %v", i, b.Sequence, err)
		}
	}
	for _, token := range s.order {
		if !strings.HasPrefix(token, "tidegate.events/0/") || !strings.Contains(token, "#") {
			t.Errorf("token %s", token)
		}
	}
}

func TestInsertIsRepeatedUntilItSucceedsAndStoredOnce(t *testing.T) {
	r, s := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
	var n atomic.Int32
	s.insert = func([]fakeRow, string) error {
		switch n.Add(1) {
		case 1, 2:
			return errPassing
		case 3, 4:
			return errAfter
		}
		return nil
	}
	r.send(0, 3, 10)
	e, stop := r.start(s, testBundle, nil)
	waitUntil(t, "closed", func() bool { o, m := r.committed(0); return o == 3 && m == "" })
	stop()
	checkExactlyOnce(t, s.rows, 30)
	if l := e.Ledger(); l.Rows != 30 {
		t.Errorf("ledger %+v", l)
	}
}

// TestOldInsertLooksUpExistingRows: the server forgets tokens, so an insert that is tried for long is not
// simply repeated.
func TestOldInsertLooksUpExistingRows(t *testing.T) {
	r, s := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
	s.keepsNoTokens = true
	var n atomic.Int32
	s.insert = func([]fakeRow, string) error {
		if n.Add(1) == 1 {
			return errAfter
		}
		return nil
	}
	r.send(0, 3, 10)
	e, stop := r.start(s, testBundle, func(c *Config, _ *Deps) { c.VerifyAfter = time.Millisecond })
	_ = e
	waitUntil(t, "closed", func() bool { o, m := r.committed(0); return o == 3 && m == "" })
	stop()
	checkExactlyOnce(t, s.rows, 30)
	if l := e.Ledger(); l.AlreadyStored != 30 || l.Rows != 0 {
		t.Errorf("ledger %+v", l)
	}
}

func TestOpenIntentIsReplayedWithItsBoundsTimeAndBundle(t *testing.T) {
	r, s := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
	r.send(0, 10, 10)
	at := testStart + 12345
	r.commit(0, 2, fmt.Sprintf("v1 7 %d 0 v1", at))
	// Of the block [2,7) the store holds a part, as after a bisected insert.
	for i := range 10 {
		s.rows = append(s.rows, fakeRow{Position: pipeline.Position{Offset: 3, Index: uint32(i), BatchID: pipeline.BatchID{Collector: testCollector, Epoch: 7, Sequence: 4}}, id: fmt.Sprintf("%x", event(30+i).Id), ingested: at})
	}
	e, stop := r.start(s, testBundle, nil)
	waitUntil(t, "rows", func() bool { return s.count() == 80 })
	stop()
	if s.order[0] != fmt.Sprintf("tidegate.events/0/2-7@%d", at) {
		t.Errorf("first token %s", s.order[0])
	}
	for _, row := range s.rows {
		if (row.Offset < 7) != (row.ingested == at) {
			t.Errorf("offset %d has block time %d", row.Offset, row.ingested)
		}
	}
	if l := e.Ledger(); l.AlreadyStored != 10 || l.Rows != 70 || e.metrics.reevaluated.Load() != 0 {
		t.Errorf("ledger %+v, rejudged %d", l, e.metrics.reevaluated.Load())
	}
}

func TestReplayByOtherRulesIsCounted(t *testing.T) {
	r, s := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
	r.send(0, 3, 10)
	r.commit(0, 0, fmt.Sprintf("v1 3 %d 0 gone", testStart))
	e, stop := r.start(s, testBundle, nil)
	waitUntil(t, "rows", func() bool { return s.count() == 30 })
	stop()
	if e.metrics.reevaluated.Load() != 1 {
		t.Errorf("rejudged %d", e.metrics.reevaluated.Load())
	}
}

func TestWithoutAnOffsetTheEngineStartsBehindTheRows(t *testing.T) {
	r, s := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
	r.send(0, 6, 10)
	_, stop := r.start(s, testBundle, func(c *Config, _ *Deps) { c.Group = "one" })
	waitUntil(t, "rows", func() bool { return s.count() == 60 })
	stop()
	r.send(0, 2, 10)
	e, stop := r.start(s, testBundle, func(c *Config, _ *Deps) { c.Group = "two" })
	waitUntil(t, "rows", func() bool { return s.count() == 80 })
	stop()
	checkExactlyOnce(t, s.rows, 80)
	if l := e.Ledger(); l.Messages != 2 {
		t.Errorf("ledger %+v", l)
	}
}

func TestExpiredMessagesAreCountedAsLost(t *testing.T) {
	r, s := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
	r.send(0, 10, 10)
	r.commit(0, 2, "")
	topic := r.client.Topic(pipeline.TopicEvents)
	deleteRecordsBefore(t, r, topic, 6)
	e, stop := r.start(s, testBundle, nil)
	waitUntil(t, "rows", func() bool { return s.count() == 40 })
	stop()
	if l := e.Ledger(); l.Lost != 4 || l.Messages != 4 {
		t.Errorf("ledger %+v", l)
	}
}

// TestTopicCreatedAnewIsReadFromItsBeginning: the committed offset and the rows are of an earlier topic.
// The messages are new, except for batches that a collector sends again.
func TestTopicCreatedAnewIsReadFromItsBeginning(t *testing.T) {
	r, s := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
	again := encode(t, r.batch(0, 10))
	r.produce(0, again)
	r.send(0, 9, 10)
	_, stop := r.start(s, testBundle, nil)
	waitUntil(t, "rows", func() bool { return s.count() == 100 })
	stop()
	r2 := newHarness(t, 1, kafka.AssignStatic)
	r2.sequences[0], r2.events = r.sequences[0], r.events
	r2.commit(0, 10, "")
	r2.produce(0, again)
	r2.send(0, 4, 10)
	e, stop := r2.start(s, testBundle, nil)
	waitUntil(t, "rows", func() bool { return s.count() == 140 })
	stop()
	checkExactlyOnce(t, s.rows, 140)
	if l := e.Ledger(); l.Duplicates != 1 || l.AlreadyStored != 0 {
		t.Errorf("ledger %+v", l)
	}
	// Once more, while the new log is still shorter than the old one.
	r2.send(0, 3, 10)
	_, stop = r2.start(s, testBundle, nil)
	waitUntil(t, "rows", func() bool { return s.count() == 170 })
	stop()
	checkExactlyOnce(t, s.rows, 170)
}

func TestPanickingDetectorCostsOneVerdict(t *testing.T) {
	r, s := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
	r.send(0, 2, 50)
	bundle := &pipeline.Bundle{Version: "v1", Detectors: []pipeline.Detector{panickingDetector{}, badLineDetector{}}}
	e, stop := r.start(s, bundle, nil)
	waitUntil(t, "rows", func() bool { return s.count() == 100 })
	stop()
	checkExactlyOnce(t, s.rows, 100)
	for i, row := range s.rows {
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
	if e.metrics.detectorPanics.Load() != 1 {
		t.Errorf("panics %d", e.metrics.detectorPanics.Load())
	}
}

// panickingDetector writes a verdict onto every event and panics on one of them.
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
	r, s := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
	r.send(0, 40, 30)
	var most atomic.Int64
	s.insert = func(rows []fakeRow, _ string) error { most.Store(max(most.Load(), int64(len(rows)))); return nil }
	_, stop := r.start(s, testBundle, func(c *Config, _ *Deps) { c.BlockRows = 100 })
	waitUntil(t, "rows", func() bool { return s.count() == 1200 })
	stop()
	checkExactlyOnce(t, s.rows, 1200)
	if most.Load() != 90 {
		t.Errorf("a block had %d rows", most.Load())
	}
}

func TestGroupSharesPartitionsAndRevokesThemWithoutDuplicates(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	r, s := newHarness(t, 4, kafka.AssignGroup), newFakeStore()
	for p := range 4 {
		r.send(p, 10, 10)
	}
	one, stopOne := r.start(s, testBundle, nil)
	waitUntil(t, "rows", func() bool { return s.count() == 400 })
	two, stopTwo := r.start(s, testBundle, nil)
	for i := 0; two.Ledger().Rows == 0 && i < 200; i++ {
		for p := range 4 {
			r.send(p, 1, 10)
		}
		time.Sleep(50 * time.Millisecond)
	}
	if two.Ledger().Rows == 0 {
		t.Fatal("the second member got nothing")
	}
	stopOne()
	for p := range 4 {
		r.send(p, 5, 10)
	}
	waitUntil(t, "rows", func() bool { return s.count() == r.events })
	stopTwo()
	checkExactlyOnce(t, s.rows, r.events)
	if n := one.Ledger().Rows + two.Ledger().Rows; n != uint64(r.events) {
		t.Errorf("%d rows by two engines, %d events", n, r.events)
	}
}

// TestFencedWorkerStops: in static assignment the partition is lost for good to a process that joined the
// group.
func TestFencedWorkerStops(t *testing.T) {
	r, s := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
	g, err := kafkago.NewConsumerGroup(kafkago.ConsumerGroupConfig{
		ID: "tidegate-engine", Brokers: r.client.Brokers(), Topics: []string{r.client.Topic(pipeline.TopicEvents)}, JoinGroupBackoff: 100 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	for {
		if _, err := g.Next(context.Background()); err == nil {
			break
		}
	}
	r.send(0, 1, 10)
	e, err := New(Default(), Deps{Kafka: r.client, Store: s}, discardLog, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := e.Run(ctx); err == nil || !strings.Contains(err.Error(), "another member") {
		t.Errorf("fenced engine ended with %v", err)
	}
	if s.count() != 0 {
		t.Errorf("a fenced engine stored %d rows", s.count())
	}
}
