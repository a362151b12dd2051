package mysql

import (
	"errors"
	"strings"

	"tidegate/pipeline"
	"tidegate/protocols"
)

const (
	maxQuery   = 4 << 10 // bytes of a statement that are kept; of a longer one the head and the tail, without comments
	maxPayload = 8 << 10 // bytes of a packet that are parsed at once; a longer statement is read as it comes
	maxMessage = 512     // bytes of an error's message that are kept
	maxName    = 256     // bytes of a user, a database, a version
	maxWaiting = 64      // commands of one connection that wait for their reply
)

var (
	errHeader  = errors.New("mysql: not a packet of this state")
	errCommand = errors.New("mysql: unknown command")
)

// A command waits for its reply, or is being answered.
type command struct {
	event           *pipeline.Event
	kind            byte
	sent            int64
	text            string // of a statement that is being prepared
	changesDatabase bool   // the command changes the database to text
	hasSecrets      bool   // a part of the statement was redacted
}

// A phase is the state of a connection, see the package comment.
type phase uint8

const (
	initial       phase = iota // nothing was seen
	afterGreeting              // the server has sent its greeting, the client's login comes next
	commandPhase               // commands and replies; a login in progress is a waiting command
)

// A parser pairs the commands and replies of one connection.
type parser struct {
	protocols.NopParser // End does nothing: a half-closed side may still receive replies
	conn                *protocols.Conn
	phase               phase
	capabilities        uint32 // afterGreeting those of the server, later those that both sides have
	capabilitiesKnown   bool   // the login was captured, or replies have shown the capabilities
	version             string
	user                string
	database            string

	waiting     []command
	bytesLost   bool    // bytes were lost: a command may be paired with the reply to another one
	repliesLost bool    // bytes of the server were lost, and no reply was read to its end since
	continues   [2]bool // per direction: the payload continues in the next packet
	sendsFile   bool    // the client is sending a file
	statements  statementCache
	reply       reply
	long        longStatement
	text4K      []byte // buffer for the text of a statement
}

// Reset begins a connection.
func (p *parser) Reset(conn *protocols.Conn) {
	clear(p.waiting)
	p.statements.reset()
	long := longStatement{head: p.long.head, parts: p.long.parts}
	*p = parser{
		conn: conn, waiting: p.waiting[:0], statements: p.statements,
		long: long, text4K: p.text4K[:0],
	}
}

// Parse reads one packet of the client, or one packet of the server and the available rows after it.
func (p *parser) Parse(dir protocols.Dir, data []byte, at int64) (int, error) {
	if dir == protocols.Client && p.long.left > 0 {
		return p.readLong(data), nil
	}

	// The header has 4 bytes. The first byte of the payload is the type of the packet.
	if len(data) < 4 {
		p.conn.Need(dir, 4)
		return 0, nil
	}
	if len(data) == 4 && payloadLength(data) > 0 {
		p.conn.Need(dir, 5)
		return 0, nil
	}
	if p.phase == initial && dir == protocols.Client && matchGreeting(data) == protocols.Yes {
		p.conn.Flip()
		return 0, nil
	}
	if dir == protocols.Client {
		return p.readClient(data, at)
	}
	return p.readServer(data, at)
}

// payload returns the first most bytes of the payload of the packet at the front of data, or nil if they have
// not arrived yet.
func (p *parser) payload(dir protocols.Dir, data []byte, most int) []byte {
	length := 4 + min(payloadLength(data), most)
	if len(data) < length {
		p.conn.Need(dir, length)
		return nil
	}
	return data[4:length]
}

// finishPacket ends the packet at the front of data: it returns the number of its bytes in data, and skips
// the others.
func (p *parser) finishPacket(dir protocols.Dir, data []byte) int {
	length := 4 + payloadLength(data)
	p.continues[dir] = length == 4+maxPacket
	if length > len(data) {
		p.conn.Skip(dir, uint64(length-len(data)))
		length = len(data)
	}
	return length
}

