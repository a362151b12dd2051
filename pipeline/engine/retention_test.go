package engine

import (
	"strings"
	"testing"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/kafka"
)

// deleteProcessed deletes messages of partition 0 whose rows are stored, as retention does.
func (s *scenario) deleteProcessed(before int64) {
	s.Helper()
	for _, message := range s.read(pipeline.TopicEvents, 0) {
		if message.Offset < before {
			s.earlier[0] = append(s.earlier[0], message)
		}
	}
	s.deleteRecordsBefore(pipeline.TopicEvents, 0, before)
}

// TestRetentionWithinAStoredBlockFalsifiesNoAlert: an engine is killed when the rows of a block are stored,
// and retention deletes a part of its messages, or all. Its alerts count the verdicts of all its rows, and no
// message is lost.
func TestRetentionWithinAStoredBlockFalsifiesNoAlert(t *testing.T) {
	for _, failpoint := range []string{AfterInsert, AfterAlertsInsert} {
		for name, before := range map[string]int64{"part": 8, "all": 10, "more": 13} {
			t.Run(name+" "+failpoint, func(t *testing.T) {
				database := "retention_" + strings.ReplaceAll(name+failpoint, "-", "_")
				scenario := newScenario(t, database, newHarness(t, 1, kafka.AssignStatic), 1, kafka.AssignStatic)
				scenario.childConfig.Rows = 100
				scenario.send(0, 5, 20)
				scenario.runUntilClosed(t)
				scenario.send(0, 5, 20) // one block, as the messages before
				scenario.runUntilKilled(t, failpoint, 1)
				if offset, intent := scenario.committed(0); offset != 5 || !strings.HasPrefix(intent, "v1 10 ") {
					t.Fatalf("committed %d %q", offset, intent)
				}
				scenario.send(0, 6, 20)
				lost := max(0, before-10)
				scenario.deleted = int(lost) * 20
				scenario.deleteProcessed(min(before, 10))
				scenario.deleteRecordsBefore(pipeline.TopicEvents, 0, before)
				if ledger := scenario.runUntilClosed(t); ledger.Lost != uint64(lost) {
					t.Errorf("%d messages are counted as lost, want %d", ledger.Lost, lost)
				}
				scenario.checkStoredOnce(t)
				scenario.checkAlerts(t)
			})
		}
	}
}

// TestOnlyUnreadMessagesAreLost: the committed offset lies before the log, or is lost. Of the messages that
// retention has deleted, those behind the newest row count as lost.
func TestOnlyUnreadMessagesAreLost(t *testing.T) {
	check := func(name string, before int64, lost uint64, change func(h *harness)) {
		t.Run(name, func(t *testing.T) {
			harness, store := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
			harness.send(0, 10, 10)
			_, stop := harness.start(store, testBundle, nil)
			harness.waitClosed(1, 10)
			stop()
			harness.send(0, 10, 10)
			change(harness)
			harness.deleteRecordsBefore(pipeline.TopicEvents, 0, before)
			engine, stop := harness.start(store, testBundle, nil)
			harness.waitClosed(1, 20)
			stop()
			again, stop := harness.start(store, testBundle, nil)
			harness.send(0, 1, 10)
			harness.waitClosed(1, 21)
			stop()
			if ledger := again.Ledger(); ledger.Lost != 0 || ledger.Messages != 1 {
				t.Errorf("the next engine has the ledger %+v", ledger)
			}
			if ledger := engine.Ledger(); ledger.Lost != lost || store.count() != 210-10*int(lost) {
				t.Errorf("%d rows, ledger %+v, want %d lost messages", store.count(), ledger, lost)
			}
		})
	}
	setBack := func(h *harness) { h.commit(0, 2, "") }
	check("set back, processed messages deleted", 6, 0, setBack)
	check("set back, all processed messages deleted", 10, 0, setBack)
	check("set back, unread messages deleted", 13, 3, setBack)
	check("set back, all messages deleted", 20, 10, setBack)
	check("lost, all messages deleted", 20, 10, (*harness).deleteGroup)
	check("as it was, all messages deleted", 20, 10, func(*harness) {})
	check("lost, unread messages deleted", 13, 3, (*harness).deleteGroup)
	check("as it was, unread messages deleted", 13, 3, func(*harness) {})
}

// TestAlertsFromRowsKnowWhenTheBatchWasShipped: an event has a time a year after its batch was shipped. An
// engine is killed when its row is stored, and its offset is lost, so that the alert is raised from the row.
// Its window is that of the time at which the batch was shipped.
func TestAlertsFromRowsKnowWhenTheBatchWasShipped(t *testing.T) {
	scenario := newScenario(t, "shipped", newHarness(t, 1, kafka.AssignStatic), 1, kafka.AssignStatic)
	scenario.send(0, 4, 10)
	scenario.runUntilClosed(t)
	batch := scenario.batch(0, 10)
	batch.Events[3].Timestamp += int64(365 * 24 * time.Hour)
	scenario.produce(0, encode(t, batch))
	scenario.runUntilKilled(t, AfterInsert, 1)
	scenario.deleteGroup()
	scenario.finish(t)
}
