package rules

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"tidegate/pipeline"
	"tidegate/pipeline/config"
	"tidegate/pipeline/correlate"
)

// A step makes the signals of one step of a correlation rule.
type step struct {
	rule   *Rule // over several events
	index  int
	group  []ruleValue // in the order of rule.Group; none: the owner of the event
	values []ruleValue // what is counted

	// Events that lacked a value of the group, or what is counted, and so are no signals, and the name of one that they lacked.
	ungrouped atomic.Uint64
	lacked    atomic.Pointer[string]

	// Of a step that refers to a rule: what the condition of another step has itself.
	datasets   datasetMask
	exceptions []*expression
}

// A reference is a step whose events are those that another rule matches.
type reference struct {
	step *step
	id   config.Text
}

// compileCorrelation compiles the conditions of the steps of a correlation rule. Each becomes a Rule that is
// evaluated like the others, and whose matches are signals instead of verdicts.
func (c *compiler) compileCorrelation(parsed *parsedRule) {
	rule, compiled := &parsed.Rule, parsed.correlation.compiled
	rule.Correlation, compiled.ID = compiled, rule.ID
	if let := parsed.summedLet(); let != nil && let.root != nil && !let.root.kind.isNumeric() {
		let.text.Errorf("is %s: it must be a number, such as number(json(message, \"$.bytes\"))", let.root.kind)
	}
	hasAlert, alertStep := rule.template != nil, parsed.correlation.alertStep()
	for i, of := range parsed.correlation.steps {
		target := &step{rule: rule, index: i, group: of.group}
		exceptions := rule.exceptions
		if compiled.Steps[i].Not || compiled.Steps[i].Until || compiled.Kind == correlate.Absent && i > 0 {
			exceptions = nil // an exception would make it match more
		} else {
			target.values = parsed.correlation.values
		}
		target.datasets, target.exceptions = parsed.datasets, exceptions
		for _, id := range of.rules {
			c.references = append(c.references, reference{target, id})
		}
		if !of.when.IsSet() {
			continue
		}
		condition := &Rule{
			ID: rule.ID, Severity: rule.Severity, File: rule.File, Line: rule.Line, isStep: true, signalSteps: []*step{target},
			exceptions: exceptions,
		}
		if len(parsed.correlation.steps) > 1 {
			condition.ID += "/" + compiled.Steps[i].Name
		}
		if c.compileCondition(parsed, condition, of.when) {
			c.lintCondition(condition)
			if !hasAlert && i == alertStep {
				rule.template = c.defaultAlert(condition.when)
			}
		}
		rule.conditions = append(rule.conditions, condition)
		rule.datasets |= condition.datasets
	}
	c.correlations = append(c.correlations, parsed)
}

// alertStep returns the step whose event fills the alert: the first one of Absent, else the last one that
// must occur.
func (p *parsedCorrelation) alertStep() (index int) {
	for i, step := range p.compiled.Steps {
		if p.compiled.Kind != correlate.Absent && !step.Not && !step.Until {
			index = i
		}
	}
	return index
}

