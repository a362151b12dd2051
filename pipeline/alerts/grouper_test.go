package alerts

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tidegate/pipeline"
)

var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).UnixNano()

const sec = int64(time.Second)

// match is an event at a second after t0 with one verdict.
func match(at int64, rule, group string) *pipeline.Event {
	return &pipeline.Event{
		Id: []byte("0123456789abcdef"), Dataset: pipeline.Dataset_DNS, Timestamp: t0 + at*sec, Ingested: t0 + 1e6*sec,
		Host:      &pipeline.Host{Name: "h", Id: "hid", Cluster: "c"},
		Container: &pipeline.Container{Id: "cid", Name: "web", Image: "nginx"},
		Source:    &pipeline.Endpoint{Ip: []byte{10, 0, 0, 1}, Port: 1234}, Destination: &pipeline.Endpoint{Ip: []byte{10, 0, 0, 2}, Port: 53},
		Verdicts: []*pipeline.Verdict{{
			Detector: "rules", Rule: rule, Version: "3", Severity: pipeline.Severity_HIGH, Score: 80, Title: "A title", Group: group,
			Evidence: fmt.Sprintf("seen at %d", at), Tags: []string{"attack.t1071"},
		}},
	}
}

const late = 1 << 62 // a shipping time so late that the event's own time counts

// show returns the alerts in one line: rule, group, start of the window, count.
func show(list []*pipeline.Alert) string {
	var b strings.Builder
	for _, a := range list {
		fmt.Fprintf(&b, "%s/%s@%d×%d ", a.Rule, a.Group, (a.WindowStart.UnixNano()-t0)/sec, a.Count)
	}
	return strings.TrimSpace(b.String())
}

func TestMatchesOfAGroupWithinAWindowAreOneAlert(t *testing.T) {
	check := func(want string, at ...int64) {
		t.Helper()
		g := NewGrouper(DefaultGrouper(), 1)
		for i, x := range at {
			g.AddVerdicts(match(x, "r", "g"), late, int64(i))
		}
		all, opened := g.Flush()
		byStart(all)
		if got := show(all); got != want || len(all) != len(opened) {
			t.Errorf("%v: got %s, want %s", at, got, want)
		}
	}
	check("r/g@0×1", 0)
	check("r/g@0×3", 0, 1, 299)
	check("r/g@0×1 r/g@300×1", 0, 300)
	check("r/g@0×1 r/g@301×2", 0, 301, 600)
	check("r/g@10×3", 10, 9, 5)                // a little out of order
	check("r/g@0×2 r/g@600×2", 600, 0, 1, 601) // more than a window earlier
	check("r/g@0×1 r/g@600×2", 600, 0, 301)    // belongs to the later window, which begins less than a window later
	check("r/g@0×2 r/g@1000×1", 1000, 0, 200)
}

func byStart(list []*pipeline.Alert) {
	for i := range list {
		for j := i; j > 0 && list[j].WindowStart.Before(list[j-1].WindowStart); j-- {
			list[j], list[j-1] = list[j-1], list[j]
		}
	}
}

func TestAlertDescribesItsFirstMatchAndCountsAll(t *testing.T) {
	g := NewGrouper(DefaultGrouper(), 1)
	g.AddVerdicts(match(0, "r", "g"), late, 7)
	g.AddVerdicts(match(20, "r", "g"), late, 9)
	all, _ := g.Flush()
	want := &pipeline.Alert{
		ID: all[0].ID, Fingerprint: all[0].Fingerprint, Revision: 2, Count: 2, Detector: "rules", Rule: "r", Version: "3", Title: "A title", Severity: "high",
		Tags: []string{"attack.t1071"}, Group: "g", Score: 80, Evidence: "seen at 20", WindowStart: time.Unix(0, t0).UTC(), First: time.Unix(0, t0).UTC(),
		Last: time.Unix(0, t0+20*sec).UTC(), EventID: "30313233-3435-3637-3839-616263646566", Dataset: "dns", Host: "h", Cluster: "c", ContainerID: "cid",
		ContainerName: "web", Image: "nginx", Source: "10.0.0.1:1234", Destination: "10.0.0.2:53", Partition: 1, Offset: 9,
	}
	if d := cmp.Diff(want, all[0]); d != "" {
		t.Error(d)
	}
	if len(all[0].ID) != 32 || len(all[0].Fingerprint) != 16 {
		t.Errorf("id %s, fingerprint %s", all[0].ID, all[0].Fingerprint)
	}
}

