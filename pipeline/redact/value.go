package redact

import "bytes"

// placeholders are values that stand for a secret, or for its absence.
var placeholders = [...]string{
	"true", "false", "yes", "no", "on", "off", "null", "nil", "none", "undefined", "empty", "missing", "redacted",
	"masked", "filtered", "hidden", "removed", "unset", "set", "basic", "bearer", "digest", "negotiate", "ntlm",
	"anonymous", "string", "n/a", "default", "disabled", "enabled", "required", "optional", "(null)", "nan",
	"plain", "login", "scram-sha-256", "md5", "trust",
}

// proseWords are the words of English text that follow the name of a secret and a colon.
var proseWords = [...]string{
	"a", "an", "and", "or", "the", "is", "was", "has", "not", "must", "should", "cannot", "can't", "for", "of",
	"to", "in", "with", "from", "by", "at", "as", "it", "if", "when", "too", "does", "did", "do", "will", "may",
	"please", "enter", "confirm", "type", "error", "errors", "invalid", "valid", "expired", "expires", "unknown",
	"changed", "change", "reset", "updated", "update", "created", "deleted", "accepted", "rejected", "denied",
	"failed", "failure", "success", "successful", "succeeded", "incorrect", "wrong", "correct", "mismatch",
	"mismatched", "verified", "verify", "sent", "given", "provided", "found", "using", "used", "read", "write",
	"ok", "okay", "unexpected", "unable", "no", "only", "authentication", "login", "access", "user", "users",
	"unauthorized", "forbidden", "malformed", "rotated", "refreshed", "revoked", "issued", "generated", "saved",
	"stored", "loaded", "loading", "parsing", "validating", "checking", "received", "accessed", "could", "would",
	"length", "minimum", "maximum", "strength", "requirements", "policy", "prompt", "shown", "banner", "service",
	"connected", "started", "stopped", "initialized", "configured", "removed", "missing", "mandatory", "unchanged",
	"there", "via", "duplicate", "deprecated", "ignored", "skipped", "permission",
	"creation", "creating", "destruction", "destroying", "refreshing", "reading", "modifying", "modifications", "importing",
	"still", "closed", "opened", "terminated", "reused", "resumed",

	// Of other languages, behind their names of passwords.
	"incorrecta", "incorrecto", "inválida", "invalida", "inválido", "requerida", "obligatoria", "cambiada", "vacía",
	"falsch", "ungültig", "geändert", "erforderlich", "abgelaufen", "nicht", "wurde", "zu", "muss", "darf",
	"invalide", "requis", "obligatoire", "modifié", "expiré", "oublié", "incorreta", "alterada",
	"obrigatória", "errata", "richiesta", "scaduta", "cambiata", "onjuist", "vereist", "gewijzigd", "felaktigt",
	"wymagane", "wymagana",
}

// maxShort is the length from which a value is not examined any more: it is a secret.
const maxShort = 40

// isPlaceholder reports whether value holds no secret: it is a placeholder, a reference to a variable, or has
// no letters and digits.
func isPlaceholder(value []byte) bool {
	if len(value) == 0 || bytes.HasPrefix(value, []byte(Marker)) {
		return true
	}
	if len(value) > maxShort {
		return false
	}
	if len(value) < 16 {
		inner := value
		if n := len(value); n > 2 && value[0] == '[' && value[n-1] == ']' {
			inner = value[1 : n-1] // [FILTERED] of Rails
		}
		for _, word := range placeholders {
			if len(word) == len(inner) && bytes.EqualFold(inner, []byte(word)) {
				return true
			}
		}
	}
	if isReference(value) {
		return true
	}
	stars := 0
	for _, c := range value {
		if c == '*' {
			stars++
		}
		if folded[c] > separator && c|0x20 != 'x' || c >= 0x80 {
			return false
		}
	}
	return stars > 0 || len(bytes.Trim(value, "xX")) == len(value) || len(value) >= 3
}

// isReference reports whether value refers to a secret: $NAME, ${NAME}, {{ name }}, %s, <password>, :name.
func isReference(value []byte) bool {
	last := value[len(value)-1]
	switch {
	case value[0] == '$' && len(value) > 1:
		name := bytes.Trim(value[1:], "{}()")
		if len(name) < 3 && isCount(name, 2) {
			return true // $1 of a prepared statement
		}
		for _, c := range name {
			if c != '_' && folded[c] <= '9' {
				return false
			}
		}
		return len(name) > 0
	case value[0] == '<' && last == '>', bytes.HasPrefix(value, []byte("{{")) && bytes.HasSuffix(value, []byte("}}")):
		return true
	case value[0] == '%' && len(value) == 2:
		return true
	}
	return bytes.IndexByte(value, '.') > 0 && !bytes.ContainsAny(value, "0123456789") &&
		SecretName(value) // users.password
}

// isCount reports whether value is a number, of at most maxDigits digits before a point.
func isCount(value []byte, maxDigits int) bool {
	digits, points := 0, 0
	for _, c := range value {
		switch {
		case c >= '0' && c <= '9':
			if points == 0 {
				digits++
			}
		case c == '.' && points == 0, c == '%' || c == ',':
			points++
		default:
			return false
		}
	}
	return digits > 0 && digits <= maxDigits
}

// looksRandom reports whether value does not look like a word: it has a digit, or capitals within, or a
// character that words do not have.
func looksRandom(value []byte) bool {
	if len(value) < 4 || len(value) > maxShort {
		return len(value) > maxShort
	}
	for i, c := range value {
		switch {
		case c >= '0' && c <= '9':
			return true
		case i > 0 && c >= 'A' && c <= 'Z' && value[i-1] >= 'a' && value[i-1] <= 'z':
			return true
		case bytes.IndexByte([]byte("_!$%^&*+=~#@/"), c) >= 0 && i > 0 && i+1 < len(value):
			return true
		}
	}
	return false
}

