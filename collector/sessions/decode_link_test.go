package sessions

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline"
)

// A wrappedFrame is a frame that has another one, or a packet, inside.
type wrappedFrame struct {
	name string
	link layers.LinkType
	data []byte
}

// encapsulations returns the segment in inner, an Ethernet frame, in every link type and encapsulation.
func encapsulations(t testing.TB, inner []byte) (list []wrappedFrame) {
	ip, eth := inner[14:], string(inner[:12])
	wrap := func(prefix string, inner []byte) []byte { return append([]byte(prefix), inner...) }
	outer4 := func(proto layers.IPProtocol, data []byte) []byte {
		eth := &layers.Ethernet{SrcMAC: make([]byte, 6), DstMAC: make([]byte, 6), EthernetType: layers.EthernetTypeIPv4}
		ip := &layers.IPv4{Version: 4, TTL: 9, Protocol: proto, SrcIP: []byte{1, 1, 1, 1}, DstIP: []byte{2, 2, 2, 2}}
		return serialize(t, eth, ip, gopacket.Payload(data))
	}
	inUDP := func(port string, inner []byte) []byte {
		return udpFrame(t, addrPort("1.1.1.1:50000"), addrPort("2.2.2.2:"+port), 1, string(inner))
	}
	add := func(name string, link layers.LinkType, data []byte) {
		list = append(list, wrappedFrame{name, link, data})
	}
	ether := func(name, header string, data []byte) { add(name, layers.LinkTypeEthernet, wrap(eth+header, data)) }
	short := func(size int) string { return string(binary.BigEndian.AppendUint16(nil, uint16(size))) }
	snap := "\xaa\xaa\x03\x00\x00\x00\x08\x00"
	bridge := "\xaa\xaa\x03\x00\x00\xf8\x08\x00"

	add("ethernet", layers.LinkTypeEthernet, inner)
	add("padding", layers.LinkTypeEthernet, append(slices.Clone(inner), make([]byte, 20)...))

	// Tags.
	for _, tag := range []string{"\x81\x00", "\x88\xa8", "\x91\x00", "\x92\x00", "\x93\x00"} {
		ether(fmt.Sprintf("vlan %x", tag), tag+"\x00\x07\x08\x00", ip)
		ether(fmt.Sprintf("vlan in %x", tag), tag+"\x00\x07\x81\x00\x00\x08\x08\x00", ip)
	}
	ether("five tags", "\x88\xa8\x00\x01\x81\x00\x00\x02\x81\x00\x00\x03\x81\x00\x00\x04\x81\x00\x00\x05\x08\x00", ip)
	ether("priority tag", "\x81\x00\xe0\x00\x08\x00", ip)
	ether("VN-Tag", "\x89\x26\x00\x00\x00\x00\x08\x00", ip)
	ether("VN-Tag in vlan in vlan", "\x81\x00\x00\x07\x89\x26\x80\x01\x00\x02\x81\x00\x00\x08\x08\x00", ip)
	ether("E-TAG", "\x89\x3f\x00\x00\x00\x01\x00\x00\x08\x00", ip)
	ether("R-TAG", "\xf1\xc1\x00\x00\x00\x09\x08\x00", ip)
	ether("HSR", "\x89\x2f"+short(0x1000|len(ip)+2)+"\x00\x09\x08\x00", ip)
	ether("vlan in HSR", "\x89\x2f"+short(0x1000|len(ip)+6)+"\x00\x09\x81\x00\x00\x07\x08\x00", ip)
	ether("PRP", "\x08\x00", append(slices.Clone(ip), "\x00\x09\xa0\x30\x88\xfb"...))
	ether("MetaData", "\x89\x09\x01\x01\x00\x01\x00\x64\x08\x00", ip)
	ether("MetaData in vlan", "\x81\x00\x00\x07\x89\x09\x01\x01\x00\x01\x00\x64\x08\x00", ip)
	ether("vlan in MetaData", "\x89\x09\x01\x01\x00\x01\x00\x64\x81\x00\x00\x07\x08\x00", ip)
	ether("TTag", "\x89\x88\x00\x00\x00\x01\x00\x02\x08\x00", ip)
	ether("TTag behind MetaData", "\x89\x09\x01\x01\x00\x01\x00\x64\x89\x88\x00\x00\x00\x01\x00\x02\x08\x00", ip)

	// LLC.
	ether("SNAP", short(len(ip)+8)+snap, ip)
	ether("SNAP in vlan", "\x81\x00\x00\x07"+short(len(ip)+8)+snap, ip)
	ether("SNAP in vlan in vlan", "\x88\xa8\x00\x07\x81\x00\x00\x08"+short(len(ip)+8)+snap, ip)
	ether("SNAP of 802.1H", short(len(ip)+8)+bridge, ip)
	ether("SNAP of 802.1H in vlan", "\x81\x00\x00\x07"+short(len(ip)+8)+bridge, ip)
	ether("vlan in SNAP", short(len(ip)+12)+"\xaa\xaa\x03\x00\x00\x00\x81\x00\x00\x07\x08\x00", ip)
	ether("IP in LLC", short(len(ip)+3)+"\x06\x06\x03", ip)
	ether("LLC by EtherType", "\x88\x70"+snap, ip)

	// Encapsulations in Ethernet.
	label := "\x00\x01\x01\x40"
	other := "\x00\x02\x00\x40"
	ether("MPLS", "\x88\x47"+label, ip)
	ether("MPLS of ten labels", "\x88\x47"+strings.Repeat(other, 9)+label, ip)
	ether("MPLS in vlan", "\x81\x00\x00\x07\x88\x47"+label, ip)
	ether("pseudowire with a control word", "\x88\x47"+other+label+"\x00\x00\x00\x09", inner)
	ether("pseudowire without one", "\x88\x47"+label, inner)
	ether("pseudowire of a vlan without one", "\x88\x47"+label, wrap("\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\x81\x00\x00\x07\x08\x00", ip))
	for _, first := range []string{"\x00", "\x10", "\x40", "\x45", "\x60", "\xfe"} { // of the address
		frame := wrap(first, inner[1:])
		ether(fmt.Sprintf("pseudowire %x without a control word", first), "\x88\x47"+label, frame)
		ether(fmt.Sprintf("pseudowire %x with a control word", first), "\x88\x47"+label+"\x00\x00\x00\x00", frame)
	}
	ether("PPPoE", "\x88\x64\x11\x00\x00\x09"+short(len(ip)+2)+"\x00\x21", append(slices.Clone(ip), "padding"...))
	ether("PPPoE in vlan", "\x81\x00\x00\x07\x88\x64\x11\x00\x00\x09"+short(len(ip)+2)+"\x00\x21", ip)
	ether("PPPoE with a protocol of one byte", "\x88\x64\x11\x00\x00\x09"+short(len(ip)+1)+"\x21", ip)
	ether("MPLS in PPPoE", "\x88\x64\x11\x00\x00\x09"+short(len(ip)+6)+"\x02\x81"+label, ip)
	ether("bridged in PPPoE", "\x88\x64\x11\x00\x00\x09"+short(len(inner)+4)+"\x00\x31\x00\x01", inner)
	ether("backbone bridge", "\x88\xa8\x00\x07\x88\xe7\x00\x00\x12\x34", inner)
	ether("vlan in backbone bridge", "\x88\xe7\x00\x00\x12\x34"+eth+"\x81\x00\x00\x07\x08\x00", ip)
	ether("TRILL", "\x22\xf3\x00\x3f\x00\x01\x00\x02", inner)
	ether("TRILL with options", "\x22\xf3\x00\x7f\x00\x01\x00\x02\x00\x00\x00\x00", inner)
	ether("FabricPath", "\x89\x03\x00\x5f", inner)
	ether("NSH", "\x89\x4f\x0f\xc6\x01\x01\x00\x00\x01\xff"+strings.Repeat("\x00", 16), ip)
	ether("Ethernet in NSH", "\x89\x4f\x0f\xc2\x02\x03\x00\x00\x01\xff", inner)

	// Encapsulations in IP.
	in4 := func(name string, proto layers.IPProtocol, header string, data []byte) {
		add(name, layers.LinkTypeEthernet, outer4(proto, wrap(header, data)))
	}
	in4("IP in IP", 4, "", ip)
	in4("EtherIP", 97, "\x30\x00", inner)
	in4("MPLS in IP", 137, label, ip)
	in4("GRE", 47, "\x00\x00\x08\x00", ip)
	in4("GRE with key and sequence", 47, "\x30\x00\x65\x58\x00\x00\x00\x01\x00\x00\x00\x02", inner)
	in4("MPLS in GRE", 47, "\x00\x00\x88\x47"+label, ip)
	in4("MetaData in GRE", 47, "\x00\x00\x89\x09\x01\x01\x00\x01\x00\x64\x08\x00", ip)
	in4("ERSPAN I", 47, "\x00\x00\x88\xbe", inner)
	in4("ERSPAN II", 47, "\x10\x00\x88\xbe\x00\x00\x00\x01\x10\x00\x00\x00\x00\x00\x00\x00", inner)
	in4("TTag in ERSPAN II", 47, "\x10\x00\x88\xbe\x00\x00\x00\x01\x10\x00\x00\x00\x00\x00\x00\x00"+eth+
		"\x89\x88\x00\x00\x00\x01\x00\x02\x08\x00", ip)
	in4("ERSPAN III", 47, "\x10\x00\x22\xeb\x00\x00\x00\x01\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", inner)
	in4("WCCP", 47, "\x00\x00\x88\x3e", ip)
	in4("WCCP 2", 47, "\x00\x00\x88\x3e\x00\x00\x00\x01", ip)
	wlan := "\x08\x01\x00\x00" + strings.Repeat("\x02", 18) + "\x10\x00"
	in4("Aruba's GRE", 47, "\x00\x00\x82\x00"+wlan+snap, ip)
	udp := func(name, port, header string, data []byte) {
		add(name, layers.LinkTypeEthernet, inUDP(port, wrap(header, data)))
	}
	vxlan := "\x08\x00\x00\x00\x00\x00\x07\x00"
	udp("VXLAN", "4789", vxlan, inner)
	udp("VXLAN of Linux", "8472", vxlan, inner)
	udp("VXLAN with reserved bits", "4789", "\x8f\xff\x12\x34\x00\x00\x07\xff", inner)
	udp("VXLAN in VXLAN", "4789", vxlan, inUDP("4789", wrap(vxlan, inner)))
	udp("MPLS in VXLAN", "4789", vxlan, wrap(eth+"\x88\x47"+label, ip))
	udp("VXLAN-GPE", "4790", "\x0c\x00\x00\x01\x00\x00\x07\x00", ip)
	udp("Ethernet in VXLAN-GPE", "4790", "\x0c\x00\x00\x03\x00\x00\x07\x00", inner)
	udp("NSH in VXLAN-GPE", "4790", "\x0c\x00\x00\x04\x00\x00\x07\x00\x0f\xc2\x02\x01\x00\x00\x01\xff", ip)
	udp("VXLAN at the port of VXLAN-GPE", "4790", vxlan, inner)
	udp("Geneve", "6081", "\x01\x00\x65\x58\x00\x00\x07\x00\x00\x01\x02\x00", inner)
	udp("GTP", "2152", "\x30\xff"+short(len(ip))+"\x00\x00\x00\x01", ip)
	udp("MPLS in UDP", "6635", label, ip)
	v6 := &layers.IPv6{Version: 6, NextHeader: 4, SrcIP: make([]byte, 16), DstIP: make([]byte, 16)}
	six := serialize(t, &layers.Ethernet{SrcMAC: make([]byte, 6), DstMAC: make([]byte, 6), EthernetType: 0x86dd}, v6, gopacket.Payload(ip))
	udp("Teredo", "3544", "", six[14:])
	udp("Teredo with origin", "3544", "\x00\x00\x12\x34\xfe\xfe\xfe\xfe", six[14:])
	udp("Teredo with authentication", "3544", "\x00\x01\x00\x00"+strings.Repeat("\x07", 9)+"\x00\x00\x12\x34\xfe\xfe\xfe\xfe", six[14:])
	options := &layers.IPv6{Version: 6, NextHeader: 60, SrcIP: make([]byte, 16), DstIP: make([]byte, 16)}
	add("4 in 6 behind options", layers.LinkTypeEthernet, serialize(t,
		&layers.Ethernet{SrcMAC: make([]byte, 6), DstMAC: make([]byte, 6), EthernetType: layers.EthernetTypeIPv6}, options,
		gopacket.Payload(wrap("\x29\x00\x01\x04\x00\x00\x00\x00", ip))))
	tso := slices.Clone(inner[:57]) // a frame that long is not padded
	tso[16], tso[17] = 0, 0
	add("length left to the card", layers.LinkTypeEthernet, tso)

	// Link types.
	add("null", layers.LinkTypeNull, wrap("\x02\x00\x00\x00", ip))
	add("loop", layers.LinkTypeLoop, wrap("\x00\x00\x00\x02", ip))
	add("raw", layers.LinkTypeRaw, ip)
	add("IPv4", linkIPv4, ip)
	add("FDDI", linkFDDI, wrap("\x50"+eth+snap, ip))
	cooked := strings.Repeat("\x00", 14)
	add("cooked", layers.LinkTypeLinuxSLL, wrap(cooked+"\x08\x00", ip))
	add("vlan in cooked", layers.LinkTypeLinuxSLL, wrap(cooked+"\x81\x00\x00\x07\x08\x00", ip))
	add("LLC in cooked", layers.LinkTypeLinuxSLL, wrap(cooked+"\x00\x04"+snap, ip))
	cooked2 := strings.Repeat("\x00", 18)
	add("cooked 2", linkSLL2, wrap("\x08\x00"+cooked2, ip))
	add("vlan in cooked 2", linkSLL2, wrap("\x81\x00"+cooked2+"\x00\x07\x08\x00", ip))
	add("LLC in cooked 2", linkSLL2, wrap("\x00\x04"+cooked2+snap, ip))
	add("MPLS in cooked 2", linkSLL2, wrap("\x88\x47"+cooked2+label, ip))
	add("NFLOG", linkNFLOG, wrap("\x02\x00\x00\x00\x08\x00\x01\x00abcd"+string(byte(len(ip)+4))+"\x00\x09\x00", ip))
	add("PPP", linkPPPHDLC, wrap("\xff\x03\x00\x21", ip))
	add("PPP with a direction", linkPPPDir, wrap("\x01\xff\x03\x00\x21", ip))
	add("PPP of pppd", linkPPPD, wrap("\x01\x03\x00\x21", ip))
	add("PPPoE session", linkPPPoE, wrap("\x11\x00\x00\x09"+short(len(ip)+2)+"\x00\x21", ip))
	add("Cisco HDLC", linkCHDLC, wrap("\x0f\x00\x08\x00", ip))
	add("Frame Relay", linkFrames, wrap("\x18\x41\x03\xcc", ip))
	add("SNAP in Frame Relay", linkFrames, wrap("\x18\x41\x03\x00\x80\x00\x00\x00\x08\x00", ip))
	add("ATM", linkATM, wrap(snap, ip))
	add("PF log", linkPFLog, wrap("\x3d\x02\x00\x00"+strings.Repeat("\x00", 60), ip))
	add("ENC", linkENC, wrap("\x02\x00\x00\x00"+strings.Repeat("\x00", 8), ip))

	// IEEE 802.11.
	station := func(control string) string { return control + "\x00\x00" + strings.Repeat("\x02", 18) + "\x10\x00" }
	add("WLAN to the access point", linkWLAN, wrap(station("\x08\x01")+snap, ip))
	add("WLAN from the access point", linkWLAN, wrap(station("\x08\x02")+snap, ip))
	add("WLAN ad hoc", linkWLAN, wrap(station("\x08\x00")+snap, ip))
	add("WLAN of four addresses", linkWLAN, wrap(station("\x08\x03")+"\x03\x03\x03\x03\x03\x03"+snap, ip))
	add("WLAN with QoS", linkWLAN, wrap(station("\x88\x01")+"\x00\x00"+snap, ip))
	add("WLAN with QoS and HT control", linkWLAN, wrap(station("\x88\x81")+"\x00\x00\x01\x02\x03\x04"+snap, ip))
	add("WLAN of 802.1H", linkWLAN, wrap(station("\x08\x01")+bridge, ip))
	aggregate := station("\x88\x01") + "\x80\x00" + strings.Repeat("\x04", 12) + short(len(ip)+8) + snap
	add("WLAN aggregate", linkWLAN, wrap(aggregate, ip))
	fcs := func(data []byte) []byte { return append(data, "\xde\xad\xbe\xef"...) }
	add("radiotap", linkRadiotap, wrap("\x00\x00\x08\x00\x00\x00\x00\x00"+station("\x08\x01")+snap, ip))
	add("radiotap with time and checksum", linkRadiotap, fcs(wrap("\x00\x00\x11\x00\x03\x00\x00\x00"+"timetime"+"\x10"+station("\x08\x01")+snap, ip)))
	add("radiotap of two bitmaps and padding", linkRadiotap,
		wrap("\x00\x00\x0d\x00\x02\x00\x00\x80\x00\x00\x00\x00\x20"+station("\x88\x01")+"\x00\x00"+"\x00\x00"+snap, ip))
	add("Prism", linkPrism, wrap("\x44\x00\x00\x00\x90\x00\x00\x00"+strings.Repeat("\x00", 136)+station("\x08\x01")+snap, ip))
	add("AVS", linkAVS, wrap("\x80\x21\x10\x01\x00\x00\x00\x40"+strings.Repeat("\x00", 56)+station("\x08\x01")+snap, ip))
	add("PPI", linkPPI, wrap("\x00\x00\x08\x00\x69\x00\x00\x00"+station("\x08\x01")+snap, ip))
	return list
}

