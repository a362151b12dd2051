package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/vm"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/reassembly"
	"github.com/prometheus/client_golang/prometheus"

	"tidegate/collector/capture"
	"tidegate/collector/sessions"
	"tidegate/pipeline"
)

// peers measures the same work by tidegate and by other code, in one process and in turn.
func (o *options) peers() error {
	for _, n := range []int{10, 100, 1000, 10000} {
		if o.selected(fmt.Sprintf("Rules/rules=%d/", n)) {
			if err := o.rulePeers(n); err != nil {
				return err
			}
		}
	}
	if !o.selected("Reassembly") {
		return nil
	}
	path, remove, err := o.captureFile()
	if err != nil {
		return err
	}
	defer remove()
	packets, err := loadPackets(path)
	if err != nil {
		return err
	}
	for range o.runs {
		meter, err := o.startMeter()
		if err != nil {
			return err
		}
		bytes := sessionsReassembly(packets)
		report(o.out, "Reassembly/by=sessions", "packets", len(packets), meter.since(), figure{float64(bytes) / float64(len(packets)), "payload-B/op"})
		meter = readMeter()
		bytes = gopacketReassembly(packets)
		report(o.out, "Reassembly/by=gopacket", "packets", len(packets), meter.since(), figure{float64(bytes) / float64(len(packets)), "payload-B/op"})
	}
	return nil
}

// rulePeers compares the rule index with a loop: each rule is compiled by expr and run on every event.
func (o *options) rulePeers(n int) error {
	set, err := ruleSet(n, false)
	if err != nil {
		return err
	}
	_, texts := madeRules(n)
	programs := make([]*vm.Program, len(texts))
	for i, text := range texts {
		if programs[i], err = expr.Compile(text, expr.Env(plainEvent{}), expr.AsBool()); err != nil {
			return err
		}
	}
	events := mixedEvents(20_000)
	for i, e := range events {
		e.Container = containers[i%20]
	}
	name := fmt.Sprintf("Rules/rules=%d/by=", n)
	for range o.runs {
		const rounds = 20
		meter, err := o.startMeter()
		if err != nil {
			return err
		}
		for range rounds {
			for i := 0; i < len(events); i += 1000 {
				set.Evaluate(events[i : i+1000])
			}
		}
		report(o.out, name+"index", "events", rounds*len(events), meter.since())
		if n > 1000 {
			continue // the loop would take a minute
		}
		some := events[:max(200, len(events)/n)]
		meter = readMeter()
		hits, err := evaluatePlain(programs, some)
		if err != nil {
			return err
		}
		report(o.out, name+"expr-loop", "events", len(some), meter.since(), figure{float64(hits), "hits"})
	}
	for _, e := range events {
		if len(e.Verdicts) > 0 {
			return fmt.Errorf("a made rule fired on an event of %s", e.Dataset.Name())
		}
	}
	return nil
}

// A plainEvent is an event as a flat struct, the fastest environment of expr: fields are resolved at compile
// time.
type plainEvent struct {
	Dataset       string `expr:"dataset"`
	Method        string `expr:"http_method"`
	Query         string `expr:"url_query"`
	Path          string `expr:"url_path"`
	Domain        string `expr:"url_domain"`
	Status        int    `expr:"http_status_code"`
	SourcePort    int    `expr:"source_port"`
	Command       string `expr:"mysql_command"`
	SQL           string `expr:"mysql_query"`
	Rows          int    `expr:"mysql_rows"`
	User          string `expr:"user_name"`
	Question      string `expr:"dns_name"`
	Type          string `expr:"dns_type"`
	ResponseCode  string `expr:"dns_response_code"`
	Message       string `expr:"message"`
	Stream        string `expr:"log_stream"`
	ContainerName string `expr:"container_name"`
}

func evaluatePlain(programs []*vm.Program, events []*pipeline.Event) (hits int, err error) {
	var machine vm.VM
	for _, event := range events {
		env := plainEvent{
			Dataset: event.Dataset.Name(), Method: event.GetHttp().GetMethod(), Query: event.GetHttp().GetUrlQuery(), Path: event.GetHttp().GetUrlPath(), Domain: event.GetHttp().GetUrlDomain(),
			Status: int(event.GetHttp().GetStatusCode()), SourcePort: int(event.GetSource().GetPort()), Command: event.GetMysql().GetCommand(), SQL: event.GetMysql().GetQuery(),
			Rows: int(event.GetMysql().GetRows()), User: event.GetMysql().GetUserName(), Question: event.GetDns().GetQuestionName(), Type: event.GetDns().GetQuestionType(),
			ResponseCode: event.GetDns().GetResponseCode(), Message: event.GetLog().GetMessage(), Stream: event.GetLog().GetStream(), ContainerName: event.GetContainer().GetName(),
		}
		for _, p := range programs {
			out, err := machine.Run(p, env)
			if err != nil {
				return hits, err
			}
			if out.(bool) {
				hits++
			}
		}
	}
	return hits, nil
}

