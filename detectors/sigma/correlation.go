package sigma

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/config"
)

// A correlation is the section of a document that combines the events of other rules (Sigma correlation rules
// specification 2.1).
type correlation struct {
	node      config.Node
	kind      string
	rules     []config.Node // names or ids of rules
	groupBy   []config.Node
	timespan  string
	aliases   map[string]map[string]string // by alias and rule: the field
	condition map[string]int64             // by comparison: gte, gt, lte, lt, eq
	field     config.Node                  // of the condition
	base      []*document
}

// The bounds of a correlation; package rules has the same.
const (
	maxSteps        = 8
	maxTimespan     = 7 * 24 * time.Hour
	maxExampleCount = 1000 // events of an example
)

var timespanPattern = regexp.MustCompile(`^([0-9]{1,9})(s|m|h|d)$`)

// correlationKinds are the types of correlations; those that are false have no form in our rules.
var correlationKinds = map[string]bool{
	"event_count": true, "value_count": true, "value_sum": true, "temporal": true, "temporal_ordered": true,
	"value_avg": false, "value_percentile": false, "value_median": false,
}

// parseCorrelation reads the section of a correlation.
func (d *document) parseCorrelation(node config.Node) {
	if !node.IsMapping() {
		d.refuse(node, "expected a mapping, got %s", node.Kind())
		return
	}
	c := &correlation{node: node, aliases: map[string]map[string]string{}, condition: map[string]int64{}}
	for _, entry := range node.Entries() {
		value := entry.Value
		switch entry.Key {
		case "type":
			c.kind, _ = value.Scalar()
			supported, known := correlationKinds[c.kind]
			switch {
			case !known:
				d.refuse(value, "unknown type %q of correlation", c.kind)
			case !supported:
				d.refuse(value, "the type %s: our rules compute counts and sums over time, no averages and percentiles", c.kind)
			}
		case "rules":
			c.rules = itemsOf(value)
		case "group-by":
			c.groupBy = itemsOf(value)
		case "timespan":
			text, _ := value.Scalar()
			parts := timespanPattern.FindStringSubmatch(text)
			if parts == nil {
				d.refuse(value, "%q is not a length of time such as 30s, 5m, 1h or 7d", text)
				break
			}
			number, _ := strconv.ParseInt(parts[1], 10, 64)
			unit := map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}[parts[2]]
			if number == 0 || number > int64(maxTimespan/unit) {
				d.refuse(value, "a timespan of %s: our windows are from 1s to 7d", text)
			}
			c.timespan = text
		case "aliases":
			d.parseAliases(c, value)
		case "generate":
			if flag, ok := value.Bool(); ok {
				d.generatesBase(flag)
			} else {
				d.refuse(value, "expected true or false, got %s", value.Kind())
			}
		case "condition":
			d.parseBounds(c, value)
		default:
			d.refuse(value, "unknown key %q of a correlation%s", entry.Key,
				config.DidYouMean(entry.Key, []string{"type", "rules", "group-by", "timespan", "aliases", "generate", "condition"}))
		}
	}
	for _, entry := range d.node.Entries() {
		if flag, ok := entry.Value.Bool(); ok && entry.Key == "generate" {
			d.generatesBase(flag)
		}
	}
	switch {
	case c.kind == "":
		d.refuse(node, "type is missing")
	case len(c.rules) == 0:
		d.refuse(node, "rules is missing")
	case c.timespan == "":
		d.refuse(node, "timespan is missing")
	case strings.HasPrefix(c.kind, "temporal") && (len(c.rules) < 2 || len(c.rules) > maxSteps):
		d.refuse(node, "%s takes 2 to %d rules", c.kind, maxSteps)
	case !strings.HasPrefix(c.kind, "temporal") && len(c.condition) == 0:
		d.refuse(node, "condition is missing")
	case strings.HasPrefix(c.kind, "value_") && !c.field.IsSet():
		d.refuse(node, "condition has no field")
	}
	d.correlation = c
}

