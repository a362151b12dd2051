// Package memory bounds the memory that the parts of the collector hold together.
//
// Each part that keeps bytes on behalf of observed parties (session tables, reassembly, parsers, packet rings, log
// lines) opens an Account of one Budget and charges what it keeps. A charge never waits and never fails: whether it
// is too much is asked afterwards by Excess, at a point where the part can give something up. Only the largest of
// the accounts that can give something up is asked to, so that one connection or one network that fills its part
// does not cost the others theirs.
//
// Account.Add and Account.Excess are for one goroutine, the one that owns the part. The budget is shared by all.
// Charges are collected in the account and reach the budget in portions of 64 KiB, so that workers do not contend
// for one cache line: the sum may be too low by that much for each account.
package memory

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline/metrics"
)

// portion is the number of bytes that an account collects before it charges the budget.
const portion = 64 << 10

// A Budget is a number of bytes that several accounts share.
type Budget struct {
	limit int64
	used  atomic.Int64

	held    *prometheus.GaugeVec   // bytes by part
	givenUp *prometheus.CounterVec // bytes by part

	mu       sync.Mutex
	accounts map[*Account]struct{}
}

// New returns a budget of limit bytes. Its metrics are registered with reg, which may be nil.
func New(limit int64, reg prometheus.Registerer) *Budget {
	register := metrics.With(reg)
	register.Gauge("tidegate_memory_budget_bytes",
		"Memory that the parts of the collector may hold together.").Set(float64(limit))
	return &Budget{
		limit: limit,
		held: register.GaugeVec("tidegate_memory_held_bytes",
			"Memory that a part of the collector holds, as charged to the budget.", "part"),
		givenUp: register.CounterVec("tidegate_memory_given_up_bytes_total",
			"Memory that a part of the collector gave up because the budget was exceeded.", "part"),
		accounts: map[*Account]struct{}{},
	}
}

// An Account is the share of one owner in a budget. All methods of a nil Account do nothing.
type Account struct {
	budget    *Budget
	fixed     bool
	pending   int64        // charged here, not yet to the budget
	committed atomic.Int64 // charged to the budget
	wanted    atomic.Int64 // ns since 1970: since when others need what it has and its owner has not asked; 0: not
	held      prometheus.Gauge
	givenUp   prometheus.Counter
}

// Open returns an account of a part that can give memory up. The name of the part is a label of the metrics; many
// accounts may have one name.
func (b *Budget) Open(part string) *Account { return b.open(part, false) }

// OpenFixed returns an account of a part that cannot give memory up, such as a packet ring.
func (b *Budget) OpenFixed(part string) *Account { return b.open(part, true) }

func (b *Budget) open(part string, fixed bool) *Account {
	if b == nil {
		return nil
	}
	a := &Account{
		budget: b, fixed: fixed,
		held: b.held.WithLabelValues(part), givenUp: b.givenUp.WithLabelValues(part),
	}
	b.mu.Lock()
	b.accounts[a] = struct{}{}
	b.mu.Unlock()
	return a
}

// Add charges n bytes; a negative n releases them.
func (a *Account) Add(n int64) {
	if a == nil {
		return
	}
	a.pending += n
	if a.pending >= portion || a.pending <= -portion {
		a.commit()
	}
}

func (a *Account) commit() {
	a.budget.used.Add(a.pending)
	a.committed.Add(a.pending)
	a.held.Add(float64(a.pending))
	a.pending = 0
}

// Excess returns the number of bytes that the owner has to give up now. It is 0 while the budget is kept, and for
// every account but the largest one. It leaves a sixteenth of the budget free, so that the next charge does not ask
// again.
//
// An owner calls it when it has charged more, and ten times a second while it does not: others may have grown. When the
// owner of the largest account has not called it for patience, the next one is asked. Beyond a sixteenth above the budget
// nobody waits for the largest: each account that holds more than a sixteenth of the budget is asked.
func (a *Account) Excess() int64 {
	if a == nil || a.fixed {
		return 0
	}
	if a.wanted.Load() != 0 {
		a.wanted.Store(0)
	}
	if a.budget.used.Load() <= a.budget.limit {
		return 0
	}
	if !a.budget.isFarExceeded(a) && !a.budget.isLargest(a) {
		return 0
	}
	excess := a.budget.used.Load() - a.budget.limit + a.budget.margin()
	return max(0, min(excess, a.committed.Load()+a.pending))
}

// GaveUp counts n bytes that were given up because of Excess. Their release is charged by Add as any other.
func (a *Account) GaveUp(n int64) {
	if a != nil {
		a.givenUp.Add(float64(n))
	}
}

// margin is the part of the budget, 1/16, that may be charged beyond it for a short time.
func (b *Budget) margin() int64 { return b.limit / 16 }

// isFarExceeded reports whether the margin is used up and a is one of those that have used it.
func (b *Budget) isFarExceeded(a *Account) bool {
	return b.used.Load() > b.limit+b.margin() && a.committed.Load() > b.margin()
}

// patience is the time for which an account that is exceeded waits for the owner of the largest one.
const patience = time.Second

// isLargest reports whether no other account that can give memory up holds more than a.
func (b *Budget) isLargest(a *Account) bool {
	held, now := a.committed.Load(), time.Now().UnixNano()
	b.mu.Lock()
	defer b.mu.Unlock()
	for other := range b.accounts {
		if other == a || other.fixed || other.committed.Load() <= held {
			continue
		}
		if since := other.wanted.Load(); since == 0 {
			other.wanted.Store(now)
		} else if now-since > int64(patience) {
			continue
		}
		return false
	}
	return true
}

// Close releases all that the account holds and ends its use.
func (a *Account) Close() {
	if a == nil {
		return
	}
	a.pending = -a.committed.Load()
	a.commit()
	a.budget.mu.Lock()
	delete(a.budget.accounts, a)
	a.budget.mu.Unlock()
}

// Limit returns the number of bytes of the budget, 0 of a nil Budget.
func (b *Budget) Limit() int64 {
	if b == nil {
		return 0
	}
	return b.limit
}

// Used returns the number of bytes that are charged to the budget.
func (b *Budget) Used() int64 {
	if b == nil {
		return 0
	}
	return b.used.Load()
}
