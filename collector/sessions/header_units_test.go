package sessions

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/gopacket/layers"

	"tidegate/collector/links"
	"tidegate/pipeline"
)

// TestSumsAreThoseOfRFC1071: the words are added one by one.
func TestSumsAreThoseOfRFC1071(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 7))
	plain := func(data []byte) uint16 {
		sum := uint32(0)
		for i := 0; i < len(data); i += 2 {
			word := uint32(data[i]) << 8
			if i+1 < len(data) {
				word |= uint32(data[i+1])
			}
			if sum += word; sum > 0xffff {
				sum = sum - 0x10000 + 1
			}
		}
		return uint16(sum)
	}
	for size := range 200 {
		for fill := range 4 {
			data := make([]byte, size)
			for i := range data {
				data[i] = [...]byte{0, 0xff, byte(rng.Uint32()), byte(rng.Uint32() | 0xf0)}[fill]
			}
			if got, want := foldSum(sumBytes(data)), plain(data); got != want {
				t.Fatalf("%d bytes: %#x, want %#x", size, got, want)
			}
		}
	}
	for sum, want := range map[uint64]uint16{0: 0, 0xffff: 0xffff, 0x10000: 1, 0x1ffff: 1, 0xfffe0001: 0xffff, 0xffff_ffff_ffff_ffff: 0xffff} {
		if got := foldSum(sum); got != want {
			t.Errorf("%#x folds to %#x, want %#x", sum, got, want)
		}
	}
	for _, text := range []string{"10.1.2.3", "255.255.255.255", "fd00::1", "2001:db8:ffff:ffff:1234:5678:9abc:def0", "::ffff:0:1.2.3.4"} {
		ip := netip.MustParseAddr(text)
		bytes := ip.AsSlice()
		if got, want := foldSum(addAddr(0, addrOf(ip))), plain(bytes); got != want {
			t.Errorf("%s: %#x, want %#x", text, got, want)
		}
	}
}

// TestChecksumOfAHeaderMayBeLeftToTheCard, as 0.
func TestChecksumOfAHeaderMayBeLeftToTheCard(t *testing.T) {
	header := []byte("\x45\x00\x00\x3c\x1c\x46\x40\x00\x40\x06\xb1\xe6\xac\x10\x0a\x63\xac\x10\x0a\x0c") // of RFC 1071's kind: right
	check := func(what string, first, second byte, checked checksumSource, want bool) {
		t.Helper()
		h := bytes.Clone(header)
		h[10], h[11] = first, second
		if got := (&decoder{checksums: checked}).isHeaderWrong(h); got != want {
			t.Errorf("%s: wrong is %t", what, got)
		}
	}
	for _, source := range []checksumSource{checksumsUnknown, checksumsFilledIn} {
		check("right", 0xb1, 0xe6, source, false)
		check("wrong", 0xb1, 0xe7, source, true)
		check("none", 0, 0, source, false)
		check("wrong in its first byte", 1, 0, source, true)
		check("wrong in its last byte", 0, 1, source, true)
	}
	check("verified by the kernel", 1, 2, checksumsVerified, false)
}

// TestSignedSegmentsAreFound by their options: RFC 2385, RFC 5925.
func TestSignedSegmentsAreFound(t *testing.T) {
	check := func(options string, want bool) {
		t.Helper()
		if got := isSigned([]byte(options)); got != want {
			t.Errorf("%x: %t", options, got)
		}
	}
	check("", false)
	check("\x01\x01\x08\x0a12345678", false)
	check("\x01\x01\x13\x12"+strings.Repeat("m", 16), true)
	check("\x13\x12"+strings.Repeat("m", 16), true)
	check("\x1d\x10"+strings.Repeat("a", 14), true)
	check("\x08\x0a12345678\x13\x02", true)
	check("\x01\x01\x08\x0a12345678\x13\x02", true)
	check("\x01\x01\x08\x04\x01\x01\x13\x02\x01\x01\x01\x01", true) // twelve bytes, but not those of nearly all segments
	check("\x01\x13\x08\x0a\x01\x01\x01\x01\x01\x01\x01\x01", true)
	check("\x00\x13\x02", false)
	check("\x13", false)
	check("\x13\x03", false)
	check("\x08\x01\x13\x02", false)
	check("\x08\x02\x13\x02", true)
	check("\x02\x04\x05\xb4\x01\x03\x03\x07", false)
}

