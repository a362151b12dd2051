package rules

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

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

// describeValues returns the values of the calls, calculations and fields that n, a condition that is no and, or and not, reads: what stands
// around others comes before them.
func (s *Set) describeValues(values *eventValues, n *node) string {
	failed := values.failed
	var parts []string
	add := func(text string) {
		if !slices.Contains(parts, text) {
			parts = append(parts, text)
		}
	}
	var collect func(n *node)
	collect = func(n *node) {
		switch {
		case n.op == opSlot && n.kind != flag: // has(field) is its own value
			add(s.describeSlot(values, n.slot))
		case n.isLoop():
			if n.op == opCount {
				add(s.slots.render(n) + " = " + n.valueText(values))
			}
			add(s.describeLoop(values, n))
		case n.op == opListContains:
			add(s.describeSlot(values, n.slot))
		case n.kind != flag && n.readsSlot() && !n.readsElement():
			add(s.slots.render(n) + " = " + n.valueText(values))
		}
		if n.op == opSlot && s.slots.list[n.slot].how == inFeed {
			collect(&node{op: opSlot, kind: s.slots.list[s.slots.list[n.slot].of].kind, slot: s.slots.list[n.slot].of})
		}
		for _, arg := range n.args {
			collect(arg)
		}
	}
	collect(n)
	values.failed = failed
	return strings.Join(parts, ", ")
}

// isLoop reports whether n walks a list.
func (n *node) isLoop() bool {
	return n.op == opAny || n.op == opAll || n.op == opNone || n.op == opOne || n.op == opCount
}

// readsElement reports whether n has a value only inside a loop around it.
func (n *node) readsElement() bool {
	return n.op == opElement || !n.isLoop() && slices.ContainsFunc(n.args, (*node).readsElement)
}

// readsSlot reports whether the value of n is not the same for every event.
func (n *node) readsSlot() bool {
	return n.op == opSlot || n.isLoop() || slices.ContainsFunc(n.args, (*node).readsSlot)
}

// valueText returns the value of n, no list, as an author would write it, shortened.
func (n *node) valueText(values *eventValues) string {
	before := values.failed
	values.failed = false
	out := ""
	switch n.kind {
	case text:
		out = quoteShort(n.textClosure()(values))
	case number:
		out = strconv.FormatInt(n.numberClosure()(values), 10)
	case decimal:
		out = decimalText(n.decimalClosure()(values))
	case address:
		out = addressText(n.addressClosure()(values))
	default:
		out = strconv.FormatBool(n.flagClosure()(values))
	}
	if values.failed {
		out = "a division by zero"
	}
	values.failed = before || values.failed
	return out
}

// decimalText returns a number with four digits behind its point, or none if it is a whole one.
func decimalText(value float64) string {
	if math.IsNaN(value) { // what number returns
		return "no number"
	}
	if value == math.Trunc(value) && math.Abs(value) < 1<<53 {
		return strconv.FormatFloat(value, 'f', 0, 64)
	}
	if small := math.Abs(value); small < 0.001 || small >= 1<<53 {
		return strconv.FormatFloat(value, 'g', 5, 64)
	}
	return strconv.FormatFloat(value, 'f', 4, 64)
}

func addressText(value netip.Addr) string {
	if !value.IsValid() {
		return `""`
	}
	return strconv.Quote(value.String())
}

// describeSlot returns the value of a slot behind its name.
func (s *Set) describeSlot(values *eventValues, index int) string {
	def := &s.slots.list[index]
	if def.how == raw && def.field != nil && (!values.carriesBody(def) || !def.field.Has(values.event)) {
		return def.label + " is absent"
	}
	return def.label + " = " + s.slotText(values, index)
}

// describeLoop returns the list that a loop walks, with the number of elements for which its condition holds, and the first one.
func (s *Set) describeLoop(values *eventValues, n *node) string {
	list := values.slot(n.slot)
	out, count := s.describeSlot(values, n.slot), len(list.texts)+len(list.numbers)
	holds := countElements(n.slot, n.args[0].flagClosure(), noLimit)(values)
	if count < 2 || holds == 0 {
		return out
	}
	first, condition := "", n.args[0].flagClosure()
	countElements(n.slot, func(values *eventValues) bool {
		if !condition(values) {
			return false
		}
		if first = quoteShort(values.elementText); s.slots.list[n.slot].kind == numberList {
			first = strconv.FormatInt(values.elementNumber, 10)
		}
		return true
	}, 1)(values)
	return fmt.Sprintf("%s (the condition holds for %d of %d, first for %s)", out, holds, count, first)
}

// slotText returns the value of a slot as an author would write it, shortened.
func (s *Set) slotText(values *eventValues, index int) string {
	value, def := values.slot(index), &s.slots.list[index]
	var parts []string
	switch def.kind {
	case text:
		return quoteShort(value.text)
	case number:
		if def.how == raw && def.field != nil && def.field.Time != nil && value.number != 0 {
			return strconv.Quote(time.Unix(0, value.number).UTC().Format(time.RFC3339Nano))
		}
		return strconv.FormatInt(value.number, 10)
	case decimal:
		return strconv.FormatFloat(value.decimal, 'g', 4, 64)
	case flag:
		return strconv.FormatBool(value.flag)
	case address:
		return addressText(value.address)
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
