package sessions

import (
	"net/netip"
	"sync"
	"sync/atomic"
)

// A DedupTable records which flow reports each connection, for all Tables of a process. A connection that is
// seen on a bridge and on eth0, or on two bridges, is two flows in two Tables. Two goroutines run the Tables,
// and either may be ahead of the other.
//
// A claim is stored under the addresses of the connection. There are two ways to make a claim:
//
//   - A flow on a bridge claims its tuple with its first packet. The first bridge wins.
//   - A flow elsewhere looks for such a claim when it begins, and again when it has an event and its mapping is
//     known. If there is no claim and none is expected, or the wait is over, the flow claims its tuples itself.
//
// Claims are made under a lock, and a flow that finds the claim of another flow is a duplicate from then on.
// So every event is reported once, in whatever order the flows come. A claim outlives its flow by a few
// seconds (timeWait), for copies that end later.
//
// Locks: each shard has a lock, and mu guards the writing of names. No code holds two locks at once.
type DedupTable struct {
	shards [dedupShards]dedupShard
	mu     sync.Mutex
	names  atomic.Pointer[[]string] // of interfaces, by number; copied on write
}

const dedupShards = 64

// A dedupShard holds the claims with one hash of their keys. mu guards claims and sweepAt.
type dedupShard struct {
	mu      sync.RWMutex
	claims  map[claimKey]claim
	sweepAt int // hasCapacity removes expired claims when there are this many
}

// A claimKey identifies a connection by its addresses: both ends, the smaller first.
type claimKey struct {
	a, b         addr
	aport, bport uint16
	proto        uint8
}

// A claim records which flow reports a connection.
type claim struct {
	owner  uint64    // flow.id
	ended  int64     // packet time of the flow's last packet; 0 while the flow is open
	ifaces [4]uint16 // numbers, plus one, of the interfaces where the connection was seen
}

// A claimant is a flow that makes or looks for a claim.
type claimant struct {
	owner uint64 // flow.id
	iface uint16 // as DedupTable.ifaceID numbers it
	first int64  // packet time of the flow's first packet
}

// maxClaims bounds the claims of a shard. Beyond it a flow reports its connection without a claim.
const maxClaims = 1 << 15

// NewDedupTable returns an empty DedupTable.
func NewDedupTable() *DedupTable {
	table := &DedupTable{}
	for i := range table.shards {
		table.shards[i].claims = map[claimKey]claim{}
	}
	table.names.Store(&[]string{})
	return table
}

// ifaceID returns the number of an interface, the same for all Tables.
func (d *DedupTable) ifaceID(name string) uint16 {
	d.mu.Lock()
	defer d.mu.Unlock()
	old := *d.names.Load()
	for i, known := range old {
		if known == name {
			return uint16(i)
		}
	}
	if len(old) >= maxInterfaces {
		return 0
	}
	names := append(append(make([]string, 0, len(old)+1), old...), name)
	d.names.Store(&names)
	return uint16(len(old))
}

// ifaceName returns the name of the interface with the number id.
func (d *DedupTable) ifaceName(id uint16) string { return (*d.names.Load())[id] }

// numIfaces returns the number of interfaces of which any Table has had packets.
func (d *DedupTable) numIfaces() int { return len(*d.names.Load()) }

// newClaimKey returns the key of a connection between x and y, in either order.
func newClaimKey(proto uint8, x, y netip.AddrPort) claimKey {
	addrX, addrY := addrOf(x.Addr()), addrOf(y.Addr())
	if endpointLess(addrX, x.Port(), addrY, y.Port()) {
		return claimKey{addrX, addrY, x.Port(), y.Port(), proto}
	}
	return claimKey{addrY, addrX, y.Port(), x.Port(), proto}
}

func (d *DedupTable) shardOf(k *claimKey) *dedupShard {
	hash := k.a.lo*0x9e3779b97f4a7c15 ^ k.b.lo*0xc2b2ae3d27d4eb4f ^ uint64(k.aport)<<32 ^ uint64(k.bport)
	hash ^= hash >> 29
	return &d.shards[hash%dedupShards]
}

