package redact

import (
	"bytes"
	"slices"
)

// maxPhraseWords bounds the words of a sentence between the name of a secret and the secret.
const maxPhraseWords = 12

// linkWords are the words in front of a secret in a sentence: password is X, token set to X.
var linkWords = [...]string{
	"is", "was", "to", "as", "are", "be", "=", "->", "=>", "<-", "<<<", "value", "changed", "now",
	"ist", "lautet", "es", "est", "é", "är",
}

// linkMarks are those of linkWords that assign a value to a technical name.
var linkMarks = [...]string{"->", "=>", "<<<", "="}

// assigningWords are the words in front of a name that is given a value behind a blank: ENV DB_PASSWORD X.
var assigningWords = [...]string{
	"env", "set", "setx", "setenv", "config", "export", "arg", "env:", "put", "requirepass",
}

// headingWords are the words in front of the name of a secret in a heading: Initial admin password for bob:
// X.
var headingWords = [...]string{
	"a", "the", "your", "my", "new", "temporary", "temp", "initial", "default", "generated", "random", "root",
	"admin", "administrator",
	"user", "current", "old", "one-time", "login", "database", "db", "auto-generated", "bootstrap",
	"superuser", "access", "api", "enter",
}

// levelWords are the levels of log lines, behind which a message begins.
var levelWords = [...]string{"info", "warn", "warning", "debug", "error", "trace", "notice", "fatal", "note"}

// A phrasePass hides the secrets of sentences, whose names have no mark behind them.
type phrasePass struct {
	*Redactor
	view
}

// A secretName is the name of a secret in a sentence.
type secretName struct {
	from, end int
	class     class
	technical bool // a word that is none of prose: db_password, PASSWORD
	password  bool // not that of a token, whose words prose has more often
	session   bool // session id
}

// hidePhrases hides the secrets that stand behind their names in a sentence: set password X for bob, the
// password for bob is: X.
func (r *Redactor) hidePhrases(v view) {
	pass := phrasePass{r, v}
	text := v.text
	for i := 0; i < len(text); {
		if folded[text[i]] == 0 {
			i++
			continue
		}
		from := i
		for i < len(text) && folded[text[i]] != 0 {
			i++
		}
		if i == len(text) {
			continue
		}
		if digits, to := codeSecret(text, from, i); to > 0 {
			r.hide(v, digits, to, RuleName)
			i = to
			continue
		}
		if text[i] == ' ' {
			if password, to := ircSecret(text, from, i); to > 0 {
				r.hide(v, password, to, RuleName)
				i = to
				continue
			}
		}
		if text[i-1] == '.' {
			i = pass.hideLed(from, i)
			continue
		}
		switch text[i] {
		case ' ', '\t', '|', ',', ';', '>', '/':
		case ':':
			if isLoginWord(text[from:i]) {
				i = pass.hideLogin(i)
			}
			continue
		case '(':
			if beginsStrings(text, i) && isSecretCall(text[from:i], r.names.classOf(text, from, i)) {
				i = pass.hideStrings(i)
			} else if password, to := connectSecret(text, i); to > 0 {
				r.hide(v, password, to, RuleName)
				i = to
			} else if isCipherCall(text, i) {
				names := namePass{Redactor: r, view: v}
				i = names.hideLiterals(i)
			} else if isLoginCall(text[from:i]) {
				if from, to := secondArgument(text, i); to > 0 {
					r.hide(v, from, to, RuleName)
					i = to
				}
			}
			continue
		case '"', '\'', '`', '\\':
			i = pass.readQuotedName(from, i)
			continue
		default:
			continue
		}
		if isLoginWord(text[from:i]) {
			i = pass.hideLogin(i)
			continue
		}
		class := r.names.classOf(text, from, i)
		if class >= everyday {
			if end := secondWordEnd(text, i); end > i {
				class, _ = nameOfTwoWords(text, i+1, end)
				isSession := bytes.EqualFold(text[from:end], []byte("session id"))
				i = pass.readName(secretName{from: from, end: end, class: class, password: class == strong, session: isSession})
				continue
			}
		}
		if class >= prose && text[from] != '-' {
			i = pass.readName(newSecretName(text, from, i, class))
		} else if class == everyday && isNameOfTwoWords(text, from, i) {
			i = pass.readName(secretName{from: from, end: i, class: prose})
		}
	}
}

