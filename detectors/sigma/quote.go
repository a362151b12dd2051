package sigma

import (
	"strconv"
	"strings"
	"unicode"
)

// quote returns a text as a constant of an expression.
func quote(text string) string {
	if strings.ContainsRune(text, '\\') && !strings.ContainsFunc(text, func(r rune) bool {
		return r == '`' || !unicode.IsPrint(r) || r == unicode.ReplacementChar
	}) {
		return "`" + text + "`"
	}
	return strconv.Quote(text)
}

// yamlQuote returns a text as a double-quoted scalar of YAML. Go's escapes are those of YAML.
func yamlQuote(text string) string { return strconv.Quote(strings.ToValidUTF8(text, "\ufffd")) }

// lower returns text with A to Z in lower case, as lower() of the rules does.
func lower(text string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, text)
}
