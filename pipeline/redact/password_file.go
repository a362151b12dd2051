package redact

import (
	"bytes"
	"encoding/binary"
)

// A line of a password file of PostgreSQL, .pgpass, has a password without a name beside it: host:port:database:user:X. A
// field but the last may be *, which stands for any.

// passwordFileMarks are in such lines for the port of PostgreSQL, and in those in which a field stands for any. Lines without
// them are those of other programs, too.
var passwordFileMarks = [...][]byte{[]byte(":5432:"), []byte(":*:")}

// hidePasswordFile hides the passwords of a password file in a text.
func (r *Redactor) hidePasswordFile(v view) {
	for _, mark := range passwordFileMarks {
		for pos := 0; ; {
			i := bytes.Index(v.text[pos:], mark)
			if i < 0 {
				break
			}
			pos += i + 1
			from := pos - 1
			for from > 0 && pos-from < 2*maxName && isInPasswordFile(v.text[from-1]) {
				from--
			}
			start := passwordFileSecret(v.text, from)
			if start == 0 {
				continue
			}
			quote, end := byteBefore(v.text, from), start
			for end < len(v.text) && v.text[end] > ' ' && v.text[end] != '"' && v.text[end] != '\\' && (v.text[end] != quote || !isQuote(quote)) &&
				!beginsEndTag(v.text, end) {
				end++
			}
			if word := v.text[start:end]; !isPlaceholder(word) && !isProseWord(word) {
				r.hide(v, start, end, RuleName)
				pos = end
			}
		}
	}
}

// hidePasswordLine hides the password of a line of a password file with any port, if it looks generated.
func (r *Redactor) hidePasswordLine(data []byte) {
	if len(data) > maxScanned || !isInPasswordFile(data[0]) {
		return
	}
	line := bytes.TrimRight(data, "\r\n")
	start := passwordFileSecret(line, 0)
	if start > 0 && bytes.IndexByte(line[start:], ' ') < 0 && looksGenerated(line[start:], len("secret")) {
		r.hide(view{text: data}, start, len(line), RuleName)
	}
}

// mayBePasswordLine reports whether the first sixteen bytes of data have no blank. Nearly every line has one there.
func mayBePasswordLine(data []byte) bool {
	const blanks, ones, highs = 0x2020202020202020, 0x0101010101010101, 0x8080808080808080
	if len(data) < 2*wordSize {
		return false
	}
	low, high := binary.LittleEndian.Uint64(data)^blanks, binary.LittleEndian.Uint64(data[wordSize:])^blanks
	return ((low-ones)&^low|(high-ones)&^high)&highs == 0
}

// isInPasswordFile reports whether a byte may be in the fields in front of the password, or between them. The host may be
// the folder of a socket.
func isInPasswordFile(c byte) bool { return folded[c] != 0 || c == ':' || c == '*' || c == '/' }

// passwordFileSecret returns the offset of the password of a line of a password file that begins at from; 0: it is none.
func passwordFileSecret(text []byte, from int) int {
	for i := range 4 {
		end := from
		for end < len(text) && end-from < maxName && isInPasswordFile(text[end]) && text[end] != ':' && (i == 0 || text[end] != '/') {
			end++
		}
		field := text[from:end]
		switch isAny := string(field) == "*"; {
		case len(field) == 0 || end == len(text) || text[end] != ':',
			!isAny && bytes.IndexByte(field, '*') >= 0,
			!isAny && i == 1 && !isCount(field, 5),
			i > 1 && isDigitAt(field, 0):
			return 0
		}
		from = end + 1
	}
	return from
}
