package dns

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"tidegate/pipeline"
	"tidegate/protocols"
	"tidegate/protocols/protocoltest"
)

// packHeader returns a header with these flags and numbers of questions and of records of each section.
func packHeader(flags uint16, counts ...uint16) []byte {
	header := binary.BigEndian.AppendUint16([]byte{0x12, 0x34}, flags)
	for _, count := range append(counts, 0, 0, 0, 0)[:4] {
		header = binary.BigEndian.AppendUint16(header, count)
	}
	return header
}

// inStream returns message behind its length.
func inStream(message []byte) []byte {
	return append([]byte{byte(len(message) >> 8), byte(len(message))}, message...)
}

// The questions "a A IN" and ". A IN", and a record of the root without data.
const (
	questionA    = "\x01a\x00\x00\x01\x00\x01"
	questionRoot = "\x00\x00\x01\x00\x01"
	emptyRecord  = "\x00\x00\x10\x00\x01\x00\x00\x00\x00\x00\x00"
)

// TestHeaderDecidesByItsFlagsAndNumbers: RFC 1035 section 4.1.1, RFC 6895 section 2.2 for the operations.
func TestHeaderDecidesByItsFlagsAndNumbers(t *testing.T) {
	check := func(what string, want protocols.Match, flags uint16, counts ...uint16) {
		t.Helper()
		message := append(packHeader(flags, counts...), questionA...)
		for _, count := range counts[1:] {
			message = append(message, strings.Repeat(emptyRecord, int(count))...)
		}
		// A datagram that is not certain may still be one on the port of DNS.
		if got := isDatagram(message); got != (want == protocols.Yes) {
			t.Errorf("%s: datagram %t", what, got)
		}
		if got := matchStream(inStream(message)); got != want {
			t.Errorf("%s: stream %d, want %d", what, got, want)
		}
	}
	check("query", protocols.Yes, 0, 1)
	check("all flags of a query", protocols.Yes, flagRD|flagAD|flagCD|flagAA, 1)
	check("all flags of an answer", protocols.Yes, flagQR|flagAA|flagTC|flagRD|flagRA|flagAD|flagCD|15, 1)
	check("reserved bit", protocols.No, flagZ, 1)
	check("reserved bit of an answer", protocols.No, flagQR|flagZ, 1)
	check("recursion available in a query", protocols.No, flagRA, 1)
	check("truncation in a query", protocols.No, flagTC, 1)
	check("response code in a query", protocols.No, 1, 1)
	for op, want := range []protocols.Match{2, 2, 2, 0, 2, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0} { // 3 and 7 to 15 are unassigned
		check("operation of a query", want, uint16(op)<<11, 1)
		check("operation of an answer", want, flagQR|uint16(op)<<11, 1)
	}
	check("two questions", protocols.No, 0, 2)
	check("no question", protocols.No, flagQR, 0)
	check("answer in a query", protocols.No, 0, 1, 1)
	check("answer in an update", protocols.Yes, 5<<11, 1, 1)
	check("SOA in the query of an IXFR", protocols.Yes, 0, 1, 0, 1)
	check("two authorities in a query", protocols.No, 0, 1, 0, 2)
	check("four additional records in a query", protocols.Yes, 0, 1, 0, 0, 4)
	check("five additional records in a query", protocols.No, 0, 1, 0, 0, 5)
	check("records of all sections in an answer", protocols.Yes, flagQR, 1, 1, 2, 3)
}

// TestRecordsOfAnAnswerFitIntoAMessage of 65,535 bytes, of which the smallest takes eleven.
func TestRecordsOfAnAnswerFitIntoAMessage(t *testing.T) {
	for records, want := range map[uint16]bool{5957: true, 5958: false} {
		if got := isPlausibleHeader(packHeader(flagQR, 1, 0, records)); got != want {
			t.Errorf("%d records: %t", records, got)
		}
	}
}

