package engine

import (
	"fmt"

	"tidegate/pipeline"
)

// An insertToken is the deduplication token of one insert. The store drops an insert whose token it has seen,
// so a token always stands for the same rows: those of a block, or of a part of a block, that are not stored
// yet.
//
// The token contains the block time, which the intent preserves. Offsets alone are ambiguous: a topic that
// was deleted and created again has other messages at the same offsets.
type insertToken struct {
	block       pipeline.BlockID
	isPart      bool  // the whole block was rejected; the insert holds only the messages first to last
	first, last int64 // offsets
	// retry marks the second insert of rows that are missing although their first insert was acknowledged.
	// Rows that are missing after a retry are not inserted again.
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

// String returns the token in the form that the store receives: topic/partition/start-end@time, followed by
// #first-last for a part and ~ for a retry.
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
