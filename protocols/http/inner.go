package http

import (
	"bytes"

	"tidegate/pipeline"
	"tidegate/protocols"
)

// Bounds of what is kept of requests within bodies.
const (
	maxInner     = 256      // requests that wait for a response, and as many that are withheld
	maxInnerText = 64 << 10 // bytes of the texts of those that are withheld
	maxCarry     = 8 << 10  // bytes of a line that goes on behind its body
)

// An innerReader searches the body of a request for requests, beside the framing that the head announces. A server
// whose handler reads no body (http.server of Python does not, for GET) takes its bytes for the next requests; most
// servers skip them. So the body is skipped, and the requests in it are events with the tag ambiguous.
//
// Only a body that begins with a request line is searched: such a server answers anything else with an error, and
// closes the connection. In the content of GET, HEAD, DELETE, OPTIONS and TRACE, which has no meaning (RFC 9110 section
// 9.3), requests are reported at once. In that of other methods they are withheld until the server sends a response for
// which no request waits, and are dropped if it never does.
type innerReader struct {
	pending []byte // bytes of the body
	offset  uint64 // offset of pending[0] in the stream
	front   int    // offset in pending of the head that is read, or of the line
	line    int    // offset in pending of the line that is read
	scanned int    // offset in pending up to which the line has no end
	inHead  bool   // a request line begins at front
	begun   bool   // the body began with a request line
	reports bool   // the requests are reported, not withheld

	withheld     []*exchange // found, and not reported
	withheldText int         // size of their texts
	incomplete   bool        // more were found than are withheld
	unanswered   []*exchange // reported, and to be paired with responses for which no other request waits

	carry        []byte // the front of a line at the end of a body
	carryOffset  uint64
	carryReports bool
}

// hasNoContent reports whether the content of a request with the method has no meaning.
func hasNoContent(method string) bool {
	switch method {
	case "GET", "HEAD", "DELETE", "OPTIONS", "TRACE":
		return true
	}
	return false
}

// mayBeginRequest reports whether data can be the front of a request line: any token, which more bytes may continue.
func mayBeginRequest(data []byte) bool {
	data = data[emptyLines(data):]
	end := bytes.IndexByte(data, '\n')
	if end < 0 {
		end = len(data)
	}
	word := data[:min(end, maxWord)]
	if space := firstSpace(word); space > 0 {
		return isToken(word[:space]) && (isKnownMethod(word[:space]) || end < maxRequestLine)
	}
	return isToken(bytes.TrimRight(word, "\r")) && end < maxWord
}

// searchBody reads the next bytes of the client's body.
func (p *parser) searchBody(data []byte) {
	side := &p.sides[protocols.Client]
	r := p.inner
	if r == nil || !r.begun && len(r.pending) == 0 {
		if !mayBeginRequest(data) {
			side.isSearched = false
			return
		}
		if r == nil {
			r = &innerReader{}
			p.inner = r
		}
	}
	if len(r.pending) == 0 {
		r.offset = p.conn.Offset(protocols.Client)
	}
	r.pending = append(r.pending, data...)
	p.readInnerLines()
	switch {
	case !r.begun && !mayBeginRequest(r.pending[r.front:]):
		side.isSearched, r.front = false, len(r.pending)
	case len(r.pending)-r.front > maxHead: // a line or a head without an end
		p.conn.Count("inner_request_too_long")
		p.endInnerHead(r.line)
		r.front = len(r.pending)
	}

	// What is left is a head without its end, or the front of a line.
	if r.front > 0 {
		r.pending = r.pending[:copy(r.pending, r.pending[r.front:])]
		r.offset += uint64(r.front)
		r.line, r.scanned, r.front = max(r.line-r.front, 0), len(r.pending), 0
	}
}

