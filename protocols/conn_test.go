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

// A toy is the parser of a protocol of lines, for tests of the framework. It logs each call, and some lines
// make it act.
type toy struct {
	c     *Conn
	log   *[]string
	front *byte // the first byte of b in the last call of Parse
	calls int
}

func (p *toy) Reset(c *Conn) { p.c = c }

func (p *toy) say(format string, args ...any) { *p.log = append(*p.log, fmt.Sprintf(format, args...)) }

func (p *toy) Parse(dir Dir, b []byte, _ int64) (int, error) {
	p.front = &b[0]
	p.calls++
	if b[0] == '!' {
		return 0, errors.New("not a line")
	}
	i := bytes.IndexByte(b, '\n')
	if i < 0 {
		return 0, nil
	}
	line := string(b[:i])
	p.say("%s%s@%d", side(dir), line, p.c.streamOf(dir).firstAt())
	word, arg, _ := strings.Cut(line, " ")
	n := 0
	_, _ = fmt.Sscan(arg, &n)
	switch word {
	case "skip":
		p.c.Skip(dir, uint64(n))
	case "panic":
		panic("as asked")
	case "become":
		p.c.SwitchTo(arg)
	case "drop":
		p.c.Drop()
	case "flip":
		p.c.Flip()
	case "event":
		e := p.c.Event(dir)
		p.say("%t %t", pipeline.TransactionID(p.c.Info().Session, uint8(dir), p.c.streamOf(dir).offset) == pipeline.ID(e.Id), e.Partial)
		p.c.Emit(e)
	}
	return i + 1, nil
}

func (p *toy) Gap(dir Dir, n int) bool { p.say("%sgap %d", side(dir), n); return false }
func (p *toy) End(dir Dir, _ int64)    { p.say("%send", side(dir)) }
func (p *toy) Close(int64)             { p.say("close") }

func side(d Dir) string { return [...]string{">", "<"}[d] }

// toys is a set of two protocols: toy's first line begins with "hi", other's with "yo".
func toys(log *[]string, reg prometheus.Registerer) (*Set, *toy) {
	p := &toy{log: log}
	proto := func(name, hello string, p Parser) Protocol {
		return Protocol{
			Name: name, TCP: true, Ports: []uint16{7},
			Detect: func(_ Dir, b []byte) Match {
				switch {
				case bytes.HasPrefix(b, []byte(hello)):
					return Yes
				case strings.HasPrefix(hello, string(b)):
					return More
				}
				return No
			},
			Sync: func(_ Dir, b []byte) (int, Match) {
				i := bytes.IndexByte(b, '#')
				if i < 0 {
					return len(b), No
				}
				return i, Yes
			},
			New: func() Parser { return p },
		}
	}
	return NewSet([]Protocol{proto("toy", "hi", p), proto("other", "yo", &toy{log: log})}, Config{MaxUnparsedBytes: 64, DetectBytes: 64, ResyncBytes: Default().ResyncBytes, MaxErrors: 2}, reg), p
}

// run plays steps as "time dir bytes": >, < are Data, "> gap 5", "> end".
func run(c *Conn, steps ...string) {
	for i, s := range steps {
		dir := Client
		if s[0] == '<' {
			dir = Server
		}
		var n int
		switch s = s[1:]; {
		case s == " end":
			c.End(dir, int64(i))
		case strings.HasPrefix(s, " gap "):
			_, _ = fmt.Sscan(s[5:], &n)
			c.Gap(dir, n, int64(i))
		default:
			c.Data(dir, []byte(s), int64(i))
		}
	}
}

// check plays steps to a connection of the toys and compares the log.
func check(t *testing.T, steps []string, want ...string) {
	t.Helper()
	var log []string
	set, _ := toys(&log, nil)
	c := set.Open(Info{}, func(e *pipeline.Event) { e.ReturnToVTPool() })
	run(c, steps...)
	c.Close(99)
	if got := strings.Join(log, ", "); got != strings.Join(want, ", ") {
		t.Errorf("%q\n gave %s\n want %s", steps, got, strings.Join(want, ", "))
	}
}

func steps(s ...string) []string { return s }

