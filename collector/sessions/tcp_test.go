package sessions

import (
	"testing"
	"time"

	"github.com/google/gopacket/layers"

	"tidegate/collector/reassembly"
	"tidegate/pipeline"
)

// TestSessionInOrder: a session without loss, and all fields of its event.
func TestSessionInOrder(t *testing.T) {
	test := newTableTest(t, Default(), Deps{})
	test.segment(">", "S", 0, 0, "")
	test.setTime(3*time.Millisecond).segment("<", "SA", 0, 0, "")
	test.setTime(5*time.Millisecond).segment(">", "A", 0, 0, "")
	test.setTime(6*time.Millisecond).segment(">", "A", 0, 0, "GET a")
	test.setTime(16*time.Millisecond).segment("<", "A", 0, 5, "200 b")
	test.closeOrderly(5, 5)
	event := test.closeOneSession()
	test.wantParserLog(">GET a <200 b >end <end close")
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
	test := newTableTest(t, Default(), Deps{}).handshake()
	test.segment(">", "A", 3, 0, "def")
	test.segment(">", "A", 6, 0, "ghi")
	test.segment("<", "A", 0, 9, "") // the capture is late, not the network
	test.segment(">", "A", 0, 0, "abc")
	test.closeOrderly(9, 0)
	session := test.closeOneSession().Session
	test.wantParserLog(">abc >def >ghi >end <end close")
	if session.OutOfOrder != 1 || session.ClientMissingBytes != 0 || session.ClientRetransmissions != 0 {
		t.Errorf("session %v", session)
	}
}

// TestReplyWaitsForItsRequest: a reply that was captured before the end of its request is delivered behind
// it.
func TestReplyWaitsForItsRequest(t *testing.T) {
	test := newTableTest(t, Default(), Deps{}).handshake()
	test.segment(">", "A", 0, 0, "ab")
	test.segment("<", "A", 0, 4, "reply")
	test.wantParserLog(">ab")
	test.segment(">", "A", 2, 0, "cd")
	test.wantParserLog(">ab >cd <reply")
	test.closeOneSession()
}

// TestGapWaitsForTheGrace: an acknowledged gap is given up after the grace, not before.
func TestGapWaitsForTheGrace(t *testing.T) {
	test := newTableTest(t, Default(), Deps{}).handshake()
	test.segment(">", "A", 0, 0, "abc")
	test.setTime(time.Millisecond).segment(">", "A", 6, 0, "ghi")
	test.segment("<", "A", 0, 9, "reply")
	test.Tick(startTime + int64(9*time.Millisecond))
	test.wantParserLog(">abc")
	test.Tick(startTime + int64(40*time.Millisecond))
	test.wantParserLog(">abc >gap3 >ghi <reply")
	event := test.closeOneSession()
	if event.Session.ClientMissingBytes != 3 || !event.Partial || event.Source.Bytes != 6 {
		t.Errorf("session %v", event)
	}
}

// TestUnacknowledgedGapWaitsForTheRetransmission: a gap that is not acknowledged is filled by the
// retransmission.
func TestUnacknowledgedGapWaitsForTheRetransmission(t *testing.T) {
	test := newTableTest(t, Default(), Deps{}).handshake()
	test.segment(">", "A", 3, 0, "def")
	test.segment("<", "A", 0, 0, "")
	test.setTime(300*time.Millisecond).segment(">", "A", 0, 0, "abc")
	test.wantParserLog(">abc >def")
	if session := test.closeOneSession().Session; session.ClientRetransmissions != 1 || session.OutOfOrder != 0 {
		t.Errorf("session %v", session)
	}
}

// TestGapTimeout: without an acknowledgement a gap is given up after GapTimeout.
func TestGapTimeout(t *testing.T) {
	test := newTableTest(t, Default(), Deps{}).handshake()
	test.segment(">", "A", 0, 0, "abc")
	test.segment(">", "A", 6, 0, "ghi")
	test.Tick(startTime + int64(time.Second))
	test.wantParserLog(">abc")
	test.Tick(startTime + int64(3*time.Second))
	test.wantParserLog(">abc >gap3 >ghi")
}

