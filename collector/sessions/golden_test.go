package sessions

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/collector/capture"
	"tidegate/collector/links"
	"tidegate/pipeline"
	"tidegate/protocols"
)

// sessionText returns the fields of the event of a session in the order of Zeek's conn.log, and those that only some have
// behind their names.
func sessionText(event *pipeline.Event, began int64) string {
	end := func(e *pipeline.Endpoint) string {
		ip, _ := netip.AddrFromSlice(e.Ip)
		return netip.AddrPortFrom(ip, uint16(e.Port)).String()
	}
	s := event.Session
	out := fmt.Sprintf("%x +%s %s %s > %s %s %s %s %d/%d %d/%d %d%%", event.Id[:4], time.Duration(event.Timestamp-began),
		strings.ToLower(strings.TrimPrefix(event.Transport.String(), "TRANSPORT_")), end(event.Source), end(event.Destination),
		s.State, time.Duration(event.Duration), s.History, event.Source.Packets, event.Source.Bytes, event.Destination.Packets,
		event.Destination.Bytes, s.DirectionConfidence)
	add := func(name string, value any, is bool) {
		if is {
			out += fmt.Sprintf(" %s=%v", name, value)
		}
	}
	add("protocol", s.Protocol, s.Protocol != "")
	for _, count := range []struct {
		name  string
		value uint64
	}{
		{"rtt_client", s.RttClient},
		{"rtt_server", s.RttServer},
		{"response_time", s.ResponseTime},
		{"syns", uint64(s.SynRetransmissions)},
		{"synacks", uint64(s.SynackRetransmissions)},
		{"client_repeats", uint64(s.ClientRetransmissions)},
		{"server_repeats", uint64(s.ServerRetransmissions)},
		{"zero_windows", uint64(s.ZeroWindows)},
		{"out_of_order", uint64(s.OutOfOrder)},
		{"conflicts", uint64(s.OverlapConflicts)},
		{"client_missing", s.ClientMissingBytes},
		{"server_missing", s.ServerMissingBytes},
		{"vlan", uint64(event.Vlan)},
	} {
		add(count.name, count.value, count.value != 0)
	}
	if tunnel := event.Tunnel; tunnel != nil {
		src, _ := netip.AddrFromSlice(tunnel.SourceIp)
		dst, _ := netip.AddrFromSlice(tunnel.DestinationIp)
		add("tunnel", fmt.Sprintf("%s:%d:%s>%s", tunnel.Type, tunnel.Id, src, dst), true)
	}
	add("outcome", event.Outcome, event.Outcome != pipeline.Outcome_UNKNOWN)
	add("partial", true, event.Partial)
	add("tags", event.Tags, len(event.Tags) > 0)
	return out
}

// A tally has the numbers of what captures yield.
type tally struct {
	sessions []string // the first ones, in full
	began    int64    // of the first one
	sums     [14]uint64
	events   map[string]int // by dataset
}

// add counts an event.
func (c *tally) add(event *pipeline.Event) {
	name := event.Dataset.Name()
	c.events[name]++
	if event.Partial {
		c.events[name+"_partial"]++
	}
	if event.Dataset == pipeline.Dataset_SESSION {
		if c.began == 0 {
			c.began = event.Timestamp
		}
		const most = 3
		if len(c.sessions) < most {
			c.sessions = append(c.sessions, "  "+sessionText(event, c.began)+"\n")
		}
		s := event.Session
		for i, value := range []uint64{
			event.Source.Packets, event.Source.Bytes, event.Destination.Packets, event.Destination.Bytes, event.Duration, s.RttClient, s.RttServer,
			s.ResponseTime, uint64(s.ClientRetransmissions), uint64(s.ServerRetransmissions), uint64(s.OutOfOrder), s.ClientMissingBytes,
			s.ServerMissingBytes, uint64(s.DirectionConfidence),
		} {
			c.sums[i] += value
		}
	}
	pipeline.ReleaseEvent(event)
}