// minLeader is the number of dots of a leader between a name and its value.
const minLeader = 3

// hideLed hides the value behind the name text[from:end], which ends with a leader, and returns the offset at
// which to continue: password......... "X".
func (p *phrasePass) hideLed(from, end int) int {
	text := p.text
	nameEnd := from + len(bytes.TrimRight(text[from:end], "."))
	if end-nameEnd < minLeader || !p.names.classOf(text, from, nameEnd).isSecret() {
		return end
	}
	start := skipBlanks(text, end)
	if start == len(text) {
		return end
	}
	value := readArgument(text, start)
	if isPlaceholder(value.of(text)) || !value.quoted && !looksGenerated(value.of(text), len("secret")) {
		return end
	}
	p.hide(p.view, value.from, value.to, RuleName)
	return max(value.next, end)
}

// hideStrings hides the strings in the brackets at pos, and returns the offset behind them.
func (p *phrasePass) hideStrings(pos int) int {
	pass := namePass{Redactor: p.Redactor, view: p.view}
	return pass.hideLiterals(pos)
}

// newSecretName returns the name text[from:end].
func newSecretName(text []byte, from, end int, class class) secretName {
	name := secretName{from: from, end: end, class: class}
	s := shapeOf(text[from:end])
	word := text[from:end]
	name.technical = class == strong &&
		(s.separators > 0 || s.humps > 0 || isUpper(word) || bytes.HasSuffix(word, []byte("pw")))
	name.password = class != header && containsWord(word, passwordWordsBy) && string(word) != "pass"
	return name
}

var passwordWordsBy = newWordTable([]string{"pass", "pwd", "psw", "pw", "kennwort"})

// isUpper reports whether a name has no small letters.
func isUpper(name []byte) bool {
	for _, c := range name {
		if c >= 'a' && c <= 'z' {
			return false
		}
	}
	return true
}

// readName hides the secret behind name, and returns the offset at which to continue.
func (p *phrasePass) readName(name secretName) int {
	text, end := p.text, name.end
	switch {
	case end == len(text):
		return end
	case text[end] == '|' && isCell(text, name.from):
		if next := p.hideCell(name, end+1); next > end+2 {
			return next
		}
		return p.hideCandidate(name, end+1, len("secret"))
	case text[end] == '|' || text[end] == ',' || text[end] == ';':
		if name.technical && endsPreamble(lastWord(text[max(0, name.from-maxName):name.from])) && p.isLastWord(end+1) {
			return p.hideWord(end + 1)
		}
		return p.hideCandidate(name, end+1, len("secret"))
	case text[end] == '>':
		if text[end-1] == '-' {
			return p.hideCandidate(name, end+1, len("secret"))
		}
		return end
	case text[end] == '/':
		return end
	case name.class == header:
		return p.hideCredentials(end)
	}
	start := skipBlanks(text, end)
	if start < len(text) && text[start] == '|' {
		return p.hideCell(name, start+1)
	}
	word := wordAt(text, start)
	if len(word) == 0 && start == len(text) {
		return end
	}
	if text[end] == '\t' && name.password && p.isLastWord(start) && isValueOfPair(word, strong, true) &&
		endsPreamble(lastWord(text[max(0, name.from-maxName):name.from])) {
		return p.hideWord(start) // a table
	}
	if p.isAssigned(name, start, word) {
		value := readArgument(text, start)
		if value.from < value.to && !isPlaceholder(value.of(text)) && !isProseWord(value.of(text)) {
			p.hide(p.view, value.from, value.to, RuleName)
			return value.next
		}
		return end
	}
	if len(word) == 1 && isDigitAt(word, 0) {
		return p.hideRouterPassword(name, skipBlanks(text, start+1))
	}
	if next := p.hideCandidate(name, start, name.minimum()); next > start {
		if behind := skipBlanks(text, next); behind > next && name.password && p.isLastWord(behind) {
			return max(next, p.hideCandidate(name, behind, name.minimum())) // diff password X Y
		}
		return next
	}
	if bytes.EqualFold(text[name.from:name.end], []byte("pass")) {
		return end // a verb
	}
	return p.readSentence(name, start)
}

