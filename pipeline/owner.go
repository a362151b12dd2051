package pipeline

import (
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Owner returns the ID of the event's container, else the ID of its host, else the name of its host. All
// events of one owner are in one partition. The result aliases e.
func (e *Event) Owner() string {
	if id := e.GetContainer().GetId(); id != "" {
		return id
	}
	if id := e.GetHost().GetId(); id != "" {
		return id
	}
	return e.GetHost().GetName()
}

// IDText returns event.id as a UUID, or "" if the event has no valid ID.
func (e *Event) IDText() string {
	if len(e.GetId()) != len(ID{}) {
		return ""
	}
	return rawText(e.Id)
}

// IDText returns the text of an id of an event, as event.id has it.
func IDText(id ID) string { return rawText(id[:]) }

// End returns the time at which the event ended, ns since 1970.
func (e *Event) End() int64 {
	return e.Timestamp + int64(min(e.Duration, uint64(math.MaxInt64-max(0, e.Timestamp))))
}

// OwnerGroup returns the owner as a group of alerts: container.id=…, host.id=… or host.name=….
func (e *Event) OwnerGroup() string {
	switch {
	case e.GetContainer().GetId() != "":
		return string(AppendGroup(nil, "container.id", e.GetContainer().GetId()))
	case e.GetHost().GetId() != "":
		return string(AppendGroup(nil, "host.id", e.GetHost().GetId()))
	}
	return string(AppendGroup(nil, "host.name", e.GetHost().GetName()))
}

// AppendGroup appends a field and its value to the text of a group of alerts, as in container.id=4f2a source.ip=10.0.0.1.
// A value with a blank, a quote, a backslash, an equals sign or a character that cannot be printed stands between quotes,
// with escapes, so that no value can look like another field and different values have different texts.
func AppendGroup(group []byte, name, value string) []byte {
	if len(group) > 0 {
		group = append(group, ' ')
	}
	group = append(append(group, name...), '=')
	if strings.ContainsFunc(value, needsQuotes) {
		return strconv.AppendQuote(group, value)
	}
	return append(group, value...)
}

// ParseGroup returns the fields of the text of a group, as pairs of name and value in its order. ok is false if AppendGroup
// does not write this text. The text of a group that was cut may be accepted: its last value then ends in "~" and a hash.
func ParseGroup(group string) (fields [][2]string, ok bool) {
	var written []byte
	for rest := group; rest != ""; rest = strings.TrimPrefix(rest, " ") {
		var name, value string
		if name, rest, _ = strings.Cut(rest, "="); name == "" || strings.Contains(name, " ") {
			return nil, false
		}
		if quoted, err := strconv.QuotedPrefix(rest); err == nil {
			value, _ = strconv.Unquote(quoted)
			rest = rest[len(quoted):]
		} else {
			value, _, _ = strings.Cut(rest, " ")
			rest = rest[len(value):]
		}
		fields = append(fields, [2]string{name, value})
		written = AppendGroup(written, name, value)
	}
	return fields, len(fields) > 0 && string(written) == group
}

// needsQuotes reports whether a value with a character stands between quotes in a group. Bytes that are not UTF-8 do, too:
// they are RuneError, which AppendQuote writes as it is where a text has that character.
func needsQuotes(r rune) bool {
	return r == '"' || r == '\\' || r == '=' || r == utf8.RuneError || !strconv.IsPrint(r) || unicode.IsSpace(r)
}