// TestFarSegmentIsNotWaitedFor: a segment beyond the window is never acknowledged. A gap up to it would lose
// the bytes that are really sent.
func TestFarSegmentIsNotWaitedFor(t *testing.T) {
	test := newTableTest(t, Default(), Deps{}).handshake()
	test.segment("<", "A", 0, 0, "")
	test.segment(">", "A", 10_000_000, 0, "evil")
	test.Tick(startTime + int64(3*time.Second))
	test.segment(">", "A", 0, 0, "GET")
	test.segment("<", "A", 0, 3, "OK")
	test.wantParserLog(">GET <OK")
	test.closeOneSession()
}

// TestFarAcknowledgementIsIgnored: an acknowledgement of bytes that were never sent gives up no gap.
func TestFarAcknowledgementIsIgnored(t *testing.T) {
	test := newTableTest(t, Default(), Deps{}).handshake()
	test.segment(">", "A", 0, 50_000_000, "GET")
	test.Tick(startTime + int64(3*time.Second))
	test.segment("<", "A", 0, 3, "OK")
	test.wantParserLog(">GET <OK")
	test.closeOneSession()
}

// TestSequenceWrap: the sequence numbers wrap at every position of a short stream that is out of order.
func TestSequenceWrap(t *testing.T) {
	for isn := uint32(1<<32 - 12); isn != 4; isn++ {
		test := newTableTest(t, Default(), Deps{})
		test.isn = [2]uint32{isn, isn + 3}
		test.handshake()
		test.segment(">", "A", 4, 0, "efgh")
		test.segment(">", "A", 0, 0, "abcd")
		test.segment("<", "A", 4, 8, "5678")
		test.segment("<", "A", 0, 8, "1234")
		test.segment("<", "A", 4, 8, "5678")
		test.closeOrderly(8, 8)
		test.closeOneSession()
		test.wantParserLog(">abcd >efgh <1234 <5678 >end <end close")
	}
}

// TestOverlap: where segments overlap, the first or the last bytes count, as configured, and a difference is
// counted as a conflict.
func TestOverlap(t *testing.T) {
	check := func(policy, want string) {
		t.Helper()
		test := newTableTest(t, configWith(func(c *Config) { c.OverlapPolicy = policy }), Deps{}).handshake()
		test.segment(">", "A", 4, 0, "EFGH")
		test.segment(">", "A", 2, 0, "cdefghij")
		test.segment(">", "A", 0, 0, "ab")
		test.wantParserLog(want)
		if conflicts := test.closeOneSession().Session.OverlapConflicts; conflicts != 1 {
			t.Errorf("%d conflicts, want 1", conflicts)
		}
	}
	check("first", ">ab >cd >EFGH >ij")
	check("last", ">ab >cd >efgh >ij")
}

// TestConflictWithDeliveredBytes: retransmitted bytes are compared with those that were delivered. Bytes that differ
// are read, too, unless the receiver has acknowledged the first ones.
func TestConflictWithDeliveredBytes(t *testing.T) {
	check := func(off int, again string, acked int, want uint32, log string) {
		t.Helper()
		test := newTableTest(t, Default(), Deps{}).handshake()
		test.segment(">", "A", 0, 0, "GET /index.html")
		test.segment("<", "A", 0, acked, "")
		test.setTime(300*time.Millisecond).segment(">", "A", off, 0, again)
		if conflicts := test.closeOneSession().Session.OverlapConflicts; conflicts != want {
			t.Errorf("%q at %d: %d conflicts, want %d", again, off, conflicts, want)
		}
		test.wantParserLog(">GET /index.html close" + log)
	}
	check(0, "GET /index.html", 0, 0, "")
	check(0, "GET /other.html", 0, 1, " >GET /other.html close")
	check(0, "GET /other.html", 15, 1, "")
	check(0, "GET /other.html", 2, 1, " >GE >T /other.html close")
	check(4, "/index", 0, 0, "")
	check(4, "/evil.", 0, 1, " >GET  >/evil. close")
	check(4, "/evil.", 4, 1, " >GET  >/evil. close")
	check(4, "/evil.", 10, 1, "")
	check(14, "x", 0, 1, " >GET /index.htm >x close")
	check(14, "x", 15, 0, "") // a keep-alive
}

