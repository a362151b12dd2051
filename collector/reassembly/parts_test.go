package reassembly

import (
	"strings"
	"testing"
	"time"
)

// TestConnIsInitialised, also one that was used.
func TestConnIsInitialised(t *testing.T) {
	conn := newTestConn(t, testConfig(), defaultISN).handshake()
	conn.segment(0, "FA", 0, 0, "abc")
	conn.SetRTT(5)
	conn.Flush()
	conn.Init(conn.cfg, conn.pool, conn.recorder)
	for dir := range conn.half {
		half := &conn.half[dir]
		if half.fin != -1 || half.windowScale != -1 || half.repeatable != firstRepeated || half.based || half.packets != 0 || half.delivered != 0 {
			t.Errorf("direction %d: %+v", dir, half)
		}
	}
	if conn.rtt != 0 || conn.Conn.now != 0 || conn.Established() {
		t.Errorf("round trip %d, now %d", conn.rtt, conn.Conn.now)
	}
}

// TestKeepAliveIsAByteThatTheReceiverHas, or where it was not captured one that is empty, zero or the same.
func TestKeepAliveIsAByteThatTheReceiverHas(t *testing.T) {
	check := func(what string, answered bool, acked int, payload string, want bool) {
		t.Helper()
		conn := newTestConn(t, testConfig(), defaultISN)
		conn.segment(0, "A", 0, 0, "abc")
		if answered {
			conn.segment(1, "A", 0, acked, "")
		}
		if got := conn.isKeepAlive(0, &Segment{Size: 1, Payload: []byte(payload)}, 2); got != want {
			t.Errorf("%s: %t", what, got)
		}
	}
	check("acknowledged", true, 3, "x", true)
	check("not acknowledged", true, 2, "c", false)
	check("one side only, not captured", false, 0, "", true)
	check("one side only, zero", false, 0, "\x00", true)
	check("one side only, the same", false, 0, "c", true)
	check("one side only, another", false, 0, "x", false)
}

// TestNumbersOfAConnectionWithoutSYNs are those of its first segments.
func TestNumbersOfAConnectionWithoutSYNs(t *testing.T) {
	check := func(what string, flags uint8, peerKnown bool, base uint32, based bool) {
		t.Helper()
		conn := newTestConn(t, testConfig(), defaultISN)
		if peerKnown {
			conn.half[1].setBase(77)
		}
		conn.startMidStream(0, &Segment{Seq: 5, Ack: 9, Flags: flags})
		if peer := &conn.half[1]; conn.half[0].base != 5 || !conn.half[0].based || peer.based != based || based && peer.base != base {
			t.Errorf("%s: from %d, the peer from %d, known %t", what, conn.half[0].base, peer.base, peer.based)
		}
	}
	check("an acknowledgement", ACK, false, 9, true)
	check("an acknowledgement of a peer that is known", ACK, true, 77, true)
	check("no acknowledgement", 0, false, 0, false)
	check("no acknowledgement of a peer that is known", 0, true, 77, true)
}

// TestSecondSYNACKIsDecidedOnce: an acknowledgement with its number, later on, is one of bytes.
func TestSecondSYNACKIsDecidedOnce(t *testing.T) {
	conn := newTestConn(t, testConfig(), defaultISN)
	conn.segment(0, "S", 0, 0, "")
	conn.segment(1, "SA", 0, 0, "")
	conn.segment(1, "SA", 6, 0, "") // by another host
	conn.segment(0, "A", 0, 0, "ask")
	conn.segment(1, "A", 0, 3, "answer")
	conn.segment(0, "A", 3, 6, "more")
	conn.segment(1, "A", 6, 7, "end")
	conn.want(">ask <answer >more <end")
}

// TestFollowedConnectionIsOverWhenBothSidesHaveEnded, in either order.
func TestFollowedConnectionIsOverWhenBothSidesHaveEnded(t *testing.T) {
	for first := range Dir(2) {
		conn := newTestConn(t, testConfig(), defaultISN)
		conn.Follow(first, &Segment{Flags: FIN | ACK}, 1)
		if _, closing := conn.Closing(); closing || !conn.Ended(first) || conn.Ended(first^1) {
			t.Errorf("the FIN of direction %d: closing %t", first, closing)
		}
		conn.Follow(first^1, &Segment{Flags: FIN | ACK}, 2)
		if since, closing := conn.Closing(); !closing || since != 2 {
			t.Errorf("both FINs: closing %t since %d", closing, since)
		}
	}
}

