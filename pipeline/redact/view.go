package redact

import (
	"bytes"
	"unicode/utf8"
)

// maxDepth bounds how often a text is decoded: an escaped document in a percent-encoded URL in a JSON string.
const maxDepth = 5

// maxRare bounds how often a text is decoded before entities and the blanks of forms are: they are rarely
// within others.
const maxRare = 3

// A view is a text, or a decoded form of it, with the original offset of each byte.
type view struct {
	text  []byte
	base  int     // offset of text, if there is no table
	table []int32 // original offsets of the bytes of text, and of its end
}

// at returns the original offset of text[i].
func (v view) at(i int) int {
	if v.table == nil {
		return v.base + i
	}
	return int(v.table[i])
}

// part returns the view of text[from:to].
func (v view) part(from, to int) view {
	if v.table == nil {
		return view{text: v.text[from:to:to], base: v.base + from}
	}
	return view{text: v.text[from:to:to], table: v.table[from : to+1]}
}

// A viewBuffer is the memory of the decoded view of one depth.
type viewBuffer struct {
	text  []byte
	table []int32
}

// decoded returns the view that decode makes of v, in the buffer of depth. decode returns the bytes at
// text[i:], which it appends to out, and their width.
func (r *Redactor) decoded(v view, depth int, decode func(out, text []byte, i int) ([]byte, int)) view {
	buffer := &r.views[depth]
	text, table := buffer.text[:0], buffer.table[:0]
	for i := 0; i < len(v.text); {
		before := len(text)
		var width int
		text, width = decode(text, v.text, i)
		for range len(text) - before {
			table = append(table, int32(v.at(i)))
		}
		i += width
	}
	table = append(table, int32(v.at(len(v.text))))
	buffer.text, buffer.table = text, table
	return view{text: text, table: table}
}

// decodePercent decodes one percent-encoded byte.
func decodePercent(out, text []byte, i int) ([]byte, int) {
	if c := encoded(text, i); c >= 0 {
		return append(out, byte(c)), 3
	}
	return append(out, text[i]), 1
}

// decodeForm decodes one percent-encoded byte, or a + that stands for a blank in a form.
func decodeForm(out, text []byte, i int) ([]byte, int) {
	if text[i] == '+' && isFormBlank(text, i) {
		return append(out, ' '), 1
	}
	return decodePercent(out, text, i)
}

// isFormBlank reports whether the + at i may stand for a blank: it is between two bytes that are none.
func isFormBlank(text []byte, i int) bool {
	return i > 0 && i+1 < len(text) && text[i-1] > ' ' && text[i+1] > ' '
}

// hasFormBlank reports whether text may have a form, or the query of a URL, with a + that stands for a blank.
func hasFormBlank(text []byte) bool {
	for from := 0; ; {
		i := bytes.IndexByte(text[from:], '+')
		if i < 0 {
			return false
		}
		if from += i; isFormBlank(text, from) {
			return bytes.IndexByte(text, '=') >= 0 || bytes.IndexByte(text, '?') >= 0 || bytes.IndexByte(text, '%') >= 0
		}
		from++
	}
}

// decodeEscape decodes one escape of a string, as in JSON.
func decodeEscape(out, text []byte, i int) ([]byte, int) {
	if text[i] != '\\' || i+1 == len(text) {
		return append(out, text[i]), 1
	}
	switch c := text[i+1]; c {
	case 'n':
		return append(out, '\n'), 2
	case 't':
		return append(out, '\t'), 2
	case 'r':
		return append(out, '\r'), 2
	case 'b', 'f':
		return append(out, '\n'), 2
	case 'x': // as nginx writes them
		if i+4 <= len(text) {
			if high, low := hexDigit(text[i+2]), hexDigit(text[i+3]); high >= 0 && low >= 0 {
				return append(out, byte(high<<4|low)), 4
			}
		}
		return append(out, '\\'), 1
	case 'u':
		if i+6 <= len(text) {
			var char rune
			for _, digit := range text[i+2 : i+6] {
				value := hexDigit(digit)
				if value < 0 {
					return append(out, '\\'), 1
				}
				char = char<<4 | rune(value)
			}
			return utf8.AppendRune(out, char), 6
		}
		return append(out, '\\'), 1
	default:
		if folded[c] > separator { // no escape: a path of Windows, a regular expression
			return append(out, '\\'), 1
		}
		return append(out, c), 2
	}
}

