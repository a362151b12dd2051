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

// TestCorrelations converts each type of correlation that our rules have, and runs the cases.
func TestCorrelations(t *testing.T) {
	check := func(body string, parts ...string) {
		t.Helper()
		c, _ := convertCorrelation(t, body)
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
	check("type: event_count\nrules: [failed]\ngroup-by: [c-ip]\ntimespan: 5m\ncondition: {gte: 10}",
		`count: ">= 10"`, "within: 5m", "group: [source.ip]", "severity: high", "source.ip={source.ip} (Sigma rule by Ann)")
	check("type: event_count\nrules:\n    - failed\n    - 00000000-0000-0000-0000-000000000002\ntimespan: 1h\ncondition:\n    gt: 5", `count: ">= 6"`)
	check("type: value_count\nrules: failed\ngroup-by: [cs-host]\ntimespan: 1h\ncondition: {field: src_port, gte: 4}", `distinct: {field: source.port, count: ">= 4"}`, "group: [url.domain]")
	check("type: value_sum\nrules: [failed]\ngroup-by: [src_ip]\ntimespan: 1d\ncondition: {field: sc-bytes, gt: 1000000}", `sum: {field: destination.bytes, total: ">= 1000001"}`)
	check("type: temporal\nrules:\n    - failed\n    - 00000000-0000-0000-0000-000000000002\ngroup-by: [c-ip]\ntimespan: 10m", "ordered: false")
	check("type: temporal_ordered\nrules:\n    - failed\n    - 00000000-0000-0000-0000-000000000002\ngroup-by: [who]\ntimespan: 10m\n"+
		"aliases:\n    who:\n        failed: src_ip\n        00000000-0000-0000-0000-000000000002: dst_ip", "ordered: true", "group: [source.ip]", "group: [destination.ip]")
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
	check("type: value_avg\nrules: [failed]\ntimespan: 5m\ncondition: {gte: 1, field: sc-bytes}", "a.yml:21:11: correlation.type: the type value_avg")
	check("type: value_percentile\nrules: [failed]\ntimespan: 5m\ncondition: {gte: 1, field: sc-bytes}", "no averages and percentiles")
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