// TestReplayedSegmentIsOfItsTime, and begins a direction that was not seen.
func TestReplayedSegmentIsOfItsTime(t *testing.T) {
	conn := newTestConn(t, testConfig(), defaultISN)
	conn.Replay(0, &Segment{Seq: 100, Payload: []byte("abc"), Size: 3}, 5e9)
	conn.Replay(0, &Segment{Seq: 106, Payload: []byte("ghi"), Size: 3}, 6e9)
	if conn.Packets(0) != 2 || conn.half[0].waiting[0].since != 6e9 {
		t.Errorf("%d packets, one waits since %d", conn.Packets(0), conn.half[0].waiting[0].since)
	}
	conn.Release(6e9 + int64(conn.cfg.GapTimeout) - 1)
	conn.want(">abc")
	conn.Release(6e9 + int64(conn.cfg.GapTimeout))
	conn.want(">abc >gap3 >ghi")
}

// TestReceiverThatAcknowledgesNothingIsNoted, if it goes on to send, behind its patience and within its window.
func TestReceiverThatAcknowledgesNothingIsNoted(t *testing.T) {
	check := func(what string, half, receiver halfStream, waited int64, isNew bool, want bool) {
		t.Helper()
		conn := newTestConn(t, testConfig(), defaultISN)
		conn.rtt, conn.Conn.now = 10, 5e9
		half.unackedSince = conn.Conn.now - waited
		half.fin, receiver.fin = -1, -1
		conn.half[1], conn.half[0] = half, receiver
		conn.checkAcknowledged(1, isNew)
		if got := conn.half[1].unacknowledged; got != want || conn.Unacknowledged() != want {
			t.Errorf("%s: %t", what, got)
		}
		if isNew && half.ack < half.next && conn.half[1].unackedSince != conn.Conn.now {
			t.Errorf("%s: it counts since %d", what, conn.half[1].unackedSince)
		}
		conn.half[0], conn.half[1] = conn.half[1], conn.half[0]
		if conn.Unacknowledged() != want {
			t.Errorf("%s: of the other direction it is not", what)
		}
	}
	const patience = ackPatience + 40
	window := halfStream{window: 100}
	check("too long", halfStream{ack: 5, next: 9}, window, patience+1, false, true)
	check("not too long", halfStream{ack: 5, next: 9}, window, patience, false, false)
	check("new bytes", halfStream{ack: 5, next: 9}, window, patience+1, true, false)
	check("all bytes", halfStream{ack: 9, next: 9, unacknowledged: true}, window, patience+1, false, false)
	check("at the end of the window", halfStream{ack: 5, next: 105}, window, patience+1, false, true)
	check("beyond the window", halfStream{ack: 5, next: 106}, window, patience+1, false, false)
	check("noted before", halfStream{ack: 5, next: 9, unacknowledged: true}, window, 1, false, true)
}

// TestMissingByteMayBeAFIN, if it is the only one, nothing waits, and the connection is being closed.
func TestMissingByteMayBeAFIN(t *testing.T) {
	check := func(what string, want bool, change func(c *Conn)) {
		t.Helper()
		conn := newTestConn(t, testConfig(), defaultISN)
		conn.half[0].next, conn.half[1].fin = 5, 7
		change(conn.Conn)
		if got := conn.isMissingFIN(0, 6); got != want {
			t.Errorf("%s: %t", what, got)
		}
	}
	check("the other side has sent a FIN", true, func(*Conn) {})
	check("a reset", true, func(c *Conn) { c.half[1].fin, c.closing = -1, true })
	check("not being closed", false, func(c *Conn) { c.half[1].fin = -1 })
	check("two bytes", false, func(c *Conn) { c.half[0].next = 4 })
	check("none", false, func(c *Conn) { c.half[0].next = 6 })
	check("a FIN is known", false, func(c *Conn) { c.half[0].fin = 9 })
	check("bytes wait", false, func(c *Conn) { c.half[0].waiting = make([]waitingSegment, 1) })
	check("bytes have waited", true, func(c *Conn) { c.half[0].waiting, c.half[0].front = make([]waitingSegment, 1), 1 })
}

