package memory

// A Holding holds the bytes of an account that one owner, such as a connection, has. It is a part of its owner.
type Holding[T any] struct {
	owner T
	bytes int
	index int // in Holders.list, plus one; 0: not in it
}

// Bytes returns what is charged.
func (h *Holding[T]) Bytes() int { return h.bytes }

// Holders are the owners of one account, of which the largest give up first. They are used by one goroutine.
type Holders[T any] struct {
	Account *Account // charged with all holdings; may be nil
	Limit   int      // bound on all holdings besides the budget; 0: none
	Least   int      // a holding that is not above it is never given up

	used   int
	list   []*Holding[T] // those above Least
	random uint64        // state of the generator that picks samples
}

// Used returns the sum of all holdings.
func (h *Holders[T]) Used() int { return h.used }

// Len returns the number of holdings above Least.
func (h *Holders[T]) Len() int { return len(h.list) }

// IsExceeded reports whether the limit or the budget is.
func (h *Holders[T]) IsExceeded() bool { return h.isAboveLimit() || h.Account.Excess() > 0 }

func (h *Holders[T]) isAboveLimit() bool { return h.Limit > 0 && h.used > h.Limit }

// Charge makes bytes those of holding, which belongs to owner.
func (h *Holders[T]) Charge(holding *Holding[T], owner T, bytes int) {
	h.used += bytes - holding.bytes
	h.Account.Add(int64(bytes - holding.bytes))
	holding.bytes = bytes
	switch {
	case bytes > h.Least && holding.index == 0:
		h.list = append(h.list, holding)
		holding.owner, holding.index = owner, len(h.list)
	case bytes <= h.Least && holding.index > 0:
		// The last one takes its place.
		last := len(h.list) - 1
		h.list[holding.index-1] = h.list[last]
		h.list[last].index = holding.index
		h.list[last] = nil
		h.list = h.list[:last]
		holding.index = 0
	}
}

// Enforce has up to most owners give up what they hold, until neither the limit nor the budget is exceeded. giveUp reduces
// the holding of the owner. It may take two calls until that is Least or less.
func (h *Holders[T]) Enforce(most int, giveUp func(T)) {
	for range most {
		excess := h.Account.Excess()
		if len(h.list) == 0 || excess == 0 && !h.isAboveLimit() {
			return
		}
		largest := h.sampleLargest()
		before := largest.bytes
		giveUp(largest.owner)
		if excess > 0 {
			h.Account.GaveUp(int64(before - largest.bytes))
		}
	}
}

// samples is the number of holdings of which the largest is taken. A search of all would take too long.
const samples = 8

// sampleLargest returns the largest of a few holdings that are picked at random (xorshift). The same holdings are picked
// in each run of the program.
func (h *Holders[T]) sampleLargest() (largest *Holding[T]) {
	if h.random == 0 {
		h.random = 0x9e3779b97f4a7c15
	}
	for range samples {
		h.random ^= h.random << 13
		h.random ^= h.random >> 7
		h.random ^= h.random << 17
		if candidate := h.list[h.random%uint64(len(h.list))]; largest == nil || candidate.bytes > largest.bytes {
			largest = candidate
		}
	}
	return largest
}

// SetAccount releases all holdings above Least and makes account the one that is charged from now on. The account before is
// closed.
func (h *Holders[T]) SetAccount(account *Account) {
	h.Account.Close()
	for _, holding := range h.list {
		holding.bytes, holding.index = 0, 0
	}
	*h = Holders[T]{Account: account, Limit: h.Limit, Least: h.Least, random: h.random}
}
