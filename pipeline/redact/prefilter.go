package redact

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"math/bits"
	"unicode/utf8"
)

// The prefilter searches a line for needles, eight bytes at a time, and examines the bytes around each that
// it finds. Nearly all lines have no secret and are done then: what it costs is the cost of redaction. It
// finds every line in which one of the passes finds something (FuzzPrefilter), and a few others.

// mayHoldSecret reports whether a pass could find a secret in a line.
func (r *Redactor) mayHoldSecret(data []byte) bool {
	if len(data) < minSecret {
		return false
	}
	if r.encodings == 0 {
		r.readings = 0
	}
	checks := lineChecks{Redactor: r, data: data}
	return checks.search() || checks.isForeign() || checks.isSuspicious()
}

// highBits are the bits of eight bytes that only bytes beyond ASCII have.
const highBits = 0x8080808080808080

// isForeign reports whether one of foreignNames with a byte beyond ASCII is in the line.
func (c *lineChecks) isForeign() bool {
	if c.bits&highBits == 0 {
		return false
	}
	for i := 0; i < len(c.data); i++ {
		if i+wordSize <= len(c.data) {
			high := binary.LittleEndian.Uint64(c.data[i:]) & highBits
			if high == 0 {
				i += wordSize - 1
				continue
			}
			i += bits.TrailingZeros64(high) / 8
		}
		if c.data[i] < utf8.RuneSelf {
			continue
		}
		if hasForeignNameAround(c.data, i) {
			return true
		}
		if c.data[i] >= 0xe2 && !c.wide {
			_, width := wideByte(c.data, i)
			c.wide = width > 0
		}
	}
	return false
}

// holdsNeedle reports whether a needle is in text. Text without any is not decoded.
func (r *Redactor) holdsNeedle(text []byte) bool {
	checks := lineChecks{Redactor: r, data: text, isFirst: true}
	return checks.search() || checks.bits&highBits != 0
}

// search examines the needles of the line, and reports whether a secret may be at one.
func (c *lineChecks) search() bool {
	data := c.data
	// Invariant: the windows that begin before the last pair before pos were examined; last is the entry of
	// that pair.
	pos, last := 0, uint64(0)
	for {
		var found bool
		if pos, last, found = c.nextWindow(pos, last); !found {
			break
		}
		word := binary.LittleEndian.Uint64(data[pos:])
		if c.examineWord(word, pos, last) {
			return true
		}
		pos, last = pos+wordSize, lineNeedles.pairs[pairsOf(word)>>48&anyPair]
	}

	// The end of the line, and zeros behind it.
	var word uint64
	if rest := len(data) - pos; len(data) >= wordSize {
		word = binary.LittleEndian.Uint64(data[len(data)-wordSize:]) >> 1 >> (8*(wordSize-rest) - 1)
	} else {
		for i := len(data) - 1; i >= pos; i-- {
			word = word<<8 | uint64(data[i])
		}
	}
	c.bits |= word
	return c.examineWord(word, pos, last)
}

const (
	minSecret = 4 // pw=1
	wordSize  = 8 // the number of bytes that are searched for needles at once
)

// nextWindow returns the offset, from pos on, of a word of the line in which or in front of which a window
// begins, and the entry of the pair before it. A window begins at an even offset if the entries of the pair
// there and of the next have a bucket in common. last is the entry of the pair before pos.
func (c *lineChecks) nextWindow(pos int, last uint64) (next int, before uint64, found bool) {
	pairs, data, bits := &lineNeedles.pairs, c.data, c.bits
	for rest := data[pos:]; len(rest) >= wordSize; rest = rest[wordSize:] {
		bytes := binary.LittleEndian.Uint64(rest)
		bits |= bytes
		word := pairsOf(bytes)
		v0, v1, v2, v3 := pairs[word&anyPair], pairs[word>>16&anyPair], pairs[word>>32&anyPair], pairs[word>>48&anyPair]
		if last>>numBuckets&v0|v0>>numBuckets&v1|v1>>numBuckets&v2|v2>>numBuckets&v3 != 0 {
			c.bits = bits
			return len(data) - len(rest), last, true
		}
		last = v3
	}
	c.bits = bits
	return len(data) - len(data[pos:])%wordSize, last, false
}

