package rules

import (
	"errors"
	"os"
	"strings"
	"testing"

	"tidegate/models"
	"tidegate/pipeline"
	"tidegate/pipeline/config"
	shipped "tidegate/rules"
)

// compileText compiles a rule file.
func compileText(tb testing.TB, text string) (*Set, error) {
	tb.Helper()
	return Compile(withModels(), []Source{{Name: "t.yaml", Data: []byte(text)}}, nil, nil)
}

// withModels returns the default settings with the models that come with tidegate.
func withModels() Config {
	cfg := Default()
	cfg.Models = map[string][]byte{"generated-domains": models.GeneratedDomains}
	return cfg
}

// ruleYAML returns the YAML of a rule with an expression.
func ruleYAML(id, when string) string {
	return "- id: " + id + "\n  title: t\n  severity: low\n  when: '" + strings.ReplaceAll(when, "'", "''") + "'\n"
}

// fired returns the rules that have a verdict on an event, in one line.
func fired(event *pipeline.Event) string {
	var ids []string
	for _, verdict := range event.Verdicts {
		ids = append(ids, verdict.Rule)
	}
	return strings.Join(ids, " ")
}

// TestExpressionCutByACommentIsAnError: YAML ends a plain scalar at a blank and #. The rest of an expression must not be
// lost; other comments are allowed.
func TestExpressionCutByACommentIsAnError(t *testing.T) {
	check := func(when string, want bool) {
		t.Helper()
		_, err := compileText(t, "- id: a\n  title: t\n  severity: low\n  when: "+when+"\n")
		if got := err != nil && strings.Contains(err.Error(), "YAML takes what follows the blank and # for a comment"); got != want {
			t.Errorf("%s: %v", when, err)
		}
	}
	check(`any(dns.answers.data, # endsWith ".example")`, true)
	check(`redis.key == "a" # or redis.key == "b"`, true)
	check("redis.key\n    == \"a\" # or redis.key == \"b\"", true)
	check(`any(redis.args, # in ["a"])`, true)
	check(`any(redis.args, #== "a")`, true)
	check(`redis.key == "a"  # the key of the shop`, false)
	check("redis.key == \"a\"\n  # or redis.key == \"b\"", false)
	check(`'any(redis.args, # endsWith ".example")'`, false)
	check(">\n    any(redis.args, # endsWith \".example\")", false)
	check(`'redis.key == "a"' # or so`, false)
}