// TestConflictInTheFrontOfNewBytes: a segment repeats delivered bytes, which are compared, and continues with
// new ones.
func TestConflictInTheFrontOfNewBytes(t *testing.T) {
	test := newTableTest(t, Default(), Deps{}).handshake()
	test.segment(">", "A", 0, 0, "abcd")
	test.segment(">", "A", 2, 0, "XYef")
	test.wantParserLog(">abcd close >ab >XYef")
	if session := test.closeOneSession().Session; session.OverlapConflicts != 1 || session.ClientRetransmissions != 1 {
		t.Errorf("session %v", session)
	}
}

// TestResets: a RST outside of the window does not end the session (RFC 5961, section 3).
func TestResets(t *testing.T) {
	check := func(way string, off int, want string) {
		t.Helper()
		test := newTableTest(t, Default(), Deps{}).handshake()
		test.segment(">", "A", 0, 0, "abc")
		test.segment("<", "A", 0, 3, "d")
		test.segment(">", "A", 3, 1, "")
		test.segment(way, "RA", off, 0, "")
		if state := test.closeOneSession().Session.State; state != want {
			t.Errorf("%s reset at %d: %s, want %s", way, off, state, want)
		}
	}
	check(">", 3, stateResetClient)
	check("<", 1, stateResetServer)
	check("<", 100_000, stateShutdown)
	check(">", -5000, stateShutdown)
}

// TestResetThatWasNotAccepted: the sender of a RST sends more data, so the connection is not over.
func TestResetThatWasNotAccepted(t *testing.T) {
	test := newTableTest(t, Default(), Deps{}).handshake()
	test.segment(">", "A", 0, 0, "abc")
	test.segment(">", "R", 3, 0, "")
	test.segment(">", "A", 3, 0, "def")
	test.setTime(2*time.Second).segment("<", "A", 0, 6, "ok")
	test.wantParserLog(">abc >def <ok")
	if state := test.closeOneSession().Session.State; state != stateShutdown {
		t.Errorf("state %s", state)
	}
}

// TestRefusedAndUnanswered: a SYN that is answered by a RST has the state refused, and a SYN without an
// answer the state no answer.
func TestRefusedAndUnanswered(t *testing.T) {
	test := newTableTest(t, Default(), Deps{})
	test.segment(">", "S", 0, 0, "")
	test.segment("<", "RA", -1, 0, "")
	test.Tick(startTime + int64(5*time.Second))
	if session := test.closeOneSession().Session; session.State != stateRefused || session.History != "Sr" {
		t.Errorf("session %v", session)
	}
	test = newTableTest(t, Default(), Deps{})
	test.segment(">", "S", 0, 0, "")
	test.setTime(time.Second).segment(">", "S", 0, 0, "")
	test.Tick(startTime + int64(60*time.Second))
	if session := test.closeOneSession().Session; session.State != stateNoAnswer || session.SynRetransmissions != 1 {
		t.Errorf("session %v", session)
	}
}

