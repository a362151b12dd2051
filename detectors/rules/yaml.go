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

// position is a position in the file, from 1.
type position struct{ line, column int }

func (d *document) addError(at position, key, format string, args ...any) {
	d.errs.add(&Error{File: d.file, Line: at.line, Column: at.column, Key: key, Message: fmt.Sprintf(format, args...)})
}

func positionOfNode(n ast.Node) position {
	if n == nil {
		return position{1, 1}
	}
	// goccy's token of a mapping or of a pair is the colon; people look for the key.
	switch m := n.(type) {
	case *ast.MappingNode:
		if !m.IsFlowStyle && len(m.Values) > 0 {
			return positionOfNode(m.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return positionOfNode(m.Key)
	}
	t := n.GetToken()
	if t == nil || t.Position == nil {
		return position{1, 1}
	}
	return position{t.Position.Line, t.Position.Column}
}

// parse gives the root node; nil where there is none (an error was added, or the file is empty).
func (d *document) parse() (root ast.Node) {
	if len(d.data) > maxFileBytes {
		d.addError(position{}, "", "file has %d bytes, the limit is %d", len(d.data), maxFileBytes)
		return nil
	}
	if !utf8.Valid(d.data) {
		d.addError(position{}, "", "file is not UTF-8 text")
		return nil
	}
	defer func() { // a parser of hostile input that is not ours
		if r := recover(); r != nil {
			d.addError(position{}, "", "the YAML parser gave up: %v", r)
			root = nil
		}
	}()
	tokens := lexer.Tokenize(string(d.data))
	if !d.checkNesting(tokens) {
		return nil
	}
	file, err := parser.Parse(tokens, 0)
	if err != nil {
		d.addSyntaxError(err)
		return nil
	}
	for _, doc := range file.Docs {
		switch {
		case doc.Body == nil || doc.Body.Type() == ast.NullType || doc.Body.Type() == ast.CommentType:
		case root != nil:
			d.addError(positionOfNode(doc.Body), "", "a second document in one file: put the rules of a file into one list")
			return nil
		default:
			root = doc.Body
		}
	}
	return root
}

func (d *document) addSyntaxError(err error) {
	var e yaml.Error
	if !errors.As(err, &e) {
		d.addError(position{}, "", "not YAML: %v", err)
		return
	}
	at := position{1, 1}
	if t := e.GetToken(); t != nil && t.Position != nil {
		at = position{t.Position.Line, t.Position.Column}
	}
	d.addError(at, "", "not YAML: %s", strings.TrimSpace(e.GetMessage()))
}

// checkNesting tells whether the tokens nest no deeper than the parser can take.
func (d *document) checkNesting(tokens token.Tokens) bool {
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
			d.addError(position{t.Position.Line, t.Position.Column}, "", "aliases are not supported: use lists and macros")
			return false
		}
		if flow > maxDepth || entries > maxDepth || t.Position.IndentNum > 8*maxDepth || t.Position.Column > maxColumn {
			d.addError(position{t.Position.Line, t.Position.Column}, "", "nested too deeply or line too long (limits: %d levels, %d columns)", maxDepth, maxColumn)
			return false
		}
	}
	return true
}

// A pair is one key of a mapping.
type pair struct {
	key   string
	at    position
	value ast.Node
}

// readMapping reads a mapping; key names it in errors. It reports whether n is one.
func (d *document) readMapping(n ast.Node, key string) ([]pair, bool) {
	var values []*ast.MappingValueNode
	switch m := n.(type) {
	case *ast.MappingNode:
		values = m.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{m}
	default:
		d.addError(positionOfNode(n), key, "expected a mapping (key: value), got %s", kindOf(n))
		return nil, false
	}
	out := make([]pair, 0, len(values))
	for _, v := range values {
		name, ok := scalarText(v.Key)
		if !ok {
			d.addError(positionOfNode(v.Key), key, "a key must be plain text")
			continue
		}
		out = append(out, pair{name, positionOfNode(v.Key), v.Value})
	}
	return out, true
}

