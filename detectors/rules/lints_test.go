package rules

import (
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
			if !lint.ofCases && !strings.Contains(lint.Message, "has no index key") {
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
	check(`lower(message) contains "error" or message contains "ERROR"`, "")
	check(`http.request.method != "GET" and http.request.method startsWith "p"`, "")
	check(`redis.command == "CONFIG SET" and event.outcome == "failure"`, "")
	check(`lower(message) contains "größe"`, "")
}

// TestShippedRulesHaveNoLints: the shipped rules are examples.
func TestShippedRulesHaveNoLints(t *testing.T) {
	set, err := Load(Default(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, lint := range set.Lints() {
		if strings.Contains(lint.Message, "never") || strings.Contains(lint.Message, "is compared with") {
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
