package metrics

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// TestTwoInstancesCountTogether: two instances in one process register the same metrics. Their values are
// added up.
func TestTwoInstancesCountTogether(t *testing.T) {
	reg := prometheus.NewRegistry()
	for range 2 {
		factory := With(reg)
		factory.Counter("a_total", "A.").Inc()
		factory.CounterVec("b_total", "B.", "kind").WithLabelValues("x").Add(2)
		factory.Gauge("c", "C.").Add(3)
		factory.GaugeVec("d", "D.", "kind").WithLabelValues("x").Add(4)
		factory.Histogram("e_seconds", "E.", []float64{1}).Observe(0.5)
		factory.HistogramVec("f_seconds", "F.", []float64{1}, "kind").WithLabelValues("x").Observe(0.5)
		factory.CounterFunc("g_total", "G.", func() float64 { return 5 })
		factory.GaugeFunc("h", "H.", func() float64 { return 6 })
	}
	want := `
# HELP a_total A.
# TYPE a_total counter
a_total 2
# HELP b_total B.
# TYPE b_total counter
b_total{kind="x"} 4
# HELP c C.
# TYPE c gauge
c 6
# HELP d D.
# TYPE d gauge
d{kind="x"} 8
# HELP e_seconds E.
# TYPE e_seconds histogram
e_seconds_bucket{le="1"} 2
e_seconds_bucket{le="+Inf"} 2
e_seconds_sum 1
e_seconds_count 2
# HELP f_seconds F.
# TYPE f_seconds histogram
f_seconds_bucket{kind="x",le="1"} 2
f_seconds_bucket{kind="x",le="+Inf"} 2
f_seconds_sum{kind="x"} 1
f_seconds_count{kind="x"} 2
# HELP g_total G.
# TYPE g_total counter
g_total 10
# HELP h H.
# TYPE h gauge
h 12
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
}

// TestClosedCounterKeepsItsValue: the last value of a closed counter function stays in the sum, that of a
// gauge function does not.
func TestClosedCounterKeepsItsValue(t *testing.T) {
	reg := prometheus.NewRegistry()
	counter := With(reg).CounterFunc("a_total", "A.", func() float64 { return 5 })
	gauge := With(reg).GaugeFunc("b", "B.", func() float64 { return 7 })
	With(reg).CounterFunc("a_total", "A.", func() float64 { return 1 })
	counter.Close()
	counter.Close()
	gauge.Close()
	want := "# HELP a_total A.\n# TYPE a_total counter\na_total 6\n# HELP b B.\n# TYPE b gauge\nb 0\n"
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
}

func TestMetricsWorkWithoutARegisterer(t *testing.T) {
	counter := With(nil).Counter("a_total", "A.")
	counter.Inc()
	if value := testutil.ToFloat64(counter); value != 1 {
		t.Errorf("counter %v", value)
	}
	With(nil).GaugeFunc("b", "B.", func() float64 { return 1 }).Close()
	if !With(nil).Register(counter) {
		t.Error("Register without a registerer")
	}
}

// TestNameWithAnotherShapePanics: a name is registered again with another help, label or type.
func TestNameWithAnotherShapePanics(t *testing.T) {
	check := func(name string, second func(f Factory)) {
		t.Helper()
		defer func() {
			if reason := recover(); reason == nil || !strings.Contains(reason.(string), "a_total") {
				t.Errorf("%s: recovered %v, want a panic that names a_total", name, reason)
			}
		}()
		factory := With(prometheus.NewRegistry())
		factory.Counter("a_total", "A.")
		second(factory)
	}
	check("another help", func(f Factory) { f.Counter("a_total", "Another.") })
	check("another label", func(f Factory) { f.CounterVec("a_total", "A.", "kind") })
	check("another type", func(f Factory) { f.Gauge("a_total", "A.") })
	check("a function", func(f Factory) { f.CounterFunc("a_total", "A.", func() float64 { return 0 }) })
}
