package tls

import (
	"slices"
	"strings"
	"testing"
	"time"

	"tidegate/pipeline"
	"tidegate/protocols"
)

// TestFieldsAreReadUpToTheEnd of a message; a read past it is remembered.
func TestFieldsAreReadUpToTheEnd(t *testing.T) {
	fields := cursor{rest: []byte{1, 2, 3, 4, 5, 6, 7, 8}}
	if fields.u8() != 1 || fields.u16() != 0x0203 || fields.u24() != 0x040506 || fields.bad {
		t.Errorf("%v are left", fields.rest)
	}
	if got := fields.take(2); string(got) != "\x07\x08" || fields.bad || fields.take(0) == nil {
		t.Errorf("the last two bytes are %v", got)
	}
	for _, read := range []func(c *cursor) int{(*cursor).u8, (*cursor).u16, (*cursor).u24} {
		short := cursor{}
		if got := read(&short); got != 0 || !short.bad {
			t.Errorf("a number behind the end is %d", got)
		}
	}
	short := cursor{rest: []byte{1, 2, 3}}
	if short.take(4) != nil || !short.bad || short.rest != nil {
		t.Errorf("%v are left", short.rest)
	}
}

// TestGREASEIsNoVersion: RFC 8701. The highest of the others counts, drafts of 1.3 below 1.3.
func TestGREASEIsNoVersion(t *testing.T) {
	for v, want := range map[int]bool{0x0a0a: true, 0x1a1a: true, 0xfafa: true, 0x0a1a: false, 0x0a0b: false, 0x0b0b: false, 0x1301: false, 0: false} {
		if grease(v) != want {
			t.Errorf("%#x is GREASE: %t", v, !want)
		}
	}
	check := func(list string, want uint16) {
		t.Helper()
		if got := highest([]byte(list), 0x0301); got != want {
			t.Errorf("%x: %#x, want %#x", list, got, want)
		}
	}
	check("", 0x0301)
	check("\x03\x03", 0x0303)
	check("\x03\x02\x03\x03\x03\x01", 0x0303)
	check("\x03\x03\x03\x04", 0x0304)
	check("\x7f\x17\x03\x03", 0x7f17)
	check("\x03\x03\x7f\x17", 0x7f17)
	check("\x03\x04\x7f\x17", 0x0304)
	check("\x7f\x17\x03\x04", 0x0304)
	check("\x7f\x17\x7f\x1c\x7f\x18", 0x7f1c)
	check("\x1a\x1a\x03\x03", 0x0303)
	check("\x02\x00\x7e\x01", 0x0301)
	check("\x03\x03\x03", 0x0303)
	for v, want := range map[uint16]string{0x0300: "SSL 3.0", 0x0301: "1.0", 0x0302: "1.1", 0x0303: "1.2", 0x0304: "1.3", 0x7f17: "1.3", 0x0305: "0x0305", 0x1234: "0x1234"} {
		if got := versionName(v); got != want {
			t.Errorf("%#x is %s, want %s", v, got, want)
		}
		if got := isTLS13(v); got != (want == "1.3") {
			t.Errorf("%#x is TLS 1.3: %t", v, got)
		}
	}
}

// TestNamesOfAListAreText: RFC 7301, RFC 6066. Those of GREASE are in hex.
func TestNamesOfAListAreText(t *testing.T) {
	check := func(list string, want ...string) {
		t.Helper()
		if got := protocolNames(nil, []byte(list)); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", list, got, want)
		}
	}
	check("")
	check("\x02h2\x08http/1.1", "h2", "http/1.1")
	check("\x00\x02h2", "h2")
	check("\x02\x0a\x0a\x02h2\x0aacme-tls/1", "0x0a0a", "h2", "acme-tls/1")
	for size := range 255 {
		check(string([]byte{byte(size + 1)})+strings.Repeat("n", size+1), strings.Repeat("n", size+1))
	}
	check("\x02h2\x03ab", "h2")
	check("\x02\xff\xfe\x01\x7f\x01\x1f\x01 ", "0xfffe", "0x7f", "0x1f", " ")
	check(strings.Repeat("\x01a", maxProtocols+1), slices.Repeat([]string{"a"}, maxProtocols)...)

	name := func(list, want string) {
		t.Helper()
		size := string([]byte{byte(len(list) >> 8), byte(len(list))})
		if got := serverName(cursor{rest: []byte(size + list)}); string(got) != want {
			t.Errorf("%q: %q, want %q", list, got, want)
		}
	}
	name("\x00\x00\x03abc", "abc")
	name("\x01\x00\x03xyz\x00\x00\x03abc", "abc")
	name("\x01\x00\x03xyz", "")
	name("\x00\x00\x04abc", "")
	name("", "")
	name("\x00\x00\xff"+strings.Repeat("a", 255), strings.Repeat("a", 255))
	name("\x00\x01\x00"+strings.Repeat("a", 256)+"\x00\x00\x01b", "b")
}

