package rules

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"tidegate/pipeline"
	"tidegate/pipeline/correlate"
)

// A StoreQuery is the condition of a rule as SQL over the table events.
//
// Where is true for every stored event that the rule matches. It may be true for others, so callers evaluate the events that
// it finds. Exact reports that it is true for no other event, but for those in which a regular expression meets a text that
// is not valid UTF-8; tests compare exact queries with the evaluation.
type StoreQuery struct {
	Where string
	// Parameters are the values of the parameters p0, p1, … of Where, as ClickHouse's HTTP interface reads them. All
	// texts of the rule are parameters: none is part of Where.
	Parameters map[string]string
	Exact      bool
}

// The bounds of the values of parameters as they are escaped in a URL: of each (http_max_field_value_size) and of all
// (http_max_uri_size). Comparisons with more constants are left to the evaluation.
const (
	maxParameterBytes = 120 << 10
	maxAllBytes       = 768 << 10
)

// StoreQuery returns the query for the events that rule matches, or, of a correlation rule, for those that one of its
// steps matches.
func (s *Set) StoreQuery(rule *Rule) StoreQuery {
	w := &queryWriter{slots: s.slots, query: StoreQuery{Parameters: map[string]string{}, Exact: true}}
	var conditions []string
	for _, condition := range s.conditionsOf(rule) {
		conditions = append(conditions, w.ruleCondition(condition))
	}
	switch len(conditions) {
	case 0:
		w.query.Where = "0" // all rules that it refers to are disabled
	case 1:
		w.query.Where = conditions[0]
	default:
		w.query.Where = "((" + strings.Join(conditions, ") OR (") + "))"
	}
	w.query.Exact = w.query.Exact && rule.Correlation == nil
	return w.query
}

// conditionsOf returns the rules over one event that decide about rule: itself, or the steps of a correlation rule and the
// rules that these refer to.
func (s *Set) conditionsOf(rule *Rule) []*Rule {
	if rule.Correlation == nil {
		return []*Rule{rule}
	}
	return slices.DeleteFunc(slices.Clone(s.evaluated), func(condition *Rule) bool {
		return !slices.ContainsFunc(condition.signalSteps, func(step *step) bool { return step.rule == rule })
	})
}

// StoreColumns returns the columns of the table events that rule may read, and those that say what an event is.
func (s *Set) StoreColumns(rule *Rule) []string {
	var columns []string
	for i := range pipeline.Fields {
		field := &pipeline.Fields[i]
		isRead := field.Body == pipeline.Dataset_DATASET_NONE || rule.datasets&maskOf(field.Body) != 0
		if isRead && !strings.HasPrefix(field.Name, "verdict.") {
			columns = append(columns, quoteColumn(field))
		}
	}
	return columns
}

// EvaluateRule does what Signals does, for one rule only: it appends its verdicts to the events of block, or returns its
// signals. Nothing is measured, and no evaluation suspends the rule.
func (s *Set) EvaluateRule(rule *Rule, block []*pipeline.Event) (signals []correlate.Signal) {
	worker := s.acquireWorker()
	defer s.releaseWorker(worker)
	conditions := s.conditionsOf(rule)
	for index, event := range block {
		worker.values.setEvent(event)
		for _, condition := range conditions {
			switch {
			case condition.datasets&maskOf(event.Dataset) == 0 || !s.matchesRule(worker, condition):
			case rule.Correlation == nil:
				event.Verdicts = append(event.Verdicts, rule.verdict(worker.values))
			default:
				signals = s.appendSignals(signals, worker, condition, index)
			}
		}
	}
	return slices.DeleteFunc(signals, func(signal correlate.Signal) bool { return signal.Rule != rule.ID })
}

