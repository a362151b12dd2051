package sessions

import (
	"testing"
	"time"

	"tidegate/pipeline"
)

// TestSessionInOrder: the plain case, with everything that the event says.
func TestSessionInOrder(t *testing.T) {
	b := newBench(t, Config{}, Deps{})
	b.sent(">", "S", 0, 0, "")
	b.at(3*time.Millisecond).sent("<", "SA", 0, 0, "")
	b.at(5*time.Millisecond).sent(">", "A", 0, 0, "")
	b.at(6*time.Millisecond).sent(">", "A", 0, 0, "GET a")
	b.at(16*time.Millisecond).sent("<", "A", 0, 5, "200 b")
	b.bye(5, 5)
	e := b.session()
	b.want(">GET a <200 b >end <end close")
	s := e.Session
	if s.State != stateFIN || s.History != "ShADdFf" || s.RttServer != 3e6 || s.RttClient != 2e6 || s.ResponseTime != 10e6 || s.DirectionConfidence != 100 {
		t.Errorf("session %v", s)
	}
	if e.Source.Bytes != 5 || e.Destination.Bytes != 5 || e.Source.Packets != 5 || e.Destination.Packets != 3 || e.Source.Port != 40000 || e.Destination.Port != 80 {
		t.Errorf("endpoints %v %v", e.Source, e.Destination)
	}
	if pipeline.CommunityIDText(e.CommunityId) == "" || e.Timestamp != epoch || e.Partial || e.Outcome != pipeline.Outcome_SUCCESS || e.Interfaces[0] != "eth0" {
		t.Errorf("event %v", e)
	}
}

// TestReorderedBytesComeInOrder: and are not a gap.
func TestReorderedBytesComeInOrder(t *testing.T) {
	b := newBench(t, Config{}, Deps{}).hello()
	b.sent(">", "A", 3, 0, "def")
	b.sent(">", "A", 6, 0, "ghi")
	b.sent("<", "A", 0, 9, "") // the capture is late, not the network
	b.sent(">", "A", 0, 0, "abc")
	b.bye(9, 0)
	s := b.session().Session
	b.want(">abc >def >ghi >end <end close")
	if s.OutOfOrder != 1 || s.ClientMissingBytes != 0 || s.ClientRetransmissions != 0 {
		t.Errorf("session %v", s)
	}
}

// TestReplyWaitsForItsRequest: the reply was captured before the end of what it answers.
func TestReplyWaitsForItsRequest(t *testing.T) {
	b := newBench(t, Config{}, Deps{}).hello()
	b.sent(">", "A", 0, 0, "ab")
	b.sent("<", "A", 0, 4, "reply")
	b.want(">ab")
	b.sent(">", "A", 2, 0, "cd")
	b.want(">ab >cd <reply")
	b.session()
}

// TestGapWaitsForTheGrace: an acknowledged gap is given up after the grace, not before.
func TestGapWaitsForTheGrace(t *testing.T) {
	b := newBench(t, Config{}, Deps{}).hello()
	b.sent(">", "A", 0, 0, "abc")
	b.at(time.Millisecond).sent(">", "A", 6, 0, "ghi")
	b.sent("<", "A", 0, 9, "reply")
	b.Tick(epoch + int64(9*time.Millisecond))
	b.want(">abc")
	b.Tick(epoch + int64(40*time.Millisecond))
	b.want(">abc >gap3 >ghi <reply")
	if s := b.session(); s.Session.ClientMissingBytes != 3 || !s.Partial || s.Source.Bytes != 6 {
		t.Errorf("session %v", s)
	}
}

// TestGapNobodyAcknowledged waits for the retransmission, and is filled by it.
func TestGapNobodyAcknowledged(t *testing.T) {
	b := newBench(t, Config{}, Deps{}).hello()
	b.sent(">", "A", 3, 0, "def")
	b.sent("<", "A", 0, 0, "")
	b.at(300*time.Millisecond).sent(">", "A", 0, 0, "abc")
	b.want(">abc >def")
	if s := b.session().Session; s.ClientRetransmissions != 1 || s.OutOfOrder != 0 {
		t.Errorf("session %v", s)
	}
}

