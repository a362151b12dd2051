package alerts

import (
	"fmt"
	"testing"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/consumer"
)

// TestWindowOfAMatch is the one that contains it, else one that begins soon after it, else the oldest of many.
func TestWindowOfAMatch(t *testing.T) {
	cfg := DefaultGrouper()
	length := int64(cfg.Window)
	find := func(at int64, starts ...int64) string {
		g := NewGrouper(cfg, 0)
		key := groupKey{"r", "g"}
		group := g.newGroup(key)
		for _, start := range starts {
			group.windows = append(group.windows, &window{start: start})
		}
		if found := g.findWindow(key, at); found != nil {
			return fmt.Sprint(found.start)
		}
		return "none"
	}
	check := func(what, got string, want any) {
		t.Helper()
		if got != fmt.Sprint(want) {
			t.Errorf("%s: %s, want %v", what, got, want)
		}
	}
	at := 100 * length
	check("no window", find(at), "none")
	check("its begin", find(at, at), at)
	check("its end", find(at, at-length+1), at-length+1)
	check("behind its end", find(at, at-length), "none")
	check("soon after", find(at, at+length-1), at+length-1)
	check("a window later", find(at, at+length), "none")
	check("between two", find(at, at-length, at+length-1), at+length-1)
	check("between two that are far", find(at, at-length, at+length), "none")
	check("the later of two", find(at, at-length/2, at), at)
	check("the earlier of two", find(at, at-length+1, at+1), at-length+1)
	var many []int64
	for i := range maxWindows {
		many = append(many, at+int64(i+2)*length)
	}
	check("before many", find(at, many...), many[0])
	check("before fewer", find(at, many[1:]...), "none")
	if found := NewGrouper(cfg, 0).findWindow(groupKey{"r", "other"}, at); found != nil {
		t.Error("an unknown group has a window")
	}
}

// TestGroupsOfARuleAreCounted, that of all others excepted.
func TestGroupsOfARuleAreCounted(t *testing.T) {
	g := NewGrouper(DefaultGrouper(), 0)
	first, second, others := g.newGroup(groupKey{"r", "a"}), g.newGroup(groupKey{"r", "b"}), g.newGroup(groupKey{"r", OtherGroups})
	if g.groupsPerRule["r"] != 2 || len(g.groups) != 3 || first.fingerprint == second.fingerprint || first.fingerprint != fingerprint(first.groupKey) {
		t.Errorf("%d groups of the rule, %d in all", g.groupsPerRule["r"], len(g.groups))
	}
	for i, start := range []int64{30, 10, 20} {
		g.insertWindow(first, &window{start: start})
		g.insertWindow(others, &window{start: start})
		if g.openCount != i+1 || g.newestStart != 30 {
			t.Errorf("%d open windows, newest %d", g.openCount, g.newestStart)
		}
	}
	for i, want := range []int64{10, 20, 30} {
		if first.windows[i].start != want {
			t.Errorf("window %d begins at %d", i, first.windows[i].start)
		}
	}
	for i := range maxWindows {
		g.insertWindow(first, &window{start: int64(100 + i)})
	}
	if len(first.windows) != maxWindows || first.windows[0].start != 100 || g.openCount != maxWindows {
		t.Errorf("%d windows from %d, %d are open", len(first.windows), first.windows[0].start, g.openCount)
	}

	// Windows that lie ahead are closed, and groups without windows dropped.
	g.insertWindow(second, &window{start: 500})
	g.dropWindowsAfter(101)
	if len(first.windows) != 2 || g.openCount != 2 || g.newestStart != 101 || len(others.windows) != 3 || g.groups[second.groupKey] != nil || g.groupsPerRule["r"] != 1 {
		t.Errorf("%d windows, %d open, newest %d, %d groups", len(first.windows), g.openCount, g.newestStart, g.groupsPerRule["r"])
	}
	g.dropWindowsAfter(0)
	if len(g.groups) != 0 || g.openCount != 0 || g.newestStart != 0 || len(g.groupsPerRule) != 0 {
		t.Errorf("%d groups, %d open windows, %v", len(g.groups), g.openCount, g.groupsPerRule)
	}
}

// TestMatchCountsWhenItsBatchWasShipped, or when its block was formed, whichever is earliest: the clock of a host may be ahead.
func TestMatchCountsWhenItsBatchWasShipped(t *testing.T) {
	check := func(timestamp, shipped, ingested, want int64) {
		t.Helper()
		g := NewGrouper(DefaultGrouper(), 0)
		g.AddVerdicts(&pipeline.Event{
			Timestamp: timestamp, Ingested: ingested, Verdicts: []*pipeline.Verdict{{Rule: "r", Group: "g", Score: 7}},
		}, shipped, 5)
		revisions, opened := g.Flush()
		if len(revisions) != 1 || len(opened) != 1 || revisions[0].WindowStart.UnixNano() != want || revisions[0].Offset != 5 || revisions[0].Score != 7 ||
			revisions[0].Count != 1 || revisions[0].Revision != 1 {
			t.Errorf("%d, shipped %d, ingested %d: %+v", timestamp, shipped, ingested, revisions[0])
		}
	}
	hour := int64(time.Hour)
	check(10*hour, 0, 0, 10*hour)
	check(10*hour, 9*hour, 0, 9*hour)
	check(10*hour, 11*hour, 0, 10*hour)
	check(10*hour, 9*hour, 8*hour, 8*hour)
	check(10*hour, 1, 0, 1)
	check(10*hour, 0, 1, 1)

	g := NewGrouper(DefaultGrouper(), 0)
	latest := g.LatestStart(hour)
	if latest != hour+int64(g.cfg.AllowedLateness) {
		t.Errorf("the latest start is %d", latest)
	}
	for start, want := range map[int64]bool{latest: false, latest + 1: true} {
		if g.newestStart = start; g.IsAheadOf(hour) != want {
			t.Errorf("a window at %d is ahead: %t", start, !want)
		}
	}
}

