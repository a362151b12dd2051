package clickhouse_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tidegate/pipeline/clickhouse"
)

var update = flag.Bool("update", false, "rewrite the generated files")

// TestGeneratedFilesAreFresh: docs/FIELDS.md and deploy/schema.sql follow from the field table.
func TestGeneratedFilesAreFresh(t *testing.T) {
	schema := "-- The tables of tidegate as `tidegate` makes them by itself with the default configuration.\n" +
		"-- Generated: go test ./pipeline/clickhouse -run Generated -update\n\n" + strings.Join(clickhouse.DDL(), ";\n\n") + ";\n"
	for path, want := range map[string]string{
		filepath.Join("..", "..", "docs", "FIELDS.md"):    clickhouse.FieldsMarkdown(),
		filepath.Join("..", "..", "deploy", "schema.sql"): schema,
	} {
		if *update {
			if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
		} else if string(got) != want {
			t.Errorf("%s is stale: go test ./pipeline/clickhouse -run Generated -update", path)
		}
	}
}
