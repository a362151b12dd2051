package reassembly

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// A gapRecord is one call of Handler.Gap.
type gapRecord struct {
	off, n int
	why    GapReason
}

// A recorder is a Handler that stores its calls. A missing byte is a zero in bytes; tests send no zeros.
type recorder struct {
	testing.TB
	bytes    [2][]byte
	gaps     [2][]gapRecord
	ended    [2]bool
	log      strings.Builder
	observed map[Observation]int
	hostile  bool // the senders may continue behind their FINs; bytes are not stored
}

func (r *recorder) Data(dir Dir, data []byte, _ int64) {
	r.Helper()
	if len(data) == 0 || r.ended[dir] && !r.hostile {
		r.Errorf("Data of %d bytes, ended %v", len(data), r.ended[dir])
	}
	if r.hostile {
		return
	}
	r.bytes[dir] = append(r.bytes[dir], data...)
	fmt.Fprintf(&r.log, "%s%s ", arrow(dir), data)
}

func (r *recorder) Gap(dir Dir, n int, why GapReason) {
	r.Helper()
	if n <= 0 || r.ended[dir] && !r.hostile {
		r.Errorf("Gap of %d bytes, ended %v", n, r.ended[dir])
	}
	if r.hostile {
		return
	}
	r.gaps[dir] = append(r.gaps[dir], gapRecord{len(r.bytes[dir]), n, why})
	r.bytes[dir] = append(r.bytes[dir], make([]byte, min(n, 1<<20))...)
	fmt.Fprintf(&r.log, "%sgap%d ", arrow(dir), n)
}

func (r *recorder) End(dir Dir) {
	r.Helper()
	if r.ended[dir] {
		r.Error("End twice")
	}
	r.ended[dir] = true
	fmt.Fprintf(&r.log, "%send ", arrow(dir))
}

func (r *recorder) Observe(_ Dir, o Observation, _ int64) { r.observed[o]++ }

func arrow(d Dir) string {
	if d == 0 {
		return ">"
	}
	return "<"
}

// testConfig has bounds that no test reaches by accident.
func testConfig() Config {
	return Config{ConnBuffer: 4 << 20, Grace: 10 * time.Millisecond, GapTimeout: 2 * time.Second}
}

// A testConn is a Conn whose segments are given by offset.
type testConn struct {
	*Conn
	*recorder
	pool *Pool
	isn  [2]uint32 // of the SYNs
	now  int64
}

func newTestConn(t testing.TB, cfg Config, isn [2]uint32) *testConn {
	conn := &testConn{
		Conn: &Conn{}, recorder: &recorder{TB: t, observed: map[Observation]int{}},
		pool: NewPool(64 << 20), isn: isn, now: 1,
	}
	conn.Init(&cfg, conn.pool, conn.recorder)
	return conn
}

// segment sends a segment of dir. Offsets are from behind the SYNs; flags are letters of SAFR, and Z for a
// closed window.
func (c *testConn) segment(dir Dir, flags string, off, ack int, payload string) {
	segment := Segment{
		Seq: c.isn[dir] + 1 + uint32(off), Ack: c.isn[dir^1] + 1 + uint32(ack), Window: 60000,
		Payload: []byte(payload), Size: len(payload), Time: c.now,
	}
	for i, letter := range []byte("FSRPA") {
		if strings.IndexByte(flags, letter) >= 0 {
			segment.Flags |= 1 << i
		}
	}
	if segment.hasFlag(SYN) {
		segment.Seq--
	}
	if strings.Contains(flags, "Z") {
		segment.Window = 0
	}
	c.Segment(dir, &segment, c.now)
	c.now += 1000
}

// handshake opens the connection.
func (c *testConn) handshake() *testConn {
	c.segment(0, "S", 0, 0, "")
	c.segment(1, "SA", 0, 0, "")
	c.segment(0, "A", 0, 0, "")
	return c
}

// wait moves the clock forward in steps, and calls Release at the times that NextRelease returns.
func (c *testConn) wait(d time.Duration) {
	for end := c.now + int64(d); c.now < end; {
		c.now = min(end, max(c.NextRelease(), c.now+1))
		c.Release(c.now)
	}
}

// finish flushes the Conn and checks that nothing is left in it.
func (c *testConn) finish() {
	c.Helper()
	c.Flush()
	c.ForgetDelivered()
	c.checkEmpty()
}

func (c *testConn) checkEmpty() {
	c.Helper()
	if c.Buffered() != 0 || c.pool.Used() != 0 || c.pool.Len() != 0 {
		c.Errorf("%d bytes, %d in the pool and %d holders are left", c.Buffered(), c.pool.Used(),
			c.pool.Len())
	}
}

// want fails the test unless the calls of the Handler are as given.
func (c *testConn) want(log string) {
	c.Helper()
	if got := strings.TrimSpace(c.log.String()); got != log {
		c.Errorf("the handler got\n  %s\nwant\n  %s", got, log)
	}
}

// randomBytes returns n bytes, none of them 0.
func randomBytes(rng *rand.Rand, n int) []byte {
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(1 + rng.IntN(255))
	}
	return data
}

// A cut is a part of a stream that a segment carries.
type cut struct{ lo, hi int }

// cuts splits n bytes into segments.
func cuts(rng *rand.Rand, n, longest int) (list []cut) {
	for lo := 0; lo < n; {
		hi := min(lo+1+rng.IntN(longest), n)
		list = append(list, cut{lo, hi})
		lo = hi
	}
	return list
}

// withRepeats adds segments that repeat bytes with other bounds.
func withRepeats(rng *rand.Rand, list []cut, n int) []cut {
	for range rng.IntN(8) {
		lo := rng.IntN(n)
		list = append(list, cut{lo, min(lo+1+rng.IntN(3000), n)})
	}
	return list
}

func shuffle[E any](rng *rand.Rand, list []E) {
	rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
}

// randomISN returns a number that is often so near to 2^32 that the stream wraps.
func randomISN(rng *rand.Rand) uint32 {
	if rng.IntN(2) == 0 {
		return rng.Uint32()
	}
	return math.MaxUint32 - rng.Uint32N(20_000)
}

// mergeGaps joins neighbouring gaps.
func mergeGaps(list []gapRecord) (merged []cut) {
	for _, gap := range list {
		if n := len(merged); n > 0 && merged[n-1].hi == gap.off {
			merged[n-1].hi += gap.n
			continue
		}
		merged = append(merged, cut{gap.off, gap.off + gap.n})
	}
	return merged
}

// zeroRanges returns the ranges of data that are 0.
func zeroRanges(data []byte) (list []cut) {
	for lo := 0; lo < len(data); lo++ {
		if data[lo] != 0 {
			continue
		}
		hi := lo
		for hi < len(data) && data[hi] == 0 {
			hi++
		}
		list = append(list, cut{lo, hi})
		lo = hi
	}
	return list
}

func sameReasons(list []gapRecord, why GapReason) bool {
	return !slices.ContainsFunc(list, func(g gapRecord) bool { return g.why != why })
}