// ruleCondition returns the condition of a rule over one event, with its datasets and exceptions.
func (w *queryWriter) ruleCondition(rule *Rule) string {
	var parts []string
	if names := rule.datasets.names(); len(names) < len(pipeline.DatasetNames()) {
		if list, bound := w.listParameter(names); bound {
			parts = append(parts, "`event.dataset` IN "+list)
		} else {
			w.query.Exact = false
		}
	}
	parts = append(parts, w.conditionSQL(rule.when.root, true))
	for _, exception := range rule.exceptions {
		// An exception that divides by zero is false as a whole.
		if exception.root.mayFail() {
			w.query.Exact = false
			continue
		}
		parts = append(parts, "NOT ("+w.conditionSQL(exception.root, false)+")")
	}
	if rule.when.root.mayFail() {
		w.query.Exact = false
	}
	return strings.Join(parts, " AND ")
}

// A queryWriter writes the SQL of nodes. A condition without exact SQL is replaced by an upper bound, true wherever the
// condition is, or by a lower bound, true only where it is. Below a "not" the bound is the other one, so that Where as a
// whole is an upper bound.
type queryWriter struct {
	slots    *slotTable
	query    StoreQuery
	bytes    int  // of the parameters, escaped
	inLambda bool // over the elements of a list, where IN takes no parameter
}

// mayFail reports whether n may compute the remainder of a division by zero, which makes the whole expression false.
func (n *node) mayFail() bool {
	if n.op == opModulo && !(n.args[1].op == opConstant && n.args[1].number != 0) {
		return true
	}
	return slices.ContainsFunc(n.args, (*node).mayFail)
}

// boundSQL returns the bound of a condition without SQL.
func (w *queryWriter) boundSQL(upperBound bool) string {
	w.query.Exact = false
	if upperBound {
		return "1"
	}
	return "0"
}

// conditionSQL returns the SQL of n, a flag: exact if it can be, else an upper or a lower bound.
func (w *queryWriter) conditionSQL(n *node, upperBound bool) string {
	switch n.op {
	case opNot:
		return "NOT (" + w.conditionSQL(n.args[0], !upperBound) + ")"
	case opAnd:
		return "(" + w.conditionSQL(n.args[0], upperBound) + " AND " + w.conditionSQL(n.args[1], upperBound) + ")"
	case opOr:
		return "(" + w.conditionSQL(n.args[0], upperBound) + " OR " + w.conditionSQL(n.args[1], upperBound) + ")"
	case opAny:
		return w.listConditionSQL("arrayExists", n, upperBound)
	case opAll:
		return w.listConditionSQL("arrayAll", n, upperBound)
	case opNone:
		return "NOT " + w.listConditionSQL("arrayExists", n, !upperBound)
	case opMatches:
		subject, known := w.valueSQL(n.args[0])
		pattern, bound := w.textParameter("(?-s)" + n.regex.String())
		if !known || !bound {
			return w.boundSQL(upperBound)
		}
		if upperBound {
			return fmt.Sprintf("(match(%s, %s) OR NOT isValidUTF8(%s))", subject, pattern, subject)
		}
		return fmt.Sprintf("(match(%s, %s) AND isValidUTF8(%s))", subject, pattern, subject)
	}
	if sql, known := w.comparisonSQL(n); known {
		return sql
	}
	return w.boundSQL(upperBound)
}

// exactCondition returns the SQL of n, a flag; known is false if it has none that is exact.
func (w *queryWriter) exactCondition(n *node) (sql string, known bool) {
	wasExact := w.query.Exact
	w.query.Exact = true
	sql = w.conditionSQL(n, true)
	known = w.query.Exact && !n.hasRegex()
	w.query.Exact = wasExact
	return sql, known
}

func (n *node) hasRegex() bool {
	return n.op == opMatches || slices.ContainsFunc(n.args, (*node).hasRegex)
}

// listConditionSQL returns a function over the elements of the list of n for which the condition of n holds.
func (w *queryWriter) listConditionSQL(function string, n *node, upperBound bool) string {
	outer := w.inLambda
	w.inLambda = true
	condition := w.conditionSQL(n.args[0], upperBound)
	w.inLambda = outer
	return fmt.Sprintf("%s(e -> %s, %s)", function, condition, w.listColumn(n.slot))
}

var comparisons = map[operation]string{
	opEqual: "=", opNotEqual: "!=", opLess: "<", opLessEqual: "<=", opGreater: ">", opGreaterEqual: ">=",
}

