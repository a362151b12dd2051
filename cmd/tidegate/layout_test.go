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

// A goPackage holds the fields of `go list` that the tests read.
type goPackage struct {
	ImportPath, Dir, Name, Doc string
	Imports                    []string
}

// packages returns the packages of this module.
func packages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,Name,Doc,Imports", "tidegate/...")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var list []goPackage
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var decoded goPackage
		if err := decoder.Decode(&decoded); errors.Is(err, io.EOF) {
			return list
		} else if err != nil {
			t.Fatal(err)
		}
		list = append(list, decoded)
	}
}

// TestImportsPointOneWay requires pipeline ← protocols ← collector and pipeline ← detectors ← models. Only
// cmd and bench may import all of them.
func TestImportsPointOneWay(t *testing.T) {
	importable := map[string]string{ // by top-level folder: the folders that it may import
		"pipeline": "pipeline", "protocols": "protocols pipeline", "collector": "collector protocols pipeline",
		"detectors": "detectors pipeline rules", "models": "models detectors pipeline", "rules": "rules",
		"cmd": "*", "bench": "*", "deploy": "*",
	}
	// topFolder returns the top-level folder of one of our packages, or "".
	topFolder := func(path string) string {
		rest, ours := strings.CutPrefix(path, "tidegate/")
		if !ours {
			return ""
		}
		folder, _, _ := strings.Cut(rest, "/")
		return folder
	}
	for _, pkg := range packages(t) {
		folder := topFolder(pkg.ImportPath)
		allowed, known := importable[folder]
		if !known {
			t.Errorf("%s: %s is not one of the top-level folders", pkg.ImportPath, folder)
		}
		// The package of a top-level folder holds the contract of the packages below and imports none of
		// them.
		isContract := pkg.ImportPath == "tidegate/"+folder && folder != "detectors" && folder != "bench"
		for _, imported := range pkg.Imports {
			if to := topFolder(imported); to != "" && allowed != "*" && !strings.Contains(" "+allowed+" ", " "+to+" ") {
				t.Errorf("%s imports %s: %s may import only %s", pkg.ImportPath, imported, folder, allowed)
			}
			if isContract && strings.HasPrefix(imported, pkg.ImportPath+"/") {
				t.Errorf("%s imports its own part %s", pkg.ImportPath, imported)
			}
		}
	}
}

// TestEveryPackageHasADocComment requires a doc comment of more than a few words.
func TestEveryPackageHasADocComment(t *testing.T) {
	for _, pkg := range packages(t) {
		if len(strings.Fields(pkg.Doc)) < 8 {
			t.Errorf("%s (%s): its doc comment does not describe its purpose: %q",
				pkg.ImportPath, filepath.Base(pkg.Dir), pkg.Doc)
		}
	}
}
