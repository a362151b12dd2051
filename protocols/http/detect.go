package http

import (
	"bytes"

	"tidegate/protocols"
)

// maxRequestLine is how many bytes a request line may have until its method alone decides. Up to there the
// end of the line does, HTTP/1.x: its front could be that of SIP, RTSP, memcached or SMTP.
const maxRequestLine = 2 << 10

// maxMethod is the length of the longest method.
const maxMethod = 32

// methods are the known methods: a target of any length may follow them.
var methods = [...]string{
	"GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE", "PROPFIND", "REPORT", "SEARCH",
}

// detect judges whether data is the beginning of HTTP/1.
func detect(dir protocols.Dir, data []byte) protocols.Match {
	if dir == protocols.Client {
		return detectRequest(data)
	}
	return detectResponse(data)
}

func detectRequest(data []byte) protocols.Match {
	data = data[emptyLines(data):]
	if len(data) == 0 {
		return protocols.More
	}

	// The method, up to a space, or to the end of a line that has no target.
	space := bytes.IndexByte(data[:min(len(data), maxMethod+1)], ' ')
	word := data
	if space >= 0 {
		word = data[:space]
	}
	if i := bytes.IndexByte(word, '\n'); i >= 0 {
		return judgeMethodAlone(trim(word[:i]))
	}
	if space < 0 && len(word) > 1 && word[len(word)-1] == '\r' {
		return judgeMethodAlone(word[:len(word)-1])
	}
	if len(word) == 0 || len(word) > maxMethod || !isToken(word) {
		return protocols.No
	}
	if space < 0 {
		return protocols.More
	}

	// The rest of the line decides. Until its end is there, only a known method is believed, from
	// maxRequestLine on.
	rest := data[space+1:]
	sure := isKnownMethod(word)
	end := bytes.IndexByte(rest, '\n')
	line := rest
	if end >= 0 {
		line = rest[:end]
	}
	clean := isClean(line[:min(len(line), maxRequestLine)])
	switch {
	case !clean && !sure:
		return protocols.No
	case end >= 0:
		return detectLine(word, line, rest[end+1:])
	case len(rest) < maxRequestLine:
		return protocols.More
	case !clean:
		return protocols.No
	case sure:
		return protocols.Yes
	}
	return protocols.More
}

// isClean reports whether line has no control characters; those of binary protocols do.
func isClean(line []byte) bool {
	for _, c := range line {
		if c < ' ' && c != '\t' && c != '\r' {
			return false
		}
	}
	return true
}

// detectLine judges a whole request line by what follows its method. Scanners write the version with too few
// spaces or digits. A line without a version is a request of HTTP/0.9, or none: an empty line behind it
// decides, or what the server sends, or the port.
func detectLine(method, rest, next []byte) protocols.Match {
	rest = trim(rest)
	versioned := bytes.Contains(rest, []byte("HTTP/1."))
	switch {
	case versioned && (isKnownMethod(method) || isUpper(method) && len(method) >= 3):
		return protocols.Yes
	case hasVersion(rest) && isUpper(method) && bytes.Count(rest, []byte(" ")) <= 1:
		return protocols.Yes
	case isTarget(rest) && isKnownMethod(method) && isUpper(method):
		if len(next) >= 2 && next[0] == '\r' && next[1] == '\n' || len(next) > 0 && next[0] == '\n' {
			return protocols.Yes
		}
		return protocols.More
	}
	return protocols.No
}

// isTarget reports whether rest is one path or URL and nothing else. RTSP and SIP end their lines with a
// version of their own.
func isTarget(rest []byte) bool {
	return len(rest) > 0 && bytes.IndexByte(rest, ' ') < 0 && (rest[0] == '/' || schemeEnd(rest) > 0)
}

// judgeMethodAlone judges a request line that has no target.
func judgeMethodAlone(word []byte) protocols.Match {
	if isKnownMethod(word) && isUpper(word) {
		return protocols.More
	}
	return protocols.No
}

// hasVersion reports whether the line ends with HTTP/1.x.
func hasVersion(line []byte) bool {
	line = trim(line)
	n := len(line)
	return n >= 8 && string(line[n-8:n-1]) == "HTTP/1." && isDigit(line[n-1]) && (n == 8 || isBlank(line[n-9]))
}

// detectResponse looks for "HTTP/1.x ddd".
func detectResponse(data []byte) protocols.Match {
	data = data[emptyLines(data):]
	const form = "HTTP/1.d ddd"
	for i := range min(len(data), len(form)) {
		if form[i] == 'd' && isDigit(data[i]) || form[i] != 'd' && form[i] == data[i] {
			continue
		}
		return protocols.No
	}
	if len(data) <= len(form) {
		return protocols.More
	}
	if !isBlank(data[len(form)]) && data[len(form)] != '\n' {
		return protocols.No
	}
	return protocols.Yes
}

// emptyLines returns the length of the empty lines at the front of b (RFC 9112 section 2.2).
func emptyLines(b []byte) int {
	n := 0
	for n < len(b) && n < 8 && (b[n] == '\r' || b[n] == '\n') {
		n++
	}
	return n
}

// resync looks for a request or status line. It may stand behind anything: the last byte of a body is
// followed by no line break.
func resync(dir protocols.Dir, data []byte) (int, protocols.Match) {
	if dir == protocols.Server {
		return resyncResponse(data)
	}
	const version = " HTTP/1."
	for from := 0; ; {
		i := bytes.Index(data[from:], []byte(version))
		if i < 0 {
			break
		}
		i += from
		line := from + bytes.LastIndexByte(data[from:i], '\n') + 1 // not before the last version: no byte is scanned twice
		from = i + len(version)
		if at := lastMethod(data[line:i]); at >= 0 {
			if match := detectRequest(data[line+at:]); match != protocols.No {
				return line + at, match
			}
		}
	}
	keep := bytes.LastIndexByte(data, '\n') + 1
	if len(data)-keep > maxRequestLine {
		keep = len(data) - maxMethod
	}
	return keep, protocols.More
}

// lastMethod returns where in line, which ends before " HTTP/1.", the last known method begins, or −1.
func lastMethod(line []byte) int {
	best := -1
	for _, text := range methods {
		for end := len(line); end > 0; {
			i := bytes.LastIndex(line[:end], []byte(text))
			if i < 0 {
				break
			}
			if j := i + len(text); j < len(line) && line[j] == ' ' && i > best {
				best = i
				break
			}
			end = i
		}
	}
	return best
}

func resyncResponse(data []byte) (int, protocols.Match) {
	for from := 0; ; {
		i := bytes.IndexByte(data[from:], 'H')
		if i < 0 {
			return len(data), protocols.No
		}
		from += i
		if match := detectResponse(data[from:]); match != protocols.No {
			return from, match
		}
		from++
	}
}

// isKnownMethod reports whether word is one of methods, in whatever case.
func isKnownMethod(word []byte) bool {
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

// isToken reports whether b can be a method: letters, and the few other characters that registered methods
// have.
func isToken(b []byte) bool {
	for _, c := range b {
		if l := c | 0x20; (l < 'a' || l > 'z') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
