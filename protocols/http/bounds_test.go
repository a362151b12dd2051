package http

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"tidegate/pipeline"
	"tidegate/protocols"
)

// TestValuesOfFieldsAreCutAtTheirBounds, and lists keep their first values and the last.
func TestValuesOfFieldsAreCutAtTheirBounds(t *testing.T) {
	var events []*pipeline.Event
	p, conn := opened(&events)
	conn.Data(protocols.Client, []byte("GET / HTTP/1.1\r\n\r\n"), 1)
	newEvent := func() *pipeline.Event { return &pipeline.Event{Http: &pipeline.HTTPExchange{}} }

	forwarded := func(value string, cut bool, want ...string) {
		t.Helper()
		event := newEvent()
		p.forwardedFor(event, []byte(value))
		if !slices.Equal(event.Http.XForwardedFor, want) || (len(event.Tags) > 0) != cut {
			t.Errorf("%q: %q, tags %q", value, event.Http.XForwardedFor, event.Tags)
		}
	}
	var all []string
	for i := range maxForwarded {
		all = append(all, fmt.Sprintf("10.0.0.%d", i))
	}
	forwarded("", false)
	forwarded(" 10.0.0.1 ,, b.example. ", false, "10.0.0.1", "b.example")
	forwarded(strings.Join(all, ","), false, all...)
	forwarded(strings.Join(all, ",")+",", false, all...)
	forwarded(strings.Join(all, ",")+", last", true, append(slices.Clone(all[:maxForwarded-1]), "last")...)
	forwarded(strings.Join(all, ",")+", more, last", true, append(slices.Clone(all[:maxForwarded-1]), "last")...)

	forwarded(strings.Repeat("a", 64), false, strings.Repeat("a", 64))
	forwarded(strings.Repeat("a", 65), true, strings.Repeat("a", 48)+"…"+strings.Repeat("a", 16))

	for value, want := range map[string]string{
		"text/HTML": "text/html", "text/html; charset=x": "text/html", ";x": "", "": "", " ;": "", strings.Repeat("a", 129): strings.Repeat("a", 128),
	} {
		if got := p.mediaType([]byte(value)); got != want {
			t.Errorf("%q is %q", value, got)
		}
	}
	for size, cut := range map[int]bool{maxWord: false, maxWord + 1: true} {
		event := newEvent()
		if got := p.hostOf(event, []byte(strings.Repeat("A", size))); (len(event.Tags) > 0) != cut || !strings.HasPrefix(got, "aaa") || !cut && len(got) != size {
			t.Errorf("a host of %d bytes: %d, tags %q", size, len(got), event.Tags)
		}
	}
	for text, want := range map[string]string{"abc": "abc", "aZ@[`{A": "az@[`{a", "": ""} {
		if got := string(p.lower([]byte(text))); got != want {
			t.Errorf("%q in lower case is %q", text, got)
		}
	}
	for line, want := range map[string]int{"GET /": 0, "a GET /": 2, "GET POST /": 4, "xGET ": 1, "GET": -1, "GETx": -1, "": -1, "a GET/ GET": -1} {
		if got := lastMethod([]byte(line)); got != want {
			t.Errorf("%q: a method at %d, want %d", line, got, want)
		}
	}
	p.inner = &innerReader{pending: make([]byte, 0, 10), carry: make([]byte, 0, 20), withheld: make([]*exchange, 2), unanswered: make([]*exchange, 3)}
	if got, want := p.innerSize(), 30+5*protocols.EventBytes; got != want || p.Held() != protocols.EventBytes+1+want {
		t.Errorf("%d bytes are held of bodies, %d of all", got, p.Held())
	}
	if p.inner.firstUnanswered() != p.inner.unanswered[0] {
		t.Error("the first one is not that which is reported")
	}
	first := &exchange{}
	p.inner.unanswered, p.inner.withheld = nil, []*exchange{first}
	if p.inner.firstUnanswered() != first {
		t.Error("the first one is not that which is withheld")
	}
	p.inner.withheld = nil
	if p.inner.firstUnanswered() != nil || (*innerReader)(nil).firstUnanswered() != nil {
		t.Error("there is a first one of none")
	}
}

