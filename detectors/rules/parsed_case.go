package rules

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"tidegate/detectors/feeds"
	"tidegate/pipeline"
	"tidegate/pipeline/config"
)

// maxCaseEvents bounds the events of a case.
const maxCaseEvents = 10_000

// caseBegin is the time of the first event of a case whose events have no times of their own: midnight of a
// Monday, UTC.
var caseBegin = time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)

// yamlCase is the YAML form of a test case.
type yamlCase struct {
	Name   config.Text     `yaml:"name"`
	Fires  *bool           `yaml:"fires"`
	Event  config.Node     `yaml:"event"`
	Events []yamlCaseEvent `yaml:"events"`
	Feeds  config.Node     `yaml:"feeds"`
	End    config.Node     `yaml:"end"`

	node config.Node // the whole case, for its line and for errors
}

// DecodeNode decodes a test case and keeps its node.
func (c *yamlCase) DecodeNode(node config.Node) {
	type plain yamlCase // without DecodeNode, which would call itself
	node.Decode((*plain)(c))
	c.node = node
}

// A yamlCaseEvent is an event of a case of a correlation rule, or some that follow each other.
type yamlCaseEvent struct {
	At     config.Node `yaml:"at"`
	Repeat config.Node `yaml:"repeat"`
	Every  config.Node `yaml:"every"`
	Event  config.Node `yaml:"event"`

	node config.Node
}

// DecodeNode decodes the event of a case and keeps its node.
func (e *yamlCaseEvent) DecodeNode(node config.Node) {
	type plain yamlCaseEvent // without DecodeNode, which would call itself
	node.Decode((*plain)(e))
	e.node = node
}

// parseCases sets Tests.
func (r *parsedRule) parseCases(list []yamlCase) {
	for i, form := range list {
		if i == maxTests {
			form.node.Errorf("more than %d test cases", maxTests)
			return
		}
		parsed := Case{Name: fmt.Sprintf("case %d", i+1), Line: form.node.Position().Line}
		if form.Name.IsSet() {
			parsed.Name = nonEmptyText(form.Name)
		}

		// Decode has reported a key of the wrong type, so only an absent key is reported as missing.
		if form.Fires != nil {
			parsed.Fires = *form.Fires
		} else if !hasKey(form.node, "fires") {
			form.node.Named(form.node.Key() + ".fires").Errorf("is missing")
		}
		parsed.parseFeeds(form.Feeds)
		switch {
		case r.correlation != nil:
			parsed.parseEvents(&form, r.doc)
		case form.Event.IsSet():
			parsed.events = []*pipeline.Event{parseEvent(form.Event, 0)}
		default:
			form.node.Named(form.node.Key() + ".event").Errorf("is missing")
		}
		if r.correlation != nil && hasKey(form.node, "event") && hasKey(form.node, "events") {
			form.node.Errorf("has event and events: a case of a correlation rule has one of them")
		}
		if r.correlation == nil && (hasKey(form.node, "events") || hasKey(form.node, "end")) {
			form.node.Errorf("events and end belong to a correlation rule; this one has event")
		}
		r.Tests = append(r.Tests, parsed)
	}
}

// parseEvents sets the events of a case of a correlation rule, ordered by time.
func (c *Case) parseEvents(form *yamlCase, doc *config.Document) {
	if form.Event.IsSet() {
		form.Events = append(form.Events, yamlCaseEvent{Event: form.Event, node: form.node})
	}
	if len(form.Events) == 0 {
		form.node.Named(form.node.Key() + ".events").Errorf("is missing")
	}
	if form.End.IsSet() {
		c.end = parseLength(form.node, "end", form.End, 0, 0, maxMemory)
	}
	for _, of := range form.Events {
		if !of.Event.IsSet() {
			of.node.Named(of.node.Key() + ".event").Errorf("is missing")
			continue
		}
		at, every, repeat := time.Duration(0), time.Duration(0), 1
		if of.At.IsSet() {
			at = parseLength(of.node, "at", of.At, 0, 0, maxMemory)
		}
		if of.Every.IsSet() {
			every = parseLength(of.node, "every", of.Every, 0, 0, maxMemory)
		}
		if of.Every.IsSet() && !of.Repeat.IsSet() {
			of.Every.Errorf("belongs to an event with repeat")
		}
		if of.Repeat.IsSet() {
			number, ok := of.Repeat.Int()
			if !ok || number < 1 || number > maxCaseEvents {
				of.Repeat.Errorf("must be a number from 1 to %d", maxCaseEvents)
				continue
			}
			repeat = int(number)
		}
		if every > 0 && time.Duration(repeat) > maxMemory/every {
			of.Every.Errorf("the last event is later than %s", formatDuration(maxMemory))
			continue
		}
		if len(c.events)+repeat > maxCaseEvents {
			of.node.Errorf("more than %d events", maxCaseEvents)
			return
		}
		for i := range repeat {
			number := 0
			if of.Repeat.IsSet() {
				number = i + 1
			}
			before := len(doc.Errors())
			event := parseEvent(of.Event, number)
			if event == nil || len(doc.Errors()) > before {
				break // the errors are reported once
			}
			if event.Timestamp == 0 || of.At.IsSet() {
				event.Timestamp = caseBegin.Add(at + time.Duration(i)*every).UnixNano()
			}
			if len(event.Id) == 0 {
				event.Id = fmt.Appendf(nil, "case event %05d", len(c.events)) // 16 bytes
			}
			c.events = append(c.events, event)
		}
	}
	slices.SortStableFunc(c.events, func(a, b *pipeline.Event) int { return cmp.Compare(a.End(), b.End()) })
}

// maxCaseIndicators bounds the indicators of the feeds of a case.
const maxCaseIndicators = 1000

// parseFeeds sets the feeds of a case, which take the place of those of the configuration: a mapping of their names to indicators.
func (c *Case) parseFeeds(node config.Node) {
	if !node.IsSet() {
		return
	}
	if !node.IsMapping() {
		node.Errorf("expected the names of feeds with their indicators, such as {blocklist: [203.0.113.9]}, got %s", node.Kind())
		return
	}
	indicators, names, total := map[string][]string{}, []string{}, 0
	for _, entry := range node.Entries() {
		var list yamlTexts
		list.DecodeNode(entry.Value.Named(node.Key() + "." + entry.Key))
		if total += len(list); total > maxCaseIndicators || len(names) == maxTexts {
			node.Errorf("more than %d indicators, or %d feeds", maxCaseIndicators, maxTexts)
			return
		}
		names = append(names, entry.Key)
		for _, text := range list {
			if _, err := feeds.Of(map[string][]string{"": {text.Value}}, []string{""}); err != nil {
				text.Errorf("%v", err)
				continue
			}
			indicators[entry.Key] = append(indicators[entry.Key], text.Value)
		}
	}
	c.feeds, _ = feeds.Of(indicators, names) // each indicator was read before
}
