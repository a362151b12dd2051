package sessions

import "net/netip"

// inferDirection sets the client side of f. p is the first packet, and sender the end of f.key that sent p.
// The session event's direction_confidence is the certainty of the result in percent: high for a handshake or
// an entry of the connection tracker, low for a comparison of ports. Over UDP the side that sends first is
// the client, unless the difference of the ports is clear.
func (f *flow) inferDirection(p *packet, sender uint8) {
	isTCP := f.key.proto == protoTCP
	switch {
	case isTCP && p.isSYN():
		f.setDirection(sender, 100)
		return
	case isTCP && p.isSYNACK():
		f.setDirection(sender^1, 95)
		return
	}

	// The connection began before the capture, or is not TCP. The connection tracker may have an entry.
	if nat := f.table.deps.NAT; nat != nil && f.tunnel == nil {
		src, dst := netip.AddrPortFrom(p.src.netip(), p.sport), netip.AddrPortFrom(p.dst.netip(), p.dport)
		if mapping, ok := nat.Lookup(f.transport(), src, dst); ok {
			f.nat = natState{known: true, mapping: mapping}
			if src == mapping.Server || src == mapping.OutsideServer {
				sender ^= 1
			}
			f.setDirection(sender, 98)
			return
		}
	}

	// Compare the ports. A larger difference gives a higher confidence.
	from, to := serverScore(p.sport), serverScore(p.dport)
	switch {
	case from > to && (isTCP || from-to > 1):
		f.setDirection(sender^1, 60+10*uint8(from-to))
	case from < to:
		f.setDirection(sender, 60+10*uint8(to-from))
	case !isTCP:
		f.setDirection(sender, 70)
	default:
		f.setDirection(sender, 40)
	}
}

// setDirection sets the end of f.key that is the client, and the confidence in percent.
func (f *flow) setDirection(clientSide, confidence uint8) {
	f.clientSide, f.stats.directionConfidence = clientSide, confidence
}

// serverScore returns how likely a port is the port of a server, from 0 (ephemeral) to 3 (system port).
func serverScore(port uint16) int {
	switch port {
	case 1433, 1521, 1883, 2181, 2375, 2376, 2379, 2380, 3000, 3128, 3306, 4222, 5000, 5432, 5672, 5984, 6379,
		6443, 7000, 8000, 8080, 8081, 8086, 8123, 8200, 8443, 8500, 8888, 9000, 9042, 9090, 9092, 9200, 9300,
		10250, 11211, 15672, 26379, 27017, 33060: // registered ports of well-known servers
		return 2
	}
	switch {
	case port == 0:
		return 0
	case port < 1024: // system ports, RFC 6335
		return 3
	case port < 32768: // below Linux's ephemeral ports
		return 1
	}
	return 0
}
