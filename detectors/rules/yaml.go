package rules

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// The bounds of a rule file. goccy's parser takes quadratic time for nesting (20,000 levels: 7 s), so depth is checked on its
// tokens, which it finds in linear time.
const (
	maxFileBytes = 4 << 20
	maxDepth     = 32
	maxColumn    = 16 << 10
)

// A document is one YAML file on its way to become rules. It is walked by hand, not unmarshalled, because every error is to be
// reported with its place, not only the first.
type document struct {
	file string
	data []byte
	errs *problems
}

// place is a position in the file, from 1.
type place struct{ line, column int }

func (d *document) fail(at place, key, format string, args ...any) {
	d.errs.add(&Error{File: d.file, Line: at.line, Column: at.column, Key: key, Message: fmt.Sprintf(format, args...)})
}

func placeOf(n ast.Node) place {
	if n == nil {
		return place{1, 1}
	}
	// goccy's token of a mapping or of a pair is the colon; people look for the key.
	switch m := n.(type) {
	case *ast.MappingNode:
		if !m.IsFlowStyle && len(m.Values) > 0 {
			return placeOf(m.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return placeOf(m.Key)
	}
	t := n.GetToken()
	if t == nil || t.Position == nil {
		return place{1, 1}
	}
	return place{t.Position.Line, t.Position.Column}
}

// parse gives the root node; nil where there is none (an error was added, or the file is empty).
func (d *document) parse() (root ast.Node) {
	if len(d.data) > maxFileBytes {
		d.fail(place{}, "", "file has %d bytes, the limit is %d", len(d.data), maxFileBytes)
		return nil
	}
	if !utf8.Valid(d.data) {
		d.fail(place{}, "", "file is not UTF-8 text")
		return nil
	}
	defer func() { // a parser of hostile input that is not ours
		if r := recover(); r != nil {
			d.fail(place{}, "", "the YAML parser gave up: %v", r)
			root = nil
		}
	}()
	tokens := lexer.Tokenize(string(d.data))
	if !d.shallow(tokens) {
		return nil
	}
	file, err := parser.Parse(tokens, 0)
	if err != nil {
		d.syntax(err)
		return nil
	}
	for _, doc := range file.Docs {
		switch {
		case doc.Body == nil || doc.Body.Type() == ast.NullType || doc.Body.Type() == ast.CommentType:
		case root != nil:
			d.fail(placeOf(doc.Body), "", "a second document in one file: put the rules of a file into one list")
			return nil
		default:
			root = doc.Body
		}
	}
	return root
}

func (d *document) syntax(err error) {
	var e yaml.Error
	if !errors.As(err, &e) {
		d.fail(place{}, "", "not YAML: %v", err)
		return
	}
	at := place{1, 1}
	if t := e.GetToken(); t != nil && t.Position != nil {
		at = place{t.Position.Line, t.Position.Column}
	}
	d.fail(at, "", "not YAML: %s", strings.TrimSpace(e.GetMessage()))
}

// shallow tells whether the tokens nest no deeper than the parser can take.
func (d *document) shallow(tokens token.Tokens) bool {
	flow, entries, line := 0, 0, 0
	for _, t := range tokens {
		if t.Position.Line != line {
			line, entries = t.Position.Line, 0
		}
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			flow++
		case token.SequenceEndType, token.MappingEndType:
			flow--
		case token.SequenceEntryType, token.MappingKeyType, token.AnchorType, token.TagType:
			entries++
		case token.AliasType, token.MergeKeyType:
			d.fail(place{t.Position.Line, t.Position.Column}, "", "aliases are not supported: use lists and macros")
			return false
		}
		if flow > maxDepth || entries > maxDepth || t.Position.IndentNum > 8*maxDepth || t.Position.Column > maxColumn {
			d.fail(place{t.Position.Line, t.Position.Column}, "", "nested too deeply or line too long (limits: %d levels, %d columns)", maxDepth, maxColumn)
			return false
		}
	}
	return true
}

// A pair is one key of a mapping.
type pair struct {
	key   string
	at    place
	value ast.Node
}

// pairs reads a mapping; key names it in errors. It reports whether n is one.
func (d *document) pairs(n ast.Node, key string) ([]pair, bool) {
	var values []*ast.MappingValueNode
	switch m := n.(type) {
	case *ast.MappingNode:
		values = m.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{m}
	default:
		d.fail(placeOf(n), key, "expected a mapping (key: value), got %s", kindOf(n))
		return nil, false
	}
	out := make([]pair, 0, len(values))
	for _, v := range values {
		name, ok := scalarText(v.Key)
		if !ok {
			d.fail(placeOf(v.Key), key, "a key must be plain text")
			continue
		}
		out = append(out, pair{name, placeOf(v.Key), v.Value})
	}
	return out, true
}

// only reports keys that are not known.
func (d *document) only(ps []pair, where string, known []string) {
	for _, p := range ps {
		if !slices.Contains(known, p.key) {
			d.fail(p.at, join(where, p.key), "unknown key%s", meant(p.key, known))
		}
	}
}

// items reads a sequence; a single scalar is a list of one.
func (d *document) items(n ast.Node, key string, limit int) []ast.Node {
	s, ok := n.(*ast.SequenceNode)
	if !ok {
		if _, scalar := scalarText(n); scalar {
			return []ast.Node{n}
		}
		d.fail(placeOf(n), key, "expected a list, got %s", kindOf(n))
		return nil
	}
	if len(s.Values) > limit {
		d.fail(placeOf(n), key, "list of %d, the limit is %d", len(s.Values), limit)
		return nil
	}
	return s.Values
}

// texts reads a list of strings.
func (d *document) texts(n ast.Node, key string, limit int) []string {
	var out []string
	for _, v := range d.items(n, key, limit) {
		if t, ok := d.text(v, key, 4096); ok {
			out = append(out, t.text)
		}
	}
	return out
}

// A passage is a text with the place that it stands at, so that an error inside an expression points into the file.
type passage struct {
	text string
	at   place
	doc  *document
	node ast.Node
}

// text reads a string of at most limit bytes.
func (d *document) text(n ast.Node, key string, limit int) (passage, bool) {
	var s string
	switch v := n.(type) {
	case *ast.StringNode:
		s = v.Value
	case *ast.LiteralNode:
		s = v.Value.Value
	default:
		d.fail(placeOf(n), key, "expected text, got %s", kindOf(n))
		return passage{}, false
	}
	if len(s) > limit {
		d.fail(placeOf(n), key, "text of %d bytes, the limit is %d", len(s), limit)
		return passage{}, false
	}
	return passage{s, placeOf(n), d, n}, true
}

func (d *document) number(n ast.Node, key string, low, high int) (int, bool) {
	if v, ok := n.(*ast.IntegerNode); ok {
		switch x := v.Value.(type) {
		case int64:
			if x >= int64(low) && x <= int64(high) {
				return int(x), true
			}
		case uint64:
			if x <= uint64(high) && low <= 0 || x >= uint64(max(low, 0)) && x <= uint64(high) {
				return int(x), true
			}
		}
		d.fail(placeOf(n), key, "must be from %d to %d", low, high)
		return 0, false
	}
	d.fail(placeOf(n), key, "expected a whole number, got %s", kindOf(n))
	return 0, false
}

func (d *document) boolean(n ast.Node, key string) (bool, bool) {
	if v, ok := n.(*ast.BoolNode); ok {
		return v.Value, true
	}
	d.fail(placeOf(n), key, "expected true or false, got %s", kindOf(n))
	return false, false
}

func scalarText(n ast.Node) (string, bool) {
	switch v := n.(type) {
	case *ast.StringNode:
		return v.Value, true
	case *ast.LiteralNode:
		return v.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return v.GetToken().Value, true
	}
	return "", false
}

func kindOf(n ast.Node) string {
	switch n.(type) {
	case nil, *ast.NullNode:
		return "nothing"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.StringNode, *ast.LiteralNode:
		return "text"
	case *ast.IntegerNode, *ast.FloatNode:
		return "a number (quote it if text is meant)"
	case *ast.BoolNode:
		return "true or false (quote it if text is meant)"
	case *ast.AnchorNode:
		return "an anchor"
	}
	return "something else"
}

// join writes a path of keys.
func join(where, key string) string {
	if where == "" {
		return key
	}
	return where + ": " + key
}

// within finds the place of the rune at index in p's text. A text may be folded over lines or quoted, so the file is walked beside
// it, counting what is not blank in both.
func (p passage) within(index int) place {
	want := 0
	for i, r := range []rune(p.text) {
		if i == index {
			break
		}
		if !blank(r) {
			want++
		}
	}
	at, quote := p.at, rune(0)
	lines := strings.SplitAfter(string(p.doc.data), "\n")
	if at.line < 1 || at.line > len(lines) {
		return at
	}
	rest := []rune(lines[at.line-1])
	rest = rest[min(at.column-1, len(rest)):]
	if _, block := p.node.(*ast.LiteralNode); block {
		at, rest = place{at.line + 1, 1}, nil
		if at.line <= len(lines) {
			rest = []rune(lines[at.line-1])
		}
	} else if len(rest) > 0 && (rest[0] == '"' || rest[0] == '\'') {
		quote, rest, at.column = rest[0], rest[1:], at.column+1
	}
	for {
		for i := 0; i < len(rest); i++ {
			if blank(rest[i]) {
				continue
			}
			if quote == '"' && rest[i] == '\\' || quote == '\'' && rest[i] == '\'' {
				i++ // the escape and what it stands for are one rune of the text
			}
			if want == 0 {
				return place{at.line, at.column + i}
			}
			want--
		}
		if at.line++; at.line > len(lines) {
			return p.at
		}
		at.column, rest = 1, []rune(lines[at.line-1])
	}
}

func blank(r rune) bool { return r == ' ' || r == '\n' || r == '\t' || r == '\r' }