var textFunctions = map[operation]string{
	opContains: "position", opContainsAny: "position", opStartsWith: "startsWith", opStartsWithAny: "startsWith",
	opEndsWith: "endsWith", opEndsWithAny: "endsWith",
}

// comparisonSQL returns the SQL of a flag without conditions in it.
func (w *queryWriter) comparisonSQL(n *node) (sql string, known bool) {
	switch n.op {
	case opConstant:
		return map[bool]string{true: "1", false: "0"}[n.flag], true
	case opSlot:
		return w.flagSlotSQL(&w.slots.list[n.slot])
	case opEqual, opNotEqual, opLess, opLessEqual, opGreater, opGreaterEqual:
		return w.orderedSQL(n)
	case opContains, opStartsWith, opEndsWith:
		left, leftKnown := w.valueSQL(n.args[0])
		right, rightKnown := w.valueSQL(n.args[1])
		return textFunctions[n.op] + "(" + left + ", " + right + ") > 0", leftKnown && rightKnown
	case opListContains:
		value, known := w.valueSQL(n.args[0])
		if n.args[0].kind == text {
			return "has(" + w.listColumn(n.slot) + ", " + value + ")", known
		}
		return fmt.Sprintf("arrayExists(e -> e = %s, %s)", value, w.listColumn(n.slot)), known
	case opOne:
		count, known := w.valueSQL(&node{op: opCount, slot: n.slot, args: n.args, kind: number})
		return count + " = 1", known
	}

	if n.op == opFeed {
		return "", false
	}

	// One value is compared with constants.
	value, known := w.valueSQL(n.args[0])
	switch {
	case !known:
		return "", false
	case n.op == opInNetwork:
		if n.args[0].kind != address { // a text that may hold an address
			return "", false
		}
		return w.inNetworksSQL(value, n.networks), true
	case n.op == opIn && n.numbers != nil:
		var list []string
		for _, number := range n.numbers {
			if constant := strconv.FormatInt(number, 10); n.args[0].kind == decimal {
				list = append(list, "toFloat64(toInt64("+constant+"))")
			} else {
				list = append(list, constant)
			}
		}
		return "has([" + strings.Join(list, ", ") + "], " + value + ")", true
	case n.op == opIn:
		list, bound := w.listParameter(n.texts)
		if w.inLambda {
			return "has(" + list + ", " + value + ")", bound
		}
		return value + " IN " + list, bound
	case len(n.texts) == 1:
		constant, bound := w.textParameter(n.texts[0])
		return textFunctions[n.op] + "(" + value + ", " + constant + ") > 0", bound
	case n.op == opContainsAny && len(n.texts) < 256 && !slices.Contains(n.texts, ""):
		list, bound := w.listParameter(n.texts)
		return "multiSearchAny(" + value + ", " + list + ")", bound
	default:
		list, bound := w.listParameter(n.texts)
		return fmt.Sprintf("arrayExists(t -> %s(%s, t) > 0, %s)", textFunctions[n.op], value, list), bound
	}
}

// orderedSQL returns the SQL of a comparison of two values.
func (w *queryWriter) orderedSQL(n *node) (sql string, known bool) {
	left, right := n.args[0], n.args[1]
	var leftSQL, rightSQL string
	var leftKnown, rightKnown bool
	switch {
	case left.kind == flag:
		leftSQL, leftKnown = w.exactCondition(left)
		rightSQL, rightKnown = w.exactCondition(right)
		leftSQL, rightSQL = "("+leftSQL+")", "("+rightSQL+")"
	case left.kind == decimal || right.kind == decimal:
		leftSQL, leftKnown = w.decimalSQL(left)
		rightSQL, rightKnown = w.decimalSQL(right)
	default:
		leftSQL, leftKnown = w.valueSQL(left)
		rightSQL, rightKnown = w.valueSQL(right)
	}
	return "(" + leftSQL + " " + comparisons[n.op] + " " + rightSQL + ")", leftKnown && rightKnown
}

