package http

import (
	"bytes"
	"encoding/base64"

	"tidegate/pipeline"
	"tidegate/pipeline/redact"
	"tidegate/protocols"
)

// Bounds of the values that are kept of a head.
const (
	maxTarget    = 8 << 10 // bytes of the request target
	maxReferrer  = 2 << 10 // bytes of Referer, of Location
	maxAgent     = 1 << 10 // bytes of User-Agent
	maxWord      = 256     // bytes of a host, of Server
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
	body.UrlOriginal = p.url(capped(target, maxTarget))
	if exchange.isConnect {
		body.UrlDomain = p.hostOf(target)
		return
	}

	// Remove scheme and authority, then the fragment, then the query. The rest is the path.
	rest := body.UrlOriginal
	if slashes := schemeEnd(rest); slashes > 0 {
		end := slashes
		for end < len(rest) && rest[end] != '/' && rest[end] != '?' && rest[end] != '#' {
			end++
		}
		body.UrlDomain = p.hostOf([]byte(rest[slashes:end]))
		rest = rest[end:]
	}
	for slashes := range len(rest) {
		if rest[slashes] == '#' {
			rest = rest[:slashes]
			break
		}
	}
	body.UrlPath = rest
	for slashes := range len(rest) {
		if rest[slashes] == '?' {
			body.UrlPath, body.UrlQuery = rest[:slashes], rest[slashes+1:]
			break
		}
	}
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

// hostOf returns the host of an authority in lower case, without port and user.
func (p *parser) hostOf(data []byte) string {
	if at := bytes.LastIndexByte(data, '@'); at >= 0 {
		data = data[at+1:]
	}
	if len(data) > 0 && data[0] == '[' {
		if at := bytes.IndexByte(data, ']'); at > 0 {
			data = data[:at+1]
		}
	} else if at := bytes.IndexByte(data, ':'); at >= 0 {
		data = data[:at]
	}
	return p.conn.Intern(p.lower(capped(data, maxWord)))
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

// url returns data as a string with its secrets redacted.
func (p *parser) url(data []byte) string {
	data, _ = p.redactor.URL(data)
	return p.conn.Intern(data)
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
			p.requestField(exchange.event.Http, name, value)
		} else if exchange != nil {
			p.responseField(exchange.event.Http, name, value)
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
func (p *parser) requestField(body *pipeline.HTTPExchange, name, value []byte) {
	switch len(name) {
	case len("host"):
		if equalFold(name, "host") && body.UrlDomain == "" {
			body.UrlDomain = p.hostOf(value)
		}
	case len("referer"):
		if equalFold(name, "referer") {
			body.Referrer = p.url(capped(value, maxReferrer))
		}
	case len("user-agent"):
		if equalFold(name, "user-agent") {
			body.UserAgent = p.conn.Intern(capped(value, maxAgent))
		}
	case len("content-type"):
		if equalFold(name, "content-type") {
			body.RequestMimeType = p.mediaType(value)
		}
	case len("authorization"):
		if equalFold(name, "authorization") {
			p.authorization(body, value)
		}
	case len("x-forwarded-for"):
		if equalFold(name, "x-forwarded-for") {
			p.forwardedFor(body, value)
		}
	case len("proxy-authorization"):
		if equalFold(name, "proxy-authorization") {
			p.authorization(body, value)
		}
	}
}

// responseField stores the value of a header field of a response.
func (p *parser) responseField(body *pipeline.HTTPExchange, name, value []byte) {
	switch len(name) {
	case len("server"):
		if equalFold(name, "server") {
			body.Server = p.conn.Intern(capped(value, maxWord))
		}
	case len("location"):
		if equalFold(name, "location") {
			body.Location = p.url(capped(value, maxReferrer))
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

// forwardedFor appends the addresses of an X-Forwarded-For field, up to maxForwarded.
func (p *parser) forwardedFor(body *pipeline.HTTPExchange, data []byte) {
	for len(data) > 0 && len(body.XForwardedFor) < maxForwarded {
		one := data
		if comma := bytes.IndexByte(data, ','); comma >= 0 {
			one, data = data[:comma], data[comma+1:]
		} else {
			data = nil
		}
		if one = trim(one); len(one) > 0 {
			body.XForwardedFor = append(body.XForwardedFor, p.conn.Intern(capped(one, 64)))
		}
	}
}

// authorization keeps the scheme of value and, if it is Basic, the user's name.
func (p *parser) authorization(body *pipeline.HTTPExchange, data []byte) {
	if len(body.Authorization) >= maxSchemes {
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
		body.UserName = p.conn.Intern(user[:colon])
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
