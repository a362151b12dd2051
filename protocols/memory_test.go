package protocols

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tidegate/pipeline"
)

// TestConnThatGivesUpGoesOnBehindIt: its unread bytes are dropped and counted, an event says so, and the parser continues
// with the next message that it recognises.
func TestConnThatGivesUpGoesOnBehindIt(t *testing.T) {
	var log []string
	reg := prometheus.NewRegistry()
	set, _ := toys(&log, reg)
	var events []*pipeline.Event
	conn := set.Open(Info{}, func(event *pipeline.Event) { events = append(events, event) })
	run(conn, ">hi\nunread", "<more", ">")
	conn.giveUp(3)
	if conn.held.Bytes() != connBytes+parserBytes || len(conn.streams[0].tail)+len(conn.streams[1].tail) != 0 {
		t.Errorf("%d bytes are held", conn.held.Bytes())
	}
	if conn.streams[0].offset != 9 || conn.streams[1].offset != 4 || !conn.Info().MidStream {
		t.Errorf("offsets %d and %d, in mid-stream %t", conn.streams[0].offset, conn.streams[1].offset, conn.Info().MidStream)
	}
	run(conn, ">rest\n#event\nevent\n", "<rest#b\n")
	conn.Close(9)
	if got := strings.Join(log, ", "); got != ">hi@0, close, >gap 5, >#event@0, >event@0, true false, <#b@1, close" {
		t.Error(got)
	}
	if len(events) != 2 || !slices.Contains(events[0].Tags, pipeline.TagMemoryLimit) || !events[0].Partial {
		t.Errorf("events %v", events)
	}
	if got := testutil.ToFloat64(set.metrics.dropped.WithLabelValues("toy", "memory_limit")); got != 10 {
		t.Errorf("%v bytes are counted", got)
	}
	if got := testutil.ToFloat64(set.metrics.anomalies.WithLabelValues("toy", "memory_limit")); got != 1 {
		t.Errorf("%v connections are counted", got)
	}

	// While the protocol is unknown nothing can be emitted; the bytes are dropped.
	conn = set.Open(Info{}, func(event *pipeline.Event) { t.Errorf("event %v", event) })
	run(conn, ">h")
	conn.giveUp(3)
	if conn.state != dropped || len(conn.streams[0].tail) != 0 || conn.held.Bytes() != connBytes+parserBytes {
		t.Errorf("state %d, %d bytes", conn.state, len(conn.streams[0].tail))
	}

	// A datagram stands alone: the next one is not searched for a message.
	log = nil
	for i := range set.list {
		set.list[i].UDP = true
	}
	conn = set.Open(Info{Transport: pipeline.Transport_UDP}, func(*pipeline.Event) {})
	conn.Datagram(Client, []byte("hi\n"), 1)
	conn.giveUp(2)
	conn.Datagram(Client, []byte("a\n"), 3)
	if got := strings.Join(log, ", "); !strings.HasSuffix(got, "close, >a@3") {
		t.Error(got)
	}
}

// A needyToy needs messages of eight bytes, and says so.
type needyToy struct {
	toy
	need int
}

func (p *needyToy) Parse(dir Dir, data []byte, at int64) (int, error) {
	if len(data) < 8 {
		p.calls++
		p.conn.Need(dir, p.need)
		return 0, nil
	}
	return p.toy.Parse(dir, data, at)
}

// TestParserIsCalledOnceItsNeedIsMet, and no later than at the longest tail.
func TestParserIsCalledOnceItsNeedIsMet(t *testing.T) {
	check := func(need, calls int, pieces ...string) {
		t.Helper()
		var log []string
		set, _ := toys(&log, nil)
		set.cfg.MaxUnparsedBytes = 8
		parser := &needyToy{toy: toy{log: &log}, need: need}
		set.list[0].New = func() Parser { return parser }
		conn := set.Open(Info{}, nil)
		run(conn, ">hi345678\n")
		parser.calls = 0
		run(conn, pieces...)
		if parser.calls != calls || log[len(log)-1] != ">12345678@0" {
			t.Errorf("a need of %d: %d calls, want %d: %q", need, parser.calls, calls, log)
		}
	}
	check(0, 7, ">1", ">2", ">3", ">4", ">5", ">6", ">78\n")
	check(8, 2, ">1", ">2", ">3", ">4", ">5", ">6", ">78\n")
	check(1000, 2, ">1", ">2", ">3", ">4", ">5", ">6", ">78\n")
}

// TestCutTextsKeepTheirEnds: three quarters of the limit are the head, one is the tail, and characters stay whole.
func TestCutTextsKeepTheirEnds(t *testing.T) {
	check := func(text string, limit int, want string, cut bool) {
		t.Helper()
		got, isCut := CutMiddle([]byte("x"), []byte(text), limit)
		if string(got) != "x"+want || isCut != cut {
			t.Errorf("%q to %d: %q, %t; want %q, %t", text, limit, got[1:], isCut, want, cut)
		}
	}
	check("", 8, "", false)
	check("abcdefgh", 8, "abcdefgh", false)
	check("abcdefghi", 8, "abcdef…hi", true)
	check("abcdeéghi", 8, "abcde…hi", true)
	check("abcdefgéi", 8, "abcdef…i", true)
	check("abc€€€€€€", 8, "abc€…", true)
	check("😀😀😀😀", 8, "😀…", true)
	check("\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80", 16, "\x80\x80\x80\x80\x80\x80\x80\x80\x80…\x80", true)
}

// TestPortOfAnotherProtocolDecidesNotAgainstAMessage: where neither side's bytes are certain, a whole message of a protocol
// that both may have is taken for it, if the server has answered or the port is known.
func TestPortOfAnotherProtocolDecidesNotAgainstAMessage(t *testing.T) {
	check := func(what string, port uint16, change func(c *Conn), want int) {
		t.Helper()
		var log []string
		set, _ := toys(&log, nil)
		set.list[1].Ports = []uint16{8}
		conn := set.Open(Info{Server: netip.AddrPortFrom(netip.Addr{}, port)}, nil)
		conn.streams[Client].tail, conn.streams[Server].tail = []byte("x#"), []byte("y")
		change(conn)
		if got := conn.wholeOnOtherPort(Client); got != want {
			t.Errorf("%s: %d, want %d", what, got, want)
		}
	}
	nothing := func(*Conn) {}
	check("another port", 9, nothing, 0)
	check("the port of a protocol that has a message", 7, nothing, noProtocol)
	check("mid-stream", 9, func(c *Conn) { c.midStream = true }, noProtocol)
	check("UDP", 9, func(c *Conn) { c.info.Transport = pipeline.Transport_UDP }, noProtocol)
	check("no candidate of both", 9, func(c *Conn) { c.candidates = [2]uint64{1, 2} }, noProtocol)
	check("one candidate of both", 9, func(c *Conn) { c.candidates = [2]uint64{3, 2} }, 1)
	check("no bytes of the client", 9, func(c *Conn) { c.streams[Client].tail = nil }, noProtocol)
	check("no message", 9, func(c *Conn) { c.streams[Client].tail = []byte("x") }, noProtocol)
	check("no answer", 9, func(c *Conn) { c.streams[Server].tail = nil }, noProtocol)
	check("no answer, a port that is no candidate's", 7, func(c *Conn) { c.streams[Server].tail, c.candidates = nil, [2]uint64{2, 2} }, noProtocol)
}
