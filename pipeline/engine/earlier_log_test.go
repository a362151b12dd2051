package engine

import (
	"strings"
	"testing"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/kafka"
)

// TestRowsOfAnEarlierLogHideNoMessage: the store holds rows of an earlier topic of 20 messages. In the new one, which
// is shorter or longer, an engine is killed within a block, and its offset is lost, set back or an old one with an
// old intent. Each event is stored once, and alerts are as without it.
func TestRowsOfAnEarlierLogHideNoMessage(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a minute")
	}
	const shorter, longer = 12, 30
	check := func(name, failpoint string, batches int, change func(s *scenario, offset int64, oldIntent string)) {
		t.Run(name+" "+failpoint, func(t *testing.T) {
			database := "earlier_" + strings.NewReplacer(" ", "_", "-", "_").Replace(name+failpoint)
			scenario := newScenario(t, database, newHarness(t, 1, kafka.AssignStatic), 1, kafka.AssignStatic)
			scenario.send(0, 20, 17)
			scenario.runUntilClosed(t)
			scenario.recreateTopic(pipeline.TopicEvents)

			scenario.send(0, 3, 17)
			scenario.runUntilKilled(t, AfterIntent, 1)
			_, intent := scenario.committed(0)
			scenario.runUntilClosed(t)
			scenario.send(0, batches, 17)
			scenario.runUntilKilled(t, failpoint, 3)
			offset, _ := scenario.committed(0)
			change(scenario, offset, intent)
			scenario.finish(t)
		})
	}
	lose := func(s *scenario, _ int64, _ string) { s.deleteGroup() }
	check("lost", AfterInsert, longer, lose)
	check("lost", AfterAlertsInsert, longer, lose)
	check("earliest", AfterInsert, shorter, func(s *scenario, _ int64, _ string) { s.commit(0, 0, "") })
	check("one back", AfterInsert, longer, func(s *scenario, offset int64, _ string) { s.commit(0, offset-1, "") })
	check("no intent", AfterInsert, shorter, func(s *scenario, offset int64, _ string) { s.commit(0, offset, "") })
	check("old intent", AfterInsert, longer, func(s *scenario, _ int64, intent string) { s.commit(0, 0, intent) })
}

// TestTopicDeletedWithinABlockLosesNoAlert: an engine is killed when the rows of a block are stored, and its topic is
// deleted and created again, or loses the block. The alerts of the block are raised from its rows.
func TestTopicDeletedWithinABlockLosesNoAlert(t *testing.T) {
	for _, failpoint := range []string{AfterInsert, AfterAlertsInsert} {
		t.Run(failpoint, func(t *testing.T) {
			database := "deleted_" + strings.ReplaceAll(failpoint, "-", "_")
			scenario := newScenario(t, database, newHarness(t, 1, kafka.AssignStatic), 1, kafka.AssignStatic)
			scenario.send(0, 8, 17)
			scenario.runUntilClosed(t)
			scenario.send(0, 2, 17) // one block
			scenario.runUntilKilled(t, failpoint, 1)
			scenario.recreateTopic(pipeline.TopicEvents)
			scenario.send(0, 2, 17)
			scenario.finish(t)
		})
	}
}

// TestUnfinishedBlockOfADeletedTopicIsCounted: the topic was deleted before a block was stored.
func TestUnfinishedBlockOfADeletedTopicIsCounted(t *testing.T) {
	harness, store := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
	harness.send(0, 5, 10)
	_, stop := harness.start(store, testBundle, nil)
	harness.waitClosed(1, 5)
	stop()
	intent := intent{end: 12, time: time.Now().UnixNano(), shard: Default().Shard, bundle: "v1"}
	harness.recreateTopic(pipeline.TopicEvents)
	harness.commit(0, 5, intent.String())
	harness.send(0, 1, 10)
	engine, stop := harness.start(store, testBundle, nil)
	harness.waitClosed(1, 1)
	stop()
	checkExactlyOnce(t, store.rows, 60)
	if ledger := engine.Ledger(); ledger.Lost != 7 {
		t.Errorf("ledger %+v", ledger)
	}
}

