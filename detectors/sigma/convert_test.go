package sigma_test

import (
	"fmt"
	"strings"
	"testing"

	"tidegate/detectors/rules"
	"tidegate/detectors/sigma"
	"tidegate/pipeline"
	"tidegate/pipeline/lineartest"
)

// ruleOf returns a Sigma rule about a log source, with the lines of its detection.
func ruleOf(logsource, detection string) string {
	return "title: A rule\nid: 11111111-2222-3333-4444-555555555555\nlogsource:\n    " + strings.ReplaceAll(logsource, ", ", "\n    ") +
		"\ndetection:\n    " + strings.ReplaceAll(strings.TrimSpace(detection), "\n", "\n    ") + "\n"
}

// convertOne converts a file with one rule.
func convertOne(t *testing.T, text string) *sigma.Conversion {
	t.Helper()
	all := sigma.Convert([]sigma.Source{{Name: "a.yml", Data: []byte(text)}})
	if len(all) != 1 {
		t.Fatalf("%d conversions of\n%s", len(all), text)
	}
	return all[0]
}

// matches reports whether a Sigma rule matches an event of ours.
func matches(t *testing.T, text string, event *pipeline.Event) bool {
	t.Helper()
	c := convertOne(t, text)
	if c.Err != nil {
		t.Fatalf("%v of\n%s", c.Err, text)
	}
	set, err := rules.Compile(rules.Default(), []rules.Source{{Name: "a.yml", Data: c.Text()}}, nil, nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, c.Text())
	}
	event.Verdicts = nil
	set.Evaluate([]*pipeline.Event{event})
	return len(event.Verdicts) > 0
}

func logLine(message string) *pipeline.Event {
	return &pipeline.Event{Dataset: pipeline.Dataset_LOG, Log: &pipeline.LogLine{Message: message}}
}

func request(method, domain, target, agent string, status uint32) *pipeline.Event {
	path, query, _ := strings.Cut(target, "?")
	return &pipeline.Event{Dataset: pipeline.Dataset_HTTP, Http: &pipeline.HTTPExchange{
		Method: method, UrlDomain: domain, UrlOriginal: target, UrlPath: path, UrlQuery: query, UserAgent: agent, StatusCode: status,
	}}
}

