package sessions

import (
	"testing"
	"time"

	"tidegate/pipeline"
)

// TestSessionInOrder: a session without loss, and all fields of its event.
func TestSessionInOrder(t *testing.T) {
	tableTest := newTableTest(t, Default(), Deps{})
	tableTest.segment(">", "S", 0, 0, "")
	tableTest.setTime(3*time.Millisecond).segment("<", "SA", 0, 0, "")
	tableTest.setTime(5*time.Millisecond).segment(">", "A", 0, 0, "")
	tableTest.setTime(6*time.Millisecond).segment(">", "A", 0, 0, "GET a")
	tableTest.setTime(16*time.Millisecond).segment("<", "A", 0, 5, "200 b")
	tableTest.closeOrderly(5, 5)
	event := tableTest.closeOneSession()
	tableTest.wantParserLog(">GET a <200 b >end <end close")
	session := event.Session
	if session.State != stateFIN || session.History != "ShADdFf" || session.RttServer != 3e6 || session.RttClient != 2e6 ||
		session.ResponseTime != 10e6 || session.DirectionConfidence != 100 {
		t.Errorf("session %v", session)
	}
	if event.Source.Bytes != 5 || event.Destination.Bytes != 5 || event.Source.Packets != 5 ||
		event.Destination.Packets != 3 || event.Source.Port != 40000 || event.Destination.Port != 80 {
		t.Errorf("endpoints %v %v", event.Source, event.Destination)
	}
	if pipeline.CommunityIDText(event.CommunityId) == "" || event.Timestamp != startTime || event.Partial ||
		event.Outcome != pipeline.Outcome_SUCCESS || event.Interfaces[0] != "eth0" {
		t.Errorf("event %v", event)
	}
}

// TestReorderedBytesComeInOrder: reordered segments are delivered in order, without a gap.
func TestReorderedBytesComeInOrder(t *testing.T) {
	tableTest := newTableTest(t, Default(), Deps{}).handshake()
	tableTest.segment(">", "A", 3, 0, "def")
	tableTest.segment(">", "A", 6, 0, "ghi")
	tableTest.segment("<", "A", 0, 9, "") // the capture is late, not the network
	tableTest.segment(">", "A", 0, 0, "abc")
	tableTest.closeOrderly(9, 0)
	session := tableTest.closeOneSession().Session
	tableTest.wantParserLog(">abc >def >ghi >end <end close")
	if session.OutOfOrder != 1 || session.ClientMissingBytes != 0 || session.ClientRetransmissions != 0 {
		t.Errorf("session %v", session)
	}
}

// TestReplyWaitsForItsRequest: a reply that was captured before the end of its request is delivered behind
// it.
func TestReplyWaitsForItsRequest(t *testing.T) {
	tableTest := newTableTest(t, Default(), Deps{}).handshake()
	tableTest.segment(">", "A", 0, 0, "ab")
	tableTest.segment("<", "A", 0, 4, "reply")
	tableTest.wantParserLog(">ab")
	tableTest.segment(">", "A", 2, 0, "cd")
	tableTest.wantParserLog(">ab >cd <reply")
	tableTest.closeOneSession()
}

// TestGapWaitsForTheGrace: an acknowledged gap is given up after the grace, not before.
func TestGapWaitsForTheGrace(t *testing.T) {
	tableTest := newTableTest(t, Default(), Deps{}).handshake()
	tableTest.segment(">", "A", 0, 0, "abc")
	tableTest.setTime(time.Millisecond).segment(">", "A", 6, 0, "ghi")
	tableTest.segment("<", "A", 0, 9, "reply")
	tableTest.Tick(startTime + int64(9*time.Millisecond))
	tableTest.wantParserLog(">abc")
	tableTest.Tick(startTime + int64(40*time.Millisecond))
	tableTest.wantParserLog(">abc >gap3 >ghi <reply")
	if s := tableTest.closeOneSession(); s.Session.ClientMissingBytes != 3 || !s.Partial || s.Source.Bytes != 6 {
		t.Errorf("session %v", s)
	}
}

