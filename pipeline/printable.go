package pipeline

import (
	"strings"
	"unicode"
)

// IsControl reports whether a character controls a terminal or hides text from a reader: a control character, a
// format character such as the overrides of the writing direction, or a line separator.
func IsControl(char rune) bool {
	return char < ' ' || char >= 0x7f && unicode.In(char, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp)
}

// Printable returns text with a space in place of each white space and U+FFFD in place of each other control
// character and of bytes that are not UTF-8. It returns text itself if there is none, as nearly always.
func Printable(text string) string {
	text = strings.ToValidUTF8(text, "\ufffd")
	if !strings.ContainsFunc(text, IsControl) {
		return text
	}
	return strings.Map(func(char rune) rune {
		switch {
		case !IsControl(char):
			return char
		case char == '\n' || char == '\r' || char == '\t' || char == '\u2028' || char == '\u2029':
			return ' '
		}
		return '\ufffd'
	}, text)
}
