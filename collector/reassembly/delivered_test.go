package reassembly

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
)

// TestEveryDifferenceIsAConflict: a stream is sent in random segments, and parts of it again, with other bounds and
// after other traffic. Exactly the parts of which a byte was changed are conflicts.
func TestEveryDifferenceIsAConflict(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 21))
		conn := newTestConn(t, testConfig(), [2]uint32{randomISN(rng), randomISN(rng)}).handshake()
		other := newTestConn(t, testConfig(), defaultISN)
		other.hostile, other.pool = true, conn.pool
		other.Init(other.cfg, conn.pool, other.recorder)

		stream := randomBytes(rng, 1+rng.IntN(40_000))
		otherBytes := 0
		sendOther := func(size int) {
			other.segment(0, "A", otherBytes, 0, strings.Repeat("y", size))
			otherBytes += size
		}
		for _, part := range cuts(rng, len(stream), 1+rng.IntN(3000)) {
			conn.segment(0, "A", part.lo, 0, string(stream[part.lo:part.hi]))
			sendOther(1 + rng.IntN(100))
		}
		for range rng.IntN(40) {
			sendOther(40_000)
		}

		acked := rng.IntN(len(stream) + 1)
		conn.segment(1, "A", 0, acked, "")
		for range 20 {
			lo := rng.IntN(len(stream))
			part := cut{lo, min(lo+1+rng.IntN(3000), len(stream))}
			if part.hi-part.lo == 1 && part.hi == len(stream) {
				continue // may be a keep-alive
			}
			again := bytes.Clone(stream[part.lo:part.hi])
			changed := rng.IntN(10) == 0 && part.lo >= acked
			if changed {
				again[rng.IntN(len(again))] ^= 1
			}
			before := conn.observed[OverlapConflict]
			conn.segment(0, "A", part.lo, acked, string(again))
			if got := conn.observed[OverlapConflict] > before; got != changed {
				t.Fatalf("seed %d: changed %t, conflict %t, bytes %d to %d of %d", seed, changed, got, part.lo, part.hi,
					len(stream))
			}
			if changed {
				break // the stream continues elsewhere
			}
		}
		conn.Discard()
		other.Discard()
		conn.checkEmpty()
	}
}

// TestCopiesAreBounded: however many connections do not acknowledge what was sent, the copies take no more than the
// limit, and none is left when the connections are over.
func TestCopiesAreBounded(t *testing.T) {
	const limit = 1 << 20
	pool := NewPool(limit)
	var conns []*testConn
	for range 64 {
		conn := newTestConn(t, testConfig(), defaultISN)
		conn.hostile, conn.pool = true, pool
		conn.Init(conn.cfg, pool, conn.recorder)
		conns = append(conns, conn.handshake())
	}
	pinned := 0
	for round := range 100 {
		for _, conn := range conns {
			conn.segment(0, "A", 1000*round, 0, strings.Repeat("x", 1000))
			if pool.EnforceLimit(); pool.Used() > limit {
				t.Fatalf("%d bytes", pool.Used())
			}
			pinned = max(pinned, conn.Buffered())
		}
	}
	if pinned == 0 || pinned > maxPinned+maxRun {
		t.Errorf("a connection keeps %d bytes", pinned)
	}
	if conns[0].observed[CopyDropped] == 0 {
		t.Error("what was dropped is not counted")
	}
	for _, conn := range conns {
		conn.ForgetDelivered()
		conn.Discard()
	}
	conns[0].checkEmpty()
	for i := range pool.delivered.runs {
		if pool.delivered.runs[i].conn != nil {
			t.Fatal("a run belongs to a connection that is over")
		}
	}
}

// TestAcknowledgedCopiesAreDropped: a copy that has left the ring is dropped with the acknowledgement of its bytes.
func TestAcknowledgedCopiesAreDropped(t *testing.T) {
	conn := newTestConn(t, testConfig(), defaultISN).handshake()
	conn.hostile = true
	for i := range 40 {
		conn.segment(0, "A", 50_000*i, 0, strings.Repeat("x", 50_000))
	}
	if conn.Buffered() == 0 {
		t.Fatal("nothing is kept")
	}
	conn.segment(1, "A", 0, 1_000_000, "")
	if conn.Buffered() == 0 {
		t.Error("bytes that are not acknowledged were dropped")
	}
	conn.segment(1, "A", 0, 1_000_000+maxPinned, "")
	conn.checkEmpty()
}

