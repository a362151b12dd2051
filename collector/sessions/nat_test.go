package sessions

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/gopacket/layers"
	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline"
	"tidegate/protocols"
)

// A fakeNAT is a NAT with the mappings that were added, by source and destination.
type fakeNAT map[[2]netip.AddrPort]Mapping

func (n fakeNAT) Lookup(_ pipeline.Transport, src, dst netip.AddrPort) (Mapping, bool) {
	for _, key := range [][2]netip.AddrPort{{src, dst}, {dst, src}} {
		if mapping, ok := n[key]; ok {
			return mapping, true
		}
	}
	return Mapping{}, false
}

func (n fakeNAT) addMapping(mapping Mapping) {
	n[[2]netip.AddrPort{mapping.Client, mapping.OutsideServer}] = mapping
	n[[2]netip.AddrPort{mapping.Server, mapping.OutsideClient}] = mapping
}

func addrPort(text string) netip.AddrPort { return netip.MustParseAddrPort(text) }

// newMapping returns a mapping; outClient and outServer are the addresses outside.
func newMapping(client, server, outClient, outServer string) Mapping {
	return Mapping{addrPort(client), addrPort(server), addrPort(outClient), addrPort(outServer)}
}

// A natHost has a Table for each interface, as the workers of a collector have.
type natHost struct {
	testing.TB
	tables map[string]*Table
	deps   Deps
	events []*pipeline.Event
	now    time.Duration
	id     uint16
	base   uint32 // added to the sequence numbers
	texts  bool   // the events of the parsers have the text in redis.command
}

// newHost returns a host in which 172.1… and fd00:… are addresses of containers.
func newHost(t testing.TB, nat NAT) *natHost {
	host := &natHost{TB: t, tables: map[string]*Table{}}
	host.deps = Deps{
		NAT: nat, Dedup: NewDedupTable(),
		Bridge: func(name string) bool { return name == "docker0" || strings.HasPrefix(name, "br-") },
		Containers: containersFunc(func(ip netip.Addr, _ int64) (*pipeline.Container, bool) {
			if text := ip.String(); strings.HasPrefix(text, "172.1") || strings.HasPrefix(text, "fd00:") {
				return &pipeline.Container{Id: text}, true
			}
			return nil, true
		}),
		Emit: func(event *pipeline.Event) { host.events = append(host.events, event) },
	}
	return host
}

// tableOf returns the Table of an interface.
func (h *natHost) tableOf(iface string) *Table {
	table := h.tables[iface]
	if table == nil {
		deps := h.deps
		deps.Protocols = protocols.NewSet([]protocols.Protocol{(&recordingProtocol{texts: h.texts}).protocol()},
			protocols.Default(), nil)
		table = New(Default(), deps, prometheus.NewRegistry())
		h.tables[iface] = table
	}
	return table
}

// A natLeg is a connection as it is seen on one interface.
type natLeg struct{ iface, client, server string }

// sendStep sends one segment of a short connection of numSteps segments, as it is captured on leg.
func (h *natHost) sendStep(leg natLeg, number int) {
	h.Helper()
	from, to := addrPort(leg.client), addrPort(leg.server)
	type seg struct {
		back     bool
		flags    string
		seq, ack uint32
		payload  string
	}
	step := []seg{
		{false, "S", 100, 0, ""},
		{true, "SA", 500, 101, ""},
		{false, "A", 101, 501, ""},
		{false, "A", 101, 501, "ask"},
		{true, "A", 501, 104, "tell"},
		{false, "FA", 104, 505, ""},
		{true, "FA", 505, 105, ""},
		{false, "A", 105, 506, ""},
	}[number]
	if step.back {
		from, to = to, from
	}
	h.id++
	if step.ack != 0 {
		step.ack += h.base
	}
	packet := tcpFrame(h, from, to, step.flags, step.seq+h.base, step.ack, h.id, step.payload)
	h.tableOf(leg.iface).Packet(leg.iface, layers.LinkTypeEthernet, startTime+int64(h.now), packet, len(packet))
	h.checkOutboxes()
	h.now += 5 * time.Microsecond
}

