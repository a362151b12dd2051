package protocols

import (
	"strings"
	"testing"
)

// TestHeldBeginningIsExtended by what follows it of the client, up to its bound, until the server answers.
func TestHeldBeginningIsExtended(t *testing.T) {
	check := func(what string, change func(c *Conn), dir Dir, data, want string) {
		t.Helper()
		conn := openToy(t)
		conn.state = dropped
		conn.beginning = beginning{bytes: []byte("abc"), from: 10}
		conn.streams[Client].offset = 13
		change(conn)
		conn.extendBeginning(dir, []byte(data))
		if got := string(conn.beginning.bytes); got != want {
			t.Errorf("%s: %d bytes are held, want %d", what, len(got), len(want))
		}
	}
	nothing := func(*Conn) {}
	check("what follows", nothing, Client, "de", "abcde")
	check("bytes of the server", func(c *Conn) { c.streams[Server].offset = 0 }, Server, "de", "abc")
	check("behind an answer", func(c *Conn) { c.streams[Server].offset = 1 }, Client, "de", "abc")
	check("behind a gap", func(c *Conn) { c.streams[Client].offset = 14 }, Client, "de", "abc")
	check("nothing is held", func(c *Conn) { c.beginning = beginning{}; c.streams[Client].offset = 0 }, Client, "de", "")
	check("too much", nothing, Client, strings.Repeat("x", maxBeginning), "abc"+strings.Repeat("x", maxBeginning-3))
	check("the roles are exchanged", func(c *Conn) { c.flip, c.streams[Server].offset, c.streams[Client].offset = 1, 13, 0 }, Server, "de", "abcde")
}