// TestModifiers evaluates each modifier of the specification (Sigma specification 2.1, appendix "Modifiers").
func TestModifiers(t *testing.T) {
	check := func(selection, message string, want bool) {
		t.Helper()
		rule := ruleOf("category: application\n    product: python", "selection:\n    "+selection+"\ncondition: selection")
		if got := matches(t, rule, logLine(message)); got != want {
			t.Errorf("%s: got %v for %s", selection, got, message)
		}
	}
	field := func(value string) string { return fmt.Sprintf("{\"f\":%q}", value) }

	check(`f: 'Value'`, field("vALUE"), true)
	check(`f: 'Value'`, field("a value"), false)
	check(`f|cased: 'Value'`, field("value"), false)
	check(`f|cased: 'Value'`, field("Value"), true)
	check(`f|contains: 'alu'`, field("VALUE"), true)
	check(`f|startswith: 'Val'`, field("value"), true)
	check(`f|startswith: 'alu'`, field("value"), false)
	check(`f|endswith: 'ue'`, field("value"), true)
	check(`f|endswith: 'lu'`, field("value"), false)
	check(`f|contains|cased: 'ALU'`, field("value"), false)
	check("f|contains:\n        - 'a'\n        - 'b'", field("b"), true)
	check("f|contains|all:\n        - 'a'\n        - 'b'", field("b"), false)
	check("f|contains|all:\n        - 'a'\n        - 'b'", field("b a"), true)

	// Wildcards and escapes.
	check(`f: 'a*c'`, field("abbc"), true)
	check(`f: 'a*c'`, field("abbcd"), false)
	check(`f: 'a?c'`, field("abc"), true)
	check(`f: 'a?c'`, field("ac"), false)
	check(`f: 'a\*c'`, field("a*c"), true)
	check(`f: 'a\*c'`, field("abc"), false)
	check(`f: 'a\?c'`, field("abc"), false)
	check(`f: 'a\\*c'`, field(`a\bc`), true)
	check(`f: 'a\\*c'`, field(`abc`), false)
	check(`f: 'a\b'`, field(`a\b`), true)
	check(`f: 'a\\b'`, field(`a\b`), true)
	check(`f: 'a\\\\b'`, field(`a\\b`), true)
	check(`f: '\\*\b'`, field(`\a\b`), true)
	check(`f: '*'`, field("x"), true)
	check(`f: '*'`, `{"g":"x"}`, false)
	check(`f|contains: 'a*c'`, field("xxabbcxx"), true)

	// null, the empty text and exists.
	check(`f: null`, `{"g":"x"}`, true)
	check(`f: null`, field("x"), false)
	check(`f: ''`, field(""), true)
	check("f:\n        - null\n        - 'x'", field("x"), true)
	check("f:\n        - null\n        - 'x'", field("y"), false)
	check(`f|exists: true`, field("x"), true)
	check(`f|exists: true`, `{"g":"x"}`, false)
	check(`f|exists: false`, `{"g":"x"}`, true)

	// Regular expressions.
	check(`f|re: '^V.l'`, field("Value"), true)
	check(`f|re: '^V.l'`, field("value"), false)
	check(`f|re|i: '^V.l'`, field("value"), true)
	check(`f|re|s: 'a.b'`, `{"f":"a\nb"}`, true)
	check(`f|re: 'a.b'`, `{"f":"a\nb"}`, false)
	check(`f|re|m: '^b$'`, `{"f":"a\nb\nc"}`, true)
	check(`f|re|i|m: '^B$'`, `{"f":"a\nb\nc"}`, true)

	check("f|cidr: '10.0.0.0/8'", field("10.1.2.3"), true)
	check("f|cidr: '10.0.0.0/8'", field("11.1.2.3"), false)
	check("f|cidr: '2001:db8::/32'", field("2001:db8::1"), true)

	// Encodings: values computed with coreutils' base64 and iconv.
	check(`f|base64|contains: 'http://'`, field("xaHR0cDovLw==x"), true)
	check(`f|base64offset|contains: 'http://'`, field("YWh0dHA6Ly9i"), true)     // ahttp://b
	check(`f|base64offset|contains: 'http://'`, field("YWFodHRwOi8vYg=="), true) // aahttp://b
	check(`f|base64offset|contains: 'http://'`, field("aHR0cDovL2I="), true)     // http://b
	check(`f|base64offset|contains: 'http://'`, field("aHR0cHM6Ly9i"), false)    // https://b
	check(`f|wide|base64|contains: 'cmd'`, field("YwBtAGQA"), true)
	check(`f|utf16le|base64offset|contains: 'cmd'`, field("IGMAbQBkAA=="), true)
	check(`f|utf16be|base64|contains: 'cmd'`, field("AGMAbQBk"), true)
	check(`f|utf16|base64|contains: 'cmd'`, field("//5jAG0AZAA="), true)
	check(`f|windash|contains: ' -s'`, field("cmd /s"), true)
	check(`f|windash|contains: ' -s'`, field("cmd –s"), true)
	check(`f|windash|contains: ' -s'`, field("cmd -t"), false)
	check(`f|contains|windash: '-a -b'`, field("x /a —b"), true)
	check("f|windash|contains|all:\n        - ' -a'\n        - ' -b'", field("x /a -b"), true)
	check("f|windash|contains|all:\n        - ' -a'\n        - ' -b'", field("x /a -c"), false)

	// Numbers.
	check(`f: 5`, `{"f":5}`, true)
	check(`f: 5`, `{"f":"5"}`, true)
	check(`f: 5`, `{"f":50}`, false)
	check(`f: true`, `{"f":true}`, true)
	for _, n := range []struct {
		modifier string
		want     [4]bool // for 9, 100, 399, 1000
	}{{"gte: 100", [4]bool{false, true, true, true}}, {"gt: 100", [4]bool{false, false, true, true}}, {"lt: 399", [4]bool{true, true, false, false}}, {"lte: 399", [4]bool{true, true, true, false}}} {
		for i, value := range []string{"9", "100", "399", "1000"} {
			check("f|"+n.modifier, `{"f":`+value+`}`, n.want[i])
		}
	}
	check(`f|lt: 5`, `{"f":"none"}`, false)
	check(`f|lt: 5`, `{"g":1}`, false)
	check(`f|neq: 'x'`, field("y"), true)
	check(`f|neq: 'x'`, field("X"), false)
	check(`f|fieldref: g`, `{"f":"a","g":"A"}`, true)
	check(`f|fieldref: g`, `{"f":"a","g":"b"}`, false)
	check(`f|fieldref: g`, `{"h":"a"}`, false)
	check(`f|fieldref|startswith: g`, `{"f":"abc","g":"ab"}`, true)
	check(`f|endswith|fieldref: g`, `{"f":"abc","g":"ab"}`, false)
}

