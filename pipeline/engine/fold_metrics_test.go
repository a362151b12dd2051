package engine

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tidegate/pipeline/correlate"
	"tidegate/pipeline/metrics"
)

// TestRulesThatAreIncompleteAreNamed: what was evicted or late counts for its rule, once, also where the rule was unloaded in
// between; the names are bounded.
func TestRulesThatAreIncompleteAreNamed(t *testing.T) {
	m := newFoldMetrics(metrics.With(prometheus.NewRegistry()))
	rules := []*correlate.Rule{}
	for _, id := range []string{"a", "b"} {
		rules = append(rules, &correlate.Rule{
			ID: id, Version: "1", Kind: correlate.Count, Within: time.Minute, Min: 5, Max: correlate.NoMax, Steps: []correlate.Step{{}},
		})
	}
	limits := correlate.DefaultLimits
	limits.GroupsPerRule = 2
	fold, counts := correlate.New(rules, limits), foldCounts{}
	add := func(rule string, groups int, at int64) {
		for i := range groups {
			fold.Add(correlate.Signal{Rule: rule, Version: "1", Group: fmt.Sprint(i), Start: at, End: at})
		}
	}
	check := func(rule, reason string, want float64) {
		t.Helper()
		counts = m.export(0, fold, counts)
		if got := testutil.ToFloat64(m.incomplete.WithLabelValues(rule, reason)); got != want {
			t.Errorf("%s %s: %v, want %v", rule, reason, got, want)
		}
	}
	at := ago(0)
	add("a", 5, at)
	add("b", 2, at)
	fold.Advance(at + 1)
	check("a", "evicted", 3)
	check("a", "evicted", 3)
	check("b", "evicted", 0)
	add("b", 1, at-1)
	check("b", "late", 1)
	fold.SetRules(rules[1:])
	check("a", "evicted", 3)
	fold.SetRules(rules)
	add("a", 4, at-1)
	check("a", "evicted", 5)
	check("a", "late", 4)
	if got := testutil.ToFloat64(m.signals.WithLabelValues("late")); got != 5 {
		t.Errorf("%v late", got)
	}
	for i := range 2 * maxRuleNames {
		m.names.label(fmt.Sprint("rule", i))
	}
	if label := m.names.label("one more"); label != otherRules || m.names.label("a") != "a" || len(m.names.known) != maxRuleNames {
		t.Errorf("%s, %d names", label, len(m.names.known))
	}
}
