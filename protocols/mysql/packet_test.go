package mysql

import (
	"strings"
	"testing"

	"tidegate/protocols"
)

// TestFieldsOfAPayloadAreRead as the protocol encodes them, and never beyond the end.
func TestFieldsOfAPayloadAreRead(t *testing.T) {
	number := func(text string, want uint64, left int, bad bool) {
		t.Helper()
		r := payloadReader{rest: []byte(text)}
		if got := r.lenencInt(); got != want || len(r.rest) != left || r.bad != bad {
			t.Errorf("%x: %d, %d bytes are left, bad %t; want %d, %d, %t", text, got, len(r.rest), r.bad, want, left, bad)
		}
	}
	number("\x00", 0, 0, false)
	number("\xfax", 250, 1, false)
	number("\xfb", 0, 0, true)
	number("\xff", 0, 0, true)
	number("\xfc\x01\x02x", 0x201, 1, false)
	number("\xfd\x01\x02\x03x", 0x30201, 1, false)
	number("\xfe\x01\x02\x03\x04\x05\x06\x07\x08x", 0x807060504030201, 1, false)
	number("", 0, 0, true)
	number("\xfc\x01", 0, 0, true)
	number("\xfd\x01\x02", 0x201, 0, true)
	number("\xfe\x01\x02\x03\x04\x05", 0x4030201, 0, true)

	text := func(read func(*payloadReader) []byte, text, want, left string, bad bool) {
		t.Helper()
		r := payloadReader{rest: []byte(text)}
		if got := read(&r); string(got) != want || string(r.rest) != left || r.bad != bad {
			t.Errorf("%q: %q, %q is left, bad %t; want %q, %q, %t", text, got, r.rest, r.bad, want, left, bad)
		}
	}
	text((*payloadReader).lenencString, "\x03abcd", "abc", "d", false)
	text((*payloadReader).lenencString, "\x03ab", "", "", true)
	text((*payloadReader).lenencString, "\xfc\x02\x00abc", "ab", "c", false)
	text((*payloadReader).nulString, "ab\x00cd", "ab", "cd", false)
	text((*payloadReader).nulString, "\x00cd", "", "cd", false)
	text((*payloadReader).nulString, "ab", "ab", "", false)

	value := func(typ byte, text, left string) {
		t.Helper()
		r := payloadReader{rest: []byte(text)}
		if r.skipValue(typ); string(r.rest) != left || r.bad {
			t.Errorf("a value of type %#x: %q is left of %q, bad %t", typ, r.rest, text, r.bad)
		}
	}
	const digits = "0123456789"
	for typ, size := range map[byte]int{
		0x06: 0, 0x01: 1, 0xf4: 1, 0x02: 2, 0x0d: 2, 0x03: 4, 0x09: 4, 0x04: 4, 0x08: 8, 0x05: 8,
	} {
		value(typ, digits, digits[size:])
	}
	for _, typ := range []byte{0x07, 0x0a, 0x0b, 0x0c} { // lengths of 0, 4, 7 or 11 bytes
		value(typ, "\x00"+digits, digits)
		value(typ, "\x04"+digits, digits[4:])
	}
	for _, typ := range []byte{0x00, 0x0f, 0xfd, 0xfc, 0xf6} {
		value(typ, "\x03"+digits, digits[3:])
		value(typ, "\xfc\x03\x00"+digits, digits[3:])
	}
}

// TestAttributesBeforeAStatementAreSkipped: the number of parameters and of their sets, then NULL bits, types, names and
// values. Without the capability they are the statement.
func TestAttributesBeforeAStatementAreSkipped(t *testing.T) {
	check := func(text, want string) {
		t.Helper()
		p := &parser{capabilities: clientQueryAttrs, capabilitiesKnown: true}
		if got := p.skipAttributes([]byte(text)); string(got) != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
		unknown := &parser{}
		if got := unknown.skipAttributes([]byte(text)); string(got) != want {
			t.Errorf("%q, the login is unknown: %q, want %q", text, got, want)
		}
		without := &parser{capabilitiesKnown: true}
		if got := without.skipAttributes([]byte(text)); string(got) != text {
			t.Errorf("%q, no attributes: %q", text, got)
		}
	}
	check("\x00\x01SELECT 1", "SELECT 1")
	check("\x01\x01\x00\x01\x03\x00\x01a"+"1234"+"SELECT 1", "SELECT 1")
	check("\x02\x01\x01\x01\x03\x00\x01a\x0f\x00\x00"+"\x02xy"+"SELECT 1", "SELECT 1") // the first one is NULL
	types := strings.Repeat("\x01\x00\x00", 9)
	check("\x09\x01\x00\x00\x01"+types+"123456789SELECT 1", "SELECT 1")
	check("\x09\x01\x00\x01\x01"+types+"12345678SELECT 1", "SELECT 1") // the last one is NULL
	unknown := &parser{}
	for _, text := range []string{"SELECT 1", "\x11\x01SELECT 1", "\x00\x02SELECT 1", "\x00"} {
		if got := unknown.skipAttributes([]byte(text)); string(got) != text {
			t.Errorf("%q, the login is unknown: %q", text, got)
		}
	}
}

