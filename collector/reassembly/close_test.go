package reassembly

import (
	"testing"
	"time"
)

// openConn returns a connection on which the client has sent six bytes, of which the server has acknowledged three and
// answered with two, which the client has acknowledged.
func openConn(t *testing.T) *testConn {
	conn := newTestConn(t, testConfig(), defaultISN).handshake()
	conn.segment(0, "A", 0, 0, "abcdef")
	conn.segment(1, "A", 0, 3, "ok")
	conn.segment(0, "A", 6, 2, "")
	return conn
}

// segmentOf returns a segment of dir at an offset, which acknowledges ack.
func (c *testConn) segmentOf(dir Dir, flags uint8, off, ack int, payload string) *Segment {
	return &Segment{
		Seq: c.isn[dir] + 1 + uint32(off), Ack: c.isn[dir^1] + 1 + uint32(ack), Flags: flags, Window: 60000,
		Payload: []byte(payload), Size: len(payload), Time: c.now,
	}
}

// TestLifeIsShownByWhatCannotBeLate: new bytes, those further back than a sender repeats, and acknowledgements of bytes
// that were not seen.
func TestLifeIsShownByWhatCannotBeLate(t *testing.T) {
	conn := openConn(t)
	check := func(what string, segment *Segment, want bool) {
		t.Helper()
		if got := conn.ShowsLife(0, segment); got != want {
			t.Errorf("%s: %t", what, got)
		}
	}
	check("nothing", conn.segmentOf(0, ACK, 6, 2, ""), false)
	check("known bytes", conn.segmentOf(0, ACK, 0, 2, "abcdef"), false)
	check("a new byte", conn.segmentOf(0, ACK, 0, 2, "abcdefg"), true)
	check("a new byte without an acknowledgement", conn.segmentOf(0, 0, 6, 0, "g"), true)
	check("a RST", conn.segmentOf(0, RST|ACK, 6, 9, "g"), false)
	check("a SYN", conn.segmentOf(0, SYN, 6, 9, "g"), false)
	repeated := int(conn.half[0].repeatLimit(&conn.half[1]))
	check("the oldest byte that may be repeated", conn.segmentOf(0, ACK, 5-repeated, 2, "x"), false)
	check("an older one", conn.segmentOf(0, ACK, 4-repeated, 2, "x"), true)
	check("an acknowledgement of a FIN that was not seen", conn.segmentOf(0, ACK, 6, 3, ""), false)
	check("an acknowledgement of bytes that were not seen", conn.segmentOf(0, ACK, 6, 4, ""), true)
	check("the same without the flag", conn.segmentOf(0, 0, 6, 4, ""), false)
	check("the last acknowledgement within the largest window", conn.segmentOf(0, ACK, 6, 2+maxWindow, ""), true)
	check("one more", conn.segmentOf(0, ACK, 6, 3+maxWindow, ""), false)

	conn = newTestConn(t, testConfig(), defaultISN)
	check("an acknowledgement where nothing was seen", conn.segmentOf(0, ACK, 0, 5000, ""), false)
	check("a byte where nothing was seen", conn.segmentOf(0, ACK, 0, 0, "x"), true)
}

// TestOtherBytesContradict those that were delivered and not acknowledged, behind the end of the connection too.
func TestOtherBytesContradict(t *testing.T) {
	conn := openConn(t)
	check := func(what string, segment *Segment, want bool) {
		t.Helper()
		if got := conn.Contradicts(0, segment); got != want {
			t.Errorf("%s: %t", what, got)
		}
	}
	check("the same bytes", conn.segmentOf(0, ACK, 0, 2, "abcdef"), false)
	check("other acknowledged bytes", conn.segmentOf(0, ACK, 0, 2, "xyzdef"), false)
	check("other acknowledged bytes alone", conn.segmentOf(0, ACK, 0, 2, "x"), false)
	check("another byte", conn.segmentOf(0, ACK, 0, 2, "abcxef"), true)
	check("another last byte", conn.segmentOf(0, ACK, 4, 2, "ex"), true)
	check("other bytes behind", conn.segmentOf(0, ACK, 6, 2, "xyz"), false)
	check("none", conn.segmentOf(0, ACK, 3, 2, ""), false)
	check("other bytes with a FIN", conn.segmentOf(0, FIN|ACK, 3, 2, "xyz"), true)
	check("other bytes with a RST", conn.segmentOf(0, RST|ACK, 3, 2, "xyz"), false)
	check("other bytes with a SYN", conn.segmentOf(0, SYN, 3, 2, "xyz"), false)
	doubtful := conn.segmentOf(0, ACK, 3, 2, "xyz")
	doubtful.Doubtful = true
	check("other bytes that the receiver may drop", doubtful, false)
	conn = newTestConn(t, testConfig(), [2]uint32{0xffffffff, 0xffffffff})
	check("bytes of a direction that was not seen", conn.segmentOf(0, ACK, 0, 0, "x"), false)
}

