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
	"tidegate/pipeline"
)

// TestRandomStreams: however segments were cut, reordered, repeated and overlapped, the parser gets the bytes
// that were sent, with a gap in the place of those that were not captured.
func TestRandomStreams(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 2))
		tableTest := newTableTest(t, Default(), Deps{})
		tableTest.isn = [2]uint32{rng.Uint32(), 1<<32 - 1 - rng.Uint32N(3000)} // near 2^32, so that it wraps
		tableTest.handshake()
		var sent, want [2][]byte
		sent[0] = append(sent[0], "hello"...) // the protocol is known before anything is lost
		want[0] = append(want[0], "hello"...)
		tableTest.segment(">", "A", 0, 0, "hello")
		loss := rng.IntN(3) == 0
		for range 1 + rng.IntN(8) {
			from := rng.IntN(2)
			sendTurn(tableTest, rng, from, &sent, &want, loss)
		}
		tableTest.Tick(startTime + int64(tableTest.now+time.Second))
		tableTest.closeOrderly(len(sent[0]), len(sent[1]))
		session := tableTest.closeOneSession().Session
		for d := range 2 {
			if !bytes.Equal(tableTest.recorder.bytes[d], want[d]) {
				i := 0
				for i < len(want[d]) && i < len(tableTest.recorder.bytes[d]) && want[d][i] == tableTest.recorder.bytes[d][i] {
					i++
				}
				t.Fatalf("seed %d, direction %d: %d bytes, want %d; they differ at %d\n%v", seed, d,
					len(tableTest.recorder.bytes[d]), len(want[d]), i, session)
			}
		}
		lost := bytes.Count(want[0], []byte{0}) + bytes.Count(want[1], []byte{0})
		if got := int(session.ClientMissingBytes + session.ServerMissingBytes); got != lost || session.OverlapConflicts != 0 ||
			session.State != stateFIN {
			t.Fatalf("seed %d: %d bytes missing, want %d; %v", seed, got, lost, session)
		}
	}
}

// sendTurn sends a message of one side in segments: some are repeated, reordered or, if loss is set, left
// out.
func sendTurn(b *tableTest, rng *rand.Rand, from int, sent, want *[2][]byte, loss bool) {
	start := len(sent[from])
	msg := make([]byte, 1+rng.IntN(20_000))
	for i := range msg {
		msg[i] = byte(1 + rng.IntN(255))
	}
	type seg struct{ lo, hi int }
	var segs []seg
	for lo := 0; lo < len(msg); {
		hi := min(lo+1+rng.IntN(1460), len(msg))
		segs = append(segs, seg{lo, hi})
		lo = hi
	}
	seen := append([]byte(nil), msg...)
	if loss {
		i := rng.IntN(len(segs))
		for j := segs[i].lo; j < segs[i].hi; j++ {
			seen[j] = 0
		}
		segs = slices.Delete(segs, i, i+1)
	} else {
		for range rng.IntN(6) { // repeated, with other borders
			lo := rng.IntN(len(msg))
			hi := min(lo+1+rng.IntN(3000), len(msg))
			segs = append(segs, seg{lo, hi})
		}
	}
	for range rng.IntN(len(segs) + 1) { // reordered
		i, j := rng.IntN(len(segs)), rng.IntN(len(segs))
		segs[i], segs[j] = segs[j], segs[i]
	}
	way, back := ">", "<"
	if from == 1 {
		way, back = "<", ">"
	}
	acked := rng.IntN(len(segs) + 1) // the receiver's acknowledgement is captured somewhere among them
	for i, s := range segs {
		if i == acked {
			b.segment(back, "A", len(sent[1-from]), start+len(msg), "")
		}
		b.segment(way, "A", start+s.lo, len(sent[1-from]), string(msg[s.lo:s.hi]))
	}
	b.segment(back, "A", len(sent[1-from]), start+len(msg), "")
	sent[from] = append(sent[from], msg...)
	want[from] = append(want[from], seen...)
}