// enqueue appends a command to those that wait for their reply.
func (p *parser) enqueue(cmd command) {
	if len(p.waiting) >= maxWaiting {
		p.conn.Count("waiting_commands_full")
		p.emit(p.waiting[0].event)
		p.waiting = p.waiting[:copy(p.waiting, p.waiting[1:])]
		p.reply = reply{}
	}
	p.waiting = append(p.waiting, cmd)
}

func (p *parser) emit(event *pipeline.Event) {
	if event == p.long.event {
		p.finishLong()
	}
	p.conn.Emit(event)
}

// finishCommand emits the oldest command, whose reply is complete.
func (p *parser) finishCommand(at int64) {
	cmd := &p.waiting[0]
	cmd.event.Duration = uint64(max(at-cmd.sent, 0))
	p.repliesLost = false
	p.emit(cmd.event)
	kept := copy(p.waiting, p.waiting[1:])
	p.waiting[kept] = command{}
	p.waiting = p.waiting[:kept]
	p.reply = reply{}
}

// newEvent returns a new event for a command.
func (p *parser) newEvent(dir protocols.Dir, name string, bytes int) *pipeline.Event {
	event := p.conn.Event(dir)
	body := pipeline.MySQLCommandFromVTPool()
	event.Mysql = body
	body.Command, body.UserName, body.Database = name, p.user, p.database
	if dir == protocols.Client {
		event.Source.Bytes = uint64(bytes)
	} else {
		event.Destination.Bytes = uint64(bytes)
	}
	return event
}

// Gap marks every waiting command as partial: bytes of its text or of its reply are missing. The position in
// the stream is known only inside a packet whose rest is skipped.
func (p *parser) Gap(dir protocols.Dir, size int) bool {
	for i := range p.waiting {
		p.waiting[i].event.Partial = true
	}
	if p.conn.Skipping(dir) >= uint64(size) {
		return true // inside a packet whose rest is not needed
	}
	if dir == protocols.Client && p.long.left >= size {
		p.long.lost = true
		p.long.left -= size
		if p.long.left == 0 && !p.continues[dir] {
			p.finishLong()
		}
		return true
	}
	if dir == protocols.Client {
		p.long.lost = true
		p.finishLong()
		p.long.left = 0
	}
	p.continues[dir], p.bytesLost = false, true
	if p.phase == afterGreeting {
		p.phase = initial // the login may be among the lost bytes
	}
	if dir == protocols.Client {
		p.sendsFile = false
	} else {
		p.reply.lost, p.repliesLost = true, true
	}
	return false
}

// Close emits the waiting commands.
func (p *parser) Close(int64) { p.emitWaiting(false) }

// emitWaiting emits the waiting commands without their replies. partial marks them as partial.
func (p *parser) emitWaiting(partial bool) {
	for i := range p.waiting {
		cmd := &p.waiting[i]
		cmd.event.Partial = cmd.event.Partial || partial
		p.emit(cmd.event)
		*cmd = command{}
	}
	p.waiting = p.waiting[:0]
	p.reply = reply{}
}

// text returns a name of the protocol as a string of valid UTF-8.
func (p *parser) text(data []byte) string {
	return validUTF8(p.conn.Intern(data[:min(len(data), maxName)]))
}

// validUTF8 replaces invalid UTF-8, which a string of a protobuf message must not contain.
func validUTF8(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// Held returns the size of the commands that wait for their reply, and of the prepared statements.
func (p *parser) Held() int {
	const statementBytes = 100 // what a statement costs without its text
	held := len(p.waiting)*protocols.EventBytes + p.statements.size + len(p.statements.byID)*statementBytes
	for i := range p.waiting { // at most maxWaiting
		held += len(p.waiting[i].text)
		if body := p.waiting[i].event.GetMysql(); body != nil {
			held += len(body.Query)
		}
	}
	return held
}
