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

// A module holds the measures of all files of a Go module.
type module struct {
	packages  map[string]*packageShape // by folder
	files     []file
	functions []function // longest first, once parseModule has returned
	structs   []structShape

	codeLines, commentLines, blankLines, testLines int
	bodyLines, bodyCommentLines                    int // lines of function bodies; lines of comments in them
	longLines                                      []location
	locals                                         []location // names that := declares
	exported, exportedWithDoc                      int        // exported names; those with a doc comment
}

// A packageShape describes the package of one folder.
type packageShape struct {
	name    string
	hasDoc  bool
	methods map[string]int // by type
}

// A file describes one file that is neither generated nor a test.
type file struct {
	path  string
	lines int
}

// A location is a name or a line of source and its position.
type location struct {
	text string
	at   string // file:line
}

// A function describes a function or method.
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

// A structShape describes a struct type with a name.
type structShape struct {
	name   string
	at     string
	fields int
}

// addFile measures the file at path. relative is its path in the output.
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
		m.testLines += countLines(kinds, lineCode)
		return nil
	}

	// The package: its doc comment may stand in any of its files.
	folder := filepath.Dir(relative)
	pkg := m.packages[folder]
	if pkg == nil {
		pkg = &packageShape{name: tree.Name.Name, methods: map[string]int{}}
		m.packages[folder] = pkg
	}
	pkg.hasDoc = pkg.hasDoc || tree.Doc != nil

	// The lines. A tab counts as four columns.
	m.files = append(m.files, file{relative, len(kinds)})
	m.codeLines += countLines(kinds, lineCode)
	m.commentLines += countLines(kinds, lineComment)
	m.blankLines += countLines(kinds, lineBlank)
	for i, line := range bytes.Split(source, []byte("\n")) {
		columns := utf8.RuneCount(bytes.ReplaceAll(line, []byte("\t"), []byte("    ")))
		if columns > 120 {
			m.longLines = append(m.longLines, location{string(line), fmt.Sprintf("%s:%d", relative, i+1)})
		}
	}

	// The declarations.
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

// addFunction measures a function or method of a file. comments are all comments of the file.
func (m *module) addFunction(
	set *token.FileSet, pkg *packageShape, folder string, funcDecl *ast.FuncDecl, comments []*ast.CommentGroup,
) {
	first, last := set.Position(funcDecl.Pos()), set.Position(funcDecl.End())
	measured := function{
		name:       funcDecl.Name.Name,
		owner:      folder,
		at:         fmt.Sprintf("%s:%d", first.Filename, first.Line),
		exported:   funcDecl.Name.IsExported(),
		hasDoc:     funcDecl.Doc != nil,
		lines:      last.Line - first.Line + 1,
		parameters: funcDecl.Type.Params.NumFields(),
		complexity: 1,
	}

	// The methods of an unexported type need no doc comment.
	needsDoc := measured.exported
	if funcDecl.Recv != nil {
		receiver := receiverName(funcDecl.Recv.List[0].Type)
		measured.owner += "." + receiver
		pkg.methods[receiver]++
		needsDoc = needsDoc && ast.IsExported(receiver)
	}
	if needsDoc {
		m.countDoc(measured.hasDoc)
	}

	if body := funcDecl.Body; body != nil {
		measured.complexity += branches(body)
		measured.nesting = depth(body, 0)
		m.bodyLines += max(0, set.Position(body.Rbrace).Line-set.Position(body.Lbrace).Line-1)
		m.bodyCommentLines += commentLines(set, comments, body)
		m.addLocals(set, body)
	}
	m.functions = append(m.functions, measured)
}

// addDeclaration measures the structs of a declaration and counts its exported names. Imports are left out.
func (m *module) addDeclaration(set *token.FileSet, genDecl *ast.GenDecl) {
	for _, spec := range genDecl.Specs {
		switch spec := spec.(type) {
		case *ast.TypeSpec:
			if spec.Name.IsExported() {
				m.countDoc(genDecl.Doc != nil || spec.Doc != nil)
			}
			if body, ok := spec.Type.(*ast.StructType); ok {
				position := set.Position(spec.Pos())
				at := fmt.Sprintf("%s:%d", position.Filename, position.Line)
				m.structs = append(m.structs, structShape{spec.Name.Name, at, fieldCount(body)})
			}
		case *ast.ValueSpec:
			for _, name := range spec.Names {
				if name.IsExported() {
					m.countDoc(genDecl.Doc != nil || spec.Doc != nil || spec.Comment != nil)
				}
			}
		}
	}
}

