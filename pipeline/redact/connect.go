package redact

import "bytes"

// Calls that connect to a server, or check a password, as stack traces of PHP have them: the arguments have no names.
// PDO->__construct('mysql:host=db', 'root', 'X').

// A callKind says where a function of connectCalls is called.
type callKind uint8

const (
	programCall callKind = iota
	sqlCall              // in a statement, of which a line may have a part
	storageCall          // the same, of ClickHouse, with the URL of a storage: BACKUP … TO S3('https://…', 'key', 'X')
)

// connectCalls are these functions, in lower case, and the position of the password among their arguments, counted from 0.
var connectCalls = [...]struct {
	name     string
	position int
	kind     callKind
}{
	{"pdo", 2, programCall},
	{"mysqli", 2, programCall},
	{"mysqli_connect", 2, programCall},
	{"mysqli_real_connect", 3, programCall},
	{"real_connect", 2, programCall},
	{"mysql_connect", 2, programCall},
	{"mysql_pconnect", 2, programCall},
	{"odbc_connect", 2, programCall},
	{"oci_connect", 1, programCall},
	{"ftp_login", 2, programCall},
	{"imap_open", 2, programCall},
	{"ldap_bind", 2, programCall},
	{"ssh2_auth_password", 2, programCall},
	{"createpdoconnection", 2, programCall},
	{"tryagainifcausedbylostconnection", 3, programCall},
	{"password_verify", 0, programCall},
	{"password_hash", 0, programCall},
	{"password", 0, sqlCall},
	{"old_password", 0, sqlCall},
	{"s3", 2, storageCall},
	{"s3queue", 2, storageCall},
	{"s3cluster", 3, storageCall},
	{"gcs", 2, storageCall},
	{"cosn", 2, storageCall},
	{"oss", 2, storageCall},
	{"hudi", 2, storageCall},
	{"deltalake", 2, storageCall},
	{"iceberg", 2, storageCall},
	{"icebergs3", 2, storageCall},
}

// constructed are the classes whose constructor gets a user and then the password, each the end of a name.
var constructed = [...]string{"pdo", "mysqli", "pdoconnection"}

// connectSecret returns the password among the arguments of the call whose bracket is at pos, if it is one of connectCalls;
// to is 0 if there is none.
func connectSecret(text []byte, pos int) (from, to int) {
	name := nameAtEnd(text[max(0, pos-maxName):pos])
	position, kind := -1, programCall
	if isOneFold(name, []string{"__construct"}) && isConstructed(text[:pos-len(name)]) {
		position = 2
	}
	for i := range connectCalls {
		if call := &connectCalls[i]; len(name) == len(call.name) && equalLower(name, call.name) {
			position, kind = call.position, call.kind
		}
	}
	if position < 0 || kind == sqlCall && string(name) == "password" {
		return 0, 0
	}
	text = text[:min(len(text), pos+maxScanned)]
	for pos++; ; position-- {
		value := positionalArgument(text, pos)
		content := value.of(text)
		switch {
		case position == 0 && value.quoted && !isPlaceholder(content) && (kind != storageCall || isStorageSecret(content)):
			return value.from, value.to
		case position == 0 || value.next >= len(text) || text[value.next] != ',':
			return 0, 0
		}
		pos = value.next + 1
	}
}

// cipherCalls are functions of databases whose strings are secrets, in lower case: a text, its key, or both. A line may have a
// call of them without its statement.
var cipherCalls = [...]string{
	"aes_encrypt", "aes_decrypt", "des_encrypt", "des_decrypt",
	"pgp_sym_encrypt", "pgp_sym_decrypt", "pgp_sym_encrypt_bytea", "pgp_sym_decrypt_bytea", "pgp_pub_decrypt", "pgp_pub_decrypt_bytea",
	"encrypt_iv", "decrypt_iv", "trydecrypt", "encryptbypassphrase", "decryptbypassphrase",
}

