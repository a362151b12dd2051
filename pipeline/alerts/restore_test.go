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
