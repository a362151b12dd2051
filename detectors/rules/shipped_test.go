package rules

import (
	"compress/gzip"
	"encoding/csv"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"tidegate/pipeline"
)

// sharedData opens a file of the data folder; a user's clone has none.
func sharedData(t *testing.T, path string) *os.File {
	t.Helper()
	root := os.Getenv("TIDEGATE_SHARED")
	if root == "" {
		root = "../../../shared"
	}
	f, err := os.Open(filepath.Join(root, "data", path))
	if errors.Is(err, fs.ErrNotExist) && os.Getenv("TIDEGATE_SHARED") == "" {
		t.Skip("no shared data")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// TestShippedRulesOnRealParameters: no false alarm on 12,870 ordinary parameters, and at least nine of ten
// SQL injections.
func TestShippedRulesOnRealParameters(t *testing.T) {
	zip, err := gzip.NewReader(sharedData(t, "web/params.csv.gz"))
	if err != nil {
		t.Fatal(err)
	}
	r := csv.NewReader(zip)
	r.FieldsPerRecord, r.LazyQuotes = -1, true
	rows, err := r.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	cfg := Default()
	cfg.MaxMeanTime = time.Second // the race detector slows regular expressions down
	set, err := Load(cfg, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	total, hit := map[string]int{}, map[string]int{}
	for _, row := range rows[1:] { // payload, length, attack_type, label
		query := "p=" + url.QueryEscape(row[0])
		e := &pipeline.Event{Dataset: pipeline.Dataset_HTTP, Http: &pipeline.HTTPExchange{
			Method: "GET", UrlOriginal: "/x?" + query, UrlPath: "/x", UrlQuery: query, StatusCode: 200,
		}}
		set.Evaluate([]*pipeline.Event{e})
		total[row[2]]++
		if len(e.Verdicts) > 0 {
			hit[row[2]]++
			if row[2] == "norm" {
				t.Errorf("%s fired for %q", fired(e), row[0])
			}
		}
	}
	t.Logf("of %v: %v", total, hit)
	for _, r := range set.Rules() {
		if n := r.stats.runs.Load(); n > 50 {
			t.Logf("%s: %v a run, %d measured", r.ID, time.Duration(r.stats.ns.Load()/n), n)
		}
	}
	if total["norm"] < 10000 || hit["sqli"]*10 < total["sqli"]*9 {
		t.Errorf("of %v only %v", total, hit)
	}
}
