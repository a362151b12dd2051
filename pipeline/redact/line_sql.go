package redact

import (
	"tidegate/pipeline/redact/sqltoken"
)

// introducers are the words, in upper case, after which SQL may have a secret, by their last letter in lower
// case. The names of secrets introduce secrets too.
var introducers = func() (by [256][]string) {
	list := []string{"BY", "AS", "USING", "LIKE", "IN", "REPLACE", "VALUES", "VALUE", "OPTIONS"}
	for _, word := range append(list, secretFunctions[:]...) {
		last := word[len(word)-1] | 0x20
		by[last] = append(by[last], word)
	}
	return by
}()

// hideIdentifiedBy hides the password that begins with the ' at pos if it follows IDENTIFIED BY, and returns
// the offset at which to continue. Any other ' that is not an apostrophe may be a quote of SQL.
func (l *line) hideIdentifiedBy(pos int) int {
	data := l.b
	apostrophe := pos > 0 && pos+1 < len(data) && isLetter(data[pos-1]) && isLetter(data[pos+1])
	l.mayHoldSQL = l.mayHoldSQL || !apostrophe
	const words = "IDENTIFIED BY "
	if pos < len(words) || !sqltoken.EqualFold(data[pos-len(words):pos], words) {
		return pos + 1
	}
	to := pos + 1
	for to < len(data) && data[to] != '\'' {
		to++
	}
	l.hide(pos+1, to)
	return to
}

// introducesSQL reports whether a secret of SQL may follow the ( or the " at pos. The word before it decides;
// spaces and operators may be between them.
func (l *line) introducesSQL(pos int) bool {
	data := l.b
	start := pos
	for start > 0 && (data[start-1] <= ' ' || data[start-1] == '\\' || isOperator(data[start-1])) {
		start--
	}
	if start == 0 {
		return false
	}
	switch c := data[start-1]; c {
	case '/': // the end of a comment
		return start > 1 && data[start-2] == '*'
	case '`':
		return SecretName(data[:start-1])
	default:
		return isLetter(c) && introducesSecret(data[:start], c|0x20) || data[pos] == '(' && callBehindLike(data[:start])
	}
}

func isOperator(c byte) bool { return c >= '<' && c <= '>' || c == '!' || c == ':' }

// callBehindLike reports whether data ends with LIKE and the name of a function.
func callBehindLike(data []byte) bool {
	for len(data) > 0 && sqltoken.IsWordByte(data[len(data)-1]) {
		data = data[:len(data)-1]
	}
	for len(data) > 0 && data[len(data)-1] <= ' ' {
		data = data[:len(data)-1]
	}
	n := len(data) - len("LIKE")
	return n >= 0 && sqltoken.EqualFold(data[n:], "LIKE")
}

// maxAccount is the greatest length of the name of a database account: 'user'@'host', in quotes.
const maxAccount = 512

// endsPasswordFor reports whether data ends with PASSWORD FOR and one word. The length of the word is bounded,
// because the function may be called for each byte of a line.
func endsPasswordFor(data []byte) bool {
	end := len(data)
	for end > 0 && len(data)-end < maxAccount && data[end-1] > ' ' {
		end--
	}
	const words = "PASSWORD FOR "
	return end >= len(words) && sqltoken.EqualFold(data[end-len(words):end], words)
}

// introducesSecret reports whether the word at the end of data, whose last letter is last, is an introducer.
func introducesSecret(data []byte, last byte) bool {
	for _, word := range introducers[last] {
		from := len(data) - len(word)
		if from >= 0 && sqltoken.EqualFold(data[from:], word) && (from == 0 || !sqltoken.IsWordByte(data[from-1])) {
			return true
		}
	}
	return SecretName(data)
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

// verbs are the first words of statements that may hold secrets, by their first letter in lower case.
var verbs = func() (by [256][]string) {
	for _, word := range [...]string{
		"SELECT", "INSERT", "REPLACE", "UPDATE", "DELETE", "SET", "CREATE", "ALTER", "GRANT", "CHANGE", "CALL", "DO",
		"WITH", "EXPLAIN", "START", "PREPARE",
	} {
		first := word[0] | 0x20
		by[first] = append(by[first], word)
	}
	return by
}()

// maxStatements bounds the number of times that a line is read as SQL: once from its first verb, and again from a
// verb inside a literal of the previous reading, since that literal may have begun with an apostrophe of prose.
const maxStatements = 8

// hideStatements hides the secrets of the SQL in the line.
func (l *line) hideStatements() {
	for at, statements := nextVerb(l.b, 0), 0; at >= 0 && statements < maxStatements; statements++ {
		at = l.hideStatement(at)
	}
}

// hideStatement reads the line as SQL from the verb at offset at on, and hides the secrets. It returns the
// offset of the next verb to read from, or −1.
//
// A statement inside a string, as in JSON, ends with the quote of that string. Some programs do not escape
// the quotes of the SQL itself, so the end is the first " at which the statement can end.
func (l *line) hideStatement(at int) (next int) {
	statement := statement{Scanner: sqltoken.Scanner{SQL: l.b, To: at, Escaped: insideString(l.b[:at])}}
	next = -1
	for canEnd := false; statement.Next(); canEnd = statement.canEnd() {
		if statement.Escaped && canEnd && l.b[statement.From] == '"' {
			if next < 0 {
				next = nextVerb(l.b, statement.From)
			}
			return next
		}
		switch {
		case statement.readToken():
			from, to := statement.Inner()
			l.hide(from, to)
		case statement.Kind == sqltoken.Literal && next < 0:
			next = nextVerb(l.b[:statement.To], statement.From+1)
		}
	}
	return next
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
		for _, verb := range verbs[data[from]|0x20] {
			if len(verb) == pos-from && sqltoken.EqualFold(data[from:pos], verb) {
				return from
			}
		}
	}
	return -1
}