// TestGapNobodyAcknowledged: a gap that is not acknowledged is filled by the retransmission.
func TestGapNobodyAcknowledged(t *testing.T) {
	tableTest := newTableTest(t, Default(), Deps{}).handshake()
	tableTest.segment(">", "A", 3, 0, "def")
	tableTest.segment("<", "A", 0, 0, "")
	tableTest.setTime(300*time.Millisecond).segment(">", "A", 0, 0, "abc")
	tableTest.wantParserLog(">abc >def")
	if s := tableTest.closeOneSession().Session; s.ClientRetransmissions != 1 || s.OutOfOrder != 0 {
		t.Errorf("session %v", s)
	}
}

// TestGapTimeout: without an acknowledgement a gap is given up after GapTimeout.
func TestGapTimeout(t *testing.T) {
	tableTest := newTableTest(t, Default(), Deps{}).handshake()
	tableTest.segment(">", "A", 0, 0, "abc")
	tableTest.segment(">", "A", 6, 0, "ghi")
	tableTest.Tick(startTime + int64(time.Second))
	tableTest.wantParserLog(">abc")
	tableTest.Tick(startTime + int64(3*time.Second))
	tableTest.wantParserLog(">abc >gap3 >ghi")
}

// TestFarSegmentIsNotWaitedFor: a segment beyond the window is never acknowledged. A gap up to it would lose
// the bytes that are really sent.
func TestFarSegmentIsNotWaitedFor(t *testing.T) {
	tableTest := newTableTest(t, Default(), Deps{}).handshake()
	tableTest.segment("<", "A", 0, 0, "")
	tableTest.segment(">", "A", 10_000_000, 0, "evil")
	tableTest.Tick(startTime + int64(3*time.Second))
	tableTest.segment(">", "A", 0, 0, "GET")
	tableTest.segment("<", "A", 0, 3, "OK")
	tableTest.wantParserLog(">GET <OK")
	tableTest.closeOneSession()
}

// TestFarAcknowledgementIsNotBelieved: an acknowledgement of bytes that were never sent gives up no gap.
func TestFarAcknowledgementIsNotBelieved(t *testing.T) {
	tableTest := newTableTest(t, Default(), Deps{}).handshake()
	tableTest.segment(">", "A", 0, 50_000_000, "GET")
	tableTest.Tick(startTime + int64(3*time.Second))
	tableTest.segment("<", "A", 0, 3, "OK")
	tableTest.wantParserLog(">GET <OK")
	tableTest.closeOneSession()
}

// TestSequenceWrap: the sequence numbers wrap in the middle of a stream that is out of order.
func TestSequenceWrap(t *testing.T) {
	for isn := uint32(1<<32 - 12); isn != 4; isn++ {
		tableTest := newTableTest(t, Default(), Deps{})
		tableTest.isn = [2]uint32{isn, isn + 3}
		tableTest.handshake()
		tableTest.segment(">", "A", 4, 0, "efgh")
		tableTest.segment(">", "A", 0, 0, "abcd")
		tableTest.segment("<", "A", 4, 8, "5678")
		tableTest.segment("<", "A", 0, 8, "1234")
		tableTest.segment("<", "A", 4, 8, "5678")
		tableTest.closeOrderly(8, 8)
		tableTest.closeOneSession()
		tableTest.wantParserLog(">abcd >efgh <1234 <5678 >end <end close")
	}
}

