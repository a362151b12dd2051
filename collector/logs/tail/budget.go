package tail

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// reservedDescriptors is the number of descriptors that are reserved for the rest of the process.
const reservedDescriptors = 256

// A budget bounds the descriptors and the memory of all tailers of a Group. Its methods may be called by any
// goroutine.
type budget struct {
	maxFiles  int64 // descriptors
	maxMemory int64 // bytes of buffers, and as many again of lines that are not complete

	openFiles     atomic.Int64
	activeBuffers atomic.Int64
	pendingBytes  atomic.Int64 // of lines that are not complete
	pools         [len(bufferSizes)]sync.Pool
}

// bufferSizes are the sizes of read buffers. Smaller buffers are used when many tailers read at once, so that
// thousands of tailers which are blocked in Ship stay within the budget.
var bufferSizes = [...]int{256 << 10, 64 << 10, 16 << 10}

// descriptorLimit returns the process's limit of open files minus reservedDescriptors, at least 64.
func descriptorLimit() int64 {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return 1024 - reservedDescriptors
	}
	return max(64, min(int64(limit.Cur), 1<<20)-reservedDescriptors)
}

// getBuffer returns the largest read buffer that the number of active buffers allows within maxMemory.
func (b *budget) getBuffer() []byte {
	active, class := b.activeBuffers.Add(1), 0
	for class < len(bufferSizes)-1 && active*int64(bufferSizes[class]) > b.maxMemory {
		class++
	}
	if buf, ok := b.pools[class].Get().(*[]byte); ok {
		return *buf
	}
	return make([]byte, bufferSizes[class])
}

// putBuffer releases a buffer of getBuffer. A buffer that was replaced by a larger one is not kept.
func (b *budget) putBuffer(buf []byte) {
	b.activeBuffers.Add(-1)
	for class, size := range bufferSizes {
		if len(buf) == size {
			b.pools[class].Put(&buf)
		}
	}
}

// acquireDescriptor reserves a descriptor; false: there is none left.
func (b *budget) acquireDescriptor() bool {
	if b.openFiles.Add(1) > b.maxFiles {
		b.openFiles.Add(-1)
		return false
	}
	return true
}

func (b *budget) releaseDescriptor() { b.openFiles.Add(-1) }
