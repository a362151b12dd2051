package dns

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"time"

	"tidegate/pipeline"
	"tidegate/protocols"
)

// Timeout is the time for which a query waits for its answer, in packet time. Stub resolvers time out after 5
// s, most other clients before 10 s.
const Timeout = 10 * time.Second

// maxWaiting is the number of queries of one connection that wait for an answer; a forwarder with one socket
// has hundreds in flight. When it is reached, the oldest query is emitted without its answer.
const maxWaiting = 512

// A query is a query that waits for its answer, or a zone transfer that has begun to arrive.
type query struct {
	event        *pipeline.Event // nil: answered or emitted
	lastAt       int64           // time of the query, or of the last message of a transfer
	sentAt       int64
	questionHash uint64
	id           uint16
	qtype        uint16
	dir          protocols.Dir
	transfer     bool // a zone transfer whose first message was seen; more may come
	soaRecords   int
}

// A parser pairs the messages of one connection.
type parser struct {
	protocols.NopParser // End does nothing: a half-closed side may still receive answers
	conn                *protocols.Conn
	udp                 bool
	rolesKnown          bool
	framed              bool // TCP: a message was read, and no bytes were lost since
	message             message
	waiting             []query // in order of time; the event of an answered or emitted query is nil
	head                int     // index in waiting of the first query with an event
	waitingCount        int     // queries in waiting with an event
}

// Reset begins a connection.
func (p *parser) Reset(conn *protocols.Conn) {
	clear(p.waiting)
	udp := conn.Info().Transport == pipeline.Transport_UDP
	*p = parser{conn: conn, udp: udp, message: p.message, waiting: p.waiting[:0]}
	if cap(p.waiting) > 64 {
		p.waiting = nil
	}
	if cap(p.message.text) > maxText {
		p.message.text = nil
	}
}

// Parse reads one message.
func (p *parser) Parse(dir protocols.Dir, data []byte, at int64) (int, error) {
	// Over TCP two bytes of length precede the message.
	size, front := len(data), 0
	if !p.udp {
		if len(data) < 2 {
			return 0, nil
		}
		size = 2 + int(binary.BigEndian.Uint16(data))
		if !p.rolesKnown && !p.conn.Info().MidStream && p.onPort() {
			p.framed = true // the connection begins here
		}
		// Servers skip a short message. An empty one, at which they end the connection, is more likely
		// another protocol.
		if size < 2+headerSize && (!p.framed || size == 2 && !p.rolesKnown) {
			return 0, errShort
		}
		if len(data) < size {
			p.conn.Need(dir, size)
			return 0, nil
		}
		front = 2
	}
	if err := p.message.parse(data[front:size]); err != nil {
		switch {
		case (p.udp || p.framed) && p.onPort() && size-front >= headerSize:
			p.conn.Count("unreadable_question") // an event with what can be read
		case !p.udp && p.framed:
			p.conn.Count("unreadable_message")
			return size, nil // the length leads to the next message, as it does for the server
		default:
			return 0, err
		}
	}

	p.Tick(at) // first, so that a query that has timed out is not paired with this message
	response := p.message.flags&flagQR != 0
	isUnasked := response && !p.rolesKnown && dir == protocols.Client
	if isUnasked && slices.Contains(multicastPorts, p.conn.Info().Client.Port()) {
		p.conn.Count("answer_of_mdns") // to a query by multicast
		return size, nil
	}
	if p.isNetBIOS() {
		p.conn.Count("netbios_name")
		return size, nil
	}
	if !p.rolesKnown && response == (dir == protocols.Client) {
		p.conn.Flip() // the first message is an answer from the side that was taken for the client
		dir = dir.Other()
	}
	p.rolesKnown, p.framed = true, true
	if response {
		p.pairAnswer(dir, size, at)
	} else {
		p.addQuery(dir, size, at)
	}
	p.message.data = nil
	return size, nil
}

// Of NetBIOS names (RFC 1002 section 4.2): the port of their servers, the types NB and NBSTAT, and the length
// of an encoded name.
const (
	netBIOSPort   = 137
	netBIOSName   = 32
	netBIOSStatus = 33
	netBIOSLength = 32
)

