package rules

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

var fence = regexp.MustCompile("(?ms)^```([a-z-]+)\n(.*?)^```$")

// blocks returns the fenced blocks of a kind in a document.
func blocks(t *testing.T, name, kind string) []string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range fence.FindAllStringSubmatch(string(b), -1) {
		if m[1] == kind {
			out = append(out, m[2])
		}
	}
	if len(out) == 0 {
		t.Fatalf("%s has no block of %s", name, kind)
	}
	return out
}

// TestRulesInDocumentsPassTheirTests: authors begin with a copy of one.
func TestRulesInDocumentsPassTheirTests(t *testing.T) {
	for _, name := range []string{"../../docs/RULES.md", "../../README.md"} {
		for _, text := range blocks(t, name, "yaml") {
			set, err := compileText(t, text)
			if err != nil {
				t.Errorf("%s: %v\n%s", name, err, text)
				continue
			}
			var out strings.Builder
			if n := RunTests(&out, set, false); n > 0 || len(set.Lints()) > 0 {
				t.Errorf("%s:\n%s%s", name, text, out.String())
			}
		}
	}
}

func TestExpressionsInDocumentsCompileOrNotAsSaid(t *testing.T) {
	for kind, want := range map[string]bool{"expr": true, "no-expr": false} {
		for _, text := range blocks(t, "../../docs/RULES.md", kind) {
			for line := range strings.Lines(text) {
				if _, err := compileText(t, ruleYAML("r", strings.TrimSpace(line))); (err == nil) != want {
					t.Errorf("%s %s: %v", kind, line, err)
				}
			}
		}
	}
}

// TestTheDocumentNamesEveryKeyAndFunction: a new key or function must be documented.
func TestTheDocumentNamesEveryKeyAndFunction(t *testing.T) {
	b, err := os.ReadFile("../../docs/RULES.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, form := range []any{yamlRule{}, yamlFile{}, yamlCase{}} {
		for _, f := range reflect.VisibleFields(reflect.TypeOf(form)) {
			k := f.Tag.Get("yaml")
			if k == "" {
				continue
			}
			if !strings.Contains(string(b), "`"+k+"`") && !strings.Contains(string(b), k+":") {
				t.Errorf("docs/RULES.md does not name the key %s", k)
			}
		}
	}
	for _, f := range functions {
		if !strings.Contains(string(b), "`"+f+"(") && !strings.Contains(string(b), "`"+f+"`") {
			t.Errorf("docs/RULES.md does not name the function %s", f)
		}
	}
}