// TestOptionsOfIPv6ThatLinuxRefuses: ip6_parse_tlv. Eight options, and seven bytes of padding in a row, are allowed.
func TestOptionsOfIPv6ThatLinuxRefuses(t *testing.T) {
	check := func(what, options string, want bool) {
		t.Helper()
		if got := areOptionsRefused([]byte("\x3b\x00" + options)); got != want {
			t.Errorf("%s: %t", what, got)
		}
	}
	check("none", "", false)
	check("seven bytes of padding", strings.Repeat("\x00", 7), false)
	check("eight bytes of padding", strings.Repeat("\x00", 8), true)
	check("seven bytes of padding in two", "\x00\x01\x04\x00\x00\x00\x00", false)
	check("eight bytes of padding in two", "\x00\x01\x05\x00\x00\x00\x00\x00", true)
	check("eight bytes of padding in two, in the other order", "\x01\x05\x00\x00\x00\x00\x00\x00", true)
	check("padding on both sides of an option", strings.Repeat("\x00", 7)+"\x05\x02\x00\x00"+strings.Repeat("\x00", 7), false)
	check("padding with a value", "\x01\x02\x00\x01", true)
	check("padding without a length", "\x01", true)
	check("padding beyond the end", "\x01\x01", true)
	check("an option beyond the end", "\x05\x03\x00\x00", true)
	check("eight options", strings.Repeat("\x05\x02\x00\x00", 8), false)
	check("nine options", strings.Repeat("\x05\x02\x00\x00", 9), true)
	for _, action := range []string{"\x45", "\x85", "\xc5"} { // skip is 00
		check("an option that the receiver must know", action+"\x02\x00\x00", true)
	}
	check("a jumbo payload", "\xc2\x04\x00\x01\x00\x00", false)
	check("a jumbo payload that is none", "\xc2\x04\x00\x00\xff\xff", true)
	check("a jumbo payload of another length", "\xc2\x06\x00\x01\x00\x00\x00\x00", true)

	refused := func(what string, typ byte, header string, first, want bool) {
		t.Helper()
		if got := isRefused(typ, []byte(header), first); got != want {
			t.Errorf("%s: %t", what, got)
		}
	}
	const none, bad = "\x3b\x00\x01\x04\x00\x00\x00\x00", "\x3b\x00\x9e\x04\x00\x00\x00\x00"
	refused("hop-by-hop", protoHopByHop, none, true, false)
	refused("hop-by-hop further on", protoHopByHop, none, false, true)
	refused("hop-by-hop with an option", protoHopByHop, bad, true, true)
	refused("destination options", protoDestOpts, none, false, false)
	refused("destination options with one", protoDestOpts, bad, true, true)
	for kind, want := range []bool{false, false, true, true, true, false} {
		refused("routing", protoRouting, "\x3b\x00"+string([]byte{byte(kind), 0})+"\x00\x00\x00\x00", true, want)
		refused("routing with a segment left", protoRouting, "\x3b\x00"+string([]byte{byte(kind), 1})+"\x00\x00\x00\x00", true, true)
	}
	refused("authentication", protoAH, none, true, false)
	refused("mobility", protoMobility, none, true, true)
	if !isZero(nil) || !isZero([]byte{0, 0}) || isZero([]byte{0, 1}) || isZero([]byte{1, 0}) {
		t.Error("zeros")
	}
	options4 := func(options string, want bool) {
		t.Helper()
		if got := areOptionsRefusedIPv4([]byte(options)); got != want {
			t.Errorf("%x of IPv4: %t", options, got)
		}
	}
	options4("\x44\x08\x05\x00\x00\x00\x00\x00", false) // timestamps, RFC 791
	options4("\x44\x08\x09\x00\x00\x00\x00\x00", false) // full
	options4("\x44\x08\x06\x00\x00\x00\x00\x00", true)
	options4("\x44\x02", true)
	options4("\x44\x03\x04\x01", false)
	options4("\x07\x03\x03\x01", true)
	options4("\x07\x07\x04\x00\x00\x00\x00\x83\x07\x04", true) // a loose route behind a record
}

