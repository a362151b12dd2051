package sigma

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

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
	percent   string                       // of the condition of value_percentile
	base      []*document
}

// The bounds of a correlation; package rules has the same.
const (
	maxSteps        = 8
	maxBaseRules    = 50
	maxTimespan     = 7 * 24 * time.Hour
	maxExampleCount = 1000 // events of an example
	maxBound        = 1 << 50
)

var timespanPattern = regexp.MustCompile(`^([0-9]{1,9})(s|m|h|d)$`)

// correlationKinds are the types of correlations.
var correlationKinds = []string{
	"event_count", "value_count", "value_sum", "value_avg", "value_percentile", "value_median", "temporal", "temporal_ordered",
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
			if !slices.Contains(correlationKinds, c.kind) {
				d.refuse(value, "unknown type %q of correlation%s", c.kind, config.DidYouMean(c.kind, correlationKinds))
			}
		case "rules":
			if c.rules = itemsOf(value); len(c.rules) > maxBaseRules {
				d.refuse(value, "names %d rules, the limit is %d", len(c.rules), maxBaseRules)
			}
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
	case c.kind == "value_percentile" && c.percent == "":
		d.refuse(node, "condition has no percentile: which one is it, such as percentile: 95")
	case strings.HasPrefix(c.kind, "temporal") && !c.wantsAllRules():
		d.refuse(node, "only that all rules match is supported, and the condition asks for a part of them")
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
			if !ok || number < 0 || number > maxBound {
				d.refuse(entry.Value, "expected a whole number from 0 to %d, got %s", int64(maxBound), entry.Value.Kind())
			}
			c.condition[entry.Key] = number
		case "percentile":
			written, _ := entry.Value.Scalar()
			percent, err := strconv.ParseFloat(written, 64)
			if err != nil || !(percent > 0 && percent <= 100) {
				d.refuse(entry.Value, "expected a number above 0 and up to 100, got %q", written)
			}
			c.percent = written
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

// wantsAllRules reports whether the condition of a temporal correlation, if it has one, asks for all of its
// rules.
func (c *correlation) wantsAllRules() bool {
	low, high := c.bounds()
	all := int64(len(c.rules))
	return len(c.condition) == 0 || low == all && (high < 0 || high >= all)
}

// boundsText returns the bounds as our rules have them, with a unit. Of values that are no whole numbers,
// more than 5 is not 6 and more.
func (c *correlation) boundsText(unit string, isWhole bool) (text string, ok bool) {
	low, high := c.bounds()
	if high >= 0 && high < low {
		return "", false
	}
	number := func(n int64) string { return strconv.FormatInt(n, 10) + unit }
	if !isWhole {
		var lower, upper []string
		for _, side := range []struct {
			list      *[]string
			key, sign string
		}{{&lower, "gte", ">="}, {&lower, "gt", ">"}, {&upper, "lte", "<="}, {&upper, "lt", "<"}} {
			if n, has := c.condition[side.key]; has {
				*side.list = append(*side.list, side.sign+" "+number(n))
			}
		}
		switch {
		case len(c.condition) == 1 && len(lower)+len(upper) == 1:
			least, hasLeast := c.condition["gte"]
			below, hasBelow := c.condition["lt"]
			return append(lower, upper...)[0], !(hasLeast && least == 0 || hasBelow && below == 0)
		case len(lower)+len(upper) == len(c.condition) && (c.condition["gt"] != 0 || c.condition["lt"] != 0):
			return "", false // a range of ours has its bounds in it
		}
	}
	switch {
	case high < 0:
		return ">= " + number(low), low > 0
	case low == 0:
		return "<= " + number(high), true
	}
	return number(low) + ".." + number(high), true
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