// TestFrontOfAHeaderIsEnoughToRefuseIt checks each length of the front of a stream.
func TestFrontOfAHeaderIsEnoughToRefuseIt(t *testing.T) {
	check := func(message []byte, from int) {
		t.Helper()
		for size := range len(message) {
			want := protocols.More
			if size >= from {
				want = protocols.No
			}
			if got := matchStream(inStream(message)[:2+size]); got != want {
				t.Errorf("%x: %d bytes: %d, want %d", message, size, got, want)
			}
		}
	}
	check(append(packHeader(0, 1), questionA...), headerSize+len(questionA)+1)
	check(append(packHeader(flagZ, 1), questionA...), 4)
	check(append(packHeader(0, 2), questionA...), 6)
	check(append(packHeader(0, 1, 1), questionA...), 12)
	check(append(packHeader(0, 1), "\x41"...), 0)                                                     // too short for a question
	check(append(packHeader(0, 1), "\x40a\x00\x00\x01\x00\x01"...), 13)                               // a reserved label
	check(append(packHeader(0, 1), "\x01a\x00\x00\x01\x00\x02 more of the message"...), 12+7)         // class 2
	check(append(packHeader(0, 1), "\x01a\x00\x00\x01\x00\x01"[:6]...), headerSize+6)                 // its end cuts the question off
	check(append(packHeader(0, 1), "\x01a\x00\x00\x00\x00\x01 type 0"...), headerSize+len(questionA)) //
}

// TestQuestionHasATypeAndAClassInUse: IANA's registries of types and classes.
func TestQuestionHasATypeAndAClassInUse(t *testing.T) {
	check := func(typ, class uint16, want bool) {
		t.Helper()
		if got := isPlausibleQuestion(binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, typ), class)); got != want {
			t.Errorf("type %d, class %d: %t", typ, class, got)
		}
	}
	for typ, want := range map[uint16]bool{
		0: false, 1: true, 299: true, 300: false, 32767: false, 32768: true, 32769: true, 32770: false, 65279: false, 65280: true, 65535: true,
	} {
		check(typ, 1, want)
	}
	check(1, 0, false)
	check(1, 255, true)
	check(1, 256, false)
}

// TestHeaderIsReadableIfItsNumbersFit: one question takes at least five bytes, one record eleven.
func TestHeaderIsReadableIfItsNumbersFit(t *testing.T) {
	check := func(size int, want bool, counts ...uint16) {
		t.Helper()
		message := append(packHeader(flagQR, counts...), make([]byte, size)...)
		if got := isReadable(message); got != want {
			t.Errorf("%v in %d bytes: datagram %t", counts, size, got)
		}
		if got := isReadableStream(inStream(message)); got != want && size > 0 {
			t.Errorf("%v in %d bytes: stream %t", counts, size, got)
		}
	}
	check(0, false, 0)
	check(100, false, 0)
	check(5, true, 1)
	check(4, false, 1)
	check(15, true, 3)
	check(14, false, 3)
	for section := range 3 {
		counts := []uint16{0, 0, 0, 0}
		counts[1+section] = 2
		check(22, true, counts...)
		check(21, false, counts...)
	}
	check(5+11+11+11, true, 1, 1, 1, 1)
	check(5+11+11+11-1, false, 1, 1, 1, 1)
	if isReadable(packHeader(flagQR, 1)[:11]) {
		t.Error("eleven bytes are no header")
	}
}

