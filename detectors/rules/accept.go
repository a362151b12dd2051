package rules

import (
	"fmt"
	"slices"
	"strings"

	"tidegate/pipeline/config"
)

// The names of hints, by which a rule accepts them.
const (
	hintNoIndexKey = "no-index-key"
	hintNeverTrue  = "never-true"
	hintAlwaysTrue = "always-true"
	hintValueForm  = "value-form"
	hintAbsent     = "true-when-absent"
	hintBrackets   = "brackets"
	hintGroup      = "group"
	hintShadowed   = "shadowed"
	hintTag        = "tag"

	hintMissingCase    = "missing-case"    // rules test fails with it, so that it cannot be accepted
	hintVersion        = "version"         // of two folders: nothing of one file
	hintUnusedAccepted = "unused-accepted" // a rule accepts a hint that it does not have
)

// acceptableHints are the hints that a rule can accept.
var acceptableHints = []string{
	hintNoIndexKey, hintNeverTrue, hintAlwaysTrue, hintValueForm, hintAbsent, hintBrackets, hintGroup, hintShadowed, hintTag,
}

// parseAccept reads the hints that a rule accepts, with the reasons: {no-index-key: few events have a session}.
func (r *parsedRule) parseAccept(node config.Node) {
	if !node.IsSet() {
		return
	}
	if !node.IsMapping() {
		node.Errorf("expected names of hints with reasons, such as {%s: few events have a container}, got %s", hintNoIndexKey, node.Kind())
		return
	}
	for _, entry := range node.Entries() {
		value := entry.Value.Named(node.Key() + "." + entry.Key)
		reason, isText := value.Scalar()
		switch {
		case entry.Key == hintMissingCase:
			value.Errorf("cannot be accepted: a rule without a case that matches and one that does not fails")
		case !slices.Contains(acceptableHints, entry.Key):
			value.Errorf("no hint has this name%s: %s", config.DidYouMean(entry.Key, acceptableHints), strings.Join(acceptableHints, ", "))
		case !isText && !value.IsNull():
			value.Errorf("expected the reason, a text, got %s", value.Kind())
		case strings.TrimSpace(reason) == "":
			value.Errorf("has no reason: write why the hint does not hold for this rule")
		case len(reason) > maxText:
			value.Errorf("text of %d bytes, the limit is %d", len(reason), maxText)
		default:
			if r.Accept == nil {
				r.Accept = map[string]string{}
			}
			r.Accept[entry.Key] = strings.TrimSpace(reason)
		}
	}
}

// String returns the line of a lint, as compilers write theirs.
func (l Lint) String() string {
	line := fmt.Sprintf("%s:%d: %s: %s (%s)", l.File, l.Line, l.Rule, l.Message, l.Hint)
	if l.Accepted != "" {
		line += ", accepted: " + strings.Join(strings.Fields(l.Accepted), " ")
	}
	return line
}

// acceptLints divides lints in those that their rules accept and the others. The others have one more for each hint that a rule accepts and does
// not have. Whether a rule adds something to another one is not known if not all pairs were compared, or if the other one may be a shipped rule
// that is not loaded.
func (s *Set) acceptLints(all []Lint, comparedAll bool) (lints, accepted []Lint) {
	comparedAll = comparedAll && s.cfg.Shipped
	byID := make(map[string]*Rule, len(s.rules))
	for _, rule := range s.rules {
		byID[rule.ID] = rule
	}
	type use struct{ rule, hint string }
	used := map[use]bool{}
	for _, lint := range all {
		id, _, _ := strings.Cut(lint.Rule, "/") // of a step: that of its rule
		if rule := byID[id]; rule != nil && rule.Accept[lint.Hint] != "" {
			lint.Accepted = rule.Accept[lint.Hint]
			used[use{id, lint.Hint}] = true
			accepted = append(accepted, lint)
			continue
		}
		lints = append(lints, lint)
	}
	for _, rule := range s.rules {
		for _, hint := range acceptableHints { // in this order
			if rule.Accept[hint] == "" || used[use{rule.ID, hint}] || hint == hintShadowed && !comparedAll {
				continue
			}
			lints = append(lints, Lint{
				Rule: rule.ID, Hint: hintUnusedAccepted, File: rule.File, Line: rule.Line,
				Message: "accepts the hint " + hint + ", which it does not have: remove it from accept",
			})
		}
	}
	return lints, accepted
}
