package reassembly

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	gopacketreassembly "github.com/google/gopacket/reassembly"
)

// A tcpSegment is a segment for both implementations.
type tcpSegment struct {
	dir     Dir
	flags   uint8
	seq     uint32
	payload []byte
}

// assembleByConn returns the bytes of both directions as a Conn delivers them, with zeros for missing bytes.
func assembleByConn(t testing.TB, list []tcpSegment) [2][]byte {
	testConn := newTestConn(t, testConfig(), [2]uint32{})
	for _, segment := range list {
		testConn.Segment(segment.dir, &Segment{
			Seq:     segment.seq,
			Flags:   segment.flags,
			Window:  65535,
			Payload: segment.payload,
			Size:    len(segment.payload),
			Time:    testConn.now,
		}, testConn.now)
		testConn.now += 1000
	}
	testConn.finish()
	return testConn.recorder.bytes
}

// A gopacketStream collects what gopacket's assembler yields, zeros where it skips bytes.
type gopacketStream struct{ bytes [2][]byte }

func (s *gopacketStream) New(
	_, _ gopacket.Flow, _ *layers.TCP, _ gopacketreassembly.AssemblerContext,
) gopacketreassembly.Stream {
	return s
}

func (s *gopacketStream) Accept(*layers.TCP, gopacket.CaptureInfo, gopacketreassembly.TCPFlowDirection,
	gopacketreassembly.Sequence, *bool, gopacketreassembly.AssemblerContext,
) bool {
	return true
}

func (s *gopacketStream) ReassembledSG(sg gopacketreassembly.ScatterGather, _ gopacketreassembly.AssemblerContext) {
	flowDir, _, _, skip := sg.Info()
	dir := 0
	if flowDir != gopacketreassembly.TCPDirClientToServer {
		dir = 1
	}
	if skip > 0 {
		s.bytes[dir] = append(s.bytes[dir], make([]byte, skip)...)
	}
	available, _ := sg.Lengths()
	s.bytes[dir] = append(s.bytes[dir], sg.Fetch(available)...)
}

func (s *gopacketStream) ReassemblyComplete(gopacketreassembly.AssemblerContext) bool { return true }

type captureContext gopacket.CaptureInfo

func (c *captureContext) GetCaptureInfo() gopacket.CaptureInfo { return gopacket.CaptureInfo(*c) }

// assembleByGopacket returns the bytes of both directions as gopacket's assembler delivers them, with zeros
// for missing bytes.
func assembleByGopacket(list []tcpSegment) [2][]byte {
	stream := &gopacketStream{}
	assembler := gopacketreassembly.NewAssembler(gopacketreassembly.NewStreamPool(stream))
	host := func(last byte) gopacket.Endpoint { return layers.NewIPEndpoint([]byte{10, 0, 0, last}) }
	flow, _ := gopacket.FlowFromEndpoints(host(1), host(2))
	at := time.Unix(1_700_000_000, 0)
	for _, segment := range list {
		from, to, way := uint16(4000), uint16(80), flow
		if segment.dir == 1 {
			from, to, way = to, from, flow.Reverse()
		}
		at = at.Add(time.Microsecond)
		assembler.AssembleWithContext(way, decodedTCP(from, to, segment), &captureContext{Timestamp: at})
	}
	assembler.FlushAll()
	return stream.bytes
}

// decodedTCP returns a TCP layer with its header encoded, because TransportFlow reads the header's bytes.
func decodedTCP(from, to uint16, segment tcpSegment) *layers.TCP {
	header := make([]byte, 20, 20+len(segment.payload))
	binary.BigEndian.PutUint16(header, from)
	binary.BigEndian.PutUint16(header[2:], to)
	binary.BigEndian.PutUint32(header[4:], segment.seq)
	header[12], header[13] = 5<<4, segment.flags
	binary.BigEndian.PutUint16(header[14:], 65535)
	tcp := &layers.TCP{}
	if err := tcp.DecodeFromBytes(append(header, segment.payload...), gopacket.NilDecodeFeedback); err != nil {
		panic(err)
	}
	return tcp
}

