package http

import (
	"slices"
	"strings"
	"testing"

	"tidegate/protocols"
	"tidegate/protocols/protocoltest"
)

// TestTunnelsInOnePieceAreAllRead, however many there are: each hands the connection on, and the rest of the piece is
// read as if it came in small ones.
func TestTunnelsInOnePieceAreAllRead(t *testing.T) {
	check := func(client, server string, events int) {
		t.Helper()
		for _, count := range []int{1, 9, 25, 500} {
			conversation := protocoltest.Conversation{Port: 80, Steps: []protocoltest.Step{
				{Dir: protocols.Client, Data: []byte(strings.Repeat(client, count)), At: 1},
				{Dir: protocols.Server, Data: []byte(strings.Repeat(server, count)), At: 2},
			}}
			whole, _ := conversation.PlayOn(protocols.NewSet(list, protocols.Default(), nil))
			cut, _ := conversation.Cut(2).PlayOn(protocols.NewSet(list, protocols.Default(), nil))
			if len(whole) != events*count || !slices.Equal(whole, cut) {
				t.Errorf("%d tunnels: %d events in one piece and %d in small ones, want %d", count, len(whole), len(cut), events*count)
			}
		}
	}
	check("CONNECT a:1 HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n", 1)
	check("CONNECT HTTP/1.\n\n0 / HTTP/1.0\n\n", "HTTP/A00 200A000\n\r\nHTTP/0 101A00\n\rY", 2)
}
