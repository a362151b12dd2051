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

// A helpedForger sends copies of one connection, from a client to a server, on two interfaces: the bytes of an end are
// known to the forger, or the kernel has cut them in other places.
type helpedForger struct {
	*natHost
	client, server string
}

// send sends a segment of the client on an interface; off is the offset of its payload.
func (g *helpedForger) send(iface, flags string, off int, payload string) {
	g.Helper()
	g.id++
	data := tcpFrame(g, addrPort(g.client), addrPort(g.server), flags, 1000+uint32(off), 5000, g.id, payload)
	g.tableOf(iface).Packet(iface, layers.LinkTypeEthernet, startTime+int64(g.now), data, len(data))
	g.now += 5 * time.Microsecond
}

// sendParts sends text in segments of a size.
func (g *helpedForger) sendParts(iface string, off, size int, text string) {
	g.Helper()
	for part := range slices.Chunk([]byte(text), size) {
		g.send(iface, "A", off, string(part))
		off += len(part)
	}
}

// told returns the text of all events of the parsers, and whether one of them has the tag copies_differ.
func (g *helpedForger) told() (text string, differs bool) {
	for _, table := range g.tables {
		table.Close()
	}
	for _, event := range g.events {
		if event.Redis != nil {
			text += event.Redis.Command
			differs = differs || slices.Contains(event.Tags, pipeline.TagCopiesDiffer)
		}
	}
	return text, differs
}

// TestOtherBytesInTheSamePlaceAreBothTold: an end of the connection helps the forger, who so shows on a bridge the same
// first bytes, and then others, shorter or longer, before the true ones come on eth0, or after them.
func TestOtherBytesInTheSamePlaceAreBothTold(t *testing.T) {
	const first, attack, last = "GET /first\r\n", "GET /attack\r\n", "GET /last\r\n"
	for _, forged := range []string{"GET /benign\r\n", "GET /b\r\n", "GET /benign/and/longer/than/the/other\r\n"} {
		for _, size := range []int{3, 1000} {
			for _, before := range []bool{true, false} {
				for _, oneTable := range []bool{true, false} {
					for _, mirrored := range []bool{true, false} {
						g := &helpedForger{newHost(t, nil), "203.0.113.9:5551", "192.0.2.1:80"}
						g.texts = true
						if oneTable {
							g.shareTable("docker0", "eth0")
						}
						g.send("docker0", "S", -1, "")
						g.send("eth0", "S", -1, "")
						off := 0
						if mirrored {
							g.send("docker0", "A", 0, first)
							g.send("eth0", "A", 0, first)
							off = len(first)
							g.advance(300 * time.Millisecond)
						}
						if before {
							g.sendParts("docker0", off, size, forged)
							g.send("eth0", "A", off, attack)
						} else {
							g.send("eth0", "A", off, attack)
							g.sendParts("docker0", off, size, forged)
						}
						g.advance(20 * time.Millisecond)
						off += len(attack)
						g.send("eth0", "A", off, last)
						g.advance(20 * time.Millisecond)
						g.send("eth0", "FA", off+len(last), "")
						g.advance(3 * time.Second)
						text, differs := g.told()
						if !strings.Contains(text, attack+last) || !differs {
							t.Errorf("%q in pieces of %d, before %t, one table %t, mirrored %t: told %q, tagged %t", forged, size,
								before, oneTable, mirrored, text, differs)
						}
					}
				}
			}
		}
	}
}

