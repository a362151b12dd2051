package http

import (
	"bytes"
	"encoding/base64"
	"strings"

	"tidegate/pipeline"
	"tidegate/pipeline/authority"
	"tidegate/pipeline/redact"
	"tidegate/protocols"
)

// Bounds of the values that are kept of a head.
const (
	maxTarget    = 8 << 10 // bytes of the request target; of a longer text the head and the tail are kept
	maxReferrer  = 2 << 10 // bytes of Referer, of Location
	maxAgent     = 1 << 10 // bytes of User-Agent
	maxWord      = 256     // bytes of a host, of Server, of a method
	maxForwarded = 8       // addresses of X-Forwarded-For
	maxSchemes   = 4       // authentication schemes
)

// setTarget fills in the fields of the request target: a path, an absolute URL (to a proxy), or host:port
// (CONNECT).
func (p *parser) setTarget(exchange *exchange, target []byte) {
	if len(target) == 0 {
		return
	}
	body := exchange.event.Http
	redacted, hidden := p.conn.Redactor().URL(target)
	body.UrlOriginal = p.conn.Text(exchange.event, redacted, maxTarget)
	if hidden || len(redacted) > maxTarget { // rules do not see all of it
		p.addMarkers(exchange.event, []byte("url"), target)
	}
	if exchange.isConnect {
		body.UrlDomain = p.hostOf(exchange.event, target)
		return
	}

	// Remove scheme and authority, then the fragment, then the query. The rest is the path.
	rest := body.UrlOriginal
	if slashes := schemeEnd(rest); slashes > 0 {
		end := slashes
		for end < len(rest) && rest[end] != '/' && rest[end] != '?' && rest[end] != '#' {
			end++
		}
		body.UrlDomain = p.hostOf(exchange.event, []byte(rest[slashes:end]))
		rest = rest[end:]
	}
	rest, _, _ = strings.Cut(rest, "#")
	body.UrlPath, body.UrlQuery, _ = strings.Cut(rest, "?")
}

// schemeEnd returns the offset of the authority of an absolute URL, or 0.
func schemeEnd[T string | []byte](s T) int {
	for i := 0; i+2 < len(s) && i < 12; i++ {
		c := s[i] | 0x20
		if s[i] == ':' && s[i+1] == '/' && s[i+2] == '/' && i > 0 {
			return i + 3
		}
		if c < 'a' || c > 'z' {
			return 0
		}
	}
	return 0
}

// hostOf returns the host of an authority in lower case, without port, user and last dot. An IPv4 address in one of
// the forms of inet_aton, such as 0xcb007109, is returned in the usual one: the client connects to that. Of a host
// that is too long the head and the tail are kept.
func (p *parser) hostOf(event *pipeline.Event, data []byte) string {
	host := authority.Host(data)
	if addr, ok := authority.NumericIPv4(host); ok {
		p.scratch = addr.AppendTo(p.scratch[:0])
		return p.conn.Intern(p.scratch)
	}
	if len(host) > maxWord {
		return p.conn.Text(event, p.lower(host), maxWord)
	}
	return p.conn.Intern(p.lower(host))
}

// lower returns data in lower case. If data has upper-case letters the result is in p.scratch.
func (p *parser) lower(data []byte) []byte {
	for i, c := range data {
		if c >= 'A' && c <= 'Z' {
			p.scratch = append(p.scratch[:0], data...)
			for at := i; at < len(p.scratch); at++ {
				if c := p.scratch[at]; c >= 'A' && c <= 'Z' {
					p.scratch[at] = c | 0x20
				}
			}
			return p.scratch
		}
	}
	return data
}

// url returns data as a string of up to limit bytes with its secrets redacted.
func (p *parser) url(event *pipeline.Event, data []byte, limit int) string {
	data, _ = p.conn.Redactor().URL(data)
	return p.conn.Text(event, data, limit)
}

