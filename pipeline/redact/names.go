package redact

import (
	"bytes"
	"slices"
)

// A class says how sure it is that a value of this name is a secret.
type class uint8

const (
	noSecret  class = iota
	beside          // of a value whose name stands beside it: {"name":"DB_PASSWORD","value":"…"}
	doubtful        // of a secret as the parameter of a URL, if it looks like a token: verify, policy, appid
	everyday        // of a secret as the parameter of a URL; elsewhere an everyday word: code, key, session
	countable       // of a secret, or of a number of things: tokens=128
	prose           // of a secret, and a word of English text: "unexpected token: <"
	strong          // of a secret: password, api_key
	header          // a header field whose value may have a scheme and spaces: Authorization, Cookie
)

// isSecret reports whether a value with such a name is a secret in every kind of text.
func (c class) isSecret() bool { return c > everyday }

// contained are the words that make each name that contains them the name of a secret: db_password2,
// passwordRepeat, MY_CLIENT_SECRET_VALUE. They have no separators, which are ignored in names, as digits are.
var contained = [...]string{
	"password", "passwd", "passwort", "passphrase", "passcode", "kennwort", "secret", "apikey", "privatekey",
	"privkey", "accesskey", "signingkey", "encryptionkey", "masterkey", "sharedkey", "accountkey", "licensekey",
	"licencekey", "appkey", "authkey", "sessionkey", "consumerkey", "deploykey", "hmackey", "credential",
	"sessionid", "sessid", "sessiontoken", "authcode", "authorizationcode", "clientassertion", "samlresponse",
	"samlassertion", "oauthverifier", "codeverifier", "dockerconfigjson", "securestring", "requirepass",
	"masterauth", "primaryauth", "authenticationstring", "recoverycodes", "backupcodes", "bearertoken", "sesskey", "sharedaccesssignature", "mnemonic", "seedphrase",
	"identifiedby", "pasword", "paswort", "passwrd", "passwod", "passsword", "passwird", "psswd", "psswrd", "psswor", "paswd", "loginpas", "userpas",
}

var containedBy = newWordTable(contained[:])

// nameStems has the needles that are parts of names, stems also those of doubtfulWords: a name without any has no class.
var (
	nameStems = newWordTable(append(wordsOf(nameNeedle, sqlNeedle, bearerNeedle), "tan"))
	stems     = newWordTable(append(wordsOf(nameNeedle, sqlNeedle, bearerNeedle),
		"tan", "magic", "confirm", "activat", "invit", "unsubscribe", "reset", "access"))
)

// parts are the words that make a name secret if they are one of its parts: db_pass, userPass2, pass_hash;
// not compass.
var parts = [...]string{
	"pass", "pwd", "psw", "pw", "pswd", "pword", "token", "jwt", "otp", "totp", "cred", "creds", "signature", "sig",
	"hmac", "psk", "wpapsk", "passe", "senha", "contrasena", "wachtwoord", "haslo", "lozinka", "heslo",
	"motdepasse", "mdp", "contrasenia", "contrasenya", "losenord", "salasana", "adgangskode", "kodeord", "passord",
	"sifre", "jelszo", "katasandi", "slaptazodis", "geslo", "zaporka", "parool",
}

// ambiguousWords are the names of passwords in other languages that are also those of words, of values and of keys.
var ambiguousWords = [...]string{"clave", "parola", "losung"}

// suffixes are the ends of parts with which they are the name of a secret: accesstoken, dbpwd.
var suffixes = [...]string{"token", "pwd", "passw", "pswd"}

// passOwners are the words in front of pass and pw in one part: dbpass, rootpw.
var passOwners = [...]string{
	"user", "usr", "db", "smtp", "root", "my", "admin", "ftp", "mail", "login", "old", "new", "cur", "redis",
	"mysql", "pg", "postgres", "ssh", "vnc", "wifi", "http", "proxy", "key", "store", "cert", "ldap", "bind", "svc",
	"mongo", "rabbit", "auth", "tls",
}

// keyOwners are the parts before a last part key: api_key, ENCRYPTION_KEY; not cache_key.
var keyOwners = [...]string{
	"api", "app", "access", "secret", "private", "priv", "auth", "account", "license", "licence", "session",
	"master", "client", "consumer", "encryption", "encrypt", "signing", "sign", "shared", "storage", "service",
	"hmac", "aes", "ssh", "deploy", "webhook", "admin", "server", "jwt", "crypto", "stripe", "sendgrid", "openai",
	"google", "aws", "azure", "subscription", "functions", "host", "tls", "rsa", "ssl", "security", "cipher",
	"root", "des",
}

