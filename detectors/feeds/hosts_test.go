package feeds

import (
	"slices"
	"strings"
	"testing"

	"tidegate/pipeline"
)

// evidence returns what the verdicts of an event say up to the name of the feed, sorted.
func evidence(set *Set, event *pipeline.Event) string {
	set.Evaluate([]*pipeline.Event{event})
	var out []string
	for _, verdict := range event.Verdicts {
		before, _, _ := strings.Cut(verdict.Evidence, " in feed")
		out = append(out, before)
	}
	slices.Sort(out)
	return strings.Join(out, "; ")
}

const hostFeed = `203.0.113.9
2001:db8::9
198.51.100.0/24
evil.example
worse.example
`

// TestAddressWhereANameStands: a proxy, a Host or a server name with an address leads to that address.
func TestAddressWhereANameStands(t *testing.T) {
	set, _ := load(t, hostFeed)
	inHTTP := func(host string) *pipeline.Event {
		return &pipeline.Event{Dataset: pipeline.Dataset_HTTP, Http: &pipeline.HTTPExchange{UrlDomain: host}}
	}
	inForwarded := func(host string) *pipeline.Event {
		exchange := &pipeline.HTTPExchange{UrlDomain: "shop.test", XForwardedFor: []string{"192.0.2.1", host}}
		return &pipeline.Event{Dataset: pipeline.Dataset_HTTP, Http: exchange}
	}
	inTLS := func(host string) *pipeline.Event {
		return &pipeline.Event{Dataset: pipeline.Dataset_TLS, Tls: &pipeline.TLSHandshake{ServerName: host}}
	}
	inQuestion := func(host string) *pipeline.Event { return lookup(host) }
	inAnswer := func(host string) *pipeline.Event {
		return &pipeline.Event{Dataset: pipeline.Dataset_DNS, Dns: &pipeline.DNSMessage{
			QuestionName: "shop.test", AnswersType: []string{"A", "CNAME"}, AnswersData: []string{"192.0.2.1", host},
		}}
	}
	fields := map[string]func(string) *pipeline.Event{
		"url.domain": inHTTP, "http.request.x_forwarded_for": inForwarded, "tls.client.server_name": inTLS,
		"dns.question.name": inQuestion, "dns.answers.data": inAnswer,
	}
	for field, in := range fields {
		check := func(host, want string) {
			t.Helper()
			if want != "" {
				want = field + " " + want
			}
			if got := evidence(set, in(host)); got != want {
				t.Errorf("%s %q: %q, want %q", field, host, got, want)
			}
		}
		for _, host := range []string{"203.0.113.9", "203.0.113.9.", "[::ffff:203.0.113.9]", "203.0.113.9:56789"} {
			check(host, "203.0.113.9 is listed")
		}
		for _, host := range []string{"[2001:db8::9]", "2001:db8::9", "[2001:db8::9]:1234", "2001:DB8:0::9%eth0", "[2001:db8::9%25eth0]"} {
			check(host, "2001:db8::9 is listed")
		}
		check("198.51.100.7:80", "198.51.100.7 is listed as 198.51.100.0/24")
		for _, host := range []string{"evil.example", "evil.example.", "EVIL.example", "evil.example.:443"} {
			check(host, "evil.example is listed")
		}
		check("c2.evil.example", "c2.evil.example is listed as evil.example")
		for _, host := range []string{
			"", ".", "unknown", "203.0.113.8", "203.0.113", "9.113.0.203.in-addr.arpa", "203.0.113.9.example", "[2001:db8::8]", "evil.example.test",
		} {
			check(host, "")
		}
	}
}

// TestTargetsOfAnAnswerAreLookedUp: each name of a chain of aliases, and the hosts of the records that name one.
func TestTargetsOfAnAnswerAreLookedUp(t *testing.T) {
	set, _ := load(t, hostFeed)
	check := func(question, want string, records ...string) {
		t.Helper()
		body := &pipeline.DNSMessage{QuestionName: question}
		for _, record := range records {
			typ, data, _ := strings.Cut(record, " ")
			body.AnswersType, body.AnswersData = append(body.AnswersType, typ), append(body.AnswersData, data)
			if typ == "A" || typ == "AAAA" {
				body.ResolvedIp = append(body.ResolvedIp, data)
			}
		}
		if got := evidence(set, &pipeline.Event{Dataset: pipeline.Dataset_DNS, Dns: body}); got != want {
			t.Errorf("%s %q: %q, want %q", question, records, got, want)
		}
	}
	const first = "dns.answers.data a.evil.example is listed as evil.example"
	check("shop.test", first, "CNAME cdn.test", "CNAME a.evil.example", "CNAME b.test", "A 192.0.2.1")
	check("shop.test", first+"; dns.answers.data worse.example is listed", "CNAME a.evil.example", "CNAME worse.example")
	check("shop.test", first, "CNAME a.evil.example", "A 203.0.113.9") // its address adds nothing
	check("evil.example", "dns.question.name evil.example is listed", "CNAME worse.example", "A 203.0.113.9")
	check("shop.test", "dns.resolved_ip 198.51.100.1 is listed as 198.51.100.0/24; dns.resolved_ip 203.0.113.9 is listed",
		"CNAME cdn.test", "A 203.0.113.9", "A 198.51.100.1")
	check("shop.test", first, "DNAME a.evil.example")
	check("shop.test", first, "MX 10 a.evil.example")
	check("_sip._tcp.shop.test", first, "SRV 10 60 5060 a.evil.example")
	check("shop.test", first, "HTTPS 0 a.evil.example")
	check("shop.test", first, `SVCB 1 a.evil.example alpn="h2"`)
	for _, record := range []string{
		`TXT "evil.example"`, "NS evil.example", "PTR evil.example", "HTTPS 1 .", "MX", "SRV 1 2", `CNAME \# 3 c00c00`, "CNAME ",
	} {
		check("shop.test", "", record)
	}
}

// TestLongNamesAreLookedUp: escapes lengthen a name to four times its size.
func TestLongNamesAreLookedUp(t *testing.T) {
	set, _ := load(t, hostFeed)
	name := strings.Repeat(strings.Repeat(`\001`, 59)+".", 3) + "evil.example"
	if got := evidence(set, lookup(name)); !strings.HasSuffix(got, "is listed as evil.example") {
		t.Errorf("got %q", got)
	}
	if got := evidence(set, lookup(strings.Repeat("a", 1000))); got != "" {
		t.Errorf("got %q", got)
	}
}
