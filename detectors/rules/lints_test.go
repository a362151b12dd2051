package rules

import (
	"fmt"
	"strings"
	"testing"
)

// TestConditionThatCanHardlyBeTrueHasALint: a constant of a form that the value never has.
func TestConditionThatCanHardlyBeTrueHasALint(t *testing.T) {
	check := func(when, want string) {
		t.Helper()
		set, err := compileText(t, ruleYAML("r", when))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, lint := range set.Lints() {
			if lint.Hint != hintMissingCase && !strings.Contains(lint.Message, "has no index key") {
				got = append(got, lint.Message)
			}
		}
		if want == "" && len(got) > 0 || want != "" && (len(got) != 1 || !strings.Contains(got[0], want)) {
			t.Errorf("%s: lints %q, want %q", when, got, want)
		}
	}
	check(`lower(message) contains "ERROR"`, `"ERROR" is never equal to or part of it: lower(message) is in lower case`)
	check(`not (lower(url.path) startsWith "/Admin")`, `lower(url.path) is in lower case`)
	check(`lower(unescape(url.query)) == "A=1"`, `is in lower case`)
	check(`any(redis.args, lower(#) in ["DIR", "dbfilename"])`, `"DIR" is never`)
	check(`http.request.method == "post"`, `http.request.method is compared with "post", and its values are in upper case`)
	check(`http.request.method in ["GET", "Put"]`, `"Put"`)
	check(`redis.command == "get"`, "in upper case")
	check(`dns.question.type == "a"`, "in upper case")
	check(`network.transport == "TCP" and source.port == 1`, "in lower case")
	check(`event.outcome == "failed"`, "success, failure or unknown")
	check(`log.level == "WARNING"`, "trace, debug, info, warn, error or fatal")
	check(`log.level in ["error", "crit"]`, `"crit"`)
	check(`network.type == "IPv6" and source.port == 1`, "ipv4 or ipv6")
	check(`url.domain == "EVIL.example"`, "in lower case, without a dot at the end")
	check(`url.domain == "evil.example."`, "without a dot at the end")
	check(`dns.question.name in ["evil.example", "worse.example."]`, `"worse.example."`)
	check(`tls.client.server_name == "Evil.example"`, "in lower case")
	check(`dns.question.name == "." or log.level == "warn" or url.domain == ""`, "")
	check(`lower(message) contains "error" or message contains "ERROR"`, "")
	check(`http.request.method != "GET" and http.request.method startsWith "p"`, "")
	check(`redis.command == "CONFIG SET" and event.outcome == "failure"`, "")
	check(`lower(message) contains "größe"`, "")

	// A number that is 0 where there is none.
	check(`url.path == "/x" and http.response.status_code < 400`, "http.response.status_code < 400) is true for events without http.response.status_code, which is 0 then; add has(")
	check(`url.path == "/x" and http.response.status_code != 200`, "add has(http.response.status_code)")
	check(`url.path == "/x" and has(http.response.status_code) and http.response.status_code < 400`, "")
	check(`url.path == "/x" and http.response.status_code >= 200 and http.response.status_code < 300`, "")
	check(`http.response.status_code in [200, 301] and (url.path == "/x" or http.response.status_code < 300)`, "")
	check(`url.path == "/x" and http.response.status_code == 0`, "")
	check(`url.path == "/x" and source.bytes < 100`, "")
	check(`tls.version == "1.2" and tls.server.not_after < "2026-01-01"`, "add has(tls.server.not_after)")
	check(`tls.server.not_after < "2026-01-01" and tls.server.not_after > 0`, "")

	// Operators of different strength without brackets.
	check(`url.path == "/x" or url.path == "/y" and url.query == "z"`, "and binds first")
	check(`url.path == "/x" || url.path == "/y" && url.query == "z"`, "and binds first")
	check(`(url.path == "/x" or url.path == "/y" and url.query == "z") and redis.key != "a"`, "and binds first")
	check(`url.path == "/x" or (url.path == "/y" and url.query == "z")`, "")
	check(`(url.path == "/x" or url.path == "/y") and url.query == "a or b"`, "")
	check(`any(redis.args, # == "a" or # == "b") and redis.command == "AND"`, "")
	check("url.path == `or` and url.query == 'x\\' or' // or else", "")
	check(`cidr(source.ip, "10.0.0.0/8") and url.path == "/x" and (url.query == "" or url.query == "b")`, "")
}

// TestGroupOfDifferingValuesHasALint: an alert for each event is none.
func TestGroupOfDifferingValuesHasALint(t *testing.T) {
	for group, want := range map[string]int{"[container.id, url.original]": 1, "[message, source.port]": 2, "[container.id, url.path]": 0} {
		set, err := compileText(t, ruleYAML("r", `url.path == "/x"`)+"  group: "+group+"\n")
		if err != nil {
			t.Fatal(err)
		}
		got := 0
		for _, lint := range set.Lints() {
			if strings.Contains(lint.Message, "which differs for nearly every event") {
				got++
			}
		}
		if got != want {
			t.Errorf("%s: %d lints, want %d", group, got, want)
		}
	}
}

// TestShippedRulesHaveNoLints: the shipped rules are examples.
func TestShippedRulesHaveNoLints(t *testing.T) {
	set, err := Load(Default(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, lint := range set.Lints() {
		if lint.Hint != hintMissingCase && !strings.Contains(lint.Message, "has no index key") {
			t.Errorf("%s:%d: %s: %s", lint.File, lint.Line, lint.Rule, lint.Message)
		}
	}
}

func TestOperatorInUpperCaseIsNamed(t *testing.T) {
	for _, when := range []string{`NOT url.path == "a"`, `NOT (url.path == "a")`, `url.path == "a" AND url.query == "b"`, `url.path == "a" OR url.query == "b"`} {
		if _, err := compileText(t, ruleYAML("r", when)); err == nil || !strings.Contains(err.Error(), "in lower case") {
			t.Errorf("%s: %v", when, err)
		}
	}
}

// TestConditionsOfStepsHaveLints, with the name of the step, and those of the rule itself.
func TestConditionsOfStepsHaveLints(t *testing.T) {
	set, err := compileText(t, `
- id: then
  title: t
  severity: high
  sequence:
    - {name: from, when: 'len(redis.key) > 9'}
    - {name: to, when: 'redis.command == "get"'}
  within: 1m
  group: [message, source.ip]
- id: many
  title: t
  severity: high
  when: redis.key contains "a"
  count: 3
  within: 1m
  group: [source.ip]
  tests:
    - {fires: true, events: [{repeat: 3, event: {redis.key: a, source.ip: 10.0.0.1}}]}
    - {fires: false, events: [{repeat: 2, event: {redis.key: a, source.ip: 10.0.0.1}}]}
`)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, lint := range set.Lints() {
		got = append(got, fmt.Sprintf("%s:%d: %s: %s, %t", lint.File, lint.Line, lint.Rule, lint.Message, lint.Hint == hintMissingCase))
	}
	const want = `t.yaml:2: then/from: has no index key: it is evaluated for every event of redis; compare a field with a constant, or look for a literal in one, false
t.yaml:2: then/to: redis.command is compared with "get", and its values are in upper case, false
t.yaml:2: then: groups by message, which differs for nearly every event: each match becomes an alert of its own, false
t.yaml:2: then: has no case with fires: true, true`
	if text := strings.Join(got, "\n"); text != want {
		t.Errorf("\n%s\nwant\n%s", text, want)
	}
}
