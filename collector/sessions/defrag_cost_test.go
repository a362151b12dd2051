package sessions

import (
	"strings"
	"testing"

	"github.com/google/gopacket/layers"

	"tidegate/collector/reassembly"
)

// TestFragmentsAreChargedWithTheirBuffers and with their datagram, until it is complete, given up or over.
func TestFragmentsAreChargedWithTheirBuffers(t *testing.T) {
	table := New(Default(), Deps{}, nil)
	f := &table.decoder.frags
	add := func(id uint32, off int, more bool, text string) ([]byte, result) {
		return f.addFragment(1, ipFragment{key: fragKey{id: id}, off: off, more: more, b: []byte(text), wire: len(text)})
	}
	check := func(what string, want int) {
		t.Helper()
		if f.cost != want {
			t.Errorf("%s: %d bytes are charged, want %d", what, f.cost, want)
		}
	}
	check("nothing", 0)
	one := reassembly.BufferOverhead + reassembly.BufferCost(8)
	add(1, 0, true, "01234567")
	check("a fragment", one)
	add(2, 0, true, "01234567")
	check("a fragment of another datagram", 2*one)
	add(1, 16, true, strings.Repeat("x", 400))
	check("a second fragment", 2*one+reassembly.BufferCost(400))
	if _, result := add(1, 8, false, "y"); result != resBadFragment { // an end before bytes that were seen
		t.Errorf("%s", resultNames[result])
	}
	check("a datagram that was given up", one)
	data, _ := add(2, 8, false, "89")
	if string(data) != "0123456789" {
		t.Errorf("the datagram is %q", data)
	}
	f.releaseComplete()
	check("a complete datagram", 0)
}

// TestERSPANOfTypeIIIHasAPartOfThePlatform if its flag O is set.
func TestERSPANOfTypeIIIHasAPartOfThePlatform(t *testing.T) {
	inner := string(tcpFrame(t, addrPort("10.0.0.1:4000"), addrPort("10.0.0.2:80"), "A", 1, 1, 1, "abc"))
	for header, want := range map[string]result{
		"\x20" + strings.Repeat("\x00", 11):                       resTCP,
		"\x20" + strings.Repeat("\x00", 10) + "\x01" + "platform": resTCP,
		"\x20" + strings.Repeat("\x00", 10) + "\x01":              resNotIP,
		"\x20" + strings.Repeat("\x00", 10) + "\xfe":              resTCP,
	} {
		gre := "\x10\x00\x22\xeb\x00\x00\x00\x01" + header + inner
		total := 20 + len(gre)
		data := strings.Repeat("\x02", 12) + "\x08\x00\x45\x00" + string([]byte{byte(total >> 8), byte(total)}) +
			"\x00\x00\x00\x00\x09\x2f\x00\x00\x01\x01\x01\x01\x02\x02\x02\x02" + gre
		var got packet
		result := New(Default(), Deps{Tunnels: EveryTunnel}, nil).decoder.decodeFrame(&got, layers.LinkTypeEthernet, []byte(data), len(data))
		if (result == resTCP) != (want == resTCP) || want == resTCP && string(got.Payload) != "abc" {
			t.Errorf("%x: %s, %q", header, resultNames[result], got.Payload)
		}
	}
}
