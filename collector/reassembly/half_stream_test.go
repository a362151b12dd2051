package reassembly

import (
	"math"
	"testing"
	"time"
)

// TestSequenceNumberStandsForTheNearestOffset to the next byte, also across the wrap at 2^32.
func TestSequenceNumberStandsForTheNearestOffset(t *testing.T) {
	check := func(base uint32, next int64, seq uint32, want int64) {
		t.Helper()
		half := halfStream{base: base, next: next}
		if got := half.offsetOf(seq); got != want {
			t.Errorf("number %d from %d, behind %d bytes: %d, want %d", seq, base, next, got, want)
		}
	}
	check(1000, 0, 1000, 0)
	check(1000, 0, 1500, 500)
	check(1000, 500, 900, -100)
	check(math.MaxUint32, 10, 5, 6)
	check(5, 10, math.MaxUint32, -6)
	check(0, 1<<32+7, 9, 1<<32+9)
	check(0, 1<<32+7, math.MaxUint32, 1<<32-1)
	check(0, 0, 1<<31-1, 1<<31-1)
	check(0, 0, 1<<31+1, -1<<31+1)
}

// TestWaitingSegmentEndsBehindItsCutBytes.
func TestWaitingSegmentEndsBehindItsCutBytes(t *testing.T) {
	if end := (&waitingSegment{off: 10, b: make([]byte, 5), lost: 3}).endOffset(); end != 18 {
		t.Errorf("it ends at %d, want 18", end)
	}
}

// TestNumbersOfPositions are those of the offsets, from the number behind the SYN.
func TestNumbersOfPositions(t *testing.T) {
	conn := newTestConn(t, testConfig(), [2]uint32{math.MaxUint32 - 1, 5000})
	check := func(dir Dir, next, top, turn uint32, sent bool) {
		t.Helper()
		first := conn.isn[dir] + 1
		if seq, known := conn.FirstSeq(dir); seq != first || !known {
			t.Errorf("direction %d begins at %d, known %t, want %d", dir, seq, known, first)
		}
		got := [3]uint32{conn.NextSeq(dir) - first, conn.TopSeq(dir) - first, conn.TurnSeq(dir) - first}
		if want := [3]uint32{next, top, turn}; got != want || conn.HasSent(dir) != sent {
			t.Errorf("direction %d: next, top and turn are %v, want %v; it has sent: %t", dir, got, want, conn.HasSent(dir))
		}
	}
	if _, known := conn.FirstSeq(0); known || conn.HasSent(0) {
		t.Error("the numbers of a new connection are known")
	}
	conn.handshake()
	check(0, 0, 0, 0, false)
	conn.segment(0, "A", 0, 0, "abc")
	conn.segment(0, "A", 5, 0, "fg")
	check(0, 3, 7, 0, true)
	check(1, 0, 0, 0, false)
	conn.segment(1, "A", 0, 3, "answer")
	check(0, 3, 7, 3, true)
	check(1, 6, 6, 0, true)
	conn.segment(0, "A", 3, 6, "de")
	check(0, 7, 7, 3, true)
	check(1, 6, 6, 6, true)
}

// TestConnectionMayBeginBehindItsSYN, which another part has seen.
func TestConnectionMayBeginBehindItsSYN(t *testing.T) {
	conn := newTestConn(t, testConfig(), defaultISN)
	conn.BeginAfterSYN(0, conn.isn[0]+1)
	if !conn.SYNSeen(0) || conn.SYNSeen(1) || conn.Packets(0) != 1 || conn.Packets(1) != 0 || conn.HasSent(0) {
		t.Errorf("SYNs %t and %t, %d and %d packets", conn.SYNSeen(0), conn.SYNSeen(1), conn.Packets(0), conn.Packets(1))
	}
	conn.segment(1, "SA", 0, 0, "")
	conn.segment(0, "A", 3, 0, "def")
	conn.segment(0, "A", 0, 0, "abc")
	conn.want(">abc >def")
	if conn.observed[FirstSYNACK] != 1 || !conn.SYNSeen(1) {
		t.Errorf("observed %v", conn.observed)
	}
}

