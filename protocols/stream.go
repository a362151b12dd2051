package protocols

// A halfStream is one direction of a connection. It belongs to the side that was taken for its sender when
// the connection was opened; a flip does not move it.
type halfStream struct {
	offset uint64 // stream offset of the next byte to read: the first of tail or, if tail is empty, the next to arrive
	skip   uint64 // number of bytes from offset on to skip
	need   int    // Parse is not called with fewer unread bytes

	tail     []byte    // unread bytes, in a buffer of the set
	buffer   []byte    // that buffer from its start, empty, if dropped bytes are in front of tail; else nil
	arrivals []arrival // arrival times of the bytes of tail
	head     int       // index in arrivals of the first byte of tail
	lastAt   int64     // arrival time of the last bytes

	lost    bool // the position in the stream is lost, and Sync must find it
	partial bool // bytes before the next message were lost
	reparse bool // Reparse was called
	ended   bool // FIN was seen
}

// An arrival is the arrival time of the bytes up to offset end, from the end of the arrival before.
type arrival struct {
	end uint64
	at  int64
}

// maxArrivals is the number of arrival times that are kept for one tail. Further bytes share the last one.
const maxArrivals = 64

// firstAt returns the arrival time of the byte at offset.
func (s *halfStream) firstAt() int64 {
	if s.head < len(s.arrivals) {
		return s.arrivals[s.head].at
	}
	return s.lastAt
}

// advance moves offset past size bytes.
func (s *halfStream) advance(size int) {
	s.offset += uint64(size)
	for s.head < len(s.arrivals) && s.offset >= s.arrivals[s.head].end {
		s.head++
	}
}

// consumeSkip moves offset past the bytes to skip among the next limit bytes, and returns their number.
func (s *halfStream) consumeSkip(limit int) int {
	if s.skip == 0 {
		return 0
	}
	skipped := int(min(s.skip, uint64(limit)))
	s.skip -= uint64(skipped)
	s.advance(skipped)
	return skipped
}

// addArrival records the arrival time of the bytes up to offset end.
func (s *halfStream) addArrival(end uint64, at int64) {
	if count := len(s.arrivals); count-s.head >= maxArrivals {
		s.arrivals[count-1].end = end
		return
	}

	// Entries before head are obsolete: reuse their space.
	if s.head > 0 && s.head == len(s.arrivals) {
		s.arrivals, s.head = s.arrivals[:0], 0
	} else if s.head >= maxArrivals {
		s.arrivals, s.head = s.arrivals[:copy(s.arrivals, s.arrivals[s.head:])], 0
	}
	s.arrivals = append(s.arrivals, arrival{end, at})
}

// appendTail appends a copy of data to the tail.
func (s *halfStream) appendTail(set *Set, data []byte, at int64) {
	if len(data) == 0 {
		return
	}
	if s.tail == nil {
		s.tail = set.takeTail()
	}
	if s.buffer != nil && len(data) > cap(s.tail)-len(s.tail) {
		s.compactTail(len(data))
	}
	s.tail = append(s.tail, data...)
	s.addArrival(s.offset+uint64(len(s.tail)), at)
}

// dropFront removes the first size bytes of the tail; offset has passed them already. The rest is moved only if it
// is no longer than what was dropped in front of it: the bytes moved are never more than those dropped.
func (s *halfStream) dropFront(set *Set, size int) {
	if size == 0 {
		return
	}
	if size >= len(s.tail) {
		s.releaseTail(set)
		return
	}
	s.buffer = s.tailBuffer()
	s.tail = s.tail[size:]
	if cap(s.buffer)-cap(s.tail) >= len(s.tail) {
		s.compactTail(0)
	}
}

// compactTail moves the tail to the start of its buffer, or of a new one if it does not fit there with size bytes more.
func (s *halfStream) compactTail(size int) {
	if len(s.tail)+size > cap(s.buffer) {
		s.buffer = make([]byte, 0, max(len(s.tail)+size, cap(s.buffer)+cap(s.buffer)/4))
	}
	s.tail, s.buffer = append(s.buffer, s.tail...), nil
}

// tailBuffer returns the buffer of the tail from its start, empty.
func (s *halfStream) tailBuffer() []byte {
	if s.buffer != nil {
		return s.buffer
	}
	return s.tail[:0]
}

// takeBuffer removes the tail and its arrival times, and returns both it and its buffer. The caller owns the buffer.
func (s *halfStream) takeBuffer() (tail, buffer []byte) {
	tail, buffer = s.tail, s.tailBuffer()
	s.tail, s.buffer, s.need = nil, nil, 0
	s.arrivals, s.head = s.arrivals[:0], 0
	return tail, buffer
}

// keepRest makes rest the tail of a stream that has none. It reports whether the stream owns buffer from here on: rest
// is the end of the bytes in it, and is copied only if it is no longer than what is in front of it. buffer is nil if
// rest is the caller's.
func (s *halfStream) keepRest(set *Set, rest, buffer []byte, at int64) (owned bool) {
	if buffer == nil || cap(buffer)-cap(rest) >= len(rest) {
		s.appendTail(set, rest, at)
		return false
	}
	s.tail, s.buffer = rest, buffer
	s.addArrival(s.offset+uint64(len(rest)), at)
	return true
}

// releaseTail returns the buffer of the tail to the set. The caller moves offset.
func (s *halfStream) releaseTail(set *Set) {
	_, buffer := s.takeBuffer()
	set.releaseTail(buffer)
}
