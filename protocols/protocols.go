// Package protocols is the contract between connections and parsers, and the framework that runs parsers.
//
// collector/sessions opens a Conn for every connection and gives it the bytes of both directions in order.
// The framework recognises the protocol (detect.go), calls its Parser message by message (parse.go), and
// emits the events that the parser makes. protocols/all is the list of protocols; docs/ADDING-A-PROTOCOL.md
// says how to add one.
//
// A Conn is in one of three states:
//
//	detecting   the protocol is not known: bytes are kept, and every protocol of the set is asked
//	parsing     the parser is called, for what is unread of each direction
//	dropped     the rest of the connection is ignored. If no protocol was recognised, it is looked for again
//	            when the other side begins to send (behind SOCKS, STARTTLS and the like)
//
// Everything of a connection, and of the Set that it belongs to, is used by one goroutine. There are no
// locks.
package protocols

import (
	"tidegate/pipeline"
)

// A Dir is a direction of a connection, named by the side that sends.
type Dir uint8

// The directions.
const (
	Client Dir = iota
	Server
)

// Other returns the opposite direction.
func (d Dir) Other() Dir { return d ^ 1 }

// A Match is the result of Detect and Sync.
type Match uint8

// No says that the bytes are not of this protocol, Yes that they are, More that more bytes will show.
const (
	No Match = iota
	More
	Yes
)

// A Protocol is a protocol that the collector can read.
type Protocol struct {
	Name    string           // the value of event.dataset
	Dataset pipeline.Dataset // the same as a number
	UDP     bool             // messages also come in datagrams
	TCP     bool             // messages come in streams
	Ports   []uint16         // of the server; a hint, the bytes decide
	Nested  bool             // may begin in the middle of a connection of another protocol: behind SOCKS, STARTTLS

	// ExcludePorts are the ports of either side on which a protocol that looks the same is spoken. There this
	// one is not tried, unless the server's port is one of Ports.
	ExcludePorts []uint16

	// Detect judges the first bytes of a direction, or one datagram.
	Detect func(dir Dir, b []byte) Match
	// Sync finds where in b a message may start, behind a gap or in mid-stream; skip bytes lie before it. It
	// is linear in the length of b.
	Sync func(dir Dir, b []byte) (skip int, m Match)
	// New returns a parser. Parsers are pooled; Reset begins a connection.
	New func() Parser
}

// A Parser turns the bytes of one connection into events. Its methods are called by one goroutine. Times are
// those of the packets, in ns.
type Parser interface {
	Reset(c *Conn)

	// Parse reads one message from the front of b and returns its length, or 0 to be called again with more
	// bytes. b is valid until Parse returns; it may be one datagram. at is the time of its last byte.
	//
	// Parse of a long body returns how much of it is in b, or skips it with Conn.Skip; it is never gathered.
	// An error says that the bytes are not of this protocol (any more): it is counted, and Sync is called.
	Parse(dir Dir, b []byte, at int64) (n int, err error)

	// Gap notes that n bytes of dir are lost, and marks the events that they touch as partial. It reports
	// whether the parser knows its place behind them, as inside a body. If not, Sync is called.
	Gap(dir Dir, n int) bool

	// End notes that a side has sent its last byte (FIN).
	End(dir Dir, at int64)

	// Close emits what still waits for its reply: the connection is over.
	Close(at int64)
}

// A Ticker is a Parser that emits events by time: what has waited too long for its reply.
type Ticker interface {
	Tick(at int64)
}

// A TruncatedParser is a Parser that can read the front of a message whose rest was lost. ParseTruncated is
// called before Gap, which follows as usual. b is valid until it returns.
type TruncatedParser interface {
	ParseTruncated(dir Dir, b []byte, at int64)
}

// NopParser has the methods of a Parser that do nothing in many protocols. A parser embeds it and writes the
// methods that it needs.
type NopParser struct{}

// Gap reports that the place in the stream is lost.
func (NopParser) Gap(Dir, int) bool { return false }

// End does nothing: what ends with the stream is emitted on Close.
func (NopParser) End(Dir, int64) {}

// Close does nothing: no event waits.
func (NopParser) Close(int64) {}
