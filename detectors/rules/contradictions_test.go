package rules

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"tidegate/pipeline"
	"tidegate/pipeline/lineartest"
)

// TestContradictionHasALint: conditions, and parts of them, that no event fulfils, and similar ones that some event does.
func TestContradictionHasALint(t *testing.T) {
	check := func(when string, want ...string) {
		t.Helper()
		set, rule := onlyRule(t, ruleYAML("r", when))
		never, always := set.slots.lintContradictions(rule.when.root)
		got := slices.Concat(never, always)
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("%s:\ngot  %q\nwant %q", when, got, want)
		}
	}
	const never = "the condition can never be true: it needs "
	check(`url.path == "a" and url.path == "b"`, never+`url.path == "a" and url.path == "b" at once`)
	check(`url.path == "a" and url.query == "x" and not (url.path in ["a", "c"])`, never+`url.path == "a" and not (url.path in ["a", "c"]) at once`)
	check(`url.path in ["a", "b"] and url.path startsWith "c"`, never+`url.path in ["a", "b"] and url.path startsWith "c" at once`)
	check(`url.path == "/a" and url.path matches "^/b"`, never+`url.path == "/a" and url.path matches "^/b" at once`)
	check(`url.path startsWith "/a" and url.path startsWith ["/b", "/c"]`, never+`url.path startsWith "/a" and url.path startsWith ["/b", "/c"] at once`)
	check(`url.path endsWith ".php" and url.path endsWith ".jsp"`, never+`url.path endsWith ".php" and url.path endsWith ".jsp" at once`)
	check(`url.path contains "/admin/" and not (url.path contains "admin")`, never+`url.path contains "/admin/" and not (url.path contains "admin") at once`)
	check(`source.port > 10 and source.port < 5 and url.path == "a"`, never+`source.port > 10 and source.port < 5 at once`)
	check(`source.port > 10 and source.port < 11`, never+`source.port > 10 and source.port < 11 at once`)
	check(`source.port >= 10 and source.port < 9.5`, never+`source.port >= 10 and source.port < 9.5 at once`)
	check(`source.port in [80, 443] and source.port > 1000`, never+`source.port in [80, 443] and source.port > 1000 at once`)
	check(`destination.port == 70000 and url.path == "a"`, "destination.port == 70000 can never be true, and so the condition")
	check(`source.bytes < 0`, "source.bytes < 0 can never be true, and so the condition")
	check(`len(url.path) < 0`, "len(url.path) < 0 can never be true, and so the condition")
	check(`cidr(source.ip, "10.0.0.0/8") and cidr(source.ip, "192.168.0.0/16")`, never+`cidr(source.ip, "10.0.0.0/8") and cidr(source.ip, "192.168.0.0/16") at once`)
	check(`source.ip == "10.0.0.1" and source.ip not in ["10.0.0.0/24", "::1"]`,
		never+`cidr(source.ip, "10.0.0.1/32") and not (cidr(source.ip, "10.0.0.0/24", "::1/128")) at once`)
	check(`event.partial and url.path == "a" and not event.partial`, never+`event.partial and not (event.partial) at once`)
	check(`timestamp < "2026-01-01" and timestamp > "2026-02-01" and url.path == "a"`, never+`@timestamp < "2026-01-01" and @timestamp > "2026-02-01" at once`)
	check(`lower(url.path) == "a" and lower(url.path) == "b"`, never+`lower(url.path) == "a" and lower(url.path) == "b" at once`)

	const part = "a part of the condition can never be true: it needs "
	check(`url.path == "a" and (url.query == "x" or url.path == "b")`, part+`url.path == "a" and url.path == "b" at once`)
	check(`url.query == "x" or (url.path == "a" and url.path == "b")`, part+`url.path == "a" and url.path == "b" at once`)
	check(`any(redis.args, # == "a" and # == "b")`, `the condition of any can never be true: it needs # == "a" and # == "b" at once`)
	check(`redis.key == "k" and (url.path != "a" or url.path != "b")`, `is always true: url.path != "a" or url.path != "b"`)
	check(`redis.key == "k" and (source.port >= 0 or url.path == "a")`, `is always true: source.port >= 0`)

	for _, possible := range []string{
		`url.path == "a" or url.path == "b"`, `url.path == "a" and url.query == "b"`, `url.path startsWith "/a" and url.path startsWith "/ab"`,
		`url.path startsWith "/a" and url.path endsWith "/b"`, `url.path contains "a" and not (url.path contains "ab")`, `source.port > 10 and source.port < 12`,
		`source.port > 10 and source.port < 10.5 or source.port == 1`, `cidr(source.ip, "10.0.0.0/8") and cidr(source.ip, "10.1.0.0/16")`,
		`cidr(source.ip, "10.0.0.0/8") and not cidr(source.ip, "10.1.0.0/16")`, `lower(url.path) == "a" and url.path == "A"`, `url.path != "a" and url.path != "b"`,
		`any(redis.args, # == "a") and any(redis.args, # == "b")`, `"a" in redis.args and "b" in redis.args`, `url.path matches "a" and url.path matches "b"`,
		`not (url.path == "a" and url.path == "b") and redis.key == "k"`, `url.path >= "b" and url.path <= "a"`, `process.exit_code < 0 and event.action == "die"`,
		`url.path startsWith ["a", "b"] and url.path startsWith ["bc", "d"]`, `url.path startsWith "a" and not (url.path startsWith "ab")`,
		`entropy(url.path) > 3 and entropy(url.path) < 3.5`, `json(message, "$.a") == "x" and json(message, "$.b") == "y"`, `source.port == destination.port`,
	} {
		set, err := compileText(t, ruleYAML("r", possible))
		if err != nil {
			continue // of two datasets
		}
		never, always := set.slots.lintContradictions(set.rules[0].when.root)
		if got := slices.Concat(never, always); len(got) > 0 && possible != `source.port > 10 and source.port < 10.5 or source.port == 1` {
			t.Errorf("%s: %q", possible, got)
		}
	}
}

