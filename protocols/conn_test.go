package protocols

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline"
)

// A toy is the parser of a protocol of lines, for tests of the framework. It logs each call. Some lines make
// it call a method of Conn.
type toy struct {
	conn  *Conn
	log   *[]string
	front *byte // the first byte of data in the last call of Parse
	calls int   // of Parse
}

func (p *toy) Reset(conn *Conn) { p.conn = conn }

func (p *toy) logf(format string, args ...any) { *p.log = append(*p.log, fmt.Sprintf(format, args...)) }

func (p *toy) Parse(dir Dir, data []byte, _ int64) (int, error) {
	p.front = &data[0]
	p.calls++
	if data[0] == '!' {
		return 0, errors.New("not a line")
	}
	end := bytes.IndexByte(data, '\n')
	if end < 0 {
		return 0, nil
	}
	line := string(data[:end])
	p.logf("%s%s@%d", side(dir), line, p.conn.streamOf(dir).firstAt())
	word, arg, _ := strings.Cut(line, " ")
	number := 0
	_, _ = fmt.Sscan(arg, &number)
	switch word {
	case "skip":
		p.conn.Skip(dir, uint64(number))
	case "panic":
		panic("as asked")
	case "become":
		p.conn.SwitchTo(arg)
	case "drop":
		p.conn.Drop()
	case "flip":
		p.conn.Flip()
	case "stop":
		p.conn.Stop(arg)
	case "event":
		event := p.conn.Event(dir)
		id := pipeline.TransactionID(p.conn.Info().Session, uint8(dir), p.conn.streamOf(dir).offset)
		p.logf("%t %t", id == pipeline.ID(event.Id), event.Partial)
		p.conn.Emit(event)
	}
	return end + 1, nil
}

func (p *toy) Gap(dir Dir, size int) bool { p.logf("%sgap %d", side(dir), size); return false }
func (p *toy) End(dir Dir, _ int64)       { p.logf("%send", side(dir)) }
func (p *toy) Close(int64)                { p.logf("close") }

func side(dir Dir) string { return [...]string{">", "<"}[dir] }

// toys returns a set of two protocols, and the parser of the first. The first line of "toy" begins with hi,
// that of "other" with yo. Both resume at a #.
func toys(log *[]string, reg prometheus.Registerer) (*Set, *toy) {
	first := &toy{log: log}
	proto := func(name, hello string, parser Parser) Protocol {
		return Protocol{
			Name: name, TCP: true, Ports: []uint16{7},
			Detect: func(_ Dir, data []byte) Match {
				switch {
				case bytes.HasPrefix(data, []byte(hello)):
					return Yes
				case strings.HasPrefix(hello, string(data)):
					return More
				}
				return No
			},
			Sync: func(_ Dir, data []byte) (int, Match) {
				start := bytes.IndexByte(data, '#')
				if start < 0 {
					return len(data), No
				}
				return start, Yes
			},
			New: func() Parser { return parser },
		}
	}
	cfg := Config{MaxUnparsedBytes: 64, DetectBytes: 64, ResyncBytes: Default().ResyncBytes, MaxErrors: 2}
	return NewSet([]Protocol{proto("toy", "hi", first), proto("other", "yo", &toy{log: log})}, cfg, reg), first
}

// run plays steps. ">" and "<" are followed by bytes of the client or the server, by " gap 5" by " end" or by " restart".
// The time of a step is its index, and a tick comes before it.
func run(conn *Conn, steps ...string) {
	for i, step := range steps {
		conn.Tick(int64(i))
		dir := Client
		if step[0] == '<' {
			dir = Server
		}
		var size int
		switch step = step[1:]; {
		case step == " end":
			conn.End(dir, int64(i))
		case step == " restart":
			conn.Restart(int64(i))
		case strings.HasPrefix(step, " gap "):
			_, _ = fmt.Sscan(step[5:], &size)
			conn.Gap(dir, size, int64(i))
		default:
			conn.Data(dir, []byte(step), int64(i))
		}
	}
}

// check plays steps to a connection of the toys and compares the log. The log holds "side line@time" for each
// line, where time is that of the first byte of the line.
func check(t *testing.T, steps []string, want ...string) {
	t.Helper()
	var log []string
	set, _ := toys(&log, nil)
	conn := set.Open(Info{}, func(event *pipeline.Event) { event.ReturnToVTPool() })
	run(conn, steps...)
	conn.Close(99)
	if got := strings.Join(log, ", "); got != strings.Join(want, ", ") {
		t.Errorf("%q\n gave %s\n want %s", steps, got, strings.Join(want, ", "))
	}
}

