package logs

import (
	"bytes"
	"encoding/binary"
	"unicode/utf16"
	"unicode/utf8"
)

// A record is one line of a json-file log: {"log":"…","stream":"stdout","attrs":{…},"time":"…"}.
type record struct {
	log     []byte // the payload, unescaped in place: it lies in the bytes that were parsed; without the newline that ends a line
	newline bool   // the payload ended in a newline: the line is complete
	raw     int    // length of the payload as the container wrote it, newline included: an invalid byte stands as one, though it is three now
	stream  stream
	time    int64 // ns since 1970; 0: absent or not understood
	attrs   []byte
}

type stream uint8

const (
	stdout stream = iota
	stderr
	streams // how many there are
)

func (s stream) String() string {
	if s == stderr {
		return "stderr"
	}
	return "stdout"
}

// parse reads b, one record without its newline, into r. It says false of what is no such record, and then b is untouched; else
// b has been overwritten where r.log needed unescaping. Keys may stand in any order, unknown ones are skipped; the last of two wins.
//
// This is the hot path: dockerd's own order and spacing take the short ways. It is more lenient than JSON where that loses
// nothing: control characters in a string, unknown escapes (kept as they stand), no log at all is no record.
func (r *record) parse(b []byte, clock *timeParser) bool {
	*r = record{}
	log, ok := r.parseMembers(b, clock)
	if !ok {
		return false
	}
	r.raw = len(log)
	if i := bytes.IndexByte(log, '\\'); i >= 0 {
		if i == len(log)-2 && log[i+1] == 'n' { // nearly every line: the only escape is the newline that ends it
			r.log, r.newline, r.raw = log[:i], true, i+1
			return true
		}
		var invalid int
		log, invalid = unescape(log, i)
		r.raw = len(log) - 2*invalid
	}
	if n := len(log) - 1; n >= 0 && log[n] == '\n' {
		log, r.newline = log[:n], true
	}
	r.log = log
	return true
}

// parseMembers walks over the object and returns the payload as it stands, escapes and all.
func (r *record) parseMembers(b []byte, clock *timeParser) (log []byte, ok bool) {
	i := skipSpace(b, 0)
	if i >= len(b) || b[i] != '{' {
		return nil, false
	}
	if i = skipSpace(b, i+1); i < len(b) && b[i] == '}' {
		return nil, false
	}
	found := false
	for {
		key, next := scanString(b, i)
		if next < 0 {
			return nil, false
		}
		if next = skipSpace(b, next); next >= len(b) || b[next] != ':' {
			return nil, false
		}
		start := skipSpace(b, next+1)
		end := scanValue(b, start)
		if end < 0 {
			return nil, false
		}
		v := b[start:end]
		switch {
		case v[0] != '"':
			if string(key) == "attrs" && v[0] == '{' {
				r.attrs = v
			} else if string(key) == "log" {
				return nil, false
			}
		case string(key) == "log":
			log, found = v[1:len(v)-1], true
		case string(key) == "stream":
			r.stream = stdout
			if string(v) == `"stderr"` {
				r.stream = stderr
			}
		case string(key) == "time":
			r.time = clock.parse(v[1 : len(v)-1])
		}
		i = skipSpace(b, end)
		if i >= len(b) {
			return nil, false
		}
		if b[i] == '}' {
			return log, found && skipSpace(b, i+1) == len(b)
		}
		if b[i] != ',' {
			return nil, false
		}
		i = skipSpace(b, i+1)
	}
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\r' || b[i] == '\n') {
		i++
	}
	return i
}

// scanString returns what is between the quotes of the string at b[i] and the place behind it; -1: there is no whole string.
func scanString(b []byte, i int) ([]byte, int) {
	if i >= len(b) || b[i] != '"' {
		return nil, -1
	}
	start := i + 1
	for i = start; ; i++ {
		n := bytes.IndexByte(b[i:], '"')
		if n < 0 {
			return nil, -1
		}
		i += n
		slashes := 0
		for j := i - 1; j >= start && b[j] == '\\'; j-- {
			slashes++
		}
		if slashes%2 == 0 {
			return b[start:i], i + 1
		}
	}
}

// scanValue returns the place behind the value at b[i]: of a string, an object or a list (by depth, strings respected) or a word.
func scanValue(b []byte, i int) int {
	if i >= len(b) {
		return -1
	}
	switch b[i] {
	case '"':
		_, end := scanString(b, i)
		return end
	case '{', '[':
		return scanNested(b, i)
	}
	start := i
	for i < len(b) && (b[i] >= '0' && b[i] <= '9' || b[i] >= 'a' && b[i] <= 'z' || b[i] == '-' || b[i] == '+' || b[i] == '.' || b[i] == 'E') {
		i++
	}
	if i == start {
		return -1
	}
	return i
}

// scanNested returns the place behind the object or list at b[i]; it counts brackets and does not recurse.
func scanNested(b []byte, i int) int {
	depth := 0
	for i < len(b) {
		switch b[i] {
		case '"':
			_, end := scanString(b, i)
			if end < 0 {
				return -1
			}
			i = end
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
		}
		i++
	}
	return -1
}

