package redact

import (
	"bytes"
	"encoding/base64"
)

// minJWT is the minimum length of a JSON web token.
const minJWT = 20

// jwtAt returns the end of the JSON web token, RFC 7519, whose eyJ ends with text[pos], or 0.
func jwtAt(text []byte, pos int) int {
	if pos < 2 || text[pos-1] != 'y' || text[pos-2] != 'e' || pos > 2 && isTokenChar(text[pos-3]) {
		return 0
	}
	dots, to := 0, pos+1
	for to < len(text) && (isTokenChar(text[to]) || text[to] == '.' || text[to] == '=') {
		if text[to] == '.' {
			dots++
		}
		to++
	}
	for text[to-1] == '.' {
		to--
	}
	if dots == 0 || to-pos+2 < minJWT {
		return 0
	}
	return to
}

// cryptMethods are the names of methods in hashes of passwords, as crypt(5) writes them: $name$….
var cryptMethods = [...]string{
	"1", "2a", "2b", "2x", "2y", "5", "6", "y", "7", "gy", "apr1", "sha1", "argon2i", "argon2d", "argon2id",
	"pbkdf2", "pbkdf2-sha256", "pbkdf2-sha512", "scrypt", "P", "H",
}

// cryptLen returns the length of the hash of a password at text[pos], or 0. In Compose files each $ is doubled.
func cryptLen(text []byte, pos int) int {
	if pos > 0 && text[pos-1] == '$' {
		return 0
	}
	from := pos + 1
	if from < len(text) && text[from] == '$' {
		from++
	}
	end := from
	for end < len(text) && end-from < 14 && text[end] != '$' {
		end++
	}
	if end == len(text) || text[end] != '$' || !isOneOf(text[from:end], cryptMethods[:]) {
		return 0
	}
	to := end
	for to < len(text) && (isTokenChar(text[to]) || bytes.IndexByte([]byte("$./+=,"), text[to]) >= 0) {
		to++
	}
	if to-end < 9 {
		return 0
	}
	return to - pos
}

// minBearer is the length of the shortest bearer token: "Bearer of" is prose.
const minBearer = 8

// bearerAt returns the offset of the token behind the word Bearer, whose first letter is at pos, or 0. A word
// of English text is no token.
func bearerAt(text []byte, pos int) int {
	const word = "bearer"
	end := pos + len(word)
	if end+1 >= len(text) || text[pos+1]|0x20 != 'e' || !bytes.EqualFold(text[pos:end], []byte(word)) {
		return 0
	}
	if text[end] == ',' {
		end++ // of a list of WebSocket protocols
	}
	if text[end] != ' ' {
		return 0
	}
	from := skipBlanks(text, end)
	to := bearerEnd(text, from)
	if to-from < minBearer || bytes.HasPrefix(text[from:], []byte(Marker)) {
		return 0
	}
	if !looksRandom(text[from:to]) && bytes.IndexByte(text[from:to-1], '.') < 0 {
		return 0
	}
	return from
}

// bearerEnd returns the end of the token at from, RFC 6750 section 2.1.
func bearerEnd(text []byte, from int) int {
	for from < len(text) && (isTokenChar(text[from]) || bytes.IndexByte([]byte(".~+/="), text[from]) >= 0) {
		from++
	}
	return from
}

// basicAt returns the credentials behind the word Basic, RFC 7617, whose first letter is at pos; to is 0 if there are
// none. They are base64 of a user, a colon and a password.
func basicAt(text []byte, pos int) (from, to int) {
	const word = "basic "
	if pos+len(word) > len(text) || text[pos+1]|0x20 != 'a' || !bytes.EqualFold(text[pos:pos+len(word)], []byte(word)) {
		return 0, 0
	}
	from = skipBlanks(text, pos+len(word))
	to = base64End(text, from)
	if !isUserAndPassword(text[from:to]) {
		return 0, 0
	}
	return from, to
}

// base64End returns the end of the characters of base64 from pos on.
func base64End(text []byte, pos int) int {
	for pos < len(text) && (folded[text[pos]] > separator || bytes.IndexByte([]byte("+/=-_"), text[pos]) >= 0) {
		pos++
	}
	return pos
}

// isTextInBase64 reports whether data is base64 of printable characters, as a mechanism of SMTP sends a user or a password.
func isTextInBase64(data []byte) bool {
	var plain [3 * maxName / 4]byte
	if len(data) < 4 || len(data) > maxName {
		return false
	}
	n, err := base64.StdEncoding.Decode(plain[:], data)
	for _, c := range plain[:n] {
		if c < ' ' || c >= 0x7f {
			return false
		}
	}
	return err == nil && n > 0
}

