package redact

import "bytes"

// Line returns a line of a log without its secrets, and reports whether there were any. data is not changed.
//
// It hides the values with the names of secrets, the credentials in fields like Authorization and Cookie and
// in the options of commands, tokens and keys of known forms, and everything in a URL or a statement that URL
// or SQL hides. It keeps the user's name in user:password@.
func (r *Redactor) Line(data []byte) ([]byte, bool) {
	r.findLine(data)
	if len(r.spans) == 0 {
		return data, false
	}
	return r.replaced(data), true
}

// findLine sets r.spans to the secrets of a line.
func (r *Redactor) findLine(data []byte) {
	r.spans, r.nameEnds = r.spans[:0], false
	if r.mayHoldSecret(data) {
		r.nameEnds = true
		r.readText(view{text: data}, 0)
	}
	if mayBePasswordLine(data) {
		r.hidePasswordLine(data)
	}
}

// readText hides the secrets of a text, and of the decoded forms of it.
func (r *Redactor) readText(v view, depth int) {
	if depth < maxDepth && bytes.IndexByte(v.text, '\x1b') >= 0 {
		v = r.decoded(v, depth, decodeColour)
		depth++
	}
	r.hideStatementParameters(v) // the statement may be in another member of a document
	if r.readJSON(v, depth) {
		return
	}
	r.hideNamed(v)
	r.hideForeign(v)
	r.hidePairs(v)
	r.hideCalled(v)
	r.hideFlags(v)
	r.hidePiped(v)
	r.hideRedis(v)
	r.hidePhrases(v)
	r.hidePatterns(v)
	r.hideURLs(v)
	r.hideBareUserInfo(v)
	r.hideStatements(v)
	r.hideBareTables(v)
	r.hidePasswordFile(v)
	if depth == maxDepth {
		return
	}
	if !r.holdsNeedle(v.text) {
		return
	}
	if hasEscapes(v.text) {
		r.readText(r.decoded(v, depth, decodeEscape), depth+1)
	}
	if hasPercent(v.text) {
		r.readText(r.decoded(v, depth, decodePercent), depth+1)
	}
	if depth < maxRare && hasEntity(v.text) {
		r.readText(r.decoded(v, depth, decodeEntity), depth+1)
	}
	if depth < maxRare && hasFormBlank(v.text) {
		r.readText(r.decoded(v, depth, decodeForm), depth+1)
	}
	if depth < maxRare && hasWide(v.text) {
		r.readText(r.decoded(v, depth, decodeWide), depth+1)
	}
	if depth < maxRare && hasDoubled(v.text) {
		r.readText(r.decoded(v, depth, decodeDoubled), depth+1)
	}
}

// A namePass is the state of hideNamed.
type namePass struct {
	*Redactor
	view
	quotesTo int  // the text up to here was searched for double quotes
	inString bool // a string in double quotes is open there

	beside   class      // of the name that stands beside a value: name=DB_PASSWORD value=X
	besideTo int        // where it ends
	early    valueRange // the last value in front of its name: value=X name=DB_PASSWORD

	isStated bool          // the name beside a value is that of a password, in a string or in front of a message
	changed  [2]valueRange // the last values of changeMembers: "old":"X","new":"Y","field":"password"

	serial    class // of the last key of a serialized document
	serialKey bool  // the last string of such a document was a key
	serialTo  int   // where it ends
}

// hideNamed hides the values behind = and : with the names of secrets, and the texts of elements of XML.
func (r *Redactor) hideNamed(v view) {
	pass := namePass{Redactor: r, view: v}
	for i := 0; i < len(v.text); {
		switch v.text[i] {
		case '=', ':':
			i = pass.readMark(i)
		case '>':
			i = pass.readElement(i)
		default:
			i++
		}
	}
}

// stringAt reports whether text[pos] is in a string in double quotes. Calls have growing positions.
func (p *namePass) stringAt(pos int) bool {
	for ; p.quotesTo < pos; p.quotesTo++ {
		switch p.text[p.quotesTo] {
		case '\\':
			p.quotesTo++
		case '"':
			p.inString = !p.inString
		}
	}
	return p.inString
}

// maxQuotes bounds the quotes and backslashes between a name and its mark.
const maxQuotes = 16

// nameBefore returns the name that ends before the mark at pos, and whether quotes are around it.
func nameBefore(text []byte, pos int) (name []byte, quoted bool) {
	from, end, quoted := nameBounds(text, pos)
	return text[from:end], quoted
}

