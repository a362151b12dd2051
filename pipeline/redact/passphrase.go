package redact

import "bytes"

// A value without quotes may have several words: password=correct horse user=x. It extends to the next name
// with a mark, or to the end of a line that begins with the name. Most of the words behind the first are
// none of prose: otherwise they are a sentence, password=x was rejected for user=bob.

// maxWords bounds the words of a value without quotes.
const maxWords = 8

// endOfWords returns the end of the words of value, whose mark is at pos: that of value if these are none.
func (p *namePass) endOfWords(value valueRange, pos int) int {
	text := p.text
	name, _ := nameBefore(text, pos)
	if !containsWord(name, passwordWordsBy) && !containsWord(name, phraseWordBy) {
		return value.to
	}
	words := p.readWords(value)
	if words.count == 0 || 2*words.prose > words.count {
		return value.to
	}
	if words.named || words.last && p.beginsSetting(pos) && !looksGenerated(value.of(text), len("secret")) {
		return words.to
	}
	return value.to
}

var phraseWordBy = newWordTable([]string{"phrase"})

// endOfPassphrase returns the end of the words of value, whose mark, a colon, is at pos, if they are a
// passphrase that begins with a word of prose: password: correct horse, user: bob; 0: they are none.
func (p *namePass) endOfPassphrase(value valueRange, class class, pos int) int {
	text := p.text
	if class != strong || value.quoted || text[pos] != ':' || isPlaceholder(value.of(text)) || !p.beginsSetting(pos) {
		return 0
	}
	words := p.readWords(value)
	if words.count < 2 || words.prose > 0 || !words.named && !words.last || words.ordinary {
		return 0
	}
	return words.to
}

// wordRun describes the words behind the first word of a value.
type wordRun struct {
	to, count, prose int
	ordinary         bool // one of them is an ordinary continuation of a sentence
	named            bool // a name with a mark is behind them
	last             bool // the line, or the string, ends behind them
}

// readWords reads the words behind the first word of value.
func (p *namePass) readWords(value valueRange) (words wordRun) {
	text := p.text
	words.to = value.to
	limit := min(len(text), value.to+maxPhrase)
	for pos := value.to; words.count <= maxWords; words.count++ {
		if pos < limit && (text[pos] == ',' || text[pos] == ';') {
			words.named = beginsSettingAt(text, pos+1)
			return words
		}
		from := skipBlanks(text, pos)
		if from >= limit {
			words.last = from >= len(text)
			return words
		}
		if text[from] == '-' {
			return wordRun{to: value.to} // an option
		}
		if beginsSettingAt(text, from) {
			words.named = true
			return words
		}
		end := from
		for end < limit && isWordByte(text, end) {
			end++
		}
		if end == from {
			words.last = text[from] < ' ' || (text[from] == '"' || text[from] == '\'') && from == pos
			return words
		}
		word := text[from:end]
		if from == pos { // punctuation is behind the last word
			return wordRun{to: value.to}
		}
		if isProseWord(word) || isPlaceholder(word) {
			words.prose++
		}
		words.ordinary = words.ordinary || isOrdinary(word) && !looksGenerated(word, minSecret)
		words.to, pos = end, end
	}
	return wordRun{to: value.to}
}

// isWordByte reports whether text[i] is a byte of a word of a passphrase.
func isWordByte(text []byte, i int) bool {
	c := text[i]
	if c == ',' || c == ';' {
		return i+1 < len(text) && text[i+1] > ' ' && !beginsPair(text, i+1)
	}
	if c == '=' { // of base64
		return i+1 == len(text) || text[i+1] <= ' ' || bytes.IndexByte([]byte("=,;\"'"), text[i+1]) >= 0
	}
	return c > ' ' && bytes.IndexByte([]byte("\"'`()[]{}<>|\\:"), c) < 0
}

// beginsSettingAt reports whether a name, a mark and a value follow at pos.
func beginsSettingAt(text []byte, pos int) bool {
	if !beginsPair(text, pos) {
		return false
	}
	for pos = skipBlanks(text, pos); text[pos] != '=' && text[pos] != ':'; {
		pos++
	}
	return pos+1 < len(text) && text[pos+1] != '=' && (text[pos] == ':' || text[pos+1] > ' ')
}

// beginsSetting reports whether nothing but a preamble is in front of the name with the mark at pos.
func (p *namePass) beginsSetting(pos int) bool {
	from, _, _ := nameBounds(p.text, pos)
	front := p.text[max(0, from-maxName):from]
	return len(front) > 0 && isQuote(front[len(front)-1]) || endsPreamble(lastWord(bytes.TrimRight(front, "{ \t")))
}