func TestVerdictWithoutGroupGetsItsContainerElseItsHost(t *testing.T) {
	g := NewGrouper(DefaultGrouper(), 1)
	g.AddVerdicts(match(0, "r", ""), late, 0)
	e := match(0, "r", "")
	e.Container = nil
	g.AddVerdicts(e, late, 0)
	g.AddVerdicts(match(0, "r", strings.Repeat("x", 5000)), late, 0)
	all, _ := g.Flush()
	groups := map[string]bool{}
	for _, a := range all {
		groups[a.Group] = true
		if len(a.Group) > 512 {
			t.Errorf("a group of %d bytes", len(a.Group))
		}
	}
	if !groups["cid"] || !groups["hid"] || len(groups) != 3 {
		t.Errorf("groups %v", groups)
	}
}

// TestClockAheadClosesNoWindow: neither the time of an event nor the clock of a collector moves the grouper
// past the engine's clock.
func TestClockAheadClosesNoWindow(t *testing.T) {
	g := NewGrouper(DefaultGrouper(), 1)
	g.AddVerdicts(match(0, "r", "g"), late, 0)
	ahead := match(1e9, "r", "ahead")
	ahead.Ingested = t0 + 10*sec
	g.AddVerdicts(ahead, late, 1)
	g.AddVerdicts(match(20, "r", "g"), late, 2)
	all, _ := g.Flush()
	byStart(all)
	if got := show(all); got != "r/g@0×2 r/ahead@10×1" {
		t.Error(got)
	}
}

func TestMatchThatIsTooLateCountsAtTheLimit(t *testing.T) {
	g := NewGrouper(DefaultGrouper(), 1)
	g.AddVerdicts(match(100_000, "r", "g"), late, 0)
	g.AddVerdicts(match(0, "r", "g"), late, 1)
	g.AddVerdicts(match(1, "r", "g"), late, 2)
	all, _ := g.Flush()
	byStart(all)
	if got := show(all); got != "r/g@96400×2 r/g@100000×1" {
		t.Error(got)
	}
}

func TestTooManyGroupsShareOneAlert(t *testing.T) {
	cfg := DefaultGrouper()
	cfg.MaxOpen, cfg.MaxPerRule = 6, 4
	g := NewGrouper(cfg, 1)
	for i := range 20 {
		g.AddVerdicts(match(int64(i), "hot", fmt.Sprint("g", i)), late, int64(i))
		g.AddVerdicts(match(int64(i), "cold", fmt.Sprint("g", i%2)), late, int64(i))
	}
	all, _ := g.Flush()
	n := map[string]uint64{}
	for _, a := range all {
		if a.Group == OtherGroups {
			n[a.Rule] += a.Count
		}
	}
	if n["hot"] != 16 || n["cold"] != 0 || g.OpenWindows() != 6 {
		t.Errorf("shared %v, open %d: %s", n, g.OpenWindows(), show(all))
	}
}

