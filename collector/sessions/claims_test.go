package sessions

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/gopacket/layers"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tidegate/collector/reassembly"
	"tidegate/pipeline"
	"tidegate/protocols"
)

// TestFlowHoldsItsClaimsUntilItReleasesThem, two at most.
func TestFlowHoldsItsClaimsUntilItReleasesThem(t *testing.T) {
	_, f := openTCP(t, Default(), Deps{})
	own := f.ownKey()
	if held := f.dedup.heldClaims(); len(held) != 1 || held[0] != own {
		t.Fatalf("%v", held)
	}
	keys := []claimKey{{tunnel: 1}, {tunnel: 2}}
	for i, want := range []int{2, 2} {
		f.tryClaim(keys[i], false)
		f.tryClaim(keys[i], false)
		if len(f.dedup.heldClaims()) != want {
			t.Errorf("%d claims are held behind %d more", len(f.dedup.heldClaims()), i+1)
		}
	}
	f.releaseClaims()
	if len(f.dedup.heldClaims()) != 0 || f.table.dedup.claimIfaces(own, f.id) != [4]uint16{} || f.table.dedup.claimIfaces(keys[0], f.id) != [4]uint16{} {
		t.Errorf("%v are held", f.dedup.heldClaims())
	}
}

// TestDecisionIsCountedIfEventsWaitedForIt.
func TestDecisionIsCountedIfEventsWaitedForIt(t *testing.T) {
	table := New(Default(), Deps{}, prometheus.NewRegistry())
	f := newFlow(table)
	count := func() float64 {
		sum := 0.0
		for _, why := range decisions {
			sum += testutil.ToFloat64(table.metrics.pendingSessions[why])
		}
		return sum
	}
	if f.countDecision(decidedByEnd); count() != 0 {
		t.Errorf("%v without an event", count())
	}
	f.outbox.events = []*pipeline.Event{{}}
	f.countDecision(decidedByEnd)
	if got := testutil.ToFloat64(table.metrics.pendingSessions[decidedByEnd]); got != 1 || count() != 1 {
		t.Errorf("%v with one, %v of all", got, count())
	}
	event := &pipeline.Event{Tags: []string{"a tag"}}
	if got := bytesOf(event); got != protocols.EventBytes+event.SizeVT() || event.SizeVT() < 5 {
		t.Errorf("an event takes %d bytes", got)
	}
}

// TestDuplicateIsLookedAtWhenItsConnectionEnds: its timers are then earlier.
func TestDuplicateIsLookedAtWhenItsConnectionEnds(t *testing.T) {
	check := func(what string, scheduled bool, flags ...uint8) {
		t.Helper()
		_, f := openTCP(t, Default(), Deps{})
		f.dedup.state = duplicate
		f.stream.Init(&f.table.streamConfig, f.table.pool, f)
		late := f.table.clock.now + int64(Default().TCPIdleTimeout)
		for i, flag := range flags {
			f.due = late
			f.followDuplicate(&packet{Segment: reassembly.Segment{Flags: flag}}, reassembly.Dir(i))
		}
		if (f.due != late) != scheduled {
			t.Errorf("%s: looked at after %d ns", what, f.due-f.table.clock.now)
		}
	}
	check("bytes", false, reassembly.ACK)
	check("a RST", true, reassembly.RST)
	check("a FIN", false, reassembly.FIN|reassembly.ACK)
	check("two FINs", true, reassembly.FIN|reassembly.ACK, reassembly.FIN|reassembly.ACK)
}

// TestRemovedFlowsAreKeptForReuse up to a bound, with what they are charged.
func TestRemovedFlowsAreKeptForReuse(t *testing.T) {
	table := New(Default(), Deps{}, prometheus.NewRegistry())
	for i := range maxFreeFlows + 2 {
		f := newFlow(table)
		f.key.iface = uint16(i)
		f.stream.Init(&table.streamConfig, table.pool, f)
		table.flows[f.key] = f
		table.timers.insertFlow(f)
		if table.removeFlow(f, dropClaims); len(table.free) != min(i+1, maxFreeFlows) || len(table.flows) != 0 || len(table.timers) != 0 {
			t.Fatalf("%d flows are kept of %d", len(table.free), i+1)
		}
	}
	test, f := openTCP(t, Default(), Deps{})
	test.finishFlow(f, stateTimeout)
	before := testutil.ToFloat64(test.metrics.segmentsLate)
	if f.handleLate(); testutil.ToFloat64(test.metrics.segmentsLate) != before+1 {
		t.Error("a late segment is not counted")
	}
}

