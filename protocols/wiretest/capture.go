package wiretest

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

// Shared is the folder of shared test data; the test is skipped where there is none. up is the way to the repository's root.
func Shared(t testing.TB, up string) string {
	dir := os.Getenv("TIDEGATE_SHARED")
	if dir == "" {
		dir = filepath.Join(up, "..", "shared")
	}
	if _, err := os.Stat(filepath.Join(dir, "data", "pcaps")); err != nil {
		t.Skip("no shared data: set TIDEGATE_SHARED")
	}
	return dir
}

// A conn is one connection of a capture.
type conn struct {
	c       *protocols.Conn
	client  netip.AddrPort
	streams [2]segments
	last    int64
}

// segments is one direction of a TCP connection.
type segments struct {
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

// Capture plays a capture file and gives all its events.
func Capture(t testing.TB, list []protocols.Protocol, path string) []*pipeline.Event {
	t.Helper()
	var events []*pipeline.Event
	set := protocols.NewSet(list, protocols.Default(), nil)
	conns := map[[2]netip.AddrPort]*conn{}
	var order []*conn
	packets(t, path, func(p gopacket.Packet, at int64) {
		a, b, tr, ok := ends(p)
		if !ok {
			return
		}
		tcp, _ := p.TransportLayer().(*layers.TCP)
		dir, k := protocols.Client, conns[[2]netip.AddrPort{a, b}]
		if k == nil {
			if k = conns[[2]netip.AddrPort{b, a}]; k != nil {
				dir = protocols.Server
			}
		}
		if k != nil && tcp != nil && tcp.SYN && !tcp.ACK && dir == protocols.Client && k.streams[0].begun && k.streams[0].next != tcp.Seq+1 {
			k = nil // the ports are used again
		}
		if k == nil {
			info := protocols.Info{Transport: tr, Client: a, Server: b, MidStream: tcp != nil && !tcp.SYN}
			if flip := tcp != nil && tcp.SYN && tcp.ACK || b.Port() > a.Port() && a.Port() < 1024; flip {
				info.Client, info.Server, dir = b, a, protocols.Server
			}
			info.Session = pipeline.SessionID(pipeline.ID{}, tr, info.Client, info.Server, 0, at)
			k = &conn{c: set.Open(info, func(e *pipeline.Event) { events = append(events, e) }), client: info.Client}
			conns[[2]netip.AddrPort{info.Client, info.Server}] = k
			order = append(order, k)
		}
		k.last = at
		k.c.Tick(at)
		if tcp == nil {
			k.c.Datagram(dir, p.TransportLayer().LayerPayload(), at)
			return
		}
		k.tcp(dir, tcp, at)
	})
	for _, k := range order {
		for d := range k.streams {
			k.flush(protocols.Dir(d), true)
		}
		k.c.Close(k.last)
	}
	return events
}

func (k *conn) tcp(dir protocols.Dir, t *layers.TCP, at int64) {
	s := &k.streams[dir]
	seq := t.Seq
	if t.SYN {
		seq++
	}
	if !s.begun {
		s.begun, s.next = true, seq
	}
	if len(t.Payload) > 0 || t.FIN {
		s.held = append(s.held, segment{seq, slices.Clone(t.Payload), t.FIN, at})
		slices.SortStableFunc(s.held, func(a, b segment) int { return int(int32(a.seq - b.seq)) })
	}
	k.flush(dir, false)
	if len(s.held) > 0 && t.ACK {
		return
	}
	// What the other side has acknowledged and we have not seen is a gap.
	if o := &k.streams[dir.Other()]; t.ACK && o.begun && len(o.held) > 0 && int32(t.Ack-o.held[0].seq) > 0 {
		k.flush(dir.Other(), true)
	}
}

func (k *conn) flush(dir protocols.Dir, all bool) {
	s := &k.streams[dir]
	for len(s.held) > 0 {
		h := s.held[0]
		over := int32(s.next - h.seq)
		if over < 0 {
			if !all {
				return
			}
			k.c.Gap(dir, int(-over), h.at)
			s.next, over = h.seq, 0
		}
		s.held = s.held[1:]
		if int(over) < len(h.data) {
			k.c.Data(dir, h.data[over:], h.at)
			s.next += uint32(len(h.data) - int(over))
		}
		if h.fin {
			k.c.End(dir, h.at)
		}
	}
}

func ends(p gopacket.Packet) (a, b netip.AddrPort, t pipeline.Transport, ok bool) {
	n, tl := p.NetworkLayer(), p.TransportLayer()
	if n == nil || tl == nil || p.Layer(layers.LayerTypeICMPv4) != nil || p.Layer(layers.LayerTypeICMPv6) != nil {
		return
	}
	src, ok1 := netip.AddrFromSlice(n.NetworkFlow().Src().Raw())
	dst, ok2 := netip.AddrFromSlice(n.NetworkFlow().Dst().Raw())
	switch l := tl.(type) {
	case *layers.TCP:
		return netip.AddrPortFrom(src, uint16(l.SrcPort)), netip.AddrPortFrom(dst, uint16(l.DstPort)), pipeline.Transport_TCP, ok1 && ok2
	case *layers.UDP:
		return netip.AddrPortFrom(src, uint16(l.SrcPort)), netip.AddrPortFrom(dst, uint16(l.DstPort)), pipeline.Transport_UDP, ok1 && ok2
	}
	return
}

// decoder is that of a link type; gopacket does not know all that mean an IP packet without a frame.
func decoder(l layers.LinkType, b []byte) gopacket.Decoder {
	switch l {
	case 12, 14, 101, 228, 229:
		if len(b) > 0 && b[0]>>4 == 6 {
			return layers.LayerTypeIPv6
		}
		return layers.LayerTypeIPv4
	}
	return l
}

type source interface {
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
	var src source
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
		b, ci, err := src.ReadPacketData()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				t.Logf("%s: %v", path, err)
			}
			return
		}
		f(gopacket.NewPacket(b, decoder(src.LinkType(), b), gopacket.DecodeOptions{NoCopy: true}), ci.Timestamp.UnixNano())
	}
}