// nameBounds returns the offsets of the name of nameBefore.
func nameBounds(text []byte, pos int) (from, end int, quoted bool) {
	end = pos
	for end > 0 && pos-end < 4 && (text[end-1] == ' ' || text[end-1] == '\t') {
		end--
	}
	if end > 1 && (text[end-1] == ']' || text[end-1] == '}' || text[end-1] == ')') && isQuote(text[end-2]) {
		end-- // ENV['DB_PASS'] = …
	}
	for limit := end - maxQuotes; end > max(0, limit) && (text[end-1] == '\\' || isQuote(text[end-1])); {
		end--
		quoted = true
	}
	from = end
	for from > 0 && end-from < maxName && folded[text[from-1]] != 0 {
		from--
	}
	return from, end, quoted
}

// nameAtEnd returns the name at the end of text, which has no other bytes behind it.
func nameAtEnd(text []byte) []byte {
	from := len(text)
	for from > 0 && folded[text[from-1]] != 0 {
		from--
	}
	return text[from:]
}

// readMark reads the = or : at pos, hides the value behind it if its name is that of a secret, and returns
// the offset at which to continue.
func (p *namePass) readMark(pos int) int {
	text := p.text
	switch {
	case pos > 0 && text[pos] == ':' && isSerialized(text, pos):
		return p.readSerialized(pos)
	case text[pos] == ':' && isNumberedKey(text[:pos]):
		value := readValue(text, pos+1, p.stringAt(pos))
		if key := value.of(text); len(key) >= minNumberedKey && base64End(key, 0) == len(key) && shapeOf(key).digits > 0 {
			p.hide(p.view, value.from, value.to, RuleName)
		}
		return max(value.next, pos+1)
	case pos == 0, text[pos] == ':' && isTime(text, pos):
		return pos + 1
	}
	class := p.names.classAt(text, pos)
	switch {
	case (class == noSecret || class == beside) && text[pos] == '=':
		class = max(class, p.names.declaredClass(text, pos))
	case class == everyday:
		if next := p.hideNamedByTwoWords(pos); next > 0 {
			return next
		}
	}
	if class == noSecret {
		from, end, quoted := nameBounds(text, pos)
		switch two, _ := nameOfTwoWords(text, from, end); {
		case two == strong && !quoted:
			return p.hideMarked(pos, strong) // pass phrase: X
		case two != noSecret:
			if next := p.hideNamedByTwoWords(pos); next > 0 {
				return next // session id: X
			}
		}
	}
	name, quoted := nameBefore(text, pos)
	if class == noSecret && text[pos] == '=' && string(name) == "response" && isResponseOfDigest(text, pos) {
		return p.hideMarked(pos, strong)
	}
	if class == noSecret && isChangeMember(name) {
		return p.readChange(pos, quoted)
	}
	if !class.isSecret() && class != beside && class != everyday {
		return p.noteName(pos)
	}
	if class == beside && len(name) == 1 && (!quoted || !isQuotedName(text, pos)) {
		return pos + 1 // v: X
	}
	if class == beside && !p.beside.isSecret() {
		p.early = readValue(text[:min(len(text), pos+maxScanned)], pos+1, p.stringAt(pos) && !quoted)
	}
	if class == beside && p.beside.isSecret() && p.isBeside(pos) {
		class = p.beside
	}
	if !class.isSecret() && !isSessionName(name) {
		return p.noteName(pos)
	}

	return p.hideMarked(pos, class)
}

// minNumberedKey is the length of the shortest key of isNumberedKey.
const minNumberedKey = 12

// isNumberedKey reports whether text ends with the name of one of the keys that Vault prints at its initialization: Unseal Key
// 1, Recovery Key 5.
func isNumberedKey(text []byte) bool {
	if !isDigitAt(text, len(text)-1) {
		return false
	}
	text = bytes.TrimRight(text[max(0, len(text)-maxName):], "0123456789")
	for _, name := range [...]string{"unseal key ", "recovery key "} {
		if from := len(text) - len(name); from >= 0 && equalLower(text[from:], name) {
			return true
		}
	}
	return false
}

// isBeside reports whether the name in front of the mark at pos is beside the name of its value: in the same structure.
func (p *namePass) isBeside(pos int) bool {
	return pos-p.besideTo < maxName && bytes.IndexByte(p.text[min(p.besideTo, pos):pos], '}') < 0
}

