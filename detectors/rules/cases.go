package rules

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/protobuf/proto"

	"tidegate/pipeline"
)

// A Result is one test case of a rule.
type Result struct {
	Rule    string        `json:"rule"`
	Case    string        `json:"case"`
	File    string        `json:"file"`
	Line    int           `json:"line"`
	Want    bool          `json:"want"`
	Got     bool          `json:"got"`
	Passed  bool          `json:"passed"`
	Problem string        `json:"problem,omitempty"`
	Also    []string      `json:"also,omitempty"` // other rules that fired for the same event
	Took    time.Duration `json:"took_ns"`
}

// Test runs every case of every rule: the whole set judges its event, through the index, as in production. A rule without a case
// that fires and one that must not fails by that.
func (s *Set) Test() []Result {
	var out []Result
	for _, r := range s.rules {
		fires, quiet := false, false
		for _, c := range r.Tests {
			if c.Fires {
				fires = true
			} else {
				quiet = true
			}
			out = append(out, s.runCase(r, c))
		}
		if !fires || !quiet {
			lacks := "a case that fires"
			if fires {
				lacks = "a case that must not fire"
			}
			out = append(out, Result{Rule: r.ID, Case: "coverage", File: r.File, Line: r.Line, Problem: "the rule lacks " + lacks})
		}
	}
	return out
}

func (s *Set) runCase(r *Rule, c Case) Result {
	out := Result{Rule: r.ID, Case: c.Name, File: r.File, Line: c.Line, Want: c.Fires}
	e := proto.Clone(c.event).(*pipeline.Event)
	began := time.Now()
	s.Evaluate([]*pipeline.Event{e})
	out.Took = time.Since(began)
	for _, v := range e.Verdicts {
		if v.Rule == r.ID {
			out.Got = true
		} else {
			out.Also = append(out.Also, v.Rule)
		}
	}
	out.Passed = out.Got == out.Want
	switch {
	case out.Passed:
	case out.Want:
		out.Problem = "must fire, did not"
	default:
		out.Problem = "must not fire, did"
	}
	return out
}

// RunTests tests set and writes what came of it: a line per failure, a table of all rules if verbose, lints, one line of summary.
// It returns how many failed.
func RunTests(w io.Writer, set *Set, verbose bool) (failed int) {
	began := time.Now()
	results := set.Test()
	took := time.Since(began)
	cases := 0
	for _, r := range results {
		if r.Case != "coverage" || r.Passed {
			cases++
		}
		if r.Passed {
			continue
		}
		failed++
		fmt.Fprintf(w, "FAIL %s:%d: %s: %s: %s", r.File, r.Line, r.Rule, r.Case, r.Problem)
		if len(r.Also) > 0 {
			fmt.Fprintf(w, " (fired: %s)", strings.Join(r.Also, ", "))
		}
		fmt.Fprintln(w)
	}
	if verbose {
		writeTable(w, set, results)
	}
	for _, l := range set.Lints() {
		if !strings.HasPrefix(l.Message, "has no test") { // said as a failure
			fmt.Fprintf(w, "lint %s:%d: %s: %s\n", l.File, l.Line, l.Rule, l.Message)
		}
	}
	word := "ok"
	if failed > 0 {
		word = "FAIL"
	}
	fmt.Fprintf(w, "%s: %d rules, %d cases, %d failed, bundle %s, compiled in %s, tested in %s\n",
		word, len(set.Rules()), cases, failed, set.Version(), set.Took().Round(100*time.Microsecond), took.Round(100*time.Microsecond))
	return failed
}

func writeTable(w io.Writer, set *Set, results []Result) {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "RULE\tSEVERITY\tDATASETS\tINDEXED\tCASES\tRESULT\tTITLE")
	cases, bad := map[string]int{}, map[string]bool{}
	for _, res := range results {
		bad[res.Rule] = bad[res.Rule] || !res.Passed
		if res.Case != "coverage" {
			cases[res.Rule]++
		}
	}
	for _, r := range set.Rules() {
		where := strings.Join(r.Datasets, ",")
		if len(r.Datasets) == len(pipeline.DatasetNames()) {
			where = "all"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n", r.ID, r.Severity.Name(), where, yesOrNo(r.Indexed), cases[r.ID], okOrFail(!bad[r.ID]), r.Title)
	}
	t.Flush()
}

func yesOrNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func okOrFail(b bool) string {
	if b {
		return "ok"
	}
	return "FAIL"
}

// Coverage is, for each ATT&CK or other tag, the rules that carry it.
func (s *Set) Coverage() map[string][]string {
	out := map[string][]string{}
	for _, r := range s.rules {
		for _, t := range r.Tags {
			if !slices.Contains(out[t], r.ID) {
				out[t] = append(out[t], r.ID)
			}
		}
	}
	return out
}
