package redis

import (
	"strings"
	"testing"

	"tidegate/pipeline"
	"tidegate/protocols"
)

// send passes a command to p, whose events wait for their replies.
func (p *parser) send(t *testing.T, words ...string) {
	t.Helper()
	data := resp(words...)
	if read, err := p.readCommand([]byte(data), 1); read != len(data) || err != nil {
		t.Fatalf("%q: %d, %v", words, read, err)
	}
}

// answer passes a reply to p.
func (p *parser) answer(t *testing.T, text string) {
	t.Helper()
	for rest := []byte(text); len(rest) > 0; {
		read, err := p.readReply(rest, 2)
		if read == 0 || err != nil {
			t.Fatalf("%q: %d, %v", rest, read, err)
		}
		rest = rest[read:]
	}
}

// TestSettingsOfAServerAreKeptAmongMany: the names of settings in a CONFIG SET, and what is behind them.
func TestSettingsOfAServerAreKeptAmongMany(t *testing.T) {
	check := func(command string, want string, words ...string) {
		t.Helper()
		p, _ := opened(false)
		p.startEvent()
		p.command.event.Redis.Command = command
		got := ""
		for i, word := range words {
			got += map[bool]string{true: "+", false: "-"}[p.isSetting([]byte(word), int64(i+2))]
		}
		if got != want {
			t.Errorf("%s %q: %s, want %s", command, words, got, want)
		}
	}
	check("CONFIG SET", "++--++", "dir", "/tmp", "hz", "10", "DbFileName", "x")
	check("CONFIG SET", "--++", "hz", "dir", "dir", "dir")
	check("CONFIG GET", "--", "dir", "/tmp")
	check("SET", "--", "dir", "/tmp")
	check("CONFIG SET", "--", "dir"+strings.Repeat("x", 70), "/tmp")

	p, events := opened(false)
	words := []string{"CONFIG", "SET"}
	for range 10 {
		words = append(words, "hz", "10")
	}
	words = append(words, "dir", "/root", "hz", "10", "hz", "10", "hz", "10")
	p.send(t, words...)
	p.Close(1)
	if args := strings.Join((*events)[0].Redis.Args, " "); args != strings.Repeat("hz 10 ", 6)+"dir /root hz 10 hz 10" {
		t.Errorf("%s", args)
	}
}

// TestWordsOfALineAreCounted without the blanks behind them.
func TestWordsOfALineAreCounted(t *testing.T) {
	p, _ := opened(false)
	for line, want := range map[string]int{"": 0, "  ": 0, "GET": 1, "GET a": 2, "GET a  ": 2, " GET  'a b' \"\"": 3} {
		if got := p.countWords([]byte(line)); got != want {
			t.Errorf("%q: %d, want %d", line, got, want)
		}
	}
}

// TestArgumentsThatAreNoKeysAreSearched for secrets, if they are long enough for one.
func TestArgumentsThatAreNoKeysAreSearched(t *testing.T) {
	check := func(want string, words ...string) {
		t.Helper()
		p, events := opened(false)
		p.send(t, words...)
		p.Close(1)
		if got := strings.Join((*events)[0].Redis.Args, " "); got != want {
			t.Errorf("%q: %q, want %q", words, got, want)
		}
	}
	const secret = "password=hunter2hunter2"
	p, _ := opened(false)
	redacted, _ := p.conn.Redactor().Line([]byte(secret))
	if string(redacted) == secret {
		t.Fatal("it is no secret")
	}
	check("k "+string(redacted), "SET", "k", secret)
	check(secret, "GET", secret) // a key is what it is
	check("k pw=hunt", "SET", "k", "pw=hunt")
}

// TestRepliesGoOnBehindAGap with the client's next command; which of a pipeline are still to come is uncertain.
func TestRepliesGoOnBehindAGap(t *testing.T) {
	for _, pipelined := range []bool{false, true} {
		p, events := opened(false)
		p.send(t, "GET", "a")
		p.Gap(protocols.Server, 5)
		if !p.suspended || !p.bytesLost || !p.pairing.RepliesLost() {
			t.Fatal("the position in the replies is known")
		}
		p.answer(t, "$5\r\nhello\r\n")
		if len(*events) != 0 {
			t.Fatal("a reply behind a gap is one of a command")
		}
		p.send(t, "GET", "b")
		if pipelined {
			p.send(t, "GET", "c")
		}
		if len(*events) != 1 || !(*events)[0].Partial || p.argsBytes != p.pairing.Len() {
			t.Fatalf("%d events, %d bytes of %d commands", len(*events), p.argsBytes, p.pairing.Len())
		}
		p.answer(t, "no reply\r\n")
		if !p.suspended {
			t.Error("what is no reply ends the gap")
		}
		p.answer(t, "+OK\r\n")
		if p.suspended || len(*events) != 2 || short((*events)[1]) == "" || (*events)[1].Partial != pipelined {
			t.Errorf("pipelined %t: %d events, suspended %t", pipelined, len(*events), p.suspended)
		}
	}
}

