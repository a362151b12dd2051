package rules

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"tidegate/pipeline"
)

const (
	maxValue    = 300  // runes of one value in an evidence
	maxEvidence = 2000 // bytes of an evidence
	maxGroup    = 256  // bytes of a group
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
	var faults []syntaxError
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
				return nil, append(faults, syntaxError{at, "{ without }"})
			}
			name := strings.TrimSpace(t[i+1 : i+end])
			i += end + 1
			f := pipeline.Lookup(name)
			if f == nil {
				faults = append(faults, syntaxError{at, fmt.Sprintf("unknown field %q%s", name, didYouMean(name, fieldNames()))})
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
	return out, faults
}

// render gives the evidence of e: a text of its own, bounded, without control characters.
func (t template) render(e *pipeline.Event) string {
	var b strings.Builder
	for _, p := range t {
		if p.field == nil {
			b.WriteString(p.text)
		} else {
			writePrintable(&b, fieldText(p.field, e), maxValue)
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

// fieldText is the text of a field. It may alias the event.
func fieldText(f *pipeline.Field, e *pipeline.Event) string {
	switch {
	case f.Str != nil:
		return f.Str(e)
	case f.Num != nil:
		return strconv.FormatInt(f.Num(e), 10)
	case f.Flag != nil:
		return strconv.FormatBool(f.Flag(e))
	case f.Time != nil:
		return time.Unix(0, f.Time(e)).UTC().Format(time.RFC3339Nano)
	case f.IP != nil:
		if a := f.IP(e); a.IsValid() {
			return a.String()
		}
		return ""
	case f.Raw != nil:
		if f.Name == "network.community_id" {
			return pipeline.CommunityIDText(f.Raw(e))
		}
		return fmt.Sprintf("%x", f.Raw(e))
	case f.Strs != nil:
		list := f.Strs(e, nil)
		if len(list) > 20 {
			list = append(list[:20:20], "…")
		}
		return strings.Join(list, ", ")
	case f.Nums != nil:
		var parts []string
		for i, n := range f.Nums(e, nil) {
			if i == 20 {
				parts = append(parts, "…")
				break
			}
			parts = append(parts, strconv.FormatInt(n, 10))
		}
		return strings.Join(parts, ", ")
	case f.Labels != nil:
		var parts []string
		for _, l := range f.Labels(e) {
			parts = append(parts, l.GetKey()+"="+l.GetValue())
		}
		return strings.Join(parts, ", ")
	}
	return ""
}

// groupOf is what a rule's alerts are folded by: its fields' values, or the container, or the host. Values that are too long keep
// their difference as a hash.
func groupOf(fields []*pipeline.Field, e *pipeline.Event) string {
	if len(fields) == 0 {
		if id := e.GetContainer().GetId(); id != "" {
			return strings.Clone(id)
		}
		return strings.Clone(e.GetHost().GetId())
	}
	var b strings.Builder
	for i, f := range fields {
		if i > 0 {
			b.WriteByte('|')
		}
		b.WriteString(fieldText(f, e))
	}
	g := strings.ToValidUTF8(b.String(), "�")
	if len(g) <= maxGroup {
		return g
	}
	return strings.ToValidUTF8(g[:maxGroup-13], "") + "~" + shortHash(g)
}
