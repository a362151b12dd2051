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

// fakeNAT is a connection tracker that knows what it was told.
type fakeNAT map[[2]netip.AddrPort]Mapping

func (n fakeNAT) Lookup(_ pipeline.Transport, src, dst netip.AddrPort) (Mapping, bool) {
	for _, k := range [][2]netip.AddrPort{{src, dst}, {dst, src}} {
		if m, ok := n[k]; ok {
			return m, true
		}
	}
	return Mapping{}, false
}

func (n fakeNAT) add(m Mapping) {
	n[[2]netip.AddrPort{m.Client, m.OutsideServer}] = m
	n[[2]netip.AddrPort{m.Server, m.OutsideClient}] = m
}

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func mapping(client, server, outClient, outServer string) Mapping {
	return Mapping{ap(client), ap(server), ap(outClient), ap(outServer)}
}

// A host is Tables of several interfaces, as the workers of a collector have them.
type host struct {
	testing.TB
	tables map[string]*Table
	deps   Deps
	events []*pipeline.Event
	now    time.Duration
	id     uint16
}

func newHost(t testing.TB, nat NAT) *host {
	h := &host{TB: t, tables: map[string]*Table{}}
	h.deps = Deps{
		NAT: nat, Dedup: NewDedupTable(), Bridge: func(name string) bool { return name == "docker0" || strings.HasPrefix(name, "br-") },
		Containers: containersFunc(func(ip netip.Addr, _ int64) (*pipeline.Container, bool) {
			if s := ip.String(); strings.HasPrefix(s, "172.1") || strings.HasPrefix(s, "fd00:") {
				return &pipeline.Container{Id: s}, true
			}
			return nil, true
		}),
		Emit: func(e *pipeline.Event) { h.events = append(h.events, e) },
	}
	return h
}

func (h *host) table(iface string) *Table {
	t := h.tables[iface]
	if t == nil {
		deps := h.deps
		deps.Protocols = protocols.NewSet([]protocols.Protocol{(&tape{}).protocol()}, protocols.Default(), nil)
		t = New(Config{}, deps, prometheus.NewRegistry())
		h.tables[iface] = t
	}
	return t
}

// A leg is a connection as one interface shows it.
type leg struct{ iface, client, server string }

// step sends segment number i of a small conversation on a leg.
func (h *host) step(l leg, i int) {
	h.Helper()
	c, s := ap(l.client), ap(l.server)
	type seg struct {
		back     bool
		flags    string
		seq, ack uint32
		payload  string
	}
	g := []seg{
		{false, "S", 100, 0, ""},
		{true, "SA", 500, 101, ""},
		{false, "A", 101, 501, ""},
		{false, "A", 101, 501, "ask"},
		{true, "A", 501, 104, "tell"},
		{false, "FA", 104, 505, ""},
		{true, "FA", 505, 105, ""},
		{false, "A", 105, 506, ""},
	}[i]
	if g.back {
		c, s = s, c
	}
	h.id++
	f := tcpFrame(h, c, s, g.flags, g.seq, g.ack, h.id, g.payload)
	h.table(l.iface).Packet(l.iface, layers.LinkTypeEthernet, epoch+int64(h.now), f, len(f))
	h.now += 5 * time.Microsecond
}

const steps = 8

// tick has time go on for everyone.
func (h *host) tick(d time.Duration) {
	for end := h.now + d; h.now < end; h.now += 50 * time.Millisecond {
		for _, t := range h.tables {
			t.Tick(epoch + int64(h.now))
		}
	}
}

// told closes everything and gives "<client> <server> <interfaces>" of the session, having checked that each event came once.
func (h *host) told() string {
	h.Helper()
	h.tick(3 * time.Second)
	for _, t := range h.tables {
		t.Close()
	}
	var session *pipeline.Event
	n := map[pipeline.Dataset]int{}
	for _, e := range h.events {
		n[e.Dataset]++
		if e.Dataset == pipeline.Dataset_SESSION {
			session = e
		}
	}
	if n[pipeline.Dataset_SESSION] != 1 || n[pipeline.Dataset_REDIS] != 2 {
		h.Errorf("%d sessions and %d transactions, want 1 and 2", n[pipeline.Dataset_SESSION], n[pipeline.Dataset_REDIS])
		return ""
	}
	for _, t := range h.tables {
		if t.outboxEvents != 0 {
			h.Errorf("%d events are left in the outbox", t.outboxEvents)
		}
	}
	slices.Sort(session.Interfaces)
	return end(session.Source) + " " + end(session.Destination) + " " + strings.Join(session.Interfaces, ",")
}

func end(p *pipeline.Endpoint) string {
	ip, _ := netip.AddrFromSlice(p.Ip)
	s := netip.AddrPortFrom(ip, uint16(p.Port)).String()
	if nat, ok := netip.AddrFromSlice(p.NatIp); ok {
		s += "(" + netip.AddrPortFrom(nat, uint16(p.NatPort)).String() + ")"
	}
	if p.Container != nil {
		s += "[c]"
	}
	return s
}

