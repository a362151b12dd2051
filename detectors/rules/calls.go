package rules

import (
	"strings"
	"time"
	_ "time/tzdata" // images have no time zones

	"github.com/expr-lang/expr/ast"

	"tidegate/pipeline/config"
)

// builtin resolves the functions that are part of the syntax of expr.
func (r *resolver) builtin(builtinNode *ast.BuiltinNode) *node {
	switch builtinNode.Name {
	case "any", "all", "none", "one", "count":
		return r.loop(builtinNode)
	case "lower":
		return r.textFunction(builtinNode, builtinNode.Name, opLower, lowered, builtinNode.Arguments)
	case "trim":
		return r.textFunction(builtinNode, builtinNode.Name, opTrim, raw, builtinNode.Arguments)
	case "len":
		return r.lengthOf(builtinNode)
	}
	if hint := foreignFunctions[strings.ToLower(builtinNode.Name)]; hint != "" {
		return r.addError(builtinNode, "%s() is not part of the rule language: write %s", builtinNode.Name, hint)
	}
	return r.addError(builtinNode, "%s() is not part of the rule language%s", builtinNode.Name, config.DidYouMean(builtinNode.Name, functions))
}

// loop resolves any, all, none, one and count. A loop inside a loop is an error, because its time would be
// quadratic in the size of an event, which an attacker controls.
func (r *resolver) loop(builtinNode *ast.BuiltinNode) *node {
	if r.loops+r.outerLoops > 0 {
		return r.addError(builtinNode, "%s() inside another loop is not allowed: its time would grow with the square of the event",
			builtinNode.Name)
	}
	if len(builtinNode.Arguments) != 2 {
		return r.addError(builtinNode, "%s takes a list field and a condition on #", builtinNode.Name)
	}

	// 1. The list must be a field, because the closure walks the slot in place.
	walked := r.resolve(builtinNode.Arguments[0])
	if walked.kind == invalid {
		return walked
	}
	if walked.op != opSlot || !walked.kind.isList() {
		return r.addError(builtinNode, "%s walks a list field, such as dns.answers.data", builtinNode.Name)
	}

	// 2. Inside the condition, # is an element of the list.
	if r.element = text; walked.kind == numberList {
		r.element = number
	}
	r.loops++
	condition := r.resolve(builtinNode.Arguments[1])
	r.loops--
	if condition.kind == invalid {
		return condition
	}
	if condition.kind != flag {
		return r.addError(builtinNode.Arguments[1], "%s takes a condition on #, %s is %s",
			builtinNode.Name, r.slots.render(condition), condition.kind)
	}
	out := &node{kind: flag, at: r.at(builtinNode), slot: walked.slot, args: []*node{condition}}
	out.op = map[string]operation{"any": opAny, "all": opAll, "none": opNone, "one": opOne, "count": opCount}[builtinNode.Name]
	if out.op == opCount {
		out.kind = number
	}
	return out
}

// textFunction resolves a function from text to text. lower, unescape, lookups and sql of a slot become slots
// of their own, so that they are computed once for all rules.
func (r *resolver) textFunction(call ast.Node, name string, op operation, how derivation, args []ast.Node) *node {
	if len(args) != 1 {
		return r.addError(call, "%s takes one text", name)
	}
	of := r.resolve(args[0])
	switch {
	case of.kind == invalid:
		return of
	case of.kind != text:
		return r.addError(call, "%s takes a text, %s is %s", name, r.slots.render(of), of.kind)
	case of.op == opSlot && how != raw: // trim has no slot of its own
		return r.slotNode(call, r.slots.derivedSlot(name, how, of.slot))
	}
	return &node{op: op, kind: text, at: r.at(call), args: []*node{of}}
}

// lengthOf resolves len. len of a slot is a slot of its own.
func (r *resolver) lengthOf(builtinNode *ast.BuiltinNode) *node {
	if len(builtinNode.Arguments) != 1 {
		return r.addError(builtinNode, "len takes one text or list")
	}
	of := r.resolve(builtinNode.Arguments[0])
	switch {
	case of.kind == invalid:
		return of
	case of.kind != text && !of.kind.isList():
		return r.addError(builtinNode, "len takes a text or a list, %s is %s", r.slots.render(of), of.kind)
	case of.op == opSlot:
		return r.slotNode(builtinNode, r.slots.derivedSlot("len", length, of.slot))
	}
	return &node{op: opLength, kind: number, at: r.at(builtinNode), args: []*node{of}}
}

