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

// intern returns data as a string of valid UTF-8. It returns the string of an earlier call without allocating
// if that string is still in the table. The table is direct-mapped: hostile input can evict strings from it,
// but not make it grow. Bytes that are not UTF-8 are written \xNN, since the strings of an event must be
// UTF-8.
func (s *Set) intern(data []byte) string {
	if len(data) == 0 {
		return ""
	}
	if len(data) > maxInterned {
		return validUTF8(data)
	}
	slot := &s.interned[xxh3.Hash(data)%internSlots]
	if *slot != string(data) {
		text := validUTF8(data)
		if len(text) != len(data) {
			return text // text differs from data, so a lookup of data would never find it
		}
		*slot = text
	}
	return *slot
}

// validUTF8 copies data into a string of valid UTF-8. It writes other bytes as \xNN.
func validUTF8(data []byte) string {
	if utf8.Valid(data) {
		return string(data)
	}
	const hex = "0123456789abcdef"
	out := make([]byte, 0, len(data)+len(data)/2)
	for len(data) > 0 {
		r, size := utf8.DecodeRune(data)
		if r == utf8.RuneError && size == 1 {
			out = append(out, '\\', 'x', hex[data[0]>>4], hex[data[0]&15])
		} else {
			out = append(out, data[:size]...)
		}
		data = data[size:]
	}
	return string(out)
}
