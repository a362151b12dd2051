// Package redis parses RESP2 and RESP3, the protocol between a Redis client and its server.
//
// The framework in package protocols passes the bytes of a TCP connection. A command with its reply is one
// event; a pub/sub message is an event of its own.
//
// A command is an array of bulk strings, or a line of words (an inline command). Replies come in the order of
// the commands, so protocols.Pairing pairs them. Each exception from that order has its test: CLIENT REPLY
// OFF and SKIP (no reply), SUBSCRIBE (a reply for each channel), a pushed message (a reply without a
// command), MONITOR (lines between the replies), PSYNC (a stream follows; from then on only the commands of
// the client are read, since the server executes them all the same), lost bytes.
//
// Values are parsed as they arrive: the first bytes of an argument are kept, and the size of the data of a
// reply. Passwords in arguments are redacted (pipeline/redact).
//
// Specifications: redis.io/docs/latest/develop/reference/protocol-spec, and …/commands for the positions of
// the keys (tables.go).
package redis

import (
	"errors"
	"strings"

	"tidegate/pipeline"
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
	maxArgs      = 16       // arguments that are kept of a command: the first 12 and the last 4
	lastArgs     = 4        //
	maxSettings  = 16       // further arguments that are kept of CONFIG SET: names in settings, and their values
	maxArg       = 256      // bytes that are kept of an argument: its head and, from argTail bytes before its end, its tail
	argTail      = 64       //
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
	protocols.NopParser // End does nothing: a half-closed side may still receive replies
	conn                *protocols.Conn
	command             commandReader // the command that is being read
	reply               replyReader   // the reply that is being read
	pairing             protocols.Pairing[pending]

	argsBytes int  // bytes of arguments of the commands in pairing
	started   bool // a command or a reply was read
	bytesLost bool // bytes of either side were lost, or the beginning was not captured
	suspended bool // the position in the replies was lost: they are skipped until the client's next command

	repliesOff  bool // CLIENT REPLY OFF
	skipReplies int  // number of the next commands that get no reply (CLIENT REPLY SKIP)
	subscribed  bool // RESP2 pub/sub: messages come as arrays
	monitoring  bool // MONITOR: lines about commands of others come between the replies
	replicating bool // SYNC, PSYNC: the server's side carries a stream without replies

	scratch []byte
	text    []byte // buffer of argumentText
}

// A pending is a command that waits for its reply.
type pending struct {
	event     *pipeline.Event
	replies   int // number of replies that are still to come: SUBSCRIBE gets one for each channel
	argsBytes int
	flags     flags
}

// flags are properties of a command that decide how its replies are paired.
type flags uint8

const (
	subscribes flags = 1 << iota // SUBSCRIBE, PSUBSCRIBE, UNSUBSCRIBE, …
	monitors                     // MONITOR: lines follow the reply, between further replies
	replicates                   // SYNC, PSYNC: a stream follows the reply
	resets                       // RESET: no lines of MONITOR follow the reply
)

// Reset begins a connection.
func (p *parser) Reset(conn *protocols.Conn) {
	p.pairing.Reset()
	*p = parser{
		conn: conn, bytesLost: conn.Info().MidStream, pairing: p.pairing, scratch: p.scratch[:0], text: p.text[:0],
		command: commandReader{arg: p.command.arg[:0], tail: p.command.tail[:0], last: p.command.last}, reply: replyReader{kind: p.reply.kind[:0]},
	}
}

// Parse reads the available part of a command or of a reply.
func (p *parser) Parse(dir protocols.Dir, data []byte, at int64) (int, error) {
	if dir == protocols.Client {
		return p.readCommand(data, at)
	}
	return p.readReply(data, at)
}

