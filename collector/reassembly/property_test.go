package reassembly

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"tidegate/pipeline/lineartest"
)

// A randomSegment is a segment of a random conversation. cut is the part of the stream that it carries.
type randomSegment struct {
	dir   Dir
	flags string
	cut
	ack int
}

// TestAnySplitInAnyOrder: both directions are cut at random, repeated, overlapped and shuffled, across the
// wrap of the sequence numbers, with acknowledgements or without. The handler gets the bytes that were sent,
// no gap, and each end once.
func TestAnySplitInAnyOrder(t *testing.T) {
	for seed := range uint64(400) {
		rng := rand.New(rand.NewPCG(seed, 1))
		testConn := newTestConn(t, testConfig(), [2]uint32{randomISN(rng), randomISN(rng)}).handshake()
		streams := [2][]byte{randomBytes(rng, 1+rng.IntN(30_000)), randomBytes(rng, 1+rng.IntN(30_000))}
		acks := rng.IntN(2) == 0

		var list []randomSegment
		for dir := range Dir(2) {
			size := len(streams[dir])
			for _, part := range withRepeats(rng, cuts(rng, size, 1460), size) {
				segment := randomSegment{dir: dir, flags: "", cut: part}
				if acks {
					segment.flags, segment.ack = "A", rng.IntN(len(streams[dir^1])+1)
				}
				list = append(list, segment)
			}
			list = append(list, randomSegment{dir: dir, flags: "F", cut: cut{size, size}})
		}
		if acks {
			dropClientAcks(list)
		}
		shuffle(rng, list)
		for _, segment := range list {
			testConn.segment(
				segment.dir,
				segment.flags,
				segment.lo,
				segment.ack,
				string(streams[segment.dir][segment.lo:segment.hi]),
			)
		}

		for dir := range Dir(2) {
			if !bytes.Equal(testConn.bytes[dir], streams[dir]) || len(testConn.gaps[dir]) > 0 ||
				!testConn.recorder.ended[dir] {
				t.Fatalf(
					"seed %d, direction %d: %d of %d bytes, gaps %v, ended %v",
					seed,
					dir,
					len(testConn.bytes[dir]),
					len(streams[dir]),
					testConn.gaps[dir],
					testConn.recorder.ended[dir],
				)
			}
		}
		testConn.checkEmpty()
	}
}

// dropClientAcks removes the acknowledgements of direction 0, the client. Otherwise a segment of each
// direction could acknowledge the other one, and both would wait.
func dropClientAcks(list []randomSegment) {
	for i := range list {
		if list[i].dir == 0 {
			list[i].ack = 0
		}
	}
}

// TestMissingBytesBecomeGaps: bytes that no segment carries are a gap in their place, after the grace if they
// were acknowledged, else after the timeout.
func TestMissingBytesBecomeGaps(t *testing.T) {
	for seed := range uint64(400) {
		rng := rand.New(rand.NewPCG(seed, 2))
		testConn := newTestConn(t, testConfig(), [2]uint32{randomISN(rng), randomISN(rng)}).handshake()
		stream := randomBytes(rng, 2+rng.IntN(30_000))
		list := cuts(rng, len(stream), 1460)
		for range 1 + rng.IntN(4) {
			if len(list) > 1 {
				lost := rng.IntN(len(list))
				clear(stream[list[lost].lo:list[lost].hi])
				list = slices.Delete(list, lost, lost+1)
			}
		}
		acked := rng.IntN(2) == 0
		if !acked { // nothing shows that the tail is missing
			end := 0
			for _, part := range list {
				end = max(end, part.hi)
			}
			stream = stream[:end]
		}
		shuffle(rng, list)

		for _, part := range list {
			testConn.segment(0, "A", part.lo, 0, string(stream[part.lo:part.hi]))
		}
		why := GapTimeout
		if acked {
			why = GapAcked
			testConn.segment(1, "A", 0, len(stream), "")
			testConn.wait(9 * time.Millisecond)
			if len(testConn.gaps[0]) > 0 {
				t.Fatalf("seed %d: a gap was given up within the grace", seed)
			}
			testConn.wait(2 * time.Millisecond)
		} else {
			testConn.wait(testConfig().GapTimeout)
		}

		if !bytes.Equal(testConn.bytes[0], stream) || !slices.Equal(mergeGaps(testConn.gaps[0]), zeroRanges(stream)) ||
			!sameReasons(testConn.gaps[0], why) {
			t.Fatalf("seed %d: %d of %d bytes, gaps %v, want %v (%v)",
				seed, len(testConn.bytes[0]), len(stream), testConn.gaps[0], zeroRanges(stream), why)
		}
		testConn.checkEmpty()
	}
}

// TestOverlapsFollowThePolicy: waiting segments that overlap and differ are compared with a model that writes
// the bytes of each segment into an array, only once or every time.
func TestOverlapsFollowThePolicy(t *testing.T) {
	for seed := range uint64(600) {
		rng := rand.New(rand.NewPCG(seed, 3))
		cfg := testConfig()
		cfg.KeepLast = seed%2 == 1
		testConn := newTestConn(t, cfg, [2]uint32{randomISN(rng), randomISN(rng)}).handshake()
		size := 2 + rng.IntN(400)
		model := make([]byte, size)
		differ := false
		for range 1 + rng.IntN(30) { // byte 0 is held back, so all of them wait
			lo := 1 + rng.IntN(size-1)
			data := randomBytes(rng, min(1+rng.IntN(60), size-lo))
			for i, value := range data {
				differ = differ || model[lo+i] != 0 && model[lo+i] != value
				if model[lo+i] == 0 || cfg.KeepLast {
					model[lo+i] = value
				}
			}
			testConn.segment(0, "A", lo, 0, string(data))
		}
		model[0] = 'x'
		testConn.segment(0, "A", 0, 0, "x")
		testConn.wait(3 * time.Second)

		model = bytes.TrimRight(model, "\x00")
		if !bytes.Equal(testConn.bytes[0], model) || (testConn.observed[OverlapConflict] > 0) != differ {
			t.Fatalf("seed %d, keep last %v: conflict %d, want %v\n got %q\nwant %q",
				seed, cfg.KeepLast, testConn.observed[OverlapConflict], differ, testConn.bytes[0], model)
		}
		testConn.finish()
	}
}

