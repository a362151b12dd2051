package mysql

import (
	"encoding/binary"

	"tidegate/pipeline"
	"tidegate/pipeline/redact"
	"tidegate/protocols"
)

// A step is the kind of the server's next packet.
type step uint8

const (
	firstPacket   step = iota // the first packet of a reply, or of its next result set
	columnPackets             // the definition of a column or of a parameter
	endOfColumns              // the EOF packet after the definitions, or the first row
	rowPackets                // a row, or the packet that ends the rows
)

// A reply is the state of the reply to waiting[0].
type reply struct {
	step      step
	left      uint64 // definitions of columns or parameters that are still to come
	after     uint64 // of a prepared statement: definitions of columns after those of the parameters
	isPrepare bool   // reply to COM_STMT_PREPARE: no rows follow
	lost      bool   // bytes of the server were lost: the kind of the next packet is uncertain
}

// readServer reads one packet of the server and, if rows or columns follow, those that have arrived.
func (p *parser) readServer(data []byte, at int64) (int, error) {
	if p.phase == initial && data[3] == 0 && matchGreeting(data) != protocols.No {
		return p.readGreeting(data, at)
	}
	if p.phase == afterGreeting && (payloadLength(data) == 0 || data[4] != errPacket) {
		return 0, errHeader
	}

	// Rows and columns are read in one call of Parse, since there may be many.
	for read := 0; ; {
		size := p.readPacket(data[read:], at)
		read += size
		if size == 0 || p.reply.step == firstPacket || len(data)-read < 5 || p.conn.Skipping(protocols.Server) > 0 {
			return read, nil
		}
	}
}

// readPacket reads one packet and returns the number of its bytes in data, or 0 if more bytes are needed.
func (p *parser) readPacket(data []byte, at int64) int {
	// A packet without a waiting command, a continuation, and an empty packet are only counted.
	if p.continues[protocols.Server] || len(p.waiting) == 0 || payloadLength(data) == 0 {
		alone := len(p.waiting) == 0 && !p.continues[protocols.Server]
		if alone && payloadLength(data) > 0 && data[4] == errPacket && data[3] <= 1 {
			return p.emitLoneError(data)
		}
		p.countBytes(data)
		return p.finishPacket(protocols.Server, data)
	}
	if p.reply.lost && data[3] == 1 {
		p.reply = reply{} // sequence number 1: a reply begins here
	}

	// The first byte of a row or a column definition is enough.
	most := 0
	step, first := p.reply.step, data[4]
	if step == firstPacket || step == endOfColumns || first == eofPacket || first == errPacket {
		most = maxPayload
	}
	payload := p.payload(protocols.Server, data, max(most, 1))
	if payload == nil {
		return 0
	}

	p.countBytes(data)
	length := p.finishPacket(protocols.Server, data)
	p.readReply(payload, at)
	return length
}

// countBytes adds the bytes of the packet at the front of data to the command that is being answered.
func (p *parser) countBytes(data []byte) {
	if len(p.waiting) > 0 {
		p.waiting[0].event.Destination.Bytes += uint64(4 + payloadLength(data))
	}
}

// emitLoneError emits an error without a waiting command: the connection was killed, or the command was not
// captured.
func (p *parser) emitLoneError(data []byte) int {
	payload := p.payload(protocols.Server, data, maxPayload)
	if payload == nil {
		return 0
	}
	if len(payload) >= 9 && payload[3] == '#' {
		event := p.newEvent(protocols.Server, "", 4+payloadLength(data))
		event.Partial = true
		p.readError(&command{event: event}, payload)
		p.emit(event)
	}
	return p.finishPacket(protocols.Server, data)
}

// readReply reads the payload of a packet of the reply to waiting[0].
func (p *parser) readReply(payload []byte, at int64) {
	cmd, reply := &p.waiting[0], &p.reply
	first := payload[0]
	// An error ends the reply at any step. Among definitions only the step distinguishes it.
	if first == errPacket && (reply.step != columnPackets || reply.lost) {
		if len(payload) >= 3 && payload[1] == 0xff && payload[2] == 0xff {
			return // MariaDB's progress report, not an error
		}
		if cmd.kind == comConnect || cmd.kind == comChangeUser {
			p.readAuth(cmd, payload, at)
			return
		}
		p.readError(cmd, payload)
		p.finishCommand(at)
		return
	}

	// After a loss packets are read as rows until one ends the reply.
	if reply.lost {
		reply.step = rowPackets
	}
	switch reply.step {
	case firstPacket:
		p.readFirst(cmd, payload, at)
	case columnPackets:
		if reply.left--; reply.left == 0 {
			p.finishColumns(cmd, at)
		}
	case endOfColumns:
		p.readEnding(cmd, payload, at)
	case rowPackets:
		p.readRow(cmd, payload, at)
	}
}

