package protocols

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tidegate/pipeline"
	"tidegate/pipeline/config"
	"tidegate/pipeline/memory"
)

// TestEventHasWhatIsKnownOfItsConnection.
func TestEventHasWhatIsKnownOfItsConnection(t *testing.T) {
	set, _ := toys(new([]string), nil)
	set.list[0].Dataset = pipeline.Dataset_REDIS
	info := Info{
		Transport: pipeline.Transport_TCP, VLAN: 77, Session: pipeline.ID{1, 2}, CommunityID: [20]byte{3, 4},
		Client: netip.MustParseAddrPort("[::ffff:10.0.0.1]:1234"), Server: netip.MustParseAddrPort("[2001:db8::2]:7"),
	}
	conn := set.Open(info, func(*pipeline.Event) {})
	conn.Data(Client, []byte("hi\nabc"), 5)
	event := conn.Event(Client)
	id := pipeline.TransactionID(info.Session, uint8(Client), 3)
	client, server := info.Client.Addr().Unmap().As4(), info.Server.Addr().As16()
	if event.Vlan != 77 || event.Transport != info.Transport || string(event.CommunityId) != string(info.CommunityID[:]) ||
		string(event.Id) != string(id[:]) || event.Dataset != pipeline.Dataset_REDIS || event.Timestamp != 5 || event.Partial {
		t.Errorf("%v", event)
	}
	if string(event.Source.Ip) != string(client[:]) || event.Source.Port != 1234 || string(event.Destination.Ip) != string(server[:]) || event.Destination.Port != 7 {
		t.Errorf("from %v to %v", event.Source, event.Destination)
	}
	if other := conn.EventAt(Server, 9); slices.Equal(other.Id, event.Id) || conn.Offset(Client) != 3 {
		t.Errorf("an event at another offset has the same id; the offset is %d", conn.Offset(Client))
	}
	conn.streams[Client].partial = true
	if !conn.Event(Client).Partial || conn.Event(Server).Partial {
		t.Error("an event behind lost bytes is not partial, or one of the other side is")
	}
}

// TestDatagramsHaveIDsOfTheirOwn: of their time and their key, which do not make up for each other.
func TestDatagramsHaveIDsOfTheirOwn(t *testing.T) {
	set, _ := toys(new([]string), nil)
	conn := set.Open(Info{Transport: pipeline.Transport_UDP}, nil)
	seen := map[string]bool{}
	for at := range int64(50) {
		conn.streams[Client].lastAt = 1_700_000_000e9 + at
		for key := range uint64(50) {
			id := string(conn.EventUDP(Client, key).Id)
			if seen[id] {
				t.Fatalf("time %d and key %d have the id of others", at, key)
			}
			seen[id] = true
		}
	}
}

// TestStoppedAgainAndAgainIsToldLessOften: the first time, the second, the fourth and so on.
func TestStoppedAgainAndAgainIsToldLessOften(t *testing.T) {
	set, _ := toys(new([]string), nil)
	var events []*pipeline.Event
	conn := set.Open(Info{}, func(event *pipeline.Event) { events = append(events, event) })
	conn.emitStop("early")
	if len(events) != 0 {
		t.Error("an event of no protocol")
	}
	conn.stops = 0
	run(conn, ">hi\n")
	ids := map[string]bool{}
	for i, want := range []int{1, 2, 2, 3, 3, 3, 3, 4, 4} {
		if conn.emitStop("again"); len(events) != want {
			t.Errorf("stopped %d times: %d events, want %d", i+1, len(events), want)
		}
	}
	for _, event := range events {
		ids[string(event.Id)] = true
	}
	if len(ids) != len(events) {
		t.Errorf("%d events have %d ids", len(events), len(ids))
	}
}

// TestTextIsCutBeyondItsLimit, and the event says so.
func TestTextIsCutBeyondItsLimit(t *testing.T) {
	set, _ := toys(new([]string), nil)
	conn := set.Open(Info{}, nil)
	event := conn.Event(Client)
	if got := conn.Text(event, []byte("12345678"), 8); got != "12345678" || len(event.Tags) > 0 {
		t.Errorf("%q, tags %q", got, event.Tags)
	}
	if got := conn.Text(event, []byte("123456789"), 8); got != "123456…89" || !slices.Equal(event.Tags, []string{pipeline.TagTruncated}) {
		t.Errorf("%q, tags %q", got, event.Tags)
	}
}

