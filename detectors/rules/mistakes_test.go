package rules

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tidegate/pipeline"
)

// errorOf returns the error of a rule file, "" for none.
func errorOf(t *testing.T, text string) string {
	t.Helper()
	if _, err := compileText(t, text); err != nil {
		return err.Error()
	}
	return ""
}

// TestMistakesInExpressionsAreNamed, each with what to write instead.
func TestMistakesInExpressionsAreNamed(t *testing.T) {
	check := func(when, want string) {
		t.Helper()
		got := errorOf(t, ruleYAML("a", when))
		if want == "" && got != "" || !strings.Contains(got, want) || want != "" && strings.Count(got, "\n") > 0 {
			t.Errorf("%s: %q, want %q", when, got, want)
		}
	}
	check(`message == "a"`, "")

	// Lists.
	check(`redis.key in ["a", 1]`, "a list holds texts or numbers, at least one and not both")
	check(`redis.key in []`, "a list holds texts or numbers, at least one and not both")
	check(`redis.key in ["a", redis.command]`, "a list holds constants only")
	check(`redis.key in ["a", "b" + "c"]`, "a list holds constants only")
	check(`redis.key in redis.command`, "in takes a list of constants, the name of a list, or a list field")
	check(`"a" in redis.key`, "in takes a list of constants, the name of a list, or a list field")
	check(`redis.key in redis.args`, "only a constant can be looked for in a list field; write any(list, # == …)")
	check(`1 in redis.args`, `1 is a number, redis.args is a list of texts`)
	check(`"a" in redis.args`, "")
	check(`redis.argss in redis.args`, `unknown field "redis.argss"`)
	check(`redis.key in redis.argss`, `unknown field "redis.argss"`)
	check(`redis.argss in ["a"]`, `unknown field "redis.argss"`)
	check(`redis.key in [1]`, "in: compared with a number, but redis.key is text")
	check(`source.port in ["a"]`, "in: compared with text, but source.port is a number")
	check(`source.ip in [1]`, "an address is compared with texts that are addresses")
	check(`source.ip startsWith "10."`, `use cidr(source.ip, "172.18.0.0/16")`)
	check(`message contains [1]`, "contains takes texts, this list has numbers")
	check(`["a"]`, "a list can only stand to the right of in, ==, contains, startsWith or endsWith")

	// Kinds that do not fit, with the advice for each.
	check(`source.port == "80"`, "source.port (a number) with \"80\" (text): write numbers without quotes")
	check(`redis.key == 80`, "redis.key (text) with 80 (a number): write texts between quotes")
	check(`redis.args == "a"`, ": test a list with any(list, # == …)")
	check(`"a" == redis.args`, ": test a list with any(list, # == …)")
	check(`source.ip < 5`, `: use cidr(source.ip, "172.18.0.0/16")`)
	check(`timestamp contains "2026"`, "a time, compare it with >= and <, as in @timestamp >= ")
	check(`source.port == redis.key`, "== cannot combine source.port (a number) with redis.key (text)")
	check(`redis.key == source.port`, "== cannot combine redis.key (text) with source.port (a number)")
	check(`source.ip == redis.key`, "an address is compared with a text that is an address, or with another address")
	check(`message`, "text")

	// Calls.
	check(`has("a")`, "has takes the name of a field")
	check(`has(redis.argss)`, `unknown field "redis.argss"`)
	check(`cidr(source.port, "10.0.0.0/8")`, "cidr takes an address, source.port is a number")
	check(`cidr(source.prt, "10.0.0.0/8")`, `unknown field "source.prt"`)
	check(`upper(message) == "A"`, "upper() is not part of the rule language")
	check(`upperr(message) == "A"`, `unknown function "upperr"`)
	check(`len() > 1`, "len")
	check(`len(source.port) > 1`, "len takes a text or a list, source.port is a number")
	check(`lower(source.port) == "a"`, "lower")
	check(`lower() == "a"`, "lower")
	check(`any(redis.args)`, "expected at least 2 arguments")
	check(`any(redis.argss, # == "a")`, `unknown field "redis.argss"`)
	check(`any(redis.key, # == "a")`, "any")

	// What expr has and rules do not.
	check(`redis.key == "a" ? true : false`, "a choice (a ? b : c)")
	check(`{"a": 1} == 1`, "a map")
	check(`message[1:2] == "a"`, "a slice")
	check(`redis?.key == "a"`, "?.")
	check(`-redis.key == 1`, "- takes a number, redis.key is text")
	check(`+source.port == 1`, "")
	check(`-source.prt == 1`, `unknown field "source.prt"`)
	check(`source.port =~ 1`, "=~ is not an operator")
	check(`~source.port`, "~ is not an operator")

	// Regular expressions.
	check(`message matches "`+strings.Repeat("a", maxRegex)+`"`, "")
	check(`message matches "`+strings.Repeat("a", maxRegex+1)+`"`, fmt.Sprintf("regular expression of %d bytes, the limit is %d", maxRegex+1, maxRegex))
	check(`message matches "("`, "regular expression: missing closing )")
	check(`message matches "a{1001}"`, "regular expression: invalid repeat count")
	check(`message matches "[a-z]{999}[0-9]{999}[a-z]{999}[0-9]{999}[a-z]{999}[0-9]{999}"`, "use fewer or smaller repetitions")
}

