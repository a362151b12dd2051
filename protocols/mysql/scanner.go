package mysql

// A tokenKind is what a scanner is at.
type tokenKind uint8

const (
	word tokenKind = iota
	quoted
	literal
	number
	punctuation
)

// A scanner goes through the tokens of a statement, b[from:to] each. Comments and spaces are passed; of /*! … */, which servers
// execute, only the marks.
type scanner struct {
	b        []byte
	from, to int
	kind     tokenKind
}

// next goes to the next token; false at the end.
func (s *scanner) next() bool {
	s.to = s.passSpace(s.to)
	s.from = s.to
	if s.from >= len(s.b) {
		return false
	}
	switch c := s.b[s.from]; {
	case c == '\'' || c == '"':
		s.kind, s.to = literal, s.endOfQuote(c)
	case c == '`':
		s.kind, s.to = quoted, s.endOfQuote(c)
	case isDigit(c):
		s.kind, s.to = number, s.endOfWord()
		if c == '0' && s.to > s.from+2 && s.b[s.from+1]|0x20 == 'x' {
			s.kind = literal
		}
	case isWord(c):
		s.kind, s.to = word, s.endOfWord()
	default:
		s.kind, s.to = punctuation, s.from+1
	}
	return true
}

// text is a word, or what stands between quotes.
func (s *scanner) text() []byte {
	t := s.b[s.from:s.to]
	if q := t[0]; q == '`' || q == '"' || q == '\'' {
		t = t[1:]
		if n := len(t); n > 0 && t[n-1] == q {
			t = t[:n-1]
		}
	}
	return t
}

// is tells whether the token is this word, which is in upper case.
func (s *scanner) is(w string) bool {
	return s.to-s.from == len(w) && fold(s.b[s.from:s.to], w)
}

// fold tells whether b, of w's length, is w but for its case. w is letters in upper case, and _.
func fold(b []byte, w string) bool {
	for i, c := range b {
		if c != w[i] && (c^0x20 != w[i] || c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}

func (s *scanner) passSpace(i int) int {
	for i < len(s.b) {
		rest := s.b[i:]
		switch c := rest[0]; {
		case c <= ' ':
			i++
		case c == '#', c == '-' && len(rest) > 2 && rest[1] == '-' && rest[2] <= ' ':
			for i < len(s.b) && s.b[i] != '\n' {
				i++
			}
		case c == '/' && len(rest) > 1 && rest[1] == '*':
			i = s.passComment(i + 2)
		case c == '*' && len(rest) > 1 && rest[1] == '/':
			i += 2
		default:
			return i
		}
	}
	return i
}

// passComment gives the end of a comment, or the front of what is to be executed in it.
func (s *scanner) passComment(i int) int {
	rest := s.b[i:]
	if len(rest) > 0 && (rest[0] == '!' || len(rest) > 1 && rest[0] == 'M' && rest[1] == '!') {
		for i < len(s.b) && (s.b[i] == '!' || s.b[i] == 'M' || isDigit(s.b[i])) {
			i++
		}
		return i
	}
	for ; i < len(s.b); i++ {
		if s.b[i] == '*' && i+1 < len(s.b) && s.b[i+1] == '/' {
			return i + 2
		}
	}
	return i
}

// endOfQuote passes what is quoted: a backslash takes the next character with it, a doubled quote is one of the text.
func (s *scanner) endOfQuote(q byte) int {
	for i := s.from + 1; i < len(s.b); i++ {
		switch c := s.b[i]; {
		case c == '\\' && q != '`':
			i++
		case c == q && i+1 < len(s.b) && s.b[i+1] == q:
			i++
		case c == q:
			return i + 1
		}
	}
	return len(s.b)
}

func (s *scanner) endOfWord() int {
	i := s.from
	for i < len(s.b) && isWord(s.b[i]) {
		i++
	}
	return i
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isWord(c byte) bool {
	return 'a' <= c|0x20 && c|0x20 <= 'z' || isDigit(c) || c == '_' || c == '$' || c >= 0x80
}
