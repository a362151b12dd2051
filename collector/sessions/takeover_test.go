package sessions

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/gopacket/layers"

	"tidegate/pipeline"
)

// A longConnection is a connection in mid-stream whose numbered packets are sent one by one.
type longConnection struct {
	*natHost
	leg      natLeg // the addresses; its interface is not used
	seq, ack uint32
}

// exchange sends a request and its reply, 10 bytes each. Both are captured on each of the given interfaces;
// requestOnly and replyOnly name interfaces that capture one of them.
func (c *longConnection) exchange(ifaces, requestOnly, replyOnly []string) {
	c.Helper()
	send := func(ifaces []string, back bool) {
		from, to, seq, ack := addrPort(c.leg.client), addrPort(c.leg.server), c.seq, c.ack
		if back {
			from, to, seq, ack = to, from, c.ack, c.seq
		}
		c.id++
		packet := tcpFrame(c, from, to, "A", seq, ack, c.id, "0123456789")
		for _, iface := range ifaces {
			c.tableOf(iface).Packet(iface, layers.LinkTypeEthernet, startTime+int64(c.now), packet, len(packet))
			c.now += 5 * time.Microsecond
		}
		for _, table := range c.tables { // the workers are called every 100 ms in any case
			table.Tick(startTime + int64(c.now))
		}
	}
	send(append(append([]string(nil), ifaces...), requestOnly...), false)
	c.seq += 10
	send(append(append([]string(nil), ifaces...), replyOnly...), true)
	c.ack += 10
}

func (c *longConnection) datasets() (sessions, transactions int) {
	for _, event := range c.events {
		switch event.Dataset {
		case pipeline.Dataset_SESSION:
			sessions++
		case pipeline.Dataset_REDIS:
			transactions++
		}
	}
	return sessions, transactions
}

func newLongConnection(t testing.TB) *longConnection {
	leg := natLeg{client: "172.17.0.3:4000", server: "172.17.0.2:80"}
	return &longConnection{natHost: newHost(t, nil), leg: leg, seq: 1000, ack: 5000}
}

// metric returns the sum of a counter over all Tables of h.
func (h *natHost) metric(of func(*tableMetrics) counter) (sum float64) {
	for _, table := range h.tables {
		sum += counterValue(of(table.metrics))
	}
	return sum
}

func unreported(m *tableMetrics) counter { return m.unreportedBytes }
func takeovers(m *tableMetrics) counter  { return m.takeovers }

// TestDuplicateTakesOverFromASilentPrimary: the copy on the bridge, which is reported, sees no more packets.
// The copy on eth0 is reported a second later, and what nobody reported is counted.
func TestDuplicateTakesOverFromASilentPrimary(t *testing.T) {
	c := newLongConnection(t)
	for range 50 { // 20 ms each
		c.exchange([]string{"docker0", "eth0"}, nil, nil)
		c.now += 20 * time.Millisecond
	}
	for range 200 {
		c.exchange([]string{"eth0"}, nil, nil)
		c.now += 20 * time.Millisecond
	}
	c.advance(2 * time.Second)
	for range 100 { // the bridge sees the packets again: still each is reported once
		c.exchange([]string{"docker0", "eth0"}, nil, nil)
		c.now += 20 * time.Millisecond
	}
	c.advance(20 * time.Minute)
	for _, table := range c.tables {
		table.Close()
	}
	_, told := c.datasets()
	lost := c.metric(unreported)
	if missing := 2*350 - told; missing < 100 || missing > 130 || int(lost) > 10*missing || int(lost) < 10*missing-200 {
		t.Errorf("%d packets of 700 were not reported, %v bytes were counted", missing, lost)
	}
	if taken := c.metric(takeovers); taken != 1 {
		t.Errorf("%v takeovers, want 1", taken)
	}
	for _, event := range c.events {
		if event.Dataset == pipeline.Dataset_SESSION && !event.Partial {
			t.Errorf("a session of which another copy reported a part is not partial: %v", event)
		}
	}
}

