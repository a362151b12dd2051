package tls

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/authority"
	"tidegate/protocols"
)

const (
	maxHandshake   = 64 << 10 // bytes of one handshake message that are gathered; a longer one is skipped
	maxRecordBytes = 1 << 20  // bytes of records, with their headers, after which the handshake is emitted unfinished
	maxAlert       = 24       // longest encrypted alert of TLS 1.3: 2 bytes, a type, 16 of the cipher, some padding
)

var errRecord = errors.New("tls: not a record")

// A sideReader is one direction of the handshake.
type sideReader struct {
	message   []byte // the front of an incomplete handshake message
	skip      int    // bytes of a too long handshake message that are still to be skipped
	helloSeen bool
	encrypted bool // ChangeCipherSpec was sent, or the ServerHello of TLS 1.3
	finished  bool // an encrypted record was sent that completes this side's handshake
}

// A parser parses one handshake.
type parser struct {
	protocols.NopParser // End does nothing: the other side may still send an alert
	conn                *protocols.Conn
	event               *pipeline.Event // nil before the first record, and after it was emitted
	sides               [2]sideReader
	lastAt              int64  // time of the last record
	recordBytes         int    // of all records so far; a message may come in records of one byte
	version             uint16 // the negotiated version
	offeredSession      []byte // the session id in the ClientHello
	certificateSeen     bool
	skipped             bool   // records came before the event
	text                []byte // buffer for JA3 and JA3S
}

// Reset begins a connection.
func (p *parser) Reset(conn *protocols.Conn) {
	for dir := range p.sides {
		data := p.sides[dir].message[:0]
		if cap(data) > 8<<10 {
			data = nil
		}
		p.sides[dir] = sideReader{message: data}
	}
	*p = parser{conn: conn, sides: p.sides, offeredSession: p.offeredSession[:0], text: p.text[:0]}
}

// Parse reads one record.
func (p *parser) Parse(dir protocols.Dir, data []byte, at int64) (int, error) {
	match, length := matchRecord(data)
	switch {
	case match == protocols.No:
		return 0, errRecord
	case match == protocols.More:
		p.conn.Need(dir, recordHeader)
		return 0, nil
	case len(data) < recordHeader+length:
		p.conn.Need(dir, recordHeader+length)
		return 0, nil
	}

	// A hello of the other side means that the roles were inferred wrongly.
	body := data[recordHeader : recordHeader+length]
	otherSide := data[0] == recordHandshake && (body[0] == clientHello) != (dir == protocols.Client)
	if p.event == nil && otherSide && matchHello(data, body, length) == protocols.Yes {
		p.conn.Flip()
		return 0, nil
	}
	if p.recordBytes += recordHeader + length; p.recordBytes > maxRecordBytes {
		p.conn.Count("no_handshake")
		if p.event != nil { // what follows of the handshake is not read
			p.event.Partial = true
			p.event.AddTag(pipeline.TagTruncated)
		}
		p.finishHandshake()
		return recordHeader + length, nil
	}
	if p.event == nil && data[0] != recordHandshake && data[0] != recordAlert {
		p.skipped = true // in mid-stream, after the handshake or between a HelloRetryRequest and its answer
		return recordHeader + length, nil
	}
	p.lastAt = at
	p.countBytes(dir, recordHeader+length)
	p.readRecord(dir, data[0], body)
	return recordHeader + length, nil
}

// countBytes adds the bytes of a record to the event. The first record creates the event.
func (p *parser) countBytes(dir protocols.Dir, size int) {
	if p.event == nil {
		p.event = p.conn.Event(dir)
		p.event.Tls = pipeline.TLSHandshakeFromVTPool()
		p.event.Partial = p.skipped
	}
	if dir == protocols.Client {
		p.event.Source.Bytes += uint64(size)
	} else {
		p.event.Destination.Bytes += uint64(size)
	}
}

// readRecord reads the body of a record, and finishes the handshake when both sides have.
func (p *parser) readRecord(dir protocols.Dir, typ byte, body []byte) {
	side := &p.sides[dir]
	switch typ {
	case recordHandshake:
		if !side.encrypted {
			p.readHandshake(dir, body)
			return
		}
		side.finished = true
	case recordChangeCipher:
		if !p.tls13() {
			side.encrypted = true // in TLS 1.3 it is only sent for middleboxes and has no meaning
		}
		return
	case recordData:
		switch {
		case p.tls13():
			side.finished = side.finished || dir == protocols.Server || len(body) > maxAlert
		case side.encrypted:
			side.finished = true
		}
	case recordAlert:
		p.readAlert(body)
		return
	}
	if p.sides[0].finished && p.sides[1].finished {
		p.event.Tls.Established = true
		p.event.Outcome = pipeline.Outcome_SUCCESS
		p.finishHandshake()
	}
}

