package memcached

import (
	"strings"
	"testing"

	"tidegate/pipeline"
	"tidegate/protocols"
	"tidegate/protocols/protocoltest"

	"github.com/prometheus/client_golang/prometheus"
)

// openedDatagrams returns a parser of datagrams, and its events.
func openedDatagrams() (p *datagramParser, events *[]*pipeline.Event) {
	events = new([]*pipeline.Event)
	set := protocols.NewSet(list, protocols.Default(), nil)
	p = &datagramParser{}
	p.Reset(set.Open((&protocoltest.Conversation{UDP: true, Port: 11211}).Info(), func(event *pipeline.Event) { *events = append(*events, event) }))
	return p, events
}

// send passes a datagram of the client to p, and answer one of the server.
func (p *datagramParser) send(t *testing.T, id int, payload string, at int64) {
	t.Helper()
	data := datagramOf(id, 0, 1, payload)
	if read, err := p.Parse(protocols.Client, []byte(data), at); err != nil || read != len(data) {
		t.Fatalf("%q: %d, %v", payload, read, err)
	}
}

func (p *datagramParser) answer(t *testing.T, id, number, total int, payload string, at int64) {
	t.Helper()
	data := datagramOf(id, number, total, payload)
	if read, err := p.Parse(protocols.Server, []byte(data), at); err != nil || read != len(data) {
		t.Fatalf("%q: %d, %v", payload, read, err)
	}
}

// TestHeaderOfADatagram has four numbers, and bytes follow it.
func TestHeaderOfADatagram(t *testing.T) {
	d, ok := readDatagram([]byte("\x01\x02\x03\x04\x05\x06\x07\x08x"))
	if !ok || d.id != 0x0102 || d.number != 0x0304 || d.total != 0x0506 || string(d.payload) != "x" {
		t.Errorf("%+v, %t", d, ok)
	}
	for size := range datagramHeader + 1 {
		if _, ok := readDatagram(make([]byte, size)); ok {
			t.Errorf("%d bytes are a datagram", size)
		}
	}
	p, _ := openedDatagrams()
	if read, err := p.Parse(protocols.Client, make([]byte, datagramHeader), 1); read != 0 || err == nil {
		t.Errorf("a header alone: %d, %v", read, err)
	}
	if read, err := p.Parse(protocols.Client, []byte(datagramOf(1, 0, 1, "get \x01\x02 x\n\x03\x01\r\n")), 1); read == 0 || err == nil {
		t.Errorf("control characters: %d, %v", read, err)
	}
}

// TestNextDatagramIsThatOfItsMessage: the first one of a message sets the number of its datagrams.
func TestNextDatagramIsThatOfItsMessage(t *testing.T) {
	check := func(next, total, number, of uint16, want bool) {
		t.Helper()
		w := request{next: next, total: total}
		if got := w.isNext(datagram{number: number, total: of}); got != want {
			t.Errorf("datagram %d of %d behind %d of %d: %t", number, of, next, total, got)
		}
	}
	check(0, 0, 0, 3, true)
	check(0, 7, 0, 3, true)
	check(0, 0, 1, 3, false)
	check(1, 3, 1, 3, true)
	check(1, 3, 1, 4, false)
	check(1, 3, 0, 3, false)
	check(1, 3, 2, 3, false)
}

// TestTimesOfADatagram: an event begins with the request and ends with the last datagram of its reply.
func TestTimesOfADatagram(t *testing.T) {
	conversation := protocoltest.Conversation{UDP: true, Port: 11211, Steps: []protocoltest.Step{
		protocoltest.Client(datagramOf(1, 0, 1, "get a\r\nget a\r\n")), protocoltest.Server(datagramOf(1, 0, 2, "VALUE a 0 1\r\nx\r\n")),
		protocoltest.Server(datagramOf(1, 1, 2, "END\r\nEND\r\n")), protocoltest.Server(datagramOf(1, 0, 1, "END\r\n")),
		protocoltest.Client(datagramOf(2, 0, 1, "mg a q\r\n")), protocoltest.Server(datagramOf(3, 0, 1, "END\r\n")),
	}}
	ids := map[string]bool{}
	events := conversation.Events(list)
	for i, want := range []uint64{2e6, 3e6, 0, 0} {
		if got := events[i].Duration; got != want {
			t.Errorf("event %d lasts %d ns, want %d", i, got, want)
		}
		ids[string(events[i].Id)] = true
	}
	if len(events) != 4 || len(ids) != 4 || events[0].Partial {
		t.Errorf("%d events, %d ids", len(events), len(ids))
	}
}

