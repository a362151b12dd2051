package protocols

import "tidegate/pipeline"

// parseData passes data, which follows the tail of the same direction, to the parser, and keeps the unread
// rest.
func (c *Conn) parseData(dir Dir, data []byte, at int64) {
	stream := &c.streams[dir]
	if len(stream.tail) == 0 {
		c.parseFirst(dir, data, nil, at)
		return
	}

	// The message continues the tail, which must be contiguous for the parser.
	stream.appendTail(c.set, data, at)
	stream.lastAt = at
	c.parseTail(dir, at)
}

// parseFirst is parseData for a stream without a tail: the parser reads from data itself. It reports whether the stream
// owns buffer from here on, see keepRest.
func (c *Conn) parseFirst(dir Dir, data, buffer []byte, at int64) (owned bool) {
	stream := &c.streams[dir]
	stream.lastAt = at
	consumed := stream.consumeSkip(len(data))
	if consumed < len(data) {
		consumed += c.parseMessages(dir, data[consumed:], at)
	}
	if consumed == len(data) || c.state != parsing {
		return false
	}
	owned = stream.keepRest(c.set, data[consumed:], buffer, at)
	c.limitTail(dir)
	return owned
}

// parseTail passes the tail to the parser.
func (c *Conn) parseTail(dir Dir, at int64) {
	stream := &c.streams[dir]
	if len(stream.tail) == 0 || c.state != parsing {
		return
	}
	consumed := c.parseMessages(dir, stream.tail, at)
	if c.state == parsing {
		stream.dropFront(c.set, consumed)
		c.limitTail(dir)
	}
}

// parseMessages passes the messages at the front of data to the parser, and returns the number of bytes that
// were read or skipped.
//
// Each iteration skips bytes, resynchronises, or parses one message. The loop ends when the parser needs more
// bytes, the connection is dropped, or the protocol is switched.
func (c *Conn) parseMessages(dir Dir, data []byte, at int64) (consumed int) {
	stream := &c.streams[dir]
	// Invariant: data[n:] is unread, and stream.offset is the offset of its first byte.
	for consumed < len(data) && c.state == parsing && !c.switching {
		if length := stream.consumeSkip(len(data) - consumed); length > 0 {
			consumed += length
			continue
		}
		rest := data[consumed:]
		if len(rest) < stream.need {
			return consumed
		}
		stream.need = 0

		// The position is lost: find the start of a message.
		if stream.lost {
			consumed += c.resync(dir, rest)
			if stream.lost {
				return consumed
			}
			continue
		}

		// Parse one message. Parse may flip the roles, skip bytes, or need more.
		flip := c.flip
		length, err := c.parser.Parse(dir^flip, rest, at)
		switch {
		case err != nil || length < 0 || length > len(rest):
			c.countError()
			consumed++
			c.loseSync(dir)
		case length > 0:
			consumed += length
			stream.advance(length)
			stream.partial = false
			if c.errorScore > 0 {
				c.errorScore--
			}
		case c.flip == flip && stream.skip == 0 && !c.switching: // no progress: more bytes are needed
			stream.need = max(stream.need, len(rest)+1)
			return consumed
		}
	}
	return consumed
}

// errorWeight is the number of parsed messages that outweigh one error.
const errorWeight = 4

// countError counts a parse error. After too many of them the parser is stopped and the protocol is detected
// again from the next byte on.
func (c *Conn) countError() {
	c.set.counters[c.proto].errors.Inc()
	c.errorScore += errorWeight
	if c.errorScore > errorWeight*c.set.cfg.MaxErrors {
		c.Count("too_many_errors")
		c.emitStop(pipeline.TagTooManyErrors)
		c.switching, c.nextProtocol, c.resuming = true, "", true
	}
}

// loseSync handles bytes that could not be parsed: it skips one byte, and has Sync look for the next
// message.
func (c *Conn) loseSync(dir Dir) {
	stream := &c.streams[dir]
	stream.advance(1)
	stream.lost, stream.partial, stream.need, stream.skip = true, true, 0, 0
	c.countDropped("resync", 1)
	if c.state == parsing {
		c.parser.Gap(dir^c.flip, 1)
	}
}

// maxSyncBuffer is the number of undecided bytes that are kept while Sync looks for the start of a message.
const maxSyncBuffer = 8 << 10

// resync calls Sync, and returns the number of bytes of data before the start of a message. If stream.lost is
// still set afterwards, the start was not found and more bytes are needed.
func (c *Conn) resync(dir Dir, data []byte) int {
	stream := &c.streams[dir]
	skip, match := c.set.list[c.proto].Sync(dir^c.flip, data)
	skip = min(max(skip, 0), len(data))

	// A start was found, or may be at skip, or there is none in data.
	switch {
	case match == Yes && skip < len(data):
		stream.lost = false
		if skip > 0 {
			stream.partial = true
		}
		if stream.partial {
			c.set.counters[c.proto].resyncs.Inc()
		}
	case match == More && len(data)-skip <= maxSyncBuffer:
		stream.need = len(data) - skip + 1
	default:
		skip = len(data)
	}
	stream.advance(skip)
	c.countDropped("resync", skip)
	if skip > 0 && dir^c.flip == Client {
		c.parser.Gap(Client, skip) // replies that came meanwhile may be those to the requests in these bytes
	}
	return skip
}

