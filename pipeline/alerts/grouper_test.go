package alerts

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"tidegate/pipeline"
)

var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).UnixNano()

const sec = int64(time.Second)

// match returns an event with one verdict, at seconds after t0.
func match(at int64, rule, group string) *pipeline.Event {
	return &pipeline.Event{
		Id: []byte("0123456789abcdef"), Dataset: pipeline.Dataset_DNS, Timestamp: t0 + at*sec, Ingested: t0 + 1e6*sec,
		Host:        &pipeline.Host{Name: "h", Id: "hid", Cluster: "c"},
		Container:   &pipeline.Container{Id: "cid", Name: "web", Image: "nginx"},
		Source:      &pipeline.Endpoint{Ip: []byte{10, 0, 0, 1}, Port: 1234},
		Destination: &pipeline.Endpoint{Ip: []byte{10, 0, 0, 2}, Port: 53},
		Verdicts: []*pipeline.Verdict{{
			Detector: "rules", Rule: rule, Version: "3", Severity: pipeline.Severity_HIGH, Score: 80,
			Title: "A title", Group: group, Evidence: fmt.Sprintf("seen at %d", at), Tags: []string{"attack.t1071"},
		}},
	}
}

// late is a shipping time in the far future: the grouper uses the time of the event instead.
const late = 1 << 62

// show returns the alerts in one line: rule/group@start of the window×count.
func show(list []*pipeline.Alert) string {
	var out strings.Builder
	for _, alert := range list {
		fmt.Fprintf(&out, "%s/%s@%d×%d ", alert.Rule, alert.Group, (alert.WindowStart.UnixNano()-t0)/sec, alert.Count)
	}
	return strings.TrimSpace(out.String())
}

func TestMatchesOfAGroupWithinAWindowAreOneAlert(t *testing.T) {
	// check groups matches at these seconds. A window is 300 seconds long.
	check := func(want string, at ...int64) {
		t.Helper()
		grouper := NewGrouper(DefaultGrouper(), 1)
		for i, second := range at {
			grouper.AddVerdicts(match(second, "r", "g"), late, int64(i))
		}
		all, opened := grouper.Flush()
		byStart(all)
		if got := show(all); got != want || len(all) != len(opened) {
			t.Errorf("%v: got %s, want %s", at, got, want)
		}
	}
	check("r/g@0×1", 0)
	check("r/g@0×3", 0, 1, 299)
	check("r/g@0×1 r/g@300×1", 0, 300)
	check("r/g@0×1 r/g@301×2", 0, 301, 600)
	check("r/g@10×3", 10, 9, 5)                // slightly out of order
	check("r/g@0×2 r/g@600×2", 600, 0, 1, 601) // 0 and 1 are more than a window earlier
	check("r/g@0×1 r/g@600×2", 600, 0, 301)    // 301 is less than a window before 600
	check("r/g@0×2 r/g@1000×1", 1000, 0, 200)
}

// byStart sorts alerts by the start of their windows.
func byStart(list []*pipeline.Alert) {
	slices.SortStableFunc(list, func(a, b *pipeline.Alert) int { return a.WindowStart.Compare(b.WindowStart) })
}

func TestAlertDescribesItsFirstMatchAndCountsAll(t *testing.T) {
	grouper := NewGrouper(DefaultGrouper(), 1)
	grouper.AddVerdicts(match(0, "r", "g"), late, 7)
	grouper.AddVerdicts(match(20, "r", "g"), late, 9)
	all, _ := grouper.Flush()
	want := &pipeline.Alert{
		ID: all[0].ID, Fingerprint: all[0].Fingerprint, Revision: 2, Count: 2,
		Detector: "rules", Rule: "r", Version: "3", Title: "A title", Severity: "high", Score: 80,
		Tags: []string{"attack.t1071"}, Group: "g", Evidence: "seen at 20",
		WindowStart: time.Unix(0, t0).UTC(), First: time.Unix(0, t0).UTC(), Last: time.Unix(0, t0+20*sec).UTC(),
		EventID: "30313233-3435-3637-3839-616263646566", Dataset: "dns",
		Host: "h", Cluster: "c", ContainerID: "cid", ContainerName: "web", Image: "nginx",
		Source: "10.0.0.1:1234", Destination: "10.0.0.2:53", Partition: 1, Offset: 9, Ingested: time.Unix(0, t0+1e6*sec).UTC(),
	}
	if diff := cmp.Diff(want, all[0]); diff != "" {
		t.Error(diff)
	}
	if len(all[0].ID) != 32 || len(all[0].Fingerprint) != 16 {
		t.Errorf("id %s, fingerprint %s", all[0].ID, all[0].Fingerprint)
	}
}

