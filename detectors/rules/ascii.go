package rules

import (
	"unsafe"

	"tidegate/pipeline/log4j"
)

// lowerASCII returns text with A to Z in lower case. Unicode's rules would make the Kelvin sign a k, which no
// index over bytes can follow; names, addresses, URLs and statements are compared by their ASCII letters
// anyway.
func lowerASCII(text string) string {
	var b []byte
	return lowerInto(&b, text)
}

// lowerInto is lowerASCII without allocation: a result that differs from text is in *buf and is valid until
// *buf is used again.
func lowerInto(buf *[]byte, text string) string {
	i := 0
	for i < len(text) && (text[i] < 'A' || text[i] > 'Z') {
		i++
	}
	if i == len(text) {
		return text
	}
	data := append((*buf)[:0], text...)
	for ; i < len(data); i++ {
		if c := data[i]; c >= 'A' && c <= 'Z' {
			data[i] = c + 'a' - 'A'
		}
	}
	*buf = data
	return unsafe.String(unsafe.SliceData(data), len(data))
}

// unescape decodes the encodings that hide attacks from filters: percent-encoding, applied once or twice, and
// the plus sign for a blank. It leaves invalid escapes unchanged.
func unescape(text string) string {
	var b []byte
	return unescapeInto(&b, text)
}

// unescapeInto is unescape without allocation, as lowerInto.
func unescapeInto(buf *[]byte, text string) string {
	i := 0
	for i < len(text) && text[i] != '%' && text[i] != '+' {
		i++
	}
	if i == len(text) {
		return text
	}
	data := append((*buf)[:0], text...)
	// A + in the second round was escaped in the first, so it is a plus.
	data = unescapeRound(data, true)
	data = unescapeRound(data, false)
	*buf = data
	return unsafe.String(unsafe.SliceData(data), len(data))
}

// unescapeRound decodes one level of percent-encoding in place, and with plus also + for a blank.
func unescapeRound(data []byte, plus bool) []byte {
	out := data[:0]
	for i := 0; i < len(data); i++ {
		char := data[i]
		if char == '+' && plus {
			char = ' '
		}
		if char == '%' && i+2 < len(data) {
			high, low := hexDigit(data[i+1]), hexDigit(data[i+2])
			if high >= 0 && low >= 0 {
				char = byte(high<<4 | low)
				i += 2
			}
		}
		out = append(out, char)
	}
	return out
}

// lookups returns text with the lookups of Log4j resolved.
func lookups(text string) string {
	var b []byte
	return lookupsInto(&b, text)
}

// lookupsInto is lookups without allocation, as lowerInto.
func lookupsInto(buf *[]byte, text string) string {
	if !log4j.MayHold(text) {
		return text
	}
	data := log4j.Resolve((*buf)[:0], unsafe.Slice(unsafe.StringData(text), len(text)))
	*buf = data
	return unsafe.String(unsafe.SliceData(data), len(data))
}

// hexDigit returns the value of a hexadecimal digit, -1 for other bytes.
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
