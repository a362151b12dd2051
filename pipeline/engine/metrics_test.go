package engine

import (
	"bytes"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline/logging"
	"tidegate/pipeline/metrics"
)

// gatherValues returns the counters and gauges of reg by name, summed over their labels.
func gatherValues(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, family := range families {
		for _, metric := range family.Metric {
			values[family.GetName()] += metric.GetCounter().GetValue() + metric.GetGauge().GetValue()
		}
	}
	return values
}

// TestEngineExportsWhatItCounts from the start on, each counter under its own name.
func TestEngineExportsWhatItCounts(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	counts := newEngineMetrics(reg)
	want := map[string]float64{}
	for name, count := range map[string]interface{ Add(uint64) uint64 }{
		"messages": &counts.messages, "events": &counts.events, "duplicate_messages": &counts.duplicates,
		"duplicate_events": &counts.duplicateEvents, "lost_messages": &counts.lost, "rows": &counts.rows,
		"already_stored_rows": &counts.alreadyStored, "rejected_events": &counts.rejected, "unfinished_events": &counts.unfinished,
		"verdicts": &counts.verdicts, "alerts": &counts.alerts, "alert_revisions": &counts.revisions,
		"rejected_alert_revisions": &counts.alertsRejected, "detector_panics": &counts.detectorPanics,
		"reevaluated_blocks": &counts.reevaluated, "newer_schema_messages": &counts.newerSchema, "blocks": &counts.blocks,
		"grouping_clock_corrections": &counts.clockCorrections, "inserts_stored_despite_error": &counts.storedDespiteError,
		"rejected_blocks": &counts.rejectedBlocks,
	} {
		want["tidegate_engine_"+name+"_total"] = float64(count.Add(uint64(len(want) + 1)))
	}
	got := gatherValues(t, reg)
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if value, ok := got[name]; !ok || value != want[name] {
			t.Errorf("%s is %v, want %v", name, value, want[name])
		}
	}
	for name, value := range got {
		if _, ok := want[name]; !ok && value != 0 {
			t.Errorf("%s is %v, nothing was counted", name, value)
		}
	}
}

// TestLagIsThatOfTheLastAnswer: the messages that wait, and the age of the newest one of the last block.
func TestLagIsThatOfTheLastAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewPedanticRegistry()
		lag := newLagCollector(metrics.With(reg))
		check := func(what string, messages, seconds float64) {
			t.Helper()
			got := gatherValues(t, reg)
			if got["tidegate_engine_lag_messages"] != messages || got["tidegate_engine_lag_seconds"] != seconds {
				t.Errorf("%s: %v, want %v messages, %v seconds", what, got, messages, seconds)
			}
		}
		lag.set(0, 7, time.Now().Add(-time.Second).UnixNano())
		check("a lag", 7, 1)
		time.Sleep(2 * time.Second)
		check("2 seconds later", 7, 3)
		lag.set(0, 0, time.Now().UnixNano())
		check("nothing waits", 0, 0)
		time.Sleep(20 * time.Second)
		lag.set(0, 3, time.Now().UnixNano()) // not an answer of Kafka
		check("no answer for 22 seconds", 3, 22)
		lag.answered(0)
		check("an answer", 3, 0)
	})
}

// TestWarningsAreThrottled: the first one is logged, and the next one says how many were not.
func TestWarningsAreThrottled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		w := &worker{log: slog.New(slog.NewTextHandler(&out, nil))}
		throttle := logging.NewThrottle(time.Minute)
		for range 3 {
			w.logWarning(throttle, "insert failed", "rows", 7)
		}
		if text := out.String(); strings.Count(text, "insert failed") != 1 || !strings.Contains(text, "rows=7 suppressed=0") {
			t.Errorf("logged %s", text)
		}
		time.Sleep(2 * time.Minute)
		w.logWarning(throttle, "insert failed", "rows", 8)
		if text := out.String(); strings.Count(text, "insert failed") != 2 || !strings.Contains(text, "rows=8 suppressed=2") {
			t.Errorf("logged %s", text)
		}
	})
}