// TestNumbersAndAddresses evaluates fields that are numbers and addresses in our events.
func TestNumbersAndAddresses(t *testing.T) {
	event := request("GET", "a.example", "/", "", 404)
	event.Source = &pipeline.Endpoint{Ip: []byte{10, 1, 2, 3}, Port: 5555}
	check := func(item string, want bool) {
		t.Helper()
		if got := matches(t, ruleOf("category: webserver", "selection:\n    "+item+"\ncondition: selection"), event); got != want {
			t.Errorf("%s: got %v", item, got)
		}
	}
	check("sc-status: 404", true)
	check("sc-status: '404'", true)
	check("sc-status:\n        - 403\n        - 404", true)
	check("sc-status: 0", false)
	check("sc-status: '4*'", true)
	check("sc-status|startswith: '40'", true)
	check("sc-status|startswith: 5", false)
	check("sc-status|contains: '404'", true)
	check("sc-status|contains: '0'", true)
	check("sc-status: '4?3'", false)
	check("sc-status|re: '^[45]'", true)
	check("sc-status|re: 40", true)
	check("sc-status|re: '^2..$'", false)
	check("sc-status|gte: 400", true)
	check("sc-status|lt: 400", false)
	check("sc-status|exists: true", true)
	check("sc-bytes|lt: 5", false) // a response of unknown size
	check("c-ip: 10.1.2.3", true)
	check("c-ip: '10.1.*'", true)
	check("c-ip|startswith: '10.2.'", false)
	check("c-ip|cidr: 10.0.0.0/8", true)
	check("c-ip|cidr:\n        - 11.0.0.0/8\n        - 10.1.2.3/32", true)
	check("src_port: 5555", true)
}

// TestZeekNames compares the flags of dns.log, and fields of proxies, by which rules for http.log ask too.
func TestZeekNames(t *testing.T) {
	answer := &pipeline.Event{Dataset: pipeline.Dataset_DNS, Dns: &pipeline.DNSMessage{
		QuestionName: "a.example", ResponseCode: "REFUSED", HeaderFlags: []string{"RD", "AA"},
	}}
	check := func(service, item string, event *pipeline.Event, want bool) {
		t.Helper()
		if got := matches(t, ruleOf("product: zeek, service: "+service, "selection:\n    "+item+"\ncondition: selection"), event); got != want {
			t.Errorf("%s: got %v", item, got)
		}
	}
	check("dns", "rejected: 'true'", answer, true)
	check("dns", "AA: true", answer, true)
	check("dns", "RA: true", answer, false)
	check("dns", "query: a.example\n    TC: false", answer, true)
	answer.Dns.ResponseCode = "NXDOMAIN" // has the SOA record of the zone
	check("dns", "rejected: true", answer, false)
	check("http", "c-useragent|contains: curl", request("GET", "a.example", "/", "curl/8", 200), true)
}

// TestAntivirus reads the lines of ClamAV, and records with the fields of Sigma.
func TestAntivirus(t *testing.T) {
	check := func(item, message string, want bool) {
		t.Helper()
		if got := matches(t, ruleOf("category: antivirus", "selection:\n    "+item+"\ncondition: selection"), logLine(message)); got != want {
			t.Errorf("%s in %s: got %v", item, message, got)
		}
	}
	const line = "Sat Nov 28 10:00:00 2026 -> /var/www/up/a.php: Php.Webshell.C99-1 FOUND"
	check("Signature|startswith: 'PHP.'", line, true)
	check("Signature|startswith: 'Webshell'", line, false)
	check("Signature|contains: webshell", line, true)
	check("Signature|endswith: 'c99-1'", line, true)
	check("Signature: 'Php.Webshell.C99-1'", line, true)
	check("Signature: 'Php.Webshell'", line, false)
	check("Filename|endswith: '.php'", line, true)
	check("Filename|endswith: '.ph'", line, false)
	check("Filename|contains: '/www/'", line, true)
	check("Filename|contains: '/www/'", "/var/www/up/a.php: OK", false)
	check("Signature|startswith: 'Mimikatz'", `{"Signature":"MIMIKATZ!x","Filename":"/tmp/a"}`, true)
	check("Filename|endswith: '/a'", `{"Signature":"MIMIKATZ!x","Filename":"/tmp/a"}`, true)
}