// call resolves the functions that expr's parser does not have.
func (r *resolver) call(callNode *ast.CallNode) *node {
	id, ok := callNode.Callee.(*ast.IdentifierNode)
	if !ok {
		return r.addError(callNode, "only the functions %s can be called", strings.Join(functions, ", "))
	}
	switch id.Value {
	case "unescape":
		return r.textFunction(callNode, id.Value, opUnescape, unescaped, callNode.Arguments)
	case "lookups":
		return r.textFunction(callNode, id.Value, opLookups, resolved, callNode.Arguments)
	case "sql":
		return r.textFunction(callNode, id.Value, opSQL, simplified, callNode.Arguments)
	case "value":
		return r.valueOfKey(callNode)
	case "base64", "entropy", "number", "registered_domain", "json", "user_agent":
		return r.functionCall(callNode, id.Value)
	case "geo", "asn":
		return r.addressCall(callNode, id.Value)
	case "levenshtein":
		return r.levenshtein(callNode)
	case "feed":
		return r.feedCall(callNode)
	case "model":
		return r.modelCall(callNode)
	case "has":
		return r.has(callNode)
	case "label":
		if len(callNode.Arguments) == 1 {
			if key, ok := callNode.Arguments[0].(*ast.StringNode); ok {
				return r.slotNode(callNode, r.slots.labelSlot(key.Value))
			}
		}
		return r.addError(callNode, "label takes the key of a container label between quotes")
	case "hour":
		return r.timeFunction(callNode, id.Value, hourOf)
	case "weekday":
		return r.timeFunction(callNode, id.Value, weekdayOf)
	case "cidr", "glob":
		return r.constantCall(callNode, id.Value)
	}
	if hint := foreignWords[strings.ToLower(id.Value)]; hint != "" {
		return r.addError(callNode, "%s is not an operator: %s", id.Value, hint)
	}
	if hint := foreignFunctions[strings.ToLower(id.Value)]; hint != "" {
		return r.addError(callNode, "unknown function %q: write %s", id.Value, hint)
	}
	return r.addError(callNode, "unknown function %q%s", id.Value, config.DidYouMean(id.Value, functions))
}

// valueOfKey resolves value(field, "key"), the value of a key in a log line that is JSON, XML or key=value.
func (r *resolver) valueOfKey(callNode *ast.CallNode) *node {
	if len(callNode.Arguments) != 2 {
		return r.addError(callNode, `value takes a field and a key: value(message, "user.name")`)
	}
	of := r.resolve(callNode.Arguments[0])
	key, ok := callNode.Arguments[1].(*ast.StringNode)
	switch {
	case of.kind == invalid:
		return of
	case of.kind != text || of.op != opSlot:
		return r.addError(callNode.Arguments[0], "value takes a field that is a text, %s is %s", r.slots.render(of), of.kind)
	case !ok || key.Value == "" || len(key.Value) > maxKeyBytes:
		return r.addError(callNode.Arguments[1], "the key of value is a text of 1 to %d bytes between quotes", maxKeyBytes)
	}
	return r.slotNode(callNode, r.slots.keyedSlot(of.slot, key.Value))
}

// timeFunction resolves hour("zone") and weekday("zone"); without an argument the zone is UTC.
func (r *resolver) timeFunction(callNode *ast.CallNode, function string, how derivation) *node {
	zone := time.UTC
	if len(callNode.Arguments) > 0 {
		name, ok := callNode.Arguments[0].(*ast.StringNode)
		if !ok || len(callNode.Arguments) > 1 || name.Value == "Local" {
			return r.addError(callNode, `%s takes a time zone between quotes: %s("Europe/Berlin")`, function, function)
		}
		var err error
		if zone, err = time.LoadLocation(name.Value); err != nil {
			return r.addError(callNode, "%s: unknown time zone %q", function, name.Value)
		}
	}
	return r.slotNode(callNode, r.slots.timeSlot(function, how, zone))
}

// has resolves has(field).
func (r *resolver) has(callNode *ast.CallNode) *node {
	name, ok := "", false
	if len(callNode.Arguments) == 1 {
		name, ok = dotted(callNode.Arguments[0])
	}
	if !ok {
		return r.addError(callNode, "has takes the name of a field")
	}
	field := lookupField(shown(name))
	if field == nil {
		return r.addError(callNode.Arguments[0], "%s", unknownName(shown(name), nil))
	}

	// Labels and ids have no value that rules can compare, but they may be present or absent.
	if _, err := fieldKind(field); err != nil && field.Labels == nil && field.Raw == nil {
		return r.addError(callNode, "%v", err)
	}
	return r.slotNode(callNode, r.slots.hasSlot(field))
}
