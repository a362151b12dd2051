package redact

import "bytes"

// URL returns data, a URL or a request target, without its secrets, and reports whether there were any. Hidden
// are user:password@ behind every //, and the values of parameters whose names are those of secrets; also
// within a URL that is itself the value of a parameter, and also where the characters are percent-encoded. data
// is not changed.
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

// mayHoldSecret reports whether a URL has any of the characters without which it holds no secret.
func mayHoldSecret(b []byte) bool {
	for _, c := range b {
		if c == '=' || c == '@' || c == '%' {
			return true
		}
	}
	return false
}

// hideURL hides the secrets of the URL data. base is the offset of data in the text that the spans count in. inLine
// is that of hideUserInfo.
func (r *Redactor) hideURL(data []byte, base int, inLine bool) {
	start := 0     // of the parameter's name
	query := false // behind the first ? or #
	for i := 0; i < len(data); {
		width := charWidth(data, i)
		switch charAt(data, i) {
		case '/':
			start = i + width
			if w := doubleSlash(data, i); w > 0 {
				start = i + w
				i = r.hideUserInfo(data, i+w, base, inLine)
				continue
			}
		case '?', '#':
			query = query || width == 1
			start = i + width
		case '&', ';', ' ', ',':
			start = i + width
		case '=':
			name := data[start:i]
			start = i + width // a value may hold a URL with parameters of its own
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

// hideUserInfo hides user:password@ at the front of the authority that begins at i, and returns where to go
// on. In a line of a log the user's name stays, and of a password that should have been encoded & and # count
// too.
func (r *Redactor) hideUserInfo(data []byte, i, base int, inLine bool) int {
	at, colon := -1, -1
	for j := i; j < len(data) && (!endsAuthority(data, j) || inLine && (data[j] == '&' || data[j] == '#')); j++ {
		switch {
		case data[j] == '@' || encoded(data, j) == '@': // the last one counts: a password may hold an @
			at = j
		case data[j] == ':' && colon < 0:
			colon = j
		}
	}
	if at < 0 {
		return i
	}
	from := i
	if inLine && colon >= 0 && colon < at {
		from = colon + 1
	}
	r.hide(base+from, base+at)
	return at
}

// doubleSlash returns the width of // at i, plain or encoded, or 0.
func doubleSlash(data []byte, i int) int {
	w := charWidth(data, i)
	if i+w >= len(data) || charAt(data, i) != '/' || charAt(data, i+w) != '/' {
		return 0
	}
	return w + charWidth(data, i+w)
}

func endsAuthority(b []byte, i int) bool {
	switch charAt(b, i) {
	case '/', '?', '#', '&', ' ', '"':
		return true
	}
	return false
}

// endsValue reports whether the value of a secret ends at i. A value whose own = was encoded lies in the
// value of another parameter and may end with an encoded character; in a plain one that is a character of the
// secret.
func endsValue(b []byte, i int, query, nested bool) bool {
	c := b[i]
	if nested || c == '\\' {
		c = charAt(b, i)
	}
	switch c {
	case '&', '#':
		return true
	case ';', '/', '?':
		return !query
	}
	return false
}

// jsonAmpersand is & as some libraries write it in JSON, and so in lines of logs.
const jsonAmpersand = `\u0026`

// charWidth returns how many bytes the character at i takes: 3 where it is percent-encoded.
func charWidth(data []byte, i int) int {
	switch data[i] {
	case '%':
		if encoded(data, i) >= 0 {
			return 3
		}
	case '\\':
		if bytes.HasPrefix(data[i:], []byte(jsonAmpersand)) {
			return len(jsonAmpersand)
		}
	}
	return 1
}

// charAt returns the character at i, decoded.
func charAt(data []byte, i int) byte {
	switch data[i] {
	case '%':
		if c := encoded(data, i); c >= 0 {
			return byte(c)
		}
	case '\\':
		if bytes.HasPrefix(data[i:], []byte(jsonAmpersand)) {
			return '&'
		}
	}
	return data[i]
}

// encoded returns the character that %xx at i stands for, or −1.
func encoded(data []byte, i int) int {
	if i+2 >= len(data) || data[i] != '%' {
		return -1
	}
	high, low := hexDigit(data[i+1]), hexDigit(data[i+2])
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
