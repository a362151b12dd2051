package rules

import (
	"maps"
	"slices"
	"strings"
)

// The bounds of an expression.
const (
	maxExpression = 16 << 10 // bytes
	maxNodes      = 2000     // of its tree, macros expanded
	maxList       = 10000    // entries of one list
	maxRegex      = 1000     // bytes
	maxRegexCode  = 5000     // instructions that it compiles to
	maxMacroDepth = 8
)

// functions lists the functions that an expression may call. The time of each is at most linear in its text.
var functions = []string{
	"all", "any", "asn", "base64", "cidr", "count", "entropy", "feed", "geo", "glob", "has", "hour", "json", "label", "len", "levenshtein", "lookups", "lower",
	"model", "none", "number", "one", "registered_domain", "sql", "trim", "unescape", "user_agent", "value", "weekday",
}

// An expression is a compiled condition. It is immutable; the state of an evaluation is in eventValues.
type expression struct {
	text  string   // as written
	root  *node    // for the prefilter and explanations
	slots []int    // the slots that it reads, sorted
	holds flagFunc // evaluates it
}

// names are the lists and macros that an expression may use.
type names struct {
	lists  map[string]*list
	macros map[string]*macro
}

// clone returns a copy to which names can be added.
func (n *names) clone() *names {
	return &names{lists: maps.Clone(n.lists), macros: maps.Clone(n.macros)}
}

// A list holds constants that have a name. All are texts or all are numbers.
type list struct {
	texts   []string
	numbers []int64
}

// A macro is an expression that has a name. It is parsed and resolved again for each use.
type macro struct {
	text   string
	broken bool // it has an error, which was reported at its definition
}

// A syntaxError is an error at a position in an expression or a template.
type syntaxError struct {
	at      int // rune
	message string
}

// compileExpression parses, resolves and compiles a condition. If it has errors, compileExpression returns
// nil and all errors. If it uses a broken macro, both results are nil, since the macro's error was reported.
func compileExpression(source string, ns *names, slots *slotTable) (*expression, []syntaxError) {
	root, used, errs := resolveExpression(source, ns, slots)
	if root == nil {
		return nil, errs
	}
	if root.kind != flag {
		return nil, []syntaxError{{root.at, "must be true or false, but is " + root.kind.String()}}
	}
	return &expression{text: source, root: root, holds: root.flagClosure(), slots: used}, nil
}

// resolveExpression parses and resolves an expression of any kind, and returns the slots that it reads, sorted. root is nil if it has errors, or
// uses a broken macro.
func resolveExpression(source string, ns *names, slots *slotTable) (root *node, used []int, errs []syntaxError) {
	if strings.TrimSpace(source) == "" {
		return nil, nil, []syntaxError{{0, "expression is empty"}}
	}
	tree, err := parseExpression(source)
	if err != nil {
		return nil, nil, []syntaxError{parseError(source, err)}
	}

	// Resolve goes on after an error, so there may be several.
	resolver := &resolver{slots: slots, names: ns, used: map[int]bool{}}
	root = resolver.resolve(tree.Node)
	if len(resolver.errors) > 0 || resolver.broken {
		return nil, nil, resolver.errors
	}
	return root, slices.Sorted(maps.Keys(resolver.used)), nil // without an error every node has a kind, so that closures can be made
}
