package ship

import "tidegate/pipeline"

// shouldShed reports whether e must be dropped while used bytes of limit are taken. Datasets are dropped in
// the order of pipeline.DatasetInfo.ShedAt. Partial events, whose parser missed bytes, are dropped first.
// Partial sessions are not: their byte counts are still right.
func shouldShed(e *pipeline.Event, used, limit int64) bool {
	at := pipeline.Datasets[e.Dataset.Index()].ShedAt
	if e.Partial && e.Dataset != pipeline.Dataset_SESSION {
		at = min(at, pipeline.ShedFirst)
	}
	return used*100 >= limit*at
}
