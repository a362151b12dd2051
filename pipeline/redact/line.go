package redact

import "bytes"

// A line is the state of Line.
type line struct {
	*Redactor
	b []byte

	// token is the token that was scanned last. URLs are tokens.
	token token
	// mayHaveParameters reports that a ?, # or ; was scanned, after which the parameters of a URL may begin.
	mayHaveParameters bool
	// mayHoldSQL reports that the line may hold SQL with a secret in it.
	mayHoldSQL bool
}

// Line returns a line of a log without its secrets, and reports whether there were any. data is not changed.
//
// It hides the values after = and : with the names of secrets, the tokens after Bearer and in fields like
// Authorization and Cookie, and everything in a URL or a statement that URL or SQL hides. It keeps the user's
// name in user:password@.
//
// Line makes one pass that searches eight bytes at a time for marks (marks.go). The cost of a line without
// secrets is little more than this search. Only if the line may hold SQL, it is read once more.
func (r *Redactor) Line(data []byte) ([]byte, bool) {
	r.spans = r.spans[:0]
	l := line{Redactor: r, b: data}
	for i := 0; i < len(data); {
		// Invariant: every mark before i was read, or is in a hidden span.
		next := i + wordSize
		for bits := findMarks(data, i); bits != 0; bits &= bits - 1 {
			at := i + firstByte(bits)
			if to := l.readMark(at); to > at+1 {
				next = to
				break
			}
		}
		i = next
	}
	if l.mayHoldSQL {
		l.hideStatements()
	}
	if len(r.spans) == 0 {
		return data, false
	}
	return r.replaced(data, Marker), true
}

// readMark reads the mark at pos, hides the secret next to it, and returns the offset at which to continue:
// the end of the secret, or of the mark.
func (l *line) readMark(pos int) (next int) {
	switch l.b[pos] {
	case '=': // password=…, and the parameter of a URL
		return l.hideBehindEquals(pos)
	case ':': // password: …, "password": "…"
		return l.hideBehindColon(pos)
	case '@': // //user:password@host
		if l.scanToken(pos); l.token.doubleSlash {
			l.hideURLToken(pos)
		}
	case '%': // the = or @ of a URL in a URL
		if c := encoded(l.b, pos); c == '=' || c == '@' {
			l.scanToken(pos)
			l.hideURLToken(pos)
		}
	case '?', '#', ';':
		l.mayHaveParameters = true
	case 'B':
		return l.hideBearerToken(pos)
	case '\'':
		return l.hideIdentifiedBy(pos)
	case '(':
		l.mayHoldSQL = l.mayHoldSQL || l.introducesSQL(pos)
	case '"':
		// A space or a backslash is in front of it, see findMarks. In the lines of web servers a digit, ] or
		// " is in front of that.
		if c := byteBefore(l.b, pos-1); (c < '0' || c > '9') && c != ']' && c != '"' {
			l.mayHoldSQL = l.mayHoldSQL || l.introducesSQL(pos)
		}
	}
	return pos + 1
}

// hideBehindEquals hides the value after the = at pos if it has the name of a secret, and returns the offset
// at which to continue.
func (l *line) hideBehindEquals(pos int) int {
	if pos < l.token.urlEnd {
		return pos + 1 // hideURL has read it
	}
	end := nameEnd(l.b, pos)
	if end == 0 {
		return pos + 1
	}
	var ending *ending
	secret := false
	if name := l.b[:end]; mayBeSecret(name) {
		ending = secretEnding(name)
		secret = ending != nil || secretWord(name)
	}
	if l.mayHaveParameters && l.hideParameter(pos, secret) {
		l.mayHoldSQL = l.mayHoldSQL || secret
		return pos + 1
	}
	if !secret {
		// SET PASSWORD FOR bob = "…"
		if c := byteBefore(l.b, pos+2); (c == '"' || c <= ' ' || c == '\\') && endsPasswordFor(l.b[:end]) {
			l.mayHoldSQL = true
		}
		return pos + 1
	}
	l.mayHoldSQL = true
	return l.hideValue(pos+1, ending != nil && ending.whole)
}