// valueSQL returns the SQL of n, which is no flag: a number is an Int64 or a Float64, an address its text, "" if absent.
func (w *queryWriter) valueSQL(n *node) (sql string, known bool) {
	switch n.op {
	case opConstant:
		switch n.kind {
		case number:
			return "toInt64(" + strconv.FormatInt(n.number, 10) + ")", true
		case decimal:
			return "toFloat64(" + strconv.FormatFloat(n.decimal, 'g', -1, 64) + ")", true
		}
		return w.textParameter(n.text)
	case opSlot:
		return w.slotSQL(n.slot)
	case opElement:
		return "e", true
	case opCount:
		condition, known := w.exactCondition(n.args[0])
		return fmt.Sprintf("toInt64(arrayCount(e -> %s, %s))", condition, w.listColumn(n.slot)), known
	case opNegate:
		value, known := w.valueSQL(n.args[0])
		return "negate(" + value + ")", known
	case opLength:
		value, known := w.valueSQL(n.args[0])
		return "toInt64(length(" + value + "))", known
	case opLower:
		value, known := w.valueSQL(n.args[0])
		return "lower(" + value + ")", known
	case opUnescape:
		value, known := w.valueSQL(n.args[0])
		return unescapedSQL(value), known
	case opAdd, opSubtract, opMultiply, opDivide, opModulo:
		return w.arithmeticSQL(n)
	}
	return "", false // lookups, sql, trim, and the functions of functions.go
}

// unescapedSQL returns the SQL of unescape: percent-encoding is decoded twice, and + is a blank in the first round only.
func unescapedSQL(value string) string {
	return "decodeURLComponent(decodeURLFormComponent(" + value + "))"
}

// arithmeticSQL returns the SQL of an operator with two numbers, or of + with two texts.
func (w *queryWriter) arithmeticSQL(n *node) (sql string, known bool) {
	operand := w.valueSQL
	if n.kind == decimal {
		operand = w.decimalSQL
	}
	left, leftKnown := operand(n.args[0])
	right, rightKnown := operand(n.args[1])
	known = leftKnown && rightKnown
	switch {
	case n.kind == text:
		return "concat(" + left + ", " + right + ")", known
	case n.op == opModulo:
		divisor := n.args[1]
		isConstant := divisor.op == opConstant && divisor.number != 0 && divisor.number != -1
		return "modulo(" + left + ", " + right + ")", known && isConstant
	}
	return "(" + left + " " + operators[n.op] + " " + right + ")", known
}

// decimalSQL returns the SQL of a number as a Float64.
func (w *queryWriter) decimalSQL(n *node) (sql string, known bool) {
	sql, known = w.valueSQL(n)
	if n.kind == number {
		sql = "toFloat64(" + sql + ")"
	}
	return sql, known
}

// listColumn returns the column of a slot of a list. Numbers are Int64.
func (w *queryWriter) listColumn(slot int) string {
	def := &w.slots.list[slot]
	name := quoteColumn(def.field)
	if def.kind == numberList {
		return "arrayMap(x -> toInt64(x), " + name + ")"
	}
	return name
}

func quoteColumn(field *pipeline.Field) string { return "`" + field.Column.Name + "`" }

// slotSQL returns the SQL of the value of a slot.
func (w *queryWriter) slotSQL(index int) (sql string, known bool) {
	def := &w.slots.list[index]
	of := func() (string, bool) { return w.slotSQL(def.of) }
	switch def.how {
	case raw:
		switch {
		case def.kind.isList():
			return w.listColumn(index), true
		case def.field.Time != nil:
			return "toUnixTimestamp64Nano(" + quoteColumn(def.field) + ")", true
		case def.kind == number:
			return "toInt64(" + quoteColumn(def.field) + ")", true
		}
		return quoteColumn(def.field), true
	case labelText:
		key, bound := w.textParameter(def.key)
		labels := quoteColumn(pipeline.Lookup("container.labels"))
		return fmt.Sprintf("arrayLast((v, k) -> k = %s, mapValues(%s), mapKeys(%s))", key, labels, labels), bound
	case lowered:
		value, known := of()
		return "lower(" + value + ")", known
	case unescaped:
		value, known := of()
		return unescapedSQL(value), known
	case length:
		value, known := of()
		return "toInt64(length(" + value + "))", known
	case hourOf:
		zone, bound := w.textParameter(def.zone.String())
		return fmt.Sprintf("toInt64(toHour(toTimeZone(%s, %s)))", quoteColumn(def.field), zone), bound
	case weekdayOf:
		zone, bound := w.textParameter(def.zone.String())
		return fmt.Sprintf("toInt64(toDayOfWeek(toTimeZone(%s, %s)))", quoteColumn(def.field), zone), bound
	}
	return "", false // lookups, sql, value, and the functions of functions.go
}

