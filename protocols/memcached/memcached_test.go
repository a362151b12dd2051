package memcached

import (
	"fmt"
	"strings"
	"testing"

	"tidegate/pipeline"
	"tidegate/protocols"
	"tidegate/protocols/protocoltest"
)

var list = []protocols.Protocol{Protocol, Datagrams}

// short returns the fields that most tests compare: command, keys, status or error, hits, bytes, partial.
func short(event *pipeline.Event) string {
	command := event.Memcached
	text := strings.TrimSpace(command.Command + " " + strings.Join(command.Keys, " "))
	switch {
	case command.Error != "":
		text += " ! " + command.Error
	case command.Status != "":
		text += " = " + command.Status
	default:
		text += ", no reply"
	}
	if command.Hits+command.Misses > 0 {
		text += fmt.Sprintf(" %d hits %d misses", command.Hits, command.Misses)
	}
	if command.ValueBytes > 0 {
		text += fmt.Sprintf(" %d bytes", command.ValueBytes)
	}
	if event.Partial {
		text += " partial"
	}
	return text
}

// play returns the events of steps. A step begins with > for the client or < for the server. Bytes follow, or
// "gap 9" for a gap of 9 bytes.
func play(midStream bool, steps ...string) []string {
	var got []string
	conversation := protocoltest.Conversation{MidStream: midStream, Port: 11211}
	conn := protocols.NewSet(list, protocols.Default(), nil).Open(conversation.Info(), func(event *pipeline.Event) {
		got = append(got, short(event))
	})
	at := protocoltest.Start
	for _, step := range steps {
		at += 1e6
		dir := protocols.Client
		if step[0] == '<' {
			dir = protocols.Server
		}
		var size int
		if found, _ := fmt.Sscanf(step[1:], "gap %d", &size); found == 1 {
			conn.Gap(dir, size, at)
		} else {
			conn.Data(dir, []byte(step[1:]), at)
		}
	}
	conn.Close(at + 1e6)
	return got
}

