package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
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
	for _, rules := range []int{10, 100, 1000, 10000} {
		if o.selected(fmt.Sprintf("Rules/rules=%d/", rules)) {
			if err := o.rulePeers(rules); err != nil {
				return err
			}
		}
	}
	if o.selected("Reassembly") {
		return o.reassemblyPeers()
	}
	return nil
}

// reassemblyPeers compares the session table with the reassembly of gopacket, both without a parser.
func (o *options) reassemblyPeers() error {
	path, remove, err := o.captureFile()
	if err != nil {
		return err
	}
	defer remove()
	packets, err := loadPackets(path)
	if err != nil {
		return err
	}

	// The payload bytes are printed with the cost, to show that both sides reassemble the same.
	reportBytes := func(name string, meter meter, payloadBytes int) {
		perPacket := float64(payloadBytes) / float64(len(packets))
		report(o.out, name, "packets", len(packets), meter.since(), figure{perPacket, "payload-B/op"})
	}
	for range o.runs {
		meter, err := o.startMeter()
		if err != nil {
			return err
		}
		payloadBytes := sessionsReassembly(packets)
		reportBytes("Reassembly/by=sessions", meter, payloadBytes)

		meter = readMeter()
		payloadBytes = gopacketReassembly(packets)
		reportBytes("Reassembly/by=gopacket", meter, payloadBytes)
	}
	return nil
}

// rulePeers compares the index of the given number of rules with a loop that runs each rule, compiled by
// expr, on every event. It returns an error if a rule fires.
func (o *options) rulePeers(rules int) error {
	set, err := ruleSet(rules, false)
	if err != nil {
		return err
	}
	programs, err := compilePlain(rules)
	if err != nil {
		return err
	}
	events := mixedEvents(20_000)
	for i, event := range events {
		event.Container = containers[i%20]
	}

	name := fmt.Sprintf("Rules/rules=%d/by=", rules)
	for range o.runs {
		// The index evaluates all events, in batches, and repeats that: one round is too short to measure.
		const rounds = 20
		meter, err := o.startMeter()
		if err != nil {
			return err
		}
		for range rounds {
			for first := 0; first < len(events); first += 1000 {
				set.Evaluate(events[first : first+1000])
			}
		}
		report(o.out, name+"index", "events", rounds*len(events), meter.since())

		// The loop evaluates a part of the events. With 10,000 rules it would take a minute.
		if rules > 1000 {
			continue
		}
		part := events[:max(200, len(events)/rules)]
		meter = readMeter()
		hits, err := evaluatePlain(programs, part)
		if err != nil {
			return err
		}
		report(o.out, name+"expr-loop", "events", len(part), meter.since(), figure{float64(hits), "hits"})
	}

	for _, event := range events {
		if len(event.Verdicts) > 0 {
			return fmt.Errorf("a generated rule fired on an event of %s", event.Dataset.Name())
		}
	}
	return nil
}

// compilePlain compiles generated rules with expr.
func compilePlain(rules int) ([]*vm.Program, error) {
	_, conditions := generateRules(rules)
	programs := make([]*vm.Program, len(conditions))
	for i, condition := range conditions {
		var err error
		if programs[i], err = expr.Compile(condition, expr.Env(plainEvent{}), expr.AsBool()); err != nil {
			return nil, err
		}
	}
	return programs, nil
}

// A plainEvent holds the fields of an event that generated rules read. A flat struct is the fastest
// environment of expr, because its fields are resolved at compile time.
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

// newPlainEvent copies the fields of event. Fields of another dataset are empty.
func newPlainEvent(event *pipeline.Event) plainEvent {
	http, mysql, dns, log := event.GetHttp(), event.GetMysql(), event.GetDns(), event.GetLog()
	return plainEvent{
		Dataset:       event.Dataset.Name(),
		Method:        http.GetMethod(),
		Query:         http.GetUrlQuery(),
		Path:          http.GetUrlPath(),
		Domain:        http.GetUrlDomain(),
		Status:        int(http.GetStatusCode()),
		SourcePort:    int(event.GetSource().GetPort()),
		Command:       mysql.GetCommand(),
		SQL:           mysql.GetQuery(),
		Rows:          int(mysql.GetRows()),
		User:          mysql.GetUserName(),
		Question:      dns.GetQuestionName(),
		Type:          dns.GetQuestionType(),
		ResponseCode:  dns.GetResponseCode(),
		Message:       log.GetMessage(),
		Stream:        log.GetStream(),
		ContainerName: event.GetContainer().GetName(),
	}
}

// evaluatePlain runs every program on every event and returns the number of matches.
func evaluatePlain(programs []*vm.Program, events []*pipeline.Event) (hits int, err error) {
	var machine vm.VM
	for _, event := range events {
		env := newPlainEvent(event)
		for _, program := range programs {
			out, err := machine.Run(program, env)
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
	at   int64 // ns since 1970
	link layers.LinkType
	data []byte
}

// loadPackets reads all packets of a capture file into memory.
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
		list = append(list, storedPacket{packet.At, packet.Link, bytes.Clone(packet.Data)})
	}
}

