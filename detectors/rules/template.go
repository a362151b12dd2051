package rules

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"tidegate/pipeline"
)

const (
	maxValue      = 300  // runes of one value in an evidence
	maxEvidence   = 2000 // bytes of an evidence
	maxGroupBytes = 256  // bytes of a group
)

// A template is the text of an alert with the fields that stand in it.
type template []templatePart

type templatePart struct {
	text  string
	field *pipeline.Field // nil: text as it is
}

// parseTemplate reads text with {field} in it; {{ and }} are braces.
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
	for i := 0; i < len(t); {
		switch {
		case strings.HasPrefix(t[i:], "{{"), strings.HasPrefix(t[i:], "}}"):
			plain.WriteByte(t[i])
			i += 2
		case t[i] == '{':
			end := strings.IndexByte(t[i:], '}')
			at := utf8.RuneCountInString(t[:i])
			if end < 0 {
				return nil, append(errs, syntaxError{at, "{ without }"})
			}
			name := strings.TrimSpace(t[i+1 : i+end])
			i += end + 1
			f := pipeline.Lookup(name)
			if f == nil {
				errs = append(errs, syntaxError{at, unknownName(name, nil)})
				continue
			}
			flush()
			out = append(out, templatePart{field: f})
		default:
			plain.WriteByte(t[i])
			i++
		}
	}
	flush()
	return out, errs
}

// render gives the evidence of e: a text of its own, bounded, without control characters.
func (t template) render(e *pipeline.Event) string {
	var b strings.Builder
	for _, p := range t {
		if p.field == nil {
			b.WriteString(p.text)
		} else {
			writePrintable(&b, p.field.Text(e), maxValue)
		}
		if b.Len() > maxEvidence {
			return strings.ToValidUTF8(b.String()[:maxEvidence], "") + "…"
		}
	}
	return b.String()
}

// writePrintable writes s for a person: what the network sent must not move a terminal's cursor.
func writePrintable(b *strings.Builder, s string, limit int) {
	n := 0
	for _, r := range s {
		if n++; n > limit {
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

// groupOf is what a rule's alerts are folded by: its fields' values, or the container, or the host. Values that are too long keep
// their difference as a hash.
func groupOf(fields []*pipeline.Field, e *pipeline.Event) string {
	if len(fields) == 0 {
		return strings.Clone(e.Owner())
	}
	var b strings.Builder
	for i, f := range fields {
		if i > 0 {
			b.WriteByte('|')
		}
		b.WriteString(f.Text(e))
	}
	g := strings.ToValidUTF8(b.String(), "�")
	if len(g) <= maxGroupBytes {
		return g
	}
	return strings.ToValidUTF8(g[:maxGroupBytes-13], "") + "~" + shortHash(g)
}
