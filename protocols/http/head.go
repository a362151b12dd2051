package http

import (
	"bytes"

	"tidegate/pipeline"
	"tidegate/protocols"
)

// A head holds the header fields that decide where the message ends.
type head struct {
	length              uint64
	hasLength           bool
	badLength           bool
	chunked             bool
	hasTransferEncoding bool // there is a Transfer-Encoding
	upgrade             bool
	ambiguous           bool // two implementations may find different message boundaries
}

// readHead parses a head when it is complete.
//
// An incomplete head is not scanned from its front again: side.scanned bytes of it hold no end. An incomplete
// request is parsed as a truncated one once the server has answered it; otherwise its response would wait for
// ever.
func (p *parser) readHead(dir protocols.Dir, data []byte, at int64) (int, error) {
	side := &p.sides[dir]
	if dir == protocols.Client && p.inner != nil && len(p.inner.carry) > 0 && !p.endCarry(data) {
		return 0, nil
	}
	if dir == protocols.Server && p.beginHTTP09Response(data) {
		return p.Parse(dir, data, at)
	}
	if side.scanned == 0 {
		if length := emptyLines(data); length > 0 {
			isUndecided := dir == protocols.Server && length < maxUndecidedLines && detectResponse(data) == protocols.More
			if isUndecided && p.awaitsHTTP09Response() {
				return 0, nil // they may be the front of its body
			}
			return length, nil // empty lines between messages are ignored
		}
	}

	// A request may be answered before its end. headUnfinished marks an incomplete request of the client. The
	// first bytes of the server then have it parsed as truncated, before the response.
	begins := dir == protocols.Client && p.headUnfinished && hasTarget(data)
	switch {
	case begins && p.answeredEarly:
		return p.parseTruncatedRequest(data, at), nil
	case dir == protocols.Client:
		p.headUnfinished, p.answeredEarly = false, false
	case p.headUnfinished && !p.answeredEarly && p.pairing.Len() == 0 && !p.pairing.Skipping() &&
		detectResponse(data) != protocols.More:
		// A request of HTTP/0.9, or one that the server rejects before its end.
		p.answeredEarly = true
		p.conn.Reparse(protocols.Client)
		return 0, nil
	}

	// Does a head begin here? Checked while the front is short, and again for the complete head.
	length, scanned := headEnd(data, side.scanned)
	if length > 0 || side.scanned < maxRequestLine {
		if ok, err := p.checkHead(dir, data); !ok {
			side.scanned = 0
			return 0, err
		}
	}
	side.scanned = scanned

	// An incomplete head waits for more bytes, up to maxHead.
	if length == 0 {
		if len(data) > maxHead {
			side.scanned = 0
			return 0, errTooLong
		}
		if dir == protocols.Client {
			// Where requests end is uncertain, the server may have answered another one: the line is waited for.
			isCertain := !p.ambiguous && p.inner.firstUnanswered() == nil
			p.headUnfinished = hasTarget(data) && (isCertain || bytes.IndexByte(data, '\n') >= 0)
		}
		return 0, nil
	}
	p.started = true
	if dir == protocols.Client {
		p.parseRequest(data[:length], at)
	} else {
		p.parseResponse(data[:length], at)
	}
	return length, nil
}

// checkHead reports whether data begins with a head. If it returns false without an error, it has flipped or
// dropped the connection.
func (p *parser) checkHead(dir protocols.Dir, data []byte) (bool, error) {
	switch {
	case detect(dir, data) != protocols.No:
		return true, nil
	case dir == protocols.Client && looksLikeRequest(data),
		dir == protocols.Server && p.pairing.Len() > 0 && looksLikeResponse(data):
		return true, nil
	case !p.started && p.conn.Info().MidStream && detect(dir.Other(), data) == protocols.Yes:
		p.conn.Flip()
		return false, nil
	case dir == protocols.Client && bytes.HasPrefix(data, []byte("PRI * HTTP/2")):
		p.conn.Count("http2")
		p.conn.Stop(pipeline.TagUnsupported)
		return false, nil
	}
	return false, errHead
}

// looksLikeRequest reports whether data begins with a request line of a known method and any version.
func looksLikeRequest(data []byte) bool {
	blank := methodEnd(data)
	line, _ := cutLine(data)
	version := bytes.Index(line, []byte("HTTP/"))
	return blank > 0 && isKnownMethod(data[:blank]) && version > blank && isSpace(line[version-1])
}

// looksLikeResponse reports whether data begins with HTTP/, with any version and status.
func looksLikeResponse(data []byte) bool {
	const begin = "HTTP/"
	return string(data[:min(len(data), len(begin))]) == begin[:min(len(data), len(begin))]
}