// TestLongestDeliveryHasAPrintOfItsFront.
func TestLongestDeliveryHasAPrintOfItsFront(t *testing.T) {
	_, f := openTCP(t, Default(), Deps{})
	f.publishDelivered(1, bytes.Repeat([]byte("x"), maxPrinted+100))
	if got := payloadPrint(f.activity.prints[1].list[0].Load()); got.length() != maxPrinted {
		t.Errorf("a print of %d bytes", got.length())
	}
}

// TestHopByHopOptionsAreFirst: Linux drops a packet that has them further on.
func TestHopByHopOptionsAreFirst(t *testing.T) {
	hop, destination := []byte{protoHopByHop, 0, 1, 4, 0, 0, 0, 0}, []byte{protoDestOpts, 0, 1, 4, 0, 0, 0, 0}
	frame := udpFrame(t, addrPort("[fd00::1]:4000"), addrPort("[fd00::2]:53"), 1, "ask")
	for _, headers := range [][][]byte{{hop}, {hop, destination}, {destination}, {destination, hop}, {hop, hop}} {
		var got packet
		data := withHeaders(frame, headers...)
		result := New(Default(), Deps{}, nil).decoder.decodeFrame(&got, layers.LinkTypeEthernet, data, len(data))
		want := len(headers) == 2 && headers[1][0] == hop[0] && &headers[1][0] == &hop[0]
		if result != resUDP || got.refused != want || got.Doubtful != want {
			t.Errorf("%v: %s, refused %t, want %t", headers, resultNames[result], got.refused, want)
		}
	}
}

// TestConnectionOutsideOfItsBridgeIsForeign, if both of its ends are, and no tunnel is around it.
func TestConnectionOutsideOfItsBridgeIsForeign(t *testing.T) {
	outside := func(inside ...string) func(string, netip.Addr) bool {
		return func(bridge string, ip netip.Addr) bool {
			return bridge == "docker0" && !slices.Contains(inside, ip.String())
		}
	}
	check := func(what, iface string, isOutside func(string, netip.Addr) bool, foreign, onBridge bool, state dedupState) {
		t.Helper()
		deps := Deps{Bridge: func(name string) bool { return name == "docker0" }, IsOutsideBridge: isOutside}
		test := newTableTest(t, Default(), deps)
		test.segmentOn(iface, "10.0.0.1:40000", "10.0.0.2:80", ">", "S", 0, 0, "")
		f := test.timers[0]
		if f.dedup.foreign != foreign || f.dedup.onBridge != onBridge || f.dedup.state != state {
			t.Errorf("%s: foreign %t, on a bridge %t, state %d", what, f.dedup.foreign, f.dedup.onBridge, f.dedup.state)
		}
		around := tunnel{kind: 1}
		f.releaseClaims()
		f.tunnel, f.dedup = &around, dedup{}
		if iface == "docker0" {
			if f.claimFirst(); f.dedup.foreign || !f.dedup.onBridge {
				t.Errorf("%s, in a tunnel: foreign %t", what, f.dedup.foreign)
			}
		}
	}
	check("both ends", "docker0", outside(), true, false, pending)
	check("the server", "docker0", outside("10.0.0.1"), false, true, primary)
	check("the client", "docker0", outside("10.0.0.2"), false, true, primary)
	check("not known", "docker0", nil, false, true, primary)
	check("no bridge", "eth0", outside(), false, false, pending)
}

// TestEndOfAParserIsNoted: the protocol, and whether it has exchanged the sides.
func TestEndOfAParserIsNoted(t *testing.T) {
	for _, flips := range []bool{false, true} {
		test, f := openTCP(t, Default(), Deps{})
		test.segment(">", "A", 0, 0, "ask")
		if flips {
			f.conn.Flip()
		}
		f.stats.protocol = ""
		if f.closeProtocol(); f.stats.protocol != "tape" || f.stats.flipped != flips || f.conn != nil {
			t.Errorf("protocol %q, exchanged %t", f.stats.protocol, f.stats.flipped)
		}
		f.closeProtocol()
		for dir, letter := range []string{"C", "c"} {
			before := testutil.ToFloat64(test.metrics.segmentsChecksum)
			f.marks = 0
			f.markChecksum(reassembly.Dir(dir))
			if !strings.HasSuffix(f.stats.history.historyText(false), letter) || f.marks != markChecksum || testutil.ToFloat64(test.metrics.segmentsChecksum) != before+1 {
				t.Errorf("a wrong checksum of side %d: %s, %b", dir, f.stats.history.historyText(false), f.marks)
			}
		}
	}
}