// examineWord reports whether a secret may be at a window that begins in the word at pos, or with the pair
// before it, whose entry is last.
func (c *lineChecks) examineWord(word uint64, pos int, last uint64) bool {
	codes := pairsOf(word)
	for i := pos - 2; i < pos+wordSize; i += 2 {
		next := lineNeedles.pairs[codes&anyPair]
		if last>>numBuckets&next != 0 && c.examine(i) {
			return true
		}
		last = next
		codes >>= 16
	}
	return false
}

// lineChecks examine one line. Those that read all of it are done once at most.
type lineChecks struct {
	*Redactor
	data []byte

	nameEnd     int    // the names up to here were examined
	isKey       bool   // the name that was examined last is a key of a JSON document
	sqlWord     bool   // a word without which no statement has a secret, and no key
	codeName    bool   // the name of a short number that is a secret
	everyday    bool   // a parameter, if the line has any
	namedBeside bool   // a value whose name stands beside it
	nameAlone   bool   // the name of a secret that may stand beside a value
	atEnd       int    // the text up to here has no URL in front of an @
	options     answer // a short option of a command
	auth        answer // the word AUTH
	redis       answer // a command of Redis with its words in quotes
	isFirst     bool   // the search ends with the first needle
	anyNeedle   bool   // a needle was found
	escaped     bool   // a needle with an escape next to it, or one whose secret stands behind further words
	percent     bool   // a percent-encoded byte
	colour      bool   // a colour of a terminal
	entity      bool   // a reference to a character
	wide        bool   // a wide character
	bits        uint64 // those of all bytes, in groups of eight
	nameTo      int    // the names of parameters up to here have no percent-encoding of their own, or were examined
}

// An answer is the result of a check.
type answer uint8

const (
	notAsked answer = iota
	isFalse
	isTrue
)

// ask returns the result of check, which is called once at most.
func (a *answer) ask(check func() bool) bool {
	if *a == notAsked {
		*a = isFalse
		if check() {
			*a = isTrue
		}
	}
	return *a == isTrue
}

// examine reports whether a secret may be at one of the needles that have a window at pos.
func (c *lineChecks) examine(pos int) bool {
	var front [4]byte
	if pos >= 0 && pos+len(front) <= len(c.data) {
		front = [4]byte(c.data[pos:])
	} else {
		for i := range front {
			front[i] = byteBefore(c.data, pos+i+1)
		}
	}
	pairs := pairsOf(uint64(binary.LittleEndian.Uint32(front[:])))
	codes := uint32(pairs&anyPair | pairs>>16<<pairBits)
	if c.examineWindows(lineNeedles.whole[windowHash(codes)], codes, pos) {
		return true
	}
	return c.examineWindows(lineNeedles.short[codes>>codeBits&anyCode], codes, pos)
}

// examineWindows reports whether a secret may be at a needle that has a window of the list at pos, where
// these codes are.
func (c *lineChecks) examineWindows(list []window, codes uint32, pos int) bool {
	for i := range list {
		if w := &list[i]; (codes^w.codes)&w.mask == 0 && c.examineNeedle(w.needle, pos-w.offset) {
			return true
		}
	}
	return false
}

// hasNeedle reports whether text, which is long enough, begins with a needle.
func hasNeedle(text []byte, needle string) bool {
	text = text[:len(needle)]
	for i := range len(needle) {
		if c := text[i]; c != needle[i] && (c|0x20 != needle[i] || !isLetter(c)) {
			return false
		}
	}
	return true
}

