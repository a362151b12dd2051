package redis

import (
	"strconv"
	"strings"
	"testing"

	"tidegate/pipeline"
	"tidegate/protocols"
)

// opened returns a parser of a connection, and its events.
func opened(midStream bool) (p *parser, events *[]*pipeline.Event) {
	events = new([]*pipeline.Event)
	set := protocols.NewSet(list, protocols.Default(), nil)
	p = &parser{}
	p.Reset(set.Open(protocols.Info{MidStream: midStream}, func(event *pipeline.Event) { *events = append(*events, event) }))
	return p, events
}

// TestKeyIsWhereTheTableSays: at a position, behind a number of keys, behind STREAMS, or first in a module.
func TestKeyIsWhereTheTableSays(t *testing.T) {
	check := func(line, want string) {
		t.Helper()
		p, events := opened(false)
		if _, err := p.readCommand([]byte(resp(strings.Fields(line)...)), 1); err != nil {
			t.Fatal(err)
		}
		p.Close(2)
		if got := (*events)[0].Redis.Key; got != want {
			t.Errorf("%s: key %q, want %q", line, got, want)
		}
	}
	check("GET a b", "a")
	check("get a", "a")
	check("BITOP AND dest a", "dest")
	check("MIGRATE host 1 key 0 9", "key")
	check("EVAL script 2 a b", "a")
	check("EVAL script 0 a", "")
	check("EVAL script x a", "")
	check("EVAL script x 1 a", "")
	check("EVAL script 0 1 a", "")
	check("ZUNION 2 a b", "a")
	check("BLMPOP 0 1 a LEFT", "a")
	check("XREAD COUNT 2 STREAMS a b 0 0", "a")
	check("XREADGROUP GROUP g c streams a >", "a")
	check("XREAD COUNT 2", "")
	check("OBJECT ENCODING a", "a")
	check("object freq a", "a")
	check("OBJECT HELP", "")
	check("JSON.SET a $ 1", "a")
	check("NOSUCH a", "")
	check("PING a", "")
	long := strings.Repeat("k", maxKey+5)
	check("GET "+long, long[:maxKey])
}

// TestWordsOfATextAreNotSearched for secrets; what cannot be a command keeps no arguments.
func TestWordsOfATextAreNotSearched(t *testing.T) {
	for text, want := range map[string]bool{"": true, "ab cd": true, "AZ az": true, "a1": false, "a:b": false, "a@": false, "a[": false, "a`": false, "a{": false, "a\tb": false} {
		if got := isOnlyWords([]byte(text)); got != want {
			t.Errorf("%q has words only: %t", text, got)
		}
	}
	p, events := opened(false)
	for _, line := range []string{"{x} secret\r\n", "SET a b\r\n"} {
		if _, err := p.readCommand([]byte(line), 1); err != nil {
			t.Fatal(err)
		}
	}
	p.Close(2)
	if first, second := (*events)[0].Redis, (*events)[1].Redis; len(first.Args) != 0 || first.ArgsCount != 1 || len(second.Args) != 2 {
		t.Errorf("%v, %v", first, second)
	}
	var buffer []byte
	if got := string(upper(&buffer, []byte("aZ`{9_é"))); got != "AZ`{9_é" || string(buffer) != got {
		t.Errorf("%q, %q", got, buffer)
	}
}

// TestHeaderOfAnArrayEndsAtItsCR, whatever byte follows.
func TestHeaderOfAnArrayEndsAtItsCR(t *testing.T) {
	check := func(data string, most int, line string, length int) {
		t.Helper()
		if got, size := cutHeader([]byte(data), most); string(got) != line || size != length {
			t.Errorf("%q: %q of %d", data, got, size)
		}
	}
	check("*1\r\n$", 10, "*1", 4)
	check("*1\rx", 10, "*1", 4)
	check("*1\r", 10, "", 0)
	check("*1", 10, "", 0)
	check("*1\r\n", 3, "*1", 4)
	check("*1\r\n", 2, "", 0)
	end := func(data string, want int, ok bool) {
		t.Helper()
		if got, err := readLineEnd([]byte(data)); got != want || (err == nil) != ok {
			t.Errorf("%q: %d, %v", data, got, err)
		}
	}
	end("", 0, true)
	end("\r", 0, true)
	end("\r\n", 2, true)
	end("\r\nx", 2, true)
	end("x", 0, false)
	end("\rx", 0, false)
	p, _ := opened(false)
	if p.checkLineLength(make([]byte, maxLine)) != nil || p.checkLineLength(make([]byte, maxLine+1)) == nil {
		t.Error("a line has maxLine bytes at most")
	}
}

