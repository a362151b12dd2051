package correlate_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/correlate"
)

// seenSignal returns a signal of a value.
func seenSignal(group string, value int64, at float64) correlate.Signal {
	s := signal(0, at)
	s.Group, s.Value = group, value
	return s
}

func seenRule(baseline, expireAfter time.Duration) *correlate.Rule {
	r := rule(correlate.FirstSeen, 0, 1)
	r.Baseline, r.ExpireAfter = baseline, expireAfter
	return r
}

// TestRestoredFoldKnowsWhatWasSeen: a fold that gets what earlier ones have seen, and repeats some of their signals, has the same matches as
// one with all signals.
func TestRestoredFoldKnowsWhatWasSeen(t *testing.T) {
	matches := 0
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 9))
		r := seenRule(time.Duration(random.IntN(30))*time.Second, time.Duration(20+random.IntN(200))*time.Second)
		var signals []correlate.Signal
		for at := 0.0; at < 600; at += random.Float64() * 10 {
			signals = append(signals, seenSignal(fmt.Sprint(random.IntN(3)), int64(random.IntN(8)), at))
		}
		whole := correlate.New([]*correlate.Rule{r}, correlate.DefaultLimits)
		var want []string
		var stored []pipeline.SeenValue
		got, silentUntil := []string(nil), 0
		part := correlate.New([]*correlate.Rule{r}, correlate.DefaultLimits)
		part.KeepSeen()
		for i := 0; i < len(signals); i++ {
			if i >= silentUntil {
				whole.Add(signals[i])
				want = append(want, render(whole.Advance(signals[i].End))...)
			}
			part.Add(signals[i])
			if found := render(part.Advance(signals[i].End)); i >= silentUntil {
				got = append(got, found...)
			}
			silentUntil = max(silentUntil, i+1)
			if random.IntN(20) > 0 {
				continue
			}
			// The process stores what is seen, and another one starts some signals before.
			part.Advance(signals[i].End + 1)
			whole.Advance(signals[i].End + 1)
			stored = append(stored, part.TakeSeen()...)
			part = correlate.New([]*correlate.Rule{r}, correlate.DefaultLimits)
			part.KeepSeen()
			for _, isGroup := range []bool{true, false} {
				for _, seen := range stored {
					if seen.IsGroup() == isGroup {
						part.RestoreSeen(r, seen)
					}
				}
			}
			i = max(-1, i-random.IntN(10))
		}
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d: %q\nwant %q", seed, got, want)
		}
		matches += len(want)
	}
	if matches < 1000 {
		t.Errorf("%d matches", matches)
	}
}

// TestFloodOfValuesEvictsThoseOfItsGroup only.
func TestFloodOfValuesEvictsThoseOfItsGroup(t *testing.T) {
	limits := correlate.DefaultLimits
	limits.Values = 1000
	f := correlate.New([]*correlate.Rule{seenRule(time.Second, 1000*time.Second)}, limits)
	for value := range int64(100) {
		f.Add(seenSignal("quiet", value, 1))
		f.Add(seenSignal("quiet", value, 3))
	}
	for value := range int64(20_000) {
		f.Add(seenSignal("flood", value, 100+float64(value)/1000))
	}
	f.Advance(begin + 200*second)
	for value := range int64(101) {
		f.Add(seenSignal("quiet", value, 300))
	}
	if matches := f.Advance(begin + 400*second); len(matches) != 1 {
		t.Errorf("%d matches of the group without a flood, want that of the one new value", len(matches))
	}
	if f.Values() > 1000 || f.Counts().Evicted < 19_000 {
		t.Errorf("%d values, %+v", f.Values(), f.Counts())
	}
}

// TestGroupsOfValuesAreBounded: the oldest ones go, with their values.
func TestGroupsOfValuesAreBounded(t *testing.T) {
	limits := correlate.DefaultLimits
	limits.Values = 400
	f := correlate.New([]*correlate.Rule{seenRule(10*time.Second, 1000*time.Second)}, limits)
	for i := range 200 {
		f.Add(seenSignal(fmt.Sprint("group", i), 7, float64(i)))
	}
	f.Add(seenSignal("group199", 8, 300)) // kept: it has learned
	f.Add(seenSignal("group0", 8, 301))   // evicted: it learns anew
	if got := render(f.Advance(begin + 400*second)); !slices.Equal(got, []string{"group199: 300 1 [300-300] 0:300"}) {
		t.Errorf("%q", got)
	}
	if f.Values() > 110 {
		t.Errorf("%d values", f.Values())
	}
}

// TestFloodOfGroupsLeavesThoseThatHaveLearned: groups that are invented within a slot evict each other, once they are a quarter of
// those that there may be; groups that have learned still match.
func TestFloodOfGroupsLeavesThoseThatHaveLearned(t *testing.T) {
	limits := correlate.DefaultLimits
	limits.Values = 400 // 100 groups
	f := correlate.New([]*correlate.Rule{seenRule(10*time.Second, 6400*time.Second)}, limits)
	for i := range 60 {
		f.Add(seenSignal(fmt.Sprint("learned", i), 7, 1))
	}
	f.Advance(begin + 100*second)
	for i := range 10_000 {
		f.Add(seenSignal(fmt.Sprint("invented", i), 7, 201+float64(i)/1000))
	}
	for i := range 60 {
		f.Add(seenSignal(fmt.Sprint("learned", i), 8, 250))
	}
	if matches := f.Advance(begin + 300*second); len(matches) != 60 {
		t.Errorf("%d groups match a new value, want 60", len(matches))
	}
	if f.Counts().Evicted < 9_900 {
		t.Errorf("%+v", f.Counts())
	}
}