// TestFlagsOfRadiotapAreBehindItsBitmaps, aligned behind the time (radiotap.org).
func TestFlagsOfRadiotapAreBehindItsBitmaps(t *testing.T) {
	check := func(what, header string, want byte) {
		t.Helper()
		if got := radiotapFlags([]byte("\x00\x00\x20\x00" + header)); got != want {
			t.Errorf("%s: %#x, want %#x", what, got, want)
		}
	}
	check("none", "\x00\x00\x00\x00\x10", 0)
	check("flags", "\x02\x00\x00\x00\x10", 0x10)
	check("flags that are missing", "\x02\x00\x00\x00", 0)
	check("behind a time", "\x03\x00\x00\x00timetime\x20", 0x20)
	check("behind two bitmaps", "\x02\x00\x00\x80\x00\x00\x00\x00\x40", 0x40)
	check("behind three bitmaps", "\x02\x00\x00\x80\x00\x00\x00\x80\x00\x00\x00\x00\x40", 0x40)
	check("behind two bitmaps and a time", "\x03\x00\x00\x80\x00\x00\x00\x00padptimetime\x40", 0x40)
	check("bitmaps that do not end", "\x02\x00\x00\x80\x00\x00\x00\x80", 0)
	check("bitmaps that are cut", "\x02\x00\x00\x80\x00\x00\x00", 0)
}

// TestFramesOfMonitorsAreReadWithoutTheirHeaders, and without the checksum behind them.
func TestFramesOfMonitorsAreReadWithoutTheirHeaders(t *testing.T) {
	inner := tcpFrame(t, addrPort("10.0.0.1:4000"), addrPort("10.0.0.2:80"), "A", 1, 1, 1, "abcdefgh")[14:]
	station := "\x08\x01\x00\x00" + strings.Repeat("\x02", 18) + "\x10\x00" + "\xaa\xaa\x03\x00\x00\x00\x08\x00" + string(inner)
	check := func(what string, link layers.LinkType, frame string, captured int, want result, payload string) {
		t.Helper()
		var p packet
		got := New(Default(), Deps{}, nil).decoder.decodeFrame(&p, link, []byte(frame)[:captured], len(frame))
		if got != want || string(p.Payload) != payload || got == resTCP && p.Size != 8 {
			t.Errorf("%s: %s, %q of %d; want %s, %q", what, resultNames[got], p.Payload, p.Size, resultNames[want], payload)
		}
	}
	radiotap := "\x00\x00\x09\x00\x02\x00\x00\x00\x10" + station + "fcs!"
	check("radiotap", linkRadiotap, radiotap, len(radiotap), resTCP, "abcdefgh")
	check("radiotap, the checksum cut", linkRadiotap, radiotap, len(radiotap)-3, resTCP, "abcdefgh")
	check("radiotap, a byte cut", linkRadiotap, radiotap, len(radiotap)-5, resTCP, "abcdefg")
	check("radiotap of a short header", linkRadiotap, "\x00\x00\x07\x00\x02\x00\x00\x00"+station, 60, resMalformed, "")
	check("radiotap that is cut", linkRadiotap, "\x00\x00\x09\x00\x02\x00\x00\x00", 8, resTruncated, "")
	avs := "\x80\x21\x10\x01\x00\x00\x00\x08" + station
	check("AVS of the smallest header", linkAVS, avs, len(avs), resTCP, "abcdefgh")
	check("AVS that is cut", linkAVS, "\x80\x21\x10\x01\x00\x00\x00\x09", 8, resTruncated, "")
	for _, size := range []string{"\x0c\x00\x00\x00", "\x00\x00\x00\x0c"} { // the byte order is that of the host
		prism := "\x44\x00\x00\x00" + size + "name" + station
		check("Prism", linkPrism, prism, len(prism), resTCP, "abcdefgh")
	}
	padded := "\x00\x00\x09\x00\x02\x00\x00\x00\x20" + "\x88" + station[1:24] + "\x00\x00" + "\x00\x00" + station[24:]
	check("a padded header", linkRadiotap, padded, len(padded), resTCP, "abcdefgh")
	wide := "\x08\x03" + station[2:24] + "\x03\x03\x03\x03\x03\x03" + station[24:]
	check("four addresses", linkWLAN, wide, len(wide), resTCP, "abcdefgh")
}

