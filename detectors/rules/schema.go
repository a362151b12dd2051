package rules

import (
	"encoding/json"
	"strings"

	"tidegate/pipeline"
)

// schemaObject is a part of a JSON Schema.
type schemaObject = map[string]any

// JSONSchema returns the form of a rule file as a JSON Schema (draft 2020-12), so that editors complete keys and fields
// and mark what is not allowed. It does not describe expressions.
func JSONSchema() ([]byte, error) {
	schema := schemaObject{
		"$schema": "https://json-schema.org/draft/2020-12/schema",
		"title":   "Rules of tidegate",
		"$defs": schemaObject{
			"texts":      schemaObject{"oneOf": []any{textSchema(""), schemaObject{"type": "array", "items": textSchema("")}}},
			"field":      fieldSchema(),
			"fields":     schemaObject{"oneOf": []any{ref("field"), schemaObject{"type": "array", "items": ref("field")}}},
			"duration":   schemaObject{"type": "string", "pattern": durationPattern, "description": "A length of time: 30s, 10m, 1h, 7d."},
			"bound":      schemaObject{"type": []string{"string", "integer"}, "description": "A bound of a number: \">= 10\", \"< 5\", \"3..7\"."},
			"step":       stepSchema(),
			"event":      eventSchema(),
			"case":       caseSchema(),
			"rule":       ruleSchema(),
			"sections":   sectionsSchema(),
			"caseEvents": caseEventsSchema(),
		},
		"oneOf": []any{schemaObject{"type": "array", "items": ref("rule")}, ref("sections"), ref("rule")},
	}
	return json.MarshalIndent(schema, "", "  ")
}

const durationPattern = `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h|d))+$`

func ref(name string) schemaObject { return schemaObject{"$ref": "#/$defs/" + name} }

// described returns a schema with a description for the editor.
func described(schema schemaObject, text string) schemaObject {
	if text != "" {
		schema["description"] = text
	}
	return schema
}

// textSchema is a scalar: YAML reads 1.0 or true as no text.
func textSchema(text string) schemaObject {
	return described(schemaObject{"type": []string{"string", "number", "boolean"}}, text)
}

// object returns the schema of a mapping that has no other keys.
func object(text string, required []string, properties schemaObject) schemaObject {
	schema := schemaObject{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		schema["required"] = required
	}
	return described(schema, text)
}

// fieldSchema has the names of the fields that rules can read, with their lines of docs/FIELDS.md.
func fieldSchema() schemaObject {
	var names []any
	for i := range pipeline.Fields {
		field := &pipeline.Fields[i]
		if _, err := fieldKind(field); err == nil || field.Raw != nil {
			names = append(names, schemaObject{"const": field.Name, "description": field.Doc})
		}
	}
	names = append(names, schemaObject{"type": "string", "pattern": namePattern.String(), "description": "A name of let."})
	return schemaObject{"anyOf": names}
}

// escalateSchema is a mapping of severities to numbers of matches.
func escalateSchema(severities []string) schemaObject {
	counts := schemaObject{}
	for _, severity := range severities {
		counts[severity] = schemaObject{"type": "integer", "minimum": 2}
	}
	return object("Severities with the number of matches from which on an alert has them: {high: 10, critical: 100}.", nil, counts)
}

// acceptSchema is a mapping of hints to reasons.
func acceptSchema() schemaObject {
	reasons := schemaObject{}
	for _, hint := range acceptableHints {
		reasons[hint] = schemaObject{"type": "string", "minLength": 1, "description": "Why the hint does not hold for this rule."}
	}
	return object("Hints of rules lint that are accepted, with the reason: {no-index-key: few events have a container}.", nil, reasons)
}

