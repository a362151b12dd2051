package sigma

import (
	"cmp"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// An emitter writes the condition of one rule as an expression of our rules.
type emitter struct {
	source *source
	prefix string // of the names of lists
	lists  []namedList
	fields []string // the fields of our events that the expression reads, in order
	size   int      // bytes of the items so far
}

// A namedList holds constants of a rule that are too many for the expression.
type namedList struct {
	name  string
	texts []string
}

// The most constants that stand in the expression itself, and their bytes.
const (
	maxInline      = 12
	maxInlineBytes = 500

	maxExpression = 128 << 10 // bytes, far more than our rules can have
)

// join returns parts with a word between them, in brackets if there are several.
func join(word string, parts []string) string {
	if len(parts) == 1 {
		return parts[0]
	}
	return "(" + strings.Join(parts, " "+word+" ") + ")"
}

// condition returns the expression of a condition.
func (e *emitter) condition(c *condition) (string, *problem) {
	if c.op == "" {
		expression, err := e.item(c.item)
		if e.size += len(expression); err == nil && e.size > maxExpression {
			err = problemf(c.item.node, "the rule becomes an expression of more than %d bytes", maxExpression)
		}
		return expression, err
	}
	var parts []string
	operands := c.operands(c.op)
	if c.op == "and" {
		slices.SortStableFunc(operands, func(a, b *condition) int { return cmp.Compare(a.breadth(), b.breadth()) })
	}
	for _, arg := range operands {
		part, err := e.condition(arg)
		if err != nil {
			return "", err
		}
		if !slices.Contains(parts, part) {
			parts = append(parts, part)
		}
	}
	if c.op == "not" {
		return "not (" + trimBrackets(parts[0]) + ")", nil
	}
	return join(c.op, parts), nil
}

// broadFields are fields of which a good part of all events has the same value.
var broadFields = map[string]bool{
	"type": true, "SYSCALL": true, "cs-method": true, "method": true, "sc-status": true, "status_code": true, "verb": true,
	"EventID": true, "proto": true,
}

// breadth orders the operands of an "and": those that few events fulfil come first. The index takes the first
// of those that select alike, and the evaluation ends at the first one that is false.
func (c *condition) breadth() int {
	switch {
	case c.op == "not":
		return 2
	case c.item != nil && broadFields[c.item.field]:
		return 1
	}
	return 0
}

// operands returns the operands of an operator, with those of its operands that are of the same operator.
func (c *condition) operands(op string) (out []*condition) {
	for _, arg := range c.args {
		if arg.op == op && op != "not" {
			out = append(out, arg.operands(op)...)
		} else {
			out = append(out, arg)
		}
	}
	return out
}

// trimBrackets removes the brackets around a whole expression that join has put there.
func trimBrackets(text string) string {
	if !strings.HasPrefix(text, "(") {
		return text
	}
	depth := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"', '`':
			end := i + 1
			for end < len(text) && text[end] != text[i] {
				if text[end] == '\\' && text[i] == '"' {
					end++
				}
				end++
			}
			i = end
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 && i < len(text)-1 {
				return text
			}
		}
	}
	return text[1 : len(text)-1]
}

// item returns the expression of an item: over all mappings of its field, one of which has the value.
func (e *emitter) item(it *item) (string, *problem) {
	mappings := e.source.keywords
	switch {
	case it.op == opTimePart:
		return e.timePart(it)
	case it.field != "":
		if mappings = e.source.mappings(it.field); mappings == nil {
			return "", problemf(it.node, "tidegate keeps no %s: it is no field of %s", it.field, e.source.title)
		}
	case len(mappings) == 0:
		return "", problemf(it.node, "keywords need log lines or texts; %s have none", e.source.title)
	default:
		it = keywordItem(it)
	}
	for _, m := range mappings {
		if !slices.Contains(e.fields, m.field) {
			e.fields = append(e.fields, m.field)
		}
	}
	if it.op == opExists {
		return exists(mappings[0], it.values[0][0].flag), nil
	}
	if it.op == opFieldRef {
		return e.reference(it, mappings[0])
	}

	// Each value of an "all" may be in another field of ours. Otherwise one field holds one of the values.
	groups := [][]value{slices.Concat(it.values...)}
	if it.all {
		groups = it.values
	}
	var parts []string
	for _, values := range groups {
		var alternatives []string
		nulls := slices.ContainsFunc(values, isEmpty)
		if nulls {
			alternatives = append(alternatives, exists(mappings[0], false))
			values = slices.DeleteFunc(slices.Clone(values), isEmpty)
		}
		for i, m := range mappings {
			if len(values) == 0 {
				break
			}
			alternative, err := e.compare(it, m, values)
			switch {
			case err != nil && i == 0: // the other mappings alone would be another rule
				return "", err
			case err == nil:
				alternatives = append(alternatives, alternative)
			}
		}
		parts = append(parts, join("or", alternatives))
	}
	return join("and", parts), nil
}

