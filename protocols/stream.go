package protocols

// A halfStream is one direction of a connection. It belongs to the side that was taken for its sender when
// the connection was opened; a flip does not move it.
type halfStream struct {
	offset uint64 // of the next byte that is read: the first of tail, or the next that comes
	skip   uint64 // bytes from offset on that are skipped
	need   int    // Parse is not called before this many bytes are there

	tail     []byte    // unread bytes, in a buffer of the set
	arrivals []arrival // when the bytes of tail came
	head     int       // of arrivals: when the first byte of tail came
	lastAt   int64     // when the last bytes came

	lost    bool // the place in the stream is lost; Sync is to find it
	partial bool // bytes in front of the next message were lost
	reparse bool // Reparse was called
	ended   bool
}

// An arrival is the time at which the bytes before the offset end came.
type arrival struct {
	end uint64
	at  int64
}

// maxArrivals is how many times are kept of one tail. Bytes beyond share the last one.
const maxArrivals = 64

// firstAt returns when the byte at offset came.
func (s *halfStream) firstAt() int64 {
	if s.head < len(s.arrivals) {
		return s.arrivals[s.head].at
	}
	return s.lastAt
}

// advance moves offset past n bytes.
func (s *halfStream) advance(n int) {
	s.offset += uint64(n)
	for s.head < len(s.arrivals) && s.offset >= s.arrivals[s.head].end {
		s.head++
	}
}

// consumeSkip moves offset past those of the next n bytes that are skipped, and returns how many that are.
func (s *halfStream) consumeSkip(n int) int {
	if s.skip == 0 {
		return 0
	}
	k := int(min(s.skip, uint64(n)))
	s.skip -= uint64(k)
	s.advance(k)
	return k
}

// addArrival notes when the bytes before the offset end came.
func (s *halfStream) addArrival(end uint64, at int64) {
	if n := len(s.arrivals); n-s.head >= maxArrivals {
		s.arrivals[n-1].end = end
		return
	}

	// Make room at the end: by starting anew, or by moving what is left to the front.
	if s.head > 0 && s.head == len(s.arrivals) {
		s.arrivals, s.head = s.arrivals[:0], 0
	} else if s.head >= maxArrivals {
		s.arrivals, s.head = s.arrivals[:copy(s.arrivals, s.arrivals[s.head:])], 0
	}
	s.arrivals = append(s.arrivals, arrival{end, at})
}

// appendTail appends a copy of b to the tail.
func (s *halfStream) appendTail(set *Set, data []byte, at int64) {
	if len(data) == 0 {
		return
	}
	if s.tail == nil {
		s.tail = set.takeTail()
	}
	s.tail = append(s.tail, data...)
	s.addArrival(s.offset+uint64(len(s.tail)), at)
}

// dropFront removes the first n bytes of the tail; offset has passed them already.
func (s *halfStream) dropFront(set *Set, n int) {
	if n == 0 {
		return
	}
	if n >= len(s.tail) {
		s.releaseTail(set)
		return
	}
	s.tail = s.tail[:copy(s.tail, s.tail[n:])]
}

// releaseTail gives the tail back to the set. The caller moves offset.
func (s *halfStream) releaseTail(set *Set) {
	if s.tail != nil {
		set.releaseTail(s.tail)
	}
	s.tail, s.need = nil, 0
	s.arrivals, s.head = s.arrivals[:0], 0
}
