package http

import (
	"bytes"
	"slices"

	"tidegate/protocols"
)

// maxRequestLine is the length of an incomplete request line from which on its method alone decides. In a
// shorter line the version at its end decides, since the front may be that of SIP, RTSP, memcached or SMTP.
const maxRequestLine = 2 << 10

// maxKnownMethod is at least the length of the longest of methods.
const maxKnownMethod = 16

// methods are the known methods. After one of them an incomplete target may have any length.
var methods = [...]string{
	"GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE", "PROPFIND", "REPORT", "SEARCH",
}

// detect matches the beginning of HTTP/1.
func detect(dir protocols.Dir, data []byte) protocols.Match {
	if dir == protocols.Client {
		return detectRequest(data)
	}
	return detectResponse(data)
}

// detectRequest matches the front of a request. Usually the version at the end of its line decides.
func detectRequest(data []byte) protocols.Match {
	data = data[emptyLines(data):]
	if len(data) == 0 {
		return protocols.More
	}

	// The method ends with a space, or with the end of a line that has no target. Servers accept one of any length.
	space := methodEnd(data)
	if space < 0 && len(data) > maxRequestLine {
		if end := bytes.IndexByte(data, '\n'); end >= 0 {
			space = firstSpace(data[:end])
		} else {
			data = data[:maxRequestLine]
		}
	}
	word := data
	if space >= 0 {
		word = data[:space]
	}
	if alone, _, ended := bytes.Cut(word, []byte{'\n'}); ended {
		return matchMethodAlone(trim(alone))
	}
	if space < 0 && len(word) > 1 && word[len(word)-1] == '\r' {
		return matchMethodAlone(word[:len(word)-1])
	}
	if len(word) == 0 || !isToken(word) {
		return protocols.No
	}
	if space < 0 {
		return protocols.More
	}

	// A complete line decides by its end. An incomplete one decides only by a known method and the front of a target, from
	// maxRequestLine on: memcached and Redis have lines of any length that begin with get and GET.
	rest := data[space+1:]
	known := isKnownMethod(word)
	line, next, ended := bytes.Cut(rest, []byte{'\n'})
	clean := isClean(line[:min(len(line), maxRequestLine)])
	switch {
	case !clean && !known:
		return protocols.No
	case ended:
		return detectLine(word, line, next)
	case len(rest) < maxRequestLine:
		return protocols.More
	case !clean:
		return protocols.No
	case known && beginsTarget(rest):
		return protocols.Yes
	}
	return protocols.More
}

// beginsTarget reports whether rest, the part of an incomplete line after its method, begins with a path or a URL.
func beginsTarget(rest []byte) bool {
	rest = trimSpace(rest)
	return len(rest) > 0 && (rest[0] == '/' || schemeEnd(rest) > 0)
}

// methodEnd returns the length of the word at the front of data, which is a method if white space follows it, or −1.
// It looks at the first maxRequestLine bytes. Python's http.server splits a request line at any white space of Latin-1.
func methodEnd(data []byte) int { return firstSpace(data[:min(len(data), maxRequestLine)]) }

// firstSpace returns the offset of the first white space in data but CR, or −1.
func firstSpace(data []byte) int {
	for i, c := range data {
		if isSpace(c) && c != '\r' {
			return i
		}
	}
	return -1
}

// isSpace reports whether c is white space within a line, as the laxest of servers see it.
func isSpace(c byte) bool {
	return c == ' ' || c == '\t' || c == '\r' || c == '\v' || c == '\f' || c >= 0x1c && c <= 0x1f || c == 0x85 || c == 0xa0
}

// trimSpace returns data without the white space at both ends.
func trimSpace(data []byte) []byte {
	for len(data) > 0 && isSpace(data[0]) {
		data = data[1:]
	}
	for len(data) > 0 && isSpace(data[len(data)-1]) {
		data = data[:len(data)-1]
	}
	return data
}