// TestTunnelIsTheSameInBothDirections: its key has both outer addresses, its kind and its id, but for the id of GTP.
func TestTunnelIsTheSameInBothDirections(t *testing.T) {
	a, b := addrOf(netip.MustParseAddr("10.0.0.1")), addrOf(netip.MustParseAddr("fd00::2"))
	gate := newTunnelGate(nil)
	base := tunnel{kind: links.VXLAN, id: 7, src: a, dst: b}
	key := gate.tunnelKey(0, &base)
	same := func(what string, outside uint64, other tunnel, want bool) {
		t.Helper()
		if got := gate.tunnelKey(outside, &other) == key; got != want {
			t.Errorf("%s: the key is the same: %t", what, got)
		}
	}
	same("itself", 0, base, true)
	same("the other direction", 0, tunnel{kind: links.VXLAN, id: 7, src: b, dst: a}, true)
	same("another kind", 0, tunnel{kind: links.Geneve, id: 7, src: a, dst: b}, false)
	same("another id", 0, tunnel{kind: links.VXLAN, id: 8, src: a, dst: b}, false)
	same("inside another tunnel", 1, base, false)
	for i := range 4 * 8 { // each byte of each half of each address
		other := base
		*[]*uint64{&other.src.hi, &other.src.lo, &other.dst.hi, &other.dst.lo}[i/8] ^= 1 << (8*(i%8) + 3)
		same("another address", 0, other, false)
		if base.fields() == other.fields() {
			t.Errorf("byte %d of the addresses is no field", i)
		}
	}
	key = gate.tunnelKey(0, &tunnel{kind: links.GTP, id: 7, src: a, dst: b})
	same("GTP with the id of the other direction", 0, tunnel{kind: links.GTP, id: 9, src: b, dst: a}, true)

	session := pipeline.ID{1, 2, 3}
	if id := base.sessionID(session); id == session || id != (&tunnel{kind: links.VXLAN, id: 7, src: b, dst: a}).sessionID(session) ||
		id == base.sessionID(pipeline.ID{1, 2, 4}) || id == (&tunnel{kind: links.VXLAN, id: 8, src: a, dst: b}).sessionID(session) {
		t.Error("the id of a session is that of its tunnel and of the session without it")
	}

	for _, clientSide := range []uint8{0, 1} {
		f := &flow{clientSide: clientSide}
		f.orientTunnel(0)
		if f.setTunnel(&packet{}); f.tunnel != nil {
			t.Error("a packet in no tunnel sets one")
		}
		f.setTunnel(&packet{tunnel: base})
		if f.orientTunnel(0); (f.tunnel.src == a) != (clientSide == 0) || (f.tunnel.dst == b) != (clientSide == 0) {
			t.Errorf("client %d: from %v to %v", clientSide, f.tunnel.src, f.tunnel.dst)
		}
	}
}

