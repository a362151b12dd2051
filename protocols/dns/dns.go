// Package dns parses the Domain Name System between clients and servers: over UDP, and over TCP behind two
// bytes of length.
//
// The framework in package protocols passes datagrams, or the bytes of a stream. A query with its answer is
// one event; they are paired by the id and the question of the message:
//
//   - A query that is answered is an event of dns.type "answer", emitted when the answer is seen. Its
//     duration is the time between the two.
//   - A query that is not answered within Timeout of packet time, or until the connection is over, is an
//     event of dns.type "query".
//   - An answer for which no query waits (the capture began late, the answer came twice or too late) is an
//     event of dns.type "answer" without client bytes and duration, marked partial. Its question is copied
//     from the answer, so that rules and feeds match it.
//   - A query that is sent again is a transaction of its own, as in tshark: n queries and n answers are n
//     events, paired in the order in which they were sent. The duration of the first of two equal queries is
//     therefore the time that the client really waited.
//   - A zone transfer (AXFR, IXFR) is one event, however many messages the server needs.
//
// mDNS, LLMNR and NetBIOS use the same messages but are other protocols: their ports are excluded.
//
// If the header and the question of a message can be parsed but its records end early, the event has the
// records up to there and is marked partial. Malformed record data is written as \# hex (RFC 3597) and not
// rejected, since analysts look for such data.
//
// Specifications: RFC 1035 section 4 (messages), RFC 7766 (TCP), RFC 6891 (EDNS), RFC 4343 section 2.1 (names
// as text), RFC 3597 (unknown types), RFC 9460 (SVCB), and the RFC of each record type.
package dns

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"

	"tidegate/pipeline"
	"tidegate/protocols"
)

// Protocol is DNS.
var Protocol = protocols.Protocol{
	Name:    "dns",
	Dataset: pipeline.Dataset_DNS,
	UDP:     true,
	TCP:     true,
	Ports:   []uint16{53},
	Exclude: isMulticast,
	Detect:  detect,
	Skipped: skippedMessages,
	Sync:    resync,
	New:     func() protocols.Parser { return &parser{} },
}

// multicastPorts are the ports of protocols that have the format of DNS and ask by multicast: mDNS (RFC
// 6762), LLMNR (RFC 4795), NetBIOS names (RFC 1002).
var multicastPorts = []uint16{5353, 5355, 137}

// isMulticast reports whether packets to server are mDNS or LLMNR. A query to one host is DNS whatever the
// port: servers listen on port 5353 too.
func isMulticast(server netip.AddrPort) bool { return server.Addr().Unmap().IsMulticast() }

// detect matches a datagram or the front of a stream. The two cannot be confused: the two bytes of length in
// a stream move the flags to where a datagram has the number of questions. A number of questions (1) is not
// accepted as flags, and no flags are accepted as a number of questions.
func detect(_ protocols.Dir, data []byte) protocols.Match {
	if isDatagram(data) {
		return protocols.Yes
	}
	if match := matchStream(data); match != protocols.No {
		return match
	}
	if front, count := shortMessages(data); front > 0 {
		if match := matchStream(data[front:]); match != protocols.No {
			return match
		}
		if count >= minShort && isShortFront(data[front:]) {
			return protocols.More
		}
	}
	if isReadable(data) || isRefusal(data) || isReadableStream(data) {
		return protocols.More // a plausible front but not well formed: the port decides
	}
	return protocols.No
}

// minShort is the number of short messages at the front of a stream behind which the front of another one is taken for one:
// a request for TLS of PostgreSQL, 00 00 00 08 04 d2 16 2f, looks like an empty message and the front of one.
const minShort = 4

// shortMessages returns the length and the number of the whole messages at the front of a stream that are shorter than a
// header. Servers skip them; some, as CoreDNS, also the empty ones. The front of one could be that of many protocols.
func shortMessages(data []byte) (front, count int) {
	for front+2 <= len(data) {
		length := int(binary.BigEndian.Uint16(data[front:]))
		if length >= headerSize || front+2+length > len(data) {
			break
		}
		front += 2 + length
		count++
	}
	return front, count
}

// isShortFront reports whether data is the front of a message that is shorter than a header.
func isShortFront(data []byte) bool {
	if len(data) < 2 {
		return true
	}
	length := int(binary.BigEndian.Uint16(data))
	return length < headerSize && len(data) < 2+length
}

// skippedMessages returns the length of the messages at the front of a stream that servers skip, up to the first that has
// the end of a line: servers of text protocols answer it.
func skippedMessages(data []byte) int {
	if end := bytes.IndexByte(data, '\n'); end >= 0 {
		data = data[:end]
	}
	front, _ := shortMessages(data)
	return front
}

// isDatagram reports whether data is one well-formed message and nothing else. It is strict enough for any
// port.
func isDatagram(data []byte) bool {
	if !isPlausibleHeader(data) {
		return false
	}
	off, err := skipQuestion(data, headerSize)
	if err != nil || !isPlausibleQuestion(data[off-4:]) {
		return false
	}

	// The records must end exactly where the datagram ends.
	for range recordCount(data) {
		if off, err = skipRecord(data, off); err != nil {
			return false
		}
	}
	return off == len(data)
}

// isReadable reports whether data begins with a header that announces questions or records, and no more than
// fit, whatever they are. On the port of DNS that is enough for an event.
func isReadable(data []byte) bool {
	if len(data) < headerSize {
		return false
	}
	questions, records := int(binary.BigEndian.Uint16(data[4:])), recordCount(data)
	return questions+records > 0 && headerSize+questions*minQuestion+records*minRecord <= len(data)
}

