package redact

import "bytes"

// transports are the texts behind user:password@ in the names of data sources of Go: root:X@tcp(db:3306)/shop.
var transports = [...]string{"tcp(", "tcp4(", "tcp6(", "unix(", "udp(", "cloudsql(", "/"}

// copyCommands are commands whose arguments may be user:password@host.
var copyCommands = [...]string{"scp ", "sftp ", "ssh ", "ftp ", "rsync "}

// bareUserInfo returns the password in front of the @ at pos, which is in no URL; to is 0 if there is none.
// The text behind the @ is a transport, or the password looks generated and a host with a port follows, or a
// command of copyCommands is in front, or a host follows a password of any form and one of loginStems is in front.
func bareUserInfo(text []byte, pos int) (from, to int) {
	start := pos
	for start > 0 && pos-start < maxBalanced && text[start-1] > ' ' && !isQuote(text[start-1]) {
		start--
	}
	colon := bytes.IndexByte(text[start:pos], ':')
	if slash := bytes.IndexByte(text[start:pos], '/'); slash > 0 && (colon < 0 || colon > slash) {
		if colon > slash+1 && hasImpacket(text[max(0, start-maxPhrase):start]) {
			return start + colon + 1, pos // domain/user:X@host
		}
		return oraclePassword(text, start, start+slash, pos)
	}
	if colon == 0 && bytes.HasPrefix(text[start:], []byte(":pserver:")) { // of CVS
		colon = bytes.IndexByte(text[start+len(":pserver:"):pos], ':')
		if colon > 0 {
			return start + len(":pserver:") + colon + 1, pos
		}
	}
	if colon <= 0 {
		return 0, 0
	}
	from = start + colon + 1
	secret, behind := text[from:pos], text[pos+1:]
	if folded[text[from-2]] <= separator || isPlaceholder(secret) || secret[0] == '/' {
		return 0, 0
	}
	for _, transport := range transports {
		if bytes.HasPrefix(behind, []byte(transport)) {
			return from, pos
		}
	}
	if looksGenerated(secret, len("secret")) &&
		(beginsHost(behind) || hasCopyCommand(text[max(0, start-maxName):start])) {
		return from, pos
	}
	name := start + bytes.LastIndexAny(text[start:from-1], "=([{<,;") + 1
	if isLoginHost(behind) && isUserName(text[name:from-1]) && !isPortNumber(secret) && followsLogin(text[max(0, name-maxName):name]) {
		return from, pos
	}
	return 0, 0
}

// loginStems are the beginnings of the words in front of user:password@host: Authenticating bob:X@host, connecting to bob:X@host.
var loginStems = [...]string{"auth", "login", "logon", "logg", "signin", "connect", "reconnect", "cred", "dial", "bind", "account", "user"}

// namedSchemes are the schemes of addresses that have no slashes: sip:1001@pbx.
var namedSchemes = [...]string{"sip", "sips", "mailto", "xmpp", "acct", "tel", "im", "jid", "cid", "mid", "news", "urn", "sha256", "sha512", "workspace", "npm"}

// maxLoginWords is the number of words between one of loginStems and what it is about: authenticating as the user bob:X@host.
const maxLoginWords = 4

// followsLogin reports whether front, the text in front of a word, ends with a word that begins with one of loginStems and
// fewer than maxLoginWords others.
func followsLogin(front []byte) bool {
	for range maxLoginWords {
		front = bytes.TrimRight(front, " \t:=\"'`([")
		from := len(front)
		for from > 0 && (isLetter(front[from-1]) || front[from-1] == '-') {
			from--
		}
		word := front[from:]
		for _, stem := range loginStems {
			if len(word) >= len(stem) && equalLower(word[:len(stem)], stem) {
				return true
			}
		}
		if len(word) == 0 {
			return false
		}
		front = front[:from]
	}
	return false
}

// isUserName reports whether name is that of a user, not a scheme, and not the address of a host, which has a port behind it.
func isUserName(name []byte) bool {
	hasLetter := false
	for _, c := range name {
		hasLetter = hasLetter || isLetter(c)
		if folded[c] == 0 && c != '@' && c != '+' && c != '%' {
			return false
		}
	}
	return hasLetter && !isOneFold(name, namedSchemes[:])
}

