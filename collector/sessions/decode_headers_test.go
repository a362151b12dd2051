package sessions

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/gopacket/layers"

	"tidegate/collector/links"
)

// cutResults returns the results of the frames that begin with the first bytes of frame: each with the number of bytes
// from which on it holds.
func cutResults(t *testing.T, frame wrappedFrame) string {
	t.Helper()
	table := New(Default(), Deps{Tunnels: EveryTunnel}, nil)
	last, out := numResults, ""
	for size := range len(frame.data) + 1 {
		var cut packet
		result := table.decoder.decodeFrame(&cut, frame.link, slices.Clone(frame.data[:size]), len(frame.data))
		if result == resTCP && (cut.Size != 3 || !strings.HasPrefix("abc", string(cut.Payload)) || cut.sport != 4000 || cut.dport != 80) {
			t.Errorf("%s, %d bytes of it: %d bytes, %q, ports %d and %d", frame.name, size, cut.Size, cut.Payload, cut.sport, cut.dport)
		}
		if result != last {
			out += fmt.Sprintf("%s %d ", resultNames[result], size)
			last = result
		}
	}
	return strings.TrimSpace(out)
}

// TestCutFrameIsTruncated up to the last byte of its TCP header. From there on it is a segment of the size on the wire, with
// a front of its bytes. What no header announces is recognised once its own header is there: the frame of a
// pseudowire, the attribute of a log, a tunnel in UDP.
func TestCutFrameIsTruncated(t *testing.T) {
	// Results before the segment, where there are others than a truncated one.
	const (
		pseudowire = "truncated 0 not_ip 19 truncated 22" // 14 of Ethernet, 4 of the label, then one byte that decides
		unusual    = "truncated 0 not_ip 19 truncated 35" // 17 bytes of the inner header show what it is
		vxlan      = "truncated 0 udp 42 truncated 64"    // 8 and 14 bytes behind UDP
		inUDP      = "truncated 0 udp 42 truncated 51"    // one byte behind a header of 8
		teredo     = "truncated 0 udp 42"                 // its length is that of the datagram
	)
	special := map[string]string{
		"pseudowire with a control word": "truncated 0 not_ip 23 truncated 26", "pseudowire without one": pseudowire,
		"pseudowire of a vlan without one": pseudowire, "pseudowire 00 without a control word": pseudowire,
		"pseudowire 00 with a control word": pseudowire, "pseudowire 10 without a control word": unusual,
		"pseudowire 10 with a control word": pseudowire, "pseudowire 40 with a control word": pseudowire,
		"pseudowire 45 with a control word": pseudowire, "pseudowire 60 with a control word": pseudowire,
		"pseudowire fe without a control word": unusual, "pseudowire fe with a control word": pseudowire,
		"VXLAN": vxlan, "VXLAN of Linux": vxlan, "VXLAN with reserved bits": vxlan, "MPLS in VXLAN": vxlan,
		"VXLAN in VXLAN": vxlan + " udp 92 truncated 114", "VXLAN-GPE": inUDP, "Ethernet in VXLAN-GPE": inUDP, "NSH in VXLAN-GPE": inUDP,
		"VXLAN at the port of VXLAN-GPE": inUDP, "GTP": inUDP, "Geneve": "truncated 0 udp 42 truncated 54",
		"MPLS in UDP": "truncated 0 udp 42 truncated 47", "Teredo": teredo, "Teredo with origin": teredo,
		"Teredo with authentication": teredo, "NFLOG": "truncated 0 not_ip 4 truncated 16",
	}
	inner := tcpFrame(t, addrPort("10.0.0.1:4000"), addrPort("10.0.0.2:80"), "A", 1, 1, 1, "abc")
	for _, frame := range encapsulations(t, inner) {
		before, begin := special[frame.name], bytes.LastIndex(frame.data, []byte("abc"))
		switch before {
		case "":
			before = "truncated 0"
		case teredo:
			begin = len(frame.data)
		}
		if got, want := cutResults(t, frame), fmt.Sprintf("%s tcp %d", before, begin); got != want {
			t.Errorf("%s: %s, want %s", frame.name, got, want)
		}
	}
}