// headEnd returns the length of the head at the front of data, with the empty line that ends it. It scans
// from offset from on. If the end has not arrived it returns 0, and next is the offset at which the next scan
// starts.
func headEnd(data []byte, from int) (end, next int) {
	for {
		found := bytes.IndexByte(data[from:], '\n')
		if found < 0 {
			return 0, len(data)
		}
		found += from
		end = found + 1
		for end < len(data) && end < found+3 && data[end] == '\r' { // up to two CRs: some senders write CR CR LF
			end++
		}
		switch {
		case end == len(data):
			return 0, found
		case data[end] == '\n':
			return end + 1, 0
		}
		from = found + 1
	}
}

// parseRequest parses data, the head of a request, queues its exchange, and begins its body.
func (p *parser) parseRequest(data []byte, at int64) {
	exchange := p.newExchange(p.conn.Event(protocols.Client))
	hd := p.readRequest(exchange, data, at)
	p.ambiguous = p.ambiguous || hd.ambiguous
	if p.ambiguous { // also what follows: the server may take it for a body
		markAmbiguous(exchange)
	}
	p.enqueue(exchange)

	// The state of the client's side: in the body, or at the next head.
	side := &p.sides[protocols.Client]
	side.exchange = exchange
	switch {
	case hd.chunked:
		side.state, side.isSearched = inChunkSize, true
	case hd.hasLength && hd.length > 0 && !exchange.isConnect:
		side.state, side.isSearched, side.bodyLeft = inBody, true, hd.length
	default:
		p.endMessage(protocols.Client)
	}
}

// readRequest fills in exchange from data, the head of a request, and returns its framing.
func (p *parser) readRequest(exchange *exchange, data []byte, at int64) (hd head) {
	body := exchange.event.Http
	p.markers = mayHoldMarker(data)
	line, fields := cutLine(data)
	method, target, version := requestLine(line)
	body.Method = p.conn.Text(exchange.event, method, maxWord)
	body.Version = p.conn.Intern(version)
	exchange.isHead = string(method) == "HEAD"
	exchange.isConnect = string(method) == "CONNECT"
	p.setTarget(exchange, target)

	// The fields, and the framing that follows from them.
	p.parseFields(protocols.Client, exchange, &hd, fields)
	exchange.wantsUpgrade = hd.upgrade
	body.RequestHeaderBytes = uint64(len(data))
	if len(version) == 0 && isTarget(target) && len(trimLines(fields)) == 0 {
		exchange.isHTTP09, body.Version = true, "0.9"
	}
	exchange.isHTTP09 = exchange.isHTTP09 || string(version) == "0.9"
	p.countBytes(protocols.Client, exchange, len(data), at)
	if bytes.HasSuffix(data, []byte("\n\r\r\n")) && !bytes.HasSuffix(data[:len(data)-len(fields)], []byte("\r\r\n")) {
		hd.ambiguous = true // some servers read this line as a field, and the head goes on
	}
	if hd.hasTransferEncoding && !hd.chunked {
		p.conn.Count("request_not_chunked") // the end of its body cannot be known
		hd.ambiguous = true
	}
	p.checkFraming(exchange, &hd)
	return hd
}

// checkFraming counts errors in the framing of a message. It marks the event as partial if two
// implementations may find different message boundaries, which request smuggling exploits.
func (p *parser) checkFraming(exchange *exchange, hd *head) {
	if hd.hasTransferEncoding && hd.hasLength {
		p.conn.Count("length_and_transfer_encoding")
		hd.ambiguous = true
	}
	if hd.badLength {
		p.conn.Count("bad_content_length")
		hd.ambiguous = true
	}
	if hd.ambiguous && exchange != nil {
		exchange.event.Partial = true
	}
}

// parseResponse parses the head of a response, data, and begins its body.
func (p *parser) parseResponse(data []byte, at int64) {
	line, fields := cutLine(data)
	version, code, phrase := statusLine(line)
	interim := code/100 == 1 && code != 101
	if interim {
		// The final response follows. Only the bytes of the interim one are counted.
		p.pairing.FoundReplies()
		if first := p.pairing.First(); first != nil && !p.pairing.Skipping() {
			p.countBytes(protocols.Server, *first, len(data), at)
		}
		return
	}

	var hd head
	exchange := p.exchangeOfResponse(code)
	exchange.responseBegun = true
	if exchange.event == nil { // the request was evicted: only the framing is needed, to skip the body
		p.parseFields(protocols.Server, nil, &hd, fields)
		p.beginResponseBody(exchange, &hd, code)
		return
	}
	p.countBytes(protocols.Server, exchange, len(data), at)
	body := exchange.event.Http
	exchange.event.Partial = exchange.event.Partial || p.truncated
	body.StatusCode = code
	body.StatusPhrase = p.conn.Text(exchange.event, phrase, 128)
	if body.Version == "" {
		body.Version = p.conn.Intern(version)
	}
	body.ResponseHeaderBytes = uint64(len(data))
	p.parseFields(protocols.Server, exchange, &hd, fields)
	p.checkFraming(exchange, &hd)
	p.beginResponseBody(exchange, &hd, code)
}

