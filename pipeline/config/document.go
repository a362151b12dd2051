package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// The bounds of a file. goccy's parser takes quadratic time for nesting (20,000 levels: 7 s) and for the keys of a block
// mapping (20,000 keys: 8 s), so both are checked on its tokens, which it finds in linear time.
const (
	// MaxFileBytes is the size of the largest file that Parse takes.
	MaxFileBytes = 4 << 20

	maxDepth  = 32
	maxColumn = 16 << 10
	maxKeys   = 5000 // of one mapping
	maxErrors = 1000 // of one file; a file with very many does not fill memory
	maxMerges = 1000 // merge keys that are followed, of one file
)

// A Position is a line and a column of a file, both from 1. The zero Position is the file as a whole.
type Position struct{ Line, Column int }

// An Error is one error of a file, with its position.
type Error struct {
	File string
	Position
	Key string // path of the key, "kafka.tls.enabled"; "" where there is none
	Err error
}

// Error returns "file:line:column: key: message".
func (e *Error) Error() string {
	var out strings.Builder
	out.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&out, ":%d:%d", e.Line, e.Column)
	}
	out.WriteString(": ")
	if e.Key != "" {
		out.WriteString(strings.TrimSuffix(e.Key, ": ") + ": ")
	}
	out.WriteString(e.Err.Error())
	return out.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// A Document is a YAML file that is decoded into Go values. It collects all errors of the file, so that a
// user can mend them at once. It is used by one goroutine.
type Document struct {
	File string

	data         []byte
	root         ast.Node                    // nil: the file is empty, or not YAML
	aliasTargets map[*ast.AliasNode]ast.Node // nil: refers to nothing
	aliases      []Position
	merges       int // merge keys that were followed

	errs      []*Error
	dropped   int                     // errors beyond maxErrors
	positions map[string]keyPositions // filled by the first Locate
}

// Parse reads the syntax of a file, which may begin with a byte order mark (YAML 1.2 section 5.2). Err and Errors
// return its errors.
func Parse(file string, data []byte) *Document {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	document := &Document{File: file, data: data, aliasTargets: map[*ast.AliasNode]ast.Node{}}
	switch {
	case len(data) > MaxFileBytes:
		document.AddError(Position{}, "", "file has %d bytes, the limit is %d", len(data), MaxFileBytes)
	case !utf8.Valid(data):
		document.AddError(Position{}, "", "file is not UTF-8 text")
	default:
		document.parse()
	}
	return document
}

func (d *Document) parse() {
	defer func() {
		// The input may be hostile, and the parser is a library that may panic.
		if r := recover(); r != nil {
			d.AddError(Position{}, "", "the YAML parser gave up: %v", r)
			d.root = nil
		}
	}()
	tokens := lexer.Tokenize(string(d.data))
	if !d.checkTokens(tokens) {
		return
	}
	file, err := parser.Parse(tokens, 0)
	if err != nil {
		d.addSyntaxError(err)
		return
	}
	for _, doc := range file.Docs {
		switch {
		case doc.Body == nil || doc.Body.Type() == ast.NullType || doc.Body.Type() == ast.CommentType:
		case d.root != nil:
			d.AddError(positionOf(doc.Body), "", "a second document in one file is not supported")
			d.root = nil
			return
		default:
			d.root = doc.Body
		}
	}
	if d.root != nil {
		ast.Walk(&aliasResolver{d, map[string]ast.Node{}}, d.root)
	}
}

// An aliasResolver finds out what each alias refers to: the last anchor of that name in front of it. An
// anchor counts from the end of its value on, so that no value contains itself.
type aliasResolver struct {
	document *Document
	anchors  map[string]ast.Node // those whose values ended before the current node
}

// Visit implements ast.Visitor.
func (r *aliasResolver) Visit(node ast.Node) ast.Visitor {
	switch node := node.(type) {
	case *ast.AnchorNode:
		ast.Walk(r, node.Value)
		r.anchors[node.Name.String()] = node.Value
		return nil
	case *ast.AliasNode:
		name := node.Value.String()
		target, ok := r.anchors[name]
		if !ok {
			r.document.AddError(positionOf(node), "", "alias *%s refers to no value in front of it", name)
		}
		r.document.aliasTargets[node] = target
		return nil
	}
	return r
}