// TestGapIsGivenUpAsFarAsAReplyWaitsForIt.
func TestGapIsGivenUpAsFarAsAReplyWaitsForIt(t *testing.T) {
	check := func(what string, want int64, change func(peer *halfStream)) {
		t.Helper()
		conn := newTestConn(t, testConfig(), defaultISN)
		conn.half[0].next, conn.half[1].next = 100, 50
		change(&conn.half[1])
		if got := conn.gapUntil(0, 300); got != want {
			t.Errorf("%s: %d, want %d", what, got, want)
		}
	}
	waits := func(off, need int64) func(peer *halfStream) {
		return func(peer *halfStream) { peer.waiting = []waitingSegment{{off: off, need: need}} }
	}
	check("nothing waits", 200, func(*halfStream) {})
	check("a reply to a part", 150, waits(50, 250))
	check("a reply to the whole", 200, waits(50, 300))
	check("a reply to more", 200, waits(50, 400))
	check("a reply to what was delivered", 200, waits(50, 100))
	check("a reply to the next byte", 1, waits(50, 101))
	check("a reply behind a gap", 200, waits(51, 250))
	check("a reply that was delivered in part", 150, waits(49, 250))
}

// TestReplyIsNotHeldBeyondTheGraceOfItsOwnBytes: these are acknowledged, although bytes before it are missing on the other
// side.
func TestReplyIsNotHeldBeyondTheGraceOfItsOwnBytes(t *testing.T) {
	conn := newTestConn(t, testConfig(), defaultISN).handshake()
	conn.segment(0, "A", 5, 3, "") // the bytes before it, and the answer, were not captured so far
	conn.wait(8 * time.Millisecond)
	conn.segment(1, "A", 0, 5, "yes")
	conn.want("")
	conn.wait(3 * time.Millisecond)
	conn.want(">gap5 <yes")
}

// TestGraceBeginsWithWhatIsMissing, and again with a first acknowledgement of missing bytes.
func TestGraceBeginsWithWhatIsMissing(t *testing.T) {
	check := func(what string, half halfStream, start, ack int64) {
		t.Helper()
		conn := newTestConn(t, testConfig(), defaultISN)
		conn.Conn.now = 50
		conn.half[1] = half
		conn.startGrace()
		if got := &conn.half[1]; got.graceStart != start || start != 0 && got.graceAck != ack {
			t.Errorf("%s: since %d for %d, want %d, %d", what, got.graceStart, got.graceAck, start, ack)
		}
	}
	check("nothing is missing", halfStream{next: 9, ack: 9, graceStart: 7}, 0, 0)
	check("bytes that are acknowledged", halfStream{next: 9, ack: 12}, 50, 12)
	check("it runs", halfStream{next: 9, ack: 15, graceStart: 7, graceAck: 12}, 7, 12)
	check("it was over with the bytes before", halfStream{next: 9, ack: 12, graceStart: 7, graceAck: 9}, 50, 12)
	waiting := []waitingSegment{{off: 12}}
	check("bytes that wait", halfStream{next: 9, ack: 9, waiting: waiting}, 50, 9)
	check("bytes that wait, and it runs", halfStream{next: 9, ack: 9, waiting: waiting, graceStart: 7, graceAck: 9}, 7, 9)
}

// TestStreamRollsBackIntoItsLastGap: what comes behind its beginning is next, and the stream goes on there.
func TestStreamRollsBackIntoItsLastGap(t *testing.T) {
	conn := newTestConn(t, testConfig(), defaultISN).handshake()
	conn.segment(0, "A", 0, 0, "abc")
	conn.segment(1, "A", 0, 103, "")
	conn.wait(50 * time.Millisecond)
	conn.want(">abc >gap100")
	conn.segment(0, "A", 53, 0, "later")
	conn.segment(0, "A", 58, 0, "on")
	conn.want(">abc >gap100 >gap1 >later >on")
	if got := conn.NextSeq(0) - conn.isn[0] - 1; got != 60 {
		t.Errorf("the next byte has the number %d", got)
	}
	conn.closing, conn.resetBy, conn.doubtSince = true, 1, 5
	conn.resync(0, &strayRun{start: 7})
	_, closing := conn.Closing()
	_, doubtful := conn.DoubtfulReset()
	if _, reset := conn.ResetBy(); closing || doubtful || reset || conn.NextSeq(0) != 7 {
		t.Errorf("a stream that goes on elsewhere: closing %t, in doubt %t, reset %t, next %d", closing, doubtful, reset, conn.NextSeq(0))
	}
}

