package redact

import "bytes"

// Passwords for the services of IRC: PRIVMSG NickServ :IDENTIFY bob X.

// An ircCommand is a command of NickServ with a password. The password is its last argument, or its first.
type ircCommand struct {
	name    string
	isFirst bool
}

var ircCommands = [...]ircCommand{
	{"identify", false},
	{"id", false},
	{"register", true},
	{"ghost", false},
	{"recover", false},
	{"release", false},
	{"regain", false},
	{"login", false},
}

// ircSecret returns the password among the arguments of the command text[from:end], if it is sent to NickServ; to is 0 if
// there is none.
func ircSecret(text []byte, from, end int) (start, to int) {
	var command *ircCommand
	for i := range ircCommands {
		if name := ircCommands[i].name; len(name) == end-from && equalLower(text[from:end], name) {
			command = &ircCommands[i]
		}
	}
	if command == nil || end == len(text) || text[end] != ' ' {
		return 0, 0
	}
	front := bytes.TrimRight(text[max(0, from-maxName):from], " :")
	target := lastWord(front)
	service, _, _ := bytes.Cut(bytes.TrimLeft(target, ":/"), []byte("@"))
	if !isOneFold(service, []string{"nickserv", "ns"}) {
		return 0, 0
	}
	sender := lastWord(front[:len(front)-len(target)])
	isSent := target[0] == '/' || isOneFold(bytes.TrimLeft(sender, "/"), []string{"privmsg", "msg", "squery", "quote", "notice"})
	if !isSent && !isUpper(text[from:end]) {
		return 0, 0
	}

	first := readArgument(text, end)
	value := first
	if first.next < len(text) && text[first.next] == ' ' && !command.isFirst {
		if second := readArgument(text, first.next); looksGenerated(second.of(text), minSecret) || isSent && endsMessage(text, second.next) {
			value = second
		}
	}
	word := value.of(text)
	if isPlaceholder(word) || isProseWord(word) || bytes.IndexByte([]byte("[<("), word[0]) >= 0 || !isSent && !looksGenerated(word, minSecret) {
		return 0, 0
	}
	return value.from, value.to
}

// endsMessage reports whether a message ends at pos.
func endsMessage(text []byte, pos int) bool {
	pos = skipBlanks(text, pos)
	return pos >= len(text) || bytes.IndexByte([]byte("\r\n\"'\\<`"), text[pos]) >= 0
}