// isProseWord reports whether value, without punctuation at its end, is one of proseWords.
func isProseWord(value []byte) bool {
	if len(value) > maxShort {
		return false
	}
	value = bytes.TrimRight(value, ",.;:!?)")
	return isOneFold(value, proseWords[:])
}

// isOneFold reports whether word is one of the words of list, which are in lower case, in any case.
func isOneFold(word []byte, list []string) bool {
	for _, other := range list {
		if len(other) == len(word) && equalLower(word, other) {
			return true
		}
	}
	return false
}

// valueRange is a value in a text: its bytes, and where reading continues behind it.
type valueRange struct {
	from, to, next int
	quoted         bool
}

// readValue returns the value at text[pos:], which may be in quotes, or behind blanks. inString reports that
// pos is inside of a string in double quotes, which ends the value.
func readValue(text []byte, pos int, inString bool) valueRange {
	pos = skipBlanks(text, pos)

	// A string, whose quotes may be escaped.
	if prefixed := skipStringPrefix(text, pos); prefixed > pos {
		pos, inString = prefixed, false
	}
	open := pos
	for open < len(text) && text[open] == '\\' {
		open++
	}
	if open < len(text) && isQuote(text[open]) && (open > pos || !inString || text[open] != '"') {
		if open == pos {
			return readQuoted(text, pos, inString)
		}
		from := open + 1
		to := closingQuote(text, from, text[open], open-pos)
		next := min(len(text), to+open-pos+1)
		return valueRange{from, to, next, true}
	}

	end := pos
	if end < len(text) && text[end] == '|' {
		end++ // a part of the password
	}
	for end < len(text) && !endsUnquoted(text, end, inString) {
		end++
	}
	to := trimClosers(text, pos, end)
	return valueRange{pos, to, max(to, pos), false}
}

// skipStringPrefix returns the offset behind the letters in front of a string at pos, as Python and SQL have
// them: b'X', rf"X", N'X'; pos if there are none.
func skipStringPrefix(text []byte, pos int) int {
	end := pos
	for end < len(text) && end-pos < 3 && bytes.IndexByte([]byte("rbfuRBFUN"), text[end]) >= 0 {
		end++
	}
	open := end
	for open < len(text) && text[open] == '\\' {
		open++
	}
	if end == pos || end-pos > 2 || open == len(text) || !isQuote(text[open]) || open+1 == len(text) ||
		text[open+1] <= ' ' {
		return pos
	}
	return end
}

func isQuote(c byte) bool { return c == '"' || c == '\'' || c == '`' }

// skipBlanks returns the offset of the first byte from pos on that is no blank.
func skipBlanks(text []byte, pos int) int {
	for pos < len(text) && (text[pos] == ' ' || text[pos] == '\t') {
		pos++
	}
	return pos
}

// closingQuote returns the offset at which the string that begins at from ends: that of the quote, or of the
// backslashes before it. The opening quote had that many backslashes.
func closingQuote(text []byte, from int, quote byte, backslashes int) int {
	run := 0
	for i := from; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\':
			run++
			continue
		case c != quote:
		case backslashes == 0 && run%2 == 0:
			return i
		case backslashes > 0 && run <= backslashes:
			return i - run
		}
		run = 0
	}
	return len(text)
}

// endsUnquoted reports whether a value without quotes ends before text[i].
func endsUnquoted(text []byte, i int, inString bool) bool {
	switch c := text[i]; c {
	case ' ', '\t', '\n', '\r', '\x00':
		return true
	case '"':
		return inString
	case '\\':
		return inString && i+1 < len(text) &&
			(text[i+1] == '"' || text[i+1] == 'n' || text[i+1] == 't' || text[i+1] == 'r')
	case ',', ';', '&', '|':
		return beginsPair(text, i+1)
	case '\'', '`', ')', ']', '}':
		// As a part of a password it is followed by more of it.
		return i+1 < len(text) && (text[i+1] == ',' || text[i+1] == ';') &&
			(i+2 == len(text) || text[i+2] == ' ' || isQuote(text[i+2]) || beginsPair(text, i+2))
	}
	return false
}

// beginsPair reports whether a name and = or : follow, behind which another value begins.
func beginsPair(text []byte, i int) bool {
	for limit := i + 4; i < min(len(text), limit) && (text[i] == ' ' || isQuote(text[i])); {
		i++
	}
	from := i
	for i < len(text) && i-from < maxName && folded[text[i]] != 0 {
		i++
	}
	for i < len(text) && isQuote(text[i]) {
		i++
	}
	return i > from && i < len(text) && (text[i] == '=' || text[i] == ':')
}

// maxClosers bounds the punctuation that trimClosers removes, and maxBalanced the text in which it looks for
// openers.
const (
	maxClosers  = 8
	maxBalanced = 256
)

// trimClosers returns the end of the value without the punctuation that closes what was opened before it.
func trimClosers(text []byte, from, end int) int {
	for limit := end - maxClosers; end > max(from, limit); {
		c := text[end-1]
		switch c {
		case ',', ';':
		case ')', ']', '}', '>':
			opener := map[byte]byte{')': '(', ']': '[', '}': '{', '>': '<'}[c]
			inside := text[max(from, end-maxBalanced):end]
			if bytes.Count(inside, []byte{opener}) >= bytes.Count(inside, []byte{c}) {
				return end
			}
		case '"', '\'', '`':
			if bytes.IndexByte(text[max(from, end-maxBalanced):end-1], c) >= 0 {
				return end
			}
		default:
			return end
		}
		end--
	}
	return end
}
