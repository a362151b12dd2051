package clickhouse

import (
	"context"
	"time"

	"github.com/google/uuid"
)

// ExistingRows is the set of rows, by (_offset, _index), that the table holds of the messages [from, to) of a partition, as a block of the time
// at (event.ingested) stored them: a topic that was made anew has other messages at the same offsets. The server is asked for them after a
// pause, when it may have forgotten the token of an unfinished block.
func (s *Store) ExistingRows(ctx context.Context, topic string, partition int32, from, to, at int64) (map[[2]int64]struct{}, error) {
	held := map[[2]int64]struct{}{}
	rows, err := s.driver.Query(ctx, "SELECT _offset, _index FROM "+s.cfg.table("events")+
		" WHERE _topic = ? AND _partition = ? AND _offset >= ? AND _offset < ? AND `event.ingested` = fromUnixTimestamp64Nano(?)", topic, partition, from, to, at)
	if err != nil {
		return nil, describeError(err, s.cfg)
	}
	defer rows.Close()
	for rows.Next() {
		var offset int64
		var index uint32
		if err := rows.Scan(&offset, &index); err != nil {
			return nil, describeError(err, s.cfg)
		}
		held[[2]int64{offset, int64(index)}] = struct{}{}
	}
	return held, describeError(rows.Err(), s.cfg)
}

// HighestOffset is the newest message of a partition of which a row is there; ok is false where there is none. The last days are
// asked first, since a look at all of them reads the column of offsets whole.
func (s *Store) HighestOffset(ctx context.Context, topic string, partition int32) (offset int64, ok bool, err error) {
	for _, where := range []string{" AND `event.ingested` >= now() - toIntervalDay(2)", ""} {
		var n uint64
		err := s.driver.QueryRow(ctx, "SELECT max(_offset), count() FROM "+s.cfg.table("events")+
			" WHERE _topic = ? AND _partition = ?"+where, topic, partition).Scan(&offset, &n)
		if err != nil {
			return 0, false, describeError(err, s.cfg)
		}
		if n > 0 {
			return offset, true, nil
		}
	}
	return 0, false, nil
}

// A BatchStamp is what a reader remembers of one life of a collector on one partition: the highest sequence that was stored, and
// which of the 64 up to it: bit i stands for Highest−i.
type BatchStamp struct {
	Collector [16]byte
	Epoch     uint64
	Highest   uint64
	Seen      uint64
}

// Stamps is the reader's memory of repeats as it was before the message at offset before, of what was stored since then.
func (s *Store) Stamps(ctx context.Context, topic string, partition int32, before int64, since time.Time) ([]BatchStamp, error) {
	rows, err := s.driver.Query(ctx, `
		SELECT UUIDStringToNum(toString(c)), b, arrayReverseSort(groupArraySorted(64)(18446744073709551615 - q))
		FROM (
			SELECT _collector AS c, _epoch AS b, _sequence AS q
			FROM `+s.cfg.table("events")+`
			WHERE _topic = ? AND _partition = ? AND _offset < ? AND `+"`event.ingested`"+` >= fromUnixTimestamp64Nano(?)
			GROUP BY c, b, q
		)
		GROUP BY c, b`, topic, partition, before, since.UnixNano())
	if err != nil {
		return nil, describeError(err, s.cfg)
	}
	defer rows.Close()
	var out []BatchStamp
	for rows.Next() {
		var collector string
		var sequences []uint64 // as their complements, so that the 64 smallest are the 64 highest
		var st BatchStamp
		if err := rows.Scan(&collector, &st.Epoch, &sequences); err != nil {
			return nil, describeError(err, s.cfg)
		}
		copy(st.Collector[:], collector)
		st.addSequences(sequences)
		out = append(out, st)
	}
	return out, describeError(rows.Err(), s.cfg)
}

// addSequences takes up the complements of sequences.
func (st *BatchStamp) addSequences(complements []uint64) {
	for _, q := range complements {
		st.Highest = max(st.Highest, ^q)
	}
	for _, q := range complements {
		if d := st.Highest - ^q; d < 64 {
			st.Seen |= 1 << d
		}
	}
}

// StampsOf is the same of one life, however long ago it was; ok is false where nothing of it was stored. It may read much.
func (s *Store) StampsOf(ctx context.Context, topic string, partition int32, collector [16]byte, epoch uint64, before int64) (st BatchStamp, ok bool, err error) {
	st = BatchStamp{Collector: collector, Epoch: epoch}
	var sequences []uint64
	err = s.driver.QueryRow(ctx, `
		SELECT groupArraySorted(64)(18446744073709551615 - q) FROM (
			SELECT _sequence AS q FROM `+s.cfg.table("events")+`
			WHERE _topic = ? AND _partition = ? AND _offset < ? AND _epoch = ? AND _collector = toUUID(?)
			GROUP BY q
		)`, topic, partition, before, epoch, uuid.UUID(collector).String()).Scan(&sequences)
	st.addSequences(sequences)
	return st, len(sequences) > 0, describeError(err, s.cfg)
}
