package protocols

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"tidegate/pipeline"
)

// TestHeldBeginningIsReadBeforeWhatDecided: the client's first bytes match no protocol, later ones do. Bytes that were
// not held are a gap, of which an event says so. A parser that has dropped the connection sees no gap. The one that it is
// passed on to begins behind the gap, in mid-stream.
func TestHeldBeginningIsReadBeforeWhatDecided(t *testing.T) {
	check := func(first string, size int, stopped bool, want ...string) {
		t.Helper()
		var log []string
		set, _ := toys(&log, nil)
		for i := range set.list {
			set.list[i].Nested = true
		}
		set.cfg.MaxUnparsedBytes = 1 << 20
		var events []*pipeline.Event
		emit := func(event *pipeline.Event) { events = append(events, event) }
		conn := set.Open(Info{Server: netip.MustParseAddrPort("192.0.2.1:7")}, emit)
		line := strings.Repeat("n", 70) + "\n"
		run(conn, ">"+first+line, ">"+strings.Repeat("x", size), ">hi\n", ">#a\n")
		conn.Close(9)
		got := strings.ReplaceAll(strings.Join(log, ", "), strings.TrimSpace(line), "n")
		got = strings.ReplaceAll(got, strings.Repeat("x", maxBeginning-len(first)-len(line)), "x")
		if got != strings.Join(want, ", ") {
			t.Errorf("%q and %d bytes: %s, want %s", first, size, got, strings.Join(want, ", "))
		}
		isStop := func(e *pipeline.Event) bool { return slices.Contains(e.Tags, pipeline.TagParsingStopped) }
		if slices.ContainsFunc(events, isStop) != stopped {
			t.Errorf("%q and %d bytes: events %v, want one of a stop: %t", first, size, events, stopped)
		}
	}
	check("b\n", 0, false, ">b@0", ">n@0", ">hi@2", ">#a@3", "close")
	check("b\n", maxBeginning-73, false, ">b@0", ">n@0", ">xhi@0", ">#a@3", "close")
	check("b\n", maxBeginning, true, ">b@0", ">n@0", fmt.Sprint(">gap ", maxBeginning), ">gap 3", ">#a@3", "close")
	check("drop\n", maxBeginning, false, ">drop@0", "close")
	check("become other\n", 0, false, ">become other@0", "close", ">n@0", ">hi@2", ">#a@3", "close")
	check("become other\n", maxBeginning, true, ">become other@0", "close", ">gap 1", ">gap 3", ">#a@3", "close")
	check("become \n", maxBeginning, true, ">become @0", "close", ">gap 1", ">hi@2", ">#a@3", "close")
	check("!#\n!#\n!", maxBeginning, true, ">gap 1", ">#@0", ">gap 1", ">#@0", ">gap 1", "close", ">gap 1", ">hi@2", ">#a@3", "close")
	check("become nobody\n", maxBeginning, true, ">become nobody@0", "close")
}
