package rules

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"tidegate/pipeline"
)

// tellingFields are the fields of each dataset that say what an event is about, the most telling one first.
var tellingFields = map[string][]string{
	"session":   {"destination.ip", "destination.port", "network.protocol", "session.state"},
	"dns":       {"dns.question.name", "dns.question.type", "dns.response_code"},
	"http":      {"url.path", "url.query", "http.request.method", "user_agent.original", "url.domain"},
	"mysql":     {"mysql.query", "mysql.command", "mysql.error_code", "user.name"},
	"redis":     {"redis.key", "redis.command"},
	"tls":       {"tls.client.server_name", "tls.client.ja3", "tls.alert"},
	"log":       {"message", "log.level"},
	"container": {"container.image.name", "event.action", "process.exit_code"},
	"memcached": {"memcached.key", "memcached.command"},
}

// The bounds of the parts of a draft.
const (
	maxDraftText  = 200 // bytes of a constant
	maxDraftTitle = 80  // characters
	maxDraftID    = 60  // bytes
	minDraftPiece = 8   // bytes of a line without a digit that the condition looks for
)

// A draftCondition is a field of an event with the constant that the condition of a draft compares it with.
type draftCondition struct {
	field    *pipeline.Field
	operator string
	value    string // as in the event, perhaps shortened
	number   bool
	path     []string // of a value in a line that is JSON: its keys
}

// Draft returns a rule file with one rule that matches event: its condition compares the telling fields of the event with
// their values, and its cases are the event, reduced to these fields, and another one. The rule passes its cases and has no
// lint. It is meant to be changed: as it is, it is as narrow as the event.
func Draft(event *pipeline.Event) ([]byte, error) {
	conditions := draftConditions(event)
	if len(conditions) == 0 {
		return nil, fmt.Errorf("the event %s has no field from which a rule can be made%s", event.IDText(), missing(event.Dataset.Name()))
	}
	if at := slices.IndexFunc(conditions, func(c draftCondition) bool { return c.field.Name == "message" }); at >= 0 {
		message := draftCondition{field: conditions[at].field, value: conditions[at].field.Text(event)}
		if values := jsonConditions(message); len(values) > 0 {
			if text, err := checkedDraft(event, slices.Replace(slices.Clone(conditions), at, at+1, values...)); err == nil {
				return text, nil
			}
		}
	}
	return checkedDraft(event, conditions)
}

// checkedDraft returns the rule file with the conditions. Its rule passes its cases.
func checkedDraft(event *pipeline.Event, conditions []draftCondition) ([]byte, error) {
	text := draftText(event, conditions)

	// What cannot be expected of the event, such as a value that no parser makes, is found here.
	set, err := Compile(Config{MaxMeanTime: time.Hour, MaxTime: time.Hour}, []Source{{Name: "draft", Data: text}}, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("make a rule of the event %s: %w", event.IDText(), err)
	}
	for _, result := range set.Test() {
		if !result.Passed {
			return nil, fmt.Errorf("make a rule of the event %s: %s", event.IDText(), result.Problem)
		}
	}
	return text, nil
}

// missing names the fields that an event of a dataset lacks.
func missing(dataset string) string {
	if names := tellingFields[dataset]; len(names) > 0 {
		return ": it has none of " + strings.Join(names, ", ")
	}
	return ""
}

// draftConditions returns a condition for each telling field that event has.
func draftConditions(event *pipeline.Event) (conditions []draftCondition) {
	names := tellingFields[event.Dataset.Name()]
	if event.Dataset == pipeline.Dataset_HTTP && event.GetHttp().GetUrlPath() == "" { // CONNECT has no path
		names = append([]string{"url.original"}, names[2:]...)
	}
	for _, name := range names {
		field := pipeline.Lookup(name)
		if !field.Has(event) {
			continue
		}
		condition := draftCondition{field: field, operator: "==", value: field.Text(event), number: field.Num != nil}
		if field.Str != nil {
			condition.shorten()
		}
		if !utf8.ValidString(condition.value) || condition.value == "" {
			continue
		}
		if vocabulary, ok := vocabularies[name]; ok && !vocabulary.fits(condition.value) {
			continue
		}
		conditions = append(conditions, condition)
	}
	return conditions
}

// shorten makes a condition of a long text compare its beginning only, and that of a line of a log look for its longest piece without
// digits: times, addresses and numbers differ in the next line.
func (c *draftCondition) shorten() {
	if c.field.Name == "message" {
		longest := longestPiece(c.value)
		if len(longest) >= minDraftPiece && longest != c.value {
			c.operator, c.value = "contains", cutText(longest, maxDraftText)
			return
		}
	}
	if len(c.value) > maxDraftText {
		c.operator, c.value = "startsWith", cutText(c.value, maxDraftText)
	}
}