// TestContradictionsAreProofs: no event matches a random condition that has been found impossible, and each that one condition
// matches is matched by those that follow from it.
func TestContradictionsAreProofs(t *testing.T) {
	seeds := uint64(60)
	if testing.Short() {
		seeds = 8
	}
	impossible, implied := 0, 0
	for seed := range seeds {
		g := generator{rand.New(rand.NewPCG(seed, 77))}
		narrow := func() string { // few values of one field, so that many contradict each other
			value := g.pick(`"a"`, `"ab"`, `"abc"`, `""`, `"b"`)
			return g.pick("url.path == "+value, "url.path != "+value, "url.path startsWith "+value, "not (url.path contains "+value+")", "url.path endsWith "+value,
				"url.path in ["+value+`, "ab"]`, fmt.Sprintf("source.port %s %d", g.pick("<", ">", "==", "!=", "<=", ">="), g.IntN(3)),
				fmt.Sprintf(`cidr(source.ip, "10.0.0.%d/31")`, 2*g.IntN(2)), fmt.Sprintf(`source.ip != "10.0.0.%d"`, g.IntN(4)), "event.partial", g.condition(1, ""))
		}
		var text strings.Builder
		for i := range 60 {
			when := narrow()
			for range g.IntN(4) {
				when = "(" + when + ")" + g.pick(" and ", " and ", " or ") + g.pick("", "not ") + "(" + narrow() + ")"
			}
			if _, err := compileText(t, ruleYAML("r", when)); err == nil {
				text.WriteString(ruleYAML(fmt.Sprintf("r%02d", i), when))
			}
		}
		set, err := compileText(t, text.String())
		if err != nil {
			t.Fatal(err)
		}
		prover := &prover{slots: set.slots, budget: 1 << 40}
		never, follows := map[string]bool{}, map[[2]string]bool{}
		for _, rule := range set.rules {
			if prover.excludes(requirementsOf(rule.when.root, true, nil), 0) {
				never[rule.ID] = true
			}
			for _, other := range set.rules {
				if rule != other && !never[rule.ID] && prover.implies(rule.when.root, other.when.root) {
					follows[[2]string{rule.ID, other.ID}] = true
				}
			}
		}
		impossible, implied = impossible+len(never), implied+len(follows)
		for range 1000 {
			event := g.event()
			if g.IntN(2) == 0 {
				event = &pipeline.Event{
					Dataset: pipeline.Dataset_HTTP, Source: &pipeline.Endpoint{Ip: g.addr(), Port: uint32(g.IntN(4))}, Partial: g.IntN(2) == 0,
					Http: &pipeline.HTTPExchange{UrlPath: g.pick("", "a", "b", "ab", "abc", "ba", "c", "xab")},
				}
			}
			matched := map[string]bool{}
			for id := range strings.FieldsSeq(plain(set, event)) {
				matched[id] = true
				if never[id] {
					t.Errorf("seed %d: %s matches %s", seed, id, pipeline.AppendJSON(nil, event))
				}
			}
			for pair := range follows {
				if matched[pair[0]] && !matched[pair[1]] {
					t.Errorf("seed %d: %q matches, %q does not", seed, pair[0], pair[1])
				}
			}
		}
	}
	t.Logf("%d impossible, %d implied", impossible, implied)
	if impossible < 2*int(seeds) || implied < 5*int(seeds) {
		t.Errorf("the test checks too little: %d impossible, %d implied", impossible, implied)
	}
}

