package engine

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline"
	"tidegate/pipeline/metrics"
)

// A memoryBudget bounds what the workers of the process hold together, for any number of partitions. A fetcher
// takes the memory for a record before it hands the record out: its bytes, the decoded batch, its columns, and the copies
// of long texts while they are stored. Record batches whose memory is not taken yet are few: Engine.decoding.
// The worker gives it back once the block is stored. So only fetchers wait; a worker always has the memory for
// what it has received, finishes its block with that, and frees it.
type memoryBudget struct {
	limit int64

	mu       sync.Mutex
	used     int64           // guarded by mu, like all below
	waiting  []*memoryWaiter // in the order in which they are served
	accounts int
	// overdrawn is the account that may take more than the limit: its worker replays a block, which cannot end
	// early. There is one at a time; further replays wait for it.
	overdrawn *memoryAccount

	usedGauge, waitingGauge prometheus.Gauge
}

// A memoryAccount is the part of a budget that one worker and its fetcher hold.
type memoryAccount struct {
	budget    *memoryBudget
	held      int64 // guarded by budget.mu, like all below
	isReplay  bool
	isClosed  bool
	isWaiting bool
	// short receives a value when the fetcher begins to wait for memory.
	short chan struct{}
}

// A memoryWaiter is a fetcher that waits for memory.
type memoryWaiter struct {
	account *memoryAccount
	bytes   int64
	ready   chan struct{} // closed when the bytes are taken or the account is closed
}

// Shares of the memory of the process, in sixteenths. What is left is for the responses of fetches, what the
// garbage collector has not freed yet, detectors, and everything else.
const (
	blockShare    = 7 // records, decoded batches and columns of the blocks
	inserterShare = 2 // columns that wait for the next block
	fetchShare    = 1 // responses of fetches
	shares        = 16
)

func newMemoryBudget(memory int64, reg prometheus.Registerer) *memoryBudget {
	factory := metrics.With(reg)
	budget := &memoryBudget{
		limit: memory / shares * blockShare,
		usedGauge: factory.Gauge("tidegate_engine_memory_used_bytes",
			"Memory of the events that the engine holds: fetched, decoded, as columns, and as signals. It is a share of engine.memory."),
		waitingGauge: factory.Gauge("tidegate_engine_memory_waiting",
			"Partitions that fetch no further until other partitions have stored their blocks."),
	}
	factory.Gauge("tidegate_engine_memory_limit_bytes",
		"Most that tidegate_engine_memory_used_bytes becomes, except for a block that is replayed.").Set(float64(budget.limit))
	return budget
}

// open returns the account of a worker.
func (b *memoryBudget) open() *memoryAccount {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.accounts++
	return &memoryAccount{budget: b, short: make(chan struct{}, 1)}
}

// close returns all that the account holds to the budget. Its fetcher gets no more memory.
func (a *memoryAccount) close() {
	b := a.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	a.isClosed = true
	b.accounts--
	if b.overdrawn == a {
		b.overdrawn = nil
	}
	b.waiting = slices.DeleteFunc(b.waiting, func(w *memoryWaiter) bool {
		if w.account == a {
			close(w.ready)
		}
		return w.account == a
	})
	a.giveBack(a.held)
}

// setReplay marks the beginning and the end of the replay of a block.
func (a *memoryAccount) setReplay(isReplay bool) {
	a.budget.mu.Lock()
	defer a.budget.mu.Unlock()
	a.isReplay = isReplay
	if !isReplay && a.budget.overdrawn == a {
		a.budget.overdrawn = nil
	}
	a.budget.serve()
}

// Release gives n bytes back.
func (a *memoryAccount) Release(n int64) {
	a.budget.mu.Lock()
	defer a.budget.mu.Unlock()
	a.giveBack(n)
}

// giveBack gives n bytes back and serves those who wait. The budget is locked.
func (a *memoryAccount) giveBack(n int64) {
	n = min(n, a.held) // nothing is held any more after close
	a.held -= n
	a.budget.used -= n
	a.budget.serve()
}

