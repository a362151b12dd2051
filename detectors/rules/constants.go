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

// in resolves `value in [constants]`, `value in list` and `constant in listfield`.
func (r *resolver) in(binaryNode *ast.BinaryNode) *node {
	if constants := r.constants(binaryNode.Right); constants != nil {
		return r.membership(binaryNode, r.resolve(binaryNode.Left), constants)
	}

	// The right side is a list field. Looking for one constant is no loop, so it is allowed inside a loop.
	right := r.resolve(binaryNode.Right)
	switch {
	case right.kind == invalid:
		return right
	case right.op != opSlot || !right.kind.isList():
		return r.addError(binaryNode.Right, "in takes a list of constants, the name of a list, or a list field")
	}
	left := r.resolve(binaryNode.Left)
	switch {
	case left.kind == invalid:
		return left
	case left.op != opConstant:
		return r.addError(binaryNode.Left, "only a constant can be looked for in a list field; write any(list, # == …)")
	case left.kind == text && right.kind == textList, left.kind == number && right.kind == numberList:
		return &node{op: opListContains, kind: flag, at: r.at(binaryNode), slot: right.slot, args: []*node{left}}
	}
	return r.addError(binaryNode, "%s is %s, %s is %s", r.slots.render(left), left.kind, r.slots.render(right), right.kind)
}

// membership resolves `subject in l`. If subject is an address, the list may hold networks.
func (r *resolver) membership(expr ast.Node, subject *node, l *list) *node {
	if subject.kind != address {
		return r.comparison(expr, &node{op: opIn, texts: l.texts, numbers: l.numbers}, subject)
	}
	if l.numbers != nil {
		return r.addError(expr, "an address is compared with texts that are addresses")
	}
	return r.inNetworks(expr, subject, l.texts)
}

// constants returns the constants of a literal list or of a named list. It returns nil if node is neither.
func (r *resolver) constants(node ast.Node) *list {
	if id, ok := node.(*ast.IdentifierNode); ok && pipeline.Lookup(id.Value) == nil {
		return r.names.lists[id.Value]
	}
	array, ok := node.(*ast.ArrayNode)
	if !ok {
		return nil
	}
	constants := &list{}
	for _, element := range array.Nodes {
		switch v := element.(type) {
		case *ast.StringNode:
			constants.texts = append(constants.texts, v.Value)
		case *ast.IntegerNode:
			constants.numbers = append(constants.numbers, int64(v.Value))
		case *ast.IdentifierNode:
			if literal := r.listLiteral(v); literal.kind == number {
				constants.numbers = append(constants.numbers, literal.number)
			}
		default:
			r.addError(element, "a list holds constants only")
		}
	}
	if (len(constants.texts) == 0) == (len(constants.numbers) == 0) {
		r.addError(array, "a list holds texts or numbers, at least one and not both")
		constants.numbers = nil
	}
	return constants
}

// comparison completes test, a comparison with constants, with its subject. It adds an error if subject and
// constants are of different kinds.
func (r *resolver) comparison(expr ast.Node, test, subject *node) *node {
	if subject.kind == invalid {
		return subject
	}
	want := text
	if test.numbers != nil {
		want = number
	}
	if subject.kind == address {
		name := r.slots.render(subject)
		return r.addError(expr, "%s is an address: use cidr(%s, \"172.18.0.0/16\")", name, name)
	}
	if r.slots.isTime(subject) && want == text {
		name := r.slots.render(subject)
		return r.addError(expr, `%s is a time: compare it with >= and <, as in %s >= "2026-11-27 16:20"`, name, name)
	}
	if subject.kind != want && (want != number || subject.kind != decimal) {
		hint := ""
		if want == number && r.isTextOfNumber(subject) {
			hint = fmt.Sprintf(": write number(%s)", r.slots.render(subject))
		}
		return r.addError(expr, "%s: compared with %s, but %s is %s%s",
			operators[test.op], want, r.slots.render(subject), subject.kind, hint)
	}
	test.kind, test.at, test.args = flag, r.at(expr), []*node{subject}
	return test
}

