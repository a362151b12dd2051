package protocols

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline"
)

// A waitingToy does not read the server's bytes before the client has said "go", which has them read again.
type waitingToy struct {
	toy
	waitsFor Dir // the side whose bytes wait
	goes     bool
}

func (p *waitingToy) Parse(dir Dir, data []byte, at int64) (int, error) {
	if dir == p.waitsFor && !p.goes {
		return 0, nil
	}
	if dir != p.waitsFor && strings.HasPrefix(string(data), "go\n") {
		p.goes = true
		p.conn.Reparse(p.waitsFor)
	}
	return p.toy.Parse(dir, data, at)
}

// TestWaitingBytesAreReadAgainAtOnce, when the parser asks for it: within Data, behind a detection, at the end of a side.
func TestWaitingBytesAreReadAgainAtOnce(t *testing.T) {
	check := func(waitsFor Dir, want string, list ...string) {
		t.Helper()
		var log []string
		set, _ := toys(&log, nil)
		set.list[0].New = func() Parser { return &waitingToy{toy: toy{log: &log}, waitsFor: waitsFor} }
		run(set.Open(Info{}, nil), list...)
		if got := strings.Join(log, ", "); got != want {
			t.Errorf("%q: %s, want %s", list, got, want)
		}
	}
	check(Server, ">hi@0, >go@2, <a@1, <b@3", ">hi\n", "<a\n", ">go\n", "<b\n")
	check(Server, ">hi@0, >go@3, <a@1, <b@2", ">hi\n", "<a\n", "<b\n", ">go\n")
	check(Client, "<a@1, <go@2, >hi@0, >b@3", ">hi\n", "<a\n", "<go\n", ">b\n")
	check(Server, ">hi@0, >go@2, <h@1, <x@1", ">h", "<h\nx", ">i\ngo\n", "<\n")
}

// TestRequestsOfAParserAreAppliedToDatagramsToo, and to ends and ticks.
func TestRequestsOfAParserAreAppliedToDatagramsToo(t *testing.T) {
	var log []string
	set, _ := toys(&log, nil)
	for i := range set.list {
		set.list[i].UDP = true
	}
	open := func() *Conn {
		log = nil
		return set.Open(Info{Transport: pipeline.Transport_UDP}, nil)
	}
	conn := open()
	conn.Datagram(Client, []byte("hi\n"), 1)
	conn.Datagram(Client, []byte("become other\n"), 2)
	conn.Datagram(Client, []byte("x\n"), 3)
	if got := strings.Join(log, ", "); got != ">hi@1, >become other@2, close, >x@3" || conn.Protocol() != "other" {
		t.Errorf("%s, %s", got, conn.Protocol())
	}
	conn = open()
	conn.Datagram(Client, []byte("hi\n"), 1)
	conn.Datagram(Client, []byte("drop\n"), 2)
	conn.Datagram(Client, []byte("hi\n"), 3)
	if got := strings.Join(log, ", "); got != ">hi@1, >drop@2, close" || conn.streams[Client].offset != 11 {
		t.Errorf("%s, offset %d", got, conn.streams[Client].offset)
	}
	conn = open()
	conn.Datagram(Server, []byte("hi\n"), 1)
	conn.Datagram(Server, []byte("panic\n"), 2)
	conn.Datagram(Server, []byte("hi\n"), 3)
	if got := strings.Join(log, ", "); got != "<hi@1, <panic@2, <hi@3" {
		t.Errorf("behind a panic: %s", got)
	}
	conn.Datagram(Server, nil, 4)
	if len(log) != 3 {
		t.Errorf("an empty datagram is parsed: %q", log)
	}
}

// TestStartOfAMessageIsLookedFor: bytes before it are counted, and a possible start is waited for, up to a bound.
func TestStartOfAMessageIsLookedFor(t *testing.T) {
	check := func(what, data string, skip int, match Match, taken int, lost, partial bool, need int) {
		t.Helper()
		reg := prometheus.NewRegistry()
		var log []string
		set, _ := toys(&log, reg)
		set.list[0].Sync = func(Dir, []byte) (int, Match) { return skip, match }
		conn := set.Open(Info{}, nil)
		run(conn, ">hi\n", "<x\n")
		log = nil
		stream := &conn.streams[Client]
		stream.lost = true
		if got := conn.resync(Client, []byte(data)); got != taken || stream.lost != lost || stream.partial != partial || stream.need != need {
			t.Errorf("%s: %d bytes are skipped, lost %t, partial %t, %d bytes are needed", what, got, stream.lost, stream.partial, stream.need)
		}
		if dropped := counted(t, reg, "tidegate_protocols_dropped_bytes_total"); int(dropped) != taken || int(stream.offset) != 3+taken {
			t.Errorf("%s: %v bytes are counted", what, dropped)
		}
		if resyncs := counted(t, reg, "tidegate_protocols_resyncs_total"); (resyncs == 1) != partial {
			t.Errorf("%s: %v starts are counted", what, resyncs)
		}
		if (len(log) == 1) != (taken > 0) { // requests may have been among them
			t.Errorf("%s: the parser got %q", what, log)
		}
	}
	check("a start at once", "abc", 0, Yes, 0, false, false, 0)
	check("a start further on", "abc", 2, Yes, 2, false, true, 0)
	check("a start behind the end", "abc", 3, Yes, 3, true, false, 0)
	check("a possible start", "abc", 1, More, 1, true, false, 3)
	check("no start", "abc", 1, No, 3, true, false, 0)
	check("a wrong number", "abc", -1, More, 0, true, false, 4)
	check("a number beyond the end", "abc", 9, More, 3, true, false, 1)
	long := strings.Repeat("x", maxSyncBuffer+1)
	check("a possible start of as many bytes as are kept", long, 1, More, 1, true, false, maxSyncBuffer+1)
	check("a possible start of more", long, 0, More, maxSyncBuffer+1, true, false, 0)
}

