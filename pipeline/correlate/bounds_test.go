package correlate

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"tidegate/pipeline"
)

// TestGroupsTakeNoMoreThanTheirBytes: whatever the kind of the rule, groups are evicted, those of the rule with most groups
// and the oldest first, when all of them take more than Limits.Bytes; a rule with few groups keeps them. What groups take is
// given back when they end.
func TestGroupsTakeNoMoreThanTheirBytes(t *testing.T) {
	const limit = 1 << 20
	kinds := map[string]*Rule{
		"count":    {Kind: Count, Within: time.Hour, Min: 1 << 40, Max: NoMax, Steps: []Step{{}}},
		"distinct": {Kind: Distinct, Within: time.Hour, Min: 1000, Max: NoMax, Steps: []Step{{}}},
		"tumbling": {Kind: Distinct, Within: time.Hour, Min: 1, Max: 1000, Steps: []Step{{}}},
		"sequence": {Kind: Sequence, Within: time.Hour, Steps: []Step{{Name: "a"}, {Name: "b"}}},
		"absent":   {Kind: Absent, Within: time.Hour, Steps: []Step{{Name: "a"}, {Name: "b"}}},
		"interval": {Kind: Interval, Contacts: 100, MinInterval: time.Millisecond, MaxInterval: time.Hour, Steps: []Step{{}}},
	}
	for name, rule := range kinds {
		t.Run(name, func(t *testing.T) {
			rule.ID, rule.Version = name, "1"
			few := &Rule{ID: "few", Version: "1", Kind: Count, Within: time.Hour, Min: 2, Max: NoMax, Steps: []Step{{}}}
			fold := New([]*Rule{rule, few}, Limits{Groups: 1 << 20, GroupsPerRule: 1 << 20, Waiting: 1 << 20, Bytes: limit})
			start := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC).UnixNano()
			add := func(rule, group string, i int) {
				at := start + int64(i)*int64(time.Millisecond)
				fold.Add(Signal{
					Rule: rule, Version: "1", Group: group, Start: at, End: at, Value: int64(i), Event: pipeline.ID{byte(i), byte(i >> 8), byte(i >> 16)},
					Origin: Origin{Text: strings.Repeat("x", 100), AlertEvent: &pipeline.Event{}},
				})
			}
			add("few", "kept", 0)
			for i := range 40_000 {
				add(name, fmt.Sprint("g", i%4000), 1+i)
				if i%1000 == 0 {
					if matches := fold.Advance(start + int64(i)*int64(time.Millisecond)); len(matches) > 0 {
						t.Fatalf("%+v", matches)
					}
				}
			}
			fold.Advance(start + int64(50*time.Second))
			if fold.bytes > limit || fold.bytes < limit/2 || fold.Counts().Evicted == 0 {
				t.Errorf("%d bytes of %d groups, %d evicted", fold.bytes, fold.Groups(), fold.Counts().Evicted)
			}
			add("few", "kept", 50_000)
			if matches := fold.Advance(start + int64(time.Minute)); len(matches) != 1 || matches[0].Count != 2 {
				t.Errorf("the group of the other rule has %+v", matches)
			}
			fold.Close()
			if fold.bytes != 0 || fold.Groups() != 0 {
				t.Errorf("%d bytes of %d groups are left", fold.bytes, fold.Groups())
			}
		})
	}
}

// TestFewLargeGroupsEvictNoSmallOnes: where all groups take too much, the rule whose groups take most loses one, not the rule
// with most groups.
func TestFewLargeGroupsEvictNoSmallOnes(t *testing.T) {
	large := &Rule{ID: "large", Version: "1", Kind: Sequence, Within: time.Hour, Steps: []Step{{Name: "a"}, {Name: "b"}}}
	small := &Rule{ID: "small", Version: "1", Kind: Count, Within: time.Hour, Min: 2, Max: NoMax, Steps: []Step{{}}}
	fold := New([]*Rule{large, small}, Limits{Groups: 1 << 20, GroupsPerRule: 1 << 20, Waiting: 1 << 20, Bytes: 1 << 20})
	at := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC).UnixNano()
	add := func(rule, group string) {
		at += int64(time.Millisecond)
		fold.Add(Signal{
			Rule: rule, Version: "1", Group: group, Start: at, End: at, Event: pipeline.ID{byte(at >> 20), byte(at >> 28)},
			Origin: Origin{Text: strings.Repeat("x", 2000), AlertEvent: &pipeline.Event{}},
		})
	}
	const groups = 200
	for i := range groups {
		add("small", fmt.Sprint("s", i))
	}
	for i := range 50 * maxPerStep {
		add("large", fmt.Sprint("l", i/maxPerStep))
	}
	for i := range groups {
		add("small", fmt.Sprint("s", i))
	}
	if matches := fold.Advance(at + 1); len(matches) != groups || fold.Counts().Evicted == 0 {
		t.Errorf("%d of %d small groups matched, %d groups evicted", len(matches), groups, fold.Counts().Evicted)
	}
}

