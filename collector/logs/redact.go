package logs

import "bytes"

// redacted stands where a secret stood.
const redacted = "REDACTED"

// A redactor takes secrets out of lines. It belongs to one goroutine: what it returns is valid until its next call.
//
// It looks at the places where a secret could begin – behind '=' or ':' with a telling word before, in the user part of an
// address, behind Bearer – and costs a line that has none of them a few searches for a byte.
type redactor struct{ buf []byte }

// A secret is the word before a value. Words are compared by their end, so db_password, MYSQL_PASSWORD and X-Api-Key are found.
var secretWords = [...]string{
	"password", "passwd", "pwd", "passphrase", "secret", "token", "apikey", "api_key", "api-key", "accesskey", "access_key",
	"access-key", "secretkey", "secret_key", "private_key", "authorization", "cookie", "sessionid", "session_id",
}

// line returns b without its secrets and tells whether there were any. b is not changed.
func (r *redactor) line(b []byte) ([]byte, bool) {
	out, done := r.buf[:0], 0
	m := marks{b: b}
	m.begin()
	for {
		i := m.next()
		if i < 0 {
			break
		}
		start, end := secretAt(b, i)
		if end <= start || start < done {
			continue
		}
		out = append(append(out, b[done:start]...), redacted...)
		done = end
		m.skip(end)
	}
	if done == 0 {
		return b, false
	}
	r.buf = append(out, b[done:]...)
	return r.buf, true
}

// marks walks over the places of a line behind which a secret could stand: '=', ':', the B of Bearer and the quote behind IDENTIFIED
// BY. Each kind is searched on its own, by the library's vector code; a search for a whole word took as long as the four.
type marks struct {
	b                       []byte
	eq, colon, bear, quoted int // the next of each kind; len(b): no more
}

func (m *marks) begin() {
	m.eq, m.colon, m.bear, m.quoted = m.find('=', 0), m.find(':', 0), m.find('B', 0), m.find('\'', 0)
}

func (m *marks) find(c byte, from int) int {
	if n := bytes.IndexByte(m.b[from:], c); n >= 0 {
		return from + n
	}
	return len(m.b)
}

func (m *marks) next() int {
	switch i := min(m.eq, m.colon, m.bear, m.quoted); {
	case i == len(m.b):
		return -1
	case i == m.eq:
		m.eq = m.find('=', i+1)
		return i
	case i == m.colon:
		m.colon = m.find(':', i+1)
		return i
	case i == m.bear:
		m.bear = m.find('B', i+1)
		return i
	default:
		m.quoted = m.find('\'', i+1)
		return i
	}
}

// skip moves behind a secret that was found.
func (m *marks) skip(to int) {
	if m.eq < to {
		m.eq = m.find('=', to)
	}
	if m.colon < to {
		m.colon = m.find(':', to)
	}
	if m.bear < to {
		m.bear = m.find('B', to)
	}
	if m.quoted < to {
		m.quoted = m.find('\'', to)
	}
}

// secretAt judges the mark b[i] and returns where the secret behind it stands; end <= start: there is none.
func secretAt(b []byte, i int) (start, end int) {
	switch b[i] {
	case 'B':
		return bearer(b, i)
	case '\'':
		return identifiedBy(b, i)
	}
	if b[i] == ':' && i+2 < len(b) && b[i+1] == '/' && b[i+2] == '/' {
		return userInfo(b, i+3)
	}
	word := wordBefore(b, i)
	if word == "" {
		return 0, 0
	}
	if b[i] == ':' && (word == "token" || word == "secret" || word == "cookie" || word == "pwd") && !quotedBefore(b, i) && !headerBefore(b, i) {
		return 0, 0 // "unexpected token: <" is prose; "token=…" and {"token":"…"} are not
	}
	return valueBehind(b, i+1, word == "authorization" || word == "cookie")
}

