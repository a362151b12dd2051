package sessions

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/gopacket/layers"
)

// tagFrame returns an Ethernet frame with tags, each of four bytes, before its EtherType.
func tagFrame(frame []byte, tags ...string) []byte {
	return slices.Insert(slices.Clone(frame), 12, []byte(strings.Join(tags, ""))...)
}

// TestPriorityTagsAreNoVLAN: a tag with the VLAN id 0 changes neither the connection of its frame nor the VLAN of its
// event, on any interface, however many there are and of whichever standard.
func TestPriorityTagsAreNoVLAN(t *testing.T) {
	const priority, high, service, vlan = "\x81\x00\x00\x00", "\x81\x00\xe0\x00", "\x88\xa8\x00\x00", "\x81\x00\x00\x07"
	repeated := func(n int, tag string) []string { return slices.Repeat([]string{tag}, n) }
	check := func(name string, wantVLAN uint32, tags ...[]string) {
		t.Helper()
		for _, iface := range []string{"eth0", "docker0"} {
			test := newTableTest(t, Default(), Deps{Bridge: func(name string) bool { return name == "docker0" }})
			for i, letter := range strings.Split("attack", "") {
				frame := tcpFrame(t, addrPort("10.0.0.1:40000"), addrPort("10.0.0.2:80"), "A",
					test.isn[0]+1+uint32(i), test.isn[1]+1, uint16(i+1), letter)
				frame = tagFrame(frame, tags[i%len(tags)]...)
				test.Packet(iface, layers.LinkTypeEthernet, startTime+int64(i)*1e6, frame, len(frame))
			}
			sessions := test.closeSessions()
			if len(sessions) != 1 || sessions[0].Source.Bytes != 6 || sessions[0].Vlan != wantVLAN {
				t.Errorf("%s on %s: %v, want one session of 6 bytes in the VLAN %d", name, iface, sessions, wantVLAN)
			}
		}
	}
	check("one in turn", 0, nil, []string{priority})
	check("six", 0, repeated(6, priority))
	check("as many as fit", 0, repeated(360, priority), nil)
	check("with a priority", 0, []string{high}, nil)
	check("802.1ad", 0, []string{service}, nil)
	check("mixed", 0, append(repeated(3, priority), repeated(6, service)...), nil, repeated(9, high))
	check("around a VLAN", 7, []string{vlan}, []string{priority, vlan}, []string{vlan, service})
}

// TestVLANsStayApartOnABridge: frames of two VLANs, and of none, are three connections, whatever priority tags they
// have. A tag of a vendor's type is not taken for a priority tag.
func TestVLANsStayApartOnABridge(t *testing.T) {
	test := newTableTest(t, Default(), Deps{Bridge: func(string) bool { return true }})
	for i, tag := range []string{"", "\x81\x00\x00\x07", "\x81\x00\x00\x08", "\x91\x00\x00\x00"} {
		frame := tcpFrame(t, addrPort("10.0.0.1:40000"), addrPort("10.0.0.2:80"), "A", 1, 1, uint16(i+1), "x")
		frame = tagFrame(frame, tag, "\x81\x00\x00\x00")
		test.Packet("docker0", layers.LinkTypeEthernet, startTime+int64(i)*1e6, frame, len(frame))
	}
	if sessions := test.closeSessions(); len(sessions) != 4 {
		t.Errorf("%d sessions, want 4", len(sessions))
	}
}