// entities are the references to characters of XML and HTML that divide names from values.
var entities = [...]struct {
	text string
	char byte
}{
	{"&quot;", '"'},
	{"&apos;", '\''},
	{"&lt;", '<'},
	{"&gt;", '>'},
	{"&amp;", '&'},
}

// decodeEntity decodes one of entities.
func decodeEntity(out, text []byte, i int) ([]byte, int) {
	if text[i] == '&' {
		for _, known := range entities {
			if len(text)-i >= len(known.text) && string(text[i:i+len(known.text)]) == known.text {
				return append(out, known.char), len(known.text)
			}
		}
		if char, width := numericEntity(text[i:]); width > 0 {
			return append(out, char), width
		}
	}
	return append(out, text[i]), 1
}

// numericEntity returns the character of ASCII to which the front of text refers by its number, and the length of the
// reference; 0: it does not.
func numericEntity(text []byte) (char byte, width int) {
	if len(text) < 4 || text[1] != '#' {
		return 0, 0
	}
	base, pos := 10, 2
	if text[2]|0x20 == 'x' {
		base, pos = 16, 3
	}
	number := 0
	for from := pos; pos < len(text) && pos-from < 4; pos++ {
		digit := hexDigit(text[pos])
		if digit < 0 || digit >= base {
			break
		}
		number = number*base + digit
	}
	if pos == len(text) || text[pos] != ';' || number < ' ' || number > 0x7e {
		return 0, 0
	}
	return byte(number), pos + 1
}

// hasEntity reports whether text has one of entities.
func hasEntity(text []byte) bool {
	for from := 0; ; {
		i := bytes.IndexByte(text[from:], '&')
		if i < 0 {
			return false
		}
		from += i + 1
		if from+2 < len(text) && bytes.IndexByte([]byte("qa#lg"), text[from]) >= 0 {
			if _, width := decodeEntity(nil, text, from-1); width > 1 {
				return true
			}
		}
	}
}

// decodeColour drops the sequences that set colours of a terminal: ESC [ … m.
func decodeColour(out, text []byte, i int) ([]byte, int) {
	if n := colourLen(text, i); n > 0 {
		return out, n
	}
	return append(out, text[i]), 1
}

// colourLen returns the length of the colour sequence at text[i], or 0.
func colourLen(text []byte, i int) int {
	if text[i] != '\x1b' || i+1 >= len(text) || text[i+1] != '[' {
		return 0
	}
	for j := i + 2; j < len(text) && j < i+32; j++ {
		switch c := text[j]; {
		case c >= '0' && c <= '9' || c == ';' || c == ':':
		case c == 'm' || c == 'K':
			return j + 1 - i
		default:
			return 0
		}
	}
	return 0
}

// hasEscapes reports whether text has a backslash in front of a quote or of the letter of an escape.
func hasEscapes(text []byte) bool {
	for from := 0; ; {
		i := bytes.IndexByte(text[from:], '\\')
		if i < 0 || from+i+1 >= len(text) {
			return false
		}
		switch text[from+i+1] {
		case '"', '\'', '\\', 'n', 't', 'r', 'u', '/':
			return true
		case 'x':
			if _, width := decodeEscape(nil, text, from+i); width > 1 {
				return true
			}
		}
		from += i + 1
	}
}

// hasPercent reports whether text has a percent-encoded byte.
func hasPercent(text []byte) bool {
	for from := 0; ; {
		i := bytes.IndexByte(text[from:], '%')
		if i < 0 {
			return false
		}
		if encoded(text, from+i) >= 0 {
			return true
		}
		from += i + 1
	}
}
