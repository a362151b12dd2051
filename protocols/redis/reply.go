package redis

import (
	"bytes"

	"tidegate/pipeline"
	"tidegate/protocols"
)

// A replyReader is the reply that is being read.
type replyReader struct {
	e       *pipeline.Event // made where no command waits: it may be a pushed message
	top     byte            // its type; 0 before it has begun
	null    bool
	partial bool   // bytes of it were lost
	text    string // of a simple string, a number or an error
	size    uint64 // bytes of it so far
	data    uint64 // bytes of data: of a bulk string its own, of an aggregate all

	inBulk bool   // the size of a bulk string was read
	bulk   uint64 // bytes of it that are still to come, without CR LF
	chunks bool   // a streamed string: chunks follow until an empty one

	// Aggregates (arrays, maps, sets, pushes) nest; stack[:depth] are those that are open.
	depth int
	stack [maxDepth]level

	index   int    // of the element of the outermost aggregate
	kind    []byte // the first of these elements: of a pushed message, what it is
	capture bool   // the bulk string that is being read goes into kind: it is that element, or an error's text
	last    int64  // the last integer
}

// A level is an aggregate whose elements are being read.
type level struct {
	left int64 // elements that are still to come; −1: until a dot
	attr bool  // an attribute, which is no element of the aggregate that it stands in
}

func (r *replyReader) reset() {
	if r.e != nil {
		r.e.ReturnToVTPool()
	}
	// The stack needs no clearing: depth says how much of it means anything.
	r.e, r.top, r.null, r.partial, r.text, r.size, r.data, r.bulk, r.chunks = nil, 0, false, false, "", 0, 0, 0, false
	r.inBulk = false
	r.depth, r.index, r.kind, r.capture, r.last = 0, 0, r.kind[:0], false, 0
}

