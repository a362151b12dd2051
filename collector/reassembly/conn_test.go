package reassembly

import (
	"strings"
	"testing"
	"time"
)

var defaultISN = [2]uint32{1000, 5000}

// TestSequenceWrap: the numbers wrap at every position of a short conversation that was captured out of
// order.
func TestSequenceWrap(t *testing.T) {
	for isn := uint32(1<<32 - 14); isn != 4; isn++ {
		testConn := newTestConn(t, testConfig(), [2]uint32{isn, isn + 3}).handshake()
		testConn.segment(0, "A", 4, 0, "efgh")
		testConn.segment(0, "A", 0, 0, "abcd")
		testConn.segment(1, "A", 4, 8, "5678")
		testConn.segment(1, "A", 0, 8, "1234")
		testConn.segment(1, "A", 4, 8, "5678")
		testConn.segment(0, "FA", 8, 8, "")
		testConn.segment(1, "FA", 8, 9, "")
		testConn.want(">abcd >efgh <1234 <5678 >end <end")
		if _, closing := testConn.Closing(); !closing {
			t.Errorf("isn %d: not closing", isn)
		}
		testConn.checkEmpty()
	}
}

// TestSegmentBeyondTheWindowIsDropped: no receiver accepts such a segment. A gap up to it would lose the
// bytes that are really sent.
func TestSegmentBeyondTheWindowIsDropped(t *testing.T) {
	check := func(options string, off int, want string) {
		t.Helper()
		testConn := newTestConn(t, testConfig(), defaultISN)
		for side, flags := range []uint8{SYN, SYN | ACK} {
			segment := Segment{
				Seq: testConn.isn[side], Ack: testConn.isn[side^1] + 1, Flags: flags, Window: 60000,
				Options: []byte(options),
			}
			testConn.Segment(Dir(side), &segment, testConn.now)
		}
		testConn.segment(1, "A", 0, 0, "")
		testConn.segment(0, "A", off, 0, "far")
		testConn.wait(3 * time.Second)
		testConn.segment(0, "A", 0, 0, "near")
		testConn.want(want)
	}
	const scale7 = "\x01\x03\x03\x07" // 60000 << 7 is 7.68 MB
	check("", 100_000, ">near")
	check(scale7, 100_000, ">gap100000 >far")
	check(scale7, 7_000_000, ">gap7000000 >far")
	check(scale7, 8_000_000, ">near")
}

// TestAcknowledgementBeyondTheWindowIsIgnored: an acknowledgement of more than the window gives up no gap.
func TestAcknowledgementBeyondTheWindowIsIgnored(t *testing.T) {
	testConn := newTestConn(t, testConfig(), defaultISN).handshake()
	testConn.segment(0, "A", 0, 50_000_000, "GET")
	testConn.wait(3 * time.Second)
	testConn.segment(1, "A", 0, 3, "OK")
	testConn.want(">GET <OK")
}

// TestZeroWindowIsObserved each time that the window closes.
func TestZeroWindowIsObserved(t *testing.T) {
	testConn := newTestConn(t, testConfig(), defaultISN).handshake()
	for _, flags := range []string{"AZ", "AZ", "A", "AZ"} {
		testConn.segment(1, flags, 0, 0, "")
	}
	if closings := testConn.observed[ZeroWindow]; closings != 2 {
		t.Errorf("%d, want 2", closings)
	}
}

