package redact

import "bytes"

// settingWords are the words of configuration files whose value follows behind a blank.
var settingWords = [...]string{"requirepass", "masterauth", "masterpass", "sentinel", "user"}

// isAuthCommand reports whether AUTH is at pos: a command of Redis, or of SMTP, which begins a line or a
// string.
func isAuthCommand(text []byte, pos int) bool {
	const word = "AUTH "
	if !bytes.HasPrefix(text[pos:], []byte(word)) ||
		pos > 0 && !isQuote(text[pos-1]) && text[pos-1] != ' ' && text[pos-1] != '\t' {
		return false
	}
	value := readValue(text, pos+len(word), true)
	if string(value.of(text)) == "LOGIN" {
		response := readValue(text, value.next, true)
		return isTextInBase64(response.of(text))
	}
	return value.from < value.to && !isProseWord(value.of(text))
}

// optionEnd returns the end of the name of the option that begins with the dash at pos.
func optionEnd(text []byte, pos int) int {
	limit := min(len(text), pos+maxName)
	for pos++; pos < limit &&
		(folded[text[pos]] > separator || text[pos] == '-' || text[pos] == '_' || text[pos] == '.'); {
		pos++
	}
	return pos
}

// hideFlags hides the values of options, and of words, that stand behind a blank: --password X, mysql -pX,
// passwd 'X', AUTH X.
func (r *Redactor) hideFlags(v view) {
	text := v.text
	var by *command // the command that was named last
	for i := 0; i < len(text); {
		next := i + 1
		switch c := text[i]; {
		case c == '-' && beginsOption(text, i):
			next = r.hideOption(v, i, by)
		case isQuote(c) && i > 1 && (text[i-1] == ' ' || text[i-1] == '\t' || text[i-1] == '\\'):
			next = r.hideBehindWord(v, i)
		case (c == 'r' || c == 'm') && (i == 0 || folded[text[i-1]] == 0):
			next = r.hideSetting(v, i)
		case c == 'A' && isAuthCommand(text, i):
			next = r.hideAuth(v, i)
		case c == '/' && by != nil && by.slash != "" && i+3 < len(text) && hasOption(by.slash, text[i+1]) &&
			text[i+2] == ':':
			next = r.hideArgument(v, i+3, false, true)
		case c == '/' && by != nil && by.slashWord != "" && hasSlashWord(text, i, by.slashWord):
			next = r.hideArgument(v, i+len(by.slashWord), false, false)
		case (c == '|' || c == ';') && i+1 < len(text) && text[i+1] == ' ':
			by = nil
		}
		if next <= i+1 {
			next = i + 1
			if found := commandAt(text, i); found != nil {
				by = found
			}
			if mayBePositional[text[i]] {
				next = r.hidePositional(v, i)
			}
		}
		i = next
	}
}

// hasSlashWord reports whether the option word is at pos, with a blank behind it, in any case.
func hasSlashWord(text []byte, pos int, word string) bool {
	end := pos + len(word)
	return end < len(text) && text[end] == ' ' && byteBefore(text, pos) == ' ' && equalLower(text[pos:end], word)
}

// mayBePositional has the first bytes of the commands of positionalSecrets.
var mayBePositional = func() (table [256]bool) {
	for _, known := range positionalSecrets {
		table[known.command[0]] = true
	}
	return table
}()

// beginsOption reports whether the dash at pos begins an option of a command.
func beginsOption(text []byte, pos int) bool {
	if pos+1 == len(text) || text[pos+1] != '-' && !isLetter(text[pos+1]) {
		return false
	}
	before := byteBefore(text, pos)
	return before <= ' ' || isQuote(before) || before == '[' || before == '(' || before == ','
}

