package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// lifecycle are the parts of a running process, started one after the other and stopped in the reverse order, each before what it
// needs: sources, shipper, engine, publisher, store, broker.
type lifecycle struct {
	log        *slog.Logger
	components []*component
	failed     chan error // the first part that ended by itself
}

type component struct {
	name     string
	cancel   context.CancelFunc
	done     chan struct{}
	err      error
	reported bool                            // err went to failed
	stopHook func(ctx context.Context) error // nil: cancelling is enough
}

func newLifecycle(log *slog.Logger) *lifecycle {
	return &lifecycle{log: log, failed: make(chan error, 1)}
}

// startComponent starts f, which works until its context ends. If it ends before that, the process does.
func (s *lifecycle) startComponent(name string, f func(ctx context.Context) error) *component {
	ctx, cancel := context.WithCancel(context.Background())
	st := &component{name: name, cancel: cancel, done: make(chan struct{})}
	s.components = append(s.components, st)
	go func() {
		defer close(st.done)
		st.err = f(ctx)
		if ctx.Err() == nil {
			err := st.err
			if err == nil {
				err = errors.New("ended by itself")
			}
			select {
			case s.failed <- fmt.Errorf("%s: %w", name, err):
				st.reported = true
			default:
			}
		}
	}()
	return st
}

// addStopHook adds something that runs by itself, or in other stages, and must be stopped at this place of the order.
func (s *lifecycle) addStopHook(name string, stop func(ctx context.Context) error) {
	done := make(chan struct{})
	close(done)
	s.components = append(s.components, &component{name: name, cancel: func() {}, done: done, stopHook: stop})
}

// stopGrace is what a part has for its end when the time for all of them is over: one that hangs does not take the store's chance to
// end in order.
const stopGrace = 300 * time.Millisecond

// stopAll stops in order; what does not end before ctx is left behind and told. Why a part ended by itself is told too, unless
// somebody took it from failed.
func (s *lifecycle) stopAll(ctx context.Context) error {
	var errs []error
	for _, st := range slices.Backward(s.components) {
		start := time.Now()
		if err := st.stop(ctx); err != nil {
			errs = append(errs, err)
		}
		s.log.Debug("stopped", "part", st.name, "took", time.Since(start))
	}
	s.components = nil
	select {
	case err := <-s.failed:
		errs = append(errs, err)
	default:
	}
	return errors.Join(errs...)
}

// stop stops one part. Not even a stop that does not heed its context is waited for longer than that.
func (st *component) stop(ctx context.Context) error {
	if at, ok := ctx.Deadline(); ok && time.Until(at) < stopGrace || ctx.Err() != nil {
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
		defer cancel()
		ctx = late
	}
	defer st.cancel()
	ended := make(chan error, 1)
	go func() {
		var err error
		if st.stopHook != nil {
			if err = st.stopHook(ctx); err != nil {
				err = fmt.Errorf("stop %s: %w", st.name, err)
			}
		}
		st.cancel()
		<-st.done
		if st.err != nil && !st.reported && !errors.Is(st.err, context.Canceled) {
			err = errors.Join(err, fmt.Errorf("%s: %w", st.name, st.err))
		}
		ended <- err
	}()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-ended: // both at once
		return err
	default:
		return fmt.Errorf("%s did not stop in time", st.name)
	}
}