// TestSidesOfAConnectionAreFoundInItsMiddle: an array with the name of a command is the client's.
func TestSidesOfAConnectionAreFoundInItsMiddle(t *testing.T) {
	server := func(data string, read int, flipped, started bool) {
		t.Helper()
		p, _ := opened(true)
		if got, err := p.readReply([]byte(data), 1); err != nil || got != read || p.conn.Flipped() != flipped || p.started != started {
			t.Errorf("%q as a reply: %d bytes, flipped %t, started %t, %v", data, got, p.conn.Flipped(), p.started, err)
		}
	}
	get := resp("GET", "a")
	server(get, 0, true, false)
	server(get[:6], 0, false, false)
	server(resp("nothing", "a"), len(resp("nothing", "a")), false, true)
	server("*1\r\n:1\r\n", 8, false, true)
	server("+OK\r\n", 5, false, true)
	client := func(data string, read int, flipped, started, ok bool) {
		t.Helper()
		p, _ := opened(true)
		if got, err := p.readCommand([]byte(data), 1); (err == nil) != ok || got != read || p.conn.Flipped() != flipped || p.started != started {
			t.Errorf("%q as a command: %d bytes, flipped %t, started %t, %v", data, got, p.conn.Flipped(), p.started, err)
		}
	}
	client(get, len(get), false, true, true)
	client(get[:6], 0, false, false, true)
	client("+OK\r\n", 0, true, false, true)
	client("*1\r\n:1\r\n", 0, true, false, true)
	client("GET a\r\n", 7, false, true, true)
	client("\r\n", 2, false, false, true)
	client("*0\r\n", 4, false, false, true)
	client("*-1\r\n", 5, false, false, true)
	client("*x\r\n", 0, false, false, false)
	client("*2147483649\r\n", 0, false, false, false)

	p, _ := opened(false) // from its beginning the sides are known
	if read, _ := p.readReply([]byte(get), 1); read == 0 || p.conn.Flipped() {
		t.Errorf("a connection from its beginning: %d bytes, flipped %t", read, p.conn.Flipped())
	}
}

