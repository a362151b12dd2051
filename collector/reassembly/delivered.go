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
// receiver has acknowledged them move into a buffer of their Conn (pinned). The buffer is bounded. Of the bytes beyond
// it only the range is known (uncopied): what comes in their place counts as different.

const (
	// deliveredRunSize is the memory of a run.
	deliveredRunSize = int64(unsafe.Sizeof(deliveredRun{}))
	// bytesPerRun is the size of the ring for each of its runs.
	bytesPerRun = 256
	// maxRun bounds the length of a run.
	maxRun = 64 << 10
	// maxPinned bounds the bytes of a direction that are kept beyond the ring; Config.ConnBuffer/4 is a second bound.
	// A sender that is far away and fast has a megabyte on the way.
	maxPinned = 1 << 20
	// The bytes that are delivered a second time before bytes that differ are bounded by those that their sender has
	// sent, and some for each segment: a sender must not have thousands parsed again for each byte that it sends.
	firstRepeated      = 2 << 10
	maxRepeated        = 64 << 10
	repeatedPerSegment = 64
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
	conn     *Conn  // nil: the bytes are not needed any more
	off      int64  // less halfStream.shift
	start    uint64 // the place of the first byte is start modulo the length of the ring
	previous uint64 // the number, plus one, of the run of the same direction before this one; 0: there is none
	jump     uint64 // that of one further back, which runBefore uses
	size     int32
	depth    int32 // the number of runs before this one
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

// jumpOf returns depth and jump of the run that follows the one numbered previous-1. The runs of a direction form a list with
// skew-binary jump pointers (Myers, 1983): a jump is twice as long as two equal ones before it, so that runBefore takes
// logarithmic time.
func (r *deliveredRing) jumpOf(previous uint64) (depth int32, jump uint64) {
	last := r.runAt(previous)
	if last == nil {
		return 0, previous
	}
	if second := r.runAt(last.jump); second != nil {
		third := r.runAt(second.jump)
		if third != nil && last.depth-second.depth == second.depth-third.depth {
			return last.depth + 1, second.jump
		}
	}
	return last.depth + 1, previous
}

// runBefore returns the last run that begins before end, of those up to the one with a number, plus one.
func (r *deliveredRing) runBefore(number uint64, end int64) *deliveredRun {
	run := r.runAt(number)
	for run != nil && run.off >= end {
		if further := r.runAt(run.jump); further != nil && further.off >= end {
			run = further
		} else {
			run = r.runAt(run.previous)
		}
	}
	return run
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
	off -= half.shift
	place := r.written % r.size
	fits := place+size <= r.size
	if newest := r.runAt(r.next); newest != nil && place > 0 && fits && newest.conn == c && newest.dir == dir &&
		newest.endOffset() == off && newest.start+uint64(newest.size) == r.written &&
		int(newest.size)+len(data) <= maxRun && half.delivered == r.next {
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
	depth, jump := r.jumpOf(half.delivered)
	run := &r.runs[r.next%uint64(len(r.runs))]
	if run.conn != c {
		run.conn = c
	}
	run.off, run.start, run.size, run.dir = off, r.written, int32(size), dir
	run.previous, run.depth, run.jump = half.delivered, depth, jump
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
		half := &c.half[run.dir]
		if run.endOffset()+half.shift > half.ack {
			c.pinDelivered(run.dir, run.off+half.shift, r.bytesOf(run))
		}
	}
	r.oldest++
}

// pinDelivered keeps data, delivered at off, until the receiver acknowledges it. Of a direction whose receiver was not
// captured nothing is kept, nor of one that another Conn delivers. The first bytes count: a receiver that has dropped some asks for these.
func (c *Conn) pinDelivered(dir Dir, off int64, data []byte) {
	half := &c.half[dir]
	if c.follows || c.half[dir^1].packets == 0 {
		return
	}
	if passed := half.ack - off; passed > 0 {
		off, data = half.ack, data[passed:]
	}
	c.dropAcknowledged(half)
	pinned := half.pinned
	if pinned == nil {
		pinned = &waitingSegment{off: off}
		half.pinned = pinned
	}
	size, most := len(pinned.b), min(maxPinned, c.cfg.ConnBuffer/4)
	kept := min(len(data), max(most-size, 0))
	if pinned.endOffset() != off {
		kept = 0
	}
	if kept < len(data) {
		c.addUncopied(dir, off+int64(kept), off+int64(len(data)))
	}
	if size+kept > cap(pinned.b) {
		c.pool.chargeConn(c, -pinnedCost(pinned))
		pinned.b = append(make([]byte, 0, max(min(2*size, most), size+kept)), pinned.b...)
		c.pool.chargeConn(c, pinnedCost(pinned))
	}
	pinned.b = append(pinned.b, data[:kept]...)
}

// pinnedCost returns the memory that is charged for pinned bytes.
func pinnedCost(pinned *waitingSegment) int {
	if cap(pinned.b) == 0 {
		return 0
	}
	return BufferCost(cap(pinned.b))
}

// addUncopied records that the range [from, to) of dir has no copy.
func (c *Conn) addUncopied(dir Dir, from, to int64) {
	if from >= to {
		return
	}
	half := &c.half[dir]
	c.handler.Observe(dir, CopyDropped, c.now)
	if half.uncopied.size() <= 0 {
		half.uncopied = offsetRange{from, to}
		return
	}
	half.uncopied = offsetRange{min(half.uncopied.from, from), max(half.uncopied.to, to)}
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

// dropAcknowledged drops the pinned bytes of a direction that were acknowledged, if they are half of them or more.
func (c *Conn) dropAcknowledged(half *halfStream) {
	half.uncopied.from = max(half.uncopied.from, half.ack)
	pinned := half.pinned
	if pinned == nil {
		return
	}
	acknowledged := half.ack - pinned.off
	switch size := int64(len(pinned.b)); {
	case acknowledged >= size:
		c.dropPinned(half)
	case acknowledged >= size/2 && acknowledged > 0:
		pinned.off, pinned.b = half.ack, pinned.b[:copy(pinned.b, pinned.b[acknowledged:])]
	}
}

// dropPinned drops the pinned bytes of a direction.
func (c *Conn) dropPinned(half *halfStream) {
	if half.pinned != nil {
		c.pool.chargeConn(c, -pinnedCost(half.pinned))
		half.pinned = nil
	}
}

// giveUpPinned drops the pinned bytes of both directions although they are not acknowledged. It returns false if there
// are none.
func (c *Conn) giveUpPinned() (dropped bool) {
	for dir := range c.half {
		if pinned := c.half[dir].pinned; pinned != nil && len(pinned.b) > 0 {
			c.addUncopied(Dir(dir), pinned.off, pinned.endOffset())
			c.dropPinned(&c.half[dir])
			dropped = true
		}
	}
	return dropped
}

// forgetFrom drops the copies of what was delivered of a direction from the offset off on.
func (c *Conn) forgetFrom(dir Dir, off int64) {
	half, ring := &c.half[dir], &c.pool.delivered
	end := off - half.shift
	for run := ring.runAt(half.delivered); run != nil && run.endOffset() > end; run = ring.runAt(run.previous) {
		if run.off < end {
			run.size = int32(end - run.off)
			break
		}
		run.conn = nil
		half.delivered = run.previous
	}
	half.uncopied.to = min(half.uncopied.to, off)
	switch pinned := half.pinned; {
	case pinned == nil || pinned.endOffset() <= off:
	case pinned.off >= off:
		c.dropPinned(half)
	default:
		pinned.b = pinned.b[:off-pinned.off]
	}
}

// forgetDirection drops the copies of what was delivered of a direction.
func (c *Conn) forgetDirection(dir Dir) {
	half, ring := &c.half[dir], &c.pool.delivered
	for run := ring.runAt(half.delivered); run != nil; run = ring.runAt(run.previous) {
		run.conn = nil
	}
	half.delivered, half.uncopied = 0, offsetRange{}
	c.dropPinned(half)
}

// ForgetDelivered drops the copies of what was delivered.
func (c *Conn) ForgetDelivered() {
	c.forgetDirection(0)
	c.forgetDirection(1)
}

// A comparison is the result of compareDelivered.
type comparison struct {
	conflicts bool  // bytes differ, or can be compared no more
	at        int64 // the first offset where they do
}

// addConflict records a conflict at the offset at.
func (r *comparison) addConflict(at int64) {
	if !r.conflicts || at < r.at {
		r.conflicts, r.at = true, at
	}
}

// compareDelivered compares data, which is at the offset off, with the bytes that were delivered there.
func (c *Conn) compareDelivered(dir Dir, off int64, data []byte) (result comparison) {
	half, ring := &c.half[dir], &c.pool.delivered
	whole := offsetRange{off, off + int64(len(data))}
	uncopied := whole.overlap(half.uncopied)
	uncopied.from = max(uncopied.from, half.ack)
	unknown := uncopied.size() // bytes of uncopied that have no copy, and were not given up
	compare := func(from int64, known []byte) {
		common := whole.overlap(offsetRange{from, from + int64(len(known))})
		if common.size() <= 0 {
			return
		}
		unknown -= max(common.overlap(uncopied).size(), 0)
		newBytes, oldBytes := data[common.from-off:common.to-off], known[common.from-from:common.to-from]
		if string(newBytes) == string(oldBytes) {
			return
		}
		same := int64(0)
		for newBytes[same] == oldBytes[same] {
			same++
		}
		result.addConflict(common.from + same)
	}

	// The runs are in the order of their offsets, the last one first.
	first := off - half.shift
	for run := ring.runBefore(half.delivered, whole.to-half.shift); run != nil && run.endOffset() > first; {
		compare(run.off+half.shift, ring.bytesOf(run))
		run = ring.runAt(run.previous)
	}
	if pinned := half.pinned; pinned != nil {
		compare(pinned.off, pinned.b)
	}
	if unknown > 0 {
		for _, gap := range half.gaps {
			unknown -= max(gap.overlap(uncopied).size(), 0)
		}
	}
	if unknown > 0 {
		result.addConflict(uncopied.from)
	}
	return result
}

// Delivered returns the n bytes of dir from the sequence number seq on, if there is a copy of them. They are valid until
// the next segment.
func (c *Conn) Delivered(dir Dir, seq uint32, n int) (b []byte, known bool) {
	half, ring := &c.half[dir], &c.pool.delivered
	off := half.offsetOf(seq)
	run := ring.runBefore(half.delivered, off+int64(n)-half.shift)
	switch {
	case !half.based || run == nil || n <= 0:
		return nil, false
	case run.off+half.shift <= off:
		if run.endOffset()+half.shift < off+int64(n) {
			return nil, false
		}
		begin := off - half.shift - run.off
		return ring.bytesOf(run)[begin : begin+int64(n)], true
	case run.endOffset()+half.shift < off+int64(n):
		return nil, false
	}
	return c.deliveredBytes(dir, off, off+int64(n))
}

// deliveredBytes returns a copy of the bytes of dir from off to end; ok is false if one is missing.
func (c *Conn) deliveredBytes(dir Dir, off, end int64) (b []byte, ok bool) {
	half, ring := &c.half[dir], &c.pool.delivered
	last, first := ring.runBefore(half.delivered, end-half.shift), off-half.shift
	known := int64(0)
	take := func(from int64, bytes []byte) {
		low, high := max(off, from), min(end, from+int64(len(bytes)))
		if known += max(high-low, 0); b != nil && low < high {
			copy(b[low-off:], bytes[low-from:high-from])
		}
	}
	takeAll := func() {
		for run := last; run != nil && run.endOffset() > first; run = ring.runAt(run.previous) {
			take(run.off+half.shift, ring.bytesOf(run))
		}
		if half.pinned != nil {
			take(half.pinned.off, half.pinned.b)
		}
	}
	if takeAll(); known != end-off { // nothing is allocated for bytes that are not all kept
		return nil, false
	}
	b = make([]byte, end-off)
	takeAll()
	return b, true
}
