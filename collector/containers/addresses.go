package containers

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"tidegate/pipeline"
)

// A MAC is an Ethernet address, its first byte in the upper ones; 0: unknown.
type MAC = uint64

// An endpoint is an address of a container in a network.
type endpoint struct {
	ip  netip.Addr
	mac MAC
}

// A holding is the time in which a container has, or had, an endpoint.
type holding struct {
	endpoint
	from    int64 // ns since 1970
	to      int64 // its last ns; 0: the container still has it
	guessed bool  // from is the start of the container; its network was there somewhat earlier
}

const (
	// beforeStart is how long before its start, as the API reports it, a container may have sent packets. It is for
	// containers whose connection to their network was not observed.
	beforeStart = time.Second

	// maxHoldings bounds the past holdings of one container, which whoever may use the API can connect and disconnect.
	maxHoldings = 64

	// maxTombstones bounds the containers that do not exist any more and are still known.
	maxTombstones = 4096
)

// recordHoldings notes which endpoints e has from now on. old are its holdings so far, and at is the time of the change. r.mu is
// held.
func (r *Registry) recordHoldings(e *entry, old []holding, at int64) {
	e.holdings = slices.Clone(old)
	for i := range e.holdings {
		if held := &e.holdings[i]; held.to == 0 && !slices.Contains(e.endpoints, held.endpoint) {
			held.to = max(at, held.from)
		}
	}
	connected := r.connected[e.container.Id]
	for _, found := range e.endpoints {
		added := holding{endpoint: found, from: e.started, guessed: true}
		if connected != 0 {
			added.from, added.guessed = connected, false
		}
		if added.from == 0 {
			added.from = at
		}
		known := slices.IndexFunc(e.holdings, func(held holding) bool { return held.to == 0 && held.endpoint == found })
		if known < 0 {
			e.holdings = append(e.holdings, added)
		} else if held := &e.holdings[known]; held.guessed && !added.guessed {
			held.from, held.guessed = min(held.from, added.from), false
		}
	}
	if surplus := len(e.holdings) - maxHoldings; surplus > 0 {
		e.holdings = slices.Delete(e.holdings, 0, surplus)
		r.metrics.dropped.WithLabelValues("too_many_addresses").Add(float64(surplus))
	}
}

// release ends all holdings of e. r.mu is held.
func (e *entry) release(at int64) {
	for i := range e.holdings {
		if held := &e.holdings[i]; held.to == 0 {
			held.to = max(at, held.from)
		}
	}
}

// noteConnected stores when the container with that id was connected to a network: it can send packets from then on,
// which is before the start that the API reports. r.mu is held.
func (r *Registry) noteConnected(id string, at int64) {
	if len(r.connected) >= maxTombstones {
		clear(r.connected) // only containers that never start stay in it
	}
	r.connected[id] = at
}

// An owner is a container in the time in which it has, or had, an address.
type owner struct {
	container *pipeline.Container
	holding
}

func (o *owner) covers(at int64) bool { return at >= o.from && (o.to == 0 || at <= o.to) }

// owners are those of one address, the latest one last.
type owners []owner

// ownerAt returns the one container that had the address at a time. It returns nil if none had, or several had: two
// networks may use the same addresses.
func (list owners) ownerAt(at int64) *owner {
	var found *owner
	for i := range list {
		if candidate := &list[i]; candidate.covers(at) {
			if found != nil && found.container != candidate.container {
				return nil
			}
			found = candidate
		}
	}
	return found
}

// addressIndex returns the owners of all addresses of the entries, by IP and by MAC address.
func addressIndex(entries map[string]*entry) (byIP map[netip.Addr]owners, byMAC map[MAC]owners) {
	var all []owner
	for _, entry := range entries {
		for _, held := range entry.holdings {
			all = append(all, owner{entry.container, held})
		}
	}
	slices.SortFunc(all, func(a, b owner) int {
		return cmp.Or(a.ip.Compare(b.ip), cmp.Compare(a.from, b.from), cmp.Compare(a.container.Id, b.container.Id))
	})

	// A guess reaches back to where the one before ends, but not further than beforeStart.
	byIP = make(map[netip.Addr]owners, len(all))
	for first := 0; first < len(all); {
		last := first
		for ; last < len(all) && all[last].ip == all[first].ip; last++ {
			if held := &all[last]; held.guessed {
				held.from -= int64(beforeStart)
				if last > first && all[last-1].to != 0 {
					held.from = min(max(held.from, all[last-1].to+1), held.from+int64(beforeStart))
				}
			}
		}
		byIP[all[first].ip] = all[first:last:last]
		first = last
	}

	byMAC = make(map[MAC]owners, len(all))
	for i := range all {
		if mac := all[i].mac; mac != 0 {
			byMAC[mac] = append(byMAC[mac], all[i])
		}
	}
	return byIP, byMAC
}
