package correlate

import (
	"math"
	"slices"
)

// contacts is the state of Interval: the latest contacts of a group. Signals that follow each other faster
// than half of the shortest interval are one contact: a program that reports home often sends several
// requests at once.
type contacts struct {
	times  []int64 // end of the first signal of each contact, at most Rule.Contacts
	events []Event // of the first signal of each
	fresh  int64   // contacts that belong to no match
	last   int64   // the latest signal
}

// maxGap is the longest distance between two contacts of one series, as a multiple of MaxInterval: one may be
// lost.
const maxGap = 2

// allowedIrregular returns how many of a number of distances may be irregular: a lost contact makes one of
// them longer.
func allowedIrregular(distances int) int { return max(1, distances/10) }

func (c *contacts) addSignal(f *Fold, g *group, s *Signal, at int64) {
	r := g.rule
	since := at - c.last
	c.last = at
	switch {
	case len(c.times) > 0 && since < int64(r.MinInterval)/2:
		return
	case len(c.times) > 0 && since > maxGap*int64(r.MaxInterval):
		*c = contacts{last: at}
	case len(c.times) == r.Contacts:
		c.times, c.events = slices.Delete(c.times, 0, 1), slices.Delete(c.events, 0, 1)
	}
	c.times, c.events = append(c.times, at), append(c.events, Event{s.Step, s.Start, s.Event})
	c.fresh = min(c.fresh+1, int64(len(c.times)))
	if len(c.times) < r.Contacts || !areRegular(r, c.times) {
		return
	}
	events := c.events[len(c.events)-int(c.fresh):]
	m := Match{At: at, Count: c.fresh, Origin: s.Origin, Events: slices.Clone(events[max(0, len(events)-maxEvents):])}
	m.First, m.Last = events[0].Start, s.Start
	c.fresh = 0
	f.addMatch(g, m)
}

// areRegular reports whether the distances between times are about the same.
func areRegular(r *Rule, times []int64) bool {
	distances := make([]int64, len(times)-1)
	for i := range distances {
		distances[i] = times[i+1] - times[i]
	}
	slices.Sort(distances)
	median := distances[len(distances)/2]
	if median < int64(r.MinInterval) || median > int64(r.MaxInterval) {
		return false
	}
	regular := 0
	for _, distance := range distances {
		if math.Abs(float64(distance-median)) <= r.Jitter*float64(median) {
			regular++
		}
	}
	return len(distances)-regular <= allowedIrregular(len(distances))
}

func (c *contacts) passDeadline(_ *Fold, _ *group, _ int64) { *c = contacts{} }

func (c *contacts) nextDeadline(r *Rule) int64 {
	if len(c.times) == 0 {
		return 0
	}
	return c.last + maxGap*int64(r.MaxInterval) + 1
}

func (c *contacts) bytes() int { return (8 + eventBytes) * len(c.times) }