// checkTokens reports whether the tokens nest no deeper, and mappings have no more keys, than the parser can handle. It
// records the positions of aliases.
func (d *Document) checkTokens(tokens token.Tokens) bool {
	// flow is the depth of brackets and braces; entries counts the nesting tokens of the current line.
	flow, entries, line := 0, 0, 0
	start := 0 // column of the first token of the line that is not the dash of an item
	var mappings openMappings
	for _, tok := range tokens {
		at := Position{tok.Position.Line, tok.Position.Column}
		if at.Line != line {
			line, entries, start = at.Line, 0, 0
		}
		if start == 0 && tok.Type != token.SequenceEntryType {
			start = at.Column
		}
		switch tok.Type {
		case token.SequenceStartType, token.MappingStartType:
			flow++
		case token.SequenceEndType, token.MappingEndType:
			flow--
		case token.SequenceEntryType, token.MappingKeyType, token.AnchorType, token.TagType:
			entries++
			if tok.Type == token.SequenceEntryType {
				mappings.closeRightOf(at.Column)
			}
		case token.MappingValueType:
			if flow == 0 && mappings.addKey(start) > maxKeys {
				d.AddError(at, "", "a mapping has more than %d keys", maxKeys)
				return false
			}
		case token.AliasType, token.MergeKeyType:
			d.aliases = append(d.aliases, at)
		}
		if flow > maxDepth || entries > maxDepth || tok.Position.IndentNum > 8*maxDepth || at.Column > maxColumn {
			d.AddError(at, "", "nested too deeply or line too long (limits: %d levels, %d columns)", maxDepth, maxColumn)
			return false
		}
	}
	return true
}

// openMappings are the block mappings around a token, the innermost last: the column of their keys and how many came.
type openMappings []struct{ column, keys int }

// closeRightOf closes the mappings whose keys stand right of column.
func (m *openMappings) closeRightOf(column int) {
	for len(*m) > 0 && (*m)[len(*m)-1].column > column {
		*m = (*m)[:len(*m)-1]
	}
}

// addKey counts a key at column and returns how many keys its mapping has.
func (m *openMappings) addKey(column int) int {
	m.closeRightOf(column)
	if len(*m) == 0 || (*m)[len(*m)-1].column < column {
		*m = append(*m, struct{ column, keys int }{column: column})
	}
	innermost := &(*m)[len(*m)-1]
	innermost.keys++
	return innermost.keys
}

func (d *Document) addSyntaxError(err error) {
	var syntax yaml.Error
	if !errors.As(err, &syntax) {
		d.AddError(Position{}, "", "not YAML: %v", err)
		return
	}
	at := Position{1, 1}
	if t := syntax.GetToken(); t != nil && t.Position != nil {
		at = Position{t.Position.Line, t.Position.Column}
	}
	message := strings.TrimSpace(syntax.GetMessage())
	for _, of := range syntaxHints {
		if strings.HasPrefix(message, of.message) {
			message += ": " + of.hint
			break
		}
	}
	if line := d.unclosedQuote(at.Line); line > 0 && strings.Contains(message, "not allowed in this context") {
		message += fmt.Sprintf("; a quote in line %d is not closed there", line)
	}
	d.AddError(at, d.keyOfLine(at.Line), "not YAML: %s", message)
}

// syntaxHints has plain words for messages of the parser that begin so; of those that fit, the first counts.
var syntaxHints = []struct{ message, hint string }{
	{"invalid header option", "a value that begins with > or | stands between quotes"}, // such as count: >= 10
	{"found character '\t'", "a tab stands in front of the line: indent with blanks"},
	{"sequence end token ']' not found", "a [ is not closed, or a text in the list needs quotes"},
	{"could not find flow map", "a { is not closed, or a text in the mapping needs quotes"},
	{"mapping value is not allowed", "a text with a colon and a blank stands between quotes"},
	{"value is not allowed in this context. map key-value is pre-defined", "a text that has quotes in it, or is not closed, needs other quotes around it: '…\"…'"},
	{"value is not allowed in this context", "the line is indented otherwise than those around it, or goes on behind a value that has ended"},
	{"non-map value is specified", "a text behind | or > is indented more than its key"},
	{"could not find end character", "a quote is not closed"},
}

var keyOfLine = regexp.MustCompile(`^[\t -]*([A-Za-z_@][\w.@-]{0,60}):(\s|$)`)

// keyOfLine returns the key that a line begins with, "" if it has none.
func (d *Document) keyOfLine(number int) string {
	lines := strings.SplitN(string(d.data), "\n", number+1)
	if number < 1 || number > len(lines) {
		return ""
	}
	if match := keyOfLine.FindStringSubmatch(lines[number-1]); match != nil {
		return match[1]
	}
	return ""
}