// numSteps is the number of segments that sendStep can send.
const numSteps = 8

// checkOutboxes checks that no duplicate holds events: another flow reports them, and they take memory.
func (h *natHost) checkOutboxes() {
	h.Helper()
	for iface, table := range h.tables {
		for _, flow := range table.flows {
			if flow.dedup.state == duplicate && len(flow.outbox.events) > 0 {
				h.Errorf("a duplicate on %s holds %d events", iface, len(flow.outbox.events))
			}
		}
	}
}

// advance moves the clocks of all Tables forward.
func (h *natHost) advance(d time.Duration) {
	for end := h.now + d; h.now < end; h.now += 50 * time.Millisecond {
		for _, table := range h.tables {
			table.Tick(startTime + int64(h.now))
		}
		h.checkOutboxes()
	}
}

// closeAndDescribe closes all Tables and checks that each event was emitted once. It returns "<client>
// <server> <interfaces>" of the session.
func (h *natHost) closeAndDescribe() string {
	h.Helper()
	h.advance(3 * time.Second)
	for _, table := range h.tables {
		table.Close()
	}
	var session *pipeline.Event
	counts := map[pipeline.Dataset]int{}
	for _, event := range h.events {
		counts[event.Dataset]++
		if event.Dataset == pipeline.Dataset_SESSION {
			session = event
		}
	}
	if counts[pipeline.Dataset_SESSION] != 1 || counts[pipeline.Dataset_REDIS] != 2 {
		h.Errorf("%d sessions and %d transactions, want 1 and 2", counts[pipeline.Dataset_SESSION],
			counts[pipeline.Dataset_REDIS])
		return ""
	}
	for _, table := range h.tables {
		if table.outboxEvents != 0 {
			h.Errorf("%d events are left in the outbox", table.outboxEvents)
		}
	}
	slices.Sort(session.Interfaces)
	client, server := describeEndpoint(session.Source), describeEndpoint(session.Destination)
	return client + " " + server + " " + strings.Join(session.Interfaces, ",")
}

// describeEndpoint returns the address of endpoint, its NAT address in parentheses, and [c] if it is a
// container.
func describeEndpoint(endpoint *pipeline.Endpoint) string {
	ip, _ := netip.AddrFromSlice(endpoint.Ip)
	text := netip.AddrPortFrom(ip, uint16(endpoint.Port)).String()
	if nat, ok := netip.AddrFromSlice(endpoint.NatIp); ok {
		text += "(" + netip.AddrPortFrom(nat, uint16(endpoint.NatPort)).String() + ")"
	}
	if endpoint.Container != nil {
		text += "[c]"
	}
	return text
}

