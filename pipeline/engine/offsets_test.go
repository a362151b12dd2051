package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/kafka"
)

// runUntilClosed runs a child until every message is processed, and returns its ledger.
func (s *scenario) runUntilClosed(t *testing.T) Ledger {
	t.Helper()
	cmd, out := startChild(t, s.childConfig)
	waitUntil(t, "an engine that works", func() bool {
		return strings.Count(out.String(), "partition assigned") >= s.partitions
	})
	for partition := range s.partitions {
		_, end := s.bounds(pipeline.TopicEvents, partition)
		waitUntil(t, "closed intents", func() bool { return s.isClosed(partition, end) })
	}
	waitUntil(t, "folded signals", s.areFolded)
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("engine ended with %v: %s", err, out)
	}
	return ledgerOf(t, out)
}

// ledgerOf returns the ledger that a child has printed at its end.
func ledgerOf(t *testing.T, out *childOutput) (ledger Ledger) {
	t.Helper()
	_, line, found := strings.Cut(out.String(), ledgerPrefix)
	if err := json.NewDecoder(strings.NewReader(line)).Decode(&ledger); !found || err != nil {
		t.Fatalf("the child has printed no ledger: %v: %s", err, out)
	}
	return ledger
}

// runUntilKilled runs a child until it kills itself.
func (s *scenario) runUntilKilled(t *testing.T, failpoint string, passage int32) {
	t.Helper()
	child := s.childConfig
	child.Failpoint, child.Passage = failpoint, passage
	cmd, out := startChild(t, child)
	waitKilled(t, cmd, out)
}

// TestBlockThatHoldsStoredMessagesIsReplayedWithoutThem: the offset was set back or lost, and the next
// engine, whose first block holds messages that are stored, is killed within that block.
func TestBlockThatHoldsStoredMessagesIsReplayedWithoutThem(t *testing.T) {
	for name, change := range map[string]func(s *scenario){
		"set back": func(s *scenario) { s.commit(0, 3, "") },
		"lost":     func(s *scenario) { s.deleteGroup() },
	} {
		for _, failpoint := range []string{AfterIntent, AfterInsert, AfterAlertsInsert} {
			t.Run(name+" "+failpoint, func(t *testing.T) {
				database := "again_" + strings.NewReplacer(" ", "_", "-", "_").Replace(name+failpoint)
				scenario := newScenario(t, database, newHarness(t, 1, kafka.AssignStatic), 1, kafka.AssignStatic)
				scenario.childConfig.Rows = 100
				scenario.send(0, 8, 10)
				scenario.runUntilClosed(t)
				change(scenario)
				scenario.send(0, 4, 10)
				scenario.runUntilKilled(t, failpoint, 1)
				scenario.finish(t)
			})
		}
	}
}

// TestOffsetsBehindTheRowsStoreNothingTwice: the committed offset is set back, lost, or an old one with an
// old intent, after the engine was stopped or was killed within a block. Each event is stored once, and
// alerts are as without it.
func TestOffsetsBehindTheRowsStoreNothingTwice(t *testing.T) {
	for name, change := range map[string]func(s *scenario, intents []string){
		"earliest":   func(s *scenario, _ []string) { s.commit(0, 0, "") },
		"six back":   func(s *scenario, _ []string) { offset, _ := s.committed(0); s.commit(0, max(0, offset-6), "") },
		"one on":     func(s *scenario, _ []string) { offset, _ := s.committed(0); s.commit(0, offset+1, "") },
		"no group":   func(s *scenario, _ []string) { s.deleteGroup() },
		"old intent": func(s *scenario, intents []string) { s.commit(0, 4, intents[0]) },
	} {
		for _, failpoint := range []string{"", AfterInsert, AfterAlertsInsert} {
			if name == "one on" && failpoint == "" {
				continue // the next message would be left out, as asked for
			}
			t.Run(name+" "+failpoint, func(t *testing.T) {
				database := "offsets_" + strings.NewReplacer(" ", "_", "-", "_").Replace(name+failpoint)
				scenario := newScenario(t, database, newHarness(t, 1, kafka.AssignStatic), 1, kafka.AssignStatic)
				scenario.send(0, 4, 17)
				scenario.runUntilClosed(t)
				scenario.send(0, 2, 17)
				scenario.runUntilKilled(t, AfterIntent, 1)
				_, intent := scenario.committed(0)
				scenario.runUntilClosed(t)

				scenario.send(0, 12, 17)
				if failpoint == "" {
					scenario.runUntilClosed(t)
				} else {
					scenario.runUntilKilled(t, failpoint, 2)
				}
				change(scenario, []string{intent})
				scenario.send(0, 3, 17)
				scenario.finish(t)

				// Again, from the beginning, while nothing new arrives.
				scenario.commit(0, 0, "")
				scenario.finish(t)
			})
		}
	}
}