// hideOption hides the value of the option at pos of the command by, which may be nil, and returns the offset
// at which to continue.
func (r *Redactor) hideOption(v view, pos int, by *command) int {
	text := v.text
	end := optionEnd(text, pos)
	name := text[pos:end]
	long := len(name) > 2 && (name[1] == '-' || SecretName(name))
	switch {
	case by != nil && by.front != "" && bytes.HasPrefix(name, []byte(by.front)) && len(name) > len(by.front):
		return r.hideArgument(v, pos+len(by.front), false, true)
	case by != nil && name[1] != '-' && !bytes.HasPrefix(name, []byte("-password")):
		if next := r.hideShortOption(v, pos, end, by); next > 0 {
			return next
		}
	case end < len(text) && (text[end] == '=' || text[end] == ':'):
		if isOneOf(name, userOptions[:]) {
			return r.hideArgument(v, end+1, true, true)
		}
	}
	switch {
	case end < len(text) && (text[end] == '=' || text[end] == ':'):
		return end // hideNamed reads it
	case long && (SecretName(name) || isPinOption(name)), by != nil && by.long != "" && string(name) == by.long,
		string(name) == hashesOption:
		return r.hideArgument(v, end, false, false)
	case isOneOf(name, userOptions[:]) || by != nil && by.name == "curl" && isOneOf(name, certificateOptions[:]):
		return r.hideArgument(v, end, true, false)
	case isOneOf(name, passwordSources[:]):
		return r.hidePasswordSource(v, end)
	}
	return end
}

// isPinOption reports whether a long option is that of a PIN: --pin, --so-pin, --puk.
func isPinOption(name []byte) bool {
	words := splitName(name)
	return words.count > 0 && isOneOf(words.part(words.count-1), []string{"pin", "puk"})
}

// hideShortOption hides the value of the option of one letter at pos, and returns the offset at which to
// continue; 0: its value is no secret. The word ends at end.
func (r *Redactor) hideShortOption(v view, pos, end int, by *command) int {
	text, letter, behind := v.text, v.text[pos+1], pos+2
	user := hasOption(by.user, letter)
	apart := hasOption(by.apart, letter)
	secret := user || apart || hasOption(by.secret, letter)
	if !secret && !hasOption(by.joined, letter) || apart && end > behind || behind == len(text) {
		return 0
	}
	switch c := text[behind]; {
	case c == ' ' || c == '\t' || isQuote(c) && c == byteBefore(text, pos):
		if !secret {
			return 0
		}
		return r.hideArgument(v, behind, user, false)
	case c == '\\' && behind+1 < len(text) && isQuote(text[behind+1]) &&
		byteBefore(text, pos) == text[behind+1], c == ',', c == ']':
		return 0
	}
	if next := r.hideArgument(v, behind, user, true); next > behind {
		return next
	}
	return end
}

// certificateOptions are options of curl whose value is a file, and its password behind a colon.
var certificateOptions = [...]string{"--cert", "--proxy-cert"}

// hashesOption is an option of Impacket, whose value is as good as the password.
const hashesOption = "-hashes"

// passwordSources are options of openssl, whose value may be pass:SECRET.
var passwordSources = [...]string{"-pass", "-passin", "-passout"}

// hidePasswordSource hides the password in the argument behind an option of passwordSources that ends at pos.
func (r *Redactor) hidePasswordSource(v view, pos int) int {
	value := readArgument(v.text, pos)
	const front = "pass:"
	if value.to-value.from <= len(front) || string(v.text[value.from:value.from+len(front)]) != front {
		return pos
	}
	r.hide(v, value.from+len(front), value.to, RuleFlag)
	return max(value.to, pos)
}

