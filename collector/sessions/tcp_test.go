package sessions

import (
	"testing"
	"time"

	"tidegate/pipeline"
)

// TestSessionInOrder: a session without loss, and all fields of its event.
func TestSessionInOrder(t *testing.T) {
	b := newTableTest(t, Default(), Deps{})
	b.segment(">", "S", 0, 0, "")
	b.setTime(3*time.Millisecond).segment("<", "SA", 0, 0, "")
	b.setTime(5*time.Millisecond).segment(">", "A", 0, 0, "")
	b.setTime(6*time.Millisecond).segment(">", "A", 0, 0, "GET a")
	b.setTime(16*time.Millisecond).segment("<", "A", 0, 5, "200 b")
	b.closeOrderly(5, 5)
	e := b.closeOneSession()
	b.wantParserLog(">GET a <200 b >end <end close")
	s := e.Session
	if s.State != stateFIN || s.History != "ShADdFf" || s.RttServer != 3e6 || s.RttClient != 2e6 ||
		s.ResponseTime != 10e6 || s.DirectionConfidence != 100 {
		t.Errorf("session %v", s)
	}
	if e.Source.Bytes != 5 || e.Destination.Bytes != 5 || e.Source.Packets != 5 ||
		e.Destination.Packets != 3 || e.Source.Port != 40000 || e.Destination.Port != 80 {
		t.Errorf("endpoints %v %v", e.Source, e.Destination)
	}
	if pipeline.CommunityIDText(e.CommunityId) == "" || e.Timestamp != startTime || e.Partial ||
		e.Outcome != pipeline.Outcome_SUCCESS || e.Interfaces[0] != "eth0" {
		t.Errorf("event %v", e)
	}
}

// TestReorderedBytesComeInOrder: reordered segments are delivered in order, without a gap.
func TestReorderedBytesComeInOrder(t *testing.T) {
	b := newTableTest(t, Default(), Deps{}).handshake()
	b.segment(">", "A", 3, 0, "def")
	b.segment(">", "A", 6, 0, "ghi")
	b.segment("<", "A", 0, 9, "") // the capture is late, not the network
	b.segment(">", "A", 0, 0, "abc")
	b.closeOrderly(9, 0)
	s := b.closeOneSession().Session
	b.wantParserLog(">abc >def >ghi >end <end close")
	if s.OutOfOrder != 1 || s.ClientMissingBytes != 0 || s.ClientRetransmissions != 0 {
		t.Errorf("session %v", s)
	}
}

// TestReplyWaitsForItsRequest: a reply that was captured before the end of its request is delivered behind
// it.
func TestReplyWaitsForItsRequest(t *testing.T) {
	b := newTableTest(t, Default(), Deps{}).handshake()
	b.segment(">", "A", 0, 0, "ab")
	b.segment("<", "A", 0, 4, "reply")
	b.wantParserLog(">ab")
	b.segment(">", "A", 2, 0, "cd")
	b.wantParserLog(">ab >cd <reply")
	b.closeOneSession()
}

// TestGapWaitsForTheGrace: an acknowledged gap is given up after the grace, not before.
func TestGapWaitsForTheGrace(t *testing.T) {
	b := newTableTest(t, Default(), Deps{}).handshake()
	b.segment(">", "A", 0, 0, "abc")
	b.setTime(time.Millisecond).segment(">", "A", 6, 0, "ghi")
	b.segment("<", "A", 0, 9, "reply")
	b.Tick(startTime + int64(9*time.Millisecond))
	b.wantParserLog(">abc")
	b.Tick(startTime + int64(40*time.Millisecond))
	b.wantParserLog(">abc >gap3 >ghi <reply")
	if s := b.closeOneSession(); s.Session.ClientMissingBytes != 3 || !s.Partial || s.Source.Bytes != 6 {
		t.Errorf("session %v", s)
	}
}

// TestGapNobodyAcknowledged: a gap that is not acknowledged is filled by the retransmission.
func TestGapNobodyAcknowledged(t *testing.T) {
	b := newTableTest(t, Default(), Deps{}).handshake()
	b.segment(">", "A", 3, 0, "def")
	b.segment("<", "A", 0, 0, "")
	b.setTime(300*time.Millisecond).segment(">", "A", 0, 0, "abc")
	b.wantParserLog(">abc >def")
	if s := b.closeOneSession().Session; s.ClientRetransmissions != 1 || s.OutOfOrder != 0 {
		t.Errorf("session %v", s)
	}
}