// everydayWords are the whole names, or last parts, of URL parameters that hold a credential.
var everydayWords = [...]string{
	"code", "key", "auth", "session", "sid", "pin", "assertion", "ticket", "bearer", "nonce", "verifier", "passkey",
	"otc", "cvv", "cvc", "sign", "sas", "puk", "tan", "mtan", "itan",
}

// doubtfulWords are the whole names of URL parameters that hold a credential, or a word.
var doubtfulWords = [...]string{
	"verify", "verification", "invite", "invitation", "magic", "confirm", "confirmation", "activate", "activation",
	"unsubscribe", "policy", "appid", "cloudfrontpolicy", "keypairid", "cloudfrontkeypairid", "magiclink",
	"reset", "access",
}

// wholeWords are those of doubtfulWords that have no digit and no separator beside them.
var wholeWords = [...]string{"reset", "access"}

// codeOwners are the parts before a last part code: auth_code; not zip_code.
var codeOwners = [...]string{
	"auth", "authorization", "verification", "reset", "otp", "invite", "access", "security", "sms", "login",
	"confirm", "confirmation", "device", "activation", "mfa", "backup", "recovery", "two", "factor",
}

// harmless are last parts of names that are about a secret, and do not hold one: password_changed_at,
// token_type, --password-stdin.
var harmless = [...]string{
	"at", "count", "counts", "type", "types", "policy", "length", "len", "size", "expires", "expire", "expiry",
	"expired", "expiration", "ttl", "in", "url", "uri", "endpoint", "path", "file", "filename", "dir", "required",
	"enabled", "disabled", "changed", "updated", "created", "strength", "age", "attempts", "failures", "limit",
	"status", "state", "valid", "invalid", "ok", "error", "errors", "provider", "manager", "service", "store",
	"ref", "version", "min", "max", "usage", "used", "total", "index", "hint", "set", "present", "authentication",
	"bytes", "format", "algorithm", "alg", "kind", "prompt", "page", "form", "rotation", "rounds", "cost", "stdin",
	"fd", "rate", "ratio", "name", "names", "grant", "mode", "method", "lifetime", "window", "budget", "per", "ms",
	"seconds", "aging", "cache", "bucket", "source", "issuer", "scope", "scopes", "through", "percent", "time",
	"date", "reason", "field", "namespace", "arn", "id", "ids", "owner", "role", "user", "username", "host", "port",
	"exists", "validator", "reset", "exception", "exceptions", "java", "go", "py", "js", "ts",
	"rb", "php", "cs",
}

// harmlessNames are whole parts that contain one of the words and are everyday words.
var harmlessNames = [...]string{
	"secretary", "secretaries", "secretariat", "passwordless", "tokenizer", "tokenize", "tokenized", "tokenization",
}

// headers are the names of header fields with credentials.
var headers = [...]string{"authorization", "cookie", "cookies", "setcookie", "proxyauthorization"}

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

// maxName is the number of bytes at the end of a name that are looked at.
const maxName = 64

// words are the parts of a name: lower case, without digits.
type words struct {
	letters  [maxName]byte // of all parts
	starts   [maxName]int8 // where each part begins in letters
	count    int           // of parts
	size     int           // of letters
	hasDigit bool
}

// splitName splits a name into its parts, at separators, digits and the capitals of camelCase.
func splitName(name []byte) (w words) {
	if len(name) > maxName {
		name = name[len(name)-maxName:]
	}
	begins := true
	for i, c := range name {
		letter := folded[c]
		if letter <= separator {
			begins = true
			continue
		}
		if letter <= '9' {
			begins, w.hasDigit = true, true
			continue
		}
		camel := c <= 'Z' && i > 0 && name[i-1] >= 'a' && name[i-1] <= 'z'
		if begins || camel {
			w.starts[w.count] = int8(w.size)
			w.count++
		}
		begins = false
		w.letters[w.size] = letter
		w.size++
	}
	return w
}

// part returns the i-th part.
func (w *words) part(i int) []byte {
	end := w.size
	if i+1 < w.count {
		end = int(w.starts[i+1])
	}
	return w.letters[w.starts[i]:end]
}

