// Package reassembly puts the bytes of TCP connections into order.
//
// It works on sequence numbers and bytes. It is independent of frames, addresses and protocols, and has no
// clock of its own. collector/sessions decodes packets, finds the Conn of each, and calls Conn.Segment. The
// Conn calls its Handler with the bytes of both directions in order, the gaps between them, and observations
// for statistics. During one call of Segment, Release or Flush the Handler may be called any number of times.
// It may call the methods of the Conn that return something, and SetRTT, but none that delivers or drops
// bytes.
//
//	conn.go         SYN, ACK; the state of the connection
//	close.go        FIN, RST, and what takes an end back
//	half_stream.go  the state of one direction: offsets, window
//	stream.go       a segment's bytes: delivered at once, compared with delivered ones, or passed to reorder.go
//	delivered.go    copies of the bytes that were delivered last
//	syn_data.go     the payload of a SYN
//	urgent.go       urgent data
//	stray.go        segments out of place, and how the stream finds back
//	reorder.go      segments that wait, and when their gaps are given up
//	pool.go         buffers, and the limit on the memory of all Conns of a worker
//
// # Offsets
//
// A position in a direction is a 64-bit offset. Offset 0 is the byte behind the SYN, or the first byte that
// was captured. A 32-bit sequence number stands for the offset nearest to the next byte that is to be
// delivered, so the wrap at 2^32 is no special case. A FIN takes one offset, as it takes one sequence number.
//
// # Order
//
// Three rules decide when bytes are delivered.
//
//   - Bytes that are next in order go to the Handler at once, as a slice of Segment.Payload, without a copy.
//   - A gap is given up when its bytes have been acknowledged for longer than Config.Grace: a capture often
//     records a segment later than the acknowledgement that covers it. Without an acknowledgement it is given up
//     when the bytes behind it have waited for Config.GapTimeout, or when memory runs out.
//   - A segment waits while bytes that it acknowledges are missing from the other direction. A parser
//     therefore never gets a reply before its request. Nothing waits for a direction of which no segment was
//     captured.
//
// # States of a connection
//
//	new ─────── first segment ─────────────▶ open
//	open ────── an acknowledgement ────────▶ established
//	any state ─ RST with the expected number ▶ closing
//	any state ─ both directions have ended ▶ closing
//	any state ─ another RST in the window ─▶ in doubt
//	in doubt ── any segment of the receiver ▶ the state before
//	closing ─── new bytes, or acks of them ▶ the state before: the end was not accepted
//
// The caller decides when a closing connection is over. It then calls Flush, and Init before it uses the Conn
// again.
//
// # Bounds
//
// A Conn keeps at most Config.ConnBuffer bytes, and at most maxSegments segments of a direction. All Conns of
// a Pool together keep at most the Pool's limit. A segment is charged the size of its buffer. Beyond a bound
// the oldest gap is given up.
//
// A Conn and its Pool are used by one goroutine. Bytes in order are delivered without allocation.
package reassembly

import "time"

// A Dir is a direction of a connection, 0 or 1. It names the side that sent.
type Dir uint8

// Flags of a TCP header.
const (
	FIN = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
)

// A Segment holds the fields of a TCP segment that a Conn uses.
type Segment struct {
	Seq, Ack uint32
	Flags    uint8
	Window   uint16 // as in the header, not scaled
	Urgent   uint16 // the urgent pointer, valid with URG
	Options  []byte // of the header, as far as captured
	Payload  []byte // as captured; valid until Conn.Segment returns
	Size     int    // of the payload on the wire, ≥ len(Payload)
	Doubtful bool   // the receiver may have dropped it
	Time     int64  // ns; passed to the Handler with the segment's bytes
}

func (s *Segment) hasFlag(flag uint8) bool { return s.Flags&flag != 0 }

// A Handler receives the streams of one Conn.
type Handler interface {
	// Data receives the next bytes of a direction. b is valid until Data returns; at is the Time of its
	// Segment.
	Data(d Dir, b []byte, at int64)
	// Gap reports that the next n bytes of a direction were given up.
	Gap(d Dir, n int, why GapReason)
	// End reports, once, that a direction is complete: every byte before its FIN was delivered or given up.
	// Data and Gap may still follow, from a hostile or broken sender that continues behind its FIN.
	End(d Dir)
	// Observe reports a property of a segment; at is the Time of the segment.
	Observe(d Dir, o Observation, at int64)
}

// An Observation is a property of one segment that statistics count. A segment may have several.
type Observation uint8

// Observations.
const (
	FirstSYN        Observation = iota // the first SYN of its side
	FirstSYNACK                        // the first SYN-ACK of its side
	RepeatedSYN                        // a SYN with the sequence number of the first
	RepeatedSYNACK                     // a SYN-ACK with the sequence number of the first
	Data                               // payload, new or not
	PureACK                            // an acknowledgement without payload
	CloseRequest                       // a FIN
	ValidReset                         // a RST in the window
	Retransmission                     // bytes that were sent again
	Reordered                          // bytes that later bytes overtook on the way
	OverlapConflict                    // bytes that differ from earlier bytes at the same offset
	ZeroWindow                         // the window of its sender has just closed
	OutsideWindow                      // dropped: outside the window of its receiver
	UrgentByte                         // a byte of urgent data, which is not part of the stream
	DoubtfulDropped                    // dropped: others were sent in place of doubtful bytes
	BeforeStart                        // dropped: before the first byte of a stream whose beginning was not seen
	CopyDropped                        // delivered bytes that can be compared no more, and that the receiver has not acknowledged
	NotRepeated                        // it continues a message behind a GapConflict whose front is not delivered again
)

// A GapReason is the reason why bytes were given up.
type GapReason uint8

// Reasons of gaps.
const (
	GapAcked    GapReason = iota // the receiver acknowledged bytes that were not captured
	GapTimeout                   // the receiver did not acknowledge them, and later bytes waited too long
	GapBudget                    // later bytes took too much memory
	GapCut                       // the capture cut the packet
	GapClose                     // the connection is over
	GapResync                    // the sequence numbers jumped
	GapConflict                  // what follows is in the place of other bytes, which were delivered before
	NumGapReasons
)

var gapReasonNames = [NumGapReasons]string{"acknowledged", "timeout", "budget", "cut", "close", "resync", "conflict"}

// String returns the value of the label "reason" of metrics.
func (r GapReason) String() string { return gapReasonNames[r] }

// Config bounds the Conns that share it.
type Config struct {
	// ConnBuffer bounds the memory of the segments that wait in one Conn, in bytes.
	ConnBuffer int
	// Grace is the time that missing bytes may still come after the receiver has acknowledged them.
	Grace time.Duration
	// GapTimeout is the time that segments wait behind a gap that the receiver has not acknowledged.
	GapTimeout time.Duration
	// KeepLast makes the later bytes count where waiting segments overlap and differ; by default the earlier
	// bytes count. Delivered bytes are never replaced.
	KeepLast bool
}
