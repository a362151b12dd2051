package sessions

import (
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"testing"
)

// claimantOf returns a claimant with an activity that has seen a packet of each end at a time.
func claimantOf(owner uint64, iface uint16, first, seen int64) claimant {
	progress := &atomic.Int64{}
	progress.Store(seen)
	by := claimant{owner: owner, activity: &activity{progress: progress}, iface: iface, first: first}
	by.activity.owner.Store(owner)
	by.activity.seen[0].Store(seen)
	by.activity.seen[1].Store(seen)
	return by
}

// TestClaimIsHeldWhileItsFlowSeesPackets, as late as copyDelay; that of an ended flow covers the packets up to its last.
func TestClaimIsHeldWhileItsFlowSeesPackets(t *testing.T) {
	const second = int64(1e9)
	check := func(what string, first, seen, ended int64, same bool, want claimState) {
		t.Helper()
		owner := claimantOf(1, 0, 0, seen)
		held := claim{owner: 1, activity: owner.activity, ended: ended}
		by := claimantOf(2, 0, first, 0)
		if same {
			by.owner = 1
		}
		if got := held.stateFor(&by); got != want {
			t.Errorf("%s: %d, want %d", what, got, want)
		}
	}
	check("seen at the time", second, second, 0, false, claimHeld)
	check("seen as late as a copy may be", second, second-copyDelay, 0, false, claimHeld)
	check("seen before", second, second-copyDelay-1, 0, false, claimStale)
	check("its own", second, 0, 0, true, claimFree)
	check("ended at the time", second, 0, second, false, claimHeld)
	check("ended as late as a copy may be", second, 0, second-copyDelay, false, claimHeld)
	check("ended before", second, second, second-copyDelay-1, false, claimFree)
	check("its own, ended", second, 0, second, true, claimFree)

	for end := range 2 { // either end counts
		owner := claimantOf(1, 0, 0, 0)
		owner.activity.seen[end].Store(second)
		held, by := claim{owner: 1, activity: owner.activity}, claimantOf(2, 0, second, 0)
		if got := held.stateFor(&by); got != claimHeld {
			t.Errorf("end %d: %d", end, got)
		}
	}
}

// TestReporterIsSeenFromTheDuplicate, whose ends may be in the other order. One that was used again has seen nothing.
func TestReporterIsSeenFromTheDuplicate(t *testing.T) {
	owner := claimantOf(1, 0, 0, 0)
	owner.activity.seen[0].Store(10)
	owner.activity.seen[1].Store(20)
	owner.activity.progress.Store(30)
	check := func(r reporter, first, second, progress int64, published bool) {
		t.Helper()
		if r.lastSeen(0) != first || r.lastSeen(1) != second || r.progress() != progress || (r.printsOf(0) != nil) != published {
			t.Errorf("%+v: %d, %d, %d, published %t", r, r.lastSeen(0), r.lastSeen(1), r.progress(), r.printsOf(0) != nil)
		}
	}
	check(reporter{owner: 1, activity: owner.activity}, 10, 20, 30, true)
	check(reporter{owner: 1, activity: owner.activity, reversed: true}, 20, 10, 30, true)
	check(reporter{owner: 2, activity: owner.activity}, 0, 0, 30, false)
	check(reporter{owner: 1}, 0, 0, math.MaxInt64, false)
	straight, reversed := reporter{owner: 1, activity: owner.activity}, reporter{owner: 1, activity: owner.activity, reversed: true}
	if straight.printsOf(0) != &owner.activity.prints[0] || reversed.printsOf(0) != &owner.activity.prints[1] {
		t.Error("the prints are those of the other end")
	}
	for _, turned := range [][2]bool{{false, false}, {false, true}, {true, false}, {true, true}} {
		held := claim{owner: 1, activity: owner.activity, reversed: turned[0]}
		got := held.reporterFor(&claimant{owner: 2, reversed: turned[1]})
		if want := (reporter{1, owner.activity, turned[0] != turned[1]}); got != want {
			t.Errorf("reversed %v: %+v", turned, got)
		}
	}
}

