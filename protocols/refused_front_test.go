package protocols_test

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"tidegate/protocols/all"
)

// TestAnswerToTheFrontOfALineHidesNoCommand: the server answers the lines that have arrived while the next one is still
// coming, on a port of no protocol.
func TestAnswerToTheFrontOfALineHidesNoCommand(t *testing.T) {
	const event = `memcached.key="evilkey"`
	for _, front := range []string{"xyz\r\n", "PSYNC ? -1\r\n", "$get a\r\n", "\x00\r\n", "EHLO a\r\n", "*1\r\n"} {
		told(t, dialogue(11222, ">"+front+"ms evil", "<ERROR\r\n", ">key 1 q\r\n1\r\nmn\r\n", "<MN\r\n"), event)
		told(t, dialogue(11222, ">"+front+"set evilk", "<ERROR\r\n", ">ey 0 0 1\r\n1\r\nget none\r\n", "<STORED\r\nEND\r\n"), event)
		// Behind an answered turn the server may answer nothing any more.
		told(t, dialogue(11222, ">"+front, "<ERROR\r\n", ">1\r\n\r\nset evilkey 0 0 1 noreply\r\n1\r\nquit\r\n"), event)
	}
	// Behind many turns of nonsense the first bytes of a turn decide whether it is read.
	for _, front := range []string{"\r\n", "\n\n", ""} {
		turns := slices.Repeat([]string{">*1\r\n", "<ERROR\r\n"}, 40)
		answer := strings.Repeat("ERROR\r\n", strings.Count(front, "\n"))
		told(t, dialogue(11222, append(turns, ">"+front+"ms evilkey 1\r\n1\r\nmn\r\n", "<"+answer+"HD\r\nMN\r\n")...), event)
	}
	// An answer of one byte shows no protocol: TLS begins behind it.
	told(t, dialogue(5432, ">\x00\x00\x00\x08\x04\xd2\x16\x2f", "<S", ">GET /../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n"), `url.original="/../etc/passwd"`)
}

// TestAnswersWithinACommandOfAnotherProtocolRefuteIt: memcached answers each line of an array of Redis with an error when it
// comes, so that what its lines are together decides nothing. The answers are those of memcached 1.6.
func TestAnswersWithinACommandOfAnotherProtocolRefuteIt(t *testing.T) {
	const event = `memcached.key="evilkey"`
	bytewise := func(text string) (lines []string) {
		for i := range text {
			if lines = append(lines, ">"+text[i:i+1]); text[i] == '\n' {
				lines = append(lines, "<ERROR\r\n")
			}
		}
		return lines
	}
	for _, port := range []uint16{11211, 11222, 6379} {
		for _, front := range [][]string{
			bytewise("*1\r\n$4\r\nPING\r\n"),
			{">*1\r\n$4\r\n", "<ERROR\r\n", "<ERROR\r\n", ">PING\r\n", "<ERROR\r\n"},
			{">*1\r\n", "<E", "<RROR\r\n", ">$4\r\nPING\r\n", "<ERROR\r\nERROR\r\n"},
			bytewise("\x16\x03\x01\x00\n\x01\x00\x00\x2a\x03\x03abc\n"),
		} {
			told(t, dialogue(port, append(front, ">set evilkey 0 0 2\r\nhi\r\n", "<STORED\r\n")...), event)
			told(t, dialogue(port, append(front, ">set evilkey 0 0 2\r\nhi\r\n", "<STORED\r\n", ">get evilkey\r\n", "<VALUE evilkey 0 2\r\nhi\r\nEND\r\n")...), event)
		}
	}
}