// TestHeadersInUDPAreRecognised by their fixed bits, and only as long as they are whole.
func TestHeadersInUDPAreRecognised(t *testing.T) {
	type header struct {
		size int
		typ  uint16
	}
	check := func(what string, parse func([]byte) header, text string, want header) {
		t.Helper()
		if got := parse([]byte(text)); got != want {
			t.Errorf("%s: %d bytes, type %#x; want %d, %#x", what, got.size, got.typ, want.size, want.typ)
		}
	}
	none := header{}

	// GTP-U: version 1, protocol type GTP, message 255; flags E, S and PN; extensions in units of four bytes.
	gtp := func(b []byte) header { size, typ := gtpHeader(b); return header{size, typ} }
	const length = "\x00\x10\x00\x00\x00\x07"
	check("GTP", gtp, "\x30\xff"+length+"\x45", header{8, etherIPv4})
	check("GTP of IPv6", gtp, "\x30\xff"+length+"\x60", header{8, etherIPv6})
	check("GTP of neither", gtp, "\x30\xff"+length+"\x50", none)
	check("GTP without a payload", gtp, "\x30\xff"+length, none)
	check("GTP'", gtp, "\x20\xff"+length+"\x45", none)
	check("GTP of version 2", gtp, "\x50\xff"+length+"\x45", none)
	check("an echo of GTP", gtp, "\x30\x01"+length+"\x45", none)
	for flag, name := range map[string]string{"\x32": "a sequence number", "\x31": "an N-PDU number", "\x34": "no extension", "\x33": "both numbers"} {
		check("GTP with "+name, gtp, flag+"\xff"+length+"\x00\x01\x00\x00\x45", header{12, etherIPv4})
		check("GTP with "+name+", cut", gtp, flag+"\xff"+length+"\x00\x01\x00\x00", none)
	}
	check("a number that looks like an extension", gtp, "\x32\xff"+length+"\x00\x01\x00\x85\x45", header{12, etherIPv4})
	check("GTP with an extension", gtp, "\x34\xff"+length+"\x00\x00\x00\x85\x01\x10\x09\x00\x60", header{16, etherIPv6})
	check("GTP with an extension of 8 bytes", gtp, "\x34\xff"+length+"\x00\x00\x00\x85\x02\x10\x09\x00\x00\x00\x00\x00\x45", header{20, etherIPv4})
	check("GTP with two extensions", gtp, "\x34\xff"+length+"\x00\x00\x00\x85\x01\x10\x09\x40\x01\x00\x00\x00\x45", header{20, etherIPv4})
	check("GTP with an extension of no bytes", gtp, "\x34\xff"+length+"\x00\x00\x00\x85\x00\x10\x09\x00\x45", none)
	check("GTP with an extension that is cut", gtp, "\x34\xff"+length+"\x00\x00\x00\x85\x01\x10\x09", none)
	check("GTP with an extension that is missing", gtp, "\x34\xff"+length+"\x00\x00\x00\x85", none)

	// Geneve: version 0, options in units of four bytes.
	geneve := func(b []byte) header { size, typ := geneveHeader(b); return header{size, typ} }
	check("Geneve", geneve, "\x00\x00\x65\x58\x00\x00\x07\x00", header{8, etherBridged})
	check("Geneve of IPv4", geneve, "\x00\x40\x08\x00\x00\x00\x07\x00", header{8, etherIPv4})
	check("Geneve of IPv6 with an option", geneve, "\x01\x00\x86\xdd\x00\x00\x07\x00abcd", header{12, etherIPv6})
	check("Geneve with an option that is cut", geneve, "\x01\x00\x86\xdd\x00\x00\x07\x00abc", none)
	check("Geneve of ARP", geneve, "\x00\x00\x08\x06\x00\x00\x07\x00", none)
	check("Geneve of version 1", geneve, "\x40\x00\x65\x58\x00\x00\x07\x00", none)
	check("Geneve that is cut", geneve, "\x00\x00\x65\x58\x00\x00\x07", none)

	// VXLAN-GPE: version 0; the flag P says that there is a next protocol.
	gpe := func(b []byte) header { return header{0, gpeHeader(b)} }
	check("VXLAN", gpe, "\x08\x00\x00\x00\x00\x00\x07\x00x", header{0, etherBridged})
	for next, typ := range map[string]uint16{"\x01": etherIPv4, "\x02": etherIPv6, "\x03": etherBridged, "\x04": etherNSH, "\x05": etherMPLS, "\x00": 0, "\x06": 0} {
		check("VXLAN-GPE", gpe, "\x0c\x00\x00"+next+"\x00\x00\x07\x00x", header{0, typ})
	}
	check("VXLAN-GPE of version 1", gpe, "\x1c\x00\x00\x01\x00\x00\x07\x00x", none)
	check("VXLAN-GPE without a payload", gpe, "\x0c\x00\x00\x01\x00\x00\x07\x00", none)
	if !isVXLAN([]byte("\x08"+strings.Repeat("\x00", 21))) || isVXLAN([]byte("\x08"+strings.Repeat("\x00", 20))) ||
		isVXLAN([]byte("\xf7"+strings.Repeat("\x00", 21))) {
		t.Error("a VXLAN header is 8 bytes with the flag I before a header of Ethernet")
	}

	// Teredo: authentication and origin before IPv6, whose length is that of the rest.
	teredo := func(b []byte) header { return header{teredoHeader(b), 0} }
	ip6 := "\x60\x00\x00\x00\x00\x03" + strings.Repeat("\x00", 34) + "abc"
	check("Teredo", teredo, ip6, header{0, 0})
	check("Teredo with an origin", teredo, "\x00\x00abcdef"+ip6, header{8, 0})
	check("Teredo with an authentication", teredo, "\x00\x01\x02\x01idk"+strings.Repeat("n", 9)+ip6, header{16, 0})
	check("Teredo with both", teredo, "\x00\x01\x00\x00"+strings.Repeat("n", 9)+"\x00\x00abcdef"+ip6, header{21, 0})
	check("Teredo with a byte behind it", teredo, ip6+"x", header{-1, 0})
	check("Teredo that is cut", teredo, ip6[:42], header{-1, 0})
	check("Teredo without a payload", teredo, "\x60\x00\x00\x00\x00\x00"+strings.Repeat("\x00", 34), header{0, 0})
	check("Teredo with an authentication that is cut", teredo, "\x00\x01\x02", header{-1, 0})
	check("Teredo with an authentication longer than all", teredo, "\x00\x01\xff\xff"+ip6, header{-1, 0})
	check("Teredo of IPv4", teredo, "\x40"+ip6[1:], header{-1, 0})
	check("nothing", teredo, "", header{-1, 0})

	// GRE: the key is behind the checksum; PPTP's field is no key.
	key := func(b []byte) header { return header{int(greKey(b)), 0} }
	check("GRE", key, "\x00\x00\x08\x00\x00\x00\x00\x07", header{0, 0})
	check("GRE with a key", key, "\x20\x00\x08\x00\x00\x00\x00\x07", header{7, 0})
	check("GRE with a checksum and a key", key, "\xa0\x00\x08\x00\x01\x01\x00\x00\x00\x00\x01\x07", header{0x107, 0})
	check("GRE with a key that is cut", key, "\xa0\x00\x08\x00\x01\x01\x00\x00\x00\x00\x00", header{0, 0})
	check("PPTP", key, "\x20\x01\x88\x0b\x00\x00\x00\x07", header{0, 0})
}

