package correlate

import (
	"cmp"
	"container/heap"
	"container/list"
	"math"
	"strings"

	"tidegate/pipeline"
)

// Limits bound the memory of a Fold.
type Limits struct {
	Groups        int // of all rules
	GroupsPerRule int
	Waiting       int // signals that wait for the watermark
	Bytes         int // of all groups, roughly; the waiting signals may take four times as much in addition; 0: no bound
	Values        int // that the rules of FirstSeen remember; 32 bytes each
}

// DefaultLimits are the bounds where nothing else is configured.
var DefaultLimits = Limits{Groups: 1 << 20, GroupsPerRule: 1 << 18, Waiting: 1 << 20, Values: 10_000_000}

// maxTime is the latest time of a signal, in the year 2116: a deadline behind it must not overflow.
const maxTime = int64(1) << 62

// Counts are what a Fold has counted since it was made.
type Counts struct {
	Signals uint64 // events added to a group, late ones included
	Late    uint64 // came behind the watermark
	Unknown uint64 // of a rule or a version that the Fold does not have
	Evicted uint64 // groups and values that were evicted for Limits
	Forced  uint64 // signals that were added before the watermark came to them, for Limits.Waiting
	Dropped uint64 // signals of a group that had too many
}

// A Fold keeps the windows of correlation rules. It is used by one goroutine.
type Fold struct {
	rules       map[string]*Rule // by id
	limits      Limits
	watermark   int64 // signals that end before it have been added to their groups
	waiting     signalHeap
	waitingSize int // bytes of waiting, roughly
	deadlines   deadlineHeap
	groups      map[groupKey]*group
	bytes       int                   // of groups
	ruleBytes   map[string]int        // of the groups of each rule
	recent      map[string]*list.List // by rule: of *group, the one with the latest signal in front
	matches     []Match               // since the last Advance
	counts      Counts
	ruleCounts  map[string]*Counts     // of the loaded rules, by id
	seen        map[string]*seenValues // by rule of FirstSeen
	keepsSeen   bool
	changedSeen []pipeline.SeenValue // since the last TakeSeen
}

// A groupKey names a group of a rule.
type groupKey struct{ rule, group string }

// A group is the state of a rule for the events of one group.
type group struct {
	rule     *Rule
	name     string
	state    state
	bytes    int           // that it takes, roughly
	deadline int64         // when passDeadline is called
	index    int           // in Fold.deadlines; -1: the group is not in it
	place    *list.Element // in the list of its rule
}

// A state holds what a kind of rule needs of the signals of a group.
type state interface {
	// addSignal adds the latest signal of the group: at is its end, or the watermark of a late one.
	addSignal(f *Fold, g *group, s *Signal, at int64)
	// passDeadline is called at the deadline, when all signals that ended before it have been added.
	passDeadline(f *Fold, g *group, at int64)
	// nextDeadline returns when passDeadline must be called; 0: there is nothing left in the state.
	nextDeadline(r *Rule) int64
	// bytes returns roughly what the state takes.
	bytes() int
}

// Sizes, roughly, of a group and of what it holds.
const (
	groupBytes      = 400
	eventBytes      = 48
	signalBytes     = 250
	alertEventBytes = 500 // of Origin.AlertEvent
)

// bytes returns roughly what an Origin takes.
func (o *Origin) bytes() int {
	if o.AlertEvent == nil {
		return len(o.Text)
	}
	return len(o.Text) + alertEventBytes
}

// New returns an empty Fold.
func New(rules []*Rule, limits Limits) *Fold {
	f := &Fold{
		rules: map[string]*Rule{}, limits: limits, groups: map[groupKey]*group{}, recent: map[string]*list.List{},
		ruleBytes: map[string]int{}, seen: map[string]*seenValues{}, ruleCounts: map[string]*Counts{},
	}
	f.SetRules(rules)
	return f
}

