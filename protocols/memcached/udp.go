package memcached

import (
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"tidegate/pipeline"
	"tidegate/protocols"
)

// Datagrams is memcached's text protocol over UDP. A datagram begins with a header of eight bytes: the id of
// the request, the number of the datagram within its message, the number of datagrams of the message, and two
// bytes that are reserved.
//
// A request is one datagram with one or more commands, each of which is an event. Its reply is one message or
// several, one after the other, as a server sends the values of more than one key. The datagrams are read in
// the order of their numbers. One that comes before its turn is held, within bounds. If one is lost, the
// reply is not read any further, and its event is partial; the bytes of all its datagrams count all the same,
// so that a reply that is far larger than its request is seen. A reply without a request, as it comes to a
// host whose address was forged, is a partial event without a command.
var Datagrams = protocols.Protocol{
	Name:    Protocol.Name,
	Dataset: Protocol.Dataset,
	UDP:     true,
	Ports:   Protocol.Ports,
	Detect:  detectDatagram,
	New:     func() protocols.Parser { return &datagramParser{} },
}

// Bounds of what the datagrams between two sides may hold.
const (
	datagramHeader = 8
	replyTimeout   = 10 * time.Second // in packet time, from the request on
	maxRequests    = 512              // commands without a whole reply
	maxHeld        = 64               // datagrams that came before their turn
	maxHeldBytes   = 64 << 10         // of all of them
	maxReplyLine   = 2 << 10          // a line of a reply across datagrams; the key of a value has up to 250 bytes
)

var errDatagram = errors.New("memcached: not a datagram")

// A datagramParser parses the datagrams between two sides.
type datagramParser struct {
	protocols.NopParser
	text       parser // fills in the events
	rolesKnown bool
	waiting    []request // in order of time
	lineBytes  int       // of the lines in waiting
	held       []datagram
	heldBytes  int
}

// A request is a command that waits for its reply, or a reply without a request.
type request struct {
	pending
	id       uint16
	isBinary bool
	beginAt  int64
	endAt    int64 // time of the last datagram
	lost     bool  // the reply is not read any further
	done     bool  // the reply is whole; others with the id are not

	// The reply so far. next is the number of the next datagram of its message, total that of all of them.
	next, total uint16
	messages    int
	skip        uint64 // bytes of a value that are still to come
	line        []byte // front of a line
	values      reply
}

// A datagram is the payload of a datagram of the server, with its header.
type datagram struct {
	id, number, total uint16
	payload           []byte
}

// readDatagram returns the parts of data. ok is false if it has no payload.
func readDatagram(data []byte) (d datagram, ok bool) {
	if len(data) <= datagramHeader {
		return d, false
	}
	field := func(at int) uint16 { return binary.BigEndian.Uint16(data[at:]) }
	return datagram{field(0), field(2), field(4), data[datagramHeader:]}, true
}

// detectDatagram matches a datagram of either side: the roles are inferred.
func detectDatagram(_ protocols.Dir, data []byte) protocols.Match {
	d, ok := readDatagram(data)
	if !ok {
		return protocols.No
	}
	return max(d.matchRequest(), d.matchReply(data))
}

// matchRequest matches a request. The server reads no request of more than one datagram, and looks at no
// other field.
func (d *datagram) matchRequest() protocols.Match {
	if d.total != 1 {
		return protocols.No
	}
	if d.payload[0] == binaryMagic[protocols.Client] {
		return detectBinary(d.payload)
	}
	line, length := protocols.CutLine(d.payload, maxLine)
	if length == 0 {
		return detectStart(protocols.Client, d.payload)
	}
	_, ok := parseCommand(line)
	return match(printable(line), ok)
}

// matchReply matches a datagram of a reply, which is data. Behind the first one of a message come any bytes.
func (d *datagram) matchReply(data []byte) protocols.Match {
	switch {
	case d.number >= d.total || data[6] != 0 || data[7] != 0:
		return protocols.No
	case d.number > 0:
		return protocols.More
	case d.payload[0] == binaryMagic[protocols.Server]:
		return detectBinary(d.payload)
	}
	line, length := protocols.CutLine(d.payload, maxLine)
	if length == 0 {
		return match(isReplyStart(d.payload), false)
	}
	reply, ok := parseReplyLine(line)
	return match(ok, reply.distinct)
}

// Reset begins a connection.
func (p *datagramParser) Reset(conn *protocols.Conn) {
	clear(p.waiting)
	clear(p.held)
	*p = datagramParser{waiting: p.waiting[:0], held: p.held[:0]}
	p.text.Reset(conn)
}

