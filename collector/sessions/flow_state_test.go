package sessions

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/gopacket/layers"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tidegate/collector/links"
	"tidegate/collector/reassembly"
	"tidegate/pipeline"
	"tidegate/pipeline/memory"
)

// TestSizeIsThatOnTheWireWhereTheHeaderHasNone: the network card fills the length of IPv4 in (TSO), so that the size of the
// segment is that of the frame without every header around it.
func TestSizeIsThatOnTheWireWhereTheHeaderHasNone(t *testing.T) {
	inner := tcpFrame(t, addrPort("10.0.0.1:4000"), addrPort("10.0.0.2:80"), "A", 1, 1, 1, "abcdefghij")
	inner[16], inner[17] = 0, 0
	for _, frame := range encapsulations(t, inner) {
		if frame.name == "length left to the card" {
			continue // it has a payload of its own
		}
		behind := len(frame.data) - bytes.LastIndex(frame.data, []byte("abcdefghij"))
		for cut := range 3 {
			var got packet
			decoder := New(Default(), Deps{Tunnels: EveryTunnel}, nil).decoder
			result := decoder.decodeFrame(&got, frame.link, slices.Clone(frame.data[:len(frame.data)-cut]), len(frame.data))
			if strings.HasPrefix(frame.name, "Teredo") && cut > 0 {
				continue // it is recognised by its length
			}
			want := behind // with what may be padding
			if strings.HasPrefix(frame.name, "PPPoE") || strings.HasPrefix(frame.name, "radiotap with time") {
				want = 10
			}
			if result != resTCP || got.Size != want {
				t.Errorf("%s, %d bytes cut: %s of %d bytes, want %d", frame.name, cut, resultNames[result], got.Size, want)
			}
		}
	}
}

// TestDatagramMayBeEmpty, and no shorter than its header.
func TestDatagramMayBeEmpty(t *testing.T) {
	check := func(payload string, cut int, length uint16, want result, size int) {
		t.Helper()
		frame := udpFrame(t, addrPort("10.0.0.1:4000"), addrPort("10.0.0.2:9"), 1, payload)[:14+20+8+len(payload)]
		frame[38], frame[39] = byte(length>>8), byte(length)
		var got packet
		result := New(Default(), Deps{}, nil).decoder.decodeFrame(&got, layers.LinkTypeEthernet, frame[:len(frame)-cut], len(frame))
		if result != want || got.Size != size {
			t.Errorf("length %d, %d bytes cut: %s of %d", length, cut, resultNames[result], got.Size)
		}
	}
	check("", 0, 8, resUDP, 0)
	check("", 1, 8, resTruncated, 0)
	check("", 0, 7, resMalformed, 0)
	check("abc", 0, 11, resUDP, 3)
	check("abc", 0, 10, resUDP, 2)
	check("abc", 0, 12, resUDP, 3)
	check("abc", 2, 11, resUDP, 3)
	check("abc", 0, 0, resUDP, 3)

	// An authentication header of IPv4, whose length is in units of four bytes.
	ah := func(size int, payload string) []byte {
		ip := "\x45\x00\x00" + string([]byte{byte(20 + size + len(payload))}) + "\x00\x00\x00\x00\x09\x33\x00\x00\x01\x01\x01\x01\x02\x02\x02\x02"
		return []byte(ip + "\xfd" + string([]byte{byte((size - 8) / 4)}) + strings.Repeat("\x00", size-2) + payload)
	}
	for data, want := range map[string]result{
		string(ah(12, "")): resOtherProtocol, string(ah(12, "x")): resOtherProtocol, string(ah(12, "")[:31]): resTruncated, string(ah(8, "")[:27]): resTruncated,
	} {
		var got packet
		if result := New(Default(), Deps{Tunnels: EveryTunnel}, nil).decoder.decodeFrame(&got, layers.LinkTypeRaw, []byte(data), 64); result != want {
			t.Errorf("an authentication header in %d bytes: %s", len(data), resultNames[result])
		}
	}

	// Frame Relay: the address has two to four bytes, the last one odd.
	for text, want := range map[string]result{
		"\x18\x41\x03\xcc": resTruncated, "\x18\x40\x41\x03\xcc": resTruncated, "\x18\x40\x40\x41\x03\xcc": resTruncated, "\x18\x40\x40\x40\x41\x03\xcc": resTruncated,
		"\x19\x03\xcc": resTruncated, "\x18\x41\x03\xcd": resNotIP, "\x18\x41\x03\x00\xcd": resNotIP, "\x18\x41\x03": resTruncated, "\x18\x41\x03\x00": resTruncated,
		"\x18\x40\x40\x41\x03\xcd": resNotIP, "\x18\x40\x40\x40\x41\xcd": resTruncated, "\x18\x41\x03\xcc\x15": resMalformed,
	} {
		var got packet
		if result := New(Default(), Deps{}, nil).decoder.decodeFrame(&got, linkFrames, []byte(text), len(text)); result != want {
			t.Errorf("Frame Relay %x: %s, want %s", text, resultNames[result], resultNames[want])
		}
	}
}

