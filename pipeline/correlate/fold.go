package correlate

import (
	"cmp"
	"container/heap"
	"container/list"
	"math"
	"strings"
)

// Limits bound the memory of a Fold.
type Limits struct {
	Groups        int // of all rules
	GroupsPerRule int
	Waiting       int // signals that wait for the watermark
}

// DefaultLimits are the bounds where nothing else is configured.
var DefaultLimits = Limits{Groups: 1 << 20, GroupsPerRule: 1 << 18, Waiting: 1 << 20}

// Counts are what a Fold has counted since it was made.
type Counts struct {
	Signals   uint64 // taken, late ones included
	Late      uint64 // came behind the watermark
	Unknown   uint64 // of a rule or a version that the Fold does not have
	Evicted   uint64 // groups that were given up for Limits
	Overtaken uint64 // signals that were taken before the watermark, for Limits.Waiting
	Shortened uint64 // signals that a group with too many gave up
}

// A Fold keeps the windows of rules over several events. It is used by one goroutine.
type Fold struct {
	rules     map[string]*Rule // by id
	limits    Limits
	watermark int64 // signals that end before it have been taken
	waiting   signalHeap
	deadlines deadlineHeap
	groups    map[groupKey]*group
	perRule   map[string]int // groups
	recent    list.List      // of *group, the one with the latest signal in front
	matches   []Match        // since the last Advance
	counts    Counts
	known     map[string]*knownValues // by rule of FirstSeen
}

// A groupKey names the state of a rule for a group.
type groupKey struct{ rule, group string }

// A group is the state of a rule for the events of one group.
type group struct {
	rule     *Rule
	name     string
	state    state
	deadline int64 // of the earliest entry of Fold.deadlines that counts; 0: none
	place    *list.Element
}

// A state is what a kind of rule keeps for a group.
type state interface {
	// add takes a signal that is the latest of the group: at is its end, or the watermark of a late one.
	add(f *Fold, g *group, s *Signal, at int64)
	// pass is called at the deadline, when all signals that ended before it have been taken.
	pass(f *Fold, g *group, at int64)
	// deadline returns when pass must be called; 0: there is nothing left in the state.
	deadline(r *Rule) int64
}

// New returns an empty Fold.
func New(rules []*Rule, limits Limits) *Fold {
	f := &Fold{
		rules: map[string]*Rule{}, limits: limits, groups: map[groupKey]*group{}, perRule: map[string]int{},
		known: map[string]*knownValues{},
	}
	f.SetRules(rules)
	return f
}

// SetRules replaces the rules. The windows of a rule that has the same version as before stay, those of the others end.
func (f *Fold) SetRules(rules []*Rule) {
	f.rules = make(map[string]*Rule, len(rules))
	for _, rule := range rules {
		f.rules[rule.ID] = rule
	}
	for _, g := range f.groups {
		if rule := f.rules[g.rule.ID]; rule == nil || rule.Version != g.rule.Version {
			f.remove(g)
			delete(f.known, g.rule.ID)
		} else {
			g.rule = rule
		}
	}
}

// Counts returns what the Fold has counted.
func (f *Fold) Counts() Counts { return f.counts }

// Groups returns the number of groups with a window.
func (f *Fold) Groups() int { return len(f.groups) }

// Add adds a signal. It is taken when the watermark has passed its end.
func (f *Fold) Add(s Signal) {
	rule := f.rules[s.Rule]
	if rule == nil || rule.Version != s.Version || s.Step >= len(rule.Steps) {
		f.counts.Unknown++
		return
	}
	s.Start = min(s.Start, s.End)
	if s.End < f.watermark {
		f.counts.Late++
		f.take(&s, true)
		return
	}
	heap.Push(&f.waiting, &s)
	if len(f.waiting) > f.limits.Waiting {
		f.counts.Overtaken++
		f.watermark = max(f.watermark, f.waiting[0].End)
		f.passDeadlines(f.watermark)
		f.take(heap.Pop(&f.waiting).(*Signal), false)
	}
}

// Advance moves the watermark: all signals that ended before it have been added. It returns the matches since the last
// call, in the order in which they were fulfilled.
func (f *Fold) Advance(watermark int64) []Match {
	for len(f.waiting) > 0 && f.waiting[0].End < watermark {
		s := heap.Pop(&f.waiting).(*Signal)
		f.passDeadlines(s.End)
		f.watermark = max(f.watermark, s.End)
		f.take(s, false)
	}
	f.passDeadlines(watermark)
	f.watermark = max(f.watermark, watermark)
	matches := f.matches
	f.matches = nil
	return matches
}

// Close returns the matches of all that was added, as if the time went on until the last deadline.
func (f *Fold) Close() []Match { return f.Advance(math.MaxInt64) }

