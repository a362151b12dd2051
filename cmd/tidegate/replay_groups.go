package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"tidegate/detectors/rules"
	"tidegate/pipeline/correlate"
)

// A matchedGroup is what a rule over several events matched in a group.
type matchedGroup struct {
	rule, group string
	first, last int64 // begin of the earliest and of the latest event, ns since 1970
	events      int64
	text        string // of the first match
}

// maxGroupsShown bounds the groups in the table of a replay.
const maxGroupsShown = 50

// addMatches adds the matches of rules over several events: their events to the table of rules, and each to its group.
func (r *replay) addMatches(matches []correlate.Match) {
	byID := map[string]*rules.Rule{}
	for _, rule := range r.rules.Rules() {
		byID[rule.ID] = rule
	}
	places := map[[2]string]int{} // in r.groups, by rule and group
	for _, match := range matches {
		rule := byID[match.Rule.ID]
		r.matches[rule.Severity.Name()+"\t"+oneLineText(rule.ID, 80)+"\t"+oneLineText(rule.Title, 256)] += int(match.Count)
		key := [2]string{rule.ID, match.Group}
		place, isKnown := places[key]
		if !isKnown {
			place = len(r.groups)
			places[key] = place
			r.groups = append(r.groups, matchedGroup{rule: rule.ID, group: match.Group, first: match.First, last: match.Last, text: match.Text})
		}
		group := &r.groups[place]
		group.first, group.last = min(group.first, match.First), max(group.last, match.Last)
		group.events += match.Count
	}
}

// printGroups prints the groups in which rules over several events matched, the earliest first.
func (r *replay) printGroups(out io.Writer) {
	if len(r.groups) == 0 {
		return
	}
	slices.SortStableFunc(r.groups, func(a, b matchedGroup) int { return cmp.Compare(a.first, b.first) })
	writer := tabwriter.NewWriter(out, 2, 8, 2, ' ', 0)
	_, _ = fmt.Fprintf(writer, "\nFIRST\tLASTED\tRULE\tEVENTS\tGROUP\tTEXT\n")
	for _, group := range r.groups[:min(len(r.groups), maxGroupsShown)] {
		_, _ = fmt.Fprintf(writer, "%s\t%s\t%s\t%s\t%s\t%s\n",
			time.Unix(0, group.first).UTC().Format("2006-01-02 15:04:05"),
			time.Duration(group.last-group.first).Round(time.Millisecond),
			oneLineText(group.rule, 80), formatCount(int(group.events)), oneLineText(group.group, 120), oneLineText(group.text, 200))
	}
	_ = writer.Flush()
	if more := len(r.groups) - maxGroupsShown; more > 0 {
		_, _ = fmt.Fprintf(out, "and %s more\n", countOf(more, "group"))
	}
}
