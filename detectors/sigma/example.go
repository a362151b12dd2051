package sigma

import (
	"net/netip"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
)

// Examples are made from the detection of a rule, not from what it was converted to, so that they test the
// conversion: a small evaluator of Sigma decides whether a sample fulfils the condition.

// A sample holds the values of an event by the names of the rule; those of "" are keywords.
type sample map[string][]string

// A demand is a value that a sample must have for an item to hold, or, if absent is true, a field that it
// must not have.
type demand struct {
	item   *item
	value  value
	absent bool
}

// The bounds of the search for a sample.
const (
	maxWays    = 48 // in which a condition can hold
	maxDemands = 300

	maxExampleValues = 10_000  // of a condition
	maxExampleCost   = 100_000 // of its regular expressions
)

// exampleSamples returns a sample that fulfils a condition and a similar one that does not. Either may be
// nil.
func exampleSamples(c *condition) (match, other sample) {
	if values, cost := c.weight(); values > maxExampleValues || cost > maxExampleCost {
		return nil, nil
	}
	ways := waysOf(c, true)
	for _, longest := range []bool{false, true} {
		for _, way := range ways {
			if s := buildSample(way, longest); match == nil && s != nil && holds(c, s) {
				match = s
			}
		}
	}

	// The sample that does not match lacks one value of the one that does, or has another one.
	for _, field := range sortedFields(match) {
		changed := sample{}
		for name, values := range match {
			if name != field {
				changed[name] = values
			}
		}
		if !holds(c, changed) {
			return match, changed
		}
	}
	for _, way := range waysOf(c, false) {
		if s := buildSample(way, false); s != nil && !holds(c, s) {
			return match, s
		}
	}
	if !holds(c, sample{}) {
		return match, sample{}
	}
	return match, nil
}