// TestBytesWithoutACopyAreAConflict: more bytes are not acknowledged than are kept. Those that are kept may be sent
// again, whatever the bounds, and those that are acknowledged. The others may not: both versions are delivered.
func TestBytesWithoutACopyAreAConflict(t *testing.T) {
	const part = 50_000
	conn := newTestConn(t, testConfig(), defaultISN).handshake()
	conn.hostile = true
	sent := 0
	for ; sent < maxPinned+20*part; sent += part {
		conn.segment(0, "A", sent, 0, strings.Repeat("x", part))
	}
	if conn.observed[CopyDropped] == 0 {
		t.Fatal("all is kept")
	}
	check := func(want, off, size int) {
		t.Helper()
		conn.segment(0, "A", off, 0, strings.Repeat("x", size))
		if got := conn.observed[OverlapConflict]; got != want {
			t.Errorf("%d bytes at %d: %d conflicts, want %d", size, off, got, want)
		}
	}
	check(0, 0, part)
	check(0, 700, 1400)
	check(0, maxPinned-part, part)
	check(0, sent-part, part) // still in the ring
	conn.segment(1, "A", 0, maxPinned+2*part, "")
	check(0, maxPinned, 2*part)
	check(1, maxPinned+part, part+1)
	check(1, maxPinned+2*part+1, part) // the stream has continued there
	conn.Discard()
	conn.checkEmpty()
}

// TestCopiesOfASteadyStreamAreKept: a receiver that is always 100,000 bytes behind, beside other traffic, leaves
// nothing that can be compared no more.
func TestCopiesOfASteadyStreamAreKept(t *testing.T) {
	const part, behind = 10_000, 100_000
	conn := newTestConn(t, testConfig(), defaultISN).handshake()
	other := newTestConn(t, testConfig(), defaultISN)
	other.pool = conn.pool
	other.Init(other.cfg, conn.pool, other.recorder)
	conn.hostile, other.hostile = true, true
	for sent := 0; sent < 20<<20; sent += part {
		conn.segment(0, "A", sent, 0, strings.Repeat("x", part))
		other.segment(0, "A", 6*sent, 0, strings.Repeat("y", 6*part))
		if acked := sent - behind; acked > 0 {
			conn.segment(1, "A", 0, acked, "")
			conn.segment(0, "A", acked, 0, strings.Repeat("x", part))
		}
		if held := conn.Buffered(); held > 2*behind {
			t.Fatalf("%d bytes are held", held)
		}
	}
	if conn.observed[CopyDropped] > 0 || conn.observed[OverlapConflict] > 0 {
		t.Errorf("%d copies dropped, %d conflicts", conn.observed[CopyDropped], conn.observed[OverlapConflict])
	}
}

// TestOneSidedCaptureKeepsNoCopies: where the receiver was not captured, nothing is acknowledged.
func TestOneSidedCaptureKeepsNoCopies(t *testing.T) {
	conn := newTestConn(t, testConfig(), defaultISN)
	conn.hostile = true
	for i := range 60 {
		conn.segment(0, "A", 50_000*i, 0, strings.Repeat("x", 50_000))
	}
	conn.checkEmpty()
}

// TestRepetitionBehindAJumpIsNoConflict: the stream continues within a gap that was given up. The bytes before the gap
// are sent again.
func TestRepetitionBehindAJumpIsNoConflict(t *testing.T) {
	conn := newTestConn(t, testConfig(), defaultISN).handshake()
	text := "0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz"
	conn.segment(0, "A", 0, 0, text)
	conn.segment(1, "A", 0, len(text)+100, "")
	conn.wait(50 * 1e6)
	conn.segment(0, "A", len(text)+90, 0, "later")
	conn.segment(0, "A", 0, 0, text[:50])
	if conn.observed[OverlapConflict] > 0 || len(conn.gaps[0]) == 0 {
		t.Errorf("%d conflicts, gaps %v", conn.observed[OverlapConflict], conn.gaps[0])
	}
}

// TestRunsEndAtTheEndOfTheRing: bytes that follow others are in a run of their own if these end with the ring.
func TestRunsEndAtTheEndOfTheRing(t *testing.T) {
	pool := NewPool(1 << 20)
	pool.SetDelivered(nil, 128<<10)
	first, second := newTestConn(t, testConfig(), defaultISN), newTestConn(t, testConfig(), defaultISN)
	for _, conn := range []*testConn{first, second} {
		conn.hostile, conn.pool = true, pool
		conn.Init(conn.cfg, pool, conn.recorder)
	}
	text := strings.Repeat("0123456789abcdef", 2<<10)
	for i := range 2 {
		first.segment(0, "A", i*len(text), 0, text)
		second.segment(0, "A", i*len(text), 0, text)
	}
	second.segment(0, "A", 2*len(text), 0, "next")
	second.segment(0, "A", len(text), 0, text+"next")
	if second.observed[OverlapConflict] > 0 {
		t.Error("the same bytes are a conflict")
	}
	second.segment(0, "A", 2*len(text)-1, 0, "fnexT")
	if second.observed[OverlapConflict] != 1 {
		t.Error("other bytes are none")
	}
}