// readReply reads what is there of a reply, and returns how many bytes that were.
func (p *parser) readReply(data []byte, at int64) (n int, err error) {
	reply := &p.reply
	if p.suspended {
		if p.pairing.RepliesLost() || !isReply(data) {
			return len(data), nil // the client has sent nothing since
		}
		p.resumeReplies()
	}
	for n < len(data) {
		length, whole, err := p.readToken(data[n:])
		if err != nil && n == 0 {
			return 0, err
		}
		if length == 0 || err != nil {
			break // an error comes again, at its own place, wherever the bytes were cut
		}
		n += length
		if reply.top == 0 {
			return n, nil // an empty line belongs to no reply
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

// resumeReplies reads replies again behind a gap.
func (p *parser) resumeReplies() {
	p.suspended = false
	if p.pairing.Pipelined() {
		for _, waiting := range p.pairing.Waiting() {
			waiting.e.Partial = true // which of the replies are still to come is a guess
		}
	}
}

// readToken reads a line, or what is there of a bulk string. whole reports whether the reply ends with it.
func (p *parser) readToken(data []byte) (n int, whole bool, err error) {
	reply := &p.reply
	if reply.inBulk {
		return p.readBulk(data)
	}
	line, n := protocols.CutLine(data, maxLine)
	if n == 0 {
		return 0, false, p.checkLineLength(data)
	}
	if len(line) == 0 {
		if reply.top == 0 {
			return n, false, nil
		}
		return 0, false, errReply
	}
	if reply.top == 0 {
		if flip, wait := p.startReply(data, line); flip || wait {
			return 0, false, nil
		}
	}
	if reply.chunks {
		return p.readChunk(line, n)
	}
	whole, err = p.readValue(line)
	return n, whole, err
}

// startReply begins a reply. In mid-stream it may find that this side is the client, and flips the
// connection, or wait for more bytes to decide.
func (p *parser) startReply(data, line []byte) (flip, wait bool) {
	if !p.started && p.c.Info().MidStream && line[0] == '*' {
		switch detectCommand(data) {
		case protocols.More:
			return false, true
		case protocols.Yes:
			if knownCommand(data) {
				p.c.Flip()
				return true, false
			}
		}
	}
	p.started = true
	reply := &p.reply
	if reply.e == nil && !p.pairing.Skipping() && (p.pairing.Len() == 0 || line[0] == '>' || p.subscribed) {
		reply.e = p.c.Event(protocols.Server)
		reply.e.Redis = pipeline.RedisCommandFromVTPool()
	}
	return false, false
}

// readValue reads a line that is a value or begins one, and reports whether the reply ends with it.
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
		reply.stack[reply.depth-1].left = 1 // the dot is its last
		return reply.endElement(), nil
	}
	return false, errReply
}

func (p *parser) readScalar(t byte, rest []byte, outermost bool) (bool, error) {
	reply := &p.reply
	if t == ':' {
		v, ok := integer(bytes.TrimPrefix(rest, []byte("+")))
		if !ok && len(rest) > 20 {
			return false, errReply
		}
		reply.last = v
	}
	if outermost {
		reply.null = t == '_'
		if t == '-' {
			rest, _ = p.redactor.RedisError(rest)
		}
		reply.text = p.c.Intern(rest[:min(len(rest), maxText)])
	} else if reply.depth == 1 && reply.index == 0 {
		reply.kind = append(reply.kind[:0], rest[:min(len(rest), maxArg)]...)
	}
	return reply.endElement(), nil
}

func (p *parser) readBulkHead(t byte, rest []byte, outermost bool) (bool, error) {
	reply := &p.reply
	if len(rest) == 1 && rest[0] == '?' {
		reply.chunks = true
		return false, nil
	}
	size, ok := integer(rest)
	if !ok || size < -1 || size > maxBulk {
		return false, errReply
	}
	if size < 0 {
		reply.null = reply.null || outermost
		return reply.endElement(), nil
	}
	reply.inBulk, reply.bulk = true, uint64(size)
	reply.capture = reply.depth == 1 && reply.index == 0 || outermost && t == '!'
	if reply.capture {
		reply.kind = reply.kind[:0]
	}
	if outermost {
		reply.data = uint64(size)
	}
	return false, nil
}

// readBulk reads what is there of a bulk string: its bytes, or its end.
func (p *parser) readBulk(data []byte) (n int, whole bool, err error) {
	reply := &p.reply
	if reply.bulk > 0 {
		n = int(min(reply.bulk, uint64(len(data))))
		if space := maxText - len(reply.kind); reply.capture && space > 0 {
			reply.kind = append(reply.kind, data[:min(n, space)]...)
		}
		reply.bulk -= uint64(n)
		return n, false, nil
	}
	if n, err = readLineEnd(data); n == 0 {
		return 0, false, err
	}
	reply.inBulk = false
	if reply.capture {
		reply.capture = false
		if reply.depth == 0 {
			reply.text = p.c.Intern(reply.kind)
		}
	}
	if reply.chunks {
		return n, false, nil
	}
	return n, reply.endElement(), nil
}

// readChunk reads ";4\r\n", before a piece of a streamed string.
func (p *parser) readChunk(line []byte, n int) (int, bool, error) {
	reply := &p.reply
	size, ok := integer(line[1:])
	if line[0] != ';' || !ok || size < 0 || size > maxBulk {
		return 0, false, errReply
	}
	if size == 0 {
		reply.chunks = false
		return n, reply.endElement(), nil
	}
	reply.inBulk, reply.bulk = true, uint64(size)
	if reply.depth == 0 {
		reply.data += uint64(size)
	}
	return n, false, nil
}

func (p *parser) readAggregateHead(t byte, rest []byte, outermost bool) (bool, error) {
	reply := &p.reply
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
	if t == '%' || t == '|' {
		count *= 2
	}
	if count == 0 {
		if t == '|' {
			return false, nil
		}
		return reply.endElement(), nil
	}
	if reply.depth >= maxDepth {
		return false, errDepth
	}
	reply.stack[reply.depth] = level{left: max(count, -1), attr: t == '|'}
	reply.depth++
	return false, nil
}

// endElement counts a value that is complete, and the aggregates that end with it. It reports whether the
// reply ends with it.
func (r *replyReader) endElement() bool {
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
			return false // the value that it belongs to follows
		}
	}
	return true
}

// pushKind returns the kind of message that the reply is, if it is one that no command asked for, or that
// confirms a subscription.
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

func isAggregate(t byte) bool { return t == '*' || t == '%' || t == '~' || t == '>' }