// TestWindowScaleIsReadFromTheOptions: RFC 7323 section 2.2, RFC 9293 section 3.1 for their forms.
func TestWindowScaleIsReadFromTheOptions(t *testing.T) {
	check := func(options string, want int8) {
		t.Helper()
		half := halfStream{windowScale: -1}
		if half.readOptions([]byte(options)); half.windowScale != want {
			t.Errorf("%x: scale %d, want %d", options, half.windowScale, want)
		}
	}
	check("", 0)
	check("\x03\x03\x07", 7)
	check("\x01\x01\x03\x03\x07", 7)
	check("\x02\x04\x05\xb4\x01\x03\x03\x09", 9)
	check("\x03\x03\x0e", 14)
	check("\x03\x03\x0f", 14) // 14 is the largest
	check("\x00\x03\x03\x07", 0)
	check("\x03\x04\x07\x07", 0) // not of this length
	check("\x05\x03\x07", 0)
	check("\x03\x03", 0)
	check("\x03", 0)
	check("\x02\x01\x03\x03\x07", 0) // a length that does not hold itself
	check("\x02\x00\x03\x03\x07", 0)
	check("\x02\x02\x03\x03\x07", 7)
	check("\x02\x09\x03\x03\x07", 0)
}

// TestWindowIsScaledBehindTheSYN, and its closing is reported once.
func TestWindowIsScaledBehindTheSYN(t *testing.T) {
	half := halfStream{windowScale: 3}
	check := func(window uint16, inSYN bool, want uint32, closes bool) {
		t.Helper()
		if closed := half.setWindow(window, inSYN); half.window != want || closed != closes {
			t.Errorf("a window of %d, in a SYN %t: %d, closed %t; want %d, %t", window, inSYN, half.window, closed, want, closes)
		}
	}
	check(100, true, 100, false)
	check(100, false, 800, false)
	check(0, false, 0, true)
	check(0, false, 0, false)
	check(1, false, 8, false)
	check(0, true, 0, false)
	half.windowScale = -1
	check(5, false, 5, false)
	half.windowScale = 0
	check(5, false, 5, false)
}

// TestSenderIsLimitedByTheWindowOfItsPeer, which is not known if a SYN was not seen.
func TestSenderIsLimitedByTheWindowOfItsPeer(t *testing.T) {
	check := func(what string, half, peer halfStream, want int64) {
		t.Helper()
		if got := half.sendLimit(&peer); got != want {
			t.Errorf("%s: %d, want %d", what, got, want)
		}
		if got, bound := half.repeatLimit(&peer), min(want, unknownWindow)+64<<10; got != bound {
			t.Errorf("%s: %d may be repeated, want %d", what, got, bound)
		}
	}
	check("a peer that was not captured", halfStream{}, halfStream{window: 100}, maxWindow)
	check("a small window", halfStream{}, halfStream{packets: 1, window: 100}, 64<<10)
	check("a large window", halfStream{}, halfStream{packets: 1, window: 1 << 20}, 1<<20)
	check("the scale of the peer is unknown", halfStream{}, halfStream{packets: 1, window: 100, windowScale: -1}, unknownWindow)
	check("the scale of the sender is unknown", halfStream{windowScale: -1}, halfStream{packets: 1, window: 100}, unknownWindow)
	check("a window that is larger all the same", halfStream{windowScale: -1}, halfStream{packets: 1, window: 5 << 20}, 5<<20)
}

