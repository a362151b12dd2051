package rules

import (
	"slices"
	"strings"

	"github.com/expr-lang/expr/parser"
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

// functions are what an expression may call. Each costs at most time linear in its text.
var functions = []string{
	"all", "any", "cidr", "count", "glob", "has", "label", "len", "lower", "none", "one", "trim", "unescape",
}

// An expression is a compiled condition. It is immutable: what changes while it runs is in eventValues.
type expression struct {
	text  string // as it was written
	root  *node
	slots []int // what it reads, sorted
	holds flagFunc
}

// names are the lists and macros that an expression may use.
type names struct {
	lists  map[string]*list
	macros map[string]*macro
}

// A list is constants under a name, all texts or all numbers.
type list struct {
	texts   []string
	numbers []int64
}

// A macro is an expression under a name. It is parsed and resolved again for each use.
type macro struct {
	text   string
	broken bool // it has an error, which was reported where it stands
}

// A syntaxError is an error at a place of an expression or of a template.
type syntaxError struct {
	at      int // rune
	message string
}

// compileExpression parses, resolves and compiles a condition, or returns everything that is wrong with it.
// Both results are nil where a macro that it uses is broken.
func compileExpression(source string, ns *names, slots *slotTable) (*expression, []syntaxError) {
	if strings.TrimSpace(source) == "" {
		return nil, []syntaxError{{0, "expression is empty"}}
	}
	tree, err := parser.Parse(source)
	if err != nil {
		return nil, []syntaxError{parseError(source, err)}
	}
	r := &resolver{slots: slots, names: ns, used: map[int]bool{}}
	root := r.resolve(tree.Node)
	if root.kind != flag && root.kind != invalid {
		r.addError(tree.Node, "must be true or false, but is %s", root.kind)
	}
	if len(r.errors) > 0 || r.broken {
		return nil, r.errors
	}
	e := &expression{text: source, root: root, holds: root.flagClosure()}
	for i := range r.used {
		e.slots = append(e.slots, i)
	}
	slices.Sort(e.slots)
	return e, nil
}
