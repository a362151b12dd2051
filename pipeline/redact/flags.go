package redact

import "bytes"

// Commands have options whose value is a secret, and no name says so.
const (
	sqlClients   = 1 << iota // mysql -pSECRET
	sshPass                  // sshpass -p SECRET
	redisClients             // redis-cli -a SECRET
	httpClients              // curl -u user:SECRET
	ldapClients              // ldapsearch -w SECRET
)

// commands are the commands with such options.
var commands = [...]struct {
	name string
	kind int
}{
	{"mysql", sqlClients},
	{"mariadb", sqlClients},
	{"mytop", sqlClients},
	{"sshpass", sshPass},
	{"redis-cli", redisClients},
	{"keydb-cli", redisClients},
	{"valkey-cli", redisClients},
	{"curl", httpClients},
	{"wget", httpClients},
	{"ldapsearch", ldapClients},
	{"ldapmodify", ldapClients},
	{"mongo", sshPass},
	{"mongodump", sshPass},
	{"docker login", sshPass},
	{"helm registry login", sshPass},
	{"http ", httpClients},
	{"xh ", httpClients},
	{"smbclient", httpClients},
}

// commandsIn returns the kinds of commands that a text names. In the name of a user agent, curl/8.5.0, there is none.
func commandsIn(text []byte) (kinds int) {
	for _, command := range commands {
		for rest := text; ; {
			_, behind, found := bytes.Cut(rest, []byte(command.name))
			if !found {
				break
			}
			if len(behind) == 0 || behind[0] != '/' {
				kinds |= command.kind
				break
			}
			rest = behind
		}
	}
	return kinds
}

// settingWords are the words of configuration files whose value follows behind a blank.
var settingWords = [...]string{"requirepass", "masterauth", "masterpass", "sentinel", "user"}

// isAuthCommand reports whether AUTH is at pos: a command of Redis, or of SMTP, which begins a line or a string.
func isAuthCommand(text []byte, pos int) bool {
	const word = "AUTH "
	if !bytes.HasPrefix(text[pos:], []byte(word)) || pos > 0 && !isQuote(text[pos-1]) && text[pos-1] != ' ' && text[pos-1] != '\t' {
		return false
	}
	value := readValue(text, pos+len(word), true)
	return value.from < value.to && !isProseWord(value.of(text))
}

// optionEnd returns the end of the name of the option that begins with the dash at pos.
func optionEnd(text []byte, pos int) int {
	limit := min(len(text), pos+maxName)
	for pos++; pos < limit && (folded[text[pos]] > separator || text[pos] == '-' || text[pos] == '_' || text[pos] == '.'); {
		pos++
	}
	return pos
}

// hideFlags hides the values of options, and of words, that stand behind a blank: --password X, mysql -pX,
// passwd 'X', AUTH X.
func (r *Redactor) hideFlags(v view) {
	text := v.text
	kinds := -1 // not looked at
	for i := 0; i < len(text); {
		next := i + 1
		switch c := text[i]; {
		case c == '-' && beginsOption(text, i):
			if kinds < 0 {
				kinds = commandsIn(text)
			}
			next = r.hideOption(v, i, kinds)
		case isQuote(c) && i > 1 && (text[i-1] == ' ' || text[i-1] == '\t' || text[i-1] == '\\'):
			next = r.hideBehindWord(v, i)
		case (c == 'r' || c == 'm') && (i == 0 || folded[text[i-1]] == 0):
			next = r.hideSetting(v, i)
		case c == 'A' && isAuthCommand(text, i):
			next = r.hideAuth(v, i)
		}
		i = max(next, i+1)
	}
}

// beginsOption reports whether the dash at pos begins an option of a command.
func beginsOption(text []byte, pos int) bool {
	if pos+1 == len(text) || text[pos+1] != '-' && !isLetter(text[pos+1]) {
		return false
	}
	before := byteBefore(text, pos)
	return before <= ' ' || isQuote(before) || before == '[' || before == '(' || before == ','
}

// hideOption hides the value of the option at pos, and returns the offset at which to continue.
func (r *Redactor) hideOption(v view, pos, kinds int) int {
	text := v.text
	end := optionEnd(text, pos)
	name := text[pos:end]
	if end < len(text) && (text[end] == '=' || text[end] == ':') {
		return end // hideNamed reads it
	}
	long := len(name) > 2 && (name[1] == '-' || SecretName(name))
	switch {
	case len(name) > 2 && name[1] == 'p' && kinds&sqlClients != 0:
		value := readValue(text, pos+2, true)
		r.hide(v, value.from, value.to, RuleFlag)
		return max(value.to, end)
	case long && SecretName(name):
		return r.hideArgument(v, end, false)
	case string(name) == "--user" || string(name) == "-u" && kinds&httpClients != 0 || string(name) == "-U" && kinds&httpClients != 0:
		return r.hideArgument(v, end, true)
	case string(name) == "-p" && kinds&sshPass != 0, string(name) == "-a" && kinds&redisClients != 0, string(name) == "-w" && kinds&ldapClients != 0:
		return r.hideArgument(v, end, false)
	case string(name) == "-p" && kinds&sqlClients != 0 && end < len(text) && isQuote(text[end]) && text[end] != byteBefore(text, pos):
		value := readValue(text, end, true)
		r.hide(v, value.from, value.to, RuleFlag)
		return max(value.to, end)
	}
	return end
}

