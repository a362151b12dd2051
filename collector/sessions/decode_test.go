package sessions

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket/layers"

	"tidegate/pipeline"
)

// TestTCPOptionsAreDecoded: reassembly reads the window scale from the options, as far as they were captured.
func TestTCPOptionsAreDecoded(t *testing.T) {
	segment := &layers.TCP{
		SrcPort: 4000, DstPort: 80, SYN: true,
		Options: []layers.TCPOption{{
			OptionType: layers.TCPOptionKindWindowScale, OptionLength: 3,
			OptionData: []byte{7},
		}},
	}
	whole := frame(t, addrPort("10.0.0.1:4000").Addr(), addrPort("10.0.0.2:80").Addr(), 1, segment, "")
	check := func(captured int, want string) {
		t.Helper()
		var got packet
		decoder := New(Default(), Deps{Tunnels: EveryTunnel}, nil).decoder
		result := decoder.decodeFrame(&got, layers.LinkTypeEthernet, whole[:captured], 58)
		if result != resTCP || string(got.Options) != want {
			t.Errorf("%d bytes: %s, options %q, want %q", captured, resultNames[result], got.Options, want)
		}
	}
	check(58, "\x03\x03\x07\x00")
	check(56, "\x03\x03")
	check(54, "")
}

// TestNestingIsBounded: a packet with too many headers is dropped as too deep.
func TestNestingIsBounded(t *testing.T) {
	data := tcpFrame(t, addrPort("10.0.0.1:4000"), addrPort("10.0.0.2:80"), "A", 1, 1, 1, "abc")[14:]
	for range 400 {
		length := len(data) + 20
		header := []byte{0x45, 0, byte(length >> 8), byte(length), 0, 0, 0, 0, 9, 4, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2}
		data = append(header, data...)
	}
	table := New(Default(), Deps{Tunnels: EveryTunnel}, nil)
	var got packet
	if result := table.decoder.decodeFrame(&got, layers.LinkTypeRaw, data, len(data)); result != resTooDeep {
		t.Errorf("%s", resultNames[result])
	}
}

// TestCutPacketIsAGap: bytes that the snapshot length left out are a gap in their place.
func TestCutPacketIsAGap(t *testing.T) {
	test := newTableTest(t, Default(), Deps{}).handshake()
	packet := tcpFrame(t, addrPort("10.0.0.1:40000"), addrPort("10.0.0.2:80"), "A", 1001, 5001, 77, "abcdefghij")
	test.Packet("eth0", layers.LinkTypeEthernet, startTime+int64(test.now), packet[:len(packet)-4], len(packet))
	test.segment(">", "A", 10, 0, "klm")
	test.wantParserLog(">abcdef >gap4 >klm")
	if event := test.closeOneSession(); event.Session.ClientMissingBytes != 4 || event.Source.Bytes != 13 {
		t.Errorf("session %v", event)
	}
}

// fragments returns a frame of IPv4 or IPv6 as fragments with size bytes of payload each.
func fragments(t testing.TB, frame []byte, size int) [][]byte {
	var out [][]byte
	head, payload := frame[:34], frame[34:]
	if frame[12] == 0x86 {
		head, payload = frame[:54], frame[54:]
	}
	for off := 0; off < len(payload); off += size {
		part := payload[off:min(off+size, len(payload))]
		more := off+len(part) < len(payload)
		data := slices.Clone(head)
		if len(head) == 34 {
			binary.BigEndian.PutUint16(data[16:], uint16(20+len(part)))
			field := uint16(off / 8)
			if more {
				field |= 0x2000
			}
			binary.BigEndian.PutUint16(data[20:], field)
		} else {
			next := data[20]
			data[20] = 44 // the Fragment header, RFC 8200 section 4.5
			field := uint16(off)
			if more {
				field |= 1
			}
			binary.BigEndian.PutUint16(data[18:], uint16(8+len(part)))
			data = append(data, next, 0, byte(field>>8), byte(field), 0, 0, 0, 9)
		}
		out = append(out, append(data, part...))
	}
	return out
}

