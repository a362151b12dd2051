package main

import (
	"strings"
	"testing"
	"time"

	"tidegate/pipeline"
)

// TestTailPrintsTheLastCountOfABurst: matches within the interval between two lines are in the line after it.
func TestTailPrintsTheLastCountOfABurst(t *testing.T) {
	var out strings.Builder
	start := time.Now()
	tail := alertTail{out: &out, alerts: map[string]*tailedAlert{"a": {}}}
	for _, step := range []struct {
		after    time.Duration
		revision uint64
		want     string
	}{
		{0, 1, "ALERT"},
		{time.Second, 500, ""},
		{tailInterval - 1, 600, ""},
		{tailInterval, 600, "600 times"},
		{2 * tailInterval, 600, ""},
	} {
		tail.alerts["a"].newest.Alert = pipeline.Alert{ID: "a", Revision: step.revision, Count: step.revision}
		out.Reset()
		if err := tail.printLines(start.Add(step.after)); err != nil {
			t.Fatal(err)
		}
		if got := out.String(); (got == "") != (step.want == "") || !strings.Contains(got, step.want) {
			t.Errorf("after %v: %q, want %q", step.after, got, step.want)
		}
	}
	if err := tail.printLines(start.Add(tailInterval + tailMemory + 1)); err != nil || len(tail.alerts) != 0 {
		t.Errorf("an alert without matches is kept: %v", tail.alerts)
	}
}