// hideArgument hides the argument behind an option that ends at pos. In a list of arguments it is the next
// string. With user, the argument is user:password, and the user is kept.
func (r *Redactor) hideArgument(v view, pos int, user bool) int {
	text := v.text
	start := pos
	if start < len(text) && isQuote(text[start]) { // "--token", "X"
		quote := text[start]
		start = skipBlanks(text, start+1)
		if start < len(text) && text[start] == ',' {
			start = skipBlanks(text, start+1)
		}
		if start == len(text) || text[start] != quote {
			return pos
		}
	} else if start == len(text) || text[start] != ' ' && text[start] != '\t' {
		return pos
	}
	value := readValue(text, start, false)
	if !value.quoted { // the string that holds the command may end here
		value.to -= len(text[value.from:value.to]) - len(bytes.TrimRight(text[value.from:value.to], "\"'`,]\\"))
	}
	from := value.from
	if user {
		colon := bytes.IndexByte(text[from:value.to], ':')
		if colon < 0 {
			return pos
		}
		from += colon + 1
	}
	content := text[from:max(from, value.to)]
	if isPlaceholder(content) || text[value.from] == '-' && !user || !value.quoted && isProseWord(content) {
		return pos
	}
	r.hide(v, from, value.to, RuleFlag)
	return max(value.to, pos)
}

// hideBehindWord hides the string that begins at pos if the word before it is the name of a secret: passwd 'X'.
func (r *Redactor) hideBehindWord(v view, pos int) int {
	text := v.text
	end := pos
	for end > 0 && text[end-1] == '\\' {
		end--
	}
	from := end
	for from > 0 && end-from < 4 && (text[from-1] == ' ' || text[from-1] == '\t') {
		from--
	}
	nameEnd := from
	for from > 0 && nameEnd-from < maxName && folded[text[from-1]] != 0 {
		from--
	}
	if nameEnd == end || !passwordWord(text[from:nameEnd]) {
		return pos + 1
	}
	value := readValue(text, end, false)
	if !value.quoted || isPlaceholder(value.of(text)) || bytes.IndexByte(value.of(text), ' ') >= 0 {
		return pos + 1
	}
	r.hide(v, value.from, value.to, RuleName)
	return value.next
}

// passwordWord reports whether a word in front of a string says that the string is a password.
func passwordWord(word []byte) bool {
	switch class := classOf(word); class {
	case strong:
		return true
	case prose:
		return string(bytes.ToLower(word)) != "token" && string(bytes.ToLower(word)) != "signature"
	}
	return false
}

// hideSetting hides the value behind requirepass or masterauth at pos.
func (r *Redactor) hideSetting(v view, pos int) int {
	text := v.text
	for _, word := range settingWords[:3] {
		end := pos + len(word)
		if end < len(text) && string(text[pos:end]) == word && (text[end] == ' ' || isQuote(text[end])) {
			value := readValue(text, skipQuoteAndBlank(text, end), false)
			if !isPlaceholder(value.of(text)) && !isProseWord(value.of(text)) {
				r.hide(v, value.from, value.to, RuleFlag)
			}
			return max(value.next, end)
		}
	}
	return pos + 1
}

// skipQuoteAndBlank returns the offset behind a closing quote and blanks: "requirepass" "X".
func skipQuoteAndBlank(text []byte, pos int) int {
	if isQuote(text[pos]) {
		pos++
	}
	return skipBlanks(text, pos)
}

// hideAuth hides the arguments of the AUTH at pos. Of Redis it has a password, or a user and a password; of SMTP
// a mechanism and the credentials.
func (r *Redactor) hideAuth(v view, pos int) int {
	text := v.text
	first := readValue(text, pos+len("AUTH "), true)
	second := readValue(text, first.next, true)
	further := len(bytes.TrimSpace(text[second.next:min(len(text), second.next+maxShort)])) > 0
	switch {
	case second.from >= second.to || text[first.next] == '"':
		if !isPlaceholder(first.of(text)) {
			r.hide(v, first.from, first.to, RuleFlag)
		}
		return max(first.next, pos+1)
	case !further && !isProseWord(second.of(text)):
		r.hide(v, second.from, second.to, RuleFlag)
		return max(second.next, pos+1)
	}
	return pos + 1
}
