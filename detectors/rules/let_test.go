package rules

import (
	"encoding/binary"
	"math/rand/v2"
	"strings"
	"testing"

	"tidegate/pipeline"
	"tidegate/pipeline/correlate"
	"tidegate/pipeline/embedded/embeddedtest"
)

// logEvent returns an event of a log line.
func logEvent(message string) *pipeline.Event {
	return &pipeline.Event{Dataset: pipeline.Dataset_LOG, Log: &pipeline.LogLine{Message: message}, Id: make([]byte, 16)}
}

const letRule = `
rules:
  - id: r
    title: t
    severity: low
    let:
      user: 'json(message, "$.user")'
      who: 'lower(user)'
      status: 'number(json(message, "$.status"))'
      outside: 'not cidr(source.ip, "10.0.0.0/8")'
      size: len(message)
      ip: source.ip
    when: who startsWith "r" and status >= 500
    group: [who, status, ip, outside, size]
    alert: "{user} ({who}) got {status} from {ip}"
`

// TestValuesOfLet are those of their expressions, in conditions, groups and alerts.
func TestValuesOfLet(t *testing.T) {
	set, err := compileText(t, letRule)
	if err != nil {
		t.Fatal(err)
	}
	check := func(message, group, text string) {
		t.Helper()
		event := logEvent(message)
		event.Source = &pipeline.Endpoint{Ip: []byte{192, 0, 2, 1}}
		set.Evaluate([]*pipeline.Event{event})
		switch {
		case len(event.Verdicts) == 0:
			if group != "" {
				t.Errorf("%s: no match", message)
			}
		case event.Verdicts[0].Group != group || event.Verdicts[0].Evidence != text:
			t.Errorf("%s: %q %q", message, event.Verdicts[0].Group, event.Verdicts[0].Evidence)
		}
	}
	check(`{"user":"Root","status":503}`, "who=root status=503 ip=192.0.2.1 outside=true size=28", "Root (root) got 503 from 192.0.2.1")
	check(`{"user":"r b","status":5e2}`, `who="r b" status=500 ip=192.0.2.1 outside=true size=27`, "r b (r b) got 500 from 192.0.2.1")
	check(`{"user":"r\u001b[0m","status":500.5}`, `who="r\x1b[0m" status=500.5 ip=192.0.2.1 outside=true size=36`, `r\u001b[0m (r\u001b[0m) got 500.5 from 192.0.2.1`)
	check(`{"user":"Root","status":404}`, "", "")
	check(`{"user":"adam","status":500}`, "", "")

	// A long value is cut as that of a field, and two long ones stay apart.
	groups := map[string]bool{}
	for _, last := range []string{"a", "b"} {
		event := logEvent(`{"user":"r` + strings.Repeat("x", 5000) + last + `","status":500}`)
		set.Evaluate([]*pipeline.Event{event})
		groups[event.Verdicts[0].Group] = true
		if verdict := event.Verdicts[0]; len(verdict.Group) > maxGroupBytes || len(verdict.Evidence) > maxEvidence {
			t.Errorf("%d %d", len(verdict.Group), len(verdict.Evidence))
		}
	}
	if len(groups) != 2 {
		t.Error(groups)
	}
}

