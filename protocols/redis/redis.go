// Package redis parses RESP2 and RESP3, the protocol between a Redis client and its server.
//
// The bytes of a TCP connection come from the framework in package protocols. A command with its reply is one
// event; a message of pub/sub is an event of its own.
//
// A command is an array of bulk strings, or a line of words (an inline command). Replies come in the order of
// the commands, so protocols.Pairing pairs them. Each exception from that order has its test: CLIENT REPLY
// OFF and SKIP (no reply comes), SUBSCRIBE (a reply for each channel), a pushed message (no command asked for
// it), MONITOR and PSYNC (the connection stops being a dialogue, and is ignored from there on), bytes that
// were lost.
//
// Values are parsed as they arrive: of an argument its first bytes are kept, of the data of a reply only the
// size. Passwords in arguments are redacted (pipeline/redact).
//
// Specifications: redis.io/docs/latest/develop/reference/protocol-spec, and …/commands for the places of the
// keys (tables.go).
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
	maxWaiting   = 16 << 10 // commands without a reply
	maxArgsBytes = 1 << 20  // bytes of arguments of all of them; beyond, arguments are counted but not kept
	maxArgs      = 16       // arguments that are kept of a command
	maxArg       = 128      // bytes that are kept of an argument
	maxKey       = 256      // bytes that are kept of a key
	maxText      = 256      // bytes that are kept of a simple string or an error
	maxLine      = 64 << 10 // bytes of a line: an inline command, a simple string
	maxBulk      = 4 << 30  // bytes of a bulk string
	maxElements  = 1 << 31  // elements of an array
	maxDepth     = 32       // arrays in arrays
)

var (
	errLine    = errors.New("redis: line too long")
	errCommand = errors.New("redis: not a command")
	errReply   = errors.New("redis: not a reply")
	errBulk    = errors.New("redis: malformed bulk string")
	errDepth   = errors.New("redis: nested too deeply")
)

// A parser parses one connection.
type parser struct {
	protocols.NopParser // End: a side that was closed may still be answered
	c                   *protocols.Conn
	command             commandReader // the command that is being read
	reply               replyReader   // the reply that is being read
	pairing             protocols.Pairing[pending]

	argsBytes int  // bytes of arguments of the commands in pairing
	started   bool // a command or a reply was read
	suspended bool // the place in the replies was lost: they are skipped until the client sends another command

	repliesOff  bool // CLIENT REPLY OFF
	skipReplies int  // commands from here on that get no reply (CLIENT REPLY SKIP)
	subscribed  bool // RESP2 pub/sub: messages come as arrays

	scratch  []byte
	redactor redact.Redactor
}

// A pending is a command that waits for its reply.
type pending struct {
	e         *pipeline.Event
	replies   int // that are still to come: SUBSCRIBE gets one for each channel
	argsBytes int
	flags     flags
}

type flags uint8

const (
	subscribes  flags = 1 << iota // SUBSCRIBE and its kin
	endsReading                   // MONITOR, SYNC, PSYNC: what follows the reply is no dialogue
)

// Reset begins a connection.
func (p *parser) Reset(c *protocols.Conn) {
	p.pairing.Reset()
	*p = parser{
		c: c, pairing: p.pairing, scratch: p.scratch[:0], redactor: p.redactor,
		command: commandReader{arg: p.command.arg[:0]}, reply: replyReader{kind: p.reply.kind[:0]},
	}
}

// Parse reads what is there of a command or of a reply.
func (p *parser) Parse(dir protocols.Dir, data []byte, at int64) (int, error) {
	if dir == protocols.Client {
		return p.readCommand(data, at)
	}
	return p.readReply(data, at)
}