// TestLostOffsetLosesNoDeadLetter: an engine is killed when the rows of a block are stored and its dead letters are
// not, and its offset is lost.
func TestLostOffsetLosesNoDeadLetter(t *testing.T) {
	scenario := newScenario(t, "lost_dead_letter", newHarness(t, 1, kafka.AssignStatic), 1, kafka.AssignStatic)
	scenario.send(0, 4, 17)
	scenario.runUntilClosed(t)
	scenario.produce(0, []byte("not a batch"))
	scenario.send(0, 1, 17)
	scenario.produce(0, []byte("not a batch either"))
	scenario.send(0, 1, 17)
	scenario.runUntilKilled(t, AfterInsert, 1)
	scenario.deleteGroup()
	scenario.runUntilClosed(t)
	scenario.checkStoredOnce(t)
	if letters := scenario.read(pipeline.TopicDeadLetter, 0); len(letters) != 2 {
		t.Errorf("%d dead letters, want 2", len(letters))
	}
}

// TestBlockTimesAscend: the block times of a partition ascend although the clock was set back, or the engine before
// had a clock that is ahead, unless that was far ahead.
func TestBlockTimesAscend(t *testing.T) {
	now := time.Now().UnixNano()
	check := func(last, want int64) {
		t.Helper()
		if got := nextBlockTime(last, now); got != want {
			t.Errorf("after a block at %+d: %+d, want %+d", last-now, got-now, want-now)
		}
	}
	check(0, now)
	check(now-1, now)
	check(now, now+1)
	check(now+int64(time.Minute), now+int64(time.Minute)+1)
	check(now+365*24*int64(time.Hour), now)
}

// TestClockSetBackHidesNoBlock: the engine's clock was a minute ahead. The next one is stopped when the rows of a
// block are stored and its alerts are not, and its offset is lost.
func TestClockSetBackHidesNoBlock(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits for the end of a stop")
	}
	harness, store := newHarness(t, 1, kafka.AssignStatic), newFakeStore()
	harness.send(0, 4, 10)
	_, stop := harness.start(store, testBundle, nil)
	harness.waitClosed(1, 4)
	stop()
	for i := range store.rows {
		store.rows[i].ingested += int64(time.Minute)
	}
	for id, alert := range store.alerts {
		alert.Ingested = alert.Ingested.Add(time.Minute)
		store.alerts[id] = alert
	}

	failed := make(chan struct{}, 100)
	store.insertAlerts = func(string) (bool, error) { failed <- struct{}{}; return false, errPassing }
	harness.send(0, 4, 10)
	_, stop = harness.start(store, testBundle, nil)
	<-failed
	stop()
	store.insertAlerts = nil
	harness.deleteGroup()
	harness.send(0, 4, 10)
	_, stop = harness.start(store, testBundle, nil)
	harness.waitClosed(1, 12)
	stop()
	checkExactlyOnce(t, store.rows, 120)
	counts := map[string]uint64{}
	for _, alert := range store.alerts {
		counts[alert.ID] = max(counts[alert.ID], alert.Count)
	}
	sum := uint64(0)
	for _, count := range counts {
		sum += count
	}
	if sum != 12 {
		t.Errorf("%d matches are in alerts, want 12", sum)
	}
}

// TestRowsThatAppearLaterAreStoredOnce: an engine is killed while the store works on its insert, which takes a second,
// and its offset is lost or set back.
func TestRowsThatAppearLaterAreStoredOnce(t *testing.T) {
	for name, change := range map[string]func(s *scenario){
		"lost":      func(s *scenario) { s.deleteGroup() },
		"no intent": func(s *scenario) { offset, _ := s.committed(0); s.commit(0, offset, "") },
		"as it was": func(*scenario) {},
	} {
		t.Run(name, func(t *testing.T) {
			database := "later_" + strings.ReplaceAll(name, " ", "_")
			scenario := newScenario(t, database, newHarness(t, 1, kafka.AssignStatic), 1, kafka.AssignStatic)
			scenario.send(0, 2, 10)
			scenario.runUntilClosed(t)
			execute(t, scenario.store, "ALTER TABLE events ADD CONSTRAINT slow CHECK sleepEachRow(0.04) = 0")
			scenario.send(0, 3, 10)
			cmd, _ := startChild(t, scenario.childConfig)
			from := pipeline.TopicPartition{Topic: scenario.client.Topic(pipeline.TopicEvents)}
			waitUntil(t, "a running insert", func() bool {
				running, err := scenario.store.RunningInserts(t.Context(), from)
				return err == nil && running > 0
			})
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			change(scenario)
			scenario.finish(t)
		})
	}
}
