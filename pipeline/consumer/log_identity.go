package consumer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tidegate/pipeline/kafka"
)

// ErrLogReplaced ends a Fetcher whose partition has another log than before: the topic was deleted and created
// again, or the end of the log was lost. Offsets name other messages now.
//
// Kafka's id of a topic would show the first case only, and kafka-go does not return it. So the fetcher remembers a
// record batch that it has read, and looks whether the log still holds it.
var ErrLogReplaced = errors.New("the log is not the one that was read before")

// A logMark identifies a record batch of the log.
type logMark struct {
	first, last int64
	checksum    uint32
}

// markOf returns the mark of a batch. ok is false if the batch has no checksum.
func markOf(batch kafka.RecordBatch) (mark logMark, ok bool) {
	checksum, ok := batch.Checksum()
	return logMark{batch.First, batch.Last, checksum}, ok
}

// Times after which the log is compared with its mark: after a pause without a request, in which a topic can be deleted
// and created unnoticed, but not more often than minCheckInterval, and at the latest after maxCheckInterval.
const (
	longPause        = 100 * time.Millisecond
	minCheckInterval = 500 * time.Millisecond
	maxCheckInterval = 10 * time.Second
)

// A logIdentity recognises the log of a partition.
type logIdentity struct {
	anchor logMark // of a batch that was read before the log was compared last; the zero mark if there is none
	newest logMark // of the newest batch that was read; the zero mark if there is none

	answered  time.Time // when the broker answered last
	compared  time.Time // when the log was compared with anchor
	isInDoubt bool      // since then a request has failed, or there was a pause
}

// begin takes the batch before next as the mark.
func (i *logIdentity) begin(ctx context.Context, p *Partition, next int64) error {
	i.answered, i.compared = time.Now(), time.Now()
	if next <= 0 {
		return nil
	}
	batch, found, err := p.readBatchAt(ctx, next-1)
	if found {
		i.addBatch(batch)
	}
	return err
}

// addBatch makes batch the newest mark.
func (i *logIdentity) addBatch(batch kafka.RecordBatch) {
	if mark, ok := markOf(batch); ok {
		i.newest = mark
		if i.anchor == (logMark{}) {
			i.anchor = mark
		}
	}
}

// beginRequest is called before each request.
func (i *logIdentity) beginRequest() {
	now := time.Now()
	if now.Sub(i.answered) > longPause && now.Sub(i.compared) > minCheckInterval {
		i.isInDoubt = true
	}
}

// compare is called after each answer, before its records are used. It returns ErrLogReplaced if the log does not
// hold the batch of the anchor although retention has not removed it.
func (i *logIdentity) compare(ctx context.Context, p *Partition) error {
	i.answered = time.Now()
	if !i.isInDoubt && i.answered.Sub(i.compared) < maxCheckInterval {
		return nil
	}
	// Retention may have removed the anchor, but rarely the newest batch too.
	for _, mark := range []logMark{i.anchor, i.newest} {
		found, err := mark.compare(ctx, p)
		if err != nil {
			return err
		}
		if found {
			break
		}
	}
	i.anchor = i.newest
	i.compared, i.answered, i.isInDoubt = time.Now(), time.Now(), false
	return nil
}

// compare looks whether the log holds the batch of the mark. found is false if retention has removed it, or the mark
// is the zero mark.
func (m logMark) compare(ctx context.Context, p *Partition) (found bool, err error) {
	if m == (logMark{}) {
		return false, nil
	}
	batch, found, err := p.readBatchAt(ctx, m.last)
	if err != nil {
		return false, err
	}
	if found {
		if mark, ok := markOf(batch); ok && mark != m {
			return false, fmt.Errorf("%w: it has another record batch at offset %d", ErrLogReplaced, m.last)
		}
		return true, nil
	}
	_, end, err := p.Bounds(ctx)
	if err == nil && m.last >= end {
		err = fmt.Errorf("%w: it ends at offset %d, %d was read", ErrLogReplaced, end, m.last)
	}
	return false, err
}
