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
	"tidegate/pipeline/lineartest"
	"tidegate/protocols"
	"tidegate/protocols/protocoltest"
)

var list = []protocols.Protocol{Protocol}

var fromClient, fromServer = protocoltest.Client, protocoltest.Server

// line returns an event in short: type, question, response code, answers, duration.
func line(event *pipeline.Event) string {
	message := event.Dns
	text := fmt.Sprintf("%s %s %s", message.Type, message.QuestionName, message.QuestionType)
	if message.ResponseCode != "" {
		text += " " + message.ResponseCode
	}
	for i, data := range message.AnswersData {
		text += fmt.Sprintf(" %s=%s", message.AnswersType[i], data)
	}
	if event.Duration > 0 {
		text += fmt.Sprintf(" %dms", event.Duration/1e6)
	}
	if event.Partial {
		text += " partial"
	}
	return text
}

// lines returns each event in the form of line.
func lines(events []*pipeline.Event) []string {
	var out []string
	for _, event := range events {
		out = append(out, line(event))
	}
	return out
}

// a4 returns an A record of 192.0.2.last.
func a4(last byte) *dnsmessage.AResource { return &dnsmessage.AResource{A: [4]byte{192, 0, 2, last}} }

// A script is a list of queries of the client and replies of the server.
type script struct {
	t     *testing.T
	steps []protocoltest.Step
}

func (s *script) query(id uint16, name string) *script {
	s.steps = append(s.steps, fromClient(string(packQuery(s.t, id, name+".", dnsmessage.TypeA))))
	return s
}

func (s *script) reply(id uint16, name string, rcode dnsmessage.RCode, rr ...dnsmessage.ResourceBody) *script {
	s.steps = append(s.steps, fromServer(string(packReply(s.t, id, name+".", dnsmessage.TypeA, rcode, rr...))))
	return s
}

// checkOver plays the script on port 53 and compares the events. Over TCP each message has its length prefix,
// and every split is played.
func (s *script) checkOver(transport pipeline.Transport, want ...string) []*pipeline.Event {
	s.t.Helper()
	steps := slices.Clone(s.steps)
	if transport == pipeline.Transport_TCP {
		for i, step := range steps {
			if step.Data != nil {
				steps[i].Data = append([]byte{byte(len(step.Data) >> 8), byte(len(step.Data))}, step.Data...)
			}
		}
	}
	conversation := protocoltest.Conversation{UDP: transport == pipeline.Transport_UDP, Port: 53, Steps: steps}
	protocoltest.CheckSplits(s.t, list, conversation)
	events := conversation.Events(list)
	if got := lines(events); !slices.Equal(got, want) {
		s.t.Errorf("over %s:\n got %q\nwant %q", transport.Name(), got, want)
	}
	return events
}

// checkBoth plays the script over UDP and over TCP.
func (s *script) checkBoth(want ...string) {
	s.t.Helper()
	s.checkOver(pipeline.Transport_UDP, want...)
	s.checkOver(pipeline.Transport_TCP, want...)
}

func newScript(t *testing.T) *script { return &script{t: t} }

// TestQueryAndAnswerAreOneEvent also checks the fields of both messages.
func TestQueryAndAnswerAreOneEvent(t *testing.T) {
	newScript(t).query(7, "WWW.Example.COM").reply(7, "www.example.com", 0, a4(1), a4(2)).
		checkBoth("answer www.example.com A NOERROR A=192.0.2.1 A=192.0.2.2 1ms")
	script := newScript(t).query(7, "www.example.com").reply(7, "www.example.com", 0, a4(1))
	event := script.checkOver(pipeline.Transport_UDP, "answer www.example.com A NOERROR A=192.0.2.1 1ms")[0]
	message := event.Dns
	if message.Id != 7 || message.OpCode != "QUERY" || message.QuestionClass != "IN" || message.RegisteredDomain != "example.com" ||
		!slices.Equal(message.ResolvedIp, []string{"192.0.2.1"}) || !slices.Equal(message.HeaderFlags, []string{"RD", "RA"}) ||
		message.AnswersCount != 1 || message.AnswersTtl[0] != 60 || message.AnswersName[0] != "www.example.com" {
		t.Errorf("%v", message)
	}
	if event.Source.Bytes != 33 || event.Destination.Bytes != uint64(len(script.steps[1].Data)) || event.Outcome != pipeline.Outcome_SUCCESS ||
		event.Source.Port != 50000 || event.Destination.Port != 53 || event.Timestamp != protocoltest.Start+1e6 {
		t.Errorf("%v", event)
	}
}

