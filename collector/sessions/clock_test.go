package sessions

import "testing"

// TestClockGoesForwardOnly, by the times of the packets, whatever these do.
func TestClockGoesForwardOnly(t *testing.T) {
	const second = int64(1e9)
	var clock packetClock
	at := 1_700_000_000 * second
	step := func(what string, by, moves int64) {
		t.Helper()
		before := clock.now
		at += by
		if clock.advance(at); clock.now-before != moves {
			t.Errorf("%s: the clock moves by %d ns, want %d", what, clock.now-before, moves)
		}
	}
	step("the first packet", 0, 1)
	step("the same time", 0, 0)
	step("later", second, second)
	step("reordered", -second, 0)
	step("behind it", second+5, 5)
	step("the largest step back of a reordering", -maxBackward, 0)
	step("the time before it", maxBackward, 0)
	step("a day later", maxForward, maxForward)
	step("more than a day later", maxForward+1, maxForward)

	// A packet with a wrong time, long ago.
	step("set back", -maxBackward-1, 0)
	step("goes on from there", 3, 3)
	step("the time before", maxBackward+1-3+2*second, 2*second)
	step("goes on", second, second)
	step("set back again", -100*second, 0)
	step("far from the time before", 50*second, 50*second)
	step("the time before, a little earlier", 50*second-1, 0)
	step("goes on", second, second)
	step("set back once more", -100*second, 0)
	step("too far ahead of the time before", 100*second+maxBackward, 100*second+maxBackward)

	if !isNear(0, maxBackward-1) || !isNear(maxBackward-1, 0) || isNear(0, maxBackward) || isNear(maxBackward, 0) {
		t.Error("times are near that are less than maxBackward apart")
	}
	if isDue(5, 5) || isDue(4+publishEvery, 5) || !isDue(5+publishEvery, 5) || !isDue(4, 5) {
		t.Error("a time is due when it is publishEvery later, or earlier")
	}
}
