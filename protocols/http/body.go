package http

import (
	"bytes"

	"tidegate/protocols"
)

// readBody reads the available part of the body of the message of dir, and returns its length.
func (p *parser) readBody(dir protocols.Dir, data []byte) (int, error) {
	side := &p.sides[dir]
	switch side.state {
	case untilClose:
		p.countBody(dir, uint64(len(data)))
		return len(data), nil
	case inBody, inChunk:
		size := int(min(side.bodyLeft, uint64(len(data))))
		side.bodyLeft -= uint64(size)
		p.countBody(dir, uint64(size))
		if side.isSearched && size > 0 {
			p.searchBody(data[:size])
		}
		if side.bodyLeft == 0 {
			if side.state == inBody {
				p.endMessage(dir)
			} else {
				side.state = inChunkEnd
			}
		}
		return size, nil
	case inChunkSize:
		return p.readChunkSize(side, data)
	case inChunkEnd: // CR LF, or LF alone
		switch {
		case data[0] == '\n':
			side.state = inChunkSize
			return 1, nil
		case data[0] != '\r' || len(data) > 1 && data[1] != '\n':
			return 0, errChunk
		case len(data) < 2:
			return 0, nil
		}
		side.state = inChunkSize
		return 2, nil
	default:
		return p.readTrailer(dir, data)
	}
}

// readChunkSize reads the line before a chunk: its size in hex, then extensions (RFC 9112 section 7.1).
func (p *parser) readChunkSize(side *sideReader, data []byte) (int, error) {
	end := bytes.IndexByte(data[:min(len(data), maxLine)], '\n')
	if end < 0 {
		if len(data) >= maxLine {
			return 0, errChunk
		}
		return 0, nil
	}

	// Extensions follow a semicolon; they are ignored.
	line := trim(data[:end])
	if semicolon := bytes.IndexByte(line, ';'); semicolon >= 0 {
		line = trim(line[:semicolon])
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

// readTrailer reads a line after the last chunk. An empty line ends the message.
func (p *parser) readTrailer(dir protocols.Dir, data []byte) (int, error) {
	side := &p.sides[dir]
	end := bytes.IndexByte(data, '\n')
	if end < 0 {
		if len(data) > maxLine {
			return 0, errTooLong
		}
		return 0, nil
	}
	if side.trailerBytes += end; side.trailerBytes > maxTrailer {
		return 0, errTooLong
	}
	if len(trim(data[:end])) == 0 {
		p.endMessage(dir)
	}
	return end + 1, nil
}

// parseHex parses the size of a chunk: at most 16 digits, and nothing else.
func parseHex(data []byte) (value uint64, ok bool) {
	if len(data) == 0 || len(data) > 16 {
		return 0, false
	}
	for _, c := range data {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		value = value<<4 | uint64(c)
	}
	return value, true
}

// parseDecimal parses a Content-Length: digits only (RFC 9110 section 8.6).
func parseDecimal(data []byte) (value uint64, ok bool) {
	if len(data) == 0 || len(data) > 18 {
		return 0, false
	}
	for _, c := range data {
		if c < '0' || c > '9' {
			return 0, false
		}
		value = value*10 + uint64(c-'0')
	}
	return value, true
}

// parsePythonInteger parses a length as int of Python does, which its servers call: a plus and underscores between digits
// are allowed. Other servers refuse such a length, or ignore it.
func parsePythonInteger(data []byte) (value uint64, ok bool) {
	var digits [18]byte
	count := 0
	data = bytes.TrimPrefix(data, []byte{'+'})
	for i, c := range data {
		switch {
		case c == '_' && i > 0 && i < len(data)-1 && data[i-1] != '_':
		case count == len(digits):
			return 0, false
		default:
			digits[count] = c
			count++
		}
	}
	return parseDecimal(digits[:count])
}

// trim returns data without the white space at both ends.
func trim(data []byte) []byte {
	for len(data) > 0 && isBlank(data[0]) {
		data = data[1:]
	}
	for len(data) > 0 && isBlank(data[len(data)-1]) {
		data = data[:len(data)-1]
	}
	return data
}

// trimLines returns data without the empty lines at its front.
func trimLines(data []byte) []byte { return bytes.TrimLeft(data, "\r\n") }

func isBlank(c byte) bool { return c == ' ' || c == '\t' || c == '\r' }
