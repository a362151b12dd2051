package http

import (
	"fmt"
	"strings"
	"testing"

	"tidegate/pipeline"
	"tidegate/protocols"
	"tidegate/protocols/protocoltest"
)

var list = []protocols.Protocol{Protocol}

// short returns the fields that most tests compare: method, original URL, status, body sizes, partial.
func short(event *pipeline.Event) string {
	exchange := event.Http
	text := fmt.Sprintf("%s %s %d", exchange.Method, exchange.UrlOriginal, exchange.StatusCode)
	if exchange.RequestBodyBytes+exchange.ResponseBodyBytes > 0 {
		text += fmt.Sprintf(" %d/%d", exchange.RequestBodyBytes, exchange.ResponseBodyBytes)
	}
	if event.Partial {
		text += " partial"
	}
	return strings.TrimSpace(text)
}

// play returns the events of steps. A step begins with > for the client or < for the server. Bytes follow, or
// | for a FIN, or ~9 for a gap of 9 bytes.
func play(midStream bool, show func(*pipeline.Event) string, steps ...string) []string {
	var got []string
	conversation := protocoltest.Conversation{MidStream: midStream}
	conn := protocols.NewSet(list, protocols.Default(), nil).Open(conversation.Info(), func(event *pipeline.Event) {
		got = append(got, show(event))
	})
	at := protocoltest.Start
	for _, step := range steps {
		at += 1e6
		dir := protocols.Client
		if step[0] == '<' {
			dir = protocols.Server
		}
		var size int
		switch step = step[1:]; {
		case step == "|":
			conn.End(dir, at)
		case strings.HasPrefix(step, "~"):
			_, _ = fmt.Sscan(step[1:], &size)
			conn.Gap(dir, size, at)
		default:
			conn.Data(dir, []byte(step), at)
		}
	}
	conn.Close(at + 1e6)
	return got
}