// TestEncapsulations: a segment is decoded through every link type and encapsulation.
func TestEncapsulations(t *testing.T) {
	inner := tcpFrame(t, addrPort("10.0.0.1:4000"), addrPort("10.0.0.2:80"), "A", 1, 1, 1, "abc")
	for _, frame := range encapsulations(t, inner) {
		table := New(Default(), Deps{Tunnels: EveryTunnel}, nil)
		var got packet
		result := table.decoder.decodeFrame(&got, frame.link, frame.data, len(frame.data))
		if result != resTCP || got.src != addrOf(addrPort("10.0.0.1:4000").Addr()) || got.sport != 4000 ||
			got.dport != 80 || string(got.Payload) != "abc" || got.Size != 3 {
			t.Errorf("%s: %s, %v:%d → %v:%d %q, %v", frame.name, resultNames[result], got.src.netip(), got.sport, got.dst.netip(),
				got.dport, got.Payload, got.undecoded)
		}

		// A frame that is cut anywhere is not malformed, and is never read beyond its end.
		for size := range len(frame.data) {
			var cut packet
			if result := table.decoder.decodeFrame(&cut, frame.link, slices.Clone(frame.data[:size]), len(frame.data)); result == resTooDeep {
				t.Errorf("%s, %d bytes of it: %s", frame.name, size, resultNames[result])
			}
		}
	}
}

