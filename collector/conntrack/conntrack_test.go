//go:build linux

package conntrack

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	ct "github.com/ti-mo/conntrack"
	"golang.org/x/sys/unix"

	"tidegate/collector/sessions"
	"tidegate/pipeline"
	"tidegate/pipeline/netnstest"
)

// newTracker returns a Tracker that logs nothing.
func newTracker() *Tracker { return New(slog.New(slog.DiscardHandler), prometheus.NewRegistry()) }

func run(t *testing.T, line string) {
	t.Helper()
	words := strings.Fields(line)
	netnstest.Run(t, words[0], words[1:]...)
}

// A lab is a router between the namespace of a client and the namespace of a server. It applies SNAT to
// connections to port 8081, and DNAT from its own port 9000 to port 8080 of the server.
type lab struct{ client, router, server string }

const (
	clientIP = "10.71.1.2"
	inside   = "10.71.1.1" // the router, the address for the client
	outside  = "10.71.2.1" // the router, the address for the server
	serverIP = "10.71.2.2"
)

// newLab makes the three namespaces and connects them. It needs root.
func newLab(t *testing.T) lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("namespaces and connection tracking need root")
	}
	pid := os.Getpid()
	net := lab{fmt.Sprintf("tgctc%d", pid), fmt.Sprintf("tgctr%d", pid), fmt.Sprintf("tgcts%d", pid)}
	for _, ns := range []string{net.client, net.router, net.server} {
		run(t, "ip netns add "+ns)
		t.Cleanup(func() { run(t, "ip netns del "+ns) })
		run(t, "ip -n "+ns+" link set lo up")
	}
	sides := []struct{ ns, name, ip, gateway string }{
		{net.client, "c0", clientIP, inside},
		{net.server, "s0", serverIP, outside},
	}
	for _, side := range sides {
		run(t, "ip link add "+side.name+" netns "+net.router+" type veth peer name eth0 netns "+side.ns)
		run(t, "ip -n "+net.router+" addr add "+side.gateway+"/24 dev "+side.name)
		run(t, "ip -n "+net.router+" link set "+side.name+" up")
		run(t, "ip -n "+side.ns+" addr add "+side.ip+"/24 dev eth0")
		run(t, "ip -n "+side.ns+" link set eth0 up")
		run(t, "ip -n "+side.ns+" route add default via "+side.gateway)
	}
	in := "ip netns exec " + net.router + " "
	run(t, in+"sysctl -qw net.ipv4.ip_forward=1")
	for _, proto := range []string{"tcp", "udp"} {
		run(t, in+"iptables -t nat -A POSTROUTING -p "+proto+" --dport 8081 -j SNAT --to-source "+outside)
		run(t, in+"iptables -t nat -A PREROUTING -p "+proto+" -d "+inside+" --dport 9000"+
			" -j DNAT --to-destination "+serverIP+":8080")
	}
	return net
}

// serve answers on the ports of the server until the test ends.
func (l lab) serve(t *testing.T) {
	t.Helper()
	<-netnstest.Start(t, l.server, func() {
		for _, port := range []string{":8080", ":8081"} {
			tcp, err := net.Listen("tcp4", serverIP+port)
			if err != nil {
				t.Error(err)
				return
			}
			udp, err := net.ListenPacket("udp4", serverIP+port)
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { _, _ = tcp.Close(), udp.Close() })
			go func() {
				for {
					conn, err := tcp.Accept()
					if err != nil {
						return
					}
					go func() {
						defer func() { _ = conn.Close() }()
						buf := make([]byte, 64)
						for size, err := conn.Read(buf); err == nil; size, err = conn.Read(buf) {
							_, _ = conn.Write(buf[:size])
						}
					}()
				}
			}()
			go func() {
				buf := make([]byte, 64)
				for size, from, err := udp.ReadFrom(buf); err == nil; size, from, err = udp.ReadFrom(buf) {
					_, _ = udp.WriteTo(buf[:size], from)
				}
			}()
		}
	})
}

// dial connects from the namespace of the client and waits for one answer.
func (l lab) dial(t *testing.T, network, to string) net.Conn {
	t.Helper()
	var conn net.Conn
	<-netnstest.Start(t, l.client, func() {
		var err error
		if conn, err = net.DialTimeout(network, to, 5*time.Second); err != nil {
			t.Error(err)
		}
	})
	if conn == nil {
		t.FailNow()
	}
	t.Cleanup(func() { _ = conn.Close() })
	roundTrip(t, conn)
	return conn
}

