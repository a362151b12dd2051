package sessions

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/gopacket/layers"

	"tidegate/pipeline"
)

// withExtensions returns frame, an Ethernet frame with IPv6, with extension headers of eight bytes each:
// their types are given, and their bodies are empty options, or that of a Fragment header of a packet in one
// piece.
func withExtensions(frame []byte, types ...byte) []byte {
	var headers []byte
	last := frame[20]
	for i, typ := range types {
		next := last
		if i+1 < len(types) {
			next = types[i+1]
		}
		body := []byte{next, 0, 1, 4, 0, 0, 0, 0}
		if typ == protoFragment {
			body[2], body[3] = 0, 0
		}
		headers = append(headers, body...)
	}
	out := slices.Insert(slices.Clone(frame), 54, headers...)
	out[20] = types[0]
	binary.BigEndian.PutUint16(out[18:], uint16(len(out)-54))
	return out
}

// TestExtensionHeadersAreBoundedByThePacket: a segment is read behind any number of extension headers, as Linux reads
// it, but not behind many Fragment headers, of which Linux takes one.
func TestExtensionHeadersAreBoundedByThePacket(t *testing.T) {
	check := func(wantBytes uint64, types ...byte) {
		t.Helper()
		test := newTableTest(t, Default(), Deps{})
		frame := tcpFrame(t, addrPort("[fd99::1]:40000"), addrPort("[fd99::2]:80"), "A", 1, 1, 1, "attack")
		frame = withExtensions(frame, types...)
		test.Packet("eth0", layers.LinkTypeEthernet, startTime, frame, len(frame))
		bytes := uint64(0)
		for _, session := range test.closeSessions() {
			bytes += session.Source.Bytes
		}
		if bytes != wantBytes {
			t.Errorf("%d headers: %d bytes, want %d", len(types), bytes, wantBytes)
		}
	}
	for _, count := range []int{1, 7, 8, 9, 20, 8000} {
		check(6, slices.Repeat([]byte{protoDestOpts}, count)...)
	}
	check(6, protoDestOpts, protoFragment, protoDestOpts)
	check(0, slices.Repeat([]byte{protoFragment}, 9)...)
}

// damagedFrames returns frames between two hosts whose addresses are read and whose ports are not.
func damagedFrames(t testing.TB, src, dst netip.AddrPort) map[string][]byte {
	whole := tcpFrame(t, src, dst, "A", 1, 1, 1, "attack")
	change := func(at int, values ...byte) []byte {
		frame := slices.Clone(whole)
		copy(frame[at:], values)
		return frame
	}
	return map[string][]byte{
		"a TCP header of 16 bytes":       change(14+20+12, 0x40),
		"a TCP header beyond the packet": change(14+20+12, 0xf0),
		"no whole TCP header":            whole[:14+20+10],
		"a fragment beyond 64 KiB":       change(14+6, 0x1f, 0xff),
	}
}

// TestDamagedPacketsOfAContainerAreTold: packets on a bridge that cannot be read are one session of their
// addresses, with a tag. Elsewhere they are counted only.
func TestDamagedPacketsOfAContainerAreTold(t *testing.T) {
	client, server := addrPort("10.0.0.1:40000"), addrPort("10.0.0.2:80")
	for name, frame := range damagedFrames(t, client, server) {
		for _, iface := range []string{"docker0", "eth0"} {
			test := newTableTest(t, Default(), Deps{Bridge: func(name string) bool { return name == "docker0" }})
			for i := range 50 {
				frame := slices.Clone(frame)
				frame[14+5] = byte(i)
				test.Packet(iface, layers.LinkTypeEthernet, startTime+int64(i)*1e6, frame, len(frame))
			}
			sessions := test.closeSessions()
			if iface == "eth0" {
				if len(sessions) != 0 {
					t.Errorf("%s on eth0: %v", name, sessions)
				}
				continue
			}
			if len(sessions) != 1 {
				t.Fatalf("%s: %d sessions, want 1", name, len(sessions))
			}
			session := sessions[0]
			if !slices.Equal(session.Tags, []string{pipeline.TagUndecoded}) || session.Source.Packets != 50 ||
				session.Source.Port != 0 || session.Transport != pipeline.Transport_TRANSPORT_NONE || len(session.CommunityId) > 0 {
				t.Errorf("%s: %v", name, session)
			}
			if got := test.recorder.log.String(); strings.Contains(got, ">") {
				t.Errorf("%s: the parser got %s", name, got)
			}
		}
	}
}

// TestDamagedPacketsAreBounded: damaged packets between any number of addresses take as many flows as others may, and
// end none that is open for a connection.
func TestDamagedPacketsAreBounded(t *testing.T) {
	deps := Deps{Bridge: func(string) bool { return true }}
	test := newTableTest(t, configWith(func(c *Config) { c.MaxSessions = 64 }), deps).handshake()
	test.segment(">", "A", 0, 0, "abc")
	test.segment("<", "A", 0, 3, "def")
	frame := tcpFrame(t, addrPort("10.9.0.1:1"), addrPort("10.9.0.2:1"), "A", 1, 1, 1, "attack")
	frame[14+20+12] = 0x40
	for i := range 5000 {
		binary.BigEndian.PutUint32(frame[14+12:], uint32(i))
		test.Packet("eth0", layers.LinkTypeEthernet, startTime+int64(test.now)+int64(i)*1000, frame, len(frame))
		if len(test.flows) > 64 {
			t.Fatalf("%d flows", len(test.flows))
		}
	}
	test.segment(">", "A", 3, 3, "ghi")
	test.Close()
	test.wantParserLog(">abc <def >ghi close")
}