// TestResetInTheWindow: a RST outside the window is dropped (RFC 5961, section 3). A RST whose sender
// continues was not accepted by the receiver and is cancelled.
func TestResetInTheWindow(t *testing.T) {
	check := func(dir Dir, off int, valid bool) {
		t.Helper()
		testConn := newTestConn(t, testConfig(), defaultISN).handshake()
		testConn.segment(0, "A", 0, 0, "abc")
		testConn.segment(1, "A", 0, 3, "d")
		testConn.segment(0, "A", 3, 1, "")
		testConn.segment(dir, "RA", off, 0, "")
		_, closing := testConn.Closing()
		if by, ok := testConn.ResetBy(); closing != valid || ok != valid || valid && by != dir {
			t.Errorf("RST of %d at %d: closing %v, by %d", dir, off, closing, by)
		}
		if (testConn.observed[OutsideWindow] == 0) != valid {
			t.Errorf("RST of %d at %d: %d outside the window", dir, off, testConn.observed[OutsideWindow])
		}
	}
	check(0, 3, true)
	check(1, 1, true)
	check(1, 100_000, false)
	check(0, -5000, false)

	testConn := newTestConn(t, testConfig(), defaultISN).handshake()
	testConn.segment(0, "A", 0, 0, "abc")
	testConn.segment(0, "R", 3, 0, "")
	testConn.segment(0, "A", 3, 0, "def")
	if _, closing := testConn.Closing(); closing {
		t.Error("its sender went on, and the connection is closing")
	}
	testConn.want(">abc >def")
}

// TestSecondSYNACK: after two answers to a SYN, the answer that the client acknowledges counts.
func TestSecondSYNACK(t *testing.T) {
	testConn := newTestConn(t, testConfig(), defaultISN)
	testConn.segment(0, "S", 0, 0, "")
	testConn.segment(1, "SA", 0, 0, "")
	testConn.segment(1, "SA", 700, 0, "") // by another host
	testConn.segment(0, "A", 0, 700, "ask")
	testConn.segment(1, "A", 700, 3, "answer")
	testConn.want(">ask <answer")
}

// TestMissingFINIsNotAGap: a FIN that was not captured is acknowledged like a byte.
func TestMissingFINIsNotAGap(t *testing.T) {
	testConn := newTestConn(t, testConfig(), defaultISN).handshake()
	testConn.segment(0, "A", 0, 0, "abc")
	testConn.segment(1, "FA", 0, 4, "")
	testConn.segment(0, "A", 4, 1, "")
	testConn.wait(100 * time.Millisecond)
	testConn.want(">abc >end <end")
}

// TestKeepAliveIsNotARetransmission: the byte of a keep-alive is not data.
func TestKeepAliveIsNotARetransmission(t *testing.T) {
	testConn := newTestConn(t, testConfig(), defaultISN).handshake()
	testConn.segment(0, "A", 0, 0, "abc")
	testConn.segment(1, "A", 0, 3, "")
	testConn.segment(0, "A", 2, 0, "x")
	testConn.want(">abc")
	if testConn.observed[Retransmission]+testConn.observed[OverlapConflict] != 0 {
		t.Errorf("observed %v", testConn.observed)
	}
}

// TestStreamContinuesElsewhere: segments outside any window are kept until enough of them follow each other.
// Then the stream continues there.
func TestStreamContinuesElsewhere(t *testing.T) {
	testConn := newTestConn(t, testConfig(), defaultISN).handshake()
	testConn.segment(0, "A", 0, 0, "abc")
	const far = 1_500_000_000
	for i := range 10 {
		testConn.segment(0, "A", far+i, 0, string(rune('0'+i)))
	}
	testConn.want(">abc >gap1 >0 >1 >2 >3 >4 >5 >6 >7 >8 >9")
	if strays := testConn.observed[OutsideWindow]; strays != resyncAfter {
		t.Errorf("%d strays", strays)
	}
}

// TestCutSegmentIsAGapInItsPlace: the bytes that the capture cut off are a gap behind the captured ones, also
// when the segment has waited.
func TestCutSegmentIsAGapInItsPlace(t *testing.T) {
	testConn := newTestConn(t, testConfig(), defaultISN).handshake()
	send := func(off int, captured string, size int) {
		segment := Segment{
			Seq: testConn.isn[0] + 1 + uint32(off), Flags: ACK, Ack: testConn.isn[1] + 1,
			Payload: []byte(captured), Size: size,
		}
		testConn.Segment(0, &segment, testConn.now)
	}
	send(6, "gh", 4)
	send(0, "abc", 6)
	send(10, "klm", 3)
	testConn.want(">abc >gap3 >gh >gap2 >klm")
	if !sameReasons(testConn.gaps[0], GapCut) {
		t.Errorf("gaps %v", testConn.gaps[0])
	}
}

