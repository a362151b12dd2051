package redact

import "bytes"

// Strings with their length in front of them: of PHP, s:8:"password";s:2:"ab";. Keys and values follow in turn.

// maxSerializedGap bounds the text between two strings that are read as neighbours.
const maxSerializedGap = 64

// isSerialized reports whether the colon at pos is that between the length of a string of PHP and the string.
func isSerialized(text []byte, pos int) bool {
	if pos+1 >= len(text) || text[pos+1] != '"' || !isDigitAt(text, pos-1) {
		return false
	}
	from := pos - 1
	for from > 0 && pos-from < 8 && isDigitAt(text, from-1) {
		from--
	}
	return from >= 2 && text[from-1] == ':' && (text[from-2] == 's' || text[from-2] == 'S') &&
		folded[byteBefore(text, from-2)] <= separator
}

// readSerialized reads the string behind the colon at pos, hides it if it is the value of a key with the
// name of a secret, and returns the offset behind it.
func (p *namePass) readSerialized(pos int) int {
	text := p.text
	value := readValue(text, pos+1, false)
	gap := text[max(p.serialTo, pos-maxSerializedGap):pos]
	brace := bytes.LastIndexAny(gap, "{}")
	isEven := bytes.Count(gap[brace+1:], []byte(";"))%2 == 0
	isKey := true
	switch {
	case brace >= 0:
		isKey = isEven // a key follows a bracket
	case p.serialTo > 0 && pos-p.serialTo < maxSerializedGap:
		isKey = p.serialKey == isEven
	}
	switch content := value.of(text); {
	case isKey:
		p.serial = noSecret
		if len(content) < maxName {
			p.serial = classOf(nameAtEnd(content))
		}
	case p.serial.isSecret() && !isPlaceholder(content) && bytes.HasPrefix(gap, []byte(";")):
		p.hide(p.view, value.from, value.to, RuleName)
	}
	p.serialKey, p.serialTo = isKey, value.next
	return max(value.next, pos+1)
}