// readInnerLines reads the complete lines that are pending.
func (p *parser) readInnerLines() {
	r := p.inner
	for p.sides[protocols.Client].isSearched {
		length := bytes.IndexByte(r.pending[r.scanned:], '\n') + 1
		if length == 0 {
			r.scanned = len(r.pending)
			return
		}
		line := r.pending[r.line : r.scanned+length]
		p.readInnerLine(line)
		r.line += len(line)
		r.scanned = r.line
		if !r.inHead {
			r.front = r.line
		}
	}
}

// readInnerLine reads a complete line.
func (p *parser) readInnerLine(line []byte) {
	r := p.inner
	isEmpty := len(trim(line[:len(line)-1])) == 0
	switch {
	case isEmpty && r.inHead:
		p.endInnerHead(r.line + len(line))
	case isEmpty:
	case hasTarget(line) && (r.begun || mayBeginRequest(line)): // also among the fields of a head: none has this form
		p.endInnerHead(r.line)
		r.front = r.line
		p.beginInnerHead()
	case r.inHead && r.line+len(line)-r.front > maxHead:
		p.conn.Count("inner_request_too_long")
		p.endInnerHead(r.line)
	case r.inHead:
	case !r.begun:
		p.sides[protocols.Client].isSearched = false
	default:
		if skip, match := resync(protocols.Client, line); match == protocols.Yes {
			r.front = r.line + skip
			p.beginInnerHead()
		}
	}
}

// beginInnerHead begins the head of a request within the body.
func (p *parser) beginInnerHead() {
	r := p.inner
	r.inHead = true
	if r.begun {
		return
	}
	r.begun = true
	exchange := p.sides[protocols.Client].exchange
	if exchange != nil && hasNoContent(exchange.event.Http.Method) {
		r.reports = true
	}
	if r.reports {
		markAmbiguous(exchange)
	}
}

// markAmbiguous marks the event of exchange, if there is one.
func markAmbiguous(exchange *exchange) {
	if exchange != nil && exchange.event != nil {
		exchange.event.Partial = true
		exchange.event.AddTag(pipeline.TagAmbiguous)
	}
}

// endInnerHead ends the head that is read, at offset end of what is pending.
func (p *parser) endInnerHead(end int) {
	r := p.inner
	if r.inHead {
		r.inHead = false
		p.addInner(r.pending[r.front:end], r.offset+uint64(r.front))
	}
}

// addInner adds the request of head, which begins at an offset of the stream: it is reported or withheld.
func (p *parser) addInner(head []byte, offset uint64) {
	r := p.inner
	if !r.reports && (len(r.withheld) >= maxInner || r.withheldText > maxInnerText) {
		p.conn.Count("inner_requests_dropped")
		r.incomplete = true
		return
	}
	found := p.newExchange(p.conn.EventAt(protocols.Client, offset))
	p.readRequest(found, head, 0)
	markAmbiguous(found)
	found.requestDone, found.isConnect, found.wantsUpgrade = true, false, false
	p.chargeTexts(found)
	if r.reports {
		p.reportInner(found)
		return
	}
	r.withheld = append(r.withheld, found)
	r.withheldText += found.textBytes
}

// reportInner queues a request for a response for which no other one waits.
func (p *parser) reportInner(found *exchange) {
	r := p.inner
	p.ambiguous = true
	r.unanswered = append(r.unanswered, found)
	if len(r.unanswered) > maxInner {
		p.emit(r.unanswered[0])
		r.unanswered = r.unanswered[:copy(r.unanswered, r.unanswered[1:])]
	}
}

// endSearch ends the search of a body. A line without its end may go on behind the body.
func (p *parser) endSearch() {
	r, side := p.inner, &p.sides[protocols.Client]
	if r == nil {
		return
	}
	partial := r.pending[r.line:]
	if len(partial) <= maxCarry && (r.begun || len(partial) > 0 && mayBeginRequest(partial)) {
		r.carry, r.carryOffset = append(r.carry[:0], partial...), r.offset+uint64(r.line)
		r.carryReports = r.reports || side.exchange != nil && hasNoContent(side.exchange.event.Http.Method)
	}
	p.endInnerHead(len(r.pending))
	r.clearPending()
	r.begun = false
}