// TestPortsUsedAgain: a SYN with a new number begins another session if the connection has ended. On an open
// connection it does so only if the peer answers it.
func TestPortsUsedAgain(t *testing.T) {
	test := newTableTest(t, Default(), Deps{}).handshake()
	test.segment(">", "A", 0, 0, "abc")
	test.closeOrderly(3, 0)
	test.isn = [2]uint32{77777, 88888}
	test.handshake()
	test.segment(">", "A", 0, 0, "xyz")
	if sessions := len(test.closeSessions()); sessions != 2 {
		t.Errorf("%d sessions, want 2", sessions)
	}
	test.wantParserLog(">abc >end <end close >xyz close")

	test = newTableTest(t, Default(), Deps{}).handshake()
	test.segment(">", "A", 0, 0, "abc")
	test.isn[0] = 1_000_000 // a forged SYN
	test.segment(">", "S", 0, 0, "")
	test.isn[0] = 1000
	test.segment(">", "A", 3, 0, "def")
	test.closeOneSession()
	test.wantParserLog(">abc >def close")

	test = newTableTest(t, Default(), Deps{}).handshake()
	test.segment(">", "A", 0, 0, "abc")
	test.isn = [2]uint32{1_000_000, 7}
	test.handshake()
	test.segment(">", "A", 0, 0, "def")
	sessions := test.closeSessions()
	if len(sessions) != 2 {
		t.Fatalf("%d sessions, want 2", len(sessions))
	}
	test.wantParserLog(">abc close >def close")
	// The SYN that was kept until the answer came belongs to the second session.
	if second := sessions[1]; second.Source.Packets != 3 || second.Destination.Packets != 1 || second.Session.History != "ShAD" {
		t.Errorf("the second session is %v", second)
	}

	// The answer to the SYN was not captured: the client's acknowledgement shows that there was one. A segment that
	// only has the number of the SYN does not.
	test = newTableTest(t, Default(), Deps{}).handshake()
	test.segment(">", "A", 0, 0, "abc")
	test.isn = [2]uint32{1_000_000, 7}
	test.segment(">", "S", 0, 0, "")
	test.segment(">", "", 0, 0, "") // without ACK
	if got := len(test.Table.timers); got != 1 {
		t.Errorf("%d sessions are open, want 1", got)
	}
	test.segment(">", "A", 0, 0, "def")
	if sessions := len(test.closeSessions()); sessions != 2 {
		t.Errorf("%d sessions, want 2", sessions)
	}
	test.wantParserLog(">abc close >def close")
}

// TestAnswerOnAClosedConnection: the answer to a SYN that was not captured begins another session, the repeated answer
// of the connection that has ended does not, and neither does a reset.
func TestAnswerOnAClosedConnection(t *testing.T) {
	for _, isRepeated := range []bool{false, true} {
		test := newTableTest(t, Default(), Deps{}).handshake()
		test.segment(">", "A", 0, 0, "abc")
		test.closeOrderly(3, 0)
		test.setTime(3 * time.Second) // the session has ended, and its ports are remembered
		test.Tick(startTime + int64(test.now))
		test.segment("<", "RA", 1, 4, "")
		want := 1
		if !isRepeated {
			test.isn = [2]uint32{77777, 88888}
			want = 2
		}
		test.segment("<", "SA", 0, 0, "")
		if got := len(test.closeSessions()); got != want {
			t.Errorf("repeated %t: %d sessions, want %d", isRepeated, got, want)
		}
	}
}

// TestStartIsTheNumberOfTheSYN: whether the SYN or its answer was captured first, the id of the session has the number
// of the client's SYN.
func TestStartIsTheNumberOfTheSYN(t *testing.T) {
	check := func(flags uint8, seq, ack, want uint32, wantMidStream bool) {
		t.Helper()
		var p packet
		p.Flags, p.Seq, p.Ack = flags, seq, ack
		if got, midStream := p.startSeq(); got != want || midStream != wantMidStream {
			t.Errorf("%d, mid-stream %v; want %d, %v", got, midStream, want, wantMidStream)
		}
	}
	check(reassembly.SYN, 1000, 0, 1000, false)
	check(reassembly.SYN|reassembly.ACK, 5000, 1001, 1000, false)
	check(reassembly.ACK, 1001, 5001, 1001, true)
}

// TestRoundTripTimeOfTheClient: it is the time from the server's SYN to the first acknowledgement of it, whatever the
// client sends in between or after.
func TestRoundTripTimeOfTheClient(t *testing.T) {
	test := newTableTest(t, Default(), Deps{})
	test.segment(">", "S", 0, 0, "")
	test.setTime(3*time.Millisecond).segment("<", "SA", 0, 0, "")
	test.setTime(4*time.Millisecond).segment(">", "S", 0, 0, "") // the SYN again
	test.setTime(8*time.Millisecond).segment(">", "A", 0, 0, "")
	test.setTime(20*time.Millisecond).segment(">", "A", 0, 0, "abc")
	test.setTime(30*time.Millisecond).segment("<", "A", 0, 3, "def")
	if session := test.closeOneSession().Session; session.RttServer != 3e6 || session.RttClient != 5e6 {
		t.Errorf("%v", session)
	}

	// Of a connection in mid-stream it is unknown.
	test = newTableTest(t, Default(), Deps{})
	test.segment(">", "A", 100, 100, "abc")
	test.setTime(5*time.Millisecond).segment("<", "A", 100, 103, "def")
	test.setTime(9*time.Millisecond).segment(">", "A", 103, 103, "")
	if session := test.closeOneSession().Session; session.RttServer != 0 || session.RttClient != 0 {
		t.Errorf("%v", session)
	}
}

