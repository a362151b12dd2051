package protocols_test

import (
	"fmt"
	"strings"
	"testing"

	"tidegate/pipeline"
	"tidegate/protocols"
	"tidegate/protocols/all"
)

// TestNoNumberOfTurnsHidesACommand: Redis and memcached answer each line of nonsense with an error and read on, on any
// port, however many came before.
func TestNoNumberOfTurnsHidesACommand(t *testing.T) {
	const unknown, bad = "<-ERR unknown command 'x', with args beginning with: \r\n", "<ERROR\r\n"
	const store, storeEvent = ">set evilkey 0 0 2\r\nhi\r\n", `memcached.key="evilkey"`
	const request, response = ">GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", "<HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
	for _, junk := range []string{"\x01\r\n", "!\r\n", "xyz\r\n", "SSH-2.0-x\r\n"} {
		for _, turns := range []int{1, 15, 31, 32, 33, 47, 63, 64, 65, 100} {
			t.Run(fmt.Sprintf("%q %d", junk, turns), func(t *testing.T) {
				told(t, dialogue(7000, append(repeated(turns, ">"+junk, unknown), cronWrite, "<+OK\r\n")...), cronWriteEvent, cronWriteArgs)
				told(t, dialogue(11222, append(repeated(turns, ">"+junk, bad), store, "<STORED\r\n")...), storeEvent)
				told(t, dialogue(11222, append(repeated(turns, ">"+junk, bad), ">"+junk+store[1:], bad+"STORED\r\n")...), storeEvent)
				// Behind bytes of no protocol at all.
				lines := repeated(max(turns, 2), ">"+junk, "<\x00\x01\x02what\r\n")
				told(t, dialogue(7000, append(lines, cronWrite, "<+OK\r\n")...), cronWriteEvent, cronWriteArgs)
				told(t, dialogue(9000, append(lines, request, response)...), `url.original="/../../etc/passwd"`)
			})
		}
	}
}

// TestCommandsOnAPortOfAnotherProtocol: the bytes decide, also one byte a segment.
func TestCommandsOnAPortOfAnotherProtocol(t *testing.T) {
	const inline, store = ">CONFIG SET dbfilename evil\r\n", ">set evilkey 0 0 2\r\nhi\r\n"
	for _, protocol := range all.Protocols {
		for _, port := range protocol.Ports {
			t.Run(fmt.Sprint(protocol.Name, port), func(t *testing.T) {
				commands := map[string][]string{
					cronWriteArgs:                      {cronWrite, "<+OK\r\n"},
					`redis.args=["dbfilename" "evil"]`: {inline, "<+OK\r\n"},
					`memcached.key="evilkey"`:          {store, "<STORED\r\n", ">get evilkey\r\n", "<END\r\n"},
					`url.original="/../etc/passwd"`:    {">GET /../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", "<HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
				}
				for want, lines := range commands {
					told(t, dialogue(port, lines...), want)
					if strings.HasPrefix(want, "url") {
						continue
					}
					first := []string{">nonsense\r\n", "<-ERR unknown command 'nonsense', with args beginning with: \r\n"}
					if strings.HasPrefix(want, "memcached") {
						first[1] = "<ERROR\r\n"
					}
					told(t, dialogue(port, append(first, lines...)...), want)
					told(t, dialogue(port, append(lines, lines...)...), want)
				}
			})
		}
	}
}

// BenchmarkUnknownTurns has turns of a protocol that is not known.
func BenchmarkUnknownTurns(b *testing.B) {
	for name, lines := range map[string][]string{
		"text":   {">what is this\r\n", "<no idea\r\n"},
		"binary": {">Q\x00\x00\x00\x2aSELECT name FROM customers WHERE id = 1\x00", "<T\x00\x00\x00\x1d\x00\x01name\x00\x00\x00\x40\x00\x00\x02C\x00\x00\x00\x0dSELECT 1\x00Z\x00\x00\x00\x05I"},
	} {
		b.Run(name, func(b *testing.B) {
			conversation := dialogue(5432, lines...)
			conn := protocols.NewSet(all.Protocols, protocols.Default(), nil).Open(conversation.Info(), func(*pipeline.Event) {})
			b.ReportAllocs()
			for b.Loop() {
				for _, step := range conversation.Steps {
					conn.Data(step.Dir, step.Data, 1)
				}
			}
		})
	}
}