// same compares events in the form of short.
func same(t *testing.T, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

func TestCommandAndReplyAreOneEvent(t *testing.T) {
	check := func(command, reply, want string) {
		t.Helper()
		same(t, play(false, ">"+command, "<"+reply), want)
	}
	check("get k\r\n", "VALUE k 0 5\r\nhello\r\nEND\r\n", "get k = END 1 hits 0 misses 5 bytes")
	check("get k\n", "VALUE k 0 5\r\nhello\r\nEND\r\n", "get k = END 1 hits 0 misses 5 bytes")
	check("gets a b c\r\n", "VALUE b 0 2 77\r\nxx\r\nEND\r\n", "gets a b c = END 1 hits 2 misses 2 bytes")
	check("gat 60 a b\r\n", "END\r\n", "gat a b = END 0 hits 2 misses")
	check("set k 0 0 5\r\nhello\r\n", "STORED\r\n", "set k = STORED 5 bytes")
	check("set k 0 0 0\r\n\r\n", "STORED\r\n", "set k = STORED")
	check("cas k 0 0 2 9\r\nxx\r\n", "EXISTS\r\n", "cas k = EXISTS 2 bytes")
	check("append k 0 0 1\r\nx\r\n", "NOT_STORED\r\n", "append k = NOT_STORED 1 bytes")
	check("incr n 1\r\n", "42\r\n", "incr n = VALUE")
	check("decr n 1\r\n", "NOT_FOUND\r\n", "decr n = NOT_FOUND")
	check("delete k\r\n", "DELETED\r\n", "delete k = DELETED")
	check("touch k 60\r\n", "TOUCHED\r\n", "touch k = TOUCHED")
	check("flush_all\r\n", "OK\r\n", "flush_all = OK")
	check("flush_all 30\r\n", "OK\r\n", "flush_all = OK")
	check("version\r\n", "VERSION 1.6.18\r\n", "version = VERSION")
	check("stats\r\n", "STAT pid 1\r\nSTAT uptime 2\r\nEND\r\n", "stats = END")
	check("stats cachedump 1 10\r\n", "ITEM k [1 b; 0 s]\r\nEND\r\n", "stats cachedump = END")
	check("lru_crawler metadump all\r\n", "key=k exp=-1 la=1\nEND\r\n", "lru_crawler metadump = END")
	check("set k 0 0 3\r\nabc\r\n", "SERVER_ERROR out of memory storing object\r\n", "set k ! out of memory storing object 3 bytes")
	check("get k\r\n", "VALUE k 0 1\r\nx\r\nSERVER_ERROR out of memory\r\n", "get k ! out of memory")
}

// TestRejectedLineIsACommand: the server answers each line that it rejects, so each is a command.
func TestRejectedLineIsACommand(t *testing.T) {
	check := func(command, reply, want string) {
		t.Helper()
		same(t, play(false, ">version\r\n", "<VERSION 1.6.18\r\n", ">"+command, "<"+reply, ">mn\r\n", "<MN\r\n"), "version = VERSION", want, "mn = MN")
	}
	check("set k 0 0 x\r\n", "CLIENT_ERROR bad command line format\r\n", "set ! bad command line format")
	check("get "+strings.Repeat("k", 251)+"\r\n", "CLIENT_ERROR bad command line format\r\n", "get ! bad command line format")
	check("get\r\n", "ERROR\r\n", "get ! ERROR")
	check("config get cluster\r\n", "ERROR\r\n", "config ! ERROR")
	check("\r\n", "ERROR\r\n", " ! ERROR")
}

func TestMetaCommandAndReplyAreOneEvent(t *testing.T) {
	check := func(command, reply, want string) {
		t.Helper()
		same(t, play(false, ">"+command, "<"+reply), want)
	}
	check("mg k v f\r\n", "VA 5 f0\r\nhello\r\n", "mg k = VA 1 hits 0 misses 5 bytes")
	check("mg k s t\r\n", "HD s5 t-1\r\n", "mg k = HD 1 hits 0 misses")
	check("mg k v\r\n", "EN\r\n", "mg k = EN 0 hits 1 misses")
	check("ms k 5 T60\r\nhello\r\n", "HD\r\n", "ms k = HD 5 bytes")
	check("md k\r\n", "NF\r\n", "md k = NF")
	check("mn\r\n", "MN\r\n", "mn = MN")
}

// TestRepliesOfAQuietBatchAreNotPaired puts commands before a batch, behind it, and a second batch behind the
// first. The replies of quiet commands come in any number; every other command gets its own reply.
func TestRepliesOfAQuietBatchAreNotPaired(t *testing.T) {
	same(t, play(false, ">get a\r\n", ">mg k v q\r\n", "<END\r\n", ">mn\r\n", "<MN\r\n",
		">delete b\r\n", "<NOT_FOUND\r\n", ">touch c 1\r\n", "<TOUCHED\r\n"),
		"mg k, no reply", "get a = END 0 hits 1 misses", "mn = MN", "delete b = NOT_FOUND", "touch c = TOUCHED")
	same(t, play(false, ">mg k v q\r\nmn\r\nmg k2 v q\r\nmn\r\n", "<MN\r\n", "<VA 1\r\nx\r\nMN\r\n"),
		"mg k, no reply", "mg k2, no reply", "mn = MN", "mn = MN")
	same(t, play(false, ">get a\r\nmg k v q\r\nms b 1 q\r\nx\r\nmn\r\nget d\r\n",
		"<END\r\nVA 1\r\ny\r\nNS\r\nMN\r\nEND\r\n"),
		"mg k, no reply", "ms b, no reply 1 bytes", "get a = END 0 hits 1 misses", "mn = MN", "get d = END 0 hits 1 misses")
}

// TestNoReplyIsExpected: commands with noreply, quit and the quiet commands of a batch that ends with MN have
// no reply.
func TestNoReplyIsExpected(t *testing.T) {
	same(t, play(false, ">set a 0 0 1 noreply\r\nx\r\nflush_all noreply\r\nincr a 1 noreply\r\nget b\r\n", "<END\r\n", ">quit\r\n"),
		"set a, no reply 1 bytes", "flush_all, no reply", "incr a, no reply", "get b = END 0 hits 1 misses", "quit, no reply")
	same(t, play(false, ">mg a v q\r\nmg b v q\r\nmg c v\r\nmn\r\n", "<VA 1\r\nx\r\nEN\r\nMN\r\n", ">get d\r\n", "<END\r\n"),
		"mg a, no reply", "mg b, no reply", "mg c, no reply", "mn = MN", "get d = END 0 hits 1 misses")
}

func TestValueThatContainsCommandsIsSkipped(t *testing.T) {
	const value = "END\r\nVALUE a 0 1\r\nSTORED\r\nget b\r\n"
	same(t, play(false, fmt.Sprintf(">set k 0 0 %d\r\n%s\r\nget k\r\n", len(value), value), fmt.Sprintf("<STORED\r\nVALUE k 0 %d\r\n%s\r\nEND\r\n", len(value), value)),
		"set k = STORED 33 bytes", "get k = END 1 hits 0 misses 33 bytes")
}

func TestGapCostsTheAffectedCommandsOnly(t *testing.T) {
	// A gap in a value: the size of the value determines the offset behind it.
	same(t, play(false, ">get k\r\n", "<VALUE k 0 1000\r\nab", "<gap 998", "<\r\nEND\r\n", ">get l\r\n", "<END\r\n"),
		"get k = END 1 hits 0 misses 1000 bytes partial", "get l = END 0 hits 1 misses")
	same(t, play(false, ">set k 0 0 1000\r\nab", ">gap 998", ">\r\n", "<STORED\r\n"), "set k = STORED 1000 bytes partial")

	// A gap in a reply: the bytes that follow may be data, until the client sends the next command.
	same(t, play(false, ">get a\r\n", "<gap 40", "<STORED\r\n", ">get b\r\n", "<END\r\n"), "get a, no reply partial", "get b = END 0 hits 1 misses")

	// A gap in the commands: the next command is found. Its reply may be that of a lost command.
	same(t, play(false, ">get a\r\n", "<END\r\n", ">gap 7", ">get b\r\n", "<END\r\n"), "get a = END 0 hits 1 misses", "get b = END 0 hits 1 misses partial")
}

func TestKeysAreBounded(t *testing.T) {
	keys := strings.Repeat(" k", 5000)
	got := play(false, ">get"+keys+"\r\n", "<END\r\n")
	same(t, got, "get"+strings.Repeat(" k", maxKeys)+" = END 0 hits 5000 misses")
}

func TestWatchEndsTheDialogue(t *testing.T) {
	same(t, play(false, ">watch fetchers\r\n", "<OK\r\n", "<ts=1 gid=1 type=item_get key=a\n"), "watch = OK")
}

// TestDetectIsStrict: a line that may belong to another protocol does not decide.
func TestDetectIsStrict(t *testing.T) {
	check := func(dir protocols.Dir, text string, want protocols.Match) {
		t.Helper()
		if got := detect(dir, []byte(text)); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
	check(protocols.Client, "get key\r\n", protocols.More)
	check(protocols.Client, "ge", protocols.More)
	check(protocols.Client, "set k 0 0 5\r\nhello", protocols.Yes)
	check(protocols.Client, "set k v\r\n", protocols.No)
	check(protocols.Client, "GET / HTTP/1.1\r\n", protocols.No)
	check(protocols.Client, "get / HTTP/1.1\r\n", protocols.No)
	check(protocols.Client, "EHLO x\r\n", protocols.No)
	check(protocols.Client, "\x80\x00", protocols.More)
	check(protocols.Client, "\x80\x7f", protocols.No)
	check(protocols.Server, "END\r\n", protocols.Yes)
	check(protocols.Server, "OK\r\n", protocols.More)
	check(protocols.Server, "$-1\r\n", protocols.No)
	check(protocols.Server, "220 ready\r\n", protocols.No)
}

// FuzzParse checks the properties of every parser with arbitrary bytes.
func FuzzParse(f *testing.F) {
	f.Add([]byte("get a\r\n"), []byte("END\r\n"), uint8(1), uint8(0))
	f.Add([]byte("set k 0 0 5\r\nhello\r\nmg k v q\r\nmn\r\n"), []byte("STORED\r\nVA 1\r\nx\r\nMN\r\n"), uint8(3), uint8(7))
	f.Add([]byte("ms k 9 I I\r\nget a\r\nflush_all\r\n"), []byte("CLIENT_ERROR x\r\nEND\r\nOK\r\n"), uint8(3), uint8(2))
	f.Add([]byte("set k 0 0 9 noreply\r\nget a b\r\nmn\r\n"), []byte("EN\r\nMN\r\n"), uint8(3), uint8(2))
	f.Add([]byte("\x80\x01"+strings.Repeat("\x00", 22)+"\r\nget a\r\n"), []byte("ERROR\r\nEND\r\n"), uint8(3), uint8(2))
	f.Fuzz(protocoltest.Fuzz(list))
}

// BenchmarkGet measures a get and its reply through the framework.
func BenchmarkGet(b *testing.B) {
	conversation := protocoltest.Conversation{Port: 11211}
	request, reply := []byte("get user:1\r\n"), []byte("VALUE user:1 0 5\r\nhello\r\nEND\r\n")
	conn := protocols.NewSet(list, protocols.Default(), nil).Open(conversation.Info(), func(event *pipeline.Event) { event.ReturnToVTPool() })
	at := protocoltest.Start
	b.ReportAllocs()
	for b.Loop() {
		at += 1e6
		conn.Data(protocols.Client, request, at)
		conn.Data(protocols.Server, reply, at)
	}
}

// BenchmarkSet stores a value of text of a kilobyte.
func BenchmarkSet(b *testing.B) {
	set := protocols.NewSet(list, protocols.Default(), nil)
	conversation := protocoltest.Conversation{Port: 11211}
	conn := set.Open(conversation.Info(), func(event *pipeline.Event) { event.ReturnToVTPool() })
	line := "a line of a text, as long as most of them are, set in the way of poems\r\n"
	request := []byte(fmt.Sprintf("set key:123 0 0 %d\r\n%s\r\n", 14*len(line), strings.Repeat(line, 14)))
	reply := []byte("STORED\r\n")
	b.ReportAllocs()
	for b.Loop() {
		conn.Data(protocols.Client, request, 1)
		conn.Data(protocols.Server, reply, 2)
	}
}