// TestEndIsTakenBackByWhoGoesOn: who has sent the RST sends nothing behind it. Segments of its receiver may have been on
// their way for a time; behind a RST in doubt any of them shows that it was ignored.
func TestEndIsTakenBackByWhoGoesOn(t *testing.T) {
	check := func(what string, rstOff int, rtt, later time.Duration, dir Dir, off, ack int, payload string, alive bool) {
		t.Helper()
		conn := openConn(t)
		conn.SetRTT(int64(rtt))
		conn.segment(0, "RA", rstOff, 2, "")
		conn.now += int64(later) - 1000
		conn.segment(dir, "A", off, ack, payload)
		_, closing := conn.Closing()
		_, doubtful := conn.DoubtfulReset()
		_, reset := conn.ResetBy()
		if closing || doubtful == alive || reset == alive {
			if !(closing && reset && !alive) {
				t.Errorf("%s: closing %t, in doubt %t, reset %t; alive is %t", what, closing, doubtful, reset, alive)
			}
		}
	}
	const second, expected, inWindow = time.Second, 6, 500
	check("its sender repeats bytes", expected, 0, second, 0, 0, 2, "abcdef", false)
	check("its sender acknowledges nothing new", expected, 0, second, 0, 6, 2, "", false)
	check("its sender has new bytes", expected, 0, 1000, 0, 6, 2, "gh", true)
	check("its sender acknowledges new bytes", expected, 0, 1000, 0, 6, 3, "", true)
	check("its receiver has new bytes soon", expected, 0, 199*time.Millisecond, 1, 2, 6, "more", false)
	check("its receiver has new bytes later", expected, 0, 200*time.Millisecond, 1, 2, 6, "more", true)
	check("its receiver acknowledges new bytes later", expected, 0, 200*time.Millisecond, 1, 2, 6, "", true)
	check("its receiver repeats bytes later", expected, 0, second, 1, 0, 3, "ok", false)
	check("its receiver has new bytes within four round-trip times", expected, 100*time.Millisecond, 399*time.Millisecond, 1, 2, 6, "more", false)
	check("its receiver has new bytes behind four round-trip times", expected, 100*time.Millisecond, 400*time.Millisecond, 1, 2, 6, "more", true)
	check("in doubt, its sender repeats bytes", inWindow, 0, second, 0, 0, 2, "abcdef", false)
	check("in doubt, its sender has new bytes", inWindow, 0, 1000, 0, 6, 2, "gh", true)
	check("in doubt, its receiver repeats bytes", inWindow, 0, 1000, 1, 0, 3, "ok", true)

	// Closed by FINs: only bytes behind them show that one was none.
	conn := openConn(t)
	conn.segment(0, "FA", 6, 2, "")
	conn.segment(1, "FA", 2, 7, "")
	conn.segment(0, "A", 7, 3, "")
	conn.hostile = true
	if since, closing := conn.Closing(); !closing || since == 0 || !conn.Ended(0) || !conn.Ended(1) {
		t.Errorf("two FINs: closing %t since %d", closing, since)
	}
	conn.segment(1, "A", 3, 7, "")
	if _, closing := conn.Closing(); !closing {
		t.Error("an acknowledgement takes the end back")
	}
	conn.segment(0, "A", 6, 3, "ghi")
	if _, closing := conn.Closing(); closing || conn.Ended(0) || !conn.Ended(1) {
		t.Errorf("bytes behind a FIN: closing %t, ended %t and %t", closing, conn.Ended(0), conn.Ended(1))
	}
}