// numbers returns the events of each dataset and the metrics that are not 0.
func (c *tally) numbers(t *testing.T, reg *prometheus.Registry) string {
	t.Helper()
	var list []string
	for name, count := range c.events {
		list = append(list, fmt.Sprintf("%s=%d", name, count))
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			if value := metric.GetCounter().GetValue() + metric.GetGauge().GetValue(); value != 0 {
				name := strings.TrimSuffix(strings.TrimPrefix(family.GetName(), "tidegate_sessions_"), "_total")
				for _, label := range metric.GetLabel() {
					name += "." + label.GetValue()
				}
				list = append(list, fmt.Sprintf("%s=%v", name, value))
			}
		}
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

// captureText returns what a capture yields: the first sessions, the sums over all, the events of each dataset, and the
// metrics that are not 0.
func captureText(t *testing.T, path string) string {
	t.Helper()
	reg, counted := prometheus.NewRegistry(), tally{events: map[string]int{}}
	_, packets := playCaptureOn(t, reg, path, Default(), Deps{Tunnels: EveryTunnel}, parsers, counted.add)
	out := fmt.Sprintf("%s %d packets %s\n", filepath.Base(path), packets, counted.numbers(t, reg))
	if counted.events["session"] > len(counted.sessions) {
		out += fmt.Sprintf("  all: %v\n", counted.sums)
	}
	return out + strings.Join(counted.sessions, "")
}

// copiesText returns what a capture yields whose packets cross a bridge and then eth0, which two workers capture. Each misses
// some packets. The bridge sees no more packets after the middle, if its part of the capture is odd.
func copiesText(t *testing.T, path string) string {
	t.Helper()
	packets := readCapture(t, path)
	reg, counted := prometheus.NewRegistry(), tally{events: map[string]int{}}
	dedup := NewDedupTable()
	var tables [2]*Table
	ifaces := [2]string{"docker0", "eth0"}
	for i := range tables {
		tables[i] = New(configWith(func(c *Config) { c.OpenInterval = 30 * time.Second }), Deps{
			Dedup: dedup, Bridge: func(name string) bool { return name == ifaces[0] }, Emit: counted.add,
			Protocols: protocols.NewSet(parsers, protocols.Default(), nil),
		}, reg)
	}
	ends := len(packets)
	if len(packets)%2 == 1 {
		ends /= 2
	}
	for i, packet := range packets {
		if i%11 != 5 && i < ends {
			tables[0].Packet(ifaces[0], packet.Link, packet.At, packet.Data, packet.Length)
		}
		if i%13 != 7 {
			tables[1].Packet(ifaces[1], packet.Link, packet.At+20_000, packet.Data, packet.Length)
		}
		tables[0].Tick(packet.At)
	}
	tables[0].Close()
	tables[1].Close()
	return fmt.Sprintf("%s %s %v\n", filepath.Base(path), counted.numbers(t, reg), counted.sums)
}

// checkGolden compares the text of each of the shared captures with that in a file. GOLDEN=1 in the environment rewrites it.
func checkGolden(t *testing.T, golden string, text func(t *testing.T, path string) string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(sharedData(t), "data", "pcaps", "*"))
	if err != nil {
		t.Fatal(err)
	}
	files = slices.DeleteFunc(files, func(path string) bool { return filepath.Ext(path) == ".tsv" })
	if os.Getenv("GOLDEN") != "" {
		var all strings.Builder
		for _, path := range files {
			all.WriteString(text(t, path))
		}
		if err := os.WriteFile(golden, []byte(all.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}

	data, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	want, name := map[string]string{}, ""
	for line := range strings.Lines(string(data)) {
		if !strings.HasPrefix(line, "  ") { // the first line of a capture
			name, _, _ = strings.Cut(line, " ")
		}
		want[name] += line
	}
	compared := 0
	for _, path := range files {
		text, wanted := text(t, path), want[filepath.Base(path)]
		if wanted == "" {
			continue // a capture that was added to the folder since
		}
		if compared++; text != wanted {
			t.Fatalf("GOLDEN=1 go test ./collector/sessions -run Goldens rewrites %s\ngot:\n%s\nwant:\n%s", golden, text, wanted)
		}
	}
	if compared != len(want) {
		t.Errorf("%s has %d captures, of which %d are there", golden, len(want), compared)
	}
}

// TestCapturesMatchTheirGoldens: what each of the shared captures yields stands in testdata/captures.golden.
func TestCapturesMatchTheirGoldens(t *testing.T) {
	checkGolden(t, "testdata/captures.golden", captureText)
}

// TestCopiesMatchTheirGoldens: the same for captures on two interfaces, in testdata/copies.golden.
func TestCopiesMatchTheirGoldens(t *testing.T) {
	checkGolden(t, "testdata/copies.golden", copiesText)
}

// readCapture returns the packets of a capture file.
func readCapture(t *testing.T, path string) (packets []capture.Packet) {
	t.Helper()
	file, err := capture.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	for {
		packet, err := file.Next()
		if err != nil { // also of a file that is cut
			return packets
		}
		packet.Data = bytes.Clone(packet.Data)
		packets = append(packets, packet)
	}
}

// encapsulationText returns what each frame of encapsulations yields: the headers that are asked for before they are opened,
// the tunnel, and the fields of the packet.
func encapsulationText(t *testing.T) string {
	var out strings.Builder
	inner := tcpFrame(t, addrPort("10.0.0.1:4000"), addrPort("10.0.0.2:80"), "SA", 7, 8, 9, "abc")
	inner6 := udpFrame(t, addrPort("[fd00::1]:4000"), addrPort("[fd00::2]:53"), 9, "defg")
	for _, frame := range slices.Concat(encapsulations(t, inner), encapsulations(t, inner6)[:20]) {
		var asked []string
		table := New(Default(), Deps{Tunnels: tunnelsFunc(func(iface string, outer links.OuterHeader) bool {
			nested := map[bool]string{true: " nested", false: ""}[outer.Nested]
			asked = append(asked, fmt.Sprintf("%s %s %d %s:%d>%s:%d%s", iface, outer.Kind, outer.ID, outer.Src, outer.SrcPort, outer.Dst, outer.DstPort, nested))
			return true
		})}, nil)
		p := packet{iface: table.ifaceIndex("eth0")}
		result := table.decoder.decodeFrame(&p, frame.link, frame.data, len(frame.data)+3)
		fmt.Fprintf(&out, "%s: %s %s:%d>%s:%d flags %x seq %d ack %d window %d id %d %t %q of %d vlan %d", frame.name, resultNames[result],
			p.src.netip(), p.sport, p.dst.netip(), p.dport, p.Flags, p.Seq, p.Ack, p.Window, p.id, p.hasID, p.Payload, p.Size, p.vlan)
		if around := &p.tunnel; around.kind != links.NoEncapsulation {
			fmt.Fprintf(&out, "; %s %d %s>%s", around.kind, around.id, around.src.netip(), around.dst.netip())
		}
		fmt.Fprintf(&out, "; asked %s\n", strings.Join(asked, ", "))
	}
	return out.String()
}

// TestEncapsulationsMatchTheirGoldens: what the frames of TestEncapsulations yield stands in testdata/encapsulations.golden.
func TestEncapsulationsMatchTheirGoldens(t *testing.T) {
	compareGolden(t, "testdata/encapsulations.golden", encapsulationText(t))
}

// compareGolden compares got with a file. GOLDEN=1 in the environment rewrites it.
func compareGolden(t *testing.T, golden, got string) {
	t.Helper()
	if os.Getenv("GOLDEN") != "" {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	wanted := strings.Split(string(want), "\n")
	for i, line := range strings.Split(got, "\n") {
		if i >= len(wanted) || line != wanted[i] {
			t.Fatalf("GOLDEN=1 go test ./collector/sessions -run Goldens rewrites %s\ngot:\n%s\nwant:\n%s", golden, line, wanted[min(i, len(wanted)-1)])
		}
	}
}

// hostText returns what a connection yields that two or three interfaces of a host see, with some packets missing or late, and
// a mapping that may come late or never.
func hostText(t *testing.T, rng *rand.Rand) string {
	t.Helper()
	scenarios := []struct {
		mapping Mapping
		legs    []natLeg
	}{
		{newMapping("172.17.0.3:4000", "203.0.113.9:443", "192.0.2.1:61000", "203.0.113.9:443"), []natLeg{
			{"docker0", "172.17.0.3:4000", "203.0.113.9:443"}, {"eth0", "192.0.2.1:61000", "203.0.113.9:443"},
		}},
		{newMapping("203.0.113.9:5000", "172.17.0.2:8080", "203.0.113.9:5000", "192.0.2.1:9090"), []natLeg{
			{"eth0", "203.0.113.9:5000", "192.0.2.1:9090"}, {"docker0", "203.0.113.9:5000", "172.17.0.2:8080"},
		}},
		{newMapping("172.17.0.3:4000", "172.18.0.2:8080", "172.17.0.3:4000", "192.0.2.1:9090"), []natLeg{
			{"docker0", "172.17.0.3:4000", "192.0.2.1:9090"}, {"br-1", "172.17.0.3:4000", "172.18.0.2:8080"},
		}},
		{newMapping("172.17.0.3:4000", "172.17.0.2:80", "172.17.0.3:4000", "172.17.0.2:80"), []natLeg{
			{"docker0", "172.17.0.3:4000", "172.17.0.2:80"}, {"br-1", "172.17.0.3:4000", "172.17.0.2:80"}, {"eth0", "172.17.0.3:4000", "172.17.0.2:80"},
		}},
	}
	number := rng.IntN(len(scenarios))
	scenario := scenarios[number]
	nat := fakeNAT{}
	host := newHost(t, nat)
	host.texts = true
	if rng.IntN(3) == 0 {
		host.deps.IsOutsideBridge = func(_ string, ip netip.Addr) bool { return !strings.HasPrefix(ip.String(), "172.1") }
	}
	advance := func(wait time.Duration) {
		for end := host.now + wait; host.now < end; host.now += 50 * time.Millisecond {
			for _, leg := range scenario.legs {
				host.tableOf(leg.iface).Tick(startTime + int64(host.now))
			}
			host.checkOutboxes()
		}
	}
	mapped := rng.IntN(20) // steps before the mapping is known
	var next [3]int        // step of each leg
	out := fmt.Sprintf("scenario %d:", number)
	for step := range 60 {
		if step == mapped {
			nat.addMapping(scenario.mapping)
			out += " nat"
		}
		switch leg := rng.IntN(len(scenario.legs)); {
		case rng.IntN(6) == 0:
			wait := []time.Duration{time.Millisecond, 60 * time.Millisecond, 300 * time.Millisecond, 1200 * time.Millisecond}[rng.IntN(4)]
			out += fmt.Sprintf(" +%s", wait)
			advance(wait)
		case next[leg] == numSteps:
		case rng.IntN(12) == 0:
			out += fmt.Sprintf(" -%s%d", scenario.legs[leg].iface, next[leg])
			next[leg]++
		default:
			out += fmt.Sprintf(" %s%d", scenario.legs[leg].iface, next[leg])
			host.sendStep(scenario.legs[leg], next[leg])
			next[leg]++
		}
	}
	advance(3 * time.Second)
	sums := map[string]float64{}
	for _, leg := range scenario.legs {
		table := host.tableOf(leg.iface)
		table.Close()
		for name, metric := range map[string]counter{
			"duplicates": table.metrics.duplicates, "duplicate_events": table.metrics.duplicateEvents, "takeovers": table.metrics.takeovers,
			"continued": table.metrics.continued, "unreported": table.metrics.unreportedBytes, "differing": table.metrics.differingCopies, "panics": table.metrics.panics,
			"late": table.metrics.segmentsLate, "outside": table.metrics.segmentsOutside, "before_start": table.metrics.segmentsBeforeStart,
		} {
			sums[name] += counterValue(metric)
		}
		for why, metric := range table.metrics.pendingSessions {
			sums["pending_"+string(why)] += counterValue(metric)
		}
		for state, metric := range table.metrics.closed {
			sums["closed_"+state] += counterValue(metric)
		}
	}
	var numbers []string
	for name, value := range sums {
		if value != 0 {
			numbers = append(numbers, fmt.Sprintf("%s=%v", name, value))
		}
	}
	slices.Sort(numbers)
	out += "\n  " + strings.Join(numbers, " ") + "\n"
	end := func(e *pipeline.Endpoint) string {
		ip, _ := netip.AddrFromSlice(e.Ip)
		text := netip.AddrPortFrom(ip, uint16(e.Port)).String()
		if nat, ok := netip.AddrFromSlice(e.NatIp); ok {
			text += fmt.Sprintf("(%s)", netip.AddrPortFrom(nat, uint16(e.NatPort)))
		}
		return text + " " + e.GetContainer().GetId()
	}
	for _, event := range host.events {
		what := event.Redis.GetCommand()
		if event.Session != nil {
			what = sessionText(event, startTime)
		}
		out += fmt.Sprintf("  %x %s %s > %s %v %v %t %s\n", event.Id[:4], event.Dataset.Name(), end(event.Source), end(event.Destination), event.Interfaces, event.Tags, event.Partial, what)
	}
	return out
}

// TestHostsMatchTheirGoldens: what the interfaces of a host yield of random connections stands in testdata/hosts.golden.
func TestHostsMatchTheirGoldens(t *testing.T) {
	var out strings.Builder
	for seed := range uint64(300) {
		fmt.Fprintf(&out, "%d ", seed)
		out.WriteString(hostText(t, rand.New(rand.NewPCG(seed, 28))))
	}
	compareGolden(t, "testdata/hosts.golden", out.String())
}
