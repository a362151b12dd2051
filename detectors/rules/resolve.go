package rules

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"
)

// A resolver turns the syntax tree of one expression into nodes. It looks up names, expands macros,
// determines the kind of every value and reports constructs that are not part of the rule language. After an
// error it continues with a node of kind invalid. Errors about invalid nodes are not reported, so every
// reported error has its own cause.
type resolver struct {
	slots  *slotTable
	names  *names
	errors []syntaxError
	used   map[int]bool // the slots that the expression reads

	nodes      int  // number of resolved nodes, macros expanded
	loops      int  // number of enclosing loops in this expression or macro: # is an element of the innermost
	outerLoops int  // number of loops around the macro that is expanded
	element    kind // kind of # inside a loop
	macroDepth int  // number of enclosing macros
	macroAt    int  // rune of the expression at which the outermost macro is used
	broken     bool // a macro that is used has an error, which was reported at its definition
}

// maxErrors is the number of errors that are reported for one expression.
const maxErrors = 20

// addError adds an error at the position of n and returns an invalid node. Inside a macro the position is
// that of the macro's use.
func (r *resolver) addError(n ast.Node, format string, args ...any) *node {
	e := syntaxError{r.at(n), fmt.Sprintf(format, args...)}
	if len(r.errors) < maxErrors && !slices.Contains(r.errors, e) {
		r.errors = append(r.errors, e)
	}
	return &node{kind: invalid}
}

// at returns the rune of the expression at which node begins. The parser's location of a name with dots is
// that of the last part, so at walks to the first one.
func (r *resolver) at(node ast.Node) int {
	if r.macroDepth > 0 {
		return r.macroAt
	}
	for {
		memberNode, ok := node.(*ast.MemberNode)
		if !ok {
			return node.Location().From
		}
		node = memberNode.Node
	}
}

// resolve returns the node of expr. It dispatches on the type of syntax node.
func (r *resolver) resolve(expr ast.Node) *node {
	// The error of an expression that is too large is reported once.
	if r.nodes++; r.nodes > maxNodes {
		if r.nodes == maxNodes+1 {
			r.addError(expr, "expression is too large: more than %d parts, macros expanded", maxNodes)
		}
		return &node{kind: invalid}
	}
	switch n := expr.(type) {
	case *ast.IntegerNode:
		return &node{op: opConstant, kind: number, at: r.at(n), number: int64(n.Value)}
	case *ast.FloatNode:
		return &node{op: opConstant, kind: decimal, at: r.at(n), decimal: n.Value}
	case *ast.StringNode:
		return &node{op: opConstant, kind: text, at: r.at(n), text: n.Value}
	case *ast.BoolNode:
		return &node{op: opConstant, kind: flag, at: r.at(n), flag: n.Value}
	case *ast.IdentifierNode:
		return r.name(n, n.Value)
	case *ast.MemberNode:
		return r.member(n)
	case *ast.UnaryNode:
		return r.unary(n)
	case *ast.BinaryNode:
		return r.binary(n)
	case *ast.PredicateNode:
		return r.resolve(n.Node)
	case *ast.PointerNode:
		if n.Name != "" {
			return r.addError(n, "#%s is not part of the rule language", n.Name)
		}
		return &node{op: opElement, kind: r.element, at: r.at(n)}
	case *ast.BuiltinNode:
		return r.builtin(n)
	case *ast.CallNode:
		return r.call(n)
	case *ast.ArrayNode:
		return r.addError(n, "a list can only stand to the right of in, ==, contains, startsWith or endsWith")
	}
	return r.addError(expr, "%s is not part of the rule language", construct(expr))
}

// construct returns a name for a construct of expr's language that the rule language does not have.
func construct(node ast.Node) string {
	switch node.(type) {
	case *ast.NilNode:
		return `nil (an absent text is "", an absent number 0; has(field) is true where the event has the field)`
	case *ast.ConditionalNode:
		return "a choice (a ? b : c)"
	case *ast.VariableDeclaratorNode:
		return "let (name the value with the key let: of the rule)"
	case *ast.SequenceNode:
		return "a sequence (;)"
	case *ast.MapNode:
		return "a map"
	case *ast.SliceNode:
		return "a slice"
	case *ast.ChainNode:
		return `?. (an absent field is "" or 0)`
	}
	return strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%T", node), "*ast."), "Node")
}

