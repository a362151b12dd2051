package sessions

import (
	"net/netip"
	"sync"
	"sync/atomic"
)

// A DedupTable holds who reports a connection, for all Tables of a process. The same connection seen on a
// bridge and on eth0, or on two bridges, is two flows in two Tables, run by two goroutines, either of which
// may be a moment ahead.
//
// A claim is held under a connection's addresses. There are two ways to one:
//
//   - A flow on a bridge claims its tuple with its first packet. The first bridge wins.
//   - A flow elsewhere looks for such a claim when it begins, and again when it has an event and knows its
//     mapping. If there is none and none is to be expected, or the wait is over, it claims its tuples itself.
//
// Every claim is made under a lock, and a flow that finds another's is a duplicate from then on, so every
// event is reported once whatever the order. A claim outlives its flow by a few seconds (timeWait), for
// copies that end later.
//
// Locks: each shard has one; mu guards the writing of names. No two are held at once.
type DedupTable struct {
	shards [dedupShards]dedupShard
	mu     sync.Mutex
	names  atomic.Pointer[[]string] // of interfaces; a new slice for each new name, the numbers stay
}

const dedupShards = 64

type dedupShard struct {
	mu      sync.RWMutex
	claims  map[claimKey]claim
	sweepAt int // the number of claims at which expired ones are removed
}

// A claimKey is a connection: both ends, the smaller first.
type claimKey struct {
	a, b         addr
	aport, bport uint16
	proto        uint8
}

// A claim says who reports a connection.
type claim struct {
	owner  uint64    // flow.id
	ended  int64     // packet time of its last packet, 0 while it lives
	ifaces [4]uint16 // numbers, plus one, of the interfaces where the connection was seen
}

// A claimant is a flow that makes a claim.
type claimant struct {
	owner uint64
	iface uint16
	first int64 // packet time of its first packet
}

// maxClaims bounds each shard. Beyond it a flow reports its connection without a claim.
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

// ifaceID returns the number of an interface.
func (s *DedupTable) ifaceID(name string) uint16 {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := *s.names.Load()
	for i, n := range old {
		if n == name {
			return uint16(i)
		}
	}
	if len(old) >= maxInterfaces {
		return 0
	}
	names := append(append(make([]string, 0, len(old)+1), old...), name)
	s.names.Store(&names)
	return uint16(len(old))
}

// ifaceName is the reverse of ifaceID.
func (s *DedupTable) ifaceName(id uint16) string { return (*s.names.Load())[id] }

// numIfaces returns how many interfaces all Tables have seen packets of.
func (s *DedupTable) numIfaces() int { return len(*s.names.Load()) }

func newClaimKey(proto uint8, x, y netip.AddrPort) claimKey {
	a, b := addrOf(x.Addr()), addrOf(y.Addr())
	if endpointLess(a, x.Port(), b, y.Port()) {
		return claimKey{a, b, x.Port(), y.Port(), proto}
	}
	return claimKey{b, a, y.Port(), x.Port(), proto}
}

func (s *DedupTable) shardOf(k *claimKey) *dedupShard {
	hash := k.a.lo*0x9e3779b97f4a7c15 ^ k.b.lo*0xc2b2ae3d27d4eb4f ^ uint64(k.aport)<<32 ^ uint64(k.bport)
	hash ^= hash >> 29
	return &s.shards[hash%dedupShards]
}

// reuseAfter is the time, ns, after the last packet of an ended claim from which a flow on its ports is
// another connection.
const reuseAfter = int64(1e9)

// covers reports whether c is of the connection that began at first.
func (c *claim) covers(first int64) bool { return c.ended == 0 || first <= c.ended+reuseAfter }

// tryClaim makes by the owner of k and reports true, unless another flow is; then by's interface is added to
// the claim.
func (s *DedupTable) tryClaim(k claimKey, by claimant) bool {
	sh := s.shardOf(&k)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	existing, ok := sh.claims[k]
	switch {
	case ok && existing.owner == by.owner:
		return true
	case ok && existing.covers(by.first):
		existing.addIface(by.iface)
		sh.claims[k] = existing
		return false
	case !ok && !sh.hasCapacity(by.first):
		return true
	}

	// No claim, or one of an earlier connection on the same ports.
	made := claim{owner: by.owner}
	made.addIface(by.iface)
	sh.claims[k] = made
	return true
}

// hasCapacity reports whether sh can take another claim. When there are many it first removes those that
// ended long ago: a Table leaves its claims behind when it closes.
func (sh *dedupShard) hasCapacity(now int64) bool {
	if n := len(sh.claims); n >= max(sh.sweepAt, 1024) {
		for k, c := range sh.claims {
			if c.ended != 0 && c.ended+2*timeWait < now {
				delete(sh.claims, k)
			}
		}
		sh.sweepAt = min(2*len(sh.claims), maxClaims)
	}
	return len(sh.claims) < maxClaims
}

// isClaimedByOther reports whether another flow than by owns k; then by's interface is added to the claim.
func (s *DedupTable) isClaimedByOther(k claimKey, by claimant) bool {
	sh := s.shardOf(&k)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	existing, ok := sh.claims[k]
	if !ok || existing.owner == by.owner || !existing.covers(by.first) {
		return false
	}
	existing.addIface(by.iface)
	sh.claims[k] = existing
	return true
}

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

// claimIfaces returns the interfaces where k was seen: numbers plus one, 0 none.
func (s *DedupTable) claimIfaces(k claimKey, owner uint64) [4]uint16 {
	sh := s.shardOf(&k)
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	if c, ok := sh.claims[k]; ok && c.owner == owner {
		return c.ifaces
	}
	return [4]uint16{}
}

// endClaims notes in the claims of owner that its flow is over; last is the packet time of its last packet.
func (s *DedupTable) endClaims(keys []claimKey, owner uint64, last int64) {
	for _, k := range keys {
		sh := s.shardOf(&k)
		sh.mu.Lock()
		if c, ok := sh.claims[k]; ok && c.owner == owner {
			c.ended = max(last, 1)
			sh.claims[k] = c
		}
		sh.mu.Unlock()
	}
}

// releaseClaims removes the claims of owner.
func (s *DedupTable) releaseClaims(keys []claimKey, owner uint64) {
	for _, k := range keys {
		sh := s.shardOf(&k)
		sh.mu.Lock()
		if c, ok := sh.claims[k]; ok && c.owner == owner {
			delete(sh.claims, k)
		}
		sh.mu.Unlock()
	}
}
