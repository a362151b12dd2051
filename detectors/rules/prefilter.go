package rules

import (
	"net/netip"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode/utf8"
)

// A prefilter is a condition that is necessary for an expression to be true: the event's dataset is in
// datasets, and at least one of keys holds. The index checks it before the expression runs. A prefilter may
// let events pass for which the expression is false. It never rules out one for which the expression is true
// (TestIndexAgreesWithPlainLoop).
type prefilter struct {
	keys        []prefilterKey // nil: no necessary key is known
	selectivity int            // of the least selective key; a higher value means that fewer events pass
	datasets    datasetMask
}

// A prefilterKey is one condition that the index can look up: a slot equals a value, or contains a literal.
// For a list slot, one element must.
type prefilterKey struct {
	slot    int
	literal bool // text is a part of the slot's value
	folded  bool // ASCII case of a literal is ignored
	text    string
	number  int64
	addr    netip.Addr
}

const (
	maxKeys     = 20000 // of one rule; a list that is longer belongs in a feed
	unselective = 0     // selectivity where there is no key
	selective   = 100   // selectivity of an equality with a field that has many values

	// noElement is the slot of # outside of loops.
	noElement = -1
)

// commonLiterals are in a good part of all statements, requests and log lines, so they select little.
var commonLiterals = map[string]bool{
	"select": true, "from": true, "where": true, "insert": true, "insert into": true, "update": true, "delete": true,
	"values": true, "http": true, "http/1.": true, "https": true, "mozilla": true, "mozilla/5.0": true, "error": true, "warning": true,
	"info": true, "www.": true, ".com": true, "/api": true, "/api/": true, "index": true,
}

// prefilterOf returns a condition that is necessary for n to have the value want. element is the slot of the
// list whose elements # stands for, or noElement.
func (t *slotTable) prefilterOf(n *node, want bool, element int) prefilter {
	switch n.op {
	case opNot:
		return t.prefilterOf(n.args[0], !want, element)
	case opAnd:
		// An and that must be false needs one false side only, as an or that must be true needs one true
		// side.
		return combine(t.prefilterOf(n.args[0], want, element), t.prefilterOf(n.args[1], want, element), want)
	case opOr:
		return combine(t.prefilterOf(n.args[0], want, element), t.prefilterOf(n.args[1], want, element), !want)
	case opAny, opNone:
		if want == (n.op == opAny) {
			// The condition must hold for one element, so the list is not empty.
			inner := t.prefilterOf(n.args[0], true, n.slot)
			inner.datasets &= t.slotDatasets(n.slot)
			return inner
		}
	case opConstant:
		if n.flag != want {
			return prefilter{datasets: 0}
		}
		return prefilter{datasets: allDatasets}
	}

	// Everything else is a comparison. The index finds only present values, so a comparison that must be
	// false has no keys.
	out := prefilter{datasets: t.comparisonDatasets(n, want)}
	if want {
		out.keys, out.selectivity = t.comparisonKeys(n, element)
	}
	return out
}

// combine returns the prefilter of two parts of which both must hold, or else at least one.
func combine(left, right prefilter, both bool) prefilter {
	if both {
		// Each side is necessary, so the keys of the more selective one suffice.
		best := left
		if right.selectivity > left.selectivity {
			best = right
		}
		best.datasets = left.datasets & right.datasets
		return best
	}
	// A side that can never hold adds nothing.
	switch {
	case left.datasets == 0:
		return right
	case right.datasets == 0:
		return left
	}

	// Either side may hold, so the keys of both are needed. If one side has no keys, the result has none.
	out := prefilter{datasets: left.datasets | right.datasets}
	if left.keys != nil && right.keys != nil && len(left.keys)+len(right.keys) <= maxKeys {
		out.keys = append(slices.Clip(left.keys), right.keys...)
		out.selectivity = min(left.selectivity, right.selectivity)
	}
	return out
}

// comparisonKeys returns the keys of a comparison that must be true, with their selectivity.
func (t *slotTable) comparisonKeys(n *node, element int) ([]prefilterKey, int) {
	switch n.op {
	case opEqual:
		// The constant may be on either side.
		left, right := n.args[0], n.args[1]
		if t.subject(left, element).slot < 0 {
			left, right = right, left
		}
		if right.op != opConstant {
			break
		}
		switch right.kind {
		case text:
			return t.equalityKeys(t.subject(left, element), []string{right.text}, nil)
		case number:
			return t.equalityKeys(t.subject(left, element), nil, []int64{right.number})
		}
	case opListContains:
		list := subject{slot: n.slot}
		if constant := n.args[0]; constant.kind == number {
			return t.equalityKeys(list, nil, []int64{constant.number})
		}
		return t.equalityKeys(list, []string{n.args[0].text}, nil)
	case opIn:
		return t.equalityKeys(t.subject(n.args[0], element), n.texts, n.numbers)
	case opContainsAny, opStartsWithAny, opEndsWithAny:
		return t.literalKeys(t.subject(n.args[0], element), n.texts, false)
	case opMatches:
		literals, fold := requiredLiterals(n.syntax, 0)
		return t.literalKeys(t.subject(n.args[0], element), literals, fold)
	case opInNetwork:
		return t.addressKeys(t.subject(n.args[0], element), n.networks)
	}
	return nil, unselective
}