// TestHistoryOfExchangedSides: where the roles turn out to be the other way round, the history says so, as Zeek's.
func TestHistoryOfExchangedSides(t *testing.T) {
	var letters history
	letters.addKind(kindSYN, fromClient)
	letters.addKind(kindSYN, fromServer)
	if got := letters.historyText(false); got != "Ss" {
		t.Errorf("%q", got)
	}
	if got := letters.historyText(true); got != "^sS" {
		t.Errorf("exchanged: %q", got)
	}
}

// TestDataWithSYN: the data of a SYN (TCP Fast Open) is delivered once, also if the server rejects it and it
// is sent again.
func TestDataWithSYN(t *testing.T) {
	test := newTableTest(t, Default(), Deps{})
	test.segment(">", "S", 0, 0, "GET")
	test.segment("<", "SA", 0, 0, "")
	test.segment(">", "A", 0, 0, "GET")
	test.segment("<", "A", 0, 3, "OK")
	test.closeOneSession()
	test.wantParserLog(">GET <OK close")

	// The server takes the data (RFC 7413), and says so.
	test = newTableTest(t, Default(), Deps{})
	test.segment(">", "S", 0, 0, "GET")
	test.wantParserLog("")
	test.segment("<", "SA", 0, 3, "")
	test.segment("<", "A", 0, 3, "OK")
	test.segment(">", "A", 3, 2, "next")
	test.closeOneSession()
	test.wantParserLog(">GET <OK >next close")
}

// TestDataWithSYNCountsOnlyWhenAcknowledged: a server without TCP Fast Open ignores the data of a SYN. What the
// client then sends is what counts.
func TestDataWithSYNCountsOnlyWhenAcknowledged(t *testing.T) {
	for _, answered := range []bool{true, false} {
		test := newTableTest(t, Default(), Deps{})
		test.segment(">", "S", 0, 0, "GET /innocent")
		if answered {
			test.segment("<", "SA", 0, 0, "")
			test.segment(">", "A", 0, 0, "")
		}
		test.segment(">", "A", 0, 0, "GET /attacked")
		test.segment("<", "A", 0, 13, "OK")
		session := test.closeOneSession()
		test.wantParserLog(">GET /attacked <OK close")
		if answered && session.Session.OverlapConflicts != 0 {
			t.Errorf("%d conflicts with data that the server has not accepted", session.Session.OverlapConflicts)
		}
	}
}

// TestHalfClose: the client sends data and its FIN in one segment, and the server continues to send.
func TestHalfClose(t *testing.T) {
	test := newTableTest(t, Default(), Deps{}).handshake()
	test.segment(">", "FA", 0, 0, "last")
	test.segment("<", "A", 0, 5, "more")
	test.segment("<", "FA", 4, 5, "")
	test.wantParserLog(">last >end <more <end")
	if state := test.closeOneSession().Session.State; state != stateFIN {
		t.Errorf("state %s", state)
	}
}

// TestFINBeforeItsData: a FIN that was captured early is delivered behind the data before it.
func TestFINBeforeItsData(t *testing.T) {
	test := newTableTest(t, Default(), Deps{}).handshake()
	test.segment(">", "FA", 3, 0, "")
	test.wantParserLog("")
	test.segment(">", "A", 0, 0, "abc")
	test.wantParserLog(">abc >end")
}