// TestOneConnectionOnSeveralInterfacesIsToldOnce, for each kind of way through a Docker host and every order in which the workers may
// get at the packets.
func TestOneConnectionOnSeveralInterfacesIsToldOnce(t *testing.T) {
	check := func(name string, m *Mapping, want string, legs ...leg) {
		t.Run(name, func(t *testing.T) {
			orders := map[string]func(h *host){
				"first leg first": func(h *host) {
					for i := range steps {
						for _, l := range legs {
							h.step(l, i)
						}
					}
				},
				"last leg first": func(h *host) {
					for i := range steps {
						for _, l := range slices.Backward(legs) {
							h.step(l, i)
						}
					}
				},
				"first leg whole before the others": func(h *host) {
					for _, l := range legs {
						for i := range steps {
							h.step(l, i)
						}
					}
				},
				"last leg whole before the others": func(h *host) {
					for _, l := range slices.Backward(legs) {
						for i := range steps {
							h.step(l, i)
						}
					}
				},
			}
			for order, play := range orders {
				for _, known := range []string{"known", "late"} {
					nat := fakeNAT{}
					h := newHost(t, nat)
					if m != nil && known == "known" {
						nat.add(*m)
					}
					play(h)
					if m != nil && known == "late" {
						h.tick(200 * time.Millisecond)
						nat.add(*m)
					}
					if got := h.told(); got != want {
						t.Errorf("%s, mapping %s:\n got %s\nwant %s", order, known, got, want)
					}
				}
			}
		})
	}
	snat := mapping("172.17.0.3:4000", "203.0.113.9:443", "192.0.2.1:61000", "203.0.113.9:443")
	check("SNAT", &snat, "172.17.0.3:4000(192.0.2.1:61000)[c] 203.0.113.9:443 docker0,eth0",
		leg{"docker0", "172.17.0.3:4000", "203.0.113.9:443"}, leg{"eth0", "192.0.2.1:61000", "203.0.113.9:443"})
	dnat := mapping("203.0.113.9:5000", "172.17.0.2:8080", "203.0.113.9:5000", "192.0.2.1:9090")
	check("DNAT", &dnat, "203.0.113.9:5000 172.17.0.2:8080(192.0.2.1:9090)[c] docker0,eth0",
		leg{"docker0", "203.0.113.9:5000", "172.17.0.2:8080"}, leg{"eth0", "203.0.113.9:5000", "192.0.2.1:9090"})
	check("IPv6 without NAT", nil, "[fd00::3]:4000[c] [2001:db8::9]:443 docker0,eth0",
		leg{"docker0", "[fd00::3]:4000", "[2001:db8::9]:443"}, leg{"eth0", "[fd00::3]:4000", "[2001:db8::9]:443"})
	check("routed without NAT", nil, "203.0.113.9:5000 172.17.0.2:80[c] docker0,eth0",
		leg{"eth0", "203.0.113.9:5000", "172.17.0.2:80"}, leg{"docker0", "203.0.113.9:5000", "172.17.0.2:80"})
	check("bridge not captured", &snat, "172.17.0.3:4000(192.0.2.1:61000)[c] 203.0.113.9:443 eth0",
		leg{"eth0", "192.0.2.1:61000", "203.0.113.9:443"})
	check("only the bridge", nil, "172.17.0.3:4000[c] 172.17.0.2:80[c] docker0", leg{"docker0", "172.17.0.3:4000", "172.17.0.2:80"})
	own := mapping("192.0.2.1:4000", "203.0.113.9:443", "192.0.2.1:4000", "203.0.113.9:443")
	check("the host's own", &own, "192.0.2.1:4000 203.0.113.9:443 eth0", leg{"eth0", "192.0.2.1:4000", "203.0.113.9:443"})
	check("the host's own, not tracked", nil, "192.0.2.1:4000 203.0.113.9:443 eth0", leg{"eth0", "192.0.2.1:4000", "203.0.113.9:443"})
	check("the host's own, two devices", &own, "192.0.2.1:4000 203.0.113.9:443 bond0,eth0",
		leg{"eth0", "192.0.2.1:4000", "203.0.113.9:443"}, leg{"bond0", "192.0.2.1:4000", "203.0.113.9:443"})
	check("two bridges and eth0", nil, "172.18.0.3:4000[c] 172.17.0.2:80[c] br-1,docker0,eth0",
		leg{"br-1", "172.18.0.3:4000", "172.17.0.2:80"}, leg{"docker0", "172.18.0.3:4000", "172.17.0.2:80"}, leg{"eth0", "172.18.0.3:4000", "172.17.0.2:80"})
}

