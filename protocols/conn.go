package protocols

import (
	"net/netip"
	"runtime/debug"

	"tidegate/pipeline"
)

// A Conn is one connection, between collector/sessions, which gives it bytes, and a parser, which turns them into events. It is
// pooled and used by one goroutine.
//
// What is not yet read of a direction is its tail, a copy in a pooled buffer with a cap; while there is none, the parser reads from
// the caller's slice. Every method that may run a parser recovers its panic: it is counted and the rest of the connection ignored.
type Conn struct {
	set          *Set
	info         Info
	emit         func(*pipeline.Event)
	state        state
	proto        int // index into the set's list, or none
	lastProto    int // the last one that was recognised, or none
	parser       Parser
	ticker       Ticker
	streams      [2]stream // by the Dir of the caller; those of the parser are exchanged by flip
	flip         Dir
	flips        int
	midStream    bool
	errorScore   int  // errors count up, messages down
	switching    bool // SwitchTo was called
	nextProtocol string

	pieces       []piece   // before the protocol is known: what came, in order
	candidates   [2]uint64 // the protocols that each direction may still be, by bit
	searched     int       // bytes that were looked at in mid-stream
	unrecognised [2]int64  // datagrams that were not recognised

	undetected bool // dropped since no protocol was recognised
	redetects  int  // how often it was looked for again
	lastSender Dir  // who sent last
}

// A Ticker is a parser that wants to know that packet time goes on: what waits for its answer too long is emitted then.
type Ticker interface {
	Tick(at int64)
}

// A TruncatedParser is a parser that can read the front of a message whose rest was lost. It is told before Parser.Gap, which follows as if it
// had not been; b is valid until Cut returns.
type TruncatedParser interface {
	ParseTruncated(dir Dir, b []byte, at int64)
}

type state uint8

const (
	detecting state = iota
	parsing
	dropped
)

// none is the index of no protocol.
const none = -1

// Data takes the next in-order bytes of a stream. b is only valid during the call.
func (c *Conn) Data(dir Dir, b []byte, at int64) {
	if len(b) == 0 {
		return
	}
	s := &c.streams[dir]
	turn := dir != c.lastSender
	c.lastSender = dir
	if turn && c.state == detecting && c.candidates[dir] == 0 && len(s.tail) > 0 && !c.midStream {
		// What it said before is nothing that we know, and the other side has answered in nothing that we know.
		c.endDetection()
		c.releaseBuffers()
	}
	if c.state == dropped && !(turn && c.redetect()) {
		s.offset += uint64(len(b))
		return
	}
	defer c.recoverPanic()
	if c.state == detecting {
		c.detectData(dir, b, at)
	} else {
		c.parseData(dir, b, at)
	}
	if c.switching || c.state == dropped || c.streams[0].reparse || c.streams[1].reparse {
		c.applyRequests(at)
	}
}

// Gap tells that the next n bytes of a stream were never seen.
func (c *Conn) Gap(dir Dir, n int, at int64) {
	if n <= 0 {
		return
	}
	defer c.recoverPanic()
	switch c.state {
	case dropped:
		c.streams[dir].offset += uint64(n)
	case detecting:
		c.detectGap(dir, n)
	case parsing:
		c.parseGap(dir, n)
	}
	c.applyRequests(at)
}

// End tells that a side has sent its last byte (FIN).
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
	c.parser.End(dir^c.flip, at)
	c.applyRequests(at)
}

// Datagram takes one datagram (UDP).
func (c *Conn) Datagram(dir Dir, b []byte, at int64) {
	s := &c.streams[dir]
	defer c.recoverPanic()
	s.lastAt = at
	if c.state == detecting {
		c.detectDatagram(dir, b)
	}
	if c.state == parsing && len(b) > 0 {
		if _, err := c.parser.Parse(dir^c.flip, b, at); err != nil {
			c.countError()
		} else if c.errorScore > 0 {
			c.errorScore--
		}
	}
	s.offset += uint64(len(b))
	c.applyRequests(at)
}

// Tick tells that packet time goes on.
func (c *Conn) Tick(at int64) {
	if c.ticker == nil || c.state != parsing {
		return
	}
	defer c.recoverPanic()
	c.ticker.Tick(at)
	c.applyRequests(at)
}

// Close ends the connection; what still waits is emitted. The Conn goes back to its pool and must not be used any more.
func (c *Conn) Close(at int64) {
	c.finishParser(at)
	c.releaseBuffers()
	c.set.releaseConn(c)
}

// finishParser lets the parser say its last, behind a recover of its own so that Close goes on after a panic.
func (c *Conn) finishParser(at int64) {
	defer c.recoverPanic()
	if c.state == detecting {
		c.endDetection()
		c.applyRequests(at)
	}
	if c.state == parsing {
		c.parser.Close(at)
		for d := range c.streams {
			c.countDropped("incomplete", len(c.streams[d].tail))
		}
	}
}

// Protocol is the name of the protocol that was recognised so far, "" none.
func (c *Conn) Protocol() string {
	if c.lastProto == none {
		return ""
	}
	return c.set.list[c.lastProto].Name
}

// Flipped tells that client and server were guessed the wrong way round when the connection was opened.
func (c *Conn) Flipped() bool { return c.flip == 1 }

// Event makes the event of the transaction whose first message, of dir, is being parsed. It is pooled; Emit gives it on.
func (c *Conn) Event(dir Dir) *pipeline.Event {
	return c.newEvent(dir, c.streamOf(dir).offset)
}

