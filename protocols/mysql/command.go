package mysql

import (
	"encoding/binary"
	"unicode/utf8"

	"tidegate/pipeline"
	"tidegate/protocols"
)

// readClient reads one packet of the client.
func (p *parser) readClient(data []byte, at int64) (int, error) {
	size, seq := payloadLength(data), data[3]
	switch {
	case p.sendsFile && !p.continues[protocols.Client] && size == 0: // the end of the file
		p.sendsFile = false
		return p.readContinuation(data), nil
	case p.sendsFile || p.continues[protocols.Client]:
		return p.readContinuation(data), nil
	case seq == 1 && (p.phase == afterGreeting || p.phase == initial && size >= 32):
		return p.readLogin(data, at)
	case seq != 0 && p.phase == commandPhase:
		return p.readContinuation(data), nil // authentication data that the server has requested
	case seq != 0 || size == 0 && !p.synchronised():
		return 0, errHeader
	}

	// A command begins here.
	payload := p.payload(protocols.Client, data, maxPayload)
	if payload == nil {
		return 0, nil
	}
	if size == 0 {
		payload = emptyPayload
	}
	kind := kindOf(payload[0])
	if kind.name == "" || size < kind.min || kind.max > 0 && size > kind.max {
		if !p.synchronised() {
			return 0, errCommand
		}
		kind = p.oddCommand(kind, payload[0])
	}
	if p.phase == afterGreeting {
		return 0, errHeader
	}

	// A client waits for the reply before it sends the next command. If bytes were lost and commands still
	// wait, their replies were among the lost bytes.
	p.phase = commandPhase
	if p.bytesLost {
		p.emitWaiting(true)
	}
	p.addCommand(kind, payload, size)
	if p.long.left > 0 {
		p.continues[protocols.Client] = size == maxPacket
		return 4 + len(payload), nil
	}
	return p.finishPacket(protocols.Client, data), nil
}

// emptyPayload stands for the payload of an empty packet, which servers take for COM_SLEEP and reject.
var emptyPayload = []byte{0}

// synchronised reports whether a packet is known to begin at the current position. Then it is a command whatever
// its bytes are: the server answers an unknown one with an error, and ignores what follows a known one.
func (p *parser) synchronised() bool {
	return p.phase == commandPhase && p.capabilitiesKnown && !p.bytesLost
}

// oddCommand returns the kind of a command of an unexpected length, or of an unknown one.
func (p *parser) oddCommand(kind *commandKind, first byte) *commandKind {
	if kind.name != "" {
		return kind
	}
	const digits = "0123456789abcdef"
	name := [...]byte{'C', 'O', 'M', '_', '0', 'x', digits[first>>4], digits[first&15]}
	return &commandKind{name: p.conn.Intern(name[:])}
}

// readContinuation reads a packet that belongs to the last command: more of its payload, a part of a file, or
// authentication data.
func (p *parser) readContinuation(data []byte) int {
	if last := len(p.waiting) - 1; last >= 0 {
		p.waiting[last].event.Source.Bytes += uint64(4 + payloadLength(data))
	}
	if size := payloadLength(data); p.long.event != nil {
		p.continues[protocols.Client] = size == maxPacket
		if p.long.left = size; size == 0 {
			p.finishLong()
		}
		return 4
	}
	return p.finishPacket(protocols.Client, data)
}

// addCommand creates the event of a command and queues it until its reply comes, or emits it if it gets none.
// payload is the front of the packet. length is that of the whole payload.
func (p *parser) addCommand(kind *commandKind, payload []byte, length int) {
	event := p.newEvent(protocols.Client, kind.name, 4+length)
	event.Partial = event.Partial || p.repliesLost
	cmd := command{event: event, kind: payload[0], sent: event.Timestamp}
	// The arguments, by the kind of command.
	switch payload[0] {
	case comQuery:
		text := p.skipAttributes(payload[1:])
		p.setStatement(&cmd, text, length-len(payload))
		if cmd.changesDatabase = event.Mysql.Method == "USE"; cmd.changesDatabase {
			cmd.text = p.text(databaseOfUse(text))
		}
	case comStmtPrepare:
		p.setStatement(&cmd, payload[1:], length-len(payload))
		cmd.text = event.Mysql.Query
		p.statements.last = prepared{cmd.text, event.Mysql.Method}
	case comStmtExecute, comStmtFetch, comStmtReset, comStmtClose, comStmtLongData, comBulkExecute:
		if len(payload) >= 5 {
			p.setStatementID(event, payload)
		}
	case comInitDB:
		event.Mysql.Database = p.text(payload[1:])
		cmd.changesDatabase, cmd.text = true, event.Mysql.Database
	case comChangeUser:
		p.readChangeUser(event, payload)
	}
	if kind.noReply {
		p.emit(event)
		return
	}
	p.enqueue(cmd)
}

