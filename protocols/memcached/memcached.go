// Package memcached parses memcached's text protocol: the classic commands and the meta commands.
//
// The framework in package protocols passes the bytes of a TCP connection. A command with its reply is one
// event. Replies come in the order of the commands, so protocols.Pairing pairs them. No reply is expected to
// a command with noreply, to quit, and to the commands of a quiet batch. A batch begins with a meta command
// with the flag q, which has a reply only in some cases, and ends with the reply MN to the command mn. Its
// commands are emitted without replies.
//
// Values are skipped: only their sizes are kept. A line is read as a whole; the data of a value is not
// gathered.
//
// The binary protocol (first byte 0x80 or 0x81) is not read. An event with the tag unsupported says that a
// connection, or a datagram, has the binary protocol. The server chooses by the first byte of the
// client, for good, unless it was started for one of the two (-B ascii): so its first reply decides, and the
// bytes of the client are kept until then.
//
// Over UDP each request is one datagram, and a reply one or more: Datagrams, in udp.go.
//
// The files: memcached.go pairs commands with replies, lines.go parses lines, data.go finds commands in the data
// of stores that the server refuses, binary.go waits for the server's choice, detect.go recognises the protocol,
// udp.go reads datagrams.
//
// Specification: github.com/memcached/memcached, doc/protocol.txt.
package memcached

import (
	"errors"

	"tidegate/pipeline"
	"tidegate/protocols"
)

// Protocol is memcached's text protocol.
var Protocol = protocols.Protocol{
	Name:    "memcached",
	Dataset: pipeline.Dataset_MEMCACHED,
	TCP:     true,
	Ports:   []uint16{11211},
	Detect:  detect,
	Sync:    resync,
	New:     func() protocols.Parser { return &parser{} },
}

// Bounds of what a connection may hold.
const (
	maxWaiting   = 16 << 10  // commands without a reply
	maxKeysBytes = 1 << 20   // bytes of the keys of all of them; beyond, keys are counted but not kept
	maxKeys      = 16        // keys that are kept of a command
	maxKey       = 250       // bytes of a key, as in the specification
	maxText      = 256       // bytes that are kept of an error
	maxLine      = 64 << 10  // bytes of a line
	maxValue     = 1 << 30   // bytes of a value in a reply
	maxStore     = 1<<31 - 3 // bytes of a value in a command: the server skips as many when it refuses them
)

var (
	errLine    = errors.New("memcached: line too long")
	errCommand = errors.New("memcached: not a command")
	errReply   = errors.New("memcached: not a reply")
)

// A parser parses one connection.
type parser struct {
	protocols.NopParser
	conn    *protocols.Conn
	pairing protocols.Pairing[pending]
	reply   reply
	data    dataReader // of the client
	binary  binaryState

	commands  uint64 // commands of the client so far
	keysBytes int    // bytes of the keys of the commands in pairing and data
	quiet     bool   // the client is in a quiet batch: commands are emitted without their replies until mn
	started   bool   // a line was read
	suspended bool   // the position in the replies was lost: they are skipped until the client's next command
}

// A pending is a command that waits for its reply.
type pending struct {
	event     *pipeline.Event
	keysBytes int
	number    uint64 // of the command in the connection
	flags     commandFlags
}

// A reply is the reply that is being read: zero or more items, each a line and perhaps data, and a last line.
type reply struct {
	partial bool   // bytes of it were lost
	items   uint32 // VALUE lines
	data    uint64 // bytes of their data
	size    uint64 // bytes of the reply so far
}

// Reset begins a connection.
func (p *parser) Reset(conn *protocols.Conn) {
	p.pairing.Reset()
	*p = parser{conn: conn, pairing: p.pairing}
}

// Parse reads one line.
func (p *parser) Parse(dir protocols.Dir, data []byte, at int64) (int, error) {
	if dir == protocols.Server && p.suspended {
		if p.pairing.RepliesLost() || !isReplyStart(data) {
			return len(data), nil // the client has sent no command since the gap
		}
		p.resumeReplies()
	}

	switch {
	case dir == protocols.Client && p.data.left > 0:
		return p.readData(data), nil
	case p.isBinary(dir, data):
		return 0, nil
	}
	line, length := protocols.CutLine(data, maxLine)
	p.started = p.started || length > 0
	switch {
	case length == 0 && len(data) >= maxLine:
		return 0, errLine
	case length == 0:
		return 0, nil
	case dir == protocols.Client:
		p.joinLine(data[:length])
		return length, p.readCommand(line, length, at)
	}
	return length, p.readReplyLine(line, length, at)
}