// TestHostileConditionsAreProvenInTime: conditions that are long, deep, or have long lists.
func TestHostileConditionsAreProvenInTime(t *testing.T) {
	var list []string
	for i := range maxList {
		list = append(list, fmt.Sprintf("t%d", i))
	}
	lists := "lists:\n  long:\n  - " + strings.Join(list, "\n  - ") + "\nrules:\n"
	for _, when := range []string{
		strings.Repeat(`(url.path == "a" or url.query == "b") and `, 200) + "true",
		strings.Repeat(`(url.path != "a" and url.query == "b") or `, 200) + "false",
		strings.Repeat(`(url.path contains "a" or (url.query == "b" and (`, 100) + "true" + strings.Repeat(")))", 100),
		strings.Repeat(`url.path startsWith long and `, 20) + "true",
		strings.Repeat(`url.path in long and `, 20) + "true",
		strings.Repeat(`not (url.path contains long) and `, 20) + "true",
	} {
		set, err := compileText(t, lists+ruleYAML("r", when))
		if err != nil {
			t.Error(err)
			continue
		}
		lineartest.Default.Check(t, len(when), func() { set.slots.lintContradictions(set.rules[0].when.root) })
	}
}

// TestShadowedRuleHasALint: of a rule whose matches another rule has, with a group, a severity and tags that say as much.
func TestShadowedRuleHasALint(t *testing.T) {
	rule := func(id, when, more string) string {
		return "- id: " + id + "\n  title: t\n  when: '" + when + "'\n" + more
	}
	check := func(want string, parts ...string) {
		t.Helper()
		set, err := compileText(t, strings.Join(parts, ""))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		shadowed, _ := set.lintShadowed()
		for _, lint := range shadowed {
			other, _, _ := strings.Cut(strings.TrimPrefix(lint.Message, "adds nothing to "), " ")
			got = append(got, lint.Rule+"<"+other)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s\ngot %q, want %q", strings.Join(parts, ""), got, want)
		}
	}
	const low, high = "  severity: low\n", "  severity: high\n"
	wide := rule("wide", `url.path startsWith "/admin"`, low)
	check("narrow<wide", wide, rule("narrow", `url.path startsWith "/admin/x"`, low))
	check("narrow<wide", wide, rule("narrow", `url.path == "/admin/x" and url.query == "a"`, low))
	check("narrow<wide", wide, rule("narrow", `url.path in ["/admin/x", "/administrator"]`, low))
	check("wide2<wide", wide, rule("wide2", `url.path startsWith "/admin"`, low))
	check("narrow<wide", rule("wide", `source.port >= 1024 and url.path == "a"`, low), rule("narrow", `url.path == "a" and source.port in [2000, 3000]`, low))
	check("narrow<wide", rule("wide", `url.path == "a" or url.query == "b"`, low), rule("narrow", `url.query == "b"`, low))
	check("narrow<wide", rule("wide", `url.path == "a"`, low+"  exceptions: ['source.port == 1']\n"), rule("narrow", `url.path == "a" and source.port == 2`, low))

	check("", wide, rule("narrow", `url.path startsWith "/admin/x"`, high))
	check("", wide, rule("narrow", `url.path startsWith "/admin/x"`, low+"  group: [source.ip]\n"))
	check("", wide, rule("narrow", `url.path startsWith "/admin/x"`, low+"  tags: [attack.t1190]\n"))
	check("wide<part", wide, rule("part", `url.path contains "/admin"`, low))
	check("", wide, rule("part", `url.path endsWith "/admin"`, low))
	check("", rule("wide", `url.path startsWith "/admin"`, low+"  exceptions: ['source.port == 1']\n"), rule("narrow", `url.path == "/admin/x"`, low))
	check("", rule("wide", `url.path == "a" and url.query == "b"`, low), rule("other", `url.path == "a" and source.port == 2`, low))
	check("", wide, rule("narrow", `url.path == "/admin/x"`, low),
		"- id: many\n  title: t\n  severity: low\n  rule: narrow\n  count: 3\n  within: 1m\n  group: [source.ip]\n")
}

// TestChangeWithoutAVersionHasALint: only of a rule whose version is written by hand.
func TestChangeWithoutAVersionHasALint(t *testing.T) {
	set := func(version, when string) *Set {
		set, err := compileText(t, ruleYAML("r", when)+version)
		if err != nil {
			t.Fatal(err)
		}
		return set
	}
	check := func(before, after *Set, want string) {
		t.Helper()
		got := ""
		for _, lint := range after.LintVersions(before) {
			got += lint.Message
		}
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	const one, two = "  version: '1'\n", "  version: '2'\n"
	check(set(one, `url.path == "a"`), set(one, `url.path == "b"`), `has changed and still has the version "1" that it had at t.yaml:1: alerts of both cannot be told apart`)
	check(set(one, `url.path == "a"`), set(two, `url.path == "b"`), "")
	check(set(one, `url.path == "a"`), set(one, `url.path == "a"`), "")
	check(set("", `url.path == "a"`), set("", `url.path == "b"`), "")
	check(set(one, `url.path == "a"`), set("", `url.path == "b"`), "")
}
