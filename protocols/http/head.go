package http

import (
	"bytes"

	"tidegate/protocols"
)

// A head is what was read of a request or status line and its fields; its slices alias the bytes that are being parsed, or scratch.
type head struct {
	length    uint64
	hasLength bool
	badLength bool
	chunked   bool
	coded     bool // Transfer-Encoding is there
	upgrade   bool
	odd       bool // two readers may see different messages
}

// readHead reads a head when it is all there.
func (p *parser) readHead(dir protocols.Dir, b []byte, at int64) (int, error) {
	s := &p.side[dir]
	if dir == protocols.Server && p.simpleReply(b) {
		return p.Parse(dir, b, at)
	}
	if s.scanned == 0 {
		if n := leading(b); n > 0 {
			return n, nil // empty lines between messages belong to none
		}
	}
	begins := dir == protocols.Client && p.unfinished && begun(b)
	switch {
	case begins && p.urged:
		return p.takeUnfinished(b, at), nil
	case dir == protocols.Client:
		p.unfinished, p.urged = false, false
	case p.unfinished && !p.urged && len(p.waiting) == 0 && p.evicted == 0 && detectResponse(b) != protocols.More:
		// The server answers, so the request is all there: one of HTTP/0.9, or one that it refuses before its end.
		p.urged = true
		p.c.Reparse(protocols.Client)
		return 0, nil
	}
	n, scanned := headEnd(b, s.scanned)
	if n > 0 || s.scanned < surelyLine {
		if ok, err := p.check(dir, b); !ok {
			s.scanned = 0
			return 0, err
		}
	}
	s.scanned = scanned
	if n == 0 {
		if len(b) > maxHead {
			s.scanned = 0
			return 0, errTooLong
		}
		if dir == protocols.Client {
			p.unfinished = begun(b)
		}
		return 0, nil
	}
	p.seen = true
	if dir == protocols.Client {
		p.request(b[:n], at)
	} else {
		p.response(b[:n], at)
	}
	return n, nil
}

// check tells whether a head begins here. Without an error it does not either, but the connection is another one from now on.
func (p *parser) check(dir protocols.Dir, b []byte) (bool, error) {
	switch {
	case detect(dir, b) != protocols.No:
		return true, nil
	case dir == protocols.Client && looseRequest(b), dir == protocols.Server && len(p.waiting) > 0 && looseResponse(b):
		return true, nil
	case !p.seen && p.c.Info().MidStream && detect(dir.Other(), b) == protocols.Yes:
		p.c.Flip()
		return false, nil
	case dir == protocols.Client && bytes.HasPrefix(b, []byte("PRI * HTTP/2")):
		p.c.Count("http2")
		p.c.Drop()
		return false, nil
	}
	return false, errHead
}

// looseRequest tells that b is a request line of a method that we know, though it ends without a version that we know.
func looseRequest(b []byte) bool {
	i := bytes.IndexByte(b[:min(len(b), maxMethod)], ' ')
	line, _ := cut(b)
	return i > 0 && known(b[:i]) && bytes.Contains(line, []byte(" HTTP/"))
}

// looseResponse tells that b is an answer with a version or a status that is none.
func looseResponse(b []byte) bool {
	const begin = "HTTP/"
	return string(b[:min(len(b), len(begin))]) == begin[:min(len(b), len(begin))]
}

// headEnd finds the empty line that ends a head, looking from the offset from on. next is where to go on when there is none yet.
func headEnd(b []byte, from int) (end, next int) {
	for {
		i := bytes.IndexByte(b[from:], '\n')
		if i < 0 {
			return 0, len(b)
		}
		i += from
		end = i + 1
		for end < len(b) && end < i+3 && b[end] == '\r' { // one CR, or none, or two
			end++
		}
		switch {
		case end == len(b):
			return 0, i
		case b[end] == '\n':
			return end + 1, 0
		}
		from = i + 1
	}
}

// request reads the head of a request.
func (p *parser) request(b []byte, at int64) {
	x := p.begin(protocols.Client)
	h := x.e.Http
	line, fields := cut(b)
	method, target, version := requestLine(line)
	h.Method = p.c.Intern(method)
	h.Version = p.c.Intern(version)
	x.head = string(method) == "HEAD"
	x.connect = string(method) == "CONNECT"
	p.setTarget(x, target)
	var hd head
	p.fields(protocols.Client, x, &hd, fields)
	x.upgrade = hd.upgrade
	h.RequestHeaderBytes = uint64(len(b))
	if len(version) == 0 && simpleTarget(target) && len(trimLines(fields)) == 0 {
		x.simple, h.Version = true, "0.9"
	}
	p.wire(protocols.Client, x, len(b), at)
	if hd.coded && !hd.chunked {
		p.c.Count("request_not_chunked") // its end cannot be told
		hd.odd = true
	}
	p.judge(x, &hd)
	p.expect(x)

	s := &p.side[protocols.Client]
	s.x = x
	switch {
	case hd.chunked:
		s.state = inChunkSize
	case hd.hasLength && hd.length > 0 && !x.connect:
		s.state, s.left = inBody, hd.length
	default:
		p.done(protocols.Client)
	}
}

