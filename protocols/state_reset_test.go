package protocols

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tidegate/pipeline"
)

// TestNothingOfAParserOutlivesIt: the next one begins without the requests, errors and positions of the one before.
func TestNothingOfAParserOutlivesIt(t *testing.T) {
	type states struct {
		skip                                                 uint64
		need                                                 int
		reparse, lost, partial, ended                        bool
		switching, resuming, muted, undetected, mid, infoMid bool
		errors, redetects                                    int
		refuted, answeredAs                                  uint64
	}
	var log []string
	open := func() *Conn {
		log = nil
		set, _ := toys(&log, nil)
		conn := set.Open(Info{}, func(*pipeline.Event) {})
		run(conn, ">hi\n", "<a\n")
		log = nil
		for dir := range conn.streams {
			stream := &conn.streams[dir]
			stream.skip, stream.need, stream.reparse, stream.lost, stream.partial, stream.ended = 3, 4, true, true, true, true
		}
		conn.switching, conn.resuming, conn.muted, conn.undetected = true, true, true, true
		conn.errorScore, conn.redetects, conn.refuted, conn.answeredAs = 5, 6, 7, 8
		return conn
	}
	check := func(what string, want states, wantLog string, change func(c *Conn)) {
		t.Helper()
		conn := open()
		change(conn)
		for dir := range conn.streams {
			stream := &conn.streams[dir]
			got := states{
				stream.skip, stream.need, stream.reparse, stream.lost, stream.partial, stream.ended,
				conn.switching, conn.resuming, conn.muted, conn.undetected, conn.midStream, conn.info.MidStream,
				conn.errorScore, conn.redetects, conn.refuted, conn.answeredAs,
			}
			if got != want {
				t.Errorf("%s: side %d: %+v, want %+v", what, dir, got, want)
			}
		}
		if got := strings.Join(log, ", "); got != wantLog {
			t.Errorf("%s: %s, want %s", what, got, wantLog)
		}
	}
	check("a restart", states{partial: true, mid: true, infoMid: true}, "close", func(c *Conn) { c.Restart(9) })
	check("another protocol", states{
		partial: true, ended: true, muted: true, undetected: true, redetects: 6, refuted: 7, answeredAs: 8,
	}, "close, >end, <end", func(c *Conn) { c.resuming, c.nextProtocol = false, "other"; c.switchProtocol(9) })
	check("another protocol, within a message", states{
		lost: true, partial: true, ended: true, muted: true, undetected: true, redetects: 6, refuted: 7, answeredAs: 8, mid: true, infoMid: true,
	}, "close, >gap 1, >end, <end", func(c *Conn) { c.nextProtocol = "other"; c.switchProtocol(9) })
	check("an unknown protocol", states{
		partial: true, ended: true, muted: true, undetected: true, redetects: 6, refuted: 7, answeredAs: 8, mid: true, infoMid: true,
	}, "close", func(c *Conn) { c.nextProtocol = "nobody"; c.switchProtocol(9) })
	check("an answer of another protocol", states{
		ended: true, resuming: true, undetected: true, redetects: 6, refuted: 7, answeredAs: 8, errors: 5,
	}, "close", func(c *Conn) { c.changeProtocol(1, Server, 9) })
	check("an answer of no protocol", states{
		ended: true, muted: true, undetected: true, redetects: 6, refuted: 3, errors: 5,
	}, "close", func(c *Conn) {
		c.proof = proof{open: true, bytes: [2][]byte{Server: []byte("error")}}
		c.leaveProtocol(9)
	})
	check("a panic", states{
		partial: true, ended: true, undetected: true, redetects: 6, refuted: 7, answeredAs: 8, errors: 5, mid: true,
	}, "", func(c *Conn) { defer c.recoverPanic(); panic("as asked") })
	check("memory", states{
		lost: true, partial: true, ended: true, muted: true, undetected: true, redetects: 6, refuted: 7, answeredAs: 8, errors: 5, mid: true, infoMid: true,
	}, "close", func(c *Conn) { c.giveUp(9) })
}

// TestEventsBehindAGivenUpStateAreComplete.
func TestEventsBehindAGivenUpStateAreComplete(t *testing.T) {
	var log []string
	set, _ := toys(&log, nil)
	var events []*pipeline.Event
	conn := set.Open(Info{}, func(event *pipeline.Event) { events = append(events, event) })
	run(conn, ">hi\n")
	conn.giveUp(3)
	run(conn, ">#\nevent\n")
	if len(events) != 2 || events[1].Partial || len(events[1].Tags) != 0 {
		t.Errorf("events %v", events)
	}
}

// TestErrorCostsOneByte, and the parser is told of a gap of it. A message outweighs a quarter of an error.
func TestErrorCostsOneByte(t *testing.T) {
	var log []string
	reg := prometheus.NewRegistry()
	set, _ := toys(&log, reg)
	conn := set.Open(Info{}, func(*pipeline.Event) {})
	run(conn, ">hi\n", ">!ab#c\n")
	if got := strings.Join(log, ", "); got != ">hi@0, >gap 1, >gap 2, >#c@1" || conn.streams[Client].offset != 9 || conn.errorScore != errorWeight-1 {
		t.Errorf("%s, offset %d, score %d", got, conn.streams[Client].offset, conn.errorScore)
	}
	if got := testutil.ToFloat64(set.metrics.dropped.WithLabelValues("toy", "resync")); got != 3 {
		t.Errorf("%v bytes are dropped", got)
	}
	conn = set.Open(Info{}, func(*pipeline.Event) {})
	run(conn, ">hi\n")
	stream := &conn.streams[Client]
	stream.need, stream.skip = 7, 7
	if conn.loseSync(Client); stream.offset != 4 || !stream.lost || !stream.partial || stream.need != 0 || stream.skip != 0 {
		t.Errorf("%+v", stream)
	}
	log, conn.state = nil, dropped
	if conn.loseSync(Client); len(log) != 0 {
		t.Errorf("a parser that is left is told of a gap: %q", log)
	}

	// The parser is stopped by the error behind those that it may have.
	conn = set.Open(Info{}, func(*pipeline.Event) {})
	run(conn, ">hi\n")
	for i, want := range []bool{false, false, true} {
		if conn.countError(); conn.switching != want || conn.resuming != want || conn.errorScore != errorWeight*(i+1) {
			t.Errorf("error %d: stopped %t, score %d", i+1, conn.switching, conn.errorScore)
		}
	}
}