// TestRepliesNeverOvertakeRequests: requests and replies are numbered. In whatever order they were captured
// within the grace, the parser gets request n before reply n.
func TestRepliesNeverOvertakeRequests(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 3))
		tableTest := newTableTest(t, Default(), Deps{}).handshake()
		type pkt struct {
			way      string
			off, ack int
			payload  string
		}
		var pkts []pkt
		for i := range 40 {
			n := string(rune('A' + i%26))
			pkts = append(pkts, pkt{">", 2 * i, 2 * i, "q" + n}, pkt{"<", 2 * i, 2*i + 2, "r" + n})
		}
		for i := range pkts { // up to six places later
			if j := i + rng.IntN(6); j < len(pkts) {
				pkts[i], pkts[j] = pkts[j], pkts[i]
			}
		}
		for _, p := range pkts {
			tableTest.segment(p.way, "A", p.off, p.ack, p.payload)
		}
		tableTest.closeOneSession()
		var want strings.Builder
		for i := range 40 {
			n := string(rune('A' + i%26))
			want.WriteString(">q" + n + " <r" + n + " ")
		}
		tableTest.wantParserLog(want.String() + "close")
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
		table := New(Default(), Deps{}, nil)
		for n := 1; ; n++ {
			p, err := file.Next()
			if err != nil {
				break
			}
			var got packet
			r := table.decoder.decodeFrame(&got, p.Link, p.Data, p.Length)
			table.decoder.frags.releaseComplete()
			if r != resTCP && r != resUDP {
				continue
			}
			theirs := gopacket.NewPacket(p.Data, p.Link, gopacket.DecodeOptions{Lazy: false, NoCopy: true})
			agree, known := agreesWithGopacket(&got, theirs, p.Length > len(p.Data))
			switch {
			case !known:
				other++
			case agree:
				same++
			default:
				t.Errorf("%s, packet %d: %v:%d → %v:%d %d bytes", filepath.Base(path), n, got.src.netip(),
					got.sport, got.dst.netip(), got.dport, got.Size)
			}
		}
		_ = file.Close()
	}
	t.Logf("%d packets agree; of %d gopacket does not know the innermost header", same, other)
	if same < 20_000 {
		t.Errorf("only %d packets were compared", same)
	}
}

func agreesWithGopacket(p *packet, g gopacket.Packet, cut bool) (agree, known bool) {
	var net gopacket.NetworkLayer
	var l4 gopacket.Layer
	for _, l := range g.Layers() {
		switch l := l.(type) {
		case *layers.IPv4:
			net, l4 = l, nil
			if l.Flags&layers.IPv4MoreFragments != 0 || l.FragOffset > 0 || l.Length == 0 {
				return false, false
			}
		case *layers.IPv6:
			net, l4 = l, nil
			if l.Length == 0 {
				return false, false
			}
		case *layers.IPv6Fragment:
			return false, false
		case *layers.TCP, *layers.UDP:
			l4 = l
		}
	}
	if l4 == nil || net == nil {
		return false, false
	}
	src, dst := addrOf16(net.NetworkFlow().Src().Raw()), addrOf16(net.NetworkFlow().Dst().Raw())
	var sport, dport uint16
	switch l := l4.(type) {
	case *layers.TCP:
		sport, dport = uint16(l.SrcPort), uint16(l.DstPort)
		if p.proto == protoTCP && (p.Seq != l.Seq || p.Ack != l.Ack || p.Window != l.Window) {
			return false, true
		}
	case *layers.UDP:
		sport, dport = uint16(l.SrcPort), uint16(l.DstPort)
		// gopacket does not decode these tunnels.
		if dport == portVXLANLinux || dport == portGeneve || dport == portVXLAN ||
			dport == portGTP || sport == portGTP || dport == portGRE {
			return false, false
		}
	}
	if g.Layer(layers.LayerTypePPPoE) != nil || g.Layer(layers.LayerTypeGeneve) != nil && p.sport == portGeneve {
		return false, false // gopacket takes padding for payload, and a source port for a tunnel
	}
	if g.ErrorLayer() != nil && !bytes.Equal(p.Payload, l4.LayerPayload()) {
		return false, false
	}
	return src == p.src && dst == p.dst && sport == p.sport && dport == p.dport &&
		(cut || bytes.Equal(p.Payload, l4.LayerPayload())), true
}

