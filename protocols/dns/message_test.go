package dns

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/net/dns/dnsmessage"

	"tidegate/pipeline/lineartest"
	"tidegate/protocols"
)

// unhex decodes hexadecimal digits with blanks between them.
func unhex(t testing.TB, digits string) []byte {
	t.Helper()
	data, err := hex.DecodeString(strings.Join(strings.Fields(digits), ""))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// packQuery returns a query for name as package dnsmessage packs it.
func packQuery(t testing.TB, id uint16, name string, typ dnsmessage.Type) []byte {
	t.Helper()
	message := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: id, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: typ, Class: dnsmessage.ClassINET}},
	}
	return pack(t, message)
}

// packReply returns the answer to the query of packQuery, with the given records.
func packReply(
	t testing.TB, id uint16, name string, typ dnsmessage.Type, rcode dnsmessage.RCode, records ...dnsmessage.ResourceBody,
) []byte {
	t.Helper()
	message := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: id, Response: true, RecursionDesired: true, RecursionAvailable: true, RCode: rcode},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: typ, Class: dnsmessage.ClassINET}},
	}
	for _, body := range records {
		message.Answers = append(message.Answers, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(name), Class: dnsmessage.ClassINET, TTL: 60},
			Body:   body,
		})
	}
	return pack(t, message)
}

