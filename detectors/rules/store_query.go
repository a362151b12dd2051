package rules

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"tidegate/pipeline"
	"tidegate/pipeline/correlate"
)

// A StoreQuery is a rule as a condition of ClickHouse over the table events.
//
// Where holds for every stored event that the rule matches. If Exact is set, it holds for no other one; else the rule
// has a part that SQL cannot express, and the events that are found have to be evaluated. A regular expression may
// also find events whose text is not valid UTF-8.
type StoreQuery struct {
	Where string
	// Parameters are the values of the parameters p0, p1, … of Where, as ClickHouse's HTTP interface reads them. All
	// texts of the rule are parameters: none is part of Where.
	Parameters map[string]string
	Exact      bool
}

// maxParameterBytes bounds the values of the parameters of a query, which are part of a URL. Comparisons with more
// constants are left to the evaluation.
const maxParameterBytes = 256 << 10

// StoreQuery returns the query for the events that rule matches, or, of a correlation rule, for those that one of its
// steps matches.
func (s *Set) StoreQuery(rule *Rule) StoreQuery {
	w := &queryWriter{slots: s.slots, query: StoreQuery{Parameters: map[string]string{}, Exact: true}}
	var conditions []string
	for _, condition := range s.conditionsOf(rule) {
		conditions = append(conditions, w.rule(condition))
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
				event.Verdicts = append(event.Verdicts, rule.verdict(event))
			default:
				signals = s.appendSignals(signals, worker, condition, index)
			}
		}
	}
	return slices.DeleteFunc(signals, func(signal correlate.Signal) bool { return signal.Rule != rule.ID })
}

// rule returns the condition of a rule over one event, with its datasets and exceptions.
func (w *queryWriter) rule(rule *Rule) string {
	var parts []string
	if names := rule.datasets.names(); len(names) < len(pipeline.DatasetNames()) {
		parts = append(parts, "`event.dataset` IN "+w.texts(names))
	}
	parts = append(parts, w.condition(rule.when.root, true))
	for _, exception := range rule.exceptions {
		// An exception that divides by zero is false as a whole.
		if exception.root.mayFail() {
			w.query.Exact = false
			continue
		}
		parts = append(parts, "NOT ("+w.condition(exception.root, false)+")")
	}
	if rule.when.root.mayFail() {
		w.query.Exact = false
	}
	return strings.Join(parts, " AND ")
}

// A queryWriter writes the SQL of nodes. A condition that has no exact form is written as one that holds more often or
// less often than it, whichever is asked for, so that the whole query finds every event.
type queryWriter struct {
	slots *slotTable
	query StoreQuery
	bytes int // of the parameters
	loop  bool
}

// mayFail reports whether n may compute the remainder of a division by zero, which makes the whole expression false.
func (n *node) mayFail() bool {
	if n.op == opModulo && !(n.args[1].op == opConstant && n.args[1].number != 0) {
		return true
	}
	return slices.ContainsFunc(n.args, (*node).mayFail)
}

// unknown returns the condition in place of one without SQL.
func (w *queryWriter) unknown(atLeast bool) string {
	w.query.Exact = false
	if atLeast {
		return "1"
	}
	return "0"
}

// condition returns the SQL of n, a flag. If n has no exact form, the SQL holds at least where n does, or, without
// atLeast, at most there.
func (w *queryWriter) condition(n *node, atLeast bool) string {
	switch n.op {
	case opNot:
		return "NOT (" + w.condition(n.args[0], !atLeast) + ")"
	case opAnd:
		return "(" + w.condition(n.args[0], atLeast) + " AND " + w.condition(n.args[1], atLeast) + ")"
	case opOr:
		return "(" + w.condition(n.args[0], atLeast) + " OR " + w.condition(n.args[1], atLeast) + ")"
	case opAny:
		return w.overList("arrayExists", n, atLeast)
	case opAll:
		return w.overList("arrayAll", n, atLeast)
	case opNone:
		return "NOT " + w.overList("arrayExists", n, !atLeast)
	case opMatches:
		subject, known := w.value(n.args[0])
		pattern, bound := w.text("(?-s)" + n.regex.String())
		if !known || !bound {
			return w.unknown(atLeast)
		}
		if atLeast {
			return fmt.Sprintf("(match(%s, %s) OR NOT isValidUTF8(%s))", subject, pattern, subject)
		}
		return fmt.Sprintf("(match(%s, %s) AND isValidUTF8(%s))", subject, pattern, subject)
	}
	if sql, known := w.comparison(n); known {
		return sql
	}
	return w.unknown(atLeast)
}

// exact returns the SQL of n, a flag; known is false if it has none that is exact.
func (w *queryWriter) exact(n *node) (sql string, known bool) {
	wasExact := w.query.Exact
	w.query.Exact = true
	sql = w.condition(n, true)
	known = w.query.Exact && !n.hasRegex()
	w.query.Exact = wasExact
	return sql, known
}

