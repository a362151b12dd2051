package memcached

import (
	"slices"
	"strings"
	"testing"

	"tidegate/pipeline"
	"tidegate/protocols"
	"tidegate/protocols/protocoltest"
)

// openedText returns a parser of a connection, and its events.
func openedText() (p *parser, events *[]*pipeline.Event) {
	events = new([]*pipeline.Event)
	set := protocols.NewSet([]protocols.Protocol{Protocol}, protocols.Default(), nil)
	p = &parser{}
	p.Reset(set.Open(protocols.Info{}, func(event *pipeline.Event) { *events = append(*events, event) }))
	return p, events
}

// waitingOf returns a command that waits; its event has the number as its time.
func waitingOf(number uint64, flags commandFlags) pending {
	event := &pipeline.Event{Dataset: pipeline.Dataset_MEMCACHED, Timestamp: int64(number), Memcached: &pipeline.MemcachedCommand{KeysCount: 3}}
	event.Source, event.Destination = &pipeline.Endpoint{}, &pipeline.Endpoint{}
	return pending{event: event, keysBytes: 10, number: number, flags: flags}
}

// TestLinesWithinDataAreKeptWhileTheyMayBeCommands, in whatever pieces they come.
func TestLinesWithinDataAreKeptWhileTheyMayBeCommands(t *testing.T) {
	check := func(text, line string, dead bool) {
		t.Helper()
		for _, size := range []int{1, 3, 1000} {
			p, _ := openedText()
			p.beginData(1 << 20)
			for at := 0; at < len(text); at += size {
				part := []byte(text[at:min(at+size, len(text))])
				if read := p.readData(part); read != len(part) {
					t.Fatalf("%d bytes of %d are read", read, len(part))
				}
			}
			if string(p.data.line) != line || p.data.dead != dead || p.data.left != 1<<20-uint64(len(text)) {
				t.Errorf("%q in parts of %d: %q is kept, dead %t, %d bytes are left", text, size, p.data.line, p.data.dead, p.data.left)
			}
		}
	}
	check("get a", "get a", false)
	check("g", "g", false)
	check("xyz", "", true)
	check("gex ", "", true)
	check("get", "get", false)
	check("cache_memlimit", "cache_memlimit", false)
	check("cache_memlimitxx", "cache_memlimitxx", false)
	check("cache_memlimitxxx", "", true)
	check("xyz\r\nget a", "get a", false)
	check("xyz\r\n", "", false)
	check("get a\r\nx", "", true)
	p, _ := openedText()
	p.beginData(1 << 20)
	if p.keepLine([]byte("get " + strings.Repeat("k", maxLine-4))); p.data.dead || len(p.data.line) != maxLine || p.Held() < maxLine {
		t.Errorf("a line of maxLine bytes: dead %t, %d bytes", p.data.dead, len(p.data.line))
	}
	if p.keepLine([]byte("k")); !p.data.dead || len(p.data.line) != 0 {
		t.Errorf("a longer line: dead %t, %d bytes", p.data.dead, len(p.data.line))
	}
	if p.keepLine([]byte("get a")); len(p.data.line) != 0 {
		t.Errorf("%q of a line that is none is kept", p.data.line)
	}
	p.commands, p.data.reports = 7, true
	if p.beginData(5); p.data.left != 5 || p.data.number != 7 || p.data.dead || p.data.reports || len(p.data.line) != 0 {
		t.Errorf("the next block: %+v", p.data)
	}
}

