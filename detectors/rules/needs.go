package rules

import (
	"net/netip"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/expr-lang/expr/ast"

	"tidegate/pipeline"
)

// A need is what an expression cannot be true without: one of keys must hold of the event, and its dataset must be in mask. The
// index asks that before expr runs. It may be weaker than the truth, never stronger: TestIndexAgreesWithPlainLoop.
type need struct {
	keys  []key // nil: nothing is known
	score int   // how rare the commonest of the keys is thought to be
	mask  mask
}

// mask is a set of datasets.
type mask uint16

const everywhere = mask(1<<10 - 1)

func maskOf(d pipeline.Dataset) mask {
	if d < 0 || d >= 10 {
		return 0
	}
	return 1 << d
}

// A key is one thing that can be looked up: a slot that equals a value, or contains a literal. Of a list, one of its elements.
type key struct {
	slot    int
	literal bool // text is a part of the slot's value
	folded  bool // of a literal: without regard to ASCII case
	text    string
	number  int
	addr    netip.Addr
}

const (
	maxKeys  = 20000 // of one rule: a feed in disguise belongs into feeds
	anything = 0     // score of no key
	rare     = 100   // of an equality on a field with many values
)

// common fields have so few values that a literal elsewhere is the better key.
var common = map[string]int{
	"event.dataset": 1, "event.outcome": 2, "network.transport": 1, "network.type": 1, "http.request.method": 2, "http.version": 1,
	"dns.type": 1, "dns.question.type": 3, "dns.question.class": 1, "dns.response_code": 2, "log.stream": 1, "log.level": 2,
	"mysql.command": 2, "mysql.method": 2, "redis.reply_type": 2, "destination.port": 3, "http.response.status_code": 3,
	"tls.version": 1, "tls.client.version": 1, "session.state": 2, "network.protocol": 2, "event.action": 3,
	"container.name": 4, "container.id": 4, "container.image.name": 4, "host.name": 1, "host.id": 1, "orchestrator.cluster.name": 1,
}

// usual literals are in a good part of all statements, requests and log lines.
var usual = map[string]bool{
	"select": true, "from": true, "where": true, "insert": true, "insert into": true, "update": true, "delete": true, "values": true, "http": true,
	"http/1.": true, "https": true, "mozilla": true, "mozilla/5.0": true, "error": true, "warning": true, "info": true, "www.": true, ".com": true,
	"/api": true, "/api/": true, "index": true,
}

// needs reads what the tree needs to become want. elem is the slot of the list that # walks, -1 outside of loops.
func (b *builder) needs(n ast.Node, want bool, elem int) need {
	switch n := n.(type) {
	case *ast.UnaryNode:
		if n.Operator == "not" || n.Operator == "!" {
			return b.needs(n.Node, !want, elem)
		}
	case *ast.PredicateNode:
		return b.needs(n.Node, want, elem)
	case *ast.BinaryNode:
		switch n.Operator {
		case "and", "&&":
			return join2(b.needs(n.Left, want, elem), b.needs(n.Right, want, elem), want)
		case "or", "||":
			return join2(b.needs(n.Left, want, elem), b.needs(n.Right, want, elem), !want)
		}
	case *ast.BuiltinNode:
		if n.Name == "any" && want || n.Name == "none" && !want {
			// True needs an element, so the list is not empty and the condition holds for one.
			list := b.slotOf(n.Arguments[0])
			inner := b.needs(n.Arguments[1], true, list)
			inner.mask &= b.bodyMask(list)
			return inner
		}
	case *ast.BoolNode:
		if n.Value != want {
			return need{mask: 0}
		}
		return need{mask: everywhere}
	}
	out := need{mask: b.leafMask(n, want)}
	if want {
		out.keys, out.score = b.leafKeys(n, elem)
	}
	return out
}

// join2 combines two parts: both must hold, or one of them.
func join2(l, r need, both bool) need {
	if both {
		best := l
		if r.score > l.score {
			best = r
		}
		best.mask = l.mask & r.mask
		return best
	}
	// A side that can never hold adds nothing.
	switch {
	case l.mask == 0:
		return r
	case r.mask == 0:
		return l
	}
	out := need{mask: l.mask | r.mask}
	if l.keys != nil && r.keys != nil && len(l.keys)+len(r.keys) <= maxKeys {
		out.keys = append(slices.Clip(l.keys), r.keys...)
		out.score = min(l.score, r.score)
	}
	return out
}

// leafKeys are the keys of a comparison that has to be true.
func (b *builder) leafKeys(n ast.Node, elem int) ([]key, int) {
	if t := b.tests[n]; t != nil {
		return b.testKeys(t, elem)
	}
	c, ok := n.(*ast.BinaryNode)
	if !ok {
		return nil, anything
	}
	left, right := c.Left, c.Right
	switch c.Operator {
	case "==":
		if b.subject(left, elem).slot < 0 {
			left, right = right, left
		}
		switch v := right.(type) {
		case *ast.StringNode:
			return b.equals(b.subject(left, elem), []string{v.Value}, nil)
		case *ast.IntegerNode:
			return b.equals(b.subject(left, elem), nil, []int{v.Value})
		}
	case "contains", "startsWith", "endsWith":
		if v, ok := right.(*ast.StringNode); ok {
			return b.literals(b.subject(left, elem), []string{v.Value}, false)
		}
	}
	return nil, anything
}

