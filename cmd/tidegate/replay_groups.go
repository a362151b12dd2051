package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"

	"tidegate/detectors/rules"
	"tidegate/pipeline/correlate"
)

// A matchedGroup sums up the matches of a correlation rule in a group.
type matchedGroup struct {
	rule, group     string
	first, last     int64 // begin of the earliest and of the latest event, ns since 1970
	matches, events int64
	text            string // of the first match
}

// maxGroupsShown bounds the groups in the table of a replay.
const maxGroupsShown = 50

// addMatches adds the matches of correlation rules: their events to the table of rules, and each to its
// group. With printMatches it prints them.
func (r *replay) addMatches(matches []correlate.Match) error {
	byID := map[string]*rules.Rule{}
	for _, rule := range r.rules.Rules() {
		byID[rule.ID] = rule
	}
	places := map[[2]string]int{} // in r.groups, by rule and group
	encoder := json.NewEncoder(r.out)
	encoder.SetEscapeHTML(false)
	for _, match := range matches {
		rule := byID[match.Rule.ID]
		if r.printMatches {
			if err := encoder.Encode(newPrintedMatch(rule, &match)); err != nil {
				return fmt.Errorf("write matches: %w", err)
			}
		}
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
		group.matches++
	}
	return nil
}

// A printedMatch is a line of `tidegate replay -o matches`.
type printedMatch struct {
	Rule     string         `json:"rule"`
	Version  string         `json:"version"`
	Severity string         `json:"severity"`
	Title    string         `json:"title"`
	Group    string         `json:"group"`
	At       time.Time      `json:"at"`
	First    time.Time      `json:"first"`
	Last     time.Time      `json:"last"`
	Count    int64          `json:"count"`
	Text     string         `json:"text"`
	Events   []printedEvent `json:"events"`
}

type printedEvent struct {
	Step string    `json:"step,omitempty"`
	Time time.Time `json:"@timestamp"`
	ID   string    `json:"event.id"`
}

func newPrintedMatch(rule *rules.Rule, match *correlate.Match) printedMatch {
	at := func(ns int64) time.Time { return time.Unix(0, ns).UTC() }
	printed := printedMatch{
		Rule: rule.ID, Version: rule.Version, Severity: rule.Severity.Name(), Title: rule.Title, Group: match.Group,
		At: at(match.At), First: at(match.First), Last: at(match.Last), Count: match.Count, Text: match.Text, Events: []printedEvent{},
	}
	for _, event := range match.Events {
		printed.Events = append(printed.Events, printedEvent{match.Rule.Steps[event.Step].Name, at(event.Start), uuid.UUID(event.ID).String()})
	}
	return printed
}

// warnOfBounds says where matches may be missing, because a bound was reached. advice is what helps against events that come
// too late.
func warnOfBounds(out io.Writer, counts correlate.Counts, advice string) {
	for _, bound := range []struct {
		count uint64
		text  string
	}{
		{counts.Forced + counts.Late, "events were taken before all that ended earlier were read: " + advice},
		{counts.Evicted, "groups or values of correlation rules were evicted: they are too many"},
		{counts.Dropped, "events of groups with too many were dropped"},
	} {
		if bound.count > 0 {
			_, _ = fmt.Fprintf(out, "warning: %s %s\n", formatCount(int(bound.count)), bound.text)
		}
	}
}

// printGroups prints the groups in which correlation rules matched, the earliest first.
func (r *replay) printGroups(out io.Writer) {
	if len(r.groups) == 0 {
		return
	}
	slices.SortStableFunc(r.groups, func(a, b matchedGroup) int { return cmp.Compare(a.first, b.first) })
	writer := tabwriter.NewWriter(out, 2, 8, 2, ' ', 0)
	_, _ = fmt.Fprintf(writer, "\nFIRST\tLASTED\tRULE\tMATCHES\tEVENTS\tGROUP\tTEXT\n")
	for _, group := range r.groups[:min(len(r.groups), maxGroupsShown)] {
		_, _ = fmt.Fprintf(writer, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
			time.Unix(0, group.first).UTC().Format("2006-01-02 15:04:05"),
			time.Duration(group.last-group.first).Round(time.Millisecond),
			oneLineText(group.rule, 80), formatCount(int(group.matches)), formatCount(int(group.events)),
			oneLineText(group.group, 120), oneLineText(group.text, 200))
	}
	_ = writer.Flush()
	if more := len(r.groups) - maxGroupsShown; more > 0 {
		_, _ = fmt.Fprintf(out, "and %s more\n", countOf(more, "group"))
	}
}
