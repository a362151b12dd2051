package correlate

import "slices"

// The steps of Absent.
const (
	stepExpecting = 0 // what must be followed
	stepExpected  = 1 // by what
)

// maxExpecting bounds the events of a group that wait for what must follow them; of more, the oldest ones are
// kept.
const maxExpecting = 32

// An absence is the state of Absent.
type absence struct {
	expecting []expectation // ordered by at
}

// An expectation is an event that nothing has followed yet.
type expectation struct {
	at int64 // when it ended
	Event
	origin Origin
}

func (a *absence) addSignal(f *Fold, g *group, s *Signal, at int64) {
	switch {
	case s.Step == stepExpected:
		// Those whose time is over have been matched: this one follows all that are left.
		a.expecting = slices.DeleteFunc(a.expecting, func(e expectation) bool { return e.ID != s.Event })
	case len(a.expecting) == maxExpecting:
		f.countDropped(g.rule)
	default:
		a.expecting = append(a.expecting, expectation{at, Event{s.Step, s.Start, s.Event}, s.Origin})
	}
}

// passDeadline matches the events whose time is over.
func (a *absence) passDeadline(f *Fold, g *group, at int64) {
	for len(a.expecting) > 0 && a.nextDeadline(g.rule) <= at {
		e := a.expecting[0]
		a.expecting = slices.Delete(a.expecting, 0, 1)
		f.addMatch(g, Match{At: at, Count: 1, First: e.Start, Last: e.Start, Events: []Event{e.Event}, Origin: e.origin})
	}
}

// nextDeadline returns the time behind the window of the oldest event: what ends with the window still
// follows in time.
func (a *absence) nextDeadline(r *Rule) int64 {
	if len(a.expecting) == 0 {
		return 0
	}
	return a.expecting[0].at + int64(r.Within) + 1
}

func (a *absence) bytes() (sum int) {
	for i := range a.expecting {
		sum += eventBytes + a.expecting[i].origin.bytes()
	}
	return sum
}