// TestAnswersInAnyOrderArePaired: answers are paired by the ID, and by the question if two queries have the
// same ID.
func TestAnswersInAnyOrderArePaired(t *testing.T) {
	newScript(t).query(1, "a.example").query(2, "b.example").query(2, "c.example").
		reply(2, "c.example", 3).reply(2, "b.example", 0, a4(2)).reply(1, "a.example", 2).
		checkBoth("answer c.example A NXDOMAIN 1ms", "answer b.example A NOERROR A=192.0.2.2 3ms", "answer a.example A SERVFAIL 5ms")
}

func TestUnansweredQueryIsEmittedOnClose(t *testing.T) {
	newScript(t).query(1, "a.example").query(2, "b.example").reply(2, "b.example", 0).
		checkBoth("answer b.example A NOERROR 1ms", "query a.example A")
}

// TestUnansweredQueryIsEmittedAfterTimeout: the timeout counts in packet time, with and without later
// packets.
func TestUnansweredQueryIsEmittedAfterTimeout(t *testing.T) {
	script := newScript(t).query(1, "a.example").query(2, "b.example")
	script.steps[1].At = 11_000
	script.reply(1, "a.example", 0).checkBoth("query a.example A", "answer a.example A NOERROR partial", "query b.example A")
}

// TestRepeatedQueryIsItsOwnTransaction: the answer is paired with the first query, so that the duration is
// the time that the client waited.
func TestRepeatedQueryIsItsOwnTransaction(t *testing.T) {
	newScript(t).query(1, "a.example").query(1, "a.example").reply(1, "a.example", 0, a4(1)).
		checkBoth("answer a.example A NOERROR A=192.0.2.1 2ms", "query a.example A")
	newScript(t).query(1, "a.example").query(1, "a.example").reply(1, "a.example", 0).reply(1, "a.example", 0).
		checkBoth("answer a.example A NOERROR 2ms", "answer a.example A NOERROR 2ms")
}

// TestAnswerWithoutQueryIsAnEvent: the event has type answer and no bytes of a query.
func TestAnswerWithoutQueryIsAnEvent(t *testing.T) {
	script := newScript(t).query(1, "a.example").reply(1, "a.example", 0).reply(1, "a.example", 0, a4(1))
	script.checkBoth("answer a.example A NOERROR 1ms", "answer a.example A NOERROR A=192.0.2.1 partial")
	event := script.checkOver(pipeline.Transport_UDP, "answer a.example A NOERROR 1ms", "answer a.example A NOERROR A=192.0.2.1 partial")[1]
	if event.Source.Bytes != 0 || event.Source.Port != 50000 || event.Destination.Port != 53 {
		t.Errorf("%v", event)
	}

	// A message with another question is not the answer.
	newScript(t).query(1, "a.example").reply(1, "evil.example", 0, a4(66)).
		checkBoth("answer evil.example A NOERROR A=192.0.2.66 partial", "query a.example A")
}

