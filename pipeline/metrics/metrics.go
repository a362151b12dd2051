// Package metrics makes Prometheus metrics that several instances of a component can share.
//
// The constructor of every component gets its metrics from a Factory. The first instance registers them; a
// further instance on the same Registerer gets the same metrics, so that two log sources or two workers of
// one process count together instead of panicking. Without a Registerer (nil) the metrics work and are not
// exported.
//
// A name that is registered with another type, help text or set of labels is a fault in the program: the
// Factory panics.
package metrics

import (
	"errors"
	"fmt"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// A Factory creates and registers metrics. Names are complete ("tidegate_collector_events_read_total"), help
// is one sentence that stands alone.
type Factory struct{ registerer prometheus.Registerer }

// With returns a Factory that registers with registerer. nil registers nothing.
func With(registerer prometheus.Registerer) Factory { return Factory{registerer} }

// Counter returns the counter of that name.
func (f Factory) Counter(name, help string) prometheus.Counter {
	return shared(f.registerer, name, prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help}))
}

// CounterVec returns the counters of that name, one for each combination of values of labels.
func (f Factory) CounterVec(name, help string, labels ...string) *prometheus.CounterVec {
	return shared(f.registerer, name, prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels))
}

// LabelledCounters returns the counters of that name, one for each value of one label. Those of the given values
// are exported as 0 from the start: rules such as increase() miss the first count of a series that appears with it.
func (f Factory) LabelledCounters(name, help, label string, values ...string) *prometheus.CounterVec {
	counters := f.CounterVec(name, help, label)
	for _, value := range values {
		counters.WithLabelValues(value)
	}
	return counters
}

// Gauge returns the gauge of that name.
func (f Factory) Gauge(name, help string) prometheus.Gauge {
	return shared(f.registerer, name, prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help}))
}

// GaugeVec returns the gauges of that name, one for each combination of values of labels.
func (f Factory) GaugeVec(name, help string, labels ...string) *prometheus.GaugeVec {
	return shared(f.registerer, name, prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels))
}

// Histogram returns the histogram of that name; buckets are upper bounds in the unit of the name.
func (f Factory) Histogram(name, help string, buckets []float64) prometheus.Histogram {
	opts := prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}
	return shared(f.registerer, name, prometheus.NewHistogram(opts))
}

// HistogramVec returns the histograms of that name, one for each combination of values of labels.
func (f Factory) HistogramVec(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	opts := prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}
	return shared(f.registerer, name, prometheus.NewHistogramVec(opts, labels))
}

// CounterFunc exports a counter that the caller keeps. The values of all functions of the name are added up.
// Close of the result keeps the last value in the sum, since a counter never falls.
func (f Factory) CounterFunc(name, help string, value func() float64) *Func {
	return f.newFunc(name, help, prometheus.CounterValue, value)
}

// GaugeFunc exports a value that is computed at each scrape. The values of all functions of the name are
// added up. Close of the result takes its value out of the sum.
func (f Factory) GaugeFunc(name, help string, value func() float64) *Func {
	return f.newFunc(name, help, prometheus.GaugeValue, value)
}

// Register registers a collector of the caller, for metrics whose labels are determined at the scrape only.
// A collector with the same metrics that is registered already stays, and Register reports false.
func (f Factory) Register(collector prometheus.Collector) bool {
	if f.registerer == nil {
		return true
	}
	err := f.registerer.Register(collector)
	var already prometheus.AlreadyRegisteredError
	if err != nil && !errors.As(err, &already) {
		panic(fmt.Sprintf("metrics: %v", err))
	}
	return err == nil
}

func (f Factory) newFunc(name, help string, kind prometheus.ValueType, value func() float64) *Func {
	sum := shared(f.registerer, name, &funcSum{
		desc: prometheus.NewDesc(name, help, nil, nil), kind: kind, funcs: map[*Func]func() float64{},
	})
	if sum.kind != kind {
		panic(fmt.Sprintf("metrics: %s is registered as a counter and as a gauge", name))
	}
	result := &Func{sum: sum}
	sum.mu.Lock()
	defer sum.mu.Unlock()
	sum.funcs[result] = value
	return result
}

// A Func is one instance's part of a metric that is computed at the scrape.
type Func struct{ sum *funcSum }

// Close ends the calls of the function. It is called when the instance that the function reads ends before
// the process.
func (f *Func) Close() {
	f.sum.mu.Lock()
	defer f.sum.mu.Unlock()
	if value, ok := f.sum.funcs[f]; ok && f.sum.kind == prometheus.CounterValue {
		f.sum.closed += value()
	}
	delete(f.sum.funcs, f)
}

// funcSum is the prometheus.Collector behind all Funcs of one name.
type funcSum struct {
	desc *prometheus.Desc
	kind prometheus.ValueType

	mu     sync.Mutex
	funcs  map[*Func]func() float64
	closed float64 // last values of closed counters
}

// Describe implements prometheus.Collector.
func (s *funcSum) Describe(out chan<- *prometheus.Desc) { out <- s.desc }

// Collect implements prometheus.Collector.
func (s *funcSum) Collect(out chan<- prometheus.Metric) {
	s.mu.Lock()
	defer s.mu.Unlock()
	total := s.closed
	for _, value := range s.funcs {
		total += value()
	}
	out <- prometheus.MustNewConstMetric(s.desc, s.kind, total)
}

// shared registers collector and returns it, or the collector of the same name, help and labels that was
// registered first.
func shared[C prometheus.Collector](registerer prometheus.Registerer, name string, collector C) C {
	if registerer == nil {
		return collector
	}
	err := registerer.Register(collector)
	if err == nil {
		return collector
	}
	if already, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if existing, ok := already.ExistingCollector.(C); ok {
			return existing
		}
	}
	panic(fmt.Sprintf("metrics: %s: %v", name, err))
}
