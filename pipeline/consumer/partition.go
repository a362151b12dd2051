package consumer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/segmentio/kafka-go"
)

// A Partition is one partition of the topic for as long as this process owns it. Its methods are called by one goroutine.
type Partition struct {
	ID int

	cfg        Config
	log        *slog.Logger
	generation int
	member     string
}

// Topic is the full name of the topic.
func (p *Partition) Topic() string { return p.cfg.Topic }

// Committed asks where the group was left: the offset, -1 for nowhere yet, and the metadata that was committed with it.
func (p *Partition) Committed(ctx context.Context) (offset int64, metadata string, err error) {
	err = Retry(ctx, p.log, "fetch committed offset of "+p.String(), func() error {
		r, err := p.cfg.Client.Kafka().OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: p.cfg.Group, Topics: map[string][]int{p.cfg.Topic: {p.ID}}})
		if err != nil {
			return err
		}
		if errors.Is(r.Error, kafka.GroupIdNotFound) { // kfake says so where Kafka answers -1
			offset, metadata = -1, ""
			return nil
		}
		if r.Error != nil {
			return r.Error
		}
		for _, q := range r.Topics[p.cfg.Topic] {
			if q.Partition == p.ID {
				offset, metadata = q.CommittedOffset, q.Metadata
				return q.Error
			}
		}
		return errors.New("the answer does not name the partition")
	})
	return offset, metadata, err
}

// Commit makes offset and metadata durable under this generation. Errors that pass are retried until ctx ends.
func (p *Partition) Commit(ctx context.Context, offset int64, metadata string) error {
	return Retry(ctx, p.log, "commit offset of "+p.String(), func() error { return p.commit(ctx, offset, metadata) })
}

// commit reads the partition's own error: kafka-go returns nil when the broker has fenced the generation.
func (p *Partition) commit(ctx context.Context, offset int64, metadata string) error {
	r, err := p.cfg.Client.Kafka().OffsetCommit(ctx, &kafka.OffsetCommitRequest{
		GroupID: p.cfg.Group, GenerationID: p.generation, MemberID: p.member,
		Topics: map[string][]kafka.OffsetCommit{p.cfg.Topic: {{Partition: p.ID, Offset: offset, Metadata: metadata}}},
	})
	if err != nil {
		return err
	}
	for _, q := range r.Topics[p.cfg.Topic] {
		if q.Partition != p.ID {
			continue
		}
		switch {
		case errors.Is(q.Error, kafka.IllegalGeneration), errors.Is(q.Error, kafka.UnknownMemberId), errors.Is(q.Error, kafka.RebalanceInProgress):
			return fmt.Errorf("%w: %w", ErrFenced, q.Error)
		default:
			return q.Error
		}
	}
	return errors.New("the answer does not name the partition")
}

// Bounds asks for the first offset that is still kept and the one behind the last.
func (p *Partition) Bounds(ctx context.Context) (first, end int64, err error) {
	err = Retry(ctx, p.log, "list offsets of "+p.String(), func() error {
		q, err := p.listOffsets(ctx, kafka.FirstOffsetOf(p.ID), kafka.LastOffsetOf(p.ID))
		first, end = q.FirstOffset, q.LastOffset
		return err
	})
	return first, end, err
}

// OffsetAt asks for the first offset whose record is not older than t; the end where there is none.
func (p *Partition) OffsetAt(ctx context.Context, t time.Time) (offset int64, err error) {
	err = Retry(ctx, p.log, "seek by time in "+p.String(), func() error {
		q, err := p.listOffsets(ctx, kafka.TimeOffsetOf(p.ID, t))
		offset = -1
		for o := range q.Offsets {
			offset = o
		}
		return err
	})
	if err == nil && offset < 0 {
		_, offset, err = p.Bounds(ctx)
	}
	return offset, err
}

// listOffsets asks one question at a time: brokers refuse a partition that is named twice in one request.
func (p *Partition) listOffsets(ctx context.Context, questions ...kafka.OffsetRequest) (sum kafka.PartitionOffsets, err error) {
	for _, q := range questions {
		r, err := p.cfg.Client.Kafka().ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{p.cfg.Topic: {q}}})
		if err != nil {
			return sum, err
		}
		for _, a := range r.Topics[p.cfg.Topic] {
			if a.Error != nil {
				return sum, a.Error
			}
			switch q.Timestamp {
			case kafka.FirstOffset:
				sum.FirstOffset = a.FirstOffset
			case kafka.LastOffset:
				sum.LastOffset = a.LastOffset
			default:
				sum.Offsets = a.Offsets
			}
		}
	}
	return sum, nil
}

// String names the partition in logs.
func (p *Partition) String() string { return fmt.Sprintf("%s/%d", p.cfg.Topic, p.ID) }