func (p *parser) tls13() bool { return isTLS13(p.version) }

// readAlert reads an alert that is not encrypted. A warning does not end the handshake, except close_notify.
func (p *parser) readAlert(body []byte) {
	if len(body) != 2 {
		return // encrypted
	}
	level, name := body[0], alertName(body[1])
	if name == "" || level != 1 && level != 2 {
		return
	}
	p.event.Tls.Alert = name
	if level == 2 || body[1] == 0 {
		p.event.Outcome = pipeline.Outcome_FAILURE
		p.finishHandshake()
	}
}

// readHandshake reads the body of a handshake record: a message, several, or a part of one.
//
// The front of an incomplete message is kept in side.message. A message that is too long is skipped.
func (p *parser) readHandshake(dir protocols.Dir, data []byte) {
	side := &p.sides[dir]
	// Invariant: the part of the current message before data is in side.message, or it is too long and
	// side.skip bytes of it are still to be skipped.
	for len(data) > 0 {
		if side.skip > 0 {
			taken := min(side.skip, len(data))
			side.skip -= taken
			data = data[taken:]
			continue
		}

		// The header of the message, type and length, may be split too.
		message := data
		if len(side.message) > 0 {
			message = side.message
		}
		if len(message) < 4 {
			taken := min(4-len(side.message), len(data))
			side.message = append(side.message, data[:taken]...)
			data = data[taken:]
			continue
		}

		size := 4 + (int(message[1])<<16 | int(message[2])<<8 | int(message[3]))
		switch {
		case size > maxHandshake:
			p.conn.Count("message_too_long")
			if p.event != nil {
				p.event.Partial = true
			}
			side.skip = size - len(side.message)
			side.message = side.message[:0]
		case len(side.message) == 0 && len(data) >= size: // the whole message is in data: no copy
			p.readMessage(dir, data[0], data[4:size])
			data = data[size:]
		default:
			taken := min(size-len(side.message), len(data))
			side.message = append(side.message, data[:taken]...)
			data = data[taken:]
			if len(side.message) == size {
				p.readMessage(dir, side.message[0], side.message[4:])
				side.message = side.message[:0]
			}
		}
	}
}

// readMessage reads a handshake message. Only hellos and the server's certificate are of interest.
func (p *parser) readMessage(dir protocols.Dir, typ byte, body []byte) {
	switch {
	case typ == clientHello && dir == protocols.Client:
		p.setClientHello(body)
	case typ == serverHello && dir == protocols.Server:
		p.setServerHello(body)
	case typ == certificate && dir == protocols.Server:
		p.setCertificate(body)
	}
}

// setClientHello fills in the fields of the first ClientHello. A second one, which follows a
// HelloRetryRequest, is ignored.
func (p *parser) setClientHello(data []byte) {
	side := &p.sides[protocols.Client]
	if side.helloSeen {
		return
	}
	side.helloSeen = true
	hello, text := readClientHello(data, p.text)
	p.text = text
	body := p.event.Tls
	body.ServerName = p.serverName(hello.name)
	body.Ja3 = hex.EncodeToString(hello.hash[:])
	body.ClientVersion = versionName(hello.version)
	body.ClientAlpn = protocolNames(body.ClientAlpn[:0], hello.alpn)
	p.offeredSession = append(p.offeredSession[:0], hello.session...)
}

// serverName returns a server name in lower case, or in hex if it is not UTF-8. A last dot is dropped: clients must
// not send it (RFC 6066, section 3), and some do.
func (p *parser) serverName(data []byte) string {
	data = authority.TrimRoot(data)
	text := p.conn.Intern(data)
	if printable(data) != text {
		return printable(data)
	}
	return strings.ToLower(text)
}

// helloRetryRandom is the random of a HelloRetryRequest, RFC 8446 section 4.1.3.
var helloRetryRandom = []byte{
	0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
	0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
}