// isPortNumber reports whether word is the number of a port: cache:6379@16379 is a node of Redis.
func isPortNumber(word []byte) bool { return len(word) <= len("65535") && isCount(word, len("65535")) }

// isLoginHost reports whether text begins with a host, which ends a word, or has a port or a path behind it.
func isLoginHost(text []byte) bool {
	end := 0
	for end < len(text) && end < 4*maxName && (folded[text[end]] != 0 && text[end] != '$') {
		end++
	}
	host := bytes.TrimRight(text[:end], ".")
	if len(host) == 0 || folded[host[0]] <= separator && host[0] != '[' {
		return false
	}
	return end == len(text) || bytes.IndexByte([]byte(" \t\r\n\"'`,;:/)>]\\"), text[end]) >= 0
}

// oracleCommands are commands whose argument may be user/password@database.
var oracleCommands = [...]string{
	"sqlplus", "impdp", "expdp", "imp", "exp", "rman", "target", "auxiliary", "catalog", "sqlldr", "connect", "conn",
	"sql", "sqlcl", "userid", "lsnrctl", "adrci", "tnsping",
}

// oraclePassword returns the password in user/password@database, which begins at start, has its slash at
// slash, and its @ at pos: of Oracle, with // behind the @, or behind one of oracleCommands; to is 0 if
// there is none.
func oraclePassword(text []byte, start, slash, pos int) (from, to int) {
	user := text[start:slash]
	user = user[bytes.LastIndexByte(user, '>')+1:] // of XML
	if equals := bytes.IndexByte(user, '='); equals > 0 {
		if !isOneFold(user[:equals], oracleCommands[:]) {
			return 0, 0
		}
		user = user[equals+1:]
	} else if !bytes.HasPrefix(text[pos+1:], []byte("//")) && !followsOracleCommand(text[max(0, start-maxName):start]) {
		return 0, 0
	}
	if len(user) == 0 || len(user) > maxName {
		return 0, 0
	}
	for _, c := range user {
		if folded[c] == 0 {
			return 0, 0
		}
	}
	if isPlaceholder(text[slash+1 : pos]) {
		return 0, 0
	}
	return slash + 1, pos
}

// followsOracleCommand reports whether front, the text in front of an argument, ends with one of
// oracleCommands, and options.
func followsOracleCommand(front []byte) bool {
	for range 4 {
		word := lastWord(front)
		if isOneFold(word, oracleCommands[:]) {
			return true
		}
		if len(word) == 0 || word[0] != '-' {
			return false
		}
		front = bytes.TrimRight(front, " \t")
		front = front[:len(front)-len(word)]
	}
	return false
}

// beginsHost reports whether text begins with the name of a host and a port.
func beginsHost(text []byte) bool {
	i := 0
	for i < len(text) && i < maxName && folded[text[i]] != 0 {
		i++
	}
	if i == 0 || i+1 >= len(text) || text[i] != ':' || string(text[:i]) == "sha256" {
		return false
	}
	return isDigitAt(text, i+1)
}

// hasImpacket reports whether front, the text in front of an argument, has a program of Impacket.
func hasImpacket(front []byte) bool {
	return bytes.Contains(front, []byte(".py ")) || bytes.Contains(front, []byte("impacket-"))
}

// hasCopyCommand reports whether front, the text in front of an argument, has one of copyCommands.
func hasCopyCommand(front []byte) bool {
	for _, name := range copyCommands {
		if i := bytes.LastIndex(front, []byte(name)); i == 0 || i > 0 && folded[front[i-1]] <= separator {
			return true
		}
	}
	return false
}

// hideBareUserInfo hides the passwords in user:password@host that are in no URL.
func (r *Redactor) hideBareUserInfo(v view) {
	for pos := 0; ; pos++ {
		i := bytes.IndexByte(v.text[pos:], '@')
		if i < 0 {
			return
		}
		pos += i
		if from, to := bareUserInfo(v.text, pos); to > 0 {
			r.hide(v, from, to, RuleUserInfo)
		}
	}
}