// lastSpace returns the offset of the last white space in data, or −1.
func lastSpace(data []byte) int {
	for i, c := range slices.Backward(data) {
		if isSpace(c) {
			return i
		}
	}
	return -1
}

// isClean reports whether line has no control characters. Lines of binary protocols have some.
func isClean(line []byte) bool {
	for _, c := range line {
		if c < ' ' && !isSpace(c) {
			return false
		}
	}
	return true
}

// detectLine matches a whole request line by rest, the part after its method; next are the bytes after the
// line. Any token is a method where one word and a version follow: servers run what their handlers know.
// Scanners write the version with missing spaces or digits, so it may be malformed after a known method, and
// after one that looks like one. A line without a version may be a request of HTTP/0.9: an empty line after
// it, the server's first bytes, or the port decide. PHP's server reads any word as a version: the server's first bytes
// decide.
func detectLine(method, rest, next []byte) protocols.Match {
	rest = trimSpace(rest)
	usual := isUpper(method) && isWord(method)
	switch {
	case bytes.Contains(rest, []byte("HTTP/1.")) && (isKnownMethod(method) || usual && len(method) >= 3):
		return protocols.Yes
	case hasOtherVersion(rest) && isKnownMethod(method):
		return protocols.Yes
	case hasVersion(rest):
		target := trimSpace(rest[:len(rest)-len("HTTP/1.1")])
		if lastSpace(target) < 0 && (usual || len(target) > 0) {
			return protocols.Yes
		}
	case isHTTP09(method, rest):
		if bytes.HasPrefix(next, []byte("\r\n")) || bytes.HasPrefix(next, []byte("\n")) {
			return protocols.Yes
		}
		return protocols.More
	case hasUnknownVersion(method, rest):
		return protocols.More
	}
	return protocols.No
}

// hasOtherVersion reports whether the last word of a line is HTTP/ and a digit: Python's http.server reads HTTP/0.9 and
// HTTP/01.1, and PHP's also HTTP/2.0 and HTTP/3.7, in the form of HTTP/1.
func hasOtherVersion(line []byte) bool {
	version, found := bytes.CutPrefix(line[lastSpace(line)+1:], []byte("HTTP/"))
	return found && len(version) > 0 && isDigit(version[0])
}

// hasUnknownVersion reports whether a line is that of a request but for its last word: a known method, a path, and a word.
func hasUnknownVersion(method, rest []byte) bool {
	space := lastSpace(rest)
	return space > 0 && rest[0] == '/' && lastSpace(trimSpace(rest[:space])) < 0 && isKnownMethod(method) && isUpper(method)
}

// isHTTP09 reports whether a line of method and rest has the form of a request of HTTP/0.9.
func isHTTP09(method, rest []byte) bool {
	return isTarget(rest) && isKnownMethod(method) && isUpper(method)
}

// detectWhole reports whether data is a request of HTTP/0.9: one line with a known method and a target.
func detectWhole(data []byte) bool {
	line, length := protocols.CutLine(data[emptyLines(data):], maxHead)
	space := methodEnd(line)
	return space > 0 && emptyLines(data)+length == len(data) && isHTTP09(line[:space], trimSpace(line[space:]))
}

// isTarget reports whether rest is one path or URL and nothing else. RTSP and SIP end their lines with a
// version of their own.
func isTarget(rest []byte) bool {
	return len(rest) > 0 && lastSpace(rest) < 0 && (rest[0] == '/' || schemeEnd(rest) > 0)
}

// matchMethodAlone matches a request line that has no target.
func matchMethodAlone(word []byte) protocols.Match {
	if isKnownMethod(word) && isUpper(word) {
		return protocols.More
	}
	return protocols.No
}

// hasVersion reports whether the line ends with HTTP/1.x.
func hasVersion(line []byte) bool {
	line = trimSpace(line)
	length := len(line)
	return length >= 8 && string(line[length-8:length-1]) == "HTTP/1." && isDigit(line[length-1]) &&
		(length == 8 || isSpace(line[length-9]))
}

