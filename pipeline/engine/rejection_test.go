package engine

import (
	"bytes"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidegate/pipeline"
	"tidegate/pipeline/clickhouse"
	"tidegate/pipeline/embedded/embeddedtest"
	"tidegate/pipeline/kafka"
)

// execute runs statements in the database of the store.
func execute(t *testing.T, store *clickhouse.Store, statements ...string) {
	t.Helper()
	for _, statement := range statements {
		answer(t, store, statement)
	}
}

// answer returns the result of sql as TSV. It waits for a store that restarts: the embedded ClickHouse aborts now and
// then when a client is killed while it reads an answer.
func answer(t *testing.T, store *clickhouse.Store, sql string) *bytes.Buffer {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		out := &bytes.Buffer{}
		err := clickhouse.Query(t.Context(), store.Config(), sql, "TSV", out)
		if err == nil {
			return out
		}
		if !strings.Contains(err.Error(), "does not answer") || time.Now().After(end) {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

// newStoreScenario returns a scenario with one partition and a database of its own.
func newStoreScenario(t *testing.T, database string) *scenario {
	t.Helper()
	store := embeddedtest.Store(t, database, "http")
	return &scenario{harness: newHarness(t, 1, kafka.AssignStatic), store: store, partitions: 1}
}

func TestRowsAreStoredOnceWhileAMaterializedViewFails(t *testing.T) {
	// Errors that the rows seem to cause, and errors that seem temporary.
	for name, query := range map[string]string{
		"rejected_events":  "toUInt32(message) AS n FROM events",
		"temporary_events": "throwIf(1) AS n FROM events",
		"rejected_alerts":  "toUInt32(title) AS n FROM alert_revisions",
		"temporary_alerts": "throwIf(1) AS n FROM alert_revisions",
	} {
		t.Run(name, func(t *testing.T) {
			scenario := newStoreScenario(t, "view_"+name)
			execute(t, scenario.store,
				"CREATE MATERIALIZED VIEW failing ENGINE = MergeTree ORDER BY n AS SELECT "+query)
			scenario.send(0, 8, 20)
			engine, stop := scenario.start(scenario.store, testBundle, func(c *Config, _ *Deps) { c.BlockRows = 60 })
			scenario.waitClosed(1, 8)
			stop()
			scenario.checkStoredOnce(t)
			scenario.checkAlerts(t)
			ledger := engine.Ledger()
			if ledger.Rows != 160 || ledger.Rejected != 0 || ledger.DeadLettered != 0 || ledger.Events != 160 {
				t.Errorf("ledger %+v", ledger)
			}
			if engine.metrics.storedDespiteError.Load() == 0 || engine.metrics.alertsRejected.Load() != 0 {
				t.Errorf("%d inserts are counted as stored despite an error, %d alerts as rejected",
					engine.metrics.storedDespiteError.Load(), engine.metrics.alertsRejected.Load())
			}
		})
	}
}

func TestNothingIsADeadLetterWhileTheTableRejectsEveryMessage(t *testing.T) {
	scenario := newStoreScenario(t, "constraint")
	execute(t, scenario.store, "ALTER TABLE events ADD CONSTRAINT wrong CHECK length(message) > 1000")
	scenario.produce(0, []byte("garbage"))
	scenario.send(0, 5, 20)
	engine, stop := scenario.start(scenario.store, testBundle, func(c *Config, _ *Deps) { c.BlockRows = 60 })
	waitUntil(t, "refused blocks", func() bool { return engine.metrics.rejectedBlocks.Load() > 3 })
	scenario.send(0, 5, 20)
	if ledger := engine.Ledger(); ledger != (Ledger{}) {
		t.Errorf("ledger of a table that accepts nothing: %+v", ledger)
	}
	stop()

	// An engine that is started anew waits too, and goes on once the table is repaired.
	engine, stop = scenario.start(scenario.store, testBundle, func(c *Config, _ *Deps) { c.BlockRows = 60 })
	waitUntil(t, "refused blocks", func() bool { return engine.metrics.rejectedBlocks.Load() > 1 })
	execute(t, scenario.store, "ALTER TABLE events DROP CONSTRAINT wrong")
	scenario.waitClosed(1, 11)
	stop()
	scenario.checkStoredOnce(t)
	ledger := engine.Ledger()
	if ledger.Rejected != 0 || ledger.DeadLettered != 1 || ledger.Rows != 200 || ledger.Messages != 11 ||
		ledger.Events != 200 {
		t.Errorf("ledger %+v", ledger)
	}
	if letters := scenario.read(pipeline.TopicDeadLetter, 0); len(letters) != 1 {
		t.Errorf("%d dead letters", len(letters))
	}
}

// TestRejectedMessageWaitsForOneThatIsAccepted: a block of rejected messages only does not show whether they are at
// fault or the table. The next message that the store accepts shows it.
func TestRejectedMessageWaitsForOneThatIsAccepted(t *testing.T) {
	harness, store := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
	store.insert = func(rows []fakeRow, _ string) error {
		for _, row := range rows {
			if row.Offset < 2 {
				return errPermanent
			}
		}
		return nil
	}
	harness.send(0, 2, 10)
	engine, stop := harness.start(store, testBundle, nil)
	waitUntil(t, "refused blocks", func() bool { return engine.metrics.rejectedBlocks.Load() > 1 })
	harness.send(0, 1, 10)
	harness.waitClosed(1, 3)
	stop()
	ledger := engine.Ledger()
	if ledger.Rejected != 20 || ledger.DeadLettered != 2 || ledger.Rows != 10 || ledger.Verdicts != 1 ||
		ledger.Messages != 3 || ledger.Events != 30 {
		t.Errorf("ledger %+v", ledger)
	}
	harness.checkWarnings(
		`WARN msg="store rejected a block, bisecting it" partition=0 from=0 end=2 messages=2 err="for good: .*" suppressed=0`,
		`ERROR msg="store rejects every message, so its table is taken for the cause; nothing is stored until the table accepts a row" `+
			`partition=0 from=0 end=2 messages=2 suppressed=0 err="the store rejects every message of the block: for good: .*"`,
		`WARN msg="message written to the dead-letter topic" partition=0 offset=0 reason=rejected err="for good: .*" suppressed=0`)
}

// TestMessageWhoseRowsAreStoredIsNoDeadLetter: the store rejects every insert that holds the message at offset 3,
// and stores the rows of each.
func TestMessageWhoseRowsAreStoredIsNoDeadLetter(t *testing.T) {
	harness, store := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
	var inserts atomic.Int32
	store.insert = func(rows []fakeRow, _ string) error {
		inserts.Add(1)
		for _, row := range rows {
			if row.Offset == 3 {
				return errors.Join(errAfter, errPermanent)
			}
		}
		return nil
	}
	harness.send(0, 8, 10)
	engine, stop := harness.start(store, testBundle, nil)
	harness.waitClosed(1, 8)
	stop()
	checkExactlyOnce(t, store.rows, 80)
	if ledger := engine.Ledger(); ledger.Rows != 80 || ledger.DeadLettered != 0 || inserts.Load() != 1 {
		t.Errorf("%d inserts, ledger %+v", inserts.Load(), ledger)
	}
}

// TestLedgerAddsUp: a topic has messages of every kind, and the engine is stopped within a block.
func TestLedgerAddsUp(t *testing.T) {
	harness, store := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
	store.insert = func(rows []fakeRow, _ string) error {
		for _, row := range rows {
			if row.Offset == 2 {
				return errPermanent
			}
			if row.Offset >= 6 {
				return errPassing
			}
		}
		return nil
	}
	again := encode(t, harness.batch(0, 7))
	harness.produce(0, again, again)
	harness.send(0, 3, 10)
	harness.produce(0, []byte("garbage"))
	engine, stop := harness.start(store, testBundle, nil)
	harness.waitClosed(1, 6)
	harness.send(0, 2, 10)
	waitUntil(t, "a failed insert", func() bool { return retriesOf(t, engine, "insert") > 0 })
	stop()
	ledger := engine.Ledger()
	want := Ledger{
		Messages: 6, Events: 7 + 7 + 30 + 20, Duplicates: 1, DuplicateEvents: 7, DeadLettered: 2,
		Rows: 27, Rejected: 10, Unfinished: 20, Verdicts: ledger.Verdicts, Alerts: ledger.Alerts, Revisions: ledger.Revisions,
	}
	if ledger != want {
		t.Errorf("ledger %+v\nwant   %+v", ledger, want)
	}
}

// retriesOf returns how often an operation was tried again.
func retriesOf(t *testing.T, engine *Engine, operation string) float64 {
	t.Helper()
	var metric dto.Metric
	if err := engine.metrics.retries.WithLabelValues(operation).Write(&metric); err != nil {
		t.Fatal(err)
	}
	return metric.GetCounter().GetValue()
}

// TestDeadLetterThatNoTopicTakesIsCountedAsLost: the topic rejects every record, however short. The message is counted
// under a reason of its own, and the partition goes on. A dead letter that was written has the reason of its message.
func TestDeadLetterThatNoTopicTakesIsCountedAsLost(t *testing.T) {
	for _, rejects := range []bool{false, true} {
		cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(t.TempDir()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(cluster.Close)
		harness, store := harnessAt(t, cluster.ListenAddrs(), 1, kafka.AssignStatic), newFakeStore()
		harness.produce(0, []byte("garbage"))
		harness.send(0, 1, 10)
		if rejects {
			cluster.ControlKey(int16(kmsg.Produce), func(request kmsg.Request) (kmsg.Response, error, bool) {
				cluster.KeepControl()
				response, isRejected := rejectTopic(request, harness.client.Topic(pipeline.TopicDeadLetter))
				return response, nil, isRejected
			})
		}
		engine, stop := harness.start(store, testBundle, nil)
		harness.waitClosed(1, 2)
		stop()
		checkExactlyOnce(t, store.rows, 10)
		counted := func(reason string) float64 {
			var value dto.Metric
			if err := engine.metrics.deadLetters.WithLabelValues(reason).Write(&value); err != nil {
				t.Fatal(err)
			}
			return value.GetCounter().GetValue()
		}
		want, written := [2]float64{1, 0}, 1 // decode, unwritable; dead letters
		line := `WARN msg="message written to the dead-letter topic" partition=0 offset=0 reason=decode err=".*" suppressed=0`
		if rejects {
			want, written = [2]float64{0, 1}, 0
			line = `ERROR msg="message is lost: it can be processed no more than its dead letter can be written" partition=0 offset=0 ` +
				`reason=decode err="the dead-letter topic rejects the record in every length"`
		}
		harness.checkWarnings(line)
		if got := [2]float64{counted("decode"), counted("unwritable")}; got != want || engine.Ledger().DeadLettered != 1 {
			t.Errorf("rejected %t: %v counted, want %v; ledger %+v", rejects, got, want, engine.Ledger())
		}
		harness.readDeadLetters(written)
	}
}

// rejectTopic returns the response to a request that produces to a topic only: every record is too large.
func rejectTopic(request kmsg.Request, topic string) (response kmsg.Response, isRejected bool) {
	produce := request.(*kmsg.ProduceRequest)
	rejection := produce.ResponseKind().(*kmsg.ProduceResponse)
	for _, requested := range produce.Topics {
		if requested.Topic != topic {
			return nil, false
		}
		result := kmsg.NewProduceResponseTopic()
		result.Topic, result.TopicID = requested.Topic, requested.TopicID
		for _, partition := range requested.Partitions {
			partitionResult := kmsg.NewProduceResponseTopicPartition()
			partitionResult.Partition, partitionResult.ErrorCode = partition.Partition, kerr.MessageTooLarge.Code
			result.Partitions = append(result.Partitions, partitionResult)
		}
		rejection.Topics = append(rejection.Topics, result)
	}
	return rejection, true
}

// TestBlockIsFullAtEitherBound: rows and bytes bound a block each for itself.
func TestBlockIsFullAtEitherBound(t *testing.T) {
	w := &worker{Engine: &Engine{cfg: Config{BlockRows: 100, BlockBytes: 1000}}}
	for _, test := range []struct {
		rows  int
		bytes int64
		want  bool
	}{{0, 0, false}, {99, 999, false}, {100, 0, true}, {0, 1000, true}, {200, 2000, true}} {
		if got := w.isFull(&block{rows: test.rows, bytes: test.bytes}); got != test.want {
			t.Errorf("%d rows, %d bytes: full is %t, want %t", test.rows, test.bytes, got, test.want)
		}
	}
}
