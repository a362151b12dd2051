package reassembly

import (
	"maps"
	"testing"
	"time"
)

// TestObservationsAreThoseOfTheSegments, and no others.
func TestObservationsAreThoseOfTheSegments(t *testing.T) {
	handshake := map[Observation]int{FirstSYN: 1, FirstSYNACK: 1, PureACK: 1}
	check := func(what string, play func(c *testConn), want map[Observation]int) {
		t.Helper()
		c := newTestConn(t, testConfig(), defaultISN).handshake()
		play(c)
		all := maps.Clone(handshake)
		for observation, count := range want {
			all[observation] += count
		}
		if !maps.Equal(c.observed, all) {
			t.Errorf("%s: observed %v, want %v", what, c.observed, all)
		}
	}
	type counts = map[Observation]int
	check("nothing", func(*testConn) {}, nil)
	check("a repeated SYN", func(c *testConn) { c.segment(0, "S", 0, 0, "") }, counts{RepeatedSYN: 1})
	check("a repeated SYN-ACK", func(c *testConn) { c.segment(1, "SA", 0, 0, "") }, counts{RepeatedSYNACK: 1})
	check("a SYN of another connection", func(c *testConn) { c.isn[0] += 5000; c.segment(0, "S", 0, 0, "") }, nil)
	check("bytes", func(c *testConn) { c.segment(0, "PA", 0, 0, "abc") }, counts{Data: 1})
	check("bytes and their acknowledgement", func(c *testConn) {
		c.segment(0, "PA", 0, 0, "abc")
		c.segment(1, "A", 0, 3, "")
	}, counts{Data: 1, PureACK: 1})
	check("bytes that are sent again", func(c *testConn) {
		c.segment(0, "A", 0, 0, "abc")
		c.segment(0, "A", 0, 0, "abc")
	}, counts{Data: 2, Retransmission: 1})
	check("a keep-alive", func(c *testConn) {
		c.segment(0, "A", 0, 0, "abc")
		c.segment(1, "A", 0, 3, "")
		c.segment(0, "A", 2, 0, "x")
	}, counts{Data: 1, PureACK: 1})
	check("bytes that later ones overtook", func(c *testConn) {
		c.segment(0, "A", 3, 0, "def")
		c.segment(0, "A", 0, 0, "abc")
	}, counts{Data: 2, Reordered: 1})
	check("bytes that fill a gap within the round-trip time", func(c *testConn) {
		c.SetRTT(int64(time.Second))
		c.segment(0, "A", 3, 0, "def")
		c.now += int64(900 * time.Millisecond)
		c.segment(0, "A", 0, 0, "abc")
	}, counts{Data: 2, Reordered: 1})
	check("bytes that fill a gap after the round-trip time", func(c *testConn) {
		c.SetRTT(int64(time.Second))
		c.segment(0, "A", 3, 0, "def")
		c.now += int64(1001 * time.Millisecond)
		c.segment(0, "A", 0, 0, "abc")
	}, counts{Data: 2, Retransmission: 1})
	check("other bytes than those that wait", func(c *testConn) {
		c.segment(0, "A", 3, 0, "def")
		c.segment(0, "A", 3, 0, "xyz")
	}, counts{Data: 2, OverlapConflict: 1, Retransmission: 1})
	check("a closed window", func(c *testConn) { c.segment(1, "AZ", 0, 0, "") }, counts{ZeroWindow: 1, PureACK: 1})
	check("FINs", func(c *testConn) {
		c.segment(0, "FA", 0, 0, "")
		c.segment(1, "FA", 0, 1, "")
		c.segment(0, "A", 1, 1, "")
	}, counts{CloseRequest: 2, PureACK: 1})
	check("a FIN with bytes", func(c *testConn) { c.segment(0, "FA", 0, 0, "abc") }, counts{Data: 1, CloseRequest: 1})
	check("a RST", func(c *testConn) { c.segment(1, "RA", 0, 0, "") }, counts{ValidReset: 1})
	check("a RST outside the window", func(c *testConn) { c.segment(1, "RA", 100_000, 0, "") }, counts{OutsideWindow: 1})
	check("bytes far outside the window", func(c *testConn) { c.segment(0, "A", 10_000_000, 0, "abc"); c.wait(3 * time.Second) },
		counts{Data: 1, OutsideWindow: 1})

	// A capture that begins in the middle.
	c := newTestConn(t, testConfig(), defaultISN)
	c.segment(0, "A", 200_000, 0, "abc")
	c.segment(0, "A", 900, 0, "xyz")    // of a retransmission, or forged
	c.segment(0, "A", 199_000, 0, "xy") // overtaken
	if want := (counts{Data: 3, BeforeStart: 1, OutsideWindow: 1}); !maps.Equal(c.observed, want) {
		t.Errorf("before the start: observed %v, want %v", c.observed, want)
	}
	c.want(">abc")
}