// hideBehindColon hides the value after the : at pos if it has the name of a secret, and returns the offset
// at which to continue.
func (l *line) hideBehindColon(pos int) int {
	if pos == 0 || !endsName[l.b[pos-1]] {
		return pos + 1
	}
	ending := secretEnding(l.b[:nameEnd(l.b, pos)])
	if ending == nil || ending.prose && !quotedBefore(l.b, pos) && !headerBefore(l.b, pos) {
		return pos + 1 // "unexpected token: <" is prose; {"token":"…"} is not
	}
	return l.hideValue(pos+1, ending.whole)
}

// byteBefore returns the byte before offset pos, or 0 if there is none.
func byteBefore(data []byte, pos int) byte {
	if pos < 1 || pos > len(data) {
		return 0
	}
	return data[pos-1]
}

// nameEnd returns the end of the name before the mark at pos; quotes, backslashes and spaces may stand
// between.
func nameEnd(b []byte, pos int) int {
	for pos > 0 && (b[pos-1] == '"' || b[pos-1] == '\'' || b[pos-1] == ' ' || b[pos-1] == '\\') {
		pos--
	}
	return pos
}

// quotedBefore reports whether a quote is in front of b[pos].
func quotedBefore(b []byte, pos int) bool { return pos > 0 && (b[pos-1] == '"' || b[pos-1] == '\'') }

// headerBefore reports whether the word before b[pos] has a dash or a capital, as X-Auth-Token: and Cookie:
// have.
func headerBefore(b []byte, pos int) bool {
	for pos--; pos >= 0 && b[pos] != ' ' && b[pos] != '"'; pos-- {
		if b[pos] == '-' || b[pos] == '_' || b[pos] >= 'A' && b[pos] <= 'Z' {
			return true
		}
	}
	return false
}

// hideValue hides the value that begins at pos, or after spaces there, and returns the offset at which to
// continue. A whole value extends to the end of the line or of its quotes, and a scheme before it is kept.
func (l *line) hideValue(pos int, whole bool) int {
	data := l.b
	for pos < len(data) && data[pos] == ' ' {
		pos++
	}

	// The value may be quoted, and the quote escaped: \"…\" in a document inside a string.
	var inQuotes byte
	escaped := false
	if pos < len(data) && data[pos] == '\\' {
		escaped = true
		pos++
	}
	if pos < len(data) && (data[pos] == '"' || data[pos] == '\'') {
		inQuotes = data[pos]
		pos++
	}

	// Find the end. In quotes a backslash escapes the next byte, unless the quotes are escaped themselves.
	end := pos
	for end < len(data) && !endsLineValue(data[end], inQuotes, whole) {
		if data[end] == '\\' && inQuotes != 0 && !escaped && end+1 < len(data) {
			end++
		}
		end++
	}
	if escaped && end > pos && data[end-1] == '\\' {
		end--
	}
	if whole {
		if n := schemeLength(data[pos:end]); n > 0 {
			pos += n + 1
		}
	}
	l.hide(pos, end)
	return max(pos, end)
}

// endsLineValue reports whether c ends a value. inQuotes is the quote that began the value, or 0.
func endsLineValue(c, inQuotes byte, whole bool) bool {
	switch {
	case inQuotes != 0:
		return c == inQuotes
	case c == '"' || c == '\'':
		return true
	case whole:
		return false
	}
	return c == ' ' || c == '&' || c == ',' || c == ';' || c == ')' || c == '}' || c == ']' || c == '\t' || c == '\n'
}

// minBearer is the length of the shortest bearer token: "Bearer of" is prose.
const minBearer = 8

// hideBearerToken hides the token after the word Bearer, whose B is at pos, and returns the offset at which
// to continue.
func (l *line) hideBearerToken(pos int) int {
	const word = "bearer "
	data := l.b
	if len(data) < pos+len(word) || !bytes.EqualFold(data[pos:pos+len(word)], []byte(word)) {
		return pos + 1
	}
	from := pos + len(word)
	to := from
	for to < len(data) && isTokenByte(data[to]) {
		to++
	}
	if to-from < minBearer {
		return pos + 1
	}
	l.hide(from, to)
	return to
}

// isTokenByte reports whether c may stand in a bearer token, RFC 6750 section 2.1.
func isTokenByte(c byte) bool {
	return isLetter(c) || c >= '0' && c <= '9' ||
		c == '-' || c == '.' || c == '_' || c == '~' || c == '+' || c == '/' || c == '='
}
