package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// mutablePackage is a package whose functions are changed.
type mutablePackage struct {
	path      string // import path
	importers []string
	functions []*function
}

// function is a function or method with its mutants in source order.
type function struct {
	pkg    *mutablePackage
	file   string // absolute path
	source []byte // of the file
	files  *token.FileSet
	// declared is the syntax tree of the function.
	declared    *ast.FuncDecl
	packageName string
	name        string // with the receiver: (*Grouper).add
	mutants     []*mutant
}

// listedPackage holds the fields of a package in the output of `go list -json` that are used here.
type listedPackage struct {
	ImportPath   string
	Dir          string
	GoFiles      []string
	Imports      []string
	TestImports  []string
	XTestImports []string
	TestGoFiles  []string
	XTestGoFiles []string
	ForTest      string
}

// listPackages runs `go list` with the given arguments.
func listPackages(ctx context.Context, args ...string) ([]listedPackage, error) {
	cmd := exec.CommandContext(ctx, "go", append([]string{"list", "-json"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	var packages []listedPackage
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var listed listedPackage
		switch err := decoder.Decode(&listed); {
		case errors.Is(err, io.EOF):
			return packages, nil
		case err != nil:
			return nil, fmt.Errorf("go list %s: %w", strings.Join(args, " "), err)
		}
		packages = append(packages, listed)
	}
}

// loadPackages parses the packages that the patterns name and finds every mutant of theirs.
func loadPackages(ctx context.Context, patterns []string) ([]*mutablePackage, error) {
	named, err := listPackages(ctx, patterns...)
	if err != nil {
		return nil, err
	}
	module, err := listPackages(ctx, "./...")
	if err != nil {
		return nil, err
	}
	var packages []*mutablePackage
	for _, listed := range named {
		if isTestHelper(module, listed.ImportPath) {
			continue
		}
		pkg := &mutablePackage{path: listed.ImportPath, importers: testedImporters(module, listed.ImportPath)}
		for _, name := range listed.GoFiles {
			if err := pkg.parse(filepath.Join(listed.Dir, name)); err != nil {
				return nil, err
			}
		}
		packages = append(packages, pkg)
	}
	return packages, nil
}

// parse adds the functions of a file. A generated file has none.
func (p *mutablePackage) parse(path string) error {
	source, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, path, source, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	if ast.IsGenerated(file) {
		return nil
	}
	for _, declaration := range file.Decls {
		declared, ok := declaration.(*ast.FuncDecl)
		if !ok || declared.Body == nil || callsRecover(declared.Body) {
			continue
		}
		fn := &function{
			pkg: p, file: path, source: source, files: files, declared: declared, packageName: file.Name.Name,
			name: functionName(declared, source, files),
		}
		fn.mutants = findMutants(fn, declared.Body, source, files)
		if len(fn.mutants) > 0 {
			p.functions = append(p.functions, fn)
		}
	}
	return nil
}

// callsRecover reports whether a function calls recover itself, which has no effect in a copy of the function.
func callsRecover(body *ast.BlockStmt) (found bool) {
	ast.Inspect(body, func(node ast.Node) bool {
		if _, ok := node.(*ast.FuncLit); ok {
			return false
		}
		if call, ok := node.(*ast.CallExpr); ok {
			name, ok := call.Fun.(*ast.Ident)
			found = found || ok && name.Name == "recover"
		}
		return true
	})
	return found
}

func functionName(declared *ast.FuncDecl, source []byte, files *token.FileSet) string {
	if declared.Recv == nil || len(declared.Recv.List) == 0 {
		return declared.Name.Name
	}
	receiver := declared.Recv.List[0].Type
	text := source[files.Position(receiver.Pos()).Offset:files.Position(receiver.End()).Offset]
	return "(" + string(text) + ")." + declared.Name.Name
}

// testedImporters returns the packages with tests that import path, directly or through others.
func testedImporters(module []listedPackage, path string) []string {
	reached := map[string]bool{path: true}
	for grown := true; grown; {
		grown = false
		for _, listed := range module {
			if !reached[listed.ImportPath] && containsAny(listed.Imports, reached) {
				reached[listed.ImportPath] = true
				grown = true
			}
		}
	}
	var importers []string
	for _, listed := range module {
		hasTests := len(listed.TestGoFiles)+len(listed.XTestGoFiles) > 0
		imports := reached[listed.ImportPath] || containsAny(listed.TestImports, reached) || containsAny(listed.XTestImports, reached)
		if hasTests && imports && listed.ImportPath != path {
			importers = append(importers, listed.ImportPath)
		}
	}
	slices.Sort(importers)
	return importers
}

// isTestHelper reports whether only tests import a package.
func isTestHelper(module []listedPackage, path string) bool {
	byTests := false
	for _, listed := range module {
		if slices.Contains(listed.Imports, path) {
			return false
		}
		byTests = byTests || slices.Contains(listed.TestImports, path) || slices.Contains(listed.XTestImports, path)
	}
	return byTests && !slices.ContainsFunc(module, func(listed listedPackage) bool {
		return listed.ImportPath == path && len(listed.TestGoFiles)+len(listed.XTestGoFiles) > 0
	})
}

func containsAny(paths []string, set map[string]bool) bool {
	return slices.ContainsFunc(paths, func(path string) bool { return set[path] })
}
