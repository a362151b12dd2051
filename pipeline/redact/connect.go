package redact

import "bytes"

// Calls that connect to a server, or check a password, as stack traces of PHP have them: the arguments have no names.
// PDO->__construct('mysql:host=db', 'root', 'X').

// connectCalls are these functions, in lower case, and the position of the password among their arguments, counted from 0.
var connectCalls = [...]struct {
	name     string
	position int
}{
	{"pdo", 2},
	{"mysqli", 2},
	{"mysqli_connect", 2},
	{"mysqli_real_connect", 3},
	{"real_connect", 2},
	{"mysql_connect", 2},
	{"mysql_pconnect", 2},
	{"odbc_connect", 2},
	{"oci_connect", 1},
	{"ftp_login", 2},
	{"imap_open", 2},
	{"ldap_bind", 2},
	{"ssh2_auth_password", 2},
	{"createpdoconnection", 2},
	{"tryagainifcausedbylostconnection", 3},
	{"password_verify", 0},
	{"password_hash", 0},
}

// constructed are the classes whose constructor gets a user and then the password, each the end of a name.
var constructed = [...]string{"pdo", "mysqli", "pdoconnection"}

// connectSecret returns the password among the arguments of the call whose bracket is at pos, if it is one of connectCalls;
// to is 0 if there is none.
func connectSecret(text []byte, pos int) (from, to int) {
	name := nameAtEnd(text[max(0, pos-maxName):pos])
	position := -1
	if isOneFold(name, []string{"__construct"}) && isConstructed(text[:pos-len(name)]) {
		position = 2
	}
	for i := range connectCalls {
		if call := &connectCalls[i]; len(name) == len(call.name) && equalLower(name, call.name) {
			position = call.position
		}
	}
	if position < 0 {
		return 0, 0
	}
	text = text[:min(len(text), pos+maxScanned)]
	for pos++; ; position-- {
		value := positionalArgument(text, pos)
		content := value.of(text)
		switch {
		case position == 0 && value.quoted && !isPlaceholder(content):
			return value.from, value.to
		case position == 0 || value.next >= len(text) || text[value.next] != ',':
			return 0, 0
		}
		pos = value.next + 1
	}
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