func steps(list ...string) []string { return list }

// counted returns the sum of a counter over its labels.
func counted(t *testing.T, reg *prometheus.Registry, name string) (sum float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == name {
			for _, metric := range family.GetMetric() {
				sum += metric.GetCounter().GetValue()
			}
		}
	}
	return sum
}

func TestMessagesAcrossPackets(t *testing.T) {
	check(t, steps(">hi\n", ">a\nb", ">c", ">d\ne\n"), ">hi@0", ">a@1", ">bcd@1", ">e@3", "close")
}

func TestBytesBeforeDetectionKeepTheirOrder(t *testing.T) {
	check(t, steps(">h", "<h", ">i\nask\n", "<ow\nanswer\n"), ">hi@0", ">ask@2", "<how@1", "<answer@3", "close")
	check(t, steps("<yo\n", ">x\n"), "<yo@0", ">x@1", "close")
	check(t, steps(">h", "> end", "<hi\n"), ">end", "<hi@2", "close")
}

func TestSkipGoesOnAcrossDataAndGaps(t *testing.T) {
	check(t, steps(">hi\n", ">skip 10\n12345", ">678", ">90next\n"), ">hi@0", ">skip 10@1", ">next@3", "close")
	check(t, steps(">hi\n", ">skip 10\n12345", "> gap 3", ">90next\n"), ">hi@0", ">skip 10@1", ">gap 3", ">next@3", "close")
	check(t, steps(">hi\n", ">skip 10\n12345", "> gap 8", ">lost\n#next\n"), ">hi@0", ">skip 10@1", ">gap 8", ">gap 5", ">#next@3", "close")
}

func TestGapIsFollowedBySync(t *testing.T) {
	check(t, steps(">hi\nabc", "> gap 5", ">rest", ">#event\nevent\n"), ">hi@0", ">gap 8", ">gap 4", ">#event@3", ">event@3", "true false", "close")
	var log []string
	set, _ := toys(&log, nil)
	conn := set.Open(Info{}, func(*pipeline.Event) {})
	run(conn, ">hi\nabc", "> gap 5", ">rest#\nevent\n")
	conn.streams[0].partial = true
	run(conn, ">event\n")
	if got := strings.Join(log, ", "); got != ">hi@0, >gap 8, >gap 4, >#@2, >event@2, true false, >event@0, true true" {
		t.Error(got)
	}
}

// TestParserStartsAgainAfterTooManyErrors: MaxErrors is 2 in toys.
func TestParserStartsAgainAfterTooManyErrors(t *testing.T) {
	check(t, steps(">hi\n", ">!x#a\nb\n"), ">hi@0", ">gap 1", ">gap 1", ">#a@1", ">b@1", "close")
	check(t, steps(">hi\n", ">!#!", ">x#a\n", ">!#a\n", ">!b\n", ">#c\n"), ">hi@0", ">gap 1", ">#!x#a@1", ">gap 1", ">#a@3",
		">gap 1", "close", ">gap 1", ">#c@5", "close")
}

// TestTailIsCapped checks that a line of more than MaxUnparsedBytes becomes a gap.
func TestTailIsCapped(t *testing.T) {
	check(t, steps(">hi\n", ">"+strings.Repeat("x", 60), ">"+strings.Repeat("y", 10), ">y\n#z\n"), ">hi@0", ">gap 70", ">gap 2", ">#z@3", "close")
}

func TestSwitchToHandsOverUnreadBytes(t *testing.T) {
	check(t, steps(">hi\n", "<unfinished", ">become other\nx\n", "<!\n"), ">hi@0", ">become other@2", "close", ">x@2", "<unfinished!@1", "close")
	check(t, steps(">hi\n", ">become \nyo\nx\n"), ">hi@0", ">become @1", "close", ">yo@1", ">x@1", "close")
	check(t, steps(">hi\n", ">become \nnothing\nx\n", ">hi\n"), ">hi@0", ">become @1", "close")
	check(t, steps(">hi\n", ">become nobody\nx\n"), ">hi@0", ">become nobody@1", "close")
}