// openTCP returns the only flow of a connection that is established.
func openTCP(t *testing.T, cfg Config, deps Deps) (*tableTest, *flow) {
	test := newTableTest(t, cfg, deps).handshake()
	if len(test.timers) != 1 {
		t.Fatalf("%d flows", len(test.timers))
	}
	return test, test.timers[0]
}

// TestFlowIsDueAtItsEarliestTimer; a time that is later is looked at when the earlier one comes.
func TestFlowIsDueAtItsEarliestTimer(t *testing.T) {
	_, f := openTCP(t, Default(), Deps{})
	now := f.table.clock.now
	check := func(what string, want int64, change func()) {
		t.Helper()
		f.due, f.tickDue, f.openDue, f.outbox.events, f.lastSeen = now+1e15, now+1e14, 0, nil, now
		change()
		if f.schedule(); f.due-now != want {
			t.Errorf("%s: due in %d ns, want %d", what, f.due-now, want)
		}
	}
	idle := int64(Default().TCPIdleTimeout)
	check("idle", idle, func() {})
	check("a tick", 5e9, func() { f.tickDue = now + 5e9 })
	check("no parser", idle, func() { f.tickDue = now + 5e9; f.conn = nil })
	check("an event at an interval", 7e9, func() { f.openDue = now + 7e9 })
	check("events that wait", 3e9, func() { f.outbox.events, f.outbox.retryAt = []*pipeline.Event{nil}, now+3e9 })
	check("overdue", 1, func() { f.openDue = now - 5 })
	check("due earlier already", 2e9, func() { f.due, f.openDue = now+2e9, now+7e9 })
	check("due now", 7e9, func() { f.due, f.openDue = now, now+7e9 })
	f.outbox.events = nil

	if f.tickEvery() != 5e9 {
		t.Errorf("a parser of TCP is ticked every %d ns", f.tickEvery())
	}
	f.key.proto = protoUDP
	if f.tickEvery() != 1e9 {
		t.Errorf("a parser of UDP is ticked every %d ns", f.tickEvery())
	}
}

// TestParserIsTickedAtItsInterval, as long as the flow is open.
func TestParserIsTickedAtItsInterval(t *testing.T) {
	test, f := openTCP(t, Default(), Deps{})
	for second := 1; second <= 21; second++ {
		test.Tick(startTime + int64(second)*1e9)
		want := int64(5e9)*int64(1+second/5) + 1
		if late := f.tickDue - want; late < 0 || late > 2e9 {
			t.Errorf("after %d s the next tick is due at %d, want %d", second, f.tickDue, want)
		}
	}
}

