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
	firstPacket   step = iota // the first of a reply, or of its next result set
	columnPackets             // the definition of a column or of a parameter
	endOfColumns              // what ends the columns, if this server sends it
	rowPackets                // a row, or what ends them
)

// A reply is the state of the reply to waiting[0].
type reply struct {
	step      step
	left      uint64 // definitions of columns or parameters that still come
	after     uint64 // of a prepared statement: columns behind the parameters
	isPrepare bool   // no rows follow
	lost      bool   // bytes of the server were not seen: which packet comes next is a guess
}

// readServer reads packets of the server: as many rows and columns as are there, others one at a time.
func (p *parser) readServer(b []byte, at int64) (int, error) {
	if p.phase == initial && b[3] == 0 && matchGreeting(b) != protocols.No {
		return p.readGreeting(b, at)
	}
	if p.phase == afterGreeting && (payloadLength(b) == 0 || b[4] != errPacket) {
		return 0, errHeader
	}
	for n := 0; ; {
		k := p.readPacket(b[n:], at)
		n += k
		if k == 0 || p.reply.step == firstPacket || len(b)-n < 5 || p.c.Skipping(protocols.Server) > 0 {
			return n, nil
		}
	}
}

// readPacket reads one packet and returns how many bytes of it are there, or 0 if they are too few.
func (p *parser) readPacket(b []byte, at int64) int {
	if p.continues[protocols.Server] || len(p.waiting) == 0 || payloadLength(b) == 0 {
		if len(p.waiting) == 0 && payloadLength(b) > 0 && b[4] == errPacket && b[3] <= 1 && !p.continues[protocols.Server] {
			return p.emitLoneError(b)
		}
		p.countBytes(b)
		return p.finishPacket(protocols.Server, b)
	}
	if p.reply.lost && b[3] == 1 {
		p.reply = reply{}
	}
	most := 0
	if c := b[4]; p.reply.step == firstPacket || c == eofPacket || c == errPacket || p.reply.step == endOfColumns {
		most = maxPayload
	}
	payload := p.payload(protocols.Server, b, max(most, 1))
	if payload == nil {
		return 0
	}
	p.countBytes(b)
	n := p.finishPacket(protocols.Server, b)
	p.readReply(payload, at)
	return n
}

// countBytes adds the bytes of the packet at the front of b to the command that is being answered.
func (p *parser) countBytes(b []byte) {
	if len(p.waiting) > 0 {
		p.waiting[0].e.Destination.Bytes += uint64(4 + payloadLength(b))
	}
}

// emitLoneError emits an error that no command asked for: the connection was killed, or the command was not
// seen.
func (p *parser) emitLoneError(b []byte) int {
	payload := p.payload(protocols.Server, b, maxPayload)
	if payload == nil {
		return 0
	}
	if len(payload) >= 9 && payload[3] == '#' {
		e := p.newEvent(protocols.Server, "", 4+payloadLength(b))
		e.Partial = true
		p.readError(&command{e: e}, payload)
		p.emit(e)
	}
	return p.finishPacket(protocols.Server, b)
}

// readReply reads the payload of a packet of the reply to waiting[0].
func (p *parser) readReply(payload []byte, at int64) {
	w, r := &p.waiting[0], &p.reply
	c := payload[0]
	if c == errPacket && (r.step != columnPackets || r.lost) {
		if len(payload) >= 3 && payload[1] == 0xff && payload[2] == 0xff {
			return // MariaDB's report of progress
		}
		if w.kind == comConnect || w.kind == comChangeUser {
			p.readAuth(w, payload, at)
			return
		}
		p.readError(w, payload)
		p.finishCommand(at)
		return
	}
	if r.lost {
		r.step = rowPackets
	}
	switch r.step {
	case firstPacket:
		p.readFirst(w, payload, at)
	case columnPackets:
		if r.left--; r.left == 0 {
			p.finishColumns(w, at)
		}
	case endOfColumns:
		p.readEnding(w, payload, at)
	case rowPackets:
		p.readRow(w, payload, at)
	}
}