// TestRequestsWaitUpToTheTimeout, in packet time, from the request on.
func TestRequestsWaitUpToTheTimeout(t *testing.T) {
	p, events := openedDatagrams()
	p.send(t, 1, "get a\r\n", 100)
	p.send(t, 2, "get b\r\n", 200)
	p.Tick(99 + int64(replyTimeout))
	if len(*events) != 0 || p.findRequest(1) != 0 || p.findRequest(2) != 1 || p.findRequest(3) != -1 {
		t.Errorf("%d events before the time-out; %d, %d, %d", len(*events), p.findRequest(1), p.findRequest(2), p.findRequest(3))
	}
	p.send(t, 3, "get c\r\n", 100+int64(replyTimeout))
	if len(*events) != 1 || short((*events)[0]) != "get a, no reply" || len(p.waiting) != 2 {
		t.Errorf("%d events at the time-out, %d wait", len(*events), len(p.waiting))
	}
	if got, want := p.Held(), 2*protocols.EventBytes+2; got != want {
		t.Errorf("two requests with a key of one byte hold %d bytes, want %d", got, want)
	}
	p.Reset(p.text.conn)
	if len(p.waiting) != 0 || p.Held() != 0 || p.rolesKnown {
		t.Errorf("a parser that is used again: %d wait, %d bytes", len(p.waiting), p.Held())
	}
}

// TestRequestsAreBounded: beyond the bound the oldest one is emitted, and counted.
func TestRequestsAreBounded(t *testing.T) {
	p, events := openedDatagrams()
	for i := range maxRequests {
		p.send(t, i, "get a\r\n", 1)
	}
	if len(*events) != 0 || len(p.waiting) != maxRequests || p.text.keysBytes != maxRequests {
		t.Fatalf("%d events, %d wait with %d bytes", len(*events), len(p.waiting), p.text.keysBytes)
	}
	p.send(t, 5000, "get bb\r\n", 1)
	if len(*events) != 1 || len(p.waiting) != maxRequests || p.text.keysBytes != maxRequests+1 || p.findRequest(0) != -1 {
		t.Errorf("one more: %d events, %d wait with %d bytes", len(*events), len(p.waiting), p.text.keysBytes)
	}
}

// TestDatagramsAreHeldForTheirTurn, up to a number and a size.
func TestDatagramsAreHeldForTheirTurn(t *testing.T) {
	p, events := openedDatagrams()
	p.send(t, 7, "stats\r\n", 1)
	p.send(t, 8, "stats\r\n", 1)
	payload := []byte("AT b 2\r\nEND\r\n")
	p.answer(t, 8, 2, 3, "END\r\n", 2)
	p.readReply(datagram{7, 1, 2, payload}, 2)
	clear(payload)
	if len(p.held) != 2 || p.heldBytes != 5+len(payload) || p.Held() != 2*protocols.EventBytes+p.heldBytes {
		t.Errorf("%d are held with %d bytes", len(p.held), p.heldBytes)
	}
	if p.answer(t, 7, 0, 2, "STAT a 1\r\nST", 9); len(*events) != 1 || short((*events)[0]) != "stats = END" || len(p.held) != 1 || p.heldBytes != 5 {
		t.Errorf("%d events, %d are held with %d bytes", len(*events), len(p.held), p.heldBytes)
	}
	if p.answer(t, 8, 0, 3, "STAT a", 9); p.lineBytes != 6 || p.Held() != protocols.EventBytes+6+5 {
		t.Errorf("the front of a line holds %d bytes of %d", p.lineBytes, p.Held())
	}
	if p.answer(t, 8, 1, 3, " 1\r\n", 9); len(*events) != 2 || p.Held() != 0 || len(p.held) != 0 {
		t.Errorf("%d events, %d bytes are held", len(*events), p.Held())
	}

	p.heldBytes = maxHeldBytes - 3
	if !p.holdDatagram(datagram{payload: []byte("abc")}) || p.holdDatagram(datagram{payload: []byte("a")}) {
		t.Error("the bytes of what is held are not bounded")
	}
	p.heldBytes, p.held = 0, make([]datagram, maxHeld-1)
	if !p.holdDatagram(datagram{payload: []byte("abc")}) || p.holdDatagram(datagram{payload: []byte("a")}) || len(p.held) != maxHeld || p.heldBytes != 3 {
		t.Error("the number of what is held is not bounded")
	}
}

// TestReplyOfManyLinesIsReadAcrossDatagrams: the size of a value counts, whatever its bytes, and a line is bounded.
func TestReplyOfManyLinesIsReadAcrossDatagrams(t *testing.T) {
	check := func(what, want string, payloads ...string) {
		t.Helper()
		p, events := openedDatagrams()
		p.send(t, 1, "get a\r\n", 1)
		for i, payload := range payloads {
			p.answer(t, 1, i, len(payloads), payload, 2)
		}
		p.Close(3)
		if got := short((*events)[0]); got != want || len(*events) != 1 || p.Held() != 0 {
			t.Errorf("%s: %q, want %q; %d bytes are held", what, got, want, p.Held())
		}
	}
	const hit = "get a = END 1 hits 0 misses 4 bytes"
	check("one datagram", hit, "VALUE a 0 4\r\nEND\r\r\nEND\r\n")
	check("cut in the value", hit, "VALUE a 0 4\r\nE", "ND\r\r\nEND\r\n")
	check("cut in the line break of the value", hit, "VALUE a 0 4\r\nEND\r\r", "\nEND\r\n")
	check("cut behind the value", hit, "VALUE a 0 4\r\nEND\r\r\n", "END\r\n")
	check("cut in lines", hit, "VAL", "UE a 0", " 4\r", "\nxxxx\r\nE", "ND\r\n")
	check("two values", "get a = END 2 hits 0 misses 3 bytes", "VALUE a 0 1\r\nx\r\n", "VALUE a 0 2\r\nxx\r\nEND\r\n")
	check("no reply", "get a, no reply partial", "nothing of the kind\r\n", "END\r\n")
	check("a long line", "get a = END 0 hits 1 misses", "STAT "+strings.Repeat("x", maxReplyLine-7), "\r\nEND\r\n")
	check("a line that is too long", "get a, no reply partial", "STAT "+strings.Repeat("x", maxReplyLine-5), "\r\nEND\r\n")
}