// TestClaimHasOneOwner, from the first to its release; another flow takes it when it is stale or over.
func TestClaimHasOneOwner(t *testing.T) {
	const second = int64(1e9)
	table := NewDedupTable()
	key := newClaimKey(protoTCP, addrPort("10.0.0.1:1"), addrPort("10.0.0.2:2"))
	first, other, later := claimantOf(1, 0, second, second), claimantOf(2, 1, second, second), claimantOf(3, 2, 3*second, 3*second)
	try := func(what string, by claimant, takeStale bool, want claimState, owner uint64) {
		t.Helper()
		state, reporter := table.tryClaim(key, by, takeStale)
		if state != want || reporter.owner != owner {
			t.Errorf("%s: state %d, owner %d; want %d, %d", what, state, reporter.owner, want, owner)
		}
	}
	look := func(what string, by claimant, want claimState, owner uint64) {
		t.Helper()
		if state, reporter := table.lookUpClaim(key, by); state != want || reporter.owner != owner {
			t.Errorf("%s: state %d, owner %d; want %d, %d", what, state, reporter.owner, want, owner)
		}
	}
	ifaces := func(owner uint64, want ...uint16) {
		t.Helper()
		if got := table.claimIfaces(key, owner); !slices.Equal(got[:], append(want, 0, 0, 0, 0)[:4]) {
			t.Errorf("the interfaces of %d are %v, want %v", owner, got, want)
		}
	}
	look("nobody has it", other, claimFree, 0)
	ifaces(2)
	try("the first", first, false, claimFree, 0)
	ifaces(1, 1)
	try("the first again", first, false, claimFree, 0)
	try("another", other, false, claimHeld, 1)
	ifaces(1, 1, 2)
	ifaces(2)
	try("another, even if it were stale", other, true, claimHeld, 1)
	look("the owner", first, claimFree, 0)
	look("later", later, claimStale, 1)
	ifaces(1, 1, 2, 3)
	try("later", later, false, claimStale, 1)
	if first.activity.lost.Load() {
		t.Error("the claim is lost")
	}
	try("later, although it is stale", later, true, claimFree, 0)
	ifaces(3, 3)
	ifaces(1)
	if !first.activity.lost.Load() {
		t.Error("the first owner is not told")
	}

	table.endClaims([]claimKey{key}, 1, 3*second) // not its own any more
	table.releaseClaims([]claimKey{key}, 1)
	table.revokeClaim(key, 1)
	look("the old owner has no power over it", claimantOf(4, 0, 3*second, 0), claimHeld, 3)
	table.endClaims([]claimKey{key}, 3, 3*second)
	look("ended", claimantOf(4, 0, 3*second, 0), claimHeld, 3)
	look("ended before", claimantOf(4, 0, 4*second, 0), claimFree, 0)
	ifaces(3, 3, 1)
	try("ended before", claimantOf(4, 0, 4*second, 4*second), false, claimFree, 0)
	table.releaseClaims([]claimKey{key}, 4)
	ifaces(4)
	try("released", first, false, claimFree, 0)
	first.activity.lost.Store(false)
	if table.revokeClaim(key, 1); !first.activity.lost.Load() {
		t.Error("the owner of a revoked claim is not told")
	}
	look("revoked", other, claimFree, 0)
	try("before the first packet", claimantOf(5, 0, 0, 0), false, claimFree, 0)
	table.endClaims([]claimKey{key}, 5, 0)
	look("ended at the time 0", claimantOf(6, 0, 1, 0), claimHeld, 5)
	reused := claimantOf(7, 0, 0, 0)
	reused.activity.owner.Store(8)
	if (&claim{owner: 7, activity: reused.activity}).markLost(); reused.activity.lost.Load() {
		t.Error("the next flow with the memory of the owner is told that it lost the claim")
	}
}

// TestClaimNotesFourInterfaces, each once.
func TestClaimNotesFourInterfaces(t *testing.T) {
	var held claim
	for _, id := range []uint16{5, 5, 0, 7, 0, 9, 11} {
		held.addIface(id)
	}
	if held.ifaces != [4]uint16{6, 1, 8, 10} {
		t.Errorf("%v", held.ifaces)
	}
}

