package rules

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestForeignNamesLeadToOurs: each suggestion is a field, or an expression that calls a function.
func TestForeignNamesLeadToOurs(t *testing.T) {
	called := regexp.MustCompile(`^([a-z_0-9]+)\(`)
	for name, suggestion := range foreignFields {
		match := called.FindStringSubmatch(suggestion)
		if lookupField(suggestion) == nil && (match == nil || !slices.Contains(functions, match[1])) {
			t.Errorf("%s: %s is no field", name, suggestion)
		}
		if lookupField(name) != nil {
			t.Errorf("%s is a field", name)
		}
	}
	for name, suggestion := range foreignFunctions {
		if match := called.FindStringSubmatch(suggestion); match != nil && !slices.Contains(functions, match[1]) {
			t.Errorf("%s: %s is no function", name, suggestion)
		}
		if slices.Contains(functions, name) {
			t.Errorf("%s is a function", name)
		}
	}
	check := func(when, want string) {
		t.Helper()
		got := errorOf(t, ruleYAML("r", when))
		if !strings.Contains(got, want) || strings.Contains(got, "\n") {
			t.Errorf("%s\n got %s\nwant %s", when, got, want)
		}
	}
	check(`http.response.status == 500`, `unknown field "http.response.status", did you mean "http.response.status_code" or "http.response.status_phrase"?`)
	check(`src.ip == "10.0.0.1"`, `did you mean "source.ip"?`)
	check(`id.orig_h == "10.0.0.1"`, `did you mean "source.ip"?`)
	check(`dest_port == 80`, `did you mean "destination.port"?`)
	check(`CommandLine contains "x"`, `did you mean value(message, "CommandLine")?`)
	check(`int(json(message, "$.a")) > 5`, "int() is not part of the rule language: write number(text)")
	check(`toint(json(message, "$.a")) > 5`, `unknown function "toint": write number(text)`)
	check(`cidrmatch(source.ip, "10.0.0.0/8")`, `unknown function "cidrmatch": write cidr(address, "10.0.0.0/8")`)
	check(`lowercase(message) == "a"`, `unknown function "lowercase": write lower(text)`)
	check(`lower == "a"`, `lower`)
}

// TestUnitsOfOtherLanguages are named with those of this one, and lengths of time of several parts are accepted.
func TestUnitsOfOtherLanguages(t *testing.T) {
	check := func(when, want string) {
		t.Helper()
		got := errorOf(t, ruleYAML("r", when))
		if want == "" && got != "" || !strings.Contains(got, want) || strings.Contains(got, "\n") {
			t.Errorf("%s\n got %s\nwant %s", when, got, want)
		}
	}
	check(`event.duration > 1h30m`, "")
	check(`event.duration > 1d12h and event.duration < 2m5s500ms`, "")
	check(`source.bytes > 10MB`, `t.yaml:4:25: r: when: 10MB has no unit of this language: write 10MiB, in steps of 1,024 bytes`)
	check(`source.bytes > 10kb`, `10kb has no unit of this language: write 10KiB`)
	check(`event.duration > 5min`, `5min has no unit of this language: write 5m`)
	check(`event.duration > 10sec`, `write 10s`)
	check(`event.duration > 2weeks`, `a week is 7d`)
	check(`event.duration > 5x`, `"5x" is not a number: a duration has the unit`)
	for _, of := range []struct {
		text string
		want int64
	}{{"1h30m", 5400e9}, {"1d12h", 36 * 3600e9}, {"2m5s500ms", 125_500e6}} {
		if got, err := literalValue(of.text); err != nil || got != of.want {
			t.Errorf("%s: %d %v", of.text, got, err)
		}
	}
	if _, err := literalValue("99999999d99999999h"); err == nil {
		t.Error("a length of time that overflows is accepted")
	}
	for keys, want := range map[string]string{
		"count: 5\n  within: 5min":                                          `"5min" is not a length of time such as 30s, 5m, 12h or 7d: write 5m`,
		"sum: {field: source.bytes, total: 10MB}\n  within: 5m":             `or a range such as "10..100": write 10MiB, in steps of 1,024 bytes`,
		"first_seen: {fields: [source.ip], baseline: 7d, expire_after: 7d}": "first_seen: baseline (7d) is not shorter than expire_after (7d): values would be new again before the group has learned them",
		"first_seen: {fields: [source.ip], baseline: 60d}":                  "baseline (60d) is not shorter than expire_after (30d)",
		"first_seen: {fields: [source.ip], baseline: 6d, expire_after: 7d}": "",
	} {
		got := errorOf(t, ruleYAML("r", `source.port > 5`)+"  "+keys+"\n")
		if want == "" && got != "" || !strings.Contains(got, want) || strings.Contains(got, "\n") {
			t.Errorf("%s\n got %s\nwant %s", keys, got, want)
		}
	}
}

// TestWrongTagsOfATTACKAreNamed: the forms of MITRE's ids, and its tactics with either sign between their words.
func TestWrongTagsOfATTACKAreNamed(t *testing.T) {
	for tag, want := range map[string]string{
		"attack.t1190": "", "attack.t1059.004": "", "attack.initial_access": "", "attack.initial-access": "", "attack.g0049": "", "attack.s0154": "", "cve.2021-44228": "", "own": "",
		"attack.x1190": "neither", "attack.t119": "neither", "attack.t1190.1": "neither", "attack.inital_access": "neither", "attack": "neither", "attack.": "neither",
		"attack.T1190": "lower case: attack.t1190", "ATTACK.t1190": "lower case: attack.t1190",
	} {
		if got := wrongTag(tag); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", tag, got, want)
		}
	}
	set, err := compileText(t, ruleYAML("r", `message == "a"`)+"  tags: [attack.t119]\n")
	if err != nil {
		t.Fatal(err)
	}
	for _, lint := range set.Lints() {
		if lint.Hint == hintTag && strings.Contains(lint.Message, "attack.t119") {
			return
		}
	}
	t.Error("no hint")
}

// TestASigmaRuleHasOneError that says how it is loaded.
func TestASigmaRuleHasOneError(t *testing.T) {
	got := errorOf(t, "title: a\nid: x\nlogsource: {product: linux}\ndetection: {a: b, condition: a}\nlevel: high\n")
	if !strings.Contains(got, "is a Sigma rule: load its folder with rules.sigma") || strings.Contains(got, "\n") {
		t.Error(got)
	}
}
