package correlate_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/correlate"
)

// aggregated returns the rules of which signals are joined.
func aggregated() []*correlate.Rule {
	steps := []correlate.Step{{}}
	return []*correlate.Rule{
		{ID: "count", Version: "1", Kind: correlate.Count, Within: 3 * time.Second, Min: 900, Max: correlate.NoMax, Steps: steps},
		{ID: "few", Version: "1", Kind: correlate.Count, Within: 2 * time.Second, Min: 5, Max: correlate.NoMax, Steps: steps},
		{ID: "long", Version: "1", Kind: correlate.Count, Within: time.Hour, Min: 2500, Max: correlate.NoMax, Steps: steps},
		{ID: "range", Version: "1", Kind: correlate.Count, Within: 4 * time.Second, Min: 1, Max: 1500, Steps: steps},
		{ID: "half", Version: "1", Kind: correlate.Count, Within: 2500 * time.Millisecond, Min: 1, Max: 900, Steps: steps},
		{ID: "sum", Version: "1", Kind: correlate.Sum, Within: 3 * time.Second, Min: 2000, Max: correlate.NoMax, Steps: steps},
		{ID: "distinct", Version: "1", Kind: correlate.Distinct, Within: 2 * time.Second, Min: 9, Max: correlate.NoMax, Steps: steps},
		{ID: "distinct range", Version: "1", Kind: correlate.Distinct, Within: 2 * time.Second, Min: 2, Max: 9, Steps: steps},
		{ID: "new", Version: "1", Kind: correlate.FirstSeen, Baseline: 4 * time.Second, ExpireAfter: 3 * time.Second, Steps: steps},
		{
			ID: "interval", Version: "1", Kind: correlate.Interval, Contacts: 4, MinInterval: 2 * time.Second, MaxInterval: 10 * time.Second, Jitter: 0.3,
			Steps: steps,
		},
		{
			ID: "sequence", Version: "1", Kind: correlate.Sequence, Within: time.Second, Ordered: true,
			Steps: []correlate.Step{{Name: "a"}, {Name: "b"}},
		},
	}
}

// TestJoinedSignalsHaveTheSameMatches: floods of several groups, read in blocks of several partitions, have for each rule and
// group the same sums, first and last as all signals by themselves; kinds whose matches have one time have the same matches.
func TestJoinedSignalsHaveTheSameMatches(t *testing.T) {
	compared, seeds := 0, uint64(8)
	if !testing.Short() {
		seeds = 30
	}
	for seed := range seeds {
		random := rand.New(rand.NewPCG(seed, 9))
		rules := aggregated()
		var events []correlate.Signal
		at := begin
		for second := range 20 {
			for range []int{3, 30, 600}[random.IntN(3)] {
				start := at + random.Int64N(1e9)
				signal := correlate.Signal{
					Version: "1", Group: fmt.Sprint("g", random.IntN(2)), Start: start, End: start + random.Int64N(2)*random.Int64N(2e9),
					Value: random.Int64N(1 + random.Int64N(12)), Offset: int64(len(events)), Event: pipeline.ID{byte(len(events)), byte(len(events) >> 8)},
				}
				events = append(events, signal)
			}
			at += int64(1+second%3) * 1e9
		}
		// signals returns those of each rule of some events.
		signals := func(events []correlate.Signal) (out []correlate.Signal) {
			for _, event := range events {
				for _, rule := range rules {
					event.Rule, event.Step = rule.ID, int(event.Offset)%len(rule.Steps)
					if rule.Kind != correlate.Sequence || event.Offset%40 < 2 { // their matches are slow to find
						out = append(out, event)
					}
				}
			}
			return out
		}
		all := correlate.New(rules, correlate.DefaultLimits)
		for _, signal := range signals(events) {
			all.Add(signal)
		}

		// Two partitions, each in blocks of several messages: joined for each message, and then for the block.
		joined, written := correlate.New(rules, correlate.DefaultLimits), 0
		for partition := range 2 {
			var ofPartition []correlate.Signal
			for i, event := range events {
				if i%2 == partition {
					ofPartition = append(ofPartition, event)
				}
			}
			for len(ofPartition) > 0 {
				block := correlate.NewAggregator(rules)
				for range 1 + random.IntN(4) {
					size := min(random.IntN(400), len(ofPartition))
					message := correlate.NewAggregator(rules)
					for _, signal := range signals(ofPartition[:size]) {
						message.Add(&signal)
					}
					for _, signal := range message.Take() {
						block.Add(&signal)
					}
					ofPartition = ofPartition[size:]
				}
				for _, signal := range block.Take() {
					joined.Add(signal)
					written++
				}
			}
		}
		want, got := sums(all.Close()), sums(joined.Close())
		for _, key := range slices.Sorted(maps.Keys(want)) {
			if got[key] != want[key] {
				t.Fatalf("seed %d, %s: %s, want %s", seed, key, got[key], want[key])
			}
			compared++
		}
		if !maps.Equal(got, want) || all.Counts().Signals != joined.Counts().Signals || written >= len(events)*len(rules) {
			t.Fatalf("seed %d: %v\n%v; %d written", seed, got, want, written)
		}
	}
	if compared < 100 {
		t.Errorf("%d groups compared", compared)
	}
}