// TestMessageHasAMarkOfItsValueAndTime.
func TestMessageHasAMarkOfItsValueAndTime(t *testing.T) {
	record := consumer.Record{Offset: 7, Time: 5, Value: []byte("a")}
	mark := markOf(record)
	if !mark.isSet || mark.offset != 7 || parseMark(mark.String()) != mark {
		t.Errorf("%+v, read as %+v", mark, parseMark(mark.String()))
	}
	later, other := record, record
	later.Time, other.Value = 6, []byte("b")
	if markOf(later).sum == mark.sum || markOf(other).sum == mark.sum {
		t.Error("another message has the same mark")
	}
	for _, word := range []string{"", "@", "@7", "7:0", "@x:0", "@7:x", "@-1:0", "@7:"} {
		if got := parseMark(word); got != (recordMark{}) {
			t.Errorf("%q is the mark %+v", word, got)
		}
	}
	if got := parseMark("@0:00ff"); got != (recordMark{isSet: true, sum: 255}) {
		t.Errorf("%+v", got)
	}
}

// TestMessageOfTheAlertsTopicIsAnAlert with an id and a fingerprint.
func TestMessageOfTheAlertsTopicIsAnAlert(t *testing.T) {
	check := func(value string, err error, want bool) {
		t.Helper()
		alert, got := decodeAlert(consumer.Record{Value: []byte(value), Err: err})
		if (alert != nil) != want || (got == nil) != want {
			t.Errorf("%s: %+v, %v", value, alert, got)
		}
	}
	check(`{"id":"a","fingerprint":"f"}`, nil, true)
	check(`{"id":"a","fingerprint":"f"}`, consumer.ErrUnwritable, false)
	check(`{"id":"a"}`, nil, false)
	check(`{"fingerprint":"f"}`, nil, false)
	check(`garbage`, nil, false)
}

// TestUndeliveredMessagesAreThoseBehindAndThosePending.
func TestUndeliveredMessagesAreThoseBehindAndThosePending(t *testing.T) {
	d := &deliverer{nextOffset: 5, resumed: progress{next: 10, pending: map[int64]bool{7: true, 3: true}}}
	for offset, want := range map[int64]bool{3: false, 4: false, 5: false, 6: false, 7: true, 9: false, 10: true, 11: true} {
		if d.isUndelivered(offset) != want {
			t.Errorf("offset %d is undelivered: %t", offset, !want)
		}
	}
}

// TestRevisionsOfAnOlderWindowAreNotSent: they keep the alert open. What was sent by an earlier run is not pending.
func TestRevisionsOfAnOlderWindowAreNotSent(t *testing.T) {
	d := attemptsDeliverer(true)
	d.destination.destination = &alertmanager{}
	d.nextOffset, d.resumed = 5, progress{next: 5}
	base := time.Unix(1000, 0)
	see := func(id string, revision uint64, start time.Time, offset int64) *openAlert {
		d.observe(&pipeline.Alert{ID: id, Revision: revision, Fingerprint: "f", WindowStart: start}, consumer.Record{Offset: offset, Time: base.UnixNano() + offset})
		return d.open["f"]
	}
	open := see("a", 1, base, 4)
	if open == nil || open.pending() || !open.accepted || d.pending != 0 || open.lastSent.UnixNano() != base.UnixNano()+4 {
		t.Fatalf("of an earlier run: %+v", open)
	}
	if see("a", 2, base, 5); !open.pending() || open.undelivered != 5 || d.pending != 1 || open.newest.Revision != 2 || open.first.Revision != 1 {
		t.Errorf("a revision: %+v", open)
	}
	see("a", 2, base, 6)
	see("a", 1, base, 6)
	if open.newest.Revision != 2 || open.updated.UnixNano() != base.UnixNano()+5 {
		t.Errorf("a revision again: %+v", open)
	}
	if see("b", 9, base.Add(-time.Hour), 7); open.newest.ID != "a" || open.updated.UnixNano() != base.UnixNano()+7 || open.undelivered != 5 {
		t.Errorf("an older window: %+v", open)
	}
	if see("c", 1, base.Add(time.Hour), 8); open.newest.ID != "c" || open.undelivered != 5 || d.pending != 1 {
		t.Errorf("a newer window: %+v", open)
	}
}

// TestSeverityThatRisesIsALabel: an open alert takes over a higher severity, and keeps its other labels. It keeps it also in the next window.
func TestSeverityThatRisesIsALabel(t *testing.T) {
	d := attemptsDeliverer(true)
	d.destination.destination = &alertmanager{}
	base := time.Unix(1000, 0)
	for offset, c := range []struct {
		id, severity, want string
		start              time.Time
	}{
		{"a", "medium", "medium", base},
		{"a", "critical", "critical", base},
		{"a", "high", "critical", base},
		{"b", "medium", "critical", base.Add(time.Hour)},
	} {
		alert := &pipeline.Alert{ID: c.id, Revision: uint64(offset + 1), Rule: "r", Host: c.id, Fingerprint: "f", Severity: c.severity, WindowStart: c.start}
		d.observe(alert, consumer.Record{Offset: int64(offset), Time: base.UnixNano()})
		open := d.open["f"]
		labels := (&alertmanager{}).encodeAlert(notification{newest: open.newest, first: open.first}).Labels
		if labels["severity"] != c.want || labels["host"] != "a" {
			t.Errorf("%d: %v, want severity %s", offset, labels, c.want)
		}
	}
}
