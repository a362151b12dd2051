package all

import (
	"bufio"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
	"github.com/google/gopacket/reassembly"

	"tidegate/pipeline"
	"tidegate/protocols"
)

// shared is the folder of the captures that are not part of the project; a test over them is skipped where it is absent.
func shared(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("TIDEGATE_SHARED")
	if dir == "" {
		dir = "../../../shared"
	}
	if _, err := os.Stat(filepath.Join(dir, "data", "pcaps")); err != nil {
		t.Skip("no captures: ", err)
	}
	return filepath.Join(dir, "data")
}

// A count is what one capture holds, by us or by the oracle.
type count struct{ requests, responses, redis, queries, hellos int }

// TestCaptures reads every capture of the shared folder through a reassembler that is not ours (gopacket's), so that a difference is
// the parsers'. No parser may panic; over all captures whose TCP is whole, the sums are those of tshark within a few percent: it
// counts what is not on a connection, and repeats.
func TestCaptures(t *testing.T) {
	dir := shared(t)
	truth := oracle(t, filepath.Join(dir, "oracle", "counts.tsv"))
	files, err := filepath.Glob(filepath.Join(dir, "pcaps", "*"))
	if err != nil {
		t.Fatal(err)
	}
	var got, want count
	for _, path := range files {
		w, ok := truth[filepath.Base(path)]
		if !ok {
			continue
		}
		g, err := read(t, path)
		if err != nil {
			t.Logf("%s: %v", path, err)
			continue
		}
		if g != w {
			t.Logf("%-70s got %v, tshark %v", filepath.Base(path), g, w)
		}
		got.add(g)
		want.add(w)
	}
	t.Logf("sums (requests, responses, redis commands, queries, client hellos): %v, tshark %v", got, want)
	near := func(what string, got, want int) {
		if got < want*95/100 || got > want*110/100 {
			t.Errorf("%d %s, tshark has %d", got, what, want)
		}
	}
	near("HTTP requests", got.requests, want.requests)
	near("HTTP responses", got.responses, want.responses)
}

func (c *count) add(o count) {
	c.requests += o.requests
	c.responses += o.responses
	c.redis += o.redis
	c.queries += o.queries
	c.hellos += o.hellos
}

func oracle(t *testing.T, path string) map[string]count {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	rows := strings.Split(strings.TrimSpace(string(b)), "\n")
	column := map[string]int{}
	for i, name := range strings.Split(rows[0], "\t") {
		column[name] = i
	}
	all := map[string]count{}
	for _, row := range rows[1:] {
		f := strings.Split(row, "\t")
		n := func(name string) int { v, _ := strconv.Atoi(f[column[name]]); return v }
		all[f[0]] = count{n("http_requests"), n("http_responses"), n("redis_cmds"), n("mysql_queries"), n("tls_client_hello")}
	}
	return all
}

// A flow is one connection between the reassembler and the parsers.
type flow struct {
	conn *protocols.Conn
	at   int64
}

func (f *flow) Accept(*layers.TCP, gopacket.CaptureInfo, reassembly.TCPFlowDirection, reassembly.Sequence, *bool, reassembly.AssemblerContext) bool {
	return true
}

func (f *flow) ReassembledSG(sg reassembly.ScatterGather, ac reassembly.AssemblerContext) {
	dir, _, end, skip := sg.Info()
	d := protocols.Client
	if dir == reassembly.TCPDirServerToClient {
		d = protocols.Server
	}
	f.at = max(f.at, ac.GetCaptureInfo().Timestamp.UnixNano())
	if skip > 0 {
		f.conn.Gap(d, skip, f.at)
	}
	if n, _ := sg.Lengths(); n > 0 {
		f.conn.Data(d, sg.Fetch(n), f.at)
	}
	if end {
		f.conn.End(d, f.at)
	}
}

func (f *flow) ReassemblyComplete(reassembly.AssemblerContext) bool {
	f.conn.Close(f.at)
	return true
}

// flows opens one for each connection.
type flows struct {
	set  *protocols.Set
	emit func(*pipeline.Event)
}

func (s *flows) New(network, transport gopacket.Flow, tcp *layers.TCP, _ reassembly.AssemblerContext) reassembly.Stream {
	src, _ := netip.AddrFromSlice(network.Src().Raw())
	dst, _ := netip.AddrFromSlice(network.Dst().Raw())
	info := protocols.Info{
		Transport: pipeline.Transport_TCP,
		Client:    netip.AddrPortFrom(src, uint16(tcp.SrcPort)),
		Server:    netip.AddrPortFrom(dst, uint16(tcp.DstPort)),
		MidStream: !tcp.SYN,
	}
	return &flow{conn: s.set.Open(info, s.emit)}
}

type when gopacket.CaptureInfo

func (w when) GetCaptureInfo() gopacket.CaptureInfo { return gopacket.CaptureInfo(w) }

// read counts the events of one capture.
func read(t *testing.T, path string) (c count, err error) {
	source, link, closer, err := open(path)
	if link == layers.LinkType(228) { // raw IPv4
		link = layers.LinkTypeRaw
	}
	if err != nil {
		return c, err
	}
	defer closer.Close()
	set := protocols.NewSet(Protocols, protocols.Default(), nil)
	set.Panicked = func(protocol string, value any, stack []byte) {
		t.Errorf("%s: the parser of %s panicked: %v\n%s", path, protocol, value, stack)
	}
	assembler := reassembly.NewAssembler(reassembly.NewStreamPool(&flows{set: set, emit: func(e *pipeline.Event) {
		c.event(e)
		e.ReturnToVTPool()
	}}))
	assembler.MaxBufferedPagesPerConnection = 64
	for {
		data, ci, err := source.ReadPacketData()
		if err != nil {
			break
		}
		p := gopacket.NewPacket(data, link, gopacket.DecodeOptions{Lazy: true, NoCopy: true})
		tcp, ok := p.TransportLayer().(*layers.TCP)
		if !ok || p.NetworkLayer() == nil {
			continue
		}
		assembler.AssembleWithContext(p.NetworkLayer().NetworkFlow(), tcp, when(ci))
	}
	assembler.FlushAll()
	return c, nil
}

func (c *count) event(e *pipeline.Event) {
	switch {
	case e.Http != nil:
		if e.Http.Method != "" {
			c.requests++
		}
		if e.Http.StatusCode > 0 {
			c.responses++
		}
	case e.Redis != nil && e.Redis.Command != "":
		c.redis++
	case e.Mysql != nil && e.Mysql.Command == "COM_QUERY":
		c.queries++
	case e.Tls != nil:
		c.hellos++
	}
}

// open opens a capture of either kind.
func open(path string) (gopacket.PacketDataSource, gopacket.Decoder, io.Closer, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, nil, err
	}
	r := bufio.NewReader(f)
	magic, err := r.Peek(4)
	if err != nil {
		return nil, nil, nil, errors.Join(err, f.Close())
	}
	if string(magic) == "\x0a\x0d\x0d\x0a" {
		ng, err := pcapgo.NewNgReader(r, pcapgo.DefaultNgReaderOptions)
		if err != nil {
			return nil, nil, nil, errors.Join(err, f.Close())
		}
		return ng, ng.LinkType(), f, nil
	}
	old, err := pcapgo.NewReader(r)
	if err != nil {
		return nil, nil, nil, errors.Join(err, f.Close())
	}
	return old, old.LinkType(), f, nil
}