// TestEndOfALongArgumentIsKept, in whatever pieces it comes.
func TestEndOfALongArgumentIsKept(t *testing.T) {
	for _, size := range []int{1, 7, argTail - 1, argTail, argTail + 1, 5000} {
		var text strings.Builder
		for text.Len() < 3*maxArg {
			text.WriteString("0123456789abcdefghijklmnopqrstuvwxyz_")
		}
		data := text.String()
		reader := commandReader{size: uint64(len(data))}
		for at := 0; at < len(data); at += size {
			reader.keepTail([]byte(data[at:min(at+size, len(data))]))
		}
		if string(reader.tail) != data[len(data)-argTail:] {
			t.Errorf("pieces of %d bytes: the tail is %q", size, reader.tail)
		}
	}
	short := commandReader{size: maxArg}
	if short.keepTail([]byte("abc")); len(short.tail) != 0 {
		t.Errorf("of an argument that is kept as a whole the tail is %q", short.tail)
	}
	short.size++
	if short.keepTail([]byte("abc")); string(short.tail) != "abc" {
		t.Errorf("the tail is %q", short.tail)
	}
}

// TestCommandsWithoutAnEndAreTold, with the words that came.
func TestCommandsWithoutAnEndAreTold(t *testing.T) {
	check := func(what string, want string, play func(p *parser)) {
		t.Helper()
		p, events := opened(false)
		play(p)
		p.Close(9)
		var got []string
		for _, event := range *events {
			got = append(got, short(event))
		}
		if strings.Join(got, "; ") != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
		if p.Held() != 0 || p.conn != nil {
			t.Errorf("%s: %d bytes are held", what, p.Held())
		}
	}
	read := func(p *parser, text string) {
		t.Helper()
		if _, err := p.readCommand([]byte(text), 1); err != nil {
			t.Fatal(err)
		}
	}
	check("a whole one", "GET a, no reply", func(p *parser) { read(p, resp("GET", "a")) })
	check("its front", "GET a, no reply; SET b, no reply partial", func(p *parser) {
		read(p, resp("GET", "a"))
		read(p, "*3\r\n$3\r\nSET\r\n$1\r\nb\r\n$5\r\nxy")
	})
	check("its head", "GET a, no reply", func(p *parser) { read(p, resp("GET", "a")); read(p, "*3\r\n$3\r\nSE") })
	check("a gap in the name behind a whole one", "GET a, no reply", func(p *parser) {
		read(p, resp("GET", "a"))
		read(p, "*3\r\n$3\r\nS")
		p.Gap(protocols.Client, 1)
	})
	check("a gap in its name", "", func(p *parser) { read(p, "*3\r\n$3\r\nS"); p.Gap(protocols.Client, 1) })
	check("a gap behind its name", "SET, no reply partial", func(p *parser) { read(p, "*3\r\n$3\r\nSET\r\n"); p.Gap(protocols.Client, 1) })
	check("a gap in an argument", "SET b xy, no reply partial", func(p *parser) {
		read(p, "*3\r\n$3\r\nSET\r\n$1\r\nb\r\n$5\r\nxy")
		if !p.Gap(protocols.Client, 3) {
			t.Error("the position behind it is not known")
		}
		read(p, "\r\n")
	})
	check("a gap up to the end of an argument", "SET b xy, no reply partial", func(p *parser) {
		read(p, "*3\r\n$3\r\nSET\r\n$1\r\nb\r\n$5\r\nxy")
		if !p.Gap(protocols.Client, 5) {
			t.Error("the position behind it is not known")
		}
	})
	check("a gap beyond an argument", "SET b, no reply partial", func(p *parser) {
		read(p, "*3\r\n$3\r\nSET\r\n$1\r\nb\r\n$5\r\nxy")
		if p.Gap(protocols.Client, 4) {
			t.Error("the position behind it is known")
		}
	})
	truncated := func(text string) func(p *parser) {
		return func(p *parser) { p.ParseTruncated(protocols.Client, []byte(text), 1) }
	}
	check("a line without its end", "SET a b, no reply partial", truncated("SET a b"))
	check("a line that may be cut in its name", "", truncated("SET"))
	check("a line of no command", "", truncated("NOTHING a"))
	check("an array", "", truncated("*3\r\n$3"))
	check("nothing", "", truncated(""))
	check("a line of the server", "", func(p *parser) { p.ParseTruncated(protocols.Server, []byte("SET a b"), 1) })
	check("control characters", "", truncated("SET a\x01 b"))
}

