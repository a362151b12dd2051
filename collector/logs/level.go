package logs

import "bytes"

// levelWindow is the number of bytes at the front of a line in which its level is looked for, and
// jsonLevelWindow that of a line that is a JSON object.
const (
	levelWindow     = 96
	jsonLevelWindow = 512
)

// levelNames holds the words for a level and the level that an event has for it: one of trace, debug, info,
// warn, error and fatal, the names of OpenTelemetry's severity ranges.
var levelNames = []levelName{
	{"info", "info"},
	{"warn", "warn"},
	{"error", "error"},
	{"debug", "debug"},
	{"trace", "trace"},
	{"fatal", "fatal"},
	{"warning", "warn"},
	{"err", "error"},
	{"information", "info"},
	{"notice", "info"},
	{"note", "info"},
	{"critical", "fatal"},
	{"crit", "fatal"},
	{"panic", "fatal"},
	{"dpanic", "fatal"},
	{"alert", "fatal"},
	{"emerg", "fatal"},
	{"emergency", "fatal"},
	{"severe", "error"},
	{"fine", "debug"},
	{"verbose", "trace"},

	// Shortened by logrus, zerolog, Serilog and the console of .NET.
	{"erro", "error"},
	{"debu", "debug"},
	{"trac", "trace"},
	{"fata", "fatal"},
	{"pani", "fatal"},
	{"inf", "info"},
	{"wrn", "warn"},
	{"dbg", "debug"},
	{"trc", "trace"},
	{"ftl", "fatal"},
	{"pnc", "fatal"},
	{"vrb", "trace"},
	{"fail", "error"},
	{"dbug", "debug"},
	{"trce", "trace"},
}

type levelName struct{ word, level string }

// maxLevelWord is the length of the longest word of levelNames.
const maxLevelWord = len("information")

// levelsByLength holds levelNames by the length of the word.
var levelsByLength = func() (byLength [maxLevelWord + 1][]levelName) {
	for _, name := range levelNames {
		byLength[len(name.word)] = append(byLength[len(name.word)], name)
	}
	return byLength
}()

// levelKeys are the keys of JSON objects whose value is the level of a line.
var levelKeys = [...]string{
	"level", "severity", "lvl", "levelname", "level_name", "log.level", "@level", "loglevel", "log_level",
	"severity_text", "severitytext", "@l",
}

// detectLevel returns the level at the front of a line; "": none. It recognises the letter of klog
// (I1124 23:08:00.1), a member of a JSON object, a key of logfmt, a word in brackets, a word in capitals, and a
// word that begins the line and ends with a colon.
func detectLevel(line []byte) string {
	if object := bytes.TrimLeft(line, " \t"); len(object) > 0 && object[0] == '{' {
		return jsonLevel(object[:min(len(object), jsonLevelWindow)])
	}
	if len(line) > levelWindow {
		line = line[:levelWindow]
	}
	if level := klogLevel(line); level != "" {
		return level
	}

	// Check each word, a run of letters. c|0x20 is the lower case of a letter.
	for i := 0; i < len(line); i++ {
		if line[i] == '"' && i > 0 && line[i-1] == '=' {
			i += stringLength(line[i:]) - 1 // the quoted value of a logfmt key holds no level
			continue
		}
		c := line[i] | 0x20
		if c < 'a' || c > 'z' {
			continue
		}
		end := i + 1
		for end < len(line) && (line[end]|0x20) >= 'a' && (line[end]|0x20) <= 'z' {
			end++
		}
		// Most words are neither a key nor marked as a level, see levelAt.
		if c == 'l' || c == 's' || line[i] < 'a' || i == 0 ||
			line[i-1] == '[' || line[i-1] == '<' || line[i-1] == '(' || line[i-1] == ':' {
			if level := levelAt(line, i, end); level != "" {
				return level
			}
		}
		i = end
	}
	return ""
}

