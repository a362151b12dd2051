package rules

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/parser"

	"tidegate/pipeline"
)

// A scope resolves one expression.
type scope struct {
	b      *builder
	names  *names
	faults []syntaxError
	used   map[int]bool
	loops  int // any, all, none, one and count around
	depth  int // macros around
	nodes  int
	at     int  // where the macro stands, while one is resolved
	broken bool // a macro is: there is nothing to compile, and nothing more to say
	item   kind // of #, inside a loop
}

// maxFaults is how many errors of one expression are reported.
const maxFaults = 20

func (s *scope) fail(n ast.Node, format string, args ...any) ast.Node {
	at := n.Location().From
	if s.depth > 0 {
		at = s.at
	}
	f := syntaxError{at, fmt.Sprintf(format, args...)}
	if len(s.faults) < maxFaults && !slices.Contains(s.faults, f) {
		s.faults = append(s.faults, f)
	}
	return &ast.BoolNode{Value: true}
}

// resolve replaces names by slots, lists and macros, comparisons with constants by tests, and reports what is not part of the rule
// language.
func (s *scope) resolve(n ast.Node) ast.Node {
	if s.nodes++; s.nodes > maxNodes {
		if s.nodes == maxNodes+1 {
			s.fail(n, "expression is too large: more than %d parts, macros expanded", maxNodes)
		}
		return n
	}
	switch n := n.(type) {
	case *ast.IntegerNode, *ast.FloatNode, *ast.StringNode, *ast.BoolNode:
		return n
	case *ast.IdentifierNode:
		return s.name(n, n.Value)
	case *ast.MemberNode:
		name, ok := dotted(n)
		if !ok {
			return s.fail(n, "a part of a value cannot be taken out; ask a list by any(list, # == …)")
		}
		return s.name(n, name)
	case *ast.UnaryNode:
		n.Node = s.resolve(n.Node)
		return n
	case *ast.BinaryNode:
		return s.binary(n)
	case *ast.PredicateNode:
		n.Node = s.resolve(n.Node)
		return n
	case *ast.PointerNode:
		if n.Name != "" {
			return s.fail(n, "#%s is not part of the rule language", n.Name)
		}
		return n
	case *ast.BuiltinNode:
		return s.builtin(n)
	case *ast.CallNode:
		return s.call(n)
	case *ast.ArrayNode:
		return s.fail(n, "a list can only stand to the right of in, ==, contains, startsWith or endsWith")
	}
	return s.fail(n, "%s is not part of the rule language", construct(n))
}

func construct(n ast.Node) string {
	switch n.(type) {
	case *ast.NilNode:
		return "nil (an absent text is \"\", an absent number 0; has(field) tells)"
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
		return "?. (an absent field is \"\" or 0)"
	}
	return strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%T", n), "*ast."), "Node")
}

// dotted reads a.b.c as one name.
func dotted(n ast.Node) (string, bool) {
	var parts []string
	for range 10 {
		switch m := n.(type) {
		case *ast.IdentifierNode:
			parts = append(parts, m.Value)
			slices.Reverse(parts)
			return strings.Join(parts, "."), true
		case *ast.MemberNode:
			p, ok := m.Property.(*ast.StringNode)
			if !ok || m.Optional {
				return "", false
			}
			parts = append(parts, p.Value)
			n = m.Node
		default:
			return "", false
		}
	}
	return "", false
}

func (s *scope) name(n ast.Node, name string) ast.Node {
	if f := pipeline.Lookup(name); f != nil {
		i, err := s.b.slots.fieldSlot(f)
		if err != nil {
			return s.fail(n, "%v", err)
		}
		return s.slot(n, i)
	}
	if m := s.names.macros[name]; m != nil {
		return s.expand(n, name, m)
	}
	if s.names.lists[name] != nil {
		return s.fail(n, "%s is a list: it can only stand to the right of in, ==, contains, startsWith or endsWith", name)
	}
	known := fieldNames()
	for k := range s.names.macros {
		known = append(known, k)
	}
	slices.Sort(known)
	return s.fail(n, "unknown field %q%s", name, didYouMean(name, known))
}

