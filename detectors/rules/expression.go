package rules

import (
	"errors"
	"net/netip"
	"reflect"
	"regexp"
	"regexp/syntax"
	"sort"
	"strings"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/checker"
	vmcompiler "github.com/expr-lang/expr/compiler"
	"github.com/expr-lang/expr/conf"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/vm"
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
var functions = []string{"all", "any", "cidr", "count", "glob", "has", "label", "len", "lower", "none", "one", "trim", "unescape"}

// An op is what a test does.
type op uint8

const (
	isIn op = iota
	contains
	startsWith
	endsWith
	matches
	inNetwork
)

// A test is a call that this package put into the tree: a comparison of one subject with constants. expr runs it as a typed
// function; the index reads here what it needs.
type test struct {
	op      op
	subject ast.Node
	texts   []string
	numbers []int
	nets    []netip.Prefix
	regex   *syntax.Regexp
	code    *regexp.Regexp
}

// A program is a compiled expression.
type program struct {
	code  *vm.Program
	slots []int    // what it reads
	tree  ast.Node // resolved: identifiers are slots; tests explains its calls
	text  string   // as it was written
}

// names are the lists and macros that an expression may use.
type names struct {
	lists  map[string]*list
	macros map[string]*macro
}

// A list is constants under a name, all texts or all numbers.
type list struct {
	texts   []string
	numbers []int
}

// A macro is an expression under a name. It is parsed again for each use, since resolving changes the tree.
type macro struct {
	text   string
	broken bool // what is wrong with it was reported where it stands
}

// A builder compiles the expressions of one set: they share the table of slots.
type builder struct {
	slots slotTable
	conf  *conf.Config
	known int // slots that conf knows
	tests map[ast.Node]*test
	calls map[ast.Node]derivation // lower(x) and unescape(x) of what is not a slot
}

func newBuilder() *builder {
	b := &builder{tests: map[ast.Node]*test{}, calls: map[ast.Node]derivation{}, known: -1}
	b.conf = conf.CreateNew()
	b.conf.MaxNodes = maxNodes
	b.conf.Optimize = false // it would undo what the index has read, and constants are folded here
	b.conf.Expect, b.conf.ExpectAny = reflect.Bool, true
	return b
}

// A syntaxError is an error at a place of an expression.
type syntaxError struct {
	at      int // rune
	message string
}

// compile turns the text of an expression into a program, or says what is wrong with it, all of it.
func (b *builder) compile(text string, ns *names) (*program, []syntaxError) {
	if strings.TrimSpace(text) == "" {
		return nil, []syntaxError{{0, "expression is empty"}}
	}
	tree, err := parser.ParseWithConfig(text, b.conf)
	if err != nil {
		return nil, []syntaxError{b.faultOf(text, err)}
	}
	s := &scope{b: b, names: ns, used: map[int]bool{}}
	tree.Node = s.resolve(tree.Node)
	if len(s.faults) > 0 || s.broken {
		return nil, s.faults
	}
	if b.known != len(b.slots.list) {
		b.conf.WithEnv(b.slots.zeros())
		b.known = len(b.slots.list)
	}
	if _, err := checker.Check(tree, b.conf); err != nil {
		return nil, []syntaxError{b.faultOf(text, err)}
	}
	code, err := vmcompiler.Compile(tree, b.conf)
	if err != nil {
		return nil, []syntaxError{{0, strings.SplitN(err.Error(), "\n", 2)[0]}}
	}
	p := &program{code: code, tree: tree.Node, text: text}
	for i := range s.used {
		p.slots = append(p.slots, i)
	}
	sort.Ints(p.slots)
	return p, nil
}

// faultOf reads the place out of an error of expr, and gives slots back the names that authors know.
func (b *builder) faultOf(text string, err error) syntaxError {
	var e *file.Error
	if !errors.As(err, &e) {
		if m := err.Error(); strings.HasPrefix(m, "expected bool, but got ") {
			return syntaxError{0, "must be true or false, but is " + strings.NewReplacer("string", "text", "int", "a number").Replace(strings.TrimPrefix(m, "expected bool, but got "))}
		}
		return syntaxError{0, err.Error()}
	}
	m := strings.NewReplacer("netip.Addr", "address (see cidr)", "string", "text", "int", "number").Replace(e.Message)
	if strings.HasPrefix(e.Message, "unexpected token") || strings.Contains(e.Message, "expected name") {
		m = e.Message
	}
	if len(m) > 300 {
		m = m[:300] + "…"
	}
	return syntaxError{min(e.From, len([]rune(text))), m}
}

// slotOf tells which slot an identifier of the resolved tree is; -1 none.
func (b *builder) slotOf(n ast.Node) int {
	if id, ok := n.(*ast.IdentifierNode); ok && len(id.Value) > 1 {
		i := 0
		for _, c := range id.Value[1:] {
			i = i*10 + int(c-'0')
		}
		if i < len(b.slots.list) && b.slots.list[i].name == id.Value {
			return i
		}
	}
	return -1
}
