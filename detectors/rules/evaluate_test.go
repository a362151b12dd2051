package rules

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline"
	"tidegate/pipeline/config"
)

func line(message string) *pipeline.Event {
	return &pipeline.Event{
		Dataset: pipeline.Dataset_LOG, Log: &pipeline.LogLine{Message: message},
		Container: &pipeline.Container{Id: "c1", Name: "web"}, Host: &pipeline.Host{Id: "h1"},
	}
}

func TestGoodFilePassesItsTests(t *testing.T) {
	data, err := os.ReadFile("testdata/names.good.yml")
	if err != nil {
		t.Fatal(err)
	}
	set, err := Compile(Default(), []Source{{"names.good.yml", data}}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if RunTests(&out, set, false) != 0 {
		t.Error(out.String())
	}
	r := set.Rules()[0]
	if !r.Indexed || r.Version != "3" || r.Score != 30 || fmt.Sprint(r.Datasets) != "[http]" {
		t.Errorf("%+v", r)
	}
}

func TestVerdictSaysWhatWasSeen(t *testing.T) {
	set, err := compileText(t, `
id: r
title: A title
severity: high
score: 70
tags: [attack.t1190]
when: message contains "bad"
alert: "{container.name} said {{{message}}} to {source.ip}"
`)
	if err != nil {
		t.Fatal(err)
	}
	e := line("bad \x1b[31m\n" + strings.Repeat("x", 1000))
	set.Evaluate([]*pipeline.Event{e})
	v := e.Verdicts[0]
	if v.Detector != "rules" || v.Rule != "r" || v.Title != "A title" || v.Severity != pipeline.Severity_HIGH || v.Score != 70 || fmt.Sprint(v.Tags) != "[attack.t1190]" {
		t.Error(v)
	}
	if want := `web said {bad \u001b[31m `; !strings.HasPrefix(v.Evidence, want) || !strings.HasSuffix(v.Evidence, "x…} to ") {
		t.Errorf("%q", v.Evidence)
	}
	if v.Group != "c1" {
		t.Errorf("group %q", v.Group)
	}
	e = line("bad")
	e.Container = nil
	set.Evaluate([]*pipeline.Event{e})
	if e.Verdicts[0].Group != "h1" {
		t.Errorf("group %q", e.Verdicts[0].Group)
	}
}

func TestVersionFollowsTheContent(t *testing.T) {
	version := func(text string) (string, string) {
		t.Helper()
		set, err := compileText(t, text)
		if err != nil {
			t.Fatal(err)
		}
		return set.Version(), set.Rules()[0].Version
	}
	file := func(word string) string {
		return "lists: {words: [" + word + "]}\nmacros: {m: message contains words}\nrules:\n" + ruleYAML("r", "m")
	}
	bundle, rule := version(file("a"))
	if b, r := version("# a comment\n" + file("a")); b != bundle || r != rule {
		t.Error("a comment makes another version")
	}
	if b, r := version(file("b")); b == bundle || r == rule {
		t.Error("a change of a list that a macro uses goes unnoticed")
	}
	if b, _ := version(file("a") + "  version: '7'\n"); b == bundle {
		t.Error("a version by the author goes unnoticed")
	}
}

func TestSharedNamesAreKnownInOtherFiles(t *testing.T) {
	sources := []Source{
		{"a.yaml", []byte("shared: true\nlists: {words: [bad]}\nmacros: {evil: message contains words}\n")},
		{"b.yaml", []byte(ruleYAML("r", "evil"))},
	}
	set, err := Compile(Default(), sources, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	e := line("a bad line")
	set.Evaluate([]*pipeline.Event{e})
	if fired(e) != "r" {
		t.Error("did not fire")
	}
	sources = append(sources, Source{"c.yaml", []byte("lists: {words: [other]}\n")})
	if _, err := Compile(Default(), sources, nil, nil); err == nil || !strings.Contains(err.Error(), "c.yaml:1:1: words: is a shared name already, defined in a.yaml") {
		t.Error(err)
	}
}

func TestDisabledRulesDoNotRun(t *testing.T) {
	cfg := Default()
	cfg.Disable = []string{"redis-flushall"}
	set, err := Load(cfg, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range set.Rules() {
		if r.ID == "redis-flushall" {
			t.Error("runs")
		}
	}
	cfg.Disable = []string{"redis-flushal"}
	if _, err := Load(cfg, nil, nil); err == nil || !strings.Contains(err.Error(), `did you mean "redis-flushall"?`) {
		t.Error(err)
	}
}

func TestNothingThatMatchesNothingAllocates(t *testing.T) {
	set, err := compileText(t, benchRules(200)+ruleYAML("zz", `lower(unescape(url.query)) contains "page=" and len(url.query) > 9999 and any(http.request.x_forwarded_for, # == "x") and source.port != 7 and not has(url.domain)`))
	if err != nil {
		t.Fatal(err)
	}
	events := benchEvents(500)
	set.Evaluate(events)
	if n := testing.AllocsPerRun(20, func() { set.Evaluate(events) }); n > 0 {
		t.Errorf("%v allocations for 500 events, with candidates that do not match", n)
	}
}

// TestSlowRuleIsSuspended: it is logged, and happens only after more than one long evaluation.
func TestSlowRuleIsSuspended(t *testing.T) {
	reg := prometheus.NewRegistry()
	m := NewMetrics(reg)
	var log bytes.Buffer
	cfg := Default()
	set, err := Compile(cfg, []Source{{"t.yaml", []byte(ruleYAML("slow", `message contains "x"`))}}, slog.New(slog.NewTextHandler(&log, nil)), m)
	if err != nil {
		t.Fatal(err)
	}
	st := set.Rules()[0].stats
	matches := func() bool {
		e := line("x")
		set.Evaluate([]*pipeline.Event{e})
		return len(e.Verdicts) > 0
	}
	for range 2 {
		if why := st.addMeasurement(50*time.Millisecond, 0, cfg); why != "" {
			t.Error("suspended after one long run:", why)
		}
	}
	if !matches() {
		t.Error("does not run any more")
	}
	if why := st.addMeasurement(50*time.Millisecond, 0, cfg); !strings.Contains(why, "3 evaluations took longer") {
		t.Error("not suspended:", why)
	}
	if matches() {
		t.Error("suspended, but runs")
	}
	if metric(reg, "tidegate_detectors_rules_suspended", "slow") != 1 {
		t.Error("no metric")
	}
	// A mean above the budget suspends.
	other := &ruleStats{}
	why := ""
	for range 200 {
		if w := other.addMeasurement(60*time.Microsecond, 0, cfg); w != "" {
			why = w
		}
	}
	if !strings.Contains(why, "takes 60µs on average") {
		t.Error("mean:", why)
	}
	// Single long evaluations among short ones do not: the machine may be busy.
	busy := &ruleStats{}
	for i := range 2000 {
		took := time.Microsecond
		if i%32 == 0 {
			took = 15 * time.Millisecond
		}
		if w := busy.addMeasurement(took, 0, cfg); w != "" {
			t.Fatal("suspended by the machine:", w)
		}
	}
	// Nor does a long text: a sender of many must not suspend the rule.
	long := &ruleStats{}
	for range 2000 {
		if w := long.addMeasurement(900*time.Microsecond, 8<<10, cfg); w != "" {
			t.Fatal("suspended by long requests:", w)
		}
	}
	// Evaluate logs it once.
	cfg.MaxMeanTime = time.Nanosecond
	set, err = Compile(cfg, []Source{{"t.yaml", []byte(ruleYAML("slow", `message contains "x"`))}}, slog.New(slog.NewTextHandler(&log, nil)), m)
	if err != nil {
		t.Fatal(err)
	}
	for range 2000 {
		e := line("x")
		set.Evaluate([]*pipeline.Event{e})
	}
	if n := strings.Count(log.String(), "rule suspended"); n != 1 {
		t.Errorf("%d log lines: %s", n, log.String())
	}
}

// metric returns the value of the metric with that name and value of its first label.
func metric(reg *prometheus.Registry, name, label string) float64 {
	families, _ := reg.Gather()
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && m.GetLabel()[0].GetValue() == label {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return 0
}

func TestFailingRuleIsCounted(t *testing.T) {
	var log bytes.Buffer
	set, err := Compile(Default(), []Source{{"t.yaml", []byte(ruleYAML("r", `10 % http.response.status_code == 1`) + ruleYAML("s", `has(url.path)`))}},
		slog.New(slog.NewTextHandler(&log, nil)), nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		e := &pipeline.Event{Dataset: pipeline.Dataset_HTTP, Http: &pipeline.HTTPExchange{UrlPath: "/"}}
		set.Evaluate([]*pipeline.Event{e})
		if fired(e) != "s" {
			t.Error(fired(e))
		}
	}
	if n := set.Rules()[0].stats.errors.Load(); n != 3 {
		t.Errorf("%d errors counted", n)
	}
	if strings.Count(log.String(), "rule divides by zero") != 1 {
		t.Error(log.String())
	}
}

// TestEveryFieldCanBeSetInATest: every field that rules can read can be set in a case, and reads back.
func TestEveryFieldCanBeSetInATest(t *testing.T) {
	for i := range pipeline.Fields {
		f := &pipeline.Fields[i]
		if _, err := fieldKind(f); err != nil || f.Name == "network.type" || f.Name == "event.demo" {
			continue
		}
		value := "text"
		switch {
		case f.Name == "event.dataset":
			value = "log"
		case f.Name == "event.outcome":
			value = "failure"
		case f.Name == "network.transport":
			value = "udp"
		case f.Name == "event.action":
			value = "die"
		case f.Num != nil, f.Nums != nil:
			value = "7"
		case f.Flag != nil:
			value = "true"
		case f.Time != nil:
			value = `"2026-11-24T10:00:00.5Z"`
		case f.IP != nil:
			value = "10.0.0.7"
		}
		extra := ""
		if f.Body == pipeline.Dataset_DATASET_NONE && f.Name != "event.dataset" {
			extra = ", event.dataset: mysql"
		}
		if f.Name == "process.exit_code" {
			extra = ", event.action: die"
		}
		d := config.Parse("x", fmt.Appendf(nil, `{"%s": %s%s}`, f.Name, value, extra))
		root, _ := d.Root()
		e := parseEvent(root)
		if err := d.Err(); err != nil {
			t.Errorf("%s: %v", f.Name, err)
			continue
		}
		if got := f.Text(e); !f.Has(e) || got != strings.Trim(value, `"`) {
			t.Errorf("%s: %q, want %q", f.Name, got, value)
		}
	}
}

// TestPrintedEventCanBePasted: an event that replay prints is a case as it is, with the fields that are
// computed and those that are written later.
func TestPrintedEventCanBePasted(t *testing.T) {
	e := &pipeline.Event{
		Id: bytes.Repeat([]byte{7}, 16), Timestamp: 1764170000000000000, Dataset: pipeline.Dataset_HTTP, Transport: pipeline.Transport_TCP,
		CommunityId: bytes.Repeat([]byte{9}, 20), Source: &pipeline.Endpoint{Ip: []byte{10, 1, 2, 3}, Port: 999},
		Container: &pipeline.Container{Id: "c1", Labels: []*pipeline.Label{{Key: "app", Value: "shop"}}},
		Http:      &pipeline.HTTPExchange{Method: "GET", UrlPath: "/bad", XForwardedFor: []string{"192.0.2.1"}, StatusCode: 200},
		Verdicts:  []*pipeline.Verdict{{Detector: "rules", Rule: "other", Tags: []string{"a", "b"}}},
	}
	printed := string(pipeline.AppendJSON(nil, e))
	set, err := compileText(t, ruleYAML("r", `url.path == "/bad" and label("app") == "shop" and "192.0.2.1" in http.request.x_forwarded_for`)+
		"  tests:\n    - {event: "+printed+", fires: true}\n    - {event: {url.path: /}, fires: false}\n")
	if err != nil {
		t.Fatalf("%v\n%s", err, printed)
	}
	var out strings.Builder
	if RunTests(&out, set, false) != 0 {
		t.Error(out.String())
	}
}

func TestRunTestsReportsFailures(t *testing.T) {
	set, err := compileText(t, ruleYAML("r", `message contains "x"`)+`  tests:
    - {name: should, event: {message: y}, fires: true}
    - {name: should not, event: {message: x}, fires: false}
`+ruleYAML("q", `has(message)`))
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if n := RunTests(&out, set, true); n != 3 {
		t.Errorf("%d failed", n)
	}
	for _, want := range []string{
		`FAIL t.yaml:6: r: should: expected a match, but the rule did not match: message contains "x" is false (other matches: q)`,
		`FAIL t.yaml:7: r: should not: expected no match, but the rule matched: message contains "x" is true (other matches: q)`,
		"FAIL t.yaml:8: q: coverage: the rule has no case with fires: true",
		"lint t.yaml:8: q: has no index key: it is evaluated for every event of log",
		"FAIL: 2 rules, 2 cases, 3 failed",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no line %q in\n%s", want, out.String())
		}
	}
}

func TestUnescape(t *testing.T) {
	check := func(in, want string) {
		t.Helper()
		if got := unescape(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	check("a", "a")
	check("a+b", "a b")
	check("%2e%2E%2f", "../")
	check("%252e", ".")
	check("%25252e", "%2e")
	check("%2b", "+")
	check("100%", "100%")
	check("%zz%4", "%zz%4")
	check("%00", "\x00")
}

func FuzzCompile(f *testing.F) {
	f.Add([]byte(ruleYAML("r", `url.query contains "a"`)))
	for _, name := range []string{"broken.bad.yml", "types.bad.yml", "hostile.bad.yml", "shape.bad.yml", "names.good.yml"} {
		data, err := os.ReadFile("testdata/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		set, err := Compile(Default(), []Source{{"f", data}}, nil, nil)
		if err != nil {
			if len(err.Error()) == 0 {
				t.Error("an error without words")
			}
			return
		}
		set.Test()
	})
}

// FuzzExpression: the index and the plain loop agree on every expression that compiles.
func FuzzExpression(f *testing.F) {
	for _, s := range []string{
		`url.query contains "a" or not (lower(message) in ["x", "y"])`, `any(dns.answers.data, # matches "(?i)ab+c" and url.path != "")`,
		`cidr(source.ip, "10.0.0.0/8") and len(url.path) > 3`, `http.response.status_code in [200] and event.partial`, `glob(message, "*a?")`,
	} {
		f.Add(s, "ab", "x/../etc")
	}
	f.Fuzz(func(t *testing.T, when, a, b string) {
		set, err := Compile(Default(), []Source{{"f", []byte(ruleYAML("r", when))}}, nil, nil)
		if err != nil {
			return
		}
		for _, e := range []*pipeline.Event{
			{Dataset: pipeline.Dataset_HTTP, Http: &pipeline.HTTPExchange{UrlPath: a, UrlQuery: b, StatusCode: 200}, Source: &pipeline.Endpoint{Ip: []byte{10, 0, 0, 1}}},
			{Dataset: pipeline.Dataset_LOG, Log: &pipeline.LogLine{Message: a}},
			{Dataset: pipeline.Dataset_DNS, Dns: &pipeline.DNSMessage{QuestionName: b, AnswersData: []string{a, b}}},
		} {
			want := plain(set, e)
			set.Evaluate([]*pipeline.Event{e})
			if got := fired(e); got != want {
				t.Errorf("%s: index %q, loop %q", when, got, want)
			}
		}
	})
}
