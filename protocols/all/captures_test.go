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

// TestCaptures plays every capture of the shared folder. No parser may panic. Over all captures the sums are
// those of tshark within a few percent: it counts repeats, and what is not on a connection.
func TestCaptures(t *testing.T) {
	dir := protocoltest.SharedData(t, "../..")
	truth := oracle(t, filepath.Join(dir, "oracle", "counts.tsv"))
	files, err := filepath.Glob(filepath.Join(dir, "pcaps", "*"))
	if err != nil {
		t.Fatal(err)
	}
	var got, want count
	for _, path := range files {
		w, ok := truth[filepath.Base(path)]
		if !ok {
			continue
		}
		var g count
		protocoltest.PlayCapture(t, Protocols, path, func(e *pipeline.Event) {
			g.countEvent(e)
			e.ReturnToVTPool()
		})
		if g != w {
			t.Logf("%-70s got %v, tshark %v", filepath.Base(path), g, w)
		}
		got.add(g)
		want.add(w)
	}
	t.Logf("sums (requests, responses, redis commands, queries, client hellos): %v, tshark %v", got, want)
	near := func(what string, got, want int) {
		if got < want*95/100 || got > want*110/100 {
			t.Errorf("%d %s, tshark has %d", got, what, want)
		}
	}
	near("HTTP requests", got.requests, want.requests)
	near("HTTP responses", got.responses, want.responses)
}

func (c *count) add(o count) {
	c.requests += o.requests
	c.responses += o.responses
	c.redis += o.redis
	c.queries += o.queries
	c.hellos += o.hellos
}

func oracle(t *testing.T, path string) map[string]count {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	rows := strings.Split(strings.TrimSpace(string(b)), "\n")
	column := map[string]int{}
	for i, name := range strings.Split(rows[0], "\t") {
		column[name] = i
	}
	all := map[string]count{}
	for _, row := range rows[1:] {
		f := strings.Split(row, "\t")
		n := func(name string) int { v, _ := strconv.Atoi(f[column[name]]); return v }
		all[f[0]] = count{n("http_requests"), n("http_responses"), n("redis_cmds"), n("mysql_queries"), n("tls_client_hello")}
	}
	return all
}

func (c *count) countEvent(e *pipeline.Event) {
	switch {
	case e.Http != nil:
		if e.Http.Method != "" {
			c.requests++
		}
		if e.Http.StatusCode > 0 {
			c.responses++
		}
	case e.Redis != nil && e.Redis.Command != "":
		c.redis++
	case e.Mysql != nil && e.Mysql.Command == "COM_QUERY":
		c.queries++
	case e.Tls != nil:
		c.hellos++
	}
}
