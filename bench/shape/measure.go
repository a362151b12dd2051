package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"
)

// A module is everything that was measured.
type module struct {
	packages  map[string]*packageShape // by folder
	files     []file
	functions []function
	structs   []structShape

	codeLines, commentLines, blankLines, testLines int
	bodyLines, bodyCommentLines                    int // lines of function bodies, and those of them that hold a comment, alone or behind code
	longLines                                      []place
	locals                                         []place // names that := declares
	exported, exportedWithDoc                      int
}

type packageShape struct {
	name    string
	hasDoc  bool
	methods map[string]int // by type
}

type file struct {
	path  string
	lines int
}

// A place is a name, or a line, and where it stands.
type place struct {
	text string
	at   string // file:line
}

type function struct {
	name       string // without the receiver
	owner      string // package folder and receiver type
	at         string
	exported   bool
	hasDoc     bool
	lines      int
	parameters int
	complexity int // cyclomatic: 1 + branches
	nesting    int // deepest block within a block
}

type structShape struct {
	name   string
	at     string
	fields int
}

// addFile measures the file at path; relative is how it is shown.
func (m *module) addFile(path, relative string) error {
	source, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	set := token.NewFileSet()
	tree, err := parser.ParseFile(set, relative, source, parser.ParseComments)
	if err != nil {
		return fmt.Errorf("parse %s: %w", relative, err)
	}
	if ast.IsGenerated(tree) || strings.HasSuffix(relative, ".pb.go") {
		return nil
	}
	kinds := classifyLines(source, set, tree)
	if strings.HasSuffix(relative, "_test.go") {
		m.testLines += count(kinds, lineCode)
		return nil
	}

	folder := filepath.Dir(relative)
	pkg := m.packages[folder]
	if pkg == nil {
		pkg = &packageShape{name: tree.Name.Name, methods: map[string]int{}}
		m.packages[folder] = pkg
	}
	pkg.hasDoc = pkg.hasDoc || tree.Doc != nil
	m.files = append(m.files, file{relative, len(kinds)})
	m.codeLines += count(kinds, lineCode)
	m.commentLines += count(kinds, lineComment)
	m.blankLines += count(kinds, lineBlank)
	for i, line := range bytes.Split(source, []byte("\n")) {
		if utf8.RuneCount(bytes.ReplaceAll(line, []byte("\t"), []byte("    "))) > 120 {
			m.longLines = append(m.longLines, place{string(line), fmt.Sprintf("%s:%d", relative, i+1)})
		}
	}
	for _, declaration := range tree.Decls {
		switch d := declaration.(type) {
		case *ast.FuncDecl:
			m.addFunction(set, pkg, folder, d, tree.Comments)
		case *ast.GenDecl:
			m.addDeclaration(set, d)
		}
	}
	return nil
}

func (m *module) addFunction(set *token.FileSet, pkg *packageShape, folder string, funcDecl *ast.FuncDecl, comments []*ast.CommentGroup) {
	first, last := set.Position(funcDecl.Pos()), set.Position(funcDecl.End())
	f := function{
		name: funcDecl.Name.Name, owner: folder, at: fmt.Sprintf("%s:%d", first.Filename, first.Line), exported: funcDecl.Name.IsExported(),
		hasDoc: funcDecl.Doc != nil, lines: last.Line - first.Line + 1, parameters: funcDecl.Type.Params.NumFields(), complexity: 1,
	}
	if funcDecl.Recv != nil {
		receiver := receiverName(funcDecl.Recv.List[0].Type)
		f.owner += "." + receiver
		pkg.methods[receiver]++
	}
	if f.exported && (funcDecl.Recv == nil || ast.IsExported(receiverName(funcDecl.Recv.List[0].Type))) {
		m.countDoc(f.hasDoc)
	}
	if funcDecl.Body != nil {
		f.complexity += branches(funcDecl.Body)
		f.nesting = depth(funcDecl.Body, 0)
		m.bodyLines += max(0, set.Position(funcDecl.Body.Rbrace).Line-set.Position(funcDecl.Body.Lbrace).Line-1)
		m.bodyCommentLines += commentLines(set, comments, funcDecl.Body)
		m.addLocals(set, funcDecl.Body)
	}
	m.functions = append(m.functions, f)
}

