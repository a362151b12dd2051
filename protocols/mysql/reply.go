package mysql

import (
	"encoding/binary"

	"tidegate/pipeline"
	"tidegate/pipeline/redact"
	"tidegate/protocols"
)

// A step is what the server's next packet is.
type step uint8

const (
	first   step = iota // the first of a reply, or of its next result set
	columns             // the definition of a column or of a parameter
	ending              // what ends the columns, if this server sends it
	rows                // a row, or what ends them
)

// A reply is where the reply to waiting[0] stands.
type reply struct {
	step    step
	left    uint64 // definitions of columns or parameters that still come
	after   uint64 // of a prepared statement: columns behind the parameters
	prepare bool   // no rows follow
	lost    bool   // bytes of the server were not seen: which packet comes next is a guess
}

// server reads the server's packets: rows and columns as many as are there, others one by one.
func (p *parser) server(b []byte, at int64) (int, error) {
	if p.phase == start && b[3] == 0 && greeting(b) != protocols.No {
		return p.greet(b, at)
	}
	if p.phase == greeted && (length(b) == 0 || b[4] != errPacket) {
		return 0, errHeader
	}
	for n := 0; ; {
		k := p.packet(b[n:], at)
		n += k
		if k == 0 || p.reply.step == first || len(b)-n < 5 || p.c.Skipping(protocols.Server) > 0 {
			return n, nil
		}
	}
}

// packet reads one packet and returns how much of it is there; 0 if too little is.
func (p *parser) packet(b []byte, at int64) int {
	if p.long[protocols.Server] || len(p.waiting) == 0 || length(b) == 0 {
		if len(p.waiting) == 0 && length(b) > 0 && b[4] == errPacket && b[3] <= 1 && !p.long[protocols.Server] {
			return p.loneError(b)
		}
		p.received(b)
		return p.take(protocols.Server, b)
	}
	if p.reply.lost && b[3] == 1 {
		p.reply = reply{}
	}
	most := 0
	if c := b[4]; p.reply.step == first || c == eofPacket || c == errPacket || p.reply.step == ending {
		most = window
	}
	payload := p.payload(protocols.Server, b, max(most, 1))
	if payload == nil {
		return 0
	}
	p.received(b)
	n := p.take(protocols.Server, b)
	p.read(payload, at)
	return n
}

func (p *parser) received(b []byte) {
	if len(p.waiting) > 0 {
		p.waiting[0].e.Destination.Bytes += uint64(4 + length(b))
	}
}

// loneError makes an event of an error that no command asked for: the connection was killed, or the command was not seen.
func (p *parser) loneError(b []byte) int {
	payload := p.payload(protocols.Server, b, window)
	if payload == nil {
		return 0
	}
	if len(payload) >= 9 && payload[3] == '#' {
		e := p.event(protocols.Server, "", 4+length(b))
		e.Partial = true
		p.fail(&command{e: e}, payload)
		p.emit(e)
	}
	return p.take(protocols.Server, b)
}

// read reads the payload of a packet of the reply to waiting[0].
func (p *parser) read(payload []byte, at int64) {
	w, r := &p.waiting[0], &p.reply
	c := payload[0]
	if c == errPacket && (r.step != columns || r.lost) {
		if len(payload) >= 3 && payload[1] == 0xff && payload[2] == 0xff {
			return // MariaDB's report of progress
		}
		if w.kind == comConnect || w.kind == comChangeUser {
			p.auth(w, payload, at)
			return
		}
		p.fail(w, payload)
		p.finish(at)
		return
	}
	if r.lost {
		r.step = rows
	}
	switch r.step {
	case first:
		p.readFirst(w, payload, at)
	case columns:
		if r.left--; r.left == 0 {
			p.endColumns(w, at)
		}
	case ending:
		p.readEnding(w, payload, at)
	case rows:
		p.readRow(w, payload, at)
	}
}

// readFirst reads the first packet of a reply, or of the next of its result sets.
func (p *parser) readFirst(w *command, payload []byte, at int64) {
	switch w.kind {
	case comConnect, comChangeUser:
		p.auth(w, payload, at)
		return
	case comStatistics: // a line of text
		w.e.Outcome = pipeline.Outcome_SUCCESS
		p.finish(at)
		return
	case comStmtFetch, comFieldList: // rows, or definitions like rows, without a number before them
		p.reply.step = rows
		p.readRow(w, payload, at)
		return
	case comBinlogDump, comBinlogGTID, comTableDump:
		w.e.Outcome = pipeline.Outcome_SUCCESS
		p.finish(at)
		p.c.Count("replication")
		p.c.Drop()
		return
	case comStmtPrepare:
		p.readPrepared(w, payload, at)
		return
	}
	switch payload[0] {
	case okPacket, eofPacket:
		p.ended(w, p.ok(w, payload), at)
	case infilePacket:
		p.infile = true // the reply comes when the client has sent the file
	default:
		p.readCount(w, payload, at)
	}
}

// readCount reads how many columns a result set has, and whether they are described: a client may say that it knows them.
func (p *parser) readCount(w *command, payload []byte, at int64) {
	r := reader{b: payload}
	n := r.lenenc()
	if w.e.Mysql.Columns == 0 {
		w.e.Mysql.Columns = uint32(min(n, 1<<16))
	}
	p.reply.step, p.reply.left = columns, n
	if described := len(r.b) == 0 || r.u8() != 0; n == 0 || !described {
		p.endColumns(w, at)
	}
}

