package redact

// A token is a run of bytes of a line without spaces and quotes, such as a URL. Its bytes are scanned once:
// each scan continues where the last one ended.
type token struct {
	from, scanned int // the bytes from:scanned were scanned
	urlEnd        int // hideURL has read the line up to this offset

	slash, doubleSlash, query, semicolon bool // the bytes from:scanned hold /, //, ? or #, ;
}

// tokenStop has the bytes that end a token.
var tokenStop = func() (table [256]bool) {
	for c := range ' ' + 1 {
		table[c] = true
	}
	for _, c := range "\"'`<>" {
		table[c] = true
	}
	return table
}()

// nameStop has the bytes before which the name of a URL parameter begins: separators of parameters, and the
// ends of tokens.
var nameStop = func() (table [256]bool) {
	table = tokenStop
	for _, c := range `?&;#/,=%\` {
		table[c] = true
	}
	return table
}()

// scanToken scans the bytes before pos of the token that holds pos.
func (l *line) scanToken(pos int) {
	tok, data := &l.token, l.b

	// Find the start of the token. Without an end of a token since the last scan it is the same one.
	from := pos
	for from > tok.scanned && !tokenStop[data[from-1]] {
		from--
	}
	if from > tok.scanned || from > 0 && tokenStop[data[from-1]] || from == 0 {
		*tok = token{from: from, scanned: from, urlEnd: tok.urlEnd}
	}

	for j := max(tok.scanned, tok.from); j < pos; j++ {
		switch data[j] {
		case '/':
			tok.slash = true
			tok.doubleSlash = tok.doubleSlash || j > tok.from && data[j-1] == '/'
		case '%':
			tok.doubleSlash = tok.doubleSlash || encoded(data, j) == '/'
		case '?', '#':
			tok.query = true
		case ';':
			tok.semicolon = true
		}
	}
	tok.scanned = pos
}

// hideParameter reports whether the = at pos belongs to a parameter of a URL that is a secret. If so it hides
// the secrets of that URL. secret reports that the name is the name of a secret also outside of URLs.
func (l *line) hideParameter(pos int, secret bool) bool {
	data := l.b
	// The name of the parameter is data[start:pos]; the byte before it must be one that separates parameters.
	start := pos
	for start > 0 && pos-start < 3*maxName && !nameStop[data[start-1]] {
		start--
	}
	if start == 0 {
		return false
	}

	switch c := data[start-1]; c {
	case '?', '&', ';', '#', '/', ',':
		if name := data[start:pos]; !secret && !parameterName(name) && (isPlain(name) || !secretParameter(name)) {
			return false
		}
	case '%': // an encoded separator, or a character of the name
	case '\\':
		if charAt(data, start-1) != '&' || !secretParameter(data[start+len(jsonAmpersand)-1:pos]) {
			return false
		}
	default:
		return false
	}

	// The token must look like a URL: a query, or a path with parameters after ;.
	l.scanToken(pos)
	if tok := &l.token; !tok.query && !(tok.slash && tok.semicolon) {
		return false
	}
	l.hideURLToken(pos)
	return true
}

// hideURLToken hides the secrets of the token that holds pos, as those of a URL. scanToken was called for pos.
func (l *line) hideURLToken(pos int) {
	tok, data := &l.token, l.b
	if pos < tok.urlEnd {
		return
	}
	// ' and > are parts of the URL, unless the URL is enclosed in '…' or <…>.
	to := pos
	for to < len(data) && (!tokenStop[data[to]] || data[to] == '\'' && !l.isBehind('\'') || data[to] == '>' && !l.isBehind('<')) {
		to++
	}
	if to < len(data) && data[to] == '"' && data[to-1] == '\\' {
		to-- // the quote is escaped: a URL in a document inside a string
	}
	l.hideURL(data[tok.from:to], tok.from, true)
	tok.urlEnd = to
}

// isBehind reports whether c precedes the token.
func (l *line) isBehind(c byte) bool { return l.token.from > 0 && l.b[l.token.from-1] == c }
