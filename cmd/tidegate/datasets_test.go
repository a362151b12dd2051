package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"tidegate/detectors/rules"
	"tidegate/pipeline"
	"tidegate/pipeline/clickhouse"
)

// datasetEvents returns one event of each dataset of event.proto. The body of the dataset has a value in its
// first text field.
func datasetEvents(t *testing.T) []*pipeline.Event {
	t.Helper()
	var events []*pipeline.Event
	values := pipeline.Dataset(0).Descriptor().Values()
	for number := 1; number < values.Len(); number++ {
		if number >= pipeline.NumDatasets {
			t.Fatalf("dataset %s has no row in pipeline.Datasets: add it to pipeline/datasets.go",
				values.Get(number).Name())
		}
		event := &pipeline.Event{
			Id: make([]byte, 16), Dataset: pipeline.Dataset(number), Timestamp: 1e18,
			Source:      &pipeline.Endpoint{Ip: []byte{192, 0, 2, 1}, Port: 40000},
			Destination: &pipeline.Endpoint{Ip: []byte{192, 0, 2, 2}, Port: 11211},
		}
		if pipeline.Datasets[number].HasBody != nil {
			setBody(t, event)
		}
		events = append(events, event)
	}
	return events
}

// setBody adds the body of the event's dataset, with "x" in its first text field.
func setBody(t *testing.T, event *pipeline.Event) {
	t.Helper()
	message := event.ProtoReflect()
	fields := message.Descriptor().Fields()
	for i := range fields.Len() {
		bodyField := fields.Get(i)
		if bodyField.Number() < 30 {
			continue // a field that all datasets share
		}
		body := message.Mutable(bodyField).Message()
		if !pipeline.Datasets[event.Dataset].HasBody(event) {
			message.Clear(bodyField) // the body of another dataset
			continue
		}
		inner := body.Descriptor().Fields()
		for j := range inner.Len() {
			if field := inner.Get(j); field.Kind() == protoreflect.StringKind && !field.IsList() {
				body.Set(field, protoreflect.ValueOfString("x"))
				return
			}
		}
		return
	}
	t.Fatalf("dataset %s: HasBody of its row in pipeline.Datasets is true for no body of Event", event.Dataset)
}

// TestEveryDatasetReachesRulesColumnsAndJSON requires that an event of each dataset fires rules, reaches the
// columns of the store and the JSON form, and is documented. collector/ship has the same test for shedding.
func TestEveryDatasetReachesRulesColumnsAndJSON(t *testing.T) {
	docs, err := os.ReadFile("../../docs/FIELDS.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, event := range datasetEvents(t) {
		name := event.Dataset.Name()

		// Rules: one that names the dataset, and one that names none.
		checkRuleFires(t, event, fmt.Sprintf("event.dataset == %q", name))
		checkRuleFires(t, event, "destination.port == 11211")

		// Columns: the fields of the body reach the store.
		bare := &pipeline.Event{
			Id: event.Id, Dataset: event.Dataset, Timestamp: event.Timestamp,
			Source: event.Source, Destination: event.Destination,
		}
		with, without := blockBytes(event), blockBytes(bare)
		if pipeline.Datasets[event.Dataset].HasBody != nil && with <= without {
			t.Errorf("%s: %d bytes in the columns with its body, %d without: no column holds a field of the body",
				name, with, without)
		}

		// JSON: the dataset has its name.
		var object map[string]any
		if err := json.Unmarshal(pipeline.AppendJSON(nil, event), &object); err != nil {
			t.Fatal(err)
		}
		if got := object["event"].(map[string]any)["dataset"]; got != name {
			t.Errorf("%s: event.dataset is %v in JSON", name, got)
		}

		// Documentation: a section with the fields of the body.
		if pipeline.Datasets[event.Dataset].HasBody != nil && !strings.Contains(string(docs), "\n## Of `"+name+"`\n") {
			t.Errorf("docs/FIELDS.md has no section for %s: run make golden", name)
		}
	}
}

// checkRuleFires requires that a rule with a condition fires on an event.
func checkRuleFires(t *testing.T, event *pipeline.Event, condition string) {
	t.Helper()
	text := fmt.Sprintf("rules:\n  - id: r\n    title: t\n    severity: low\n    when: %s\n", condition)
	set, err := rules.Compile(rules.Default(), []rules.Source{{Name: "t.yaml", Data: []byte(text)}}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	event.Verdicts = nil
	set.Evaluate([]*pipeline.Event{event})
	if len(event.Verdicts) != 1 {
		t.Errorf("%s: a rule with %s does not fire", event.Dataset.Name(), condition)
	}
	event.Verdicts = nil
}

// blockBytes returns the size of a column block with one event.
func blockBytes(event *pipeline.Event) int {
	block := clickhouse.NewColumnBlock()
	block.Append(event, pipeline.Position{}, "t")
	return block.Bytes()
}
