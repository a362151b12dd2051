package main

import (
	"go/ast"
	"go/scanner"
	"go/token"
	"strings"
)

// A lineKind classifies a line: code, comment or blank. A line with code and a comment is code. A greater
// kind prevails where two meet in one line.
type lineKind uint8

const (
	lineBlank lineKind = iota
	lineComment
	lineCode
)

// classifyLines returns the kind of each line of source; index 0 is line 1.
func classifyLines(source []byte, set *token.FileSet, tree *ast.File) []lineKind {
	// A line is blank until a token marks it.
	kinds := make([]lineKind, set.File(tree.Pos()).LineCount())
	mark := func(first, last int, kind lineKind) {
		for line := first; line <= last && line <= len(kinds); line++ {
			kinds[line-1] = max(kinds[line-1], kind)
		}
	}

	// Scan the source again: the syntax tree does not hold the end of every token.
	var tokens scanner.Scanner
	scanned := token.NewFileSet()
	file := scanned.AddFile("", scanned.Base(), len(source))
	tokens.Init(file, source, nil, scanner.ScanComments)
	for {
		position, kind, text := tokens.Scan()
		if kind == token.EOF {
			return kinds
		}
		if kind == token.SEMICOLON && text == "\n" {
			continue // inserted by the scanner
		}
		first := file.Line(position)
		last := first + strings.Count(text, "\n") // raw strings and comments span lines
		if kind == token.COMMENT {
			mark(first, last, lineComment)
		} else {
			mark(first, last, lineCode)
		}
	}
}

// countLines returns the number of lines of a kind.
func countLines(kinds []lineKind, kind lineKind) int {
	lines := 0
	for _, candidate := range kinds {
		if candidate == kind {
			lines++
		}
	}
	return lines
}