// TestWrongRolesAreExchanged: the first message is an answer of the supposed client.
func TestWrongRolesAreExchanged(t *testing.T) {
	for _, transport := range []pipeline.Transport{pipeline.Transport_UDP, pipeline.Transport_TCP} {
		script := newScript(t).reply(1, "a.example", 0, a4(1)).query(2, "b.example").reply(2, "b.example", 0)
		for i := range script.steps {
			script.steps[i].Dir = script.steps[i].Dir.Other()
		}
		events := script.checkOver(transport, "answer a.example A NOERROR A=192.0.2.1 partial", "answer b.example A NOERROR 1ms")
		if events[0].Source.Port != 53 || events[0].Destination.Port != 50000 || events[1].Source.Port != 53 {
			t.Errorf("%s: %v", transport.Name(), events)
		}
	}
}

// TestBothSidesMayQuery: resolvers query each other from port 53. The source is the side that sent the query.
func TestBothSidesMayQuery(t *testing.T) {
	script := newScript(t).query(1, "a.example").query(1, "a.example").reply(1, "a.example", 0).reply(1, "a.example", 0)
	script.steps[1].Dir, script.steps[3].Dir = protocols.Server, protocols.Client
	events := script.checkOver(pipeline.Transport_UDP, "answer a.example A NOERROR 2ms", "answer a.example A NOERROR 2ms")
	if events[0].Source.Port != 50000 || events[1].Source.Port != 53 || events[1].Destination.Port != 50000 {
		t.Errorf("%v", events)
	}
}

// TestWaitingQueriesAreBounded: the oldest query is emitted to make room.
func TestWaitingQueriesAreBounded(t *testing.T) {
	script := newScript(t)
	for i := range 3 * maxWaiting {
		script.query(uint16(i), "a.example")
		script.steps[i].At = int64(i + 1)
	}
	events := protocoltest.Conversation{UDP: true, Port: 53, Steps: script.steps}.Events(list)
	if len(events) != 3*maxWaiting {
		t.Errorf("%d events", len(events))
	}
	ids := map[string]bool{}
	for i, event := range events {
		ids[string(event.Id)] = true
		if event.Dns.Id != uint32(i) {
			t.Fatalf("event %d has id %d", i, event.Dns.Id)
		}
	}
	if len(ids) != len(events) {
		t.Errorf("%d ids", len(ids))
	}
}

// TestZoneTransferIsOneEvent: a transfer of several messages has one event with the number of its records and
// the first of them.
func TestZoneTransferIsOneEvent(t *testing.T) {
	soa := &dnsmessage.SOAResource{NS: dnsmessage.MustNewName("ns.z."), MBox: dnsmessage.MustNewName("h.z."), Serial: 1}
	axfr := func(rr ...dnsmessage.ResourceBody) protocoltest.Step {
		return fromServer(string(packReply(t, 9, "z.", dnsmessage.TypeAXFR, 0, rr...)))
	}
	script := newScript(t)
	script.steps = []protocoltest.Step{
		fromClient(string(packQuery(t, 9, "z.", dnsmessage.TypeAXFR))),
		axfr(soa, a4(1)), axfr(a4(2), a4(3)), axfr(a4(4), soa),
	}
	script.query(10, "b.example").reply(10, "b.example", 0)
	events := script.checkOver(pipeline.Transport_TCP, "answer z AXFR NOERROR SOA=ns.z h.z 1 0 0 0 0 A=192.0.2.1 3ms", "answer b.example A NOERROR 1ms")
	if events[0].Dns.AnswersCount != 6 {
		t.Errorf("%d answers", events[0].Dns.AnswersCount)
	}
	script.steps = script.steps[:3] // it never ends
	script.checkOver(pipeline.Transport_TCP, "answer z AXFR NOERROR SOA=ns.z h.z 1 0 0 0 0 A=192.0.2.1 2ms")
}