// TestFragments: fragments of both IP versions, in any order and some twice, become one datagram, and no
// memory stays in use.
func TestFragments(t *testing.T) {
	for _, ends := range [][2]string{{"10.0.0.1:4000", "10.0.0.2:53"}, {"[fd00::1]:4000", "[fd00::2]:53"}} {
		for seed := range uint64(20) {
			rng := rand.New(rand.NewPCG(seed, 4))
			test := newTableTest(t, Default(), Deps{})
			text := strings.Repeat("x", 39)
			parts := fragments(t, udpFrame(t, addrPort(ends[0]), addrPort(ends[1]), 7,
				strings.Repeat("y", 3000)+text), 104)
			parts = append(parts, parts[rng.IntN(len(parts))])
			rng.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
			for _, part := range parts {
				test.Packet("eth0", layers.LinkTypeEthernet, startTime, part, len(part))
			}
			test.wantParserLog(">yyyyyyyy…3039")
			test.Tick(startTime + int64(70*time.Second))
			if test.decoder.frags.cost != 0 || len(test.decoder.frags.datagrams) != 0 {
				t.Errorf("%d bytes of fragments are left", test.decoder.frags.cost)
			}
			test.closeOneSession()
		}
	}
}

// TestFragmentsAreBounded: datagrams that never become complete, or overlap, take bounded memory and yield no
// session.
func TestFragmentsAreBounded(t *testing.T) {
	test := newTableTest(t, configWith(func(c *Config) { c.FragmentBytes = 128 << 10 }), Deps{})
	for i := range 2000 {
		part := fragments(t, udpFrame(t, addrPort("10.0.0.1:4000"), addrPort("10.0.0.2:53"), uint16(i),
			strings.Repeat("y", 2000)), 1000)[0]
		test.Packet("eth0", layers.LinkTypeEthernet, startTime, part, len(part))
		if test.decoder.frags.cost > 128<<10 {
			t.Fatalf("%d bytes", test.decoder.frags.cost)
		}
	}
	if len(test.closeSessions()) != 0 {
		t.Error("half a datagram made a session")
	}
	test = newTableTest(t, Default(), Deps{})
	first := fragments(t, udpFrame(t, addrPort("[fd00::1]:4000"), addrPort("[fd00::2]:53"), 1,
		strings.Repeat("y", 300)), 104)
	second := fragments(t, udpFrame(t, addrPort("[fd00::1]:4000"), addrPort("[fd00::2]:53"), 1,
		strings.Repeat("y", 300)), 56)
	// An overlap ends the datagram.
	for _, part := range [][]byte{first[0], second[1], first[1], first[2]} {
		test.Packet("eth0", layers.LinkTypeEthernet, startTime, part, len(part))
	}
	if len(test.closeSessions()) != 0 {
		t.Error("overlapping fragments of IPv6 made a datagram")
	}
}

// TestFragmentsBeginAnewAfterAnOverlap: Linux drops a datagram whose fragments overlap, and takes a complete
// one with the same id that follows. A fragment within what has come in a row is a repetition.
func TestFragmentsBeginAnewAfterAnOverlap(t *testing.T) {
	for name, ends := range map[string][2]string{
		"IPv4": {"10.0.0.1:4000", "10.0.0.2:53"}, "IPv6": {"[fd00::1]:4000", "[fd00::2]:53"},
	} {
		parts := func(text string, size int) [][]byte {
			return fragments(t, udpFrame(t, addrPort(ends[0]), addrPort(ends[1]), 7, strings.Repeat(text, 300)), size)
		}
		real, decoy, wide := parts("r", 104), parts("d", 56), parts("r", 208)
		check := func(form, want string, packets ...[]byte) {
			t.Helper()
			test := newTableTest(t, Default(), Deps{})
			for _, packet := range packets {
				test.Packet("eth0", layers.LinkTypeEthernet, startTime, packet, len(packet))
			}
			test.Close()
			if got := strings.TrimSpace(strings.TrimSuffix(test.recorder.log.String(), "close")); !strings.HasPrefix(got, want) || want == "" && got != "" {
				t.Errorf("%s, %s: parser got %q, want %q", name, form, got, want)
			}
		}
		check("an overlap first", ">rrr", decoy[1], real[0], real[0], real[1], real[2])
		check("an overlap between", "", real[0], decoy[1], real[1], real[2])
		check("an overlap, then all", ">rrr", real[0], decoy[1], real[1], real[2], real[0])
		check("a part of a run", ">rrr", real[0], real[1], parts("r", 56)[1], real[2])
		check("two parts of a run", ">rrr", real[0], real[1], wide[0], real[2])
		check("parts of two runs", "", real[1], real[0], wide[0], real[2])
		check("an end before other bytes", "", real[1], decoy[0], parts("d", 280)[1], real[0], parts("d", 56)[5])
	}
}