// TestNoOrderHidesOtherBytes: an end of the connection helps the forger. Whatever the order and the bounds of the segments
// are in which eth0 shows the true bytes, and the end of the connection, they are told.
func TestNoOrderHidesOtherBytes(t *testing.T) {
	const attack, benign, next = "GET /attack/abcdefgh\r\n", "GET /benign/abcdefgh\r\n", "GET /next\r\n"
	const longer = benign + "and a rest that never comes on eth0\r\n"
	many := "" // more segments than there are prints of the first ones
	for i := range 13 {
		many += fmt.Sprintf("%02d", i)
	}
	for name, run := range map[string]func(g *helpedForger, off int){
		"forged first, true halves in reverse": func(g *helpedForger, off int) {
			g.send("docker0", "A", off, benign[:11])
			g.send("docker0", "A", off+11, benign[11:])
			g.send("eth0", "A", off+11, attack[11:])
			g.send("eth0", "A", off, attack[:11])
		},
		"forged first, true parts in reverse": func(g *helpedForger, off int) {
			g.send("docker0", "A", off, benign[:11])
			g.send("docker0", "A", off+11, benign[11:])
			for _, at := range []int{14, 7, 0} {
				g.send("eth0", "A", off+at, attack[at:min(at+7, 21)])
			}
			g.send("eth0", "A", off+21, attack[21:])
		},
		"true parts in reverse, then forged": func(g *helpedForger, off int) {
			for _, at := range []int{14, 7, 0} {
				g.send("eth0", "A", off+at, attack[at:min(at+7, 21)])
			}
			g.send("eth0", "A", off+21, attack[21:])
			g.send("docker0", "A", off, benign)
		},
		"both in the same place on eth0": func(g *helpedForger, off int) {
			g.send("docker0", "A", off, benign)
			g.send("eth0", "A", off, benign)
			g.send("eth0", "A", off, attack)
		},
		"a RST": func(g *helpedForger, off int) {
			g.send("docker0", "A", off, longer)
			g.send("eth0", "A", off, attack)
			g.send("eth0", "RA", off+len(attack), "")
		},
		"nothing more": func(g *helpedForger, off int) {
			for range 10 { // so that the connection counts as established on docker0, and is kept longer
				g.send("docker0", "A", off, "")
			}
			g.send("docker0", "A", off, longer)
			g.send("eth0", "A", off, attack)
			for range 20 {
				g.send("docker0", "A", off+len(longer), "")
				g.advance(time.Duration(Default().TCPIdleTimeout) / 10)
			}
		},
		"a FIN with the data": func(g *helpedForger, off int) {
			g.send("docker0", "A", off, longer)
			g.send("eth0", "FA", off, attack)
		},
		"two longer ones": func(g *helpedForger, off int) {
			g.send("docker0", "A", off, longer)
			g.send("docker0", "A", off+5, "x"+longer[6:])
			g.send("eth0", "A", off, attack)
			for range 8 {
				g.advance(50 * time.Millisecond)
				g.send("eth0", "A", off+len(attack), "")
			}
		},
		"a keep-alive": func(g *helpedForger, off int) {
			g.send("docker0", "A", off, longer)
			g.send("eth0", "A", off, attack)
			g.advance(300 * time.Millisecond)
			g.send("eth0", "A", off+len(attack)-1, "\n")
		},
		"after many segments": func(g *helpedForger, off int) { // the newest print is not the last one of the ring
			for at := 0; at < len(many); at += 2 {
				g.send("docker0", "A", off+at, many[at:at+2])
				g.send("eth0", "A", off+at, many[at:at+2])
			}
			off += len(many)
			for at := 0; at < len(benign); at += 6 {
				g.send("docker0", "A", off+at, benign[at:min(at+6, len(benign))])
			}
			g.send("eth0", "A", off, attack)
		},
	} {
		for _, oneTable := range []bool{true, false} {
			g := &helpedForger{newHost(t, nil), "203.0.113.9:5551", "192.0.2.1:80"}
			g.texts = true
			if oneTable {
				g.shareTable("docker0", "eth0")
			}
			g.send("docker0", "S", -1, "")
			g.send("eth0", "S", -1, "")
			g.send("docker0", "A", 0, next)
			g.send("eth0", "A", 0, next)
			g.advance(300 * time.Millisecond)
			run(g, len(next))
			g.advance(20 * time.Millisecond)
			g.send("eth0", "A", 5000, next)
			g.advance(3 * time.Second)
			if text, differs := g.told(); !strings.Contains(text, attack) || !differs {
				t.Errorf("%s, one table %t: told %q, tagged %t", name, oneTable, text, differs)
			}
		}
	}
}