func packetOf(seq byte, payload string) string {
	return string([]byte{byte(len(payload)), byte(len(payload) >> 8), byte(len(payload) >> 16), seq}) + payload
}

func checkMatch(t *testing.T, what string, got, want protocols.Match) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %d, want %d", what, got, want)
	}
}

// TestGreetingIsRecognisedByItsFixedBytes, and every front of it may become one.
func TestGreetingIsRecognisedByItsFixedBytes(t *testing.T) {
	greeting := func(version string) string {
		return packetOf(0, "\x0a"+version+"\x00"+"\x01\x00\x00\x00"+"challeng"+"\x00"+"\xff\xff\x08\x02\x00\xff\xff\x15"+strings.Repeat("\x00", 11))
	}
	whole := greeting("8.0.36")
	zero := 4 + 1 + len("8.0.36") + 1 + 4 + 8
	for size := range len(whole) + 1 {
		want := protocols.More
		if size > zero {
			want = protocols.Yes
		}
		checkMatch(t, whole[:size], matchGreeting([]byte(whole[:size])), want)
	}
	changed := func(at int, c byte) []byte {
		out := []byte(whole)
		out[at] = c
		return out
	}
	for what, data := range map[string][]byte{
		"sequence 1": changed(3, 1), "protocol 9": changed(4, 9), "a version without a digit": changed(5, 'v'), "a version with a tab": changed(6, '\t'),
		"no zero behind the challenge": changed(zero, 1), "a packet of 64 KiB": changed(2, 1), "no version": []byte(greeting("")),
		"1025 bytes": changed(1, 4), "a packet that ends before the zero": append([]byte{30}, []byte(greeting(strings.Repeat("8", 20)))[1:]...),
		"a version without an end": []byte(packetOf(0, "\x0a"+strings.Repeat("8", 200))),
	} {
		checkMatch(t, what, matchGreeting(data), protocols.No)
	}
	checkMatch(t, "a long version that is cut", matchGreeting([]byte(packetOf(0, "\x0a"+strings.Repeat("8", 200)))[:100]), protocols.More)
	for _, front := range []string{"\x4a\x04", "\x4a\x00\x01", "\x4a\x00\x00\x01"} {
		checkMatch(t, front, matchGreeting([]byte(front)), protocols.No)
	}
	checkMatch(t, "1 KiB", matchGreeting([]byte("\x00\x03\x00")), protocols.More)

	refusal := packetOf(0, "\xff\x10\x04Too many connections")
	checkMatch(t, "a refusal", matchGreeting([]byte(refusal)), protocols.Yes)
	checkMatch(t, "a refusal that is cut", matchGreeting([]byte(refusal[:12])), protocols.More)
	for code, want := range map[int]protocols.Match{999: protocols.No, 1000: protocols.Yes, 4999: protocols.Yes, 5000: protocols.No} {
		data := packetOf(0, "\xff"+string([]byte{byte(code), byte(code >> 8)})+"Too many connections")
		checkMatch(t, "an error", matchGreeting([]byte(data)), want)
	}
	checkMatch(t, "an error with a tab", matchGreeting([]byte(packetOf(0, "\xff\x10\x04Too\tmany connections"))), protocols.No)
	checkMatch(t, "an error with a DEL", matchGreeting([]byte(packetOf(0, "\xff\x10\x04Too\x7fmany connections"))), protocols.No)
}

// TestLoginIsRecognisedByItsFixedBytes where its greeting is missing.
func TestLoginIsRecognisedByItsFixedBytes(t *testing.T) {
	login := packetOf(1, "\x8d\xa6\x0f\x00"+"\x00\x00\x00\x01"+"\x21"+strings.Repeat("\x00", 23)+"root\x00\x00")
	for size := range len(login) + 1 {
		want := protocols.More
		if size >= 32 {
			want = protocols.Yes
		}
		checkMatch(t, "a login", matchLogin([]byte(login[:size])), want)
	}
	changed := func(at int, c byte) []byte {
		out := []byte(login)
		out[at] = c
		return out
	}
	checkMatch(t, "sequence 0", matchLogin(changed(3, 0)), protocols.No)
	checkMatch(t, "31 bytes", matchLogin(changed(0, 31)), protocols.No)
	checkMatch(t, "32 bytes", matchLogin(changed(0, 32)), protocols.Yes)
	checkMatch(t, "more than 4 KiB", matchLogin(changed(1, 16)), protocols.No)
	checkMatch(t, "no protocol 4.1", matchLogin(changed(5, 0xa4)), protocols.No)
	checkMatch(t, "a byte that is reserved", matchLogin(changed(13, 1)), protocols.No)
	checkMatch(t, "the last byte that is reserved", matchLogin(changed(31, 1)), protocols.No)
	checkMatch(t, "the character set", matchLogin(changed(12, 0xff)), protocols.Yes)
}

