// Package http reads HTTP/1.0 and HTTP/1.1, the request and its response being one event.
//
// Responses come in the order of their requests, so a queue pairs them. What breaks that order, or the framing, has its test: an
// interim response (100 Continue), a response nobody asked for, a HEAD whose response has no body, a CONNECT or an Upgrade after
// which the connection is another protocol's, two lengths in one head (request smuggling), a gap that swallows a whole response.
// Bodies are passed over as they come and only counted. What is secret is taken out before the event leaves: of Authorization only
// the scheme (and the user's name of Basic) is kept, cookies not at all, and of URLs the values of parameters that look like
// credentials are replaced by REDACTED.
//
// Specification: RFC 9112 (messages), RFC 9110 (semantics). HTTP/2, also in clear, is another protocol.
package http

import (
	"errors"

	"tidegate/pipeline"
	"tidegate/pipeline/redact"
	"tidegate/protocols"
)

// Protocol is HTTP/1.
var Protocol = protocols.Protocol{
	Name:    "http",
	Dataset: pipeline.Dataset_HTTP,
	TCP:     true,
	Nested:  true,
	Ports:   []uint16{80, 8080, 8000, 8888, 3128, 8081, 5000, 3000, 9090, 9200, 15672, 2375},
	Detect:  detect,
	Sync:    resync,
	New:     func() protocols.Parser { return &parser{} },
}

// Bounds of what a connection may hold.
const (
	maxHead    = 64 << 10 // bytes of a request or status line with its header fields
	maxWaiting = 256      // requests without a response
	maxLine    = 4 << 10  // of a chunk's size with its extensions
	maxTrailer = 64 << 10
)

var (
	errHead    = errors.New("http: not a request or status line")
	errTooLong = errors.New("http: head too long")
	errChunk   = errors.New("http: malformed chunk")
)

// A parser reads one connection.
type parser struct {
	c       *protocols.Conn
	side    [2]side
	waiting []*exchange // requests whose response is not complete, oldest first
	evicted int         // requests before those that were let go: their responses are passed over
	seen    bool        // a head was read
	noReply bool        // the server's place was lost while a request waited
	lost    bool        // the client's place was lost at some time: a request may be missing

	unfinished bool // the client has sent the beginning of a head, and not its end
	urged      bool // its end will not come any more
	cutting    bool // what is read now ends before its end
	doubt      doubt
	free       []*exchange
	scratch    []byte
	redactor   redact.Redactor
}

// A side is where one direction is in its message.
type side struct {
	state   state
	x       *exchange // of the message that is being read; nil between messages, and of a message that is passed over
	left    uint64    // bytes of the body, or of the chunk
	scanned int       // bytes of an unfinished head that hold no end of it
	trailer int       // bytes of trailer fields
}

type state uint8

const (
	inHead state = iota
	inBody
	inChunkSize
	inChunk
	inChunkEnd
	inTrailer
	untilClose
	held // what comes now depends on the response: CONNECT
	heldUnlessRequest
)

// A doubt is whether responses belong to the requests that they are paired with: after the client's place was lost a request may be
// missing from the queue. It ends with a response that finds the queue empty, or, where requests are not pipelined, with the next
// request behind a response.
type doubt struct {
	on, heard, pipelined bool
}

// An exchange is a request with its response, as far as they were seen.
type exchange struct {
	e         *pipeline.Event
	last      int64 // time of the last byte
	asked     bool  // the request is complete
	answered  bool  // the response is complete
	responded bool  // the head of the response was seen
	head      bool  // HEAD
	connect   bool
	upgrade   bool
	simple    bool // of HTTP/0.9: the response has no head
}

// Reset begins a connection.
func (p *parser) Reset(c *protocols.Conn) {
	clear(p.waiting)
	*p = parser{c: c, waiting: p.waiting[:0], free: p.free, scratch: p.scratch, redactor: p.redactor}
}

// Parse reads a head, or what is there of a body.
func (p *parser) Parse(dir protocols.Dir, b []byte, at int64) (int, error) {
	s := &p.side[dir]
	x := s.x
	var n int
	var err error
	switch s.state {
	case inHead:
		return p.readHead(dir, b, at)
	case held:
		return 0, nil
	case heldUnlessRequest:
		if detectRequest(b) != protocols.Yes {
			return 0, nil
		}
		s.state = inHead
		return p.readHead(dir, b, at)
	default:
		n, err = p.readBody(dir, b)
	}
	if x != nil && n > 0 {
		p.wire(dir, x, n, at)
		if s.x == nil {
			p.settle(x)
		}
	}
	return n, err
}

// wire counts bytes of x.
func (p *parser) wire(dir protocols.Dir, x *exchange, n int, at int64) {
	x.last = at
	if dir == protocols.Client {
		x.e.Source.Bytes += uint64(n)
	} else {
		x.e.Destination.Bytes += uint64(n)
	}
}

// begin makes the exchange that the message of dir begins.
func (p *parser) begin(dir protocols.Dir) *exchange {
	var x *exchange
	if n := len(p.free); n > 0 {
		x, p.free = p.free[n-1], p.free[:n-1]
	} else {
		x = &exchange{}
	}
	*x = exchange{e: p.c.Event(dir)}
	x.e.Http = pipeline.HTTPExchangeFromVTPool()
	return x
}