// isNetBIOS reports whether the message is about a NetBIOS name: one label, in which each half of a byte is a
// letter from A to P. An answer has no question (RFC 1002 section 4.2.13).
func (p *parser) isNetBIOS() bool {
	if !p.udp || p.conn.Info().Server.Port() != netBIOSPort {
		return false
	}
	name, kind := p.message.question, p.message.qtype
	if !p.message.hasQuestion && len(p.message.answers) > 0 {
		name, kind = p.message.answers[0].name, p.message.answers[0].typ
	}
	text := p.message.text[name.from:name.to]
	return (kind == netBIOSName || kind == netBIOSStatus) && len(text) == netBIOSLength &&
		!bytes.ContainsFunc(text, func(r rune) bool { return r|0x20 < 'a' || r|0x20 > 'p' })
}

// onPort reports whether one of the sides has the port of DNS.
func (p *parser) onPort() bool {
	info := p.conn.Info()
	return slices.Contains(Protocol.Ports, info.Server.Port()) || slices.Contains(Protocol.Ports, info.Client.Port())
}

// addQuery appends the query that was parsed to those that wait.
func (p *parser) addQuery(dir protocols.Dir, size int, at int64) {
	if p.waitingCount >= maxWaiting {
		p.conn.Count("waiting_queries_full")
		p.emitOldest()
	}

	event := p.newEvent(dir)
	event.Source.Bytes = uint64(size)
	event.Partial = event.Partial || p.message.truncated
	body := pipeline.DNSMessageFromVTPool()
	event.Dns = body
	body.Type = "query"
	p.setQuestion(body)
	body.HeaderFlags = headerFlags(body.HeaderFlags[:0], p.message.flags)

	// Reuse the free front of waiting instead of growing it.
	if len(p.waiting) == cap(p.waiting) && p.head > 0 {
		p.waiting = p.waiting[:copy(p.waiting, p.waiting[p.head:])]
		p.head = 0
	}
	p.waiting = append(p.waiting, query{
		event: event, lastAt: at, sentAt: event.Timestamp, dir: dir,
		questionHash: p.message.questionHash, id: p.message.id, qtype: p.message.qtype,
	})
	p.waitingCount++
}

// pairAnswer pairs the answer that was parsed with the oldest query that it matches, or emits it as an event
// of its own.
func (p *parser) pairAnswer(dir protocols.Dir, size int, at int64) {
	waiting := p.findQuery(dir.Other())
	if waiting == nil {
		event := p.newEvent(dir)
		event.Partial = true
		event.Destination.Bytes = uint64(size)
		event.Dns = pipeline.DNSMessageFromVTPool()
		p.setQuestion(event.Dns)
		p.setAnswer(event, event.Dns.QuestionName)
		p.conn.Emit(event)
		return
	}

	// Complete the event of the query. It stays in waiting while a zone transfer continues.
	event := waiting.event
	event.Destination.Bytes += uint64(size)
	event.Duration = uint64(max(at-waiting.sentAt, 0))
	if waiting.transfer { // a later message of the transfer: only the number of its records is added
		event.Dns.AnswersCount += uint32(p.message.an)
	} else {
		p.setAnswer(event, event.Dns.QuestionName)
	}
	if p.transferContinues(waiting, at) {
		return
	}
	p.conn.Emit(event)
	p.removeQuery(waiting)
}

// transferContinues reports whether waiting is a zone transfer whose end, a second SOA record, has not
// arrived. An incremental transfer may have several SOA records, or one alone in its first message, and no
// recognisable end: its event is emitted by the time-out or at the end of the connection.
func (p *parser) transferContinues(waiting *query, at int64) bool {
	transfer := waiting.qtype == typeAXFR || waiting.qtype == typeIXFR
	if p.udp || !transfer || p.message.rcode != 0 || p.message.an == 0 {
		return false
	}
	waiting.soaRecords += p.message.soaRecords
	waiting.transfer, waiting.lastAt = true, at
	return waiting.qtype == typeIXFR || waiting.soaRecords < 2 || !p.message.lastSOA
}

// findQuery returns the oldest query of dir with the id and the question of the message, or nil. A message
// without a question matches by id alone (FORMERR, the later messages of a zone transfer).
func (p *parser) findQuery(dir protocols.Dir) *query {
	for i := p.head; i < len(p.waiting); i++ {
		waiting := &p.waiting[i]
		sameQuestion := waiting.questionHash == p.message.questionHash || !p.message.hasQuestion
		if waiting.id == p.message.id && waiting.event != nil && waiting.dir == dir && sameQuestion {
			return waiting
		}
	}
	return nil
}

