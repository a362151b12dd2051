package redact

import "bytes"

// A plain word in a sentence is a secret where the sentence states it: the password is monkey, password set
// to monkey. It is none if it is an ordinary continuation: the password is required.

// ordinaryWords are ordinary continuations that are no proseWords and have no ending of ordinaryEndings.
var ordinaryWords = [...]string{
	"bogus", "garbage", "corrupt", "fake", "weak", "short", "long", "strong", "old", "new", "blank", "empty", "fine", "good", "safe", "secure", "unsafe",
	"insecure", "same", "ready", "here", "below", "above", "this", "that", "these", "yours", "mine", "what",
	"where", "which", "never", "always", "needed", "plain", "plaintext", "public", "private", "unique", "right",
	"broken", "common", "simple", "easy", "hard", "lost", "stale", "known", "over", "late", "early", "still",
	"also", "just", "about", "then", "than", "more", "less", "most", "least", "next", "back", "again",
	"case-sensitive", "read-only", "write-only", "up-to-date", "out-of-date", "none", "nothing", "something",
	"anything", "hash", "hashes", "expire", "match", "matches", "differ", "work", "pass", "null", "unset", "kept",
	"held", "used", "reused", "shown", "set", "sent", "asked", "bcrypt", "argon2", "scrypt", "string", "number",
	"bytes", "characters", "mandatory", "worthless", "fixed", "due", "gone", "them", "their", "your", "theirs",
	"allow", "deny", "prompt", "ask", "bob's", "current", "previous", "latest", "first", "last",
}

// ordinaryEndings are the ends of participles, adjectives and adverbs.
var ordinaryEndings = [...]string{
	"ed", "ing", "able", "ible", "ful", "less", "ent", "ant", "ive", "ic", "al", "ary", "ory", "ly", "ous", "ite",
	"ate", "wn", "ten", "ized",
}

// isOrdinary reports whether a word behind "password is" is an ordinary continuation of the sentence.
func isOrdinary(word []byte) bool {
	if len(word) < minSecret || len(word) > maxShort || isProseWord(word) || isPlaceholder(word) ||
		isReferenceFront(word) {
		return true
	}
	if isOneFold(word, ordinaryWords[:]) || isTechnicalWord(word) || isUnit(word) || pairClass(word) != noSecret {
		return true
	}
	for _, c := range word {
		if folded[c] <= separator && bytes.IndexByte([]byte("_!$%^&*+~#@-"), c) < 0 {
			return true
		}
	}
	for _, ending := range ordinaryEndings {
		if n := len(word) - len(ending); n > 0 && equalLower(word[n:], ending) {
			return true
		}
	}
	return false
}

// stating and setting are the words in front of a plain word that is a password: is X, set to X.
var (
	statingWords = [...]string{"is", "was", "ist", "lautet", "es", "est", "é", "är"}
	changeWords  = [...]string{
		"set", "changed", "reset", "updated", "switched", "initialized", "rotated", "defaults", "modified", "altered", "replaced",
	}
)

// A statedName holds the words of a sentence between the name of a secret and a link such as "is" or "to".
type statedName struct {
	words       int // in front of the link
	first, last []byte
}

// isStated reports whether link, which stands behind the words of s, states what follows.
func (s *statedName) isStated(link []byte) bool {
	switch {
	case isOneFold(link, statingWords[:]):
		return s.words == 0 || s.words == 2 && isOneFold(s.first, []string{"for", "of"})
	case isOneFold(link, []string{"to"}):
		return isOneFold(s.last, changeWords[:])
	case isOneFold(link, []string{"now"}):
		return isOneFold(s.last, statingWords[:])
	}
	return false
}

// hidePlainWord hides the word at pos if it ends a sentence and is no ordinary continuation, and returns the
// offset behind it, or pos.
func (p *phrasePass) hidePlainWord(pos int) int {
	word := wordAt(p.text, pos)
	behind := bytes.TrimLeft(p.text[pos+len(word):min(len(p.text), pos+len(word)+maxTail)], ".!")
	isEnd := len(behind) == 0 || bytes.IndexByte([]byte("\"'\\\n\r<"), behind[0]) >= 0
	if !isEnd || isOrdinary(word) {
		return pos
	}
	p.hide(p.view, pos, pos+len(word), RuleName)
	return pos + len(word)
}
