package ship

import "tidegate/pipeline"

// sheds reports whether e has to be dropped while used bytes of limit are taken. Datasets are dropped in the
// order of pipeline.DatasetInfo.ShedAt. An event of which bytes were never seen is dropped first, unless it
// is a session: the counts of a partial session are still right.
func sheds(e *pipeline.Event, used, limit int64) bool {
	at := pipeline.Datasets[e.Dataset.Index()].ShedAt
	if e.Partial && e.Dataset != pipeline.Dataset_SESSION {
		at = min(at, pipeline.ShedFirst)
	}
	return used*100 >= limit*at
}