// readChange hides the value behind the mark at pos, which has one of changeMembers as its name, if the name of a password
// stands beside it, and returns the offset at which to continue.
func (p *namePass) readChange(pos int, quoted bool) int {
	if p.beside == strong && p.isStated && p.isBeside(pos) {
		return p.hideMarked(pos, strong)
	}
	value := readValue(p.text[:min(len(p.text), pos+maxScanned)], pos+1, p.stringAt(pos) && !quoted)
	p.changed[0], p.changed[1] = p.changed[1], value
	return pos + 1
}

// isQuotedName reports whether a quote " begins the name before the mark at pos.
func isQuotedName(text []byte, pos int) bool {
	from, _, _ := nameBounds(text, pos)
	return byteBefore(text, from) == '"'
}

// isTime reports whether a time, or an address, is in front of the colon at pos. A name may end with digits: token2,
// Signature-256.
func isTime(text []byte, pos int) bool {
	if !isDigitAt(text, pos-1) || pos > 1 && text[pos-2] > '9' {
		return false
	}
	from := pos - 1
	for from > 0 && pos-from < 8 && isDigitAt(text, from-1) {
		from--
	}
	before := byteBefore(text, from)
	return before != '-' && before != '_' || !isLetter(byteBefore(text, from-1))
}

// hideMarked hides the value behind the mark at pos, whose name has that class, and returns the offset at which to
// continue.
func (p *namePass) hideMarked(pos int, class class) int {
	text := p.text
	name, quoted := nameBefore(text, pos)

	// The mark may have several characters: =>, :=, ==, ::.
	mark, start := text[pos], pos+1
	for start < len(text) && (text[start] == '=' || text[start] == ':' || text[start] == '>' && mark == '=') &&
		start < pos+3 {
		start++
	}
	if bytes.HasPrefix(text[pos:], []byte("://")) {
		return pos + 1
	}
	start = skipBlanks(text, start)
	if start == len(text) {
		return start
	}
	if class == header {
		return p.hideHeader(start, mark, quoted)
	}
	if text[start] == '{' && isSchema(text[start:]) {
		return start + 1
	}
	if (text[start] == '[' || text[start] == '{') && !isPrefix(text, start) {
		return p.hideStructure(start)
	}
	if call := callEnd(text, start); call > 0 {
		return p.hideLiterals(call)
	}
	inString := p.stringAt(start) && !quoted // a string may have begun before this text
	if inString && p.table != nil && text[start] == '"' && start+1 < len(text) && text[start+1] > ' ' {
		inString = false // a quote that was escaped
	}
	value := readValue(text, start, inString)
	if mark == ':' && isDeclared(text, value) {
		return start // password: string = …
	}
	if seedPhraseEnd(text, value.from) == 0 && p.isHarmless(name, class, mark, quoted, value, pos) {
		if words := p.endOfPassphrase(value, class, pos); words > value.to {
			p.hide(p.view, value.from, words, RuleName)
			return words
		}
		if class == strong && mark == ':' && !value.quoted {
			p.beside, p.besideTo, p.isStated = class, value.to, true
		}
		return start
	}
	from := value.from
	if n := schemeLength(text[from:value.to]); value.quoted && n > 0 && isScheme(text[from:from+n]) {
		from += n + 1
	}
	if second, ok := typedValue(text, value); ok {
		value.to, value.next = second.to, second.next
	}
	if !value.quoted && class == strong {
		value.to = max(p.endOfWords(value, pos), seedPhraseEnd(text, value.from))
		value.next = max(value.next, value.to)
	}
	p.hide(p.view, from, value.to, RuleName)
	if changed, ok := changedValue(text, value.next); ok {
		p.hide(p.view, changed.from, changed.to, RuleName)
		return max(changed.next, start)
	}
	return max(value.next, start)
}

// hideNamedByTwoWords hides the value behind the mark at pos if its name is of two words, private key: X, and
// returns the offset behind it; 0: it is not.
func (p *namePass) hideNamedByTwoWords(pos int) int {
	from, nameEnd, quoted := nameBounds(p.text, pos)
	if quoted || !isNameOfTwoWords(p.text, from, nameEnd) {
		return 0
	}
	value := readValue(p.text[:min(len(p.text), pos+2*maxScanned)], pos+1, p.stringAt(pos))
	content := value.of(p.text)
	switch end := seedPhraseEnd(p.text, value.from); {
	case end >= value.to:
		value.to, value.next = end, max(end, value.next)
	case isOneFold(p.text[from:nameEnd], []string{"code"}) && isCode(content):
	case !looksGenerated(content, len("secrets!")):
		return 0
	}
	p.hide(p.view, value.from, value.to, RuleName)
	return max(value.next, pos+1)
}