// pack returns the wire format of a message.
func pack(t testing.TB, message dnsmessage.Message) []byte {
	t.Helper()
	data, err := message.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestNamesAreWrittenLowerCaseAndEscaped checks the escapes of RFC 4343 section 2.1.
func TestNamesAreWrittenLowerCaseAndEscaped(t *testing.T) {
	check := func(wire, want string) {
		t.Helper()
		got, end, err := appendName(nil, []byte(wire), 0)
		if err != nil || string(got) != want || end != len(wire) {
			t.Errorf("%q: %q, end %d, %v; want %q", wire, got, end, err, want)
		}
	}
	check("\x00", ".")
	check("\x03WwW\x07ExAmple\x03com\x00", "www.example.com")
	check("\x03a.b\x01c\x00", `a\.b.c`)
	check("\x03a\\b\x00", `a\\b`)
	check("\x04a b\x00\x00", `a\032b\000`)
	check("\x02\xc3\xa9\x00", `\195\169`)
	check("\x01*\x04_dmz\x00", "*._dmz")
	check("\x3f"+strings.Repeat("x", 63)+"\x00", strings.Repeat("x", 63))
}

// TestCompressionPointersAreBounded: a pointer may point forward. The number of pointers in a name is limited.
func TestCompressionPointersAreBounded(t *testing.T) {
	check := func(data string, offset int, want string, ok bool) {
		t.Helper()
		got, _, err := appendName(nil, []byte(data), offset)
		if ok != (err == nil) || ok && string(got) != want {
			t.Errorf("%q at %d: %q, %v; want %q, %v", data, offset, got, err, want, ok)
		}
	}
	check("\x03com\x00\x01a\xc0\x00", 5, "a.com", true)
	check("\x03com\x00\x01a\xc0\x00\x01b\xc0\x05", 9, "b.a.com", true)
	check("\xc0\x00", 0, "", false)                                               // itself
	check("\x01a\xc0\x00", 0, "", false)                                          // its own labels: a loop
	check("\xc0\x02\xc0\x00", 2, "", false)                                       // two that point at each other
	check("\xc0\x04\x00\x00\x03com\x00", 0, "com", true)                          // forward
	check("\x01a\xc0", 0, "", false)                                              // half a pointer
	check("\x01a\x40b\x00", 0, "", false)                                         // reserved
	check("\x05ab", 0, "", false)                                                 // ends early
	check("\x01a", 0, "", false)                                                  // no end
	check(strings.Repeat("\x3f"+strings.Repeat("x", 63), 4)+"\x00", 0, "", false) // 257 octets

	// A chain of pointers, each to the one before it.
	chain := []byte{0}
	for i := range maxHops + 1 {
		to := max(0, 1+2*(i-1))
		if i == 0 {
			to = 0
		}
		chain = append(chain, 0xc0|byte(to>>8), byte(to))
	}
	check(string(chain), 1+2*(maxHops-1), ".", true)
	check(string(chain), 1+2*maxHops, "", false)
}

// TestRecordDataIsWrittenAsInAZoneFile checks each record type, by its number. Malformed data is written in
// the form of RFC 3597.
func TestRecordDataIsWrittenAsInAZoneFile(t *testing.T) {
	check := func(typ uint16, data, want string) {
		t.Helper()
		// The record stands behind 200 bytes of the message, and its text behind other text.
		wire, before := append(make([]byte, 200), unhex(t, data)...), strings.Repeat("t", 2*maxData)
		parsed := message{data: wire, text: []byte(before)}
		parsed.appendData(record{typ: typ, data: 200, end: len(wire)})
		if got, cut := strings.TrimPrefix(string(parsed.text), before), strings.Contains(want, "…"); got != want || parsed.cut != cut {
			t.Errorf("%s %s:\n got %s\nwant %s", typeName(typ), data, got, want)
		}
	}
	name := "02 6e73 07 6578616d706c65 00" // ns.example
	check(1, "c0000201", "192.0.2.1")
	check(1, "c00002", `\# 3 c00002`)
	check(28, "20010db8 00000000 00000000 00000001", "2001:db8::1")
	check(28, "00000000 00000000 0000ffff c0000201", "::ffff:192.0.2.1")
	check(2, name, "ns.example")
	check(5, "00", ".")
	check(12, name+"00", `\# 13 026e73076578616d706c650000`) // a byte too many
	check(6, name+"01 61 00 00000001 00000002 00000003 00000004 00000005", "ns.example a 1 2 3 4 5")
	check(15, "000a"+name, "10 ns.example")
	check(16, "03 612262 00 02 c3a9", `"a\"b" "" "é"`)
	check(16, "01 09 01 ff", `"\009" "\255"`)
	check(16, "05 61", `\# 2 0561`)
	check(16, "", "")
	check(13, "03 583836 05 4c696e7578", `"X86" "Linux"`)
	check(33, "0001 0002 1f90"+name, "1 2 8080 ns.example")
	check(35, "0064 000a 01 75 07 4532552b736970 00 00", `100 10 "u" "E2U+sip" "" .`)
	check(257, "00 05 6973737565 6c65", `0 issue "le"`)
	check(257, "80 05 6973737565", `128 issue ""`)
	check(256, "000a 0001 78", `10 1 "x"`)
	check(43, "ec45 05 01 2bb183", "60485 5 1 2bb183")
	check(48, "0101 03 08 0102ff", "257 3 8 AQL/")
	check(46, "0001 08 02 00000e10 5f5e1000 5f5e0000 1234 01 61 00 0102ff", "A 8 2 3600 20200913122640 20200913111824 4660 a AQL/")
	check(47, name+"0006 400000000003", "ns.example A RRSIG NSEC")
	check(50, "01 00 000a 01 ab 05 0000000000 0001 40", "1 0 10 ab 00000000 A")
	check(51, "01 00 0000 00", "1 0 0 -")
	check(52, "03 01 01 abcd", "3 1 1 abcd")
	check(44, "01 02 ff", "1 2 ff")
	check(64, "0000"+name, "0 ns.example")
	check(65, "0001 00 0001 0006 02 6832 02 6833 0002 0000 0003 0002 01bb 0004 0004 c0000201 0006 0010 20010db8000000000000000000000001",
		`1 . alpn="h2,h3" no-default-alpn port=443 ipv4hint=192.0.2.1 ipv6hint=2001:db8::1`)
	check(65, "0001 00 0000 0004 0001 0003 0007 0004 2f717b7d 029a 0002 6162", `1 . mandatory=alpn,port dohpath="/q{}" key666="ab"`)
	check(65, "0001 00 0001 0009 02 6832", `\# 10 00010000010009026832`) // a parameter that is longer than the record
	check(65, "0001 00 0004 0003 c00002", `\# 10 00010000040003c00002`)
	check(7, name, "ns.example")
	check(39, name, "ns.example")
	check(14, name+"01 61 00", "ns.example a")
	check(17, "01 61 00"+name, "a ns.example")
	check(18, "0001"+name, "1 ns.example")
	check(36, "000a"+name, "10 ns.example")
	check(19, "03 333131", `"311"`)
	check(20, "03 313233 01 34", `"123" "4"`)
	check(37, "0001 0002 08 0102ff", "1 2 8 AQL/")
	check(25, "0101 03 08 0102ff", "257 3 8 AQL/")
	check(60, "0101 03 08 0102ff", "257 3 8 AQL/")
	check(59, "ec45 05 01 2bb183", "60485 5 1 2bb183")
	check(32768, "ec45 05 01 2bb183", "60485 5 1 2bb183")
	check(53, "03 01 01 abcd", "3 1 1 abcd")
	check(24, "0001 08 02 00000e10 5f5e1000 5f5e0000 1234 01 61 00 0102ff", "A 8 2 3600 20200913122640 20200913111824 4660 a AQL/")
	check(49, "0102ff", "AQL/") // RFC 4701
	check(61, "0102ff", "AQL/") // RFC 7929
	check(62, "00000042 0003 0004 60000008", "66 3 A NS AAAA")
	check(63, "00000001 01 02 abcd", "1 1 2 abcd")
	check(47, name+"0000", `\# 14 `+"026e73076578616d706c65000000") // a window of no bytes
	check(47, name+"0001 40 0101 40", "ns.example A CAA")
	check(50, "01 00 000a 02 abcd 05 0000000000", "1 0 10 abcd 00000000")
	check(10, "0102", `\# 2 0102`)
	check(65280, "", `\# 0`)
	check(5, "c0c8", `\# 2 c0c8`) // a pointer to itself
	check(257, "00 01 7e 61", `0 ~ "a"`)
	for _, blankOrDEL := range []string{"20", "7f"} { // a tag has letters and digits, RFC 8659 section 4.1
		check(257, "00 02 61"+blankOrDEL+" 61", `\# 5 000261`+blankOrDEL+"61")
	}
	check(16, "04 20 7e 7f 80", `" ~\127\128"`)
	check(16, "02 c2a0 02 c29f 03 efbfbd", "\"\u00a0\" \"\\194\\159\" \"\\239\\191\\189\"") // C1 controls and U+FFFD are escaped
	check(47, name+"0120 "+strings.Repeat("00", 31)+"01", "ns.example TYPE511")
	check(47, name+"0021 "+strings.Repeat("00", 33), `\# 47 026e73076578616d706c65000021`+strings.Repeat("00", 33)) // windows have 32 bytes
	check(65, "0001 00 0008 0000 0009 0000", "1 . ohttp key9")
	check(65, "0001 00 0005 0003 0102ff", "1 . ech=AQL/")
	check(49, strings.Repeat("00", 768), strings.Repeat("A", maxData))
	check(49, strings.Repeat("00", 769), strings.Repeat("A", maxData-maxData/4)+"…"+strings.Repeat("A", maxData/4-2)+"==")
	check(10, strings.Repeat("61", 505), `\# 505 `+strings.Repeat("61", 505))
	check(10, strings.Repeat("61", 1024), `\# 1024 `+strings.Repeat("61", 380)+"…"+strings.Repeat("61", 128))
	long := strings.TrimSpace(strings.Repeat(`"`+strings.Repeat("a", 255)+`" `, 8))
	check(99, strings.Repeat("ff"+strings.Repeat("61", 255), 8), long[:maxData-maxData/4]+"…"+long[len(long)-maxData/4:])
}

// TestExtendedResponseCodeIsReadFromEDNS: the upper bits of the code are in the OPT record.
func TestExtendedResponseCodeIsReadFromEDNS(t *testing.T) {
	data := unhex(t, "0001 8180 0001 0000 0000 0001 01 61 00 0001 0001  00 0029 1000 01 00 0000 0000")
	var parsed message
	if err := parsed.parse(data); err != nil || parsed.truncated || responseCode(parsed.rcode) != "BADVERS" {
		t.Errorf("%v, cut %v, %s", err, parsed.truncated, responseCode(parsed.rcode))
	}
}

// TestNumbersHaveTheMnemonicsOfIANA also checks numbers without a mnemonic.
func TestNumbersHaveTheMnemonicsOfIANA(t *testing.T) {
	check := func(got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	check(typeName(1), "A")
	check(typeName(65), "HTTPS")
	check(typeName(65280), "TYPE65280")
	check(typeName(0), "TYPE0")
	check(typeName(32769), "DLV")
	check(responseCode(3), "NXDOMAIN")
	check(responseCode(23), "BADCOOKIE")
	check(responseCode(4000), "RCODE4000")
	check(classText(1), "IN")
	check(classText(7), "CLASS7")
	check(strings.Join(headerFlags(nil, 0xffff), " "), "AA TC RD RA AD CD")
}

// TestDetectIsStrict: detect recognises DNS on any port and rejects data that resembles it.
func TestDetectIsStrict(t *testing.T) {
	check := func(data []byte, want protocols.Match) {
		t.Helper()
		if got := detect(protocols.Client, data); got != want {
			t.Errorf("%x: %d, want %d", data, got, want)
		}
	}
	query := packQuery(t, 7, "example.com.", dnsmessage.TypeA)
	answer := packReply(t, 7, "example.com.", dnsmessage.TypeA, 0, &dnsmessage.AResource{A: [4]byte{192, 0, 2, 1}})
	check(query, protocols.Yes)
	check(answer, protocols.Yes)
	prefix := func(data []byte) []byte { return append([]byte{byte(len(data) >> 8), byte(len(data))}, data...) }
	check(prefix(query), protocols.Yes)
	check(prefix(answer), protocols.Yes)
	check(prefix(answer)[:2+12+13+4], protocols.Yes) // its question is there
	check(prefix(query)[:20], protocols.More)
	check(prefix(query)[:1], protocols.More)
	check(answer[:len(answer)-1], protocols.More) // cut: the port decides
	check(append(query, 0), protocols.More)       // a byte too many
	check(make([]byte, 12), protocols.More)       // empty messages: what follows decides
	check(make([]byte, 13), protocols.More)
	check(append(make([]byte, 12), prefix(query)...), protocols.Yes)
	check(append([]byte("\x00\x01x\x00\x00"), prefix(query)...), protocols.Yes)
	check([]byte("\x00\x00\x00\x08\x04\xd2\x16\x2f"), protocols.No) // of PostgreSQL
	check([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), protocols.No)
	check([]byte("*1\r\n$4\r\nPING\r\n"), protocols.No)
	check(unhex(t, "16030100c8010000c40303000102030405060708"), protocols.No)
	check(unhex(t, "4a0000000a382e302e333600"), protocols.No)
	check(unhex(t, "1b00041004fa00004e5450000000000000000000000000000000000000000000"), protocols.No) // NTP-like

	for id := range 1 << 16 { // no id makes a stream of a datagram or the other way round
		query[0], query[1] = byte(id>>8), byte(id)
		if !isDatagram(query) || matchStream(query) == protocols.Yes {
			t.Fatalf("id %d is taken for a length", id)
		}
	}
}

// TestSyncFindsTheNextMessage starts at each byte of a message.
func TestSyncFindsTheNextMessage(t *testing.T) {
	query := packQuery(t, 7, "example.com.", dnsmessage.TypeA)
	framed := append([]byte{0, byte(len(query))}, query...)
	for cut := range framed {
		junk := framed[len(framed)-cut:]
		skip, match := resync(protocols.Client, append(bytes.Clone(junk), framed...))
		if skip != cut || match != protocols.Yes {
			t.Errorf("behind %d bytes of a message: %d, %d", cut, skip, match)
		}
	}
	if skip, match := resync(protocols.Client, bytes.Repeat([]byte{0xff}, 5000)); skip < 4990 || match != protocols.More {
		t.Errorf("nothing: %d, %d", skip, match)
	}
}

// FuzzMessage compares the parser with golang.org/x/net. A message that x/net unpacks must be read with the
// same question and answers. No input may panic or exceed the limits.
func FuzzMessage(f *testing.F) {
	f.Add(packQuery(f, 7, "example.com.", dnsmessage.TypeA))
	f.Add(packReply(f, 7, "example.com.", dnsmessage.TypeMX, 0, &dnsmessage.MXResource{Pref: 1, MX: dnsmessage.MustNewName("mx.example.com.")},
		&dnsmessage.TXTResource{TXT: []string{"a", "b"}}, &dnsmessage.AAAAResource{}))
	f.Add([]byte("\x00\x01\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01\xc0\x0c\x00\x41\x00\x01\x00\x00\x00\x01\x00\x05\x00\x01\x00\x00\x01"))
	f.Fuzz(func(t *testing.T, data []byte) {
		lineartest.CheckRepeated(t, lineartest.Default, data, func(data []byte) {
			if len(data) > maxMessage {
				return
			}
			detect(protocols.Client, data)
			resync(protocols.Server, data)
			var parsed message
			err := parsed.parse(data)
			if len(parsed.text) > maxText+3*maxData+2*4*maxName || len(parsed.answers) > maxAnswers {
				t.Fatalf("%d characters, %d answers", len(parsed.text), len(parsed.answers))
			}

			// The other parser.
			var parser dnsmessage.Parser
			header, err2 := parser.Start(data)
			if err2 != nil {
				return
			}
			questions, err2 := parser.AllQuestions()
			if err2 != nil || len(questions) == 0 {
				return
			}
			if err != nil {
				t.Fatalf("x/net reads the question, we return %v", err)
			}
			want, _, _ := appendName(nil, data, headerSize)
			got := parsed.text[parsed.question.from:parsed.question.to]
			if !bytes.Equal(got, want) || uint16(questions[0].Type) != parsed.qtype || header.ID != parsed.id {
				t.Fatalf("question %s, id %d", got, parsed.id)
			}
			records, err := parser.AllAnswers()
			// x/net does not check that the data of an address ends in the message.
			if err == nil && !parsed.truncated && len(records) > len(parsed.answers) && len(parsed.answers) < maxAnswers && len(parsed.text) < maxText {
				t.Fatalf("x/net has %d answers, we %d", len(records), len(parsed.answers))
			}
		})
	})
}

// BenchmarkParse parses a query and its answer of two records with tidegate, gopacket and x/net.
func BenchmarkParse(b *testing.B) {
	query := packQuery(b, 7, "www.example.com.", dnsmessage.TypeA)
	answer := packReply(b, 7, "www.example.com.", dnsmessage.TypeA, 0,
		&dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName("web.example.com.")}, &dnsmessage.AResource{A: [4]byte{192, 0, 2, 1}})
	b.Run("tidegate", func(b *testing.B) {
		b.ReportAllocs()
		var parsed message
		for b.Loop() {
			if parsed.parse(query) != nil || parsed.parse(answer) != nil || len(parsed.answers) != 2 {
				b.Fatal("parse")
			}
		}
	})
	b.Run("gopacket", func(b *testing.B) {
		b.ReportAllocs()
		var decoded layers.DNS
		for b.Loop() {
			if decoded.DecodeFromBytes(query, gopacket.NilDecodeFeedback) != nil || decoded.DecodeFromBytes(answer, gopacket.NilDecodeFeedback) != nil {
				b.Fatal("parse")
			}
		}
	})
	b.Run("xnet", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var unpacked dnsmessage.Message
			if unpacked.Unpack(query) != nil || unpacked.Unpack(answer) != nil {
				b.Fatal("parse")
			}
		}
	})
}
