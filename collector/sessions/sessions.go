// Package sessions turns packets into the connections that they belong to, and into events.
//
// Packets come from collector/capture. Each capture worker has one Table, which it alone uses: Table.Packet
// decodes a frame, puts IP fragments together, finds the connection, and hands the segment to
// collector/reassembly, which puts the bytes of both directions in order. The bytes go to a protocols.Conn,
// whose parser makes events of them. Events of parsers, and one event for each session, go out through
// Deps.Emit.
//
// The way of a packet:
//
//	decode.go, decode_ip.go  frame → addresses, ports, TCP header, payload; no allocation
//	defrag.go                fragments of IPv4 and IPv6 → datagrams
//	dup_filter.go            drops the second copy of a packet
//	table.go                 the map of flows, eviction; heap.go, clock.go: timers
//	flow.go                  one connection: its protocols.Conn, its timers
//	tcp.go, udp.go           packets of a flow; whether a SYN begins a new one
//	direction.go             which side is the client
//	streams.go               what reassembly returns: bytes, gaps, ends, statistics
//	dedup.go, dedup_table.go which copy of a connection is reported; nat.go: what addresses it has
//	outbox.go                events that wait until that is decided
//	enrich.go                events that wait until their container is known
//	event.go, history.go     the event of the session
//
// # States of a flow
//
//	opened ──▶ closing ──CloseLinger──▶ dead ──timeWait──▶ removed
//	   │                            ▲
//	   └──idle, evicted, replaced───┘
//
// A TCP flow is closing when it was reset or both sides have ended (package reassembly has the states of the
// connection before that). The session's event is emitted when the flow becomes dead. A dead flow stays for a
// while: late packets of the connection must not begin a new one, and the copies of other interfaces must
// find its claim.
//
// # States of deduplication
//
// A connection that passes several interfaces of a host, a bridge and eth0 for example, is a flow on each of
// them. The events of one are reported: the primary. Which one, the flows find out through claims in a
// DedupTable.
//
//	on a bridge:  first packet ──claim──▶ primary ──another leg of the connection is primary──▶ duplicate
//	                           ──another bridge claimed it──▶ duplicate
//	elsewhere:    first packet ──claimed by a bridge──▶ duplicate
//	                           ──else──▶ pending ──claimed by a bridge meanwhile──▶ duplicate
//	                                             ──no bridge can see it, or NATTimeout is over──▶ primary
//
// While a flow is pending its events wait in its outbox. primary emits them, duplicate drops them. A flow
// that has become a duplicate stays one. A DedupTable has locks of its own, never two at a time; it is the
// only thing that Tables share and write.
//
// # Time
//
// Packet time is what the packets say (ns since 1970); it is what events show. Timers go by the Table's clock
// (packetClock), which only goes forward. In names and comments a "clock" value is of the latter.
package sessions

import (
	"net/netip"

	"tidegate/pipeline"
	"tidegate/protocols"
)

// Deps is what a Table needs of the rest of the collector. Only Emit must be set.
type Deps struct {
	// Collector is part of the ids of sessions.
	Collector pipeline.ID
	// Protocols opens a parser for each connection. A Set belongs to one Table. Nil: only sessions are
	// reported.
	Protocols *protocols.Set
	// Containers resolves the addresses of events. Nil: the host has no containers.
	Containers Containers
	// NAT is the connection tracker. Nil: no connection is translated.
	NAT NAT
	// Bridge reports whether containers are attached to an interface (docker0, br-…). The copy of a
	// connection on a bridge is the primary. Nil: every interface is treated as a bridge, so the first to see
	// a connection reports it.
	Bridge func(iface string) bool
	// Dedup is shared by the Tables of all workers. Nil: the Table is the only one.
	Dedup *DedupTable
	// Emit takes an event and owns it from then on.
	Emit func(*pipeline.Event)
}

// Containers finds the containers of this host. It is shared by all Tables and safe for concurrent use. A
// containers.Registry is one.
type Containers interface {
	// Resolve returns the container that had an address at a time (ns), nil if none had. It is not settled
	// while another answer may still come.
	Resolve(ip netip.Addr, at int64) (c *pipeline.Container, settled bool)
}

// NAT knows how the host rewrites connections. It is shared by all Tables, mostly read, and safe for
// concurrent use.
type NAT interface {
	// Lookup returns the Mapping of the connection that has this tuple as its original or reply tuple, in
	// either direction. ok is false while the connection is not known.
	Lookup(proto pipeline.Transport, src, dst netip.AddrPort) (m Mapping, ok bool)
}

// A Mapping is the two forms of a connection's addresses. Client and Server are as on the container's side:
// before SNAT and after DNAT. The outside ones are as a host beyond sees them. Both forms are equal where
// there is no NAT.
type Mapping struct {
	Client, Server               netip.AddrPort
	OutsideClient, OutsideServer netip.AddrPort
}

// isTranslated reports whether the two forms differ.
func (m *Mapping) isTranslated() bool {
	return m.Client != m.OutsideClient || m.Server != m.OutsideServer
}