// TestMistakesInFilesAreNamed: each limit is what the message says, and one more is an error.
func TestMistakesInFilesAreNamed(t *testing.T) {
	const rule = "- id: a\n  title: t\n  severity: low\n  when: message == \"a\"\n"
	check := func(what, text, want string) {
		t.Helper()
		if got := errorOf(t, text); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: %.200q, want %q", what, got, want)
		}
	}
	list := func(key string, count int, item func(i int) string) string {
		var out strings.Builder
		out.WriteString(rule + "  " + key + ":\n")
		for i := range count {
			out.WriteString("    - " + item(i) + "\n")
		}
		return out.String()
	}
	quoted := func(i int) string { return fmt.Sprintf("%q", fmt.Sprint(i)) }
	check("rule", rule, "")
	check("file of a number", "5\n", "expected a list of rules or a mapping, got")
	check("list of numbers", "- 5\n", "expected a rule (a mapping with id, title, severity and when), got")

	// Values.
	for value, want := range map[string]string{
		"1": "", "100": "", "0": "must be from 1 to 100", "101": "must be from 1 to 100", "-1": "must be from 1 to 100",
		"1.5": "expected a whole number", "99999999999999999999": "expected a whole number",
	} {
		check("score "+value, rule+"  score: "+value+"\n", want)
	}
	check("severity", strings.Replace(rule, "low", "lowish", 1), `unknown severity "lowish": info, low, medium, high or critical`)
	check("empty title", strings.Replace(rule, "title: t", `title: " "`, 1), "a: title: is empty")
	check("dataset", rule+"  datasets: [dnss]\n", `unknown dataset "dnss", did you mean "dns"?`)
	check("group", rule+"  group: [source.ipp]\n", `unknown field "source.ipp"`)
	check("id", strings.Replace(rule, "id: a", "id: -a", 1), "an id is made of a-z, 0-9")
	check("description", rule+"  description: {a: 1}\n", "expected")
	check("tags", rule+"  tags: {a: 1}\n", "expected a list, got")
	check("case without fires", rule+"  tests:\n    - event: {message: a}\n", "fires: is missing")
	check("case without event", rule+"  tests:\n    - fires: true\n", "event: is missing")
	check("case of a text", rule+"  tests:\n    - fires: true\n      event: text\n", "expected a mapping of fields, got")
	check("unknown field of a case", rule+"  tests:\n    - fires: true\n      event: {messag: a}\n", `unknown field "messag"`)
	check("case without a dataset", rule+"  tests:\n    - fires: true\n      event: {source.port: 5}\n", "event.dataset is missing")
	nested := "{a: 1}"
	for range 9 {
		nested = "{a: " + nested + "}"
	}
	check("deep case", rule+"  tests:\n    - fires: true\n      event: "+nested+"\n", `unknown field "a.a.a.a.a.a.a.a.a"`)

	// Limits.
	check("exceptions", list("exceptions", maxTexts, func(int) string { return `message == "b"` }), "")
	check("exceptions", list("exceptions", maxTexts+1, func(int) string { return `message == "b"` }), fmt.Sprintf("more than %d exceptions", maxTexts))
	check("tags", list("tags", maxTexts, quoted), "")
	check("tags", list("tags", maxTexts+1, quoted), fmt.Sprintf("more than %d entries", maxTexts))
	fields := slices.DeleteFunc(fieldNames(), func(name string) bool { _, err := fieldKind(pipeline.Lookup(name)); return err != nil })
	check("group", list("group", maxGroup, func(i int) string { return quote(fields[i]) }), "")
	check("group", list("group", maxGroup+1, func(i int) string { return quote(fields[i]) }), fmt.Sprintf("more than %d fields", maxGroup))
	aCase := func(int) string { return "{fires: true, event: {event.dataset: log, message: a}}" }
	check("cases", list("tests", maxTests, aCase), "")
	check("cases", list("tests", maxTests+1, aCase), fmt.Sprintf("more than %d test cases", maxTests))
	long := func(n int) string { return strings.Repeat("x", n) }
	check("title", strings.Replace(rule, "title: t", "title: "+long(maxText), 1), "")
	check("title", strings.Replace(rule, "title: t", "title: "+long(maxText+1), 1), fmt.Sprintf("text of %d bytes, the limit is %d", maxText+1, maxText))
	check("alert", rule+"  alert: "+long(maxText)+"\n", "")
	check("alert", rule+"  alert: "+long(maxText+1)+"\n", fmt.Sprintf("text of %d bytes, the limit is %d", maxText+1, maxText))
	more := " " + strings.Repeat("or\n      message == \"c\" ", maxExpression/18)
	check("expression", strings.Replace(rule, `message == "a"`, `'message == "a"`+more+`'`, 1), fmt.Sprintf("the limit is %d", maxExpression))
	check("exception", rule+"  exceptions: ['message == \"b\""+more+"']\n", fmt.Sprintf("the limit is %d", maxExpression))
	check("exception cut by a comment", rule+"  exceptions:\n    - message == \"b\" # and message == \"c\"\n", "YAML takes what follows")
	// Each mistake is one error, also behind the last entry that is allowed.
	for key, item := range map[string]string{"tags": "t", "references": "t", "exceptions": `message == "b"`} {
		text := list(key, maxTexts+2, func(int) string { return item }) + "    - " + long(maxExpression+1) + "\n"
		if got := strings.Split(errorOf(t, text), "\n"); len(got) != 2 || !strings.Contains(got[0], ":106:7: a: "+key+"[100]: more than 100") ||
			!strings.Contains(got[1], ":108:7: a: "+key+"[102]: text of 16385 bytes, the limit is ") {
			t.Errorf("%.2000q", got)
		}
	}
	// A text that is too long is not read: its mistakes, and the time to find them, are without bound.
	for what, text := range map[string]string{
		"alert":      rule + "  alert: '" + strings.Repeat("{nope} ", maxText) + "'\n",
		"expression": strings.Replace(rule, `message == "a"`, `'message == "a"`+more+` or nope == "a"'`, 1),
		"exception":  rule + "  exceptions: ['message == \"b\"" + more + " or nope == \"a\"']\n",
	} {
		if got := errorOf(t, text); !strings.Contains(got, "the limit is") || strings.Contains(got, "unknown field") {
			t.Errorf("%s: %.200q", what, got)
		}
	}
	check("tag", rule+"  tags: ["+long(maxText+1)+"]\n", "the limit is")
	check("name", rule+"  tests:\n    - {name: '', fires: true, event: {event.dataset: log, message: a}}\n", "is empty")

	// Sections.
	section := func(text string) string { return text + "rules:\n" + rule }
	check("lists", section("lists: {words: [a, b]}\nmacros: {is_a: 'message == \"a\"'}\n"), "")
	check("lists of a text", section("lists: text\n"), "expected a mapping (key: value), got")
	check("macros of a list", section("macros: [a]\n"), "expected a mapping (key: value), got")
	check("name", section("lists: {Words: [a]}\n"), "a name is made of a-z, 0-9 and _")
	check("name of a field", section("lists: {message: [a]}\n"), "is the name of a field or function already")
	check("name of a function", section("macros: {lower: 'message == \"a\"'}\n"), "is the name of a field or function already")
	check("macro of a list's name", section("lists: {words: [a]}\nmacros: {words: 'message == \"a\"'}\n"), "words: is defined already")
	check("macro of a wrong name", section("macros: {A: 'message == \"a\"'}\n"), "a name is made of a-z, 0-9 and _")
	check("macro cut by a comment", section("macros:\n  m: message == \"a\" # and message == \"b\"\n"), "YAML takes what follows")
	check("long macro", section("macros: {m: 'message == \"b\""+more+"'}\n"), fmt.Sprintf("the limit is %d", maxExpression))
	check("mixed list", section("lists: {words: [a, 1]}\n"), "a list holds texts or numbers, at least one and not both")
	check("empty list", section("lists: {words: []}\n"), "a list holds texts or numbers, at least one and not both")
	numbers := func(n int) string { return strings.TrimSuffix(strings.Repeat("1,\n  ", n), ",\n  ") }
	check("list", section("lists: {numbers: ["+numbers(maxList)+"]}\n"), "")
	check("list", section("lists: {numbers: ["+numbers(maxList+1)+"]}\n"), fmt.Sprintf("list of %d entries, the limit is %d", maxList+1, maxList))
}

