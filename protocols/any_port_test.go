package protocols_test

import (
	"strings"
	"testing"
)

// TestNonsenseHidesNoCommandOnAnyPort: Redis and memcached answer a line of nonsense, or of another protocol, with an
// error and read on. 7000 is the port of the documentation of Redis Cluster; memcached may run anywhere, too.
func TestNonsenseHidesNoCommandOnAnyPort(t *testing.T) {
	firsts := []string{
		"stats\r\n", "version\r\n", "watch a\r\n", "mn\r\n", "mg a q\r\n", "quitx\r\n", "shutdown x y\r\n", "SSH-2.0-x\r\n", "EHLO x\r\n",
		"+PONG\r\n", ":1\r\n", "-ERR x\r\n", "set k 0 0 100000\r\n", "ms a 100000\r\n", "GET /x HTTP/1.1\r\n\r\n", "GET /x\r\n\r\n",
		"PUT /x HTTP/1.1\r\nContent-Length: 100000\r\n\r\n", "CONNECT a:1 HTTP/1.1\r\n\r\n", "ping\r\n", "PSYNC ? -1\r\n", "xyz\r\n",
		strings.Repeat("z", 5000) + "\r\n", "\x80\x01" + strings.Repeat("\x00", 22) + "\r\n", // the last: memcached's binary protocol
	}
	const unknown, bad = "<-ERR unknown command 'x', with args beginning with: \r\n", "<ERROR\r\n"
	const store, inline = ">set evilkey 0 0 2\r\nhi\r\n", ">CONFIG SET dbfilename evil\r\n"
	const inlineEvent, storeEvent = `redis.args=["dbfilename" "evil"]`, `memcached.key="evilkey"`
	for _, first := range firsts {
		t.Run(shortened(first), func(t *testing.T) {
			lines := 1 + strings.Count(strings.TrimRight(first, "\r\n"), "\n")
			errors, noes := "<"+strings.Repeat(unknown[1:], lines), "<"+strings.Repeat(bad[1:], lines)
			// One after the other, and all at once before the first answer.
			for _, port := range []uint16{7000, 5000, 6379} { // of none, of HTTP, of Redis
				told(t, dialogue(port, ">"+first, errors, cronWrite, "<+OK\r\n"), cronWriteEvent, cronWriteArgs)
			}
			told(t, dialogue(7000, ">"+first, errors, inline, "<+OK\r\n"), inlineEvent)
			told(t, dialogue(7000, ">"+first+cronWrite[1:], errors+"+OK\r\n"), cronWriteEvent, cronWriteArgs)
			told(t, dialogue(7000, ">"+first+cronWrite[1:], errors, "<+OK\r\n", inline, "<+OK\r\n"), cronWriteArgs, inlineEvent)
			told(t, dialogue(7000, ">"+first, cronWrite, errors+"+OK\r\n"), cronWriteEvent, cronWriteArgs)

			if strings.HasSuffix(first, "100000\r\n") {
				return // memcached waits for the data
			}
			told(t, dialogue(11222, ">"+first, noes, store, "<STORED\r\n"), storeEvent)
			told(t, dialogue(11222, ">"+first+store[1:], noes+"STORED\r\n"), storeEvent)
			told(t, dialogue(11222, ">"+first, noes, ">get evilkey\r\n", "<END\r\n"), storeEvent)
		})
	}
}
