package sessions

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/google/gopacket/layers"
)

// withHeaders returns a frame of IPv6 with extension headers in front of its payload. Each header begins with its own
// type, where the packet has that of the next one.
func withHeaders(frame []byte, headers ...[]byte) []byte {
	const ethernet, ip = 14, 40
	out := slices.Clone(frame[:ethernet+ip])
	next := out[ethernet+6]
	var chain []byte
	for i, header := range headers {
		chain = append(chain, header...)
		following := next
		if i+1 < len(headers) {
			following = headers[i+1][0]
		}
		chain[len(chain)-len(header)] = following
	}
	if len(headers) > 0 {
		out[ethernet+6] = headers[0][0]
	}
	out = append(append(out, chain...), frame[ethernet+ip:]...)
	binary.BigEndian.PutUint16(out[ethernet+4:], uint16(len(out)-ethernet-ip))
	return out
}

// TestExtensionHeadersHideNoDatagram: Linux takes as many extension headers as a packet has.
func TestExtensionHeadersHideNoDatagram(t *testing.T) {
	destination := []byte{protoDestOpts, 0, 1, 4, 0, 0, 0, 0}
	frame := udpFrame(t, addrPort("[fd00::1]:4000"), addrPort("[fd00::2]:53"), 1, "ask")
	for name, headers := range map[string][][]byte{
		"hop-by-hop":       {{protoHopByHop, 0, 1, 4, 0, 0, 0, 0}},
		"routing":          {{protoRouting, 0, 0, 0, 0, 0, 0, 0}},
		"atomic fragment":  {{protoFragment, 0, 0, 0, 0, 0, 0, 1}},
		"a hundred":        slices.Repeat([][]byte{destination}, 100),
		"eight thousand":   slices.Repeat([][]byte{destination}, 8000),
		"refused by Linux": {{protoDestOpts, 0, 0x9e, 4, 0, 0, 0, 0}}, // of UDP there is no acknowledgement that decides
	} {
		packet := withHeaders(frame, headers...)
		test := newTableTest(t, Default(), Deps{})
		test.Packet("eth0", layers.LinkTypeEthernet, startTime, packet, len(packet))
		if test.Close(); test.recorder.log.String() != ">ask close " {
			t.Errorf("%s: parser got %q", name, test.recorder.log.String())
		}
	}
}

// TestFirstFragmentSaysWhatFollows: the other fragments may name any protocol.
func TestFirstFragmentSaysWhatFollows(t *testing.T) {
	test := newTableTest(t, Default(), Deps{})
	parts := fragments(t, udpFrame(t, addrPort("[fd00::1]:4000"), addrPort("[fd00::2]:53"), 1, strings.Repeat("y", 300)), 104)
	for i, part := range parts {
		if i > 0 {
			part[14+40] = byte(i)
		}
		test.Packet("eth0", layers.LinkTypeEthernet, startTime, part, len(part))
	}
	test.wantParserLog(">yyyyyyyy…300")
}

// TestDatagramOfManyFragmentsIsRead: Linux sets no limit to the number of fragments.
func TestDatagramOfManyFragmentsIsRead(t *testing.T) {
	for _, ends := range [][2]string{{"10.0.0.1:4000", "10.0.0.2:53"}, {"[fd00::1]:4000", "[fd00::2]:53"}} {
		test := newTableTest(t, Default(), Deps{})
		parts := fragments(t, udpFrame(t, addrPort(ends[0]), addrPort(ends[1]), 1, strings.Repeat("y", 8000)), 8)
		slices.Reverse(parts)
		for _, part := range parts {
			test.Packet("eth0", layers.LinkTypeEthernet, startTime, part, len(part))
		}
		test.wantParserLog(">yyyyyyyy…8000")
	}
}

// TestRefusedHeadersReplaceNoBytes: a segment that Linux drops because of its extension headers has other
// bytes than the one that follows.
func TestRefusedHeadersReplaceNoBytes(t *testing.T) {
	for name, header := range map[string][]byte{
		"option that the receiver must know": {protoDestOpts, 0, 0x9e, 4, 0, 0, 0, 0},
		"padding with values":                {protoDestOpts, 0, 1, 4, 0, 0, 0, 1},
		"long padding":                       append([]byte{protoDestOpts, 1, 1, 12}, make([]byte, 12)...),
		"option beyond its header":           {protoDestOpts, 0, 0x1e, 5, 0, 0, 0, 0},
		"nine options":                       append([]byte{protoDestOpts, 2}, append(bytes.Repeat([]byte{0x1e, 0}, 9), 1, 2, 0, 0)...),
		"a segment left":                     {protoRouting, 0, 0, 1, 0, 0, 0, 0},
		"segment routing":                    {protoRouting, 0, 4, 0, 0, 0, 0, 0},
		"mobility":                           {protoMobility, 0, 0, 0, 0, 0, 0, 0},
	} {
		test := newTableTest(t, Default(), Deps{})
		client, server := addrPort("[fd00::1]:4000"), addrPort("[fd00::2]:80")
		send := func(fromClient bool, tcp layers.TCP, payload string, headers ...[]byte) {
			src, dst := server, client
			if fromClient {
				src, dst = client, server
			}
			tcp.SrcPort, tcp.DstPort, tcp.Window = layers.TCPPort(src.Port()), layers.TCPPort(dst.Port()), 1000
			packet := withHeaders(frame(t, src.Addr(), dst.Addr(), 0, &tcp, payload), headers...)
			test.Packet("eth0", layers.LinkTypeEthernet, startTime, packet, len(packet))
		}
		send(true, layers.TCP{Seq: 99, SYN: true}, "")
		send(false, layers.TCP{Seq: 499, Ack: 100, SYN: true, ACK: true}, "")
		send(true, layers.TCP{Seq: 100, Ack: 500, ACK: true}, "")
		send(true, layers.TCP{Seq: 100, Ack: 500, ACK: true}, "decoy", header)
		send(true, layers.TCP{Seq: 100, Ack: 500, ACK: true}, "bytes")
		send(false, layers.TCP{Seq: 500, Ack: 105, ACK: true}, "")
		if test.wantParserLog(">bytes"); t.Failed() {
			t.Fatal(name)
		}
	}
}

// TestOptionsOfIPv4ThatLinuxRefuses: the differential test holds the same against the kernel.
func TestOptionsOfIPv4ThatLinuxRefuses(t *testing.T) {
	for _, test := range []struct {
		name    string
		options []byte
		want    bool
	}{
		{"no operations", []byte{1, 1, 1, 1}, false},
		{"an end", []byte{0, 131, 9, 9}, false},
		{"router alert", []byte{148, 4, 0, 0}, false},
		{"unknown", []byte{30, 4, 1, 2}, false},
		{"a record of the route", []byte{7, 7, 4, 0, 0, 0, 0, 1}, false},
		{"a full record", []byte{7, 7, 8, 0, 0, 0, 0, 1}, false},
		{"a record without a place", []byte{7, 7, 6, 0, 0, 0, 0, 1}, true},
		{"a loose source route", []byte{131, 7, 4, 10, 0, 0, 1, 0}, true},
		{"a strict source route", []byte{137, 7, 8, 10, 0, 0, 1, 0}, true},
		{"an option of one byte", []byte{30, 1, 1, 1}, true},
		{"an option beyond the header", []byte{1, 30, 4, 1}, true},
		{"an option without a length", []byte{1, 1, 1, 30}, true},
	} {
		if got := areOptionsRefusedIPv4(test.options); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}
