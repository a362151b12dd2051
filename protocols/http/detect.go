package http

import (
	"bytes"

	"tidegate/protocols"
)

// A request line is told by its end, HTTP/1.x: its beginning alone could be that of SIP, RTSP, memcached or SMTP. So a line is
// waited for up to surelyLine bytes, from where on a method that we know is enough.
const surelyLine = 2 << 10

// maxMethod is the longest method that is one.
const maxMethod = 32

// methods are those for which a target of any length is believed before the version was seen.
var methods = [...]string{"GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE", "PROPFIND", "REPORT", "SEARCH"}

// detect tells whether b is the beginning of HTTP/1.
func detect(dir protocols.Dir, b []byte) protocols.Match {
	if dir == protocols.Client {
		return detectRequest(b)
	}
	return detectResponse(b)
}

func detectRequest(b []byte) protocols.Match {
	b = b[leading(b):]
	if len(b) == 0 {
		return protocols.More
	}
	space := bytes.IndexByte(b[:min(len(b), maxMethod+1)], ' ')
	word := b
	if space >= 0 {
		word = b[:space]
	}
	if i := bytes.IndexByte(word, '\n'); i >= 0 {
		return noTarget(trim(word[:i]))
	}
	if space < 0 && len(word) > 1 && word[len(word)-1] == '\r' {
		return noTarget(word[:len(word)-1])
	}
	if len(word) == 0 || len(word) > maxMethod || !isToken(word) {
		return protocols.No
	}
	if space < 0 {
		return protocols.More
	}
	rest := b[space+1:]
	sure := known(word)
	end := bytes.IndexByte(rest, '\n')
	line := rest
	if end >= 0 {
		line = rest[:end]
	}
	clean := isClean(line[:min(len(line), surelyLine)])
	switch {
	case !clean && !sure:
		return protocols.No
	case end >= 0:
		return detectLine(word, line, rest[end+1:])
	case len(rest) < surelyLine:
		return protocols.More
	case !clean:
		return protocols.No
	case sure:
		return protocols.Yes
	}
	return protocols.More
}

// isClean tells that line has no control characters, as binary protocols do.
func isClean(line []byte) bool {
	for _, c := range line {
		if c < ' ' && c != '\t' && c != '\r' {
			return false
		}
	}
	return true
}

// detectLine judges a whole request line by what follows its method. Probes write the version with too few spaces or digits, and
// without one it is HTTP/0.9, or wrong: an empty line behind it tells, or what is said next, or the port.
func detectLine(method, rest, next []byte) protocols.Match {
	rest = trim(rest)
	versioned := bytes.Contains(rest, []byte("HTTP/1."))
	switch {
	case versioned && (known(method) || isUpper(method) && len(method) >= 3):
		return protocols.Yes
	case hasVersion(rest) && isUpper(method) && bytes.Count(rest, []byte(" ")) <= 1:
		return protocols.Yes
	case simpleTarget(rest) && known(method) && isUpper(method):
		if len(next) >= 2 && next[0] == '\r' && next[1] == '\n' || len(next) > 0 && next[0] == '\n' {
			return protocols.Yes
		}
		return protocols.More
	}
	return protocols.No
}

// simpleTarget tells that rest is one path or URL and nothing else. RTSP and SIP end their lines with a version of their own.
func simpleTarget(rest []byte) bool {
	return len(rest) > 0 && bytes.IndexByte(rest, ' ') < 0 && (rest[0] == '/' || schemeEnd(rest) > 0)
}

// noTarget judges a request line that is nothing but word.
func noTarget(word []byte) protocols.Match {
	if known(word) && isUpper(word) {
		return protocols.More
	}
	return protocols.No
}

// hasVersion tells that the line ends with HTTP/1.x.
func hasVersion(line []byte) bool {
	line = trim(line)
	n := len(line)
	return n >= 8 && string(line[n-8:n-1]) == "HTTP/1." && digit(line[n-1]) && (n == 8 || blank(line[n-9]))
}

// detectResponse looks for "HTTP/1.x ddd".
func detectResponse(b []byte) protocols.Match {
	b = b[leading(b):]
	const form = "HTTP/1.d ddd"
	for i := range min(len(b), len(form)) {
		if form[i] == 'd' && digit(b[i]) || form[i] != 'd' && form[i] == b[i] {
			continue
		}
		return protocols.No
	}
	if len(b) <= len(form) {
		return protocols.More
	}
	if !blank(b[len(form)]) && b[len(form)] != '\n' {
		return protocols.No
	}
	return protocols.Yes
}

// leading is how many empty lines b begins with (RFC 9112 section 2.2), as bytes.
func leading(b []byte) int {
	n := 0
	for n < len(b) && n < 8 && (b[n] == '\r' || b[n] == '\n') {
		n++
	}
	return n
}

// resync looks for a request or status line. It may stand behind anything: the last byte of a body is followed by no line break.
func resync(dir protocols.Dir, b []byte) (int, protocols.Match) {
	if dir == protocols.Server {
		return resyncResponse(b)
	}
	const version = " HTTP/1."
	for from := 0; ; {
		i := bytes.Index(b[from:], []byte(version))
		if i < 0 {
			break
		}
		i += from
		line := from + bytes.LastIndexByte(b[from:i], '\n') + 1 // behind the last version, so that no byte is looked at twice
		from = i + len(version)
		if at := lastMethod(b[line:i]); at >= 0 {
			if m := detectRequest(b[line+at:]); m != protocols.No {
				return line + at, m
			}
		}
	}
	keep := bytes.LastIndexByte(b, '\n') + 1
	if len(b)-keep > surelyLine {
		keep = len(b) - maxMethod
	}
	return keep, protocols.More
}

// lastMethod is where in line, which ends before " HTTP/1.", a method that we know begins, or −1.
func lastMethod(line []byte) int {
	best := -1
	for _, m := range methods {
		for end := len(line); end > 0; {
			i := bytes.LastIndex(line[:end], []byte(m))
			if i < 0 {
				break
			}
			if j := i + len(m); j < len(line) && line[j] == ' ' && i > best {
				best = i
				break
			}
			end = i
		}
	}
	return best
}

func resyncResponse(b []byte) (int, protocols.Match) {
	for from := 0; ; {
		i := bytes.IndexByte(b[from:], 'H')
		if i < 0 {
			return len(b), protocols.No
		}
		from += i
		if m := detectResponse(b[from:]); m != protocols.No {
			return from, m
		}
		from++
	}
}

// known tells that word is one of methods, in whatever case.
func known(word []byte) bool {
	for _, m := range methods {
		if len(word) == len(m) && bytes.EqualFold(word, []byte(m)) {
			return true
		}
	}
	return false
}

func isUpper(b []byte) bool {
	for _, c := range b {
		if c >= 'a' && c <= 'z' {
			return false
		}
	}
	return true
}

// isToken tells that b is a method: letters, and the few other characters that registered ones have.
func isToken(b []byte) bool {
	for _, c := range b {
		if l := c | 0x20; (l < 'a' || l > 'z') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

func digit(c byte) bool { return c >= '0' && c <= '9' }