func quote(text string) string { return fmt.Sprintf("%q", text) }

// TestRuleWithTwoMistakesHasBoth: a mistake in one key does not hide that in another.
func TestRuleWithTwoMistakesHasBoth(t *testing.T) {
	got := errorOf(t, "- id: a\n  title: t\n  severity: x\n  score: 0\n  group: [source.ipp, redis.keyy]\n  when: messag == \"a\"\n"+
		"  alert: '{messag} {redis.keyy} {message'\n")
	for _, want := range []string{"unknown severity", "must be from 1 to 100", `"source.ipp"`, `"redis.keyy"`, `"messag"`} {
		if !strings.Contains(got, want) {
			t.Errorf("%s, want %s", got, want)
		}
	}
	if parts, errs := parseTemplate("{messag} of {redis.keyy} {message}", &parsedRule{}); len(errs) != 2 || errs[0].at != 0 || errs[1].at != 12 || len(parts) != 2 {
		t.Errorf("errors of a template: %v, %v", parts, errs)
	}
	if parts, errs := parseTemplate("{{a}} {message}", &parsedRule{}); len(errs) != 0 || len(parts) != 2 || parts[0].text != "{a} " || parts[1].field.Name != "message" {
		t.Errorf("%v, %v", parts, errs)
	}
	if _, errs := parseTemplate("ab {message", &parsedRule{}); len(errs) != 1 || errs[0].at != 3 {
		t.Errorf("errors of a template: %v", errs)
	}
}

