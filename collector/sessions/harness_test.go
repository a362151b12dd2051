package sessions

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline"
	"tidegate/protocols"
)

// A recordingProtocol is a protocol that logs the calls of its parsers.
type recordingProtocol struct {
	log   strings.Builder
	bytes [2][]byte // of all connections
	gaps  [2]int
	texts bool // the events have the text in redis.command
}

// A recordingParser is a parser of a recordingProtocol. It emits an event for each call of Parse.
type recordingParser struct {
	recording *recordingProtocol
	conn      *protocols.Conn
}

func (p *recordingParser) Reset(c *protocols.Conn) { p.conn = c }

func (p *recordingParser) Parse(dir protocols.Dir, data []byte, at int64) (int, error) {
	text := string(data)
	if len(text) > 40 {
		text = fmt.Sprintf("%s…%d", text[:8], len(text))
	}
	fmt.Fprintf(&p.recording.log, "%s%s ", direction(dir), text)
	p.recording.bytes[dir] = append(p.recording.bytes[dir], data...)
	event := p.conn.EventUDP(dir, uint64(len(p.recording.bytes[dir])))
	event.Dataset = pipeline.Dataset_REDIS
	if p.recording.texts {
		event.Redis = &pipeline.RedisCommand{Command: string(data)}
	}
	p.conn.Emit(event)
	return len(data), nil
}

// maxRecordedGap is the size of a gap in place of which a recordingParser records zeros.
const maxRecordedGap = 1 << 20

func (p *recordingParser) Gap(dir protocols.Dir, n int) bool {
	fmt.Fprintf(&p.recording.log, "%sgap%d ", direction(dir), n)
	p.recording.gaps[dir] += n
	if p.recording.texts || n > maxRecordedGap { // forged numbers make gaps of gigabytes
		return true
	}
	p.recording.bytes[dir] = append(p.recording.bytes[dir], make([]byte, n)...)
	return true
}

func (p *recordingParser) End(dir protocols.Dir, _ int64) {
	fmt.Fprintf(&p.recording.log, "%send ", direction(dir))
}
func (p *recordingParser) Close(int64) { p.recording.log.WriteString("close ") }

// direction returns the sign of a direction in the log.
func direction(d protocols.Dir) string {
	if d == protocols.Client {
		return ">"
	}
	return "<"
}

// protocol returns p as a protocol that takes every connection.
func (p *recordingProtocol) protocol() protocols.Protocol {
	always := func(protocols.Dir, []byte) protocols.Match { return protocols.Yes }
	return protocols.Protocol{
		Name: "tape", Dataset: pipeline.Dataset_REDIS, UDP: true, TCP: true, Detect: always,
		Sync: func(protocols.Dir, []byte) (int, protocols.Match) { return 0, protocols.Yes },
		New:  func() protocols.Parser { return &recordingParser{recording: p} },
	}
}

// A tableTest is a Table with a recordingProtocol, and the events that the Table emits.
type tableTest struct {
	testing.TB
	*Table
	recorder *recordingProtocol
	events   []*pipeline.Event
	now      time.Duration
	isn      [2]uint32
	ipid     uint16
}

// newTableTest returns a Table whose clock stands at startTime.
func newTableTest(t testing.TB, cfg Config, deps Deps) *tableTest {
	test := &tableTest{TB: t, recorder: &recordingProtocol{}, isn: [2]uint32{1000, 5000}}
	deps.Protocols = protocols.NewSet([]protocols.Protocol{test.recorder.protocol()}, protocols.Default(), nil)
	deps.Emit = func(event *pipeline.Event) { test.events = append(test.events, event) }
	test.Table = New(cfg, deps, prometheus.NewRegistry())
	return test
}

// startTime is the time of the first packet of a test, in ns.
const startTime = int64(1_700_000_000e9)

// setTime sets the packet time of the next packet, since startTime.
func (b *tableTest) setTime(d time.Duration) *tableTest { b.now = d; return b }

// segment sends a segment from the client 10.0.0.1:40000 to the server 10.0.0.2:80, or back if way is "<".
// flags are letters of SAFR; offsets are from behind the SYN.
func (b *tableTest) segment(way, flags string, off, ack int, payload string) {
	b.segmentOn("eth0", "10.0.0.1:40000", "10.0.0.2:80", way, flags, off, ack, payload)
}

// segmentOn sends a segment between the given addresses, captured on iface. The other parameters are those of
// segment.
func (b *tableTest) segmentOn(iface, client, server, way, flags string, off, ack int, payload string) {
	b.Helper()
	src, dst := netip.MustParseAddrPort(client), netip.MustParseAddrPort(server)
	seq, ackNumber := b.isn[0]+1+uint32(off), b.isn[1]+1+uint32(ack)
	if way == "<" {
		src, dst = dst, src
		seq, ackNumber = b.isn[1]+1+uint32(off), b.isn[0]+1+uint32(ack)
	}
	if strings.Contains(flags, "S") {
		seq--
	}
	b.ipid++
	frame := tcpFrame(b, src, dst, flags, seq, ackNumber, b.ipid, payload)
	b.Packet(iface, layers.LinkTypeEthernet, startTime+int64(b.now), frame, len(frame))
	b.now += 10 * time.Microsecond
}

