package reassembly

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

var observationNames = [...]string{
	"first_syn", "first_synack", "repeated_syn", "repeated_synack", "data", "pure_ack", "close_request", "valid_reset", "retransmission", "reordered", "conflict",
	"zero_window", "outside_window", "urgent", "doubtful_dropped", "before_start", "copy_dropped", "not_repeated",
}

// A scriptedHandler is a Handler that writes its calls.
type scriptedHandler struct{ out *strings.Builder }

func (h scriptedHandler) Data(dir Dir, data []byte, at int64) {
	fmt.Fprintf(h.out, " %s%s@%d", arrow(dir), data, at/1000)
}

func (h scriptedHandler) Gap(dir Dir, n int, why GapReason) {
	fmt.Fprintf(h.out, " %sgap%d(%s)", arrow(dir), n, why)
}
func (h scriptedHandler) End(dir Dir) { fmt.Fprintf(h.out, " %send", arrow(dir)) }
func (h scriptedHandler) Observe(dir Dir, o Observation, _ int64) {
	if o != Data && o != PureACK {
		fmt.Fprintf(h.out, " %s%s", arrow(dir), observationNames[o])
	}
}

// scriptStep is a random segment, or a time that passes. The bytes of a stream are the letters by their offsets, or capitals
// where the segment contradicts.
func scriptStep(rng *rand.Rand, conn *testConn, out *strings.Builder) {
	if rng.IntN(8) == 0 {
		wait := []time.Duration{5 * time.Millisecond, 20 * time.Millisecond, 3 * time.Second}[rng.IntN(3)]
		fmt.Fprintf(out, " | wait %s:", wait)
		conn.wait(wait)
		return
	}
	dir := Dir(rng.IntN(2))
	flags := []string{"A", "A", "A", "A", "A", "A", "FA", "RA", "R", "S", "SA", "", "ZA", "AU"}[rng.IntN(14)]
	off := []int{0, 0, 2, 3, 4, 5, 6, 8, 10, -3, 70_000, 200_000}[rng.IntN(12)]
	ack := []int{0, 0, 2, 3, 4, 6, 8, 10, 11, 300_000}[rng.IntN(10)]
	size := []int{0, 1, 2, 3, 4, 6}[rng.IntN(6)]
	first := byte('a')
	contradicts := rng.IntN(8) == 0
	if contradicts {
		first = 'A'
	}
	payload := make([]byte, size)
	for i := range payload {
		payload[i] = first + byte((off+i)%26+26)%26
	}
	segment := Segment{
		Seq: conn.isn[dir] + 1 + uint32(off), Ack: conn.isn[dir^1] + 1 + uint32(ack), Window: 60000, Payload: payload, Size: size, Time: conn.now,
		Doubtful: rng.IntN(12) == 0,
	}
	for i, letter := range []byte("FSRPAU") {
		if strings.IndexByte(flags, letter) >= 0 {
			segment.Flags |= 1 << i
		}
	}
	if segment.hasFlag(SYN) {
		segment.Seq--
		segment.Options = []byte{3, 3, byte(rng.IntN(3))}
	}
	if strings.Contains(flags, "Z") {
		segment.Window = 0
	}
	if segment.hasFlag(URG) {
		segment.Urgent = uint16(rng.IntN(5))
	}
	if size > 2 && rng.IntN(10) == 0 {
		segment.Payload = payload[:size-1] // cut by the capture
	}
	doubtful := map[bool]string{true: "?", false: ""}[segment.Doubtful]
	fmt.Fprintf(out, " | %s%s%s %d/%d %q of %d:", arrow(dir), flags, doubtful, off, ack, segment.Payload, size)
	conn.Segment(dir, &segment, conn.now)
	conn.now += 1000
}

// TestScriptsMatchTheirGoldens: what random connections yield stands in testdata/scripts.golden. GOLDEN=1 in the environment
// rewrites it.
func TestScriptsMatchTheirGoldens(t *testing.T) {
	var out strings.Builder
	for seed := range uint64(400) {
		rng := rand.New(rand.NewPCG(seed, 26))
		cfg := testConfig()
		cfg.KeepLast = seed%4 == 3
		conn := newTestConn(t, cfg, [2]uint32{rng.Uint32(), 0xffffffff - rng.Uint32N(8)})
		conn.Init(&cfg, conn.pool, scriptedHandler{&out})
		fmt.Fprintf(&out, "%d:", seed)
		if seed%4 > 0 { // the others begin in the middle
			conn.handshake()
		}
		for range 3 + rng.IntN(9) {
			scriptStep(rng, conn, &out)
		}
		since, closing := conn.Closing()
		_, doubtful := conn.DoubtfulReset()
		by, reset := conn.ResetBy()
		fmt.Fprintf(&out, " | closing %t %d doubtful %t reset %t %d established %t ended %t %t sent %t %t packets %d %d", closing, since/1000, doubtful, reset, by, conn.Established(),
			conn.Ended(0), conn.Ended(1), conn.HasSent(0), conn.HasSent(1), conn.Packets(0), conn.Packets(1))
		for dir := range Dir(2) {
			base := conn.isn[dir] + 1
			fmt.Fprintf(&out, ", next %d top %d turn %d", int32(conn.NextSeq(dir)-base), int32(conn.TopSeq(dir)-base), int32(conn.TurnSeq(dir)-base))
		}
		if release := conn.NextRelease(); release != math.MaxInt64 {
			fmt.Fprintf(&out, ", release in %d", (release-conn.now)/1000)
		}
		for dir := range Dir(2) { // copies of what was delivered
			for off := range uint32(10) {
				for _, size := range []int{1, 3} {
					if b, known := conn.Delivered(dir, conn.isn[dir]+1+off, size); known {
						fmt.Fprintf(&out, " %s%d=%s", arrow(dir), off, b)
					}
				}
			}
		}
		fmt.Fprintf(&out, ", %d held | flush:", conn.Buffered())
		conn.Flush()
		out.WriteString("\n")
		conn.ForgetDelivered()
		if conn.Buffered() != 0 || conn.pool.Used() != 0 || conn.pool.Len() != 0 {
			t.Errorf("script %d: %d bytes, %d in the pool and %d holders are left", seed, conn.Buffered(), conn.pool.Used(), conn.pool.Len())
		}
	}
	const golden = "testdata/scripts.golden"
	if os.Getenv("GOLDEN") != "" {
		if err := os.WriteFile(golden, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	data, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Split(string(data), "\n")
	for i, line := range strings.Split(out.String(), "\n") {
		if !slices.Contains(want[i:min(i+1, len(want))], line) {
			t.Fatalf("GOLDEN=1 go test ./collector/reassembly -run Goldens rewrites %s\ngot:\n%s\nwant:\n%s", golden, line, want[min(i, len(want)-1)])
		}
	}
}
