package rules

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unsafe"

	"github.com/expr-lang/expr/ast"
	"github.com/mileusna/useragent"

	"tidegate/pipeline"
	"tidegate/pipeline/authority"
	"tidegate/pipeline/config"
)

// A function computes a text or a number from one text, or from an address. Its time is linear in the text, or the text that it reads is
// bounded. The value of "" is "" or 0, so that an absent field has no value; that of number is NaN.
type function struct {
	name     string
	argument string                                // a constant behind the text, as an author writes it; "" if there is none
	text     func(buf *[]byte, text string) string // the result is in *buf, a part of text, or a text of its own
	decimal  func(text string) float64
	address  func(addr netip.Addr) (text string, number int64) // geo has a text, asn a number
}

func (f *function) kind() kind {
	switch {
	case f.decimal != nil:
		return decimal
	case f.name == "asn":
		return number
	}
	return text
}

// label returns a call of f as an author writes it.
func (f *function) label(of string) string {
	if f.argument == "" {
		return f.name + "(" + of + ")"
	}
	return f.name + "(" + of + ", " + strconv.Quote(f.argument) + ")"
}

// plainFunctions are the functions without a constant.
var plainFunctions = map[string]*function{
	"base64":            {name: "base64", text: decodeBase64},
	"entropy":           {name: "entropy", decimal: entropy},
	"number":            {name: "number", decimal: parseDecimal},
	"registered_domain": {name: "registered_domain", text: registeredDomain},
}

// functionCall resolves a call of a function of plainFunctions, json or user_agent.
func (r *resolver) functionCall(callNode *ast.CallNode, name string) *node {
	called := plainFunctions[name]
	switch {
	case called != nil && len(callNode.Arguments) != 1:
		return r.addError(callNode, "%s takes one text", name)
	case called == nil:
		var constant *ast.StringNode
		if len(callNode.Arguments) == 2 {
			constant, _ = callNode.Arguments[1].(*ast.StringNode)
		}
		if constant == nil {
			return r.addError(callNode, "%s takes a text and a constant between quotes: %s", name, functionExamples[name])
		}
		var err error
		if called, err = functionWith(name, constant.Value); err != nil {
			return r.addError(constant, "%v", err)
		}
	}
	of := r.resolve(callNode.Arguments[0])
	switch {
	case of.kind == invalid:
		return of
	case of.kind != text:
		return r.addError(callNode, "%s takes a text, %s is %s", name, r.slots.render(of), of.kind)
	case of.op == opSlot && called.kind() == text: // computed once for all rules
		return r.slotNode(callNode, r.slots.functionSlot(called, of.slot))
	}
	return &node{op: opFunction, kind: called.kind(), at: r.at(callNode), args: []*node{of}, function: called}
}

// functionExamples are calls of the functions with a constant.
var functionExamples = map[string]string{
	"json":       `json(message, "$.user.name")`,
	"user_agent": `user_agent(user_agent.original, "name")`,
}

// functionWith returns json or user_agent with its constant.
func functionWith(name, argument string) (*function, error) {
	called := &function{name: name, argument: argument}
	if name == "json" {
		path, err := parseJSONPath(argument)
		called.text = path.find
		return called, err
	}
	part, err := userAgentPart(argument)
	called.text = part
	return called, err
}

// levenshtein resolves levenshtein(text, text).
func (r *resolver) levenshtein(callNode *ast.CallNode) *node {
	if len(callNode.Arguments) != 2 {
		return r.addError(callNode, "levenshtein takes two texts")
	}
	args := []*node{r.resolve(callNode.Arguments[0]), r.resolve(callNode.Arguments[1])}
	for _, arg := range args {
		switch arg.kind {
		case invalid:
			return arg
		case text:
		default:
			return r.addError(callNode, "levenshtein takes two texts, %s is %s", r.slots.render(arg), arg.kind)
		}
	}
	return &node{op: opLevenshtein, kind: number, at: r.at(callNode), args: args}
}

// functionSlot returns the slot of f(slot of).
func (t *slotTable) functionSlot(f *function, of int) int {
	source := t.list[of]
	return t.addSlot(slot{label: f.label(source.label), field: source.field, how: called, of: of, function: f, kind: f.kind(), body: source.body})
}

// maxHostBytes is the length of the longest host that registered_domain reads. A name of DNS has 255 bytes, each of which may
// be written as an escape of four.
const maxHostBytes = 4 * 255

// registeredDomain returns the registered domain of a name in any case, or of the name in an authority. An address has none.
func registeredDomain(buf *[]byte, text string) string {
	if len(text) > maxHostBytes {
		return ""
	}
	if _, ok := authority.Addr(text); ok {
		return ""
	}
	name := authority.Host(unsafe.Slice(unsafe.StringData(text), len(text)))
	return pipeline.RegisteredDomain(lowerInto(buf, unsafe.String(unsafe.SliceData(name), len(name))))
}

// maxUserAgentBytes is how much of a user agent is read: its parser compares each word with some eighty names.
const maxUserAgentBytes = 512

// userAgentPart returns the function that returns a part of a user agent.
func userAgentPart(name string) (func(buf *[]byte, text string) string, error) {
	parts := map[string]func(agent *useragent.UserAgent) string{
		"name":       func(agent *useragent.UserAgent) string { return agent.Name },
		"version":    func(agent *useragent.UserAgent) string { return agent.Version },
		"os":         func(agent *useragent.UserAgent) string { return agent.OS },
		"os_version": func(agent *useragent.UserAgent) string { return agent.OSVersion },
		"device":     func(agent *useragent.UserAgent) string { return agent.Device },
		"type":       userAgentType,
	}
	part := parts[name]
	if part == nil {
		known := []string{"name", "version", "os", "os_version", "device", "type"}
		return nil, fmt.Errorf("user_agent: %q is not one of %s%s", name, strings.Join(known, ", "), config.DidYouMean(name, known))
	}
	return func(_ *[]byte, text string) string {
		if text == "" {
			return ""
		}
		agent := useragent.Parse(text[:min(len(text), maxUserAgentBytes)])
		return part(&agent)
	}, nil
}

// userAgentType returns what kind of program or device a user agent is.
func userAgentType(agent *useragent.UserAgent) string {
	switch {
	case agent.Bot:
		return "bot"
	case agent.Tablet:
		return "tablet"
	case agent.Mobile:
		return "mobile"
	case agent.Desktop:
		return "desktop"
	}
	return ""
}