// TestNumbersAreKeywordsAsWholeWords: every line with a time would have the digit 6 in it.
func TestNumbersAreKeywordsAsWholeWords(t *testing.T) {
	check := func(message string, want bool) {
		t.Helper()
		if got := matches(t, ruleOf("product: linux", "selection:\n    - 6\n    - 99\ncondition: selection"), logLine(message)); got != want {
			t.Errorf("%s: got %v", message, got)
		}
	}
	check(`type=EXECVE msg=audit(1600000000.166:46): argc=2 a0="init" a1="6"`, true)
	check(`type=EXECVE msg=audit(1600000000.166:46): argc=2 a0="init" a1="5"`, false)
	check("6", true)
	check("exit 99", true)
	check("a6", false)
}

// TestURLs compares c-uri, which in a proxy's log has the host in it, with requests as they were captured.
func TestURLs(t *testing.T) {
	event := request("GET", "www.evil.example", "/a/b.cab?x=1", "", 200)
	check := func(item string, want bool) {
		t.Helper()
		if got := matches(t, ruleOf("category: proxy", "selection:\n    "+item+"\ncondition: selection"), event); got != want {
			t.Errorf("%s: got %v", item, got)
		}
	}
	check("c-uri|contains: '/a/b'", true)
	check("c-uri|contains: 'evil.example/a/'", true)
	check("c-uri|contains: 'good.example/a/'", false)
	check("c-uri|contains: '://www.evil.example/'", true)
	check("c-uri|contains: '://evil.example/'", false)
	check("c-uri|contains: 'evil.exam'", true)
	check("c-uri|startswith: 'http'", true)
	check("c-uri|startswith: 'https://www.evil'", true)
	check("c-uri|startswith: 'http://evil'", false)
	check("c-uri|startswith: 'ftp://www'", false)
	check("c-uri|endswith: '.cab?x=1'", true)
	check("c-uri|endswith: '.example/a/b.cab?x=1'", true)
	check("c-uri: 'http://www.evil.example/a/b.cab?x=1'", true)
	check("c-uri: 'http://www.evil.example:80/a/b.cab\\?x=1'", true)
	check("c-uri: 'http://www.evil.example/a/b.cab'", false)
	check("c-uri: '*evil.*/b.cab*'", true)
	check("c-uri|re: 'b\\.cab\\?x=[0-9]'", true)
	check("c-uri-extension: 'CAB'", true)
	check("c-uri-extension:\n        - 'exe'\n        - 'dll'", false)
	check("cs-uri-query: 'x=1'", true)
	check("cs-uri-query|contains: '/a/b.cab?x'", true)
	check("cs-uri-query|startswith: '/a/'", true)
	check("cs-host|endswith: '.evil.example'", true)
	check("cs-host: 'evil.example'", false)

	hello := &pipeline.Event{Dataset: pipeline.Dataset_TLS, Tls: &pipeline.TLSHandshake{ServerName: "www.evil.example"}}
	if !matches(t, ruleOf("category: proxy", "s:\n    cs-host|endswith: .evil.example\ncondition: s"), hello) {
		t.Error("the name in a TLS handshake is no host of a proxy")
	}
}

// TestConditions evaluates conditions with every combination of three selections.
func TestConditions(t *testing.T) {
	check := func(condition string, holds func(a, b, c bool) bool) {
		t.Helper()
		rule := ruleOf("product: linux", "sel_a:\n    - 'aaa'\nsel_b:\n    - 'bbb'\n_c:\n    - 'ccc'\ncondition: "+condition)
		for i := range 8 {
			a, b, c := i&1 != 0, i&2 != 0, i&4 != 0
			message := "x"
			for word, present := range map[string]bool{"aaa": a, "bbb": b, "ccc": c} {
				if present {
					message += " " + word
				}
			}
			if got := matches(t, rule, logLine(message)); got != holds(a, b, c) {
				t.Errorf("%s of %q: got %v", condition, message, got)
			}
		}
	}
	check("sel_a", func(a, _, _ bool) bool { return a })
	check("sel_a and sel_b or _c", func(a, b, c bool) bool { return a && b || c })
	check("sel_a and (sel_b or _c)", func(a, b, c bool) bool { return a && (b || c) })
	check("sel_a or sel_b and _c", func(a, b, c bool) bool { return a || b && c })
	check("not sel_a and sel_b", func(a, b, _ bool) bool { return !a && b })
	check("not (sel_a or sel_b) or _c", func(a, b, c bool) bool { return !(a || b) || c })
	check("sel_a and not not sel_b", func(a, b, _ bool) bool { return a && b })
	check("1 of sel_*", func(a, b, _ bool) bool { return a || b })
	check("any of sel_*", func(a, b, _ bool) bool { return a || b })
	check("all of sel_*", func(a, b, _ bool) bool { return a && b })
	check("1 of them", func(a, b, _ bool) bool { return a || b })
	check("all of them and _c", func(a, b, c bool) bool { return a && b && c })
	check("sel_a AND NOT 1 OF sel_b", func(a, b, _ bool) bool { return a && !b })
	check("\n    - sel_a and sel_b\n    - _c", func(a, b, c bool) bool { return a && b || c })
}