// finishCommand queues the command that was read until its reply comes, or emits it if it gets none.
func (p *parser) finishCommand(at int64) {
	cmd := &p.command
	if cmd.event == nil { // *0 gets no reply
		cmd.reset()
		return
	}
	p.keepLastArguments()
	waiting := pending{event: cmd.event, replies: 1, argsBytes: cmd.argsBytes, flags: cmd.flags()}
	body := cmd.event.Redis
	if waiting.flags&subscribes != 0 {
		waiting.replies = max(1, int(min(body.ArgsCount, maxElements)))
		p.subscribed = true
	}
	if body.Command == "RESET" {
		p.subscribed, p.repliesOff, p.skipReplies = false, false, 0
	}
	noReply := p.trackClientReply(body)
	cmd.reset()

	// A new command after lost replies: the client has received the replies to all earlier commands.
	if p.pairing.RepliesLost() {
		p.pairing.Flush(p.emitUnanswered)
		p.argsBytes = 0
	}
	if noReply {
		p.emit(waiting.event, at)
		return
	}
	if p.pairing.Len() >= maxWaiting {
		p.conn.Count("too_many_waiting")
		oldest := p.pairing.Evict(p.pairing.First().replies)
		p.argsBytes -= oldest.argsBytes
		p.emitUnanswered(oldest)
	}
	for _, uncertain := range p.pairing.Expect(waiting) {
		uncertain.event.Partial = true
	}
	p.argsBytes += waiting.argsBytes
}

