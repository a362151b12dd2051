package rules

import (
	"slices"
	"strings"
	"testing"
	"time"

	"tidegate/pipeline"
)

// TestLongEvaluationsOfAnEarlierWindowDoNotCount.
func TestLongEvaluationsOfAnEarlierWindowDoNotCount(t *testing.T) {
	cfg := Default()
	cfg.MaxMeanTime = time.Second
	stats := &ruleStats{}
	long := func() {
		t.Helper()
		if reason := stats.addMeasurement(cfg.MaxTime+time.Microsecond, 0, cfg); reason != "" {
			t.Fatal(reason)
		}
	}
	for range maxLongRuns - 1 {
		long()
	}
	if !stats.measureEveryRun.Load() {
		t.Error("after a long evaluation not every one is measured")
	}
	for range windowRuns - (maxLongRuns - 1) {
		if reason := stats.addMeasurement(cfg.MaxTime, 0, cfg); reason != "" {
			t.Fatal(reason)
		}
	}
	if stats.measureEveryRun.Load() || stats.windowRuns.Load() != 0 || stats.windowNs.Load() != 0 {
		t.Error("the window has not ended")
	}
	for range maxLongRuns - 1 {
		long()
	}
	if stats.suspended.Load() || stats.runs.Load() != windowRuns+maxLongRuns-1 {
		t.Errorf("suspended %t after %d runs", stats.suspended.Load(), stats.runs.Load())
	}
	if reason := stats.addMeasurement(cfg.MaxTime+time.Microsecond, 0, cfg); !strings.Contains(reason, "3 evaluations took longer than 20ms") || !stats.suspended.Load() {
		t.Errorf("%q", reason)
	}
	if reason := stats.addMeasurement(cfg.MaxTime+time.Microsecond, 0, cfg); reason != "" {
		t.Errorf("a suspended rule is suspended again: %s", reason)
	}

	// The time is that of 256 bytes of text.
	stats = &ruleStats{}
	stats.addMeasurement(2*cfg.MaxTime, textPerBudget, cfg)
	if stats.longRuns.Load() != 0 {
		t.Error("a long text has the time of a short one")
	}
	stats.addMeasurement(2*cfg.MaxTime+2, textPerBudget, cfg)
	if stats.longRuns.Load() != 1 || stats.ns.Load() != uint64(4*cfg.MaxTime+2) {
		t.Errorf("%d long evaluations, %d ns", stats.longRuns.Load(), stats.ns.Load())
	}
}

// TestComparisonOfTheDatasetNamesDatasets: those for which it holds.
func TestComparisonOfTheDatasetNamesDatasets(t *testing.T) {
	check := func(when string, want bool, wantMask datasetMask, known bool) {
		t.Helper()
		set, rule := onlyRule(t, ruleYAML("r", when))
		if mask, ok := set.slots.namedDatasets(rule.when.root, want); ok != known || mask != wantMask {
			t.Errorf("%s is %t: %s, %t, want %s", when, want, mask, ok, wantMask)
		}
	}
	dns, http := maskOf(pipeline.Dataset_DNS), maskOf(pipeline.Dataset_HTTP)
	check(`event.dataset == "dns"`, true, dns, true)
	check(`event.dataset == "dns"`, false, allDatasets&^dns, true)
	check(`event.dataset != "dns"`, true, allDatasets&^dns, true)
	check(`event.dataset != "dns"`, false, dns, true)
	check(`event.dataset in ["dns", "http", "x"]`, true, dns|http, true)
	check(`event.dataset in ["dns", "http"]`, false, allDatasets&^(dns|http), true)
	check(`event.dataset != ""`, true, allDatasets&^maskOf(0), true)
	check(`event.dataset contains "dns"`, true, 0, false)
	check(`host.name == "dns"`, true, 0, false)
	check(`host.name in ["dns"]`, true, 0, false)
	check(`lower(event.dataset) == "dns"`, true, 0, false)
	check(`event.dataset == host.name`, true, 0, false)
}

// TestNamesAreSorted, those of lists and macros together.
func TestNamesAreSorted(t *testing.T) {
	ns := &names{lists: map[string]*list{"d": {}, "a": {}}, macros: map[string]*macro{"b": {}, "c": {}}}
	if got := ns.sorted(); !slices.Equal(got, []string{"a", "b", "c", "d"}) {
		t.Errorf("%q", got)
	}
}