// TestFrontOfAStreamIsReadableByItsHeader: of an incomplete message the header must be an ordinary one, and what has come
// of its questions well formed.
func TestFrontOfAStreamIsReadableByItsHeader(t *testing.T) {
	check := func(what string, data []byte, want bool) {
		t.Helper()
		if got := isReadableStream(data); got != want {
			t.Errorf("%s: %t", what, got)
		}
	}
	whole := inStream(append(packHeader(0, 1), questionA...))
	check("header", whole[:14], true)
	check("part of a header", whole[:13], true)
	for size := 2; size < len(whole); size++ {
		check("front of one question", whole[:size], true)
	}
	three := inStream(append(packHeader(flagQR|5, 3, 1), strings.Repeat(questionA, 3)+"\x00\x00\x01\x00\x01\x00\x00\x00\x00\x00\x00"...))
	for size := 2; size < len(three); size++ {
		check("front of three questions and a record", three[:size], true)
	}
	check("no question", inStream(append(packHeader(flagQR, 0, 1), make([]byte, 40)...))[:8], false)
	check("too many questions", inStream(append(packHeader(0, 4), make([]byte, 19)...))[:8], false)
	check("as many as fit", inStream(append(packHeader(0, 4), make([]byte, 20)...))[:8], true)
	check("too many records", inStream(append(packHeader(flagQR, 1, 2), make([]byte, 26)...))[:14], false)
	check("as many records as fit", inStream(append(packHeader(flagQR, 1, 2), make([]byte, 27)...))[:14], true)
	check("too short for a question", []byte{0, headerSize + minQuestion - 1, 0, 7}, false)
	check("a bad name", inStream(append(packHeader(0, 2), "\x01a\x00\x00\x01\x00\x01\x80a\x00\x00\x01\x00\x01"...))[:24], false)
	strange := inStream(append(packHeader(flagZ, 1), questionA...))
	check("header with a reserved bit", strange[:14], false)
	check("message with a reserved bit", strange, true)
	check("message with a reserved bit, lacking a byte", strange[:len(strange)-1], false)
	refusal := inStream(packHeader(flagQR|1, 0))
	for size := 2; size <= len(refusal); size++ {
		check("refusal", refusal[:size], true)
	}
	check("refusal and more", append(slices.Clone(refusal), 9), true)
	check("no refusal", inStream(packHeader(flagQR, 0)), false)
}

// TestRefusalIsABareHeaderWithAnErrorCode: any other byte but those of the ID and the flags is 0.
func TestRefusalIsABareHeaderWithAnErrorCode(t *testing.T) {
	check := func(data []byte, want bool) {
		t.Helper()
		if got := isRefusal(data); got != want {
			t.Errorf("%x: %t", data, got)
		}
	}
	refusal := packHeader(flagQR|flagRD|flagRA|5, 0)
	check(refusal, true)
	check(refusal[:11], false)
	check(append(slices.Clone(refusal), 0), false)
	check(packHeader(5, 0), false)             // a query
	check(packHeader(flagQR|flagRA, 0), false) // no error
	for i := 4; i < headerSize; i++ {
		counted := slices.Clone(refusal)
		counted[i] = 1
		check(counted, false)
	}
}

// TestNamesHaveAtMost255Octets: RFC 1035 section 2.3.4.
func TestNamesHaveAtMost255Octets(t *testing.T) {
	label := func(size int) string { return string(rune(size)) + strings.Repeat("x", size) }
	name := label(63) + label(63) + label(63)
	for last, want := range map[int]error{61: nil, 62: errName} {
		wire := []byte(name + label(last) + "\x00")
		if end, err := skipName(wire, 0); err != want || err == nil && end != len(wire) { //nolint:errorlint // the walk wraps nothing
			t.Errorf("%d octets: %d, %v", len(wire), end, err)
		}
		dst, _, err := appendName([]byte("before"), wire, 0)
		if (err == nil) != (want == nil) || err != nil && string(dst) != "before" {
			t.Errorf("%d octets: %q, %v", len(wire), dst, err)
		}
	}
}

// TestRecordEndsWithItsMessage: neither its fixed fields nor its data reach beyond it.
func TestRecordEndsWithItsMessage(t *testing.T) {
	wire := []byte("..\x01a\x00\x00\x10\x00\x01\x00\x00\x0e\x10\x00\x02\x01x")
	read, err := readRecord(wire, 2)
	if want := (record{typ: 16, class: 1, ttl: 3600, data: 15, end: 17}); err != nil || read != want {
		t.Errorf("%+v, %v, want %+v", read, err, want)
	}
	for size := 2; size < len(wire); size++ {
		if _, err := readRecord(wire[:size], 2); err == nil {
			t.Errorf("%d of %d bytes are read", size, len(wire))
		}
	}
	question := []byte("..\x01a\x00\x00\x01\x00\x01")
	for size := 2; size <= len(question); size++ {
		if off, err := skipQuestion(question[:size], 2); (err == nil) != (size == len(question)) || err == nil && off != size {
			t.Errorf("%d of %d bytes of a question: %d, %v", size, len(question), off, err)
		}
	}
}

