package protocols

// A stream is one direction of a connection, by who was thought to send when it was opened: a flip does not move it.
type stream struct {
	offset uint64 // stream offset of the next byte to be read: of tail's first, or of what comes next
	skip   uint64 // bytes that nobody wants, from off on
	need   int    // Parse is not called before this many bytes are there

	tail     []byte    // unread bytes, pooled
	arrivals []arrival // when the bytes of tail came; head is the one of its first byte
	head     int
	lastAt   int64 // when the last bytes came

	lost    bool // the place in the stream is lost: Sync finds it
	partial bool // the next message begins behind bytes that were not seen
	reparse bool // the parser wants to see the tail once more
	ended   bool
}

// A arrival says when the bytes before end came.
type arrival struct {
	end uint64
	at  int64
}

// maxArrivals bounds the times that are kept of one tail; bytes beyond share the last one.
const maxArrivals = 64

// firstAt is when the byte at off came.
func (s *stream) firstAt() int64 {
	if s.head < len(s.arrivals) {
		return s.arrivals[s.head].at
	}
	return s.lastAt
}

// advance moves past n bytes.
func (s *stream) advance(n int) {
	s.offset += uint64(n)
	for s.head < len(s.arrivals) && s.offset >= s.arrivals[s.head].end {
		s.head++
	}
}

// consumeSkip moves past those of the next n bytes that nobody wants.
func (s *stream) consumeSkip(n int) int {
	if s.skip == 0 {
		return 0
	}
	k := int(min(s.skip, uint64(n)))
	s.skip -= uint64(k)
	s.advance(k)
	return k
}

// addArrival notes that the bytes before end came at at.
func (s *stream) addArrival(end uint64, at int64) {
	if n := len(s.arrivals); n-s.head >= maxArrivals {
		s.arrivals[n-1].end = end
		return
	}
	if s.head > 0 && s.head == len(s.arrivals) {
		s.arrivals, s.head = s.arrivals[:0], 0
	} else if s.head >= maxArrivals {
		s.arrivals, s.head = s.arrivals[:copy(s.arrivals, s.arrivals[s.head:])], 0
	}
	s.arrivals = append(s.arrivals, arrival{end, at})
}

// appendTail puts b behind the tail.
func (s *stream) appendTail(set *Set, b []byte, at int64) {
	if len(b) == 0 {
		return
	}
	if s.tail == nil {
		s.tail = set.takeTail()
	}
	s.tail = append(s.tail, b...)
	s.addArrival(s.offset+uint64(len(s.tail)), at)
}

// dropFront takes the n first bytes, which off has passed already, from the tail.
func (s *stream) dropFront(set *Set, n int) {
	if n == 0 {
		return
	}
	if n >= len(s.tail) {
		s.releaseTail(set)
		return
	}
	s.tail = s.tail[:copy(s.tail, s.tail[n:])]
}

// releaseTail gives the tail back. What was in it is gone; off is the caller's.
func (s *stream) releaseTail(set *Set) {
	if s.tail != nil {
		set.releaseTail(s.tail)
	}
	s.tail, s.need = nil, 0
	s.arrivals, s.head = s.arrivals[:0], 0
}