// TestFirstIsTheEarliestEvent: a session that began before a request and ended after it is evaluated after it. The time
// range of the alert covers both, in one block, over blocks and over a restart.
func TestFirstIsTheEarliestEvent(t *testing.T) {
	for _, blocks := range []string{"one", "two", "restart"} {
		grouper := NewGrouper(DefaultGrouper(), 1)
		grouper.AddVerdicts(match(60, "r", "g"), late, 1)
		grouper.AddVerdicts(match(90, "r", "g"), late, 2)
		if blocks != "one" {
			revisions, _ := grouper.Flush()
			if blocks == "restart" {
				grouper = NewGrouper(DefaultGrouper(), 1)
				grouper.Restore(revisions)
			}
		}
		session := match(20, "r", "g")
		session.Dataset, session.Duration = pipeline.Dataset_SESSION, uint64(75*sec)
		grouper.AddVerdicts(session, late, 3)
		all, _ := grouper.Flush()
		if len(all) != 1 || all[0].Count != 3 {
			t.Fatalf("%s: %s", blocks, show(all))
		}
		if first, last := all[0].First, all[0].Last; first.UnixNano() != t0+20*sec || last.UnixNano() != t0+90*sec {
			t.Errorf("%s: first %v, last %v", blocks, first, last)
		}
	}
}

func TestVerdictWithoutGroupGetsItsContainerElseItsHost(t *testing.T) {
	grouper := NewGrouper(DefaultGrouper(), 1)
	grouper.AddVerdicts(match(0, "r", ""), late, 0)
	event := match(0, "r", "")
	event.Container = nil
	grouper.AddVerdicts(event, late, 0)
	grouper.AddVerdicts(match(0, "r", strings.Repeat("x", 5000)), late, 0)
	all, _ := grouper.Flush()
	groups := map[string]bool{}
	for _, alert := range all {
		groups[alert.Group] = true
		if len(alert.Group) > 512 {
			t.Errorf("a group of %d bytes", len(alert.Group))
		}
	}
	if !groups["container.id=cid"] || !groups["host.id=hid"] || len(groups) != 3 {
		t.Errorf("groups %v", groups)
	}
}

// TestClockAheadClosesNoWindow: an event whose time is ahead of the engine's clock counts at the engine's
// clock.
func TestClockAheadClosesNoWindow(t *testing.T) {
	grouper := NewGrouper(DefaultGrouper(), 1)
	grouper.AddVerdicts(match(0, "r", "g"), late, 0)
	ahead := match(1e9, "r", "ahead")
	ahead.Ingested = t0 + 10*sec
	grouper.AddVerdicts(ahead, late, 1)
	grouper.AddVerdicts(match(20, "r", "g"), late, 2)
	all, _ := grouper.Flush()
	byStart(all)
	if got := show(all); got != "r/g@0×2 r/ahead@10×1" {
		t.Error(got)
	}
}

// TestClockThatWasAheadSpoilsNoLaterAlert: the clocks of a host and of the engine are a year ahead for one
// match. The matches before and behind it are grouped as without it, also in a grouper that is restored before
// each block.
func TestClockThatWasAheadSpoilsNoLaterAlert(t *testing.T) {
	const hour, year = 3600, 365 * 24 * 3600
	cfg := DefaultGrouper()
	for _, restored := range []bool{false, true} {
		grouper := NewGrouper(cfg, 1)
		var log []*pipeline.Alert
		offset := int64(0)
		add := func(at int64) {
			if restored {
				grouper = NewGrouper(cfg, 1)
				latest := time.Unix(0, grouper.LatestStart(t0+at*sec))
				stored := slices.DeleteFunc(slices.Clone(log), func(a *pipeline.Alert) bool {
					return a.WindowStart.After(latest)
				})
				grouper.Restore(before(stored, offset, NewGrouper(cfg, 0).Lookback()))
			}
			event := match(at, "r", "g")
			event.Ingested = event.Timestamp
			grouper.AddVerdicts(event, event.Timestamp, offset)
			revisions, _ := grouper.Flush()
			log = append(log, revisions...)
			offset++
		}
		for n := range int64(720) {
			add(n * hour)
			add(n*hour + 60)
			if n == 300 {
				add(n*hour + year)
			}
		}
		last := map[string]uint64{}
		for _, alert := range log {
			last[alert.ID] = max(last[alert.ID], alert.Count)
		}
		counts := map[uint64]int{}
		for _, count := range last {
			counts[count]++
		}
		if len(last) != 721 || counts[2] != 720 || grouper.OpenWindows() > 3 {
			t.Errorf("restored=%t: %d alerts by count %v, %d open", restored, len(last), counts, grouper.OpenWindows())
		}
	}
}

