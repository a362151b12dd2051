package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// report collects what became of the mutants. It is safe for concurrent use.
type report struct {
	mu       sync.Mutex
	wanted   int
	verbose  bool
	counts   map[string]map[outcome]int // by package
	survived []*mutant
}

// add records a mutant, prints one that survived, and draws the progress.
func (r *report) add(m *mutant, became outcome, by string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.counts == nil {
		r.counts = map[string]map[outcome]int{}
	}
	path := m.function.pkg.path
	if r.counts[path] == nil {
		r.counts[path] = map[outcome]int{}
	}
	r.counts[path][became]++
	fmt.Fprint(os.Stderr, "\r\x1b[K")
	switch became {
	case survived:
		r.survived = append(r.survived, m)
		fmt.Printf("survived  %s\n", m.describe())
	case notTested:
		fmt.Printf("not tested (%s)  %s\n", by, m.describe())
	case killed, killedByImporter, timedOut:
		if r.verbose {
			fmt.Printf("%s  %s  (%s)\n", became, m.describe(), by)
		}
	}
	built := r.built()
	fmt.Fprintf(os.Stderr, "mutate: %d of %d, %d survived", built, r.wanted, len(r.survived))
}

// built returns the number of mutants that compiled and were tested.
func (r *report) built() int {
	sum := 0
	for _, counts := range r.counts {
		sum += counts[killed] + counts[killedByImporter] + counts[timedOut] + counts[survived]
	}
	return sum
}

// score returns the share of killed mutants in percent, 100 if there is none.
func (r *report) score() float64 {
	built := r.built()
	if built == 0 {
		return 100
	}
	return 100 * float64(built-len(r.survived)) / float64(built)
}

func (r *report) print(to io.Writer, took time.Duration) {
	fmt.Fprint(os.Stderr, "\r\x1b[K")
	table := tabwriter.NewWriter(to, 0, 0, 2, ' ', tabwriter.AlignRight)
	columns := []outcome{killed, killedByImporter, timedOut, survived, notBuilt}
	fmt.Fprint(table, "package\t")
	for _, column := range columns {
		fmt.Fprintf(table, "%s\t", column)
	}
	fmt.Fprintln(table)
	paths := make([]string, 0, len(r.counts))
	for path := range r.counts {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	for _, path := range paths {
		fmt.Fprintf(table, "%s\t", strings.TrimPrefix(path, "tidegate/"))
		for _, column := range columns {
			fmt.Fprintf(table, "%d\t", r.counts[path][column])
		}
		fmt.Fprintln(table)
	}
	_ = table.Flush()
	fmt.Fprintf(to, "%d mutants, %.0f %% killed, %s\n", r.built(), r.score(), took.Round(time.Second))
}
