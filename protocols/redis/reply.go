package redis

import (
	"bytes"

	"tidegate/pipeline"
	"tidegate/protocols"
)

// A replyReader is the reply that is being read.
type replyReader struct {
	event   *pipeline.Event // created if no command waits, for a reply that may be a pushed message
	top     byte            // first byte of the reply, its type; 0 before it has begun
	null    bool
	partial bool   // bytes of the reply were lost
	text    string // of a simple string, a number or an error
	size    uint64 // bytes of the reply so far
	data    uint64 // bytes of a bulk string; of an aggregate the bytes of the whole reply

	inBulk bool   // the size of a bulk string was read
	bulk   uint64 // bytes of the bulk string that are still to come, without CR LF
	chunks bool   // a streamed string: chunks follow until an empty one

	// Aggregates (arrays, maps, sets, pushes) nest; stack[:depth] are the open ones.
	depth int
	stack [maxDepth]level

	index   int    // index of the element of the outermost aggregate
	kind    []byte // first element of the outermost aggregate; in a pushed message the kind of message
	capture bool   // the bulk string that is being read is copied to kind: it is that element, or an error
	last    int64  // the last integer
}

// A level is an aggregate whose elements are being read.
type level struct {
	left int64 // elements that are still to come; −1: until a dot
	attr bool  // an attribute, which does not count as an element of the enclosing aggregate
}

// reset prepares r for the next reply. An event that was not emitted is released.
func (r *replyReader) reset() {
	if r.event != nil {
		r.event.ReturnToVTPool()
	}
	// The stack needs no clearing: only stack[:depth] is used.
	r.event, r.top, r.null, r.partial = nil, 0, false, false
	r.text, r.size, r.data = "", 0, 0
	r.inBulk, r.bulk, r.chunks = false, 0, false
	r.depth, r.index, r.kind, r.capture, r.last = 0, 0, r.kind[:0], false, 0
}

// readReply reads the available part of a reply, and returns its length.
func (p *parser) readReply(data []byte, at int64) (n int, err error) {
	reply := &p.reply
	if p.replicating {
		return len(data), nil
	}
	if p.suspended {
		if p.pairing.RepliesLost() || !isReply(data) {
			return len(data), nil // the client has sent no command since the gap
		}
		p.resumeReplies()
	}

	// Read token by token, up to the end of the reply.
	for n < len(data) {
		length, whole, err := p.readToken(data[n:])
		if err != nil && n == 0 {
			return 0, err
		}
		if length == 0 || err != nil {
			break // report an error only at its own offset, so that it does not depend on how the bytes were cut
		}
		n += length
		if reply.top == 0 {
			return n, nil // an empty line between replies
		}
		reply.size += uint64(length)
		if whole {
			if isAggregate(reply.top) && !reply.null {
				reply.data = reply.size
			}
			p.finishReply(at)
			return n, nil
		}
	}
	return n, nil
}

// resumeReplies ends the skipping of replies after a gap.
func (p *parser) resumeReplies() {
	p.suspended = false
	if p.pairing.Pipelined() {
		for _, waiting := range p.pairing.Waiting() {
			waiting.event.Partial = true // it is uncertain which of the replies are still to come
		}
	}
}

// readToken reads a line, or the available part of a bulk string. whole reports that the reply ends with it.
func (p *parser) readToken(data []byte) (length int, whole bool, err error) {
	reply := &p.reply
	if reply.inBulk {
		return p.readBulk(data)
	}
	line, length := protocols.CutLine(data, maxLine)
	if length == 0 {
		return 0, false, p.checkLineLength(data)
	}
	if len(line) == 0 {
		if reply.top == 0 {
			return length, false, nil
		}
		return 0, false, errReply
	}
	if reply.top == 0 {
		if flip, wait := p.startReply(data, line); flip || wait {
			return 0, false, nil
		}
	}
	if reply.chunks {
		return p.readChunk(line, length)
	}
	whole, err = p.readValue(line)
	return length, whole, err
}

// startReply begins a reply. In mid-stream it flips the connection if the bytes are those of a client, or
// returns wait if more bytes are needed to decide.
func (p *parser) startReply(data, line []byte) (flip, wait bool) {
	if !p.started && p.conn.Info().MidStream && line[0] == '*' {
		switch detectCommand(data) {
		case protocols.More:
			return false, true
		case protocols.Yes:
			if knownCommand(data) {
				p.conn.Flip()
				return true, false
			}
		}
	}
	p.started = true
	reply := &p.reply
	if reply.event == nil && !p.pairing.Skipping() && (p.pairing.Len() == 0 || line[0] == '>' || p.subscribed) {
		reply.event = p.conn.Event(protocols.Server)
		reply.event.Redis = pipeline.RedisCommandFromVTPool()
	}
	return false, false
}

// readValue reads a line that is a value or the head of one, and reports whether the reply ends with it.
func (p *parser) readValue(line []byte) (whole bool, err error) {
	reply := &p.reply
	kind, rest := line[0], line[1:]
	outermost := reply.depth == 0
	if outermost && kind != '|' {
		reply.top = kind
	} else if reply.top == 0 {
		reply.top = kind
	}
	switch kind {
	case '+', '-', ',', '#', '(', '_', ':':
		return p.readScalar(kind, rest, outermost)
	case '$', '!', '=':
		return p.readBulkHead(kind, rest, outermost)
	case '*', '~', '>', '%', '|':
		return p.readAggregateHead(kind, rest, outermost)
	case '.':
		if reply.depth == 0 || reply.stack[reply.depth-1].left >= 0 {
			return false, errReply
		}
		reply.stack[reply.depth-1].left = 1 // the dot counts as the last element
		return reply.endElement(), nil
	}
	return false, errReply
}

