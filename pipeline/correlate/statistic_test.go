package correlate_test

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"tidegate/pipeline/correlate"
)

// TestStatisticsAgreeWithANaiveProgram: the naive program keeps all values of a window, sorts them, and
// divides fractions.
func TestStatisticsAgreeWithANaiveProgram(t *testing.T) {
	compared := map[correlate.Kind]int{}
	for seed := range uint64(2000) {
		random := rand.New(rand.NewPCG(seed, 5))
		r := rule([]correlate.Kind{correlate.Average, correlate.Percentile}[random.IntN(2)], time.Duration(1+random.IntN(30))*time.Second, 1)
		r.Min, r.Max, r.MinEvents, r.OpenMin, r.OpenMax = random.Int64N(4), correlate.NoMax, random.Int64N(4), random.IntN(2) == 0, random.IntN(2) == 0
		if random.IntN(2) == 0 {
			r.Max = r.Min + random.Int64N(3)
		}
		if r.Kind == correlate.Percentile {
			r.Percent = 1 + random.Int64N(10_000)
			if random.IntN(2) == 0 {
				r.Percent = 2500 * (1 + random.Int64N(4))
			}
		}
		var signals []correlate.Signal
		for i := range 20 + random.IntN(80) {
			s := signal(0, random.Float64()*300)
			s.Value, s.Group, s.Event[0] = random.Int64N(7)-1, string(rune('a'+random.IntN(2))), byte(i)
			signals = append(signals, s)
		}

		var want []string
		windows := map[string][]int64{}
		for _, s := range signals {
			key := fmt.Sprint((s.End/int64(r.Within)+1)*int64(r.Within)-begin, s.Group)
			windows[key] = append(windows[key], max(0, s.Value))
		}
		for key, values := range windows {
			if int64(len(values)) >= r.MinEvents && statisticHolds(r, values) {
				want = append(want, fmt.Sprint(key, " ", len(values)))
			}
		}
		var got []string
		f := correlate.New([]*correlate.Rule{r}, correlate.DefaultLimits)
		for _, s := range signals {
			f.Add(s)
		}
		for _, m := range f.Close() {
			got = append(got, fmt.Sprint(m.At-begin, m.Group, " ", m.Count))
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d: rule %+v\n%s\nwant\n%s", seed, r, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		compared[r.Kind] += len(want)
	}
	for _, kind := range []correlate.Kind{correlate.Average, correlate.Percentile} {
		if compared[kind] < 500 {
			t.Errorf("kind %d: only %d matches were compared", kind, compared[kind])
		}
	}
}

// statisticHolds reports whether the statistic of values lies within the bounds of a rule.
func statisticHolds(r *correlate.Rule, values []int64) bool {
	measured := new(big.Rat)
	if r.Kind == correlate.Average {
		for _, value := range values {
			measured.Add(measured, big.NewRat(value, int64(len(values))))
		}
	} else {
		slices.Sort(values)
		rank := int(math.Ceil(float64(r.Percent*int64(len(values))) / 10_000))
		measured.SetInt64(values[rank-1])
	}
	atLeast, atMost := measured.Cmp(big.NewRat(r.Min, 1)), measured.Cmp(big.NewRat(r.Max, 1))
	isOpen := r.Kind == correlate.Average
	return (atLeast > 0 || atLeast == 0 && !(r.OpenMin && isOpen)) && (atMost < 0 || atMost == 0 && !(r.OpenMax && isOpen))
}

// TestAverageOfHugeValues does not overflow: a peer can send any number.
func TestAverageOfHugeValues(t *testing.T) {
	r := rule(correlate.Average, time.Minute, 1)
	r.Min, r.Max = correlate.NoMax-1, correlate.NoMax
	f := correlate.New([]*correlate.Rule{r}, correlate.DefaultLimits)
	for i := range 50 {
		s := signal(0, float64(i)/10)
		s.Value = math.MaxInt64
		f.Add(s)
	}
	if matches := f.Close(); len(matches) != 1 || matches[0].Count != 50 {
		t.Errorf("got %+v", matches)
	}
}

// TestStatisticsTakeNoMoreWithMoreSignals: no values are kept.
func TestStatisticsTakeNoMoreWithMoreSignals(t *testing.T) {
	for _, kind := range []correlate.Kind{correlate.Average, correlate.Percentile} {
		r := rule(kind, time.Hour, 1)
		r.Min, r.Max, r.Percent = 1, correlate.NoMax, 9500
		f := correlate.New([]*correlate.Rule{r}, correlate.DefaultLimits)
		bytes := map[int]int{}
		for i := range 10_000 {
			s := signal(0, float64(i)/10)
			s.Value = int64(i)
			f.Add(s)
			f.Advance(s.End + 1)
			bytes[i] = f.GroupBytes()
		}
		if bytes[9999] != bytes[100] || bytes[100] == 0 {
			t.Errorf("kind %d: %d bytes with 100 signals, %d with 10,000", kind, bytes[100], bytes[9999])
		}
	}
}