// setServerHello fills in the fields of the ServerHello.
func (p *parser) setServerHello(message []byte) {
	side := &p.sides[protocols.Server]
	hello, text := readServerHello(message, p.text)
	p.text = text
	if side.helloSeen {
		return
	}
	if bytes.Equal(hello.random, helloRetryRandom) {
		// A HelloRetryRequest of TLS 1.3: both sides send their hello again, and a ChangeCipherSpec seen
		// before has no meaning.
		p.version = hello.version
		for dir := range p.sides {
			p.sides[dir].encrypted, p.sides[dir].finished = false, false
		}
		if !p.sides[protocols.Client].helloSeen {
			p.event.Partial = true // the first ClientHello is missing
		}
		return
	}

	// The fields of the hello.
	side.helloSeen = true
	body := p.event.Tls
	p.version = hello.version
	body.Version = versionName(hello.version)
	body.Cipher = cipherName(hello.cipher)
	body.Ja3S = hex.EncodeToString(hello.hash[:])
	if names := protocolNames(nil, hello.alpn); len(names) > 0 {
		body.NextProtocol = names[0]
	}

	// Resumption: TLS 1.3 uses a pre-shared key and encrypts everything from here on.
	if p.tls13() {
		body.Resumed = hello.preShared
		for dir := range p.sides {
			p.sides[dir].encrypted = true
		}
		return
	}
	// Earlier versions: the server resumes the session if it repeats the session id that the client offered.
	// A certificate that follows shows that it does not (setCertificate).
	body.Resumed = len(hello.session) > 0 && bytes.Equal(hello.session, p.offeredSession)
}

// setCertificate fills in the fields of the server's own certificate, the first of the chain.
func (p *parser) setCertificate(data []byte) {
	body := p.event.Tls
	body.Resumed = false
	fields := cursor{rest: data}
	fields.u24()
	der := fields.take(fields.u24())
	if p.certificateSeen || len(der) == 0 {
		return
	}
	p.certificateSeen = true
	if len(der) > maxCertificate {
		p.conn.Count("certificate_too_long")
		der = der[:maxCertificate]
	}
	read, whole := readCertificate(der)
	if !whole {
		p.conn.Count("certificate_unreadable") // a part of it at least
		p.event.Partial = true
	}
	body.ServerSubject = strings.ToValidUTF8(read.subject, "\uFFFD")
	body.ServerIssuer = strings.ToValidUTF8(read.issuer, "\uFFFD")
	body.ServerNotAfter = unixNano(read.notAfter)
	for _, name := range read.dnsNames {
		body.ServerNames = append(body.ServerNames, strings.ToLower(authority.TrimRoot(printable([]byte(name)))))
	}
	for _, address := range read.addresses {
		body.ServerNames = append(body.ServerNames, address.String())
	}
}

// unixNano returns the time that is nearest to at within the range of a column of ClickHouse: certificates without an
// end have the year 9999 (RFC 5280 section 4.1.2.5). 0: at is not known.
func unixNano(at time.Time) int64 {
	first, last := time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2262, 4, 11, 23, 47, 16, 0, time.UTC)
	switch {
	case at.IsZero():
		return 0
	case at.Before(first):
		return first.UnixNano()
	case at.After(last):
		return last.UnixNano()
	}
	return at.UnixNano()
}

// finishHandshake emits the handshake and drops the connection, whose rest is encrypted.
func (p *parser) finishHandshake() {
	p.emitHandshake()
	p.conn.Drop()
}

// emitHandshake emits the event if a hello or an alert was seen, and discards it otherwise.
func (p *parser) emitHandshake() {
	event := p.event
	if p.event = nil; event == nil {
		return
	}
	if !p.sides[0].helloSeen && !p.sides[1].helloSeen && event.Tls.Alert == "" {
		pipeline.ReleaseEvent(event)
		return
	}
	// Partial if the client's hello is missing, or the server's in a handshake that succeeded.
	event.Partial = event.Partial || !p.sides[0].helloSeen || event.Tls.Established && !p.sides[1].helloSeen
	event.Duration = uint64(max(p.lastAt-event.Timestamp, 0))
	p.conn.Emit(event)
}

// Gap marks the event as partial, and drops the incomplete handshake message.
func (p *parser) Gap(dir protocols.Dir, _ int) bool {
	if p.event != nil {
		p.event.Partial = true
	}
	p.sides[dir].message, p.sides[dir].skip = p.sides[dir].message[:0], 0
	return false
}

// Close emits an unfinished handshake.
func (p *parser) Close(int64) { p.emitHandshake() }

// Held returns the size of the incomplete handshake messages.
func (p *parser) Held() int { return cap(p.sides[0].message) + cap(p.sides[1].message) }
