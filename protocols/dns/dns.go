// Package dns reads the Domain Name System as it is spoken to a server: over UDP, and over TCP behind two bytes of length.
//
// In come datagrams, or the bytes of a stream, from the framework in package protocols. Out goes one event for each query with
// its answer, found by the message's id and its question:
//
//   - A query that is answered is one event, dns.type "answer", emitted when the answer is seen; its duration is the time between.
//   - A query that is not answered within Timeout of packet time, or until the connection is over, is an event of dns.type "query".
//   - An answer that no query waits for (the capture began late, the answer came twice or too late) is an event of dns.type
//     "answer" without a query part: no bytes and no duration of the client's, marked partial. It names the question that it
//     repeats, so that rules and feeds see it.
//   - A query that is sent again is a transaction of its own, as for tshark: n queries and n answers are n events, paired in the
//     order in which they were sent; what is left over is unanswered. So the first of two equal queries has the time that the
//     client really waited.
//   - A zone transfer (AXFR, IXFR) is one event, however many messages the server needs.
//
// mDNS, LLMNR and NetBIOS look the same on the wire and are other protocols: their ports are left alone.
//
// A message whose header and question can be read but whose records end early is reported as far as it goes, marked partial;
// record data that is not what its type says is shown as \# hex (RFC 3597), never refused: those are what an analyst looks for.
//
// Specifications: RFC 1035 section 4 (messages), RFC 7766 (TCP), RFC 6891 (EDNS), RFC 4343 section 2.1 (names as text),
// RFC 3597 (unknown types), RFC 9460 (SVCB), and the RFC of each record type.
package dns

import (
	"encoding/binary"
	"errors"

	"tidegate/pipeline"
	"tidegate/protocols"
)

// Protocol is the row for protocols/all.
var Protocol = protocols.Protocol{
	Name:         "dns",
	Dataset:      pipeline.Dataset_DNS,
	UDP:          true,
	TCP:          true,
	Ports:        []uint16{53},
	ExcludePorts: []uint16{5353, 5355, 137}, // mDNS, LLMNR, NetBIOS names
	Detect:       detect,
	Sync:         resync,
	New:          func() protocols.Parser { return &parser{} },
}

// detect takes b for a datagram or for the front of a stream: the two cannot be mixed up, since what is the number of questions
// of the one is the flags of the other, and neither 1 as flags nor any flags as a number of questions is let through.
func detect(_ protocols.Dir, b []byte) protocols.Match {
	if datagram(b) {
		return protocols.Yes
	}
	if m := stream(b); m != protocols.No {
		return m
	}
	if readable(b) || refusal(b) {
		return protocols.More // looks like it, yet something in it is odd: the port decides
	}
	return protocols.No
}

// datagram tells whether b is one well-formed message and nothing else, strict enough for any port.
func datagram(b []byte) bool {
	if !plausible(b, true) {
		return false
	}
	off, err := skipQuestion(b, headerSize)
	if err != nil || !plausibleQuestion(b[off-4:]) {
		return false
	}
	for range records(b) {
		if off, err = skipRecord(b, off); err != nil {
			return false
		}
	}
	return off == len(b)
}

// readable tells whether b begins with a header and a question that can be read, whatever the flags are and whatever follows.
func readable(b []byte) bool {
	if len(b) < headerSize || b[4] != 0 || b[5] == 0 || b[5] > maxQuestions {
		return false
	}
	off, err := skipQuestion(b, headerSize)
	return err == nil && plausibleQuestion(b[off-4:])
}

// refusal tells whether b is the header alone of an answer that says what is wrong: a server that could not read the question, or
// does not want to, need not repeat it.
func refusal(b []byte) bool {
	return len(b) == headerSize && b[2]&0x80 != 0 && b[3]&0x0f != 0 && records(b) == 0 && b[4]|b[5] == 0
}

// stream judges the front of a stream: the length, then a message at least as far as its question.
func stream(b []byte) protocols.Match {
	if len(b) < 2 {
		return protocols.More
	}
	n := int(binary.BigEndian.Uint16(b))
	m := b[2:]
	if n < headerSize+5 || !plausible(m, false) {
		return protocols.No
	}
	if len(m) < headerSize {
		return protocols.More
	}
	m = m[:min(n, len(m))]
	off, err := skipQuestion(m, headerSize)
	switch {
	case err == nil && plausibleQuestion(m[off-4:]):
		return protocols.Yes
	case errors.Is(err, errShort) && len(m) < n:
		return protocols.More
	}
	return protocols.No
}

// resync looks in a stream for the next place that could be the length of a message. What it cannot judge yet is at most the
// header and one question at the end of b, so the search is linear.
func resync(_ protocols.Dir, b []byte) (int, protocols.Match) {
	for i := range b {
		if m := stream(b[i:]); m != protocols.No {
			return i, m
		}
	}
	return len(b), protocols.More
}

// plausible judges as much of a header as there is. It wants exactly one question, flags that the direction can have, and no
// more records than fit.
func plausible(b []byte, whole bool) bool {
	if whole && len(b) < headerSize+5 {
		return false
	}
	if len(b) < 4 {
		return true
	}
	flags := binary.BigEndian.Uint16(b[2:])
	response, op, rcode := flags&flagQR != 0, flags>>11&15, flags&15
	if flags&flagZ != 0 || op > maxOpCode || op == 3 || !response && (rcode != 0 || flags&(flagRA|flagTC) != 0) {
		return false
	}
	if len(b) < 6 {
		return true
	}
	if binary.BigEndian.Uint16(b[4:]) != 1 {
		return false
	}
	if len(b) < headerSize {
		return true
	}
	an, ns, ar := binary.BigEndian.Uint16(b[6:]), binary.BigEndian.Uint16(b[8:]), binary.BigEndian.Uint16(b[10:])
	if !response && op == 0 {
		return an == 0 && ns <= 1 && ar <= 4
	}
	return records(b)*minRecord <= maxMessage
}

// plausibleQuestion judges the type and the class behind a question's name.
func plausibleQuestion(b []byte) bool {
	t, c := binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	return t != 0 && (t < 300 || t == 32768 || t == 32769 || t >= 65280) && className(c) != ""
}

// records is the number of records behind the question that the header announces.
func records(b []byte) int {
	return int(binary.BigEndian.Uint16(b[6:])) + int(binary.BigEndian.Uint16(b[8:])) + int(binary.BigEndian.Uint16(b[10:]))
}
