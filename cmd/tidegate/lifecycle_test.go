package main

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// A lifecycleLog holds what happened to the components, in order.
type lifecycleLog struct {
	mu    sync.Mutex
	lines []string
}

func (l *lifecycleLog) appendLine(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
}

// withDeadline returns a context that ends after timeout.
func withDeadline(timeout time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), timeout)
}

// TestComponentsStopInReverseOrder requires that a component is cancelled only after the next one has ended,
// and that a second stop does nothing.
func TestComponentsStopInReverseOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events lifecycleLog
		components := newLifecycle(discardLog())
		// startComponent starts a component that takes some time to end after its context is cancelled.
		startComponent := func(name string, takes time.Duration) {
			components.startComponent(name, func(ctx context.Context) error {
				<-ctx.Done()
				events.appendLine(name + " cancelled")
				time.Sleep(takes)
				events.appendLine(name + " ended")
				return ctx.Err()
			})
		}

		startComponent("store", 0)
		components.addStopHook("lock", func(context.Context) error { events.appendLine("lock released"); return nil })
		startComponent("engine", time.Second)
		startComponent("source", 2*time.Second)

		ctx, cancel := withDeadline(stopTimeout)
		defer cancel()
		if err := components.stopAll(ctx); err != nil {
			t.Errorf("an orderly stop returns %v", err)
		}
		want := []string{
			"source cancelled", "source ended", "engine cancelled", "engine ended", "lock released",
			"store cancelled", "store ended",
		}
		if !slices.Equal(events.lines, want) {
			t.Errorf("got %q", events.lines)
		}
		if err := components.stopAll(ctx); err != nil || len(events.lines) != len(want) {
			t.Errorf("a second stop: %v, %q", err, events.lines)
		}
	})
}

// TestFailureOfAComponentIsReportedOnce requires that the error of a component that ends by itself is sent to
// failed or, if nobody receives it there, returned by stopAll.
func TestFailureOfAComponentIsReportedOnce(t *testing.T) {
	// failing returns a lifecycle whose engine has ended with err.
	failing := func(err error) *lifecycle {
		components := newLifecycle(discardLog())
		components.startComponent("store", func(ctx context.Context) error { <-ctx.Done(); return nil })
		components.startComponent("engine", func(context.Context) error { time.Sleep(time.Second); return err })
		time.Sleep(2 * time.Second)
		return components
	}
	synctest.Test(t, func(t *testing.T) {
		components := failing(errors.New("disk full"))
		if err := <-components.failed; err.Error() != "engine: disk full" {
			t.Errorf("failed has %v", err)
		}
		if err := components.stopAll(context.Background()); err != nil {
			t.Errorf("stopAll reports the error again: %v", err)
		}
		components = failing(nil)
		if err := <-components.failed; err.Error() != "engine: ended by itself" {
			t.Errorf("failed has %v", err)
		}
		_ = components.stopAll(context.Background())
		// The failure was not received: the process was stopped at the same time, or did not start.
		err := failing(errors.New("disk full")).stopAll(context.Background())
		if err == nil || err.Error() != "engine: disk full" {
			t.Errorf("got %v", err)
		}
	})
}

func TestErrorOfAStopNamesItsComponent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		components := newLifecycle(discardLog())
		components.addStopHook("broker", func(context.Context) error { return errors.New("log is torn") })
		components.startComponent("engine", func(ctx context.Context) error {
			<-ctx.Done()
			return errors.New("block is lost")
		})
		err := components.stopAll(context.Background())
		if err == nil || err.Error() != "engine: block is lost\nstop broker: log is torn" {
			t.Errorf("got %v", err)
		}
	})
}

// TestHangingComponentDoesNotKeepOthersFromStopping has a component that ignores its context and a stop hook
// that ignores it. stopAll waits for them only until the deadline, and the components after them still stop
// in order.
func TestHangingComponentDoesNotKeepOthersFromStopping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events lifecycleLog
		release := make(chan struct{})
		components := newLifecycle(discardLog())
		components.startComponent("broker", func(ctx context.Context) error {
			<-ctx.Done()
			time.Sleep(stopGrace / 3)
			events.appendLine("broker ended")
			return nil
		})
		components.addStopHook("store", func(ctx context.Context) error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(stopGrace / 3):
				events.appendLine("store ended")
				return nil
			}
		})
		components.addStopHook("hanging hook", func(context.Context) error { <-release; return nil })
		components.startComponent("hanging", func(context.Context) error { <-release; return nil })

		ctx, cancel := withDeadline(stopTimeout)
		defer cancel()
		start := time.Now()
		err := components.stopAll(ctx)
		took := time.Since(start)
		close(release)

		if err == nil || err.Error() != "hanging did not stop in time\nhanging hook did not stop in time" {
			t.Errorf("got %v", err)
		}
		if strings.Join(events.lines, ", ") != "store ended, broker ended" || took > stopTimeout+3*stopGrace {
			t.Errorf("after %v: %q", took, events.lines)
		}
	})
}

// TestHangupDuringTheStart: a closed terminal ends a start that waits for a dependency; any other SIGHUP is kept until
// the start is complete.
func TestHangupDuringTheStart(t *testing.T) {
	noTerminal, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = noTerminal.Close(), writer.Close() }()
	proc, hup := &process{log: discardLog()}, make(chan os.Signal, 1)
	stopped := make(chan struct{})
	end := proc.watchHangups(hup, controllingTerminal{noTerminal}, func() { close(stopped) })
	hup <- syscall.SIGHUP
	<-stopped
	end()

	end = proc.watchHangups(hup, nil, func() { t.Error("the start is stopped") })
	for range 3 {
		hup <- syscall.SIGHUP
	}
	end()
	if len(hup) != 1 {
		t.Error("the request to reload is lost")
	}
	<-hup
	proc.watchHangups(hup, nil, func() {})()
	if len(hup) != 0 {
		t.Error("a reload that nobody has asked for")
	}
}
