// Package sessions turns packets into the connections that they belong to.
//
// Packets come in from collector/capture, one Table for each worker: a Table decodes them, puts fragments together, finds the
// connection, brings the bytes of both directions into order and gives them to a protocols.Conn, whose parser makes events of them.
// Events of parsers and one event for each session go out through Deps.Emit. A Table is used by one goroutine; what Tables share
// is a DedupTable, which knows who speaks for a connection that is seen on several interfaces.
//
// The way of a packet:
//
//	decode.go, decode_ip.go     frame → addresses, ports, TCP header, payload; no allocation
//	defrag.go                   fragments of IPv4 and IPv6 → datagrams
//	dup_filter.go               the same packet captured twice
//	table.go, heap.go, flow.go  the map of flows, time, eviction
//	tcp.go                      handshake, reset, end
//	half_stream.go, stream.go   a direction and its bytes in order
//	reorder.go                  bytes out of order, and when their gaps are given up
//	udp.go                      datagrams
//	dedup.go, dedup_table.go     which copy of a connection speaks; NAT
//	event.go                    the session's own event
//
// Three rules carry the stream part. Bytes that come in order go to the parser as a slice of the packet, uncopied. A gap is only
// given up when the receiver has acknowledged it for longer than a grace – a capture often sees a segment later than the
// acknowledgement that covers it – or when time or memory runs out. And a segment waits while bytes that it acknowledges are
// missing from the other direction, so that a parser never sees a reply before its request.
//
// Time is the packets' own. A Table's clock only goes forward, by what the packets' times advance, so a capture whose clock
// jumps neither stops the timers nor lets them fire at every packet.
package sessions

import (
	"fmt"
	"net/netip"
	"time"

	"tidegate/pipeline"
	"tidegate/protocols"
)

// Config bounds what a Table may cost and how long it waits. Times are of packets.
type Config struct {
	// MaxSessions is how many connections a worker remembers; beyond it the least valuable of a few is evicted.
	MaxSessions int `yaml:"max_sessions"`
	// SessionBuffer and Buffer are how many bytes out of order may wait in one session and in all of a worker.
	SessionBuffer int `yaml:"session_buffer"`
	Buffer        int `yaml:"buffer"`
	// FragmentBuffer is how many bytes of IP fragments may wait in a worker.
	FragmentBuffer int `yaml:"fragment_buffer"`
	// Outbox is how many events of a worker may wait until it is known whether their session is seen on a bridge too.
	Outbox int `yaml:"outbox"`

	// TCPIdle ends a connection that is silent, SYNTimeout one that was never answered, UDPIdle an exchange of datagrams.
	TCPIdle    time.Duration `yaml:"tcp_idle"`
	SYNTimeout time.Duration `yaml:"syn_timeout"`
	UDPIdle    time.Duration `yaml:"udp_idle"`
	// FragmentTimeout is how long a datagram waits for its missing fragments.
	FragmentTimeout time.Duration `yaml:"fragment_timeout"`
	// Linger is how long a connection that has closed waits for late packets before its event is made.
	Linger time.Duration `yaml:"linger"`
	// Grace is how long bytes that the receiver has acknowledged may still be on their way to us, at least 10ms.
	Grace time.Duration `yaml:"grace"`
	// GapTimeout is how long bytes wait behind a gap that nobody has acknowledged.
	GapTimeout time.Duration `yaml:"gap_timeout"`
	// NATWait is how long the events of a session wait for the connection tracker's mapping.
	NATWait time.Duration `yaml:"nat_wait"`

	// Overlap says which bytes count where segments that wait overlap: those that came first, or last.
	Overlap string `yaml:"overlap"`
}

// Default is a Config that suits a busy host.
func Default() Config {
	return Config{
		MaxSessions: 64 << 10, SessionBuffer: 4 << 20, Buffer: 32 << 20, FragmentBuffer: 4 << 20, Outbox: 16 << 10,
		TCPIdle: 15 * time.Minute, SYNTimeout: 30 * time.Second, UDPIdle: 30 * time.Second, FragmentTimeout: 15 * time.Second,
		Linger: time.Second, Grace: 10 * time.Millisecond, GapTimeout: 2 * time.Second, NATWait: time.Second, Overlap: "first",
	}
}

// Check reports every value that cannot work.
func (c Config) Check() []error {
	var errs []error
	number := func(key string, v, low, high int) {
		if v < low || v > high {
			errs = append(errs, fmt.Errorf("sessions.%s: %d is not between %d and %d", key, v, low, high))
		}
	}
	span := func(key string, v, low, high time.Duration) {
		if v < low || v > high {
			errs = append(errs, fmt.Errorf("sessions.%s: %v is not between %v and %v", key, v, low, high))
		}
	}
	number("max_sessions", c.MaxSessions, 16, 16<<20)
	number("session_buffer", c.SessionBuffer, 64<<10, 1<<30)
	number("buffer", c.Buffer, 128<<10, 16<<30)
	number("fragment_buffer", c.FragmentBuffer, 128<<10, 1<<30)
	number("outbox", c.Outbox, 1, 1<<24)
	span("tcp_idle", c.TCPIdle, time.Second, 7*24*time.Hour)
	span("syn_timeout", c.SYNTimeout, time.Second, time.Hour)
	span("udp_idle", c.UDPIdle, time.Second, time.Hour)
	span("fragment_timeout", c.FragmentTimeout, time.Second, 2*time.Minute)
	span("linger", c.Linger, 0, time.Minute)
	span("grace", c.Grace, 10*time.Millisecond, 10*time.Second)
	span("gap_timeout", c.GapTimeout, c.Grace, time.Minute)
	span("nat_wait", c.NATWait, 0, time.Minute)
	if c.Overlap != "first" && c.Overlap != "last" {
		errs = append(errs, fmt.Errorf("sessions.overlap: %q is neither first nor last", c.Overlap))
	}
	return errs
}

// Deps is what a Table needs of the rest of the collector.
type Deps struct {
	Collector pipeline.ID
	Protocols *protocols.Set // one per Table
	// Container tells which container of this host has an address, nil none. It is asked when an event is emitted, since a
	// container may become known later than its first packets. Nil: there are no containers.
	Container func(netip.Addr) *pipeline.Container
	// Who tells which container had an address at a time, ns; settled is false while another answer may still come. Nil: Container
	// knows all there is to know.
	Who func(ip netip.Addr, at int64) (c *pipeline.Container, settled bool)
	// NAT is the connection tracker, nil none.
	NAT NAT
	// Bridge tells whether containers hang on an interface (docker0, br-…): its copy of a connection speaks. Nil: none is one,
	// and the interface that saw a connection first speaks for it.
	Bridge func(iface string) bool
	// Dedup is shared by the Tables of all workers; nil where there is only one Table.
	Dedup *DedupTable
	// Emit takes an event and owns it from then on.
	Emit func(*pipeline.Event)
}

// NAT tells how the host rewrites a connection. It is shared by all Tables, read-mostly, and safe for concurrent use.
type NAT interface {
	// Lookup finds the entry whose original or reply tuple is this one, as seen on the wire, in either direction. False: it is
	// not known (yet).
	Lookup(proto pipeline.Transport, src, dst netip.AddrPort) (Mapping, bool)
}

// A Mapping is the two forms of a connection's addresses. Client and Server are the container's side: before SNAT and after DNAT.
// The outside ones are what a host beyond sees. They are equal where there is no NAT.
type Mapping struct {
	Client, Server               netip.AddrPort
	OutsideClient, OutsideServer netip.AddrPort
}
