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
	for i := 1; i < values.Len(); i++ {
		if i >= pipeline.NumDatasets {
			t.Fatalf("dataset %s has no row in pipeline.Datasets: add it to pipeline/datasets.go", values.Get(i).Name())
		}
		e := &pipeline.Event{
			Id: make([]byte, 16), Dataset: pipeline.Dataset(i), Timestamp: 1e18,
			Source:      &pipeline.Endpoint{Ip: []byte{192, 0, 2, 1}, Port: 40000},
			Destination: &pipeline.Endpoint{Ip: []byte{192, 0, 2, 2}, Port: 11211},
		}
		if pipeline.Datasets[i].HasBody != nil {
			setBody(t, e)
		}
		events = append(events, e)
	}
	return events
}

// setBody adds the body of e's dataset, with "x" as the text of its first text field.
func setBody(t *testing.T, e *pipeline.Event) {
	t.Helper()
	m := e.ProtoReflect()
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		if fields.Get(i).Number() < 30 {
			continue
		}
		body := m.Mutable(fields.Get(i)).Message()
		if !pipeline.Datasets[e.Dataset].HasBody(e) {
			m.Clear(fields.Get(i))
			continue
		}
		inner := body.Descriptor().Fields()
		for j := range inner.Len() {
			if f := inner.Get(j); f.Kind() == protoreflect.StringKind && !f.IsList() {
				body.Set(f, protoreflect.ValueOfString("x"))
				return
			}
		}
		return
	}
	t.Fatalf("dataset %s: HasBody of its row in pipeline.Datasets is true for no body of Event", e.Dataset)
}

// TestEveryDatasetPassesTheWholeWay sends an event of each dataset through what lists or counts by dataset:
// rules, columns, JSON and the documentation. collector/ship has the same test for shedding.
func TestEveryDatasetPassesTheWholeWay(t *testing.T) {
	docs, err := os.ReadFile("../../docs/FIELDS.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range datasetEvents(t) {
		name := e.Dataset.Name()

		// Rules: one that names the dataset, and one that names none.
		checkRuleFires(t, e, fmt.Sprintf("event.dataset == %q", name))
		checkRuleFires(t, e, "destination.port == 11211")

		// Columns: the fields of the body reach the store.
		bare := &pipeline.Event{Id: e.Id, Dataset: e.Dataset, Timestamp: e.Timestamp, Source: e.Source, Destination: e.Destination}
		if with, without := blockBytes(e), blockBytes(bare); pipeline.Datasets[e.Dataset].HasBody != nil && with <= without {
			t.Errorf("%s: %d bytes in the columns with its body, %d without: no column takes a field of the body", name, with, without)
		}

		// JSON: the dataset is named, and the body is there.
		var object map[string]any
		if err := json.Unmarshal(pipeline.AppendJSON(nil, e), &object); err != nil {
			t.Fatal(err)
		}
		if got := object["event"].(map[string]any)["dataset"]; got != name {
			t.Errorf("%s: event.dataset is %v in JSON", name, got)
		}

		// Documentation: a section with the fields of the body.
		if pipeline.Datasets[e.Dataset].HasBody != nil && !strings.Contains(string(docs), "\n## Of `"+name+"`\n") {
			t.Errorf("docs/FIELDS.md has no section for %s: run make golden", name)
		}
	}
}

func checkRuleFires(t *testing.T, e *pipeline.Event, when string) {
	t.Helper()
	text := fmt.Sprintf("rules:\n  - id: r\n    title: t\n    severity: low\n    when: %s\n", when)
	set, err := rules.Compile(rules.Default(), []rules.Source{{Name: "t.yaml", Data: []byte(text)}}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	e.Verdicts = nil
	set.Evaluate([]*pipeline.Event{e})
	if len(e.Verdicts) != 1 {
		t.Errorf("%s: a rule with %s does not fire", e.Dataset.Name(), when)
	}
	e.Verdicts = nil
}

func blockBytes(e *pipeline.Event) int {
	b := clickhouse.NewColumnBlock()
	b.Append(e, pipeline.Position{}, "t")
	return b.Bytes()
}
