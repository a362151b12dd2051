package protocols

import (
	"net/netip"
	"runtime/debug"

	"tidegate/pipeline"
	"tidegate/pipeline/memory"
)

// A Conn is one connection. collector/sessions passes bytes to it, and its parser turns them into events. A
// Conn is pooled and used by one goroutine.
//
// The unread bytes of a direction are its tail, a copy in a pooled buffer of bounded size. While the tail is
// empty the parser reads from the caller's slice. Every method that may run a parser recovers from its
// panics: they are counted, and the bytes up to the next turn are ignored.
type Conn struct {
	set       *Set
	info      Info // a flip exchanges Client and Server in it
	emit      func(*pipeline.Event)
	state     connState
	proto     int // index into the set's list, or noProtocol
	lastProto int // the last one that was recognised, or noProtocol
	parser    Parser
	ticker    Ticker        // parser, if it is one
	holder    Holder        // parser, if it is one
	streams   [2]halfStream // by the directions of the caller; those of the parser are exchanged by flip
	flip      Dir           // 1 after an odd number of flips
	flips     int
	midStream bool // the beginning of the connection was not captured, or bytes of it were lost

	errorScore   int    // an error adds errorWeight, a parsed message subtracts 1
	stops        int    // how often the parser was stopped, see stop
	switching    bool   // SwitchTo was called, or the parser was stopped
	nextProtocol string // argument of SwitchTo
	resuming     bool   // switching: the next bytes may be inside a message
	muted        bool   // events are discarded, see changeProtocol
	proof        proof  // what the choice of the protocol rests on
	beginning    beginning
	held         memory.Holding[*Conn] // what is charged to the memory budget
	givingUp     bool                  // giveUp runs: the events that are emitted are incomplete

	// The fields of state detecting:
	pieces       []piece   // the buffered input of both directions, in order of arrival
	candidates   [2]uint64 // per direction, the protocols that still match, as bits by index
	searched     int       // bytes that were searched in mid-stream
	refuted      uint64    // protocols whose servers do not send what this one sent first
	answeredAs   uint64    // protocols that match the first answer of the server; 0 if it was too short to tell them apart
	left         uint64    // protocols that an answer has refuted
	unrecognised [2]int64  // datagrams that matched no protocol

	// The fields of state dropped:
	undetected bool // no protocol was recognised
	redetects  int  // turns at which detection was started again, or could have been
	lastSender Dir
}

// A connState is a state of a Conn, see the package comment.
type connState uint8

const (
	detecting connState = iota
	parsing
	dropped
)

// noProtocol is the index of no protocol.
const noProtocol = -1

// Data processes the next bytes of a stream. It keeps no reference to data.
func (c *Conn) Data(dir Dir, data []byte, at int64) {
	if len(data) == 0 {
		return
	}
	stream := &c.streams[dir]
	turn := dir != c.lastSender
	c.lastSender = dir
	if turn && c.state == detecting && !c.midStream && (len(stream.tail) > 0 || c.beginning.bytes != nil) {
		switch {
		case dir^c.flip == Client && len(c.streams[dir.Other()].tail) > 0:
			c.matchTurn(dir, at)
		case c.candidates[dir] == 0:
			// This side's bytes matched no protocol and the peer has answered since: stop buffering.
			c.stopBuffering(at)
		}
	}
	if c.state == dropped && !((turn || c.isUnanswered(dir)) && c.redetect(dir, data)) {
		c.extendBeginning(dir, data)
		stream.offset += uint64(len(data))
		return
	}

	// Invariant: from here on the state is detecting or parsing.
	defer c.recoverPanic()
	switch {
	case c.state == detecting:
		c.detectData(dir, data, at)
	case c.proof.open:
		c.checkProof(dir, data, at)
	default:
		c.parseData(dir, data, at)
	}
	if c.switching || c.state == dropped || c.streams[0].reparse || c.streams[1].reparse {
		c.applyRequests(at)
	}
	c.chargeHeld(at)
}

// isUnanswered reports whether dir is the client of a server that has the port of a protocol and has sent nothing: it
// may have been told not to answer, so no turn will come.
func (c *Conn) isUnanswered(dir Dir) bool {
	other := &c.streams[dir.Other()]
	return c.undetected && dir^c.flip == Client && other.offset == 0 && len(other.tail) == 0 && c.hasKnownPort()
}