// counted is the sum of a counter over its labels.
func counted(t *testing.T, reg *prometheus.Registry, name string) (sum float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue()
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
	check(t, steps(">hi\n", ">skip 10\n12345", "> gap 8", ">lost\n#next\n"), ">hi@0", ">skip 10@1", ">gap 8", ">#next@3", "close")
}

func TestGapIsFollowedBySync(t *testing.T) {
	check(t, steps(">hi\nabc", "> gap 5", ">rest", ">#event\nevent\n"), ">hi@0", ">gap 8", ">#event@3", ">event@3", "true false", "close")
	var log []string
	set, _ := toys(&log, nil)
	c := set.Open(Info{}, func(*pipeline.Event) {})
	run(c, ">hi\nabc", "> gap 5", ">rest#\nevent\n")
	c.streams[0].partial = true
	run(c, ">event\n")
	if got := strings.Join(log, ", "); got != ">hi@0, >gap 8, >#@2, >event@2, true false, >event@0, true true" {
		t.Error(got)
	}
}

func TestErrorsAreForgivenUpToALimit(t *testing.T) {
	check(t, steps(">hi\n", ">!x#a\nb\n"), ">hi@0", ">gap 1", ">#a@1", ">b@1", "close")
	check(t, steps(">hi\n", ">!#!", ">x#a\n", ">!#a\n", ">!b\n", ">#c\n"), ">hi@0", ">gap 1", ">#!x#a@1", ">gap 1", ">#a@3", "close")
}

func TestTailIsCapped(t *testing.T) {
	check(t, steps(">hi\n", ">"+strings.Repeat("x", 60), ">"+strings.Repeat("y", 10), ">y\n#z\n"), ">hi@0", ">gap 70", ">#z@3", "close")
}

func TestSwitchToHandsOverUnreadBytes(t *testing.T) {
	check(t, steps(">hi\n", "<unfinished", ">become other\nx\n", "<!\n"), ">hi@0", ">become other@2", "close", ">x@2", "<unfinished!@1", "close")
	check(t, steps(">hi\n", ">become \nyo\nx\n"), ">hi@0", ">become @1", "close", ">yo@1", ">x@1", "close")
	check(t, steps(">hi\n", ">become \nnothing\nx\n", ">hi\n"), ">hi@0", ">become @1", "close")
	check(t, steps(">hi\n", ">become nobody\nx\n"), ">hi@0", ">become nobody@1", "close")
}

func TestFlipExchangesTheSides(t *testing.T) {
	var log []string
	set, _ := toys(&log, nil)
	c := set.Open(Info{Client: netip.MustParseAddrPort("1.1.1.1:1"), Server: netip.MustParseAddrPort("2.2.2.2:2")}, nil)
	run(c, ">hi\nflip\nx\n", "<y\n", "> end")
	if got := strings.Join(log, ", "); got != ">hi@0, >flip@0, <x@0, >y@1, <end" || !c.Flipped() || c.Info().Client.Port() != 2 {
		t.Error(got, c.Flipped(), c.Info().Client)
	}
}

func TestDropIgnoresTheRest(t *testing.T) {
	check(t, steps(">hi\n", ">drop\nx\n", "<y\n", "> gap 9", "> end"), ">hi@0", ">drop@1", "close")
}

func TestEventIDIsThatOfItsFirstByte(t *testing.T) {
	check(t, steps(">hi\n", ">eve", ">nt\n"), ">hi@0", ">event@1", "true false", "close")
}

// TestPanicClosesThatConnectionOnly: the other connections of the set go on, and the panic is counted.
func TestPanicClosesThatConnectionOnly(t *testing.T) {
	var log []string
	reg := prometheus.NewRegistry()
	set, _ := toys(&log, reg)
	told := ""
	set.Panicked = func(protocol string, value any, _ []byte) { told = fmt.Sprint(protocol, ": ", value) }
	a, b := set.Open(Info{}, nil), set.Open(Info{}, nil)
	run(b, ">yo\n")
	run(a, ">hi\npanic\nx\n", ">y\n", "<z\n")
	run(b, ">still here\n")
	a.Close(9)
	b.Close(9)
	if got := strings.Join(log, ", "); got != ">yo@0, >hi@0, >panic@0, >still here@0, close" {
		t.Error(got)
	}
	if n := counted(t, reg, "tidegate_protocols_panics_total"); n != 1 || told != "toy: as asked" {
		t.Errorf("%v panics are counted, told of %q", n, told)
	}
}