// TestMalformedMessageIsReportedUpToItsError: a message with a complete header is reported up to the error. A
// shorter one has no event.
func TestMalformedMessageIsReportedUpToItsError(t *testing.T) {
	full := newScript(t).query(1, "a.example").reply(1, "a.example", 0, a4(1), a4(2))
	whole := full.steps[1].Data
	full.steps[1].Data = whole[:len(whole)-2]
	full.checkBoth("answer a.example A NOERROR A=192.0.2.1 1ms partial")
	full.steps[1].Data = whole[:14]
	full.checkOver(pipeline.Transport_UDP, "answer a.example A NOERROR 1ms partial")
	full.steps[1].Data = whole[:3]
	full.checkOver(pipeline.Transport_UDP, "query a.example A")
	full.steps[1].Data = nil
	full.checkOver(pipeline.Transport_UDP, "query a.example A")
}

// TestAnswerWithoutQuestionIsPairedByID: a server that cannot read a query sends a bare header.
func TestAnswerWithoutQuestionIsPairedByID(t *testing.T) {
	script := newScript(t).query(7, "a.example")
	script.steps = append(script.steps, fromServer(string(unhex(t, "0007 8181 0000 0000 0000 0000"))))
	script.checkBoth("answer a.example A FORMERR 1ms")
}

// TestGapMarksWaitingQueries: the answer may have been in the gap. The message behind the gap is found.
func TestGapMarksWaitingQueries(t *testing.T) {
	script := newScript(t).query(1, "a.example")
	script.steps = append(script.steps, protocoltest.Step{Dir: protocols.Server, Gap: 100})
	script.query(2, "b.example").reply(2, "b.example", 0, a4(1))
	script.checkOver(pipeline.Transport_TCP, "answer b.example A NOERROR A=192.0.2.1 1ms", "query a.example A partial")
}

// TestQueriesByMulticastAreNotRecognised: mDNS and LLMNR have the format of DNS and are sent to a group. A query to one host is DNS
// on every port, over UDP and TCP.
func TestQueriesByMulticastAreNotRecognised(t *testing.T) {
	script := newScript(t).query(1, "printer.local").reply(1, "printer.local", 0, a4(1))
	check := func(address string, port uint16, want int) {
		t.Helper()
		conversation := protocoltest.Conversation{UDP: true, Port: port, ServerIP: address, Steps: script.steps}
		if events := conversation.Events(list); len(events) != want {
			t.Errorf("%s port %d: %v", address, port, lines(events))
		}
	}
	for _, port := range []uint16{53, 5300, 5353, 5355, 137} {
		check("10.0.0.2", port, 1)
		check("2001:db8::2", port, 1)
		check("224.0.0.251", port, 0)
		check("::ffff:224.0.0.252", port, 0)
		check("ff02::fb", port, 0)
		for _, step := range script.steps[:1] {
			framed := string([]byte{byte(len(step.Data) >> 8), byte(len(step.Data))}) + string(step.Data)
			conversation := protocoltest.Conversation{Port: port, Steps: []protocoltest.Step{fromClient(framed)}}
			if events := conversation.Events(list); len(events) != 1 {
				t.Errorf("over TCP to port %d: %v", port, lines(events))
			}
		}
	}
}

// TestNetBIOSNamesAreNoEvents: a query as Windows sends it, and what differs from it.
func TestNetBIOSNamesAreNoEvents(t *testing.T) {
	query := func(label string, qtype byte) protocoltest.Step {
		return fromClient("\x12\x34\x01\x10\x00\x01\x00\x00\x00\x00\x00\x00" + string(byte(len(label))) + label + "\x00\x00" + string(qtype) + "\x00\x01")
	}
	check := func(what string, port uint16, step protocoltest.Step, want int) {
		t.Helper()
		conversation := protocoltest.Conversation{UDP: true, Port: port, Steps: []protocoltest.Step{step}}
		if events := conversation.Events(list); len(events) != want {
			t.Errorf("%s: %v", what, lines(events))
		}
	}
	name := "FHEPFCEL" + strings.Repeat("CA", 11) + "AP"
	check("a name", 137, query(name, 32), 0)
	check("its state", 137, query(name, 33), 0)
	check("another type", 137, query(name, 16), 1)
	check("to DNS", 53, query(name, 32), 1)
	check("a shorter name", 137, query(name[:31], 32), 1)
	check("a letter behind P", 137, query("Q"+name[1:], 32), 1)
	check("a digit", 137, query("1"+name[1:], 32), 1)
}

