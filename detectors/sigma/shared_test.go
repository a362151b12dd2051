package sigma_test

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tidegate/detectors/rules"
	"tidegate/detectors/sigma"
)

// update is the flag with which the tests rewrite generated files: `make golden` sets it.
var update = flag.Bool("update", false, "rewrite the generated files")

// sharedFiles returns the Sigma rules of the shared folder; the test is skipped without it.
func sharedFiles(t testing.TB) (out []sigma.Source) {
	t.Helper()
	shared := os.Getenv("TIDEGATE_SHARED")
	if shared == "" {
		t.Skip("TIDEGATE_SHARED names no folder with Sigma rules")
	}
	root := filepath.Join(shared, "data", "sigma")
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".yml") {
			return err
		}
		data, err := os.ReadFile(path)
		name, _ := filepath.Rel(root, path)
		out = append(out, sigma.Source{Name: name, Data: data})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestSharedRulesLoadOrAreRefused converts all Sigma rules of the shared folder. Each that is not refused
// must compile, and have a case that matches and one that does not, which pass.
func TestSharedRulesLoadOrAreRefused(t *testing.T) {
	all := sigma.Convert(sharedFiles(t))
	loaded := 0
	for _, c := range all {
		if c.Err != nil {
			t.Log(c.Err)
			continue
		}
		loaded++
		set, err := rules.Compile(rules.Default(), []rules.Source{{Name: c.File, Data: c.Text()}}, nil, nil)
		if err != nil {
			t.Errorf("%v\n%s", err, c.Text())
			continue
		}
		if !c.Examples {
			t.Errorf("%s: no examples\n%s", c.File, c.Text())
		}
		for _, result := range set.Test() {
			if !result.Passed {
				t.Errorf("%s: %+v\n%s", c.File, result, c.Text())
			}
		}
	}
	t.Logf("%d of %d rules load", loaded, len(all))
}

// TestExpressionsAgreeWithTheDetection compares the expressions of all shared rules with an evaluation of
// their detection, on samples in which some items hold and others do not. SIGMA_SAMPLES=FILE writes the
// samples down.
func TestExpressionsAgreeWithTheDetection(t *testing.T) {
	count := 60
	if testing.Short() {
		count = 5
	}
	var all []sigma.JudgedSample
	compared := 0
	for _, file := range sharedFiles(t) {
		samples := sigma.JudgedSamples(file, count)
		all = append(all, samples...)
		c := sigma.Convert([]sigma.Source{file})[0]
		if c.Err != nil {
			continue
		}
		set, err := rules.Compile(rules.Default(), []rules.Source{{Name: c.File, Data: sigma.CasesOf(file, samples)}}, nil, nil)
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		for i, result := range set.Test() {
			if compared++; !result.Passed && i < len(samples) {
				t.Errorf("%s: %v: %s", c.File, samples[i], result.Problem)
			}
		}
	}
	t.Logf("%d samples compared", compared)
	sigma.WriteSamples(t, all)
}

const manual = "../../docs/SIGMA.md"

// replaceSection returns a document with another text between the two comments of a section.
func replaceSection(t *testing.T, document, name, text string) string {
	t.Helper()
	begin, end := "<!-- "+name+": generated -->\n", "<!-- end of "+name+" -->"
	head, rest, found := strings.Cut(document, begin)
	_, tail, ends := strings.Cut(rest, end)
	if !found || !ends {
		t.Fatalf("%s has no section %s", manual, name)
	}
	return head + begin + "\n" + text + "\n" + end + tail
}

// checkSection requires that a section of the manual is as it is generated.
func checkSection(t *testing.T, name, text string) {
	t.Helper()
	data, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	want := replaceSection(t, string(data), name, text)
	switch {
	case want == string(data):
	case *update:
		if err := os.WriteFile(manual, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("the section %s of %s is stale: go test ./detectors/sigma -run Manual -update", name, manual)
	}
}

// TestManualHasAllSources compares the table of log sources in docs/SIGMA.md with the one of the package.
func TestManualHasAllSources(t *testing.T) { checkSection(t, "sources", sigma.Reference()) }

// TestManualHasAllSharedRules compares the table of rules in docs/SIGMA.md with what becomes of the shared
// rules.
func TestManualHasAllSharedRules(t *testing.T) {
	var out strings.Builder
	all := sigma.Convert(sharedFiles(t))
	loaded := 0
	escape := strings.NewReplacer("|", "\\|", "\n", " ", "<", "&lt;")
	fmt.Fprintf(&out, "| rule | author | log source | result |\n|---|---|---|---|\n")
	for _, c := range all {
		result := "loaded"
		if c.Err != nil {
			result = fmt.Sprintf("refused: %v", c.Err.Err)
		} else {
			loaded++
		}
		fmt.Fprintf(&out, "| %s (`%s`) | %s | %s | %s |\n", escape.Replace(c.Title), filepath.Base(c.File), escape.Replace(c.Author), c.Logsource, escape.Replace(result))
	}
	checkSection(t, "rules", fmt.Sprintf("%d of %d rules load.\n\n%s", loaded, len(all), out.String()))
}

// TestManualExamples converts the Sigma rules of docs/SIGMA.md.
func TestManualExamples(t *testing.T) {
	data, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(data), "```sigma\n")
	for ; found; _, rest, found = strings.Cut(rest, "```sigma\n") {
		text, _, _ := strings.Cut(rest, "```")
		for _, c := range sigma.Convert([]sigma.Source{{Name: manual, Data: []byte(text)}}) {
			if c.Err != nil || !c.Examples {
				t.Errorf("%v, examples: %v\n%s", c.Err, c.Examples, text)
				continue
			}
			set, err := rules.Compile(rules.Default(), []rules.Source{{Name: manual, Data: c.Text()}}, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, result := range set.Test() {
				if !result.Passed {
					t.Errorf("%+v", result)
				}
			}
		}
	}
}
