package alerts

import (
	"time"

	"tidegate/pipeline"
)

// closedAlerts remembers the newest revision of each alert that is over, so that an old revision of it, which an
// engine wrote late, does not open it anew. It keeps at most 2 × limit alerts, the last ones.
type closedAlerts struct {
	limit          int
	recent, before map[string]closedAlert // by the destination's key
}

// A closedAlert holds what is compared of the newest revision.
type closedAlert struct {
	id       string
	revision uint64
	window   time.Time // start of its window
}

func (c *closedAlerts) add(key string, newest *pipeline.Alert) {
	if c.recent == nil || len(c.recent) >= c.limit {
		c.recent, c.before = map[string]closedAlert{}, c.recent
	}
	c.recent[key] = closedAlert{newest.ID, newest.Revision, newest.WindowStart}
}

// covers reports whether the alert of a key is over, and had the revision or a newer one.
func (c *closedAlerts) covers(key string, revision *pipeline.Alert) bool {
	closed, ok := c.recent[key]
	if !ok {
		closed, ok = c.before[key]
	}
	switch {
	case !ok:
		return false
	case closed.id == revision.ID:
		return revision.Revision <= closed.revision
	}
	return revision.WindowStart.Before(closed.window)
}