// detectResponse matches "HTTP/d.d ddd" and a space or the end of the line, where d is a digit. PHP's server answers with
// the version of the request.
func detectResponse(data []byte) protocols.Match {
	data = data[emptyLines(data):]
	const form = "HTTP/d.d ddd"
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

// emptyLines returns the length of the empty lines at the front of data (RFC 9112 section 2.2). Servers skip any
// number of them.
func emptyLines(data []byte) int {
	size := 0
	for size < len(data) && (data[size] == '\r' || data[size] == '\n') {
		size++
	}
	return size
}

// resync looks for a request or status line. It may start anywhere, since no line break follows the last byte
// of a body.
func resync(dir protocols.Dir, data []byte) (int, protocols.Match) {
	if dir == protocols.Server {
		return resyncResponse(data)
	}
	const version = "HTTP/1."
	// Find a version first, then the method before it in the same line.
	for from := 0; ; {
		found := bytes.Index(data[from:], []byte(version))
		if found < 0 {
			break
		}
		found += from
		// The line is searched from the last version on, so that no byte is scanned twice.
		line := from + bytes.LastIndexByte(data[from:found], '\n') + 1
		from = found + len(version)
		if found == 0 || !isSpace(data[found-1]) {
			continue
		}
		at := lastMethod(data[line:found])
		if at < 0 && (line == 0 || data[line-1] == '\n') {
			at = 0 // of another method
		}
		if at >= 0 {
			if match := detectRequest(data[line+at:]); match != protocols.No {
				return line + at, match
			}
		}
	}

	// An incomplete line at the end may be a request line: keep it, but of a long one only room for a method.
	keep := bytes.LastIndexByte(data, '\n') + 1
	if len(data)-keep > maxRequestLine {
		keep = len(data) - maxKnownMethod
	}
	return keep, protocols.More
}

// lastMethod returns the offset of the last known method in line, or −1. line is the part of a request line
// before "HTTP/1.".
func lastMethod(line []byte) int {
	best := -1
	for _, text := range methods {
		for end := len(line); end > 0; {
			start := bytes.LastIndex(line[:end], []byte(text))
			if start < 0 {
				break
			}
			if blank := start + len(text); blank < len(line) && isSpace(line[blank]) && start > best {
				best = start
				break
			}
			end = start
		}
	}
	return best
}

// resyncResponse looks for a status line.
func resyncResponse(data []byte) (int, protocols.Match) {
	for from := 0; ; {
		found := bytes.IndexByte(data[from:], 'H')
		if found < 0 {
			return len(data), protocols.No
		}
		from += found
		if match := detectResponse(data[from:]); match != protocols.No {
			return from, match
		}
		from++
	}
}

// isKnownMethod reports whether word is one of methods, in upper or lower case.
func isKnownMethod(word []byte) bool {
	for _, method := range methods {
		if len(word) == len(method) && bytes.EqualFold(word, []byte(method)) {
			return true
		}
	}
	return false
}

// isUpper reports whether word has no lower-case letters.
func isUpper(word []byte) bool {
	for _, c := range word {
		if c >= 'a' && c <= 'z' {
			return false
		}
	}
	return true
}

// isWord reports whether word has only letters and the two other characters of registered methods.
func isWord(word []byte) bool {
	for _, c := range word {
		if letter := c | 0x20; (letter < 'a' || letter > 'z') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// tokenBytes has the characters of a token (RFC 9110 section 5.6.2).
var tokenBytes = func() (table [256]bool) {
	for c := range 256 {
		letter := c | 0x20
		table[c] = c >= '0' && c <= '9' || letter >= 'a' && letter <= 'z'
	}
	for _, c := range []byte("!#$%&'*+-.^_`|~") {
		table[c] = true
	}
	return table
}()

// isToken reports whether word can be a method.
func isToken(word []byte) bool {
	for _, c := range word {
		if !tokenBytes[c] {
			return false
		}
	}
	return true
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