// TestErrorsAreOutweighedByMessages, four for each; more than MaxErrors stop the parser, which an event says.
func TestErrorsAreOutweighedByMessages(t *testing.T) {
	check := func(stopped bool, lines ...string) {
		t.Helper()
		var log []string
		reg := prometheus.NewRegistry()
		set, _ := toys(&log, reg) // two errors are allowed
		var events []*pipeline.Event
		conn := set.Open(Info{}, func(event *pipeline.Event) { events = append(events, event) })
		run(conn, ">hi\n", "<x\n")
		for _, line := range lines {
			conn.Data(Client, []byte(line), 5)
		}
		if told := len(events) == 1 && events[0].Tags[1] == pipeline.TagTooManyErrors; told != stopped {
			t.Errorf("%q: stopped %t, want %t: %q", lines, told, stopped, log)
		}
		if got := counted(t, reg, "tidegate_protocols_anomalies_total"); (got == 1) != stopped {
			t.Errorf("%q: %v are counted", lines, got)
		}
		if got := int(counted(t, reg, "tidegate_protocols_errors_total")); got != strings.Count(strings.Join(lines, ""), "!") {
			t.Errorf("%q: %d errors are counted", lines, got)
		}
	}
	check(false, "!#a\n", "!#a\n")
	check(true, "!#a\n", "!#a\n", "!#a\n")                             // two are outweighed by half an error
	check(false, "!#a\nb\nc\nd\n", "!#a\nb\nc\nd\n", "!#a\n")          // each by itself
	check(false, "a\nb\nc\nd\ne\nf\ng\nh\n", "!#a\n", "!#a\n")         // none in advance
	check(true, "a\nb\nc\nd\ne\nf\ng\nh\n", "!#a\n", "!#a\n", "!#a\n") // none in advance
}

// TestTailIsLimitedToItsBytes: a message of MaxUnparsedBytes is kept, a longer one is dropped and counted.
func TestTailIsLimitedToItsBytes(t *testing.T) {
	for _, size := range []int{64, 65} {
		var log []string
		reg := prometheus.NewRegistry()
		set, _ := toys(&log, reg)
		conn := set.Open(Info{}, nil)
		run(conn, ">hi\n", "<x\n", ">"+strings.Repeat("a", size))
		dropped := 0
		if size > 64 {
			dropped = size
		}
		if got := counted(t, reg, "tidegate_protocols_dropped_bytes_total"); int(got) != dropped || len(conn.streams[Client].tail) != size-dropped {
			t.Errorf("%d bytes: %v are dropped, %d wait", size, got, len(conn.streams[Client].tail))
		}
		if stream := &conn.streams[Client]; stream.lost != (dropped > 0) || stream.partial != stream.lost || int(stream.offset) != 3+dropped {
			t.Errorf("%d bytes: lost %t, partial %t, offset %d", size, stream.lost, stream.partial, stream.offset)
		}
		conn.Close(9)
		if got := counted(t, reg, "tidegate_protocols_dropped_bytes_total"); int(got) != size {
			t.Errorf("%d bytes are counted at the end, want %d", int(got), size)
		}
	}
}

// TestSwitchBeginsAnew: what the old parser has asked for is forgotten, the ends are passed on, and an unknown name is
// counted.
func TestSwitchBeginsAnew(t *testing.T) {
	check(t, steps(">hi\n", "<x\n", "< end", ">become other\na\n"), ">hi@0", "<x@1", "<end", ">become other@3", "close", ">a@3", "<end", "close")
	check(t, steps(">hi\n", "<x\nskip 9\n", ">become other\na\n", "<b\n"),
		">hi@0", "<x@1", "<skip 9@1", ">become other@2", "close", ">a@2", "<b@3", "close")
	check(t, steps(">hi\n", "<front", ">become other\na\n", "< b\n"), ">hi@0", ">become other@2", "close", ">a@2", "<front b@1", "close")
	check(t, steps(">hi\n", "<x\n", ">become \nhi\n", "<hi\n"), ">hi@0", "<x@1", ">become @2", "close", ">hi@2", "<hi@3", "close")
	var log []string
	reg := prometheus.NewRegistry()
	set, _ := toys(&log, reg)
	conn := set.Open(Info{}, nil)
	run(conn, ">hi\n", "<x\n", ">become none\na\n", "<b\n")
	if got := counted(t, reg, "tidegate_protocols_anomalies_total"); got != 1 || conn.state != dropped || log[len(log)-1] != "close" {
		t.Errorf("a protocol of no name: %v are counted, %q", got, log)
	}
}

// TestRolesAreExchangedTwiceAtMost.
func TestRolesAreExchangedTwiceAtMost(t *testing.T) {
	check(t, steps(">hi\n", "<x\n", ">flip\n", "<flip\n", "<y\n", "<flip\n", "<z\n"),
		">hi@0", "<x@1", ">flip@2", ">flip@3", "<y@4", "<flip@5", "close")
}
