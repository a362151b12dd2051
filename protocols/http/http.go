// Package http parses HTTP/1.0 and HTTP/1.1, and the requests of HTTP/0.9.
//
// The framework in package protocols passes the bytes of a TCP connection. A request with its response is one
// event. Bodies are skipped as they arrive, and only counted.
//
// Responses come in the order of their requests, so protocols.Pairing pairs them. Each case that breaks this
// order, or the framing of messages, has its test: an interim response (100 Continue), a response without a
// request, a response to HEAD, a CONNECT or an Upgrade after which the connection carries another protocol,
// two lengths in one head (request smuggling), requests in a body that the server does not read, lost bytes.
//
// Secrets are redacted before the event is emitted (pipeline/redact). Of Authorization only the scheme and
// the user's name of Basic are kept. Cookies are not kept. In URLs the values of parameters with the names of
// credentials are redacted.
//
// The files: http.go pairs requests with responses, head.go and fields.go parse heads, body.go skips bodies,
// inner.go finds requests in them,
// truncated.go parses heads whose end was lost, detect.go recognises the protocol and finds the next message
// after a gap.
//
// Each direction is in one of the states of sideState:
//
//	inHead ─┬─ inBody ────────────────────────────────────────────────┬─ inHead
//	        ├─ inChunkSize ─ inChunk ─ inChunkEnd ─ inChunkSize ─ inTrailer ─┤
//	        ├─ untilClose (a response without a length)
//	        └─ awaitingResponse (a client after CONNECT or Upgrade)  ───────┘
//
// Specifications: RFC 9112 (messages), RFC 9110 (semantics). HTTP/2 without TLS is counted and dropped.
package http

import (
	"errors"

	"tidegate/pipeline"
	"tidegate/protocols"
)

// Protocol is HTTP/1.
var Protocol = protocols.Protocol{
	Name:        "http",
	Dataset:     pipeline.Dataset_HTTP,
	TCP:         true,
	Nested:      true,
	Ports:       []uint16{80, 8080, 8000, 8888, 3128, 8081, 5000, 3000, 9090, 9200, 15672, 2375},
	Detect:      detect,
	DetectWhole: detectWhole,
	Sync:        resync,
	New:         func() protocols.Parser { return &parser{} },
}

// Bounds of what a connection may hold.
const (
	maxHead    = 64 << 10 // bytes of a request or status line with its header fields
	maxWaiting = 256      // requests without a response
	maxLine    = 4 << 10  // bytes of the line with the size of a chunk and its extensions
	maxTrailer = 64 << 10 // bytes of the fields behind the last chunk
	maxFree    = 16       // exchanges that a parser keeps for later
)

var (
	errHead    = errors.New("http: not a request or status line")
	errTooLong = errors.New("http: head too long")
	errChunk   = errors.New("http: malformed chunk")
)

// A parser parses one connection.
type parser struct {
	conn      *protocols.Conn
	sides     [2]sideReader
	pairing   protocols.Pairing[*exchange] // requests whose response is not complete
	textBytes int                          // size of the texts of the requests in pairing
	started   bool                         // a head was parsed
	ambiguous bool                         // servers may find other boundaries of the requests since

	// The rest of an incomplete request head may never come, see truncated.go.
	headUnfinished bool // the client has sent the front of a head
	answeredEarly  bool // the server has answered the front
	truncated      bool // the response head that is being parsed has no end

	inner *innerReader // of the requests within bodies; nil: none was found

	free    []*exchange
	scratch []byte
	plain   []byte // buffer of addMarkers
	markers bool   // the head that is being parsed may hold forms of attacks
}

// A sideReader is the state of one direction.
type sideReader struct {
	state        sideState
	exchange     *exchange // of the message that is being read; nil between messages, and if the message is skipped
	bodyLeft     uint64    // bytes of the body, or of the chunk, that are still to come
	scanned      int       // length of the front of an incomplete head that holds no end
	trailerBytes int       // bytes of the fields after the last chunk
	isSearched   bool      // the body may hold requests, see inner.go
}

// A sideState is the part of a message that is read next.
type sideState uint8

const (
	inHead sideState = iota
	inBody
	inChunkSize
	inChunk
	inChunkEnd
	inTrailer
	untilClose
	awaitingResponse          // after CONNECT: the response decides which protocol follows
	awaitingResponseOrRequest // after Upgrade: the same, unless a request follows
)

