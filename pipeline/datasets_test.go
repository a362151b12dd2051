package pipeline

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// TestEveryDatasetHasARow: each value of the enum Dataset of event.proto has a complete row in Datasets.
func TestEveryDatasetHasARow(t *testing.T) {
	values := Dataset(0).Descriptor().Values()
	if values.Len() != NumDatasets {
		t.Fatalf("event.proto has %d datasets and pipeline.Datasets has %d rows: add a row for %s to pipeline/datasets.go",
			values.Len(), NumDatasets, values.Get(values.Len()-1).Name())
	}
	for i := range values.Len() {
		value := values.Get(i)
		row := &Datasets[i]
		if int(value.Number()) != i {
			t.Fatalf("%s is number %d, not %d: the numbers of datasets have no gaps, since they are indexes",
				value.Name(), value.Number(), i)
		}
		if i > 0 && (row.Name != strings.ToLower(string(value.Name())) || row.Doc == "") {
			t.Errorf("pipeline.Datasets, row of %s: want its Name %q and a Doc, have %q, %q",
				value.Name(), strings.ToLower(string(value.Name())), row.Name, row.Doc)
		}
		if row.ShedAt < 1 || row.ShedAt > 100 {
			t.Errorf("pipeline.Datasets, row of %s: ShedAt is %d; use ShedFirst, ShedProtocols, ShedSessions or ShedLast",
				value.Name(), row.ShedAt)
		}
		if dataset := Dataset(i); dataset.Index() != i || DatasetByName(dataset.Name()) != dataset {
			t.Errorf("%s: index %d, by name %v", value.Name(), dataset.Index(), DatasetByName(dataset.Name()))
		}
	}
	if Dataset(NumDatasets).Index() != 0 || Dataset(-1).Index() != 0 || Dataset(99).Name() != "" {
		t.Error("a dataset that this binary does not have is not row 0")
	}
}

// TestEveryBodyBelongsToADataset: each body of Event in event.proto (its number is 30 or higher) is the body
// of exactly one dataset, and the fields of that dataset are in Fields.
func TestEveryBodyBelongsToADataset(t *testing.T) {
	fields := (&Event{}).ProtoReflect().Descriptor().Fields()
	owners := map[Dataset]protoreflect.Name{}
	for i := range fields.Len() {
		body := fields.Get(i)
		if body.Number() < 30 {
			continue
		}
		event := &Event{}
		event.ProtoReflect().Mutable(body)

		var found []Dataset
		for dataset := range Datasets {
			if has := Datasets[dataset].HasBody; has != nil && has(event) {
				found = append(found, Dataset(dataset))
			}
		}
		if len(found) != 1 {
			t.Errorf("Event.%s is the body of %v: the HasBody of exactly one row of pipeline.Datasets must report it",
				body.Name(), found)
			continue
		}
		owners[found[0]] = body.Name()

		count := 0
		for j := range Fields {
			if Fields[j].Body == found[0] {
				count++
			}
		}
		if count == 0 {
			t.Errorf("pipeline.Fields has no row with Body %s: add one for each field of Event.%s",
				found[0], body.Name())
		}
	}
	for dataset := range Datasets {
		if Datasets[dataset].HasBody != nil && owners[Dataset(dataset)] == "" {
			t.Errorf("pipeline.Datasets, row of %s: no body of Event makes HasBody true", Dataset(dataset))
		}
	}
}
