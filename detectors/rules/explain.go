package rules

import (
	"fmt"
	"strings"

	"tidegate/pipeline"
)

// explain returns the parts of a rule that decide whether it matches event, with what they read, such as `url.path contains ".." is true
// (url.path = "/..")`.
func (s *Set) explain(rule *Rule, event *pipeline.Event) string {
	worker := s.acquireWorker()
	defer s.releaseWorker(worker)
	worker.values.setEvent(event)
	// In the order of evaluation: the condition, then the exceptions.
	if !rule.when.holds(worker.values) {
		return s.decisiveParts(worker.values, rule.when.root, false)
	}
	for _, exception := range rule.exceptions {
		if exception.holds(worker.values) {
			return "the exception " + s.decisiveParts(worker.values, exception.root, true)
		}
	}
	return s.decisiveParts(worker.values, rule.when.root, true)
}

// decisiveParts lists the comparisons because of which n has the given value, as few as are needed.
func (s *Set) decisiveParts(values *eventValues, n *node, value bool) string {
	var parts []string
	var collect func(n *node, value bool)
	collect = func(n *node, value bool) {
		switch {
		case n.op == opNot:
			collect(n.args[0], !value)
		case n.op == opAnd && value, n.op == opOr && !value: // both sides are needed
			collect(n.args[0], value)
			collect(n.args[1], value)
		case n.op == opAnd, n.op == opOr: // one side is enough
			if n.args[0].flagClosure()(values) == value {
				collect(n.args[0], value)
			} else {
				collect(n.args[1], value)
			}
		default:
			part := fmt.Sprintf("%s is %t", s.slots.render(n), value)
			isKnown := value && n.op == opEqual && n.args[1].op == opConstant // it is the constant
			if read := s.describeValues(values, n); read != "" && !isKnown {
				part += " (" + read + ")"
			}
			parts = append(parts, part)
		}
	}
	collect(n, value)
	return strings.Join(firstParts(parts), ", ")
}
