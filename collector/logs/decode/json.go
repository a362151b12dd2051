package decode

import (
	"bytes"
	"unicode/utf16"
	"unicode/utf8"
)

// skipSpace returns the index of the first byte at or behind b[i] that is not white space.
func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\r' || b[i] == '\n') {
		i++
	}
	return i
}

// scanString returns the bytes between the quotes of the string at b[i], and the index behind it. The index
// is -1 where no whole string begins at b[i].
func scanString(data []byte, i int) ([]byte, int) {
	if i >= len(data) || data[i] != '"' {
		return nil, -1
	}
	start := i + 1
	for i = start; ; i++ {
		n := bytes.IndexByte(data[i:], '"')
		if n < 0 {
			return nil, -1
		}
		i += n
		// The quote ends the string unless an odd number of backslashes stands before it.
		slashes := 0
		for j := i - 1; j >= start && data[j] == '\\'; j-- {
			slashes++
		}
		if slashes%2 == 0 {
			return data[start:i], i + 1
		}
	}
}

// scanValue returns the index behind the value at b[i]: a string, an object, a list, a number or a word. It
// returns -1 where none begins.
func scanValue(data []byte, i int) int {
	if i >= len(data) {
		return -1
	}
	switch data[i] {
	case '"':
		_, end := scanString(data, i)
		return end
	case '{', '[':
		return scanNested(data, i)
	}
	start := i
	for i < len(data) && isWordByte(data[i]) {
		i++
	}
	if i == start {
		return -1
	}
	return i
}

// isWordByte reports whether c occurs in numbers, true, false or null.
func isWordByte(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c == '-' || c == '+' || c == '.' || c == 'E'
}

// scanNested returns the index behind the object or list at b[i]; -1: it has no end. It counts brackets and
// does not recurse, so deep nesting costs no stack.
func scanNested(data []byte, i int) int {
	depth := 0
	for i < len(data) {
		switch data[i] {
		case '"':
			_, end := scanString(data, i)
			if end < 0 {
				return -1
			}
			i = end
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
		}
		i++
	}
	return -1
}

// unescape resolves the escapes of s in place; the first backslash is at i. It returns what is left of s and
// how many \ufffd were in it: dockerd writes one for each byte that is not UTF-8. Escapes that JSON does not
// have are kept as they stand.
func unescape(data []byte, i int) (out []byte, invalid int) {
	// s[:w] is resolved, s[i:] is still to be read; w ≤ i, since no escape is shorter than what it stands
	// for.
	w := i
	for i < len(data) {
		if data[i] != '\\' || i+1 >= len(data) {
			data[w] = data[i]
			w, i = w+1, i+1
			continue
		}
		i++
		switch c := data[i]; c {
		case 'n':
			data[w] = '\n'
		case 't':
			data[w] = '\t'
		case 'r':
			data[w] = '\r'
		case 'b':
			data[w] = '\b'
		case 'f':
			data[w] = '\f'
		case '"', '\\', '/':
			data[w] = c
		case 'u':
			r, n := escapedRune(data[i-1:])
			if n == 0 {
				data[w], data[w+1] = '\\', 'u'
				w++
				break
			}
			if r == utf8.RuneError {
				invalid++
			}
			w += utf8.EncodeRune(data[w:w+4], r) - 1
			i += n - 2
		default:
			data[w], data[w+1] = '\\', c
			w++
		}
		w, i = w+1, i+1

		// The bytes up to the next backslash move as a whole.
		n := bytes.IndexByte(data[i:], '\\')
		if n < 0 {
			n = len(data) - i
		}
		w += copy(data[w:], data[i:i+n])
		i += n
	}
	return data[:w], invalid
}

// escapedRune reads \uXXXX, or two of them that are a surrogate pair, from the front of s, and returns their
// length. n is 0 where s begins with neither. Half a pair is utf8.RuneError.
func escapedRune(data []byte) (r rune, n int) {
	r, ok := parseHex4(data)
	if !ok {
		return 0, 0
	}
	if !utf16.IsSurrogate(r) {
		return r, 6
	}
	if low, ok := parseHex4(data[6:]); ok {
		if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
			return pair, 12
		}
	}
	return utf8.RuneError, 6
}

// parseHex4 reads one \uXXXX from the front of s.
func parseHex4(data []byte) (rune, bool) {
	if len(data) < 6 || data[0] != '\\' || data[1] != 'u' {
		return 0, false
	}
	var r rune
	for _, c := range data[2:6] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}