// readPrepared reads the answer to COM_STMT_PREPARE and keeps the text under the statement's id.
func (p *parser) readPrepared(w *command, payload []byte, at int64) {
	r := reader{b: payload[1:]}
	id := r.u32()
	cols, params := uint64(r.u16()), uint64(r.u16())
	r.u8()
	w.e.Mysql.Warnings = uint32(r.u16())
	w.e.Mysql.StatementId, w.e.Mysql.Columns = id, uint32(cols)
	w.e.Outcome = pipeline.Outcome_SUCCESS
	if !r.bad {
		p.stmts.add(id, prepared{w.text, w.e.Mysql.Method})
	}
	if len(r.b) > 0 && r.b[0] == 0 {
		cols, params = 0, 0 // the client has asked for no descriptions
	}
	p.reply = reply{step: columns, left: params, after: cols, prepare: true}
	if params == 0 {
		p.reply.left, p.reply.after = cols, 0
	}
	if p.reply.left == 0 {
		p.finish(at)
	}
}

// endColumns is behind the last definition. Servers of old send an EOF packet here; whether this one does is known from the
// login or, in mid-stream, seen by what comes.
func (p *parser) endColumns(w *command, at int64) {
	switch r := &p.reply; {
	case !p.known || p.caps&clientDeprecateEOF == 0:
		if r.prepare && !p.known {
			// Nothing need follow, so nothing can be waited for: the statement is done, an EOF packet that still comes is passed.
			r.left, r.after = r.after, 0
			if r.left == 0 {
				p.finish(at)
			}
			return
		}
		r.step = ending
	case r.prepare && r.after > 0:
		r.step, r.left, r.after = columns, r.after, 0
	case r.prepare:
		p.finish(at)
	default:
		r.step = rows
	}
}

func (p *parser) readEnding(w *command, payload []byte, at int64) {
	r := &p.reply
	eof := payload[0] == eofPacket && len(payload) == 5
	if !p.known {
		p.known, p.caps = true, clientProtocol41|clientDeprecateEOF
		if eof {
			p.caps = clientProtocol41
		}
	}
	switch {
	case r.prepare && r.after > 0:
		r.step, r.left, r.after = columns, r.after, 0
	case r.prepare:
		p.finish(at)
	case !eof:
		r.step = rows
		p.readRow(w, payload, at)
	case binary.LittleEndian.Uint16(payload[3:])&statusCursorExists != 0: // the rows are fetched by COM_STMT_FETCH
		p.ended(w, p.ok(w, payload), at)
	default:
		r.step = rows
	}
}

// readRow counts a row, or reads what ends them: a packet that begins with 0xfe and is no row, since a row that began so would
// have a first column of 16 MiB.
func (p *parser) readRow(w *command, payload []byte, at int64) {
	if payload[0] == eofPacket && !p.long[protocols.Server] {
		p.ended(w, p.ok(w, payload), at)
		return
	}
	if w.kind == comFieldList {
		w.e.Mysql.Columns++
		return
	}
	w.e.Mysql.Rows++
}

// ended goes on to the next result set, or is done.
func (p *parser) ended(w *command, status uint16, at int64) {
	if status&statusMoreResults != 0 {
		p.reply = reply{lost: p.reply.lost}
		return
	}
	if w.use {
		p.database = w.text
	}
	if w.kind == comResetConn {
		p.stmts.reset()
	}
	p.finish(at)
}

// ok reads an OK or EOF packet and gives the server's status.
func (p *parser) ok(w *command, payload []byte) uint16 {
	m := w.e.Mysql
	w.e.Outcome = pipeline.Outcome_SUCCESS
	r := reader{b: payload[1:]}
	if payload[0] == eofPacket && len(payload) < 7 {
		m.Warnings += uint32(r.u16())
		return r.u16()
	}
	m.AffectedRows += r.lenenc()
	if id := r.lenenc(); id != 0 {
		m.InsertId = id
	}
	status := r.u16()
	m.Warnings += uint32(r.u16())
	if status&statusStateChanged != 0 && p.caps&clientSessionTrack != 0 {
		r.str() // info
		p.tracked(w, r.str())
	}
	return status
}

// tracked reads changes of the session's state for the database (type 1) that is used from here on.
func (p *parser) tracked(w *command, b []byte) {
	for r := (reader{b: b}); len(r.b) > 0 && !r.bad; {
		typ := r.u8()
		v := reader{b: r.str()}
		if typ != 1 {
			continue
		}
		if name := v.str(); !v.bad {
			p.database = p.name(name)
			if w.use {
				w.text = p.database
			}
		}
	}
}

// fail reads an ERR packet. What a server quotes of a statement that had secrets in it is taken out.
func (p *parser) fail(w *command, payload []byte) {
	m := w.e.Mysql
	w.e.Outcome = pipeline.Outcome_FAILURE
	r := reader{b: payload[1:]}
	m.ErrorCode = uint32(r.u16())
	if len(r.b) >= 6 && r.b[0] == '#' {
		m.SqlState = p.name(r.take(6)[1:])
	}
	text := r.b
	if front, quotes := redact.SQLError(text); w.secret && quotes {
		m.ErrorMessage = valid(string(front)) + " near '" + redact.Marker + "'"
		return
	}
	m.ErrorMessage = valid(p.c.Intern(text[:min(len(text), maxMessage)]))
}