// routerCommands are the commands of routers with a password, its encoding in front of it.
var routerCommands = [...]string{"username ", "enable ", "ppp ", "neighbor "}

// hideRouterPassword hides the word at pos, which stands behind a name and a digit in the configuration of a router: username
// bob password 7 X. It returns the offset at which to continue.
func (p *phrasePass) hideRouterPassword(name secretName, pos int) int {
	front, word := p.text[max(0, name.from-maxName):name.from], wordAt(p.text, pos)
	isSetting := slices.ContainsFunc(routerCommands[:], func(command string) bool { return bytes.Contains(front, []byte(command)) })
	if len(word) == 0 || !p.isLastWord(pos) || !isSetting && !looksGenerated(word, len("secrets!")) {
		return name.end
	}
	p.hide(p.view, pos, pos+len(word), RuleName)
	return pos + len(word)
}

// hideWord hides the word at pos, which is the value of a technical name, and returns the offset at which to
// continue.
func (p *phrasePass) hideWord(pos int) int {
	value := readArgument(p.text, pos)
	if word := value.of(p.text); isPlaceholder(word) || isProseWord(word) {
		return pos
	}
	p.hide(p.view, value.from, value.to, RuleName)
	return max(value.next, pos)
}

// isCell reports whether the text at pos begins a cell of a table: a line in front of it is open.
func isCell(text []byte, pos int) bool {
	for pos > 0 && (text[pos-1] == ' ' || text[pos-1] == '\t') {
		pos--
	}
	return byteBefore(text, pos) == '|'
}

// hideCell hides the cell of a table at pos, behind that with the name, and returns the offset at which to
// continue.
func (p *phrasePass) hideCell(name secretName, pos int) int {
	text := p.text
	if pos < len(text) && text[pos] == '|' { // of a heading
		pos++
	}
	from := skipBlanks(text, pos)
	to := from
	for to < len(text) && text[to] != '|' && text[to] != '\n' && text[to] != '"' && text[to] != '\\' &&
		text[to] != '<' && to-from < maxScanned {
		to++
	}
	behind := bytes.TrimLeft(text[to:min(len(text), to+maxShort)], " |\t\r")
	isLast := len(behind) == 0 || bytes.IndexByte([]byte("\"'\\\n<"), behind[0]) >= 0
	word := bytes.TrimRight(text[from:to], " \t")
	front := bytes.TrimRight(text[max(0, name.from-maxShort):name.from], " \t")
	row := bytes.TrimRight(front, " |\t")
	isFirst := len(row) == 0 || row[len(row)-1] == '\n' || isQuote(row[len(row)-1]) || endsPreamble(lastWord(row))
	isFirst = isFirst && (len(front) == len(row) || bytes.IndexByte(front[len(row):], '|') >= 0 || endsPreamble(lastWord(front)))
	pair := isFirst && (isLast || name.technical) && !isOneOf(word, harmless[:])
	class := strong
	if !name.password && !name.technical {
		class = prose
	}
	if !isValueOfPair(word, class, pair) {
		return pos
	}
	p.hide(p.view, from, from+len(word), RuleName)
	return to
}

// hideWholeWord hides the word at pos, with all its punctuation, and returns the offset behind it.
func (p *phrasePass) hideWholeWord(pos int) int {
	end := pos
	for end < len(p.text) && p.text[end] > ' ' && p.text[end] != '"' && !beginsEndTag(p.text, end) {
		end++
	}
	if word := p.text[pos:end]; isPlaceholder(word) || isProseWord(word) {
		return pos
	}
	p.hide(p.view, pos, end, RuleName)
	return end
}

// minimum returns the minimum length of a secret of that name that stands directly behind it.
func (n *secretName) minimum() int {
	if n.password {
		return len("secret")
	}
	return len("secrets!")
}

// wordAt returns the word at pos, without the punctuation behind it. It ends with the string that holds it.
func wordAt(text []byte, pos int) []byte {
	end := pos
	for end < len(text) && end-pos <= maxScanned && text[end] > ' ' && text[end] != '"' && text[end] != '\\' &&
		!beginsEndTag(text, end) {
		end++
	}
	return bytes.TrimRight(text[pos:end], ",.;:!?)]}>\"'`")
}

