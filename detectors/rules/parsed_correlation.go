package rules

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/config"
	"tidegate/pipeline/correlate"
)

// The bounds of a correlation rule.
const (
	minSteps    = 2 // of a sequence
	maxSteps    = 8
	minWithin   = time.Second
	maxWithin   = 7 * 24 * time.Hour
	maxDistinct = 10_000 // values that a rule may wait for
	minContacts = 3
	maxContacts = 64
	maxMemory   = 365 * 24 * time.Hour // of first_seen
)

// yamlCorrelation holds the keys of a correlation rule; a rule over one event has none of them.
type yamlCorrelation struct {
	Rule       yamlTexts       `yaml:"rule"`
	Within     config.Node     `yaml:"within"`
	Count      config.Node     `yaml:"count"`
	Distinct   *yamlDistinct   `yaml:"distinct"`
	Sum        *yamlSum        `yaml:"sum"`
	Average    *yamlAverage    `yaml:"average"`
	Percentile *yamlPercentile `yaml:"percentile"`
	Sequence   *yamlSequence   `yaml:"sequence"`
	Absent     *yamlStep       `yaml:"absent"`
	FirstSeen  *yamlFirstSeen  `yaml:"first_seen"`
	Interval   *yamlInterval   `yaml:"interval"`
}

type yamlDistinct struct {
	Field config.Text `yaml:"field"`
	Count config.Node `yaml:"count"`
}

type yamlSum struct {
	Field config.Text `yaml:"field"`
	Total config.Node `yaml:"total"`
}

type yamlFirstSeen struct {
	Fields      yamlTexts   `yaml:"fields"`
	Baseline    config.Node `yaml:"baseline"`
	ExpireAfter config.Node `yaml:"expire_after"`
}

type yamlInterval struct {
	Contacts config.Node `yaml:"contacts"`
	Min      config.Node `yaml:"min"`
	Max      config.Node `yaml:"max"`
	Jitter   config.Node `yaml:"jitter"`
}

// A yamlSequence is a mapping, or a list of steps alone.
type yamlSequence struct {
	Steps   []yamlStep  `yaml:"steps"`
	Ordered *bool       `yaml:"ordered"`
	Until   config.Text `yaml:"until"`

	node config.Node
}

// DecodeNode decodes a sequence.
func (s *yamlSequence) DecodeNode(node config.Node) {
	if s.node = node; node.IsList() {
		node.Decode(&s.Steps)
		return
	}
	type plain yamlSequence // without DecodeNode, which would call itself
	node.Decode((*plain)(s))
	s.node = node
}

// A yamlStep is a step of a sequence, or what must follow.
type yamlStep struct {
	Name   config.Text `yaml:"name"`
	When   config.Text `yaml:"when"`
	Not    config.Text `yaml:"not"`
	Rule   yamlTexts   `yaml:"rule"`
	Within config.Node `yaml:"within"`
	Group  yamlTexts   `yaml:"group"`

	node config.Node // the whole step, for its position
}

// DecodeNode decodes a step and keeps its node.
func (s *yamlStep) DecodeNode(node config.Node) {
	type plain yamlStep // without DecodeNode, which would call itself
	node.Decode((*plain)(s))
	s.node = node
}

// A parsedCorrelation holds the steps and bounds of a correlation rule. Its conditions are not compiled yet.
type parsedCorrelation struct {
	compiled *correlate.Rule
	steps    []parsedStep // as compiled.Steps
	values   []ruleValue  // of Distinct, Sum, Average, Percentile and FirstSeen: what is counted
}

// A parsedStep selects events: by a condition, or by rules that match them.
type parsedStep struct {
	when  config.Text
	rules yamlTexts
	group []ruleValue // whose values are compared with those of the other steps; none: the owner of the event
}

// kinds returns the keys of the form that decide what kind of rule it is.
func (y *yamlCorrelation) kinds() (kinds []string) {
	for _, kind := range []struct {
		key   string
		isSet bool
	}{
		{"count", y.Count.IsSet()},
		{"distinct", y.Distinct != nil},
		{"sum", y.Sum != nil},
		{"average", y.Average != nil},
		{"percentile", y.Percentile != nil},
		{"sequence", y.Sequence != nil},
		{"absent", y.Absent != nil},
		{"first_seen", y.FirstSeen != nil},
		{"interval", y.Interval != nil},
	} {
		if kind.isSet {
			kinds = append(kinds, kind.key)
		}
	}
	return kinds
}

