package sigma

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"

	"tidegate/pipeline/config"
)

// The bounds of an item.
const (
	maxValues    = 5000 // of one item, with what modifiers make of them
	maxValueSize = 4096 // bytes, also of what a modifier makes of a value
	maxModifiers = 10
	maxRegexSize = 1000   // bytes, as in our rules
	maxRegexCost = 20_000 // of one regular expression; see regexCost
)

// operator is how an item compares a field with its values.
type operator int

const (
	opMatch operator = iota // with patterns, numbers, true and false, null
	opRegex
	opCIDR
	opExists
	opFieldRef
	opLess
	opLessEqual
	opGreater
	opGreaterEqual
	opTimePart // a part of the time: modifiers minute, hour and so on
)

// An item compares one field with values. For each value one of its variants must match; of the values one
// must match, or with all each.
type item struct {
	node   config.Node // of the values, for errors
	field  string      // "" is a keyword
	op     operator
	cased  bool
	all    bool
	shape  shape  // opFieldRef: equal, prefix, suffix or part
	part   string // opTimePart
	values [][]value
}

// A value is a constant of an item.
type value struct {
	kind    valueKind
	pattern pattern // textValue
	number  int64   // integerValue
	text    string  // as written: of a number, a regular expression, a network, the name of a field
	flag    bool
	cost    int            // of a regular expression
	regex   *regexp.Regexp // compiled for the examples, where they need it
}

type valueKind int

const (
	textValue valueKind = iota
	integerValue
	decimalValue
	flagValue
	nullValue
)

// A problem is why an item cannot be converted.
type problem struct {
	node    config.Node
	message string
}

func (p *problem) Error() string { return p.message }

func problemf(node config.Node, format string, args ...any) *problem {
	return &problem{node, fmt.Sprintf(format, args...)}
}

// parseItem reads "field|modifier|modifier: values".
func parseItem(key string, node config.Node) (*condition, *problem) {
	parts := strings.Split(key, "|")
	it := &item{node: node, field: strings.TrimSpace(parts[0])}
	modifiers := parts[1:]
	if len(modifiers) > maxModifiers {
		return nil, problemf(node, "has %d modifiers, the limit is %d", len(modifiers), maxModifiers)
	}

	nodes := []config.Node{node}
	if node.IsList() {
		if nodes = node.Items(); len(nodes) == 0 {
			return nil, problemf(node, "has no value")
		}
	}
	if len(nodes) > maxValues {
		return nil, problemf(node, "has %d values, the limit is %d", len(nodes), maxValues)
	}
	raw := slices.Contains(modifiers, "re") // a regular expression has no wildcards and escapes of Sigma
	for _, n := range nodes {
		v, err := parseValue(n, raw || slices.Contains(modifiers, "cidr") || slices.Contains(modifiers, "fieldref"))
		if err != nil {
			return nil, err
		}
		it.values = append(it.values, []value{v})
	}

	c := &modifierChain{item: it}
	for i, modifier := range modifiers {
		if err := c.apply(modifier, modifiers[i+1:]); err != nil {
			return nil, err
		}
	}
	return c.finish()
}

// parseValue reads a constant. A plain text has no wildcards.
func parseValue(node config.Node, plain bool) (value, *problem) {
	if node.IsNull() {
		return value{kind: nullValue}, nil
	}
	if flag, ok := node.Bool(); ok {
		return value{kind: flagValue, flag: flag, text: strconv.FormatBool(flag)}, nil
	}
	if number, ok := node.Int(); ok {
		return value{kind: integerValue, number: number, text: strconv.FormatInt(number, 10)}, nil
	}
	text, ok := node.Scalar()
	if !ok {
		return value{}, problemf(node, "expected a text, a number or null, got %s", node.Kind())
	}
	if len(text) > maxValueSize {
		return value{}, problemf(node, "text of %d bytes, the limit is %d", len(text), maxValueSize)
	}
	if _, isText := node.Text(); !isText {
		return value{kind: decimalValue, text: text}, nil
	}
	if plain {
		return value{text: text, pattern: literalPattern(text)}, nil
	}
	return value{text: text, pattern: parsePattern(text)}, nil
}

