package mysql

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"tidegate/pipeline"
	"tidegate/protocols"
)

// TestPreparedStatementsAreBounded, by their number, their texts and the order of those that were removed. A model keeps
// the newest ones.
func TestPreparedStatementsAreBounded(t *testing.T) {
	check := func(what string, add func(i int) (id uint32, text string), count, kept, size int, first uint32) {
		t.Helper()
		var cache statementCache
		for i := range count {
			id, text := add(i)
			cache.add(id, prepared{text, "SELECT"})
		}
		sum := 0
		for _, statement := range cache.byID {
			sum += len(statement.text)
		}
		if len(cache.byID) != kept || cache.size != size || sum != size || len(cache.order) > 2*maxStatements {
			t.Errorf("%s: %d statements of %d bytes, in an order of %d; want %d, %d", what, len(cache.byID), cache.size, len(cache.order), kept, size)
		}
		if cache.get(first).text == "" || first > 0 && cache.get(first-1).text != "" {
			t.Errorf("%s: statement %d is not the oldest", what, first)
		}
		cache.last = prepared{text: "last"}
		if cache.get(1<<32-1).text != "last" || cache.get(1<<32-2).text != "" {
			t.Errorf("%s: -1 is not the last one", what)
		}
		if cache.reset(); len(cache.byID) != 0 || cache.size != 0 || len(cache.order) != 0 || cache.get(1<<32-1).text != "" {
			t.Errorf("%s: %d statements are left, %d bytes", what, len(cache.byID), cache.size)
		}
	}
	one := func(i int) (uint32, string) { return uint32(i), "x" }
	check("as many as are kept", one, maxStatements, maxStatements, maxStatements, 0)
	check("one more", one, maxStatements+1, maxStatements, maxStatements, 1)
	long := func(i int) (uint32, string) { return uint32(i), strings.Repeat("x", maxTexts/4) }
	check("as long as are kept", long, 4, 4, maxTexts, 0)
	check("longer ones", long, 5, 4, maxTexts, 1)
	check("the same one again", func(int) (uint32, string) { return 7, "xy" }, 5*maxStatements, 1, 2, 7)

	rng := rand.New(rand.NewPCG(1, 2))
	var cache statementCache
	for range 5000 {
		id := uint32(rng.IntN(50))
		if rng.IntN(3) == 0 {
			cache.remove(id)
			if cache.get(id).text != "" {
				t.Fatal("a statement that was removed is there")
			}
			continue
		}
		text := strings.Repeat("x", 1+rng.IntN(30))
		if cache.add(id, prepared{text, "DO"}); cache.get(id) != (prepared{text, "DO"}) {
			t.Fatalf("statement %d is %v", id, cache.get(id))
		}
	}
}