// parseCorrelation sets correlation if the rule has a key of one over several events. when is its condition.
func (r *parsedRule) parseCorrelation(when config.Text, form *yamlCorrelation) {
	kinds := form.kinds()
	switch {
	case len(kinds) > 1:
		r.node.Errorf("has %s: a rule has one of them", strings.Join(kinds, " and "))
		return
	case len(kinds) == 0:
		const hint = "belongs to a correlation rule, one with count, distinct, sum, average, percentile, sequence, absent, first_seen or interval"
		if form.Within.IsSet() {
			form.Within.Errorf(hint)
		}
		if len(form.Rule) > 0 {
			form.Rule[0].Errorf(hint)
		}
		return
	}
	r.Kind = kinds[0]
	compiled := &correlate.Rule{Min: 1, Max: correlate.NoMax}
	r.correlation = &parsedCorrelation{compiled: compiled}
	first := parsedStep{when: when, rules: form.Rule, group: r.groupValues}
	if kinds[0] != "sequence" {
		r.correlation.addStep(r.node, correlate.Step{}, first)
	} else if when.IsSet() || len(form.Rule) > 0 {
		r.node.Errorf("a sequence has its conditions in its steps, so it has no when and no rule of its own")
	}

	switch kinds[0] {
	case "count":
		compiled.Kind = correlate.Count
		compiled.Min, compiled.Max = r.parseBounds("count", form.Count, parseNumber)
	case "distinct":
		compiled.Kind = correlate.Distinct
		compiled.Min, compiled.Max = r.parseBounds("distinct.count", form.Distinct.Count, parseNumber)
		if slices.Contains(r.Group, form.Distinct.Field.Value) {
			form.Distinct.Field.Errorf("is a field of the group, which has one value of it")
		}
		r.addValue("distinct.field", form.Distinct.Field, isSingle, "is a list: write a field that has one value")
		if compiled.Min > maxDistinct || compiled.Max != correlate.NoMax && compiled.Max > maxDistinct {
			form.Distinct.Count.Errorf("must be at most %d", maxDistinct)
		}
	case "sum":
		compiled.Kind = correlate.Sum
		parse := parseSize
		if form.Sum.Field.Value == "event.duration" {
			parse = parseNanoseconds
		}
		compiled.Min, compiled.Max = r.parseBounds("sum.total", form.Sum.Total, parse)
		r.addValue("sum.field", form.Sum.Field, isNumber, "is no number")
	case "average":
		r.parseAverage(form.Average)
	case "percentile":
		r.parsePercentile(form.Percentile)
	case "sequence":
		compiled.Kind = correlate.Sequence
		r.parseSequence(form.Sequence)
	case "absent":
		compiled.Kind = correlate.Absent
		r.addYAMLStep(form.Absent)
		if form.Absent.Not.IsSet() || form.Absent.Within.IsSet() {
			form.Absent.node.Errorf("has no not and no within: write the event that must follow as when or rule")
		}
	case "first_seen":
		compiled.Kind = correlate.FirstSeen
		r.parseFirstSeen(form.FirstSeen)
	case "interval":
		compiled.Kind = correlate.Interval
		r.parseInterval(form.Interval)
	}
	if compiled.Kind == correlate.FirstSeen || compiled.Kind == correlate.Interval {
		if form.Within.IsSet() {
			form.Within.Errorf("is no key of a rule with %s", kinds[0])
		}
		return
	}
	compiled.Within = parseLength(r.node, "within", form.Within, 0, minWithin, maxWithin)
}

// addStep adds a step, which must have a condition or rules.
func (p *parsedCorrelation) addStep(node config.Node, step correlate.Step, parsed parsedStep) {
	switch {
	case !parsed.when.IsSet() && len(parsed.rules) == 0:
		node.Errorf("has neither when nor rule")
	case parsed.when.IsSet() && len(parsed.rules) > 0:
		node.Errorf("has both when and rule: it has one of them")
	}
	p.compiled.Steps = append(p.compiled.Steps, step)
	p.steps = append(p.steps, parsed)
}

// addYAMLStep adds a step of a sequence, or what must follow.
func (r *parsedRule) addYAMLStep(form *yamlStep) {
	step := correlate.Step{Name: fmt.Sprintf("step %d", len(r.correlation.steps)+1), Not: form.Not.IsSet()}
	if form.Name.IsSet() {
		step.Name = nonEmptyText(form.Name)
	}
	parsed := parsedStep{when: form.When, rules: form.Rule, group: r.groupValues}
	if form.Not.IsSet() {
		if form.When.IsSet() || len(form.Rule) > 0 {
			form.node.Errorf("has not beside when or rule: a step looks for one kind of event")
		}
		parsed.when, parsed.rules = form.Not, nil
	}
	if form.Within.IsSet() {
		step.Within = parseLength(form.node, "within", form.Within, 0, 0, maxWithin)
	}
	if len(form.Group) > 0 {
		_, parsed.group = r.parseValues(form.Group)
		if len(parsed.group) != len(r.groupValues) {
			form.node.Errorf("groups by %s, the rule by %s: each field stands for the one of the rule in its place",
				plural(len(parsed.group), "field"), plural(len(r.groupValues), "field"))
		}
	}
	withinLimit(parsed.when, maxExpression)
	checkComment(parsed.when)
	r.correlation.addStep(form.node, step, parsed)
}