// Parse reads a datagram.
func (p *datagramParser) Parse(dir protocols.Dir, data []byte, at int64) (int, error) {
	p.Tick(at)
	d, ok := readDatagram(data)
	if !ok {
		return 0, errDatagram // the answer to quit has no payload
	}
	if !p.rolesKnown {
		p.rolesKnown = true
		reply := d.matchReply(data)
		if isReply := reply != protocols.No && reply >= d.matchRequest(); isReply != (dir == protocols.Server) {
			p.text.conn.Flip()
			dir = dir.Other()
		}
	}
	if dir == protocols.Server {
		p.readReply(d, at)
		return len(data), nil
	}
	if d.total != 1 {
		p.text.conn.Count("request_of_many_datagrams") // the server drops it
		return len(data), nil
	}
	return len(data), p.readRequest(d, at)
}

// readRequest reads the commands of a datagram. Data that is not in it may be in the next one, which is read
// alone.
func (p *datagramParser) readRequest(d datagram, at int64) error {
	size := datagramHeader
	for number, rest := uint64(0), d.payload; len(rest) > 0; number++ {
		line, length := protocols.CutLine(rest, maxLine)
		isBinary := rest[0] == binaryMagic[protocols.Client] && detectBinary(rest) == protocols.Yes
		isCut := length == 0 || isBinary
		if isCut {
			line, length = rest, len(rest)
		}
		cmd, ok := parseCommand(line)
		switch {
		case !ok && !isBinary && !printable(line):
			return errCommand
		case isBinary:
			cmd = command{}
			p.text.conn.Count("binary_protocol")
		case !ok: // the server answers with an error
			cmd = malformedCommand(line)
		}
		event := p.text.conn.EventUDP(protocols.Client, uint64(d.id)|number<<16)
		w := request{pending: p.text.newPending(&cmd, event, length), id: d.id, isBinary: isBinary, beginAt: at, endAt: at}
		if isBinary {
			event.AddTag(pipeline.TagUnsupported)
		}
		if cmd.flags&hasData != 0 {
			block := int(min(cmd.valueBytes+2, uint64(len(rest)-length)))
			isCut = isCut || uint64(block) < cmd.valueBytes+2
			length += block
		}
		rest = rest[length:]
		event.Source.Bytes = uint64(size + length)
		event.Partial = event.Partial || isCut
		size = 0
		if cmd.flags&(noReply|quiet) != 0 {
			p.text.emit(event, at)
			continue
		}
		p.expect(w)
	}
	return nil
}

// expect appends a request to those that wait.
func (p *datagramParser) expect(w request) {
	if len(p.waiting) >= maxRequests {
		p.text.conn.Count("too_many_waiting")
		p.emitUnfinished(p.waiting[0].id)
	}
	p.text.keysBytes += w.keysBytes
	p.waiting = append(p.waiting, w)
}

// findRequest returns the index of the oldest request with an id whose reply is not whole, or −1.
func (p *datagramParser) findRequest(id uint16) int {
	return slices.IndexFunc(p.waiting, func(w request) bool { return w.id == id && !w.done })
}

// readReply reads a datagram of the server, and those that were held for their turn behind it.
func (p *datagramParser) readReply(d datagram, at int64) {
	i := p.findRequest(d.id)
	if i < 0 {
		event := p.text.conn.EventUDP(protocols.Server, uint64(d.id)|uint64(d.number)<<16)
		event.Partial = true
		event.Memcached = pipeline.MemcachedCommandFromVTPool()
		isBinary := d.number == 0 && d.payload[0] == binaryMagic[protocols.Server]
		if isBinary {
			event.AddTag(pipeline.TagUnsupported)
		}
		p.expect(request{pending: pending{event: event, flags: retrieves}, id: d.id, isBinary: isBinary, beginAt: at, lost: d.number > 0})
		i = len(p.waiting) - 1
	}
	for found := true; found && i >= 0; {
		w := &p.waiting[i]
		if !w.lost && !w.isNext(d) && p.holdDatagram(d) {
			return
		}
		w.endAt = at
		w.event.Destination.Bytes += uint64(datagramHeader + len(d.payload))
		switch {
		case w.lost:
		case w.isNext(d):
			if w.next, w.total = d.number+1, d.total; w.next >= w.total {
				w.next = 0
				w.messages++
			}
			p.readPayload(i, d.payload)
		default: // there is no space to hold it
			w.lost, w.event.Partial = true, true
		}
		if i = p.findRequest(d.id); i >= 0 {
			d, found = p.takeHeld(&p.waiting[i])
		}
	}
}

// isNext reports whether d is the next datagram of the reply.
func (w *request) isNext(d datagram) bool {
	return d.number == w.next && (w.next == 0 || d.total == w.total)
}