// TestNamesOfFieldsAreComparedWithoutTheirCase.
func TestNamesOfFieldsAreComparedWithoutTheirCase(t *testing.T) {
	for text, want := range map[string]bool{"az-09": true, "AZ-09": true, "aZ-09": true, "az-0": false, "az-099": false, "a{-09": false, "a[-09": false, "aZ\r09": false} {
		if got := equalFold([]byte(text), "az-09"); got != want {
			t.Errorf("%q: %t", text, got)
		}
	}
	if !equalFold([]byte("@[`{"), "@[`{") || equalFold([]byte("@"), "`") || equalFold([]byte("["), "{") {
		t.Error("only letters have a case")
	}
	p := &parser{}
	for size, ok := range map[int]bool{maxLine - 1: true, maxLine: false} {
		if read, err := p.readChunkSize(&sideReader{}, []byte(strings.Repeat("1", size))); read != 0 || (err == nil) != ok {
			t.Errorf("the size of a chunk in a line of %d bytes: %d, %v", size, read, err)
		}
	}
}

// TestPhraseOfAStatusIsBounded.
func TestPhraseOfAStatusIsBounded(t *testing.T) {
	for size, cut := range map[int]bool{128: false, 129: true} {
		var events []*pipeline.Event
		_, conn := opened(&events)
		conn.Data(protocols.Client, []byte("GET / HTTP/1.1\r\n\r\n"), 1)
		conn.Data(protocols.Server, []byte("HTTP/1.1 204 "+strings.Repeat("a", size)+"\r\n\r\n"), 2)
		if got := events[0].Http.StatusPhrase; (len(got) == size) == cut || slices.Contains(events[0].Tags, pipeline.TagTruncated) != cut {
			t.Errorf("a phrase of %d bytes: %q, tags %q", size, got, events[0].Tags)
		}
	}
}

// TestEvictedRequestTakesItsResponseWithIt: the rest of one that has begun is skipped, and the next response answers the next
// request.
func TestEvictedRequestTakesItsResponseWithIt(t *testing.T) {
	var events []*pipeline.Event
	_, conn := opened(&events)
	for i := range maxWaiting {
		conn.Data(protocols.Client, []byte("GET /"+strconv.Itoa(i)+" HTTP/1.1\r\n\r\n"), 1)
	}
	conn.Data(protocols.Server, []byte("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab"), 2)
	conn.Data(protocols.Client, []byte("GET /last HTTP/1.1\r\n\r\n"), 3)
	conn.Data(protocols.Server, []byte("cdHTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"), 4)
	if len(events) != 2 {
		t.Fatalf("%d events", len(events))
	}
	first, second := events[0], events[1]
	if first.Http.UrlPath != "/0" || first.Http.StatusCode != 200 || !first.Partial || second.Http.UrlPath != "/1" || second.Http.StatusCode != 404 || second.Partial {
		t.Errorf("%v, %v", first, second)
	}
}

// TestRolesAreExchangedBeforeTheFirstHead of a connection whose beginning was not captured, and never behind one.
func TestRolesAreExchangedBeforeTheFirstHead(t *testing.T) {
	const get, ok = "GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n"
	check := func(what string, midStream, started bool, dir protocols.Dir, data string, flips bool) {
		t.Helper()
		set := protocols.NewSet([]protocols.Protocol{Protocol}, protocols.Default(), nil)
		p := &parser{}
		p.Reset(set.Open(protocols.Info{MidStream: midStream}, func(*pipeline.Event) {}))
		if started {
			if _, err := p.readHead(protocols.Client, []byte(get), 1); err != nil || !p.started {
				t.Errorf("%s: %v", what, err)
			}
		}
		read, err := p.readHead(dir, []byte(data), 2)
		if p.conn.Flipped() != flips || read != 0 || (err == nil) != flips {
			t.Errorf("%s: flipped %t, %d bytes, %v", what, p.conn.Flipped(), read, err)
		}
	}
	check("the client sends a response", true, false, protocols.Client, ok, true)
	check("the server sends a request", true, false, protocols.Server, get, true)
	check("the client sends a response behind a request", true, true, protocols.Client, ok, false)
	check("the server sends a request behind one", true, true, protocols.Server, get, false)
	check("the client sends neither", true, false, protocols.Client, "\x01\x02\r\n\r\n", false)
	check("the server sends neither", true, false, protocols.Server, "\x01\x02\r\n\r\n", false)
	check("the server begins as a client of HTTP/2", true, false, protocols.Server, "PRI * HTTP/2.0\r\n\r\n", false)
	check("the client sends a response, from the beginning", false, false, protocols.Client, ok, false)
}
