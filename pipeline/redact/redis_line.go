package redact

import "bytes"

// maxRedisCommand is the length of the longest name of a command of Redis with secrets.
const maxRedisCommand = 16

// maxRedisWords bounds the arguments of a command of Redis in a line.
const maxRedisWords = 64

// redisPhrases are the fronts of commands of Redis with secrets, as they stand in a line without quotes; the command
// whose arguments follow.
var redisPhrases = [...]struct{ front, command string }{
	{"config set ", "CONFIG SET"},
	{"acl setuser ", "ACL SETUSER"},
	{"hello ", "HELLO"},
	{"migrate ", "MIGRATE"},
	{"sentinel set ", "SENTINEL SET"},
	{"user ", "ACL SETUSER"}, // a file of users: user bob on >X
}

// hideRedis hides the secrets of a command of Redis: that of a line of MONITOR, whose words are quoted, those of
// redis-cli, and of a file of users: user bob on >X.
func (r *Redactor) hideRedis(v view) {
	text := v.text
	for i := 0; i < len(text); {
		next := i + 1
		switch c := text[i]; {
		case c == '"' && (i == 0 || i > 1 && text[i-1] == ' ' && (text[i-2] == ']' || text[i-2] == '>')):
			next = r.hideQuotedRedis(v, i)
		case mayBeRedis[c] && folded[byteBefore(text, i)] <= separator:
			next = r.hidePlainRedis(v, i)
		}
		i = max(next, i+1)
	}
}

// hidePlainRedis hides the secrets of the command that begins at pos without quotes, if one of redisPhrases is there,
// and returns the offset at which to continue.
func (r *Redactor) hidePlainRedis(v view, pos int) int {
	text := v.text
	for _, phrase := range redisPhrases {
		end := pos + len(phrase.front)
		if end >= len(text) || !hasNeedle(text[pos:], phrase.front) || !isOneCase(text[pos:end]) {
			continue
		}
		if phrase.front != "user " || hasPasswordRule(text[end:]) {
			return r.hideRedisArguments(v, end, phrase.command, false)
		}
	}
	return pos + 1
}

// mayBeRedis has the first bytes of redisPhrases, in both cases.
var mayBeRedis = func() (table [256]bool) {
	for _, phrase := range redisPhrases {
		table[phrase.front[0]], table[phrase.front[0]&^0x20] = true, true
	}
	return table
}()

// isOneCase reports whether all letters of a command are small, or capitals.
func isOneCase(word []byte) bool {
	lower := word[0] & 0x20
	for _, c := range word {
		if isLetter(c) && c&0x20 != lower {
			return false
		}
	}
	return true
}

// hasPasswordRule reports whether the rules of a user of Redis have a password.
func hasPasswordRule(text []byte) bool {
	front := text[:min(len(text), maxName)]
	return bytes.Contains(front, []byte(" on >")) || bytes.Contains(front, []byte(" off >"))
}

// hideQuotedRedis hides the secrets of the command whose name, in quotes, is at pos, and returns the offset at which to
// continue.
func (r *Redactor) hideQuotedRedis(v view, pos int) int {
	text := v.text
	name := readValue(text, pos, false)
	end := name.next
	if end+1 >= len(text) || text[end] != ' ' || text[end+1] != '"' || name.to-name.from > maxRedisCommand {
		return pos + 1
	}
	var buf [33]byte
	command := append(buf[:0], name.of(text)...)
	if isOneFold(command, []string{"config", "acl", "sentinel"}) {
		word := readValue(text, end, false)
		if word.to-word.from > maxRedisCommand {
			return end
		}
		command = append(append(command, ' '), word.of(text)...)
		end = word.next
	}
	return r.hideRedisArguments(v, end, string(upper(command)), true)
}

// upper changes the letters of word to capitals, and returns it.
func upper(word []byte) []byte {
	for i, c := range word {
		if c >= 'a' && c <= 'z' {
			word[i] = c &^ 0x20
		}
	}
	return word
}

// hideRedisArguments hides the secrets among the arguments of a command, which begin at pos and may all be quoted. It
// returns the offset at which to continue.
func (r *Redactor) hideRedisArguments(v view, pos int, command string, quoted bool) int {
	text := v.text
	words := int64(1)
	for at := pos; words < 4; words++ {
		value := readValue(text, at, false)
		if value.from >= len(text) || quoted && !(value.quoted && text[at] == ' ') {
			break
		}
		at = max(value.next, value.from+1)
	}
	var arguments RedisArguments
	arguments.Begin(command, words)
	for range maxRedisWords {
		value := readArgument(text, pos)
		if value.from >= len(text) || text[value.from] < ' ' || quoted && !(value.quoted && text[pos] == ' ') {
			break
		}
		word := value.of(text)
		visible := arguments.Next(word, false)
		if visible >= 0 && visible < len(word) && !isPlaceholder(word[visible:]) {
			r.hide(v, value.from+visible, value.to, RuleFlag)
		}
		pos = max(value.next, value.from+1)
	}
	return pos
}