// TestExtensionsOfACutHelloAreRead up to the cut.
func TestExtensionsOfACutHelloAreRead(t *testing.T) {
	check := func(data, hashed string, types ...int) {
		t.Helper()
		var got []int
		var text ja3
		(&hello{}).extensions(&cursor{rest: []byte(data)}, &text, func(typ int, ext cursor) {
			got = append(got, typ)
			if string(ext.rest) != strings.Repeat("x", len(ext.rest)) {
				t.Errorf("%q: extension %d is %q", data, typ, ext.rest)
			}
		})
		if !slices.Equal(got, types) || string(text.text) != hashed {
			t.Errorf("%q: extensions %v, %s; want %v, %s", data, got, text.text, types, hashed)
		}
	}
	check("", "")
	check("\x00", "")
	check("\x00\x00", "")
	check("\x00\x05\x00\x10\x00\x01x", "16", 16)
	check("\x00\x09\x00\x10\x00\x01x\x00\x0b\x00\x00", "16-11", 16, 11)
	check("\x00\x05\x00\x10\x00\x01x\x00\x0b\x00\x00", "16", 16) // behind the length of all
	check("\xff\xff\x00\x10\x00\x01x\x00\x0b\x00\x00", "16-11", 16, 11)
	check("\x00\x09\x00\x10\x00\x01x\x00\x0b\x00\x01", "16-11", 16) // cut: its number is known
	check("\x00\x09\x00\x10\x00\x01x\x00\x0b\x00", "16", 16)
	check("\x00\x08\x0a\x0a\x00\x00\x00\x10\x00\x00", "16", 0x0a0a, 16)
}

// record returns a record of TLS 1.2.
func record(typ byte, body string) string {
	return string([]byte{typ, 3, 3, byte(len(body) >> 8), byte(len(body))}) + body
}

// TestRecordsAreRecognisedByTheirHeaders: RFC 8446 section 5.1, and a longest body as in TLS 1.2.
func TestRecordsAreRecognisedByTheirHeaders(t *testing.T) {
	header := func(data string, want protocols.Match, length int) {
		t.Helper()
		if got, size := matchRecord([]byte(data)); got != want || size != length {
			t.Errorf("%x: %d, %d bytes; want %d, %d", data, got, size, want, length)
		}
	}
	const no, more, yes = protocols.No, protocols.More, protocols.Yes
	header("", more, 0)
	for typ := range 256 {
		want := no
		if typ >= recordChangeCipher && typ <= recordHeartbeat {
			want = more
		}
		header(string([]byte{byte(typ)}), want, 0)
	}
	header("\x16\x02", no, 0)
	header("\x16\x03\x05", no, 0)
	header("\x16\x03\x04\x00", more, 0)
	header("\x16\x03\x00\x00\x01", yes, 1)
	header("\x16\x03\x04\x48\x00", yes, maxRecord)
	header("\x16\x03\x04\x48\x01", no, 0)
	header("\x16\x03\x04\x00\x00", no, 0)
	header("\x17\x03\x04\x00\x00", yes, 0)

	check := func(data string, want protocols.Match) {
		t.Helper()
		if got := detect(protocols.Client, []byte(data)); got != want {
			t.Errorf("%x: %d, want %d", data, got, want)
		}
	}
	hello := "\x01\x00\x00\x26\x03\x03" + strings.Repeat("r", 36)
	for size := range 6 {
		check(record(recordHandshake, hello)[:recordHeader+size], more)
	}
	check(record(recordHandshake, hello)[:recordHeader+6], yes)
	check(record(recordHandshake, "\x02"+hello[1:]), yes)
	check(record(recordHandshake, "\x03"+hello[1:]), no)
	check(record(recordHandshake, "\x01\x00\x00\x25\x03\x03"), no)
	check(record(recordHandshake, "\x01\x01\x00\x00\x03\x03"), yes)
	check(record(recordHandshake, "\x01\x01\x00\x01\x03\x03"), no)
	check(record(recordHandshake, "\x01\x00\x00\x26\x03\x04"), yes)
	check(record(recordHandshake, "\x01\x00\x00\x26\x03\x05"), no)
	check(record(recordHandshake, "\x01\x00\x00\x26\x7f\x17"), yes)
	check(record(recordHandshake, "\x01\x00\x00\x26\x02\x00"), no)
	check(record(recordHandshake, hello[:5]), more)
	check(record(recordHandshake, hello[:5])[:8], more)
	check(record(recordHandshake, hello[:5])+"\x16", more)
	check(record(recordHandshake, hello[:5])+"x", no)
	check(record(recordHandshake, hello[:5])+record(recordHandshake, hello[5:]), yes)
	check(record(recordHandshake, hello[:5])+record(recordAlert, "\x02\x28"), no)
	check(record(recordAlert, "\x02\x28"), yes)
	check(record(recordAlert, "\x01\x00"), yes)
	check(record(recordAlert, "\x02\x28")[:6], more)
	check(record(recordAlert, "\x03\x28"), no)
	check(record(recordAlert, "\x00\x28"), no)
	check(record(recordAlert, "\x02\xff"), no)
	check(record(recordAlert, "\x02\x28\x00"), no)
	check(record(recordAlert, "\x02"), no)
	check(record(recordData, "abc"), no)
	check(record(recordChangeCipher, "\x01"), no)

	sync := func(data string, skip int, want protocols.Match) {
		t.Helper()
		if got, match := resync(protocols.Client, []byte(data)); got != skip || match != want {
			t.Errorf("%x: %d, %d; want %d, %d", data, got, match, skip, want)
		}
	}
	sync("", 0, more)
	sync("xyz", 3, more)
	sync("xyz\x16\x03", 3, more)
	sync("xyz"+record(recordData, "abc"), 3, yes)
	sync("xyz"+record(recordData, "abc")+"\x16", 3, yes)
	sync("xyz"+record(recordData, "abc")[:7], 3, more)
	sync(record(recordData, "abc")+"x", 9, more)
	sync(record(recordData, "abc")+"xy"+record(recordData, "abc"), 10, yes)
}