// readCommand reads a command line of length bytes, and skips the data block behind it.
func (p *parser) readCommand(line []byte, length int, at int64) error {
	p.commands++
	cmd, ok := parseCommand(line)
	switch {
	case !ok && !printable(line) && p.binary != isText:
		return errCommand
	case !ok: // the server answers any other line with an error
		cmd = malformedCommand(line)
	}
	waiting := p.newPending(&cmd, p.conn.Event(protocols.Client), length)
	if cmd.flags&hasData != 0 {
		p.beginData(cmd.valueBytes + 2)
	}
	p.expectReply(waiting, at)
	return nil
}

// newPending returns a command whose line has length bytes.
func (p *parser) newPending(cmd *command, event *pipeline.Event, length int) pending {
	waiting := pending{event: event, flags: cmd.flags, number: p.commands}
	event.Memcached = pipeline.MemcachedCommandFromVTPool()
	event.Source.Bytes = uint64(length)
	p.setCommand(&waiting, cmd)
	if cmd.flags&hasData != 0 {
		event.Source.Bytes += cmd.valueBytes + 2
		event.Memcached.ValueBytes = cmd.valueBytes
	}
	return waiting
}

// setCommand fills in the name and the keys.
func (p *parser) setCommand(w *pending, cmd *command) {
	body := w.event.Memcached
	body.Command = p.conn.Intern(cmd.name)
	for key, rest := cmd.nextKey(cmd.keys); len(key) > 0; key, rest = cmd.nextKey(rest) {
		if body.KeysCount++; body.KeysCount == 1 {
			body.Key = p.conn.Intern(key)
		}
		if p.keysBytes+w.keysBytes > maxKeysBytes {
			w.event.AddTag(pipeline.TagTruncated)
			continue
		}
		if len(body.Keys) >= maxKeys { // the first ones and the last are kept
			w.event.AddTag(pipeline.TagTruncated)
			last := &body.Keys[maxKeys-1]
			w.keysBytes += len(key) - len(*last)
			*last = p.conn.Intern(key)
			continue
		}
		w.keysBytes += len(key)
		body.Keys = append(body.Keys, p.conn.Intern(key))
	}
}

// expectReply appends a command to those that wait for their reply, or emits it if no reply is expected.
func (p *parser) expectReply(w pending, at int64) {
	if p.pairing.RepliesLost() {
		p.pairing.Flush(p.emitUnanswered)
		p.keysBytes = 0
	}
	p.quiet = (p.quiet || w.flags&quiet != 0) && w.flags&endsQuiet == 0
	if w.flags&noReply != 0 || p.quiet {
		p.emit(w.event, at)
		return
	}
	if p.pairing.Len() >= maxWaiting {
		p.conn.Count("too_many_waiting")
		oldest := p.pairing.Evict(1)
		p.keysBytes -= oldest.keysBytes
		p.emitUnanswered(oldest)
	}
	for _, uncertain := range p.pairing.Expect(w) {
		uncertain.event.Partial = true
	}
	p.keysBytes += w.keysBytes
}

// readReplyLine reads one line of a reply, of length bytes, and skips the data after it. The last line of a
// reply is recognised by its own words, so the reply to a command that was not captured is skipped correctly.
func (p *parser) readReplyLine(line []byte, length int, at int64) error {
	reply := &p.reply
	replyLine, ok := parseReplyLine(line)
	if !ok {
		return errReply
	}
	reply.size += uint64(length)
	if replyLine.hasData {
		reply.items++
		reply.data += replyLine.valueBytes
		reply.size += replyLine.valueBytes + 2
		p.conn.Skip(protocols.Server, replyLine.valueBytes+2)
	}
	if replyLine.last {
		p.finishReply(replyLine, at)
	}
	return nil
}