// EventUDP makes the event of the datagram that is being parsed. key tells it from others of the same time: the DNS id.
func (c *Conn) EventUDP(dir Dir, key uint64) *pipeline.Event {
	const odd = 0x9e3779b97f4a7c15 // spreads the time over all bits, so that a small key never makes up for a small difference
	return c.newEvent(dir, uint64(c.streamOf(dir).lastAt)*odd^key)
}

func (c *Conn) newEvent(dir Dir, at uint64) *pipeline.Event {
	s := c.streamOf(dir)
	e := pipeline.EventFromVTPool()
	id := pipeline.TransactionID(c.info.Session, uint8(dir), at)
	e.Id = append(e.Id[:0], id[:]...)
	e.CommunityId = append(e.CommunityId[:0], c.info.CommunityID[:]...)
	if c.proto != none {
		e.Dataset = c.set.list[c.proto].Dataset
	}
	e.Timestamp = s.firstAt()
	e.Transport = c.info.Transport
	e.Vlan = uint32(c.info.VLAN)
	e.Partial = s.partial
	if e.Source == nil {
		e.Source = pipeline.EndpointFromVTPool()
	}
	if e.Destination == nil {
		e.Destination = pipeline.EndpointFromVTPool()
	}
	setEndpoint(e.Source, c.info.Client)
	setEndpoint(e.Destination, c.info.Server)
	return e
}

func setEndpoint(p *pipeline.Endpoint, a netip.AddrPort) {
	p.Port = uint32(a.Port())
	if ip := a.Addr().Unmap(); ip.Is4() {
		b := ip.As4()
		p.Ip = append(p.Ip[:0], b[:]...)
	} else if ip.IsValid() {
		b := ip.As16()
		p.Ip = append(p.Ip[:0], b[:]...)
	}
}

// Emit hands e on.
func (c *Conn) Emit(e *pipeline.Event) {
	if c.proto != none {
		c.set.counters[c.proto].events.Inc()
	}
	c.emit(e)
}

// Skip tells that the next n bytes of dir behind this message are not needed: they are not kept nor passed to Parse. Of a gap
// among them Parser.Gap is told, but what it answers does not matter: the place behind them is known.
func (c *Conn) Skip(dir Dir, n uint64) { c.streamOf(dir).skip += n }

// Skipping is how many bytes of dir are still to be skipped.
func (c *Conn) Skipping(dir Dir) uint64 { return c.streamOf(dir).skip }

// Need tells that the message of dir that Parse just left unread (n == 0) has at least n bytes: Parse is not called before they
// are there. Without it a long message that comes in small packets is read from its front for each of them.
func (c *Conn) Need(dir Dir, n int) {
	// A need that the cap would never let come is not one.
	c.streamOf(dir).need = min(n, int(c.set.cfg.MaxUnparsedBytes))
}

// Reparse tells that Parse shall see the unread bytes of dir once more though none have come: what they waited for, in the other
// direction, is there.
func (c *Conn) Reparse(dir Dir) { c.streamOf(dir).reparse = true }

// SwitchTo hands both directions with what is unread to another protocol when Parse returns; "" detects again.
func (c *Conn) SwitchTo(name string) { c.switching, c.nextProtocol = true, name }

// maxFlips bounds how often the roles may change: a parser that never decides would go on for ever.
const maxFlips = 2

// Flip tells that client and server were guessed the wrong way round. From the next call on the directions are exchanged; what
// Parse returns still counts for the bytes that it was given, and if it is 0 they are passed again as the other side's at once.
func (c *Conn) Flip() {
	if c.flips >= maxFlips {
		c.Drop()
		return
	}
	c.flips++
	c.flip ^= 1
	c.info.Client, c.info.Server = c.info.Server, c.info.Client
}

// Drop tells that nothing more is of interest: when Parse returns the parser is closed, so that what waits is emitted, and the rest
// of the connection is ignored.
func (c *Conn) Drop() { c.state = dropped }

// Info is what is known of the connection; after a flip with the roles as they are now.
func (c *Conn) Info() *Info { return &c.info }

// Intern gives b as a string that outlives it; common ones are remembered, so that they do not allocate each time.
func (c *Conn) Intern(b []byte) string { return c.set.intern(b) }

// Count counts something strange, or given up, that the parser met; reason is a constant, lower case with underscores.
func (c *Conn) Count(reason string) {
	if c.proto != none {
		k := &c.set.counters[c.proto]
		addCount(k.anomalies, k.anomaliesVec, reason, 1)
	}
}

// streamOf is that of the side which the parser calls dir.
func (c *Conn) streamOf(dir Dir) *stream { return &c.streams[dir^c.flip] }

// countDropped counts bytes that no parser read.
func (c *Conn) countDropped(reason string, n int) {
	if c.proto != none {
		k := &c.set.counters[c.proto]
		addCount(k.dropped, k.droppedVec, reason, n)
	}
}

// recoverPanic recovers a panic of the parser, deferred by each method that runs one. The parser is not used again.
func (c *Conn) recoverPanic() {
	r := recover()
	if r == nil {
		return
	}
	if c.proto != none {
		c.set.counters[c.proto].panics.Inc()
	}
	if c.set.Panicked != nil {
		c.set.Panicked(c.Protocol(), r, debug.Stack())
	}
	c.state, c.parser, c.ticker = dropped, nil, nil
	c.releaseBuffers()
}

// releaseBuffers gives back what the connection holds.
func (c *Conn) releaseBuffers() {
	for d := range c.streams {
		s := &c.streams[d]
		s.offset += uint64(len(s.tail))
		s.releaseTail(c.set)
	}
	c.pieces = c.pieces[:0]
	if c.parser != nil {
		c.set.releaseParser(c.proto, c.parser)
		c.parser, c.ticker = nil, nil
	}
}