// generatesBase sets whether the rules of the correlation make alerts themselves.
func (d *document) generatesBase(flag bool) { d.generates = flag }

// itemsOf returns the items of a list, or a single value.
func itemsOf(node config.Node) []config.Node {
	if node.IsList() {
		return node.Items()
	}
	return []config.Node{node}
}

func (d *document) parseAliases(c *correlation, node config.Node) {
	for _, alias := range node.Entries() {
		fields := map[string]string{}
		for _, entry := range alias.Value.Entries() {
			field, ok := entry.Value.Scalar()
			if !ok {
				d.refuse(entry.Value, "expected the name of a field, got %s", entry.Value.Kind())
			}
			fields[entry.Key] = field
		}
		if len(fields) == 0 {
			d.refuse(alias.Value, "an alias names a field for each rule")
		}
		c.aliases[alias.Key] = fields
	}
}

// parseBounds reads a condition: comparisons with numbers, and a field; of a temporal correlation, that all
// rules match.
func (d *document) parseBounds(c *correlation, node config.Node) {
	if text, ok := node.Text(); ok {
		words := strings.Fields(text)
		for i, word := range words {
			if i%2 == 1 && !strings.EqualFold(word, "and") || len(words)%2 == 0 {
				d.refuse(node, "%q: only that all rules match (a and b) is supported", text)
			}
		}
		return
	}
	for _, entry := range node.Entries() {
		switch entry.Key {
		case "field":
			c.field = entry.Value
			if entry.Value.IsList() {
				d.refuse(entry.Value, "values of several fields together are not supported")
			}
		case "gte", "gt", "lte", "lt", "eq":
			number, ok := entry.Value.Int()
			if !ok || number < 0 || number > math.MaxInt32 {
				d.refuse(entry.Value, "expected a whole number, got %s", entry.Value.Kind())
			}
			c.condition[entry.Key] = number
		case "neq":
			d.refuse(entry.Value, "neq is not supported: our bounds are from one number to another")
		default:
			d.refuse(entry.Value, "unknown key %q of a condition", entry.Key)
		}
	}
	if len(c.condition) == 0 {
		d.refuse(node, "expected a comparison such as gte: 10")
	}
}

// bounds returns the numbers between which a correlation matches; high is -1 if there is none.
func (c *correlation) bounds() (low, high int64) {
	low, high = 0, -1
	for operator, number := range c.condition {
		switch operator {
		case "gte":
			low = max(low, number)
		case "gt":
			low = max(low, number+1)
		case "lte", "lt":
			if operator == "lt" {
				number--
			}
			if high < 0 || number < high {
				high = number
			}
		case "eq":
			low, high = number, number
		}
	}
	return low, high
}

// boundsText returns the bounds as our rules have them.
func (c *correlation) boundsText() (text string, ok bool) {
	low, high := c.bounds()
	_, hasUpper := c.condition["lt"]
	_, hasUpperEqual := c.condition["lte"]
	_, hasEqual := c.condition["eq"]
	switch {
	case !hasUpper && !hasUpperEqual && !hasEqual:
		return fmt.Sprintf(">= %d", low), low > 0
	case high < low:
		return "", false
	case low == 0:
		return fmt.Sprintf("<= %d", high), true
	}
	return fmt.Sprintf("%d..%d", low, high), true
}

// resolveCorrelation finds the rules that a correlation refers to.
func (d *document) resolveCorrelation(known map[string]*document) {
	if d.refusal != nil {
		return
	}
	for _, node := range d.correlation.rules {
		name, _ := node.Scalar()
		base := known[name]
		switch {
		case base == nil:
			d.refuse(node, "there is no rule with the name or id %q in these files", name)
		case base.correlation != nil:
			d.refuse(node, "%q is a correlation itself: our correlation rules combine rules over one event", name)
		case base.refusal != nil:
			d.refuse(node, "the rule %q is refused: %v", name, base.refusal)
		default:
			d.correlation.base = append(d.correlation.base, base)
		}
		if d.refusal != nil {
			return
		}
	}
	for _, base := range d.correlation.base {
		base.referredBy++
		base.generates = base.generates || d.generates
	}
}

