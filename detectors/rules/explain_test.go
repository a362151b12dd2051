package rules

import (
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
