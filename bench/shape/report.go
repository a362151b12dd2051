package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"unicode/utf8"
)

// A row of the report: the value, and the aim where there is one.
type row struct{ name, value, aim string }

// print writes one row a measure.
func (m *module) print(out io.Writer) {
	table := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(table, "measure\tvalue\taim")
	for _, r := range m.rows() {
		fmt.Fprintf(table, "%s\t%s\t%s\n", r.name, r.value, r.aim)
	}
	table.Flush()
}

func (m *module) rows() []row {
	fileLines := collect(m.files, func(f file) int { return f.lines })
	lines := collect(m.functions, func(f function) int { return f.lines })
	complexity := collect(m.functions, func(f function) int { return f.complexity })
	nesting := collect(m.functions, func(f function) int { return f.nesting })
	parameters := collect(m.functions, func(f function) int { return f.parameters })
	fields := collect(m.structs, func(s structShape) int { return s.fields })
	names := collect(m.locals, func(p place) int { return utf8.RuneCountInString(p.text) })
	short, shared := m.shortNames(), m.sharedNames()
	unexported := m.unexported(func(function) bool { return true })
	long := m.unexported(func(f function) bool { return f.lines >= 8 })
	documented := m.unexported(func(f function) bool { return f.lines >= 8 && f.hasDoc })
	methods := 0
	documentedPackages := 0
	for _, packageShape := range m.packages {
		for _, n := range packageShape.methods {
			methods = max(methods, n)
		}
		if packageShape.hasDoc {
			documentedPackages++
		}
	}
	return []row{
		{"files / packages", fmt.Sprintf("%d / %d", len(m.files), len(m.packages)), ""},
		{"code lines, test / code", fmt.Sprintf("%d, %.2f", m.codeLines, ratio(m.testLines, m.codeLines)), ""},
		{"file lines, median / p90 / max", fmt.Sprintf("%d / %d / %d", quantile(fileLines, 50), quantile(fileLines, 90), quantile(fileLines, 100)), ""},
		{"function lines, median / p90 / p99 / max", fmt.Sprintf("%d / %d / %d / %d", quantile(lines, 50), quantile(lines, 90), quantile(lines, 99), quantile(lines, 100)), "p99 ≤ 60"},
		{"cyclomatic complexity, p99 / max", fmt.Sprintf("%d / %d", quantile(complexity, 99), quantile(complexity, 100)), ""},
		{"deepest nesting; functions deeper than 4", fmt.Sprintf("%d; %d", quantile(nesting, 100), above(nesting, 4)), ""},
		{"functions with more than 5 parameters; most", fmt.Sprintf("%d; %d", above(parameters, 5), quantile(parameters, 100)), ""},
		{"largest struct; structs of more than 30 fields", fmt.Sprintf("%d; %d", quantile(fields, 100), above(fields, 30)), "none on a path"},
		{"most methods on one type", fmt.Sprint(methods), ""},
		{"packages with doc", percent(documentedPackages, len(m.packages)), "100 %"},
		{"exported names with doc", percent(m.exportedWithDoc, m.exported), ""},
		{"unexported functions of 8 lines and more with doc", percent(len(documented), len(long)), ""},
		{"comment lines per code line", fmt.Sprintf("%.2f", ratio(m.commentLines, m.codeLines)), ""},
		{"comment lines per 100 lines inside bodies", fmt.Sprintf("%.1f", 100*ratio(m.bodyCommentLines, m.bodyLines)), "≥ 4"},
		{"unexported function names of at most 5 letters", percent(len(short), len(unexported)), "≤ 17 %"},
		{"unexported functions whose name is on 4 and more receivers", fmt.Sprintf("%s (%d names)", percent(total(shared), len(unexported)), len(shared)), "≤ 5 %"},
		{"local names: median letters; of one letter", fmt.Sprintf("%d; %s", quantile(names, 50), percent(len(names)-above(names, 1), len(names))), "≤ 15 %"},
		{"lines of more than 120 columns per 1,000 code lines", fmt.Sprintf("%.1f", 1000*ratio(len(m.longLines), m.codeLines)), "≤ 10"},
		{"blank lines", percent(m.blankLines, m.codeLines+m.commentLines+m.blankLines), ""},
	}
}

