package sessions

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/gopacket/layers"

	"tidegate/collector/links"
	"tidegate/pipeline"
)

// TestLabelsCarryEitherVersionOfIP: no field of a label says what follows (RFC 3032, section 2.2), so that the header of IP
// shows itself, also where the bytes of its addresses look like those of a frame of Ethernet.
func TestLabelsCarryEitherVersionOfIP(t *testing.T) {
	ends := map[string][2]string{
		"IPv4":                           {"10.0.0.1:40000", "10.0.0.2:80"},
		"IPv4 like Ethernet with IPv4":   {"8.0.69.1:40000", "10.0.0.2:80"},
		"IPv6":                           {"[fd99::1]:40000", "[fd99::2]:80"},
		"IPv6 like Ethernet with IPv4":   {"[2001:db8:800:4500::1]:40000", "[fd99::2]:80"},
		"IPv6 like Ethernet with IPv6":   {"[2001:db8:86dd:6000::1]:40000", "[fd99::2]:80"},
		"IPv6 like Ethernet with ARP":    {"[2001:db8:806:1::1]:40000", "[fd99::2]:80"},
		"IPv6 like Ethernet with a VLAN": {"[2001:db8:8100:7::1]:40000", "[fd99::2]:80"},
	}
	for name, pair := range ends {
		client, server := addrPort(pair[0]), addrPort(pair[1])
		for labels, stack := range map[string]string{"one label": "\x00\x01\x01\x40", "three": "\x00\x01\x00\x40\x00\x02\x00\x40\x00\x03\x01\x40"} {
			for _, multicast := range []string{"\x88\x47", "\x88\x48"} {
				for _, payload := range []string{"attack", strings.Repeat("x", 1200)} {
					for _, cut := range []int{0, 3} { // bytes that the capture has cut off
						test := newTableTest(t, Default(), Deps{Tunnels: EveryTunnel})
						inner := tcpFrame(t, client, server, "A", 1, 1, 1, payload)
						frame := slices.Concat(inner[:12], []byte(multicast+stack), inner[14:])
						wire := 18 + len(stack) - 4
						if client.Addr().Is4() {
							wire += 20 + 20 + len(payload)
						} else {
							wire += 40 + 20 + len(payload)
						}
						test.Packet("eth0", layers.LinkTypeEthernet, startTime, frame[:min(len(frame), wire)-cut], max(wire, len(frame)))
						sessions := test.closeSessions()
						if len(sessions) != 1 {
							t.Fatalf("%s behind %s: %d sessions", name, labels, len(sessions))
						}
						source, destination := sessions[0].Source, sessions[0].Destination
						if got := endOf(source); got != client || endOf(destination) != server || source.Bytes != uint64(len(payload)) {
							t.Errorf("%s behind %s, %d bytes cut off: %v → %v, %d bytes, want %v → %v, %d",
								name, labels, cut, got, endOf(destination), source.Bytes, client, server, len(payload))
						}
						if tunnel := sessions[0].Tunnel; tunnel.GetType() != links.MPLS.String() {
							t.Errorf("%s behind %s: the tunnel is %v", name, labels, tunnel)
						}
					}
				}
			}
		}
	}
}

// endOf returns the address and the port of an endpoint.
func endOf(end *pipeline.Endpoint) netip.AddrPort {
	addr, _ := netip.AddrFromSlice(end.Ip)
	return netip.AddrPortFrom(addr, uint16(end.Port))
}

// TestCapturedBytesAreReadWhateverTheLengthOnTheWireSays: it is not less than the captured length
// (draft-ietf-opsawg-pcap, section 5), so that a record that says so is wrong about it.
func TestCapturedBytesAreReadWhateverTheLengthOnTheWireSays(t *testing.T) {
	text := strings.Repeat("attack", 10)
	for _, pair := range [][2]string{{"10.0.0.1:40000", "10.0.0.2:80"}, {"[fd99::1]:40000", "[fd99::2]:80"}} {
		client, server := addrPort(pair[0]), addrPort(pair[1])
		for name, frame := range map[string][]byte{
			"TCP": tcpFrame(t, client, server, "A", 1, 1, 1, text), "UDP": udpFrame(t, client, server, 1, text),
		} {
			for _, wire := range []int{len(frame), len(frame) - 1, len(frame) - 59, 14, 1, 0, -1, len(frame) + 9} {
				test := newTableTest(t, Default(), Deps{})
				test.Packet("eth0", layers.LinkTypeEthernet, startTime, frame, wire)
				bytes := uint64(0)
				for _, session := range test.closeSessions() {
					bytes += session.Source.Bytes
				}
				if got := string(test.recorder.bytes[0]); got != text || bytes != uint64(len(text)) {
					t.Errorf("%s of %v, a frame of %d bytes with %d on the wire: %d bytes, %q", name, client.Addr(), len(frame), wire, bytes, got)
				}
			}
		}
	}
}

// TestDamagedPacketsHaveTheirOtherMarks: what their headers show is said of them, too.
func TestDamagedPacketsHaveTheirOtherMarks(t *testing.T) {
	check := func(change func(p *packet), want ...string) {
		t.Helper()
		test := newTableTest(t, Default(), Deps{Bridge: func(string) bool { return true }})
		test.Packet("docker0", layers.LinkTypeEthernet, startTime, nil, 0) // the interface is known
		p := &packet{src: addrOf(netip.MustParseAddr("10.0.0.1")), dst: addrOf(netip.MustParseAddr("10.0.0.2")), proto: protoTCP, sport: 7, dport: 8}
		p.Time, p.Flags = startTime, 2
		change(p)
		test.handleDamaged(p, 77)
		sessions := test.closeSessions()
		if len(sessions) != 1 {
			t.Fatalf("%d sessions", len(sessions))
		}
		tags := slices.Sorted(slices.Values(sessions[0].Tags))
		want = append(want, pipeline.TagUndecoded)
		slices.Sort(want)
		if !slices.Equal(tags, want) || sessions[0].Source.Bytes != 77 || sessions[0].Source.Packets != 1 || sessions[0].Source.Port != 0 {
			t.Errorf("tags %v, want %v: %v", tags, want, sessions[0])
		}
	}
	check(func(*packet) {})
	check(func(p *packet) { p.conflict = true }, pipeline.TagOverlapConflict)
	check(func(p *packet) { p.movedMAC = true }, pipeline.TagMACMoved)
	check(func(p *packet) { p.refused = true }, pipeline.TagRefusedHeaders)
	check(func(p *packet) { p.conflict, p.movedMAC = true, true }, pipeline.TagMACMoved, pipeline.TagOverlapConflict)
}