// isEmpty reports whether a value stands for an absent or empty field.
func isEmpty(v value) bool {
	return v.kind == nullValue || v.kind == textValue && v.text == "" && len(v.pattern) == 0
}

// keywordItem returns a keyword item whose texts may have anything around them. A whole number stays one.
func keywordItem(it *item) *item {
	if it.op != opMatch {
		return it
	}
	changed := *it
	changed.values = nil
	for _, variants := range it.values {
		var list []value
		for _, v := range variants {
			if v.kind == decimalValue || v.kind == flagValue {
				v = value{text: v.text, pattern: literalPattern(v.text)}
			}
			if v.kind == textValue && !isEmpty(v) {
				v.pattern = v.pattern.closing().opening()
			}
			list = append(list, v)
		}
		changed.values = append(changed.values, list)
	}
	return &changed
}

// exists returns the expression that an event has a field, or has not.
func exists(m fieldMapping, wanted bool) string {
	expr := "has(" + m.field + ")"
	if m.isText() {
		if wanted {
			return m.expr() + ` != ""`
		}
		return m.expr() + ` == ""`
	}
	if wanted {
		return expr
	}
	return "not " + expr
}

// compare returns the expression that m has one of values.
func (e *emitter) compare(it *item, m fieldMapping, values []value) (string, *problem) {
	switch m.kind {
	case numberMapping:
		return e.compareNumber(it, m, values)
	case addressMapping:
		return e.compareAddress(it, m, values)
	case flagMapping, conditionMapping:
		return compareFlag(it, m, values)
	case signatureMapping, scannedMapping:
		return e.compareScan(it, m, values)
	}
	switch it.op {
	case opLess, opLessEqual, opGreater, opGreaterEqual:
		if m.kind == keyMapping {
			return e.compareDigits(it, m, values)
		}
		return "", problemf(it.node, "%s is a text, which has no order", it.field)
	case opCIDR:
		var networks []string
		for _, v := range values {
			networks = append(networks, quote(v.text))
		}
		return e.over(m, func(subject string) []string {
			return []string{"cidr(" + subject + ", " + strings.Join(networks, ", ") + ")"}
		}), nil
	case opRegex:
		return e.over(m, func(subject string) (out []string) {
			for _, v := range values {
				out = append(out, subject+" matches "+quote(v.text))
			}
			return out
		}), nil
	}

	var patterns []pattern
	var words []string
	for _, v := range values {
		switch {
		case v.kind == textValue:
			patterns = append(patterns, v.pattern)
		case it.field == "":
			words = append(words, wordOf(v.text))
		default:
			patterns = append(patterns, literalPattern(v.text))
		}
	}
	switch m.kind {
	case urlMapping:
		return join("or", slices.Concat(e.texts("url.original", patterns, it.cased), e.urls(patterns, it.cased))), nil
	case targetMapping:
		out := e.texts("url.original", patterns, it.cased)
		if anchored := slices.DeleteFunc(slices.Clone(patterns), isPart); len(anchored) > 0 {
			out = append(out, e.texts("url.query", anchored, it.cased)...)
		}
		return join("or", out), nil
	case stemMapping:
		withParameter := func(p pattern) bool { return strings.ContainsAny(p.sample(), "?=&") && isPart(p) }
		out := e.texts("url.original", slices.DeleteFunc(slices.Clone(patterns), func(p pattern) bool { return !withParameter(p) }), it.cased)
		return join("or", append(e.texts("url.path", slices.DeleteFunc(slices.Clone(patterns), withParameter), it.cased), out...)), nil
	case decisionMapping:
		return decision(it, values)
	case extensionMapping:
		var endings []pattern
		for _, p := range patterns {
			text, ok := p.literal()
			if !ok {
				return "", problemf(it.node, "an extension is compared as a whole")
			}
			endings = append(endings, literalPattern("."+text).opening())
		}
		return join("or", e.texts("url.path", endings, it.cased)), nil
	}
	return e.over(m, func(subject string) []string {
		out := e.texts(subject, patterns, it.cased)
		for _, word := range words {
			out = append(out, subject+" matches "+quote(word))
		}
		return out
	}), nil
}