// TestClockThatWasAheadFreesTheGroupsOfItsRule: the windows that lie ahead are closed, so they take none of the
// windows that a rule may have.
func TestClockThatWasAheadFreesTheGroupsOfItsRule(t *testing.T) {
	cfg := DefaultGrouper()
	cfg.MaxOpen, cfg.MaxPerRule = 20, 10
	grouper := NewGrouper(cfg, 1)
	add := func(at int64, group string) {
		event := match(at, "r", group)
		event.Ingested = event.Timestamp
		grouper.AddVerdicts(event, late, at)
	}
	for i := range int64(10) {
		add(1e7+i, fmt.Sprint("ahead", i))
	}
	grouper.Flush()
	for i := range int64(10) {
		add(i, fmt.Sprint("now", i))
	}
	all, _ := grouper.Flush()
	if len(all) != 10 || strings.Contains(show(all), OtherGroups) || grouper.OpenWindows() != 10 {
		t.Errorf("%d open: %s", grouper.OpenWindows(), show(all))
	}
}

func TestMatchThatIsTooLateCountsAtTheLimit(t *testing.T) {
	grouper := NewGrouper(DefaultGrouper(), 1)
	grouper.AddVerdicts(match(100_000, "r", "g"), late, 0)
	grouper.AddVerdicts(match(0, "r", "g"), late, 1)
	grouper.AddVerdicts(match(1, "r", "g"), late, 2)
	all, _ := grouper.Flush()
	byStart(all)
	if got := show(all); got != "r/g@96400×2 r/g@100000×1" {
		t.Error(got)
	}
}

func TestTooManyGroupsShareOneAlert(t *testing.T) {
	cfg := DefaultGrouper()
	cfg.MaxOpen, cfg.MaxPerRule = 6, 4
	grouper := NewGrouper(cfg, 1)
	for i := range 20 {
		grouper.AddVerdicts(match(int64(i), "hot", fmt.Sprint("g", i)), late, int64(i))
		grouper.AddVerdicts(match(int64(i), "cold", fmt.Sprint("g", i%2)), late, int64(i))
	}
	all, _ := grouper.Flush()
	shared := map[string]uint64{}
	for _, alert := range all {
		if alert.Group == OtherGroups {
			shared[alert.Rule] += alert.Count
		}
	}
	if shared["hot"] != 16 || shared["cold"] != 0 || grouper.OpenWindows() != 6 {
		t.Errorf("shared %v, open %d: %s", shared, grouper.OpenWindows(), show(all))
	}
}

// TestRuleMayHaveItsGroupsForLong: max_per_rule counts groups, however many windows each has had. The memory for
// windows is bounded all the same.
func TestRuleMayHaveItsGroupsForLong(t *testing.T) {
	for groups, overflows := range map[int]bool{450: false, 5000: false, 5001: true} {
		grouper := NewGrouper(DefaultGrouper(), 1)
		other := false
		for minute := range int64(20) {
			for i := range groups {
				grouper.AddVerdicts(match(minute*300, "r", fmt.Sprint("g", i)), late, minute)
			}
			revisions, _ := grouper.Flush()
			for _, alert := range revisions {
				other = other || alert.Group == OtherGroups
			}
			if open := grouper.OpenWindows(); open > DefaultGrouper().MaxOpen {
				t.Fatalf("%d windows", open)
			}
		}
		if other != overflows {
			t.Errorf("%d groups: overflow %t, want %t", groups, other, overflows)
		}
	}
}

