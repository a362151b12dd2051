package rules

import (
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// This file finds conditions that no event fulfils, and conditions that follow from others. Both are proofs: where one is not found, nothing
// is said. The proofs look at the comparisons of one value with constants. Each takes the values that could fulfil all of them, and asks the
// closures of the comparisons, so that they mean here what they mean for an event.

// A requirement is a condition that must have a value.
type requirement struct {
	node *node
	want bool
}

// requirementsOf appends what must hold for n to have the value want. A requirement that is an or of several conditions stays one.
func requirementsOf(n *node, want bool, to []requirement) []requirement {
	switch {
	case n.op == opNot:
		return requirementsOf(n.args[0], !want, to)
	case n.op == opAnd && want, n.op == opOr && !want:
		return requirementsOf(n.args[1], want, requirementsOf(n.args[0], want, to))
	}
	return append(to, requirement{n, want})
}

// alternatives returns the conditions of which one must have the value r.want; nil if r is a single one.
func (r requirement) alternatives() []*node {
	if r.node.op == opOr && r.want || r.node.op == opAnd && !r.want {
		return r.node.args
	}
	return nil
}

// A prover looks for contradictions. It gives up when its budget is spent, which hostile rules can bring about.
type prover struct {
	slots  *slotTable
	budget int
}

// The budgets of a prover: for one rule, and for all pairs of rules of a set.
const (
	ruleBudget = 50_000
	setBudget  = 5_000_000
)

func (p *prover) spend(steps int) bool {
	p.budget -= steps
	return p.budget > 0
}

// maxAlternatives is how many requirements with alternatives are taken apart within each other.
const maxAlternatives = 3

// excludes reports whether no event fulfils all requirements.
func (p *prover) excludes(all []requirement, depth int) bool {
	if p.contradiction(all) != nil {
		return true
	}
	if depth == maxAlternatives {
		return false
	}
	for i, of := range all {
		branches := of.alternatives()
		if branches == nil {
			continue
		}
		rest := slices.Delete(slices.Clone(all), i, i+1)
		open := func(branch *node) bool {
			return !p.excludes(requirementsOf(branch, of.want, slices.Clip(rest)), depth+1)
		}
		if !slices.ContainsFunc(branches, open) {
			return true
		}
	}
	return false
}

// implies reports whether every event for which a holds is one for which b holds.
func (p *prover) implies(a, b *node) bool {
	if b.mayFail() {
		return false
	}
	have := requirementsOf(a, true, nil)
	for _, needed := range requirementsOf(b, true, nil) {
		if !p.excludes(requirementsOf(needed.node, !needed.want, slices.Clip(have)), 0) {
			return false
		}
	}
	return true
}

// contradiction returns a few of the requirements that no event fulfils together, nil if none are found. Alternatives are not taken apart.
func (p *prover) contradiction(all []requirement) []requirement {
	if !p.spend(len(all)) {
		return nil
	}
	bySubject := map[string][]requirement{}
	for i, of := range all {
		for _, other := range all[:i] {
			if of.want != other.want && p.spend(1) && equalNodes(of.node, other.node) {
				return []requirement{other, of}
			}
		}
		if subject := comparedSubject(of.node); subject != nil {
			if key, ok := subjectKey(subject); ok {
				bySubject[key] = append(bySubject[key], of)
			}
		}
	}
	for _, of := range all { // in their order, so that the result is the same each time
		subject := comparedSubject(of.node)
		if subject == nil {
			continue
		}
		key, _ := subjectKey(subject)
		group := bySubject[key]
		delete(bySubject, key)
		if len(group) == 0 || !p.isExcluded(subject, group) {
			continue
		}
		for i := 0; i < len(group); { // leave out what is not needed
			if fewer := slices.Delete(slices.Clone(group), i, i+1); len(fewer) > 0 && p.isExcluded(subject, fewer) {
				group = fewer
			} else {
				i++
			}
		}
		return group
	}
	return nil
}

// comparedSubject returns the value that n compares with constants, nil if n is no such comparison.
func comparedSubject(n *node) *node {
	switch n.op {
	case opEqual, opNotEqual, opLess, opLessEqual, opGreater, opGreaterEqual:
		if n.args[1].op == opConstant {
			return n.args[0]
		}
	case opIn, opContainsAny, opStartsWithAny, opEndsWithAny, opMatches, opInNetwork:
		return n.args[0]
	}
	return nil
}

// subjectKey returns a text that is the same for the same values. ok is false for values that are computed from constants or from several
// fields.
func subjectKey(n *node) (key string, ok bool) {
	switch n.op {
	case opSlot:
		return strconv.Itoa(n.slot), true
	case opElement:
		return "#", true
	case opLower, opUnescape, opLookups, opSQL, opTrim, opLength:
		key, ok = subjectKey(n.args[0])
		return operators[n.op] + "(" + key + ")", ok
	case opFunction:
		key, ok = subjectKey(n.args[0])
		return n.function.label(key), ok
	}
	return "", false
}

// isExcluded reports whether no value of subject fulfils all comparisons with it.
func (p *prover) isExcluded(subject *node, group []requirement) bool {
	for _, of := range group {
		if !p.spend(1 + len(of.node.texts) + len(of.node.numbers) + len(of.node.networks)) {
			return false
		}
	}
	switch subject.kind {
	case text:
		return p.noText(group)
	case number:
		return p.noNumber(subject, group)
	case address:
		return noAddress(group)
	}
	return false
}

// A testedValue is a comparison whose subject is the element of the values that it is given.
type testedValue struct {
	holds flagFunc
	want  bool
	cost  int
}

// testsOf returns the comparisons of a group as functions of a value.
func testsOf(group []requirement, element *node) (tests []testedValue) {
	for _, of := range group {
		n := *of.node
		n.args = slices.Clone(n.args)
		n.args[0] = element
		tests = append(tests, testedValue{n.flagClosure(), of.want, 1 + len(n.texts) + len(n.numbers)})
	}
	return tests
}

// fulfilsAll reports whether a value passes all tests. It also does if the budget is spent.
func (p *prover) fulfilsAll(values *eventValues, tests []testedValue) bool {
	for _, test := range tests {
		if !p.spend(test.cost + len(values.elementText)/8) {
			return true
		}
		if test.holds(values) != test.want {
			return false
		}
	}
	return true
}

// noText reports whether no text fulfils all comparisons: each text that one of them allows is excluded by another one, or their parts
// exclude each other.
func (p *prover) noText(group []requirement) bool {
	var allowed []string
	isFinite := false
	for _, of := range group {
		constants, finite := allowedTexts(of)
		if finite && (!isFinite || len(constants) < len(allowed)) {
			allowed, isFinite = constants, true
		}
	}
	if isFinite {
		tests := testsOf(group, &node{op: opElement, kind: text})
		return !slices.ContainsFunc(allowed, func(value string) bool { return p.fulfilsAll(&eventValues{elementText: value}, tests) })
	}
	for i, of := range group {
		for _, other := range group[i+1:] {
			if !p.spend(1 + len(of.node.texts)*len(other.node.texts)) {
				return false
			}
			if partsExclude(of, other) || partsExclude(other, of) {
				return true
			}
		}
	}
	return false
}

// allowedTexts returns the texts that a comparison allows, if they are finitely many.
func allowedTexts(of requirement) (texts []string, finite bool) {
	n := of.node
	switch {
	case n.op == opEqual && of.want, n.op == opNotEqual && !of.want:
		return []string{n.args[1].text}, true
	case n.op == opIn && of.want:
		return n.texts, true
	}
	return nil, false
}

// partsExclude reports whether no text fulfils two comparisons with parts: two beginnings or ends of which neither continues the other, or a
// part that must be there and holds one that must not.
func partsExclude(of, other requirement) bool {
	if !of.want {
		return false
	}
	never := func(relation func(part, otherPart string) bool) bool {
		for _, part := range of.node.texts {
			if !slices.ContainsFunc(other.node.texts, func(otherPart string) bool { return relation(part, otherPart) }) {
				return false
			}
		}
		return len(of.node.texts) > 0
	}
	allExclude := func(may func(part, otherPart string) bool) bool { // no pair may stand together
		for _, part := range of.node.texts {
			if slices.ContainsFunc(other.node.texts, func(otherPart string) bool { return may(part, otherPart) || may(otherPart, part) }) {
				return false
			}
		}
		return len(of.node.texts) > 0 && len(other.node.texts) > 0
	}
	isPart := of.node.op == opContainsAny || of.node.op == opStartsWithAny || of.node.op == opEndsWithAny
	switch {
	case other.want && of.node.op == opStartsWithAny && other.node.op == opStartsWithAny:
		return allExclude(strings.HasPrefix)
	case other.want && of.node.op == opEndsWithAny && other.node.op == opEndsWithAny:
		return allExclude(strings.HasSuffix)
	case other.want || !isPart:
		return false
	case other.node.op == opContainsAny:
		return never(strings.Contains)
	case other.node.op == opStartsWithAny && of.node.op == opStartsWithAny:
		return never(strings.HasPrefix)
	case other.node.op == opEndsWithAny && of.node.op == opEndsWithAny:
		return never(strings.HasSuffix)
	}
	return false
}

// noNumber reports whether no whole number that subject can be fulfils all comparisons. Between two neighbouring constants each number fulfils
// the same ones, so the numbers at the constants and beside them are enough.
func (p *prover) noNumber(subject *node, group []requirement) bool {
	low, high := p.rangeOf(subject)
	candidates := []int64{low, high}
	add := func(value int64) {
		for _, candidate := range []int64{value, value - 1, value + 1} {
			if candidate >= low && candidate <= high { // of the ends of int64, value-1 or value+1 is the other end, which does no harm
				candidates = append(candidates, candidate)
			}
		}
	}
	for _, of := range group {
		switch n := of.node; {
		case n.op == opIn:
			for _, value := range n.numbers {
				add(value)
			}
		case n.args[1].kind == number:
			add(n.args[1].number)
		default:
			value := n.args[1].decimal
			if math.Abs(value) > 1<<52 { // numbers of this size and decimal ones are compared by what is left of their digits
				return false
			}
			add(int64(math.Floor(value)))
		}
	}
	tests := testsOf(group, &node{op: opElement, kind: number})
	return !slices.ContainsFunc(candidates, func(value int64) bool { return p.fulfilsAll(&eventValues{elementNumber: value}, tests) })
}

// rangeOf returns the least and the greatest value of a number, by the column of its field.
func (p *prover) rangeOf(n *node) (low, high int64) {
	if n.op == opLength {
		return 0, math.MaxInt64
	}
	if n.op == opSlot {
		switch slot := p.slots.list[n.slot]; {
		case slot.how == length:
			return 0, math.MaxInt64
		case slot.how == raw && slot.field.Num != nil && slot.field.Column.Type == "UInt16":
			return 0, math.MaxUint16
		case slot.how == raw && slot.field.Num != nil && strings.HasPrefix(slot.field.Column.Type, "UInt"):
			return 0, math.MaxInt64
		}
	}
	return math.MinInt64, math.MaxInt64
}

// noAddress reports whether no address is in all networks: two comparisons have no address in common, or one has none that another one leaves.
// An absent address is in no network.
func noAddress(group []requirement) bool {
	for _, of := range group {
		for _, other := range group {
			if !of.want || of.node.op != opInNetwork || other.node.op != opInNetwork || len(of.node.networks)*len(other.node.networks) > 10_000 {
				continue
			}
			meets := func(network netip.Prefix) bool {
				return slices.ContainsFunc(other.node.networks, func(otherNetwork netip.Prefix) bool {
					if other.want {
						return network.Overlaps(otherNetwork)
					}
					return otherNetwork.Bits() <= network.Bits() && otherNetwork.Contains(network.Addr())
				})
			}
			leaves := func(network netip.Prefix) bool { return !meets(network) }
			if other.want && !slices.ContainsFunc(of.node.networks, meets) || !other.want && !slices.ContainsFunc(of.node.networks, leaves) {
				return true
			}
		}
	}
	return false
}

// equalNodes reports whether two conditions are the same.
func equalNodes(a, b *node) bool {
	if a.op != b.op || a.kind != b.kind || a.slot != b.slot || a.text != b.text || a.number != b.number || a.decimal != b.decimal || a.flag != b.flag ||
		a.pattern != b.pattern || len(a.args) != len(b.args) || !slices.Equal(a.texts, b.texts) || !slices.Equal(a.numbers, b.numbers) ||
		!slices.Equal(a.networks, b.networks) || (a.function == nil) != (b.function == nil) ||
		a.function != nil && (a.function.name != b.function.name || a.function.argument != b.function.argument) {
		return false
	}
	for i := range a.args {
		if !equalNodes(a.args[i], b.args[i]) {
			return false
		}
	}
	return true
}

// lintContradictions returns a lint for each part of a condition that can never be true, and for each or that is always true.
func (t *slotTable) lintContradictions(root *node) (never, always []string) {
	p := &prover{slots: t, budget: ruleBudget}
	describe := func(of []requirement) string {
		var parts []string
		for _, requirement := range of {
			text := t.render(requirement.node)
			if op := requirement.node.op; op >= opEqual && op <= opGreaterEqual {
				text = text[1 : len(text)-1] // the brackets
			}
			if !requirement.want {
				text = "not (" + text + ")"
			}
			parts = append(parts, text)
		}
		return strings.Join(parts, " and ")
	}

	// 1. Parts that exclude each other, with those around them.
	var search func(n *node, want bool, outer []requirement, what string)
	search = func(n *node, want bool, outer []requirement, what string) {
		all := requirementsOf(n, want, slices.Clip(outer))
		if found := p.contradiction(all); len(found) == 1 {
			never = append(never, describe(found)+" can never be true, and so "+what)
			return
		} else if found != nil {
			never = append(never, what+" can never be true: it needs "+describe(found)+" at once")
			return
		}
		for i, of := range all[len(outer):] {
			for _, branch := range of.alternatives() {
				search(branch, of.want, slices.Delete(slices.Clone(all), len(outer)+i, len(outer)+i+1), "a part of the condition")
			}
		}
	}
	search(root, true, nil, "the condition")

	// 2. An or of which one side always holds: x != "a" or x != "b".
	var walk func(n *node, inOr bool)
	walk = func(n *node, inOr bool) {
		if n.op == opOr && !inOr && !n.mayFail() {
			if found := p.contradiction(requirementsOf(n, false, nil)); found != nil {
				for i := range found {
					found[i].want = !found[i].want
				}
				always = append(always, "is always true: "+strings.ReplaceAll(describe(found), " and ", " or "))
			}
		}
		if isLoop := n.op == opAny || n.op == opAll || n.op == opNone || n.op == opOne || n.op == opCount; isLoop {
			search(n.args[0], true, nil, "the condition of "+operators[n.op])
		}
		for _, arg := range n.args {
			walk(arg, n.op == opOr)
		}
	}
	walk(root, false)
	return never, always
}
