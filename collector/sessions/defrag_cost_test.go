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
	check("a fragment and its source", sourceCost+one)
	add(2, 0, true, "01234567")
	check("a fragment of another datagram", sourceCost+2*one)
	add(1, 16, true, strings.Repeat("x", 400))
	check("a second fragment", sourceCost+2*one+reassembly.BufferCost(400))
	if _, result := add(1, 8, false, "y"); result != resBadFragment { // an end before bytes that were seen
		t.Errorf("%s", resultNames[result])
	}
	check("a datagram that was given up", sourceCost+one)
	data, _ := add(2, 8, false, "89")
	if string(data) != "0123456789" {
		t.Errorf("the datagram is %q", data)
	}
	f.releaseComplete()
	check("a complete datagram", 0)
}

// TestFragmentsAreThoseOfLinux: what is in units of eight bytes but for the last one, in IPv4 by dropping the rest, and ends
// where the last one says.
func TestFragmentsAreThoseOfLinux(t *testing.T) {
	type part struct {
		off  int
		more bool
		text string
	}
	check := func(what string, v6 bool, want string, last result, parts ...part) {
		t.Helper()
		f := &New(Default(), Deps{}, nil).decoder.frags
		got, result := "", resFragment
		for _, in := range parts {
			var data []byte
			data, result = f.addFragment(1, ipFragment{key: fragKey{id: 7, v6: v6}, off: in.off, more: in.more, b: []byte(in.text), wire: len(in.text)})
			got += string(data)
		}
		if got != want || result != last {
			t.Errorf("%s: %q, %s; want %q, %s", what, got, resultNames[result], want, resultNames[last])
		}
		f.close()
		if f.cost != 0 {
			t.Errorf("%s: %d bytes are charged at the end", what, f.cost)
		}
	}
	whole := "01234567abcdefghij"
	check("two", false, whole, resFragment, part{0, true, whole[:8]}, part{8, false, whole[8:]})
	check("two of IPv6", true, whole, resFragment, part{0, true, whole[:8]}, part{8, false, whole[8:]})
	check("the last one first", false, whole, resFragment, part{8, false, whole[8:]}, part{0, true, whole[:8]})
	check("one that is cut", false, whole, resFragment, part{0, true, whole[:8] + "xyz"}, part{8, false, whole[8:]})
	check("one that is cut, of IPv6", true, "", resBadFragment, part{8, false, whole[8:]}, part{0, true, whole[:8] + "xyz"})
	check("one that is cut to nothing", false, "", resBadFragment, part{0, true, "xyz"})
	check("an empty one", false, "", resBadFragment, part{0, false, ""})
	check("a whole datagram", false, whole, resFragment, part{0, false, whole})
	check("the longest", false, "", resFragment, part{maxDatagram - 7, false, "abcdefg"})
	check("one byte more", false, "", resBadFragment, part{maxDatagram - 7, false, "abcdefgh"})
	check("two ends", false, "", resBadFragment, part{8, false, whole[8:]}, part{8, false, whole[8:17]})
	check("the same end twice", false, whole, resFragment, part{8, false, whole[8:]}, part{8, false, whole[8:]}, part{0, true, whole[:8]})
	check("bytes behind the end", false, "", resBadFragment, part{8, false, whole[8:]}, part{16, true, whole[:8]})
	check("an end before other bytes", false, "", resBadFragment, part{8, true, whole[8:16]}, part{0, false, whole[:8]})
	check("an end at other bytes", false, "", resFragment, part{8, true, whole[8:16]}, part{8, false, whole[8:16]})
}

// TestFragmentsOfAnEarlierDatagramAreDropped: more than 64 other fragments of the source came since, so that the id is that
// of another datagram. Linux does so with IPv4 only.
func TestFragmentsOfAnEarlierDatagramAreDropped(t *testing.T) {
	check := func(what string, others int, otherSource, v6 bool, want string) {
		t.Helper()
		f := &New(Default(), Deps{}, nil).decoder.frags
		add := func(id uint32, source byte, off int, more bool, text string) string {
			key := fragKey{id: id, src: addr{lo: uint64(source)}, v6: v6}
			data, _ := f.addFragment(1, ipFragment{key: key, off: off, more: more, b: []byte(text), wire: len(text)})
			return string(data)
		}
		add(7, 1, 16, false, "old") // of a datagram whose other fragments never come
		for i := range others {
			source := byte(1)
			if otherSource {
				source = 2
			}
			add(uint32(100+i), source, 0, true, "12345678")
		}
		got := add(7, 1, 8, false, "de")
		got += add(7, 1, 0, true, "newabcde")
		if got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
		f.close()
		if f.cost != 0 || len(f.sources) != 0 {
			t.Errorf("%s: %d bytes and %d sources are left", what, f.cost, len(f.sources))
		}
	}
	check("63 others", 63, false, false, "") // the end contradicts: both datagrams are given up
	check("64 others", 64, false, false, "newabcdede")
	check("of another source", 100, true, false, "")
	check("of IPv6", 100, false, true, "")
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