// TestGapTimeout: without an acknowledgement a gap is given up after GapTimeout.
func TestGapTimeout(t *testing.T) {
	b := newTableTest(t, Default(), Deps{}).handshake()
	b.segment(">", "A", 0, 0, "abc")
	b.segment(">", "A", 6, 0, "ghi")
	b.Tick(startTime + int64(time.Second))
	b.wantParserLog(">abc")
	b.Tick(startTime + int64(3*time.Second))
	b.wantParserLog(">abc >gap3 >ghi")
}

// TestFarSegmentIsNotWaitedFor: a segment beyond the window is never acknowledged. A gap up to it would lose
// the bytes that are really sent.
func TestFarSegmentIsNotWaitedFor(t *testing.T) {
	b := newTableTest(t, Default(), Deps{}).handshake()
	b.segment("<", "A", 0, 0, "")
	b.segment(">", "A", 10_000_000, 0, "evil")
	b.Tick(startTime + int64(3*time.Second))
	b.segment(">", "A", 0, 0, "GET")
	b.segment("<", "A", 0, 3, "OK")
	b.wantParserLog(">GET <OK")
	b.closeOneSession()
}

// TestFarAcknowledgementIsNotBelieved: an acknowledgement of bytes that were never sent gives up no gap.
func TestFarAcknowledgementIsNotBelieved(t *testing.T) {
	b := newTableTest(t, Default(), Deps{}).handshake()
	b.segment(">", "A", 0, 50_000_000, "GET")
	b.Tick(startTime + int64(3*time.Second))
	b.segment("<", "A", 0, 3, "OK")
	b.wantParserLog(">GET <OK")
	b.closeOneSession()
}

// TestSequenceWrap: the sequence numbers wrap in the middle of a stream that is out of order.
func TestSequenceWrap(t *testing.T) {
	for isn := uint32(1<<32 - 12); isn != 4; isn++ {
		b := newTableTest(t, Default(), Deps{})
		b.isn = [2]uint32{isn, isn + 3}
		b.handshake()
		b.segment(">", "A", 4, 0, "efgh")
		b.segment(">", "A", 0, 0, "abcd")
		b.segment("<", "A", 4, 8, "5678")
		b.segment("<", "A", 0, 8, "1234")
		b.segment("<", "A", 4, 8, "5678")
		b.closeOrderly(8, 8)
		b.closeOneSession()
		b.wantParserLog(">abcd >efgh <1234 <5678 >end <end close")
	}
}

// TestOverlap: of overlapping segments the first or the last bytes count, as configured, and the difference
// is counted.
func TestOverlap(t *testing.T) {
	check := func(policy, want string) {
		t.Helper()
		b := newTableTest(t, configWith(func(c *Config) { c.OverlapPolicy = policy }), Deps{}).handshake()
		b.segment(">", "A", 4, 0, "EFGH")
		b.segment(">", "A", 2, 0, "cdefghij")
		b.segment(">", "A", 0, 0, "ab")
		b.wantParserLog(want)
		if n := b.closeOneSession().Session.OverlapConflicts; n != 1 {
			t.Errorf("%d conflicts, want 1", n)
		}
	}
	check("first", ">ab >cd >EFGH >ij")
	check("last", ">ab >cd >efgh >ij")
}

// TestConflictWithDeliveredBytes: retransmitted bytes are compared with those that were delivered.
func TestConflictWithDeliveredBytes(t *testing.T) {
	check := func(off int, again string, want uint32) {
		t.Helper()
		b := newTableTest(t, Default(), Deps{}).handshake()
		b.segment(">", "A", 0, 0, "GET /index.html")
		b.setTime(300*time.Millisecond).segment(">", "A", off, 0, again)
		if n := b.closeOneSession().Session.OverlapConflicts; n != want {
			t.Errorf("%q at %d: %d conflicts, want %d", again, off, n, want)
		}
		b.wantParserLog(">GET /index.html close")
	}
	check(0, "GET /index.html", 0)
	check(0, "GET /other.html", 1)
	check(4, "/index", 0)
	check(4, "/evil.", 1)
	check(14, "x", 0) // a keep-alive
}

