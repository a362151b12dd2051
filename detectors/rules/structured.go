package rules

import (
	"strings"
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"
)

// A log line often is a record in one of three forms, of which value() reads a key:
//
//	JSON            an object; a dot steps into an object, and into the first element of a list that has the key
//	XML             an event of Sysmon or of Windows: <Data Name="key">…</Data> or <key>…</key>
//	key=value       auditd, logfmt, syslog: key=word, key="text" or key='text'
//
// The work is linear in the text: each step of a path reads its object once, and a path has few steps.

// The bounds of a key of value().
const (
	maxKeyBytes = 200
	maxKeySteps = 10
)

// valueInto returns the value of key in text, "" if text has none. A value with escapes is written to buf.
func valueInto(buf *[]byte, text, key string) string {
	start := skipBlanks(text, 0)
	if start < len(text) && text[start] == '{' {
		return jsonValue(buf, text[start:], key)
	}
	if event := strings.Index(text, "<Event"); event >= 0 && !strings.Contains(text[:event], "=") { // not within a value
		if found := xmlValue(buf, text[event:], key); found != "" {
			return found
		}
	}
	return pairValue(buf, text, key)
}

func skipBlanks(text string, i int) int {
	for i < len(text) && (text[i] == ' ' || text[i] == '\t' || text[i] == '\n' || text[i] == '\r') {
		i++
	}
	return i
}

// pairValue returns the value of key=value. A key within a value in double quotes is none: who chooses a name or a text of the line, as
// a process does with its comm, would choose every value.
func pairValue(buf *[]byte, text, key string) string {
	for from := 0; ; {
		i := strings.Index(text[from:], key)
		if i < 0 {
			return ""
		}
		i += from
		if behind := quotedValueEnd(text, from, i); behind > i {
			from = behind
			continue
		}
		end := i + len(key)
		from = end
		if end >= len(text) || text[end] != '=' || i > 0 && isWordByte(text[i-1]) {
			continue
		}
		rest := text[end+1:]
		if rest == "" {
			return ""
		}
		if quote := rest[0]; quote == '"' || quote == '\'' {
			return quotedValue(buf, rest[1:], quote)
		}
		end = 0
		for end < len(rest) && rest[end] > ' ' && rest[end] != 0x7f {
			end++
		}
		word := strings.TrimRight(rest[:end], `,;'")`)
		if isAuditHex(text, key, word) {
			return decodeHexInto(buf, word)
		}
		return word
	}
}

// quotedValueEnd returns the index behind the value in double quotes that holds text[i] and begins behind from; 0 if there is none. Single quotes
// are left out, since auditd puts pairs between them.
func quotedValueEnd(text string, from, i int) int {
	for at := from; ; {
		mark := strings.Index(text[at:i], `="`)
		if mark < 0 {
			return 0
		}
		at += mark + 2
		for at < len(text) && text[at] != '"' {
			if text[at] == '\\' {
				at++
			}
			at++
		}
		if at >= len(text) {
			return 0 // it does not end
		}
		if at++; at > i {
			return at
		}
	}
}

// isWordByte reports whether b can be a part of a key.
func isWordByte(b byte) bool {
	return b == '_' || b == '-' || b == '.' || b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= 0x80
}

// quotedValue returns the text up to the next quote. A backslash in front of a quote or of a backslash is left out.
func quotedValue(buf *[]byte, rest string, quote byte) string {
	escaped := false
	for i := 0; i < len(rest); i++ {
		switch {
		case rest[i] == '\\' && i+1 < len(rest) && (rest[i+1] == quote || rest[i+1] == '\\'):
			escaped = true
			i++
		case rest[i] == quote:
			if !escaped {
				return rest[:i]
			}
			return unquoteInto(buf, rest[:i], quote)
		}
	}
	if !escaped {
		return rest
	}
	return unquoteInto(buf, rest, quote)
}

func unquoteInto(buf *[]byte, text string, quote byte) string {
	out := (*buf)[:0]
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+1 < len(text) && (text[i+1] == quote || text[i+1] == '\\') {
			i++
		}
		out = append(out, text[i])
	}
	*buf = out
	return unsafe.String(unsafe.SliceData(out), len(out))
}

// isAuditHex reports whether word is a text of auditd in hexadecimal: auditd writes a text that a user chose in quotes, and
// in upper-case digits without quotes if it has a blank, a quote or a control character.
func isAuditHex(text, key, word string) bool {
	if len(word) == 0 || len(word)%2 != 0 || !strings.Contains(text, "msg=audit(") {
		return false
	}
	for i := range len(word) {
		if c := word[i]; (c < '0' || c > '9') && (c < 'A' || c > 'F') {
			return false
		}
	}
	switch key {
	case "comm", "exe", "name", "cwd", "proctitle", "key", "cmd", "data", "dir", "path", "vm":
		return true
	}
	isArgument := key[0] == 'a' && len(key) > 1 && strings.Trim(key[1:], "0123456789") == ""
	return isArgument && strings.Contains(text, "type=EXECVE ")
}

// decodeHexInto decodes hexadecimal digits; a NUL, which divides the words of a proctitle, becomes a blank.
func decodeHexInto(buf *[]byte, word string) string {
	out := (*buf)[:0]
	for i := 0; i+1 < len(word); i += 2 {
		char := byte(hexDigit(word[i])<<4 | hexDigit(word[i+1]))
		if char == 0 {
			char = ' '
		}
		out = append(out, char)
	}
	*buf = out
	return unsafe.String(unsafe.SliceData(out), len(out))
}

