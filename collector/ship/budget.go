package ship

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
)

// A byteBudget bounds the bytes of events in memory. charge never waits, so that packets are not delayed. A
// producer of files calls waitBelow before it adds an event, so the budget is exceeded by at most one event
// of each producer.
type byteBudget struct {
	size      atomic.Int64
	used      atomic.Int64
	waiters   atomic.Int64 // calls of waitBelow that are waiting
	abandoned atomic.Bool  // the partition is not in use: nobody waits for its memory

	mu       sync.Mutex
	refunded chan struct{} // closed and replaced by refund while waiters > 0
}

func newByteBudget(limit int64) *byteBudget {
	budget := &byteBudget{refunded: make(chan struct{})}
	budget.size.Store(limit)
	return budget
}

func (b *byteBudget) limit() int64 { return b.size.Load() }

// isFull reports whether all bytes are used.
func (b *byteBudget) isFull() bool { return b.used.Load() >= b.size.Load() }

// charge adds n bytes to the used ones.
func (b *byteBudget) charge(n int) { b.used.Add(int64(n)) }

// refund subtracts n bytes from the used ones and wakes the calls of waitBelow.
func (b *byteBudget) refund(n int) {
	b.used.Add(int64(-n))
	b.wakeWaiters()
}

// abandon ends the calls of waitBelow with errAbandoned.
func (b *byteBudget) abandon() {
	b.abandoned.Store(true)
	b.wakeWaiters()
}

// wakeWaiters lets the calls of waitBelow look again.
func (b *byteBudget) wakeWaiters() {
	if b.waiters.Load() > 0 {
		b.mu.Lock()
		close(b.refunded)
		b.refunded = make(chan struct{})
		b.mu.Unlock()
	}
}

// The errors of waitBelow after which the waiter waits for another budget.
var (
	errSourceGone = errors.New("the file cannot be read again")
	errAbandoned  = errors.New("the partition is not in use")
)

// waitBelow returns nil when less than limit is used. It returns an error when ctx ends, when stop or gone is closed,
// or when the budget is abandoned.
func (b *byteBudget) waitBelow(ctx context.Context, stop, gone <-chan struct{}, limit int64) error {
	if b.used.Load() < limit {
		return nil
	}
	b.waiters.Add(1)
	defer b.waiters.Add(-1)
	for {
		// The channel is read before used: a refund between the two reads closes it, and no wake-up is
		// missed.
		b.mu.Lock()
		refunded := b.refunded
		b.mu.Unlock()
		switch {
		case b.used.Load() < limit:
			return nil
		case b.abandoned.Load():
			return errAbandoned
		}
		select {
		case <-refunded:
		case <-ctx.Done():
			return ctx.Err()
		case <-gone:
			return errSourceGone
		case <-stop:
			return ErrClosed
		}
	}
}
