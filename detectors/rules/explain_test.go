package rules

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"tidegate/pipeline"
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
	)
	check(get, get+" is true")
	check(post, post+" is false")
	check(get+" and "+missing, get+" is true, "+missing+" is true")
	check(get+" and not "+missing, missing+" is true")
	check(post+" and "+missing, post+" is false")
	check(missing+" and "+post, post+" is false")
	check(post+" or "+missing, missing+" is true")
	check(missing+" or "+post, missing+" is true")
	check("("+post+" or "+`(url.path == "/x")`+") and "+get, post+` is false, (url.path == "/x") is false`)
	check("not ("+post+" or "+missing+")", missing+" is true")
	check("not ("+get+" and "+post+")", post+" is false")
	check(`lower(url.path) startsWith "/admin" and len(url.path) > 3`,
		`lower(url.path) startsWith "/admin" is true, (len(url.path) > 3) is true`)
	check(`any(http.request.x_forwarded_for, # == "b") and not cidr(source.ip, "192.168.0.0/16")`,
		`any(http.request.x_forwarded_for, (# == "b")) is true, cidr(source.ip, "192.168.0.0/16") is false`)
	check(`url.path matches "(?i)^/admin$" and source.port in [1, 4711] and has(url.path)`,
		`url.path matches "(?i)^/admin$" is true, source.port in [1, 4711] is true, has(url.path) is true`)
	check(`http.response.status_code in [200, 201] or url.path contains ["x", "y"]`,
		`http.response.status_code in [200, 201] is false, url.path contains ["x", "y"] is false`)
	check(`-len(url.path) < -3 and source.port % 10 == 1 and 4711 in [4711]`,
		`(-len(url.path) < -3) is true, ((source.port % 10) == 1) is true, 4711 in [4711] is true`)

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
    - has(url.query) | has(url.query) = false
`
	if out.String() != want || !explained.Matches || explained.Prefilter != `passed: the event has url.path contains "/admin" in any case` {
		t.Errorf("%v, prefilter %s, got\n%s", explained.Matches, explained.Prefilter, out.String())
	}
}