// examineNeedle reports whether a needle is at pos, and a secret may be next to it.
func (c *lineChecks) examineNeedle(n *needle, pos int) bool {
	data, end := c.data, pos+len(n.text)
	if pos < 0 || end > len(data) || !hasNeedle(data[pos:], n.text) {
		return false
	}
	if c.isFirst {
		return true
	}
	c.anyNeedle = true
	c.escaped = c.escaped || isEscapeBefore(data, pos)
	switch n.kind {
	case sqlNeedle:
		found := c.isName(pos)
		c.sqlWord = c.sqlWord || !c.isKey
		return found
	case nameNeedle:
		return c.isName(end - len(bytes.TrimLeft(data[pos:end], `"`)))
	case bearerNeedle:
		c.escaped = true
		return bearerAt(data, pos) > 0 || c.isName(pos)
	case basicNeedle:
		c.escaped = true
		_, to := basicAt(data, pos)
		return to > 0
	case tokenNeedle:
		return tokenBehind(data, pos)
	case jwtNeedle:
		return jwtAt(data, pos+2) > 0
	case pemNeedle:
		return encodedKeyEnd(data, pos) > 0
	case keyNeedle:
		return bytes.HasPrefix(data[pos:], keyBegin)
	case commandNeedle:
		return c.isCommand(n.text, pos)
	case positionalNeedle:
		known, _ := positionalAt(data, pos)
		return known != nil
	case phraseNeedle, digestNeedle, pipeNeedle, routineNeedle, loginNeedle, connectNeedle:
		return c.examinePhrase(n, pos, end)
	case pathNeedle:
		return c.isPath(pos, end) || isLetter(data[pos]) && c.isName(pos)
	case redisNeedle:
		return c.isRedisPhrase(n.text, pos)
	case colourNeedle:
		c.colour = true
	case entityNeedle:
		c.entity = true
	case byteNeedle:
		return c.isByte(pos)
	}
	return false
}

// examinePhrase reports whether a secret may be behind the words of a needle, which are at data[pos:end].
func (c *lineChecks) examinePhrase(n *needle, pos, end int) bool {
	data := c.data
	switch n.kind {
	case phraseNeedle:
		return true
	case digestNeedle:
		c.escaped = true
		return bytes.Contains(data[pos:min(len(data), pos+maxScanned+maxName)], []byte("response"))
	case pipeNeedle:
		return bytes.IndexByte(data[:pos], '|') >= 0 || bytes.Contains(data[pos:], hereString)
	case connectNeedle:
		c.escaped = true
		return callHasSecret(data, end-1)
	case routineNeedle:
		c.sqlWord = true
		if c.isLoginCall(pos) {
			return true
		}
		if data[end-1] != '(' {
			return c.isName(pos)
		}
		c.escaped = true
		return callHasSecret(data, end-1)
	case loginNeedle:
		c.sqlWord = c.sqlWord || n.text[:3] == "log" && isRoutineEnd(data, end)
		if c.isLoginCall(pos) {
			return true
		}
		_, to := loginSecret(data, end)
		c.escaped = c.escaped || end < len(data) && data[end] == '\\' || data[pos] == 'L'
		if isImapLogin(data, end) {
			return true // where the password ends depends on the text around the command
		}
		return to > 0
	}
	return false
}

// isLoginCall reports whether a function of loginCalls, whose name holds data[pos], is called with a string.
func (c *lineChecks) isLoginCall(pos int) bool {
	from, end := pos, pos
	for end < len(c.data) && end-pos < maxName && folded[c.data[end]] != 0 {
		end++
	}
	if end == len(c.data) || c.data[end] != '(' {
		return false
	}
	for from > 0 && end-from < 2*maxName && folded[c.data[from-1]] != 0 {
		from--
	}
	c.escaped = true
	return isLoginCall(c.data[from:end]) && beginsStrings(c.data, end)
}

// isByte reports whether a secret may be next to the byte at pos.
func (c *lineChecks) isByte(pos int) bool {
	data := c.data
	switch data[pos] {
	case '@':
		return c.isUserInfo(pos)
	case '%':
		char := encoded(data, pos)
		c.percent = c.percent || char >= 0
		return char >= 0 && (bytes.IndexByte([]byte("=@%\"':["), byte(char)) >= 0 || folded[byte(char)] > separator) ||
			c.isEncodedParameter(pos)
	case '$':
		return cryptLen(data, pos) > 0
	}
	return false
}

// isEncodedParameter reports whether the % at pos is in the name of a parameter that holds a secret:
// pass%20word=X.
func (c *lineChecks) isEncodedParameter(pos int) bool {
	if pos < c.nameTo {
		return false
	}
	end := pos
	for end < len(c.data) && end-pos < 3*maxName && bytes.IndexByte([]byte("=&;?# "), c.data[end]) < 0 {
		end++
	}
	c.nameTo = end
	if end == len(c.data) || c.data[end] != '=' {
		return false
	}
	return c.parameterClass(lastName(c.data[max(0, pos-maxName):end])) >= doubtful
}

