package ship

import "tidegate/pipeline"

// shedPartialAt is for events of which bytes were never seen.
const shedPartialAt = 50

// sheds tells whether e has to go while used bytes of limit are taken.
func sheds(e *pipeline.Event, used, limit int64) bool {
	at := pipeline.Datasets[e.Dataset.Index()].ShedAt
	if e.Partial && e.Dataset != pipeline.Dataset_SESSION {
		at = min(at, shedPartialAt)
	}
	return used*100 >= limit*at
}
