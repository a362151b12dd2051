package all

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"tidegate/pipeline"
	"tidegate/protocols/protocoltest"
)

// A count holds the number of messages in one capture, by our parsers or by the oracle.
type count struct{ requests, responses, redis, queries, hellos int }

// TestSumsOverAllCapturesAreThoseOfTshark plays every capture of the shared folder. No parser may panic. The sums
// over all captures are within borders of those of tshark. tshark counts repeated messages and handshakes outside
// of TCP, and reads Redis and MySQL on their own ports only. TestReplayOfEveryCapture compares each capture.
func TestSumsOverAllCapturesAreThoseOfTshark(t *testing.T) {
	dir := protocoltest.SharedData(t, "../..")
	truth := oracle(t, filepath.Join(dir, "oracle", "counts.tsv"))
	files, err := filepath.Glob(filepath.Join(dir, "pcaps", "*"))
	if err != nil {
		t.Fatal(err)
	}
	var got, want count
	compared := 0
	for _, path := range files {
		theirs, ok := truth[filepath.Base(path)]
		if !ok {
			continue
		}
		compared++
		var ours count
		protocoltest.PlayCapture(t, Protocols, path, func(event *pipeline.Event) {
			ours.countEvent(event)
			event.ReturnToVTPool()
		})
		if ours != theirs {
			t.Logf("%-70s got %v, tshark %v", filepath.Base(path), ours, theirs)
		}
		got.add(ours)
		want.add(theirs)
	}
	t.Logf("sums (requests, responses, redis commands, queries, client hellos): %v, tshark %v", got, want)
	if compared < 500 {
		t.Fatalf("%d captures with counts of tshark in %s, want at least 500", compared, dir)
	}
	check := func(what string, got, want, least, most int) {
		t.Helper()
		if got*100 < want*least || got*100 > want*most {
			t.Errorf("%d %s, want %d to %d %% of the %d of tshark", got, what, least, most, want)
		}
	}
	check("HTTP requests", got.requests, want.requests, 99, 101)
	check("HTTP responses", got.responses, want.responses, 99, 101)
	check("Redis commands", got.redis, want.redis, 110, 125)
	check("MySQL queries", got.queries, want.queries, 400, 450)
	check("client hellos", got.hellos, want.hellos, 80, 90)
}

// add adds the counts of another capture.
func (c *count) add(other count) {
	c.requests += other.requests
	c.responses += other.responses
	c.redis += other.redis
	c.queries += other.queries
	c.hellos += other.hellos
}

// oracle reads the counts of tshark by the name of the capture: tab-separated values with a header.
func oracle(t *testing.T, path string) map[string]count {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	rows := strings.Split(strings.TrimSpace(string(data)), "\n")
	column := map[string]int{}
	for i, name := range strings.Split(rows[0], "\t") {
		column[name] = i
	}
	all := map[string]count{}
	for _, row := range rows[1:] {
		cells := strings.Split(row, "\t")
		number := func(name string) int { v, _ := strconv.Atoi(cells[column[name]]); return v }
		all[cells[0]] = count{
			requests: number("http_requests"), responses: number("http_responses"), redis: number("redis_cmds"),
			queries: number("mysql_queries"), hellos: number("tls_client_hello"),
		}
	}
	return all
}

// countEvent counts the messages of one event.
func (c *count) countEvent(event *pipeline.Event) {
	switch {
	case event.Http != nil:
		if event.Http.Method != "" {
			c.requests++
		}
		if event.Http.StatusCode > 0 {
			c.responses++
		}
	case event.Redis != nil && event.Redis.Command != "":
		c.redis++
	case event.Mysql != nil && event.Mysql.Command == "COM_QUERY":
		c.queries++
	case event.Tls != nil:
		c.hellos++
	}
}
