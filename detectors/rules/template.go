package rules

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"tidegate/pipeline"
)

const (
	maxValueRunes = 300  // of one field in the evidence of a verdict
	maxEvidence   = 2000 // bytes
	maxGroupBytes = 256
)

// A template is the text of an alert, in parts that are plain text or a field.
type template []templatePart

type templatePart struct {
	text  string
	field *pipeline.Field // nil: plain text
}

// parseTemplate parses text with {field} in it; {{ and }} stand for braces.
func parseTemplate(t string) (template, []syntaxError) {
	var out template
	var errs []syntaxError
	var plain strings.Builder
	flush := func() {
		if plain.Len() > 0 {
			out = append(out, templatePart{text: plain.String()})
			plain.Reset()
		}
	}
	// plain gathers text up to the next field; i is always at the start of a rune or brace.
	for i := 0; i < len(t); {
		switch {
		case strings.HasPrefix(t[i:], "{{"), strings.HasPrefix(t[i:], "}}"):
			plain.WriteByte(t[i])
			i += 2
		case t[i] == '{':
			end := strings.IndexByte(t[i:], '}')
			at := utf8.RuneCountInString(t[:i])
			if end < 0 {
				return nil, append(errs, syntaxError{at, "a closing } is missing"})
			}
			name := strings.TrimSpace(t[i+1 : i+end])
			i += end + 1
			field := pipeline.Lookup(name)
			if field == nil { // All unknown fields are reported.
				errs = append(errs, syntaxError{at, unknownName(name, nil)})
				continue
			}
			flush()
			out = append(out, templatePart{field: field})
		default:
			plain.WriteByte(t[i])
			i++
		}
	}
	flush()
	return out, errs
}

// render returns the evidence for e. It aliases nothing of e, is bounded and has no control characters.
func (t template) render(e *pipeline.Event) string {
	var b strings.Builder
	for _, part := range t {
		if part.field == nil {
			b.WriteString(part.text)
		} else {
			writePrintable(&b, part.field.Text(e), maxValueRunes)
		}
		if b.Len() > maxEvidence {
			return strings.ToValidUTF8(b.String()[:maxEvidence], "") + "…"
		}
	}
	return b.String()
}

// writePrintable writes at most limit runes of s in a form that a terminal can show: what the network sent
// must not control it.
func writePrintable(b *strings.Builder, s string, limit int) {
	runes := 0
	for _, r := range s {
		if runes++; runes > limit {
			b.WriteString("…")
			return
		}
		switch {
		case r == utf8.RuneError:
			b.WriteRune('�')
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r == '\n' || r == '\t' || r == '\r':
			b.WriteByte(' ')
		default:
			fmt.Fprintf(b, `\u%04x`, r)
		}
	}
}

// groupOf returns the group of a verdict, by which verdicts become one alert: the values of fields, or else
// the container or host. Of values that are too long it keeps the beginning and a hash.
func groupOf(fields []*pipeline.Field, e *pipeline.Event) string {
	if len(fields) == 0 {
		return strings.Clone(e.Owner())
	}
	var b strings.Builder
	for i, field := range fields {
		if i > 0 {
			b.WriteByte('|')
		}
		b.WriteString(field.Text(e))
	}
	group := strings.ToValidUTF8(b.String(), "�")
	if len(group) <= maxGroupBytes {
		return group
	}
	hash := "~" + shortHash(group)
	return strings.ToValidUTF8(group[:maxGroupBytes-len(hash)], "") + hash
}
