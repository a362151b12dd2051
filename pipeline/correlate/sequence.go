package correlate

import (
	"slices"

	"tidegate/pipeline"
)

// maxPerStep bounds the events that a group keeps for each step of a sequence. Of more, one in the middle is
// dropped: a flood of events of one step removes neither the one that began a sequence before it nor the one
// that ends it.
const maxPerStep = 32

// A sequence is the state of Sequence. The events of a step are compared by when they began, because a
// request that makes a container call back may end after the connection that it caused.
type sequence struct {
	steps [][]Signal               // by step, ordered by Start
	fresh map[pipeline.ID]struct{} // the events that belong to no match yet
}

func (q *sequence) addSignal(f *Fold, g *group, s *Signal, at int64) {
	q.expire(g.rule, at)
	events := q.steps[s.Step]
	i, _ := slices.BinarySearchFunc(events, s.Start, func(e Signal, start int64) int {
		if e.Start <= start {
			return -1
		}
		return 1
	})
	events = slices.Insert(events, i, *s)
	if len(events) > maxPerStep {
		f.countDropped(g.rule)
		middle := maxPerStep / 2
		if middle == i {
			middle++ // the new event may be the one that completes the sequence
		}
		delete(q.fresh, events[middle].Event)
		events = slices.Delete(events, middle, middle+1)
	}
	q.steps[s.Step] = events

	step := g.rule.Steps[s.Step]
	if step.Not || step.Until {
		return
	}
	if q.fresh == nil {
		q.fresh = map[pipeline.ID]struct{}{}
	}
	q.fresh[s.Event] = struct{}{}
	find := q.findInAnyOrder
	if g.rule.Ordered {
		find = q.findInOrder
	}
	chain := find(g.rule, s)
	if chain == nil {
		return
	}
	m := Match{At: at, First: chain[0].Start, Last: chain[0].Start, Origin: chain[len(chain)-1].Origin}
	for _, e := range chain {
		m.First, m.Last = min(m.First, e.Start), max(m.Last, e.Start)
		m.Events = append(m.Events, Event{e.Step, e.Start, e.Event})
		if _, fresh := q.fresh[e.Event]; fresh {
			m.Count++
			delete(q.fresh, e.Event)
		}
	}
	f.addMatch(g, m)
}

// expire removes the events that can belong to no sequence with an event that ends at the time at or later,
// and is no longer than the window.
func (q *sequence) expire(r *Rule, at int64) {
	oldest := at - 2*int64(r.Within)
	for i, events := range q.steps {
		q.steps[i] = deleteFront(events, func(e Signal) bool {
			isOld := e.Start < oldest
			if isOld {
				delete(q.fresh, e.Event)
			}
			return isOld
		})
	}
}

func (q *sequence) passDeadline(_ *Fold, g *group, at int64) { q.expire(g.rule, at) }

// nextDeadline returns when the last event leaves the window.
func (q *sequence) nextDeadline(r *Rule) int64 {
	latest := int64(0)
	for _, events := range q.steps {
		if n := len(events); n > 0 {
			latest = max(latest, events[n-1].Start)
		}
	}
	if latest == 0 {
		return 0
	}
	return latest + 2*int64(r.Within) + 1
}

// A link is the best sequence that ends with an event: the one that begins last.
type link struct {
	begin int64
	prev  int // index of the event of the step before; -1: there is no such sequence
}

// findInOrder returns the events of a sequence that s belongs to, one for each step, or nil.
//
// For every event of a step it finds the latest event of the step before that may stand in front of it. The
// latest one is the best one: it is the nearest, and its own sequence begins no earlier than those of the
// others.
func (q *sequence) findInOrder(r *Rule, s *Signal) []Signal {
	var steps [][]Signal // without those that must not occur
	var links [][]link
	var before []int // steps that must not occur before the next one
	var until []Signal
	for i, step := range r.Steps {
		if step.Until {
			until = q.steps[i]
		}
	}
	for i, step := range r.Steps {
		if step.Until {
			continue
		}
		if step.Not {
			before = append(before, i)
			continue
		}
		events := q.steps[i]
		if i == s.Step {
			events = []Signal{*s}
		}
		row := make([]link, len(events))
		for j := range events {
			if len(steps) == 0 {
				row[j] = link{begin: events[j].Start, prev: j}
				continue
			}
			row[j] = q.linkTo(&events[j], step, steps[len(steps)-1], links[len(links)-1], before, until)
		}
		steps, links, before = append(steps, events), append(links, row), nil
	}

	// The first event of the last step that ends a sequence within the window.
	last := len(steps) - 1
	for j, end := range links[last] {
		if end.prev < 0 || steps[last][j].Start-end.begin > int64(r.Within) {
			continue
		}
		chain := make([]Signal, len(steps))
		for i, at := last, j; i >= 0; i-- {
			chain[i] = steps[i][at]
			at = links[i][at].prev
		}
		return chain
	}
	return nil
}