// readFirst reads the first packet of a reply, or of its next result set.
func (p *parser) readFirst(w *command, payload []byte, at int64) {
	switch w.kind {
	case comConnect, comChangeUser:
		p.readAuth(w, payload, at)
		return
	case comStatistics: // a line of text
		w.e.Outcome = pipeline.Outcome_SUCCESS
		p.finishCommand(at)
		return
	case comStmtFetch, comFieldList: // rows, or definitions like rows, without a number before them
		p.reply.step = rowPackets
		p.readRow(w, payload, at)
		return
	case comBinlogDump, comBinlogGTID, comTableDump:
		w.e.Outcome = pipeline.Outcome_SUCCESS
		p.finishCommand(at)
		p.c.Count("replication")
		p.c.Drop()
		return
	case comStmtPrepare:
		p.readPrepared(w, payload, at)
		return
	}
	switch payload[0] {
	case okPacket, eofPacket:
		p.finishResult(w, p.readOK(w, payload), at)
	case infilePacket:
		p.sendsFile = true // the reply comes when the client has sent the file
	default:
		p.readCount(w, payload, at)
	}
}

// readCount reads how many columns a result set has, and whether their definitions follow: a client may have
// said that it knows them.
func (p *parser) readCount(w *command, payload []byte, at int64) {
	r := payloadReader{b: payload}
	n := r.lenencInt()
	if w.e.Mysql.Columns == 0 {
		w.e.Mysql.Columns = uint32(min(n, 1<<16))
	}
	p.reply.step, p.reply.left = columnPackets, n
	if described := len(r.b) == 0 || r.u8() != 0; n == 0 || !described {
		p.finishColumns(w, at)
	}
}

// readPrepared reads the reply to COM_STMT_PREPARE and keeps the text under the id of the statement.
func (p *parser) readPrepared(w *command, payload []byte, at int64) {
	r := payloadReader{b: payload[1:]}
	id := r.u32()
	cols, params := uint64(r.u16()), uint64(r.u16())
	r.u8()
	w.e.Mysql.Warnings = uint32(r.u16())
	w.e.Mysql.StatementId, w.e.Mysql.Columns = id, uint32(cols)
	w.e.Outcome = pipeline.Outcome_SUCCESS
	if !r.bad {
		p.statements.add(id, prepared{w.text, w.e.Mysql.Method})
	}
	if len(r.b) > 0 && r.b[0] == 0 {
		cols, params = 0, 0 // the client has asked for no descriptions
	}
	p.reply = reply{step: columnPackets, left: params, after: cols, isPrepare: true}
	if params == 0 {
		p.reply.left, p.reply.after = cols, 0
	}
	if p.reply.left == 0 {
		p.finishCommand(at)
	}
}

// finishColumns follows the last definition. Old servers send an EOF packet here. Whether this one does was
// agreed in the login; in mid-stream the next packet shows it.
func (p *parser) finishColumns(w *command, at int64) {
	switch r := &p.reply; {
	case !p.capabilitiesKnown || p.capabilities&clientDeprecateEOF == 0:
		if r.isPrepare && !p.capabilitiesKnown {
			// Whether an EOF packet follows is not known, so nothing is waited for: the command is finished,
			// and an EOF packet that still comes is skipped.
			r.left, r.after = r.after, 0
			if r.left == 0 {
				p.finishCommand(at)
			}
			return
		}
		r.step = endOfColumns
	case r.isPrepare && r.after > 0:
		r.step, r.left, r.after = columnPackets, r.after, 0
	case r.isPrepare:
		p.finishCommand(at)
	default:
		r.step = rowPackets
	}
}

