package sigma

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"tidegate/pipeline"
)

// A correlatedField is a field of a base rule by which events are grouped, or whose values are counted. A key
// of a log line has a name of let, which then stands where fields do.
type correlatedField struct {
	fieldMapping
	sigmaField string
	let        string
}

// name returns the name by which the converted rule calls the field.
func (f correlatedField) name() string { return cmp.Or(f.let, f.field) }

// fieldOf returns the field of ours that holds a field of a base rule.
func (c *correlation) fieldOf(base *document, index int, name string) (correlatedField, error) {
	if fields := c.aliases[name]; fields != nil {
		written, _ := c.rules[index].Scalar()
		if name = cmp.Or(fields[written], fields[base.name], fields[base.id]); name == "" {
			return correlatedField{}, fmt.Errorf("the alias has no field for the rule %q", written)
		}
	}
	if mappings := base.source.mappings(name); len(mappings) > 0 {
		switch m := mappings[0]; m.kind {
		case listMapping, conditionMapping:
			return correlatedField{}, fmt.Errorf("%s has several values", name)
		case keyMapping:
			if isCommonField(name) {
				break
			}
			return correlatedField{fieldMapping: m, sigmaField: name, let: letName(m.key)}, nil
		default:
			return correlatedField{fieldMapping: m, sigmaField: name}, nil
		}
	}
	if slices.Contains(hostFields, strings.ToLower(name)) {
		return correlatedField{fieldMapping: text("host.name"), sigmaField: name}, nil
	}
	if field := pipeline.Lookup(name); field != nil && field.Strs == nil && field.Nums == nil {
		switch {
		case field.IP != nil:
			return correlatedField{fieldMapping: address(name), sigmaField: name}, nil
		case field.Num != nil:
			return correlatedField{fieldMapping: number(name), sigmaField: name}, nil
		case field.Str != nil:
			return correlatedField{fieldMapping: text(name), sigmaField: name}, nil
		}
	}
	return correlatedField{}, fmt.Errorf("%s is no field of %s by which events can be grouped or counted", name, base.source.title)
}

// hostFields are names of the host of an event, whatever the log source.
var hostFields = []string{"host", "hostname", "computer", "computername"}

// isCommonField reports whether a name is that of a field that events of every log source have, and no key of
// a log line.
func isCommonField(name string) bool {
	of, _, _ := strings.Cut(name, ".")
	return slices.Contains(hostFields, strings.ToLower(name)) || pipeline.Lookup(name) != nil && (of == "container" || of == "host" || of == "log")
}

// letName returns a name of let for a key of log lines.
func letName(key string) string {
	return cut("key_"+strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToLower(key)), 60)
}

// A correlationWriter writes one correlation.
type correlationWriter struct {
	d          *document
	c          *correlation
	conditions []string            // of the base rules
	groups     [][]correlatedField // of the base rules
	lists      []namedList
	lets       map[string]string // by name: the expression
}

// writeCorrelation writes a correlation as a rule.
func (d *document) writeCorrelation(conversion *Conversion) {
	w := &correlationWriter{d: d, c: d.correlation, lets: map[string]string{}}
	if !w.readBase() {
		return
	}
	conversion.Logsource, conversion.Reads = "", "the events of other rules: "+w.c.kind
	var counted correlatedField
	if !strings.HasPrefix(w.c.kind, "temporal") {
		var ok bool
		if counted, ok = w.countedField(); !ok {
			return
		}
	}
	measure, ok := w.measure(counted)
	if !ok {
		return
	}
	var out strings.Builder
	d.writeHead(&out)
	fmt.Fprintf(&out, "    within: %s\n", w.c.timespan)
	if len(w.lets) > 0 {
		out.WriteString("    let:\n")
		for _, name := range slices.Sorted(maps.Keys(w.lets)) {
			fmt.Fprintf(&out, "      %s: %s\n", name, yamlQuote(w.lets[name]))
		}
	}
	if len(w.groups[0]) > 0 {
		fmt.Fprintf(&out, "    group: [%s]\n", strings.Join(valueNames(w.groups[0]), ", "))
	}
	if measure == "" {
		w.writeSequence(&out)
	} else {
		w.writeSelection(&out)
		out.WriteString(measure)
	}
	fmt.Fprintf(&out, "    alert: %s\n", yamlQuote(d.alert(valueNames(w.groups[0]))))
	if w.writeExamples(&out, counted) {
		conversion.Examples = true
	}
	conversion.rule, conversion.lists = out.String(), w.lists
}

