package sessions

import (
	"net/netip"
	"sync"
	"sync/atomic"
)

// DedupTable is what the Tables of a process know together: which flow speaks for a connection. The same connection seen on a bridge
// and on eth0, or on two bridges, is two flows in two Tables, run by two goroutines that may be a moment apart in either order;
// this is the place where they meet.
//
// A claim is held under the connection's addresses as they are on the container's side. There are two ways to one:
//
//   - A flow on a bridge claims its tuple with its first packet. The first bridge wins.
//   - A flow elsewhere looks for such a claim when it begins, and again when it has something to tell and knows its mapping. If there
//     is none and none is to be expected, or the wait is over, it claims the tuple itself and speaks.
//
// Every claim is made under a lock, and whoever finds another's is silent from then on, so an event is told once whatever the order.
// A claim outlives its flow by a few seconds (timeWait), for copies that end later.
type DedupTable struct {
	shards [dedupShards]dedupShard
	mu     sync.Mutex
	names  atomic.Pointer[[]string] // of interfaces; only grows
}

const dedupShards = 64

type dedupShard struct {
	mu    sync.RWMutex
	m     map[claimKey]claim
	sweep int // the size at which claims of Tables that are gone are looked for
}

// A claimKey is a connection: both ends, the smaller first.
type claimKey struct {
	a, b         addr
	aport, bport uint16
	proto        uint8
}

// A claim says who speaks.
type claim struct {
	owner uint64
	ended int64     // packet time of its last packet, 0 while it lives
	seen  [4]uint16 // numbers of the interfaces where it was seen, plus one
}

// maxClaims bounds each shard; beyond it a flow speaks unclaimed.
const maxClaims = 1 << 15

// NewDedupTable makes an empty one.
func NewDedupTable() *DedupTable {
	s := &DedupTable{}
	for i := range s.shards {
		s.shards[i].m = map[claimKey]claim{}
	}
	s.names.Store(&[]string{})
	return s
}

// iface gives the number of an interface.
func (s *DedupTable) iface(name string) uint16 {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := *s.names.Load()
	for i, n := range old {
		if n == name {
			return uint16(i)
		}
	}
	if len(old) >= 1<<15 {
		return 0
	}
	names := append(append(make([]string, 0, len(old)+1), old...), name)
	s.names.Store(&names)
	return uint16(len(old))
}

// name is the reverse of iface.
func (s *DedupTable) name(i uint16) string { return (*s.names.Load())[i] }

func claimKeyOf(proto uint8, x, y netip.AddrPort) claimKey {
	a, b := addrOf(x.Addr()), addrOf(y.Addr())
	if less(a, x.Port(), b, y.Port()) {
		return claimKey{a, b, x.Port(), y.Port(), proto}
	}
	return claimKey{b, a, y.Port(), x.Port(), proto}
}

func (s *DedupTable) shard(k *claimKey) *dedupShard {
	v := k.a.lo*0x9e3779b97f4a7c15 ^ k.b.lo*0xc2b2ae3d27d4eb4f ^ uint64(k.aport)<<32 ^ uint64(k.bport)
	v ^= v >> 29
	return &s.shards[v%dedupShards]
}

// stale is how long after a claim's last packet a flow must begin to be another connection on the same ports.
const stale = int64(1e9)

// covers tells whether c is of the connection that began at first.
func (c *claim) covers(first int64) bool { return c.ended == 0 || first <= c.ended+stale }

// claim makes f the speaker for k unless another is; then f's interface is noted.
func (s *DedupTable) claim(k claimKey, f *flow) bool {
	sh := s.shard(&k)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	c, ok := sh.m[k]
	iface := f.t.ifaces[f.key.iface].shared
	switch {
	case ok && c.owner == f.number:
		return true
	case ok && c.covers(f.first):
		c.note(iface)
		sh.m[k] = c
		return false
	case !ok && !sh.room(f.first):
		return true
	}
	c = claim{owner: f.number}
	c.note(iface)
	sh.m[k] = c
	return true
}

// room tells whether sh can take another claim. Those that a Table left behind when it closed are removed when there are many.
func (sh *dedupShard) room(now int64) bool {
	if n := len(sh.m); n >= max(sh.sweep, 1024) {
		for k, c := range sh.m {
			if c.ended != 0 && c.ended+2*timeWait < now {
				delete(sh.m, k)
			}
		}
		sh.sweep = min(2*len(sh.m), maxClaims)
	}
	return len(sh.m) < maxClaims
}

// taken tells whether another than f speaks for k, and notes f's interface there.
func (s *DedupTable) taken(k claimKey, f *flow) bool {
	sh := s.shard(&k)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	c, ok := sh.m[k]
	if !ok || c.owner == f.number || !c.covers(f.first) {
		return false
	}
	c.note(f.t.ifaces[f.key.iface].shared)
	sh.m[k] = c
	return true
}

func (c *claim) note(iface uint16) {
	for i, n := range c.seen {
		if n == iface+1 {
			return
		}
		if n == 0 {
			c.seen[i] = iface + 1
			return
		}
	}
}

// seenOn gives the interfaces where k was seen.
func (s *DedupTable) seenOn(k claimKey, owner uint64) [4]uint16 {
	sh := s.shard(&k)
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	if c, ok := sh.m[k]; ok && c.owner == owner {
		return c.seen
	}
	return [4]uint16{}
}

// end notes that f is over.
func (s *DedupTable) end(f *flow) {
	for _, k := range f.claims[:f.nclaims] {
		sh := s.shard(&k)
		sh.mu.Lock()
		if c, ok := sh.m[k]; ok && c.owner == f.number {
			c.ended = max(f.last, 1)
			sh.m[k] = c
		}
		sh.mu.Unlock()
	}
}

// release forgets f's claims.
func (s *DedupTable) release(f *flow) {
	for _, k := range f.claims[:f.nclaims] {
		sh := s.shard(&k)
		sh.mu.Lock()
		if c, ok := sh.m[k]; ok && c.owner == f.number {
			delete(sh.m, k)
		}
		sh.mu.Unlock()
	}
	f.nclaims = 0
}
