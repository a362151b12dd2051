package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// An eventLog records what happened to the components, in order.
type eventLog struct {
	mu    sync.Mutex
	lines []string
}

func (d *eventLog) appendLine(line string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, line)
}

func withDeadline(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}

func TestPartsStopInReverseEachBeforeWhatItNeeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d eventLog
		s := newLifecycle(discardLog())
		part := func(name string, takes time.Duration) {
			s.startComponent(name, func(ctx context.Context) error {
				<-ctx.Done()
				d.appendLine(name + " is told")
				time.Sleep(takes)
				d.appendLine(name + " ended")
				return ctx.Err()
			})
		}
		part("store", 0)
		s.addStopHook("lock", func(context.Context) error { d.appendLine("lock let go"); return nil })
		part("engine", time.Second)
		part("source", 2*time.Second)
		ctx, cancel := withDeadline(stopTimeout)
		defer cancel()
		if err := s.stopAll(ctx); err != nil {
			t.Errorf("an orderly stop says %v", err)
		}
		want := []string{"source is told", "source ended", "engine is told", "engine ended", "lock let go", "store is told", "store ended"}
		if !slices.Equal(d.lines, want) {
			t.Errorf("got %q", d.lines)
		}
		if err := s.stopAll(ctx); err != nil || len(d.lines) != len(want) {
			t.Errorf("a second stop: %v, %q", err, d.lines)
		}
	})
}

func TestFailureOfAPartIsToldOnce(t *testing.T) {
	failing := func(err error) *lifecycle {
		s := newLifecycle(discardLog())
		s.startComponent("store", func(ctx context.Context) error { <-ctx.Done(); return nil })
		s.startComponent("engine", func(context.Context) error { time.Sleep(time.Second); return err })
		time.Sleep(2 * time.Second)
		return s
	}
	synctest.Test(t, func(t *testing.T) {
		s := failing(errors.New("disk full"))
		if err := <-s.failed; err.Error() != "engine: disk full" {
			t.Errorf("failed says %v", err)
		}
		if err := s.stopAll(context.Background()); err != nil {
			t.Errorf("it is told again: %v", err)
		}
		s = failing(nil)
		if err := <-s.failed; err.Error() != "engine: ended by itself" {
			t.Errorf("failed says %v", err)
		}
		_ = s.stopAll(context.Background())
		// The failure was not read: the process was stopped at the same time, or did not start.
		if err := failing(errors.New("disk full")).stopAll(context.Background()); err == nil || err.Error() != "engine: disk full" {
			t.Errorf("got %v", err)
		}
	})
}

func TestErrorOfAStopIsToldWithItsPart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLifecycle(discardLog())
		s.addStopHook("broker", func(context.Context) error { return errors.New("log is torn") })
		s.startComponent("engine", func(ctx context.Context) error { <-ctx.Done(); return errors.New("block is lost") })
		if err := s.stopAll(context.Background()); err == nil || err.Error() != "engine: block is lost\nstop broker: log is torn" {
			t.Errorf("got %v", err)
		}
	})
}

// TestPartThatHangsTakesNothingFromTheOthers: a component that ignores its context, running or stopping, is
// waited for only until the deadline of all, and those after it still stop in order.
func TestPartThatHangsTakesNothingFromTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d eventLog
		release := make(chan struct{})
		s := newLifecycle(discardLog())
		s.startComponent("broker", func(ctx context.Context) error {
			<-ctx.Done()
			time.Sleep(stopGrace / 3)
			d.appendLine("broker ended")
			return nil
		})
		s.addStopHook("store", func(ctx context.Context) error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(stopGrace / 3):
				d.appendLine("store ended")
				return nil
			}
		})
		s.addStopHook("deaf stop", func(context.Context) error { <-release; return nil })
		s.startComponent("deaf", func(context.Context) error { <-release; return nil })
		ctx, cancel := withDeadline(stopTimeout)
		defer cancel()
		start := time.Now()
		err := s.stopAll(ctx)
		took := time.Since(start)
		close(release)
		if err == nil || err.Error() != "deaf did not stop in time\ndeaf stop did not stop in time" {
			t.Errorf("got %v", err)
		}
		if strings.Join(d.lines, ", ") != "store ended, broker ended" || took > stopTimeout+3*stopGrace {
			t.Errorf("after %v: %q", took, d.lines)
		}
	})
}