// TestRedisWithoutAnAnswer: behind CLIENT REPLY OFF the server sends nothing, and a run of empty arrays has no answer.
func TestRedisWithoutAnAnswer(t *testing.T) {
	const inline, event = "CONFIG SET dbfilename evil\r\n", `redis.args=["dbfilename" "evil"]`
	for _, port := range []uint16{7000, 53, 80, 11211} {
		for _, front := range []string{
			"CLIENT REPLY OFF\r\n", "client \"reply\"\tskip\n", "\r\nCLIENT REPLY OFF\r\n",
			strings.Repeat("*-1\r\n", 2000), strings.Repeat("*0\r\n", 2000),
		} {
			told(t, dialogue(port, ">"+front+inline), event)
			told(t, dialogue(port, ">"+front, ">"+inline), event)
		}
	}
	told(t, dialogue(7000, ">SYNC\r\n*2\r\n$4\r\nKEYS\r\n$1\r\n*\r\n"), `redis.command="SYNC"`)
	told(t, dialogue(7000, ">SYNC\r\nINCR a\r\n"), `redis.command="SYNC"`)
	told(t, dialogue(7000, ">INCR a\nGET b\n*1\r\n$4\r\nPING\r\n"), `redis.command="INCR"`, `redis.command="PING"`)
	told(t, dialogue(7000, ">SYNC\n\"\\x4bEYS\" *\r\n"), `redis.command="SYNC"`)
	told(t, dialogue(7000, ">\r\rSET a '"+strings.Repeat("v", 5_000)+"'\r\n"+inline, "<+OK\r\n+OK\r\n"), event)
	told(t, dialogue(53, ">GET /x\r\n\r\n"+inline, "<$-1\r\n+OK\r\n"), event)
}

// TestOneWordIsNoRedis: SYNC may be the first line of any text protocol. The port decides, the answer, or what follows.
func TestOneWordIsNoRedis(t *testing.T) {
	const event, id = `redis.command="SYNC"`, "8de1787ba490483314a4d30f1c628bc5025eb761"
	for _, lines := range [][]string{
		{">SYNC\r\n"},
		{">sync\n"},
		{">SYNC\r\n", "<200 OK\r\n"},
		{">SYNC\r\n", "<\r\nOK\r\n", ">GET a\r\n", "<a\r\n"},
		{">SYNC\r\nQUIT\r\n", "<bye\r\n"},
		{">SYNC\r\n", "<200 OK\r\n", ">SET a b\r\n", "<200 OK\r\n"},
		{">SYNC\r\n", "<* synced\r\n", ">INCR a\r\n", "<done\r\n", ">SAVE\r\n", "<done\r\n"},
		{">SYNC\r\nSYNC\r\n"},
		{">PSYNC a b\r\n"},
		{">PSYNC ? x\r\n"},
		{">PSYNC " + id[1:] + " 1\r\n"},
	} {
		if events, name := dialogue(7000, lines...).Play(all.Protocols); len(events) > 0 || name != "" {
			t.Errorf("%q is %s: %q", lines, name, events)
		}
	}
	told(t, dialogue(7000, ">SYNC\r\n", "<200 OK\r\n", cronWrite), cronWriteEvent, cronWriteArgs)
	told(t, dialogue(6379, ">SYNC\r\n", "<200 OK\r\n", ">SET a b\r\n"), event, `redis.command="SET"`)
	told(t, dialogue(6379, ">SYNC\r\n"), event)
	told(t, dialogue(6379, ">SYNC\r\n", "<\n", "<\n"), event)
	told(t, dialogue(7000, ">PSYNC ? -1\r\n"), `redis.command="PSYNC"`)
	told(t, dialogue(7000, ">psync "+id+" 1\r\n"), `redis.command="PSYNC"`)
	told(t, dialogue(7000, ">PSYNC a b\r\n", cronWrite), `redis.command="PSYNC"`, cronWriteEvent, cronWriteArgs)
	told(t, dialogue(7000, ">SYNC\r\n", "<-NOMASTERLINK Can't SYNC while not connected with my master\r\n"), event, `redis.reply_type="error"`)
	for _, snapshot := range []string{"$EOF:" + id + "\r\nREDIS0011\xff" + id, "$10\r\nREDIS0011\xff"} {
		for _, begin := range []string{"", "\n", "\n\n\n"} {
			told(t, dialogue(7000, ">SYNC\r\n", "<"+begin+snapshot, cronWrite), event+` redis.reply_type="bulk_string"`, cronWriteEvent, cronWriteArgs)
			told(t, dialogue(7000, ">SYNC\r\n", "<"+begin+snapshot[:1], "<"+snapshot[1:], "<*1\r\n$4\r\nPING\r\n", cronWrite), event, cronWriteEvent)
		}
	}
}