// jsonLevel returns the level of a JSON object, which may be cut: the value of one of levelKeys at its top, else
// that of the key level in its member log. Texts within values do not count.
func jsonLevel(object []byte) string {
	var (
		depth   int    // objects and arrays that are open
		arrays  uint64 // bit d: the container at depth d is an array
		wantKey bool   // the next string is a key
		inLog   bool   // the member "log" at the top is being read
		inner   string // the level in the member "log"
	)
	for i := 0; i < len(object); i++ {
		switch object[i] {
		case '{', '[':
			if depth++; depth == 64 {
				return inner
			}
			arrays &^= 1 << depth
			if object[i] == '[' {
				arrays |= 1 << depth
			}
			wantKey = object[i] == '{'
		case '}', ']':
			if depth--; depth == 0 {
				return inner // the end of the object: what follows is no part of it
			}
			inLog = inLog && depth > 1
			wantKey = false
		case ',':
			wantKey = depth > 0 && arrays&(1<<depth) == 0
		case '"':
			length := stringLength(object[i:])
			if wantKey && depth <= 2 && length >= 2 {
				key, rest := object[i+1:i+length-1], object[i+length:]
				switch {
				case depth == 1 && isLevelKey(key):
					if level := levelValue(rest); level != "" {
						return level
					}
				case depth == 1 && string(key) == "s" && inner == "":
					inner = letterLevel(rest)
				case depth == 1:
					inLog = string(key) == "log"
				case inLog && inner == "" && isLevelKey(key):
					inner = levelValue(rest)
				}
			}
			wantKey = false
			i += length - 1
		}
	}
	return inner
}

// stringLength returns the length of the string in quotes at the front of data, with its quotes. A string without
// an end is as long as data.
func stringLength(data []byte) int {
	for end := 1; ; end++ {
		quote := bytes.IndexByte(data[min(end, len(data)):], '"')
		if quote < 0 {
			return len(data)
		}
		end += quote
		backslashes := 0
		for data[end-1-backslashes] == '\\' {
			backslashes++ // ends at the opening quote at the latest
		}
		if backslashes%2 == 0 {
			return end + 1
		}
	}
}

// letterLevel returns the level of a member of MongoDB's log: one of F, E, W, I, D and D1 to D5.
func letterLevel(data []byte) string {
	if len(data) < 4 || data[0] != ':' || data[1] != '"' {
		return ""
	}
	debug := data[2] == 'D' && data[3] >= '1' && data[3] <= '5' && len(data) > 4 && data[4] == '"'
	if data[3] != '"' && !debug {
		return ""
	}
	switch data[2] {
	case 'F':
		return "fatal"
	case 'E':
		return "error"
	case 'W':
		return "warn"
	case 'I':
		return "info"
	case 'D':
		return "debug"
	}
	return ""
}

func isLevelKey(key []byte) bool {
	for _, name := range levelKeys {
		if len(key) == len(name) && equalFold(key, name) {
			return true
		}
	}
	return false
}

// levelAt returns the level for the word line[i:end]: the value behind the word if it is a key such as
// "level", else the level of the word itself if its neighbours mark it as one; "": none.
func levelAt(line []byte, i, end int) string {
	word := line[i:end]
	switch n := len(word); {
	case n == 5 && equalFold(word, "level"), n == 3 && equalFold(word, "lvl"),
		n == 8 && equalFold(word, "severity"), n == 9 && equalFold(word, "levelname"):
		return levelValue(line[end:])
	case n < 3 || n > maxLevelWord || end == len(line) && len(line) == levelWindow:
		return "" // too short, too long, or cut by the window
	}

	var before, after byte
	if i > 0 {
		before = line[i-1]
	}
	if end < len(line) {
		after = line[end]
	}
	switch {
	case before == '[' && (after == ']' || after == ' ' || after == ':'),
		before == '<' && after == '>', before == '(' && after == ')',
		before == ':' && after == ']' && isModule(line[:i-1]):
	case isUpper(word) && isBareLevel(line, before, end):
		if len(word) == len("information") {
			return "" // a heading: programs that call a level so write it as a key, or in brackets
		}
	case i == 0 && after == ':' && (end+1 == len(line) || line[end+1] == ' '):
		return firstWordLevel(word) // "info: x", as the consoles of .NET and winston
	default:
		return ""
	}
	return levelOf(word)
}

// isModule reports whether line ends with [ and a name, such as [core of Apache's [core:error].
func isModule(line []byte) bool {
	i := len(line)
	for ; i > 0; i-- {
		letter, digit := line[i-1]|0x20 >= 'a' && line[i-1]|0x20 <= 'z', line[i-1] >= '0' && line[i-1] <= '9'
		if !letter && !digit && line[i-1] != '_' {
			break
		}
	}
	return i > 0 && i < len(line) && line[i-1] == '['
}

