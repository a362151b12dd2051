package rules

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline/metrics"
)

// Metrics counts evaluations, verdicts and loads. All sets of a process share one, so a rule that is loaded again
// continues its counts. A nil *Metrics counts nothing.
type Metrics struct {
	events, candidates, verdicts prometheus.Counter
	loads                        *prometheus.CounterVec
	info                         *prometheus.GaugeVec
	loadedAt, loadedRules, held  prometheus.Gauge
	refused                      prometheus.Gauge

	mu      sync.Mutex // guards rules
	rules   map[string]*ruleStats
	perRule []ruleMetric
}

// A ruleMetric is a metric with the label rule. It is exported only for rules for which it is not 0.
type ruleMetric struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(*ruleStats) float64
}

// NewMetrics registers the metrics of rules; reg may be nil.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	const prefix = "tidegate_detectors_rules_"
	factory := metrics.With(reg)
	perRule := func(name, help string, kind prometheus.ValueType, value func(*ruleStats) float64) ruleMetric {
		return ruleMetric{prometheus.NewDesc(prefix+name, help, []string{"rule"}, nil), kind, value}
	}
	metrics := &Metrics{
		rules:       map[string]*ruleStats{},
		events:      factory.Counter(prefix+"events_total", "Events that were evaluated by rules."),
		candidates:  factory.Counter(prefix+"candidates_total", "Rules that the index could not rule out, summed over events."),
		verdicts:    factory.Counter(prefix+"verdicts_total", "Verdicts of rules."),
		loads:       factory.CounterVec(prefix+"loads_total", "Attempts to load rules, by result.", "result"),
		info:        factory.GaugeVec(prefix+"info", "1 for the version of the rules that are loaded.", "version"),
		loadedAt:    factory.Gauge(prefix+"loaded_timestamp_seconds", "Time at which the current rules were loaded."),
		loadedRules: factory.Gauge(prefix+"loaded_rules", "Rules that are loaded."),
		refused:     factory.Gauge(prefix+"sigma_refused", "Sigma rules that are not loaded; tidegate rules list shows why."),
		held: factory.Gauge(prefix+"held",
			"1 while the folder of rules has lost most of them: the rules that were loaded before stay."),
		perRule: []ruleMetric{
			perRule("matches_total", "Matches of the rule: events, or how often a rule over several events was fulfilled.", prometheus.CounterValue,
				func(s *ruleStats) float64 { return float64(s.matches.Load()) }),
			perRule("signals_total", "Events that a rule over several events counted, or that were one of its steps.", prometheus.CounterValue,
				func(s *ruleStats) float64 { return float64(s.signals.Load()) }),
			perRule("excepted_total", "Events that the rule, or a step of it, would match without its exceptions.", prometheus.CounterValue,
				func(s *ruleStats) float64 { return float64(s.excepted.Load()) }),
			perRule("errors_total", "Evaluations of the rule that divided by zero.", prometheus.CounterValue,
				func(s *ruleStats) float64 { return float64(s.errors.Load()) }),
			perRule("ungrouped_total", "Events that a correlation rule selected and that belong to no group: they lack a field of its group, or the one that it counts.",
				prometheus.CounterValue, func(s *ruleStats) float64 { return float64(s.ungrouped.Load()) }),
			perRule("sampled_seconds_total", "Time of the measured evaluations of the rule, about one in 16.", prometheus.CounterValue,
				func(s *ruleStats) float64 { return float64(s.ns.Load()) / 1e9 }),
			perRule("sampled_runs_total", "Measured evaluations of the rule.", prometheus.CounterValue,
				func(s *ruleStats) float64 { return float64(s.runs.Load()) }),
			perRule("suspended", "1 for a rule that is suspended because it exceeded its time budget.", prometheus.GaugeValue,
				func(s *ruleStats) float64 {
					if s.suspended.Load() {
						return 1
					}
					return 0
				}),
		},
	}
	for _, result := range []string{"ok", "error"} {
		metrics.loads.WithLabelValues(result)
	}
	factory.Register(metrics)
	return metrics
}

// ruleStats returns the counts of a rule.
func (m *Metrics) ruleStats(id string) *ruleStats {
	if m == nil {
		return &ruleStats{}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	stats := m.rules[id]
	if stats == nil {
		stats = &ruleStats{}
		m.rules[id] = stats
	}
	return stats
}

func (m *Metrics) countBlock(events, candidates, verdicts int) {
	if m == nil {
		return
	}
	m.events.Add(float64(events))
	m.candidates.Add(float64(candidates))
	m.verdicts.Add(float64(verdicts))
}

// setLoaded records that set is the one that evaluates events.
func (m *Metrics) setLoaded(set *Set) {
	if m == nil {
		return
	}
	m.info.Reset()
	m.info.WithLabelValues(set.version).Set(1)
	m.loadedAt.Set(float64(time.Now().UnixMilli()) / 1000)
	m.loadedRules.Set(float64(len(set.rules)))
	m.loads.WithLabelValues("ok").Inc()
	m.setRefused(set)
}

// setRefused records how many Sigma rules of set are not loaded.
func (m *Metrics) setRefused(set *Set) {
	if m != nil {
		m.refused.Set(float64(len(set.refused)))
	}
}

// setHeld records whether the folder is held back.
func (m *Metrics) setHeld(held bool) {
	if m == nil {
		return
	}
	m.held.Set(0)
	if held {
		m.held.Set(1)
	}
}

func (m *Metrics) countFailedLoad() {
	if m != nil {
		m.loads.WithLabelValues("error").Inc()
	}
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(out chan<- *prometheus.Desc) {
	for _, metric := range m.perRule {
		out <- metric.desc
	}
}

// Collect implements prometheus.Collector. It leaves out values of 0: of thousands of rules most never match.
func (m *Metrics) Collect(out chan<- prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, stats := range m.rules {
		for _, metric := range m.perRule {
			if value := metric.value(stats); value != 0 {
				out <- prometheus.MustNewConstMetric(metric.desc, metric.kind, value, id)
			}
		}
	}
}
