package pipeline

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// AppendJSON appends e to dst as one nested ECS object, without a newline. It leaves out absent fields. The
// names and their nesting are those of Fields, in test cases of rules as in `tidegate replay -o jsonl`.
// FromJSON is the inverse.
func AppendJSON(dst []byte, e *Event) []byte {
	return appendNode(dst, &jsonTree, e)
}

// A jsonNode is one key of the nested object: a leaf has a field, an inner node has children.
type jsonNode struct {
	key      string // quoted, with its colon
	field    *Field
	children []jsonNode
}

// jsonTree is the tree of the names in Fields, split at their dots.
var jsonTree = func() jsonNode {
	var root jsonNode
	for i := range Fields {
		node := &root
		for part := range strings.SplitSeq(Fields[i].Name, ".") {
			node = node.child(part)
		}
		node.field = &Fields[i]
	}
	return root
}()

// child returns the child of that name. It adds the child if there is none.
func (n *jsonNode) child(name string) *jsonNode {
	key := strconv.Quote(name) + ":"
	i := slices.IndexFunc(n.children, func(c jsonNode) bool { return c.key == key })
	if i < 0 {
		n.children = append(n.children, jsonNode{key: key})
		i = len(n.children) - 1
	}
	return &n.children[i]
}

// appendNode appends the object of n. It writes the key of each child first and removes it again if the event
// has no value for the child.
func appendNode(dst []byte, node *jsonNode, event *Event) []byte {
	dst = append(dst, '{')
	first := true
	for i := range node.children {
		child := &node.children[i]
		before := len(dst)
		if !first {
			dst = append(dst, ',')
		}
		dst = append(dst, child.key...)
		start := len(dst)
		if child.field != nil {
			dst = appendField(dst, child.field, event)
		} else if dst = appendNode(dst, child, event); len(dst) == start+2 {
			dst = dst[:start] // remove the empty object
		}
		if len(dst) == start {
			dst = dst[:before] // remove the comma and the key
			continue
		}
		first = false
	}
	return append(dst, '}')
}

// appendField appends the value of the field. It appends nothing if the field is absent or belongs to the
// body of another dataset.
func appendField(dst []byte, field *Field, event *Event) []byte {
	if field.Body != Dataset_DATASET_NONE && field.Body != event.Dataset || !field.Has(event) {
		return dst
	}
	switch {
	case field.Str != nil:
		return appendString(dst, field.Str(event))
	case field.Num != nil, field.Flag != nil:
		return field.appendScalar(dst, event)
	case field.Time != nil, field.IP != nil, field.Raw != nil:
		return append(field.appendScalar(append(dst, '"'), event), '"')
	case field.Strs != nil:
		var buf [16]string
		return appendList(dst, field.Strs(event, buf[:0]), appendString)
	case field.Nums != nil:
		var buf [16]int64
		return appendList(dst, field.Nums(event, buf[:0]), appendInt)
	default:
		return appendLabels(dst, field.Labels(event))
	}
}

func appendInt(dst []byte, number int64) []byte { return strconv.AppendInt(dst, number, 10) }

func appendList[T any](dst []byte, list []T, appendItem func([]byte, T) []byte) []byte {
	dst = append(dst, '[')
	for i, item := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendItem(dst, item)
	}
	return append(dst, ']')
}

func appendLabels(dst []byte, labels []*Label) []byte {
	dst = append(dst, '{')
	for i, label := range labels {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendString(dst, label.Key), ':')
		dst = appendString(dst, label.Value)
	}
	return append(dst, '}')
}

const hexDigits = "0123456789abcdef"

// appendString appends text as a JSON string (RFC 8259 section 7). Bytes that are not UTF-8, which text from
// the network may contain, become U+FFFD. All control characters are escaped, including DEL and U+0080 to
// U+009F, so that printed JSON cannot control a terminal.
func appendString(dst []byte, text string) []byte {
	dst = append(dst, '"')
	// Invariant: everything before plain is appended, and text[plain:i] needs no escape.
	plain := 0
	for i := 0; i < len(text); {
		c := text[i]
		if c >= ' ' && c != '"' && c != '\\' && c < 0x7f {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, width := utf8.DecodeRuneInString(text[i:])
			if r < 0xa0 { // a C1 control character, which starts an escape sequence on some terminals
				dst = append(append(dst, text[plain:i]...), '\\', 'u', '0', '0', hexDigits[r>>4], hexDigits[r&15])
				i += width
				plain = i
				continue
			}
			if r != utf8.RuneError || width > 1 { // U+FFFD itself is 3 bytes wide
				i += width
				continue
			}
		}

		// One byte that needs an escape: ASCII, or a byte that is not UTF-8.
		dst = append(dst, text[plain:i]...)
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c == '\n':
			dst = append(dst, '\\', 'n')
		case c == '\r':
			dst = append(dst, '\\', 'r')
		case c == '\t':
			dst = append(dst, '\\', 't')
		case c < ' ' || c == 0x7f:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		default:
			dst = append(dst, "\\ufffd"...)
		}
		i++
		plain = i
	}
	dst = append(dst, text[plain:]...)
	return append(dst, '"')
}