// TestDatagramsAreCounted where they are dropped or not read.
func TestDatagramsAreCounted(t *testing.T) {
	reg := prometheus.NewRegistry()
	steps := []protocoltest.Step{protocoltest.Client(datagramOf(1, 0, 1, "get a\r\n")), protocoltest.Client(datagramOf(1, 0, 2, "get a\r\n"))}
	steps = append(steps, protocoltest.Client(datagramOf(2, 0, 1, "\x80\x0b"+strings.Repeat("\x00", 22))))
	for i := range maxHeld + 1 {
		steps = append(steps, protocoltest.Server(datagramOf(1, i+1, 1000, "x")))
	}
	for i := range maxRequests {
		steps = append(steps, protocoltest.Client(datagramOf(100+i, 0, 1, "get a\r\n")))
	}
	events := 0
	(protocoltest.Conversation{UDP: true, Port: 11211, Steps: steps}).Emit(protocols.NewSet(list, protocols.Default(), reg), func(*pipeline.Event) { events++ })
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]float64{}
	for _, family := range families {
		if family.GetName() != "tidegate_protocols_anomalies_total" {
			continue
		}
		for _, metric := range family.GetMetric() {
			for _, label := range metric.GetLabel() {
				if label.GetName() == "reason" {
					counts[label.GetValue()] += metric.GetCounter().GetValue()
				}
			}
		}
	}
	for reason, want := range map[string]float64{"request_of_many_datagrams": 1, "binary_protocol": 1, "datagrams_lost": 1, "too_many_waiting": 2} {
		if counts[reason] != want {
			t.Errorf("%s: %v are counted, want %v; all are %v", reason, counts[reason], want, counts)
		}
	}
	if events != maxRequests+2 {
		t.Errorf("%d events", events)
	}
}

// TestLostDatagramsCountForTheirRequest, those that were held too, but not for one that is answered.
func TestLostDatagramsCountForTheirRequest(t *testing.T) {
	p, events := openedDatagrams()
	p.send(t, 1, "version\r\nget a\r\n", 1)
	p.answer(t, 1, 0, 1, "VERSION 1\r\n", 2)
	p.answer(t, 1, 2, 3, "xyz", 2)
	p.send(t, 2, "get b\r\n", 3)
	p.emitUnfinished(1)
	if len(*events) != 2 || len(p.waiting) != 1 || len(p.held) != 0 || p.heldBytes != 0 || p.text.keysBytes != 1 {
		t.Fatalf("%d events, %d wait, %d are held with %d bytes", len(*events), len(p.waiting), len(p.held), p.heldBytes)
	}
	first, second := (*events)[0], (*events)[1]
	if first.Destination.Bytes != 8+11 || second.Destination.Bytes != 8+3 || short(second) != "get a, no reply partial" || short(first) != "version = VERSION partial" {
		t.Errorf("%q of %d bytes, %q of %d", short(first), first.Destination.Bytes, short(second), second.Destination.Bytes)
	}
	p.Close(9)
	if third := (*events)[2]; short(third) != "get b, no reply" || p.Held() != 0 {
		t.Errorf("%q", short(third))
	}
}

// TestRolesOfDatagramsAreInferred from the first one, and kept.
func TestRolesOfDatagramsAreInferred(t *testing.T) {
	check := func(dir protocols.Dir, data string, flipped bool) {
		t.Helper()
		p, _ := openedDatagrams()
		if _, err := p.Parse(dir, []byte(data), 1); err != nil {
			t.Fatal(err)
		}
		if p.text.conn.Flipped() != flipped || !p.rolesKnown {
			t.Errorf("%q: flipped %t", data, p.text.conn.Flipped())
		}
		if _, err := p.Parse(dir, []byte(datagramOf(9, 0, 1, "get b\r\n")), 2); err != nil || p.text.conn.Flipped() != flipped {
			t.Errorf("%q: flipped %t behind the next one, %v", data, p.text.conn.Flipped(), err)
		}
	}
	check(protocols.Client, datagramOf(1, 0, 1, "get a\r\n"), false)
	check(protocols.Server, datagramOf(1, 0, 1, "get a\r\n"), true)
	check(protocols.Server, datagramOf(1, 0, 1, "END\r\n"), false)
	check(protocols.Client, datagramOf(1, 0, 1, "END\r\n"), true)
	check(protocols.Client, datagramOf(1, 2, 4, "xyz"), true)
	check(protocols.Server, datagramOf(1, 2, 4, "xyz"), false)
}