func TestShippedRulesPassTheirTests(t *testing.T) {
	set, err := LoadFS(shipped.Files, "rules", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if failed, _ := RunTests(&out, set, true); failed > 0 || testing.Verbose() {
		t.Log("\n" + out.String())
		if failed > 0 {
			t.Errorf("%d failed", failed)
		}
	}
	for _, lint := range set.Lints() {
		t.Errorf("%s:%d: %s: %s", lint.File, lint.Line, lint.Rule, lint.Message)
	}

	// Each rule names at least one technique of MITRE ATT&CK.
	tags := 0
	for _, rule := range set.Rules() {
		for _, tag := range rule.Tags {
			if strings.HasPrefix(tag, "attack.t1") {
				tags++
				break
			}
		}
	}
	if tags != len(set.Rules()) || tags < 14 {
		t.Errorf("%d of %d rules name a technique", tags, len(set.Rules()))
	}
}

func TestExpressionsMatchTheseEvents(t *testing.T) {
	http := func(exchange *pipeline.HTTPExchange) *pipeline.Event {
		return &pipeline.Event{
			Dataset: pipeline.Dataset_HTTP, Http: exchange, Source: &pipeline.Endpoint{Ip: []byte{10, 1, 2, 3}, Port: 999},
		}
	}
	shell := http(&pipeline.HTTPExchange{
		Method: "GET", UrlPath: "/Cgi-bin/x", UrlQuery: "a=%252e%252e%2Fetc+passwd&k=1", StatusCode: 404,
		XForwardedFor: []string{"1.2.3.4", "10.9.9.9"}, UserAgent: "() { :; }; /bin/id",
	})
	check := func(event *pipeline.Event, when string, want bool) {
		t.Helper()
		set, err := compileText(t, ruleYAML("r", when))
		if err != nil {
			t.Errorf("%s: %v", when, err)
			return
		}
		event.Verdicts = nil
		set.Evaluate([]*pipeline.Event{event})
		if got := fired(event) == "r"; got != want {
			t.Errorf("%s: %v, want %v", when, got, want)
		}
	}
	check(shell, `http.request.method == "GET"`, true)
	check(shell, `lower(url.path) startsWith "/cgi-bin/"`, true)
	check(shell, `lower(url.path) contains "CGI"`, false)
	check(shell, `unescape(url.query) contains "../etc passwd"`, true)
	check(shell, `lower(unescape(url.query)) contains ["nothing", "/etc"]`, true)
	check(shell, `url.query matches "(?i)K=1$"`, true)
	check(shell, `http.response.status_code in [403, 404]`, true)
	check(shell, `http.response.status_code in [200]`, false)
	check(shell, `http.response.status_code >= 400 and not has(url.domain)`, true)
	check(shell, `has(http.request.method)`, true)
	check(shell, `mysql.rows == 0`, true)
	check(shell, `mysql.query == ""`, true)
	check(shell, `mysql.query != ""`, false)
	check(shell, `source.ip == "10.1.2.3"`, true)
	check(shell, `source.ip in ["10.1.2.4", "::1"]`, false)
	check(shell, `cidr(source.ip, "10.0.0.0/8", "192.168.0.0/16")`, true)
	check(shell, `not cidr(source.ip, "10.0.0.0/8")`, false)
	check(shell, `cidr(destination.ip, "0.0.0.0/0")`, false)
	check(shell, `any(http.request.x_forwarded_for, # == "1.2.3.4")`, true)
	check(shell, `any(http.request.x_forwarded_for, cidr(#, "10.0.0.0/8"))`, true)
	check(shell, `all(http.request.x_forwarded_for, cidr(#, "10.0.0.0/8"))`, false)
	check(shell, `"1.2.3.4" in http.request.x_forwarded_for`, true)
	check(shell, `len(http.request.x_forwarded_for) == 2`, true)
	check(shell, `len(url.path) > 9 and len(url.path) < 11`, true)
	check(shell, `count(http.request.x_forwarded_for, # startsWith "1") == 2`, true)
	check(shell, `glob(url.path, "/Cgi-*/?")`, true)
	check(shell, `glob(url.path, "cgi*")`, false)
	check(shell, `user_agent.original startsWith "() {"`, true)
	check(shell, `event.dataset == "http" and source.port + 1 == 1000`, true)
	check(shell, `event.dataset in ["dns", "log"]`, false)
	check(shell, `event.partial`, false)
	check(shell, `not event.partial`, true)

	// cidr reads an address in any spelling of the fields that hold a host.
	for host, want := range map[string]bool{
		"203.0.113.7": true, "203.0.113.7:56789": true, "203.0.113.7.": true, "[203.0.113.7]:80": true, "[::ffff:203.0.113.7]": true,
		"2001:db8::7": true, "[2001:db8::7]": true, "[2001:db8::7]:1234": true, "2001:db8::7%eth0": true, "[2001:DB8::7%25eth0]:80": true,
		"198.51.100.1:80": false, "[2001:db9::7]:80": false, "unknown": false, "": false, "203.0.113.7.example": false,
	} {
		exchange := &pipeline.HTTPExchange{UrlDomain: host, XForwardedFor: []string{"192.0.2.1", host}}
		event := &pipeline.Event{Dataset: pipeline.Dataset_HTTP, Http: exchange}
		check(event, `cidr(url.domain, "203.0.113.0/24", "2001:db8::/32")`, want)
		check(event, `any(http.request.x_forwarded_for, cidr(#, "203.0.113.0/24", "2001:db8::/32"))`, want)
	}

	labelled := &pipeline.Event{
		Dataset: pipeline.Dataset_LOG, Log: &pipeline.LogLine{Message: "x"},
		Container: &pipeline.Container{Id: "c", Labels: []*pipeline.Label{{Key: "app", Value: "shop"}}},
	}
	check(labelled, `label("app") == "shop"`, true)
	check(labelled, `label("tier") == "shop"`, false)
	check(labelled, `has(container.labels)`, true)
}

// TestErrorsNameTheirPosition: each error of a bad file begins with its line and column. The errors are those
// of the golden file; with GOLDEN set it is rewritten.
func TestErrorsNameTheirPosition(t *testing.T) {
	for _, file := range []string{"broken", "types", "hostile", "shape", "hints", "correlation"} {
		data, err := os.ReadFile("testdata/" + file + ".bad.yml")
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile("testdata/" + file + ".errors.txt")
		if err != nil && os.Getenv("GOLDEN") == "" {
			t.Fatal(err)
		}
		_, err = Compile(Default(), []Source{{Name: file + ".bad.yml", Data: data}}, nil, nil)
		if err == nil {
			t.Errorf("%s: no error", file)
			continue
		}
		if got := err.Error() + "\n"; got != string(want) {
			if os.Getenv("GOLDEN") != "" {
				if err := os.WriteFile("testdata/"+file+".errors.txt", []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				continue
			}
			t.Errorf("%s: got\n%s\nwant\n%s", file, got, want)
		}
		var one *config.Error
		if !errors.As(err, &one) || one.Line == 0 {
			t.Errorf("%s: the error does not unwrap to one with a line: %v", file, err)
		}
	}
}
