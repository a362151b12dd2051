package sessions

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket/layers"

	"tidegate/pipeline"
)

// A container sends empty segments of both directions of a connection that is not its own, with the MAC
// address of the bridge, so that no sender is checked. The copy on eth0, the only one with data, must be
// told.
func TestForgedCopyOnABridgeDoesNotMute(t *testing.T) {
	const client, server = "203.0.113.9:5551", "192.0.2.1:80"
	b := newTableTest(t, Default(), Deps{Bridge: func(name string) bool { return name == "docker0" }})
	b.segmentOn("docker0", client, server, ">", "S", 0, 0, "")
	b.segmentOn("docker0", client, server, "<", "SA", 0, 0, "")
	forge := func() {
		for range 3 {
			b.segmentOn("docker0", client, server, ">", "A", 0, 0, "")
			b.segmentOn("docker0", client, server, "<", "A", 0, 0, "")
			b.now += 4_000_000
		}
	}
	forge()
	b.segmentOn("eth0", client, server, ">", "S", 7000, 0, "")
	forge()
	b.segmentOn("eth0", client, server, "<", "SA", 9000, 7000, "")
	b.segmentOn("eth0", client, server, ">", "A", 7000, 9000, "")
	b.segmentOn("eth0", client, server, ">", "A", 7000, 9000, "attack")
	forge()
	b.segmentOn("eth0", client, server, "<", "A", 9000, 7006, "answer")
	forge()
	b.Close()
	if log := b.recorder.log.String(); !strings.Contains(log, ">attack <answer") {
		t.Errorf("the parser got %q, and not the request on eth0", log)
	}
	tagged := 0
	for _, event := range b.events {
		if slices.Contains(event.Tags, pipeline.TagCopiesDiffer) {
			tagged++
		}
	}
	if tagged != 3 || counterValue(b.metrics.differingCopies) != 1 {
		t.Errorf("%d events have the tag, want request, answer and session; the metric is %v", tagged,
			counterValue(b.metrics.differingCopies))
	}
}

// A forger sends on an interface while a connection of others passes another one. The interfaces have Tables
// of their own, or share one.
type forger struct {
	*natHost
	ifaces         []string // where it sends
	client, server string   // of the true connection, as the forger writes them
	kind           string   // a key of flags
	payload        func(i int) string
	flags          func(i int) string
	sent           int
}

// sendForged sends one packet of each direction on each interface.
func (g *forger) sendForged() {
	for _, iface := range g.ifaces {
		g.sendForgedOn(iface)
	}
}

func (g *forger) sendForgedOn(iface string) {
	g.Helper()
	for _, back := range []bool{false, true} {
		from, to := addrPort(g.client), addrPort(g.server)
		if back {
			from, to = to, from
		}
		g.id++
		g.sent++
		var data []byte
		if g.kind == "udp" {
			data = udpFrame(g, from, to, g.id, g.payload(g.sent))
		} else {
			number := uint32(g.sent) * 0x9e3779b9
			data = tcpFrame(g, from, to, g.flags(g.sent), number, number*7, g.id, g.payload(g.sent))
		}
		g.tableOf(iface).Packet(iface, layers.LinkTypeEthernet, startTime+int64(g.now), data, len(data))
		g.now += 5 * time.Microsecond
	}
}

// pause sends forged packets for a while, one pair every 4 ms.
func (g *forger) pause(d time.Duration) {
	g.Helper()
	for end := g.now + d; g.now < end; g.now += 4 * time.Millisecond {
		g.sendForged()
		for _, table := range g.tables {
			table.Tick(startTime + int64(g.now))
		}
	}
}

