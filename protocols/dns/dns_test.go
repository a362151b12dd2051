package dns

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"tidegate/pipeline"
	"tidegate/protocols"
	"tidegate/protocols/protocoltest"
)

var list = []protocols.Protocol{Protocol}

var fromClient, fromServer = protocoltest.Client, protocoltest.Server

// line is an event in short: what the transaction was, from where, and what came of it.
func line(e *pipeline.Event) string {
	d := e.Dns
	s := fmt.Sprintf("%s %s %s", d.Type, d.QuestionName, d.QuestionType)
	if d.ResponseCode != "" {
		s += " " + d.ResponseCode
	}
	for i, a := range d.AnswersData {
		s += fmt.Sprintf(" %s=%s", d.AnswersType[i], a)
	}
	if e.Duration > 0 {
		s += fmt.Sprintf(" %dms", e.Duration/1e6)
	}
	if e.Partial {
		s += " partial"
	}
	return s
}

func lines(events []*pipeline.Event) []string {
	var out []string
	for _, e := range events {
		out = append(out, line(e))
	}
	return out
}

// a4 is an A record.
func a4(last byte) *dnsmessage.AResource { return &dnsmessage.AResource{A: [4]byte{192, 0, 2, last}} }

type story struct {
	t     *testing.T
	steps []protocoltest.Step
}

func (s *story) ask(id uint16, name string) *story {
	s.steps = append(s.steps, fromClient(string(ask(s.t, id, name+".", dnsmessage.TypeA))))
	return s
}

func (s *story) reply(id uint16, name string, rcode dnsmessage.RCode, rr ...dnsmessage.ResourceBody) *story {
	s.steps = append(s.steps, fromServer(string(reply(s.t, id, name+".", dnsmessage.TypeA, rcode, rr...))))
	return s
}

// over plays the story on port 53 and compares; over TCP every message gets its prefix, and every split is
// tried.
func (s *story) over(t pipeline.Transport, want ...string) []*pipeline.Event {
	s.t.Helper()
	steps := slices.Clone(s.steps)
	if t == pipeline.Transport_TCP {
		for i, st := range steps {
			if st.Data != nil {
				steps[i].Data = append([]byte{byte(len(st.Data) >> 8), byte(len(st.Data))}, st.Data...)
			}
		}
	}
	c := protocoltest.Conversation{UDP: t == pipeline.Transport_UDP, Port: 53, Steps: steps}
	protocoltest.CheckSplits(s.t, list, c)
	events := c.Events(list)
	if got := lines(events); !slices.Equal(got, want) {
		s.t.Errorf("over %s:\n got %q\nwant %q", t.Name(), got, want)
	}
	return events
}

// both plays it over UDP and TCP.
func (s *story) both(want ...string) {
	s.t.Helper()
	s.over(pipeline.Transport_UDP, want...)
	s.over(pipeline.Transport_TCP, want...)
}

func tell(t *testing.T) *story { return &story{t: t} }

// TestQueryAndAnswerAreOneEvent: and it has all that both say.
func TestQueryAndAnswerAreOneEvent(t *testing.T) {
	tell(t).ask(7, "WWW.Example.COM").reply(7, "www.example.com", 0, a4(1), a4(2)).
		both("answer www.example.com A NOERROR A=192.0.2.1 A=192.0.2.2 1ms")
	s := tell(t).ask(7, "www.example.com").reply(7, "www.example.com", 0, a4(1))
	e := s.over(pipeline.Transport_UDP, "answer www.example.com A NOERROR A=192.0.2.1 1ms")[0]
	d := e.Dns
	if d.Id != 7 || d.OpCode != "QUERY" || d.QuestionClass != "IN" || d.RegisteredDomain != "example.com" ||
		!slices.Equal(d.ResolvedIp, []string{"192.0.2.1"}) || !slices.Equal(d.HeaderFlags, []string{"RD", "RA"}) ||
		d.AnswersCount != 1 || d.AnswersTtl[0] != 60 || d.AnswersName[0] != "www.example.com" {
		t.Errorf("%v", d)
	}
	if e.Source.Bytes != 33 || e.Destination.Bytes != uint64(len(s.steps[1].Data)) || e.Outcome != pipeline.Outcome_SUCCESS ||
		e.Source.Port != 50000 || e.Destination.Port != 53 || e.Timestamp != protocoltest.Start+1e6 {
		t.Errorf("%v", e)
	}
}

