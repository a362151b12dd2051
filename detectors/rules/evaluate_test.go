package rules

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/detectors/feeds"
	"tidegate/pipeline"
	"tidegate/pipeline/config"
	"tidegate/pipeline/lineartest"
)

// line returns a log line of the container web on the host h1.
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
	if failed, err := RunTests(&out, set, false); failed != 0 || err != nil {
		t.Error(out.String())
	}
	rule := set.Rules()[0]
	if !rule.Indexed || rule.Version != "3" || rule.Score != 30 || fmt.Sprint(rule.Datasets) != "[http]" {
		t.Errorf("%+v", rule)
	}
}

func TestVerdictDescribesTheRuleAndTheEvent(t *testing.T) {
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
	event := line("bad \x1b[31m\n" + strings.Repeat("x", 1000))
	set.Evaluate([]*pipeline.Event{event})
	verdict := event.Verdicts[0]
	if verdict.Detector != "rules" || verdict.Rule != "r" || verdict.Title != "A title" || verdict.Score != 70 {
		t.Error(verdict)
	}
	if verdict.Severity != pipeline.Severity_HIGH || fmt.Sprint(verdict.Tags) != "[attack.t1190]" {
		t.Error(verdict)
	}
	// Long values are cut, and control characters are escaped.
	const prefix, suffix = `web said {bad \u001b[31m `, "x…} to "
	if !strings.HasPrefix(verdict.Evidence, prefix) || !strings.HasSuffix(verdict.Evidence, suffix) {
		t.Errorf("%q", verdict.Evidence)
	}
	if verdict.Group != "container.id=c1" {
		t.Errorf("group %q", verdict.Group)
	}

	// Without a group of its own, a rule groups by container, and by host where there is no container.
	event = line("bad")
	event.Container = nil
	set.Evaluate([]*pipeline.Event{event})
	if event.Verdicts[0].Group != "host.id=h1" {
		t.Errorf("group %q", event.Verdicts[0].Group)
	}
}

func TestVersionFollowsTheContent(t *testing.T) {
	// version returns the version of the set, and that of its only rule.
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
	if changedBundle, changedRule := version("# a comment\n" + file("a")); changedBundle != bundle || changedRule != rule {
		t.Error("a comment changes the version")
	}
	if changedBundle, changedRule := version(file("b")); changedBundle == bundle || changedRule == rule {
		t.Error("a changed list that a macro uses leaves the version as it is")
	}
	if changedBundle, _ := version(file("a") + "  version: '7'\n"); changedBundle == bundle {
		t.Error("a version by the author leaves the version of the set as it is")
	}
}

