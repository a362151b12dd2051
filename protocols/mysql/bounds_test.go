package mysql

import (
	"slices"
	"strings"
	"testing"

	"tidegate/pipeline"
	"tidegate/protocols"
)

// A countingParser counts the calls of Parse.
type countingParser struct {
	parser
	calls int
}

func (p *countingParser) Parse(dir protocols.Dir, data []byte, at int64) (int, error) {
	p.calls++
	return p.parser.Parse(dir, data, at)
}

// TestParserWaitsForItsPacket: it is called for the bytes that it needs, not for each one that comes.
func TestParserWaitsForItsPacket(t *testing.T) {
	check := func(dir protocols.Dir, packet string, want int) {
		t.Helper()
		p := &countingParser{}
		protocol := Protocol
		protocol.New = func() protocols.Parser { return p }
		set := protocols.NewSet([]protocols.Protocol{protocol}, protocols.Default(), nil)
		conn := set.Open(protocols.Info{}, func(*pipeline.Event) {})
		for _, step := range session(modern, fromClient(query("SELECT 1"))) {
			conn.Data(step.Dir, step.Data, 1)
		}
		p.calls = 0
		for i := range len(packet) {
			conn.Data(dir, []byte(packet[i:i+1]), 2)
		}
		if p.calls != want {
			t.Errorf("%d calls for a packet of %d bytes that come one by one, want %d", p.calls, len(packet), want)
		}
	}
	check(protocols.Client, query("SELECT 2"), 4)         // without a header, with it, with the first byte, whole
	check(protocols.Server, okReply(1, 0, 0, 0, 2, 0), 4) // the same
	check(protocols.Client, pkt(0, ""), 2)                // a header and nothing else
	check(protocols.Client, query(strings.Repeat("x", 100)), 4)
}

// TestEveryFrontMayBecomeAPacket, and none is read beyond its end.
func TestEveryFrontMayBecomeAPacket(t *testing.T) {
	streams := [2]string{
		protocols.Client: query("SELECT 1") + pkt(0, "\x0e") + pkt(0, "\x0e") + query("SELECT 2"),
		protocols.Server: pkt(1, "\x01") + pkt(2, column) + pkt(3, "\x01x") + okReply(4, 0xfe, 0, 0, 2, 0),
	}
	for dir, stream := range streams {
		for from := range len(stream) {
			for to := from; to <= len(stream); to++ {
				data := slices.Clip([]byte(stream[from:to]))
				if read, match := resync(protocols.Dir(dir), data); read > len(data) || match == protocols.Yes && read == len(data) {
					t.Errorf("direction %d, %d to %d: %d, %d", dir, from, to, read, match)
				}
				if match := detect(protocols.Dir(dir), data); from == 0 && dir == 0 && match == protocols.No {
					t.Errorf("the first %d bytes are no command", to)
				}
			}
		}
	}
	for dir := range protocols.Dir(2) { // a greeting is one on whatever side
		if match := detect(dir, []byte(greeting("8.0.36", modern))); match != protocols.Yes {
			t.Errorf("a greeting from side %d: %d", dir, match)
		}
	}
	for size, want := range map[int]protocols.Match{1024: protocols.Yes, 1025: protocols.No} {
		whole := greeting("8.0.36", modern)[4:]
		if got := detect(protocols.Server, []byte(pkt(0, whole+strings.Repeat("x", size-len(whole))))); got != want {
			t.Errorf("a greeting of %d bytes: %d", size, got)
		}
	}
}
