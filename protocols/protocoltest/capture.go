package protocoltest

import (
	"bufio"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"tidegate/pipeline"
	"tidegate/protocols"
)

// SharedData returns the folder of the captures that are not part of the repository and of the results of
// other tools on them. The test is skipped if the folder is absent. root is the path of the repository.
func SharedData(t testing.TB, root string) string {
	t.Helper()
	dir := os.Getenv("TIDEGATE_SHARED")
	if dir == "" {
		dir = filepath.Join(root, "..", "shared")
	}
	dir = filepath.Join(dir, "data")
	if _, err := os.Stat(filepath.Join(dir, "pcaps")); err != nil {
		t.Skip("no shared data: set TIDEGATE_SHARED")
	}
	return dir
}

// A connection is one connection of a capture.
//
// Its reassembly is simple on purpose: it delivers segments in order, drops repeated bytes and turns missing
// bytes into a gap. It is independent of collector/reassembly, so that an error of one of them appears as a
// difference from other tools.
type connection struct {
	conn    *protocols.Conn
	streams [2]heldStream // by Dir
	last    int64         // time of the last packet
}

// A heldStream is one direction of a TCP connection with the segments that wait for earlier bytes.
type heldStream struct {
	begun bool
	next  uint32    // sequence number of the next byte to deliver; valid once begun
	held  []segment // by sequence number
}

// A segment is a TCP segment with payload or FIN.
type segment struct {
	seq  uint32
	data []byte
	fin  bool
	at   int64
}

// Capture plays a capture file and returns its events.
func Capture(t testing.TB, list []protocols.Protocol, path string) (events []*pipeline.Event) {
	t.Helper()
	PlayCapture(t, list, path, func(event *pipeline.Event) { events = append(events, event) })
	return events
}

// PlayCapture plays a capture file and passes its events to emit, which owns them. A panic of a parser is an
// error of t.
func PlayCapture(t testing.TB, list []protocols.Protocol, path string, emit func(*pipeline.Event)) {
	t.Helper()
	playCapture(t, protocols.NewSet(list, protocols.Default(), nil), path, emit)
}

// playCapture plays a capture file to set.
func playCapture(t testing.TB, set *protocols.Set, path string, emit func(*pipeline.Event)) {
	t.Helper()
	set.Panicked = func(protocol string, value any, stack []byte) {
		t.Errorf("%s: the parser of %s panicked: %v\n%s", path, protocol, value, stack)
	}
	player := &capturePlayer{set: set, emit: emit, byPair: map[[2]netip.AddrPort]*connection{}}
	readPackets(t, path, player.play)
	player.close()
}

// A capturePlayer plays the packets of a capture to the connections of a set.
type capturePlayer struct {
	set    *protocols.Set
	emit   func(*pipeline.Event)
	opened []*connection                     // in the order in which they began
	byPair map[[2]netip.AddrPort]*connection // by client and server; the latest of a pair
}

// play passes a packet to its connection, which it opens for the first packet.
func (p *capturePlayer) play(packet gopacket.Packet, at int64) {
	from, to, transport, ok := endpoints(packet)
	if !ok {
		return
	}
	tcp, _ := packet.TransportLayer().(*layers.TCP)

	// 1. Find the connection, in either direction. A SYN with another sequence number reuses the ports.
	dir, conn := protocols.Client, p.byPair[[2]netip.AddrPort{from, to}]
	if conn == nil {
		if conn = p.byPair[[2]netip.AddrPort{to, from}]; conn != nil {
			dir = protocols.Server
		}
	}
	if conn != nil && dir == protocols.Client && tcp != nil && tcp.SYN && !tcp.ACK {
		if client := &conn.streams[protocols.Client]; client.begun && client.next != tcp.Seq+1 {
			conn = nil
		}
	}

	// 2. Open it. Without a SYN the smaller port is that of the server, if it is below 1024.
	if conn == nil {
		info := protocols.Info{Transport: transport, Client: from, Server: to, MidStream: tcp != nil && !tcp.SYN}
		if tcp != nil && tcp.SYN && tcp.ACK || to.Port() > from.Port() && from.Port() < 1024 {
			info.Client, info.Server, dir = to, from, protocols.Server
		}
		info.Session = pipeline.SessionID(pipeline.ID{}, transport, info.Client, info.Server, 0, at)
		conn = &connection{conn: p.set.Open(info, p.emit)}
		p.byPair[[2]netip.AddrPort{info.Client, info.Server}] = conn
		p.opened = append(p.opened, conn)
	}

	// 3. Deliver the payload.
	conn.last = at
	conn.conn.Tick(at)
	if tcp == nil {
		conn.conn.Datagram(dir, packet.TransportLayer().LayerPayload(), at)
		return
	}
	conn.addSegment(dir, tcp, at)
}