// TestAggregatesAreReadWhole: each frame of an A-MSDU is a packet.
func TestAggregatesAreReadWhole(t *testing.T) {
	test := newTableTest(t, Default(), Deps{})
	data := []byte("\x88\x01\x00\x00" + strings.Repeat("\x02", 18) + "\x10\x00" + "\x80\x00")
	for i, text := range []string{"a", "bcd", "ef"} {
		frame := udpFrame(t, addrPort("10.0.0.1:4000"), addrPort(fmt.Sprintf("10.0.0.2:%d", 70+i)), 1, text)
		msdu := append([]byte("\xaa\xaa\x03\x00\x00\x00\x08\x00"), frame[14:14+28+len(text)]...)
		data = append(append(data, strings.Repeat("\x04", 12)...), byte(len(msdu)>>8), byte(len(msdu)))
		data = append(data, msdu...)
		for i < 2 && (len(data)-26)%4 != 0 {
			data = append(data, 0)
		}
	}
	test.ifaceIndex("eth0")
	test.Packet("wlan0", linkWLAN, startTime, data, len(data))
	sessions := test.closeSessions()
	if len(sessions) != 3 {
		t.Errorf("%d sessions", len(sessions))
	}
	for _, session := range sessions {
		if !slices.Equal(session.Interfaces, []string{"wlan0"}) {
			t.Errorf("a session is seen on %v", session.Interfaces)
		}
		if session.Timestamp != startTime {
			t.Errorf("a session begins at %d", session.Timestamp)
		}
	}
}

