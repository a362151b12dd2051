package rules

import (
	"fmt"
	"math"
	"strconv"

	"github.com/expr-lang/expr/ast"

	"tidegate/pipeline"
	"tidegate/pipeline/config"
	"tidegate/pipeline/correlate"
)

// maxLet is the number of values that a rule can name.
const maxLet = 20

// A letValue is an expression that a rule has named with its key let: a value to group by, to count, to show in an alert, and a name in
// expressions. It is parsed with the file and compiled before the rule.
type letValue struct {
	name    string
	text    config.Text
	content string // of the expression with the lists and macros that it uses, for the hash of the rule
	root    *node  // nil: it has an error

	field  *pipeline.Field                       // of an expression that is a field only
	read   func(v *eventValues) (string, bool)   // the value as a text; false if the event has none
	number func(v *eventValues) (amount float64) // of a number
}

// A ruleValue is what a rule groups by or counts: a field, or a value of let.
type ruleValue struct {
	field *pipeline.Field
	let   *letValue // if field is nil
}

func (r ruleValue) name() string {
	if r.field != nil {
		return r.field.Name
	}
	return r.let.name
}

// content returns what determines the value.
func (r ruleValue) content() string {
	if r.field != nil {
		return r.field.Name
	}
	return r.let.name + " = " + r.let.content
}

// text returns the value for the current event, "" if it has none.
func (r ruleValue) text(v *eventValues) string {
	if r.field != nil {
		return r.field.Text(v.event)
	}
	value, _ := r.let.read(v)
	return value
}

// has reports whether the current event has the value.
func (r ruleValue) has(v *eventValues) bool {
	if r.field != nil {
		return r.field.Has(v.event)
	}
	_, has := r.let.read(v)
	return has
}

// number returns the value for the current event, a number, rounded to a whole one.
func (r ruleValue) number(v *eventValues) int64 {
	if r.field != nil {
		return r.field.Num(v.event)
	}
	const largest = 1 << 62 // the conversion of a larger float64 is not defined
	return int64(math.Round(min(max(r.let.number(v), -largest), largest)))
}

// parseLet sets lets to the values that the file names.
func (r *parsedRule) parseLet(node config.Node) {
	if !node.IsSet() {
		return
	}
	if !node.IsMapping() {
		node.Errorf("expected names with expressions, such as {user: 'json(message, \"$.user\")'}, got %s", node.Kind())
		return
	}
	for i, entry := range node.Entries() {
		value := entry.Value.Named(node.Key() + "." + entry.Key)
		problem := ""
		switch {
		case i == maxLet:
			node.Errorf("more than %d values", maxLet)
			return
		case !namePattern.MatchString(entry.Key):
			problem = "a name is made of a-z, 0-9 and _"
		case isReserved(entry.Key):
			problem = "is the name of a field or function already"
		}
		if problem != "" {
			r.doc.AddError(entry.Position, value.Key(), "%s", problem)
			continue
		}
		var text config.Text
		if text.DecodeNode(value); text.IsSet() && withinLimit(text, maxExpression) {
			checkComment(text)
			r.lets = append(r.lets, &letValue{name: entry.Key, text: text})
		}
	}
}

// let returns the value of a name, nil if the rule has none.
func (r *parsedRule) let(name string) *letValue {
	for _, let := range r.lets {
		if let.name == name {
			return let
		}
	}
	return nil
}

