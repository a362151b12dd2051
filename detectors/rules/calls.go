package rules

import (
	"strings"

	"github.com/expr-lang/expr/ast"

	"tidegate/pipeline"
	"tidegate/pipeline/config"
)

// builtin resolves the functions that expr's parser knows.
func (r *resolver) builtin(n *ast.BuiltinNode) *node {
	switch n.Name {
	case "any", "all", "none", "one", "count":
		return r.loop(n)
	case "lower":
		return r.textFunction(n, n.Name, opLower, lowered, n.Arguments)
	case "trim":
		return r.textFunction(n, n.Name, opTrim, raw, n.Arguments)
	case "len":
		return r.lengthOf(n)
	}
	return r.addError(n, "%s() is not part of the rule language%s", n.Name, config.DidYouMean(n.Name, functions))
}

// loop resolves any and its like. Only one list field is walked at a time: a loop in a loop is quadratic in
// what an attacker sends.
func (r *resolver) loop(n *ast.BuiltinNode) *node {
	if r.loops > 0 {
		return r.addError(n, "%s() inside another loop is not allowed: its time would grow with the square of the event",
			n.Name)
	}
	if len(n.Arguments) != 2 {
		return r.addError(n, "%s takes a list field and a condition on #", n.Name)
	}

	// The list must be a field: its slot is walked in place.
	walked := r.resolve(n.Arguments[0])
	if walked.kind == invalid {
		return walked
	}
	if walked.op != opSlot || !walked.kind.isList() {
		return r.addError(n, "%s walks a list field, such as dns.answers.data", n.Name)
	}

	// Within the condition # is an element.
	if r.element = text; walked.kind == numberList {
		r.element = number
	}
	r.loops++
	condition := r.resolve(n.Arguments[1])
	r.loops--
	if condition.kind == invalid {
		return condition
	}
	if condition.kind != flag {
		return r.addError(n.Arguments[1], "%s takes a condition on #, %s is %s",
			n.Name, r.slots.render(condition), condition.kind)
	}
	out := &node{kind: flag, at: r.at(n), slot: walked.slot, args: []*node{condition}}
	out.op = map[string]operation{"any": opAny, "all": opAll, "none": opNone, "one": opOne, "count": opCount}[n.Name]
	if out.op == opCount {
		out.kind = number
	}
	return out
}

// textFunction resolves a function from text to text. lower and unescape of a slot are slots of their own, so
// that they are computed once for all rules.
func (r *resolver) textFunction(n ast.Node, name string, op operation, how derivation, args []ast.Node) *node {
	if len(args) != 1 {
		return r.addError(n, "%s takes one text", name)
	}
	of := r.resolve(args[0])
	switch {
	case of.kind == invalid:
		return of
	case of.kind != text:
		return r.addError(n, "%s takes a text, %s is %s", name, r.slots.render(of), of.kind)
	case of.op == opSlot && how != raw: // trim has no slot of its own
		return r.slotNode(n, r.slots.derivedSlot(name, how, of.slot))
	}
	return &node{op: op, kind: text, at: r.at(n), args: []*node{of}}
}

func (r *resolver) lengthOf(n *ast.BuiltinNode) *node {
	if len(n.Arguments) != 1 {
		return r.addError(n, "len takes one text or list")
	}
	of := r.resolve(n.Arguments[0])
	switch {
	case of.kind == invalid:
		return of
	case of.kind != text && !of.kind.isList():
		return r.addError(n, "len takes a text or a list, %s is %s", r.slots.render(of), of.kind)
	case of.op == opSlot:
		return r.slotNode(n, r.slots.derivedSlot("len", length, of.slot))
	}
	return &node{op: opLength, kind: number, at: r.at(n), args: []*node{of}}
}

// call resolves the functions that are not expr's.
func (r *resolver) call(n *ast.CallNode) *node {
	id, ok := n.Callee.(*ast.IdentifierNode)
	if !ok {
		return r.addError(n, "only the functions %s can be called", strings.Join(functions, ", "))
	}
	switch id.Value {
	case "unescape":
		return r.textFunction(n, id.Value, opUnescape, unescaped, n.Arguments)
	case "has":
		return r.has(n)
	case "label":
		if len(n.Arguments) == 1 {
			if key, ok := n.Arguments[0].(*ast.StringNode); ok {
				return r.slotNode(n, r.slots.labelSlot(key.Value))
			}
		}
		return r.addError(n, "label takes the key of a container label between quotes")
	case "cidr", "glob":
		return r.constantCall(n, id.Value)
	}
	return r.addError(n, "unknown function %q%s", id.Value, config.DidYouMean(id.Value, functions))
}

func (r *resolver) has(n *ast.CallNode) *node {
	name, ok := "", false
	if len(n.Arguments) == 1 {
		name, ok = dotted(n.Arguments[0])
	}
	if !ok {
		return r.addError(n, "has takes the name of a field")
	}
	field := pipeline.Lookup(name)
	if field == nil {
		return r.addError(n.Arguments[0], "%s", unknownName(name, nil))
	}
	// Labels and identities have no value that rules can compare, but an event has them or not.
	if _, err := fieldKind(field); err != nil && field.Labels == nil && field.Raw == nil {
		return r.addError(n, "%v", err)
	}
	return r.slotNode(n, r.slots.hasSlot(field))
}