// TestResetOfARefusedConnection: RFC 9293 section 3.10.7.1: the answer to a SYN has the number 0 and acknowledges the SYN.
func TestResetOfARefusedConnection(t *testing.T) {
	check := func(what string, play func(c *testConn), closing bool, observed Observation) {
		t.Helper()
		c := newTestConn(t, testConfig(), [2]uint32{1_000_000, 3_000_000_000})
		play(c)
		_, isClosing := c.Closing()
		if isClosing != closing || observed != Data && c.observed[observed] != 1 {
			t.Errorf("%s: closing %t, observed %v", what, isClosing, c.observed)
		}
	}
	refuse := func(c *testConn, flags uint8, ack int) {
		c.Segment(1, &Segment{Seq: 0, Ack: c.isn[0] + 1 + uint32(ack), Flags: flags}, c.now)
	}
	check("a refused SYN", func(c *testConn) { c.segment(0, "S", 0, 0, ""); refuse(c, RST|ACK, 0) }, true, ValidReset)
	check("a refused SYN, the SYN not counted", func(c *testConn) { c.segment(0, "S", 0, 0, ""); refuse(c, RST|ACK, -1) }, true, ValidReset)
	check("of an older SYN", func(c *testConn) { c.segment(0, "S", 0, 0, ""); refuse(c, RST|ACK, -2) }, false, Data)
	check("without an acknowledgement", func(c *testConn) { c.segment(0, "S", 0, 0, ""); refuse(c, RST, -2) }, true, ValidReset)
	check("behind a SYN-ACK", func(c *testConn) { c.handshake(); refuse(c, RST|ACK, 0) }, false, OutsideWindow)
	check("the number of the peer is known from an acknowledgement", func(c *testConn) { c.segment(0, "A", 0, 0, "abc"); refuse(c, RST|ACK, 3) }, true, ValidReset)
	check("the same without an acknowledgement", func(c *testConn) { c.segment(0, "A", 0, 0, "abc"); refuse(c, RST, 3) }, false, OutsideWindow)
	check("the first segment of all", func(c *testConn) { refuse(c, RST|ACK, 3) }, true, ValidReset)
}

// TestResetIsInTheWindow, whose bounds are those of what was acknowledged and may be sent.
func TestResetIsInTheWindow(t *testing.T) {
	for off, valid := range map[int]bool{1: false, 2: true, 3: true, 6: true, 6 + 64<<10: true, 7 + 64<<10: false} {
		conn := openConn(t)
		conn.segment(0, "RA", off, 2, "")
		if by, reset := conn.ResetBy(); reset != valid || valid && by != 0 || (conn.observed[OutsideWindow] == 0) != valid {
			t.Errorf("a RST at %d: reset %t by %d, observed %v", off, reset, by, conn.observed)
		}
	}
}

// TestConnectionMayBeginWithAReset: the RST is at the first number of its side, and what is far from it belongs to another
// connection.
func TestConnectionMayBeginWithAReset(t *testing.T) {
	conn := newTestConn(t, testConfig(), defaultISN)
	conn.segment(0, "RA", 100, 50, "")
	if _, closing := conn.Closing(); !closing || conn.observed[ValidReset] != 1 {
		t.Errorf("closing %t, observed %v", closing, conn.observed)
	}
	for dir, off := range []uint32{100, 50} {
		if first, known := conn.FirstSeq(Dir(dir)); !known || first != conn.isn[dir]+1+off {
			t.Errorf("direction %d begins at %d, known %t", dir, first, known)
		}
	}
	conn.segment(0, "RA", 101+maxWindow, 50, "")
	if conn.observed[ValidReset] != 1 || conn.observed[OutsideWindow] != 1 {
		t.Errorf("a RST far from the first one: observed %v", conn.observed)
	}
	conn.segment(0, "A", 90, 50, "late")
	if conn.want(""); conn.observed[OutsideWindow] != 2 {
		t.Errorf("a segment before the RST: observed %v", conn.observed)
	}
	conn.finish()
}

