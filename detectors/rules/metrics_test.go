package rules

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tidegate/pipeline"
	"tidegate/pipeline/correlate"
)

// TestMatchesOfCorrelationRulesAreCountedOnce: what steps match are signals, of the steps' rule, and a rule over several events matches when it
// is fulfilled. The exceptions of a rule that refers to another one count its errors.
func TestMatchesOfCorrelationRulesAreCountedOnce(t *testing.T) {
	registry := prometheus.NewRegistry()
	const text = guessing + `
- id: twice
  title: t
  severity: low
  when: redis.command == "GET"
  count: 2
  within: 1m
  group: [source.ip]
- id: divides
  title: t
  severity: low
  rule: failed
  count: 100
  within: 1m
  group: [source.ip]
  exceptions: [mysql.error_code % mysql.error_code == 1]
`
	set, err := Compile(Default(), []Source{{Name: "t.yaml", Data: []byte(text)}}, nil, NewMetrics(registry))
	if err != nil {
		t.Fatal(err)
	}
	fold := correlate.New(set.Correlations(), correlate.DefaultLimits)
	events := []*pipeline.Event{
		login(0, "10.0.0.9", "10.0.0.5"), login(1, "10.0.0.9", "10.0.0.5"), login(2, "10.0.0.9", "10.0.0.5"),
		get(3, "10.0.0.5", "a"), get(4, "10.0.0.5", "allowed"), get(5, "10.0.0.5", "b"), get(6, "10.0.0.5", "c"),
	}
	for _, signal := range set.Signals(events) {
		fold.Add(signal)
	}
	for _, match := range fold.Close() {
		set.MatchVerdict(&match)
	}
	const prefix, want = "tidegate_detectors_rules_", `# HELP tidegate_detectors_rules_errors_total Evaluations of the rule that divided by zero.
# TYPE tidegate_detectors_rules_errors_total counter
tidegate_detectors_rules_errors_total{rule="divides"} 3
# HELP tidegate_detectors_rules_excepted_total Events that the rule, or a step of it, would match without its exceptions.
# TYPE tidegate_detectors_rules_excepted_total counter
tidegate_detectors_rules_excepted_total{rule="then/to"} 1
# HELP tidegate_detectors_rules_matches_total Matches of the rule: events, or how often a rule over several events was fulfilled.
# TYPE tidegate_detectors_rules_matches_total counter
tidegate_detectors_rules_matches_total{rule="failed"} 3
tidegate_detectors_rules_matches_total{rule="many"} 1
tidegate_detectors_rules_matches_total{rule="then"} 3
tidegate_detectors_rules_matches_total{rule="twice"} 3
# HELP tidegate_detectors_rules_signals_total Events that a rule over several events counted, or that were one of its steps.
# TYPE tidegate_detectors_rules_signals_total counter
tidegate_detectors_rules_signals_total{rule="divides"} 3
tidegate_detectors_rules_signals_total{rule="many"} 3
tidegate_detectors_rules_signals_total{rule="then"} 6
tidegate_detectors_rules_signals_total{rule="twice"} 4
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want),
		prefix+"errors_total", prefix+"excepted_total", prefix+"matches_total", prefix+"signals_total"); err != nil {
		t.Error(err)
	}
}