// noteName keeps the class of the value behind the mark at pos if it names a value beside it, and returns the offset at
// which to continue.
func (p *namePass) noteName(pos int) int {
	from, end, quoted := nameBounds(p.text, pos)
	name := p.text[from:end]
	if i := bytes.LastIndexByte(name, '['); i >= 0 {
		name = name[i+1:] // [map[name:PASSWORD value:X]]
	}
	if !isNameMember(name) {
		if value := p.quotedValue(pos, quoted); value.from < value.to && namesSecret(value.of(p.text)) {
			p.noteNamed(nameAtEnd(value.of(p.text)), value.to)
		}
		return pos + 1
	}
	value := readValue(p.text, pos+1, false)
	if isFieldOfForm(p.text[:from]) {
		if classOf(nameAtEnd(value.of(p.text))).isSecret() {
			return max(p.hidePart(value.next), pos+1)
		}
		return pos + 1
	}
	p.noteNamed(value.of(p.text), value.to)
	return pos + 1
}

// quotedValue returns the string behind the mark at pos, whose name is in quotes; it is empty if one of them is not.
func (p *namePass) quotedValue(pos int, quoted bool) valueRange {
	start := skipBlanks(p.text, pos+1)
	if !quoted || start == len(p.text) || !isQuote(p.text[start]) && p.text[start] != '\\' {
		return valueRange{}
	}
	value := readValue(p.text[:min(len(p.text), start+2*maxPhrase)], start, false)
	if !value.quoted || value.to == len(p.text) { // it has no end
		return valueRange{}
	}
	return value
}

// noteNamed keeps the class of name, which ends at end, for the value beside it.
func (p *namePass) noteNamed(name []byte, end int) {
	if named := nameAtEnd(name); len(named) > 0 && len(named) == len(name) {
		p.beside, p.besideTo = classOf(named), end
		p.isStated = p.beside == strong && isClosedString(p.text, end)
		p.hideEarly(p.early, end)
		if p.isStated {
			p.hideEarly(p.changed[0], end)
			p.hideEarly(p.changed[1], end)
		}
		p.early, p.changed = valueRange{}, [2]valueRange{}
	}
}

// hideEarly hides a value in front of its name, which ends at end, if that is beside it and the name of a secret.
func (p *namePass) hideEarly(early valueRange, end int) {
	if p.beside.isSecret() && early.from < early.to && end-early.to < maxName && !isPlaceholder(early.of(p.text)) &&
		!bytes.ContainsAny(p.text[early.to:end], "{}[]()<>") {
		p.hide(p.view, early.from, early.to, RuleName)
	}
}

// isClosedString reports whether a quote, which may be escaped, ends the string in front of end.
func isClosedString(text []byte, end int) bool {
	for end < len(text) && text[end] == '\\' {
		end++
	}
	return end < len(text) && isQuote(text[end])
}

// minSession is the length from which the value of a session is that of a cookie, not a number.
const minSession = 12

// isSessionName reports whether name, an everyday word, is that of a cookie, or of the credentials of a
// registry.
func isSessionName(name []byte) bool {
	return len(name) < 8 && isOneFold(name, []string{"session", "sess", "sid", "auth"})
}

// isPrefix reports whether the bracket at pos begins the name of a method, as in {bcrypt}$2a$10$….
func isPrefix(text []byte, pos int) bool {
	if text[pos] != '{' {
		return false
	}
	end := pos + 1
	for end < len(text) && end-pos < 24 && folded[text[end]] != 0 {
		end++
	}
	return end > pos+1 && end+1 < len(text) && text[end] == '}' && text[end+1] > ' ' &&
		bytes.IndexByte([]byte(`,}]"')`), text[end+1]) < 0
}

// wrongWords are the words in front of a name whose value is quoted by an error: unexpected token: <.
var wrongWords = [...]string{
	"unexpected", "invalid", "unknown", "illegal", "unrecognized", "bad", "expected", "next",
}

