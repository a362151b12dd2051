package protocols

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tidegate/pipeline"
)

// openOn returns a connection of the toys to a port. Theirs are 7 (toy) and 8 (other).
func openOn(port uint16, change func(set *Set)) *Conn {
	set, _ := toys(new([]string), nil)
	set.list[1].Ports = []uint16{8}
	if change != nil {
		change(set)
	}
	return set.Open(Info{Server: netip.AddrPortFrom(netip.MustParseAddr("10.0.0.2"), port)}, func(*pipeline.Event) {})
}

// TestPortIsThatOfAProtocolOfTheSet.
func TestPortIsThatOfAProtocolOfTheSet(t *testing.T) {
	for port, want := range map[uint16]uint64{7: 1, 8: 2, 9: 0} {
		conn := openOn(port, nil)
		if conn.hasKnownPort() != (want != 0) {
			t.Errorf("port %d is known: %t", port, conn.hasKnownPort())
		}
		for set := range uint64(4) {
			if got := conn.anyHasPort(set); got != (set&want != 0) {
				t.Errorf("port %d is one of %b: %t", port, set, got)
			}
		}
	}
}

// TestUnansweredClientIsLookedAtAgain on a port of a protocol, as long as the server has sent nothing.
func TestUnansweredClientIsLookedAtAgain(t *testing.T) {
	check := func(what string, port uint16, want bool, change func(c *Conn)) {
		t.Helper()
		conn := openOn(port, nil)
		conn.undetected = true
		change(conn)
		if got := conn.isUnanswered(Client); got != want {
			t.Errorf("%s: %t", what, got)
		}
		if conn.isUnanswered(Server) && conn.flip == 0 {
			t.Errorf("%s: a server is unanswered", what)
		}
	}
	check("nothing sent", 7, true, func(*Conn) {})
	check("another port", 9, false, func(*Conn) {})
	check("a protocol was recognised", 7, false, func(c *Conn) { c.undetected = false })
	check("the server has sent", 7, false, func(c *Conn) { c.streams[Server].offset = 1 })
	check("the server has sent what is not read", 7, false, func(c *Conn) { c.streams[Server].tail = []byte("x") })
	check("the client has sent", 7, true, func(c *Conn) { c.streams[Client].offset, c.streams[Client].tail = 1, []byte("x") })
	check("the roles are exchanged", 7, false, func(c *Conn) { c.flip = 1 })
}

// A truncatedToy reads truncated messages.
type truncatedToy struct{ toy }

func (p *truncatedToy) ParseTruncated(dir Dir, data []byte, at int64) {
	p.logf("%struncated %s@%d", side(dir), data, at)
}

