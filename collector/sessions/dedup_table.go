package sessions

import (
	"math"
	"net/netip"
	"slices"
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
// Claims are made under a lock, and a flow that finds the claim of another flow is a duplicate if both have
// seen the same payload (copies.go). So every event is reported once, in whatever order the flows come. A
// claim outlives its flow by a few seconds (timeWait), for copies that end later.
//
// A claim holds only while its flow sees the packets of the connection. A flow publishes in its activity when
// it has seen the last packet of each side, and every Table how far it has come. A duplicate compares its own
// packets with that and takes the claim when the primary has seen none of them for silentAfter (takeover.go).
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

// A claimKey identifies a connection by its addresses, both ends, the smaller first, and by the tunnel around it: the
// packets in a tunnel never claim, or find claimed, a connection outside of it.
type claimKey struct {
	a, b         addr
	tunnel       uint64 // tunnel.key
	aport, bport uint16
	proto        uint8
}

// ofSecond returns the key of the second claim of a connection: if the owner of the first one has seen other
// payload than the copies of a connection have, one of those claims this key.
func (k claimKey) ofSecond() claimKey {
	k.tunnel ^= 0x9e3779b97f4a7c15
	return k
}

// A claim records which flow reports a connection.
type claim struct {
	owner    uint64 // flow.id
	activity *activity
	reversed bool      // the ends of the claim's key are in the other order than those of the owner's key
	ended    int64     // packet time of the flow's last packet; 0 while the flow is open
	ifaces   [4]uint16 // numbers, plus one, of the interfaces where the connection was seen
}

// A claimant is a flow that makes or looks for a claim.
type claimant struct {
	owner    uint64 // flow.id
	activity *activity
	reversed bool   // as in claim
	iface    uint16 // as DedupTable.ifaceID numbers it
	first    int64  // packet time of the flow's first packet that the owner of a claim must have seen
}

// An activity records which packets a flow has seen, for the flows of other Tables. Only the flow's Table
// writes it. An activity is used again with the flow, for another connection and with another owner.
type activity struct {
	owner    atomic.Uint64   // flow.id
	seen     [2]atomic.Int64 // packet time of the last packet of each end of the flow's key, see publishEvery
	lost     atomic.Bool     // another flow has taken the claims; set by that flow
	progress *atomic.Int64   // Table.progress
	prints   [2]directionPrints
}

// A reporter is the flow whose claim makes another flow a duplicate, as that flow sees it.
type reporter struct {
	owner    uint64
	activity *activity // nil: none
	reversed bool      // its ends are in the other order than those of the duplicate
}

// lastSeen returns the packet time of the last packet that the reporter has seen from an end of the
// duplicate's key, 0 if it has seen none or no longer exists.
func (r reporter) lastSeen(end uint8) int64 {
	if r.activity == nil || r.activity.owner.Load() != r.owner {
		return 0
	}
	if r.reversed {
		end ^= 1
	}
	return r.activity.seen[end].Load()
}

// progress returns the packet time up to which the Table of the reporter has handled packets.
func (r reporter) progress() int64 {
	if r.activity == nil {
		return math.MaxInt64
	}
	return r.activity.progress.Load()
}

// A claimState is the answer of the DedupTable to a claimant.
type claimState uint8

const (
	claimFree    claimState = iota // no other flow has the claim
	claimHeld                      // another flow has it, and sees the packets of the connection
	claimStale                     // another flow has it, but is not known to have seen a packet since claimant.first
	claimUnknown                   // another flow has it, and it is not known whether it sees the same payload
)

// copyDelay is the longest time, ns, between the captures of one packet on two interfaces of a host. It is
// also longer than publishEvery.
const copyDelay = int64(200e6)

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
	names := append(slices.Clip(old), name)
	d.names.Store(&names)
	return uint16(len(old))
}

// ifaceName returns the name of the interface with the number id.
func (d *DedupTable) ifaceName(id uint16) string { return (*d.names.Load())[id] }

// numIfaces returns the number of interfaces of which any Table has had packets.
func (d *DedupTable) numIfaces() int { return len(*d.names.Load()) }

