package correlate_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"tidegate/pipeline/correlate"
)

// TestFoldAgreesWithANaiveProgram: the naive program looks at all signals for each signal, and shares no code
// with Fold.
func TestFoldAgreesWithANaiveProgram(t *testing.T) {
	compared := map[correlate.Kind]int{}
	for seed := range uint64(2000) {
		r, signals := randomCase(rand.New(rand.NewPCG(seed, 3)))
		r.Min, r.Max = max(1, r.Min), correlate.NoMax
		fulfilled := map[correlate.Kind]func(*correlate.Rule, []correlate.Signal, int) bool{
			correlate.Count: windowIsFull, correlate.Distinct: windowIsFull, correlate.Sum: windowIsFull,
			correlate.Sequence: sequenceEnds,
		}[r.Kind]
		if fulfilled == nil {
			continue
		}
		f := correlate.New([]*correlate.Rule{r}, correlate.DefaultLimits)
		var want, got []string
		for i, s := range signals {
			f.Add(s)
			if fulfilled(r, signals, i) {
				want = append(want, fmt.Sprint(s.Group, s.End-begin))
			}
		}
		for _, m := range f.Close() {
			got = append(got, fmt.Sprint(m.Group, m.At-begin))
		}
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d: rule %+v\n%s\nwant\n%s", seed, r, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		compared[r.Kind] += len(want)
	}
	for kind, matches := range compared {
		if matches < 500 {
			t.Errorf("kind %d: only %d matches were compared", kind, matches)
		}
	}
	if len(compared) != 4 {
		t.Errorf("compared %v", compared)
	}
}

// windowIsFull reports whether the window that ends with the second of signal i has enough signals, values or
// sum.
func windowIsFull(r *correlate.Rule, signals []correlate.Signal, i int) bool {
	values, sum, count := map[int64]bool{}, int64(0), int64(0)
	for _, s := range signals[:i+1] {
		if s.Group == signals[i].Group && signals[i].End/second-s.End/second < int64(r.Within/time.Second) {
			values[s.Value] = true
			sum += s.Value
			count++
		}
	}
	return map[correlate.Kind]int64{
		correlate.Count: count, correlate.Distinct: int64(len(values)), correlate.Sum: sum,
	}[r.Kind] >= r.Min
}

// sequenceEnds reports whether signal i and signals before it are a sequence. It tries every combination.
func sequenceEnds(r *correlate.Rule, signals []correlate.Signal, i int) bool {
	var positive []int // steps that must occur
	for step, s := range r.Steps {
		if !s.Not && !s.Until {
			positive = append(positive, step)
		}
	}
	if r.Steps[signals[i].Step].Not || r.Steps[signals[i].Step].Until {
		return false
	}
	var known []correlate.Signal // what has ended when i ends
	for _, s := range signals[:i+1] {
		// The state of a group holds nothing that began more than two windows before.
		if s.Group == signals[i].Group && s.Start >= signals[i].End-2*int64(r.Within) {
			known = append(known, s)
		}
	}
	occurs := func(step int, from, to int64) bool {
		return slices.ContainsFunc(known, func(s correlate.Signal) bool { return s.Step == step && from <= s.Start && s.Start <= to })
	}
	holds := func(chain []correlate.Signal) bool {
		if !slices.ContainsFunc(chain, func(s correlate.Signal) bool { return s.Event == signals[i].Event }) {
			return false
		}
		first, last := chain[0].Start, chain[0].Start
		for at, s := range chain {
			first, last = min(first, s.Start), max(last, s.Start)
			if !r.Ordered || at == 0 {
				continue
			}
			before, step := chain[at-1], r.Steps[positive[at]]
			if s.Start < before.Start || step.Within > 0 && s.Start-before.Start > int64(step.Within) {
				return false
			}
			for between := positive[at-1] + 1; between < positive[at]; between++ {
				if occurs(between, before.Start, s.Start) {
					return false
				}
			}
		}
		until := len(r.Steps) - 1
		return last-first <= int64(r.Within) && !(r.Steps[until].Until && occurs(until, first, last))
	}
	var try func(chain []correlate.Signal) bool
	try = func(chain []correlate.Signal) bool {
		if len(chain) == len(positive) {
			return holds(chain)
		}
		for _, s := range known {
			used := slices.ContainsFunc(chain, func(other correlate.Signal) bool { return other.Event == s.Event })
			if s.Step == positive[len(chain)] && !used && try(append(chain, s)) {
				return true
			}
		}
		return false
	}
	return try(nil)
}