// TestRefusals gives each rule that cannot be converted one reason, with line and key.
func TestRefusals(t *testing.T) {
	check := func(text, want string) {
		t.Helper()
		c := convertOne(t, text)
		if c.Err == nil {
			t.Errorf("no error, expected %q:\n%s", want, text)
		} else if !strings.Contains(c.Err.Error(), want) {
			t.Errorf("got %q, expected %q", c.Err, want)
		}
	}
	detect := func(item string) string {
		return ruleOf("category: webserver", "selection:\n    "+item+"\ncondition: selection")
	}
	check("title: [", "a.yml:1")
	check("- a", "expected a Sigma rule")
	check("title: x", "logsource is missing")
	check("title: x\nlogsource: {category: webserver}", "detection is missing")
	check("title: '!'\ndetection: {}\nlogsource: {category: webserver}", "has neither an id nor a title")
	check(ruleOf("product: windows\n    category: process_creation", "s:\n    a: b\ncondition: s"),
		"a.yml:4:5: logsource: there are no events of the log source category process_creation, product windows")
	check(ruleOf("product: zeek\n    service: kerberos", "s:\n    a: b\ncondition: s"), "tidegate does not parse this protocol")
	check(detect("cs-cookie: x"), "a.yml:7:20: detection.selection.cs-cookie: tidegate keeps no cs-cookie")
	check(detect("cs-method|contain: x"), `unknown modifier "contain", did you mean`)
	check(detect("cs-method|expand: '%x%'"), "placeholders")
	check(detect("cs-method|re: '(?<=a)b'"), "look-around")
	check(detect("cs-method|re: '('"), "regular expression")
	check(detect("cs-method|i: 'a'"), "belongs behind re")
	check(detect("cs-method|wide: 'a'"), "belongs in front of base64")
	check(detect("cs-method|base64: 'a*'"), "without wildcards")
	check(detect("cs-method|contains: null"), "needs a text, not null")
	check(detect("cs-method|exists: 'yes'"), "exists takes true or false")
	check(detect("cs-method|gt: 'a'"), "whole number")
	check(detect("cs-method|gt: 1"), "is a text, which has no order")
	check(detect("sc-status: 'abc'"), "is a number")
	check(detect("sc-status|contains: 'x'"), "matches no status code")
	check(detect("cs-bytes|contains: '0'"), "is a number")
	check(detect("c-ip|cidr: '10.0.0.0/33'"), "not a network")
	check(detect("src_ip|endswith: '.1'"), "is an address")
	check(detect("c-ip|endswith: '.1'"), "is an address")
	check(detect("cs-method: []"), "has no value")
	check(detect("cs-method|windash: 'a -b -c -d -e -f'"), "more than 4 dashes")
	check(detect("cs-method: {a: {b: c}}"), "expected a text")
	condition := func(text string) string {
		return ruleOf("category: webserver", "s:\n    cs-method: GET\ncondition: "+text)
	}
	check(condition("t"), `there is no selection "t"`)
	check(condition("s and"), "ends too early")
	check(condition("(s"), "not closed")
	check(condition("s s"), "unexpected")
	check(condition("2 of s*"), "1 of, any of or all of")
	check(condition("1 of x*"), "no selection that")
	check(condition("s*"), "write 1 of")
	check(condition("s | count() > 5"), "correlation")
	check(condition("''"), "is empty")
	check(condition(strings.Repeat("(", 100)+"s"+strings.Repeat(")", 100)), "nested more than")
	check(condition("s\ntimeframe: 5m"), "correlation")
	check("action: global\ntitle: x", "Sigma 1")
	check(strings.Replace(detect("cs-method: GET"), "title: A rule", "title: A rule\nlevel: severe", 1), "unknown level")
	check("", "holds no Sigma rule")
	check("!0", "is no Sigma rule")
	check("# nothing\n", "holds no Sigma rule")
	check(strings.Repeat("a", 2<<20), "the limit for a Sigma file")
}

