package http

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"tidegate/pipeline"
	"tidegate/protocols"
)

// TestResponsesShowWhichBodiesAreRequests: what a body holds is told when more responses come than requests were sent, and
// at once in the content of a GET. From there on servers may find other requests, so what follows is ambiguous. How the
// bytes are cut changes nothing.
func TestResponsesShowWhichBodiesAreRequests(t *testing.T) {
	show := func(event *pipeline.Event) string {
		body := event.Http
		text := strings.TrimSpace(fmt.Sprintf("%s %s %d", body.Method, body.UrlOriginal, body.StatusCode))
		if event.Partial {
			text += " partial"
		}
		return strings.TrimSpace(text + " " + strings.Join(event.Tags, " "))
	}
	check := func(what string, steps []string, want ...string) {
		t.Helper()
		var bytewise []string
		for _, step := range steps {
			if step[1] == '~' {
				bytewise = append(bytewise, step)
				continue
			}
			for i := range len(step) - 1 {
				bytewise = append(bytewise, step[:1]+step[1+i:2+i])
			}
		}
		for _, variant := range [][]string{steps, bytewise} {
			if got := play(false, show, variant...); !slices.Equal(got, want) {
				t.Errorf("%s, %d steps:\n got %q\nwant %q", what, len(variant), got, want)
			}
		}
	}
	const evil, evil2 = "GET /evil HTTP/1.1\r\nHost: x\r\n\r\n", "GET /evil2 HTTP/1.1\r\nHost: x\r\n\r\n"
	const next, ok, accepted = ">GET /next HTTP/1.1\r\n\r\n", "<HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "<HTTP/1.1 202 OK\r\nContent-Length: 0\r\n\r\n"
	with := func(method, body string) string {
		return fmt.Sprintf(">%s /outer HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s", method, len(body), body)
	}
	type list = []string
	check("a GET", list{with("GET", evil), ok}, "GET /outer 200 partial ambiguous", "GET /evil 0 partial ambiguous")
	check("a GET, answered twice", list{with("GET", evil), ok, accepted}, "GET /outer 200 partial ambiguous", "GET /evil 202 partial ambiguous")
	check("a GET and another one", list{with("GET", evil), next, ok, accepted, next, ok},
		"GET /outer 200 partial ambiguous", "GET /evil 0 partial ambiguous", "GET /next 202 partial ambiguous", "GET /next 200 partial ambiguous")
	check("a POST", list{with("POST", evil), ok}, "POST /outer 200")
	check("a POST, answered twice", list{with("POST", evil), ok, accepted, next, ok},
		"POST /outer 200", "GET /evil 202 partial ambiguous", "GET /next 200 partial ambiguous")
	check("two in a POST", list{with("POST", evil+evil2), ok, accepted, next, ok},
		"POST /outer 200", "GET /evil 202 partial ambiguous", "GET /evil2 0 partial ambiguous", "GET /next 200 partial ambiguous")
	check("two in a POST, answered", list{with("POST", evil+evil2), ok, accepted, ok, next, ok},
		"POST /outer 200", "GET /evil 202 partial ambiguous", "GET /evil2 200 partial ambiguous", "GET /next 200 partial ambiguous")
	check("a time-out of the server", list{with("POST", evil), ok, "<HTTP/1.1 408 Timeout\r\nContent-Length: 0\r\n\r\n"}, "POST /outer 200", "408 partial")
	check("empty lines in front", list{with("POST", "\r\n\r\n"+evil), ok, accepted}, "POST /outer 200", "GET /evil 202 partial ambiguous")
	check("no end of its head", list{with("POST", "GET /evil HTTP/1.1\r\nHost: x\r\n"), ok, accepted}, "POST /outer 200", "GET /evil 202 partial ambiguous")
	check("a body that begins with something else", list{with("POST", "a=b\r\n"+evil), ok, accepted}, "POST /outer 200", "202 partial")
	check("one behind something else", list{with("POST", evil+"junk POST /more HTTP/1.1\r\n\r\n"), ok, accepted, accepted},
		"POST /outer 200", "GET /evil 202 partial ambiguous", "POST /more 202 partial ambiguous")
	check("in chunks", list{">POST /outer HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nGET \r\n7\r\n/evil H\r\nb\r\nTTP/1.1\r\n\r\n\r\n0\r\n\r\n", ok, accepted},
		"POST /outer 200", "GET /evil 202 partial ambiguous")
	check("a line that goes on behind the body", list{with("POST", "GET /ev"), ">il HTTP/1.1\r\n\r\n", ok, accepted}, "POST /outer 200", "GET /evil 202 partial ambiguous")
	check("a line that goes on behind the body of a GET", list{with("GET", "GET /ev"), ">il HTTP/1.1\r\n\r\n", ok, accepted}, "GET /outer 200", "GET /evil 202 partial ambiguous")
	check("a line that a request follows", list{with("POST", "GET /ev"), next, ok, accepted}, "POST /outer 200", "GET /next 202")
	check("a line that a request follows, in a GET", list{with("GET", "GET /ev"), next, ok, accepted},
		"GET /outer 200", "GET /evGET /next 0 partial ambiguous", "GET /next 202 partial ambiguous")
	lost := with("POST", evil+strings.Repeat("x", 50))
	check("bytes that were lost behind it", list{lost[:len(lost)-40], ">~40", ok, accepted}, "POST /outer 200 partial", "GET /evil 202 partial ambiguous")
}

