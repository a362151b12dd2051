package correlate

import (
	"slices"
	"time"
)

// slotsPerWindow is the largest number of slots into which a sliding window is divided. Times are counted in
// whole slots, so that a group costs the same however many signals it has.
const slotsPerWindow = 600

// slotLength returns the length of a slot: a second, or of a longer window the 600th part, rounded up to
// whole seconds.
func slotLength(within time.Duration) int64 {
	seconds := int64((within + time.Second - 1) / time.Second)
	return max(1, (seconds+slotsPerWindow-1)/slotsPerWindow) * int64(time.Second)
}

// A slidingWindow is the state of Count, Distinct and Sum without an upper bound. After each signal the
// window that ends with its slot is evaluated. A signal is counted in one match.
type slidingWindow struct {
	slots  []slot
	total  int64        // of the slots: signals, or their sum
	values []slotValue  // of Distinct: when each value was there last, the oldest first; at most Min
	fresh  []freshEvent // the latest signals that belong to no match yet, at most maxEvents
}

// A slot is what a window holds of the signals that ended within one slot.
type slot struct {
	number      int64 // end / slotLength
	total       int64
	fresh       int64 // signals that belong to no match yet
	first, last int64 // begin of the earliest and latest of these
}

type slotValue struct{ value, slot int64 }

type freshEvent struct {
	slot int64
	Event
}

func (w *slidingWindow) addSignal(f *Fold, g *group, s *Signal, at int64) {
	number := at / slotLength(g.rule.Within)
	w.expire(g.rule, number)

	// Enter the signal into its slot, which is the newest one.
	if len(w.slots) == 0 || w.slots[len(w.slots)-1].number != number {
		w.slots = append(w.slots, slot{number: number})
	}
	newest := &w.slots[len(w.slots)-1]
	amount := s.count()
	if g.rule.Kind == Sum {
		amount = max(0, s.Value)
	}
	newest.total, w.total = saturatingAdd(newest.total, amount), saturatingAdd(w.total, amount)
	if newest.fresh == 0 {
		newest.first, newest.last = s.first(), s.last()
	}
	newest.fresh = saturatingAdd(newest.fresh, s.count())
	newest.first, newest.last = min(newest.first, s.first()), max(newest.last, s.last())
	w.fresh = append(w.fresh, freshEvent{number, Event{s.Step, s.Start, s.Event}})
	if len(w.fresh) > maxEvents {
		w.fresh = slices.Delete(w.fresh, 0, 1)
	}

	measured := w.total
	if g.rule.Kind == Distinct {
		measured = w.addValue(g.rule, s.Value, number)
	}
	if measured < g.rule.Min {
		return
	}
	m := Match{At: at, Origin: s.Origin, First: s.Start, Last: s.Start}
	for i := range w.slots {
		if slot := &w.slots[i]; slot.fresh > 0 {
			m.Count = saturatingAdd(m.Count, slot.fresh)
			m.First, m.Last = min(m.First, slot.first), max(m.Last, slot.last)
			slot.fresh = 0
		}
	}
	for _, e := range w.fresh {
		m.Events = append(m.Events, e.Event)
	}
	w.fresh = w.fresh[:0]
	f.addMatch(g, m)
}

// addValue notes that a value was there, and returns the number of values in the window, at most Min: only
// the Min values that were there last can decide.
func (w *slidingWindow) addValue(r *Rule, value, number int64) int64 {
	if i := slices.IndexFunc(w.values, func(v slotValue) bool { return v.value == value }); i >= 0 {
		w.values = slices.Delete(w.values, i, i+1)
	} else if int64(len(w.values)) >= r.Min {
		w.values = slices.Delete(w.values, 0, 1)
	}
	w.values = append(w.values, slotValue{value, number})
	return int64(len(w.values))
}

