package alerts

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"tidegate/pipeline"
)

// TestMatchesOfSeveralEventsAreCounted: the count of an alert is the number of events; the revision grows with each match,
// also with one without events; the alert names the first 20 events, and shows the one of its first match.
func TestMatchesOfSeveralEventsAreCounted(t *testing.T) {
	cfg := DefaultGrouper()
	grouper := NewGrouper(cfg, 3).ForTopic("tidegate.signals")
	start := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	at := func(d time.Duration) int64 { return start.Add(d).UnixNano() }
	match := func(d time.Duration, count int64, offset int64) Match {
		m := Match{
			Event: &pipeline.Event{
				Id: make([]byte, 16), Dataset: pipeline.Dataset_HTTP, Host: &pipeline.Host{Name: "h", Cluster: "c"},
				Container: &pipeline.Container{Id: "id", Name: "web", Image: "nginx", Demo: true},
				Source:    &pipeline.Endpoint{Ip: []byte{10, 0, 0, 1}, Port: 80},
			},
			Verdict: &pipeline.Verdict{Detector: "rules", Rule: "r", Version: "1", Title: "T", Group: "g", Evidence: fmt.Sprint("e", offset)},
			At:      at(d), First: at(d - time.Minute), Last: at(d - time.Second), Count: count, Offset: offset, Ingested: at(d + 5*time.Second),
		}
		m.Event.Id[0] = byte(offset)
		for i := range count {
			m.Events = append(m.Events, fmt.Sprintf("step %d/%d", offset, i))
		}
		return m
	}
	for i, step := range []struct {
		match                   Match
		count, revision, events int
		first, last             int64
		last20                  string
	}{
		{match(0, 3, 7), 3, 3, 3, at(-time.Minute), at(-time.Second), "step 7/2"},
		{match(time.Second, 0, 8), 3, 4, 3, at(-time.Minute), at(0), "step 7/2"},
		{match(2*time.Second, 1, 9), 4, 5, 4, at(-time.Minute), at(time.Second), "step 9/0"},
		{match(3*time.Second, 30, 9), 34, 35, 20, at(-time.Minute), at(2 * time.Second), "step 9/15"},
		{match(4*time.Second, 2, 10), 36, 37, 20, at(-time.Minute), at(3 * time.Second), "step 9/15"},
	} {
		grouper.AddMatch(step.match)
		revisions, opened := grouper.Flush()
		if len(revisions) != 1 || len(opened) != map[bool]int{true: 1, false: 0}[i == 0] {
			t.Fatalf("step %d: %d revisions, %d opened", i, len(revisions), len(opened))
		}
		alert := revisions[0]
		if alert.Count != uint64(step.count) || alert.Revision != uint64(step.revision) || len(alert.Events) != step.events || alert.Events[step.events-1] != step.last20 {
			t.Errorf("step %d: count %d, revision %d, events %q", i, alert.Count, alert.Revision, alert.Events)
		}
		if alert.First.UnixNano() != step.first || alert.Last.UnixNano() != step.last || !alert.WindowStart.Equal(start) {
			t.Errorf("step %d: window %v, first %v, last %v", i, alert.WindowStart, alert.First, alert.Last)
		}
		if alert.EventID != "07000000-0000-0000-0000-000000000000" || alert.Evidence != fmt.Sprint("e", step.match.Offset) || alert.Offset != step.match.Offset ||
			alert.Ingested.UnixNano() != step.match.Ingested || alert.Topic != "tidegate.signals" || alert.Partition != 3 || alert.Source != "10.0.0.1:80" ||
			alert.Host != "h" || alert.Cluster != "c" || alert.ContainerName != "web" || alert.Image != "nginx" || !alert.Demo || alert.Dataset != "http" {
			t.Errorf("step %d: %+v", i, alert)
		}
		if grouper.NewestOffset() != step.match.Offset {
			t.Errorf("step %d: the newest offset is %d", i, grouper.NewestOffset())
		}

		// A grouper that is restored from the alert goes on with it.
		grouper = NewGrouper(cfg, 3).ForTopic("tidegate.signals")
		grouper.Restore([]*pipeline.Alert{alert})
	}

	// A match does not open a window behind the time of its block.
	late := match(time.Hour, 1, 11)
	late.Ingested = at(30 * time.Minute)
	grouper.AddMatch(late)
	if revisions, _ := grouper.Flush(); len(revisions) != 1 || revisions[0].WindowStart.UnixNano() != late.Ingested {
		t.Errorf("%+v", revisions)
	}
	if newest := NewGrouper(cfg, 3).NewestOffset(); newest != -1 {
		t.Errorf("the newest offset of no alert is %d", newest)
	}
}

// TestSeverityOfARuleRaisesItsOpenAlert: a newer match with a higher severity raises the alert, with the revision of the match; one with a
// lower severity does not lower it. A grouper that is restored before any block makes the same revisions of it and of all that follow.
func TestSeverityOfARuleRaisesItsOpenAlert(t *testing.T) {
	start := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	severities := []pipeline.Severity{
		pipeline.Severity_LOW, pipeline.Severity_LOW, pipeline.Severity_HIGH, pipeline.Severity_MEDIUM, pipeline.Severity_CRITICAL, pipeline.Severity_INFO,
	}
	policies := map[string]pipeline.AlertPolicy{"r": {Escalate: []pipeline.Escalation{{Count: 4, Severity: pipeline.Severity_MEDIUM}}}}
	newGrouper := func() *Grouper {
		grouper := NewGrouper(DefaultGrouper(), 0)
		grouper.SetPolicies(policies)
		return grouper
	}
	add := func(grouper *Grouper, i int) *pipeline.Alert {
		at := start.Add(time.Duration(i) * time.Second).UnixNano()
		grouper.AddMatch(Match{
			Verdict: &pipeline.Verdict{Rule: "r", Group: "g", Severity: severities[i]}, At: at, First: at, Last: at, Count: 1, Offset: int64(i), Ingested: at,
		})
		revisions, _ := grouper.Flush()
		if len(revisions) != 1 || revisions[0].Revision != uint64(i+1) || revisions[0].Count != uint64(i+1) {
			t.Fatalf("match %d: %+v", i, revisions)
		}
		return revisions[0]
	}
	grouper, got := newGrouper(), []*pipeline.Alert{}
	for i, want := range []string{"low", "low", "high", "high", "critical", "critical"} {
		got = append(got, add(grouper, i))
		if got[i].Severity != want {
			t.Errorf("match %d: %s, want %s", i, got[i].Severity, want)
		}
	}
	for from := 1; from < len(got); from++ {
		restored := newGrouper()
		restored.Restore(got[from-1 : from])
		for i := from; i < len(got); i++ {
			if again := add(restored, i); !reflect.DeepEqual(again, got[i]) {
				t.Errorf("restored before %d: revision %d is %+v, was %+v", from, i, again, got[i])
			}
		}
	}
}