// TestConnectionIsOverWhenItIsQuiet for the time of its state.
func TestConnectionIsOverWhenItIsQuiet(t *testing.T) {
	cfg := Default()
	check := func(what string, want time.Duration, play func(test *tableTest)) {
		t.Helper()
		test := newTableTest(t, cfg, Deps{})
		play(test)
		f := test.timers[0]
		if got := f.endTime() - f.lastSeen; got != int64(want) {
			t.Errorf("%s: over after %v, want %v", what, time.Duration(got), want)
		}
		f.dedup.foreign = true
		if got := f.endTime() - f.quietTime(); got != 2*int64(cfg.NATTimeout) {
			t.Errorf("%s: a foreign one stays %v longer", what, time.Duration(got))
		}
	}
	check("a SYN", cfg.SYNTimeout, func(test *tableTest) { test.segment(">", "S", 0, 0, "") })
	check("established", cfg.TCPIdleTimeout, func(test *tableTest) { test.handshake() })
	check("reset", cfg.CloseLinger, func(test *tableTest) { test.handshake().segment(">", "RA", 0, 0, "") })
	check("a reset in doubt", cfg.SYNTimeout, func(test *tableTest) { test.handshake().segment(">", "RA", 500, 0, "") })
	check("a datagram", cfg.UDPIdleTimeout, func(test *tableTest) {
		frame := udpFrame(t, addrPort("10.0.0.1:4000"), addrPort("10.0.0.2:53"), 1, "ask")
		test.Packet("eth0", layers.LinkTypeEthernet, startTime, frame, len(frame))
	})
}

