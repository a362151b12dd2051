package config

import (
	"fmt"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// A Node is one value of a Document: a scalar, a list or a mapping.
type Node struct {
	doc  *Document
	node ast.Node
	key  string // path, for errors
}

// An Entry is one key of a mapping and its value.
type Entry struct {
	Key string
	Position
	Value Node
}

// Named returns n with another key path, which its errors and those of its parts carry. A path that ends with
// ": " names an item: "my-rule: " makes errors of its key when read "my-rule: when: …".
func (n Node) Named(key string) Node {
	n.key = key
	return n
}

// Key returns the path of n in its document: "kafka.tls.enabled", "feeds[1].path".
func (n Node) Key() string { return n.key }

// IsSet reports whether n is a value of a document; the zero Node is not.
func (n Node) IsSet() bool { return n.node != nil }

// Errorf adds an error at n's position and key to the document.
func (n Node) Errorf(format string, args ...any) {
	n.doc.AddError(n.Position(), n.key, format, args...)
}

// raw returns the syntax node without tags and anchors. An alias is replaced by the node that it refers to.
func (n Node) raw() ast.Node {
	node := n.node
	for range maxDepth {
		switch v := node.(type) {
		case *ast.AnchorNode:
			node = v.Value
		case *ast.TagNode:
			node = v.Value
		case *ast.AliasNode:
			node = n.doc.aliasTargets[v]
		default:
			return node
		}
	}
	return nil
}

// Position returns where n begins.
func (n Node) Position() Position { return positionOf(n.node) }

func positionOf(node ast.Node) Position {
	// goccy's token of a mapping or of a pair is the colon; a reader looks for the key.
	switch m := node.(type) {
	case nil:
		return Position{1, 1}
	case *ast.MappingNode:
		if !m.IsFlowStyle && len(m.Values) > 0 {
			return positionOf(m.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return positionOf(m.Key)
	}
	token := node.GetToken()
	if token == nil || token.Position == nil {
		return Position{1, 1}
	}
	return Position{token.Position.Line, token.Position.Column}
}

// IsNull reports whether n is empty or null.
func (n Node) IsNull() bool {
	switch n.raw().(type) {
	case nil, *ast.NullNode:
		return true
	}
	return false
}

// IsList reports whether n is a list.
func (n Node) IsList() bool {
	_, ok := n.raw().(*ast.SequenceNode)
	return ok
}

// IsMapping reports whether n is a mapping.
func (n Node) IsMapping() bool {
	switch n.raw().(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return true
	}
	return false
}

// Kind describes in words what n is, for messages.
func (n Node) Kind() string {
	switch n.raw().(type) {
	case nil, *ast.NullNode:
		return "nothing"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.StringNode, *ast.LiteralNode:
		return "text"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number (quote it if text is meant)"
	case *ast.BoolNode:
		return "true or false (quote it if text is meant)"
	}
	return "something else"
}

// Text returns the value of a text. It returns false for numbers, booleans and everything else.
func (n Node) Text() (string, bool) {
	switch v := n.raw().(type) {
	case *ast.StringNode:
		return v.Value, true
	case *ast.LiteralNode:
		return v.Value.Value, true
	}
	return "", false
}

// Scalar returns a text, number or boolean as it is written.
func (n Node) Scalar() (string, bool) {
	if s, ok := n.Text(); ok {
		return s, true
	}
	switch v := n.raw().(type) {
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return v.GetToken().Value, true
	}
	return "", false
}

// Bool returns the value of true or false.
func (n Node) Bool() (value, ok bool) {
	v, ok := n.raw().(*ast.BoolNode)
	return ok && v.Value, ok
}

// Int returns the value of a whole number. It returns false for other values and for numbers beyond 64 bits.
func (n Node) Int() (int64, bool) {
	integer, ok := n.raw().(*ast.IntegerNode)
	if !ok {
		return 0, false
	}
	switch value := integer.Value.(type) {
	case int64:
		return value, true
	case uint64:
		return int64(value), value <= 1<<63-1
	}
	return 0, false
}

// IsInteger reports whether n is written as a whole number, however large.
func (n Node) IsInteger() bool {
	_, ok := n.raw().(*ast.IntegerNode)
	return ok
}

// Items returns the values of a list; none where n is not a list.
func (n Node) Items() []Node {
	list, ok := n.raw().(*ast.SequenceNode)
	if !ok {
		return nil
	}
	items := make([]Node, len(list.Values))
	for i, v := range list.Values {
		items[i] = Node{doc: n.doc, node: v, key: fmt.Sprintf("%s[%d]", n.key, i)}
	}
	return items
}

// Entries returns the keys and values of a mapping, in the order of the file; none where n is not a mapping.
// Entries of a merge key (<<) come first, so that the mapping's own override them.
func (n Node) Entries() []Entry {
	var values []*ast.MappingValueNode
	switch m := n.raw().(type) {
	case *ast.MappingNode:
		values = m.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{m}
	}

	// Merged entries go into a list of their own, because they come first wherever the merge key is.
	merged := []Entry{}
	entries := make([]Entry, 0, len(values))
	for _, pair := range values {
		key := Node{doc: n.doc, node: pair.Key}
		if _, isMerge := pair.Key.(*ast.MergeKeyNode); isMerge {
			merged = append(merged, Node{doc: n.doc, node: pair.Value, key: n.key}.mergedEntries()...)
			continue
		}
		name, ok := key.Scalar()
		if !ok {
			n.doc.AddError(key.Position(), n.key, "a key must be plain text")
			continue
		}
		value := Node{doc: n.doc, node: pair.Value, key: joinKey(n.key, name)}
		entries = append(entries, Entry{Key: name, Position: key.Position(), Value: value})
	}
	return append(merged, entries...)
}

// mergedEntries returns the entries of what a merge key refers to: a mapping or a list of mappings. Their
// number in one document is bounded, because each of a chain of merge keys may refer to the one before many
// times.
func (n Node) mergedEntries() []Entry {
	if n.doc.merges++; n.doc.merges > maxMerges {
		return nil
	}
	var merged []Entry
	switch {
	case n.IsMapping():
		merged = n.Entries()
	case n.IsList():
		for _, item := range n.Items() {
			merged = append(merged, item.Named(n.key).mergedEntries()...)
		}
	default:
		n.Errorf("<<: expected a mapping, got %s", n.Kind())
	}
	return merged
}

// A Text is a text of a file together with its position, so that an error inside it points into the file.
type Text struct {
	Value string
	node  Node
}

// DecodeNode takes a text; numbers and booleans must be quoted.
func (t *Text) DecodeNode(node Node) {
	value, ok := node.Text()
	if !ok {
		node.Errorf("expected text, got %s", node.Kind())
		return
	}
	*t = Text{Value: value, node: node}
}

// Comment returns the comment behind t in its line, with its #, if t is a plain scalar; else "". YAML ends a plain
// scalar at a blank and #, also where the author meant a part of the text.
func (t Text) Comment() string {
	scalar, ok := t.node.raw().(*ast.StringNode)
	if !ok || scalar.Token == nil || scalar.Token.Type != token.StringType {
		return ""
	}
	next := scalar.Token.Next
	if next == nil || next.Type != token.CommentType {
		return ""
	}
	last := scalar.Token.Position.Line + strings.Count(strings.TrimSpace(scalar.Token.Origin), "\n")
	if next.Position.Line != last {
		return ""
	}
	return "#" + next.Value
}

// IsSet reports whether the file has this text.
func (t Text) IsSet() bool { return t.node.IsSet() }

// Node returns the node that holds the text.
func (t Text) Node() Node { return t.node }

// Position returns where the text begins.
func (t Text) Position() Position { return t.node.Position() }

// Errorf adds an error at the text's position and key to the document.
func (t Text) Errorf(format string, args ...any) { t.node.Errorf(format, args...) }

// ErrorfAt adds an error at the rune at index in the text.
func (t Text) ErrorfAt(index int, format string, args ...any) {
	t.node.doc.AddError(t.PositionAt(index), t.node.key, format, args...)
}

// PositionAt returns the position of the rune at index in the text. YAML may fold a text over lines or quote
// it, so the file is walked beside the text, counting the runes that are not blank in both.
func (t Text) PositionAt(index int) Position {
	// Count the runes of the text before index that are not blank.
	want := 0
	for i, r := range []rune(t.Value) {
		if i == index {
			break
		}
		if !isBlank(r) {
			want++
		}
	}

	// rest is the part of the current line that may hold the text, and at is where rest begins.
	at, quote := t.Position(), rune(0)
	lines := strings.SplitAfter(string(t.node.doc.data), "\n")
	if at.Line < 1 || at.Line > len(lines) {
		return at
	}
	rest := []rune(lines[at.Line-1])
	rest = rest[min(at.Column-1, len(rest)):]
	if _, block := t.node.raw().(*ast.LiteralNode); block {
		// The text of a block scalar begins on the line after its | or >.
		at, rest = Position{at.Line + 1, 1}, nil
		if at.Line <= len(lines) {
			rest = []rune(lines[at.Line-1])
		}
	} else if len(rest) > 0 && (rest[0] == '"' || rest[0] == '\'') {
		quote, rest, at.Column = rest[0], rest[1:], at.Column+1
	}

	// Walk the file. Invariant: want is the number of such runes that are still ahead in the file.
	for {
		for i := 0; i < len(rest); i++ {
			if isBlank(rest[i]) {
				continue
			}
			if quote == '"' && rest[i] == '\\' || quote == '\'' && rest[i] == '\'' {
				i++ // an escape and the character behind it are one rune of the text
			}
			if want == 0 {
				return Position{at.Line, at.Column + i}
			}
			want--
		}
		if at.Line++; at.Line > len(lines) {
			return t.Position()
		}
		at.Column, rest = 1, []rune(lines[at.Line-1])
	}
}

func isBlank(r rune) bool { return r == ' ' || r == '\n' || r == '\t' || r == '\r' }