func (s *scope) slot(n ast.Node, i int) ast.Node {
	s.used[i] = true
	id := &ast.IdentifierNode{Value: s.b.slots.list[i].name}
	id.SetLocation(n.Location())
	return id
}

func (s *scope) expand(n ast.Node, name string, m *macro) ast.Node {
	if m.broken {
		s.broken = true
		return &ast.BoolNode{Value: true}
	}
	if s.depth >= maxMacroDepth {
		return s.fail(n, "macro %s: macros use each other more than %d deep, or in a circle", name, maxMacroDepth)
	}
	tree, err := parser.ParseWithConfig(m.text, s.b.conf)
	if err != nil || s.nodes > maxNodes {
		s.broken = true // its own error says more, or has been said
		return &ast.BoolNode{Value: true}
	}
	if s.depth == 0 {
		s.at = n.Location().From
	}
	loops := s.loops
	s.depth, s.loops = s.depth+1, 0
	out := s.resolve(tree.Node)
	s.depth, s.loops = s.depth-1, loops
	return out
}

// binary resolves a comparison. Those with constants become tests.
func (s *scope) binary(n *ast.BinaryNode) ast.Node {
	switch n.Operator {
	case "and", "&&", "or", "||", "+", "-", "*", "/", "%", "<", "<=", ">", ">=":
		n.Left, n.Right = s.resolve(n.Left), s.resolve(n.Right)
		return n
	case "==", "!=":
		return s.equal(n)
	case "in":
		return s.in(n)
	case "contains", "startsWith", "endsWith":
		n.Left = s.resolve(n.Left)
		o := map[string]op{"contains": contains, "startsWith": startsWith, "endsWith": endsWith}[n.Operator]
		if l := s.constants(n.Right); l != nil {
			if l.numbers != nil {
				return s.fail(n.Right, "%s takes texts, this list has numbers", n.Operator)
			}
			return s.test(n, &test{op: o, subject: n.Left, texts: l.texts})
		}
		n.Right = s.resolve(n.Right)
		return n
	case "matches":
		n.Left = s.resolve(n.Left)
		pattern, ok := n.Right.(*ast.StringNode)
		if !ok {
			return s.fail(n.Right, "matches takes a regular expression between quotes")
		}
		return s.regex(n, n.Right, n.Left, pattern.Value)
	}
	return s.fail(n, "operator %s is not part of the rule language", n.Operator)
}

func (s *scope) equal(n *ast.BinaryNode) ast.Node {
	if l := s.constants(n.Right); l != nil { // == with a list is in
		in := s.membership(n, s.resolve(n.Left), l)
		if n.Operator == "!=" {
			return s.not(n, in)
		}
		return in
	}
	n.Left, n.Right = s.resolve(n.Left), s.resolve(n.Right)
	if s.isAddress(n.Right) {
		n.Left, n.Right = n.Right, n.Left
	}
	if !s.isAddress(n.Left) {
		return n
	}
	var out ast.Node
	if t, ok := n.Right.(*ast.StringNode); ok {
		out = s.membership(n, n.Left, &list{texts: []string{t.Value}})
	} else if s.isAddress(n.Right) {
		out = s.typed(n, func(a, b any) bool { return a.(netip.Addr) == b.(netip.Addr) }, n.Left, n.Right)
	} else {
		return s.fail(n.Right, "an address is compared with a text that is an address, or with another address")
	}
	if n.Operator == "!=" {
		return s.not(n, out)
	}
	return out
}

func (s *scope) not(n, of ast.Node) ast.Node {
	u := &ast.UnaryNode{Operator: "not", Node: of}
	u.SetLocation(n.Location())
	return u
}

// builtin resolves what expr knows by itself.
func (s *scope) builtin(n *ast.BuiltinNode) ast.Node {
	switch n.Name {
	case "any", "all", "none", "one", "count":
		return s.loop(n)
	case "lower":
		return s.derive(n, n.Name, lowered, lowerASCII, n.Arguments)
	case "len":
		return s.length(n)
	case "trim":
		if len(n.Arguments) != 1 {
			return s.fail(n, "trim takes one text")
		}
		n.Arguments[0] = s.resolve(n.Arguments[0])
		return n
	}
	return s.fail(n, "%s() is not part of the rule language%s", n.Name, didYouMean(n.Name, functions))
}

