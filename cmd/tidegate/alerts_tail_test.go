package main

import (
	"regexp"
	"slices"
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

// TestTailPrintsAlertsInTheOrderOfTheirLastMatches: partitions store their alerts independently, so the order in which
// they are stored is another one.
func TestTailPrintsAlertsInTheOrderOfTheirLastMatches(t *testing.T) {
	var out strings.Builder
	now := time.Now()
	tail := alertTail{out: &out, alerts: map[string]*tailedAlert{}}
	for i, id := range []string{"c", "a", "d", "b"} {
		last := now.Add(time.Duration(id[0]) * time.Second)
		tail.alerts[id] = &tailedAlert{newest: storedAlert{
			Alert: pipeline.Alert{ID: id, Rule: "rule-" + id, Revision: 1, Last: last}, Stored: now.Add(time.Duration(i)),
		}}
	}
	if err := tail.printLines(now); err != nil {
		t.Fatal(err)
	}
	if got := regexp.MustCompile(`rule-.`).FindAllString(out.String(), -1); !slices.IsSorted(got) || len(got) != 4 {
		t.Errorf("printed in the order %v", got)
	}
}