// TestOneConnectionOnSeveralInterfacesIsReportedOnce: it is reported once for each path through a Docker
// host, in several orders in which the workers may get the packets.
func TestOneConnectionOnSeveralInterfacesIsReportedOnce(t *testing.T) {
	check := func(name string, mapping *Mapping, want string, legs ...natLeg) {
		t.Run(name, func(t *testing.T) {
			orders := map[string]func(host *natHost){
				"first leg first": func(host *natHost) {
					for i := range numSteps {
						for _, leg := range legs {
							host.sendStep(leg, i)
						}
					}
				},
				"last leg first": func(host *natHost) {
					for i := range numSteps {
						for _, leg := range slices.Backward(legs) {
							host.sendStep(leg, i)
						}
					}
				},
				"first leg whole before the others": func(host *natHost) {
					for _, leg := range legs {
						for i := range numSteps {
							host.sendStep(leg, i)
						}
					}
				},
				"last leg whole before the others": func(host *natHost) {
					for _, leg := range slices.Backward(legs) {
						for i := range numSteps {
							host.sendStep(leg, i)
						}
					}
				},
			}
			for order, play := range orders {
				for _, known := range []string{"known", "late"} {
					nat := fakeNAT{}
					host := newHost(t, nat)
					if mapping != nil && known == "known" {
						nat.addMapping(*mapping)
					}
					play(host)
					if mapping != nil && known == "late" {
						host.advance(200 * time.Millisecond)
						nat.addMapping(*mapping)
					}
					if got := host.closeAndDescribe(); got != want {
						t.Errorf("%s, mapping %s:\n got %s\nwant %s", order, known, got, want)
					}
				}
			}
		})
	}
	snat := newMapping("172.17.0.3:4000", "203.0.113.9:443", "192.0.2.1:61000", "203.0.113.9:443")
	check("SNAT", &snat, "172.17.0.3:4000(192.0.2.1:61000)[c] 203.0.113.9:443 docker0,eth0",
		natLeg{"docker0", "172.17.0.3:4000", "203.0.113.9:443"},
		natLeg{"eth0", "192.0.2.1:61000", "203.0.113.9:443"})
	dnat := newMapping("203.0.113.9:5000", "172.17.0.2:8080", "203.0.113.9:5000", "192.0.2.1:9090")
	check("DNAT", &dnat, "203.0.113.9:5000 172.17.0.2:8080(192.0.2.1:9090)[c] docker0,eth0",
		natLeg{"docker0", "203.0.113.9:5000", "172.17.0.2:8080"},
		natLeg{"eth0", "203.0.113.9:5000", "192.0.2.1:9090"})
	check("IPv6 without NAT", nil, "[fd00::3]:4000[c] [2001:db8::9]:443 docker0,eth0",
		natLeg{"docker0", "[fd00::3]:4000", "[2001:db8::9]:443"},
		natLeg{"eth0", "[fd00::3]:4000", "[2001:db8::9]:443"})
	check("routed without NAT", nil, "203.0.113.9:5000 172.17.0.2:80[c] docker0,eth0",
		natLeg{"eth0", "203.0.113.9:5000", "172.17.0.2:80"},
		natLeg{"docker0", "203.0.113.9:5000", "172.17.0.2:80"})
	check("bridge not captured", &snat, "172.17.0.3:4000(192.0.2.1:61000)[c] 203.0.113.9:443 eth0",
		natLeg{"eth0", "192.0.2.1:61000", "203.0.113.9:443"})
	check("only the bridge", nil, "172.17.0.3:4000[c] 172.17.0.2:80[c] docker0",
		natLeg{"docker0", "172.17.0.3:4000", "172.17.0.2:80"})
	own := newMapping("192.0.2.1:4000", "203.0.113.9:443", "192.0.2.1:4000", "203.0.113.9:443")
	check("the host's own", &own, "192.0.2.1:4000 203.0.113.9:443 eth0",
		natLeg{"eth0", "192.0.2.1:4000", "203.0.113.9:443"})
	check("the host's own, not tracked", nil, "192.0.2.1:4000 203.0.113.9:443 eth0",
		natLeg{"eth0", "192.0.2.1:4000", "203.0.113.9:443"})
	check("the host's own, two devices", &own, "192.0.2.1:4000 203.0.113.9:443 bond0,eth0",
		natLeg{"eth0", "192.0.2.1:4000", "203.0.113.9:443"},
		natLeg{"bond0", "192.0.2.1:4000", "203.0.113.9:443"})
	check("two bridges and eth0", nil, "172.18.0.3:4000[c] 172.17.0.2:80[c] br-1,docker0,eth0",
		natLeg{"br-1", "172.18.0.3:4000", "172.17.0.2:80"},
		natLeg{"docker0", "172.18.0.3:4000", "172.17.0.2:80"},
		natLeg{"eth0", "172.18.0.3:4000", "172.17.0.2:80"})
}