// TestSegmentBeyondTheWindowOfItsReceiverIsDropped when it has waited for the gap before it; the window of its sender does
// not matter.
func TestSegmentBeyondTheWindowOfItsReceiverIsDropped(t *testing.T) {
	const scaled = 60000 << 4
	check := func(what string, scales [2]byte, off int, log string) {
		t.Helper()
		conn := newTestConn(t, testConfig(), defaultISN)
		for dir, flags := range []uint8{SYN, SYN | ACK} {
			syn := conn.segmentOf(Dir(dir), flags, -1, 0, "")
			syn.Options = []byte{3, 3, scales[dir]}
			conn.Segment(Dir(dir), syn, conn.now)
		}
		conn.segment(0, "A", 0, 0, "ab")
		conn.segment(1, "A", 0, 2, "")
		conn.segment(0, "A", 2+off, 0, "x")
		conn.wait(3 * time.Second)
		conn.want(log)
		if dropped := conn.observed[OutsideWindow]; dropped == 1 != (log == ">ab") {
			t.Errorf("%s: %d segments are dropped", what, dropped)
		}
		conn.finish()
	}
	check("the window of the sender is larger", [2]byte{4, 0}, 64<<10+1, ">ab")
	check("at the end of a small window", [2]byte{4, 0}, 64<<10, ">ab >gap65536 >x")
	check("the window of the receiver is larger", [2]byte{0, 4}, scaled, ">ab >gap960000 >x")
	check("beyond a large window", [2]byte{0, 4}, scaled+1, ">ab")
}

// TestFollowedConnectionKnowsItsNumbers: another Conn delivers its bytes.
func TestFollowedConnectionKnowsItsNumbers(t *testing.T) {
	conn := newTestConn(t, testConfig(), defaultISN)
	follow := func(dir Dir, segment *Segment) { conn.Follow(dir, segment, conn.now) }
	syn := conn.segmentOf(0, SYN, -1, 0, "")
	follow(0, syn)
	if seq, known := conn.FirstSeq(0); !known || conn.HasSent(0) == (conn.TopSeq(0) == seq) || conn.Established() {
		t.Errorf("a SYN: first %d, top %d", seq, conn.TopSeq(0))
	}
	follow(1, conn.segmentOf(1, SYN|ACK, -1, 0, ""))
	if conn.Established() {
		t.Error("a SYN-ACK establishes the connection")
	}
	follow(0, conn.segmentOf(0, ACK, 0, 0, "abc"))
	follow(0, conn.segmentOf(0, ACK, 1, 0, "b"))
	if got := conn.TopSeq(0) - conn.isn[0] - 1; got != 3 || !conn.Established() || conn.NextSeq(0) != conn.TopSeq(0) {
		t.Errorf("top %d, next %d", got, conn.NextSeq(0))
	}
	follow(0, conn.segmentOf(0, ACK, 2+maxWindow, 0, "far")) // by 2 bytes too far
	if got := conn.TopSeq(0) - conn.isn[0] - 1; got != 3 {
		t.Errorf("top %d", got)
	}
	follow(0, conn.segmentOf(0, ACK, maxWindow, 0, "far"))
	if got := conn.TopSeq(0) - conn.isn[0] - 1; got != maxWindow+3 {
		t.Errorf("top %d", got)
	}
	conn.now = 77
	follow(1, conn.segmentOf(1, RST, 5000, 0, ""))
	if since, closing := conn.Closing(); !closing || since != 77 || conn.TopSeq(1) != conn.isn[1]+1 || conn.Packets(0) != 5 || conn.Packets(1) != 2 {
		t.Errorf("a RST: closing %t since %d, top %d, %d and %d packets", closing, since, conn.TopSeq(1), conn.Packets(0), conn.Packets(1))
	}
	conn.want("")
}