// TestBrokenRequestWithAGoodAnswer: what one side sent is nothing that we know, what the other answers is.
func TestBrokenRequestWithAGoodAnswer(t *testing.T) {
	check(t, steps(">broken\n", "<hi\n", ">x\n"), ">broken@0", "<hi@1", ">x@2", "close")
}

func TestUnknownProtocolIsGivenUp(t *testing.T) {
	reg := prometheus.NewRegistry()
	var log []string
	set, _ := toys(&log, reg)
	c := set.Open(Info{}, nil)
	run(c, ">neither\n", "<nor\n", "<hi\n")
	if c.Protocol() != "" || c.state != dropped || len(log) > 0 {
		t.Errorf("state %d, protocol %q, %q", c.state, c.Protocol(), log)
	}
	c.Close(9)
	if n := counted(t, reg, "tidegate_protocols_undetected_total"); n != 1 {
		t.Errorf("%v undetected", n)
	}
}

// TestPortDecidesWhereTheBytesDoNot: what may be both is that of the port when nothing more comes.
func TestPortDecidesWhereTheBytesDoNot(t *testing.T) {
	var log []string
	set, _ := toys(&log, nil)
	c := set.Open(Info{Server: netip.MustParseAddrPort("2.2.2.2:7")}, nil)
	run(c, ">h")
	c.Close(9)
	d := set.Open(Info{Server: netip.MustParseAddrPort("2.2.2.2:8")}, nil)
	run(d, ">h")
	d.Close(9)
	if got := strings.Join(log, ", "); got != "close" {
		t.Error(got)
	}
}

// TestParserReadsFromTheCallersBytes: nothing is copied while nothing waits, and Parse is not called again
// before more came.
func TestParserReadsFromTheCallersBytes(t *testing.T) {
	var log []string
	set, p := toys(&log, nil)
	c := set.Open(Info{}, nil)
	run(c, ">hi\n")
	b := []byte("line\nunfinished")
	c.Data(Client, b, 1)
	if p.front != &b[5] {
		t.Error("the bytes were copied")
	}
	calls := p.calls
	c.Data(Server, []byte("x\n"), 2)
	if p.calls != calls+1 {
		t.Errorf("%d calls for one line of the other side", p.calls-calls)
	}
}

func TestMidStreamIsPickedUpBySync(t *testing.T) {
	var log []string
	set, _ := toys(&log, nil)
	c := set.Open(Info{MidStream: true, Server: netip.MustParseAddrPort("2.2.2.2:7")}, nil)
	run(c, ">in the middle\n", "<of a line #answer\n", ">of this one\n#ask\n")
	c.Close(9)
	if got := strings.Join(log, ", "); got != ">gap 1, <#answer@1, >#ask@2, close" {
		t.Error(got)
	}
}

func TestConnsAreClean(t *testing.T) {
	var log []string
	set, _ := toys(&log, nil)
	for range 3 {
		c := set.Open(Info{}, nil)
		run(c, ">hi\nflip\nrest", "< gap 7", "> end")
		c.Close(9)
	}
	c := set.Open(Info{}, nil)
	if c.Flipped() || c.streamOf(Client).offset != 0 || c.streams[0].lost || c.streams[1].ended || c.Protocol() != "" || len(c.streams[0].tail) > 0 {
		t.Errorf("%+v", c)
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
	b := []byte("some header")
	set.intern(b)
	if n := testing.AllocsPerRun(100, func() { set.intern(b) }); n > 0 {
		t.Errorf("%v allocations for a string that is known", n)
	}
}

func TestConfig(t *testing.T) {
	if errs := Default().Check(); len(errs) > 0 {
		t.Error(errs)
	}
	errs := Config{MaxUnparsedBytes: 1, DetectBytes: 1, ResyncBytes: -1}.Check()
	if len(errs) != 4 || errs[0].Key != "max_unparsed_bytes" {
		t.Error(errs)
	}
}
