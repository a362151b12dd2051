package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// A lifecycle holds the components of a running process in the order of their start: broker, store,
// publisher, engine, shipper, sources. It stops them in the reverse order, so that each component stops
// before those that it needs. It is used by one goroutine.
type lifecycle struct {
	log        *slog.Logger
	components []*component
	failed     chan error // receives the error of the first component that ended by itself
}

// A component is something that runs (startComponent), or something that must be stopped (addStopHook).
type component struct {
	name     string
	cancel   context.CancelFunc
	done     chan struct{} // closed when the component has ended; err and reported are set before
	err      error
	reported bool                            // err was sent to lifecycle.failed
	stopHook func(ctx context.Context) error // nil: cancelling the context is enough
}

func newLifecycle(log *slog.Logger) *lifecycle {
	return &lifecycle{log: log, failed: make(chan error, 1)}
}

// startComponent runs f on a goroutine until the context that it gets ends. If f returns before that, the
// process ends.
func (l *lifecycle) startComponent(name string, f func(ctx context.Context) error) *component {
	ctx, cancel := context.WithCancel(context.Background())
	c := &component{name: name, cancel: cancel, done: make(chan struct{})}
	l.components = append(l.components, c)
	go func() {
		defer close(c.done)
		c.err = f(ctx)
		if ctx.Err() == nil {
			l.reportFailure(c)
		}
	}()
	return c
}

// reportFailure sends the error of a component that ended by itself to failed, unless another component was
// first.
func (l *lifecycle) reportFailure(c *component) {
	err := c.err
	if err == nil {
		err = errors.New("ended by itself")
	}
	select {
	case l.failed <- fmt.Errorf("%s: %w", c.name, err):
		c.reported = true
	default:
	}
}

// addStopHook adds a function that stopAll calls at this place of the order, for something that does not run
// as a component.
func (l *lifecycle) addStopHook(name string, stop func(ctx context.Context) error) {
	done := make(chan struct{})
	close(done)
	l.components = append(l.components, &component{name: name, cancel: func() {}, done: done, stopHook: stop})
}

// stopGrace is how long each component may still take to stop after the deadline of all of them: a component
// that hangs must not keep the store from stopping in order.
const stopGrace = 300 * time.Millisecond

// stopAll stops the components in the reverse order of their start. A component that does not stop in time is
// left behind and named in the error. The error also holds why components ended by themselves, unless failed
// was read.
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

// stop stops one component. It waits until the deadline of ctx, but at least for stopGrace, even for a stop
// hook that ignores its context.
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
	case err := <-stopped: // it stopped at the moment of the deadline
		return err
	default:
		return fmt.Errorf("%s did not stop in time", c.name)
	}
}