// readEnding reads the packet behind the definitions: an EOF packet, or the first row.
func (p *parser) readEnding(w *command, payload []byte, at int64) {
	r := &p.reply
	eof := payload[0] == eofPacket && len(payload) == 5
	if !p.capabilitiesKnown {
		p.capabilitiesKnown, p.capabilities = true, clientProtocol41|clientDeprecateEOF
		if eof {
			p.capabilities = clientProtocol41
		}
	}
	switch {
	case r.isPrepare && r.after > 0:
		r.step, r.left, r.after = columnPackets, r.after, 0
	case r.isPrepare:
		p.finishCommand(at)
	case !eof:
		r.step = rowPackets
		p.readRow(w, payload, at)
	case binary.LittleEndian.Uint16(payload[3:])&statusCursorExists != 0: // the rows are fetched by COM_STMT_FETCH
		p.finishResult(w, p.readOK(w, payload), at)
	default:
		r.step = rowPackets
	}
}

// readRow counts a row, or reads the packet that ends the rows. That begins with 0xfe and is no row: the
// first column of a row that began so would have 16 MiB.
func (p *parser) readRow(w *command, payload []byte, at int64) {
	if payload[0] == eofPacket && !p.continues[protocols.Server] {
		p.finishResult(w, p.readOK(w, payload), at)
		return
	}
	if w.kind == comFieldList {
		w.e.Mysql.Columns++
		return
	}
	w.e.Mysql.Rows++
}

// finishResult goes on to the next result set, or finishes the command.
func (p *parser) finishResult(w *command, status uint16, at int64) {
	if status&statusMoreResults != 0 {
		p.reply = reply{lost: p.reply.lost}
		return
	}
	if w.changesDatabase {
		p.database = w.text
	}
	if w.kind == comResetConn {
		p.statements.reset()
	}
	p.finishCommand(at)
}

// readOK reads an OK or EOF packet and returns the server's status.
func (p *parser) readOK(w *command, payload []byte) uint16 {
	m := w.e.Mysql
	w.e.Outcome = pipeline.Outcome_SUCCESS
	r := payloadReader{b: payload[1:]}
	if payload[0] == eofPacket && len(payload) < 7 {
		m.Warnings += uint32(r.u16())
		return r.u16()
	}
	m.AffectedRows += r.lenencInt()
	if id := r.lenencInt(); id != 0 {
		m.InsertId = id
	}
	status := r.u16()
	m.Warnings += uint32(r.u16())
	if status&statusStateChanged != 0 && p.capabilities&clientSessionTrack != 0 {
		r.lenencString() // info
		p.readSessionTrack(w, r.lenencString())
	}
	return status
}

// readSessionTrack reads the changes of the session's state; the one of type 1 is the database from here on.
func (p *parser) readSessionTrack(w *command, b []byte) {
	for r := (payloadReader{b: b}); len(r.b) > 0 && !r.bad; {
		typ := r.u8()
		v := payloadReader{b: r.lenencString()}
		if typ != 1 {
			continue
		}
		if name := v.lenencString(); !v.bad {
			p.database = p.text(name)
			if w.changesDatabase {
				w.text = p.database
			}
		}
	}
}

// readError reads an ERR packet. What the server quotes of a statement with secrets is left out.
func (p *parser) readError(w *command, payload []byte) {
	m := w.e.Mysql
	w.e.Outcome = pipeline.Outcome_FAILURE
	r := payloadReader{b: payload[1:]}
	m.ErrorCode = uint32(r.u16())
	if len(r.b) >= 6 && r.b[0] == '#' {
		m.SqlState = p.text(r.take(6)[1:])
	}
	text := r.b
	if front, quotes := redact.SQLError(text); w.hasSecrets && quotes {
		m.ErrorMessage = validUTF8(string(front)) + " near '" + redact.Marker + "'"
		return
	}
	m.ErrorMessage = validUTF8(p.c.Intern(text[:min(len(text), maxMessage)]))
}