// TestDatagrams: an exchange of datagrams is one session, which ends when it is idle.
func TestDatagrams(t *testing.T) {
	test := newTableTest(t, Default(), Deps{})
	send := func(at time.Duration, src, dst, payload string) {
		test.ipid++
		packet := udpFrame(t, addrPort(src), addrPort(dst), test.ipid, payload)
		test.Packet("", layers.LinkTypeEthernet, startTime+int64(at), packet, len(packet))
	}
	client, server := "10.0.0.1:40000", "10.0.0.2:53"
	send(0, client, server, "ask")
	send(3*time.Millisecond, server, client, "tell")
	send(40*time.Second, client, server, "ask")
	sessions := test.closeSessions()
	test.wantParserLog(">ask <tell close >ask close")
	if len(sessions) != 2 || sessions[0].Session.State != stateTimeout || sessions[0].Session.ResponseTime != 3e6 ||
		sessions[0].Transport != pipeline.Transport_UDP || sessions[0].Destination.Bytes != 4 ||
		len(sessions[0].Interfaces) != 0 {
		t.Errorf("sessions %v", sessions)
	}
}

// TestServerIsFirstInTheCapture: the ports decide the direction.
func TestServerIsFirstInTheCapture(t *testing.T) {
	test := newTableTest(t, Default(), Deps{})
	packet := udpFrame(t, addrPort("10.0.0.2:53"), addrPort("10.0.0.1:40000"), 1, "tell")
	test.Packet("", layers.LinkTypeEthernet, startTime, packet, len(packet))
	test.wantParserLog("<tell")
	if event := test.closeOneSession(); event.Destination.Port != 53 {
		t.Errorf("session %v", event)
	}
}

// TestEvictionTakesTheLeastValuable: a scan evicts its own sessions, not an established one.
func TestEvictionTakesTheLeastValuable(t *testing.T) {
	test := newTableTest(t, configWith(func(c *Config) { c.MaxSessions = 64 }), Deps{}).handshake()
	test.segment(">", "A", 0, 0, "abc")
	test.segment("<", "A", 0, 3, "def")
	for i := range 5000 {
		src := addrPort("10.9.0.1:1000").Addr()
		syn := frame(t, src, addrPort("10.0.0.2:80").Addr(), uint16(i),
			&layers.TCP{SrcPort: 5, DstPort: layers.TCPPort(i + 1), Seq: 1, SYN: true, Window: 9}, "")
		test.Packet("eth0", layers.LinkTypeEthernet, startTime+int64(test.now)+int64(i)*1000, syn, len(syn))
		if len(test.flows) > 64 {
			t.Fatalf("%d flows", len(test.flows))
		}
	}
	test.setTime(test.now+10*time.Millisecond).segment(">", "A", 3, 3, "ghi")
	states := map[string]int{}
	for _, event := range test.closeSessions() {
		states[event.Session.State]++
	}
	test.wantParserLog(">abc <def >ghi close")
	if states[stateEvicted] < 4900 {
		t.Errorf("%v", states)
	}
}