// An exchange is a request with its response, or one of them if the other was not captured. It is in pairing
// until the response is complete. It is emitted when both messages are complete.
type exchange struct {
	event         *pipeline.Event // nil if the response answers an evicted request
	lastAt        int64           // time of the last byte
	requestDone   bool
	responseBegun bool // the head of the response was parsed
	responseDone  bool

	textBytes int // size of the texts of a request that waits for its response

	isHead       bool // HEAD
	isConnect    bool // CONNECT
	wantsUpgrade bool // Upgrade
	isHTTP09     bool // the response has no head
	behindInner  bool // requests within bodies were told before
}

// Reset begins a connection.
func (p *parser) Reset(conn *protocols.Conn) {
	p.pairing.Reset()
	*p = parser{conn: conn, pairing: p.pairing, free: p.free, scratch: p.scratch, plain: p.plain}
}

// Parse reads a head, or the available part of a body.
func (p *parser) Parse(dir protocols.Dir, data []byte, at int64) (int, error) {
	side := &p.sides[dir]
	switch side.state {
	case inHead:
		return p.readHead(dir, data, at)
	case awaitingResponse:
		return 0, nil
	case awaitingResponseOrRequest:
		if detectRequest(data) != protocols.Yes {
			return 0, nil
		}
		side.state = inHead
		return p.readHead(dir, data, at)
	}

	exchange := side.exchange
	length, err := p.readBody(dir, data)
	if exchange != nil && length > 0 {
		p.countBytes(dir, exchange, length, at)
		if side.exchange == nil { // the message is complete
			p.emitIfComplete(exchange)
		}
	}
	return length, err
}

// countBytes adds size bytes of dir to the event of exchange.
func (p *parser) countBytes(dir protocols.Dir, exchange *exchange, size int, at int64) {
	exchange.lastAt = at
	if dir == protocols.Client {
		exchange.event.Source.Bytes += uint64(size)
	} else {
		exchange.event.Destination.Bytes += uint64(size)
	}
}

// newExchange returns an exchange for event.
func (p *parser) newExchange(event *pipeline.Event) *exchange {
	var created *exchange
	if free := len(p.free); free > 0 {
		created, p.free = p.free[free-1], p.free[:free-1]
	} else {
		created = &exchange{}
	}
	*created = exchange{event: event}
	created.event.Http = pipeline.HTTPExchangeFromVTPool()
	return created
}

// enqueue appends a request to those that wait for their response.
func (p *parser) enqueue(exchange *exchange) {
	if p.pairing.RepliesLost() {
		p.pairing.Flush(p.emit) // they are partial since then
	}
	if p.pairing.Len() >= maxWaiting {
		p.conn.Count("too_many_waiting")
		p.evictOldest()
	}
	for _, uncertain := range p.pairing.Expect(exchange) {
		uncertain.event.Partial = true
	}
	exchange.behindInner = p.inner != nil && len(p.inner.unanswered) > 0
	p.chargeTexts(exchange)
}

// chargeTexts counts the texts of a request that waits for its response.
func (p *parser) chargeTexts(exchange *exchange) {
	body := exchange.event.Http
	exchange.textBytes = len(body.UrlOriginal) + len(body.UserAgent) + len(body.Referrer) // path and query are parts of the first
	p.textBytes += exchange.textBytes
}

// Held returns the size of the requests that wait for their response.
func (p *parser) Held() int {
	return p.pairing.Len()*protocols.EventBytes + p.textBytes + p.innerSize()
}

// evictOldest emits the oldest waiting request. Its response, or the rest of it if it has begun, is skipped.
func (p *parser) evictOldest() {
	server := &p.sides[protocols.Server]
	replies := 1
	if server.exchange == *p.pairing.First() {
		replies = 0
		server.exchange = nil
	}
	oldest := p.pairing.Evict(replies)
	oldest.event.Partial = true
	p.emit(oldest)
}

// detach removes exchange from the sides that are reading a message of it. The rest of the message is
// skipped.
func (p *parser) detach(exchange *exchange) {
	for dir := range p.sides {
		if p.sides[dir].exchange == exchange {
			p.sides[dir].exchange = nil
		}
	}
}

// dequeue removes exchange from the queue if it is the oldest there. The exchange of a response without a
// request is not in the queue.
func (p *parser) dequeue(exchange *exchange) {
	if first := p.pairing.First(); first != nil && *first == exchange {
		p.pairing.Pop()
	}
}

// endMessage ends the message of dir that is being read.
func (p *parser) endMessage(dir protocols.Dir) {
	side := &p.sides[dir]
	exchange := side.exchange
	if side.isSearched {
		p.endSearch()
	}
	*side = sideReader{}
	if exchange == nil {
		return
	}
	if dir == protocols.Server {
		exchange.responseDone = true
		p.dequeue(exchange)
		return
	}
	exchange.requestDone = true
	switch {
	case exchange.responseBegun:
		// The response came before the end of the request: beginResponseBody has already switched, or not.
	case exchange.isConnect:
		side.state = awaitingResponse
	case exchange.wantsUpgrade:
		side.state = awaitingResponseOrRequest
	}
}