// TestRepliesAreReadByTheirTypes: RESP3, with attributes, streams and chunks.
func TestRepliesAreReadByTheirTypes(t *testing.T) {
	check := func(reply, kind, text string, bytes uint64) {
		t.Helper()
		for _, size := range []int{1, 1 << 20} {
			p, events := opened(false)
			if _, err := p.readCommand([]byte(resp("GET", "a")), 1); err != nil {
				t.Fatal(err)
			}
			var rest []byte
			for at := 0; at < len(reply); at += size {
				rest = append(rest, reply[at:min(at+size, len(reply))]...)
				for len(rest) > 0 {
					read, err := p.readReply(rest, 2)
					if err != nil {
						t.Fatalf("%q: %v", reply, err)
					}
					if rest = rest[read:]; read == 0 {
						break
					}
				}
			}
			p.Close(3)
			if body := (*events)[0].Redis; len(*events) != 1 || body.ReplyType != kind || body.Reply != text || body.ReplyBytes != bytes ||
				(*events)[0].Destination.Bytes != uint64(len(reply)) {
				t.Errorf("%q in parts of %d: %s %q of %d, %d bytes", reply, size, body.ReplyType, body.Reply, body.ReplyBytes, (*events)[0].Destination.Bytes)
			}
		}
	}
	check("+OK\r\n", "simple_string", "OK", 0)
	check("-ERR x\r\n", "error", "ERR x", 0)
	check(":12\r\n", "integer", "12", 0)
	check(":+12\r\n", "integer", "+12", 0)
	check(":-9223372036854775808\r\n", "integer", "-9223372036854775808", 0)
	check("$5\r\nhello\r\n", "bulk_string", "", 5)
	check("$0\r\n\r\n", "bulk_string", "", 0)
	check("$-1\r\n", "null", "", 0)
	check("*-1\r\n", "null", "", 0)
	check("_\r\n", "null", "", 0)
	check("#t\r\n", "boolean", "t", 0)
	check(",1.5\r\n", "double", "1.5", 0)
	check("(123\r\n", "big_number", "123", 0)
	check("!9\r\nERR hello\r\n", "bulk_error", "ERR hello", 9)
	check("=7\r\ntxt:abc\r\n", "verbatim_string", "", 7)
	check("*2\r\n$1\r\na\r\n:1\r\n", "array", "", 15)
	check("*0\r\n", "array", "", 4)
	check("*2\r\n*1\r\n:1\r\n*0\r\n", "array", "", 16)
	check("%1\r\n+a\r\n:1\r\n", "map", "", 12)
	check("~1\r\n+a\r\n", "set", "", 8)
	check("|1\r\n+a\r\n+b\r\n+OK\r\n", "simple_string", "OK", 0)
	check("|1\r\n+a\r\n*2\r\n:1\r\n:2\r\n:3\r\n", "integer", "3", 0)
	check("!"+strconv.Itoa(maxText+50)+"\r\n"+strings.Repeat("e", maxText+50)+"\r\n", "bulk_error", strings.Repeat("e", maxText), maxText+50)
	check("-"+strings.Repeat("e", maxText+50)+"\r\n", "error", strings.Repeat("e", maxText), 0)
	check("+"+strings.Repeat("e", maxText+50)+"\r\n", "simple_string", strings.Repeat("e", maxText), 0)
	check("|0\r\n+OK\r\n", "simple_string", "OK", 0)
	check("*?\r\n:1\r\n:2\r\n.\r\n", "array", "", 15)
	check("*1\r\n*?\r\n.\r\n", "array", "", 11)
	check("$?\r\n;4\r\nabcd\r\n;1\r\ne\r\n;0\r\n", "bulk_string", "", 5)
	check("*2\r\n$?\r\n;1\r\na\r\n;0\r\n:1\r\n", "array", "", 23)

	for _, bad := range []string{"x\r\n", "$x\r\n", "$-2\r\n", "*-2\r\n", "*x\r\n", ".\r\n", ":123456789012345678901\r\n", "*1\r\n\r\n", "*1\r\nx\r\n", "$?\r\n$4\r\n", "$?\r\n;-1\r\n", "$?\r\n;x\r\n", "*1\r\n.\r\n"} {
		p, _ := opened(false)
		failed := false
		for rest := []byte(bad); len(rest) > 0 && !failed; {
			read, err := p.readReply(rest, 1)
			failed = err != nil
			if rest = rest[read:]; read == 0 {
				break
			}
		}
		if !failed {
			t.Errorf("%q is a reply", bad)
		}
	}
	deep := strings.Repeat("*1\r\n", maxDepth)
	p, _ := opened(false)
	if read, err := p.readReply([]byte(deep), 1); err != nil || read != len(deep) {
		t.Errorf("%d levels: %d, %v", maxDepth, read, err)
	}
	if _, err := p.readReply([]byte("*1\r\n"), 1); err == nil {
		t.Error("one level more is read")
	}
}