// fieldOf returns the field of ours that holds a field of a base rule, with which events can be grouped.
func (c *correlation) fieldOf(base *document, index int, name string) (fieldMapping, error) {
	if fields := c.aliases[name]; fields != nil {
		written, _ := c.rules[index].Scalar()
		if name = fields[written]; name == "" {
			return fieldMapping{}, fmt.Errorf("the alias has no field for the rule %q", written)
		}
	}
	if mappings := base.source.mappings(name); len(mappings) > 0 && mappings[0].kind != keyMapping {
		m := mappings[0]
		if m.kind == listMapping || m.kind == conditionMapping {
			return fieldMapping{}, fmt.Errorf("%s has several values", name)
		}
		return m, nil
	}
	if slices.Contains([]string{"host", "hostname", "computer", "computername"}, strings.ToLower(name)) {
		return text("host.name"), nil
	}
	if field := pipeline.Lookup(name); field != nil && field.Strs == nil && field.Nums == nil {
		switch {
		case field.IP != nil:
			return address(name), nil
		case field.Num != nil:
			return number(name), nil
		case field.Str != nil:
			return text(name), nil
		}
	}
	return fieldMapping{}, fmt.Errorf("%s is no field of %s by which events can be grouped or counted", name, base.source.title)
}

// A correlationWriter writes one correlation.
type correlationWriter struct {
	d          *document
	c          *correlation
	conditions []string         // of the base rules
	groups     [][]fieldMapping // of the base rules
	lists      []namedList
}

