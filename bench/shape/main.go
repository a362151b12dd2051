// Command shape measures the code of a Go module: sizes, names, comments, nesting. It prints a table, so that
// two commits or two projects can be compared. The figures are for orientation: they point at code that is
// worth reading and replace no judgement.
//
//	go run ./bench/shape [FOLDER]                 the module in FOLDER, default the current folder
//	go run ./bench/shape -top 10 [FOLDER]         and the ten worst cases of each measure
//
// Generated files are left out. Tests count only for the ratio of test code to code.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

func main() {
	top := flag.Int("top", 0, "print this many of the worst cases of each measure")
	flag.Parse()
	root := "."
	if flag.NArg() > 0 {
		root = flag.Arg(0)
	}
	module, err := parseModule(root)
	if err != nil {
		fmt.Fprintln(os.Stderr, "shape:", err)
		os.Exit(1)
	}
	if len(module.files) == 0 {
		fmt.Fprintf(os.Stderr, "shape: no Go files under %s\n", root)
		os.Exit(1)
	}
	module.print(os.Stdout)
	if *top > 0 {
		module.printWorst(os.Stdout, *top)
	}
}

// parseModule measures every Go file below root that is neither generated nor test data.
func parseModule(root string) (*module, error) {
	measured := &module{packages: map[string]*packageShape{}}
	err := filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() {
			if path != root && (name == "testdata" || name == "vendor" || name[0] == '.' || name[0] == '_') {
				return filepath.SkipDir
			}
			return nil
		}
		if filepath.Ext(name) != ".go" {
			return nil
		}
		relative, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		return measured.addFile(path, relative)
	})
	slices.SortFunc(measured.functions, func(a, b function) int { return b.lines - a.lines })
	return measured, err
}