// A storedPacket is a packet in memory.
type storedPacket struct {
	at   int64
	link layers.LinkType
	data []byte
}

func loadPackets(path string) (list []storedPacket, err error) {
	file, err := capture.OpenFile(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	for {
		packet, err := file.Next()
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return nil, err
		}
		list = append(list, storedPacket{packet.At, packet.Link, []byte(strings.Clone(string(packet.Data)))})
	}
}

// sessionsReassembly reassembles all connections by our session table without a protocol parser and returns
// the payload bytes.
func sessionsReassembly(packets []storedPacket) (bytes int) {
	table := sessions.New(sessions.Default(), sessions.Deps{Emit: func(event *pipeline.Event) {
		if event.Transport == pipeline.Transport_TCP {
			bytes += int(event.GetSource().GetBytes() + event.GetDestination().GetBytes())
		}
		pipeline.ReleaseEvent(event)
	}}, prometheus.NewRegistry())
	for i := range packets {
		p := &packets[i]
		table.Packet("eth0", p.link, p.at, p.data, len(p.data))
	}
	table.Close()
	return bytes
}

// gopacketReassembly reassembles all connections by gopacket: its fastest decoder, its assembler and streams
// that count bytes.
func gopacketReassembly(packets []storedPacket) (bytes int) {
	var eth layers.Ethernet
	var ip layers.IPv4
	var tcp layers.TCP
	var udp layers.UDP
	var payload gopacket.Payload
	parser := gopacket.NewDecodingLayerParser(layers.LayerTypeEthernet, &eth, &ip, &tcp, &udp, &payload)
	parser.IgnoreUnsupported = true
	var decoded []gopacket.LayerType
	seen := map[[13]byte]int{} // datagrams have a flow there too, so that both count them
	assembler := reassembly.NewAssembler(reassembly.NewStreamPool(&streamFactory{&bytes}))
	for i := range packets {
		p := &packets[i]
		if parser.DecodeLayers(p.data, &decoded) != nil {
			continue
		}
		for _, l := range decoded {
			switch l {
			case layers.LayerTypeTCP:
				ctx := assemblerContext{gopacket.CaptureInfo{Timestamp: time.Unix(0, p.at), CaptureLength: len(p.data), Length: len(p.data)}}
				assembler.AssembleWithContext(ip.NetworkFlow(), &tcp, &ctx)
			case layers.LayerTypeUDP:
				seen[datagramTuple(&ip, &udp)] += len(udp.Payload)
			}
		}
	}
	assembler.FlushAll()
	return bytes
}

func datagramTuple(ip *layers.IPv4, udp *layers.UDP) (k [13]byte) {
	a, _ := netip.AddrFromSlice(ip.SrcIP)
	b, _ := netip.AddrFromSlice(ip.DstIP)
	p, q := uint16(udp.SrcPort), uint16(udp.DstPort)
	if b.Less(a) {
		a, b, p, q = b, a, q, p
	}
	x, y := a.As4(), b.As4()
	copy(k[:], x[:])
	copy(k[4:], y[:])
	binary.BigEndian.PutUint16(k[8:], p)
	binary.BigEndian.PutUint16(k[10:], q)
	return k
}

type assemblerContext struct{ info gopacket.CaptureInfo }

// GetCaptureInfo implements reassembly.AssemblerContext.
func (a *assemblerContext) GetCaptureInfo() gopacket.CaptureInfo { return a.info }

// streamFactory implements reassembly.StreamFactory.
type streamFactory struct{ bytes *int }

// New implements reassembly.StreamFactory.
func (s *streamFactory) New(gopacket.Flow, gopacket.Flow, *layers.TCP, reassembly.AssemblerContext) reassembly.Stream {
	return &countingStream{s.bytes}
}

// A countingStream counts the bytes that arrive in order.
type countingStream struct{ bytes *int }

// Accept accepts every segment.
func (s *countingStream) Accept(*layers.TCP, gopacket.CaptureInfo, reassembly.TCPFlowDirection, reassembly.Sequence, *bool, reassembly.AssemblerContext) bool {
	return true
}

// ReassembledSG counts the next bytes.
func (s *countingStream) ReassembledSG(sg reassembly.ScatterGather, _ reassembly.AssemblerContext) {
	n, _ := sg.Lengths()
	*s.bytes += n
}

// ReassemblyComplete removes the connection.
func (s *countingStream) ReassemblyComplete(reassembly.AssemblerContext) bool { return true }
