package rules

import (
	"strings"
	"testing"
)

// TestMessagesOfTheCompilerSayWhatToWrite: the frequent mistakes of authors, with what their errors must contain.
func TestMessagesOfTheCompilerSayWhatToWrite(t *testing.T) {
	for when, want := range map[string]string{
		`http.status_code == 200`:                                    `unknown field "http.status_code", did you mean "http.response.status_code"?`,
		`url.path LIKE "%admin%"`:                                    `LIKE is not an operator: use contains, glob(url.path, "*admin*") or matches`,
		`url.path = "/x"`:                                            `= is not an operator: compare with ==`,
		`message icontains "error"`:                                  `use lower(message) contains "error"`,
		`url.path matches "^/admin(?!/login)"`:                       `look-ahead and look-behind are not in RE2: write matches "^/admin" and not (`,
		`url.path matches "\.php$"`:                                  `write \\. for \., or put the text between backquotes`,
		`container.labels["tier"] == "db"`:                           `labels are read by label("tier")`,
		`@ > 1`:                                                      `the time of an event is @timestamp`,
		`event.duration > 5parsecs`:                                  `a duration has the unit ns, us, ms, s, m, h or d, as in 5s, a size KiB, MiB or GiB`,
		`user.name == null`:                                          `an absent text is "", an absent number 0; has(user.name)`,
		`(url.path == "/x" and url.query == ""`:                      `a closing ) is missing`,
		`source.ip startsWith "172.18."`:                             `use cidr(source.ip, "172.18.0.0/16")`,
		`mysql.query contains "x" and redis.command == "GET"`:        `can never be true: it needs an event of mysql and of redis at once`,
		`timestamp in ["2026-11-27"]`:                                `compare it with >= and <`,
		`timestamp contains "2026"`:                                  `compare it with >= and <`,
		`url.path == "/x" && NOT (url.query == "y")`:                 `write not in lower case`,
		`url.path matches "(?i)admin(?<=x)"`:                         `look-ahead and look-behind`,
		`len(source.ip) > 3`:                                         `source.ip is an address`,
		"message contains 'it\\'s' and url.path == \"/x\" or x == 1": `unknown field "x"`,
	} {
		_, err := compileText(t, ruleYAML("r", when))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n got %v\nwant %s", when, err, want)
		}
	}

	// A key of another rule language, and a case that fails.
	_, err := compileText(t, ruleYAML("r", `url.path == "/x"`)+"  threshold: 5\n")
	if err == nil || !strings.Contains(err.Error(), "t.yaml:5:3: r: threshold: unknown key: write count") {
		t.Error(err)
	}
	set, err := compileText(t, ruleYAML("r", `dns.question.name endsWith ".duckdns.org"`)+
		"  tests:\n  - {event: {dns.question.name: a.duckdns.org}, fires: true}\n  - {event: {dns.question.name: b.duckdns.org}, fires: false}\n")
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	_, _ = RunTests(&out, set, false)
	want := `FAIL t.yaml:7: r: case 2: expected no match, but the rule matched: dns.question.name endsWith ".duckdns.org" is true`
	if !strings.Contains(out.String(), want) {
		t.Errorf("got %s\nwant %s", out.String(), want)
	}
}