// TestLostFINIsNotAGap: a FIN that was not captured is acknowledged like a byte.
func TestLostFINIsNotAGap(t *testing.T) {
	test := newTableTest(t, Default(), Deps{}).handshake()
	test.segment(">", "A", 0, 0, "abc")
	test.segment("<", "FA", 0, 4, "")
	test.segment(">", "A", 4, 1, "")
	test.Tick(startTime + int64(100*time.Millisecond))
	session := test.closeOneSession().Session
	if session.ClientMissingBytes != 0 || session.State != stateFIN {
		t.Errorf("session %v", session)
	}
	test.wantParserLog(">abc >end <end close")
}

// TestMidStream: the direction of a session without a handshake is inferred, with a lower confidence, and its
// event is partial.
func TestMidStream(t *testing.T) {
	test := newTableTest(t, Default(), Deps{})
	test.segment("<", "A", 500, 300, "reply")
	test.segment(">", "A", 300, 505, "next")
	event := test.closeOneSession()
	test.wantParserLog("<reply >next close")
	if session := event.Session; session.DirectionConfidence >= 95 || event.Destination.Port != 80 || !event.Partial {
		t.Errorf("session %v", event)
	}
}

// TestZeroWindowsAndRetransmissions: both are counted.
func TestZeroWindowsAndRetransmissions(t *testing.T) {
	test := newTableTest(t, Default(), Deps{}).handshake()
	test.segment(">", "A", 0, 0, "abc")
	test.segment("<", "AZ", 0, 3, "")
	test.segment("<", "A", 0, 3, "")
	test.segment("<", "AZ", 0, 3, "")
	test.setTime(time.Second).segment(">", "A", 0, 0, "abc")
	if session := test.closeOneSession().Session; session.ZeroWindows != 2 || session.ClientRetransmissions != 1 ||
		session.History != "ShADaWT" && session.History != "ShADwaT" {
		t.Errorf("session %v", session)
	}
}

// TestIdleSessionEnds: an idle session ends by packet time, and later packets begin another.
func TestIdleSessionEnds(t *testing.T) {
	cfg := configWith(func(c *Config) { c.TCPIdleTimeout = 10 * time.Second })
	test := newTableTest(t, cfg, Deps{}).handshake()
	test.segment(">", "A", 0, 0, "abc")
	test.setTime(11*time.Second).segment(">", "A", 3, 0, "def")
	ended := test.closeSessions()
	if len(ended) != 2 || ended[0].Session.State != stateTimeout {
		t.Errorf("sessions %v", ended)
	}
	test.wantParserLog(">abc close >def close")
}

// TestEndThatIsSentAgainIsNotANewSession: a FIN that is repeated at growing intervals belongs to its session.
func TestEndThatIsSentAgainIsNotANewSession(t *testing.T) {
	test := newTableTest(t, Default(), Deps{}).handshake()
	test.segment(">", "A", 0, 0, "abc")
	test.segment("<", "FA", 0, 3, "")
	for _, seconds := range []int{0, 1, 2, 4, 8, 16, 32, 64, 128} {
		test.setTime(time.Duration(seconds)*time.Second).segment(">", "FA", 3, 1, "")
	}
	if seconds := test.closeOneSession().Session.State; seconds != stateFIN {
		t.Errorf("state %s", seconds)
	}
}

// TestClockThatJumps: a packet with a time of hours ago neither ends sessions nor stops the clock.
func TestClockThatJumps(t *testing.T) {
	test := newTableTest(t, Default(), Deps{}).handshake()
	test.setTime(-5*time.Hour).segment(">", "A", 0, 0, "abc")
	test.setTime(time.Millisecond).segment("<", "A", 0, 3, "def")
	test.setTime(2*time.Second).segment(">", "A", 3, 3, "ghi")
	test.closeOneSession()
	test.wantParserLog(">abc <def >ghi close")
}

