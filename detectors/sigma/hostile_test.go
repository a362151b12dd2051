package sigma_test

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf16"

	"tidegate/detectors/rules"
	"tidegate/detectors/sigma"
	"tidegate/pipeline"
)

// numbered returns a list of YAML with texts of which each has a number in it.
func numbered(count int, format string) string {
	var out strings.Builder
	for i := range count {
		fmt.Fprintf(&out, "\n        - '"+format+"'", i)
	}
	return out.String()
}

// TestHostileRulesAreRefused at their place, before they cost anything: each of these took seconds or
// gigabytes.
func TestHostileRulesAreRefused(t *testing.T) {
	check := func(detection, want string) {
		t.Helper()
		c := convertOne(t, ruleOf("category: webserver", detection))
		if c.Err == nil || !strings.HasPrefix(c.Err.Error(), want) {
			t.Errorf("got %.300v, expected %q", c.Err, want)
		}
	}
	check("s:\n    cs-method|re:"+numbered(200, strings.Repeat(`\pL{1000}`, 99)+"%d")+"\ncondition: s",
		"a.yml:8:13: detection.s.cs-method|re: regular expression: its repetitions")
	check("s:\n    cs-method|re: '"+strings.Repeat("a", 2000)+"'\ncondition: s", "a.yml:7:23: detection.s.cs-method|re: regular expression of 2000 bytes")
	check("s:\n    cs-method|re:"+numbered(5000, "a.*b%d")+"\ncondition: s"+strings.Repeat(" and s", 900),
		"a.yml:5008:16: detection.condition: has regular expressions that are too large together")
	check("s:\n    cs-method:"+numbered(5000, "a%d")+"\ncondition: s"+strings.Repeat(" and s", 900),
		"a.yml:5008:16: detection.condition: becomes a comparison with more than 20000 values")
	check("s:\n    cs-method|contains:"+numbered(4000, "a*b?c*%d")+"\ncondition: s",
		"a.yml:8:13: detection.s.cs-method|contains: the rule becomes an expression of more than 131072 bytes")
	check("s:\n    cs-method"+strings.Repeat("|wide", 20)+"|base64: aaaa\ncondition: s", "a.yml:7:127: detection.s.cs-method"+strings.Repeat("|wide", 20)+"|base64: has 21 modifiers")
	check("s:\n    cs-method"+strings.Repeat("|wide", 9)+"|base64: "+strings.Repeat("a", 100)+"\ncondition: s",
		"a.yml:7:72: detection.s.cs-method"+strings.Repeat("|wide", 9)+"|base64: the modifier wide makes texts of more than 4096 bytes")
	check("s:\n    c-ip|cidr: 'fe80::1%eth0/64'\ncondition: s", `a.yml:7:20: detection.s.c-ip|cidr: "fe80::1%eth0/64" is not a network`)
	check("s: &s {cs-method: a}\nk: *s\ncondition: s", "a.yml:1:1: aliases of YAML are not supported")
}

// TestHostileCorrelationsAreRefused: a rule that is named many times would be written out as often.
func TestHostileCorrelationsAreRefused(t *testing.T) {
	c, _ := convertCorrelation(t, "type: event_count\nrules: ["+strings.Repeat("failed, ", 2000)+"failed]\ntimespan: 5m\ncondition: {gte: 2}")
	if want := "a.yml:22:12: correlation.rules: names 2001 rules, the limit is 50"; c.Err == nil || c.Err.Error() != want {
		t.Errorf("got %.200v, expected %s", c.Err, want)
	}
}

// TestEncodings reads the byte order marks and line ends of editors, and the marks of YAML between documents.
func TestEncodings(t *testing.T) {
	good := ruleOf("category: webserver", "s:\n    cs-method: GÜT\ncondition: s")
	other := strings.Replace(good, "1111", "2222", 1)
	utf16Text := func(text string, low, high int) string {
		var out []byte
		for _, unit := range utf16.Encode([]rune("\ufeff" + text)) {
			pair := [2]byte{}
			pair[low], pair[high] = byte(unit), byte(unit>>8)
			out = append(out, pair[:]...)
		}
		return string(out)
	}
	check := func(name, text string, count int) {
		t.Helper()
		all := sigma.Convert([]sigma.Source{{Name: "a.yml", Data: []byte(text)}})
		if len(all) != count {
			t.Errorf("%s: %d rules, want %d", name, len(all), count)
		}
		for _, c := range all {
			if c.Err != nil || !strings.Contains(string(c.Text()), `"gÜt"`) {
				t.Errorf("%s: %v\n%s", name, c.Err, c.Text())
			}
		}
	}
	check("UTF-8 with a mark", "\ufeff"+good, 1)
	check("UTF-16, low byte first", utf16Text(good, 0, 1), 1)
	check("UTF-16, high byte first", utf16Text(good, 1, 0), 1)
	check("lines of Windows", strings.ReplaceAll(good+"---\n"+other, "\n", "\r\n"), 2)
	check("a comment behind the mark", good+"--- # the next one\n"+other, 2)
	check("a directive", "%YAML 1.2\n---\n"+good, 1)
	for name, text := range map[string]string{"Latin-1": strings.Replace(good, "A rule", "R\xe8gle", 1), "UTF-16 without a mark": utf16Text(good, 0, 1)[2:]} {
		all := sigma.Convert([]sigma.Source{{Name: "a.yml", Data: []byte(text)}})
		if len(all) != 1 || all[0].Err == nil || !strings.HasPrefix(all[0].Err.Error(), "a.yml") {
			t.Errorf("%s: %+v", name, all)
		}
	}
}