// dotted returns the name that a.b.c spells; ok is false if node is not a name with dots.
func dotted(node ast.Node) (string, bool) {
	var parts []string
	for range 10 {
		switch m := node.(type) {
		case *ast.IdentifierNode:
			parts = append(parts, m.Value)
			slices.Reverse(parts)
			return strings.Join(parts, "."), true
		case *ast.MemberNode:
			stringNode, ok := m.Property.(*ast.StringNode)
			if !ok || m.Optional {
				return "", false
			}
			parts = append(parts, stringNode.Value)
			node = m.Node
		default:
			return "", false
		}
	}
	return "", false
}

// member resolves a name with dots, which is a field.
func (r *resolver) member(memberNode *ast.MemberNode) *node {
	name, ok := dotted(memberNode)
	if !ok {
		return r.addError(memberNode, "a part of a value cannot be taken out; test a list with any(list, # == …)")
	}
	if key, ok := strings.CutPrefix(name, "container.labels."); ok {
		return r.addError(memberNode, "labels are read by label(%q)", key)
	}
	return r.name(memberNode, name)
}

// name returns the node of a field or a macro.
func (r *resolver) name(expr ast.Node, name string) *node {
	if isLiteral(name) {
		return r.literal(expr, name)
	}
	name = shown(name)
	if field := lookupField(name); field != nil {
		slot, err := r.slots.fieldSlot(field)
		if err != nil {
			return r.addError(expr, "%v", err)
		}
		return r.slotNode(expr, slot)
	}
	if macro := r.names.macros[name]; macro != nil {
		return r.expandMacro(expr, name, macro)
	}
	if r.names.lists[name] != nil {
		return r.addError(expr, "%s is a list: it can only stand to the right of in, ==, contains, startsWith or endsWith",
			name)
	}
	return r.addError(expr, "%s", unknownName(name, r.names))
}

// slotNode returns the node of slot i, and records that the expression reads the slot.
func (r *resolver) slotNode(n ast.Node, i int) *node {
	r.used[i] = true
	return &node{op: opSlot, kind: r.slots.list[i].kind, at: r.at(n), slot: i}
}

// expandMacro parses and resolves the text of a macro in place of its name.
func (r *resolver) expandMacro(expr ast.Node, name string, m *macro) *node {
	if m.broken {
		r.broken = true
		return &node{kind: invalid}
	}
	if r.macroDepth >= maxMacroDepth {
		return r.addError(expr, "macro %s: macros use each other more than %d deep, or in a circle", name, maxMacroDepth)
	}
	// The text is parsed for each use, so that every node belongs to one position of one expression.
	tree, err := parseExpression(m.text)
	if err != nil || r.nodes > maxNodes {
		r.broken = true // The error was reported, at the macro's definition or for the limit of nodes.
		return &node{kind: invalid}
	}
	if r.macroDepth == 0 {
		r.macroAt = r.at(expr)
	}

	// The macro is an expression of its own: # of an enclosing loop is unknown in it. Its loops are nevertheless
	// loops inside that loop.
	loops, outerLoops, element := r.loops, r.outerLoops, r.element
	r.macroDepth, r.loops, r.outerLoops = r.macroDepth+1, 0, outerLoops+loops
	out := r.resolve(tree.Node)
	r.macroDepth, r.loops, r.outerLoops, r.element = r.macroDepth-1, loops, outerLoops, element
	return out
}

func (r *resolver) unary(unaryNode *ast.UnaryNode) *node {
	of := r.resolve(unaryNode.Node)
	switch unaryNode.Operator {
	case "not", "!":
		return r.negation(unaryNode, of)
	case "+", "-":
		if of.kind == invalid {
			return of
		}
		if !of.kind.isNumeric() {
			return r.addError(unaryNode, "%s takes a number, %s is %s", unaryNode.Operator, r.slots.render(of), of.kind)
		}
		if unaryNode.Operator == "+" {
			return of
		}
		return &node{op: opNegate, kind: of.kind, at: r.at(unaryNode), args: []*node{of}}
	}
	return r.addError(unaryNode, "operator %s is not part of the rule language", unaryNode.Operator)
}

func (r *resolver) negation(expr ast.Node, of *node) *node {
	if of.kind == invalid {
		return of
	}
	if of.kind != flag {
		return r.addError(expr, "not takes a condition, %s is %s", r.slots.render(of), of.kind)
	}
	return &node{op: opNot, kind: flag, at: r.at(expr), args: []*node{of}}
}

