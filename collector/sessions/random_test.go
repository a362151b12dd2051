package sessions

import (
	"bytes"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"tidegate/collector/capture"
	"tidegate/collector/links"
	"tidegate/pipeline"
	"tidegate/pipeline/lineartest"
)

// TestRandomStreams: however segments were cut, reordered, repeated and overlapped, the parser gets the bytes
// that were sent, with a gap in the place of those that were not captured.
func TestRandomStreams(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 2))
		test := newTableTest(t, Default(), Deps{})
		test.isn = [2]uint32{rng.Uint32(), 1<<32 - 1 - rng.Uint32N(3000)} // near 2^32, so that it wraps
		test.handshake()
		var sent, want [2][]byte
		sent[0] = append(sent[0], "hello"...) // the protocol is known before anything is lost
		want[0] = append(want[0], "hello"...)
		test.segment(">", "A", 0, 0, "hello")
		loss := rng.IntN(3) == 0
		for range 1 + rng.IntN(8) {
			from := rng.IntN(2)
			sendTurn(test, rng, from, &sent, &want, loss)
		}
		test.Tick(startTime + int64(test.now+time.Second))
		test.closeOrderly(len(sent[0]), len(sent[1]))
		session := test.closeOneSession().Session
		for dir := range 2 {
			got := test.recorder.bytes[dir]
			if !bytes.Equal(got, want[dir]) {
				differAt := 0
				for differAt < min(len(want[dir]), len(got)) && want[dir][differAt] == got[differAt] {
					differAt++
				}
				t.Fatalf("seed %d, direction %d: %d bytes, want %d; they differ at %d\n%v", seed, dir,
					len(got), len(want[dir]), differAt, session)
			}
		}
		lost := bytes.Count(want[0], []byte{0}) + bytes.Count(want[1], []byte{0})
		got := int(session.ClientMissingBytes + session.ServerMissingBytes)
		if got != lost || session.OverlapConflicts != 0 || session.State != stateFIN {
			t.Fatalf("seed %d: %d bytes missing, want %d; %v", seed, got, lost, session)
		}
	}
}

// sendTurn sends a message of one side in segments, in random order. Some are sent twice with other bounds;
// if loss is set, one is left out instead. sent and want get the message as it was sent and as the parser
// must get it.
func sendTurn(test *tableTest, rng *rand.Rand, from int, sent, want *[2][]byte, loss bool) {
	start := len(sent[from])
	message := make([]byte, 1+rng.IntN(20_000))
	for i := range message {
		message[i] = byte(1 + rng.IntN(255))
	}
	type part struct{ lo, hi int }
	var segments []part
	for lo := 0; lo < len(message); {
		hi := min(lo+1+rng.IntN(1460), len(message))
		segments = append(segments, part{lo, hi})
		lo = hi
	}
	seen := append([]byte(nil), message...)
	if loss {
		i := rng.IntN(len(segments))
		for j := segments[i].lo; j < segments[i].hi; j++ {
			seen[j] = 0
		}
		segments = slices.Delete(segments, i, i+1)
	} else {
		for range rng.IntN(6) { // bytes that are sent twice, with other bounds
			lo := rng.IntN(len(message))
			hi := min(lo+1+rng.IntN(3000), len(message))
			segments = append(segments, part{lo, hi})
		}
	}
	for range rng.IntN(len(segments) + 1) { // reordered
		i, j := rng.IntN(len(segments)), rng.IntN(len(segments))
		segments[i], segments[j] = segments[j], segments[i]
	}
	way, back := ">", "<"
	if from == 1 {
		way, back = "<", ">"
	}
	acked := rng.IntN(len(segments) + 1) // the receiver's acknowledgement is captured somewhere among them
	for i, segment := range segments {
		if i == acked {
			test.segment(back, "A", len(sent[1-from]), start+len(message), "")
		}
		test.segment(way, "A", start+segment.lo, len(sent[1-from]), string(message[segment.lo:segment.hi]))
	}
	test.segment(back, "A", len(sent[1-from]), start+len(message), "")
	sent[from] = append(sent[from], message...)
	want[from] = append(want[from], seen...)
}