// stopBuffering ends the detection with the bytes that have arrived.
func (c *Conn) stopBuffering(at int64) {
	defer c.recoverPanic()
	c.endDetection()
	if c.state == dropped {
		c.releaseBuffers()
		return
	}
	c.applyRequests(at)
}

// Gap skips the next size bytes of a stream, which were lost.
func (c *Conn) Gap(dir Dir, size int, at int64) {
	if size <= 0 {
		return
	}
	defer c.recoverPanic()
	switch c.state {
	case dropped:
		c.streams[dir].offset += uint64(size)
	case detecting:
		c.detectGap(dir, size)
	case parsing:
		if c.proof.open {
			c.settleProof()
		}
		c.parseGap(dir, size)
	}
	c.applyRequests(at)
	c.chargeHeld(at)
}

// TellCut is called before Restart if the bytes of dir that were not parsed yet are not passed again with those behind
// them. An event says so.
func (c *Conn) TellCut(dir Dir) {
	if c.state != dropped && len(c.streamOf(dir).tail) > 0 {
		c.emitStop(pipeline.TagOverlapConflict)
	}
}

// Restart has the protocol detected again, in mid-stream, from the next bytes on: they are in the place of others that
// were passed before, and nobody knows which of them the receiver has. The events of what was passed before are
// emitted.
func (c *Conn) Restart(at int64) {
	c.finishParser(at)
	c.releaseBuffers()
	c.releaseBeginning()
	for dir := range c.streams {
		stream := &c.streams[dir]
		stream.offset++ // so that the ids of the events behind differ from those before
		stream.skip, stream.reparse, stream.lost, stream.ended = 0, false, false, false
	}
	c.restoreRoles(0) // the bytes before may have exchanged the roles
	c.flips = 0
	c.midStream, c.info.MidStream = true, true
	c.switching, c.resuming, c.muted, c.undetected = false, false, false, false
	c.errorScore, c.redetects, c.refuted, c.answeredAs = 0, 0, 0, 0
	c.startDetection()
	c.chargeHeld(at)
}

// End marks the end of a stream: its sender has sent FIN.
func (c *Conn) End(dir Dir, at int64) {
	if c.state == dropped || c.streams[dir].ended {
		return
	}
	defer c.recoverPanic()
	c.streams[dir].ended = true
	if c.state == detecting {
		c.pieces = append(c.pieces, piece{dir: dir, end: true, at: at})
		return
	}
	if c.proof.open && len(c.proof.bytes[Server]) > 0 {
		c.endProof()
		c.applyRequests(at)
	}
	if c.state == parsing {
		c.parser.End(dir^c.flip, at)
		c.applyRequests(at)
	}
	c.chargeHeld(at)
}

// Datagram processes one UDP datagram. It keeps no reference to data.
func (c *Conn) Datagram(dir Dir, data []byte, at int64) {
	stream := &c.streams[dir]
	defer c.recoverPanic()
	stream.lastAt = at
	if c.state == detecting {
		c.detectDatagram(dir, data)
	}
	if c.state == parsing && len(data) > 0 {
		// Each datagram stands alone: no number of unreadable ones is a reason to ignore the next.
		if _, err := c.parser.Parse(dir^c.flip, data, at); err != nil {
			c.set.counters[c.proto].errors.Inc()
		}
	}
	stream.offset += uint64(len(data))
	c.applyRequests(at)
	c.chargeHeld(at)
}

// Tick advances packet time, so that a Ticker can apply its time-outs.
func (c *Conn) Tick(at int64) {
	if c.ticker == nil || c.state != parsing {
		return
	}
	defer c.recoverPanic()
	c.ticker.Tick(at)
	c.applyRequests(at)
	c.chargeHeld(at)
}

// Close ends the connection and emits what still waits. The Conn goes back to its pool and must not be used
// any more.
func (c *Conn) Close(at int64) {
	c.finishParser(at)
	c.releaseBuffers()
	c.releaseBeginning()
	c.set.holders.Charge(&c.held, c, 0)
	c.set.releaseConn(c)
}

// finishParser closes the parser. It recovers panics itself, so that Close goes on.
func (c *Conn) finishParser(at int64) {
	defer c.recoverPanic()
	if c.state == detecting {
		c.endDetection()
		c.applyRequests(at)
	}
	if c.state == dropped && c.undetected {
		c.detectBeginning()
		c.applyRequests(at)
	}
	if c.state == parsing && c.proof.open {
		c.endProof()
		c.applyRequests(at)
	}
	if c.state == parsing {
		c.parser.Close(at)
		for dir := range c.streams {
			c.countDropped("incomplete", len(c.streams[dir].tail))
		}
	}
}