// reuseAfter separates connections on the same ports. A flow that begins later than reuseAfter, ns, after the
// last packet of an ended claim is another connection.
const reuseAfter = int64(1e9)

// covers reports whether c belongs to the connection whose first packet has the time first.
func (c *claim) covers(first int64) bool { return c.ended == 0 || first <= c.ended+reuseAfter }

// tryClaim reports whether the flow by may report the connection of key, and makes a claim for it. If another
// flow has the claim, tryClaim adds by's interface to that claim and reports false. If the shard is full, it
// reports true without a claim.
func (d *DedupTable) tryClaim(key claimKey, by claimant) bool {
	shard := d.shardOf(&key)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	existing, ok := shard.claims[key]
	switch {
	case ok && existing.owner == by.owner:
		return true
	case ok && existing.covers(by.first):
		existing.addIface(by.iface)
		shard.claims[key] = existing
		return false
	case !ok && !shard.hasCapacity(by.first):
		return true
	}

	// There is no claim, or only one of an earlier connection on the same ports.
	made := claim{owner: by.owner}
	made.addIface(by.iface)
	shard.claims[key] = made
	return true
}

// hasCapacity reports whether s can hold another claim; s.mu must be held. When there are many claims, it
// first removes those that ended long ago: a Table that closes leaves its claims behind.
func (s *dedupShard) hasCapacity(now int64) bool {
	if n := len(s.claims); n >= max(s.sweepAt, 1024) {
		for key, held := range s.claims {
			if held.ended != 0 && held.ended+2*timeWait < now {
				delete(s.claims, key)
			}
		}
		s.sweepAt = min(2*len(s.claims), maxClaims)
	}
	return len(s.claims) < maxClaims
}

// isClaimedByOther reports whether a flow other than by has the claim of key. If so, it adds by's interface
// to that claim.
func (d *DedupTable) isClaimedByOther(key claimKey, by claimant) bool {
	shard := d.shardOf(&key)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	existing, ok := shard.claims[key]
	if !ok || existing.owner == by.owner || !existing.covers(by.first) {
		return false
	}
	existing.addIface(by.iface)
	shard.claims[key] = existing
	return true
}

// addIface adds an interface to those where the connection was seen. A fifth one is not recorded.
func (c *claim) addIface(id uint16) {
	for i, n := range c.ifaces {
		if n == id+1 {
			return
		}
		if n == 0 {
			c.ifaces[i] = id + 1
			return
		}
	}
}

// claimIfaces returns the interfaces where the connection of owner's claim of key was seen, as numbers plus
// one. 0 is an unused position.
func (d *DedupTable) claimIfaces(key claimKey, owner uint64) [4]uint16 {
	shard := d.shardOf(&key)
	shard.mu.RLock()
	defer shard.mu.RUnlock()
	if held, ok := shard.claims[key]; ok && held.owner == owner {
		return held.ifaces
	}
	return [4]uint16{}
}

// endClaims marks the claims of owner as ended. last is the packet time of the flow's last packet.
func (d *DedupTable) endClaims(keys []claimKey, owner uint64, last int64) {
	for _, key := range keys {
		shard := d.shardOf(&key)
		shard.mu.Lock()
		if held, ok := shard.claims[key]; ok && held.owner == owner {
			held.ended = max(last, 1)
			shard.claims[key] = held
		}
		shard.mu.Unlock()
	}
}

// releaseClaims removes the claims of owner.
func (d *DedupTable) releaseClaims(keys []claimKey, owner uint64) {
	for _, key := range keys {
		shard := d.shardOf(&key)
		shard.mu.Lock()
		if held, ok := shard.claims[key]; ok && held.owner == owner {
			delete(shard.claims, key)
		}
		shard.mu.Unlock()
	}
}
