// Package log4j resolves the lookups of Log4j in a text: ${lower:J} becomes j, ${env:NONE:-n} becomes n. Old
// versions of Log4j resolve them in what they log, and load code for ${jndi:ldap://…} (CVE-2021-44228).
// Scanners hide the word jndi from filters by lookups in lookups, so that a filter has to look for the
// structure, not for spellings.
//
// protocols/http resolves header fields and targets, detectors/rules the texts of the function lookups().
//
// See https://logging.apache.org/log4j/2.x/manual/lookups.html; StrSubstitutor of log4j-core has the order in
// which nested lookups are resolved.
package log4j

import (
	"bytes"
	"encoding/base64"
	"strings"
)

// maxDepth is the number of lookups in lookups that are resolved. A text with more has JNDI put at its end,
// since none but an attack has that many.
const maxDepth = 64

// maxDecoded is the number of times that what a base64 lookup held is resolved in turn.
const maxDecoded = 2

// JNDI is the beginning of a JNDI lookup. What Resolve returns has it if the text has a JNDI lookup in any
// form.
const JNDI = "${jndi:"

// MayHold reports whether text may hold a lookup.
func MayHold(text string) bool {
	return strings.Contains(text, "${") || strings.Contains(text, `\u00`)
}

// A level is a lookup that is open.
type level struct {
	start      int  // index of its ${ in the output
	jndi       bool // it is a JNDI lookup, or holds one
	unresolved bool // it holds a lookup whose value is not known
}

// A resolver resolves one text.
type resolver struct {
	out    []byte
	levels [maxDepth]level
	depth  int
	deep   bool // there were more than maxDepth levels
}

// Resolve appends text to dst with its lookups resolved and \u0024, as JSON writes a dollar, decoded. A
// lookup whose value is not known, such as one of the environment without a default value, stays. A JNDI
// lookup stays, with its prefix in lower case, and so does each lookup around it.
func Resolve(dst, text []byte) []byte {
	return resolve(dst, text, 0)
}

func resolve(dst, text []byte, decoded int) []byte {
	// The output of this text begins at len(dst); what is before is not touched.
	r := resolver{out: dst}
	for i := 0; i < len(text); {
		char, size := next(text[i:])
		i += size
		switch {
		case char == '$':
			if brace, size := next(text[i:]); brace == '{' {
				i += size
				r.openLookup()
				continue
			}
			r.out = append(r.out, char)
		case char == '}' && r.depth > 0:
			r.closeLookup(decoded)
		default:
			r.out = append(r.out, char)
		}
	}
	r.foldOpen()
	if r.deep {
		r.out = append(r.out, JNDI...)
	}
	return r.out
}

// next returns the character at the front of text, and its size there: \u0024 is one of six bytes.
func next(text []byte) (char byte, size int) {
	if len(text) == 0 {
		return 0, 0
	}
	if text[0] != '\\' || len(text) < 6 || text[1] != 'u' || text[2] != '0' || text[3] != '0' {
		return text[0], 1
	}
	high, low := digit(text[4]), digit(text[5])
	if high < 2 || high > 7 || low < 0 {
		return text[0], 1
	}
	return byte(high<<4 | low), 6
}

// digit returns the value of a hexadecimal digit, or −1.
func digit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}

// openLookup begins a lookup.
func (r *resolver) openLookup() {
	if r.depth == maxDepth {
		r.deep = true
	} else {
		r.levels[r.depth] = level{start: len(r.out)}
		r.depth++
	}
	r.out = append(r.out, '$', '{')
}

// closeLookup ends the innermost lookup and replaces it by its value, if that is known.
func (r *resolver) closeLookup(decoded int) {
	r.depth--
	ended := r.levels[r.depth]
	content := r.out[ended.start+2:]
	jndi := ended.jndi || isJNDI(content) || ended.unresolved && holdsScheme(content)
	if jndi {
		r.foldAt(ended.start, content)
		r.out = append(r.out, '}')
	} else if value, known := valueOf(content); known {
		if isBase64(content) {
			jndi = r.decode(ended.start, value, decoded)
		} else {
			r.out = r.out[:ended.start+copy(r.out[ended.start:], value)]
		}
	} else {
		ended.unresolved = true
		r.out = append(r.out, '}')
	}
	if r.depth > 0 {
		outer := &r.levels[r.depth-1]
		outer.jndi = outer.jndi || jndi
		outer.unresolved = outer.unresolved || ended.unresolved
	}
}

// foldOpen writes the prefixes of JNDI lookups that do not end, such as those of a text that was cut.
func (r *resolver) foldOpen() {
	for _, level := range r.levels[:r.depth] {
		if content := r.out[level.start+2:]; isJNDI(content) {
			r.foldAt(level.start, content)
		}
	}
}

