package tail

import (
	"unicode/utf8"
)

// CutMark stands in a line that is too long, in place of the bytes that were left out. It is not a delimiter:
// a secret that extends over it is redacted as one.
const CutMark = "…"

// headLen returns how many of the bytes of a line that is too long are its head; the others are its tail. What
// an attacker wants to hide stands behind a long padding.
func headLen(limit int) int { return limit - limit/4 }

// joinEnds returns text[:head], CutMark and text[tail:], without the characters of which a part is left out.
// head is at most tail. The result overwrites text and is not longer.
func joinEnds(text []byte, head, tail int) []byte {
	end := runeStart(text, max(0, head-len(CutMark)))
	for limit := tail + utf8.UTFMax; tail < min(limit, len(text)) && !utf8.RuneStart(text[tail]); {
		tail++
	}
	n := end + copy(text[end:], CutMark)
	return text[:n+copy(text[n:], text[tail:])]
}

// Cut returns text without its middle, with CutMark instead, if it is longer than limit; ok reports whether it
// was.
func Cut(text string, limit int) (out string, ok bool) {
	if len(text) <= limit {
		return text, false
	}
	head := headLen(limit)
	return string(joinEnds([]byte(text), head, len(text)-(limit-head))), true
}

// runeStart returns the offset of the character that holds text[pos], or pos if text is not UTF-8 there.
func runeStart(text []byte, pos int) int {
	for start := pos; start >= 0 && pos-start < utf8.UTFMax; start-- {
		if start < len(text) && utf8.RuneStart(text[start]) {
			return start
		}
	}
	return pos
}
