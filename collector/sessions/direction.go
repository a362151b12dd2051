package sessions

import "net/netip"

// guessDirection finds out which end is the client from the first packet, p, which the end sender has sent.
// The event's direction_confidence says how certain that is: a handshake is, the connection tracker nearly,
// ports are a hint. For UDP the side that sends first is the client unless the ports say otherwise clearly.
func (f *flow) guessDirection(p *packet, sender uint8) {
	isTCP := f.key.proto == protoTCP
	switch {
	case isTCP && p.isSYN():
		f.setDirection(sender, 100)
		return
	case isTCP && p.isSYNACK():
		f.setDirection(sender^1, 95)
		return
	}

	// The connection began before the capture. The connection tracker may know it.
	if nat := f.t.deps.NAT; nat != nil {
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

	// Compare the ports. A clear difference is worth more than a small one.
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

func (f *flow) setDirection(clientSide, confidence uint8) {
	f.clientSide, f.stats.directionConfidence = clientSide, confidence
}

// serverScore returns how much a port looks like that of a server, 0 to 3.
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