// binaryOperations maps the operators whose two sides are always computed. binary resolves the others, which
// may have a list of constants on the right.
var binaryOperations = map[string]operation{
	"and": opAnd, "&&": opAnd, "or": opOr, "||": opOr,
	"+": opAdd, "-": opSubtract, "*": opMultiply, "/": opDivide, "%": opModulo,
	"<": opLess, "<=": opLessEqual, ">": opGreater, ">=": opGreaterEqual,
}

func (r *resolver) binary(binaryNode *ast.BinaryNode) *node {
	switch binaryNode.Operator {
	case "==", "!=":
		return r.equal(binaryNode)
	case "in":
		return r.in(binaryNode)
	case "contains", "startsWith", "endsWith":
		return r.textRelation(binaryNode)
	case "matches":
		subject := r.resolve(binaryNode.Left)
		pattern, ok := binaryNode.Right.(*ast.StringNode)
		if !ok {
			return r.addError(binaryNode.Right, "matches takes a regular expression between quotes")
		}
		return r.regex(binaryNode, binaryNode.Right, subject, pattern.Value)
	}
	op, ok := binaryOperations[binaryNode.Operator]
	if !ok {
		return r.addError(binaryNode, "operator %s is not part of the rule language", binaryNode.Operator)
	}
	left, right := r.resolve(binaryNode.Left), r.resolve(binaryNode.Right)
	return r.combination(binaryNode, op, left, right)
}

// combination returns the node of an operator with two computed sides, if it can combine their kinds.
func (r *resolver) combination(binaryNode *ast.BinaryNode, op operation, left, right *node) *node {
	if left.kind == invalid || right.kind == invalid {
		return &node{kind: invalid}
	}
	left, right, ok := r.compareTime(binaryNode, op, left, right)
	if !ok {
		return &node{kind: invalid}
	}

	// fits reports whether op can combine the kinds. The result is a flag unless a case sets another kind.
	out := &node{op: op, kind: flag, at: r.at(binaryNode), args: []*node{left, right}}
	numeric := left.kind.isNumeric() && right.kind.isNumeric()
	texts := left.kind == text && right.kind == text
	fits := false
	switch op {
	case opAnd, opOr:
		fits = left.kind == flag && right.kind == flag
	case opEqual, opNotEqual:
		fits = numeric || left.kind == right.kind
	case opLess, opLessEqual, opGreater, opGreaterEqual:
		fits = numeric || texts
	case opContains, opStartsWith, opEndsWith:
		fits = texts
	case opModulo:
		fits, out.kind = left.kind == number && right.kind == number, number
	case opDivide:
		fits, out.kind = numeric, decimal
	case opAdd, opSubtract, opMultiply: // A decimal number on one side makes the result one.
		fits = numeric || texts && op == opAdd
		if out.kind = left.kind; right.kind == decimal {
			out.kind = decimal
		}
	}
	if !fits {
		return r.mismatch(binaryNode, left, right)
	}
	if texts && op >= opLess && op <= opGreaterEqual {
		return r.refuseNumbersAsTexts(binaryNode, out)
	}
	return out
}

// isTextOfNumber reports whether n is a text that may be a number in a log line: a value of value or json.
func (r *resolver) isTextOfNumber(n *node) bool {
	if n.op == opFunction {
		return n.function.name == "json"
	}
	if n.op != opSlot {
		return false
	}
	slot := &r.slots.list[n.slot]
	return slot.how == keyed || slot.how == called && slot.function.name == "json"
}

// refuseNumbersAsTexts returns n, the comparison of two texts by their order, unless it compares a value of a log line with a number between
// quotes: as texts "1000" is less than "5".
func (r *resolver) refuseNumbersAsTexts(binaryNode *ast.BinaryNode, n *node) *node {
	left, right := n.args[0], n.args[1]
	isNumber := func(n *node) bool { return n.op == opConstant && !math.IsNaN(parseDecimal(n.text)) }
	switch {
	case r.isTextOfNumber(left) && isNumber(right):
		return r.addError(binaryNode, `%s compares texts by their letters, and "1000" comes before "5": write number(%s) %s %s`,
			binaryNode.Operator, r.slots.render(left), binaryNode.Operator, strings.TrimSpace(right.text))
	case r.isTextOfNumber(right) && isNumber(left):
		return r.addError(binaryNode, `%s compares texts by their letters, and "1000" comes before "5": write %s %s number(%s)`,
			binaryNode.Operator, strings.TrimSpace(left.text), binaryNode.Operator, r.slots.render(right))
	}
	return n
}