func (n *node) hasRegex() bool {
	return n.op == opMatches || slices.ContainsFunc(n.args, (*node).hasRegex)
}

// overList returns a function over the elements of the list of n for which the condition of n holds.
func (w *queryWriter) overList(function string, n *node, atLeast bool) string {
	outer := w.loop
	w.loop = true
	condition := w.condition(n.args[0], atLeast)
	w.loop = outer
	return fmt.Sprintf("%s(e -> %s, %s)", function, condition, w.column(n.slot))
}

var comparisons = map[operation]string{
	opEqual: "=", opNotEqual: "!=", opLess: "<", opLessEqual: "<=", opGreater: ">", opGreaterEqual: ">=",
}

var textFunctions = map[operation]string{
	opContains: "position", opContainsAny: "position", opStartsWith: "startsWith", opStartsWithAny: "startsWith",
	opEndsWith: "endsWith", opEndsWithAny: "endsWith",
}

// comparison returns the SQL of a flag without conditions in it.
func (w *queryWriter) comparison(n *node) (sql string, known bool) {
	switch n.op {
	case opConstant:
		return map[bool]string{true: "1", false: "0"}[n.flag], true
	case opSlot:
		return w.flagSlot(&w.slots.list[n.slot])
	case opEqual, opNotEqual, opLess, opLessEqual, opGreater, opGreaterEqual:
		return w.ordered(n)
	case opContains, opStartsWith, opEndsWith:
		left, leftKnown := w.value(n.args[0])
		right, rightKnown := w.value(n.args[1])
		return textFunctions[n.op] + "(" + left + ", " + right + ") > 0", leftKnown && rightKnown
	case opListContains:
		value, known := w.value(n.args[0])
		if n.args[0].kind == text {
			return "has(" + w.column(n.slot) + ", " + value + ")", known
		}
		return fmt.Sprintf("arrayExists(e -> e = %s, %s)", value, w.column(n.slot)), known
	case opOne:
		count, known := w.value(&node{op: opCount, slot: n.slot, args: n.args, kind: number})
		return count + " = 1", known
	}

	// One value is compared with constants.
	value, known := w.value(n.args[0])
	switch {
	case !known:
		return "", false
	case n.op == opInNetwork:
		if n.args[0].kind != address { // a text that may hold an address
			return "", false
		}
		return w.inNetworks(value, n.networks), true
	case n.op == opIn && n.numbers != nil:
		var list []string
		for _, number := range n.numbers {
			list = append(list, strconv.FormatInt(number, 10))
		}
		return "has([" + strings.Join(list, ", ") + "], " + value + ")", true
	case n.op == opIn:
		list := w.texts(n.texts)
		if w.loop {
			return "has(" + list + ", " + value + ")", list != ""
		}
		return value + " IN " + list, list != ""
	case len(n.texts) == 1:
		constant, bound := w.text(n.texts[0])
		return textFunctions[n.op] + "(" + value + ", " + constant + ") > 0", bound
	case n.op == opContainsAny && len(n.texts) < 256 && !slices.Contains(n.texts, ""):
		list := w.texts(n.texts)
		return "multiSearchAny(" + value + ", " + list + ")", list != ""
	default:
		list := w.texts(n.texts)
		return fmt.Sprintf("arrayExists(t -> %s(%s, t) > 0, %s)", textFunctions[n.op], value, list), list != ""
	}
}

// ordered returns the SQL of a comparison of two values.
func (w *queryWriter) ordered(n *node) (sql string, known bool) {
	left, right := n.args[0], n.args[1]
	var leftSQL, rightSQL string
	var leftKnown, rightKnown bool
	switch {
	case left.kind == flag:
		leftSQL, leftKnown = w.exact(left)
		rightSQL, rightKnown = w.exact(right)
		leftSQL, rightSQL = "("+leftSQL+")", "("+rightSQL+")"
	case left.kind == decimal || right.kind == decimal:
		leftSQL, leftKnown = w.decimal(left)
		rightSQL, rightKnown = w.decimal(right)
	default:
		leftSQL, leftKnown = w.value(left)
		rightSQL, rightKnown = w.value(right)
	}
	return "(" + leftSQL + " " + comparisons[n.op] + " " + rightSQL + ")", leftKnown && rightKnown
}

