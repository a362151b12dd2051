package engine

import (
	"fmt"

	"tidegate/pipeline"
)

// An insertToken names one insert. The store drops an insert whose token it knows, so a token must name the
// same rows each time: the rows of a block, or of a part of it, that are not stored yet.
//
// The block time, which stands in the intent, is part of the token: on a topic that was created anew the
// offsets alone would name an older block too.
type insertToken struct {
	block       pipeline.BlockID
	isPart      bool  // the insert holds only the messages from first to last, after the whole block was rejected
	first, last int64 // offsets
	// retry marks the one insert that stores rows which an insert without it was acknowledged for and that
	// are missing all the same. What is missing after it is not inserted again.
	retry bool
}

// forPart returns the token of the messages from offset first to offset last of the block.
func (t insertToken) forPart(first, last int64) insertToken {
	return insertToken{block: t.block, isPart: true, first: first, last: last}
}

// forRetry returns the token for the rows that are missing although t was acknowledged.
func (t insertToken) forRetry() insertToken {
	t.retry = true
	return t
}

// String returns the token as the store gets it: topic/partition/start-end@time, #first-last for a part, ~
// for a retry.
func (t insertToken) String() string {
	text := fmt.Sprintf("%s/%d/%d-%d@%d", t.block.Topic, t.block.Partition, t.block.Start, t.block.End, t.block.Time)
	if t.isPart {
		text += fmt.Sprintf("#%d-%d", t.first, t.last)
	}
	if t.retry {
		text += "~"
	}
	return text
}