// parseFields parses data, the header fields of a head. exchange is nil if only the framing is needed.
func (p *parser) parseFields(dir protocols.Dir, exchange *exchange, hd *head, data []byte) {
	for len(data) > 0 {
		end := bytes.IndexByte(data, '\n')
		if end < 0 {
			return
		}
		line := data[:end]
		data = data[end+1:]

		// A line that begins with white space continues the one before (obs-fold, RFC 9112 section 5.2).
		var folded []byte
		for len(data) > 0 && (data[0] == ' ' || data[0] == '\t') {
			foldEnd := bytes.IndexByte(data, '\n')
			if foldEnd < 0 {
				break
			}
			if folded == nil {
				folded = append(folded, trim(line)...)
			}
			folded = append(append(folded, ' '), trim(data[:foldEnd])...)
			data = data[foldEnd+1:]
		}
		if folded != nil {
			line = folded
		}

		// Split name and value. A space before the colon is read differently by different servers.
		colon := bytes.IndexByte(line, ':')
		if colon <= 0 {
			continue
		}
		name, value := line[:colon], trim(line[colon+1:])
		if isBlank(name[len(name)-1]) {
			p.conn.Count("space_before_colon")
			name = trim(name)
			hd.ambiguous = true
		}

		p.framingField(hd, name, value)
		if exchange != nil && dir == protocols.Client {
			if p.markers {
				p.addMarkers(exchange.event, name, value)
			}
			p.requestField(exchange.event, name, value)
		} else if exchange != nil {
			p.responseField(exchange.event, name, value)
		}
	}
}

// framingField reads the fields that decide where the message ends.
func (p *parser) framingField(hd *head, name, value []byte) {
	switch len(name) {
	case len("upgrade"):
		if equalFold(name, "upgrade") && len(value) > 0 {
			hd.upgrade = true
		}
	case len("content-length"):
		if equalFold(name, "content-length") {
			p.contentLength(hd, value)
		}
	case len("transfer-encoding"):
		if !equalFold(name, "transfer-encoding") {
			return
		}
		if hd.hasTransferEncoding {
			p.conn.Count("two_transfer_encodings")
			hd.ambiguous = true
		}
		hd.hasTransferEncoding = true

		// The last coding of the list frames the message (RFC 9112 section 6.3).
		last := value
		if comma := bytes.LastIndexByte(last, ','); comma >= 0 {
			last = trim(last[comma+1:])
		}
		hd.chunked = equalFold(last, "chunked")
		if !hd.chunked && !equalFold(last, "identity") && !equalFold(last, "gzip") &&
			!equalFold(last, "deflate") && !equalFold(last, "compress") {
			p.conn.Count("unknown_transfer_encoding")
			hd.ambiguous = true
		} else if equalFold(last, "identity") {
			hd.hasTransferEncoding = false // obsolete and without effect
		}
	}
}

// contentLength reads a Content-Length. The same length several times, or in a list, counts as one length
// (RFC 9112 section 6.3).
func (p *parser) contentLength(hd *head, value []byte) {
	for len(value) > 0 || !hd.hasLength && !hd.badLength {
		one := value
		if comma := bytes.IndexByte(value, ','); comma >= 0 {
			one, value = trim(value[:comma]), trim(value[comma+1:])
		} else {
			value = nil
		}

		length, ok := parseDecimal(one)
		switch {
		case !ok:
			hd.badLength = true
			if length, ok = parsePythonInteger(one); ok && !hd.hasLength {
				hd.hasLength, hd.length = true, length
			}
			return
		case hd.hasLength && hd.length != length:
			p.conn.Count("two_content_lengths")
			hd.ambiguous = true
			return
		}
		hd.hasLength, hd.length = true, length
	}
}