// TestAnswersComeInAnyOrder: they are paired by the id, and by the question where two have the same id.
func TestAnswersComeInAnyOrder(t *testing.T) {
	tell(t).ask(1, "a.example").ask(2, "b.example").ask(2, "c.example").
		reply(2, "c.example", 3).reply(2, "b.example", 0, a4(2)).reply(1, "a.example", 2).
		both("answer c.example A NXDOMAIN 1ms", "answer b.example A NOERROR A=192.0.2.2 3ms", "answer a.example A SERVFAIL 5ms")
}

// TestUnansweredQueryIsEmittedOnClose: as a query.
func TestUnansweredQueryIsEmittedOnClose(t *testing.T) {
	tell(t).ask(1, "a.example").ask(2, "b.example").reply(2, "b.example", 0).
		both("answer b.example A NOERROR 1ms", "query a.example A")
}

// TestUnansweredQueryIsEmittedAfterTimeout: by packet time, whether or not more comes of the same connection.
func TestUnansweredQueryIsEmittedAfterTimeout(t *testing.T) {
	s := tell(t).ask(1, "a.example").ask(2, "b.example")
	s.steps[1].At = 11_000
	s.reply(1, "a.example", 0).both("query a.example A", "answer a.example A NOERROR partial", "query b.example A")
}

// TestRepeatedQueryIsItsOwnTransaction: the answer goes to the first, which is the time that the client
// waited.
func TestRepeatedQueryIsItsOwnTransaction(t *testing.T) {
	tell(t).ask(1, "a.example").ask(1, "a.example").reply(1, "a.example", 0, a4(1)).
		both("answer a.example A NOERROR A=192.0.2.1 2ms", "query a.example A")
	tell(t).ask(1, "a.example").ask(1, "a.example").reply(1, "a.example", 0).reply(1, "a.example", 0).
		both("answer a.example A NOERROR 2ms", "answer a.example A NOERROR 2ms")
}

// TestAnswerWithoutQueryIsAnEvent of type answer, without the fields of the query.
func TestAnswerWithoutQueryIsAnEvent(t *testing.T) {
	s := tell(t).ask(1, "a.example").reply(1, "a.example", 0).reply(1, "a.example", 0, a4(1))
	s.both("answer a.example A NOERROR 1ms", "answer a.example A NOERROR A=192.0.2.1 partial")
	e := s.over(pipeline.Transport_UDP, "answer a.example A NOERROR 1ms", "answer a.example A NOERROR A=192.0.2.1 partial")[1]
	if e.Source.Bytes != 0 || e.Source.Port != 50000 || e.Destination.Port != 53 {
		t.Errorf("%v", e)
	}
	// Another question than was asked is not the answer.
	tell(t).ask(1, "a.example").reply(1, "evil.example", 0, a4(66)).
		both("answer evil.example A NOERROR A=192.0.2.66 partial", "query a.example A")
}

// TestRolesGuessedWrongAreExchanged: the first that was seen is an answer of who was thought to be the
// client.
func TestRolesGuessedWrongAreExchanged(t *testing.T) {
	for _, tr := range []pipeline.Transport{pipeline.Transport_UDP, pipeline.Transport_TCP} {
		s := tell(t).reply(1, "a.example", 0, a4(1)).ask(2, "b.example").reply(2, "b.example", 0)
		for i := range s.steps {
			s.steps[i].Dir = s.steps[i].Dir.Other()
		}
		e := s.over(tr, "answer a.example A NOERROR A=192.0.2.1 partial", "answer b.example A NOERROR 1ms")
		if e[0].Source.Port != 53 || e[0].Destination.Port != 50000 || e[1].Source.Port != 53 {
			t.Errorf("%s: %v", tr.Name(), e)
		}
	}
}

// TestBothSidesMayAsk: resolvers ask each other from port 53; the source is who asked.
func TestBothSidesMayAsk(t *testing.T) {
	s := tell(t).ask(1, "a.example").ask(1, "a.example").reply(1, "a.example", 0).reply(1, "a.example", 0)
	s.steps[1].Dir, s.steps[3].Dir = protocols.Server, protocols.Client
	e := s.over(pipeline.Transport_UDP, "answer a.example A NOERROR 2ms", "answer a.example A NOERROR 2ms")
	if e[0].Source.Port != 50000 || e[1].Source.Port != 53 || e[1].Destination.Port != 50000 {
		t.Errorf("%v", e)
	}
}