// TestLetInCorrelationRules: what is counted, added up and new, of events that have the value.
func TestLetInCorrelationRules(t *testing.T) {
	check := func(kind string, want []string, messages ...string) {
		t.Helper()
		set, err := compileText(t, "- id: r\n  title: t\n  severity: low\n"+
			"  let: {user: 'json(message, \"$.user\")', bytes: 'number(json(message, \"$.bytes\"))', domain: 'registered_domain(json(message, \"$.host\"))'}\n"+
			"  when: message startsWith \"{\"\n  alert: \"{user}\"\n"+kind)
		if err != nil {
			t.Fatal(err)
		}
		var events []*pipeline.Event
		for i, message := range messages {
			event := logEvent(message)
			event.Timestamp = int64(i+1) * 1e9
			event.Id = binary.BigEndian.AppendUint64(make([]byte, 8), uint64(i+1))
			events = append(events, event)
		}
		fold := correlate.New(set.Correlations(), correlate.DefaultLimits)
		for _, signal := range set.Signals(events) {
			fold.Add(signal)
		}
		var got []string
		for _, match := range fold.Close() {
			got = append(got, match.Group+"|"+match.Text)
		}
		if strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("%s: %q, want %q", kind, got, want)
		}
	}
	check("  count: 2\n  within: 1m\n  group: [user]\n", []string{"user=a|a"},
		`{"user":"a"}`, `{"user":"b"}`, `{"user":""}`, `{}`, `{"user":"a"}`)
	check("  distinct: {field: user, count: 2}\n  within: 1m\n  group: [domain]\n", []string{"domain=example.com|b"},
		`{"user":"a","host":"x.example.com"}`, `{"user":"a","host":"y.example.com"}`, `{"user":"b","host":"y.example.org"}`, `{"host":"example.com"}`, `{"user":"b","host":"example.com"}`)
	check("  sum: {field: bytes, total: 100}\n  within: 1m\n  group: [user]\n", []string{"user=a|a", "user=b|b"},
		`{"user":"a","bytes":49.6}`, `{"user":"a","bytes":"none"}`, `{"user":"a","bytes":-1e30}`, `{"user":"a","bytes":"50"}`, `{"user":"b","bytes":1e300}`)
	check("  first_seen: {fields: [user, domain], baseline: 2s}\n  group: [bytes]\n", []string{"bytes=1|c"},
		`{"user":"a","host":"example.com","bytes":1}`, `{"user":"b","host":"example.com","bytes":1}`, `{"user":"a","host":"x.example.com","bytes":1}`,
		`{"user":"c","bytes":1}`, `{"user":"c","host":"example.com","bytes":1.0}`)
}

// TestMistakesInLetAreNamed, each once and at its place.
func TestMistakesInLetAreNamed(t *testing.T) {
	check := func(keys, want string) {
		t.Helper()
		text := "- id: r\n  title: t\n  severity: low\n" + keys
		if !strings.Contains(keys, "when:") {
			text += "  when: message != \"\"\n"
		}
		got := errorOf(t, text)
		if want == "" && got != "" || !strings.Contains(got, want) || strings.Contains(got, "\n") {
			t.Errorf("%s\n got %s\nwant %s", keys, got, want)
		}
	}
	check("  let: {user: 'json(message, \"$.user\")'}\n  group: [user]\n", "")
	check("  let: 5\n", "t.yaml:4:8: r: let: expected names with expressions, such as {user: ")
	check("  let: {User: message}\n", "let.User: a name is made of a-z, 0-9 and _")
	check("  let: {message: message}\n", "let.message: is the name of a field or function already")
	check("  let: {timestamp: message}\n", "let.timestamp: is the name of a field or function already")
	check("  let: {user: 'jso(message, \"$.user\")'}\n", `t.yaml:4:16: r: let.user: unknown function "jso", did you mean "json"?`)
	check("  let: {user: 'jsn(message)'}\n  when: user == \"a\"\n  group: [user]\n  alert: '{user}'\n", `unknown function "jsn"`)
	check("  let: {user: redis.args}\n", "let.user: redis.args is a list of texts: name one value")
	check("  let: {user: '\"a\"'}\n", "let.user: is a constant: name a value of the event")
	check("  let: {a: b, b: a}\n  when: a == \"x\"\n", "macros use each other more than 8 deep, or in a circle")
	check("  let: {user: message}\n  group: [usr]\n", `group[0]: unknown field "usr", did you mean "user"?`)
	check("  let: {user: message}\n  alert: '{usr}'\n", `alert: unknown field "usr", did you mean "user"?`)
	check("  let: {user: message}\n  when: usr == \"a\"\n", `when: unknown field "usr", did you mean "user"?`)
	check("  group: ['json(message, \"$.user\")']\n", `is an expression: name it, let: {name: '…'}, and write its name here`)
	check("  let: {user: message}\n  sum: {field: user, total: 5}\n  within: 1m\n", `let.user: is text: it must be a number, such as number(json(message, "$.bytes"))`)
	check("  let: {user: message}\n  distinct: {field: user, count: 5}\n  within: 1m\n  group: [user]\n", `is a field of the group, which has one value of it`)
	check("  let: {user: 5 % source.port}\n  when: user > 1\n", "")
	text := "lists: {users: [a]}\nrules:\n  - {id: r, title: t, severity: low, when: message == \"a\", let: {users: message}}\n"
	if got := errorOf(t, text); !strings.Contains(got, "let.users: users is the name of a list or macro already") {
		t.Error(got)
	}
}

