package sessions

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"

	"github.com/zeebo/xxh3"

	"tidegate/collector/links"
	"tidegate/pipeline"
)

// A tunnel identifies the tunnels around a packet. The zero value stands for none.
type tunnel struct {
	// key is a hash of all tunnels around the packet: their kinds, ids and pairs of outer addresses. It is the same
	// in both directions, and 0 without a tunnel. It is part of the keys of flows, claims, fragments and copies, so
	// that a packet inside a tunnel and one outside of it never belong together.
	key      uint64
	kind     links.Encapsulation // of the innermost tunnel, as the following
	id       uint32
	src, dst addr // outer addresses; zero if the tunnel is not in IP
}

// A tunnelGate decides which tunnels a decoder opens. The decision about a pair of addresses and ports is kept for a
// while, because it takes several look-ups.
type tunnelGate struct {
	table   *Table
	seed    uint64 // of tunnel.key: a sender cannot choose its tunnel so that the key equals another one's
	decided [tunnelDecisions]tunnelDecision
}

// A tunnelDecision is the decision about packets with one outer header.
type tunnelDecision struct {
	hash  uint64
	until int64 // clock
	opens bool
}

const (
	tunnelDecisions = 256
	// decisionAge is the time, ns, for which a decision holds. It bounds how long a tunnel is opened after its device
	// is gone.
	decisionAge = int64(1e9)
)

func newTunnelGate(table *Table) tunnelGate { return tunnelGate{table: table, seed: rand.Uint64()} }

// opens reports whether the packet behind a header of the given kind is to be read. p has the addresses and ports
// of the headers before it. If the packet is not to be read, opens notes the kind in p.
func (d *decoder) opens(p *packet, kind links.Encapsulation, id uint32, depth int) bool {
	gate := &d.tunnels
	if gate.table.deps.Tunnels == EveryTunnel {
		return true
	}
	outer := links.OuterHeader{Kind: kind, ID: id, Nested: depth > 0}
	var fields [64]byte
	if p.src != (addr{}) {
		outer.Src, outer.Dst = p.src.netip(), p.dst.netip()
		if p.proto == protoUDP {
			outer.SrcPort, outer.DstPort = p.sport, p.dport
		}
		binary.LittleEndian.PutUint64(fields[0:], p.src.hi)
		binary.LittleEndian.PutUint64(fields[8:], p.src.lo)
		binary.LittleEndian.PutUint64(fields[16:], p.dst.hi)
		binary.LittleEndian.PutUint64(fields[24:], p.dst.lo)
		binary.LittleEndian.PutUint32(fields[32:], uint32(p.sport)<<16|uint32(p.dport))
	}
	binary.LittleEndian.PutUint32(fields[36:], id)
	binary.LittleEndian.PutUint64(fields[40:], p.tunnel.key)
	binary.LittleEndian.PutUint32(fields[48:], uint32(kind)<<16|uint32(p.iface))

	hash := xxh3.HashSeed(fields[:], gate.seed)
	decision := &gate.decided[hash%tunnelDecisions]
	if decision.hash != hash || p.clock >= decision.until {
		*decision = tunnelDecision{hash: hash, until: p.clock + decisionAge, opens: gate.table.opensTunnel(p, outer)}
	}
	if !decision.opens {
		p.unopened = kind
	}
	return decision.opens
}

// opensTunnel reports whether a tunnel is known on the interface of p and is not a container's. A container that
// sends to the port of a tunnel is seen on eth0 with the address of the host, as if the host were the tunnel's end:
// the connection tracker knows better.
func (t *Table) opensTunnel(p *packet, outer links.OuterHeader) bool {
	if t.deps.Tunnels == nil || int(p.iface) >= len(t.ifaces.list) {
		return false
	}
	iface := &t.ifaces.list[p.iface]
	if iface.isBridge || !t.deps.Tunnels.IsKnown(iface.name, outer) {
		return false
	}
	if !outer.Src.IsValid() {
		return true
	}
	if t.deps.Containers != nil {
		for _, ip := range [...]netip.Addr{outer.Src, outer.Dst} {
			if container, _ := t.deps.Containers.Resolve(ip, p.Time); container != nil {
				return false
			}
		}
	}
	if t.deps.IsTranslated == nil {
		return true
	}
	src, dst := netip.AddrPortFrom(outer.Src, outer.SrcPort), netip.AddrPortFrom(outer.Dst, outer.DstPort)
	return !t.deps.IsTranslated(p.proto, src, dst)
}

