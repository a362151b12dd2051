package correlate

import (
	"encoding/binary"
	"hash/maphash"
	"iter"
	"maps"
	"math"
	"slices"

	"github.com/zeebo/xxh3"

	"tidegate/pipeline"
)

// What a rule of FirstSeen remembers outlasts the signals. The owner of a Fold takes it as pipeline.SeenValue (TakeSeen), keeps it, and
// gives it to the next Fold (RestoreSeen). A value is known for as long as the rule says, and at most a slot longer.

// GroupHash returns the hash of a group of a rule.
func GroupHash(rule, group string) uint64 { return xxh3.HashString(rule + "\x00" + group) }

// seenValues are the groups and values of a rule of FirstSeen. Times are counted in slots, so that a value that comes all the
// time changes rarely.
type seenValues struct {
	slotLength int64 // ns
	numbers    map[uint64]uint32
	groups     []seenGroup // by number
	unused     []uint32    // numbers of groups that are gone
	values     map[uint64]seenValue
	sweep      int // the number of values at which those that are new again are removed
}

// A seenGroup is a group of a rule of FirstSeen.
type seenGroup struct {
	began  int64  // values are only learned for Rule.Baseline from then on, ns since 1970
	last   uint32 // slot
	values uint32 // number of them
}

// A seenValue is a value of a group.
type seenValue struct {
	last  uint32 // slot
	group uint32 // number
}

const (
	// slotsOfMemory is the number of slots in Rule.ExpireAfter. A slot has at least a second.
	slotsOfMemory = 64
	// sweepAt is the number of values of a rule at which those that are new again are removed for the first time.
	sweepAt = 1 << 16
	// groupShare is the part of Limits.Values that the groups of a rule may be.
	groupShare = 4
)

func newSeenValues(rule *Rule) *seenValues {
	return &seenValues{
		slotLength: max((int64(rule.ExpireAfter)+slotsOfMemory-1)/slotsOfMemory, 1e9),
		numbers:    map[uint64]uint32{}, values: map[uint64]seenValue{}, sweep: sweepAt,
	}
}

// slot returns the slot of a time.
func (v *seenValues) slot(at int64) uint32 { return uint32(min(at/v.slotLength, math.MaxUint32)) }

// begin returns the begin of a slot, ns since 1970.
func (v *seenValues) begin(slot uint32) int64 { return int64(slot) * v.slotLength }

// slots returns the number of slots of a length of time, rounded up.
func (v *seenValues) slots(length int64) uint32 {
	return uint32((length + v.slotLength - 1) / v.slotLength)
}

// isExpired reports whether what was there last in the slot last is new again in the slot now.
func isExpired(last, now, slots uint32) bool { return now > last && now-last > slots }

// addSeen adds a signal of a rule of FirstSeen: at is its end, or the watermark of a late one. A value that the group did not have
// is a match once the group has existed for Rule.Baseline.
func (f *Fold) addSeen(rule *Rule, s *Signal, at int64) {
	v := f.seenOf(rule)
	now, hash := v.slot(at), GroupHash(s.Rule, s.Group)
	number, isKnown := v.numbers[hash]
	if isKnown && isExpired(v.groups[number].last, now, v.slots(int64(max(rule.Baseline, rule.ExpireAfter)))) {
		v.groups[number].began, v.groups[number].last = at, now
		f.noteSeen(rule, hash, nil, at, v.begin(now))
	}
	if !isKnown {
		number = v.addGroup(hash, seenGroup{began: at, last: now})
		f.noteSeen(rule, hash, nil, at, v.begin(now))
	} else if g := &v.groups[number]; now > g.last {
		g.last = now
		f.noteSeen(rule, hash, nil, g.began, v.begin(now))
	}

	key := valueKey(hash, s.Value, s.ValueHigh)
	value, isKnown := v.values[key]
	isNew := !isKnown || isExpired(value.last, now, v.slots(int64(rule.ExpireAfter)))
	if !isKnown || now > value.last {
		v.setValue(key, seenValue{now, number})
		f.noteSeen(rule, hash, s, 0, v.begin(now))
	}
	if isNew && at-v.groups[number].began >= int64(rule.Baseline) {
		f.matches = append(f.matches, Match{
			Rule: rule, Group: s.Group, At: at, Count: 1, First: s.Start, Last: s.Start, Origin: s.Origin,
			Events: []Event{{s.Step, s.Start, s.Event}},
		})
	}
	f.boundSeen(rule, v, now)
}

