package dns

import (
	"encoding/binary"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"

	"tidegate/pipeline"
	"tidegate/protocols"
)

// Timeout is how long, in packet time, a query waits for its answer. Stub resolvers give up after 5 s, most
// others before 10 s.
const Timeout = 10 * time.Second

// maxWaiting is how many queries of one connection wait; a forwarder with one socket has hundreds under way.
// To make room the oldest is emitted as it is.
const maxWaiting = 512

// A query is a query that waits for its answer, or a zone transfer that has begun to arrive.
type query struct {
	event        *pipeline.Event // nil: answered or emitted
	lastAt       int64           // of the query, or of the transfer's last message
	sentAt       int64
	questionHash uint64
	id           uint16
	qtype        uint16
	dir          protocols.Dir
	transfer     bool // the first answer was seen, more may come
	soaRecords   int
}

// A parser pairs the messages of one connection.
type parser struct {
	protocols.NopParser // End: a side that was closed may still be answered
	c                   *protocols.Conn
	udp                 bool
	rolesKnown          bool
	message             message
	waiting             []query // by time; those before head are answered or emitted
	head                int
	waitingCount        int
}

// Reset begins a connection.
func (p *parser) Reset(c *protocols.Conn) {
	clear(p.waiting)
	*p = parser{c: c, udp: c.Info().Transport == pipeline.Transport_UDP, message: p.message, waiting: p.waiting[:0]}
	if cap(p.waiting) > 64 {
		p.waiting = nil
	}
	if cap(p.message.text) > maxText {
		p.message.text = nil
	}
}

// Parse reads one message.
func (p *parser) Parse(dir protocols.Dir, b []byte, at int64) (int, error) {
	size, front := len(b), 0
	if !p.udp {
		if len(b) < 2 {
			return 0, nil
		}
		if size = 2 + int(binary.BigEndian.Uint16(b)); size < 2+headerSize {
			return 0, errShort
		}
		if len(b) < size {
			p.c.Need(dir, size)
			return 0, nil
		}
		front = 2
	}
	if err := p.message.parse(b[front:size]); err != nil {
		return 0, err
	}
	p.Tick(at)
	response := p.message.flags&flagQR != 0
	if !p.rolesKnown && response == (dir == protocols.Client) {
		p.c.Flip() // the first message seen is an answer of the supposed client
		dir = dir.Other()
	}
	p.rolesKnown = true
	if response {
		p.pairAnswer(dir, size, at)
	} else {
		p.addQuery(dir, size, at)
	}
	p.message.b = nil
	return size, nil
}

// addQuery appends the query that was parsed to those that wait.
func (p *parser) addQuery(dir protocols.Dir, size int, at int64) {
	if p.waitingCount >= maxWaiting {
		p.c.Count("waiting_queries_full")
		p.emitOldest()
	}
	e := p.newEvent(dir)
	e.Source.Bytes = uint64(size)
	e.Partial = e.Partial || p.message.truncated
	d := pipeline.DNSMessageFromVTPool()
	e.Dns = d
	d.Type = "query"
	p.setQuestion(d)
	d.HeaderFlags = headerFlags(d.HeaderFlags[:0], p.message.flags)
	if len(p.waiting) == cap(p.waiting) && p.head > 0 {
		p.waiting = p.waiting[:copy(p.waiting, p.waiting[p.head:])]
		p.head = 0
	}
	p.waiting = append(p.waiting, query{
		event: e, lastAt: at, sentAt: e.Timestamp, dir: dir,
		questionHash: p.message.questionHash, id: p.message.id, qtype: p.message.qtype,
	})
	p.waitingCount++
}

// pairAnswer pairs the answer that was parsed with the oldest query that it fits, or emits it as an event of
// its own.
func (p *parser) pairAnswer(dir protocols.Dir, size int, at int64) {
	w := p.findQuery(dir.Other())
	if w == nil {
		e := p.newEvent(dir)
		e.Partial = true
		e.Destination.Bytes = uint64(size)
		e.Dns = pipeline.DNSMessageFromVTPool()
		p.setQuestion(e.Dns)
		p.setAnswer(e, e.Dns.QuestionName)
		p.c.Emit(e)
		return
	}
	e := w.event
	e.Destination.Bytes += uint64(size)
	e.Duration = uint64(max(at-w.sentAt, 0))
	if w.transfer {
		e.Dns.AnswersCount += uint32(p.message.an)
	} else {
		p.setAnswer(e, e.Dns.QuestionName)
	}
	if p.transferContinues(w, at) {
		return
	}
	p.c.Emit(e)
	p.removeQuery(w)
}

// transferContinues reports whether q is a zone transfer whose end, a second SOA record, has not come. An
// incremental transfer may have several SOA records and has no certain end: it ends by timeout or with the
// connection.
func (p *parser) transferContinues(w *query, at int64) bool {
	if p.udp || w.qtype != typeAXFR && w.qtype != typeIXFR || p.message.rcode != 0 || p.message.an == 0 {
		return false
	}
	w.soaRecords += p.message.soaRecords
	w.transfer, w.lastAt = true, at
	return w.qtype == typeIXFR && !(p.message.an == 1 && w.soaRecords == 1) || w.soaRecords < 2 || !p.message.lastSOA
}

