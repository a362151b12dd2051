// Package sessions turns packets into sessions, and the bytes of sessions into events.
//
// Packets come from collector/capture, whose workers call Table.Packet. Each worker has a Table of its own. A
// Table decodes a frame, puts IP fragments together, finds the connection (a flow), and hands the segment to
// collector/reassembly, which puts the bytes of both directions in order. The bytes go to a protocols.Conn,
// whose parser makes events of them. The events of the parsers, and one event for each session, leave through
// Deps.Emit.
//
// The way of a packet:
//
//	decode.go, decode_*.go    frame → addresses, ports, TCP header, payload
//	checksum.go               whether a packet is valid
//	damaged.go                packets whose headers are damaged
//	undecoded.go              packets that are not decoded
//	sender.go                 whether a frame on a bridge has the address of its sender
//	tunnel.go                 which tunnels are opened, and the tunnel of a flow
//	defrag.go                 fragments of IPv4 and IPv6 → datagrams
//	dup_filter.go             drops a packet that was captured twice
//	table.go                  finds the flow; timers (heap.go, clock.go) and eviction
//	flow.go                   one connection: its protocols.Conn, its timers, its end
//	tcp.go, udp.go            packets of a flow; whether a SYN begins another connection
//	direction.go              which side is the client
//	streams.go                bytes, gaps and statistics from reassembly
//	dedup.go, dedup_table.go  which copy of a connection is reported
//	copies.go                 whether two flows have seen the same payload
//	takeover.go               when another copy is reported from now on
//	nat.go                    the addresses of a connection behind NAT
//	outbox.go                 events that wait until deduplication is decided
//	enrich.go                 events that wait until their containers are known
//	receiver.go, marks.go     what the receiver has acknowledged; tags of doubt
//	event.go, history.go      the event of the session
//
// # States of a flow
//
//	open ──── reset, or both sides have ended ▶ closing
//	closing ─ the connection goes on ─────────▶ open
//	open ──── idle, evicted, or replaced ─────▶ dead
//	closing ─ CloseLinger is over ────────────▶ dead     the session's event is emitted
//	dead ──── timeWait is over ───────────────▶ removed
//	dead ──── the connection goes on ─────────▶ removed  a new flow reports it from there on
//
// A dead flow stays for a while: late packets of the connection must not begin a new flow, and the flows of
// other interfaces must find its claim. Package reassembly has the states of a TCP connection in detail.
//
// # States of deduplication
//
// A connection that crosses several interfaces of the host, a bridge and eth0 for example, is a flow on each
// of them. Only one flow is reported, the primary. Flows claim their connection in a DedupTable to decide
// which one that is.
//
//	on a bridge ─ the first packet claims the connection ──────▶ primary
//	on a bridge ─ another bridge has claimed it ───────────────▶ pending
//	elsewhere ──────────────────────────────────────────────────▶ pending
//	pending ───── another flow has claimed it and has seen the same payload ▶ duplicate
//	pending ───── no bridge carries it, or NATTimeout is over ─▶ primary
//	pending ───── who has claimed it has seen other payload ───▶ primary      (both are reported)
//	pending ───── who has claimed it sees one end only ────────▶ primary      (and takes the claim)
//	primary ───── another leg of the connection is primary ────▶ pending      (checked once, at its first event)
//	primary ───── it sees one end only, on a bridge ───────────▶ pending      (likewise)
//	primary ───── who has claimed it shows the same payload by now ▶ a new flow, pending
//	duplicate ─── its primary sees none of its packets ────────▶ a new flow, which begins in mid-stream
//	duplicate ─── its primary has seen other bytes ────────────▶ a new flow, primary (both are reported)
//	primary ───── a duplicate has taken its claims ────────────▶ a new flow, pending
//
// The events of a pending flow wait in its outbox. A primary emits them, a duplicate drops them. A flow on a bridge
// whose ends are in none of the bridge's networks (foreign) claims nothing and takes no claims.
//
// # Locks
//
// A Table has no locks. Tables share the DedupTable, which has locks of its own and holds one at a time, and
// the read-only Containers and NAT.
//
// # Time
//
// Packet time is the time stamp of the capture, ns since 1970; events carry it. Timers go by the Table's
// clock (packetClock), which only goes forward. A field with "clock" in its comment holds a time of
// that clock.
package sessions

import (
	"net/netip"

	"tidegate/collector/links"
	"tidegate/pipeline"
	"tidegate/pipeline/memory"
	"tidegate/protocols"
)