// wordOf returns a regular expression for texts with a whole number in them. A keyword 6 is no part of 16: every line with
// a time would have it.
func wordOf(number string) string { return `(?:\A|[^0-9A-Za-z_])` + number + `(?:\z|[^0-9A-Za-z_])` }

func isPart(p pattern) bool { shape, _ := p.shape(); return shape == shapePart || shape == shapeAny }

// over returns the expression that one of conditions holds for m; for a list, for one of its elements.
func (e *emitter) over(m fieldMapping, conditions func(subject string) []string) string {
	if m.kind == listMapping {
		return "any(" + m.field + ", " + trimBrackets(join("or", conditions("#"))) + ")"
	}
	return join("or", conditions(m.expr()))
}

// texts returns expressions of which one holds if a text matches one of patterns.
func (e *emitter) texts(subject string, patterns []pattern, cased bool) (out []string) {
	folded := subject
	if !cased {
		folded = "lower(" + subject + ")"
	}
	constants := map[shape][]string{}
	for _, p := range patterns {
		if !cased {
			p = slices.Clone(p)
			for i := range p {
				p[i].text = lower(p[i].text)
			}
		}
		shape, literal := p.shape()
		if shape == shapeGeneral {
			literal = p.regex()
		}
		if !slices.Contains(constants[shape], literal) {
			constants[shape] = append(constants[shape], literal)
		}
	}
	if constants[shapeAny] != nil {
		out = append(out, subject+` != ""`)
	}
	if list := constants[shapeEqual]; len(list) == 1 {
		out = append(out, folded+" == "+quote(list[0]))
	} else if len(list) > 0 {
		out = append(out, folded+" in "+e.constants(list))
	}
	for _, relation := range []struct {
		shape    shape
		operator string
	}{{shapePrefix, "startsWith"}, {shapeSuffix, "endsWith"}, {shapePart, "contains"}} {
		if list := constants[relation.shape]; len(list) > 0 {
			out = append(out, folded+" "+relation.operator+" "+e.constants(list))
		}
	}
	for _, regex := range constants[shapeGeneral] {
		out = append(out, folded+" matches "+quote(regex))
	}
	return out
}

// constants returns a list of constants, or the name of one.
func (e *emitter) constants(texts []string) string {
	if len(texts) == 1 {
		return quote(texts[0])
	}
	size := 0
	var quoted []string
	for _, text := range texts {
		quoted = append(quoted, quote(text))
		size += len(text)
	}
	if len(texts) <= maxInline && size <= maxInlineBytes {
		return "[" + strings.Join(quoted, ", ") + "]"
	}
	for _, known := range e.lists {
		if slices.Equal(known.texts, texts) {
			return known.name
		}
	}
	name := fmt.Sprintf("sigma_%s_%d", e.prefix, len(e.lists)+1)
	e.lists = append(e.lists, namedList{name, texts})
	return name
}

// trailingPort is the port behind a host.
var trailingPort = regexp.MustCompile(`:\d{1,5}$`)

