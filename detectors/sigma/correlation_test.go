package sigma_test

import (
	"strings"
	"testing"

	"tidegate/detectors/rules"
	"tidegate/detectors/sigma"
)

// Two rules of one event, by name and by id, and the beginning of a correlation.
const correlated = `title: A failed login
name: failed
id: 00000000-0000-0000-0000-000000000001
logsource: {category: webserver}
detection:
    s: {cs-uri-stem: /login, sc-status: 401}
    condition: s
---
title: A login
id: 00000000-0000-0000-0000-000000000002
logsource: {category: webserver}
detection:
    s: {cs-uri-stem: /login, sc-status: 200}
    condition: s
---
title: A correlation
id: 00000000-0000-0000-0000-000000000003
author: Ann
level: high
correlation:
`

// convertCorrelation returns the conversion of a correlation of the two rules.
func convertCorrelation(t *testing.T, body string) (correlation *sigma.Conversion, all []*sigma.Conversion) {
	t.Helper()
	text := correlated + "    " + strings.ReplaceAll(strings.TrimSpace(body), "\n", "\n    ") + "\n"
	all = sigma.Convert([]sigma.Source{{Name: "a.yml", Data: []byte(text)}})
	return all[len(all)-1], all
}

// checkCorrelation converts a correlation of the two rules, runs its cases, and looks for parts of it.
func checkCorrelation(t *testing.T, body string, parts ...string) {
	t.Helper()
	c, _ := convertCorrelation(t, body)
	checkConverted(t, c, parts...)
}

func checkConverted(t *testing.T, c *sigma.Conversion, parts ...string) {
	t.Helper()
	if c.Err != nil {
		t.Errorf("%v", c.Err)
		return
	}
	set, err := rules.Compile(rules.Default(), []rules.Source{{Name: "a.yml", Data: c.Text()}}, nil, nil)
	if err != nil {
		t.Errorf("%v\n%s", err, c.Text())
		return
	}
	if !c.Examples {
		t.Errorf("no examples:\n%s", c.Text())
	}
	for _, result := range set.Test() {
		if !result.Passed {
			t.Errorf("%+v\n%s", result, c.Text())
		}
	}
	for _, part := range parts {
		if !strings.Contains(string(c.Text()), part) {
			t.Errorf("%q is not in\n%s", part, c.Text())
		}
	}
}

// TestCorrelations converts each type of correlation that our rules have, and runs the cases.
func TestCorrelations(t *testing.T) {
	check := func(body string, parts ...string) {
		t.Helper()
		checkCorrelation(t, body, parts...)
	}
	check("type: event_count\nrules: [failed]\ngroup-by: [c-ip]\ntimespan: 5m\ncondition: {gte: 10}",
		`count: ">= 10"`, "within: 5m", "group: [source.ip]", "severity: high", "source.ip={source.ip} (Sigma rule by Ann)")
	check("type: event_count\nrules:\n    - failed\n    - 00000000-0000-0000-0000-000000000002\ntimespan: 1h\ncondition:\n    gt: 5", `count: ">= 6"`)
	check("type: value_count\nrules: failed\ngroup-by: [cs-host]\ntimespan: 1h\ncondition: {field: src_port, gte: 4}", `distinct: {field: source.port, count: ">= 4"}`, "group: [url.domain]")
	check("type: value_sum\nrules: [failed]\ngroup-by: [src_ip]\ntimespan: 1d\ncondition: {field: sc-bytes, gt: 1000000}", `sum: {field: destination.bytes, total: ">= 1000001"}`)
	check("type: temporal\nrules:\n    - failed\n    - 00000000-0000-0000-0000-000000000002\ngroup-by: [c-ip]\ntimespan: 10m", "ordered: false")
	check("type: temporal_ordered\nrules:\n    - failed\n    - 00000000-0000-0000-0000-000000000002\ngroup-by: [who]\ntimespan: 10m\n"+
		"aliases:\n    who:\n        failed: src_ip\n        00000000-0000-0000-0000-000000000002: dst_ip", "ordered: true", "group: [source.ip]", "group: [destination.ip]")
}

