package http

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"tidegate/protocols/protocoltest"
)

// TestDialoguesMatchTheirGoldens: conversations that break the order or the framing of messages, with all fields of their
// events.
func TestDialoguesMatchTheirGoldens(t *testing.T) {
	const (
		get     = "GET /a HTTP/1.1\r\nHost: a.example\r\n\r\n"
		next    = "GET /next HTTP/1.1\r\nHost: a.example\r\n\r\n"
		last    = "GET /last HTTP/1.1\r\n\r\n"
		ok      = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
		empty   = "HTTP/1.1 204 No Content\r\n\r\n"
		refused = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
		upgrade = "GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
		connect = "CONNECT b.example:443 HTTP/1.1\r\n\r\n"
		inner   = "GET /inner HTTP/1.1\r\nHost: b.example\r\nUser-Agent: x\r\n\r\n"
	)
	body := func(method, content string) string {
		return method + " /body HTTP/1.1\r\nContent-Length: " + decimal(len(content)) + "\r\n\r\n" + content
	}
	head := func(method string, size int) string {
		return method + " /body HTTP/1.1\r\nContent-Length: " + decimal(size) + "\r\n\r\n"
	}
	chunked := "POST /chunks HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
	dialogue := func(name string, lines ...string) protocoltest.Conversation {
		return protocoltest.NamedDialogue(name, 80, lines...)
	}
	var carried []protocoltest.Conversation // a line that goes on behind its body
	for _, method := range []string{"GET", "POST"} {
		for kind, end := range map[string]string{"a request line": "GET /carry HTTP/1.1", "a target": "GET /carry", "a word": "word"} {
			for what, line := range map[string]string{"an empty line": "\r\n\r\n", "a version": " HTTP/1.1\r\n\r\n", "a request": next, "other bytes": "other\r\n\r\n"} {
				carried = append(carried, dialogue(fmt.Sprintf("%s behind %s in a body of %s", what, kind, method), ">"+body(method, end), "<"+ok, ">"+line, "<"+ok, ">"+last, "<"+ok))
			}
		}
	}
	slices.SortFunc(carried, func(a, b protocoltest.Conversation) int { return strings.Compare(a.Name, b.Name) })
	protocoltest.CheckDialogueGoldens(t, list, slices.Concat(carried, []protocoltest.Conversation{
		dialogue("keep-alive", ">"+get, "<"+ok, ">"+next, "<"+empty, ">end", "<end"),
		dialogue("pipelined", ">"+get+next+last, "<"+ok+refused, "<"+empty),
		dialogue("interim", ">"+body("PUT", "abc"), "<HTTP/1.1 100 Continue\r\n\r\n", "<HTTP/1.1 103 Early Hints\r\n\r\n"+ok, ">"+next, "<"+ok),
		dialogue("head", ">HEAD /a HTTP/1.1\r\n\r\n", "<HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n", ">"+next, "<HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"),
		dialogue("response until the end", ">"+get, "<HTTP/1.0 200 OK\r\n\r\nab", "<cd", ">gap 5", "<gap 7", "<ef", "<end"),
		dialogue("response that does not end", ">"+get, "<HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab", ">end", "<end"),
		dialogue("unread response", "<"+ok, "<"+empty, ">"+get, "<"+ok),
		dialogue("status of another form", ">"+get, "<HTTP/9 what\r\nContent-Length: 1\r\n\r\nx", ">"+next, "<"+ok, "<HTTP/9 none\r\n\r\n"),
		dialogue("unfinished request that is refused", ">GET /front HTTP/1.1\r\nHost: a", "<"+refused, ">"+next, "<"+ok),
		dialogue("unfinished request that goes on", ">GET /front HTTP/1.1\r\nHost: a", ">.example\r\n\r\n", "<"+ok),
		dialogue("request of version 0.9", ">GET /old\r\n", "<<html>", "<more", "<end"),
		dialogue("request of version 0.9 that says so", ">GET /old HTTP/0.9\r\n\r\n", "<<html>", "<end"),
		dialogue("request of another version", ">GET /a HTTP/7.3\r\n\r\n", "<"+ok, ">GET /b what\r\n\r\n", "<"+ok, ">GET /c HTTP/01.1\r\n\r\n", "<"+ok),
		dialogue("request without an end", ">"+get, "<"+ok, ">POST /cut HTTP/1.1\r\nContent-Le"),
		dialogue("no request", ">"+get, "<"+ok, ">\x01\x02\x03\r\n\r\n", ">"+next, "<"+ok),
		dialogue("chunks", ">"+chunked+"3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nTrailer: x\r\n\r\n", "<"+ok, ">"+next, "<"+ok),
		dialogue("chunks in pieces", ">"+chunked, ">3", ">\r", ">\nab", ">c\r", ">\n0\r\n", ">\r\n", "<"+ok),
		dialogue("chunk of no size", ">"+chunked+"3\nabc\n\n", ">"+next, "<"+ok),
		dialogue("chunk without its end", ">"+chunked+"3\r\nabcd\r\n", ">"+next, "<"+ok),
		dialogue("codings", ">POST /a HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "<HTTP/1.1 200 OK\r\nTransfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n",
			">POST /b HTTP/1.1\r\nTransfer-Encoding: identity\r\nContent-Length: 1\r\n\r\nx", "<HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc"),
		dialogue("two codings", ">POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\nabc", "<"+ok),
		dialogue("two lengths", ">POST /a HTTP/1.1\r\nContent-Length: 3, 3\r\nContent-Length: 4\r\n\r\nabc", "<"+ok, ">"+next, "<"+ok),
		dialogue("length and chunks", ">POST /a HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "<"+ok, ">"+next, "<"+ok),
		dialogue("length that is none", ">POST /a HTTP/1.1\r\nContent-Length: 3x\r\n\r\n", "<"+ok, ">"+next, "<"+ok),
		dialogue("length of Python", ">POST /a HTTP/1.1\r\nContent-Length: +3\r\n\r\nabc", "<"+ok, ">"+next, "<"+ok),
		dialogue("blank before the colon", ">POST /a HTTP/1.1\r\nContent-Length : 3\r\n\r\nabc", "<"+ok, ">"+next, "<"+ok),
		dialogue("folded fields", ">GET /a HTTP/1.1\r\nHost:\r\n a.example\r\nUser-Agent: x\r\n\ty\r\n: none\r\nnone\r\n\r\n", "<"+ok),
		dialogue("proxy", ">GET http://b.example:81/p?q=1#f HTTP/1.1\r\nProxy-Authorization: Basic dTpw\r\nX-Forwarded-For: 10.1.1.1, 10.1.1.2\r\n\r\n", "<"+ok),
		dialogue("schemes", ">GET /a HTTP/1.1\r\n"+strings.Repeat("Authorization: Bearer x\r\n", maxSchemes)+"\r\n", "<"+ok,
			">GET /a HTTP/1.1\r\n"+strings.Repeat("Authorization: Negotiate x\r\n", maxSchemes+1)+"\r\n", "<"+ok,
			">GET /a HTTP/1.1\r\nAuthorization: Basic dXNlcjpwYXNz\r\n\r\n", "<"+ok, ">GET /a HTTP/1.1\r\nAuthorization: x\r\n\r\n", "<"+ok),
		dialogue("attack", ">GET /a?q=%27%20union%20select%201 HTTP/1.1\r\nUser-Agent: ${jndi:ldap://x}\r\nReferer: /x?f=../../etc/passwd\r\n\r\n", "<"+refused),
		dialogue("upgrade", ">"+upgrade, "<HTTP/1.1 101 Switching Protocols\r\n\r\n", ">\x81\x01x", "<\x81\x01y"),
		dialogue("upgrade that is refused", ">"+upgrade, ">"+next, "<"+refused, "<"+ok),
		dialogue("upgrade before its answer", ">"+upgrade, ">\x81\x01x", "<"+refused, ">"+next, "<"+ok),
		dialogue("upgrade, then a request that is cut", ">"+upgrade, ">GET /next HTTP/1.1\r\nHost: a", ">gap 10", "<"+refused, "<"+ok),
		dialogue("tunnel", ">"+connect, "<HTTP/1.1 299 Fine\r\n\r\n", ">"+inner, "<"+ok),
		dialogue("tunnel that is refused", ">"+connect, ">"+inner, "<"+refused, "<"+ok),
		dialogue("tunnel that is answered with 198", ">"+connect, "<HTTP/1.1 198 No\r\n\r\n"+refused, ">"+inner, "<"+ok),
		dialogue("response before the end of the request", ">"+head("POST", 6)+"abc", "<"+refused, ">def"+next, "<"+ok),
		dialogue("response before the end of an upgrade", ">POST /up HTTP/1.1\r\nUpgrade: x\r\nContent-Length: 2\r\n\r\na", "<"+ok, ">b"+next, "<"+ok),

		// Requests in bodies.
		dialogue("request in the body of GET", ">"+body("GET", inner), "<"+ok, "<"+ok, ">"+next, "<"+ok),
		dialogue("requests in the body of POST", ">"+body("POST", inner+inner), "<"+ok, ">"+next, "<"+ok),
		dialogue("requests in the body of POST that are answered", ">"+body("POST", inner+inner), "<"+ok+ok, "<"+ok, ">"+next, "<"+ok),
		dialogue("requests in the body of POST and bytes that are no response", ">"+body("POST", inner+inner), "<"+ok, "<junk\r\n", "<"+ok, ">"+next, "<"+ok),
		dialogue("requests in the body of POST and a gap", ">"+body("POST", inner+inner), "<"+ok, "<gap 7", ">"+next, "<"+ok),
		dialogue("more requests in a body than may wait", ">"+body("GET", strings.Repeat("GET /i HTTP/1.1\r\n\r\n", maxInner+1)), "<"+ok, "<"+ok),
		dialogue("more requests in a body than are withheld", ">"+body("POST", strings.Repeat("GET /i HTTP/1.1\r\n\r\n", maxInner+2)), "<"+ok, "<"+ok),
		dialogue("requests in a body that goes on", ">"+head("POST", 2*len(inner)+9)+inner+inner, "<"+ok+ok, ">123456789", ">"+next, "<"+ok),
		dialogue("request in a body in pieces", ">"+head("GET", len(inner)), ">"+inner[:5], ">"+inner[5:20], ">"+inner[20:], "<"+ok, "<"+ok),
		dialogue("body that begins with other bytes", ">"+head("GET", len(inner)+4)+"{\"a\"", ">"+inner, "<"+ok, "<"+ok),
		dialogue("body that begins with a word", ">"+head("GET", len(inner)+6)+"word\r\n", ">"+inner, "<"+ok, "<"+ok),
		dialogue("request in chunks", ">"+strings.Replace(chunked, "POST", "GET", 1)+"5\r\n"+inner[:5]+"\r\n"+hex(len(inner)-5)+"\r\n"+inner[5:]+"\r\n0\r\n\r\n", "<"+ok, "<"+ok),
		dialogue("request of version 0.9 in a body", ">"+body("GET", "GET /old\r\n"), "<"+ok, "<<html>", "<end"),
		dialogue("request at the end of a body", ">"+body("GET", "x=1\r\nGET /carry HT"), "<"+ok, ">TP/1.1\r\n\r\n", "<"+ok, ">"+next, "<"+ok),
		dialogue("request that begins in a body", ">"+body("GET", "GET /carry HT"), "<"+ok, ">TP/1.1\r\n\r\n", "<"+ok, ">"+next, "<"+ok),
		dialogue("request that begins in the body of POST", ">"+body("POST", "GET /carry HT"), "<"+ok, ">TP/1.1\r\n\r\n", "<"+ok, ">"+next, "<"+ok),
		dialogue("a word of a body before a request", ">"+body("POST", "GET /carry"), "<"+ok, ">"+next, "<"+ok),
		dialogue("head in a body that does not end", ">"+head("GET", 500)+"GET /inner HTTP/1.1\r\nHost: b"),
		dialogue("head in a body that is cut", ">"+head("GET", 500)+"GET /inner HTTP/1.1\r\nHost: b.example\r\n", ">gap 50", ">x: y\r\n\r\n"+inner, "<"+ok, "<"+ok),
		dialogue("long head in a body", ">"+head("GET", 200_000)+"GET /inner HTTP/1.1\r\n"+strings.Repeat("A: bcdefgh\r\n", maxHead/12+2)+"\r\n"+inner, "<"+ok, "<"+ok),
		dialogue("long line in a body", ">"+head("GET", 200_000)+"GET /inner HTTP/1.1\r\nA: "+strings.Repeat("b", maxHead), ">c\r\n\r\n"+inner, "<"+ok, "<"+ok),

		// In the middle of a connection.
		dialogue("from its middle", "midstream", ">ield: x\r\n\r\n"+next, "<body"+ok),
		dialogue("from its middle, the client sends a response", "midstream", ">"+get, "<"+ok, ">"+ok, ">"+next, "<"+ok),
		dialogue("a head is cut", ">GET /cut HTTP/1.1\r\nHost: a.example\r\nUser-", ">gap 20", ">"+next, "<HTTP/1.1 200 OK\r\nServer: x\r\nCont", "<gap 20", "<"+ok),
		dialogue("a part of a response is lost before an interim one", ">"+get, "<gap 5", "<HTTP/1.1 100 Continue\r\n\r\n", ">"+next, "<"+ok+empty, ">"+last, "<"+ok),
		dialogue("an upgrade behind a request", ">"+get+upgrade, "<"+ok, ">\x81\x01x", "<HTTP/1.1 101 Switching Protocols\r\n\r\n", "<\x81\x01y"),
		dialogue("a tunnel behind a request", ">"+get+connect, "<"+ok, ">"+inner, "<"+refused, "<"+ok),
		dialogue("a request and a response are lost", ">"+get, "<"+ok, ">gap 36", "<gap 40", ">"+next, "<"+ok, ">"+last, "<"+ok),
		dialogue("the front of a body is lost", ">"+head("GET", 200)+"GE", ">gap 8", ">"+inner, "<"+ok, "<"+ok),
		dialogue("HTTP/2", ">PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
		dialogue("HTTP/2 behind a request", ">"+get, "<"+ok, ">PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "<"+ok),
		dialogue("responses are lost", ">"+get+next, "<gap 100", ">"+last, "<"+ok),
		dialogue("a body is lost", ">"+head("POST", 10)+"ab", ">gap 8", "<HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "<gap 9", ">"+next, "<"+ok),
		dialogue("more than a body is lost", ">"+head("POST", 10)+"ab", ">gap 12", ">"+next, "<"+ok),
		dialogue("a chunk is lost", ">"+get, "<HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n", "<gap 5", "<\r\n0\r\n\r\n", ">"+next, "<"+ok),
	}), 0)
}

func decimal(n int) string { return strconv.Itoa(n) }

func hex(n int) string { return strconv.FormatInt(int64(n), 16) }