// roundTrip sends a message over conn and waits for the answer.
func roundTrip(t *testing.T, conn net.Conn) {
	t.Helper()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := conn.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 64)); err != nil {
		t.Fatal(err)
	}
}

// start runs a tracker in the router's namespace.
func (l lab) start(t *testing.T, tracker *Tracker) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := netnstest.Start(t, l.router, func() {
		if err := tracker.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); <-done })
	until(t, "the table is read", func() bool { return counterValue(tracker.tableReads) > 0 })
}

func counterValue(counter prometheus.Counter) float64 {
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(counter)
	families, _ := reg.Gather()
	return families[0].Metric[0].Counter.GetValue()
}

// until waits until ok returns true; what describes that state.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 500 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("not within five seconds: %s", what)
}

// A flow is one connection with the mapping that Lookup must return for each of its tuples.
type flow struct {
	name  string
	proto pipeline.Transport
	want  sessions.Mapping
}

// tuples returns the pairs of addresses by which Lookup must find the connection.
func (f flow) tuples() [4][2]netip.AddrPort {
	mapping := f.want
	return [4][2]netip.AddrPort{
		{mapping.Client, mapping.OutsideServer},
		{mapping.OutsideServer, mapping.Client},
		{mapping.Server, mapping.OutsideClient},
		{mapping.OutsideClient, mapping.Server},
	}
}

// check checks that Lookup returns f.want for each tuple. how names the case in messages.
func (f flow) check(t *testing.T, tracker *Tracker, how string) {
	t.Helper()
	for _, tuple := range f.tuples() {
		var got sessions.Mapping
		until(t, fmt.Sprintf("%s: %s is known as %v → %v", how, f.name, tuple[0], tuple[1]), func() (ok bool) {
			got, ok = tracker.Lookup(f.proto, tuple[0], tuple[1])
			return ok
		})
		if got != f.want {
			t.Errorf("%s: %s by %v → %v: got %v, want %v", how, f.name, tuple[0], tuple[1], got, f.want)
		}
	}
}

func at(ip string, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(ip), port)
}

// connect opens one connection of each kind over each transport.
func (l lab) connect(t *testing.T) (flows []flow, conns []net.Conn) {
	t.Helper()
	transports := map[string]pipeline.Transport{"tcp": pipeline.Transport_TCP, "udp": pipeline.Transport_UDP}
	for network, proto := range transports {
		add := func(name, to string, want func(client netip.AddrPort) sessions.Mapping) {
			conn := l.dial(t, network, to)
			client := netip.MustParseAddrPort(conn.LocalAddr().String())
			flows, conns = append(flows, flow{network + " " + name, proto, want(client)}), append(conns, conn)
		}
		server := at(serverIP, 8080)
		add("without nat", server.String(), func(conn netip.AddrPort) sessions.Mapping {
			return sessions.Mapping{Client: conn, Server: server, OutsideClient: conn, OutsideServer: server}
		})
		add("through dnat", inside+":9000", func(conn netip.AddrPort) sessions.Mapping {
			return sessions.Mapping{Client: conn, Server: server, OutsideClient: conn, OutsideServer: at(inside, 9000)}
		})
		other := at(serverIP, 8081)
		add("through snat", other.String(), func(conn netip.AddrPort) sessions.Mapping {
			return sessions.Mapping{Client: conn, Server: other, OutsideClient: at(outside, conn.Port()), OutsideServer: other}
		})
	}
	return flows, conns
}

// flush deletes every entry of the router's table, as expiry would.
func (l lab) flush(t *testing.T) {
	t.Helper()
	<-netnstest.Start(t, l.router, func() {
		conn, err := ct.Dial(nil)
		if err == nil {
			err = conn.Flush()
			_ = conn.Close()
		}
		if err != nil {
			t.Error(err)
		}
	})
}

