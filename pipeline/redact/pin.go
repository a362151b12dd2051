package redact

import "bytes"

// PINs and other short numbers that are secrets: the digits behind a name or in a sentence. PIN: 4821; cvv=123; your pin code
// is 4821.

// codeNames are the names of such numbers, or the ends of their names.
var codeNames = [...]string{"pin", "cvv", "cvc", "tan", "otp", "totp", "passcode", "puk"}

const (
	minCode = 3 // digits of a number: cvv=123
	maxCode = 8
)

// pinOwners are the words in front of pin and tan in a name: card_pin, userPin, smsTan; not gpio_pin, arc_tan.
var pinOwners = [...]string{
	"user", "card", "sim", "door", "access", "device", "login", "security", "admin", "unlock", "new", "old", "wallet", "bank", "phone",
	"customer", "account", "so", "my", "temp", "voicemail", "pairing", "parental", "sms", "push", "mobile", "chip", "debit", "credit",
}

// pinDevices are the words in front of the number of a pin of a device.
var pinDevices = [...]string{
	"gpio", "board", "bcm", "led", "irq", "reset", "input", "output", "data", "clock", "cs", "header", "connector", "chip", "physical", "map",
	"analog", "digital", "pwm", "location",
}

// isCodeName reports whether name is that of a short number that is a secret: pin, card_cvv, smsTan, cvc2.
func isCodeName(name []byte) bool {
	if last := len(name) - 1; last >= minCode && name[last] == '2' { // cvv2
		name = name[:last]
	}
	if isOneFold(name, []string{"mtan", "itan"}) {
		return true
	}
	for _, code := range codeNames {
		front := len(name) - len(code)
		if front < 0 || !equalLower(name[front:], code) {
			continue
		}
		owner := bytes.TrimRight(name[:front], "_-.")
		isCamel := len(owner) == front && name[front] < 'a'
		needsOwner := code == "pin" || code == "tan"
		return front == 0 || (len(owner) < front || isCamel) && (!needsOwner || isOneFold(owner, pinOwners[:]))
	}
	return false
}

// isShortNumber reports whether word is a number that may be a secret.
func isShortNumber(word []byte) bool {
	for _, c := range word {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(word) >= minCode && len(word) <= maxCode
}

var codeNamesBy = newWordTable(codeNames[:])

// hasCodeName reports whether a text may have a name of isCodeName, and is not about the pins of a device.
func hasCodeName(text []byte) bool {
	for i := 1; i < len(text); i++ {
		if first := text[i-1]; codeNamesBy.seconds[first]>>(text[i]&31)&1 != 0 && beginsCodeName(text[i-1:]) {
			return !containsWord(text, gpioWord)
		}
	}
	return false
}

var gpioWord = newWordTable([]string{"gpio"})

// beginsCodeName reports whether text begins with one of codeNames, which ends there.
func beginsCodeName(text []byte) bool {
	for _, name := range codeNamesBy.words[text[0]] {
		if n := len(name); len(text) >= n && equalLower(text[:n], name) && (len(text) == n || !isLetter(text[n])) {
			return true
		}
	}
	return false
}

// codeSecret returns the digits of the number whose name is text[from:end]; to is 0 if it is none.
func codeSecret(text []byte, from, end int) (digits, to int) {
	if end-from >= maxName || !isCodeName(text[from:end]) {
		return 0, 0
	}
	front := text[max(0, from-maxName):from]
	if isOneFold(lastWord(front), pinDevices[:]) || containsWord(front, gpioWord) {
		return 0, 0
	}
	pos := skipQuotes(text, end)
	for _, word := range [...]string{" code", " number"} {
		if next := pos + len(word); next < len(text) && equalLower(text[pos:next], word) {
			pos = next
		}
	}
	pos = skipBlanks(text, pos)
	least := minCode
	switch {
	case pos < len(text) && (text[pos] == ':' || text[pos] == '='):
		pos++
		if pos < len(text) && (text[pos] == '=' || text[pos] == '>') {
			pos++ // :=, =>, ==
		}
	case byteBefore(text, pos) == ' ':
		link := wordAt(text, pos)
		if !isOneFold(link, []string{"is", "was"}) {
			return 0, 0
		}
		least++
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
	if !isShortNumber(text[digits:to]) || to-digits < least || !isEnd {
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