// TestPayloadsOfMPLSShowThemselves: no field of a label says what follows.
func TestPayloadsOfMPLSShowThemselves(t *testing.T) {
	ip4 := func(total string, size int) string { return "\x45\x00" + total + strings.Repeat("\x00", size-4) }
	check4 := func(data string, wire int, want bool) {
		t.Helper()
		if isIPv4Header([]byte(data), wire) != want {
			t.Errorf("%x of %d bytes: IPv4 is %t, want %t", data, wire, !want, want)
		}
	}
	check4(ip4("\x00\x14", 20), 20, true)
	check4(ip4("\x00\x14", 20), 46, true)
	check4(ip4("\x00\x15", 20), 20, false)
	check4(ip4("\x00\x13", 20), 20, false)
	check4(ip4("\x00\x14", 19), 20, false)
	check4("\x44"+ip4("\x00\x14", 20)[1:], 20, false)
	check4("\x46"+ip4("\x00\x18", 20)[1:], 24, true)
	check4("\x46"+ip4("\x00\x17", 20)[1:], 24, false)

	check6 := func(payload string, size, wire int, want bool) {
		t.Helper()
		data := "\x60\x00\x00\x00" + payload + strings.Repeat("\x00", size-6)
		if isIPv6Header([]byte(data), wire) != want {
			t.Errorf("%x of %d bytes: IPv6 is %t, want %t", data, wire, !want, want)
		}
	}
	check6("\x00\x00", 40, 40, true)
	check6("\x00\x00", 39, 40, false)
	check6("\x00\x00", 40, 46, true)
	check6("\x00\x00", 40, 47, false)
	check6("\x00\x05", 40, 44, false)
	check6("\x01\x00", 40, 40+256, true)
	check6("\x01\x00", 40, 40+257, false)

	check := func(typ, behind string, want bool) {
		t.Helper()
		if isEthernetHeader([]byte(strings.Repeat("\x02", 12)+typ+behind)) != want {
			t.Errorf("%x %x: Ethernet is %t, want %t", typ, behind, !want, want)
		}
	}
	check("\x08\x00", "\x45\x00\x00", true)
	check("\x08\x00", "\x65\x00\x00", false)
	check("\x08\x00", "\x45\x00", false)
	check("\x86\xdd", "\x60\x00\x00", true)
	check("\x86\xdd", "\x45\x00\x00", false)
	check("\x00\x26", "\x42\x42\x03", true)
	check("\x05\xdc", "\xaa\xaa\x03", true)
	check("\x05\xdd", "\xaa\xaa\x03", false)
	check("\x00\x26", "\x06\x06\x03", true)
	check("\x00\x26", "\x42\x06\x03", false)
	check("\x00\x26", "\x42\x42\x04", false)
	check("\x00\x26", "\x08\x08\x03", false)
	for _, typ := range []string{"\x08\x06", "\x88\x47", "\x88\x64", "\x88\xe7", "\x81\x00"} {
		check(typ, "abc", true)
	}
	check("\x88\xcc", "abc", false)
}

