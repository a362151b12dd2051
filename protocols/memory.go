package protocols

import "tidegate/pipeline"

// A Holder is a Parser that keeps state of unbounded size, such as requests that wait for their reply. Held
// returns its size in bytes, in time
// that is bounded by a constant. It is called after each call of Parse, Gap, End and Tick.
type Holder interface {
	Held() int
}

// EventBytes is the memory of an event that a Parser keeps, without its texts: the event, its endpoints, its body
// and its place in a queue.
const EventBytes = 1100

const (
	connBytes      = 768  // what a Conn costs without its buffers and its parser
	parserBytes    = 512  // what a parser costs without its state
	holderBytes    = 4096 // a Conn that holds more can be chosen to give its state up
	maxGivingUpRow = 16   // Conns that give their state up in a row
)

// chargeHeld charges the memory budget with what c holds, and has large holders give up their state while the
// budget is exceeded. It is called when c has handled its input: c itself may be one of them.
func (c *Conn) chargeHeld(at int64) {
	held := connBytes + parserBytes + cap(c.streams[0].tailBuffer()) + cap(c.streams[1].tailBuffer()) +
		cap(c.proof.bytes[0]) + cap(c.proof.bytes[1]) + cap(c.beginning.bytes)
	if c.holder != nil {
		held += c.holder.Held()
	}
	if held == c.held.Bytes() {
		return
	}
	grown := held > c.held.Bytes()
	c.set.holders.Charge(&c.held, c, held)
	if grown && !c.givingUp && c.set.holders.IsExceeded() {
		c.set.EnforceBudget(at)
	}
}

// EnforceBudget has connections give up their state until the budget is kept. It is called after each input, and between
// inputs while none come: other parts may have grown.
func (s *Set) EnforceBudget(at int64) {
	if s.pooled > 0 && s.holders.IsExceeded() {
		s.dropPools()
	}
	s.holders.Enforce(maxGivingUpRow, func(c *Conn) { c.giveUp(at) })
}

// giveUp emits all events that wait, marked as incomplete, and drops the buffers of the connection. Its protocol
// stays: the parser continues with the next message that it recognises.
func (c *Conn) giveUp(at int64) {
	c.givingUp = true
	defer func() {
		c.givingUp = false
		if c.state == dropped {
			c.releaseBuffers()
			c.releaseBeginning()
		}
		c.set.holders.Charge(&c.held, c, connBytes+parserBytes)
	}()
	defer c.recoverPanic()
	if c.state == detecting {
		c.endDetection()
		c.applyRequests(at)
	}
	if c.state != parsing {
		return
	}
	c.Count("memory_limit")
	c.emitStop(pipeline.TagMemoryLimit)
	c.closeProof()
	c.parser.Close(at)
	for dir := range c.streams {
		stream := &c.streams[dir]
		c.countDropped("memory_limit", len(stream.tail))
		stream.offset += uint64(len(stream.tail))
		stream.releaseTail(c.set)
		stream.skip, stream.reparse = 0, false
		stream.lost, stream.partial = c.info.Transport != pipeline.Transport_UDP, true
	}
	c.midStream, c.info.MidStream = true, true
	c.switching, c.resuming, c.nextProtocol = false, false, ""
	c.parser.Reset(c)
}