// TryTake implements consumer.Memory.
func (a *memoryAccount) TryTake(n int64) bool {
	a.budget.mu.Lock()
	defer a.budget.mu.Unlock()
	if a.isClosed || len(a.budget.waiting) > 0 && !a.isReplay || !a.mayTake(n) {
		return false
	}
	a.charge(n)
	return true
}

// Take implements consumer.Memory.
func (a *memoryAccount) Take(ctx context.Context, n int64) error {
	b := a.budget
	waiter := &memoryWaiter{account: a, bytes: n, ready: make(chan struct{})}
	b.mu.Lock()
	if a.isClosed {
		b.mu.Unlock()
		return errAccountClosed
	}
	a.isWaiting = true
	b.waiting = append(b.waiting, waiter)
	b.serve()
	b.mu.Unlock()
	select {
	case a.short <- struct{}{}:
	default:
	}

	select {
	case <-waiter.ready:
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	a.isWaiting = false
	if at := slices.Index(b.waiting, waiter); at >= 0 {
		b.waiting = slices.Delete(b.waiting, at, at+1)
		b.serve()
		return context.Cause(ctx)
	}
	if a.isClosed {
		return errAccountClosed
	}
	return nil
}

// errAccountClosed ends a fetcher whose worker has ended.
var errAccountClosed = errors.New("the worker has ended")

// mayTake reports whether a may take n more bytes. A request larger than the limit is granted when no worker holds any
// memory, since nothing could be freed for it, and one replay at a time may exceed the limit.
func (a *memoryAccount) mayTake(n int64) bool {
	b := a.budget
	if b.used+n <= b.limit || b.used == 0 {
		return true
	}
	return a.isReplay && (b.overdrawn == nil || b.overdrawn == a)
}

func (a *memoryAccount) charge(n int64) {
	b := a.budget
	a.held += n
	b.used += n
	if b.used > b.limit && a.isReplay {
		b.overdrawn = a
	}
	b.usedGauge.Set(float64(b.used))
}

// serve gives memory to those who wait, replays first and then in order. The budget is locked.
func (b *memoryBudget) serve() {
	for i := 0; i < len(b.waiting); {
		waiter := b.waiting[i]
		if (i == 0 || waiter.account.isReplay) && waiter.account.mayTake(waiter.bytes) {
			waiter.account.charge(waiter.bytes)
			close(waiter.ready)
			b.waiting = slices.Delete(b.waiting, i, i+1)
			i = 0
			continue
		}
		i++
	}
	b.usedGauge.Set(float64(b.used))
	b.waitingGauge.Set(float64(len(b.waiting)))
}

// isShort reports whether the fetcher of the account waits for memory and a block of n bytes is large enough to
// be stored instead of waiting with it: a quarter of the even share of a partition.
func (a *memoryAccount) isShort(n int64) bool {
	b := a.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	return a.isWaiting && n >= b.limit/int64(4*max(1, b.accounts))
}

// An inserterPool keeps inserters, with the buffers of their columns, between blocks. Workers share them: each
// buffer has the size of the largest block of late, and most partitions are idle most of the time.
type inserterPool struct {
	newInserter func() pipeline.EventInserter
	limit       int // bytes

	mu   sync.Mutex
	free []pipeline.EventInserter
	kept int // bytes of free
}

// takeInserter returns an empty inserter.
func (p *inserterPool) takeInserter() pipeline.EventInserter {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := len(p.free) - 1
	if last < 0 {
		return p.newInserter()
	}
	inserter := p.free[last]
	p.free[last] = nil
	p.free = p.free[:last]
	p.kept -= inserter.Capacity()
	return inserter
}

// putInserter returns an inserter to the pool, which drops it if it would keep too much.
func (p *inserterPool) putInserter(inserter pipeline.EventInserter) {
	inserter.Reset()
	p.mu.Lock()
	defer p.mu.Unlock()
	if size := inserter.Capacity(); p.kept+size <= p.limit {
		p.free = append(p.free, inserter)
		p.kept += size
	}
}