// TestHeadersThatEndADecoding: what is cut, malformed or no IP is said to be so.
func TestHeadersThatEndADecoding(t *testing.T) {
	check := func(what string, link layers.LinkType, text string, want result, number uint64) {
		t.Helper()
		var got packet
		result := New(Default(), Deps{Tunnels: EveryTunnel}, nil).decoder.decodeFrame(&got, link, []byte(text), len(text))
		if result != want || got.undecoded.Number != number {
			t.Errorf("%s: %s %d, want %s %d", what, resultNames[result], got.undecoded.Number, resultNames[want], number)
		}
	}
	eth := strings.Repeat("\x02", 12)
	pppoe := eth + "\x88\x64"
	check("PPPoE", layers.LinkTypeEthernet, pppoe+"\x11\x00\x00\x01\x00\x06\xc0\x21abcd", resNotIP, 0xc021)
	check("PPPoE of version 2", layers.LinkTypeEthernet, pppoe+"\x21\x00\x00\x01\x00\x06\xc0\x21abcd", resMalformed, 0)
	check("PPPoE discovery", layers.LinkTypeEthernet, pppoe+"\x11\x09\x00\x01\x00\x06\xc0\x21abcd", resMalformed, 0)
	check("PPPoE that is cut", layers.LinkTypeEthernet, pppoe+"\x11\x00\x00\x01\x00\x06\xc0", resTruncated, 0)
	check("PPP of one byte", layers.LinkTypeEthernet, pppoe+"\x11\x00\x00\x01\x00\x02\xc1\x21", resNotIP, 0xc1)
	check("PPPoE with padding", layers.LinkTypeEthernet, pppoe+"\x11\x00\x00\x01\x00\x01\xc1\x21abc", resTruncated, 0)

	nsh := eth + "\x89\x4f"
	check("NSH of no protocol", layers.LinkTypeEthernet, nsh+"\x00\x02\x02\x00\x00\x00\x00\x01", resNotIP, 0)
	check("NSH of an unknown protocol", layers.LinkTypeEthernet, nsh+"\x00\x02\x02\x06\x00\x00\x00\x01", resNotIP, 6)
	check("NSH that is too short", layers.LinkTypeEthernet, nsh+"\x00\x01\x02\x01\x00\x00\x00\x01", resMalformed, 0)
	check("NSH that is cut", layers.LinkTypeEthernet, nsh+"\x00\x02\x02\x01\x00\x00\x00", resTruncated, 0)
	check("NSH whose metadata is cut", layers.LinkTypeEthernet, nsh+"\x00\x03\x02\x06\x00\x00\x00\x01abc", resTruncated, 0)

	gre := func(proto, behind string) string {
		total := 24 + len(behind) + 2
		return eth + "\x08\x00\x45\x00\x00" + string([]byte{byte(total)}) + "\x00\x00\x00\x00\x09\x2f\x00\x00\x01\x01\x01\x01\x02\x02\x02\x02" +
			proto[:2] + proto[2:] + behind
	}
	check("GRE of a number below the EtherTypes", layers.LinkTypeEthernet, gre("\x00\x00\x05\xff", "abcd"), resNotIP, 0x5ff)
	check("NHRP", layers.LinkTypeEthernet, gre("\x00\x00\x20\x01", "abcd"), resNotIP, 0x2001)
	check("GRE of an unknown type", layers.LinkTypeEthernet, gre("\x00\x00\x99\x99", "abcd"), resNotIP, 0x9999)
	check("GRE with a key that is cut", layers.LinkTypeEthernet, gre("\x20\x00\x99\x99", "a"), resTruncated, 0)
	check("PPTP with its fields", layers.LinkTypeEthernet, gre("\x30\x81\x88\x0b", "callsequackn\xc0\x21ab"), resNotIP, 0xc021)
	check("ERSPAN of type II that is cut", layers.LinkTypeEthernet, gre("\x10\x00\x88\xbe", "sequabcdefg"), resTruncated, 0)

	check("loopback", layers.LinkTypeNull, "\x10\x00\x00\x00abc", resNotIP, 16)
	check("loopback of the other byte order", layers.LinkTypeNull, "\x00\x00\x00\x10abc", resNotIP, 16)
	check("loopback that is cut", layers.LinkTypeNull, "\x02\x00\x00", resTruncated, 0)
	check("PPI", linkPPI, "\x00\x00\x07\x00\x69\x00\x00\x00", resMalformed, 0)
	check("PPI that is cut", linkPPI, "\x00\x00\x09\x00\x69\x00\x00\x00", resTruncated, 0)
	check("PPI of an unknown link", linkPPI, "\x00\x00\x08\x00\x00\x01\x00\x00", resUnknownLink, 256)
	check("PPI in PPI", linkPPI, "\x00\x00\x08\x00\xc0\x00\x00\x00", resUnknownLink, 192)
	check("PF log of an unknown family", linkPFLog, "\x04\x10\x00\x00abc", resNotIP, 16)
	check("PF log that is cut", linkPFLog, "\x05\x02\x00\x00abc", resTruncated, 0)
	check("PF log that is cut in its fixed part", linkPFLog, "\x00\x02\x00", resTruncated, 0)
	check("NFLOG without a packet", linkNFLOG, "\x02\x00\x00\x00\x05\x00\x01\x00a\x00\x00\x00", resNotIP, uint64(linkNFLOG))
	check("NFLOG with a short attribute", linkNFLOG, "\x02\x00\x00\x00\x03\x00\x09\x00", resMalformed, 0)
}

// TestTunnelsAreNamed: the names are those of the counters and of `tidegate doctor`.
func TestTunnelsAreNamed(t *testing.T) {
	for kind, want := range map[links.Encapsulation]string{links.GRE: "tunnel gre", links.PPPoE: "tunnel pppoe", links.MPLS: "tunnel mpls"} {
		if got := (Undecoded{LayerTunnel, uint64(kind)}).String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := (Undecoded{LayerTunnel, 200}).String(); got != "tunnel 200" {
		t.Errorf("a tunnel without a name is %q", got)
	}
}