// TestAgreesWithGopacket: both implementations yield the same bytes and the same gaps from conversations that
// are cut, repeated, overlapped and shuffled at random, some of them with missing segments.
//
// The input keeps clear of the known differences, each of which has a test below.
func TestAgreesWithGopacket(t *testing.T) {
	missing := 0
	for seed := range uint64(500) {
		rng := rand.New(rand.NewPCG(seed, 6))
		isn := [2]uint32{rng.Uint32N(1 << 31), rng.Uint32N(1 << 31)} // no wrap
		lossy := seed%3 == 0
		var list []tcpSegment
		for dir := range Dir(2) {
			stream := randomBytes(rng, 1+rng.IntN(20_000))
			parts := cuts(rng, len(stream), 1460)
			if lossy && len(parts) > 2 {
				lost := rng.IntN(len(parts))
				parts = append(parts[:lost], parts[lost+1:]...)
			} else {
				parts = withRepeats(rng, parts, len(stream))
			}
			for _, part := range parts {
				list = append(list, tcpSegment{dir, 0, isn[dir] + 1 + uint32(part.lo), stream[part.lo:part.hi]})
			}
		}
		shuffle(rng, list)
		list = append([]tcpSegment{{0, SYN, isn[0], nil}, {1, SYN | ACK, isn[1], nil}}, list...)

		ours, theirs := assembleByConn(t, list), assembleByGopacket(list)
		for dir := range ours {
			missing += len(zeroRanges(ours[dir]))
			if !bytes.Equal(ours[dir], theirs[dir]) {
				differAt := 0
				for differAt < min(len(ours[dir]), len(theirs[dir])) && ours[dir][differAt] == theirs[dir][differAt] {
					differAt++
				}
				t.Fatalf("seed %d, direction %d: we yield %d bytes, gopacket %d; they differ at %d", seed, dir,
					len(ours[dir]), len(theirs[dir]), differAt)
			}
		}
	}
	if missing < 100 {
		t.Errorf("only %d gaps were compared", missing)
	}
}

// TestDifferencesFromGopacket lists where we differ on purpose. A case fails when the difference is gone, so
// that the list stays true.
func TestDifferencesFromGopacket(t *testing.T) {
	check := func(reason, want string, list ...tcpSegment) {
		t.Helper()
		ours, theirs := assembleByConn(t, list), assembleByGopacket(list)
		if string(ours[0]) != want {
			t.Errorf("%s: we yield %.40q, want %q", reason, ours[0], want)
		}
		if bytes.Equal(ours[0], theirs[0]) {
			t.Errorf("%s: gopacket yields the same: take the case out of the list", reason)
		}
	}
	data := func(seq uint32, text string) tcpSegment { return tcpSegment{0, 0, seq, []byte(text)} }
	syn := func(isn uint32) tcpSegment { return tcpSegment{0, SYN, isn, nil} }

	check("its difference of sequence numbers is off by one across 2^32, here in the length of a gap",
		"\x00\x00\x00\x00\x00\x00efgh",
		syn(1<<32-4), data(3, "efgh"))
	check("a RST outside of the window ends its stream; RFC 5961 has it ignored", "abcdef",
		syn(1000), data(1001, "abc"), tcpSegment{0, RST, 500, nil}, data(1004, "def"))
	check("the last of overlapping waiting segments counts; here Config.KeepLast decides, by default the first",
		"abCDef",
		syn(1000), data(1003, "CD"), data(1003, "XY"), data(1001, "ab"), data(1005, "ef"))
	check("it yields a segment behind a gap that no receiver can have asked for", "abc",
		syn(1000), tcpSegment{1, SYN | ACK, 9, nil}, data(1001, "abc"), data(1001+200_000, "far"))
	check("it holds a stream without its beginning until the flush; here the first segment is the beginning",
		"cdef",
		data(1003, "cd"), data(1001, "ab"), data(1005, "ef"))
}