// countedField returns the field of the condition, which must be the same one for all base rules, as their
// groups must.
func (w *correlationWriter) countedField() (counted correlatedField, ok bool) {
	for i, base := range w.c.base {
		if i > 0 && !slices.Equal(valueNames(w.groups[i]), valueNames(w.groups[0])) {
			w.d.refuse(w.c.node, "the fields of the group are not the same for all rules (%s and %s): only temporal correlations can have that",
				strings.Join(valueNames(w.groups[0]), ", "), strings.Join(valueNames(w.groups[i]), ", "))
			return counted, false
		}
		if !w.c.field.IsSet() || w.c.kind == "event_count" {
			continue
		}
		name, _ := w.c.field.Scalar()
		field, err := w.c.fieldOf(base, i, name)
		if err == nil && i > 0 && field.name() != counted.name() {
			err = fmt.Errorf("%s is not the same field for all rules", name)
		}
		if err == nil && field.let != "" {
			expression := field.expr()
			if w.c.kind != "value_count" {
				field.let, expression = "number_of_"+field.let, "number("+expression+")"
			}
			err = w.addLet(field.let, expression)
		}
		if err != nil {
			w.d.refuse(w.c.field, "%v", err)
			return counted, false
		}
		counted = field
	}
	return counted, true
}

// addLet adds a name for an expression.
func (w *correlationWriter) addLet(name, expression string) error {
	if known := w.lets[name]; known != "" && known != expression {
		return fmt.Errorf("two keys of log lines would have the name %s", name)
	}
	w.lets[name] = expression
	return nil
}

// measure returns the key that says what is counted, "" of a temporal correlation. It reports false if there
// is none.
func (w *correlationWriter) measure(counted correlatedField) (key string, ok bool) {
	unit := unitOf(counted)
	text, ok := w.c.boundsText(unit, unit == "" && w.c.kind != "value_avg")
	quoted := yamlQuote(text)
	switch w.c.kind {
	case "temporal", "temporal_ordered":
		return "", true
	case "event_count", "value_count":
		if low, high := w.c.bounds(); max(low, high) > math.MaxInt32 {
			w.d.refuse(w.c.node, "the condition counts up to %d", math.MaxInt32)
			return "", false
		}
		key = fmt.Sprintf("    count: %s\n", quoted)
		if w.c.kind == "value_count" {
			key = fmt.Sprintf("    distinct: {field: %s, count: %s}\n", counted.name(), quoted)
		}
	case "value_sum":
		key = fmt.Sprintf("    sum: {field: %s, total: %s}\n", counted.name(), quoted)
	case "value_avg":
		key = fmt.Sprintf("    average: {field: %s, value: %s}\n", counted.name(), quoted)
	default: // value_percentile, and value_median, which has none
		key = fmt.Sprintf("    percentile: {field: %s, percent: %s, value: %s}\n", counted.name(), cmp.Or(w.c.percent, "50"), quoted)
	}
	if !ok {
		w.d.refuse(w.c.node, "the condition never holds, or always, or has gt or lt in a range of values that are no whole numbers")
		return "", false
	}
	if w.measures() && counted.kind != numberMapping && counted.let == "" {
		w.d.refuse(w.c.field, "its values are no numbers that can be added up")
		return "", false
	}
	return key, true
}

// measures reports whether the correlation computes with the numbers of a field.
func (w *correlationWriter) measures() bool {
	return slices.Contains([]string{"value_sum", "value_avg", "value_percentile", "value_median"}, w.c.kind)
}

// unitOf returns the unit of the numbers of a field in Sigma.
func unitOf(f correlatedField) string {
	if f.field != "event.duration" {
		return ""
	}
	return map[int64]string{1e9: "s", 1e6: "ms"}[f.scale] + map[bool]string{true: "ns"}[f.scale <= 1]
}

// readBase converts the conditions and groups of the base rules.
func (w *correlationWriter) readBase() bool {
	for i, base := range w.c.base {
		e := base.newEmitter()
		expression, problem := base.expression(e)
		if problem != nil {
			w.d.refuse(w.c.rules[i], "%s", problem.message)
			return false
		}
		datasets := `event.dataset == "` + base.source.datasets[0] + `"`
		if len(base.source.datasets) > 1 {
			datasets = `event.dataset in ["` + strings.Join(base.source.datasets, `", "`) + `"]`
		}
		if base.condition.op == "and" {
			expression = trimBrackets(expression)
		}
		w.conditions = append(w.conditions, datasets+" and "+expression)
		w.lists = append(w.lists, e.lists...)
		var group []correlatedField
		for _, node := range w.c.groupBy {
			name, _ := node.Scalar()
			field, err := w.c.fieldOf(base, i, name)
			if err == nil && field.let != "" {
				err = w.addLet(field.let, field.expr())
			}
			if err != nil {
				w.d.refuse(node, "%v", err)
				return false
			}
			group = append(group, field)
		}
		w.groups = append(w.groups, group)
	}
	return true
}

func valueNames(fields []correlatedField) (names []string) {
	for _, f := range fields {
		names = append(names, f.name())
	}
	return names
}