// TestClientsPortExcludesNoQuery: the client chooses its port. An answer from a port of mDNS to a query that
// was sent by multicast is none of DNS.
func TestClientsPortExcludesNoQuery(t *testing.T) {
	script := newScript(t).query(1, "evil.example").reply(1, "evil.example", 0, a4(1))
	for _, clientPort := range multicastPorts {
		for _, port := range []uint16{53, 5300} {
			for _, udp := range []bool{true, false} {
				steps := script.steps
				if !udp {
					steps = nil
					for _, step := range script.steps {
						framed := string([]byte{byte(len(step.Data) >> 8), byte(len(step.Data))}) + string(step.Data)
						steps = append(steps, protocoltest.Step{Dir: step.Dir, Data: []byte(framed)})
					}
				}
				conversation := protocoltest.Conversation{UDP: udp, Port: port, ClientPort: clientPort, Steps: steps}
				if events := conversation.Events(list); len(events) != 1 || events[0].Dns.GetQuestionName() != "evil.example" {
					t.Errorf("port %d to %d: %v", clientPort, port, lines(events))
				}
			}
		}
		steps := []protocoltest.Step{{Dir: protocols.Client, Data: script.steps[1].Data}}
		multicast := protocoltest.Conversation{UDP: true, ClientPort: clientPort, Steps: steps}
		if events := multicast.Events(list); len(events) != 0 {
			t.Errorf("the answer from port %d is %v", clientPort, lines(events))
		}
	}
}

// FuzzConversation plays arbitrary messages of both sides. Each event must be one of DNS, with an ID.
func FuzzConversation(f *testing.F) {
	query := packQuery(f, 7, "example.com.", dnsmessage.TypeA)
	answer := packReply(f, 7, "example.com.", dnsmessage.TypeA, 0, a4(1))
	f.Add(query, answer, false)
	f.Add(answer, query, true)
	f.Fuzz(func(t *testing.T, first, second []byte, tcp bool) {
		lineartest.CheckRepeatedPair(t, lineartest.Default, first, second, func(first, second []byte) {
			steps := []protocoltest.Step{fromClient(string(first)), fromServer(string(second)), fromClient(string(second)), fromServer(string(first))}
			for _, event := range (protocoltest.Conversation{UDP: !tcp, Port: 53, Steps: steps}).Events(list) {
				stopped := slices.Contains(event.Tags, pipeline.TagParsingStopped) // the event only says so
				if event.Dns == nil || event.Dns.Type == "" && !stopped || len(event.Id) != 16 {
					t.Fatalf("%v", event)
				}
			}
		})
	})
}

// differs lists the captures in which our counts differ from those of tshark, with the reason.
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

