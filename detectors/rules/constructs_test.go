package rules

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"tidegate/pipeline/config"
	"tidegate/pipeline/correlate"
)

// TestConstructsThatARuleCannotUseAreNamed at their position: functions with other arguments, and what expr's language has beyond that of
// rules.
func TestConstructsThatARuleCannotUseAreNamed(t *testing.T) {
	const callable = "only the functions all, any, asn, base64, cidr, count, entropy, feed, geo, glob, has, hour, json, label, len, levenshtein, lookups, lower, model, none, number, one, registered_domain, sql, trim, unescape, user_agent, value, weekday can be called"
	for when, want := range map[string]string{
		`any(redis.args)`:                            "24: expected at least 2 arguments",
		`any(redis.args, # == "a", 1)`:               "36: unexpected 1",
		`any(redis.args, #index == 1)`:               "26: #index is not part of the rule language",
		`any(redis.args, any(redis.args, # == "a"))`: "26: any() inside another loop is not allowed: its time would grow with the square of the event",
		`lower(redis.keyy) == "a"`:                   `16: unknown field "redis.keyy", did you mean "redis.key"?`,
		`len(redis.keyy) == 1`:                       `14: unknown field "redis.keyy", did you mean "redis.key"?`,
		`redis.key.x() == 1`:                         "20: " + callable,
		`trim(5) == "a"`:                             "10: trim takes a text, 5 is a number",
		`map(redis.args, #) == "a"`:                  `10: map() is not part of the rule language, did you mean "has"?`,
		`label("a", "b") == "x"`:                     "10: label takes the key of a container label between quotes",
		`has(5)`:                                     "10: has takes the name of a field",
		`cidr(source.ip)`:                            "10: cidr takes a value and at least one constant",
		`glob(redis.key, redis.command)`:             "26: glob takes constants between quotes, or a list of them",
		`source.ip contains ["10."]`:                 `20: source.ip is an address: use cidr(source.ip, "172.18.0.0/16")`,
		`redis.key in ["a", x]`:                      "29: a list holds constants only",
		`redis.args[0] == "a"`:                       "10: a part of a value cannot be taken out; test a list with any(list, # == …)",
		`a.b.c.d.e.f.g.h.i.j.k.l == "a"`:             "10: a part of a value cannot be taken out; test a list with any(list, # == …)",
		`1..3 == 2`:                                  "11: operator .. is not part of the rule language",
		`-true`:                                      "10: - takes a number, true is true or false",
		`not 5`:                                      "10: not takes a condition, 5 is a number",
		`redis.key == "a"; redis.key == "b"`:         "20: a sequence (;) is not part of the rule language",
		`let x = 1; x == 1`:                          "14: let (name the value with the key let: of the rule) is not part of the rule language",
		`redis.key[1:2] == "a"`:                      "19: a slice is not part of the rule language",
		`{"a": 1} == 1`:                              "10: a map is not part of the rule language",
		`source?.ip == "a"`:                          `18: ?. (an absent field is "" or 0) is not part of the rule language`,
		`redis.key == "a" ? true : false`:            "40: a choice (a ? b : c) is not part of the rule language",
		`redis.key == nil`:                           `23: nil (an absent text is "", an absent number 0; has(field) is true where the event has the field) is not part of the rule language`,
		`log.offset == 5x`:                           `25: "5x" is not a number: a duration has the unit ns, us, ms, s, m, h or d, as in 5s, a size KiB, MiB or GiB`,
	} {
		if got := errorOf(t, ruleYAML("a", when)); !strings.HasPrefix(got, "t.yaml:4:") || strings.Replace(got[len("t.yaml:4:"):], ": a: when: ", ": ", 1) != want {
			t.Errorf("%s: %s, want %s", when, got, want)
		}
	}
	long := `redis.key == "a"` + strings.Repeat(` or 1 == 2`, maxNodes/3)
	if got := errorOf(t, ruleYAML("a", long)); !strings.Contains(got, "expression is too large: more than 2000 parts, macros expanded") &&
		!strings.Contains(got, "the limit is 16384") {
		t.Errorf("a large expression: %s", got)
	}
}

