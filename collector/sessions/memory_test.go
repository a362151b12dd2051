package sessions

import (
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket/layers"

	"tidegate/pipeline"
	"tidegate/pipeline/memory"
)

const mebibyte = 1 << 20

// TestFloodsOfTheTableStayWithinTheBudget: half-open connections, gaps and incomplete datagrams are given up when the
// budget is exceeded, each by the part that has grown, and a connection with little of its own goes on.
func TestFloodsOfTheTableStayWithinTheBudget(t *testing.T) {
	const limit = 4 * mebibyte
	check := func(name string, flood func(b *tableTest, i int)) {
		t.Helper()
		budget := memory.New(limit, nil)
		b := newTableTest(t, Default(), Deps{Memory: budget})
		b.handshake()
		most := int64(0)
		for i := range 20_000 {
			flood(b, i)
			if i%100 == 0 { // an ordinary connection beside the flood
				b.segment(">", "A", i/100*3, i/100*3, "ask")
				b.segment("<", "A", i/100*3, i/100*3+3, "yes")
			}
			most = max(most, budget.Used())
		}
		if most < limit/2 || most > limit+mebibyte {
			t.Errorf("%s: at most %d bytes were charged, the limit is %d", name, most, limit)
		}
		if got := strings.Count(b.recorder.log.String(), ">ask <yes"); got < 150 {
			t.Errorf("%s: the ordinary connection has %d exchanges, want 200", name, got)
		}
		b.Close()
		if used := budget.Used(); used != 0 {
			t.Errorf("%s: %d bytes are charged when the Table is closed", name, used)
		}
	}
	client := func(i int) string { return fmt.Sprintf("10.1.%d.%d:%d", i>>8&255, i&255, 1024+i>>16) }
	check("half-open connections", func(b *tableTest, i int) {
		b.segmentOn("eth0", client(i), "10.0.0.3:81", ">", "S", 0, 0, "")
	})
	payload := strings.Repeat("x", 1400)
	check("gaps", func(b *tableTest, i int) {
		if i < 200 {
			b.segmentOn("eth0", client(i), "10.0.0.3:81", ">", "S", 0, 0, "")
			b.segmentOn("eth0", client(i), "10.0.0.3:81", "<", "SA", 0, 0, "")
		}
		// Time stands nearly still, so that no gap is given up for its age.
		b.segmentOn("eth0", client(i%200), "10.0.0.3:81", ">", "A", 10+i/200*1500, 0, payload)
		b.now -= 9 * time.Microsecond
	})
}

// TestIdleTableGivesUpWhatAnotherOneNeeds: a Table that no packets come to any more, but the time, leaves its memory to
// one that grows.
func TestIdleTableGivesUpWhatAnotherOneNeeds(t *testing.T) {
	const limit = 4 * mebibyte
	budget := memory.New(limit, nil)
	idle, busy := newTableTest(t, Default(), Deps{Memory: budget}), newTableTest(t, Default(), Deps{Memory: budget})
	client := func(i int) string { return fmt.Sprintf("10.1.%d.%d:%d", i>>8&255, i&255, 1024+i>>16) }
	flood := func(b *tableTest, count int, each func()) {
		for i := range count {
			b.segmentOn("eth0", client(i), "10.0.0.3:81", ">", "S", 0, 0, "")
			each()
		}
	}
	flood(idle, 20_000, func() {})
	if used := budget.Used(); used < limit/2 {
		t.Fatalf("only %d bytes are charged", used)
	}
	most, steps := int64(0), 0
	flood(busy, 20_000, func() {
		if steps++; steps%100 == 0 {
			idle.Tick(idle.clock.now)
		}
		most = max(most, budget.Used())
	})
	if most > limit+mebibyte/2 {
		t.Errorf("at most %d bytes were charged, the limit is %d", most, limit)
	}
	if len(busy.timers) < len(idle.timers)/2 {
		t.Errorf("the busy Table has %d connections, the idle one %d", len(busy.timers), len(idle.timers))
	}
}

// TestFragmentsReleaseTheirMemory: what complete, expired and invalid datagrams were charged is charged no more, so
// that their number does not use the budget up.
func TestFragmentsReleaseTheirMemory(t *testing.T) {
	const limit = 4 * mebibyte
	const most = 256 << 10 // what the account may hold back
	budget := memory.New(limit, nil)
	test := newTableTest(t, Default(), Deps{Memory: budget})
	send := func(parts ...[]byte) {
		for _, part := range parts {
			test.Packet("eth0", layers.LinkTypeEthernet, startTime+int64(test.now), part, len(part))
		}
	}
	datagram := func(from string, id int) [][]byte {
		return fragments(t, udpFrame(t, addrPort(from), addrPort("10.0.0.2:53"), uint16(id), strings.Repeat("y", 3000)), 1000)
	}
	idle := budget.Used()
	for i := range 3000 { // 12 MiB in all
		send(datagram("10.0.0.1:4000", i)...)
	}
	if used := budget.Used(); used > idle+most {
		t.Errorf("%d bytes are charged after complete datagrams", used)
	}
	if whole := strings.Count(test.recorder.log.String(), "…3000"); whole != 3000 {
		t.Errorf("%d of 3000 datagrams were read", whole)
	}
	for i := range 500 { // incomplete ones
		send(datagram("10.0.0.3:4000", i)[:2]...)
	}
	if used := budget.Used(); used < idle+mebibyte/2 {
		t.Errorf("only %d bytes are charged for incomplete datagrams", used)
	}
	test.now += 2 * time.Minute
	test.Tick(startTime + int64(test.now))
	test.pool.DropFree() // buffers that are kept for others are charged, too
	if used, cost := budget.Used(), test.decoder.frags.cost; used > idle+most || cost != 0 {
		t.Errorf("%d bytes are charged after the time-out, %d by the fragments", used, cost)
	}

	// Datagrams that an overlap has ended are not charged.
	v6 := func(size int) [][]byte {
		return fragments(t, udpFrame(t, addrPort("[fd00::1]:4000"), addrPort("[fd00::2]:53"), 1, strings.Repeat("y", 300)), size)
	}
	send(v6(104)[0], v6(56)[1])
	if cost := test.decoder.frags.cost; cost != 0 {
		t.Errorf("%d bytes are charged after an invalid datagram", cost)
	}
	send(datagram("10.0.0.3:4000", 1)[:2]...)
	test.Close()
	if used := budget.Used(); used != 0 {
		t.Errorf("%d bytes are charged when the Table is closed", used)
	}
}

