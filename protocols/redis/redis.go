// Package redis reads RESP2 and RESP3, the protocol between a Redis client and its server: a command with its reply is one event.
//
// A command is an array of bulk strings, or an inline line; replies come in the same order, so a queue pairs them. What breaks
// that order has its test: CLIENT REPLY OFF and SKIP (no reply comes), SUBSCRIBE (a reply for each channel), a pushed message (no
// command asked for it), MONITOR and PSYNC (the connection stops being a dialogue, and we stop reading it), a gap.
//
// Values are read as they come, piece by piece: of an argument its first bytes are kept, of data in a reply only the size. What is
// secret is replaced by REDACTED before the event leaves: the passwords of AUTH, HELLO, ACL SETUSER, CONFIG SET, MIGRATE, SENTINEL.
//
// Specification: redis.io/docs/latest/develop/reference/protocol-spec.
package redis

import (
	"errors"

	"tidegate/pipeline"
	"tidegate/pipeline/redact"
	"tidegate/protocols"
)

// Protocol is RESP.
var Protocol = protocols.Protocol{
	Name:    "redis",
	Dataset: pipeline.Dataset_REDIS,
	TCP:     true,
	Ports:   []uint16{6379, 6380, 16379, 26379},
	Detect:  detect,
	Sync:    resync,
	New:     func() protocols.Parser { return &parser{} },
}

// Bounds of what a connection may hold.
const (
	maxWaiting  = 16 << 10 // commands without a reply
	maxKept     = 1 << 20  // bytes of arguments that wait with them; beyond, arguments are counted but not kept
	maxArgs     = 16       // that are kept of a command
	maxArg      = 128      // bytes that are kept of one
	maxKey      = 256
	maxText     = 256      // of a simple string or an error
	maxLine     = 64 << 10 // of a line: an inline command, a simple string
	maxBulk     = 4 << 30  // bytes
	maxElements = 1 << 31
	maxDepth    = 32
)

var (
	errLine    = errors.New("redis: line too long")
	errCommand = errors.New("redis: not a command")
	errReply   = errors.New("redis: not a reply")
	errBulk    = errors.New("redis: malformed bulk string")
	errDepth   = errors.New("redis: nested too deeply")
)

// A parser reads one connection.
type parser struct {
	c       *protocols.Conn
	request request
	reply   reply
	waiting queue
	kept    int  // bytes of arguments of the commands in waiting
	evicted int  // commands before those in waiting that were let go: their replies are passed over
	seen    bool // a command or a reply was read

	off        bool // CLIENT REPLY OFF
	skip       int  // commands from here on that get no reply (CLIENT REPLY SKIP)
	subscribed bool // RESP2 pub/sub: messages come as arrays

	lost      bool // the place in the replies is lost
	asked     bool // … and a command was sent since
	gaps      bool // commands were lost: a reply without one is not a pushed message
	pipelined bool // more than one command waited at a time
	doubt     bool // commands were lost, so replies may be paired with later ones, until one finds none that waits
	heard     bool // a reply came since
	scratch   []byte
	redactor  redact.Redactor
}

// A pending is a command that waits for its reply.
type pending struct {
	e       *pipeline.Event
	replies int // that are still to come: SUBSCRIBE gets one for each channel
	kept    int
	flags   flags
}

type flags uint8

const (
	subscribes flags = 1 << iota // SUBSCRIBE and its kin
	streams                      // MONITOR, SYNC, PSYNC: what follows the reply is no dialogue
)

// Reset begins a connection.
func (p *parser) Reset(c *protocols.Conn) {
	p.waiting.reset()
	*p = parser{c: c, waiting: p.waiting, scratch: p.scratch[:0], redactor: p.redactor, request: request{arg: p.request.arg[:0]}, reply: reply{kind: p.reply.kind[:0]}}
}

// Parse reads what is there of a command or of a reply.
func (p *parser) Parse(dir protocols.Dir, b []byte, at int64) (int, error) {
	if dir == protocols.Client {
		return p.readCommand(b, at)
	}
	return p.readReply(b, at)
}

