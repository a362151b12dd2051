// Package protocols is what the bytes say: the contract between a connection and a parser, and the framework that runs parsers.
//
// collector/sessions opens a Conn for every connection and gives it the bytes of both directions in order; the framework finds out
// which protocol they are, hands them to its Parser message by message, and gives on the events that it emits. A protocol is a
// folder; protocols/all is the one list of them. To add one: a folder, a row in all, captures in testdata/<name>; the shared tests
// then run every capture split at every byte, with gaps, and from the middle.
package protocols

import (
	"tidegate/pipeline"
)

// A Dir is a direction of a connection, named by the side that sends.
type Dir uint8

// The two directions.
const (
	Client Dir = iota
	Server
)

// Other is the opposite direction.
func (d Dir) Other() Dir { return d ^ 1 }

// A Match is what Detect thinks of the first bytes of a direction.
type Match uint8

// No: it is not this protocol. More: it may be, more bytes will tell. Yes: it is.
const (
	No Match = iota
	More
	Yes
)

// A Protocol is one that the collector can read.
type Protocol struct {
	Name         string           // the event.dataset
	Dataset      pipeline.Dataset // the same as a number
	UDP          bool             // its messages also come in datagrams
	TCP          bool             // its messages come in streams
	Ports        []uint16         // of the server, a hint; the bytes decide
	Nested       bool             // its messages may begin in the middle of a connection of another protocol, behind a proxy's or STARTTLS's words
	ExcludePorts []uint16         // ports of either side on which another protocol looks the same: it is not tried there, unless the server's is in Ports

	// Detect judges the first bytes of a direction (of UDP, one datagram).
	Detect func(dir Dir, b []byte) Match
	// Sync tells, after a gap or in mid-stream, where in b a message may start again: skip bytes lie before it. Linear, bounded.
	Sync func(dir Dir, b []byte) (skip int, m Match)
	// New makes a parser; parsers are pooled, Reset begins a connection.
	New func() Parser
}

// A Parser turns the bytes of one connection into events. Its methods are called by one goroutine; times are the packets', ns.
type Parser interface {
	Reset(c *Conn)
	// Parse reads one message from the front of b and returns its length, or 0 to be called again when b has grown (of UDP, b
	// is one datagram). b is valid until Parse returns; at is the time of its last byte.
	// A long body is taken as it comes, min(what is left of it, len(b)), hashed or skipped (c.Skip), never gathered.
	// An error means that the bytes are not this protocol (any more): the framework counts it and tries Sync.
	Parse(dir Dir, b []byte, at int64) (n int, err error)
	// Gap tells that n bytes of dir were never seen; what they touch is marked partial. True: they lay inside a body and the
	// parser goes on. False: it lost its place, and Sync finds it again.
	Gap(dir Dir, n int) bool
	End(dir Dir, at int64) // one side has sent its last byte (FIN): what ends with the stream ends here
	Close(at int64)        // the connection is over: what still waits for its answer is emitted as it is
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