// TestChargeOfFlowsIsWhatTheHeapHolds: half-open connections are charged what they take, and so are the free flows that
// they leave behind.
func TestChargeOfFlowsIsWhatTheHeapHolds(t *testing.T) {
	heap := func() int64 {
		var stats runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&stats)
		return int64(stats.HeapAlloc)
	}
	cfg := Default()
	cfg.MaxSessions = 1 << 20
	before := heap()
	budget := memory.New(1<<40, nil)
	b := newTableTest(t, cfg, Deps{Memory: budget})
	const count = 10_000
	for i := range count {
		client := fmt.Sprintf("10.1.%d.%d:%d", i>>8&255, i&255, 1024+i>>16)
		b.segmentOn("eth0", client, "10.0.0.3:81", ">", "S", 0, 0, "")
	}
	check := func(what string) {
		t.Helper()
		held, charged := heap()-before, budget.Used()
		t.Logf("%s: %d bytes are held for each of %d, %d charged", what, held/count, count, charged/count)
		if held > charged*9/8+mebibyte || held < charged*2/3 {
			t.Errorf("%s: %d bytes are held, %d charged", what, held, charged)
		}
	}
	check("open")
	runtime.KeepAlive(b)
}

// TestPendingEventsStayWithinTheBudget: events that wait for a mapping, or for the metadata of a container, are emitted
// early when the budget is exceeded, and none is lost.
func TestPendingEventsStayWithinTheBudget(t *testing.T) {
	const limit = 4 * mebibyte
	unknown := func(netip.Addr, int64) (*pipeline.Container, bool) { return nil, false }
	for name, deps := range map[string]Deps{
		"mapping":  {NAT: fakeNAT{}, Bridge: func(string) bool { return false }},
		"metadata": {Containers: containersFunc(unknown), Bridge: func(string) bool { return true }},
	} {
		budget := memory.New(limit, nil)
		deps.Memory = budget
		b := newTableTest(t, Default(), deps)
		most := int64(0)
		for i := range 8000 {
			client := fmt.Sprintf("10.1.%d.%d:1024", i>>8&255, i&255)
			frame := udpFrame(b, addrPort(client), addrPort("10.0.0.3:53"), uint16(i), "query "+strings.Repeat("q", 200))
			b.Packet("eth0", layers.LinkTypeEthernet, startTime+int64(b.now), frame, 300)
			b.now += time.Microsecond
			most = max(most, budget.Used())
		}
		if most < limit*3/4 || most > limit+limit/16+mebibyte/2 {
			t.Errorf("%s: at most %d bytes were charged, the limit is %d", name, most, limit)
		}
		b.Close()
		if used := budget.Used(); used != 0 || b.outboxes.Used() != 0 {
			t.Errorf("%s: %d bytes are charged after Close, %d of them for events", name, used, b.outboxes.Used())
		}
		if got := len(b.events); got < 8000 {
			t.Errorf("%s: %d events came", name, got)
		}
	}
}

// TestClosedTableReleasesItsMemory: flows, bytes that wait and fragments of a Table count against the budget until it
// is closed. The workers of an interface that is gone take nothing from the others.
func TestClosedTableReleasesItsMemory(t *testing.T) {
	budget := memory.New(1<<30, nil)
	test := newTableTest(t, Default(), Deps{Memory: budget})
	for i := range 500 {
		client := fmt.Sprintf("10.1.0.1:%d", 1024+i)
		test.segmentOn("eth0", client, "10.0.0.3:81", ">", "S", 0, 0, "")
		test.segmentOn("eth0", client, "10.0.0.3:81", "<", "SA", 0, 0, "")
		test.segmentOn("eth0", client, "10.0.0.3:81", ">", "A", 5000, 0, strings.Repeat("waits", 250))
		datagram := udpFrame(t, addrPort("10.0.0.1:4000"), addrPort("10.0.0.2:53"), uint16(i), strings.Repeat("y", 3000))
		part := fragments(t, datagram, 1400)[0]
		test.Packet("eth0", layers.LinkTypeEthernet, startTime+int64(test.now), part, len(part))
	}
	if used := budget.Used(); used < 500*(1250+1400) {
		t.Errorf("%d bytes are in use while the Table is open", used)
	}
	test.Close()
	if used := budget.Used(); used != 0 {
		t.Errorf("%d bytes are in use after Close", used)
	}
}
