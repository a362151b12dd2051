package sigma

import (
	"regexp"
	"slices"
	"strings"
)

// A pattern is a text of a Sigma rule with its wildcards.
type pattern []element

// An element is a literal, or a wildcard: '*' for any run of characters, '?' for one.
type element struct {
	text     string
	wildcard byte // 0: text is a literal
}

// parsePattern reads the wildcards and escapes of a text. A backslash escapes a wildcard or a backslash, and
// stands for itself in front of anything else (Sigma specification, "Escaping").
func parsePattern(text string) pattern {
	var out pattern
	var literal strings.Builder
	flush := func() {
		if literal.Len() > 0 {
			out = append(out, element{text: literal.String()})
			literal.Reset()
		}
	}
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && i+1 < len(text) && strings.IndexByte(`\*?`, text[i+1]) >= 0:
			i++
			literal.WriteByte(text[i])
		case c == '*' || c == '?':
			flush()
			if c == '?' || len(out) == 0 || out[len(out)-1].wildcard != '*' { // ** is *
				out = append(out, element{wildcard: c})
			}
		default:
			literal.WriteByte(c)
		}
	}
	flush()
	return out
}

// literalPattern returns the pattern that only text matches.
func literalPattern(text string) pattern {
	if text == "" {
		return nil
	}
	return pattern{{text: text}}
}

// literal returns the text of a pattern without wildcards.
func (p pattern) literal() (text string, ok bool) {
	switch {
	case len(p) == 0:
		return "", true
	case len(p) == 1 && p[0].wildcard == 0:
		return p[0].text, true
	}
	return "", false
}

// size returns the bytes of the literals of a pattern, and its wildcards.
func (p pattern) size() (size int) {
	for _, e := range p {
		size += max(1, len(e.text))
	}
	return size
}

// isAny reports whether p is * alone.
func (p pattern) isAny() bool { return len(p) == 1 && p[0].wildcard == '*' }

// opening and closing return p with * in front of it or behind it.
func (p pattern) opening() pattern {
	if len(p) > 0 && p[0].wildcard == '*' {
		return p
	}
	return append(pattern{{wildcard: '*'}}, p...)
}

func (p pattern) closing() pattern {
	if len(p) > 0 && p[len(p)-1].wildcard == '*' {
		return p
	}
	return append(slices.Clip(p), element{wildcard: '*'})
}

// shape is how the texts that a pattern matches are compared with its literal.
type shape int

const (
	shapeEqual shape = iota
	shapePrefix
	shapeSuffix
	shapePart
	shapeAny     // *
	shapeGeneral // other wildcards
)

// shape returns the shape of p and its literal, "" if it has none.
func (p pattern) shape() (shape, string) {
	if text, ok := p.literal(); ok {
		return shapeEqual, text
	}
	if p.isAny() {
		return shapeAny, ""
	}
	open, closed := p[0].wildcard == '*', p[len(p)-1].wildcard == '*'
	inner := p
	if open {
		inner = inner[1:]
	}
	if closed {
		inner = inner[:len(inner)-1]
	}
	text, ok := inner.literal()
	switch {
	case !ok:
		return shapeGeneral, ""
	case open && closed:
		return shapePart, text
	case open:
		return shapeSuffix, text
	}
	return shapePrefix, text
}

// regex returns a regular expression for all texts that p matches.
func (p pattern) regex() string {
	var out strings.Builder
	out.WriteString("(?s)")
	for i, e := range p {
		switch {
		case e.wildcard == 0:
			if i == 0 {
				out.WriteString(`\A`)
			}
			out.WriteString(regexp.QuoteMeta(e.text))
		case e.wildcard == '?':
			if i == 0 {
				out.WriteString(`\A`)
			}
			out.WriteString(".")
		case i > 0 && i < len(p)-1:
			out.WriteString(".*")
		}
	}
	if p[len(p)-1].wildcard != '*' {
		out.WriteString(`\z`)
	}
	return out.String()
}

// matches reports whether text matches p. It is for the examples, so it needs no speed.
func (p pattern) matches(text string, cased bool) bool {
	if !cased {
		text = strings.ToLower(text)
	}
	at := []int{0} // the places in text that the elements so far can end at, ascending
	for _, e := range p {
		var next []int
		switch {
		case e.wildcard == '*' && len(at) > 0:
			for i := at[0]; i <= len(text); i++ {
				next = append(next, i)
			}
		case e.wildcard == '?':
			for _, i := range at {
				if i < len(text) {
					next = append(next, i+1)
				}
			}
		default:
			literal := e.text
			if !cased {
				literal = strings.ToLower(literal)
			}
			for _, i := range at {
				if strings.HasPrefix(text[i:], literal) {
					next = append(next, i+len(literal))
				}
			}
		}
		at = next
	}
	return len(at) > 0 && at[len(at)-1] == len(text)
}

// sample returns a text that p matches.
func (p pattern) sample() string {
	var out strings.Builder
	for i, e := range p {
		switch {
		case e.wildcard == 0:
			out.WriteString(e.text)
		case e.wildcard == '?', i > 0 && i < len(p)-1, len(p) == 1:
			out.WriteString("x")
		}
	}
	return out.String()
}