// TestConflictInTheFrontOfNewBytes: a segment has delivered bytes in front, which are compared, and new ones
// behind.
func TestConflictInTheFrontOfNewBytes(t *testing.T) {
	b := newTableTest(t, Default(), Deps{}).handshake()
	b.segment(">", "A", 0, 0, "abcd")
	b.segment(">", "A", 2, 0, "XYef")
	b.wantParserLog(">abcd >ef")
	if s := b.closeOneSession().Session; s.OverlapConflicts != 1 || s.ClientRetransmissions != 1 {
		t.Errorf("session %v", s)
	}
}

// TestResets: a RST outside of the window does not end the session (RFC 5961, section 3).
func TestResets(t *testing.T) {
	check := func(way string, off int, want string) {
		t.Helper()
		b := newTableTest(t, Default(), Deps{}).handshake()
		b.segment(">", "A", 0, 0, "abc")
		b.segment("<", "A", 0, 3, "d")
		b.segment(">", "A", 3, 1, "")
		b.segment(way, "RA", off, 0, "")
		if s := b.closeOneSession().Session.State; s != want {
			t.Errorf("%s reset at %d: %s, want %s", way, off, s, want)
		}
	}
	check(">", 3, stateResetClient)
	check("<", 1, stateResetServer)
	check("<", 100_000, stateShutdown)
	check(">", -5000, stateShutdown)
}

// TestResetThatWasNotAccepted: the sender of a RST sends more data, so the connection is not over.
func TestResetThatWasNotAccepted(t *testing.T) {
	b := newTableTest(t, Default(), Deps{}).handshake()
	b.segment(">", "A", 0, 0, "abc")
	b.segment(">", "R", 3, 0, "")
	b.segment(">", "A", 3, 0, "def")
	b.setTime(2*time.Second).segment("<", "A", 0, 6, "ok")
	b.wantParserLog(">abc >def <ok")
	if s := b.closeOneSession().Session.State; s != stateShutdown {
		t.Errorf("state %s", s)
	}
}

// TestRefusedAndUnanswered: a SYN that is answered by a RST, and one that is not answered.
func TestRefusedAndUnanswered(t *testing.T) {
	b := newTableTest(t, Default(), Deps{})
	b.segment(">", "S", 0, 0, "")
	b.segment("<", "RA", -1, 0, "")
	b.Tick(startTime + int64(5*time.Second))
	if s := b.closeOneSession().Session; s.State != stateRefused || s.History != "Sr" {
		t.Errorf("session %v", s)
	}
	b = newTableTest(t, Default(), Deps{})
	b.segment(">", "S", 0, 0, "")
	b.setTime(time.Second).segment(">", "S", 0, 0, "")
	b.Tick(startTime + int64(60*time.Second))
	if s := b.closeOneSession().Session; s.State != stateNoAnswer || s.SynRetransmissions != 1 {
		t.Errorf("session %v", s)
	}
}

// TestPortsUsedAgain: a SYN with another number begins another session after the end of one; on an open
// connection only if the peer answers it.
func TestPortsUsedAgain(t *testing.T) {
	b := newTableTest(t, Default(), Deps{}).handshake()
	b.segment(">", "A", 0, 0, "abc")
	b.closeOrderly(3, 0)
	b.isn = [2]uint32{77777, 88888}
	b.handshake()
	b.segment(">", "A", 0, 0, "xyz")
	if n := len(b.closeSessions()); n != 2 {
		t.Errorf("%d sessions, want 2", n)
	}
	b.wantParserLog(">abc >end <end close >xyz close")

	b = newTableTest(t, Default(), Deps{}).handshake()
	b.segment(">", "A", 0, 0, "abc")
	b.isn[0] = 1_000_000 // a forged SYN
	b.segment(">", "S", 0, 0, "")
	b.isn[0] = 1000
	b.segment(">", "A", 3, 0, "def")
	b.closeOneSession()
	b.wantParserLog(">abc >def close")

	b = newTableTest(t, Default(), Deps{}).handshake()
	b.segment(">", "A", 0, 0, "abc")
	b.isn = [2]uint32{1_000_000, 7}
	b.handshake()
	b.segment(">", "A", 0, 0, "def")
	if n := len(b.closeSessions()); n != 2 {
		t.Errorf("%d sessions, want 2", n)
	}
	b.wantParserLog(">abc close >def close")
}

