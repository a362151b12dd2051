package main

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

type goPackage struct {
	ImportPath, Dir, Name, Doc string
	Imports                    []string
}

func packages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,Name,Doc,Imports", "tidegate/...")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var ps []goPackage
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return ps
		} else if err != nil {
			t.Fatal(err)
		}
		ps = append(ps, p)
	}
}

// TestImportsPointOneWay: pipeline ← protocols ← collector, pipeline ← detectors ← models, and only cmd and
// bench wire them together.
func TestImportsPointOneWay(t *testing.T) {
	may := map[string]string{ // by top-level folder: the folders that it may import
		"pipeline": "pipeline", "protocols": "protocols pipeline", "collector": "collector protocols pipeline",
		"detectors": "detectors pipeline rules", "models": "models detectors pipeline", "rules": "rules",
		"cmd": "*", "bench": "*", "deploy": "*",
	}
	top := func(path string) string {
		rest, ours := strings.CutPrefix(path, "tidegate/")
		if !ours {
			return ""
		}
		folder, _, _ := strings.Cut(rest, "/")
		return folder
	}
	for _, p := range packages(t) {
		allowed, known := may[top(p.ImportPath)]
		if !known {
			t.Errorf("%s: %s is not one of the top-level folders", p.ImportPath, top(p.ImportPath))
		}
		for _, i := range p.Imports {
			if to := top(i); to != "" && allowed != "*" && !strings.Contains(" "+allowed+" ", " "+to+" ") {
				t.Errorf("%s imports %s: %s may import only %s", p.ImportPath, i, top(p.ImportPath), allowed)
			}
			// A contract does not import its parts.
			if rest, ours := strings.CutPrefix(p.ImportPath, "tidegate/"); ours && !strings.Contains(rest, "/") && rest != "detectors" && rest != "bench" && strings.HasPrefix(i, p.ImportPath+"/") {
				t.Errorf("%s imports its own part %s", p.ImportPath, i)
			}
		}
	}
}

// TestEveryPackageHasADocComment requires a doc comment of more than a few words.
func TestEveryPackageHasADocComment(t *testing.T) {
	for _, p := range packages(t) {
		if len(strings.Fields(p.Doc)) < 8 {
			t.Errorf("%s (%s): its doc comment does not say what it is for: %q", p.ImportPath, filepath.Base(p.Dir), p.Doc)
		}
	}
}
