package redact

import "bytes"

// URL returns data, a URL or a request target, without its secrets, and reports whether there were any. It
// hides user:password@ after every //, the values of parameters with the names of secrets, secrets in paths,
// and tokens of known forms. It also finds them in a URL that is itself the value of a parameter, and if they
// are percent-encoded. data is not changed.
func (r *Redactor) URL(data []byte) ([]byte, bool) {
	r.spans = r.spans[:0]
	if !mayHoldURLSecret(data) {
		return data, false
	}
	r.readURL(view{text: data}, 0)
	if len(r.spans) == 0 {
		return data, false
	}
	return r.replaced(data), true
}

// readURL hides the secrets of a URL, and of the decoded forms of it.
func (r *Redactor) readURL(v view, depth int) {
	r.hideURL(v, false)
	r.hidePatterns(v)
	if depth > 0 { // a document in a parameter
		r.hideNamedQuoted(v)
	}
	if depth == 1 && r.mayHoldSecret(v.text) { // a text in a parameter
		r.readText(v, depth)
	}
	if depth == 0 && hasFormBlank(v.text) {
		if form := r.decoded(v, depth, decodeForm); r.mayHoldSecret(form.text) {
			r.readText(form, depth+1)
		}
	}
	if depth < maxDepth && hasPercent(v.text) {
		r.readURL(r.decoded(v, depth, decodePercent), depth+1)
	}
}

// mayHoldURLSecret reports whether a URL has a byte next to which a secret may be.
func mayHoldURLSecret(text []byte) bool {
	slash := 0
	for i, c := range text {
		switch c {
		case '=', '@', '%':
			return true
		case ':':
			if i > 0 && text[i-1] >= '0' && text[i-1] <= '9' { // /bot123:…
				return true
			}
		case '/':
			if secretSegment(text[slash:i]) > 0 {
				return true
			}
			slash = i + 1
		case 'J':
			if patternAt(text, i) {
				return true
			}
		default:
			if _, to := prefixAt(text, i); to > 0 {
				return true
			}
		}
	}
	return secretSegment(text[slash:]) > 0
}

// hideNamedQuoted hides the values of a JSON document within a URL.
func (r *Redactor) hideNamedQuoted(v view) {
	for i := 0; i < len(v.text); i++ {
		if v.text[i] != ':' || i == 0 || !isQuote(v.text[i-1]) {
			continue
		}
		name, _ := nameBefore(v.text, i)
		if !SecretName(name) {
			continue
		}
		value := readValue(v.text, i+1, false)
		if !isPlaceholder(value.of(v.text)) {
			r.hide(v, value.from, value.to, RuleParameter)
		}
		i = max(i, value.next-1)
	}
}

// hideURLs hides the secrets of the tokens of a text that look like URLs or forms.
func (r *Redactor) hideURLs(v view) {
	text := v.text
	for i := 0; i < len(text); {
		if tokenStop[text[i]] {
			i++
			continue
		}
		from := i
		var slash, query, pairs, at bool
		for i < len(text) && !tokenStop[text[i]] {
			switch text[i] {
			case '/':
				slash = true
			case '?', '#':
				query = true
			case '&', ';':
				pairs = true
			case '@':
				at = true
			}
			i++
		}
		// ' and > are parts of the URL, unless it is enclosed in '…' or <…>.
		to := i
		for (slash || query || pairs) && to < len(text) && (text[to] == '\'' || text[to] == '>') && from > 0 &&
			text[from-1] != '<' && (text[from-1] != '\'' || at || hasAtBefore(text, to+1)) {
			for to++; to < len(text) && !tokenStop[text[to]]; to++ {
			}
		}
		if slash && !at {
			to = r.hideBlankPassword(v, from, to)
		}
		if slash || query || pairs {
			r.hideURL(v.part(from, to), true)
		}
		i = max(i, to)
	}
}

// maxBlankPassword bounds the password of a URL with blanks in it, and maxPasswordBlanks their number.
const (
	maxBlankPassword  = 64
	maxPasswordBlanks = 4
)

// hideBlankPassword hides the password with blanks of the URL text[from:to], which ends at a blank and has no @:
// postgres://bob:a b@db. It returns the end of the URL.
func (r *Redactor) hideBlankPassword(v view, from, to int) int {
	colon, end := blankPassword(v.text, from, to)
	if end == 0 {
		return to
	}
	r.hide(v, colon+1, end, RuleUserInfo)
	for to = end; to < len(v.text) && !tokenStop[v.text[to]]; {
		to++
	}
	return to
}

