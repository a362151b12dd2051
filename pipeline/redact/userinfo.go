package redact

import "bytes"

// transports are the texts behind user:password@ in the names of data sources of Go: root:X@tcp(db:3306)/shop.
var transports = [...]string{"tcp(", "tcp4(", "tcp6(", "unix(", "udp(", "cloudsql(", "/"}

// copyCommands are commands whose arguments may be user:password@host.
var copyCommands = [...]string{"scp ", "sftp ", "ssh ", "ftp ", "rsync "}

// bareUserInfo returns the password in front of the @ at pos, which is in no URL; to is 0 if there is none.
// The text behind the @ is a transport, or the password looks generated and a host with a port follows, or a
// command of copyCommands is in front.
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
	return 0, 0
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