// TestEndOfAConnectionHasAName: RFC 9293 for FIN and RST; without an answer there is none.
func TestEndOfAConnectionHasAName(t *testing.T) {
	check := func(want string, play func(test *tableTest)) {
		t.Helper()
		test := newTableTest(t, Default(), Deps{})
		play(test)
		if got := test.timers[0].closedState(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	check(stateFIN, func(test *tableTest) { test.handshake().closeOrderly(0, 0) })
	check(stateFIN, func(test *tableTest) { test.handshake().closeOrderly(0, 0).segment(">", "R", 1, 0, "") })
	check(stateRefused, func(test *tableTest) { test.segment(">", "S", 0, 0, ""); test.segment("<", "RA", -5001, 0, "") })
	check(stateResetClient, func(test *tableTest) { test.handshake().segment(">", "RA", 0, 0, "") })
	check(stateResetServer, func(test *tableTest) { test.handshake().segment("<", "RA", 0, 0, "") })
	check(stateNoAnswer, func(test *tableTest) { test.segment(">", "S", 0, 0, "") })
	check(stateTimeout, func(test *tableTest) { test.handshake() })
	check(stateTimeout, func(test *tableTest) { test.segment(">", "A", 0, 0, "abc") }) // the beginning was not seen
	datagram := func(test *tableTest, src, dst string) {
		frame := udpFrame(t, addrPort(src), addrPort(dst), 1, "ask")
		test.Packet("eth0", layers.LinkTypeEthernet, startTime, frame, len(frame))
	}
	check(stateNoAnswer, func(test *tableTest) { datagram(test, "10.0.0.1:4000", "10.0.0.2:53") })
	check(stateTimeout, func(test *tableTest) {
		datagram(test, "10.0.0.1:4000", "10.0.0.2:53")
		datagram(test, "10.0.0.2:53", "10.0.0.1:4000")
	})
}

// TestFlowIsReplacedByTheNextConnection with its ports, and leaves nothing in the Table.
func TestFlowIsReplacedByTheNextConnection(t *testing.T) {
	check := func(what string, sessions int, play func(test *tableTest)) {
		t.Helper()
		test := newTableTest(t, Default(), Deps{})
		play(test)
		if len(test.timers) != 1 || len(test.flows) != 1 || test.flows[test.timers[0].key] != test.timers[0] || test.timers[0].dead {
			t.Errorf("%s: %d flows, %d in the heap", what, len(test.flows), len(test.timers))
		}
		if events := test.closeSessions(); len(events) != sessions {
			t.Errorf("%s: %d sessions, want %d", what, len(events), sessions)
		}
	}
	again := func(test *tableTest) *tableTest {
		test.isn = [2]uint32{900_000, 800_000}
		return test
	}
	check("a repeated SYN", 1, func(test *tableTest) { test.segment(">", "S", 0, 0, ""); test.segment(">", "S", 0, 0, "") })
	check("a SYN behind one that was not answered", 2, func(test *tableTest) {
		test.segment(">", "S", 0, 0, "")
		again(test).segment(">", "S", 0, 0, "")
	})
	check("a SYN behind the end", 2, func(test *tableTest) {
		test.handshake().closeOrderly(0, 0)
		again(test).handshake()
	})
	check("a SYN that is answered on an open connection", 2, func(test *tableTest) {
		test.handshake()
		again(test).segment(">", "S", 0, 0, "")
		test.segment("<", "SA", 0, 0, "")
	})
	check("a SYN whose sender goes on on an open connection", 2, func(test *tableTest) {
		test.handshake()
		again(test).segment(">", "S", 0, 0, "")
		test.segment(">", "A", 0, 0, "")
	})
	check("a SYN that nobody answers on an open connection", 1, func(test *tableTest) {
		test.handshake()
		again(test).segment(">", "S", 0, 0, "")
		test.isn = [2]uint32{1000, 5000}
		test.segment(">", "A", 0, 0, "abc")
	})
	dead := func(test *tableTest) {
		test.handshake()
		test.Tick(startTime + int64(Default().TCPIdleTimeout) + 2e9)
		test.setTime(Default().TCPIdleTimeout + 3*time.Second)
	}
	check("bytes behind the time-out", 2, func(test *tableTest) { dead(test); test.segment(">", "A", 0, 0, "abc") })
	check("a SYN-ACK of another connection behind the end", 2, func(test *tableTest) {
		test.handshake().closeOrderly(0, 0)
		test.Tick(startTime + int64(Default().CloseLinger) + 2e9)
		test.setTime(Default().CloseLinger + 3*time.Second)
		again(test).segment("<", "SA", 0, 0, "")
	})
	check("a datagram behind the time-out", 2, func(test *tableTest) {
		frame := udpFrame(t, addrPort("10.0.0.1:4000"), addrPort("10.0.0.2:53"), 1, "ask")
		test.Packet("eth0", layers.LinkTypeEthernet, startTime, frame, len(frame))
		later := startTime + int64(Default().UDPIdleTimeout)
		test.Tick(later + 2e9)
		test.Packet("eth0", layers.LinkTypeEthernet, later+3e9, frame, len(frame))
	})
}

// TestLatePacketsKeepADeadFlow until the next repetition is due, which doubles its interval, up to a bound.
func TestLatePacketsKeepADeadFlow(t *testing.T) {
	test, f := openTCP(t, Default(), Deps{})
	test.finishFlow(f, stateTimeout)
	if f.due != f.table.clock.now+timeWait {
		t.Errorf("a dead flow stays for %d ns", f.due-f.table.clock.now)
	}
	for _, idle := range []int64{0, 1e9, 7e9, 49e9, 51e9, 500e9} {
		f.lastSeen = test.clock.now
		test.clock.now += idle
		f.handleLate()
		if want := timeWait + min(3*idle, 150e9); f.due-test.clock.now != want || f.lastSeen != test.clock.now {
			t.Errorf("%d s behind the last packet: it stays for %d ns, want %d", idle/1e9, f.due-test.clock.now, want)
		}
	}
}

// TestCountersAreFlushedAtAnInterval of packets, and with the time; the progress of the Table is published.
func TestCountersAreFlushedAtAnInterval(t *testing.T) {
	reg := prometheus.NewRegistry()
	table := New(Default(), Deps{}, reg)
	counted := func() (sum float64) {
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range families {
			if family.GetName() == "tidegate_sessions_packets_total" {
				for _, metric := range family.Metric {
					sum += metric.Counter.GetValue()
				}
			}
		}
		return sum
	}
	frame := make([]byte, 60)
	for i := range flushEvery {
		if i == flushEvery-1 && counted() != 0 {
			t.Error("the counters are flushed early")
		}
		table.Packet("eth0", layers.LinkTypeEthernet, startTime+int64(i), frame, len(frame))
	}
	if got := counted(); got != flushEvery {
		t.Errorf("%v packets are counted, want %d", got, flushEvery)
	}
	table.Packet("eth0", layers.LinkTypeEthernet, startTime+2*publishEvery, frame, len(frame))
	if got := table.progress.Load(); got != startTime+2*publishEvery {
		t.Errorf("a packet: the progress is %d", got-startTime)
	}
	table.Tick(startTime + 5*publishEvery)
	if got := table.progress.Load(); got != startTime+5*publishEvery || counted() != flushEvery+1 {
		t.Errorf("a tick: the progress is %d, %v packets are counted", got-startTime, counted())
	}
	table.Tick(startTime + 5*publishEvery + 1)
	if got := table.progress.Load(); got != startTime+5*publishEvery {
		t.Errorf("a tick soon behind: the progress is %d", got-startTime)
	}
	table.Close()
	table.Packet("eth0", layers.LinkTypeEthernet, startTime+1e9, frame, len(frame))
	if table.Tick(startTime + 2e9); counted() != flushEvery+1 {
		t.Errorf("a closed Table counts %v packets", counted())
	}
}

// TestCopiesOfDeliveredBytesTakeAPartOfTheBudget.
func TestCopiesOfDeliveredBytesTakeAPartOfTheBudget(t *testing.T) {
	for limit, want := range map[int64]int{1 << 20: 128 << 10, 8 << 20: 128 << 10, 16 << 20: 256 << 10, 32 << 20: 512 << 10, 1 << 40: 512 << 10} {
		if got := deliveredBytes(memory.New(limit, nil)); got != want {
			t.Errorf("a budget of %d: %d, want %d", limit, got, want)
		}
	}
	if got := deliveredBytes(nil); got != 512<<10 {
		t.Errorf("no budget: %d", got)
	}
}

// TestEachPartGivesUpWhatAnotherOneNeeds, between packets too: incomplete datagrams, and events that wait.
func TestEachPartGivesUpWhatAnotherOneNeeds(t *testing.T) {
	budget := memory.New(8<<20, nil)
	test := newTableTest(t, Default(), Deps{Memory: budget})
	for i := range 2000 {
		parts := fragments(t, udpFrame(t, addrPort("10.0.0.1:4000"), addrPort("10.0.0.2:53"), uint16(i), strings.Repeat("x", 1000)), 800)
		test.Packet("eth0", layers.LinkTypeEthernet, startTime, parts[0], len(parts[0]))
	}
	held := test.decoder.frags.cost
	if held < 1<<20 {
		t.Fatalf("%d bytes of fragments are held", held)
	}
	other := budget.OpenFixed("another part")
	other.Add(16 << 20)
	if test.Tick(startTime + 1); test.decoder.frags.cost > 512<<10 { // a sixteenth of the budget is left to each part
		t.Errorf("%d of %d bytes of fragments are held beyond the budget", test.decoder.frags.cost, held)
	}
	other.Add(-16 << 20)

	// Outside of a bridge the events of a connection wait for its mapping.
	nat := fakeNAT{}
	test = newTableTest(t, configWith(func(c *Config) { c.NATTimeout = time.Hour }), Deps{
		Memory: budget, NAT: nat, Bridge: func(string) bool { return false }, Containers: unknownContainers{},
	})
	test.handshake()
	for i := range 1000 {
		test.segment(">", "A", 3*i, 0, "ask")
	}
	if len(test.events) != 0 || test.outboxEvents < 1000 {
		t.Fatalf("%d events wait, %d are emitted", test.outboxEvents, len(test.events))
	}
	other.Add(16 << 20)
	if test.Tick(startTime + int64(test.now)); test.outboxEvents != 0 || test.outboxes.Used() != 0 {
		t.Errorf("%d events wait beyond the budget, %d bytes", test.outboxEvents, test.outboxes.Used())
	}
}

// unknownContainers resolve no address for certain.
type unknownContainers struct{}

func (unknownContainers) Resolve(netip.Addr, int64) (*pipeline.Container, bool) { return nil, false }

// TestCompleteDatagramLeavesItsParts, although its place in the queue is freed later.
func TestCompleteDatagramLeavesItsParts(t *testing.T) {
	test := newTableTest(t, Default(), Deps{})
	parts := fragments(t, udpFrame(t, addrPort("10.0.0.1:4000"), addrPort("10.0.0.2:53"), 7, strings.Repeat("x", 100)), 64)
	frags := &test.decoder.frags
	for i, part := range parts {
		test.Packet("eth0", layers.LinkTypeEthernet, startTime, part, len(part))
		if i == 0 && (len(frags.queue) != 1 || len(frags.queue[0].parts) != 1 || frags.queue[0].received != 64) {
			t.Fatalf("%d datagrams wait", len(frags.queue))
		}
	}
	if left := frags.queue[0]; left.parts != nil || left.received != 0 || left.cost != 0 || left.due != 0 || frags.cost != 0 || len(frags.datagrams) != 0 || len(frags.complete) != 0 {
		t.Errorf("%+v is left, %d bytes", left, frags.cost)
	}
}

// TestOwnerOfTheDestinationTakesTheFrame, and the host forwards what is sent to one of its addresses.
func TestOwnerOfTheDestinationTakesTheFrame(t *testing.T) {
	const host, other, mac = 1, 2, 3
	containers := someContainers{addrPort("10.0.0.1:0").Addr(): {}, addrPort("10.0.0.2:0").Addr(): {}}
	senders := macOwners{addrPort("10.0.0.2:0").Addr(): mac}
	isHost := func(m uint64) bool { return m == host }
	check := func(what string, deps Deps, src, dst string, to uint64, want receiverResult) {
		t.Helper()
		p := &packet{src: addrOf(netip.MustParseAddr(src)), dst: addrOf(netip.MustParseAddr(dst))}
		if got := New(Default(), deps, nil).lookUpReceiver(p, to); got != want {
			t.Errorf("%s: %d, want %d", what, got, want)
		}
	}
	all := Deps{Containers: containers, Senders: senders, IsHostMAC: isHost}
	check("a container", all, "10.0.0.1", "10.0.0.2", mac, receiverTakes)
	check("a container with the address of another", all, "10.0.0.1", "10.0.0.2", other, receiverOther)
	check("the host", all, "10.0.0.1", "10.0.0.2", host, receiverTakes)
	check("an address outside by way of the host", all, "10.0.0.1", "8.8.8.8", host, receiverTakes)
	check("an address outside by another way", all, "10.0.0.1", "8.8.8.8", other, receiverUnknown)
	check("between addresses outside", all, "9.9.9.9", "8.8.8.8", other, receiverTakes)
	check("no containers are known", Deps{Senders: senders, IsHostMAC: isHost}, "10.0.0.1", "8.8.8.8", other, receiverTakes)
	check("the host is not known", Deps{Containers: containers, Senders: senders}, "10.0.0.1", "8.8.8.8", other, receiverTakes)
}

type someContainers map[netip.Addr]*pipeline.Container

func (c someContainers) Resolve(ip netip.Addr, _ int64) (*pipeline.Container, bool) {
	return c[ip], true
}

type macOwners map[netip.Addr]uint64

func (o macOwners) CheckSender(ip netip.Addr, mac uint64, _ int64) (*pipeline.Container, bool) {
	owner, ok := o[ip]
	return nil, ok && owner != mac
}

// TestClaimBehindNATMayHaveItsEndsExchanged.
func TestClaimBehindNATMayHaveItsEndsExchanged(t *testing.T) {
	inside, outside := [2]string{"172.17.0.9:1000", "172.17.0.2:80"}, [2]string{"10.0.0.9:2000", "10.0.0.1:8080"}
	for _, ends := range [][2]string{{"172.17.0.9:1000", "172.17.0.2:80"}, {"172.17.0.2:1000", "172.17.0.9:80"}} {
		inside = ends
		f := &flow{}
		client, server := addrPort(inside[0]), addrPort(inside[1])
		p := packet{src: addrOf(client.Addr()), dst: addrOf(server.Addr()), sport: client.Port(), dport: server.Port(), proto: protoTCP}
		f.key, f.clientSide = p.flowKey()
		far := newClaimKey(protoTCP, addrPort(outside[0]), addrPort(outside[1]))
		if f.isReversed(far) {
			t.Error("a key is reversed whose mapping is not known")
		}
		f.nat = natState{known: true, mapping: newMapping(inside[0], inside[1], outside[0], outside[1])}
		clientFirst := far.a == addrOf(addrPort(outside[0]).Addr())
		if got, want := f.isReversed(far), clientFirst != (f.clientSide == 0); got != want {
			t.Errorf("%v: reversed is %t", ends, got)
		}
		if f.isReversed(f.ownKey()) {
			t.Error("its own key is reversed")
		}
	}
}

// TestAddressesBehindNATAreBothInTheEvent, for the ends that are translated.
func TestAddressesBehindNATAreBothInTheEvent(t *testing.T) {
	end := func(text string) *pipeline.Endpoint {
		address := addrPort(text)
		return &pipeline.Endpoint{Ip: appendIP(nil, address.Addr()), Port: uint32(address.Port())}
	}
	text := func(e *pipeline.Endpoint) string {
		if e == nil {
			return "none"
		}
		ip, _ := netip.AddrFromSlice(e.Ip)
		out := fmt.Sprint(ip, " ", e.Port)
		if nat, ok := netip.AddrFromSlice(e.NatIp); ok {
			out += fmt.Sprint(" nat ", nat, " ", e.NatPort)
		}
		return out
	}
	check := func(what string, mapping Mapping, source, destination *pipeline.Endpoint, wantSource, wantDestination string, changed bool) {
		t.Helper()
		f := &flow{nat: natState{known: true, mapping: mapping}}
		f.key.proto = protoTCP
		event := &pipeline.Event{Source: source, Destination: destination, CommunityId: []byte("before")}
		f.translateNAT(event)
		if text(event.Source) != wantSource || text(event.Destination) != wantDestination || (string(event.CommunityId) != "before") != changed {
			t.Errorf("%s: from %s to %s, changed %t", what, text(event.Source), text(event.Destination), string(event.CommunityId) != "before")
		}
		id := pipeline.CommunityID(pipeline.Transport_TCP, mapping.Client, mapping.Server)
		if changed && string(event.CommunityId) != string(id[:]) {
			t.Errorf("%s: the community ID is not that of the addresses in the event", what)
		}
	}
	snat := newMapping("172.17.0.2:1000", "8.8.8.8:53", "10.0.0.1:2000", "8.8.8.8:53")
	const in, out = "172.17.0.2 1000 nat 10.0.0.1 2000", "8.8.8.8 53"
	check("seen inside", snat, end("172.17.0.2:1000"), end("8.8.8.8:53"), in, out, false)
	check("seen outside", snat, end("10.0.0.1:2000"), end("8.8.8.8:53"), in, out, true)
	check("the server sends", snat, end("8.8.8.8:53"), end("10.0.0.1:2000"), out, in, true)
	check("other addresses", snat, end("9.9.9.9:9"), end("10.0.0.1:2001"), "9.9.9.9 9", "10.0.0.1 2001", false)
	check("no source", snat, nil, end("10.0.0.1:2000"), "none", in, true)
	check("no address", snat, &pipeline.Endpoint{}, end("10.0.0.1:2000"), text(&pipeline.Endpoint{}), in, true)
	dnat := newMapping("9.9.9.9:7", "172.17.0.2:80", "9.9.9.9:7", "10.0.0.1:8080")
	check("a published port", dnat, end("9.9.9.9:7"), end("10.0.0.1:8080"), "9.9.9.9 7", "172.17.0.2 80 nat 10.0.0.1 8080", true)
	check("nothing is translated", newMapping("1.1.1.1:1", "2.2.2.2:2", "1.1.1.1:1", "2.2.2.2:2"), end("1.1.1.1:1"), end("2.2.2.2:2"), "1.1.1.1 1", "2.2.2.2 2", false)
}

// TestOtherFlowIsClassifiedByWhatItHasSeen since the first payload of this one.
func TestOtherFlowIsClassifiedByWhatItHasSeen(t *testing.T) {
	check := func(what string, seen [2]int64, prints [2]uint32, want copyState) {
		t.Helper()
		owner := claimantOf(7, 0, 0, 0)
		owner.activity.seen[0].Store(seen[0])
		owner.activity.seen[1].Store(seen[1])
		f := &flow{table: &Table{}, activity: &activity{}, stream: &reassembly.Conn{}}
		f.key.proto = protoUDP
		f.dedup.payloadSince = 100
		f.dedup.numPrints[0][0], f.dedup.numPrints[1][0] = prints[0], prints[1]
		if got := f.classifyOther(reporter{owner: 7, activity: owner.activity}); got != want {
			t.Errorf("%s: %d, want %d", what, got, want)
		}
	}
	check("nothing", [2]int64{}, [2]uint32{1, 1}, copyStale)
	check("nothing since then", [2]int64{100, 100}, [2]uint32{1, 1}, copyStale)
	check("packets of an end that this one has payload of", [2]int64{101, 0}, [2]uint32{1, 0}, copyDiffers)
	check("packets of the end that this one has no payload of", [2]int64{0, 101}, [2]uint32{1, 0}, copyHalf)
	check("packets of both ends", [2]int64{101, 101}, [2]uint32{0, 1}, copyDiffers)
}

// TestUnreportedBytesOfADuplicateAreCounted, if its reporter could have seen them by now and has not.
func TestUnreportedBytesOfADuplicateAreCounted(t *testing.T) {
	const since = int64(1e12)
	check := func(what string, dropped uint64, seen, progress int64, want float64) {
		t.Helper()
		table := New(Default(), Deps{}, prometheus.NewRegistry())
		other := &activity{progress: &atomic.Int64{}}
		other.owner.Store(7)
		other.seen[1].Store(seen)
		other.progress.Store(progress)
		f := &flow{table: table}
		f.key.proto = protoUDP
		f.dedup.reporter = reporter{owner: 7, activity: other}
		f.dedup.unseenSince[1], f.dedup.droppedBytes[1] = since, dropped
		f.countUnreported()
		if got := testutil.ToFloat64(table.metrics.unreportedBytes); got != want {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	check("none", 0, 0, since+copyDelay, 0)
	check("not seen", 5, 0, since+copyDelay, 5)
	check("not seen, but the other Table is behind", 5, 0, since+copyDelay-1, 0)
	check("seen", 5, since-copyDelay, since+copyDelay, 0)
	check("seen before", 5, since-copyDelay-1, since+copyDelay, 5)
}

// TestDecisionAboutATunnelIsKeptForAWhile, for one outer header.
func TestDecisionAboutATunnelIsKeptForAWhile(t *testing.T) {
	asked, opens := 0, true
	deps := Deps{Tunnels: tunnelsFunc(func(string, links.OuterHeader) bool { asked++; return opens })}
	table := New(Default(), deps, nil)
	p := &packet{iface: table.ifaceIndex("eth0"), src: addr{0, 1}, dst: addr{0, 2}, sport: 3, dport: 4, proto: protoUDP, clock: 1000}
	check := func(what string, want bool, times int, change func()) {
		t.Helper()
		change()
		asked, p.unopened = 0, links.NoEncapsulation
		if got := table.decoder.opens(p, links.VXLAN, 7, 0); got != want || asked != times || (p.unopened == links.VXLAN) == want {
			t.Errorf("%s: opens %t, asked %d times, unopened %d", what, got, asked, p.unopened)
		}
	}
	check("the first packet", true, 1, func() {})
	check("the next packet", true, 0, func() { opens = false })
	check("the last one of its time", true, 0, func() { p.clock = 1000 + decisionAge - 1 })
	check("a later one", false, 1, func() { p.clock = 1000 + decisionAge })
	check("the next one", false, 0, func() { opens = true })
	for what, change := range map[string]func(){
		"another source": func() { p.src.lo++ }, "another destination": func() { p.dst.hi++ }, "another port": func() { p.sport++ },
		"another destination port": func() { p.dport++ }, "another tunnel around it": func() { p.tunnel.key++ }, "another interface": func() { p.iface = table.ifaceIndex("eth1") },
	} {
		check(what, true, 1, change)
	}
}

type tunnelsFunc func(iface string, outer links.OuterHeader) bool

func (f tunnelsFunc) IsKnown(iface string, outer links.OuterHeader) bool { return f(iface, outer) }
