package http

import (
	"bytes"

	"tidegate/protocols"
)

// readBody reads what is there of the body of the message of dir, and returns how many bytes that were.
func (p *parser) readBody(dir protocols.Dir, b []byte) (int, error) {
	side := &p.sides[dir]
	switch side.state {
	case untilClose:
		p.countBody(dir, uint64(len(b)))
		return len(b), nil
	case inBody, inChunk:
		n := int(min(side.bodyLeft, uint64(len(b))))
		side.bodyLeft -= uint64(n)
		p.countBody(dir, uint64(n))
		if side.bodyLeft == 0 {
			if side.state == inBody {
				p.endMessage(dir)
			} else {
				side.state = inChunkEnd
			}
		}
		return n, nil
	case inChunkSize:
		return p.readChunkSize(side, b)
	case inChunkEnd: // CR LF, or LF alone
		switch {
		case b[0] == '\n':
			side.state = inChunkSize
			return 1, nil
		case b[0] != '\r' || len(b) > 1 && b[1] != '\n':
			return 0, errChunk
		case len(b) < 2:
			return 0, nil
		}
		side.state = inChunkSize
		return 2, nil
	default:
		return p.readTrailer(dir, b)
	}
}

// readChunkSize reads the line in front of a chunk: its size in hex, then extensions (RFC 9112 section 7.1).
func (p *parser) readChunkSize(side *sideReader, b []byte) (int, error) {
	end := bytes.IndexByte(b[:min(len(b), maxLine)], '\n')
	if end < 0 {
		if len(b) >= maxLine {
			return 0, errChunk
		}
		return 0, nil
	}

	// Extensions follow a semicolon; they are ignored.
	line := trim(b[:end])
	if i := bytes.IndexByte(line, ';'); i >= 0 {
		line = trim(line[:i])
	}
	size, ok := parseHex(line)
	if !ok {
		return 0, errChunk
	}
	side.bodyLeft = size
	side.state = inChunk
	if size == 0 {
		side.state, side.trailerBytes = inTrailer, 0
	}
	return end + 1, nil
}

// readTrailer reads a line behind the last chunk. An empty one ends the message.
func (p *parser) readTrailer(dir protocols.Dir, b []byte) (int, error) {
	side := &p.sides[dir]
	end := bytes.IndexByte(b, '\n')
	if end < 0 {
		if len(b) > maxLine {
			return 0, errTooLong
		}
		return 0, nil
	}
	if side.trailerBytes += end; side.trailerBytes > maxTrailer {
		return 0, errTooLong
	}
	if len(trim(b[:end])) == 0 {
		p.endMessage(dir)
	}
	return end + 1, nil
}

// parseHex parses the size of a chunk: at most 16 digits, and nothing else.
func parseHex(b []byte) (v uint64, ok bool) {
	if len(b) == 0 || len(b) > 16 {
		return 0, false
	}
	for _, c := range b {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		v = v<<4 | uint64(c)
	}
	return v, true
}

// parseDecimal parses a Content-Length: digits only (RFC 9110 section 8.6).
func parseDecimal(b []byte) (v uint64, ok bool) {
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		v = v*10 + uint64(c-'0')
	}
	return v, true
}

// trim returns b without the white space at both ends.
func trim(b []byte) []byte {
	for len(b) > 0 && isBlank(b[0]) {
		b = b[1:]
	}
	for len(b) > 0 && isBlank(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}

// trimLines returns b without the empty lines at its front.
func trimLines(b []byte) []byte { return bytes.TrimLeft(b, "\r\n") }

func isBlank(c byte) bool { return c == ' ' || c == '\t' || c == '\r' }