// A modifierChain applies the modifiers of an item, one after the other.
type modifierChain struct {
	item    *item
	negated bool   // neq
	flags   string // of a regular expression
	encoded bool   // the texts are UTF-16, which only base64 makes texts of again
}

// operatorOf has the operators of the modifiers that only set one.
var operatorOf = map[string]operator{
	"re": opRegex, "cidr": opCIDR, "exists": opExists, "fieldref": opFieldRef,
	"lt": opLess, "lte": opLessEqual, "gt": opGreater, "gte": opGreaterEqual,
}

// apply applies one modifier. rest are those behind it.
func (c *modifierChain) apply(modifier string, rest []string) *problem {
	it := c.item
	if op, ok := operatorOf[modifier]; ok {
		return c.setOperator(op, modifier)
	}
	switch modifier {
	case "contains", "startswith", "endswith":
		shapes := map[string]shape{"contains": shapePart, "startswith": shapePrefix, "endswith": shapeSuffix}
		it.shape = shapes[modifier]
		if it.op == opFieldRef || slices.Contains(rest, "fieldref") {
			return nil
		}
		return c.mapTexts(modifier, func(p pattern) []pattern {
			if it.shape != shapeSuffix {
				p = p.closing()
			}
			if it.shape != shapePrefix {
				p = p.opening()
			}
			return []pattern{p}
		})
	case "all":
		it.all = true
	case "cased":
		it.cased = true
	case "i", "ignorecase", "m", "multiline", "s", "dotall":
		if it.op != opRegex {
			return problemf(it.node, "the modifier %s belongs behind re", modifier)
		}
		flag := modifier[:1]
		if modifier == "dotall" {
			flag = "s"
		}
		c.flags += flag
	case "neq":
		c.negated = true
	case "minute", "hour", "day", "week", "month", "year":
		it.part = modifier
		return c.setOperator(opTimePart, modifier)
	case "windash":
		tooMany := false
		err := c.mapTexts(modifier, func(p pattern) []pattern {
			variants := dashVariants(p)
			tooMany = tooMany || variants == nil
			return variants
		})
		if err == nil && tooMany {
			err = problemf(it.node, "the modifier windash finds more than %d dashes in a text", maxDashes)
		}
		return err
	case "wide", "utf16le", "utf16be", "utf16":
		if !slices.Contains(rest, "base64") && !slices.Contains(rest, "base64offset") {
			return problemf(it.node, "the modifier %s belongs in front of base64 or base64offset", modifier)
		}
		c.encoded = true
		return c.mapLiterals(modifier, func(text string) []string { return []string{encodeUTF16(text, modifier)} })
	case "base64":
		return c.mapLiterals(modifier, func(text string) []string {
			return []string{base64.StdEncoding.EncodeToString([]byte(text))}
		})
	case "base64offset":
		return c.mapLiterals(modifier, base64Offsets)
	case "expand":
		return problemf(it.node, "the modifier expand takes values of placeholders from outside: write the values in the rule")
	case "":
		return problemf(it.node, "an empty modifier")
	default:
		return problemf(it.node, "unknown modifier %q%s", modifier, config.DidYouMean(modifier, modifierNames))
	}
	return nil
}

var modifierNames = []string{
	"contains", "startswith", "endswith", "all", "re", "i", "m", "s", "cidr", "base64", "base64offset", "wide", "utf16le", "utf16be",
	"utf16", "windash", "exists", "cased", "gt", "gte", "lt", "lte", "neq", "fieldref", "expand", "minute", "hour", "day", "week", "month", "year",
}

func (c *modifierChain) setOperator(op operator, modifier string) *problem {
	if c.item.op != opMatch {
		return problemf(c.item.node, "the modifier %s does not go with the one in front of it", modifier)
	}
	c.item.op = op
	return nil
}