// answersQuiet reports whether a reply belongs to a command of a quiet batch, which was emitted without it. The
// replies of a batch come behind those to all earlier commands, and before MN, the reply to its mn.
func (p *parser) answersQuiet(line replyLine) bool {
	first := p.pairing.First()
	switch {
	case p.pairing.Skipping():
		return false
	case first == nil:
		return p.quiet // the mn of the batch is still to come
	}
	return first.flags&endsQuiet != 0 && string(line.status) != "MN"
}

// finishReply pairs the reply that was read with its command. A reply without a command is dropped.
func (p *parser) finishReply(line replyLine, at int64) {
	values := p.reply
	p.reply = reply{}
	if p.answersQuiet(line) {
		if line.isError {
			p.reportWithheld()
		}
		return
	}
	request, skipped := p.pairing.Reply()
	if skipped {
		return
	}
	var done pending
	if request != nil {
		done = p.pairing.Pop()
		p.decideData(done.number, line)
	} else if inner, ok := p.takeTold(); ok {
		done = inner
	} else {
		return
	}
	p.keysBytes -= done.keysBytes
	p.setReply(done, line, values)
	p.emit(done.event, at)
	if done.flags&endsDialogue != 0 && !line.isError {
		p.conn.Drop() // log lines follow
	}
}

// setReply fills in the reply to a command. line is its last line.
func (p *parser) setReply(done pending, line replyLine, values reply) {
	event, body := done.event, done.event.Memcached
	body.Status = p.conn.Intern(line.status)
	event.Outcome = pipeline.Outcome_SUCCESS
	if line.isError {
		event.Outcome = pipeline.Outcome_FAILURE
		body.Error = p.conn.Intern(line.text[:min(len(line.text), maxText)])
	}
	if done.flags&retrieves != 0 && !line.isError {
		body.Hits, body.ValueBytes = values.items, values.data
		if string(line.status) == "HD" { // mg without the flag v: a hit without a value
			body.Hits = 1
		}
		body.Misses = body.KeysCount - min(body.KeysCount, body.Hits)
	}
	event.Destination.Bytes = values.size
	event.Partial = event.Partial || values.partial
}

// emit emits event; at is the time of its last byte, or 0.
func (p *parser) emit(event *pipeline.Event, at int64) {
	if at > event.Timestamp {
		event.Duration = uint64(at - event.Timestamp)
	}
	p.conn.Emit(event)
}

// emitUnanswered emits a command whose reply was lost or will be skipped.
func (p *parser) emitUnanswered(w pending) {
	w.event.Partial = true
	p.emit(w.event, 0)
}

// resumeReplies ends the skipping of replies after a gap.
func (p *parser) resumeReplies() {
	p.suspended = false
	if p.pairing.Pipelined() {
		for _, request := range p.pairing.Waiting() {
			request.event.Partial = true // it is uncertain which of the replies are still to come
		}
	}
}

// Gap keeps the position in the stream if the lost bytes are data of a value. Otherwise Sync finds the next
// command. Sync cannot find the next reply, since data may look like a reply, so replies are skipped until
// the client sends another command.
func (p *parser) Gap(dir protocols.Dir, size int) bool {
	if dir == protocols.Client {
		inData := p.data.left >= uint64(size)
		if waiting := p.pairing.Waiting(); inData && len(waiting) > 0 {
			waiting[len(waiting)-1].event.Partial = true
		}
		if !inData {
			p.pairing.LostRequests()
			p.quiet = false // mn may be among what was lost
			p.stopBinary()
		}
		p.data.left -= min(p.data.left, uint64(size))
		p.data.line, p.data.dead = p.data.line[:0], p.data.left > 0
		return inData
	}
	if p.conn.Skipping(dir) >= uint64(size) {
		p.reply.partial = true
		return true
	}
	p.reply = reply{}
	p.pairing.LostReplies()
	p.suspended = true
	return true
}

// Close emits the waiting commands.
func (p *parser) Close(int64) {
	p.stopBinary()
	p.pairing.Flush(func(w pending) { p.emit(w.event, 0) })
	p.closeData()
	p.reply, p.keysBytes = reply{}, 0
	p.conn = nil
}

// Held returns the size of the commands that wait for their reply.
func (p *parser) Held() int {
	events := p.pairing.Len() + len(p.data.withheld) + len(p.data.unanswered)
	return events*protocols.EventBytes + p.keysBytes + cap(p.data.line)
}