// finishCommand puts the command that was read into the queue of those that wait for their reply, or emits it
// if none comes.
func (p *parser) finishCommand(at int64) {
	cmd := &p.command
	if cmd.e == nil { // *0 gets no reply
		cmd.reset()
		return
	}
	waiting := pending{e: cmd.e, replies: 1, argsBytes: cmd.argsBytes, flags: cmd.flags()}
	rc := cmd.e.Redis
	if waiting.flags&subscribes != 0 {
		waiting.replies = max(1, int(min(rc.ArgsCount, maxElements)))
		p.subscribed = true
	}
	if rc.Command == "RESET" {
		p.subscribed, p.repliesOff, p.skipReplies = false, false, 0
	}
	noReply := p.trackClientReply(rc)
	cmd.reset()

	if p.pairing.RepliesLost() {
		p.pairing.Flush(p.emitUnanswered)
		p.argsBytes = 0
	}
	if noReply {
		p.emit(waiting.e, at)
		return
	}
	if p.pairing.Len() >= maxWaiting {
		p.c.Count("too_many_waiting")
		oldest := p.pairing.Evict(p.pairing.First().replies)
		p.argsBytes -= oldest.argsBytes
		p.emitUnanswered(oldest)
	}
	if uncertain := p.pairing.Expect(waiting); uncertain {
		waiting.e.Partial = true
	}
	p.argsBytes += waiting.argsBytes
}

// trackClientReply follows CLIENT REPLY, and reports whether the command gets no reply.
func (p *parser) trackClientReply(rc *pipeline.RedisCommand) (noReply bool) {
	noReply = p.repliesOff || p.skipReplies > 0
	if p.skipReplies > 0 {
		p.skipReplies--
	}
	if rc.Command != "CLIENT REPLY" || len(rc.Args) != 1 {
		return noReply
	}
	switch string(upper(&p.scratch, []byte(rc.Args[0]))) {
	case "ON":
		p.repliesOff, p.skipReplies = false, 0
		return false
	case "OFF":
		p.repliesOff = true
		return true
	case "SKIP":
		if !p.repliesOff {
			p.skipReplies = 1
		}
		return true
	}
	return noReply
}

// finishReply pairs the reply that was read with its command, or emits it as a message that was pushed.
func (p *parser) finishReply(at int64) {
	reply := &p.reply
	defer reply.reset()

	// Pub/sub first: messages are replies to no command, confirmations are replies to SUBSCRIBE and its kin.
	kind, confirms := reply.pushKind(p.subscribed)
	switch {
	case confirms:
		if reply.last == 0 && (kind == "unsubscribe" || kind == "punsubscribe" || kind == "sunsubscribe") {
			p.subscribed = false
		}
		if waiting := p.pairing.First(); waiting == nil || waiting.flags&subscribes == 0 {
			return // UNSUBSCRIBE without arguments: a reply for each channel that there was
		}
	case kind != "" || reply.top == '>':
		p.emitPushed(kind, at)
		return
	}

	waiting, skipped := p.pairing.Reply()
	switch {
	case skipped:
		return
	case waiting == nil:
		p.emitPushed(kind, at)
		return
	}
	if waiting.replies--; waiting.e.Redis.ReplyType == "" {
		p.setReply(waiting.e)
	}
	waiting.e.Destination.Bytes += reply.size
	if waiting.replies > 0 && reply.top != '-' {
		return
	}
	done := p.pairing.Pop()
	p.argsBytes -= done.argsBytes
	p.emit(done.e, at)
	if done.flags&endsReading != 0 && reply.top != '-' {
		p.c.Drop()
	}
}

// setReply fills in the fields of the reply.
func (p *parser) setReply(event *pipeline.Event) {
	reply, rc := &p.reply, event.Redis
	rc.ReplyType = typeName(reply.top, reply.null)
	rc.ReplyBytes = reply.data
	event.Outcome = pipeline.Outcome_SUCCESS
	switch reply.top {
	case '+', ':', ',', '#', '(':
		rc.Reply = reply.text
	case '-', '!':
		rc.Error = reply.text
		rc.Reply = reply.text
		event.Outcome = pipeline.Outcome_FAILURE
	}
	event.Partial = event.Partial || reply.partial
}