// TestBothTuplesOfAConnectionAreFound: connections over TCP and UDP, with SNAT, with DNAT and without NAT,
// are found by events and by the first read of the table.
func TestBothTuplesOfAConnectionAreFound(t *testing.T) {
	lab := newLab(t)
	lab.serve(t)
	early, late := newTracker(), newTracker()
	early.keepDestroyed, early.expireEvery = 300*time.Millisecond, 20*time.Millisecond
	lab.start(t, early)
	flows, conns := lab.connect(t)
	for _, flow := range flows {
		flow.check(t, early, "by event")
	}
	lab.start(t, late)
	for _, flow := range flows {
		flow.check(t, late, "by the first read of the table")
	}

	lab.flush(t)
	for i, conn := range conns {
		if flows[i].proto == pipeline.Transport_UDP {
			roundTrip(t, conn) // a new entry with the same tuples
		}
	}
	for _, flow := range flows {
		if flow.proto == pipeline.Transport_UDP {
			flow.check(t, early, "used again")
			continue
		}
		until(t, flow.name+" expires", func() bool {
			for _, tuple := range flow.tuples() {
				if _, ok := early.Lookup(flow.proto, tuple[0], tuple[1]); ok {
					return false
				}
			}
			return true
		})
		flow.check(t, late, "kept for a while") // it keeps destroyed entries for half a minute
	}
	time.Sleep(2 * early.keepDestroyed)
	for _, flow := range flows {
		if flow.proto == pipeline.Transport_UDP {
			flow.check(t, early, "used again, after the old entry expired")
		}
	}
}

// entryOf returns a connection from port of the client to port 80 of the server, with SNAT.
func entryOf(port uint16) *ct.Flow {
	var flow ct.Flow
	flow.TupleOrig.IP.SourceAddress = netip.MustParseAddr(clientIP)
	flow.TupleOrig.IP.DestinationAddress = netip.MustParseAddr(serverIP)
	flow.TupleOrig.Proto = ct.ProtoTuple{Protocol: unix.IPPROTO_TCP, SourcePort: port, DestinationPort: 80}
	flow.TupleReply.IP.SourceAddress = netip.MustParseAddr(serverIP)
	flow.TupleReply.IP.DestinationAddress = netip.MustParseAddr(outside)
	flow.TupleReply.Proto = ct.ProtoTuple{Protocol: unix.IPPROTO_TCP, SourcePort: 80, DestinationPort: port}
	return &flow
}

// hasEntry reports whether Lookup finds the connection that entryOf returns for port.
func (t *Tracker) hasEntry(port uint16) bool {
	_, ok := t.Lookup(pipeline.Transport_TCP, at(clientIP, port), at(serverIP, 80))
	return ok
}

// TestEndedEntryIsKeptForAWhile: an entry is found for keepDestroyed after its end, and stays if its tuples
// are used again meanwhile.
func TestEndedEntryIsKeptForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracker := newTracker()
		for port := range uint16(3) {
			tracker.handleEvent(ct.Event{Type: ct.EventNew, Flow: entryOf(port)})
		}
		time.Sleep(time.Second)
		tracker.handleEvent(ct.Event{Type: ct.EventDestroy, Flow: entryOf(0)})
		tracker.handleEvent(ct.Event{Type: ct.EventDestroy, Flow: entryOf(1)})
		time.Sleep(time.Second)
		tracker.handleEvent(ct.Event{Type: ct.EventNew, Flow: entryOf(1)}) // used again
		check := func(want ...bool) {
			t.Helper()
			tracker.expireDestroyed()
			for port, known := range want {
				if got := tracker.hasEntry(uint16(port)); got != known {
					t.Errorf("entry %d: known %v, want %v", port, got, known)
				}
			}
		}
		time.Sleep(keepDestroyed - 2*time.Second)
		check(true, true, true)
		time.Sleep(time.Second)
		check(false, true, true)
		tracker.handleEvent(ct.Event{Type: ct.EventDestroy, Flow: entryOf(1)})
		time.Sleep(keepDestroyed)
		check(false, false, true)
		if tuples := tracker.Len(); tuples != 2 {
			t.Errorf("%d tuples are left", tuples)
		}
	})
}

// TestAMissedEndIsFoundInTheTable: after a loss of events, entries that are missing in the table expire.
func TestAMissedEndIsFoundInTheTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracker := newTracker()
		tracker.store(entryOf(1))
		tracker.store(entryOf(2))
		time.Sleep(time.Minute)
		start := tracker.now()
		tracker.store(entryOf(2)) // the table holds only this entry
		tracker.expireUnseenSince(start)
		time.Sleep(keepDestroyed)
		tracker.expireDestroyed()
		if tracker.hasEntry(1) || !tracker.hasEntry(2) {
			t.Errorf("known: ended %v, alive %v", tracker.hasEntry(1), tracker.hasEntry(2))
		}
	})
}