// expect puts a request behind those that wait for their response.
func (p *parser) expect(x *exchange) {
	if p.noReply {
		// The client goes on, so it has had the response that we have not.
		p.flush()
	}
	if len(p.waiting) >= maxWaiting {
		p.c.Count("too_many_waiting")
		old := p.waiting[0]
		p.remove(old)
		p.evicted++
		if p.side[protocols.Server].x == old {
			p.evicted--
			p.side[protocols.Server].x = nil
		}
		old.e.Partial = true
		p.emit(old)
	}
	if len(p.waiting) == 0 && p.doubt.heard && !p.doubt.pipelined {
		p.doubt.on = false
	}
	x.e.Partial = x.e.Partial || p.doubt.on
	p.waiting = append(p.waiting, x)
	p.doubt.pipelined = p.doubt.pipelined || len(p.waiting) > 1
}

// flush emits all requests that wait; their responses were lost.
func (p *parser) flush() {
	p.noReply, p.evicted, p.doubt.on = false, 0, false
	for len(p.waiting) > 0 {
		x := p.waiting[0]
		p.remove(x)
		x.e.Partial = true
		p.forget(x)
		p.emit(x)
	}
}

// forget lets no side point at x any more.
func (p *parser) forget(x *exchange) {
	for d := range p.side {
		if p.side[d].x == x {
			p.side[d].x = nil
		}
	}
}

func (p *parser) remove(x *exchange) {
	for i, w := range p.waiting {
		if w == x {
			p.waiting = append(p.waiting[:i], p.waiting[i+1:]...)
			return
		}
	}
}

// done ends the message of dir that is being read.
func (p *parser) done(dir protocols.Dir) {
	s := &p.side[dir]
	x := s.x
	*s = side{}
	if x == nil {
		return
	}
	if dir == protocols.Client {
		x.asked = true
		switch {
		case x.responded:
			// The response came before the end of the request: it has said already what the connection becomes.
		case x.connect:
			s.state = held
		case x.upgrade:
			s.state = heldUnlessRequest
		}
		return
	}
	x.answered = true
	p.remove(x)
}

// settle emits x when both of its messages are complete.
func (p *parser) settle(x *exchange) {
	if x.answered && x.asked {
		p.emit(x)
	}
}

// emit gives x on as it is.
func (p *parser) emit(x *exchange) {
	e := x.e
	if x.last > e.Timestamp {
		e.Duration = uint64(x.last - e.Timestamp)
	}
	switch code := e.Http.StatusCode; {
	case code >= 400:
		e.Outcome = pipeline.Outcome_FAILURE
	case code > 0:
		e.Outcome = pipeline.Outcome_SUCCESS
	}
	x.e = nil
	if len(p.free) < 16 {
		p.free = append(p.free, x)
	}
	p.c.Emit(e)
}

// Gap passes over bytes of a body; anywhere else the place is lost.
func (p *parser) Gap(dir protocols.Dir, n int) bool {
	s := &p.side[dir]
	x := s.x
	if x != nil {
		x.e.Partial = true
	}
	switch s.state {
	case untilClose:
		p.passed(dir, uint64(n))
		return true
	case inBody, inChunk:
		// A gap that ends with the chunk leaves us where the next size is awaited.
		if uint64(n) > s.left {
			break
		}
		s.left -= uint64(n)
		p.passed(dir, uint64(n))
		if s.left == 0 && s.state == inChunk {
			s.state = inChunkEnd
		} else if s.left == 0 {
			p.done(dir)
			if x != nil {
				p.settle(x)
			}
		}
		return true
	}
	p.lose(dir)
	return false
}

// passed counts bytes of a body.
func (p *parser) passed(dir protocols.Dir, n uint64) {
	x := p.side[dir].x
	switch {
	case x == nil:
	case dir == protocols.Client:
		x.e.Http.RequestBodyBytes += n
	default:
		x.e.Http.ResponseBodyBytes += n
	}
}

// lose ends the message of dir that is being read, whose rest cannot be told from what follows.
func (p *parser) lose(dir protocols.Dir) {
	s := &p.side[dir]
	x := s.x
	if dir == protocols.Client {
		p.lost = true
		p.unfinished, p.urged = false, false
		p.doubt.on, p.doubt.heard = true, false
	}
	if x != nil && dir == protocols.Client {
		x.connect, x.upgrade = false, false
	}
	p.done(dir)
	if dir == protocols.Server {
		// Whole responses may be lost, so to which of these the next one belongs is not sure.
		p.noReply = len(p.waiting) > 0
		for _, w := range p.waiting {
			w.e.Partial = true
		}
	}
	s.state = inHead
	if x != nil {
		p.settle(x)
	}
}

// End ends a body that goes on until the connection is closed, and cuts short any other.
func (p *parser) End(dir protocols.Dir, _ int64) {
	s := &p.side[dir]
	x := s.x
	if x == nil {
		return
	}
	if s.state != untilClose {
		x.e.Partial = true
	}
	if dir == protocols.Server {
		p.done(dir)
		p.settle(x)
	}
}

// Close emits what still waits, a response without its end first.
func (p *parser) Close(int64) {
	if x := p.side[protocols.Server].x; x != nil {
		x.e.Partial = true
		p.remove(x)
		p.emitLast(x)
	}
	for len(p.waiting) > 0 {
		x := p.waiting[0]
		p.remove(x)
		p.emitLast(x)
	}
	if x := p.side[protocols.Client].x; x != nil {
		p.emitLast(x) // answered, but it never ended
	}
	p.side = [2]side{}
	p.c = nil
}

func (p *parser) emitLast(x *exchange) {
	if !x.asked {
		x.e.Partial = true
	}
	p.forget(x)
	p.emit(x)
}
