package engine

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"tidegate/pipeline/embedded/embeddedtest"
	"tidegate/pipeline/kafka"
)

// apacheKafka starts Apache Kafka 4.1 and returns its address.
func apacheKafka(t *testing.T) []string {
	t.Helper()
	addr, _ := startApacheKafka(t)
	return []string{addr}
}

// startApacheKafka starts Apache Kafka 4.1 and returns its address and its process.
func startApacheKafka(t *testing.T) (addr string, pid int) {
	t.Helper()
	return embeddedtest.ApacheKafka(t, "group.initial.rebalance.delay.ms=0\n")
}

// TestApacheKafkaReassignsThePartitionsOfAKilledMember: two engines are a consumer group on a real broker.
// One is killed within a block, the other finishes the block, and each event is stored once.
func TestApacheKafkaReassignsThePartitionsOfAKilledMember(t *testing.T) {
	scenario := newScenario(t, "apache", harnessAt(t, apacheKafka(t), 4, kafka.AssignGroup), 4, kafka.AssignGroup)
	for partition := range 4 {
		scenario.send(partition, 8, 25)
	}

	first := scenario.childConfig
	first.Failpoint, first.Passage = AfterIntent, 5
	killed, out := startChild(t, first)
	survivor, survivorOut := startChild(t, scenario.childConfig)
	for range 4 {
		for partition := range 4 {
			scenario.send(partition, 2, 25)
		}
		time.Sleep(200 * time.Millisecond)
	}

	waitKilled(t, killed, out)
	scenario.waitClosed(4, 16)
	_ = survivor.Process.Signal(syscall.SIGTERM)
	if err := survivor.Wait(); err != nil || strings.Contains(survivorOut.String(), "child:") {
		t.Errorf("the survivor ended with %v: %s", err, survivorOut)
	}
	scenario.checkStoredOnce(t)
	scenario.checkAlerts(t)
}