// emitIfComplete emits exchange if both of its messages are complete.
func (p *parser) emitIfComplete(exchange *exchange) {
	if exchange.responseDone && exchange.requestDone {
		p.emit(exchange)
	}
}

// emit emits the event of exchange and recycles exchange.
func (p *parser) emit(exchange *exchange) {
	event := exchange.event
	if exchange.lastAt > event.Timestamp {
		event.Duration = uint64(exchange.lastAt - event.Timestamp)
	}
	switch code := event.Http.StatusCode; {
	case code >= 400:
		event.Outcome = pipeline.Outcome_FAILURE
	case code > 0:
		event.Outcome = pipeline.Outcome_SUCCESS
	}
	p.textBytes -= exchange.textBytes
	exchange.event, exchange.textBytes = nil, 0
	if len(p.free) < maxFree {
		p.free = append(p.free, exchange)
	}
	p.conn.Emit(event)
}

// Gap skips lost bytes of a body. Anywhere else the position in the stream is lost.
func (p *parser) Gap(dir protocols.Dir, size int) bool {
	side := &p.sides[dir]
	exchange := side.exchange
	if exchange != nil {
		exchange.event.Partial = true
	}
	switch side.state {
	case untilClose:
		p.countBody(dir, uint64(size))
		return true
	case inBody, inChunk:
		if uint64(size) > side.bodyLeft {
			break
		}
		side.bodyLeft -= uint64(size)
		p.countBody(dir, uint64(size))
		if side.isSearched {
			p.loseInner()
		}
		// The gap may end exactly with the chunk or the body.
		if side.bodyLeft == 0 && side.state == inChunk {
			side.state = inChunkEnd
		} else if side.bodyLeft == 0 {
			p.endMessage(dir)
			if exchange != nil {
				p.emitIfComplete(exchange)
			}
		}
		return true
	}
	if dir == protocols.Server && size == 1 {
		p.reportWithheld() // bytes that are no response: one to HEAD was paired with another request
	}
	p.loseSync(dir)
	return false
}

// countBody adds size bytes to the body of the message of dir.
func (p *parser) countBody(dir protocols.Dir, size uint64) {
	exchange := p.sides[dir].exchange
	switch {
	case exchange == nil:
	case dir == protocols.Client:
		exchange.event.Http.RequestBodyBytes += size
	default:
		exchange.event.Http.ResponseBodyBytes += size
	}
}

// loseSync ends the message of dir that is being read, since its real end is unknown.
func (p *parser) loseSync(dir protocols.Dir) {
	side := &p.sides[dir]
	exchange := side.exchange
	if dir == protocols.Client {
		p.headUnfinished, p.answeredEarly = false, false
		p.pairing.LostRequests()
		if exchange != nil {
			exchange.isConnect, exchange.wantsUpgrade = false, false
		}
	}
	p.endMessage(dir)

	// Whole responses may be lost too, so the request of the next response is uncertain.
	if dir == protocols.Server && p.pairing.Len() > 0 {
		p.pairing.LostReplies()
		for _, waiting := range p.pairing.Waiting() {
			waiting.event.Partial = true
		}
	}
	if exchange != nil {
		p.emitIfComplete(exchange)
	}
}

// End completes a body of unknown length. Any other message that is being read is marked as partial.
func (p *parser) End(dir protocols.Dir, _ int64) {
	side := &p.sides[dir]
	exchange := side.exchange
	if exchange == nil {
		return
	}
	if side.state != untilClose {
		exchange.event.Partial = true
	}
	if dir == protocols.Server {
		p.endMessage(dir)
		p.emitIfComplete(exchange)
	}
}

// Close emits the pending exchanges, first the one whose response has begun.
func (p *parser) Close(int64) {
	if exchange := p.sides[protocols.Server].exchange; exchange != nil {
		exchange.event.Partial = true
		p.dequeue(exchange)
		p.emitIncomplete(exchange)
	}
	p.pairing.Flush(p.emitIncomplete)
	p.closeInner()
	if exchange := p.sides[protocols.Client].exchange; exchange != nil {
		p.emitIncomplete(exchange) // a request that was answered before its end, and never ended
	}
	p.conn = nil
}

// emitIncomplete emits exchange on Close. An incomplete request is partial; a missing response is not.
func (p *parser) emitIncomplete(exchange *exchange) {
	if !exchange.requestDone {
		exchange.event.Partial = true
	}
	p.detach(exchange)
	p.emit(exchange)
}
