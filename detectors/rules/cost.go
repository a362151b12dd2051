package rules

import (
	"fmt"
	"sync/atomic"
	"time"
)

// measuredShare is the number of evaluations of which one is timed. Reading the clock twice costs as much as a
// small rule.
const measuredShare = 16

// ruleStats counts the evaluations of one rule. All sets with the rule share it, so a reload continues the
// counts.
type ruleStats struct {
	matches, signals, excepted, errors atomic.Uint64
	ungrouped                          atomic.Uint64 // events that a correlation rule selects, and that lack a value of its group

	runs, ns atomic.Uint64 // number and total time of the measured evaluations

	suspended       atomic.Bool
	measureEveryRun atomic.Bool // an evaluation took too long; holds until the end of the window

	// The current window of measured evaluations. Workers update it without a lock, so its end may lose a few
	// measurements.
	windowRuns, windowNs, longRuns atomic.Uint64
}

const (
	windowRuns  = 64 // measured evaluations of a window: 1,024 evaluations
	maxLongRuns = 3  // too long evaluations in a window that suspend the rule

	// textPerBudget is the number of bytes of text to which the time budget of one evaluation applies. The
	// budget grows with the text, since the time of every rule is linear in its text. With a constant budget an
	// attacker could send long requests until the rule is suspended, and then attack without an alert.
	textPerBudget = 256
)

// addMeasurement adds the time of one evaluation over size bytes of text. If the rule exceeds its budget, it
// suspends the rule and returns the reason. A rule exceeds its budget if its mean over a window does, or if
// several evaluations of a window are far too long. One long evaluation may be due to a busy machine, so it
// does not suspend the rule, and counts at most 8 budgets in the mean.
func (t *ruleStats) addMeasurement(took time.Duration, size int, cfg Config) (reason string) {
	t.runs.Add(1)
	t.ns.Add(uint64(took))

	// 1. Normalize the time to textPerBudget bytes, and check the single evaluation.
	took = took * textPerBudget / time.Duration(textPerBudget+size)
	if took > cfg.MaxTime {
		t.measureEveryRun.Store(true)
		if t.longRuns.Add(1) >= maxLongRuns {
			reason = fmt.Sprintf("%d evaluations took longer than %s", maxLongRuns, cfg.MaxTime)
		}
	}

	// 2. Check the mean at the end of the window, and start a new window.
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
