package rules

import (
	"fmt"
	"slices"
	"strings"
)

// vocabularies holds fields whose values have one form, and what that is.
var vocabularies = map[string]struct {
	fits func(text string) bool
	form string
}{
	"http.request.method": {isUpper, "in upper case"},
	"redis.command":       {isUpper, "in upper case"},
	"memcached.command":   {isLower, "in lower case"},
	"dns.question.type":   {isUpper, "in upper case"},
	"dns.response_code":   {isUpper, "in upper case"},
	"network.transport":   {isLower, "in lower case"},
	"network.protocol":    {isLower, "in lower case"},
	"event.outcome": {func(text string) bool {
		return slices.Contains([]string{"success", "failure", "unknown", ""}, text)
	}, "success, failure or unknown"},
}

func isUpper(text string) bool { return text == strings.ToUpper(text) }
func isLower(text string) bool { return text == strings.ToLower(text) }

// impossible returns a lint for each comparison below n that can hardly be true: with a constant of another form
// than the value can have.
func (t *slotTable) impossible(n *node) (lints []string) {
	for _, arg := range n.args {
		lints = append(lints, t.impossible(arg)...)
	}
	if len(n.args) == 0 {
		return lints
	}
	constants := n.texts
	if n.op == opEqual && len(n.args) == 2 && n.args[1].op == opConstant && n.args[1].kind == text {
		constants = []string{n.args[1].text}
	}
	switch n.op {
	case opEqual, opIn, opContainsAny, opStartsWithAny, opEndsWithAny:
	default:
		return lints
	}

	left := n.args[0]
	isLowered := left.op == opLower || left.op == opSlot && t.list[left.slot].how == lowered
	for _, constant := range constants {
		if isLowered && strings.ContainsFunc(constant, func(r rune) bool { return 'A' <= r && r <= 'Z' }) {
			lints = append(lints, fmt.Sprintf("%s is never equal to or part of it: %s is in lower case",
				quoteShort(constant), t.render(left)))
		}
		isWhole := n.op == opEqual || n.op == opIn
		if left.op != opSlot || !isWhole || t.list[left.slot].field == nil || t.list[left.slot].how != raw {
			continue
		}
		name := t.list[left.slot].field.Name
		if vocabulary, ok := vocabularies[name]; ok && !vocabulary.fits(constant) {
			lints = append(lints, fmt.Sprintf("%s is compared with %s, and its values are %s",
				name, quoteShort(constant), vocabulary.form))
		}
	}
	return lints
}