// readFirst reads the first packet of a reply, or of its next result set.
func (p *parser) readFirst(cmd *command, payload []byte, at int64) {
	switch cmd.kind {
	case comConnect, comChangeUser:
		p.readAuth(cmd, payload, at)
		return
	case comStatistics: // a line of text
		cmd.event.Outcome = pipeline.Outcome_SUCCESS
		p.finishCommand(at)
		return
	case comStmtFetch, comFieldList: // rows, or definitions that are read like rows, without a count before them
		p.reply.step = rowPackets
		p.readRow(cmd, payload, at)
		return
	case comBinlogDump, comBinlogGTID, comTableDump:
		cmd.event.Outcome = pipeline.Outcome_SUCCESS
		p.finishCommand(at)
		p.conn.Count("replication")
		p.conn.Drop()
		return
	case comStmtPrepare:
		p.readPrepared(cmd, payload, at)
		return
	}
	switch payload[0] {
	case okPacket, eofPacket:
		p.finishResult(cmd, p.readOK(cmd, payload), at)
	case infilePacket:
		p.sendsFile = true // the reply follows when the client has sent the file
	default:
		p.readCount(cmd, payload, at)
	}
}

// readCount reads the number of columns of a result set, and whether their definitions follow. A client that
// caches them may request none.
func (p *parser) readCount(cmd *command, payload []byte, at int64) {
	fields := payloadReader{rest: payload}
	count := fields.lenencInt()
	if cmd.event.Mysql.Columns == 0 {
		cmd.event.Mysql.Columns = uint32(min(count, 1<<16))
	}
	p.reply.step, p.reply.left = columnPackets, count
	if described := len(fields.rest) == 0 || fields.u8() != 0; count == 0 || !described {
		p.finishColumns(cmd, at)
	}
}

// readPrepared reads the reply to COM_STMT_PREPARE and keeps the text under the id of the statement.
func (p *parser) readPrepared(cmd *command, payload []byte, at int64) {
	fields := payloadReader{rest: payload[1:]}
	id := fields.u32()
	cols, params := uint64(fields.u16()), uint64(fields.u16())
	fields.u8()
	cmd.event.Mysql.Warnings = uint32(fields.u16())
	cmd.event.Mysql.StatementId, cmd.event.Mysql.Columns = id, uint32(cols)
	cmd.event.Outcome = pipeline.Outcome_SUCCESS
	if !fields.bad {
		p.statements.add(id, prepared{cmd.text, cmd.event.Mysql.Method})
	}
	if len(fields.rest) > 0 && fields.rest[0] == 0 {
		cols, params = 0, 0 // the client has requested no definitions
	}

	// Definitions follow: those of the parameters first, then those of the columns.
	p.reply = reply{step: columnPackets, left: params, after: cols, isPrepare: true}
	if params == 0 {
		p.reply.left, p.reply.after = cols, 0
	}
	if p.reply.left == 0 {
		p.finishCommand(at)
	}
}

// finishColumns is called after the last definition. Servers before 5.7 send an EOF packet here. Whether this
// server does was negotiated in the login; in mid-stream the next packet shows it.
func (p *parser) finishColumns(cmd *command, at int64) {
	switch reply := &p.reply; {
	case !p.capabilitiesKnown || p.capabilities&clientDeprecateEOF == 0:
		if reply.isPrepare && !p.capabilitiesKnown {
			// It is unknown whether an EOF packet follows. The command is finished without it, and an EOF
			// packet that does come is skipped.
			reply.left, reply.after = reply.after, 0
			if reply.left == 0 {
				p.finishCommand(at)
			}
			return
		}
		reply.step = endOfColumns
	case reply.isPrepare && reply.after > 0:
		reply.step, reply.left, reply.after = columnPackets, reply.after, 0
	case reply.isPrepare:
		p.finishCommand(at)
	default:
		reply.step = rowPackets
	}
}

