package rules

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"tidegate/pipeline"
)

// checkDraft makes a rule of an event and returns it. The rule matches the event, passes its cases and has no lint.
func checkDraft(t *testing.T, event *pipeline.Event) (text string, rule *Rule) {
	t.Helper()
	draft, err := Draft(event)
	if err != nil {
		t.Fatalf("%v\n%s", err, pipeline.AppendJSON(nil, event))
	}
	set, rule := onlyRule(t, string(draft))
	event = proto.CloneOf(event)
	event.Verdicts = nil
	if set.Evaluate([]*pipeline.Event{event}); len(event.Verdicts) != 1 {
		t.Errorf("it does not match its event %s\n%s", pipeline.AppendJSON(nil, event), draft)
	}
	var out strings.Builder
	if failed, _ := RunTests(&out, set, false); failed > 0 || len(set.Lints()) > 0 {
		t.Errorf("%s%v\n%s", out.String(), set.Lints(), draft)
	}
	return string(draft), rule
}

// TestDraftMatchesItsEvent: of each shipped rule's events a rule is made that matches it.
func TestDraftMatchesItsEvent(t *testing.T) {
	set, err := Load(Default(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	made, datasets := 0, map[string]bool{}
	for _, rule := range set.Rules() {
		for _, ruleCase := range rule.Tests {
			for _, event := range ruleCase.events {
				if len(draftConditions(event)) == 0 {
					continue
				}
				checkDraft(t, event)
				made++
				datasets[event.Dataset.Name()] = true
			}
		}
	}
	if made < 100 || len(datasets) < 6 {
		t.Errorf("only %d rules, of %v", made, datasets)
	}
}

// TestDraftOfARequest: the whole text.
func TestDraftOfARequest(t *testing.T) {
	event := &pipeline.Event{
		Id: []byte("0123456789abcdef"), Timestamp: 1772366400e9, Dataset: pipeline.Dataset_HTTP,
		Source: &pipeline.Endpoint{Ip: []byte{203, 0, 113, 9}}, Container: &pipeline.Container{Id: "c1", Name: "shop"},
		Http: &pipeline.HTTPExchange{Method: "POST", UrlPath: "/login.php", UrlQuery: `u='"\`, UserAgent: "curl/8.5.0"},
	}
	got, _ := checkDraft(t, event)
	const want = `- id: new-http-login-php
  title: "http: /login.php"
  description: "Made of the event 30313233-3435-3637-3839-616263646566 of 2026-03-01T12:00:00Z."
  severity: medium
  when: >-
    event.dataset == "http"
    and url.path == "/login.php"
    and url.query == "u='\"\\"
    and http.request.method == "POST"
    and user_agent.original == "curl/8.5.0"
  group: [container.id, source.ip]
  alert: "{url.path} {url.query} {http.request.method} from {source.ip} in {container.name}"
  tests:
    - name: the event
      event:
        event.dataset: http
        url.path: "/login.php"
        url.query: "u='\"\\"
        http.request.method: "POST"
        user_agent.original: "curl/8.5.0"
      fires: true
    - name: another url.path
      event:
        event.dataset: http
        url.path: "other"
        url.query: "u='\"\\"
        http.request.method: "POST"
        user_agent.original: "curl/8.5.0"
      fires: false
`
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// TestDraftOfHostileTexts: quotes, signs of YAML and of expressions, control characters and long texts stay constants.
func TestDraftOfHostileTexts(t *testing.T) {
	pieces := []string{
		`"`, `'`, `\`, "\n", "\r\n", "\t", "\x00", "\x1b[31m", "\x7f", "\u0085", "\u2028", "\ufeff", "é", "😀", "{source.ip}", "{{", "}", " #", ": ", "- ",
		"& *a", "%", "@", "`", "5s", "and", " or ", "other", "> |", "!!", "\\x41", "\\u0041", "${jndi:", "'; DROP TABLE", "7",
	}
	random := rand.New(rand.NewPCG(4, 4))
	for range 300 {
		var text strings.Builder
		for range random.IntN(8) + 1 {
			text.WriteString(strings.Repeat(pieces[random.IntN(len(pieces))], 1+random.IntN(3)*random.IntN(40)))
		}
		for _, event := range []*pipeline.Event{
			{Dataset: pipeline.Dataset_LOG, Log: &pipeline.LogLine{Message: text.String()}},
			{Dataset: pipeline.Dataset_MYSQL, Mysql: &pipeline.MySQLCommand{Query: text.String(), Command: "COM_QUERY"}},
			{Dataset: pipeline.Dataset_REDIS, Redis: &pipeline.RedisCommand{Key: text.String(), Command: "GET"}},
			{Dataset: pipeline.Dataset_HTTP, Http: &pipeline.HTTPExchange{UrlPath: text.String(), Method: text.String(), UrlDomain: text.String()}},
			{Dataset: pipeline.Dataset_DNS, Dns: &pipeline.DNSMessage{QuestionName: strings.ToLower(text.String()), QuestionType: "A"}},
		} {
			if len(draftConditions(event)) > 0 {
				checkDraft(t, event)
			}
		}
	}
}

// TestDraftLooksForWhatIsTheSameInTheNextLine: for the longest piece of a line without digits.
func TestDraftLooksForWhatIsTheSameInTheNextLine(t *testing.T) {
	_, rule := checkDraft(t, &pipeline.Event{Dataset: pipeline.Dataset_LOG, Log: &pipeline.LogLine{Message: "2026-03-01 12:00:00 sshd[71]: Failed password for root from 203.0.113.9"}})
	if want := `event.dataset == "log" and message contains "]: Failed password for root from"`; rule.When != want {
		t.Errorf("%s, want %s", rule.When, want)
	}
	_, rule = checkDraft(t, &pipeline.Event{Dataset: pipeline.Dataset_LOG, Log: &pipeline.LogLine{Message: "out of memory"}})
	if want := `event.dataset == "log" and message == "out of memory"`; rule.When != want {
		t.Errorf("%s, want %s", rule.When, want)
	}
	long := strings.Repeat("é", 150)
	_, rule = checkDraft(t, &pipeline.Event{Dataset: pipeline.Dataset_REDIS, Redis: &pipeline.RedisCommand{Key: long}})
	if want := fmt.Sprintf(`event.dataset == "redis" and redis.key startsWith %q`, long[:maxDraftText]); rule.When != want {
		t.Errorf("%s, want %s", rule.When, want)
	}
}

// TestDraftOfAnEventThatSaysNothing is an error that names what is missing.
func TestDraftOfAnEventThatSaysNothing(t *testing.T) {
	for _, event := range []*pipeline.Event{{Dataset: pipeline.Dataset_LOG}, {Dataset: pipeline.Dataset_FILE}, {}} {
		if _, err := Draft(event); err == nil || !strings.Contains(err.Error(), "has no field from which a rule can be made") {
			t.Errorf("%v", err)
		}
	}
}

// TestDraftOfJSON: a line of a log that is JSON has conditions on its values: those that say what has happened, and none on names, times, numbers
// of texts and ids. A line that says nothing so is a text.
func TestDraftOfJSON(t *testing.T) {
	check := func(message, want string) {
		t.Helper()
		draft, rule := checkDraft(t, &pipeline.Event{Dataset: pipeline.Dataset_LOG, Log: &pipeline.LogLine{Message: message}})
		if rule.When != `event.dataset == "log" and `+want {
			t.Errorf("%s:\n got %s\nwant %s\n%s", message, rule.When, want, draft)
		}
	}
	check(`{"ts": "2026-11-28T10:00:00Z", "level": "error", "msg": "payment 4711 failed: card declined", "status": 503, "user": {"name": "bob"}, "trace_id": "4f2a"}`,
		`json(message, "$.msg") contains "failed: card declined" and json(message, "$.level") == "error" and number(json(message, "$.status")) == 503`)
	check(`{"verb": "create", "objectRef": {"resource": "pods", "name": "a"}, "responseStatus": {"code": 201}, "allowed": true}`,
		`json(message, "$.verb") == "create" and number(json(message, "$.responseStatus.code")) == 201 and json(message, "$.objectRef.resource") == "pods"`)
	check(`{"event": "\"; a # {x}", "action": "é😀"}`, `json(message, "$.event") == "\"; a # {x}" and json(message, "$.action") == "é😀"`)
	check(`{"event": "a\u001bb", "code": 1.5, "a b": {"type": "x"}}`, `message contains ", \"a b\": {\"type\": \"x\"}}"`)
	check(`{"ts": 1, "id": 2}`, `message == "{\"ts\": 1, \"id\": 2}"`)
	check(`[{"event": "a"}]`, `message == "[{\"event\": \"a\"}]"`)
	check(`{"a": {"b": {"c": {"event": "deep"}}}, "level": "info"}`, `json(message, "$.level") == "info"`)
}
