package rules

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tidegate/pipeline"
	"tidegate/pipeline/correlate"
)

// guessing is a rule over several events, a sequence that refers to another rule, and that rule.
const guessing = `
- id: failed
  title: t
  severity: low
  when: mysql.command == "LOGIN" and event.outcome == "failure"
  alert: "{user.name} failed"
- id: many
  title: t
  severity: high
  rule: failed
  count: 3
  within: 1m
  group: [source.ip]
- id: then
  title: t
  severity: high
  sequence:
    - {name: from, when: 'mysql.command == "LOGIN"', group: [destination.ip]}
    - {name: to, when: 'redis.command == "GET"'}
  within: 1m
  group: [source.ip]
  exceptions: [redis.key == "allowed"]
  alert: "{source.ip} reads {redis.key}"
`

func login(second int64, source, destination string) *pipeline.Event {
	event := &pipeline.Event{
		Dataset: pipeline.Dataset_MYSQL, Timestamp: second * 1e9, Outcome: pipeline.Outcome_FAILURE,
		Source: endpoint(source), Destination: endpoint(destination),
		Mysql: &pipeline.MySQLCommand{Command: "LOGIN", UserName: "root"},
	}
	event.Id = fmt.Appendf(nil, "%016d", second)
	return event
}

func get(second int64, source, key string) *pipeline.Event {
	return &pipeline.Event{
		Dataset: pipeline.Dataset_REDIS, Timestamp: second * 1e9, Duration: 5e9, Source: endpoint(source),
		Redis: &pipeline.RedisCommand{Command: "GET", Key: key}, Id: fmt.Appendf(nil, "%016d", second),
	}
}

func endpoint(address string) *pipeline.Endpoint {
	var ip [4]byte
	if _, err := fmt.Sscanf(address, "%d.%d.%d.%d", &ip[0], &ip[1], &ip[2], &ip[3]); err != nil {
		return nil
	}
	return &pipeline.Endpoint{Ip: ip[:]}
}

// describe writes signals as "rule/step group start-end text".
func describe(signals []correlate.Signal) (out []string) {
	for _, s := range signals {
		out = append(out, fmt.Sprintf("%d: %s/%d [%s] %v-%v %s", s.Index, s.Rule, s.Step, s.Group, s.Start/1e9, s.End/1e9, s.Text))
	}
	slices.Sort(out)
	return out
}