// urls returns expressions of which one holds if http:// or https://, url.domain and url.original together
// match one of patterns. url.original then begins with a slash, so a literal can be cut where the path
// begins; other patterns are matched with the whole.
func (e *emitter) urls(patterns []pattern, cased bool) (out []string) {
	host, target := "lower(url.domain)", "lower(url.original)"
	if cased {
		host, target = "url.domain", "url.original"
	}
	for _, p := range patterns {
		shape, literal := p.shape()
		if !cased {
			literal = lower(literal)
		}
		if shape == shapeGeneral {
			for _, scheme := range []string{"http://", "https://"} {
				out = append(out, e.texts(quote(scheme)+" + url.domain + url.original", []pattern{p}, cased)...)
			}
			continue
		}
		if shape == shapeAny {
			continue
		}

		// 1. What stands in front of :// ends the scheme, or is the whole of it.
		scheme, rest, hasScheme := strings.Cut(literal, "://")
		open := shape == shapePart || shape == shapeSuffix
		if hasScheme {
			if !(open && (strings.HasSuffix("http", scheme) || strings.HasSuffix("https", scheme)) || scheme == "http" || scheme == "https") {
				continue
			}
			open = false
		} else if rest = literal; !open && (strings.HasPrefix("http://", literal) || strings.HasPrefix("https://", literal)) {
			out = append(out, `url.domain != ""`)
			continue
		}

		// 2. Host and path are compared each for itself.
		name, path, hasPath := strings.Cut(rest, "/")
		name = trailingPort.ReplaceAllString(name, "")
		if name == "" && !hasScheme {
			continue // it begins with the path, and was compared with url.original
		}
		closed := shape == shapeEqual || shape == shapeSuffix
		relation := map[bool]string{true: " endsWith ", false: " == "}[open]
		switch {
		case hasPath && closed:
			out = append(out, "("+host+relation+quote(name)+" and "+target+" == "+quote("/"+path)+")")
		case hasPath:
			out = append(out, "("+host+relation+quote(name)+" and "+target+" startsWith "+quote("/"+path)+")")
		case closed && open:
		case closed:
			out = append(out, "("+host+" == "+quote(name)+` and url.original == "/")`)
		case open:
			out = append(out, host+" contains "+quote(name))
		case name == "":
			out = append(out, `url.domain != ""`)
		default:
			out = append(out, host+" startsWith "+quote(name))
		}
	}
	return out
}

// orders are the comparisons of numbers.
var orders = map[operator]string{opLess: "<", opLessEqual: "<=", opGreater: ">", opGreaterEqual: ">="}

// compareNumber returns the expression that a number is one of values.
func (e *emitter) compareNumber(it *item, m fieldMapping, values []value) (string, *problem) {
	scale := max(m.scale, 1)
	var numbers, parts []string
	for _, v := range values {
		if shape, _ := v.pattern.shape(); m.field == statusField && (it.op == opRegex || shape != shapeAny && shape != shapeEqual) {
			codes := statusCodes(it.op, v)
			if len(codes) == 0 {
				return "", problemf(it.node, "%q matches no status code from 100 to 599", v.text)
			}
			numbers = append(numbers, codes...)
			continue
		}
		if v.kind == textValue {
			shape, literal := v.pattern.shape()
			parsed, err := strconv.ParseInt(literal, 10, 64)
			switch {
			case shape == shapeAny:
				parts = append(parts, "has("+m.field+")")
				continue
			case err == nil && parsed >= 0 && shape == shapePrefix && scale == 1:
				parts = append(parts, digitRanges(m.field, parsed)...)
				continue
			case err != nil || shape != shapeEqual || it.op == opRegex:
				return "", problemf(it.node, "%s is a number, and %q is none", it.field, v.text)
			}
			v = value{kind: integerValue, number: parsed, text: literal}
		}
		if v.kind != integerValue || it.op == opCIDR {
			return "", problemf(it.node, "%s is a whole number, and %q is none", it.field, v.text)
		}
		if v.number > math.MaxInt64/scale || v.number < math.MinInt64/scale {
			return "", problemf(it.node, "%d is too large", v.number)
		}
		scaled := strconv.FormatInt(v.number*scale, 10)
		if order := orders[it.op]; order != "" {
			// An absent number is 0 in our rules, and no number in Sigma.
			parts = append(parts, "(has("+m.field+") and "+m.field+" "+order+" "+scaled+")")
			continue
		}
		if v.number == 0 {
			parts = append(parts, "(has("+m.field+") and "+m.field+" == 0)")
			continue
		}
		numbers = append(numbers, scaled)
	}
	if len(numbers) == 1 {
		parts = append(parts, m.field+" == "+numbers[0])
	} else if len(numbers) > 1 {
		parts = append(parts, m.field+" in ["+strings.Join(numbers, ", ")+"]")
	}
	return join("or", parts), nil
}

// statusField is compared with parts of numbers too, as its numbers are few.
const statusField = "http.response.status_code"

// statusCodes returns the status codes, from 100 to 599, that a text with wildcards or a regular expression matches.
func statusCodes(op operator, v value) (codes []string) {
	expression := v.text
	if op != opRegex {
		expression = v.pattern.regex()
	}
	matcher := regexp.MustCompile(expression) // parseItem has compiled it
	for code := 100; code < 600; code++ {
		if text := strconv.Itoa(code); matcher.MatchString(text) {
			codes = append(codes, text)
		}
	}
	return codes
}

