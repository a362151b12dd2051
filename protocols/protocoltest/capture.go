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

// SharedData returns the folder of the captures that are not part of the repository, and what other tools
// found in them. The test is skipped if it is absent. root is the path of the repository.
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
// Its reassembly is as plain as can be: segments in order, what was sent again thrown away, what never came a
// gap. Differences from collector/reassembly, which is the one that runs, show in tests as differences from
// other tools.
type connection struct {
	conn    *protocols.Conn
	streams [2]heldStream
	last    int64 // time of the last packet
}

// A heldStream is one direction of a TCP connection: the segments that wait for those before them.
type heldStream struct {
	begun bool
	next  uint32
	held  []segment
}

type segment struct {
	seq  uint32
	data []byte
	fin  bool
	at   int64
}

// Capture plays a capture file and returns its events.
func Capture(t testing.TB, list []protocols.Protocol, path string) (events []*pipeline.Event) {
	t.Helper()
	PlayCapture(t, list, path, func(e *pipeline.Event) { events = append(events, e) })
	return events
}

// PlayCapture plays a capture file. emit is given its events and owns them. A panic of a parser is an error
// of t.
func PlayCapture(t testing.TB, list []protocols.Protocol, path string, emit func(*pipeline.Event)) {
	t.Helper()
	set := protocols.NewSet(list, protocols.Default(), nil)
	set.Panicked = func(protocol string, value any, stack []byte) {
		t.Errorf("%s: the parser of %s panicked: %v\n%s", path, protocol, value, stack)
	}
	var open []*connection // in the order in which they began
	known := map[[2]netip.AddrPort]*connection{}
	packets(t, path, func(packet gopacket.Packet, at int64) {
		from, to, transport, ok := endpoints(packet)
		if !ok {
			return
		}
		tcp, _ := packet.TransportLayer().(*layers.TCP)
		dir, conn := protocols.Client, known[[2]netip.AddrPort{from, to}]
		if conn == nil {
			if conn = known[[2]netip.AddrPort{to, from}]; conn != nil {
				dir = protocols.Server
			}
		}
		if conn != nil && dir == protocols.Client && tcp != nil && tcp.SYN && !tcp.ACK {
			if client := &conn.streams[protocols.Client]; client.begun && client.next != tcp.Seq+1 {
				conn = nil // the ports are used again
			}
		}
		if conn == nil {
			info := protocols.Info{Transport: transport, Client: from, Server: to, MidStream: tcp != nil && !tcp.SYN}
			if tcp != nil && tcp.SYN && tcp.ACK || to.Port() > from.Port() && from.Port() < 1024 {
				info.Client, info.Server, dir = to, from, protocols.Server
			}
			info.Session = pipeline.SessionID(pipeline.ID{}, transport, info.Client, info.Server, 0, at)
			conn = &connection{conn: set.Open(info, emit)}
			known[[2]netip.AddrPort{info.Client, info.Server}] = conn
			open = append(open, conn)
		}
		conn.last = at
		conn.conn.Tick(at)
		if tcp == nil {
			conn.conn.Datagram(dir, packet.TransportLayer().LayerPayload(), at)
			return
		}
		conn.addSegment(dir, tcp, at)
	})
	for _, conn := range open {
		for d := range conn.streams {
			conn.deliver(protocols.Dir(d), true)
		}
		conn.conn.Close(conn.last)
	}
}

// addSegment adds a segment and delivers what is in order.
func (k *connection) addSegment(dir protocols.Dir, tcp *layers.TCP, at int64) {
	stream := &k.streams[dir]
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
	k.deliver(dir, false)
	if len(stream.held) > 0 && tcp.ACK {
		return
	}
	// Bytes that the peer has acknowledged and the capture does not have are a gap.
	if peer := &k.streams[dir.Other()]; tcp.ACK && peer.begun && len(peer.held) > 0 && int32(tcp.Ack-peer.held[0].seq) > 0 {
		k.deliver(dir.Other(), true)
	}
}

// deliver gives the segments that are in order to the parser; all of them, with gaps between, if all is set.
func (k *connection) deliver(dir protocols.Dir, all bool) {
	stream := &k.streams[dir]
	for len(stream.held) > 0 {
		first := stream.held[0]
		over := int32(stream.next - first.seq)
		if over < 0 {
			if !all {
				return
			}
			k.conn.Gap(dir, int(-over), first.at)
			stream.next, over = first.seq, 0
		}
		stream.held = stream.held[1:]
		if int(over) < len(first.data) {
			k.conn.Data(dir, first.data[over:], first.at)
			stream.next += uint32(len(first.data) - int(over))
		}
		if first.fin {
			k.conn.End(dir, first.at)
		}
	}
}

func endpoints(p gopacket.Packet) (a, b netip.AddrPort, t pipeline.Transport, ok bool) {
	networkLayer, tl := p.NetworkLayer(), p.TransportLayer()
	if networkLayer == nil || tl == nil || p.Layer(layers.LayerTypeICMPv4) != nil || p.Layer(layers.LayerTypeICMPv6) != nil {
		return
	}
	src, ok1 := netip.AddrFromSlice(networkLayer.NetworkFlow().Src().Raw())
	dst, ok2 := netip.AddrFromSlice(networkLayer.NetworkFlow().Dst().Raw())
	switch l := tl.(type) {
	case *layers.TCP:
		return netip.AddrPortFrom(src, uint16(l.SrcPort)), netip.AddrPortFrom(dst, uint16(l.DstPort)), pipeline.Transport_TCP, ok1 && ok2
	case *layers.UDP:
		return netip.AddrPortFrom(src, uint16(l.SrcPort)), netip.AddrPortFrom(dst, uint16(l.DstPort)), pipeline.Transport_UDP, ok1 && ok2
	}
	return
}

// decoder returns the decoder of a link type. gopacket does not know every link type that has IP packets
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

type packetSource interface {
	ReadPacketData() ([]byte, gopacket.CaptureInfo, error)
	LinkType() layers.LinkType
}

// packets calls f for each packet of the file.
func packets(t testing.TB, path string, f func(p gopacket.Packet, at int64)) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var src packetSource
	if src, err = pcapgo.NewReader(bufio.NewReader(file)); err != nil {
		if _, err = file.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if src, err = pcapgo.NewNgReader(bufio.NewReader(file), pcapgo.DefaultNgReaderOptions); err != nil {
			t.Logf("%s: %v", path, err)
			return
		}
	}
	for {
		data, ci, err := src.ReadPacketData()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				t.Logf("%s: %v", path, err)
			}
			return
		}
		f(gopacket.NewPacket(data, decoder(src.LinkType(), data), gopacket.DecodeOptions{NoCopy: true}), ci.Timestamp.UnixNano())
	}
}