// TestMessagesBetweenStoredOnesAreStored: the offset was set forward, so that messages were left out, and
// back again to fetch them. More than a window of sequences lies between.
func TestMessagesBetweenStoredOnesAreStored(t *testing.T) {
	scenario := newScenario(t, "offsets_forward", newHarness(t, 1, kafka.AssignStatic), 1, kafka.AssignStatic)
	scenario.send(0, 200, 3)
	scenario.commit(0, 150, "")
	scenario.runUntilClosed(t)
	scenario.commit(0, 20, "")
	scenario.runUntilKilled(t, AfterInsert, 3) // in the middle of the gap
	scenario.runUntilClosed(t)
	scenario.commit(0, 0, "")
	scenario.runUntilClosed(t)
	scenario.checkStoredOnce(t)
}

// TestRowsOlderThanTheLookbackAreNotStoredTwice: the offset is set back to messages that are older than the
// lookback of the duplicate filter, of a producer that is still active.
func TestRowsOlderThanTheLookbackAreNotStoredTwice(t *testing.T) {
	harness, store := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
	harness.produceAt = time.Now().Add(-100 * time.Hour)
	harness.send(0, 6, 5)
	short := func(c *Config, _ *Deps) { c.DedupLookback = 48 * time.Hour }
	_, stop := harness.start(store, testBundle, short)
	harness.waitClosed(1, 6)
	stop()
	for i := range store.rows {
		store.rows[i].ingested -= int64(100 * time.Hour)
	}
	harness.produceAt = time.Time{}
	harness.send(0, 4, 5)
	_, stop = harness.start(store, testBundle, short)
	harness.waitClosed(1, 10)
	stop()

	harness.commit(0, 0, "")
	engine, stop := harness.start(store, testBundle, short)
	harness.waitClosed(1, 10)
	stop()
	checkExactlyOnce(t, store.rows, 50)
	if ledger := engine.Ledger(); ledger.Duplicates != 10 || ledger.DuplicateEvents != 50 || ledger.Rows != 0 {
		t.Errorf("ledger %+v", ledger)
	}
}

// TestTopicCreatedAnewLosesNoAlert: the store holds rows of an earlier topic. An engine is killed around the
// inserts of a block of the new one, while that is shorter than the earlier one and when it is longer.
func TestTopicCreatedAnewLosesNoAlert(t *testing.T) {
	for _, failpoint := range []string{AfterIntent, AfterInsert, AfterAlertsInsert} {
		for name, batches := range map[string]int{"shorter": 7, "longer": 40} {
			t.Run(name+" "+failpoint, func(t *testing.T) {
				database := "anew_" + name + strings.ReplaceAll(failpoint, "-", "_")
				scenario := newScenario(t, database, newHarness(t, 1, kafka.AssignStatic), 1, kafka.AssignStatic)
				scenario.send(0, 20, 17)
				scenario.runUntilClosed(t)
				scenario.recreateTopic(pipeline.TopicEvents)
				scenario.send(0, batches, 17)
				scenario.commit(0, 20*min(1, int64(batches/21)), "") // a broker may keep the offset of the earlier topic
				scenario.runUntilKilled(t, failpoint, 2)
				scenario.send(0, 3, 17)
				scenario.finish(t)
			})
		}
	}
}

func TestIntentOfANewerVersionIsAnError(t *testing.T) {
	harness, store := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
	harness.send(0, 1, 1)
	harness.commit(0, 0, "v9 1 2 3")
	engine, err := New(Default(), Deps{Kafka: harness.client, Store: store}, discardLog, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := engine.Run(ctx); err == nil || !strings.Contains(fmt.Sprint(err), "newer version") {
		t.Errorf("engine ended with %v", err)
	}
}
