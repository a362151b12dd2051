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
	// Invariant: data[:written] is the result so far, data[i:] is not read yet, and written ≤ i, since no
	// escape is shorter than its character.
	written := i
	for i < len(data) {
		if data[i] != '\\' || i+1 >= len(data) {
			data[written] = data[i]
			written, i = written+1, i+1
			continue
		}
		i++
		switch escape := data[i]; escape {
		case 'n':
			data[written] = '\n'
		case 't':
			data[written] = '\t'
		case 'r':
			data[written] = '\r'
		case 'b':
			data[written] = '\b'
		case 'f':
			data[written] = '\f'
		case '"', '\\', '/':
			data[written] = escape
		case 'u':
			char, size := escapedRune(data[i-1:])
			if size == 0 {
				data[written], data[written+1] = '\\', 'u'
				written++
				break
			}
			if char == utf8.RuneError {
				invalid++
			}
			written += utf8.EncodeRune(data[written:written+4], char) - 1
			i += size - 2
		default:
			data[written], data[written+1] = '\\', escape
			written++
		}
		written, i = written+1, i+1

		// Move the bytes up to the next backslash with one copy.
		size := bytes.IndexByte(data[i:], '\\')
		if size < 0 {
			size = len(data) - i
		}
		written += copy(data[written:], data[i:i+size])
		i += size
	}
	return data[:written], invalid
}

// escapedRune returns the character of \uXXXX, or of two that are a surrogate pair, at the front of data, and
// the size of the escapes. The size is 0 if data begins with neither. Half a pair is utf8.RuneError.
func escapedRune(data []byte) (char rune, size int) {
	char, ok := parseHex4(data)
	if !ok {
		return 0, 0
	}
	if !utf16.IsSurrogate(char) {
		return char, 6
	}
	if low, ok := parseHex4(data[6:]); ok {
		if pair := utf16.DecodeRune(char, low); pair != utf8.RuneError {
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