// isUserAndPassword reports whether data is base64 of a text with a colon in its first bytes.
func isUserAndPassword(data []byte) bool {
	var plain [3 * maxName / 4]byte
	front := data[:min(len(data), maxName)&^3]
	if len(front) < 4 || len(data) > 16*maxName {
		return false
	}
	n, err := base64.StdEncoding.Decode(plain[:], front)
	if err != nil {
		if n, err = base64.URLEncoding.Decode(plain[:], front); err != nil {
			return false
		}
	}
	for _, c := range plain[:n] {
		if c < ' ' || c == 0x7f {
			return false
		}
	}
	return bytes.IndexByte(plain[:n], ':') >= 0
}

// patternAt reports whether text[pos] is the last byte of the front of a token.
func patternAt(text []byte, pos int) bool {
	if text[pos] == 'J' && jwtAt(text, pos) > 0 {
		return true
	}
	_, to := prefixAt(text, pos)
	return to > 0
}

// hidePatterns hides tokens and keys that are known by their form.
func (r *Redactor) hidePatterns(v view) {
	text := v.text
	for i := 0; i < len(text); {
		next := i + 1
		switch c := text[i]; c {
		case '-':
			if from, to := r.privateKey(text, i); to > 0 {
				r.hide(v, from, to, RulePrivateKey)
				next = to
				break
			}
			next = r.hideToken(v, i)
		case 'L':
			if to := encodedKeyEnd(text, i); to > 0 {
				r.hide(v, i, to, RulePrivateKey)
				next = to
			}
		case 'J':
			if to := jwtAt(text, i); to > 0 {
				r.hide(v, i-2, to, RulePattern)
				next = to
			} else {
				next = r.hideToken(v, i)
			}
		case '$':
			if n := cryptLen(text, i); n > 0 {
				r.hide(v, i, i+n, RulePattern)
				next = i + n
			}
		case 'B', 'b':
			if from := bearerAt(text, i); from > 0 {
				next = bearerEnd(text, from)
				r.hide(v, from, next, RulePattern)
			} else if from, to := basicAt(text, i); to > 0 {
				r.hide(v, from, to, RulePattern)
				next = to
			} else {
				next = r.hideToken(v, i)
			}
		default:
			if mayEndPrefix(text, i) {
				next = r.hideToken(v, i)
			}
		}
		i = next
	}
}

// encodedBegin is base64 of the front of a PEM block, RFC 7468.
const encodedBegin = "LS0tLS1CRUdJTi"

// encodedKeyEnd returns the end of the base64 of a private key in PEM that begins at pos, as Secrets of Kubernetes have
// it; 0: there is none.
func encodedKeyEnd(text []byte, pos int) int {
	if len(text)-pos < maxName || string(text[pos:pos+len(encodedBegin)]) != encodedBegin {
		return 0
	}
	var plain [3 * maxName / 4]byte
	n, _ := base64.StdEncoding.Decode(plain[:], text[pos:pos+maxName])
	if !bytes.Contains(plain[:n], keyWords) {
		return 0
	}
	return base64End(text, pos)
}

// hideToken hides the token whose prefix ends at pos, and returns the offset at which to continue.
func (r *Redactor) hideToken(v view, pos int) int {
	from, to := prefixAt(v.text, pos)
	if to == 0 {
		return pos + 1
	}
	r.hide(v, from, to, RulePattern)
	return to
}

var (
	keyBegin = []byte("-----BEGIN ")
	keyEnd   = []byte("-----END ")
	keyWords = []byte("PRIVATE KEY")
	dashes   = []byte("-----")
)

// maxKeyLabel is the longest name of a key between the dashes.
const maxKeyLabel = 64

// privateKey returns the bytes between the first and the last line of the private key, RFC 7468, that begins at
// pos. Without its last line the key extends to the end of the text.
func (r *Redactor) privateKey(text []byte, pos int) (from, to int) {
	if !bytes.HasPrefix(text[pos:], keyBegin) {
		return 0, 0
	}
	label := text[pos+len(keyBegin) : min(len(text), pos+len(keyBegin)+maxKeyLabel)]
	end := bytes.Index(label, dashes)
	if end < 0 || !bytes.Contains(label[:end], keyWords) {
		return 0, 0
	}
	from = pos + len(keyBegin) + end + len(dashes)
	to = len(text)
	if i := bytes.Index(text[from:], keyEnd); i >= 0 {
		to = from + i
	} else {
		r.keyBegun = true
	}
	if len(bytes.Trim(text[from:to], " \t\r\n\\n")) == 0 {
		return 0, 0
	}
	return from, to
}
