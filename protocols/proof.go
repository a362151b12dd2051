package protocols

import (
	"slices"

	"tidegate/pipeline"
)

// maxProof is the number of bytes of a direction that a proof keeps.
const maxProof = 8 << 10

// A proof holds what the choice of a protocol by the client's first bytes rests on, until the server has
// answered. If the answer is not of that protocol but of another one, that other parser reads both from their
// beginning. Without it, a harmless first line in the form of another protocol would decide for the whole
// connection: Redis and memcached answer "GET / HTTP/1.1" with an error and go on.
type proof struct {
	open     bool
	flip     Dir       // that of the connection when the proof was opened: the parser may exchange the roles later
	at       int64     // time of the client's first bytes
	bytes    [2][]byte // by the role that the sender had when the proof was opened, in buffers of the set
	lost     int       // bytes of the client beyond maxProof
	from     uint64    // offset of the client's first byte
	answerAt int64     // time of the server's last bytes that are held
	answered int       // length of bytes[Client] when the client went on behind an answer that refutes the protocol
}

// openProof begins a proof for the protocol that was chosen by data, the client's first bytes.
func (c *Conn) openProof(dir Dir, data []byte, at int64) {
	other := &c.streams[dir.Other()]
	if dir^c.flip != Client || c.midStream || other.offset > 0 || len(other.tail) > 0 ||
		c.info.Transport == pipeline.Transport_UDP {
		return
	}
	c.proof = proof{open: true, flip: c.flip, at: at, from: c.streams[dir].offset}
	c.keepProof(Client, data)
}

// keepProof appends data of role to the proof, up to maxProof.
func (c *Conn) keepProof(role Dir, data []byte) {
	kept := &c.proof.bytes[role]
	size := min(len(data), maxProof-len(*kept))
	if role == Client {
		c.proof.lost += len(data) - size
	}
	if size == 0 {
		return
	}
	if *kept == nil {
		*kept = c.set.takeTail()
	}
	*kept = append(*kept, data[:size]...)
}

// closeProof ends the proof and releases its buffers.
func (c *Conn) closeProof() {
	if !c.proof.open {
		return
	}
	for role := range c.proof.bytes {
		c.set.releaseTail(c.proof.bytes[role])
	}
	c.proof = proof{}
}

// maxAnswer is the number of bytes of the server after which an undecided answer no longer matters.
const maxAnswer = 512

// checkProof passes data to the parser, or, if the server's answer contradicts the choice of the protocol, to
// another one. The bytes of an answer that decides nothing yet are held in the proof.
func (c *Conn) checkProof(dir Dir, data []byte, at int64) {
	if dir^c.proof.flip == Client {
		if len(c.proof.bytes[Server]) > 0 { // the client goes on: more of the answer will not come
			c.goOnBehindProof(dir, data, at)
			return
		}
		c.keepProof(Client, data)
		c.parseData(dir, data, at)
		return
	}

	// The server's bytes so far decide.
	c.proof.answerAt = at
	answer, rest := data, []byte(nil) // rest: the bytes for which the proof has no space
	if held := len(c.proof.bytes[Server]); held > 0 {
		c.keepProof(Server, data)
		answer = c.proof.bytes[Server]
		rest = data[len(answer)-held:]
	}
	match, other := c.matchAnswer(answer), noProtocol
	if match == No {
		other, match = c.protocolOfAnswer(answer)
	}
	switch {
	case other != noProtocol:
		if len(c.proof.bytes[Server]) == 0 {
			c.keepProof(Server, data)
			rest = data[len(c.proof.bytes[Server]):]
		}
		c.changeProtocol(other, dir, at)
		c.parseRest(dir, rest, at)
	case match == More && len(answer) < maxAnswer:
		if len(c.proof.bytes[Server]) == 0 {
			c.keepProof(Server, data)
		}
	case len(c.proof.bytes[Server]) > 0:
		c.endProof()
		c.parseRest(dir, rest, at)
	default:
		c.closeProof()
		c.parseData(dir, data, at)
	}
}

// parseRest passes the bytes behind those that a proof has held to the parser. If it is about to be replaced,
// they stay unread for the next one.
func (c *Conn) parseRest(dir Dir, rest []byte, at int64) {
	switch {
	case len(rest) == 0:
	case c.switching:
		c.streams[dir].appendTail(c.set, rest, at)
	case c.state == parsing:
		c.parseData(dir, rest, at)
	}
}

// goOnBehindProof passes data to a parser: the client's bytes behind an answer that decides nothing.
func (c *Conn) goOnBehindProof(dir Dir, data []byte, at int64) {
	if c.matchAnswer(c.proof.bytes[Server]) == No {
		c.goOnBehindRefusal(dir, data, at)
		return
	}
	c.settleProof()
	c.parseRest(dir, data, at)
}

// goOnBehindRefusal handles data, the client's bytes behind an answer that is not of the chosen protocol: either another
// protocol has a message within the client's bytes, and its server may send that answer, or the events so far stand, and
// what came behind the answer is matched like the first bytes. While a message may begin there, it is kept in the proof.
func (c *Conn) goOnBehindRefusal(dir Dir, data []byte, at int64) {
	held := &c.proof
	if held.answered == 0 {
		if other := c.protocolBySync(); other != noProtocol {
			c.changeProtocol(other, dir.Other(), held.answerAt)
			c.parseRest(dir, data, at)
			return
		}
		held.answered = len(held.bytes[Client])
	}
	if held.lost == 0 && len(held.bytes[Client])+len(data) <= maxProof {
		c.keepProof(Client, data)
		if other := c.protocolBySync(); other != noProtocol {
			c.changeProtocol(other, dir.Other(), held.answerAt)
			return
		}
		if c.mayDecideLater(held.bytes[Client][held.answered:]) {
			return
		}
		data = nil // it is in the proof
	}
	behind := slices.Concat(held.bytes[Client][held.answered:], data) // leaveProtocol releases the buffers of the proof
	held.answered = 0
	c.leaveProtocol(at)
	if c.redetect(dir, behind) {
		c.detectData(dir, behind, at)
		return
	}
	c.streams[dir].offset += uint64(len(behind))
}

