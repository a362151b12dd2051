package clickhouse

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"tidegate/pipeline"
)

// The queries of this file restore the state of an engine that takes over a partition: the offset to start
// at, the batches that are stored, and the stored rows of an unfinished block. Those that look for messages
// read the projection messages, a row for each message; they name no other column and group by the columns of
// the projection that they use. Those that look for rows filter by (_partition, _offset), for which the table
// has an index.

// ExistingRows returns which rows of a block the table holds. The engine calls it after a pause, because the
// server may have dropped the token of the block. Rows of another block time are left out: a topic that was
// created anew has other messages at the same offsets.
func (s *Store) ExistingRows(ctx context.Context, block pipeline.BlockID) (map[pipeline.RowID]struct{}, error) {
	existing := map[pipeline.RowID]struct{}{}
	var row pipeline.RowID
	err := s.selectRows(ctx, "SELECT _offset, _index FROM "+s.cfg.table("events")+
		" WHERE _topic = ? AND _partition = ? AND _offset >= ? AND _offset < ?"+
		" AND `event.ingested` = fromUnixTimestamp64Nano(?)",
		[]any{block.Topic, block.Partition, block.Start, block.End, block.Time},
		[]any{&row.Offset, &row.Index}, func() { existing[row] = struct{}{} })
	return existing, err
}

// NewestRows describes the newest rows of a partition whose log ends at end; ok is false where the table holds none.
// The last two days are searched first, because a search of all days reads whole columns.
func (s *Store) NewestRows(
	ctx context.Context, from pipeline.TopicPartition, end int64,
) (newest pipeline.NewestRows, ok bool, err error) {
	for _, where := range []string{" AND `event.ingested` >= now() - toIntervalDay(2)", ""} {
		var count uint64
		var collector string
		err := s.driver.QueryRow(ctx, `
			SELECT count(), max(o), toUnixTimestamp64Nano(max(i)), countIf(o < ?) > 0,
				tupleElement(
					argMaxIf((o, toUnixTimestamp64Nano(i), UUIDStringToNum(toString(c)), e, q), (i, o), o < ?) AS known, 1),
				tupleElement(known, 2), tupleElement(known, 3), tupleElement(known, 4), tupleElement(known, 5)
			FROM (
				SELECT _offset AS o, `+"`event.ingested`"+` AS i, _collector AS c, _epoch AS e, _sequence AS q
				FROM `+s.cfg.table("events")+`
				WHERE _topic = ? AND _partition = ?`+where+`
				GROUP BY o, i, c, e, q
			)`, end, end, from.Topic, from.Partition).Scan(
			&count, &newest.Highest, &newest.LastTime, &newest.HasInLog,
			&newest.InLog.Offset, &newest.InLog.BlockTime, &collector, &newest.InLog.BatchID.Epoch, &newest.InLog.BatchID.Sequence)
		if err != nil {
			return newest, false, describeError(err, s.cfg)
		}
		if count > 0 {
			copy(newest.InLog.BatchID.Collector[:], collector)
			return newest, true, nil
		}
	}
	return pipeline.NewestRows{}, false, nil
}

// StoredBlock describes the stored rows of the block that was formed at blockTime.
func (s *Store) StoredBlock(
	ctx context.Context, from pipeline.TopicPartition, blockTime int64,
) (block pipeline.StoredBlock, err error) {
	err = s.driver.QueryRow(ctx, "SELECT min(_offset), max(_offset) + 1, max(notEmpty(`verdict.rule`)) = 1 FROM "+
		s.cfg.table("events")+" WHERE _topic = ? AND _partition = ? AND `event.ingested` = fromUnixTimestamp64Nano(?)",
		from.Topic, from.Partition, blockTime).Scan(&block.Start, &block.End, &block.HasVerdicts)
	if err != nil {
		return block, describeError(err, s.cfg)
	}
	err = s.driver.QueryRow(ctx, `
		SELECT if(count() = 0, 0, argMax(o, (i, o)) + 1)
		FROM (
			SELECT _offset AS o, `+"`event.ingested`"+` AS i
			FROM `+s.cfg.table("events")+`
			WHERE _topic = ? AND _partition = ? AND i < fromUnixTimestamp64Nano(?)
			GROUP BY o, i
		)`, from.Topic, from.Partition, blockTime).Scan(&block.EarlierEnd)
	return block, describeError(err, s.cfg)
}

