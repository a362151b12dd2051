package pipeline

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// TestEveryDatasetHasARow walks the enum Dataset of event.proto: each value has a complete row in Datasets.
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
			t.Fatalf("%s is number %d, not %d: the numbers of datasets have no gaps, since they are indexes", value.Name(), value.Number(), i)
		}
		if i > 0 && (row.Name != strings.ToLower(string(value.Name())) || row.Doc == "") {
			t.Errorf("pipeline.Datasets, row of %s: want its Name %q and a Doc, have %q, %q",
				value.Name(), strings.ToLower(string(value.Name())), row.Name, row.Doc)
		}
		if row.ShedAt < 1 || row.ShedAt > 100 {
			t.Errorf("pipeline.Datasets, row of %s: ShedAt is %d; use ShedFirst, ShedProtocols, ShedSessions or ShedLast", value.Name(), row.ShedAt)
		}
		if d := Dataset(i); d.Index() != i || DatasetByName(d.Name()) != d {
			t.Errorf("%s: index %d, by name %v", value.Name(), d.Index(), DatasetByName(d.Name()))
		}
	}
	if Dataset(NumDatasets).Index() != 0 || Dataset(-1).Index() != 0 || Dataset(99).Name() != "" {
		t.Error("a dataset that this binary does not have is not row 0")
	}
}

// TestEveryBodyBelongsToADataset walks the bodies of Event in event.proto (numbers from 30 on): each is the
// body of exactly one dataset, and the fields of that dataset are in Fields.
func TestEveryBodyBelongsToADataset(t *testing.T) {
	fields := (&Event{}).ProtoReflect().Descriptor().Fields()
	owners := map[Dataset]protoreflect.Name{}
	for i := range fields.Len() {
		body := fields.Get(i)
		if body.Number() < 30 {
			continue
		}
		e := &Event{}
		e.ProtoReflect().Mutable(body)

		var found []Dataset
		for d := range Datasets {
			if has := Datasets[d].HasBody; has != nil && has(e) {
				found = append(found, Dataset(d))
			}
		}
		if len(found) != 1 {
			t.Errorf("Event.%s is the body of %v: the HasBody of exactly one row of pipeline.Datasets must report it", body.Name(), found)
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
			t.Errorf("pipeline.Fields has no row with Body %s: add one for each field of Event.%s", found[0], body.Name())
		}
	}
	for d := range Datasets {
		if Datasets[d].HasBody != nil && owners[Dataset(d)] == "" {
			t.Errorf("pipeline.Datasets, row of %s: no body of Event makes HasBody true", Dataset(d))
		}
	}
}
