package http

import (
	"bytes"

	"tidegate/protocols"
)

// ParseTruncated reads what there is of a head whose end was lost: what it says is true as far as it goes. So a capture of the first bytes of
// each packet still tells what was asked for. A head that its sender never ended was no message, and the connection's end drops it.
func (p *parser) ParseTruncated(dir protocols.Dir, b []byte, at int64) {
	if p.side[dir].state != inHead {
		return
	}
	if dir == protocols.Client {
		if p.unfinished = begun(b); p.unfinished {
			p.takeUnfinished(b, at)
		}
		return
	}
	if detectResponse(b) == protocols.Yes {
		p.seen, p.cutting = true, true
		p.response(b[leading(b):], at)
		p.cutting = false
	}
}

// begun tells that b, the front of a head, says already what is asked for: a method that we know and something of a target.
func begun(b []byte) bool {
	b = b[leading(b):]
	i := bytes.IndexByte(b[:min(len(b), maxMethod)], ' ')
	return i > 0 && i+1 < len(b) && known(b[:i]) && (detectRequest(b) != protocols.No || looseRequest(b))
}

// takeUnfinished reads a head without its end as a request and gives how long it is. A line alone without a version is all of a
// request of HTTP/0.9; any other is partial.
func (p *parser) takeUnfinished(b []byte, at int64) int {
	p.unfinished, p.urged, p.seen = false, false, true
	skip := leading(b)
	line := b[skip:]
	end := bytes.IndexByte(line, '\n')
	if end < 0 {
		line = withoutVersion(line)
	}
	p.request(line, at)
	x := p.waiting[len(p.waiting)-1]
	x.asked, x.connect, x.upgrade = true, false, false
	if x.simple && end < 0 { // its version may be in what is missing
		x.simple, x.e.Http.Version = false, ""
	}
	x.e.Partial = x.e.Partial || !x.simple
	p.side[protocols.Client] = side{}
	p.c.Reparse(protocols.Server)
	return len(b)
}

// withoutVersion takes what is there of " HTTP/1.1" from the end of a line that was cut.
func withoutVersion(line []byte) []byte {
	const version = "HTTP/1.1"
	i := bytes.LastIndexByte(line, ' ')
	if n := len(line) - i - 1; i > bytes.IndexByte(line, ' ') && n <= len(version) && string(line[i+1:]) == version[:n] {
		return line[:i]
	}
	return line
}

// simpleReply begins the response to a request of HTTP/0.9: it has no head, and ends with the connection.
func (p *parser) simpleReply(b []byte) bool {
	if len(p.waiting) == 0 || !p.waiting[0].simple || p.evicted > 0 || detectResponse(b) != protocols.No || looseResponse(b) {
		return false
	}
	x := p.waiting[0]
	x.responded, p.noReply, p.doubt.heard = true, false, true
	p.side[protocols.Server] = side{state: untilClose, x: x}
	return true
}