// isName reports whether a secret may be next to the name that holds data[pos]. Other needles of the name are
// not examined again.
func (c *lineChecks) isName(pos int) bool {
	if pos < c.nameEnd {
		return false
	}
	data, from, end := c.data, pos, pos
	for end < len(data) && end-pos < maxName && folded[data[end]] != 0 {
		end++
	}
	for from > 0 && end-from < maxName && folded[data[from-1]] != 0 {
		from--
	}
	c.nameEnd = end
	quote := end
	if quote < len(data) && data[quote] == '\\' {
		quote++
	}
	c.isKey = quote+1 < len(data) && data[quote] == '"' && data[quote+1] == ':'
	class := c.names.classOf(data, from, end)
	if class <= everyday && byteBefore(data, from) == ' ' && isOneFold(data[from:end], phraseParts[:]) {
		c.escaped = true // an escape may be in front of the first of two words
		if isNameOfTwoWords(data, from, end) {
			class = prose
		}
	}
	if class == everyday && secondWordEnd(data, end) > end {
		return true // session id …
	}
	if _, to := codeSecret(data, from, end); to > 0 {
		return true
	}
	c.codeName = c.codeName || hasCodeName(data[from:end])
	isPart := class == noSecret || end == len(data) || !isQuote(data[end]) || !isQuote(byteBefore(data, from))
	if isPart && !class.isSecret() && !c.nameAlone {
		// Redis takes "AuTh" for AUTH, and the name of a field may have blanks: "seed phrase".
		c.nameAlone = c.redis.ask(func() bool { return hasQuotedRedis(data) })
	}
	c.nameEnds = c.nameEnds || class.isSecret() && (len(data)-end <= maxTail || isBeforeBar(data, end))
	c.escaped = c.escaped || class.isSecret() || isEscapeBefore(data, from) || end < len(data) && data[end] == '\\'
	c.escaped = c.escaped || class >= everyday && bytes.IndexByte(data[end:min(len(data), end+maxTail)], '\\') >= 0
	switch {
	case end < len(data) && data[end] == '/' && c.isPath(from, end), c.isNamed(class, end):
		return true
	case class.isSecret():
		return c.beginsElement(from) || c.isOption(from, pos, end)
	case class == everyday && c.isOption(from, pos, end):
		return true
	}
	return class == everyday && data[from] == 'A' &&
		(isAuthCommand(data, from) || bytes.HasPrefix(data[from:], []byte("AUTH2 ")))
}

// isNamed reports whether a mark or a string is behind a name of that class, which ends at end.
func (c *lineChecks) isNamed(class class, end int) bool {
	if class == noSecret {
		return false
	}
	data, pos := c.data, end
	for pos < len(data) && (data[pos] == '\\' || isQuote(data[pos])) {
		pos++
	}
	quoted := pos > end
	if quoted && class == strong {
		return true // {"old":"X","field":"password"}
	}
	if pos < len(data) && data[pos] == '(' && class.isSecret() {
		if callHasSecret(data, pos) {
			return true // PASSWORD('…')
		}
	}
	if pos < len(data) && data[pos] == '(' && beginsStrings(data, pos) &&
		(class.isSecret() || class == everyday && isSecretCall(data[max(0, end-maxName):end], class)) {
		return true // Secret("…")
	}
	if data[end-1] == '.' && class.isSecret() && bytes.HasSuffix(data[:end], []byte("...")) {
		return true // password..."…"
	}
	if quoted && pos < len(data) && (data[pos] == ']' || data[pos] == '}' || data[pos] == ')') {
		pos++
	}
	blank := pos
	pos = skipSpace(data, pos)
	if pos == len(data) {
		c.nameAlone = c.nameAlone || class.isSecret()
		return false
	}
	switch mark := data[pos]; mark {
	case '=', ':':
		c.everyday = c.everyday || (class == everyday || class == doubtful) && mark == '='
		c.namedBeside = c.namedBeside || class == beside
		return class.isSecret() || class == everyday && isSessionName(nameAtEnd(data[max(0, end-maxName):end]))
	case '>':
		c.namedBeside = c.namedBeside || class == beside
		return class.isSecret()
	case '\\', '\'', '"', '`':
		if pos > blank && class >= everyday {
			return true // password "…", "AUTH" "…"
		}
	case ',', '|', ';', ')':
		return class.isSecret()
	case '?':
		if class.isSecret() && pos+1 < len(data) && data[pos+1] == ':' {
			return true // token?: string = …
		}
	case '<':
		if pos == end && class.isSecret() {
			return true // <key>password</key>
		}
	}
	c.nameAlone = c.nameAlone || class.isSecret()
	if quoted && endsWithSetting(data[:end]) {
		return true // requirepass"…
	}
	return pos > blank && class.isSecret() // set password …
}

