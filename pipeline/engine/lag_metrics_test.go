package engine

import (
	"math"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline/metrics"
)

func TestLagIsUnknownWhileKafkaDoesNotAnswer(t *testing.T) {
	now := time.Now()
	check := func(what string, behind int64, newest, answered time.Duration, messages, seconds float64) {
		t.Helper()
		lag := partitionLag{behind: behind, lastAnswer: now.Add(-answered)}
		if newest != 0 {
			lag.newest = now.Add(-newest).UnixNano()
		}
		gotMessages, gotSeconds := lag.values(now)
		same := gotMessages == messages || math.IsNaN(gotMessages) && math.IsNaN(messages)
		if !same || math.Abs(gotSeconds-seconds) > 0.001 {
			t.Errorf("%s: %v messages, %v s; want %v, %v", what, gotMessages, gotSeconds, messages, seconds)
		}
	}
	check("idle", 0, 0, time.Second, 0, 0)
	check("idle, after a block", 0, time.Hour, time.Second, 0, 0)
	check("behind", 7, 5*time.Second, time.Second, 7, 5)
	check("kafka away, nothing waited", 0, 0, time.Minute, math.NaN(), 60)
	check("kafka away, messages waited", 7, 90*time.Second, time.Minute, 7, 90)
	check("kafka away for longer", 7, time.Second, time.Minute, 7, 60)
}

// TestLagOfALostPartitionStaysUntilTheNextAssignment: while the group has no coordinator nobody reads the
// partition.
func TestLagOfALostPartitionStaysUntilTheNextAssignment(t *testing.T) {
	reg := prometheus.NewPedanticRegistry() // checks that what is collected was described
	lag := newLagCollector(metrics.With(reg))
	series := func(want int) {
		t.Helper()
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		got := 0
		for _, family := range families {
			got += len(family.GetMetric())
		}
		if got != 2*want {
			t.Errorf("%d series, want those of %d partitions", got, want)
		}
	}
	lag.set(0, 0, 0)
	lag.answered(1)
	series(2)
	lag.retain([]int{1, 2})
	series(1)
	lag.retain(nil)
	series(0)
}