// TestMistakesInRulesOverSeveralEventsAreNamed at their position.
func TestMistakesInRulesOverSeveralEventsAreNamed(t *testing.T) {
	const head = "- id: a\n  title: t\n  severity: low\n  when: redis.key == \"a\"\n"
	const counted = head + "  count: 1\n  within: 1m\n  group: [source.ip]\n"
	for text, want := range map[string]string{
		head + "  escalate: high\n":                     "5:13: a: escalate: expected severities with the number of matches from which on the alert has them, such as {high: 10}, got text",
		head + "  escalate: {severe: 3}\n":              `5:22: a: escalate.severe: unknown severity "severe": info, low, medium, high or critical`,
		head + "  escalate: {low: 3}\n":                 "5:19: a: escalate.low: is not above low, the severity of the rule",
		head + "  escalate: {high: 1}\n":                "5:20: a: escalate.high: must be a number of matches from 2 on",
		head + "  escalate: {critical: 20, high: 20}\n": "5:13: a: escalate: critical needs more matches than high",
		head + "  suppress: 25h\n":                      "5:13: a: suppress: must be from 1m to 1d",
		head + "  suppress: soon\n":                     `5:13: a: suppress: "soon" is not a length of time such as 30s, 5m, 12h or 7d`,
		head + "  rule: b\n":                            "5:9: a: rule: belongs to a correlation rule, one with count, distinct, sum, average, percentile, sequence, absent, first_seen or interval",
		head + "  distinct: {field: redis.key, count: 3}\n  within: 1m\n  group: [redis.key]\n":      "5:21: a: distinct.field: is a field of the group, which has one value of it",
		head + "  sum: {field: event.duration, total: '> 30'}\n  within: 1m\n  group: [source.ip]\n": `5:39: a: sum.total: "> 30" is not a number, a comparison such as ">= 10" or "< 3", or a range such as "10..100"`,
		head + "  sum: {field: source.bytes, total: '> 30s'}\n  within: 1m\n  group: [source.ip]\n":  `5:37: a: sum.total: "> 30s" is not a number, a comparison such as ">= 10" or "< 3", or a range such as "10..100"`,
		head + "  count: ''\n  within: 1m\n  group: [source.ip]\n":                                   "5:10: a: count: is empty: a value that begins with > stands between quotes",
		head + "  count: 3\n  within: 1m\n  group: [container.labels]\n":                             `7:11: a: group[0]: labels are read one by one: label("key")`,
		head + "  group: [event.id]\n": "5:11: a: group[0]: event.id has no form that a rule can compare",
		head + "  tests:\n    - {fires: true, event: {event.dataset: redis, mysql.query: b}}\n":                  "6:28: a: tests[0].event: event.dataset is redis, but the event has fields of mysql",
		head + "  tests:\n    - {fires: true, event: {redis.key: a, source.port: 1.5}}\n":                        "6:56: a: tests[0].event.source.port: expected a whole number, got a number (quote it if text is meant)",
		head + "  tests:\n    - {fires: true, event: {redis.key: null}}\n":                                       "6:40: a: tests[0].event.redis.key: expected text, got nothing",
		counted + "  tests:\n    - {fires: true, event: {redis.key: a}, events: [{event: {redis.key: a}}]}\n":    "9:7: a: tests[0]: has event and events: a case of a correlation rule has one of them",
		counted + "  tests:\n    - {fires: true, events: [{repeat: 10000, every: 1d, event: {redis.key: a}}]}\n": "9:53: a: tests[0].events[0].every: the last event is later than 365d",
		"- id: a\n  title: t\n  severity: low\n  count: 3\n  rule: nope\n  within: 1m\n  group: [source.ip]\n":   `5:9: a: rule: no rule has the id "nope"; the shipped rules are not loaded (--with-shipped)`,
	} {
		cfg := Default()
		cfg.Shipped = false
		_, err := Compile(cfg, []Source{{Name: "t.yaml", Data: []byte(text)}}, nil, nil)
		if err == nil || err.Error() != "t.yaml:"+want {
			t.Errorf("%s%v, want %s", text, err, want)
		}
	}
}

// TestBoundsOfRulesOverSeveralEvents: a least number, a comparison or a range, of events, bytes or time. A case may have a single event.
func TestBoundsOfRulesOverSeveralEvents(t *testing.T) {
	check := func(keys string, low, high int64) {
		t.Helper()
		set, err := compileText(t, "- id: a\n  title: t\n  severity: low\n  when: redis.key == \"a\"\n  within: 1m\n  group: [source.ip]\n"+keys+
			"  tests:\n    - {fires: true, event: {redis.key: a, source.ip: 10.0.0.1}}\n")
		if err != nil {
			t.Errorf("%s: %v", keys, err)
			return
		}
		if rule := set.Correlations()[0]; rule.Min != low || rule.Max != high {
			t.Errorf("%s: %d to %d, want %d to %d", keys, rule.Min, rule.Max, low, high)
		}
		// The case has one event, and a window without one behind it.
		if results := set.Test(); len(results) != 2 || results[0].Got != (low <= 1 && high >= 1 || low == 0) || results[1].Case != coverageCase {
			t.Errorf("%s: %+v", keys, results)
		}
	}
	check("  count: 1\n", 1, correlate.NoMax)
	check("  count: 5\n", 5, correlate.NoMax)
	check("  count: '>= 5'\n", 5, correlate.NoMax)
	check("  count: '> 5'\n", 6, correlate.NoMax)
	check("  count: '<= 3'\n", 0, 3)
	check("  count: '< 3'\n", 0, 2)
	check("  count: '< 1'\n", 0, 0)
	check("  count: '10..100'\n", 10, 100)
	check("  count: 1 .. 1\n", 1, 1)
	check("  sum: {field: source.bytes, total: '> 1KiB'}\n", 1025, correlate.NoMax)
	check("  sum: {field: event.duration, total: '>= 30s'}\n", 30e9, correlate.NoMax)
	check("  sum: {field: event.duration, total: '1ms..2s'}\n", 1e6, 2e9)
}

