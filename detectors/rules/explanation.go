package rules

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"tidegate/pipeline"
)

// An Explanation says why a rule over one event, or a step of a correlation rule, matches an event or does not.
type Explanation struct {
	Rule    string `json:"rule"` // of a step: the id of the rule, a slash and the name of the step
	Matches bool   `json:"matches"`
	// Prefilter says whether the prefilter lets the engine evaluate the rule for this event, and why.
	Prefilter string `json:"prefilter"`
	// Let has the values that the rule names.
	Let []LetValue `json:"let,omitempty"`
	// DividesByZero: the remainder of a division by zero makes the condition, or an exception, false as a whole, whatever
	// its parts are.
	DividesByZero bool `json:"divides_by_zero,omitempty"`
	When          Part `json:"when"`
	// Exceptions are those of the rule; if one is true, the rule does not match.
	Exceptions []Part `json:"exceptions,omitempty"`
}

// A LetValue is a value that a rule names with let, for an event; "" if the event has none.
type LetValue struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// A Part is a condition with its value for an event.
type Part struct {
	Text   string `json:"text"` // as written; and, or and not have their operands in Parts
	Holds  bool   `json:"holds"`
	Values string `json:"values,omitempty"` // what the condition reads from the event: url.path = "/", source.port = 80
	Parts  []Part `json:"parts,omitempty"`
}

// maxShownLet is how many bytes of a value of let an explanation has.
const maxShownLet = 1000

// Explain returns why rule matches event or does not. A correlation rule has an explanation for each step, and for each
// rule that a step refers to.
func (s *Set) Explain(rule *Rule, event *pipeline.Event) (out []Explanation) {
	worker := s.acquireWorker()
	defer s.releaseWorker(worker)
	worker.values.setEvent(event)
	found := slices.Clone(worker.finder.candidates(event.Dataset)) // it is asked once for each event
	for _, condition := range s.conditionsOf(rule) {
		explained := Explanation{
			Rule: condition.ID, Matches: condition.datasets&maskOf(event.Dataset) != 0 && s.matchesRule(worker, condition),
			Prefilter: s.explainPrefilter(worker.values, condition, found), When: s.explainPart(worker.values, condition.when.root),
		}
		for _, exception := range condition.exceptions {
			explained.Exceptions = append(explained.Exceptions, s.explainPart(worker.values, exception.root))
		}
		explained.DividesByZero, worker.values.failed = worker.values.failed, false
		for _, let := range rule.lets {
			value, _ := let.read(worker.values)
			explained.Let = append(explained.Let, LetValue{let.name, strings.ToValidUTF8(value[:min(len(value), maxShownLet)], "")})
		}
		out = append(out, explained)
	}
	return out
}

// explainPart returns n, a flag, with its value and those of its operands.
func (s *Set) explainPart(values *eventValues, n *node) Part {
	part := Part{Holds: n.flagClosure()(values)}
	switch n.op {
	case opNot:
		part.Text = operators[n.op]
		part.Parts = []Part{s.explainPart(values, n.args[0])}
	case opAnd, opOr: // a and b and c is one list
		part.Text = operators[n.op]
		for _, operand := range n.args {
			explained := s.explainPart(values, operand)
			if operand.op == n.op {
				part.Parts = append(part.Parts, explained.Parts...)
			} else {
				part.Parts = append(part.Parts, explained)
			}
		}
	default:
		part.Text = s.slots.render(n)
		part.Values = s.describeValues(values, n)
	}
	return part
}

// describeValues returns the values of the slots that n reads.
func (s *Set) describeValues(values *eventValues, n *node) string {
	var parts []string
	var collect func(n *node)
	collect = func(n *node) {
		if n.op == opSlot || n.kind == flag && slices.Contains([]operation{opAny, opAll, opNone, opOne, opListContains}, n.op) || n.op == opCount {
			if text := s.slots.list[n.slot].label + " = " + s.slotText(values, n.slot); !slices.Contains(parts, text) {
				parts = append(parts, text)
			}
		}
		for _, arg := range n.args {
			collect(arg)
		}
	}
	collect(n)
	return strings.Join(parts, ", ")
}

// slotText returns the value of a slot as an author would write it, shortened.
func (s *Set) slotText(values *eventValues, index int) string {
	value := values.slot(index)
	var parts []string
	switch s.slots.list[index].kind {
	case text:
		return quoteShort(value.text)
	case number:
		return strconv.FormatInt(value.number, 10)
	case flag:
		return strconv.FormatBool(value.flag)
	case address:
		if !value.address.IsValid() {
			return `""`
		}
		return strconv.Quote(value.address.String())
	case textList:
		for _, element := range value.texts {
			parts = append(parts, quoteShort(element))
		}
	case numberList:
		for _, element := range value.numbers {
			parts = append(parts, strconv.FormatInt(element, 10))
		}
	}
	return "[" + strings.Join(firstParts(parts), ", ") + "]"
}

// explainPrefilter returns whether the index has found a rule for the event of values; found are those that it has.
func (s *Set) explainPrefilter(values *eventValues, rule *Rule, found []int32) string {
	event := values.event
	if rule.datasets&maskOf(event.Dataset) == 0 {
		return fmt.Sprintf("skipped: the rule is for %s, the event is %s", strings.Join(firstParts(rule.datasets.names()), ", "), event.Dataset.Name())
	}
	keys := s.slots.prefilterOf(rule.when.root, true, noElement).keys
	if keys == nil {
		return "passed: no part of the condition can be looked up, so every event of its datasets passes"
	}
	var parts []string
	isFound := slices.ContainsFunc(found, func(i int32) bool { return s.evaluated[i] == rule })
	for _, key := range keys {
		if !isFound || s.hasKey(values, &key) {
			parts = append(parts, s.describeKey(&key))
		}
	}
	if !isFound {
		return "skipped: the event does not have " + strings.Join(firstParts(parts), " or ")
	}
	return "passed: the event has " + strings.Join(firstParts(parts), ", ")
}

// hasKey reports whether the event of values has a key.
func (s *Set) hasKey(values *eventValues, key *prefilterKey) bool {
	value := values.slot(key.slot)
	holds := func(text string) bool {
		switch {
		case key.literal && key.folded:
			return strings.Contains(lowerASCII(text), lowerASCII(key.text))
		case key.literal:
			return strings.Contains(text, key.text)
		}
		return text == key.text
	}
	switch s.slots.list[key.slot].kind {
	case text:
		return holds(value.text)
	case textList:
		return slices.ContainsFunc(value.texts, holds)
	case number:
		return value.number == key.number
	case numberList:
		return slices.Contains(value.numbers, key.number)
	}
	return value.address == key.addr
}

// describeKey returns a key as a condition.
func (s *Set) describeKey(key *prefilterKey) string {
	def := &s.slots.list[key.slot]
	value := quoteShort(key.text)
	switch {
	case key.literal && key.folded:
		return def.label + " contains " + value + " in any case"
	case key.literal:
		return def.label + " contains " + value
	case def.kind == address:
		value = strconv.Quote(key.addr.String())
	case def.kind == number || def.kind == numberList:
		value = strconv.FormatInt(key.number, 10)
	}
	return def.label + " == " + value
}
