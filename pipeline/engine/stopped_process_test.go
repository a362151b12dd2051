package engine

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"tidegate/pipeline/kafka"
)

// TestStoppedProcessStoresNothingAfterItsPartitionIsTaken: an engine is stopped at a failpoint until another one has
// its partitions and has finished its block, and then goes on. The store keeps no tokens.
func TestStoppedProcessStoresNothingAfterItsPartitionIsTaken(t *testing.T) {
	for _, failpoint := range []string{AfterIntent, AfterInsert} {
		t.Run(failpoint, func(t *testing.T) {
			database := "zombie_" + strings.ReplaceAll(failpoint, "-", "_")
			scenario := newScenario(t, database, newHarness(t, 1, kafka.AssignGroup), 1, kafka.AssignGroup)
			execute(t, scenario.store,
				"ALTER TABLE events MODIFY SETTING non_replicated_deduplication_window = 0",
				"ALTER TABLE alert_revisions MODIFY SETTING non_replicated_deduplication_window = 0")
			scenario.send(0, 8, 17)
			child := scenario.childConfig
			child.Failpoint, child.Passage, child.Stop = failpoint, 2, true
			stopped, out := startChild(t, child)
			waitUntil(t, "a stopped process", func() bool { return isStopped(stopped.Process.Pid) })

			survivor, survivorOut := startChild(t, scenario.childConfig)
			scenario.send(0, 4, 17)
			scenario.waitClosed(1, 12)
			_ = stopped.Process.Signal(syscall.SIGCONT)
			waitUntil(t, "the end of the stopped process's block", func() bool {
				return strings.Contains(out.String(), "partition lost")
			})
			_ = stopped.Process.Signal(syscall.SIGTERM)
			_ = survivor.Process.Signal(syscall.SIGTERM)
			if err := stopped.Wait(); err != nil {
				t.Errorf("the stopped process ended with %v: %s", err, out)
			}
			if err := survivor.Wait(); err != nil {
				t.Errorf("the survivor ended with %v: %s", err, survivorOut)
			}
			scenario.checkStoredOnce(t)
			scenario.checkAlerts(t)
		})
	}
}

// TestElapsedTimeCountsASuspendedMachine: the monotonic clock stands still, or the wall clock is set.
func TestElapsedTimeCountsASuspendedMachine(t *testing.T) {
	start := time.Now()
	if got := elapsed(start, start.Add(3*time.Second)); got != 3*time.Second {
		t.Errorf("both clocks: %v", got)
	}
	// A time without a monotonic part is compared by the wall clock.
	wall := start.Round(0)
	for _, step := range []time.Duration{-time.Hour, time.Hour} {
		if got := elapsed(wall, wall.Add(step)); got != time.Hour {
			t.Errorf("the wall clock moved by %v: %v", step, got)
		}
	}
}
