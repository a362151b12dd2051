package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// stages are the parts of a running process, started one after the other and stopped in the reverse order, each before what it
// needs: sources, shipper, engine, publisher, store, broker.
type stages struct {
	log    *slog.Logger
	list   []*stage
	failed chan error // the first part that ended by itself
}

type stage struct {
	name   string
	cancel context.CancelFunc
	done   chan struct{}
	err    error
	stop   func(ctx context.Context) error // nil: cancelling is enough
}

func newStages(log *slog.Logger) *stages {
	return &stages{log: log, failed: make(chan error, 1)}
}

// run starts f, which works until its context ends. If it ends before that, the process does.
func (s *stages) run(name string, f func(ctx context.Context) error) *stage {
	ctx, cancel := context.WithCancel(context.Background())
	st := &stage{name: name, cancel: cancel, done: make(chan struct{})}
	s.list = append(s.list, st)
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
			default:
			}
		}
	}()
	return st
}

// onStop adds something that runs by itself, or in other stages, and must be stopped at this place of the order.
func (s *stages) onStop(name string, stop func(ctx context.Context) error) {
	done := make(chan struct{})
	close(done)
	s.list = append(s.list, &stage{name: name, cancel: func() {}, done: done, stop: stop})
}

// stopAll stops in order; what does not end before ctx is left behind and told.
func (s *stages) stopAll(ctx context.Context) error {
	var errs []error
	for _, st := range slices.Backward(s.list) {
		start := time.Now()
		if st.stop != nil {
			if err := st.stop(ctx); err != nil {
				errs = append(errs, fmt.Errorf("stop %s: %w", st.name, err))
			}
		}
		st.cancel()
		select {
		case <-st.done:
			if st.err != nil && !errors.Is(st.err, context.Canceled) {
				errs = append(errs, fmt.Errorf("%s: %w", st.name, st.err))
			}
		case <-ctx.Done():
			errs = append(errs, fmt.Errorf("%s did not stop in time", st.name))
		}
		s.log.Debug("stopped", "part", st.name, "took", time.Since(start))
	}
	s.list = nil
	return errors.Join(errs...)
}
