// Package correlate evaluates correlation rules, which look at several events: ten failed logins within a
// minute, a scan and then a call back, a request that nothing answers.
//
// A correlation rule has steps. An event that matches a step is a Signal. A Fold takes the signals of some
// groups, keeps for each rule and group what lies in the rule's window, and returns a Match wherever the rule
// is fulfilled. detectors/rules makes the rules and the signals. Replay and the cases of rules own a Fold
// each, and the engine one for each partition of the signals topic.
//
// # Time
//
// A signal has the time at which its event began and the time at which it ended. A Fold adds signals to their
// groups in the order in which their events ended: an event is only known when it is over, and events of one
// group that ended at about the same time may come from several collectors and partitions in any order. So
// signals wait until the watermark has passed their end. The owner of the Fold moves the watermark (Advance),
// and states with it that all signals before it have been added. A signal that comes later all the same is
// added at once, as if it had ended at the watermark.
//
// Everything that a Fold returns follows from the signals, their order by end, and the watermarks at which
// late ones came. It reads no clock.
//
// # State
//
// What a group needs is bounded, and nothing is kept longer than Rule.Memory. A Fold that begins empty at any
// place of the signals returns the same matches as one that has all of them, from Rule.Memory behind that
// place on, except for groups that reached a bound.
//
//	window.go      count, distinct and sum over a sliding or a tumbling window
//	statistic.go   average and percentile over tumbling windows
//	sequence.go    steps one after the other, or in any order
//	absent.go      a step that is not followed by another
//	interval.go    contacts at regular distances
//	first_seen.go  values that were not there before
//	aggregate.go   several signals joined to one, before they are added
//	fold.go        order, groups, deadlines, bounds
package correlate

import (
	"time"

	"tidegate/pipeline"
)

// A Kind says what a rule looks for in the signals of a group.
type Kind int

// The kinds of rules.
const (
	Count      Kind = iota // the number of signals
	Distinct               // the number of different values of a field
	Sum                    // the sum of a field
	Sequence               // signals of several steps
	Absent                 // a signal of the first step without one of the second behind it
	FirstSeen              // a value that the group did not have before
	Interval               // signals at regular distances
	Average                // the average of a field
	Percentile             // a percentile of a field, such as the median
)

// A Rule holds the steps and bounds of a correlation rule. It is immutable.
type Rule struct {
	ID, Version string
	Kind        Kind
	Within      time.Duration // the window; 0 for FirstSeen and Interval

	// Min and Max bound what Count, Distinct and Sum count, and a statistic: a window matches if it has at least Min and at
	// most Max. With a Max windows are tumbling: they begin at multiples of Within, and each is evaluated at
	// its end. Without one (NoMax) the window is the one that ends with each signal.
	Min, Max int64

	// Of Average and Percentile, whose windows are tumbling too: which percentile, in hundredths of a percent
	// (9500 is the 95th), how many signals a window must have, and, of Average, whether Min and Max themselves
	// are out of bounds. Values below 0 count as 0.
	Percent          int64
	MinEvents        int64
	OpenMin, OpenMax bool

	Steps   []Step // two or more for Sequence, two for Absent, else one
	Ordered bool   // the steps of a Sequence follow each other in the order of Steps

	// Of FirstSeen: for as long as Baseline from its first signal on, the values of a group are only learned.
	// A value that does not come for as long as ExpireAfter is new again.
	Baseline, ExpireAfter time.Duration

	// Of Interval: how many contacts there must be, the bounds of the median distance between two of them,
	// and how far a distance may differ from the median, as a part of it.
	Contacts    int
	MinInterval time.Duration
	MaxInterval time.Duration
	Jitter      float64 // 0.2: a fifth
}

// NoMax is Rule.Max of a rule that has no upper bound.
const NoMax = int64(1)<<62 - 1

// A Step is one kind of event that a rule looks for.
type Step struct {
	Name   string
	Within time.Duration // longest time since the step before; 0: as long as the window
	// Not: the rule matches only if no event of this step lies between the steps around it.
	Not bool
	// Until: an event of this step ends every sequence that has begun. It stands behind all others.
	Until bool
}

// Memory returns how long a signal may matter: a Fold that lacks older ones returns the same matches.
func (r *Rule) Memory() time.Duration {
	switch r.Kind {
	case FirstSeen:
		return max(r.Baseline, r.ExpireAfter)
	case Interval:
		return time.Duration(r.Contacts+1) * r.MaxInterval * 2
	}
	return 2 * r.Within
}

// A Signal is an event that matches a step of a rule, or several events that an Aggregator has joined.
type Signal struct {
	Rule, Version string
	Step          int    // index in Rule.Steps
	Group         string // of the event for this step; groups with equal texts are one
	Start, End    int64  // when the event began and ended, ns since 1970
	// Value is a number for Sum, Average and Percentile, and the hash of a value for Distinct and FirstSeen.
	Value int64
	// ValueHigh is the second half of the hash for FirstSeen. Who could make two values with one hash could hide a new value.
	ValueHigh uint64
	Event     pipeline.ID

	// Count is the number of events if they are several, and First and Last are when the earliest and the latest of them
	// began. Start, End, Event and all below are those of the one that ended last, Value is the sum for Sum.
	Count       int64
	First, Last int64

	Origin

	// Position of the event, which orders signals that ended at the same time.
	Partition int32
	Offset    int64
	Index     uint32
}

// An Origin is what an alert says of the event that fulfilled its rule.
type Origin struct {
	Text       string          // the text of the alert, with the values of the event
	AlertEvent *pipeline.Event // that the alert shows; nil where nobody needs it
}

// A Match is a rule that is fulfilled in a group.
type Match struct {
	Rule        *Rule
	Group       string
	At          int64   // end of the signal (the watermark if it was late) or deadline that completed it; ns since 1970
	First, Last int64   // begin of the earliest and latest event; of a match without events, those of the window before
	Count       int64   // events that belong to it and to no match of the group before
	Events      []Event // up to maxEvents of them, in the order of their steps and times
	Origin              // of the signal that fulfilled it
	Late        bool    // the signal that completed it came behind the watermark, or could not wait for it because of Limits: signals may be missing
}

// An Event names an event that belongs to a match.
type Event struct {
	Step  int
	Start int64
	ID    pipeline.ID
}

// maxEvents bounds the events that a match names.
const maxEvents = 20