// TestOneDirectionOnly: bytes of a side whose peer was not captured are delivered at once.
func TestOneDirectionOnly(t *testing.T) {
	test := newTableTest(t, Default(), Deps{})
	test.segment("<", "SA", 0, 0, "")
	test.segment("<", "A", 0, 10, "abc")
	test.segment("<", "A", 3, 20, "def")
	test.wantParserLog("<abc <def")
	if event := test.closeOneSession(); event.Destination.Port != 80 || event.Session.DirectionConfidence != 95 {
		t.Errorf("session %v", event)
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
		for _, step := range order {
			steps[step](test)
		}
		test.segment(">", "A", 0, 0, "abc")
		test.segment("<", "A", 0, 3, "def")
		if event := test.closeOneSession(); event.Partial || event.Session.DirectionConfidence != 100 ||
			event.Destination.Port != 80 {
			t.Errorf("%v: %v", order, event)
		}
		test.wantParserLog(">abc <def close")
	}
}

// TestStreamContinuesBehindAHugeGap: the stream continues behind a gap that is larger than any window.
func TestStreamContinuesBehindAHugeGap(t *testing.T) {
	test := newTableTest(t, Default(), Deps{}).handshake()
	test.segment(">", "A", 0, 0, "abc")
	test.segment("<", "A", 0, 50_000_003, "") // of bytes that were not captured
	test.segment(">", "A", 50_000_003, 0, "def")
	test.segment("<", "A", 0, 50_000_006, "ghi")
	test.Tick(startTime + int64(time.Second))
	test.closeOneSession()
	test.wantParserLog(">abc >gap50000000 >def <ghi close")
}

// TestPanicCostsOnlyTheOpenSessions: after a panic the Table has no sessions and handles the next packets.
func TestPanicCostsOnlyTheOpenSessions(t *testing.T) {
	test := newTableTest(t, Default(), Deps{}).handshake()
	for _, flow := range test.flows {
		flow.stream = nil
	}
	test.segment(">", "A", 0, 0, "abc")
	if panics := counterValue(test.metrics.panics); panics != 1 {
		t.Errorf("%v panics", panics)
	}
	test.isn[0]++
	test.handshake()
	test.segment(">", "A", 0, 0, "def")
	test.closeOneSession()
	test.wantParserLog(">def close")
}

// TestLostUrgentByteCostsNoSession: the urgent byte of a segment is among bytes that never come.
func TestLostUrgentByteCostsNoSession(t *testing.T) {
	test := newTableTest(t, Default(), Deps{}).handshake()
	urgent := &layers.TCP{SrcPort: 40000, DstPort: 80, Seq: test.isn[0] + 1, Ack: test.isn[1] + 1, Window: 60000, ACK: true, URG: true, Urgent: 5}
	frame := frame(t, addrPort("10.0.0.1:40000").Addr(), addrPort("10.0.0.2:80").Addr(), 99, urgent, "")
	test.Packet("eth0", layers.LinkTypeEthernet, startTime+int64(test.now), frame, len(frame))
	test.segment(">", "A", 10, 0, "behind")
	test.Tick(startTime + int64(3*time.Second))
	test.wantParserLog(">gap1 >behind")
	if event := test.closeOneSession(); counterValue(test.metrics.panics) != 0 || event.Source.Bytes != 6 || event.Session.ClientMissingBytes != 10 {
		t.Errorf("%v panics, %v", counterValue(test.metrics.panics), event)
	}
}

// TestForgedSYNCutsNoConnectionOfWhichOneSYNWasSeen: the capture has lost the SYN of one side, and both have
// sent. A SYN with another number is kept until it is answered, as on a connection of which both SYNs were
// seen.
func TestForgedSYNCutsNoConnectionOfWhichOneSYNWasSeen(t *testing.T) {
	for _, first := range []struct{ way, flags string }{{">", "S"}, {"<", "SA"}} {
		test := newTableTest(t, Default(), Deps{})
		test.segment(first.way, first.flags, 0, 0, "")
		test.segment(">", "A", 0, 0, "abc")
		test.segment("<", "A", 0, 3, "xyz")
		test.isn[0] = 1_000_000
		test.segment(">", "S", 0, 0, "")
		test.isn[0] = 1000
		test.segment(">", "A", 3, 3, "def")
		test.closeOneSession()
		test.wantParserLog(">abc <xyz >def close")
	}
}