// TestTimesBefore1970DoNotOverflow: an event that began in a far past is in no sequence with one of today.
func TestTimesBefore1970DoNotOverflow(t *testing.T) {
	rule := &Rule{ID: "r", Version: "1", Kind: Sequence, Within: time.Hour, Ordered: true, Steps: []Step{{Name: "a"}, {Name: "b", Within: time.Minute}}}
	at := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC).UnixNano()
	for _, start := range []int64{math.MinInt64, math.MinInt64 + 1, -at, -1, 0} {
		for _, end := range []int64{start, at + 1} {
			fold := New([]*Rule{rule}, DefaultLimits)
			fold.Add(Signal{Rule: "r", Version: "1", Step: 1, Start: at, End: at, Event: pipeline.ID{1}})
			fold.Add(Signal{Rule: "r", Version: "1", Start: start, End: end, Event: pipeline.ID{2}})
			if matches := append(fold.Advance(at+2), fold.Close()...); len(matches) > 0 {
				t.Errorf("from %d to %d: %+v", start, end, matches)
			}
		}
	}
}

// TestWaitingSignalsAreBoundedByBytes: signals with long texts are forced before they are too many, and the bytes of those that
// no longer wait are given back.
func TestWaitingSignalsAreBoundedByBytes(t *testing.T) {
	rule := &Rule{ID: "r", Version: "1", Kind: Count, Within: time.Hour, Min: 1 << 40, Max: NoMax, Steps: []Step{{}}}
	fold := New([]*Rule{rule}, Limits{Groups: 1 << 20, GroupsPerRule: 1 << 20, Waiting: 1 << 20, Bytes: 1 << 20})
	at := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC).UnixNano()
	text := strings.Repeat("x", 300_000)
	for i := range 90 {
		s := Signal{Rule: "r", Version: "1", Group: "g", Start: at, End: at}
		switch i % 3 {
		case 0:
			s.Group = text
		case 1:
			s.Text = text
		default:
			s.AlertEvent = &pipeline.Event{Host: &pipeline.Host{Name: text}}
		}
		fold.Add(s)
	}
	if waiting := len(fold.waiting); waiting != 13 || fold.Counts().Forced != 77 {
		t.Errorf("%d signals wait, %d were forced", waiting, fold.Counts().Forced)
	}
	if fold.Close(); fold.waitingSize != 0 {
		t.Errorf("%d bytes wait", fold.waitingSize)
	}
}

// TestExpectedEventOfTheSameTimeFollows: logs have whole seconds, so that what is expected may have the time of what expects
// it, and come from another partition.
func TestExpectedEventOfTheSameTimeFollows(t *testing.T) {
	rule := &Rule{ID: "r", Version: "1", Kind: Absent, Within: time.Minute, Steps: []Step{{Name: "ask"}, {Name: "answer"}}}
	at := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC).UnixNano()
	for partition := range int32(3) {
		fold := New([]*Rule{rule}, DefaultLimits)
		fold.Add(Signal{Rule: "r", Version: "1", Step: stepExpected, Start: at, End: at, Partition: partition, Event: pipeline.ID{1}})
		fold.Add(Signal{Rule: "r", Version: "1", Step: stepExpecting, Start: at, End: at, Partition: 1, Event: pipeline.ID{2}})
		if matches := fold.Close(); len(matches) > 0 {
			t.Errorf("partition %d: %+v", partition, matches)
		}
	}
}

// TestMatchesBeforeTheirTimeAreMarked: where signals cannot wait for the watermark, an absence is told before all events
// could come, and says so.
func TestMatchesBeforeTheirTimeAreMarked(t *testing.T) {
	rules := []*Rule{
		{ID: "absent", Version: "1", Kind: Absent, Within: time.Minute, Steps: []Step{{Name: "ask"}, {Name: "answer"}}},
		{ID: "count", Version: "1", Kind: Count, Within: time.Hour, Min: 1, Max: NoMax, Steps: []Step{{}}},
	}
	limits := DefaultLimits
	limits.Waiting = 1
	fold := New(rules, limits)
	begin := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC).UnixNano()
	add := func(rule string, step int, after time.Duration) {
		at := begin + int64(after)
		fold.Add(Signal{Rule: rule, Version: "1", Step: step, Start: at, End: at, Event: pipeline.ID{byte(after / time.Second)}})
	}
	add("absent", stepExpecting, time.Second)
	add("count", 0, 2*time.Minute)
	add("count", 0, 3*time.Minute) // the watermark is forced to 2 minutes
	matches := fold.Advance(begin)
	if len(matches) != 2 || matches[0].Rule.ID != "absent" || !matches[0].Late || !matches[1].Late {
		t.Errorf("%+v", matches)
	}
	if matches := fold.Advance(begin + int64(time.Hour)); len(matches) != 1 || matches[0].Late {
		t.Errorf("in time: %+v", matches)
	}
}