// parseSequence adds the steps of a sequence.
func (r *parsedRule) parseSequence(form *yamlSequence) {
	compiled := r.correlation.compiled
	compiled.Ordered = form.Ordered == nil || *form.Ordered
	positive := 0
	for i := range form.Steps {
		step := &form.Steps[i]
		switch {
		case !step.Not.IsSet():
			positive++
		case !compiled.Ordered:
			step.node.Errorf("must not occur between two others, which have no order; use until")
		case i == 0 || i == len(form.Steps)-1:
			step.node.Errorf("must not occur between two others, so it is neither the first nor the last; use until, or absent")
		}
		if step.Within.IsSet() && (i == 0 || !compiled.Ordered || step.Not.IsSet()) {
			step.node.Errorf("within belongs to a step that must occur behind another one, in a sequence with an order")
		}
		r.addYAMLStep(step)
	}
	if positive < minSteps || len(form.Steps) > maxSteps {
		form.node.Errorf("has %s, must have %d to %d, of which two must occur", plural(len(form.Steps), "step"), minSteps, maxSteps)
	}
	if form.Until.IsSet() {
		withinLimit(form.Until, maxExpression)
		checkComment(form.Until)
		until := parsedStep{when: form.Until, group: r.groupValues}
		r.correlation.addStep(form.node, correlate.Step{Name: "until", Until: true}, until)
	}
}

// parseFirstSeen sets the fields, and for how long their values are known.
func (r *parsedRule) parseFirstSeen(form *yamlFirstSeen) {
	if len(form.Fields) == 0 {
		r.node.Named(r.node.Key() + "first_seen.fields").Errorf("is missing")
	}
	for _, name := range form.Fields {
		r.addValue("first_seen.fields", name, isSingle, "is a list: write a field that has one value")
	}
	compiled, node := r.correlation.compiled, r.node.Named(r.node.Key()+"first_seen")
	const day = 24 * time.Hour
	compiled.Baseline = parseLength(node, "baseline", form.Baseline, day, 0, maxMemory)
	compiled.ExpireAfter = parseLength(node, "expire_after", form.ExpireAfter, 30*day, time.Minute, maxMemory)
	if compiled.Baseline >= compiled.ExpireAfter {
		node.Errorf("baseline (%s) is not shorter than expire_after (%s): values would be new again before the group has learned them",
			formatDuration(compiled.Baseline), formatDuration(compiled.ExpireAfter))
	}
}

// parseInterval sets which contacts are regular.
func (r *parsedRule) parseInterval(form *yamlInterval) {
	compiled, node := r.correlation.compiled, r.node.Named(r.node.Key()+"interval")
	compiled.Contacts = 8
	if form.Contacts.IsSet() {
		number, ok := form.Contacts.Int()
		if !ok || number < minContacts || number > maxContacts {
			form.Contacts.Errorf("must be a number from %d to %d", minContacts, maxContacts)
		}
		compiled.Contacts = int(number)
	}
	compiled.MinInterval = parseLength(node, "min", form.Min, 5*time.Second, time.Second, 24*time.Hour)
	compiled.MaxInterval = parseLength(node, "max", form.Max, time.Hour, time.Second, 24*time.Hour)
	if compiled.MinInterval > compiled.MaxInterval {
		node.Errorf("min is more than max")
	}
	compiled.Jitter = 0.2
	if form.Jitter.IsSet() {
		written, _ := form.Jitter.Scalar()
		digits, isPercent := strings.CutSuffix(written, "%")
		percent, err := strconv.ParseFloat(digits, 64)
		if err != nil || !isPercent || !(percent >= 0 && percent <= 50) {
			form.Jitter.Errorf("must be a share of the distance, from 0%% to 50%%: write 20%%")
		}
		compiled.Jitter = percent / 100
	}
}

// addValue adds a field whose values are counted. fits reports whether a field can be; otherwise is the error
// if not.
func (r *parsedRule) addValue(key string, name config.Text, fits func(*pipeline.Field) bool, otherwise string) {
	if !name.IsSet() {
		r.node.Named(r.node.Key() + key).Errorf("is missing")
		return
	}
	_, values := r.parseValues(yamlTexts{name})
	for _, value := range values {
		if value.field != nil && !fits(value.field) {
			name.Errorf("%s %s", value.field.Name, otherwise)
		}
	}
	r.correlation.values = append(r.correlation.values, values...)
}

func isSingle(field *pipeline.Field) bool { return field.Strs == nil && field.Nums == nil }
func isNumber(field *pipeline.Field) bool { return field.Num != nil }