// isHarmless reports whether a value with the name of a secret is none.
func (p *namePass) isHarmless(name []byte, class class, mark byte, quoted bool, value valueRange, pos int) bool {
	content := p.text[value.from:value.to]
	if isPlaceholder(content) || string(content) == "!vault" && !p.isFollowed(value) { // of Ansible; its lines follow
		return true
	}
	if colon := bytes.IndexByte(content, ':'); colon > 0 && looksGenerated(content[colon+1:], len("secret")) {
		return false // credentials: bob:X
	}
	if class == everyday {
		return !isUserAndPassword(content) && (len(content) < minSession || !looksGenerated(content, minSession))
	}
	if class == countable && isCount(content, 20) || class == prose && isCount(content, 3) {
		return true
	}
	if string(name) == "PASS" && mark == ':' && p.isFollowed(value) {
		return true // PASS: TestName (0.00s)
	}
	if folded[name[0]] == 'p' && len(name) == 3 && (content[0] == '/' || len(content) > 1 && content[1] == ':') {
		return true // PWD=/usr/src/app
	}
	if bytes.EqualFold(name, []byte("oldpwd")) && content[0] == '/' {
		return true
	}
	if class == prose && isOneFold(name, ambiguousWords[:]) {
		return !looksRandom(content)
	}
	if quoted && !value.quoted && mark == ':' && p.isSentenceBehind(value, pos) {
		return true
	}
	if value.quoted || quoted || mark == '=' {
		return false
	}

	// A colon may be that of a sentence.
	if p.isMessage(name, class, value, pos) {
		return true
	}
	if isProseWord(content) || isForeignWord(content) {
		return true
	}
	if class != prose && class != countable || isHeaderName(name) {
		return false
	}
	before, _ := nameBefore(p.text, pos-len(name))
	if isOneFold(before, wrongWords[:]) {
		return true
	}
	last := len(bytes.TrimSpace(p.text[value.to:])) == 0
	first := pos < maxName && len(bytes.TrimLeft(p.text[:max(0, pos-len(name))], " -\t{[(\"'")) == 0
	return !looksRandom(content) && !(last && first)
}

// isMessage reports whether the colon at pos, behind a name, is that of a message: passwd[12]: …, pam_unix(passwd:…), passwd:
// password updated, 'Jwt:Key'.
func (p *namePass) isMessage(name []byte, class class, value valueRange, pos int) bool {
	content := value.of(p.text)
	if value.from == pos+1 && !value.quoted && p.isMember(value) {
		return false
	}
	_, process, isProcess := bytes.Cut(name, []byte("["))
	switch {
	case isProcess && len(process) > 1 && isCount(process[:len(process)-1], 8) && pos+1 < len(p.text) && p.text[pos+1] == ' ',
		string(name) == "chpasswd", bytes.HasPrefix(lastWord(p.text[max(0, pos-2*maxName):pos]), []byte("pam_")):
		return true
	case value.from == pos+1 && class == prose && isNameWord(content):
		return true
	}
	return isNameWord(content) && p.isFollowed(value)
}

// isMember reports whether a value is that of a member of a structure, as Go prints it: {User:bob Password:myPw Port:5}.
func (p *namePass) isMember(value valueRange) bool {
	if value.next >= len(p.text) {
		return false
	}
	switch p.text[value.next] {
	case '}', ']':
		return true
	case ' ':
		return beginsSettingAt(p.text, value.next+1)
	}
	return false
}

// isNameWord reports whether a word of letters is the name of a secret.
func isNameWord(word []byte) bool {
	return len(word) > 0 && shapeOf(word).letters == len(word) && pairClass(word) >= everyday
}

// isSentenceBehind reports whether the value of a name in quotes, whose colon is at pos, is the first word of a sentence,
// not that of a document: exec: "docker-credential-x": executable file not found.
func (p *namePass) isSentenceBehind(value valueRange, pos int) bool {
	content := value.of(p.text)
	if isNameWord(content) && p.isFollowed(value) {
		return true
	}
	if len(content) == 0 || shapeOf(content).letters < len(content) || value.next >= len(p.text) || p.text[value.next] != ' ' {
		return false
	}
	from, _, _ := nameBounds(p.text, pos)
	if from > 1 && p.text[from-2] == '/' {
		return true // object-"shop"/"db-credentials": Failed to watch
	}
	words := 0
	for rest := p.text[value.next:min(len(p.text), value.next+maxPhrase)]; words < 3; words++ {
		rest = bytes.TrimLeft(rest, " ")
		word := wordAt(rest, 0)
		if len(word) == 0 || shapeOf(word).letters < len(word) {
			break
		}
		if isProseWord(word) {
			return true
		}
		rest = rest[len(word):]
	}
	return false
}

