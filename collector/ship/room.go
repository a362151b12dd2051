package ship

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
)

// A room is a number of bytes that may wait in memory. Taking is free of waiting, so that a wire can go on: who can wait does so
// before it takes, and the room is then exceeded by no more than one event a lane.
type room struct {
	size    atomic.Int64
	used    atomic.Int64
	waiting atomic.Int64

	mu   sync.Mutex
	wake chan struct{}
}

func newRoom(limit int64) *room {
	r := &room{wake: make(chan struct{})}
	r.size.Store(limit)
	return r
}

func (r *room) limit() int64 { return r.size.Load() }

func (r *room) add(n int) { r.used.Add(int64(n)) }

func (r *room) free(n int) {
	r.used.Add(int64(-n))
	if r.waiting.Load() > 0 {
		r.mu.Lock()
		close(r.wake)
		r.wake = make(chan struct{})
		r.mu.Unlock()
	}
}

// errSealed says that who waits should wait elsewhere.
var errSealed = errors.New("the lane was sealed")

// wait returns when less than limit is used, or with an error when ctx ends or one of the channels is closed.
func (r *room) wait(ctx context.Context, stop, sealed <-chan struct{}, limit int64) error {
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
			return errSealed
		case <-stop:
			return ErrClosed
		}
	}
}