// blankPassword returns the offsets of the colon in front of the password, and of the @ behind it, of the URL
// text[from:to]; end is 0 if it has no password with blanks.
func blankPassword(text []byte, from, to int) (colon, end int) {
	scheme := bytes.Index(text[from:to], []byte("://"))
	if scheme < 1 || to == len(text) || text[to] != ' ' {
		return 0, 0
	}
	start := from + scheme + len("://")
	colon = bytes.IndexByte(text[start:to], ':')
	if colon < 1 || bytes.IndexByte([]byte("/?#"), text[start+colon-1]) >= 0 {
		return 0, 0
	}
	colon += start
	for _, c := range text[start:colon] {
		if folded[c] == 0 {
			return 0, 0
		}
	}
	port, _, _ := bytes.Cut(text[colon+1:to], []byte("/"))
	if isPort(port) || colon+1 == to {
		return 0, 0
	}
	blanks := 0
	for end = to; end < len(text) && end-to < maxBlankPassword && text[end] >= ' ' && !isQuote(text[end]); end++ {
		switch text[end] {
		case ' ':
			if blanks++; blanks > maxPasswordBlanks {
				return 0, 0
			}
		case '@':
			if host := text[end+1:]; len(host) > 0 && folded[host[0]] > separator && text[end-1] > ' ' {
				return colon, end
			}
			return 0, 0
		case ':', '<', '>', '|', '(', ')':
			return 0, 0
		}
	}
	return 0, 0
}

// hasAtBefore reports whether an @ follows before the token ends.
func hasAtBefore(text []byte, pos int) bool {
	for limit := pos + maxBalanced; pos < min(len(text), limit) && text[pos] > ' ' && text[pos] != '"'; pos++ {
		if text[pos] == '@' {
			return true
		}
	}
	return false
}

// tokenStop has the bytes that end a token of a text, such as a URL.
var tokenStop = func() (table [256]bool) {
	for c := range ' ' + 1 {
		table[c] = true
	}
	for _, c := range "\"'`<>" {
		table[c] = true
	}
	return table
}()

// hideURL hides the secrets of the URL v. inLine is passed to hideUserInfo.
func (r *Redactor) hideURL(v view, inLine bool) {
	text := v.text
	r.hideBot(v)
	start := 0                                     // offset of the name of the current parameter, or of the segment
	query, segments, matrix := false, false, false // the first ? or #, / or ; was seen
	isForm := bytes.IndexByte(text, '&') >= 0
	// Invariant: the secrets before i are hidden, and text[start:i] is the front of a name or of a segment.
	for i := 0; i < len(text); {
		switch c := text[i]; c {
		case '/':
			if i+1 < len(text) && text[i+1] == '/' {
				i = r.hideUserInfo(v, i+2, inLine)
				start, segments = i, true
				continue
			}
			if n := secretSegment(text[start:i]); n > 0 && !query {
				i = r.hideSegments(v, i+1, n)
				start = i
				continue
			}
			segments = true
			start = i + 1
		case '?', '#':
			query = true
			start = i + 1
		case '&', ';', ' ', ',':
			matrix = matrix || c == ';'
			start = i + 1
		case '\\':
			if bytes.HasPrefix(text[i:], jsonAmpersand) {
				i += len(jsonAmpersand)
				start = i
				continue
			}
		case '=':
			name := text[start:i]
			if inLine {
				name = lastName(name)
			}
			start = i + 1 // the value may be a URL with parameters of its own
			if inLine && !query && !isForm && !segments && !matrix {
				break // no parameter; hideNamed reads it
			}
			isParameter := !inLine || query || isForm || matrix
			if class := r.parameterClass(name); class.isSecret() || class >= doubtful && isParameter {
				i = r.hideParameter(v, start, class, query)
				start = i
				continue
			}
		}
		i++
	}
	if bytes.HasPrefix(text, []byte("jdbc:oracle:")) {
		r.hideOraclePassword(v)
	}
}

// hideParameter hides the value at start of a parameter whose name has that class, and returns the offset behind it.
func (r *Redactor) hideParameter(v view, start int, class class, query bool) int {
	text, to := v.text, start
	for to < len(text) && !endsParameter(text, to, query) {
		to++
	}
	value := text[start:to]
	switch {
	case class == doubtful && !isDoubtfulToken(value):
		return start // it may be a URL with parameters of its own
	case !bytes.HasPrefix(value, []byte(Marker)) && !(class == countable && isCount(value, 6)):
		r.hide(v, start, to, RuleParameter)
	}
	return to
}

// isDoubtfulToken reports whether the value of a parameter that holds a credential or a word is a token.
func isDoubtfulToken(value []byte) bool {
	if len(value) < minPathToken || len(value) > maxScanned {
		return len(value) > maxScanned
	}
	s := shapeOf(value)
	return s.letters > 0 && (isPathToken(value) || looksGenerated(value, minPathToken))
}