// unescape rewrites s, whose first backslash is at i, in place, and returns it with the number of bytes in it that were not UTF-8
// when the container wrote them: dockerd writes \ufffd for each. What is no escape of JSON is kept as it stands.
func unescape(s []byte, i int) (out []byte, invalid int) {
	w := i
	for i < len(s) {
		if s[i] != '\\' || i+1 >= len(s) {
			s[w] = s[i]
			w, i = w+1, i+1
			continue
		}
		i++
		switch c := s[i]; c {
		case 'n':
			s[w] = '\n'
		case 't':
			s[w] = '\t'
		case 'r':
			s[w] = '\r'
		case 'b':
			s[w] = '\b'
		case 'f':
			s[w] = '\f'
		case '"', '\\', '/':
			s[w] = c
		case 'u':
			r, n := escapedRune(s[i-1:])
			if n == 0 {
				s[w], s[w+1] = '\\', 'u'
				w++
				break
			}
			if r == utf8.RuneError {
				invalid++
			}
			w += utf8.EncodeRune(s[w:w+4], r) - 1
			i += n - 2
		default:
			s[w], s[w+1] = '\\', c
			w++
		}
		w, i = w+1, i+1
		// The stretch up to the next backslash moves as a whole.
		n := bytes.IndexByte(s[i:], '\\')
		if n < 0 {
			n = len(s) - i
		}
		w += copy(s[w:], s[i:i+n])
		i += n
	}
	return s[:w], invalid
}

// escapedRune reads \uXXXX, or two of them that are a surrogate pair, from the front of s; n == 0: it is none.
func escapedRune(s []byte) (r rune, n int) {
	r, ok := parseHex4(s)
	if !ok {
		return 0, 0
	}
	if !utf16.IsSurrogate(r) {
		return r, 6
	}
	if low, ok := parseHex4(s[6:]); ok {
		if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
			return pair, 12
		}
	}
	return utf8.RuneError, 6
}

func parseHex4(s []byte) (rune, bool) {
	if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
		return 0, false
	}
	var r rune
	for _, c := range s[2:6] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// A timeParser reads times. It keeps the last date, because nearly all records of a buffer share it.
type timeParser struct {
	date     [10]byte
	midnight int64 // of date, seconds since 1970
}

// parse reads RFC 3339 with up to nine digits of a second; 0: it is none.
func (c *timeParser) parse(b []byte) int64 {
	if len(b) < len("2006-01-02T15:04:05Z") || b[10] != 'T' && b[10] != 't' || b[13] != ':' || b[16] != ':' {
		return 0
	}
	// Two loads instead of a comparison by call: a date changes once a day.
	if binary.LittleEndian.Uint64(b) != binary.LittleEndian.Uint64(c.date[:]) || b[8] != c.date[8] || b[9] != c.date[9] {
		if !c.setDate(b) {
			return 0
		}
	}
	h, m, s := twoDigits(b[11:]), twoDigits(b[14:]), twoDigits(b[17:])
	if h > 23 || m > 59 || s > 60 {
		return 0
	}
	ns, i := int64(0), 19
	if b[i] == '.' {
		scale := int64(1e9)
		for i++; i < len(b) && b[i] >= '0' && b[i] <= '9'; i++ {
			if scale > 1 {
				scale /= 10
				ns += int64(b[i]-'0') * scale
			}
		}
	}
	offset, ok := parseZone(b[i:])
	if !ok {
		return 0
	}
	return (c.midnight+int64(h)*3600+int64(m)*60+int64(s)-offset)*1e9 + ns
}

func parseZone(b []byte) (seconds int64, ok bool) {
	if len(b) == 1 && (b[0] == 'Z' || b[0] == 'z') {
		return 0, true
	}
	if len(b) != 6 || b[0] != '+' && b[0] != '-' || b[3] != ':' {
		return 0, false
	}
	h, m := twoDigits(b[1:]), twoDigits(b[4:])
	if h > 23 || m > 59 {
		return 0, false
	}
	seconds = int64(h)*3600 + int64(m)*60
	if b[0] == '-' {
		seconds = -seconds
	}
	return seconds, true
}

// setDate reads 2006-01-02 from the front of b. Years that an int64 of nanoseconds can not hold are refused.
func (c *timeParser) setDate(b []byte) bool {
	hi, lo, m, d := twoDigits(b), twoDigits(b[2:]), twoDigits(b[5:]), twoDigits(b[8:])
	y := int64(hi)*100 + int64(lo)
	if hi > 99 || lo > 99 || b[4] != '-' || b[7] != '-' || m < 1 || m > 12 || d < 1 || d > 31 || y < 1678 || y > 2261 {
		return false
	}
	// Days of the civil calendar, the year beginning in March.
	mm := int64(m)
	if mm <= 2 {
		y--
		mm += 12
	}
	days := 365*y + y/4 - y/100 + y/400 + (153*(mm-3)+2)/5 + int64(d) - 1 - 719468
	copy(c.date[:], b[:10])
	c.midnight = days * 86400
	return true
}

// twoDigits reads two digits; anything else is more than 99.
func twoDigits(b []byte) uint {
	h, l := uint(b[0]-'0'), uint(b[1]-'0')
	if h > 9 || l > 9 {
		return 100
	}
	return h*10 + l
}