// TestRepliesNeverOvertakeRequests: requests and replies are numbered. In whatever order they were captured
// within the grace, the parser gets request n before reply n.
func TestRepliesNeverOvertakeRequests(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 3))
		test := newTableTest(t, Default(), Deps{}).handshake()
		type message struct {
			way      string
			off, ack int
			payload  string
		}
		var messages []message
		for i := range 40 {
			letter := string(rune('A' + i%26))
			messages = append(messages, message{">", 2 * i, 2 * i, "q" + letter}, message{"<", 2 * i, 2*i + 2, "r" + letter})
		}
		for i := range messages { // up to six places later
			if j := i + rng.IntN(6); j < len(messages) {
				messages[i], messages[j] = messages[j], messages[i]
			}
		}
		for _, msg := range messages {
			test.segment(msg.way, "A", msg.off, msg.ack, msg.payload)
		}
		test.closeOneSession()
		var want strings.Builder
		for i := range 40 {
			letter := string(rune('A' + i%26))
			want.WriteString(">q" + letter + " <r" + letter + " ")
		}
		test.wantParserLog(want.String() + "close")
	}
}

// TestDecodeAgreesWithGopacket: addresses, ports and payload of every packet of the captures are those that
// gopacket's layers have for the innermost TCP or UDP header. Packets whose innermost header gopacket
// does not reach are left out.
func TestDecodeAgreesWithGopacket(t *testing.T) {
	files, _ := filepath.Glob(filepath.Join(sharedData(t), "data", "pcaps", "*.pcap*"))
	same, other := 0, 0
	for _, path := range files {
		file, err := capture.OpenFile(path)
		if err != nil {
			continue
		}
		table := New(Default(), Deps{Tunnels: EveryTunnel}, nil)
		for number := 1; ; number++ {
			captured, err := file.Next()
			if err != nil {
				break
			}
			var got packet
			result := table.decoder.decodeFrame(&got, captured.Link, captured.Data, captured.Length)
			table.decoder.frags.releaseComplete()
			if result != resTCP && result != resUDP {
				continue
			}
			theirs := gopacket.NewPacket(captured.Data, captured.Link, gopacket.DecodeOptions{Lazy: false, NoCopy: true})
			agree, known := agreesWithGopacket(&got, theirs, captured.Length > len(captured.Data))
			switch {
			case !known:
				other++
			case agree:
				same++
			default:
				t.Errorf("%s, packet %d: %v:%d → %v:%d %d bytes", filepath.Base(path), number, got.src.netip(),
					got.sport, got.dst.netip(), got.dport, got.Size)
			}
		}
		_ = file.Close()
	}
	t.Logf("%d packets agree; of %d gopacket cannot decode the innermost header", same, other)
	if same < 20_000 {
		t.Errorf("only %d packets were compared", same)
	}
}

// agreesWithGopacket reports whether ours has the addresses, ports and payload of theirs. known is false if
// gopacket does not decode the innermost header. cut reports that the capture cut the packet.
func agreesWithGopacket(ours *packet, theirs gopacket.Packet, cut bool) (agree, known bool) {
	var network gopacket.NetworkLayer
	var transport gopacket.Layer
	for _, layer := range theirs.Layers() {
		switch layer := layer.(type) {
		case *layers.IPv4:
			network, transport = layer, nil
			if layer.Flags&layers.IPv4MoreFragments != 0 || layer.FragOffset > 0 || layer.Length == 0 {
				return false, false
			}
		case *layers.IPv6:
			network, transport = layer, nil
			if layer.Length == 0 {
				return false, false
			}
		case *layers.IPv6Fragment:
			return false, false
		case *layers.TCP, *layers.UDP:
			transport = layer
		}
	}
	if transport == nil || network == nil {
		return false, false
	}
	src, dst := addrOf16(network.NetworkFlow().Src().Raw()), addrOf16(network.NetworkFlow().Dst().Raw())
	var sport, dport uint16
	switch layer := transport.(type) {
	case *layers.TCP:
		sport, dport = uint16(layer.SrcPort), uint16(layer.DstPort)
		if ours.proto == protoTCP && (ours.Seq != layer.Seq || ours.Ack != layer.Ack || ours.Window != layer.Window) {
			return false, true
		}
	case *layers.UDP:
		sport, dport = uint16(layer.SrcPort), uint16(layer.DstPort)
		// gopacket does not decode these tunnels.
		if dport == links.PortVXLANLinux || dport == links.PortGeneve || dport == links.PortVXLAN ||
			dport == links.PortGTP || sport == links.PortGTP || dport == links.PortGRE {
			return false, false
		}
	}
	if theirs.Layer(layers.LayerTypePPPoE) != nil ||
		theirs.Layer(layers.LayerTypeGeneve) != nil && ours.sport == links.PortGeneve {
		return false, false // gopacket takes padding for payload, and a source port for a tunnel
	}
	if theirs.ErrorLayer() != nil && !bytes.Equal(ours.Payload, transport.LayerPayload()) {
		return false, false
	}
	return src == ours.src && dst == ours.dst && sport == ours.sport && dport == ours.dport &&
		(cut || bytes.Equal(ours.Payload, transport.LayerPayload())), true
}

