package sessions

import "tidegate/collector/links"

// A sender can have a segment captured that its receiver does not take: TCP signs what nobody has agreed to
// sign, or the frame goes to the Ethernet address of another, which a bridge forwards all the same. Such a
// segment is doubtful: the acknowledgement of the receiver decides whether its bytes count.

// isSigned reports whether options, of a segment of TCP, have a signature: MD5 (RFC 2385) or TCP-AO (RFC 5925). Linux
// drops a segment with a signature for which it has no key.
func isSigned(options []byte) bool {
	const end, noOperation, timestamps, md5, authentication = 0, 1, 8, 19, 29
	if len(options) == 12 && options[0]|options[1] == noOperation && options[2] == timestamps && options[3] == 10 {
		return false // nearly all segments
	}
	for len(options) > 0 && options[0] != end {
		if options[0] == noOperation {
			options = options[1:]
			continue
		}
		if len(options) < 2 || options[1] < 2 || int(options[1]) > len(options) {
			return false
		}
		if options[0] == md5 || options[0] == authentication {
			return true
		}
		options = options[options[1]:]
	}
	return false
}

// A receiverCache holds the results of lookUpReceiver for a while, as senderCache does.
type receiverCache [cacheSize]receiverEntry

type receiverEntry struct {
	src, dst addr
	mac      uint64
	until    int64 // clock
	result   receiverResult
}

// A receiverResult says whether the destination of a frame takes it.
type receiverResult uint8

const (
	receiverTakes   receiverResult = iota
	receiverUnknown                // the Ethernet address is that of no known owner of the IP address
	receiverOther                  // the Ethernet address is that of another
)

// checkReceiver compares the destination addresses of a frame on a bridge with a segment of TCP that has
// bytes. If the IP address is not that of the interface that the frame goes to, the segment is doubtful.
func (t *Table) checkReceiver(p *packet, frame []byte) {
	if p.Size == 0 || p.tunnel.kind != links.NoEncapsulation || len(frame) < 14 || !t.ifaces.list[p.iface].isBridge {
		return
	}
	if frame[0]&1 != 0 { // broadcast or multicast, which TCP does not have (RFC 9293, section 3.9.2.3)
		p.refused, p.Doubtful = true, true
		return
	}
	if t.deps.Senders == nil {
		return
	}
	mac := macAt(frame)
	cached := &t.receivers[cachePlace(&p.dst, mac)]
	if cached.dst != p.dst || cached.src != p.src || cached.mac != mac || p.clock >= cached.until {
		*cached = receiverEntry{p.src, p.dst, mac, p.clock + senderAge, t.lookUpReceiver(p, mac)}
	}
	if cached.result != receiverTakes {
		p.Doubtful = true
		p.refused = p.refused || cached.result == receiverOther
	}
}

// lookUpReceiver returns whether the owner of p.dst has the Ethernet address mac. The host forwards what is sent to one
// of its addresses. The owner of an address that is no container's is not known: if a container sends to it, and not by
// way of the host, the segment is doubtful.
func (t *Table) lookUpReceiver(p *packet, mac uint64) receiverResult {
	if t.deps.IsHostMAC != nil && t.deps.IsHostMAC(mac) {
		return receiverTakes
	}
	dst := p.dst.netip()
	if _, other := t.deps.Senders.CheckSender(dst, mac, p.Time); other {
		return receiverOther
	}
	if t.deps.Containers == nil || t.deps.IsHostMAC == nil {
		return receiverTakes
	}
	if owner, _ := t.deps.Containers.Resolve(dst, p.Time); owner != nil {
		return receiverTakes
	}
	if sender, _ := t.deps.Containers.Resolve(p.src.netip(), p.Time); sender != nil {
		return receiverUnknown
	}
	return receiverTakes
}