// digitRanges returns expressions of which one holds if a number of up to five digits begins with those of
// prefix.
func digitRanges(field string, prefix int64) (out []string) {
	for low, high := prefix, prefix; high < 100_000; low, high = low*10, high*10+9 {
		if low == 0 {
			return []string{"(has(" + field + ") and " + field + " == 0)"}
		}
		if low == high {
			out = append(out, fmt.Sprintf("%s == %d", field, low))
			continue
		}
		out = append(out, fmt.Sprintf("(%s >= %d and %s <= %d)", field, low, field, high))
	}
	return out
}

// compareDigits returns the expression that the digits of a text are a number in an order with another one.
func (e *emitter) compareDigits(it *item, m fieldMapping, values []value) (string, *problem) {
	var parts []string
	for _, v := range values {
		if v.number < 0 || v.number > 1_000_000_000_000 {
			return "", problemf(it.node, "%s is a text: it is compared with numbers from 0 to 1,000,000,000,000", it.field)
		}
		bound, negated := v.number, it.op == opLess || it.op == opLessEqual
		if it.op == opGreater || it.op == opLessEqual {
			bound++
		}
		atLeast := m.expr() + " matches " + quote(`\A0*(?:`+digitsAtLeast(bound)+`)\z`)
		if negated {
			atLeast = "(" + m.expr() + " matches " + quote(`\A[0-9]+\z`) + " and not (" + atLeast + "))"
		}
		parts = append(parts, atLeast)
	}
	return join("or", parts), nil
}

// digitsAtLeast returns a regular expression for the numbers from bound on, without zeros in front.
func digitsAtLeast(bound int64) string {
	digits := strconv.FormatInt(bound, 10)
	if bound == 0 {
		return `[0-9]*`
	}
	alternatives := []string{digits, fmt.Sprintf(`[1-9][0-9]{%d,}`, len(digits))}
	for i := range digits {
		if digits[i] < '9' {
			alternatives = append(alternatives, fmt.Sprintf(`%s[%c-9][0-9]{%d}`, digits[:i], digits[i]+1, len(digits)-i-1))
		}
	}
	return strings.Join(alternatives, "|")
}

// compareAddress returns the expression that an address is one of values.
func (e *emitter) compareAddress(it *item, m fieldMapping, values []value) (string, *problem) {
	var networks []string
	for _, v := range values {
		network := v.text
		if it.op == opMatch {
			shape, literal := v.pattern.shape()
			switch shape {
			case shapeAny:
				return "has(" + m.field + ")", nil
			case shapePrefix:
				if network = networkOfPrefix(literal); network == "" {
					return "", problemf(it.node, "%s is an address, and %q is the beginning of none that is a network: use cidr", it.field, literal)
				}
			case shapeEqual:
				if network = literal; !isNetwork(literal) {
					return "", problemf(it.node, "%s is an address, and %q is none", it.field, literal)
				}
			default:
				return "", problemf(it.node, "%s is an address: use cidr", it.field)
			}
		} else if it.op != opCIDR {
			return "", problemf(it.node, "%s is an address: use cidr", it.field)
		}
		networks = append(networks, quote(network))
	}
	return "cidr(" + m.field + ", " + strings.Join(networks, ", ") + ")", nil
}

// compareFlag returns the expression that a flag has one of values.
func compareFlag(it *item, m fieldMapping, values []value) (string, *problem) {
	var parts []string
	condition := m.field
	if m.kind == conditionMapping {
		condition = "(" + m.key + ")"
	}
	for _, v := range values {
		switch text := strings.ToLower(v.text); {
		case it.op == opMatch && (text == "true" || text == "t" || text == "1"):
			parts = append(parts, condition)
		case it.op == opMatch && (text == "false" || text == "f" || text == "0"):
			parts = append(parts, "not "+condition)
		default:
			return "", problemf(it.node, "%s is true or false, and %q is neither", it.field, v.text)
		}
	}
	return join("or", parts), nil
}

// compareScan returns the expression that a line of ClamAV, "path: signature FOUND", has one of values as its path or its
// signature.
func (e *emitter) compareScan(it *item, m fieldMapping, values []value) (string, *problem) {
	before, behind := ": ", " FOUND"
	if m.kind == scannedMapping {
		before, behind = "", ": "
	}
	var patterns []pattern
	for _, v := range values {
		shape, literal := v.pattern.shape()
		if it.op != opMatch || shape == shapeGeneral {
			return "", problemf(it.node, "the %s in lines of ClamAV is compared with texts", it.field)
		}
		if shape == shapeEqual || shape == shapePrefix {
			literal = before + literal
		}
		if shape == shapeEqual || shape == shapeSuffix {
			literal += behind
		}
		patterns = append(patterns, literalPattern(literal).opening().closing())
	}
	return "(" + join("or", e.texts("message", patterns, it.cased)) + ` and message endsWith " FOUND")`, nil
}