// beginsElement reports whether a name that begins at from is that of an element of XML.
func (c *lineChecks) beginsElement(from int) bool {
	if from > 0 && c.data[from-1] == ':' { // its namespace
		for from--; from > 0 && folded[c.data[from-1]] > separator; {
			from--
		}
	}
	return from > 0 && c.data[from-1] == '<'
}

// isOption reports whether an option of a command, with the name of a secret, begins in data[from:pos+1]. It
// ends at end at the latest.
func (c *lineChecks) isOption(from, pos, end int) bool {
	for ; from <= pos; from++ {
		if c.data[from] == '-' && beginsOption(c.data, from) {
			name := c.data[from:optionEnd(c.data, from)]
			return end < len(c.data) && (SecretName(name) || isPinOption(name))
		}
	}
	return false
}

// isCommand reports whether a secret may be in the arguments of the command, or the option, at pos.
func (c *lineChecks) isCommand(name string, pos int) bool {
	if name[0] == '-' {
		end := pos + len(name)
		return string(c.data[pos:end]) == name && beginsOption(c.data, pos) && optionEnd(c.data, pos) == end
	}
	if commandAt(c.data, pos) == nil {
		return false
	}
	c.escaped = true
	if found := commandAt(c.data, pos); found.slash+found.long+found.front+found.slashWord != "" ||
		found.name == "curl" && bytes.Contains(c.data[pos:], []byte("cert ")) {
		return true
	}
	return c.options.ask(func() bool {
		for pos := 0; ; pos++ {
			next := bytes.IndexByte(c.data[pos:], '-')
			if next < 0 {
				return false
			}
			pos += next
			if beginsOption(c.data, pos) && shortOptions[c.data[pos+1]] {
				return true
			}
		}
	})
}

// shortOptions has the letters of the options of commands.
var shortOptions = func() (table [256]bool) {
	for _, known := range commands {
		for _, letter := range []byte(known.secret + known.joined + known.apart + known.user) {
			table[letter] = true
		}
	}
	return table
}()

// isRedisPhrase reports whether a command of Redis with a secret may begin with the phrase front at pos.
func (c *lineChecks) isRedisPhrase(front string, pos int) bool {
	if folded[byteBefore(c.data, pos)] > separator || !isOneCase(c.data[pos:pos+len(front)]) {
		return false
	}
	hasOptions := front == "hello " || front == "migrate "
	return !hasOptions || c.auth.ask(func() bool { return containsWord(c.data, authWord) })
}

var authWord = newWordTable([]string{"auth"})

// isPath reports whether a secret may be in the path whose segment holds data[pos:end].
func (c *lineChecks) isPath(pos, end int) bool {
	data := c.data
	if data[pos] == '/' {
		pos++
	}
	if data[end-1] == '/' {
		end--
	}
	from := pos
	for end < len(data) && end-pos < maxName && folded[data[end]] != 0 {
		end++
	}
	for from > 0 && end-from < maxName && folded[data[from-1]] != 0 {
		from--
	}
	c.escaped = c.escaped || isEscapeBefore(data, from)
	segment := data[from:end]
	if end < len(data) && data[end] == ':' && bytes.HasPrefix(segment, []byte("bot")) {
		return true
	}
	if count := secretSegment(segment); count > 0 && end < len(data) && data[end] == '/' {
		_, to := pathSecret(data, end+1, count)
		return to > 0
	}
	return false
}