// value returns the SQL of n, which is no flag: a number is an Int64 or a Float64, an address its text, "" if absent.
func (w *queryWriter) value(n *node) (sql string, known bool) {
	switch n.op {
	case opConstant:
		switch n.kind {
		case number:
			return "toInt64(" + strconv.FormatInt(n.number, 10) + ")", true
		case decimal:
			return "toFloat64(" + strconv.FormatFloat(n.decimal, 'g', -1, 64) + ")", true
		}
		return w.text(n.text)
	case opSlot:
		return w.slotValue(n.slot)
	case opElement:
		return "e", true
	case opCount:
		condition, known := w.exact(n.args[0])
		return fmt.Sprintf("toInt64(arrayCount(e -> %s, %s))", condition, w.column(n.slot)), known
	case opNegate:
		value, known := w.value(n.args[0])
		return "negate(" + value + ")", known
	case opLength:
		value, known := w.value(n.args[0])
		return "toInt64(length(" + value + "))", known
	case opLower:
		value, known := w.value(n.args[0])
		return "lower(" + value + ")", known
	case opUnescape:
		value, known := w.value(n.args[0])
		return unescapedSQL(value), known
	case opAdd, opSubtract, opMultiply, opDivide, opModulo:
		return w.arithmetic(n)
	}
	return "", false // lookups, sql, trim
}

// unescapedSQL returns the SQL of unescape: + is a blank, and escapes are resolved twice.
func unescapedSQL(value string) string {
	return "decodeURLComponent(decodeURLFormComponent(" + value + "))"
}

// arithmetic returns the SQL of an operator with two numbers, or of + with two texts.
func (w *queryWriter) arithmetic(n *node) (sql string, known bool) {
	operand := w.value
	if n.kind == decimal {
		operand = w.decimal
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

// decimal returns the SQL of a number as a Float64.
func (w *queryWriter) decimal(n *node) (sql string, known bool) {
	sql, known = w.value(n)
	if n.kind == number {
		sql = "toFloat64(" + sql + ")"
	}
	return sql, known
}

// column returns the column of a slot of a list. Numbers are Int64.
func (w *queryWriter) column(slot int) string {
	def := &w.slots.list[slot]
	name := quoteColumn(def.field)
	if def.kind == numberList {
		return "arrayMap(x -> toInt64(x), " + name + ")"
	}
	return name
}

func quoteColumn(field *pipeline.Field) string { return "`" + field.Column.Name + "`" }

// slotValue returns the SQL of the value of a slot.
func (w *queryWriter) slotValue(index int) (sql string, known bool) {
	def := &w.slots.list[index]
	of := func() (string, bool) { return w.slotValue(def.of) }
	switch def.how {
	case raw:
		switch {
		case def.kind.isList():
			return w.column(index), true
		case def.field.Time != nil:
			return "toUnixTimestamp64Nano(" + quoteColumn(def.field) + ")", true
		case def.kind == number:
			return "toInt64(" + quoteColumn(def.field) + ")", true
		}
		return quoteColumn(def.field), true
	case labelText:
		key, bound := w.text(def.key)
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
		zone, bound := w.text(def.zone.String())
		return fmt.Sprintf("toInt64(toHour(toTimeZone(%s, %s)))", quoteColumn(def.field), zone), bound
	case weekdayOf:
		zone, bound := w.text(def.zone.String())
		return fmt.Sprintf("toInt64(toDayOfWeek(toTimeZone(%s, %s)))", quoteColumn(def.field), zone), bound
	}
	return "", false // lookups, sql
}

// flagSlot returns the SQL of a slot that is true or false.
func (w *queryWriter) flagSlot(def *slot) (sql string, known bool) {
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

// inNetworks returns whether an address, as text, is in one of the networks.
func (w *queryWriter) inNetworks(value string, networks []netip.Prefix) string {
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

// bind adds a parameter and returns its name, "" if the parameters have become too large.
func (w *queryWriter) bind(value string) string {
	if w.bytes += len(value); w.bytes > maxParameterBytes {
		w.bytes -= len(value)
		return ""
	}
	name := "p" + strconv.Itoa(len(w.query.Parameters))
	w.query.Parameters[name] = value
	return name
}

// text returns a parameter with a text.
func (w *queryWriter) text(value string) (sql string, bound bool) {
	name := w.bind(escapeParameter(value))
	return "{" + name + ":String}", name != ""
}

// texts returns a parameter with a list of texts, "" if it is too large.
func (w *queryWriter) texts(values []string) string {
	var list strings.Builder
	for i, value := range values {
		if i > 0 {
			list.WriteByte(',')
		}
		list.WriteString("'" + escapeParameter(value) + "'")
	}
	name := w.bind("[" + list.String() + "]")
	if name == "" {
		return ""
	}
	return "{" + name + ":Array(String)}"
}

var parameterEscaper = strings.NewReplacer("\\", "\\\\", "'", "\\'", "\t", "\\t", "\n", "\\n", "\r", "\\r", "\x00", "\\0")

// escapeParameter returns a text as ClickHouse reads the value of a parameter, alone or between quotes.
func escapeParameter(value string) string { return parameterEscaper.Replace(value) }
