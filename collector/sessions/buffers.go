package sessions

// buffers is a pool of byte slices in three sizes. Its cost is what the slices take, not what lies in them, so that many small
// segments are not cheaper than they are.
type buffers struct {
	free [len(bufferSizes)][][]byte
}

// bufferSizes are those of an odd end, of a frame, of the largest segment that offloading makes.
var bufferSizes = [...]int{256, 2 << 10, 66 << 10}

// maxFree is how many free buffers of each size are kept.
var maxFree = [...]int{4096, 2048, 64}

// overhead is what the bookkeeping of a buffer costs.
const overhead = 96

func class(n int) int {
	for i, size := range bufferSizes {
		if n <= size {
			return i
		}
	}
	return len(bufferSizes)
}

// cost is what a buffer for n bytes is charged.
func cost(n int) int {
	if i := class(n); i < len(bufferSizes) {
		return bufferSizes[i] + overhead
	}
	return n + overhead
}

// get gives a slice of n bytes.
func (p *buffers) get(n int) []byte {
	i := class(n)
	if i == len(bufferSizes) {
		return make([]byte, n)
	}
	if l := len(p.free[i]); l > 0 {
		b := p.free[i][l-1]
		p.free[i] = p.free[i][:l-1]
		return b[:n]
	}
	return make([]byte, n, bufferSizes[i])
}

// put takes back what get gave.
func (p *buffers) put(b []byte) {
	i := class(cap(b))
	if i < len(bufferSizes) && cap(b) == bufferSizes[i] && len(p.free[i]) < maxFree[i] {
		p.free[i] = append(p.free[i], b)
	}
}