// setStatement fills in the text of a statement, redacted. Of more than maxQuery bytes the comments are left out,
// then the head and the tail are kept. left is the number of bytes of the statement behind text.
func (p *parser) setStatement(cmd *command, text []byte, left int) {
	event := cmd.event
	event.Mysql.Method = method(text)
	if left > 0 {
		p.long.start(event, left)
		p.long.read(text)
	}
	long := len(text) > maxQuery
	if long {
		event.AddTag(pipeline.TagTruncated)
		p.text4K = withoutComments(p.text4K[:0], text)
		text = p.text4K
	}
	var out []byte
	out, cmd.hasSecrets = p.conn.Redactor().SQL(text)
	if left == 0 || !long {
		event.Mysql.Query = validUTF8(p.conn.Text(event, out, maxQuery))
		return
	}
	out = out[:min(len(out), maxQuery)] // until finishLong has the tail
	event.Mysql.Query = validUTF8(string(wholeRunes(out))) + "…"
}

// wholeRunes removes an incomplete character at the end of data.
func wholeRunes(data []byte) []byte {
	for i := 1; i < utf8.UTFMax && i <= len(data); i++ {
		if at := len(data) - i; utf8.RuneStart(data[at]) {
			if !utf8.FullRune(data[at:]) {
				return data[:at]
			}
			break
		}
	}
	return data
}

// setStatementID fills in the id of a prepared statement, and its text if its preparation was captured.
func (p *parser) setStatementID(event *pipeline.Event, payload []byte) {
	id := binary.LittleEndian.Uint32(payload[1:])
	event.Mysql.StatementId = id
	statement := p.statements.get(id)
	event.Mysql.Query, event.Mysql.Method = statement.text, statement.method
	if payload[0] == comStmtClose {
		p.statements.remove(id)
	}
}

// skipAttributes returns the text after the query attributes (CLIENT_QUERY_ATTRIBUTES). The attributes are
// the number of parameters and the number of parameter sets (1). If there are parameters, the NULL bits, a 1,
// the type and name of each, and the values follow. If the login was not captured, data that begins with a
// small number and a 1 is taken for attributes, since no statement begins so.
func (p *parser) skipAttributes(data []byte) []byte {
	hasAttributes := p.capabilities&clientQueryAttrs != 0
	if !p.capabilitiesKnown {
		hasAttributes = len(data) >= 2 && data[0] <= 16 && data[1] == 1
	}
	if !hasAttributes {
		return data
	}

	fields := payloadReader{rest: data}
	count := fields.lenencInt()
	fields.lenencInt()
	if count == 0 || count > 1024 {
		return fields.rest
	}
	nulls := fields.take((count + 7) / 8)
	if fields.u8() == 0 {
		return fields.rest
	}

	// The types and names of all parameters, then the values of those that are not NULL.
	types := make([]byte, count)
	for i := range types {
		types[i] = byte(fields.u16())
		fields.lenencString()
	}
	for i, typ := range types {
		if nulls != nil && nulls[i/8]&(1<<(i%8)) == 0 {
			fields.skipValue(typ)
		}
	}
	return fields.rest
}

// skipValue skips a value of type typ in binary form.
func (r *payloadReader) skipValue(typ byte) {
	switch typ {
	case 0x06: // NULL
	case 0x01, 0xf4: // TINY, BOOL
		r.take(1)
	case 0x02, 0x0d: // SHORT, YEAR
		r.take(2)
	case 0x03, 0x09, 0x04: // LONG, INT24, FLOAT
		r.take(4)
	case 0x08, 0x05: // LONGLONG, DOUBLE
		r.take(8)
	case 0x07, 0x0a, 0x0b, 0x0c: // TIMESTAMP, DATE, TIME, DATETIME
		r.take(uint64(r.u8()))
	default:
		r.lenencString()
	}
}

// Bounds of the prepared statements that are kept of one connection.
const (
	maxStatements = 512
	maxTexts      = 128 << 10 // bytes of all texts
)

// A prepared is a prepared statement: its text, and its first word.
type prepared struct{ text, method string }

// A statementCache holds the prepared statements of a connection by id. It removes the oldest to make room.
type statementCache struct {
	byID  map[uint32]prepared
	order []uint32 // ids, oldest first; ids of removed statements too
	size  int      // bytes of all texts
	last  prepared // of the last COM_STMT_PREPARE: MariaDB's clients execute it at once, with the id -1
}

func (s *statementCache) reset() {
	clear(s.byID)
	s.order, s.size, s.last = s.order[:0], 0, prepared{}
}

// get returns the statement with an ID. The ID −1 names the last statement that was prepared (MariaDB).
func (s *statementCache) get(id uint32) prepared {
	if id == 1<<32-1 {
		return s.last
	}
	return s.byID[id]
}

// add adds a statement and removes the oldest ones that exceed the bounds.
func (s *statementCache) add(id uint32, statement prepared) {
	s.remove(id)
	for len(s.order) > 0 {
		full := len(s.byID) >= maxStatements || s.size+len(statement.text) > maxTexts || len(s.order) >= 2*maxStatements
		if !full {
			break
		}
		s.remove(s.order[0])
		s.order = s.order[:copy(s.order, s.order[1:])]
	}
	if s.byID == nil {
		s.byID = map[uint32]prepared{}
	}
	s.byID[id] = statement
	s.order = append(s.order, id)
	s.size += len(statement.text)
}

// remove removes a statement. Its id stays in order until add reaches it.
func (s *statementCache) remove(id uint32) {
	if statement, ok := s.byID[id]; ok {
		s.size -= len(statement.text)
		delete(s.byID, id)
	}
}
