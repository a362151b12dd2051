package ship

import "tidegate/pipeline"

// shedAt is the declared order in which events of the wire are shed, by the share of their memory (in percent) that is taken:
// bodies first, then what is only said in part, then the protocols, then sessions, and what happens to containers last. What is
// shed is counted by dataset and reason, and no counter is ever shed. Events that can wait (logs) never are.
var shedAt = [datasets]int64{
	pipeline.Dataset_DATASET_NONE: 50,
	pipeline.Dataset_FILE:         50,
	pipeline.Dataset_DNS:          75,
	pipeline.Dataset_HTTP:         75,
	pipeline.Dataset_MYSQL:        75,
	pipeline.Dataset_REDIS:        75,
	pipeline.Dataset_TLS:          75,
	pipeline.Dataset_SESSION:      90,
	pipeline.Dataset_LOG:          100,
	pipeline.Dataset_CONTAINER:    100,
}

// shedPartialAt is for events of which bytes were never seen.
const shedPartialAt = 50

// sheds tells whether e has to go while used bytes of limit are taken.
func sheds(e *pipeline.Event, used, limit int64) bool {
	at := shedAt[dataset(e)]
	if e.Partial && e.Dataset != pipeline.Dataset_SESSION {
		at = min(at, shedPartialAt)
	}
	return used*100 >= limit*at
}
