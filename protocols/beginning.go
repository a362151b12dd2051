package protocols

import "tidegate/pipeline"

// maxBeginning is the number of bytes of a beginning that are held: the longest inline command of Redis, 64 KiB, and as
// much behind it. What is held is charged to the memory budget.
const maxBeginning = 128 << 10

// A beginning holds the first bytes of a client that match no protocol, until the server answers: the server may have
// answered them with an error and read on. Without it, a first line of nonsense and a second one that is longer than
// what a detection examines would hide the second one.
type beginning struct {
	bytes []byte // in a buffer of the set; nil: none
	from  uint64 // offset of the first byte
	at    int64  // time of the first byte
}

// holdBeginning keeps the unread bytes of the client, of a connection that is about to be dropped, up to maxBeginning.
// Nothing is held once the server has sent something that no protocol matches.
func (c *Conn) holdBeginning() {
	client := Client ^ c.flip
	stream, server := &c.streams[client], &c.streams[client.Other()]
	held := &c.beginning
	if c.midStream || c.info.Transport == pipeline.Transport_UDP || server.offset > 0 || len(server.tail) > 0 {
		c.releaseBeginning()
		return
	}
	switch {
	case len(stream.tail) == 0:
		return
	case held.bytes == nil && c.redetects == 0:
		*held = beginning{bytes: c.set.takeTail(), from: stream.offset, at: stream.firstAt()}
	case held.bytes == nil || held.from+uint64(len(held.bytes)) != stream.offset:
		return // something before is not held
	}
	size := min(len(stream.tail), maxBeginning-len(held.bytes))
	held.bytes = append(held.bytes, stream.tail[:size]...)
}

// extendBeginning adds data, which follows in dir and is not matched, to the bytes that are held.
func (c *Conn) extendBeginning(dir Dir, data []byte) {
	held, client := &c.beginning, Client^c.flip
	silent := c.streams[client.Other()].offset == 0
	if held.bytes == nil || dir != client || !silent || held.from+uint64(len(held.bytes)) != c.streams[dir].offset {
		return
	}
	held.bytes = append(held.bytes, data[:min(len(data), maxBeginning-len(held.bytes))]...)
}

// detectBeginning selects the protocol that all of the bytes that are held decide, of a connection that is over: the server
// has answered nothing, and what a detection examines was less.
func (c *Conn) detectBeginning() {
	held, client := c.beginning.bytes, Client^c.flip
	if held == nil || c.streams[client.Other()].offset > 0 {
		return
	}
	for i := range c.set.list {
		if protocol := &c.set.list[i]; protocol.TCP && c.left&(1<<i) == 0 && protocol.Detect(Client, held) == Yes {
			c.undetected = false
			c.selectProtocol(i, client, false)
			c.replayBeginning()
			return
		}
	}
}

// replayBeginning passes the bytes that are held to the parser, which was started by what came later. What was not
// held of the bytes before that is a gap.
func (c *Conn) replayBeginning() {
	held := c.beginning
	if held.bytes == nil {
		return
	}
	c.beginning = beginning{}
	client := Client ^ c.flip
	stream := &c.streams[client]
	next := stream.offset
	lost := next - held.from - uint64(len(held.bytes))

	stream.offset, stream.lost, stream.partial = held.from, false, false
	c.parseData(client, held.bytes, held.at)
	c.skipUnheld(client, int(lost))
	if c.state == dropped {
		stream.offset = next
	}
	c.set.releaseTail(held.bytes)
}

// skipUnheld skips lost bytes of the client, behind those that were held for the parser, and an event says so. If the
// parser hands the connection on, the next one begins behind them, in mid-stream: the bytes on both sides of them are
// no text that the client has sent.
func (c *Conn) skipUnheld(client Dir, lost int) {
	if lost == 0 || c.state != parsing {
		return
	}
	if !c.switching {
		c.parseGap(client, lost)
	} else {
		stream := &c.streams[client]
		unread := len(stream.tail)
		c.countDropped("gap", unread)
		stream.releaseTail(c.set)
		stream.offset += uint64(unread + lost)
		stream.partial, c.resuming = true, true
	}
	c.emitStop(pipeline.TagTruncated)
}

// releaseBeginning drops the bytes that are held.
func (c *Conn) releaseBeginning() {
	if c.beginning.bytes != nil {
		c.set.releaseTail(c.beginning.bytes)
		c.beginning = beginning{}
	}
}
