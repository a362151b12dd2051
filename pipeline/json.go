package pipeline

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// AppendJSON appends e as one nested ECS object, without a newline. Absent fields are left out. Names and
// nesting are those of Fields, so a test case of a rule and a line of `tidegate replay -o jsonl` have the
// same form. FromJSON is the inverse.
func AppendJSON(dst []byte, e *Event) []byte {
	return appendNode(dst, &jsonTree, e)
}

// A jsonNode is one name of the nested form: a leaf has a field, an object has children.
type jsonNode struct {
	key      string // quoted, with its colon
	field    *Field
	children []jsonNode
}

// jsonTree is the tree of the names of Fields.
var jsonTree = func() jsonNode {
	var root jsonNode
	for i := range Fields {
		n := &root
		for part := range strings.SplitSeq(Fields[i].Name, ".") {
			n = n.child(part)
		}
		n.field = &Fields[i]
	}
	return root
}()

// child returns the child of that name, and adds it where it is missing.
func (n *jsonNode) child(name string) *jsonNode {
	key := strconv.Quote(name) + ":"
	i := slices.IndexFunc(n.children, func(c jsonNode) bool { return c.key == key })
	if i < 0 {
		n.children = append(n.children, jsonNode{key: key})
		i = len(n.children) - 1
	}
	return &n.children[i]
}

// appendNode appends the object of n. A child of which event has nothing leaves no trace: its name is written
// first, and taken back when nothing follows.
func appendNode(dst []byte, n *jsonNode, event *Event) []byte {
	dst = append(dst, '{')
	first := true
	for i := range n.children {
		c := &n.children[i]
		before := len(dst)
		if !first {
			dst = append(dst, ',')
		}
		dst = append(dst, c.key...)
		start := len(dst)
		if c.field != nil {
			dst = appendField(dst, c.field, event)
		} else if dst = appendNode(dst, c, event); len(dst) == start+2 {
			dst = dst[:start] // an empty object
		}
		if len(dst) == start {
			dst = dst[:before]
			continue
		}
		first = false
	}
	return append(dst, '}')
}

// appendField appends the value of the field, and nothing where it is absent or belongs to the body of
// another dataset.
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
		var few [16]string
		return appendList(dst, field.Strs(event, few[:0]), appendString)
	case field.Nums != nil:
		var few [16]int64
		return appendList(dst, field.Nums(event, few[:0]), func(dst []byte, n int64) []byte { return strconv.AppendInt(dst, n, 10) })
	default:
		return appendLabels(dst, field.Labels(event))
	}
}

func appendList[T any](dst []byte, list []T, one func([]byte, T) []byte) []byte {
	dst = append(dst, '[')
	for i, v := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = one(dst, v)
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

// appendString quotes s for JSON (RFC 8259 section 7). Bytes that are not UTF-8 become U+FFFD, since text
// from the network may be anything. All control characters are escaped, also DEL and U+0080 to U+009F, so
// that printed JSON does not steer a terminal. Invariant of the loop: s[plain:i] needs no escape and is not
// yet appended.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	plain := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c < 0x7f {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r < 0xa0 { // a C1 control character: some terminals take it for the start of a sequence
				dst = append(append(dst, s[plain:i]...), '\\', 'u', '0', '0', hexDigits[r>>4], hexDigits[r&15])
				i += n
				plain = i
				continue
			}
			if r != utf8.RuneError || n > 1 {
				i += n
				continue
			}
		}
		dst = append(dst, s[plain:i]...)
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
	dst = append(dst, s[plain:]...)
	return append(dst, '"')
}