// TestAnswersOfAMessageAreBounded: records beyond the bounds are counted, and the event is marked.
func TestAnswersOfAMessageAreBounded(t *testing.T) {
	check := func(what, record string, count, want int) {
		t.Helper()
		var parsed message
		data := append(packHeader(flagQR, 1, uint16(count)), questionRoot+strings.Repeat(record, count)...)
		if err := parsed.parse(data); err != nil || parsed.truncated {
			t.Fatalf("%s: %v, truncated %t", what, err, parsed.truncated)
		}
		if len(parsed.answers) != want || parsed.cut != (want < count) || int(parsed.an) != count {
			t.Errorf("%s: %d answers of %d, cut %t", what, len(parsed.answers), parsed.an, parsed.cut)
		}
	}
	check("as many as are kept", emptyRecord, maxAnswers, maxAnswers)
	check("one more", emptyRecord, maxAnswers+1, maxAnswers)
	// 4 strings of 255 bytes in quotes, with blanks between them: 1,031 characters, which are cut to 1,027.
	long := "\x00\x00\x10\x00\x01\x00\x00\x00\x00\x04\x00" + strings.Repeat("\xff"+strings.Repeat("x", 255), 4)
	var parsed message
	data := append(packHeader(flagQR, 1, 50), questionRoot+strings.Repeat(long, 50)...)
	if err := parsed.parse(data); err != nil || len(parsed.answers) != 32 || !parsed.cut || len(parsed.text) != 1+32*1027 {
		t.Errorf("%v, %d answers with %d characters", err, len(parsed.answers), len(parsed.text))
	}
}

// TestQuestionsBehindTheFirstAreSkipped: the message is marked, and one that ends within them has no answers.
func TestQuestionsBehindTheFirstAreSkipped(t *testing.T) {
	var parsed message
	whole := append(packHeader(flagQR, 3, 1), questionA+questionRoot+questionRoot+emptyRecord...)
	if err := parsed.parse(whole); err != nil || !parsed.truncated || parsed.qd != 3 || len(parsed.answers) != 1 || parsed.an != 1 || parsed.qtype != typeA {
		t.Errorf("%v, %+v", err, parsed)
	}
	err := parsed.parse(whole[:headerSize+len(questionA)+7])
	if err == nil || !parsed.hasQuestion || !parsed.truncated || parsed.an != 0 || string(parsed.text) != "a" {
		t.Errorf("%v, %+v", err, parsed)
	}
	if err := parsed.parse(whole[:headerSize+len(questionA)-1]); err == nil || parsed.hasQuestion {
		t.Errorf("a question without its last byte: %v, %+v", err, parsed)
	}
}

// TestExtendedResponseCodeIsThatOfAnOPTRecord in any section behind the answers.
func TestExtendedResponseCodeIsThatOfAnOPTRecord(t *testing.T) {
	const opt = "\x00\x00\x29\x10\x00\x01\x00\x00\x00\x00\x00" // BADVERS has the upper bits 1
	for _, counts := range [][]uint16{{1, 0, 1, 1}, {1, 0, 0, 2}} {
		for _, records := range []string{opt + emptyRecord, emptyRecord + opt} {
			var parsed message
			if err := parsed.parse(append(packHeader(flagQR, counts...), questionA+records...)); err != nil || parsed.truncated || parsed.rcode != 16 {
				t.Errorf("%v: %v, code %d", counts, err, parsed.rcode)
			}
			data := append(packHeader(flagQR, counts...), questionA+records...)
			if _ = parsed.parse(data[:len(data)-1]); !parsed.truncated {
				t.Errorf("%v: the last record lacks a byte", counts)
			}
		}
	}
}