// TestVLANIsPartOfTheKeysOnBridgesOnly, and the id 0 of 802.1Q and 802.1ad is no VLAN.
func TestVLANIsPartOfTheKeysOnBridgesOnly(t *testing.T) {
	table := New(Default(), Deps{Bridge: func(name string) bool { return name == "docker0" }}, nil)
	check := func(iface string, typ, id, vlan uint16, keyed bool) uint64 {
		t.Helper()
		p := packet{iface: table.ifaceIndex(iface)}
		table.decoder.enterVLAN(&p, typ, id)
		if p.vlan != vlan || (p.tunnel.key != 0) != keyed {
			t.Errorf("%s, tag %#x %d: VLAN %d, key %#x", iface, typ, id, p.vlan, p.tunnel.key)
		}
		return p.tunnel.key
	}
	check("eth0", etherVLAN, 7, 7, false)
	if check("docker0", etherVLAN, 7, 7, true) == check("docker0", etherVLAN, 8, 8, true) ||
		check("docker0", etherVLAN, 7, 7, true) == check("docker0", etherVLAN, 7+256, 7+256, true) {
		t.Error("two VLANs have the same key")
	}
	check("docker0", etherVLAN, 0, 0, false)
	check("docker0", etherQinQ, 0, 0, false)
	check("docker0", etherQinQ9100, 0, 0, true)
}

// TestServersHaveTheLowerPorts: RFC 6335, Linux's ephemeral ports, and registered ports of known servers.
func TestServersHaveTheLowerPorts(t *testing.T) {
	for port, want := range map[uint16]int{
		0: 0, 1: 3, 80: 3, 1023: 3, 1024: 1, 1433: 2, 1521: 2, 1883: 2, 2181: 2, 2375: 2, 2376: 2, 2379: 2, 2380: 2, 3000: 2, 3128: 2,
		3306: 2, 4222: 2, 5000: 2, 5432: 2, 5672: 2, 5984: 2, 6379: 2, 6443: 2, 7000: 2, 8000: 2, 8080: 2, 8081: 2, 8086: 2, 8123: 2,
		8200: 2, 8443: 2, 8500: 2, 8888: 2, 9000: 2, 9042: 2, 9090: 2, 9092: 2, 9200: 2, 9300: 2, 10250: 2, 11211: 2, 15672: 2,
		26379: 2, 27017: 2, 33060: 2, 5001: 1, 32767: 1, 32768: 0, 65535: 0,
	} {
		if got := serverScore(port); got != want {
			t.Errorf("port %d: %d, want %d", port, got, want)
		}
	}
}

// TestFlowHasItsSmallerEndFirst.
func TestFlowHasItsSmallerEndFirst(t *testing.T) {
	check := func(src, dst string, sender uint8) {
		t.Helper()
		from, to := addrPort(src), addrPort(dst)
		p := packet{
			src: addrOf(from.Addr()), dst: addrOf(to.Addr()), sport: from.Port(), dport: to.Port(), proto: protoUDP, iface: 3,
			tunnel: tunnel{key: 9},
		}
		key, got := p.flowKey()
		low, high := from, to
		if sender == 1 {
			low, high = to, from
		}
		want := flowKey{addrOf(low.Addr()), addrOf(high.Addr()), 9, low.Port(), high.Port(), protoUDP, 3}
		if got != sender || key != want {
			t.Errorf("%s to %s: sender %d, %+v", src, dst, got, key)
		}
	}
	check("10.0.0.1:9", "10.0.0.2:1", 0)
	check("10.0.0.2:1", "10.0.0.1:9", 1)
	check("10.0.0.1:1", "10.0.0.1:2", 0)
	check("10.0.0.1:2", "10.0.0.1:1", 1)
	check("10.0.0.1:1", "10.0.0.1:1", 0)
	check("[fd00::1]:1", "[fd00:0:0:1::]:1", 0)
	check("[fd00:0:0:1::]:1", "[fd00::1]:9", 1)
	for _, text := range []string{"10.0.0.1", "fd00::1", "255.255.255.255", "::"} {
		ip := netip.MustParseAddr(text)
		if got := addrOf(ip).netip(); got != ip {
			t.Errorf("%s is %s", ip, got)
		}
	}
	if addrFrom4([]byte{10, 0, 0, 1}) != addrOf(netip.MustParseAddr("10.0.0.1")) || macAt([]byte{1, 2, 3, 4, 5, 6}) != 0x010203040506 {
		t.Error("bytes of addresses are in another order")
	}
}