// countDoc counts an exported name and whether it has a doc comment.
func (m *module) countDoc(has bool) {
	m.exported++
	if has {
		m.exportedWithDoc++
	}
}

// addLocals collects the names that := declares in body, loops and function literals included.
func (m *module) addLocals(set *token.FileSet, body *ast.BlockStmt) {
	add := func(declared ast.Expr) {
		if name, ok := declared.(*ast.Ident); ok && name.Name != "_" {
			position := set.Position(name.Pos())
			m.locals = append(m.locals, location{name.Name, fmt.Sprintf("%s:%d", position.Filename, position.Line)})
		}
	}
	ast.Inspect(body, func(node ast.Node) bool {
		switch node := node.(type) {
		case *ast.AssignStmt:
			if node.Tok == token.DEFINE {
				for _, left := range node.Lhs {
					add(left)
				}
			}
		case *ast.RangeStmt:
			if node.Tok == token.DEFINE {
				add(node.Key)
				if node.Value != nil {
					add(node.Value)
				}
			}
		}
		return true
	})
}

// commentLines counts the lines of the comments within body.
func commentLines(set *token.FileSet, comments []*ast.CommentGroup, body *ast.BlockStmt) int {
	lines := 0
	for _, group := range comments {
		if body.Lbrace < group.Pos() && group.End() <= body.Rbrace {
			lines += set.Position(group.End()).Line - set.Position(group.Pos()).Line + 1
		}
	}
	return lines
}

// receiverName returns the name of the type of a receiver, without pointer and type parameters.
func receiverName(receiver ast.Expr) string {
	switch receiver := receiver.(type) {
	case *ast.StarExpr:
		return receiverName(receiver.X)
	case *ast.IndexExpr:
		return receiverName(receiver.X)
	case *ast.IndexListExpr:
		return receiverName(receiver.X)
	case *ast.Ident:
		return receiver.Name
	}
	return "?"
}

// fieldCount returns the number of fields of a struct. An embedded field counts as one.
func fieldCount(body *ast.StructType) int {
	fields := 0
	for _, field := range body.Fields.List {
		fields += max(1, len(field.Names))
	}
	return fields
}

// branches counts the branches of body: if, for, case, &&, ||. A default case adds none.
func branches(body ast.Node) int {
	found := 0
	ast.Inspect(body, func(node ast.Node) bool {
		switch node := node.(type) {
		case *ast.IfStmt, *ast.ForStmt, *ast.RangeStmt:
			found++
		case *ast.CaseClause:
			if node.List != nil {
				found++
			}
		case *ast.CommClause:
			if node.Comm != nil {
				found++
			}
		case *ast.BinaryExpr:
			if node.Op == token.LAND || node.Op == token.LOR {
				found++
			}
		}
		return true
	})
	return found
}

// depth returns the deepest level of if, for, switch and select within node, which is itself at level. An
// else-if is as deep as its if.
func depth(node ast.Node, level int) int {
	deepest := level
	visit := func(child ast.Node, inner int) { deepest = max(deepest, depth(child, inner)) }

	// A nested block is measured by a recursive call, so Inspect does not descend into it.
	ast.Inspect(node, func(child ast.Node) bool {
		if child == node {
			return true
		}
		switch child := child.(type) {
		case *ast.IfStmt:
			visit(child.Body, level+1)
			if child.Else != nil {
				inner := level + 1
				if _, chained := child.Else.(*ast.IfStmt); chained {
					inner = level
				}
				visit(&ast.BlockStmt{List: []ast.Stmt{child.Else}}, inner)
			}
			return false
		case *ast.ForStmt:
			visit(child.Body, level+1)
			return false
		case *ast.RangeStmt:
			visit(child.Body, level+1)
			return false
		case *ast.SwitchStmt:
			visit(child.Body, level+1)
			return false
		case *ast.TypeSwitchStmt:
			visit(child.Body, level+1)
			return false
		case *ast.SelectStmt:
			visit(child.Body, level+1)
			return false
		}
		return true
	})
	return deepest
}
