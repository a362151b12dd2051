package rules

import (
	"fmt"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/parser"

	"tidegate/pipeline"
)

// A resolver turns the tree that expr's parser made of one expression into nodes: it looks names up, expands
// macros, gives every value a kind and reports what is not part of the rule language. After an error it goes
// on with a node of kind invalid, about which nothing more is reported, so one expression may have several
// errors.
type resolver struct {
	slots  *slotTable
	names  *names
	errors []syntaxError
	used   map[int]bool // the slots that the expression reads

	nodes      int  // resolved so far, macros expanded
	loops      int  // loops around, in this expression or macro
	element    kind // of #, inside a loop
	macroDepth int
	macroAt    int  // where the outermost macro stands in the expression
	broken     bool // a macro that is used has an error, which is reported where the macro is defined
}

// maxErrors is how many errors of one expression are reported.
const maxErrors = 20

// addError reports an error at the place of n; in a macro, at the place where the macro is used.
func (r *resolver) addError(n ast.Node, format string, args ...any) *node {
	e := syntaxError{r.at(n), fmt.Sprintf(format, args...)}
	if len(r.errors) < maxErrors && !slices.Contains(r.errors, e) {
		r.errors = append(r.errors, e)
	}
	return &node{kind: invalid}
}

// at returns the rune of the expression at which n begins; of a name with dots the parser notes where its
// last part begins.
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

// resolve returns the node of n.
func (r *resolver) resolve(n ast.Node) *node {
	if r.nodes++; r.nodes > maxNodes {
		if r.nodes == maxNodes+1 {
			r.addError(n, "expression is too large: more than %d parts, macros expanded", maxNodes)
		}
		return &node{kind: invalid}
	}
	switch n := n.(type) {
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
	return r.addError(n, "%s is not part of the rule language", construct(n))
}

// construct names a part of expr's language that the rule language does not have.
func construct(node ast.Node) string {
	switch node.(type) {
	case *ast.NilNode:
		return `nil (an absent text is "", an absent number 0; has(field) is true where the event has the field)`
	case *ast.ConditionalNode:
		return "a choice (a ? b : c)"
	case *ast.VariableDeclaratorNode:
		return "let (write a macro)"
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

// dotted reads a.b.c as one name.
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

func (r *resolver) member(memberNode *ast.MemberNode) *node {
	name, ok := dotted(memberNode)
	if !ok {
		return r.addError(memberNode, "a part of a value cannot be taken out; ask a list by any(list, # == …)")
	}
	if key, ok := strings.CutPrefix(name, "container.labels."); ok {
		return r.addError(memberNode, "labels are read by label(%q)", key)
	}
	return r.name(memberNode, name)
}

// name returns the node of a field or a macro.
func (r *resolver) name(n ast.Node, name string) *node {
	if field := pipeline.Lookup(name); field != nil {
		i, err := r.slots.fieldSlot(field)
		if err != nil {
			return r.addError(n, "%v", err)
		}
		return r.slotNode(n, i)
	}
	if macro := r.names.macros[name]; macro != nil {
		return r.expandMacro(n, name, macro)
	}
	if r.names.lists[name] != nil {
		return r.addError(n, "%s is a list: it can only stand to the right of in, ==, contains, startsWith or endsWith",
			name)
	}
	return r.addError(n, "%s", unknownName(name, r.names))
}

func (r *resolver) slotNode(n ast.Node, i int) *node {
	r.used[i] = true
	return &node{op: opSlot, kind: r.slots.list[i].kind, at: r.at(n), slot: i}
}

// expandMacro parses and resolves the text of a macro in place of its name.
func (r *resolver) expandMacro(n ast.Node, name string, m *macro) *node {
	if m.broken {
		r.broken = true
		return &node{kind: invalid}
	}
	if r.macroDepth >= maxMacroDepth {
		return r.addError(n, "macro %s: macros use each other more than %d deep, or in a circle", name, maxMacroDepth)
	}
	// The text is parsed for each use, so that every node belongs to one place of one expression.
	tree, err := parser.Parse(m.text)
	if err != nil || r.nodes > maxNodes {
		r.broken = true // its own error says more, or has been reported
		return &node{kind: invalid}
	}
	if r.macroDepth == 0 {
		r.macroAt = r.at(n)
	}

	// # of a loop around is not known within the macro, which was parsed without it.
	loops, element := r.loops, r.element
	r.macroDepth, r.loops = r.macroDepth+1, 0
	out := r.resolve(tree.Node)
	r.macroDepth, r.loops, r.element = r.macroDepth-1, loops, element
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

func (r *resolver) negation(n ast.Node, of *node) *node {
	if of.kind == invalid {
		return of
	}
	if of.kind != flag {
		return r.addError(n, "not takes a condition, %s is %s", r.slots.render(of), of.kind)
	}
	return &node{op: opNot, kind: flag, at: r.at(n), args: []*node{of}}
}

// binaryOperations are the operators whose two sides are computed. Those that may have constants to the right
// are resolved apart.
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

// combination checks the kinds of two computed sides.
func (r *resolver) combination(binaryNode *ast.BinaryNode, op operation, left, right *node) *node {
	if left.kind == invalid || right.kind == invalid {
		return &node{kind: invalid}
	}

	// Which kinds fit, and of which kind the result is, if it is not true or false.
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
	return out
}

// mismatch reports an operator whose sides are not of kinds that it can combine.
func (r *resolver) mismatch(binaryNode *ast.BinaryNode, left, right *node) *node {
	hint := ""
	switch {
	case left.kind == address:
		hint = fmt.Sprintf(`: use cidr(%s, "172.18.0.0/16")`, r.slots.render(left))
	case left.kind.isNumeric() && right.op == opConstant && right.kind == text:
		hint = ": write numbers without quotes"
	case left.kind == text && right.op == opConstant && right.kind == number:
		hint = ": write texts between quotes"
	case left.kind.isList() || right.kind.isList():
		hint = ": ask a list by any(list, # == …)"
	}
	return r.addError(binaryNode, "%s cannot combine %s (%s) with %s (%s)%s",
		binaryNode.Operator, r.slots.render(left), left.kind, r.slots.render(right), right.kind, hint)
}

// equal resolves == and !=. With a list to the right == is in, and an address is compared with a text that is
// one.
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

func (r *resolver) perhapsNot(n ast.Node, op operation, of *node) *node {
	if op == opNotEqual {
		return r.negation(n, of)
	}
	return of
}

// textRelation resolves contains, startsWith and endsWith, of one text, a list of texts or a computed text.
func (r *resolver) textRelation(binaryNode *ast.BinaryNode) *node {
	computed, withConstants := opContains, opContainsAny
	switch binaryNode.Operator {
	case "startsWith":
		computed, withConstants = opStartsWith, opStartsWithAny
	case "endsWith":
		computed, withConstants = opEndsWith, opEndsWithAny
	}
	left := r.resolve(binaryNode.Left)

	// Of a list: any of its texts.
	if constants := r.constants(binaryNode.Right); constants != nil {
		if constants.numbers != nil {
			return r.addError(binaryNode.Right, "%s takes texts, this list has numbers", binaryNode.Operator)
		}
		return r.comparison(binaryNode, &node{op: withConstants, texts: constants.texts}, left)
	}

	// One constant is a list of one, so that the prefilter sees one form.
	right := r.resolve(binaryNode.Right)
	if left.kind == text && right.kind == text && right.op == opConstant {
		return r.comparison(binaryNode, &node{op: withConstants, texts: []string{right.text}}, left)
	}
	return r.combination(binaryNode, computed, left, right)
}