// TestCommandsWithinDataAreWithheld up to a bound, and have the place of their lines.
func TestCommandsWithinDataAreWithheld(t *testing.T) {
	p, events := openedText()
	p.commands = 3
	p.beginData(1 << 20)
	p.readData([]byte("get a\r\nnothing\r\nget\r\nget b\x01\r\ngets bb cc\r\nincr n x y z\r\n"))
	if len(p.data.withheld) != 2 || p.keysBytes != 5 || len(*events) != 0 {
		t.Fatalf("%d are withheld, %d bytes", len(p.data.withheld), p.keysBytes)
	}
	for i, want := range []string{"get a, no reply partial", "gets bb cc, no reply partial"} {
		if found := p.data.withheld[i]; short(found.event) != want || found.store != 3 || !slices.Equal(found.event.Tags, []string{pipeline.TagAmbiguous}) {
			t.Errorf("%q of store %d, %v", short(found.event), found.store, found.event.Tags)
		}
	}
	if first, second := p.data.withheld[0].event, p.data.withheld[1].event; string(first.Id) == string(second.Id) || first.Source.Bytes != 7 || second.Source.Bytes != 12 {
		t.Errorf("%d and %d bytes", first.Source.Bytes, second.Source.Bytes)
	}
	for range maxInner - 2 {
		p.readData([]byte("get a\r\n"))
	}
	if len(p.data.withheld) != maxInner || p.data.incomplete {
		t.Errorf("%d are withheld, incomplete %t", len(p.data.withheld), p.data.incomplete)
	}
	if p.readData([]byte("get a\r\n")); len(p.data.withheld) != maxInner || !p.data.incomplete {
		t.Errorf("one more: %d are withheld, incomplete %t", len(p.data.withheld), p.data.incomplete)
	}
	p.reportWithheld()
	last := p.data.unanswered[maxInner-1].event
	if len(p.data.withheld) != 0 || len(p.data.unanswered) != maxInner || p.keysBytes != 5+maxInner-2 || !p.data.reports || p.data.incomplete ||
		!slices.Contains(last.Tags, pipeline.TagTruncated) || slices.Contains(p.data.unanswered[0].event.Tags, pipeline.TagTruncated) {
		t.Errorf("%d are reported, %d bytes, %+v", len(p.data.unanswered), p.keysBytes, last)
	}
	if p.readData([]byte("get last\r\n")); len(p.data.withheld) != 0 || len(*events) != 1 || p.data.unanswered[maxInner-1].event.Memcached.Key != "last" {
		t.Errorf("behind a report: %d are withheld, %d events", len(p.data.withheld), len(*events))
	}
	p.data.reports, p.data.left = false, 0
	if p.reportWithheld(); p.data.reports {
		t.Error("behind the end of the data what comes is reported")
	}
}

// TestToldCommandsAreAnsweredInTheirOrder, and those of earlier stores are emitted when a later command has its reply.
func TestToldCommandsAreAnsweredInTheirOrder(t *testing.T) {
	p, events := openedText()
	for _, store := range []uint64{1, 2, 3, 4} {
		p.data.unanswered = append(p.data.unanswered, inner{waitingOf(store, 0), store})
		p.keysBytes += 10
	}
	if first, ok := p.takeTold(); !ok || first.number != 1 || len(p.data.unanswered) != 3 {
		t.Errorf("the first one is %d, %t", first.number, ok)
	}
	p.flushTold(2)
	if len(*events) != 0 {
		t.Error("a command of the store itself is emitted")
	}
	if p.flushTold(4); len(*events) != 2 || len(p.data.unanswered) != 1 || p.data.unanswered[0].store != 4 || p.keysBytes != 20 || (*events)[0].Timestamp != 2 {
		t.Errorf("%d are emitted, %d are left, %d bytes", len(*events), len(p.data.unanswered), p.keysBytes)
	}
	p.data.unanswered = nil
	if _, ok := p.takeTold(); ok {
		t.Error("nothing is taken")
	}
}

// TestRefusedStoreReportsWhatFollows of its own data, not of those of another one.
func TestRefusedStoreReportsWhatFollows(t *testing.T) {
	check := func(what, status string, number uint64, left uint64, line string, want bool) {
		t.Helper()
		p, _ := openedText()
		p.data.number, p.data.left, p.data.line = 5, left, []byte(line)
		if p.decideData(number, replyLine{status: []byte(status), isError: strings.Contains(status, "ERROR")}); p.data.reports != want {
			t.Errorf("%s: reported %t", what, p.data.reports)
		}
	}
	check("data are to come", "CLIENT_ERROR", 5, 3, "", true)
	check("a line is open", "ERROR", 5, 0, "ge", true)
	check("nothing is to come", "ERROR", 5, 0, "", false)
	check("another store", "ERROR", 4, 3, "", false)
	check("data are skipped", "SERVER_ERROR", 5, 3, "", false)
	check("stored", "STORED", 5, 3, "", false)
	p, _ := openedText()
	p.data.reports, p.data.line = true, []byte("get ")
	if p.joinLine([]byte("a\r\n")); p.data.reports || len(p.data.unanswered) != 1 || len(p.data.line) != 0 {
		t.Errorf("a line that goes on behind the data: reported %t, %d are told", p.data.reports, len(p.data.unanswered))
	}
	p.data.reports = true
	if p.joinLine([]byte("get b\r\n")); !p.data.reports || len(p.data.unanswered) != 1 {
		t.Errorf("a line of its own: %d are told", len(p.data.unanswered))
	}
}