// wordBefore returns the secret word that ends at the mark b[i]; quotes and spaces may stand between.
func wordBefore(b []byte, i int) string {
	for i > 0 && (b[i-1] == '"' || b[i-1] == '\'' || b[i-1] == ' ' || b[i-1] == '\\') {
		i--
	}
	if i == 0 {
		return ""
	}
	switch b[i-1] | 0x20 { // the last letters of the words
	case 'd', 'e', 't', 'n', 'y':
	default:
		return ""
	}
	for _, w := range secretWords {
		if n := len(w); i >= n && b[i-1]|0x20 == w[n-1] && foldEqual(b[i-n:i], w) {
			return w
		}
	}
	return ""
}

// foldEqual is equalFold for words with '_' and '-' in them, which the bit of the case would change.
func foldEqual(b []byte, lower string) bool {
	for i := range len(lower) {
		c := b[i]
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

func quotedBefore(b []byte, i int) bool { return i > 0 && (b[i-1] == '"' || b[i-1] == '\'') }

// headerBefore tells whether the word before b[i] has a dash or a capital: X-Auth-Token:, Cookie:, Set-Cookie:.
func headerBefore(b []byte, i int) bool {
	for i--; i >= 0 && b[i] != ' ' && b[i] != '"'; i-- {
		if b[i] == '-' || b[i] == '_' || b[i] >= 'A' && b[i] <= 'Z' {
			return true
		}
	}
	return false
}

// valueBehind finds the value that begins at or behind b[i]. A rest takes everything up to the end of the line or of the quotes,
// as header values hold spaces; of Authorization the scheme stays.
func valueBehind(b []byte, i int, rest bool) (start, end int) {
	for i < len(b) && b[i] == ' ' {
		i++
	}
	quote, escaped := byte(0), false
	if i < len(b) && b[i] == '\\' { // a document within a string
		escaped = true
		i++
	}
	if i < len(b) && (b[i] == '"' || b[i] == '\'') {
		quote = b[i]
		i++
	}
	end = i
	for end < len(b) && !ends(b[end], quote, rest) {
		if b[end] == '\\' && quote != 0 && !escaped && end+1 < len(b) {
			end++
		}
		end++
	}
	if escaped && end > i && b[end-1] == '\\' {
		end--
	}
	if rest {
		if n := bytes.IndexByte(b[i:end], ' '); n > 0 && n <= 16 && bytes.IndexByte(b[i:i+n], '=') < 0 {
			i += n + 1
		}
	}
	return i, end
}

func ends(c, quote byte, rest bool) bool {
	switch {
	case quote != 0:
		return c == quote
	case c == '"' || c == '\'':
		return true
	case rest:
		return false
	}
	return c == ' ' || c == '&' || c == ',' || c == ';' || c == ')' || c == '}' || c == ']' || c == '\t' || c == '\n'
}

// bearer finds the token behind the word Bearer, where a token's letters follow; b[i] is its B.
func bearer(b []byte, i int) (start, end int) {
	const word = "bearer "
	if len(b) < i+len(word) || !foldEqual(b[i:i+len(word)], word) {
		return 0, 0
	}
	start = i + len(word)
	for end = start; end < len(b) && tokenByte(b[end]); end++ {
	}
	if end-start < 8 {
		return 0, 0
	}
	return start, end
}

func tokenByte(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == '.' || c == '_' || c == '~' || c == '+' || c == '/' || c == '='
}

// identifiedBy finds the password of SQL's IDENTIFIED BY '…'; b[i] is the quote.
func identifiedBy(b []byte, i int) (start, end int) {
	const words = "identified by "
	if i < len(words) || !foldEqual(b[i-len(words):i], words) {
		return 0, 0
	}
	start = i + 1
	n := bytes.IndexByte(b[start:], '\'')
	if n < 0 {
		n = len(b) - start
	}
	return start, start + n
}

// userInfo finds the password in scheme://user:password@host; i is behind the slashes.
func userInfo(b []byte, i int) (start, end int) {
	for ; i < len(b); i++ {
		switch c := b[i]; {
		case c == ':' && start == 0:
			start = i + 1
		case c == '@':
			if start == 0 {
				return 0, 0
			}
			return start, i
		case c == '/' || c == ' ' || c == '"' || c == '\'' || c == '?':
			return 0, 0
		}
	}
	return 0, 0
}
