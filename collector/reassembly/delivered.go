package reassembly

import (
	"unsafe"

	"tidegate/pipeline/memory"
)

// This file has copies of the bytes that were delivered last. Whoever sends a segment that its receiver drops, and
// that shows no sign of it (a TTL that ends too early), can have other bytes delivered than the receiver gets. The
// sender has to send these, too, in the place of the first ones. So every segment is compared with the bytes that
// were delivered in its place, whatever its bounds.
//
// The copies are in a ring that all Conns of a Pool share. A sender can wait until the others have overwritten its
// bytes, but the receiver does not wait: what it got it acknowledges soon. So bytes that are overwritten before the
// receiver has acknowledged them move into a buffer of their Conn.

const (
	// deliveredRunSize is the memory of a run.
	deliveredRunSize = int64(unsafe.Sizeof(deliveredRun{}))
	// bytesPerRun is the size of the ring for each of its runs.
	bytesPerRun = 256
	// maxRun bounds the length of a run.
	maxRun = 64 << 10
	// maxPinned bounds the bytes of a direction that are kept beyond the ring.
	maxPinned = 64 << 10
	// maxRepeated bounds the bytes that are delivered a second time before bytes that differ.
	maxRepeated = 2 << 10
)

// A deliveredRing holds the bytes that the Conns of a Pool have delivered last.
type deliveredRing struct {
	account *memory.Account
	size    uint64         // of b
	b       []byte         // nil before the first bytes
	runs    []deliveredRun // a ring: the place of a run is its number modulo the length
	oldest  uint64         // the number of the oldest run
	next    uint64         // the number of the next run
	written uint64         // bytes written so far, with those that were left out at the end of b
}

// A deliveredRun holds bytes of a direction without a gap.
type deliveredRun struct {
	conn     *Conn // nil: the bytes are not needed any more
	off      int64
	start    uint64 // the place of the first byte is start modulo the length of the ring
	previous uint64 // the number, plus one, of the run of the same direction before this one; 0: there is none
	size     int32
	dir      Dir
}

func (r *deliveredRun) endOffset() int64 { return r.off + int64(r.size) }

// bytesOf returns the bytes of a run.
func (r *deliveredRing) bytesOf(run *deliveredRun) []byte {
	place := run.start % r.size
	return r.b[place : place+uint64(run.size)]
}

// runAt returns the run with a number, plus one, or nil if it was overwritten.
func (r *deliveredRing) runAt(number uint64) *deliveredRun {
	if number <= r.oldest {
		return nil
	}
	return &r.runs[(number-1)%uint64(len(r.runs))]
}

// recordDelivered copies data, which was delivered at the offset off of dir.
func (c *Conn) recordDelivered(dir Dir, off int64, data []byte) {
	ring := &c.pool.delivered
	if ring.b == nil {
		ring.b, ring.runs = make([]byte, ring.size), make([]deliveredRun, ring.size/bytesPerRun)
		ring.account.Add(int64(ring.size) + int64(len(ring.runs))*deliveredRunSize)
	}
	for len(data) > maxRun {
		ring.appendRun(c, dir, off, data[:maxRun])
		off, data = off+maxRun, data[maxRun:]
	}
	ring.appendRun(c, dir, off, data)
}

// appendRun writes data into the ring, and continues the newest run if data follows it.
func (r *deliveredRing) appendRun(c *Conn, dir Dir, off int64, data []byte) {
	half, size := &c.half[dir], uint64(len(data))
	place := r.written % r.size
	fits := place+size <= r.size
	if newest := r.runAt(r.next); newest != nil && place > 0 && fits && newest.conn == c && newest.dir == dir &&
		newest.endOffset() == off && int(newest.size)+len(data) <= maxRun && half.delivered == r.next {
		r.evictUntil(size)
		copy(r.b[place:], data)
		newest.size += int32(size)
		r.written += size
		return
	}
	if !fits {
		r.written += r.size - place
		place = 0
	}
	r.evictUntil(size)
	if r.next-r.oldest == uint64(len(r.runs)) {
		r.evictOldest()
	}
	copy(r.b[place:], data)
	r.runs[r.next%uint64(len(r.runs))] = deliveredRun{
		conn: c, dir: dir, off: off, start: r.written, size: int32(size), previous: half.delivered,
	}
	r.next++
	r.written += size
	half.delivered = r.next
}

// evictUntil evicts the runs that the next size bytes overwrite.
func (r *deliveredRing) evictUntil(size uint64) {
	for r.oldest < r.next && r.runs[r.oldest%uint64(len(r.runs))].start+r.size < r.written+size {
		r.evictOldest()
	}
}

// evictOldest removes the oldest run. What its receiver has not acknowledged is kept by its Conn.
func (r *deliveredRing) evictOldest() {
	run := &r.runs[r.oldest%uint64(len(r.runs))]
	if c := run.conn; c != nil {
		run.conn = nil
		if run.endOffset() > c.half[run.dir].ack {
			c.pinDelivered(run.dir, run.off, r.bytesOf(run))
		}
	}
	r.oldest++
}

