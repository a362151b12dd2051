package retry

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestPausesGrowBetweenTheirBounds: each pause is between half of its nominal value and that value.
func TestPausesGrowBetweenTheirBounds(t *testing.T) {
	check := func(shortest, longest time.Duration, nominal ...time.Duration) {
		t.Helper()
		backoff := Backoff{Min: shortest, Max: longest}
		for round := range 3 {
			for i, want := range nominal {
				if got := backoff.Next(); got < want/2 || got > want {
					t.Errorf("round %d: pause %d of %v to %v is %v, want %v to %v",
						round, i, shortest, longest, got, want/2, want)
				}
			}
			backoff.Reset()
		}
	}
	check(time.Second, 5*time.Second, time.Second, 2*time.Second, 4*time.Second, 5*time.Second, 5*time.Second)
	check(0, 0, 50*time.Millisecond, 100*time.Millisecond, 200*time.Millisecond)
	check(time.Minute, time.Second, time.Second, time.Second)
	check(time.Nanosecond, 3*time.Nanosecond, time.Nanosecond, 2*time.Nanosecond, 3*time.Nanosecond)
}

func TestPauseNeverExceedsTheLongest(t *testing.T) {
	backoff := Backoff{Min: time.Nanosecond, Max: 1 << 62}
	for range 10_000 {
		if got := backoff.Next(); got < 0 || got > backoff.Max {
			t.Fatalf("pause %v after %d attempts", got, backoff.Attempts())
		}
	}
}

func TestSleepEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cause := errors.New("stopped")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(cause) })
		start := time.Now()
		if err := Sleep(ctx, time.Hour); !errors.Is(err, cause) || time.Since(start) != time.Second {
			t.Errorf("Sleep returned %v after %v, want the cause after 1s", err, time.Since(start))
		}
		if err := Sleep(t.Context(), time.Minute); err != nil || time.Since(start) != 61*time.Second {
			t.Errorf("Sleep returned %v after %v, want nil after 1m", err, time.Since(start))
		}
	})
}