// beginsEndTag reports whether an end tag of XML begins at pos.
func beginsEndTag(text []byte, pos int) bool {
	return text[pos] == '<' && pos+1 < len(text) && text[pos+1] == '/'
}

// hideCandidate hides the word at pos if it looks like a secret of that name, and returns the offset behind it, or pos.
func (p *phrasePass) hideCandidate(name secretName, pos, atLeast int) int {
	word := wordAt(p.text, pos)
	if !looksGenerated(word, atLeast) || !name.password && !hasDigitInside(word) {
		return pos
	}
	p.hide(p.view, pos, pos+len(word), RuleName)
	return pos + len(word)
}

// hasDigitInside reports whether a word has a letter behind a digit, or is longer than the words of prose.
func hasDigitInside(word []byte) bool {
	s := shapeOf(word)
	return s.digitInside || len(word) >= 18
}

// hasAssigningCommand reports whether front has a command behind which the word password has a value.
func hasAssigningCommand(front []byte) bool {
	return bytes.Contains(front, []byte("mysqladmin ")) || bytes.Contains(front, []byte("nmcli ")) ||
		bytes.Contains(front, []byte("pdftk "))
}

// isAssigned reports whether word, which begins at start, is given to name as a value: ENV PASSWORD X; db_password X.
func (p *phrasePass) isAssigned(name secretName, start int, word []byte) bool {
	command := string(p.text[name.from:name.end]) == "PASS" // of FTP, POP3 and IRC
	front := p.text[max(0, name.from-maxName):name.from]
	isMember := byteBefore(p.text, name.from) == ':' && beginsSettingAt(p.text, start) // {Password:myPw Port:5}
	if len(word) == 0 || isMember || isOneOf(word, linkMarks[:]) || isOneFold(word, []string{"to"}) ||
		!name.technical && !command && !hasAssigningCommand(front) {
		return false
	}
	last := lastWord(front)
	for len(last) > 0 && last[0] == '-' { // set -x NAME value
		front = front[:len(bytes.TrimRight(front, " \t"))-len(last)]
		last = lastWord(front)
	}
	if isOneFold(last, assigningWords[:]) || name.password && hasAssigningCommand(front) {
		return true
	}
	if !endsPreamble(last) || !p.isLastWord(start) {
		return false
	}
	if command {
		return !bytes.ContainsAny(word, "./:")
	}
	text := p.text[name.from:name.end]
	return (text[0] >= 'a' && text[0] <= 'z' || bytes.IndexByte(text, '_') > 0) && word[0] != '('
}

// readSentence hides the secret in the words from start on, the first of which is no secret: … is X, … for bob: X. It
// returns the offset at which to continue.
func (p *phrasePass) readSentence(name secretName, start int) int {
	text := p.text
	limit := min(len(text), start+maxPhrase)
	var stated statedName
	isGenerated := false // A temporary password is generated for root@localhost: X
	for pos, words := start, 0; pos < limit && words < maxPhraseWords; words++ {
		end := pos
		for end < limit && text[end] > ' ' {
			end++
		}
		word := text[pos:end]
		if len(word) == 0 || isQuote(word[0]) {
			break
		}
		colon := word[len(word)-1] == ':'
		if last := word[len(word)-1]; last == '.' || last == '!' || last == '?' || last == ';' {
			break
		}
		pos = skipBlanks(text, end)
		if stated.words = words; words == 0 {
			stated.first = word
		}
		isStated := (name.password || name.session) && stated.isStated(word)
		if isOneFold(word, []string{"from"}) && isOneFold(stated.last, changeWords[:]) {
			if next := p.hideChange(name, pos); next > pos {
				return next
			}
		}
		stated.last = word
		isGenerated = isGenerated || isOneFold(word, []string{"generated"})
		if pos >= limit || !colon && !isOneFold(word, linkWords[:]) {
			continue
		}
		if colon && isOneFold(word[:len(word)-1], harmless[:]) {
			break // signature algorithm: …
		}
		if colon && name.password && isGenerated && p.isLastWord(pos) {
			return p.hideWholeWord(pos)
		}
		if next := p.hideStated(name, pos, colon); next > pos {
			return next
		}
		if isStated {
			if next := p.hidePlainWord(pos); next > pos {
				return next
			}
		}
		isSet := name.technical && isOneFold(word, []string{"to"}) &&
			isOneFold(lastWord(text[max(0, name.from-maxName):name.from]), assigningWords[:])
		if words == 0 && (isSet || (name.technical || name.password) && isOneOf(word, linkMarks[:])) && p.isLastWord(pos) {
			if value := readArgument(text, pos); isValueOfPair(value.of(text), strong, true) {
				return p.hideWord(pos)
			}
		}
		if colon && bytes.IndexByte(text[start:end-1], ':') < 0 && p.isHeading(name, words) && p.isLastWord(pos) {
			value := readArgument(text, pos)
			if !isPlaceholder(value.of(text)) && !isProseWord(value.of(text)) {
				p.hide(p.view, value.from, value.to, RuleName)
				return value.next
			}
		}
	}
	return name.end
}