// pinDelivered keeps data, delivered at off, until the receiver acknowledges it. Of a direction whose receiver was not
// captured nothing is kept. The first bytes count: a receiver that has dropped some asks for these.
func (c *Conn) pinDelivered(dir Dir, off int64, data []byte) {
	half := &c.half[dir]
	if c.half[dir^1].packets == 0 {
		return
	}
	if passed := half.ack - off; passed > 0 {
		off, data = half.ack, data[passed:]
	}
	c.dropAcknowledged(half)
	pinned := half.pinned
	switch {
	case pinned == nil:
		pinned = &waitingSegment{off: off}
		half.pinned = pinned
	case pinned.endOffset() != off:
		return
	default:
		c.pool.chargeConn(c, -BufferCost(len(pinned.b)))
	}
	pinned.b = append(pinned.b, data[:min(len(data), maxPinned-len(pinned.b))]...)
	c.pool.chargeConn(c, BufferCost(len(pinned.b)))
}

// ackPatience is the time, ns, after which a receiver that sends segments has acknowledged what it got. It delays an
// acknowledgement by half a second at most (RFC 1122, section 4.2.3.2).
const ackPatience = int64(1e9)

// checkAcknowledged is called for a segment of the receiver of dir. isNew says whether the segment acknowledges more
// than those before. The bytes beyond the window, with which a sender probes it, need not be acknowledged.
func (c *Conn) checkAcknowledged(dir Dir, isNew bool) {
	half, receiver := &c.half[dir], &c.half[dir^1]
	switch {
	case half.ack >= half.next:
		half.unacknowledged = false
	case isNew:
		half.unackedSince = c.now
	case half.next <= half.ack+int64(receiver.window) && c.now-half.unackedSince > ackPatience+4*c.rtt:
		half.unacknowledged = true
	}
	if isNew {
		c.dropAcknowledged(half)
	}
}

// Unacknowledged reports whether bytes of a direction were delivered that its receiver never acknowledged, although it
// went on to send.
func (c *Conn) Unacknowledged() bool { return c.half[0].unacknowledged || c.half[1].unacknowledged }

// dropAcknowledged drops the pinned bytes of a direction if all were acknowledged.
func (c *Conn) dropAcknowledged(half *halfStream) {
	if half.pinned != nil && half.ack >= half.pinned.endOffset() {
		c.dropPinned(half)
	}
}

// dropPinned drops the pinned bytes of a direction.
func (c *Conn) dropPinned(half *halfStream) {
	if half.pinned != nil {
		c.pool.chargeConn(c, -BufferCost(len(half.pinned.b)))
		half.pinned = nil
	}
}

// forgetDirection drops the copies of what was delivered of a direction.
func (c *Conn) forgetDirection(dir Dir) {
	half, ring := &c.half[dir], &c.pool.delivered
	for run := ring.runAt(half.delivered); run != nil; run = ring.runAt(run.previous) {
		run.conn = nil
	}
	half.delivered = 0
	c.dropPinned(half)
}

// ForgetDelivered drops the copies of what was delivered.
func (c *Conn) ForgetDelivered() {
	c.forgetDirection(0)
	c.forgetDirection(1)
}

// A comparison is the result of compareDelivered.
type comparison struct {
	differs bool
	at      int64 // the first offset where the bytes differ, if they do
}

// compareDelivered compares data, which is at the offset off, with the bytes that were delivered there.
func (c *Conn) compareDelivered(dir Dir, off int64, data []byte) (result comparison) {
	half, ring := &c.half[dir], &c.pool.delivered
	end := off + int64(len(data))
	compare := func(from int64, known []byte) {
		low, high := max(off, from), min(end, from+int64(len(known)))
		if low >= high {
			return
		}
		newBytes, oldBytes := data[low-off:high-off], known[low-from:high-from]
		if string(newBytes) == string(oldBytes) {
			return
		}
		same := int64(0)
		for newBytes[same] == oldBytes[same] {
			same++
		}
		if !result.differs || low+same < result.at {
			result.differs, result.at = true, low+same
		}
	}

	// The runs are in the order of their offsets, the last one first.
	for run := ring.runAt(half.delivered); run != nil && run.endOffset() > off; run = ring.runAt(run.previous) {
		compare(run.off, ring.bytesOf(run))
	}
	if pinned := half.pinned; pinned != nil {
		compare(pinned.off, pinned.b)
	}
	return result
}

// deliveredBytes appends to b the bytes of dir that were delivered from off to end. ok is false if they are not known.
func (c *Conn) deliveredBytes(dir Dir, off, end int64) (b []byte, ok bool) {
	half, ring := &c.half[dir], &c.pool.delivered
	b = make([]byte, end-off)
	known := int64(0)
	take := func(from int64, bytes []byte) {
		if low, high := max(off, from), min(end, from+int64(len(bytes))); low < high {
			known += int64(copy(b[low-off:], bytes[low-from:high-from]))
		}
	}
	for run := ring.runAt(half.delivered); run != nil && run.endOffset() > off; run = ring.runAt(run.previous) {
		take(run.off, ring.bytesOf(run))
	}
	if half.pinned != nil {
		take(half.pinned.off, half.pinned.b)
	}
	return b, known == end-off
}
