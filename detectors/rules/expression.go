package rules

import (
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
	"all", "any", "asn", "base64", "cidr", "count", "entropy", "geo", "glob", "has", "hour", "json", "label", "len", "levenshtein", "lookups", "lower",
	"none", "number", "one", "registered_domain", "sql", "trim", "unescape", "user_agent", "value", "weekday",
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
	if strings.TrimSpace(source) == "" {
		return nil, []syntaxError{{0, "expression is empty"}}
	}
	tree, err := parseExpression(source)
	if err != nil {
		return nil, []syntaxError{parseError(source, err)}
	}

	// Resolve goes on after an error, so there may be several.
	resolver := &resolver{slots: slots, names: ns, used: map[int]bool{}}
	root := resolver.resolve(tree.Node)
	if root.kind != flag && root.kind != invalid {
		resolver.addError(tree.Node, "must be true or false, but is %s", root.kind)
	}
	if len(resolver.errors) > 0 || resolver.broken {
		return nil, resolver.errors
	}

	// Without an error every node has a kind, so the closures can be made.
	compiled := &expression{text: source, root: root, holds: root.flagClosure()}
	for i := range resolver.used {
		compiled.slots = append(compiled.slots, i)
	}
	slices.Sort(compiled.slots)
	return compiled, nil
}