// TestGapTimeout: without any acknowledgement a gap is given up in the end.
func TestGapTimeout(t *testing.T) {
	b := newBench(t, Config{}, Deps{}).hello()
	b.sent(">", "A", 0, 0, "abc")
	b.sent(">", "A", 6, 0, "ghi")
	b.Tick(epoch + int64(time.Second))
	b.want(">abc")
	b.Tick(epoch + int64(3*time.Second))
	b.want(">abc >gap3 >ghi")
}

// TestFarSegmentDoesNotBlind: a segment beyond the window is never acknowledged; skipping to it would lose what really comes.
func TestFarSegmentDoesNotBlind(t *testing.T) {
	b := newBench(t, Config{}, Deps{}).hello()
	b.sent("<", "A", 0, 0, "")
	b.sent(">", "A", 10_000_000, 0, "evil")
	b.Tick(epoch + int64(3*time.Second))
	b.sent(">", "A", 0, 0, "GET")
	b.sent("<", "A", 0, 3, "OK")
	b.want(">GET <OK")
	b.session()
}

// TestFarAcknowledgementDoesNotBlind: nor does an acknowledgement of what was never sent.
func TestFarAcknowledgementDoesNotBlind(t *testing.T) {
	b := newBench(t, Config{}, Deps{}).hello()
	b.sent(">", "A", 0, 50_000_000, "GET")
	b.Tick(epoch + int64(3*time.Second))
	b.sent("<", "A", 0, 3, "OK")
	b.want(">GET <OK")
	b.session()
}

// TestSequenceWrap: numbers go through 2^32 in the middle of a stream, out of order.
func TestSequenceWrap(t *testing.T) {
	for isn := uint32(1<<32 - 12); isn != 4; isn++ {
		b := newBench(t, Config{}, Deps{})
		b.isn = [2]uint32{isn, isn + 3}
		b.hello()
		b.sent(">", "A", 4, 0, "efgh")
		b.sent(">", "A", 0, 0, "abcd")
		b.sent("<", "A", 4, 8, "5678")
		b.sent("<", "A", 0, 8, "1234")
		b.sent("<", "A", 4, 8, "5678")
		b.bye(8, 8)
		b.session()
		b.want(">abcd >efgh <1234 <5678 >end <end close")
	}
}

// TestOverlap: the bytes that came first count, or the last, as configured; a difference is counted.
func TestOverlap(t *testing.T) {
	check := func(policy, want string) {
		t.Helper()
		b := newBench(t, Config{OverlapPolicy: policy}, Deps{}).hello()
		b.sent(">", "A", 4, 0, "EFGH")
		b.sent(">", "A", 2, 0, "cdefghij")
		b.sent(">", "A", 0, 0, "ab")
		b.want(want)
		if n := b.session().Session.OverlapConflicts; n != 1 {
			t.Errorf("%d conflicts, want 1", n)
		}
	}
	check("first", ">ab >cd >EFGH >ij")
	check("last", ">ab >cd >efgh >ij")
}

// TestConflictWithDeliveredBytes: they cannot be taken back, but are compared.
func TestConflictWithDeliveredBytes(t *testing.T) {
	check := func(off int, again string, want uint32) {
		t.Helper()
		b := newBench(t, Config{}, Deps{}).hello()
		b.sent(">", "A", 0, 0, "GET /index.html")
		b.at(300*time.Millisecond).sent(">", "A", off, 0, again)
		if n := b.session().Session.OverlapConflicts; n != want {
			t.Errorf("%q at %d: %d conflicts, want %d", again, off, n, want)
		}
		b.want(">GET /index.html close")
	}
	check(0, "GET /index.html", 0)
	check(0, "GET /other.html", 1)
	check(4, "/index", 0)
	check(4, "/evil.", 1)
	check(14, "x", 0) // a keep-alive
}