// SetRules replaces the rules. The windows of a rule that has the same version as before stay, those of the
// others end.
func (f *Fold) SetRules(rules []*Rule) {
	before := f.rules
	f.rules = make(map[string]*Rule, len(rules))
	for _, rule := range rules {
		f.rules[rule.ID] = rule
	}
	for id, old := range before {
		rule := f.rules[id]
		if rule == nil || rule.Version != old.Version {
			delete(f.seen, id)
		}
		if rule == nil {
			delete(f.ruleCounts, id)
		}
	}
	for _, g := range f.groups {
		if rule := f.rules[g.rule.ID]; rule == nil || rule.Version != g.rule.Version {
			f.removeGroup(g)
		} else {
			g.rule = rule
		}
	}
}

// Counts returns what the Fold has counted.
func (f *Fold) Counts() Counts { return f.counts }

// RuleCounts returns what the Fold has counted for each loaded rule of which a signal came late, or a bound was reached.
// Signals and Unknown are not counted by rule. Its result is valid until the next call of a method.
func (f *Fold) RuleCounts() map[string]*Counts { return f.ruleCounts }

// ofRule returns the counts of a loaded rule.
func (f *Fold) ofRule(id string) *Counts {
	counts := f.ruleCounts[id]
	if counts == nil {
		counts = &Counts{}
		f.ruleCounts[id] = counts
	}
	return counts
}

// countEvicted counts groups or values of a rule that were evicted.
func (f *Fold) countEvicted(rule string, count int) {
	f.counts.Evicted += uint64(count)
	f.ofRule(rule).Evicted += uint64(count)
}

// countDropped counts a signal of a group that has too many.
func (f *Fold) countDropped(rule *Rule) {
	f.counts.Dropped++
	f.ofRule(rule.ID).Dropped++
}

// Groups returns the number of groups with a window.
func (f *Fold) Groups() int { return len(f.groups) }

// Values returns the number of values that rules of FirstSeen remember.
func (f *Fold) Values() (count int) {
	for _, seen := range f.seen {
		count += len(seen.values)
	}
	return count
}

// Add adds a signal, which waits until the watermark has passed its end.
func (f *Fold) Add(s Signal) {
	rule := f.rules[s.Rule]
	if rule == nil || rule.Version != s.Version || s.Step >= len(rule.Steps) {
		f.counts.Unknown += uint64(max(1, s.Count))
		return
	}
	s.End = min(max(s.End, 0), maxTime) // distances of times must not overflow
	s.Start = min(max(s.Start, 0), s.End)
	s.Count = min(max(s.Count, 0), NoMax)
	s.First = min(max(s.First, 0), s.Start)
	s.Last = min(max(s.Last, s.Start), s.End)
	if s.End < f.watermark {
		f.counts.Late += uint64(s.count())
		f.ofRule(s.Rule).Late += uint64(s.count())
		f.addToGroup(&s, true)
		return
	}
	added := &waitingSignal{s, waitingBytes(&s)}
	heap.Push(&f.waiting, added)
	f.waitingSize += added.size
	for len(f.waiting) > f.limits.Waiting || f.limits.Bytes > 0 && f.waitingSize > 4*f.limits.Bytes {
		// What is matched now may lack signals that are still to come, as if the signal had come late.
		forced := &f.waiting[0].Signal
		f.counts.Forced += uint64(forced.count())
		if f.rules[forced.Rule] != nil {
			f.ofRule(forced.Rule).Forced += uint64(forced.count())
		}
		f.watermark = max(f.watermark, f.waiting[0].End)
		before := len(f.matches)
		f.passDeadlines(f.watermark)
		f.markLate(before)
		f.addToGroup(f.popWaiting(), true)
	}
}

// popWaiting removes the waiting signal that is taken next.
func (f *Fold) popWaiting() *Signal {
	popped := heap.Pop(&f.waiting).(*waitingSignal)
	f.waitingSize -= popped.size
	return &popped.Signal
}

// A waitingSignal is a signal with roughly the bytes that it takes.
type waitingSignal struct {
	Signal
	size int
}

// waitingBytes returns roughly what a signal takes that waits: its texts may have any length.
func waitingBytes(s *Signal) int {
	return signalBytes + len(s.Group) + len(s.Text) + s.AlertEvent.SizeVT()
}