// TestRestartReadsOtherBytesFromTheirFront: whatever was read before, the bytes behind are not its rest. Ids of events
// differ.
func TestRestartReadsOtherBytesFromTheirFront(t *testing.T) {
	check(t, steps(">hi\n", ">unfinished", "> restart", ">#a\n"), ">hi@0", "close", ">#a@3", "close")
	check(t, steps(">hi\nskip 100\n", "> restart", ">#a\n", "<#b\n"), ">hi@0", ">skip 100@0", "close", ">#a@2", "<#b@3", "close")
	check(t, steps(">hi\ndrop\n", "> restart", ">#a\n"), ">hi@0", ">drop@0", "close", ">#a@2", "close")
	check(t, steps(">nothing\n", ">known\n", "> restart", ">hi\n"), ">hi@3", "close")
	check(t, steps(">h", "> restart", ">yo\n"), ">yo@2", "close")
	check(t, steps(">hi\npanic\n", "> restart", ">hi\n"), ">hi@0", ">panic@0", ">gap 1", "<gap 1", ">hi@2", "close")
	check(t, steps(">hi\nflip\n", "> restart", ">hi\nflip\n", "> restart", ">hi\nflip\nx\n"),
		">hi@0", ">flip@0", "close", ">hi@2", ">flip@2", "close", ">hi@4", ">flip@4", "<x@4", "close")

	var log []string
	set, _ := toys(&log, nil)
	ids := map[string]int{}
	conn := set.Open(Info{}, func(event *pipeline.Event) { ids[string(event.Id)]++ })
	run(conn, ">hi\nevent\n", "> restart", ">#\nevent\n", "> restart", "> restart", ">#\nevent\n")
	conn.Close(9)
	if len(ids) != 3 {
		t.Errorf("%d ids: %q", len(ids), log)
	}
}

func TestFlipExchangesTheSides(t *testing.T) {
	var log []string
	set, _ := toys(&log, nil)
	conn := set.Open(Info{Client: netip.MustParseAddrPort("1.1.1.1:1"), Server: netip.MustParseAddrPort("2.2.2.2:2")}, nil)
	run(conn, ">hi\nflip\nx\n", "<y\n", "> end")
	if got := strings.Join(log, ", "); got != ">hi@0, >flip@0, <x@0, >y@1, <end" || !conn.Flipped() || conn.Info().Client.Port() != 2 {
		t.Error(got, conn.Flipped(), conn.Info().Client)
	}
}

func TestDropIgnoresTheRest(t *testing.T) {
	check(t, steps(">hi\n", ">drop\nx\n", "<y\n", "> gap 9", "> end"), ">hi@0", ">drop@1", "close")
}

func TestEventIDIsThatOfItsFirstByte(t *testing.T) {
	check(t, steps(">hi\n", ">eve", ">nt\n"), ">hi@0", ">event@1", "true false", "close")
}

// TestPanicClosesThatConnectionOnly also checks that the panic is counted and reported.
func TestPanicClosesThatConnectionOnly(t *testing.T) {
	var log []string
	reg := prometheus.NewRegistry()
	set, _ := toys(&log, reg)
	reported := ""
	set.Panicked = func(protocol string, value any, _ []byte) { reported = fmt.Sprint(protocol, ": ", value) }
	failing, healthy := set.Open(Info{}, nil), set.Open(Info{}, nil)
	run(healthy, ">yo\n")
	run(failing, ">hi\npanic\nx\n", ">y\n", "<z\n")
	run(healthy, ">still here\n")
	failing.Close(9)
	healthy.Close(9)
	if got := strings.Join(log, ", "); got != ">yo@0, >hi@0, >panic@0, >still here@0, close" {
		t.Error(got)
	}
	if panics := counted(t, reg, "tidegate_protocols_panics_total"); panics != 1 || reported != "toy: as asked" {
		t.Errorf("%v panics are counted, reported: %q", panics, reported)
	}
}

// TestBrokenRequestWithAGoodAnswer: the bytes of one side match no protocol, those of the other side do.
func TestBrokenRequestWithAGoodAnswer(t *testing.T) {
	check(t, steps(">broken\n", "<hi\n", ">x\n"), ">broken@0", "<hi@1", ">x@2", "close")
}

func TestConnectionOfUnknownProtocolIsDropped(t *testing.T) {
	reg := prometheus.NewRegistry()
	var log []string
	set, _ := toys(&log, reg)
	conn := set.Open(Info{}, nil)
	run(conn, ">neither\n", "<nor\n", "<hi\n")
	if conn.Protocol() != "" || conn.state != dropped || len(log) > 0 {
		t.Errorf("state %d, protocol %q, %q", conn.state, conn.Protocol(), log)
	}
	conn.Close(9)
	if undetected := counted(t, reg, "tidegate_protocols_undetected_total"); undetected != 1 {
		t.Errorf("%v undetected", undetected)
	}
}