// TestValuesWithHalfAHashInCommonAreTwo: a value is known by its whole hash, also after a restart.
func TestValuesWithHalfAHashInCommonAreTwo(t *testing.T) {
	r := seenRule(10*time.Second, 1000*time.Second)
	value := func(high uint64, at float64) correlate.Signal {
		s := seenSignal("g", 7, at)
		s.ValueHigh = high
		return s
	}
	f := correlate.New([]*correlate.Rule{r}, correlate.DefaultLimits)
	f.KeepSeen()
	f.Add(value(1, 0))
	f.Add(value(1, 20))
	f.Advance(begin + 30*second)
	next := correlate.New([]*correlate.Rule{r}, correlate.DefaultLimits)
	for _, seen := range f.TakeSeen() {
		next.RestoreSeen(r, seen)
	}
	for name, f := range map[string]*correlate.Fold{"same": f, "next": next} {
		f.Add(value(1, 40))
		f.Add(value(2, 41))
		if got := render(f.Advance(begin + 50*second)); !slices.Equal(got, []string{"41 1 [41-41] 0:41"}) {
			t.Errorf("%s fold: %q", name, got)
		}
	}
}

// TestSeenIsNotedOncePerSlot: a value that comes all the time is not noted each time.
func TestSeenIsNotedOncePerSlot(t *testing.T) {
	f := correlate.New([]*correlate.Rule{seenRule(time.Second, 6400*time.Second)}, correlate.DefaultLimits)
	f.KeepSeen()
	for at := range 1000 {
		f.Add(seenSignal("g", 1, float64(at)))
	}
	f.Advance(begin + 1000*second)
	// In each of ten or eleven slots of 100 s, the group and the value.
	if n := f.ChangedSeen(); n < 20 || n > 22 {
		t.Errorf("%d notes", n)
	}
	seen := f.TakeSeen()
	if first := seen[0]; first.Rule != "r" || first.Version != "1" || first.Group != correlate.GroupHash("r", "g") || first.First != begin || first.Value != 0 {
		t.Errorf("%+v", first)
	}
	if last := seen[len(seen)-1]; last.Value != 1 || last.First != 0 || last.Last > begin+1000*second || last.Last < begin+800*second {
		t.Errorf("%+v", last)
	}
	if f.ChangedSeen() != 0 || len(f.TakeSeen()) != 0 {
		t.Error("noted again")
	}
}

// BenchmarkSeenValues measures what ten million values take.
func BenchmarkSeenValues(b *testing.B) {
	const values = 10_000_000
	var before, after runtime.MemStats
	for b.Loop() {
		r := seenRule(time.Hour, 30*24*time.Hour)
		f := correlate.New([]*correlate.Rule{r}, correlate.DefaultLimits)
		runtime.GC()
		runtime.ReadMemStats(&before)
		for group := range uint64(1000) {
			f.RestoreSeen(r, pipeline.SeenValue{Group: group, First: begin, Last: begin})
			for value := range int64(values / 1000) {
				f.RestoreSeen(r, pipeline.SeenValue{Group: group, Value: value, Last: begin})
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "MiB")
		if f.Groups() != 0 {
			b.Fatal("groups")
		}
	}
}

// TestRestoredValuesKeepTheBoundOfAllRules: what several rules remember is restored up to the bound of all together, and no
// rule loses all that it knows to it.
func TestRestoredValuesKeepTheBoundOfAllRules(t *testing.T) {
	rules := []*correlate.Rule{
		{ID: "a", Version: "1", Kind: correlate.FirstSeen, Baseline: time.Second, ExpireAfter: time.Hour, Steps: []correlate.Step{{}}},
		{ID: "b", Version: "1", Kind: correlate.FirstSeen, Baseline: time.Second, ExpireAfter: time.Hour, Steps: []correlate.Step{{}}},
	}
	limits := correlate.DefaultLimits
	limits.Values = 1000
	f := correlate.New(rules, limits)
	at := int64(1e18)
	for _, rule := range rules {
		group := correlate.GroupHash(rule.ID, "g")
		f.RestoreSeen(rule, pipeline.SeenValue{Rule: rule.ID, Version: "1", Group: group, First: at, Last: at})
		for value := range int64(900) {
			f.RestoreSeen(rule, pipeline.SeenValue{Rule: rule.ID, Version: "1", Group: group, Value: value + 1, Last: at})
		}
	}
	if f.Values() != limits.Values {
		t.Errorf("%d values are restored", f.Values())
	}
	f.Add(correlate.Signal{Rule: "a", Version: "1", Group: "g", Start: at + 5e9, End: at + 5e9, Value: 1e6})
	f.Advance(at + 10e9)
	if values := f.Values(); values > limits.Values || values < 900 {
		t.Errorf("%d values are left", values)
	}
}