// lastName returns the name at the end of text, which may be percent-encoded.
func lastName(text []byte) []byte {
	from := len(text)
	for from > 0 && (folded[text[from-1]] != 0 || text[from-1] == '%') {
		from--
	}
	return text[from:]
}

// parameterClass returns the class of the name of a parameter, which may be percent-encoded.
func (r *Redactor) parameterClass(name []byte) class {
	if bytes.IndexByte(name, '%') < 0 {
		return parameterClass(name)
	}
	var buf [maxName]byte
	if len(name) > 3*maxName {
		name = name[len(name)-3*maxName:]
	}
	plain := buf[:0]
	for i := 0; i < len(name); {
		c, width := name[i], 1
		if decoded := encoded(name, i); decoded >= 0 {
			c, width = byte(decoded), 3
		}
		i += width
		if folded[c] == 0 {
			continue
		}
		if len(plain) == maxName {
			plain = plain[:copy(plain, plain[1:])]
		}
		plain = append(plain, c)
	}
	return parameterClass(plain)
}

// endsParameter reports whether the value of a parameter ends at text[i].
func endsParameter(text []byte, i int, query bool) bool {
	switch text[i] {
	case '&', '#':
		return true
	case ';', '/', '?':
		return !query
	case ',':
		return beginsPair(text, i+1)
	case '\\':
		return bytes.HasPrefix(text[i:], jsonAmpersand) || i+1 < len(text) && isQuote(text[i+1])
	}
	return false
}

// hideUserInfo hides user:password@ at the front of the authority that begins at start, and returns the
// offset at which to continue. In a log line (inLine) the user's name is kept.
//
// The last @ of the authority counts, since a password may hold one. It may also hold / and ?, which should
// have been encoded: if what follows the first colon is no port, the @ before the last name of a host counts.
func (r *Redactor) hideUserInfo(v view, start int, inLine bool) int {
	text := v.text
	end := start
	for end < len(text) && bytes.IndexByte([]byte(`/?#\ "`), text[end]) < 0 {
		end++
	}
	at := bytes.LastIndexByte(text[start:end], '@')
	colon := bytes.IndexByte(text[start:end], ':')
	isForeign := hasForeignScheme(text, start)
	if isForeign || at < 0 && colon >= 0 && !isPort(text[start+colon+1:end]) {
		if last := lastHostAt(text, start); last > at {
			at = last
		}
	}
	if at < 0 {
		return start
	}
	if colon > at {
		colon = -1
	}
	user := text[start : start+at]
	from := start
	switch {
	case inLine && colon > 0 && !isForeign && UserNameIsSecret(text[start:start+colon], text[start+colon+1:start+at]):
		// The user is a token, with a word or nothing as the password.
	case inLine && colon >= 0:
		from = start + colon + 1
	case inLine && !looksLikeToken(user):
		return start + at
	}
	if !isPlaceholder(text[from:start+at]) || !inLine {
		r.hide(v, from, start+at, RuleUserInfo)
	}
	return start + at
}

// looksLikeToken reports whether a user's name in front of an @, without a password, may be a token.
func looksLikeToken(user []byte) bool {
	for _, c := range user {
		if c < 'a' || c > 'z' {
			return true
		}
	}
	return len(user) > 16
}

// hasForeignScheme reports whether the scheme before // at start is that of a database or a queue, whose paths
// have no @.
func hasForeignScheme(text []byte, start int) bool {
	scheme := bytes.TrimSuffix(text[max(0, start-16):start], []byte("://"))
	for _, name := range [...]string{
		"postgres", "postgresql", "mysql", "mariadb", "redis", "rediss", "amqp", "amqps", "mongodb", "mongodb+srv",
		"ldap", "ldaps", "smtp", "smtps", "clickhouse", "kafka", "nats", "mssql", "sqlserver", "oracle",
		"cassandra", "db2", "mqtt", "mqtts",
	} {
		if bytes.HasSuffix(scheme, []byte(name)) {
			return true
		}
	}
	return false
}