// A holdingToy is a toy that says what it holds, and emits an event when it is closed.
type holdingToy struct {
	toy
	held int
}

func (p *holdingToy) Held() int { return p.held }

func (p *holdingToy) Close(at int64) {
	p.toy.Close(at)
	p.conn.Emit(p.conn.Event(Client))
}

// TestConnectionIsChargedWithItsBuffersAndItsParser, and the largest one gives its state up when the budget is exceeded.
func TestConnectionIsChargedWithItsBuffersAndItsParser(t *testing.T) {
	reg := prometheus.NewRegistry()
	set, first := toys(new([]string), reg)
	parser := &holdingToy{toy: *first}
	set.list[0].New = func() Parser { return parser }
	budget := memory.New(4<<20, nil)
	account := budget.Open("parsers")
	set.SetMemory(account)
	var events []*pipeline.Event
	conn := set.Open(Info{}, func(event *pipeline.Event) { events = append(events, event) })
	check := func(what string, want int) {
		t.Helper()
		if got := conn.held.Bytes(); got != want || set.holders.Used() != want {
			t.Errorf("%s: %d bytes are charged, %d to all; want %d", what, got, set.holders.Used(), want)
		}
	}
	check("open", connBytes+parserBytes)
	run(conn, ">hi\n")
	check("a message, and the bytes that wait for the answer", connBytes+parserBytes+newTail)
	run(conn, "<h")
	check("the beginning of an answer", connBytes+parserBytes+2*newTail)
	run(conn, "<i\n", ">unfinished")
	check("the beginning of a message", connBytes+parserBytes+newTail)
	run(conn, "<unfinished")
	check("the beginnings of two messages", connBytes+parserBytes+2*newTail)
	parser.held = 1000
	conn.End(Client, 9)
	check("what the parser holds", connBytes+parserBytes+2*newTail+1000)
	conn.beginning = beginning{bytes: make([]byte, 0, 300)}
	conn.chargeHeld(9)
	check("the beginning", connBytes+parserBytes+2*newTail+1000+300)
	conn.beginning = beginning{}

	parser.held = 8 << 20
	if conn.Gap(Server, 1, 9); len(events) != 2 {
		t.Fatalf("%d events, want that of the stop and that of the parser", len(events))
	}
	check("given up", connBytes+parserBytes)
	for _, event := range events {
		if !event.Partial || !slices.Contains(event.Tags, pipeline.TagMemoryLimit) {
			t.Errorf("%v", event)
		}
	}
	if got := testutil.ToFloat64(set.metrics.anomalies.WithLabelValues("toy", "memory_limit")); got != 1 {
		t.Errorf("%v connections have given up", got)
	}

	// Between inputs: another part has grown.
	parser.held = 100 << 10
	run(conn, ">#a\n")
	check("within the budget", connBytes+parserBytes+100<<10)
	other := budget.OpenFixed("another part")
	other.Add(16 << 20)
	set.EnforceBudget(10)
	check("beyond the budget", connBytes+parserBytes)
	if set.pooled != 0 {
		t.Errorf("%d bytes are in the pools", set.pooled)
	}
	conn.Close(11)
	if set.holders.Used() != 0 || set.holders.Len() != 0 {
		t.Errorf("%d bytes of %d connections are charged", set.holders.Used(), set.holders.Len())
	}
}

// A tickingToy is a holdingToy that waits no longer when its time has come.
type tickingToy struct{ holdingToy }

func (p *tickingToy) Tick(int64) { p.held = 0 }

// TestMemoryOfWhatTimeEndsIsReleased at once: a connection that has timed out may have no further input.
func TestMemoryOfWhatTimeEndsIsReleased(t *testing.T) {
	set, first := toys(new([]string), nil)
	parser := &tickingToy{holdingToy{toy: *first, held: 1000}}
	set.list[0].New = func() Parser { return parser }
	conn := set.Open(Info{}, func(*pipeline.Event) {})
	conn.Data(Client, []byte("hi\n"), 1)
	held := conn.held.Bytes()
	conn.Tick(2)
	if got := conn.held.Bytes(); got != held-1000 || set.holders.Used() != got {
		t.Errorf("%d bytes are charged, %d to all; before it were %d", got, set.holders.Used(), held)
	}
}

