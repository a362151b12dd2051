package sessions

import (
	"encoding/binary"
	"net/netip"

	"github.com/zeebo/xxh3"

	"tidegate/collector/links"
	"tidegate/pipeline"
)

// A senderCache holds the results of checkSender for a while: most packets of a bridge come from a few addresses. It
// is direct-mapped.
type senderCache [cacheSize]struct {
	src     addr
	mac     uint64
	until   int64 // clock
	origin  frameOrigin
	spoofed bool
	forged  bool
}

// cacheSize is the number of places of senderCache and of receiverCache.
const cacheSize = 512

// cachePlace returns the place of an IP address and an Ethernet address in these caches.
func cachePlace(ip *addr, mac uint64) uint64 { return (ip.lo ^ mac*0x9e3779b97f4a7c15>>32) % cacheSize }

// macAt returns the Ethernet address at the front of data, its first byte in the upper ones.
func macAt(data []byte) uint64 {
	return uint64(binary.BigEndian.Uint32(data))<<16 | uint64(binary.BigEndian.Uint16(data[4:]))
}

// senderAge is the time, ns, for which a result of checkSender holds.
const senderAge = int64(1e9)

// A frameOrigin says where the frames of an interface come from.
type frameOrigin uint8

const (
	originUnknown frameOrigin = iota // of a file
	originHost                       // the host has sent it on the interface
	originPort                       // it came to the interface, on a bridge from one of its ports
)

// SetSentByHost says of the packets that follow whether this host has sent them on their interface. Without a call
// nothing is known of them.
func (t *Table) SetSentByHost(sent bool) {
	t.origin = originPort
	if sent {
		t.origin = originHost
	}
}

// checkSender compares the source addresses of a frame on a bridge. If the IP address is not that of the sender, as
// its MAC address shows, p gets keys of its own: it is no packet of the connection that its addresses name. The MAC
// address is not the sender's if the frame came from a port with that of the bridge.
func (t *Table) checkSender(p *packet, frame []byte) {
	if p.tunnel.kind != links.NoEncapsulation || len(frame) < 14 || !t.ifaces.list[p.iface].isBridge {
		return
	}
	p.mac = macAt(frame[6:])
	p.movedMAC = t.enricher.hasMovedMAC != nil && t.enricher.hasMovedMAC(p.mac, p.Time)
	p.origin = t.origin
	cached := &t.senders[cachePlace(&p.src, p.mac)]
	if cached.src != p.src || cached.mac != p.mac || cached.origin != p.origin || p.clock >= cached.until {
		cached.src, cached.mac, cached.origin, cached.until = p.src, p.mac, p.origin, p.clock+senderAge
		_, cached.spoofed = t.enricher.realSender(p.src.netip(), frameSender{p.src, p.mac, p.origin}, p.Time)
		cached.forged = p.origin == originPort && t.deps.IsMACOfBridge != nil &&
			t.deps.IsMACOfBridge(t.ifaces.list[p.iface].name, p.mac)
	}
	p.movedMAC = p.movedMAC || cached.forged
	if cached.spoofed {
		t.metrics.spoofedPackets.Inc()
		var fields [16]byte
		binary.LittleEndian.PutUint64(fields[0:], p.mac)
		binary.LittleEndian.PutUint64(fields[8:], p.tunnel.key)
		p.tunnel.key = max(xxh3.HashSeed(fields[:], t.decoder.tunnels.seed), 1)
	}
}

// A frameSender is an end of a connection on a bridge, as its first frame has it; the zero value is not known.
type frameSender struct {
	ip     addr
	mac    uint64
	origin frameOrigin
}

// realSender returns the container that sent a frame with the given source addresses at a time, if that is not the
// owner of ip. real is nil if it is not known.
func (r *enricher) realSender(ip netip.Addr, sender frameSender, at int64) (real *pipeline.Container, spoofed bool) {
	switch {
	case r.senders == nil:
		return nil, false
	case sender.origin != originPort && r.isHostMAC != nil && r.isHostMAC(sender.mac):
		return nil, false // the host routes packets of containers
	}
	return r.senders.CheckSender(ip, sender.mac, at)
}
