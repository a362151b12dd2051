package rules

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"tidegate/pipeline/correlate"
)

// The bounds of the description of a group.
const (
	maxShownTimes  = 5    // of the events of a step
	maxTimeline    = 1000 // signals that are looked at
	maxShownGroups = 3
)

// A timeline describes the signals of a group of a correlation rule, for people who ask why it is fulfilled or not.
type timeline struct {
	rule    *correlate.Rule
	begin   int64 // times are shown as lengths of time since then
	signals []correlate.Signal
	left    int // signals beyond maxTimeline
}

// DescribeGroup says when the events of a group came, as times since begin, and what a rule that is not fulfilled waits for. signals
// are those of the group.
func DescribeGroup(rule *correlate.Rule, signals []correlate.Signal, begin int64) string {
	t := &timeline{rule: rule, begin: begin, signals: slices.Clone(signals[:min(len(signals), maxTimeline)]), left: max(0, len(signals)-maxTimeline)}
	slices.SortStableFunc(t.signals, func(a, b correlate.Signal) int { return cmp.Compare(t.timeOf(&a), t.timeOf(&b)) })
	var parts []string
	for i, step := range rule.Steps {
		name := cmp.Or(step.Name, "events")
		if rule.Kind == correlate.Absent && i == 1 {
			name = "what must follow"
		}
		if times := t.times(i); times != "" {
			parts = append(parts, name+" at "+times)
		}
	}
	if t.left > 0 {
		parts = append(parts, plural(t.left, "further event"))
	}
	return strings.Join(parts, ", ") + "; " + t.state()
}

// timeOf returns the time by which the rule orders a signal.
func (t *timeline) timeOf(signal *correlate.Signal) int64 {
	if t.rule.Kind == correlate.Sequence {
		return signal.Start
	}
	return signal.End
}

// at returns a time as the length of time since begin.
func (t *timeline) at(time int64) string { return t.length(time - t.begin) }

func (t *timeline) length(ns int64) string {
	sign, length := "", time.Duration(ns).Round(time.Millisecond)
	if length < 0 {
		sign, length = "-", -length
	}
	return sign + formatDuration(length)
}

// times returns the times of the signals of a step, "" if there are none.
func (t *timeline) times(step int) string {
	var times []string
	count := 0
	for i := range t.signals {
		if signal := &t.signals[i]; signal.Step == step {
			if count++; count <= maxShownTimes {
				times = append(times, t.at(t.timeOf(signal)))
			}
		}
	}
	if count > maxShownTimes {
		times = append(times, fmt.Sprintf("… %d more", count-maxShownTimes))
	}
	return strings.Join(times, ", ")
}

// state says what the signals are, or lack, for the rule.
func (t *timeline) state() string {
	switch t.rule.Kind {
	case correlate.Sequence:
		return t.sequenceState()
	case correlate.Absent:
		return t.absentState()
	case correlate.FirstSeen:
		return t.firstSeenState()
	case correlate.Interval:
		return t.intervalState()
	case correlate.Average, correlate.Percentile:
		return "each window of " + formatDuration(t.rule.Within) + ", from a multiple of it on, has a value of its own"
	}
	return t.windowState()
}

// windowState returns the most that one window has, of Count, Distinct and Sum.
func (t *timeline) windowState() string {
	within, most, from, sum := int64(t.rule.Within), int64(math.MinInt64), 0, int64(0)
	values := map[int64]int{}
	if t.rule.Max != correlate.NoMax {
		return fmt.Sprintf("each window of %s, from a multiple of it on, needs from %d to %d", formatDuration(t.rule.Within), t.rule.Min, t.rule.Max)
	}
	for i := range t.signals {
		signal := &t.signals[i]
		sum += signal.Value
		values[signal.Value]++
		for ; signal.End-t.signals[from].End >= within; from++ {
			sum -= t.signals[from].Value
			if values[t.signals[from].Value]--; values[t.signals[from].Value] == 0 {
				delete(values, t.signals[from].Value)
			}
		}
		most = max(most, map[correlate.Kind]int64{
			correlate.Count: int64(i - from + 1), correlate.Distinct: int64(len(values)), correlate.Sum: sum,
		}[t.rule.Kind])
	}
	what := map[correlate.Kind]string{correlate.Count: "events", correlate.Distinct: "different values", correlate.Sum: "in sum"}[t.rule.Kind]
	return fmt.Sprintf("at most %d %s within %s, it needs %d", most, what, formatDuration(t.rule.Within), t.rule.Min)
}