// TestConflictInTheFrontOfNewBytes: a segment that begins in delivered bytes and goes on with new ones.
func TestConflictInTheFrontOfNewBytes(t *testing.T) {
	b := newBench(t, Config{}, Deps{}).hello()
	b.sent(">", "A", 0, 0, "abcd")
	b.sent(">", "A", 2, 0, "XYef")
	b.want(">abcd >ef")
	if s := b.session().Session; s.OverlapConflicts != 1 || s.ClientRetransmissions != 1 {
		t.Errorf("session %v", s)
	}
}

// TestResets: RFC 5961, section 3: outside the window a reset is nothing.
func TestResets(t *testing.T) {
	check := func(way string, off int, want string) {
		t.Helper()
		b := newBench(t, Config{}, Deps{}).hello()
		b.sent(">", "A", 0, 0, "abc")
		b.sent("<", "A", 0, 3, "d")
		b.sent(">", "A", 3, 1, "")
		b.sent(way, "RA", off, 0, "")
		if s := b.session().Session.State; s != want {
			t.Errorf("%s reset at %d: %s, want %s", way, off, s, want)
		}
	}
	check(">", 3, stateResetClient)
	check("<", 1, stateResetServer)
	check("<", 100_000, stateShutdown)
	check(">", -5000, stateShutdown)
}

// TestResetThatWasNotAccepted: its sender goes on, so the connection did.
func TestResetThatWasNotAccepted(t *testing.T) {
	b := newBench(t, Config{}, Deps{}).hello()
	b.sent(">", "A", 0, 0, "abc")
	b.sent(">", "R", 3, 0, "")
	b.sent(">", "A", 3, 0, "def")
	b.at(2*time.Second).sent("<", "A", 0, 6, "ok")
	b.want(">abc >def <ok")
	if s := b.session().Session.State; s != stateShutdown {
		t.Errorf("state %s", s)
	}
}

// TestRefusedAndUnanswered: what a scan looks like.
func TestRefusedAndUnanswered(t *testing.T) {
	b := newBench(t, Config{}, Deps{})
	b.sent(">", "S", 0, 0, "")
	b.sent("<", "RA", -1, 0, "")
	b.Tick(epoch + int64(5*time.Second))
	if s := b.session().Session; s.State != stateRefused || s.History != "Sr" {
		t.Errorf("session %v", s)
	}
	b = newBench(t, Config{}, Deps{})
	b.sent(">", "S", 0, 0, "")
	b.at(time.Second).sent(">", "S", 0, 0, "")
	b.Tick(epoch + int64(60*time.Second))
	if s := b.session().Session; s.State != stateNoAnswer || s.SynRetransmissions != 1 {
		t.Errorf("session %v", s)
	}
}

// TestPortsUsedAgain: a SYN with another number after the end is another session; one on a living connection is only when its peer says so.
func TestPortsUsedAgain(t *testing.T) {
	b := newBench(t, Config{}, Deps{}).hello()
	b.sent(">", "A", 0, 0, "abc")
	b.bye(3, 0)
	b.isn = [2]uint32{77777, 88888}
	b.hello()
	b.sent(">", "A", 0, 0, "xyz")
	if n := len(b.sessions()); n != 2 {
		t.Errorf("%d sessions, want 2", n)
	}
	b.want(">abc >end <end close >xyz close")

	b = newBench(t, Config{}, Deps{}).hello()
	b.sent(">", "A", 0, 0, "abc")
	b.isn[0] = 1_000_000 // a forged SYN
	b.sent(">", "S", 0, 0, "")
	b.isn[0] = 1000
	b.sent(">", "A", 3, 0, "def")
	b.session()
	b.want(">abc >def close")

	b = newBench(t, Config{}, Deps{}).hello()
	b.sent(">", "A", 0, 0, "abc")
	b.isn = [2]uint32{1_000_000, 7}
	b.hello()
	b.sent(">", "A", 0, 0, "def")
	if n := len(b.sessions()); n != 2 {
		t.Errorf("%d sessions, want 2", n)
	}
	b.want(">abc close >def close")
}

