package protocols

import (
	"unicode/utf8"

	"github.com/zeebo/xxh3"
)

// Bounds of the table of interned strings.
const (
	internSlots = 2048 // strings of a Set
	maxInterned = 256  // bytes of one
)

// intern returns b as a string of valid UTF-8, the same string as the last time where it is still in the
// table. The table is direct-mapped: hostile input can push strings out of it, but not make it grow. Bytes
// that are not UTF-8 are written \xNN, since the strings of an event must be UTF-8.
func (s *Set) intern(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	if len(b) > maxInterned {
		return validUTF8(b)
	}
	slot := &s.interned[xxh3.Hash(b)%internSlots]
	if *slot != string(b) {
		text := validUTF8(b)
		if len(text) != len(b) {
			return text // it is not what the slot would be compared with
		}
		*slot = text
	}
	return *slot
}

// validUTF8 copies b into a string of valid UTF-8.
func validUTF8(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	const hex = "0123456789abcdef"
	out := make([]byte, 0, len(b)+len(b)/2)
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if r == utf8.RuneError && n == 1 {
			out = append(out, '\\', 'x', hex[b[0]>>4], hex[b[0]&15])
		} else {
			out = append(out, b[:n]...)
		}
		b = b[n:]
	}
	return string(out)
}