func isOneOf(word []byte, list []string) bool {
	return slices.ContainsFunc(list, func(other string) bool { return string(word) == other })
}

// classOf returns the class of a name.
func classOf(name []byte) class {
	w, end := splitName(name), name[max(0, len(name)-maxName):]
	isValue := w.size == 1 && w.letters[0] == 'v'
	if w.count == 0 || !isValue && !containsWord(end, stems) {
		return noSecret
	}
	last, joined := w.part(w.count-1), w.letters[:w.size]
	if isOneOf(joined, doubtfulWords[:]) && (len(name) == len(joined) || !isOneOf(joined, wholeWords[:])) {
		return doubtful
	}
	if !isValue && !containsWord(end, nameStems) {
		return noSecret
	}
	if string(joined) == "auth" && name[0] == '_' { // of npm
		return strong
	}
	if bytes.HasSuffix(joined, []byte("sessionid")) {
		return strong
	}
	if w.count > 1 && isOneOf(last, harmless[:]) {
		return noSecret
	}
	if isOneOf(last, headers[:]) || isOneOf(joined, headers[:]) {
		return header
	}
	for i := range w.count {
		if isOneOf(w.part(i), harmlessNames[:]) {
			return noSecret
		}
	}
	switch string(joined) {
	case "token", "secret", "signature", "credential", "credentials",
		"pwd", "pass", "pw", "otp", "sig", "cred", "creds", "jwt":
		return prose
	case "passwordauthentication":
		return noSecret
	}
	if isOneOf(joined, ambiguousWords[:]) {
		return prose
	}
	if isOneOf(last, []string{"tokens", "secrets", "passes"}) {
		return countable
	}
	return classOfParts(&w, last)
}

// classOfParts returns the class of a name by the words that it contains.
func classOfParts(w *words, last []byte) class {
	if containsWord(w.letters[:w.size], containedBy) {
		return strong
	}
	for i := range w.count {
		part := w.part(i)
		if isOneOf(part, parts[:]) || isFusedName(part) {
			return strong
		}
	}
	switch {
	case w.count > 1 && string(last) == "key" && isOneOf(w.part(w.count-2), keyOwners[:]):
		return strong
	case w.count > 1 && string(last) == "value" && string(w.part(w.count-2)) == "pin": // of a URI of PKCS #11
		return strong
	case w.count > 1 && (string(last) == "auth" || string(last) == "sid" || string(last) == "bearer"):
		return strong
	case string(last) == "code" && w.count > 1 &&
		!isOneOf(w.part(w.count-2), codeOwners[:]), string(last) == "key" && w.count > 1:
		return noSecret
	case isOneOf(last, everydayWords[:]):
		return everyday
	case isOneOf(w.letters[:w.size], valueWords[:]):
		return beside
	}
	return noSecret
}

// valueWords are the names of values whose name stands beside them.
var valueWords = [...]string{"value", "val", "v", "parametervalue", "optionvalue", "settingvalue"}

// isFusedName reports whether a part ends with the name of a secret: accesstoken, dbpass.
func isFusedName(part []byte) bool {
	for _, suffix := range suffixes {
		if len(part) >= len(suffix) && string(part[len(part)-len(suffix):]) == suffix {
			return true
		}
	}
	for _, word := range [...]string{"pass", "pw"} {
		if n := len(part) - len(word); n > 0 && string(part[n:]) == word && isOneOf(part[:n], passOwners[:]) {
			return true
		}
	}
	return false
}

// SecretName reports whether name is the name of a secret in every kind of text.
func SecretName(name []byte) bool { return classOf(name).isSecret() || hasForeignName(name) }

// settings are the names of Redis settings that hold a credential and are no names of secrets elsewhere.
var settings = [...]string{"user"}

// SecretSetting reports whether the value of the Redis setting name is a secret.
func SecretSetting(name []byte) bool {
	for _, setting := range settings {
		if bytes.EqualFold(name, []byte(setting)) {
			return true
		}
	}
	return SecretName(name)
}

// parameterClass returns the class of a parameter of a URL.
func parameterClass(name []byte) class {
	switch {
	case len(name) == 0:
		return noSecret
	case hasForeignName(name):
		return strong
	}
	return classOf(name)
}