// TestAcknowledgementIsOfBytesThatMayHaveBeenSent: the window of the receiver and 64 KiB behind the highest byte.
func TestAcknowledgementIsOfBytesThatMayHaveBeenSent(t *testing.T) {
	peer := &halfStream{packets: 1, window: 100_000}
	check := func(what string, half halfStream, off, need, ack int64) {
		t.Helper()
		if got := half.acknowledge(off, peer); got != need || half.ack != ack {
			t.Errorf("%s: need %d, acknowledged %d; want %d, %d", what, got, half.ack, need, ack)
		}
	}
	const limit = 100_000 + 64<<10
	seen := halfStream{packets: 1, next: 50, top: 50, ack: 20, fin: -1}
	check("new", seen, 30, 30, 30)
	check("known", seen, 20, 20, 20)
	check("older", seen, 10, 10, 20)
	check("before the first byte", seen, -5, 0, 20)
	check("the last that is possible", seen, 50+limit, 50+limit, 50+limit)
	check("one more", seen, 51+limit, 20, 20)
	ahead := halfStream{packets: 1, next: 50, top: 50, ack: 400, fin: -1}
	check("from the highest acknowledgement", ahead, 400+limit, 400+limit, 400+limit)
	check("from the highest acknowledgement, one more", ahead, 401+limit, 400, 400)
	check("of a sender that was not captured", halfStream{fin: -1}, 1<<29, 1<<29, 1<<29)
	check("of a sender that was not captured, within the largest window", halfStream{fin: -1}, maxWindow, maxWindow, maxWindow)
	check("of a sender that was not captured, too far", halfStream{fin: -1}, maxWindow+1, 0, 0)
	ended := halfStream{packets: 1, next: 50, top: 50, ack: 20, fin: 50}
	check("of a FIN", ended, 51, 50, 50)
	check("of the bytes before a FIN", ended, 50, 50, 50)
}

// TestDirectionIsReachedAtItsFIN: an acknowledgement of a FIN is one higher than its offset. Nobody waits for a direction
// of which no segment was captured.
func TestDirectionIsReachedAtItsFIN(t *testing.T) {
	check := func(half halfStream, off int64, reached, permits bool) {
		t.Helper()
		if half.reached(off) != reached || half.permits(off) != permits {
			t.Errorf("%+v: %d is reached %t, permitted %t", half, off, half.reached(off), half.permits(off))
		}
	}
	check(halfStream{packets: 1, next: 10, fin: -1}, 10, true, true)
	check(halfStream{packets: 1, next: 10, fin: -1}, 11, false, false)
	check(halfStream{packets: 1, next: 10, fin: 10}, 11, true, true)
	check(halfStream{packets: 1, next: 9, fin: 10}, 11, false, false)
	check(halfStream{packets: 1, next: 0, fin: 0}, 1, true, true)
	check(halfStream{next: 10, fin: -1}, 11, false, true)
}

// TestExpectedNumberOfAReset is one that its receiver may have (RFC 5961 section 3.2), and no other.
func TestExpectedNumberOfAReset(t *testing.T) {
	check := func(half halfStream, expected ...int64) {
		t.Helper()
		for off := int64(-2); off < 20; off++ {
			want := false
			for _, e := range expected {
				want = want || e == off
			}
			if got := half.expects(off); got != want {
				t.Errorf("ack %d, next %d, FIN %d: %d is expected: %t", half.ack, half.next, half.fin, off, got)
			}
		}
	}
	check(halfStream{ack: 3, next: 7, fin: -1}, 3, 7)
	check(halfStream{ack: 3, next: 7, fin: 9}, 3, 7, 9, 10)
	check(halfStream{fin: 0}, 0, 1)
}

