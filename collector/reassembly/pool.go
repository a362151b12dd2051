package reassembly

import "tidegate/pipeline/memory"

// A Pool holds the buffers of the waiting segments of all Conns of one goroutine, and bounds their memory.
type Pool struct {
	Buffers

	// Memory, unless nil, is charged with the waiting segments. While its budget is exceeded, gaps are given up.
	Memory *memory.Account

	limit   int
	used    int     // the memory charged for the waiting segments of all Conns
	holders []*Conn // the Conns with waiting segments; Conn.holderIndex is the index plus one
	random  uint64  // state of the generator that samples holders
}

// NewPool returns a Pool whose Conns together may hold limit bytes.
func NewPool(limit int) *Pool { return &Pool{limit: limit, random: 0x9e3779b97f4a7c15} }

// Used returns the memory charged for the waiting segments of all Conns.
func (p *Pool) Used() int { return p.used }

// Holders returns the number of Conns with waiting segments.
func (p *Pool) Holders() int { return len(p.holders) }

// chargeConn adds n, which may be negative, to the memory charged to conn, and updates the list of holders.
func (p *Pool) chargeConn(conn *Conn, n int) {
	conn.buffered += n
	p.used += n
	p.Memory.Add(int64(n))
	switch {
	case conn.buffered > 0 && conn.holderIndex == 0:
		p.holders = append(p.holders, conn)
		conn.holderIndex = len(p.holders)
	case conn.buffered == 0 && conn.holderIndex > 0:
		// The last holder takes the place of conn.
		last := p.holders[len(p.holders)-1]
		p.holders[conn.holderIndex-1] = last
		last.holderIndex = conn.holderIndex
		p.holders[len(p.holders)-1] = nil
		p.holders = p.holders[:len(p.holders)-1]
		conn.holderIndex = 0
	}
}

// EnforceLimit gives up gaps until the Pool is within its limit and the memory budget. Each turn samples a few Conns
// at random and gives up all gaps of the one that holds most. A search of all Conns would take too long.
func (p *Pool) EnforceLimit() {
	for len(p.holders) > 0 {
		excess := p.Memory.Excess()
		if p.used <= p.limit && excess == 0 {
			return
		}
		var largest *Conn
		for range 8 {
			candidate := p.holders[p.randomIndex(len(p.holders))]
			if largest == nil || candidate.buffered > largest.buffered {
				largest = candidate
			}
		}
		before := p.used
		for largest.buffered > 0 {
			largest.giveUpOldest(GapBudget)
		}
		if excess > 0 {
			p.Memory.GaveUp(int64(before - p.used))
		}
	}
}

// randomIndex returns a pseudo-random number below n (xorshift). The same segments always choose the same
// Conns.
func (p *Pool) randomIndex(n int) int {
	p.random ^= p.random << 13
	p.random ^= p.random >> 7
	p.random ^= p.random << 17
	return int(p.random % uint64(n))
}

// Buffers is a pool of byte slices in three sizes.
type Buffers struct {
	free [len(bufferSizes)][][]byte
}

// bufferSizes has the sizes of a short message, of an Ethernet frame, and of the largest segment that
// offloading produces.
var bufferSizes = [...]int{256, 2 << 10, 66 << 10}

// maxFree is the number of free buffers of each size that are kept.
var maxFree = [...]int{4096, 2048, 64}

// BufferOverhead is the memory charged for the bookkeeping of a buffer.
const BufferOverhead = 96

// sizeClass returns the index in bufferSizes of the smallest buffer for n bytes, or len(bufferSizes) if none
// is large enough.
func sizeClass(n int) int {
	for i, size := range bufferSizes {
		if n <= size {
			return i
		}
	}
	return len(bufferSizes)
}

// BufferCost returns the memory charged for a buffer for n bytes. It is the size of the buffer, not n, so
// that many small segments do not exceed the limit.
func BufferCost(n int) int {
	if class := sizeClass(n); class < len(bufferSizes) {
		return bufferSizes[class] + BufferOverhead
	}
	return n + BufferOverhead
}

// Get returns a slice of n bytes.
func (p *Buffers) Get(n int) []byte {
	class := sizeClass(n)
	if class == len(bufferSizes) {
		return make([]byte, n)
	}
	if free := p.free[class]; len(free) > 0 {
		data := free[len(free)-1]
		p.free[class] = free[:len(free)-1]
		return data[:n]
	}
	return make([]byte, n, bufferSizes[class])
}

// Put frees a slice that Get returned. A slice of another size, or one too many, is left to the garbage
// collector.
func (p *Buffers) Put(data []byte) {
	class := sizeClass(cap(data))
	if class < len(bufferSizes) && cap(data) == bufferSizes[class] && len(p.free[class]) < maxFree[class] {
		p.free[class] = append(p.free[class], data)
	}
}