// TestCopiesOfAFollowedConnection: the bytes of segments that another Conn delivers are there as long as the ring holds
// them, without a call of the Handler, and take no memory beyond the ring.
func TestCopiesOfAFollowedConnection(t *testing.T) {
	conn := newTestConn(t, testConfig(), [2]uint32{1<<32 - 1000, 5000}).handshake()
	conn.hostile = true
	stream := randomBytes(rand.New(rand.NewPCG(1, 2)), 2<<20)
	follow := func(off, size int) {
		segment := Segment{
			Seq: conn.isn[0] + 1 + uint32(off), Flags: ACK, Payload: stream[off : off+size], Size: size, Time: conn.now,
		}
		conn.CopyFollowed(0, &segment)
		conn.Follow(0, &segment, conn.now)
	}
	check := func(want bool, off, size int) {
		t.Helper()
		b, known := conn.Delivered(0, conn.isn[0]+1+uint32(off), size)
		if known != want || known && !bytes.Equal(b, stream[off:off+size]) {
			t.Errorf("%d bytes at %d: known %t, want %t; %d bytes", size, off, known, want, len(b))
		}
	}
	check(false, 0, 10)
	follow(0, 1000)
	check(true, 0, 1000)
	check(true, 990, 10)
	check(false, 990, 11)
	follow(500, 1000) // in part again
	check(true, 0, 1500)
	follow(2000, 1000)
	check(true, 2000, 1000)
	check(false, 1400, 700)
	follow(3200, 100)
	follow(1400, 700) // late
	check(true, 0, 3000)
	check(false, 2900, 400)
	follow(3100, 50)
	follow(2900, 1000)
	check(true, 0, 3900)
	follow(100, 200)
	check(true, 0, 3900)
	for off := 3900; off+1448 < len(stream); off += 1448 {
		follow(off, 1448)
	}
	check(false, 2000, 1000)
	check(true, 3900+1400*1448, 40*1448+7)
	last := len(stream) - 600
	follow(last, 600)
	follow(last-100, 100) // far from the kept bytes before it
	check(true, last-100, 700)
	if conn.observed[Data] > 0 || conn.observed[CopyDropped] > 0 {
		t.Errorf("observed %v", conn.observed)
	}
	conn.checkEmpty()
}

// TestLateBytesMoveFewRuns: a late byte has a copy as long as few pieces lie behind it, so that a sender of single bytes
// does not have the whole ring written again for each.
func TestLateBytesMoveFewRuns(t *testing.T) {
	for _, test := range []struct {
		behind int
		want   bool
	}{{maxRefilledRuns - 1, true}, {maxRefilledRuns + 1, false}} {
		conn := newTestConn(t, testConfig(), defaultISN).handshake()
		follow := func(off int) {
			segment := Segment{Seq: conn.isn[0] + 1 + uint32(off), Flags: ACK, Payload: []byte{byte(off)}, Size: 1, Time: conn.now}
			conn.CopyFollowed(0, &segment)
			conn.Follow(0, &segment, conn.now)
		}
		for i := range test.behind + 1 {
			follow(2 * i) // every other byte, each a run of its own
		}
		follow(1)
		if _, known := conn.Delivered(0, conn.isn[0]+1, 3); known != test.want {
			t.Errorf("%d runs behind: known %t, want %t", test.behind, known, test.want)
		}
		conn.checkEmpty()
	}
}

// TestReplayedBytesHaveNoWindow: of bytes without a header no window is known, so none has closed.
func TestReplayedBytesHaveNoWindow(t *testing.T) {
	conn := newTestConn(t, testConfig(), defaultISN).handshake()
	const text = "request"
	window := conn.half[0].window
	conn.Replay(0, &Segment{Seq: conn.isn[0] + 1, Payload: []byte(text), Size: len(text), Time: conn.now}, conn.now)
	if string(conn.bytes[0]) != text || conn.observed[ZeroWindow] > 0 || conn.half[0].window != window {
		t.Errorf("delivered %q, observed %v, window %d", conn.bytes[0], conn.observed, conn.half[0].window)
	}
}

// TestBytesThatAreNotAllKeptTakeNoMemory: the last bytes are kept, the first ones are not.
func TestBytesThatAreNotAllKeptTakeNoMemory(t *testing.T) {
	conn := newTestConn(t, testConfig(), defaultISN).handshake()
	conn.hostile = true
	conn.segment(0, "A", 100, 0, strings.Repeat("x", 50_000))
	conn.Release(conn.now + 10e9) // gives the first 100 bytes up
	if _, known := conn.Delivered(0, conn.isn[0]+1+100, 50_000); !known {
		t.Fatal("the last bytes are not kept")
	}
	if n := testing.AllocsPerRun(10, func() { conn.Delivered(0, conn.isn[0]+1, 50_100) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestEmptyRangesChangeNothing: an empty range without a copy adds no others, and empty copies cannot be given up.
func TestEmptyRangesChangeNothing(t *testing.T) {
	conn := newTestConn(t, testConfig(), defaultISN).handshake()
	conn.addUncopied(0, 1000, 2000)
	conn.addUncopied(0, 10, 10)
	if want := (offsetRange{1000, 2000}); conn.half[0].uncopied != want || conn.observed[CopyDropped] != 1 {
		t.Errorf("uncopied is %v, want %v", conn.half[0].uncopied, want)
	}
	conn.half[0].pinned = &waitingSegment{off: 5}
	if conn.giveUpPinned() {
		t.Error("empty copies were given up")
	}
}
