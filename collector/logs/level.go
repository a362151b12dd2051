package logs

// levelWindow is the number of bytes at the front of a line in which its level is looked for.
const levelWindow = 96

// levelWords are the words for a level. The level of an event is the word of its line in lower case; synonyms
// are not unified.
var levelWords = [...]string{
	"trace", "debug", "info", "information", "notice", "warn", "warning", "error", "err", "fatal", "panic",
	"critical", "crit", "alert", "emerg", "emergency", "severe", "fine", "verbose", "dpanic",
}

// detectLevel returns the level at the front of a line; "": none. It recognises the letter of klog
// (I1124 23:08:00.1), a member of a JSON object, a key of logfmt, a word in brackets, and a word in capitals.
func detectLevel(line []byte) string {
	if len(line) > levelWindow {
		line = line[:levelWindow]
	}
	if level := klogLevel(line); level != "" {
		return level
	}

	// Check each word, a run of letters. c|0x20 is the lower case of a letter.
	for i := 0; i < len(line); i++ {
		c := line[i] | 0x20
		if c < 'a' || c > 'z' {
			continue
		}
		end := i + 1
		for end < len(line) && (line[end]|0x20) >= 'a' && (line[end]|0x20) <= 'z' {
			end++
		}
		if level := levelAt(line, i, end); level != "" {
			return level
		}
		i = end
	}
	return ""
}

// levelAt returns the level for the word line[i:end]: the value behind the word if it is a key such as
// "level", else the word itself if its neighbours mark it as a level; "": none.
func levelAt(line []byte, i, end int) string {
	word := line[i:end]
	switch n := len(word); {
	case n == 5 && equalFold(word, "level"), n == 3 && equalFold(word, "lvl"),
		n == 8 && equalFold(word, "severity"):
		return levelValue(line[end:])
	case n < 3 || n > 11 || end == len(line) && len(line) == levelWindow:
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
	return levelWord(word)
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
	return levelWord(data[i:end])
}

// levelWord returns the entry of levelWords that equals word in any case; "": none. It does not allocate.
func levelWord(word []byte) string {
	for _, level := range levelWords {
		if len(level) == len(word) && equalFold(word, level) {
			return level
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
		return "warning"
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
		if b[i]|0x20 != lower[i] {
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
