package reassembly

import (
	"math"

	"tidegate/pipeline/memory"
)

// A Pool holds the buffers of the waiting segments of all Conns of one goroutine, and bounds their memory: by a limit of
// its own, and by the memory budget of its Account, which may be nil.
type Pool struct {
	Buffers
	memory.Holders[*Conn]
	delivered deliveredRing
}

// NewPool returns a Pool whose Conns together may hold limit bytes.
func NewPool(limit int) *Pool {
	pool := &Pool{Holders: memory.Holders[*Conn]{Limit: limit}}
	pool.SetDelivered(nil, 512<<10)
	return pool
}

// chargeConn adds n, which may be negative, to the memory charged to conn.
func (p *Pool) chargeConn(conn *Conn, n int) { p.Charge(&conn.waiting, conn, conn.waiting.Bytes()+n) }

// EnforceLimit gives up gaps until the Pool is within its limit and the memory budget: all gaps of one Conn after another.
func (p *Pool) EnforceLimit() {
	if p.Account.Excess() > 0 {
		p.DropFree()
	}
	p.Enforce(math.MaxInt, (*Conn).giveUpAll)
}

// SetAccount makes account the one that is charged with the waiting segments and the free buffers.
func (p *Pool) SetAccount(account *memory.Account) { p.Account, p.memory = account, account }

// SetDelivered sets how many of the bytes that were delivered last are kept, and the account that is charged with them.
// It must be called before the first of them. size is 128 KiB at least.
func (p *Pool) SetDelivered(account *memory.Account, size int) {
	p.delivered.account, p.delivered.size = account, uint64(size)
}

// CloseAccounts releases what the Pool is charged.
func (p *Pool) CloseAccounts() {
	p.Account.Close()
	p.delivered.account.Close()
}

// giveUpAll gives up the copies of c, or all its gaps if it has none.
func (c *Conn) giveUpAll() {
	if c.giveUpPinned() {
		return
	}
	for c.Buffered() > 0 {
		c.giveUpOldest(GapBudget)
	}
}

// Buffers is a pool of byte slices in three sizes.
type Buffers struct {
	memory *memory.Account // charged with free
	free   [len(bufferSizes)][][]byte
}

// DropFree leaves the free buffers to the garbage collector.
func (p *Buffers) DropFree() {
	for class, size := range bufferSizes {
		p.memory.Add(-int64(len(p.free[class]) * size))
		p.memory.GaveUp(int64(len(p.free[class]) * size))
		p.free[class] = nil
	}
}

// bufferSizes has the sizes of a short message, of an Ethernet frame, and of the largest segment that
// offloading produces.
var bufferSizes = [...]int{256, 2 << 10, 66 << 10}

// maxFree is the number of free buffers of each size that are kept.
var maxFree = [...]int{4096, 1024, 16}

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
		p.memory.Add(-int64(bufferSizes[class]))
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
		p.memory.Add(int64(bufferSizes[class]))
	}
}
