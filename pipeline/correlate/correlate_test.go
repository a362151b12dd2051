package correlate_test

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/correlate"
)

const second = int64(time.Second)

// begin is the time of the tests, a multiple of all their windows.
var begin = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC).UnixNano()

// signal returns a signal of the rule "r" in group "g" that lasts no time.
func signal(step int, at float64) correlate.Signal {
	end := begin + int64(at*float64(second))
	s := correlate.Signal{Rule: "r", Version: "1", Step: step, Group: "g", Start: end, End: end}
	binary.BigEndian.PutUint64(s.Event[:], uint64(end))
	return s
}

// rule returns a rule with a number of steps.
func rule(kind correlate.Kind, within time.Duration, steps int) *correlate.Rule {
	r := &correlate.Rule{
		ID: "r", Version: "1", Kind: kind, Within: within, Steps: make([]correlate.Step, steps), Ordered: true,
		Min: 1, Max: correlate.NoMax,
	}
	return r
}

// fold returns the matches of signals, as "at count [first-last] events…" in seconds from begin.
func fold(r *correlate.Rule, signals ...correlate.Signal) []string {
	f := correlate.New([]*correlate.Rule{r}, correlate.DefaultLimits)
	for _, s := range signals {
		f.Add(s)
	}
	return render(f.Close())
}

func render(matches []correlate.Match) (out []string) {
	seconds := func(at int64) string { return fmt.Sprint(float64(at-begin) / float64(second)) }
	for _, m := range matches {
		text := fmt.Sprintf("%s %d [%s-%s]", seconds(m.At), m.Count, seconds(m.First), seconds(m.Last))
		for _, e := range m.Events {
			text += fmt.Sprintf(" %d:%s", e.Step, seconds(e.Start))
		}
		if m.Late {
			text += " late"
		}
		if m.Group != "g" {
			text = m.Group + ": " + text
		}
		out = append(out, text)
	}
	return out
}

