package protocols_test

import (
	"fmt"
	"strings"
	"testing"

	"tidegate/protocols/all"
	"tidegate/protocols/protocoltest"
)

// TestLongInlineCommandsAreTold: an inline command may be longer than the bytes by which a protocol is detected, its
// name may stand in quotes, and the server may have answered what came before it with an error. What is not told
// behind it is marked.
func TestLongInlineCommandsAreTold(t *testing.T) {
	value := strings.Repeat("v", 12_000)
	const wrong = "-ERR unknown command 'nonsense', with args beginning with: 'a' 'b' \r\n"
	names := []string{` "SET"`, `SET`, `"SET"`, `"\x53ET"`}
	if testing.Short() {
		names = names[:1]
	}
	for _, name := range names {
		for _, front := range []string{"", "nonsense a b\r\n", "\r\n\r\n", "!\r\n"} {
			answer := "+OK\r\n+OK\r\n"
			if strings.ContainsAny(front, "a!") {
				answer = wrong + answer
			}
			conversation := dialogue(6379, ">"+front+name+"\tdir \""+value+"\"\r\n", "<"+answer[:len(answer)-5], cronWrite, "<+OK\r\n")
			together := dialogue(6379, ">"+front+name+"\tdir \""+value+"\"\r\nCONFIG SET dir /x\r\n", "<"+answer)
			for _, size := range []int{1 << 20, 1000, 9000} {
				told(t, conversation.Cut(size), `redis.command="SET"`, `"dir"`, cronWriteEvent, cronWriteArgs)
				told(t, together.Cut(size), `redis.command="SET"`, `"dir"`)
				if front == "" {
					told(t, together.Cut(size), `redis.command="CONFIG SET"`)
				}
			}
		}
	}
}

// TestCommandsBehindALongLineAreTold: on a port that says nothing, the client's first line is as long as Redis takes it,
// and it sends commands behind it before the server answers.
func TestCommandsBehindALongLineAreTold(t *testing.T) {
	for _, size := range []int{12_000, 60_000} {
		value := strings.Repeat("v", size)
		commands := ">PING " + value + "\r\nGET k\r\n" + strings.TrimPrefix(cronWrite, ">")
		answers := fmt.Sprintf("<$%d\r\n%s\r\n$-1\r\n+OK\r\n", size, value)
		for _, cut := range []int{1 << 20, 1000, 9000} {
			told(t, dialogue(8379, commands, answers).Cut(cut), `redis.command="PING"`, `redis.args=["k"]`, cronWriteEvent, cronWriteArgs)
		}
	}
}

// TestErrorsBeforeALongLineInACapture: a client of a real Redis sent errors by the dozen before the first command, an
// inline command of 40 KiB, all before the first answer. Everything is told, with its own reply.
func TestErrorsBeforeALongLineInACapture(t *testing.T) {
	var text strings.Builder
	for _, event := range protocoltest.Capture(t, all.Protocols, "../collector/differential/testdata/redis_errors_before_a_long_line.pcap") {
		if r := event.Redis; r == nil || event.Partial || r.ReplyType == "" {
			t.Errorf("not a whole command with its reply: %s", shortened(protocoltest.Text(event)))
		} else if strings.HasPrefix(r.Error, "ERR unknown command") && !strings.Contains(strings.ToUpper(r.Error), "'"+r.Command+"'") {
			t.Errorf("the reply is that of another command: %s", protocoltest.Text(event))
		}
		text.WriteString(protocoltest.Text(event) + "\n")
	}
	for _, want := range []string{
		`redis.args=["m91x0q"`, `redis.command="NONSENSE"`, `redis.args=["m91x9q"`,
		`redis.command="QUIT" redis.reply_type="simple_string" redis.reply="OK"`,
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no event has %s; the events are\n%s", want, shortened(text.String()))
		}
	}
}

// TestCommandsBehindALongMultigetAreTold: memcached reads a get of any length, on any port, and the commands behind it. In
// pieces it looks like a request of HTTP with a long target, as Redis' GET does.
func TestCommandsBehindALongMultigetAreTold(t *testing.T) {
	for _, keys := range []int{800, 3000} {
		var line strings.Builder
		for i := range keys {
			fmt.Fprintf(&line, " key%06d", i)
		}
		commands := ">get" + line.String() + "\r\nget zz\r\nflush_all\r\n"
		for _, cut := range []int{1 << 20, 9000, 4500, 1000, 100} {
			t.Run(fmt.Sprint(keys, cut), func(t *testing.T) {
				if testing.Short() && cut == 100 {
					t.Skip("many pieces")
				}
				told(t, dialogue(8211, commands, "<END\r\nEND\r\nOK\r\n").Cut(cut), `memcached.command="get" memcached.key="key000000"`, `memcached.keys=["zz"]`, `memcached.command="flush_all"`)
			})
		}
	}
	inline := ">GET " + strings.Repeat("k", 20_000) + "\r\nGET k\r\n" + strings.TrimPrefix(cronWrite, ">")
	told(t, dialogue(8379, inline, "<$-1\r\n$-1\r\n+OK\r\n").Cut(3000), `redis.args=["k"]`, cronWriteEvent, cronWriteArgs)
}