// decisions are the words by which firewalls log that they let something pass, or did not.
var decisions = map[string]bool{
	"forward": true, "forwarded": true, "accept": true, "accepted": true, "allow": true, "allowed": true,
	"pass": true, "passed": true, "permit": true, "permitted": true, "2": true,
	"block": false, "blocked": false, "deny": false, "denied": false, "drop": false, "dropped": false, "reject": false, "rejected": false,
}

// decision returns the expression that a session passed, or did not: it was refused, or nobody answered.
func decision(it *item, values []value) (string, *problem) {
	var parts []string
	for _, v := range values {
		text := strings.ToLower(v.text)
		passed, known := decisions[text]
		if flag, err := strconv.ParseBool(text); strings.ToLower(it.field) == "blocked" && err == nil {
			passed, known = !flag, true
		}
		if !known || it.op != opMatch {
			return "", problemf(it.node, "%q is not a decision of a firewall: accept, deny, …", v.text)
		}
		part := `session.state in ["refused", "no_answer"]`
		if passed {
			part = `(session.state != "" and not (` + part + "))"
		}
		if !slices.Contains(parts, part) {
			parts = append(parts, part)
		}
	}
	return join("or", parts), nil
}

// reference returns the expression that two fields have the same value.
func (e *emitter) reference(it *item, left fieldMapping) (string, *problem) {
	var parts []string
	for _, variants := range it.values {
		others := e.source.mappings(variants[0].text)
		if len(others) == 0 {
			return "", problemf(it.node, "tidegate keeps no %s: it is no field of %s", variants[0].text, e.source.title)
		}
		right := others[0]
		if !slices.Contains(e.fields, right.field) {
			e.fields = append(e.fields, right.field)
		}
		leftExpr, rightExpr := left.expr(), right.expr()
		switch {
		case left.isText() && right.isText():
			operator := map[shape]string{shapeEqual: "==", shapePrefix: "startsWith", shapeSuffix: "endsWith", shapePart: "contains"}[it.shape]
			present := rightExpr + ` != "" and `
			if !it.cased {
				leftExpr, rightExpr = "lower("+leftExpr+")", "lower("+rightExpr+")"
			}
			parts = append(parts, "("+present+leftExpr+" "+operator+" "+rightExpr+")")
		case left.kind == right.kind && left.kind != listMapping && left.scale == right.scale && it.shape == shapeEqual:
			parts = append(parts, "(has("+left.field+") and "+leftExpr+" == "+rightExpr+")")
		default:
			return "", problemf(it.node, "%s and %s hold values of different kinds", it.field, variants[0].text)
		}
	}
	if it.all {
		return join("and", parts), nil
	}
	return join("or", parts), nil
}

// timePart returns the expression that a part of the time of the event is one of the values.
func (e *emitter) timePart(it *item) (string, *problem) {
	name := strings.ToLower(it.field)
	if !strings.Contains(name, "time") && !strings.Contains(name, "date") && name != "ts" {
		return "", problemf(it.node, "%s is not the time of the event", it.field)
	}
	var parts []string
	for _, variants := range it.values {
		n := variants[0].number
		switch it.part {
		case "minute":
			if n < 0 || n > 59 {
				return "", problemf(it.node, "a minute is from 0 to 59")
			}
			parts = append(parts, fmt.Sprintf("(timestamp %% 1h >= %dm and timestamp %% 1h < %dm)", n, n+1))
		case "hour":
			parts = append(parts, fmt.Sprintf(`hour("UTC") == %d`, n))
		case "year":
			if n < 1970 || n > 2200 {
				return "", problemf(it.node, "a year is from 1970 to 2200")
			}
			parts = append(parts, fmt.Sprintf(`(timestamp >= "%d-01-01" and timestamp < "%d-01-01")`, n, n+1))
		default:
			return "", problemf(it.node, "the modifier %s: our rules have no %s of a time", it.part, it.part)
		}
	}
	return join("or", parts), nil
}