// TestTruncatedMessageIsReadOnItsPort, if it is long enough to be evidence and its parser can read it.
func TestTruncatedMessageIsReadOnItsPort(t *testing.T) {
	truncated := func(set *Set) {
		for i := range set.list {
			log := new([]string)
			set.list[i].New = func() Parser { return &truncatedToy{toy{log: log}} }
		}
	}
	check := func(what string, port uint16, want int, change func(set *Set), state func(c *Conn)) {
		t.Helper()
		conn := openOn(port, change)
		conn.streams[Client].tail = []byte("12345")
		state(conn)
		if got := conn.truncatedCandidate(Client); got != want {
			t.Errorf("%s: %d, want %d", what, got, want)
		}
	}
	nothing := func(*Conn) {}
	check("its port", 7, 0, truncated, nothing)
	check("the other port", 8, 1, truncated, nothing)
	check("no port", 9, noProtocol, truncated, nothing)
	check("a parser that cannot", 7, noProtocol, nil, nothing)
	check("no candidate", 7, noProtocol, truncated, func(c *Conn) { c.candidates[Client] = 2 })
	check("no candidate of the server", 7, 0, truncated, func(c *Conn) { c.candidates[Server] = 0 })
	check("four bytes", 7, noProtocol, truncated, func(c *Conn) { c.streams[Client].tail = []byte("1234") })
	check("in mid-stream", 7, noProtocol, truncated, func(c *Conn) { c.midStream = true })
	conn := openOn(7, truncated)
	conn.truncatedCandidate(Client)
	conn.streams[Client].tail = []byte("12345")
	if conn.truncatedCandidate(Client); len(conn.set.freeParsers[0]) != 1 {
		t.Errorf("%d parsers are free", len(conn.set.freeParsers[0]))
	}

	// A parser that runs already: the front of a message before a gap, if its position is known.
	log := new([]string)
	conn = openOn(7, func(set *Set) { set.list[0].New = func() Parser { return &truncatedToy{toy{log: log}} } })
	run(conn, ">hi\n", "<x\n", ">front", "> gap 9", "> gap 9", ">#a\nskip 8\nabc", "> gap 9")
	want := ">hi@0, <x@1, >truncated front@2, >gap 14, >gap 9, >#a@5, >skip 8@5, >gap 9"
	if got := strings.Join(*log, ", "); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestLineThatHasBegunIsWaitedFor, if it may be one of a protocol that the server's answer matches.
func TestLineThatHasBegunIsWaitedFor(t *testing.T) {
	check := func(what string, want bool, client, server string, change func(c *Conn)) {
		t.Helper()
		conn := openOn(9, nil)
		conn.streams[Client].tail, conn.streams[Server].tail = []byte(client), []byte(server)
		change(conn)
		if got := conn.endsWithinLine(Client); got != want {
			t.Errorf("%s: %t", what, got)
		}
	}
	nothing := func(*Conn) {}
	check("a line that has begun", true, "nonsense\nh", "error", nothing)
	check("the only line", false, "h", "error", nothing)
	check("whole lines", false, "nonsense\n", "error", nothing)
	check("another line", false, "nonsense\nx", "error", nothing)
	check("a line that is certain", false, "nonsense\nhi", "error", nothing)
	check("a short answer", false, "nonsense\nh", "erro", nothing)
	check("an answer of no protocol", false, "nonsense\nh", "error", func(c *Conn) { c.candidates[Server] = 0 })
	check("an answer of the other protocol", false, "nonsense\nh", "error", func(c *Conn) { c.candidates[Server] = 2 })
	check("a protocol of datagrams", false, "nonsense\nh", "error", func(c *Conn) { c.set.list[0].TCP = false })
	more := func(c *Conn) {
		c.set.list[0].Detect = func(_ Dir, data []byte) Match { return Match(1 - bytes.Count(data, []byte("\n"))) }
	}
	check("as long as one may be", true, "nonsense\n"+strings.Repeat("h", maxUnfinished), "error", more)
	check("longer", false, "nonsense\n"+strings.Repeat("h", maxUnfinished+1), "error", more)
}

// TestAnswerIsThatOfTheCandidates of this detection, or else of the first answer.
func TestAnswerIsThatOfTheCandidates(t *testing.T) {
	conn := openOn(9, nil)
	conn.candidates[Server], conn.answeredAs = 1, 2
	check := func(want [2]bool) {
		t.Helper()
		if got := [2]bool{conn.hasAnsweredAs(Server, 0), conn.hasAnsweredAs(Server, 1)}; got != want {
			t.Errorf("%v, want %v", got, want)
		}
	}
	check([2]bool{false, true})
	conn.streams[Server].tail = []byte("x")
	check([2]bool{true, false})
}

// TestFirstAnswerRefutesProtocols; five bytes of it say which ones it may be of.
func TestFirstAnswerRefutesProtocols(t *testing.T) {
	check := func(what string, refuted, answeredAs uint64, change func(c *Conn)) {
		t.Helper()
		conn := openOn(9, nil)
		conn.candidates[Server] = 2
		conn.streams[Server].tail = []byte("12345")
		change(conn)
		conn.refuteByAnswer(Server)
		if conn.refuted&3 != refuted || conn.answeredAs != answeredAs {
			t.Errorf("%s: %b are refuted, %b may be answered", what, conn.refuted&3, conn.answeredAs)
		}
	}
	check("five bytes", 1, 2, func(*Conn) {})
	check("four bytes", 1, 0, func(c *Conn) { c.streams[Server].tail = []byte("1234") })
	check("none", 0, 0, func(c *Conn) { c.streams[Server].tail = nil })
	check("not the first ones", 0, 0, func(c *Conn) { c.streams[Server].offset = 1 })
}

// TestMessageWithinTheClientsBytesDecides: of the protocol of the port, or of one that the server may have answered as.
func TestMessageWithinTheClientsBytesDecides(t *testing.T) {
	check := func(what string, port uint16, byPort bool, want int, change func(c *Conn)) {
		t.Helper()
		conn := openOn(port, nil)
		conn.streams[Client].tail, conn.streams[Server].tail = []byte("x#"), []byte("error")
		change(conn)
		if got := conn.syncedProtocol(Client, byPort); got != want {
			t.Errorf("%s: %d, want %d", what, got, want)
		}
	}
	nothing := func(*Conn) {}
	none := func(c *Conn) { c.streams[Client].tail = []byte("x") }
	check("by the port", 8, true, 1, nothing)
	check("by no port", 9, true, noProtocol, nothing)
	check("by the port, no message", 8, true, noProtocol, none)
	check("by the port, refuted", 8, true, noProtocol, func(c *Conn) { c.refuted = 2 })
	check("by the port, of datagrams", 8, true, noProtocol, func(c *Conn) { c.set.list[1].TCP = false })
	check("by the answer", 9, false, 0, nothing)
	check("by the answer, the other protocol", 9, false, 1, func(c *Conn) { c.candidates[Server] = 2 })
	check("by the answer, none", 7, false, noProtocol, func(c *Conn) { c.candidates[Server] = 0 })
	check("by the answer, refuted", 9, false, 1, func(c *Conn) { c.refuted = 1 })
	held := func(c *Conn) { none(c); c.beginning.bytes = []byte("held #") }
	check("by the answer, in what is held", 9, false, 0, held)
	check("by the port, in what is held", 7, true, noProtocol, held)
	atEnd := func(c *Conn) { // a Sync that finds a start behind the last byte has found none
		c.set.list[0].Sync = func(_ Dir, data []byte) (int, Match) { return len(data), Yes }
	}
	check("a start behind the last byte", 7, true, noProtocol, atEnd)

	// Whether the answer may decide.
	bySync := func(what string, want bool, change func(c *Conn)) {
		t.Helper()
		conn := openOn(9, nil)
		conn.streams[Client].appendTail(conn.set, []byte("x#\n"), 1)
		conn.pieces = []piece{{dir: Client, size: 3, at: 1}}
		change(conn)
		if got := conn.selectBySync(Client); got != want || (conn.state == parsing) != want {
			t.Errorf("%s: %t, state %d", what, got, conn.state)
		}
	}
	bySync("no answer", false, nothing)
	bySync("an answer", true, func(c *Conn) { c.streams[Server].tail = []byte("error") })
	bySync("an answer in mid-stream", false, func(c *Conn) { c.midStream, c.streams[Server].tail = true, []byte("error") })
	bySync("an answer before", true, func(c *Conn) { c.answeredAs = 1 })
	bySync("a datagram", false, func(c *Conn) { c.answeredAs, c.info.Transport = 1, pipeline.Transport_UDP })
	for _, what := range []string{"first bytes", "later bytes", "later bytes behind a beginning", "mid-stream"} {
		conn := openOn(7, nil)
		conn.streams[Client].appendTail(conn.set, []byte("x#\n"), 1)
		conn.pieces = []piece{{dir: Client, size: 3, at: 1}}
		want := true
		switch what {
		case "first bytes":
			want = false
		case "later bytes":
			conn.redetects = 1
		case "later bytes behind a beginning":
			conn.redetects, conn.beginning = 1, beginning{bytes: []byte("x\n")}
			conn.streams[Client].offset = 2
			want = false
		default:
			conn.midStream = true
		}
		log := conn.set.list[0].New().(*toy).log
		conn.selectBySync(Client)
		if got := slices.Contains(*log, ">#@1"); got != want {
			t.Errorf("%s: the position is lost: %t, %q", what, got, *log)
		}
	}
}

// TestOneMessageOfAClientIsOneOfItsProtocol, by DetectWhole of a candidate.
func TestOneMessageOfAClientIsOneOfItsProtocol(t *testing.T) {
	check := func(what string, want int, change func(c *Conn)) {
		t.Helper()
		conn := openOn(9, func(set *Set) { set.list[1].DetectWhole = func(data []byte) bool { return string(data) == "whole" } })
		conn.streams[Client].tail = []byte("whole")
		change(conn)
		if got := conn.wholeMessage(); got != want {
			t.Errorf("%s: %d, want %d", what, got, want)
		}
	}
	check("a message", 1, func(*Conn) {})
	check("another", noProtocol, func(c *Conn) { c.streams[Client].tail = []byte("x") })
	check("none", noProtocol, func(c *Conn) { c.streams[Client].tail = nil })
	check("no candidate", noProtocol, func(c *Conn) { c.candidates[Client] = 1 })
	check("mid-stream", noProtocol, func(c *Conn) { c.midStream = true })
	check("exchanged roles", noProtocol, func(c *Conn) { c.flip = 1 })
}

// TestTurnsOfAnUnknownProtocolAreMatched by their first bytes, behind many of them; in mid-stream some are searched.
func TestTurnsOfAnUnknownProtocolAreMatched(t *testing.T) {
	check := func(what string, dir Dir, data string, want bool, change func(c *Conn)) {
		t.Helper()
		conn := openOn(9, func(set *Set) {
			for i := range set.list {
				detect := set.list[i].Detect
				set.list[i].Detect = func(dir Dir, data []byte) Match {
					if dir == Server {
						return No
					}
					return detect(dir, data)
				}
			}
		})
		conn.redetects, conn.undetected, conn.state = maxRedetects, true, dropped
		change(conn)
		if got := conn.redetect(dir, []byte(data)); got != want || (conn.state == detecting) != want || conn.undetected == want {
			t.Errorf("%s: %t, state %d", what, got, conn.state)
		}
	}
	nothing := func(*Conn) {}
	check("a message", Client, "hi", true, nothing)
	check("the front of a message", Client, "h", true, nothing)
	check("other bytes", Client, "x", false, nothing)
	check("a protocol of datagrams", Client, "h", false, func(c *Conn) { c.set.list[0].TCP = false })
	check("a request of a server", Server, "hi", false, nothing)
	check("a request of a server, nested", Server, "hi", true, func(c *Conn) { c.set.list[0].Nested = true })
	check("the front of a request of a server, nested", Server, "h", false, func(c *Conn) { c.set.list[0].Nested = true })
	check("other bytes, few turns", Client, "x", true, func(c *Conn) { c.redetects-- })
	check("other bytes on a port", Client, "x", true, func(c *Conn) { c.set.list[1].Ports = []uint16{9} })
	check("other bytes in mid-stream", Client, "x", false, func(c *Conn) { c.midStream = true })
	interval := func(c *Conn) { c.redetects = redetectInterval - 1 }
	check("other bytes at an interval", Client, "x", false, interval)
	check("other bytes in mid-stream at an interval", Client, "x", true, func(c *Conn) { interval(c); c.midStream = true })
	if conn := openOn(9, nil); conn.redetect(Client, []byte("hi")) || conn.redetects != 0 {
		t.Error("a connection that is not dropped is detected again")
	}

	conn := openOn(9, func(set *Set) { set.cfg.ResyncBytes = 1000 })
	conn.undetected, conn.midStream = true, true
	if conn.redetect(Client, nil); conn.searched != 1000-64 || conn.redetects != 1 {
		t.Errorf("%d bytes count as searched, %d turns", conn.searched, conn.redetects)
	}
}

// TestMidStreamIsSearchedUpToItsBound, or until both sides have ended.
func TestMidStreamIsSearchedUpToItsBound(t *testing.T) {
	check := func(what string, detects bool, searched int, change func(c *Conn)) {
		t.Helper()
		conn := openOn(9, func(set *Set) { set.cfg.ResyncBytes = 100 })
		conn.midStream, conn.candidates = true, [2]uint64{}
		conn.streams[Client].tail, conn.streams[Server].tail = []byte("client"), []byte("server bytes")
		conn.pieces = []piece{{dir: Client, size: 6}, {dir: Server, size: 12}}
		change(conn)
		conn.discardMidStream()
		if (conn.state == detecting) != detects || conn.searched != searched || len(conn.pieces) > 0 {
			t.Errorf("%s: state %d, %d bytes are searched, %d pieces", what, conn.state, conn.searched, len(conn.pieces))
		}
		if conn.streams[Client].offset != 6 || conn.streams[Server].offset != 12 || conn.streams[Client].tail != nil || !conn.streams[Client].partial {
			t.Errorf("%s: offsets %d and %d", what, conn.streams[Client].offset, conn.streams[Server].offset)
		}
		if detects && conn.candidates != [2]uint64{3, 3} {
			t.Errorf("%s: candidates %b", what, conn.candidates)
		}
	}
	check("few bytes", true, 18, func(*Conn) {})
	check("more", true, 99, func(c *Conn) { c.searched = 81 })
	check("enough", false, 100, func(c *Conn) { c.searched = 82 })
	check("one side has ended", true, 18, func(c *Conn) { c.streams[Client].ended = true })
	check("both sides have ended", false, 18, func(c *Conn) { c.streams[Client].ended, c.streams[Server].ended = true, true })
}

// TestGapBeforeTheProtocolIsKnown makes a connection one of mid-stream. The bytes of its side are dropped.
func TestGapBeforeTheProtocolIsKnown(t *testing.T) {
	conn := openOn(9, nil)
	conn.bufferData(Client, []byte("h"), 1)
	conn.detectGap(Client, 10)
	if len(conn.pieces) != 0 || conn.streams[Client].offset != 11 || !conn.streams[Client].partial || !conn.midStream || !conn.Info().MidStream {
		t.Errorf("%v, offset %d", conn.pieces, conn.streams[Client].offset)
	}
	conn = openOn(9, nil)
	conn.bufferData(Client, []byte("h"), 1)
	conn.End(Client, 2)
	conn.bufferData(Server, []byte("h"), 3)
	conn.detectGap(Client, 10)
	if want := []piece{{dir: Client, end: true, at: 2}, {dir: Server, size: 1, at: 3}, {dir: Client, gap: true}}; !slices.Equal(conn.pieces, want) {
		t.Errorf("%v", conn.pieces)
	}
	check(t, steps("<h", "> gap 5", "<i\n", ">#a\n"), ">gap 1", "<hi@0", ">#a@3", "close")
}

// TestDatagramIsMatchedByItsBytesAndItsPorts.
func TestDatagramIsMatchedByItsBytesAndItsPorts(t *testing.T) {
	check := func(what, data string, clientPort, serverPort uint16, want int, change func(c *Conn)) {
		t.Helper()
		set, _ := toys(new([]string), nil)
		set.list[1].Ports = []uint16{8}
		for i := range set.list {
			set.list[i].UDP = true
		}
		addr := netip.MustParseAddr("10.0.0.1")
		conn := set.Open(Info{
			Transport: pipeline.Transport_UDP, Client: netip.AddrPortFrom(addr, clientPort), Server: netip.AddrPortFrom(addr, serverPort),
		}, nil)
		change(conn)
		if got := conn.matchDatagram(Client, []byte(data)); got != want {
			t.Errorf("%s: %d, want %d", what, got, want)
		}
	}
	nothing := func(*Conn) {}
	sure := func(c *Conn) { // of both protocols
		for i := range c.set.list {
			c.set.list[i].Detect = func(Dir, []byte) Match { return Yes }
		}
	}
	unsure := func(c *Conn) {
		for i := range c.set.list {
			c.set.list[i].Detect = func(Dir, []byte) Match { return More }
		}
	}
	check("a message", "yo", 1, 9, 1, nothing)
	check("no message", "xx", 1, 7, noProtocol, nothing)
	check("the front of a message", "y", 1, 9, noProtocol, nothing)
	check("the front of a message on its port", "y", 1, 8, 1, nothing)
	check("the front of a message from its port", "y", 8, 1, 1, nothing)
	check("the front of a message on another port", "y", 1, 7, noProtocol, nothing)
	check("a message on another port", "yo", 1, 7, 1, nothing)
	check("no candidate", "yo", 1, 8, noProtocol, func(c *Conn) { c.candidates[Client] = 1 })
	check("two that match", "", 1, 9, 0, sure)
	check("two that match, by the port", "", 1, 8, 1, sure)
	check("two that may match, by the port", "", 1, 8, 1, unsure)
	check("two that may match, by both ports", "", 8, 7, 0, unsure)
	check("two that may match, by no port", "", 1, 9, noProtocol, unsure)
}

// TestUnknownDatagramsAreCountedOnce for each direction.
func TestUnknownDatagramsAreCountedOnce(t *testing.T) {
	reg := prometheus.NewRegistry()
	set, _ := toys(new([]string), reg)
	conn := set.Open(Info{Transport: pipeline.Transport_UDP}, nil)
	for i := range 2 * maxUnrecognised {
		want := 0
		if i >= maxUnrecognised {
			want = 1
		}
		if got := testutil.ToFloat64(set.metrics.undetected); got != float64(want) {
			t.Errorf("behind %d datagrams %v are counted", i, got)
		}
		conn.Datagram(Client, []byte("x"), 1)
	}
	for range maxUnrecognised {
		conn.Datagram(Server, []byte("x"), 1)
	}
	if got := testutil.ToFloat64(set.metrics.undetected); got != 2 || conn.streams[Client].offset != 2*maxUnrecognised {
		t.Errorf("%v are counted, %d bytes", got, conn.streams[Client].offset)
	}
}

// TestCandidatesAreThoseOfTheTransportAndThePort.
func TestCandidatesAreThoseOfTheTransportAndThePort(t *testing.T) {
	check := func(port uint16, udp bool, left, want uint64) {
		t.Helper()
		set, _ := toys(new([]string), nil)
		set.list = append(set.list, Protocol{UDP: true, Exclude: func(server netip.AddrPort) bool { return server.Port() < 7 }})
		conn := &Conn{set: set, left: left, searched: 9, proto: 1, state: dropped}
		conn.info.Server = netip.AddrPortFrom(netip.Addr{}, port)
		if conn.info.Transport = pipeline.Transport_TCP; udp {
			conn.info.Transport = pipeline.Transport_UDP
		}
		conn.startDetection()
		if conn.candidates != [2]uint64{want, want} || conn.searched != 0 || conn.proto != noProtocol || conn.state != detecting {
			t.Errorf("port %d, UDP %t: %b, want %b", port, udp, conn.candidates, want)
		}
	}
	check(9, false, 0, 3)
	check(9, false, 2, 1)
	check(9, true, 0, 4)
	check(6, true, 0, 0)
}