// TestOverlap: where segments overlap, the first or the last bytes count, as configured, and a difference is
// counted as a conflict.
func TestOverlap(t *testing.T) {
	check := func(policy, want string) {
		t.Helper()
		tableTest := newTableTest(t, configWith(func(c *Config) { c.OverlapPolicy = policy }), Deps{}).handshake()
		tableTest.segment(">", "A", 4, 0, "EFGH")
		tableTest.segment(">", "A", 2, 0, "cdefghij")
		tableTest.segment(">", "A", 0, 0, "ab")
		tableTest.wantParserLog(want)
		if n := tableTest.closeOneSession().Session.OverlapConflicts; n != 1 {
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
		tableTest := newTableTest(t, Default(), Deps{}).handshake()
		tableTest.segment(">", "A", 0, 0, "GET /index.html")
		tableTest.setTime(300*time.Millisecond).segment(">", "A", off, 0, again)
		if n := tableTest.closeOneSession().Session.OverlapConflicts; n != want {
			t.Errorf("%q at %d: %d conflicts, want %d", again, off, n, want)
		}
		tableTest.wantParserLog(">GET /index.html close")
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
	tableTest := newTableTest(t, Default(), Deps{}).handshake()
	tableTest.segment(">", "A", 0, 0, "abcd")
	tableTest.segment(">", "A", 2, 0, "XYef")
	tableTest.wantParserLog(">abcd >ef")
	if s := tableTest.closeOneSession().Session; s.OverlapConflicts != 1 || s.ClientRetransmissions != 1 {
		t.Errorf("session %v", s)
	}
}

// TestResets: a RST outside of the window does not end the session (RFC 5961, section 3).
func TestResets(t *testing.T) {
	check := func(way string, off int, want string) {
		t.Helper()
		tableTest := newTableTest(t, Default(), Deps{}).handshake()
		tableTest.segment(">", "A", 0, 0, "abc")
		tableTest.segment("<", "A", 0, 3, "d")
		tableTest.segment(">", "A", 3, 1, "")
		tableTest.segment(way, "RA", off, 0, "")
		if s := tableTest.closeOneSession().Session.State; s != want {
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
	tableTest := newTableTest(t, Default(), Deps{}).handshake()
	tableTest.segment(">", "A", 0, 0, "abc")
	tableTest.segment(">", "R", 3, 0, "")
	tableTest.segment(">", "A", 3, 0, "def")
	tableTest.setTime(2*time.Second).segment("<", "A", 0, 6, "ok")
	tableTest.wantParserLog(">abc >def <ok")
	if s := tableTest.closeOneSession().Session.State; s != stateShutdown {
		t.Errorf("state %s", s)
	}
}

// TestRefusedAndUnanswered: a SYN that is answered by a RST, and one that is not answered.
func TestRefusedAndUnanswered(t *testing.T) {
	tableTest := newTableTest(t, Default(), Deps{})
	tableTest.segment(">", "S", 0, 0, "")
	tableTest.segment("<", "RA", -1, 0, "")
	tableTest.Tick(startTime + int64(5*time.Second))
	if s := tableTest.closeOneSession().Session; s.State != stateRefused || s.History != "Sr" {
		t.Errorf("session %v", s)
	}
	tableTest = newTableTest(t, Default(), Deps{})
	tableTest.segment(">", "S", 0, 0, "")
	tableTest.setTime(time.Second).segment(">", "S", 0, 0, "")
	tableTest.Tick(startTime + int64(60*time.Second))
	if s := tableTest.closeOneSession().Session; s.State != stateNoAnswer || s.SynRetransmissions != 1 {
		t.Errorf("session %v", s)
	}
}

// TestPortsUsedAgain: a SYN with a new number begins another session if the connection has ended. On an open
// connection it does so only if the peer answers it.
func TestPortsUsedAgain(t *testing.T) {
	tableTest := newTableTest(t, Default(), Deps{}).handshake()
	tableTest.segment(">", "A", 0, 0, "abc")
	tableTest.closeOrderly(3, 0)
	tableTest.isn = [2]uint32{77777, 88888}
	tableTest.handshake()
	tableTest.segment(">", "A", 0, 0, "xyz")
	if n := len(tableTest.closeSessions()); n != 2 {
		t.Errorf("%d sessions, want 2", n)
	}
	tableTest.wantParserLog(">abc >end <end close >xyz close")

	tableTest = newTableTest(t, Default(), Deps{}).handshake()
	tableTest.segment(">", "A", 0, 0, "abc")
	tableTest.isn[0] = 1_000_000 // a forged SYN
	tableTest.segment(">", "S", 0, 0, "")
	tableTest.isn[0] = 1000
	tableTest.segment(">", "A", 3, 0, "def")
	tableTest.closeOneSession()
	tableTest.wantParserLog(">abc >def close")

	tableTest = newTableTest(t, Default(), Deps{}).handshake()
	tableTest.segment(">", "A", 0, 0, "abc")
	tableTest.isn = [2]uint32{1_000_000, 7}
	tableTest.handshake()
	tableTest.segment(">", "A", 0, 0, "def")
	if n := len(tableTest.closeSessions()); n != 2 {
		t.Errorf("%d sessions, want 2", n)
	}
	tableTest.wantParserLog(">abc close >def close")
}

// TestDataWithSYN: the data of a SYN (TCP Fast Open) is delivered once, also if the server rejects it and it
// is sent again.
func TestDataWithSYN(t *testing.T) {
	tableTest := newTableTest(t, Default(), Deps{})
	tableTest.segment(">", "S", 0, 0, "GET")
	tableTest.segment("<", "SA", 0, 0, "")
	tableTest.segment(">", "A", 0, 0, "GET")
	tableTest.segment("<", "A", 0, 3, "OK")
	tableTest.closeOneSession()
	tableTest.wantParserLog(">GET <OK close")
}

// TestHalfClose: the client sends data and its FIN in one segment, and the server continues to send.
func TestHalfClose(t *testing.T) {
	tableTest := newTableTest(t, Default(), Deps{}).handshake()
	tableTest.segment(">", "FA", 0, 0, "last")
	tableTest.segment("<", "A", 0, 5, "more")
	tableTest.segment("<", "FA", 4, 5, "")
	tableTest.wantParserLog(">last >end <more <end")
	if s := tableTest.closeOneSession().Session.State; s != stateFIN {
		t.Errorf("state %s", s)
	}
}

// TestFINBeforeItsData: a FIN that was captured early is delivered behind the data before it.
func TestFINBeforeItsData(t *testing.T) {
	tableTest := newTableTest(t, Default(), Deps{}).handshake()
	tableTest.segment(">", "FA", 3, 0, "")
	tableTest.wantParserLog("")
	tableTest.segment(">", "A", 0, 0, "abc")
	tableTest.wantParserLog(">abc >end")
}

// TestLostFINIsNotAGap: a FIN that was not captured is acknowledged like a byte.
func TestLostFINIsNotAGap(t *testing.T) {
	tableTest := newTableTest(t, Default(), Deps{}).handshake()
	tableTest.segment(">", "A", 0, 0, "abc")
	tableTest.segment("<", "FA", 0, 4, "")
	tableTest.segment(">", "A", 4, 1, "")
	tableTest.Tick(startTime + int64(100*time.Millisecond))
	session := tableTest.closeOneSession().Session
	if session.ClientMissingBytes != 0 || session.State != stateFIN {
		t.Errorf("session %v", session)
	}
	tableTest.wantParserLog(">abc >end <end close")
}

// TestMidStream: the direction of a session without a handshake is a guess, and its event has the confidence.
func TestMidStream(t *testing.T) {
	tableTest := newTableTest(t, Default(), Deps{})
	tableTest.segment("<", "A", 500, 300, "reply")
	tableTest.segment(">", "A", 300, 505, "next")
	event := tableTest.closeOneSession()
	tableTest.wantParserLog("<reply >next close")
	if s := event.Session; s.DirectionConfidence >= 95 || event.Destination.Port != 80 || !event.Partial {
		t.Errorf("session %v", event)
	}
}

// TestZeroWindowsAndRetransmissions: both are counted.
func TestZeroWindowsAndRetransmissions(t *testing.T) {
	tableTest := newTableTest(t, Default(), Deps{}).handshake()
	tableTest.segment(">", "A", 0, 0, "abc")
	tableTest.segment("<", "AZ", 0, 3, "")
	tableTest.segment("<", "A", 0, 3, "")
	tableTest.segment("<", "AZ", 0, 3, "")
	tableTest.setTime(time.Second).segment(">", "A", 0, 0, "abc")
	if s := tableTest.closeOneSession().Session; s.ZeroWindows != 2 || s.ClientRetransmissions != 1 ||
		s.History != "ShADaWT" && s.History != "ShADwaT" {
		t.Errorf("session %v", s)
	}
}

// TestIdleSessionEnds: an idle session ends by packet time, and later packets begin another.
func TestIdleSessionEnds(t *testing.T) {
	cfg := configWith(func(c *Config) { c.TCPIdleTimeout = 10 * time.Second })
	tableTest := newTableTest(t, cfg, Deps{}).handshake()
	tableTest.segment(">", "A", 0, 0, "abc")
	tableTest.setTime(11*time.Second).segment(">", "A", 3, 0, "def")
	ended := tableTest.closeSessions()
	if len(ended) != 2 || ended[0].Session.State != stateTimeout {
		t.Errorf("sessions %v", ended)
	}
	tableTest.wantParserLog(">abc close >def close")
}

// TestEndThatIsSentAgainIsNotANewSession: a FIN that is not acknowledged is sent again, at intervals that
// double.
func TestEndThatIsSentAgainIsNotANewSession(t *testing.T) {
	tableTest := newTableTest(t, Default(), Deps{}).handshake()
	tableTest.segment(">", "A", 0, 0, "abc")
	tableTest.segment("<", "FA", 0, 3, "")
	for _, s := range []int{0, 1, 2, 4, 8, 16, 32, 64, 128} {
		tableTest.setTime(time.Duration(s)*time.Second).segment(">", "FA", 3, 1, "")
	}
	if s := tableTest.closeOneSession().Session.State; s != stateFIN {
		t.Errorf("state %s", s)
	}
}

// TestClockThatJumps: a packet with a time of hours ago neither ends sessions nor stops the clock.
func TestClockThatJumps(t *testing.T) {
	tableTest := newTableTest(t, Default(), Deps{}).handshake()
	tableTest.setTime(-5*time.Hour).segment(">", "A", 0, 0, "abc")
	tableTest.setTime(time.Millisecond).segment("<", "A", 0, 3, "def")
	tableTest.setTime(2*time.Second).segment(">", "A", 3, 3, "ghi")
	tableTest.closeOneSession()
	tableTest.wantParserLog(">abc <def >ghi close")
}

// TestOneDirectionOnly: bytes of a side whose peer was not captured are delivered at once.
func TestOneDirectionOnly(t *testing.T) {
	tableTest := newTableTest(t, Default(), Deps{})
	tableTest.segment("<", "SA", 0, 0, "")
	tableTest.segment("<", "A", 0, 10, "abc")
	tableTest.segment("<", "A", 3, 20, "def")
	tableTest.wantParserLog("<abc <def")
	if s := tableTest.closeOneSession(); s.Destination.Port != 80 || s.Session.DirectionConfidence != 95 {
		t.Errorf("session %v", s)
	}
}

// TestHandshakeOutOfOrder: in whatever order a handshake was captured, it begins one session that is not
// partial.
func TestHandshakeOutOfOrder(t *testing.T) {
	steps := []func(test *tableTest){
		func(test *tableTest) { test.segment(">", "S", 0, 0, "") },
		func(test *tableTest) { test.segment("<", "SA", 0, 0, "") },
		func(test *tableTest) { test.segment(">", "A", 0, 0, "") },
	}
	for _, order := range [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		test := newTableTest(t, Default(), Deps{})
		for _, i := range order {
			steps[i](test)
		}
		test.segment(">", "A", 0, 0, "abc")
		test.segment("<", "A", 0, 3, "def")
		if e := test.closeOneSession(); e.Partial || e.Session.DirectionConfidence != 100 ||
			e.Destination.Port != 80 {
			t.Errorf("%v: %v", order, e)
		}
		test.wantParserLog(">abc <def close")
	}
}

// TestMuchWasNotCaptured: the stream continues behind a gap that is larger than any window.
func TestMuchWasNotCaptured(t *testing.T) {
	tableTest := newTableTest(t, Default(), Deps{}).handshake()
	tableTest.segment(">", "A", 0, 0, "abc")
	tableTest.segment("<", "A", 0, 50_000_003, "") // of bytes that were not captured
	tableTest.segment(">", "A", 50_000_003, 0, "def")
	tableTest.segment("<", "A", 0, 50_000_006, "ghi")
	tableTest.Tick(startTime + int64(time.Second))
	tableTest.closeOneSession()
	tableTest.wantParserLog(">abc >gap50000000 >def <ghi close")
}

// TestPanicCostsOnlyTheOpenSessions: the Table goes on, empty.
func TestPanicCostsOnlyTheOpenSessions(t *testing.T) {
	tableTest := newTableTest(t, Default(), Deps{}).handshake()
	for _, f := range tableTest.flows {
		f.stream = nil
	}
	tableTest.segment(">", "A", 0, 0, "abc")
	if n := counterValue(tableTest.metrics.panics); n != 1 {
		t.Errorf("%v panics", n)
	}
	tableTest.isn[0]++
	tableTest.handshake()
	tableTest.segment(">", "A", 0, 0, "def")
	tableTest.closeOneSession()
	tableTest.wantParserLog(">def close")
}