// ruleSchema is yamlRule.
func ruleSchema() schemaObject {
	severities := []string{"info", "low", "medium", "high", "critical"}
	return object("A rule over one event, or, with one of count, distinct, sum, average, percentile, sequence, absent, first_seen and interval, over several.",
		[]string{"id", "title", "severity"}, schemaObject{
			"id":          schemaObject{"type": "string", "pattern": idPattern.String(), "description": "The name of the rule in alerts and metrics. It is never used for another rule."},
			"title":       textSchema("What has happened, in a few words."),
			"description": textSchema("What the rule finds, why it matters, and what to do."),
			"author":      textSchema(""),
			"version":     textSchema("The version of the rule; without one it is a hash of what determines its matches."),
			"references":  ref("texts"),
			"severity":    schemaObject{"enum": severities},
			"score":       schemaObject{"type": "integer", "minimum": 1, "maximum": 100, "description": "How sure the rule is; 100 without one."},
			"tags":        described(ref("texts"), "Such as attack.t1190 or cve.2021-44228."),
			"dataset":     described(datasetSchema(), "The dataset of the events; all without one."),
			"datasets":    described(datasetSchema(), "The datasets of the events; all without them."),
			"when":        textSchema("The condition, an expression over the fields of an event."),
			"exceptions":  described(ref("texts"), "Conditions under which an event does not match."),
			"let": schemaObject{
				"type": "object", "propertyNames": schemaObject{"pattern": namePattern.String()}, "additionalProperties": textSchema(""), "maxProperties": maxLet,
				"description": "Expressions by name: {user: 'json(message, \"$.user\")'}. The name stands for a field in group, alert, distinct, sum, average, percentile and first_seen, and for the value in conditions.",
			},
			"group":    described(ref("fields"), "Matches with the same values of these fields are one alert; without them those of a container, or else of a host."),
			"alert":    textSchema("The text of the alert, with fields between braces: {source.ip} asked for {url.path}."),
			"suppress": described(ref("duration"), "How long the matches of one group are one alert, from the first match on; 1m to 24h."),
			"escalate": escalateSchema(severities),
			"tests":    schemaObject{"type": "array", "maxItems": maxTests, "items": ref("case")},
			"accept":   acceptSchema(),

			"rule":     described(ref("texts"), "Ids of rules: the events are those that they match."),
			"within":   described(ref("duration"), "The longest time between the first event and the last one."),
			"count":    described(ref("bound"), "The rule matches if so many events lie in the window."),
			"distinct": object("The number of different values of a field.", []string{"field", "count"}, schemaObject{"field": ref("field"), "count": ref("bound")}),
			"sum":      object("The sum of a field.", []string{"field", "total"}, schemaObject{"field": ref("field"), "total": ref("bound")}),
			"average": object("The average of a field, in windows that do not overlap.", []string{"field", "value"}, schemaObject{
				"field": ref("field"), "value": ref("bound"), "events": minEventsSchema(),
			}),
			"percentile": object("A percentile of a field, in windows that do not overlap.", []string{"field", "percent", "value"}, schemaObject{
				"field": ref("field"), "value": ref("bound"), "events": minEventsSchema(),
				"percent": schemaObject{"type": "number", "exclusiveMinimum": 0, "maximum": 100, "description": "Which one; 50 is the median."},
			}),
			"sequence": schemaObject{
				"description": "Events of several steps, one after the other.",
				"oneOf": []any{
					schemaObject{"type": "array", "items": ref("step"), "minItems": minSteps, "maxItems": maxSteps},
					object("", []string{"steps"}, schemaObject{
						"steps":   schemaObject{"type": "array", "items": ref("step"), "minItems": minSteps, "maxItems": maxSteps},
						"ordered": schemaObject{"type": "boolean", "description": "The steps follow each other in their order; true without it."},
						"until":   textSchema("The condition of an event that ends what has begun."),
					}),
				},
			},
			"absent": described(ref("step"), "The event that must follow; the rule matches if it does not."),
			"first_seen": object("Values that the group did not have before.", []string{"fields"}, schemaObject{
				"fields": ref("fields"), "baseline": ref("duration"), "expire_after": ref("duration"),
			}),
			"interval": object("Contacts at regular distances.", nil, schemaObject{
				"contacts": schemaObject{"type": "integer", "minimum": minContacts, "maximum": maxContacts},
				"min":      ref("duration"), "max": ref("duration"), "jitter": schemaObject{"type": []string{"string", "number"}},
			}),
		})
}

func minEventsSchema() schemaObject {
	return schemaObject{"type": "integer", "minimum": 1, "description": "How many events a window must have; 1 without it."}
}

func datasetSchema() schemaObject {
	name := schemaObject{"enum": pipeline.DatasetNames()}
	return schemaObject{"oneOf": []any{name, schemaObject{"type": "array", "items": name}}}
}

// stepSchema is yamlStep.
func stepSchema() schemaObject {
	return object("An event that a condition or a rule selects.", nil, schemaObject{
		"name": textSchema("The name of the step in alerts."), "when": textSchema("The condition of the event."),
		"not":    textSchema("The condition of an event that must not lie between the steps around."),
		"rule":   described(ref("texts"), "Ids of rules: the event is one that they match."),
		"within": described(ref("duration"), "The longest time since the step before."),
		"group":  described(ref("fields"), "The fields that stand for those of the rule's group in this step."),
	})
}

// caseSchema is yamlCase.
func caseSchema() schemaObject {
	return object("A test: events, and whether the rule matches them.", []string{"fires"}, schemaObject{
		"name": textSchema(""), "fires": schemaObject{"type": "boolean", "description": "The rule must match."}, "event": ref("event"),
		"events": ref("caseEvents"),
		"feeds": schemaObject{
			"type": "object", "additionalProperties": ref("texts"), "description": "The feeds that the rules ask, with their indicators: {blocklist: [203.0.113.9]}.",
		},
		"end": described(ref("duration"), "How long the clock runs on behind the last event."),
	})
}

func caseEventsSchema() schemaObject {
	return schemaObject{"type": "array", "maxItems": maxCaseEvents, "items": object("", []string{"event"}, schemaObject{
		"at":     described(schemaObject{"type": "string"}, "When the event began, as a time since the first one: 30s."),
		"repeat": schemaObject{"type": "integer", "minimum": 1, "description": "How often the event comes; {n} in a text is its number."},
		"every":  ref("duration"), "event": ref("event"),
	})}
}

// eventSchema has the fields of a case's event, which may also be nested: {source: {ip: 10.0.0.1}}.
func eventSchema() schemaObject {
	properties := schemaObject{}
	for i := range pipeline.Fields {
		field := &pipeline.Fields[i]
		if !field.Derived && !strings.HasPrefix(field.Name, "verdict.") {
			properties[field.Name] = schemaObject{"description": field.Doc}
		}
	}
	return schemaObject{"type": "object", "properties": properties}
}

// sectionsSchema is yamlFile.
func sectionsSchema() schemaObject {
	named := schemaObject{"pattern": namePattern.String()}
	return object("", nil, schemaObject{
		"shared": schemaObject{"type": "boolean", "description": "The lists and macros are defined in all files."},
		"lists":  schemaObject{"type": "object", "propertyNames": named, "description": "Constants by name, to the right of in, ==, contains, startsWith and endsWith."},
		"macros": schemaObject{"type": "object", "propertyNames": named, "additionalProperties": textSchema(""), "description": "Conditions by name."},
		"rules":  schemaObject{"type": "array", "items": ref("rule")},
	})
}
