package capture

import (
	"sync"

	"tidegate/pipeline/memory"
)

// A ringMemory bounds the memory of all rings together. The first interfaces get rings of the configured size. The
// more memory the rings hold, the smaller are those of further interfaces, down to minRingBytes: an interface is
// never left out for want of memory.
type ringMemory struct {
	mu      sync.Mutex
	limit   int64 // 0: none
	held    int64
	account *memory.Account
	changed func(held int64) // nil: not called
}

// charge adds size bytes. m.mu is held.
func (m *ringMemory) charge(size int64) {
	m.held += size
	m.account.Add(size)
	if m.changed != nil {
		m.changed(m.held)
	}
}

// reserve returns the size of each of count rings that are about to be opened, at most want bytes, and charges them.
func (m *ringMemory) reserve(want int64, count int) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	size := want
	if half := (m.limit - m.held) / 2 / int64(count); m.limit > 0 && size > half && m.held+size*int64(count) > m.limit/2 {
		size = max(half, int64(minRingBytes))
	}
	m.charge(size * int64(count))
	return size
}

// release subtracts size bytes of rings that were closed, or not opened.
func (m *ringMemory) release(size int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.charge(-size)
}