// TestLateMatchOfASteadyGroupOpensNoAlert: a match before all windows of a group that are kept counts in the
// oldest of them.
func TestLateMatchOfASteadyGroupOpensNoAlert(t *testing.T) {
	grouper := NewGrouper(DefaultGrouper(), 1)
	for window := range int64(10) {
		grouper.AddVerdicts(match(window*300, "r", "g"), late, window)
		grouper.Flush()
	}
	for i := range int64(100) {
		grouper.AddVerdicts(match(300+i, "r", "g"), late, 100+i)
		revisions, opened := grouper.Flush()
		if len(opened) != 0 || len(revisions) != 1 || revisions[0].WindowStart.UnixNano() != t0+6*300*sec {
			t.Fatalf("opened %s, revised %s", show(opened), show(revisions))
		}
	}
}

// TestTextsOfAlertsHaveNoControlCharacters: detectors, hosts and containers may supply any text.
func TestTextsOfAlertsHaveNoControlCharacters(t *testing.T) {
	const nasty = "a\x1b]0;owned\x07\u009b31m\u202eb\r\n\tc\x7f\xff\u2028"
	event := match(0, "r", nasty)
	event.Host, event.Container = &pipeline.Host{Name: nasty, Cluster: nasty}, &pipeline.Container{Id: nasty, Name: nasty, Image: nasty}
	verdict := event.Verdicts[0]
	verdict.Title, verdict.Evidence, verdict.Tags, verdict.Version, verdict.Detector = nasty, nasty, []string{nasty}, nasty, nasty
	grouper := NewGrouper(DefaultGrouper(), 1)
	grouper.AddVerdicts(event, late, 1)
	verdict.Group = ""
	grouper.AddVerdicts(event, late, 1)
	all, _ := grouper.Flush()
	for _, alert := range all {
		fields := []string{
			alert.Group, alert.Title, alert.Evidence, alert.Host, alert.Cluster, alert.ContainerID, alert.ContainerName,
			alert.Image, alert.Version, alert.Detector, alert.Tags[0],
		}
		for i, text := range fields {
			if strings.ContainsFunc(text, pipeline.IsControl) || !utf8.ValidString(text) || !strings.HasPrefix(strings.TrimPrefix(text, `container.id="`), "a") {
				t.Errorf("field %d: %q", i, text)
			}
		}
	}
	if got := pipeline.Printable("plain ünicode 日本"); got != "plain ünicode 日本" {
		t.Errorf("%q", got)
	}
}

// TestRestoredGrouperYieldsTheSameRevisions: a grouper is restored before each block from the revisions that
// were written so far. It yields the same revisions for the block as a grouper that ran all the time.
func TestRestoredGrouperYieldsTheSameRevisions(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	cfg := DefaultGrouper()
	cfg.MaxOpen, cfg.MaxPerRule, cfg.AllowedLateness = 40, 25, 20*time.Minute
	live := NewGrouper(cfg, 3)
	var log []*pipeline.Alert // all revisions so far
	now := int64(0)           // seconds after t0
	for block := range 400 {
		from := int64(block * 20)
		restored := NewGrouper(cfg, 3)
		restored.Restore(before(log, from, NewGrouper(cfg, 0).Lookback()))

		// Up to 11 matches in random order. One in ten is later than the lateness that is allowed.
		now += rnd.Int64N(200)
		for i := range rnd.IntN(12) {
			at := now - rnd.Int64N(400)
			if rnd.IntN(10) == 0 {
				at -= rnd.Int64N(5000)
			}
			event := match(at, fmt.Sprint("r", rnd.IntN(3)), fmt.Sprint("g", rnd.IntN(15)))
			live.AddVerdicts(event, late, from+int64(i))
			restored.AddVerdicts(event, late, from+int64(i))
		}

		liveAlerts, liveOpened := live.Flush()
		restoredAlerts, restoredOpened := restored.Flush()
		if diff := cmp.Diff(liveAlerts, restoredAlerts); diff != "" {
			t.Fatalf("block %d (-live +restored):\n%s", block, diff)
		}
		if len(liveOpened) != len(restoredOpened) || live.OpenWindows() != restored.OpenWindows() {
			t.Fatalf("block %d: %d and %d opened, %d and %d open", block,
				len(liveOpened), len(restoredOpened), live.OpenWindows(), restored.OpenWindows())
		}
		log = append(log, liveAlerts...)
	}
}