// emitPushed emits a reply that no command asked for: a message of pub/sub, or the reply to a command that
// was not seen.
func (p *parser) emitPushed(kind string, at int64) {
	reply := &p.reply
	event := reply.e
	reply.e = nil
	if event == nil {
		return
	}
	p.setReply(event)
	event.Redis.Reply = kind
	if kind == "" {
		event.Redis.Reply = reply.text
	}
	event.Destination.Bytes = reply.size
	if reply.top != '>' && kind == "" && (p.pairing.RequestsLost() || p.c.Info().MidStream) {
		event.Partial = true
	}
	p.emit(event, at)
}

// emit emits event; at is the time of its last byte, or 0.
func (p *parser) emit(event *pipeline.Event, at int64) {
	if at > event.Timestamp {
		event.Duration = uint64(at - event.Timestamp)
	}
	p.c.Emit(event)
}

// emitUnanswered emits a command whose reply was lost, or will not be waited for.
func (p *parser) emitUnanswered(waiting pending) {
	waiting.e.Partial = true
	p.emit(waiting.e, 0)
}

// Gap skips lost bytes of a bulk string. Anywhere else the place is lost. Among commands Sync finds the next
// one. An element of a reply looks like a reply, so replies are skipped until the client sends another
// command: it has had the replies before it then.
func (p *parser) Gap(dir protocols.Dir, n int) bool {
	if dir == protocols.Client {
		return p.gapInCommand(n)
	}
	reply := &p.reply
	if reply.inBulk && uint64(n) <= reply.bulk {
		reply.bulk -= uint64(n)
		reply.size += uint64(n)
		reply.partial = true
		return true
	}
	reply.reset()
	p.pairing.LostReplies()
	p.suspended = true
	return true
}

func (p *parser) gapInCommand(n int) bool {
	cmd := &p.command
	if cmd.e != nil {
		cmd.e.Partial = true
	}
	// Without its whole name nobody knows which replies a command gets.
	named := cmd.index > 1 && cmd.e.Redis.Command != "CLIENT REPLY" || cmd.index == 1 && !containers[cmd.e.Redis.Command]
	if cmd.inArg && named && (uint64(n) <= cmd.bulk || uint64(n) == cmd.bulk+2) {
		p.skipLostArgument(uint64(n))
		return true
	}
	p.pairing.LostRequests()
	p.endTruncatedCommand()
	return false
}

// skipLostArgument moves over n lost bytes of an argument, or over all that is left of it with its CR LF.
func (p *parser) skipLostArgument(n uint64) {
	cmd := &p.command
	cmd.damaged = true
	if n <= cmd.bulk {
		cmd.bulk -= n
		return
	}
	cmd.bulk, cmd.inArg = 0, false
	p.addArgument(cmd.arg, cmd.size)
	cmd.damaged = false
	if cmd.index == cmd.total {
		p.finishCommand(0)
	}
}

// endTruncatedCommand ends a command whose rest was lost.
func (p *parser) endTruncatedCommand() {
	cmd := &p.command
	if cmd.e != nil && cmd.index > 0 {
		cmd.e.Partial = true
		p.finishCommand(0)
		return
	}
	if cmd.e != nil {
		cmd.e.ReturnToVTPool()
	}
	cmd.reset()
}

// Close emits what still waits, and a command that was cut short.
func (p *parser) Close(int64) {
	emitWaiting := func(w pending) { p.emit(w.e, 0) }
	if cmd := &p.command; cmd.e != nil && cmd.index > 0 {
		truncated := cmd.e
		truncated.Partial = true
		cmd.e = nil
		p.pairing.Flush(emitWaiting)
		p.emit(truncated, 0)
	} else {
		p.endTruncatedCommand()
		p.pairing.Flush(emitWaiting)
	}
	p.reply.reset()
	p.argsBytes = 0
	p.c = nil
}