// unclosedQuote returns the number of the last line before number whose value begins with a quote that the line does not close, 0 if there is none.
func (d *Document) unclosedQuote(number int) (found int) {
	for i, line := range strings.SplitN(string(d.data), "\n", number+1) {
		if i+1 >= number {
			break
		}
		key := keyOfLine.FindString(line)
		value := strings.TrimSpace(line[len(key):])
		if key != "" && strings.HasPrefix(value, `"`) && strings.Count(value, `"`)%2 != 0 {
			found = i + 1
		}
	}
	return found
}

// Aliases returns where the file uses aliases or merge keys, for readers that do not support them.
func (d *Document) Aliases() []Position { return d.aliases }

// Root returns the file's value. It returns false where there is none: the file is empty, holds only
// comments, or is not YAML.
func (d *Document) Root() (Node, bool) {
	return Node{doc: d, node: d.root}, d.root != nil
}

// Decode fills the value that into points to. What the file does not name stays as it is; an empty file
// changes nothing.
func (d *Document) Decode(into any) {
	if root, ok := d.Root(); ok {
		root.Decode(into)
	}
}

// AddError adds an error at a position of the file.
func (d *Document) AddError(at Position, key, format string, args ...any) {
	d.addError(&Error{File: d.File, Position: at, Key: key, Err: fmt.Errorf(format, args...)})
}

func (d *Document) addError(e *Error) {
	if len(d.errs) >= maxErrors {
		d.dropped++
		return
	}
	d.errs = append(d.errs, e)
}

// AddProblems adds problems at the lines of their keys.
func (d *Document) AddProblems(problems []Problem) {
	for _, p := range problems {
		d.addError(d.Locate(p))
	}
}

// ProblemsOfNamedKeys returns the problems of keys that the file names. After an error of decoding the others may
// follow from it: a mistyped key leaves the right one unset.
func (d *Document) ProblemsOfNamedKeys(problems []Problem) []Problem {
	d.readPositions()
	failed := map[string]bool{}
	for _, e := range d.errs {
		failed[e.Key] = true
	}
	return slices.DeleteFunc(slices.Clone(problems), func(p Problem) bool {
		_, named := d.positions[p.Key]
		return !named || failed[p.Key]
	})
}

// Errors returns all errors, in the order of the file.
func (d *Document) Errors() []*Error {
	slices.SortStableFunc(d.errs, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	if d.dropped > 0 {
		more := fmt.Errorf("%d more errors are not shown", d.dropped)
		return append(slices.Clone(d.errs), &Error{File: d.File, Err: more})
	}
	return d.errs
}

// Err returns Errors as one error, one a line, or nil.
func (d *Document) Err() error {
	var errs []error
	for _, e := range d.Errors() {
		errs = append(errs, e)
	}
	return errors.Join(errs...)
}

// keyPositions are the positions of one key and of its value.
type keyPositions struct{ key, value Position }

// readPositions fills positions.
func (d *Document) readPositions() {
	if d.positions != nil {
		return
	}
	d.positions = map[string]keyPositions{}
	if root, ok := d.Root(); ok {
		d.collectPositions(root)
	}
}

// Locate returns problem with the position of its key. A key that the file does not name, such as a default,
// has the position of the nearest section around it that the file names, or none.
func (d *Document) Locate(problem Problem) *Error {
	d.readPositions()
	located := &Error{File: d.File, Key: problem.Key, Err: problem.Err}
	for key := problem.Key; key != ""; key = key[:max(strings.LastIndexAny(key, ".["), 0)] {
		if at, ok := d.positions[key]; ok {
			located.Position = at.key
			break
		}
	}
	return located
}

// collectPositions stores the position of every key below n. The position of a list's entry is where the
// entry begins. Aliases are not followed: their keys stand elsewhere in the file.
func (d *Document) collectPositions(node Node) {
	if anchor, ok := node.node.(*ast.AnchorNode); ok {
		node.node = anchor.Value
	}
	switch node.node.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		for _, e := range node.Entries() {
			d.positions[e.Value.key] = keyPositions{e.Position, e.Value.Position()}
			d.collectPositions(e.Value)
		}
	case *ast.SequenceNode:
		for _, item := range node.Items() {
			d.positions[item.key] = keyPositions{item.Position(), item.Position()}
			d.collectPositions(item)
		}
	}
}