// mapTexts replaces each text by what change makes of it. Numbers are taken for texts.
func (c *modifierChain) mapTexts(modifier string, change func(pattern) []pattern) *problem {
	if c.item.op != opMatch {
		return problemf(c.item.node, "the modifier %s does not go with the one in front of it", modifier)
	}
	total := 0
	for i, variants := range c.item.values {
		var changed []value
		for _, v := range variants {
			switch v.kind {
			case nullValue:
				return problemf(c.item.node, "the modifier %s needs a text, not null", modifier)
			case integerValue, decimalValue, flagValue:
				v = value{text: v.text, pattern: literalPattern(v.text)}
			}
			for _, p := range change(v.pattern) {
				if p.size() > maxValueSize {
					return problemf(c.item.node, "the modifier %s makes texts of more than %d bytes", modifier, maxValueSize)
				}
				changed = append(changed, value{text: v.text, pattern: p})
			}
		}
		if total += len(changed); total > maxValues {
			return problemf(c.item.node, "has more than %d values after the modifier %s", maxValues, modifier)
		}
		c.item.values[i] = changed
	}
	return nil
}

// mapLiterals is mapTexts for texts that have no wildcards.
func (c *modifierChain) mapLiterals(modifier string, change func(string) []string) *problem {
	var wild string
	err := c.mapTexts(modifier, func(p pattern) (out []pattern) {
		text, ok := p.literal()
		if !ok {
			wild = p.sample()
		}
		for _, changed := range change(text) {
			out = append(out, literalPattern(changed))
		}
		return out
	})
	if err == nil && wild != "" {
		err = problemf(c.item.node, "the modifier %s takes a text without wildcards", modifier)
	}
	return err
}

// finish checks the item and returns it as a condition.
func (c *modifierChain) finish() (*condition, *problem) {
	it := c.item
	for _, variants := range it.values {
		for i := range variants {
			if err := c.checkValue(&variants[i]); err != nil {
				return nil, err
			}
		}
	}
	if it.op == opFieldRef && it.field == "" || it.op == opExists && it.field == "" {
		return nil, problemf(it.node, "the modifier needs a field")
	}
	out := &condition{item: it}
	if c.negated {
		out = negation(out)
	}
	return out, nil
}