// flagSlotSQL returns the SQL of a slot that is true or false.
func (w *queryWriter) flagSlotSQL(def *slot) (sql string, known bool) {
	if def.how != raw && def.how != hasValue { // feed
		return "", false
	}
	field, column := def.field, quoteColumn(def.field)
	switch {
	case field.Flag != nil:
		return "(" + column + " = 1)", true
	case field.Name == "process.exit_code":
		return "(`event.action` = 'die')", true
	case field.Str != nil, field.IP != nil:
		return "(" + column + " != '')", true
	case field.Strs != nil, field.Nums != nil, field.Labels != nil:
		return "notEmpty(" + column + ")", true
	case field.Time != nil:
		return "(toUnixTimestamp64Nano(" + column + ") != 0)", true
	case field.Num != nil:
		return "(" + column + " != 0)", true
	}
	return "", false // ids
}

// inNetworksSQL returns the SQL that reports whether value, the text of an address, is in one of networks.
func (w *queryWriter) inNetworksSQL(value string, networks []netip.Prefix) string {
	var parts []string
	for _, network := range networks {
		first, last := network.Masked().Addr(), lastAddr(network)
		switch {
		case first == last:
			parts = append(parts, fmt.Sprintf("%s = '%s'", value, first))
		case first.Is4():
			parts = append(parts, fmt.Sprintf("(isIPv4String(%s) AND toIPv4OrDefault(%s) BETWEEN toIPv4('%s') AND toIPv4('%s'))", value, value, first, last))
		default:
			parts = append(parts, fmt.Sprintf("(isIPv6String(%s) AND toIPv6OrDefault(%s) BETWEEN toIPv6('%s') AND toIPv6('%s'))", value, value, first, last))
		}
	}
	return "(" + strings.Join(parts, " OR ") + ")"
}

// lastAddr returns the highest address of a network.
func lastAddr(network netip.Prefix) netip.Addr {
	bytes := network.Masked().Addr().AsSlice()
	for bit := network.Bits(); bit < 8*len(bytes); bit++ {
		bytes[bit/8] |= 0x80 >> (bit % 8)
	}
	addr, _ := netip.AddrFromSlice(bytes)
	return addr
}

// addParameter adds a parameter of a type of ClickHouse and returns its place in the SQL. bound is false if the parameters have
// become too large.
func (w *queryWriter) addParameter(value, kind string) (sql string, bound bool) {
	size := len(url.QueryEscape(value))
	if size > maxParameterBytes || w.bytes+size > maxAllBytes {
		return "", false
	}
	w.bytes += size
	name := "p" + strconv.Itoa(len(w.query.Parameters))
	w.query.Parameters[name] = value
	return "{" + name + ":" + kind + "}", true
}

// textParameter adds a text as a parameter, see addParameter.
func (w *queryWriter) textParameter(value string) (sql string, bound bool) {
	return w.addParameter(escapeParameter(value), "String")
}

// listParameter adds a list of texts as a parameter, see addParameter.
func (w *queryWriter) listParameter(values []string) (sql string, bound bool) {
	var list strings.Builder
	for i, value := range values {
		if i > 0 {
			list.WriteByte(',')
		}
		list.WriteString("'" + escapeParameter(value) + "'")
	}
	return w.addParameter("["+list.String()+"]", "Array(String)")
}

var parameterEscaper = strings.NewReplacer("\\", "\\\\", "'", "\\'", "\t", "\\t", "\n", "\\n", "\r", "\\r", "\x00", "\\0")

// escapeParameter returns a text as ClickHouse reads the value of a parameter, alone or between quotes.
func escapeParameter(value string) string { return parameterEscaper.Replace(value) }