// TestMessagesAreThoseOfTshark compares queries and answers in the shared captures with those that tshark
// finds, by ID, name and type.
func TestMessagesAreThoseOfTshark(t *testing.T) {
	dir := protocoltest.SharedData(t, "../..")
	files, _ := filepath.Glob(filepath.Join(dir, "pcaps", "*dns*"))
	same, rows := 0, 0
	for _, path := range files {
		want := oracle(t, filepath.Join(dir, "oracle", "detail", filepath.Base(path)+".tsv"))
		got := map[string]int{}
		for _, event := range protocoltest.Capture(t, list, path) {
			message := event.Dns
			if !strings.Contains(message.QuestionName, `\`) {
				name := strings.TrimSuffix(message.QuestionName, ".")
				key := fmt.Sprintf("%d %s %s", message.Id, name, message.QuestionType)
				if event.Source.Bytes > 0 {
					got["query "+key]++
				}
				if message.ResponseCode != "" {
					got["resp "+key]++
				}
			}
		}
		diff := 0
		for key, count := range want {
			rows += count
			if got[key] != count {
				diff++
				if differs[filepath.Base(path)] == "" {
					t.Errorf("%s: %s: %d, tshark %d", filepath.Base(path), key, got[key], count)
				}
			}
		}
		if diff == 0 {
			same++
		}
	}
	if rows < 600 {
		t.Errorf("tshark finds %d messages in %d captures, want at least 600", rows, len(files))
	}
	t.Logf("%d of %d captures equal, %d messages", same, len(files), rows)
}

// oracle reads the rows of kind dns from the output of tshark and counts equal ones. A missing file has no
// rows.
func oracle(t *testing.T, path string) map[string]int {
	t.Helper()
	out := map[string]int{}
	file, err := os.Open(path)
	if err != nil {
		return out
	}
	defer file.Close()
	for scanner := bufio.NewScanner(file); scanner.Scan(); {
		cells := strings.Split(scanner.Text(), "\t")
		if len(cells) < 8 || cells[1] != "dns" {
			continue
		}
		id, _ := strconv.ParseUint(cells[5], 0, 16)
		typ, _ := strconv.Atoi(cells[7])
		name := strings.ToLower(cells[6])
		if name == "<root>" {
			name = ""
		}
		out[fmt.Sprintf("%s %d %s %s", cells[4], id, name, typeName(uint16(typ)))]++
	}
	return out
}

// TestBareHeaderIsAnAnswerOnThePortOfDNSOnly checks a refusal without a question.
func TestBareHeaderIsAnAnswerOnThePortOfDNSOnly(t *testing.T) {
	refusal := "\x30\x40\x81\x81\x00\x00\x00\x00\x00\x00\x00\x00"
	for port, want := range map[uint16]string{53: "dns", 4053: ""} {
		steps := []protocoltest.Step{protocoltest.Client("\x30\x40junk"), protocoltest.Server(refusal)}
		conversation := protocoltest.Conversation{UDP: true, Port: port, Steps: steps}
		events, name := conversation.Play([]protocols.Protocol{Protocol})
		if name != want || (len(events) == 1) != (want != "") {
			t.Errorf("port %d: %q, %q", port, name, events)
		}
		if want != "" && !strings.Contains(events[0], `dns.response_code="FORMERR"`) {
			t.Errorf("%s", events[0])
		}
	}
}

// TestOutcomeIsThatOfTheResponseCode: any code but NOERROR is a failure.
func TestOutcomeIsThatOfTheResponseCode(t *testing.T) {
	for code, want := range map[dnsmessage.RCode]pipeline.Outcome{
		0: pipeline.Outcome_SUCCESS, dnsmessage.RCodeNameError: pipeline.Outcome_FAILURE, dnsmessage.RCodeRefused: pipeline.Outcome_FAILURE,
	} {
		query := packQuery(t, 7, "example.com.", dnsmessage.TypeA)
		answer := packReply(t, 7, "example.com.", dnsmessage.TypeA, code)
		steps := []protocoltest.Step{fromClient(string(query)), fromServer(string(answer))}
		events := protocoltest.Conversation{UDP: true, Port: 53, Steps: steps}.Events(list)
		if len(events) != 1 || events[0].Outcome != want {
			t.Errorf("%v: %v", code, events)
		}
	}
}

// TestTranscriptsMatchTheirGoldens compares every field of the events of each transcript with its golden.
func TestTranscriptsMatchTheirGoldens(t *testing.T) { protocoltest.CheckGoldens(t, list, "dns") }

// TestTranscriptsHoldTheirProperties: cuts change nothing, and what is not partial is true, whatever was lost.
func TestTranscriptsHoldTheirProperties(t *testing.T) {
	protocoltest.CheckTranscripts(t, list, "../testdata", "dns")
}
