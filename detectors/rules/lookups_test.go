package rules

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"tidegate/detectors/classifier"
	"tidegate/detectors/feeds"
	"tidegate/models"
	"tidegate/pipeline"
)

// TestRulesAskFeeds: a field, a function of one, an element of a list and a computed text, as an address, a name or a URL; and the set with other
// feeds sees those.
func TestRulesAskFeeds(t *testing.T) {
	lists := func(indicators ...string) *feeds.Set {
		set, err := feeds.Of(map[string][]string{"bad": indicators, "other": {"198.51.100.0/24"}}, []string{"bad", "other"})
		if err != nil {
			t.Fatal(err)
		}
		return set
	}
	check := func(when string, want string) {
		t.Helper()
		set, err := compileText(t, ruleYAML("r", when))
		if err != nil {
			t.Error(err)
			return
		}
		got := ""
		for _, of := range []*feeds.Set{nil, lists("203.0.113.0/24", "evil.example"), lists("192.0.2.1"), lists("https://evil.example/drop")} {
			event := &pipeline.Event{
				Dataset: pipeline.Dataset_HTTP, Source: &pipeline.Endpoint{Ip: netip.MustParseAddr("203.0.113.9").AsSlice()},
				Http: &pipeline.HTTPExchange{UrlDomain: "www.Evil.example:8080", UrlQuery: "https%3A%2F%2Fevil.example%2Fdrop", XForwardedFor: []string{"10.0.0.1", "192.0.2.1"}},
			}
			if set.WithFeeds(of).Evaluate([]*pipeline.Event{event}); len(event.Verdicts) > 0 {
				got += "1"
			} else {
				got += "0"
			}
		}
		if got != want {
			t.Errorf("%s: %s, want %s", when, got, want)
		}
	}
	check(`feed("bad", source.ip)`, "0100")
	check(`feed("other", source.ip)`, "0000")
	check(`feed("bad", destination.ip)`, "0000")
	check(`feed("bad", url.domain)`, "0100")
	check(`feed("bad", url.domain + "")`, "0100")
	check(`feed("bad", lower(url.domain))`, "0100")
	check(`feed("bad", unescape(url.query))`, "0101")
	check(`any(http.request.x_forwarded_for, feed("bad", #))`, "0010")
	check(`all(http.request.x_forwarded_for, feed("bad", #))`, "0000")
	check(`not feed("bad", source.ip)`, "1011")
	check(`feed("bad", url.path)`, "0000")
	check(`feed("bad", label("a"))`, "0000")
}

// TestFeedNamesAreChecked against those of the configuration; without one any name can be written.
func TestFeedNamesAreChecked(t *testing.T) {
	check := func(names []string, when, want string) {
		t.Helper()
		cfg := withModels()
		cfg.FeedNames = names
		_, err := Compile(cfg, []Source{{Name: "t.yaml", Data: []byte(ruleYAML("r", when))}}, nil, nil)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q %s: %v, want %s", names, when, err, want)
		}
	}
	check(nil, `feed("any", source.ip)`, "")
	check([]string{"urlhaus"}, `feed("urlhaus", source.ip)`, "")
	check([]string{"urlhaus", "own"}, `feed("urlhas", source.ip)`, `t.yaml:4:15: r: when: unknown feed "urlhas", did you mean "urlhaus"?`)
	check([]string{}, `feed("urlhaus", source.ip)`, `unknown feed "urlhaus": the configuration has no feeds`)
	check(nil, `feed("a")`, `feed takes the name of a feed between quotes and a value: feed("blocklist", source.ip)`)
	check(nil, `feed(source.ip, "a")`, `feed takes the name of a feed between quotes`)
	check(nil, `feed("", source.ip)`, `feed takes the name of a feed between quotes`)
	check(nil, `feed("a", dns.answers.data)`, `feed takes one value: any(dns.answers.data, feed("a", #))`)
	check(nil, `feed("a", source.port)`, `feed takes a text or an address, source.port is a number`)
	check(nil, `feed("a", source.prt)`, `unknown field "source.prt"`)
	check(nil, `model("generated-domain") > 0.5`, `unknown model "generated-domain", did you mean "generated-domains"?`)
	check(nil, `model() > 0.5`, `model takes the name of a model between quotes: model("generated-domains")`)
	check(nil, `model("generated-domains")`, `must be true or false, but is a decimal number`)
	check(nil, `model("generated-domains") > "0.5"`, `write numbers without quotes`)
}

