package ship

import (
	"math/bits"
	"sync"
)

const (
	// smallestBuffer is the capacity with which the buffer of a batch begins.
	smallestBuffer = 4 << 10
	// headerRoom is more than the header of a batch takes, unless the names of host and cluster are long.
	headerRoom = 1 << 10
)

// bufferPools hold buffers of batches that are done, *[]byte, by the power of two that their capacity reaches.
var bufferPools [bits.UintSize]sync.Pool

// reserve returns buf with room for size more bytes. A buffer that is too small is replaced by one of twice its capacity,
// up to half of limit; beyond that by one of limit and the room for the header, so that a full batch is not copied once more
// for its last bytes.
func reserve(buf []byte, size, limit int) []byte {
	if cap(buf)-len(buf) >= size {
		return buf
	}
	capacity := max(2*cap(buf), smallestBuffer, len(buf)+size)
	if whole := limit + headerRoom; capacity > limit/2 && len(buf)+size <= whole {
		capacity = whole
	}
	larger := append(newBuffer(capacity), buf...)
	releaseBuffer(buf)
	return larger
}

// newBuffer returns an empty buffer of that capacity, of a batch that is done if there is one.
func newBuffer(capacity int) []byte {
	if buf, ok := bufferPool(capacity).Get().(*[]byte); ok && cap(*buf) == capacity {
		return (*buf)[:0]
	}
	return make([]byte, 0, capacity)
}

// releaseBuffer lets another batch have buf, which nobody uses any more.
func releaseBuffer(buf []byte) {
	if cap(buf) > 0 {
		bufferPool(cap(buf)).Put(&buf)
	}
}

func bufferPool(capacity int) *sync.Pool { return &bufferPools[bits.Len(uint(capacity))-1] }