// TestInterfacesHaveNumbersForAllTables.
func TestInterfacesHaveNumbersForAllTables(t *testing.T) {
	table := NewDedupTable()
	for i, name := range []string{"eth0", "docker0", "eth0", "br-1"} {
		if got, want := table.ifaceID(name), []uint16{0, 1, 0, 2}[i]; got != want || table.ifaceName(got) != name {
			t.Errorf("%s has the number %d, want %d", name, got, want)
		}
	}
	if table.numIfaces() != 3 {
		t.Errorf("%d interfaces", table.numIfaces())
	}
	names := make([]string, maxInterfaces-1)
	table.names.Store(&names)
	if last, beyond := table.ifaceID("last"), table.ifaceID("beyond"); last != maxInterfaces-1 || beyond != 0 || table.numIfaces() != maxInterfaces {
		t.Errorf("the last number is %d, that beyond it %d", last, beyond)
	}
}

// TestClaimsOfAShardAreBounded; those that are long over make room.
func TestClaimsOfAShardAreBounded(t *testing.T) {
	const now = 100 * int64(1e9)
	fill := func(count int, ended int64) *dedupShard {
		shard := &dedupShard{claims: map[claimKey]claim{}}
		for i := range count {
			shard.claims[claimKey{tunnel: uint64(i)}] = claim{ended: ended}
		}
		return shard
	}
	check := func(what string, count int, ended int64, want bool, left, sweepAt int) {
		t.Helper()
		shard := fill(count, ended)
		if got := shard.hasCapacity(now); got != want || len(shard.claims) != left || shard.sweepAt != sweepAt {
			t.Errorf("%s: %t, %d claims are left, swept at %d; want %t, %d, %d", what, got, len(shard.claims), shard.sweepAt, want, left, sweepAt)
		}
	}
	old := now - 2*timeWait - 1
	check("few", 1023, old, true, 1023, 0)
	check("many that are long over", 1024, old, true, 0, 0)
	check("many that are over", 1024, old+1, true, 1024, 2048)
	check("many that are not over", 2000, 0, true, 2000, 4000)
	check("as many as may be", maxClaims, 0, false, maxClaims, maxClaims)
	check("one less", maxClaims-1, 0, true, maxClaims-1, maxClaims)
	shard := fill(2000, 0)
	shard.hasCapacity(now)
	for key := range shard.claims {
		shard.claims[key] = claim{ended: old}
	}
	if shard.hasCapacity(now); len(shard.claims) != 2000 {
		t.Errorf("%d claims are left before there are twice as many", len(shard.claims))
	}

	// Beyond the bound a flow reports its connection without a claim.
	table := NewDedupTable()
	key := newClaimKey(protoUDP, addrPort("10.0.0.1:1"), addrPort("10.0.0.2:2"))
	table.shardOf(&key).claims = fill(maxClaims, 0).claims
	if state, _ := table.tryClaim(key, claimantOf(1, 0, now, now), false); state != claimFree || len(table.shardOf(&key).claims) != maxClaims {
		t.Errorf("state %d, %d claims", state, len(table.shardOf(&key).claims))
	}
}

// TestKeyOfAClaimHasTheSmallerEndFirst.
func TestKeyOfAClaimHasTheSmallerEndFirst(t *testing.T) {
	ends := []string{"10.0.0.1:1", "10.0.0.1:2", "10.0.0.2:1", "[fd00::1]:1", "[fd00:0:0:1::]:1"}
	keys := map[claimKey]string{}
	for i, a := range ends {
		for _, b := range ends[i:] {
			key, other := newClaimKey(protoTCP, addrPort(a), addrPort(b)), newClaimKey(protoTCP, addrPort(b), addrPort(a))
			if key != other || keys[key] != "" || key == key.ofSecond() || key != key.ofSecond().ofSecond() {
				t.Errorf("%s and %s have the key %+v", a, b, key)
			}
			keys[key] = a
		}
	}
	key := newClaimKey(protoTCP, addrPort("10.0.0.2:1"), addrPort("10.0.0.1:2"))
	if key.a != addrOf(addrPort("10.0.0.1:2").Addr()) || key.aport != 2 || key.b != addrOf(addrPort("10.0.0.2:1").Addr()) || key.bport != 1 || key.proto != protoTCP {
		t.Errorf("%+v", key)
	}
	shards := map[*dedupShard]bool{}
	table := NewDedupTable()
	for i := range 1000 {
		key := newClaimKey(protoTCP, addrPort(fmt.Sprintf("10.0.%d.%d:%d", i/200, i%200, 30000+i)), addrPort("10.1.0.2:80"))
		shards[table.shardOf(&key)] = true
	}
	if len(shards) < dedupShards/2 {
		t.Errorf("a thousand connections have %d shards", len(shards))
	}
}
