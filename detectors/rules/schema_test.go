package rules

import (
	"bytes"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"

	shipped "tidegate/rules"
)

// schemaOfFiles returns the compiled schema.
func schemaOfFiles(t *testing.T) *jsonschema.Schema {
	t.Helper()
	text, err := JSONSchema()
	if err != nil {
		t.Fatal(err)
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("rules.json", document); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile("rules.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// TestSchemaTakesWhatCompiles: the shipped rules are valid under the schema, and files with mistakes that compile errors name
// are not.
func TestSchemaTakesWhatCompiles(t *testing.T) {
	schema := schemaOfFiles(t)
	check := func(name string, data []byte, want bool) {
		t.Helper()
		var value any
		if err := yaml.Unmarshal(data, &value); err != nil {
			t.Fatal(name, err)
		}
		if err := schema.Validate(value); (err == nil) != want {
			t.Errorf("%s: valid %v, want %v: %v", name, err == nil, want, err)
		}
	}
	sources, _, err := Read(shipped.Files, shippedPrefix)
	if err != nil {
		t.Fatal(err)
	}
	for _, source := range sources {
		check(source.Name, source.Data, true)
	}

	const rule = "id: a\ntitle: t\nseverity: low\nwhen: message == \"x\"\n"
	check("one rule", []byte(rule), true)
	check("values with a name", []byte(rule+"let: {user: lower(message)}\ngroup: [user, source.ip]\n"), true)
	check("let without names", []byte(rule+"let: lower(message)\n"), false)
	check("a name of let", []byte(rule+"let: {User.x: lower(message)}\n"), false)
	for name, line := range map[string]string{
		"an unknown key": "sevrity: low", "a severity": "severity: urgent", "a score": "score: 101", "a dataset": "dataset: htp",
		"a field": "group: [source.ipp]", "a case": "tests: [{event: {message: x}}]", "a window": "within: soon",
		"a step": "sequence: [{name: a, whan: x}, {name: b, when: y}]", "one step": "sequence: [{name: a, when: x}]",
	} {
		text := rule
		if strings.HasPrefix(line, "severity") {
			text = strings.Replace(rule, "severity: low", line, 1)
		} else {
			text += line + "\n"
		}
		check(name, []byte(text), false)
	}
	check("without a title", []byte("id: a\nseverity: low\nwhen: 'true'\n"), false)
}

// TestSchemaHasTheKeysOfTheFiles: those of the structs into which files are decoded.
func TestSchemaHasTheKeysOfTheFiles(t *testing.T) {
	keys := func(types ...any) (names []string) {
		for _, of := range types {
			for field := range reflect.TypeOf(of).Fields() {
				if tag := field.Tag.Get("yaml"); tag != "" && !strings.HasPrefix(tag, ",") {
					names = append(names, tag)
				}
			}
		}
		slices.Sort(names)
		return names
	}
	properties := func(schema schemaObject) []string {
		return slices.Sorted(maps.Keys(schema["properties"].(schemaObject)))
	}
	check := func(name string, schema schemaObject, types ...any) {
		t.Helper()
		if got, want := properties(schema), keys(types...); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	rule := ruleSchema()
	check("rule", rule, yamlRule{}, yamlCorrelation{})
	check("step", stepSchema(), yamlStep{})
	check("case", caseSchema(), yamlCase{})
	check("events of a case", caseEventsSchema()["items"].(schemaObject), yamlCaseEvent{})
	check("file", sectionsSchema(), yamlFile{})
	of := rule["properties"].(schemaObject)
	check("distinct", of["distinct"].(schemaObject), yamlDistinct{})
	check("sum", of["sum"].(schemaObject), yamlSum{})
	check("average", of["average"].(schemaObject), yamlAverage{})
	check("percentile", of["percentile"].(schemaObject), yamlPercentile{})
	check("first_seen", of["first_seen"].(schemaObject), yamlFirstSeen{})
	check("interval", of["interval"].(schemaObject), yamlInterval{})
	check("sequence", of["sequence"].(schemaObject)["oneOf"].([]any)[1].(schemaObject), yamlSequence{})
}
