// Package protocols is the contract between connections and parsers, and the framework that runs parsers.
//
// collector/sessions opens a Conn for every connection and passes it the bytes of both directions in order.
// The framework recognises the protocol (detect.go), calls its Parser message by message (parse.go), and
// emits the events that the parser returns. protocols/all is the list of protocols;
// docs/ADDING-A-PROTOCOL.md describes how to add one.
//
// A Conn is in one of three states:
//
//	detecting   the protocol is not known: bytes are buffered, and every protocol of the set is tried
//	parsing     the parser is called with the unread bytes of each direction
//	dropped     the rest of the connection is ignored. If no protocol was recognised, or the parser panicked,
//	            detection starts again when the other side begins to send (after SOCKS, STARTTLS and the like)
//
// No single packet and no line of an observed party decides for the rest of a connection. The client's first
// bytes choose a protocol, and the server's answer may choose another one, whose parser then reads both from
// their beginning (proof.go). A parser that meets too many errors is closed, and detection starts again behind
// them; an event says so (stop.go). Datagrams are read one by one, whatever came before.
//
// A Conn and the Set that it belongs to are used by one goroutine. There are no locks.
package protocols

import (
	"net/netip"

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

// No means that the bytes are not of this protocol, Yes that they are, More that more bytes are needed to
// decide.
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

	// Exclude, unless nil, reports whether packets to server are of another protocol with the same message format. Ports
	// alone decide nothing: client and server choose them.
	Exclude func(server netip.AddrPort) bool

	// Detect decides by the first bytes of a direction, or by one datagram.
	Detect func(dir Dir, data []byte) Match
	// DetectWhole, unless nil, reports whether data is one whole message of a client in a form that decides
	// nothing, since other protocols have it too, and whose answer may be any bytes. It decides once the
	// server has sent what no protocol sends, as a server of HTTP/0.9 does.
	DetectWhole func(data []byte) bool
	// Skipped, unless nil, returns the length of what servers of the protocol skip at the front of a client's bytes. These
	// bytes take no space of the detection, if no other protocol is left. Servers of no protocol answer them.
	Skipped func(data []byte) int
	// Sync finds the first position in data at which a message may start, after a gap or in mid-stream. skip
	// is the number of bytes before it. The cost is linear in the length of data.
	Sync func(dir Dir, data []byte) (skip int, match Match)
	// New returns a parser. Parsers are pooled; Reset begins a connection.
	New func() Parser
}

// A Parser turns the bytes of one connection into events. Its methods are called by one goroutine. Times are
// those of the packets, in ns.
type Parser interface {
	// Reset prepares the parser for a connection.
	Reset(conn *Conn)

	// Parse reads one message from the front of data and returns its length, or 0 to be called again with
	// more bytes. data is valid until Parse returns; it may be one datagram. at is the time of its last byte.
	//
	// A long body is not buffered: Parse returns the length of the part that is in data, or calls Conn.Skip.
	// An error means that the bytes are not (or no longer) of this protocol. It is counted, and Sync is
	// called.
	Parse(dir Dir, data []byte, at int64) (length int, err error)

	// Gap skips size lost bytes of dir and marks the affected events as partial. It reports whether the
	// position behind the gap is known, as it is inside a body of known length. If not, Sync is called, and
	// Gap again for the bytes of the client that Sync has skipped.
	Gap(dir Dir, size int) bool

	// End is called when a side has sent its last byte (FIN).
	End(dir Dir, at int64)

	// Close is called when the connection has ended. It emits the requests that still wait for a reply.
	Close(at int64)
}

// A Ticker is a Parser with time-outs. Tick emits the requests that have waited too long for a reply.
type Ticker interface {
	Tick(at int64)
}

// A TruncatedParser is a Parser that can read the front of a message whose rest was lost. ParseTruncated is
// called before Gap, which follows as usual. data is valid until ParseTruncated returns.
type TruncatedParser interface {
	ParseTruncated(dir Dir, data []byte, at int64)
}

// NopParser implements the methods of Parser that have nothing to do in many protocols. A parser embeds it
// and overrides the methods that it needs.
type NopParser struct{}

// Gap returns false: the position in the stream is lost.
func (NopParser) Gap(Dir, int) bool { return false }

// End does nothing. Pending events are emitted on Close.
func (NopParser) End(Dir, int64) {}

// Close does nothing: the parser has no pending events.
func (NopParser) Close(int64) {}