// mayDecideLater reports whether more of a client's bytes may decide which protocol they have, and data does not.
func (c *Conn) mayDecideLater(data []byte) bool {
	more := false
	for i := range c.set.list {
		if !c.set.list[i].TCP {
			continue
		}
		switch c.set.list[i].Detect(Client, data) {
		case Yes:
			return false
		case More:
			more = true
		}
	}
	return more
}

// endProof ends the proof at the end of the answer or of what is kept of it.
func (c *Conn) endProof() {
	if other := c.protocolBySync(); other != noProtocol {
		c.changeProtocol(other, Server^c.proof.flip, c.proof.answerAt)
		return
	}
	c.settleProof()
}

// protocolBySync returns another protocol that the answer may be of, if it is not of the chosen one and a
// message of the other starts within the client's bytes. Else it returns noProtocol.
func (c *Conn) protocolBySync() int {
	answer := c.proof.bytes[Server]
	if len(answer) == 0 || c.matchAnswer(answer) != No {
		return noProtocol
	}
	for i := range c.set.list {
		protocol := &c.set.list[i]
		if i == c.proto || !protocol.TCP || protocol.Detect(Server, answer) == No {
			continue
		}
		data := c.proof.bytes[Client]
		if skip, match := protocol.Sync(Client, data); match == Yes && skip < len(data) {
			return i
		}
	}
	return noProtocol
}

// leaveProtocol closes the parser of a protocol that the server's answer refutes. What the parser has read is emitted.
func (c *Conn) leaveProtocol(at int64) {
	c.Count("answer_of_another_protocol")
	c.left |= 1 << c.proto
	answer := c.proof.bytes[Server]
	c.refuted, c.answeredAs = 0, 0
	for i := range c.set.list {
		switch match := c.set.list[i].Detect(Server, answer); {
		case match == No:
			c.refuted |= 1 << i
		case len(answer) >= minTruncated:
			c.answeredAs |= 1 << i
		}
	}
	c.parser.Close(at)
	c.switching, c.resuming = false, false
	for side := range c.streams {
		stream := &c.streams[side]
		stream.skip, stream.reparse, stream.lost, stream.partial = 0, false, false, false
	}
	c.streams[Server^c.proof.flip].offset += uint64(len(answer))
	c.restoreRoles(c.proof.flip)
	c.releaseBuffers()
	c.state, c.undetected = dropped, true
}

// settleProof keeps the protocol, and passes the server's bytes that were held to its parser.
func (c *Conn) settleProof() {
	if withheld := len(c.proof.bytes[Client]) - c.proof.answered; c.proof.answered > 0 {
		c.streams[Client^c.proof.flip].offset += uint64(withheld)
		c.leaveProtocol(c.proof.answerAt)
		return
	}
	held, server, at := c.proof.bytes[Server], Server^c.proof.flip, c.proof.answerAt
	c.proof.bytes[Server] = nil
	c.closeProof()
	if len(held) > 0 && c.state == parsing {
		c.parseData(server, held, at)
	}
	c.set.releaseTail(held)
}

// matchAnswer matches answer with the chosen protocol, whose parser may have exchanged the roles.
func (c *Conn) matchAnswer(answer []byte) Match {
	return c.set.list[c.proto].Detect(Server^c.proof.flip^c.flip, answer)
}

// protocolOfAnswer returns another protocol whose server sends answer, or noProtocol; more reports that
// further bytes may decide. The protocol of the server's port is preferred, and needs less evidence where no other one
// is certain.
func (c *Conn) protocolOfAnswer(answer []byte) (found int, more Match) {
	found = noProtocol
	byPort := noProtocol
	for i := range c.set.list {
		if i == c.proto || !c.set.list[i].TCP {
			continue
		}
		switch match := c.set.list[i].Detect(Server, answer); {
		case match == Yes && (found == noProtocol || c.hasPort(i)):
			found = i
		case match == More && c.hasPort(i):
			byPort = i
		case match == More:
			more = More
		}
	}
	if found == noProtocol && byPort != noProtocol && (more == No || len(answer) >= minTruncated) {
		return byPort, Yes
	}
	return found, more
}

// changeProtocol replaces the parser by that of proto, which reads the bytes of the proof. The events of the
// old parser are discarded, since the new one reads the same bytes.
func (c *Conn) changeProtocol(proto int, server Dir, at int64) {
	c.Count("answer_of_another_protocol")
	c.muted = true
	c.parser.Close(at)
	c.muted = false
	c.set.releaseParser(c.proto, c.parser)
	c.parser, c.ticker, c.holder, c.switching = nil, nil, nil, false

	// Both directions go back to their first byte.
	held := c.proof
	c.proof = proof{}
	c.restoreRoles(held.flip)
	for side := range c.streams {
		stream := &c.streams[side]
		stream.releaseTail(c.set)
		stream.lost, stream.partial, stream.reparse, stream.skip = false, false, false, 0
	}
	client := server.Other()
	c.streams[client].offset, c.streams[server].offset = held.from, 0
	c.startParser(proto)
	c.parseData(client, held.bytes[Client], held.at)
	c.skipUnheld(client, held.lost) // what the other parser has read beyond the proof is in no event
	c.parseRest(server, held.bytes[Server], at)
	for role := range held.bytes {
		c.set.releaseTail(held.bytes[role])
	}
}