// TestErrorsOfRedisAreRecognised, and fronts of quoted words and of names.
func TestErrorsOfRedisAreRecognised(t *testing.T) {
	for text, want := range map[string]bool{
		"ERR unknown command 'x'": true, "ERR unknown command `x`": true, "ERR wrong number of arguments for 'get' command": true,
		"ERR Protocol error: x": true, "ERR Can't SYNC while": true, "ERR unknown": false, "": false, "ERR": false,
	} {
		if got := isRedisError([]byte(text)); got != want {
			t.Errorf("%q: %t", text, got)
		}
	}
	check := func(data string, want protocols.Match) {
		t.Helper()
		if got := detect(protocols.Client, []byte(data)); got != want {
			t.Errorf("%.70q: %d, want %d", data, got, want)
		}
	}
	check(`"`+strings.Repeat("g", 63), protocols.More)
	check(`"`+strings.Repeat("g", 64), protocols.No)
	check(strings.Repeat("*0\r\n", minEmptyArrays), protocols.Yes)
	check(strings.Repeat("*0\r\n", minEmptyArrays-1), protocols.More)
	for text, want := range map[string]bool{
		"*1\r\n$3\r\nGET\r\n": true, "*1\r\n$3\r\nGET": true, "*1\r\n$3\r\nGE": false, "*1\r\n$9\r\nGET": false, "*1\r\n$3\r\nXXX\r\n": false,
		"*1\r\n$": false, "*1\r": false, "*x\r\n$3\r\nGET\r\n": false, "*1\r\n:3\r\nGET\r\n": false, "*1\r\n$65\r\n" + strings.Repeat("G", 65): false,
	} {
		if got := knownCommand([]byte(text)[:len(text):len(text)]); got != want {
			t.Errorf("%q has a name: %t", text, got)
		}
	}
	sync := func(dir protocols.Dir, data string, at int, want protocols.Match) {
		t.Helper()
		if got, match := resync(dir, []byte(data)); got != at || match != want {
			t.Errorf("%q: %d, %d; want %d, %d", data, got, match, at, want)
		}
	}
	client, server := protocols.Client, protocols.Server
	get := resp("GET", "a")
	sync(client, "", 0, protocols.More)
	sync(client, "x x", 2, protocols.More)
	sync(client, "x x\n", 4, protocols.No)
	sync(client, get, 0, protocols.Yes)
	sync(client, "x x\r\n"+get, 5, protocols.Yes)
	sync(client, "x x\n"+resp("NOTHING"), len("x x\n"+resp("NOTHING")), protocols.No)
	sync(client, "x x\n"+get[:5], 4, protocols.More)
	sync(client, "x x\nGET a\r\n", 4, protocols.Yes)
	sync(client, "x x\nGET a\r\nSET b c\r\n", 4, protocols.Yes)
	sync(client, "x x\nGET a\r\n\x01\r\n", 14, protocols.No)
	sync(client, "GET a\r\n\x01\r\n", 0, protocols.Yes)
	for _, next := range []string{"", "\r\n", "\n", "*", get, "SET b c\r\n", "SE"} { // what may follow an inline command
		sync(client, "x x\nGET a\r\n"+next, 4, protocols.Yes)
	}
	sync(client, "x x\nGET a\r\nplain text\r\n", 23, protocols.No)
	sync(client, "\n", 1, protocols.No)
	sync(client, "x", 0, protocols.More)
	sync(server, "+OK\r\n", 0, protocols.Yes)
	sync(server, "x x\r\n+OK\r\n", 10, protocols.No)
}

// TestRepliesToNoCommandArePushed, or those to commands that were not captured.
func TestRepliesToNoCommandArePushed(t *testing.T) {
	check := func(what, reply string, subscribed bool, text string, partial bool) {
		t.Helper()
		p, events := opened(false)
		p.subscribed = subscribed
		p.answer(t, reply)
		if len(*events) != 1 {
			t.Fatalf("%s: %d events", what, len(*events))
		}
		if event := (*events)[0]; event.Redis.Reply != text || event.Partial != partial || event.Destination.Bytes != uint64(len(reply)) || event.Redis.Command != "" {
			t.Errorf("%s: %v", what, event)
		}
	}
	check("a message", "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nx\r\n", true, "message", false)
	check("an array", "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nx\r\n", false, "", true)
	check("a message of RESP3", ">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nx\r\n", false, "message", false)
	check("a message with an attribute", "|1\r\n+a\r\n+b\r\n>3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nx\r\n", false, "message", false)
	check("an array of arrays", "*2\r\n*2\r\n+a\r\n+b\r\n$7\r\nmessage\r\n", true, "", true)
	check("another push", ">1\r\n$5\r\nother\r\n", false, "", false)
	check("a reply", "+OK\r\n", false, "OK", true)
	for kind, confirms := range map[string]bool{
		"subscribe": true, "psubscribe": true, "ssubscribe": true, "unsubscribe": true, "punsubscribe": true, "sunsubscribe": true,
		"message": false, "pmessage": false, "smessage": false, "invalidate": false,
	} {
		r := replyReader{top: '>', kind: []byte(kind)}
		if got, is := r.pushKind(false); got != kind || is != confirms {
			t.Errorf("%s: %q, confirms %t", kind, got, is)
		}
		if r.top = '*'; true {
			if got, is := r.pushKind(false); got != "" || is {
				t.Errorf("%s in an array: %q, confirms %t", kind, got, is)
			}
		}
	}
	if got, confirms := (&replyReader{top: '>', kind: []byte("other")}).pushKind(true); got != "" || confirms {
		t.Errorf("another one: %q", got)
	}
}

