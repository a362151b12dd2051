package redis

import (
	"bytes"

	"tidegate/protocols"
)

// detect matches the beginning of RESP. Inline commands and simple replies look like other line protocols, so
// they yield More until the other side has sent.
func detect(dir protocols.Dir, data []byte) protocols.Match {
	if len(data) == 0 {
		return protocols.More
	}
	if dir == protocols.Server {
		return detectReply(data)
	}
	rest := skipNothing(data)
	if skipped := len(data) - len(rest); skipped > 0 && bytes.Count(data[:min(skipped, 64)], []byte{'*'}) >= minEmptyArrays {
		return protocols.Yes
	}
	data = rest
	if len(data) == 0 {
		return protocols.More
	}
	if data[0] == '*' {
		return detectCommand(data)
	}
	return detectInline(data)
}

// minEmptyArrays is the number of empty arrays in the first 64 bytes that no other protocol has.
const minEmptyArrays = 6

// skipNothing returns data without the empty arrays and the line breaks at its front, which the server skips. If it
// ends within an array that may be empty, nothing is left.
func skipNothing(data []byte) []byte {
	for len(data) > 0 {
		if data[0] == '\r' || data[0] == '\n' {
			data = data[1:]
			continue
		}
		if data[0] != '*' || len(data) > 1 && data[1] != '0' && data[1] != '-' {
			return data
		}
		line, length := cutHeader(data, 16)
		if length == 0 {
			if len(data) < 16 {
				return nil
			}
			return data
		}
		if count, ok := integer(line[1:]); !ok || count > 0 {
			return data
		}
		data = data[length:]
	}
	return data
}

// detectCommand matches an array whose first element is the name of a command: "*2\r\n$3\r\nGET\r\n".
func detectCommand(data []byte) protocols.Match {
	rest, _, match := header(data, '*')
	if match != protocols.Yes {
		return match
	}
	rest, size, match := header(rest, '$')
	if match != protocols.Yes {
		return match
	}
	if size < 1 || size > 64 {
		return protocols.No
	}
	name := rest[:min(int(size), len(rest))]
	if len(name) > 0 && !isName(name) {
		return protocols.No
	}
	if len(rest) < int(size)+2 {
		return protocols.More
	}
	if (rest[size] != '\r' || rest[size+1] != '\n') && !isCommandWord(name) {
		return protocols.No
	}
	return protocols.Yes
}

// detectQuoted matches a line whose first word is in quotes, which no other protocol has. whole reports that the
// line has its end. The rest of a line does not matter once its first word is complete: it may be long.
func detectQuoted(line []byte, whole bool) protocols.Match {
	var buf [64]byte
	word, rest := nextWord(line[:min(len(line), 64)], buf[:0])
	whole = whole || len(rest) > 0
	switch {
	case whole && isCommandWord(word):
		return protocols.Yes
	case whole || len(line) > 64 || !printable(line):
		return protocols.No
	}
	return protocols.More
}

// isCommandWord reports whether word is the name of a command of Redis, in upper or lower case.
func isCommandWord(word []byte) bool {
	var name [32]byte // longer than any, and as long as a string may be that needs no memory
	if len(word) > len(name) {
		return false
	}
	for i, c := range word {
		if c >= 'a' && c <= 'z' {
			c &^= 0x20
		}
		name[i] = c
	}
	return isCommandName(string(name[:len(word)]))
}

// header matches a line with the type kind and a small positive number n. rest follows the line. The server takes
// any byte for the LF.
func header(data []byte, kind byte) (rest []byte, n int64, m protocols.Match) {
	if len(data) == 0 {
		return nil, 0, protocols.More
	}
	if data[0] != kind {
		return nil, 0, protocols.No
	}
	digits := 1
	for digits < len(data) && digits < 11 && data[digits] >= '0' && data[digits] <= '9' {
		n = n*10 + int64(data[digits]-'0')
		digits++
	}
	switch {
	case digits == len(data):
		return nil, 0, protocols.More
	case digits == 1 || n == 0 || data[digits] != '\r':
		return nil, 0, protocols.No
	case digits+1 == len(data):
		return nil, 0, protocols.More
	}
	return data[digits+2:], n, protocols.Yes
}

