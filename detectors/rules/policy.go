package rules

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/config"
)

// Bounds of suppress.
const (
	minSuppress = time.Minute
	maxSuppress = 24 * time.Hour
)

// parsePolicy sets what the file says of the alerts of the rule.
func (r *parsedRule) parsePolicy(form *yamlRule) {
	if form.Suppress.IsSet() {
		r.Policy.Suppress = parseLength(r.node, "suppress", form.Suppress, 0, minSuppress, maxSuppress)
	}
	if form.Escalate.IsSet() {
		r.parseEscalate(form.Escalate)
	}
}

// parseEscalate reads a mapping of severities to counts: {high: 10, critical: 100}.
func (r *parsedRule) parseEscalate(node config.Node) {
	if !node.IsMapping() {
		node.Errorf("expected severities with the number of matches from which on the alert has them, such as {high: 10}, got %s", node.Kind())
		return
	}
	for _, entry := range node.Entries() {
		value := entry.Value.Named(node.Key() + "." + entry.Key)
		severity := pipeline.SeverityByName(entry.Key)
		count, isNumber := value.Int()
		switch {
		case severity == pipeline.Severity_SEVERITY_NONE:
			value.Errorf("unknown severity %q: info, low, medium, high or critical", entry.Key)
		case severity <= r.Severity && r.Severity != pipeline.Severity_SEVERITY_NONE:
			value.Errorf("is not above %s, the severity of the rule", r.Severity.Name())
		case !isNumber || count < 2:
			value.Errorf("must be a number of matches from 2 on")
		default:
			r.Policy.Escalate = append(r.Policy.Escalate, pipeline.Escalation{Count: uint64(count), Severity: severity})
		}
	}
	steps := r.Policy.Escalate
	slices.SortStableFunc(steps, func(a, b pipeline.Escalation) int { return cmp.Compare(a.Severity, b.Severity) })
	for i := range steps[:max(0, len(steps)-1)] {
		if steps[i].Count >= steps[i+1].Count {
			node.Errorf("%s needs more matches than %s", steps[i+1].Severity.Name(), steps[i].Severity.Name())
		}
	}
}

// Policies returns the policies of the rules that have one, by rule.
func (s *Set) Policies() map[string]pipeline.AlertPolicy {
	policies := map[string]pipeline.AlertPolicy{}
	for _, rule := range s.rules {
		if rule.Policy.Suppress > 0 || len(rule.Policy.Escalate) > 0 {
			policies[rule.ID] = rule.Policy
		}
	}
	return policies
}

// policyVersion returns what distinguishes a policy from others.
func policyVersion(policy pipeline.AlertPolicy) string {
	if policy.Suppress == 0 && len(policy.Escalate) == 0 {
		return ""
	}
	return fmt.Sprint(" ", policy.Suppress, policy.Escalate)
}