// TestProtocolIsDetectedFromUnreadBytesOfBothSides once its parser has left the connection.
func TestProtocolIsDetectedFromUnreadBytesOfBothSides(t *testing.T) {
	for _, step := range [][]string{{">hi\n", "<hi\n", "<yo", ">become \ny"}, {">hi\n", "<hi\n", "<y", ">become \nyo"}} {
		set, _ := toys(new([]string), nil)
		conn := set.Open(Info{}, func(*pipeline.Event) {})
		if run(conn, step...); conn.state != parsing || conn.Protocol() != "other" {
			t.Errorf("%q: state %d, protocol %q", step, conn.state, conn.Protocol())
		}
	}
}

// TestConfigHasBounds, which belong to it.
func TestConfigHasBounds(t *testing.T) {
	set := func(name string, value int, c *Config) {
		switch size := config.Size(value); name {
		case "max_unparsed_bytes":
			c.MaxUnparsedBytes = size
		case "detect_bytes":
			c.DetectBytes = size
		case "resync_bytes":
			c.ResyncBytes = size
		case "max_errors":
			c.MaxErrors = value
		}
	}
	for name, bounds := range map[string][2]int{
		"max_unparsed_bytes": {16 << 10, 64 << 20}, "detect_bytes": {64, 64 << 10}, "resync_bytes": {0, 64 << 20}, "max_errors": {1, 1 << 20},
	} {
		for value, want := range map[int]int{bounds[0] - 1: 1, bounds[0]: 0, bounds[1]: 0, bounds[1] + 1: 1} {
			cfg := Default()
			set(name, value, &cfg)
			problems := cfg.Check()
			if len(problems) != want || want == 1 && problems[0].Key != name {
				t.Errorf("%s of %d: %v", name, value, problems)
			}
		}
	}
	if problems := Default().Check(); len(problems) != 0 {
		t.Error(problems)
	}
}

// TestAccountIsChargedWithThePools, from the first moment on.
func TestAccountIsChargedWithThePools(t *testing.T) {
	set, _ := toys(new([]string), nil)
	for range 40 {
		set.releaseTail(make([]byte, 0, maxFreeTail))
	}
	budget := memory.New(1<<30, nil)
	set.SetMemory(budget.Open("parsers"))
	if got := int(budget.Used()); got != 40*maxFreeTail {
		t.Errorf("%d bytes are charged, want %d", got, 40*maxFreeTail)
	}
	next := memory.New(1<<30, nil)
	set.SetMemory(next.Open("parsers"))
	if budget.Used() != 0 || next.Used() != 40*maxFreeTail {
		t.Errorf("%d bytes are charged to the old account, %d to the new one", budget.Used(), next.Used())
	}
}

// TestClosedConnectionReturnsItsBuffers to the pools of its set.
func TestClosedConnectionReturnsItsBuffers(t *testing.T) {
	check := func(tails int, steps ...string) {
		t.Helper()
		set, _ := toys(new([]string), nil)
		conn := set.Open(Info{}, func(*pipeline.Event) {})
		run(conn, steps...)
		if conn.Close(9); len(set.freeTails) != tails || len(set.freeConns) != 1 {
			t.Errorf("%q: %d buffers are free, want %d", steps, len(set.freeTails), tails)
		}
	}
	check(0)
	check(2, ">h") // with a copy, the beginning that is held
	check(2, ">h", "<h")
	check(1, ">hi\n") // of the proof
	check(2, ">hi\nunfinished")
	check(2, ">"+strings.Repeat("x", 70))
}

// TestReasonsAreCountedForTheirProtocol, and not before it is known.
func TestReasonsAreCountedForTheirProtocol(t *testing.T) {
	reg := prometheus.NewRegistry()
	set, _ := toys(new([]string), reg)
	conn := set.Open(Info{}, nil)
	conn.Count("early")
	conn.countDropped("early", 3)
	run(conn, ">hi\n")
	conn.Count("odd")
	conn.Count("odd")
	conn.countDropped("odd", 3)
	conn.countDropped("odd", 0)
	if got := counted(t, reg, "tidegate_protocols_anomalies_total"); got != 2 {
		t.Errorf("%v anomalies", got)
	}
	if got := counted(t, reg, "tidegate_protocols_dropped_bytes_total"); got != 3 {
		t.Errorf("%v bytes", got)
	}
}
