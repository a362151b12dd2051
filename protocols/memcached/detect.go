package memcached

import (
	"bytes"
	"encoding/binary"

	"tidegate/protocols"
)

// detect matches the first line of a direction. A line that other text protocols have too, such as "get key"
// (an inline Redis command), yields More: the other side's line, or the port, decides.
func detect(dir protocols.Dir, data []byte) protocols.Match {
	if len(data) > 0 && data[0] == binaryMagic[dir] {
		return detectBinary(data)
	}
	line, length := protocols.CutLine(data, maxLine)
	if length == 0 {
		return detectStart(dir, data)
	}
	if dir == protocols.Client {
		cmd, ok := parseCommand(line)
		return match(ok && printable(line) && !bytes.Contains(line, []byte(" HTTP/")), cmd.distinct)
	}
	reply, ok := parseReplyLine(line)
	return match(ok && bytes.HasSuffix(data[:length], []byte("\r\n")), reply.distinct)
}

// binaryMagic has the first byte of a message of the binary protocol, and binaryHeader is the length of its header.
var binaryMagic = [2]byte{protocols.Client: 0x80, protocols.Server: 0x81}

const binaryHeader = 24

// detectBinary matches the header of a message of the binary protocol, whose first byte is right.
func detectBinary(data []byte) protocols.Match {
	const lastOpcode = 0x3c
	switch {
	case len(data) > 1 && data[1] > lastOpcode, len(data) > 5 && data[5] != 0: // the type of data is always 0
		return protocols.No
	case len(data) < binaryHeader:
		return protocols.More
	}
	key, extras, body := binary.BigEndian.Uint16(data[2:]), data[4], binary.BigEndian.Uint32(data[8:])
	return match(uint32(key)+uint32(extras) <= body && body <= maxStore, true)
}

// match returns No for a line that is not ok, Yes for one that no other protocol has, else More.
func match(ok, distinct bool) protocols.Match {
	switch {
	case !ok:
		return protocols.No
	case distinct:
		return protocols.Yes
	}
	return protocols.More
}

// maxStart bounds the bytes of an incomplete line that detectStart reads: it reads them again with each piece of the line.
const maxStart = 256

// detectStart matches the front of an incomplete line.
func detectStart(dir protocols.Dir, data []byte) protocols.Match {
	if len(data) >= maxLine {
		return protocols.No
	}
	data = data[:min(len(data), maxStart)]
	if !printable(bytes.TrimSuffix(data, []byte{'\r'})) {
		return protocols.No
	}
	if dir == protocols.Server {
		return match(isReplyStart(data), false)
	}
	word, _, complete := bytes.Cut(bytes.TrimLeft(data, " "), []byte{' '})
	word = bytes.TrimSuffix(word, []byte{'\r'})
	if complete {
		_, ok := commands[string(word[:min(len(word), 32)])]
		return match(ok, false)
	}
	for name := range commands {
		if bytes.HasPrefix([]byte(name), word) {
			return protocols.More
		}
	}
	return protocols.No
}

// replyWords are the first words of reply lines.
var replyWords = []string{
	"VALUE", "VA", "STAT", "ITEM", "STORED", "NOT_STORED", "END", "EN", "MN", "NS", "VERSION", "EXISTS",
	"NOT_FOUND", "DELETED", "TOUCHED", "OK", "RESET", "HD", "EX", "NF", "ME", "BUSY", "BADCLASS", "NOSPARE",
	"NOTFULL", "UNSAFE", "SAME", "ERROR", "CLIENT_ERROR", "SERVER_ERROR",
}

// isReplyStart reports whether data, which may be incomplete, can begin with a line of a reply.
func isReplyStart(data []byte) bool {
	if line, length := protocols.CutLine(data, maxLine); length > 0 {
		_, ok := parseReplyLine(line)
		return ok
	}
	word, _, complete := bytes.Cut(bytes.TrimSuffix(data, []byte{'\r'}), []byte{' '})
	if len(word) == 0 {
		return len(data) == 0
	}
	if _, ok := number(word, 0); ok || bytes.HasPrefix(word, []byte("key=")) {
		return true
	}
	for _, known := range replyWords {
		if complete && string(word) == known || !complete && bytes.HasPrefix([]byte(known), word) {
			return true
		}
	}
	return !complete && bytes.HasPrefix([]byte("key="), word)
}

// resync finds a command at the start of data or of a line. It finds a reply only at the start of data, which
// is usually the start of a packet, since the data of a value may have lines that look like replies.
func resync(dir protocols.Dir, data []byte) (int, protocols.Match) {
	if dir == protocols.Server {
		if isReplyStart(data) {
			return 0, protocols.Yes
		}
		return len(data), protocols.No
	}
	for at := 0; at < len(data); {
		line, length := protocols.CutLine(data[at:], maxLine)
		if length == 0 {
			if detectStart(dir, data[at:]) == protocols.No {
				return len(data), protocols.No
			}
			return at, protocols.More
		}
		if _, ok := parseCommand(line); ok && printable(line) {
			return at, protocols.Yes
		}
		at += length
	}
	return len(data), protocols.No
}