// TestPortDecidesWhereTheBytesDoNot: a connection ends while its bytes may still become the protocol of its
// port. It is that protocol on port 7 and none on port 8.
func TestPortDecidesWhereTheBytesDoNot(t *testing.T) {
	var log []string
	set, _ := toys(&log, nil)
	onPort := set.Open(Info{Server: netip.MustParseAddrPort("2.2.2.2:7")}, nil)
	run(onPort, ">h")
	onPort.Close(9)
	elsewhere := set.Open(Info{Server: netip.MustParseAddrPort("2.2.2.2:8")}, nil)
	run(elsewhere, ">h")
	elsewhere.Close(9)
	if got := strings.Join(log, ", "); got != "close" {
		t.Error(got)
	}
}

// TestParserReadsFromTheCallersBytes checks that bytes are not copied while no earlier bytes wait, and that
// Parse is called once for them.
func TestParserReadsFromTheCallersBytes(t *testing.T) {
	var log []string
	set, toy := toys(&log, nil)
	conn := set.Open(Info{}, nil)
	run(conn, ">hi\n")
	data := []byte("line\nunfinished")
	conn.Data(Client, data, 1)
	if toy.front != &data[5] {
		t.Error("the bytes were copied")
	}
	calls := toy.calls
	conn.Data(Server, []byte("x\n"), 2)
	if toy.calls != calls+1 {
		t.Errorf("%d calls for one line of the other side", toy.calls-calls)
	}
}

func TestMidStreamIsPickedUpBySync(t *testing.T) {
	var log []string
	set, _ := toys(&log, nil)
	conn := set.Open(Info{MidStream: true, Server: netip.MustParseAddrPort("2.2.2.2:7")}, nil)
	run(conn, ">in the middle\n", "<of a line #answer\n", ">of this one\n#ask\n")
	conn.Close(9)
	if got := strings.Join(log, ", "); got != ">gap 1, <#answer@1, >gap 12, >#ask@2, close" {
		t.Error(got)
	}
}

// TestReusedConnIsReset checks a connection after others that were flipped and lost bytes.
func TestReusedConnIsReset(t *testing.T) {
	var log []string
	set, _ := toys(&log, nil)
	for range 3 {
		conn := set.Open(Info{}, nil)
		run(conn, ">hi\nflip\nrest", "< gap 7", "> end")
		conn.Close(9)
	}
	conn := set.Open(Info{}, nil)
	if conn.Flipped() || conn.streamOf(Client).offset != 0 || conn.streams[0].lost || conn.streams[1].ended || conn.Protocol() != "" || len(conn.streams[0].tail) > 0 {
		t.Errorf("%+v", conn)
	}
}

func TestInternedStringsAreTextAndBounded(t *testing.T) {
	set := NewSet(nil, Default(), nil)
	is := func(in, want string) {
		t.Helper()
		for range 2 {
			if got := set.intern([]byte(in)); got != want {
				t.Errorf("%q became %q, want %q", in, got, want)
			}
		}
	}
	is("", "")
	is("GET", "GET")
	is("a\xffb\xc3", `a\xffb\xc3`)
	is(strings.Repeat("é", maxInterned), strings.Repeat("é", maxInterned))
	header := []byte("some header")
	set.intern(header)
	if allocs := testing.AllocsPerRun(100, func() { set.intern(header) }); allocs > 0 {
		t.Errorf("%v allocations for a string that is interned", allocs)
	}
}

func TestConfigCheckReportsEveryProblem(t *testing.T) {
	if errs := Default().Check(); len(errs) > 0 {
		t.Error(errs)
	}
	errs := Config{MaxUnparsedBytes: 1, DetectBytes: 1, ResyncBytes: -1}.Check()
	if len(errs) != 4 || errs[0].Key != "max_unparsed_bytes" {
		t.Error(errs)
	}
}

// sidedProtocol returns a protocol of which a client begins with "ask" and a server with "reply".
func sidedProtocol(log *[]string) Protocol {
	return Protocol{
		Name: "sided", TCP: true, New: func() Parser { return &toy{log: log} },
		Detect: func(dir Dir, data []byte) Match {
			first := [...]string{"ask", "reply"}[dir]
			switch {
			case bytes.HasPrefix(data, []byte(first)):
				return Yes
			case strings.HasPrefix(first, string(data)):
				return More
			}
			return No
		},
		Sync: func(_ Dir, data []byte) (int, Match) { return len(data), No },
	}
}