func sortedFields(s sample) (names []string) {
	for name := range s {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// waysOf returns lists of demands; a sample that meets all of one list probably makes c true, or false if
// want is false.
func waysOf(c *condition, want bool) (ways [][]demand) {
	switch {
	case c.op == "not":
		return waysOf(c.args[0], !want)
	case c.op == "":
		return waysOfItem(c.item, want)
	case (c.op == "or") == want: // one of args
		for _, arg := range c.args {
			ways = append(ways, waysOf(arg, want)...)
			if len(ways) >= maxWays {
				return ways[:maxWays]
			}
		}
		return ways
	}
	ways = [][]demand{nil}
	for _, arg := range c.args {
		var longer [][]demand
		for _, more := range waysOf(arg, want) {
			for _, way := range ways {
				if len(longer) < maxWays && len(way)+len(more) <= maxDemands {
					longer = append(longer, slices.Concat(way, more))
				}
			}
		}
		ways = longer
	}
	return ways
}

func waysOfItem(it *item, want bool) (ways [][]demand) {
	if it.op == opExists {
		return [][]demand{{{item: it, value: value{text: "x"}, absent: it.values[0][0].flag != want}}}
	}
	if !want {
		for _, variants := range it.values {
			if slices.ContainsFunc(variants, isEmpty) {
				return [][]demand{{{item: it, value: value{text: "x", pattern: literalPattern("x")}}}}
			}
		}
		return [][]demand{nil}
	}
	if it.all {
		var way []demand
		for _, variants := range it.values {
			way = append(way, demand{item: it, value: variants[0], absent: isEmpty(variants[0])})
		}
		return [][]demand{way}
	}
	for _, variants := range it.values {
		for _, v := range variants {
			if len(ways) < maxWays/4 {
				ways = append(ways, []demand{{item: it, value: v, absent: isEmpty(v)}})
			}
		}
	}
	return ways
}

// buildSample returns a sample that meets demands; nil if there is none, or it was not found. Texts are
// short, or with longest have something around what is demanded, as an exception of the rule may be the short
// one.
func buildSample(demands []demand, longest bool) sample {
	byField := map[string][]demand{}
	for _, d := range demands {
		byField[d.item.field] = append(byField[d.item.field], d)
	}
	out := sample{}
	for field, list := range byField {
		absent := 0
		for _, d := range list {
			if d.absent {
				absent++
			}
		}
		if absent > 0 {
			if absent < len(list) {
				return nil
			}
			continue
		}
		values := candidates(list)
		if longest {
			slices.Reverse(values)
		}
		i := slices.IndexFunc(values, func(candidate string) bool {
			return !slices.ContainsFunc(list, func(d demand) bool { return !matchesValue(d.item, &d.value, candidate) })
		})
		if i < 0 {
			return nil
		}
		out[field] = []string{values[i]}
		if list[0].item.op == opFieldRef {
			out[list[0].value.text] = out[field]
		}
	}
	return out
}

// candidates returns texts of which one may meet all demands on a field.
func candidates(list []demand) (out []string) {
	var prefix, suffix string
	var parts []string
	for _, d := range list {
		if d.item.op != opMatch {
			out = append(out, sampleOf(d.item, d.value))
			parts = append(parts, sampleOf(d.item, d.value))
			continue
		}
		if d.value.kind != textValue {
			out = append(out, d.value.text)
			continue
		}
		if d.item.field == "" {
			parts = append(parts, d.value.pattern.sample())
			continue
		}
		shape, literal := d.value.pattern.shape()
		switch shape {
		case shapePrefix:
			if len(literal) > len(prefix) {
				prefix = literal
			}
		case shapeSuffix:
			if len(literal) > len(suffix) {
				suffix = literal
			}
		case shapePart:
			parts = append(parts, literal)
		default:
			out = append(out, d.value.pattern.sample())
			parts = append(parts, d.value.pattern.sample())
		}
	}
	for _, between := range []string{" ", "", "/", "x", " x ", "&", "="} {
		all := slices.Clone(parts)
		if prefix != "" {
			all = append([]string{prefix}, all...)
		}
		if suffix != "" {
			all = append(all, suffix)
		}
		joined := strings.Join(all, between)
		out = append(out, joined)
		if suffix == "" {
			out = append(out, joined+between+"x")
		}
		if prefix == "" {
			out = append(out, "x"+between+joined)
		}
	}
	return out
}

// sampleOf returns a text that fulfils an item with one value.
func sampleOf(it *item, v value) string {
	switch it.op {
	case opRegex:
		tree, err := syntax.Parse(v.text, syntax.Perl)
		if err != nil {
			return ""
		}
		var out strings.Builder
		writeRegexSample(&out, tree.Simplify(), 0)
		return out.String()
	case opCIDR:
		if network, err := netip.ParsePrefix(v.text); err == nil {
			return network.Addr().Next().String()
		}
	case opLess:
		return strconv.FormatInt(v.number-1, 10)
	case opGreater:
		return strconv.FormatInt(v.number+1, 10)
	case opLessEqual, opGreaterEqual:
		return v.text
	}
	return "x"
}

// writeRegexSample writes a text that a regular expression matches, but for its boundaries.
func writeRegexSample(out *strings.Builder, re *syntax.Regexp, depth int) {
	const maxSample = 2000
	if depth > 100 || out.Len() > maxSample {
		return
	}
	switch re.Op {
	case syntax.OpLiteral:
		out.WriteString(string(re.Rune))
	case syntax.OpCharClass:
		out.WriteRune(runeOf(re.Rune))
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		out.WriteByte('x')
	case syntax.OpCapture, syntax.OpPlus:
		writeRegexSample(out, re.Sub[0], depth+1)
	case syntax.OpRepeat:
		for range re.Min {
			writeRegexSample(out, re.Sub[0], depth+1)
		}
	case syntax.OpAlternate:
		writeRegexSample(out, re.Sub[0], depth+1)
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			writeRegexSample(out, sub, depth+1)
		}
	}
}

// runeOf returns a character of a class, if it can be one that needs no escape.
func runeOf(ranges []rune) rune {
	for _, wanted := range "ax0A_-. " {
		for i := 0; i+1 < len(ranges); i += 2 {
			if ranges[i] <= wanted && wanted <= ranges[i+1] {
				return wanted
			}
		}
	}
	for i := 0; i+1 < len(ranges); i += 2 {
		if ranges[i+1] > ' ' {
			return max(ranges[i], '!')
		}
	}
	return ranges[0]
}

// holds evaluates a condition over a sample.
func holds(c *condition, s sample) bool {
	switch c.op {
	case "":
		return holdsItem(c.item, s)
	case "not":
		return !holds(c.args[0], s)
	case "and":
		return !slices.ContainsFunc(c.args, func(arg *condition) bool { return !holds(arg, s) })
	}
	return slices.ContainsFunc(c.args, func(arg *condition) bool { return holds(arg, s) })
}

func holdsItem(it *item, s sample) bool {
	have := s[it.field]
	if it.op == opExists {
		return (len(have) > 0) == it.values[0][0].flag
	}
	if it.field == "" { // keywords are looked for everywhere
		have = nil
		for _, values := range s {
			have = append(have, values...)
		}
	}
	matchesOne := func(v *value) bool {
		switch {
		case isEmpty(*v):
			return len(have) == 0
		case it.op == opFieldRef:
			return len(have) > 0 && len(s[v.text]) > 0 && have[0] == s[v.text][0]
		}
		return slices.ContainsFunc(have, func(text string) bool { return matchesValue(it, v, text) })
	}
	matched := func(variants []value) bool {
		for i := range variants {
			if matchesOne(&variants[i]) {
				return true
			}
		}
		return false
	}
	if it.all {
		return !slices.ContainsFunc(it.values, func(variants []value) bool { return !matched(variants) })
	}
	return slices.ContainsFunc(it.values, matched)
}

// matchesValue reports whether a text has one value of an item.
func matchesValue(it *item, v *value, text string) bool {
	compared, err := strconv.ParseInt(text, 10, 64)
	switch it.op {
	case opRegex:
		if v.regex == nil {
			v.regex = regexp.MustCompile(v.text) // checkValue has parsed it
		}
		return v.regex.MatchString(text)
	case opCIDR:
		network, networkErr := netip.ParsePrefix(v.text)
		addr, addrErr := netip.ParseAddr(text)
		return networkErr == nil && addrErr == nil && network.Contains(addr)
	case opLess:
		return err == nil && compared < v.number
	case opLessEqual:
		return err == nil && compared <= v.number
	case opGreater:
		return err == nil && compared > v.number
	case opGreaterEqual:
		return err == nil && compared >= v.number
	case opFieldRef, opExists, opTimePart:
		return true
	}
	switch {
	case v.kind == integerValue && it.field == "":
		return regexp.MustCompile(wordOf(v.text)).MatchString(text)
	case v.kind != textValue:
		return v.text == text || it.field == "" && strings.Contains(text, v.text)
	}
	if it.field == "" {
		return v.pattern.closing().opening().matches(text, it.cased)
	}
	return v.pattern.matches(text, it.cased)
}