// opened returns a parser of a connection that has sent the hellos of a version, and its events.
func opened(version uint16) (p *parser, events *[]*pipeline.Event) {
	events = new([]*pipeline.Event)
	set := protocols.NewSet(list, protocols.Default(), nil)
	p = &parser{}
	p.Reset(set.Open(protocols.Info{}, func(event *pipeline.Event) { *events = append(*events, event) }))
	p.event = &pipeline.Event{Tls: &pipeline.TLSHandshake{}, Source: &pipeline.Endpoint{}, Destination: &pipeline.Endpoint{}}
	p.version = version
	p.sides[0].helloSeen, p.sides[1].helloSeen = true, true
	p.sides[0].encrypted, p.sides[1].encrypted = isTLS13(version), isTLS13(version)
	return p, events
}

// TestHandshakeIsFinishedByBothSides: up to 1.2 by an encrypted record behind ChangeCipherSpec, in 1.3 by records of the
// server and one of the client that is longer than an alert.
func TestHandshakeIsFinishedByBothSides(t *testing.T) {
	type step struct {
		dir  protocols.Dir
		typ  byte
		size int
	}
	const client, server = protocols.Client, protocols.Server
	check := func(what string, version uint16, established bool, steps ...step) {
		t.Helper()
		p, events := opened(version)
		for _, s := range steps {
			if p.event != nil {
				p.readRecord(s.dir, s.typ, make([]byte, s.size))
			}
		}
		if got := len(*events) == 1 && (*events)[0].Tls.Established; got != established {
			t.Errorf("%s: established %t, %v", what, got, *events)
		}
		if established && (*events)[0].Outcome != pipeline.Outcome_SUCCESS {
			t.Errorf("%s: %v", what, (*events)[0].Outcome)
		}
	}
	cipher := func(dir protocols.Dir) step { return step{dir, recordChangeCipher, 1} }
	finished := func(dir protocols.Dir) step { return step{dir, recordHandshake, 40} }
	check("1.2", 0x0303, true, cipher(client), finished(client), cipher(server), finished(server))
	check("1.2 without the client's", 0x0303, false, cipher(client), cipher(server), finished(server))
	check("1.2 without the server's", 0x0303, false, cipher(client), finished(client), cipher(server))
	check("1.2 without the change of the cipher", 0x0303, false, step{client, recordData, 40}, step{server, recordData, 40})
	check("1.2 with data", 0x0303, true, cipher(client), step{client, recordData, 40}, cipher(server), step{server, recordData, 40})
	check("1.2 with an encrypted alert", 0x0303, false, cipher(client), step{client, recordAlert, 40}, cipher(server), step{server, recordAlert, 40})
	check("1.3", 0x0304, true, step{server, recordData, 1}, step{client, recordData, maxAlert + 1})
	check("1.3 with what may be an alert", 0x0304, false, step{server, recordData, 1}, step{client, recordData, maxAlert})
	check("1.3 without the server's", 0x0304, false, cipher(server), step{client, recordData, maxAlert + 1})
	check("1.3 with the change of the cipher for middleboxes", 0x0304, false, cipher(client), cipher(server))

	alert := func(body string, name string, over bool) {
		t.Helper()
		p, events := opened(0x0303)
		event := p.event
		p.readRecord(client, recordAlert, []byte(body))
		if event.Tls.Alert != name || (len(*events) == 1) != over || (event.Outcome == pipeline.Outcome_FAILURE) != over {
			t.Errorf("%x: alert %q, over %t, %v", body, event.Tls.Alert, len(*events) == 1, event.Outcome)
		}
	}
	alert("\x02\x28", "handshake_failure", true)
	alert("\x01\x00", "close_notify", true)
	alert("\x01\x70", "unrecognized_name", false)
	alert("\x03\x28", "", false)
	alert("\x00\x00", "", false)
	alert("\x02\xff", "", false)
	alert("\x02\x28\x00", "", false)
	alert("\x02", "", false)
}

