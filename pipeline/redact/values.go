package redact

import "bytes"

// typeWords are the types between the name of a secret and its =, in declarations: password: string = "X".
var typeWords = [...]string{
	"string", "str", "text", "secretstr", "varchar", "char", "bytes", "any", "object", "final", "optional",
	"result", "value", // of a resource of Terraform: random_password.db: result = "X"
}

// declaredClass returns the class of the name in front of a type that ends in front of the = at pos; noSecret
// if there is none: var secret string = "X".
func (cache *nameCache) declaredClass(text []byte, pos int) class {
	from, end, quoted := nameBounds(text, pos)
	if quoted || end == from {
		return noSecret
	}
	word, _, _ := bytes.Cut(text[from:end], []byte("["))
	if !isOneFold(word, typeWords[:]) {
		return noSecret
	}
	for limit := from - 4; from > max(0, limit) && bytes.IndexByte([]byte(" &*?:"), text[from-1]) >= 0; {
		from--
	}
	if front := text[from:]; front[0] != ' ' && front[0] != ':' && !bytes.HasPrefix(front, []byte("?:")) {
		return noSecret
	}
	return cache.classAt(text, from)
}

// isDeclared reports whether value is the type of a name, behind which its value follows.
func isDeclared(text []byte, value valueRange) bool {
	behind := skipBlanks(text, value.next)
	if value.quoted || behind == value.next || behind == len(text) || text[behind] != '=' {
		return false
	}
	word, _, _ := bytes.Cut(bytes.TrimLeft(value.of(text), "&*?"), []byte("["))
	return isOneFold(word, typeWords[:])
}

// typedValue returns the value behind first if that is a tag, an anchor or a type without quotes, with which
// the secret begins: !vault X, string(14) "X", Just "X".
func typedValue(text []byte, first valueRange) (second valueRange, ok bool) {
	word := first.of(text)
	if first.quoted || len(word) < 2 || len(word) > maxName {
		return first, false
	}
	isTag := word[0] == '!' || word[0] == '&'
	isType := word[len(word)-1] == ')' && bytes.IndexByte(word, '(') > 0 ||
		isOneFold(word, []string{"just", "some", "new"})
	start := skipBlanks(text, first.next)
	if start == first.next || start == len(text) || text[start] < ' ' || !isTag && !isType {
		return first, false
	}
	second = readValue(text, start, false)
	return second, isTag && second.from < second.to || isType && second.quoted
}

// changedValue returns the value behind an arrow at pos, which replaces the one in front of it: "old" ->
// "new".
func changedValue(text []byte, pos int) (value valueRange, ok bool) {
	start := skipBlanks(text, pos)
	if start == pos || start+2 >= len(text) || text[start+1] != '>' ||
		text[start] != '-' && text[start] != '=' && text[start] != '~' {
		return value, false
	}
	value = readValue(text, start+2, false)
	return value, value.from < value.to && text[value.from] != '(' && !isPlaceholder(value.of(text))
}

// phraseOwners are the words in front of key and code with which these are the name of a secret in a
// sentence.
var phraseOwners = [...]string{
	"api", "access", "secret", "private", "license", "licence", "encryption", "signing", "master", "shared", "auth",
	"hmac", "webhook", "deploy", "subscription", "verification", "authorization", "activation", "recovery", "reset",
	"security", "confirmation", "authentication", "login", "backup", "sms", "otp", "mfa",
}

// seedOwners are the words in front of phrase with which it is the name of the seed of a wallet.
var seedOwners = [...]string{"seed", "mnemonic", "recovery", "backup", "secret"}

// seedPhraseEnd returns the end of the words of a seed phrase at pos, twelve at least; 0: there is none.
func seedPhraseEnd(text []byte, pos int) int {
	count, end := 0, 0
	for pos < len(text) && count < 24 {
		from := pos
		for pos < len(text) && pos-from < 9 && text[pos] >= 'a' && text[pos] <= 'z' {
			pos++
		}
		if pos-from < 3 || pos-from > 8 {
			break
		}
		count, end = count+1, pos
		if pos == len(text) || text[pos] != ' ' {
			break
		}
		pos++
	}
	if count < 12 {
		return 0
	}
	return end
}

// isCode reports whether a word is a code as it is sent to users: 4 to 8 digits.
func isCode(word []byte) bool { return len(word) >= 4 && len(word) <= 8 && isCount(word, 8) }

// phraseParts are the second words of names of two words.
var phraseParts = [...]string{"key", "code", "phrase", "word", "id"}

// nameOfTwoWords returns the class of the name whose second word is text[from:end], and where it begins: api key, reset
// code, pass phrase, session id; noSecret if it is none.
func nameOfTwoWords(text []byte, from, end int) (class class, begin int) {
	if from < 3 || text[from-1] != ' ' || end-from > len("phrase") || !isOneFold(text[from:end], phraseParts[:]) {
		return noSecret, from
	}
	begin = from - 1
	for begin > 0 && from-begin < 16 && isLetter(text[begin-1]) {
		begin--
	}
	owner := text[begin : from-1]
	switch text[from] | 0x20 {
	case 'p', 'w':
		if isOneFold(owner, []string{"pass"}) {
			return strong, begin
		}
		if text[from]|0x20 == 'p' && isOneFold(owner, seedOwners[:]) {
			return prose, begin
		}
	case 'i':
		if isOneFold(owner, []string{"session", "sess"}) {
			return prose, begin
		}
	default:
		if isOneFold(owner, phraseOwners[:]) {
			return prose, begin
		}
	}
	return noSecret, from
}

// isNameOfTwoWords reports whether a name of two words ends with text[from:end].
func isNameOfTwoWords(text []byte, from, end int) bool {
	class, _ := nameOfTwoWords(text, from, end)
	return class != noSecret
}

// secondWordEnd returns the end of the name of two words whose first word ends at pos; pos if it has one word.
func secondWordEnd(text []byte, pos int) int {
	end := pos + 1
	if end >= len(text) || text[pos] != ' ' || bytes.IndexByte([]byte("pPwWiI"), text[end]) < 0 {
		return pos
	}
	for end < len(text) && end-pos < 8 && folded[text[end]] > separator {
		end++
	}
	if end < len(text) && text[end] == '-' || !isNameOfTwoWords(text, pos+1, end) {
		return pos
	}
	return end
}

// wrappers are types around a secret: Secret("X"). As the names of functions they are written otherwise.
var wrappers = [...]string{"Secret", "SecretStr", "SecretString", "SecretBytes", "Password", "SecureString"}

// callVerbs are the first words of functions that get a secret: changePassword("bob", "X").
var callVerbs = [...]string{
	"set", "change", "reset", "update", "create", "auth", "login", "authenticate", "verify", "check", "hash",
}

// isSecretCall reports whether the strings in the brackets behind a name are secrets.
func isSecretCall(name []byte, class class) bool {
	last := name
	if dot := bytes.LastIndexByte(name, '.'); dot >= 0 {
		last = name[dot+1:]
	}
	if isOneOf(last, wrappers[:]) || string(last) == "auth" && len(last) < len(name) {
		return true
	}
	if !class.isSecret() {
		return false
	}
	words := splitName(last[:min(len(last), maxName)])
	return words.count > 1 && isOneOf(words.part(0), callVerbs[:])
}

// beginsStrings reports whether a bracket with a string in it begins at pos.
func beginsStrings(text []byte, pos int) bool {
	if pos+2 >= len(text) || text[pos] != '(' {
		return false
	}
	pos++
	for pos < len(text) && text[pos] == '\\' {
		pos++
	}
	return pos < len(text) && isQuote(text[pos])
}
