package engine

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline/metrics"
)

// staleAfter is the age of Kafka's last answer from which on the lag is unknown. An idle partition is fetched
// four times a second.
const staleAfter = 15 * time.Second

// A lagCollector exports the lag of each partition. It computes the values at the scrape, because while Kafka
// is unavailable nothing else happens, and the last values would say that nothing waits.
type lagCollector struct {
	messages, seconds *prometheus.Desc

	mu         sync.Mutex // guards the fields below
	partitions map[int]partitionLag
}

// partitionLag is the state of one partition from which its lag is computed.
type partitionLag struct {
	behind     int64     // messages that no finished block covers
	newest     int64     // time of the newest message of the last block, ns since 1970; 0: none
	lastAnswer time.Time // when Kafka last answered a fetch
}

func newLagCollector(factory metrics.Factory) *lagCollector {
	collector := &lagCollector{
		messages: prometheus.NewDesc("tidegate_engine_lag_messages",
			"Messages of the events topic that no finished block covers yet, by partition; NaN while Kafka does not answer.",
			[]string{"partition"}, nil),
		seconds: prometheus.NewDesc("tidegate_engine_lag_seconds",
			"Age of the newest message of the last block in seconds, by partition; 0 while no message waits. "+
				"While Kafka does not answer, seconds since its last answer.",
			[]string{"partition"}, nil),
		partitions: map[int]partitionLag{},
	}
	factory.Register(collector)
	return collector
}

// answered records that Kafka has answered a fetch of a partition.
func (c *lagCollector) answered(partition int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	lag := c.partitions[partition]
	lag.lastAnswer = time.Now()
	c.partitions[partition] = lag
}

// set records the lag of a partition as of the last answer.
func (c *lagCollector) set(partition int, behind, newest int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	lag := c.partitions[partition]
	lag.behind, lag.newest = behind, newest
	if lag.lastAnswer.IsZero() {
		lag.lastAnswer = time.Now()
	}
	c.partitions[partition] = lag
}

// retain removes all partitions but these. A partition that this process has lost keeps its values until the
// group assigns the partitions anew: while Kafka is unavailable nobody reads it.
func (c *lagCollector) retain(partitions []int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.partitions, func(id int, _ partitionLag) bool { return !slices.Contains(partitions, id) })
}

// Describe implements prometheus.Collector.
func (c *lagCollector) Describe(out chan<- *prometheus.Desc) { out <- c.messages; out <- c.seconds }

// Collect implements prometheus.Collector.
func (c *lagCollector) Collect(out chan<- prometheus.Metric) {
	c.mu.Lock()
	partitions := maps.Clone(c.partitions)
	c.mu.Unlock()
	for id, lag := range partitions {
		messages, seconds := lag.values(time.Now())
		label := strconv.Itoa(id)
		out <- prometheus.MustNewConstMetric(c.messages, prometheus.GaugeValue, messages, label)
		out <- prometheus.MustNewConstMetric(c.seconds, prometheus.GaugeValue, seconds, label)
	}
}

// values returns the lag in messages and in seconds. Messages that were waiting at the last answer wait still,
// so their number is a lower bound; without them it is unknown.
func (l partitionLag) values(now time.Time) (messages, seconds float64) {
	messages = float64(l.behind)
	if l.behind > 0 && l.newest > 0 {
		seconds = max(0, now.Sub(time.Unix(0, l.newest)).Seconds())
	}
	if age := now.Sub(l.lastAnswer); age > staleAfter {
		seconds = max(seconds, age.Seconds())
		if l.behind == 0 {
			messages = math.NaN()
		}
	}
	return messages, seconds
}