// expire removes what lies before the window that ends with the slot number.
func (w *slidingWindow) expire(r *Rule, number int64) {
	oldest := number - int64(r.Within)/slotLength(r.Within) + 1
	before := len(w.slots)
	if w.slots = deleteFront(w.slots, func(s slot) bool { return s.number < oldest }); len(w.slots) < before {
		w.total = 0 // a difference would be wrong where the sum was cut at NoMax
		for _, s := range w.slots {
			w.total = saturatingAdd(w.total, s.total)
		}
	}
	w.values = deleteFront(w.values, func(v slotValue) bool { return v.slot < oldest })
	w.fresh = deleteFront(w.fresh, func(e freshEvent) bool { return e.slot < oldest })
}

// deleteFront removes the elements at the front of list that are old.
func deleteFront[T any](list []T, isOld func(T) bool) []T {
	old := 0
	for old < len(list) && isOld(list[old]) {
		old++
	}
	return slices.Delete(list, 0, old)
}

func (w *slidingWindow) passDeadline(_ *Fold, g *group, at int64) {
	w.expire(g.rule, at/slotLength(g.rule.Within))
}

// nextDeadline returns when the newest slot leaves the window.
func (w *slidingWindow) nextDeadline(r *Rule) int64 {
	if len(w.slots) == 0 {
		return 0
	}
	length := slotLength(r.Within)
	return (w.slots[len(w.slots)-1].number + int64(r.Within)/length) * length
}

// saturatingAdd returns a + b, at most NoMax; both are at least 0.
func saturatingAdd(a, b int64) int64 {
	if a > NoMax-b {
		return NoMax
	}
	return a + b
}

// A tumblingWindow is the state of Count, Distinct and Sum with an upper bound. Windows begin at multiples of
// Within, and each is evaluated at its end. The window behind the last one with a signal is evaluated too: to
// have none may be what the rule looks for.
type tumblingWindow struct {
	number      int64 // of the window: its begin / Within
	total       int64
	count       int64
	values      map[int64]struct{}
	first, last int64
	events      []Event
	origin      Origin
	empty       bool // it has no signal yet: the one before had
}

func (w *tumblingWindow) addSignal(_ *Fold, g *group, s *Signal, at int64) {
	w.number = at / int64(g.rule.Within)
	amount := s.count()
	if g.rule.Kind == Sum {
		amount = max(0, s.Value)
	}
	w.total = saturatingAdd(w.total, amount)
	if w.count == 0 {
		w.first, w.last = s.first(), s.last()
	}
	w.count = saturatingAdd(w.count, s.count())
	w.first, w.last, w.origin, w.empty = min(w.first, s.first()), max(w.last, s.last()), s.Origin, false
	// Beyond Max the number of values does not matter.
	if g.rule.Kind == Distinct && int64(len(w.values)) <= g.rule.Max {
		if w.values == nil {
			w.values = map[int64]struct{}{}
		}
		w.values[s.Value] = struct{}{}
	}
	if len(w.events) < maxEvents {
		w.events = append(w.events, Event{s.Step, s.Start, s.Event})
	}
}

// passDeadline evaluates the window, and begins the next one.
func (w *tumblingWindow) passDeadline(f *Fold, g *group, at int64) {
	measured := w.total
	if g.rule.Kind == Distinct {
		measured = int64(len(w.values))
	}
	if measured >= g.rule.Min && measured <= g.rule.Max {
		f.addMatch(g, Match{At: at, Count: w.count, First: w.first, Last: w.last, Events: w.events, Origin: w.origin})
	}
	if w.empty {
		*w = tumblingWindow{}
		return
	}
	*w = tumblingWindow{number: w.number + 1, first: w.first, last: w.last, origin: w.origin, empty: true}
}

func (w *tumblingWindow) nextDeadline(r *Rule) int64 {
	if w.count == 0 && !w.empty {
		return 0
	}
	return (w.number + 1) * int64(r.Within)
}

func (w *slidingWindow) bytes() int {
	return 40*len(w.slots) + 16*len(w.values) + eventBytes*len(w.fresh)
}

func (w *tumblingWindow) bytes() int {
	return 32*len(w.values) + eventBytes*len(w.events) + w.origin.bytes()
}