// TestGapIsWithinDataOrNot: behind it the position is known, or the next command is looked for.
func TestGapIsWithinDataOrNot(t *testing.T) {
	client := func(left uint64, size int, known bool, remains uint64, dead, partial bool) {
		t.Helper()
		p, _ := openedText()
		first, last := waitingOf(1, 0), waitingOf(2, 0)
		p.pairing.Expect(first)
		p.pairing.Expect(last)
		p.data.left, p.data.line, p.quiet = left, []byte("ge"), true
		if got := p.Gap(protocols.Client, size); got != known || p.data.left != remains || p.data.dead != dead || last.event.Partial != partial ||
			p.quiet != known || p.pairing.RequestsLost() == known || len(p.data.line) != 0 {
			t.Errorf("%d bytes of %d: known %t, %d are left, dead %t, partial %t, quiet %t", size, left, got, p.data.left, p.data.dead, last.event.Partial, p.quiet)
		}
		if first.event.Partial {
			t.Error("an earlier command is partial")
		}
	}
	client(10, 9, true, 1, true, true)
	client(10, 10, true, 0, false, true)
	client(10, 11, false, 0, false, false)
	client(0, 1, false, 0, false, false)
	p, _ := openedText()
	p.data.left = 5
	if !p.Gap(protocols.Client, 5) {
		t.Error("data of a store without a reply: the position is lost")
	}

	server := func(skip uint64, size int, within bool) {
		t.Helper()
		p, _ := openedText()
		p.conn.Skip(protocols.Server, skip)
		p.reply.items = 2
		if got := p.Gap(protocols.Server, size); !got || p.reply.partial != within || p.suspended == within || p.pairing.RepliesLost() == within || (p.reply.items == 2) != within {
			t.Errorf("%d bytes of %d: %t, %+v, suspended %t", size, skip, got, p.reply, p.suspended)
		}
	}
	server(10, 10, true)
	server(10, 11, false)
	server(0, 1, false)
}

// TestReplyFillsInItsCommand: hits and misses of a retrieval, the message of an error up to a bound.
func TestReplyFillsInItsCommand(t *testing.T) {
	check := func(what string, flags commandFlags, line string, values reply, hits, misses uint32, bytes uint64, outcome pipeline.Outcome) {
		t.Helper()
		p, _ := openedText()
		parsed, _ := parseReplyLine([]byte(line))
		w := waitingOf(1, flags)
		p.setReply(w, parsed, values)
		body := w.event.Memcached
		if body.Hits != hits || body.Misses != misses || body.ValueBytes != bytes || w.event.Outcome != outcome || w.event.Destination.Bytes != values.size || w.event.Partial != values.partial {
			t.Errorf("%s: %d hits, %d misses, %d bytes, %v", what, body.Hits, body.Misses, body.ValueBytes, w.event.Outcome)
		}
	}
	const ok, bad = pipeline.Outcome_SUCCESS, pipeline.Outcome_FAILURE
	check("two of three", retrieves, "END", reply{items: 2, data: 9, size: 60}, 2, 1, 9, ok)
	check("more than were asked for", retrieves, "END", reply{items: 5, data: 9, partial: true}, 5, 0, 9, ok)
	check("a hit without a value", retrieves, "HD", reply{}, 1, 2, 0, ok)
	check("no retrieval", 0, "END", reply{items: 2, data: 9}, 0, 0, 0, ok)
	check("an error", retrieves, "SERVER_ERROR x", reply{items: 2, data: 9}, 0, 0, 0, bad)
	p, _ := openedText()
	w := waitingOf(1, 0)
	long := strings.Repeat("x", maxText+9)
	if p.setReply(w, replyLine{isError: true, text: []byte(long)}, reply{}); w.event.Memcached.Error != long[:maxText] {
		t.Errorf("an error of %d bytes is kept", len(w.event.Memcached.Error))
	}
}

// TestRepliesOfAQuietBatchComeBeforeItsEnd.
func TestRepliesOfAQuietBatchComeBeforeItsEnd(t *testing.T) {
	check := func(what, status string, want bool, change func(p *parser)) {
		t.Helper()
		p, _ := openedText()
		change(p)
		if got := p.answersQuiet(replyLine{status: []byte(status)}); got != want {
			t.Errorf("%s: %t", what, got)
		}
	}
	first := func(flags commandFlags) func(p *parser) {
		return func(p *parser) { p.pairing.Expect(waitingOf(1, flags)) }
	}
	check("the end of a batch waits", "HD", true, first(endsQuiet))
	check("the end of a batch", "MN", false, first(endsQuiet))
	check("an earlier command", "HD", false, first(0))
	check("nothing waits", "HD", false, func(*parser) {})
	check("nothing waits, in a batch", "HD", true, func(p *parser) { p.quiet = true })
	check("a reply to what was evicted", "HD", false, func(p *parser) {
		p.quiet = true
		p.pairing.Expect(waitingOf(1, 0))
		p.pairing.Evict(1)
	})
}

