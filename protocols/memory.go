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
	connBytes      = 1024 // what a Conn costs without its buffers
	holderBytes    = 4096 // a Conn that holds more can be chosen to give its state up
	holderSamples  = 8    // Conns of which the largest is chosen
	maxGivingUpRow = 16   // Conns that give their state up in a row
)

// A holding is the state of a Conn in the memory budget of its Set.
type holding struct {
	held        int  // bytes that are charged
	holderIndex int  // index in Set.holders, plus one; 0: not in it
	givingUp    bool // giveUp runs: the events that are emitted are incomplete
}

// chargeHeld charges the memory budget with what c holds, and has large holders give up their state while the
// budget is exceeded. It is called when c has handled its input: c itself may be one of them.
func (c *Conn) chargeHeld(at int64) {
	held := connBytes + cap(c.streams[0].tail) + cap(c.streams[1].tail) + cap(c.proof.bytes[0]) + cap(c.proof.bytes[1])
	if c.holder != nil {
		held += c.holder.Held()
	}
	if held == c.memory.held {
		return
	}
	grown := held > c.memory.held
	c.set.setHeld(c, held)
	if grown && !c.memory.givingUp {
		c.set.EnforceBudget(at)
	}
}

// setHeld charges the budget with held bytes of c in place of those before, and updates the list of holders.
func (s *Set) setHeld(c *Conn, held int) {
	s.memory.Add(int64(held - c.memory.held))
	c.memory.held = held
	switch {
	case held > holderBytes && c.memory.holderIndex == 0:
		s.holders = append(s.holders, c)
		c.memory.holderIndex = len(s.holders)
	case held <= holderBytes && c.memory.holderIndex > 0:
		// The last holder takes the place of c.
		last := s.holders[len(s.holders)-1]
		s.holders[c.memory.holderIndex-1] = last
		last.memory.holderIndex = c.memory.holderIndex
		s.holders[len(s.holders)-1] = nil
		s.holders = s.holders[:len(s.holders)-1]
		c.memory.holderIndex = 0
	}
}

// EnforceBudget has connections give up their state until the budget is kept. Each turn samples a few holders and
// takes the largest. A search of all would take too long.
// It is called after each input, and between inputs while none come: other parts may have grown.
func (s *Set) EnforceBudget(at int64) {
	for range maxGivingUpRow {
		if len(s.holders) == 0 || s.memory.Excess() == 0 {
			return
		}
		var largest *Conn
		for range holderSamples {
			candidate := s.holders[s.random.IntN(len(s.holders))]
			if largest == nil || candidate.memory.held > largest.memory.held {
				largest = candidate
			}
		}
		before := largest.memory.held
		largest.giveUp(at)
		s.memory.GaveUp(int64(before - largest.memory.held))
	}
}

// giveUp emits all events that wait, marked as incomplete, and drops the buffers of the connection. Its protocol
// stays: the parser continues with the next message that it recognises.
func (c *Conn) giveUp(at int64) {
	c.memory.givingUp = true
	defer func() {
		c.memory.givingUp = false
		if c.state == dropped {
			c.releaseBuffers()
		}
		c.set.setHeld(c, connBytes)
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
