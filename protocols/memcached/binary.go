package memcached

import (
	"tidegate/pipeline"
	"tidegate/protocols"
)

// A binaryState says what is known of a connection whose client has sent the header of the binary protocol first.
type binaryState uint8

const (
	noBinary  binaryState = iota
	undecided             // the server has not answered: the client's bytes are unread
	isText                // the server answers as text: the client's bytes are lines
	isStopped             // an event says that the connection is not read
)

// isBinary reports whether data cannot be read as a line, as far as is known: it stays unread until the server answers.
func (p *parser) isBinary(dir protocols.Dir, data []byte) bool {
	switch {
	case p.binary == isText && dir == protocols.Client:
		p.conn.Reparse(protocols.Server)
		return false
	case p.binary == undecided && dir == protocols.Server:
		return !p.choosesText(data)
	case p.binary == undecided:
		return true
	case p.started || data[0] != binaryMagic[dir]:
		return false
	}
	match := detectBinary(data)
	if match == protocols.Yes && dir == protocols.Client {
		p.binary = undecided
		p.conn.Reparse(protocols.Server)
	} else if match == protocols.Yes {
		p.binary = undecided
		p.stopBinary()
	}
	return match != protocols.No
}

// choosesText decides by data, the server's first bytes, and reports whether they can be read now. If they are text,
// the client's bytes are read first.
func (p *parser) choosesText(data []byte) bool {
	match := protocols.No
	if data[0] == binaryMagic[protocols.Server] {
		match = detectBinary(data)
	}
	switch {
	case match == protocols.Yes:
		p.stopBinary()
	case match == protocols.No:
		p.binary = isText
		p.conn.Reparse(protocols.Client)
	}
	return false
}

// stopBinary says that the connection has the binary protocol, and drops it.
func (p *parser) stopBinary() {
	if p.binary != undecided {
		return
	}
	p.binary = isStopped
	p.conn.Count("binary_protocol")
	p.conn.Stop(pipeline.TagUnsupported)
}