// readScalar reads a simple string, an error, a number, a boolean or null of type t.
func (p *parser) readScalar(kind byte, rest []byte, outermost bool) (bool, error) {
	reply := &p.reply
	if kind == ':' {
		value, ok := integer(bytes.TrimPrefix(rest, []byte("+")))
		if !ok && len(rest) > 20 {
			return false, errReply
		}
		reply.last = value
	}
	if outermost {
		if kind == '-' {
			rest, _ = p.conn.Redactor().RedisError(rest)
		}
		reply.text = p.conn.Intern(rest[:min(len(rest), maxText)])
	} else if reply.depth == 1 && reply.index == 0 {
		reply.kind = append(reply.kind[:0], rest[:min(len(rest), maxArg)]...)
	}
	return reply.endElement(), nil
}

// readBulkHead reads the size of a bulk string, a bulk error or a verbatim string of type t.
func (p *parser) readBulkHead(kind byte, rest []byte, outermost bool) (bool, error) {
	reply := &p.reply
	if len(rest) == 1 && rest[0] == '?' {
		reply.chunks = true
		return false, nil
	}
	size, ok := integer(rest)
	if waiting := p.pairing.First(); outermost && kind == '$' && waiting != nil && waiting.flags&replicates != 0 {
		reply.data = uint64(max(size, 0)) // SYNC: a snapshot follows, without CR LF, and then the stream
		return reply.endElement(), nil
	}
	if !ok || size < -1 || size > maxBulk {
		return false, errReply
	}
	if size < 0 {
		reply.null = reply.null || outermost
		return reply.endElement(), nil
	}
	reply.inBulk, reply.bulk = true, uint64(size)
	reply.capture = reply.depth == 1 && reply.index == 0 || outermost && kind == '!'
	if reply.capture {
		reply.kind = reply.kind[:0]
	}
	if outermost {
		reply.data = uint64(size)
	}
	return false, nil
}

// readBulk reads available bytes of a bulk string, or the CR LF at its end.
func (p *parser) readBulk(data []byte) (length int, whole bool, err error) {
	reply := &p.reply
	if reply.bulk > 0 {
		length = int(min(reply.bulk, uint64(len(data))))
		if space := maxText - len(reply.kind); reply.capture && space > 0 {
			reply.kind = append(reply.kind, data[:min(length, space)]...)
		}
		reply.bulk -= uint64(length)
		return length, false, nil
	}
	if length, err = readLineEnd(data); length == 0 {
		return 0, false, err
	}
	reply.inBulk = false
	if reply.capture {
		reply.capture = false
		if reply.depth == 0 {
			reply.text = p.conn.Intern(reply.kind)
		}
	}
	if reply.chunks {
		return length, false, nil
	}
	return length, reply.endElement(), nil
}

// readChunk reads ";4\r\n", the head of a chunk of a streamed string.
func (p *parser) readChunk(line []byte, length int) (int, bool, error) {
	reply := &p.reply
	size, ok := integer(line[1:])
	if line[0] != ';' || !ok || size < 0 || size > maxBulk {
		return 0, false, errReply
	}
	if size == 0 {
		reply.chunks = false
		return length, reply.endElement(), nil
	}
	reply.inBulk, reply.bulk = true, uint64(size)
	if reply.depth == 0 {
		reply.data += uint64(size)
	}
	return length, false, nil
}

// readAggregateHead reads the number of elements of an aggregate of type kind and opens the aggregate.
func (p *parser) readAggregateHead(kind byte, rest []byte, outermost bool) (bool, error) {
	reply := &p.reply
	// −1 elements stand for null, ? for an unknown number that ends with a dot.
	count := int64(-1)
	if len(rest) != 1 || rest[0] != '?' {
		var ok bool
		if count, ok = integer(rest); !ok || count < -1 || count > maxElements {
			return false, errReply
		}
		if count < 0 {
			reply.null = reply.null || outermost
			return reply.endElement(), nil
		}
	}
	if kind == '%' || kind == '|' {
		count *= 2
	}

	// An empty aggregate is complete. Any other one is open until endElement has counted its elements.
	if count == 0 {
		if kind == '|' {
			return false, nil
		}
		return reply.endElement(), nil
	}
	if reply.depth >= maxDepth {
		return false, errDepth
	}
	reply.stack[reply.depth] = level{left: max(count, -1), attr: kind == '|'}
	reply.depth++
	return false, nil
}

// endElement counts a complete value, and closes the aggregates that end with it. It reports whether the
// reply ends with it.
func (r *replyReader) endElement() bool {
	// Each iteration counts one element of the innermost open aggregate. A closed aggregate is itself an
	// element of the next one.
	for r.depth > 0 {
		level := &r.stack[r.depth-1]
		if r.depth == 1 && !level.attr {
			r.index++
		}
		if level.left < 0 {
			return false
		}
		if level.left--; level.left > 0 {
			return false
		}
		r.depth--
		if level.attr {
			return false // the value with this attribute follows
		}
	}
	return true
}

// pushKind returns the kind of a pub/sub message or confirmation, or "" for other replies. confirms reports
// that the reply confirms a subscription.
func (r *replyReader) pushKind(subscribed bool) (kind string, confirms bool) {
	if r.top != '>' && (r.top != '*' || !subscribed) {
		return "", false
	}
	switch string(r.kind) {
	case "subscribe", "psubscribe", "ssubscribe", "unsubscribe", "punsubscribe", "sunsubscribe":
		return string(r.kind), true
	case "message":
		return "message", false
	case "pmessage":
		return "pmessage", false
	case "smessage":
		return "smessage", false
	case "invalidate":
		return "invalidate", false
	}
	return "", false
}

func isAggregate(kind byte) bool { return kind == '*' || kind == '%' || kind == '~' || kind == '>' }
