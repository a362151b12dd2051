package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode/utf8"
)

// A row is one measure of the report. aim is empty where none is set.
type row struct{ name, value, aim string }

// print writes a table with one row for each measure.
func (m *module) print(out io.Writer) {
	table := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(table, "measure\tvalue\taim")
	for _, row := range m.rows() {
		fmt.Fprintf(table, "%s\t%s\t%s\n", row.name, row.value, row.aim)
	}
	table.Flush()
}

// rows returns the measures in the order of the report: sizes, comments, names, layout.
func (m *module) rows() []row {
	longLines := fmt.Sprintf("%.1f", 1000*ratio(len(m.longLines), m.codeLines))
	return slices.Concat(m.sizeRows(), m.commentRows(), m.nameRows(), []row{
		{"lines of more than 120 columns per 1,000 code lines", longLines, "≤ 10"},
		{"blank lines", percent(m.blankLines, m.codeLines+m.commentLines+m.blankLines), ""},
	})
}

// sizeRows returns the measures of size: files, functions, structs.
func (m *module) sizeRows() []row {
	fileLines := collect(m.files, func(f file) int { return f.lines })
	lines := collect(m.functions, func(f function) int { return f.lines })
	complexity := collect(m.functions, func(f function) int { return f.complexity })
	nesting := collect(m.functions, func(f function) int { return f.nesting })
	parameters := collect(m.functions, func(f function) int { return f.parameters })
	fields := collect(m.structs, func(s structShape) int { return s.fields })
	mostMethods := 0
	for _, pkg := range m.packages {
		for _, methods := range pkg.methods {
			mostMethods = max(mostMethods, methods)
		}
	}
	manyParameters := fmt.Sprintf("%d; %d", above(parameters, 5), quantile(parameters, 100))
	return []row{
		{"files / packages", fmt.Sprintf("%d / %d", len(m.files), len(m.packages)), ""},
		{"code lines, test / code", fmt.Sprintf("%d, %.2f", m.codeLines, ratio(m.testLines, m.codeLines)), ""},
		{"file lines, median / p90 / max", quantiles(fileLines, 50, 90, 100), ""},
		{"function lines, median / p90 / p99 / max", quantiles(lines, 50, 90, 99, 100), "p99 ≤ 60"},
		{"cyclomatic complexity, p99 / max", quantiles(complexity, 99, 100), ""},
		{"deepest nesting; functions deeper than 4", maximumAndAbove(nesting, 4), ""},
		{"functions with more than 5 parameters; most", manyParameters, ""},
		{"largest struct; structs of more than 30 fields", maximumAndAbove(fields, 30), "none on a path"},
		{"most methods on one type", fmt.Sprint(mostMethods), ""},
	}
}

// commentRows returns the measures of comments.
func (m *module) commentRows() []row {
	documentedPackages := 0
	for _, pkg := range m.packages {
		if pkg.hasDoc {
			documentedPackages++
		}
	}
	// The doc of a short function adds little, so only longer ones count.
	long := m.unexported(func(f function) bool { return f.lines >= 8 })
	documented := m.unexported(func(f function) bool { return f.lines >= 8 && f.hasDoc })
	perCodeLine := fmt.Sprintf("%.2f", ratio(m.commentLines, m.codeLines))
	inBodies := fmt.Sprintf("%.1f", 100*ratio(m.bodyCommentLines, m.bodyLines))
	return []row{
		{"packages with doc", percent(documentedPackages, len(m.packages)), "100 %"},
		{"exported names with doc", percent(m.exportedWithDoc, m.exported), ""},
		{"unexported functions of 8 lines and more with doc", percent(len(documented), len(long)), ""},
		{"comment lines per code line", perCodeLine, ""},
		{"comment lines per 100 lines inside bodies", inBodies, "≥ 4"},
	}
}

// nameRows returns the measures of names.
func (m *module) nameRows() []row {
	unexported := len(m.unexported(func(function) bool { return true }))
	short, shared := m.shortNames(), m.sharedNames()
	sharedShare := fmt.Sprintf("%s (%d names)", percent(total(shared), unexported), len(shared))
	letters := collect(m.locals, func(p location) int { return utf8.RuneCountInString(p.text) })
	oneLetter := percent(len(letters)-above(letters, 1), len(letters))
	return []row{
		{"unexported function names of at most 5 letters", percent(len(short), unexported), "≤ 17 %"},
		{"unexported functions whose name is on 4 and more receivers", sharedShare, "≤ 5 %"},
		{"local names: median letters; of one letter", fmt.Sprintf("%d; %s", quantile(letters, 50), oneLetter), "≤ 15 %"},
	}
}