// foldAt writes the prefix of a JNDI lookup at start in lower case. A lookup that has none, but holds one
// that is not known before the name of a scheme, gets one.
func (r *resolver) foldAt(start int, content []byte) {
	switch {
	case isJNDI(content):
		copy(r.out[start:], JNDI)
	case !bytes.Contains(content, []byte(JNDI)):
		r.out = append(r.out, JNDI...)
	}
}

// decode replaces the lookup at start by the text that value encodes, with its lookups resolved, and reports
// whether it has a JNDI lookup.
func (r *resolver) decode(start int, value []byte, decoded int) (jndi bool) {
	text := make([]byte, base64.RawStdEncoding.DecodedLen(len(value)))
	size, err := base64.RawStdEncoding.Decode(text, bytes.TrimRight(value, "="))
	if err != nil {
		size, err = base64.RawURLEncoding.Decode(text, bytes.TrimRight(value, "="))
	}
	r.out = r.out[:start]
	if err != nil {
		return false
	}
	if decoded < maxDecoded {
		r.out = resolve(r.out, text[:size], decoded+1)
	} else {
		r.out = append(r.out, JNDI...)
	}
	return bytes.Contains(r.out[start:], []byte(JNDI))
}

// isJNDI reports whether content is that of a JNDI lookup.
func isJNDI(content []byte) bool { return hasPrefix(content, "jndi:") }

// isBase64 reports whether content is that of a base64 lookup.
func isBase64(content []byte) bool { return hasPrefix(content, "base64:") }

// hasPrefix reports whether content begins with prefix, in upper or lower case.
func hasPrefix(content []byte, prefix string) bool {
	return len(content) >= len(prefix) && bytes.EqualFold(content[:len(prefix)], []byte(prefix))
}

// schemes are the names of the protocols that JNDI speaks, between the colons of a lookup.
var schemes = [][]byte{
	[]byte(":ldap:"), []byte(":ldaps:"), []byte(":rmi:"), []byte(":dns:"), []byte(":iiop:"), []byte(":nis:"), []byte(":corba:"),
}

// maxScheme is the number of bytes of a lookup in which a scheme is searched.
const maxScheme = 512

// holdsScheme reports whether content names one of schemes near its beginning.
func holdsScheme(content []byte) bool {
	content = content[:min(len(content), maxScheme)]
	if bytes.IndexByte(content, ':') < 0 {
		return false
	}
	content = bytes.ToLower(content)
	for _, scheme := range schemes {
		if bytes.Contains(content, scheme) {
			return true
		}
	}
	return false
}

// maxPattern is the longest pattern of a date that is resolved.
const maxPattern = 512

// valueOf returns the value of the lookup with the content, in which all lookups are resolved. known is false
// if it depends on the process that logs.
func valueOf(content []byte) (value []byte, known bool) {
	name, fallback, hasFallback := bytes.Cut(content, []byte(":-"))
	prefix, key, _ := bytes.Cut(name, []byte(":"))
	switch {
	case equal(prefix, "lower"), equal(prefix, "base64"):
		return key, true
	case equal(prefix, "upper"):
		return upper(key), true
	case equal(prefix, "date") && len(key) <= maxPattern && bytes.IndexByte(key, '\'') >= 0:
		return quoted(key), true
	case equal(prefix, "sys") && string(key) == "file.separator":
		return []byte("/"), true
	case equal(prefix, "sys") && string(key) == "path.separator":
		return []byte(":"), true
	}
	return fallback, hasFallback
}

// equal compares the prefix of a lookup.
func equal(prefix []byte, name string) bool {
	return len(prefix) == len(name) && bytes.EqualFold(prefix, []byte(name))
}

// upper replaces the two letters whose upper case is an ASCII letter and that are none themselves, in place:
// the dotless i and the long s. The case of ASCII letters stays, since no prefix depends on it.
func upper(text []byte) []byte {
	if bytes.IndexByte(text, 0xc4) < 0 && bytes.IndexByte(text, 0xc5) < 0 {
		return text
	}
	out := text[:0]
	for i := 0; i < len(text); i++ {
		if i+1 < len(text) {
			switch {
			case text[i] == 0xc4 && text[i+1] == 0xb1:
				out = append(out, 'I')
				i++
				continue
			case text[i] == 0xc5 && text[i+1] == 0xbf:
				out = append(out, 'S')
				i++
				continue
			}
		}
		out = append(out, text[i])
	}
	return out
}

// quoted returns what a pattern for dates has between quotes, in place: that is written as it is.
func quoted(pattern []byte) []byte {
	out, inside := pattern[:0], false
	for _, char := range pattern {
		if char == '\'' {
			inside = !inside
		} else if inside {
			out = append(out, char)
		}
	}
	return out
}
