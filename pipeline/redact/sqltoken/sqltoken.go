// Package sqltoken splits SQL text into the tokens that MySQL and related databases share: words, names in
// backticks, literals, numbers, punctuation. It has no grammar.
//
// protocols/mysql uses it to find the first word of a statement, pipeline/redact to find secret literals. The
// text may be cut anywhere: an unterminated quote or comment extends to the end of the text.
//
// Specification: dev.mysql.com/doc/refman/en/language-structure.html.
package sqltoken

import "slices"

// A Kind is the kind of a token.
type Kind uint8

// The kinds of tokens. A Literal stands in single or double quotes, or is a hexadecimal number; a Name stands
// in backticks.
const (
	Word Kind = iota
	Name
	Literal
	Number
	Punctuation
)

// A Scanner iterates over the tokens of SQL, one for each call of Next. It skips spaces and comments. If
// servers execute a comment (/*! … */), it skips only the delimiters.
type Scanner struct {
	SQL      []byte
	From, To int // the current token is SQL[From:To]
	Kind     Kind
	// Escaped means that the text is the content of a string in double quotes, as in JSON: \" is a double
	// quote, \n and \t are spaces.
	Escaped bool
}

// Next moves to the next token and reports whether there is one.
func (s *Scanner) Next() bool {
	s.To = s.skipSpace(s.To)
	s.From = s.To
	if s.From >= len(s.SQL) {
		return false
	}
	switch c := s.SQL[s.From]; {
	case c == '\'' || c == '"':
		s.Kind, s.To = Literal, s.endOfQuote(c)
	case c == '`':
		s.Kind, s.To = Name, s.endOfQuote(c)
	case s.Escaped && s.AtEscapedQuote():
		s.Kind, s.To = Literal, s.endOfEscapedQuote()
	case isDigit(c):
		s.Kind, s.To = Number, s.endOfWord()
		if c == '0' && s.To > s.From+2 && s.SQL[s.From+1]|0x20 == 'x' {
			s.Kind = Literal
		}
	case IsWordByte(c):
		s.Kind, s.To = Word, s.endOfWord()
	default:
		s.Kind, s.To = Punctuation, s.From+1
	}
	return true
}

// Text returns the current token without its quotes.
func (s *Scanner) Text() []byte {
	from, to := s.Inner()
	return s.SQL[from:to]
}

// Inner returns the offsets of the current token without its quotes.
func (s *Scanner) Inner() (from, to int) {
	data := s.SQL[s.From:s.To]
	width := 0
	switch data[0] {
	case '`', '"', '\'':
		width = 1
	case '\\':
		if s.Kind == Literal {
			width = 2
		}
	}
	from, to = s.From+width, s.To
	if width > 0 && len(data) >= 2*width && data[len(data)-1] == data[width-1] {
		to -= width
	}
	return from, to
}

// Is reports whether the current token is word, which is in upper case.
func (s *Scanner) Is(word string) bool {
	// Most words differ in the length or in the first letter: compare the rest only where both are equal.
	return s.To-s.From == len(word) && s.SQL[s.From]&^0x20 == word[0] && EqualFold(s.SQL[s.From:s.To], word)
}

// IsAny reports whether the current token is one of words, which are in upper case.
func (s *Scanner) IsAny(words []string) bool {
	return slices.ContainsFunc(words, func(word string) bool { return s.Is(word) })
}