// judge marks a head that two readers may take for different messages, as request smuggling needs.
func (p *parser) judge(x *exchange, hd *head) {
	if hd.coded && hd.hasLength {
		p.c.Count("length_and_transfer_encoding")
		hd.odd = true
	}
	if hd.badLength {
		p.c.Count("bad_content_length")
		hd.odd = true
	}
	if hd.odd && x != nil {
		x.e.Partial = true
	}
}

// response reads the head of a response.
func (p *parser) response(b []byte, at int64) {
	line, fields := cut(b)
	version, code, phrase := statusLine(line)
	p.noReply, p.doubt.heard = false, true
	var x *exchange
	switch {
	case p.evicted > 0:
	case len(p.waiting) > 0:
		x = p.waiting[0]
	case code/100 == 1 && code != 101:
		return // an interim response to nothing tells nothing
	default:
		x = p.begin(protocols.Server)
		x.asked = true
		p.doubt.on = false
		if p.lost || p.c.Info().MidStream {
			x.e.Partial = true // its request was not seen
		}
	}
	if x == nil {
		x = &exchange{} // of a request that was let go: read to pass over its body
	} else {
		p.wire(protocols.Server, x, len(b), at)
	}
	if code/100 == 1 && code != 101 {
		return
	}
	var hd head
	x.responded = true
	if x.e != nil {
		h := x.e.Http
		x.e.Partial = x.e.Partial || p.cutting
		h.StatusCode = code
		h.StatusPhrase = p.c.Intern(capped(phrase, 128))
		if h.Version == "" {
			h.Version = p.c.Intern(version)
		}
		h.ResponseHeaderBytes = uint64(len(b))
		p.fields(protocols.Server, x, &hd, fields)
		p.judge(x, &hd)
	} else {
		p.evicted--
		p.fields(protocols.Server, nil, &hd, fields)
	}
	p.frame(x, &hd, code)
}

// frame finds out how long the body of a response is (RFC 9112 section 6.3).
func (p *parser) frame(x *exchange, hd *head, code uint32) {
	s := &p.side[protocols.Server]
	if x.e != nil {
		s.x = x
	}
	switch {
	case p.cutting:
		p.done(protocols.Server)
	case code == 101 || x.connect && code/100 == 2:
		x.asked = true
		p.side[protocols.Client].x = nil
		p.done(protocols.Server)
		p.c.SwitchTo("")
		if x.e != nil {
			p.settle(x)
		}
		return
	case x.head || code == 204 || code == 304:
		p.done(protocols.Server)
	case hd.chunked:
		s.state = inChunkSize
	case hd.coded:
		s.state = untilClose
	case hd.hasLength && hd.length == 0:
		p.done(protocols.Server)
	case hd.hasLength:
		s.state, s.left = inBody, hd.length
	default:
		s.state = untilClose
	}
	if c := &p.side[protocols.Client]; (x.connect || x.upgrade) && (c.state == held || c.state == heldUnlessRequest) {
		c.state = inHead
		p.c.Reparse(protocols.Client)
	}
	if s.state == inHead && x.e != nil {
		p.settle(x)
	}
}

// cut takes the first line from a head.
func cut(b []byte) (line, rest []byte) {
	before, after, ok := bytes.Cut(b, []byte{'\n'})
	if !ok {
		return b, nil
	}
	return trim(before), after
}

// requestLine splits a request line at its first and its last space: a target with spaces in it is wrong but sent.
func requestLine(line []byte) (method, target, version []byte) {
	before, after, ok := bytes.Cut(line, []byte{' '})
	if !ok {
		return line, nil, nil
	}
	method, target = before, trim(after)
	if j := bytes.LastIndexByte(target, ' '); j >= 0 && bytes.HasPrefix(target[j+1:], []byte("HTTP/")) {
		target, version = trim(target[:j]), target[j+1+len("HTTP/"):]
	} else if bytes.HasPrefix(target, []byte("HTTP/")) {
		target, version = nil, target[len("HTTP/"):]
	}
	return method, target, capped(version, 8)
}

// statusLine splits "HTTP/1.1 200 OK". A status that is not three digits is what digits it begins with, as clients read it.
func statusLine(line []byte) (version []byte, code uint32, phrase []byte) {
	version, rest, _ := bytes.Cut(line[min(len(line), len("HTTP/")):], []byte(" "))
	status, phrase, _ := bytes.Cut(trim(rest), []byte(" "))
	n := 0
	for n < len(status) && digit(status[n]) {
		n++
	}
	if v, ok := decimal(status[:n]); ok && n <= 3 {
		code = uint32(v)
	}
	return capped(version, 8), code, trim(phrase)
}

// capped is at most the first n bytes of b.
func capped(b []byte, n int) []byte { return b[:min(len(b), n)] }
