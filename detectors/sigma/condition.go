package sigma

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"tidegate/pipeline/config"
)

// A condition is a node of the tree that a rule's condition and its selections become: an item, or a
// combination of conditions.
type condition struct {
	op   string // "" is an item; else "and", "or" or "not"
	args []*condition
	item *item
}

func negation(of *condition) *condition { return &condition{op: "not", args: []*condition{of}} }

// combination returns the condition that all of args, or one of them, hold.
func combination(op string, args []*condition) *condition {
	if len(args) == 1 {
		return args[0]
	}
	return &condition{op: op, args: args}
}

// The bounds of a condition.
const (
	maxSelections = 500 // of a rule
	maxTokens     = 2000
	maxDepth      = 50
	maxNodes      = 5000 // of the tree: a selection may be named many times
	maxRuleValues = 20_000
	maxRuleCost   = 200_000 // of regular expressions
)

// selections are the named conditions of a rule, in the order of the file.
type selections struct {
	names  []string
	byName map[string]*condition
}

// matching returns the names that fit a pattern with *, or all for "them". Names that begin with _ belong to
// no group.
func (s *selections) matching(pattern string) (names []string) {
	for _, name := range s.names {
		if pattern == "them" && !strings.HasPrefix(name, "_") {
			names = append(names, name)
			continue
		}
		matched, err := path.Match(strings.NewReplacer(`\`, `\\`, "[", `\[`, "?", `\?`).Replace(pattern), name)
		if err == nil && matched && (!strings.HasPrefix(name, "_") || strings.HasPrefix(pattern, "_")) {
			names = append(names, name)
		}
	}
	return names
}

// A conditionParser parses a condition by recursive descent: or binds weakest, then and, then not.
type conditionParser struct {
	tokens []string
	all    *selections
	depth  int

	nodes, values, cost int
}

// parseCondition returns the tree of a condition over selections.
func parseCondition(text string, all *selections) (*condition, error) {
	tokens := strings.Fields(strings.NewReplacer("(", " ( ", ")", " ) ", "|", " | ").Replace(text))
	if len(tokens) == 0 {
		return nil, fmt.Errorf("is empty")
	}
	if len(tokens) > maxTokens {
		return nil, fmt.Errorf("has %d words, the limit is %d", len(tokens), maxTokens)
	}
	if slices.Contains(tokens, "|") {
		return nil, fmt.Errorf("aggregations (| count() …) are of Sigma 1: write a correlation rule")
	}
	if slices.Contains(tokens, "near") {
		return nil, fmt.Errorf("near is of Sigma 1: write a correlation rule of type temporal")
	}
	p := &conditionParser{tokens: tokens, all: all}
	tree, err := p.parseOr()
	if err == nil && len(p.tokens) > 0 {
		err = fmt.Errorf("unexpected %q", p.tokens[0])
	}
	return tree, err
}

// next returns the next word in lower case, "" at the end.
func (p *conditionParser) next() string {
	if len(p.tokens) == 0 {
		return ""
	}
	return strings.ToLower(p.tokens[0])
}

// accept takes the next word if it is one of words.
func (p *conditionParser) accept(words ...string) bool {
	if !slices.Contains(words, p.next()) || len(p.tokens) == 0 {
		return false
	}
	p.tokens = p.tokens[1:]
	return true
}

func (p *conditionParser) parseOr() (*condition, error) { return p.parseList("or", p.parseAnd) }

func (p *conditionParser) parseAnd() (*condition, error) { return p.parseList("and", p.parseNot) }

// parseList parses operands between which a word stands.
func (p *conditionParser) parseList(word string, parse func() (*condition, error)) (*condition, error) {
	var args []*condition
	for {
		arg, err := parse()
		if err != nil {
			return nil, err
		}
		args = append(args, arg)
		if !p.accept(word) {
			return combination(word, args), nil
		}
	}
}

func (p *conditionParser) parseNot() (*condition, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, fmt.Errorf("is nested more than %d deep", maxDepth)
	}
	defer func() { p.depth-- }()
	if p.accept("not") {
		of, err := p.parseNot()
		if err != nil {
			return nil, err
		}
		return negation(of), nil
	}
	return p.parseAtom()
}

func (p *conditionParser) parseAtom() (*condition, error) {
	if p.accept("(") {
		inner, err := p.parseOr()
		if err != nil {
			return nil, err
		}
		if !p.accept(")") {
			return nil, fmt.Errorf("a bracket is not closed")
		}
		return inner, nil
	}
	if len(p.tokens) == 0 {
		return nil, fmt.Errorf("ends too early")
	}
	if len(p.tokens) > 1 && strings.ToLower(p.tokens[1]) == "of" {
		return p.parseQuantifier()
	}
	name := p.tokens[0]
	p.tokens = p.tokens[1:]
	if p.all.byName[name] == nil {
		if strings.Contains(name, "*") {
			return nil, fmt.Errorf("%s: write 1 of %s or all of %s", name, name, name)
		}
		return nil, fmt.Errorf("there is no selection %q%s", name, config.DidYouMean(name, p.all.names))
	}
	return p.use(name)
}

// use returns the condition of a selection.
func (p *conditionParser) use(name string) (*condition, error) {
	of := p.all.byName[name]
	if p.nodes += of.size(); p.nodes > maxNodes {
		return nil, fmt.Errorf("becomes more than %d comparisons", maxNodes)
	}
	values, cost := of.weight()
	if p.values += values; p.values > maxRuleValues {
		return nil, fmt.Errorf("becomes a comparison with more than %d values", maxRuleValues)
	}
	if p.cost += cost; p.cost > maxRuleCost {
		return nil, fmt.Errorf("has regular expressions that are too large together")
	}
	return of, nil
}

func (c *condition) size() int {
	size := 1
	for _, arg := range c.args {
		size += arg.size()
	}
	return size
}

// weight returns the number of values of a condition, and what its regular expressions cost.
func (c *condition) weight() (values, cost int) {
	if c.item != nil {
		for _, variants := range c.item.values {
			values += len(variants)
			for _, v := range variants {
				cost += v.cost
			}
		}
	}
	for _, arg := range c.args {
		of, more := arg.weight()
		values, cost = values+of, cost+more
	}
	return values, cost
}

// parseQuantifier parses "1 of x*", "any of x*", "all of x*" and "… of them".
func (p *conditionParser) parseQuantifier() (*condition, error) {
	quantifier := p.next()
	op := map[string]string{"1": "or", "any": "or", "all": "and"}[quantifier]
	if op == "" {
		return nil, fmt.Errorf("%s of: it is 1 of, any of or all of", p.tokens[0])
	}
	if p.tokens = p.tokens[2:]; len(p.tokens) == 0 {
		return nil, fmt.Errorf("ends behind of")
	}
	pattern := p.tokens[0]
	p.tokens = p.tokens[1:]
	if strings.ToLower(pattern) == "them" {
		pattern = "them"
	}
	var args []*condition
	for _, name := range p.all.matching(pattern) {
		arg, err := p.use(name)
		if err != nil {
			return nil, err
		}
		args = append(args, arg)
	}
	if len(args) == 0 {
		return nil, fmt.Errorf("there is no selection that %q matches", pattern)
	}
	return combination(op, args), nil
}
