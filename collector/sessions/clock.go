package sessions

// A packetClock derives a clock that only goes forward from the times of packets. All timers use it. When the
// times of packets jump, the clock neither stops nor fires the timers at every packet.
type packetClock struct {
	now            int64 // ns since the first packet, plus one; 0 before it
	packetTime     int64 // the packet time that now was last moved to
	timeBeforeJump int64 // packetTime before the times were set back; 0: they were not
}

// maxBackward is the largest step back in packet times, ns, that counts as reordering of packets. A larger
// step counts as a capture clock that was set back.
const maxBackward = int64(10e9)

// maxForward is the most by which one packet moves the clock, ns.
const maxForward = int64(24 * 3600e9)

// advance moves the clock to the packet time at.
func (c *packetClock) advance(at int64) {
	// A small step back, of packets out of order, changes nothing.
	switch delta := at - c.packetTime; {
	case c.packetTime == 0: // the first packet
		c.packetTime = at
		c.now = 1
	case delta > maxBackward && c.timeBeforeJump != 0 && isNear(at, c.timeBeforeJump):
		// A few packets had wrong times. This one continues from the time before them.
		c.now += max(at-c.timeBeforeJump, 0)
		c.packetTime, c.timeBeforeJump = at, 0
	case delta > 0:
		c.now += min(delta, maxForward)
		c.packetTime = at
	case delta < -maxBackward: // the clock was set back
		c.packetTime, c.timeBeforeJump = at, c.packetTime
	}
}

// isNear reports whether two packet times may come from one run of the same clock.
func isNear(a, b int64) bool { return max(a-b, b-a) < maxBackward }