// EqualFold reports whether b equals upper, ignoring the case of letters. b must have the length of upper.
// upper has only upper-case letters, underscores and spaces.
func EqualFold(b []byte, upper string) bool {
	for i, c := range b {
		if c != upper[i] && (c^0x20 != upper[i] || c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}

// skipSpace returns the offset of the first byte from pos on that belongs to a token.
func (s *Scanner) skipSpace(pos int) int {
	for pos < len(s.SQL) {
		rest := s.SQL[pos:]
		switch c := rest[0]; {
		case c <= ' ':
			pos++
		case c == '#', c == '-' && len(rest) > 2 && rest[1] == '-' && rest[2] <= ' ':
			for pos < len(s.SQL) && s.SQL[pos] != '\n' {
				pos++
			}
		case c == '/' && len(rest) > 1 && rest[1] == '*':
			pos = s.skipComment(pos + 2)
		case c == '*' && len(rest) > 1 && rest[1] == '/': // the end of a comment that is executed
			pos += 2
		case s.Escaped && c == '\\' && len(rest) > 1 && (rest[1] == 'n' || rest[1] == 't' || rest[1] == 'r'):
			pos += 2
		default:
			return pos
		}
	}
	return pos
}

// skipComment returns the end of the comment whose text begins at pos. For a comment that servers execute it
// returns the end of the opening delimiter.
func (s *Scanner) skipComment(pos int) int {
	rest := s.SQL[pos:]
	if len(rest) > 0 && (rest[0] == '!' || len(rest) > 1 && rest[0] == 'M' && rest[1] == '!') {
		for pos < len(s.SQL) && (s.SQL[pos] == '!' || s.SQL[pos] == 'M' || isDigit(s.SQL[pos])) {
			pos++
		}
		return pos
	}
	for ; pos < len(s.SQL); pos++ {
		if s.SQL[pos] == '*' && pos+1 < len(s.SQL) && s.SQL[pos+1] == '/' {
			return pos + 2
		}
	}
	return pos
}

// endOfQuote returns the end of the literal or name that the quote at From begins. A backslash escapes the
// next byte, and a doubled quote stands for one quote.
func (s *Scanner) endOfQuote(quote byte) int {
	for i := s.From + 1; i < len(s.SQL); i++ {
		switch c := s.SQL[i]; {
		case c == '\\' && quote != '`':
			i++
			// In an escaped string the backslash of the SQL is doubled, and its character may be escaped too.
			if s.Escaped && i < len(s.SQL) && s.SQL[i] == '\\' {
				if i++; i < len(s.SQL) && s.SQL[i] == '\\' {
					i++
				}
			}
		case c == quote && i+1 < len(s.SQL) && s.SQL[i+1] == quote:
			i++
		case c == quote:
			return i + 1
		}
	}
	return len(s.SQL)
}

// AtEscapedQuote reports whether the current token begins with \".
func (s *Scanner) AtEscapedQuote() bool {
	return s.SQL[s.From] == '\\' && s.From+1 < len(s.SQL) && s.SQL[s.From+1] == '"'
}

// endOfEscapedQuote returns the end of the literal that \" at From begins: the next \", or the bare quote that
// ends the enclosing string.
func (s *Scanner) endOfEscapedQuote() int {
	for i := s.From + 2; i < len(s.SQL); i++ {
		switch {
		case s.SQL[i] == '"':
			return i
		case s.SQL[i] != '\\' || i+1 == len(s.SQL):
		case s.SQL[i+1] == '"':
			return i + 2
		default:
			i++
			// \\\" is an escaped quote of the SQL.
			if s.SQL[i] == '\\' && i+2 < len(s.SQL) && s.SQL[i+1] == '\\' && s.SQL[i+2] == '"' {
				i += 2
			}
		}
	}
	return len(s.SQL)
}

func (s *Scanner) endOfWord() int {
	end := s.From
	for end < len(s.SQL) && IsWordByte(s.SQL[end]) {
		end++
	}
	return end
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// IsWordByte reports whether c may stand in a word: a letter, a digit, _, $, or a byte of a character beyond
// ASCII.
func IsWordByte(c byte) bool { return wordBytes[c] }

var wordBytes = func() (table [256]bool) {
	for i := range table {
		c := byte(i)
		table[c] = 'a' <= c|0x20 && c|0x20 <= 'z' || isDigit(c) || c == '_' || c == '$' || c >= 0x80
	}
	return table
}()
