package rules

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// vocabularies holds fields whose values have one form, and what that is.
var vocabularies = map[string]struct {
	fits func(text string) bool
	form string
}{
	"http.request.method":    {isUpper, "in upper case"},
	"redis.command":          {isUpper, "in upper case"},
	"memcached.command":      {isLower, "in lower case"},
	"dns.question.type":      {isUpper, "in upper case"},
	"dns.response_code":      {isUpper, "in upper case"},
	"network.transport":      {isLower, "in lower case"},
	"network.protocol":       {isLower, "in lower case"},
	"network.type":           {oneOf("ipv4", "ipv6"), "ipv4 or ipv6"},
	"event.outcome":          {oneOf("success", "failure", "unknown"), "success, failure or unknown"},
	"log.level":              {oneOf("trace", "debug", "info", "warn", "error", "fatal"), "trace, debug, info, warn, error or fatal"},
	"url.domain":             {isHost, hostForm},
	"dns.question.name":      {isHost, hostForm},
	"tls.client.server_name": {isHost, hostForm},
}

// hostForm is the form of a field with a host, whatever the client has sent.
const hostForm = "in lower case, without a dot at the end"

func isHost(text string) bool {
	return isLower(text) && (text == "." || !strings.HasSuffix(text, "."))
}

// oneOf returns whether a text is one of words, or empty.
func oneOf(words ...string) func(text string) bool {
	return func(text string) bool { return text == "" || slices.Contains(words, text) }
}

func isUpper(text string) bool { return text == strings.ToUpper(text) }
func isLower(text string) bool { return text == strings.ToLower(text) }

// neverZero holds the fields for which 0 always means that the event has no value.
var neverZero = []string{
	"http.response.status_code", "source.port", "destination.port", "tls.server.not_after", "mysql.statement_id", "dns.type",
}

// trueWhenAbsent returns a lint for each comparison of a field of neverZero that is true for events without
// the field, unless another part of the same chain of and requires the field: http.response.status_code < 400
// is true for a request without a response.
func (t *slotTable) trueWhenAbsent(n *node) (lints []string) {
	var walk func(n *node, required []int)
	walk = func(n *node, required []int) {
		if n.op == opAnd {
			required = append(slices.Clip(required), t.requiredSlots(n)...)
		}
		if n.op == opOr || n.op == opNot { // what an outer and requires still holds
			for _, arg := range n.args {
				walk(arg, required)
			}
			return
		}
		if n.op == opAnd {
			walk(n.args[0], required)
			walk(n.args[1], required)
			return
		}
		if len(n.args) != 2 || n.args[0].op != opSlot || n.args[1].op != opConstant || n.args[1].kind != number {
			return
		}
		slot := t.list[n.args[0].slot]
		value, known := compareWithAbsent(n.op, 0, n.args[1].number)
		if !known || !value || slot.how != raw || slot.field == nil || n.args[1].number == 0 && n.op == opEqual ||
			!slices.Contains(neverZero, slot.field.Name) || slices.Contains(required, n.args[0].slot) {
			return
		}
		lints = append(lints, fmt.Sprintf("%s is true for events without %s, which is 0 then; add has(%s)",
			t.render(n), slot.field.Name, slot.field.Name))
	}
	walk(n, nil)
	return lints
}

// requiredSlots returns the slots of fields that an event must have for a chain of and to be true.
func (t *slotTable) requiredSlots(n *node) (slots []int) {
	if n.op == opAnd {
		return append(t.requiredSlots(n.args[0]), t.requiredSlots(n.args[1])...)
	}
	if n.op == opSlot && t.list[n.slot].how == hasValue {
		label := t.list[n.slot].field.Name
		if i, ok := t.byLabel[label]; ok {
			return []int{i}
		}
		return nil
	}
	if len(n.args) == 0 || n.args[0].op != opSlot {
		return nil
	}
	if value, known := t.valueWhenAbsent(n); known && !value {
		return []int{n.args[0].slot}
	}
	return nil
}

// differingFields are the fields whose values differ for nearly every event.
var differingFields = []string{
	"@timestamp", "event.id", "event.duration", "url.original", "url.query", "message", "mysql.query", "redis.args", "log.offset", "source.port",
	"source.bytes", "destination.bytes", "network.community_id", "dns.id", "mysql.statement_id", "mysql.insert_id",
}

// lintGroup returns a lint for each field of group that makes nearly every match an alert of its own.
func lintGroup(group []ruleValue) (lints []string) {
	for _, value := range group {
		name := value.name()
		if value.let != nil && value.let.field != nil {
			name = value.let.field.Name
		}
		if slices.Contains(differingFields, name) {
			lints = append(lints, fmt.Sprintf("groups by %s, which differs for nearly every event: each match becomes an alert of its own", name))
		}
	}
	return lints
}

// mixesAndOr reports whether and and or stand side by side in an expression, without brackets that show which of them
// binds first.
func mixesAndOr(source string) bool {
	runes := []rune(hideLiterals(source))
	type level struct{ and, or bool } // of one pair of brackets
	levels := []level{{}}
	for i := 0; i < len(runes); {
		top := &levels[len(levels)-1]
		switch c := runes[i]; {
		case c == '"' || c == '\'' || c == '`':
			i = endOfText(runes, i)
			continue
		case c == '/' && i+1 < len(runes) && (runes[i+1] == '/' || runes[i+1] == '*'):
			i = endOfComment(runes, i)
			continue
		case c == '(' || c == '[':
			levels = append(levels, level{})
		case (c == ')' || c == ']') && len(levels) > 1:
			levels = levels[:len(levels)-1]
		case c == ',':
			*top = level{}
		case c == '&' && i+1 < len(runes) && runes[i+1] == '&':
			top.and = true
		case c == '|' && i+1 < len(runes) && runes[i+1] == '|':
			top.or = true
		case c == '_' || unicode.IsLetter(c):
			end := endOfName(runes, i)
			top.and = top.and || string(runes[i:end]) == "and"
			top.or = top.or || string(runes[i:end]) == "or"
			i = end - 1
		}
		if top := levels[len(levels)-1]; top.and && top.or {
			return true
		}
		i++
	}
	return false
}

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