// mismatch adds the error for an operator that cannot combine the kinds of its sides.
func (r *resolver) mismatch(binaryNode *ast.BinaryNode, left, right *node) *node {
	hint := ""
	isOrder := slices.Contains([]string{"<", "<=", ">", ">=", "-", "*", "/", "%"}, binaryNode.Operator)
	switch {
	case left.kind == text && right.kind.isNumeric() && (isOrder || r.isTextOfNumber(left)):
		hint = fmt.Sprintf(": write number(%s) %s %s", r.slots.render(left), binaryNode.Operator, r.slots.render(right))
	case right.kind == text && right.op != opConstant && left.kind.isNumeric() && (isOrder || r.isTextOfNumber(right)):
		hint = fmt.Sprintf(": write %s %s number(%s)", r.slots.render(left), binaryNode.Operator, r.slots.render(right))
	case r.slots.isTime(left):
		hint = fmt.Sprintf(`: a time, compare it with >= and <, as in %s >= "2026-11-27 16:20"`, r.slots.render(left))
	case left.kind == address:
		hint = fmt.Sprintf(`: use cidr(%s, "172.18.0.0/16")`, r.slots.render(left))
	case left.kind.isNumeric() && right.op == opConstant && right.kind == text:
		hint = ": write numbers without quotes"
	case left.kind == text && right.op == opConstant && right.kind == number:
		hint = ": write texts between quotes"
	case left.kind.isList() || right.kind.isList():
		hint = ": test a list with any(list, # == …)"
	}
	return r.addError(binaryNode, "%s cannot combine %s (%s) with %s (%s)%s",
		binaryNode.Operator, r.slots.render(left), left.kind, r.slots.render(right), right.kind, hint)
}

// equal resolves == and !=. With a list on the right, == means in. An address is compared with another
// address or with a text that is an address or network.
func (r *resolver) equal(binaryNode *ast.BinaryNode) *node {
	op := opEqual
	if binaryNode.Operator == "!=" {
		op = opNotEqual
	}
	if constants := r.constants(binaryNode.Right); constants != nil {
		return r.perhapsNot(binaryNode, op, r.membership(binaryNode, r.resolve(binaryNode.Left), constants))
	}
	left, right := r.resolve(binaryNode.Left), r.resolve(binaryNode.Right)
	if right.kind == address { // The order does not matter, so an address comes left.
		left, right = right, left
	}
	switch {
	case left.kind != address || right.kind == address || right.kind == invalid:
		return r.combination(binaryNode, op, left, right)
	case right.op == opConstant && right.kind == text:
		return r.perhapsNot(binaryNode, op, r.membership(binaryNode, left, &list{texts: []string{right.text}}))
	}
	return r.addError(binaryNode.Right, "an address is compared with a text that is an address, or with another address")
}

// perhapsNot returns the negation of a node for opNotEqual, and the node itself for opEqual.
func (r *resolver) perhapsNot(n ast.Node, op operation, of *node) *node {
	if op == opNotEqual {
		return r.negation(n, of)
	}
	return of
}

// textRelation resolves contains, startsWith and endsWith. The right side is a constant, a list of constants
// or a computed text.
func (r *resolver) textRelation(binaryNode *ast.BinaryNode) *node {
	computed, withConstants := opContains, opContainsAny
	switch binaryNode.Operator {
	case "startsWith":
		computed, withConstants = opStartsWith, opStartsWithAny
	case "endsWith":
		computed, withConstants = opEndsWith, opEndsWithAny
	}
	left := r.resolve(binaryNode.Left)

	// 1. A list: the relation holds for any of its texts.
	if constants := r.constants(binaryNode.Right); constants != nil {
		if constants.numbers != nil {
			return r.addError(binaryNode.Right, "%s takes texts, this list has numbers", binaryNode.Operator)
		}
		return r.comparison(binaryNode, &node{op: withConstants, texts: constants.texts}, left)
	}

	// 2. A constant is treated as a list of one, so that the prefilter has one form to handle.
	right := r.resolve(binaryNode.Right)
	if left.kind == text && right.kind == text && right.op == opConstant {
		return r.comparison(binaryNode, &node{op: withConstants, texts: []string{right.text}}, left)
	}
	return r.combination(binaryNode, computed, left, right)
}