// TestRepliesNeverOvertakeRequests: requests and replies are numbered and acknowledge each other. In whatever
// order they were captured, the handler gets request n before reply n, and reply n before request n+1.
func TestRepliesNeverOvertakeRequests(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 4))
		testConn := newTestConn(t, testConfig(), [2]uint32{randomISN(rng), randomISN(rng)}).handshake()
		type message struct {
			dir      Dir
			off, ack int
			text     string
		}
		var list []message
		var want strings.Builder
		for i := range 40 {
			letter := string(rune('A' + i%26))
			list = append(list, message{0, 2 * i, 2 * i, "q" + letter}, message{1, 2 * i, 2*i + 2, "r" + letter})
			want.WriteString(">q" + letter + " <r" + letter + " ")
		}
		for i := range list { // up to eight places late
			if j := i + rng.IntN(8); j < len(list) {
				list[i], list[j] = list[j], list[i]
			}
		}
		for _, msg := range list {
			testConn.segment(msg.dir, "A", msg.off, msg.ack, msg.text)
		}
		testConn.want(strings.TrimSpace(want.String()))
		testConn.checkEmpty()
	}
}

// TestBoundsHold: no input makes a Conn or a Pool hold more than its bound and one segment, and nothing is
// left after Flush.
func TestBoundsHold(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 5))
		cfg := testConfig()
		cfg.ConnBuffer = 64 << 10
		const limit, oneSegment = 256 << 10, 70 << 10
		pool := NewPool(limit)
		var conns []*testConn
		for range 16 {
			conn := newTestConn(t, cfg, [2]uint32{rng.Uint32(), rng.Uint32()})
			conn.pool = pool
			conn.Init(&cfg, pool, conn.recorder)
			conns = append(conns, conn.handshake())
		}
		for range 3000 {
			conn := conns[rng.IntN(len(conns))]
			conn.segment(Dir(rng.IntN(2)), "A", rng.IntN(1<<20), rng.IntN(1<<18),
				strings.Repeat("x", 1+rng.IntN(3000)))
			if conn.Buffered() > cfg.ConnBuffer+oneSegment || pool.Used() > limit+oneSegment {
				t.Fatalf("seed %d: %d bytes in a Conn, %d in the Pool", seed, conn.Buffered(), pool.Used())
			}
		}
		sum := 0
		for _, conn := range conns {
			sum += conn.Buffered()
		}
		if sum != pool.Used() {
			t.Fatalf("seed %d: the Conns hold %d bytes, the Pool has %d", seed, sum, pool.Used())
		}
		for i, conn := range conns {
			if i%2 == 0 {
				conn.Flush()
			} else {
				conn.Discard()
			}
		}
		conns[0].checkEmpty()
	}
}

// FuzzConn: no segments make a Conn panic, exceed its bounds, end a direction twice, or keep anything. Each
// segment is eight bytes of input.
func FuzzConn(f *testing.F) {
	f.Add([]byte("\x00\x02\x00\x00\x00\x00\x00\x00\x01\x12\x00\x00\x00\x00\x00\x00\x00\x10\x00\x00\x00\x05\x00\x00"))
	f.Add([]byte("\x00\x10\x00\x05\x00\x05\x00\x00\x00\x10\x00\x00\x00\x05\x00\x00\x01\x11\x00\x00\x00\x05\x00\x0a"))
	f.Add([]byte("\x01\x14\x00\x00\x00\x00\x00\x00\x80\x10\xff\xff\xff\x05\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, in []byte) {
		lineartest.CheckRepeated(t, lineartest.Default, in, func(in []byte) {
			cfg := testConfig()
			cfg.ConnBuffer, cfg.KeepLast = 64<<10, len(in)%2 == 1
			testConn := newTestConn(t, cfg, [2]uint32{1<<32 - 100, 77})
			testConn.hostile = true
			for ; len(in) >= 8; in = in[8:] {
				dir, far := Dir(in[0]&1), int(in[0]>>1&3)<<14
				segment := Segment{
					Flags: in[1] & 0x1f, Seq: testConn.isn[dir] + uint32(far+int(int16(uint16(in[2])<<8|uint16(in[3])))),
					Size: int(in[4])<<3 | int(in[5]&7), Window: uint16(in[5]) << 8,
					Ack: testConn.isn[dir^1] + uint32(int16(uint16(in[6])<<8|uint16(in[7]))), Time: testConn.now,
				}
				segment.Payload = bytes.Repeat([]byte{in[5] | 1}, segment.Size)
				if in[0]&0x40 != 0 {
					segment.Payload = segment.Payload[:segment.Size/2]
				}
				if in[0]&0x20 != 0 {
					segment.Options = in[2:6]
				}
				testConn.Segment(dir, &segment, testConn.now)
				if in[0]&0x80 != 0 {
					testConn.wait(time.Duration(in[7]) * 10 * time.Millisecond)
				}
				if testConn.Buffered() > cfg.ConnBuffer+70<<10 || testConn.Buffered() != testConn.pool.Used() {
					t.Fatalf("%d bytes in the Conn, %d in the Pool", testConn.Buffered(), testConn.pool.Used())
				}
			}
			testConn.finish()
		})
	})
}
