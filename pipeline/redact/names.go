package redact

// An ending marks every name that ends with it as the name of a secret: the ending password marks
// db_password, MYSQL_PASSWORD and user[password]. It is in lower case. Separators (_ - . [ ]) in a name are
// ignored, so apikey also matches api_key and X-Api-Key.
type ending struct {
	word  string
	prose bool // also a word of English text: "unexpected token: <" has no secret
	whole bool // a header field: its value may have spaces and extends to the end of the line
}

// endings are the names of secrets in every kind of text.
var endings = [...]ending{
	{word: "password"},
	{word: "passwd"},
	{word: "pwd", prose: true},
	{word: "passphrase"},
	{word: "passwordhash"},
	{word: "secret", prose: true},
	{word: "token", prose: true},
	{word: "signature", prose: true},
	{word: "credential", prose: true},
	{word: "apikey"},
	{word: "accesskey"},
	{word: "secretkey"},
	{word: "privatekey"},
	{word: "sessionid"},
	{word: "authorization", whole: true},
	{word: "cookie", prose: true, whole: true},
}

// words are the names of secrets, and the last parts of such names behind a separator: pass and db_pass, but
// not compass.
var words = [...]string{
	"pass", "passwort", "passcode", "psw", "pw", "userpass", "jwt", "otp", "requirepass", "masterauth",
	"primaryauth",
}

// parameters are the names of URL parameters that hold a credential. Elsewhere they are everyday words.
var parameters = [...]string{
	"sig", "code", "key", "auth", "credentials", "session", "sid", "sessid", "jsessionid", "phpsessid", "pin",
	"assertion", "samlresponse", "ticket", "bearer", "hmac", "nonce",
}

// settings are the names of Redis settings that hold a credential and are in no other list.
var settings = [...]string{"user"}

// The same lists by the last letter of the words, so that most names are compared with few words.
var (
	endingsBy = func() (by [256][]*ending) {
		for i := range endings {
			last := endings[i].word[len(endings[i].word)-1]
			by[last] = append(by[last], &endings[i])
		}
		return by
	}()
	wordsBy      = byLastLetter(words[:])
	parametersBy = byLastLetter(parameters[:])
)

// lastPairs has, by the last letter of a name, the letters before it with which a word of the lists ends, as
// bits from a on. Most names belong to no secret and are rejected here: that is three times as fast as
// comparing them with the words of their last letter.
var lastPairs = func() (pairs [256]uint32) {
	add := func(word string) {
		length := len(word)
		pairs[word[length-1]] |= 1 << (word[length-2] - 'a')
	}
	for i := range endings {
		add(endings[i].word)
	}
	for _, word := range words {
		add(word)
	}
	for _, word := range parameters {
		add(word)
	}
	return pairs
}()

// mayBeSecret reports whether the name at the end of data may end with a word of the lists. It is a fast
// check before the exact ones.
func mayBeSecret(data []byte) bool {
	if len(data) < 2 {
		return false
	}
	last, before := folded[data[len(data)-1]], folded[data[len(data)-2]]
	if last == separator || before == separator {
		return true
	}
	return before >= 'a' && lastPairs[last]&(1<<(before-'a')) != 0
}

// byLastLetter returns the words of list by their last letter.
func byLastLetter(list []string) (by [256][]string) {
	for _, word := range list {
		last := word[len(word)-1]
		by[last] = append(by[last], word)
	}
	return by
}

