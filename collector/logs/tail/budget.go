package tail

import (
	"context"
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

	openFiles    atomic.Int64
	bufferBytes  atomic.Int64 // of read buffers in use
	pendingBytes atomic.Int64 // of lines that are not complete
	pools        [len(bufferSizes)]sync.Pool
	overdraft    chan struct{} // holds a value for each buffer that was enlarged beyond maxMemory
}

// bufferSizes are the sizes of read buffers. Smaller buffers are used when many tailers read at once, so that
// thousands of tailers which are blocked in Ship stay within the budget. The smallest one is always granted.
var bufferSizes = [...]int{256 << 10, 64 << 10, 16 << 10, 4 << 10}

// maxOverdrafts is the number of buffers that may be enlarged beyond the budget at a time, each up to maxRecord. One is
// enough to go on when all others wait.
const maxOverdrafts = 2

// descriptorLimit returns the process's limit of open files minus reservedDescriptors, at least 64. Getrlimit fails only
// for an invalid argument.
func descriptorLimit() int64 {
	var limit unix.Rlimit
	_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
	return max(64, min(int64(limit.Cur), 1<<20)-reservedDescriptors)
}

// A readBuffer is the buffer of one tailer while it reads.
type readBuffer struct {
	b         []byte
	overdrawn bool
}

// getBuffer returns a read buffer. The less memory is left, the smaller it is: at most an eighth of it, so that many more
// tailers can have one of the same size.
func (b *budget) getBuffer() readBuffer {
	class := 0
	for left := b.maxMemory - b.bufferBytes.Load(); class < len(bufferSizes)-1 && int64(bufferSizes[class]) > left/8; {
		class++
	}
	b.bufferBytes.Add(int64(bufferSizes[class]))
	if buf, ok := b.pools[class].Get().(*[]byte); ok {
		return readBuffer{b: *buf}
	}
	return readBuffer{b: make([]byte, bufferSizes[class])}
}

// enlarge doubles a buffer. Beyond the budget it waits until few other buffers have been enlarged beyond it.
func (b *budget) enlarge(ctx context.Context, buffer *readBuffer) error {
	size := int64(len(buffer.b))
	if !buffer.overdrawn && b.bufferBytes.Load()+size > b.maxMemory {
		select {
		case b.overdraft <- struct{}{}:
			buffer.overdrawn = true
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	b.bufferBytes.Add(size)
	buffer.b = append(buffer.b, make([]byte, size)...)[:2*size]
	return nil
}

// putBuffer releases a buffer of getBuffer. One that was enlarged is not kept.
func (b *budget) putBuffer(buffer *readBuffer) {
	b.bufferBytes.Add(-int64(len(buffer.b)))
	if buffer.overdrawn {
		<-b.overdraft
	}
	for class, size := range bufferSizes {
		if len(buffer.b) == size && cap(buffer.b) == size {
			b.pools[class].Put(&buffer.b)
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
