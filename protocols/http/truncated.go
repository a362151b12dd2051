package http

import (
	"bytes"

	"tidegate/protocols"
)

// ParseTruncated parses a head whose end was lost; the event is marked partial. It keeps captures with a
// short snap length useful. A head that its sender never finished is dropped on Close.
func (p *parser) ParseTruncated(dir protocols.Dir, data []byte, at int64) {
	if p.sides[dir].state != inHead {
		return
	}
	if dir == protocols.Client {
		if p.headUnfinished = hasTarget(data); p.headUnfinished {
			p.parseTruncatedRequest(data, at)
		}
		return
	}
	if detectResponse(data) == protocols.Yes {
		p.started, p.truncated = true, true
		p.parseResponse(data[emptyLines(data):], at)
		p.truncated = false
	}
}

// hasTarget reports whether data, the front of a request, has a method and at least a part of a target. A
// method that is not known is one if the line has its end.
func hasTarget(data []byte) bool {
	data = data[emptyLines(data):]
	blank := methodEnd(data)
	if blank <= 0 || blank+1 >= len(data) {
		return false
	}
	match := detectRequest(data)
	return match == protocols.Yes || isKnownMethod(data[:blank]) && (match == protocols.More || looksLikeRequest(data))
}

// parseTruncatedRequest parses data, a head without its end, as a request, and returns the length of data. A
// line without a version is a complete request of HTTP/0.9. Any other event is marked partial.
func (p *parser) parseTruncatedRequest(data []byte, at int64) int {
	p.headUnfinished, p.answeredEarly, p.started = false, false, true
	skip := emptyLines(data)
	line := data[skip:]
	end := bytes.IndexByte(line, '\n')
	if end < 0 {
		line = withoutVersion(line)
	}
	p.parseRequest(line, at)

	// parseRequest has queued the exchange. Nothing more of the request comes, whatever its fields announce.
	exchange := p.pairing.Waiting()[p.pairing.Len()-1]
	exchange.requestDone, exchange.isConnect, exchange.wantsUpgrade = true, false, false
	if exchange.isHTTP09 && end < 0 { // the version may be in the missing part
		exchange.isHTTP09, exchange.event.Http.Version = false, ""
	}
	exchange.event.Partial = exchange.event.Partial || !exchange.isHTTP09
	p.sides[protocols.Client] = sideReader{}
	p.conn.Reparse(protocols.Server)
	return len(data)
}

// withoutVersion returns a truncated line without a front of " HTTP/1.1" at its end.
func withoutVersion(line []byte) []byte {
	const version = "HTTP/1.1"
	blank := lastSpace(line)
	front := line[blank+1:]
	if blank > methodEnd(line) && len(front) <= len(version) && string(front) == version[:len(front)] {
		return line[:blank]
	}
	return line
}

// awaitsHTTP09Response reports whether the next response is that to a request of HTTP/0.9.
func (p *parser) awaitsHTTP09Response() bool {
	if p.pairing.Skipping() {
		return false
	}
	if first := p.pairing.First(); first != nil {
		return (*first).isHTTP09
	}
	inner := p.inner.firstUnanswered()
	return inner != nil && inner.isHTTP09
}

// maxUndecidedLines bounds the empty lines at the front of a response that may be part of the body of HTTP/0.9: they are
// read again with each byte that follows.
const maxUndecidedLines = 256

// beginHTTP09Response reports whether data is the response to a request of HTTP/0.9. If it is, the response
// begins: it has no head, and its body extends to the end of the connection.
func (p *parser) beginHTTP09Response(data []byte) bool {
	if !p.awaitsHTTP09Response() || detectResponse(data) != protocols.No || looksLikeResponse(data) {
		return false
	}
	first, inner := p.pairing.First(), p.inner.firstUnanswered()
	exchange := inner
	if first != nil {
		exchange = *first
	} else {
		p.pairInner(0)
	}
	p.pairing.FoundReplies()
	p.sides[protocols.Server] = sideReader{state: untilClose, exchange: exchange}
	return true
}