// enterTunnel notes in p that the headers that follow are inside a tunnel, if the tunnel is to be opened. It reports
// whether it is.
func (d *decoder) enterTunnel(p *packet, kind links.Encapsulation, id uint32, depth int) bool {
	if !d.opens(p, kind, id, depth) {
		return false
	}
	around := tunnel{kind: kind, id: id}
	switch kind {
	case links.MPLS, links.PPPoE, links.PBB, links.TRILL, links.FabricPath: // not in IP
	default:
		around.src, around.dst = p.src, p.dst
	}
	around.key = d.tunnels.tunnelKey(p.tunnel.key, &around)
	p.tunnel = around
	return true
}

// tunnelKey returns tunnel.key of a tunnel inside of others, whose key is outside.
func (g *tunnelGate) tunnelKey(outside uint64, around *tunnel) uint64 {
	fields := around.fields()
	if around.kind == links.GTP { // each direction has an endpoint of its own
		binary.LittleEndian.PutUint32(fields[36:], 0)
	}
	binary.LittleEndian.PutUint64(fields[40:], outside)
	return max(xxh3.HashSeed(fields[:], g.seed), 1)
}

// fields returns the kind, the id and the addresses of a tunnel, the smaller address first.
func (t *tunnel) fields() (fields [48]byte) {
	low, high := t.src, t.dst
	if !endpointLess(low, 0, high, 0) {
		low, high = high, low
	}
	binary.LittleEndian.PutUint64(fields[0:], low.hi)
	binary.LittleEndian.PutUint64(fields[8:], low.lo)
	binary.LittleEndian.PutUint64(fields[16:], high.hi)
	binary.LittleEndian.PutUint64(fields[24:], high.lo)
	binary.LittleEndian.PutUint32(fields[32:], uint32(t.kind))
	binary.LittleEndian.PutUint32(fields[36:], t.id)
	return fields
}

// enterVLAN notes in p the VLAN id of a tag with the EtherType typ. On a bridge the VLAN is part of the keys
// of p, as if it were a tunnel: the containers on a bridge can tag their frames as they like, and one with
// another tag reaches none of those that the address names. The id 0 is no VLAN but a tag that has a priority
// only (IEEE 802.1Q, 9.6): Linux takes the frame as one without the tag, however many there are, if the tag
// is of 802.1Q or 802.1ad.
func (d *decoder) enterVLAN(p *packet, typ, id uint16) {
	if id == 0 && (typ == etherVLAN || typ == etherQinQ) {
		return
	}
	p.vlan = id
	if list := d.tunnels.table.ifaces.list; int(p.iface) < len(list) && list[p.iface].isBridge {
		p.tunnel.key = max(xxh3.HashSeed([]byte{byte(id), byte(id >> 8)}, d.tunnels.seed^p.tunnel.key), 1)
	}
}

// setTunnel sets the tunnel of f to that of its first packet p.
func (f *flow) setTunnel(p *packet) {
	if p.tunnel.kind != links.NoEncapsulation {
		around := p.tunnel
		f.tunnel = &around
	}
}

// orientTunnel makes the source of the tunnel the side of the client. sender is the end of f.key that sent the first
// packet.
func (f *flow) orientTunnel(sender uint8) {
	if f.tunnel != nil && sender != f.clientSide {
		f.tunnel.src, f.tunnel.dst = f.tunnel.dst, f.tunnel.src
	}
}

// sessionID returns the ID of a session in the tunnel from the ID that it would have without. The same addresses may
// be in use in several tunnels at once.
func (t *tunnel) sessionID(session pipeline.ID) pipeline.ID {
	fields := t.fields()
	return xxh3.Hash128(append(fields[:], session[:]...)).Bytes()
}

// describeTunnel sets the tunnel of the event. The parser may have found that the event's source is the server of f.
func (f *flow) describeTunnel(event *pipeline.Event) {
	src, dst := f.tunnel.src, f.tunnel.dst
	if source := event.Source; source != nil {
		ip, _ := netip.AddrFromSlice(source.Ip)
		client, server := f.endpoints()
		if client != server && netip.AddrPortFrom(ip, uint16(source.Port)) == server {
			src, dst = dst, src
		}
	}
	if event.Tunnel == nil {
		event.Tunnel = pipeline.TunnelFromVTPool()
	}
	event.Tunnel.Type, event.Tunnel.Id = f.tunnel.kind.String(), f.tunnel.id
	if src != (addr{}) {
		event.Tunnel.SourceIp = appendIP(event.Tunnel.SourceIp[:0], src.netip())
		event.Tunnel.DestinationIp = appendIP(event.Tunnel.DestinationIp[:0], dst.netip())
	}
}
