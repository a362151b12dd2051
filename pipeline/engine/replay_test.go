package engine

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/kafka"
)

// TestOldDuplicateIsRecognised: a host or the engine was off for longer than the lookback of the duplicate
// filter. A batch that was stored before counts as a duplicate, and a new batch of the same producer is
// stored.
func TestOldDuplicateIsRecognised(t *testing.T) {
	harness, store := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
	var sent [][]byte
	for range 8 {
		sent = append(sent, encode(t, harness.batch(0, 5)))
	}
	harness.produce(0, sent[:6]...)
	_, stop := harness.start(store, testBundle, nil)
	waitUntil(t, "rows", func() bool { return store.count() == 30 })
	stop()

	// The rows are older than the lookback now.
	for i := range store.rows {
		store.rows[i].ingested -= int64(100 * time.Hour)
	}
	harness.produce(0, sent[5], sent[2], sent[6], sent[7], sent[6])
	engine, stop := harness.start(store, testBundle, func(c *Config, _ *Deps) { c.DedupLookback = 48 * time.Hour })
	waitUntil(t, "rows", func() bool { return engine.Ledger().Messages == 5 && store.count() >= 40 })
	stop()
	checkExactlyOnce(t, store.rows, 40)
	if ledger := engine.Ledger(); ledger.Duplicates != 3 {
		t.Errorf("ledger %+v", ledger)
	}
}

// TestRowsAreInsertedWhenOnlyTheirTokenWasKept: a server that was killed within an insert has kept the token
// and not the rows. The rows are stored once all the same, also if the engine was killed too.
func TestRowsAreInsertedWhenOnlyTheirTokenWasKept(t *testing.T) {
	for _, restart := range []bool{false, true} {
		if restart && testing.Short() {
			break // it takes seconds
		}
		harness, store := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
		failing := true
		store.insert = func(_ []fakeRow, token string) error {
			if failing && !strings.HasSuffix(token, "~") {
				store.tokens[token] = true
				return errPassing
			}
			return nil
		}
		harness.send(0, 3, 20)
		engine, stop := harness.start(store, testBundle, nil)
		waitUntil(t, "an insert that failed", func() bool {
			store.mu.Lock()
			defer store.mu.Unlock()
			return len(store.tokens) > 0
		})
		if restart {
			stop()
		}
		store.mu.Lock()
		failing = false
		store.mu.Unlock()
		if restart {
			engine, stop = harness.start(store, testBundle, nil)
		}

		waitUntil(t, "rows", func() bool { return store.count() >= 60 })
		harness.waitClosed(1, 3)
		stop()
		checkExactlyOnce(t, store.rows, 60)
		if ledger := engine.Ledger(); ledger.Rows != 60 {
			t.Errorf("ledger %+v", ledger)
		}
	}
}

// TestRowsOfAnEarlierTopicAreNotTakenForExisting: the topic was created anew and has grown longer than
// before. An engine was killed within a block, and the store holds rows of the earlier topic at the same
// offsets.
func TestRowsOfAnEarlierTopicAreNotTakenForExisting(t *testing.T) {
	harness, store := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
	storeRows := func(epoch uint64, ingested int64, count int, id func(n int) string) {
		for i := range count {
			batchID := pipeline.BatchID{Collector: testCollector, Epoch: epoch, Sequence: uint64(i/10) + 1}
			store.rows = append(store.rows, fakeRow{
				Position: pipeline.Position{Offset: int64(i / 10), Index: uint32(i % 10), BatchID: batchID},
				id:       id(i), ingested: ingested,
			})
		}
	}
	storeRows(1, testStart-1, 60, func(int) string { return "old" })
	storeRows(7, testStart, 20, func(n int) string { return fmt.Sprintf("%x", event(n).Id) })
	store.tokens[fmt.Sprintf("tidegate.events/0/2-5@%d", testStart)] = true
	harness.send(0, 10, 10)
	harness.commit(0, 2, fmt.Sprintf("v1 5 %d 0 v1", testStart+1))
	_, stop := harness.start(store, testBundle, nil)
	waitUntil(t, "rows", func() bool { return store.count() == 60+100 })
	stop()
	seen := map[string]int{}
	for _, row := range store.rows {
		seen[row.id]++
	}
	for i := range 100 {
		if id := fmt.Sprintf("%x", event(i).Id); seen[id] != 1 {
			t.Errorf("event %d is stored %d times", i, seen[id])
		}
	}
}

// TestAlertsAreInsertedWhenOnlyTheirTokenWasKept: a server that was killed within an insert of alerts has
// kept the token and not the alerts.
func TestAlertsAreInsertedWhenOnlyTheirTokenWasKept(t *testing.T) {
	harness, store := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
	tries := 0
	store.insertAlerts = func(token string) (bool, error) {
		tries++
		switch {
		case tries == 1:
			return false, errPassing
		case strings.HasSuffix(token, "~"):
			return true, nil
		}
		return false, nil // the token is known: the insert succeeds and stores nothing
	}
	harness.send(0, 3, 20)
	engine, stop := harness.start(store, testBundle, nil)
	harness.waitClosed(1, 3)
	stop()
	store.mu.Lock()
	defer store.mu.Unlock()
	if ledger := engine.Ledger(); ledger.Revisions == 0 || len(store.alerts) != int(ledger.Revisions) {
		t.Errorf("%d revisions are stored, ledger %+v", len(store.alerts), ledger)
	}
	harness.checkWarnings(`WARN msg=retrying partition=0 what="insert alerts" attempt=1 err=temporary`,
		`ERROR msg="store acknowledged alerts that it does not hold, inserting them again" partition=0 token=tidegate\.signals/0/0-1@[0-9]+ alerts=`+
			fmt.Sprint(len(store.alerts)))
}