// TestWaitingQueriesAreBounded: the oldest makes room, and none is lost.
func TestWaitingQueriesAreBounded(t *testing.T) {
	s := tell(t)
	for i := range 3 * maxWaiting {
		s.ask(uint16(i), "a.example")
		s.steps[i].At = int64(i + 1)
	}
	events := protocoltest.Conversation{UDP: true, Port: 53, Steps: s.steps}.Events(list)
	if len(events) != 3*maxWaiting {
		t.Errorf("%d events", len(events))
	}
	ids := map[string]bool{}
	for i, e := range events {
		ids[string(e.Id)] = true
		if e.Dns.Id != uint32(i) {
			t.Fatalf("event %d has id %d", i, e.Dns.Id)
		}
	}
	if len(ids) != len(events) {
		t.Errorf("%d ids", len(ids))
	}
}

// TestZoneTransferIsOneEvent: however many messages it takes; its records are counted, the first ones kept.
func TestZoneTransferIsOneEvent(t *testing.T) {
	soa := &dnsmessage.SOAResource{NS: dnsmessage.MustNewName("ns.z."), MBox: dnsmessage.MustNewName("h.z."), Serial: 1}
	axfr := func(rr ...dnsmessage.ResourceBody) protocoltest.Step {
		return fromServer(string(reply(t, 9, "z.", dnsmessage.TypeAXFR, 0, rr...)))
	}
	s := tell(t)
	s.steps = []protocoltest.Step{
		fromClient(string(ask(t, 9, "z.", dnsmessage.TypeAXFR))),
		axfr(soa, a4(1)), axfr(a4(2), a4(3)), axfr(a4(4), soa),
	}
	s.ask(10, "b.example").reply(10, "b.example", 0)
	e := s.over(pipeline.Transport_TCP, "answer z AXFR NOERROR SOA=ns.z h.z 1 0 0 0 0 A=192.0.2.1 3ms", "answer b.example A NOERROR 1ms")
	if e[0].Dns.AnswersCount != 6 {
		t.Errorf("%d answers", e[0].Dns.AnswersCount)
	}
	s.steps = s.steps[:3] // it never ends
	s.over(pipeline.Transport_TCP, "answer z AXFR NOERROR SOA=ns.z h.z 1 0 0 0 0 A=192.0.2.1 2ms")
}

// TestMalformedMessages: what has a question is reported as far as it goes, the rest is an error and no
// event.
func TestMalformedMessages(t *testing.T) {
	full := tell(t).ask(1, "a.example").reply(1, "a.example", 0, a4(1), a4(2))
	whole := full.steps[1].Data
	full.steps[1].Data = whole[:len(whole)-2]
	full.both("answer a.example A NOERROR A=192.0.2.1 1ms partial")
	full.steps[1].Data = whole[:14]
	full.over(pipeline.Transport_UDP, "query a.example A")
	full.steps[1].Data = whole[:3]
	full.over(pipeline.Transport_UDP, "query a.example A")
	full.steps[1].Data = nil
	full.over(pipeline.Transport_UDP, "query a.example A")
}

// TestAnswerWithoutQuestionIsFoundByID: servers that cannot read a query send a bare header.
func TestAnswerWithoutQuestionIsFoundByID(t *testing.T) {
	s := tell(t).ask(7, "a.example")
	s.steps = append(s.steps, fromServer(string(unhex(t, "0007 8181 0000 0000 0000 0000"))))
	s.both("answer a.example A FORMERR 1ms")
}

// TestGapMarksWhatWaits: the answer may have been in it, and what follows is found again.
func TestGapMarksWhatWaits(t *testing.T) {
	s := tell(t).ask(1, "a.example")
	s.steps = append(s.steps, protocoltest.Step{Dir: protocols.Server, Gap: 100})
	s.ask(2, "b.example").reply(2, "b.example", 0, a4(1))
	s.over(pipeline.Transport_TCP, "answer b.example A NOERROR A=192.0.2.1 1ms", "query a.example A partial")
}

// TestOtherProtocolsThatLookTheSame are left alone: mDNS, LLMNR and NetBIOS by their ports.
func TestOtherProtocolsThatLookTheSame(t *testing.T) {
	s := tell(t).ask(1, "printer.local").reply(1, "printer.local", 0, a4(1))
	check := func(port uint16, want int) {
		t.Helper()
		if e := (protocoltest.Conversation{UDP: true, Port: port, Steps: s.steps}).Events(list); len(e) != want {
			t.Errorf("port %d: %v", port, lines(e))
		}
	}
	check(53, 1)
	check(5300, 1) // any port
	check(5353, 0)
	check(5355, 0)
	check(137, 0)
}