// Protocol returns the name of the last protocol that was recognised, or "".
func (c *Conn) Protocol() string {
	if c.lastProto == noProtocol {
		return ""
	}
	return c.set.list[c.lastProto].Name
}

// Flipped reports whether client and server were inferred wrongly when the connection was opened.
func (c *Conn) Flipped() bool { return c.flip == 1 }

// Event returns a new event for the transaction whose first message, of dir, is being parsed. It is pooled:
// the parser passes it to Emit, or releases it.
func (c *Conn) Event(dir Dir) *pipeline.Event {
	return c.newEvent(dir, c.streamOf(dir).offset)
}

// EventAt returns a new event for a message at an offset of dir, within bytes that are part of another message.
func (c *Conn) EventAt(dir Dir, offset uint64) *pipeline.Event { return c.newEvent(dir, offset) }

// Offset returns the offset in the stream of the bytes of dir that Parse was passed.
func (c *Conn) Offset(dir Dir) uint64 { return c.streamOf(dir).offset }

// EventUDP returns a new event for the datagram that is being parsed. key makes its id different from those
// of other datagrams of the same time, as the id of DNS does.
func (c *Conn) EventUDP(dir Dir, key uint64) *pipeline.Event {
	// The factor is odd and spreads the time over all bits: no small key makes up for a small difference of
	// times.
	const factor = 0x9e3779b97f4a7c15
	return c.newEvent(dir, uint64(c.streamOf(dir).lastAt)*factor^key)
}

// newEvent returns a new event of dir. Its id is derived from the session, dir and at, the offset in the
// stream (or for UDP a hash of time and key).
func (c *Conn) newEvent(dir Dir, at uint64) *pipeline.Event {
	stream := c.streamOf(dir)
	event := pipeline.EventFromVTPool()
	id := pipeline.TransactionID(c.info.Session, uint8(dir), at)
	event.Id = append(event.Id[:0], id[:]...)
	event.CommunityId = append(event.CommunityId[:0], c.info.CommunityID[:]...)
	if c.proto != noProtocol {
		event.Dataset = c.set.list[c.proto].Dataset
	}
	event.Timestamp = stream.firstAt()
	event.Transport = c.info.Transport
	event.Vlan = uint32(c.info.VLAN)
	event.Partial = stream.partial
	if event.Source == nil {
		event.Source = pipeline.EndpointFromVTPool()
	}
	if event.Destination == nil {
		event.Destination = pipeline.EndpointFromVTPool()
	}
	setEndpoint(event.Source, c.info.Client)
	setEndpoint(event.Destination, c.info.Server)
	return event
}

// setEndpoint fills in an address and a port.
func setEndpoint(endpoint *pipeline.Endpoint, addr netip.AddrPort) {
	endpoint.Port = uint32(addr.Port())
	if ip := addr.Addr().Unmap(); ip.Is4() {
		bytes := ip.As4()
		endpoint.Ip = append(endpoint.Ip[:0], bytes[:]...)
	} else if ip.IsValid() {
		bytes := ip.As16()
		endpoint.Ip = append(endpoint.Ip[:0], bytes[:]...)
	}
}

// Emit emits event. The receiver owns it from here on.
func (c *Conn) Emit(event *pipeline.Event) {
	if c.muted {
		pipeline.ReleaseEvent(event)
		return
	}
	if c.givingUp {
		event.Partial = true
		event.AddTag(pipeline.TagMemoryLimit)
	}
	if c.proto != noProtocol {
		c.set.counters[c.proto].events.Inc()
	}
	c.emit(event)
}

// Skip discards the n bytes of dir that follow this message: they are neither kept nor passed to Parse.
// Parser.Gap is called for a gap among them, but its result is ignored, since the position behind them is
// known.
func (c *Conn) Skip(dir Dir, n uint64) { c.streamOf(dir).skip += n }

// Skipping returns how many bytes of dir are still to be skipped.
func (c *Conn) Skipping(dir Dir) uint64 { return c.streamOf(dir).skip }