// TestSubscriptionsEndWithTheLastChannel, and a SUBSCRIBE has a reply for each.
func TestSubscriptionsEndWithTheLastChannel(t *testing.T) {
	p, events := opened(false)
	p.send(t, "SUBSCRIBE", "a", "b")
	if !p.subscribed || p.pairing.First().replies != 2 {
		t.Fatalf("subscribed %t", p.subscribed)
	}
	confirm := func(kind string, left string) { p.answer(t, "*3\r\n$"+kind+"\r\n$1\r\na\r\n:"+left+"\r\n") }
	confirm("9\r\nsubscribe", "1")
	if len(*events) != 0 {
		t.Error("one of two replies completes a command")
	}
	confirm("9\r\nsubscribe", "2")
	if len(*events) != 1 || (*events)[0].Redis.ReplyType != "array" || (*events)[0].Destination.Bytes != 2*uint64(len("*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n")) {
		t.Errorf("%v", *events)
	}
	p.send(t, "UNSUBSCRIBE")
	confirm("11\r\nunsubscribe", "1")
	if !p.subscribed || len(*events) != 2 {
		t.Errorf("a channel is left: subscribed %t, %d events", p.subscribed, len(*events))
	}
	confirm("11\r\nunsubscribe", "0") // a further one, for which no command waits
	if p.subscribed || len(*events) != 2 {
		t.Errorf("no channel is left: subscribed %t, %d events", p.subscribed, len(*events))
	}
}

// TestRepliesOfAClientAreSwitchedOff: CLIENT REPLY OFF, SKIP and ON, and RESET.
func TestRepliesOfAClientAreSwitchedOff(t *testing.T) {
	p, events := opened(false)
	waits := func(want int, words ...string) {
		t.Helper()
		before := len(*events) + p.pairing.Len()
		p.send(t, words...)
		if p.pairing.Len() != want || len(*events)+p.pairing.Len() != before+1 {
			t.Errorf("%q: %d commands wait, want %d", words, p.pairing.Len(), want)
		}
	}
	waits(1, "GET", "a")
	waits(1, "CLIENT", "REPLY", "skip")
	waits(1, "GET", "b")
	waits(2, "GET", "c")
	waits(2, "CLIENT", "REPLY", "OFF")
	waits(2, "GET", "d")
	waits(2, "CLIENT", "REPLY", "SKIP")
	waits(2, "GET", "e")
	waits(3, "CLIENT", "REPLY", "ON")
	waits(4, "GET", "f")
	waits(5, "CLIENT", "REPLY", "OTHER")
	waits(6, "CLIENT", "REPLY", "OFF", "more")
	waits(6, "CLIENT", "REPLY", "OFF")
	p.subscribed = true
	if waits(7, "RESET"); p.subscribed || p.repliesOff || p.skipReplies != 0 {
		t.Errorf("behind RESET: %t, %t, %d", p.subscribed, p.repliesOff, p.skipReplies)
	}
}

// TestMonitorAndStreamsFollowTheirReplies, unless these are errors.
func TestMonitorAndStreamsFollowTheirReplies(t *testing.T) {
	const line = "+1339518083.107412 [0 127.0.0.1:60866] \"keys\" \"*\"\r\n"
	p, events := opened(false)
	p.send(t, "MONITOR")
	p.answer(t, "-ERR x\r\n")
	if p.monitoring || (*events)[0].Outcome != pipeline.Outcome_FAILURE {
		t.Error("an error is followed by lines")
	}
	p.send(t, "MONITOR")
	p.answer(t, "+OK\r\n")
	p.send(t, "GET", "a")
	if p.answer(t, line); !p.monitoring || len(*events) != 2 || p.pairing.Len() != 1 {
		t.Errorf("a line: monitoring %t, %d events", p.monitoring, len(*events))
	}
	p.answer(t, "+x\r\n")
	p.send(t, "RESET")
	if p.answer(t, "+RESET\r\n"); p.monitoring || len(*events) != 4 {
		t.Errorf("behind RESET: monitoring %t, %d events", p.monitoring, len(*events))
	}
	p.send(t, "SYNC")
	p.send(t, "REPLCONF", "ack", "1")
	if p.answer(t, "$100\r\n"); !p.replicating || len(*events) != 6 || p.argsBytes != 0 || p.pairing.Len() != 0 || !(*events)[5].Partial {
		t.Errorf("behind SYNC: replicating %t, %d events, %d bytes", p.replicating, len(*events), p.argsBytes)
	}
	if (*events)[4].Redis.ReplyBytes != 100 {
		t.Errorf("a snapshot of %d bytes", (*events)[4].Redis.ReplyBytes)
	}
	p.answer(t, "anything")
	if p.send(t, "REPLCONF", "ack", "2"); len(*events) != 7 || p.pairing.Len() != 0 {
		t.Errorf("beside a stream: %d events, %d commands wait", len(*events), p.pairing.Len())
	}
}
