package alerts

import (
	"testing"
	"time"

	"tidegate/pipeline"
)

// TestRestoredWindowsThatAreOverAreClosed: those that end AllowedLateness before the newest one begins.
func TestRestoredWindowsThatAreOverAreClosed(t *testing.T) {
	cfg := DefaultGrouper()
	newest := time.Unix(0, t0).UTC()
	limit := newest.Add(-cfg.AllowedLateness - cfg.Window)
	grouper := NewGrouper(cfg, 1)
	var list []*pipeline.Alert
	for group, start := range map[string]time.Time{"new": newest, "open": limit.Add(1), "over": limit, "long over": limit.Add(-time.Hour)} {
		list = append(list, &pipeline.Alert{ID: group, Rule: "r", Group: group, WindowStart: start})
	}
	grouper.Restore(list)
	if got := grouper.OpenWindows(); got != 2 {
		t.Errorf("%d windows are open, want 2", got)
	}
	for group, want := range map[string]bool{"new": true, "open": true, "over": false, "long over": false} {
		if _, ok := grouper.groups[groupKey{"r", group}]; ok != want {
			t.Errorf("the group %q is open: %t", group, ok)
		}
	}
}

// TestRestoredAlertIsOfTheTopicOfItsGrouper: a revision of an earlier version names none.
func TestRestoredAlertIsOfTheTopicOfItsGrouper(t *testing.T) {
	grouper := NewGrouper(DefaultGrouper(), 1).ForTopic("events")
	stored := &pipeline.Alert{ID: "a", Rule: "r", Group: "g", WindowStart: time.Unix(0, t0).UTC(), Count: 3}
	grouper.Restore([]*pipeline.Alert{stored})
	event := &pipeline.Event{Timestamp: t0, Verdicts: []*pipeline.Verdict{{Rule: "r", Group: "g"}}}
	grouper.AddVerdicts(event, 0, 7)
	revisions, opened := grouper.Flush()
	if len(revisions) != 1 || len(opened) != 0 || revisions[0].ID != "a" || revisions[0].Topic != "events" || revisions[0].Count != 4 || stored.Topic != "" {
		t.Errorf("%d revisions, %d are new: %+v", len(revisions), len(opened), revisions)
	}
}