// TestStatementIsRecognisedByItsFirstWord.
func TestStatementIsRecognisedByItsFirstWord(t *testing.T) {
	check := func(text string, whole bool, want protocols.Match) {
		t.Helper()
		if got := matchStatement([]byte(text), whole); got != want {
			t.Errorf("%.40q, whole %t: %d, want %d", text, whole, got, want)
		}
	}
	const no, more, yes = protocols.No, protocols.More, protocols.Yes
	check("SELECT 1", true, yes)
	check("select", true, yes)
	check("select", false, more)
	check("select ", false, yes)
	check("sel", false, more)
	check("selection 1", true, no)
	check("(select 1)", true, yes)
	check(")select 1", true, no)
	check("1", true, no)
	check("", false, more)
	check("", true, no)
	check("/* a */ select 1", true, yes)
	check("/* a", false, more)
	check("/* a", true, no)
	check("/*"+strings.Repeat("a", 253), false, more)
	check("/*"+strings.Repeat("a", 254), false, no)
	check("/*"+strings.Repeat("a", 248)+"*/do", false, more)
	check("\x00\x01select 1", true, yes)
	check("\x10\x01select 1", true, yes)
	check("\x01\x01\x00\x01", false, more)
	check("\x01\x01\x00\x01", true, more)
	check("\x00\x01", false, more)

	for text, want := range map[string]string{
		"USE shop": "shop", "use `my shop`;": "my shop", "USE": "", "USE use": "", "/* a */ USE b": "b",
	} {
		if got := string(databaseOfUse([]byte(text))); strings.Trim(got, "`") != want {
			t.Errorf("%q uses %q, want %q", text, got, want)
		}
	}
	for text, want := range map[string]bool{"": false, "a": true, "zZ": true, "AZ": true, "a1": false, "a`": false, "a{": false, "a@": false, "a[": false, "é": false} {
		if got := isLetters([]byte(text)); got != want {
			t.Errorf("%q has letters only: %t", text, got)
		}
	}
	for text, want := range map[string]string{
		"xyz 1": "XYZ", strings.Repeat("a", 32): strings.Repeat("A", 32), strings.Repeat("a", 33): "", "x1": "", ";;select": "SELECT", "((with": "WITH", ",select": "", "": "",
	} {
		if got := method([]byte(text)); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}

// TestCommentsAreLeftOut, where MySQL takes them for such, however the bytes are cut.
func TestCommentsAreLeftOut(t *testing.T) {
	check := func(sql, want string) {
		t.Helper()
		if got := string(withoutComments([]byte("x"), []byte(sql))); got != "x"+want {
			t.Errorf("%q: %q, want %q", sql, got[1:], want)
		}
		var l lexer
		var got []byte
		for i := range sql {
			got = l.read(got, []byte(sql[i:i+1]))
		}
		if string(got) != want {
			t.Errorf("%q, byte by byte: %q, want %q", sql, got, want)
		}
	}
	check("select 1", "select 1")
	check("a/* b */c", "a c")
	check("a/**/c", "a c")
	check("a/***/c", "a c")
	check("a/* * / */c", "a c")
	check("a/* b **/c", "a c")
	check("a/*! b */c", "a/*! b */c")
	check("a/*M! b */c", "a/*M! b */c")
	check("a/* b", "a")
	check("a/b", "a/b")
	check("a//b", "a//b")
	check("a//* c */b", "a/ b")
	check("a-b", "a-b")
	check("a-/b", "a-/b")
	check("a-- b\nc", "a\nc")
	check("a--\nc", "a")
	check("a--b", "a--b")
	check("a---b", "a---b")
	check("a--'b'", "a--'b'")
	check("a#b\nc", "a\nc")
	check("a#b", "a")
	check("'#'b", "'#'b")
	check("'/* a */'", "'/* a */'")
	check("\"-- a\"b", "\"-- a\"b")
	check("`a\\`#b", "`a\\`")
	check("'a\\'#b'c", "'a\\'#b'c")
	check("'a''b'#c", "'a''b'")
	check("'a\\\\'#c", "'a\\\\'")
	check("/'a'", "/'a'")
	check("-'#'", "-'#'")
}

// TestTailOfALongStatementBeginsOutsideOfLiterals.
func TestTailOfALongStatementBeginsOutsideOfLiterals(t *testing.T) {
	check := func(state lexer, first, second, want string) {
		t.Helper()
		long := longStatement{parts: [2][]byte{[]byte(first), []byte(second)}}
		long.begin[0] = state
		if got := string(long.tail()); got != want {
			t.Errorf("%+v %q %q: %q, want %q", state, first, second, got, want)
		}
	}
	check(lexer{}, "a b", " c", "a b c")
	check(lexer{state: inQuotes, quote: '\''}, "secret' b", " c", " b c")
	check(lexer{state: inQuotes, quote: '\''}, "sec", "ret' c", " c")
	check(lexer{state: behindEscape, quote: '\''}, "' b' c", " d", " c d")
	check(lexer{state: inQuotes, quote: '\''}, "secret", " c", "")
	check(lexer{state: inComment}, "a", " c", "a c")
}

// TestGreetingHasAVersionAndAChallenge: the zero behind them is within the packet.
func TestGreetingHasAVersionAndAChallenge(t *testing.T) {
	check := func(what, data string, size int, want protocols.Match) {
		t.Helper()
		checkMatch(t, what, matchVersion([]byte(data), size), want)
	}
	const no, more, yes = protocols.No, protocols.More, protocols.Yes
	behind := strings.Repeat("x", 12) + "\x00"
	check("nothing", "", 60, more)
	check("a version", "8.0\x00"+behind, 60, yes)
	check("no zero", "8.0\x00"+strings.Repeat("x", 13), 60, no)
	check("cut before the zero", "8.0\x00"+behind[:12], 60, more)
	check("no version", "\x00"+behind, 60, no)
	check("a letter", "a.0\x00"+behind, 60, no)
	check("the first digit", "0\x00"+behind, 60, yes)
	check("the last digit", "9\x00"+behind, 60, yes)
	check("less than a digit", "/\x00"+behind, 60, no)
	check("more than a digit", ":\x00"+behind, 60, no)
	check("a control character", "8\x01\x00"+behind, 60, no)
	check("the zero is the last byte", "8.0\x00"+behind, 17, yes)
	check("the zero is behind the packet", "8.0\x00"+behind, 16, no)
	check("a long version", "8"+strings.Repeat("a", 126)+"\x00"+behind, 300, yes)
	check("too long a version", "8"+strings.Repeat("a", 127)+"\x00"+behind, 300, no)
	check("a version that goes on", "8"+strings.Repeat("a", 126), 300, more)

	failure := func(what, data string, size int, want protocols.Match) {
		t.Helper()
		checkMatch(t, what, matchError([]byte(data), size), want)
	}
	failure("an error", "\x10\x04Too many", 60, yes)
	failure("a cut error", "\x10\x04Too m", 60, more)
	failure("the first code", "\xe8\x03Too many", 60, yes)
	failure("a code before", "\xe7\x03Too many", 60, no)
	failure("the last code", "\x87\x13Too many", 60, yes)
	failure("a code behind", "\x88\x13Too many", 60, no)
	failure("no text", "\x10\x04Too\x01man", 60, no)
	failure("what follows it", "\x10\x04Too many\x01", 11, yes)
	failure("a control character in it", "\x10\x04Too many\x01", 12, no)
}

// TestCommandIsFoundByWhatFollows, and a reply by the numbers of its packets.
func TestCommandIsFoundByWhatFollows(t *testing.T) {
	check := func(what, data string, want protocols.Match) {
		t.Helper()
		checkMatch(t, what, syncClient([]byte(data)), want)
	}
	const no, more, yes = protocols.No, protocols.More, protocols.Yes
	ping := packetOf(0, "\x0e")
	check("a statement", packetOf(0, "\x03SELECT 1"), yes)
	check("the front of a statement", packetOf(0, "\x03SELECT 1")[:6], more)
	check("another text", packetOf(0, "\x03nothing"), no)
	check("a ping", ping, yes)
	check("a ping without its number", ping[:4], more)
	check("a ping and a part of the next packet", ping+ping[:4], yes)
	check("two pings", ping+ping, yes)
	check("a ping and no command", ping+packetOf(0, "\xee"), no)
	check("a ping and a continuation", ping+packetOf(1, "\x0e"), no)
	check("a long command", packetOf(0, "\x17"+strings.Repeat("x", maxSync-5)), yes)
	check("a command of one byte more", packetOf(0, "\x17"+strings.Repeat("x", maxSync-4)), no)
	check("a cut command", packetOf(0, "\x17"+strings.Repeat("x", 20))[:15], more)
}

// opened returns a parser of a connection whose login has capabilities, and its events.
func opened(capabilities uint32, known bool) (p *parser, events *[]*pipeline.Event) {
	events = new([]*pipeline.Event)
	p = &parser{}
	set := protocols.NewSet(list, protocols.Default(), nil)
	p.Reset(set.Open(protocols.Info{}, func(event *pipeline.Event) { *events = append(*events, event) }))
	p.phase, p.capabilities, p.capabilitiesKnown = commandPhase, capabilities, known
	return p, events
}

// command adds a command that waits.
func (p *parser) testCommand(kind byte) *command {
	event := p.newEvent(protocols.Client, "COM", 10)
	p.enqueue(command{event: event, kind: kind})
	return &p.waiting[len(p.waiting)-1]
}

// TestDefinitionsAreFollowedByAnEOF, unless both sides have agreed to leave it out; in mid-stream the next packet shows it.
func TestDefinitionsAreFollowedByAnEOF(t *testing.T) {
	check := func(what string, capabilities uint32, known bool, before, want reply, finished bool) {
		t.Helper()
		p, events := opened(capabilities, known)
		cmd := p.testCommand(comStmtPrepare)
		p.reply = before
		p.finishColumns(cmd, 5)
		if p.reply != want || (len(*events) == 1) != finished {
			t.Errorf("%s: %+v, finished %t; want %+v, %t", what, p.reply, len(*events) == 1, want, finished)
		}
	}
	check("a result with EOF", 0, true, reply{}, reply{step: endOfColumns}, false)
	check("a result without EOF", clientDeprecateEOF, true, reply{}, reply{step: rowPackets}, false)
	check("a result in mid-stream", 0, false, reply{}, reply{step: endOfColumns}, false)
	check("parameters with EOF", 0, true, reply{isPrepare: true, after: 2}, reply{step: endOfColumns, isPrepare: true, after: 2}, false)
	check("parameters without EOF", clientDeprecateEOF, true, reply{isPrepare: true, after: 2}, reply{step: columnPackets, isPrepare: true, left: 2}, false)
	check("columns without EOF", clientDeprecateEOF, true, reply{isPrepare: true}, reply{}, true)
	check("parameters in mid-stream", 0, false, reply{isPrepare: true, after: 2}, reply{isPrepare: true, left: 2}, false)
	check("columns in mid-stream", 0, false, reply{isPrepare: true}, reply{}, true)

	ending := func(what, payload string, known bool, before, want reply, finished bool, capabilities uint32, rows uint64) {
		t.Helper()
		p, events := opened(0, known)
		cmd := p.testCommand(comQuery)
		body := cmd.event.Mysql
		p.reply = before
		p.readEnding(cmd, []byte(payload), 5)
		if p.reply != want || (len(*events) == 1) != finished || p.capabilities != capabilities || !p.capabilitiesKnown || body.Rows != rows {
			t.Errorf("%s: %+v, finished %t, capabilities %#x, %d rows", what, p.reply, len(*events) == 1, p.capabilities, body.Rows)
		}
	}
	const eof, cursor = "\xfe\x00\x00\x02\x00", "\xfe\x00\x00\x42\x00"
	rows := reply{step: rowPackets}
	ending("an EOF", eof, true, reply{step: endOfColumns}, rows, false, 0, 0)
	ending("an EOF in mid-stream", eof, false, reply{step: endOfColumns}, rows, false, clientProtocol41, 0)
	ending("a row in mid-stream", "\x01x", false, reply{step: endOfColumns}, rows, false, clientProtocol41|clientDeprecateEOF, 1)
	ending("a cursor", cursor, true, reply{step: endOfColumns}, reply{}, true, 0, 0)
	ending("parameters", eof, true, reply{step: endOfColumns, isPrepare: true, after: 3}, reply{step: columnPackets, isPrepare: true, left: 3}, false, 0, 0)
	ending("columns", eof, true, reply{step: endOfColumns, isPrepare: true}, reply{}, true, 0, 0)

	prepare := func(what, payload string, want reply, finished bool, kept string) {
		t.Helper()
		p, events := opened(clientDeprecateEOF, true)
		cmd := p.testCommand(comStmtPrepare)
		cmd.text, cmd.event.Mysql.Method = "SELECT ?", "SELECT"
		event := cmd.event
		p.readPrepared(cmd, []byte(payload), 5)
		if p.reply != want || (len(*events) == 1) != finished || p.statements.get(7).text != kept || event.Mysql.StatementId != 7 {
			t.Errorf("%s: %+v, finished %t, %v", what, p.reply, len(*events) == 1, event)
		}
		if event.Mysql.Columns != uint32(payload[5]) || kept != "" && event.Mysql.Warnings != 9 {
			t.Errorf("%s: %d columns, %d warnings", what, event.Mysql.Columns, event.Mysql.Warnings)
		}
	}
	ok := func(columns, params byte) string {
		return "\x00\x07\x00\x00\x00" + string([]byte{columns, 0, params, 0}) + "\x00\x09\x00"
	}
	prepare("nothing", ok(0, 0), reply{}, true, "SELECT ?")
	prepare("columns", ok(2, 0), reply{step: columnPackets, left: 2, isPrepare: true}, false, "SELECT ?")
	prepare("parameters", ok(0, 3), reply{step: columnPackets, left: 3, isPrepare: true}, false, "SELECT ?")
	prepare("both", ok(2, 3), reply{step: columnPackets, left: 3, after: 2, isPrepare: true}, false, "SELECT ?")
	prepare("definitions that were not asked for", ok(2, 3)+"\x00", reply{}, true, "SELECT ?")
	prepare("definitions that were asked for", ok(2, 3)+"\x01", reply{step: columnPackets, left: 3, after: 2, isPrepare: true}, false, "SELECT ?")
	prepare("a cut packet", ok(0, 0)[:11], reply{}, true, "")
}

// TestStatusOfAReplyIsRead: numbers, warnings, and the database that the session tracks.
func TestStatusOfAReplyIsRead(t *testing.T) {
	p, _ := opened(clientSessionTrack, true)
	cmd := p.testCommand(comQuery)
	body := cmd.event.Mysql
	read := func(payload string, status uint16, affected, id uint64, warnings uint32, database string) {
		t.Helper()
		if got := p.readOK(cmd, []byte(payload)); got != status || body.AffectedRows != affected || body.InsertId != id || body.Warnings != warnings || p.database != database {
			t.Errorf("%x: status %#x, %d rows, id %d, %d warnings, database %q", payload, got, body.AffectedRows, body.InsertId, body.Warnings, p.database)
		}
	}
	read("\x00\x02\x05\x02\x00\x01\x00", 2, 2, 5, 1, "")
	read("\x00\x03\x00\x0a\x00\x02\x00", 10, 5, 5, 3, "")
	read("\xfe\x04\x00\x22\x00", 0x22, 5, 5, 7, "")
	read("\xfe\x01\x00\x02\x00\x00\x00", 2, 6, 5, 7, "")
	changes := "\x00\x04\x03aut\x01\x05\x04shop"
	read("\x00\x00\x00\x00\x40\x00\x00\x00"+string([]byte{byte(len(changes))})+changes, 0x4000, 6, 5, 7, "shop")
	p.capabilities = 0
	changes = "\x01\x05\x04else"
	read("\x00\x00\x00\x00\x40\x00\x00\x00"+string([]byte{byte(len(changes))})+changes, 0x4000, 6, 5, 7, "shop")
	p.capabilities = clientSessionTrack
	read("\x00\x00\x00\x00\x00\x00\x00\x00"+string([]byte{byte(len(changes))})+changes, 0, 6, 5, 7, "shop")

	cmd.changesDatabase = true
	p.readSessionTrack(cmd, []byte("\x01\x05\x04last\x02\x01\x00"))
	if p.database != "last" || cmd.text != "last" {
		t.Errorf("database %q, %q", p.database, cmd.text)
	}
	p.readSessionTrack(cmd, []byte("\x01\x05\x09cut.."))
	if p.database != "last" {
		t.Errorf("a cut name is %q", p.database)
	}

	failure := func(payload string, code uint32, state, text string) {
		t.Helper()
		event := &pipeline.Event{Mysql: &pipeline.MySQLCommand{}}
		p.readError(&command{event: event}, []byte(payload))
		if got := event.Mysql; got.ErrorCode != code || got.SqlState != state || got.ErrorMessage != text || event.Outcome != pipeline.Outcome_FAILURE {
			t.Errorf("%q: %d, %q, %q", payload, got.ErrorCode, got.SqlState, got.ErrorMessage)
		}
	}
	failure("\xff\x28\x04#42000You have", 1064, "42000", "You have")
	failure("\xff\x28\x04#42000", 1064, "42000", "")
	failure("\xff\x28\x04#4200", 1064, "", "#4200")
	failure("\xff\x28\x04Too many", 1064, "", "Too many")
	failure("\xff\x28\x04#42000"+strings.Repeat("x", maxMessage+5), 1064, "42000", strings.Repeat("x", maxMessage))
	failure("\xff\x28", 0, "", "")
}

// TestWaitingCommandsAreHeld with their texts and the prepared statements; the oldest makes room.
func TestWaitingCommandsAreHeld(t *testing.T) {
	p, events := opened(0, true)
	if p.Held() != 0 {
		t.Errorf("%d bytes are held of nothing", p.Held())
	}
	cmd := p.testCommand(comQuery)
	cmd.text, cmd.event.Mysql.Query = "abc", "12345"
	p.statements.add(3, prepared{"0123456789", "DO"})
	if got, want := p.Held(), protocols.EventBytes+3+5+10+100; got != want {
		t.Errorf("%d bytes are held, want %d", got, want)
	}
	for i := range maxWaiting {
		if p.testCommand(comQuery); len(p.waiting) != min(i+2, maxWaiting) || len(*events) != max(0, i+2-maxWaiting) {
			t.Fatalf("%d commands wait, %d are emitted", len(p.waiting), len(*events))
		}
	}
	p.reply = reply{step: rowPackets}
	p.finishCommand(5)
	if len(p.waiting) != maxWaiting-1 || len(*events) != 2 || p.reply != (reply{}) {
		t.Errorf("%d commands wait, %d are emitted, %+v", len(p.waiting), len(*events), p.reply)
	}
	p.reply = reply{step: rowPackets}
	if p.Close(0); len(p.waiting) != 0 || len(*events) != maxWaiting+1 || p.reply != (reply{}) || (*events)[5].Partial {
		t.Errorf("%d commands wait, %d are emitted", len(p.waiting), len(*events))
	}
	if p.Reset(p.conn); p.statements.get(3).text != "" || p.phase != initial {
		t.Error("a statement is left")
	}
}

// TestErrorWithoutACommandIsAnEvent, if it has a state.
func TestErrorWithoutACommandIsAnEvent(t *testing.T) {
	for payload, want := range map[string]int{"\xff\x28\x04#08S01Connection was killed": 1, "\xff\x28\x04Connection was killed": 0, "\xff\x28\x04#08S01": 1, "\xff\x28\x04#08S0": 0} {
		p, events := opened(0, true)
		data := packetOf(0, payload)
		if got := p.emitLoneError([]byte(data)); got != len(data) || len(*events) != want {
			t.Errorf("%q: %d bytes, %v", payload, got, *events)
		}
		if want == 1 {
			if event := (*events)[0]; !event.Partial || event.Mysql.ErrorCode != 1064 || event.Mysql.SqlState != "08S01" || event.Destination.Bytes != uint64(len(data)) {
				t.Errorf("%q: %v", payload, event)
			}
		}
		if got := p.emitLoneError([]byte(data[:len(data)-1])); got != 0 {
			t.Errorf("%q without its end: %d bytes", payload, got)
		}
	}
	for first, want := range map[byte]string{0xa5: "COM_0xa5", 0x20: "COM_0x20", 0x0f: "COM_0x0f"} {
		p, _ := opened(0, true)
		if got := p.oddCommand(kindOf(first), first).name; got != want {
			t.Errorf("%#x is %s", first, got)
		}
	}
	p, _ := opened(0, true)
	if kind := kindOf(comQuery); p.oddCommand(kind, comQuery) != kind {
		t.Error("a known command is odd")
	}
	for _, state := range []struct {
		phase           phase
		known, lost, is bool
	}{{commandPhase, true, false, true}, {afterGreeting, true, false, false}, {commandPhase, false, false, false}, {commandPhase, true, true, false}} {
		p, _ := opened(0, state.known)
		if p.phase, p.bytesLost = state.phase, state.lost; p.synchronised() != state.is {
			t.Errorf("%+v: synchronised %t", state, p.synchronised())
		}
	}
}

// TestGapIsWithinAPacketWhoseLengthIsKnown, or the position is lost.
func TestGapIsWithinAPacketWhoseLengthIsKnown(t *testing.T) {
	check := func(what string, dir protocols.Dir, size int, known bool, prepare func(p *parser), after func(p *parser) string) {
		t.Helper()
		p, _ := opened(0, true)
		cmd := p.testCommand(comQuery)
		prepare(p)
		if got := p.Gap(dir, size); got != known || !cmd.event.Partial {
			t.Errorf("%s: the position is known %t", what, got)
		}
		if text := after(p); text != "" {
			t.Errorf("%s: %s", what, text)
		}
	}
	nothing := func(*parser) {}
	lost := func(p *parser) string {
		if !p.bytesLost || p.continues != [2]bool{} {
			return fmt.Sprintf("lost %t, continues %v", p.bytesLost, p.continues)
		}
		return ""
	}
	kept := func(p *parser) string {
		if p.bytesLost {
			return "bytes are lost"
		}
		return ""
	}
	check("a gap of the client", protocols.Client, 5, false, nothing, lost)
	check("a gap of the server", protocols.Server, 5, false, nothing, func(p *parser) string {
		if !p.reply.lost || !p.repliesLost {
			return "its replies are not lost"
		}
		return lost(p)
	})
	check("within what is skipped", protocols.Server, 5, true, func(p *parser) { p.conn.Skip(protocols.Server, 5) }, kept)
	check("beyond what is skipped", protocols.Server, 6, false, func(p *parser) { p.conn.Skip(protocols.Server, 5) }, lost)
	check("within a long statement", protocols.Client, 5, true, func(p *parser) { p.long.left = 6 }, func(p *parser) string {
		if p.long.left != 1 || !p.long.lost {
			return fmt.Sprintf("%d bytes are left", p.long.left)
		}
		return kept(p)
	})
	check("up to the end of a long statement", protocols.Client, 6, true, func(p *parser) { p.long.start(p.waiting[0].event, 6) }, func(p *parser) string {
		if p.long.left != 0 || p.long.event != nil {
			return "it is not finished"
		}
		return kept(p)
	})
	check("a long statement that goes on", protocols.Client, 6, true, func(p *parser) {
		p.long.start(p.waiting[0].event, 6)
		p.continues[protocols.Client] = true
	}, func(p *parser) string {
		if p.long.event == nil {
			return "it is finished"
		}
		return kept(p)
	})
	check("beyond a long statement", protocols.Client, 7, false, func(p *parser) { p.long.start(p.waiting[0].event, 6) }, func(p *parser) string {
		if p.long.left != 0 || p.long.event != nil {
			return "it is not finished"
		}
		return lost(p)
	})
	check("a file", protocols.Client, 7, false, func(p *parser) { p.sendsFile = true }, func(p *parser) string {
		if p.sendsFile {
			return "it is still sent"
		}
		return lost(p)
	})
	check("behind a greeting", protocols.Client, 7, false, func(p *parser) { p.phase = afterGreeting }, func(p *parser) string {
		if p.phase != initial {
			return "the login is awaited"
		}
		return lost(p)
	})
}