// tcpFrame returns an Ethernet frame with a TCP segment. flags are letters of SAFR, and Z for a closed
// window.
func tcpFrame(
	t testing.TB, src, dst netip.AddrPort, flags string, seq, ack uint32, id uint16, payload string,
) []byte {
	has := func(letter string) bool { return strings.Contains(flags, letter) }
	segment := &layers.TCP{
		SrcPort: layers.TCPPort(src.Port()), DstPort: layers.TCPPort(dst.Port()), Seq: seq,
		Ack: ack, Window: 60000, SYN: has("S"), ACK: has("A"), FIN: has("F"), RST: has("R"),
	}
	if !segment.ACK {
		segment.Ack = 0
	}
	if has("Z") {
		segment.Window = 0
	}
	return frame(t, src.Addr(), dst.Addr(), id, segment, payload)
}

// udpFrame returns an Ethernet frame with a UDP datagram.
func udpFrame(t testing.TB, src, dst netip.AddrPort, id uint16, payload string) []byte {
	header := &layers.UDP{SrcPort: layers.UDPPort(src.Port()), DstPort: layers.UDPPort(dst.Port())}
	return frame(t, src.Addr(), dst.Addr(), id, header, payload)
}

// frame returns an Ethernet frame with l4 and payload in it.
func frame(t testing.TB, src, dst netip.Addr, id uint16, l4 gopacket.SerializableLayer, payload string) []byte {
	t.Helper()
	list := append(ipLayers(src, dst, id, l4), gopacket.Payload(payload))
	return serialize(t, list...)
}

// ipLayers returns the layers of a packet, from Ethernet to l4, for IPv4 or IPv6.
func ipLayers(src, dst netip.Addr, id uint16, l4 gopacket.SerializableLayer) []gopacket.SerializableLayer {
	eth := &layers.Ethernet{
		SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 0, 2},
		EthernetType: layers.EthernetTypeIPv4,
	}
	proto := layers.IPProtocolTCP
	if _, ok := l4.(*layers.UDP); ok {
		proto = layers.IPProtocolUDP
	}
	var ip gopacket.NetworkLayer
	var network gopacket.SerializableLayer
	if src.Is4() {
		v4 := &layers.IPv4{
			Version: 4, TTL: 64, Id: id, Protocol: proto, SrcIP: src.AsSlice(),
			DstIP: dst.AsSlice(),
		}
		ip, network = v4, v4
	} else {
		eth.EthernetType = layers.EthernetTypeIPv6
		v6 := &layers.IPv6{
			Version: 6, HopLimit: 64, NextHeader: proto, SrcIP: src.AsSlice(),
			DstIP: dst.AsSlice(),
		}
		ip, network = v6, v6
	}
	switch transport := l4.(type) {
	case *layers.TCP:
		_ = transport.SetNetworkLayerForChecksum(ip)
	case *layers.UDP:
		_ = transport.SetNetworkLayerForChecksum(ip)
	}
	return []gopacket.SerializableLayer{eth, network, l4}
}

// serialize encodes layers, with their lengths and checksums.
func serialize(t testing.TB, list ...gopacket.SerializableLayer) []byte {
	t.Helper()
	buf := gopacket.NewSerializeBuffer()
	options := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buf, options, list...); err != nil {
		t.Fatal(err)
	}
	return append([]byte(nil), buf.Bytes()...)
}

// handshake sends the three segments of a handshake.
func (b *tableTest) handshake() *tableTest {
	b.segment(">", "S", 0, 0, "")
	b.segment("<", "SA", 0, 0, "")
	b.segment(">", "A", 0, 0, "")
	return b
}

// closeOrderly sends the FINs of both sides. The parameters are the numbers of bytes that the sides have
// sent.
func (b *tableTest) closeOrderly(clientBytes, serverBytes int) *tableTest {
	b.segment(">", "FA", clientBytes, serverBytes, "")
	b.segment("<", "FA", serverBytes, clientBytes+1, "")
	b.segment(">", "A", clientBytes+1, serverBytes+1, "")
	return b
}

// closeSessions closes the Table and returns the session events.
func (b *tableTest) closeSessions() []*pipeline.Event {
	b.Close()
	var sessions []*pipeline.Event
	for _, event := range b.events {
		if event.Dataset == pipeline.Dataset_SESSION {
			sessions = append(sessions, event)
		}
	}
	return sessions
}

// wantParserLog fails the test unless the calls of the parser are as given.
func (b *tableTest) wantParserLog(log string) {
	b.Helper()
	if got := strings.TrimSpace(b.recorder.log.String()); got != log {
		b.Errorf("the parser got\n  %s\nwant\n  %s", got, log)
	}
}

// closeOneSession closes the Table and returns its only session event.
func (b *tableTest) closeOneSession() *pipeline.Event {
	b.Helper()
	events := b.closeSessions()
	if len(events) != 1 {
		b.Fatalf("%d sessions, want 1", len(events))
	}
	return events[0]
}

// configWith returns the defaults with a change.
func configWith(change func(*Config)) Config {
	cfg := Default()
	change(&cfg)
	return cfg
}