func addrOf16(data []byte) addr {
	if len(data) == 4 {
		return addrFrom4(data)
	}
	return addrFrom16(data)
}

// FuzzPackets: no frame makes a Table panic or exceed its bounds. The input is packets, each with a kind and
// a length in front. Packets of an odd kind become the payload of one connection, so that the fuzzer gets
// behind the headers.
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
		cfg := Config{
			MaxSessions: 16, ReassemblyBytesPerSession: 64 << 10, ReassemblyBytes: 128 << 10,
			FragmentBytes: 128 << 10,
		}
		tableTest := newTableTest(t, cfg, Deps{Bridge: func(s string) bool { return s == "docker0" }})
		at := startTime
		for len(in) > 2 {
			kind, n := in[0], min(int(in[1]), len(in)-2)
			data := in[2 : 2+n]
			in = in[2+n:]
			at += int64(kind) * 3e6
			if kind%2 == 1 && n >= 10 {
				data = segmentFrame(data)
			}
			iface := []string{"eth0", "docker0"}[kind/2%2]
			tableTest.Packet(iface, layers.LinkType(link), at, data, len(data)+int(kind&4)*100)
			if tableTest.pool.Used() > int(cfg.ReassemblyBytes)+(70<<10) || len(tableTest.flows) > cfg.MaxSessions ||
				tableTest.decoder.frags.cost > int(cfg.FragmentBytes)+(70<<10) {
				t.Fatalf("%d bytes, %d flows, %d bytes of fragments",
					tableTest.pool.Used(), len(tableTest.flows), tableTest.decoder.frags.cost)
			}
		}
		tableTest.Close()
		if tableTest.pool.Used() != 0 || len(tableTest.flows) != 0 || tableTest.outboxEvents != 0 {
			t.Fatalf("%d bytes, %d flows, %d events are left",
				tableTest.pool.Used(), len(tableTest.flows), tableTest.outboxEvents)
		}
		sessions := 0.0
		for _, e := range tableTest.events {
			if e.Dataset == pipeline.Dataset_SESSION {
				sessions++
			}
		}
		opened := counterValue(tableTest.metrics.opened[0]) + counterValue(tableTest.metrics.opened[1]) -
			counterValue(tableTest.metrics.duplicates)
		if n := counterValue(tableTest.metrics.panics); n != 0 || sessions != opened {
			t.Fatalf("%v panics; %v sessions opened, %v reported", n, opened, sessions)
		}
	})
}

// segmentFrame returns a valid frame whose sequence numbers, flags and payload are from p.
func segmentFrame(p []byte) []byte {
	seq := uint32(p[0])<<24 | uint32(p[1])<<16 | uint32(p[2])<<8 | uint32(p[3])
	ack := uint32(p[4])<<24 | uint32(p[5])<<16 | uint32(p[6])<<8 | uint32(p[7])
	src, dst := addrPort("10.0.0.1:4000"), addrPort("10.0.0.2:80")
	if p[9]&0x80 != 0 {
		src, dst = dst, src
	}
	f := tcpFrame(nopTB{}, src, dst, "", seq, ack, uint16(p[9]), string(bytes.Repeat(p[10:], 1+int(p[9]&0x7f))))
	f[47] = p[8]
	return f
}

// nopTB is a testing.TB for serialize, which cannot fail here.
type nopTB struct{ testing.TB }

func (nopTB) Helper()           {}
func (nopTB) Fatal(args ...any) { panic(args) }
