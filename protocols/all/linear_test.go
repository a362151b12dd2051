package all

import (
	"fmt"
	"strings"
	"testing"

	"tidegate/pipeline"
	"tidegate/pipeline/lineartest"
	"tidegate/protocols"
	"tidegate/protocols/protocoltest"
)

// An exchange holds the bytes of two sides: a beginning, a unit that is repeated, and an end.
type exchange struct {
	name           string
	port           uint16
	before         []string // lines of a dialogue
	client, server string   // the units; the server's come behind the client's
	after          []string
	alternate      bool // each unit of the client is followed by one of the server
	count          bool // %d in a unit is its number
}

// repeatable returns the exchanges whose cost has to be linear in the number of units.
func repeatable() []exchange {
	greeting := "<" + packet(0, "\x0a5.5.5-10.11\x00\x01\x00\x00\x00abcdefgh\x00\xfe\xf7\x08\x02\x00\xbf\x81\x15"+strings.Repeat("\x00", 10)+
		"abcdefghijkl\x00mysql_native_password\x00")
	login := ">\x85\xa2\x0b\x00\x00\x00\x00\x01\x21" + strings.Repeat("\x00", 23) + "root\x00\x00"
	loggedIn := []string{greeting, ">" + packet(1, login[1:]), "<\x07\x00\x00\x02\x00\x00\x00\x02\x00\x00\x00"}
	const get, ok = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	hello := "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("r", 32)
	column := packet(1, "\x03def\x00\x00\x00\x01a\x00\x0c\x21\x00\x01\x00\x00\x00\xfd\x00\x00\x00\x00\x00")
	return []exchange{
		{name: "http target", port: 80, before: []string{">GET /"}, client: "a"},
		{name: "http dots in a target", port: 80, before: []string{">GET "}, client: "/..", after: []string{"> HTTP/1.1\r\n\r\n", "<" + ok}},
		{name: "http parameters", port: 80, before: []string{">GET /?"}, client: "key=%27&", after: []string{"> HTTP/1.1\r\n\r\n", "<" + ok}},
		{name: "http headers", port: 80, before: []string{">GET / HTTP/1.1\r\n"}, client: "A: b\r\n"},
		{name: "http headers with markers", port: 80, before: []string{">GET / HTTP/1.1\r\n"}, client: "A: ${${<script'--\r\n"},
		{name: "http folded header", port: 80, before: []string{">GET / HTTP/1.1\r\nA: b\r\n"}, client: " c\r\n"},
		{name: "http blanks", port: 80, before: []string{">GET / HTTP/1.1\r\nA:"}, client: " "},
		{name: "http carriage returns", port: 80, before: []string{">GET / HTTP/1.1\r\nA:"}, client: "\r"},
		{name: "http line breaks in front", port: 80, client: "\r\n", after: []string{">" + get, "<" + ok}},
		{name: "http pipelined requests", port: 80, client: get, server: ok},
		{name: "http alternating requests", port: 80, client: get, server: ok, alternate: true},
		{name: "http requests without a response", port: 80, client: get},
		{name: "http continue", port: 80, before: []string{">" + get}, server: "HTTP/1.1 100 Continue\r\n\r\n"},
		{name: "http cookies", port: 80, before: []string{">" + get, "<HTTP/1.1 200 OK\r\n"}, server: "Set-Cookie: a=b; c\r\n"},
		{name: "http chunks of one byte", port: 80, before: []string{">POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"}, client: "1\r\na\r\n"},
		{name: "http chunk extension", port: 80, before: []string{">POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1"}, client: ";a=\"b\""},
		{name: "http zeros of a chunk size", port: 80, before: []string{">POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"}, client: "0"},
		{name: "http trailers", port: 80, before: []string{">POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"}, client: "A: b\r\n"},
		{name: "http body to the end", port: 80, before: []string{">" + get, "<HTTP/1.0 200 OK\r\n\r\n"}, server: "body"},
		{name: "http nonsense", port: 80, before: []string{">" + get, "<" + ok}, client: "\x00G"},
		{name: "http beginnings of requests", port: 80, before: []string{">" + get, "<" + ok}, client: "GET "},
		{name: "http beginnings of responses", port: 80, before: []string{">" + get}, server: "HTTP/1.1 "},
		{name: "http requests in a body", port: 80, before: []string{">GET / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n"}, client: get},
		{name: "http requests in bodies that are held", port: 80, before: []string{">POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n"}, client: get},
		{name: "http lines in a body", port: 80, before: []string{">GET / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n" + get}, client: "a\r\n"},
		{name: "http head in a body", port: 80, before: []string{">GET / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\nGET / HTTP/1.1\r\n"}, client: "a: b\r\n"},
		{name: "http line in a body", port: 80, before: []string{">GET / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\nGET /"}, client: "a"},
		{name: "http word in a body", port: 80, before: []string{">POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n"}, client: "a"},
		{name: "http bodies of a line", port: 80, client: "GET / HTTP/1.1\r\nContent-Length: 9\r\n\r\nGET /abcd", server: ok},
		{name: "http requests in chunks", port: 80, before: []string{">GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"}, client: "1b\r\n" + get + "\r\n"},
		{name: "http switches", port: 80, client: "CONNECT a:1 HTTP/1.1\r\n\r\n", server: "HTTP/1.1 200 OK\r\n\r\n", alternate: true},

		{name: "redis nested replies", port: 6379, before: []string{">PING\r\n"}, server: "*1\r\n"},
		{name: "redis nested wide replies", port: 6379, before: []string{">PING\r\n"}, server: "*2\r\n:1\r\n"},
		{name: "redis attributes", port: 6379, before: []string{">PING\r\n"}, server: "|1\r\n+a\r\n+b\r\n"},
		{name: "redis nested attributes", port: 6379, before: []string{">PING\r\n"}, server: "|1\r\n"},
		{name: "redis streamed reply", port: 6379, before: []string{">HELLO 3\r\n", "<*?\r\n"}, server: ":1\r\n"},
		{name: "redis streamed string", port: 6379, before: []string{">HELLO 3\r\n", "<$?\r\n"}, server: ";1\r\na\r\n"},
		{name: "redis words", port: 6379, before: []string{">*100000\r\n"}, client: "$1\r\na\r\n"},
		{name: "redis empty words", port: 6379, before: []string{">*100000\r\n"}, client: "$0\r\n\r\n"},
		{name: "redis zeros of a size", port: 6379, before: []string{">*"}, client: "0"},
		{name: "redis inline words", port: 6379, before: []string{">GET "}, client: "a ", after: []string{">\r\n", "<-ERR\r\n"}},
		{name: "redis inline quotes", port: 6379, before: []string{">GET "}, client: `"\x41" `, after: []string{">\r\n", "<-ERR\r\n"}},
		{name: "redis inline blanks", port: 6379, before: []string{">GET"}, client: " "},
		{name: "redis empty lines", port: 6379, client: "\r\n", after: []string{">PING\r\n", "<+PONG\r\n"}},
		{name: "redis empty commands", port: 6379, before: []string{">PING\r\n"}, client: "*0\r\n"},
		{name: "redis pipelined commands", port: 6379, client: "PING\r\n", server: "+PONG\r\n"},
		{name: "redis commands without a reply", port: 6379, client: "PING\r\n"},
		{name: "redis config set", port: 6379, before: []string{">CONFIG SET"}, client: " dir /a", after: []string{">\r\n", "<+OK\r\n"}},
		{name: "redis channels", port: 6379, before: []string{">SUBSCRIBE"}, client: " c%d", after: []string{">\r\n"}, server: "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n", count: true},
		{name: "redis subscriptions", port: 6379, client: "SUBSCRIBE c%d\r\n", server: "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n", alternate: true, count: true},
		{name: "redis transactions", port: 6379, before: []string{">MULTI\r\n", "<+OK\r\n"}, client: "PING\r\n", server: "+QUEUED\r\n", alternate: true, after: []string{">EXEC\r\n", "<*-1\r\n"}},
		{name: "redis nonsense", port: 6379, before: []string{">PING\r\n", "<+PONG\r\n"}, client: "!\r\n", server: "-ERR\r\n"},
		{name: "redis stars", port: 6379, before: []string{">PING\r\n", "<+PONG\r\n"}, client: "*"},
		{name: "redis monitor", port: 6379, before: []string{">MONITOR\r\n", "<+OK\r\n"}, server: "+1.1 [0 a:1] \"PING\"\r\n"},
		{name: "redis no reply", port: 6379, client: "CLIENT REPLY SKIP\r\nPING\r\n"},

		{name: "mysql empty packets", port: 3306, before: loggedIn, client: packet(0, "")},
		{name: "mysql pings", port: 3306, before: loggedIn, client: packet(0, "\x0e"), server: "\x07\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00", alternate: true},
		{name: "mysql pipelined pings", port: 3306, before: loggedIn, client: packet(0, "\x0e"), server: "\x07\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00"},
		{name: "mysql prepared statements", port: 3306, before: loggedIn, client: packet(0, "\x16SELECT ?"), server: packet(1, "\x00%c\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), alternate: true, count: true},
		{name: "mysql rows", port: 3306, before: append(loggedIn, ">"+packet(0, "\x03SELECT 1"), "<"+packet(1, "\x01")+column+packet(3, "\xfe\x00\x00\x02\x00")), server: packet(4, "\x01x")},
		{name: "mysql columns", port: 3306, before: append(loggedIn, ">"+packet(0, "\x03SELECT 1"), "<"+packet(1, "\xfc\xff\xff")), server: column},
		{name: "mysql results", port: 3306, before: append(loggedIn, ">"+packet(0, "\x03SELECT 1")), server: "\x07\x00\x00\x01\x00\x00\x00\x0a\x00\x00\x00"},
		{name: "mysql long data", port: 3306, before: append(loggedIn, ">"+packet(0, "\x16SELECT ?"), "<"+packet(1, "\x00\x01\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00")), client: packet(0, "\x18\x01\x00\x00\x00\x00\x00a")},
		{name: "mysql comments", port: 3306, before: append(loggedIn, ">\xff\xff\x1f\x00\x03SELECT 1"), client: "/*a*/"},
		{name: "mysql open comments", port: 3306, before: append(loggedIn, ">\xff\xff\x1f\x00\x03SELECT 1"), client: "/*"},
		{name: "mysql executable comments", port: 3306, before: append(loggedIn, ">\xff\xff\x1f\x00\x03"), client: "/*!1"},
		{name: "mysql quotes", port: 3306, before: append(loggedIn, ">\xff\xff\x1f\x00\x03SELECT "), client: `'\'`},
		{name: "mysql statements", port: 3306, before: append(loggedIn, ">\xff\xff\x1f\x00\x03"), client: "SET PASSWORD = 'a';"},
		{name: "mysql greetings", port: 3306, server: greeting[1:]},
		{name: "mysql nonsense", port: 3306, before: loggedIn, client: "\x01"},

		{name: "tls empty records", port: 443, client: "\x16\x03\x01\x00\x00"},
		{name: "tls records of one byte", port: 443, before: []string{">\x16\x03\x01\x00\x01\x01\x16\x03\x01\x00\x01\x00\x16\x03\x01\x00\x01\xff\x16\x03\x01\x00\x01\xff"}, client: "\x16\x03\x01\x00\x01\x03"},
		{name: "tls hellos", port: 443, client: hello},
		{name: "tls alerts", port: 443, before: []string{">" + hello}, server: "\x15\x03\x01\x00\x02\x01\x00"},
		{name: "tls data", port: 443, before: []string{">" + hello + strings.Repeat("\x00", 474)}, client: "\x17\x03\x03\x00\x01a"},
		{name: "tls extensions", port: 443, before: []string{">\x16\x03\x01\xff\xff\x01\x00\xff\xfb\x03\x03" + strings.Repeat("r", 32) + "\x00\x00\x02\x13\x01\x01\x00\xff\xd0"}, client: "\x00\x01\x00\x00"},
		{name: "tls certificates", port: 443, before: []string{">" + hello, "<\x16\x03\x03\xff\xff\x0b\x00\xff\xfb\x00\xff\xf8"}, server: "\x00\x00\x02\x30\x00"},
		{name: "tls nonsense", port: 443, before: []string{">" + hello}, client: "\x16\x03"},

		{name: "memcached keys", port: 11211, before: []string{">get"}, client: " k", after: []string{">\r\n", "<END\r\n"}},
		{name: "memcached values", port: 11211, before: []string{">get k\r\n"}, server: "VALUE k 0 1\r\na\r\n"},
		{name: "memcached commands", port: 11211, client: "get k\r\n", server: "END\r\n"},
		{name: "memcached quiet commands", port: 11211, client: "mg k q\r\n", after: []string{">mn\r\n", "<MN\r\n"}},
		{name: "memcached nonsense", port: 11211, before: []string{">get k\r\n", "<END\r\n"}, client: "x\r\n", server: "ERROR\r\n"},
		{name: "memcached statistics", port: 11211, before: []string{">stats\r\n"}, server: "STAT a b\r\n"},
		{name: "memcached binary messages", port: 11211, client: "\x80\x0a" + strings.Repeat("\x00", 22)},
		{name: "memcached lines behind a binary header", port: 11211, before: []string{">\x80\x01" + strings.Repeat("\x00", 22) + "\r\n", "<ERROR\r\n"}, client: "get k\r\n", server: "END\r\n"},
		{name: "memcached commands in data", port: 11211, before: []string{">set k 0 0 99999999\r\n"}, client: "get k\r\n"},
		{name: "memcached commands in refused data", port: 11211, before: []string{">set k 0 0 99999999\r\n", "<CLIENT_ERROR x\r\n"}, client: "get k\r\n", server: "END\r\n", alternate: true},
		{name: "memcached line in data", port: 11211, before: []string{">set k 0 0 99999999\r\nget "}, client: "k"},
		{name: "memcached stores with commands", port: 11211, client: "set k 0 0 7\r\nget abc\r\n", server: "STORED\r\n"},
		{name: "memcached blanks", port: 11211, before: []string{">get k\r\n", "<END\r\n>get"}, client: " "},

		{name: "dns messages over TCP", port: 53, client: "\x00\x17\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x03com\x00\x00\x01\x00\x01"},
		{name: "dns empty messages", port: 53, client: "\x00\x00"},
		{name: "dns nonsense", port: 53, client: "\x00\x0c\xff"},
		{name: "dns labels", port: 53, before: []string{">\xff\xff\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"}, client: "\x01a"},
		{name: "dns pointers", port: 53, before: []string{">\xff\xff\x00\x01\x81\x00\x00\x01\xff\xff\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01"}, client: "\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x00\x00\x00"},

		{name: "unknown lines", port: 40404, client: "what\r\n", server: "no\r\n"},
		{name: "unknown turns", port: 40404, client: "what\r\n", server: "no\r\n", alternate: true},
		{name: "unknown bytes", port: 40404, client: "\x00\xff\x17"},
	}
}

// conversation returns the exchange with n units.
func (x *exchange) conversation(n int) protocoltest.Conversation {
	conversation := protocoltest.Dialogue(x.port, x.before...)
	units := [2]strings.Builder{}
	add := func(dir protocols.Dir, unit string, i int) {
		if x.count && strings.Contains(unit, "%") {
			unit = fmt.Sprintf(unit, i)
		}
		units[dir].WriteString(unit)
	}
	flush := func() {
		for dir := range units {
			if units[dir].Len() > 0 {
				conversation.Steps = append(conversation.Steps, protocoltest.Step{Dir: protocols.Dir(dir), Data: []byte(units[dir].String())})
				units[dir].Reset()
			}
		}
	}
	for i := range n {
		add(protocols.Client, x.client, i)
		add(protocols.Server, x.server, i)
		if x.alternate {
			flush()
		}
	}
	flush()
	conversation.Steps = append(conversation.Steps, protocoltest.Dialogue(x.port, x.after...).Steps...)
	return conversation
}

// TestWorkIsLinear: eight times as much of anything costs about eight times as much, in one segment, in small ones
// and with one byte a segment.
func TestWorkIsLinear(t *testing.T) {
	most := 128 << 10 // bytes of the longest exchange
	if testing.Short() {
		most = 16 << 10
	}
	for _, exchange := range repeatable() {
		for _, size := range []int{0, 17, 1} {
			name := fmt.Sprintf("%s, segments of %d", exchange.name, size)
			unit := len(exchange.client) + len(exchange.server)
			conversations := map[int]protocoltest.Conversation{}
			first := max(most/8/unit, 1)
			for i := range 4 {
				conversation := exchange.conversation(first << i)
				if size > 0 {
					conversation = conversation.Cut(size)
				}
				conversations[first<<i] = conversation
			}
			lineartest.Growth{Name: name, Units: first, Size: unit}.Check(t, func(units int) { playAndRelease(t, conversations[units]) })
		}
	}
}

// playAndRelease plays a conversation and drops its events.
func playAndRelease(t *testing.T, conversation protocoltest.Conversation) {
	set := protocols.NewSet(Protocols, protocols.Default(), nil)
	set.Panicked = func(protocol string, value any, stack []byte) {
		t.Errorf("the parser of %s panicked: %v\n%s", protocol, value, stack)
	}
	conversation.Emit(set, func(event *pipeline.Event) { event.ReturnToVTPool() })
}

// packet returns a packet of MySQL.
func packet(sequence byte, payload string) string {
	size := len(payload)
	return string([]byte{byte(size), byte(size >> 8), byte(size >> 16), sequence}) + payload
}