// knownCommand reports whether data, which detectCommand accepts, has the name of a command of Redis.
func knownCommand(data []byte) bool {
	rest, _, match := header(data, '*')
	if match != protocols.Yes {
		return false
	}
	rest, size, match := header(rest, '$')
	if match != protocols.Yes || int(size) > len(rest) {
		return false
	}
	return isCommandWord(rest[:size])
}

// detectInline matches a line. It returns More if the first word is a command, since other protocols have
// such lines too.
func detectInline(data []byte) protocols.Match {
	data = bytes.TrimLeft(data[:min(len(data), 1<<10)], " \t\r\n\v\f") // the server ignores empty lines and blanks
	line, _, whole := bytes.Cut(data, []byte("\n"))
	line = bytes.TrimRight(line, "\r")
	if len(line) > 0 && (line[0] == '\'' || line[0] == '"') {
		return detectQuoted(line, whole)
	}
	word := line
	if end := bytes.IndexAny(line, " \t"); end >= 0 {
		word, whole = line[:end], true
	}

	// No text of a command: too long a word, or control characters.
	if len(word) > 20 || len(line) > 1<<10 || len(word) > 0 && !isName(word) {
		return protocols.No
	}
	for _, c := range line {
		if c < ' ' && c != '\t' && c != '\r' && c != '\v' && c != '\f' {
			return protocols.No
		}
	}
	if !whole || len(data) == 0 {
		return protocols.More
	}
	if !isCommandWord(word) || bytes.Contains(line, []byte(" HTTP/")) {
		return protocols.No
	}
	end := bytes.IndexByte(data, '\n')
	if end >= 0 && (getsNoReply(line, data[end+1:]) || hasCertainCommand(data[end+1:])) {
		return protocols.Yes
	}
	return protocols.More
}

// hasCertainCommand reports whether data, which follows a line with the name of a command, has a command in a form that only
// Redis has, behind no more than some lines with such names: the server need not answer them.
func hasCertainCommand(data []byte) bool {
	const most = 16
	for range most {
		if data = skipNothing(data); len(data) == 0 {
			return false
		}
		switch data[0] {
		case '*':
			return detectCommand(data) == protocols.Yes && knownCommand(data)
		case '"', '\'':
			return detectInline(data) == protocols.Yes
		}
		match, length := matchInline(data)
		if match != protocols.Yes || length == len(data) {
			return false
		}
		data = data[length:]
	}
	return false
}

// getsNoReply reports whether line, in front of rest, begins a conversation that only Redis has, although the server may
// never answer: CLIENT REPLY OFF or SKIP, PSYNC with the id of a stream and an offset, or another SYNC or PSYNC in front of
// a further command. One word may be the first line of another text protocol: the answer, or the port, decides.
func getsNoReply(line, rest []byte) bool {
	var words [4][]byte
	var buf [4][48]byte // the id of a stream has 40 digits
	count := 0
	for ; count < len(words); count++ {
		if words[count], line = nextWord(line, buf[count][:0]); words[count] == nil {
			break
		}
	}
	is := func(i int, want string) bool { return bytes.EqualFold(words[i], []byte(want)) }
	switch {
	case count == 3 && is(0, "CLIENT"):
		return is(1, "REPLY") && (is(2, "OFF") || is(2, "SKIP"))
	case count == 3 && is(0, "PSYNC"):
		_, isOffset := integer(words[2])
		return isOffset && (is(1, "?") || isStreamID(words[1])) || beginsWithCommand(rest)
	case count == 1 && is(0, "SYNC"):
		return beginsWithCommand(rest)
	}
	return false
}

// isStreamID reports whether word is the id of a replication stream: 40 hexadecimal digits.
func isStreamID(word []byte) bool {
	isOther := func(r rune) bool { return (r < '0' || r > '9') && (r < 'a' || r > 'f') && (r < 'A' || r > 'F') }
	return len(word) == 40 && bytes.IndexFunc(word, isOther) < 0
}