// isReadableStream reports whether data begins with a length and a message of that length that is readable by
// its header, or with the front of one. data has the length.
func isReadableStream(data []byte) bool {
	length, message := int(binary.BigEndian.Uint16(data)), data[2:]
	switch {
	case length == headerSize:
		return isRefusalFront(message[:min(len(message), headerSize)])
	case len(message) < length:
		return isMessageFront(message, length)
	}
	if length < headerSize {
		return false
	}
	questions, records := int(binary.BigEndian.Uint16(message[4:])), recordCount(message)
	return questions+records > 0 && headerSize+questions*minQuestion+records*minRecord <= length
}

// isMessageFront reports whether data can be the front of a message of length bytes: ordinary flags, one or
// more questions, no more records than fit, and questions that are well formed as far as they have come.
func isMessageFront(data []byte, length int) bool {
	if length < headerSize+minQuestion || len(data) >= 4 && !isPlausibleFlags(binary.BigEndian.Uint16(data[2:])) {
		return false
	}
	if len(data) < 6 {
		return true
	}
	questions := int(binary.BigEndian.Uint16(data[4:]))
	if questions == 0 || headerSize+questions*minQuestion > length {
		return false
	}
	if len(data) < headerSize {
		return true
	}
	if headerSize+questions*minQuestion+recordCount(data)*minRecord > length {
		return false
	}
	off, err := headerSize, error(nil)
	for i := 0; i < questions && err == nil; i++ {
		off, err = skipQuestion(data, off)
	}
	return err == nil || errors.Is(err, errShort)
}

// isRefusal reports whether data is the bare header of an answer with an error code: a server that cannot or
// will not read the question need not repeat it.
func isRefusal(data []byte) bool { return len(data) == headerSize && isRefusalFront(data) }

// isRefusalFront reports whether data can be the front of such a header.
func isRefusalFront(data []byte) bool {
	for i, c := range data {
		if i == 2 && c&0x80 == 0 || i == 3 && c&0x0f == 0 || i >= 4 && c != 0 {
			return false
		}
	}
	return true
}

// matchStream matches the front of a stream: two bytes of length, then a message up to its question.
func matchStream(data []byte) protocols.Match {
	if len(data) < 2 {
		return protocols.More
	}
	length := int(binary.BigEndian.Uint16(data))
	message := data[2:]
	if length < headerSize+minQuestion || !isPlausibleHeader(message) {
		return protocols.No
	}
	if len(message) < headerSize {
		return protocols.More
	}

	// The question decides. message is cut to its length, or is the part that has arrived.
	message = message[:min(length, len(message))]
	off, err := skipQuestion(message, headerSize)
	switch {
	case err == nil && isPlausibleQuestion(message[off-4:]):
		return protocols.Yes
	case errors.Is(err, errShort) && len(message) < length:
		return protocols.More
	}
	return protocols.No
}

// resync finds the next position in a stream at which the length of a message may stand. The undecided rest
// at the end of data is at most a header and one question, so the search is linear.
func resync(_ protocols.Dir, data []byte) (int, protocols.Match) {
	for i := range data {
		if match := matchStream(data[i:]); match != protocols.No {
			return i, match
		}
	}
	return len(data), protocols.More
}

// isPlausibleHeader reports whether the available part of a header is plausible: exactly one question, flags
// that a query or an answer can have, and no more records than fit.
func isPlausibleHeader(data []byte) bool {
	if len(data) < 4 {
		return true
	}

	flags := binary.BigEndian.Uint16(data[2:])
	if !isPlausibleFlags(flags) {
		return false
	}
	if len(data) < 6 {
		return true
	}
	// One question.
	if binary.BigEndian.Uint16(data[4:]) != 1 {
		return false
	}
	if len(data) < headerSize {
		return true
	}

	// A query has no answers, and few records of other sections; an answer has no more records than fit.
	an, ns := binary.BigEndian.Uint16(data[6:]), binary.BigEndian.Uint16(data[8:])
	ar := binary.BigEndian.Uint16(data[10:])
	if flags&flagQR == 0 && flags>>11&15 == 0 {
		return an == 0 && ns <= 1 && ar <= 4
	}
	return recordCount(data)*minRecord <= maxMessage
}

// isPlausibleFlags reports whether a query or an answer of a known operation can have flags.
func isPlausibleFlags(flags uint16) bool {
	response, op, rcode := flags&flagQR != 0, flags>>11&15, flags&15
	return flags&flagZ == 0 && op <= maxOpCode && op != 3 && (response || rcode == 0 && flags&(flagRA|flagTC) == 0)
}

// isPlausibleQuestion reports whether data, the bytes after the name of a question, are a type and a class in
// use. Types from 65280 on are for private use.
func isPlausibleQuestion(data []byte) bool {
	typ, class := binary.BigEndian.Uint16(data), binary.BigEndian.Uint16(data[2:])
	return typ != 0 && (typ < 300 || typ == 32768 || typ == 32769 || typ >= 65280) && className(class) != ""
}

// recordCount returns the number of records of all sections according to the header.
func recordCount(data []byte) int {
	answers, authorities := int(binary.BigEndian.Uint16(data[6:])), int(binary.BigEndian.Uint16(data[8:]))
	return answers + authorities + int(binary.BigEndian.Uint16(data[10:]))
}