// FuzzConversation plays any bytes in any order: no panic, and no query is lost.
func FuzzConversation(f *testing.F) {
	q := ask(f, 7, "example.com.", dnsmessage.TypeA)
	a := reply(f, 7, "example.com.", dnsmessage.TypeA, 0, a4(1))
	f.Add(q, a, false)
	f.Add(a, q, true)
	f.Fuzz(func(t *testing.T, a, b []byte, tcp bool) {
		steps := []protocoltest.Step{fromClient(string(a)), fromServer(string(b)), fromClient(string(b)), fromServer(string(a))}
		for _, e := range (protocoltest.Conversation{UDP: !tcp, Port: 53, Steps: steps}).Events(list) {
			if e.Dns == nil || e.Dns.Type == "" || len(e.Id) != 16 {
				t.Fatalf("%v", e)
			}
		}
	})
}

// differs are the captures in which we see something else than tshark, and why.
var differs = map[string]string{
	"ndpi__dns-invalid-chars.pcap":                  "tshark does not escape names",
	"sv__dns-over-http2-limit_input.pcap":           "inside HTTP/2",
	"sv__dns-over-http2_dns_over_https.pcap":        "inside HTTP/2",
	"sv__dns-udp-junkrequest-first_input.pcap":      "not DNS but for its port",
	"zeek__dns-inverse-query.pcap":                  "no question, and a name that tshark makes up",
	"zeek__dns_conn-count-too-large.pcap":           "ten questions, of which we name the first",
	"zeek__ipv6-fragmented-dns.pcap":                "fragments, which protocoltest.Capture does not join",
	"zeek__tunnels_geneve-vxlan-dns-truncated.pcap": "a tunnel, which protocoltest.Capture does not open",
}

// TestOracle compares with what tshark finds in the shared captures: as many queries and answers, the same
// names and types.
func TestOracle(t *testing.T) {
	dir := protocoltest.SharedData(t, "../..")
	files, _ := filepath.Glob(filepath.Join(dir, "pcaps", "*dns*"))
	same, rows := 0, 0
	for _, path := range files {
		want := oracle(t, filepath.Join(dir, "oracle", "detail", filepath.Base(path)+".tsv"))
		got := map[string]int{}
		for _, e := range protocoltest.Capture(t, list, path) {
			d := e.Dns
			if !strings.Contains(d.QuestionName, `\`) {
				key := fmt.Sprintf("%d %s %s", d.Id, strings.TrimSuffix(d.QuestionName, "."), d.QuestionType)
				if e.Source.Bytes > 0 {
					got["query "+key]++
				}
				if d.ResponseCode != "" {
					got["resp "+key]++
				}
			}
		}
		diff := 0
		for k, n := range want {
			rows += n
			if got[k] != n {
				diff++
				if differs[filepath.Base(path)] == "" {
					t.Errorf("%s: %s: %d, tshark %d", filepath.Base(path), k, got[k], n)
				}
			}
		}
		if diff == 0 {
			same++
		}
	}
	t.Logf("%d of %d captures equal, %d messages", same, len(files), rows)
}

// oracle reads the rows of kind dns.
func oracle(t *testing.T, path string) map[string]int {
	t.Helper()
	out := map[string]int{}
	f, err := os.Open(path)
	if err != nil {
		return out
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		v := strings.Split(sc.Text(), "\t")
		if len(v) < 8 || v[1] != "dns" {
			continue
		}
		id, _ := strconv.ParseUint(v[5], 0, 16)
		typ, _ := strconv.Atoi(v[7])
		name := strings.ToLower(v[6])
		if name == "<root>" {
			name = ""
		}
		out[fmt.Sprintf("%s %d %s %s", v[4], id, name, typeName(uint16(typ)))]++
	}
	return out
}

// TestRefusalWithoutAQuestion: a header alone is an answer on the port of DNS, and nothing on another.
func TestRefusalWithoutAQuestion(t *testing.T) {
	refusal := "\x30\x40\x81\x81\x00\x00\x00\x00\x00\x00\x00\x00"
	for port, want := range map[uint16]string{53: "dns", 4053: ""} {
		c := protocoltest.Conversation{UDP: true, Port: port, Steps: []protocoltest.Step{protocoltest.Client("\x30\x40junk"), protocoltest.Server(refusal)}}
		events, name := c.Play([]protocols.Protocol{Protocol})
		if name != want || (len(events) == 1) != (want != "") {
			t.Errorf("port %d: %q, %q", port, name, events)
		}
		if want != "" && !strings.Contains(events[0], `dns.response_code="FORMERR"`) {
			t.Errorf("%s", events[0])
		}
	}
}