// resolveReferences adds the steps that refer to a rule to the signals of that rule, and computes the hashes
// of the correlation rules, which depend on the rules that they refer to.
func (c *compiler) resolveReferences() {
	byID := map[string]*Rule{}
	for _, rule := range c.rules {
		if !rule.isStep {
			byID[rule.ID] = rule.Rule
		}
	}
	referred := map[*Rule][]string{} // the hashes of the rules that a rule refers to
	for _, ref := range c.references {
		id := ref.id.Value
		target, rule := byID[id], ref.step.rule
		switch {
		case target != nil:
			target.signalSteps = append(target.signalSteps, ref.step)
			rule.datasets |= target.datasets
			rule.referredRules = append(rule.referredRules, id)
			referred[rule] = append(referred[rule], target.Hash)
		case c.parsed[id] == nil:
			hint := config.DidYouMean(id, slices.Sorted(maps.Keys(c.parsed)))
			if hint == "" && !c.cfg.Shipped {
				hint = "; the shipped rules are not loaded (--with-shipped)"
			}
			ref.id.Errorf("no rule has the id %q%s", id, hint)
		case c.parsed[id].correlation != nil:
			ref.id.Errorf("%s is a correlation rule: rule names rules over one event", id)
		}
	}
	for _, parsed := range c.correlations {
		rule := &parsed.Rule
		rule.Datasets, rule.Indexed = rule.datasets.names(), true
		for _, condition := range rule.conditions {
			rule.Indexed = rule.Indexed && condition.Indexed
		}
		if rule.Hash = shortHash(append(parsed.correlationContent(), referred[rule]...)...); rule.Version == "" {
			rule.Version = rule.Hash
		}
		// Windows, and what was seen, stay while the matches are the same: a title or an alert may change.
		matches := parsed.matchContent()
		for _, id := range rule.referredRules {
			matches = append(matches, c.parsed[id].matchContent()...)
		}
		if rule.Correlation.Kind == correlate.FirstSeen {
			matches = append(matches, "sha256") // of what is stored: values with other hashes are those of another version
		}
		rule.Correlation.Version = shortHash(matches...)
		for _, condition := range rule.conditions {
			condition.Hash, condition.Version = rule.Hash, rule.Version
		}
		c.lintCases(rule)
	}
}

// correlationContent returns what determines the matches of a correlation rule, but for the rules that it
// refers to.
func (p *parsedRule) correlationContent() []string {
	return append([]string{p.contentHash()}, p.stepsContent()...)
}

// matchContent returns what determines which events a rule matches, and their groups, but for the rules that it refers to.
func (p *parsedRule) matchContent() []string {
	content := []string{p.ID, fmt.Sprint(p.datasets), "group"}
	for _, value := range p.groupValues {
		content = append(content, value.content())
	}
	content = append(content, p.conditionsContent()...)
	if p.correlation != nil {
		content = append(content, p.stepsContent()...)
	}
	return content
}

// stepsContent returns what determines the matches of the steps of a correlation rule, but for its exceptions and the rules that it refers to.
func (p *parsedRule) stepsContent() (content []string) {
	parts := *p.correlation.compiled
	parts.Version = ""
	content = append(content, fmt.Sprintf("%+v", parts))
	for i, of := range p.correlation.steps {
		content = append(content, fmt.Sprint("step", i))
		if of.when.IsSet() {
			content = append(content, of.when.Value, dependencies(of.when.Value, p.names, 0))
		}
		for _, value := range of.group {
			content = append(content, value.content())
		}
	}
	for _, value := range p.correlation.values {
		content = append(content, value.content())
	}
	return content
}

// Correlations returns the correlation rules, for a correlate.Fold.
func (s *Set) Correlations() (out []*correlate.Rule) {
	for _, rule := range s.rules {
		if rule.Correlation != nil {
			out = append(out, rule.Correlation)
		}
	}
	return out
}

// signal returns the signal of an event that matches the step. There is none if the event lacks a value that
// the rule groups by or counts, whose name is lacked: it can belong to no group. alert is the text of the rule that the
// event matches, for a rule without one.
func (s *step) signal(v *eventValues, alert template) (signal correlate.Signal, lacked string) {
	for _, value := range s.group {
		if !value.has(v) {
			return signal, value.name()
		}
	}
	for _, value := range s.values {
		if !value.has(v) {
			return signal, value.name()
		}
	}
	if s.rule.template != nil {
		alert = s.rule.template
	}
	event := v.event
	signal = correlate.Signal{
		Rule: s.rule.ID, Version: s.rule.Correlation.Version, Step: s.index, Group: groupOf(s.group, s.rule.Group, v),
		Start: event.Timestamp, End: event.End(), Origin: correlate.Origin{Text: alert.render(v)},
	}
	copy(signal.Event[:], event.Id)
	switch s.rule.Correlation.Kind {
	case correlate.Sum, correlate.Average, correlate.Percentile:
		if len(s.values) > 0 {
			signal.Value = s.values[0].number(v)
		}
	case correlate.Distinct, correlate.FirstSeen:
		var values []byte
		for _, value := range s.values {
			values = pipeline.AppendGroup(values, value.name(), value.text(v))
		}
		hash := sha256.Sum256(values) // whoever chooses the values must not find two with the same one
		signal.Value = int64(binary.LittleEndian.Uint64(hash[:]))
		if s.rule.Correlation.Kind == correlate.FirstSeen {
			signal.ValueHigh = binary.LittleEndian.Uint64(hash[8:])
		}
	}
	return signal, ""
}

