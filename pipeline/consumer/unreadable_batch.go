package consumer

import (
	"context"
	"errors"
	"strings"

	"tidegate/pipeline/kafka"
)

// skipAfterAttempts is the number of times that an unreadable batch is fetched before it is skipped. They
// take some seconds.
const skipAfterAttempts = 7

// errNoRecord is the error of a fetch that returns no record before the end of the log. The batch there is of
// another kind (the end of a transaction) or has fewer records than its header claims. It is skipped only if
// a record follows, so that nothing is lost if a broker answers like this for another reason.
var errNoRecord = errors.New("there is no record where the log has not ended")

// isUnreadable reports whether the record batch itself is the cause of err.
func isUnreadable(err error) bool {
	return errors.Is(err, kafka.ErrUnreadable) || errors.Is(err, errNoRecord) ||
		err != nil && strings.Contains(err.Error(), "crc32 checksum mismatch")
}

// skipUnreadable finds the end of the unreadable batch at from, and reports its offsets as skipped in chunk.
// The length of the batch is in a header that kafka-go does not return, so the end is searched for: it is the
// first offset whose fetch does not fail with the same error as from.
func (p *Partition) skipUnreadable(ctx context.Context, from int64, cfg FetchConfig, chunk *Chunk, cause error) error {
	_, end, err := p.Bounds(ctx)
	if err != nil {
		return err
	}
	sameBatch := func(offset int64) (bool, error) {
		_, err := p.fetchOnce(ctx, offset, cfg)
		if err == nil || isUnreadable(err) {
			return err != nil && err.Error() == cause.Error(), nil
		}
		return false, err
	}

	// Invariant of both loops: inside is an offset of the batch, behind is not one.
	inside, behind := from, end

	// Move inside forward in doubling steps until one step leads out of the batch.
	for step := int64(1); inside+step < end; step *= 2 {
		same, err := sameBatch(inside + step)
		if err != nil {
			return err
		}
		if !same {
			behind = inside + step
			break
		}
		inside += step
	}

	// Bisect until inside and behind are neighbours.
	for inside+1 < behind {
		middle := inside + (behind-inside)/2
		same, err := sameBatch(middle)
		if err != nil {
			return err
		}
		if same {
			inside = middle
		} else {
			behind = middle
		}
	}

	// No record follows a batch without records: keep the error and try again.
	if behind == end && errors.Is(cause, errNoRecord) {
		return cause
	}
	p.log.Error("unreadable record batch skipped",
		"topic", p.cfg.Topic, "partition", p.ID, "from", from, "to", behind, "err", cause)
	*chunk = Chunk{Skipped: behind - from, End: end}
	return nil
}
