package redact

// A token is a run of bytes of a line without spaces and quotes. It is looked at once: every look goes on
// where the one before ended.
type token struct {
	from, seen int // the bytes from:seen were looked at
	urlEnd     int // up to here URL has looked for secrets

	slash, doubleSlash, query, semicolon bool // what from:seen holds
}

// tokenStop has the bytes that end a token.
var tokenStop = func() (t [256]bool) {
	for c := range ' ' + 1 {
		t[c] = true
	}
	for _, c := range "\"'`<>" {
		t[c] = true
	}
	return t
}()

// nameStop has the bytes before which the name of a URL parameter begins: separators of parameters, and the
// ends of tokens.
var nameStop = func() (t [256]bool) {
	t = tokenStop
	for _, c := range `?&;#/,=%\` {
		t[c] = true
	}
	return t
}()

// inToken looks at the bytes before i of the token that holds i.
func (l *line) inToken(i int) {
	t, b := &l.token, l.b
	from := i
	for from > t.seen && !tokenStop[b[from-1]] {
		from--
	}
	if from > t.seen || from > 0 && tokenStop[b[from-1]] || from == 0 {
		*t = token{from: from, seen: from, urlEnd: t.urlEnd}
	}
	for j := max(t.seen, t.from); j < i; j++ {
		switch b[j] {
		case '/':
			t.slash = true
			t.doubleSlash = t.doubleSlash || j > t.from && b[j-1] == '/'
		case '%':
			t.doubleSlash = t.doubleSlash || encoded(b, j) == '/'
		case '?', '#':
			t.query = true
		case ';':
			t.semicolon = true
		}
	}
	t.seen = i
}

// parameter reports whether the = at i belongs to a parameter of a URL that has secrets; it hides them.
// secret says that the name is that of a secret outside of URLs too.
func (l *line) parameter(i int, secret bool) bool {
	b := l.b
	start := i
	for start > 0 && i-start < 3*maxName && !nameStop[b[start-1]] {
		start--
	}
	if start == 0 {
		return false
	}

	switch c := b[start-1]; c {
	case '?', '&', ';', '#', '/', ',':
		if name := b[start:i]; !secret && !parameterName(name) && (isPlain(name) || !secretParameter(name)) {
			return false
		}
	case '%': // an encoded separator, or a character of the name
	case '\\':
		if charAt(b, start-1) != '&' || !secretParameter(b[start+len(jsonAmpersand)-1:i]) {
			return false
		}
	default:
		return false
	}

	l.inToken(i)
	if t := &l.token; !t.query && !(t.slash && t.semicolon) {
		return false
	}
	l.urlToken(i)
	return true
}

// urlToken hides the secrets of the token that holds i, as of a URL. inToken was called for i.
func (l *line) urlToken(i int) {
	t, b := &l.token, l.b
	if i < t.urlEnd {
		return
	}
	to := i
	for to < len(b) && (!tokenStop[b[to]] || b[to] == '\'' && !l.opened('\'') || b[to] == '>' && !l.opened('<')) {
		to++
	}
	if to < len(b) && b[to] == '"' && b[to-1] == '\\' {
		to-- // the quote was escaped: a URL in a document in a string
	}
	l.url(b[t.from:to], t.from, true)
	t.urlEnd = to
}

// opened reports whether c stands before the token.
func (l *line) opened(c byte) bool { return l.token.from > 0 && l.b[l.token.from-1] == c }