// TestFollow: Follow finds the end of a connection and does not call the handler.
func TestFollow(t *testing.T) {
	testConn := newTestConn(t, testConfig(), defaultISN)
	for _, segment := range []struct {
		dir   Dir
		flags uint8
	}{{0, SYN}, {1, SYN | ACK}, {0, ACK}, {0, FIN | ACK}} {
		testConn.Follow(segment.dir, &Segment{Flags: segment.flags}, testConn.now)
	}
	if _, closing := testConn.Closing(); closing || !testConn.Established() || !testConn.Ended(0) {
		t.Errorf("closing %v, established %v, ended %v", closing, testConn.Established(), testConn.Ended(0))
	}
	testConn.Follow(1, &Segment{Flags: FIN | ACK}, 42)
	if since, closing := testConn.Closing(); !closing || since != 42 || testConn.Packets(0) != 3 {
		t.Errorf("closing %v since %d, %d packets", closing, since, testConn.Packets(0))
	}
	testConn.want("")
}

// TestInitStartsANewConnection: a Conn is used again.
func TestInitStartsANewConnection(t *testing.T) {
	testConn := newTestConn(t, testConfig(), defaultISN).handshake()
	testConn.segment(0, "A", 5, 0, "later")
	testConn.finish()
	fresh := newTestConn(t, testConfig(), [2]uint32{7, 8})
	fresh.Conn = testConn.Conn
	fresh.Init(testConn.cfg, fresh.pool, fresh.recorder)
	fresh.handshake()
	fresh.segment(0, "A", 0, 0, "abc")
	fresh.want(">abc")
}

// TestInOrderPathDoesNotAllocate: bytes in order are delivered without allocation.
func TestInOrderPathDoesNotAllocate(t *testing.T) {
	cfg := testConfig()
	pool := NewPool(1 << 20)
	handler := &countingHandler{}
	conn := &Conn{}
	conn.Init(&cfg, pool, handler)
	segment := Segment{Flags: ACK, Window: 60000, Payload: make([]byte, 1400), Size: 1400}
	now := int64(1)
	if allocs := testing.AllocsPerRun(2000, func() {
		conn.Segment(0, &segment, now)
		segment.Seq += 1400
		now += 1e6
	}); allocs > 0 {
		t.Errorf("%v allocations for a segment", allocs)
	}
	if handler.bytes != 2001*1400 {
		t.Errorf("%d bytes", handler.bytes)
	}
}

// A countingHandler counts bytes.
type countingHandler struct{ bytes int }

func (h *countingHandler) Data(_ Dir, b []byte, _ int64)   { h.bytes += len(b) }
func (h *countingHandler) Gap(Dir, int, GapReason)         {}
func (h *countingHandler) End(Dir)                         {}
func (h *countingHandler) Observe(Dir, Observation, int64) {}

// BenchmarkSegment measures a segment in order, and a segment that waits for the one before it.
func BenchmarkSegment(b *testing.B) {
	run := func(name string, order []uint32) {
		b.Run(name, func(b *testing.B) {
			cfg := testConfig()
			conn := &Conn{}
			conn.Init(&cfg, NewPool(1<<20), &countingHandler{})
			segment := Segment{Flags: ACK, Window: 60000, Payload: make([]byte, 1400), Size: 1400}
			conn.Segment(0, &segment, 1)
			b.ReportAllocs()
			b.SetBytes(1400)
			for i := 0; b.Loop(); i++ {
				group := uint32(len(order))
				segment.Seq = 1400 * (1 + uint32(i)/group*group + order[uint32(i)%group])
				conn.Segment(0, &segment, int64(i)*1000+2)
			}
		})
	}
	run("in order", []uint32{0})
	run("swapped", []uint32{1, 0})
}

