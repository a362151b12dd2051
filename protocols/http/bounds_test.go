package http

import (
	"fmt"
	"slices"
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
