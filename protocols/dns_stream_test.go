package protocols_test

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"tidegate/pipeline"
	"tidegate/protocols/all"
	"tidegate/protocols/protocoltest"
)

// TestAnsweredQueryOfAStreamIsAnEvent, whatever stands before it, and however the bytes of both sides are cut: the client
// chooses the segments of its own bytes, and by its window those of the server's.
func TestAnsweredQueryOfAStreamIsAnEvent(t *testing.T) {
	framed := func(message string) string {
		return string(binary.BigEndian.AppendUint16(nil, uint16(len(message)))) + message
	}
	const question = "\x03abc\x07example\x00\x00\x01\x00\x01"
	header := func(flags, questions string) string {
		return "\x00\x07" + flags + "\x00" + questions + "\x00\x00\x00\x00\x00\x00"
	}
	rests := map[string]string{ // behind the id and the flags
		"one question": header("", "\x01")[2:] + question,
		"17 questions": header("", "\x11")[2:] + question + strings.Repeat("\x01a\x00\x00\x01\x00\x01", 16),
		"a tail":       header("", "\x01")[2:] + question + "\x00\x00",
	}
	replies := map[string]func(message string) []string{
		"whole":  func(m string) []string { return []string{m} },
		"length": func(m string) []string { return []string{m[:2], m[2:]} },
		"eight":  func(m string) []string { return []string{m[:8], m[8:]} },
		"bytes":  func(m string) []string { return strings.Split(m, "") },
	}
	fronts := map[string]string{
		"nothing": "", "a short message": framed("x"), "short messages": strings.Repeat(framed("x"), 40), "a header": framed(header("\x01\x00", "\x01")),
		"text": framed("hello"), "a bad name": framed(header("\x01\x00", "\x01") + "\x80a\x00\x00\x01\x00\x01"),
		"an answer": framed(header("\x81\x80", "\x01") + "\x01a\x00\x00\x01\x00\x01"),
	}
	for frontName, front := range fronts {
		for restName, rest := range rests {
			for replyName, cut := range replies {
				query, reply := front+framed("\x00\x07\x01\x00"+rest), framed("\x00\x07\x81\x85"+rest)
				check := func(pieces ...string) {
					t.Helper()
					var steps []protocoltest.Step
					for _, piece := range pieces {
						steps = append(steps, protocoltest.Client(piece))
					}
					for _, piece := range cut(reply) {
						steps = append(steps, protocoltest.Server(piece))
					}
					events := protocoltest.Conversation{Port: 53, Steps: steps}.Events(all.Protocols)
					isAnswer := func(e *pipeline.Event) bool {
						return e.Dns != nil && e.Dns.QuestionName == "abc.example" && e.Dns.ResponseCode == "REFUSED" && e.Source.Port != 53
					}
					if !slices.ContainsFunc(events, isAnswer) {
						t.Errorf("%s behind %s in %d pieces, the first of %d bytes, answered in %s: %d events, none of it",
							restName, frontName, len(pieces), len(pieces[0]), replyName, len(events))
					}
				}
				check(query)
				check(strings.Split(query, "")...)
				for at := max(1, len(front)-20); at < len(query); at += 1 + at/50 {
					check(query[:at], query[at:])
				}
			}
		}
	}
}

// TestAnswerOfTheClientHidesNoOtherProtocol: an answer of DNS in front exchanges the roles. The server's answer to what
// follows is not of DNS: the protocol that it is of reads the bytes of both sides in their own roles.
func TestAnswerOfTheClientHidesNoOtherProtocol(t *testing.T) {
	answer := "\x00\x13\x00\x07\x81\x80\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01\r\n"
	conversation := protocoltest.Conversation{Port: 6379, Steps: []protocoltest.Step{
		protocoltest.Client(answer), protocoltest.Client("SET key value\r\n"),
		protocoltest.Server("-ERR unknown command\r\n+OK\r\n"),
	}}
	events := conversation.Events(all.Protocols)
	isSet := func(e *pipeline.Event) bool {
		return e.Redis != nil && e.Redis.Command == "SET" && e.Source.Port != 6379
	}
	if !slices.ContainsFunc(events, isSet) {
		t.Errorf("%d events, none of SET: %v", len(events), events)
	}
}

// TestUnansweredQueryBehindShortMessagesIsTold on any port: CoreDNS skips empty messages, and most servers whole ones that are
// shorter than a header. The client may end the connection before an answer comes.
func TestUnansweredQueryBehindShortMessagesIsTold(t *testing.T) {
	query := "\x00\x1d\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03abc\x07example\x00\x00\x01\x00\x01"
	sizes := []int{1, 7, 1 << 20}
	if testing.Short() {
		sizes = sizes[1:]
	}
	for _, port := range []uint16{53, 5300} {
		const question = `dns.question.name="abc.example"`
		for _, front := range []string{"\x00\x00", strings.Repeat("\x00\x00", 500)} {
			for _, size := range sizes {
				told(t, dialogue(port, ">"+front+query).Cut(size), question)
			}
		}
		for _, front := range []string{"\x00\x01x\x00\x00", "\x00\x0bhello world"} { // the front of one may be that of many protocols
			if events, _ := dialogue(port, ">"+front+query).Play(all.Protocols); !strings.Contains(strings.Join(events, "\n"), question) {
				t.Errorf("port %d, %q: %q", port, front, events)
			}
		}
	}
}

// TestNoNumberOfShortMessagesHidesAQuery on any port, answered or not: dnsmasq skips whole messages that are shorter than a
// header, CoreDNS also empty ones. Those with a line feed may be lines of another protocol, which its server answers, so
// that they are held; the others take no space.
func TestNoNumberOfShortMessagesHidesAQuery(t *testing.T) {
	const query = "\x00\x1d\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03abc\x07example\x00\x00\x01\x00\x01"
	answer := query[:4] + "\x81\x85" + query[6:]
	counts := map[string][]int{"\x00\x00": {500, 3000, 200_000}, "\x00\x01x": {500, 3000, 200_000}, "\x00\x0a0123456789": {600, 5000}, "\x00\x02\n\n": {1500, 10_000}}
	for _, port := range []uint16{53, 5300, 6379} {
		for message, numbers := range counts {
			for _, number := range numbers {
				for _, size := range []int{7, 1460, 65_000, 1 << 20} {
					if size == 7 && (number > 10_000 || testing.Short() && number > 1500) {
						continue
					}
					for _, answers := range [][]string{nil, {"<" + answer}} {
						lines := append([]string{">" + strings.Repeat(message, number) + query}, answers...)
						events, _ := dialogue(port, lines...).Cut(size).Play(all.Protocols)
						if !strings.Contains(strings.Join(events, "\n"), `dns.question.name="abc.example"`) {
							t.Errorf("port %d, %d times %q in pieces of %d, %d answers: %d events, none of the query",
								port, number, message, size, len(answers), len(events))
						}
					}
				}
			}
		}
	}
}