// newClaimKey returns the key of a connection between x and y, in either order, that is in no tunnel.
func newClaimKey(proto uint8, x, y netip.AddrPort) claimKey {
	addrX, addrY := addrOf(x.Addr()), addrOf(y.Addr())
	if endpointLess(addrX, x.Port(), addrY, y.Port()) {
		return claimKey{addrX, addrY, 0, x.Port(), y.Port(), proto}
	}
	return claimKey{addrY, addrX, 0, y.Port(), x.Port(), proto}
}

func (d *DedupTable) shardOf(k *claimKey) *dedupShard {
	hash := k.a.lo*0x9e3779b97f4a7c15 ^ k.b.lo*0xc2b2ae3d27d4eb4f ^ uint64(k.aport)<<32 ^ uint64(k.bport)
	hash ^= hash >> 29
	return &d.shards[hash%dedupShards]
}

// stateFor returns what c is to the flow by. A claim of an ended flow covers packets up to the flow's last one;
// what comes later, on the same ports, is another connection or one that its flow no longer saw.
func (c *claim) stateFor(by *claimant) claimState {
	switch {
	case c.owner == by.owner:
		return claimFree
	case c.ended != 0:
		if by.first <= c.ended+copyDelay {
			return claimHeld
		}
		return claimFree
	}
	owner := reporter{owner: c.owner, activity: c.activity}
	if max(owner.lastSeen(0), owner.lastSeen(1)) >= by.first-copyDelay {
		return claimHeld
	}
	return claimStale
}

// reporterFor returns the owner of c as the flow by sees it.
func (c *claim) reporterFor(by *claimant) reporter {
	return reporter{owner: c.owner, activity: c.activity, reversed: c.reversed != by.reversed}
}

// tryClaim makes a claim of key for the flow by unless another flow holds it. With takeStale it also takes a
// stale claim. It returns claimFree if by may report the connection, else the state of the claim and its
// owner. It adds by's interface to the claim of another flow. If the shard is full, it returns claimFree
// without a claim.
func (d *DedupTable) tryClaim(key claimKey, by claimant, takeStale bool) (claimState, reporter) {
	shard := d.shardOf(&key)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	existing, ok := shard.claims[key]
	switch {
	case ok && existing.owner == by.owner:
		return claimFree, reporter{}
	case ok:
		state := existing.stateFor(&by)
		if state == claimHeld || state == claimStale && !takeStale {
			existing.addIface(by.iface)
			shard.claims[key] = existing
			return state, existing.reporterFor(&by)
		}
		existing.markLost()
	case !shard.hasCapacity(by.first):
		return claimFree, reporter{}
	}

	// There is no claim, or only a stale one or that of an earlier connection on the same ports.
	made := claim{owner: by.owner, activity: by.activity, reversed: by.reversed}
	made.addIface(by.iface)
	shard.claims[key] = made
	return claimFree, reporter{}
}

// markLost lets the owner of c know that another flow has taken the claim.
func (c *claim) markLost() {
	if c.activity != nil && c.activity.owner.Load() == c.owner {
		c.activity.lost.Store(true)
	}
}

// revokeClaim removes the claim that owner has of key.
func (d *DedupTable) revokeClaim(key claimKey, owner uint64) {
	shard := d.shardOf(&key)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if held, ok := shard.claims[key]; ok && held.owner == owner {
		held.markLost()
		delete(shard.claims, key)
	}
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

// lookUpClaim returns what the claim of key is to the flow by, and the claim's owner. It adds by's interface to
// the claim of another flow.
func (d *DedupTable) lookUpClaim(key claimKey, by claimant) (claimState, reporter) {
	shard := d.shardOf(&key)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	existing, ok := shard.claims[key]
	if !ok {
		return claimFree, reporter{}
	}
	state := existing.stateFor(&by)
	if state == claimFree {
		return claimFree, reporter{}
	}
	existing.addIface(by.iface)
	shard.claims[key] = existing
	return state, existing.reporterFor(&by)
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