func TestSharedNamesAreDefinedInOtherFiles(t *testing.T) {
	sources := []Source{
		{"a.yaml", []byte("shared: true\nlists: {words: [bad]}\nmacros: {evil: message contains words}\n")},
		{"b.yaml", []byte(ruleYAML("r", "evil"))},
	}
	set, err := Compile(Default(), sources, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	event := line("a bad line")
	set.Evaluate([]*pipeline.Event{event})
	if fired(event) != "r" {
		t.Error("did not fire")
	}

	sources = append(sources, Source{"c.yaml", []byte("lists: {words: [other]}\n")})
	_, err = Compile(Default(), sources, nil, nil)
	if err == nil || !strings.Contains(err.Error(), "c.yaml:1:1: words: is a shared name already, defined in a.yaml") {
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
	for _, rule := range set.Rules() {
		if rule.ID == "redis-flushall" {
			t.Error("runs")
		}
	}

	cfg.Disable = []string{"redis-flushal"}
	set, err = Load(cfg, nil, nil)
	if err != nil || !strings.Contains(strings.Join(set.Warnings(), " "), `did you mean "redis-flushall"?`) {
		t.Errorf("an unknown id has no warning: %v", err)
	}
}

// TestConfigurationChangesShippedRules: exceptions and severities of the configuration apply to rules whose files
// nobody can edit. A mistake in them names its place.
func TestConfigurationChangesShippedRules(t *testing.T) {
	event := func(source string) *pipeline.Event {
		e := &pipeline.Event{
			Dataset: pipeline.Dataset_REDIS, Redis: &pipeline.RedisCommand{Command: "FLUSHALL"},
			Source: &pipeline.Endpoint{Ip: netip.MustParseAddr(source).AsSlice()},
		}
		return e
	}
	cfg := Default()
	plain, err := Load(cfg, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Exceptions = map[string][]string{"redis-flushall": {`cidr(source.ip, "192.0.2.0/24")`, `user.name == "admin"`}, "gone": {"true"}}
	cfg.Severity = map[string]string{"redis-flushall": "low", "http-scaner": "info"}
	set, err := Load(cfg, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	severity := func(set *Set, source string) string {
		e := event(source)
		set.Evaluate([]*pipeline.Event{e})
		for _, verdict := range e.Verdicts {
			if verdict.Rule == "redis-flushall" {
				return verdict.Severity.Name()
			}
		}
		return "none"
	}
	if severity(plain, "192.0.2.7") == "none" || severity(plain, "198.51.100.7") == "low" {
		t.Fatal("the shipped rule does not match, or is low anyway")
	}
	if got := severity(set, "192.0.2.7") + " " + severity(set, "198.51.100.7"); got != "none low" {
		t.Errorf("severities %s, want none low", got)
	}
	if set.Version() == plain.Version() {
		t.Error("sets of other verdicts have the same version")
	}
	warnings := strings.Join(set.Warnings(), "; ")
	if len(set.Warnings()) != 2 || !strings.Contains(warnings, `rules.exceptions: no rule has the id "gone"`) ||
		!strings.Contains(warnings, `rules.severity: no rule has the id "http-scaner", did you mean "http-scanner"`) {
		t.Errorf("warnings %s", warnings)
	}

	cfg.Exceptions = map[string][]string{"redis-flushall": {"true", `source.ipp == "x"`}}
	_, err = Load(cfg, nil, nil)
	if err == nil || !strings.Contains(err.Error(), `rules.exceptions.redis-flushall[1]: unknown field "source.ipp", did you mean "source.ip"?`) {
		t.Error(err)
	}
	if problems := (Config{Shipped: true, MaxMeanTime: 1, MaxTime: 1, Severity: map[string]string{"x": "urgent"}}).Check(); len(problems) != 1 ||
		problems[0].Key != "severity.x" {
		t.Errorf("problems %v", problems)
	}
}

func TestEvaluationWithoutAMatchDoesNotAllocate(t *testing.T) {
	// The index cannot rule the last rule out: it is evaluated, and does not match.
	set, err := compileText(t, benchRules(200)+ruleYAML("zz", `lower(unescape(url.query)) contains "page="`+
		` and len(url.query) > 9999 and any(http.request.x_forwarded_for, # == "x")`+
		` and source.port != 7 and not has(url.domain)`))
	if err != nil {
		t.Fatal(err)
	}
	events := benchEvents(500)
	set.Evaluate(events)
	if allocations := testing.AllocsPerRun(20, func() { set.Evaluate(events) }); allocations > 0 {
		t.Errorf("%v allocations for 500 events, with candidates that do not match", allocations)
	}
}

func TestRuleIsSuspendedAfterThreeLongEvaluations(t *testing.T) {
	reg := prometheus.NewRegistry()
	cfg := Default()
	sources := []Source{{"t.yaml", []byte(ruleYAML("slow", `message contains "x"`))}}
	set, err := Compile(cfg, sources, nil, NewMetrics(reg))
	if err != nil {
		t.Fatal(err)
	}
	stats := set.Rules()[0].stats
	matches := func() bool {
		event := line("x")
		set.Evaluate([]*pipeline.Event{event})
		return len(event.Verdicts) > 0
	}
	for range 2 {
		if reason := stats.addMeasurement(50*time.Millisecond, 0, cfg); reason != "" {
			t.Error("suspended too early:", reason)
		}
	}
	if !matches() {
		t.Error("does not run any more")
	}

	reason := stats.addMeasurement(50*time.Millisecond, 0, cfg)
	if !strings.Contains(reason, "3 evaluations took longer") {
		t.Error("not suspended:", reason)
	}
	if matches() {
		t.Error("suspended, but runs")
	}
	if metric(reg, "tidegate_detectors_rules_suspended", "slow") != 1 {
		t.Error("no metric")
	}
}

func TestRuleIsSuspendedWhenItsMeanIsTooLong(t *testing.T) {
	stats, suspended := &ruleStats{}, ""
	for range 200 {
		if reason := stats.addMeasurement(60*time.Microsecond, 0, Default()); reason != "" {
			suspended = reason
		}
	}
	if !strings.Contains(suspended, "takes 60µs on average") {
		t.Error("mean:", suspended)
	}
}

// TestRuleIsNotSuspendedByTheMachineOrTheSender: a few long evaluations among short ones come from a busy
// machine, and long evaluations of long texts from their sender.
func TestRuleIsNotSuspendedByTheMachineOrTheSender(t *testing.T) {
	busy := &ruleStats{}
	for i := range 2000 {
		took := time.Microsecond
		if i%32 == 0 {
			took = 15 * time.Millisecond
		}
		if reason := busy.addMeasurement(took, 0, Default()); reason != "" {
			t.Fatal("suspended by the machine:", reason)
		}
	}
	long := &ruleStats{}
	for range 2000 {
		if reason := long.addMeasurement(900*time.Microsecond, 8<<10, Default()); reason != "" {
			t.Fatal("suspended by long requests:", reason)
		}
	}
}

// TestRuleIsNotSuspendedByTheTextOfItsExceptions: an exception reads a text that the condition does not read, and
// the sender makes it long.
func TestRuleIsNotSuspendedByTheTextOfItsExceptions(t *testing.T) {
	const agentBytes = 8 * 940
	for name, test := range map[string]struct {
		rule  string
		bytes int
	}{
		"when":             {`http.request.method == "POST" and not (user_agent.original matches "(?i)probe-?[0-9]+$")`, 4 + agentBytes},
		"exception":        {`http.request.method == "POST"`, 4 + agentBytes},
		"second exception": {`http.request.method == "POST"`, 4 + 2 + agentBytes},
		"no match":         {`http.request.method == "GET"`, 4},
	} {
		rule := test.rule
		text := ruleYAML("r", rule)
		switch name {
		case "exception", "no match":
			text += "  exceptions: ['user_agent.original matches \"(?i)probe-?[0-9]+$\"']\n"
		case "second exception":
			text += "  exceptions: ['url.path == \"/x\"', 'user_agent.original matches \"(?i)probe-?[0-9]+$\"']\n"
		}
		set, err := Compile(Default(), []Source{{"t.yaml", []byte(text)}}, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		agent := strings.Repeat("probe-1 ", 940)
		measured := set.Rules()[0]
		worker := set.acquireWorker()
		worker.values.setEvent(&pipeline.Event{
			Dataset: pipeline.Dataset_HTTP,
			Http:    &pipeline.HTTPExchange{Method: "POST", UserAgent: agent, UrlPath: "/y"},
		})
		if matches := set.matchesRule(worker, measured); matches != (name != "no match") || worker.readBytes(measured) != test.bytes {
			t.Errorf("%s: matches %t, %d bytes are read, want %d", name, matches, worker.readBytes(measured), test.bytes)
		}
	}
}

// TestGroupsOfDifferentValuesDiffer: whoever chooses one value of a group cannot make it that of another.
func TestGroupsOfDifferentValuesDiffer(t *testing.T) {
	groupBy := func(fields string, agent, path string) string {
		t.Helper()
		text := ruleYAML("r", `http.request.method == "GET"`) + "  group: [" + fields + "]\n"
		set, err := Compile(Default(), []Source{{"t.yaml", []byte(text)}}, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		event := &pipeline.Event{Dataset: pipeline.Dataset_HTTP, Http: &pipeline.HTTPExchange{
			Method: "GET", UserAgent: agent, UrlPath: path,
		}}
		set.Evaluate([]*pipeline.Event{event})
		return event.Verdicts[0].Group
	}
	const both = "user_agent.original, url.path"
	values := []string{
		"x", "/b", "x|/a", "/a|/b", `x\`, `x\|`, `|`, `\|`, `\\`, "", "x|", "|/b", "\x1b", `\u{1b}`, "\xff", "\xfe", "\ufffd", `\xff`,
		"x url.path=/b", `"x"`, "=", "\n", "\u202e", "a b", strings.Repeat("x", 300), strings.Repeat("x", 299) + "|", "é",
	}
	seen := map[string]string{}
	for _, agent := range values {
		for _, path := range values {
			group, pair := groupBy(both, agent, path), fmt.Sprintf("%q and %q", agent, path)
			if other, ok := seen[group]; ok {
				t.Errorf("%s have the group of %s: %s", pair, other, group)
			}
			seen[group] = pair
			if strings.ContainsFunc(group, pipeline.IsControl) || !utf8.ValidString(group) || len(group) > maxGroupBytes {
				t.Errorf("the group %q of %s", group, pair)
			}
		}
	}
	alone := map[string]bool{}
	for _, agent := range values {
		alone[groupBy("user_agent.original", agent, "/")] = true
	}
	if len(alone) != len(values) {
		t.Errorf("%d groups of %d values", len(alone), len(values))
	}
	if group := groupBy(both, "curl/8", "/a"); group != "user_agent.original=curl/8 url.path=/a" {
		t.Errorf("group %q", group)
	}
	whole := "url.path=" + strings.Repeat("x", maxGroupBytes-len("url.path="))
	if group := groupBy("url.path", "", whole[len("url.path="):]); group != whole {
		t.Errorf("a group of %d bytes: %q", maxGroupBytes, group)
	}
	sum := sha256.Sum256([]byte(whole + "x")) // the form is a part of the identity of alerts
	if group := groupBy("url.path", "", whole[len("url.path="):]+"x"); group != whole[:maxGroupBytes-17]+"~"+hex.EncodeToString(sum[:8]) {
		t.Errorf("a longer group: %q", group)
	}
}

// TestTextWithoutTemplateLeavesOutWhatIsAbsent: the fields of other datasets that the rule reads are no part of the text.
func TestTextWithoutTemplateLeavesOutWhatIsAbsent(t *testing.T) {
	set, err := compileText(t, ruleYAML("r", `url.original contains "x" or message contains "x" or mysql.query contains "x" or log.level == "x"`))
	if err != nil {
		t.Fatal(err)
	}
	event := line("an x")
	set.Evaluate([]*pipeline.Event{event})
	if got := event.Verdicts[0].Evidence; got != "message=an x" {
		t.Errorf("%q", got)
	}
	event = &pipeline.Event{Dataset: pipeline.Dataset_LOG, Log: &pipeline.LogLine{Message: "x", Level: "x"}}
	set.Evaluate([]*pipeline.Event{event})
	if got := event.Verdicts[0].Evidence; got != "message=x log.level=x" {
		t.Errorf("%q", got)
	}
}

func TestSuspensionIsLoggedOnce(t *testing.T) {
	var log bytes.Buffer
	cfg := Default()
	cfg.MaxMeanTime = time.Nanosecond
	sources := []Source{{"t.yaml", []byte(ruleYAML("slow", `message contains "x"`))}}
	set, err := Compile(cfg, sources, slog.New(slog.NewTextHandler(&log, nil)), nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 2000 {
		event := line("x")
		set.Evaluate([]*pipeline.Event{event})
	}
	want := regexp.MustCompile(`^time=\S+ level=ERROR msg="rule suspended until rules are loaded again" rule=slow reason=".+" file=t.yaml line=1\n$`)
	if lines := strings.Count(log.String(), "\n"); lines != 1 || !want.MatchString(log.String()) {
		t.Errorf("%d log lines: %s", lines, log.String())
	}
}

// metric returns the value of the metric with a name and a value of its first label, or 0.
func metric(reg *prometheus.Registry, name, label string) float64 {
	families, _ := reg.Gather()
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			if family.GetName() == name && (label == "" || metric.GetLabel()[0].GetValue() == label) {
				return metric.GetCounter().GetValue() + metric.GetGauge().GetValue()
			}
		}
	}
	return 0
}

func TestFailingRuleIsCounted(t *testing.T) {
	var log bytes.Buffer
	text := ruleYAML("r", `10 % http.response.status_code == 1`) + ruleYAML("s", `has(url.path)`)
	sources := []Source{{"t.yaml", []byte(text)}}
	set, err := Compile(Default(), sources, slog.New(slog.NewTextHandler(&log, nil)), nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		event := &pipeline.Event{Dataset: pipeline.Dataset_HTTP, Http: &pipeline.HTTPExchange{UrlPath: "/"}}
		set.Evaluate([]*pipeline.Event{event})
		if fired(event) != "s" {
			t.Error(fired(event))
		}
	}
	if errors := set.Rules()[0].stats.errors.Load(); errors != 3 {
		t.Errorf("%d errors counted", errors)
	}
	if strings.Count(log.String(), "rule divides by zero") != 1 {
		t.Error(log.String())
	}
}

// TestEveryFieldCanBeSetInACase: every field that rules can read can be set in a case, and is read back. The
// type of the network and the demo flag are computed.
func TestEveryFieldCanBeSetInACase(t *testing.T) {
	for i := range pipeline.Fields {
		field := &pipeline.Fields[i]
		if _, err := fieldKind(field); err != nil || field.Name == "network.type" || field.Name == "event.demo" {
			continue
		}
		value := "text"
		switch {
		case field.Name == "event.dataset":
			value = "log"
		case field.Name == "event.outcome":
			value = "failure"
		case field.Name == "network.transport":
			value = "udp"
		case field.Name == "event.action":
			value = "die"
		case field.Name == "dns.question.registered_domain":
			value = "example.com"
		case field.Num != nil, field.Nums != nil:
			value = "7"
		case field.Flag != nil:
			value = "true"
		case field.Time != nil:
			value = `"2026-11-24T10:00:00.5Z"`
		case field.IP != nil:
			value = "10.0.0.7"
		}

		// Fields of the common part need a dataset, and an exit code needs the action die.
		extra := ""
		if field.Body == pipeline.Dataset_DATASET_NONE && field.Name != "event.dataset" {
			extra = ", event.dataset: mysql"
		}
		if field.Name == "process.exit_code" {
			extra = ", event.action: die"
		}
		document := config.Parse("x", fmt.Appendf(nil, `{"%s": %s%s}`, field.Name, value, extra))
		root, _ := document.Root()
		event := parseEvent(root, 0)
		if err := document.Err(); err != nil {
			t.Errorf("%s: %v", field.Name, err)
			continue
		}
		if got := field.Text(event); !field.Has(event) || got != strings.Trim(value, `"`) {
			t.Errorf("%s: %q, want %q", field.Name, got, value)
		}
	}
}

// TestPrintedEventCanBePasted: an event that replay prints can be the event of a case. Its computed fields
// and those that the engine sets are accepted.
func TestPrintedEventCanBePasted(t *testing.T) {
	event := &pipeline.Event{
		Id: bytes.Repeat([]byte{7}, 16), Timestamp: 1764170000000000000,
		Dataset: pipeline.Dataset_HTTP, Transport: pipeline.Transport_TCP, CommunityId: bytes.Repeat([]byte{9}, 20),
		Source:    &pipeline.Endpoint{Ip: []byte{10, 1, 2, 3}, Port: 999},
		Container: &pipeline.Container{Id: "c1", Labels: []*pipeline.Label{{Key: "app", Value: "shop"}}},
		Http: &pipeline.HTTPExchange{
			Method: "GET", UrlPath: "/bad", XForwardedFor: []string{"192.0.2.1"}, StatusCode: 200,
		},
		Verdicts: []*pipeline.Verdict{{Detector: "rules", Rule: "other", Tags: []string{"a", "b"}}},
	}
	printed := string(pipeline.AppendJSON(nil, event))
	when := `url.path == "/bad" and label("app") == "shop" and "192.0.2.1" in http.request.x_forwarded_for`
	set, err := compileText(t, ruleYAML("r", when)+
		"  tests:\n    - {event: "+printed+", fires: true}\n    - {event: {url.path: /}, fires: false}\n")
	if err != nil {
		t.Fatalf("%v\n%s", err, printed)
	}
	var out strings.Builder
	if failed, err := RunTests(&out, set, false); failed != 0 || err != nil {
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
	const failures = `FAIL t.yaml:8: q: coverage: the rule has no case with fires: true
FAIL t.yaml:6: r: should: expected a match, but the rule did not match: message contains "x" is false (message = "y") (other matches: q)
FAIL t.yaml:7: r: should not: expected no match, but the rule matched: message contains "x" is true (message = "x") (other matches: q)
`
	const table = `RULE  SEVERITY  DATASETS  INDEXED  CASES  RESULT  TITLE
q     low       log       no       0      FAIL    t
r     low       log       yes      2      FAIL    t
`
	const lints = `lint t.yaml:8: q: has no index key: it is evaluated for every event of log; compare a field with a constant, or look for a literal in one (no-index-key)
`
	for verbose, want := range map[bool]string{false: failures + lints, true: failures + table + lints} {
		var out strings.Builder
		if failed, err := RunTests(&out, set, verbose); failed != 3 || err != nil {
			t.Errorf("%d failed, %v", failed, err)
		}
		want += "FAIL: 2 rules, 2 cases, 3 failed, version " + set.Version() + ", compiled in "
		if got, ok := strings.CutPrefix(out.String(), want); !ok || strings.Count(got, "\n") != 1 || !strings.Contains(got, ", tested in ") {
			t.Errorf("verbose %t:\n%s\nwant\n%s", verbose, out.String(), want)
		}
	}
}

// TestUnescapeDecodesTwice: unescape decodes percent-encoding up to two times, and leaves invalid encodings.
func TestUnescapeDecodesTwice(t *testing.T) {
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

// TestSQLIsSimplified: comments, white space, case and numbers make no difference.
func TestSQLIsSimplified(t *testing.T) {
	check := func(in, want string) {
		t.Helper()
		if got := simplifySQL(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	check("", "")
	check("OR/**/12 = (SELECT", "or 0=(select")
	check("1'\t UNION\nall\r\nSelect a , 1.5", "0'union all select a,0.0")
	check("-1/*!50000union*//*x*/ select", "-0 union select")
	check("a/*b", "a/*b")
	check("or 0x41='x1'", "or 0='x1'")
	check("é 1é", "é 0")
	check(" a ", "a")
	check(`" OR "a" = "a`, `'or'a'='a`)
	check(strings.Repeat("/* ", 1000), strings.Repeat("/*", 1000))
	lineartest.CheckRepeated(t, lineartest.Default, "/*union/**/ or 1=1", func(in string) { simplifySQL(in) })
	lineartest.CheckRepeated(t, lineartest.Default, "/*/", func(in string) { simplifySQL(in) })
}

// TestLookupsAreResolved: the value of a slot and that of a computed text are the same, and a text without a lookup
// stays.
func TestLookupsAreResolved(t *testing.T) {
	set, err := compileText(t, ruleYAML("slot", `lookups(url.query) contains "${jndi:"`)+ruleYAML("computed", `lookups(url.query + "x") contains "${jndi:"`)+
		ruleYAML("element", `any(http.request.x_forwarded_for, lower(lookups(unescape(#))) contains "${jndi:")`))
	if err != nil {
		t.Fatal(err)
	}
	check := func(text string, want int) {
		t.Helper()
		event := &pipeline.Event{Dataset: pipeline.Dataset_HTTP, Http: &pipeline.HTTPExchange{UrlQuery: text, XForwardedFor: []string{"", text}}}
		if set.Evaluate([]*pipeline.Event{event}); len(event.Verdicts) != want {
			t.Errorf("%q: %s match, want %d rules", text, fired(event), want)
		}
	}
	check("a=${${env:A:-j}ndi:ldap://x}", 3)
	check("a=${lower:jndi}:", 0)
	check("a=${HOME}", 0)
	check("", 0)
}

// FuzzCompile checks that any file yields either a set that can be tested, or an error with a text.
func FuzzCompile(f *testing.F) {
	document, err := os.ReadFile("../../docs/RULES.md")
	if err != nil {
		f.Fatal(err)
	}
	for _, block := range fence.FindAllSubmatch(document, -1) {
		f.Add(block[2])
	}
	f.Add([]byte(ruleYAML("r", `url.query contains "a"`)))
	for _, name := range []string{"broken.bad.yml", "types.bad.yml", "hostile.bad.yml", "shape.bad.yml", "names.good.yml"} {
		data, err := os.ReadFile("testdata/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		lineartest.CheckRepeated(t, lineartest.Default, data, func(data []byte) {
			set, err := Compile(Default(), []Source{{"f", data}}, nil, nil)
			if err != nil {
				if len(err.Error()) == 0 {
					t.Error("an error without a text")
				}
				return
			}
			set.Test()
		})
	})
}

// FuzzExpression checks that the index and the plain loop agree on every expression that compiles.
func FuzzExpression(f *testing.F) {
	for _, when := range []string{
		`url.query contains "a" or not (lower(message) in ["x", "y"])`,
		`any(dns.answers.data, # matches "(?i)ab+c" and url.path != "")`,
		`cidr(source.ip, "10.0.0.0/8") and len(url.path) > 3`,
		`http.response.status_code in [200] and event.partial`,
		`glob(message, "*a?")`,
		`number(json(message, "$.a")) >= 5 or number(url.path) not in [1, 2]`,
		`feed("f", url.path) or any(dns.answers.data, not feed("f", #)) or feed("f", source.ip)`,
	} {
		f.Add(when, "ab", "x/../etc")
	}
	f.Fuzz(func(t *testing.T, when, first, second string) {
		lineartest.Default.Check(t, len(when)+len(first)+len(second), func() {
			set, err := Compile(Default(), []Source{{"f", []byte(ruleYAML("r", when))}}, nil, nil)
			if err != nil {
				return
			}
			if list, err := feeds.Of(map[string][]string{"f": {second}}, []string{"f"}); err == nil {
				set = set.WithFeeds(list)
			}
			for _, event := range []*pipeline.Event{
				{
					Dataset: pipeline.Dataset_HTTP, Source: &pipeline.Endpoint{Ip: []byte{10, 0, 0, 1}},
					Http: &pipeline.HTTPExchange{UrlPath: first, UrlQuery: second, StatusCode: 200},
				},
				{Dataset: pipeline.Dataset_LOG, Log: &pipeline.LogLine{Message: first}},
				{Dataset: pipeline.Dataset_DNS, Dns: &pipeline.DNSMessage{QuestionName: second, AnswersData: []string{first, second}}},
			} {
				want := plain(set, event)
				set.Evaluate([]*pipeline.Event{event})
				if got := fired(event); got != want {
					t.Errorf("%s: index %q, loop %q", when, got, want)
				}
			}
		})
	})
}