// removeQuery removes a query whose event was emitted. Its place in waiting is freed when all queries before
// it are removed.
func (p *parser) removeQuery(waiting *query) {
	waiting.event = nil
	p.waitingCount--
	for p.head < len(p.waiting) && p.waiting[p.head].event == nil {
		p.head++
	}
	if p.head == len(p.waiting) {
		p.waiting, p.head = p.waiting[:0], 0
	}
}

// emitOldest emits the query that has waited longest, without an answer.
func (p *parser) emitOldest() {
	if waiting := &p.waiting[p.head]; waiting.event != nil {
		p.conn.Emit(waiting.event)
		p.removeQuery(waiting)
	}
}

// Tick emits the queries that have timed out. It stops at the first that has not, since later ones are
// younger. A zone transfer in progress may delay the queries after it.
func (p *parser) Tick(at int64) {
	for p.waitingCount > 0 && at-p.waiting[p.head].lastAt >= int64(Timeout) {
		p.emitOldest()
	}
}

// Gap marks every waiting query as partial, since its answer may be among the lost bytes.
func (p *parser) Gap(protocols.Dir, int) bool {
	p.framed = false
	for i := p.head; i < len(p.waiting); i++ {
		if event := p.waiting[i].event; event != nil {
			event.Partial = true
		}
	}
	return false
}

// Close emits the waiting queries.
func (p *parser) Close(int64) {
	for p.waitingCount > 0 {
		p.emitOldest()
	}
}

// newEvent returns a new event for the message that was parsed. Its source is the side that sends queries.
// Servers query each other from port 53 to port 53, so both sides of a connection may send queries.
func (p *parser) newEvent(dir protocols.Dir) *pipeline.Event {
	var event *pipeline.Event
	if p.udp {
		event = p.conn.EventUDP(dir, uint64(p.message.id)|uint64(p.message.qtype)<<16|p.message.questionHash<<32)
	} else {
		event = p.conn.Event(dir)
	}
	if answers := p.message.flags&flagQR != 0; answers == (dir == protocols.Client) {
		event.Source, event.Destination = event.Destination, event.Source
	}
	return event
}

// setQuestion fills in the fields of the question.
func (p *parser) setQuestion(body *pipeline.DNSMessage) {
	message := &p.message
	body.Id = uint32(message.id)
	body.OpCode = opCodes[message.flags>>11&15]
	if !message.hasQuestion {
		return
	}
	body.QuestionName = p.conn.Intern(message.text[message.question.from:message.question.to])
	body.QuestionType = typeName(message.qtype)
	body.QuestionClass = classText(message.qclass)
	body.RegisteredDomain = pipeline.RegisteredDomain(body.QuestionName)
}

// setAnswer fills in the fields of the answer. question is the name in the question, as text.
func (p *parser) setAnswer(event *pipeline.Event, question string) {
	message, body := &p.message, event.Dns
	body.Type = "answer"
	body.ResponseCode = responseCode(message.rcode)
	event.Outcome = pipeline.Outcome_FAILURE
	if message.rcode == 0 {
		event.Outcome = pipeline.Outcome_SUCCESS
	}
	event.Partial = event.Partial || message.truncated
	if message.cut {
		event.AddTag(pipeline.TagTruncated)
	}
	body.HeaderFlags = headerFlags(body.HeaderFlags[:0], message.flags)
	body.AnswersCount = uint32(message.an)
	if len(message.answers) == 0 {
		return
	}

	// One string holds the texts of all records; the fields are slices of it.
	text := string(message.text[message.question.to:])
	textOf := func(s span) string {
		if s == message.question && message.hasQuestion {
			return question
		}
		return text[s.from-message.question.to : s.to-message.question.to]
	}
	for i := range message.answers {
		answer := &message.answers[i]
		data := textOf(answer.data)
		body.AnswersName = append(body.AnswersName, textOf(answer.name))
		body.AnswersType = append(body.AnswersType, typeName(answer.typ))
		body.AnswersData = append(body.AnswersData, data)
		body.AnswersTtl = append(body.AnswersTtl, answer.ttl)
		if (answer.typ == typeA || answer.typ == typeAAAA) && !strings.HasPrefix(data, `\#`) {
			body.ResolvedIp = append(body.ResolvedIp, data)
		}
	}
}

// Held returns the size of the queries that wait for their answer.
func (p *parser) Held() int { return p.waitingCount * protocols.EventBytes }