// isUserInfo reports whether a URL may be in front of the @ at pos.
func (c *lineChecks) isUserInfo(pos int) bool {
	from := pos
	for from > c.atEnd && c.data[from-1] > ' ' && c.data[from-1] != '"' {
		from--
	}
	c.atEnd = pos
	front := c.data[from:pos]
	c.escaped = c.escaped || bytes.IndexByte(c.data[max(0, pos-maxBalanced):pos], '\\') >= 0
	if _, to := bareUserInfo(c.data, pos); to > 0 {
		return true
	}
	return bytes.Contains(front, []byte("//")) || bytes.Contains(front, []byte(`\/`)) ||
		bytes.Contains(front, []byte("jdbc:")) || hasBlankPassword(c.data[:pos])
}

// hasBlankPassword reports whether front, the text in front of an @, may have a URL with a password with blanks.
func hasBlankPassword(front []byte) bool {
	front = front[max(0, len(front)-maxBlankPassword-maxName):]
	return bytes.LastIndexByte(front, ' ') > 0 && bytes.Contains(front, []byte("://"))
}

// isSuspicious reports whether a secret may be in the line because of what was found in several of its places, or in a
// decoded form of it.
func (c *lineChecks) isSuspicious() bool {
	return c.nameAlone && (c.namedBeside || c.redis.ask(func() bool { return hasQuotedRedis(c.data) }) || bytes.IndexByte(c.data, '<') >= 0 ||
		bytes.Contains(c.data, formData)) ||
		c.everyday && bytes.ContainsAny(c.data, "?&;#") ||
		(c.codeName || c.sqlWord && hasLiteral(c.data)) && nextVerb(c.data, 0) >= 0 ||
		c.percent && c.isSecretDecoded('%', decodePercent) ||
		c.colour && c.isSecretDecoded('\x1b', decodeColour) || c.anyNeedle && c.isSecretHidden() ||
		c.wide && c.encodings < maxRare && c.isSecretDecoded(0, decodeWide)
}

// isSecretHidden reports whether a secret may be in a form of the line without its escapes, its references to
// characters, or its signs for blanks.
func (c *lineChecks) isSecretHidden() bool {
	return c.mayEscapesHide() && c.isSecretDecoded('\\', decodeEscape) ||
		c.encodings < maxRare && (c.entity && hasEntity(c.data) && c.isSecretDecoded('&', decodeEntity) ||
			hasFormBlank(c.data) && c.isSecretDecoded(0, decodeForm))
}

// hasQuotedRedis reports whether a command of Redis with its words in quotes may be in a line, see hideRedis.
func hasQuotedRedis(data []byte) bool {
	if data[0] == '"' && isQuotedRedis(data) {
		return true
	}
	for pos := 0; ; {
		next := bytes.Index(data[pos:], []byte(` "`))
		if next < 0 {
			return false
		}
		pos += next + 1
		if c := byteBefore(data, pos-1); (c == ']' || c == '>') && isQuotedRedis(data[pos:]) {
			return true
		}
	}
}

// isQuotedRedis reports whether text, which begins with a quote, begins with two words in quotes, the first of which may
// be the name of a command.
func isQuotedRedis(text []byte) bool {
	end := bytes.IndexByte(text[1:min(len(text), maxRedisCommand+2)], '"') + 2
	return end > 1 && bytes.HasPrefix(text[end:], []byte(` "`))
}

// isEscapeBefore reports whether an escape, of one or two bytes, may end at pos.
func isEscapeBefore(data []byte, pos int) bool {
	return byteBefore(data, pos) == '\\' || byteBefore(data, pos-1) == '\\'
}

// mayEscapesHide reports whether there may be a needle, or a secret next to one, without the escapes of the line. The
// escapes of quotes, backslashes and line breaks are within no needle.
func (c *lineChecks) mayEscapesHide() bool {
	first := bytes.IndexByte(c.data, '\\')
	if first < 0 {
		return false
	}
	table := &hidingEscapes
	if c.escaped {
		table = &allEscapes
	}
	for rest := c.data[first:]; len(rest) > 1; rest = rest[1:] {
		if rest[0] != '\\' || !table[rest[1]] {
			continue
		}
		if rest[1] != 'x' || len(rest) > 3 && isHex(rest[2:4]) {
			return true
		}
	}
	return false
}

