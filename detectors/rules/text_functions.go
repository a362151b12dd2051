package rules

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"unsafe"
)

// decodeBase64 returns the bytes that text encodes (RFC 4648, sections 4 and 5), "" if it encodes none. Either alphabet
// may be used, line breaks are left out, and padding may be missing: so read the programs that attackers use.
func decodeBase64(buf *[]byte, text string) string {
	digits := strings.TrimRight(text, "\r\n")
	for range 2 {
		digits = strings.TrimRight(strings.TrimSuffix(digits, "="), "\r\n")
	}
	out := (*buf)[:0]
	bits, held := uint32(0), 0 // the lowest held bits of bits are not written yet
	for i := range len(digits) {
		value := base64Digits[digits[i]]
		switch {
		case value == base64Break:
			continue
		case value == base64Invalid:
			return ""
		}
		bits, held = bits<<6|uint32(value), held+6
		if held >= 8 {
			held -= 8
			out = append(out, byte(bits>>held))
		}
	}
	*buf = out
	if held == 6 { // a single digit encodes no byte
		return ""
	}
	return unsafe.String(unsafe.SliceData(out), len(out))
}

const (
	base64Break   = 0xfe
	base64Invalid = 0xff
)

// base64Digits holds the value of each digit of both alphabets.
var base64Digits = func() (table [256]byte) {
	for i := range table {
		table[i] = base64Invalid
	}
	for value, digit := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") {
		table[digit] = byte(value)
	}
	table['-'], table['_'] = 62, 63
	table['\r'], table['\n'] = base64Break, base64Break
	return table
}()

// entropy returns Shannon's entropy of the bytes of text, in bits per byte: 0 if all are equal, 8 at most.
func entropy(text string) float64 {
	var counts [256]int
	for i := range len(text) {
		counts[text[i]]++
	}
	sum := 0.0
	for _, count := range counts {
		if count > 0 {
			share := float64(count) / float64(len(text))
			sum -= float64(share * math.Log2(share)) // rounded here, so that it is the same on every processor
		}
	}
	return sum
}

// maxPattern is the length of the longest text whose distance from any other one is computed: a word of 64 bits holds a
// column of the table.
const maxPattern = 64

// levenshtein returns the least number of bytes to insert, to remove and to replace that make b of a. If they differ and both are longer than
// maxPattern, it is the length of the longer one, as if they had nothing in common. The algorithm is that of Myers (A fast
// bit-vector algorithm for approximate string matching, 1999) in the form of Hyyrö for distances of whole texts; its time is
// linear in the longer text.
func levenshtein(a, b string) int64 {
	if a == b {
		return 0
	}
	if len(a) > len(b) {
		a, b = b, a
	}
	if len(a) == 0 || len(a) > maxPattern {
		return int64(len(b))
	}
	var places [256]uint64 // of each byte in a
	for i := range len(a) {
		places[a[i]] |= 1 << i
	}

	// Bit i of up and down: the distance of the first i+1 bytes of a is one more, or less, than that of the first i.
	up, down := ^uint64(0), uint64(0)
	distance, last := int64(len(a)), uint64(1)<<(len(a)-1)
	for i := range len(b) {
		equal := places[b[i]]
		diagonal := (equal&up + up) ^ up | equal | down
		right, left := down|^(diagonal|up), up&diagonal
		switch {
		case right&last != 0:
			distance++
		case left&last != 0:
			distance--
		}
		right, left = right<<1|1, left<<1
		up, down = left|^(diagonal|right), right&diagonal
	}
	return distance
}

// parseDecimal returns the number that text is, with blanks around it or not: digits with a sign, a fraction and an exponent, as JSON and
// programs write them. It is NaN if text is none. Whole numbers up to 2^53 are exact; one that is too large is infinite.
func parseDecimal(text string) float64 {
	text = strings.TrimSpace(text)
	for i := range len(text) {
		switch c := text[i]; {
		case c >= '0' && c <= '9', c == '.', c == '+', c == '-', c == 'e', c == 'E':
		default: // also what ParseFloat would read: inf, nan, 0x1p3, 1_000
			return math.NaN()
		}
	}
	value, err := strconv.ParseFloat(text, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return math.NaN()
	}
	return value
}