// hideArgument hides the argument behind an option that ends at pos, or, if joined, at pos. In a list of
// arguments it is the next string. With user, the argument is user:password, and the user is kept.
func (r *Redactor) hideArgument(v view, pos int, user, joined bool) int {
	text := v.text
	start := pos
	switch {
	case joined:
	case start < len(text) && isQuote(text[start]): // "--token", "X"
		quote := text[start]
		start = skipBlanks(text, start+1)
		if start < len(text) && text[start] == ',' {
			start = skipBlanks(text, start+1)
		}
		if start == len(text) || text[start] != quote {
			return pos
		}
	case start == len(text) || text[start] != ' ' && text[start] != '\t':
		return pos
	}
	value := readArgument(text, start)
	from := value.from
	if user {
		if value.to < len(text) && text[value.to] == ',' { // -u bob,X of lftp
			for value.to < len(text) && text[value.to] > ' ' && !isQuote(text[value.to]) {
				value.to++
			}
		}
		colon := userEnd(text[from:value.to])
		if colon < 0 {
			return pos
		}
		from += colon + 1
	}
	content := text[from:max(from, value.to)]
	if isPlaceholder(content) || text[value.from] == '-' && !user && !joined ||
		!value.quoted && !joined && isProseWord(content) {
		return pos
	}
	r.hide(v, from, value.to, RuleFlag)
	return max(value.to, pos)
}

// userEnd returns the offset of the byte behind the user in user:password, or user%password; −1: there is
// none.
func userEnd(argument []byte) int {
	if i := bytes.IndexByte(argument, ':'); i >= 0 {
		return i
	}
	return bytes.IndexAny(argument, "%,")
}

// hideBehindWord hides the string that begins at pos if the word before it is the name of a secret: passwd
// 'X'.
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
	value := valueRange{}
	switch word := text[from:nameEnd]; {
	case nameEnd == end || len(word) == 0:
		return pos + 1
	case passwordWord(word) || isIdentifiedBy(text[:nameEnd]):
		value = readValue(text, end, false)
	case isOneFold(word, []string{"token", "secret", "secrets"}): // unexpected token '}'; secret "db-credentials" not found
		value = readValue(text, end, false)
		if content := value.of(text); !looksGenerated(content, len("secrets!")) || !hasDigitInside(content) {
			return pos + 1
		}
	default:
		return pos + 1
	}
	if password := stringBehind(text, value); password.from < password.to {
		r.hide(v, password.from, password.to, RuleName) // password "HTTP Proxy" "X" of OpenVPN
	}
	if !value.quoted || isPlaceholder(value.of(text)) || bytes.IndexByte(value.of(text), ' ') >= 0 {
		return pos + 1
	}
	r.hide(v, value.from, value.to, RuleName)
	return value.next
}

// stringBehind returns the string that stands behind the string first and blanks, if it may be a password: it is none of
// several words. It is empty if there is none.
func stringBehind(text []byte, first valueRange) (second valueRange) {
	start := skipBlanks(text, first.next)
	if !first.quoted || start == first.next {
		return valueRange{}
	}
	second = readValue(text, start, false)
	if content := second.of(text); !second.quoted || isPlaceholder(content) || bytes.IndexByte(content, ' ') >= 0 {
		return valueRange{}
	}
	return second
}

// isIdentifiedBy reports whether text ends with the words in front of a password of SQL.
func isIdentifiedBy(text []byte) bool {
	const words = "identified by"
	return len(text) >= len(words) && bytes.EqualFold(text[len(text)-len(words):], []byte(words))
}

// passwordWord reports whether a word in front of a string says that the string is a password.
func passwordWord(word []byte) bool {
	switch class := classOf(word); class {
	case strong:
		return true
	case prose:
		return !isOneFold(word, []string{"token", "signature", "secret"})
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

// endsWithSetting reports whether text ends with one of the words of hideSetting.
func endsWithSetting(text []byte) bool {
	for _, word := range settingWords[:3] {
		if bytes.HasSuffix(text, []byte(word)) {
			return true
		}
	}
	return false
}

// skipQuoteAndBlank returns the offset behind a closing quote and blanks: "requirepass" "X".
func skipQuoteAndBlank(text []byte, pos int) int {
	if isQuote(text[pos]) {
		pos++
	}
	return skipBlanks(text, pos)
}

// hideAuth hides the arguments of the AUTH at pos. Of Redis it has a password, or a user and a password; of
// SMTP a mechanism and the credentials.
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