// seenOf returns what a rule of FirstSeen remembers.
func (f *Fold) seenOf(rule *Rule) *seenValues {
	v := f.seen[rule.ID]
	if v == nil {
		v = newSeenValues(rule)
		f.seen[rule.ID] = v
	}
	return v
}

// valueSeed makes the keys of values unknown outside of the process: nobody can choose two values with one key.
var valueSeed = maphash.MakeSeed()

// valueKey returns the key of a value of a group.
func valueKey(group uint64, value int64, high uint64) uint64 {
	var buf [24]byte
	binary.LittleEndian.PutUint64(buf[:], group)
	binary.LittleEndian.PutUint64(buf[8:], uint64(value))
	binary.LittleEndian.PutUint64(buf[16:], high)
	return maphash.Bytes(valueSeed, buf[:])
}

// addGroup adds a group and returns its number.
func (v *seenValues) addGroup(hash uint64, g seenGroup) (number uint32) {
	if last := len(v.unused) - 1; last >= 0 {
		number, v.unused = v.unused[last], v.unused[:last]
		v.groups[number] = g
	} else {
		number = uint32(len(v.groups))
		v.groups = append(v.groups, g)
	}
	v.numbers[hash] = number
	return number
}

// setValue adds a value, or changes when it was there last.
func (v *seenValues) setValue(key uint64, value seenValue) {
	if known, isKnown := v.values[key]; isKnown {
		value.group = known.group
	} else {
		v.groups[value.group].values++
	}
	v.values[key] = value
}

func (v *seenValues) removeValue(key uint64, value seenValue) {
	v.groups[value.group].values--
	delete(v.values, key)
}

// boundSeen removes what is new again, now and then, and evicts what is too much: of the rule with most values, those that were there
// the longest ago, and a sixteenth of the limit more, so that it happens rarely.
func (f *Fold) boundSeen(rule *Rule, v *seenValues, now uint32) {
	total := f.Values()
	isTooMuch := total > f.limits.Values
	if len(v.values) >= v.sweep || isTooMuch {
		before := len(v.values)
		v.removeExpired(rule, now)
		total -= before - len(v.values)
		v.sweep = max(sweepAt, 2*len(v.values))
	}
	if total > f.limits.Values {
		largest := f.largestSeen()
		// At most half of what the rule has: where several have too much, the next signals evict of the others.
		count := min(total-f.limits.Values+f.limits.Values/16, (len(f.seen[largest].values)+1)/2)
		f.countEvicted(largest, f.seen[largest].evictValues(count))
	}
	if limit := max(1, f.limits.Values/groupShare); len(v.numbers) > limit {
		v.removeExpired(rule, now)
		if tooMany := len(v.numbers) - limit; tooMany > 0 {
			f.countEvicted(rule.ID, v.evictGroups(tooMany+limit/16, now))
		}
	}
}

// largestSeen returns the rule of FirstSeen with most values; of several the one with the lowest id.
func (f *Fold) largestSeen() (largest string) {
	for id, v := range f.seen {
		if most := f.seen[largest]; most == nil || len(v.values) > len(most.values) || len(v.values) == len(most.values) && id < largest {
			largest = id
		}
	}
	return largest
}

// removeExpired removes the values that are new again, and the groups without values that are.
func (v *seenValues) removeExpired(rule *Rule, now uint32) {
	slots := v.slots(int64(rule.ExpireAfter))
	for key, value := range v.values {
		if isExpired(value.last, now, slots) {
			v.removeValue(key, value)
		}
	}
	slots = max(slots, v.slots(int64(rule.Baseline)))
	for hash, number := range v.numbers {
		if g := v.groups[number]; g.values == 0 && isExpired(g.last, now, slots) {
			v.removeGroup(hash, number)
		}
	}
}

func (v *seenValues) removeGroup(hash uint64, number uint32) {
	delete(v.numbers, hash)
	v.groups[number] = seenGroup{}
	v.unused = append(v.unused, number)
}

// evictValues removes count values, or a few more: those that were there the longest ago. They are all of one group where one has more than
// twice as many: whoever floods a group evicts no values of others.
func (v *seenValues) evictValues(count int) (evicted int) {
	largest := uint32(0)
	for number, g := range v.groups {
		if g.values > v.groups[largest].values {
			largest = uint32(number)
		}
	}
	isFlooded := int(v.groups[largest].values) > 2*count
	oldest := findOldest(count, func(yield func(uint64, uint32) bool) {
		for key, value := range v.values {
			if !isFlooded || value.group == largest {
				yield(key, value.last)
			}
		}
	})
	for key, value := range v.values {
		if (!isFlooded || value.group == largest) && oldest.includes(key, value.last) {
			v.removeValue(key, value)
			evicted++
		}
	}
	return evicted
}

