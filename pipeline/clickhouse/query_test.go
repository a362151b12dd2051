package clickhouse_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"tidegate/pipeline/clickhouse"
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
