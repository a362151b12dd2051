package ship

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
)

// A byteBudget is a number of bytes that may wait in memory. Taking is free of waiting, so that a wire can go on: who can wait does so
// before it takes, and the room is then exceeded by no more than one event a lane.
type byteBudget struct {
	size    atomic.Int64
	used    atomic.Int64
	waiting atomic.Int64

	mu   sync.Mutex
	wake chan struct{}
}

func newByteBudget(limit int64) *byteBudget {
	r := &byteBudget{wake: make(chan struct{})}
	r.size.Store(limit)
	return r
}

func (r *byteBudget) limit() int64 { return r.size.Load() }

func (r *byteBudget) charge(n int) { r.used.Add(int64(n)) }

func (r *byteBudget) refund(n int) {
	r.used.Add(int64(-n))
	if r.waiting.Load() > 0 {
		r.mu.Lock()
		close(r.wake)
		r.wake = make(chan struct{})
		r.mu.Unlock()
	}
}

// errSourceGone says that who waits should wait elsewhere.
var errSourceGone = errors.New("the lane was sealed")

// waitBelow returns when less than limit is used, or with an error when ctx ends or one of the channels is closed.
func (r *byteBudget) waitBelow(ctx context.Context, stop, sealed <-chan struct{}, limit int64) error {
	if r.used.Load() < limit {
		return nil
	}
	r.waiting.Add(1)
	defer r.waiting.Add(-1)
	for {
		r.mu.Lock()
		wake := r.wake
		r.mu.Unlock()
		if r.used.Load() < limit {
			return nil
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return ctx.Err()
		case <-sealed:
			return errSourceGone
		case <-stop:
			return ErrClosed
		}
	}
}