// evictGroups removes count groups, or a few more, with their values: those that were there the longest ago. They are of those that
// began in the slot now where these are more than a quarter and than count: a group that has learned, and is evicted, learns anew and
// matches nothing meanwhile, so that whoever invents groups must not evict those of others.
func (v *seenValues) evictGroups(count int, now uint32) (evicted int) {
	fresh := 0
	for _, number := range v.numbers {
		if v.slot(v.groups[number].began) == now {
			fresh++
		}
	}
	isFlooded := fresh > max(count, len(v.numbers)/4)
	mayGo := func(number uint32) bool { return !isFlooded || v.slot(v.groups[number].began) == now }
	oldest := findOldest(count, func(yield func(uint64, uint32) bool) {
		for hash, number := range v.numbers {
			if mayGo(number) {
				yield(hash, v.groups[number].last)
			}
		}
	})
	isEvicted := make([]bool, len(v.groups))
	for hash, number := range v.numbers {
		isEvicted[number] = mayGo(number) && oldest.includes(hash, v.groups[number].last)
	}
	for key, value := range v.values {
		if isEvicted[value.group] {
			v.removeValue(key, value)
		}
	}
	for hash, number := range v.numbers {
		if isEvicted[number] {
			v.removeGroup(hash, number)
			evicted++
		}
	}
	return evicted
}

// oldest names the oldest of some keys: those that were there last before a slot, and those of that slot that begin with a number up to
// a bound, so that it does not depend on the order of a map.
type oldest struct {
	slot  uint32
	begin uint64 // the first beginBits of a key
}

const beginBits = 12

func (o oldest) includes(key uint64, slot uint32) bool {
	return slot < o.slot || slot == o.slot && key>>(64-beginBits) <= o.begin
}

// findOldest returns which are the count oldest of some keys with their slots, or a few more. It reads them twice.
func findOldest(count int, all iter.Seq2[uint64, uint32]) (out oldest) {
	slots := map[uint32]int{}
	for _, slot := range all {
		slots[slot]++
	}
	for _, out.slot = range slices.Sorted(maps.Keys(slots)) {
		if slots[out.slot] >= count {
			break
		}
		count -= slots[out.slot]
	}
	var begins [1 << beginBits]int
	for key, slot := range all {
		if slot == out.slot {
			begins[key>>(64-beginBits)]++
		}
	}
	for ; out.begin < 1<<beginBits-1 && begins[out.begin] < count; out.begin++ {
		count -= begins[out.begin]
	}
	return out
}

// KeepSeen makes the Fold note what TakeSeen returns.
func (f *Fold) KeepSeen() { f.keepsSeen = true }

// noteSeen notes what changed: a group, or the value of a signal.
func (f *Fold) noteSeen(rule *Rule, group uint64, s *Signal, first, last int64) {
	if !f.keepsSeen {
		return
	}
	seen := pipeline.SeenValue{Rule: rule.ID, Version: rule.Version, Group: group, First: first, Last: last}
	if s != nil {
		seen.Value, seen.ValueHigh = s.Value, s.ValueHigh
	}
	f.changedSeen = append(f.changedSeen, seen)
}

// ChangedSeen returns the number of what TakeSeen returns.
func (f *Fold) ChangedSeen() int { return len(f.changedSeen) }

// TakeSeen returns what rules of FirstSeen have newly seen, or seen in another slot, since the last call.
func (f *Fold) TakeSeen() []pipeline.SeenValue {
	changed := f.changedSeen
	f.changedSeen = nil
	return changed
}

// RestoreSeen adds what a rule has seen before: what TakeSeen of earlier Folds returned for the same version of it, in any order,
// but groups before their values. Where there is no room for more values it does nothing.
func (f *Fold) RestoreSeen(rule *Rule, seen pipeline.SeenValue) {
	v := f.seenOf(rule)
	if f.Values() >= f.limits.Values {
		return
	}
	last := v.slot(seen.Last)
	number, isKnown := v.numbers[seen.Group]
	switch {
	case seen.IsGroup() && !isKnown:
		v.addGroup(seen.Group, seenGroup{began: seen.First, last: last})
	case seen.IsGroup():
		if g := &v.groups[number]; last > g.last { // it may have begun anew
			g.began, g.last = seen.First, last
		}
	case isKnown:
		key := valueKey(seen.Group, seen.Value, seen.ValueHigh)
		v.setValue(key, seenValue{max(v.values[key].last, last), number})
	}
}
