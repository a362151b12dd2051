package engine

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
)

// This file is a batch oracle: a naive program that reads rules from their YAML and events from rows, looks at all events for
// each event, and returns the alerts. It shares no code with the engine, with correlate or with the rules' compiler.

// An oracleEvent is a row of events: values by the name of the column, and the time of its begin and end, ns since 1970.
type oracleEvent struct {
	values     map[string]string // an absent field has none
	start, end int64
}

// An oracleRule has the fields of a rule as they are in the file.
type oracleRule struct {
	ID       string   `yaml:"id"`
	When     string   `yaml:"when"`
	Rule     string   `yaml:"rule"`
	Group    []string `yaml:"group"`
	Within   string   `yaml:"within"`
	Suppress string   `yaml:"suppress"`
	Count    string   `yaml:"count"`
	Distinct *struct {
		Field string `yaml:"field"`
		Count string `yaml:"count"`
	} `yaml:"distinct"`
	Sum *struct {
		Field string `yaml:"field"`
		Total string `yaml:"total"`
	} `yaml:"sum"`
	Sequence  any         `yaml:"sequence"`
	Absent    *oracleStep `yaml:"absent"`
	FirstSeen *struct {
		Fields      []string `yaml:"fields"`
		Baseline    string   `yaml:"baseline"`
		ExpireAfter string   `yaml:"expire_after"`
	} `yaml:"first_seen"`
	Interval *struct {
		Contacts int    `yaml:"contacts"`
		Min      string `yaml:"min"`
		Max      string `yaml:"max"`
		Jitter   string `yaml:"jitter"`
	} `yaml:"interval"`

	steps   []oracleStep
	ordered bool
}

// An oracleStep selects events.
type oracleStep struct {
	When   string   `yaml:"when"`
	Rule   string   `yaml:"rule"`
	Not    string   `yaml:"not"`
	Within string   `yaml:"within"`
	Group  []string `yaml:"group"`
	until  bool
}

func (s oracleStep) isNegative() bool { return s.Not != "" || s.until }