// beginsWithCommand reports whether data begins with a whole line with the name of a command, but for those that many
// text protocols have, and that change nothing.
func beginsWithCommand(data []byte) bool {
	data = skipNothing(data)
	match, length := matchInline(data)
	if match != protocols.Yes || data[length-1] != '\n' {
		return false
	}
	var buf [64]byte
	word, _ := nextWord(data[:min(length, 64)], buf[:0])
	switch string(bytes.ToUpper(word)) {
	case "SYNC", "PSYNC", "QUIT", "PING", "RESET", "AUTH", "HELLO", "INFO", "TIME", "ECHO", "GET", "TYPE", "EXISTS":
		return false
	}
	return true
}

// snapshotMark begins the answer to SYNC of a server that does not know the size of its snapshot, and snapshotMagic the
// snapshot.
const (
	snapshotMark  = "$EOF:"
	snapshotMagic = "REDIS"
)

// detectSnapshot matches the answer to SYNC behind line feeds, with which the server keeps a client alive that waits for its
// snapshot. A client that goes on within its command may have sent any other bytes behind a line feed.
func detectSnapshot(data []byte) protocols.Match {
	if len(data) == 0 {
		return protocols.More
	}
	rest, _, match := header(data, '$')
	switch {
	case match != protocols.Yes:
		return match
	case bytes.HasPrefix(rest, []byte(snapshotMagic)):
		return protocols.Yes
	case bytes.HasPrefix([]byte(snapshotMagic), rest):
		return protocols.More
	}
	return protocols.No
}

// detectReply matches up to eight lines of replies. It returns Yes at the first line that no other protocol
// has.
func detectReply(data []byte) protocols.Match {
	behind := bytes.TrimLeft(data, "\n")
	if bytes.HasPrefix(behind, []byte(snapshotMark)) || len(behind) > 0 && bytes.HasPrefix([]byte(snapshotMark), behind) {
		if len(behind) > len(snapshotMark) {
			return protocols.Yes
		}
		return protocols.More
	}
	if len(behind) < len(data) {
		return detectSnapshot(behind)
	}
	for range 8 {
		if !isReply(data) {
			return protocols.No
		}
		// A line that ends in CR LF.
		line, length := protocols.CutLine(data, maxLine)
		if length == 0 {
			return protocols.More
		}
		if len(line) == 0 || data[length-1] != '\n' || length < 2 || data[length-2] != '\r' {
			return protocols.No
		}

		// A type with a number is certain; a string or an error only with a word of Redis.
		rest := line[1:]
		switch line[0] {
		case '+':
			switch {
			case string(rest) == "PONG" || string(rest) == "QUEUED" || bytes.HasPrefix(rest, []byte("FULLRESYNC ")):
				return protocols.Yes
			case bytes.HasPrefix(rest, []byte("OK ")):
				return protocols.No // POP3
			}
		case '-':
			if blank := bytes.IndexByte(rest, ' '); blank >= 0 && errorWord(rest[:blank]) {
				return protocols.Yes
			}
			if isRedisError(rest) {
				return protocols.Yes
			}
			if !bytes.HasPrefix(rest, []byte("ERR")) {
				return protocols.No
			}
		case ':', '$', '*', '%', '~', '>':
			if _, ok := integer(rest); ok {
				return protocols.Yes
			}
			return protocols.No
		case '_', '#', ',', '(', '!', '=', '|': // other protocols have such lines: the next line may decide
		default:
			return protocols.No
		}
		if data = data[length:]; len(data) == 0 {
			return protocols.More
		}
	}
	return protocols.More
}

// isRedisError reports whether an error has a text that only Redis sends, for what is no command of it.
func isRedisError(text []byte) bool {
	for _, begin := range [...]string{"ERR unknown command '", "ERR unknown command `", "ERR wrong number of arguments for '", "ERR Protocol error: ", "ERR Can't SYNC "} {
		if bytes.HasPrefix(text, []byte(begin)) {
			return true
		}
	}
	return false
}