// close delivers the segments that still wait and closes all connections.
func (p *capturePlayer) close() {
	for _, conn := range p.opened {
		for dir := range conn.streams {
			conn.deliver(protocols.Dir(dir), true)
		}
		conn.conn.Close(conn.last)
	}
}

// addSegment adds a segment and delivers the segments that are in order.
func (c *connection) addSegment(dir protocols.Dir, tcp *layers.TCP, at int64) {
	stream := &c.streams[dir]
	seq := tcp.Seq
	if tcp.SYN {
		seq++
	}
	if !stream.begun {
		stream.begun, stream.next = true, seq
	}
	if len(tcp.Payload) > 0 || tcp.FIN {
		stream.held = append(stream.held, segment{seq, slices.Clone(tcp.Payload), tcp.FIN, at})
		slices.SortStableFunc(stream.held, func(a, b segment) int { return int(int32(a.seq - b.seq)) })
	}
	c.deliver(dir, false)
	if len(stream.held) > 0 && tcp.ACK {
		return
	}

	// Bytes that this side has acknowledged and the capture does not have are a gap.
	peer := &c.streams[dir.Other()]
	if tcp.ACK && peer.begun && len(peer.held) > 0 && int32(tcp.Ack-peer.held[0].seq) > 0 {
		c.deliver(dir.Other(), true)
	}
}

// deliver passes the segments that are in order to the parser. If all is set, it passes the others too, with
// gaps between.
func (c *connection) deliver(dir protocols.Dir, all bool) {
	stream := &c.streams[dir]
	for len(stream.held) > 0 {
		first := stream.held[0]
		repeated := int32(stream.next - first.seq) // bytes that were delivered before; negative: bytes that miss
		if repeated < 0 {
			if !all {
				return
			}
			c.conn.Gap(dir, int(-repeated), first.at)
			stream.next, repeated = first.seq, 0
		}
		stream.held = stream.held[1:]
		if int(repeated) < len(first.data) {
			c.conn.Data(dir, first.data[repeated:], first.at)
			stream.next += uint32(len(first.data) - int(repeated))
		}
		if first.fin {
			c.conn.End(dir, first.at)
		}
	}
}

// endpoints returns source, destination and transport of a TCP segment or UDP datagram. ICMP is left out,
// also if it quotes a segment.
func endpoints(packet gopacket.Packet) (from, to netip.AddrPort, transport pipeline.Transport, ok bool) {
	network, transportLayer := packet.NetworkLayer(), packet.TransportLayer()
	if network == nil || transportLayer == nil ||
		packet.Layer(layers.LayerTypeICMPv4) != nil || packet.Layer(layers.LayerTypeICMPv6) != nil {
		return
	}
	source, ok1 := netip.AddrFromSlice(network.NetworkFlow().Src().Raw())
	destination, ok2 := netip.AddrFromSlice(network.NetworkFlow().Dst().Raw())
	ok = ok1 && ok2
	switch layer := transportLayer.(type) {
	case *layers.TCP:
		from = netip.AddrPortFrom(source, uint16(layer.SrcPort))
		to = netip.AddrPortFrom(destination, uint16(layer.DstPort))
		return from, to, pipeline.Transport_TCP, ok
	case *layers.UDP:
		from = netip.AddrPortFrom(source, uint16(layer.SrcPort))
		to = netip.AddrPortFrom(destination, uint16(layer.DstPort))
		return from, to, pipeline.Transport_UDP, ok
	}
	return from, to, transport, false
}

// decoder returns the decoder of a link type. gopacket has no decoder for some link types of IP packets
// without a frame.
func decoder(linkType layers.LinkType, data []byte) gopacket.Decoder {
	switch linkType {
	case 12, 14, 101, 228, 229:
		if len(data) > 0 && data[0]>>4 == 6 {
			return layers.LayerTypeIPv6
		}
		return layers.LayerTypeIPv4
	}
	return linkType
}

// A packetSource reads a pcap or pcapng file.
type packetSource interface {
	ReadPacketData() ([]byte, gopacket.CaptureInfo, error)
	LinkType() layers.LinkType
}

// readPackets calls visit for each packet of the file. A file that is cut short or of an unknown format is
// logged.
func readPackets(t testing.TB, path string, visit func(packet gopacket.Packet, at int64)) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()

	// The magic number decides between pcap and pcapng.
	var source packetSource
	if source, err = pcapgo.NewReader(bufio.NewReader(file)); err != nil {
		if _, err = file.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if source, err = pcapgo.NewNgReader(bufio.NewReader(file), pcapgo.DefaultNgReaderOptions); err != nil {
			t.Logf("%s: %v", path, err)
			return
		}
	}

	for {
		data, info, err := source.ReadPacketData()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				t.Logf("%s: %v", path, err)
			}
			return
		}
		packet := gopacket.NewPacket(data, decoder(source.LinkType(), data), gopacket.DecodeOptions{NoCopy: true})
		visit(packet, info.Timestamp.UnixNano())
	}
}