// TestScoresInRules are those of the classifier; other events have 0 and are ruled out by their dataset.
func TestScoresInRules(t *testing.T) {
	model, err := classifier.Decode(models.GeneratedDomains)
	if err != nil {
		t.Fatal(err)
	}
	set, err := compileText(t, ruleYAML("generated", `model("generated-domains") >= 0.7`)+ruleYAML("ordinary", `model("generated-domains") < 0.3 and has(dns.question.name)`))
	if err != nil {
		t.Fatal(err)
	}
	if rule := set.Rules()[0]; !slices.Equal(rule.Datasets, []string{"dns"}) {
		t.Errorf("datasets %q", rule.Datasets)
	}
	seen := map[string]int{}
	for _, name := range []string{"example.com", "xjwqkzvbnmtrpl.com", "qzkfhwtyupmxcv.info", "wikipedia.org", "short.io"} {
		for _, queryType := range []string{"A", "TXT"} {
			event := &pipeline.Event{Dataset: pipeline.Dataset_DNS, Dns: &pipeline.DNSMessage{QuestionName: name, QuestionType: queryType}}
			score, want := model.ScoreEvent(event), ""
			if score >= 0.7 {
				want = "generated"
			} else if score < 0.3 {
				want = "ordinary"
			}
			if set.Evaluate([]*pipeline.Event{event}); fired(event) != want || queryType == "TXT" && score != 0 {
				t.Errorf("%s %s scores %.2f: %s, want %s", name, queryType, score, fired(event), want)
			}
			seen[want]++
		}
	}
	if seen["generated"] == 0 || seen["ordinary"] == 0 {
		t.Error(seen)
	}
}

// TestFeedsOfCases take the place of those of the set; mistakes in them are named.
func TestFeedsOfCases(t *testing.T) {
	text := ruleYAML("r", `feed("bad", source.ip)`) + `  tests:
    - {event: {event.dataset: session, source.ip: 10.0.0.9}, feeds: {bad: [10.0.0.0/24]}, fires: true}
    - {event: {event.dataset: session, source.ip: 10.0.1.9}, feeds: {bad: 10.0.0.0/24}, fires: false}
    - {event: {event.dataset: session, source.ip: 10.0.0.9}, feeds: {other: [10.0.0.0/24]}, fires: false}
` + strings.Replace(ruleYAML("c", `feed("bad", source.ip)`), "when", "count: 2\n  within: 1m\n  when", 1) + `  tests:
    - {events: [{repeat: 2, every: 1s, event: {event.dataset: session, source.ip: 10.0.0.9}}], feeds: {bad: [10.0.0.9]}, fires: true}
    - {events: [{repeat: 2, every: 1s, event: {event.dataset: session, source.ip: 10.0.0.9}}], fires: false}
`
	set, err := compileText(t, text)
	if err != nil {
		t.Fatal(err)
	}
	for _, result := range set.Test() {
		if !result.Passed {
			t.Errorf("%+v", result)
		}
	}
	for feeds, want := range map[string]string{
		"5":                            "feeds: expected the names of feeds with their indicators",
		"{bad: [10.0.0.9, '10.0.0.']}": "feeds.bad[1]: ",
		"{bad: {a: b}}":                "feeds.bad: expected a list",
	} {
		got := errorOf(t, ruleYAML("r", `feed("bad", source.ip)`)+"  tests:\n    - {event: {source.port: 5, event.dataset: session}, fires: true, feeds: "+feeds+"}\n")
		if !strings.Contains(got, want) || strings.Contains(got, "\n") {
			t.Errorf("%s: %s, want %s", feeds, got, want)
		}
	}
}

// TestExplainShowsWhatFeedsAndModelsAreAsked, with the values.
func TestExplainShowsWhatFeedsAndModelsAreAsked(t *testing.T) {
	set, err := compileText(t, ruleYAML("r", `feed("bad", source.ip) and model("generated-domains") > 0.5`))
	if err != nil {
		t.Fatal(err)
	}
	event := &pipeline.Event{
		Dataset: pipeline.Dataset_DNS, Timestamp: time.Now().UnixNano(), Source: &pipeline.Endpoint{Ip: []byte{203, 0, 113, 9}},
		Dns: &pipeline.DNSMessage{QuestionName: "a.bc", QuestionType: "A"},
	}
	got := set.Explain(set.Rules()[0], event)[0].When.Parts
	if got[0].Values != `source.ip = "203.0.113.9"` || got[1].Values != `model("generated-domains") = 0` {
		t.Errorf("%+v", got)
	}
}