// countUngrouped counts an event that is no signal because it lacks a value.
func (s *step) countUngrouped(lacked string) {
	s.rule.stats.ungrouped.Add(1)
	if s.ungrouped.Add(1) == 1 {
		s.lacked.Store(&lacked)
	}
}

// An Ungrouped rule has selected events that lack a value of its group, or the value that it counts.
type Ungrouped struct {
	Rule   string
	Lacked string // the first value that was missing
	Events uint64
}

// Ungrouped returns the correlation rules that have selected events that belong to no group, since the set was loaded.
func (s *Set) Ungrouped() (out []Ungrouped) {
	for _, rule := range s.evaluated {
		for _, step := range rule.signalSteps {
			if lacked := step.lacked.Load(); lacked != nil {
				out = append(out, Ungrouped{step.rule.ID, *lacked, step.ungrouped.Load()})
			}
		}
	}
	return out
}

// describeSignals returns how many signals of each step came, and what each group has and waits for, for the message of a case that failed. Of a
// step without one it says why the last event is none.
func (s *Set) describeSignals(rule *Rule, signals []correlate.Signal, events []*pipeline.Event) string {
	counts := make([]int, len(rule.Correlation.Steps))
	groups := map[string][]correlate.Signal{}
	var names []string // in the order of their first signals
	for _, signal := range signals {
		counts[signal.Step]++
		if groups[signal.Group] == nil {
			names = append(names, signal.Group)
		}
		groups[signal.Group] = append(groups[signal.Group], signal)
	}
	var parts []string
	for i, of := range rule.Correlation.Steps {
		if of.Name == "" {
			parts = append(parts, plural(counts[i], "event"))
		} else {
			parts = append(parts, fmt.Sprintf("%d of %s", counts[i], of.Name))
		}
	}
	var out strings.Builder
	out.WriteString(strings.Join(parts, ", ") + " in " + plural(len(groups), "group"))
	for _, condition := range rule.conditions {
		if of := condition.signalSteps[0]; counts[of.index] == 0 && len(events) > 0 && !rule.Correlation.Steps[of.index].Until {
			out.WriteString("; the last event: " + s.describeMissing(condition, of, events[len(events)-1]))
		}
	}
	begin := int64(0)
	if len(events) > 0 {
		begin = slices.MinFunc(events, func(a, b *pipeline.Event) int { return cmp.Compare(a.Timestamp, b.Timestamp) }).Timestamp
	}
	for _, name := range names[:min(len(names), maxShownGroups)] {
		fmt.Fprintf(&out, "\n    %s: %s", name, DescribeGroup(rule.Correlation, groups[name], begin))
	}
	if more := len(names) - maxShownGroups; more > 0 {
		fmt.Fprintf(&out, "\n    and %s", plural(more, "further group"))
	}
	return out.String()
}

// describeMissing returns why an event is no signal of a step.
func (s *Set) describeMissing(condition *Rule, of *step, event *pipeline.Event) string {
	worker := s.acquireWorker()
	worker.values.setEvent(event)
	for _, value := range append(slices.Clone(of.group), of.values...) {
		if !value.has(worker.values) {
			s.releaseWorker(worker)
			return "has no " + value.name()
		}
	}
	s.releaseWorker(worker)
	return s.explain(condition, event)
}
