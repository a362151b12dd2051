package correlate

import "math/bits"

// A statisticWindow is the state of Average and Percentile. Windows begin at multiples of Within, and each
// that has at least MinEvents signals is evaluated at its end: within a window the first signals alone would
// be no statistic.
//
// Whether a statistic lies within bounds that are known needs no values: the average follows from the sum and
// the count, a percentile from the number of values below Min and above Max. So a group takes the same
// however many signals it has.
type statisticWindow struct {
	number      int64 // of the window: its begin / Within
	count       int64
	sum         uint128
	below       int64 // values below Min
	above       int64 // values above Max
	first, last int64
	events      []Event
	origin      Origin
}

// A uint128 holds a sum, which must not overflow: values are whatever a peer has sent.
type uint128 struct{ high, low uint64 }

func (w *statisticWindow) addSignal(_ *Fold, g *group, s *Signal, at int64) {
	w.number = at / int64(g.rule.Within)
	value := max(0, s.Value)
	low, carry := bits.Add64(w.sum.low, uint64(value), 0)
	w.sum = uint128{w.sum.high + carry, low}
	if value < g.rule.Min {
		w.below++
	}
	if value > g.rule.Max {
		w.above++
	}
	if w.count++; w.count == 1 {
		w.first, w.last = s.Start, s.Start
	}
	w.first, w.last, w.origin = min(w.first, s.Start), max(w.last, s.Start), s.Origin
	if len(w.events) < maxEvents {
		w.events = append(w.events, Event{s.Step, s.Start, s.Event})
	}
}

// passDeadline evaluates the window. The next one begins with a signal.
func (w *statisticWindow) passDeadline(f *Fold, g *group, at int64) {
	holds := w.averageHolds
	if g.rule.Kind == Percentile {
		holds = w.percentileHolds
	}
	if w.count >= g.rule.MinEvents && holds(g.rule) {
		f.addMatch(g, Match{At: at, Count: w.count, First: w.first, Last: w.last, Events: w.events, Origin: w.origin})
	}
	*w = statisticWindow{}
}

// averageHolds reports whether the average lies within the bounds, without the rounding of a division.
func (w *statisticWindow) averageHolds(r *Rule) bool {
	atLeast := w.sum.compare(product(r.Min, w.count))
	if atLeast < 0 || r.OpenMin && atLeast == 0 {
		return false
	}
	if r.Max == NoMax {
		return true
	}
	atMost := w.sum.compare(product(r.Max, w.count))
	return atMost < 0 || atMost == 0 && !r.OpenMax
}

// percentileHolds reports whether the percentile lies within the bounds. It is the value with the rank
// ceil(Percent * count), of the values in ascending order (the method of the nearest rank).
func (w *statisticWindow) percentileHolds(r *Rule) bool {
	const whole = 10_000
	rank := w.count/whole*r.Percent + (w.count%whole*r.Percent+whole-1)/whole // the parts cannot overflow
	return w.below < rank && w.count-w.above >= rank
}

// product returns a * b; neither is negative.
func product(a, b int64) uint128 {
	high, low := bits.Mul64(uint64(a), uint64(b))
	return uint128{high, low}
}

// compare returns -1, 0 or 1 where u is less than other, equal to it, or more.
func (u uint128) compare(other uint128) int {
	low, borrow := bits.Sub64(u.low, other.low, 0)
	high, borrow := bits.Sub64(u.high, other.high, borrow)
	switch {
	case borrow > 0:
		return -1
	case high == 0 && low == 0:
		return 0
	}
	return 1
}

func (w *statisticWindow) nextDeadline(r *Rule) int64 {
	if w.count == 0 {
		return 0
	}
	return (w.number + 1) * int64(r.Within)
}

func (w *statisticWindow) bytes() int { return eventBytes*len(w.events) + w.origin.bytes() }