// isFollowed reports whether further words are behind a value in its line.
func (p *namePass) isFollowed(value valueRange) bool {
	behind := skipBlanks(p.text, value.next)
	return !value.quoted && behind < len(p.text) && p.text[behind] > ' '
}

// isHeaderName reports whether name has a dash, an underscore or a capital, as X-Auth-Token and Cookie have.
func isHeaderName(name []byte) bool {
	for _, c := range name {
		if c == '-' || c == '_' || c >= 'A' && c <= 'Z' {
			return true
		}
	}
	return false
}

// hideHeader hides the value of a header field at start. The value of Cookie extends to the end of the line,
// or of the string; that of Authorization too, unless its scheme has one word of credentials.
func (p *namePass) hideHeader(start int, mark byte, quoted bool) int {
	text := p.text
	if (text[start] == '[' || text[start] == '{') && !isPrefix(text, start) {
		return p.hideStructure(start)
	}
	inString := p.stringAt(start) && !quoted
	scheme := schemeLength(text[start:])
	if known := scheme > 0 && isScheme(text[start:start+scheme]); known &&
		(mark == '=' || isOneWordScheme(text[start:start+scheme])) {
		value := readValue(text, start+scheme, inString)
		p.hide(p.view, value.from, value.to, RuleHeader)
		return max(value.next, start)
	}
	value := readValue(text, start, inString)
	if value.quoted || mark == '=' {
		if !isPlaceholder(value.of(text)) {
			p.hide(p.view, afterScheme(text, value.from, value.to), value.to, RuleHeader)
		}
		return max(value.next, start)
	}
	if p.isSentence(value, quoted) {
		return start // cookie: disabled
	}
	end := endOfField(text, start, inString)
	p.hide(p.view, afterScheme(text, start, end), end, RuleHeader)
	return end
}

// isSentence reports whether the value behind the name of a header field is that of a sentence. It has no =,
// as cookies and parameters have, and is a word, or has further words behind it.
func (p *namePass) isSentence(value valueRange, quoted bool) bool {
	text := p.text
	front := text[value.from:min(len(text), value.from+maxBalanced)]
	if bytes.IndexByte(front, '=') >= 0 {
		return false
	}
	word := value.of(text)
	if n := afterScheme(text, value.from, len(text)); n > value.from &&
		looksRandom(readValue(text, n, false).of(text)) {
		return false // AWS AKIA…:signature
	}
	further := len(bytes.TrimSpace(text[min(value.to, len(text)):min(len(text), value.to+maxShort)])) > 0
	return isProseWord(word) || isPlaceholder(word) || !quoted && further && !looksRandom(word)
}

// endOfField returns the end of the line, or of the string, that holds text[pos].
func endOfField(text []byte, pos int, inString bool) int {
	for ; pos < len(text) && text[pos] != '\n' && text[pos] != '\r'; pos++ {
		if !inString {
			continue
		}
		if text[pos] == '"' {
			closing := bytes.IndexByte(text[pos+1:], '"')
			if text[pos-1] != '=' || closing < 0 {
				return pos
			}
			pos += closing + 1 // username="bob"
			continue
		}
		if text[pos] == '\\' && pos+1 < len(text) {
			if text[pos+1] == 'n' || text[pos+1] == 'r' {
				return pos
			}
			pos++
		}
	}
	return min(pos, len(text))
}

// of returns the bytes of the value.
func (v valueRange) of(text []byte) []byte { return text[v.from:v.to] }

// referenceMembers are the members of a reference to an object of Kubernetes.
var referenceMembers = [...]string{
	"name", "namespace", "kind", "apiVersion", "apiGroup", "uid", "resourceVersion", "fieldPath", "key", "optional",
}

// isObjectReference reports whether the object at the begin of text is a reference to an object of Kubernetes, such as a
// Secret: it has a name, a namespace and no member that may hold a value.
func isObjectReference(text []byte) bool {
	front := text[:min(len(text), 2*maxPhrase)]
	end := bytes.IndexByte(front, '}')
	if end < 0 || front[0] != '{' {
		return false
	}
	hasName, hasNamespace := false, false
	for member := range bytes.SplitSeq(front[1:end], []byte(",")) {
		i := bytes.IndexAny(member, ":=")
		if i < 0 {
			return false
		}
		name := bytes.Trim(member[:i], " \t\n\r\"'\\")
		if !isOneOf(name, referenceMembers[:]) {
			return false
		}
		hasName = hasName || string(name) == "name"
		hasNamespace = hasNamespace || string(name) == "namespace"
	}
	return hasName && hasNamespace
}