// TestHandshakeOfNothingIsNoEvent, and that without a hello of a side is partial.
func TestHandshakeOfNothingIsNoEvent(t *testing.T) {
	check := func(what string, client, server, established bool, alert string, events int, partial bool) {
		t.Helper()
		p, got := opened(0x0303)
		p.sides[0].helloSeen, p.sides[1].helloSeen = client, server
		p.event.Tls.Established, p.event.Tls.Alert, p.event.Timestamp, p.lastAt = established, alert, 100, 150
		p.Close(999)
		if len(*got) != events || events > 0 && ((*got)[0].Partial != partial || (*got)[0].Duration != 50) || p.event != nil {
			t.Errorf("%s: %v", what, *got)
		}
		if p.Close(999); len(*got) != events {
			t.Errorf("%s: it is emitted twice", what)
		}
	}
	check("nothing", false, false, false, "", 0, false)
	check("an alert", false, false, false, "close_notify", 1, true)
	check("the client's hello", true, false, false, "", 1, false)
	check("the client's hello of a handshake that succeeded", true, false, true, "", 1, true)
	check("the server's hello", false, true, false, "", 1, true)
	check("both hellos", true, true, true, "", 1, false)
	p, got := opened(0x0303)
	p.event.Timestamp, p.lastAt = 150, 100
	if p.finishHandshake(); (*got)[0].Duration != 0 {
		t.Errorf("a duration of %d", (*got)[0].Duration)
	}
}

// TestMessagesOfAHandshakeAreGathered over records, up to a bound; a longer one is skipped. A gap drops what was gathered.
func TestMessagesOfAHandshakeAreGathered(t *testing.T) {
	message := func(typ byte, size int) string {
		return string([]byte{typ, byte(size >> 16), byte(size >> 8), byte(size)}) + strings.Repeat("m", size)
	}
	longest := maxHandshake - 4
	for size, skipped := range map[int]bool{1: false, 300: false, longest: false, longest + 1: true, longest + 5000: true, 1 << 20: true} {
		for _, step := range []int{1, 3, 1000, 1 << 21} {
			p, _ := opened(0)
			p.sides[protocols.Server].helloSeen = false
			data := message(20, size) + message(serverHello, 50)
			for at := 0; at < len(data); at += step {
				p.readHandshake(protocols.Server, []byte(data[at:min(at+step, len(data))]))
			}
			if !p.sides[protocols.Server].helloSeen || p.event.Partial != skipped || p.sides[protocols.Server].skip != 0 || len(p.sides[protocols.Server].message) != 0 {
				t.Errorf("%d bytes, %d at a time: the hello behind it is seen %t, partial %t", size, step, p.sides[protocols.Server].helloSeen, p.event.Partial)
			}
		}
	}
	p, _ := opened(0)
	if p.Held() != 0 {
		t.Errorf("%d bytes are held", p.Held())
	}
	for dir := range protocols.Dir(2) {
		p.readHandshake(dir, []byte(message(20, 30000)[:20000]))
	}
	if got := cap(p.sides[0].message) + cap(p.sides[1].message); p.Held() != got || got < 40000 {
		t.Errorf("%d of %d bytes are held", p.Held(), got)
	}
	if known := p.Gap(protocols.Client, 5); known || len(p.sides[0].message) != 0 || len(p.sides[1].message) != 20000 || !p.event.Partial {
		t.Errorf("behind a gap: the position is known %t, %d and %d bytes", known, len(p.sides[0].message), len(p.sides[1].message))
	}
	p.sides[1].skip = 7
	if p.Gap(protocols.Server, 5); p.sides[1].skip != 0 {
		t.Errorf("%d bytes are skipped behind a gap", p.sides[1].skip)
	}
	p.sides[0].message, p.sides[1].message = make([]byte, 5, 8<<10), make([]byte, 5, 8<<10+1)
	if p.Reset(p.conn); cap(p.sides[0].message) != 8<<10 || cap(p.sides[1].message) != 0 || len(p.sides[0].message) != 0 || p.event != nil {
		t.Errorf("buffers of %d and %d bytes are kept", cap(p.sides[0].message), cap(p.sides[1].message))
	}
}

