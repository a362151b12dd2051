package main

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// mutant is one change of the text of a file: source[begin:end] becomes text.
type mutant struct {
	number     int // of the mutant in its test binary
	function   *function
	line       int
	executed   int    // a line that is executed whenever the mutant is, as coverage counts lines
	kind       string // negate, boundary, operator, constant, delete, return
	begin, end int    // bytes in the file
	before     string
	text       string
}

// describe returns one line for a person: place, function, kind, text before and after.
func (m *mutant) describe() string {
	return fmt.Sprintf("%s/%s:%d: %s: %s: %s → %s", m.function.pkg.path, filepath.Base(m.function.file), m.line,
		m.function.name, m.kind, oneLine(m.before), oneLine(m.text))
}

// oneLine shortens a piece of source to one line.
func oneLine(text string) string {
	const longest = 80
	text = strings.Join(strings.Fields(text), " ")
	if runes := []rune(text); len(runes) > longest {
		text = string(runes[:longest]) + "…"
	}
	if text == "" {
		return "(nothing)"
	}
	return text
}

// finder collects the mutants of one function.
type finder struct {
	function *function
	source   []byte
	files    *token.FileSet
	mutants  []*mutant
	counted  []countedRange // those inside of others behind them
}

// A countedRange is a part of the source whose lines coverage does not count themselves, but by another line: the expression
// of a case by that of its switch, and a statement with a function literal by its first, since its block ends at the literal.
// The body of a literal is counted by its own lines, which line 0 says.
type countedRange struct{ begin, end, line int }

// count adds a countedRange.
func (f *finder) count(node ast.Node, line int) {
	f.counted = append(f.counted, countedRange{f.files.Position(node.Pos()).Offset, f.files.Position(node.End()).Offset, line})
}

// findMutants returns every mutant of a function body, in source order.
func findMutants(fn *function, body *ast.BlockStmt, source []byte, files *token.FileSet) []*mutant {
	found := &finder{function: fn, source: source, files: files}
	ast.Inspect(body, found.visit)
	slices.SortStableFunc(found.mutants, func(a, b *mutant) int { return a.begin - b.begin })
	return found.mutants
}

// visit adds the mutants of a node and reports whether its children are of interest.
func (f *finder) visit(node ast.Node) bool {
	switch node := node.(type) {
	case *ast.ReturnStmt, *ast.ExprStmt, *ast.AssignStmt, *ast.DeferStmt, *ast.GoStmt, *ast.SendStmt:
		f.count(node, f.files.Position(node.Pos()).Line)
	}
	switch node := node.(type) {
	case *ast.FuncLit:
		f.count(node.Body, 0)
	case *ast.CallExpr:
		return !f.isTextOnly(node)
	case *ast.SwitchStmt:
		for _, clause := range node.Body.List {
			for _, expr := range clause.(*ast.CaseClause).List {
				f.count(expr, f.files.Position(node.Pos()).Line)
			}
		}
	case *ast.IfStmt:
		f.negate(node.Cond)
	case *ast.ForStmt:
		f.negate(node.Cond)
	case *ast.BinaryExpr:
		f.replaceOperator(node)
	case *ast.BasicLit:
		f.changeNumber(node)
	case *ast.Ident:
		f.flipBool(node)
	case *ast.ReturnStmt:
		f.dropError(node)
	case *ast.ExprStmt, *ast.IncDecStmt, *ast.SendStmt, *ast.DeferStmt:
		f.delete(node)
	case *ast.AssignStmt:
		if node.Tok != token.DEFINE {
			f.delete(node)
		}
	case *ast.BranchStmt:
		if node.Tok == token.CONTINUE || node.Tok == token.BREAK {
			f.delete(node)
		}
	}
	return true
}

// isTextOnly reports whether a call only makes a text for people: a log line, an error, a panic.
func (f *finder) isTextOnly(call *ast.CallExpr) bool {
	name := f.text(call.Fun)
	if name == "panic" || name == "errors.New" || name == "fmt.Errorf" {
		return true
	}
	dot := strings.LastIndexByte(name, '.')
	if dot < 0 {
		return false
	}
	switch name[dot+1:] {
	case "Debug", "Info", "Warn", "Error", "Log", "LogAttrs", "DebugContext", "InfoContext", "WarnContext", "ErrorContext":
		return strings.Contains(strings.ToLower(name[:dot]), "log")
	}
	return false
}

