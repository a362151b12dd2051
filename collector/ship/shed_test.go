package ship

import (
	"testing"

	"tidegate/pipeline"
)

// TestEveryDatasetIsShedWhereItsRowSays checks every value of the enum in event.proto: an event is shed from
// the fill of the packets' memory that its row in pipeline.Datasets names, and counted under its own dataset.
func TestEveryDatasetIsShedWhereItsRowSays(t *testing.T) {
	values := pipeline.Dataset(0).Descriptor().Values()
	for i := range values.Len() {
		if i >= pipeline.NumDatasets {
			t.Fatalf("dataset %s has no row in pipeline.Datasets: add it to pipeline/datasets.go", values.Get(i).Name())
		}
		event := &pipeline.Event{Dataset: pipeline.Dataset(i)}
		at := pipeline.Datasets[i].ShedAt
		if shouldShed(event, at-1, 100) || !shouldShed(event, at, 100) {
			t.Errorf("%s: not shed exactly from %d %% on", event.Dataset.Name(), at)
		}
		if datasetIndex(event) != i {
			t.Errorf("%s: counted as dataset %d", event.Dataset.Name(), datasetIndex(event))
		}
	}
}