// TestNothingIsOpenedThatIsNotKnown: where no tunnel is known, only tags of VLANs and link types are read through.
func TestNothingIsOpenedThatIsNotKnown(t *testing.T) {
	inner := tcpFrame(t, addrPort("10.0.0.1:4000"), addrPort("10.0.0.2:80"), "A", 1, 1, 1, "abc")
	opened := map[string]bool{}
	for _, frame := range encapsulations(t, inner) {
		if frame.link != layers.LinkTypeEthernet {
			continue
		}
		var reported []Undecoded
		test := newTableTest(t, Default(), Deps{Undecoded: func(where Undecoded, _ string) { reported = append(reported, where) }})
		test.Packet("eth0", frame.link, startTime, frame.data, len(frame.data))
		sessions := test.closeSessions()
		switch {
		case len(sessions) == 1 && sessions[0].Destination.Port == 80:
			opened[strings.Fields(frame.name)[0]] = true
		case len(sessions) == 1 && slices.Contains(sessions[0].Tags, pipeline.TagTunnelUnopened): // of the datagram around it
		case len(sessions) != 0 || len(reported) != 1 || reported[0].Layer != LayerTunnel:
			t.Errorf("%s: %v, %v", frame.name, sessions, reported)
		}
	}
	for _, name := range []string{"ethernet", "padding", "vlan", "five", "priority", "PRP", "length"} {
		delete(opened, name)
	}
	if len(opened) > 0 {
		t.Errorf("opened %v", opened)
	}
}