// TestDataWithSYN: the data of a SYN (TCP Fast Open) is delivered once, also if the server rejects it and it
// is sent again.
func TestDataWithSYN(t *testing.T) {
	b := newTableTest(t, Default(), Deps{})
	b.segment(">", "S", 0, 0, "GET")
	b.segment("<", "SA", 0, 0, "")
	b.segment(">", "A", 0, 0, "GET")
	b.segment("<", "A", 0, 3, "OK")
	b.closeOneSession()
	b.wantParserLog(">GET <OK close")
}

// TestHalfClose: the client ends, with data in its FIN, and the server goes on.
func TestHalfClose(t *testing.T) {
	b := newTableTest(t, Default(), Deps{}).handshake()
	b.segment(">", "FA", 0, 0, "last")
	b.segment("<", "A", 0, 5, "more")
	b.segment("<", "FA", 4, 5, "")
	b.wantParserLog(">last >end <more <end")
	if s := b.closeOneSession().Session.State; s != stateFIN {
		t.Errorf("state %s", s)
	}
}

// TestFINBeforeItsData: a FIN that was captured early is delivered behind the data before it.
func TestFINBeforeItsData(t *testing.T) {
	b := newTableTest(t, Default(), Deps{}).handshake()
	b.segment(">", "FA", 3, 0, "")
	b.wantParserLog("")
	b.segment(">", "A", 0, 0, "abc")
	b.wantParserLog(">abc >end")
}

// TestLostFINIsNotAGap: a FIN that was not captured is acknowledged like a byte.
func TestLostFINIsNotAGap(t *testing.T) {
	b := newTableTest(t, Default(), Deps{}).handshake()
	b.segment(">", "A", 0, 0, "abc")
	b.segment("<", "FA", 0, 4, "")
	b.segment(">", "A", 4, 1, "")
	b.Tick(startTime + int64(100*time.Millisecond))
	s := b.closeOneSession().Session
	if s.ClientMissingBytes != 0 || s.State != stateFIN {
		t.Errorf("session %v", s)
	}
	b.wantParserLog(">abc >end <end close")
}

// TestMidStream: the direction of a session without a handshake is a guess, and its event has the confidence.
func TestMidStream(t *testing.T) {
	b := newTableTest(t, Default(), Deps{})
	b.segment("<", "A", 500, 300, "reply")
	b.segment(">", "A", 300, 505, "next")
	e := b.closeOneSession()
	b.wantParserLog("<reply >next close")
	if s := e.Session; s.DirectionConfidence >= 95 || e.Destination.Port != 80 || !e.Partial {
		t.Errorf("session %v", e)
	}
}

// TestZeroWindowsAndRetransmissions: both are counted.
func TestZeroWindowsAndRetransmissions(t *testing.T) {
	b := newTableTest(t, Default(), Deps{}).handshake()
	b.segment(">", "A", 0, 0, "abc")
	b.segment("<", "AZ", 0, 3, "")
	b.segment("<", "A", 0, 3, "")
	b.segment("<", "AZ", 0, 3, "")
	b.setTime(time.Second).segment(">", "A", 0, 0, "abc")
	if s := b.closeOneSession().Session; s.ZeroWindows != 2 || s.ClientRetransmissions != 1 ||
		s.History != "ShADaWT" && s.History != "ShADwaT" {
		t.Errorf("session %v", s)
	}
}

// TestIdleSessionEnds: an idle session ends by packet time, and later packets begin another.
func TestIdleSessionEnds(t *testing.T) {
	b := newTableTest(t, configWith(func(c *Config) { c.TCPIdleTimeout = 10 * time.Second }), Deps{}).handshake()
	b.segment(">", "A", 0, 0, "abc")
	b.setTime(11*time.Second).segment(">", "A", 3, 0, "def")
	s := b.closeSessions()
	if len(s) != 2 || s[0].Session.State != stateTimeout {
		t.Errorf("sessions %v", s)
	}
	b.wantParserLog(">abc close >def close")
}