func (b *builder) testKeys(t *test, elem int) ([]key, int) {
	s := b.subject(t.subject, elem)
	switch t.op {
	case isIn:
		return b.equals(s, t.texts, t.numbers)
	case contains, startsWith, endsWith:
		return b.literals(s, t.texts, false)
	case matches:
		lits, fold := required(t.regex, 0)
		return b.literals(s, lits, fold)
	case inNetwork:
		if s.slot < 0 || b.slots.list[s.slot].kind != address {
			return nil, anything
		}
		var out []key
		for _, p := range t.nets {
			if !p.IsSingleIP() {
				return nil, anything
			}
			out = append(out, key{slot: s.slot, addr: p.Addr()})
		}
		return out, rare
	}
	return nil, anything
}

// A subject is what a comparison looks at: a slot, or an element of one, perhaps folded to lower case.
type subject struct {
	slot int // -1: not known to the index
	fold bool
}

func (b *builder) subject(n ast.Node, elem int) subject {
	if c, ok := n.(*ast.CallNode); ok && b.calls[c] == lowered {
		s := b.subject(c.Arguments[0], elem)
		s.fold = true
		return s
	}
	if p, ok := n.(*ast.PointerNode); ok && p.Name == "" {
		return subject{slot: elem}
	}
	i := b.slotOf(n)
	if i >= 0 && b.slots.list[i].how == lowered {
		return subject{slot: b.slots.list[i].of, fold: true}
	}
	return subject{slot: i}
}

func (b *builder) equals(s subject, texts []string, numbers []int) ([]key, int) {
	if s.slot < 0 || len(texts)+len(numbers) > maxKeys {
		return nil, anything
	}
	if s.fold {
		return b.literals(s, texts, false)
	}
	var out []key
	k := b.slots.list[s.slot].kind
	for _, t := range texts {
		if t == "" || k != text && k != textList {
			return nil, anything // an absent field is ""
		}
		out = append(out, key{slot: s.slot, text: t})
	}
	for _, v := range numbers {
		if v == 0 || k != number && k != numberList {
			return nil, anything
		}
		out = append(out, key{slot: s.slot, number: v})
	}
	if score, ok := common[b.slots.list[s.slot].label]; ok {
		return out, score
	}
	return out, rare
}

// literals are the keys of texts one of which must be a part of the subject.
func (b *builder) literals(s subject, texts []string, folded bool) ([]key, int) {
	if s.slot < 0 || len(texts) == 0 || len(texts) > maxKeys {
		return nil, anything
	}
	if k := b.slots.list[s.slot].kind; k != text && k != textList {
		return nil, anything
	}
	var out []key
	score := rare
	for _, t := range texts {
		if t == "" {
			return nil, anything
		}
		if s.fold || folded {
			t = lower(t)
		}
		if score = min(score, 2+min(len(t), literalBytes)); usual[strings.TrimSpace(lower(t))] {
			score = min(score, 3)
		}
		out = append(out, key{slot: s.slot, literal: true, folded: s.fold || folded, text: t})
	}
	return out, score
}

// required gives texts one of which is in whatever the regular expression matches; nil where none is known. fold tells that it must
// be looked for without regard to case.
func required(re *syntax.Regexp, depth int) (texts []string, fold bool) {
	if depth > 50 {
		return nil, false
	}
	switch re.Op {
	case syntax.OpLiteral:
		return literalRunes(re)
	case syntax.OpCapture, syntax.OpPlus:
		return required(re.Sub[0], depth+1)
	case syntax.OpRepeat:
		if re.Min > 0 {
			return required(re.Sub[0], depth+1)
		}
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			if t, f := required(sub, depth+1); shortest(t) > shortest(texts) {
				texts, fold = t, f
			}
		}
		return texts, fold
	case syntax.OpAlternate:
		for _, sub := range re.Sub {
			t, f := required(sub, depth+1)
			if t == nil {
				return nil, false
			}
			texts, fold = append(texts, t...), fold || f
		}
		return texts, fold
	}
	return nil, false
}

// literalRunes is the longest usable part of a literal. Go's regular expressions take a byte that is not UTF-8 for U+FFFD, and under
// (?i) they fold by Unicode: K (Kelvin) is a k and ſ an s. The literal is cut there, because the index compares bytes and folds ASCII.
func literalRunes(re *syntax.Regexp) ([]string, bool) {
	fold := re.Flags&syntax.FoldCase != 0
	best := ""
	for part := range strings.FieldsFuncSeq(string(re.Rune), func(r rune) bool {
		return r == utf8.RuneError || fold && (r > 126 || strings.ContainsRune("kKsS", r))
	}) {
		if len(part) > len(best) {
			best = part
		}
	}
	if best == "" {
		return nil, false
	}
	return []string{best}, fold
}

func shortest(texts []string) int {
	if len(texts) == 0 {
		return 0
	}
	n := len(texts[0])
	for _, t := range texts {
		n = min(n, len(t))
	}
	return n
}
