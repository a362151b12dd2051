// Package logging limits how often a component logs the same failure.
//
// A failure that may occur thousands of times a second is counted in a metric each time, and logged when a
// Throttle allows it.
package logging

import (
	"sync/atomic"
	"time"
)

// A Throttle allows one log line an interval and counts those that it suppressed. It is safe for concurrent
// use, and a call that is not allowed costs two atomic operations.
type Throttle struct {
	interval   time.Duration
	next       atomic.Int64 // wall clock in ns from which the next line is allowed
	suppressed atomic.Int64
}

// NewThrottle returns a Throttle whose first line is allowed at once.
func NewThrottle(interval time.Duration) *Throttle { return &Throttle{interval: interval} }

// Allow reports whether the caller may log now, and how many calls were suppressed since the last line that
// was allowed.
func (t *Throttle) Allow() (suppressed int, ok bool) {
	now, next := time.Now().UnixNano(), t.next.Load()
	if now < next || !t.next.CompareAndSwap(next, now+int64(t.interval)) {
		t.suppressed.Add(1)
		return 0, false
	}
	return int(t.suppressed.Swap(0)), true
}

// Reset allows the next line at once. It is called when the trouble is over, so that new trouble is logged
// without delay.
func (t *Throttle) Reset() { t.next.Store(0) }
