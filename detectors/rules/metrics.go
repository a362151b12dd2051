package rules

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics counts what rules do. It outlives the sets: a rule that is loaded again goes on counting.
type Metrics struct {
	mu    sync.Mutex
	rules map[string]*ruleStats

	events, candidates, verdicts prometheus.Counter
	loads                        *prometheus.CounterVec
	info                         *prometheus.GaugeVec
	loaded, size                 prometheus.Gauge
	perRule                      map[string]*prometheus.Desc
}

// NewMetrics registers them.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "tidegate_detectors_" + name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "tidegate_detectors_" + name, Help: help})
	}
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("tidegate_detectors_rules_"+name, help, []string{"rule"}, nil)
	}
	m := &Metrics{
		rules:      map[string]*ruleStats{},
		events:     counter("rules_events_total", "Events judged by rules."),
		candidates: counter("rules_candidates_total", "Rules that the index could not rule out, over all events."),
		verdicts:   counter("rules_verdicts_total", "Verdicts of rules."),
		loads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidegate_detectors_rules_loads_total", Help: "Attempts to load rules, by result.",
		}, []string{"result"}),
		info: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tidegate_detectors_rules_info", Help: "The bundle of rules that runs: 1.",
		}, []string{"version"}),
		loaded: gauge("rules_loaded_timestamp_seconds", "When the rules that run were loaded."),
		size:   gauge("rules_loaded_rules", "Rules that run."),
		perRule: map[string]*prometheus.Desc{
			"matches":   desc("matches_total", "Events that the rule was true of."),
			"excepted":  desc("excepted_total", "Events that an exception of the rule let pass."),
			"errors":    desc("errors_total", "Runs of the rule that failed."),
			"seconds":   desc("sampled_seconds_total", "Time of the measured runs of the rule, about one in 16."),
			"runs":      desc("sampled_runs_total", "Measured runs of the rule."),
			"suspended": desc("suspended", "1 for a rule that is suspended: it exceeded its time budget and does not run."),
		},
	}
	if reg != nil {
		reg.MustRegister(m.events, m.candidates, m.verdicts, m.loads, m.info, m.loaded, m.size, m)
	}
	return m
}

func (m *Metrics) ruleStats(id string) *ruleStats {
	if m == nil {
		return &ruleStats{}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.rules[id]
	if s == nil {
		s = &ruleStats{}
		m.rules[id] = s
	}
	return s
}

func (m *Metrics) countBlock(events, candidates, verdicts int) {
	if m == nil {
		return
	}
	m.events.Add(float64(events))
	m.candidates.Add(float64(candidates))
	m.verdicts.Add(float64(verdicts))
}

// setRunning notes that s is the set that runs.
func (m *Metrics) setRunning(s *Set) {
	if m == nil {
		return
	}
	m.info.Reset()
	m.info.WithLabelValues(s.version).Set(1)
	m.loaded.Set(float64(time.Now().UnixMilli()) / 1000)
	m.size.Set(float64(len(s.rules)))
	m.loads.WithLabelValues("ok").Inc()
}

func (m *Metrics) countRefusedLoad() {
	if m != nil {
		m.loads.WithLabelValues("error").Inc()
	}
}

// Describe is of prometheus.Collector.
func (m *Metrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range m.perRule {
		out <- d
	}
}

// Collect writes the rules that have something to say.
func (m *Metrics) Collect(out chan<- prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, s := range m.rules {
		write := func(name string, t prometheus.ValueType, v float64) {
			if v != 0 {
				out <- prometheus.MustNewConstMetric(m.perRule[name], t, v, id)
			}
		}
		write("matches", prometheus.CounterValue, float64(s.matches.Load()))
		write("excepted", prometheus.CounterValue, float64(s.excepted.Load()))
		write("errors", prometheus.CounterValue, float64(s.errors.Load()))
		write("seconds", prometheus.CounterValue, float64(s.ns.Load())/1e9)
		write("runs", prometheus.CounterValue, float64(s.runs.Load()))
		if s.suspended.Load() {
			write("suspended", prometheus.GaugeValue, 1)
		}
	}
}
