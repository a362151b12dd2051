package consumer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tidegate/pipeline/kafka"
)

// A Partition is one partition of the topic, for as long as this process owns it. One goroutine calls its
// methods. Each method retries temporary errors until ctx ends.
type Partition struct {
	ID int

	cfg        Config
	log        *slog.Logger
	generation int
	member     string
}

// Topic returns the full name of the topic.
func (p *Partition) Topic() string { return p.cfg.Topic }

// Committed returns the offset that the group committed last, or -1 if there is none, and the metadata that
// was committed with it.
func (p *Partition) Committed(ctx context.Context) (offset int64, metadata string, err error) {
	err = p.cfg.retry(ctx, p.log, "fetch committed offset of "+p.String(), func() error {
		response, err := p.cfg.Client.Kafka().OffsetFetch(ctx, &kafkago.OffsetFetchRequest{
			GroupID: p.cfg.Group, Topics: map[string][]int{p.cfg.Topic: {p.ID}},
		})
		if err != nil {
			return err
		}
		if errors.Is(response.Error, kafkago.GroupIdNotFound) { // the response of kfake where Kafka returns -1
			offset, metadata = -1, ""
			return nil
		}
		if response.Error != nil {
			return response.Error
		}
		for _, answer := range response.Topics[p.cfg.Topic] {
			if answer.Partition == p.ID {
				offset, metadata = answer.CommittedOffset, answer.Metadata
				return answer.Error
			}
		}
		return errors.New("the response does not name the partition")
	})
	return offset, metadata, err
}

// Commit makes offset and metadata durable under this generation. It returns ErrFenced when the generation is
// over.
func (p *Partition) Commit(ctx context.Context, offset int64, metadata string) error {
	return p.cfg.retry(ctx, p.log, "commit offset of "+p.String(), func() error { return p.commitOnce(ctx, offset, metadata) })
}

// commitOnce sends one commit. It reads the partition's own error, because kafka-go returns nil when the
// broker fences the generation.
func (p *Partition) commitOnce(ctx context.Context, offset int64, metadata string) error {
	response, err := p.cfg.Client.Kafka().OffsetCommit(ctx, &kafkago.OffsetCommitRequest{
		GroupID: p.cfg.Group, GenerationID: p.generation, MemberID: p.member,
		Topics: map[string][]kafkago.OffsetCommit{p.cfg.Topic: {{Partition: p.ID, Offset: offset, Metadata: metadata}}},
	})
	if err != nil {
		return err
	}
	for _, answer := range response.Topics[p.cfg.Topic] {
		if answer.Partition != p.ID {
			continue
		}
		switch {
		case errors.Is(answer.Error, kafkago.IllegalGeneration), errors.Is(answer.Error, kafkago.UnknownMemberId),
			errors.Is(answer.Error, kafkago.RebalanceInProgress):
			return fmt.Errorf("%w: %w", ErrFenced, answer.Error)
		default:
			return answer.Error
		}
	}
	return errors.New("the response does not name the partition")
}

// Bounds returns the first offset that is still stored, and the offset behind the last.
func (p *Partition) Bounds(ctx context.Context) (first, end int64, err error) {
	err = p.cfg.retry(ctx, p.log, "list offsets of "+p.String(), func() error {
		offsets, err := p.listOffsets(ctx, kafkago.FirstOffsetOf(p.ID), kafkago.LastOffsetOf(p.ID))
		first, end = offsets.FirstOffset, offsets.LastOffset
		return err
	})
	return first, end, err
}

// ReadRecord returns the record at offset. found is false if the log has no record there, or none that can be read.
func (p *Partition) ReadRecord(ctx context.Context, offset int64) (record Record, found bool, err error) {
	batch, found, err := p.readBatchAt(ctx, offset)
	if err != nil || !found {
		return record, false, err
	}
	records, err := p.readBatch(batch, offset)
	if err != nil || len(records) == 0 || records[0].Offset != offset {
		return record, false, nil //nolint:nilerr // it cannot be read
	}
	return records[0], true, nil
}

// readBatchAt returns the record batch that holds offset. found is false if the log has none.
func (p *Partition) readBatchAt(ctx context.Context, offset int64) (batch kafka.RecordBatch, found bool, err error) {
	err = p.cfg.retry(ctx, p.log, "read a record of "+p.String(), func() error {
		// A broker returns at least one whole batch, however low the limit.
		response, err := p.cfg.Client.Fetch(ctx, kafka.FetchRequest{
			Topic: p.cfg.Topic, Partition: p.ID, Offset: offset, MaxBytes: 1, MaxWait: 100 * time.Millisecond,
		})
		if errors.Is(err, kafkago.OffsetOutOfRange) {
			return nil
		}
		if err != nil {
			return err
		}
		for {
			batch, found = response.NextBatch()
			if !found || batch.Last >= offset {
				found = found && batch.First <= offset
				return nil
			}
		}
	})
	return batch, found, err
}

// OffsetAt returns the first offset whose record is not older than t, or the end of the partition if there is
// none.
func (p *Partition) OffsetAt(ctx context.Context, t time.Time) (offset int64, err error) {
	err = p.cfg.retry(ctx, p.log, "seek by time in "+p.String(), func() error {
		offsets, err := p.listOffsets(ctx, kafkago.TimeOffsetOf(p.ID, t))
		offset = -1
		for found := range offsets.Offsets { // at most one
			offset = found
		}
		return err
	})
	if err == nil && offset < 0 {
		_, offset, err = p.Bounds(ctx)
	}
	return offset, err
}

// listOffsets sends one request for each question, because brokers reject a request that names a partition
// twice, and returns the responses merged into one value.
func (p *Partition) listOffsets(
	ctx context.Context, questions ...kafkago.OffsetRequest,
) (sum kafkago.PartitionOffsets, err error) {
	for _, question := range questions {
		response, err := p.cfg.Client.Kafka().ListOffsets(ctx, &kafkago.ListOffsetsRequest{
			Topics: map[string][]kafkago.OffsetRequest{p.cfg.Topic: {question}},
		})
		if err != nil {
			return sum, err
		}
		for _, answer := range response.Topics[p.cfg.Topic] {
			if answer.Error != nil {
				return sum, answer.Error
			}
			switch question.Timestamp {
			case kafkago.FirstOffset:
				sum.FirstOffset = answer.FirstOffset
			case kafkago.LastOffset:
				sum.LastOffset = answer.LastOffset
			default:
				sum.Offsets = answer.Offsets
			}
		}
	}
	return sum, nil
}

// String returns topic/partition, for logs.
func (p *Partition) String() string { return fmt.Sprintf("%s/%d", p.cfg.Topic, p.ID) }
