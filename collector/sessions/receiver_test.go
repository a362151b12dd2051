package sessions

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"tidegate/pipeline"
)

// A decoy makes a frame one that its receiver drops.
type decoy struct {
	name   string
	change func(frame []byte) []byte
}

// withTCPOption returns frame, an Ethernet frame with TCP over IPv4 without options, with an option and valid
// checksums.
func withTCPOption(t testing.TB, frame []byte, option layers.TCPOption) []byte {
	src, _ := netip.AddrFromSlice(frame[26:30])
	dst, _ := netip.AddrFromSlice(frame[30:34])
	tcp := frame[34 : 14+binary.BigEndian.Uint16(frame[16:])] // without the padding of a short frame
	segment := &layers.TCP{
		SrcPort: layers.TCPPort(binary.BigEndian.Uint16(tcp)), DstPort: layers.TCPPort(binary.BigEndian.Uint16(tcp[2:])),
		Seq: binary.BigEndian.Uint32(tcp[4:]), Ack: binary.BigEndian.Uint32(tcp[8:]), ACK: true, Window: 60000,
		Options: []layers.TCPOption{option},
	}
	return slices.Concat(frame[:14], serialize(t, append(ipLayers(src, dst, 99, segment), gopacket.Payload(tcp[20:]))...)[14:])
}

// decoys are the kinds of frames to 02:00:00:00:00:02 that no receiver takes.
func decoys(t testing.TB) []decoy {
	to := func(mac string) func([]byte) []byte {
		return func(frame []byte) []byte { return append([]byte(mac), frame[6:]...) }
	}
	option := func(kind layers.TCPOptionKind, size int) func([]byte) []byte {
		return func(frame []byte) []byte {
			value := layers.TCPOption{OptionType: kind, OptionLength: uint8(size), OptionData: make([]byte, size-2)}
			return withTCPOption(t, frame, value)
		}
	}
	return []decoy{
		{"MD5", option(19, 18)},
		{"TCP-AO", option(29, 16)},
		{"a short TCP-AO", option(29, 4)},
		{"to all", to("\xff\xff\xff\xff\xff\xff")},
		{"to a group", to("\x01\x00\x5e\x00\x00\x01")},
		{"to nobody", to("\x02\xde\xad\x00\x00\x01")},
		{"to another container", to("\x02\x00\x00\x00\x00\x05")},
	}
}

// TestSegmentsThatNoReceiverTakesHideNoRequest: a longer segment at the place of a request, which the server does not
// acknowledge, is not told. The request is, and is marked.
func TestSegmentsThatNoReceiverTakesHideNoRequest(t *testing.T) {
	for _, decoy := range decoys(t) {
		for _, alone := range []bool{false, true} {
			host := newBridgeHost(t)
			table := newTableTest(t, Default(), Deps{
				Senders: host.deps.Senders, IsHostMAC: host.deps.IsHostMAC, Containers: host.deps.Containers,
				Bridge: func(string) bool { return true },
			})
			client, server := addrPort("172.17.0.9:40000"), addrPort("172.17.0.2:80")
			now := startTime
			send := func(back bool, flags string, seq, ack uint32, payload string, change func([]byte) []byte) {
				src, dst, from, to := client, server, byte(9), byte(2)
				if back {
					src, dst, from, to = server, client, 2, 9
				}
				frame := tcpFrame(t, src, dst, flags, seq, ack, uint16(now>>10), payload)
				copy(frame, []byte{2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from})
				if change != nil {
					frame = change(frame)
				}
				table.Packet("docker0", layers.LinkTypeEthernet, now, frame, len(frame))
				now += 1e5
			}
			request := "GET /real HTTP/1.1\r\nHost: a\r\n\r\n"
			send(false, "S", 999, 0, "", nil)
			send(true, "SA", 4999, 1000, "", nil)
			send(false, "A", 1000, 5000, "", nil)
			send(false, "A", 1000, 5000, "GET /decoy HTTP/1.1\r\n"+strings.Repeat("x", 900), decoy.change)
			if !alone {
				send(false, "A", 1000, 5000, request, nil)
				send(true, "A", 5000, 1000+uint32(len(request)), "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", nil)
			}
			table.Close()
			log := table.recorder.log.String()
			if strings.Contains(log, "decoy") || !alone && !strings.Contains(log, "GET /real") {
				t.Errorf("%s: the parser got %s", decoy.name, log)
			}
			for _, event := range table.events {
				if !slices.Contains(event.Tags, pipeline.TagRefusedHeaders) {
					t.Errorf("%s: an event is not marked: %v", decoy.name, event)
				}
			}
		}
	}
}

// TestSignedSegmentsThatAreAcknowledgedAreTold: both sides of a connection sign, and no byte of it is left out.
func TestSignedSegmentsThatAreAcknowledgedAreTold(t *testing.T) {
	test := newTableTest(t, Default(), Deps{}).handshake()
	signed := func(src, dst string, seq, ack uint32, payload string) {
		frame := tcpFrame(t, addrPort(src), addrPort(dst), "A", seq, ack, 1, payload)
		frame = withTCPOption(t, frame, layers.TCPOption{OptionType: 19, OptionLength: 18, OptionData: make([]byte, 16)})
		test.Packet("eth0", layers.LinkTypeEthernet, startTime+int64(test.now), frame, len(frame))
		test.now += 1e6
	}
	client, server := "10.0.0.1:40000", "10.0.0.2:80"
	signed(client, server, test.isn[0]+1, test.isn[1]+1, "ask")
	signed(server, client, test.isn[1]+1, test.isn[0]+4, "tell")
	signed(client, server, test.isn[0]+4, test.isn[1]+5, "")
	test.Close()
	test.wantParserLog(">ask <tell close")
}