// Deps are the parts of the collector that a Table uses. Only Emit must be set.
type Deps struct {
	// Collector is part of the ids of sessions.
	Collector pipeline.ID
	// Protocols opens a parser for each connection. A Set belongs to one Table. Nil: only sessions are
	// reported.
	Protocols *protocols.Set
	// Containers resolves the addresses of events. Nil: the host has no containers.
	Containers Containers
	// Senders checks the source addresses of frames on bridges. Nil: a packet is that of the container whose
	// address it has.
	Senders Senders
	// IsHostMAC reports whether an Ethernet address, its first byte in the upper ones, is one of this host,
	// which routes the packets of containers. Nil: none is.
	IsHostMAC func(mac uint64) bool
	// IsMACOfBridge reports whether an Ethernet address is that of a bridge or of one of its ports. Nil: none is.
	IsMACOfBridge func(bridge string, mac uint64) bool
	// HasMovedMAC reports whether two containers have sent with an Ethernet address about a time, ns. Nil: none have.
	HasMovedMAC func(mac uint64, at int64) bool
	// NAT is the connection tracker. Nil: no connection is translated.
	NAT NAT
	// Bridge reports whether containers are attached to an interface (docker0, br-…). The copy of a
	// connection on a bridge is the primary. Nil: every interface is treated as a bridge, so the first flow
	// of a connection is the primary.
	Bridge func(iface string) bool
	// IsOutsideBridge reports whether an address is in none of the networks of a bridge. A connection on a bridge
	// of which both ends are outside was routed by a container, or is forged, and keeps no copy of it elsewhere
	// from being reported. Nil: it is not known of any.
	IsOutsideBridge func(bridge string, ip netip.Addr) bool
	// Tunnels decides which tunnels are opened. Nil: none.
	Tunnels Tunnels
	// IsTranslated reports for certain whether the host has rewritten the addresses of a packet of the IP
	// protocol proto: an outer packet with the address of this host is then a container's. Nil: none is
	// rewritten.
	IsTranslated func(proto uint8, src, dst netip.AddrPort) bool
	// Dedup is shared by the Tables of all workers. Nil: the Table is the only one.
	Dedup *DedupTable
	// Memory bounds what the Tables of all workers hold together. Nil: each of their parts has its own bound.
	Memory *memory.Budget
	// Undecoded is called for each packet that was not decoded, with the result under which it is counted. Nil:
	// they are counted only.
	Undecoded func(where Undecoded, result string)
	// Emit takes an event and owns it from then on.
	Emit func(*pipeline.Event)
}

// Containers finds the containers of this host. It is shared by all Tables and safe for concurrent use. A
// containers.Registry is one.
type Containers interface {
	// Resolve returns the container that had the address ip at the time at (ns), nil if none had. final is
	// false while the result may still change.
	Resolve(ip netip.Addr, at int64) (c *pipeline.Container, final bool)
}

// Senders checks source addresses against the MAC addresses of the containers of this host. It is shared by
// all Tables and safe for concurrent use. A containers.Registry is one.
type Senders interface {
	// CheckSender reports whether a frame from mac, at the time at (ns), has the source address ip of another
	// one. real is the container that sent it, nil if that is not known.
	CheckSender(ip netip.Addr, mac uint64, at int64) (real *pipeline.Container, spoofed bool)
}

// Tunnels lists the tunnels whose packets are read. It is shared by all Tables and safe for concurrent use. A
// links.Monitor is one.
type Tunnels interface {
	// IsKnown reports whether the packet inside of one with the header outer, captured on iface, is to be
	// read.
	IsKnown(iface string, outer links.OuterHeader) bool
}

// EveryTunnel contains every tunnel. It is for captures of which nothing else is known, never for the
// interfaces of a host: who may send packets to them could have connections of others reported that never
// were.
var EveryTunnel Tunnels = everyTunnel{}

type everyTunnel struct{}

func (everyTunnel) IsKnown(string, links.OuterHeader) bool { return true }

// A NAT maps the connections that the host rewrites. It is shared by all Tables, mostly read, and safe for
// concurrent use.
type NAT interface {
	// Lookup returns the Mapping of the connection that has this tuple as its original or reply tuple, in
	// either direction. ok is false while the connection tracker has no such connection.
	Lookup(proto pipeline.Transport, src, dst netip.AddrPort) (m Mapping, ok bool)
}

// A Mapping holds both forms of a connection's addresses. Client and Server are the addresses on the
// container's side: before SNAT and after DNAT. OutsideClient and OutsideServer are the addresses on the
// other side of NAT. Both forms are equal where there is no NAT.
type Mapping struct {
	Client, Server               netip.AddrPort
	OutsideClient, OutsideServer netip.AddrPort
}

// isTranslated reports whether the two forms differ.
func (m *Mapping) isTranslated() bool {
	return m.Client != m.OutsideClient || m.Server != m.OutsideServer
}
