package rules

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/protobuf/proto"

	"tidegate/pipeline"
	"tidegate/pipeline/correlate"
)

// A Result is the outcome of one test case of a rule.
type Result struct {
	Rule    string        `json:"rule"`
	Case    string        `json:"case"`
	File    string        `json:"file"`
	Line    int           `json:"line"`
	Want    bool          `json:"want"`
	Got     bool          `json:"got"`
	Passed  bool          `json:"passed"`
	Problem string        `json:"problem,omitempty"`
	Also    []string      `json:"also,omitempty"` // other rules that matched the same event
	Took    time.Duration `json:"took_ns"`
}

// coverageCase is Result.Case of the failed result for a rule that lacks cases.
const coverageCase = "coverage"

// Test runs every case of every rule. The whole set evaluates the event of a case through the index, as in
// production. A rule needs a case that matches and one that does not; without them it has a failed result.
func (s *Set) Test() []Result {
	var out []Result
	for _, rule := range s.rules {
		for _, testCase := range rule.Tests {
			out = append(out, s.runCase(rule, testCase))
		}
		if missing := rule.missingCase(); missing != "" {
			out = append(out, Result{
				Rule: rule.ID, Case: coverageCase, File: rule.File, Line: rule.Line, Problem: "the rule has no " + missing,
			})
		}
	}
	return out
}

// missingCase names the kind of case that r lacks, or returns "".
func (r *Rule) missingCase() string {
	matching, other := false, false
	for _, ruleCase := range r.Tests {
		matching = matching || ruleCase.Fires
		other = other || !ruleCase.Fires
	}
	switch {
	case !matching:
		return "case with fires: true"
	case !other:
		return "case with fires: false"
	}
	return ""
}

func (s *Set) runCase(rule *Rule, ruleCase Case) Result {
	out := Result{Rule: rule.ID, Case: ruleCase.Name, File: rule.File, Line: ruleCase.Line, Want: ruleCase.Fires}
	if ruleCase.feeds != nil {
		s = s.WithFeeds(ruleCase.feeds)
	}

	if rule.Correlation != nil {
		return s.runCorrelationCase(rule, ruleCase, out)
	}

	// Evaluate a copy, because verdicts are appended to it and the case may run again.
	event := proto.Clone(ruleCase.events[0]).(*pipeline.Event)
	start := time.Now()
	s.Evaluate([]*pipeline.Event{event})
	out.Took = time.Since(start)
	for _, verdict := range event.Verdicts {
		if verdict.Rule == rule.ID {
			out.Got = true
		} else {
			out.Also = append(out.Also, verdict.Rule)
		}
	}
	if out.Passed = out.Got == out.Want; out.Passed {
		return out
	}
	if out.Problem = "expected no match, but the rule matched: "; out.Want {
		out.Problem = "expected a match, but the rule did not match: "
	}
	out.Problem += s.explain(rule, event)
	return out
}

// runCorrelationCase evaluates the events of a case in the order in which they ended, and lets the clock run on until Case.end has
// passed, or else until no window is open any more.
func (s *Set) runCorrelationCase(rule *Rule, ruleCase Case, out Result) Result {
	events := make([]*pipeline.Event, len(ruleCase.events))
	for i, event := range ruleCase.events {
		events[i] = proto.Clone(event).(*pipeline.Event)
	}
	start := time.Now()
	fold := correlate.New([]*correlate.Rule{rule.Correlation}, correlate.DefaultLimits)
	var signals []correlate.Signal
	for _, signal := range s.Signals(events) {
		if signal.Rule == rule.ID {
			signals = append(signals, signal)
			fold.Add(signal)
		}
	}
	var matches []correlate.Match
	if ruleCase.end > 0 && len(events) > 0 {
		matches = fold.Advance(events[len(events)-1].End() + int64(ruleCase.end))
	} else {
		matches = fold.Close()
	}
	out.Got, out.Took = len(matches) > 0, time.Since(start)
	if out.Passed = out.Got == out.Want; out.Passed {
		return out
	}
	if out.Problem = "expected no match, but the rule matched: "; out.Want {
		out.Problem = "expected a match, but the rule did not match: "
	}
	if out.Got {
		after := time.Duration(matches[0].At - events[0].Timestamp)
		out.Problem += fmt.Sprintf("the match %s behind the begin of the first event has %s; ",
			formatDuration(after.Round(time.Millisecond)), plural(int(matches[0].Count), "event"))
	}
	out.Problem += s.describeSignals(rule, signals, events)
	return out
}

// RunTests tests a set and writes a line for each failure and lint, a table of all rules if verbose, and a
// summary. It returns how many cases failed, and the error of w.
func RunTests(w io.Writer, set *Set, verbose bool) (failed int, err error) {
	out := bufio.NewWriter(w)
	start := time.Now()
	results := set.Test()
	took := time.Since(start)

	// A line for each failure. A missing case is a failure, but no case.
	cases := 0
	for _, result := range results {
		if result.Case != coverageCase {
			cases++
		}
		if result.Passed {
			continue
		}
		failed++
		fmt.Fprintf(out, "FAIL %s:%d: %s: %s: %s", result.File, result.Line, result.Rule, result.Case, result.Problem)
		if len(result.Also) > 0 {
			fmt.Fprintf(out, " (other matches: %s)", strings.Join(result.Also, ", "))
		}
		fmt.Fprintln(out)
	}
	if verbose {
		writeTable(out, set, results)
	}
	for _, lint := range set.Lints() {
		if lint.Hint != hintMissingCase { // Test has reported missing cases as failures.
			fmt.Fprintf(out, "lint %s\n", lint)
		}
	}

	// The summary.
	result := "ok"
	if failed > 0 {
		result = "FAIL"
	}
	fmt.Fprintf(out, "%s: %s, %s, %d failed, version %s, compiled in %s, tested in %s\n",
		result, plural(len(set.Rules()), "rule"), plural(cases, "case"), failed, set.Version(),
		set.Took().Round(100*time.Microsecond), took.Round(100*time.Microsecond))
	return failed, out.Flush()
}

// writeTable writes a line for each rule.
func writeTable(w io.Writer, set *Set, results []Result) {
	writer := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(writer, "RULE\tSEVERITY\tDATASETS\tINDEXED\tCASES\tRESULT\tTITLE")
	cases, bad := map[string]int{}, map[string]bool{}
	for _, result := range results {
		bad[result.Rule] = bad[result.Rule] || !result.Passed
		if result.Case != coverageCase {
			cases[result.Rule]++
		}
	}
	choose := func(condition bool, yes, no string) string {
		if condition {
			return yes
		}
		return no
	}
	for _, rule := range set.Rules() {
		datasets := choose(len(rule.Datasets) == len(pipeline.DatasetNames()), "all", strings.Join(rule.Datasets, ","))
		fmt.Fprintf(writer, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n",
			rule.ID, rule.Severity.Name(), datasets, choose(rule.Indexed, "yes", "no"), cases[rule.ID],
			choose(bad[rule.ID], "FAIL", "ok"), rule.Title)
	}
	writer.Flush()
}

func plural(count int, noun string) string {
	if count == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", count, noun)
}
