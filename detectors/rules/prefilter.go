package rules

import (
	"net/netip"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/expr-lang/expr/ast"

	"tidegate/pipeline"
)

// A prefilter is what an expression cannot be true without: one of keys must hold of the event, and its dataset must be in mask. The
// index asks that before expr runs. It may be weaker than the truth, never stronger: TestIndexAgreesWithPlainLoop.
type prefilter struct {
	keys  []prefilterKey // nil: nothing is known
	score int            // how rare the commonest of the keys is thought to be
	mask  datasetMask
}

// datasetMask is a set of datasets: bit d stands for pipeline.Dataset(d). The bit of DATASET_NONE stands for events
// without a dataset.
type datasetMask uint32

const allDatasets = datasetMask(1<<pipeline.NumDatasets - 1)

// maskOf returns the set of d alone, and the empty set for a dataset that this binary does not have.
func maskOf(d pipeline.Dataset) datasetMask {
	if d < 0 || int(d) >= pipeline.NumDatasets {
		return 0
	}
	return 1 << d
}

// String returns the set for a rule's hash. All datasets are one word, so that a new dataset does not change the hashes of
// the rules that name none.
func (m datasetMask) String() string {
	if m == allDatasets {
		return "all"
	}
	return strconv.FormatUint(uint64(m), 10)
}

// A prefilterKey is one thing that can be looked up: a slot that equals a value, or contains a literal. Of a list, one of its elements.
type prefilterKey struct {
	slot    int
	literal bool // text is a part of the slot's value
	folded  bool // of a literal: without regard to ASCII case
	text    string
	number  int
	addr    netip.Addr
}

const (
	maxKeys     = 20000 // of one rule: a feed in disguise belongs into feeds
	unselective = 0     // score of no key
	selective   = 100   // of an equality on a field with many values
)

// fieldSelectivity fields have so few values that a literal elsewhere is the better key.
var fieldSelectivity = map[string]int{
	"event.dataset": 1, "event.outcome": 2, "network.transport": 1, "network.type": 1, "http.request.method": 2, "http.version": 1,
	"dns.type": 1, "dns.question.type": 3, "dns.question.class": 1, "dns.response_code": 2, "log.stream": 1, "log.level": 2,
	"mysql.command": 2, "mysql.method": 2, "redis.reply_type": 2, "destination.port": 3, "http.response.status_code": 3,
	"tls.version": 1, "tls.client.version": 1, "session.state": 2, "network.protocol": 2, "event.action": 3,
	"container.name": 4, "container.id": 4, "container.image.name": 4, "host.name": 1, "host.id": 1, "orchestrator.cluster.name": 1,
}

// commonLiterals literals are in a good part of all statements, requests and log lines.
var commonLiterals = map[string]bool{
	"select": true, "from": true, "where": true, "insert": true, "insert into": true, "update": true, "delete": true, "values": true, "http": true,
	"http/1.": true, "https": true, "mozilla": true, "mozilla/5.0": true, "error": true, "warning": true, "info": true, "www.": true, ".com": true,
	"/api": true, "/api/": true, "index": true,
}

// prefilter reads what the tree needs to become want. elem is the slot of the list that # walks, -1 outside of loops.
func (b *builder) prefilter(n ast.Node, want bool, elem int) prefilter {
	switch n := n.(type) {
	case *ast.UnaryNode:
		if n.Operator == "not" || n.Operator == "!" {
			return b.prefilter(n.Node, !want, elem)
		}
	case *ast.PredicateNode:
		return b.prefilter(n.Node, want, elem)
	case *ast.BinaryNode:
		switch n.Operator {
		case "and", "&&":
			return combine(b.prefilter(n.Left, want, elem), b.prefilter(n.Right, want, elem), want)
		case "or", "||":
			return combine(b.prefilter(n.Left, want, elem), b.prefilter(n.Right, want, elem), !want)
		}
	case *ast.BuiltinNode:
		if n.Name == "any" && want || n.Name == "none" && !want {
			// True needs an element, so the list is not empty and the condition holds for one.
			list := b.slotOf(n.Arguments[0])
			inner := b.prefilter(n.Arguments[1], true, list)
			inner.mask &= b.slotDatasets(list)
			return inner
		}
	case *ast.BoolNode:
		if n.Value != want {
			return prefilter{mask: 0}
		}
		return prefilter{mask: allDatasets}
	}
	out := prefilter{mask: b.comparisonDatasets(n, want)}
	if want {
		out.keys, out.score = b.comparisonKeys(n, elem)
	}
	return out
}

// combine combines two parts: both must hold, or one of them.
func combine(l, r prefilter, both bool) prefilter {
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
	out := prefilter{mask: l.mask | r.mask}
	if l.keys != nil && r.keys != nil && len(l.keys)+len(r.keys) <= maxKeys {
		out.keys = append(slices.Clip(l.keys), r.keys...)
		out.score = min(l.score, r.score)
	}
	return out
}

