package decode

import (
	"bytes"
	"unicode/utf16"
	"unicode/utf8"
)

// skipSpace returns the index of the first byte at or after b[i] that is not white space.
func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\r' || b[i] == '\n') {
		i++
	}
	return i
}

// scanString returns the bytes between the quotes of the string at data[i], and the index behind the string;
// -1: no complete string begins there.
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

// scanValue returns the index behind the value at data[i]: a string, an object, a list, a number or a word;
// -1: no complete value begins there.
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

// scanNested returns the index behind the object or list at data[i]; -1: it has no end. It counts brackets
// instead of recursing, so that deep nesting needs no stack.
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

// unescape resolves the escapes of data in place; the first backslash is at i. It returns the shortened data
// and the number of \ufffd escapes, which dockerd writes for bytes that are not UTF-8. Unknown escapes are
// kept unchanged.
func unescape(data []byte, i int) (out []byte, invalid int) {
	// Invariant: data[:w] is the result so far, data[i:] is not read yet, and w ≤ i, since no escape is
	// shorter than its character.
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

		// Move the bytes up to the next backslash with one copy.
		n := bytes.IndexByte(data[i:], '\\')
		if n < 0 {
			n = len(data) - i
		}
		w += copy(data[w:], data[i:i+n])
		i += n
	}
	return data[:w], invalid
}

// escapedRune returns the character of \uXXXX, or of two that are a surrogate pair, at the front of data, and
// the length n of the escapes. n is 0 if data begins with neither. Half a pair is utf8.RuneError.
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

// parseHex4 returns the code unit of the \uXXXX at the front of data; false: there is none.
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
