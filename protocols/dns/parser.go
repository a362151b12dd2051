package dns

import (
	"encoding/binary"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"

	"tidegate/pipeline"
	"tidegate/protocols"
)

// Timeout is how long, in packet time, a query waits for its answer: stub resolvers give up after 5 s, most others before 10 s.
const Timeout = 10 * time.Second

// maxWaiting bounds the queries of one connection that wait; a forwarder with one socket has hundreds under way. The oldest is
// emitted as it is to make room.
const maxWaiting = 512

// A waiting is a query, or a zone transfer that has begun to come.
type waiting struct {
	e        *pipeline.Event // nil: done with
	at       int64           // of the query, or of the transfer's last message
	sent     int64
	key      uint64
	id       uint16
	qtype    uint16
	dir      protocols.Dir
	transfer bool // the first answer was seen, more may come
	soas     int
}

// A parser pairs the messages of one connection.
type parser struct {
	protocols.NopParser // End: a side that was closed may still be answered
	c                   *protocols.Conn
	udp                 bool
	begun               bool
	m                   message
	waiting             []waiting // by time; those before head are done with
	head                int
	live                int
}

// Reset begins a connection.
func (p *parser) Reset(c *protocols.Conn) {
	clear(p.waiting)
	*p = parser{c: c, udp: c.Info().Transport == pipeline.Transport_UDP, m: p.m, waiting: p.waiting[:0]}
	if cap(p.waiting) > 64 {
		p.waiting = nil
	}
	if cap(p.m.text) > maxText {
		p.m.text = nil
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
	if err := p.m.parse(b[front:size]); err != nil {
		return 0, err
	}
	p.Tick(at)
	response := p.m.flags&flagQR != 0
	if !p.begun && response == (dir == protocols.Client) {
		p.c.Flip() // who was thought to be the client is answering
		dir = dir.Other()
	}
	p.begun = true
	if response {
		p.answer(dir, size, at)
	} else {
		p.query(dir, size, at)
	}
	p.m.b = nil
	return size, nil
}

// query has a query wait for its answer.
func (p *parser) query(dir protocols.Dir, size int, at int64) {
	if p.live >= maxWaiting {
		p.c.Count("waiting_queries_full")
		p.emitOldest()
	}
	e := p.event(dir)
	e.Source.Bytes = uint64(size)
	e.Partial = e.Partial || p.m.cut
	d := pipeline.DNSMessageFromVTPool()
	e.Dns = d
	d.Type = "query"
	p.fillQuestion(d)
	d.HeaderFlags = headerFlags(d.HeaderFlags[:0], p.m.flags)
	if len(p.waiting) == cap(p.waiting) && p.head > 0 {
		p.waiting = p.waiting[:copy(p.waiting, p.waiting[p.head:])]
		p.head = 0
	}
	p.waiting = append(p.waiting, waiting{e: e, at: at, sent: e.Timestamp, key: p.m.key, id: p.m.id, qtype: p.m.qtype, dir: dir})
	p.live++
}

// answer gives an answer to the oldest query that it fits, or makes it an event of its own.
func (p *parser) answer(dir protocols.Dir, size int, at int64) {
	w := p.find(dir.Other())
	if w == nil {
		e := p.event(dir)
		e.Partial = true
		e.Destination.Bytes = uint64(size)
		e.Dns = pipeline.DNSMessageFromVTPool()
		p.fillQuestion(e.Dns)
		p.fillAnswer(e, e.Dns.QuestionName)
		p.c.Emit(e)
		return
	}
	e := w.e
	e.Destination.Bytes += uint64(size)
	e.Duration = uint64(max(at-w.sent, 0))
	if w.transfer {
		e.Dns.AnswersCount += uint32(p.m.an)
	} else {
		p.fillAnswer(e, e.Dns.QuestionName)
	}
	if p.more(w, at) {
		return
	}
	p.c.Emit(e)
	p.remove(w)
}

// more tells that w is a zone transfer whose end, a second SOA record, has not come. An incremental one may have several and has
// no sure end: it ends by timeout or with the connection.
func (p *parser) more(w *waiting, at int64) bool {
	if p.udp || w.qtype != typeAXFR && w.qtype != typeIXFR || p.m.rcode != 0 || p.m.an == 0 {
		return false
	}
	w.soas += p.m.soas
	w.transfer, w.at = true, at
	return w.qtype == typeIXFR && !(p.m.an == 1 && w.soas == 1) || w.soas < 2 || !p.m.lastSOA
}

// find looks for the query of dir that the message answers: the same id and question. An answer need not repeat the question
// (FORMERR, the later messages of a zone transfer).
func (p *parser) find(dir protocols.Dir) *waiting {
	for i := p.head; i < len(p.waiting); i++ {
		w := &p.waiting[i]
		if w.id == p.m.id && w.e != nil && w.dir == dir && (w.key == p.m.key || p.m.qd == 0) {
			return w
		}
	}
	return nil
}

func (p *parser) remove(w *waiting) {
	w.e = nil
	p.live--
	for p.head < len(p.waiting) && p.waiting[p.head].e == nil {
		p.head++
	}
	if p.head == len(p.waiting) {
		p.waiting, p.head = p.waiting[:0], 0
	}
}

// emitOldest emits the query that has waited longest as it is.
func (p *parser) emitOldest() {
	if w := &p.waiting[p.head]; w.e != nil {
		p.c.Emit(w.e)
		p.remove(w)
	}
}

// Tick emits the queries that have waited too long. Those behind one that has not are younger; a zone transfer under way may
// hold some of them back for a while.
func (p *parser) Tick(at int64) {
	for p.live > 0 && at-p.waiting[p.head].at >= int64(Timeout) {
		p.emitOldest()
	}
}

// Gap says that n bytes of a stream were lost: with them perhaps the answers to what waits.
func (p *parser) Gap(protocols.Dir, int) bool {
	for i := p.head; i < len(p.waiting); i++ {
		if e := p.waiting[i].e; e != nil {
			e.Partial = true
		}
	}
	return false
}

// Close emits what still waits.
func (p *parser) Close(int64) {
	for p.live > 0 {
		p.emitOldest()
	}
}

// event makes the event of the message in hand, whose source is who asks. Servers ask each other from port 53 to port 53, so
// both sides of one connection may.
func (p *parser) event(dir protocols.Dir) *pipeline.Event {
	var e *pipeline.Event
	if p.udp {
		e = p.c.EventUDP(dir, uint64(p.m.id)|uint64(p.m.qtype)<<16|p.m.key<<32)
	} else {
		e = p.c.Event(dir)
	}
	if answers := p.m.flags&flagQR != 0; answers == (dir == protocols.Client) {
		e.Source, e.Destination = e.Destination, e.Source
	}
	return e
}

func (p *parser) fillQuestion(d *pipeline.DNSMessage) {
	m := &p.m
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

// fillAnswer writes what the message answers into e. question is the text of the question's name.
func (p *parser) fillAnswer(e *pipeline.Event, question string) {
	m, d := &p.m, e.Dns
	d.Type = "answer"
	d.ResponseCode = responseCode(m.rcode)
	e.Outcome = pipeline.Outcome_FAILURE
	if m.rcode == 0 {
		e.Outcome = pipeline.Outcome_SUCCESS
	}
	e.Partial = e.Partial || m.cut
	d.HeaderFlags = headerFlags(d.HeaderFlags[:0], m.flags)
	d.AnswersCount = uint32(m.an)
	if len(m.answers) == 0 {
		return
	}
	text := string(m.text[m.question.to:]) // one string for all of them
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

// registeredDomain is the part of name that someone registered: the public suffix and one label; "" of a suffix itself.
func registeredDomain(name string) string {
	suffix, _ := publicsuffix.PublicSuffix(name)
	i := len(name) - len(suffix) - 1
	if i <= 0 || name[i] != '.' {
		return ""
	}
	for i--; i >= 0; i-- {
		if name[i] == '.' && !escaped(name[:i]) {
			break
		}
	}
	return name[i+1:]
}

// escaped tells whether what follows before is behind a backslash of its own.
func escaped(before string) bool {
	return (len(before)-len(strings.TrimRight(before, `\`)))%2 == 1
}