// genericCiphers are functions of databases that have the names of functions of programs: those of a class are none of a
// database. The strings of pairedCiphers are secrets if the second argument is one: encode('x', 'key').
var (
	genericCiphers = [...]string{"encrypt", "decrypt", "crypt"}
	pairedCiphers  = [...]string{"encode", "decode", "hmac"}
)

// encodings are second arguments of encode and decode that are no keys: of PostgreSQL, and of Python.
var encodings = [...]string{
	"base64", "base64url", "base32", "hex", "escape", "ascii", "latin1", "latin-1", "utf8", "utf-8", "utf16", "utf-16", "cp1252", "iso-8859-1", "idna",
	"strict", "ignore", "replace", "surrogateescape", "backslashreplace", "xmlcharrefreplace",
}

// isCipherCall reports whether the call whose bracket is at pos is one of the functions above, with a string.
func isCipherCall(text []byte, pos int) bool {
	name := nameAtEnd(text[max(0, pos-maxName):pos])
	text = text[:min(len(text), pos+maxScanned)]
	switch {
	case isOneFold(name[bytes.LastIndexByte(name, '.')+1:], cipherCalls[:]), isOneFold(name, genericCiphers[:]):
		return hasString(text, pos)
	case !isOneFold(name, pairedCiphers[:]):
		return false
	}
	first := positionalArgument(text, pos+1)
	if first.next >= len(text) || text[first.next] != ',' {
		return false
	}
	second := positionalArgument(text, first.next+1)
	isLast := second.next < len(text) && text[second.next] == ')' || len(name) == len("hmac")
	content := second.of(text)
	return second.quoted && isLast && !isPlaceholder(content) && !isOneFold(content, encodings[:])
}

// hasString reports whether a string begins within the brackets that begin at pos.
func hasString(text []byte, pos int) bool {
	for depth := 0; pos < len(text); pos++ {
		switch c := text[pos]; {
		case isQuote(c):
			return true
		case c == '(':
			depth++
		case c == ')':
			if depth--; depth == 0 {
				return false
			}
		}
	}
	return false
}

// callHasSecret reports whether a secret is among the arguments of the call whose bracket is at pos.
func callHasSecret(text []byte, pos int) bool {
	_, to := connectSecret(text, pos)
	return to > 0 || isCipherCall(text, pos)
}

// isStorageSecret reports whether an argument in the place of the secret of a storage is one. Without a key and a secret, the
// structure of the table stands there.
func isStorageSecret(word []byte) bool {
	return len(word) >= minSecret && bytes.IndexByte(word, ' ') < 0 && string(word) != "auto" && !isProseWord(word)
}

// isConstructed reports whether front, the text in front of __construct, ends with one of the classes constructed and a mark.
func isConstructed(front []byte) bool {
	if !bytes.HasSuffix(front, []byte("->")) && !bytes.HasSuffix(front, []byte("::")) {
		return false
	}
	front = front[:len(front)-2]
	for _, class := range constructed {
		if start := len(front) - len(class); start >= 0 && equalLower(front[start:], class) {
			return true
		}
	}
	return false
}

// positionalArgument returns the argument at pos of a call. PHP writes a quote within a string as it is: a string ends with
// the quote in front of the next argument, or of the bracket.
func positionalArgument(text []byte, pos int) valueRange {
	pos = skipBlanks(text, pos)
	end := pos
	if pos < len(text) && isQuote(text[pos]) {
		for end++; end < len(text); end++ {
			if text[end] == text[pos] && (end+1 == len(text) || text[end+1] == ',' || text[end+1] == ')') {
				return valueRange{pos + 1, end, end + 1, true}
			}
		}
		return valueRange{pos + 1, end, end, true}
	}
	for depth := 0; end < len(text) && (depth > 0 || text[end] != ',' && text[end] != ')'); end++ {
		switch text[end] {
		case '(':
			depth++
		case ')':
			depth--
		}
	}
	return valueRange{pos, end, end, false}
}