// cutText returns the first bytes of a text, and no part of a character.
func cutText(text string, most int) string {
	if len(text) <= most {
		return text
	}
	for most > 0 && !utf8.RuneStart(text[most]) {
		most--
	}
	return text[:most]
}

// draftText returns the file of a rule with the conditions. Texts stand in double quotes as strconv.Quote writes them, which are read in
// the same way in YAML, in expressions and in JSON with few exceptions.
func draftText(event *pipeline.Event, conditions []draftCondition) []byte {
	var out strings.Builder
	dataset, first := event.Dataset.Name(), conditions[0]
	line := func(format string, args ...any) { fmt.Fprintf(&out, format+"\n", args...) }

	line("- id: %s", draftID(dataset, first.value))
	line("  title: %s", strconv.Quote(draftTitle(dataset, first.value)))
	from := "Made of a line of a log."
	if len(event.Id) > 0 {
		from = fmt.Sprintf("Made of the event %s of %s.", event.IDText(), time.Unix(0, event.Timestamp).UTC().Format(time.RFC3339))
	}
	line("  description: %s", strconv.Quote(from))
	line("  severity: medium")
	line("  when: >-")
	line("    event.dataset == %q", dataset)
	for _, condition := range conditions {
		line("    and %s", condition.expression())
	}
	group := draftGroup(event)
	if len(group) > 0 {
		line("  group: [%s]", strings.Join(group, ", "))
	}
	line("  alert: %s", strconv.Quote(draftAlert(conditions, group)))
	line("  tests:")
	writeCase := func(name string, conditions []draftCondition, fires bool) {
		line("    - name: %s", name)
		line("      event:")
		line("        event.dataset: %s", dataset)
		if object := jsonLine(conditions); object != "{}" {
			line("        message: %s", strconv.Quote(object))
		}
		for _, condition := range conditions {
			if condition.path == nil {
				line("        %s: %s", condition.field.Name, condition.literal())
			}
		}
		line("      fires: %t", fires)
	}
	writeCase("the event", conditions, true)
	other := slices.Clone(conditions)
	other[0].value = otherValue(first)
	writeCase("another "+first.name(), other, false)
	return []byte(out.String())
}

// expression returns the condition as an expression.
func (c *draftCondition) expression() string {
	if c.path != nil {
		return c.jsonExpression()
	}
	return c.field.Name + " " + c.operator + " " + c.literal()
}

// name returns what is compared.
func (c *draftCondition) name() string {
	if c.path != nil {
		return strings.Join(c.path, ".")
	}
	return c.field.Name
}

// literal returns the value in the form that expressions and YAML have in common.
func (c *draftCondition) literal() string {
	if c.number {
		return c.value
	}
	return strconv.Quote(c.value)
}

// otherValue returns a value for which the condition is false.
func otherValue(c draftCondition) string {
	switch {
	case c.field.IP != nil && c.value != "192.0.2.1":
		return "192.0.2.1" // of a network for documentation, RFC 5737
	case c.field.IP != nil:
		return "192.0.2.2"
	case c.number && c.value != "1":
		return "1"
	case c.number:
		return "2"
	case c.value != "other" && !strings.Contains("other", c.value):
		return "other"
	}
	return "another"
}

// draftID returns an id made of a dataset and the letters and digits of a text.
func draftID(dataset, value string) string {
	words := strings.FieldsFunc(strings.ToLower(value), func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') })
	id := strings.Join(append([]string{"new", dataset}, words...), "-")
	return strings.TrimRight(id[:min(len(id), maxDraftID)], "-")
}

// draftTitle returns a title of printable characters.
func draftTitle(dataset, value string) string {
	title := []rune(strings.Join(strings.FieldsFunc(dataset+": "+value, func(r rune) bool { return !unicode.IsPrint(r) || r == ' ' }), " "))
	if len(title) > maxDraftTitle {
		title = append(title[:maxDraftTitle-1], '…')
	}
	return string(title)
}

// draftGroup returns the fields that say who or what an event is about.
func draftGroup(event *pipeline.Event) (group []string) {
	for _, name := range []string{"container.id", "source.ip"} {
		if pipeline.Lookup(name).Has(event) {
			group = append(group, name)
		}
	}
	return group
}

// draftAlert returns the template of the text of the alert.
func draftAlert(conditions []draftCondition, group []string) string {
	var parts []string
	for _, condition := range conditions[:min(len(conditions), 3)] {
		if part := "{" + condition.field.Name + "}"; !slices.Contains(parts, part) {
			parts = append(parts, part)
		}
	}
	alert := strings.Join(parts, " ")
	if slices.Contains(group, "source.ip") {
		alert += " from {source.ip}"
	}
	if slices.Contains(group, "container.id") {
		alert += " in {container.name}"
	}
	return alert
}
