package rules

import (
	"strings"
	"testing"

	"tidegate/pipeline"
	"tidegate/pipeline/config"
)

// caseEvent returns the event of a case, and the errors of its text.
func caseEvent(text string) (*pipeline.Event, error) {
	document := config.Parse("t.yaml", []byte(text))
	root, _ := document.Root()
	event := parseEvent(root, 0)
	return event, document.Err()
}

// TestComputedFieldsOfACaseAreThoseOfProduction: a case cannot pass with values that no event has.
func TestComputedFieldsOfACaseAreThoseOfProduction(t *testing.T) {
	check := func(text, field, want string) {
		t.Helper()
		event, err := caseEvent(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			return
		}
		if got := pipeline.Lookup(field).Text(event); got != want {
			t.Errorf("%s: %s is %q, want %q", text, field, got, want)
		}
	}
	check(`{dns.question.name: c2.duckdns.org}`, "dns.question.registered_domain", "c2.duckdns.org")
	check(`{dns.question.name: a.b.example.co.uk}`, "dns.question.registered_domain", "example.co.uk")
	check(`{dns: {question: {name: www.example.com, registered_domain: example.com}}}`, "dns.question.registered_domain", "example.com")
	check(`{dns.question.registered_domain: example.com}`, "dns.question.registered_domain", "example.com")
	check(`{url.original: "/a/b?c=1&d#e"}`, "url.path", "/a/b")
	check(`{url.original: "/a/b?c=1&d#e"}`, "url.query", "c=1&d")
	check(`{url.original: "http://shop.example:80/a?b"}`, "url.path", "/a")
	check(`{url.path: /a, url.query: "b=1"}`, "url.original", "/a?b=1")
	check(`{url.query: "b=1"}`, "url.original", "?b=1")
	check(`{http.request.method: CONNECT, url.original: "shop.example:443"}`, "url.path", "")

	for text, want := range map[string]string{
		`{dns.question.name: c2.duckdns.org, dns.question.registered_domain: duckdns.org}`: `t.yaml:1:69: .dns.question.registered_domain: of "c2.duckdns.org" it is "c2.duckdns.org"`,
		`{dns.question.registered_domain: duckdns.org}`:                                    `"duckdns.org" is not a registered domain`,
		`{dns.question.registered_domain: www.example.com}`:                                `"www.example.com" is not a registered domain`,
		`{url: {original: "/a?b", path: /c}}`:                                              `.url.path: of the url.original "/a?b" it is "/a"`,
		`{url.original: "/a", url.query: "c=1"}`:                                           `it is ""; leave it out`,
	} {
		if _, err := caseEvent(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestStoredRowIsTheEventOfACase: a row of the table events, as a query prints it, is pasted unchanged. It has the
// columns of all datasets, and some that are no fields.
func TestStoredRowIsTheEventOfACase(t *testing.T) {
	const row = `{"@timestamp":"2026-11-26 16:20:47.480000000","event.ingested":"2026-11-26 16:20:48.000000001",` +
		`"event.id":"741d3a3a-5324-66cf-e214-21504d9223b0","event.dataset":"dns","event.duration":1200,"event.outcome":"success","event.partial":false,` +
		`"network.transport":"udp","network.type":"ipv4","network.vlan.id":0,"community_id":"1:x","source.ip":"172.17.0.4","source.nat.ip":"","source.port":4711,` +
		`"destination.ip":"172.17.0.2","destination.port":53,"container.id":"c1","container.labels":{"role":"web"},"verdict.rule":["old"],"verdict.severity":["low"],` +
		`"dns.question.name":"www.example.com","dns.question.registered_domain":"example.com","dns_answers_name":["www.example.com"],"dns_answers_type":["A"],` +
		`"dns_answers_data":["192.0.2.1"],"dns_answers_ttl":[60],"mysql.query":"","mysql.rows":0,"redis_args":[],"http.response.status_code":0,"message":"",` +
		`"tls.server.not_after":"1970-01-01 00:00:00.000000000","_topic":"tidegate.events","_partition":1,"_offset":33,"_index":0,` +
		`"_collector":"0192f1c4-0000-7000-8000-000000000000","_epoch":"17839201","_sequence":7}`
	event, err := caseEvent(row)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"@timestamp":"2026-11-26T16:20:47.48Z","event":{`
	got := string(pipeline.AppendJSON(nil, event))
	if !strings.HasPrefix(got, want) || !strings.Contains(got, `"dataset":"dns","duration":1200,"outcome":"success"}`) ||
		!strings.Contains(got, `"data":["192.0.2.1"]`) || !strings.Contains(got, `"labels":{"role":"web"}`) ||
		strings.Contains(got, "verdict") || event.Mysql != nil {
		t.Error(got)
	}
	nested, err := caseEvent(got)
	if err != nil || string(pipeline.AppendJSON(nil, nested)) != got {
		t.Errorf("the same event as replay prints it: %v", err)
	}
	if _, err := caseEvent(`{"event.dataset":"dns","_offset":1,"source.ip":"nonsense"}`); err == nil {
		t.Error("an address that is none")
	}
	if _, err := caseEvent(`{"source.ip":"10.0.0.1","_offset":1}`); err == nil || !strings.Contains(err.Error(), "event.dataset is missing") {
		t.Error(err)
	}
}