// TestPublishedPortOfTheSameHost: a container connects to another through a published port of its own host,
// without docker-proxy. Both legs cross bridges, under two tuples that only the connection tracker links.
func TestPublishedPortOfTheSameHost(t *testing.T) {
	mapping := newMapping("172.17.0.3:4000", "172.17.0.2:80", "172.17.0.1:61000", "192.0.2.1:9090")
	nat := fakeNAT{}
	nat.addMapping(mapping)
	host := newHost(t, nat)
	for i := range numSteps {
		host.sendStep(natLeg{"docker0", "172.17.0.3:4000", "192.0.2.1:9090"}, i)
		host.sendStep(natLeg{"docker0", "172.17.0.1:61000", "172.17.0.2:80"}, i)
	}
	want := "172.17.0.3:4000(172.17.0.1:61000)[c] 172.17.0.2:80(192.0.2.1:9090)[c] docker0"
	if got := host.closeAndDescribe(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestTwoInterfacesInOneFile: a capture of docker0 and eth0 is played through one Table. Without Deps.Bridge
// the first interface is the primary.
func TestTwoInterfacesInOneFile(t *testing.T) {
	test := newTableTest(t, Default(), Deps{})
	for _, iface := range []string{"docker0", "eth0"} {
		test.segmentOn(iface, "10.0.0.1:4000", "10.0.0.2:80", ">", "S", 0, 0, "")
	}
	for _, iface := range []string{"docker0", "eth0"} {
		test.segmentOn(iface, "10.0.0.1:4000", "10.0.0.2:80", ">", "A", 0, 0, "ask")
	}
	if event := test.closeOneSession(); !slices.Equal(event.Interfaces, []string{"docker0", "eth0"}) {
		t.Errorf("interfaces %v", event.Interfaces)
	}
	test.wantParserLog(">ask close")
}

// TestPortsUsedAgainAfterAClaim: the claim of a closed connection does not make the next one on its ports a
// duplicate.
func TestPortsUsedAgainAfterAClaim(t *testing.T) {
	host := newHost(t, nil)
	leg := natLeg{"docker0", "172.17.0.3:4000", "172.17.0.2:80"}
	for i := range numSteps {
		host.sendStep(leg, i)
	}
	host.advance(2 * time.Second)
	first := len(host.events)
	for i := range numSteps {
		host.sendStep(natLeg{"eth0", leg.client, leg.server}, i) // routed; nothing is captured on the bridge
	}
	host.advance(3 * time.Second)
	if second := len(host.events) - first; first != 3 || second != 3 {
		t.Errorf("%d and %d events, want 3 and 3", first, second)
	}
}

// TestPortUsedAgainBehindNAT: a client uses its port again, once for a published port of the host and once for the
// container behind it. The kernel then gives the later connection another source port, and the bridge shows the requests
// with that one and the replies with the first one (br_netfilter). Each connection is reported once and whole.
func TestPortUsedAgainBehindNAT(t *testing.T) {
	const client, other, web, published = "203.0.113.9:5000", "203.0.113.9:19567", "172.17.0.2:8080", "192.0.2.1:9090"
	outside := map[string]natLeg{"published": {"eth0", client, published}, "routed": {"eth0", client, web}}
	for _, order := range [][2]string{{"published", "routed"}, {"routed", "published"}} {
		for _, wait := range []time.Duration{300 * time.Millisecond, 2 * time.Second, 20 * time.Second} {
			for _, first := range []string{"eth0", "docker0"} {
				nat := fakeNAT{}
				host := newHost(t, nat)
				play := func(outside, requests, replies natLeg) {
					for i := range numSteps {
						inside := requests
						if i == 1 || i == 4 || i == 6 {
							inside = replies
						}
						if first == "docker0" {
							host.sendStep(inside, i)
							host.sendStep(outside, i)
						} else {
							host.sendStep(outside, i)
							host.sendStep(inside, i)
						}
					}
				}
				bridge := natLeg{"docker0", client, web}
				nat.addMapping(newMapping(client, web, client, outside[order[0]].server))
				play(outside[order[0]], bridge, bridge)
				host.advance(wait)
				nat.addMapping(newMapping(client, web, other, outside[order[1]].server))
				host.base = 1 << 20
				play(outside[order[1]], natLeg{"docker0", other, web}, bridge)
				host.advance(3 * time.Second)
				for _, table := range host.tables {
					table.Close()
				}

				got, whole := map[pipeline.Dataset]int{}, 0
				for _, event := range host.events {
					got[event.Dataset]++
					if event.Dataset == pipeline.Dataset_SESSION && !event.Partial &&
						event.Source.Bytes == 3 && event.Destination.Bytes == 4 {
						whole++
					}
				}
				if whole != 2 || got[pipeline.Dataset_SESSION] != 2 || got[pipeline.Dataset_REDIS] != 4 {
					t.Errorf("%v after %v, %s first: %d transactions, %d sessions, %d of them whole; want 4, 2, 2",
						order, wait, first, got[pipeline.Dataset_REDIS], got[pipeline.Dataset_SESSION], whole)
				}
			}
		}
	}
}

// TestDuplicateCapture: each packet is captured twice on one interface, and counts once.
func TestDuplicateCapture(t *testing.T) {
	for _, client := range []string{"10.0.0.1:4000", "[fd00::1]:4000"} {
		server := strings.Replace(strings.Replace(client, ":4000", ":53", 1), "1", "2", 1)
		test := newTableTest(t, Default(), Deps{})
		for i := range 3 {
			id := uint16(i)
			request := udpFrame(test, addrPort(client), addrPort(server), id, "ask")
			reply := udpFrame(test, addrPort(server), addrPort(client), id, "tell")
			at := startTime + int64(i)*1e9
			for copy := range int64(2) {
				test.Packet("eth0", layers.LinkTypeEthernet, at+copy*20e3, request, len(request))
				test.Packet("eth0", layers.LinkTypeEthernet, at+100e3+copy*20e3, reply, len(reply))
			}
		}
		event := test.closeOneSession()
		test.wantParserLog(">ask <tell >ask <tell >ask <tell close")
		if event.Source.Packets != 3 || event.Destination.Bytes != 12 {
			t.Errorf("session %v", event)
		}
	}
}

// TestWorkersInParallel: the Tables of two interfaces, each in a goroutine and at a pace of its own, share a
// DedupTable. Every event of a connection is emitted once.
func TestWorkersInParallel(t *testing.T) {
	nat := fakeNAT{}
	const n = 300
	var mu sync.Mutex
	emitted := map[string]int{}
	host := newHost(t, nat)
	host.deps.Emit = func(event *pipeline.Event) {
		mu.Lock()
		defer mu.Unlock()
		emitted[event.Dataset.Name()+" "+describeEndpoint(event.Source)]++
	}
	var legs [2][]natLeg
	for i := range n {
		in, out := 20000+i, 40000+i
		nat.addMapping(newMapping(fmt.Sprintf("172.17.0.3:%d", in), "203.0.113.9:443",
			fmt.Sprintf("192.0.2.1:%d", out), "203.0.113.9:443"))
		legs[0] = append(legs[0], natLeg{"docker0", fmt.Sprintf("172.17.0.3:%d", in), "203.0.113.9:443"})
		legs[1] = append(legs[1], natLeg{"eth0", fmt.Sprintf("192.0.2.1:%d", out), "203.0.113.9:443"})
	}
	hosts := [2]*natHost{}
	for i := range hosts {
		hosts[i] = &natHost{TB: t, tables: map[string]*Table{}, deps: host.deps}
	}
	var wg sync.WaitGroup
	for i, own := range hosts {
		own.tableOf(legs[i][0].iface)
		wg.Go(func() {
			for at := 0; at < n; at += 10 {
				for step := range numSteps {
					for _, leg := range legs[i][at : at+10] {
						own.sendStep(leg, step)
					}
				}
			}
			own.advance(3 * time.Second)
		})
	}
	wg.Wait()
	for _, own := range hosts {
		for _, table := range own.tables {
			table.Close()
		}
	}
	sessions, transactions := 0, 0
	for key, times := range emitted {
		switch {
		case strings.HasPrefix(key, "session ") && times == 1:
			sessions++
		case strings.HasPrefix(key, "redis ") && times == 2:
			transactions += times
		default:
			t.Errorf("%s: %d times", key, times)
		}
	}
	if sessions != n || transactions != 2*n {
		t.Errorf("%d sessions and %d transactions, want %d and %d", sessions, transactions, n, 2*n)
	}
}