// TestJunkMessagesHideNoQuery: dnsmasq skips short messages, and refuses those without a question by a bare header.
func TestJunkMessagesHideNoQuery(t *testing.T) {
	framed := func(message string) string {
		return string(binary.BigEndian.AppendUint16(nil, uint16(len(message)))) + message
	}
	const header = "\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"
	const refusal = "\x00\x07\x81\x85\x00\x00\x00\x00\x00\x00\x00\x00"
	const query = "\x00\x09\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04evil\x07example\x00\x00\x01\x00\x01"
	answer := query[:2] + "\x81\x85" + query[4:]
	for _, junk := range []string{strings.Repeat("\x00", 12), header[:4] + strings.Repeat("\x00", 8), header[:11], "x", header + "\xc0\x0c\x00\x01\x00\x01"} {
		for _, count := range []int{1, 40} {
			lines := []string{">" + strings.Repeat(framed(junk), count) + framed(query)}
			if len(junk) >= len(header) {
				lines = append(lines, "<"+strings.Repeat(framed(refusal), count)+framed(answer))
			} else {
				lines = append(lines, "<"+framed(answer))
			}
			told(t, dialogue(53, lines...), `dns.question.name="evil.example"`)
		}
	}
	// Behind a short message, 17 questions.
	odd := query[:4] + "\x00\x11" + query[6:] + strings.Repeat("\x01a\x00\x00\x01\x00\x01", 16)
	events, _ := dialogue(53, ">"+framed(header[:11])+framed(odd), "<"+framed(odd[:2]+"\x81\x85"+odd[4:])).Play(all.Protocols)
	if text := strings.Join(events, "\n"); !strings.Contains(text, `source.bytes=`) || !strings.Contains(text, `dns.question.name="evil.example"`) {
		t.Errorf("17 questions: %s", text)
	}
}

// TestOddHTTPIsTold: what Python's http.server reads, nginx and net/http refuse.
func TestOddHTTPIsTold(t *testing.T) {
	const response = "<HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	told(t, dialogue(8000, ">POST /a HTTP/1.1\r\nContent-Length: +5\r\n\r\nabcdeGET /evil\r\n", response, "<yes\n"), `url.original="/evil"`)
	told(t, dialogue(8000, ">POST /a HTTP/1.1\r\nContent-Length: 1_0\r\n\r\n0123456789GET /evil\r\n", response, "<yes\n"), `url.original="/evil"`)
	for _, version := range []string{"0.9", "01.1", "0.5"} {
		told(t, dialogue(8001, ">POST /evil HTTP/"+version+"\r\nHost: a\r\n\r\n", "<yes\n"), `url.original="/evil"`)
	}
	// The last byte of a character may look like a blank.
	told(t, dialogue(80, ">GET /evil\u00a0 HTTP/1.1\r\nHost: a\r\n\r\n", response), `url.original="/evil\u00a0"`)
	told(t, dialogue(8000, ">GET\xa0/evil\xa0HTTP/1.1\r\nHost: a\r\n\r\n", response), `"/evil"`)
}

// TestErrorsOfRedisDecide: the texts are those of Redis only; POP3 has similar ones.
func TestErrorsOfRedisDecide(t *testing.T) {
	conversation := dialogue(110, "<+OK ready\r\n", ">xyz\r\n", "<-ERR Unknown command.\r\n", ">QUIT\r\n", "<+OK bye\r\n")
	if events, _ := conversation.Play(all.Protocols); len(events) > 0 {
		t.Errorf("POP3: %q", events)
	}
}