// allEscapes has the bytes that form an escape with a backslash in front of them; hidingEscapes has those that may be
// within a needle.
var allEscapes, hidingEscapes = func() (all, hiding [256]bool) {
	for c := range all {
		hiding[c] = folded[c] <= separator && bytes.IndexByte([]byte(`"'\`), byte(c)) < 0 ||
			bytes.IndexByte([]byte("bfux"), byte(c)) >= 0
		all[c] = hiding[c] || bytes.IndexByte([]byte(`"'\ntr`), byte(c)) >= 0
	}
	return all, hiding
}()

// maxReadings bounds the decoded forms of a line that are searched. A line with more is read by the passes.
const maxReadings = 16

// isSecretDecoded reports whether a pass could find a secret in the line as decode reads what begins with mark, or, if
// mark is 0, with any byte.
func (c *lineChecks) isSecretDecoded(mark byte, decode func(out, text []byte, i int) ([]byte, int)) bool {
	r := c.Redactor
	if r.encodings == maxDepth {
		return false
	}
	if r.readings++; r.readings > maxReadings {
		return true
	}
	plain := r.plain[r.encodings][:0]
	for pos := 0; pos < len(c.data); {
		if mark != 0 {
			next := bytes.IndexByte(c.data[pos:], mark)
			if next < 0 {
				plain = append(plain, c.data[pos:]...)
				break
			}
			plain = append(plain, c.data[pos:pos+next]...)
			pos += next
		}
		var width int
		plain, width = decode(plain, c.data, pos)
		pos += width
	}
	r.plain[r.encodings] = plain
	if mark != 0 && len(plain) == len(c.data) {
		return false // nothing was decoded
	}
	r.encodings++
	found := r.mayHoldSecret(plain)
	r.encodings--
	return found
}

// byteBefore returns the byte before offset pos, or 0 if there is none.
func byteBefore(data []byte, pos int) byte {
	if pos < 1 || pos > len(data) {
		return 0
	}
	return data[pos-1]
}

// nameCacheSize is the number of names that are remembered.
const nameCacheSize = 128

// A nameCache holds the classes of names, by their bytes, or by their hash if they have more than sixteen. The hash has
// a random seed: otherwise a name could be made that gives the name of a secret its class.
type nameCache [nameCacheSize]nameEntry

var nameSeed = maphash.MakeSeed()

type nameEntry struct {
	low, high uint64
	class     class
	used      bool
}

// find returns the entry of a key, or the place for it. A key has two places.
func (cache *nameCache) find(low, high uint64) (entry *nameEntry, found bool) {
	i := ((low^high>>1)*0x9E3779B97F4A7C15 + high*0xC2B2AE3D27D4EB4F) >> 57
	entry = &cache[i]
	if entry.low == low && entry.high == high && entry.used {
		return entry, true
	}
	other := &cache[i^1]
	if other.low == low && other.high == high && other.used {
		return other, true
	}
	if entry.used && (!other.used || low>>40&1 == 1) {
		return other, false
	}
	return entry, false
}

// classOf returns the class of the name data[from:end].
func (cache *nameCache) classOf(data []byte, from, end int) class {
	name := data[from:end]
	var low, high uint64
	switch size := len(name); {
	case size > 16:
		low, high = maphash.Bytes(nameSeed, name), uint64(size)
	case end >= 16: // the bytes before the name are cleared
		low, high = binary.LittleEndian.Uint64(data[end-16:]), binary.LittleEndian.Uint64(data[end-8:])
		if size > 8 {
			low &= ^uint64(0) << (8 * (16 - size))
		} else {
			low, high = 0, high&^(1<<(8*(8-size))-1)
		}
	default:
		var front [16]byte
		copy(front[16-size:], name)
		low, high = binary.LittleEndian.Uint64(front[:]), binary.LittleEndian.Uint64(front[8:])
	}
	entry, found := cache.find(low, high)
	if !found {
		entry.low, entry.high, entry.class, entry.used = low, high, classOf(name), true
	}
	return entry.class
}

// classAt returns the class of the name before the mark at pos.
func (cache *nameCache) classAt(data []byte, pos int) class {
	from, end, _ := nameBounds(data, pos)
	return cache.classOf(data, from, end)
}
