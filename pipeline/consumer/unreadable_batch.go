package consumer

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"tidegate/pipeline/kafka"
	"tidegate/pipeline/retry"
)

// retriesOfDamaged is the number of times that a batch with a wrong checksum is fetched again before it counts as
// unreadable, and damagePause the pause before each.
const (
	retriesOfDamaged = 6
	damagePause      = 500 * time.Millisecond
)

// pauseAfterDamage waits before a damaged batch is fetched again.
func (p *Partition) pauseAfterDamage(ctx context.Context) error { return retry.Sleep(ctx, damagePause) }

// readBatch returns the records of a batch from an offset on. A panic of a decompressor is an error of the batch.
func (p *Partition) readBatch(batch kafka.RecordBatch, from int64) (records []Record, err error) {
	defer func() {
		if r := recover(); r != nil {
			records, err = nil, fmt.Errorf("%w: the decompressor panicked: %v", kafka.ErrUnreadable, r)
		}
	}()
	return batch.Records(from)
}

// unreadableBatch returns a record that stands for a batch that can never be read: it is far too large, or not
// in the format of its codec. Its value is the batch as Kafka stores it, so that it can become a dead letter.
func (p *Partition) unreadableBatch(batch kafka.RecordBatch, from int64, err error) Record {
	p.log.Error("record batch is unreadable",
		"topic", p.cfg.Topic, "partition", p.ID, "from", max(from, batch.First), "to", batch.Last, "err", err)
	return Record{Offset: batch.Last, Value: bytes.Clone(batch.Data), Err: err}
}
