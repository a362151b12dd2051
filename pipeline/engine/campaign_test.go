//go:build campaign

package engine

import (
	"math/rand/v2"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/kafka"
)

// A fault is something that a machine or a person does to a running system. It ends with no engine running.
type fault struct {
	name  string
	apply func(t *testing.T, s *scenario, rnd *rand.Rand)
}

var faults = []fault{
	{"kill", killAtRandom},
	{"offset set back", func(t *testing.T, s *scenario, rnd *rand.Rand) {
		t.Helper()
		killAtRandom(t, s, rnd)
		partition := rnd.IntN(s.partitions)
		offset, _ := s.committed(partition)
		s.commit(partition, rnd.Int64N(max(1, offset)), "")
	}},
	{"offsets lost", func(t *testing.T, s *scenario, rnd *rand.Rand) {
		t.Helper()
		killAtRandom(t, s, rnd)
		for partition := range s.partitions { // a group that never started has read nothing
			s.waitStored(t, partition)
		}
		s.deleteGroup()
	}},
	{"topic created anew", func(t *testing.T, s *scenario, _ *rand.Rand) {
		t.Helper()
		s.runUntilClosed(t)
		s.recreateTopic(pipeline.TopicEvents)
	}},
	{"failing view", func(t *testing.T, s *scenario, _ *rand.Rand) {
		t.Helper()
		execute(t, s.store,
			"CREATE MATERIALIZED VIEW IF NOT EXISTS failing ENGINE = MergeTree ORDER BY n AS SELECT toUInt32(message) AS n FROM events")
		s.runUntilClosed(t)
		execute(t, s.store, "DROP VIEW IF EXISTS failing")
	}},
	{"dead letters without a topic", func(t *testing.T, s *scenario, _ *rand.Rand) {
		t.Helper()
		s.recreateTopic(pipeline.TopicDeadLetter)
		invalid := &pipeline.Batch{Collector: testCollector[:], Epoch: 999, Sequence: uint64(s.events)}
		s.produce(0, encode(t, invalid))
		s.runUntilClosed(t)
	}},
	{"stop and go on", func(t *testing.T, s *scenario, rnd *rand.Rand) {
		t.Helper()
		child := s.childConfig
		child.Failpoint, child.Passage, child.Stop = AfterIntent, 1+int32(rnd.IntN(2)), true
		cmd, out := startChild(t, child)
		waitUntil(t, "a stopped process", func() bool { return isStopped(cmd.Process.Pid) })
		time.Sleep(1200 * time.Millisecond)
		_ = cmd.Process.Signal(syscall.SIGCONT)
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Fatalf("engine ended with %v: %s", err, out)
		}
	}},
}

func killAtRandom(t *testing.T, s *scenario, rnd *rand.Rand) {
	t.Helper()
	s.runUntilKilled(t, Failpoints[rnd.IntN(len(Failpoints)-1)], 1+int32(rnd.IntN(2))) // without BeforeClose
}

// waitStored runs an engine if the store has no row of the partition yet.
func (s *scenario) waitStored(t *testing.T, partition int) {
	t.Helper()
	from := pipeline.TopicPartition{Topic: s.client.Topic(pipeline.TopicEvents), Partition: int32(partition)}
	hasRows := false
	waitUntil(t, "an answer of the store", func() bool {
		var err error
		_, hasRows, err = s.store.NewestRows(t.Context(), from, 0)
		return err == nil
	})
	if !hasRows {
		s.runUntilClosed(t)
	}
}

// TestEachEventIsStoredOnceThroughACampaignOfFaults: every kind of fault happens several times, in random order.
// TIDEGATE_CAMPAIGN is the number of faults, 28 if it is not set. With TIDEGATE_CAMPAIGN_KAFKA=apache the broker is
// Apache Kafka. The test is not part of `make test` yet, since it finds faults that are not mended:
//
//	go test -tags campaign -run CampaignOfFaults ./pipeline/engine
func TestEachEventIsStoredOnceThroughACampaignOfFaults(t *testing.T) {
	count := 4 * len(faults)
	if n, err := strconv.Atoi(os.Getenv("TIDEGATE_CAMPAIGN")); err == nil {
		count = n
	}
	var brokers *harness
	if os.Getenv("TIDEGATE_CAMPAIGN_KAFKA") == "apache" {
		brokers = harnessAt(t, apacheKafka(t), 2, kafka.AssignStatic)
	} else {
		brokers = newHarness(t, 2, kafka.AssignStatic)
	}
	scenario := newScenario(t, "campaign", brokers, 2, kafka.AssignStatic)
	rnd := rand.New(rand.NewPCG(14, uint64(count)))
	for i := range count {
		for partition := range scenario.partitions {
			scenario.send(partition, 4+rnd.IntN(6), 10+rnd.IntN(20))
		}
		fault := faults[(i+rnd.IntN(2)*rnd.IntN(len(faults)))%len(faults)]
		t.Logf("%d: %s, %d events", i, fault.name, scenario.events)
		fault.apply(t, scenario, rnd)
		isClosed := true
		for partition := range scenario.partitions {
			offset, intent := scenario.committed(partition)
			t.Logf("   partition %d: %d messages, committed %d %q", partition, len(scenario.read(pipeline.TopicEvents, partition)), offset, intent)
			isClosed = isClosed && scenario.isClosed(partition, int64(len(scenario.read(pipeline.TopicEvents, partition))))
		}
		if isClosed {
			scenario.checkStoredOnce(t)
			scenario.checkAlerts(t)
			if t.Failed() {
				t.FailNow()
			}
		}
	}
	scenario.finish(t)
}