// parseGap skips size lost bytes, and the unread bytes before them.
func (c *Conn) parseGap(dir Dir, size int) {
	stream := &c.streams[dir]
	unread := len(stream.tail)

	// The tail is the front of a message without a rest. From here on size includes it.
	c.parseTruncated(dir)
	c.countDropped("gap", unread)
	stream.releaseTail(c.set)
	size += unread

	// Inside bytes that are to be skipped the position is known, whatever Gap returns.
	needed := stream.skip < uint64(size)
	placed := c.parser.Gap(dir^c.flip, size)
	stream.offset += uint64(size - stream.consumeSkip(size))
	if needed && !placed {
		stream.lost, stream.partial, stream.skip = true, true, 0
	}
}

// parseTruncated passes the tail, the front of a message whose rest was lost, to a TruncatedParser.
func (c *Conn) parseTruncated(dir Dir) {
	stream := &c.streams[dir]
	if parser, ok := c.parser.(TruncatedParser); ok && len(stream.tail) > 0 && !stream.lost && stream.skip == 0 {
		parser.ParseTruncated(dir^c.flip, stream.tail, stream.lastAt)
	}
}

// limitTail drops a tail longer than MaxUnparsedBytes: the message is too long to be parsed.
func (c *Conn) limitTail(dir Dir) {
	stream := &c.streams[dir]
	size := len(stream.tail)
	if size <= int(c.set.cfg.MaxUnparsedBytes) {
		return
	}
	c.Count("message_too_long")
	c.countDropped("too_long", size)
	stream.offset += uint64(size)
	stream.releaseTail(c.set)
	if !c.parser.Gap(dir^c.flip, size) {
		stream.lost, stream.partial = true, true
	}
}

// maxRequests is the number of requests of a parser that are applied in a row without a byte being read.
const maxRequests = 8

// applyRequests applies what the parser requested by Drop, SwitchTo and Reparse. Each of them may run a
// parser that requests more.
func (c *Conn) applyRequests(at int64) {
	read := c.streams[0].offset + c.streams[1].offset
	for requests := 0; requests < maxRequests; requests++ {
		if now := c.streams[0].offset + c.streams[1].offset; now != read {
			read, requests = now, 0
		}
		switch {
		case c.state == dropped:
			c.closeParser(at)
			return
		case c.switching:
			c.switchProtocol(at)
		case c.streams[0].reparse:
			c.reparse(0, at)
		case c.streams[1].reparse:
			c.reparse(1, at)
		default:
			return
		}
	}
}

// closeParser closes the parser of a dropped connection.
func (c *Conn) closeParser(at int64) {
	if c.parser != nil {
		c.parser.Close(at)
	}
	c.releaseBuffers()
}

// reparse passes the unread bytes of dir to the parser again, as requested by Reparse.
func (c *Conn) reparse(dir Dir, at int64) {
	stream := &c.streams[dir]
	stream.reparse, stream.need = false, 0
	c.parseTail(dir, at)
}

// switchProtocol passes the connection to the protocol that SwitchTo named.
func (c *Conn) switchProtocol(at int64) {
	c.parser.Close(at)
	c.set.releaseParser(c.proto, c.parser)
	c.parser, c.ticker, c.holder = nil, nil, nil
	if c.state == dropped {
		return
	}

	// The state of the old parser in the streams is reset; the unread bytes stay.
	for dir := range c.streams {
		stream := &c.streams[dir]
		stream.lost, stream.reparse, stream.need, stream.skip = false, false, 0, 0
	}
	// The next protocol is captured from its beginning, unless the old parser has lost its way.
	c.midStream, c.info.MidStream = c.resuming, c.resuming
	c.switching, c.resuming, c.errorScore = false, false, 0
	c.closeProof()
	client := Client ^ c.flip
	if c.nextProtocol == "" {
		c.detectUnread(client)
		return
	}

	proto := c.set.indexOf(c.nextProtocol)
	if proto == noProtocol {
		c.Count("unknown_protocol")
		c.state = dropped
		return
	}

	// The new parser reads the unread bytes, the client's first, then the ends that have already come.
	c.startParser(proto)
	if c.midStream { // bytes before the unread ones were lost
		c.streams[0].lost, c.streams[1].lost = true, true
		c.parser.Gap(Client, 1)
	}
	for _, dir := range [...]Dir{client, client.Other()} {
		c.parseTail(dir, at)
	}
	for dir := range c.streams {
		if c.streams[dir].ended && c.state == parsing && !c.switching {
			c.parser.End(Dir(dir)^c.flip, at)
		}
	}
}

// detectUnread starts the detection with the unread bytes, the client's first.
func (c *Conn) detectUnread(client Dir) {
	c.startDetection()
	for _, dir := range [...]Dir{client, client.Other()} {
		stream := &c.streams[dir]
		if unread := len(stream.tail); unread > 0 {
			c.pieces = append(c.pieces, piece{dir: dir, size: unread, at: stream.firstAt()})
		}
		if stream.ended {
			c.pieces = append(c.pieces, piece{dir: dir, end: true, at: stream.lastAt})
		}
	}
	c.detectBuffered(client)
	if c.state == detecting {
		c.detectBuffered(client.Other())
	}
}

// startParser makes proto the protocol of the connection and prepares a parser for it.
func (c *Conn) startParser(proto int) {
	c.state, c.proto, c.lastProto = parsing, proto, proto
	c.set.counters[proto].connections.Inc()
	c.parser = c.set.takeParser(proto)
	c.ticker, _ = c.parser.(Ticker)
	c.holder, _ = c.parser.(Holder)
	c.parser.Reset(c)
}