// Advance moves the watermark: all signals that ended before it have been added. It returns the matches since
// the last call, in the order in which they were fulfilled.
func (f *Fold) Advance(watermark int64) []Match {
	for len(f.waiting) > 0 && f.waiting[0].End < watermark {
		s := f.popWaiting()
		f.passDeadlines(s.End)
		f.watermark = max(f.watermark, s.End)
		f.addToGroup(s, false)
	}
	f.passDeadlines(watermark)
	f.watermark = max(f.watermark, watermark)
	matches := f.matches
	f.matches = nil
	return matches
}

// Close returns the matches of all that was added, as if the time went on until the last deadline.
func (f *Fold) Close() []Match { return f.Advance(math.MaxInt64) }

// addToGroup adds a signal to its group.
func (f *Fold) addToGroup(s *Signal, late bool) {
	rule := f.rules[s.Rule]
	if rule == nil || rule.Version != s.Version { // the rules were replaced while it waited
		f.counts.Unknown++
		return
	}
	f.counts.Signals += uint64(s.count())
	before, at := len(f.matches), min(max(s.End, f.watermark), maxTime)
	if late {
		defer func() { f.markLate(before) }()
	}
	if rule.Kind == FirstSeen {
		f.addSeen(rule, s, at)
		return
	}
	g := f.groups[groupKey{s.Rule, s.Group}]
	if g == nil {
		g = f.openGroup(rule, s.Group)
	}
	f.recent[s.Rule].MoveToFront(g.place)
	g.state.addSignal(f, g, s, at)
	f.updateGroup(g)
	for f.limits.Bytes > 0 && f.bytes > f.limits.Bytes && len(f.groups) > 0 {
		f.evictGroup(f.recent[f.largestRule(s.Rule)])
	}
}

// markLate marks the matches from the index first on.
func (f *Fold) markLate(first int) {
	for i := range f.matches[first:] {
		f.matches[first+i].Late = true
	}
}

// maxGroups returns the groups of the rule that has most; first, which may be nil, if no other one has more.
func (f *Fold) maxGroups(first *list.List) *list.List {
	most, mostID := first, ""
	for id, other := range f.recent {
		if most == nil || other.Len() > most.Len() || other.Len() == most.Len() && most != first && id < mostID {
			most, mostID = other, id
		}
	}
	return most
}

// largestRule returns the rule whose groups take the most bytes. Evicting there keeps one rule with large groups from
// evicting the small groups of others. Where several take as much, it is first, or else the one with the lowest id.
func (f *Fold) largestRule(first string) string {
	largest := first
	for id, bytes := range f.ruleBytes {
		if most := f.ruleBytes[largest]; bytes > most || bytes == most && largest != first && id < largest {
			largest = id
		}
	}
	return largest
}

// openGroup returns a new group. Where a limit is reached, the group of the rule with the oldest last signal
// is evicted; where the groups of all rules are too many, that of the rule with the most groups.
func (f *Fold) openGroup(rule *Rule, name string) *group {
	recent := f.recent[rule.ID]
	if recent == nil {
		recent = list.New()
	}
	if recent.Len() >= f.limits.GroupsPerRule {
		f.evictGroup(recent)
	} else if len(f.groups) >= f.limits.Groups {
		f.evictGroup(f.maxGroups(recent))
	}
	g := &group{rule: rule, name: strings.Clone(name), index: -1}
	switch rule.Kind {
	case Count, Distinct, Sum:
		if g.state = new(slidingWindow); rule.Max != NoMax {
			g.state = new(tumblingWindow)
		}
	case Sequence:
		g.state = &sequence{steps: make([][]Signal, len(rule.Steps))}
	case Absent:
		g.state = new(absence)
	case Interval:
		g.state = new(contacts)
	case Average, Percentile:
		g.state = new(statisticWindow)
	}
	f.recent[rule.ID] = recent // evictGroup may have removed it
	g.place = recent.PushFront(g)
	f.groups[groupKey{rule.ID, g.name}] = g
	return g
}