// requestField stores the value of a header field of a request. Names are compared by length first, since
// most fields are of no interest.
func (p *parser) requestField(event *pipeline.Event, name, value []byte) {
	body := event.Http
	switch len(name) {
	case len("host"):
		if equalFold(name, "host") && body.UrlDomain == "" {
			body.UrlDomain = p.hostOf(event, value)
		}
	case len("referer"):
		if equalFold(name, "referer") {
			body.Referrer = p.url(event, value, maxReferrer)
		}
	case len("user-agent"):
		if equalFold(name, "user-agent") {
			body.UserAgent = p.conn.Text(event, value, maxAgent)
		}
	case len("content-type"):
		if equalFold(name, "content-type") {
			body.RequestMimeType = p.mediaType(value)
		}
	case len("authorization"):
		if equalFold(name, "authorization") {
			p.authorization(event, value)
		}
	case len("x-forwarded-for"):
		if equalFold(name, "x-forwarded-for") {
			p.forwardedFor(event, value)
		}
	case len("proxy-authorization"):
		if equalFold(name, "proxy-authorization") {
			p.authorization(event, value)
		}
	}
}

// responseField stores the value of a header field of a response.
func (p *parser) responseField(event *pipeline.Event, name, value []byte) {
	body := event.Http
	switch len(name) {
	case len("server"):
		if equalFold(name, "server") {
			body.Server = p.conn.Text(event, value, maxWord)
		}
	case len("location"):
		if equalFold(name, "location") {
			body.Location = p.url(event, value, maxReferrer)
		}
	case len("content-type"):
		if equalFold(name, "content-type") {
			body.ResponseMimeType = p.mediaType(value)
		}
	}
}

// mediaType returns a media type without its parameters.
func (p *parser) mediaType(data []byte) string {
	if semicolon := bytes.IndexByte(data, ';'); semicolon >= 0 {
		data = trim(data[:semicolon])
	}
	return p.conn.Intern(p.lower(capped(data, 128)))
}

// forwardedFor appends the addresses of an X-Forwarded-For field. Of more than maxForwarded it keeps the first
// ones and the last, which the nearest proxy has written.
func (p *parser) forwardedFor(event *pipeline.Event, data []byte) {
	body := event.Http
	for len(data) > 0 {
		one := data
		if comma := bytes.IndexByte(data, ','); comma >= 0 {
			one, data = data[:comma], data[comma+1:]
		} else {
			data = nil
		}
		one = authority.TrimRoot(trim(one))
		switch full := len(body.XForwardedFor) >= maxForwarded; {
		case len(one) == 0:
		case !full:
			body.XForwardedFor = append(body.XForwardedFor, p.conn.Text(event, one, 64))
		default:
			event.AddTag(pipeline.TagTruncated)
			if data == nil {
				body.XForwardedFor[maxForwarded-1] = p.conn.Text(event, one, 64)
			}
		}
	}
}

// authorization keeps the scheme of value and, if it is Basic, the user's name.
func (p *parser) authorization(event *pipeline.Event, data []byte) {
	body := event.Http
	if len(body.Authorization) >= maxSchemes {
		event.AddTag(pipeline.TagTruncated)
		return
	}
	scheme, rest, ok := redact.Scheme(data)
	if !ok {
		body.Authorization = append(body.Authorization, redact.Marker)
		return
	}
	rest = trim(rest)
	body.Authorization = append(body.Authorization, p.conn.Intern(scheme))
	if !equalFold(scheme, "basic") {
		return
	}

	// Decode user:password into a buffer on the stack, keep the part before the colon, clear the buffer.
	// RawStdEncoding accepts no padding, and a length of 4n+1 is never valid: the credentials were cut.
	for len(rest) > 0 && rest[len(rest)-1] == '=' {
		rest = rest[:len(rest)-1]
	}
	rest = capped(rest, 344)
	var buf [258]byte
	size, err := base64.RawStdEncoding.Decode(buf[:], rest[:len(rest)-boolInt(len(rest)%4 == 1)])
	user := buf[:size]
	if colon := bytes.IndexByte(user, ':'); err == nil && colon >= 0 {
		body.UserName = redact.Marker
		if !redact.UserNameIsSecret(user[:colon], user[colon+1:]) {
			body.UserName = p.conn.Intern(user[:colon])
		}
	}
	clear(buf[:])
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// equalFold reports whether data equals want, ignoring the case of letters. want is in lower case.
func equalFold(data []byte, want string) bool {
	if len(data) != len(want) {
		return false
	}
	for i, c := range data {
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		if c != want[i] {
			return false
		}
	}
	return true
}
