package protocols

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline"
	"tidegate/pipeline/memory"
)

// TestWhatIsPooledIsUsedAgain, the last one too, and is charged no more.
func TestWhatIsPooledIsUsedAgain(t *testing.T) {
	set, parser := toys(new([]string), nil)
	budget := memory.New(1<<30, nil)
	set.SetMemory(budget.Open("parsers"))
	conn := set.Open(Info{}, nil)
	conn.Close(0)
	if set.pooled != connBytes {
		t.Errorf("%d bytes are pooled", set.pooled)
	}
	if again := set.Open(Info{}, nil); again != conn || set.pooled != 0 || len(set.freeConns) != 0 {
		t.Errorf("%d bytes are pooled when the connection is used", set.pooled)
	}
	set.releaseParser(0, parser)
	if set.takeParser(0) != parser || set.pooled != 0 {
		t.Errorf("%d bytes are pooled when the parser is used", set.pooled)
	}
	tail := make([]byte, 0, maxFreeTail)
	set.releaseTail(tail)
	if got := set.takeTail(); &got[:1][0] != &tail[:1][0] || set.pooled != 0 {
		t.Errorf("%d bytes are pooled when the buffer is used", set.pooled)
	}
	before := budget.Used()
	for range 40 {
		set.releaseTail(make([]byte, 0, maxFreeTail))
	}
	if got := budget.Used() - before; got < 30*maxFreeTail || got > 40*maxFreeTail+1<<16 {
		t.Errorf("%d bytes are charged for 40 buffers", got)
	}
}

// TestEvictedRequestIsSkipped once for each of its replies.
func TestEvictedRequestIsSkipped(t *testing.T) {
	var pairing Pairing[int]
	check := func(what string, skipping bool, want int) {
		t.Helper()
		if pairing.Skipping() != skipping {
			t.Errorf("%s: skipping %t", what, pairing.Skipping())
		}
		request, skipped := pairing.Reply()
		if skipped != skipping || (request == nil) != (want == 0) || request != nil && *request != want {
			t.Errorf("%s: skipped %t", what, skipped)
		}
	}
	pairing.Expect(1)
	pairing.Expect(2)
	if pairing.Evict(2) != 1 {
		t.Error("the oldest is not evicted")
	}
	check("the first reply", true, 0)
	check("the second reply", true, 0)
	check("the reply to the next one", false, 2)
	pairing.Evict(1)
	pairing.Flush(func(int) {})
	check("behind a flush", false, 0)
}

// TestUnreadableDatagramIsCounted, and what follows is read.
func TestUnreadableDatagramIsCounted(t *testing.T) {
	var log []string
	reg := prometheus.NewRegistry()
	set, _ := toys(&log, reg)
	set.list[0].UDP = true
	conn := set.Open(Info{Transport: pipeline.Transport_UDP}, nil)
	for i, data := range []string{"hi\n", "!", "a\n"} {
		conn.Datagram(Client, []byte(data), int64(i))
	}
	if got := counted(t, reg, "tidegate_protocols_errors_total"); got != 1 || strings.Join(log, ", ") != ">hi@0, >a@2" {
		t.Errorf("%v errors, %q", got, log)
	}
}

// TestBufferingStopsWithWhatHasArrived: the bytes are released, or read if the port decides.
func TestBufferingStopsWithWhatHasArrived(t *testing.T) {
	conn := openOn(9, nil)
	conn.bufferData(Client, []byte("x"), 1)
	if conn.bothSent() {
		t.Error("one side is both")
	}
	conn.bufferData(Server, []byte("x"), 1)
	if !conn.bothSent() {
		t.Error("both sides have sent")
	}
	conn.stopBuffering(2)
	if conn.state != dropped || !conn.undetected || conn.streams[Client].tail != nil || conn.streams[Server].tail != nil || len(conn.pieces) != 0 || conn.streams[Client].offset != 1 {
		t.Errorf("state %d, %d pieces", conn.state, len(conn.pieces))
	}
	conn = openOn(7, nil)
	conn.bufferData(Client, []byte("h"), 1)
	conn.stopBuffering(2)
	if conn.state != parsing || string(conn.streams[Client].tail) != "h" {
		t.Errorf("on the port of a protocol: state %d, %q is unread", conn.state, conn.streams[Client].tail)
	}
	server := openOn(9, nil)
	server.bufferData(Server, []byte("x"), 1)
	if server.bothSent() {
		t.Error("the server is both")
	}
}

// TestShortQueuesAreKept for the next connection, without their requests.
func TestShortQueuesAreKept(t *testing.T) {
	for size, kept := range map[int]bool{1: true, maxKeptQueue: true, maxKeptQueue + 1: false} {
		pairing := Pairing[*int]{queue: make([]*int, size), uncertain: true, head: 1}
		pairing.queue[0] = new(int)
		pairing.Reset()
		if got := cap(pairing.queue); (got == size) != kept || !kept && got != 0 || len(pairing.queue) != 0 || pairing.head != 0 || pairing.uncertain {
			t.Errorf("a queue of %d: %d are kept, %+v", size, got, pairing)
		}
		if kept && pairing.queue[:1][0] != nil {
			t.Error("a request is kept")
		}
	}
}

// A droppingToy drops its connection at a gap.
type droppingToy struct{ toy }

func (p *droppingToy) Gap(dir Dir, size int) bool {
	p.conn.Drop()
	return p.toy.Gap(dir, size)
}

// TestRequestsOfAParserAreAppliedAtAGap, and a connection is counted once.
func TestRequestsOfAParserAreAppliedAtAGap(t *testing.T) {
	var log []string
	reg := prometheus.NewRegistry()
	set, _ := toys(&log, reg)
	set.list[0].New = func() Parser { return &droppingToy{toy{log: &log}} }
	conn := set.Open(Info{}, nil)
	run(conn, ">hi\n", "<x\nunread", "> gap 5")
	if got := strings.Join(log, ", "); got != ">hi@0, <x@1, >gap 5, close" || conn.state != dropped || conn.parser != nil || conn.streams[Server].tail != nil {
		t.Errorf("%s, state %d", got, conn.state)
	}
	if got := counted(t, reg, "tidegate_protocols_connections_total"); got != 1 {
		t.Errorf("%v connections", got)
	}
	conn.lastProto, conn.proto = 0, 0
	for range 3 {
		conn.Count("odd")
	}
	if counter := set.counters[0].anomalies["odd"]; counter == nil || len(set.counters[0].anomalies) != 1 {
		t.Errorf("%d counters are kept", len(set.counters[0].anomalies))
	}
}
