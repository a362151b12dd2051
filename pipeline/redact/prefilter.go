package redact

import (
	"bytes"
	"encoding/binary"
	"math/bits"

	"github.com/zeebo/xxh3"
)

// The prefilter searches a line for the bytes next to which a secret could be (marks), eight at a time, and
// looks at the bytes around each. Nearly all lines have no secret and are done then: what it costs is the cost
// of redaction. It finds every line in which one of the passes finds something, and a few others.
//
// The names before = and : are those of the fields of a program's log, which repeat. Their classes are cached.

// wordSize is the number of bytes that are searched for marks at once.
const wordSize = 8

const (
	lowBits  = 0x0101010101010101 // times c: c in each byte
	highBits = 0x80 * lowBits     // the highest bit of each byte
)

// findMarks returns the marks in the eight bytes at i (fewer at the end of data): $ % & ' and : to B, - _ J b,
// \ and ESC, and " behind a blank, a backslash or a bracket. The high bit of each byte that is a mark is set; those
// of bytes beyond ASCII, too, may be.
//
// In a word of ASCII, a byte XOR c plus 0x7f reaches 0x80 unless the byte is c, and no sum carries into the next
// byte. A byte plus 0x80−low reaches 0x80 if the byte is at least low. In a word with other bytes their high
// bits are cleared first: such a byte may look like a mark, which costs a look at it.
func findMarks(data []byte, i int) uint64 {
	var word uint64
	switch rest := len(data) - i; {
	case rest >= wordSize:
		word = binary.LittleEndian.Uint64(data[i:])
	case len(data) >= wordSize: // the last bytes, and zeros behind them
		word = binary.LittleEndian.Uint64(data[len(data)-wordSize:]) >> (8 * (wordSize - rest))
	default:
		for j := len(data) - 1; j >= i; j-- {
			word = word<<8 | uint64(data[j])
		}
	}
	word &^= highBits
	const notEqual = 0x7f * lowBits
	others := (word ^ '_'*lowBits + notEqual) & (word ^ 'J'*lowBits + notEqual) & (word ^ '-'*lowBits + notEqual) &
		(word ^ 'b'*lowBits + notEqual) & (word ^ '\x1b'*lowBits + notEqual) & (word ^ '\\'*lowBits + notEqual)
	found := (word+(0x80-'$')*lowBits)&^(word+(0x7f-'\'')*lowBits) | (word+(0x80-':')*lowBits)&^(word+(0x7f-'B')*lowBits) | ^others
	if quotes := ^(word ^ '"'*lowBits + notEqual) & highBits; quotes != 0 {
		before := (^(word ^ ' '*lowBits + notEqual) | ^(word ^ '\\'*lowBits + notEqual) | ^(word ^ '('*lowBits + notEqual)) & highBits << 8
		if i > 0 && (data[i-1] == ' ' || data[i-1] == '\\' || data[i-1] == '(') {
			before |= 0x80
		}
		found |= quotes & before
	}
	return found & highBits
}

// mayHoldSecret reports whether a pass could find a secret in a line.
func (r *Redactor) mayHoldSecret(data []byte) bool {
	if beginsSetting(data) {
		return true
	}
	checks := lineChecks{data: data}
	for i := 0; i < len(data); i += wordSize {
		for marks := findMarks(data, i); marks != 0; marks &= marks - 1 {
			pos := i + bits.TrailingZeros64(marks)/8
			switch data[pos] {
			case ':', '=':
				if r.isSuspiciousMark(&checks, pos) {
					return true
				}
			case '&', '?', '<', ';':
			case '\x1b':
				return true
			case '\\':
				if isEscapedLetter(data[pos+1:]) {
					return true
				}
			case '_':
				if mayEndPrefix(data, pos) && patternAt(data, pos) {
					return true
				}
			case '-':
				if (pos == 0 || dashBehind[data[pos-1]]) && checks.isSuspiciousDash(r, pos) {
					return true
				}
			default:
				if checks.isSuspicious(r, pos) {
					return true
				}
			}
		}
	}
	return false
}

// isEscapedLetter reports whether the bytes behind a backslash are a letter in the form \u0061, which no program
// writes but to hide it.
func isEscapedLetter(rest []byte) bool {
	return len(rest) > 4 && rest[0] == 'u' && rest[1] == '0' && rest[2] == '0' && rest[3] >= '4' && rest[3] <= '7'
}

