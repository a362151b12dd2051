package rules

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"tidegate/detectors/feeds"
	"tidegate/pipeline"
	"tidegate/pipeline/embedded/embeddedtest"
	"tidegate/pipeline/lineartest"
)

// TestBase64IsDecoded: the vectors of RFC 4648, section 10, without padding and in the alphabet of URLs too, and texts that
// encode nothing.
func TestBase64IsDecoded(t *testing.T) {
	check := func(text, want string) {
		t.Helper()
		var buf []byte
		if got := decodeBase64(&buf, text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	for text, want := range map[string]string{
		"": "", "Zg==": "f", "Zm8=": "fo", "Zm9v": "foo", "Zm9vYg==": "foob", "Zm9vYmE=": "fooba", "Zm9vYmFy": "foobar",
	} {
		check(text, want)
		check(strings.TrimRight(text, "="), want)
	}
	check("Zm9v\r\nYmFy\n", "foobar")
	check("Zg=\n=\n", "f")
	check("/+8=", "\xff\xef")
	check("_-8", "\xff\xef")
	for _, text := range []string{"Z", "Zm9vY", "Zg===", "Zg==Zg==", "=", "====", "Zm 9v", "Zm9v!", "Zm9v\x00", "é", "/etc/passwd\xff"} {
		check(text, "")
	}

	random := rand.New(rand.NewPCG(1, 1))
	for range 500 {
		data := make([]byte, random.IntN(40))
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
			check(encoding.EncodeToString(data), string(data))
		}
	}
}

// TestEntropyIsShannons: in bits per byte.
func TestEntropyIsShannons(t *testing.T) {
	check := func(text string, want float64) {
		t.Helper()
		if got := entropy(text); math.Abs(got-want) > 1e-9 || math.Signbit(got) {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
	var all strings.Builder
	for c := range 256 {
		all.WriteByte(byte(c))
	}
	check("", 0)
	check("aaaa", 0)
	check("ab", 1)
	check("aabb", 1)
	check("abcd", 2)
	check("aaab", 0.75*math.Log2(4.0/3)+0.25*2)
	check(all.String(), 8)
}

// TestLevenshteinIsTheLeastNumberOfEdits, compared with the table that defines it.
func TestLevenshteinIsTheLeastNumberOfEdits(t *testing.T) {
	naive := func(a, b string) int64 {
		row := make([]int64, len(b)+1)
		for j := range row {
			row[j] = int64(j)
		}
		for i := range len(a) {
			diagonal := row[0]
			row[0] = int64(i) + 1
			for j := range len(b) {
				cost := int64(1)
				if a[i] == b[j] {
					cost = 0
				}
				diagonal, row[j+1] = row[j+1], min(row[j]+1, row[j+1]+1, diagonal+cost)
			}
		}
		return row[len(b)]
	}
	check := func(a, b string, want int64) {
		t.Helper()
		if got := levenshtein(a, b); got != want {
			t.Errorf("%q and %q: %d, want %d", a, b, got, want)
		}
	}
	check("kitten", "sitting", 3)
	check("paypal.com", "paypa1.com", 1)
	check("", "abc", 3)
	check("same", "same", 0)
	check(strings.Repeat("same", 30), strings.Repeat("same", 30), 0)
	random := rand.New(rand.NewPCG(2, 2))
	word := func(most int) string {
		out := make([]byte, random.IntN(most+1))
		for i := range out {
			out[i] = "abc\xff"[random.IntN(4)]
		}
		return string(out)
	}
	for range 2000 {
		a, b := word(maxPattern), word(200)
		check(a, b, naive(a, b))
		check(b, a, naive(a, b))
	}
	long := strings.Repeat("a", maxPattern+1)
	check(long, long+"b", maxPattern+2)
	check(long[1:], long, 1)
}

// TestRegisteredDomainsOfHosts: names in any case, with a port or a dot behind them; an address has none.
func TestRegisteredDomainsOfHosts(t *testing.T) {
	for text, want := range map[string]string{
		"www.Example.co.uk": "example.co.uk", "a.b.example.com.": "example.com", "example.com:8443": "example.com", "com": "", "": "", ".": "",
		"c2.duckdns.org": "c2.duckdns.org", "10.0.0.1": "", "[2001:db8::1]:80": "", "10.0.0.1:80": "", strings.Repeat("a.", 600) + "com": "",
	} {
		var buf []byte
		if got := registeredDomain(&buf, text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// TestPartsOfUserAgents: of a browser, a telephone, a search engine and a program.
func TestPartsOfUserAgents(t *testing.T) {
	check := func(agent, part, want string) {
		t.Helper()
		get, err := userAgentPart(part)
		if err != nil {
			t.Fatal(err)
		}
		if got := get(nil, agent); got != want {
			t.Errorf("%s of %q: %q, want %q", part, agent, got, want)
		}
	}
	const firefox = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:121.0) Gecko/20100101 Firefox/121.0"
	check(firefox, "name", "Firefox")
	check(firefox, "version", "121.0")
	check(firefox, "os", "Windows")
	check(firefox, "os_version", "10.0")
	check(firefox, "type", "desktop")
	const phone = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_2 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.2 Mobile/15E148 Safari/604.1"
	check(phone, "name", "Safari")
	check(phone, "device", "iPhone")
	check(phone, "os_version", "17.2")
	check(phone, "type", "mobile")
	check("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "type", "bot")
	check("curl/8.5.0", "name", "curl")
	check("curl/8.5.0", "version", "8.5.0")
	for _, part := range []string{"name", "version", "os", "os_version", "device", "type"} {
		check("", part, "")
	}
}

// TestJSONPaths: each form of a step, values of all kinds, escapes, and texts that are no JSON.
func TestJSONPaths(t *testing.T) {
	check := func(text, written, want string) {
		t.Helper()
		path, err := parseJSONPath(written)
		if err != nil {
			t.Fatal(err)
		}
		var buf []byte
		if got := path.find(&buf, text); got != want {
			t.Errorf("%s of %s: %q, want %q", written, text, got, want)
		}
	}
	const document = ` { "a" : {"b": [10, {"c": "x\ty"}, [true]]}, "a b": "q", "n": null, "e.f": 1.5e3, "": "empty", "o": {} , "l":[] } `
	check(document, "$.a.b[0]", "10")
	check(document, "$.a.b[1].c", "x\ty")
	check(document, "$.a.b[2][0]", "true")
	check(document, "$.a.b[2]", "[true]")
	check(document, "$.a.b[3]", "")
	check(document, "$['a b']", "q")
	check(document, `$["e.f"]`, "1.5e3")
	check(document, "$.n", "")
	check(document, "$['']", "empty")
	check(document, "$.o", "{}")
	check(document, "$.o.x", "")
	check(document, "$.l[0]", "")
	check(document, "$.a[0]", "")
	check(document, "$[0]", "")
	check(`["x", "y"]`, "$[1]", "y")
	check(`{"a":1,"a":2}`, "$.a", "2")
	check(`{"\u0061dmin":"\u00e9\ud83d\ude00\"\\"}`, "$.admin", "é😀\"\\")
	check(`{"a":"x"`, "$.a", "x")
	check(`{"a":"x`, "$.a", "")
	for _, text := range []string{"", "x", `"a"`, "{", "[", "{]", "[}", `{"a"`, `{"a":`, `{"a":}`, `{a:1}`, `{'a':1}`, `null`, `{"a" 1}`, "{,", "[,"} {
		check(text, "$.a", "")
		check(text, "$[0]", "")
	}
	for _, wrong := range []string{
		"", "a", "$", "$a", "$.", "$..a", "$.a.", "$.*", "$[*]", "$[-1]", "$[+1]", "$[1", "$[a]", "$['a]", `$['a\'b']`, "$[]", "$.a]", "$[1:2]", "$.a[?(@.b)]",
		"$" + strings.Repeat(".a", maxPathSteps+1), "$." + strings.Repeat("a", maxPathBytes), "$[99999999999999999999]",
	} {
		if path, err := parseJSONPath(wrong); err == nil {
			t.Errorf("%q is taken for %v", wrong, path)
		}
	}
}

// TestJSONPathsFindWhatTheLibraryFinds, in random documents.
func TestJSONPathsFindWhatTheLibraryFinds(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 3))
	names := []string{"a", "b", "a b", "é\n", `q"\`}
	var value func(depth int) any
	value = func(depth int) any {
		switch kind := random.IntN(7); {
		case kind == 0 && depth > 0:
			list := []any{}
			for range random.IntN(4) {
				list = append(list, value(depth-1))
			}
			return list
		case kind <= 3 && depth > 0:
			object := map[string]any{}
			for range random.IntN(4) {
				object[names[random.IntN(len(names))]] = value(depth - 1)
			}
			return object
		case kind == 4:
			return names[random.IntN(len(names))]
		case kind == 5:
			return nil
		}
		return random.IntN(1000)
	}
	found := 0
	for range 3000 {
		document := value(4)
		text, err := json.MarshalIndent(document, "", []string{"", " ", "\t"}[random.IntN(3)])
		if err != nil {
			t.Fatal(err)
		}
		var path jsonPath
		at, ok := document, true
		for range 1 + random.IntN(4) {
			step := jsonStep{name: names[random.IntN(len(names))], index: random.IntN(3), isIndex: random.IntN(3) == 0}
			path = append(path, step)
			object, isObject := at.(map[string]any)
			list, isList := at.([]any)
			switch {
			case !ok:
			case isObject && !step.isIndex:
				at, ok = object[step.name], object[step.name] != nil
			case isList && step.isIndex && step.index < len(list):
				at = list[step.index]
			default:
				ok = false
			}
		}
		var want string
		if written, isText := at.(string); ok && isText {
			want = written
		} else if ok && at != nil {
			found++
			var compact bytes.Buffer
			wanted, _ := json.Marshal(at)
			_ = json.Compact(&compact, wanted)
			want = compact.String()
		}
		var buf []byte
		got := path.find(&buf, string(text))
		if ok && at != nil && want != got { // an object is found as it is written
			var again any
			if json.Unmarshal([]byte(got), &again) == nil {
				compact, _ := json.Marshal(again)
				got = string(compact)
			}
		}
		if got != want {
			t.Errorf("%+v of %s: %q, want %q", path, text, got, want)
		}
	}
	t.Logf("%d values that are no texts", found)
}

// TestFunctionsInRules: of a field, of another function and of an element of a list; those that compare a part of a field with a constant
// have an index key, and all are evaluated only for datasets with their fields.
func TestFunctionsInRules(t *testing.T) {
	check := func(when string, indexed bool, event *pipeline.Event, want bool) {
		t.Helper()
		set, err := compileText(t, ruleYAML("r", when))
		if err != nil {
			t.Error(err)
			return
		}
		rule := set.Rules()[0]
		if rule.Indexed != indexed || len(rule.Datasets) != 1 {
			t.Errorf("%s: indexed %t, datasets %q", when, rule.Indexed, rule.Datasets)
		}
		if set.Evaluate([]*pipeline.Event{event}); (len(event.Verdicts) > 0) != want {
			t.Errorf("%s: matches %t, want %t", when, !want, want)
		}
	}
	http := func(query string) *pipeline.Event {
		return &pipeline.Event{Dataset: pipeline.Dataset_HTTP, Http: &pipeline.HTTPExchange{UrlQuery: query, XForwardedFor: []string{query}}}
	}
	check(`base64(url.query) contains "/etc/passwd"`, true, http("Y2F0IC9ldGMvcGFzc3dk"), true)
	check(`base64(unescape(url.query)) == "f"`, true, http("Zg%3D%3D"), true)
	check(`base64(base64(url.query)) == "f"`, true, http("Wmc9PQ"), true)
	check(`base64(trim(url.query)) == "f" and has(url.query)`, false, http(" Zg "), true)
	check(`any(http.request.x_forwarded_for, registered_domain(#) == "example.com")`, false, http("a.example.com"), true)
	check(`entropy(url.query) >= 2`, false, http("abcd"), true)
	check(`entropy(url.query) > 2.0`, false, http("abcd"), false)
	check(`number(url.query) > 500`, false, http(" 503.5 "), true)
	check(`number(url.query) > 500`, false, http("none"), false)
	check(`not (number(url.query) > 500) and has(url.query)`, false, http("none"), true)
	check(`number(url.query) in [500, 503]`, false, http("5.03e2"), true)
	check(`number(url.query) not in [500, 503] and has(url.query)`, false, http("503"), false)
	check(`number(url.query) * 2 > source.port and has(url.query)`, false, http("1"), true)
	check(`any(http.request.x_forwarded_for, number(#) == -7)`, false, http("-7"), true)
	check(`number(json(message, "$.status")) >= 500`, false,
		&pipeline.Event{Dataset: pipeline.Dataset_LOG, Log: &pipeline.LogLine{Message: `{"status":503}`}}, true)
	check(`number(value(message, "ms")) > 1000.5`, false,
		&pipeline.Event{Dataset: pipeline.Dataset_LOG, Log: &pipeline.LogLine{Message: `path=/ ms="1200"`}}, true)
	check(`levenshtein(url.query, "paypal.com") in [1, 2]`, false, http("paypa1.com"), true)
	check(`levenshtein(registered_domain(url.query), "paypal.com") <= 1`, false, http("www.paypa1.com"), true)
	check(`levenshtein(url.query, "paypal.com") <= 1`, false, http("example.com"), false)
	check(`user_agent(user_agent.original, "name") == "curl"`, true,
		&pipeline.Event{Dataset: pipeline.Dataset_HTTP, Http: &pipeline.HTTPExchange{UserAgent: "curl/8.5.0"}}, true)
	check(`json(message, "$.user.name") == "root"`, true,
		&pipeline.Event{Dataset: pipeline.Dataset_LOG, Log: &pipeline.LogLine{Message: `{"user":{"name":"root"}}`}}, true)

	for when, want := range map[string]string{
		`base64() == "a"`:                    "base64 takes one text",
		`base64(source.port) == "a"`:         "base64 takes a text, source.port is a number",
		`entropy(url.path) == "a"`:           "== cannot combine",
		`json(message) == "a"`:               `json takes a text and a constant between quotes: json(message, "$.user.name")`,
		`json(message, url.path) == "a"`:     `json takes a text and a constant between quotes`,
		`json(message, "a") == "a"`:          `"a" is not a path in JSON`,
		`user_agent(message, "nme") == "a"`:  `user_agent: "nme" is not one of name, version, os, os_version, device, type, did you mean "name"?`,
		`levenshtein(url.path) == 1`:         "levenshtein takes two texts",
		`levenshtein(url.path, 1) == 1`:      "levenshtein takes two texts, 1 is a number",
		`registered_domain(source.ip) == ""`: "registered_domain takes a text, source.ip is an address",

		`json(message, "$.a") > 500`:         `> cannot combine json(message, "$.a") (text) with 500 (a number): write number(json(message, "$.a")) > 500`,
		`value(message, "a") == 500`:         `: write number(value(message, "a")) == 500`,
		`500 <= value(message, "a")`:         `: write 500 <= number(value(message, "a"))`,
		`value(message, "a") > source.port`:  `: write number(value(message, "a")) > source.port`,
		`json(message, "$.a") in [500, 503]`: `in: compared with a number, but json(message, "$.a") is text: write number(json(message, "$.a"))`,
		`json(message, "$.a") > "500"`:       `> compares texts by their letters, and "1000" comes before "5": write number(json(message, "$.a")) > 500`,
		`" 5" < value(message, "a")`:         `write 5 < number(value(message, "a"))`,
		`user.name > 500`:                    `: write number(user.name) > 500`,
		`user.name == 500`:                   `: write texts between quotes`,
		`number(source.port) > 5`:            `number takes a text, source.port is a number`,
		`number(message) == "5"`:             `(a decimal number) with "5" (text): write numbers without quotes`,
	} {
		if got := errorOf(t, ruleYAML("r", when)); !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %s", when, got, want)
		}
	}
}

// TestStoreQueriesOfFunctionsFindTheirMatches: below not, or and beside what has SQL.
func TestStoreQueriesOfFunctionsFindTheirMatches(t *testing.T) {
	store := embeddedtest.Store(t, "storefunctions", "native")
	var text strings.Builder
	for i, part := range []string{
		`base64(url.query) contains "passwd"`, `entropy(url.query) > 2`, `levenshtein(url.query, "abcd") <= 1`, `registered_domain(url.query) == "example.com"`,
		`user_agent(url.query, "name") == "curl"`, `json(url.query, "$.a") == "b"`,
		`number(url.query) > 20`, `number(url.query) != 30`, `number(url.query) in [30, 40]`,
		`feed("list", url.query)`, `feed("list", lower(url.query))`, `feed("list", url.query + "")`, `model("generated-domains") > 0.5`,
	} {
		for j, form := range []string{"%s", "not (%s) and url.path != \"\"", "(%s) or url.path == \"/b\"", "url.path == \"/a\" and not (%s)", "(%s) == (url.path == \"/a\")"} {
			text.WriteString(ruleYAML(fmt.Sprintf("r%d%d", i, j), fmt.Sprintf(form, part)))
		}
	}
	set, err := compileText(t, text.String())
	if err != nil {
		t.Fatal(err)
	}
	list, err := feeds.Of(map[string][]string{"list": {"example.com"}}, []string{"list"})
	if err != nil {
		t.Fatal(err)
	}
	set = set.WithFeeds(list)
	var events []*pipeline.Event
	for i, query := range []string{"", "Y2F0IC9ldGMvcGFzc3dk", "abcd", "abce", "xyz", "a.example.com", "curl/8.5.0", `{"a":"b"}`, "30", "4e1"} {
		for j, path := range []string{"", "/a", "/b"} {
			id := binary.BigEndian.AppendUint64(make([]byte, 8), uint64(10*i+j+1))
			events = append(events, &pipeline.Event{Id: id, Dataset: pipeline.Dataset_HTTP, Http: &pipeline.HTTPExchange{UrlQuery: query, UrlPath: path}})
		}
	}
	if exact := checkStoreQueries(t, store, "functions", set, events); exact != 0 {
		t.Errorf("%d exact queries: the store has none of these functions with the same results", exact)
	}
}

// TestFunctionsAreLinear: each on texts that are worst for it.
func TestFunctionsAreLinear(t *testing.T) {
	path, err := parseJSONPath("$" + strings.Repeat(".a", maxPathSteps))
	if err != nil {
		t.Fatal(err)
	}
	agent, err := userAgentPart("type")
	if err != nil {
		t.Fatal(err)
	}
	for _, unit := range []string{
		`{"a":`, "[", `{"\u0061":1,"a":`, `"\`, `{"a":1,`, "Zg", "Zg\n", "=", "a.", ".", "(;", "a/1 ", "Android;", "http://", "OS_1", "\xff", "9", "0.", "1e", " ",
	} {
		lineartest.CheckRepeated(t, lineartest.Default, unit, func(text string) {
			var buf []byte
			path.find(&buf, text)
			decodeBase64(&buf, text)
			registeredDomain(&buf, text)
			entropy(text)
			parseDecimal(text)
			levenshtein(text, "example.com")
			levenshtein(text, text)
			agent(&buf, text)
		})
	}
}

// FuzzFunctions checks that no text breaks a function, and that each is linear.
func FuzzFunctions(f *testing.F) {
	f.Add(`{"a":[{"b":"\u0041"}]}`, "$.a[0].b")
	f.Add("Zm9v\nYg==", "$['a b']")
	f.Add(" -12.50e3", "$.a")
	f.Add("Mozilla/5.0 (Linux; Android 13; SM-G900 Build/1) Chrome/1 Safari/2", "$[0]")
	f.Fuzz(func(t *testing.T, text, written string) {
		lineartest.CheckRepeated(t, lineartest.Default, text, func(text string) {
			var buf []byte
			if path, err := parseJSONPath(written); err == nil {
				path.find(&buf, text)
			}
			decodeBase64(&buf, text)
			registeredDomain(&buf, text)
			if got := entropy(text); got < 0 || got > 8.000001 {
				t.Errorf("entropy %v", got)
			}
			if got := parseDecimal(text); !math.IsNaN(got) && strings.Trim(strings.TrimSpace(text), "0123456789.+-eE") != "" {
				t.Errorf("%q is the number %v", text, got)
			}
			if got := levenshtein(text, written); got < 0 || got > int64(max(len(text), len(written))) {
				t.Errorf("distance %d", got)
			}
			for _, part := range []string{"name", "type"} {
				get, _ := userAgentPart(part)
				get(&buf, text)
			}
		})
	})
}