// schemaTypes are the values of the member "type" of a JSON schema.
var schemaTypes = [...]string{"string", "number", "integer", "boolean", "object", "array", "null"}

// schemaMembers are the members of a JSON schema that hold no example and no default.
var schemaMembers = [...]string{
	"type", "minlength", "maxlength", "format", "writeonly", "readonly", "nullable", "minimum", "maximum", "deprecated",
}

// isSchema reports whether the object at the begin of text is the JSON schema of a value, which has a type and no member that
// may hold the value: {"type":"string","minLength":8}.
func isSchema(text []byte) bool {
	front := text[:min(len(text), 2*maxPhrase)]
	end := bytes.IndexByte(front, '}')
	if end < 0 || front[0] != '{' {
		return false
	}
	hasType := false
	for member := range bytes.SplitSeq(front[1:end], []byte(",")) {
		name, value, isMember := bytes.Cut(member, []byte(":"))
		if !isMember {
			return false
		}
		name, value = bytes.Trim(name, " \t\n\r\"\\"), bytes.Trim(value, " \t\n\r\"\\")
		isType := isOneFold(name, []string{"type"})
		isHarmless := isCount(value, 8) || string(value) == "true" || string(value) == "false" ||
			isOneFold(name, []string{"format"}) && string(value) == "password"
		if !isOneFold(name, schemaMembers[:]) || isType && !isOneOf(value, schemaTypes[:]) || !isType && !isHarmless {
			return false
		}
		hasType = hasType || isType
	}
	return hasType
}

// hideStructure hides the values in the list or object that begins at pos, and returns the offset behind it.
// The names in it stay.
func (p *namePass) hideStructure(pos int) int {
	text, depth := p.text, 0
	if isObjectReference(text[pos:]) {
		return pos + 1
	}
	for i := pos; i < len(text); {
		switch c := text[i]; c {
		case '[', '{':
			depth++
			i++
		case ']', '}':
			i++
			if depth--; depth == 0 {
				return i
			}
		case ' ', '\t', ',', ':', '=', '>', ';', '\n', '\r':
			i++
		default:
			i = p.hideScalar(i)
		}
	}
	return len(text)
}

// callEnd returns the offset of the bracket behind the name of a function at pos, if a string follows the
// bracket somewhere: CONCAT('a', 'b'); 0: there is none.
func callEnd(text []byte, pos int) int {
	end := pos
	for end < len(text) && end-pos < maxName && (isLetter(text[end]) || text[end] == '_') {
		end++
	}
	if end == pos || end+1 >= len(text) || text[end] != '(' {
		return 0
	}
	front := text[end:min(len(text), end+maxName)]
	if i := bytes.IndexAny(front, "'\"`) "); i < 0 || front[i] == ')' && i > 1 {
		return 0
	}
	return end
}

// hideLiterals hides the strings in the brackets that begin at pos, and returns the offset behind them.
func (p *namePass) hideLiterals(pos int) int {
	text, depth := p.text, 0
	for i := pos; i < len(text); {
		switch c := text[i]; {
		case c == '(':
			depth++
		case c == ')':
			if depth--; depth == 0 {
				return i + 1
			}
		case isQuote(c):
			value := readValue(text, i, false)
			if !isPlaceholder(value.of(text)) {
				p.hide(p.view, value.from, value.to, RuleName)
			}
			i = max(value.next, i+1)
			continue
		case c == '\\' && i+1 < len(text) && isQuote(text[i+1]):
			value := readValue(text, i, false)
			p.hide(p.view, value.from, value.to, RuleName)
			i = max(value.next, i+1)
			continue
		}
		i++
	}
	return len(text)
}

