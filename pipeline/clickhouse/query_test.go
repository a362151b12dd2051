package clickhouse_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"tidegate/pipeline/clickhouse"
	"tidegate/pipeline/embedded/embeddedtest"
)

// TestQueryWorksWithAServerThatDoesNotKnowNewerSettings asks a server that refuses them as ClickHouse does.
func TestQueryWorksWithAServerThatDoesNotKnowNewerSettings(t *testing.T) {
	requests := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests++
		if r.URL.Query().Has("output_format_pretty_max_column_name_width_cut_to") {
			w.Header().Set("X-ClickHouse-Exception-Code", "115")
			http.Error(w, "Code: 115. DB::Exception: Unknown setting", http.StatusNotFound)
			return
		}
		sql, _ := io.ReadAll(r.Body)
		_, _ = w.Write(sql)
	}))
	defer server.Close()
	cfg := clickhouse.Default()
	cfg.HTTPAddr = strings.TrimPrefix(server.URL, "http://")
	var out bytes.Buffer
	if err := clickhouse.Query(t.Context(), cfg, "SELECT 1", "TSV", &out); err != nil || out.String() != "SELECT 1" {
		t.Errorf("%q, %v", out.String(), err)
	}
	if requests != 2 {
		t.Errorf("%d requests", requests)
	}
}

// TestTimeOfAnAlertInAQuery: ClickHouse refuses a comparison with the time as an alert writes it. The error says how to
// write it, and that works.
func TestTimeOfAnAlertInAQuery(t *testing.T) {
	store := embeddedtest.Store(t, "times", "http")
	insert(t, store, rows("t", 0, 0, 3), "a")
	for _, text := range []string{"2026-01-01T16:20:47.48Z", "2026-01-01T16:20:47Z", "2026-01-01T16:20:47.123456789+01:00"} {
		ask := func(value string) (string, error) {
			var out bytes.Buffer
			err := clickhouse.Query(t.Context(), store.Config(), "SELECT count() FROM events WHERE event.ingested > "+value, "TSV", &out)
			return strings.TrimSpace(out.String()), err
		}
		_, err := ask("'" + text + "'")
		if err == nil {
			t.Errorf("%s is accepted now: the hint can go", text)
			continue
		}
		_, hint, _ := strings.Cut(err.Error(), "; write ")
		if got, err := ask(hint); err != nil || got != "6" {
			t.Errorf("%s: %q, %v", text, got, err)
		}
	}
}