// writeCorrelation writes a correlation as a rule.
func (d *document) writeCorrelation(conversion *Conversion) {
	w := &correlationWriter{d: d, c: d.correlation}
	if !w.readBase() {
		return
	}
	conversion.Logsource, conversion.Reads = "", "the events of other rules: "+w.c.kind
	var out strings.Builder
	d.writeHead(&out)
	fmt.Fprintf(&out, "    within: %s\n", w.c.timespan)
	if len(w.groups[0]) > 0 {
		fmt.Fprintf(&out, "    group: [%s]\n", strings.Join(fieldNames(w.groups[0]), ", "))
	}
	bounds, ok := "", true
	var counted fieldMapping
	if !strings.HasPrefix(w.c.kind, "temporal") {
		if bounds, ok = w.c.boundsText(); !ok {
			d.refuse(w.c.node, "the condition never holds, or always")
			return
		}
		for i, base := range w.c.base {
			if i > 0 && !slices.Equal(fieldNames(w.groups[i]), fieldNames(w.groups[0])) {
				d.refuse(w.c.node, "the fields of the group are not the same for all rules (%s and %s): only temporal correlations can have that",
					strings.Join(fieldNames(w.groups[0]), ", "), strings.Join(fieldNames(w.groups[i]), ", "))
				return
			}
			if !w.c.field.IsSet() || w.c.kind == "event_count" {
				continue
			}
			name, _ := w.c.field.Scalar()
			field, err := w.c.fieldOf(base, i, name)
			if err == nil && i > 0 && field.field != counted.field {
				err = fmt.Errorf("%s is not the same field for all rules", name)
			}
			if err != nil {
				d.refuse(w.c.field, "%v", err)
				return
			}
			counted = field
		}
	}
	switch w.c.kind {
	case "event_count":
		w.writeSelection(&out)
		fmt.Fprintf(&out, "    count: %s\n", yamlQuote(bounds))
	case "value_count":
		w.writeSelection(&out)
		fmt.Fprintf(&out, "    distinct: {field: %s, count: %s}\n", counted.field, yamlQuote(bounds))
	case "value_sum":
		if counted.kind != numberMapping || counted.scale > 1 {
			d.refuse(w.c.field, "its values are no numbers that can be added up")
			return
		}
		w.writeSelection(&out)
		fmt.Fprintf(&out, "    sum: {field: %s, total: %s}\n", counted.field, yamlQuote(bounds))
	default:
		w.writeSequence(&out)
	}
	fmt.Fprintf(&out, "    alert: %s\n", yamlQuote(d.alert(fieldNames(w.groups[0]))))
	if w.writeExamples(&out, counted) {
		conversion.Examples = true
	}
	conversion.rule, conversion.lists = out.String(), w.lists
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
		var group []fieldMapping
		for _, node := range w.c.groupBy {
			name, _ := node.Scalar()
			field, err := w.c.fieldOf(base, i, name)
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

func fieldNames(mappings []fieldMapping) (names []string) {
	for _, m := range mappings {
		names = append(names, m.field)
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
		if !slices.Equal(fieldNames(w.groups[i]), fieldNames(w.groups[0])) {
			fmt.Fprintf(out, "          group: [%s]\n", strings.Join(fieldNames(w.groups[i]), ", "))
		}
	}
}

// exampleEvent returns an event that a base rule matches, of the group that all examples have; nil if there
// is none.
func (w *correlationWriter) exampleEvent(index int) map[string]string {
	base := w.c.base[index]
	match, _ := exampleSamples(base.condition)
	if match == nil {
		return nil
	}
	event := base.source.eventOf(match)
	for i, m := range w.groups[index] {
		if event[m.field] != "" {
			return nil // the group follows from the rule, and may differ from that of the others
		}
		setField(event, m, "/group", map[mappingKind]string{addressMapping: "192.0.2.9", numberMapping: strconv.Itoa(40 + i)}[m.kind])
		if m.kind != addressMapping && m.kind != numberMapping {
			setField(event, m, "/group", "/group")
		}
	}
	return event
}

// writeExamples writes a case that matches and one that does not, if it knows some.
func (w *correlationWriter) writeExamples(out *strings.Builder, counted fieldMapping) bool {
	var events []map[string]string
	for i := range w.c.base {
		event := w.exampleEvent(i)
		if event == nil {
			return false
		}
		events = append(events, event)
	}
	low, high := w.c.bounds()
	line := func(at, repeat int64, event map[string]string) string {
		return fmt.Sprintf("          - {at: %ds, repeat: %d, every: 1ms, event: %s}\n", at, repeat, flowEvent(event))
	}
	var match, other string
	switch {
	case strings.HasPrefix(w.c.kind, "temporal"):
		for i, event := range events {
			match += line(int64(i), 1, event)
		}
		other = line(0, 1, events[0])
		if timespanPattern.FindStringSubmatch(w.c.timespan)[2] == "s" && len(w.c.timespan) < 3 {
			return false // shorter than the example
		}
	case high >= 0 || low < 2 || low > maxExampleCount && w.c.kind != "value_sum":
		return false
	case w.c.kind == "event_count":
		match, other = line(0, low, events[0]), line(0, low-1, events[0])
	case w.c.kind == "value_sum":
		if events[0][counted.field] != "" {
			return false
		}
		enough, less := cloneWith(events[0], counted.field, strconv.FormatInt(low, 10)), cloneWith(events[0], counted.field, strconv.FormatInt(low-1, 10))
		match, other = line(0, 1, enough), line(0, 1, less)
	default:
		value := map[mappingKind]string{numberMapping: `"{n}"`, addressMapping: `"198.51.100.{n}"`}[counted.kind]
		if value == "" {
			value = `"/value{n}"`
		}
		if events[0][counted.field] != "" || counted.kind == addressMapping && low > 250 {
			return false
		}
		event := cloneWith(events[0], counted.field, value)
		match, other = line(0, low, event), line(0, low-1, event)
	}
	fmt.Fprintf(out, "    tests:\n      - events:\n%s        fires: true\n      - events:\n%s        fires: false\n", match, other)
	return true
}

func cloneWith(event map[string]string, field, value string) map[string]string {
	out := map[string]string{field: value}
	for name, v := range event {
		if name != field {
			out[name] = v
		}
	}
	return out
}