func (m *module) addDeclaration(set *token.FileSet, genDecl *ast.GenDecl) {
	for _, spec := range genDecl.Specs {
		switch s := spec.(type) {
		case *ast.TypeSpec:
			if s.Name.IsExported() {
				m.countDoc(genDecl.Doc != nil || s.Doc != nil)
			}
			if body, ok := s.Type.(*ast.StructType); ok {
				position := set.Position(s.Pos())
				m.structs = append(m.structs, structShape{s.Name.Name, fmt.Sprintf("%s:%d", position.Filename, position.Line), fieldCount(body)})
			}
		case *ast.ValueSpec:
			for _, name := range s.Names {
				if name.IsExported() {
					m.countDoc(genDecl.Doc != nil || s.Doc != nil || s.Comment != nil)
				}
			}
		}
	}
}

func (m *module) countDoc(has bool) {
	m.exported++
	if has {
		m.exportedWithDoc++
	}
}

// addLocals collects the names that := declares in body, loops and function literals included.
func (m *module) addLocals(set *token.FileSet, body *ast.BlockStmt) {
	add := func(e ast.Expr) {
		if name, ok := e.(*ast.Ident); ok && name.Name != "_" {
			position := set.Position(name.Pos())
			m.locals = append(m.locals, place{name.Name, fmt.Sprintf("%s:%d", position.Filename, position.Line)})
		}
	}
	ast.Inspect(body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			if n.Tok == token.DEFINE {
				for _, left := range n.Lhs {
					add(left)
				}
			}
		case *ast.RangeStmt:
			if n.Tok == token.DEFINE {
				add(n.Key)
				if n.Value != nil {
					add(n.Value)
				}
			}
		}
		return true
	})
}

// commentLines counts the lines of the comments within body.
func commentLines(set *token.FileSet, comments []*ast.CommentGroup, body *ast.BlockStmt) int {
	n := 0
	for _, group := range comments {
		if body.Lbrace < group.Pos() && group.End() <= body.Rbrace {
			n += set.Position(group.End()).Line - set.Position(group.Pos()).Line + 1
		}
	}
	return n
}

func receiverName(e ast.Expr) string {
	switch x := e.(type) {
	case *ast.StarExpr:
		return receiverName(x.X)
	case *ast.IndexExpr:
		return receiverName(x.X)
	case *ast.IndexListExpr:
		return receiverName(x.X)
	case *ast.Ident:
		return x.Name
	}
	return "?"
}

// fieldCount counts the fields of a struct and of the structs that are written inside it.
func fieldCount(body *ast.StructType) int {
	n := 0
	for _, f := range body.Fields.List {
		n += max(1, len(f.Names))
	}
	return n
}

// branches counts what adds a way through body: if, for, case, &&, ||.
func branches(body ast.Node) int {
	n := 0
	ast.Inspect(body, func(node ast.Node) bool {
		switch node := node.(type) {
		case *ast.IfStmt, *ast.ForStmt, *ast.RangeStmt:
			n++
		case *ast.CaseClause:
			if node.List != nil {
				n++
			}
		case *ast.CommClause:
			if node.Comm != nil {
				n++
			}
		case *ast.BinaryExpr:
			if node.Op == token.LAND || node.Op == token.LOR {
				n++
			}
		}
		return true
	})
	return n
}

// depth returns how deep if, for, switch and select are nested within node. An else-if is as deep as its if.
func depth(node ast.Node, level int) int {
	deepest := level
	visit := func(child ast.Node, inner int) {
		if child != nil {
			deepest = max(deepest, depth(child, inner))
		}
	}
	ast.Inspect(node, func(n ast.Node) bool {
		if n == node {
			return true
		}
		switch n := n.(type) {
		case *ast.IfStmt:
			visit(n.Body, level+1)
			if n.Else != nil {
				inner := level + 1
				if _, chained := n.Else.(*ast.IfStmt); chained {
					inner = level
				}
				visit(&ast.BlockStmt{List: []ast.Stmt{n.Else}}, inner)
			}
			return false
		case *ast.ForStmt:
			visit(n.Body, level+1)
			return false
		case *ast.RangeStmt:
			visit(n.Body, level+1)
			return false
		case *ast.SwitchStmt:
			visit(n.Body, level+1)
			return false
		case *ast.TypeSwitchStmt:
			visit(n.Body, level+1)
			return false
		case *ast.SelectStmt:
			visit(n.Body, level+1)
			return false
		}
		return true
	})
	return deepest
}
