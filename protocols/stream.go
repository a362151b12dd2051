package protocols

// A stream is one direction of a connection, by who was thought to send when it was opened: a flip does not move it.
type stream struct {
	off  uint64 // stream offset of the next byte to be read: of tail's first, or of what comes next
	skip uint64 // bytes that nobody wants, from off on
	need int    // Parse is not called before this many bytes are there

	tail  []byte // unread bytes, pooled
	marks []mark // when the bytes of tail came; head is the one of its first byte
	head  int
	at    int64 // when the last bytes came

	lost    bool // the place in the stream is lost: Sync finds it
	partial bool // the next message begins behind bytes that were not seen
	again   bool // the parser wants to see the tail once more
	ended   bool
}

// A mark says when the bytes before end came.
type mark struct {
	end uint64
	at  int64
}

// maxMarks bounds the times that are kept of one tail; bytes beyond share the last one.
const maxMarks = 64

// first is when the byte at off came.
func (s *stream) first() int64 {
	if s.head < len(s.marks) {
		return s.marks[s.head].at
	}
	return s.at
}

// advance moves past n bytes.
func (s *stream) advance(n int) {
	s.off += uint64(n)
	for s.head < len(s.marks) && s.off >= s.marks[s.head].end {
		s.head++
	}
}

// skipped moves past those of the next n bytes that nobody wants.
func (s *stream) skipped(n int) int {
	if s.skip == 0 {
		return 0
	}
	k := int(min(s.skip, uint64(n)))
	s.skip -= uint64(k)
	s.advance(k)
	return k
}

// mark notes that the bytes before end came at at.
func (s *stream) mark(end uint64, at int64) {
	if n := len(s.marks); n-s.head >= maxMarks {
		s.marks[n-1].end = end
		return
	}
	if s.head > 0 && s.head == len(s.marks) {
		s.marks, s.head = s.marks[:0], 0
	} else if s.head >= maxMarks {
		s.marks, s.head = s.marks[:copy(s.marks, s.marks[s.head:])], 0
	}
	s.marks = append(s.marks, mark{end, at})
}

// push puts b behind the tail.
func (s *stream) push(set *Set, b []byte, at int64) {
	if len(b) == 0 {
		return
	}
	if s.tail == nil {
		s.tail = set.tail()
	}
	s.tail = append(s.tail, b...)
	s.mark(s.off+uint64(len(s.tail)), at)
}

// shift takes the n first bytes, which off has passed already, from the tail.
func (s *stream) shift(set *Set, n int) {
	if n == 0 {
		return
	}
	if n >= len(s.tail) {
		s.release(set)
		return
	}
	s.tail = s.tail[:copy(s.tail, s.tail[n:])]
}

// release gives the tail back. What was in it is gone; off is the caller's.
func (s *stream) release(set *Set) {
	if s.tail != nil {
		set.freeTail(s.tail)
	}
	s.tail, s.need = nil, 0
	s.marks, s.head = s.marks[:0], 0
}