// printWorst writes the worst cases of each measure, at most limit of each.
func (m *module) printWorst(out io.Writer, limit int) {
	table := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	defer table.Flush()
	section := func(title string) { fmt.Fprintf(table, "\n%s\n", title) }

	// The functions are sorted by length, see parseModule.
	section("longest functions")
	for _, f := range m.functions[:min(limit, len(m.functions))] {
		fmt.Fprintf(table, "  %s\t%s\t%d\n", f.at, f.name, f.lines)
	}

	section("most complex functions")
	byComplexity := slices.SortedFunc(slices.Values(m.functions), func(a, b function) int {
		return b.complexity - a.complexity
	})
	for _, f := range byComplexity[:min(limit, len(byComplexity))] {
		fmt.Fprintf(table, "  %s\t%s\t%d\n", f.at, f.name, f.complexity)
	}

	section("largest structs")
	byFields := slices.SortedFunc(slices.Values(m.structs), func(a, b structShape) int {
		return b.fields - a.fields
	})
	for _, s := range byFields[:min(limit, len(byFields))] {
		fmt.Fprintf(table, "  %s\t%s\t%d\n", s.at, s.name, s.fields)
	}

	// The other sections count names and lines.
	section("names of unexported functions on 4 and more receivers")
	printCounts(table, m.sharedNames(), limit)

	section("short names of unexported functions")
	printCounts(table, tally(m.shortNames(), func(f function) string { return f.name }), limit)

	section("local names of one letter")
	oneLetter := slices.DeleteFunc(slices.Clone(m.locals), func(p location) bool {
		return utf8.RuneCountInString(p.text) > 1
	})
	printCounts(table, tally(oneLetter, func(p location) string { return p.text }), limit)

	section("lines of more than 120 columns, by file")
	printCounts(table, tally(m.longLines, func(p location) string { return p.at[:strings.IndexByte(p.at, ':')] }), limit)
}

// unexported returns the unexported functions that keep accepts, without main and init.
func (m *module) unexported(keep func(function) bool) []function {
	var kept []function
	for _, f := range m.functions {
		if !f.exported && f.name != "main" && f.name != "init" && f.name != "_" && keep(f) {
			kept = append(kept, f)
		}
	}
	return kept
}

// shortNames returns the unexported functions with a name of at most five letters.
func (m *module) shortNames() []function {
	return m.unexported(func(f function) bool { return utf8.RuneCountInString(f.name) <= 5 })
}

// sharedNames returns the names that at least four unexported functions have, each with the number of these
// functions.
func (m *module) sharedNames() map[string]int {
	names := tally(m.unexported(func(function) bool { return true }), func(f function) string { return f.name })
	maps.DeleteFunc(names, func(_ string, n int) bool { return n < 4 })
	return names
}

// tally counts the elements of list by their key.
func tally[T any](list []T, key func(T) string) map[string]int {
	counts := map[string]int{}
	for _, element := range list {
		counts[key(element)]++
	}
	return counts
}

// printCounts writes the names with the highest counts, at most limit.
func printCounts(out io.Writer, counts map[string]int, limit int) {
	names := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(counts[b]-counts[a], cmp.Compare(a, b))
	})
	for _, name := range names[:min(limit, len(names))] {
		fmt.Fprintf(out, "  %s\t%d\n", name, counts[name])
	}
}

// collect returns the values of a measure over list, sorted.
func collect[T any](list []T, measure func(T) int) []int {
	values := make([]int, 0, len(list))
	for _, element := range list {
		values = append(values, measure(element))
	}
	slices.Sort(values)
	return values
}

// quantiles returns the quantiles of sorted values, separated by slashes.
func quantiles(sorted []int, percents ...int) string {
	var parts []string
	for _, percent := range percents {
		parts = append(parts, fmt.Sprint(quantile(sorted, percent)))
	}
	return strings.Join(parts, " / ")
}

// quantile returns the value that percent of the sorted values do not exceed, or 0 if there are none.
func quantile(sorted []int, percent int) int {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, len(sorted)*percent/100)]
}

// maximumAndAbove returns the largest of sorted values and the number of those above limit.
func maximumAndAbove(sorted []int, limit int) string {
	return fmt.Sprintf("%d; %d", quantile(sorted, 100), above(sorted, limit))
}

// above returns the number of sorted values that are greater than limit.
func above(sorted []int, limit int) int {
	at, _ := slices.BinarySearch(sorted, limit+1)
	return len(sorted) - at
}

// total returns the sum of all counts.
func total(counts map[string]int) int {
	sum := 0
	for _, count := range counts {
		sum += count
	}
	return sum
}

// ratio returns a / b, or 0 if b is 0.
func ratio(a, b int) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}

func percent(part, whole int) string { return fmt.Sprintf("%.1f %%", 100*ratio(part, whole)) }
