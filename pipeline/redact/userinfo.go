package redact

import "bytes"

// transports are the texts behind user:password@ in the names of data sources of Go: root:X@tcp(db:3306)/shop.
var transports = [...]string{"tcp(", "tcp4(", "tcp6(", "unix(", "udp(", "cloudsql(", "/"}

// copyCommands are commands whose arguments may be user:password@host.
var copyCommands = [...]string{"scp ", "sftp ", "ssh ", "ftp ", "rsync "}

// bareUserInfo returns the password in front of the @ at pos, which is in no URL; to is 0 if there is none. The text
// behind the @ is a transport, or the password looks generated and a host with a port follows, or a command of
// copyCommands is in front.
func bareUserInfo(text []byte, pos int) (from, to int) {
	start := pos
	for start > 0 && pos-start < maxBalanced && text[start-1] > ' ' && !isQuote(text[start-1]) {
		start--
	}
	colon := bytes.IndexByte(text[start:pos], ':')
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