// sequenceState returns the first step that no sequence reaches.
func (t *timeline) sequenceState() string {
	if !t.rule.Ordered {
		var missing []string
		for i, step := range t.rule.Steps {
			if !step.Not && !step.Until && t.times(i) == "" {
				missing = append(missing, step.Name)
			}
		}
		if len(missing) > 0 {
			return "waits for " + strings.Join(missing, " and ")
		}
		return "has all steps" + t.hindrances()
	}
	var before []*correlate.Signal // what reaches the step before
	name := ""
	for i, step := range t.rule.Steps {
		if step.Not || step.Until {
			continue
		}
		var reached []*correlate.Signal
		isLate := false
		for j := range t.signals {
			signal := &t.signals[j]
			if signal.Step != i {
				continue
			}
			follows := name == ""
			for _, earlier := range before {
				distance := signal.Start - earlier.Start
				if distance < 0 || earlier.Event == signal.Event {
					continue
				}
				isLate = isLate || step.Within > 0 && distance > int64(step.Within)
				follows = follows || step.Within == 0 || distance <= int64(step.Within)
			}
			if follows {
				reached = append(reached, signal)
			}
		}
		switch after := ""; {
		case len(reached) > 0:
			before, name = reached, step.Name
			continue
		case isLate:
			return fmt.Sprintf("waits for %s within %s of %s", step.Name, formatDuration(step.Within), name)
		default:
			if name != "" {
				after = fmt.Sprintf(" after %s at %s", name, t.at(before[0].Start))
			}
			return "waits for " + step.Name + after
		}
	}
	return "has all steps in their order" + t.hindrances()
}

// hindrances names what may keep a sequence with all steps from being fulfilled.
func (t *timeline) hindrances() string {
	parts := []string{", which must lie within " + formatDuration(t.rule.Within)}
	for i, step := range t.rule.Steps {
		if times := t.times(i); times != "" && (step.Not || step.Until) {
			parts = append(parts, fmt.Sprintf("%s at %s must not lie between them", cmp.Or(step.Name, "an event that ends it"), times))
		}
	}
	return strings.Join(parts, "; ")
}

// absentState says of the first events whether they were followed.
func (t *timeline) absentState() string {
	var parts []string
	for i := range t.signals {
		expecting := &t.signals[i]
		if expecting.Step != 0 {
			continue
		}
		if len(parts) == maxShownGroups {
			break
		}
		by := expecting.End + int64(t.rule.Within)
		next := slices.IndexFunc(t.signals, func(s correlate.Signal) bool { return s.Step == 1 && s.End >= expecting.End && s.End <= by })
		if next < 0 {
			parts = append(parts, fmt.Sprintf("that at %s is not followed by %s, when it matches", t.at(expecting.End), t.at(by)))
		} else {
			parts = append(parts, fmt.Sprintf("that at %s is followed at %s", t.at(expecting.End), t.at(t.signals[next].End)))
		}
	}
	if len(parts) == 0 {
		return "nothing that must be followed"
	}
	return strings.Join(parts, ", ")
}

func (t *timeline) firstSeenState() string {
	var times []string
	values := map[int64]bool{}
	for _, signal := range t.signals {
		if !values[signal.Value] && len(times) < maxShownTimes {
			times = append(times, t.at(signal.End))
		}
		values[signal.Value] = true
	}
	return fmt.Sprintf("%s, first at %s; it learns until %s", plural(len(values), "value"), strings.Join(times, ", "), t.at(t.signals[0].End+int64(t.rule.Baseline)))
}

func (t *timeline) intervalState() string {
	if len(t.signals) < t.rule.Contacts {
		return fmt.Sprintf("%s, it needs %d", plural(len(t.signals), "contact"), t.rule.Contacts)
	}
	var distances []int64
	for i := range t.signals[1:] {
		distances = append(distances, t.signals[i+1].End-t.signals[i].End)
	}
	slices.Sort(distances)
	return fmt.Sprintf("distances from %s to %s, median %s; it needs a median from %s to %s, and distances that differ from it by at most %.0f %%",
		t.length(distances[0]), t.length(distances[len(distances)-1]), t.length(distances[len(distances)/2]),
		formatDuration(t.rule.MinInterval), formatDuration(t.rule.MaxInterval), 100*t.rule.Jitter)
}