func (f *finder) negate(condition ast.Expr) {
	if condition != nil {
		f.add(condition, "negate", "!("+f.text(condition)+")")
	}
}

// swaps holds the operators that take the place of an operator, with the kind of the mutant.
var swaps = map[token.Token][]struct {
	kind string
	by   token.Token
}{
	token.LSS:  {{"boundary", token.LEQ}, {"operator", token.GEQ}},
	token.LEQ:  {{"boundary", token.LSS}, {"operator", token.GTR}},
	token.GTR:  {{"boundary", token.GEQ}, {"operator", token.LEQ}},
	token.GEQ:  {{"boundary", token.GTR}, {"operator", token.LSS}},
	token.EQL:  {{"operator", token.NEQ}},
	token.NEQ:  {{"operator", token.EQL}},
	token.LAND: {{"operator", token.LOR}},
	token.LOR:  {{"operator", token.LAND}},
	token.ADD:  {{"operator", token.SUB}},
	token.SUB:  {{"operator", token.ADD}},
	token.MUL:  {{"operator", token.QUO}},
	token.QUO:  {{"operator", token.MUL}},
	token.AND:  {{"operator", token.OR}},
	token.OR:   {{"operator", token.AND}},
	token.SHL:  {{"operator", token.SHR}},
	token.SHR:  {{"operator", token.SHL}},
}

func (f *finder) replaceOperator(binary *ast.BinaryExpr) {
	begin := f.files.Position(binary.OpPos).Offset
	for _, swap := range swaps[binary.Op] {
		f.addRange(begin, begin+len(binary.Op.String()), swap.kind, swap.by.String())
	}
}

func (f *finder) changeNumber(literal *ast.BasicLit) {
	if literal.Kind != token.INT {
		return
	}
	value, err := strconv.ParseInt(literal.Value, 0, 64)
	if err != nil {
		return
	}
	f.add(literal, "constant", strconv.FormatInt(value+1, 10))
	if value > 0 {
		f.add(literal, "constant", strconv.FormatInt(value-1, 10))
	}
}

func (f *finder) flipBool(name *ast.Ident) {
	switch name.Name {
	case "true":
		f.add(name, "constant", "false")
	case "false":
		f.add(name, "constant", "true")
	}
}

// dropError returns nil in place of an error that is returned by name.
func (f *finder) dropError(returned *ast.ReturnStmt) {
	if len(returned.Results) == 0 {
		return
	}
	last := returned.Results[len(returned.Results)-1]
	if name, ok := last.(*ast.Ident); ok && name.Name == "err" {
		f.add(last, "return", "nil")
	}
}

// delete takes a statement away. A call that only makes text for people stays.
func (f *finder) delete(statement ast.Node) {
	if expression, ok := statement.(*ast.ExprStmt); ok {
		if call, ok := expression.X.(*ast.CallExpr); ok && f.isTextOnly(call) {
			return
		}
	}
	f.add(statement, "delete", "")
}

func (f *finder) add(node ast.Node, kind, text string) {
	f.addRange(f.files.Position(node.Pos()).Offset, f.files.Position(node.End()).Offset, kind, text)
}

func (f *finder) addRange(begin, end int, kind, text string) {
	line := 1 + strings.Count(string(f.source[:begin]), "\n")
	executed := line
	for _, each := range f.counted {
		if each.begin <= begin && end <= each.end {
			executed = cmp.Or(each.line, line)
		}
	}
	f.mutants = append(f.mutants, &mutant{
		function: f.function, kind: kind, begin: begin, end: end, text: text,
		line: line, executed: executed, before: string(f.source[begin:end]),
	})
}

func (f *finder) text(node ast.Node) string {
	return string(f.source[f.files.Position(node.Pos()).Offset:f.files.Position(node.End()).Offset])
}
