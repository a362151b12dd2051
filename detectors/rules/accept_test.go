package rules

import (
	"fmt"
	"strings"
	"testing"
)

// TestAcceptedHints: a hint that a rule accepts is none, one of a step too; what is accepted without need is a hint itself.
func TestAcceptedHints(t *testing.T) {
	const cases = `  tests:
    - {fires: true, event: {url.path: "/aaaaaaaaaaaaaaaaaaaaaaaaa"}}
    - {fires: false, event: {url.path: "/"}}
`
	check := func(text, want, wantAccepted string) {
		t.Helper()
		set, err := compileText(t, text)
		if err != nil {
			t.Fatal(err)
		}
		lints, accepted := set.AllLints()
		list := func(lints []Lint) string {
			var out []string
			for _, lint := range lints {
				out = append(out, lint.Rule+" "+lint.Hint+lint.Accepted)
			}
			return strings.Join(out, ", ")
		}
		if got := list(lints); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", text, got, want)
		}
		if got := list(accepted); got != wantAccepted {
			t.Errorf("%s\naccepted %s\nwant     %s", text, got, wantAccepted)
		}
		if got := list(set.Lints()); got != want {
			t.Errorf("Lints: %s, want %s", got, want)
		}
	}
	rule := func(when, accept string) string { return ruleYAML("r", when) + accept + cases }
	check(rule("len(url.path) > 20", ""), "r no-index-key", "")
	check(rule("len(url.path) > 20", "  accept: {no-index-key: ' few paths '}\n"), "", "r no-index-keyfew paths")
	check(rule("len(url.path) > 20", "  accept: {no-index-key: few paths, brackets: b, group: g}\n"), "r unused-accepted, r unused-accepted", "r no-index-keyfew paths")
	check(rule(`url.path startsWith "/aaaa"`, "  accept: {no-index-key: few paths}\n"), "r unused-accepted", "")
	check(rule(`len(url.path) > 20 or len(url.path) > 20 and url.query == "post"`, "  accept: {brackets: as written}\n"), "r no-index-key", "r bracketsas written")
	check(`
- id: then
  title: t
  severity: high
  sequence:
    - {name: from, when: 'len(redis.key) > 9'}
    - {name: to, when: 'redis.command == "get"'}
  within: 1m
  group: [message]
  accept: {no-index-key: a, group: b, value-form: c}
`, "then missing-case", "then/from no-index-keya, then/to value-formc, then groupb")

	// A rule that accepts that it adds nothing to a shipped rule does not have the hint where those are not loaded.
	cfg := Default()
	cfg.Dir = t.TempDir()
	writeFile(t, cfg.Dir+"/a.yaml", rule(`url.path startsWith "/aaaa"`, "  accept: {shadowed: another severity}\n"))
	for _, cfg.Shipped = range []bool{false, true} {
		set, err := Load(cfg, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		const unused = "r: accepts the hint shadowed, which it does not have: remove it from accept (unused-accepted)"
		if got := fmt.Sprint(set.Lints()); strings.Contains(got, unused) != cfg.Shipped {
			t.Errorf("with the shipped rules: %t: %s", cfg.Shipped, got)
		}
	}
}

// TestMistakesInAccept are named.
func TestMistakesInAccept(t *testing.T) {
	for accept, want := range map[string]string{
		"{no-index-keys: a}":   `r: accept.no-index-keys: no hint has this name, did you mean "no-index-key"?`,
		"{missing-case: a}":    "accept.missing-case: cannot be accepted",
		"{unused-accepted: a}": "no hint has this name",
		"{group: ''}":          "accept.group: has no reason",
		"{group: }":            "accept.group: has no reason",
		"{group: [a]}":         "accept.group: expected the reason, a text, got a list",
		"[group]":              "accept: expected names of hints with reasons",
		"group":                "accept: expected names of hints with reasons",
		"{group: a, group: b}": "group",
	} {
		if got := errorOf(t, ruleYAML("r", `url.path == "a"`)+"  accept: "+accept+"\n"); !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", accept, got, want)
		}
	}
}

// TestVersionStaysWhenAHintIsAccepted: accept determines no match and no alert.
func TestVersionStaysWhenAHintIsAccepted(t *testing.T) {
	_, plain := onlyRule(t, ruleYAML("r", "len(url.path) > 20"))
	_, accepting := onlyRule(t, ruleYAML("r", "len(url.path) > 20")+"  accept: {no-index-key: few paths}\n")
	if plain.Version != accepting.Version {
		t.Error(plain.Version, accepting.Version)
	}
}
