package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// sample is a file whose measures are known.
const sample = `// Package sample is measured.
package sample

// Exported has a doc.
func Exported(a, b, c, d, e, f int) int {
	x := 1 // behind code
	// alone
	for index, v := range []int{a, b} {
		if v > 0 && index > 0 {
			x++
		}
	}
	return x
}

type Undocumented struct{ a, b int }

func (Undocumented) add() {}
`

// TestKnownModuleHasKnownMeasures also checks that tests, generated files and test data are left out.
func TestKnownModuleHasKnownMeasures(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("sample.go", sample)
	write("sample_test.go", "package sample\n\nvar one = 1\n")
	write("made.pb.go", "package sample\n\nfunc x() {}\n")
	write("testdata/not.go", "this is not Go")
	for _, folder := range []string{"a", "b", "c"} {
		write(folder+"/a.go", "package "+folder+"\n\nfunc add() {} // "+strings.Repeat("wide ", 30)+"\n")
	}
	measured, err := parseModule(dir)
	if err != nil {
		t.Fatal(err)
	}

	values := map[string]string{}
	for _, row := range measured.rows() {
		values[row.name] = row.value
	}
	check := func(name, want string) {
		t.Helper()
		if values[name] != want {
			t.Errorf("%s: %q, want %q", name, values[name], want)
		}
	}
	check("files / packages", "4 / 4")
	check("code lines, test / code", "18, 0.11")
	check("function lines, median / p90 / p99 / max", "1 / 10 / 10 / 10")
	check("cyclomatic complexity, p99 / max", "4 / 4")
	check("deepest nesting; functions deeper than 4", "2; 0")
	check("functions with more than 5 parameters; most", "1; 6")
	check("largest struct; structs of more than 30 fields", "2; 0")
	check("packages with doc", "25.0 %")
	check("exported names with doc", "50.0 %")
	check("comment lines per 100 lines inside bodies", "25.0")
	check("unexported function names of at most 5 letters", "100.0 %")
	check("unexported functions whose name is on 4 and more receivers", "100.0 % (1 names)")
	check("local names: median letters; of one letter", "1; 66.7 %")
	check("lines of more than 120 columns per 1,000 code lines", "166.7")

	var out strings.Builder
	measured.print(&out)
	measured.printWorst(&out, 3)
	if !strings.Contains(out.String(), "sample.go:5") {
		t.Errorf("the report does not name the longest function:\n%s", out.String())
	}
}

func TestFileThatDoesNotParseIsNamed(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "broken.go"), []byte("package broken\nfunc {"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := parseModule(dir); err == nil || !strings.Contains(err.Error(), "broken.go") {
		t.Errorf("error %v, want one that names broken.go", err)
	}
}