// errorWord reports whether word is a first word of errors that only Redis has.
func errorWord(word []byte) bool {
	switch string(word) {
	case "NOAUTH", "WRONGTYPE", "WRONGPASS", "MOVED", "ASK", "LOADING", "NOPERM", "READONLY", "BUSY", "EXECABORT",
		"MASTERDOWN", "NOSCRIPT", "CLUSTERDOWN", "OOM", "MISCONF", "DENIED", "NOPROTO", "BUSYGROUP", "NOGROUP",
		"UNKILLABLE", "CROSSSLOT", "TRYAGAIN", "NOMASTERLINK":
		return true
	}
	return false
}

// isReply reports whether data, which may be incomplete, can begin with a reply.
func isReply(data []byte) bool {
	if len(data) == 0 {
		return false
	}
	line, length := protocols.CutLine(data, maxLine)
	if length == 0 { // the front of a line
		if len(data) > maxLine {
			return false
		}
		line = bytes.TrimRight(data, "\r")
	}
	if len(line) == 0 {
		return false
	}
	switch rest := line[1:]; line[0] {
	case '+', '-', ',', '(', '|':
		return printable(rest)
	case '_':
		return len(rest) == 0
	case '#':
		return len(rest) <= 1
	case ':', '$', '*', '%', '~', '>', '!', '=':
		if len(rest) == 0 || string(rest) == "?" || string(rest) == "-" || string(rest) == "+" {
			return length == 0 || string(rest) == "?"
		}
		_, ok := integer(bytes.TrimPrefix(rest, []byte("+")))
		return ok
	}
	return false
}

func printable(data []byte) bool {
	for _, c := range data[:min(len(data), 256)] {
		if c < ' ' && c != '\t' {
			return false
		}
	}
	return true
}

// resync finds a command at the start of data or of a line. It finds a reply only at the start of data, which
// is usually the start of a packet, since the elements of a reply look like replies.
func resync(dir protocols.Dir, data []byte) (int, protocols.Match) {
	if dir == protocols.Server {
		if isReply(data) {
			return 0, protocols.Yes
		}
		return len(data), protocols.No
	}
	// Invariant: no command begins before at.
	for at := 0; at < len(data); {
		if match := detectCommand(data[at:]); match == protocols.Yes && knownCommand(data[at:]) || match == protocols.More {
			return at, match
		}
		if match := resyncInline(data, at); match != protocols.No {
			return at, match
		}
		found := bytes.IndexByte(data[at:], '\n')
		if found < 0 {
			break
		}
		at += found + 1
	}
	// A command may begin with the next byte, or with the last one.
	if bytes.HasSuffix(data, []byte("\n")) {
		return len(data), protocols.No
	}
	return max(0, len(data)-1), protocols.More
}

// longInline is the length from which on a line without its end counts as an inline command, if it has the name of one.
const longInline = 4 << 10

// resyncInline reports whether an inline command begins at data[at:], the start of a line. A value may be a text with
// such lines, so the next line must not contradict. At the start of data, which is usually that of a packet, the line
// alone decides.
func resyncInline(data []byte, at int) protocols.Match {
	match, length := matchInline(data[at:])
	if match != protocols.Yes || at == 0 {
		return match
	}
	next := data[at+length:]
	if len(next) == 0 || next[0] == '*' || next[0] == '\r' || next[0] == '\n' {
		return protocols.Yes
	}
	if match, _ := matchInline(next); match == protocols.No {
		return protocols.No
	}
	return protocols.Yes
}

// matchInline matches the line at the front of data with an inline command whose name Redis has, and returns the length
// of the line.
func matchInline(data []byte) (match protocols.Match, length int) {
	line, whole := data[:min(len(data), longInline)], len(data) >= longInline
	if end := bytes.IndexByte(line, '\n'); end >= 0 {
		line, whole = line[:end], true
		length = end + 1
	} else {
		length = len(data)
	}
	line = bytes.Trim(line, "\r") // the server skips CRs in front of a command
	var buf [64]byte
	word, rest := nextWord(line[:min(len(line), 64)], buf[:0])
	switch named := isCommandWord(word); {
	case !printable(line):
		return protocols.No, length
	case whole && named:
		return protocols.Yes, length
	case whole, len(line) > 64 && !named, len(rest) > 0 && !named:
		return protocols.No, length
	}
	return protocols.More, length
}
