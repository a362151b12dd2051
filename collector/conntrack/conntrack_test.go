//go:build linux

package conntrack

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	ct "github.com/ti-mo/conntrack"
	"golang.org/x/sys/unix"

	"tidegate/collector/sessions"
	"tidegate/pipeline"
)

func newTracker() *Tracker { return New(slog.New(slog.DiscardHandler), prometheus.NewRegistry()) }

func run(t *testing.T, line string) {
	t.Helper()
	words := strings.Fields(line)
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", line, err, out)
	}
}

// inNamespace runs f in a network namespace, on a thread of its own that ends with f.
func inNamespace(t *testing.T, name string, f func()) chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		ns, err := os.Open("/run/netns/" + name)
		if err == nil {
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
			_ = ns.Close()
		}
		if err != nil {
			t.Errorf("enter namespace %s: %v", name, err)
			return
		}
		f()
	}()
	return done
}

// A lab is a router between the namespace of a client and the namespace of a server. It applies SNAT to
// connections to port 8081, and DNAT from its own port 9000 to port 8080 of the server.
type lab struct{ client, router, server string }

const (
	clientIP = "10.71.1.2"
	inside   = "10.71.1.1" // the router, as the client sees it
	outside  = "10.71.2.1" // the router, as the server sees it
	serverIP = "10.71.2.2"
)

func newLab(t *testing.T) lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("namespaces and connection tracking need root")
	}
	pid := os.Getpid()
	l := lab{fmt.Sprintf("tgctc%d", pid), fmt.Sprintf("tgctr%d", pid), fmt.Sprintf("tgcts%d", pid)}
	for _, ns := range []string{l.client, l.router, l.server} {
		run(t, "ip netns add "+ns)
		t.Cleanup(func() { run(t, "ip netns del "+ns) })
		run(t, "ip -n "+ns+" link set lo up")
	}
	sides := []struct{ ns, name, ip, gateway string }{
		{l.client, "c0", clientIP, inside},
		{l.server, "s0", serverIP, outside},
	}
	for _, side := range sides {
		run(t, "ip link add "+side.name+" netns "+l.router+" type veth peer name eth0 netns "+side.ns)
		run(t, "ip -n "+l.router+" addr add "+side.gateway+"/24 dev "+side.name)
		run(t, "ip -n "+l.router+" link set "+side.name+" up")
		run(t, "ip -n "+side.ns+" addr add "+side.ip+"/24 dev eth0")
		run(t, "ip -n "+side.ns+" link set eth0 up")
		run(t, "ip -n "+side.ns+" route add default via "+side.gateway)
	}
	in := "ip netns exec " + l.router + " "
	run(t, in+"sysctl -qw net.ipv4.ip_forward=1")
	for _, proto := range []string{"tcp", "udp"} {
		run(t, in+"iptables -t nat -A POSTROUTING -p "+proto+" --dport 8081 -j SNAT --to-source "+outside)
		run(t, in+"iptables -t nat -A PREROUTING -p "+proto+" -d "+inside+" --dport 9000"+
			" -j DNAT --to-destination "+serverIP+":8080")
	}
	return l
}

// serve answers on the ports of the server until the test ends.
func (l lab) serve(t *testing.T) {
	t.Helper()
	<-inNamespace(t, l.server, func() {
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
						b := make([]byte, 64)
						for n, err := conn.Read(b); err == nil; n, err = conn.Read(b) {
							_, _ = conn.Write(b[:n])
						}
					}()
				}
			}()
			go func() {
				b := make([]byte, 64)
				for n, from, err := udp.ReadFrom(b); err == nil; n, from, err = udp.ReadFrom(b) {
					_, _ = udp.WriteTo(b[:n], from)
				}
			}()
		}
	})
}

// dial connects from the namespace of the client and waits for one answer.
func (l lab) dial(t *testing.T, network, to string) net.Conn {
	t.Helper()
	var conn net.Conn
	<-inNamespace(t, l.client, func() {
		var err error
		if conn, err = net.DialTimeout(network, to, 5*time.Second); err != nil {
			t.Error(err)
		}
	})
	if conn == nil {
		t.FailNow()
	}
	t.Cleanup(func() { _ = conn.Close() })
	ask(t, conn)
	return conn
}

func ask(t *testing.T, conn net.Conn) {
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
func (l lab) start(t *testing.T, tr *Tracker) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := inNamespace(t, l.router, func() {
		if err := tr.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); <-done })
	until(t, "the table is read", func() bool { return read(tr.tableReads) > 0 })
}

func read(c prometheus.Counter) float64 {
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(c)
	m, _ := reg.Gather()
	return m[0].Metric[0].Counter.GetValue()
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 500 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("in five seconds it did not come true that %s", what)
}

// A flow is one connection with the mapping that Lookup must return for each of its tuples.
type flow struct {
	name  string
	proto pipeline.Transport
	want  sessions.Mapping
}

func (f flow) tuples() [4][2]netip.AddrPort {
	mapping := f.want
	return [4][2]netip.AddrPort{
		{mapping.Client, mapping.OutsideServer},
		{mapping.OutsideServer, mapping.Client},
		{mapping.Server, mapping.OutsideClient},
		{mapping.OutsideClient, mapping.Server},
	}
}