// isPort reports whether text is a number of a port, or nothing.
func isPort(text []byte) bool {
	for _, c := range text {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(text) <= 5
}

// maxUserInfo bounds the text in which the end of a password with a / is looked for.
const maxUserInfo = 1024

// lastHostAt returns the offset from start of the last @ of the token behind which the name of a host may stand;
// −1: there is none.
func lastHostAt(text []byte, start int) int {
	end := start
	for limit := start + maxUserInfo; end < min(len(text), limit) && text[end] > ' ' && text[end] != '"'; {
		end++
	}
	for at := end - 1; at >= start; at-- {
		if text[at] != '@' {
			continue
		}
		host := at + 1
		for host < end && (folded[text[host]] != 0 || text[host] == ':' || text[host] == ',') {
			host++
		}
		if host > at+1 && (host == end || bytes.IndexByte([]byte(`/?#'`), text[host]) >= 0) {
			return at - start
		}
	}
	return -1
}

// hideOraclePassword hides the password in jdbc:oracle:thin:user/password@….
func (r *Redactor) hideOraclePassword(v view) {
	slash, at := bytes.IndexByte(v.text, '/'), bytes.LastIndexByte(v.text, '@')
	if slash >= 0 && at > slash {
		r.hide(v, slash+1, at, RuleUserInfo)
	}
}

// segmentNames are the segments of paths behind which a secret stands, with the number of segments up to it.
var segmentNames = map[string]int{
	"reset-password": 1, "password-reset": 1, "reset_password": 1, "password_reset": 1, "resetpassword": 1,
	"passwordreset": 1, "set-password": 1, "forgot-password": 1, "magic-link": 1, "magic": 1, "verify-email": 1,
	"confirm-email": 1, "activate": 1, "activation": 1, "invite": 1, "invitation": 1, "unsubscribe": 1, "token": 1,
	"tokens": 1, "apikey": 1, "api-key": 1, "confirm": 1, "verify": 1, "sso": 1, "services": 3, "webhooks": 2,
	"secret": 1, "access_token": 1, "reset": 1, "otp": 1, "session": 1, "auth": 1, "workflows": 2, "triggers": 3,
	"incomingwebhook": 1, "confirmation": 1, "bottoken": 1, "hook": 1, "webhook": 1,
}

// secretSegment returns how many segments behind a segment of a path the secret stands; 0: it has none. A bot's
// segment of Telegram holds the secret itself.
func secretSegment(segment []byte) int {
	if len(segment) > 16 || len(segment) < 3 {
		return 0
	}
	var lower [16]byte
	for i, c := range segment {
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		lower[i] = c
	}
	return segmentNames[string(lower[:len(segment)])]
}

// hideSegments hides the segment that is the count-th from pos on, if it looks like a token, and returns the
// offset at which to continue.
func (r *Redactor) hideSegments(v view, pos, count int) int {
	from, to := pathSecret(v.text, pos, count)
	if to == 0 {
		return pos
	}
	r.hide(v, from, to, RulePath)
	return to
}

// pathSecret returns the segment that is the count-th from pos on, if it looks like a token.
func pathSecret(text []byte, pos, count int) (from, to int) {
	from = pos
	for n := 1; ; n++ {
		to = from
		for to < len(text) && bytes.IndexByte([]byte("/?# \t\"'"), text[to]) < 0 {
			to++
		}
		if n == count {
			if isPathToken(text[from:to]) || count > 1 && to-from >= minWebhook {
				return from, to
			}
			return 0, 0
		}
		if to == len(text) || text[to] != '/' {
			return 0, 0
		}
		from = to + 1
	}
}

// minWebhook is the length from which the last segment of the URL of a webhook is a secret.
const minWebhook = 20

// minPathToken is the length from which a segment with digits behind one of segmentNames is a token.
const minPathToken = 8

// isPathToken reports whether a segment is no word and no number.
func isPathToken(segment []byte) bool {
	if bytes.Contains(segment, []byte(".go:")) || bytes.Contains(segment, []byte(".js:")) || bytes.Contains(segment, []byte(".ts:")) {
		return false // a line of a source file
	}
	digits, letters := 0, 0
	for _, c := range segment {
		switch {
		case c >= '0' && c <= '9':
			digits++
		case isLetter(c):
			letters++
		}
	}
	return len(segment) >= minPathToken && digits > 0 && letters > 0 || len(segment) >= 32
}

// hideBot hides the token of a bot of Telegram: /bot123456:ABC-DEF/….
func (r *Redactor) hideBot(v view) {
	const word = "/bot"
	for from := 0; ; {
		i := bytes.Index(v.text[from:], []byte(word))
		if i < 0 {
			return
		}
		from += i + len(word)
		colon := from
		for colon < len(v.text) && v.text[colon] >= '0' && v.text[colon] <= '9' {
			colon++
		}
		if colon == from || colon == len(v.text) || v.text[colon] != ':' {
			continue
		}
		to := colon + 1
		for to < len(v.text) && isTokenChar(v.text[to]) {
			to++
		}
		r.hide(v, from, to, RulePath)
		from = to
	}
}

// jsonAmpersand is & as some libraries escape it in JSON, and so in log lines.
var jsonAmpersand = []byte(`\u0026`)

// encoded returns the character that is percent-encoded at pos, or −1.
func encoded(data []byte, pos int) int {
	if pos+2 >= len(data) || data[pos] != '%' {
		return -1
	}
	high, low := hexDigit(data[pos+1]), hexDigit(data[pos+2])
	if high < 0 || low < 0 {
		return -1
	}
	return high<<4 | low
}

func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}
