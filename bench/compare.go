package main

import (
	_ "embed"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// renamedBenchmarks lists the benchmarks that were renamed or moved since 1b86dc3, so that a file measured
// before compares with one measured after.
//
//go:embed renamed.txt
var renamedBenchmarks string

// compare prints the best value and the median of both files for each figure that they share, and the ratio
// of the best values. The figures of one file alone are listed below.
func (o *options) compare(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("compare: two files are needed, the old one first")
	}
	before, err := readFigures(args[0])
	if err != nil {
		return err
	}
	after, err := readFigures(args[1])
	if err != nil {
		return err
	}

	fmt.Fprintf(o.out, "%-72s %14s %14s %14s %14s %8s\n",
		"", "old best", "old median", "new best", "new median", "ratio")
	for _, key := range before.order {
		was, is := before.values[key], after.values[key]
		if len(is) == 0 {
			continue
		}

		// The best value comes first: the least of costs, the most of rates.
		slices.Sort(was)
		slices.Sort(is)
		if strings.HasSuffix(key, "/s") || strings.HasSuffix(key, "/cpu-s") {
			slices.Reverse(was)
			slices.Reverse(is)
		}
		ratio := "same"
		if was[0] != 0 && was[0] != is[0] {
			ratio = fmt.Sprintf("%.3f", is[0]/was[0])
		}
		fmt.Fprintf(o.out, "%-72s %14.6g %14.6g %14.6g %14.6g %8s\n",
			key, was[0], was[len(was)/2], is[0], is[len(is)/2], ratio)
	}

	o.listMissing("only in the old file", before, after)
	o.listMissing("only in the new file", after, before)
	return nil
}

// listMissing lists the benchmarks of one file that the other does not have.
func (o *options) listMissing(title string, has, lacks figures) {
	var names []string
	for _, key := range has.order {
		name, _, _ := strings.Cut(key, " ")
		if lacks.values[key] == nil && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) > 0 {
		fmt.Fprintf(o.out, "\n%s:\n  %s\n", title, strings.Join(names, "\n  "))
	}
}

// figures holds the values of a file of benchmark lines.
type figures struct {
	values map[string][]float64 // by key: "package.Benchmark unit", or "Benchmark unit" outside a package
	order  []string             // keys in the order of the file
}

// readFigures reads the lines that `go test -bench` or this program printed. A benchmark with an earlier name
// is listed under its present name.
func readFigures(path string) (figures, error) {
	data, err := os.ReadFile(path) //nolint:gosec // the user names it
	if err != nil {
		return figures{}, err
	}
	result, pkg := figures{values: map[string][]float64{}}, ""
	for line := range strings.Lines(string(data)) {
		columns := strings.Fields(line)
		if len(columns) == 2 && columns[0] == "pkg:" {
			pkg = strings.TrimPrefix(columns[1], "tidegate/") + "." // of the lines that follow
		}
		if len(columns) < 4 || !strings.HasPrefix(columns[0], "Benchmark") {
			continue
		}

		name := presentName(pkg + strings.TrimPrefix(columns[0], "Benchmark"))
		// Columns: the name, the number of iterations, then pairs of value and unit.
		for i := 2; i+1 < len(columns); i += 2 {
			value, err := strconv.ParseFloat(columns[i], 64)
			if err != nil {
				break
			}
			key := name + " " + columns[i+1]
			if result.values[key] == nil {
				result.order = append(result.order, key)
			}
			result.values[key] = append(result.values[key], value)
		}
	}
	if len(result.order) == 0 {
		return figures{}, fmt.Errorf("%s holds no lines of benchmarks", path)
	}
	return result, nil
}

// presentName returns the name that a benchmark has now, with the suffix of its case and of GOMAXPROCS.
func presentName(name string) string {
	for line := range strings.Lines(renamedBenchmarks) {
		earlier, present, _ := strings.Cut(strings.TrimSpace(line), " ")
		suffix, ok := strings.CutPrefix(name, earlier)
		if ok && earlier != "" && (suffix == "" || suffix[0] == '/' || suffix[0] == '-') {
			return strings.TrimSpace(present) + suffix
		}
	}
	return name
}
