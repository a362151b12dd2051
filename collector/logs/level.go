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
	"level", "severity", "lvl", "levelname", "level_name", "log.level", "@level", "loglevel", "severity_text", "severitytext",
}

// detectLevel returns the level at the front of a line; "": none. It recognises the letter of klog
// (I1124 23:08:00.1), a member of a JSON object, a key of logfmt, a word in brackets, and a word in capitals.
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
		if c == 'l' || c == 's' || line[i] < 'a' || i > 0 && (line[i-1] == '[' || line[i-1] == '<' || line[i-1] == '(') {
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
			if wantKey && depth <= 2 && length > 2 {
				key, rest := object[i+1:i+length-1], object[i+length:]
				switch {
				case depth == 1 && isLevelKey(key):
					if level := levelValue(rest); level != "" {
						return level
					}
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

	// A level word stands in brackets, or in capitals between separators.
	var before, after byte
	if i > 0 {
		before = line[i-1]
	}
	if end < len(line) {
		after = line[end]
	}
	switch {
	case before == '[' && (after == ']' || after == ' ' || after == ':'),
		before == '<' && after == '>', before == '(' && after == ')':
	case isUpper(word) && (before == 0 || before == ' ' || before == '\t' || before == '|') &&
		(after == 0 || after == ' ' || after == ':' || after == '\t' || after == '|' || after == ','):
	default:
		return ""
	}
	return levelOf(word)
}

// levelValue returns the level that stands behind a key: ="x", =x, ":"x", : x, or a number as pino and bunyan
// write it.
func levelValue(data []byte) string {
	// Quotes, spaces and at least one = or : stand between the key and its value.
	i, sep := 0, false
	for i < len(data) && (data[i] == '"' || data[i] == '\'' || data[i] == ' ' || data[i] == '=' || data[i] == ':') {
		sep = sep || data[i] == '=' || data[i] == ':'
		i++
	}
	if !sep {
		return ""
	}

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

// klogLevel returns the level of a line that begins with Lmmdd hh:mm:ss, as klog writes it.
func klogLevel(data []byte) string {
	if len(data) < 14 || data[5] != ' ' || data[8] != ':' || data[11] != ':' ||
		twoDigits(data[1:]) > 12 || twoDigits(data[3:]) > 31 {
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

// isUpper reports whether b consists of capital letters.
func isUpper(b []byte) bool {
	for _, c := range b {
		if c < 'A' || c > 'Z' {
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