// same compares events in the form of short or long.
func same(t *testing.T, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// in returns a step of the client, out one of the server. Line breaks become CRLF.
func in(text string) string  { return ">" + strings.ReplaceAll(text, "\n", "\r\n") }
func out(text string) string { return "<" + strings.ReplaceAll(text, "\n", "\r\n") }

const (
	get   = "GET /a HTTP/1.1\nHost: x\n\n"
	getB  = "GET /b HTTP/1.1\nHost: x\n\n"
	ok5   = "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello"
	empty = "HTTP/1.1 204 No Content\n\n"
)

func TestRequestAndResponseAreOneEvent(t *testing.T) {
	same(t, play(false, short, in(get), out(ok5)), "GET /a 200 0/5")
	same(t, play(false, short, in(get), out(ok5), in(getB), out(empty)), "GET /a 200 0/5", "GET /b 204")
	same(t, play(false, short, in("POST /p HTTP/1.0\nContent-Length: 3\n\nabc"), out("HTTP/1.0 404 Not Found\nContent-Length: 0\n\n")), "POST /p 404 3/0")
	same(t, play(false, short, in("\n\n"+get), out("\n"+ok5)), "GET /a 200 0/5")
	same(t, play(false, short, ">GET /lf HTTP/1.1\nHost: x\n\n", "<HTTP/1.1 200 OK\nContent-Length: 0\n\n"), "GET /lf 200")
}

func TestPipelinedResponsesMatchTheirRequests(t *testing.T) {
	same(t, play(false, short, in(get+getB+get), out(ok5+empty+ok5)), "GET /a 200 0/5", "GET /b 204", "GET /a 200 0/5")
}

func TestUnansweredRequestIsEmittedOnClose(t *testing.T) {
	same(t, play(false, short, in(get+getB), out(ok5)), "GET /a 200 0/5", "GET /b 0")
	same(t, play(false, short, in("POST /p HTTP/1.1\nContent-Length: 9\n\nabc")), "POST /p 0 3/0 partial")
}

func TestResponseWithoutRequestHasNoMethod(t *testing.T) {
	same(t, play(false, short, out("HTTP/1.1 408 Request Timeout\nContent-Length: 0\n\n")), "408 partial")
}

func TestBodiesEndWhereTheirFramingSays(t *testing.T) {
	check := func(response, want string) {
		t.Helper()
		same(t, play(false, short, in(get), out(response), in(getB), out(empty)), want, "GET /b 204")
	}
	check("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5\nhello\n3;ext=\"x;y\"\nabc\n0\n\n", "GET /a 200 0/8")
	check("HTTP/1.1 200 OK\nTransfer-Encoding: gzip, Chunked\n\nA\n0123456789\n0\nTrailer: x\nOther: y\n\n", "GET /a 200 0/10")
	check("HTTP/1.1 304 Not Modified\nContent-Length: 500\n\n", "GET /a 304")
	check("HTTP/1.1 100 Continue\n\nHTTP/1.1 103 Early Hints\nLink: x\n\n"+ok5, "GET /a 200 0/5")
	check("HTTP/1.1 200 OK\nContent-Length: 5, 5\nContent-Length: 5\n\nhello", "GET /a 200 0/5")

	same(t, play(false, short, in("HEAD /h HTTP/1.1\n\n"), out("HTTP/1.1 200 OK\nContent-Length: 500\n\n"), in(getB), out(empty)), "HEAD /h 200", "GET /b 204")
	same(t, play(false, short, in(get), out("HTTP/1.0 200 OK\n\nuntil the end"), "<|"), "GET /a 200 0/13")
	same(t, play(false, short, in(get), out("HTTP/1.0 200 OK\n\nuntil the end")), "GET /a 200 0/13 partial")
	same(t, play(false, short, in(get), out("HTTP/1.0 200 OK\nContent-Length: 50\n\ncut"), "<|"), "GET /a 200 0/3 partial")
	same(t, play(false, short, in("POST /c HTTP/1.1\nTransfer-Encoding: chunked\n\n3\nabc\n0\n\n"+getB), out(empty+empty)), "POST /c 204 3/0", "GET /b 204")
}

func TestContinueIsNotTheResponse(t *testing.T) {
	same(t, play(false, short, in("PUT /u HTTP/1.1\nExpect: 100-continue\nContent-Length: 4\n\n"), out("HTTP/1.1 100 Continue\n\n"), in("body"), out(empty)), "PUT /u 204 4/0")
}

func TestEarlyResponseWaitsForTheEndOfTheRequest(t *testing.T) {
	same(t, play(false, short, in("PUT /u HTTP/1.1\nContent-Length: 4\n\nbo"), out("HTTP/1.1 413 Too Large\nContent-Length: 0\n\n"), in("dy")), "PUT /u 413 4/0")
}

// TestConnectLeadsToAnotherProtocol: the protocol in the tunnel is recognised, also if the client does not
// wait for the reply.
func TestConnectLeadsToAnotherProtocol(t *testing.T) {
	tunnel := "HTTP/1.1 200 Connection established\n\n"
	same(t, play(false, short, in("CONNECT h.example:443 HTTP/1.1\nHost: h.example:443\n\n"), out(tunnel), in(get), out(ok5)),
		"CONNECT h.example:443 200", "GET /a 200 0/5")
	same(t, play(false, short, in("CONNECT h:443 HTTP/1.1\n\n"), out(tunnel), ">\x16\x03\x01\x00\x05hello"), "CONNECT h:443 200")

	// The client does not wait for the reply.
	same(t, play(false, short, in("CONNECT h:443 HTTP/1.1\n\n"+get), out(tunnel), out(ok5)), "CONNECT h:443 200", "GET /a 200 0/5")
	same(t, play(false, short, in("CONNECT h:443 HTTP/1.1\n\n"+get), out("HTTP/1.1 403 No\nContent-Length: 0\n\n"), out(ok5)), "CONNECT h:443 403", "GET /a 200 0/5")
}

func TestUpgradeEndsHTTP(t *testing.T) {
	up := "GET /ws HTTP/1.1\nConnection: Upgrade\nUpgrade: websocket\n\n"
	same(t, play(false, short, in(up), out("HTTP/1.1 101 Switching Protocols\nUpgrade: websocket\n\n"), ">\x81\x85abcdhello", "<\x81\x05GET /"), "GET /ws 101")
	same(t, play(false, short, in(up), out(ok5), in(getB), out(empty)), "GET /ws 200 0/5", "GET /b 204")
	same(t, play(false, short, in(up+getB), out(ok5+empty)), "GET /ws 200 0/5", "GET /b 204")
}

// TestSmugglingIsMarked: a request with contradictory or malformed framing is partial.
func TestSmugglingIsMarked(t *testing.T) {
	checkFirst := func(want string, steps ...string) {
		t.Helper()
		got := play(false, short, steps...)
		if len(got) == 0 || got[0] != want {
			t.Errorf("got %q, want first %q", got, want)
		}
	}
	checkFirst("POST / 0 partial", in("POST / HTTP/1.1\nContent-Length: 6\nTransfer-Encoding: chunked\n\n0\n\n"))
	checkFirst("POST / 0 5/0 partial", in("POST / HTTP/1.1\nContent-Length: 5\nContent-Length: 6\n\nhello"))
	checkFirst("POST / 0 5/0 partial", in("POST / HTTP/1.1\nContent-Length: +5\n\nhello")) // as Python reads it, the only one that takes it
	checkFirst("POST / 0 partial", in("POST / HTTP/1.1\nContent-Length: -5\n\nhello"))
	checkFirst("GET /a 0 partial", ">GET /a HTTP/1.1\r\nHost: a\r\n\r\r\nGET /b HTTP/1.1\r\n\r\n")
	checkFirst("POST / 0 5/0 partial", in("POST / HTTP/1.1\nContent-Length : 5\n\nhello"))
	checkFirst("POST / 0 partial", in("POST / HTTP/1.1\nTransfer-Encoding: xchunked\n\n"))
}

// TestRequestsBehindABadLengthAreAmbiguous: Python's int() takes these lengths, so the server reads as a body
// what others read as requests. None of them is told as a plain one, also later ones.
func TestRequestsBehindABadLengthAreAmbiguous(t *testing.T) {
	ambiguous := func(event *pipeline.Event) string {
		return fmt.Sprintf("%s%s%v", event.Http.Method, event.Tags, event.Partial)
	}
	for _, length := range []string{"+38", "3_8", "0x26", "-1", "38 38", "\u00a038"} {
		head := "POST / HTTP/1.1\nHost: x\nContent-Length: " + length + "\n\n"
		same(t, play(false, ambiguous, in(head+get+getB), out(ok5), out(empty), out(empty), in(get), out(empty)),
			"POST[ambiguous]true", "GET[ambiguous]true", "GET[ambiguous]true", "GET[ambiguous]true")
	}
	same(t, play(false, ambiguous, in("POST / HTTP/1.1\nContent-Length: 5\n\nhello"+get), out(ok5), out(empty)), "POST[]false", "GET[]false")
}

// TestCruftBehindAMessageIsSkipped: cruft behind a response is skipped; cruft behind a request marks the next
// one.
func TestCruftBehindAMessageIsSkipped(t *testing.T) {
	same(t, play(false, short, in(get), out(ok5+"cruft"), in(getB), out(empty)), "GET /a 200 0/5", "GET /b 204")
	same(t, play(false, short, in(get+"\x00\x01cruft\n"+getB), out(ok5+empty)), "GET /a 200 0/5", "GET /b 204 partial")
}

func TestGapInABodyKeepsTheFraming(t *testing.T) {
	same(t, play(false, short, in(get), out("HTTP/1.1 200 OK\nContent-Length: 100\n\n"+strings.Repeat("x", 40)), "<~60", in(getB), out(empty)), "GET /a 200 0/100 partial", "GET /b 204")
	same(t, play(false, short, in(get), out("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n64\n"+strings.Repeat("x", 40)), "<~50", out(strings.Repeat("x", 10)+"\n0\n\n"), in(getB), out(empty)),
		"GET /a 200 0/100 partial", "GET /b 204")
}

func TestGapInAHeadLosesOneTransaction(t *testing.T) {
	same(t, play(false, short, in("GET /a HTTP/1.1\nHo"), ">~10", in("\n\n"+getB), out(ok5+empty)), "GET /a 200 0/5 partial", "GET /b 204 partial")

	// The whole first response is lost. The next request of the client shows that it has received the
	// response.
	same(t, play(false, short, in(get), "<~80", in(getB), out(empty)), "GET /a 0 partial", "GET /b 204")
	same(t, play(false, short, in(get), out("HTTP/1.1 200 O"), "<~50", in(getB), out(empty)), "GET /a 200 partial", "GET /b 204")
}

func TestMidStreamBeginsAtTheNextMessage(t *testing.T) {
	same(t, play(true, short, in("tail of a body"+get), out(ok5)), "GET /a 200 0/5 partial")
	same(t, play(true, short, out("rest of a body\n"+ok5), in(getB), out(empty)), "200 0/5 partial", "GET /b 204")
	same(t, play(true, short, in(get), out(ok5)), "GET /a 200 0/5")
}

func TestWrongRolesAreExchanged(t *testing.T) {
	same(t, play(true, short, "<"+in(get)[1:], ">"+out(ok5)[1:]), "GET /a 200 0/5")
	same(t, play(true, short, ">"+out(ok5)[1:], "<"+in(getB)[1:], ">"+out(empty)[1:]), "200 0/5 partial", "GET /b 204")
}

func TestStateWithoutRepliesIsBounded(t *testing.T) {
	steps := []string{}
	for range 3 * maxWaiting {
		steps = append(steps, in(get))
	}
	got := play(false, short, steps...)
	if len(got) != 3*maxWaiting {
		t.Fatalf("%d events, want one for each request", len(got))
	}

	// The responses of evicted requests are skipped, so that each other request keeps its own response.
	steps = append(steps[:maxWaiting+1], out(strings.Repeat(ok5, maxWaiting)+empty))
	got = play(false, short, steps...)
	if len(got) != maxWaiting+1 || got[0] != "GET /a 0 partial" || got[1] != "GET /a 200 0/5" || got[maxWaiting] != "GET /a 204" {
		t.Errorf("got %d events: %q …", len(got), got[:2])
	}
}

// TestFieldsAreReadAndRedacted checks the fields of an exchange that the other tests leave out.
func TestFieldsAreReadAndRedacted(t *testing.T) {
	one := func(steps ...string) *pipeline.Event {
		t.Helper()
		var last *pipeline.Event
		play(false, func(event *pipeline.Event) string { last = event; return "" }, steps...)
		if last == nil {
			t.Fatal("no event")
		}
		return last
	}
	is := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s is %q, want %q", what, got, want)
		}
	}
	event := one(in("GET http://User:pw@WWW.Example.com:8080/a/b?x=1&token=abc#f HTTP/1.1\nHost: other\nUser-Agent: curl/8\nReferer: http://r/?password=p&y=2\n"+
		"X-Forwarded-For: 1.2.3.4, 5.6.7.8\nAuthorization: Basic dXNlcjpzZWNyZXQ=\nCookie: a=b\nContent-Type: Text/HTML; charset=x\n\n"),
		out("HTTP/1.1 302 Found here\nServer: nginx\nLocation: /l?code=abc\nContent-Type: application/json\nContent-Length: 0\n\n"))
	exchange := event.Http
	is("original", exchange.UrlOriginal, "http://REDACTED@WWW.Example.com:8080/a/b?x=1&token=REDACTED#f")
	is("path", exchange.UrlPath, "/a/b")
	is("query", exchange.UrlQuery, "x=1&token=REDACTED")
	is("domain", exchange.UrlDomain, "www.example.com")
	is("agent", exchange.UserAgent, "curl/8")
	is("referrer", exchange.Referrer, "http://r/?password=REDACTED&y=2")
	is("forwarded", strings.Join(exchange.XForwardedFor, "|"), "1.2.3.4|5.6.7.8")
	is("scheme", strings.Join(exchange.Authorization, "|"), "Basic")
	is("user", exchange.UserName, "user")
	is("request type", exchange.RequestMimeType, "text/html")
	is("response type", exchange.ResponseMimeType, "application/json")
	is("server", exchange.Server, "nginx")
	is("location", exchange.Location, "/l?code=REDACTED")
	is("phrase", exchange.StatusPhrase, "Found here")
	is("version", exchange.Version, "1.1")
	is("outcome", event.Outcome.Name(), "success")
	text := protocoltest.Text(event)
	for _, secret := range []string{"secret", "pw", "abc", "a=b"} {
		if strings.Contains(text, secret) {
			t.Errorf("a secret is left in %s", text)
		}
	}
	if event.Duration != 1e6 || event.Timestamp != protocoltest.Start+1e6 {
		t.Errorf("duration %d from %d", event.Duration, event.Timestamp)
	}

	is("bare credential", strings.Join(one(in("GET / HTTP/1.1\nAuthorization: abcdef\n\n")).Http.Authorization, ""), "REDACTED")
	is("user without colon", one(in("GET / HTTP/1.1\nAuthorization: Basic c2VjcmV0\n\n")).Http.UserName, "")
	is("user after two spaces", one(in("GET / HTTP/1.1\nAuthorization: basic  dXNlcjpzZWNyZXQ=\n\n")).Http.UserName, "user")
	is("folded agent", one(in("GET / HTTP/1.1\nUser-Agent: a\n  b\n\tc\nHost: x\n\n")).Http.UserAgent, "a b c")
	is("IPv6", one(in("GET / HTTP/1.1\nHost: [::1]:80\n\n")).Http.UrlDomain, "[::1]")
	is("last dot", one(in("GET / HTTP/1.1\nHost: Evil.example.:80\n\n")).Http.UrlDomain, "evil.example")
	for host, want := range map[string]string{
		"203.0.113.9.:80": "203.0.113.9", "[2001:DB8::9]:80": "[2001:db8::9]", "2001:db8::9": "2001:db8::9", "::ffff:203.0.113.9": "::ffff:203.0.113.9",
		"[fe80::9%25Eth0]": "[fe80::9%25eth0]", "0xCB007109": "203.0.113.9", "3405803785:80": "203.0.113.9", "169.254.43518": "169.254.169.254",
		"a..": "a", "[::1": "[::1",
	} {
		is("Host "+host, one(in("GET / HTTP/1.1\nHost: "+host+"\n\n")).Http.UrlDomain, want)
		is("target "+host, one(in("GET http://u:p@"+host+"/ HTTP/1.1\n\n")).Http.UrlDomain, want)
	}
	long := one(in("GET / HTTP/1.1\nHost: " + strings.Repeat("a.", 200) + "evil.example\n\n"))
	is("the end of a long host", long.Http.UrlDomain[len(long.Http.UrlDomain)-13:], ".evil.example")
	is("the mark of a long host", strings.Join(long.Tags, " "), pipeline.TagTruncated)
	is("last dot of a target", one(in("GET http://evil.example./ HTTP/1.1\n\n")).Http.UrlDomain, "evil.example")
	is("spaces", one(in("GET /a b HTTP/1.1\n\n")).Http.UrlOriginal, "/a b")
	is("no target", one(in("GET HTTP/1.1\n\n")).Http.UrlOriginal, "")
	is("bytes that are no text", one(in("GET /\xff HTTP/1.1\n\n")).Http.UrlOriginal, `/\xff`)
	is("failure", one(in(get), out("HTTP/1.1 500 No\nContent-Length: 0\n\n")).Outcome.Name(), "failure")
}