func TestSignalsAreThoseOfTheStepsThatAnEventMatches(t *testing.T) {
	set, err := compileText(t, guessing)
	if err != nil {
		t.Fatal(err)
	}
	block := []*pipeline.Event{login(1, "10.0.0.1", "10.0.0.2"), get(2, "10.0.0.2", "k"), get(3, "10.0.0.2", "allowed"), login(4, "10.0.0.3", "")}
	got := describe(set.Signals(block))
	want := []string{
		"0: many/0 [source.ip=10.0.0.1] 1-1 root failed", // the text of the rule that it refers to
		"0: then/0 [source.ip=10.0.0.2] 1-1 10.0.0.1 reads ",
		"1: then/1 [source.ip=10.0.0.2] 2-7 10.0.0.2 reads k",
		"3: many/0 [source.ip=10.0.0.3] 4-4 root failed", // it has no destination.ip, so it is no signal of then
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for i, want := range []int{1, 0, 0, 1} {
		if n := len(block[i].Verdicts); n != want {
			t.Errorf("event %d: %d verdicts, want %d", i, n, want)
		}
	}

	fold := correlate.New(set.Correlations(), correlate.DefaultLimits)
	for _, signal := range set.Signals(block) {
		fold.Add(signal)
	}
	matches := fold.Close()
	if len(matches) != 1 || matches[0].Rule.ID != "then" || matches[0].Text != "10.0.0.2 reads k" || matches[0].Count != 2 {
		t.Errorf("%+v", matches)
	}
	if counts := fold.Counts(); counts.Unknown != 0 {
		t.Errorf("%+v", counts)
	}
}

// TestExceptionsHoldForWhatARuleSelects, also where it is selected by another rule. They hold for no event that must not occur.
func TestExceptionsHoldForWhatARuleSelects(t *testing.T) {
	set, err := compileText(t, guessing+`
- id: excepted
  title: t
  severity: low
  rule: failed
  dataset: mysql
  count: 1
  within: 1m
  group: [source.ip]
  exceptions: [source.ip == "10.0.0.1"]
- id: unanswered
  title: t
  severity: low
  when: mysql.command == "LOGIN"
  absent: {when: 'redis.command == "GET"'}
  within: 1m
  group: [source.ip]
  exceptions: [source.ip == "10.0.0.2"]
`)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, signal := range describe(set.Signals([]*pipeline.Event{login(1, "10.0.0.1", "10.0.0.9"), login(2, "10.0.0.3", "10.0.0.9"), get(3, "10.0.0.2", "k")})) {
		if strings.Contains(signal, "excepted") || strings.Contains(signal, "unanswered") {
			got = append(got, signal)
		}
	}
	want := []string{
		"0: unanswered/0 [source.ip=10.0.0.1] 1-1 mysql.command=LOGIN",
		"1: excepted/0 [source.ip=10.0.0.3] 2-2 root failed",
		"1: unanswered/0 [source.ip=10.0.0.3] 2-2 mysql.command=LOGIN",
		"2: unanswered/1 [source.ip=10.0.0.2] 3-8 ",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestSetListsRulesNotSteps: what people see are rules; the index evaluates conditions.
func TestSetListsRulesNotSteps(t *testing.T) {
	set, err := compileText(t, guessing)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, rule := range set.Rules() {
		ids = append(ids, rule.ID+" "+strings.Join(rule.Datasets, ","))
	}
	if got := strings.Join(ids, "; "); got != "failed mysql; many mysql; then mysql,redis" {
		t.Error(got)
	}
	if len(set.evaluated) != 3 || len(set.Correlations()) != 2 {
		t.Errorf("%d conditions, %d rules over several events", len(set.evaluated), len(set.Correlations()))
	}
	// Without a Fold nobody takes signals, and nothing is evaluated for them.
	event := get(2, "10.0.0.2", "k")
	set.Evaluate([]*pipeline.Event{event})
	if len(event.Verdicts) != 0 {
		t.Errorf("verdicts %v", event.Verdicts)
	}
}

// TestVersionOfARuleOverSeveralEventsCoversAllOfIt: two rules with one version have the same matches and texts, and two with one version of their windows
// have the same matches.
func TestVersionOfARuleOverSeveralEventsCoversAllOfIt(t *testing.T) {
	version := func(old, replacement, id string) (whole, windows string) {
		t.Helper()
		text := strings.Replace(guessing, old, replacement, 1)
		if old != "" && text == guessing {
			t.Fatalf("%q is not there", old)
		}
		set, err := compileText(t, text)
		if err != nil {
			t.Fatal(err)
		}
		for _, rule := range set.Rules() {
			if rule.ID == id {
				return rule.Version, rule.Correlation.Version
			}
		}
		return "", ""
	}
	for _, change := range []struct{ old, replacement, changes string }{
		{"count: 3", "count: 4", "many"},
		{"within: 1m\n  group: [source.ip]\n- id: then", "within: 2m\n  group: [source.ip]\n- id: then", "many"},
		{`event.outcome == "failure"`, `event.outcome == "success"`, "many"}, // of the rule that it refers to
		{`"GET"`, `"SET"`, "then"},
		{"group: [destination.ip]", "group: [host.name]", "then"},
		{"name: to", "within: 3s, name: to", "then"},
		{`"allowed"`, `"other"`, "then"},
		{"reads {redis.key}", "has {redis.key}", "then"},
	} {
		for _, id := range []string{"many", "then"} {
			whole, windows := version("", "", id)
			newWhole, newWindows := version(change.old, change.replacement, id)
			if (newWhole != whole) != (id == change.changes) {
				t.Errorf("%q -> %q: version of %s: %s, before %s", change.old, change.replacement, id, newWhole, whole)
			}
			isText := strings.HasPrefix(change.old, "reads")
			if (newWindows != windows) != (id == change.changes && !isText) {
				t.Errorf("%q -> %q: windows of %s: %s, before %s", change.old, change.replacement, id, newWindows, windows)
			}
		}
	}
}

// TestWindowsStayWhenOnlyTextsChange: what a rule has learned is not lost for a title, a severity or a version, also of a rule that it refers to.
func TestWindowsStayWhenOnlyTextsChange(t *testing.T) {
	windows := func(text string) map[string]string {
		t.Helper()
		set, err := compileText(t, text)
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]string{}
		for _, rule := range set.Correlations() {
			out[rule.ID] = rule.Version
		}
		return out
	}
	changed := strings.ReplaceAll(guessing, "title: ", "version: '7'\n  author: a\n  score: 9\n  tags: [a]\n  suppress: 1h\n  title: other ")
	changed = strings.ReplaceAll(changed, "severity: ", "severity: critical # ")
	if before, after := windows(guessing), windows(changed); len(before) != 2 || !maps.Equal(before, after) || changed == guessing {
		t.Errorf("%v, before %v", after, before)
	}
}

// TestDisabledRulesHaveNoSignals: neither a rule over several events nor what a step refers to.
func TestDisabledRulesHaveNoSignals(t *testing.T) {
	check := func(id string, want ...string) {
		t.Helper()
		cfg := Default()
		cfg.Disable = []string{id}
		set, err := Compile(cfg, []Source{{"t.yaml", []byte(guessing)}}, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		rules := map[string]bool{}
		for _, signal := range set.Signals([]*pipeline.Event{login(1, "10.0.0.1", "10.0.0.2"), get(2, "10.0.0.2", "k")}) {
			rules[signal.Rule] = true
		}
		for _, rule := range want {
			if !rules[rule] {
				t.Errorf("without %s: no signal of %s", id, rule)
			}
		}
		if len(rules) != len(want) {
			t.Errorf("without %s: signals of %v, want %v", id, rules, want)
		}
		warned := slices.Contains(set.Warnings(), "rules.disable: many refers to failed, which is disabled")
		if warned != (id == "failed") {
			t.Errorf("without %s: warnings %v", id, set.Warnings())
		}
	}
	check("many", "then")
	check("then", "many")
	check("failed", "then")
}

// TestCaseWithoutAMatchSaysWhatCame: the message has the events of each step.
func TestCaseWithoutAMatchSaysWhatCame(t *testing.T) {
	set, err := compileText(t, guessing+`  tests:
    - name: two hosts
      events:
        - {at: 2s, event: {mysql.command: LOGIN, source.ip: 10.0.0.1, destination.ip: "10.0.0.{n}"}, repeat: 2}
        - {event: {redis.command: GET, source.ip: 10.0.0.9}}
      fires: true
    - events:
        - {at: 0s, event: {mysql.command: LOGIN, destination.ip: 10.0.0.9}}
        - {at: 1s, event: {redis.command: GET, source.ip: 10.0.0.9}}
      fires: false
- id: few
  title: t
  severity: low
  when: dns.question.type == "TXT"
  count: 3
  within: 1m
  group: [source.ip]
  tests:
    - {fires: true, events: [{repeat: 3, every: 30s, event: {dns.question.type: TXT, source.ip: 10.0.0.1}}]}
    - {fires: true, events: [{event: {dns.question.type: TXT}}]}
    - {fires: true, events: [{event: {dns.question.type: A, source.ip: 10.0.0.1}}]}
`)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	_, _ = RunTests(&out, set, false)
	for _, want := range []string{
		"then: two hosts: expected a match, but the rule did not match: 2 of from, 1 of to in 3 groups\n" +
			"    source.ip=10.0.0.9: to at 0s; waits for from\n    source.ip=10.0.0.1: from at 2s; waits for to after from at 2s\n",
		"then: case 2: expected no match, but the rule matched: the match 1s behind the begin of the first event has 2 events; 1 of from, 1 of to in 1 group\n" +
			"    source.ip=10.0.0.9: from at 0s, to at 1s; has all steps in their order, which must lie within 1m\n",
		"few: case 1: expected a match, but the rule did not match: 3 events in 1 group\n" +
			"    source.ip=10.0.0.1: events at 0s, 30s, 1m; at most 2 events within 1m, it needs 3\n",
		"few: case 2: expected a match, but the rule did not match: 0 events in 0 groups; the last event: has no source.ip\n",
		`few: case 3: expected a match, but the rule did not match: 0 events in 0 groups; the last event: (dns.question.type == "TXT") is false (dns.question.type = "A")` + "\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s\nwant %s", out.String(), want)
		}
	}
}

func TestLengthsOfTimeHaveDays(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"7d": 7 * 24 * time.Hour, "1d12h": 36 * time.Hour, "90s": 90 * time.Second, " 5m ": 5 * time.Minute,
		"d": -1, "1.5d": -1, "-1d": -1, "1d2x": -1, "1dd": -1, "99999d": -1, "": -1,
	} {
		got, err := parseDuration(text)
		if (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
	for length, want := range map[time.Duration]string{48 * time.Hour: "2d", 36 * time.Hour: "36h", time.Minute: "1m", 0: "0s"} {
		if got := formatDuration(length); got != want {
			t.Errorf("%v: %s, want %s", length, got, want)
		}
	}
}

// TestEventsThatBelongToNoGroupAreCounted, with the value that they lack: of the group, and what is counted; also of a rule that is referred to.
func TestEventsThatBelongToNoGroupAreCounted(t *testing.T) {
	const text = `
- {id: plain, title: t, severity: low, when: 'message contains "failed"', group: [host.name]}
- {id: many, title: t, severity: low, when: 'message contains "failed"', count: 2, within: 1m, group: [host.name]}
- {id: users, title: t, severity: low, when: 'message contains "failed"', distinct: {field: user, count: 2}, within: 1m, group: [container.id], let: {user: 'value(message, "user")'}}
- {id: refers, title: t, severity: low, rule: plain, count: 2, within: 1m, group: [source.ip]}
- {id: grouped, title: t, severity: low, when: 'message contains "failed"', count: 2, within: 1m, group: [container.id]}
`
	registry := prometheus.NewRegistry()
	set, err := Compile(Default(), []Source{{Name: "t.yaml", Data: []byte(text)}}, nil, NewMetrics(registry))
	if err != nil {
		t.Fatal(err)
	}
	for _, message := range []string{"failed", "failed user=a", "other"} {
		event := logEvent(message)
		event.Container = &pipeline.Container{Id: "c"}
		set.Signals([]*pipeline.Event{event})
	}
	got := fmt.Sprint(set.Ungrouped())
	if want := "[{many host.name 2} {refers source.ip 2} {users user 1}]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	want := `# HELP tidegate_detectors_rules_ungrouped_total Events that a correlation rule selected and that belong to no group: they lack a field of its group, or the one that it counts.
# TYPE tidegate_detectors_rules_ungrouped_total counter
tidegate_detectors_rules_ungrouped_total{rule="many"} 2
tidegate_detectors_rules_ungrouped_total{rule="refers"} 2
tidegate_detectors_rules_ungrouped_total{rule="users"} 1
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "tidegate_detectors_rules_ungrouped_total"); err != nil {
		t.Error(err)
	}
}