// TestStraySegmentsAreOutOfPlace: outside the largest window, before the first byte, further back than is repeated, or
// within bytes that were given up.
func TestStraySegmentsAreOutOfPlace(t *testing.T) {
	peer := &halfStream{packets: 1, window: 100}
	const repeated = 64<<10 + 64<<10
	check := func(what string, half halfStream, off, end int64, stray, near bool) {
		t.Helper()
		if isStray, isNear := half.isStray(peer, off, end); isStray != stray || isNear != near {
			t.Errorf("%s: stray %t, near %t; want %t, %t", what, isStray, isNear, stray, near)
		}
	}
	far := halfStream{next: 3 * maxWindow, syn: true}
	check("ahead", far, far.next+maxWindow, far.next+maxWindow+5, false, false)
	check("too far ahead", far, far.next+maxWindow+1, far.next+maxWindow+5, true, false)
	check("too far behind", far, far.next-maxWindow-1, far.next+5, true, false)
	check("a long segment from behind", far, far.next-maxWindow, far.next+5, false, false)
	half := halfStream{next: 1_000_000, syn: true}
	check("repeated", half, half.next-repeated-100, half.next-repeated, false, false)
	check("not repeated any more", half, half.next-repeated-100, half.next-repeated-1, true, false)
	half.next = 1000
	check("before the SYN", half, -10, 0, true, false)
	half.syn = false
	check("before the first byte", half, -10, 0, true, true)
	check("before the first byte, the last that may be late", half, -nearStart, -nearStart+1, true, true)
	check("long before the first byte", half, -nearStart-5, -nearStart, true, false)
	check("repeated without a SYN", half, 0, 5, false, false)
	half.gaps[2] = offsetRange{100, 200}
	check("before a gap", half, 90, 100, false, false)
	check("into a gap", half, 90, 101, true, true)
	check("at the end of a gap", half, 199, 250, true, true)
	check("behind a gap", half, 200, 250, false, false)
}

// TestGapsInARowAreOne, as long as nothing is delivered between them.
func TestGapsInARowAreOne(t *testing.T) {
	half := halfStream{next: 100}
	check := func(want offsetRange, ok bool) {
		t.Helper()
		if gap, found := half.lastGap(); found != ok || ok && gap != want {
			t.Errorf("the last gap is %v, %t; want %v, %t", gap, found, want, ok)
		}
	}
	give := func(n int64) {
		half.recordGap(n)
		half.next += n
	}
	check(offsetRange{}, false)
	give(10)
	check(offsetRange{100, 110}, true)
	give(5)
	check(offsetRange{100, 115}, true)
	half.next += 20
	check(offsetRange{}, false)
	give(1)
	check(offsetRange{135, 136}, true)
	for range 3 { // five in all: four are kept
		half.next += 10
		give(1)
	}
	check(offsetRange{168, 169}, true)
	if want := [4]offsetRange{{168, 169}, {135, 136}, {146, 147}, {157, 158}}; half.gaps != want {
		t.Errorf("gaps %v, want %v", half.gaps, want)
	}
}

// TestRepeatedBytesAreThoseDeliveredAndNotAcknowledged, but not those that were given up.
func TestRepeatedBytesAreThoseDeliveredAndNotAcknowledged(t *testing.T) {
	half := halfStream{ack: 10, next: 20}
	check := func(off int64, want bool) {
		t.Helper()
		if got := half.repeatsDelivered(off); got != want {
			t.Errorf("%d: %t", off, got)
		}
	}
	check(9, false)
	check(10, true)
	check(19, true)
	check(20, false)
	half.recordGap(5)
	half.next = 25
	check(19, true)
	check(20, false)
	check(24, false)
	half.next = 26 // a byte was delivered behind the gap
	check(24, true)
}

// TestUrgentByteIsTheNewest, of those that were not read (tcp_check_urg of Linux).
func TestUrgentByteIsTheNewest(t *testing.T) {
	conn := newTestConn(t, testConfig(), defaultISN)
	half := &conn.half[0]
	half.next = 100
	check := func(off int64, pointer uint16, want int64, is bool) {
		t.Helper()
		conn.markUrgent(0, &Segment{Urgent: pointer}, off)
		if half.isUrgent != is || is && half.urgent != want {
			t.Errorf("pointer %d at %d: byte %d, %t; want %d, %t", pointer, off, half.urgent, half.isUrgent, want, is)
		}
	}
	check(90, 10, 0, false) // the byte at 99 was read
	check(90, 11, 100, true)
	check(90, 11, 100, true)
	check(110, 0, 110, true)
	check(110, 1, 110, true)
	check(100, 5, 110, true) // older than the one that waits
	check(110, 2, 111, true)
}