// inNetworks resolves the test whether subject, an address or a text that holds one, is in one of the
// networks that texts name.
func (r *resolver) inNetworks(expr ast.Node, subject *node, texts []string) *node {
	var networks []netip.Prefix
	for _, written := range texts {
		network, err := parseNetwork(written)
		if err != nil {
			return r.addError(expr, "%v", err)
		}
		networks = append(networks, network)
	}
	if len(networks) == 0 || subject.kind == invalid {
		return &node{kind: invalid}
	}
	if subject.kind != address && subject.kind != text {
		return r.addError(expr, "cidr takes an address, %s is %s", r.slots.render(subject), subject.kind)
	}
	return &node{op: opInNetwork, kind: flag, at: r.at(expr), args: []*node{subject}, networks: networks}
}

// parseNetwork parses a network. An address alone is a network of one.
func parseNetwork(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	network, err := netip.ParsePrefix(text)
	if err != nil {
		return network, fmt.Errorf("%q is neither an address nor a network like 10.0.0.0/8", text)
	}
	if network != network.Masked() {
		return network, fmt.Errorf("%q has bits set behind its mask, did you mean %q?", text, network.Masked())
	}
	return network, nil
}

// constantCall resolves cidr(address, "network"…) and glob(text, "pattern"…).
func (r *resolver) constantCall(callNode *ast.CallNode, name string) *node {
	if len(callNode.Arguments) < 2 {
		return r.addError(callNode, "%s takes a value and at least one constant", name)
	}

	// The other arguments are constants or names of lists, in any mixture.
	subject := r.resolve(callNode.Arguments[0])
	var texts []string
	for _, argument := range callNode.Arguments[1:] {
		if constants := r.constants(argument); constants != nil && constants.numbers == nil {
			texts = append(texts, constants.texts...)
		} else if glob, ok := argument.(*ast.StringNode); ok {
			texts = append(texts, glob.Value)
		} else {
			return r.addError(argument, "%s takes constants between quotes, or a list of them", name)
		}
	}
	if name == "cidr" {
		return r.inNetworks(callNode, subject, texts)
	}

	// All globs become one regular expression.
	patterns := make([]string, len(texts))
	for i, glob := range texts {
		patterns[i] = globRegex(glob)
	}
	return r.regex(callNode, callNode, subject, strings.Join(patterns, "|"))
}

// globRegex returns the regular expression of a glob: * is any run of bytes, ? is one character.
func globRegex(pattern string) string {
	var out strings.Builder
	out.WriteString(`(?s)\A(?:`)
	for _, char := range pattern {
		switch char {
		case '*':
			out.WriteString(".*")
		case '?':
			out.WriteString(".")
		default:
			out.WriteString(regexp.QuoteMeta(string(char)))
		}
	}
	out.WriteString(`)\z`)
	return out.String()
}

// regex resolves a match of subject with a regular expression. Errors of the pattern are reported at where.
func (r *resolver) regex(expr, where ast.Node, subject *node, pattern string) *node {
	if len(pattern) > maxRegex {
		return r.addError(where, "regular expression of %d bytes, the limit is %d", len(pattern), maxRegex)
	}
	tree, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return r.addError(where, "%s", regexProblem(err))
	}

	// The number of instructions bounds the time for each byte of text.
	code, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return r.addError(where, "%s", regexProblem(err))
	}
	if len(code.Inst) > maxRegexCode {
		return r.addError(where, "regular expression compiles to %d instructions, the limit is %d: "+
			"use fewer or smaller repetitions", len(code.Inst), maxRegexCode)
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return r.addError(where, "%s", regexProblem(err))
	}
	return r.comparison(expr, &node{op: opMatches, pattern: pattern, syntax: tree, regex: re}, subject)
}

// matcher returns a function that reports whether re matches a text. It first looks for the literals that re
// requires: that costs a fiftieth of the time per byte of Go's regular expressions, and most texts have none.
func matcher(re *regexp.Regexp, tree *syntax.Regexp) func(string) bool {
	// A search that ignores case, or for very many literals, would cost as much as the expression itself.
	literals, fold := requiredLiterals(tree, 0)
	if fold || len(literals) == 0 || len(literals) > 16 {
		return re.MatchString
	}
	has := anyOf(literals, strings.Contains)
	return func(v string) bool { return has(v) && re.MatchString(v) }
}