// TestOneRefusedRuleStopsNoOther converts a file of three documents, of which the second is refused at its
// own line.
func TestOneRefusedRuleStopsNoOther(t *testing.T) {
	good := ruleOf("category: webserver", "s:\n    cs-method: GET\ncondition: s")
	bad := ruleOf("product: windows", "s:\n    cs-method: GET\ncondition: s")
	all := sigma.Convert([]sigma.Source{{Name: "a.yml", Data: []byte("---\n" + good + "---\n" + bad + "---\n" + strings.Replace(good, "1111", "2222", 1))}})
	if len(all) != 3 || all[0].Err != nil || all[1].Err == nil || all[2].Err != nil {
		t.Fatalf("got %+v", all)
	}
	if all[1].Err.Line != 2+8+4 || all[2].Line != 2+8+1+8+1 {
		t.Errorf("the refused rule is at line %d, the one behind it at %d", all[1].Err.Line, all[2].Line)
	}
}

// TestAuthorIsShown keeps the author, the references and the license, and names the author in the alert.
func TestAuthorIsShown(t *testing.T) {
	text := strings.Replace(ruleOf("category: webserver", "s:\n    cs-method: GET\ncondition: s"), "id:",
		"author: 'Ann {Example}, \"Bob\"'\nlicense: DRL 1.1\nreferences:\n    - https://a.example/\nlevel: informational\ntags: [attack.t1190]\nfalsepositives: [a test]\nid:", 1)
	c := convertOne(t, text)
	set, err := rules.Compile(rules.Default(), []rules.Source{{Name: "a.yml", Data: c.Text()}}, nil, nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, c.Text())
	}
	rule := set.Rules()[0]
	if rule.Author != `Ann {Example}, "Bob"` || rule.References[0] != "https://a.example/" || rule.Severity != pipeline.Severity_INFO || rule.Tags[0] != "attack.t1190" {
		t.Errorf("got %+v", rule)
	}
	if !strings.Contains(rule.Description, "License: DRL 1.1") || !strings.Contains(rule.Description, "a test") {
		t.Errorf("got the description %q", rule.Description)
	}
	event := request("GET", "a.example", "/", "", 200)
	set.Evaluate([]*pipeline.Event{event})
	if want := `http.request.method=GET (Sigma rule by Ann {Example}, "Bob")`; event.Verdicts[0].Evidence != want {
		t.Errorf("got the alert %q, want %q", event.Verdicts[0].Evidence, want)
	}
}

// FuzzConvert checks that every file is converted or refused, in linear time, and that what is converted
// compiles or has an error that a person can read.
func FuzzConvert(f *testing.F) {
	f.Add([]byte(ruleOf("category: webserver", "s:\n    cs-method|contains|windash: ' -a'\n    c-uri|re|i: 'a.*b'\nk:\n    - 'x*y'\n    - 5\ncondition: s and not 1 of k*")))
	f.Add([]byte(ruleOf("product: linux\n    service: auditd", "s:\n    a0|base64offset|contains: 'http'\n    a1: null\ncondition: all of them")))
	f.Add([]byte(ruleOf("category: proxy", "s:\n    c-uri|startswith: 'http://a/b'\n    c-ip|cidr: 10.0.0.0/8\ncondition: s")))
	f.Fuzz(func(t *testing.T, data []byte) {
		lineartest.CheckRepeated(t, lineartest.Default, data, func(data []byte) {
			for _, c := range sigma.Convert([]sigma.Source{{Name: "f", Data: data}}) {
				if c.Err != nil {
					if c.Err.Error() == "" {
						t.Error("an error without a text")
					}
					continue
				}
				set, err := rules.Compile(rules.Default(), []rules.Source{{Name: "f", Data: c.Text()}}, nil, nil)
				if err != nil {
					continue
				}
				for _, result := range set.Test() {
					_ = result
				}
			}
		})
	})
}