// hideScalar hides the value at pos of a structure, unless it is a name, and returns the offset behind it.
func (p *namePass) hideScalar(pos int) int {
	text := p.text
	var value valueRange
	if isQuote(text[pos]) || text[pos] == '\\' {
		value = readValue(text, pos, false)
	}
	if !value.quoted {
		end := pos
		for end < len(text) && bytes.IndexByte([]byte(" \t,:]}=\n"), text[end]) < 0 {
			end++
		}
		if padding := len(text[end:]) - len(bytes.TrimLeft(text[end:], "=")); padding > 0 && padding < 3 && // of base64
			(end+padding == len(text) || bytes.IndexByte([]byte(" \t,]}\n"), text[end+padding]) >= 0) {
			end += padding
		}
		value = valueRange{from: pos, to: end, next: max(end, pos+1)}
	}
	behind := skipBlanks(text, value.next)
	if behind < len(text) && (text[behind] == ':' || text[behind] == '=') || isPlaceholder(value.of(text)) {
		return max(value.next, pos+1)
	}
	p.hide(p.view, afterScheme(text, value.from, value.to), value.to, RuleName)
	return max(value.next, pos+1)
}

// isSecretElement reports whether the text of an element of that name, which may have a namespace, is a secret.
func isSecretElement(name []byte) bool {
	for _, c := range name {
		if folded[c] == 0 && c != ':' {
			return false
		}
	}
	return SecretName(name[bytes.LastIndexByte(name, ':')+1:])
}

// elementPairs are elements with a name, and those behind them with its value.
var elementPairs = [...][2]string{{"string", "<string>"}, {"param-name", "<param-value>"}}

// valueOfElement returns the text of the element behind the one of that name, whose text begins at pos, if that text is the
// name of a secret: <string>password</string><string>X</string>; to is 0 if there is none.
func valueOfElement(text, name []byte, pos int) (from, to int) {
	for _, pair := range elementPairs {
		end := nameEndFrom(text, pos)
		if string(name) != pair[0] || end == pos || end == len(text) || !beginsEndTag(text, end) {
			continue
		}
		class := classOf(text[pos:end])
		behind := bytes.IndexByte(text[end:min(len(text), end+maxName)], '>')
		if class != strong || behind < 0 {
			return 0, 0
		}
		from = skipSpace(text, end+behind+1)
		if !bytes.HasPrefix(text[from:], []byte(pair[1])) {
			return 0, 0
		}
		from += len(pair[1])
		length := bytes.IndexByte(text[from:min(len(text), from+maxScanned)], '<')
		if length < 0 || !isValueOfPair(text[from:from+length], strong, true) {
			return 0, 0
		}
		return from, from + length
	}
	return 0, 0
}

// nameEndFrom returns the end of the name at pos.
func nameEndFrom(text []byte, pos int) int {
	end := pos
	for end < len(text) && end-pos < maxName && folded[text[end]] != 0 {
		end++
	}
	return end
}

// readElement hides the text of the XML element whose start tag ends at pos, if its name is that of a secret.
func (p *namePass) readElement(pos int) int {
	text := p.text
	from := pos
	for from > 0 && pos-from < 4*maxName && text[from-1] != '<' && text[from-1] != '>' {
		from--
	}
	if from == 0 || text[from-1] != '<' {
		return pos + 1
	}
	name, _, _ := bytes.Cut(text[from:pos], []byte(" "))
	named := p.beside.isSecret() && p.besideTo <= pos &&
		(p.besideTo > from ||
			pos-p.besideTo < maxName &&
				isOneFold(name, []string{"value", "string", "data"})) // <entry key="password">
	if len(name) == 0 || name[0] == '/' || text[pos-1] == '/' {
		return pos + 1
	}
	secret := named || isSecretElement(name)
	if !secret {
		if value, to := valueOfElement(text, name, pos+1); to > 0 {
			p.hide(p.view, value, to, RuleName)
			return to
		}
	}
	if !secret && !isNameMember(name) {
		return pos + 1
	}
	const data = "<![CDATA["
	if secret && bytes.HasPrefix(text[pos+1:], []byte(data)) {
		pos += len(data)
	}
	end := bytes.IndexByte(text[pos+1:], '<')
	if end < 0 {
		return pos + 1
	}
	if !secret {
		p.noteNamed(text[pos+1:pos+1+end], pos+1+end) // <key>password</key>
		return pos + 1 + end
	}
	if i := bytes.Index(text[pos+1:pos+1+end], []byte("]]>")); i >= 0 {
		end = i
	}
	if !isPlaceholder(bytes.TrimSpace(text[pos+1 : pos+1+end])) {
		p.hide(p.view, pos+1, pos+1+end, RuleName)
	}
	return pos + 1 + end
}