// clearPending prepares r for the next body, or for what follows a gap.
func (r *innerReader) clearPending() {
	r.pending, r.offset, r.front, r.line, r.scanned, r.inHead = r.pending[:0], 0, 0, 0, 0, false
}

// loseInner ends the head that is read in the body of the client, of which bytes were lost.
func (p *parser) loseInner() {
	side := &p.sides[protocols.Client]
	if r := p.inner; side.isSearched && r != nil {
		p.endInnerHead(len(r.pending))
		r.clearPending()
		side.isSearched = r.begun
	}
}

// endCarry joins the front of a line at the end of a body with data, which follows the body. It returns false if data
// does not hold the end of the line.
func (p *parser) endCarry(data []byte) bool {
	r := p.inner
	end := bytes.IndexByte(data, '\n') + 1
	if end == 0 {
		return len(data) > maxCarry
	}
	rest := data[:end]
	r.carry = append(r.carry, rest...)
	blank := methodEnd(r.carry)
	joins := blank > 0 && isKnownMethod(r.carry[:blank])
	word := methodEnd(rest)
	alone := word > 0 && isKnownMethod(rest[:word])
	isRequest := hasTarget(rest) && !(joins && (r.carryReports || !alone))
	if hasTarget(r.carry) && !isRequest {
		// Nothing but the request that began in the body explains a line that is none by itself.
		r.reports = r.reports || r.carryReports || len(trim(rest[:end-1])) > 0
		p.addInner(r.carry, r.carryOffset)
	}
	r.carry = r.carry[:0]
	return true
}

// firstUnanswered returns the first request within a body that has no response, or nil. r may be nil.
func (r *innerReader) firstUnanswered() *exchange {
	switch {
	case r == nil:
		return nil
	case len(r.unanswered) > 0:
		return r.unanswered[0]
	case len(r.withheld) > 0:
		return r.withheld[0]
	}
	return nil
}

// reportWithheld reports the requests that are withheld: the server's responses show that it has read them.
func (p *parser) reportWithheld() {
	r := p.inner
	if r == nil || len(r.withheld) == 0 {
		return
	}
	r.reports = true
	if side := &p.sides[protocols.Client]; side.isSearched {
		markAmbiguous(side.exchange)
	}
	if r.incomplete {
		r.withheld[len(r.withheld)-1].event.AddTag(pipeline.TagTruncated)
	}
	for _, found := range r.withheld {
		p.reportInner(found)
	}
	r.withheld, r.withheldText, r.incomplete = nil, 0, false
}

// pairInner returns the request within a body that a response answers, for which no other request waits. Such a
// response shows that the server has read a body as requests.
func (p *parser) pairInner(code uint32) *exchange {
	r := p.inner
	if r == nil || code == 408 { // a server sends 408 unasked
		return nil
	}
	p.reportWithheld()
	if len(r.unanswered) == 0 {
		return nil
	}
	first := r.unanswered[0]
	r.unanswered = r.unanswered[:copy(r.unanswered, r.unanswered[1:])]
	return first
}

// emitInner emits the requests within bodies that no response has answered.
func (p *parser) emitInner() {
	if r := p.inner; r != nil {
		for _, found := range r.unanswered {
			p.emit(found)
		}
		r.unanswered = r.unanswered[:0]
	}
}

// closeInner emits the requests that were reported, and drops those that are withheld.
func (p *parser) closeInner() {
	if p.inner == nil {
		return
	}
	p.loseInner()
	p.emitInner()
	for _, found := range p.inner.withheld {
		pipeline.ReleaseEvent(found.event)
	}
	p.inner = nil
}

// innerSize returns the size of what is kept of the requests within bodies, without the texts of those in unanswered.
func (p *parser) innerSize() int {
	r := p.inner
	if r == nil {
		return 0
	}
	return cap(r.pending) + cap(r.carry) + (len(r.withheld)+len(r.unanswered))*protocols.EventBytes
}