// endsName has the bytes that may precede the : after the name of a secret: the last letter of the name, or
// the bytes that nameEnd and trimSeparators skip.
var endsName = func() (table [256]bool) {
	for char := range table {
		lower := folded[char]
		table[char] = lower == separator || lower > separator && (endingsBy[lower] != nil || wordsBy[lower] != nil)
	}
	for _, c := range `"' \` {
		table[c] = true
	}
	return table
}()

// separator is the value in folded of a byte that separates the parts of a name.
const separator = 1

// folded has, for each byte, its lower-case form if it is a letter or a digit, separator, or 0 if it cannot
// be in a name.
var folded = func() (table [256]byte) {
	for char := range table {
		switch letter := byte(char); {
		case letter >= 'A' && letter <= 'Z':
			table[char] = letter | 0x20
		case letter >= 'a' && letter <= 'z', letter >= '0' && letter <= '9':
			table[char] = letter
		}
	}
	for _, c := range "_-.[]$" {
		table[c] = separator
	}
	return table
}()

// secretEnding returns the ending that makes the name at the end of data secret, or nil.
func secretEnding(data []byte) *ending {
	data = trimSeparators(data)
	if len(data) == 0 {
		return nil
	}
	for _, ending := range endingsBy[folded[data[len(data)-1]]] {
		if _, ok := endsWith(data, ending.word); ok {
			return ending
		}
	}
	return nil
}

// secretWord reports whether the last part of the name at the end of data is one of words.
func secretWord(data []byte) bool {
	data = trimSeparators(data)
	if len(data) == 0 {
		return false
	}
	for _, word := range wordsBy[folded[data[len(data)-1]]] {
		// Not as the end of a longer word.
		if from, ok := endsWith(data, word); ok && (from == 0 || folded[data[from-1]] <= separator) {
			return true
		}
	}
	return false
}

// trimSeparators returns data without the separators at its end: the bracket of user[password].
func trimSeparators(data []byte) []byte {
	for len(data) > 0 && folded[data[len(data)-1]] == separator {
		data = data[:len(data)-1]
	}
	return data
}

// endsWith reports whether data ends with word, ignoring separators, and returns the offset of word in data.
func endsWith(data []byte, word string) (from int, ok bool) {
	// Invariant: data[pos:] is word[j+1:] with separators in it.
	pos := len(data)
	for j := len(word) - 1; j >= 0; {
		if pos == 0 {
			return 0, false
		}
		pos--
		switch folded[data[pos]] {
		case word[j]:
			j--
		case separator:
		default:
			return 0, false
		}
	}
	return pos, true
}

// SecretName reports whether name is the name of a secret in every kind of text.
func SecretName(name []byte) bool {
	return mayBeSecret(name) && (secretEnding(name) != nil || secretWord(name))
}

// SecretSetting reports whether the value of the Redis setting name is a secret.
func SecretSetting(name []byte) bool {
	for _, setting := range settings {
		if from, ok := endsWith(name, setting); ok && from == 0 {
			return true
		}
	}
	return SecretName(name)
}

// maxName is the number of letters at the end of a URL parameter's name that are compared.
const maxName = 64

// secretParameter reports whether the value of a URL parameter of this name is a secret. The name may be
// percent-encoded.
func secretParameter(name []byte) bool {
	if isPlain(name) {
		return SecretName(name) || parameterName(name)
	}
	var buf [maxName]byte
	name = plainName(&buf, name)
	return SecretName(name) || parameterName(name)
}

// isPlain reports whether name has only letters, digits and separators.
func isPlain(name []byte) bool {
	for _, c := range name {
		if folded[c] == 0 {
			return false
		}
	}
	return true
}

// parameterName reports whether a plain name, ignoring separators, is one of parameters.
func parameterName(name []byte) bool {
	if !mayBeSecret(name) {
		return false
	}
	name = trimSeparators(name)
	if len(name) == 0 {
		return false
	}
	for _, parameter := range parametersBy[folded[name[len(name)-1]]] {
		if from, ok := endsWith(name, parameter); ok && len(trimSeparators(name[:from])) == 0 {
			return true
		}
	}
	return false
}

// plainName decodes the end of a percent-encoded name into buf and returns it, without the bytes that cannot
// be in a name.
func plainName(buf *[maxName]byte, name []byte) []byte {
	if len(name) > 3*maxName {
		name = name[len(name)-3*maxName:]
	}
	length := 0
	for i := 0; i < len(name); i += charWidth(name, i) {
		c := charAt(name, i)
		if folded[c] == 0 {
			continue
		}
		if length == maxName { // drop the first letter
			length = copy(buf[:], buf[1:])
		}
		buf[length] = c
		length++
	}
	return buf[:length]
}
