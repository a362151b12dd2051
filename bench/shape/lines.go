package main

import (
	"go/ast"
	"go/scanner"
	"go/token"
)

// A lineKind says whether a line is code, a comment or blank. A line with code and a comment is code.
type lineKind uint8

const (
	lineBlank lineKind = iota
	lineComment
	lineCode
)

// classifyLines returns the kind of each line of source; index 0 is line 1.
func classifyLines(source []byte, set *token.FileSet, tree *ast.File) []lineKind {
	kinds := make([]lineKind, set.File(tree.Pos()).LineCount())
	mark := func(first, last int, kind lineKind) {
		for line := first; line <= last && line <= len(kinds); line++ {
			kinds[line-1] = max(kinds[line-1], kind)
		}
	}

	var s scanner.Scanner
	own := token.NewFileSet()
	file := own.AddFile("", own.Base(), len(source))
	s.Init(file, source, nil, scanner.ScanComments)
	for {
		position, kind, text := s.Scan()
		if kind == token.EOF {
			return kinds
		}
		if kind == token.SEMICOLON && text == "\n" {
			continue // inserted by the scanner
		}
		first := file.Line(position)
		last := first
		for _, c := range text {
			if c == '\n' {
				last++
			}
		}
		if kind == token.COMMENT {
			mark(first, last, lineComment)
		} else {
			mark(first, last, lineCode)
		}
	}
}

func count(kinds []lineKind, kind lineKind) int {
	n := 0
	for _, k := range kinds {
		if k == kind {
			n++
		}
	}
	return n
}