// hideChange hides both secrets of a change, the first of which is at pos: 'X' to 'Y'. It returns the offset at which to
// continue.
func (p *phrasePass) hideChange(name secretName, pos int) int {
	const to = " to "
	old := readArgument(p.text, pos)
	second := old.next + len(to)
	if second >= len(p.text) || string(p.text[old.next:second]) != to {
		return pos
	}
	changed := readArgument(p.text, second)
	for _, value := range [...]valueRange{old, changed} {
		word := value.of(p.text)
		if isPlaceholder(word) || isProseWord(word) || !value.quoted && !looksGenerated(word, name.minimum()) {
			continue
		}
		p.hide(p.view, value.from, value.to, RuleName)
	}
	return max(changed.next, pos)
}

// readQuotedName hides the secrets of a change behind the name text[from:end], which is in quotes: "password" changed from
// 'X' to 'Y'. It returns the offset at which to continue.
func (p *phrasePass) readQuotedName(from, end int) int {
	behind := end
	for behind < len(p.text) && (p.text[behind] == '\\' || isQuote(p.text[behind])) {
		behind++
	}
	word := wordAt(p.text, skipBlanks(p.text, behind))
	if !isOneFold(word, changeWords[:]) {
		return end
	}
	class := p.names.classOf(p.text, from, end)
	if class < prose {
		return end
	}
	if next := p.readSentence(newSecretName(p.text, from, end, class), skipBlanks(p.text, behind)); next > end {
		return next
	}
	return end
}

// hideStated hides the word at pos, behind a colon or a link word, if it is a secret, and returns the offset behind it,
// or pos.
func (p *phrasePass) hideStated(name secretName, pos int, colon bool) int {
	text := p.text
	open := pos
	for open < len(text) && text[open] == '\\' {
		open++
	}
	if open < len(text) && isQuote(text[open]) {
		value := readValue(text, pos, false)
		word := value.of(text)
		isWord := len(word) >= minSecret && bytes.IndexByte(word, ' ') < 0 && !isPlaceholder(word) && !isProseWord(word) &&
			pairClass(word) == noSecret
		if isWord && (name.password || looksGenerated(word, len("secrets!")) && hasDigitInside(word)) {
			p.hide(p.view, value.from, value.to, RuleName)
			return value.next
		}
		return pos
	}
	if isOneFold(text[name.from:name.end], []string{"code"}) {
		if word := wordAt(text, pos); isCode(word) {
			p.hide(p.view, pos, pos+len(word), RuleName)
			return pos + len(word)
		}
	}
	atLeast := len("secret")
	if colon && name.password {
		atLeast = minSecret
	}
	return p.hideCandidate(name, pos, atLeast)
}

// isHeading reports whether the text in front of a colon is a heading, not a message: Initial password for bob: X.
// words is the number of words between name and colon.
func (p *phrasePass) isHeading(name secretName, words int) bool {
	if !name.password || words > 2 {
		return false
	}
	front := p.text[max(0, name.from-maxName):name.from]
	for {
		last := lastWord(front)
		if endsPreamble(last) {
			return true
		}
		if !isOneFold(last, headingWords[:]) {
			return false
		}
		front = front[:len(bytes.TrimRight(front, " \t"))-len(last)]
	}
}