// addrOf16 returns the address of 4 or 16 bytes.
func addrOf16(data []byte) addr {
	if len(data) == 4 {
		return addrFrom4(data)
	}
	return addrFrom16(data)
}

// FuzzPackets: no frame makes a Table panic or exceed its bounds. The input is a list of packets, each with a
// kind and a length in front. Packets of an odd kind become segments of one connection with valid headers.
func FuzzPackets(f *testing.F) {
	good := tcpFrame(f, addrPort("10.0.0.1:4000"), addrPort("10.0.0.2:80"), "SA", 1, 2, 3, "abc")
	f.Add(append([]byte{0, byte(len(good))}, good...), uint8(1))
	v6 := udpFrame(f, addrPort("[fd00::1]:4789"), addrPort("[fd00::2]:4789"), 3,
		"\x08\x00\x00\x00\x00\x00\x00\x00"+string(good))
	f.Add(append([]byte{0, byte(len(v6))}, v6...), uint8(1))
	f.Add([]byte{
		1, 10, 0, 0, 0, 5, 0, 0, 0, 1, 0x18, 9, 'x', 'y',
		1, 10, 0, 0, 0, 1, 0, 0, 0, 9, 0x11, 1, 'z', 'z',
	}, uint8(1))
	f.Fuzz(func(t *testing.T, in []byte, link uint8) {
		lineartest.CheckRepeated(t, lineartest.Default, in, func(in []byte) {
			cfg := Config{
				MaxSessions: 16, ReassemblyBytesPerSession: 64 << 10, ReassemblyBytes: 128 << 10,
				FragmentBytes: 128 << 10,
			}
			test := newTableTest(t, cfg, Deps{Tunnels: EveryTunnel, Bridge: func(name string) bool { return name == "docker0" }})
			at := startTime
			for len(in) > 2 {
				kind, size := in[0], min(int(in[1]), len(in)-2)
				data := in[2 : 2+size]
				in = in[2+size:]
				at += int64(kind) * 3e6
				if kind%2 == 1 && size >= 10 {
					data = segmentFrame(data)
				}
				iface := []string{"eth0", "docker0"}[kind/2%2]
				test.Packet(iface, layers.LinkType(link), at, data, len(data)+int(kind&4)*100)
				if test.pool.Used() > int(cfg.ReassemblyBytes)+(70<<10) || len(test.flows) > cfg.MaxSessions ||
					test.decoder.frags.cost > int(cfg.FragmentBytes)+(70<<10) {
					t.Fatalf("%d bytes, %d flows, %d bytes of fragments",
						test.pool.Used(), len(test.flows), test.decoder.frags.cost)
				}
			}
			test.Close()
			if test.pool.Used() != 0 || len(test.flows) != 0 || test.outboxEvents != 0 {
				t.Fatalf("%d bytes, %d flows, %d events are left",
					test.pool.Used(), len(test.flows), test.outboxEvents)
			}
			sessions := 0.0
			for _, event := range test.events {
				if event.Dataset == pipeline.Dataset_SESSION {
					sessions++
				}
			}
			opened := -counterValue(test.metrics.duplicates)
			for _, transport := range test.metrics.opened {
				opened += counterValue(transport)
			}
			if size := counterValue(test.metrics.panics); size != 0 || sessions != opened {
				t.Fatalf("%v panics; %v sessions opened, %v reported", size, opened, sessions)
			}
		})
	})
}

// segmentFrame returns a valid frame whose sequence numbers, flags and payload are from input.
func segmentFrame(input []byte) []byte {
	seq := uint32(input[0])<<24 | uint32(input[1])<<16 | uint32(input[2])<<8 | uint32(input[3])
	ack := uint32(input[4])<<24 | uint32(input[5])<<16 | uint32(input[6])<<8 | uint32(input[7])
	src, dst := addrPort("10.0.0.1:4000"), addrPort("10.0.0.2:80")
	if input[9]&0x80 != 0 {
		src, dst = dst, src
	}
	payload := bytes.Repeat(input[10:], 1+int(input[9]&0x7f))
	data := tcpFrame(nopTB{}, src, dst, "", seq, ack, uint16(input[9]), string(payload))
	data[47] = input[8]
	return data
}

// A nopTB is a testing.TB without a test, for tcpFrame, which cannot fail here.
type nopTB struct{ testing.TB }

func (nopTB) Helper()           {}
func (nopTB) Fatal(args ...any) { panic(args) }
