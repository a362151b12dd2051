package rules

import "unsafe"

// lowerASCII folds A to Z and nothing else. Names, addresses, URLs and statements are compared by their ASCII letters; Unicode's folding
// would make "K" (the Kelvin sign) a k, which no index over bytes can follow.
func lowerASCII(s string) string {
	var b []byte
	return lowerInto(&b, s)
}

// lowerInto is lower with its result in *buf, where it differs from s: valid until *buf is used again.
func lowerInto(buf *[]byte, s string) string {
	i := 0
	for i < len(s) && (s[i] < 'A' || s[i] > 'Z') {
		i++
	}
	if i == len(s) {
		return s
	}
	b := append((*buf)[:0], s...)
	for ; i < len(b); i++ {
		if c := b[i]; c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	*buf = b
	return unsafe.String(unsafe.SliceData(b), len(b))
}

// unescape undoes what is done to get an attack past a filter: percent-encoding, once more where what came out is encoded again,
// and + for a blank. What is no valid escape stays as it is.
func unescape(s string) string {
	var b []byte
	return unescapeInto(&b, s)
}

func unescapeInto(buf *[]byte, s string) string {
	i := 0
	for i < len(s) && s[i] != '%' && s[i] != '+' {
		i++
	}
	if i == len(s) {
		return s
	}
	b := append((*buf)[:0], s...)
	// A + that a second round finds was an escaped one: it stays.
	b = unescapeRound(b, true)
	b = unescapeRound(b, false)
	*buf = b
	return unsafe.String(unsafe.SliceData(b), len(b))
}

func unescapeRound(b []byte, plus bool) []byte {
	out := b[:0]
	for i := 0; i < len(b); i++ {
		c := b[i]
		if c == '+' && plus {
			c = ' '
		}
		if c == '%' && i+2 < len(b) {
			high, low := hexDigit(b[i+1]), hexDigit(b[i+2])
			if high >= 0 && low >= 0 {
				c = byte(high<<4 | low)
				i += 2
			}
		}
		out = append(out, c)
	}
	return out
}

func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
