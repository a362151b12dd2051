package rules

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

var fence = regexp.MustCompile("(?ms)^```([a-z-]+)\n(.*?)^```$")

// blocks returns the code blocks of a kind in a document.
func blocks(t *testing.T, name, kind string) []string {
	t.Helper()
	document, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, match := range fence.FindAllStringSubmatch(string(document), -1) {
		if match[1] == kind {
			out = append(out, match[2])
		}
	}
	if len(out) == 0 {
		t.Fatalf("%s has no block of %s", name, kind)
	}
	return out
}

// TestRulesInDocumentsPassTheirTests: the rules in the documents are templates for authors.
func TestRulesInDocumentsPassTheirTests(t *testing.T) {
	for _, name := range []string{"../../docs/RULES.md", "../../README.md"} {
		for _, text := range blocks(t, name, "yaml") {
			set, err := compileText(t, text)
			if err != nil {
				t.Errorf("%s: %v\n%s", name, err, text)
				continue
			}
			var out strings.Builder
			if failed, _ := RunTests(&out, set, false); failed > 0 || len(set.Lints()) > 0 {
				t.Errorf("%s:\n%s%s", name, text, out.String())
			}
		}
	}
}

// TestExpressionsInDocumentsCompile: those in blocks of the kind expr compile, those of the kind no-expr do
// not.
func TestExpressionsInDocumentsCompile(t *testing.T) {
	for kind, want := range map[string]bool{"expr": true, "no-expr": false} {
		for _, text := range blocks(t, "../../docs/RULES.md", kind) {
			for line := range strings.Lines(text) {
				_, err := compileText(t, ruleYAML("r", strings.TrimSpace(line)))
				if (err == nil) != want {
					t.Errorf("%s %s: %v", kind, line, err)
				}
			}
		}
	}
}

// TestDocumentNamesEveryKeyAndFunction: docs/RULES.md names each key of a rule file and each function of an
// expression.
func TestDocumentNamesEveryKeyAndFunction(t *testing.T) {
	document, err := os.ReadFile("../../docs/RULES.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, form := range []any{
		yamlRule{}, yamlCorrelation{}, yamlFile{}, yamlListFile{}, yamlCase{}, yamlCaseEvent{}, yamlStep{}, yamlSequence{}, yamlDistinct{}, yamlSum{}, yamlAverage{}, yamlPercentile{}, yamlFirstSeen{}, yamlInterval{},
	} {
		for _, field := range reflect.VisibleFields(reflect.TypeOf(form)) {
			key := field.Tag.Get("yaml")
			if key == "" || key == ",inline" {
				continue
			}
			if !strings.Contains(string(document), "`"+key+"`") && !strings.Contains(string(document), key+":") {
				t.Errorf("docs/RULES.md does not name the key %s", key)
			}
		}
	}
	for _, function := range functions {
		if !strings.Contains(string(document), "`"+function+"(") && !strings.Contains(string(document), "`"+function+"`") {
			t.Errorf("docs/RULES.md does not name the function %s", function)
		}
	}
}