// isBareLevel reports whether a word in capitals with the byte before and line[end:] behind it may be a level: it
// stands between separators, ends a field in brackets ([12:00:00 INF]), has a channel before it (app.ERROR: x), an
// exclamation mark behind it (npm ERR! x), or a digit (DEBUG1: x) or seconds (INFO[0012] x).
func isBareLevel(line []byte, before byte, end int) bool {
	var after byte
	if end < len(line) {
		after = line[end]
	}
	switch before {
	case '.':
		return after == ':'
	case 0, ' ', '\t', '|':
	default:
		return false
	}
	switch after {
	case 0, ' ', ':', '\t', '|', ',':
		return true
	case ']', '!':
		return before == ' '
	case '[':
		i := end + 1
		for i < len(line) && line[i] >= '0' && line[i] <= '9' {
			i++
		}
		return i > end+1 && i < len(line) && line[i] == ']'
	case '1', '2', '3', '4', '5':
		return end+1 < len(line) && line[end+1] == ':'
	}
	return false
}

// firstWordLevel returns the level of a word that begins a line and ends with a colon; "": none. Only the names
// that programs print so are levels there: "note: x" or "panic: x" is prose.
func firstWordLevel(word []byte) string {
	switch level := levelOf(word); string(word) {
	case "info", "warn", "warning", "error", "debug", "trace", "fatal", "crit", "critical", "verbose",
		"fail", "dbug", "trce":
		return level
	}
	return ""
}

// levelValue returns the level that stands behind a key: ="x", =x, ":"x", : x, or a number as pino and bunyan
// write it.
func levelValue(data []byte) string {
	// Quotes, spaces and at least one = or : stand between the key and its value, which may be coloured.
	i, sep := 0, false
	for i < len(data) && (data[i] == '"' || data[i] == '\'' || data[i] == ' ' || data[i] == '=' || data[i] == ':') {
		sep = sep || data[i] == '=' || data[i] == ':'
		i++
	}
	if !sep {
		return ""
	}
	i += escapedColours(data[i:])

	// The value ends at the first byte that is neither a letter nor a digit.
	end := i
	for end < len(data) && (data[end]|0x20 >= 'a' && data[end]|0x20 <= 'z' || data[end] >= '0' && data[end] <= '9') {
		end++
	}

	// The value is a number of pino and bunyan, or a word.
	switch string(data[i:end]) {
	case "10":
		return "trace"
	case "20":
		return "debug"
	case "30":
		return "info"
	case "40":
		return "warn"
	case "50":
		return "error"
	case "60":
		return "fatal"
	}
	return levelOf(data[i:end])
}

// escapedColours returns the length of the sequences SGR at the front of data that are escaped as in a string of JSON.
func escapedColours(data []byte) (length int) {
	for {
		rest := data[length:]
		const escape = `\u001b[`
		if len(rest) < len(escape) || !equalFold(rest[:len(escape)], escape) {
			return length
		}
		end := len(escape)
		for end < len(rest) && (rest[end] >= '0' && rest[end] <= ';') {
			end++
		}
		if end == len(rest) || rest[end] != 'm' {
			return length
		}
		length += end + 1
	}
}

// levelOf returns the level of a word of levelNames in any case; "": none. It does not allocate.
func levelOf(word []byte) string {
	if len(word) > maxLevelWord {
		return ""
	}
	for i := range levelsByLength[len(word)] {
		if name := &levelsByLength[len(word)][i]; equalFold(word, name.word) {
			return name.level
		}
	}
	return ""
}

// klogLevel returns the level of a line that begins with Lmmdd hh:mm:ss, as klog writes it, or with Lyyyymmdd, as
// newer versions of glog.
func klogLevel(data []byte) string {
	date := 1
	if len(data) > 18 && data[9] == ' ' && twoDigits(data[1:]) < 100 {
		date = 5
	}
	if len(data) < date+13 || data[date+4] != ' ' || data[date+7] != ':' || data[date+10] != ':' ||
		twoDigits(data[date:]) > 12 || twoDigits(data[date+2:]) > 31 {
		return ""
	}
	switch data[0] {
	case 'I':
		return "info"
	case 'W':
		return "warn"
	case 'E':
		return "error"
	case 'F':
		return "fatal"
	}
	return ""
}

// equalFold reports whether b equals lower in any case. lower is in lower case and as long as b.
func equalFold(b []byte, lower string) bool {
	for i := range len(lower) {
		if b[i]|0x20 != lower[i] && b[i] != lower[i] {
			return false
		}
	}
	return true
}

// isUpper reports whether b, which consists of letters, has capital ones only.
func isUpper(b []byte) bool {
	for _, c := range b {
		if c >= 'a' {
			return false
		}
	}
	return true
}

// twoDigits returns the decimal number in the first two bytes of b; 100: they are not digits.
func twoDigits(b []byte) uint {
	tens, ones := uint(b[0]-'0'), uint(b[1]-'0')
	if tens > 9 || ones > 9 {
		return 100
	}
	return tens*10 + ones
}
