package reassembly

import (
	"testing"

	"tidegate/pipeline/memory"
)

// chargedTo returns what account, the only one of budget, is charged with.
func chargedTo(budget *memory.Budget, account *memory.Account) int {
	account.Add(1 << 20) // more than is collected before the budget is charged
	account.Add(-1 << 20)
	return int(budget.Used())
}

// TestBuffersAreReusedByTheirSizes, and those of another size are not kept.
func TestBuffersAreReusedByTheirSizes(t *testing.T) {
	budget := memory.New(1<<30, nil)
	account := budget.Open("buffers")
	pool := NewPool(1 << 20)
	pool.SetAccount(account)
	check := func(what string, want int) {
		t.Helper()
		if got := chargedTo(budget, account); got != want {
			t.Errorf("%s: %d bytes are charged, want %d", what, got, want)
		}
	}
	for size, class := range map[int]int{0: 0, 1: 0, 256: 0, 257: 1, 2 << 10: 1, 2<<10 + 1: 2, 66 << 10: 2, 66<<10 + 1: 3} {
		if got := sizeClass(size); got != class {
			t.Errorf("%d bytes are of class %d, want %d", size, got, class)
		}
		data := pool.Get(size)
		if len(data) != size {
			t.Errorf("%d bytes for %d", len(data), size)
		}
		if class == len(bufferSizes) {
			if pool.Put(data); BufferCost(size) != size+BufferOverhead {
				t.Errorf("%d bytes cost %d", size, BufferCost(size))
			}
			check("a buffer larger than all", 0)
			continue
		}
		if cap(data) != bufferSizes[class] || BufferCost(size) != bufferSizes[class]+BufferOverhead {
			t.Errorf("%d bytes are in a buffer of %d and cost %d", size, cap(data), BufferCost(size))
		}
		pool.Put(data)
		check("a free buffer", bufferSizes[class])
		if again := pool.Get(1 + bufferSizes[class]/2); &again[:1][0] != &data[:1][0] && class > 0 {
			t.Errorf("a buffer of %d bytes is not used again", bufferSizes[class])
		}
		pool.DropFree()
		check("no free buffer", 0)
	}
	pool.Put(make([]byte, 300))
	check("a slice that is none of a buffer", 0)
	for class, size := range bufferSizes {
		for range maxFree[class] + 1 {
			pool.Put(make([]byte, size))
		}
		check("as many free buffers as are kept", size*maxFree[class])
		pool.DropFree()
		check("none", 0)
	}
}

// TestPoolIsChargedWithWhatItHolds: what waits, what is free, and the copies of what was delivered. When the budget of all
// parts is exceeded, it gives up what is free and then what waits.
func TestPoolIsChargedWithWhatItHolds(t *testing.T) {
	budget, copiesBudget := memory.New(1<<20, nil), memory.New(1<<30, nil)
	account, copies := budget.Open("segments"), copiesBudget.Open("copies")
	pool := NewPool(64 << 20)
	pool.SetAccount(account)
	pool.SetDelivered(copies, 128<<10)
	conn := newTestConn(t, testConfig(), defaultISN)
	conn.pool = pool
	conn.Init(conn.cfg, pool, conn.recorder)
	conn.handshake().segment(0, "A", 10, 0, "waits")
	conn.segment(0, "A", 20, 0, "too")
	check := func(what string, waits, free int) {
		t.Helper()
		if got, want := chargedTo(budget, account), waits*BufferCost(5)+free*bufferSizes[0]; got != want || conn.Buffered() != waits*BufferCost(5) {
			t.Errorf("%s: %d bytes are charged, want %d; %d wait", what, got, want, conn.Buffered())
		}
	}
	check("two segments wait", 2, 0)
	conn.segment(0, "A", 0, 0, "0123456789")
	conn.want(">0123456789 >waits")
	check("one waits", 1, 1)
	if got, want := chargedTo(copiesBudget, copies), (128<<10)+(128<<10)/bytesPerRun*int(deliveredRunSize); got != want {
		t.Errorf("%d bytes are charged for copies, want %d", got, want)
	}

	pool.EnforceLimit()
	check("within the budget", 1, 1)
	account.Add(2 << 20) // for something else
	pool.EnforceLimit()
	account.Add(-2 << 20)
	conn.want(">0123456789 >waits >gap5 >too")
	check("beyond the budget", 0, 1) // the buffer of the segment that waited
	pool.CloseAccounts()
	if budget.Used() != 0 || copiesBudget.Used() != 0 {
		t.Errorf("%d and %d bytes are charged when the pool is closed", budget.Used(), copiesBudget.Used())
	}
}