// StoredBatches returns for each producer which batches are stored in the rows that the filter selects. The
// engine restores its duplicate filter from it. Without Since it reads the batch ids of all days.
//
// groupArraySorted keeps the smallest values, so the query sorts the complements of the sequences: the 64
// smallest complements are the 64 highest sequences.
func (s *Store) StoredBatches(ctx context.Context, filter pipeline.BatchFilter) ([]pipeline.StoredBatches, error) {
	// The inner query reduces the rows to batches, the outer one the batches to the highest 64 of each
	// producer.
	where, args := batchCondition(filter)
	var list []pipeline.StoredBatches
	var collector string
	var complements []uint64
	var stored pipeline.StoredBatches
	err := s.selectRows(ctx, `
		SELECT UUIDStringToNum(toString(c)), e, groupArraySorted(64)(18446744073709551615 - q)
		FROM (
			SELECT _collector AS c, _epoch AS e, _sequence AS q
			FROM `+s.cfg.table("events")+`
			WHERE `+where+`
			GROUP BY c, e, q
		)
		GROUP BY c, e`, args, []any{&collector, &stored.Epoch, &complements}, func() {
		copy(stored.Collector[:], collector)
		stored.SequenceWindow = sequenceWindow(complements)
		list = append(list, stored)
	})
	return list, err
}

// maxSequenceRanges bounds the result of SequenceRanges. The batches of a producer are numbered without gaps, so a
// producer has few ranges.
const maxSequenceRanges = 1_000_000

// SequenceRanges returns which batches are stored in the rows that the filter selects, as ranges of sequences.
func (s *Store) SequenceRanges(ctx context.Context, filter pipeline.BatchFilter) ([]pipeline.SequenceRange, error) {
	// Consecutive sequences of a producer have the same difference to their position.
	where, args := batchCondition(filter)
	var list []pipeline.SequenceRange
	var collector string
	var stored pipeline.SequenceRange
	err := s.selectRows(ctx, fmt.Sprintf(`
		SELECT UUIDStringToNum(toString(c)), e, min(q), max(q)
		FROM (
			SELECT c, e, q, q - row_number() OVER (PARTITION BY c, e ORDER BY q) AS difference
			FROM (
				SELECT _collector AS c, _epoch AS e, _sequence AS q
				FROM %s
				WHERE %s
				GROUP BY c, e, q
			)
		)
		GROUP BY c, e, difference
		ORDER BY c, e, min(q)
		LIMIT %d`, s.cfg.table("events"), where, maxSequenceRanges+1), args,
		[]any{&collector, &stored.Epoch, &stored.First, &stored.Last}, func() {
			copy(stored.Collector[:], collector)
			list = append(list, stored)
		})
	if err == nil && len(list) > maxSequenceRanges {
		return nil, fmt.Errorf("the rows of partition %d are of more than %d ranges of batches", filter.Partition,
			maxSequenceRanges)
	}
	return list, err
}

// batchCondition returns the WHERE clause for a filter and its arguments.
func batchCondition(filter pipeline.BatchFilter) (where string, args []any) {
	terms := []string{"_topic = ?", "_partition = ?", "_offset < ?"}
	args = []any{filter.Topic, filter.Partition, filter.Before}
	if filter.From > 0 {
		terms, args = append(terms, "_offset >= ?"), append(args, filter.From)
	}
	if filter.Except != 0 {
		terms, args = append(terms, "`event.ingested` != fromUnixTimestamp64Nano(?)"), append(args, filter.Except)
	}
	if !filter.Since.IsZero() {
		terms = append(terms, "`event.ingested` >= fromUnixTimestamp64Nano(?)")
		args = append(args, filter.Since.UnixNano())
	}
	if producer := filter.Producer; producer != nil {
		terms = append(terms, "_epoch = ?", "_collector = toUUID(?)")
		args = append(args, producer.Epoch, uuid.UUID(producer.Collector).String())
	}
	return strings.Join(terms, " AND "), args
}

// sequenceWindow returns the window of the sequences of which the complements are given.
func sequenceWindow(complements []uint64) (window pipeline.SequenceWindow) {
	for _, c := range complements {
		window.Highest = max(window.Highest, ^c)
	}
	for _, c := range complements {
		if distance := window.Highest - ^c; distance < 64 {
			window.Seen |= 1 << distance
		}
	}
	return window
}