// TestHelloOfTheServerDecides: the second one behind a HelloRetryRequest, whether a session is resumed, and from where on
// everything is encrypted.
func TestHelloOfTheServerDecides(t *testing.T) {
	hello := func(random, session, extensions string) []byte {
		return []byte("\x03\x03" + random + string([]byte{byte(len(session))}) + session + "\x13\x01\x00" + string([]byte{0, byte(len(extensions))}) + extensions)
	}
	random := strings.Repeat("r", 32)
	const version13 = "\x00\x2b\x00\x02\x03\x04"
	open := func() *parser {
		p, _ := opened(0)
		p.sides[protocols.Server].helloSeen = false
		p.offeredSession = []byte("session")
		return p
	}
	check := func(what string, p *parser, message []byte, seen, resumed, encrypted bool, version uint16) {
		t.Helper()
		p.setServerHello(message)
		side := &p.sides[protocols.Server]
		if side.helloSeen != seen || p.event.Tls.Resumed != resumed || side.encrypted != encrypted || p.sides[0].encrypted != encrypted || p.version != version {
			t.Errorf("%s: seen %t, resumed %t, encrypted %t, version %#x", what, side.helloSeen, p.event.Tls.Resumed, side.encrypted, p.version)
		}
	}
	check("1.2", open(), hello(random, "", ""), true, false, false, 0x0303)
	check("1.2 with another session", open(), hello(random, "other", ""), true, false, false, 0x0303)
	check("1.2 with the session", open(), hello(random, "session", ""), true, true, false, 0x0303)
	check("1.3", open(), hello(random, "session", version13), true, false, true, 0x0304)
	check("1.3 with a key that both have", open(), hello(random, "", version13+"\x00\x29\x00\x02\x00\x00"), true, true, true, 0x0304)
	p := open()
	p.sides[0].encrypted, p.sides[1].finished = true, true
	check("a HelloRetryRequest", p, hello(string(helloRetryRandom), "", version13), false, false, false, 0x0304)
	if p.sides[1].finished || p.event.Partial {
		t.Error("what came before a HelloRetryRequest counts")
	}
	check("the hello behind it", p, hello(random, "", version13), true, false, true, 0x0304)
	check("another one", p, hello(random, "session", ""), true, false, true, 0x0304)
	p = open()
	p.sides[0].helloSeen = false
	if p.setServerHello(hello(string(helloRetryRandom), "", version13)); !p.event.Partial {
		t.Error("the first hello of the client is missing")
	}
}

// TestEndOfACertificateFitsIntoItsColumn.
func TestEndOfACertificateFitsIntoItsColumn(t *testing.T) {
	at := func(text string) time.Time {
		parsed, err := time.Parse(time.DateTime, text)
		if err != nil {
			t.Fatal(err)
		}
		return parsed
	}
	first, last := at("1900-01-01 00:00:00"), at("2262-04-11 23:47:16")
	for given, want := range map[time.Time]int64{
		{}: 0, first: first.UnixNano(), first.Add(-time.Second): first.UnixNano(), last: last.UnixNano(), at("9999-12-31 23:59:59"): last.UnixNano(),
		at("2026-11-28 01:02:03"): at("2026-11-28 01:02:03").UnixNano(),
	} {
		if got := unixNano(given); got != want {
			t.Errorf("%v: %d, want %d", given, got, want)
		}
	}
}