// TestDataWithSYN is TCP Fast Open; the server may not take it, and then it comes again.
func TestDataWithSYN(t *testing.T) {
	b := newBench(t, Config{}, Deps{})
	b.sent(">", "S", 0, 0, "GET")
	b.sent("<", "SA", 0, 0, "")
	b.sent(">", "A", 0, 0, "GET")
	b.sent("<", "A", 0, 3, "OK")
	b.session()
	b.want(">GET <OK close")
}

// TestHalfClose: the client ends, the server goes on; data comes with the FIN.
func TestHalfClose(t *testing.T) {
	b := newBench(t, Config{}, Deps{}).hello()
	b.sent(">", "FA", 0, 0, "last")
	b.sent("<", "A", 0, 5, "more")
	b.sent("<", "FA", 4, 5, "")
	b.want(">last >end <more <end")
	if s := b.session().Session.State; s != stateFIN {
		t.Errorf("state %s", s)
	}
}

// TestFINBeforeItsData: the end waits for what comes before it.
func TestFINBeforeItsData(t *testing.T) {
	b := newBench(t, Config{}, Deps{}).hello()
	b.sent(">", "FA", 3, 0, "")
	b.want("")
	b.sent(">", "A", 0, 0, "abc")
	b.want(">abc >end")
}

// TestLostFINIsNotAGap: a FIN that was not captured is acknowledged like a byte.
func TestLostFINIsNotAGap(t *testing.T) {
	b := newBench(t, Config{}, Deps{}).hello()
	b.sent(">", "A", 0, 0, "abc")
	b.sent("<", "FA", 0, 4, "")
	b.sent(">", "A", 4, 1, "")
	b.Tick(epoch + int64(100*time.Millisecond))
	s := b.session().Session
	if s.ClientMissingBytes != 0 || s.State != stateFIN {
		t.Errorf("session %v", s)
	}
	b.want(">abc >end <end close")
}

// TestMidStream: the roles are a guess, and it says how sure.
func TestMidStream(t *testing.T) {
	b := newBench(t, Config{}, Deps{})
	b.sent("<", "A", 500, 300, "reply")
	b.sent(">", "A", 300, 505, "next")
	e := b.session()
	b.want("<reply >next close")
	if s := e.Session; s.DirectionConfidence >= 95 || e.Destination.Port != 80 || !e.Partial {
		t.Errorf("session %v", e)
	}
}

// TestZeroWindowsAndRetransmissions are counted.
func TestZeroWindowsAndRetransmissions(t *testing.T) {
	b := newBench(t, Config{}, Deps{}).hello()
	b.sent(">", "A", 0, 0, "abc")
	b.sent("<", "AZ", 0, 3, "")
	b.sent("<", "A", 0, 3, "")
	b.sent("<", "AZ", 0, 3, "")
	b.at(time.Second).sent(">", "A", 0, 0, "abc")
	if s := b.session().Session; s.ZeroWindows != 2 || s.ClientRetransmissions != 1 || s.History != "ShADaWT" && s.History != "ShADwaT" {
		t.Errorf("session %v", s)
	}
}

// TestIdleSessionEnds by packet time, and what comes later is another one.
func TestIdleSessionEnds(t *testing.T) {
	b := newBench(t, Config{TCPIdleTimeout: 10 * time.Second}, Deps{}).hello()
	b.sent(">", "A", 0, 0, "abc")
	b.at(11*time.Second).sent(">", "A", 3, 0, "def")
	s := b.sessions()
	if len(s) != 2 || s[0].Session.State != stateTimeout {
		t.Errorf("sessions %v", s)
	}
	b.want(">abc close >def close")
}