// exchangeOfResponse returns the exchange of the response that begins: that of the oldest waiting request, or
// a new one if no request waits. The exchange has no event if the response answers an evicted request.
func (p *parser) exchangeOfResponse(code uint32) *exchange {
	request, skipped := p.pairing.Reply()
	switch {
	case skipped:
		return &exchange{}
	case request != nil:
		if (*request).behindInner {
			p.emitInner()
		}
		return *request
	}
	if found := p.pairInner(code); found != nil {
		return found
	}
	unpaired := p.newExchange(p.conn.Event(protocols.Server))
	unpaired.requestDone = true
	unpaired.event.Partial = true // its request was not captured, or not recognised
	return unpaired
}

// beginResponseBody decides how long the body of a response is (RFC 9112 section 6.3), and whether the
// connection continues as HTTP.
func (p *parser) beginResponseBody(exchange *exchange, hd *head, code uint32) {
	side := &p.sides[protocols.Server]
	if exchange.event != nil {
		side.exchange = exchange
	}
	switch {
	case p.truncated:
		p.endMessage(protocols.Server)
	case code == 101 || exchange.isConnect && code/100 == 2: // another protocol follows
		exchange.requestDone = true
		p.sides[protocols.Client].exchange = nil
		p.endMessage(protocols.Server)
		p.conn.SwitchTo("")
		if exchange.event != nil {
			p.emitIfComplete(exchange)
		}
		return
	case exchange.isHead || code == 204 || code == 304:
		p.endMessage(protocols.Server)
	case hd.chunked:
		side.state = inChunkSize
	case hd.hasTransferEncoding:
		side.state = untilClose
	case hd.hasLength && hd.length == 0:
		p.endMessage(protocols.Server)
	case hd.hasLength:
		side.state, side.bodyLeft = inBody, hd.length
	default:
		side.state = untilClose
	}

	// The server has rejected CONNECT or Upgrade: the client's next bytes are requests.
	client := &p.sides[protocols.Client]
	awaits := client.state == awaitingResponse || client.state == awaitingResponseOrRequest
	if awaits && (exchange.isConnect || exchange.wantsUpgrade) {
		client.state = inHead
		p.conn.Reparse(protocols.Client)
	}
	if side.state == inHead && exchange.event != nil {
		p.emitIfComplete(exchange)
	}
}

// cutLine splits a head after its first line.
func cutLine(data []byte) (line, rest []byte) {
	before, after, ok := bytes.Cut(data, []byte{'\n'})
	if !ok {
		return data, nil
	}
	return trim(before), after
}

// requestLine splits a request line at its first and its last white space, since some clients send targets with
// spaces.
func requestLine(line []byte) (method, target, version []byte) {
	blank := firstSpace(line)
	if blank < 0 {
		return line, nil, nil
	}
	method, target = line[:blank], trimSpace(line[blank:])
	if blank := lastSpace(target); blank >= 0 && bytes.HasPrefix(target[blank+1:], []byte("HTTP/")) {
		version = target[blank+1+len("HTTP/"):]
		if target[blank] == ' ' { // what else looks like white space belongs to the target, as the last byte of a character does
			target = bytes.TrimRight(target[:blank], " \t\r\v\f")
		} else {
			target = trimSpace(target[:blank])
		}
	} else if bytes.HasPrefix(target, []byte("HTTP/")) {
		target, version = nil, target[len("HTTP/"):]
	} else if len(target)-blank <= len(" HTTP/1.1") && hasUnknownVersion(method, target) { // a longer word belongs to the target
		target, version = trimSpace(target[:blank]), target[blank+1:]
	}
	return method, target, capped(version, 8)
}

// statusLine splits "HTTP/1.1 200 OK". A malformed status is read up to its first non-digit, as clients do.
func statusLine(line []byte) (version []byte, code uint32, phrase []byte) {
	version, rest, _ := bytes.Cut(line[min(len(line), len("HTTP/")):], []byte(" "))
	status, phrase, _ := bytes.Cut(trim(rest), []byte(" "))
	digits := 0
	for digits < len(status) && isDigit(status[digits]) {
		digits++
	}
	if value, ok := parseDecimal(status[:digits]); ok && digits <= 3 {
		code = uint32(value)
	}
	return capped(version, 8), code, trim(phrase)
}

// capped returns at most the first limit bytes of data.
func capped(data []byte, limit int) []byte { return data[:min(len(data), limit)] }