// TestLinesOfMonitorAreKnownByTheirTime.
func TestLinesOfMonitorAreKnownByTheirTime(t *testing.T) {
	for text, want := range map[string]bool{
		`1339518083.107412 [0 127.0.0.1:60866] "keys" "*"`: true, `1.1 [`: true, `.1 [0`: false, `1 [0`: false, `1.1[0`: false, `x1.1 [0`: false, ``: false,
	} {
		if got := isMonitorLine(text); got != want {
			t.Errorf("%q: %t", text, got)
		}
	}
}

// TestNamesOfCommandsAreBounded where they are looked for in a line.
func TestNamesOfCommandsAreBounded(t *testing.T) {
	for text, want := range map[string]bool{
		"GET": true, "get": true, "geT": true, "": false, "GETX": false, "GEORADIUSBYMEMBER_RO": true, strings.Repeat("A", 32): false, strings.Repeat("A", 33): false, "G\xe9T": false,
	} {
		if got := isCommandWord([]byte(text)); got != want {
			t.Errorf("%q: %t", text, got)
		}
	}
	inline := func(text string, want protocols.Match, length int) {
		t.Helper()
		if got, size := matchInline([]byte(text)); got != want || size != length {
			t.Errorf("%.40q: %d, %d bytes; want %d, %d", text, got, size, want, length)
		}
	}
	const no, more, yes = protocols.No, protocols.More, protocols.Yes
	inline("GET a\r\nrest", yes, 7)
	inline("GET a\n", yes, 6)
	inline("\rGET a\r\n", yes, 8)
	inline("GET a", more, 5)
	inline("GE", more, 2)
	inline("NOTHING a", no, 9)
	inline("NOTHING", more, 7)
	inline("NOTHING\r\n", no, 9)
	inline("GET \x01\n", no, 6)
	inline(strings.Repeat("N", 64), more, 64)
	inline(strings.Repeat("N", 65), no, 65)
	inline("GET "+strings.Repeat("a", longInline-5), more, longInline-1)
	inline("GET "+strings.Repeat("a", longInline-4), yes, longInline)
	certain := func(data string, want bool) {
		t.Helper()
		if got := hasCertainCommand([]byte(data)); got != want {
			t.Errorf("%.60q: %t", data, got)
		}
	}
	get := resp("GET", "a")
	certain(get, true)
	certain(`"GET" a`+"\r\n", true)
	certain("", false)
	certain("PING\r\n", false)
	certain("PING\r\n"+get, true)
	certain("nonsense\r\n"+get, false)
	certain(strings.Repeat("PING\r\n", 15)+get, true)
	certain(strings.Repeat("PING\r\n", 16)+get, false)
	certain(resp("NOTHING", "a"), false)
	certain("\r\n*0\r\n"+get, true)
}