// checkValue checks one value against the operator.
func (c *modifierChain) checkValue(v *value) *problem {
	node := c.item.node
	switch c.item.op {
	case opRegex:
		if v.kind == nullValue {
			return problemf(node, "re takes a regular expression, not null")
		}
		if c.flags != "" {
			v.text = "(?" + c.flags + ")" + v.text
		}
		if len(v.text) > maxRegexSize {
			return problemf(node, "regular expression of %d bytes, the limit is %d", len(v.text), maxRegexSize)
		}
		tree, err := syntax.Parse(v.text, syntax.Perl)
		if err != nil {
			return problemf(node, "regular expression: %s", regexProblem(err))
		}
		if v.cost = regexCost(tree); v.cost > maxRegexCost {
			return problemf(node, "regular expression: its repetitions of characters and classes are too many")
		}
	case opCIDR:
		network, err := netip.ParsePrefix(v.text)
		if addr, addrErr := netip.ParseAddr(v.text); err != nil && addrErr == nil && addr.Zone() == "" {
			network, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		if err != nil {
			return problemf(node, "%q is not a network like 10.0.0.0/8", v.text)
		}
		if addr := network.Addr(); addr.Is4In6() && network.Bits() >= 96 {
			network = netip.PrefixFrom(addr.Unmap(), network.Bits()-96)
		}
		v.text = network.Masked().String()
	case opExists:
		if v.kind != flagValue {
			return problemf(node, "exists takes true or false")
		}
	case opFieldRef:
		if v.kind != textValue || v.text == "" {
			return problemf(node, "fieldref takes the name of a field")
		}
	case opLess, opLessEqual, opGreater, opGreaterEqual, opTimePart:
		if number, err := strconv.ParseInt(v.text, 10, 64); v.kind == textValue && err == nil {
			*v = value{kind: integerValue, number: number, text: v.text}
		}
		if v.kind != integerValue {
			return problemf(node, "expected a whole number, got %q", v.text)
		}
	}
	return nil
}

// regexCost returns how many characters and ranges a regular expression has when its repetitions are written
// out, as the compiler does: \pL{1000} is 9 bytes and takes a megabyte.
func regexCost(re *syntax.Regexp) int {
	cost := 1 + len(re.Rune)
	for _, sub := range re.Sub {
		cost += regexCost(sub)
	}
	if re.Op == syntax.OpRepeat {
		cost *= max(1, re.Min, re.Max)
	}
	return min(cost, 1<<30)
}

// lookAround and backReference match what Go's regular expressions leave out, since it does not run in linear
// time.
var (
	lookAround    = regexp.MustCompile(`^\(\?(<?[=!]|>)`)
	backReference = regexp.MustCompile(`^\\[1-9]`)
)

// regexProblem words the error of a regular expression.
func regexProblem(err error) string {
	syntaxErr, ok := errors.AsType[*syntax.Error](err)
	if !ok {
		return err.Error()
	}
	isLookAround := lookAround.MatchString(syntaxErr.Expr)
	if isLookAround || syntaxErr.Code == syntax.ErrInvalidEscape && backReference.MatchString(syntaxErr.Expr) {
		return fmt.Sprintf("%s is not supported: look-around and back references do not run in linear time", syntaxErr.Expr)
	}
	return err.Error()
}

// dashes are the characters that windash takes for each other.
var dashes = []string{"-", "/", "–", "—", "―"}

// dashPattern matches a dash or slash that begins an option.
var dashPattern = regexp.MustCompile(`\B[-/]\b`)

// maxDashes bounds the dashes of one text, of which each doubles and more the number of variants.
const maxDashes = 4

// dashVariants returns p with the dashes of its options replaced by others, in all combinations. It returns
// none if there are too many.
func dashVariants(p pattern) []pattern {
	// 1. Cut the literals at the dashes; a nil element stands for one.
	var parts []element
	var places []int
	for _, e := range p {
		from := 0
		for _, at := range dashPattern.FindAllStringIndex(e.text, -1) {
			parts = append(parts, element{text: e.text[from:at[0]]}, element{})
			places = append(places, len(parts)-1)
			from = at[1]
		}
		parts = append(parts, element{text: e.text[from:], wildcard: e.wildcard})
	}
	if len(places) > maxDashes {
		return nil
	}

	// 2. Count through the combinations, in digits of base len(dashes).
	combinations := 1
	for range places {
		combinations *= len(dashes)
	}
	var out []pattern
	for number := range combinations {
		var changed pattern
		for i, rest := 0, number; i < len(parts); i++ {
			e := parts[i]
			if slices.Contains(places, i) {
				e.text = dashes[rest%len(dashes)]
				rest /= len(dashes)
			}
			last := len(changed) - 1
			switch {
			case e.wildcard == 0 && e.text == "":
			case e.wildcard == 0 && last >= 0 && changed[last].wildcard == 0:
				changed[last].text += e.text
			default:
				changed = append(changed, e)
			}
		}
		out = append(out, changed)
	}
	return out
}

// encodeUTF16 returns the bytes of text in UTF-16; with a byte order mark if the modifier is utf16.
func encodeUTF16(text, modifier string) string {
	var order binary.AppendByteOrder = binary.LittleEndian
	if modifier == "utf16be" {
		order = binary.BigEndian
	}
	var out []byte
	if modifier == "utf16" {
		out = append(out, 0xff, 0xfe)
	}
	for _, unit := range utf16.Encode([]rune(text)) {
		out = order.AppendUint16(out, unit)
	}
	return string(out)
}

// base64Offsets returns what a text becomes inside of base64, at each of the three places where it can begin.
// The digits that depend on the bytes around it are left out.
func base64Offsets(text string) []string {
	first, last := [3]int{0, 2, 3}, [3]int{0, 3, 2}
	var out []string
	for offset := range 3 {
		encoded := base64.StdEncoding.EncodeToString([]byte(strings.Repeat(" ", offset) + text))
		end := len(encoded) - last[(len(text)+offset)%3]
		if first[offset] < end {
			out = append(out, encoded[first[offset]:end])
		}
	}
	return out
}