// TestEndThatIsSentAgainIsNotANewSession: a FIN that is not acknowledged is sent again, at intervals that
// double.
func TestEndThatIsSentAgainIsNotANewSession(t *testing.T) {
	b := newTableTest(t, Default(), Deps{}).handshake()
	b.segment(">", "A", 0, 0, "abc")
	b.segment("<", "FA", 0, 3, "")
	for _, s := range []int{0, 1, 2, 4, 8, 16, 32, 64, 128} {
		b.setTime(time.Duration(s)*time.Second).segment(">", "FA", 3, 1, "")
	}
	if s := b.closeOneSession().Session.State; s != stateFIN {
		t.Errorf("state %s", s)
	}
}

// TestClockThatJumps: a packet with a time of hours ago neither ends sessions nor stops the clock.
func TestClockThatJumps(t *testing.T) {
	b := newTableTest(t, Default(), Deps{}).handshake()
	b.setTime(-5*time.Hour).segment(">", "A", 0, 0, "abc")
	b.setTime(time.Millisecond).segment("<", "A", 0, 3, "def")
	b.setTime(2*time.Second).segment(">", "A", 3, 3, "ghi")
	b.closeOneSession()
	b.wantParserLog(">abc <def >ghi close")
}

// TestOneDirectionOnly: bytes of a side whose peer was not captured are delivered at once.
func TestOneDirectionOnly(t *testing.T) {
	b := newTableTest(t, Default(), Deps{})
	b.segment("<", "SA", 0, 0, "")
	b.segment("<", "A", 0, 10, "abc")
	b.segment("<", "A", 3, 20, "def")
	b.wantParserLog("<abc <def")
	if s := b.closeOneSession(); s.Destination.Port != 80 || s.Session.DirectionConfidence != 95 {
		t.Errorf("session %v", s)
	}
}

// TestHandshakeOutOfOrder: in whatever order a handshake was captured, it begins one session that is not
// partial.
func TestHandshakeOutOfOrder(t *testing.T) {
	steps := []func(b *tableTest){
		func(b *tableTest) { b.segment(">", "S", 0, 0, "") },
		func(b *tableTest) { b.segment("<", "SA", 0, 0, "") },
		func(b *tableTest) { b.segment(">", "A", 0, 0, "") },
	}
	for _, order := range [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		b := newTableTest(t, Default(), Deps{})
		for _, i := range order {
			steps[i](b)
		}
		b.segment(">", "A", 0, 0, "abc")
		b.segment("<", "A", 0, 3, "def")
		if e := b.closeOneSession(); e.Partial || e.Session.DirectionConfidence != 100 ||
			e.Destination.Port != 80 {
			t.Errorf("%v: %v", order, e)
		}
		b.wantParserLog(">abc <def close")
	}
}

// TestMuchWasNotCaptured: behind a gap that is larger than any window the stream goes on.
func TestMuchWasNotCaptured(t *testing.T) {
	b := newTableTest(t, Default(), Deps{}).handshake()
	b.segment(">", "A", 0, 0, "abc")
	b.segment("<", "A", 0, 50_000_003, "") // of bytes that were not captured
	b.segment(">", "A", 50_000_003, 0, "def")
	b.segment("<", "A", 0, 50_000_006, "ghi")
	b.Tick(startTime + int64(time.Second))
	b.closeOneSession()
	b.wantParserLog(">abc >gap50000000 >def <ghi close")
}

// TestPanicCostsOnlyTheOpenSessions: the Table goes on, empty.
func TestPanicCostsOnlyTheOpenSessions(t *testing.T) {
	b := newTableTest(t, Default(), Deps{}).handshake()
	for _, f := range b.flows {
		f.stream = nil
	}
	b.segment(">", "A", 0, 0, "abc")
	if n := counterValue(b.m.panics); n != 1 {
		t.Errorf("%v panics", n)
	}
	b.isn[0]++
	b.handshake()
	b.segment(">", "A", 0, 0, "def")
	b.closeOneSession()
	b.wantParserLog(">def close")
}