// TestCopyOfAPacketIsDropped within its window; whatever differs makes it another packet.
func TestCopyOfAPacketIsDropped(t *testing.T) {
	base := packet{src: addr{0, 1}, dst: addr{0, 2}, sport: 3, dport: 4, proto: protoTCP, id: 5, hasID: true, header: []byte("header"), iface: 6}
	base.Payload, base.Size, base.Time = []byte("payload"), 7, 1e9
	check := func(what string, want bool, change func(p *packet)) {
		t.Helper()
		var filter dupFilter
		first, second := base, base
		if filter.isDuplicate(&first) || first.payloadHash == 0 {
			t.Fatal("the first packet is a copy")
		}
		if change(&second); filter.isDuplicate(&second) != want {
			t.Errorf("%s: a copy is %t", what, !want)
		}
	}
	check("the same", true, func(*packet) {})
	check("as late as a copy may be", true, func(p *packet) { p.Time += dupWindow - 1 })
	check("later", false, func(p *packet) { p.Time += dupWindow })
	check("as early as a copy may be", true, func(p *packet) { p.Time -= dupWindow - 1 })
	check("earlier", false, func(p *packet) { p.Time -= dupWindow })
	for what, change := range map[string]func(p *packet){
		"source": func(p *packet) { p.src.lo++ }, "upper source": func(p *packet) { p.src.hi++ }, "destination": func(p *packet) { p.dst.lo++ },
		"upper destination": func(p *packet) { p.dst.hi++ }, "source port": func(p *packet) { p.sport++ }, "port": func(p *packet) { p.dport++ },
		"protocol": func(p *packet) { p.proto++ }, "identification": func(p *packet) { p.id++ }, "interface": func(p *packet) { p.iface++ },
		"header": func(p *packet) { p.header = []byte("Header") }, "payload": func(p *packet) { p.Payload = []byte("Payload") },
		"size": func(p *packet) { p.Size++ }, "tunnel": func(p *packet) { p.tunnel.key++ },
	} {
		check("another "+what, false, change)
	}
	base.hasID = false
	check("without an identification", true, func(p *packet) { p.Time += dupWindowNoID - 1 })
	check("without an identification, later", false, func(p *packet) { p.Time += dupWindowNoID })
}

// TestHistoryHasEachKindOnce for each side, in the order in which they come.
func TestHistoryHasEachKindOnce(t *testing.T) {
	var history history
	for _, kind := range []segmentKind{kindSYN, kindPureACK, kindData, kindData, kindUrgent, kindSYN} {
		history.addKind(kind, fromClient)
	}
	for _, kind := range []segmentKind{kindSYNACK, kindData, kindReset} {
		history.addKind(kind, fromServer)
		history.addKind(kind, fromServer)
	}
	if got, flipped := history.historyText(false), history.historyText(true); got != "SADUhdr" || flipped != "^saduHDR" {
		t.Errorf("%s, flipped %s", got, flipped)
	}
	for kind := range segmentKind(len(historyLetters)) {
		history.addKind(kind, fromClient)
		history.addKind(kind, fromServer)
	}
	if got := history.historyText(false); len(got) != 22 {
		t.Errorf("%d letters: %s", len(got), got)
	}
	full := history
	full.length, full.present = uint8(len(full.letters)), 0
	full.addKind(kindSYN, fromClient)
	if int(full.length) != len(full.letters) || full.present != 0 {
		t.Error("a letter is added to a full history")
	}
}

