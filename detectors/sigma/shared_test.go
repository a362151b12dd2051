package sigma_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tidegate/detectors/rules"
	"tidegate/detectors/sigma"
)

// sharedFiles returns the Sigma rules of the shared folder; the test is skipped without it.
func sharedFiles(t *testing.T) (out []sigma.Source) {
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

// TestSharedRulesLoadOrAreRefused converts all Sigma rules of the shared folder. Each that is not refused must compile,
// and have a case that matches and one that does not, which pass.
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