// TestEndThatIsSentAgainIsNotANewSession: nobody acknowledges it, so it comes at intervals that double.
func TestEndThatIsSentAgainIsNotANewSession(t *testing.T) {
	b := newBench(t, Config{}, Deps{}).hello()
	b.sent(">", "A", 0, 0, "abc")
	b.sent("<", "FA", 0, 3, "")
	for _, s := range []int{0, 1, 2, 4, 8, 16, 32, 64, 128} {
		b.at(time.Duration(s)*time.Second).sent(">", "FA", 3, 1, "")
	}
	if s := b.session().Session.State; s != stateFIN {
		t.Errorf("state %s", s)
	}
}

// TestClockThatJumps: one packet with a time of long ago neither ends the sessions nor stops time.
func TestClockThatJumps(t *testing.T) {
	b := newBench(t, Config{}, Deps{}).hello()
	b.at(-5*time.Hour).sent(">", "A", 0, 0, "abc")
	b.at(time.Millisecond).sent("<", "A", 0, 3, "def")
	b.at(2*time.Second).sent(">", "A", 3, 3, "ghi")
	b.session()
	b.want(">abc <def >ghi close")
}

// TestOneDirectionOnly: without a peer there is nobody to wait for.
func TestOneDirectionOnly(t *testing.T) {
	b := newBench(t, Config{}, Deps{})
	b.sent("<", "SA", 0, 0, "")
	b.sent("<", "A", 0, 10, "abc")
	b.sent("<", "A", 3, 20, "def")
	b.want("<abc <def")
	if s := b.session(); s.Destination.Port != 80 || s.Session.DirectionConfidence != 95 {
		t.Errorf("session %v", s)
	}
}

// TestHandshakeOutOfOrder: its packets were captured in some other order; it is one session, from its beginning.
func TestHandshakeOutOfOrder(t *testing.T) {
	steps := []func(b *sessionBench){
		func(b *sessionBench) { b.sent(">", "S", 0, 0, "") },
		func(b *sessionBench) { b.sent("<", "SA", 0, 0, "") },
		func(b *sessionBench) { b.sent(">", "A", 0, 0, "") },
	}
	for _, order := range [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		b := newBench(t, Config{}, Deps{})
		for _, i := range order {
			steps[i](b)
		}
		b.sent(">", "A", 0, 0, "abc")
		b.sent("<", "A", 0, 3, "def")
		if e := b.session(); e.Partial || e.Session.DirectionConfidence != 100 || e.Destination.Port != 80 {
			t.Errorf("%v: %v", order, e)
		}
		b.want(">abc <def close")
	}
}

// TestMuchWasNotCaptured: after a hole that is larger than any window the stream goes on.
func TestMuchWasNotCaptured(t *testing.T) {
	b := newBench(t, Config{}, Deps{}).hello()
	b.sent(">", "A", 0, 0, "abc")
	b.sent("<", "A", 0, 50_000_003, "") // of what we did not see
	b.sent(">", "A", 50_000_003, 0, "def")
	b.sent("<", "A", 0, 50_000_006, "ghi")
	b.Tick(epoch + int64(time.Second))
	b.session()
	b.want(">abc >gap50000000 >def <ghi close")
}

// TestAnErrorOfOursCostsTheSessionsOnly: the worker goes on.
func TestAnErrorOfOursCostsTheSessionsOnly(t *testing.T) {
	b := newBench(t, Config{}, Deps{}).hello()
	for _, f := range b.flows {
		f.stream = nil
	}
	b.sent(">", "A", 0, 0, "abc")
	if n := value(b.m.panics); n != 1 {
		t.Errorf("%v panics", n)
	}
	b.isn[0]++
	b.hello()
	b.sent(">", "A", 0, 0, "def")
	b.session()
	b.want(">def close")
}
