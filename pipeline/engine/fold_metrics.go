package engine

import (
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline/correlate"
	"tidegate/pipeline/metrics"
)

// foldMetrics are the metrics of the folds of correlation rules.
type foldMetrics struct {
	signals    *prometheus.CounterVec // by what became of them
	incomplete *prometheus.CounterVec // by rule and reason
	lost       prometheus.Counter     // messages
	lag        *prometheus.GaugeVec   // by partition of the signals topic
	groups     *prometheus.GaugeVec   // by partition of the signals topic
	values     *prometheus.GaugeVec   // by partition of the signals topic
	names      *ruleNames
}

// Labels of foldMetrics.incomplete.
const (
	// maxRuleNames bounds the rules that are labels. Further ones are otherRules together: a process that loads new rules
	// for months must not have a series for each of them.
	maxRuleNames = 1000
	otherRules   = "(other rules)"
)

// ruleNames are the rules that are labels. All folds of a process share them.
type ruleNames struct {
	mu    sync.Mutex
	known map[string]struct{} // guarded by mu
}

// label returns the label of a rule.
func (n *ruleNames) label(rule string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.known[rule]; !ok {
		if len(n.known) >= maxRuleNames {
			return otherRules
		}
		n.known[rule] = struct{}{}
	}
	return rule
}

func newFoldMetrics(factory metrics.Factory) foldMetrics {
	m := foldMetrics{
		signals: factory.LabelledCounters("tidegate_correlation_signals_total",
			"Events in the signals topic, by what became of them: added to a group, or unknown because their rule is not loaded in that "+
				"version. Of those that were added some came late, were forced before their time for lack of memory, or were dropped because their "+
				"group had too many.",
			"outcome", "added", "late", "unknown", "forced", "dropped"),
		incomplete: factory.CounterVec("tidegate_correlation_incomplete_total",
			"What a rule over several events did not see whole, by rule and reason: groups and values that were evicted for a bound of memory; "+
				"events that came late, were forced before their time, or were dropped because their group had too many. The first "+
				"1,000 rules are named.", "rule", "reason"),
		lost: factory.Counter("tidegate_correlation_lost_messages_total",
			"Messages of the signals topic that were deleted before they were read: no alert has counted them."),
		lag: factory.GaugeVec("tidegate_correlation_lag_messages",
			"Messages of the signals topic that are not folded yet, by its partition. Alerts of all rules wait for them.", "partition"),
		groups: factory.GaugeVec("tidegate_correlation_groups",
			"Groups of correlation rules with a window, by partition of the signals topic.", "partition"),
		values: factory.GaugeVec("tidegate_correlation_values",
			"Values that rules of first_seen remember, by partition of the signals topic.", "partition"),
		names: &ruleNames{known: map[string]struct{}{}},
	}
	for _, reason := range []string{"evicted", "late", "forced", "dropped"} {
		m.incomplete.WithLabelValues(otherRules, reason) // it is there before it counts
	}
	return m
}

// foldCounts are what a fold had counted when it was exported last.
type foldCounts struct {
	all   correlate.Counts
	rules map[string]correlate.Counts
}

// countsOf returns what a fold has counted.
func countsOf(fold *correlate.Fold) foldCounts {
	counts := foldCounts{fold.Counts(), map[string]correlate.Counts{}}
	for rule, of := range fold.RuleCounts() {
		counts.rules[rule] = *of
	}
	return counts
}

// export adds what a fold has counted since it had counted before, and returns its counts.
func (m *foldMetrics) export(partition int, fold *correlate.Fold, before foldCounts) foldCounts {
	now := countsOf(fold)
	for outcome, added := range map[string]uint64{
		"added": now.all.Signals - before.all.Signals, "late": now.all.Late - before.all.Late, "unknown": now.all.Unknown - before.all.Unknown,
		"forced": now.all.Forced - before.all.Forced, "dropped": now.all.Dropped - before.all.Dropped,
	} {
		m.signals.WithLabelValues(outcome).Add(float64(added))
	}
	for rule, of := range now.rules {
		was := before.rules[rule]
		if was.Evicted > of.Evicted || was.Late > of.Late || was.Forced > of.Forced || was.Dropped > of.Dropped {
			was = correlate.Counts{} // the rule was gone, and is back
		}
		for reason, added := range map[string]uint64{
			"evicted": of.Evicted - was.Evicted, "late": of.Late - was.Late, "forced": of.Forced - was.Forced, "dropped": of.Dropped - was.Dropped,
		} {
			if added > 0 {
				m.incomplete.WithLabelValues(m.names.label(rule), reason).Add(float64(added))
			}
		}
	}
	m.groups.WithLabelValues(strconv.Itoa(partition)).Set(float64(fold.Groups()))
	m.values.WithLabelValues(strconv.Itoa(partition)).Set(float64(fold.Values()))
	return now
}

// remove removes the metrics of a partition of the signals topic.
func (m *foldMetrics) remove(partition string) {
	m.lag.DeleteLabelValues(partition)
	m.groups.DeleteLabelValues(partition)
	m.values.DeleteLabelValues(partition)
}