// TestBriefOverlapOfCopiesIsNoTakeover: a slow request every ten seconds, captured on both, is reported by the
// bridge, whatever Table is first.
func TestBriefOverlapOfCopiesIsNoTakeover(t *testing.T) {
	for _, order := range [][]string{{"docker0", "eth0"}, {"eth0", "docker0"}} {
		c := newLongConnection(t)
		for range 30 {
			c.exchange(order, nil, nil)
			c.advance(10 * time.Second)
		}
		if _, told := c.datasets(); told != 60 || c.metric(takeovers) != 0 || c.metric(unreported) != 0 {
			t.Errorf("%v: %d of 60 packets reported, %v takeovers, %v bytes unreported", order, told,
				c.metric(takeovers), c.metric(unreported))
		}
	}
}

// TestIdleClaimDoesNotMuteTheNextConnection: a connection on the bridge was never closed. Its ports are used
// again, and the bridge does not carry the new connection.
func TestIdleClaimDoesNotMuteTheNextConnection(t *testing.T) {
	host := newHost(t, nil)
	leg := natLeg{"docker0", "172.17.0.3:4000", "172.17.0.2:80"}
	for i := range 5 {
		host.sendStep(leg, i)
	}
	host.advance(time.Minute)
	before := len(host.events)
	for i := range numSteps {
		host.sendStep(natLeg{"eth0", leg.client, leg.server}, i)
	}
	host.advance(3 * time.Second)
	if told := len(host.events) - before; told != 3 {
		t.Errorf("%d events of the second connection, want 3", told)
	}
}

// TestTwoHalvesAreBothReported: the routes of the two directions differ, so each interface sees one of them.
func TestTwoHalvesAreBothReported(t *testing.T) {
	for _, ifaces := range [][2]string{{"eth0", "eth1"}, {"docker0", "eth0"}, {"eth1", "docker0"}} {
		c := newLongConnection(t)
		c.leg = natLeg{client: "192.0.2.3:4000", server: "192.0.2.2:80"}
		for range 500 {
			c.exchange(nil, ifaces[:1], ifaces[1:])
			c.now += 20 * time.Millisecond
		}
		c.advance(2 * time.Second)
		if _, told := c.datasets(); told < 940 || told > 1000 || c.metric(takeovers) > 1 {
			t.Errorf("%v: %d of 1000 packets were reported, %v takeovers", ifaces, told, c.metric(takeovers))
		}
	}
}

// TestEveryPacketIsReportedOnceOrCounted: two interfaces see a connection at random times, both or one of
// them. No packet is reported twice, and those that nobody reports are as many as the changes explain.
func TestEveryPacketIsReportedOnceOrCounted(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 14))
		c := newLongConnection(t)
		c.leg = natLeg{client: "192.0.2.3:4000", server: "192.0.2.2:80"}
		views := [][]string{{"docker0", "eth0"}, {"eth0", "docker0"}, {"docker0"}, {"eth0"}}
		sent, changes := 0, 0
		for range 12 {
			changes++
			view := views[random.IntN(len(views))]
			for range 20 + random.IntN(200) {
				c.exchange(view, nil, nil)
				c.now += time.Duration(10+random.IntN(60)) * time.Millisecond
				sent += 2
			}
		}
		c.advance(2 * time.Second)
		for _, table := range c.tables {
			table.Close()
		}
		_, told := c.datasets()
		missing, lost := sent-told, int(c.metric(unreported))/10
		// In the time between silentAfter and the next packet, and copyDelay, at most 250 packets are sent.
		if missing < 0 || missing > 130*changes || lost > missing || lost < missing/2-20 {
			t.Errorf("seed %d: %d of %d packets reported, %d counted as unreported, %v takeovers", seed, told, sent,
				lost, c.metric(takeovers))
		}
	}
}

// TestActivityIsPublishedAtAnInterval: not with each packet, and at once where the times were set back.
func TestActivityIsPublishedAtAnInterval(t *testing.T) {
	const at = int64(1e18)
	for distance, want := range map[int64]bool{0: false, publishEvery - 1: false, publishEvery: true, 1e9: true, -1: true, -1e9: true} {
		if got := isDue(at+distance, at); got != want {
			t.Errorf("%d ns later: %v", distance, got)
		}
	}
}
