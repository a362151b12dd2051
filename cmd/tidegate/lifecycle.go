package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// stopTimeout bounds the stop of a whole process.
const stopTimeout = 9 * time.Second

// A lifecycle holds the components of a running process in the order of their start: broker, store,
// publisher, engine, shipper, sources. It stops them in the reverse order, so that each component stops
// before those that it needs. It is used by one goroutine.
type lifecycle struct {
	log        *slog.Logger
	components []*component
	failed     chan error // holds the error of the first component that ended by itself
}

// A component is a function that runs (startComponent), or one that must be called at the stop (addStopHook).
type component struct {
	name     string
	cancel   context.CancelFunc
	done     chan struct{} // closed when the component has ended; err and reported are set before
	err      error
	reported bool                            // err was sent to lifecycle.failed
	stopHook func(ctx context.Context) error // nil: cancelling the context is enough
}

// newLifecycle returns a lifecycle without components.
func newLifecycle(log *slog.Logger) *lifecycle {
	return &lifecycle{log: log, failed: make(chan error, 1)}
}

// startComponent calls run on a goroutine, with a context that stopAll cancels. If run returns before that,
// the process ends.
func (l *lifecycle) startComponent(name string, run func(ctx context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	started := &component{name: name, cancel: cancel, done: make(chan struct{})}
	l.components = append(l.components, started)
	go func() {
		defer close(started.done)
		started.err = run(ctx)
		if ctx.Err() == nil {
			l.reportFailure(started)
		}
	}()
}

// reportFailure sends the error of a component that ended by itself to failed, unless failed holds the error
// of another component.
func (l *lifecycle) reportFailure(ended *component) {
	err := ended.err
	if err == nil {
		err = errors.New("ended by itself")
	}
	select {
	case l.failed <- fmt.Errorf("%s: %w", ended.name, err):
		ended.reported = true
	default:
	}
}

// addStopHook adds a function that stopAll calls at this position of the order. It is for what does not run
// on a goroutine of startComponent.
func (l *lifecycle) addStopHook(name string, stop func(ctx context.Context) error) {
	done := make(chan struct{})
	close(done)
	l.components = append(l.components, &component{name: name, cancel: func() {}, done: done, stopHook: stop})
}

// stopGrace is the time that each component has even after the deadline of stopAll: a component that hangs
// must not keep the store from stopping in order.
const stopGrace = 300 * time.Millisecond

// stopAll stops the components in the reverse order of their start. A component that does not stop in time is
// left behind and named in the error. The error also holds the error in failed, unless it was received
// before.
func (l *lifecycle) stopAll(ctx context.Context) error {
	var errs []error
	for _, component := range slices.Backward(l.components) {
		start := time.Now()
		if err := component.stop(ctx); err != nil {
			errs = append(errs, err)
		}
		l.log.Debug("component stopped", "component", component.name, "took", time.Since(start))
	}
	l.components = nil

	select {
	case err := <-l.failed:
		errs = append(errs, err)
	default:
	}
	return errors.Join(errs...)
}

// stop stops one component. It waits for the component until the deadline of ctx, and for stopGrace at least.
// After that it returns an error, even if the stop hook still runs.
func (c *component) stop(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < stopGrace || ctx.Err() != nil {
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
		defer cancel()
		ctx = late
	}
	defer c.cancel()

	// The hook runs first, then the context is cancelled, then the component has time to end.
	stopped := make(chan error, 1)
	go func() {
		var err error
		if c.stopHook != nil {
			if err = c.stopHook(ctx); err != nil {
				err = fmt.Errorf("stop %s: %w", c.name, err)
			}
		}
		c.cancel()
		<-c.done
		if c.err != nil && !c.reported && !errors.Is(c.err, context.Canceled) {
			err = errors.Join(err, fmt.Errorf("%s: %w", c.name, c.err))
		}
		stopped <- err
	}()

	select {
	case err := <-stopped:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-stopped: // the component stopped at the moment of the deadline
		return err
	default:
		return fmt.Errorf("%s did not stop in time", c.name)
	}
}
