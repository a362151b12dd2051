package http

import "testing"

// TestHTTPBehindTheMessagesOfAProxyIsFound, whichever side opened the connection.
func TestHTTPBehindTheMessagesOfAProxyIsFound(t *testing.T) {
	same(t, play(false, short, ">\x05\x01\x00", "<\x05\x00", ">\x05\x01\x00\x01\x0a\x00\x00\x01\x00\x50", "<\x05\x00\x00\x01\x0a\x00\x00\x01\x00\x50",
		in(get), out(ok5), in(getB), out(empty)), "GET /a 200 0/5", "GET /b 204")
	same(t, play(false, short, "<"+in(get)[1:], ">"+out(ok5)[1:]), "GET /a 200 0/5")

	// A request behind other bytes of the client is found once a response is recognised, however many turns came before.
	same(t, play(false, short, ">\x05\x01\x00", in(get), out(ok5)), "GET /a 200 0/5 partial")
	steps := []string{}
	for range 100 {
		steps = append(steps, ">\x05\x01", "<\x05\x01")
	}
	same(t, play(false, short, append(steps, in(get), out(ok5))...), "GET /a 200 0/5")
}