// TestParserHoldsItsWaitingQueries, and emits the oldest to make room.
func TestParserHoldsItsWaitingQueries(t *testing.T) {
	parser := &parser{}
	emitted := 0
	protocol := Protocol
	protocol.New = func() protocols.Parser { return parser }
	set := protocols.NewSet([]protocols.Protocol{protocol}, protocols.Default(), nil)
	conn := set.Open(protocols.Info{Transport: pipeline.Transport_UDP}, func(*pipeline.Event) { emitted++ })
	send := func(dir protocols.Dir, flags, id uint16) {
		data := append(packHeader(flags, 1), questionA...)
		binary.BigEndian.PutUint16(data, id)
		conn.Datagram(dir, data, int64(id))
	}
	check := func(held, sent int) {
		t.Helper()
		if parser.Held() != held*protocols.EventBytes || emitted != sent {
			t.Errorf("%d queries are held, %d emitted, want %d and %d", parser.Held()/protocols.EventBytes, emitted, held, sent)
		}
	}
	for id := range uint16(maxWaiting) {
		send(protocols.Client, 0, id)
	}
	check(maxWaiting, 0)
	send(protocols.Client, 0, maxWaiting)
	check(maxWaiting, 1)
	send(protocols.Server, flagQR, 1) // the oldest one now
	check(maxWaiting-1, 2)
	send(protocols.Server, flagQR, 500)
	check(maxWaiting-2, 3)
	send(protocols.Client, 0, 600)
	check(maxWaiting-1, 3)
	conn.Close(1)
	check(0, 3+maxWaiting-1)
	if parser.Reset(conn); cap(parser.waiting) != 0 {
		t.Error("the space of hundreds of queries stays with the parser")
	}
}

// TestShortMessageOverTCPIsSkippedOnceMessagesWereRead: a server does so; before, it is another protocol.
func TestShortMessageOverTCPIsSkippedOnceMessagesWereRead(t *testing.T) {
	query := string(inStream(append(packHeader(0, 1), questionA...)))
	check := func(want int, midStream bool, data ...string) {
		t.Helper()
		conversation := protocoltest.Conversation{Port: 53, MidStream: midStream}
		for _, part := range data {
			conversation.Steps = append(conversation.Steps, protocoltest.Client(part))
		}
		if events := conversation.Events(list); len(events) != want {
			t.Errorf("%q: %q, want %d events", data, lines(events), want)
		}
	}
	check(2, false, query, "\x00\x03abc", query)
	check(2, false, query, "\x00\x00", query)
	check(2, false, query, "\x00", "\x0babcdefghijk", query)
}

// TestTransferEndsAtItsLastMessage: no more messages come of a transfer that its server refuses or answers with nothing.
func TestTransferEndsAtItsLastMessage(t *testing.T) {
	const soa = "\x00\x00\x06\x00\x01\x00\x00\x00\x00\x00\x16" + "\x00\x00" + "01234567890123456789"
	type answer struct {
		records uint16
		data    string
	}
	check := func(what string, want int, typ byte, flags uint16, answers ...answer) {
		t.Helper()
		question := "\x01z\x00\x00" + string([]byte{typ}) + "\x00\x01"
		steps := []protocoltest.Step{protocoltest.Client(string(inStream(append(packHeader(0, 1), question...))))}
		for _, a := range answers {
			message := append(packHeader(flagQR|flags, 1, a.records), question+a.data...)
			steps = append(steps, protocoltest.Server(string(inStream(message))))
		}
		events := protocoltest.Conversation{Port: 53, Steps: steps}.Events(list)
		if len(events) != want {
			t.Errorf("%s: %q, want %d events", what, lines(events), want)
		}
	}
	empty := answer{}
	check("refused", 2, typeAXFR, 5, answer{1, soa}, empty)
	check("empty", 2, typeAXFR, 0, empty, empty)
	check("one message", 2, typeAXFR, 0, answer{3, soa + emptyRecord + soa}, empty)
	check("two messages", 2, typeAXFR, 0, answer{2, soa + emptyRecord}, answer{2, emptyRecord + soa}, empty)
	check("the last record is no SOA", 1, typeAXFR, 0, answer{3, soa + soa + emptyRecord}, answer{2, emptyRecord + soa})
	check("one SOA", 1, typeAXFR, 0, answer{1, soa}, answer{1, emptyRecord}, answer{1, soa})
	check("an incremental one", 1, typeIXFR, 0, answer{2, soa + emptyRecord}, answer{1, soa}, answer{1, soa})
	check("an incremental one of one message", 1, typeIXFR, 0, answer{2, soa + soa}, answer{1, soa})
	check("no transfer", 2, typeSOA, 0, answer{1, soa}, answer{1, soa})
}
