package rules

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"tidegate/pipeline"
	"tidegate/pipeline/correlate"
)

// TestExplanationNamesTheDecisiveParts: of a condition with the value true or false it names those comparisons that
// are enough for the value, as the author has written them.
func TestExplanationNamesTheDecisiveParts(t *testing.T) {
	event := &pipeline.Event{
		Dataset: pipeline.Dataset_HTTP, Source: &pipeline.Endpoint{Ip: []byte{10, 1, 2, 3}, Port: 4711},
		Http: &pipeline.HTTPExchange{Method: "GET", UrlPath: "/Admin", StatusCode: 404, XForwardedFor: []string{"a", "b"}},
	}
	check := func(when, want string) {
		t.Helper()
		set, err := compileText(t, ruleYAML("r", when))
		if err != nil {
			t.Fatal(err)
		}
		if got := set.explain(set.Rules()[0], event); got != want {
			t.Errorf("%s:\n got %s\nwant %s", when, got, want)
		}
	}
	const (
		get, post = `(http.request.method == "GET")`, `(http.request.method == "POST")`
		missing   = `(http.response.status_code == 404)`
		isGet     = ` is false (http.request.method = "GET")`
	)
	check(get, get+" is true")
	check(post, post+isGet)
	check(get+" and "+missing, get+" is true, "+missing+" is true")
	check(get+" and not "+missing, missing+" is true")
	check(post+" and "+missing, post+isGet)
	check(missing+" and "+post, post+isGet)
	check(post+" or "+missing, missing+" is true")
	check(missing+" or "+post, missing+" is true")
	check("("+post+" or "+`(url.path == "/x")`+") and "+get, post+isGet+`, (url.path == "/x") is false (url.path = "/Admin")`)
	check("not ("+post+" or "+missing+")", missing+" is true")
	check("not ("+get+" and "+post+")", post+isGet)
	check(`lower(url.path) startsWith "/admin" and len(url.path) > 3`,
		`lower(url.path) startsWith "/admin" is true (lower(url.path) = "/admin"), (len(url.path) > 3) is true (len(url.path) = 6)`)
	check(`any(http.request.x_forwarded_for, # == "b") and not cidr(source.ip, "192.168.0.0/16")`,
		`any(http.request.x_forwarded_for, (# == "b")) is true (http.request.x_forwarded_for = ["a", "b"] (the condition holds for 1 of 2, first for "b")), `+
			`cidr(source.ip, "192.168.0.0/16") is false (source.ip = "10.1.2.3")`)
	check(`url.path matches "(?i)^/admin$" and source.port in [1, 4711] and has(url.path)`,
		`url.path matches "(?i)^/admin$" is true (url.path = "/Admin"), source.port in [1, 4711] is true (source.port = 4711), has(url.path) is true`)
	check(`http.response.status_code in [200, 201] or url.path contains ["x", "y"]`,
		`http.response.status_code in [200, 201] is false (http.response.status_code = 404), url.path contains ["x", "y"] is false (url.path = "/Admin")`)
	check(`-len(url.path) < -3 and source.port % 10 == 1 and 4711 in [4711]`,
		`(-len(url.path) < -3) is true (-len(url.path) = -6, len(url.path) = 6), ((source.port % 10) == 1) is true, 4711 in [4711] is true`)

	set, err := compileText(t, ruleYAML("r", get)+"  exceptions: ['"+post+"', '"+missing+"']\n")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := set.explain(set.Rules()[0], event), "the exception "+missing+" is true"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// combined returns the value of a part that follows from those of its operands.
func (p *Part) combined() bool {
	holds := func(operand Part) bool { return operand.combined() }
	switch {
	case len(p.Parts) == 0:
		return p.Holds
	case p.Text == "not":
		return !p.Parts[0].combined()
	case p.Text == "or":
		return slices.ContainsFunc(p.Parts, holds)
	}
	return !slices.ContainsFunc(p.Parts, func(operand Part) bool { return !operand.combined() })
}

// TestExplanationsAgreeWithTheVerdicts: of random rules and events, an explanation says that the rule matches where it does, and
// so do the parts; the index is said to rule out no rule that matches.
func TestExplanationsAgreeWithTheVerdicts(t *testing.T) {
	matches, ruledOut := 0, 0
	for seed := range uint64(10) {
		random := randomExpression{rand.New(rand.NewPCG(seed, 16))}
		set, _, _ := random.ruleSet(t, 40)
		for range 100 {
			event := random.event()
			set.Evaluate([]*pipeline.Event{event})
			for _, rule := range set.Rules() {
				explained := set.Explain(rule, event)[0]
				isMatch := slices.ContainsFunc(event.Verdicts, func(v *pipeline.Verdict) bool { return v.Rule == rule.ID })
				excepted := slices.ContainsFunc(explained.Exceptions, func(part Part) bool { return part.Holds })
				isRuledOut := strings.HasPrefix(explained.Prefilter, "skipped: ")
				if isPassed := strings.HasPrefix(explained.Prefilter, "passed: the event has"); isPassed && strings.HasSuffix(explained.Prefilter, " has ") {
					t.Errorf("seed %d: %s: %s", seed, rule.ID, explained.Prefilter)
				}
				if explained.Matches != (explained.When.Holds && !excepted) && !isRuledOut && !explained.DividesByZero {
					t.Errorf("seed %d: %s matches: %v, explained as %+v", seed, rule.ID, explained.Matches, explained)
				}
				if explained.Matches != isMatch || isMatch && (!explained.When.Holds || excepted || isRuledOut) {
					t.Errorf("seed %d: %s matches: %v, explained as %+v", seed, rule.ID, isMatch, explained)
				}
				if explained.When.combined() != explained.When.Holds {
					t.Errorf("seed %d: %s: the parts of %+v have another value", seed, rule.ID, explained.When)
				}
				if isMatch {
					matches++
				}
				if isRuledOut {
					ruledOut++
				}
			}
		}
	}
	if matches < 1000 || ruledOut < 1000 {
		t.Errorf("%d matches, %d ruled out by the index", matches, ruledOut)
	}
}

// TestExplanationShowsWhatAConditionReads: each part with its value and the fields that it has read.
func TestExplanationShowsWhatAConditionReads(t *testing.T) {
	event := &pipeline.Event{
		Dataset: pipeline.Dataset_HTTP, Source: &pipeline.Endpoint{Ip: []byte{10, 1, 2, 3}, Port: 4711},
		Http: &pipeline.HTTPExchange{Method: "GET", UrlPath: "/Admin", XForwardedFor: []string{"a", "b"}},
	}
	set, err := compileText(t, ruleYAML("r", `http.request.method == "GET" and lower(url.path) startsWith "/admin" and not (source.port > 5000`+
		` or any(http.request.x_forwarded_for, # == "c") or cidr(source.ip, "10.0.0.0/8") and has(url.query))`))
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	var print func(part Part, indent string)
	print = func(part Part, indent string) {
		out.WriteString(indent + map[bool]string{true: "+", false: "-"}[part.Holds] + " " + part.Text + " | " + part.Values + "\n")
		for _, operand := range part.Parts {
			print(operand, indent+" ")
		}
	}
	explained := set.Explain(set.Rules()[0], event)[0]
	print(explained.When, "")
	const want = `+ and |` + " " + `
 + (http.request.method == "GET") | http.request.method = "GET"
 + lower(url.path) startsWith "/admin" | lower(url.path) = "/admin"
 + not |` + " " + `
  - or |` + " " + `
   - (source.port > 5000) | source.port = 4711
   - any(http.request.x_forwarded_for, (# == "c")) | http.request.x_forwarded_for = ["a", "b"]
   - and |` + " " + `
    + cidr(source.ip, "10.0.0.0/8") | source.ip = "10.1.2.3"
    - has(url.query) |` + " " + `
`
	if out.String() != want || !explained.Matches || explained.Prefilter != `passed: the event has url.path contains "/admin" in any case` {
		t.Errorf("%v, prefilter %s, got\n%s", explained.Matches, explained.Prefilter, out.String())
	}
}

// TestExplanationShowsWhatIsComputed: calls, calculations and both sides of a comparison have their values, cut and without control characters,
// and a field that the event lacks is absent.
func TestExplanationShowsWhatIsComputed(t *testing.T) {
	event := &pipeline.Event{
		Dataset: pipeline.Dataset_LOG, Timestamp: 1767576600e9, Source: &pipeline.Endpoint{Bytes: 900}, Destination: &pipeline.Endpoint{Bytes: 50},
		Log: &pipeline.LogLine{Message: `{"status": "503", "user": "a\u001b[31mb", "long": "` + strings.Repeat("x", 100) + `"}`},
	}
	check := func(when, want string) {
		t.Helper()
		set, rule := onlyRule(t, ruleYAML("r", when))
		if got := set.Explain(rule, event)[0].When.Values; got != want {
			t.Errorf("%s:\n got %s\nwant %s", when, got, want)
		}
	}
	check(`entropy(json(message, "$.status")) > 3.5`, `entropy(json(message, "$.status")) = 1.5850, json(message, "$.status") = "503"`)
	check(`levenshtein(json(message, "$.status"), "504") <= 2`, `levenshtein(json(message, "$.status"), "504") = 1, json(message, "$.status") = "503"`)
	check(`number(json(message, "$.status")) >= 500`, `number(json(message, "$.status")) = 503, json(message, "$.status") = "503"`)
	check(`number(json(message, "$.user")) >= 500`, `number(json(message, "$.user")) = no number, json(message, "$.user") = "a\x1b[31mb"`)
	check(`json(message, "$.long") == "y"`, `json(message, "$.long") = "`+strings.Repeat("x", 60)+`…"`)
	check(`source.bytes > 10 * destination.bytes`, `source.bytes = 900, (10 * destination.bytes) = 500, destination.bytes = 50`)
	check(`source.bytes / 7 > 1`, `(source.bytes / 7) = 128.5714, source.bytes = 900`)
	check(`source.bytes % source.port == 1`, `(source.bytes % source.port) = a division by zero, source.bytes = 900, source.port is absent`)
	check(`len(trim(message)) > 10`, `len(trim(message)) = 153, trim(message) = "{\"status\": \"503\", \"user\": \"a\\u001b[31mb\", \"long\": \"xxxxxxxxx…", `+
		`message = "{\"status\": \"503\", \"user\": \"a\\u001b[31mb\", \"long\": \"xxxxxxxxx…"`)
	check(`timestamp > "2026-01-01"`, `@timestamp = "2026-01-05T01:30:00Z"`)
	check(`log.level == "error"`, `log.level is absent`)
	check(`user.name == "root"`, `user.name is absent`)
}

// TestDescriptionsOfGroups: what a group of a correlation rule has, and what it waits for.
func TestDescriptionsOfGroups(t *testing.T) {
	check := func(rule string, want string, signals ...correlate.Signal) {
		t.Helper()
		set, err := compileText(t, "- id: r\n  title: t\n  severity: low\n  group: [source.ip]\n"+rule)
		if err != nil {
			t.Fatal(err)
		}
		for i := range signals {
			signals[i].Event[0] = byte(i)
		}
		if got := DescribeGroup(set.Rules()[0].Correlation, signals, 0); got != want {
			t.Errorf("%s\n got %s\nwant %s", rule, got, want)
		}
	}
	at := func(step int, second, value int64) correlate.Signal {
		return correlate.Signal{Step: step, Start: second * 1e9, End: second * 1e9, Value: value}
	}
	const steps = `  sequence: [{name: a, when: url.path == "/a"}, {name: no, not: url.path == "/no"}, {name: b, when: url.path == "/b", within: 10s}, {name: c, when: url.path == "/c"}]
  within: 1m
`
	check(steps, "a at 0s; waits for b after a at 0s", at(0, 0, 0))
	check(steps, "a at 20s, b at 5s; waits for b after a at 20s", at(0, 20, 0), at(2, 5, 0))
	check(steps, "a at 0s, b at 15s; waits for b within 10s of a", at(0, 0, 0), at(2, 15, 0))
	check(steps, "a at 0s, 12s, b at 15s; waits for c after b at 15s", at(0, 0, 0), at(0, 12, 0), at(2, 15, 0))
	check(steps, "a at 0s, no at 3s, b at 5s, c at 6s; has all steps in their order, which must lie within 1m; no at 3s must not lie between them",
		at(0, 0, 0), at(2, 5, 0), at(3, 6, 0), at(1, 3, 0))
	check("  sequence: {ordered: false, steps: [{name: a, when: url.path == \"/a\"}, {name: b, when: url.path == \"/b\"}]}\n  within: 1m\n",
		"b at 2s; waits for a", at(1, 2, 0))
	const when = "  when: url.path == \"/a\"\n  within: 1m\n"
	check(when+"  count: 3\n", "events at 0s, 30s, 1m; at most 2 events within 1m, it needs 3", at(0, 60, 0), at(0, 0, 0), at(0, 30, 0))
	check(when+"  distinct: {field: source.port, count: 3}\n", "events at 0s, 1s, 2s; at most 2 different values within 1m, it needs 3", at(0, 0, 7), at(0, 1, 7), at(0, 2, 8))
	check(when+"  sum: {field: source.bytes, total: 30}\n", "events at 0s, 1s, 2m; at most 20 in sum within 1m, it needs 30", at(0, 0, 10), at(0, 1, 10), at(0, 120, 15))
	check(when+"  absent: {when: url.path == \"/b\"}\n", "events at 0s, 2m, what must follow at 20s; that at 0s is followed at 20s, that at 2m is not followed by 3m, when it matches",
		at(0, 0, 0), at(0, 120, 0), at(1, 20, 0))
	const other = "  when: url.path == \"/a\"\n"
	check(other+"  first_seen: {fields: [url.query], baseline: 1d}\n", "events at 1s, 2s, 3s; 2 values, first at 1s, 3s; it learns until 24h0m1s", at(0, 1, 5), at(0, 2, 5), at(0, 3, 6))
	check(other+"  interval: {contacts: 8}\n", "events at 0s, 1m; 2 contacts, it needs 8", at(0, 0, 0), at(0, 60, 0))
}