// sent ends a command.
func (p *parser) sent(at int64) {
	r := &p.request
	w := pending{e: r.e, replies: 1, kept: r.kept, flags: r.flags()}
	if r.e == nil { // *0 gets no reply
		r.reset()
		return
	}
	rc := r.e.Redis
	if w.flags&subscribes != 0 {
		w.replies = max(1, int(min(rc.ArgsCount, maxElements)))
		p.subscribed = true
	}
	if rc.Command == "RESET" {
		p.subscribed, p.off, p.skip = false, false, 0
	}
	silent := p.clientReply(r)
	r.reset()
	if p.lost && !p.asked {
		// The client goes on, so it has had the replies that we have not.
		p.flush()
		p.asked, p.doubt = true, false
	}
	if silent {
		p.emit(w.e, at)
		return
	}
	if p.waiting.len() >= maxWaiting {
		p.c.Count("too_many_waiting")
		old := p.waiting.pop()
		p.kept -= old.kept
		p.evicted += old.replies
		old.e.Partial = true
		p.emit(old.e, 0)
	}
	if p.waiting.len() == 0 && p.heard && !p.pipelined {
		p.doubt = false
	}
	w.e.Partial = w.e.Partial || p.doubt
	p.waiting.push(w)
	p.kept += w.kept
	p.pipelined = p.pipelined || p.waiting.len() > 1
}

// clientReply follows CLIENT REPLY and tells whether the command gets no reply.
func (p *parser) clientReply(r *request) bool {
	rc := r.e.Redis
	silent := p.off || p.skip > 0
	if p.skip > 0 {
		p.skip--
	}
	if rc.Command != "CLIENT REPLY" || len(rc.Args) != 1 {
		return silent
	}
	switch string(upper(&p.scratch, []byte(rc.Args[0]))) {
	case "ON":
		p.off, p.skip = false, 0
		return false
	case "OFF":
		p.off = true
		return true
	case "SKIP":
		if !p.off {
			p.skip = 1
		}
		return true
	}
	return silent
}

// answered ends a reply.
func (p *parser) answered(at int64) {
	r := &p.reply
	defer r.reset()
	kind, confirms := r.pushed(p.subscribed)
	switch {
	case confirms:
		if r.last == 0 && (kind == "unsubscribe" || kind == "punsubscribe" || kind == "sunsubscribe") {
			p.subscribed = false
		}
		if w := p.waiting.first(); w == nil || w.flags&subscribes == 0 {
			return // UNSUBSCRIBE without arguments: a reply for each channel that there was
		}
	case kind != "" || r.top == '>':
		p.push(kind, at)
		return
	}
	if p.evicted > 0 {
		p.evicted--
		return
	}
	p.heard = true
	w := p.waiting.first()
	if w == nil {
		p.doubt = false
		p.push(kind, at)
		return
	}
	if w.replies--; w.e.Redis.ReplyType == "" {
		p.fill(w.e)
	}
	w.e.Destination.Bytes += r.size
	if w.replies > 0 && r.top != '-' {
		return
	}
	done := p.waiting.pop()
	p.kept -= done.kept
	p.emit(done.e, at)
	if done.flags&streams != 0 && r.top != '-' {
		p.c.Drop()
	}
}

// fill writes what the reply says.
func (p *parser) fill(e *pipeline.Event) {
	r, rc := &p.reply, e.Redis
	rc.ReplyType = typeName(r.top, r.null)
	rc.ReplyBytes = r.data
	e.Outcome = pipeline.Outcome_SUCCESS
	switch r.top {
	case '+', ':', ',', '#', '(':
		rc.Reply = r.text
	case '-', '!':
		rc.Error = r.text
		rc.Reply = r.text
		e.Outcome = pipeline.Outcome_FAILURE
	}
	e.Partial = e.Partial || r.partial
}

// push emits a reply that no command asked for: a message of pub/sub, or the reply to a command that was not seen.
func (p *parser) push(kind string, at int64) {
	r := &p.reply
	e := r.e
	r.e = nil
	if e == nil {
		return
	}
	p.fill(e)
	e.Redis.Reply = kind
	if kind == "" {
		e.Redis.Reply = r.text
	}
	e.Destination.Bytes = r.size
	if r.top != '>' && kind == "" && (p.gaps || p.c.Info().MidStream) {
		e.Partial = true
	}
	p.emit(e, at)
}