// TestSegmentsCutOnTheWayAreNoDifference: the kernel has cut the segments of a copy, or merged them. The connection is
// reported once, whatever Table is ahead, and by how much.
func TestSegmentsCutOnTheWayAreNoDifference(t *testing.T) {
	stream := []byte(strings.Repeat("0123456789abcdefghijklmnopqrstuvwxyz", 60_000))
	for i := range stream {
		stream[i] = byte('a' + (i*i>>7+i)%26)
	}
	for _, sizes := range [][2]int{{1448, 65_160}, {65_160, 1448}, {2896, 1448}, {1448, 4344}, {1000, 1001}} {
		for _, ahead := range []int{0, 1, 40, 400} { // segments of the larger size by which docker0 is ahead of eth0
			for _, total := range []int{1, 3000, 100_000, len(stream)} {
				g := &helpedForger{newHost(t, nil), "172.17.0.3:4000", "203.0.113.9:80"}
				g.send("docker0", "S", -1, "")
				g.send("eth0", "S", -1, "")
				sent, lag := [2]int{}, ahead*max(sizes[0], sizes[1])
				for sent[0] < total || sent[1] < total {
					side := 0
					if sent[1] < total && (sent[0] == total || sent[0] >= sent[1]+lag && sent[0] > sent[1]) {
						side = 1
					}
					next := min(sent[side]+sizes[side], total)
					g.send([]string{"docker0", "eth0"}[side], "A", sent[side], string(stream[sent[side]:next]))
					sent[side] = next
				}
				g.advance(100 * time.Millisecond)
				g.send("docker0", "FA", total, "")
				g.send("eth0", "FA", total, "")
				g.advance(3 * time.Second)
				for _, table := range g.tables {
					table.Close()
				}
				sessions, bytes := 0, uint64(0)
				for _, event := range g.events {
					if event.Dataset == pipeline.Dataset_SESSION {
						sessions++
						bytes += event.Source.Bytes
					}
				}
				if sessions != 1 || bytes != uint64(total) || g.metric(differing) > 0 {
					t.Errorf("segments of %v bytes, %d ahead, %d bytes: %d sessions with %d bytes, %v differ", sizes, ahead,
						total, sessions, bytes, g.metric(differing))
				}
			}
		}
	}
}

func differing(m *tableMetrics) counter { return m.differingCopies }

// TestForeignConnectionOnABridgeCutsNone: a connection on eth0 is idle, and a container sends packets with its addresses
// on a bridge in whose networks neither end is. The connection is one session, and each of its requests is an event.
func TestForeignConnectionOnABridgeCutsNone(t *testing.T) {
	for name, forge := range map[string]func(g *helpedForger, off int){
		"empty":          func(g *helpedForger, off int) { g.send("docker0", "A", off, "") },
		"forged numbers": func(g *helpedForger, off int) { g.send("docker0", "A", off+123_456_789, "forged") },
		"known numbers":  func(g *helpedForger, off int) { g.send("docker0", "A", off, "forged") },
		"the same bytes": func(g *helpedForger, off int) { g.send("docker0", "A", off-7, "request") },
		"the same bytes, then others": func(g *helpedForger, off int) {
			g.send("docker0", "A", off-7, "request")
			for i := range 30 {
				g.send("docker0", "A", off+6*i, "forged")
				g.advance(50 * time.Millisecond)
			}
		},
		"SYN": func(g *helpedForger, off int) { g.send("docker0", "S", off, "") },
		"FIN": func(g *helpedForger, off int) { g.send("docker0", "FA", off, "") },
	} {
		for _, oneTable := range []bool{true, false} {
			g := &helpedForger{newHost(t, nil), "203.0.113.9:5551", "192.0.2.1:80"}
			g.texts = true
			g.deps.IsOutsideBridge = func(bridge string, ip netip.Addr) bool {
				return bridge == "docker0" && !netip.MustParsePrefix("172.17.0.0/16").Contains(ip)
			}
			if oneTable {
				g.shareTable("docker0", "eth0")
			}
			g.send("eth0", "S", -1, "")
			off := 0
			for range 3 {
				g.send("eth0", "A", off, "request")
				off += len("request")
				for range 8 {
					forge(g, off)
					g.advance(700 * time.Millisecond)
				}
			}
			g.send("eth0", "FA", off, "")
			g.advance(10 * time.Second)
			text, _ := g.told()
			sessions := 0
			for _, event := range g.events {
				if event.Dataset == pipeline.Dataset_SESSION && event.Interfaces[0] == "eth0" {
					sessions++
				}
			}
			if sessions != 1 || strings.Count(text, "request") < 3 {
				t.Errorf("%s, one table %t: %d sessions on eth0, told %q", name, oneTable, sessions, text)
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