func (f flow) check(t *testing.T, tr *Tracker, how string) {
	t.Helper()
	for _, tuple := range f.tuples() {
		var got sessions.Mapping
		until(t, fmt.Sprintf("%s: %s is known as %v → %v", how, f.name, tuple[0], tuple[1]), func() (ok bool) {
			got, ok = tr.Lookup(f.proto, tuple[0], tuple[1])
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
			c := l.dial(t, network, to)
			client := netip.MustParseAddrPort(c.LocalAddr().String())
			flows, conns = append(flows, flow{network + " " + name, proto, want(client)}), append(conns, c)
		}
		server := at(serverIP, 8080)
		add("without nat", server.String(), func(c netip.AddrPort) sessions.Mapping {
			return sessions.Mapping{Client: c, Server: server, OutsideClient: c, OutsideServer: server}
		})
		add("through dnat", inside+":9000", func(c netip.AddrPort) sessions.Mapping {
			return sessions.Mapping{Client: c, Server: server, OutsideClient: c, OutsideServer: at(inside, 9000)}
		})
		other := at(serverIP, 8081)
		add("through snat", other.String(), func(c netip.AddrPort) sessions.Mapping {
			return sessions.Mapping{Client: c, Server: other, OutsideClient: at(outside, c.Port()), OutsideServer: other}
		})
	}
	return flows, conns
}

// flush deletes every entry of the router's table, as expiry would.
func (l lab) flush(t *testing.T) {
	t.Helper()
	<-inNamespace(t, l.router, func() {
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

// TestBothTuplesOfAConnectionAreFound holds both sources, events and the first read of the table, over TCP
// and UDP, with SNAT, with DNAT and without NAT.
func TestBothTuplesOfAConnectionAreFound(t *testing.T) {
	lab := newLab(t)
	lab.serve(t)
	early, late := newTracker(), newTracker()
	early.keepDestroyed, early.expireEvery = 300*time.Millisecond, 20*time.Millisecond
	lab.start(t, early)
	flows, conns := lab.connect(t)
	for _, f := range flows {
		f.check(t, early, "by event")
	}
	lab.start(t, late)
	for _, f := range flows {
		f.check(t, late, "by the first reading")
	}

	lab.flush(t)
	for i, c := range conns {
		if flows[i].proto == pipeline.Transport_UDP {
			ask(t, c) // a new entry with the same tuples
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
	for _, f := range flows {
		if f.proto == pipeline.Transport_UDP {
			f.check(t, early, "used again, after the old one was forgotten")
		}
	}
}

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

func (t *Tracker) knows(port uint16) bool {
	_, ok := t.Lookup(pipeline.Transport_TCP, at(clientIP, port), at(serverIP, 80))
	return ok
}

func TestEndedEntryIsKeptForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTracker()
		for port := range uint16(3) {
			tr.handleEvent(ct.Event{Type: ct.EventNew, Flow: entryOf(port)})
		}
		time.Sleep(time.Second)
		tr.handleEvent(ct.Event{Type: ct.EventDestroy, Flow: entryOf(0)})
		tr.handleEvent(ct.Event{Type: ct.EventDestroy, Flow: entryOf(1)})
		time.Sleep(time.Second)
		tr.handleEvent(ct.Event{Type: ct.EventNew, Flow: entryOf(1)}) // used again
		check := func(want ...bool) {
			t.Helper()
			tr.expireDestroyed()
			for port, w := range want {
				if got := tr.knows(uint16(port)); got != w {
					t.Errorf("entry %d: known %v, want %v", port, got, w)
				}
			}
		}
		time.Sleep(keepDestroyed - 2*time.Second)
		check(true, true, true)
		time.Sleep(time.Second)
		check(false, true, true)
		tr.handleEvent(ct.Event{Type: ct.EventDestroy, Flow: entryOf(1)})
		time.Sleep(keepDestroyed)
		check(false, false, true)
		if n := tr.Len(); n != 2 || len(tr.expiring) != 0 {
			t.Errorf("%d tuples, %d dying are left", n, len(tr.expiring))
		}
	})
}

// TestAMissedEndIsFoundInTheTable: after a loss of events, entries that are missing in the table expire.
func TestAMissedEndIsFoundInTheTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTracker()
		tr.store(entryOf(1))
		tr.store(entryOf(2))
		time.Sleep(time.Minute)
		start := tr.now()
		tr.store(entryOf(2)) // the table holds only this entry
		tr.expireUnseenSince(start)
		time.Sleep(keepDestroyed)
		tr.expireDestroyed()
		if tr.knows(1) || !tr.knows(2) {
			t.Errorf("known: ended %v, alive %v", tr.knows(1), tr.knows(2))
		}
	})
}

// slow is a connection whose Close waits for its worker, like a connection of the conntrack library.
type slow struct{ worker chan struct{} }

func (s slow) Close() error { <-s.worker; return nil }

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
		closeAndDrain(slow{worker}, events, failed)
	})
}