// lastWord returns the word at the end of text, in front of blanks.
func lastWord(text []byte) []byte {
	text = bytes.TrimRight(text, " \t")
	if i := bytes.LastIndexAny(text, " \t\n\"'"); i >= 0 {
		text = text[i+1:]
	}
	return text
}

// endsPreamble reports whether a message begins behind a word: there is none, or it is punctuation, a level, a time, or
// the name of a component.
func endsPreamble(word []byte) bool {
	if len(word) == 0 || isOneFold(word, levelWords[:]) || isDigitAt(word, 0) {
		return true
	}
	return bytes.IndexByte([]byte(":]>|-#*"), word[len(word)-1]) >= 0
}

// isLastWord reports whether the word at pos is the last of its line.
func (p *phrasePass) isLastWord(pos int) bool {
	for pos < len(p.text) && p.text[pos] > ' ' && p.text[pos] != '"' && !beginsEndTag(p.text, pos) {
		pos++
	}
	end := skipBlanks(p.text, pos)
	return end == len(p.text) || bytes.IndexByte([]byte("\"\n\r<"), p.text[end]) >= 0
}

// hideCredentials hides the word behind a scheme behind pos: Authorization Bearer X.
func (p *phrasePass) hideCredentials(pos int) int {
	start := skipBlanks(p.text, pos)
	n := schemeLength(p.text[start:])
	if n == 0 || !isScheme(p.text[start:start+n]) {
		return pos
	}
	value := readArgument(p.text, start+n)
	if word := value.of(p.text); len(word) < minBearer || !looksGenerated(word, minBearer) {
		return pos
	}
	p.hide(p.view, value.from, value.to, RuleHeader)
	return max(value.next, pos)
}

// isLoginWord reports whether user/password may stand behind a word.
func isLoginWord(word []byte) bool {
	return isOneFold(word, []string{"login", "logon", "sqlplus", "credentials", "impdp", "expdp"})
}

// loginAttempt is the text between the word login and user/password in the logs of honeypots: login attempt
// [b'root'/b'X'] failed.
var loginAttempt = []byte(" attempt [")

// attemptedSecret returns the password of user/password] at pos, both of which may be literals of Python.
func attemptedSecret(text []byte, pos int) (from, to int) {
	line := text[pos:min(len(text), pos+maxPhrase)]
	slash, end := bytes.IndexByte(line, '/'), bytes.IndexByte(line, ']')
	if slash < 0 || end < slash {
		return 0, 0
	}
	word := line[slash+1 : end]
	if from = pos + slash + 1; len(word) > 3 && word[0] == 'b' && isQuote(word[1]) {
		from += 2
		word = word[2 : len(word)-1]
	}
	if isPlaceholder(word) {
		return 0, 0
	}
	return from, from + len(word)
}

// loginCalls are the functions that get a user and a password. Each contains a needle.
var loginCalls = [...]string{
	"login", "logon", "signin", "sign_in", "authenticate", "dologin", "do_login", "userlogin", "user_login", "loginuser", "login_user",
}

// isLoginCall reports whether name, of a function or a method, is one of loginCalls.
func isLoginCall(name []byte) bool {
	return isOneFold(name[bytes.LastIndexByte(name, '.')+1:], loginCalls[:])
}

// secondArgument returns the second argument of the call whose bracket is at pos, a string that may be a password; to is
// 0 if there is none.
func secondArgument(text []byte, pos int) (from, to int) {
	if !beginsStrings(text, pos) {
		return 0, 0
	}
	first := readValue(text, pos+1, false)
	if !first.quoted || first.next >= len(text) || text[first.next] != ',' {
		return 0, 0
	}
	second := readValue(text, first.next+1, false)
	word := second.of(text)
	if !second.quoted || len(word) < minSecret || bytes.IndexByte(word, ' ') >= 0 || isPlaceholder(word) || isProseWord(word) {
		return 0, 0
	}
	return second.from, second.to
}

