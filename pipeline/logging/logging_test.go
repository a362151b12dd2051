package logging

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestThrottleAllowsOneLinePerInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		throttle := NewThrottle(time.Minute)
		check := func(want bool, suppressed int) {
			t.Helper()
			if count, ok := throttle.Allow(); ok != want || count != suppressed {
				t.Errorf("Allow returned %d, %v; want %d, %v", count, ok, suppressed, want)
			}
		}
		check(true, 0)
		check(false, 0)
		check(false, 0)
		time.Sleep(59 * time.Second)
		check(false, 0)
		time.Sleep(time.Second)
		check(true, 3)
		check(false, 0)
		throttle.Reset()
		check(true, 1)
	})
}

func TestConcurrentCallersAreAllowedOneLine(t *testing.T) {
	throttle := NewThrottle(time.Hour)
	var allowed atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				if _, ok := throttle.Allow(); ok {
					allowed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if allowed.Load() != 1 || throttle.suppressed.Load() != 7999 {
		t.Errorf("%d lines allowed and %d suppressed, want 1 and 7999",
			allowed.Load(), throttle.suppressed.Load())
	}
}