// undecodedIn returns the layers and types of the counters of undecoded packets that are 1.
func undecodedIn(t *testing.T, reg *prometheus.Registry) string {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, family := range families {
		for _, metric := range family.Metric {
			if family.GetName() == "tidegate_sessions_undecoded_packets_total" && metric.Counter.GetValue() == 1 {
				out = append(out, metric.Label[0].GetValue()+" "+metric.Label[1].GetValue())
			}
		}
	}
	return strings.Join(out, ", ")
}

// TestUndecodedIsNamed: the header at which decoding ends is named, and counted under a name that no sender chooses.
func TestUndecodedIsNamed(t *testing.T) {
	eth := strings.Repeat("\x02", 12)
	station := func(control string) string { return control + "\x00\x00" + strings.Repeat("\x02", 18) + "\x10\x00" }
	ip := func(proto byte) string {
		return eth + "\x08\x00\x45\x00\x00\x1c\x00\x00\x00\x00\x09" + string([]byte{proto}) +
			"\x00\x00\x01\x01\x01\x01\x02\x02\x02\x02" + "\x00\x00\x00\x00\x00\x00\x00\x00"
	}
	check := func(link layers.LinkType, frame, want, counter string) {
		t.Helper()
		got, reg := "", prometheus.NewRegistry()
		table := New(Default(), Deps{
			Tunnels: EveryTunnel, Undecoded: func(where Undecoded, _ string) { got = where.String() },
		}, reg)
		table.Packet("", link, startTime, []byte(frame), len(frame))
		if got != want {
			t.Errorf("%q: %q, want %q", frame, got, want)
		}
		if counted := undecodedIn(t, reg); counted != counter {
			t.Errorf("%s: counted under %s, want %s", want, counted, counter)
		}
	}
	ether := layers.LinkTypeEthernet
	check(ether, eth+"\x08\x06"+strings.Repeat("\x00", 28), "EtherType 0x0806 (arp)", "ethertype arp")
	check(ether, eth+"\x88\xccabc", "EtherType 0x88cc (lldp)", "ethertype lldp")
	check(ether, eth+"\x99\x99abc", "EtherType 0x9999", "ethertype other")
	check(ether, eth+"\x81\x00\x00\x07\x99\x99abc", "EtherType 0x9999", "ethertype other")
	check(ether, eth+"\x00\x26\x42\x42\x03abc", "LLC access point 0x42 (stp)", "llc stp")
	check(ether, eth+"\x00\x26\xaa\xaa\x03\x00\x00\x0c\x20\x00abc", "SNAP 00:00:0c 0x2000 (cdp)", "snap cdp")
	check(ether, eth+"\x00\x26\xaa\xaa\x03\x12\x34\x56\x08\x00abc", "SNAP 12:34:56 0x0800", "snap other")
	check(ether, eth+"\x88\x64\x11\x00\x00\x01\x00\x06\xc0\x21abcd", "PPP protocol 0xc021 (lcp)", "ppp lcp")
	check(ether, eth+"\x88\x47\x00\x01\x01\x40\x10\x00\x00\x00abc", "MPLS payload 1", "mpls other")
	check(ether, ip(132), "IP protocol 132 (sctp)", "ip sctp")
	check(ether, ip(1), "IP protocol 1 (icmp)", "ip icmp")
	check(ether, ip(253), "IP protocol 253", "ip other")
	check(layers.LinkTypeNull, "\x10\x00\x00\x00abc", "loopback family 16", "loopback other")
	check(147, "abc", "link type 147", "link other")
	check(linkWLAN, station("\x80\x00")+"abc", "802.11 management", "wlan management")
	check(linkWLAN, "\xd4\x00\x00\x00\x02\x02\x02\x02\x02\x02", "802.11 control", "wlan control")
	check(linkWLAN, station("\x48\x01")+"abc", "802.11 no_data", "wlan no_data")
	check(linkWLAN, station("\x08\x41")+"abc", "802.11 encrypted", "wlan encrypted")
	check(linkWLAN, station("\x08\x05")+"abc", "802.11 fragment", "wlan fragment")
	check(linkRadiotap, "\x00\x00\x09\x00\x02\x00\x00\x00\x40"+station("\x08\x01")+"abc", "802.11 damaged", "wlan damaged")
}