// TestForgedPacketsMuteNoConnection: whatever is forged, where, and when it begins, each request of the true
// connection and each answer is an event.
func TestForgedPacketsMuteNoConnection(t *testing.T) {
	snat := newMapping("172.17.0.3:4000", "203.0.113.9:443", "192.0.2.1:61000", "203.0.113.9:443")
	dnat := newMapping("203.0.113.9:5000", "172.17.0.2:8080", "203.0.113.9:5000", "192.0.2.1:9090")
	host := newMapping("203.0.113.9:5551", "192.0.2.1:80", "203.0.113.9:5551", "192.0.2.1:80")
	six := newMapping("[2001:db8::9]:5551", "[2001:db8::1]:80", "[2001:db8::9]:5551", "[2001:db8::1]:80")
	onSNAT := []natLeg{
		{"docker0", "172.17.0.3:4000", "203.0.113.9:443"},
		{"eth0", "192.0.2.1:61000", "203.0.113.9:443"},
	}
	onDNAT := []natLeg{
		{"eth0", "203.0.113.9:5000", "192.0.2.1:9090"},
		{"docker0", "203.0.113.9:5000", "172.17.0.2:8080"},
	}
	onHost := []natLeg{{"eth0", "203.0.113.9:5551", "192.0.2.1:80"}}
	onSix := []natLeg{{"eth0", "[2001:db8::9]:5551", "[2001:db8::1]:80"}}
	routes := map[string]struct {
		mapping Mapping
		iface   string // of the forger, or several
		outside bool   // it forges the addresses outside NAT
		legs    []natLeg
	}{
		"host":                       {host, "docker0", false, onHost},
		"IPv6":                       {six, "docker0", false, onSix},
		"SNAT, outside tuple":        {snat, "br-1", true, onSNAT},
		"SNAT, inside tuple":         {snat, "br-1", false, onSNAT},
		"DNAT, outside tuple":        {dnat, "br-1", true, onDNAT},
		"DNAT, inside tuple":         {dnat, "br-1", false, onDNAT},
		"three forgers":              {host, "docker0 br-1 br-2", false, onHost},
		"from outside":               {dnat, "eth1", true, onDNAT[1:]},
		"from outside, inside tuple": {dnat, "eth1", false, onDNAT[1:]},
	}
	payloads := map[string]func(int) string{
		"empty":  func(int) string { return "" },
		"random": func(i int) string { return fmt.Sprintf("forged %d", i) },
		"same":   func(int) string { return "forged" },
		"mixed":  func(i int) string { return strings.Repeat("x", i%5) },
	}
	flags := map[string]func(int) string{
		"A":   func(int) string { return "A" },
		"udp": nil,
		"all": func(i int) string { return []string{"S", "SA", "A", "A", "FA", "FA", "RA", "R"}[i/2%8] },
	}
	for routeName, route := range routes {
		for payloadName, payload := range payloads {
			for kind, flags := range flags {
				for _, before := range []time.Duration{0, 20 * time.Millisecond, 1500 * time.Millisecond} {
					if testing.Short() && before != 1500*time.Millisecond {
						continue
					}
					for _, oneTable := range []bool{false, true} {
						nat := fakeNAT{}
						nat.addMapping(route.mapping)
						g := &forger{
							natHost: newHost(t, nat), ifaces: strings.Split(route.iface, " "),
							kind: kind, payload: payload, flags: flags,
							client: route.mapping.Client.String(), server: route.mapping.Server.String(),
						}
						g.texts = true
						if route.outside {
							g.client, g.server = route.mapping.OutsideClient.String(), route.mapping.OutsideServer.String()
						}
						if before == 20*time.Millisecond {
							networks := netip.MustParsePrefix("172.16.0.0/14")
							g.deps.IsOutsideBridge = func(_ string, ip netip.Addr) bool { return !networks.Contains(ip) }
						}
						if oneTable {
							g.shareTable("docker0", "br-1", "eth0", "eth1", "br-2")
						}
						g.pause(before)
						name := fmt.Sprintf("%s/%s/%s/%v/%v", routeName, payloadName, kind, before, oneTable)
						g.checkTrueConnection(name, route.legs)
					}
				}
			}
		}
	}
}

// shareTable has the interfaces share the Table of the first.
func (h *natHost) shareTable(ifaces ...string) {
	for _, iface := range ifaces {
		h.tables[iface] = h.tableOf(ifaces[0])
	}
}

// checkTrueConnection sends a connection with six requests over legs, while g forges, and checks that every
// one and its answer is told.
func (g *forger) checkTrueConnection(name string, legs []natLeg) {
	g.Helper()
	seq, ack := uint32(0x12345678), uint32(0x9abcdef0)
	send := func(back bool, flags, payload string) {
		g.id++
		for _, leg := range legs {
			from, to, number, acked := addrPort(leg.client), addrPort(leg.server), seq, ack
			if back {
				from, to, number, acked = to, from, ack, seq
			}
			var data []byte
			if g.kind == "udp" {
				if payload == "" {
					continue
				}
				data = udpFrame(g, from, to, g.id, payload)
			} else {
				data = tcpFrame(g, from, to, flags, number, acked, g.id, payload)
			}
			g.tableOf(leg.iface).Packet(leg.iface, layers.LinkTypeEthernet, startTime+int64(g.now), data, len(data))
			g.now += 5 * time.Microsecond
		}
		advanced := uint32(len(payload))
		if strings.ContainsAny(flags, "SF") {
			advanced++
		}
		if back {
			ack += advanced
		} else {
			seq += advanced
		}
		g.sendForged()
	}
	send(false, "S", "")
	send(true, "SA", "")
	send(false, "A", "")
	var wanted []string
	for i := range 6 {
		request, answer := fmt.Sprintf("request %d", i), fmt.Sprintf("the answer %d", i)
		wanted = append(wanted, request, answer)
		send(false, "A", request)
		send(true, "A", answer)
		g.pause(time.Duration(i) * 50 * time.Millisecond)
	}
	send(false, "FA", "")
	send(true, "FA", "")
	send(false, "A", "")
	g.pause(2 * time.Second)
	for _, table := range g.tables {
		table.Close()
	}
	told := map[string]int{}
	for _, event := range g.events {
		if event.Redis != nil {
			told[event.Redis.Command]++
		}
	}
	for _, text := range wanted {
		if told[text] != 1 {
			g.Errorf("%s: %q is told %d times", name, text, told[text])
		}
	}
}