// readOracleRules reads the rules of a file.
func readOracleRules(t testing.TB, path string) []*oracleRule {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Rules []*oracleRule `yaml:"rules"`
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	for _, r := range file.Rules {
		r.steps, r.ordered = []oracleStep{{When: r.When, Rule: r.Rule}}, true
		if r.Absent != nil {
			r.steps = append(r.steps, *r.Absent)
		}
		if r.Sequence == nil {
			continue
		}
		var form struct {
			Steps   []oracleStep `yaml:"steps"`
			Until   string       `yaml:"until"`
			Ordered *bool        `yaml:"ordered"`
		}
		written, err := yaml.Marshal(r.Sequence)
		if err == nil {
			if _, isList := r.Sequence.([]any); isList {
				err = yaml.Unmarshal(written, &form.Steps)
			} else {
				err = yaml.Unmarshal(written, &form)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		r.steps = form.Steps
		if form.Until != "" {
			r.steps = append(r.steps, oracleStep{When: form.Until, until: true})
		}
		r.ordered = form.Ordered == nil || *form.Ordered
	}
	return file.Rules
}

// oracleHolds reports whether every comparison of a condition holds.
func oracleHolds(condition string, e *oracleEvent) bool {
	for term := range strings.SplitSeq(condition, " and ") {
		parts := strings.Fields(term)
		if len(parts) != 3 {
			panic("the oracle cannot read " + condition)
		}
		value, constant := e.values[parts[0]], strings.Trim(parts[2], `"`)
		switch parts[1] {
		case "==":
			if value != constant {
				return false
			}
		case ">=":
			number, _ := strconv.ParseInt(value, 10, 64)
			least, _ := strconv.ParseInt(constant, 10, 64)
			if number < least {
				return false
			}
		default:
			panic("the oracle cannot read " + condition)
		}
	}
	return true
}

// An oracleSignal is an event that a step of a rule selects.
type oracleSignal struct {
	*oracleEvent
	step  int
	group string
	value string
}

// An oracleMatch is a rule that is fulfilled in a group.
type oracleMatch struct {
	group                  string
	at, count, first, last int64
}

func length(text string) int64 {
	d, err := time.ParseDuration(text)
	if err != nil {
		panic(err)
	}
	return int64(d)
}

// oracleBounds reads ">= 6", "< 3", "1..2".
func oracleBounds(text string) (low, high int64) {
	number := func(text string) int64 {
		n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
		if err != nil {
			panic(err)
		}
		return n
	}
	if from, to, isRange := strings.Cut(text, ".."); isRange {
		return number(from), number(to)
	}
	if rest, ok := strings.CutPrefix(text, ">="); ok {
		return number(rest), math.MaxInt64
	}
	return 0, number(strings.TrimPrefix(text, "<")) - 1
}

// oracleAlerts returns the alerts of all rules over all events, one line each, sorted. Times are ms since base. What a rule over
// one event has found is one line for each group, with the sums over its alerts.
func oracleAlerts(rules []*oracleRule, events []*oracleEvent, base int64) (lines []string) {
	conditions := map[string]string{}
	for _, r := range rules {
		conditions[r.ID] = r.When
	}
	for _, r := range rules {
		byGroup := map[string][]oracleSignal{}
		for i, step := range r.steps {
			condition := cmp.Or(step.When, step.Not, conditions[step.Rule])
			for _, e := range events {
				if !oracleHolds(condition, e) {
					continue
				}
				group, ok := oracleGroup(r, step, e)
				value, hasValue := r.valueOf(e)
				if ok && hasValue {
					byGroup[group] = append(byGroup[group], oracleSignal{e, i, group, value})
				}
			}
		}
		for group, signals := range byGroup {
			slices.SortFunc(signals, func(a, b oracleSignal) int {
				return cmp.Or(cmp.Compare(a.end, b.end), cmp.Compare(a.start, b.start), cmp.Compare(a.step, b.step))
			})
			matches := r.matches(signals)
			if r.isPlain() {
				matches = sumMatches(matches)
			} else {
				matches = r.inWindows(matches)
			}
			for _, m := range matches {
				lines = append(lines, oracleLine(r.ID, group, m.count, m.first-base, m.last-base))
			}
		}
	}
	slices.Sort(lines)
	return lines
}

// oracleLine returns the line of an alert.
func oracleLine(rule, group string, count, first, last int64) string {
	return fmt.Sprintf("%-20s %-40s %5d from %14.6f to %14.6f ms", rule, group, count, float64(first)/1e6, float64(last)/1e6)
}

// oracleGroup returns the group of an event for a step, by the values of its fields.
func oracleGroup(r *oracleRule, step oracleStep, e *oracleEvent) (group string, ok bool) {
	fields := step.Group
	if fields == nil {
		fields = r.Group
	}
	var parts []string
	for i, field := range fields {
		value, has := e.values[field]
		if !has {
			return "", false
		}
		parts = append(parts, r.Group[i]+"="+value)
	}
	return strings.Join(parts, " "), true
}

func (r *oracleRule) isPlain() bool {
	return r.Count == "" && r.Distinct == nil && r.Sum == nil && r.Sequence == nil && r.Absent == nil && r.FirstSeen == nil && r.Interval == nil
}

// valueOf returns what a rule counts of an event.
func (r *oracleRule) valueOf(e *oracleEvent) (value string, ok bool) {
	switch {
	case r.Distinct != nil:
		value, ok = e.values[r.Distinct.Field]
	case r.Sum != nil:
		value, ok = e.values[r.Sum.Field]
	case r.FirstSeen != nil:
		value, ok = e.values[r.FirstSeen.Fields[0]]
	default:
		return "", true
	}
	return value, ok
}

// matches returns the matches of a group, in the order of their times.
func (r *oracleRule) matches(signals []oracleSignal) []oracleMatch {
	switch {
	case r.isPlain():
		var out []oracleMatch
		for _, s := range signals {
			out = append(out, oracleMatch{s.group, s.end, 1, s.start, s.start})
		}
		return out
	case r.Sequence != nil:
		return r.sequences(signals)
	case r.Absent != nil:
		return r.absences(signals)
	case r.FirstSeen != nil:
		return r.newValues(signals)
	case r.Interval != nil:
		return r.regularContacts(signals)
	}
	bounds := r.Count
	if r.Distinct != nil {
		bounds = r.Distinct.Count
	} else if r.Sum != nil {
		bounds = r.Sum.Total
	}
	low, high := oracleBounds(bounds)
	if high == math.MaxInt64 {
		return r.slidingWindows(signals, low)
	}
	return r.tumblingWindows(signals, low, high)
}

// measure returns what count, distinct or sum say of signals.
func (r *oracleRule) measure(signals []oracleSignal) (n int64) {
	values := map[string]bool{}
	for _, s := range signals {
		values[s.value] = true
		if r.Sum != nil {
			number, _ := strconv.ParseInt(s.value, 10, 64)
			n += number
		}
	}
	switch {
	case r.Distinct != nil:
		return int64(len(values))
	case r.Sum != nil:
		return n
	}
	return int64(len(signals))
}

// slidingWindows: the window that ends with an event has the seconds before that of its end. Each event is counted once.
func (r *oracleRule) slidingWindows(signals []oracleSignal, low int64) (out []oracleMatch) {
	const second = int64(time.Second)
	isCounted := make([]bool, len(signals))
	for i, s := range signals {
		var window []oracleSignal
		var numbers []int
		for j := range i + 1 {
			if signals[j].end/second > s.end/second-length(r.Within)/second {
				window, numbers = append(window, signals[j]), append(numbers, j)
			}
		}
		if r.measure(window) < low {
			continue
		}
		m := oracleMatch{s.group, s.end, 0, s.start, s.start}
		for _, j := range numbers {
			if !isCounted[j] {
				isCounted[j] = true
				m.count++
				m.first, m.last = min(m.first, signals[j].start), max(m.last, signals[j].start)
			}
		}
		out = append(out, m)
	}
	return out
}

// tumblingWindows: windows stand at multiples of within. Those with an event are evaluated, and the one behind each of them.
func (r *oracleRule) tumblingWindows(signals []oracleSignal, low, high int64) (out []oracleMatch) {
	within := length(r.Within)
	in := map[int64][]oracleSignal{}
	for _, s := range signals {
		in[s.end/within] = append(in[s.end/within], s)
	}
	numbers := map[int64]bool{}
	for number := range in {
		numbers[number], numbers[number+1] = true, true
	}
	for number := range numbers {
		if n := r.measure(in[number]); n < low || n > high {
			continue
		}
		shown := in[number]
		if len(shown) == 0 {
			shown = in[number-1]
		}
		m := oracleMatch{shown[0].group, (number + 1) * within, int64(len(in[number])), math.MaxInt64, 0}
		for _, s := range shown {
			m.first, m.last = min(m.first, s.start), max(m.last, s.start)
		}
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b oracleMatch) int { return cmp.Compare(a.at, b.at) })
	return out
}

// sequences tries every combination of events, one for each positive step, at the end of each event. Of those that hold it takes the
// one whose last event began first, and of these the one whose other events began last, from the last step to the first. In any order it
// takes the one that began last, and of these the one whose events began first, from the first step to the last.
func (r *oracleRule) sequences(signals []oracleSignal) (out []oracleMatch) {
	within := length(r.Within)
	var positive []int
	for i, step := range r.steps {
		if !step.isNegative() {
			positive = append(positive, i)
		}
	}
	isCounted := map[*oracleEvent]bool{}
	for i, s := range signals {
		if r.steps[s.step].isNegative() {
			continue
		}
		var known []oracleSignal
		for _, other := range signals[:i+1] {
			if other.start >= s.end-2*within {
				known = append(known, other)
			}
		}
		var best []oracleSignal
		var try func(chain []oracleSignal)
		try = func(chain []oracleSignal) {
			if len(chain) == len(positive) {
				if r.isSequence(chain, positive, known) && (best == nil || r.isBetter(chain, best)) {
					best = slices.Clone(chain)
				}
				return
			}
			step := positive[len(chain)]
			for _, next := range known {
				// The event that came now takes part, as the step that it is of.
				if next.step != step || step == s.step && next.oracleEvent != s.oracleEvent || step != s.step && next.oracleEvent == s.oracleEvent {
					continue
				}
				if !slices.ContainsFunc(chain, func(used oracleSignal) bool { return used.oracleEvent == next.oracleEvent }) {
					try(append(chain, next))
				}
			}
		}
		try(nil)
		if best == nil {
			continue
		}
		m := oracleMatch{s.group, s.end, 0, best[0].start, best[0].start}
		for _, of := range best {
			m.first, m.last = min(m.first, of.start), max(m.last, of.start)
			if !isCounted[of.oracleEvent] {
				isCounted[of.oracleEvent] = true
				m.count++
			}
		}
		out = append(out, m)
	}
	return out
}

// isSequence reports whether events, one for each positive step, fulfil the rule.
func (r *oracleRule) isSequence(chain []oracleSignal, positive []int, known []oracleSignal) bool {
	occurs := func(step int, from, to int64) bool {
		return slices.ContainsFunc(known, func(s oracleSignal) bool { return s.step == step && from <= s.start && s.start <= to })
	}
	first, last := chain[0].start, chain[0].start
	for at, s := range chain {
		first, last = min(first, s.start), max(last, s.start)
		if !r.ordered || at == 0 {
			continue
		}
		before, step := chain[at-1], r.steps[positive[at]]
		if s.start < before.start || step.Within != "" && s.start-before.start > length(step.Within) {
			return false
		}
		for between := positive[at-1] + 1; between < positive[at]; between++ {
			if occurs(between, before.start, s.start) {
				return false
			}
		}
	}
	until := len(r.steps) - 1
	return last-first <= length(r.Within) && !(r.steps[until].until && occurs(until, first, last))
}

// isBetter reports whether a sequence is taken in place of another one.
func (r *oracleRule) isBetter(a, b []oracleSignal) bool {
	n := len(a) - 1
	if !r.ordered {
		begin := func(chain []oracleSignal) int64 {
			return slices.MinFunc(chain, func(x, y oracleSignal) int { return cmp.Compare(x.start, y.start) }).start
		}
		if begin(a) != begin(b) {
			return begin(a) > begin(b)
		}
		return slices.CompareFunc(a, b, func(x, y oracleSignal) int { return cmp.Compare(x.start, y.start) }) < 0
	}
	if a[n].start != b[n].start {
		return a[n].start < b[n].start
	}
	for i := n - 1; i >= 0; i-- {
		if a[i].start != b[i].start {
			return a[i].start > b[i].start
		}
	}
	return false
}

// absences: an event of the first step that none of the second has followed in time.
func (r *oracleRule) absences(signals []oracleSignal) (out []oracleMatch) {
	for i, s := range signals {
		if s.step != 0 {
			continue
		}
		isFollowed := slices.ContainsFunc(signals[i+1:], func(other oracleSignal) bool {
			return other.step == 1 && other.end <= s.end+length(r.Within) && other.oracleEvent != s.oracleEvent
		})
		if !isFollowed {
			out = append(out, oracleMatch{s.group, s.end + length(r.Within) + 1, 1, s.start, s.start})
		}
	}
	return out
}

// newValues: a value is known for expire_after from its last event on, counted in its 64th parts of at least a second.
func (r *oracleRule) newValues(signals []oracleSignal) (out []oracleMatch) {
	expire, baseline := length(r.FirstSeen.ExpireAfter), length(r.FirstSeen.Baseline)
	part := max((expire+63)/64, int64(time.Second))
	parts := func(of int64) int64 { return (of + part - 1) / part }
	began := int64(0)
	for i, s := range signals {
		if i == 0 || s.end/part-signals[i-1].end/part > parts(max(expire, baseline)) {
			began = s.end
		}
		isKnown := slices.ContainsFunc(signals[:i], func(before oracleSignal) bool {
			return before.value == s.value && s.end/part-before.end/part <= parts(expire)
		})
		if !isKnown && s.end-began >= baseline {
			out = append(out, oracleMatch{s.group, s.end, 1, s.start, s.start})
		}
	}
	return out
}

// regularContacts: the last contacts of a series have about the same distances. An event less than half of min behind the one before is
// no contact of its own; a pause of more than twice max ends a series.
func (r *oracleRule) regularContacts(signals []oracleSignal) (out []oracleMatch) {
	shortest, longest := length(r.Interval.Min), length(r.Interval.Max)
	percent, _ := strconv.ParseFloat(strings.TrimSuffix(r.Interval.Jitter, "%"), 64)
	var series []oracleSignal
	uncounted := 0
	for i, s := range signals {
		switch {
		case i > 0 && s.end-signals[i-1].end > 2*longest:
			series, uncounted = nil, 0
		case i > 0 && s.end-signals[i-1].end < shortest/2:
			continue
		}
		series, uncounted = append(series, s), uncounted+1
		if len(series) < r.Interval.Contacts {
			continue
		}
		series = series[len(series)-r.Interval.Contacts:]
		uncounted = min(uncounted, len(series))
		var distances []float64
		for j := range len(series) - 1 {
			distances = append(distances, float64(series[j+1].end-series[j].end))
		}
		sorted := slices.Sorted(slices.Values(distances))
		median, irregular := sorted[len(sorted)/2], 0
		for _, d := range distances {
			if math.Abs(d-median) > percent/100*median {
				irregular++
			}
		}
		if median < float64(shortest) || median > float64(longest) || irregular > max(1, len(distances)/10) {
			continue
		}
		out = append(out, oracleMatch{s.group, s.end, int64(uncounted), series[len(series)-uncounted].start, s.start})
		uncounted = 0
	}
	return out
}

// inWindows joins the matches of five minutes, or of suppress, from the first one on.
func (r *oracleRule) inWindows(matches []oracleMatch) (out []oracleMatch) {
	window := int64(5 * time.Minute)
	if r.Suppress != "" {
		window = length(r.Suppress)
	}
	for _, m := range matches {
		if n := len(out); n == 0 || m.at-out[n-1].at >= window {
			out = append(out, m)
			continue
		}
		joined := &out[len(out)-1] // at stays that of its first match
		joined.count += m.count
		joined.first, joined.last = min(joined.first, m.first), max(joined.last, m.last)
	}
	return out
}

// sumMatches joins all matches.
func sumMatches(matches []oracleMatch) []oracleMatch {
	sum := matches[0]
	for _, m := range matches[1:] {
		sum.count += m.count
		sum.first, sum.last = min(sum.first, m.first), max(sum.last, m.last)
	}
	return []oracleMatch{sum}
}