// TestStraySegmentsAreKeptUpToABound, and dropped beyond it; their run goes on.
func TestStraySegmentsAreKeptUpToABound(t *testing.T) {
	conn := newTestConn(t, testConfig(), defaultISN)
	run := &strayRun{start: 9}
	extend := func(size, kept, keptSize int, length int64) {
		t.Helper()
		conn.extendRun(run, &Segment{Payload: make([]byte, size), Size: size + 1})
		if len(run.kept) != kept || run.keptSize != keptSize || run.length != length {
			t.Errorf("%d segments of %d bytes are kept, of a run of %d; want %d of %d, %d", len(run.kept), run.keptSize, run.length, kept, keptSize, length)
		}
	}
	extend(40_000, 1, 40_000, 40_001)
	extend(maxStrayBytes-40_000, 2, maxStrayBytes, maxStrayBytes+2)
	extend(1, 2, maxStrayBytes, maxStrayBytes+4)
	if last := run.kept[1]; last.off != 40_001 || last.lost != 1 || conn.Buffered() != BufferCost(40_000)+BufferCost(maxStrayBytes-40_000) {
		t.Errorf("the second one is at %d, %d bytes cut; %d bytes are charged", last.off, last.lost, conn.Buffered())
	}
	conn.dropRun(run)
	for i := range 70 {
		conn.extendRun(run, &Segment{Payload: []byte("x"), Size: 1})
		if want := min(i+1, 64); len(run.kept) != want {
			t.Fatalf("%d of %d segments are kept", len(run.kept), i+1)
		}
	}
	for range 200 {
		conn.extendRun(run, &Segment{Size: 1})
	}
	if run.segments != 200 {
		t.Errorf("%d segments are counted", run.segments)
	}
	if conn.dropRun(run); run.segments != 0 || run.keptSize != 0 || conn.Buffered() != 0 {
		t.Errorf("a run that was dropped: %+v", run)
	}
}

// TestAcknowledgementsFindStraySegments: the first one of those that are far, the second one of those that are near.
func TestAcknowledgementsFindStraySegments(t *testing.T) {
	check := func(what string, near bool, want bool, acks ...uint32) {
		t.Helper()
		conn := newTestConn(t, testConfig(), defaultISN).handshake()
		half := &conn.half[0]
		half.strays = &strays{}
		half.strays.runs[1] = strayRun{start: 1000, length: 10, segments: 1, near: near}
		for _, ack := range acks {
			if half.strays != nil {
				conn.ackStrays(0, ack, 0, &conn.half[1])
			}
		}
		if got := half.strays == nil; got != want {
			t.Errorf("%s: the stream goes on there: %t", what, got)
		}
	}
	check("before its first byte", false, false, 1000)
	check("its first byte", false, true, 1001)
	check("its last byte", false, true, 1010)
	check("behind it", false, false, 1011)
	check("near", true, false, 1005)
	check("near, the same twice", true, false, 1005, 1005)
	check("near, two", true, true, 1005, 1010)

	conn := newTestConn(t, testConfig(), defaultISN).handshake()
	half, peer := &conn.half[0], &conn.half[1]
	half.ack, half.top = 500_000, 500_000
	for off, want := range map[int64]bool{
		500_000 + 64<<10 + 64<<10: false, 500_001 + 64<<10 + 64<<10: true, 500_000 - half.repeatLimit(peer): false, 499_999 - half.repeatLimit(peer): true, 0: true,
	} {
		half.strays = &strays{}
		conn.ackStrays(0, 77, off, peer)
		if half.strays.isAcked != want || want && half.strays.acked != 77 {
			t.Errorf("an acknowledgement at %d is noted: %t", off, half.strays.isAcked)
		}
	}
}