// rejectUnknownKeys reports keys that are not known.
func (d *document) rejectUnknownKeys(ps []pair, where string, known []string) {
	for _, p := range ps {
		if !slices.Contains(known, p.key) {
			d.addError(p.at, joinKeys(where, p.key), "unknown key%s", didYouMean(p.key, known))
		}
	}
}

// readList reads a sequence; a single scalar is a list of one.
func (d *document) readList(n ast.Node, key string, limit int) []ast.Node {
	s, ok := n.(*ast.SequenceNode)
	if !ok {
		if _, scalar := scalarText(n); scalar {
			return []ast.Node{n}
		}
		d.addError(positionOfNode(n), key, "expected a list, got %s", kindOf(n))
		return nil
	}
	if len(s.Values) > limit {
		d.addError(positionOfNode(n), key, "list of %d, the limit is %d", len(s.Values), limit)
		return nil
	}
	return s.Values
}

// readTexts reads a list of strings.
func (d *document) readTexts(n ast.Node, key string, limit int) []string {
	var out []string
	for _, v := range d.readList(n, key, limit) {
		if t, ok := d.readText(v, key, 4096); ok {
			out = append(out, t.text)
		}
	}
	return out
}

// A sourceText is a text with the place that it stands at, so that an error inside an expression points into the file.
type sourceText struct {
	text string
	at   position
	doc  *document
	node ast.Node
}

// readText reads a string of at most limit bytes.
func (d *document) readText(n ast.Node, key string, limit int) (sourceText, bool) {
	var s string
	switch v := n.(type) {
	case *ast.StringNode:
		s = v.Value
	case *ast.LiteralNode:
		s = v.Value.Value
	default:
		d.addError(positionOfNode(n), key, "expected text, got %s", kindOf(n))
		return sourceText{}, false
	}
	if len(s) > limit {
		d.addError(positionOfNode(n), key, "text of %d bytes, the limit is %d", len(s), limit)
		return sourceText{}, false
	}
	return sourceText{s, positionOfNode(n), d, n}, true
}

func (d *document) readNumber(n ast.Node, key string, low, high int) (int, bool) {
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
		d.addError(positionOfNode(n), key, "must be from %d to %d", low, high)
		return 0, false
	}
	d.addError(positionOfNode(n), key, "expected a whole number, got %s", kindOf(n))
	return 0, false
}

func (d *document) readBool(n ast.Node, key string) (bool, bool) {
	if v, ok := n.(*ast.BoolNode); ok {
		return v.Value, true
	}
	d.addError(positionOfNode(n), key, "expected true or false, got %s", kindOf(n))
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

// joinKeys writes a path of keys.
func joinKeys(where, key string) string {
	if where == "" {
		return key
	}
	return where + ": " + key
}

// positionOf finds the place of the rune at index in p's text. A text may be folded over lines or quoted, so the file is walked beside
// it, counting what is not blank in both.
func (p sourceText) positionOf(index int) position {
	want := 0
	for i, r := range []rune(p.text) {
		if i == index {
			break
		}
		if !isBlank(r) {
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
		at, rest = position{at.line + 1, 1}, nil
		if at.line <= len(lines) {
			rest = []rune(lines[at.line-1])
		}
	} else if len(rest) > 0 && (rest[0] == '"' || rest[0] == '\'') {
		quote, rest, at.column = rest[0], rest[1:], at.column+1
	}
	for {
		for i := 0; i < len(rest); i++ {
			if isBlank(rest[i]) {
				continue
			}
			if quote == '"' && rest[i] == '\\' || quote == '\'' && rest[i] == '\'' {
				i++ // the escape and what it stands for are one rune of the text
			}
			if want == 0 {
				return position{at.line, at.column + i}
			}
			want--
		}
		if at.line++; at.line > len(lines) {
			return p.at
		}
		at.column, rest = 1, []rune(lines[at.line-1])
	}
}

func isBlank(r rune) bool { return r == ' ' || r == '\n' || r == '\t' || r == '\r' }
