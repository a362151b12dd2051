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
type senderCache [512]struct {
	src     addr
	mac     uint64
	until   int64 // clock
	spoofed bool
}

// senderAge is the time, ns, for which a result of checkSender holds.
const senderAge = int64(1e9)

// checkSender compares the source addresses of a frame on a bridge. If the IP address is not that of the sender, as
// its MAC address shows, p gets keys of its own: it is no packet of the connection that its addresses name.
func (t *Table) checkSender(p *packet, frame []byte) {
	if p.tunnel.kind != links.NoEncapsulation || len(frame) < 14 || !t.ifaces.list[p.iface].isBridge {
		return
	}
	p.mac = uint64(binary.BigEndian.Uint32(frame[6:]))<<16 | uint64(binary.BigEndian.Uint16(frame[10:]))
	p.movedMAC = t.enricher.hasMovedMAC != nil && t.enricher.hasMovedMAC(p.mac, p.Time)
	cached := &t.senders[(p.src.lo^p.mac*0x9e3779b97f4a7c15>>32)%uint64(len(t.senders))]
	if cached.src != p.src || cached.mac != p.mac || p.clock >= cached.until {
		cached.src, cached.mac, cached.until = p.src, p.mac, p.clock+senderAge
		_, cached.spoofed = t.enricher.realSender(p.src.netip(), p.mac, p.Time)
	}
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
	ip  addr
	mac uint64
}

// realSender returns the container that sent a frame with the given source addresses at a time, if that is not the
// owner of ip. real is nil if it is not known.
func (r *enricher) realSender(ip netip.Addr, mac uint64, at int64) (real *pipeline.Container, spoofed bool) {
	if r.senders == nil || r.isHostMAC != nil && r.isHostMAC(mac) { // the host routes packets of containers
		return nil, false
	}
	return r.senders.CheckSender(ip, mac, at)
}