// compileLets compiles the values that a rule names, and makes their names known to its expressions.
func (c *compiler) compileLets(parsed *parsedRule) {
	if len(parsed.lets) == 0 {
		return
	}

	// Each can use the others, as macros can, so all names are defined before one is compiled.
	parsed.names = parsed.names.clone()
	for _, let := range parsed.lets {
		if parsed.names.lists[let.name] != nil || parsed.names.macros[let.name] != nil {
			let.text.Errorf("%s is the name of a list or macro already", let.name)
		}
		parsed.names.macros[let.name] = &macro{text: let.text.Value}
	}
	for _, let := range parsed.lets {
		root, used, errs := resolveExpression(let.text.Value, parsed.names, c.slots)
		if root != nil && root.kind.isList() {
			errs = append(errs, syntaxError{0, c.slots.render(root) + " is " + root.kind.String() + ": name one value"})
		}
		addErrors(let.text, errs)
		if root == nil || len(errs) > 0 {
			parsed.names.macros[let.name].broken = true
			continue
		}
		let.content = let.text.Value + ";" + dependencies(let.text.Value, parsed.names, 0)
		let.compile(root, c.slots)
		if len(used) == 0 {
			let.text.Errorf("is a constant: name a value of the event")
		}
	}
}

// compile sets the functions of a value.
func (l *letValue) compile(root *node, slots *slotTable) {
	l.root = root
	if root.op == opSlot && slots.list[root.slot].how == raw {
		l.field = slots.list[root.slot].field
	}
	read := l.reader(root, slots)
	l.read = func(v *eventValues) (value string, has bool) {
		value, has = read(v)
		if v.failed { // a number was divided by zero
			v.failed = false
			return "", false
		}
		return value, has
	}
	if root.kind.isNumeric() {
		number := root.decimalClosure()
		l.number = func(v *eventValues) float64 {
			amount := number(v)
			v.failed = false
			return amount
		}
	}
}

// reader returns the function that reads the value of a node as a text. An event lacks a text that is empty, an address that is none and a
// number that is none. It has each whole number, but for those of fields, and the system of an address that the database does not know.
func (l *letValue) reader(n *node, slots *slotTable) func(v *eventValues) (string, bool) {
	if l.field != nil {
		return func(v *eventValues) (string, bool) { return l.field.Text(v.event), l.field.Has(v.event) }
	}
	switch n.kind {
	case text:
		read := n.textClosure()
		return func(v *eventValues) (string, bool) { value := read(v); return value, value != "" }
	case number:
		read, isSystem := n.numberClosure(), n.op == opFunction && n.function.name == "asn" ||
			n.op == opSlot && slots.list[n.slot].how == called && slots.list[n.slot].function.name == "asn"
		return func(v *eventValues) (string, bool) {
			value := read(v)
			return strconv.FormatInt(value, 10), value != 0 || !isSystem
		}
	case decimal:
		read := n.decimalClosure()
		return func(v *eventValues) (string, bool) {
			value := read(v)
			if math.IsNaN(value) {
				return "", false
			}
			return strconv.FormatFloat(value, 'f', -1, 64), true
		}
	default:
		read := n.flagClosure()
		return func(v *eventValues) (string, bool) { return strconv.FormatBool(read(v)), true }
	}
}

// isExpression reports whether a name that is none is an expression, which let can name.
func isExpression(name string) bool {
	tree, err := parseExpression(name)
	if err != nil {
		return false
	}
	switch tree.Node.(type) {
	case *ast.CallNode, *ast.BuiltinNode, *ast.BinaryNode:
		return true
	}
	return false
}

// unknownValue returns the message for a name of the rule that is neither a field nor one of let.
func (r *parsedRule) unknownValue(name string) string {
	if isExpression(name) {
		return fmt.Sprintf("%s is an expression: name it, let: {name: '…'}, and write its name here", quoteShort(name))
	}
	let := &names{macros: map[string]*macro{}}
	for _, value := range r.lets {
		let.macros[value.name] = nil
	}
	return unknownName(name, let)
}

// summedLet returns the value of let that a rule adds up, or of which it has a statistic, nil if there is none.
func (r *parsedRule) summedLet() *letValue {
	switch correlation := r.correlation; correlation.compiled.Kind {
	case correlate.Sum, correlate.Average, correlate.Percentile:
		if len(correlation.values) > 0 {
			return correlation.values[0].let
		}
	}
	return nil
}