// A subject is the value that a comparison tests: a slot or an element of one, perhaps in lower case.
type subject struct {
	slot int  // -1: a computed value, which the index cannot look up
	fold bool // the value is compared in lower case
}

// subject returns the subject of a comparison whose argument is n.
func (t *slotTable) subject(n *node, element int) subject {
	switch n.op {
	case opLower:
		s := t.subject(n.args[0], element)
		s.fold = true
		return s
	case opElement:
		return subject{slot: element}
	case opSlot:
		if s := t.list[n.slot]; s.how == lowered {
			return subject{slot: s.of, fold: true}
		}
		return subject{slot: n.slot}
	}
	return subject{slot: -1}
}

// addressKeys returns the keys of an address that must be in one of networks. The index looks up single
// addresses, so there are no keys if a network is wider.
func (t *slotTable) addressKeys(s subject, networks []netip.Prefix) ([]prefilterKey, int) {
	if s.slot < 0 || t.list[s.slot].kind != address {
		return nil, unselective
	}
	var out []prefilterKey
	for _, prefix := range networks {
		if !prefix.IsSingleIP() {
			return nil, unselective
		}
		out = append(out, prefilterKey{slot: s.slot, addr: prefix.Addr()})
	}
	return out, selective
}

// equalityKeys returns the keys of a subject that must equal one of the constants.
func (t *slotTable) equalityKeys(s subject, texts []string, numbers []int64) ([]prefilterKey, int) {
	if s.slot < 0 || len(texts)+len(numbers) > maxKeys {
		return nil, unselective
	}
	if s.fold {
		// The index holds exact values only, so a value in any case is looked up as a literal.
		return t.literalKeys(s, texts, false)
	}
	var out []prefilterKey
	kind := t.list[s.slot].kind
	for _, value := range texts {
		if value == "" || kind != text && kind != textList {
			return nil, unselective // "" also matches an absent field, which the index does not find.
		}
		out = append(out, prefilterKey{slot: s.slot, text: value})
	}
	for _, v := range numbers {
		if v == 0 || kind != number && kind != numberList {
			return nil, unselective
		}
		out = append(out, prefilterKey{slot: s.slot, number: v})
	}
	if slot := &t.list[s.slot]; slot.how == raw && slot.field.Selectivity > 0 {
		return out, slot.field.Selectivity
	}
	return out, selective
}

// literalKeys returns the keys of a subject that must contain one of texts.
func (t *slotTable) literalKeys(s subject, texts []string, folded bool) ([]prefilterKey, int) {
	if s.slot < 0 || len(texts) == 0 || len(texts) > maxKeys {
		return nil, unselective
	}
	if k := t.list[s.slot].kind; k != text && k != textList {
		return nil, unselective
	}
	var out []prefilterKey
	selectivity := selective
	for _, literal := range texts {
		if literal == "" {
			return nil, unselective
		}
		if s.fold || folded {
			literal = lowerASCII(literal)
		}

		// Longer literals select more. The least selective one decides.
		selectivity = min(selectivity, 2+min(len(literal), literalBytes))
		if commonLiterals[strings.TrimSpace(lowerASCII(literal))] {
			selectivity = min(selectivity, 3)
		}
		out = append(out, prefilterKey{slot: s.slot, literal: true, folded: s.fold || folded, text: literal})
	}
	return out, selectivity
}

// requiredLiterals returns a set of literals such that every match of the regular expression contains at
// least one of them. It returns nil if none is known. If fold is true, the match may contain them in any
// case.
func requiredLiterals(re *syntax.Regexp, depth int) (texts []string, fold bool) {
	const maxDepth = 50
	if depth > maxDepth {
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
	case syntax.OpConcat: // Each part is required. The first of those whose shortest literal is longest selects most.
		for _, sub := range re.Sub {
			if literals, ignoreCase := requiredLiterals(sub, depth+1); shortestLength(literals) > shortestLength(texts) {
				texts, fold = literals, ignoreCase
			}
		}
		return texts, fold
	case syntax.OpAlternate: // One of the parts is required, so the literals of all parts are needed.
		for _, sub := range re.Sub {
			literals, ignoreCase := requiredLiterals(sub, depth+1)
			if literals == nil {
				return nil, false
			}
			texts, fold = append(texts, literals...), fold || ignoreCase
		}
		return texts, fold
	}
	return nil, false
}

// indexableLiteral returns the longest part of a literal that the index can look for: it compares bytes and
// folds ASCII. Go's regular expressions take a byte that is not UTF-8 for U+FFFD, and (?i) folds by Unicode,
// where the Kelvin sign is a k and the long s an s. The literal is cut at such characters.
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

// shortestLength returns the length of the shortest of texts, 0 if there are none.
func shortestLength(texts []string) int {
	if len(texts) == 0 {
		return 0
	}
	return len(slices.MinFunc(texts, func(a, b string) int { return len(a) - len(b) }))
}
