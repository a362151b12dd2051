package rules

import (
	"crypto/sha256"
	"encoding/hex"
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

// A template is the text of an alert. Each part is plain text, a field, a value of let, or, where the author has written
// none, a field behind its name, which is left out if the event has no value.
type template []templatePart

type templatePart struct {
	text  string
	field *pipeline.Field
	let   *letValue // if field is nil; both nil: plain text
}

// parseTemplate parses a text with fields and values of let of a rule as {name}; {{ and }} stand for braces.
func parseTemplate(text string, rule *parsedRule) (template, []syntaxError) {
	var out template
	var errs []syntaxError
	var plain strings.Builder
	flush := func() {
		if plain.Len() > 0 {
			out = append(out, templatePart{text: plain.String()})
			plain.Reset()
		}
	}

	// Invariant: plain holds the text since the last field, and i is not inside {name}.
	for i := 0; i < len(text); {
		switch {
		case strings.HasPrefix(text[i:], "{{"), strings.HasPrefix(text[i:], "}}"):
			plain.WriteByte(text[i])
			i += 2
		case text[i] == '{':
			end := strings.IndexByte(text[i:], '}')
			at := utf8.RuneCountInString(text[:i])
			if end < 0 {
				return nil, append(errs, syntaxError{at, "a closing } is missing"})
			}
			name := strings.TrimSpace(text[i+1 : i+end])
			i += end + 1
			field, let := lookupField(name), rule.let(name)
			if field == nil && let == nil { // All unknown fields are reported.
				errs = append(errs, syntaxError{at, rule.unknownValue(name)})
				continue
			}
			flush()
			out = append(out, templatePart{field: field, let: let})
		default:
			plain.WriteByte(text[i])
			i++
		}
	}
	flush()
	return out, errs
}

// render returns the evidence for the current event. The result shares no memory with the event, has a limited length,
// and has no control characters.
func (t template) render(v *eventValues) string {
	event := v.event
	var out strings.Builder
	for _, part := range t {
		switch {
		case part.let != nil:
			value, _ := part.let.read(v)
			writePrintable(&out, value, maxValueRunes)
		case part.field == nil:
			out.WriteString(part.text)
		case part.text == "":
			writePrintable(&out, part.field.Text(event), maxValueRunes)
		case part.field.Has(event):
			if out.Len() > 0 {
				out.WriteByte(' ')
			}
			out.WriteString(part.text)
			writePrintable(&out, part.field.Text(event), maxValueRunes)
		}
		if out.Len() > maxEvidence {
			return strings.ToValidUTF8(out.String()[:maxEvidence], "") + "…"
		}
	}
	return out.String()
}

// writePrintable writes at most limit runes of s. It replaces control characters, so that text from the
// network cannot control a terminal.
func writePrintable(out *strings.Builder, s string, limit int) {
	runes := 0
	for _, char := range s {
		if runes++; runes > limit {
			out.WriteString("…")
			return
		}
		switch {
		case char == utf8.RuneError:
			out.WriteRune('�')
		case unicode.IsPrint(char):
			out.WriteRune(char)
		case char == '\n' || char == '\t' || char == '\r':
			out.WriteByte(' ')
		default:
			fmt.Fprintf(out, `\u%04x`, char)
		}
	}
}

// groupOf returns the group of a verdict; verdicts of one rule and group become one alert. The group is made
// of the names and values of fields and of let, or else it is the container or host. Different values have different
// groups. A group that is too long is cut and ends with a hash of the whole.
//
// names are the names of the fields in the group: those of the first step where a step of a correlation rule
// has other fields.
func groupOf(values []ruleValue, names []string, v *eventValues) string {
	if len(values) == 0 {
		return v.event.OwnerGroup()
	}
	var buf [maxGroupBytes]byte
	group := buf[:0]
	for i, value := range values {
		group = pipeline.AppendGroup(group, names[i], value.text(v))
	}
	if len(group) <= maxGroupBytes {
		return string(group)
	}
	sum := sha256.Sum256(group)
	hash := "~" + hex.EncodeToString(sum[:8])
	return strings.ToValidUTF8(string(group[:maxGroupBytes-len(hash)]), "") + hash
}