// loop resolves any and its like. Only one list field is walked at a time: a loop in a loop is quadratic in what an attacker sends.
func (s *scope) loop(n *ast.BuiltinNode) ast.Node {
	if s.loops > 0 {
		return s.fail(n, "%s() inside another loop is not allowed: its time would grow with the square of the event", n.Name)
	}
	if len(n.Arguments) != 2 {
		return s.fail(n, "%s takes a list field and a condition on #", n.Name)
	}
	n.Arguments[0] = s.resolve(n.Arguments[0])
	if i := s.b.slotOf(n.Arguments[0]); i < 0 || s.b.slots.list[i].kind != textList && s.b.slots.list[i].kind != numberList {
		if len(s.faults) > 0 {
			return n
		}
		return s.fail(n, "%s walks a list field, such as dns.answers.data", n.Name)
	}
	s.item = text
	if s.b.slots.list[s.b.slotOf(n.Arguments[0])].kind == numberList {
		s.item = number
	}
	s.loops++
	n.Arguments[1] = s.resolve(n.Arguments[1])
	s.loops--
	return n
}

// derive is lower and unescape: a slot of its own where the argument is one, else a call.
func (s *scope) derive(n ast.Node, name string, how derivation, fn func(string) string, args []ast.Node) ast.Node {
	if len(args) != 1 {
		return s.fail(n, "%s takes one text", name)
	}
	arg := s.resolve(args[0])
	if i := s.b.slotOf(arg); i >= 0 {
		if k := s.b.slots.list[i].kind; k != text {
			return s.fail(n, "%s takes a text, %s is %s", name, s.b.slots.list[i].label, k)
		}
		return s.slot(n, s.b.slots.derivedSlot(name, how, i))
	}
	call := s.typed(n, fn, arg)
	s.b.calls[call] = how
	return call
}

func (s *scope) length(n *ast.BuiltinNode) ast.Node {
	if len(n.Arguments) != 1 {
		return s.fail(n, "len takes one text or list")
	}
	arg := s.resolve(n.Arguments[0])
	if i := s.b.slotOf(arg); i >= 0 {
		if k := s.b.slots.list[i].kind; k != text && k != textList && k != numberList {
			return s.fail(n, "len takes a text or a list, %s is %s", s.b.slots.list[i].label, k)
		}
		return s.slot(n, s.b.slots.derivedSlot("len", length, i))
	}
	return s.typed(n, func(t string) int { return len(t) }, arg)
}

// call resolves the functions that are ours.
func (s *scope) call(n *ast.CallNode) ast.Node {
	id, ok := n.Callee.(*ast.IdentifierNode)
	if !ok {
		return s.fail(n, "only the functions %s can be called", strings.Join(functions, ", "))
	}
	switch id.Value {
	case "unescape":
		return s.derive(n, id.Value, unescaped, unescape, n.Arguments)
	case "has":
		name, ok := "", false
		if len(n.Arguments) == 1 {
			name, ok = dotted(n.Arguments[0])
		}
		if !ok {
			return s.fail(n, "has takes the name of a field")
		}
		f := pipeline.Lookup(name)
		if f == nil {
			return s.fail(n.Arguments[0], "unknown field %q%s", name, didYouMean(name, fieldNames()))
		}
		if _, err := fieldKind(f); err != nil && f.Labels == nil && f.Raw == nil {
			return s.fail(n, "%v", err)
		}
		return s.slot(n, s.b.slots.hasSlot(f))
	case "label":
		if len(n.Arguments) == 1 {
			if key, ok := n.Arguments[0].(*ast.StringNode); ok {
				return s.slot(n, s.b.slots.labelSlot(key.Value))
			}
		}
		return s.fail(n, "label takes the key of a container label between quotes")
	case "cidr", "glob":
		return s.constantCall(n, id.Value)
	}
	return s.fail(n, "unknown function %q%s", id.Value, didYouMean(id.Value, functions))
}
