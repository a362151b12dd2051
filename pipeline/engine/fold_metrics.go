package engine

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline/correlate"
	"tidegate/pipeline/metrics"
)

// foldMetrics are the metrics of the folds of correlation rules.
type foldMetrics struct {
	signals *prometheus.CounterVec // by what became of them
	groups  *prometheus.GaugeVec   // by partition of the signals topic
	values  *prometheus.GaugeVec   // by partition of the signals topic
}

func newFoldMetrics(factory metrics.Factory) foldMetrics {
	return foldMetrics{
		signals: factory.LabelledCounters("tidegate_correlation_signals_total",
			"Signals of the signals topic, by what became of them: added to a group, or unknown because their rule is not loaded in that "+
				"version. Of those that were added some came late, were forced before their time for lack of memory, or were dropped because their "+
				"group had too many; evicted groups are counted too, and lost messages.",
			"outcome", "added", "late", "unknown", "evicted", "forced", "dropped", "lost"),
		groups: factory.GaugeVec("tidegate_correlation_groups",
			"Groups of correlation rules with a window, by partition of the signals topic.", "partition"),
		values: factory.GaugeVec("tidegate_correlation_values",
			"Values that rules of first_seen remember, by partition of the signals topic.", "partition"),
	}
}

// export adds what a fold has counted since it had counted before, and returns its counts.
func (m *foldMetrics) export(partition int, fold *correlate.Fold, before correlate.Counts) correlate.Counts {
	now := fold.Counts()
	for outcome, added := range map[string]uint64{
		"added": now.Signals - before.Signals, "late": now.Late - before.Late, "unknown": now.Unknown - before.Unknown,
		"evicted": now.Evicted - before.Evicted, "forced": now.Forced - before.Forced, "dropped": now.Dropped - before.Dropped,
	} {
		m.signals.WithLabelValues(outcome).Add(float64(added))
	}
	m.groups.WithLabelValues(strconv.Itoa(partition)).Set(float64(fold.Groups()))
	m.values.WithLabelValues(strconv.Itoa(partition)).Set(float64(fold.Values()))
	return now
}

// remove removes the metrics of a partition of the signals topic.
func (m *foldMetrics) remove(partition string) {
	m.groups.DeleteLabelValues(partition)
	m.values.DeleteLabelValues(partition)
}