// TestBytesThatDifferAreComparedFromTheAcknowledgedOnes on.
func TestBytesThatDifferAreComparedFromTheAcknowledgedOnes(t *testing.T) {
	check := func(off int, payload, log string, conflicts bool) {
		t.Helper()
		conn := newTestConn(t, testConfig(), defaultISN).handshake()
		conn.segment(0, "A", 0, 0, "abcdef")
		conn.segment(1, "A", 0, 3, "")
		conn.segment(0, "A", off, 0, payload)
		if conn.want(log); (conn.observed[OverlapConflict] > 0) != conflicts {
			t.Errorf("%q at %d: %d conflicts", payload, off, conn.observed[OverlapConflict])
		}
	}
	check(1, "bcdef", ">abcdef", false)
	check(1, "XXdef", ">abcdef", true)
	check(1, "XXdeY", ">abcdef >gap1 >abc >deY", true) // the message again, up to the first byte that is not acknowledged
	check(2, "XdefZ", ">abcdef >Z", true)
	check(4, "eY", ">abcdef >gap1 >abcd >eY", true)
}

// TestMessageIsRepeatedAsOftenAsItsSenderHasEarned, and else a segment that continues it is told.
func TestMessageIsRepeatedAsOftenAsItsSenderHasEarned(t *testing.T) {
	conn := newTestConn(t, testConfig(), defaultISN).handshake()
	conn.hostile = true
	for i := range 10 {
		conn.segment(0, "A", 1000*i, 0, strings.Repeat("a", 1000))
	}
	earned := int64(firstRepeated + 10*(1000+repeatedPerSegment))
	if conn.half[0].repeatable != earned {
		t.Errorf("%d bytes are earned, want %d", conn.half[0].repeatable, earned)
	}
	for i, want := range []int{0, 1} {
		conn.segment(0, "A", 9000, 0, strings.Repeat(string(rune('x'+i)), 1000))
		if conn.observed[NotRepeated] != want || conn.observed[OverlapConflict] != i+1 {
			t.Errorf("other bytes %d times: %d are not repeated, %d conflicts", i+1, conn.observed[NotRepeated], conn.observed[OverlapConflict])
		}
	}
}

// TestCopiesOfOneDirectionAreOneRun as long as they follow each other.
func TestCopiesOfOneDirectionAreOneRun(t *testing.T) {
	conn := newTestConn(t, testConfig(), defaultISN).handshake()
	other := newTestConn(t, testConfig(), defaultISN)
	other.pool = conn.pool
	other.Init(other.cfg, conn.pool, other.recorder)
	ring := &conn.pool.delivered
	check := func(what string, runs uint64, written uint64) {
		t.Helper()
		if ring.next != runs || ring.written != written {
			t.Errorf("%s: %d runs, %d bytes; want %d, %d", what, ring.next, ring.written, runs, written)
		}
	}
	conn.segment(0, "A", 0, 0, "abc")
	check("the first bytes", 1, 3)
	conn.segment(0, "A", 3, 0, "def")
	check("the next ones", 1, 6)
	conn.segment(1, "A", 0, 6, "yes")
	check("the other direction", 2, 9)
	conn.segment(0, "A", 6, 3, "ghi")
	check("the first direction again", 3, 12)
	other.segment(0, "A", 0, 0, "xyz")
	check("another connection", 4, 15)
	conn.segment(0, "A", 9, 3, "jkl")
	check("the first connection again", 5, 18)
	conn.segment(0, "A", 13, 3, "n")
	check("a gap", 5, 18)
	conn.segment(0, "A", 12, 3, "m")
	check("what fills it", 5, 20)
	for _, at := range []int{0, 2, 5, 7} {
		if b, known := conn.Delivered(0, conn.isn[0]+1+uint32(at), 6); !known || string(b) != "abcdefghijklmn"[at:at+6] {
			t.Errorf("the bytes from %d are %q, known %t", at, b, known)
		}
	}
	for _, missing := range [][2]int{{9, 6}, {-1, 3}, {3, 0}, {14, 1}} {
		if b, known := conn.Delivered(0, conn.isn[0]+1+uint32(missing[0]), missing[1]); known {
			t.Errorf("%d bytes from %d are known: %q", missing[1], missing[0], b)
		}
	}
}

