package redact

import (
	"bytes"
	"slices"
	"strings"

	"tidegate/pipeline/redact/sqltoken"
)

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

// verbs are the first words of statements that may hold secrets, by their first letter in lower case.
var verbs = func() (by [256][]string) {
	for _, word := range [...]string{
		"SELECT", "INSERT", "REPLACE", "UPDATE", "DELETE", "SET", "CREATE", "ALTER", "GRANT", "CHANGE", "CALL",
		"DO", "WITH", "EXPLAIN", "START", "PREPARE", "PRAGMA", "ATTACH",
		"EXEC", "EXECUTE",
	} {
		first := word[0] | 0x20
		by[first] = append(by[first], word)
	}
	return by
}()

// maxStatements bounds the number of times that a line is read as SQL: once from its first verb, and again from a
// verb inside a literal of the previous reading, since that literal may have begun with an apostrophe of prose.
const maxStatements = 8

// hideStatements hides the secrets of the SQL in a text.
func (r *Redactor) hideStatements(v view) {
	if !hasCodeName(v.text) && (!hasLiteral(v.text) || !hasSecretWord(v.text) && !hasRoutine(v.text)) {
		return
	}
	for at, statements := nextVerb(v.text, 0), 0; at >= 0 && statements < maxStatements; statements++ {
		at = r.hideStatement(v, at)
	}
}

// hasLiteral reports whether a text may have a literal of SQL. In a JSON document its quotes are escaped; programs
// that do not escape them have a blank or a bracket in front of a literal.
func hasLiteral(text []byte) bool {
	if bytes.IndexByte(text, '\'') >= 0 || bytes.Contains(text, []byte("0x")) {
		return true
	}
	if len(text) > 0 && (text[0] == '{' || text[0] == '[') {
		return bytes.Contains(text, []byte(`\"`)) || bytes.Contains(text, []byte(` "`)) ||
			bytes.Contains(text, []byte(`("`))
	}
	return bytes.IndexByte(text, '"') >= 0
}

// hideStatement reads the text as SQL from the verb at offset at on, and hides the secrets. It returns the
// offset of the next verb to read from, or −1.
//
// A statement inside a string, as in JSON, ends with the quote of that string. Some programs do not escape
// the quotes of the SQL itself, so the end is the first " at which the statement can end.
func (r *Redactor) hideStatement(v view, at int) (next int) {
	statement := statement{Scanner: sqltoken.Scanner{SQL: v.text, To: at, Escaped: insideString(v.text[:at])}, codes: hasCodeName(v.text)}
	next = -1
	for canEnd := false; statement.Next(); canEnd = statement.canEnd() {
		if statement.Escaped && canEnd && v.text[statement.From] == '"' {
			if next < 0 {
				next = nextVerb(v.text, statement.From)
			}
			return next
		}
		switch {
		case statement.readToken():
			from, to := statement.Inner()
			if !isPlaceholder(v.text[from:to]) {
				r.hide(v, from, to, RuleSQL)
			}
		case statement.Kind == sqltoken.Literal && next < 0:
			next = nextVerb(v.text[:statement.To], statement.From+1)
		}
	}
	return next
}

// hasSecretWord reports whether a text has a word without which no statement has a secret.
func hasSecretWord(text []byte) bool { return containsWord(text, secretWordsBy) }

// A wordTable has words that begin with a letter, in lower case, by that letter in either case. The bits of seconds are
// those of their second bytes.
type wordTable struct {
	seconds [256]uint32
	words   [256][]string
}

var secretWordsBy, accountTablesBy = newWordTable(wordsOf(sqlNeedle)), newWordTable(accountTables[:])

// newWordTable returns the table of words. A word that begins with another is left out.
func newWordTable(words []string) *wordTable {
	table := new(wordTable)
	for i, word := range words {
		isLonger := slices.ContainsFunc(words, func(other string) bool { return word != other && strings.HasPrefix(word, other) })
		if isLonger || slices.Contains(words[:i], word) {
			continue
		}
		for _, first := range [...]byte{word[0], word[0] &^ 0x20} {
			table.seconds[first] |= 1 << (word[1] & 31)
			table.words[first] = append(table.words[first], word)
		}
	}
	return table
}

// containsWord reports whether a text contains one of the words of table, in any case.
func containsWord(text []byte, table *wordTable) bool {
	for i := 1; i < len(text); i++ {
		if first := text[i-1]; table.seconds[first]>>(text[i]&31)&1 != 0 && table.hasPrefixOf(text[i-1:]) {
			return true
		}
	}
	return false
}

// hasPrefixOf reports whether text begins with one of the words.
func (t *wordTable) hasPrefixOf(text []byte) bool {
	for _, word := range t.words[text[0]] {
		if len(text) >= len(word) && equalLower(text[:len(word)], word) {
			return true
		}
	}
	return false
}

// equalLower reports whether text is word, which is in lower case, in any case. They have the same length.
func equalLower(text []byte, word string) bool {
	for i, c := range text {
		if c != word[i] && c|0x20 != word[i] {
			return false
		}
	}
	return true
}

// insideString reports whether a string in double quotes is open at the end of b.
func insideString(data []byte) bool {
	inside := false
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '\\':
			i++
		case '"':
			inside = !inside
		}
	}
	return inside
}

// operandWords are the words before an operand. A statement does not end with one of them.
var operandWords = [...]string{
	"SELECT", "WHERE", "AND", "OR", "XOR", "NOT", "ON", "SET", "LIKE", "IN", "BY", "AS", "WITH", "VIA", "USING",
	"FROM", "INTO", "VALUES", "VALUE", "USER", "FOR", "TO", "REPLACE", "DISTINCT", "CASE", "WHEN", "THEN", "ELSE",
	"HAVING", "IDENTIFIED",
}

// canEnd reports whether the statement can end with the current token.
func (s *statement) canEnd() bool {
	switch {
	case s.depth > 0:
		return false
	case s.Kind == sqltoken.Punctuation:
		return s.SQL[s.From] == ')' || s.SQL[s.From] == ';' || s.SQL[s.From] == '?' || s.SQL[s.From] == '*'
	case s.Kind == sqltoken.Word:
		return !s.IsAny(operandWords[:]) && !(s.afterIdentified && s.Is("PASSWORD"))
	}
	return true
}

// nextVerb returns the offset of the next verb from pos on, or −1.
func nextVerb(data []byte, pos int) int {
	for pos < len(data) {
		if !sqltoken.IsWordByte(data[pos]) {
			pos++
			continue
		}
		from := pos
		for pos < len(data) && sqltoken.IsWordByte(data[pos]) {
			pos++
		}
		if from > 0 && data[from-1] == '\\' && (data[from] == 'n' || data[from] == 't' || data[from] == 'r') {
			from++ // a line break in a string
		}
		if from == pos {
			continue
		}
		for _, verb := range verbs[data[from]|0x20] {
			if len(verb) == pos-from && sqltoken.EqualFold(data[from:pos], verb) {
				return from
			}
		}
	}
	return -1
}