// isSuspiciousMark reports whether a secret may be behind the = or : at pos.
func (r *Redactor) isSuspiciousMark(checks *lineChecks, pos int) bool {
	data := checks.data
	if data[pos] == ':' && pos > 1 && isDigit(data[pos-1]) {
		if pos+1 < len(data) && isDigit(data[pos+1]) && data[pos-2] < 'A' {
			return false // a time
		}
		if pos+1 < len(data) && isLetter(data[pos+1]) && checks.hasBot() {
			return true
		}
		if !endsNumberedName(data, pos) {
			return false // a time, or a number
		}
	}
	if data[pos] == ':' && pos+2 < len(data) && data[pos+1] == '/' && data[pos+2] == '/' {
		return checks.isWebhook(data[pos+3:])
	}
	switch class := r.names.classAt(data, pos); {
	case class.isSecret():
		return true
	case class == everyday && data[pos] == '=':
		return checks.hasParameters()
	case class == beside:
		return checks.hasSecretWord()
	}
	return false
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// endsNumberedName reports whether a name with a number at its end is before the mark at pos: password2. The T of
// a time is no name.
func endsNumberedName(data []byte, pos int) bool {
	for limit := pos - 4; pos > max(0, limit) && isDigit(data[pos-1]); {
		pos--
	}
	return pos > 1 && (isLetter(data[pos-1]) && !isDigit(data[pos-2]) || data[pos-1] == '_' || data[pos-1] == ']')
}

// dashBehind has the bytes behind which a dash begins an option or a private key, or ends the front of a token.
var dashBehind = func() (table [256]bool) {
	for c := range ' ' + 1 {
		table[c] = true
	}
	for _, c := range "\"'`[(\\tT" {
		table[c] = true
	}
	for _, p := range prefixes {
		if p.mark == '-' {
			table[p.text[len(p.text)-2]] = true
		}
	}
	return table
}()

// lineChecks are the checks of a line that read all of it: each is done once at most.
type lineChecks struct {
	data                                         []byte
	slashes, parameters, sql, command, bot, word answer
}

// An answer is the result of a check.
type answer uint8

const (
	notAsked answer = iota
	isFalse
	isTrue
)

// ask returns the result of check, which is called once at most.
func (a *answer) ask(check func() bool) bool {
	if *a == notAsked {
		*a = isFalse
		if check() {
			*a = isTrue
		}
	}
	return *a == isTrue
}

func (c *lineChecks) hasSlashes() bool {
	return c.slashes.ask(func() bool { return bytes.Contains(c.data, []byte("//")) || bytes.Contains(c.data, []byte("jdbc:")) })
}

func (c *lineChecks) hasParameters() bool {
	return c.parameters.ask(func() bool { return bytes.ContainsAny(c.data, "?&;#") })
}

func (c *lineChecks) hasBot() bool {
	return c.bot.ask(func() bool { return bytes.Contains(c.data, []byte("/bot")) })
}

// holdsSQL reports whether the line has a verb of SQL and a word after which SQL may have a secret.
func (c *lineChecks) holdsSQL() bool {
	return c.sql.ask(func() bool { return nextVerb(c.data, 0) >= 0 && hasSecretWord(c.data) })
}

func (c *lineChecks) hasSecretWord() bool {
	return c.word.ask(func() bool { return hasSecretWord(c.data) })
}

// hasCommand reports whether the line names a command with short options for secrets.
func (c *lineChecks) hasCommand() bool {
	return c.command.ask(func() bool { return commandsIn(c.data) != 0 })
}

// isWebhook reports whether the host of a URL is one whose paths are secrets.
func (c *lineChecks) isWebhook(host []byte) bool {
	return bytes.HasPrefix(host, []byte("hooks.")) || bytes.HasPrefix(host, []byte("discord")) ||
		bytes.HasPrefix(host, []byte("canary.discord"))
}

// isSuspicious reports whether a secret may be next to the mark at pos.
func (c *lineChecks) isSuspicious(r *Redactor, pos int) bool {
	data := c.data
	switch data[pos] {
	case '@':
		return c.hasSlashes()
	case '%':
		c := encoded(data, pos)
		return c == '=' || c == '@' || c == '%' || c == '"' || c == ':' || c == '[' || c > 0 && folded[byte(c)] > separator
	case '$':
		return cryptLen(data, pos) > 0
	case '>':
		return pos > 0 && folded[data[pos-1]] > separator && r.names.classAt(data, pos).isSecret()
	case '\'':
		if pos > 0 && pos+1 < len(data) && isLetter(data[pos-1]) && isLetter(data[pos+1]) {
			return false // an apostrophe
		}
		return c.isQuoteBehindName(r, pos)
	case '"':
		// A blank, a backslash or a bracket is in front of it. In the lines of web servers a digit, ] or " is in
		// front of that.
		if before := byteBefore(data, pos-1); before >= '0' && before <= '9' || before == ']' || before == '"' {
			return false
		}
		return c.isQuoteBehindName(r, pos)
	case 'J', 'A':
		return patternAt(data, pos) || data[pos] == 'A' && isAuthCommand(data, pos)
	case 'B', 'b':
		return bearerAt(data, pos) > 0
	}
	return false
}

// isQuoteBehindName reports whether a secret may be in the string that begins at pos: the name of one is in
// front of it, or the line is SQL.
func (c *lineChecks) isQuoteBehindName(r *Redactor, pos int) bool {
	return r.names.classAt(c.data, pos).isSecret() || c.holdsSQL()
}

// isSuspiciousDash reports whether the dash at pos begins an option, a private key, or is in a token.
func (c *lineChecks) isSuspiciousDash(r *Redactor, pos int) bool {
	data := c.data
	if before := byteBefore(data, pos); before > ' ' && !isQuote(before) && before != '[' && before != '(' && before != '\\' {
		return (before == 't' || before == 'T') && pos >= 5 && bytes.EqualFold(data[pos-5:pos], []byte("reset")) || patternAt(data, pos)
	}
	if pos+1 == len(data) {
		return false
	}
	switch next := data[pos+1]; next {
	case '-':
		if bytes.HasPrefix(data[pos:], keyBegin) {
			return true
		}
		if pos+2 == len(data) || !isLetter(data[pos+2]) {
			return false
		}
		end := optionEnd(data, pos)
		return end < len(data) && classOf(data[pos:end]).isSecret() || bytes.HasPrefix(data[pos:], []byte("--user"))
	case 'p', 'u', 'a', 'w', 'P', 'U':
		return c.hasCommand()
	default:
		return isLetter(next) && SecretName(data[pos:optionEnd(data, pos)])
	}
}

// byteBefore returns the byte before offset pos, or 0 if there is none.
func byteBefore(data []byte, pos int) byte {
	if pos < 1 || pos > len(data) {
		return 0
	}
	return data[pos-1]
}

// nameCacheSize is the number of names that are remembered.
const nameCacheSize = 128

// A nameCache holds the classes of the names before marks, by the sixteen bytes before the mark.
type nameCache [nameCacheSize]nameEntry

type nameEntry struct {
	low, high uint64
	class     class
	used      bool
}

// find returns the entry of a key, or the place for it. A key has two places.
func (cache *nameCache) find(low, high uint64) (entry *nameEntry, found bool) {
	i := ((low^high>>1)*0x9E3779B97F4A7C15 + high*0xC2B2AE3D27D4EB4F) >> 57
	entry = &cache[i]
	if entry.low == low && entry.high == high && entry.used {
		return entry, true
	}
	other := &cache[i^1]
	if other.low == low && other.high == high && other.used {
		return other, true
	}
	if entry.used && (!other.used || low>>40&1 == 1) {
		return other, false
	}
	return entry, false
}

// classAt returns the class of the name before the mark at pos.
func (cache *nameCache) classAt(data []byte, pos int) class {
	var low, high uint64
	if pos < 16 { // the front of the line
		var front [16]byte
		copy(front[16-pos:], data[:pos])
		low, high = binary.LittleEndian.Uint64(front[:]), binary.LittleEndian.Uint64(front[8:])
	} else {
		low, high = binary.LittleEndian.Uint64(data[pos-16:]), binary.LittleEndian.Uint64(data[pos-8:])
	}
	entry, found := cache.find(low, high)
	if found {
		return entry.class
	}

	// The class depends on more bytes if the name has as many: such a name is found by its hash.
	from, end, _ := nameBounds(data, pos)
	name := data[from:end]
	if from <= pos-16 {
		low, high = xxh3.Hash(name), uint64(len(name))
		if entry, found = cache.find(low, high); found {
			return entry.class
		}
	}
	entry.low, entry.high, entry.class, entry.used = low, high, classOf(name), true
	return entry.class
}
