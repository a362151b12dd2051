package correlate

import (
	"slices"
	"time"
)

// An Aggregator joins signals of one group and second, so that a flood of one group is few signals. Rules count their
// windows in whole seconds: a Fold that is given the joined signals returns matches with the same sums, first and last.
//
// The earliest exactSignals of a second stay as they are, with their event ids and times, so that a threshold that is
// reached there is reached by the same event. All later ones are one signal with a count. The result depends on the
// signals, not on how they were divided among Aggregators before: joined signals can be joined again.
type Aggregator struct {
	rules   map[string]*Rule
	index   map[aggregateKey]*aggregate
	signals []Signal
	bytes   int
}

// An aggregateKey names signals that may be joined.
type aggregateKey struct {
	rule, group string
	second      int64 // of the end
	value       int64 // of Distinct and FirstSeen
	valueHigh   uint64
}

// An aggregate is where the signals of a key are in Aggregator.signals.
type aggregate struct {
	exact  []int // those that stay as they are
	latest int   // the one of exact that is last in the order of compareSignals
	joined int   // the one with a count; -1: there is none
}

// exactSignals is the number of signals of a key that stay as they are: as many as a match names.
const exactSignals = maxEvents

// NewAggregator returns an Aggregator for signals of the rules.
func NewAggregator(rules []*Rule) *Aggregator {
	a := &Aggregator{rules: make(map[string]*Rule, len(rules)), index: map[aggregateKey]*aggregate{}}
	for _, rule := range rules {
		a.rules[rule.ID] = rule
	}
	return a
}

// exactOf returns how many signals of a key of the rule stay as they are; 0: its signals cannot be joined.
func (r *Rule) exactOf() int {
	switch r.Kind {
	case Count, Distinct, Sum:
		// A tumbling window must not begin within a second.
		if r.Max == NoMax || r.Within%time.Second == 0 {
			return exactSignals
		}
	case FirstSeen:
		return 1 // the first one may be new; the last one says until when the value was there
	case Interval:
		// Signals less than half of MinInterval apart are one contact. The first of a second may begin it.
		if r.MinInterval >= 2*time.Second {
			return 1
		}
	}
	return 0
}

// Add adds a signal.
func (a *Aggregator) Add(s *Signal) {
	exact := 0
	if rule := a.rules[s.Rule]; rule != nil && rule.Version == s.Version && s.Step < len(rule.Steps) {
		exact = rule.exactOf()
	}
	if exact == 0 {
		a.append(s)
		return
	}
	key := aggregateKey{rule: s.Rule, group: s.Group, second: s.End / int64(time.Second)}
	if kind := a.rules[s.Rule].Kind; kind == Distinct || kind == FirstSeen {
		key.value, key.valueHigh = s.Value, s.ValueHigh
	}
	found := a.index[key]
	if found == nil {
		found = &aggregate{joined: -1}
		a.index[key] = found
		a.bytes += aggregateBytes
	}
	switch {
	case s.Count > 1:
		a.join(found, s)
	case len(found.exact) < exact:
		found.exact = append(found.exact, len(a.signals))
		a.append(s)
		if len(found.exact) == 1 || compareSignals(s, &a.signals[found.latest]) > 0 {
			found.latest = len(a.signals) - 1
		}
	case compareSignals(s, &a.signals[found.latest]) > 0:
		a.join(found, s)
	default:
		// The latest of those that stay as they are gives its place to an earlier one.
		latest := a.signals[found.latest]
		a.bytes += s.bytes() - latest.bytes()
		a.signals[found.latest] = *s
		for _, i := range found.exact {
			if compareSignals(&a.signals[i], &a.signals[found.latest]) > 0 {
				found.latest = i
			}
		}
		a.join(found, &latest)
	}
}

// join adds a signal to the one of its key that has a count.
func (a *Aggregator) join(found *aggregate, s *Signal) {
	if found.joined < 0 {
		found.joined = len(a.signals)
		a.append(s)
		return
	}
	joined := &a.signals[found.joined]
	count := saturatingAdd(joined.count(), s.count())
	first, last := min(joined.first(), s.first()), max(joined.last(), s.last())
	value := joined.Value
	if a.rules[s.Rule].Kind == Sum {
		value = saturatingAdd(max(0, joined.Value), max(0, s.Value))
	}
	if compareSignals(s, joined) > 0 {
		a.bytes += s.bytes() - joined.bytes()
		*joined = *s
	}
	joined.Count, joined.First, joined.Last, joined.Value = count, first, last, value
}

func (a *Aggregator) append(s *Signal) {
	a.signals = append(a.signals, *s)
	a.bytes += s.bytes()
}

// Bytes returns roughly what the Aggregator takes.
func (a *Aggregator) Bytes() int { return a.bytes }

// Take returns the signals since the last call, in an order that depends on that of Add.
func (a *Aggregator) Take() []Signal {
	taken := slices.Clip(a.signals)
	a.signals, a.bytes = nil, 0
	clear(a.index)
	return taken
}

// aggregateBytes is roughly what an aggregate takes, with its key.
const aggregateBytes = 300

// bytes returns roughly what a signal takes. Its event is one that others hold.
func (s *Signal) bytes() int { return signalBytes + len(s.Group) + len(s.Text) }

// count returns the number of events of a signal.
func (s *Signal) count() int64 { return max(1, s.Count) }

// first returns when the earliest event of a signal began.
func (s *Signal) first() int64 {
	if s.Count > 1 {
		return s.First
	}
	return s.Start
}

// last returns when the event of a signal that began last did so.
func (s *Signal) last() int64 {
	if s.Count > 1 {
		return s.Last
	}
	return s.Start
}