// printWorst writes the places that pull the measures up: n of each.
func (m *module) printWorst(out io.Writer, n int) {
	table := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	defer table.Flush()
	section := func(title string) { fmt.Fprintf(table, "\n%s\n", title) }

	section("longest functions")
	for _, f := range m.functions[:min(n, len(m.functions))] {
		fmt.Fprintf(table, "  %s\t%s\t%d\n", f.at, f.name, f.lines)
	}
	section("most complex functions")
	byComplexity := slices.SortedFunc(slices.Values(m.functions), func(a, b function) int { return b.complexity - a.complexity })
	for _, f := range byComplexity[:min(n, len(byComplexity))] {
		fmt.Fprintf(table, "  %s\t%s\t%d\n", f.at, f.name, f.complexity)
	}
	section("largest structs")
	byFields := slices.SortedFunc(slices.Values(m.structs), func(a, b structShape) int { return b.fields - a.fields })
	for _, s := range byFields[:min(n, len(byFields))] {
		fmt.Fprintf(table, "  %s\t%s\t%d\n", s.at, s.name, s.fields)
	}
	section("names of unexported functions on 4 and more receivers")
	printCounts(table, m.sharedNames(), n)
	section("short names of unexported functions")
	printCounts(table, tally(m.shortNames(), func(f function) string { return f.name }), n)
	section("local names of one letter")
	oneLetter := slices.DeleteFunc(slices.Clone(m.locals), func(p place) bool { return utf8.RuneCountInString(p.text) > 1 })
	printCounts(table, tally(oneLetter, func(p place) string { return p.text }), n)
	section("lines of more than 120 columns, by file")
	printCounts(table, tally(m.longLines, func(p place) string { return p.at[:slices.Index([]byte(p.at), ':')] }), n)
}

func (m *module) unexported(keep func(function) bool) []function {
	var kept []function
	for _, f := range m.functions {
		if !f.exported && f.name != "main" && f.name != "init" && f.name != "_" && keep(f) {
			kept = append(kept, f)
		}
	}
	return kept
}

func (m *module) shortNames() []function {
	return m.unexported(func(f function) bool { return utf8.RuneCountInString(f.name) <= 5 })
}

// sharedNames returns the names that unexported functions of at least four receivers or packages have, and
// how many functions.
func (m *module) sharedNames() map[string]int {
	names := tally(m.unexported(func(function) bool { return true }), func(f function) string { return f.name })
	maps.DeleteFunc(names, func(_ string, n int) bool { return n < 4 })
	return names
}

func tally[T any](list []T, key func(T) string) map[string]int {
	counts := map[string]int{}
	for _, x := range list {
		counts[key(x)]++
	}
	return counts
}

func printCounts(out io.Writer, counts map[string]int, n int) {
	names := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(counts[b]-counts[a], cmp.Compare(a, b))
	})
	for _, name := range names[:min(n, len(names))] {
		fmt.Fprintf(out, "  %s\t%d\n", name, counts[name])
	}
}

// collect returns the sorted values of f over list.
func collect[T any](list []T, f func(T) int) []int {
	values := make([]int, 0, len(list))
	for _, x := range list {
		values = append(values, f(x))
	}
	slices.Sort(values)
	return values
}

func quantile(sorted []int, percent int) int {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, len(sorted)*percent/100)]
}

func above(sorted []int, limit int) int {
	at, _ := slices.BinarySearch(sorted, limit+1)
	return len(sorted) - at
}

func total(counts map[string]int) int {
	sum := 0
	for _, n := range counts {
		sum += n
	}
	return sum
}

func ratio(a, b int) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}

func percent(part, whole int) string { return fmt.Sprintf("%.1f %%", 100*ratio(part, whole)) }