// comparisonKeys are the keys of a comparison that has to be true.
func (b *builder) comparisonKeys(n ast.Node, elem int) ([]prefilterKey, int) {
	if t := b.tests[n]; t != nil {
		return b.constantKeys(t, elem)
	}
	c, ok := n.(*ast.BinaryNode)
	if !ok {
		return nil, unselective
	}
	left, right := c.Left, c.Right
	switch c.Operator {
	case "==":
		if b.subject(left, elem).slot < 0 {
			left, right = right, left
		}
		switch v := right.(type) {
		case *ast.StringNode:
			return b.equalityKeys(b.subject(left, elem), []string{v.Value}, nil)
		case *ast.IntegerNode:
			return b.equalityKeys(b.subject(left, elem), nil, []int{v.Value})
		}
	case "contains", "startsWith", "endsWith":
		if v, ok := right.(*ast.StringNode); ok {
			return b.literalKeys(b.subject(left, elem), []string{v.Value}, false)
		}
	}
	return nil, unselective
}

func (b *builder) constantKeys(t *test, elem int) ([]prefilterKey, int) {
	s := b.subject(t.subject, elem)
	switch t.op {
	case isIn:
		return b.equalityKeys(s, t.texts, t.numbers)
	case contains, startsWith, endsWith:
		return b.literalKeys(s, t.texts, false)
	case matches:
		lits, fold := requiredLiterals(t.regex, 0)
		return b.literalKeys(s, lits, fold)
	case inNetwork:
		if s.slot < 0 || b.slots.list[s.slot].kind != address {
			return nil, unselective
		}
		var out []prefilterKey
		for _, p := range t.nets {
			if !p.IsSingleIP() {
				return nil, unselective
			}
			out = append(out, prefilterKey{slot: s.slot, addr: p.Addr()})
		}
		return out, selective
	}
	return nil, unselective
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

func (b *builder) equalityKeys(s subject, texts []string, numbers []int) ([]prefilterKey, int) {
	if s.slot < 0 || len(texts)+len(numbers) > maxKeys {
		return nil, unselective
	}
	if s.fold {
		return b.literalKeys(s, texts, false)
	}
	var out []prefilterKey
	k := b.slots.list[s.slot].kind
	for _, t := range texts {
		if t == "" || k != text && k != textList {
			return nil, unselective // an absent field is ""
		}
		out = append(out, prefilterKey{slot: s.slot, text: t})
	}
	for _, v := range numbers {
		if v == 0 || k != number && k != numberList {
			return nil, unselective
		}
		out = append(out, prefilterKey{slot: s.slot, number: v})
	}
	if score, ok := fieldSelectivity[b.slots.list[s.slot].label]; ok {
		return out, score
	}
	return out, selective
}

// literalKeys are the keys of texts one of which must be a part of the subject.
func (b *builder) literalKeys(s subject, texts []string, folded bool) ([]prefilterKey, int) {
	if s.slot < 0 || len(texts) == 0 || len(texts) > maxKeys {
		return nil, unselective
	}
	if k := b.slots.list[s.slot].kind; k != text && k != textList {
		return nil, unselective
	}
	var out []prefilterKey
	score := selective
	for _, t := range texts {
		if t == "" {
			return nil, unselective
		}
		if s.fold || folded {
			t = lowerASCII(t)
		}
		if score = min(score, 2+min(len(t), literalBytes)); commonLiterals[strings.TrimSpace(lowerASCII(t))] {
			score = min(score, 3)
		}
		out = append(out, prefilterKey{slot: s.slot, literal: true, folded: s.fold || folded, text: t})
	}
	return out, score
}

// requiredLiterals gives texts one of which is in whatever the regular expression matches; nil where none is known. fold tells that it must
// be looked for without regard to case.
func requiredLiterals(re *syntax.Regexp, depth int) (texts []string, fold bool) {
	if depth > 50 {
		return nil, false
	}
	switch re.Op {
	case syntax.OpLiteral:
		return indexableLiteral(re)
	case syntax.OpCapture, syntax.OpPlus:
		return requiredLiterals(re.Sub[0], depth+1)
	case syntax.OpRepeat:
		if re.Min > 0 {
			return requiredLiterals(re.Sub[0], depth+1)
		}
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			if t, f := requiredLiterals(sub, depth+1); shortestLength(t) > shortestLength(texts) {
				texts, fold = t, f
			}
		}
		return texts, fold
	case syntax.OpAlternate:
		for _, sub := range re.Sub {
			t, f := requiredLiterals(sub, depth+1)
			if t == nil {
				return nil, false
			}
			texts, fold = append(texts, t...), fold || f
		}
		return texts, fold
	}
	return nil, false
}

// indexableLiteral is the longest usable part of a literal. Go's regular expressions take a byte that is not UTF-8 for U+FFFD, and under
// (?i) they fold by Unicode: K (Kelvin) is a k and ſ an s. The literal is cut there, because the index compares bytes and folds ASCII.
func indexableLiteral(re *syntax.Regexp) ([]string, bool) {
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

func shortestLength(texts []string) int {
	if len(texts) == 0 {
		return 0
	}
	n := len(texts[0])
	for _, t := range texts {
		n = min(n, len(t))
	}
	return n
}