// TestFilesOfASetHaveBounds: their number, that of their rules, and names that two of them share.
func TestFilesOfASetHaveBounds(t *testing.T) {
	files := fstest.MapFS{}
	for i := range maxFiles {
		files[fmt.Sprintf("%04d.yaml", i)] = &fstest.MapFile{Data: []byte("lists: {a: [b]}\n")}
	}
	files["notes.txt"], files[".git/a.yaml"], files[".hidden.yaml"] = &fstest.MapFile{}, &fstest.MapFile{}, &fstest.MapFile{}
	if sources, warnings, err := Read(files, "p"); err != nil || len(sources) != maxFiles || len(warnings) != 0 || sources[0].Name != "p/0000.yaml" {
		t.Errorf("%d sources, %q, %v", len(sources), warnings, err)
	}
	files["z.yml"] = &fstest.MapFile{}
	if _, _, err := Read(files, "p"); err == nil || err.Error() != "read rules in p: more than 2000 rule files" {
		t.Error(err)
	}
	cfg := Default()
	cfg.Dir = t.TempDir() + "/missing"
	if _, err := Load(cfg, nil, nil); err == nil || !strings.HasPrefix(err.Error(), "read rules in "+cfg.Dir+": ") {
		t.Error(err)
	}
	if _, err := LoadFS(files, "p", nil, nil); err == nil || err.Error() != "read rules in p: more than 2000 rule files" {
		t.Error(err)
	}

	shared := []byte("shared: true\nlists: {words: [a]}\nmacros: {evil: message contains words}\n")
	_, err := Compile(Default(), []Source{{"a.yaml", shared}, {"b.yaml", shared}}, nil, nil)
	if want := "b.yaml:1:1: evil: shared name is defined in a.yaml already\nb.yaml:1:1: words: shared name is defined in a.yaml already"; err == nil ||
		!strings.HasPrefix(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
}

// TestRulesOfASetAreBounded: the first one that is too many is named, the others are left out.
func TestRulesOfASetAreBounded(t *testing.T) {
	file := parseFile(Source{"a.yaml", []byte(ruleYAML("a", `message == "a"`) + ruleYAML("b", `message == "a"`) + ruleYAML("c", `message == "a"`))})
	compiler := &compiler{cfg: Default(), slots: newSlotTable(), parsed: map[string]*parsedRule{}, total: maxRules - 1}
	for _, rule := range file.rules {
		compiler.compileRule(rule)
	}
	if errs := file.doc.Errors(); len(errs) != 1 || errs[0].Error() != "a.yaml:5:3: b: more than 50000 rules" || len(compiler.rules) != 1 || len(compiler.parsed) != 1 {
		t.Errorf("%v, %d rules", errs, len(compiler.rules))
	}
	file = parseFile(Source{"a.yaml", []byte(strings.Repeat("- 1\n", maxRules+2))})
	if errs := file.doc.Errors(); !slices.ContainsFunc(errs, func(err *config.Error) bool {
		return err.Line == maxRules+1 && strings.HasSuffix(err.Error(), "more than 50000 rules")
	}) ||
		slices.ContainsFunc(errs, func(err *config.Error) bool { return err.Line > maxRules+1 }) {
		t.Errorf("%d errors, the last is %v", len(errs), errs[len(errs)-1])
	}
}

// TestLiteralsOfAllBytesAreFound: more bytes than an automaton has classes share one, so that it finds more.
func TestLiteralsOfAllBytesAreFound(t *testing.T) {
	var literals []string
	for c := range 256 {
		literals = append(literals, string([]byte{byte(c), byte(c)}))
	}
	automaton := newAutomaton(literals, false)
	for index, text := range literals {
		var found []int32
		state := int32(0)
		for i := range len(text) {
			if state = automaton.next[state+int32(automaton.class[text[i]])]; state >= automaton.firstOutput {
				found = append(found, automaton.output[(state-automaton.firstOutput)/automaton.classes]...)
			}
		}
		if !slices.Contains(found, int32(index)) || index < maxClasses-2 && len(found) != 1 {
			t.Errorf("in %q the literals %v are found", text, found)
		}
	}
	if automaton.classes != maxClasses {
		t.Errorf("%d classes", automaton.classes)
	}
}

// TestWatcherWithoutAFolderWaitsForItsEnd.
func TestWatcherWithoutAFolderWaitsForItsEnd(t *testing.T) {
	set, err := compileText(t, ruleYAML("r", `message == "a"`))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		Watcher{Current: set, OnChange: func(*Set) { t.Error("there is nothing to load") }}.Run(ctx)
	}()
	select {
	case <-ended:
		t.Error("it has ended before its context")
	default:
	}
	cancel()
	<-ended
}