// TestFieldsOfTheFramingAreCounted where they are wrong, and make the message ambiguous.
func TestFieldsOfTheFramingAreCounted(t *testing.T) {
	check := func(fields string, length uint64, hasLength, chunked, badLength, ambiguous bool) {
		t.Helper()
		var events []*pipeline.Event
		p, conn := opened(&events)
		conn.Data(protocols.Client, []byte("GET / HTTP/1.1\r\n\r\n"), 1) // the protocol is known
		var hd head
		p.parseFields(protocols.Client, nil, &hd, []byte(fields))
		if hd.length != length || hd.hasLength != hasLength || hd.chunked != chunked || hd.badLength != badLength || hd.ambiguous != ambiguous {
			t.Errorf("%q: %+v", fields, hd)
		}
	}
	check("Content-Length: 5\r\n", 5, true, false, false, false)
	check("Content-Length: 5\n", 5, true, false, false, false)
	check("Content-Length: 5", 0, false, false, false, false) // no line
	check("content-length:5\r\ncontent-length: 5\r\n", 5, true, false, false, false)
	check("Content-Length: 5, 5\r\n", 5, true, false, false, false)
	check("Content-Length: 5, 6\r\n", 5, true, false, false, true)
	check("Content-Length: 5\r\nContent-Length: 6\r\n", 5, true, false, false, true)
	check("Content-Length: \r\n", 0, false, false, true, false)
	check("Content-Length: x\r\n", 0, false, false, true, false)
	check("Content-Length: +5\r\n", 5, true, false, true, false)
	check("Content-Length: 5, x\r\n", 5, true, false, true, false)
	check("Content-Length : 5\r\n", 5, true, false, false, true)
	check("Content-Length\r\n: 5\r\n", 0, false, false, false, false)
	check(": 5\r\nContent-Length: 5\r\n", 5, true, false, false, false)
	check("A: b\r\n Content-Length: 5\r\n", 0, false, false, false, false) // a line that continues the one before
	check("Content-Length:\r\n 5\r\n", 5, true, false, false, false)
	check("Content-Length:\r\n\t5\r\n\r\n", 5, true, false, false, false)
	check("Transfer-Encoding: chunked\r\n", 0, false, true, false, false)
	check("transfer-encoding: gzip, Chunked\r\n", 0, false, true, false, false)
	check("Transfer-Encoding: gzip\r\n", 0, false, false, false, false)
	check("Transfer-Encoding: deflate\r\n", 0, false, false, false, false)
	check("Transfer-Encoding: compress\r\n", 0, false, false, false, false)
	check("Transfer-Encoding: identity\r\n", 0, false, false, false, false)
	check("Transfer-Encoding: chunked, x\r\n", 0, false, false, false, true)
	check("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 0, false, true, false, true)
	check("Transfer-Encodinx: chunked\r\n", 0, false, false, false, false)

	encoded := func(fields string, has, upgrade bool) {
		t.Helper()
		var hd head
		var events []*pipeline.Event
		p, _ := opened(&events)
		p.conn = protocols.NewSet([]protocols.Protocol{Protocol}, protocols.Default(), nil).Open(protocols.Info{}, nil)
		if p.parseFields(protocols.Client, nil, &hd, []byte(fields)); hd.hasTransferEncoding != has || hd.upgrade != upgrade {
			t.Errorf("%q: %+v", fields, hd)
		}
	}
	encoded("Transfer-Encoding: gzip\r\n", true, false)
	encoded("Transfer-Encoding: identity\r\n", false, false)
	encoded("Upgrade: websocket\r\n", false, true)
	encoded("Upgrade: \r\n", false, false)
	encoded("Upgrada: websocket\r\n", false, false)
}

// TestErrorsInAMessageAreAtItsFirstByte: where a body is malformed, nothing of it is read.
func TestErrorsInAMessageAreAtItsFirstByte(t *testing.T) {
	check := func(what string, state sideState, data string, length int, ok bool, after sideState) {
		t.Helper()
		var events []*pipeline.Event
		p, _ := opened(&events)
		p.sides[protocols.Server].state = state
		got, err := p.readBody(protocols.Server, []byte(data))
		if got != length || (err == nil) != ok || p.sides[protocols.Server].state != after {
			t.Errorf("%s: %d, %v, state %d; want %d, %t, %d", what, got, err, p.sides[protocols.Server].state, length, ok, after)
		}
	}
	check("a size", inChunkSize, "3\r\nabc", 3, true, inChunk)
	check("the size 0", inChunkSize, "0\r\n", 3, true, inTrailer)
	check("no line", inChunkSize, "3", 0, true, inChunkSize)
	check("no number", inChunkSize, "x\r\n", 0, false, inChunkSize)
	check("no line for long", inChunkSize, strings.Repeat("1", maxLine), 0, false, inChunkSize)
	check("no line for nearly as long", inChunkSize, strings.Repeat("1", maxLine-1), 0, true, inChunkSize)
	check("the end of a chunk", inChunkEnd, "\r\n3", 2, true, inChunkSize)
	check("a line feed", inChunkEnd, "\n3", 1, true, inChunkSize)
	check("half an end", inChunkEnd, "\r", 0, true, inChunkEnd)
	check("no end", inChunkEnd, "x", 0, false, inChunkEnd)
	check("no end behind CR", inChunkEnd, "\rx", 0, false, inChunkEnd)
	check("a trailer", inTrailer, "a: b\r\n\r\n", 6, true, inTrailer)
	check("the end of the trailers", inTrailer, "\r\nx", 2, true, inHead)
	check("no line of the trailers", inTrailer, "a: b", 0, true, inTrailer)
	check("no line of the trailers for long", inTrailer, strings.Repeat("a", maxLine+1), 0, false, inTrailer)
	check("no line of the trailers for nearly as long", inTrailer, strings.Repeat("a", maxLine), 0, true, inTrailer)
	check("a body up to the end", untilClose, "abc", 3, true, untilClose)
	p := &parser{}
	p.sides[protocols.Client] = sideReader{state: inBody, bodyLeft: 5}
	for _, want := range []int{3, 2} {
		if got, err := p.readBody(protocols.Client, []byte("abc")); got != want || err != nil {
			t.Errorf("%d bytes, want %d, %v", got, want, err)
		}
	}
	if p.sides[protocols.Client].state != inHead {
		t.Errorf("state %d behind the body", p.sides[protocols.Client].state)
	}
}