// TestRunIsFoundInFewSteps among thousands of a direction.
func TestRunIsFoundInFewSteps(t *testing.T) {
	pool := NewPool(1 << 20)
	pool.SetDelivered(nil, 4<<20)
	conn := newTestConn(t, testConfig(), defaultISN)
	conn.Init(conn.cfg, pool, conn.recorder)
	const runs = 4000
	for i := range runs {
		conn.recordDelivered(0, int64(10*i), []byte("abcde")) // with holes, so that each is a run
	}
	ring := &pool.delivered
	for _, wanted := range []int{0, 1, 777, 2048, runs - 2, runs - 1} {
		run := ring.runBefore(conn.half[0].delivered, int64(10*wanted+1))
		if run == nil || run.off != int64(10*wanted) {
			t.Fatalf("run %d is at %v", wanted, run)
		}
	}
	steps := 0
	for run := ring.runAt(conn.half[0].delivered); run != nil; run = ring.runAt(run.jump) {
		steps++
	}
	if steps > 40 {
		t.Errorf("%d jumps pass over %d runs", steps, runs)
	}
}

// TestPinnedBytesAreThoseThatAreNotAcknowledged.
func TestPinnedBytesAreThoseThatAreNotAcknowledged(t *testing.T) {
	conn := newTestConn(t, testConfig(), defaultISN).handshake()
	half := &conn.half[0]
	pin := func(ack int64) {
		half.ack, half.next = ack, 200
		half.pinned = &waitingSegment{off: 100, b: []byte("0123456789")}
		conn.pool.chargeConn(conn.Conn, pinnedCost(half.pinned)-conn.Buffered())
	}
	check := func(ack int64, off int64, want string) {
		t.Helper()
		pin(ack)
		conn.dropAcknowledged(half)
		got := ""
		if half.pinned != nil {
			got = string(half.pinned.b)
			if half.pinned.off != off {
				t.Errorf("acknowledged %d: they begin at %d, want %d", ack, half.pinned.off, off)
			}
		}
		if got != want || (conn.Buffered() == 0) != (want == "") {
			t.Errorf("acknowledged %d: %q are left, %d bytes are charged", ack, got, conn.Buffered())
		}
	}
	check(90, 100, "0123456789")
	check(100, 100, "0123456789")
	check(104, 100, "0123456789")
	check(105, 105, "56789")
	check(109, 109, "9")
	check(110, 0, "")
	check(150, 0, "")
	pin(100)
	if !conn.giveUpPinned() || half.pinned != nil || half.uncopied != (offsetRange{100, 110}) || conn.observed[CopyDropped] != 1 {
		t.Errorf("given up: %v without a copy, %v", half.uncopied, conn.observed)
	}
	if conn.giveUpPinned() {
		t.Error("nothing is given up twice")
	}
	half.pinned = &waitingSegment{off: 1}
	if conn.giveUpPinned() {
		t.Error("no bytes are given up")
	}
	conn.addUncopied(0, 120, 130)
	conn.addUncopied(0, 90, 95)
	conn.addUncopied(0, 5, 5)
	if half.uncopied != (offsetRange{90, 130}) {
		t.Errorf("%v without a copy", half.uncopied)
	}
	if conn.Discard(); half.uncopied != (offsetRange{}) {
		t.Errorf("%v without a copy when it is dropped", half.uncopied)
	}
}

// TestPinnedBytesMoveWithTheStream, when it continues elsewhere.
func TestPinnedBytesMoveWithTheStream(t *testing.T) {
	pool := NewPool(8 << 20)
	pool.SetDelivered(nil, 128<<10)
	conn := newTestConn(t, testConfig(), defaultISN)
	conn.pool = pool
	conn.Init(conn.cfg, pool, conn.recorder)
	conn.handshake()
	conn.segment(0, "A", 0, 0, "abcdef")
	conn.segment(0, "A", 3, 0, "XYZ") // other bytes: the stream continues there
	half := &conn.half[0]
	if half.shift == 0 {
		t.Fatal("the stream has not moved")
	}
	other := newTestConn(t, testConfig(), defaultISN)
	other.hostile = true
	other.Init(other.cfg, pool, other.recorder)
	for i := range 10 {
		other.segment(0, "A", 40_000*i, 0, strings.Repeat("y", 40_000))
	}
	if half.pinned == nil || string(half.pinned.b) != "abcXYZ" || half.pinned.endOffset() != half.next {
		t.Fatalf("pinned are %v, before %d", half.pinned, half.next)
	}
	conflicts := conn.observed[OverlapConflict]
	conn.segment(0, "A", 0, 0, "abcXYZ")
	if conn.observed[OverlapConflict] != conflicts {
		t.Error("the same bytes are a conflict")
	}
	conn.segment(0, "A", 0, 0, "abcXYz")
	if conn.observed[OverlapConflict] != conflicts+1 {
		t.Error("other bytes are no conflict")
	}
}

