package mysql

import (
	"encoding/binary"
	"unicode/utf8"

	"tidegate/pipeline"
	"tidegate/protocols"
)

// client reads one packet of the client.
func (p *parser) client(b []byte, at int64) (int, error) {
	n, seq := length(b), b[3]
	switch {
	case p.infile && !p.long[protocols.Client] && n == 0:
		p.infile = false
		return p.more(b), nil
	case p.infile || p.long[protocols.Client]:
		return p.more(b), nil
	case seq == 1 && (p.phase == greeted || p.phase == start && n >= 32):
		return p.login(b, at)
	case seq != 0 && p.phase == commands:
		return p.more(b), nil // an answer to the server's question about the login
	case seq != 0 || n == 0:
		return 0, errHeader
	}
	payload := p.payload(protocols.Client, b, window)
	if payload == nil {
		return 0, nil
	}
	k := kindOf(payload[0])
	if k.name == "" || n < k.min || k.max > 0 && n > k.max {
		return 0, errCommand
	}
	if p.phase == greeted {
		return 0, errHeader
	}
	p.phase = commands
	if p.doubt {
		p.emitWaiting(true) // the reply that was lost was theirs: a client waits for one before it goes on
	}
	p.command(k, payload, n)
	return p.take(protocols.Client, b), nil
}

// more takes a packet that belongs to what was sent before.
func (p *parser) more(b []byte) int {
	if i := len(p.waiting) - 1; i >= 0 {
		p.waiting[i].e.Source.Bytes += uint64(4 + length(b))
	}
	return p.take(protocols.Client, b)
}

// command makes the event of a command and has it wait, if an answer comes.
func (p *parser) command(k *kind, payload []byte, n int) {
	e := p.event(protocols.Client, k.name, 4+n)
	e.Partial = e.Partial || p.unsure
	w := command{e: e, kind: payload[0], sent: e.Timestamp}
	switch payload[0] {
	case comQuery:
		text := p.withoutAttributes(payload[1:])
		p.statement(&w, text, n > len(payload))
		if w.use = e.Mysql.Method == "USE"; w.use {
			w.text = p.name(useTarget(text))
		}
	case comStmtPrepare:
		p.statement(&w, payload[1:], n > len(payload))
		w.text = e.Mysql.Query
		p.stmts.last = prepared{w.text, e.Mysql.Method}
	case comStmtExecute, comStmtFetch, comStmtReset, comStmtClose, comStmtLongData, comBulkExecute:
		if len(payload) >= 5 {
			p.which(e, payload)
		}
	case comInitDB:
		e.Mysql.Database = p.name(payload[1:])
		w.use, w.text = true, e.Mysql.Database
	case comChangeUser:
		p.changeUser(e, payload)
	}
	if k.silent {
		p.emit(e)
		return
	}
	p.push(w)
}

// statement writes the text of a statement, redacted and capped.
func (p *parser) statement(w *command, text []byte, cut bool) {
	w.e.Mysql.Method = method(text)
	var out []byte
	out, w.secret = p.redactor.SQL(text)
	if cut || len(out) > maxQuery {
		out = out[:min(len(out), maxQuery)]
		w.e.Mysql.Query = valid(string(wholeRunes(out))) + "…"
		return
	}
	w.e.Mysql.Query = valid(p.c.Intern(out))
}

// wholeRunes takes away a character at the end of b that is cut in two.
func wholeRunes(b []byte) []byte {
	for i := 1; i < utf8.UTFMax && i <= len(b); i++ {
		if at := len(b) - i; utf8.RuneStart(b[at]) {
			if !utf8.FullRune(b[at:]) {
				return b[:at]
			}
			break
		}
	}
	return b
}

// which writes which prepared statement is meant.
func (p *parser) which(e *pipeline.Event, payload []byte) {
	id := binary.LittleEndian.Uint32(payload[1:])
	e.Mysql.StatementId = id
	s := p.stmts.get(id)
	e.Mysql.Query, e.Mysql.Method = s.text, s.method
	if payload[0] == comStmtClose {
		p.stmts.close(id)
	}
}

// withoutAttributes gives the text behind the query attributes (CLIENT_QUERY_ATTRIBUTES): the number of parameters, of sets of
// them (1), and if there are any the NULL bits, a 1, type and name of each, then the values. Where the login was not seen, text
// that begins with 0 and 1 has them: no statement does.
func (p *parser) withoutAttributes(b []byte) []byte {
	if p.known && p.caps&clientQueryAttrs == 0 || !p.known && (len(b) < 2 || b[0] > 16 || b[1] != 1) {
		return b
	}
	r := reader{b: b}
	n := r.lenenc()
	r.lenenc()
	if n == 0 || n > 1024 {
		return r.b
	}
	nulls := r.take((n + 7) / 8)
	if r.u8() == 0 {
		return r.b
	}
	types := make([]byte, n)
	for i := range types {
		types[i] = byte(r.u16())
		r.str()
	}
	for i, t := range types {
		if nulls != nil && nulls[i/8]&(1<<(i%8)) == 0 {
			r.value(t)
		}
	}
	return r.b
}

// value passes a value in binary form.
func (r *reader) value(t byte) {
	switch t {
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
		r.str()
	}
}

// Bounds of the statements that one connection keeps.
const (
	maxStatements = 512
	maxTexts      = 128 << 10 // bytes of all texts
)

// prepared is a statement's text and its method.
type prepared struct{ text, method string }

// statements are those that were prepared, by id; the oldest makes room.
type statements struct {
	texts map[uint32]prepared
	order []uint32
	size  int
	last  prepared // of the last COM_STMT_PREPARE: MariaDB's clients send the execution of statement -1 right behind it
}

func (s *statements) reset() {
	clear(s.texts)
	s.order, s.size, s.last = s.order[:0], 0, prepared{}
}

func (s *statements) get(id uint32) prepared {
	if id == 1<<32-1 {
		return s.last
	}
	return s.texts[id]
}

func (s *statements) add(id uint32, p prepared) {
	s.close(id)
	for len(s.order) > 0 && (len(s.texts) >= maxStatements || s.size+len(p.text) > maxTexts || len(s.order) >= 2*maxStatements) {
		s.close(s.order[0])
		s.order = s.order[:copy(s.order, s.order[1:])]
	}
	if s.texts == nil {
		s.texts = map[uint32]prepared{}
	}
	s.texts[id] = p
	s.order = append(s.order, id)
	s.size += len(p.text)
}

// close forgets a statement. Its place in the order stays until its turn comes.
func (s *statements) close(id uint32) {
	if t, ok := s.texts[id]; ok {
		s.size -= len(t.text)
		delete(s.texts, id)
	}
}