// TestAcknowledgementShowsWhereTheStreamIs: forged segments have moved the stream. What the receiver
// acknowledges is delivered at once, and nothing is left out.
func TestAcknowledgementShowsWhereTheStreamIs(t *testing.T) {
	for _, moved := range []int{1 << 27, 1 << 29, 1_500_000_000, -1 << 27, -1_500_000_000} {
		for _, with := range []string{"data and its acknowledgement", "a handshake"} {
			conn := newTestConn(t, testConfig(), defaultISN)
			real := conn.isn
			if with == "a handshake" {
				conn.isn[0] += uint32(moved)
				conn.handshake()
				conn.isn = real
			} else {
				conn.handshake()
				conn.segment(0, "A", moved, 0, "forged")
				conn.segment(1, "A", 0, moved+6, "")
				conn.wait(100 * time.Millisecond)
			}
			for i := range 3 {
				conn.segment(0, "A", 3*i, 2*i, "ask")
				conn.segment(1, "A", 2*i, 3*i+3, "ok")
				conn.wait(20 * time.Millisecond)
			}
			log := conn.log.String()
			if strings.Count(log, ">ask") != 3 || strings.Count(log, "<ok") != 3 {
				t.Errorf("%s, %d: %s", with, moved, log)
			}
			conn.finish()
		}
	}
}

// TestLateRepetitionDoesNotMoveTheStream: bytes that came late, behind a gap that was given up, stay out, since
// the acknowledgements do not point at them.
func TestLateRepetitionDoesNotMoveTheStream(t *testing.T) {
	conn := newTestConn(t, testConfig(), defaultISN).handshake()
	conn.segment(0, "A", 0, 0, "abc")
	conn.segment(0, "A", 6, 0, "ghi")
	conn.segment(1, "A", 0, 9, "")
	conn.wait(100 * time.Millisecond)
	conn.segment(0, "A", 3, 0, "def")
	conn.segment(1, "A", 0, 9, "")
	conn.segment(0, "A", 9, 0, "jkl")
	conn.segment(1, "A", 0, 12, "")
	conn.want(">abc >gap3 >ghi >jkl")
	conn.finish()
}

// TestWaitingSegmentsAreBoundedInEachDirection: behind a gap wait at most maxSegments segments, however small they are.
func TestWaitingSegmentsAreBoundedInEachDirection(t *testing.T) {
	for dir := range Dir(2) {
		conn := newTestConn(t, testConfig(), [2]uint32{1, 1}).handshake()
		conn.hostile = true // many gaps
		most := 0
		for i := range maxSegments + 100 {
			conn.segment(dir, "A", 10+2*i, 0, "x")
			most = max(most, conn.half[dir].numWaiting())
		}
		if most != maxSegments {
			t.Errorf("direction %d: %d segments wait, want %d", dir, most, maxSegments)
		}
		conn.Discard()
		conn.checkEmpty()
	}
}

// TestDiscardDropsWhatWaits: what waits in either direction is given back and not delivered, and the connection can be
// flushed behind it.
func TestDiscardDropsWhatWaits(t *testing.T) {
	conn := newTestConn(t, testConfig(), [2]uint32{7, 9}).handshake()
	conn.segment(0, "A", 0, 0, "abc")
	for i := range 5 {
		conn.segment(0, "A", 10+20*i, 0, "waits")
		conn.segment(1, "A", 10+20*i, 0, "waits too")
	}
	if conn.Buffered() == 0 {
		t.Fatal("nothing waits")
	}
	conn.Discard()
	conn.checkEmpty()
	conn.Flush()
	conn.want(">abc")
}