// TestForeignConnectionOnABridgeMutesNone: an end of the connection helps the forger, who so knows the
// numbers and the bytes. He forges them in other segments, and other bytes in the place of one request. The
// networks of the bridge are known, so the connection on it, of which no end is there, counts as none that
// eth0 copies.
func TestForeignConnectionOnABridgeMutesNone(t *testing.T) {
	for _, ends := range [][2]string{{"203.0.113.9:5551", "192.0.2.1:80"}, {"[2001:db8::9]:5551", "[2001:db8::1]:80"}} {
		host := newHost(t, nil)
		host.texts = true
		host.deps.IsOutsideBridge = func(bridge string, ip netip.Addr) bool {
			return bridge == "docker0" && !netip.MustParsePrefix("172.17.0.0/16").Contains(ip)
		}
		client, server := addrPort(ends[0]), addrPort(ends[1])
		send := func(iface, flags string, seq uint32, payload string) {
			host.id++
			data := tcpFrame(t, client, server, flags, seq, 5000, host.id, payload)
			host.tableOf(iface).Packet(iface, layers.LinkTypeEthernet, startTime+int64(host.now), data, len(data))
			host.now += 5 * time.Microsecond
		}
		send("docker0", "S", 999, "")
		send("eth0", "S", 999, "")
		seq := uint32(1000)
		for _, text := range []string{"first", "attack", "last"} {
			forged := strings.ReplaceAll(text, "attack", "benign")
			send("docker0", "A", seq, forged[:2])
			send("docker0", "A", seq+2, forged[2:])
			host.advance(300 * time.Millisecond)
			send("eth0", "A", seq, text)
			seq += uint32(len(text))
			host.advance(300 * time.Millisecond)
		}
		host.advance(3 * time.Second)
		for _, table := range host.tables {
			table.Close()
		}
		told := map[string]int{}
		for _, event := range host.events {
			if event.Redis != nil {
				told[event.Redis.Command]++
			}
		}
		for _, text := range []string{"first", "attack", "last"} {
			if told[text] != 1 {
				t.Errorf("%v: %q is told %d times", ends, text, told[text])
			}
		}
	}
}

// TestRoutedByAContainerIsReportedOnce: a container, a VPN for example, routes for an address that is in no
// network of its bridge. The connection passes the bridge and eth0, behind NAT or not, and is reported once.
func TestRoutedByAContainerIsReportedOnce(t *testing.T) {
	snat := newMapping("10.8.0.2:4000", "203.0.113.9:443", "192.0.2.1:61000", "203.0.113.9:443")
	for name, mapping := range map[string]*Mapping{"NAT": &snat, "no NAT": nil} {
		for _, bridgeFirst := range []bool{true, false} {
			for _, late := range []bool{true, false} {
				nat := fakeNAT{}
				host := newHost(t, nat)
				host.deps.IsOutsideBridge = func(bridge string, ip netip.Addr) bool {
					return bridge == "docker0" && !netip.MustParsePrefix("172.17.0.0/16").Contains(ip)
				}
				legs := []natLeg{
					{"docker0", "10.8.0.2:4000", "203.0.113.9:443"}, {"eth0", "10.8.0.2:4000", "203.0.113.9:443"},
				}
				if mapping != nil {
					legs[1].client = "192.0.2.1:61000"
				}
				if mapping != nil && !late {
					nat.addMapping(*mapping)
				}
				if !bridgeFirst {
					slices.Reverse(legs)
				}
				for i := range numSteps {
					for _, leg := range legs {
						host.sendStep(leg, i)
					}
				}
				if mapping != nil && late {
					host.advance(200 * time.Millisecond)
					nat.addMapping(*mapping)
				}
				if got := host.closeAndDescribe(); got == "" {
					t.Errorf("%s, bridge first %v, mapping late %v", name, bridgeFirst, late)
				}
			}
		}
	}
}