// TestUrgentByteIsNoneOfTheStream, and the numbers of the bytes around it are right.
func TestUrgentByteIsNoneOfTheStream(t *testing.T) {
	check := func(pointer uint16, log string, numbers ...uint32) {
		t.Helper()
		conn := newTestConn(t, testConfig(), defaultISN)
		handler := &numberingHandler{recorder: conn.recorder, conn: conn.Conn}
		conn.Init(conn.cfg, conn.pool, handler)
		conn.handshake()
		segment := Segment{Seq: conn.isn[0] + 1, Ack: conn.isn[1] + 1, Flags: ACK | URG, Urgent: pointer, Payload: []byte("abcde"), Size: 5, Time: 7}
		conn.Segment(0, &segment, conn.now)
		conn.segment(0, "A", 5, 0, "fg")
		conn.want(log)
		for i, number := range numbers {
			if got := handler.numbers[i] - conn.isn[0] - 1; got != number {
				t.Errorf("pointer %d: part %d has the number %d, want %d", pointer, i, got, number)
			}
		}
		if conn.observed[UrgentByte] != 1 {
			t.Errorf("pointer %d: %d urgent bytes", pointer, conn.observed[UrgentByte])
		}
	}
	check(1, ">bcde >fg", 1, 5)
	check(3, ">ab >de >fg", 0, 3, 5)
	check(5, ">abcd >fg", 0, 5)
	check(6, ">abcde >g", 0, 6)
}

// TestUrgentByteMayBeLost: with the bytes around it, which are given up, or cut by the capture. What follows is read as usual.
func TestUrgentByteMayBeLost(t *testing.T) {
	for pointer := range uint16(14) {
		conn := newTestConn(t, testConfig(), defaultISN).handshake()
		conn.Segment(0, &Segment{Seq: conn.isn[0] + 1, Ack: conn.isn[1] + 1, Flags: ACK | URG, Urgent: pointer, Time: conn.now}, conn.now)
		conn.segment(0, "A", 10, 0, "klm")
		conn.wait(3 * time.Second)
		conn.segment(0, "A", 13, 0, "nop")
		log, urgent := ">gap10 >klm >nop", 0
		switch pointer {
		case 11:
			log, urgent = ">gap10 >lm >nop", 1
		case 12:
			log, urgent = ">gap10 >k >m >nop", 1
		case 13:
			log, urgent = ">gap10 >kl >nop", 1
		}
		if conn.want(log); conn.observed[UrgentByte] != urgent {
			t.Errorf("pointer %d: %d urgent bytes", pointer, conn.observed[UrgentByte])
		}
		conn.finish()
	}
	for pointer := range uint16(7) {
		conn := newTestConn(t, testConfig(), defaultISN).handshake()
		conn.Segment(0, &Segment{
			Seq: conn.isn[0] + 1, Ack: conn.isn[1] + 1, Flags: ACK | URG, Urgent: pointer, Payload: []byte("ab"), Size: 6, Time: conn.now,
		}, conn.now)
		conn.segment(0, "A", 6, 0, "ghi")
		log, urgent := ">ab >gap4 >ghi", 0
		switch pointer {
		case 0, 1:
			log, urgent = ">b >gap4 >ghi", 1
		case 2:
			log, urgent = ">a >gap4 >ghi", 1
		}
		if conn.want(log); conn.observed[UrgentByte] != urgent {
			t.Errorf("a cut segment, pointer %d: %d urgent bytes", pointer, conn.observed[UrgentByte])
		}
		conn.finish()
	}
}

// A numberingHandler records the number of the first byte of each part that is delivered.
type numberingHandler struct {
	*recorder
	conn    *Conn
	numbers []uint32
}

func (h *numberingHandler) Data(dir Dir, data []byte, at int64) {
	h.numbers = append(h.numbers, h.conn.NextSeq(dir))
	h.recorder.Data(dir, data, at)
}
