package engine

import (
	"testing"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/kafka"
)

// recreateWhileRunning creates the events topic anew while an engine runs, several times: with fewer messages than
// before, with more at once, and while the engine is busy. It checks that every event is stored once.
func recreateWhileRunning(t *testing.T, harness *harness) {
	t.Helper()
	store := newFakeStore()
	blocked := make(chan struct{}, 1)
	store.insert = func([]fakeRow, string) error {
		select {
		case <-blocked:
			time.Sleep(2 * time.Second)
		default:
		}
		return nil
	}
	harness.send(0, 20, 10)
	engine, stop := harness.start(store, testBundle, nil)
	stored := func(what string) {
		t.Helper()
		waitUntil(t, "rows "+what, func() bool { return store.count() >= harness.events })
	}
	stored("before")

	harness.recreateTopic(pipeline.TopicEvents)
	harness.send(0, 5, 10)
	stored("of a shorter log")
	harness.send(0, 30, 10)
	stored("of a longer log")

	// The log outgrows the offset before it is fetched again.
	var values [][]byte
	for range 100 {
		values = append(values, encode(t, harness.batch(0, 10)))
	}
	harness.recreateTopic(pipeline.TopicEvents)
	harness.produce(0, values...)
	stored("of a log that has outgrown the offset")

	// The engine is busy while the topic is created anew.
	blocked <- struct{}{}
	harness.send(0, 1, 10)
	values = values[:0]
	for range 150 {
		values = append(values, encode(t, harness.batch(0, 10)))
	}
	harness.recreateTopic(pipeline.TopicEvents)
	harness.produce(0, values...)
	stored("of a log that was created while the engine was busy")
	harness.waitClosed(1, 150)
	stop()
	checkExactlyOnce(t, store.rows, harness.events)
	if ledger := engine.Ledger(); ledger.Lost != 0 || ledger.Rows != uint64(harness.events) || ledger.DeadLettered != 0 {
		t.Errorf("ledger %+v", ledger)
	}

	// An engine that starts anew finds nothing to store.
	engine, stop = harness.start(store, testBundle, nil)
	harness.send(0, 1, 10)
	stored("after a restart")
	stop()
	checkExactlyOnce(t, store.rows, harness.events)
	if ledger := engine.Ledger(); ledger.Messages != 1 {
		t.Errorf("ledger %+v", ledger)
	}
}

func TestTopicCreatedAnewWhileTheEngineRunsIsReadFromItsBeginning(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	for _, assign := range []string{kafka.AssignStatic, kafka.AssignGroup} {
		t.Run(assign, func(t *testing.T) { recreateWhileRunning(t, newHarness(t, 1, assign)) })
	}
}

func TestApacheTopicCreatedAnewWhileTheEngineRunsIsReadFromItsBeginning(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts Apache Kafka")
	}
	brokers := apacheKafka(t)
	for _, assign := range []string{kafka.AssignStatic, kafka.AssignGroup} {
		t.Run(assign, func(t *testing.T) {
			harness := harnessAt(t, brokers, 1, assign)
			recreateWhileRunning(t, harness)
			harness.deleteGroup()
			harness.recreateTopic(pipeline.TopicEvents)
		})
	}
}

// TestLastBlockOfADeletedLogIsCompleteBeforeTheNewOneCountsAsRead: an engine is killed between the rows and
// the alerts of a block, and the topic is created anew, without a message. An engine that is stopped as soon
// as all is processed by the committed offset has raised the alerts.
func TestLastBlockOfADeletedLogIsCompleteBeforeTheNewOneCountsAsRead(t *testing.T) {
	scenario := newScenario(t, "last_of_log", newHarness(t, 1, kafka.AssignStatic), 1, kafka.AssignStatic)
	scenario.send(0, 6, 10)
	scenario.runUntilKilled(t, AfterInsert, 2) // the rows of the second block are stored
	scenario.recreateTopic(pipeline.TopicEvents)
	scenario.finish(t)
}