func TestDetectIsStrict(t *testing.T) {
	check := func(dir protocols.Dir, data string, want protocols.Match) {
		t.Helper()
		if got := detect(dir, []byte(data)); got != want {
			t.Errorf("%q is %d, want %d", data, got, want)
		}
	}
	const client, server = protocols.Client, protocols.Server
	check(client, "GET", protocols.More)
	check(client, "GET / HTTP/1.1", protocols.More)
	check(client, "GET / HTTP/1.1\r\n", protocols.Yes)
	check(client, "get / HTTP/1.0\n", protocols.Yes)
	check(client, "GET /"+strings.Repeat("x", maxRequestLine), protocols.Yes)
	check(client, "FOO /"+strings.Repeat("x", maxRequestLine), protocols.More)
	check(client, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", protocols.No)
	check(client, "INVITE sip:a@b SIP/2.0\r\n", protocols.No)
	check(client, "OPTIONS rtsp://h/ RTSP/1.0\r\n", protocols.No)
	check(client, "get key\r\n", protocols.No)
	check(client, "EHLO host\r\n", protocols.No)
	check(client, "\x16\x03\x01", protocols.No)
	check(server, "HTT", protocols.More)
	check(server, "HTTP/1.1 200", protocols.More)
	check(server, "HTTP/1.1 200\r", protocols.Yes)
	check(server, "HTTP/1.1 2000", protocols.No)
	check(server, "HTTP/2 200 OK", protocols.No)
	check(server, "220 mail ESMTP\r\n", protocols.No)
}

// FuzzParse checks the properties of every parser with arbitrary bytes.
func FuzzParse(f *testing.F) {
	f.Add([]byte(in(get + getB)[1:]), []byte(out(ok5 + empty)[1:]), uint8(3), uint8(0))
	f.Add([]byte("CONNECT A000 \n\nAAA HTTP/1.\n\n"), []byte("HTTP/1.0 00000"), uint8(1), uint8(0))
	f.Add([]byte("AAA HTTP/1.0\xe2\u03a8\x110000\n\n"), []byte("0"), uint8(9), uint8(';'))
	f.Add([]byte("CONNECT 000 0000000000000000000"), []byte("HTTP/1.0 00000"), uint8(1), uint8('s'))
	f.Add([]byte("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), []byte("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\nx"), uint8(9), uint8(7))
	f.Add([]byte("CONNECT a:1 HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n"), []byte("HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 101 X\r\n\r\n"), uint8(1), uint8(1))
	f.Add([]byte("GET / HTTP/1.1\r\nContent-Length: 9\r\n\r\nGET /evilx HTTP/1.1\r\n\r\n"), []byte("HTTP/1.1 204 X\r\n\r\nHTTP/1.1 204 X\r\n\r\n"), uint8(1), uint8(1))
	f.Add([]byte("POST / HTTP/1.1\nContent-Length: 99\n\nGET /x\n\nHEAD /y HTTP/1.1\n\nz"), []byte("HTTP/1.1 204 X\n\nHTTP/1.1 200 X\nContent-Length: 1\n\nno"), uint8(2), uint8(9))
	f.Add([]byte("GET / HTTP/1.1\nTransfer-Encoding: chunked\n\n9\nGET /x HT\n9\nTP/1.1\n\nG\n0\n\n"), []byte("HTTP/1.1 204 X\n\n"), uint8(2), uint8(9))
	f.Add([]byte("CONNECT HTTP/1.\n\n0 / HTTP/1.0\n\n"), []byte("HTTP/A00 200A000\n\r\nHTTP/0 101A00\n\rY"), uint8(1), uint8(1))
	f.Fuzz(protocoltest.Fuzz(list))
}

// TestRequestOfHTTP09IsAnEvent: a line without a version is a request of HTTP/0.9.
func TestRequestOfHTTP09IsAnEvent(t *testing.T) {
	same(t, play(false, long, in("GET /old\n\n"), out("<html>old</html>"), "<|"), "GET /old 0.9 0/16 partial=false")
	same(t, play(false, long, in("GET /old\n"), out("HTTP/1.0 400 Bad\n\nno"), "<|"), "GET /old 0.9 400 0/2 partial=false")

	// The request is emitted with the part of its head that precedes the response.
	same(t, play(false, long, in("GET /slow HTTP/1.1\nHost: x\n"), out("HTTP/1.1 408 Request Timeout\nContent-Length: 0\n\n")), "GET /slow 1.1 408 0/0 partial=true")
}

// TestRequestOfAnyVersionIsAnEvent: PHP's server executes it, and answers in the form of HTTP/1 (php -S of PHP 8.2).
func TestRequestOfAnyVersionIsAnEvent(t *testing.T) {
	const body = "Content-Length: 2\n\nok"
	same(t, play(false, long, in("GET /a HTTP/2.0\nHost: x\n\n"), out("HTTP/2.0 200 OK\n"+body)), "GET /a 2.0 200 0/2 partial=false")
	same(t, play(false, long, in("GET /a HTTP/3.7\nHost: x\n\n"), out("HTTP/3.7 200 OK\n"+body)), "GET /a 3.7 200 0/2 partial=false")
	same(t, play(false, long, in("GET /a HTTQ/1.1\nHost: x\n\n"), out("HTTP/1.1 200 OK\n"+body)), "GET /a HTTQ/1.1 200 0/2 partial=false")
	same(t, play(false, long, in("GET /a http/1.1\nHost: x\n\n"), out("HTTP/1.1 200 OK\n"+body)), "GET /a http/1.1 200 0/2 partial=false")
}

// long returns the fields of short and the version. It includes zero sizes and the absence of losses.
func long(event *pipeline.Event) string {
	exchange := event.Http
	status := ""
	if exchange.StatusCode > 0 {
		status = fmt.Sprintf(" %d", exchange.StatusCode)
	}
	return fmt.Sprintf("%s %s %s%s %d/%d partial=%v", exchange.Method, exchange.UrlOriginal, exchange.Version, status,
		exchange.RequestBodyBytes, exchange.ResponseBodyBytes, event.Partial)
}

func TestMalformedRequestLinesAreRequests(t *testing.T) {
	bad := "HTTP/1.0 400 Bad Request\nContent-Length: 0\n\n"
	methodAndStatus := func(event *pipeline.Event) string { return fmt.Sprint(event.Http.Method, event.Http.StatusCode) }
	for _, line := range []string{
		"GET / HTTP/1.", "GET /HTTP/1.1", "OPTIONS HTTP/1.1", "OPTIONS", "CCM_POST /HTTP/1.1",
		"GET  /two  HTTP/1.1", "get / HTTP/1.1", "GET / HTTP/1.10",
	} {
		method, _, _ := strings.Cut(line, " ")
		same(t, play(false, methodAndStatus, in(line+"\nHost: x\n\n"), out(bad)), method+"400")
	}

	// Without a method, only the response is an event.
	for _, line := range []string{"GET/ HTTP/1.1", "GET/HTTP/1.1", "\xc3\xc2 / HTTP/1.1"} {
		same(t, play(false, short, in(line+"\nHost: x\n\n"), out(bad)), "400 partial")
	}
}

func TestOddStatusIsReadAsClientsDo(t *testing.T) {
	for status, want := range map[string]string{"20x ok": "GET /a 20", "2 OK": "GET /a 2", "2000 OK": "GET /a 0", "OK": "GET /a 0"} {
		same(t, play(false, short, in(get), out("HTTP/1.1 "+status+"\nContent-Length: 0\n\n")), want)
	}
}

// TestHeadThatIsCutByAGapIsReadUpToTheGap also checks that a secret in the part before the gap is redacted.
func TestHeadThatIsCutByAGapIsReadUpToTheGap(t *testing.T) {
	same(t, play(true, short, in(get), out(ok5), in("GET /images/box.gif HT"), ">~80", out("HTTP/1.1 200 OK\nServer: x"), "<~500"),
		"GET /a 200 0/5", "GET /images/box.gif 200 partial")
	same(t, play(false, short, in(get), out(ok5), in("GET /?password=se"), ">~80", out(empty)), "GET /a 200 0/5", "GET /?password=REDACTED 204 partial")
}

// TestTranscriptsMatchTheirGoldens compares every field of the events of each transcript with its golden.
func TestTranscriptsMatchTheirGoldens(t *testing.T) { protocoltest.CheckGoldens(t, list, "http") }

// TestTranscriptsHoldTheirProperties: cuts change nothing, and what is not partial is true, whatever was lost.
func TestTranscriptsHoldTheirProperties(t *testing.T) {
	protocoltest.CheckTranscripts(t, list, "../testdata", "http")
}
