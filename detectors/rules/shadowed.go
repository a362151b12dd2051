package rules

import (
	"fmt"
	"slices"
	"strings"
)

// lintShadowed returns a lint for each rule that adds nothing to another one: each event that it matches is matched by the other too, and the
// other has the same group, no lower severity and score, and its tags. Rules that others refer to are left out. comparedAll
// is false if there were too many pairs.
func (s *Set) lintShadowed() (lints []Lint, comparedAll bool) {
	p := &prover{slots: s.slots, budget: setBudget}
	byGroup := map[string][]*Rule{}
	for _, rule := range s.rules {
		if rule.Correlation == nil && len(rule.signalSteps) == 0 {
			byGroup[rule.groupKey()] = append(byGroup[rule.groupKey()], rule)
		}
	}
	for _, rule := range s.rules {
		if rule.Correlation != nil || len(rule.signalSteps) > 0 {
			continue
		}
		for _, other := range byGroup[rule.groupKey()] {
			if !p.spend(1) {
				return lints, false
			}
			// Of two rules that match the same events the later one is named.
			if rule == other || !other.covers(rule) || !p.matchesAll(rule, other) || rule.ID < other.ID && rule.covers(other) && p.matchesAll(other, rule) {
				continue
			}
			lints = append(lints, Lint{Rule: rule.ID, Hint: hintShadowed, File: rule.File, Line: rule.Line, Message: fmt.Sprintf(
				"adds nothing to %s (%s:%d), which matches every event that it matches, with the same group and no lower severity: remove one of them",
				other.ID, other.File, other.Line)})
			break
		}
	}
	return lints, true
}

// groupKey returns a text that is the same for rules with the same group.
func (r *Rule) groupKey() string {
	var parts []string
	for _, value := range r.groupValues {
		parts = append(parts, value.content())
	}
	return strings.Join(parts, ",")
}

// covers reports whether an alert of r says all that one of other would say, but for the text, and whether both may match the same events at all.
func (r *Rule) covers(other *Rule) bool {
	isOwn := !r.IsShipped() && other.IsShipped() // a shipped rule cannot be removed for a wider one of one's own
	return !isOwn && r.Severity >= other.Severity && r.Score >= other.Score && other.datasets&^r.datasets == 0 &&
		!slices.ContainsFunc(other.Tags, func(tag string) bool { return !slices.Contains(r.Tags, tag) }) &&
		slices.ContainsFunc(r.when.slots, func(slot int) bool { return slices.Contains(other.when.slots, slot) })
}

// matchesAll reports whether wide matches every event that narrow matches.
func (p *prover) matchesAll(narrow, wide *Rule) bool {
	if !p.implies(narrow.when.root, wide.when.root) {
		return false
	}
	for _, exception := range wide.exceptions {
		isShared := slices.ContainsFunc(narrow.exceptions, func(own *expression) bool { return equalNodes(own.root, exception.root) })
		if !isShared && !p.excludes(requirementsOf(exception.root, true, requirementsOf(narrow.when.root, true, nil)), 0) {
			return false
		}
	}
	return true
}

// LintVersions returns a lint for each rule whose file has the version that the rule with the same id has in before, and which matches other
// events or has other alerts.
func (s *Set) LintVersions(before *Set) (lints []Lint) {
	old := map[string]*Rule{}
	for _, rule := range before.rules {
		old[rule.ID] = rule
	}
	for _, rule := range s.rules {
		if was := old[rule.ID]; was != nil && was.Hash != rule.Hash && was.Version == rule.Version {
			lints = append(lints, Lint{Rule: rule.ID, Hint: hintVersion, File: rule.File, Line: rule.Line, Message: fmt.Sprintf(
				"has changed and still has the version %s that it had at %s:%d: alerts of both cannot be told apart", quoteShort(rule.Version), was.File, was.Line)})
		}
	}
	return lints
}