// take adds a signal to its group.
func (f *Fold) take(s *Signal, late bool) {
	f.counts.Signals++
	rule := f.rules[s.Rule]
	if rule == nil || rule.Version != s.Version { // the rules were replaced while it waited
		f.counts.Unknown++
		return
	}
	g := f.groups[groupKey{s.Rule, s.Group}]
	if g == nil {
		g = f.open(rule, s.Group)
	}
	f.recent.MoveToFront(g.place)
	before := len(f.matches)
	g.state.add(f, g, s, max(s.End, f.watermark))
	for i := before; late && i < len(f.matches); i++ {
		f.matches[i].Late = true
	}
	f.setDeadline(g)
}

// open returns a new group. Where a limit is reached, the group whose last signal is the longest ago is given up.
func (f *Fold) open(rule *Rule, name string) *group {
	if f.perRule[rule.ID] >= f.limits.GroupsPerRule {
		for e := f.recent.Back(); e != nil; e = e.Prev() {
			if g := e.Value.(*group); g.rule.ID == rule.ID {
				f.evict(g)
				break
			}
		}
	}
	if len(f.groups) >= f.limits.Groups {
		f.evict(f.recent.Back().Value.(*group))
	}
	g := &group{rule: rule, name: strings.Clone(name)}
	switch rule.Kind {
	case Count, Distinct, Sum:
		if g.state = new(slidingWindow); rule.Max != NoMax {
			g.state = new(fixedWindow)
		}
	case Sequence:
		g.state = &sequence{steps: make([][]Signal, len(rule.Steps))}
	case Absent:
		g.state = new(absence)
	case FirstSeen:
		g.state = new(firstSeen)
	case Interval:
		g.state = new(contacts)
	}
	g.place = f.recent.PushFront(g)
	f.groups[groupKey{rule.ID, g.name}] = g
	f.perRule[rule.ID]++
	return g
}

func (f *Fold) evict(g *group) {
	f.counts.Evicted++
	f.remove(g)
}

func (f *Fold) remove(g *group) {
	f.recent.Remove(g.place)
	g.deadline = 0
	delete(f.groups, groupKey{g.rule.ID, g.name})
	if f.perRule[g.rule.ID]--; f.perRule[g.rule.ID] == 0 {
		delete(f.perRule, g.rule.ID)
	}
}

// setDeadline enters the deadline of a group, or removes a group that has none. An entry that is no longer the earliest
// of its group is skipped when its time comes.
func (f *Fold) setDeadline(g *group) {
	at := g.state.deadline(g.rule)
	if at == 0 {
		f.remove(g)
		return
	}
	if g.deadline == 0 || at < g.deadline {
		g.deadline = at
		heap.Push(&f.deadlines, deadline{at, g})
	}
}

// passDeadlines calls pass for each deadline up to at: all signals that ended before it have been taken.
func (f *Fold) passDeadlines(at int64) {
	for len(f.deadlines) > 0 && f.deadlines[0].at <= at {
		due := heap.Pop(&f.deadlines).(deadline)
		g := due.group
		if g.deadline != due.at {
			continue // the group is gone, or another entry counts
		}
		g.deadline = 0
		if now := g.state.deadline(g.rule); now <= due.at {
			g.state.pass(f, g, due.at)
		}
		f.setDeadline(g)
	}
}

// match records that the rule of a group is fulfilled.
func (f *Fold) match(g *group, m Match) {
	m.Rule, m.Group = g.rule, g.name
	f.matches = append(f.matches, m)
}

// A signalHeap has the signal that is taken next in front.
type signalHeap []*Signal

func (h signalHeap) Len() int           { return len(h) }
func (h signalHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h signalHeap) Less(i, j int) bool { return compareSignals(h[i], h[j]) < 0 }
func (h *signalHeap) Push(s any)        { *h = append(*h, s.(*Signal)) }

// Pop removes the last signal.
func (h *signalHeap) Pop() any {
	last := len(*h) - 1
	s := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return s
}

// compareSignals orders signals by the end of their events; those that ended at the same time by their position.
func compareSignals(a, b *Signal) int {
	return cmp.Or(
		cmp.Compare(a.End, b.End), cmp.Compare(a.Start, b.Start),
		cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.Index, b.Index),
		strings.Compare(a.Rule, b.Rule), cmp.Compare(a.Step, b.Step),
	)
}

// A deadline is a time at which a group must be looked at.
type deadline struct {
	at    int64
	group *group
}

// A deadlineHeap has the earliest deadline in front; those at the same time are ordered by rule and group, so that
// the order of matches does not depend on the order of signals.
type deadlineHeap []deadline

func (h deadlineHeap) Len() int      { return len(h) }
func (h deadlineHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *deadlineHeap) Push(d any)   { *h = append(*h, d.(deadline)) }

// Less reports whether the deadline i comes before j.
func (h deadlineHeap) Less(i, j int) bool {
	a, b := h[i], h[j]
	return cmp.Or(cmp.Compare(a.at, b.at), strings.Compare(a.group.rule.ID, b.group.rule.ID),
		strings.Compare(a.group.name, b.group.name)) < 0
}

// Pop removes the last deadline.
func (h *deadlineHeap) Pop() any {
	last := len(*h) - 1
	d := (*h)[last]
	(*h)[last] = deadline{}
	*h = (*h)[:last]
	return d
}
