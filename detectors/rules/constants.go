package rules

import (
	"fmt"
	"net/netip"
	"regexp"
	"regexp/syntax"
	"strings"

	"github.com/expr-lang/expr/ast"

	"tidegate/pipeline"
)

func (s *scope) in(n *ast.BinaryNode) ast.Node {
	if l := s.constants(n.Right); l != nil {
		return s.membership(n, s.resolve(n.Left), l)
	}
	right := s.resolve(n.Right)
	if i := s.b.slotOf(right); i >= 0 && (s.b.slots.list[i].kind == textList || s.b.slots.list[i].kind == numberList) {
		switch n.Left.(type) {
		case *ast.StringNode, *ast.IntegerNode: // "AA" in dns.header_flags is any(dns.header_flags, # == "AA")
			eq := &ast.BinaryNode{Operator: "==", Left: &ast.PointerNode{}, Right: n.Left}
			any := &ast.BuiltinNode{Name: "any", Arguments: []ast.Node{right, &ast.PredicateNode{Node: eq}}}
			for _, m := range []ast.Node{eq, eq.Left, any, any.Arguments[1]} {
				m.SetLocation(n.Location())
			}
			return any
		}
		return s.fail(n.Left, "only a constant can be looked for in a list field; write any(list, # == …)")
	}
	if len(s.faults) > 0 {
		return n
	}
	return s.fail(n.Right, "in takes a list of constants, the name of a list, or a list field")
}

// membership is `subject in list`.
func (s *scope) membership(n, subject ast.Node, l *list) ast.Node {
	if s.isAddress(subject) {
		if l.numbers != nil {
			return s.fail(n, "an address is compared with texts that are addresses")
		}
		nets, ok := s.networks(n, l.texts)
		if !ok {
			return n
		}
		return s.test(n, &test{op: inNetwork, subject: subject, nets: nets})
	}
	return s.test(n, &test{op: isIn, subject: subject, texts: l.texts, numbers: l.numbers})
}

// constants reads a literal list or the name of one; nil if n is neither.
func (s *scope) constants(n ast.Node) *list {
	if id, ok := n.(*ast.IdentifierNode); ok && pipeline.Lookup(id.Value) == nil {
		return s.names.lists[id.Value]
	}
	a, ok := n.(*ast.ArrayNode)
	if !ok {
		return nil
	}
	l := &list{}
	for _, e := range a.Nodes {
		switch v := e.(type) {
		case *ast.StringNode:
			l.texts = append(l.texts, v.Value)
		case *ast.IntegerNode:
			l.numbers = append(l.numbers, v.Value)
		default:
			s.fail(e, "a list holds constants only")
		}
	}
	if (len(l.texts) == 0) == (len(l.numbers) == 0) {
		s.fail(a, "a list holds texts or numbers, at least one and not both")
		l.numbers = nil
	}
	return l
}

func (s *scope) isAddress(n ast.Node) bool {
	i := s.b.slotOf(n)
	return i >= 0 && s.b.slots.list[i].kind == address
}

// networks parses addresses and CIDRs.
func (s *scope) networks(n ast.Node, texts []string) ([]netip.Prefix, bool) {
	var out []netip.Prefix
	for _, t := range texts {
		p, err := parseNetwork(t)
		if err != nil {
			s.fail(n, "%v", err)
			return nil, false
		}
		out = append(out, p)
	}
	return out, len(out) > 0
}

func parseNetwork(t string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(t); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(t)
	if err != nil {
		return p, fmt.Errorf("%q is neither an address nor a network like 10.0.0.0/8", t)
	}
	if p != p.Masked() {
		return p, fmt.Errorf("%q has bits set behind its mask: %s is meant?", t, p.Masked())
	}
	return p, nil
}

// wants reports a subject that is known to be of another kind.
func (s *scope) wants(n, subject ast.Node, operator string, k kind) bool {
	got, label := k, "#"
	switch v := subject.(type) {
	case *ast.PointerNode:
		got = s.item
	case *ast.IdentifierNode:
		if i := s.b.slotOf(v); i >= 0 {
			got, label = s.b.slots.list[i].kind, s.b.slots.list[i].label
		}
	}
	if got != k {
		s.fail(n, "%s: compared with %s, but %s is %s", operator, k, label, got)
	}
	return got == k
}