// before returns the result of a store's NewestAlerts, given all revisions that were written.
func before(log []*pipeline.Alert, offset int64, lookback time.Duration) (out []*pipeline.Alert) {
	last := map[string]*pipeline.Alert{} // the newest revision by ID
	var high time.Time                   // the newest start of a window
	for _, alert := range log {
		if alert.Offset < offset {
			if alert.WindowStart.After(high) {
				high = alert.WindowStart
			}
			if newest := last[alert.ID]; newest == nil || alert.Revision > newest.Revision {
				last[alert.ID] = alert
			}
		}
	}
	for _, alert := range last {
		if alert.WindowStart.After(high.Add(-lookback)) {
			out = append(out, alert)
		}
	}
	return out
}

// TestBlocksDoNotChangeAlerts: the alerts do not depend on how the matches are divided into blocks.
func TestBlocksDoNotChangeAlerts(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	whole, parts := NewGrouper(DefaultGrouper(), 1), NewGrouper(DefaultGrouper(), 1)
	last := map[string]*pipeline.Alert{}
	for i := range 500 {
		event := match(int64(i)*3-rnd.Int64N(700), "r", fmt.Sprint(rnd.IntN(4)))
		whole.AddVerdicts(event, late, int64(i))
		parts.AddVerdicts(event, late, int64(i))
		if rnd.IntN(5) == 0 {
			all, _ := parts.Flush()
			for _, alert := range all {
				last[alert.ID] = alert
			}
		}
	}
	all, _ := parts.Flush()
	for _, alert := range all {
		last[alert.ID] = alert
	}
	all, _ = whole.Flush()
	for _, alert := range all {
		if diff := cmp.Diff(alert, last[alert.ID]); diff != "" {
			t.Error(diff)
		}
	}
	if len(all) != len(last) {
		t.Errorf("%d alerts in one block, %d in many", len(all), len(last))
	}
}

// TestGrouperKeepsNoStringOfTheEvent: the strings of an event are in a buffer that is reused after the flush.
func TestGrouperKeepsNoStringOfTheEvent(t *testing.T) {
	grouper := NewGrouper(DefaultGrouper(), 1)
	event := match(0, "r", "g")
	grouper.AddVerdicts(event, late, 0)
	grouper.Flush()
	event.Verdicts[0].Group, event.Verdicts[0].Evidence, event.Host.Name = "changed", "changed", "changed"
	grouper.AddVerdicts(match(1, "r", "g"), late, 1)
	all, _ := grouper.Flush()
	if len(all) != 1 || all[0].Count != 2 || all[0].Host != "h" {
		t.Error(show(all))
	}
}

func BenchmarkGrouper(b *testing.B) {
	grouper := NewGrouper(DefaultGrouper(), 1)
	events := make([]*pipeline.Event, 1000)
	for i := range events {
		events[i] = match(int64(i%100), "r", fmt.Sprint(i%200))
	}
	b.ReportAllocs()
	for b.Loop() {
		for i, e := range events {
			grouper.AddVerdicts(e, late, int64(i))
		}
		grouper.Flush()
	}
}

// TestTopicsShareNoAlert: two topics in one database have alerts of their own.
func TestTopicsShareNoAlert(t *testing.T) {
	idOf := func(topic string) string {
		grouper := NewGrouper(DefaultGrouper(), 1)
		if topic != "none" {
			grouper.ForTopic(topic)
		}
		event := &pipeline.Event{Id: make([]byte, 16), Timestamp: 1_700_000_000e9, Verdicts: []*pipeline.Verdict{{Rule: "r", Group: "g"}}}
		grouper.AddVerdicts(event, 0, 1)
		revisions, _ := grouper.Flush()
		if len(revisions) != 1 || topic != "none" && revisions[0].Topic != topic {
			t.Fatalf("%s: %v", topic, revisions)
		}
		return revisions[0].ID
	}
	if idOf("a.signals") == idOf("b.signals") || idOf("none") == idOf("a.signals") {
		t.Error("ids do not follow the topic")
	}
}