// xmlValue returns the content of <Data Name="key"> or of <key>.
func xmlValue(buf *[]byte, text, key string) string {
	for from := 0; ; {
		i := strings.Index(text[from:], key)
		if i < 0 {
			return ""
		}
		i += from
		end := i + len(key)
		from = end
		attribute := strings.HasSuffix(text[:i], `Name="`) && strings.HasPrefix(text[end:], `">`)
		element := strings.HasSuffix(text[:i], "<") && strings.HasPrefix(text[end:], ">")
		switch {
		case attribute:
			end += 2
		case element:
			end++
		default:
			continue
		}
		content, _, _ := strings.Cut(text[end:], "<")
		if !strings.Contains(content, "&") {
			return content
		}
		return unescapeXMLInto(buf, content)
	}
}

var xmlEntities = []struct{ name, text string }{
	{"&lt;", "<"}, {"&gt;", ">"}, {"&quot;", `"`}, {"&apos;", "'"}, {"&#39;", "'"}, {"&#34;", `"`}, {"&amp;", "&"},
}

func unescapeXMLInto(buf *[]byte, text string) string {
	out := (*buf)[:0]
	for i := 0; i < len(text); {
		size := 0
		if text[i] == '&' {
			for _, entity := range xmlEntities {
				if strings.HasPrefix(text[i:], entity.name) {
					out, size = append(out, entity.text...), len(entity.name)
					break
				}
			}
		}
		if size == 0 {
			out, size = append(out, text[i]), 1
		}
		i += size
	}
	*buf = out
	return unsafe.String(unsafe.SliceData(out), len(out))
}

// jsonValue returns the value at a path in a JSON object: a text unescaped, anything else as it is written. A key that
// has dots itself is found too. null is "".
func jsonValue(buf *[]byte, text, path string) string {
	// Most lines do not have the key: a search for its name costs a tenth of reading the objects.
	if first, _, _ := strings.Cut(path, "."); !strings.Contains(text, first) {
		return ""
	}
	raw := jsonFind(text, path, maxKeySteps)
	switch {
	case raw == "" || raw == "null":
		return ""
	case raw[0] != '"':
		return raw
	}
	raw = strings.TrimSuffix(raw[1:], `"`)
	if !strings.Contains(raw, `\`) {
		return raw
	}
	return unescapeJSONInto(buf, raw)
}

// jsonFind returns the value at a path of the object or list at the beginning of text, as it is written.
func jsonFind(text, path string, steps int) string {
	if steps == 0 || text == "" {
		return ""
	}
	switch text[0] {
	case '{':
		for i := skipBlanks(text, 1); i < len(text) && text[i] == '"'; {
			end := jsonEnd(text, i)
			name := strings.TrimSuffix(text[i+1:end], `"`)
			if i = skipBlanks(text, end); i >= len(text) || text[i] != ':' {
				return ""
			}
			i = skipBlanks(text, i+1)
			end = jsonEnd(text, i)
			if name == path {
				return text[i:end]
			}
			if len(path) > len(name) && path[len(name)] == '.' && strings.HasPrefix(path, name) {
				if found := jsonFind(text[i:end], path[len(name)+1:], steps-1); found != "" {
					return found
				}
			}
			if i = skipBlanks(text, end); i < len(text) && text[i] == ',' {
				i = skipBlanks(text, i+1)
			}
		}
	case '[':
		for i := skipBlanks(text, 1); i < len(text) && text[i] != ']'; {
			end := jsonEnd(text, i)
			if found := jsonFind(text[i:end], path, steps-1); found != "" {
				return found
			}
			if end == i {
				return ""
			}
			if i = skipBlanks(text, end); i < len(text) && text[i] == ',' {
				i = skipBlanks(text, i+1)
			}
		}
	}
	return ""
}

// jsonEnd returns the index behind the value that begins at i. Of a text that is cut it is the end of the text.
func jsonEnd(text string, i int) int {
	depth := 0
	for i < len(text) {
		switch c := text[i]; c {
		case '"':
			for i++; i < len(text) && text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
			i = min(i+1, len(text))
			if depth == 0 {
				return i
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
			if depth < 0 {
				return i
			}
		case ',', ' ', '\t', '\n', '\r', ':':
			if depth == 0 {
				return i
			}
		}
		i++
	}
	return i
}

func unescapeJSONInto(buf *[]byte, text string) string {
	out := (*buf)[:0]
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' || i+1 == len(text) {
			out = append(out, text[i])
			continue
		}
		i++
		switch text[i] {
		case 'n':
			out = append(out, '\n')
		case 't':
			out = append(out, '\t')
		case 'r':
			out = append(out, '\r')
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'u':
			char := jsonRune(text[i+1:])
			if char < 0 {
				out = append(out, `\u`...)
				continue
			}
			i += 4
			if utf16.IsSurrogate(char) && strings.HasPrefix(text[i+1:], `\u`) {
				if low := jsonRune(text[i+3:]); low >= 0 {
					char = utf16.DecodeRune(char, low)
					i += 6
				}
			}
			out = utf8.AppendRune(out, char)
		default:
			out = append(out, text[i])
		}
	}
	*buf = out
	return unsafe.String(unsafe.SliceData(out), len(out))
}

// jsonRune returns the character of four hexadecimal digits, -1 if text does not begin with them.
func jsonRune(text string) rune {
	if len(text) < 4 {
		return -1
	}
	char := rune(0)
	for i := range 4 {
		digit := hexDigit(text[i])
		if digit < 0 {
			return -1
		}
		char = char<<4 | rune(digit)
	}
	return char
}
