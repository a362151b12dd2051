package mysql

import (
	"tidegate/pipeline"
	"tidegate/protocols"
)

// readGreeting reads the server's first packet.
func (p *parser) readGreeting(data []byte, at int64) (int, error) {
	size := payloadLength(data)
	if data[3] != 0 || size > maxPayload {
		return 0, errHeader
	}
	payload := p.payload(protocols.Server, data, maxPayload)
	if payload == nil {
		return 0, nil
	}
	switch payload[0] {
	case errPacket: // an error instead of a greeting: too many connections, host blocked
		event := p.newEvent(protocols.Server, "COM_CONNECT", 4+size)
		p.readError(&command{event: event, kind: comConnect}, payload)
		p.conn.Emit(event)
		return p.finishPacket(protocols.Server, data), nil
	case 10:
	default:
		return 0, errHeader
	}
	fields := payloadReader{rest: payload[1:]}
	p.version = p.text(fields.nulString())
	fields.take(4 + 8 + 1) // thread, challenge, zero
	p.capabilities = uint32(fields.u16())
	fields.take(1 + 2) // character set, status
	p.capabilities |= uint32(fields.u16()) << 16
	p.phase = afterGreeting
	return p.finishPacket(protocols.Server, data), nil
}

// readLogin reads the client's first packet: the login, or the request for TLS.
func (p *parser) readLogin(data []byte, at int64) (int, error) {
	size := payloadLength(data)
	payload := p.payload(protocols.Client, data, maxPayload)
	if payload == nil {
		return 0, nil
	}

	// The capabilities decide the format of the other fields.
	fields := payloadReader{rest: payload}
	caps := uint32(fields.u16())
	old := caps&clientProtocol41 == 0
	if !old {
		caps |= uint32(fields.u16()) << 16
	}
	p.setCapabilities(caps)
	if old {
		fields.take(3)
	} else {
		fields.take(4 + 1 + 23)
	}
	if caps&clientSSL != 0 && len(fields.rest) == 0 {
		return p.switchToTLS(data, at)
	}

	// User, authentication data (never kept), database.
	p.user = p.text(fields.nulString())
	switch {
	case caps&clientAuthLenEnc != 0:
		fields.lenencString()
	case caps&clientSecure != 0:
		fields.take(uint64(fields.u8()))
	default:
		fields.nulString()
	}
	p.database = ""
	if caps&clientConnectWithDB != 0 {
		p.database = p.text(fields.nulString())
	}
	p.enqueueLogin(size, at)
	return p.finishPacket(protocols.Client, data), nil
}

// setCapabilities sets the capabilities to those of the client that the server has too.
func (p *parser) setCapabilities(client uint32) {
	if p.phase == afterGreeting {
		client &= p.capabilities | clientSSL
	}
	p.capabilities, p.capabilitiesKnown, p.phase = client, true, commandPhase
}

// enqueueLogin queues the event of the login until the server answers.
func (p *parser) enqueueLogin(length int, at int64) {
	event := p.newEvent(protocols.Client, "COM_CONNECT", 4+length)
	event.Mysql.ServerVersion = p.version
	p.enqueue(command{event: event, kind: comConnect, sent: event.Timestamp})
}

// switchToTLS passes the connection to package tls. The event of the login has the server's version only.
func (p *parser) switchToTLS(data []byte, at int64) (int, error) {
	p.enqueueLogin(payloadLength(data), at)
	length := p.finishPacket(protocols.Client, data)
	p.conn.SwitchTo("tls") // which closes the parser
	return length, nil
}

// readAuth reads the server's answer to a login or a change of user: success, an error, or a request for more
// authentication data.
func (p *parser) readAuth(cmd *command, payload []byte, at int64) {
	switch payload[0] {
	case okPacket:
		p.readOK(cmd, payload)
		p.user, p.database = cmd.event.Mysql.UserName, cmd.event.Mysql.Database
		if cmd.kind == comChangeUser {
			p.statements.reset()
		}
		login := cmd.kind == comConnect
		p.finishCommand(at)
		if login && p.capabilities&(clientCompress|clientZstd) != 0 {
			p.conn.Count("compressed")
			p.conn.Stop(pipeline.TagUnsupported)
		}
	case errPacket:
		p.readError(cmd, payload)
		p.finishCommand(at)
	}
	// The other answers, 0x01 (more data) and 0xfe (another method), are followed by a packet of the client.
	// Its sequence number is not 0, so it is read as a continuation.
}

// readChangeUser reads COM_CHANGE_USER.
func (p *parser) readChangeUser(event *pipeline.Event, payload []byte) {
	fields := payloadReader{rest: payload[1:]}
	event.Mysql.UserName = p.text(fields.nulString())
	if p.capabilities&clientSecure != 0 || !p.capabilitiesKnown {
		fields.take(uint64(fields.u8()))
	} else {
		fields.nulString()
	}
	event.Mysql.Database = p.text(fields.nulString())
}