// credentialSecret returns the secret behind the word credentials, which ends at pos, of with credentials X and using
// credentials bob:X; to is 0 if there is none.
func credentialSecret(text []byte, pos int) (from, to int) {
	front := pos - len("credentials")
	if front < 0 || !equalLower(text[front:pos], "credentials") ||
		!isOneFold(lastWord(text[max(0, front-maxName):front]), []string{"with", "using"}) {
		return 0, 0
	}
	from = skipBlanks(text, pos)
	word := wordAt(text, from)
	if colon := bytes.IndexByte(word, ':'); colon > 0 && len(nameAtEnd(word[:colon])) == colon {
		from += colon + 1
		word = word[colon+1:]
	}
	s := shapeOf(word)
	if from == pos || !looksGenerated(word, len("secret")) || !s.digitInside && s.humps == 0 && !hasInnerSymbol(word) {
		return 0, 0
	}
	return from, from + len(word)
}

// hideLogin hides the password of user/password behind pos, and returns the offset at which to continue.
func (p *phrasePass) hideLogin(pos int) int {
	from, to := loginSecret(p.text, pos)
	if to == 0 {
		from, to = credentialSecret(p.text, pos)
	}
	if to == 0 {
		return pos
	}
	p.hide(p.view, from, to, RuleName)
	return to
}

// startTLS is the command in front of the LOGIN of an IMAP command in logs that leave the tags out.
var startTLS = []byte("STARTTLS")

// imapLogin is a command of IMAP, RFC 9051 §6.2.3: a1 LOGIN bob X.
var imapLogin = []byte(" LOGIN ")

// isImapLogin reports whether the word that ends at pos is the LOGIN of an IMAP command. Its tag has few letters and then
// digits.
func isImapLogin(text []byte, pos int) bool {
	front := pos - len(imapLogin) + 1
	if front < 0 || !bytes.HasPrefix(text[front:], imapLogin) {
		return false
	}
	if bytes.HasSuffix(text[:front], startTLS) {
		return true
	}
	number := front
	for number > 0 && isDigitAt(text, number-1) {
		number--
	}
	tag := number
	for tag > 0 && number-tag <= 4 && isLetter(text[tag-1]) {
		tag--
	}
	before := byteBefore(text, tag)
	return number < front && tag < number && number-tag <= 4 && (before <= ' ' || isQuote(before))
}

// imapSecret returns the password of an IMAP command whose word LOGIN ends at pos, which ends the text; to is 0 if it is
// none.
func imapSecret(text []byte, pos int) (from, to int) {
	if !isImapLogin(text, pos) {
		return 0, 0
	}
	user := readArgument(text, pos)
	if isProseWord(user.of(text)) || user.next >= len(text) || text[user.next] != ' ' {
		return 0, 0
	}
	password := readArgument(text, user.next)
	word := password.of(text)
	isAddress := bytes.ContainsAny(word, ".:") && len(bytes.Trim(word, "0123456789.:")) == 0
	if len(word) < minSecret || isPlaceholder(word) || isProseWord(word) || isAddress {
		return 0, 0
	}
	if rest := text[password.next:]; len(rest) > 0 && rest[0] > '\r' && !isQuote(rest[0]) && rest[0] != '\\' {
		return 0, 0
	}
	return password.from, password.to
}

// loginSecret returns the password of user/password behind pos; to is 0 if there is none. A host may be behind it.
func loginSecret(text []byte, pos int) (from, to int) {
	if bytes.HasPrefix(text[pos:], loginAttempt) {
		return attemptedSecret(text, pos+len(loginAttempt))
	}
	if from, to = imapSecret(text, pos); to > 0 {
		return from, to
	}
	if pos < len(text) && text[pos] == ':' {
		pos++
	}
	start := skipBlanks(text, pos)
	from = start
	for from < len(text) && folded[text[from]] > separator {
		from++
	}
	if from == start || start == pos || from == len(text) {
		return 0, 0
	}
	const apart = " / "
	isApart := bytes.HasPrefix(text[from:], []byte(apart))
	switch {
	case isApart:
		from += len(apart)
	case text[from] == '/':
		from++
	default:
		return 0, 0
	}
	word := wordAt(text, from)
	if isApart && (len(word) == 0 || !hasDigitInside(word) && !hasInnerSymbol(word)) {
		return 0, 0
	}
	if at := bytes.LastIndexByte(word, '@'); at > 0 {
		word = word[:at]
		return from, from + len(word)
	}
	if bytes.IndexByte(word, '/') >= 0 && len(word) < 12 || !looksGenerated(word, len("secret")) {
		return 0, 0
	}
	return from, from + len(word)
}