// TestLateBytesOfAFollowedConnectionFillItsHoles, and the first ones count.
func TestLateBytesOfAFollowedConnectionFillItsHoles(t *testing.T) {
	check := func(what, want string, segments ...*Segment) {
		t.Helper()
		conn := newTestConn(t, testConfig(), defaultISN)
		for _, s := range segments {
			conn.CopyFollowed(0, s)
			conn.Follow(0, s, 1)
		}
		if !conn.follows {
			t.Errorf("%s: it is not followed", what)
		}
		from := strings.IndexFunc(want, func(r rune) bool { return r != '.' })
		if b, known := conn.Delivered(0, 100+uint32(from), len(want)-from); !known || string(b) != want[from:] {
			t.Errorf("%s: %q, known %t, want %q", what, b, known, want[from:])
		}
	}
	segment := func(off uint32, text string) *Segment {
		return &Segment{Seq: 100 + off, Flags: ACK, Payload: []byte(text), Size: len(text)}
	}
	cut := func(off uint32, text string, size int) *Segment {
		s := segment(off, text)
		s.Size = size
		return s
	}
	check("in order", "abcdef", segment(0, "abc"), segment(3, "def"))
	check("a hole", "abcdefghi", segment(0, "abc"), segment(6, "ghi"), segment(3, "def"))
	check("a hole, and bytes around it", "abcdefghi", segment(0, "abc"), segment(6, "ghi"), segment(1, "XXdefXX"))
	check("two holes at once", "abcdefghi", segment(0, "a"), segment(3, "d"), segment(6, "ghi"), segment(0, "XbcXefX"))
	check("bytes that the capture has cut", "abcdefghi", segment(0, "abc"), cut(3, "d", 6), segment(2, "Xdefghi"))
	check("bytes that are known", "abcdef", segment(0, "abcdef"), segment(2, "XX"))
	check("bytes that are known, and the next ones", "abcdefgh", segment(0, "abcdef"), segment(4, "XXgh"))
}

// TestDoubtIsForReceiversThatWereCaptured, and for segments that are whole and next.
func TestDoubtIsForReceiversThatWereCaptured(t *testing.T) {
	check := func(what string, want bool, change func(c *Conn, s *Segment)) {
		t.Helper()
		conn := newTestConn(t, testConfig(), defaultISN)
		conn.half[1].packets = 1
		segment := &Segment{Payload: []byte("abc"), Size: 3}
		change(conn.Conn, segment)
		if got := conn.holdDoubtful(0, segment, 0); got != want || (conn.half[0].doubtful != nil) != want {
			t.Errorf("%s: held %t", what, got)
		}
		conn.half[0].waiting = nil
		conn.dropDoubtful(&conn.half[0])
		if conn.dropSYNData(&conn.half[0]); conn.Buffered() != 0 || conn.half[0].doubtful != nil {
			t.Errorf("%s: %d bytes are charged", what, conn.Buffered())
		}
	}
	check("the next bytes", true, func(*Conn, *Segment) {})
	check("one side only", false, func(c *Conn, _ *Segment) { c.half[1].packets = 0 })
	check("the other side only", false, func(c *Conn, _ *Segment) { c.half[0].packets, c.half[1].packets = 1, 0 })
	check("cut", false, func(_ *Conn, s *Segment) { s.Size = 4 })
	check("behind a gap", false, func(c *Conn, _ *Segment) { c.half[0].next = 1 })
	check("others wait", false, func(c *Conn, _ *Segment) { c.half[0].waiting = make([]waitingSegment, 1) })
	conn := newTestConn(t, testConfig(), defaultISN)
	conn.holdSYNData(0, &Segment{Payload: []byte("abc"), Size: 5})
	if held := conn.half[0].synData; held == nil || held.lost != 2 || conn.half[0].top != 5 {
		t.Errorf("%+v of a SYN is held", held)
	}
	if conn.dropSYNData(&conn.half[0]); conn.half[0].synData != nil || conn.Buffered() != 0 {
		t.Error("what a SYN has held is charged")
	}
	conn.dropSYNData(&conn.half[0])
}