// sessionsReassembly reassembles all connections by our session table without a protocol parser. It returns
// the payload bytes of TCP.
func sessionsReassembly(packets []storedPacket) (payloadBytes int) {
	emit := func(event *pipeline.Event) {
		if event.Transport == pipeline.Transport_TCP {
			payloadBytes += int(event.GetSource().GetBytes() + event.GetDestination().GetBytes())
		}
		pipeline.ReleaseEvent(event)
	}
	table := sessions.New(sessions.Default(), sessions.Deps{Tunnels: sessions.EveryTunnel, Emit: emit}, prometheus.NewRegistry())
	for i := range packets {
		packet := &packets[i]
		table.Packet("eth0", packet.link, packet.at, packet.data, len(packet.data))
	}
	table.Close()
	return payloadBytes
}

// gopacketReassembly reassembles all connections by gopacket: its fastest decoder, its assembler and streams
// that count bytes. It returns the payload bytes of TCP.
func gopacketReassembly(packets []storedPacket) (payloadBytes int) {
	var (
		ethernet layers.Ethernet
		ip       layers.IPv4
		tcp      layers.TCP
		udp      layers.UDP
		payload  gopacket.Payload
	)
	parser := gopacket.NewDecodingLayerParser(layers.LayerTypeEthernet, &ethernet, &ip, &tcp, &udp, &payload)
	parser.IgnoreUnsupported = true
	assembler := reassembly.NewAssembler(reassembly.NewStreamPool(&streamFactory{&payloadBytes}))

	// The session table keeps a flow for datagrams too. The map makes both sides do that work.
	datagramBytes := map[[13]byte]int{}
	var decoded []gopacket.LayerType // reused for each packet
	for i := range packets {
		packet := &packets[i]
		if parser.DecodeLayers(packet.data, &decoded) != nil {
			continue
		}
		for _, layer := range decoded {
			switch layer {
			case layers.LayerTypeTCP:
				size := len(packet.data)
				ctx := assemblerContext{gopacket.CaptureInfo{
					Timestamp: time.Unix(0, packet.at), CaptureLength: size, Length: size,
				}}
				assembler.AssembleWithContext(ip.NetworkFlow(), &tcp, &ctx)
			case layers.LayerTypeUDP:
				datagramBytes[datagramKey(&ip, &udp)] += len(udp.Payload)
			}
		}
	}
	assembler.FlushAll()
	return payloadBytes
}

// datagramKey returns addresses and ports of a datagram, the smaller address first, so that both directions
// have one key.
func datagramKey(ip *layers.IPv4, udp *layers.UDP) (key [13]byte) {
	low, _ := netip.AddrFromSlice(ip.SrcIP)
	high, _ := netip.AddrFromSlice(ip.DstIP)
	lowPort, highPort := uint16(udp.SrcPort), uint16(udp.DstPort)
	if high.Less(low) {
		low, high, lowPort, highPort = high, low, highPort, lowPort
	}
	lowBytes, highBytes := low.As4(), high.As4()
	copy(key[:], lowBytes[:])
	copy(key[4:], highBytes[:])
	binary.BigEndian.PutUint16(key[8:], lowPort)
	binary.BigEndian.PutUint16(key[10:], highPort)
	return key
}

// assemblerContext implements reassembly.AssemblerContext.
type assemblerContext struct{ info gopacket.CaptureInfo }

// GetCaptureInfo returns the timestamp and the size of the packet.
func (a *assemblerContext) GetCaptureInfo() gopacket.CaptureInfo { return a.info }

// streamFactory implements reassembly.StreamFactory.
type streamFactory struct{ bytes *int }

// New returns a stream that adds to the counter of all streams.
func (s *streamFactory) New(
	gopacket.Flow, gopacket.Flow, *layers.TCP, reassembly.AssemblerContext,
) reassembly.Stream {
	return &countingStream{s.bytes}
}

// A countingStream counts the bytes of one connection that arrive in order.
type countingStream struct{ bytes *int }

// Accept accepts every segment.
func (s *countingStream) Accept(
	*layers.TCP, gopacket.CaptureInfo, reassembly.TCPFlowDirection, reassembly.Sequence, *bool,
	reassembly.AssemblerContext,
) bool {
	return true
}

// ReassembledSG counts the next bytes.
func (s *countingStream) ReassembledSG(sg reassembly.ScatterGather, _ reassembly.AssemblerContext) {
	length, _ := sg.Lengths()
	*s.bytes += length
}

// ReassemblyComplete returns true: the assembler removes the connection.
func (s *countingStream) ReassemblyComplete(reassembly.AssemblerContext) bool { return true }
