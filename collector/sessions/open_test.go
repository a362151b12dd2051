package sessions

import (
	"testing"
	"time"

	"tidegate/pipeline"
)

// TestOpenSessionsAreReportedAtAnInterval: with the counts so far and ids of their own. The event of the end is as
// without them.
func TestOpenSessionsAreReportedAtAnInterval(t *testing.T) {
	test := newTableTest(t, configWith(func(c *Config) { c.OpenInterval = time.Minute }), Deps{}).handshake()
	test.segment(">", "A", 0, 0, "ask")
	for at := 10 * time.Second; at <= 150*time.Second; at += 10 * time.Second {
		test.Tick(startTime + int64(at))
	}
	test.setTime(160*time.Second).segment("<", "A", 0, 3, "tell")
	test.Tick(startTime + int64(181*time.Second))
	test.closeOrderly(3, 4)
	ids := map[string]bool{}
	var states []string
	var received []uint64
	for _, event := range test.closeSessions() {
		ids[string(event.Id)] = true
		states = append(states, event.Session.State)
		received = append(received, event.Destination.Bytes)
		if event.Source.Bytes != 3 || event.Session.Protocol != "tape" || event.Outcome == pipeline.Outcome_FAILURE {
			t.Errorf("%v", event)
		}
	}
	if len(states) != 4 || len(ids) != 4 || states[2] != stateOpen || states[3] != stateFIN ||
		received[0] != 0 || received[2] != 4 || received[3] != 4 {
		t.Errorf("states %v, bytes %v, %d ids", states, received, len(ids))
	}
}

// TestUnansweredSessionsAreNotOpen: neither a SYN without an answer nor a copy that another flow reports has events
// of the state open.
func TestUnansweredSessionsAreNotOpen(t *testing.T) {
	cfg := configWith(func(c *Config) { c.OpenInterval, c.SYNTimeout = 10*time.Second, time.Minute })
	test := newTableTest(t, cfg, Deps{})
	test.segment(">", "S", 0, 0, "")
	for at := time.Second; at <= 30*time.Second; at += time.Second {
		test.Tick(startTime + int64(at))
	}
	if state := test.closeOneSession().Session.State; state != stateShutdown {
		t.Errorf("state %s", state)
	}
}