// sums returns count, first, last and how many events are named of the matches of each rule and group; of first_seen, interval
// and sequence all matches.
func sums(matches []correlate.Match) map[string]string {
	type sum struct {
		count, first, last int64
		events             int
		each               string
	}
	by := map[string]sum{}
	for _, m := range matches {
		key := m.Rule.ID + " " + m.Group
		s, ok := by[key]
		if !ok {
			s.first, s.last = m.First, m.Last
		}
		s.count, s.first, s.last, s.events = s.count+m.Count, min(s.first, m.First), max(s.last, m.Last), min(s.events+len(m.Events), 20)
		if m.Rule.Kind >= correlate.Sequence || m.Rule.Max != correlate.NoMax {
			s.each += fmt.Sprint(" ", m.At-begin, m.Count, m.First-begin, m.Last-begin)
		}
		by[key] = s
	}
	out := map[string]string{}
	for key, s := range by {
		out[key] = fmt.Sprint(s.count, " from ", s.first-begin, " to ", s.last-begin, ", ", s.events, " named", s.each)
	}
	return out
}

// TestJoinedSignalsKeepTheEarliest: the earliest twenty of a second are themselves, whatever their order; the others are one.
func TestJoinedSignalsKeepTheEarliest(t *testing.T) {
	order := rand.New(rand.NewPCG(1, 1)).Perm(1000)
	a := correlate.NewAggregator(aggregated())
	for _, i := range order {
		at := begin + int64(i)*1e6
		a.Add(&correlate.Signal{Rule: "sum", Version: "1", Group: "g", Start: at - int64(1000-i)*1e9, End: at, Value: 2, Offset: int64(i), Origin: correlate.Origin{Text: "x"}})
	}
	if a.Bytes() > 10_000 {
		t.Errorf("%d bytes", a.Bytes())
	}
	signals := a.Take()
	slices.SortFunc(signals, func(a, b correlate.Signal) int { return int(a.End - b.End) })
	if len(signals) != 21 || len(a.Take()) != 0 || a.Bytes() != 0 {
		t.Fatalf("%d signals", len(signals))
	}
	for i, s := range signals[:20] {
		if s.Offset != int64(i) || s.Count != 0 || s.Value != 2 {
			t.Errorf("%d: %+v", i, s)
		}
	}
	last := signals[20]
	if last.Count != 980 || last.Value != 1960 || last.Offset != 999 || last.First != begin+20*1e6-980*1e9 || last.Last != begin+999*1e6-1e9 || last.End != begin+999*1e6 {
		t.Errorf("%+v", last)
	}
}
