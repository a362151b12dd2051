package reassembly

import (
	"strings"
	"testing"
)

// doubtfulSegment sends a segment of side 0 of which the caller doubts that the receiver has taken it.
func (c *testConn) doubtfulSegment(off int, payload string) {
	segment := Segment{
		Seq: c.isn[0] + 1 + uint32(off), Ack: c.isn[1] + 1, Window: 60000, Flags: ACK,
		Payload: []byte(payload), Size: len(payload), Time: c.now, Doubtful: true,
	}
	c.Segment(0, &segment, c.now)
	c.now += 1000
}

func (c *testConn) wantHeld(bytes int) {
	c.Helper()
	if got := c.pool.Used(); got != bytes {
		c.Errorf("the pool is charged with %d bytes, want %d", got, bytes)
	}
}

// TestDoubtfulBytesAreHeld until the receiver acknowledges all of them, or their sender goes on behind them. Other bytes in
// their place replace them.
func TestDoubtfulBytesAreHeld(t *testing.T) {
	open := func() *testConn { return newTestConn(t, testConfig(), defaultISN).handshake() }
	check := func(what string, c *testConn, log string, dropped int) {
		t.Helper()
		c.want(log)
		c.wantHeld(0)
		if got := c.observed[DoubtfulDropped]; got != dropped {
			t.Errorf("%s: %d are dropped, want %d", what, got, dropped)
		}
	}

	c := open()
	c.doubtfulSegment(0, "abc")
	c.wantHeld(BufferCost(3))
	c.doubtfulSegment(3, "def")
	c.wantHeld(BufferCost(6))
	c.segment(1, "A", 0, 5, "")
	c.want("")
	c.segment(1, "A", 0, 6, "ok")
	check("acknowledged", c, ">abcdef <ok", 0)

	c = open()
	c.doubtfulSegment(0, "abc")
	c.segment(0, "A", 3, 0, "def")
	check("the sender goes on", c, ">abc >def", 0)

	c = open()
	c.doubtfulSegment(0, "abc")
	c.segment(0, "A", 0, 0, "xyz")
	c.segment(1, "A", 0, 3, "")
	check("other bytes", c, ">xyz", 1)

	c = open()
	c.doubtfulSegment(0, "abc")
	c.segment(0, "A", 2, 0, "xyz")
	c.segment(0, "A", 0, 0, "ab")
	check("other bytes in a part of their place", c, ">ab >xyz", 1)

	// What does not follow is a segment as any other.
	c = open()
	c.doubtfulSegment(3, "def")
	c.segment(0, "A", 0, 0, "abc")
	check("behind a gap", c, ">abc >def", 0)

	// No more is held than maxDoubtful.
	c = open()
	half := strings.Repeat("a", maxDoubtful/2)
	c.doubtfulSegment(0, half)
	c.doubtfulSegment(maxDoubtful/2, half)
	c.wantHeld(BufferCost(maxDoubtful))
	c.doubtfulSegment(maxDoubtful, "b")
	check("one byte more", c, ">"+half+half+" >b", 0)

	// At the end of the connection nobody has sent other bytes.
	c = open()
	c.doubtfulSegment(0, "abc")
	c.finish()
	check("the end", c, ">abc", 0)
	c = open()
	c.doubtfulSegment(0, "abc")
	c.Discard()
	check("a connection that is not wanted", c, "", 0)
}

// TestPayloadOfASYNIsHeld until its receiver acknowledges it (TCP Fast Open), and is dropped if it does not.
func TestPayloadOfASYNIsHeld(t *testing.T) {
	open := func() *testConn {
		c := newTestConn(t, testConfig(), defaultISN)
		c.segment(0, "S", 0, 0, "GET")
		c.wantHeld(BufferCost(3))
		c.segment(0, "S", 0, 0, "GET") // repeated: held once
		c.wantHeld(BufferCost(3))
		c.want("")
		return c
	}
	c := open()
	c.segment(1, "SA", 0, 3, "")
	c.want(">GET")
	c.wantHeld(0)
	c = open()
	c.segment(1, "SA", 0, 0, "")
	c.want("")
	c.wantHeld(0)
	c.segment(0, "A", 0, 0, "GET")
	c.want(">GET")
	c = open()
	c.segment(0, "A", 3, 0, "/a") // the sender goes on behind it
	c.want(">GET >/a")
	c.wantHeld(0)
	c = open()
	c.segment(0, "A", 0, 0, "PUT")
	if c.observed[OverlapConflict] != 1 {
		t.Error("other bytes than those of the SYN are no conflict")
	}
	c.want(">PUT")
	c.wantHeld(0)
	c = open()
	c.finish() // nobody has acknowledged it
	c.want("")
	c = open()
	c.Discard()
	c.want("")
	c.wantHeld(0)
}

// TestFINBeforeDeliveredBytesIsAConflict: its sender does not count them.
func TestFINBeforeDeliveredBytesIsAConflict(t *testing.T) {
	check := func(what string, at, acked, conflicts int) {
		t.Helper()
		c := newTestConn(t, testConfig(), defaultISN).handshake()
		c.segment(0, "A", 0, 0, "abcdef")
		if acked > 0 {
			c.segment(1, "A", 0, acked, "")
		}
		c.segment(0, "FA", at, 0, "")
		if got := c.observed[OverlapConflict]; got != conflicts {
			t.Errorf("%s: %d conflicts, want %d", what, got, conflicts)
		}
		if c.observed[CloseRequest] != 1 {
			t.Errorf("%s: %d requests to close", what, c.observed[CloseRequest])
		}
	}
	check("behind all bytes", 6, 0, 0)
	check("before bytes", 3, 0, 1)
	check("where the acknowledged bytes end", 3, 3, 1)
	check("before acknowledged bytes", 2, 3, 0) // a late or forged segment
	check("behind a gap", 9, 0, 0)
}
