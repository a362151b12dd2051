package redact

import "bytes"

// URL returns data, a URL or a request target, without its secrets, and reports whether there were any. It
// hides user:password@ after every //, and the values of parameters with the names of secrets. It also finds
// them in a URL that is itself the value of a parameter, and if they are percent-encoded. data is not
// changed.
func (r *Redactor) URL(data []byte) ([]byte, bool) {
	if !mayHoldSecret(data) {
		return data, false
	}
	r.spans = r.spans[:0]
	r.hideURL(data, 0, false)
	if len(r.spans) == 0 {
		return data, false
	}
	return r.replaced(data, Marker), true
}

// mayHoldSecret reports whether a URL has a =, @ or %. Without one it holds no secret.
func mayHoldSecret(b []byte) bool {
	for _, c := range b {
		if c == '=' || c == '@' || c == '%' {
			return true
		}
	}
	return false
}

// urlDelimiter has the bytes that hideURL and hideUserInfo look at: delimiters, and the first bytes of
// encoded ones.
var urlDelimiter = func() (table [256]bool) {
	for _, c := range "%\\/?#&; ,=@:\"" {
		table[c] = true
	}
	return table
}()

// hideURL hides the secrets of the URL data, which begins at offset base of the redacted text. inLine is
// passed to hideUserInfo.
func (r *Redactor) hideURL(data []byte, base int, inLine bool) {
	start := 0     // offset of the name of the current parameter
	query := false // the first ? or # was seen
	// Invariant: the secrets before i are hidden, and data[start:i] is the front of a name or in no name.
	for i := 0; i < len(data); {
		if !urlDelimiter[data[i]] {
			i++
			continue
		}
		width := charWidth(data, i)
		switch charAt(data, i) {
		case '/':
			start = i + width
			if width := doubleSlash(data, i); width > 0 {
				start = i + width
				i = r.hideUserInfo(data, i+width, base, inLine)
				continue
			}
		case '?', '#':
			query = query || width == 1
			start = i + width
		case '&', ';', ' ', ',':
			start = i + width
		case '=':
			name := data[start:i]
			start = i + width // the value may be a URL with parameters of its own
			if !secretParameter(name) {
				break
			}
			from, to := start, start
			for to < len(data) && !endsValue(data, to, query, width == 3) {
				to++
			}
			r.hide(base+from, base+to)
			i, start = to, to
			continue
		}
		i += width
	}
}

// hideUserInfo hides user:password@ at the front of the authority that begins at start, and returns the
// offset at which to continue. In a log line (inLine) the user's name is kept, and a password may hold & and
// #, which should have been encoded.
func (r *Redactor) hideUserInfo(data []byte, start, base int, inLine bool) int {
	at, colon := -1, -1
	for j := start; j < len(data); j++ {
		if !urlDelimiter[data[j]] {
			continue
		}
		if endsAuthority(data, j) && !(inLine && (data[j] == '&' || data[j] == '#')) {
			break
		}
		switch {
		case data[j] == '@' || encoded(data, j) == '@': // the last @ counts, since a password may hold one
			at = j
		case data[j] == ':' && colon < 0:
			colon = j
		}
	}
	if at < 0 {
		return start
	}
	from := start
	if inLine && colon >= 0 && colon < at {
		from = colon + 1
	}
	r.hide(base+from, base+at)
	return at
}

// doubleSlash returns the width of // at pos, plain or encoded, or 0.
func doubleSlash(data []byte, pos int) int {
	width := charWidth(data, pos)
	if pos+width >= len(data) || charAt(data, pos) != '/' || charAt(data, pos+width) != '/' {
		return 0
	}
	return width + charWidth(data, pos+width)
}

func endsAuthority(b []byte, i int) bool {
	switch charAt(b, i) {
	case '/', '?', '#', '&', ' ', '"':
		return true
	}
	return false
}

// endsValue reports whether the value of a secret ends at i. A nested value, one whose = was percent-encoded,
// is a part of the value of another parameter and may end with an encoded delimiter. In any other value an
// encoded delimiter is a character of the secret.
func endsValue(data []byte, i int, query, nested bool) bool {
	c := data[i]
	if nested || c == '\\' {
		c = charAt(data, i)
	}
	switch c {
	case '&', '#':
		return true
	case ';', '/', '?':
		return !query
	}
	return false
}

// jsonAmpersand is & as some libraries escape it in JSON, and so in log lines.
const jsonAmpersand = `\u0026`

// charWidth returns the number of bytes of the character at pos: 3 if it is percent-encoded.
func charWidth(data []byte, pos int) int {
	switch data[pos] {
	case '%':
		if encoded(data, pos) >= 0 {
			return 3
		}
	case '\\':
		if bytes.HasPrefix(data[pos:], []byte(jsonAmpersand)) {
			return len(jsonAmpersand)
		}
	}
	return 1
}

// charAt returns the character at pos, decoded.
func charAt(data []byte, pos int) byte {
	switch data[pos] {
	case '%':
		if c := encoded(data, pos); c >= 0 {
			return byte(c)
		}
	case '\\':
		if bytes.HasPrefix(data[pos:], []byte(jsonAmpersand)) {
			return '&'
		}
	}
	return data[pos]
}

// encoded returns the character that is percent-encoded at pos, or −1.
func encoded(data []byte, pos int) int {
	if pos+2 >= len(data) || data[pos] != '%' {
		return -1
	}
	high, low := hexDigit(data[pos+1]), hexDigit(data[pos+2])
	if high < 0 || low < 0 {
		return -1
	}
	return high<<4 | low
}

func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}