// writeSelection writes which events are counted: those of one of the base rules.
func (w *correlationWriter) writeSelection(out *strings.Builder) {
	if len(w.conditions) == 1 {
		writeBlock(out, "    when", w.conditions[0])
		return
	}
	var parts []string
	for _, condition := range w.conditions {
		parts = append(parts, "("+condition+")")
	}
	writeBlock(out, "    when", strings.Join(parts, " or "))
}

// writeSequence writes a step for each base rule.
func (w *correlationWriter) writeSequence(out *strings.Builder) {
	fmt.Fprintf(out, "    sequence:\n      ordered: %v\n      steps:\n", w.c.kind == "temporal_ordered")
	for i, base := range w.c.base {
		fmt.Fprintf(out, "        - name: %s\n", yamlQuote(cut(base.title, 60)))
		writeBlock(out, "          when", w.conditions[i])
		if !slices.Equal(valueNames(w.groups[i]), valueNames(w.groups[0])) {
			fmt.Fprintf(out, "          group: [%s]\n", strings.Join(valueNames(w.groups[i]), ", "))
		}
	}
}

// exampleEvent returns an event that a base rule matches, of the group that all examples have, and with a
// value of the field that is counted; nil if there is none.
func (w *correlationWriter) exampleEvent(index int, counted correlatedField, value string) map[string]string {
	base := w.c.base[index]
	match, _ := exampleSamples(base.condition)
	if match == nil {
		return nil
	}
	changed := maps.Clone(match)
	set := func(f correlatedField, value string) bool {
		if match[f.sigmaField] != nil {
			return false // the rule decides what it is, and it may differ from that of the others
		}
		changed[f.sigmaField] = []string{value}
		return true
	}
	for _, f := range w.groups[index] {
		if f.let != "" && !set(f, "group") {
			return nil
		}
	}
	if value != "" && counted.let != "" && !set(counted, value) {
		return nil
	}
	event := base.source.eventOf(changed)
	for i, f := range w.groups[index] {
		if f.let != "" {
			continue
		}
		if event[f.field] != "" {
			return nil
		}
		setField(event, f.fieldMapping, "/group", map[mappingKind]string{addressMapping: "192.0.2.9", numberMapping: strconv.Itoa(40 + i)}[f.kind])
		if f.kind != addressMapping && f.kind != numberMapping {
			setField(event, f.fieldMapping, "/group", "/group")
		}
	}
	if value != "" && counted.let == "" {
		if event[counted.field] != "" {
			return nil
		}
		event[counted.field] = yamlQuote(value)
		if _, err := strconv.ParseInt(value, 10, 64); err == nil && counted.kind == numberMapping {
			event[counted.field] = value
		}
	}
	return event
}

// writeExamples writes a case that matches and one that does not, if it knows some.
func (w *correlationWriter) writeExamples(out *strings.Builder, counted correlatedField) bool {
	low, high := w.c.bounds()
	var match, other string
	add := func(to *string, at, repeat int64, index int, value string) bool {
		event := w.exampleEvent(index, counted, value)
		if event != nil {
			*to += fmt.Sprintf("          - {at: %ds, repeat: %d, every: 1ms, event: %s}\n", at, repeat, flowEvent(event))
		}
		return event != nil
	}
	ok := true
	switch {
	case strings.HasPrefix(w.c.kind, "temporal"):
		if timespanPattern.FindStringSubmatch(w.c.timespan)[2] == "s" && len(w.c.timespan) < 3 {
			return false // shorter than the example
		}
		for i := range w.c.base {
			ok = ok && add(&match, int64(i), 1, i, "")
		}
		ok = ok && add(&other, 0, 1, 0, "")
	case high >= 0 || low < 2 || low > maxExampleCount && !w.measures():
		return false
	case w.c.kind == "event_count":
		ok = add(&match, 0, low, 0, "") && add(&other, 0, low-1, 0, "")
	case w.measures():
		least, most := low, low-1 // that match, and that do not
		if n, isOpen := w.c.condition["gt"]; isOpen && n == low-1 && (counted.scale > 1 || w.c.kind == "value_avg") {
			most = n
		}
		number := func(n int64) string { return strconv.FormatInt(n*max(counted.scale, 1), 10) }
		ok = least <= math.MaxInt64/max(counted.scale, 1) && add(&match, 0, 1, 0, number(least)) && add(&other, 0, 1, 0, number(most))
	default:
		value := map[mappingKind]string{numberMapping: "{n}", addressMapping: "198.51.100.{n}"}[counted.kind]
		if counted.kind == addressMapping && low > 250 {
			return false
		}
		value = cmp.Or(value, "/value{n}")
		ok = add(&match, 0, low, 0, value) && add(&other, 0, low-1, 0, value)
	}
	if ok {
		fmt.Fprintf(out, "    tests:\n      - events:\n%s        fires: true\n      - events:\n%s        fires: false\n", match, other)
	}
	return ok
}