// trackClientReply applies CLIENT REPLY, and reports whether the command gets no reply.
func (p *parser) trackClientReply(body *pipeline.RedisCommand) (noReply bool) {
	if p.replicating {
		return true
	}
	noReply = p.repliesOff || p.skipReplies > 0
	if p.skipReplies > 0 {
		p.skipReplies--
	}
	if body.Command != "CLIENT REPLY" || len(body.Args) != 1 {
		return noReply
	}
	switch string(upper(&p.scratch, []byte(body.Args[0]))) {
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

// finishReply pairs the reply that was read with its command, or emits it as a pushed message.
func (p *parser) finishReply(at int64) {
	reply := &p.reply
	defer reply.reset()
	if (p.monitoring || p.bytesLost) && reply.top == '+' && isMonitorLine(reply.text) {
		p.monitoring = true // MONITOR itself, or its reply, may be what was lost
		return
	}

	// Pub/sub first: a message answers no command, a confirmation answers SUBSCRIBE, UNSUBSCRIBE and the
	// like.
	kind, confirms := reply.pushKind(p.subscribed)
	switch {
	case confirms:
		if reply.last == 0 && (kind == "unsubscribe" || kind == "punsubscribe" || kind == "sunsubscribe") {
			p.subscribed = false
		}
		if waiting := p.pairing.First(); waiting == nil || waiting.flags&subscribes == 0 {
			return // a further reply to UNSUBSCRIBE without arguments, which gets one for each channel
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

	// The fields of the first reply are kept. The command is complete with its last reply, or with an error.
	if waiting.replies--; waiting.event.Redis.ReplyType == "" {
		p.setReply(waiting.event)
	}
	waiting.event.Destination.Bytes += reply.size
	if waiting.replies > 0 && reply.top != '-' {
		return
	}
	done := p.pairing.Pop()
	p.argsBytes -= done.argsBytes
	p.emit(done.event, at)
	if reply.top == '-' {
		return
	}
	p.monitoring = (p.monitoring || done.flags&monitors != 0) && done.flags&resets == 0
	if done.flags&replicates != 0 {
		p.replicating = true
		p.pairing.Flush(p.emitUnanswered)
		p.argsBytes = 0
	}
}

// isMonitorLine reports whether text is a line that MONITOR yields: 1339518083.107412 [0 127.0.0.1:60866] "keys" "*"
func isMonitorLine(text string) bool {
	seconds := len(text) - len(strings.TrimLeft(text, "0123456789"))
	return seconds > 0 && strings.HasPrefix(text[seconds:], ".") && strings.Contains(text, " [")
}

// setReply fills in the fields of the reply.
func (p *parser) setReply(event *pipeline.Event) {
	reply, body := &p.reply, event.Redis
	body.ReplyType = typeName(reply.top, reply.null)
	body.ReplyBytes = reply.data
	event.Outcome = pipeline.Outcome_SUCCESS
	switch reply.top {
	case '+', ':', ',', '#', '(':
		body.Reply = reply.text
	case '-', '!':
		body.Error = reply.text
		body.Reply = reply.text
		event.Outcome = pipeline.Outcome_FAILURE
	}
	event.Partial = event.Partial || reply.partial
}

// emitPushed emits a reply without a command: a pub/sub message, or the reply to a command that was not
// captured. kind is the kind of message, or "".
func (p *parser) emitPushed(kind string, at int64) {
	reply := &p.reply
	event := reply.event
	reply.event = nil
	if event == nil {
		return
	}
	p.setReply(event)
	event.Redis.Reply = kind
	if kind == "" {
		event.Redis.Reply = reply.text
	}
	event.Destination.Bytes = reply.size
	if reply.top != '>' && kind == "" {
		event.Partial = true // its command was not captured, or not recognised
	}
	p.emit(event, at)
}

// emit emits event; at is the time of its last byte, or 0.
func (p *parser) emit(event *pipeline.Event, at int64) {
	if at > event.Timestamp {
		event.Duration = uint64(at - event.Timestamp)
	}
	p.conn.Emit(event)
}

// emitUnanswered emits a command whose reply was lost or will be skipped.
func (p *parser) emitUnanswered(waiting pending) {
	waiting.event.Partial = true
	p.emit(waiting.event, 0)
}

// ParseTruncated reads an inline command whose end was lost. The words that arrived are in an event that is partial.
// The last one may be cut.
func (p *parser) ParseTruncated(dir protocols.Dir, data []byte, at int64) {
	if dir != protocols.Client || p.command.open || len(data) == 0 || data[0] == '*' || !printable(data) {
		return
	}
	if word, rest := nextWord(data, nil); len(rest) == 0 || !isCommandWord(word) {
		return // the name itself may be cut
	}
	_, _ = p.readInline(data, len(data), at, true)
}

// Gap skips lost bytes of a bulk string. Anywhere else the position in the stream is lost. Sync finds the
// next command. Sync cannot find the next reply, since an element of a reply looks like a reply, so replies
// are skipped until the client sends another command.
func (p *parser) Gap(dir protocols.Dir, size int) bool {
	p.bytesLost = true
	if dir == protocols.Client {
		return p.gapInCommand(size)
	}
	reply := &p.reply
	if reply.inBulk && uint64(size) <= reply.bulk {
		reply.bulk -= uint64(size)
		reply.size += uint64(size)
		reply.partial = true
		return true
	}
	reply.reset()
	p.pairing.LostReplies()
	p.suspended = true
	return true
}

// gapInCommand skips size lost bytes of the client. It reports whether the position in the stream is still
// known.
func (p *parser) gapInCommand(size int) bool {
	cmd := &p.command
	if cmd.event != nil {
		cmd.event.Partial = true
	}
	// The number of replies depends on the name (and for CLIENT REPLY on the argument), so it must be
	// complete.
	named := cmd.index > 1 && cmd.event.Redis.Command != "CLIENT REPLY" ||
		cmd.index == 1 && !containers[cmd.event.Redis.Command]
	// The gap may be in the argument, or also cover the CR LF at its end.
	if cmd.inArg && named && (uint64(size) <= cmd.bulk || uint64(size) == cmd.bulk+2) {
		p.skipLostArgument(uint64(size))
		return true
	}
	p.pairing.LostRequests()
	p.endTruncatedCommand()
	return false
}

// skipLostArgument skips size lost bytes of an argument, or the whole rest of the argument with its CR LF.
func (p *parser) skipLostArgument(size uint64) {
	cmd := &p.command
	cmd.damaged = true
	if size <= cmd.bulk {
		cmd.bulk -= size
		return
	}
	cmd.bulk, cmd.inArg = 0, false
	p.addArgument(cmd.arg, cmd.size)
	if cmd.index == cmd.total {
		p.finishCommand(0)
	}
}

// endTruncatedCommand queues a command whose rest was lost, whose event is partial, or discards it if its name was not read.
func (p *parser) endTruncatedCommand() {
	cmd := &p.command
	if cmd.event != nil && cmd.index > 0 {
		p.finishCommand(0)
		return
	}
	cmd.reset()
}

// Close emits the waiting commands, then an incomplete one.
func (p *parser) Close(int64) {
	emitWaiting := func(w pending) { p.emit(w.event, 0) }
	if cmd := &p.command; cmd.event != nil && cmd.index > 0 {
		truncated := cmd.event
		truncated.Partial = true
		p.keepLastArguments()
		cmd.event = nil
		p.pairing.Flush(emitWaiting)
		p.emit(truncated, 0)
	} else {
		p.endTruncatedCommand()
		p.pairing.Flush(emitWaiting)
	}
	p.reply.reset()
	p.argsBytes = 0
	p.conn = nil
}

// Held returns the size of the commands that wait for their reply.
func (p *parser) Held() int { return p.pairing.Len()*protocols.EventBytes + p.argsBytes }