// TestUnknownNamesHaveSuggestions: similar names, or at most three with the same last word, of the same first word before others.
func TestUnknownNamesHaveSuggestions(t *testing.T) {
	check := func(name string, known []string, want string) {
		t.Helper()
		if got := didYouMeanField(name, known); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	known := []string{"dns.question.name", "dns.answers.name", "container.name", "host.name", "user.id", "url.id", "a.id", "b.id"}
	check("dns.name", known, `, did you mean "dns.question.name" or "dns.answers.name"?`)
	check("service.instance.zone.name", known[2:4], `, did you mean "container.name" or "host.name"?`)
	check("service.instance.zone.name", known, "")
	check("service.instance.zone.id", known, "")
	check("service.instance.zone.id", known[5:], `, did you mean "url.id" or "a.id" or "b.id"?`)
	check("hostt.name", known, `, did you mean "host.name"?`)
	check("nothing", known, "")
	if names := fieldNames(); !slices.IsSorted(names) || len(names) != len(pipeline.Fields) {
		t.Errorf("%d names", len(names))
	}
	macros := &names{macros: map[string]*macro{"is_admin_request": {}}}
	if got := unknownName("is_admin_requests", macros); got != `unknown field "is_admin_requests", did you mean "is_admin_request"?` {
		t.Error(got)
	}
}

// TestTextOfARuleEndsBeforeTheNextOne; a rule whose line is gone has none.
func TestTextOfARuleEndsBeforeTheNextOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	check := func(line int, want, wantErr string) {
		t.Helper()
		rule := &Rule{ID: "r"}
		rule.File, rule.Line = path, line
		got, err := rule.Text()
		if got != want || (err != nil) != (wantErr != "") || err != nil && !strings.Contains(err.Error(), wantErr) {
			t.Errorf("line %d: %q, %v, want %q", line, got, err, want)
		}
	}
	write("rules:\n  - id: a\n\n    title: t\n\n  - id: b\n  # comment\n  - id: c\n")
	check(2, "- id: a\n\n  title: t\n", "")
	check(6, "- id: b\n", "")
	check(8, "- id: c\n", "")
	check(0, "", "has no line 0 any more")
	check(10, "", "has no line 10 any more")
	check(9, "", "") // behind the last newline
	write("id: a\ntitle: t\n")
	check(1, "id: a\ntitle: t\n", "")
	path += ".missing"
	check(1, "", "read rule r: ")
}