// parseValues returns the values of a list of names: of fields that rules can read, and of let. It adds errors for the others.
func (r *parsedRule) parseValues(list yamlTexts) (names []string, values []ruleValue) {
	for i, name := range list {
		if i == maxGroup {
			name.Errorf("more than %d fields", maxGroup)
			break
		}
		if let := r.let(name.Value); let != nil {
			names, values = append(names, let.name), append(values, ruleValue{let: let})
			continue
		}
		field := pipeline.Lookup(name.Value)
		if field == nil {
			name.Errorf("%s", r.unknownValue(name.Value))
			continue
		}
		if _, err := fieldKind(field); err != nil {
			name.Errorf("%v", err)
			continue
		}
		names, values = append(names, field.Name), append(values, ruleValue{field: field})
	}
	return names, values
}

// parseBounds reads how much there must be: "10" or ">= 10", "> 10", "< 3", "<= 3", "10..100". parse reads a
// number.
func (r *parsedRule) parseBounds(key string, node config.Node, parse func(string) (int64, bool)) (low, high int64) {
	low, high = 1, correlate.NoMax
	if !node.IsSet() {
		r.node.Named(r.node.Key() + key).Errorf("is missing")
		return low, high
	}
	written, ok := node.Scalar()
	if !ok {
		node.Errorf("expected a number such as \">= 10\", got %s", node.Kind())
		return low, high
	}
	written = strings.TrimSpace(written)
	number := func(text string) int64 {
		value, parsed := parse(strings.TrimSpace(text))
		ok = ok && parsed
		return value
	}
	from, to, isRange := strings.Cut(written, "..")
	switch {
	case isRange:
		low, high = number(from), number(to)
		ok = ok && low <= high
	case strings.HasPrefix(written, ">="):
		low = number(written[2:])
	case strings.HasPrefix(written, ">"):
		low = number(written[1:]) + 1
	case strings.HasPrefix(written, "<="):
		low, high = 0, number(written[2:])
	case strings.HasPrefix(written, "<"):
		low, high = 0, number(written[1:])-1
	default:
		low = number(written)
	}
	switch {
	case written == "":
		node.Errorf("is empty: a value that begins with > stands between quotes")
	case !ok:
		node.Errorf("%q is not a number, a comparison such as \">= 10\" or \"< 3\", or a range such as \"10..100\"%s", written, unitHint(strings.TrimLeft(written, "<>= ")))
	case high < 0, high == correlate.NoMax && low < 1:
		node.Errorf("%s never holds, or always", written)
	}
	return low, high
}

func parseNumber(text string) (int64, bool) {
	number, err := strconv.ParseInt(text, 10, 64)
	return number, err == nil && number >= 0 && number < math.MaxInt32
}

// parseSize reads a number that may have a unit of size: KiB, MiB, GiB, TiB.
func parseSize(text string) (int64, bool) {
	size, err := config.ParseSize(text)
	return int64(size), err == nil && int64(size) < correlate.NoMax
}

// parseNanoseconds reads a length of time.
func parseNanoseconds(text string) (int64, bool) {
	length, err := parseDuration(text)
	return int64(length), err == nil && length >= 0
}

// parseLength reads a length of time from low to high. Without a value it is missing, or otherwise where that
// is not 0.
func parseLength(node config.Node, key string, value config.Node, otherwise, low, high time.Duration) time.Duration {
	if !value.IsSet() {
		if otherwise == 0 {
			name := node.Key() + key
			if !strings.HasSuffix(node.Key(), ": ") && node.Key() != "" {
				name = node.Key() + "." + key
			}
			node.Named(name).Errorf("is missing")
		}
		return otherwise
	}
	written, _ := value.Scalar()
	length, err := parseDuration(written)
	switch {
	case err != nil:
		value.Errorf("%q is not a length of time such as 30s, 5m, 12h or 7d%s", written, unitHint(written))
	case length < low || length > high:
		value.Errorf("must be from %s to %s", formatDuration(low), formatDuration(high))
	}
	return length
}

// parseDuration reads a length of time as Go writes it, which may have days in front: 7d, 1d12h.
func parseDuration(text string) (time.Duration, error) {
	text = strings.TrimSpace(text)
	days, rest, hasDays := strings.Cut(text, "d")
	if !hasDays {
		return time.ParseDuration(text)
	}
	number, err := strconv.ParseUint(days, 10, 16)
	if err != nil {
		return 0, err
	}
	length := time.Duration(number) * 24 * time.Hour
	if rest == "" {
		return length, nil
	}
	more, err := time.ParseDuration(rest)
	return length + more, err
}

// formatDuration writes whole days as days.
func formatDuration(length time.Duration) string {
	const day = 24 * time.Hour
	if length >= day && length%day == 0 {
		return fmt.Sprintf("%dd", length/day)
	}
	return config.FormatDuration(length)
}
