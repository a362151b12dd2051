package mysql

import (
	"tidegate/pipeline"
	"tidegate/protocols"
)

// greet reads the server's first packet.
func (p *parser) greet(b []byte, at int64) (int, error) {
	n := length(b)
	if b[3] != 0 || n > window {
		return 0, errHeader
	}
	payload := p.payload(protocols.Server, b, window)
	if payload == nil {
		return 0, nil
	}
	switch payload[0] {
	case errPacket: // not even greeted: too many connections, host blocked
		e := p.event(protocols.Server, "COM_CONNECT", 4+n)
		p.fail(&command{e: e, kind: comConnect}, payload)
		p.c.Emit(e)
		return p.take(protocols.Server, b), nil
	case 10:
	default:
		return 0, errHeader
	}
	r := reader{b: payload[1:]}
	p.version = p.name(r.text())
	r.take(4 + 8 + 1) // thread, challenge, zero
	p.caps = uint32(r.u16())
	r.take(1 + 2) // character set, status
	p.caps |= uint32(r.u16()) << 16
	p.phase = greeted
	return p.take(protocols.Server, b), nil
}

// login reads the client's first packet: who it is, or that it wants TLS first.
func (p *parser) login(b []byte, at int64) (int, error) {
	n := length(b)
	payload := p.payload(protocols.Client, b, window)
	if payload == nil {
		return 0, nil
	}
	r := reader{b: payload}
	caps := uint32(r.u16())
	old := caps&clientProtocol41 == 0
	if !old {
		caps |= uint32(r.u16()) << 16
	}
	p.agree(caps)
	if old {
		r.take(3)
	} else {
		r.take(4 + 1 + 23)
	}
	if caps&clientSSL != 0 && len(r.b) == 0 {
		return p.encrypt(b, at)
	}
	p.user = p.name(r.text())
	switch { // what proves it is never kept
	case caps&clientAuthLenEnc != 0:
		r.str()
	case caps&clientSecure != 0:
		r.take(uint64(r.u8()))
	default:
		r.text()
	}
	p.database = ""
	if caps&clientConnectWithDB != 0 {
		p.database = p.name(r.text())
	}
	p.connect(n, at)
	return p.take(protocols.Client, b), nil
}

// agree notes the capabilities of both sides.
func (p *parser) agree(client uint32) {
	if p.phase == greeted {
		client &= p.caps | clientSSL
	}
	p.caps, p.known, p.phase = client, true, commands
}

// connect has the login wait for what the server says to it.
func (p *parser) connect(n int, at int64) {
	e := p.event(protocols.Client, "COM_CONNECT", 4+n)
	e.Mysql.ServerVersion = p.version
	p.push(command{e: e, kind: comConnect, sent: e.Timestamp})
}

// encrypt hands the connection to TLS. All that is known of the login is who was asked.
func (p *parser) encrypt(b []byte, at int64) (int, error) {
	p.connect(length(b), at)
	n := p.take(protocols.Client, b)
	p.emitWaiting(false)
	p.c.SwitchTo("tls")
	return n, nil
}

// auth reads what the server says to a login or a change of user: to be continued, or its end.
func (p *parser) auth(w *command, payload []byte, at int64) {
	switch payload[0] {
	case okPacket:
		p.ok(w, payload)
		p.user, p.database = w.e.Mysql.UserName, w.e.Mysql.Database
		if w.kind == comChangeUser {
			p.stmts.reset()
		}
		login := w.kind == comConnect
		p.finish(at)
		if login && p.caps&(clientCompress|clientZstd) != 0 {
			p.c.Count("compressed")
			p.c.Drop()
		}
	case errPacket:
		p.fail(w, payload)
		p.finish(at)
	}
	// 0x01 is more data of the method, 0xfe another method: the client's answer is not a command, its sequence number is not 0.
}

// changeUser reads COM_CHANGE_USER.
func (p *parser) changeUser(e *pipeline.Event, payload []byte) {
	r := reader{b: payload[1:]}
	e.Mysql.UserName = p.name(r.text())
	if p.caps&clientSecure != 0 || !p.known {
		r.take(uint64(r.u8()))
	} else {
		r.text()
	}
	e.Mysql.Database = p.name(r.text())
}