// Need sets the minimum length of the message of dir for which Parse is about to return 0: Parse is not
// called again before size bytes have arrived. Without Need a long message in small packets is parsed from
// its front for each packet.
func (c *Conn) Need(dir Dir, size int) {
	// A tail never grows beyond MaxUnparsedBytes.
	c.streamOf(dir).need = min(size, int(c.set.cfg.MaxUnparsedBytes))
}

// Reparse requests a call of Parse for the unread bytes of dir although no new ones have arrived. A parser
// calls it when the bytes of dir had to wait for a message of the other direction.
func (c *Conn) Reparse(dir Dir) { c.streamOf(dir).reparse = true }

// SwitchTo passes both directions, with their unread bytes, to the protocol name when Parse returns. If name
// is "", the protocol is detected.
func (c *Conn) SwitchTo(name string) { c.switching, c.nextProtocol = true, name }

// maxFlips bounds the number of changes of the roles. Without a bound a parser could flip for ever.
const maxFlips = 2

// Flip exchanges client and server, which were inferred wrongly. From the next call on the
// directions are exchanged. The result of the current Parse still applies to the bytes that it was passed; if
// it is 0, they are passed again at once, as bytes of the other side.
func (c *Conn) Flip() {
	if c.flips >= maxFlips {
		c.Drop()
		return
	}
	c.flips++
	c.flip ^= 1
	c.info.Client, c.info.Server = c.info.Server, c.info.Client
}

// restoreRoles exchanges client and server if flip is not that of the connection.
func (c *Conn) restoreRoles(flip Dir) {
	if c.flip != flip {
		c.flip = flip
		c.info.Client, c.info.Server = c.info.Server, c.info.Client
	}
}

// Drop makes the framework ignore the rest of the connection. When Parse returns, the parser is closed, which
// emits its pending events.
func (c *Conn) Drop() { c.state = dropped }

// Info returns the description of the connection, with Client and Server as they are after any flips.
func (c *Conn) Info() *Info { return &c.info }

// Intern returns data as a string of valid UTF-8. Frequent strings do not allocate.
func (c *Conn) Intern(data []byte) string { return c.set.intern(data) }

// Count counts a protocol anomaly or an exceeded limit. reason is a constant, in lower case with underscores.
func (c *Conn) Count(reason string) {
	if c.proto != noProtocol {
		count := &c.set.counters[c.proto]
		addCount(count.anomalies, count.anomaliesVec, reason, 1)
	}
}

// streamOf returns the stream of dir, a direction as the parser names it.
func (c *Conn) streamOf(dir Dir) *halfStream { return &c.streams[dir^c.flip] }

// countDropped counts bytes that no parser read.
func (c *Conn) countDropped(reason string, size int) {
	if c.proto != noProtocol {
		count := &c.set.counters[c.proto]
		addCount(count.dropped, count.droppedVec, reason, size)
	}
}

// recoverPanic recovers from a panic of the parser, which does not return to its pool. Each method that runs a
// parser defers recoverPanic. The bytes up to the next turn are ignored; then the protocol is detected again.
func (c *Conn) recoverPanic() {
	value := recover()
	if value == nil {
		return
	}
	if c.proto != noProtocol {
		c.set.counters[c.proto].panics.Inc()
	}
	if c.set.Panicked != nil {
		c.set.Panicked(c.Protocol(), value, debug.Stack())
	}
	c.parser, c.ticker, c.holder, c.muted = nil, nil, nil, false
	c.switching, c.resuming = false, false
	c.closeProof()
	c.releaseBuffers()
	for dir := range c.streams {
		stream := &c.streams[dir]
		stream.skip, stream.reparse, stream.lost, stream.partial = 0, false, false, true
	}
	c.state, c.undetected, c.midStream = dropped, true, true
	c.emitStop(pipeline.TagParserPanic)
	if c.info.Transport == pipeline.Transport_UDP {
		c.startDetection()
	}
}

// releaseBuffers returns the buffers and the parser of the connection to the pools of the set.
func (c *Conn) releaseBuffers() {
	for dir := range c.streams {
		stream := &c.streams[dir]
		stream.offset += uint64(len(stream.tail))
		stream.releaseTail(c.set)
	}
	c.pieces = c.pieces[:0]
	c.closeProof()
	if c.parser != nil {
		c.set.releaseParser(c.proto, c.parser)
		c.parser, c.ticker, c.holder = nil, nil, nil
	}
}