// evictGroup removes the last group of a list.
func (f *Fold) evictGroup(recent *list.List) {
	evicted := recent.Back().Value.(*group)
	f.countEvicted(evicted.rule.ID, 1)
	f.removeGroup(evicted)
}

func (f *Fold) removeGroup(g *group) {
	recent := f.recent[g.rule.ID]
	if recent.Remove(g.place); recent.Len() == 0 {
		delete(f.recent, g.rule.ID)
	}
	delete(f.groups, groupKey{g.rule.ID, g.name})
	f.resize(g, 0)
	if g.index >= 0 {
		heap.Remove(&f.deadlines, g.index)
	}
}

// resize sets the size of a group and updates the sums.
func (f *Fold) resize(g *group, bytes int) {
	f.bytes += bytes - g.bytes
	if f.ruleBytes[g.rule.ID] += bytes - g.bytes; f.ruleBytes[g.rule.ID] == 0 {
		delete(f.ruleBytes, g.rule.ID)
	}
	g.bytes = bytes
}

// updateGroup sets the deadline and the size of a group, or removes a group that has no deadline.
func (f *Fold) updateGroup(g *group) {
	f.resize(g, groupBytes+len(g.name)+g.state.bytes())
	g.deadline = g.state.nextDeadline(g.rule)
	switch {
	case g.deadline == 0:
		f.removeGroup(g)
	case g.index < 0:
		heap.Push(&f.deadlines, g)
	default:
		heap.Fix(&f.deadlines, g.index)
	}
}

// passDeadlines calls passDeadline for each deadline up to at: all signals that ended before it have been
// added.
func (f *Fold) passDeadlines(at int64) {
	for len(f.deadlines) > 0 && f.deadlines[0].deadline <= at {
		g := f.deadlines[0]
		g.state.passDeadline(f, g, g.deadline)
		f.updateGroup(g)
	}
}

// addMatch records that the rule of a group is fulfilled.
func (f *Fold) addMatch(g *group, m Match) {
	m.Rule, m.Group = g.rule, g.name
	f.matches = append(f.matches, m)
}

// A signalHeap has the signal that is taken next in front.
type signalHeap []*waitingSignal

func (h signalHeap) Len() int           { return len(h) }
func (h signalHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h signalHeap) Less(i, j int) bool { return compareSignals(&h[i].Signal, &h[j].Signal) < 0 }
func (h *signalHeap) Push(s any)        { *h = append(*h, s.(*waitingSignal)) }

// Pop removes the last signal.
func (h *signalHeap) Pop() any {
	last := len(*h) - 1
	s := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return s
}

// compareSignals orders signals by the end of their events, then by their begin, then by their step, then by their position.
// At equal times, as in logs with whole seconds, an earlier step comes first: an expected event follows what expects it.
func compareSignals(a, b *Signal) int {
	return cmp.Or(
		cmp.Compare(a.End, b.End), cmp.Compare(a.Start, b.Start), cmp.Compare(a.Step, b.Step),
		cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.Index, b.Index),
		strings.Compare(a.Rule, b.Rule),
	)
}

// A deadlineHeap has the group with the earliest deadline in front; those with the same one are ordered by
// rule and name, so that the order of matches does not depend on that of signals.
type deadlineHeap []*group

func (h deadlineHeap) Len() int { return len(h) }

// Swap exchanges two groups.
func (h deadlineHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Less reports whether the deadline of i comes before that of j.
func (h deadlineHeap) Less(i, j int) bool {
	a, b := h[i], h[j]
	return cmp.Or(cmp.Compare(a.deadline, b.deadline), strings.Compare(a.rule.ID, b.rule.ID), strings.Compare(a.name, b.name)) < 0
}

// Push adds a group.
func (h *deadlineHeap) Push(value any) {
	g := value.(*group)
	g.index = len(*h)
	*h = append(*h, g)
}

// Pop removes the last group.
func (h *deadlineHeap) Pop() any {
	last := len(*h) - 1
	g := (*h)[last]
	g.index, (*h)[last] = -1, nil
	*h = (*h)[:last]
	return g
}