// findQuery returns the query of dir that the message answers: the one of the same id and question. An answer
// need not repeat the question (FORMERR, the later messages of a zone transfer).
func (p *parser) findQuery(dir protocols.Dir) *query {
	for i := p.head; i < len(p.waiting); i++ {
		w := &p.waiting[i]
		sameQuestion := w.questionHash == p.message.questionHash || p.message.qd == 0
		if w.id == p.message.id && w.event != nil && w.dir == dir && sameQuestion {
			return w
		}
	}
	return nil
}

// removeQuery removes w; its place in waiting becomes free when all before it are done.
func (p *parser) removeQuery(w *query) {
	w.event = nil
	p.waitingCount--
	for p.head < len(p.waiting) && p.waiting[p.head].event == nil {
		p.head++
	}
	if p.head == len(p.waiting) {
		p.waiting, p.head = p.waiting[:0], 0
	}
}

// emitOldest emits the query that has waited longest as it is.
func (p *parser) emitOldest() {
	if w := &p.waiting[p.head]; w.event != nil {
		p.c.Emit(w.event)
		p.removeQuery(w)
	}
}

// Tick emits the queries that have waited too long. Those behind one that has not are younger. A zone
// transfer under way may hold some of them back for a while.
func (p *parser) Tick(at int64) {
	for p.waitingCount > 0 && at-p.waiting[p.head].lastAt >= int64(Timeout) {
		p.emitOldest()
	}
}

// Gap marks every query that waits as partial: its answer may be among the lost bytes.
func (p *parser) Gap(protocols.Dir, int) bool {
	for i := p.head; i < len(p.waiting); i++ {
		if e := p.waiting[i].event; e != nil {
			e.Partial = true
		}
	}
	return false
}

// Close emits what still waits.
func (p *parser) Close(int64) {
	for p.waitingCount > 0 {
		p.emitOldest()
	}
}

// newEvent returns a new event for the message that was parsed. Its source is the side that asks. Servers ask
// each other from port 53 to port 53, so both sides of a connection may ask.
func (p *parser) newEvent(dir protocols.Dir) *pipeline.Event {
	var e *pipeline.Event
	if p.udp {
		e = p.c.EventUDP(dir, uint64(p.message.id)|uint64(p.message.qtype)<<16|p.message.questionHash<<32)
	} else {
		e = p.c.Event(dir)
	}
	if answers := p.message.flags&flagQR != 0; answers == (dir == protocols.Client) {
		e.Source, e.Destination = e.Destination, e.Source
	}
	return e
}

// setQuestion fills in the fields of the question.
func (p *parser) setQuestion(d *pipeline.DNSMessage) {
	m := &p.message
	d.Id = uint32(m.id)
	d.OpCode = opCodes[m.flags>>11&15]
	if m.qd == 0 {
		return
	}
	d.QuestionName = p.c.Intern(m.text[m.question.from:m.question.to])
	d.QuestionType = typeName(m.qtype)
	d.QuestionClass = classText(m.qclass)
	d.RegisteredDomain = registeredDomain(d.QuestionName)
}

// setAnswer fills in the fields of the answer. question is the text of the question's name.
func (p *parser) setAnswer(e *pipeline.Event, question string) {
	m, d := &p.message, e.Dns
	d.Type = "answer"
	d.ResponseCode = responseCode(m.rcode)
	e.Outcome = pipeline.Outcome_FAILURE
	if m.rcode == 0 {
		e.Outcome = pipeline.Outcome_SUCCESS
	}
	e.Partial = e.Partial || m.truncated
	d.HeaderFlags = headerFlags(d.HeaderFlags[:0], m.flags)
	d.AnswersCount = uint32(m.an)
	if len(m.answers) == 0 {
		return
	}
	text := string(m.text[m.question.to:]) // one string for the texts of all records
	of := func(s span) string {
		if s == m.question && m.qd > 0 {
			return question
		}
		return text[s.from-m.question.to : s.to-m.question.to]
	}
	for i := range m.answers {
		a := &m.answers[i]
		data := of(a.data)
		d.AnswersName = append(d.AnswersName, of(a.name))
		d.AnswersType = append(d.AnswersType, typeName(a.typ))
		d.AnswersData = append(d.AnswersData, data)
		d.AnswersTtl = append(d.AnswersTtl, a.ttl)
		if (a.typ == typeA || a.typ == typeAAAA) && !strings.HasPrefix(data, `\#`) {
			d.ResolvedIp = append(d.ResolvedIp, data)
		}
	}
}

// registeredDomain returns the part of name that someone has registered: the public suffix and one label, or
// "" if name is a suffix.
func registeredDomain(name string) string {
	suffix, _ := publicsuffix.PublicSuffix(name)
	i := len(name) - len(suffix) - 1
	if i <= 0 || name[i] != '.' {
		return ""
	}
	for i--; i >= 0; i-- {
		if name[i] == '.' && !isEscaped(name[:i]) {
			break
		}
	}
	return name[i+1:]
}

// isEscaped reports whether the byte behind before is escaped by a backslash.
func isEscaped(before string) bool {
	return (len(before)-len(strings.TrimRight(before, `\`)))%2 == 1
}