// TestPublishedPortOfTheSameHost: a container asks another through the host's published port, without docker-proxy: both of its
// legs cross bridges, under two tuples that only the connection tracker links.
func TestPublishedPortOfTheSameHost(t *testing.T) {
	m := mapping("172.17.0.3:4000", "172.17.0.2:80", "172.17.0.1:61000", "192.0.2.1:9090")
	nat := fakeNAT{}
	nat.add(m)
	h := newHost(t, nat)
	for i := range steps {
		h.step(leg{"docker0", "172.17.0.3:4000", "192.0.2.1:9090"}, i)
		h.step(leg{"docker0", "172.17.0.1:61000", "172.17.0.2:80"}, i)
	}
	if got, want := h.told(), "172.17.0.3:4000(172.17.0.1:61000)[c] 172.17.0.2:80(192.0.2.1:9090)[c] docker0"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestTwoInterfacesInOneFile: a capture of docker0 and eth0 is played through one Table; without Deps.Bridge whoever is first speaks.
func TestTwoInterfacesInOneFile(t *testing.T) {
	b := newBench(t, Config{}, Deps{})
	for _, iface := range []string{"docker0", "eth0"} {
		b.segment(iface, "10.0.0.1:4000", "10.0.0.2:80", ">", "S", 0, 0, "")
	}
	for _, iface := range []string{"docker0", "eth0"} {
		b.segment(iface, "10.0.0.1:4000", "10.0.0.2:80", ">", "A", 0, 0, "ask")
	}
	if e := b.session(); !slices.Equal(e.Interfaces, []string{"docker0", "eth0"}) {
		t.Errorf("interfaces %v", e.Interfaces)
	}
	b.want(">ask close")
}

// TestPortsUsedAgainAfterAClaim: the claim of a connection that is over does not silence the next one on the same ports.
func TestPortsUsedAgainAfterAClaim(t *testing.T) {
	h := newHost(t, nil)
	l := leg{"docker0", "172.17.0.3:4000", "172.17.0.2:80"}
	for i := range steps {
		h.step(l, i)
	}
	h.tick(2 * time.Second)
	first := len(h.events)
	for i := range steps {
		h.step(leg{"eth0", l.client, l.server}, i) // routed, and its bridge is gone
	}
	h.tick(3 * time.Second)
	if n := len(h.events) - first; first != 3 || n != 3 {
		t.Errorf("%d and %d events, want 3 and 3", first, n)
	}
}

// TestDuplicateCapture: each packet twice on one interface.
func TestDuplicateCapture(t *testing.T) {
	for _, client := range []string{"10.0.0.1:4000", "[fd00::1]:4000"} {
		server := strings.Replace(strings.Replace(client, ":4000", ":53", 1), "1", "2", 1)
		b := newBench(t, Config{}, Deps{})
		for i := range 3 {
			id := uint16(i)
			f := udpFrame(b, ap(client), ap(server), id, "ask")
			r := udpFrame(b, ap(server), ap(client), id, "tell")
			at := epoch + int64(i)*1e9
			for j := range int64(2) {
				b.Packet("eth0", layers.LinkTypeEthernet, at+j*20e3, f, len(f))
				b.Packet("eth0", layers.LinkTypeEthernet, at+100e3+j*20e3, r, len(r))
			}
		}
		e := b.session()
		b.want(">ask <tell >ask <tell >ask <tell close")
		if e.Source.Packets != 3 || e.Destination.Bytes != 12 {
			t.Errorf("session %v", e)
		}
	}
}

// TestWorkersInParallel: the Tables of two interfaces, each in a goroutine of its own and at its own pace, share who speaks; of each
// connection every event is told once.
func TestWorkersInParallel(t *testing.T) {
	nat := fakeNAT{}
	const n = 300
	var mu sync.Mutex
	told := map[string]int{}
	h := newHost(t, nat)
	h.deps.Emit = func(e *pipeline.Event) {
		mu.Lock()
		defer mu.Unlock()
		told[e.Dataset.Name()+" "+end(e.Source)]++
	}
	var legs [2][]leg
	for i := range n {
		in, out := 20000+i, 40000+i
		nat.add(mapping(fmt.Sprintf("172.17.0.3:%d", in), "203.0.113.9:443", fmt.Sprintf("192.0.2.1:%d", out), "203.0.113.9:443"))
		legs[0] = append(legs[0], leg{"docker0", fmt.Sprintf("172.17.0.3:%d", in), "203.0.113.9:443"})
		legs[1] = append(legs[1], leg{"eth0", fmt.Sprintf("192.0.2.1:%d", out), "203.0.113.9:443"})
	}
	hosts := [2]*host{}
	for i := range hosts {
		hosts[i] = &host{TB: t, tables: map[string]*Table{}, deps: h.deps}
	}
	var wg sync.WaitGroup
	for i, own := range hosts {
		own.table(legs[i][0].iface)
		wg.Go(func() {
			for at := 0; at < n; at += 10 {
				for step := range steps {
					for _, l := range legs[i][at : at+10] {
						own.step(l, step)
					}
				}
			}
			own.tick(3 * time.Second)
		})
	}
	wg.Wait()
	for _, own := range hosts {
		for _, table := range own.tables {
			table.Close()
		}
	}
	sessions, transactions := 0, 0
	for what, times := range told {
		switch {
		case strings.HasPrefix(what, "session ") && times == 1:
			sessions++
		case strings.HasPrefix(what, "redis ") && times == 2:
			transactions += times
		default:
			t.Errorf("%s: %d times", what, times)
		}
	}
	if sessions != n || transactions != 2*n {
		t.Errorf("%d sessions and %d transactions, want %d and %d", sessions, transactions, n, 2*n)
	}
}
