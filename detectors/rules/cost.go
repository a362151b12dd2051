package rules

import (
	"fmt"
	"sync/atomic"
	"time"
)

// measuredShare: one evaluation in so many is timed, because reading the clock twice costs as much as a small
// rule.
const measuredShare = 16

// ruleStats counts what one rule does. It outlives the sets that the rule is part of.
type ruleStats struct {
	matches, excepted, errors atomic.Uint64

	// Measured evaluations.
	runs, ns atomic.Uint64

	suspended       atomic.Bool
	measureEveryRun atomic.Bool // until the end of the window, because an evaluation was too long

	// The window of measured evaluations over which the mean is taken.
	windowRuns, windowNs, longRuns atomic.Uint64
}

const (
	windowRuns  = 64 // measured evaluations of a window: 1,024 evaluations
	maxLongRuns = 3  // too long ones of a window that suspend a rule

	// textPerBudget is how many bytes of text the time budget of one evaluation is for; more text may take
	// longer. Otherwise long requests could suspend a rule and whoever sends them would go on unseen. The
	// time of an evaluation is linear in its text whatever the rule is.
	textPerBudget = 256
)

// addMeasurement adds the time of one evaluation over size bytes of text. It suspends the rule, and returns
// the reason, if the rule exceeds its budget: on average over a window, or by several evaluations of a window
// that are far too long. One such evaluation proves nothing, since the machine may have been busy; so it also
// counts no more than 8 budgets in the average.
func (t *ruleStats) addMeasurement(took time.Duration, size int, cfg Config) (reason string) {
	t.runs.Add(1)
	t.ns.Add(uint64(took))

	took = took * textPerBudget / time.Duration(textPerBudget+size)
	if took > cfg.MaxTime {
		t.measureEveryRun.Store(true)
		if t.longRuns.Add(1) >= maxLongRuns {
			reason = fmt.Sprintf("%d evaluations took longer than %s", maxLongRuns, cfg.MaxTime)
		}
	}

	sum := t.windowNs.Add(uint64(min(took, 8*cfg.MaxMeanTime)))
	if n := t.windowRuns.Add(1); n >= windowRuns {
		if mean := time.Duration(sum / n); mean > cfg.MaxMeanTime {
			reason = fmt.Sprintf("an evaluation over %d bytes takes %s on average, the budget is %s",
				textPerBudget, mean, cfg.MaxMeanTime)
		}
		t.windowRuns.Store(0)
		t.windowNs.Store(0)
		t.longRuns.Store(0)
		t.measureEveryRun.Store(false)
	}
	if reason != "" && t.suspended.Swap(true) {
		return "" // Another worker has reported it.
	}
	return reason
}
