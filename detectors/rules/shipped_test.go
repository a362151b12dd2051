package rules

import (
	"compress/gzip"
	"encoding/csv"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tidegate/pipeline"
)

// sharedData opens a file of the folder with test data. It skips the test where the folder does not exist, as
// in a clone.
func sharedData(t *testing.T, path string) *os.File {
	t.Helper()
	root := os.Getenv("TIDEGATE_SHARED")
	if root == "" {
		root = "../../../shared"
	}
	if _, err := os.Stat(filepath.Join(root, "data", "pcaps")); err != nil {
		t.Skip("no shared data: set TIDEGATE_SHARED")
	}
	file, err := os.Open(filepath.Join(root, "data", path))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return file
}

// TestShippedRulesFindInjectionsInRealParameters: the rules find at least nine of ten SQL injections, in the query and
// in the path, with severity high, and match none of 12,870 ordinary parameters.
func TestShippedRulesFindInjectionsInRealParameters(t *testing.T) {
	for place, target := range map[string]func(payload string) (path, query string){
		"query": func(payload string) (path, query string) { return "/x", "p=" + url.QueryEscape(payload) },
		"path":  func(payload string) (path, query string) { return "/item/" + url.PathEscape(payload), "" },
	} {
		t.Run(place, func(t *testing.T) { testInjections(t, target) })
	}
}

// injections returns real parameters, attacks and ordinary ones: payload, length, type and label.
func injections(t *testing.T) [][]string {
	t.Helper()
	zip, err := gzip.NewReader(sharedData(t, "web/params.csv.gz"))
	if err != nil {
		t.Fatal(err)
	}
	reader := csv.NewReader(zip)
	reader.FieldsPerRecord, reader.LazyQuotes = -1, true
	rows, err := reader.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return rows[1:]
}

// testInjections evaluates a request with each parameter at a place of the target.
func testInjections(t *testing.T, target func(payload string) (path, query string)) {
	rows := injections(t)
	cfg := Default()
	cfg.MaxMeanTime = time.Second // the race detector slows regular expressions down
	set, err := Load(cfg, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	total, hit, high := map[string]int{}, map[string]int{}, map[string]int{}
	for _, row := range rows {
		path, query := target(row[0])
		event := &pipeline.Event{Dataset: pipeline.Dataset_HTTP, Http: &pipeline.HTTPExchange{
			Method: "GET", UrlOriginal: path + "?" + query, UrlPath: path, UrlQuery: query, StatusCode: 200,
		}}
		set.Evaluate([]*pipeline.Event{event})
		total[row[2]]++
		if len(event.Verdicts) > 0 {
			hit[row[2]]++
			if row[2] == "norm" {
				t.Errorf("%s fired for %q", fired(event), row[0])
			}
		}
		if slices.ContainsFunc(event.Verdicts, func(v *pipeline.Verdict) bool { return v.Severity >= pipeline.Severity_HIGH }) {
			high[row[2]]++
		}
	}
	t.Logf("of %v: %v, of severity high %v", total, hit, high)
	for _, rule := range set.Rules() {
		if rule.Correlation != nil {
			continue // its steps are evaluated, each as a rule of its own
		}
		if runs := rule.stats.runs.Load(); runs > 50 {
			t.Logf("%s: %v per evaluation, %d measured", rule.ID, time.Duration(rule.stats.ns.Load()/runs), runs)
		}
	}
	if total["norm"] < 10000 || hit["sqli"]*10 < total["sqli"]*9 || high["sqli"]*10 < total["sqli"]*9 {
		t.Errorf("of %v only %v, of severity high %v", total, hit, high)
	}
}

// TestTextOfARuleIsThatOfItsFile: the text of each shipped rule, alone, is a rule with the same content.
func TestTextOfARuleIsThatOfItsFile(t *testing.T) {
	set, err := Load(Default(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range set.Rules() {
		text, err := rule.Text()
		if err != nil || !rule.IsShipped() {
			t.Fatal(rule.ID, err)
		}
		file := parseFile(Source{"alone.yaml", []byte(text)})
		if len(file.rules) != 1 || file.rules[0].ID != rule.ID || len(file.rules[0].Tests) != len(rule.Tests) ||
			(rule.Correlation == nil && file.rules[0].when.Value != rule.When) || (file.rules[0].correlation != nil) != (rule.Correlation != nil) ||
			len(file.doc.Errors()) > 0 {
			t.Errorf("%s: %v\n%s", rule.ID, file.doc.Errors(), text)
		}
	}
}

// TestShippedRulesFindInjectionsInStatements: a parameter that a program pastes into its statement is found twice of
// five (the others are for other databases, or stay inside of the literal). Ordinary parameters, quoted as a driver does, raise no alert.
func TestShippedRulesFindInjectionsInStatements(t *testing.T) {
	rows := injections(t)
	cfg := Default()
	cfg.MaxMeanTime = time.Second // the race detector slows regular expressions down
	set, err := Load(cfg, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	quote := strings.NewReplacer(`\`, `\\`, `'`, `\'`)
	total, hit := map[string]int{}, map[string]int{}
	for _, row := range rows {
		payload, class := row[0], row[2]
		query := "SELECT name, price FROM items WHERE id = '" + payload + "' LIMIT 1"
		if class == "norm" {
			query = "SELECT name, price FROM items WHERE id = '" + quote.Replace(payload) + "' LIMIT 1"
		}
		event := &pipeline.Event{Dataset: pipeline.Dataset_MYSQL, Mysql: &pipeline.MySQLCommand{Command: "COM_QUERY", Query: query}}
		set.Evaluate([]*pipeline.Event{event})
		total[class]++
		if len(event.Verdicts) > 0 {
			hit[class]++
			if class == "norm" {
				t.Errorf("%s fired for %s", fired(event), query)
			}
		}
	}
	t.Logf("of %v: %v", total, hit)
	if hit["sqli"]*5 < total["sqli"]*2 {
		t.Errorf("of %v only %v", total, hit)
	}
}