// TestMarksAreTagsOfTheEvents.
func TestMarksAreTagsOfTheEvents(t *testing.T) {
	for mark, want := range map[marks]string{
		markConflict: pipeline.TagOverlapConflict, markUrgent: pipeline.TagUrgentData, markChecksum: pipeline.TagBadChecksum,
		markHeaders: pipeline.TagRefusedHeaders, markMovedMAC: pipeline.TagMACMoved, markDamaged: pipeline.TagUndecoded,
		markCopies: pipeline.TagCopiesDiffer,
	} {
		f := newFlow(New(Default(), Deps{}, nil))
		f.marks = mark
		event := &pipeline.Event{}
		if f.tagEvent(event); strings.Join(event.Tags, " ") != want {
			t.Errorf("%b: %q, want %s", mark, event.Tags, want)
		}
	}
	check := func(p packet, want marks) {
		t.Helper()
		var f flow
		if f.markPacket(&p); f.marks != want {
			t.Errorf("%+v: %b", p, f.marks)
		}
	}
	check(packet{}, 0)
	check(packet{conflict: true}, markConflict)
	check(packet{refused: true}, markHeaders)
	check(packet{movedMAC: true}, markMovedMAC)
}

// TestInterfacesAreNumberedByTheirNames.
func TestInterfacesAreNumberedByTheirNames(t *testing.T) {
	table := New(Default(), Deps{Bridge: func(name string) bool { return strings.HasPrefix(name, "br-") }}, nil)
	for i, name := range []string{"eth0", "br-1", "br-1", "eth0", "br-2"} {
		got := table.ifaceIndex(name)
		if want := []uint16{0, 1, 1, 0, 2}[i]; got != want || table.ifaces.list[got].name != name || table.ifaces.list[got].isBridge != (name != "eth0") {
			t.Errorf("%s has the number %d, want %d: %+v", name, got, want, table.ifaces.list)
		}
	}
	table.ifaces.list = append(table.ifaces.list, make([]iface, maxInterfaces-3)...)
	if got := table.ifaceIndex("one too many"); got != 0 || len(table.ifaces.list) != maxInterfaces {
		t.Errorf("it has the number %d of %d", got, len(table.ifaces.list))
	}
}

// TestUndecodedHasANameOrANumber.
func TestUndecodedHasANameOrANumber(t *testing.T) {
	for where, want := range map[Undecoded]string{
		{LayerTunnel, 0}: "tunnel 0", {LayerWLAN, 0x2f}: "802.11 no_data", {LayerWLAN, 0x0f}: "802.11 management", {LayerWLAN, 0x1f}: "802.11 control",
		{LayerWLAN, 0x3f}: "802.11 63", {LayerWLAN, wlanFragment}: "802.11 fragment", {LayerGRE, 0x883e}: "GRE type 0x883e (wccp)",
		{LayerSNAP, 0x123456789a}: "SNAP 12:34:56 0x789a", {LayerIP, 33}: "IP protocol 33 (dccp)", {LayerLink, 3}: "link type 3",
	} {
		if got := where.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	last := uint64(len(links.Encapsulations()))
	if got := (Undecoded{LayerTunnel, last}).name(); got != links.Encapsulation(last).String() {
		t.Errorf("the last tunnel is %q", got)
	}
	if got := (Undecoded{LayerTunnel, last + 1}).name(); got != "" {
		t.Errorf("a tunnel behind the last is %q", got)
	}
}

// TestNumbersInTunnelHeaders: the network of VXLAN has 24 bits.
func TestNumbersInTunnelHeaders(t *testing.T) {
	if got := networkID(binary.BigEndian.AppendUint32([]byte{8, 0, 0, 0}, 0x123456ff)); got != 0x123456 {
		t.Errorf("network %#x", got)
	}
	if !EveryTunnel.IsKnown("eth0", links.OuterHeader{}) {
		t.Error("a tunnel is unknown")
	}
}