// TestRestoredGrouperYieldsTheSameRevisions: a grouper that is restored at the border of any block from the
// revisions before it yields the same revisions as the one that was never interrupted.
func TestRestoredGrouperYieldsTheSameRevisions(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	cfg := DefaultGrouper()
	cfg.MaxOpen, cfg.MaxPerRule, cfg.AllowedLateness = 40, 25, 20*time.Minute
	live := NewGrouper(cfg, 3)
	var log []*pipeline.Alert
	now := int64(0)
	for block := range 400 {
		from := int64(block * 20)
		restored := NewGrouper(cfg, 3)
		restored.Restore(before(log, from, cfg.Lookback()))
		now += rnd.Int64N(200)
		for i := range rnd.IntN(12) {
			at := now - rnd.Int64N(400)
			if rnd.IntN(10) == 0 {
				at -= rnd.Int64N(5000)
			}
			e := match(at, fmt.Sprint("r", rnd.IntN(3)), fmt.Sprint("g", rnd.IntN(15)))
			live.AddVerdicts(e, late, from+int64(i))
			restored.AddVerdicts(e, late, from+int64(i))
		}
		a, aNew := live.Flush()
		b, bNew := restored.Flush()
		if d := cmp.Diff(a, b); d != "" {
			t.Fatalf("block %d (-live +restored):\n%s", block, d)
		}
		if len(aNew) != len(bNew) || live.OpenWindows() != restored.OpenWindows() {
			t.Fatalf("block %d: %d and %d opened, %d and %d open", block, len(aNew), len(bNew), live.OpenWindows(), restored.OpenWindows())
		}
		log = append(log, a...)
	}
}

// before returns what a store returns from AlertsBefore, given all revisions that were written.
func before(log []*pipeline.Alert, offset int64, lookback time.Duration) (out []*pipeline.Alert) {
	last := map[string]*pipeline.Alert{}
	var high time.Time
	for _, a := range log {
		if a.Offset < offset {
			if a.WindowStart.After(high) {
				high = a.WindowStart
			}
			if l := last[a.ID]; l == nil || a.Revision > l.Revision {
				last[a.ID] = a
			}
		}
	}
	for _, a := range last {
		if a.WindowStart.After(high.Add(-lookback)) {
			out = append(out, a)
		}
	}
	return out
}

// TestBlocksDoNotChangeAlerts: the alerts do not depend on where a block ends.
func TestBlocksDoNotChangeAlerts(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	whole, parts := NewGrouper(DefaultGrouper(), 1), NewGrouper(DefaultGrouper(), 1)
	last := map[string]*pipeline.Alert{}
	for i := range 500 {
		e := match(int64(i)*3-rnd.Int64N(700), "r", fmt.Sprint(rnd.IntN(4)))
		whole.AddVerdicts(e, late, int64(i))
		parts.AddVerdicts(e, late, int64(i))
		if rnd.IntN(5) == 0 {
			all, _ := parts.Flush()
			for _, a := range all {
				last[a.ID] = a
			}
		}
	}
	all, _ := parts.Flush()
	for _, a := range all {
		last[a.ID] = a
	}
	all, _ = whole.Flush()
	for _, a := range all {
		if d := cmp.Diff(a, last[a.ID]); d != "" {
			t.Error(d)
		}
	}
	if len(all) != len(last) {
		t.Errorf("%d alerts in one block, %d in many", len(all), len(last))
	}
}

// TestGrouperKeepsNoStringOfTheEvent: an event's strings lie in a buffer that is used again.
func TestGrouperKeepsNoStringOfTheEvent(t *testing.T) {
	g := NewGrouper(DefaultGrouper(), 1)
	e := match(0, "r", "g")
	g.AddVerdicts(e, late, 0)
	g.Flush()
	e.Verdicts[0].Group, e.Verdicts[0].Evidence, e.Host.Name = "changed", "changed", "changed"
	g.AddVerdicts(match(1, "r", "g"), late, 1)
	all, _ := g.Flush()
	if len(all) != 1 || all[0].Count != 2 || all[0].Host != "h" {
		t.Error(show(all))
	}
}

func BenchmarkGrouper(b *testing.B) {
	g := NewGrouper(DefaultGrouper(), 1)
	events := make([]*pipeline.Event, 1000)
	for i := range events {
		events[i] = match(int64(i%100), "r", fmt.Sprint(i%200))
	}
	b.ReportAllocs()
	for b.Loop() {
		for i, e := range events {
			g.AddVerdicts(e, late, int64(i))
		}
		g.Flush()
	}
}
