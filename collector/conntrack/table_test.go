//go:build linux

package conntrack

import (
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"

	ct "github.com/ti-mo/conntrack"

	"tidegate/pipeline"
	"tidegate/pipeline/memory"
)

// TestTableHoldsWhatAMapWouldHold: after any sequence of changes the table has the tuples, mappings, order and states of
// a plain model, and its memory is that of what it holds.
func TestTableHoldsWhatAMapWouldHold(t *testing.T) {
	type state struct {
		other    [2]address
		list     listKind
		since    int64
		sequence int // of the last change of list
	}
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 1))
		held, model, seedOfHash := &shard{}, map[tuple]state{}, maphash.MakeSeed()
		hashOf := func(k tuple) uint32 { return uint32(maphash.Comparable(seedOfHash, k)) & 0x3ff } // many collisions
		oldest := func(list listKind) (key tuple, ok bool) {
			for k, s := range model {
				if s.list == list && (!ok || s.sequence < model[key].sequence) {
					key, ok = k, true
				}
			}
			return key, ok
		}
		keys := 1 + random.IntN(2000)
		for step := range 4000 {
			now := int64(step)
			k := tupleOf(pipeline.Transport_TCP, netip.MustParseAddrPort(fmt.Sprintf("10.0.0.1:%d", random.IntN(keys))),
				netip.MustParseAddrPort("[2001:db8::1]:80"))
			switch random.IntN(8) {
			default:
				other := [2]address{k.dst, addressOf(netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), uint16(step)))}
				_, known := model[k]
				if held.put(&k, hashOf(k), other, false, now) == known {
					t.Fatalf("seed %d: put says that the tuple is new: %v", seed, known)
				}
				model[k] = state{other, alive, now, step}
			case 0, 1:
				held.destroy(&k, hashOf(k), now)
				if s, ok := model[k]; ok && s.list == alive {
					s.list, s.since, s.sequence = destroyed, now, step
					model[k] = s
				}
			case 2:
				before := now - int64(random.IntN(2000))
				held.expire(before)
				for k, s := range model {
					if s.list == destroyed && s.since <= before {
						delete(model, k)
					}
				}
			case 3:
				for range held.removeOldest(random.IntN(3)) {
					key, ok := oldest(destroyed)
					if !ok {
						key, _ = oldest(alive)
					}
					delete(model, key)
				}
			}
		}
		if int(held.size) != len(model) {
			t.Fatalf("seed %d: %d records, want %d", seed, held.size, len(model))
		}
		for k, want := range model {
			at, found := held.find(&k, hashOf(k))
			if !found {
				t.Fatalf("seed %d: %v is missing", seed, k)
			}
			if got := held.record(held.slots[at].record); got.other != want.other || got.list != want.list || got.since != want.since {
				t.Fatalf("seed %d: %+v, want %+v", seed, *got, want)
			}
		}
		held.removeOldest(len(model))
		if held.size != 0 || held.bytes() > 2*chunkBytes+minSlots*slotBytes {
			t.Errorf("seed %d: %d records in %d bytes are left", seed, held.size, held.bytes())
		}
	}
}

// TestFloodOfConnectionsStaysWithinTheBudget: the charge equals the size of the heap, the oldest tuples are given up
// beyond the budget, and those of others that came meanwhile stay.
func TestFloodOfConnectionsStaysWithinTheBudget(t *testing.T) {
	const limit = 16 << 20
	heap := func() int64 {
		var stats runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&stats)
		return int64(stats.HeapAlloc)
	}
	before := heap()
	tracker := newTracker()
	budget := memory.New(limit, nil)
	tracker.account = budget.Open("conntrack")
	most := int64(0)
	for i := range 300_000 {
		flow := translatedFlow(byte(i>>8), byte(i), uint16(i>>16), 80)
		tracker.handleEvent(ct.Event{Type: ct.EventNew, Flow: flow})
		if i%2 == 0 { // half of the connections end at once
			tracker.handleEvent(ct.Event{Type: ct.EventDestroy, Flow: flow})
		}
		most = max(most, budget.Used())
		if i == 299_000 {
			tracker.handleEvent(ct.Event{Type: ct.EventNew, Flow: entryOf(1)})
		}
	}
	if most > limit+limit/16 || most < limit/2 {
		t.Errorf("%d bytes were charged, of %d", most, limit)
	}
	if held := heap() - before; held > budget.Used()+2<<20 || held < budget.Used()-2<<20 {
		t.Errorf("%d bytes are held, %d charged", held, budget.Used())
	}
	if given := tracker.dropped(t, reasonMemory); int(given)+tracker.Len() != 600_002 {
		t.Errorf("%v tuples were given up, %d are left, of 600,002", given, tracker.Len())
	}
	if !tracker.hasEntry(1) {
		t.Error("a connection that was opened at the end of the flood is not known")
	}

	// Another part takes the memory: the map gives up what it has while it is the larger one.
	other := budget.Open("parsers")
	other.Add(limit / 4 * 3)
	tracker.enforceBudget()
	if budget.Used() > limit {
		t.Errorf("%d bytes are charged, of %d, when another part has grown", budget.Used(), limit)
	}
	runtime.KeepAlive(tracker)
}