func check(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func TestCountMatchesInTheWindowThatEndsWithASignal(t *testing.T) {
	r := rule(correlate.Count, 10*time.Second, 1)
	r.Min = 3
	check(t, fold(r, signal(0, 1), signal(0, 5), signal(0, 10)), "10 3 [1-10] 0:1 0:5 0:10")
	check(t, fold(r, signal(0, 1), signal(0, 5), signal(0, 11)))
	// Each further signal belongs to a match of its own, and each is counted once.
	check(t, fold(r, signal(0, 1), signal(0, 2), signal(0, 3), signal(0, 4), signal(0, 30), signal(0, 31), signal(0, 32)),
		"3 3 [1-3] 0:1 0:2 0:3", "4 1 [4-4] 0:4", "32 3 [30-32] 0:30 0:31 0:32")
}

func TestDistinctCountsValues(t *testing.T) {
	r := rule(correlate.Distinct, 10*time.Second, 1)
	r.Min = 3
	value := func(v int64, at float64) correlate.Signal {
		s := signal(0, at)
		s.Value = v
		return s
	}
	check(t, fold(r, value(1, 1), value(2, 2), value(1, 3), value(2, 4), value(3, 5)), "5 5 [1-5] 0:1 0:2 0:3 0:4 0:5")
	check(t, fold(r, value(1, 1), value(2, 8), value(3, 11)))
	check(t, fold(r, value(1, 1), value(2, 8), value(1, 9), value(3, 11)), "11 3 [8-11] 0:8 0:9 0:11")
}

func TestSumAddsValues(t *testing.T) {
	r := rule(correlate.Sum, 10*time.Second, 1)
	r.Min = 100
	value := func(v int64, at float64) correlate.Signal {
		s := signal(0, at)
		s.Value = v
		return s
	}
	check(t, fold(r, value(60, 1), value(39, 2), value(1, 3)), "3 3 [1-3] 0:1 0:2 0:3")
	check(t, fold(r, value(60, 1), value(60, 11)))
	check(t, fold(r, value(correlate.NoMax, 1), value(1<<62, 2), value(-5, 3), value(99, 30)),
		"1 1 [1-1] 0:1", "2 1 [2-2] 0:2", "3 1 [3-3] 0:3")
}

func TestCountBelowABoundIsJudgedAtTheEndOfItsWindow(t *testing.T) {
	r := rule(correlate.Count, 10*time.Second, 1)
	r.Min, r.Max = 0, 1
	check(t, fold(r, signal(0, 1), signal(0, 2), signal(0, 11)), "20 1 [11-11] 0:11", "30 0 [11-11]")
	r.Min, r.Max = 2, 3
	check(t, fold(r, signal(0, 1), signal(0, 2), signal(0, 10), signal(0, 21), signal(0, 22), signal(0, 23), signal(0, 24)),
		"10 2 [1-2] 0:1 0:2")
}

func TestSequenceFollowsTheBeginOfEvents(t *testing.T) {
	r := rule(correlate.Sequence, 10*time.Second, 3)
	check(t, fold(r, signal(0, 1), signal(1, 2), signal(2, 11)), "11 3 [1-11] 0:1 1:2 2:11")
	check(t, fold(r, signal(0, 1), signal(1, 2), signal(2, 11.1)))
	check(t, fold(r, signal(1, 1), signal(0, 2), signal(2, 3)))
	// The nearest events are taken: the first of step 0 is too old.
	check(t, fold(r, signal(0, 1), signal(0, 4), signal(1, 5), signal(2, 14)), "14 3 [4-14] 0:4 1:5 2:14")
	// A request that ends after the connection which it caused comes first all the same.
	long := signal(0, 1)
	long.End += 8 * second
	check(t, fold(r, signal(1, 2), signal(2, 3), long), "9 3 [1-3] 0:1 1:2 2:3")
	// One event is one step.
	check(t, fold(r, signal(0, 1), signal(1, 1), signal(2, 1)))
	// An event that completes another sequence is counted once.
	check(t, fold(r, signal(0, 1), signal(1, 2), signal(2, 3), signal(2, 4)), "3 3 [1-3] 0:1 1:2 2:3", "4 1 [1-4] 0:1 1:2 2:4")
}

func TestStepsOfASequenceMayHaveAWindow(t *testing.T) {
	r := rule(correlate.Sequence, 100*time.Second, 3)
	r.Steps[2].Within = 5 * time.Second
	check(t, fold(r, signal(0, 1), signal(1, 50), signal(2, 55)), "55 3 [1-55] 0:1 1:50 2:55")
	check(t, fold(r, signal(0, 1), signal(1, 50), signal(2, 56)))
	check(t, fold(r, signal(0, 1), signal(1, 20), signal(1, 50), signal(2, 54)), "54 3 [1-54] 0:1 1:50 2:54")
}

func TestStepThatMustNotOccur(t *testing.T) {
	r := rule(correlate.Sequence, 10*time.Second, 3)
	r.Steps[1].Not = true
	check(t, fold(r, signal(0, 1), signal(2, 3)), "3 2 [1-3] 0:1 2:3")
	check(t, fold(r, signal(0, 1), signal(1, 2), signal(2, 3)))
	check(t, fold(r, signal(0, 1), signal(1, 2), signal(0, 2.5), signal(2, 3)), "3 2 [2.5-3] 0:2.5 2:3")
	check(t, fold(r, signal(1, 0.5), signal(0, 1), signal(2, 3), signal(1, 4)), "3 2 [1-3] 0:1 2:3")
}

func TestUntilEndsWhatHasBegun(t *testing.T) {
	r := rule(correlate.Sequence, 10*time.Second, 4)
	r.Steps[3].Until = true
	check(t, fold(r, signal(0, 1), signal(1, 2), signal(3, 3), signal(2, 4)))
	check(t, fold(r, signal(0, 1), signal(3, 1.5), signal(1, 2), signal(2, 4)))
	check(t, fold(r, signal(0, 1), signal(3, 3), signal(0, 4), signal(1, 5), signal(2, 6)), "6 3 [4-6] 0:4 1:5 2:6")
	r.Ordered = false
	check(t, fold(r, signal(2, 1), signal(0, 2), signal(3, 3), signal(1, 4)))
	check(t, fold(r, signal(2, 1), signal(0, 2), signal(1, 3), signal(3, 4)), "3 3 [1-3] 0:2 1:3 2:1")
}

func TestStepsInAnyOrder(t *testing.T) {
	r := rule(correlate.Sequence, 10*time.Second, 3)
	r.Ordered = false
	check(t, fold(r, signal(2, 1), signal(0, 2), signal(1, 11)), "11 3 [1-11] 0:2 1:11 2:1")
	check(t, fold(r, signal(2, 1), signal(0, 2), signal(1, 11.5)))
	// One event that is of two steps is only one of them.
	check(t, fold(r, signal(0, 1), signal(1, 1), signal(2, 3)))
	check(t, fold(r, signal(0, 1), signal(1, 1), signal(2, 3), signal(1, 4)), "4 3 [1-4] 0:1 1:4 2:3")
}

func TestAbsenceIsKnownWhenItsTimeIsOver(t *testing.T) {
	r := rule(correlate.Absent, 10*time.Second, 2)
	f := correlate.New([]*correlate.Rule{r}, correlate.DefaultLimits)
	f.Add(signal(0, 1))
	if m := f.Advance(begin + 11*second); len(m) != 0 {
		t.Errorf("before the window is over: %v", render(m))
	}
	check(t, render(f.Advance(begin+11*second+1)), "11.000000001 1 [1-1] 0:1")
	check(t, fold(r, signal(0, 1), signal(1, 11)))
	check(t, fold(r, signal(0, 1), signal(0, 2), signal(1, 11.5)), "11.000000001 1 [1-1] 0:1")
	check(t, fold(r, signal(1, 0.5), signal(0, 1)), "11.000000001 1 [1-1] 0:1")
}

func TestRegularContactsMatch(t *testing.T) {
	r := rule(correlate.Interval, 0, 1)
	r.Contacts, r.MinInterval, r.MaxInterval, r.Jitter = 5, 10*time.Second, time.Minute, 0.2
	check(t, fold(r, signal(0, 0), signal(0, 30), signal(0, 60), signal(0, 92), signal(0, 118)),
		"118 5 [0-118] 0:0 0:30 0:60 0:92 0:118")
	// Several requests at once are one contact.
	check(t, fold(r, signal(0, 0), signal(0, 1), signal(0, 30), signal(0, 31), signal(0, 60), signal(0, 92), signal(0, 118)),
		"118 5 [0-118] 0:0 0:30 0:60 0:92 0:118")
	check(t, fold(r, signal(0, 0), signal(0, 30), signal(0, 45), signal(0, 92), signal(0, 118)))
	check(t, fold(r, signal(0, 0), signal(0, 6), signal(0, 12), signal(0, 18), signal(0, 24)))
	check(t, fold(r, signal(0, 0), signal(0, 100), signal(0, 200), signal(0, 300), signal(0, 400)))
}

func TestNewValuesOfAGroupMatchOnceItIsKnown(t *testing.T) {
	r := rule(correlate.FirstSeen, 0, 1)
	r.Baseline, r.ExpireAfter = 10*time.Second, 100*time.Second
	value := func(group string, v int64, at float64) correlate.Signal {
		s := signal(0, at)
		s.Group, s.Value = group, v
		return s
	}
	check(t, fold(r, value("g", 1, 1), value("g", 2, 5), value("g", 3, 11), value("g", 3, 12), value("g", 1, 13)), "11 1 [11-11] 0:11")
	// A new group learns first, and a value that was not there for long is new again.
	check(t, fold(r, value("g", 1, 1), value("g", 2, 60), value("h", 1, 61), value("h", 3, 72), value("g", 1, 120)),
		"60 1 [60-60] 0:60", "h: 72 1 [72-72] 0:72", "120 1 [120-120] 0:120")
}

// TestLateSignalsAreTakenAtTheWatermark: they match, and the match says so.
func TestLateSignalsAreTakenAtTheWatermark(t *testing.T) {
	r := rule(correlate.Count, 10*time.Second, 1)
	r.Min = 2
	f := correlate.New([]*correlate.Rule{r}, correlate.DefaultLimits)
	f.Add(signal(0, 1))
	check(t, render(f.Advance(begin+5*second)))
	f.Add(signal(0, 2))
	check(t, render(f.Advance(begin+6*second)), "5 2 [1-2] 0:1 0:2 late")
	if c := f.Counts(); c.Late != 1 || c.Signals != 2 {
		t.Errorf("counts %+v", c)
	}
}

// TestRulesThatStayKeepTheirWindows: a rule with another version begins anew.
func TestRulesThatStayKeepTheirWindows(t *testing.T) {
	first, other := rule(correlate.Count, time.Minute, 1), rule(correlate.Count, time.Minute, 1)
	first.Min, other.Min, other.ID = 2, 2, "other"
	f := correlate.New([]*correlate.Rule{first, other}, correlate.DefaultLimits)
	add := func(id, version string, at float64) {
		s := signal(0, at)
		s.Rule, s.Version = id, version
		f.Add(s)
	}
	add("r", "1", 1)
	add("other", "1", 1)
	f.Advance(begin + 2*second)
	changed := *other
	changed.Version = "2"
	f.SetRules([]*correlate.Rule{first, &changed})
	add("r", "1", 3)
	add("other", "2", 3)
	add("other", "1", 3)
	check(t, render(f.Advance(begin+4*second)), "3 2 [1-3] 0:1 0:3")
	if c := f.Counts(); c.Unknown != 1 {
		t.Errorf("counts %+v", c)
	}
	f.SetRules(nil)
	if n := f.Groups(); n != 0 {
		t.Errorf("%d groups without a rule", n)
	}
}

// TestGroupsAreBounded: the group whose last signal is the longest ago is given up, first one of the rule
// that has too many.
func TestGroupsAreBounded(t *testing.T) {
	first, other := rule(correlate.Count, time.Hour, 1), rule(correlate.Count, time.Hour, 1)
	first.Min, other.Min, other.ID = 2, 2, "other"
	f := correlate.New([]*correlate.Rule{first, other}, correlate.Limits{Groups: 5, GroupsPerRule: 3, Waiting: 100})
	at := 0.0
	add := func(id, group string) {
		s := signal(0, at)
		s.Rule, s.Group = id, group
		at++
		f.Add(s)
		f.Advance(begin + int64(at)*second)
	}
	for _, group := range []string{"a", "b", "c", "d"} {
		add("other", "x")
		add("r", group)
	}
	if n := f.Groups(); n != 4 {
		t.Errorf("%d groups, want 3 of r and 1 of other", n)
	}
	if c := f.Counts(); c.Evicted != 1 {
		t.Errorf("counts %+v", c)
	}
	add("r", "a") // evicts b
	f.Add(correlate.Signal{Rule: "r", Version: "1", Group: "c", Start: begin + 20*second, End: begin + 20*second})
	if m := f.Advance(begin + 21*second); len(m) != 1 {
		t.Errorf("the group c has lost its window: %v", m)
	}
	for _, group := range []string{"x", "y", "z"} {
		add("other", group)
	}
	if n := f.Groups(); n != 5 {
		t.Errorf("%d groups", n)
	}
}

// TestGroupsThatAreGoneLeaveNothing: neither evicted groups nor those that are over stay among the deadlines.
func TestGroupsThatAreGoneLeaveNothing(t *testing.T) {
	r := rule(correlate.Absent, time.Hour, 2)
	f := correlate.New([]*correlate.Rule{r}, correlate.Limits{Groups: 10, GroupsPerRule: 1, Waiting: 100, Values: 10})
	for i := range 1000 {
		begun := signal(0, float64(i))
		begun.Group = fmt.Sprint(i)
		f.Add(begun)
	}
	f.Advance(begin + 1000*second)
	if f.Groups() != 1 || f.Deadlines() != 1 {
		t.Errorf("%d groups, %d deadlines", f.Groups(), f.Deadlines())
	}
	ended := signal(1, 1000)
	ended.Group = "999"
	f.Add(ended)
	f.Advance(begin + 1001*second)
	if f.Groups() != 0 || f.Deadlines() != 0 {
		t.Errorf("%d groups, %d deadlines", f.Groups(), f.Deadlines())
	}
}

// TestSumThatIsCutMatchesAgain: it is cut at NoMax, and right again once the large numbers have left the
// window.
func TestSumThatIsCutMatchesAgain(t *testing.T) {
	r := rule(correlate.Sum, 10*time.Second, 1)
	r.Min = 1000
	var signals []correlate.Signal
	for i := range 30 {
		s := signal(0, float64(i))
		if s.Value = 1000; i < 2 {
			s.Value = correlate.NoMax
		}
		signals = append(signals, s)
	}
	if got := fold(r, signals...); len(got) != 30 {
		t.Errorf("%d of 30 match", len(got))
	}
}

// TestOneContactMayBeLost: a distance of twice the others is the only one that differs.
func TestOneContactMayBeLost(t *testing.T) {
	r := rule(correlate.Interval, 0, 1)
	r.Contacts, r.MinInterval, r.MaxInterval, r.Jitter = 8, 10*time.Second, time.Minute, 0.2
	var signals []correlate.Signal
	for _, at := range []float64{0, 30, 60, 120, 150, 180, 210, 240, 270} {
		signals = append(signals, signal(0, at))
	}
	check(t, fold(r, signals...), "240 8 [0-240] 0:0 0:30 0:60 0:120 0:150 0:180 0:210 0:240", "270 1 [270-270] 0:270")
}

// TestSeenValuesAreBounded: also while a group only learns; old ones are removed first.
func TestSeenValuesAreBounded(t *testing.T) {
	r := rule(correlate.FirstSeen, 0, 1)
	r.Baseline, r.ExpireAfter = time.Hour, 2*time.Hour
	f := correlate.New([]*correlate.Rule{r}, correlate.Limits{Groups: 10, GroupsPerRule: 10, Waiting: 1 << 20, Values: 100})
	for i := range 1000 {
		s := signal(0, float64(i))
		s.Value = int64(i)
		f.Add(s)
	}
	f.Advance(begin + 1000*second)
	if n := f.Values(); n > 100 || n < 80 || f.Counts().Evicted < 900 {
		t.Errorf("%d values, counts %+v", n, f.Counts())
	}
}

// TestTimesBehindTheCalendarEnd: the deadlines of a signal at the end of the range of times do not overflow, with which a Fold would never
// return.
func TestTimesBehindTheCalendarEnd(t *testing.T) {
	for kind := range correlate.Interval + 1 {
		for _, highest := range []int64{5, correlate.NoMax} {
			for _, at := range []int64{math.MaxInt64, math.MaxInt64 - second, math.MinInt64, -1, 0} {
				r := rule(kind, 7*24*time.Hour, 2)
				r.Max, r.Contacts, r.MinInterval, r.MaxInterval, r.Baseline, r.ExpireAfter = highest, 3, time.Second, 24*time.Hour, time.Second, time.Hour
				f := correlate.New([]*correlate.Rule{r}, correlate.DefaultLimits)
				for range 2 { // the second time behind the watermark
					for step := range 2 {
						f.Add(correlate.Signal{Rule: "r", Version: "1", Step: step, Group: "g", Start: at, End: at})
					}
					f.Close()
				}
			}
		}
	}
}

// TestWaitingSignalsAreBounded: the earliest are taken before the watermark has come to them.
func TestWaitingSignalsAreBounded(t *testing.T) {
	r := rule(correlate.Count, time.Hour, 1)
	f := correlate.New([]*correlate.Rule{r}, correlate.Limits{Groups: 5, GroupsPerRule: 3, Waiting: 2})
	for at := range 5 {
		f.Add(signal(0, float64(at)))
	}
	if m := f.Advance(begin); len(m) != 3 || f.Counts().Forced != 3 {
		t.Errorf("%v, counts %+v", render(m), f.Counts())
	}
}

// TestFoldHoldsNothingOfGroupsThatAreOver: a group without a signal for the memory of its rule is gone.
func TestFoldHoldsNothingOfGroupsThatAreOver(t *testing.T) {
	for kind := range correlate.Interval + 1 {
		r := rule(kind, 10*time.Second, 2)
		r.Contacts, r.MinInterval, r.MaxInterval, r.Baseline, r.ExpireAfter = 3, time.Second, time.Minute, time.Second, time.Minute
		for _, r.Max = range []int64{5, correlate.NoMax} {
			f := correlate.New([]*correlate.Rule{r}, correlate.DefaultLimits)
			f.Add(signal(0, 1))
			f.Advance(begin + 2*second)
			if kind != correlate.FirstSeen && f.Groups() != 1 {
				t.Errorf("kind %d: %d groups", kind, f.Groups())
			}
			f.Advance(begin + 2*second + int64(r.Memory()) + second)
			if f.Groups() != 0 {
				t.Errorf("kind %d: %d groups that are over", kind, f.Groups())
			}
		}
	}
}

// TestFloodHidesNoSequence: thousands of events of one step leave the sequence that began before them.
func TestFloodHidesNoSequence(t *testing.T) {
	r := rule(correlate.Sequence, time.Hour, 3)
	r.Steps[1].Within = 10 * time.Second
	signals := []correlate.Signal{signal(0, 1), signal(1, 5)}
	for i := range 5000 {
		signals = append(signals, signal(1, 20+float64(i)/10))
	}
	check(t, fold(r, append(signals, signal(2, 600))...), "600 3 [1-600] 0:1 1:5 2:600")
}

// TestOrderOfArrivalDoesNotMatter: signals that come in any order before the watermark passes them have the
// same matches.
func TestOrderOfArrivalDoesNotMatter(t *testing.T) {
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 1))
		r, signals := randomCase(random)
		want := fold(r, signals...)

		shuffled := slices.Clone(signals)
		f := correlate.New([]*correlate.Rule{r}, correlate.DefaultLimits)
		// Each signal arrives up to 20 s after its end, and the watermark is 20 s behind the arrival.
		arrival := map[pipeline.ID]int64{}
		for _, s := range shuffled {
			arrival[s.Event] = s.End + random.Int64N(20*second)
		}
		slices.SortFunc(shuffled, func(a, b correlate.Signal) int { return cmp.Compare(arrival[a.Event], arrival[b.Event]) })
		var matches []correlate.Match
		for _, s := range shuffled {
			matches = append(matches, f.Advance(arrival[s.Event]-20*second)...)
			f.Add(s)
		}
		matches = append(matches, f.Close()...)
		if got := render(matches); !slices.Equal(got, want) {
			t.Fatalf("seed %d: rule %+v:\n%s\nwant\n%s", seed, r, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// TestFoldThatBeginsLaterAgrees: a fold that lacks what is older than Rule.Memory has the same matches from
// there on.
func TestFoldThatBeginsLaterAgrees(t *testing.T) {
	for seed := range uint64(300) {
		r, signals := randomCase(rand.New(rand.NewPCG(seed, 2)))
		if r.Kind == correlate.FirstSeen {
			continue // its values are kept elsewhere
		}
		from := begin + 200*second
		after := func(matches []correlate.Match) []string {
			return render(slices.DeleteFunc(matches, func(m correlate.Match) bool { return m.At < from }))
		}
		whole := correlate.New([]*correlate.Rule{r}, correlate.DefaultLimits)
		part := correlate.New([]*correlate.Rule{r}, correlate.DefaultLimits)
		for _, s := range signals {
			whole.Add(s)
			if s.End >= from-int64(r.Memory()) {
				part.Add(s)
			}
		}
		want, got := after(whole.Close()), after(part.Close())
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d: rule %+v:\n%s\nwant\n%s", seed, r, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// randomCase returns a rule and signals within 300 seconds.
func randomCase(random *rand.Rand) (*correlate.Rule, []correlate.Signal) {
	r := rule(correlate.Kind(random.IntN(9)), time.Duration(1+random.IntN(30))*time.Second, 1)
	r.Min, r.Contacts, r.MinInterval, r.MaxInterval, r.Jitter = 1+random.Int64N(4), 3, 2*time.Second, 20*time.Second, 0.4
	r.Baseline, r.ExpireAfter = 5*time.Second, 40*time.Second
	switch r.Kind {
	case correlate.Sequence:
		r.Steps, r.Ordered = make([]correlate.Step, 2+random.IntN(3)), random.IntN(2) == 0
		if r.Ordered && len(r.Steps) > 2 {
			r.Steps[1].Not = random.IntN(2) == 0
			r.Steps[2].Within = time.Duration(random.IntN(10)) * time.Second
		}
		if random.IntN(3) == 0 {
			r.Steps = append(r.Steps, correlate.Step{Until: true})
		}
	case correlate.Absent:
		r.Steps = make([]correlate.Step, 2)
	case correlate.Average, correlate.Percentile:
		r.Min, r.Percent, r.MinEvents = r.Min%3, 5000, random.Int64N(3)
	case correlate.Count, correlate.Distinct, correlate.Sum:
		if random.IntN(2) == 0 {
			r.Max = r.Min + random.Int64N(3)
			r.Min = random.Int64N(r.Min)
		}
	}
	var signals []correlate.Signal
	for i := range 20 + random.IntN(80) {
		s := signal(random.IntN(len(r.Steps)), random.Float64()*300)
		s.Start -= random.Int64N(int64(r.Within)*2/3 + 1)
		s.Value = random.Int64N(5)
		s.Group = string(rune('a' + random.IntN(2)))
		binary.BigEndian.PutUint64(s.Event[8:], uint64(i))
		signals = append(signals, s)
	}
	slices.SortFunc(signals, func(a, b correlate.Signal) int { return cmp.Compare(a.End, b.End) })
	return r, signals
}

// TestMatchNamesTheLatestEvents of many, and counts all.
func TestMatchNamesTheLatestEvents(t *testing.T) {
	r := rule(correlate.Count, time.Minute, 1)
	r.Min = 25
	f := correlate.New([]*correlate.Rule{r}, correlate.DefaultLimits)
	for i := range 25 {
		f.Add(signal(0, float64(i)))
	}
	matches := f.Close()
	if len(matches) != 1 || matches[0].Count != 25 || len(matches[0].Events) != 20 || matches[0].Events[0].Start != begin+5*second ||
		matches[0].Events[19].Start != begin+24*second || matches[0].First != begin || matches[0].Last != begin+24*second {
		t.Errorf("%v", render(matches))
	}
}

// TestOldestExpectationsAreKept: of more events than a group holds, the later ones are dropped and counted.
func TestOldestExpectationsAreKept(t *testing.T) {
	f := correlate.New([]*correlate.Rule{rule(correlate.Absent, time.Minute, 2)}, correlate.DefaultLimits)
	for i := range 35 {
		f.Add(signal(0, float64(i)))
	}
	matches := f.Close()
	if counts := f.Counts(); len(matches) != 32 || matches[0].First != begin || matches[31].First != begin+31*second || counts.Dropped != 3 || counts.Signals != 35 {
		t.Errorf("%d matches, %+v", len(matches), counts)
	}
}

// TestSeriesOfContactsBeginsAnewBehindAGap of more than two of the longest intervals.
func TestSeriesOfContactsBeginsAnewBehindAGap(t *testing.T) {
	r := rule(correlate.Interval, 0, 1)
	r.Contacts, r.MinInterval, r.MaxInterval, r.Jitter = 4, 10*time.Second, time.Minute, 0.2
	check(t, fold(r, signal(0, 0), signal(0, 30), signal(0, 151), signal(0, 181), signal(0, 211), signal(0, 241)),
		"241 4 [151-241] 0:151 0:181 0:211 0:241")
	check(t, fold(r, signal(0, 0), signal(0, 30), signal(0, 150), signal(0, 180), signal(0, 210)),
		"180 4 [0-180] 0:0 0:30 0:150 0:180", "210 1 [210-210] 0:210") // one contact may be lost
}

// TestValuesThatAreNewAgainAreForgottenFirst: a value that was not there for long is not evicted.
func TestValuesThatAreNewAgainAreForgottenFirst(t *testing.T) {
	r := rule(correlate.FirstSeen, 0, 1)
	r.Baseline, r.ExpireAfter = time.Second, 10*time.Second
	limits := correlate.DefaultLimits
	limits.Values = 32
	f := correlate.New([]*correlate.Rule{r}, limits)
	for i := range 33 {
		s := signal(0, 10+float64(i)/10)
		if i == 0 {
			s = signal(0, 1)
		}
		s.Value = int64(i)
		f.Add(s)
	}
	f.Advance(begin + 14*second)
	if counts := f.Counts(); f.Values() != 32 || counts.Evicted != 0 || counts.Signals != 33 { // the one at 1 s is gone
		t.Errorf("%d values, %+v", f.Values(), counts)
	}

	// Another version of the rule has not seen them.
	changed := *r
	changed.Version = "2"
	if f.SetRules([]*correlate.Rule{&changed}); f.Values() != 0 || f.Groups() != 0 {
		t.Errorf("%d values, %d groups", f.Values(), f.Groups())
	}
}

// TestSignalsOfAReplacedRuleAreNotAdded: they wait for the watermark while the rules change.
func TestSignalsOfAReplacedRuleAreNotAdded(t *testing.T) {
	r := rule(correlate.Count, time.Minute, 1)
	f := correlate.New([]*correlate.Rule{r}, correlate.DefaultLimits)
	f.Add(signal(0, 1))
	changed := *r
	changed.Version = "2"
	f.SetRules([]*correlate.Rule{&changed})
	if matches := f.Close(); len(matches) != 0 || f.Counts() != (correlate.Counts{Unknown: 1}) || f.Groups() != 0 {
		t.Errorf("%v, %+v", render(matches), f.Counts())
	}
}

// TestEventInTheMiddleOfAFloodCompletesASequence: it ended last, and it is not the one that is dropped.
func TestEventInTheMiddleOfAFloodCompletesASequence(t *testing.T) {
	r := rule(correlate.Sequence, time.Minute, 2)
	r.Steps[1].Within = time.Second / 2
	signals := []correlate.Signal{signal(0, 16.75)}
	for at := range 33 {
		if at != 16 {
			signals = append(signals, signal(1, float64(at+1)))
		}
	}
	last := signal(1, 17)
	last.End = begin + 40*second
	check(t, fold(r, append(signals, last)...), "40 2 [16.75-17] 0:16.75 1:17")
}

// TestGroupsStayAsLongAsASignalMatters, to the nanosecond.
func TestGroupsStayAsLongAsASignalMatters(t *testing.T) {
	check := func(what string, r *correlate.Rule, gone int64) {
		t.Helper()
		f := correlate.New([]*correlate.Rule{r}, correlate.DefaultLimits)
		f.Add(signal(0, 1))
		f.Add(signal(0, 4.5))
		f.Advance(begin + gone - 1)
		if f.Groups() != 1 || f.Deadlines() != 1 {
			t.Errorf("%s: %d groups, %d deadlines before their end", what, f.Groups(), f.Deadlines())
		}
		f.Advance(begin + gone)
		if f.Groups() != 0 || f.Deadlines() != 0 {
			t.Errorf("%s: %d groups, %d deadlines behind their end", what, f.Groups(), f.Deadlines())
		}
	}
	never := rule(correlate.Count, 10*time.Second, 1)
	never.Min = 100
	check("a sliding window", never, 14*second) // the slot of a second
	long := rule(correlate.Count, 20*time.Minute, 1)
	check("a long sliding window", long, 4*second+20*60*second) // slots of two seconds
	tumbling := rule(correlate.Count, 10*time.Second, 1)
	tumbling.Max = 5
	check("a tumbling window", tumbling, 20*second)
	check("a sequence", rule(correlate.Sequence, 10*time.Second, 2), 24*second+second/2+1)
	check("an absence", rule(correlate.Absent, 10*time.Second, 2), 14*second+second/2+1)
	regular := rule(correlate.Interval, 0, 1)
	regular.Contacts, regular.MinInterval, regular.MaxInterval = 3, time.Second, 10*time.Second
	check("a contact", regular, 24*second+second/2+1)
}

// TestSignalAtTheWatermarkWaits: others that ended at the same time may come.
func TestSignalAtTheWatermarkWaits(t *testing.T) {
	f := correlate.New([]*correlate.Rule{rule(correlate.Count, time.Minute, 1)}, correlate.DefaultLimits)
	f.Add(signal(0, 5))
	check(t, render(f.Advance(begin+5*second)))
	f.Add(signal(0, 5))
	check(t, render(f.Advance(begin+5*second+1)), "5 1 [5-5] 0:5", "5 1 [5-5] 0:5")
	if counts := f.Counts(); counts != (correlate.Counts{Signals: 2}) {
		t.Errorf("%+v", counts)
	}
}

// TestRuleWithTheMostGroupsLosesOne where all rules together have too many.
func TestRuleWithTheMostGroupsLosesOne(t *testing.T) {
	few, many := rule(correlate.Count, time.Minute, 1), rule(correlate.Count, time.Minute, 1)
	few.ID, few.Min, many.ID, many.Min = "few", 2, "many", 2
	limits := correlate.DefaultLimits
	limits.Groups = 4
	f := correlate.New([]*correlate.Rule{few, many}, limits)
	add := func(id, group string, at float64) {
		s := signal(0, at)
		s.Rule, s.Group = id, group
		f.Add(s)
	}
	add("few", "a", 1)
	for i, group := range []string{"a", "b", "c"} {
		add("many", group, float64(2+i))
	}
	add("few", "b", 5) // many loses a
	add("many", "b", 6)
	add("few", "a", 7)
	add("many", "c", 8)
	if got := render(f.Close()); !slices.Equal(got, []string{"b: 6 2 [3-6] 0:3 0:6", "a: 7 2 [1-7] 0:1 0:7", "c: 8 2 [4-8] 0:4 0:8"}) || f.Counts().Evicted != 1 {
		t.Errorf("%q, %+v", got, f.Counts())
	}
}

// TestNumberOfEvictedValuesIsASixteenth more than are too many.
func TestNumberOfEvictedValuesIsASixteenth(t *testing.T) {
	r := rule(correlate.FirstSeen, 0, 1)
	r.Baseline, r.ExpireAfter = time.Hour, time.Hour
	limits := correlate.DefaultLimits
	limits.Values = 100
	f := correlate.New([]*correlate.Rule{r}, limits)
	for i := range 102 {
		s := signal(0, float64(i))
		s.Value = int64(i)
		f.Add(s)
	}
	f.Advance(begin + 100*second)
	if f.Values() != 100 || f.Counts().Evicted != 0 {
		t.Errorf("%d values, %+v", f.Values(), f.Counts())
	}
	f.Advance(begin + 101*second)
	if f.Values() != 94 || f.Counts().Evicted != 7 {
		t.Errorf("%d values, %+v", f.Values(), f.Counts())
	}
}

// TestEventsOfOneTimeLieBetween: what must not occur, at the time of the event before it or behind it.
func TestEventsOfOneTimeLieBetween(t *testing.T) {
	r := rule(correlate.Sequence, 10*time.Second, 3)
	r.Steps[1].Not = true
	another := func(at float64) correlate.Signal {
		s := signal(1, at)
		s.Event[15] = 1
		return s
	}
	check(t, fold(r, signal(0, 1), another(1), signal(2, 3)))
	check(t, fold(r, signal(0, 1), another(3), signal(2, 3)))
	check(t, fold(r, signal(0, 1), another(0.9), another(3.1), signal(2, 3)), "3 2 [1-3] 0:1 2:3")
	check(t, fold(r, signal(0, 1), signal(1, 1), signal(2, 3)), "3 2 [1-3] 0:1 2:3") // the event itself is of the step
}

// TestTenthOfTheDistancesMayBeIrregular, and one of few.
func TestTenthOfTheDistancesMayBeIrregular(t *testing.T) {
	for contacts, allowed := range map[int]int{5: 1, 20: 1, 21: 2, 31: 3} {
		for irregular := allowed; irregular <= allowed+1; irregular++ {
			r := rule(correlate.Interval, 0, 1)
			r.Contacts, r.MinInterval, r.MaxInterval, r.Jitter = contacts, 10*time.Second, time.Minute, 0.2
			var signals []correlate.Signal
			at := 0.0
			for i := range contacts {
				signals = append(signals, signal(0, at))
				if at += 30; i < irregular {
					at += 20
				}
			}
			if got := fold(r, signals...); (len(got) == 1) != (irregular == allowed) {
				t.Errorf("%d of %d distances are irregular: %q", irregular, contacts-1, got)
			}
		}
	}
}

// TestFloodIsKeptWithinItsBound: of the events that belong to no match, as many as a group keeps.
func TestFloodIsKeptWithinItsBound(t *testing.T) {
	f := correlate.New([]*correlate.Rule{rule(correlate.Sequence, time.Hour, 2)}, correlate.DefaultLimits)
	for i := range 100 {
		f.Add(signal(1, float64(i)))
	}
	f.Advance(begin + 100*second)
	if counts := f.Counts(); f.Fresh() != 32 || counts.Dropped != 68 || counts.Signals != 100 {
		t.Errorf("%d events, %+v", f.Fresh(), counts)
	}
}

// TestSumStaysWhereItIsCut: large values do not overflow.
func TestSumStaysWhereItIsCut(t *testing.T) {
	r := rule(correlate.Sum, time.Minute, 1)
	r.Min = correlate.NoMax
	var signals []correlate.Signal
	for at := range 6 {
		s := signal(0, float64(at))
		s.Value = correlate.NoMax - 1
		signals = append(signals, s)
	}
	check(t, fold(r, signals...), "1 2 [0-1] 0:0 0:1", "2 1 [2-2] 0:2", "3 1 [3-3] 0:3", "4 1 [4-4] 0:4", "5 1 [5-5] 0:5")
}

// TestMemoryOfARuleIsTheLongestThatASignalMatters.
func TestMemoryOfARuleIsTheLongestThatASignalMatters(t *testing.T) {
	for kind, want := range map[correlate.Kind]time.Duration{
		correlate.Count: 20 * time.Second, correlate.Distinct: 20 * time.Second, correlate.Sum: 20 * time.Second, correlate.Sequence: 20 * time.Second,
		correlate.Absent: 20 * time.Second, correlate.FirstSeen: time.Hour, correlate.Interval: 12 * time.Minute,
	} {
		r := rule(kind, 10*time.Second, 1)
		r.Baseline, r.ExpireAfter, r.Contacts, r.MinInterval, r.MaxInterval = time.Minute, time.Hour, 5, time.Second, time.Minute
		if got := r.Memory(); got != want {
			t.Errorf("kind %d: %s, want %s", kind, got, want)
		}
		if r.Baseline = 2 * time.Hour; kind == correlate.FirstSeen && r.Memory() != 2*time.Hour {
			t.Errorf("a long time of learning: %s", r.Memory())
		}
	}
}

// TestEventAtTheBeginOfALongOneIsInItsSequence: it began twice the window before the end of the other.
func TestEventAtTheBeginOfALongOneIsInItsSequence(t *testing.T) {
	long := signal(1, 11)
	long.End = begin + 21*second
	check(t, fold(rule(correlate.Sequence, 10*time.Second, 2), signal(0, 1), long), "21 2 [1-11] 0:1 1:11")
	long.End++
	check(t, fold(rule(correlate.Sequence, 10*time.Second, 2), signal(0, 1), long)) // it is longer than the window
}