// TestNetworksOfMappedAddresses are those of IPv4.
func TestNetworksOfMappedAddresses(t *testing.T) {
	event := request("GET", "a.example", "/", "", 200)
	for network, want := range map[string]bool{"::ffff:10.0.0.0/104": true, "::ffff:11.0.0.0/104": false} {
		for i, address := range [][]byte{{10, 1, 2, 3}} {
			event.Source = &pipeline.Endpoint{Ip: address}
			if got := matches(t, ruleOf("category: webserver", "s:\n    c-ip|cidr: '"+network+"'\ncondition: s"), event); got != want {
				t.Errorf("%s, address %d: got %v", network, i, got)
			}
		}
	}
}

// TestJoinedRulesMatchAlike: `rules convert sigma` prints one file with all rules; they compile there, with
// their lists, to rules with the same conditions and cases as each alone. Ids may be alike but for their
// punctuation.
func TestJoinedRulesMatchAlike(t *testing.T) {
	sources := sharedFiles(t)
	for i, id := range []string{"a-rule-with-a-long-name-that-goes-on-and-on-1", "a-rule-with-a-long-name-that-goes-on-and-on-2", "a-b", "ab"} {
		text := strings.Replace(ruleOf("category: webserver", "s:\n    cs-method:"+numbered(20, fmt.Sprintf("list%d-%%d", i))+"\ncondition: s"), "11111111-2222-3333-4444-555555555555", id, 1)
		sources = append(sources, sigma.Source{Name: id + ".yml", Data: []byte(text)})
	}
	for i, body := range []string{
		"type: event_count\nrules: [failed]\ngroup-by: [c-ip]\ntimespan: 5m\ncondition: {gte: 10}",
		"type: value_avg\nrules: [failed]\ngroup-by: [c-ip]\ntimespan: 5m\ncondition: {field: sc-bytes, gt: 500}",
		"type: temporal\nrules:\n    - failed\n    - 00000000-0000-0000-0000-000000000002\ngroup-by: [c-ip]\ntimespan: 10m\ngenerate: true",
	} {
		text := correlated + "    " + strings.ReplaceAll(body, "\n", "\n    ") + "\n"
		text = strings.ReplaceAll(strings.ReplaceAll(text, "00000000-0000", fmt.Sprintf("%08d-0000", i)), "failed", fmt.Sprintf("failed%d", i))
		sources = append(sources, sigma.Source{Name: fmt.Sprintf("correlation%d.yml", i), Data: []byte(text)})
	}
	loaded, _ := rules.ConvertSigma(sources)
	cfg := rules.Default()
	joined, err := rules.Compile(cfg, []rules.Source{{Name: "joined.yaml", Data: sigma.Join(loaded)}}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	var parts []rules.Source
	for _, c := range loaded {
		parts = append(parts, rules.Source{Name: c.File, Data: c.Text()})
	}
	alone, err := rules.Compile(cfg, parts, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	hashes := map[string]string{}
	for _, rule := range alone.Rules() {
		hashes[rule.ID] = rule.Hash
	}
	for _, rule := range joined.Rules() {
		if hashes[rule.ID] != rule.Hash {
			t.Errorf("%s is another rule in the joined file", rule.ID)
		}
	}
	passed := 0
	for _, result := range joined.Test() {
		if !result.Passed {
			t.Errorf("%+v", result)
		}
		passed++
	}
	if len(joined.Rules()) != len(alone.Rules()) || passed < 2*len(loaded) {
		t.Errorf("%d rules joined, %d alone; %d cases", len(joined.Rules()), len(alone.Rules()), passed)
	}
}