// TestLetIsPartOfTheVersion: of the rule where it changes, and of the matches where they change.
func TestLetIsPartOfTheVersion(t *testing.T) {
	versions := func(let, group string) (rule, matches string) {
		set, err := compileText(t, "lists: {admins: [a]}\nrules:\n  - {id: r, title: t, severity: low, when: message != \"\", count: 2, within: 1m, let: {x: '"+let+"'}, group: ["+group+"]}\n")
		if err != nil {
			t.Fatal(err)
		}
		return set.Rules()[0].Version, set.Rules()[0].Correlation.Version
	}
	ruleA, matchesA := versions("lower(message)", "x")
	ruleB, matchesB := versions("trim(message)", "x")
	if ruleA == ruleB || matchesA == matchesB {
		t.Error("a changed value of the group is no change")
	}
	ruleA, matchesA = versions("lower(message)", "source.ip")
	ruleB, matchesB = versions("trim(message)", "source.ip")
	if ruleA == ruleB || matchesA != matchesB {
		t.Error("a value that only the alert may show begins the windows anew")
	}
}

// TestExplainShowsValuesOfLet, also of one that divides by zero.
func TestExplainShowsValuesOfLet(t *testing.T) {
	set, err := compileText(t, strings.Replace(letRule, "size: len(message)", "size: len(message) % source.port", 1))
	if err != nil {
		t.Fatal(err)
	}
	explained := set.Explain(set.Rules()[0], logEvent(`{"user":"Root"}`))[0]
	got := ""
	for _, let := range explained.Let {
		got += let.Name + "=" + let.Value + " "
	}
	if want := "user=Root who=root status= outside=true size= ip= "; got != want || explained.DividesByZero {
		t.Errorf("%q, want %q; %t", got, want, explained.DividesByZero)
	}
}

// TestStoreQueriesOfLetFindItsMatches: random conditions behind a name.
func TestStoreQueriesOfLetFindItsMatches(t *testing.T) {
	store := embeddedtest.Store(t, "storelet", "native")
	random := randomExpression{rand.New(rand.NewPCG(3, 7))}
	var events []*pipeline.Event
	for range 100 {
		if event := random.event(); event.Dataset != pipeline.Dataset_DATASET_NONE {
			event.Id = binary.BigEndian.AppendUint64(make([]byte, 8), uint64(len(events)+1))
			dropOtherBodies(event)
			events = append(events, event)
		}
	}
	var text strings.Builder
	for i := range 40 {
		let := strings.ReplaceAll(random.text(2, ""), "'", "''")
		if !strings.ContainsAny(let, ".") && !strings.Contains(let, "message") && !strings.Contains(let, "label") {
			continue
		}
		rule := "- id: r" + string(rune('a'+i%26)) + string(rune('a'+i/26)) + "\n  title: t\n  severity: low\n  let: {picked: '" + let + "'}\n" +
			"  when: picked " + random.pick(`== "a"`, `contains ["a", "x"]`, `!= ""`, `in ["GET", "log"]`) + " or len(picked) > 5\n  group: [picked]\n"
		if _, err := compileText(t, rule); err != nil && strings.Contains(err.Error(), "is a constant") {
			continue
		}
		text.WriteString(rule)
	}
	set, err := compileText(t, text.String())
	if err != nil {
		t.Fatal(err)
	}
	exact := checkStoreQueries(t, store, "let", set, events)
	t.Logf("%d rules, %d exact", len(set.Rules()), exact)
}
