package pipeline

import (
	"bytes"
	"strings"
	"testing"

	"tidegate/pipeline/lineartest"
)

// TestRowOfTheStoreIsItsEvent: a row has the columns of all datasets, zero values for absent fields, and the
// store's forms of times and lists.
func TestRowOfTheStoreIsItsEvent(t *testing.T) {
	const row = `{"@timestamp":"2026-11-26 16:20:47.480000000","event.id":"0190a1b2-0000-7000-8000-000000000001",` +
		`"event.dataset":"dns","event.ingested":"2026-11-26 16:20:48.000000000","event.partial":false,"_offset":"17","_index":0,` +
		`"source.ip":"192.0.2.1","source.port":4711,"destination.ip":"192.0.2.53","destination.port":"53",` +
		`"container.labels":{"team":"a"},"dns.question.name":"evil.example","dns_resolved_ip":["203.0.113.7"],` +
		`"http.request.method":"","http.response.status_code":0,"url.path":"","verdict_rule":["old"],"message":"","redis.args":[]}`
	if !IsEventLine([]byte(row)) {
		t.Fatal("is not recognized")
	}
	event, err := FromEventLine([]byte(row))
	if err != nil {
		t.Fatal(err)
	}
	if event.Dataset != Dataset_DNS || event.Dns.GetQuestionName() != "evil.example" || event.Timestamp != 1795710047480000000 ||
		event.Destination.GetPort() != 53 || len(event.Dns.GetResolvedIp()) != 1 || event.Http != nil || len(event.Verdicts) != 0 {
		t.Errorf("%s", AppendJSON(nil, event))
	}

	// The form of AppendJSON is recognized too, and yields the same.
	line := AppendJSON(nil, event)
	var spaced bytes.Buffer // as other programs write JSON
	for _, c := range line {
		if spaced.WriteByte(c); c == ':' || c == ',' {
			spaced.WriteByte(' ')
		}
	}
	if !IsEventLine(spaced.Bytes()) {
		t.Errorf("not recognized: %s", spaced.Bytes())
	}
	again, err := FromEventLine(line)
	if !IsEventLine(line) || err != nil || string(AppendJSON(nil, again)) != string(line) {
		t.Errorf("recognized %t, %v\n%s", IsEventLine(line), err, line)
	}
}

// TestOtherLinesAreNoEvents: lines of logs that quote an event, and JSON of other programs.
func TestOtherLinesAreNoEvents(t *testing.T) {
	for _, line := range []string{
		"", "{}", "plain text", `{"log":"{\"event.id\":\"x\",\"event.dataset\":\"dns\"}\n","stream":"stdout","time":"2026-01-01T00:00:00Z"}`,
		`{"@timestamp":"2026-01-01T00:00:00Z","event.dataset":"myapp","message":"hello"}`,
		`{"event":{"kind":"event","dataset":"myapp"},"message":"hello"}`, `[{"event.id":"1","event.dataset":"dns"}]`,
		`{"message":"x","count":3}`, "{\n" + `"event.id":1,"event.dataset":2`,
	} {
		if IsEventLine([]byte(line)) {
			t.Errorf("%q is recognized", line)
		}
	}
}

func FuzzEventLine(f *testing.F) {
	f.Add(`{"event.id":"0190a1b2-0000-7000-8000-000000000001","event.dataset":"dns","dns.question.name":"a.example"}`)
	f.Fuzz(func(t *testing.T, line string) {
		lineartest.CheckRepeated(t, lineartest.Default, line, func(line string) {
			event, err := FromEventLine([]byte(line))
			if err == nil && event == nil || err != nil && strings.TrimSpace(err.Error()) == "" {
				t.Errorf("%q: %v, %v", line, event, err)
			}
		})
	})
}