// holdDatagram keeps a copy of d until its turn, and reports whether there is space for it.
func (p *datagramParser) holdDatagram(d datagram) bool {
	if len(p.held) >= maxHeld || p.heldBytes+len(d.payload) > maxHeldBytes {
		p.text.conn.Count("datagrams_lost")
		return false
	}
	d.payload = slices.Clone(d.payload)
	p.held = append(p.held, d)
	p.heldBytes += len(d.payload)
	return true
}

// takeHeld removes a datagram from those that are held if it is its turn in the reply to w.
func (p *datagramParser) takeHeld(w *request) (d datagram, found bool) {
	i := slices.IndexFunc(p.held, func(d datagram) bool { return d.id == w.id && (w.lost || w.isNext(d)) })
	if i < 0 {
		return d, false
	}
	d = p.held[i]
	p.held = slices.Delete(p.held, i, i+1)
	p.heldBytes -= len(d.payload)
	return d, true
}

// readPayload reads the next bytes of the reply to the request at i.
func (p *datagramParser) readPayload(i int, payload []byte) {
	w := &p.waiting[i]
	if w.isBinary {
		if w.next == 0 {
			p.finish(i)
		}
		return
	}
	p.lineBytes -= len(w.line)
	rest := payload
	if len(w.line) > 0 {
		rest = append(w.line, payload...)
	}
	w.line = nil
	for len(rest) > 0 && !w.lost {
		if skipped := min(w.skip, uint64(len(rest))); skipped > 0 {
			w.skip -= skipped
			rest = rest[skipped:]
			continue
		}
		line, length := protocols.CutLine(rest, maxReplyLine)
		if length == 0 && len(rest) < maxReplyLine {
			w.line = slices.Clone(rest)
			p.lineBytes += len(rest)
			return
		}
		reply, ok := parseReplyLine(line)
		rest = rest[length:]
		switch {
		case !ok:
			w.lost, w.event.Partial = true, true
		case reply.last && (w.flags&endsQuiet == 0 || string(reply.status) == "MN"): // replies of a quiet batch come before MN
			w.values.size = w.event.Destination.Bytes
			p.text.setReply(w.pending, reply, w.values)
			// A message with a value, or the datagrams between two that are held, may be lost.
			isHeld := slices.ContainsFunc(p.held, func(d datagram) bool { return d.id == w.id })
			w.event.Partial = w.event.Partial || isHeld || w.messages > 1 && w.event.Memcached.Misses > 0
			p.finish(i)
			return
		case reply.hasData:
			w.values.items++
			w.values.data += reply.valueBytes
			w.skip = reply.valueBytes + 2
		}
	}
}

// finish marks the request at i as answered. The commands of one datagram are emitted once all of them are
// answered: if the reply to one is lost, those behind it are paired with others.
func (p *datagramParser) finish(i int) {
	w := &p.waiting[i]
	w.done = true
	if p.findRequest(w.id) < 0 {
		p.emitAll(w.id)
	}
}

// emitUnfinished emits the requests with an id, not all of which are answered.
func (p *datagramParser) emitUnfinished(id uint16) {
	for i := range p.waiting {
		w := &p.waiting[i]
		if w.id != id {
			continue
		}
		for w.lost = true; !w.done; { // what is held counts
			d, found := p.takeHeld(w)
			if !found {
				break
			}
			w.event.Destination.Bytes += uint64(datagramHeader + len(d.payload))
		}
		w.event.Partial = w.event.Partial || w.event.Destination.Bytes > 0
	}
	p.emitAll(id)
}

// emitAll emits the events of the requests with an id, and drops what is held for it.
func (p *datagramParser) emitAll(id uint16) {
	p.waiting = slices.DeleteFunc(p.waiting, func(w request) bool {
		if w.id == id {
			p.text.keysBytes -= w.keysBytes
			p.lineBytes -= len(w.line)
			p.text.emit(w.event, w.endAt)
		}
		return w.id == id
	})
	p.held = slices.DeleteFunc(p.held, func(d datagram) bool {
		if d.id == id {
			p.heldBytes -= len(d.payload)
		}
		return d.id == id
	})
}

// Tick emits the requests that have waited too long.
func (p *datagramParser) Tick(at int64) {
	for len(p.waiting) > 0 && at-p.waiting[0].beginAt >= int64(replyTimeout) {
		p.emitUnfinished(p.waiting[0].id)
	}
}

// Close emits the requests that wait.
func (p *datagramParser) Close(int64) {
	for len(p.waiting) > 0 {
		p.emitUnfinished(p.waiting[0].id)
	}
}

// Held returns the size of what waits.
func (p *datagramParser) Held() int {
	return len(p.waiting)*protocols.EventBytes + p.text.keysBytes + p.lineBytes + p.heldBytes
}