// TestServerDecidesOnTheBinaryProtocol: the header of a client waits for the answer.
func TestServerDecidesOnTheBinaryProtocol(t *testing.T) {
	request, answer := "\x80\x0b"+strings.Repeat("\x00", 22), "\x81\x0b"+strings.Repeat("\x00", 22)
	check := func(what string, state binaryState, started bool, dir protocols.Dir, data string, waits bool, next binaryState) {
		t.Helper()
		p, _ := openedText()
		p.binary, p.started = state, started
		if got := p.isBinary(dir, []byte(data)); got != waits || p.binary != next {
			t.Errorf("%s: waits %t, state %d", what, got, p.binary)
		}
	}
	client, server := protocols.Client, protocols.Server
	check("a header", noBinary, false, client, request, true, undecided)
	check("the front of a header", noBinary, false, client, request[:9], true, noBinary)
	check("no header", noBinary, false, client, "\x80\x7f", false, noBinary)
	check("a header behind a line", noBinary, true, client, request, false, noBinary)
	check("a line", noBinary, false, client, "get a\r\n", false, noBinary)
	check("a header of the server", noBinary, false, server, answer, true, isStopped)
	check("a header of the client, by the server", noBinary, false, server, request, false, noBinary)
	check("more of the client", undecided, false, client, "get a\r\n", true, undecided)
	check("an answer", undecided, false, server, answer, true, isStopped)
	check("the front of an answer", undecided, false, server, answer[:5], true, undecided)
	check("a text as an answer", undecided, false, server, "ERROR\r\n", true, isText)
	check("no header as an answer", undecided, false, server, "\x81\x7f", true, isText)
	check("the client behind a text", isText, false, client, request, false, isText)
	check("the server behind a text", isText, true, server, "ERROR\r\n", false, isText)
	p, _ := openedText()
	if read, err := p.Parse(client, []byte("\n"), 1); read != 1 || err != nil || !p.started {
		t.Errorf("an empty line is one: %d, %v, started %t", read, err, p.started)
	}
	for _, state := range []binaryState{noBinary, isText, isStopped} {
		p.binary = state
		if p.stopBinary(); p.binary != state {
			t.Errorf("state %d becomes %d", state, p.binary)
		}
	}
}

// TestTimesOfACommand: from its first byte to the last one of its reply.
func TestTimesOfACommand(t *testing.T) {
	events := (&protocoltest.Conversation{Port: 11211, Steps: []protocoltest.Step{
		protocoltest.Client("gets "), protocoltest.Client("a\r\nquit"), protocoltest.Server("END\r\n"), protocoltest.Client("\r\n"),
	}}).Events(list)
	if len(events) != 2 || events[0].Duration != 2e6 || events[1].Duration != 2e6 || events[0].Source.Bytes != 8 || events[1].Source.Bytes != 6 || events[0].Destination.Bytes != 5 {
		t.Errorf("%v", events)
	}
}

// TestRepliesGoOnBehindAGap with the client's next command; which of a pipeline are still to come is uncertain.
func TestRepliesGoOnBehindAGap(t *testing.T) {
	for _, pipelined := range []bool{false, true} {
		p, events := openedText()
		read := func(dir protocols.Dir, text string) {
			t.Helper()
			if read, err := p.Parse(dir, []byte(text), 1); read != len(text) || err != nil {
				t.Fatalf("%q: %d, %v", text, read, err)
			}
		}
		read(protocols.Client, "get a\r\n")
		p.Gap(protocols.Server, 5)
		read(protocols.Server, "END\r\n")
		if len(*events) != 0 || !p.suspended {
			t.Fatal("a reply behind a gap is one of a command")
		}
		read(protocols.Client, "get b\r\n")
		if pipelined {
			read(protocols.Client, "get c\r\n")
		}
		read(protocols.Server, "no reply\r\n")
		if len(*events) != 1 || !(*events)[0].Partial || !p.suspended {
			t.Errorf("%d events, suspended %t", len(*events), p.suspended)
		}
		read(protocols.Server, "END\r\n")
		if p.suspended || len(*events) != 2 || (*events)[1].Partial != pipelined {
			t.Errorf("pipelined %t: %d events, suspended %t", pipelined, len(*events), p.suspended)
		}
	}
	same(t, play(false, ">watch fetchers\r\n", "<OK\r\n", ">gets a\r\n", "<END\r\n"), "watch = OK")
	same(t, play(false, ">watch fetchers\r\n", "<CLIENT_ERROR x\r\n", ">gets a\r\n", "<END\r\n"), "watch ! x", "gets a = END 0 hits 1 misses")
}