// TestGrouperConfigNamesEachMistake: among them a lateness that Restore could not look back.
func TestGrouperConfigNamesEachMistake(t *testing.T) {
	check := func(want string, change func(*GrouperConfig)) {
		t.Helper()
		cfg := DefaultGrouper()
		change(&cfg)
		errs := cfg.Check()
		if want == "" && len(errs) == 0 {
			return
		}
		if len(errs) != 1 || errs[0].Key != want {
			t.Errorf("got %v, want one error with %q", errs, want)
		}
	}
	check("", func(*GrouperConfig) {})
	check("", func(c *GrouperConfig) { c.AllowedLateness = c.Window })
	check("", func(c *GrouperConfig) { c.AllowedLateness = 24 * c.Window })
	check("allowed_lateness", func(c *GrouperConfig) { c.AllowedLateness = c.Window - 1 })
	check("allowed_lateness", func(c *GrouperConfig) { c.AllowedLateness = 24*c.Window + 1 })
	check("window", func(c *GrouperConfig) { c.Window, c.AllowedLateness = time.Second/2, time.Second })
	check("window", func(c *GrouperConfig) { c.Window, c.AllowedLateness = 25*time.Hour, 25*time.Hour })
	check("max_open", func(c *GrouperConfig) { c.MaxOpen = 0 })
	check("max_per_rule", func(c *GrouperConfig) { c.MaxPerRule = 0 })
}

// TestMatchesWithinSuppressAreOneAlert: the window of a rule with a policy has its own length, also behind a restart.
func TestMatchesWithinSuppressAreOneAlert(t *testing.T) {
	cfg := DefaultGrouper()
	cfg.AllowedLateness = 5 * time.Minute
	policies := map[string]pipeline.AlertPolicy{"long": {Suppress: time.Hour}, "short": {Suppress: time.Minute}}
	newGrouper := func() *Grouper {
		grouper := NewGrouper(cfg, 1)
		grouper.SetPolicies(policies)
		return grouper
	}
	live := newGrouper()
	var log []*pipeline.Alert
	for block, at := range []int64{0, 59, 60, 299, 300, 1800, 3599, 3600, 4000} {
		offset := int64(block)
		restored := newGrouper()
		restored.Restore(before(log, offset, restored.Lookback()))
		for _, rule := range []string{"long", "short", "other"} {
			live.AddVerdicts(match(at, rule, "g"), late, offset)
			restored.AddVerdicts(match(at, rule, "g"), late, offset)
		}
		revisions, _ := live.Flush()
		again, _ := restored.Flush()
		if diff := cmp.Diff(revisions, again); diff != "" {
			t.Fatalf("at %d s: %s", at, diff)
		}
		log = append(log, revisions...)
	}
	counts := map[string]uint64{}
	for _, alert := range log {
		key := fmt.Sprintf("%s@%d", alert.Rule, (alert.WindowStart.UnixNano()-t0)/sec)
		counts[key] = max(counts[key], alert.Count)
	}
	want := map[string]uint64{
		"long@0": 7, "long@3600": 2, "other@0": 4, "other@300": 1, "other@1800": 1, "other@3599": 2, "other@4000": 1,
		"short@0": 2, "short@60": 1, "short@299": 2, "short@1800": 1, "short@3599": 2, "short@4000": 1,
	}
	if diff := cmp.Diff(want, counts); diff != "" {
		t.Error(diff)
	}
}

// TestSeverityRisesWithTheCount, and does not fall.
func TestSeverityRisesWithTheCount(t *testing.T) {
	grouper := NewGrouper(DefaultGrouper(), 1)
	grouper.SetPolicies(map[string]pipeline.AlertPolicy{"r": {Escalate: []pipeline.Escalation{
		{Count: 2, Severity: pipeline.Severity_LOW}, // below that of the verdict
		{Count: 3, Severity: pipeline.Severity_CRITICAL},
	}}})
	severity := func(matches int) string {
		for range matches {
			grouper.AddVerdicts(match(1, "r", "g"), late, 1)
		}
		revisions, _ := grouper.Flush()
		return revisions[0].Severity
	}
	for i, want := range []string{"high", "high", "critical", "critical"} {
		if got := severity(1); got != want {
			t.Errorf("with %d matches %s, want %s", i+1, got, want)
		}
	}
	grouper.SetPolicies(nil)
	if got := severity(1); got != "critical" {
		t.Errorf("without a policy %s", got)
	}
	// Of a rule over several events, its events count.
	grouper.SetPolicies(map[string]pipeline.AlertPolicy{"several": {Escalate: []pipeline.Escalation{{Count: 10, Severity: pipeline.Severity_CRITICAL}}}})
	grouper.AddMatch(Match{Verdict: match(1, "several", "g").Verdicts[0], At: t0, First: t0, Last: t0, Count: 10, Ingested: t0})
	if revisions, _ := grouper.Flush(); revisions[0].Severity != "critical" {
		t.Errorf("10 events: %s", revisions[0].Severity)
	}
}