// TestShippedRuleIsOneOfTheProgram, not a file of a folder of that name.
func TestShippedRuleIsOneOfTheProgram(t *testing.T) {
	check := func(file string, embedded, want bool) {
		t.Helper()
		rule := &Rule{}
		rule.File, rule.shipped = file, embedded
		if rule.IsShipped() != want {
			t.Errorf("%s, %t: %t", file, embedded, !want)
		}
	}
	check("shipped/a.yaml", true, true)
	check("shipped/a.yaml", false, false)
	check("shipped.yaml", true, false)
}

// TestProblemsOfTheConfigurationHaveBounds.
func TestProblemsOfTheConfigurationHaveBounds(t *testing.T) {
	check := func(what string, set func(*Config), want int) {
		t.Helper()
		cfg := Default()
		set(&cfg)
		if problems := cfg.Check(); len(problems) != want {
			t.Errorf("%s: %v", what, problems)
		}
	}
	check("default", func(*Config) {}, 0)
	check("grace of a year", func(c *Config) { c.LossGrace = 365 * 24 * 3600e9 }, 0)
	check("grace of more than a year", func(c *Config) { c.LossGrace = 365*24*3600e9 + 1 }, 1)
	check("no grace", func(c *Config) { c.LossGrace = 0 }, 0)
	check("negative grace", func(c *Config) { c.LossGrace = -1 }, 1)
	check("times", func(c *Config) { c.MaxMeanTime, c.MaxTime = 1, 1 }, 0)
	check("no times", func(c *Config) { c.MaxMeanTime, c.MaxTime = 0, 0 }, 2)
	check("severity", func(c *Config) { c.Severity = map[string]string{"a": "low", "b": "lowish"} }, 1)
	if cfg := Default(); cfg.MaxTime != 20e6 || cfg.MaxMeanTime != 50e3 || cfg.LossGrace != 3600e9 {
		t.Errorf("%+v", cfg)
	}
}