// linkTo returns the best sequence that ends with e, an event of step. previous are the events of the step
// before it, and links their sequences.
func (q *sequence) linkTo(e *Signal, step Step, previous []Signal, links []link, before []int, until []Signal) link {
	for p := len(previous) - 1; p >= 0; p-- {
		candidate := &previous[p]
		if candidate.Start > e.Start || candidate.Event == e.Event || links[p].prev < 0 {
			continue
		}
		if step.Within > 0 && e.Start-candidate.Start > int64(step.Within) {
			break // those before are further away
		}
		if liesBetween(until, candidate, e) {
			break
		}
		for _, i := range before {
			if liesBetween(q.steps[i], candidate, e) {
				return link{prev: -1}
			}
		}
		return link{begin: links[p].begin, prev: p}
	}
	return link{prev: -1}
}

// liesBetween reports whether one of events began between two others.
func liesBetween(events []Signal, from, to *Signal) bool {
	return slices.ContainsFunc(events, func(e Signal) bool {
		return from.Start <= e.Start && e.Start <= to.Start && e.Event != from.Event && e.Event != to.Event
	})
}

// findInAnyOrder returns an event of each step, of which s is one and which are different events, within the
// window, or nil.
func (q *sequence) findInAnyOrder(r *Rule, s *Signal) []Signal {
	// Every window that holds s and begins with an event.
	var begins []int64
	for i, step := range r.Steps {
		for _, e := range q.steps[i] {
			if !step.Until && e.Start <= s.Start && s.Start-e.Start <= int64(r.Within) {
				begins = append(begins, e.Start)
			}
		}
	}
	slices.Sort(begins)
	for _, begin := range slices.Backward(slices.Compact(begins)) {
		if chain := q.chooseWithin(r, s, begin); chain != nil {
			return chain
		}
	}
	return nil
}

// chooseWithin returns an event of each step that began within the window from begin on, or nil.
func (q *sequence) chooseWithin(r *Rule, s *Signal, begin int64) []Signal {
	var chain []Signal
	var choose func(step int) bool
	choose = func(step int) bool {
		if step == len(r.Steps) || r.Steps[step].Until {
			return true
		}
		candidates := q.steps[step]
		if step == s.Step {
			candidates = []Signal{*s}
		}
		tried := 0
		for _, e := range candidates {
			used := slices.ContainsFunc(chain, func(other Signal) bool { return other.Event == e.Event })
			if used || e.Start < begin || e.Start-begin > int64(r.Within) || step != s.Step && e.Event == s.Event {
				continue
			}
			chain = append(chain, e)
			if choose(step + 1) {
				return true
			}
			chain = chain[:len(chain)-1]
			// An event is in the way of at most one other step, so as many others as there are steps are
			// enough.
			if tried++; tried > len(r.Steps) {
				break
			}
		}
		return false
	}
	if !choose(0) {
		return nil
	}
	from, to := chain[0], chain[0]
	for _, e := range chain {
		if e.Start < from.Start {
			from = e
		}
		if e.Start > to.Start {
			to = e
		}
	}
	for i, step := range r.Steps {
		if step.Until && liesBetween(q.steps[i], &from, &to) {
			return nil
		}
	}
	return chain
}

func (q *sequence) bytes() (sum int) {
	for _, events := range q.steps {
		for i := range events {
			sum += signalBytes + events[i].Origin.bytes()
		}
	}
	return sum
}
