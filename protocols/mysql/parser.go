package mysql

import (
	"errors"
	"strings"

	"tidegate/pipeline"
	"tidegate/pipeline/redact"
	"tidegate/protocols"
)

const (
	maxQuery   = 4 << 10 // bytes of a statement that are kept
	window     = 8 << 10 // bytes of a packet that are looked at; query attributes stand before the text
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
	e      *pipeline.Event
	kind   byte
	sent   int64
	text   string // of a statement that is being prepared
	use    bool   // it changes the database, to e.Mysql.Database or, of a USE, to text
	secret bool   // something in its text was redacted
}

type phase uint8

const (
	start    phase = iota // nothing was seen
	greeted               // the server has spoken, the client's login comes next
	commands              // logged in, or in the middle of a connection; a login under way is a waiting command
)

// A parser pairs the commands and replies of one connection.
type parser struct {
	protocols.NopParser // End: a side that was closed may still be answered
	c                   *protocols.Conn
	phase               phase
	caps                uint32
	known               bool // caps are those that both sides have agreed on
	version             string
	user                string
	database            string

	waiting  []command
	doubt    bool    // bytes were lost: a command may be paired with the reply to another one
	unsure   bool    // bytes of the server were lost and no reply was read to its end since
	long     [2]bool // the packet continues in the next one
	infile   bool    // the client is sending a file
	stmts    statements
	reply    reply
	redactor redact.Redactor
}

// Reset begins a connection.
func (p *parser) Reset(c *protocols.Conn) {
	clear(p.waiting)
	p.stmts.reset()
	*p = parser{c: c, waiting: p.waiting[:0], stmts: p.stmts, redactor: p.redactor}
}

// Parse reads one packet of the client; of the server also all rows that are there.
func (p *parser) Parse(dir protocols.Dir, b []byte, at int64) (int, error) {
	if len(b) < 4 {
		p.c.Need(dir, 4)
		return 0, nil
	}
	if len(b) == 4 && length(b) > 0 {
		p.c.Need(dir, 5)
		return 0, nil
	}
	if p.phase == start && dir == protocols.Client && greeting(b) == protocols.Yes {
		p.c.Flip()
		return 0, nil
	}
	if dir == protocols.Client {
		return p.client(b, at)
	}
	return p.server(b, at)
}

// payload gives as much of the packet at the front of b as is looked at, most being the most; nil if it has not come yet.
func (p *parser) payload(dir protocols.Dir, b []byte, most int) []byte {
	n := 4 + min(length(b), most)
	if len(b) < n {
		p.c.Need(dir, n)
		return nil
	}
	return b[4:n]
}

// take is done with the packet at the front of b: it tells how many bytes of it are there and leaves the others unread.
func (p *parser) take(dir protocols.Dir, b []byte) int {
	n := 4 + length(b)
	p.long[dir] = n == 4+maxPacket
	if n > len(b) {
		p.c.Skip(dir, uint64(n-len(b)))
		n = len(b)
	}
	return n
}

// push has a command wait for its reply.
func (p *parser) push(c command) {
	if len(p.waiting) >= maxWaiting {
		p.c.Count("waiting_commands_full")
		p.emit(p.waiting[0].e)
		p.waiting = p.waiting[:copy(p.waiting, p.waiting[1:])]
		p.reply = reply{}
	}
	p.waiting = append(p.waiting, c)
}

func (p *parser) emit(e *pipeline.Event) { p.c.Emit(e) }

// finish emits the command that was answered.
func (p *parser) finish(at int64) {
	w := &p.waiting[0]
	w.e.Duration = uint64(max(at-w.sent, 0))
	p.unsure = false
	p.emit(w.e)
	n := copy(p.waiting, p.waiting[1:])
	p.waiting[n] = command{}
	p.waiting = p.waiting[:n]
	p.reply = reply{}
}

// event makes the event of a command.
func (p *parser) event(dir protocols.Dir, name string, bytes int) *pipeline.Event {
	e := p.c.Event(dir)
	m := pipeline.MySQLCommandFromVTPool()
	e.Mysql = m
	m.Command, m.UserName, m.Database = name, p.user, p.database
	if dir == protocols.Client {
		e.Source.Bytes = uint64(bytes)
	} else {
		e.Destination.Bytes = uint64(bytes)
	}
	return e
}

// Gap says that n bytes of dir were lost. What is being answered lacks some of its reply, or of its own text.
func (p *parser) Gap(dir protocols.Dir, n int) bool {
	for i := range p.waiting {
		p.waiting[i].e.Partial = true
	}
	if p.c.Skipping(dir) >= uint64(n) {
		return true
	}
	p.long[dir], p.doubt = false, true
	if p.phase == greeted {
		p.phase = start // the login may have been in it
	}
	if dir == protocols.Client {
		p.infile = false
	} else {
		p.reply.lost, p.unsure = true, true
	}
	return false
}

// Close emits what still waits.
func (p *parser) Close(int64) { p.emitWaiting(false) }

// emitWaiting emits what waits without its reply.
func (p *parser) emitWaiting(partial bool) {
	for i := range p.waiting {
		w := &p.waiting[i]
		w.e.Partial = w.e.Partial || partial
		p.emit(w.e)
		*w = command{}
	}
	p.waiting = p.waiting[:0]
	p.reply = reply{}
}

// name gives a name of the protocol as a string of valid UTF-8.
func (p *parser) name(b []byte) string { return valid(p.c.Intern(b[:min(len(b), maxName)])) }

// valid replaces what is not UTF-8: events are protobuf, whose strings must be.
func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