// TestStatisticsOfCorrelations converts averages, percentiles and medians, of fields and of durations in
// their unit.
func TestStatisticsOfCorrelations(t *testing.T) {
	const head = "rules: [failed]\ngroup-by: [c-ip]\ntimespan: 1h\n"
	checkCorrelation(t, "type: value_avg\n"+head+"condition: {field: sc-bytes, gt: 500}", `average: {field: destination.bytes, value: "> 500"}`)
	checkCorrelation(t, "type: value_avg\n"+head+"condition: {field: sc-bytes, gte: 500}", `average: {field: destination.bytes, value: ">= 500"}`)
	checkCorrelation(t, "type: value_percentile\n"+head+"condition: {field: time-taken, gt: 2000, percentile: 95}",
		`percentile: {field: event.duration, percent: 95, value: "> 2000ms"}`)
	checkCorrelation(t, "type: value_percentile\n"+head+"condition: {field: sc-bytes, gte: 10, percentile: 99.9}", `percent: 99.9, value: ">= 10"`)
	checkCorrelation(t, "type: value_median\n"+head+"condition: {field: sc-bytes, gt: 10}", `percentile: {field: destination.bytes, percent: 50, value: ">= 11"}`)
	checkCorrelation(t, "type: value_sum\n"+head+"condition: {field: time-taken, gte: 60000}", `sum: {field: event.duration, total: ">= 60000ms"}`)
	checkCorrelation(t, "type: value_sum\n"+head+"condition: {field: sc-bytes, gte: 5000000000}", `total: ">= 5000000000"`)
	for condition, want := range map[string]string{"lt: 5": "< 5", "lte: 5": "<= 5", "eq: 5": "5..5", "gte: 2, lte: 7": "2..7"} {
		c, _ := convertCorrelation(t, "type: value_avg\n"+head+"condition: {field: sc-bytes, "+condition+"}")
		if c.Err != nil || !strings.Contains(string(c.Text()), `value: "`+want+`"`) {
			t.Errorf("%s: %v, expected %q in\n%s", condition, c.Err, want, c.Text())
		}
	}
}

// TestCorrelationsOfKeys groups by keys of log lines and counts their values, which names of let stand for.
func TestCorrelationsOfKeys(t *testing.T) {
	const rules = `title: A failed login
name: failed
id: 00000000-0000-0000-0000-000000000001
logsource: {category: application, product: nodejs}
detection:
    s: {event: login_failed}
    condition: s
---
title: A login
name: login
id: 00000000-0000-0000-0000-000000000002
logsource: {product: linux, service: auditd}
detection:
    s: {type: USER_LOGIN}
    condition: s
---
title: A correlation
id: 00000000-0000-0000-0000-000000000003
correlation:
    timespan: 5m
`
	check := func(body string, parts ...string) {
		t.Helper()
		text := rules + "    " + strings.ReplaceAll(strings.TrimSpace(body), "\n", "\n    ") + "\n"
		all := sigma.Convert([]sigma.Source{{Name: "a.yml", Data: []byte(text)}})
		checkConverted(t, all[len(all)-1], parts...)
	}
	check("type: event_count\nrules: [failed]\ngroup-by: [user.name, container.id]\ncondition: {gte: 5}",
		`key_user_name: "value(message, \"user.name\")"`, "group: [key_user_name, container.id]", "key_user_name={key_user_name}")
	check("type: value_count\nrules: [failed]\ngroup-by: [user]\ncondition: {field: ip, gte: 5}", `distinct: {field: key_ip, count: ">= 5"}`)
	check("type: value_sum\nrules: [failed]\ngroup-by: [user]\ncondition: {field: bytes, gte: 500}",
		`number_of_key_bytes: "number(value(message, \"bytes\"))"`, `sum: {field: number_of_key_bytes, total: ">= 500"}`)
	check("type: value_avg\nrules: [failed]\ngroup-by: [user]\ncondition: {field: ms, gt: 500}", `average: {field: number_of_key_ms, value: "> 500"}`)
	check("type: temporal_ordered\nrules: [failed, login]\ngroup-by: [who]\naliases:\n    who: {failed: user, login: acct}",
		"group: [key_user]", "group: [key_acct]")
}

// TestCorrelationBounds converts conditions with an upper bound, whose windows our rules evaluate at their
// ends.
func TestCorrelationBounds(t *testing.T) {
	check := func(condition, want string) {
		t.Helper()
		c, _ := convertCorrelation(t, "type: event_count\nrules: [failed]\ntimespan: 5m\ncondition: {"+condition+"}")
		if c.Err != nil || !strings.Contains(string(c.Text()), "count: \""+want+"\"") {
			t.Errorf("%s: %v, expected %q in\n%s", condition, c.Err, want, c.Text())
		}
	}
	check("lt: 5", "<= 4")
	check("lte: 5", "<= 5")
	check("eq: 5", "5..5")
	check("gte: 3, lt: 9", "3..8")
}