// TestServerThatAsksIsTheClient: behind a reverse tunnel the side that opened the connection serves. The roles are
// exchanged if the first bytes of the connection are a request of the server, not if bytes of the client wait.
func TestServerThatAsksIsTheClient(t *testing.T) {
	check := func(steps []string, flipped bool, want ...string) {
		t.Helper()
		var log []string
		sided := sidedProtocol(&log)
		conn := NewSet([]Protocol{sided}, Default(), nil).Open(Info{}, nil)
		run(conn, steps...)
		if got := strings.Join(log, ", "); got != strings.Join(want, ", ") || conn.Flipped() != flipped {
			t.Errorf("%q: %s, flipped %t; want %s, %t", steps, got, conn.Flipped(), strings.Join(want, ", "), flipped)
		}
	}
	check(steps(">ask a\n", "<reply b\n"), false, ">ask a@0", "<reply b@1")
	check(steps("<reply b\n", ">ask a\n"), false, "<reply b@0", ">ask a@1")
	check(steps("<ask a\n", ">reply b\n"), true, ">ask a@0", "<reply b@1")
	check(steps(">as", "<ask a\n", ">k b\n"), false, "<ask a@1", ">ask b@0")
	check(steps("<ask", ">reply b\n", "< a\n"), true, "<reply b@1", ">ask a@0")
}

// A gaplessToy is a toy that cannot continue behind a gap: it has the Gap of NopParser.
type gaplessToy struct {
	NopParser
	toy
}

func (p *gaplessToy) Reset(conn *Conn)           { p.toy.Reset(conn) }
func (p *gaplessToy) Gap(dir Dir, size int) bool { return p.NopParser.Gap(dir, size) }
func (p *gaplessToy) End(dir Dir, at int64)      { p.NopParser.End(dir, at) }
func (p *gaplessToy) Close(at int64)             { p.NopParser.Close(at) }

// TestParserThatIgnoresGapsIsResynchronised: the bytes behind a gap are those of the middle of a message.
func TestParserThatIgnoresGapsIsResynchronised(t *testing.T) {
	var log []string
	set, _ := toys(&log, nil)
	list := set.list[:1]
	list[0].New = func() Parser { return &gaplessToy{toy: toy{log: &log}} }
	conn := NewSet(list, set.cfg, nil).Open(Info{}, nil)
	run(conn, ">hi\n", "> gap 5", ">middle\n#next\n", "> end")
	conn.Close(9)
	if got := strings.Join(log, ", "); got != ">hi@0, >#next@2" {
		t.Error(got)
	}
}

// TestOneSideExchangesNoRolesOnceBothHaveSent: in mid-stream a message of the other side shows that the roles were
// inferred wrongly. If both sides have sent, such bytes may be a part of a message.
func TestOneSideExchangesNoRolesOnceBothHaveSent(t *testing.T) {
	check := func(steps []string, flipped bool) {
		t.Helper()
		var log []string
		conn := NewSet([]Protocol{sidedProtocol(&log)}, Default(), nil).Open(Info{MidStream: true}, nil)
		run(conn, steps...)
		if conn.Flipped() != flipped {
			t.Errorf("%q: flipped %t, want %t: %q", steps, conn.Flipped(), flipped, log)
		}
	}
	check(steps("<ask a\n"), true)
	check(steps(">reply b\n"), true)
	check(steps(">as", "<ask a\n"), false)
	check(steps("<rep", ">reply b\n"), false)
	check(steps(">ask a\n", "<ask b\n"), false)
}

// TestStoppedParsingIsAnEventOfItsProtocol: it is partial, has the reason, the body of its dataset and the time of the
// last bytes, and no byte behind it is parsed.
func TestStoppedParsingIsAnEventOfItsProtocol(t *testing.T) {
	var log []string
	set, _ := toys(&log, nil)
	for i := range set.list {
		set.list[i].Dataset = pipeline.Dataset_REDIS
	}
	var events []*pipeline.Event
	conn := NewSet(set.list, set.cfg, nil).Open(Info{}, func(event *pipeline.Event) { events = append(events, event) })
	run(conn, ">hi\n", "<x\n", "<stop unsupported\n", ">more\n", "<stop again\n")
	conn.Close(9)
	if len(events) != 1 {
		t.Fatalf("%d events, want 1", len(events))
	}
	event := events[0]
	if event.Dataset != pipeline.Dataset_REDIS || event.Redis == nil || !event.Partial || event.Timestamp != 2 ||
		strings.Join(event.Tags, " ") != pipeline.TagParsingStopped+" unsupported" || len(event.Id) != 16 {
		t.Errorf("%v", event)
	}
	if got := strings.Join(log, ", "); got != ">hi@0, <x@1, <stop unsupported@2, close" {
		t.Error(got)
	}
}
