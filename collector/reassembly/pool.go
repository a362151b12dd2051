package reassembly

// A Pool is the memory that the Conns of one goroutine share: buffers for bytes out of order, and a limit on
// what they take together.
type Pool struct {
	Buffers

	limit   int
	used    int     // the cost of what waits in all Conns
	holders []*Conn // those in which something waits; Conn.holderIndex is the place in it
	random  uint64  // state of the generator that samples holders
}

// NewPool returns a Pool whose Conns may hold limit bytes together.
func NewPool(limit int) *Pool { return &Pool{limit: limit, random: 0x9e3779b97f4a7c15} }

// Used returns the cost of all bytes that wait.
func (p *Pool) Used() int { return p.used }

// Holders returns how many Conns have bytes that wait.
func (p *Pool) Holders() int { return len(p.holders) }

// chargeConn accounts for n more bytes that wait in c, or fewer, and keeps the list of holders.
func (p *Pool) chargeConn(conn *Conn, n int) {
	conn.buffered += n
	p.used += n
	switch {
	case conn.buffered > 0 && conn.holderIndex == 0:
		p.holders = append(p.holders, conn)
		conn.holderIndex = len(p.holders)
	case conn.buffered == 0 && conn.holderIndex > 0:
		last := p.holders[len(p.holders)-1]
		p.holders[conn.holderIndex-1] = last
		last.holderIndex = conn.holderIndex
		p.holders[len(p.holders)-1] = nil
		p.holders = p.holders[:len(p.holders)-1]
		conn.holderIndex = 0
	}
}

// enforceLimit gives up gaps until the Pool is within its limit. It samples a few Conns at random and gives
// up all gaps of the one that holds most. To search all Conns for the largest would take too long.
func (p *Pool) enforceLimit() {
	for p.used > p.limit && len(p.holders) > 0 {
		var largest *Conn
		for range 8 {
			candidate := p.holders[p.randomIndex(len(p.holders))]
			if largest == nil || candidate.buffered > largest.buffered {
				largest = candidate
			}
		}
		for largest.buffered > 0 {
			largest.giveUpOldest(GapBudget)
		}
	}
}

// randomIndex returns a number below n, by xorshift: the same segments relieve the same Conns.
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

// bufferSizes are those of a short message, of a frame, and of the largest segment that offloading makes.
var bufferSizes = [...]int{256, 2 << 10, 66 << 10}

// maxFree is the number of free buffers of each size that are kept.
var maxFree = [...]int{4096, 2048, 64}

// BufferOverhead is the memory that the bookkeeping of a buffer takes.
const BufferOverhead = 96

func sizeClass(n int) int {
	for i, size := range bufferSizes {
		if n <= size {
			return i
		}
	}
	return len(bufferSizes)
}

// BufferCost returns what a buffer for n bytes is charged: the memory that the buffer takes, not the bytes
// that lie in it, so that many small segments do not take more than the budget says.
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
		b := free[len(free)-1]
		p.free[class] = free[:len(free)-1]
		return b[:n]
	}
	return make([]byte, n, bufferSizes[class])
}

// Put takes back a slice that Get returned.
func (p *Buffers) Put(b []byte) {
	class := sizeClass(cap(b))
	if class < len(bufferSizes) && cap(b) == bufferSizes[class] && len(p.free[class]) < maxFree[class] {
		p.free[class] = append(p.free[class], b)
	}
}