// constantCall resolves cidr(address, "network"…) and glob(text, "pattern"…).
func (s *scope) constantCall(n *ast.CallNode, name string) ast.Node {
	if len(n.Arguments) < 2 {
		return s.fail(n, "%s takes a value and at least one constant", name)
	}
	subject := s.resolve(n.Arguments[0])
	var texts []string
	for _, a := range n.Arguments[1:] {
		if l := s.constants(a); l != nil && l.numbers == nil {
			texts = append(texts, l.texts...)
		} else if t, ok := a.(*ast.StringNode); ok {
			texts = append(texts, t.Value)
		} else {
			return s.fail(a, "%s takes constants between quotes, or a list of them", name)
		}
	}
	if name == "cidr" {
		nets, ok := s.networks(n, texts)
		if !ok {
			return n
		}
		return s.test(n, &test{op: inNetwork, subject: subject, nets: nets})
	}
	patterns := make([]string, len(texts))
	for i, t := range texts {
		patterns[i] = globRegex(t)
	}
	return s.regex(n, n, subject, strings.Join(patterns, "|"))
}

// globRegex writes a glob as a regular expression: * is any run of bytes, ? is one character.
func globRegex(t string) string {
	var b strings.Builder
	b.WriteString(`(?s)\A(?:`)
	for _, r := range t {
		switch r {
		case '*':
			b.WriteString(".*")
		case '?':
			b.WriteString(".")
		default:
			b.WriteString(regexp.QuoteMeta(string(r)))
		}
	}
	b.WriteString(`)\z`)
	return b.String()
}

func (s *scope) regex(n, where, subject ast.Node, pattern string) ast.Node {
	if len(pattern) > maxRegex {
		return s.fail(where, "regular expression of %d bytes, the limit is %d", len(pattern), maxRegex)
	}
	tree, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return s.fail(where, "%v", err)
	}
	code, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return s.fail(where, "%v", err)
	}
	if len(code.Inst) > maxRegexCode {
		return s.fail(where, "regular expression compiles to %d instructions, the limit is %d: use fewer or smaller repetitions", len(code.Inst), maxRegexCode)
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return s.fail(where, "%v", err)
	}
	if !s.wants(n, subject, "matches", text) {
		return n
	}
	out := s.typed(n, prefiltered(re, tree), subject)
	s.b.tests[out] = &test{op: matches, subject: subject, regex: tree, code: re}
	return out
}

// prefiltered runs re only where a literal that it needs is in the text: looking for one is some 50 times cheaper a byte than Go's
// regular expressions, and most alternatives of a rule fail there.
func prefiltered(re *regexp.Regexp, tree *syntax.Regexp) func(string) bool {
	lits, fold := requiredLiterals(tree, 0)
	if fold || len(lits) == 0 || len(lits) > 16 {
		return re.MatchString
	}
	has := anyOf(lits, strings.Contains)
	return func(v string) bool { return has(v) && re.MatchString(v) }
}

// test puts the typed function that runs t into the tree.
func (s *scope) test(n ast.Node, t *test) ast.Node {
	want := text
	switch {
	case t.op == inNetwork && s.isAddress(t.subject):
		want = address
	case t.numbers != nil:
		want = number
	}
	if !s.wants(n, t.subject, [...]string{"in", "contains", "startsWith", "endsWith", "matches", "cidr"}[t.op], want) {
		return n
	}
	var fn any
	switch {
	case t.op == inNetwork && s.isAddress(t.subject):
		nets := t.nets
		fn = func(a any) bool { return within(nets, a.(netip.Addr)) }
	case t.op == inNetwork: // a text that should be an address, such as an element of dns.resolved_ip
		nets := t.nets
		fn = func(a string) bool {
			addr, err := netip.ParseAddr(a)
			return err == nil && within(nets, addr.Unmap())
		}
	case t.op == isIn && t.numbers != nil:
		set := make(map[int]struct{}, len(t.numbers))
		for _, v := range t.numbers {
			set[v] = struct{}{}
		}
		fn = func(v int) bool { _, ok := set[v]; return ok }
	case t.op == isIn:
		set := make(map[string]struct{}, len(t.texts))
		for _, v := range t.texts {
			set[v] = struct{}{}
		}
		fn = func(v string) bool { _, ok := set[v]; return ok }
	default:
		fn = anyOf(t.texts, map[op]func(s, part string) bool{contains: strings.Contains, startsWith: strings.HasPrefix, endsWith: strings.HasSuffix}[t.op])
	}
	out := s.typed(n, fn, t.subject)
	s.b.tests[out] = t
	return out
}

func anyOf(texts []string, holds func(s, part string) bool) func(string) bool {
	return func(v string) bool {
		for _, t := range texts {
			if holds(v, t) {
				return true
			}
		}
		return false
	}
}

func within(nets []netip.Prefix, a netip.Addr) bool {
	for _, n := range nets {
		if n.Contains(a) {
			return true
		}
	}
	return false
}

// typed calls fn, which expr's machine does without reflection and without an allocation for the signatures that it lists.
func (s *scope) typed(n ast.Node, fn any, args ...ast.Node) ast.Node {
	callee := &ast.ConstantNode{Value: fn}
	call := &ast.CallNode{Callee: callee, Arguments: args}
	callee.SetLocation(n.Location())
	call.SetLocation(n.Location())
	return call
}