// emit gives e on; at is the time of its last byte, or 0.
func (p *parser) emit(e *pipeline.Event, at int64) {
	if at > e.Timestamp {
		e.Duration = uint64(at - e.Timestamp)
	}
	p.c.Emit(e)
}

// flush emits all commands that wait; their replies were lost.
func (p *parser) flush() {
	for w := p.waiting.first(); w != nil; w = p.waiting.first() {
		done := p.waiting.pop()
		done.e.Partial = true
		p.emit(done.e, 0)
	}
	p.kept, p.evicted = 0, 0
}

// Gap passes over bytes of a bulk string. Anywhere else the place is lost: among commands Sync finds the next one, but an element
// of a reply looks like a reply, so the replies are passed over until the client, by going on, tells that it has had them.
func (p *parser) Gap(dir protocols.Dir, n int) bool {
	if dir == protocols.Client {
		r := &p.request
		if r.e != nil {
			r.e.Partial = true
		}
		// Of a command whose name has a hole it is not known what replies it gets.
		named := r.index > 1 && r.e.Redis.Command != "CLIENT REPLY" || r.index == 1 && !containers[r.e.Redis.Command]
		if r.inArg && named && (uint64(n) <= r.bulk || uint64(n) == r.bulk+2) {
			p.pass(uint64(n))
			return true
		}
		p.gaps, p.doubt, p.heard = true, true, false
		p.cut()
		return false
	}
	r := &p.reply
	if r.inBulk && uint64(n) <= r.bulk {
		r.bulk -= uint64(n)
		r.size += uint64(n)
		r.partial = true
		return true
	}
	p.reply.reset() // what was read of a reply is forgotten
	p.lost, p.asked = true, false
	return true
}

// pass moves over n lost bytes of an argument, or over all that is left of it.
func (p *parser) pass(n uint64) {
	r := &p.request
	r.hole = true
	if n <= r.bulk {
		r.bulk -= n
		return
	}
	r.bulk, r.inArg = 0, false
	p.argument(r.arg, r.size)
	r.hole = false
	if r.index == r.total {
		p.sent(0)
	}
}

// cut ends a command of which the rest was lost.
func (p *parser) cut() {
	r := &p.request
	if r.e != nil && r.index > 0 {
		r.e.Partial = true
		p.sent(0)
		return
	}
	if r.e != nil {
		r.e.ReturnToVTPool()
	}
	r.reset()
}

// End does nothing: what is not complete stays so.
func (p *parser) End(protocols.Dir, int64) {}

// Close emits what still waits, and a command that was cut short.
func (p *parser) Close(int64) {
	if r := &p.request; r.e != nil && r.index > 0 {
		e := r.e
		e.Partial = true
		r.e = nil
		p.whole()
		p.emit(e, 0)
	} else {
		p.cut()
	}
	p.reply.reset()
	p.whole()
	p.c = nil
}

// whole emits all commands that wait, as they are.
func (p *parser) whole() {
	for w := p.waiting.first(); w != nil; w = p.waiting.first() {
		done := p.waiting.pop()
		p.emit(done.e, 0)
	}
	p.kept = 0
}

// A queue is first in, first out.
type queue struct {
	all  []pending
	head int
}

func (q *queue) len() int { return len(q.all) - q.head }

func (q *queue) push(w pending) {
	if q.head > 32 && q.head > len(q.all)/2 {
		n := copy(q.all, q.all[q.head:])
		clear(q.all[n:])
		q.all, q.head = q.all[:n], 0
	}
	q.all = append(q.all, w)
}

func (q *queue) first() *pending {
	if q.len() == 0 {
		return nil
	}
	return &q.all[q.head]
}

func (q *queue) pop() pending {
	w := q.all[q.head]
	q.all[q.head] = pending{}
	if q.head++; q.head == len(q.all) {
		q.all, q.head = q.all[:0], 0
	}
	return w
}

// reset empties q; a large one is left to the garbage collector.
func (q *queue) reset() {
	if cap(q.all) > 256 {
		q.all = nil
	}
	q.all, q.head = q.all[:0], 0
}