// TestRulesOfCorrelations: a rule that a correlation refers to makes no alerts itself, unless the correlation
// generates them.
func TestRulesOfCorrelations(t *testing.T) {
	const body = "type: event_count\nrules: [failed]\ntimespan: 5m\ncondition: {gte: 10}"
	for generate, want := range map[string]string{"": "A login, A correlation", "\ngenerate: true": "A failed login, A login, A correlation", "\ngenerate: false": "A login, A correlation"} {
		_, all := convertCorrelation(t, body+generate)
		var titles []string
		for _, c := range all {
			titles = append(titles, c.Title)
		}
		if got := strings.Join(titles, ", "); got != want {
			t.Errorf("%q: got %s, want %s", generate, got, want)
		}
	}
}

// TestCorrelationRefusals gives each correlation that cannot be converted one reason.
func TestCorrelationRefusals(t *testing.T) {
	check := func(body, want string) {
		t.Helper()
		c, _ := convertCorrelation(t, body)
		if c.Err == nil || !strings.Contains(c.Err.Error(), want) {
			t.Errorf("got %v, expected %q", c.Err, want)
		}
	}
	const count = "type: event_count\nrules: [failed]\ntimespan: 5m\n"
	check("type: value_percentile\nrules: [failed]\ntimespan: 5m\ncondition: {gte: 1, field: sc-bytes}", "condition has no percentile")
	check("type: value_percentile\nrules: [failed]\ntimespan: 5m\ncondition: {gte: 1, field: sc-bytes, percentile: 101}",
		"a.yml:24:54: correlation.condition.percentile: expected a number above 0")
	check("type: value_avg\nrules: [failed]\ntimespan: 5m\ncondition: {gte: 1, field: cs-host}", "no numbers")
	check("type: value_avg\nrules: [failed]\ntimespan: 5m\ncondition: {gt: 1, lt: 5, field: sc-bytes}", "gt or lt in a range")
	check("type: value_avrg\nrules: [failed]\ntimespan: 5m\ncondition: {gte: 1, field: sc-bytes}", `unknown type "value_avrg" of correlation, did you mean`)
	check("type: event_count\nrules: [failed]\ntimespan: 5m\ncondition: {gte: 3000000000}", "counts up to 2147483647")
	check("type: temporal\nrules:\n    - failed\n    - 00000000-0000-0000-0000-000000000002\ntimespan: 5m\ncondition: {gte: 1}", "asks for a part of them")
	check("type: some\nrules: [failed]\ntimespan: 5m\ncondition: {gte: 1}", "unknown type")
	check(strings.Replace(count, "failed", "x", 1)+"condition: {gte: 1}", `no rule with the name or id "x"`)
	check(strings.Replace(count, "failed", "A correlation", 1)+"condition: {gte: 1}", "a correlation itself")
	check(strings.Replace(count, "5m", "30d", 1)+"condition: {gte: 1}", "from 1s to 7d")
	check(strings.Replace(count, "5m", "5 minutes", 1)+"condition: {gte: 1}", "not a length of time")
	check(count, "condition is missing")
	check(count+"condition: {gte: 0}", "never holds, or always")
	check(count+"condition: {gte: 5, lt: 3}", "never holds, or always")
	check(count+"condition: {neq: 5}", "neq is not supported")
	check(count+"condition: {gte: x}", "expected a whole number")
	check(count+"group-by: [nothing]\ncondition: {gte: 1}", "nothing is no field")
	check(count+"threshold: 5\ncondition: {gte: 1}", `unknown key "threshold"`)
	check("type: value_count\nrules: [failed]\ntimespan: 5m\ncondition: {gte: 2}", "condition has no field")
	check("type: value_sum\nrules: [failed]\ntimespan: 5m\ncondition: {gte: 2, field: cs-host}", "no numbers")
	check("type: temporal\nrules: [failed]\ntimespan: 5m", "takes 2 to 8 rules")
	check("type: temporal\nrules:\n    - failed\n    - 00000000-0000-0000-0000-000000000002\ntimespan: 5m\ncondition: failed or x", "only that all rules match")
}
