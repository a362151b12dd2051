package redact

import "bytes"

// PINs: the digits behind a name or in a sentence. PIN: 4821; your pin code is 4821.

// pinOwners are the words in front of pin in a name: card_pin, userPin; not gpio_pin.
var pinOwners = [...]string{
	"user", "card", "sim", "door", "access", "device", "login", "security", "admin", "unlock", "new", "old", "wallet", "bank", "phone",
	"customer", "account", "so", "my", "temp", "voicemail", "pairing", "parental",
}

// pinDevices are the words in front of the number of a pin of a device.
var pinDevices = [...]string{
	"gpio", "board", "bcm", "led", "irq", "reset", "input", "output", "data", "clock", "cs", "header", "connector", "chip", "physical", "map",
	"analog", "digital", "pwm", "location",
}

// isPinName reports whether name is that of a PIN.
func isPinName(name []byte) bool {
	front := len(name) - len("pin")
	if front < 0 || !equalLower(name[front:], "pin") {
		return false
	}
	owner := bytes.TrimRight(name[:front], "_-.")
	isCamel := len(owner) == front && name[front] == 'P'
	return front == 0 || (len(owner) < front || isCamel) && isOneFold(owner, pinOwners[:])
}

// pinSecret returns the digits of the PIN whose name is text[from:end]; to is 0 if it is none.
func pinSecret(text []byte, from, end int) (digits, to int) {
	if !isPinName(text[from:end]) || isOneFold(lastWord(text[max(0, from-maxName):from]), pinDevices[:]) {
		return 0, 0
	}
	pos := skipQuotes(text, end)
	for _, word := range [...]string{" code", " number"} {
		if next := pos + len(word); next < len(text) && equalLower(text[pos:next], word) {
			pos = next
		}
	}
	pos = skipBlanks(text, pos)
	switch {
	case pos < len(text) && (text[pos] == ':' || text[pos] == '='):
		pos++
	case byteBefore(text, pos) == ' ':
		link := wordAt(text, pos)
		if !isOneFold(link, []string{"is", "was"}) {
			return 0, 0
		}
		if pos += len(link); pos < len(text) && text[pos] == ':' {
			pos++
		}
	default:
		return 0, 0
	}
	digits = skipQuotes(text, skipBlanks(text, pos))
	to = digits
	for to < len(text) && isDigitAt(text, to) {
		to++
	}
	isEnd := to == len(text) || folded[text[to]] == 0 && bytes.IndexByte([]byte("/:+%"), text[to]) < 0 ||
		text[to] == '.' && (to+1 == len(text) || folded[text[to+1]] == 0)
	if !isCode(text[digits:to]) || !isEnd {
		return 0, 0
	}
	return digits, to
}

// skipQuotes returns the offset behind the quotes, which may be escaped, at pos.
func skipQuotes(text []byte, pos int) int {
	for limit := pos + maxQuotes; pos < min(len(text), limit) && (text[pos] == '\\' || isQuote(text[pos])); {
		pos++
	}
	return pos
}
