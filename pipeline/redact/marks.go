package redact

import (
	"encoding/binary"
	"math/bits"
)

// wordSize is how many bytes are searched for marks at once.
const wordSize = 8

// The bytes of a line behind or before which a secret could stand are marks: those from # to ( and from : to
// B, of which only a few matter, and a " behind a space or a backslash: one of SQL, where in JSON nearly
// every " stands behind something else.
//
// To look for them in eight bytes at a time costs a third of a table of 256 entries, and half of a search for
// each kind of mark.

const (
	lowBits  = 0x0101010101010101 // times c: c in each byte
	highBits = 0x80 * lowBits     // the highest bit of each byte
)

// findMarks returns the marks in the eight bytes at i, fewer at the end of data, as the high bits of their
// bytes.
func findMarks(data []byte, i int) uint64 {
	var x uint64
	if len(data)-i >= wordSize {
		x = binary.LittleEndian.Uint64(data[i:])
	} else {
		for j := len(data) - 1; j >= i; j-- {
			x = x<<8 | uint64(data[j])
		}
	}
	found := between(x, '#', '(') | between(x, ':', 'B')
	if quotes := equal(x, '"'); quotes != 0 {
		before := (equal(x, ' ') | equal(x, '\\')) << 8
		if i > 0 && (data[i-1] == ' ' || data[i-1] == '\\') {
			before |= 0x80
		}
		found |= quotes & before
	}
	return found
}

// firstByte returns the offset of the first mark of findMarks.
func firstByte(m uint64) int { return bits.TrailingZeros64(m) / 8 }

// between has the high bit of each byte of x that is from low to high, both below 0x80.
//
// Without its own high bit a byte plus 0x80−low reaches 0x80 if it is low or more, and plus 0x7f−high if it
// is more than high; no sum carries into the next byte.
func between(x uint64, low, high uint8) uint64 {
	t := x &^ highBits
	return (t + uint64(0x80-low)*lowBits) &^ (t + uint64(0x7f-high)*lowBits) &^ x & highBits
}

// equal has the high bit of each byte of x that is c.
func equal(x uint64, c uint8) uint64 {
	t := x ^ uint64(c)*lowBits
	return ^((t&^highBits + 0x7f*lowBits) | t) & highBits
}