// readEnding reads the packet after the definitions: an EOF packet, or the first row.
func (p *parser) readEnding(cmd *command, payload []byte, at int64) {
	reply := &p.reply
	eof := payload[0] == eofPacket && len(payload) == 5
	// In mid-stream this packet shows whether the server sends EOF packets.
	if !p.capabilitiesKnown {
		p.capabilitiesKnown, p.capabilities = true, clientProtocol41|clientDeprecateEOF
		if eof {
			p.capabilities = clientProtocol41
		}
	}
	switch {
	case reply.isPrepare && reply.after > 0:
		reply.step, reply.left, reply.after = columnPackets, reply.after, 0
	case reply.isPrepare:
		p.finishCommand(at)
	case !eof:
		reply.step = rowPackets
		p.readRow(cmd, payload, at)
	case binary.LittleEndian.Uint16(payload[3:])&statusCursorExists != 0: // the rows are fetched by COM_STMT_FETCH
		p.finishResult(cmd, p.readOK(cmd, payload), at)
	default:
		reply.step = rowPackets
	}
}

// readRow counts a row, or reads the packet that ends the rows, which begins with 0xfe. In a row 0xfe would
// announce a first column of 16 MiB or more.
func (p *parser) readRow(cmd *command, payload []byte, at int64) {
	if payload[0] == eofPacket && !p.continues[protocols.Server] {
		p.finishResult(cmd, p.readOK(cmd, payload), at)
		return
	}
	if cmd.kind == comFieldList {
		cmd.event.Mysql.Columns++
		return
	}
	cmd.event.Mysql.Rows++
}

// finishResult starts the next result set, or finishes the command if status has no more results.
func (p *parser) finishResult(cmd *command, status uint16, at int64) {
	if status&statusMoreResults != 0 {
		p.reply = reply{lost: p.reply.lost}
		return
	}
	if cmd.changesDatabase {
		p.database = cmd.text
	}
	if cmd.kind == comResetConn {
		p.statements.reset()
	}
	p.finishCommand(at)
}

// readOK reads an OK or EOF packet and returns the server's status.
func (p *parser) readOK(cmd *command, payload []byte) uint16 {
	body := cmd.event.Mysql
	cmd.event.Outcome = pipeline.Outcome_SUCCESS
	fields := payloadReader{rest: payload[1:]}
	if payload[0] == eofPacket && len(payload) < 7 {
		body.Warnings += uint32(fields.u16())
		return fields.u16()
	}
	body.AffectedRows += fields.lenencInt()
	if id := fields.lenencInt(); id != 0 {
		body.InsertId = id
	}
	status := fields.u16()
	body.Warnings += uint32(fields.u16())
	if status&statusStateChanged != 0 && p.capabilities&clientSessionTrack != 0 {
		fields.lenencString() // info
		p.readSessionTrack(cmd, fields.lenencString())
	}
	return status
}

// readSessionTrack reads changes of the session's state. A change of type 1 sets the current database.
func (p *parser) readSessionTrack(cmd *command, data []byte) {
	for fields := (payloadReader{rest: data}); len(fields.rest) > 0 && !fields.bad; {
		typ := fields.u8()
		change := payloadReader{rest: fields.lenencString()}
		if typ != 1 {
			continue
		}
		if name := change.lenencString(); !change.bad {
			p.database = p.text(name)
			if cmd.changesDatabase {
				cmd.text = p.database
			}
		}
	}
}

// readError reads an ERR packet. The server's quotation from a statement with secrets is left out.
func (p *parser) readError(cmd *command, payload []byte) {
	body := cmd.event.Mysql
	cmd.event.Outcome = pipeline.Outcome_FAILURE
	fields := payloadReader{rest: payload[1:]}
	body.ErrorCode = uint32(fields.u16())
	if len(fields.rest) >= 6 && fields.rest[0] == '#' {
		body.SqlState = p.text(fields.take(6)[1:])
	}
	text := fields.rest
	if front, quotes := redact.SQLError(text); cmd.hasSecrets && quotes {
		body.ErrorMessage = validUTF8(string(front)) + " near '" + redact.Marker + "'"
		return
	}
	body.ErrorMessage = validUTF8(p.conn.Intern(text[:min(len(text), maxMessage)]))
}
