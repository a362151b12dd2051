package clickhouse_test

import (
	"strings"
	"testing"

	"tidegate/pipeline"
	"tidegate/pipeline/clickhouse"
	"tidegate/pipeline/embedded/embeddedtest"
)

// TestStoredEventComesBack: a row of SELECT * as JSON is read as the event that was stored, for example by
// `tidegate replay`.
func TestStoredEventComesBack(t *testing.T) {
	lines := []string{
		`{"@timestamp":"2026-03-01T12:00:00.123456789Z","event":{"id":"0190a1b2-0000-7000-8000-000000000001"},"source":{"ip":"192.0.2.1","port":4711},` +
			`"destination":{"ip":"192.0.2.53","port":53},"container":{"id":"cid","name":"web","labels":{"team":"a","x.y":"0"}},` +
			`"dns":{"question":{"name":"evil.example","type":"A"},"resolved_ip":["203.0.113.7","203.0.113.8"],"response_code":"NOERROR"}}`,
		`{"@timestamp":"2026-03-01T12:00:00Z","event":{"id":"0190a1b2-0000-7000-8000-000000000002"},"source":{"ip":"2001:db8::1","port":1},` +
			`"http":{"request":{"method":"POST"},"response":{"status_code":404}},"url":{"path":"/a b","query":"x=1"},"user_agent":{"original":"curl/8"}}`,
		`{"@timestamp":"2026-03-01T12:00:01Z","event":{"id":"0190a1b2-0000-7000-8000-000000000003"},"redis":{"command":"SET","args":["k","v"]}}`,
		`{"@timestamp":"2026-03-01T12:00:02Z","event":{"id":"0190a1b2-0000-7000-8000-000000000004","dataset":"log"},"message":"2026-01-01 00:00:00","log":{"level":"warn"}}`,
		`{"@timestamp":"2026-03-01T12:00:03Z","event":{"id":"0190a1b2-0000-7000-8000-000000000005"},"mysql":{"query":"SELECT 1"},"user":{"name":"root"}}`,
	}
	store := embeddedtest.Store(t, "comeback", "http")
	block, want := clickhouse.NewColumnBlock(), map[string]string{}
	for i, line := range lines {
		event, err := pipeline.FromJSON([]byte(line))
		if err != nil {
			t.Fatal(line, err)
		}
		want[event.IDText()] = string(pipeline.AppendJSON(nil, event))
		block.Append(event, pipeline.Position{Offset: int64(i)}, "t")
	}
	insert(t, store, block, "a")
	for row := range strings.Lines(query(t, store, "SELECT * FROM comeback.events FORMAT JSONEachRow")) {
		if !pipeline.IsEventLine([]byte(row)[:min(len(row), 4096)]) {
			t.Errorf("is not recognized: %s", row)
		}
		event, err := pipeline.FromEventLine([]byte(row))
		if err != nil {
			t.Errorf("%v: %s", err, row)
			continue
		}
		event.Ingested = 0
		if got := string(pipeline.AppendJSON(nil, event)); got != want[event.IDText()] {
			t.Errorf("got  %s\nwant %s", got, want[event.IDText()])
		}
		delete(want, event.IDText())
	}
	if len(want) > 0 {
		t.Errorf("%d events did not come back", len(want))
	}
}