// TestCommandsHaveTheirLengths: a command without SQL is one if its length fits and another command, or nothing, follows.
func TestCommandsHaveTheirLengths(t *testing.T) {
	for first, kind := range commandKinds {
		if kind.name == "" || kind.text {
			continue
		}
		command := func(size int) string { return packetOf(0, string([]byte{byte(first)})+strings.Repeat("\x00", size-1)) }
		checkMatch(t, kind.name, matchCommand([]byte(command(kind.min))), protocols.More)
		checkMatch(t, kind.name+" alone", syncClient([]byte(command(kind.min))), protocols.Yes)
		if kind.min > 1 {
			checkMatch(t, kind.name+" that is too short", matchCommand([]byte(command(kind.min-1))), protocols.No)
		}
		if kind.max > 0 {
			checkMatch(t, kind.name+" of its length", matchCommand([]byte(command(kind.max))), protocols.More)
			checkMatch(t, kind.name+" that is too long", matchCommand([]byte(command(kind.max+1))), protocols.No)
		}
	}
	ping := packetOf(0, "\x0e")
	checkMatch(t, "a command before a query", syncClient([]byte(ping+packetOf(0, "\x03SELECT 1"))), protocols.Yes)
	checkMatch(t, "a command before a front", syncClient([]byte(ping+"\x05\x00\x00\x00")), protocols.Yes)
	checkMatch(t, "a command before no command", syncClient([]byte(ping+packetOf(1, "\x03SELECT 1"))), protocols.No)
	checkMatch(t, "a command that is cut", syncClient([]byte(packetOf(0, "\x02test")[:6])), protocols.More)
	checkMatch(t, "a command that is longer than is searched", syncClient([]byte(packetOf(0, "\x17"+strings.Repeat("\x00", maxSync)))), protocols.No)
	checkMatch(t, "an empty packet", matchCommand([]byte("\x00\x00\x00\x00\x0e")), protocols.No)
	checkMatch(t, "an unknown command", matchCommand([]byte(packetOf(0, "\x0b"))), protocols.No)
	checkMatch(t, "a command beyond the last one", matchCommand([]byte(packetOf(0, "\x20"))), protocols.No)
	checkMatch(t, "a bulk execution", matchCommand([]byte(packetOf(0, "\xfa123456"))), protocols.More)
	checkMatch(t, "a bulk execution that is too short", matchCommand([]byte(packetOf(0, "\xfa12345"))), protocols.No)
}

// TestRepliesAreFoundByTheirNumbers: three packets with the numbers of a sequence, or fewer up to the end.
func TestRepliesAreFoundByTheirNumbers(t *testing.T) {
	ok := "\x00\x00\x00\x02\x00\x00\x00"
	check := func(what, data string, want protocols.Match) {
		t.Helper()
		checkMatch(t, what, syncServer([]byte(data)), want)
	}
	check("OK", packetOf(1, ok), protocols.Yes)
	check("an OK that is cut", packetOf(1, ok)[:9], protocols.More)
	check("a front", "\x07\x00\x00", protocols.More)
	check("a packet of number 0", packetOf(0, ok), protocols.No)
	check("an empty packet", packetOf(1, ""), protocols.No)
	check("a packet of more than is searched", packetOf(1, "\x01"+strings.Repeat("x", maxSync)), protocols.No)
	check("two packets", packetOf(1, "\x01")+packetOf(2, "column"), protocols.Yes)
	check("a wrong number", packetOf(1, "\x01")+packetOf(3, "column"), protocols.No)
	check("three packets", packetOf(1, "\x01")+packetOf(2, "column")+packetOf(3, "x")+"\x01\x00\x00", protocols.Yes)
	check("three packets before one of another sequence", packetOf(1, "\x01")+packetOf(2, "column")+packetOf(3, "x")+packetOf(9, "x"), protocols.No)
	check("packets within a reply", packetOf(5, "row")+packetOf(6, "row")+packetOf(7, "row"), protocols.Yes)
	for first, least := range map[byte]int{okPacket: 7, eofPacket: 5, errPacket: 3, infilePacket: 2, 0xfc: 3} {
		if !beginsReply(first, least) || beginsReply(first, least-1) {
			t.Errorf("a reply that begins with %#x has at least %d bytes", first, least)
		}
	}
	if !beginsReply(0xfc, 4) || beginsReply(0xfc, 5) || !beginsReply(1, 1) || !beginsReply(0xfa, 2) || beginsReply(1, 3) || beginsReply(0xfd, 1) {
		t.Error("a number of columns has one or two bytes, or three or four behind 0xfc")
	}
}

// TestCutCharactersAreRemoved at the end of a statement.
func TestCutCharactersAreRemoved(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "a": "a", "aé": "aé", "a\xc3": "a", "a€": "a€", "a\xe2\x82": "a", "a\xe2": "a", "a😀": "a😀", "a\xf0\x9f\x98": "a",
		"\xf0": "", "a\x80": "a\x80", "\x80\x80\x80\x80": "\x80\x80\x80\x80",
	} {
		if got := wholeRunes([]byte(text)); string(got) != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
