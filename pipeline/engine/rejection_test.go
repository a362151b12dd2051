package engine

import (
	"bytes"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

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
	waitUntil(t, "refused blocks", func() bool { return engine.metrics.refusedBlocks.Load() > 3 })
	scenario.send(0, 5, 20)
	if ledger := engine.Ledger(); ledger != (Ledger{}) {
		t.Errorf("ledger of a table that accepts nothing: %+v", ledger)
	}
	stop()

	// An engine that is started anew waits too, and goes on once the table is repaired.
	engine, stop = scenario.start(scenario.store, testBundle, func(c *Config, _ *Deps) { c.BlockRows = 60 })
	waitUntil(t, "refused blocks", func() bool { return engine.metrics.refusedBlocks.Load() > 1 })
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
	waitUntil(t, "refused blocks", func() bool { return engine.metrics.refusedBlocks.Load() > 1 })
	harness.send(0, 1, 10)
	harness.waitClosed(1, 3)
	stop()
	ledger := engine.Ledger()
	if ledger.Rejected != 20 || ledger.DeadLettered != 2 || ledger.Rows != 10 || ledger.Verdicts != 1 ||
		ledger.Messages != 3 || ledger.Events != 30 {
		t.Errorf("ledger %+v", ledger)
	}
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