// A slowConn is a connection whose Close waits for its worker, as in the conntrack library.
type slowConn struct{ worker chan struct{} }

func (s slowConn) Close() error { <-s.worker; return nil }

// TestCloseAndDrainLetsTheWorkerEnd: the worker blocks on a full channel, and Close waits for the worker.
func TestCloseAndDrainLetsTheWorkerEnd(t *testing.T) {
	synctest.Test(t, func(*testing.T) {
		events, failed, worker := make(chan ct.Event, 2), make(chan error), make(chan struct{})
		go func() {
			defer close(worker)
			for range 10 {
				events <- ct.Event{}
			}
			failed <- unix.ENOBUFS
		}()
		synctest.Wait() // the worker blocks on a full channel
		closeAndDrain(slowConn{worker}, events, failed)
	})
}

// translatedFlow returns a connection of a container to 10.0.a.b, with SNAT.
func translatedFlow(a, b byte, sport, dport uint16) *ct.Flow {
	client, server := netip.AddrFrom4([4]byte{172, 17, 0, 9}), netip.AddrFrom4([4]byte{10, 0, a, b})
	flow := ct.NewFlow(unix.IPPROTO_TCP, 0, client, server, sport, dport, 0, 0)
	flow.TupleReply.IP.DestinationAddress = netip.MustParseAddr("198.51.100.1")
	return &flow
}

// TestScanFillsTheMapEvenly: a scan, whose connections differ in one address or one port only, is known whole
// up to the bound of the map, and leaves room for the connections of others. The map stays within its bound:
// the oldest tuples are given up.
func TestScanFillsTheMapEvenly(t *testing.T) {
	for name, scan := range map[string]func(i int) *ct.Flow{
		"addresses": func(i int) *ct.Flow { return translatedFlow(byte(i>>8), byte(i), 40000, 80) },
		"ports":     func(i int) *ct.Flow { return translatedFlow(0, 1, 40000, uint16(i)) },
		"sources":   func(i int) *ct.Flow { return translatedFlow(0, 1, uint16(i), 80) },
	} {
		tracker := newTracker()
		for i := range 1 << 16 {
			tracker.store(scan(i))
		}
		most := 0
		for i := range tracker.table.shards {
			most = max(most, int(tracker.table.shards[i].size))
		}
		if tracker.Len() < 1<<17-1<<12 || most > 2*tracker.Len()/shardCount {
			t.Errorf("%s: %d tuples, %d in one of %d shards", name, tracker.Len(), most, shardCount)
		}
	}

	tracker := newTracker()
	const flows = maxTuples/2 + 20_000
	for i := range flows {
		tracker.store(translatedFlow(byte(i>>8), byte(i), uint16(i>>16), 80))
	}
	dropped := 2*flows - tracker.Len()
	if tracker.Len() > maxTuples || tracker.Len() < maxTuples/64*63 || tracker.dropped(t, reasonFull) != float64(dropped) {
		t.Errorf("%d tuples of %d, %v dropped", tracker.Len(), maxTuples, tracker.dropped(t, reasonFull))
	}
	known := func(i int) bool {
		_, ok := tracker.Lookup(pipeline.Transport_TCP, at("172.17.0.9", uint16(i>>16)),
			at(fmt.Sprintf("10.0.%d.%d", i>>8&255, i&255), 80))
		return ok
	}
	if known(0) || !known(flows-1) {
		t.Errorf("the first one is known: %v, and the last one: %v", known(0), known(flows-1))
	}
	tracker.expireUnseenSince(time.Now().Add(time.Hour))
	tracker.keepDestroyed = 0
	tracker.expireDestroyed()
	if tracker.Len() != 0 {
		t.Errorf("%d tuples are left", tracker.Len())
	}
}

// dropped returns the tuples that were given up for a reason.
func (t *Tracker) dropped(test *testing.T, reason string) float64 {
	test.Helper()
	var value dto.Metric
	if err := t.givenUp.WithLabelValues(reason).Write(&value); err != nil {
		test.Fatal(err)
	}
	return value.GetCounter().GetValue()
}
